/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's one loop: sockets, timers, end-of-turn tasks. The only door to libevent's event base. */
#ifndef RELAY_LOOP_H
#define RELAY_LOOP_H

#include <base/err.h>
#include <base/link.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

enum err loop_open(struct loop **loop_out) MUST_CHECK;
void loop_close(struct loop **loop);
void loop_run(struct loop *loop);  /* until loop_stop */
void loop_stop(struct loop *loop);
uint64_t loop_now_ms(struct loop *loop);  /* monotonic, cached for the turn */
uint64_t loop_wall_ms(struct loop *loop); /* since 1970 */
void *loop_base(struct loop *loop);       /* struct event_base *, for conn.c and http.c only */

struct loop_timer {
    void (*fire)(struct loop_timer *t);
    void *owner;
    void *event; /* private */
};
void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(struct loop_timer *), void *owner);
void loop_timer_set(struct loop_timer *t, uint64_t after_ms); /* again moves it */
void loop_timer_clear(struct loop_timer *t);
void loop_timer_fini(struct loop_timer *t);

struct loop_watch {
    int fd;
    void (*ready)(struct loop_watch *w, bool readable, bool writable);
    void *owner;
    void *read_event, *write_event; /* private */
};
enum err loop_watch_add(struct loop *loop, struct loop_watch *w, bool read, bool write) MUST_CHECK;
void loop_watch_change(struct loop_watch *w, bool read, bool write);
void loop_watch_remove(struct loop_watch *w);

/* Runs once at the end of this turn, after all ready events: one write per turn on the socketpair and the log. */
struct loop_task {
    struct link link; /* private */
    void (*run)(struct loop_task *t);
    void *owner;
};
void loop_defer(struct loop *loop, struct loop_task *t); /* harmless when deferred already */
void loop_defer_cancel(struct loop_task *t);

#endif
