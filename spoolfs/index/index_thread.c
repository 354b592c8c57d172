/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the index's files and the thread that owns LMDB.
 *
 *   index_lmdb_open -> thread: lock the directory -> try in a child process -> open, or discard and start empty
 *   -> loop: take from the ring; flush after FLUSH_AFTER_NS or when full; answer; sync now and then
 *
 * Invariants: IDX-4. THREAD-1: only the thread touches the core and the store. THREAD-2: between two commands that
 * change something at most FLUSH_AFTER_NS pass until they are in the store, unless the store fails: then it is tried
 * again every RETRY_NS, the ring fills, and index_feed says ERR_INDEX_LAG; for lack of room index_full says so at once.
 * THREAD-3: what the child died of, the parent never reads. */
#include "port.h"
#include "index_lmdb.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS UINT64_C(1000000)
#define FLUSH_AFTER_NS (200 * NS_PER_MS)   /* long enough that mail delivered at once never reaches the store */
#define SYNC_AFTER_NS (5000 * NS_PER_MS)   /* the meta page NOMETASYNC left behind */
#define RETRY_NS (1000 * NS_PER_MS)
#define TRIAL_SECONDS 30u                  /* a tree that goes in circles */
#define TRIAL_LOOK_NS (1000 * NS_PER_MS)   /* what is not looked at by then is checked when it is read */
#define BEHIND_ROWS 4096u                  /* of the full check that runs behind, at a time */
#define BEHIND_PAUSE_NS (100 * NS_PER_MS)

struct lmdb_index {
    struct index x;                        /* first */
    pthread_t thread;
    int wake_fd, lock_fd;
    atomic_bool stop, idle, woken;
    bool started, gathering, dirty, core_there;
    uint64_t batches, flush_at_ns, retry_at_ns, sync_at_ns, behind_at_ns;
    struct key behind;                     /* len 0: the full check is over */
    char directory[STORE_PATH_BYTES - 16];
};

static struct lmdb_index *owner_of(struct index *x)
{
    return (struct lmdb_index *)(void *)x;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 * NS_PER_MS + (uint64_t)t.tv_nsec;
}

static void event_set(int fd)
{
    ssize_t n = write(fd, &(uint64_t){1}, 8);
    (void)n; /* full means set */
}

static void event_clear(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n;
}

/* --- files --- */

static enum err file_remove(const char *directory, const char *name)
{
    char path[STORE_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR ? ERR_OK : ERR_DENIED;
}

enum err index_lmdb_discard(const char *directory)
{
    return file_remove(directory, STORE_FILE);
}

/* --- the trial --- */

struct trial { uint64_t until_ns; struct rows_look rows; };

static bool trial_look(struct bytes key, struct bytes value, void *arg)
{
    struct trial *t = arg;
    return rows_look(&t->rows, key, value) && (t->rows.rows % 256 != 0 || now_ns() < t->until_ns);
}

#define TRIAL_FD 3 /* where the child says its verdict, the only descriptor it keeps */

_Noreturn static void trial_child(const char *directory, int say)
{
    sigset_t none;
    struct trial t = {.until_ns = now_ns() + TRIAL_LOOK_NS};
    struct rlimit no_core = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &no_core);
    for (int s = SIGHUP; s <= SIGTERM; s++)
        signal(s, SIG_DFL); /* death tells the parent more than any handler */
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    alarm(TRIAL_SECONDS);
    dup2(say, TRIAL_FD);
    close_range(TRIAL_FD + 1, ~0u, 0); /* the members' locks are the parent's alone */
    enum err e = store_lmdb_try(directory, trial_look, &t);
    uint8_t verdict = (uint8_t)(t.rows.bad ? ERR_CORRUPT : e);
    ssize_t n = write(TRIAL_FD, &verdict, 1);
    _exit(n == 1 ? 0 : 1);
}

/* ERR_OK, ERR_NOT_FOUND, ERR_CORRUPT; else it could not be tried. */
static enum err trial(const char *directory)
{
    int say[2];
    uint8_t verdict;
    ssize_t n;
    if (pipe2(say, O_CLOEXEC) != 0)
        return ERR_NO_FD;
    pid_t child = fork();
    if (child == 0)
        trial_child(directory, say[1]);
    close(say[1]);
    do
        n = child < 0 ? -1 : read(say[0], &verdict, 1); /* nothing: it died of it */
    while (n < 0 && errno == EINTR);
    close(say[0]);
    if (child < 0)
        return ERR_NO_MEMORY;
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {} /* whoever ignores SIGCHLD has no status to give */
    return n == 1 ? (enum err)verdict : ERR_CORRUPT;
}

/* --- open, in the thread --- */

static void core_drop(struct lmdb_index *l)
{
    struct store *store = l->x.core.store;
    if (!l->core_there)
        return;
    l->core_there = false;
    core_fini(&l->x.core);
    store_close(store);
}

