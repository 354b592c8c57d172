/* SPDX-License-Identifier: Apache-2.0 */
/* Sorts a mail's recipients: each to its lane, in jobs of as many as one transaction may have; those whose route is
 * itself the answer are answered here. O(recipients), whatever else is queued. See schedule_parts.h. */
#include "maildir_out.h"
#include "schedule_parts.h"

#include <stdlib.h>
#include <string.h>

/* A recipient on its way to a job. */
struct sorted { uint32_t index, len; const char *address; const struct envelope_origin *origin; };

static void sender_of(const struct item *item, const struct envelope_origin *origin, const char **sender, uint32_t *len)
{
    bool owner = origin && origin->sender_len > 0;
    *sender = owner ? origin->sender : item->mail->envelope.sender;
    *len = owner ? origin->sender_len : item->mail->envelope.sender_len;
}

static struct job *make_job(struct item *item, struct lane *lane, struct job *old, uint32_t capacity,
                            const struct envelope_origin *origin)
{
    struct job *job = realloc(old, sizeof *job + capacity * sizeof *job->recipients);
    if (!job)
        return NULL;
    if (!old) {
        memset(job, 0, sizeof *job);
        job->item = item;
        job->lane = lane;
        job->class = item->class;
        sender_of(item, origin, &job->sender, &job->sender_len);
    }
    job->capacity = capacity;
    return job;
}

static void add_recipient(struct job *job, const struct sorted *to)
{
    struct job_recipient *r = &job->recipients[job->count++];
    memset(r, 0, sizeof *r);
    r->index = to->index;
    r->address = to->address;
    r->len = to->len;
    if (to->origin) {
        r->original = to->origin->address;
        r->original_len = to->origin->address_len;
    }
}

/* A recipient whose outcome is known without trying. */
static void answer(struct schedule *s, struct item *item, const struct sorted *to, const struct outcome *o, bool held)
{
    struct job *job = make_job(item, NULL, NULL, 1, to->origin);
    if (!job) { /* left out of this round: it stays, as everything without a result does */
        item->open--;
        item->staying++;
        return;
    }
    add_recipient(job, to);
    link_push(&item->jobs, &job->item_link);
    job->held = held;
    mark_outcome(s, job, 0, o, "none");
    mark_job(s, job);
}

static void launch(struct schedule *s, struct job *job)
{
    link_push(&job->item->jobs, &job->item_link);
    if (job->lane->dead_until_ms)
        schedule_suspend(s, job);
    else
        schedule_enqueue(s, job, false);
}

static uint32_t job_size_max(const struct schedule *s)
{
    uint32_t n = s->settings->default_destination_recipient_limit;
    return n == 0 || n > SCHEDULE_JOB_RECIPIENTS_MAX ? SCHEDULE_JOB_RECIPIENTS_MAX : n;
}

struct sorting { struct item *item; struct lane *first; };

static bool same_sender(const struct item *item, const struct job *job, const struct sorted *to)
{
    const char *sender;
    uint32_t len;
    sender_of(item, to->origin, &sender, &len);
    return job->sender_len == len && (len == 0 || memcmp(job->sender, sender, len) == 0);
}

static bool add_to_lane(struct schedule *s, struct sorting *sorting, struct lane *lane, const struct sorted *to)
{
    struct job *job = lane->filling;
    if (job && !same_sender(sorting->item, job, to)) {
        lane->filling = NULL;
        launch(s, job);
        job = NULL;
    }
    if (!job || job->count == job->capacity) {
        job = make_job(sorting->item, lane, job, job ? job->capacity * 2 : 1, to->origin);
        if (!job)
            return false;
        lane->filling = job;
    }
    add_recipient(job, to);
    if (!lane->in_filling) {
        lane->in_filling = true;
        lane->filling_next = sorting->first;
        sorting->first = lane;
    }
    if (job->count == job_size_max(s)) {
        lane->filling = NULL;
        launch(s, job);
    }
    return true;
}

/* Nobody at the other end has to be spared: as much at one time as the threads can share flushes among. */
static const struct lane_limits local_limits = {.initial = MAILDIR_THREADS * MAILDIR_BATCH_MAX,
                                                .max = MAILDIR_THREADS * MAILDIR_BATCH_MAX};

static void sort_recipient(struct schedule *s, struct sorting *sorting, const struct sorted *to)
{
    struct outcome o;
    struct lane *lane;
    uint32_t domain_len;
    const char *domain = route_domain(to->address, to->len, &domain_len);
    const struct route *route = route_of(s->settings->transports, to->address, to->len);
    if (route->kind == ROUTE_ERROR) {
        outcome_of_text(route->host, "5.7.1", &o);
        answer(s, sorting->item, to, &o, false);
        return;
    }
    if (route->kind == ROUTE_HOLD) {
        outcome_of_text("4.7.0 held by transport", "4.7.0", &o);
        answer(s, sorting->item, to, &o, true);
        return;
    }
    if (route->kind == ROUTE_SMTP && route->host[0] == '\0' && domain_len == 0) {
        outcome_of_text("5.1.3 the address has no domain", "5.1.3", &o);
        answer(s, sorting->item, to, &o, false);
        return;
    }
    enum err e = lane_find(&s->lanes, route, domain, domain_len, &lane);
    if (!e) {
        lane_configure(lane, route->kind == ROUTE_MAILDIR || route->kind == ROUTE_DISCARD ? &local_limits : &s->limits);
        if (add_to_lane(s, sorting, lane, to))
            return;
        e = ERR_NO_MEMORY;
    }
    outcome_of_err(e, "queueing", &o);
    answer(s, sorting->item, to, &o, false);
}

static bool is_done(uint8_t status)
{
    return status == MARK_DELIVERED || status == MARK_BOUNCED || status == MARK_EXPIRED;
}

void schedule_sort(struct schedule *s, struct item *item)
{
    struct mail *m = item->mail;
    struct sorting sorting = {.item = item};
    struct envelope_cursor c, origins;
    struct envelope_origin origin = {0};
    struct sorted to = {0};
    for (uint32_t i = 0; i < m->envelope.recipient_count; i++)
        item->open += !is_done(m->status[i]);
    item->open++; /* ours: nothing ends the item while it is being sorted */
    envelope_recipients(&m->envelope, &c);
    envelope_origins(&m->envelope, &origins);
    for (; envelope_recipient_next(&c, &to.address, &to.len); to.index++) {
        to.origin = envelope_origin_of(&origins, &origin, to.index);
        if (!is_done(m->status[to.index]))
            sort_recipient(s, &sorting, &to);
    }
    for (struct lane *lane = sorting.first, *next; lane; lane = next) {
        next = lane->filling_next;
        struct job *job = lane->filling;
        lane->in_filling = false;
        lane->filling = NULL;
        if (job)
            launch(s, job);
    }
    item->open--;
    if (item->open == 0)
        mark_release(s, item);
}
