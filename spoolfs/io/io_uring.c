/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the world of io_uring; the only file that knows liburing. One ring for each member, so that a stuck disk fills
 * nobody else's queues. All rings signal the loop's one eventfd; completions are read from shared memory, so a turn
 * costs one io_uring_enter for each ring with something new and no call for what came back.
 *  RNG-1  an op has at most one entry with the kernel. Write-then-flush is not linked: the flush is submitted when the
 *         write is back. A link saves one wake-up, but the chain ends where the kernel stops taking entries, and a flush
 *         that ran beside its write would prove nothing. (IO-4)
 *         One flush of a member runs at a time (MBR-4): what needs one meanwhile waits in `unflushed`, and the next serves
 *         all of it, in the name of the first; the others have no entry.
 *  RNG-2  the submission queue holds IO_IN_FLIGHT_PER_MEMBER_MAX ops and CANCELS_MAX cancels, the completion queue all
 *         of their answers: neither overflows.
 *  RNG-3  a cancel names its op by address; it is with the kernel before the op can end and be used again, because the
 *         submission queue is handed over before completions are taken.
 * Works on Linux 6.1; nothing newer is used. Discards need a thread there (io_workers.c).
 * Never: classifies an error, calls done(). */
#include "io_worlds.h"
#include "io_workers.h"

#include <base/assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CANCELS_MAX 64u
#define ENTRIES (IO_IN_FLIGHT_PER_MEMBER_MAX + CANCELS_MAX)

struct ring {
    bool open;
    struct io_uring uring;
    uint32_t flying; /* entries given or to be given to the kernel whose completion is not taken: ops and cancels */
    uint32_t cancels;
    struct link unflushed; /* ops whose flush is to begin */
    struct link flushing;  /* those it is under way for, the first with its entry */
    struct io_workers *discards; /* NULL where the device has none */
};

struct uring_world {
    struct ring rings[MEMBERS_MAX];
};

/* --- to the kernel --- */

static struct io_uring_sqe *entry(struct ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    ASSERT(sqe != NULL); /* RNG-2 */
    r->flying++;
    return sqe;
}

static void prepare(struct ring *r, struct io_op *op)
{
    struct io_private *p = io_private(op);
    struct io_uring_sqe *sqe = entry(r);
    char *buffer = (char *)op->buffer + p->moved;
    if (p->flushing)
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    else if (op->kind == IO_READ)
        io_uring_prep_read(sqe, 0, buffer, op->length - p->moved, op->offset + p->moved);
    else
        io_uring_prep_write(sqe, 0, buffer, op->length - p->moved, op->offset + p->moved);
    if (p->way == IO_WAY_THROUGH)
        sqe->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, op);
}

static void want_flush(struct ring *r, struct io_op *op)
{
    io_private(op)->flushing = true;
    link_push(&r->unflushed, &op->link);
}

static void start_flush(struct ring *r)
{
    if (!link_empty(&r->flushing) || link_empty(&r->unflushed))
        return;
    prepare(r, CONTAINER_OF(r->unflushed.next, struct io_op, link));
    for (struct link *l = link_pop(&r->unflushed); l; l = link_pop(&r->unflushed))
        link_push(&r->flushing, l);
}

static void hand_over(struct io_loop *loop, struct ring *r)
{
    if (io_uring_sq_ready(&r->uring) == 0)
        return;
    int rc = io_uring_submit(&r->uring);
    if (rc < 0 || io_uring_sq_ready(&r->uring) > 0) {
        ASSERT(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR || rc == -ENOMEM);
        loop->hurry = true; /* the kernel is short of something: the rest stays queued, the next turn tries again */
    }
}

static void uring_push(struct io_loop *loop)
{
    struct uring_world *world = loop->world_state;
    for (uint32_t i = 0; i < loop->member_count; i++) {
        struct ring *r = &world->rings[i];
        if (!r->open)
            continue;
        for (struct io_op *op = io_member_next(&loop->members[i]); op; op = io_member_next(&loop->members[i])) {
            if (op->kind == IO_DISCARD)
                io_workers_give(r->discards, op);
            else if (op->kind == IO_FLUSH)
                want_flush(r, op);
            else
                prepare(r, op);
        }
        start_flush(r);
        hand_over(loop, r);
    }
}