static enum err core_make(struct lmdb_index *l, struct uuid pool)
{
    struct store *store;
    enum err e = store_lmdb_open(l->directory, &store);
    if (e != ERR_OK)
        return e;
    e = core_init(&l->x.core, store, pool, &l->x.out);
    if (e != ERR_OK) {
        store_close(store);
        return e;
    }
    l->core_there = true;
    return core_open(&l->x.core);
}

/* A file system that became read-only has no room either. */
static bool no_room(enum err e)
{
    return e == ERR_FULL || e == ERR_MEMBER_FULL || e == ERR_DENIED;
}

static void thread_tell_room(struct lmdb_index *l, enum err e)
{
    if (atomic_exchange(&l->x.full, no_room(e)) != no_room(e))
        event_set(l->x.event_fd);
}

static bool open_verdict(enum err e)
{
    return e == ERR_OK || e == ERR_NOT_FOUND || e == ERR_CORRUPT;
}

/* ERR_OK, ERR_NOT_FOUND, ERR_CORRUPT (and now it is empty); else not now. */
static enum err open_once(struct lmdb_index *l, struct uuid pool)
{
    enum err e = trial(l->directory);
    if (e == ERR_OK)
        e = core_make(l, pool);
    if (l->core_there && (e == ERR_OK || e == ERR_NOT_FOUND))
        return e;
    core_drop(l);
    if (!open_verdict(e))
        return e;
    pthread_mutex_lock(&l->x.out.lock);
    l->x.out.damaged = false; /* nobody has used it yet */
    pthread_mutex_unlock(&l->x.out.lock);
    enum err made = file_remove(l->directory, STORE_FILE);
    if (made == ERR_OK)
        made = core_make(l, pool);
    if (made != ERR_NOT_FOUND) {
        core_drop(l);
        return no_room(made) ? made : ERR_SYSTEM;
    }
    return e;
}

static bool thread_pause(struct lmdb_index *l, uint64_t ns)
{
    struct pollfd p = {.fd = l->wake_fd, .events = POLLIN};
    struct timespec t = {(time_t)(ns / (1000 * NS_PER_MS)), (long)(ns % (1000 * NS_PER_MS))};
    ppoll(&p, 1, &t, NULL);
    if (p.revents)
        event_clear(l->wake_fd);
    atomic_store(&l->woken, false);
    return !atomic_load(&l->stop);
}

static bool thread_open(struct lmdb_index *l)
{
    const struct uuid pool = l->x.core.pool;
    while (flock(l->lock_fd, LOCK_EX | LOCK_NB) != 0) /* the process before us is still going */
        if (!thread_pause(l, RETRY_NS / 10))
            return false;
    enum err e = open_once(l, pool);
    while (!open_verdict(e)) {
        thread_tell_room(l, e);
        if (!thread_pause(l, RETRY_NS))
            return false;
        e = open_once(l, pool);
    }
    thread_tell_room(l, ERR_OK);
    l->behind = e == ERR_OK ? key_of(1) : (struct key){0};
    port_opened(&l->x, e);
    event_set(l->x.event_fd);
    return true;
}

/* --- the loop --- */

