/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the threads of a member and the hand-over to and from them.
 *  WRK-1  between io_workers_give and the loop's reap an op belongs to the workers; they write io_private.moved_now and
 *         .flushed, nothing else, and the mutexes order those writes before the loop's reads.
 *  WRK-2  a worker takes by class; with more than one worker, background classes never hold the last one.
 *  WRK-3  flushes run one at a time, and one that succeeds behind one that failed since its write began says so (MBR-4): the
 *         failure may not have reached the loop yet.
 * Never: classifies an error, calls done(). */
#include "io_workers.h"

#include <base/assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define WORKERS_MAX 8u
#define WORKER_STACK_BYTES (256 * 1024) /* the calls below need little; sanitizers need some */

struct io_workers {
    struct io_loop *loop;
    struct io_member *member;
    pthread_mutex_t lock;
    pthread_cond_t work;
    /* guarded by lock */
    struct link queued[IO_CLASS_COUNT];
    uint32_t background;
    bool stopping;
    pthread_mutex_t syncing;      /* held during a flush */
    atomic_uint syncs_failed;     /* written by its holder */
    /* fixed once started */
    uint32_t count;
    pthread_t threads[WORKERS_MAX];
};

/* --- the calls; each returns bytes or -errno --- */

static int64_t answer(ssize_t rc)
{
    return rc < 0 ? -errno : rc;
}

/* failed_before: w->syncs_failed when what it is for began; `doubted`: the answer when another one has failed since */
static int64_t call_sync(struct io_workers *w, unsigned failed_before, int64_t doubted)
{
    pthread_mutex_lock(&w->syncing);
    int64_t rc = answer(fdatasync(w->member->fd));
    if (rc < 0)
        atomic_fetch_add(&w->syncs_failed, 1);
    else if (atomic_load(&w->syncs_failed) != failed_before)
        rc = doubted; /* WRK-3 */
    pthread_mutex_unlock(&w->syncing);
    return rc;
}

static int64_t call_write_through(int fd, const struct iovec *iov, off_t offset, bool *flush_out)
{
    ssize_t rc = pwritev2(fd, iov, 1, offset, RWF_DSYNC);
    if (rc >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
        return answer(rc);
    *flush_out = true; /* no such flag here: the long way */
    return answer(pwritev(fd, iov, 1, offset));
}

static void call_write(struct io_workers *w, struct io_op *op, struct iovec iov, off_t offset)
{
    struct io_private *p = io_private(op);
    const struct io_member *m = w->member;
    unsigned failed_before = atomic_load(&w->syncs_failed);
    bool flush = p->way == IO_WAY_THEN_FLUSH;
    if (p->way == IO_WAY_THROUGH)
        p->moved_now = call_write_through(m->fd, &iov, offset, &flush);
    else
        p->moved_now = answer(pwritev(m->fd, &iov, 1, offset));
    if (flush && p->moved_now == (int64_t)iov.iov_len)
        p->flushed = call_sync(w, failed_before, -EAGAIN); /* doubted: once more, the write too */
}

static int64_t call_discard(int fd, const struct io_op *op)
{
    uint64_t range[2] = {op->offset, op->length};
    return answer(ioctl(fd, BLKDISCARD, range));
}

static void call(struct io_workers *w, struct io_op *op)
{
    struct io_private *p = io_private(op);
    const struct io_member *m = w->member;
    struct iovec rest = {op->buffer ? (char *)op->buffer + p->moved : NULL, op->length - p->moved};
    off_t offset = (off_t)(op->offset + p->moved);
    switch (op->kind) {
    case IO_READ:
        p->moved_now = answer(preadv(m->fd, &rest, 1, offset));
        break;
    case IO_WRITE:
        call_write(w, op, rest, offset);
        break;
    case IO_FLUSH:
        p->moved_now = call_sync(w, atomic_load(&w->syncs_failed), -EIO);
        break;
    case IO_DISCARD:
        p->moved_now = call_discard(m->fd, op);
        break;
    }
}

/* --- to the workers --- */

static struct io_op *take(struct io_workers *w) /* lock held */
{
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++) {
        bool background = c >= IO_CLASS_REPAIR;
        if (background && w->count > 1 && w->background >= w->count - 1) /* WRK-2 */
            return NULL;
        struct link *l = link_pop(&w->queued[c]);
        if (!l)
            continue;
        w->background += background;
        return CONTAINER_OF(l, struct io_op, link);
    }
    return NULL;
}

