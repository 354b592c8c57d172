/* SPDX-License-Identifier: Apache-2.0 */
/* Which mail starts when. Owns items, lanes and the ready lists; keeps the window over the spool's due mail filled.
 * Which lane a recipient belongs to is schedule_sort.c's, what an end means schedule_mark.c's, how to deliver attempt.c's.
 *
 *      fresh, due -> take -> sort into jobs -> lane queues -> pump -> attempt -> mark -> item gone
 *                                                 ^-- again (nothing happened to it) --'
 *
 * No step looks at all mail: taking is O(recipients), starting and ending are O(1). */
#include "schedule_parts.h"

#include "log.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

/* --- items --- */

static struct link *bucket_of(const struct schedule *s, struct queue_id qid)
{
    uint64_t h = (qid.incarnation ^ qid.counter * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return &s->buckets[(h >> 40) % SCHEDULE_BUCKETS];
}

static struct item *find_item(const struct schedule *s, struct queue_id qid)
{
    LINK_EACH(l, bucket_of(s, qid)) {
        struct item *item = CONTAINER_OF(l, struct item, hash_link);
        if (queue_id_equal(item->mail->qid, qid))
            return item;
    }
    return NULL;
}

void schedule_free_item(struct schedule *s, struct item *item)
{
    ASSERT(link_empty(&item->jobs));
    link_remove(&item->hash_link);
    s->items--;
    if (item->due)
        s->due_held--;
    else
        s->fresh_items--;
    mail_unref(&item->mail);
    free(item->body);
    free(item);
    schedule_pump_soon(s);
}

static struct item *make_item(struct schedule *s, struct mail *mail, enum lane_class class, bool due)
{
    struct item *item = calloc(1, sizeof *item);
    if (!item)
        return NULL;
    item->mail = mail;
    item->class = class;
    item->due = due;
    link_init(&item->jobs);
    link_push(bucket_of(s, mail->qid), &item->hash_link);
    s->items++;
    if (due)
        s->due_held++;
    else
        s->fresh_items++;
    return item;
}

static void log_active(const struct mail *m)
{
    char qid[QUEUE_ID_TEXT];
    queue_id_print(m->qid, qid);
    log_line("qmgr", "%s: from=<%.*s>, size=%llu, nrcpt=%u (queue active)", qid, (int)m->envelope.sender_len,
             m->envelope.sender, (unsigned long long)m->body_bytes, m->envelope.recipient_count);
}

static bool memory_is_full(const struct schedule *s)
{
    return mail_memory_bytes() > s->settings->fresh_bytes_max + SCHEDULE_MEMORY_MAX;
}

static void take(struct schedule *s, struct mail *mail, enum lane_class class, bool due)
{
    struct item *item = find_item(s, mail->qid) ? NULL : make_item(s, mail, class, due);
    if (!item) { /* handed out twice, or no memory: the lease that is held, or the next connection, brings it back */
        mail_unref(&mail);
        return;
    }
    bool too_many = s->fresh_items > SCHEDULE_FRESH_MAX || memory_is_full(s);
    bool back = s->draining || (!due && (too_many || (mail->envelope.flags & ENVELOPE_HOLD)));
    if (back) { /* SCH-3; and mail that arrives held is the spool's */
        item->staying = 1;
        mark_release(s, item);
        return;
    }
    if (due || (mail->envelope.flags & ENVELOPE_BOUNCE)) /* intake has said so of what came over the network */
        log_active(mail);
    schedule_sort(s, item);
    schedule_pump_soon(s);
}

void schedule_fresh(struct schedule *s, struct mail *mail)
{
    if (mail->body && mail->chunk_count == 0 && mail_memory_bytes() > s->settings->fresh_bytes_max)
        mail_drop_body(mail);
    take(s, mail, LANE_FRESH, false);
}

void schedule_on_due(struct schedule *s, struct mail *mail)
{
    if (s->due_asked > 0)
        s->due_asked--;
    take(s, mail, LANE_BACKLOG, true);
}

/* --- starting --- */

static uint32_t active_max(const struct schedule *s)
{
    return s->settings->deliveries_max ? s->settings->deliveries_max : 1;
}

/* The queue to take from: of the backlog the one whose mail has the fewest images (SCH-6). LANE_QUEUES: none is ready. */
static uint32_t ready_queue(const struct schedule *s, enum lane_class class)
{
    uint32_t queue = class == LANE_FRESH ? LANE_QUEUE_FRESH : LANE_QUEUE_RISK;
    while (queue < LANE_QUEUES && lane_class_of(queue) == class && link_empty(&s->ready[queue]))
        queue++;
    return queue < LANE_QUEUES && lane_class_of(queue) == class ? queue : LANE_QUEUES;
}

/* SCH-2 */
static bool may_start(const struct schedule *s, enum lane_class class)
{
    uint32_t reserve = active_max(s) / SCHEDULE_FRESH_SHARE;
    if (ready_queue(s, class) == LANE_QUEUES)
        return false;
    return class == LANE_FRESH || s->active_of[LANE_BACKLOG] < active_max(s) - reserve;
}

static struct job *first_of(const struct schedule *s, uint32_t queue)
{
    const struct lane *lane = CONTAINER_OF(s->ready[queue].next, struct lane, ready[queue]);
    return CONTAINER_OF(lane->queue[queue].next, struct job, link);
}

/* Of the backlog's queues, one of which is ready: the one whose first job has waited longest; of two as old the one that risk
 * puts last. */
static uint32_t oldest_queue(const struct schedule *s)
{
    uint32_t oldest = ready_queue(s, LANE_BACKLOG);
    for (uint32_t queue = oldest + 1; queue < LANE_QUEUES; queue++)
        if (!link_empty(&s->ready[queue]) && first_of(s, queue)->queued_ms <= first_of(s, oldest)->queued_ms)
            oldest = queue;
    return oldest;
}

/* SCH-6 */
static uint32_t next_queue(struct schedule *s, enum lane_class class)
{
    if (class == LANE_FRESH || ++s->backlog_turn % SCHEDULE_OLDEST_TURN != 0)
        return ready_queue(s, class);
    uint32_t oldest = oldest_queue(s);
    bool long_enough = loop_now_ms(s->loop) - first_of(s, oldest)->queued_ms >= SCHEDULE_STAND_BACK_MS;
    return long_enough ? oldest : ready_queue(s, class);
}

static struct job *next_job(struct schedule *s)
{
    enum lane_class first = s->turn % SCHEDULE_BACKLOG_TURN == SCHEDULE_BACKLOG_TURN - 1 ? LANE_BACKLOG : LANE_FRESH;
    enum lane_class class = may_start(s, first) ? first : first == LANE_FRESH ? LANE_BACKLOG : LANE_FRESH;
    if (!may_start(s, class))
        return NULL;
    s->turn++;
    uint32_t queue = next_queue(s, class);
    struct job *job = first_of(s, queue);
    link_remove(&job->lane->ready[queue]);
    link_push(&s->ready[queue], &job->lane->ready[queue]); /* round robin */
    return job;
}

static void start(struct schedule *s, struct job *job)
{
    job->lane->busy++;
    job->lane->busy_of[job->class]++;
    schedule_dequeue(s, job);
    job->state = JOB_ACTIVE;
    job->started_ms = loop_now_ms(s->loop);
    job->connected_ms = 0;
    s->active++;
    s->active_of[job->class]++;
    s->counters.attempts++;
    attempt_start(s->attempts, job);
}

static void stopped(struct schedule *s, struct job *job)
{
    struct lane *lane = job->lane;
    ASSERT(job->state == JOB_ACTIVE && lane->busy > 0 && s->active > 0);
    lane->busy--;
    lane->busy_of[job->class]--;
    s->active--;
    s->active_of[job->class]--;
    schedule_update_ready(s, lane);
    schedule_pump_soon(s);
}

static void want_due(struct schedule *s)
{
    uint32_t room = WIRE_DUE_CREDIT_MAX - s->due_held;
    uint32_t ask = room < SCHEDULE_HELPING ? room : SCHEDULE_HELPING;
    if (s->draining || s->blocked || memory_is_full(s) || s->due_asked > ask / 2)
        return;
    uint32_t count = ask - s->due_asked;
    if (count == 0)
        return;
    s->due_asked += count;
    port_want_due(s->port, count);
}

static void run_pump(struct loop_task *t)
{
    struct schedule *s = t->owner;
    if (s->marks_waiting_to_try)
        mark_retry(s);
    for (uint32_t n = 0; !s->draining && !s->blocked && s->active < active_max(s) && s->unmarked_count < active_max(s); n++) {
        if (n == SCHEDULE_STARTS_PER_RUN) {
            schedule_pump_soon(s);
            break;
        }
        struct job *job = next_job(s);
        if (!job)
            break;
        start(s, job);
    }
    want_due(s);
    if (s->draining && s->drained && s->active == 0 && s->unmarked_count == 0) {
        void (*done)(void *owner) = s->drained;
        s->drained = NULL;
        done(s->drained_owner); /* may close us */
    }
}

void schedule_pump_soon(struct schedule *s)
{
    loop_defer(s->loop, &s->pump);
}

static void retry_fired(struct loop_timer *t)
{
    schedule_on_room(t->owner);
}

/* --- what attempts tell --- */

static void on_outcome(void *owner, struct job *job, uint32_t recipient, const struct outcome *o, const char *relay)
{
    mark_outcome(owner, job, recipient, o, relay);
}

static void on_done(void *owner, struct job *job)
{
    struct schedule *s = owner;
    struct lane *lane = job->lane;
    stopped(s, job);
    mark_job(s, job);
    lane_free_when_empty(&s->lanes, lane);
}

static void again(struct schedule *s, struct job *job, const struct outcome *why)
{
    if (job->lane->dead_until_ms) {
        schedule_suspend(s, job);
    } else if (job->item->recalled || s->draining || job->retries++ >= LANE_RETRIES_MAX) {
        for (uint32_t i = 0; i < job->count; i++)
            if (job->recipients[i].status == MARK_PENDING)
                mark_outcome(s, job, i, why, "none");
        mark_job(s, job);
    } else {
        schedule_enqueue(s, job, true);
    }
}

static void on_again(void *owner, struct job *job, const struct outcome *why)
{
    struct schedule *s = owner;
    struct lane *lane = job->lane;
    stopped(s, job);
    again(s, job, why);
    lane_free_when_empty(&s->lanes, lane);
}

static void on_host_failed(void *owner, struct job *job, const struct outcome *why)
{
    struct schedule *s = owner;
    struct lane *lane = job->lane;
    stopped(s, job);
    if (lane_failed(&s->lanes, lane, &s->limits, loop_now_ms(s->loop), why)) {
        /* the job that found out is deferred for its own reason, the others because of it */
        schedule_pause_destination(s, schedule_destination_of(job), lane->dead_until_ms);
        for (uint32_t i = 0; i < job->count; i++)
            if (job->recipients[i].status == MARK_PENDING)
                mark_outcome(s, job, i, why, "none");
        mark_job(s, job);
        schedule_bury_lane(s, lane);
    } else {
        again(s, job, why);
        schedule_update_ready(s, lane);
    }
    lane_free_when_empty(&s->lanes, lane);
}

static void on_host_worked(void *owner, struct lane *lane)
{
    lane_succeeded(lane);
    schedule_update_ready(owner, lane);
}

static void on_session_gone(void *owner, struct lane *lane)
{
    struct schedule *s = owner;
    lane_free_when_empty(&s->lanes, lane);
}

/* --- what the administrator wants --- */

void schedule_on_recall(struct schedule *s, struct queue_id qid)
{
    struct item *item = find_item(s, qid);
    if (!item || item->recalled)
        return;
    item->recalled = true;
    bool any = false;
    LINK_EACH_SAFE(l, next, &item->jobs) {
        struct job *job = CONTAINER_OF(l, struct job, item_link);
        if (job->state != JOB_QUEUED)
            continue; /* in flight, or its mark waits: it ends the lease itself when it is the last */
        struct lane *lane = job->lane;
        schedule_dequeue(s, job);
        item->open -= job->count;
        item->staying += job->count;
        any = true;
        mark_free_job(s, job);
        lane_free_when_empty(&s->lanes, lane);
    }
    if (any && item->open == 0)
        mark_release(s, item);
}

void schedule_on_flush(struct schedule *s)
{
    uint64_t now = loop_now_ms(s->loop);
    for (uint32_t i = 0; i < SCHEDULE_PAUSES; i++)
        if (s->pauses[i].until_ms > now)
            schedule_pause_destination(s, s->pauses[i].destination, 0);
    for (struct lane *lane = lane_wake(&s->lanes, UINT64_MAX, now, &s->limits); lane;
         lane = lane_wake(&s->lanes, UINT64_MAX, now, &s->limits))
        schedule_update_ready(s, lane);
    schedule_set_wake(s);
    schedule_pump_soon(s);
}

void schedule_on_room(struct schedule *s)
{
    s->marks_waiting_to_try = true;
    schedule_pump_soon(s);
}

void schedule_on_status(struct schedule *s, const struct port_status *status)
{
    if (!status->connected)
        memset(s->pauses, 0, sizeof s->pauses); /* a spool that restarts knows none */
    if (status->connected && s->unmarked_count > 0)
        s->marks_waiting_to_try = true;
    schedule_pump_soon(s);
}

void schedule_drain(struct schedule *s, void (*done)(void *owner), void *owner)
{
    s->draining = true;
    s->drained = done;
    s->drained_owner = owner;
    attempts_quit_idle(s->attempts);
    schedule_pump_soon(s);
}

void schedule_counters(const struct schedule *s, struct schedule_counters *counters_out)
{
    *counters_out = s->counters;
    counters_out->mails = s->items;
    counters_out->fresh = s->fresh_items;
    counters_out->active = s->active;
    counters_out->connections = attempts_connections(s->attempts);
    counters_out->lanes = s->lanes.count;
    counters_out->lanes_dead = s->lanes.dead;
    counters_out->unmarked = s->unmarked_count;
}

/* --- life --- */

static void set_limits(struct schedule *s, const struct settings *settings)
{
    s->settings = settings;
    s->limits = (struct lane_limits){.initial = settings->initial_destination_concurrency,
                                     .max = settings->default_destination_concurrency_limit,
                                     .backoff_min_ms = settings->minimal_backoff_ms,
                                     .backoff_max_ms = settings->maximal_backoff_ms};
}

enum err schedule_open(struct loop *loop, struct port *port, const struct settings *settings,
                       struct schedule **schedule_out)
{
    struct schedule *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    s->loop = loop;
    s->port = port;
    set_limits(s, settings);
    link_init(&s->unmarked);
    link_init(&s->unreleased);
    for (uint32_t c = 0; c < LANE_QUEUES; c++)
        link_init(&s->ready[c]);
    s->pump = (struct loop_task){.run = run_pump, .owner = s};
    loop_timer_init(loop, &s->wake, schedule_wake_fired, s);
    loop_timer_init(loop, &s->retry, retry_fired, s);
    s->buckets = calloc(SCHEDULE_BUCKETS, sizeof *s->buckets);
    enum err e = s->buckets ? lane_table_open(&s->lanes) : ERR_NO_MEMORY;
    for (uint32_t i = 0; s->buckets && i < SCHEDULE_BUCKETS; i++)
        link_init(&s->buckets[i]);
    struct attempt_callbacks cb = {.owner = s, .on_outcome = on_outcome, .on_done = on_done, .on_again = on_again,
                                   .on_host_failed = on_host_failed, .on_host_worked = on_host_worked,
                                   .on_session_gone = on_session_gone};
    if (!e)
        e = attempts_open(loop, port, settings, &cb, &s->attempts);
    if (e) {
        schedule_close(&s);
        return e;
    }
    schedule_pump_soon(s);
    *schedule_out = s;
    return ERR_OK;
}

static void drop_item(struct schedule *s, struct item *item)
{
    LINK_EACH_SAFE(l, next, &item->jobs) {
        struct job *job = CONTAINER_OF(l, struct job, item_link);
        mark_free_job(s, job);
    }
    if (link_linked(&item->link))
        link_remove(&item->link);
    schedule_free_item(s, item);
}

void schedule_close(struct schedule **schedule)
{
    struct schedule *s = *schedule;
    if (!s)
        return;
    attempts_close(&s->attempts);
    for (uint32_t i = 0; s->buckets && i < SCHEDULE_BUCKETS; i++)
        LINK_EACH_SAFE(l, next, &s->buckets[i])
            drop_item(s, CONTAINER_OF(l, struct item, hash_link));
    lane_table_close(&s->lanes);
    loop_defer_cancel(&s->pump);
    loop_timer_fini(&s->wake);
    loop_timer_fini(&s->retry);
    free(s->buckets);
    free(s);
    *schedule = NULL;
}
