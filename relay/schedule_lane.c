/* SPDX-License-Identifier: Apache-2.0 */
/* What the schedule does with its lanes: who is ready, who waits how long, what the spool is told to pause, and what
 * becomes of a dead lane's jobs. The lanes themselves are lane.c's; invariants in schedule.h and lane.h. */
#include "schedule_parts.h"

#include "log.h"

#include <stdio.h>
#include <string.h>

/* LAN-3 */
void schedule_update_ready(struct schedule *s, struct lane *lane)
{
    for (uint32_t c = 0; c < LANE_QUEUES; c++) {
        bool ready = lane_can_start(lane, c);
        if (ready && !link_linked(&lane->ready[c]))
            link_push(&s->ready[c], &lane->ready[c]);
        else if (!ready && link_linked(&lane->ready[c]))
            link_remove(&lane->ready[c]);
    }
}

/* Remembered, so that a destination is not paused again for each of its mails, and a flush can end what it began. Two
 * that share a place in the table forget each other: that costs a message more, or a wait the flush did not end. */
void schedule_pause_destination(struct schedule *s, uint64_t destination, uint64_t until_ms)
{
    struct schedule_pause *p = &s->pauses[destination % SCHEDULE_PAUSES];
    if (p->destination == destination && p->until_ms >= until_ms && until_ms > 0)
        return;
    *p = (struct schedule_pause){.destination = destination, .until_ms = until_ms};
    port_pause_destination(s->port, destination, until_ms);
}

uint64_t schedule_destination_of(const struct job *job)
{
    return envelope_destination(job->recipients[0].address, job->recipients[0].len);
}

/* One MX destination's backlog shall not fill the window that all share: the spool skips it until its lane is half
 * empty. A lane that many domains share (relayhost, LMTP, Maildir) is the way of all, so there is nothing to prefer. */
static void balance_window(struct schedule *s, struct lane *lane, const struct job *job)
{
    bool own = lane->route.mx && lane->route.nexthop[0] == '\0';
    if (!own || lane->dead_until_ms)
        return;
    if (!lane->paused && lane->queued > SCHEDULE_LANE_WINDOW) {
        lane->paused = true;
        schedule_pause_destination(s, schedule_destination_of(job), loop_now_ms(s->loop) + s->limits.backoff_max_ms);
    } else if (lane->paused && lane->queued < SCHEDULE_LANE_WINDOW / 2) {
        lane->paused = false;
        schedule_pause_destination(s, schedule_destination_of(job), 0);
    }
}

void schedule_enqueue(struct schedule *s, struct job *job, bool front)
{
    struct lane *lane = job->lane;
    struct link *queue = &lane->queue[lane_queue_of(job->class, job->item->mail->images)];
    job->state = JOB_QUEUED;
    if (front) {
        link_push_front(queue, &job->link); /* it has waited since it came (SCH-6) */
    } else {
        job->queued_ms = loop_now_ms(s->loop);
        link_push(queue, &job->link);
    }
    lane->queued++;
    schedule_update_ready(s, lane);
    balance_window(s, lane, job);
}

void schedule_dequeue(struct schedule *s, struct job *job)
{
    link_remove(&job->link);
    job->lane->queued--;
    schedule_update_ready(s, job->lane);
    balance_window(s, job->lane, job);
}

/* --- death of a lane --- */

void schedule_set_wake(struct schedule *s)
{
    uint64_t now = loop_now_ms(s->loop);
    struct heap_node *n = heap_top(&s->lanes.wakes);
    if (n)
        loop_timer_set(&s->wake, n->key > now ? n->key - now : 0);
    else
        loop_timer_clear(&s->wake);
}

/* Mail for a dead lane is not tried: it waits where the destination waits, in the spool. */
void schedule_suspend(struct schedule *s, struct job *job)
{
    struct lane *lane = job->lane;
    uint64_t now = loop_now_ms(s->loop);
    uint64_t wait = lane->dead_until_ms > now ? lane->dead_until_ms - now : 0;
    struct outcome o = lane->why_dead;
    char text[2 * REASON_BYTES_MAX];
    int n = snprintf(text, sizeof text, "delivery temporarily suspended: %s", lane->why_dead.text);
    memcpy(o.text, text, (size_t)n < sizeof o.text ? (size_t)n + 1 : sizeof o.text);
    o.text[sizeof o.text - 1] = '\0';
    schedule_pause_destination(s, schedule_destination_of(job), lane->dead_until_ms);
    mark_defer_all(s, job, &o, wait);
}

void schedule_bury_lane(struct schedule *s, struct lane *lane)
{
    log_line("qmgr", "warning: destination %s is dead for %llu s: %s", lane->route.host,
             (unsigned long long)((lane->dead_until_ms - loop_now_ms(s->loop)) / 1000), lane->why_dead.text);
    schedule_update_ready(s, lane);
    for (uint32_t c = 0; c < LANE_QUEUES; c++) {
        for (struct link *l = link_pop(&lane->queue[c]); l; l = link_pop(&lane->queue[c])) {
            lane->queued--;
            schedule_suspend(s, CONTAINER_OF(l, struct job, link));
        }
    }
    lane->paused = false;
    schedule_set_wake(s);
}

void schedule_wake_fired(struct loop_timer *t)
{
    struct schedule *s = t->owner;
    uint64_t now = loop_now_ms(s->loop);
    for (struct lane *lane = lane_wake(&s->lanes, now, now, &s->limits); lane;
         lane = lane_wake(&s->lanes, now, now, &s->limits))
        schedule_update_ready(s, lane);
    schedule_set_wake(s);
    schedule_pump_soon(s);
}