static void uring_recall(struct io_loop *loop, struct io_member *m, struct io_op *op)
{
    struct uring_world *world = loop->world_state;
    struct ring *r = &world->rings[m - loop->members];
    if (op->kind == IO_DISCARD) {
        if (!io_workers_recall(r->discards, op))
            return;
        io_private(op)->moved_now = -ECANCELED;
        io_loop_landed(loop, op);
        return;
    }
    if (r->cancels == CANCELS_MAX)
        return; /* a wish may go unheard (IO-6) */
    struct io_uring_sqe *sqe = entry(r);
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data(sqe, NULL);
    r->cancels++;
}

/* --- and back --- */

/* Who was canceled is only the first: the others try again. */
static void flush_is_back(struct io_loop *loop, struct ring *r, int res)
{
    for (struct link *l = link_pop(&r->flushing); l; l = link_pop(&r->flushing)) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        *(op->kind == IO_FLUSH ? &io_private(op)->moved_now : &io_private(op)->flushed) = res;
        io_loop_landed(loop, op);
        res = res == -ECANCELED ? -EAGAIN : res;
    }
}

static void take(struct io_loop *loop, struct ring *r, const struct io_uring_cqe *cqe)
{
    struct io_op *op = io_uring_cqe_get_data(cqe);
    ASSERT(r->flying > 0);
    r->flying--;
    if (!op) {
        r->cancels--;
        return;
    }
    struct io_private *p = io_private(op);
    if (p->flushing) {
        flush_is_back(loop, r, cqe->res);
        return;
    }
    p->moved_now = cqe->res;
    if (p->way == IO_WAY_THEN_FLUSH && cqe->res > 0 && (uint32_t)cqe->res == op->length - p->moved)
        want_flush(r, op); /* RNG-1 */
    else
        io_loop_landed(loop, op);
}

static void uring_reap(struct io_loop *loop)
{
    struct uring_world *world = loop->world_state;
    bool discards = false;
    for (uint32_t i = 0; i < loop->member_count; i++) {
        struct ring *r = &world->rings[i];
        struct io_uring_cqe *cqe;
        unsigned head, taken = 0;
        if (!r->open)
            continue;
        discards = discards || r->discards;
        if (r->cancels > 0 && io_uring_sq_ready(&r->uring) > 0)
            continue; /* RNG-3: the kernel was short and a cancel may still be here */
        io_uring_for_each_cqe(&r->uring, head, cqe) {
            take(loop, r, cqe);
            taken++;
        }
        if (taken > 0) {
            io_uring_cq_advance(&r->uring, taken);
            start_flush(r);
            hand_over(loop, r); /* flushes wait for nothing */
        }
    }
    if (discards)
        io_workers_reap(loop);
}

/* --- life --- */

static void ring_close(struct ring *r)
{
    io_workers_stop(&r->discards);
    if (!r->open)
        return;
    while (r->flying > 0) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_submit_and_wait(&r->uring, 1);
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
            break;
        while (r->flying > 0 && io_uring_peek_cqe(&r->uring, &cqe) == 0) {
            io_uring_cqe_seen(&r->uring, cqe);
            r->flying--;
        }
    }
    /* The kernel tears a ring down behind our back: give the file back first, so that it is free when we return. */
    (void)syscall(SYS_io_uring_register, r->uring.ring_fd, IORING_UNREGISTER_FILES, NULL, 0);
    io_uring_queue_exit(&r->uring);
    r->open = false;
}

static void uring_close(struct io_loop *loop)
{
    struct uring_world *world = loop->world_state;
    for (uint32_t i = 0; i < loop->member_count; i++)
        ring_close(&world->rings[i]);
    free(world);
    loop->world_state = NULL;
}

/* What a ring may do once it runs, whoever gets hold of it: a system call filter does not see what rings do.
 * Debian 12's liburing declares functions for these two calls and does not contain them. */
