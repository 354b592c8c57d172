/* SPDX-License-Identifier: Apache-2.0 */
/* What schedule.c (which mail starts when), schedule_lane.c (who waits how long), schedule_sort.c (in which lane) and
 * schedule_mark.c (what its end means) share. Nobody else includes it. */
#ifndef RELAY_SCHEDULE_PARTS_H
#define RELAY_SCHEDULE_PARTS_H

#include "attempt.h"
#include "schedule.h"

#define SCHEDULE_BUCKETS 32768u       /* of the items by queue id */
#define SCHEDULE_STARTS_PER_RUN 256u  /* then the sockets get a turn */
#define SCHEDULE_LANE_WINDOW 256u     /* backlog queued for one MX destination before the spool is told to hand out
                                         others' mail: an eighth of the window */

#define SCHEDULE_PAUSES 4096u         /* as many as the spool keeps */

struct schedule_pause { uint64_t destination, until_ms; };

struct schedule {
    struct loop *loop;
    struct port *port;
    const struct settings *settings;
    struct attempts *attempts;
    struct lane_table lanes;
    struct lane_limits limits;
    struct link *buckets;             /* items by queue id */
    struct link ready[LANE_QUEUES];   /* lanes, LAN-3 */
    struct link unmarked;             /* finished jobs that wait for room to be marked, for a queue id or a head */
    struct link unreleased;           /* items without jobs whose lease could not be ended yet */
    uint32_t unmarked_count;
    struct loop_task pump;
    struct loop_timer wake;           /* the next dead lane */
    struct loop_timer retry;          /* of marks, when it was memory that was short */
    uint32_t active, active_of[LANE_CLASSES], turn, backlog_turn;
    uint32_t items, fresh_items;
    uint32_t due_held, due_asked;
    struct schedule_pause pauses[SCHEDULE_PAUSES];
    bool blocked;                     /* the port had no room for a mark or no queue id: nothing starts, SCH-4 */
    bool marks_waiting_to_try;        /* there is room again, or a head has come */
    bool draining;
    void (*drained)(void *owner);
    void *drained_owner;
    struct schedule_counters counters;
};

/* schedule.c */
void schedule_pump_soon(struct schedule *s);
void schedule_free_item(struct schedule *s, struct item *item);

/* schedule_lane.c */
uint64_t schedule_destination_of(const struct job *job);
void schedule_enqueue(struct schedule *s, struct job *job, bool front);
void schedule_dequeue(struct schedule *s, struct job *job);
void schedule_update_ready(struct schedule *s, struct lane *lane);
void schedule_pause_destination(struct schedule *s, uint64_t destination, uint64_t until_ms); /* 0: the pause is over */
void schedule_suspend(struct schedule *s, struct job *job); /* the job's lane is dead; the job is gone */
void schedule_bury_lane(struct schedule *s, struct lane *lane);
void schedule_set_wake(struct schedule *s);
void schedule_wake_fired(struct loop_timer *t);

/* schedule_sort.c */
void schedule_sort(struct schedule *s, struct item *item);

/* schedule_mark.c */
void mark_outcome(struct schedule *s, struct job *job, uint32_t recipient, const struct outcome *o, const char *relay);
void mark_job(struct schedule *s, struct job *job);       /* every recipient has an outcome; the job is gone, or kept
                                                             in `unmarked` */
void mark_release(struct schedule *s, struct item *item); /* no job is left: ends the lease; SCH-1 */
void mark_retry(struct schedule *s);                      /* what waits */
void mark_defer_all(struct schedule *s, struct job *job, const struct outcome *why, uint64_t wait_ms);
void mark_free_job(struct schedule *s, struct job *job);

#endif
