/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the relay's loop (relay/loop.h) in the virtual time of a world: timers and tasks, no sockets. What the relay would log is not
 * kept. Linked instead of relay/loop.c and relay/log.c, never beside them. */
#include "sim_relay.h"

#include "log.h"

#include <base/assert.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)

struct armed { struct link link; struct loop *loop; struct loop_timer *timer; uint64_t due_ms; bool set; };

struct loop *sim_loop_make(struct world *w)
{
    struct loop *loop = calloc(1, sizeof *loop);
    ASSERT(loop != NULL);
    loop->w = w;
    link_init(&loop->tasks);
    link_init(&loop->timers);
    return loop;
}

void sim_loop_free(struct loop **loop)
{
    ASSERT(link_empty(&(*loop)->timers));
    free(*loop);
    *loop = NULL;
}

uint64_t loop_now_ms(struct loop *loop) { return sim_io_now(loop->w->sim) / MS; }
uint64_t loop_wall_ms(struct loop *loop) { return io_wall_ms(loop->w->io); }

void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(struct loop_timer *), void *owner)
{
    struct armed *a = calloc(1, sizeof *a);
    ASSERT(a != NULL);
    *a = (struct armed){.loop = loop, .timer = t};
    *t = (struct loop_timer){.fire = fire, .owner = owner, .event = a};
    link_push(&loop->timers, &a->link);
}

void loop_timer_set(struct loop_timer *t, uint64_t after_ms)
{
    struct armed *a = t->event;
    a->set = true;
    a->due_ms = loop_now_ms(a->loop) + after_ms;
}

void loop_timer_clear(struct loop_timer *t)
{
    if (t->event)
        ((struct armed *)t->event)->set = false;
}

void loop_timer_fini(struct loop_timer *t)
{
    struct armed *a = t->event;
    if (!a)
        return;
    link_remove(&a->link);
    free(a);
    t->event = NULL;
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

static struct loop_timer *loop_due(struct loop *loop)
{
    LINK_EACH(l, &loop->timers) {
        struct armed *a = CONTAINER_OF(l, struct armed, link);
        if (a->set && a->due_ms <= loop_now_ms(loop)) {
            a->set = false;
            return a->timer;
        }
    }
    return NULL;
}

#define FIRED_MAX 1024u /* in one turn: whoever arms itself anew for now waits for the next */

void sim_loop_turn(struct loop *loop)
{
    struct loop_timer *t;
    for (uint32_t n = 0; n < FIRED_MAX && (t = loop_due(loop)) != NULL; n++)
        t->fire(t);
    struct link now; /* what they defer comes with the next turn */
    link_init(&now);
    for (struct link *l; (l = link_pop(&loop->tasks)) != NULL;)
        link_push(&now, l);
    for (struct link *l; (l = link_pop(&now)) != NULL;) {
        struct loop_task *task = CONTAINER_OF(l, struct loop_task, link);
        task->run(task);
    }
}

void log_line(const char *service, const char *format, ...)
{
    (void)service;
    (void)format;
}
