/* SPDX-License-Identifier: Apache-2.0 */
/* What an outcome means for the queue: log line, counters, deferral time, expiry, bounce, mark. Keeps what could not
 * be marked (SCH-4). The clock here is the pool's: a wrong RTC expires nothing. */
#include "schedule_parts.h"

#include "dsn.h"
#include "log.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const uint64_t schedule_delay_bucket_ms[SCHEDULE_DELAY_BUCKETS] = {
    50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000, 300000, 1800000, 7200000,
};

#define MARK_RETRY_MS 1000u

/* --- one outcome --- */

static const char *service_of(const struct job *job)
{
    static const char *const names[] = {"smtp", "lmtp", "maildir", "hold", "discard", "error"};
    return job->lane ? names[job->lane->route.kind] : "error";
}

static uint64_t since(uint64_t later, uint64_t earlier)
{
    return later > earlier ? later - earlier : 0;
}

static void log_outcome(struct schedule *s, const struct job *job, const struct job_recipient *r, const struct outcome *o,
                        const char *relay, uint64_t *delay_ms_out)
{
    const struct mail *m = job->item->mail;
    uint64_t now = loop_now_ms(s->loop), started = job->started_ms ? job->started_ms : now;
    uint64_t connected = job->connected_ms > started ? job->connected_ms : started;
    uint64_t total = since(port_clock_ms(s->port), m->envelope.arrival_ms), here = since(now, m->accepted_ms);
    struct outcome_delays d = {.before_ms = since(total, here), .queue_ms = since(started, m->accepted_ms),
                               .connect_ms = since(connected, started), .transmit_ms = since(now, connected)};
    char qid[QUEUE_ID_TEXT], delay[24], delays[OUTCOME_DELAYS_BYTES], original[ADDRESS_BYTES_MAX + 16] = "";
    queue_id_print(m->qid, qid);
    outcome_print_delay(total, delay, sizeof delay);
    outcome_print_delays(&d, delays);
    if (r->original)
        snprintf(original, sizeof original, "orig_to=<%.*s>, ", (int)r->original_len, r->original);
    log_line(service_of(job), "%s: to=<%.*s>, %srelay=%s, delay=%s, delays=%s, dsn=%s, status=%s (%s)", qid, (int)r->len,
             r->address, original, relay, delay, delays, o->dsn,
             outcome_status_word(o->status == MARK_EXPIRED ? MARK_BOUNCED : o->status), o->text);
    *delay_ms_out = total;
}

static void count_outcome(struct schedule *s, const struct outcome *o, uint64_t delay_ms)
{
    switch (o->status) {
    case MARK_DELIVERED:
        s->counters.delivered++;
        s->counters.delay_sum_ms += delay_ms;
        for (uint32_t b = 0; b < SCHEDULE_DELAY_BUCKETS; b++) {
            if (delay_ms <= schedule_delay_bucket_ms[b]) {
                s->counters.delay_bucket[b]++;
                break;
            }
        }
        return;
    case MARK_BOUNCED:
        s->counters.bounced++;
        return;
    case MARK_EXPIRED:
        s->counters.expired++;
        return;
    case MARK_PENDING:
    case MARK_DEFERRED:
        s->counters.deferred++;
        return;
    }
}

static bool too_old(const struct schedule *s, const struct mail *m, uint64_t now_ms)
{
    bool bounce = m->envelope.sender_len == 0 || (m->envelope.flags & ENVELOPE_BOUNCE);
    uint64_t lifetime = bounce ? s->settings->bounce_queue_lifetime_ms : s->settings->maximal_queue_lifetime_ms;
    return m->attempts + 1 >= SCHEDULE_EXPIRY_ATTEMPTS && since(now_ms, m->envelope.arrival_ms) > lifetime;
}

static uint64_t backoff_ms(const struct schedule *s, uint32_t attempts)
{
    uint64_t wait = s->settings->minimal_backoff_ms << (attempts < 20 ? attempts : 20);
    return wait < s->settings->maximal_backoff_ms ? wait : s->settings->maximal_backoff_ms;
}