/* One slice of the full check, when nothing else is to be done. */
static void thread_look_behind(struct lmdb_index *l)
{
    struct core *c = &l->x.core;
    struct bytes key, value, body;
    struct key last = {0};
    enum err e = store_begin(c->store, false);
    if (e != ERR_OK)
        return;
    e = store_seek(c->store, key_bytes(&l->behind), &key, &value);
    for (uint32_t n = 0; e == ERR_OK && n < BEHIND_ROWS; n++) {
        last.len = (uint8_t)key.len;
        memcpy(last.b, key.at, key.len);
        e = value_open(key, value, &body);
        if (e == ERR_OK)
            e = store_next(c->store, &key, &value);
    }
    store_abort(c->store);
    l->behind = e == ERR_OK ? key_after(&last) : (struct key){0};
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        core_damage(c, "the full check found a row that fails its check");
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void thread_wait(struct lmdb_index *l)
{
    struct core *c = &l->x.core;
    uint64_t now = now_ns(), until = UINT64_MAX;
    if (core_pending(c))
        until = l->flush_at_ns;
    if (l->dirty)
        until = earlier(until, l->sync_at_ns);
    if (l->behind.len && !c->damaged)
        until = earlier(until, l->behind_at_ns);
    if (l->retry_at_ns)
        until = l->retry_at_ns;
    atomic_store(&l->idle, !core_pending(c));
    bool nothing = l->retry_at_ns || (ring_used(&l->x.ring) == 0 && !port_asked(&l->x));
    struct pollfd p = {.fd = l->wake_fd, .events = POLLIN};
    uint64_t left = until > now ? until - now : 0;
    struct timespec t = {(time_t)(left / (1000 * NS_PER_MS)), (long)(left % (1000 * NS_PER_MS))};
    if (nothing && !atomic_load(&l->stop))
        ppoll(&p, 1, until == UINT64_MAX ? NULL : &t, NULL);
    atomic_store(&l->idle, false);
    if (p.revents)
        event_clear(l->wake_fd);
    atomic_store(&l->woken, false);
}

/* When the gathered must be in the store, and when the file synced. */
static void thread_note(struct lmdb_index *l, uint64_t now)
{
    struct core *c = &l->x.core;
    bool flushed = c->batches != l->batches;
    l->batches = c->batches;
    if (flushed && !l->dirty) {
        l->dirty = true;
        l->sync_at_ns = now + SYNC_AFTER_NS;
    }
    if (core_pending(c) && (flushed || !l->gathering))
        l->flush_at_ns = now + FLUSH_AFTER_NS;
    l->gathering = core_pending(c);
}

static void thread_turn(struct lmdb_index *l)
{
    struct core *c = &l->x.core;
    uint64_t now = now_ns();
    if (l->retry_at_ns && now < l->retry_at_ns)
        return;
    enum err e = port_drain(&l->x);
    thread_note(l, now);
    if (e == ERR_OK && core_pending(c) && now >= l->flush_at_ns)
        e = core_flush(c);
    if (e == ERR_OK)
        e = port_answer(&l->x);
    if (e != ERR_OK)
        port_answer_possible(&l->x); /* a full file system silences nobody */
    thread_note(l, now);
    if (e == ERR_OK && l->dirty && now >= l->sync_at_ns) {
        l->dirty = false;
        if ((e = store_sync(c->store)) == ERR_CORRUPT)
            core_damage(c, "the file could not be synced");
    }
    if (e == ERR_OK && l->behind.len && !c->damaged && now >= l->behind_at_ns) {
        thread_look_behind(l);
        l->behind_at_ns = now + BEHIND_PAUSE_NS;
    }
    l->retry_at_ns = e == ERR_OK ? 0 : now_ns() + RETRY_NS; /* THREAD-2 */
    thread_tell_room(l, e);
    if (port_has_news(&l->x))
        event_set(l->x.event_fd);
}

static void *thread_main(void *arg)
{
    struct lmdb_index *l = arg;
    if (!thread_open(l))
        return NULL;
    while (!atomic_load(&l->stop)) {
        thread_wait(l);
        thread_turn(l);
    }
    if (port_drain(&l->x) == ERR_OK && core_flush(&l->x.core) == ERR_OK && !l->x.core.damaged &&
        store_sync(l->x.core.store) != ERR_OK)
        l->dirty = true; /* the next mount replays what is missing */
    core_drop(l);
    return NULL;
}

/* --- the doors --- */

static void lmdb_wake(struct index *x, bool now)
{
    struct lmdb_index *l = owner_of(x);
    bool wanted = now || atomic_load(&l->idle) || ring_room(&x->ring) < INDEX_RING_BYTES / 2;
    if (wanted && !atomic_exchange(&l->woken, true))
        event_set(l->wake_fd);
}

static void lmdb_work(struct index *x)
{
    event_clear(x->event_fd);
}

static void lmdb_stop(struct index *x)
{
    struct lmdb_index *l = owner_of(x);
    if (l->started) {
        atomic_store(&l->stop, true);
        event_set(l->wake_fd);
        pthread_join(l->thread, NULL);
    }
    core_drop(l);
    close(l->wake_fd);
    close(l->lock_fd);
    close(x->event_fd);
}

static enum err lmdb_files(struct lmdb_index *l, const char *directory)
{
    if (strlen(directory) >= sizeof l->directory)
        return ERR_TOO_LARGE;
    snprintf(l->directory, sizeof l->directory, "%s", directory);
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return errno == EACCES || errno == EROFS ? ERR_DENIED : ERR_SYSTEM;
    l->lock_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->x.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return l->lock_fd >= 0 && l->wake_fd >= 0 && l->x.event_fd >= 0 ? ERR_OK : ERR_SYSTEM;
}

static enum err lmdb_start(struct lmdb_index *l)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the engine's thread's */
    int rc = pthread_create(&l->thread, NULL, thread_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    l->started = rc == 0;
    return rc == 0 ? ERR_OK : ERR_NO_MEMORY;
}

enum err index_lmdb_open(const char *directory, struct uuid pool, const struct index_callbacks *cb,
                         struct index **index_out)
{
    struct lmdb_index *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NO_MEMORY;
    l->wake_fd = l->lock_fd = -1;
    l->x.wake = lmdb_wake;
    l->x.work = lmdb_work;
    l->x.stop = lmdb_stop;
    enum err e = port_init(&l->x, cb);
    l->x.core.pool = pool; /* for the thread */
    if (e == ERR_OK)
        e = lmdb_files(l, directory);
    if (e == ERR_OK)
        e = lmdb_start(l);
    struct index *x = &l->x;
    if (e != ERR_OK)
        index_close(&x);
    else
        *index_out = x;
    return e;
}