static int restrict_ring(struct io_uring *uring)
{
    static const uint8_t allowed[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_ASYNC_CANCEL};
    struct io_uring_restriction res[sizeof allowed + 2];
    memset(res, 0, sizeof res);
    for (size_t i = 0; i < sizeof allowed; i++) {
        res[i].opcode = IORING_RESTRICTION_SQE_OP;
        res[i].sqe_op = allowed[i];
    }
    res[sizeof allowed].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    res[sizeof allowed].sqe_flags = IOSQE_FIXED_FILE;
    res[sizeof allowed + 1].opcode = IORING_RESTRICTION_REGISTER_OP;
    res[sizeof allowed + 1].register_op = IORING_UNREGISTER_FILES; /* for ring_close */
    if (syscall(SYS_io_uring_register, uring->ring_fd, IORING_REGISTER_RESTRICTIONS, res, sizeof res / sizeof res[0]) ||
        syscall(SYS_io_uring_register, uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
        return -errno;
    return 0;
}

/* COOP_TASKRUN (5.19): completions are posted when we enter the kernel anyway, which every turn does; no interrupts to
 * the running thread. */
static int ring_init(struct io_uring *uring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN};
    int rc = io_uring_queue_init_params(ENTRIES, uring, &params);
    if (rc == -EINVAL) {
        params = (struct io_uring_params){.flags = IORING_SETUP_R_DISABLED};
        rc = io_uring_queue_init_params(ENTRIES, uring, &params);
    }
    return rc;
}

static enum err ring_open(struct io_loop *loop, struct io_member *m, struct ring *r, int *rc_out)
{
    *rc_out = ring_init(&r->uring);
    if (*rc_out < 0)
        return ERR_SYSTEM;
    r->open = true;
    link_init(&r->unflushed);
    link_init(&r->flushing);
    *rc_out = io_uring_register_files(&r->uring, &m->fd, 1);
    if (*rc_out >= 0)
        *rc_out = io_uring_register_eventfd(&r->uring, loop->wake);
    if (*rc_out >= 0)
        *rc_out = restrict_ring(&r->uring);
    if (*rc_out < 0)
        return ERR_SYSTEM;
    return m->target.discards ? io_workers_start(loop, m, 1, &r->discards) : ERR_OK;
}

static enum err explain(struct io_loop *loop, int number)
{
    const char *why;
    switch (number) {
    case EPERM:
    case EACCES:
        why = "io_uring is forbidden here (kernel.io_uring_disabled or a container's system call filter)";
        break;
    case ENOSYS:
        why = "this kernel has no io_uring, or a filter hides it";
        break;
    case ENOMEM:
        why = "io_uring got no memory (RLIMIT_MEMLOCK)";
        break;
    case EMFILE:
    case ENFILE:
        why = "no file descriptor left for io_uring";
        break;
    default:
        snprintf(loop->why, sizeof loop->why, "io_uring cannot be set up: %s", strerror(number));
        return ERR_SYSTEM;
    }
    snprintf(loop->why, sizeof loop->why, "%s", why);
    return number == EPERM || number == EACCES ? ERR_DENIED : ERR_SYSTEM;
}

static const struct io_world uring_world = {
    .name = "uring",
    .push = uring_push,
    .reap = uring_reap,
    .recall = uring_recall,
    .close = uring_close,
};

enum err io_uring_open(struct io_loop *loop)
{
    struct uring_world *world = calloc(1, sizeof *world);
    if (!world)
        return ERR_NO_MEMORY;
    loop->world_state = world;
    for (uint32_t i = 0; i < loop->member_count; i++) {
        int rc = 0;
        if (!loop->members[i].target.present)
            continue;
        enum err e = ring_open(loop, &loop->members[i], &world->rings[i], &rc);
        if (e != ERR_OK) {
            uring_close(loop);
            return rc < 0 ? explain(loop, -rc) : e;
        }
    }
    loop->world = &uring_world;
    return ERR_OK;
}