static void record_outcome(struct schedule *s, struct job *job, uint32_t recipient, const struct outcome *told,
                           const char *relay, uint64_t wait_ms)
{
    struct job_recipient *r = &job->recipients[recipient];
    struct mail *m = job->item->mail;
    struct outcome o = *told;
    uint64_t now = port_clock_ms(s->port), delay_ms;
    ASSERT(r->status == MARK_PENDING && job->resolved < job->count);
    if (o.status == MARK_DEFERRED && !job->held && too_old(s, m, now))
        outcome_expire(&o);
    log_outcome(s, job, r, &o, relay, &delay_ms);
    count_outcome(s, &o, delay_ms);
    r->status = o.status;
    memcpy(r->dsn, o.dsn, sizeof r->dsn);
    r->deferred_until_ms = o.status == MARK_DEFERRED ? now + wait_ms : 0;
    if (o.status != MARK_DELIVERED)
        r->reason = strdup(o.text); /* NULL: told without its reason */
    m->status[r->index] = (uint8_t)o.status;
    job->resolved++;
    if (o.status == MARK_BOUNCED || o.status == MARK_EXPIRED)
        job->bounced++;
}

void mark_outcome(struct schedule *s, struct job *job, uint32_t recipient, const struct outcome *o, const char *relay)
{
    record_outcome(s, job, recipient, o, relay, backoff_ms(s, job->item->mail->attempts));
}

void mark_defer_all(struct schedule *s, struct job *job, const struct outcome *why, uint64_t wait_ms)
{
    struct outcome o = *why;
    o.status = MARK_DEFERRED;
    for (uint32_t i = 0; i < job->count; i++)
        if (job->recipients[i].status == MARK_PENDING)
            record_outcome(s, job, i, &o, "none", wait_ms);
    mark_job(s, job);
}

/* The port said no. True: for now; the result is kept. False: the lease is gone, there is nothing to mark. */
static bool refused_for_now(struct schedule *s, const struct mail *m, enum err e)
{
    if (e == ERR_BUSY || e == ERR_NO_MEMORY) {
        s->blocked = true;
        if (e == ERR_NO_MEMORY)
            loop_timer_set(&s->retry, MARK_RETRY_MS);
        return true;
    }
    char qid[QUEUE_ID_TEXT];
    queue_id_print(m->qid, qid);
    log_line("qmgr", "warning: %s: the result cannot be marked: %s; the message may be tried again", qid, err_text(e));
    return false;
}

/* --- bounces --- */

/* The first bytes of the original, for the bounce, when the body is not in memory. */
struct head_fetch {
    struct port_fetch fetch;
    struct schedule *schedule;
    struct job *job;
    uint32_t used;
    bool running, over;
    uint8_t bytes[DSN_ORIGINAL_BYTES_MAX];
};

static void head_ready(struct schedule *s)
{
    s->marks_waiting_to_try = true;
    schedule_pump_soon(s);
}

static bool head_piece(struct port_fetch *f, const uint8_t *bytes, uint32_t len)
{
    struct head_fetch *h = f->owner;
    uint32_t room = (uint32_t)sizeof h->bytes - h->used;
    uint32_t take = len < room ? len : room;
    memcpy(h->bytes + h->used, bytes, take);
    h->used += take;
    if (h->used < sizeof h->bytes)
        return true;
    h->over = true;
    head_ready(h->schedule); /* enough: canceled outside this callback */
    return false;
}

static void head_done(struct port_fetch *f, enum err e)
{
    struct head_fetch *h = f->owner;
    h->running = false;
    h->over = true;
    if (e)
        h->used = 0; /* what did not verify is not shown to anybody; the bounce goes without */
    head_ready(h->schedule);
}

static void free_head(struct schedule *s, struct job *job)
{
    struct head_fetch *h = job->attempt;
    if (h && h->running)
        port_fetch_cancel(s->port, &h->fetch);
    free(h);
    job->attempt = NULL;
}