void io_workers_give(struct io_workers *w, struct io_op *op)
{
    pthread_mutex_lock(&w->lock);
    link_push(&w->queued[op->class], &op->link);
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

bool io_workers_recall(struct io_workers *w, struct io_op *op)
{
    bool found = false;
    pthread_mutex_lock(&w->lock);
    LINK_EACH(l, &w->queued[op->class])
        found = found || l == &op->link;
    if (found)
        link_remove(&op->link);
    pthread_mutex_unlock(&w->lock);
    return found;
}

/* --- and back --- */

static void land(struct io_loop *loop, struct io_op *op)
{
    uint64_t one = 1;
    pthread_mutex_lock(&loop->landed.lock);
    bool first = link_empty(&loop->landed.ops);
    link_push(&loop->landed.ops, &op->link);
    pthread_mutex_unlock(&loop->landed.lock);
    if (first && write(loop->wake, &one, sizeof one) != (ssize_t)sizeof one)
        UNREACHABLE(); /* an eventfd refuses only at 2^64 - 2 */
}

void io_workers_reap(struct io_loop *loop)
{
    struct link mine;
    link_init(&mine);
    pthread_mutex_lock(&loop->landed.lock);
    for (struct link *l = link_pop(&loop->landed.ops); l; l = link_pop(&loop->landed.ops))
        link_push(&mine, l);
    pthread_mutex_unlock(&loop->landed.lock);
    for (struct link *l = link_pop(&mine); l; l = link_pop(&mine))
        io_loop_landed(loop, CONTAINER_OF(l, struct io_op, link));
}

static void *worker_main(void *argument)
{
    struct io_workers *w = argument;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct io_op *op = w->stopping ? NULL : take(w);
        if (op) {
            bool background = op->class >= IO_CLASS_REPAIR;
            pthread_mutex_unlock(&w->lock);
            call(w, op);
            land(w->loop, op);
            pthread_mutex_lock(&w->lock);
            w->background -= background;
            if (background)
                pthread_cond_signal(&w->work); /* one that slept because of WRK-2 may go on */
        } else if (w->stopping) {
            break;
        } else {
            pthread_cond_wait(&w->work, &w->lock);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- life --- */

static int start_threads(struct io_workers *w, uint32_t threads)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int rc = 0;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    for (uint32_t i = 0; i < threads && rc == 0; i++) {
        rc = pthread_create(&w->threads[i], &attr, worker_main, w);
        w->count += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

enum err io_workers_start(struct io_loop *loop, struct io_member *m, uint32_t threads, struct io_workers **out)
{
    ASSERT(threads > 0 && threads <= WORKERS_MAX);
    struct io_workers *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NO_MEMORY;
    w->loop = loop;
    w->member = m;
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++)
        link_init(&w->queued[c]);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->syncing, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_mutex_lock(&w->lock); /* none reads w->count before it stands */
    int rc = start_threads(w, threads);
    pthread_mutex_unlock(&w->lock);
    if (rc != 0) {
        io_workers_stop(&w);
        return rc == EAGAIN ? ERR_NO_MEMORY : ERR_SYSTEM;
    }
    *out = w;
    return ERR_OK;
}

void io_workers_stop(struct io_workers **at)
{
    struct io_workers *w = *at;
    *at = NULL;
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->count; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->syncing);
    free(w);
}
