/* SPDX-License-Identifier: Apache-2.0 */
/* One job into Maildirs: its recipients one after the other, from memory in one step or streamed from the spool in
 * pieces, each piece on disk before the next is asked for. Owns the attempts in flight. See attempt.h, maildir_out.h.
 *
 *      start --body in memory--> deliver <--fetched whole-- fetch (small)
 *        \--large--> stream: piece -> step -> piece ... -> last step            each ends in next_recipient */
#include "attempt.h"
#include "maildir_out.h"

#include <base/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct maildir_attempt {
    struct link link;           /* attempts.running */
    struct attempts *attempts;
    struct job *job;
    uint32_t at;                /* recipient */
    struct maildir_delivery delivery;
    struct body_fetch body;
    struct port_fetch stream;
    bool streaming, begun;      /* begun: the file of this recipient exists */
    bool stepping;              /* a step is in a worker's hands: neither its bytes nor the attempt may go */
    bool stream_over;           /* the end of the stream came meanwhile, with stream_error */
    enum err stream_error;
    uint8_t *piece;             /* CHUNK_BYTES_MAX, streaming only */
    struct loop_task task;      /* refuses outside attempt_start */
    enum err refusal;
};

static void free_attempt(struct maildir_attempt *ma)
{
    body_fetch_cancel(&ma->body);
    if (ma->streaming)
        port_fetch_cancel(ma->attempts->port, &ma->stream);
    if (ma->begun)
        maildir_out_abandon(&ma->delivery);
    loop_defer_cancel(&ma->task);
    link_remove(&ma->link);
    free(ma->piece);
    free(ma);
}

/* The end of the job: whatever has no outcome yet gets this one. No `what`: the body could not be read. */
static void end_with(struct maildir_attempt *ma, enum err e, const char *what)
{
    struct attempts *a = ma->attempts;
    struct job *job = ma->job;
    struct outcome o;
    free_attempt(ma);
    if (what)
        outcome_of_err(e, what, &o);
    else
        outcome_of_body(a->port, job, e, &o);
    attempt_all(a, job, &o, "maildir");
}

static void start_recipient(struct maildir_attempt *ma);

static void next_recipient(struct maildir_attempt *ma)
{
    struct attempts *a = ma->attempts;
    struct job *job = ma->job;
    ma->begun = false;
    if (++ma->at < job->count) {
        start_recipient(ma);
        return;
    }
    free_attempt(ma);
    a->cb.on_done(a->cb.owner, job);
}

static void submit(struct maildir_attempt *ma, const uint8_t *bytes, size_t len, bool last);

static void end_stream(struct maildir_attempt *ma)
{
    ma->stream_over = false;
    if (ma->stream_error)
        end_with(ma, ma->stream_error, NULL);
    else
        submit(ma, ma->piece, 0, true);
}

static void recipient_failed(struct maildir_attempt *ma, enum err e, const char *step)
{
    struct attempts *a = ma->attempts;
    struct outcome o;
    char line[400];
    snprintf(line, sizeof line, "%s mailbox: %.60s: %s", e == ERR_FULL ? "4.2.2" : "4.3.0", step,
             errno ? strerror(errno) : err_text(e));
    outcome_of_text(line, "4.3.0", &o);
    if (ma->streaming)
        port_fetch_cancel(a->port, &ma->stream);
    ma->streaming = ma->stream_over = false;
    if (ma->begun)
        maildir_out_abandon(&ma->delivery);
    a->cb.on_outcome(a->cb.owner, ma->job, ma->at, &o, "maildir");
    next_recipient(ma);
}

static void step_done(struct maildir_delivery *d, enum err e, const char *step)
{
    struct maildir_attempt *ma = d->owner;
    struct attempts *a = ma->attempts;
    ma->stepping = false;
    if (e) {
        recipient_failed(ma, e, step);
        return;
    }
    if (ma->stream_over) {
        end_stream(ma);
        return;
    }
    if (!d->last) {
        port_fetch_resume(a->port, &ma->stream);
        return;
    }
    struct outcome o;
    outcome_of_text(d->present ? "2.0.0 delivered to maildir before" : "2.0.0 delivered to maildir", "2.0.0", &o);
    a->cb.on_outcome(a->cb.owner, ma->job, ma->at, &o, "maildir");
    next_recipient(ma);
}