static enum err find_head(struct schedule *s, struct job *job, const uint8_t **head_out, uint32_t *len_out)
{
    struct mail *m = job->item->mail;
    const uint8_t *body = attempt_body(job);
    if (body) {
        *head_out = body;
        *len_out = m->body_bytes < DSN_ORIGINAL_BYTES_MAX ? (uint32_t)m->body_bytes : DSN_ORIGINAL_BYTES_MAX;
        return ERR_OK;
    }
    struct head_fetch *h = job->attempt;
    if (!h) {
        h = calloc(1, sizeof *h);
        if (!h)
            return ERR_NO_MEMORY;
        h->schedule = s;
        h->job = job;
        h->running = true;
        h->fetch = (struct port_fetch){.mail = m, .on_bytes = head_piece, .done = head_done, .owner = h};
        job->attempt = h;
        port_fetch(s->port, &h->fetch);
    }
    if (!h->over)
        return ERR_BUSY;
    *head_out = h->bytes;
    *len_out = h->used;
    return ERR_OK;
}

static enum err write_bounce(struct schedule *s, struct job *job)
{
    struct mail *m = job->item->mail;
    if (job->bounce || job->bounced == 0)
        return ERR_OK;
    if (job->sender_len == 0 || (m->envelope.flags & ENVELOPE_BOUNCE))
        return ERR_OK; /* SCH-5 */
    const uint8_t *head = NULL;
    uint32_t head_len = 0;
    enum err e = find_head(s, job, &head, &head_len);
    if (e == ERR_NO_MEMORY)
        (void)refused_for_now(s, m, e);
    if (e)
        return e;
    struct queue_id qid;
    e = port_take_queue_id(s->port, &qid);
    if (e) {
        s->blocked = true;
        return ERR_BUSY;
    }
    struct dsn_recipient failed[SCHEDULE_JOB_RECIPIENTS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        const struct job_recipient *r = &job->recipients[i];
        if (r->status == MARK_BOUNCED || r->status == MARK_EXPIRED)
            failed[count++] = (struct dsn_recipient){.address = r->address, .len = r->len, .dsn = r->dsn,
                                                     .original = r->original, .original_len = r->original_len,
                                                     .text = r->reason ? r->reason : "", .expired = r->status == MARK_EXPIRED};
    }
    struct dsn_report report = {.qid = qid, .mail = m, .to = job->sender, .to_len = job->sender_len,
                                .aliases = s->settings->aliases, .recipients = failed, .count = count, .head = head, .head_len = head_len,
                                .hostname = s->settings->hostname, .mail_name = s->settings->mail_name,
                                .now_ms = port_clock_ms(s->port)};
    e = dsn_make(&report, &job->bounce);
    if (e && !refused_for_now(s, m, e)) {
        job->bounced = 0; /* it cannot be written, now or later: the result stands without */
        return ERR_OK;
    }
    return e;
}

static void bounce_stored(void *owner, struct mail *bounce, enum err e)
{
    struct schedule *s = owner;
    char qid[QUEUE_ID_TEXT];
    queue_id_print(bounce->qid, qid);
    if (e) {
        log_line("bounce", "warning: %s: the bounce was not stored: %s", qid, err_text(e));
        mail_unref(&bounce);
        return;
    }
    bounce->fresh = true;
    bounce->accepted_ms = loop_now_ms(s->loop);
    schedule_fresh(s, bounce);
}

/* --- marks --- */

void mark_free_job(struct schedule *s, struct job *job)
{
    if (job->state == JOB_FINISHED)
        free_head(s, job);
    if (link_linked(&job->link))
        link_remove(&job->link);
    link_remove(&job->item_link);
    mail_unref(&job->bounce);
    for (uint32_t i = 0; i < job->count; i++)
        free(job->recipients[i].reason);
    free(job);
}

