/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the turn. One turn is
 *      start what waits -> wait -> look at the clock -> take what is back -> done() -> timers -> watches
 *  LOOP-1  done() runs here only, from the list as it stood when the turn took it: what ends meanwhile (an op on an
 *          absent member, submitted from done()) waits for the next turn, so no chain of effects is unbounded. (IO-1)
 *  LOOP-2  the clock is read once a turn, after the wait. (IO-7)
 *  LOOP-3  a timer set from a callback of this turn fires in a later one.
 *  LOOP-4  a watch removed is not called again, not even from the batch in hand.
 * Never: touches a device. Next: io_member.c, io_posix.c, io_uring.c. */
#include "io_loop.h"

#include <base/assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64
#define TIMERS_AT_START 256u
#define WAIT_NS_MAX UINT64_C(3600000000000) /* an hour: far below what overflows a timespec anywhere */
#define HURRY_NS UINT64_C(1000000)

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void look_at_clock(struct io_loop *loop)
{
    loop->now_ns = clock_ns(CLOCK_MONOTONIC);
    loop->wall_ms = clock_ns(CLOCK_REALTIME) / 1000000;
}

struct io_member *io_loop_member(struct io_loop *loop, const struct io_op *op)
{
    ASSERT(op->target < loop->member_count);
    return &loop->members[op->target];
}

/* --- ops --- */

static void make_ready(struct io_loop *loop, struct io_op *op)
{
    io_private(op)->phase = IO_PHASE_READY;
    op->done_ns = loop->now_ns;
    link_push(&loop->ready, &op->link);
}

static void loop_submit(struct io *io, struct io_op *op)
{
    struct io_loop *loop = io_loop_of(io);
    struct io_member *m = io_loop_member(loop, op);
    ASSERT(op->done != NULL);
    op->link = (struct link){NULL, NULL};
    *io_private(op) = (struct io_private){0};
    op->submitted_ns = loop->now_ns;
    op->result = io_member_admit(m, op);
    if (op->result == ERR_OK)
        io_member_wait(m, op);
    else
        make_ready(loop, op);
}

static void loop_cancel(struct io *io, struct io_op *op)
{
    struct io_loop *loop = io_loop_of(io);
    switch ((enum io_phase)io_private(op)->phase) {
    case IO_PHASE_WAITING:
        link_remove(&op->link);
        op->result = ERR_CANCELED;
        make_ready(loop, op);
        break;
    case IO_PHASE_FLYING:
        loop->world->recall(loop, io_loop_member(loop, op), op);
        break;
    case IO_PHASE_READY:
        break; /* too late: the real result stands (IO-6) */
    }
}

void io_loop_landed(struct io_loop *loop, struct io_op *op)
{
    if (io_member_land(io_loop_member(loop, op), op))
        make_ready(loop, op);
}

static uint32_t run_ready(struct io_loop *loop)
{
    struct link now;
    uint32_t ran = 0;
    if (link_empty(&loop->ready))
        return 0;
    now = loop->ready; /* LOOP-1: the list as it stands */
    now.next->prev = &now;
    now.prev->next = &now;
    link_init(&loop->ready);
    for (struct link *l = link_pop(&now); l; l = link_pop(&now)) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        io_private(op)->phase = 0;
        op->done(op);
        ran++;
    }
    return ran;
}

static void push(struct io_loop *loop)
{
    for (uint32_t i = 0; i < loop->member_count; i++) {
        for (struct io_op *op = io_member_next_failed(&loop->members[i]); op;
             op = io_member_next_failed(&loop->members[i])) {
            op->result = ERR_MEMBER_GONE;
            make_ready(loop, op);
        }
    }
    loop->hurry = false;
    loop->world->push(loop);
}

/* --- timers --- */

static void grow_timers(struct io_loop *loop)
{
    uint32_t capacity = loop->timers.capacity * 2;
    struct heap_node **nodes = realloc(loop->timers.nodes, capacity * sizeof(struct heap_node *));
    ASSERT(nodes != NULL); /* a timer that is silently not set would stall mail for good: better to be restarted */
    loop->timers.nodes = nodes;
    loop->timers.capacity = capacity;
}