static void submit(struct maildir_attempt *ma, const uint8_t *bytes, size_t len, bool last)
{
    struct maildir_delivery *d = &ma->delivery;
    d->first = !ma->begun;
    d->last = last;
    d->bytes = bytes;
    d->len = len;
    enum err e = maildir_out_submit(ma->attempts->maildir, d);
    if (!e) {
        ma->begun = ma->stepping = true;
        return;
    }
    ma->refusal = e;
    loop_defer(ma->attempts->loop, &ma->task);
}

static void refused(struct loop_task *t)
{
    struct maildir_attempt *ma = t->owner;
    end_with(ma, ma->refusal, "maildir");
}

static bool stream_piece(struct port_fetch *f, const uint8_t *bytes, uint32_t len)
{
    struct maildir_attempt *ma = f->owner;
    ASSERT(len <= CHUNK_BYTES_MAX);
    memcpy(ma->piece, bytes, len);
    submit(ma, ma->piece, len, false);
    return false;
}

static void stream_done(struct port_fetch *f, enum err e)
{
    struct maildir_attempt *ma = f->owner;
    ma->streaming = false;
    ma->stream_over = true;
    ma->stream_error = e;
    if (!ma->stepping)
        end_stream(ma);
}

static void start_stream(struct maildir_attempt *ma)
{
    if (!ma->piece)
        ma->piece = malloc(CHUNK_BYTES_MAX);
    if (!ma->piece) {
        ma->refusal = ERR_NO_MEMORY;
        loop_defer(ma->attempts->loop, &ma->task);
        return;
    }
    ma->stream = (struct port_fetch){.mail = ma->job->item->mail, .on_bytes = stream_piece, .done = stream_done, .owner = ma};
    ma->streaming = true;
    port_fetch(ma->attempts->port, &ma->stream);
}

static void body_ready(struct body_fetch *f, enum err e)
{
    struct maildir_attempt *ma = f->owner;
    if (e)
        end_with(ma, e, NULL);
    else
        start_recipient(ma);
}

static void start_recipient(struct maildir_attempt *ma)
{
    const struct job *job = ma->job;
    const struct mail *m = job->item->mail;
    const struct job_recipient *r = &job->recipients[ma->at];
    ma->delivery = (struct maildir_delivery){
        .root = job->lane->route.host, .recipient = r->address, .recipient_len = r->len,
        .sender = job->sender, .sender_len = job->sender_len,
        .qid = m->qid, .recipient_index = r->index, .arrival_ms = m->envelope.arrival_ms,
        .hostname = ma->attempts->settings->hostname, .again = !m->fresh || m->attempts > 0,
        .done = step_done, .owner = ma, .fd = -1,
    };
    const uint8_t *body = attempt_body(job);
    if (body) {
        submit(ma, body, m->body_bytes, true);
    } else if (m->chunk_count == 0 && m->body_bytes <= ATTEMPT_BODY_AT_ONCE_MAX) {
        ma->refusal = body_fetch_start(&ma->body, ma->attempts->port, ma->job, body_ready, ma);
        if (ma->refusal)
            loop_defer(ma->attempts->loop, &ma->task);
    } else {
        start_stream(ma);
    }
}

void attempt_maildir_start(struct attempts *a, struct job *job)
{
    struct maildir_attempt *ma = calloc(1, sizeof *ma);
    if (!ma) { /* no room even to say so later: the schedule takes it back from its own task */
        struct outcome o;
        outcome_of_err(ERR_NO_MEMORY, "maildir", &o);
        attempt_all(a, job, &o, "maildir");
        return;
    }
    ma->attempts = a;
    ma->job = job;
    ma->task = (struct loop_task){.run = refused, .owner = ma};
    job->attempt = ma;
    link_push(&a->running, &ma->link);
    start_recipient(ma);
}

void attempt_maildir_close(struct attempts *a)
{
    maildir_out_close(&a->maildir); /* waits for the steps: afterwards nobody touches the deliveries */
    while (!link_empty(&a->running))
        free_attempt(CONTAINER_OF(a->running.next, struct maildir_attempt, link));
}