static uint32_t fill_marks(const struct job *job, struct mark *marks, uint32_t *staying_out)
{
    *staying_out = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        const struct job_recipient *r = &job->recipients[i];
        const char *reason = r->reason ? r->reason : "";
        marks[i] = (struct mark){.recipient = r->index, .status = r->status, .deferred_until_ms = r->deferred_until_ms,
                                 .reason = reason, .reason_len = (uint32_t)strlen(reason)};
        *staying_out += r->status == MARK_DEFERRED;
    }
    return job->count;
}

static void log_removed(const struct mail *m)
{
    char qid[QUEUE_ID_TEXT];
    queue_id_print(m->qid, qid);
    log_line("qmgr", "%s: removed", qid);
}

static void log_bounce(const struct job *job)
{
    char qid[QUEUE_ID_TEXT], bounce[QUEUE_ID_TEXT];
    queue_id_print(job->item->mail->qid, qid);
    queue_id_print(job->bounce->qid, bounce);
    log_line("bounce", "%s: sender non-delivery notification: %s", qid, bounce);
}

static enum err try_mark(struct schedule *s, struct job *job)
{
    struct item *item = job->item;
    struct mark marks[SCHEDULE_JOB_RECIPIENTS_MAX];
    enum err e = write_bounce(s, job);
    if (e)
        return e;
    uint32_t staying;
    uint32_t count = fill_marks(job, marks, &staying);
    bool last = item->open == count;
    bool retire = last && item->staying + staying == 0;
    struct port_mark pm = {.qid = item->mail->qid, .locator = item->mail->locator, .marks = marks,
                           .count = retire ? 0 : count, /* RETIRE says it all */
                           .retire = retire, .release = last && !retire, .bounce = job->bounce,
                           .bounce_done = bounce_stored, .owner = s};
    e = port_mark(s->port, &pm);
    if (e && refused_for_now(s, item->mail, e))
        return e;
    if (!e && job->bounce) {
        log_bounce(job);
        job->bounce = NULL; /* its reference went with the mark and comes back with bounce_stored */
    }
    item->open -= count;
    item->staying += staying;
    if (retire && !e) {
        s->counters.retired++;
        log_removed(item->mail);
    }
    return ERR_OK;
}

static void job_marked(struct schedule *s, struct job *job)
{
    struct item *item = job->item;
    mark_free_job(s, job);
    if (item->open == 0)
        schedule_free_item(s, item);
}

void mark_job(struct schedule *s, struct job *job)
{
    ASSERT(job->resolved == job->count && !link_linked(&job->link));
    job->state = JOB_FINISHED;
    job->attempt = NULL;
    if (!s->blocked && try_mark(s, job) == ERR_OK) {
        job_marked(s, job);
        return;
    }
    link_push(&s->unmarked, &job->link);
    s->unmarked_count++;
}

void mark_release(struct schedule *s, struct item *item)
{
    ASSERT(item->open == 0 && link_empty(&item->jobs));
    bool done = item->staying == 0;
    struct port_mark pm = {.qid = item->mail->qid, .locator = item->mail->locator, .retire = done, .release = !done};
    enum err e = s->blocked ? ERR_BUSY : port_mark(s->port, &pm);
    if (!e || !refused_for_now(s, item->mail, e)) {
        if (!e && done)
            log_removed(item->mail);
        schedule_free_item(s, item);
        return;
    }
    link_push(&s->unreleased, &item->link);
    s->unmarked_count++;
}

void mark_retry(struct schedule *s)
{
    s->blocked = false;
    s->marks_waiting_to_try = false;
    while (!s->blocked && !link_empty(&s->unreleased)) {
        s->unmarked_count--;
        mark_release(s, CONTAINER_OF(link_pop(&s->unreleased), struct item, link));
    }
    LINK_EACH_SAFE(l, next, &s->unmarked) {
        struct job *job = CONTAINER_OF(l, struct job, link);
        if (s->blocked)
            return;
        if (try_mark(s, job) != ERR_OK)
            continue; /* a head still being fetched holds up nobody else */
        s->unmarked_count--;
        job_marked(s, job);
    }
}