static void loop_timer_set(struct io *io, struct io_timer *t, uint64_t when_ns)
{
    struct io_loop *loop = io_loop_of(io);
    if (heap_node_in(&t->node))
        heap_remove(&loop->timers, &t->node);
    if (loop->in_turn && when_ns <= loop->now_ns)
        when_ns = loop->now_ns + 1; /* LOOP-3 */
    if (heap_push(&loop->timers, &t->node, when_ns) == ERR_OK)
        return;
    grow_timers(loop);
    enum err e = heap_push(&loop->timers, &t->node, when_ns);
    ASSERT(e == ERR_OK);
}

static void loop_timer_clear(struct io *io, struct io_timer *t)
{
    if (heap_node_in(&t->node))
        heap_remove(&io_loop_of(io)->timers, &t->node);
}

static uint32_t run_timers(struct io_loop *loop)
{
    uint32_t ran = 0;
    for (struct heap_node *top = heap_top(&loop->timers); top && top->key <= loop->now_ns;
         top = heap_top(&loop->timers)) {
        struct io_timer *t = CONTAINER_OF(heap_pop(&loop->timers), struct io_timer, node);
        t->fire(t);
        ran++;
    }
    return ran;
}

/* --- watches --- */

enum err io_watch_add(struct io *io, struct io_watch *watch)
{
    struct epoll_event event = {.events = watch->events, .data.ptr = watch};
    if (epoll_ctl(io_loop_of(io)->epoll, EPOLL_CTL_ADD, watch->fd, &event) == 0)
        return ERR_OK;
    return errno == EEXIST ? ERR_EXISTS : errno == ENOMEM || errno == ENOSPC ? ERR_NO_MEMORY : ERR_SYSTEM;
}

void io_watch_change(struct io *io, struct io_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (watch->events == events)
        return;
    watch->events = events;
    int rc = epoll_ctl(io_loop_of(io)->epoll, EPOLL_CTL_MOD, watch->fd, &event);
    ASSERT(rc == 0);
}

void io_watch_remove(struct io *io, struct io_watch *watch)
{
    struct io_loop *loop = io_loop_of(io);
    (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL); /* fails only when the fd is closed: gone as well */
    for (int i = 0; i < loop->batch_count; i++)
        if (loop->batch[i].data.ptr == watch)
            loop->batch[i].data.ptr = NULL; /* LOOP-4 */
}

static uint32_t run_watches(struct io_loop *loop)
{
    uint32_t ran = 0;
    for (int i = 0; i < loop->batch_count; i++) {
        struct io_watch *watch = loop->batch[i].data.ptr;
        if (!watch)
            continue; /* the wake eventfd, or removed by a callback before this one */
        watch->ready(watch, loop->batch[i].events);
        ran++;
    }
    return ran;
}

/* --- the turn --- */

static uint64_t wait_at_most(struct io_loop *loop, uint64_t wait_ns)
{
    const struct heap_node *top = heap_top(&loop->timers);
    if (!link_empty(&loop->ready))
        return 0;
    if (loop->hurry && wait_ns > HURRY_NS)
        wait_ns = HURRY_NS;
    if (wait_ns > 0 && top) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        uint64_t left = top->key > now ? top->key - now : 0;
        wait_ns = left < wait_ns ? left : wait_ns;
    }
    return wait_ns < WAIT_NS_MAX ? wait_ns : WAIT_NS_MAX;
}

static int wait_once(struct io_loop *loop, struct epoll_event *events, uint64_t wait_ns)
{
    struct timespec t = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
    if (!loop->old_kernel) {
        int count = epoll_pwait2(loop->epoll, events, EVENTS_PER_TURN, &t, NULL);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM))
            return count;
        loop->old_kernel = true; /* before 5.11, or a filter that does not know the call */
    }
    return epoll_wait(loop->epoll, events, EVENTS_PER_TURN, (int)((wait_ns + 999999) / 1000000));
}

/* A completion for this thread interrupts its wait, and posts itself and the wake on the way out: looking once more
 * takes the wake, which would end the next turn for nothing, and what the sockets have. */
static int wait_events(struct io_loop *loop, struct epoll_event *events, uint64_t wait_ns)
{
    int count = wait_once(loop, events, wait_ns);
    if (count < 0 && errno == EINTR)
        count = wait_once(loop, events, 0);
    return count < 0 ? 0 : count;
}

