/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's loop over libevent: owns the event base, the turn's clock and the end-of-turn tasks.
 * A turn: wait, run what is ready, then run the tasks. Never blocks but in the wait. See loop.h. */
#include "loop.h"

#include <base/assert.h>
#include <event2/event.h>
#include <stdlib.h>
#include <time.h>

/* Tasks may defer tasks; what is left after so many rounds waits for one poll of the sockets, so that tasks that keep
 * each other alive cannot starve them. 8: the longest chain (room -> intake -> reply -> flush) is 4. */
#define TASK_ROUNDS_MAX 8

struct loop {
    struct event_base *base;
    struct link tasks;
    uint64_t now_ms, wall_ms;
    bool running, stopped;
};

static uint64_t clock_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

enum err loop_open(struct loop **loop_out)
{
    struct loop *loop = calloc(1, sizeof *loop);
    struct event_config *config = event_config_new();
    enum err e = ERR_NO_MEMORY;
    if (!loop || !config)
        goto out;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK); /* one thread */
    loop->base = event_base_new_with_config(config);
    if (!loop->base) {
        e = ERR_SYSTEM;
        goto out;
    }
    link_init(&loop->tasks);
    *loop_out = loop;
    loop = NULL;
    e = ERR_OK;
out:
    if (config)
        event_config_free(config);
    free(loop);
    return e;
}

void loop_close(struct loop **loop)
{
    if (!*loop)
        return;
    event_base_free((*loop)->base);
    free(*loop);
    *loop = NULL;
}

static void run_tasks(struct loop *loop)
{
    for (int round = 0; round < TASK_ROUNDS_MAX && !link_empty(&loop->tasks); round++) {
        struct link last; /* marks the end of this round: what is deferred meanwhile comes behind it */
        last.next = NULL;
        link_push(&loop->tasks, &last);
        for (struct link *l = link_pop(&loop->tasks); l != &last; l = link_pop(&loop->tasks)) {
            struct loop_task *t = CONTAINER_OF(l, struct loop_task, link);
            t->run(t);
        }
    }
}

void loop_run(struct loop *loop)
{
    loop->stopped = false;
    loop->running = true;
    run_tasks(loop);
    while (!loop->stopped) {
        int flags = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY;
        if (!link_empty(&loop->tasks))
            flags |= EVLOOP_NONBLOCK;
        loop->now_ms = loop->wall_ms = 0; /* asked anew once the wait is over */
        int failed = event_base_loop(loop->base, flags);
        ASSERT(failed >= 0);
        run_tasks(loop);
    }
    loop->running = false;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}

uint64_t loop_now_ms(struct loop *loop)
{
    if (!loop->running)
        return clock_ms(CLOCK_MONOTONIC);
    if (loop->now_ms == 0)
        loop->now_ms = clock_ms(CLOCK_MONOTONIC);
    return loop->now_ms;
}

uint64_t loop_wall_ms(struct loop *loop)
{
    if (!loop->running)
        return clock_ms(CLOCK_REALTIME);
    if (loop->wall_ms == 0)
        loop->wall_ms = clock_ms(CLOCK_REALTIME);
    return loop->wall_ms;
}

void *loop_base(struct loop *loop)
{
    return loop->base;
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
    struct loop_timer *t = arg;
    (void)fd;
    (void)what;
    t->fire(t);
}

void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(struct loop_timer *), void *owner)
{
    t->fire = fire;
    t->owner = owner;
    t->event = event_new(loop->base, -1, 0, timer_fired, t);
    ASSERT(t->event); /* 128 bytes; the callers' own allocations of kilobytes are checked */
}

void loop_timer_set(struct loop_timer *t, uint64_t after_ms)
{
    struct timeval tv = {.tv_sec = (time_t)(after_ms / 1000), .tv_usec = (suseconds_t)(after_ms % 1000 * 1000)};
    int failed = event_add(t->event, &tv);
    ASSERT(!failed);
}

void loop_timer_clear(struct loop_timer *t)
{
    if (t->event)
        event_del(t->event);
}

void loop_timer_fini(struct loop_timer *t)
{
    if (t->event)
        event_free(t->event);
    t->event = NULL;
}

static void watch_ready(evutil_socket_t fd, short what, void *arg)
{
    struct loop_watch *w = arg;
    (void)fd;
    w->ready(w, what & EV_READ, what & EV_WRITE);
}

enum err loop_watch_add(struct loop *loop, struct loop_watch *w, bool read, bool write)
{
    w->read_event = event_new(loop->base, w->fd, EV_READ | EV_PERSIST, watch_ready, w);
    w->write_event = event_new(loop->base, w->fd, EV_WRITE | EV_PERSIST, watch_ready, w);
    if (!w->read_event || !w->write_event) {
        loop_watch_remove(w);
        return ERR_NO_MEMORY;
    }
    if ((read && event_add(w->read_event, NULL)) || (write && event_add(w->write_event, NULL))) {
        loop_watch_remove(w);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

static void set_event(struct event *e, short what, bool on)
{
    if (on == !!event_pending(e, what, NULL))
        return;
    int failed = on ? event_add(e, NULL) : event_del(e);
    ASSERT(!failed);
}

void loop_watch_change(struct loop_watch *w, bool read, bool write)
{
    set_event(w->read_event, EV_READ, read);
    set_event(w->write_event, EV_WRITE, write);
}

void loop_watch_remove(struct loop_watch *w)
{
    if (w->read_event)
        event_free(w->read_event);
    if (w->write_event)
        event_free(w->write_event);
    w->read_event = w->write_event = NULL;
}

void loop_defer(struct loop *loop, struct loop_task *t)
{
    if (!link_linked(&t->link))
        link_push(&loop->tasks, &t->link);
}

void loop_defer_cancel(struct loop_task *t)
{
    if (link_linked(&t->link))
        link_remove(&t->link);
}