static uint32_t loop_turn(struct io *io, uint64_t wait_ns)
{
    struct io_loop *loop = io_loop_of(io);
    struct epoll_event events[EVENTS_PER_TURN];
    ASSERT(!loop->in_turn);
    push(loop);
    int count = wait_events(loop, events, wait_at_most(loop, wait_ns));
    look_at_clock(loop); /* LOOP-2 */
    loop->in_turn = true;
    loop->batch = events;
    loop->batch_count = count;
    loop->world->reap(loop);
    uint32_t ran = run_ready(loop);
    ran += run_timers(loop);
    ran += run_watches(loop);
    loop->batch = NULL;
    loop->batch_count = 0;
    loop->in_turn = false;
    return ran;
}

/* --- the rest of the seam --- */

static uint64_t loop_now_ns(struct io *io) { return io_loop_of(io)->now_ns; }
static uint64_t loop_wall_ms(struct io *io) { return io_loop_of(io)->wall_ms; }
static uint32_t loop_target_count(struct io *io) { return io_loop_of(io)->member_count; }
static const char *loop_name(struct io *io) { return io_loop_of(io)->world->name; }

static uint64_t loop_random64(struct io *io)
{
    struct io_loop *loop = io_loop_of(io);
    if (loop->random_left == 0) {
        /* up to 256 bytes come whole and without EINTR once the kernel's pool is seeded (getrandom(2)) */
        ssize_t got;
        do
            got = getrandom(loop->random, sizeof loop->random, 0);
        while (got < 0 && errno == EINTR);
        ASSERT(got == (ssize_t)sizeof loop->random);
        loop->random_left = IO_RANDOM_WORDS;
    }
    uint64_t word = loop->random[--loop->random_left];
    loop->random[loop->random_left] = 0;
    return word;
}

static const struct io_target *loop_target(struct io *io, uint16_t target)
{
    ASSERT(target < io_loop_of(io)->member_count);
    return &io_loop_of(io)->members[target].target;
}

static void loop_target_set_durable_by(struct io *io, uint16_t target, enum io_durable_by by)
{
    struct io_loop *loop = io_loop_of(io);
    ASSERT(target < loop->member_count);
    if (!loop->members[target].target.buffered) /* MBR-3: there it is always write, then flush */
        loop->members[target].target.durable_by = by;
}

static const struct io_ops loop_ops = {
    .submit = loop_submit,
    .cancel = loop_cancel,
    .turn = loop_turn,
    .now_ns = loop_now_ns,
    .wall_ms = loop_wall_ms,
    .random64 = loop_random64,
    .timer_set = loop_timer_set,
    .timer_clear = loop_timer_clear,
    .target_count = loop_target_count,
    .target = loop_target,
    .target_set_durable_by = loop_target_set_durable_by,
    .name = loop_name,
};

static bool open_wake(struct io_loop *loop)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return loop->epoll >= 0 && loop->wake >= 0 && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) == 0;
}

enum err io_loop_open(struct io_loop **loop_out)
{
    struct io_loop *loop = calloc(1, sizeof *loop);
    struct heap_node **nodes = calloc(TIMERS_AT_START, sizeof(struct heap_node *));
    if (!loop || !nodes) {
        free(loop);
        free(nodes);
        return ERR_NO_MEMORY;
    }
    loop->io.ops = &loop_ops;
    heap_init(&loop->timers, nodes, TIMERS_AT_START);
    link_init(&loop->ready);
    link_init(&loop->landed.ops);
    pthread_mutex_init(&loop->landed.lock, NULL);
    if (!open_wake(loop)) {
        enum err e = errno == EMFILE || errno == ENFILE ? ERR_NO_FD : ERR_SYSTEM;
        io_loop_close(&loop);
        return e;
    }
    look_at_clock(loop);
    *loop_out = loop;
    return ERR_OK;
}

void io_loop_close(struct io_loop **loop)
{
    struct io_loop *l = *loop;
    for (uint32_t i = 0; i < l->member_count; i++)
        io_member_close(&l->members[i]);
    if (l->epoll >= 0)
        close(l->epoll);
    if (l->wake >= 0)
        close(l->wake);
    pthread_mutex_destroy(&l->landed.lock);
    free(l->timers.nodes);
    free(l);
    *loop = NULL;
}
