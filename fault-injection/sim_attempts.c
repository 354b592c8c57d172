/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: attempts (relay/attempt.h) without hosts: a body is read whole and compared (SRL-2), some time passes, and dice say what
 * becomes of the recipients. Bounces are a few lines. ATT-1 and ATT-2 hold.
 * Linked instead of relay/attempt*.c and relay/dsn.c, never beside them. */
#include "sim_relay.h"

#include "attempt.h"
#include "dsn.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_MS 1500u
#define BOUNCE_HEAD_MAX 600u

struct try {
    struct link link;
    struct attempts *attempts;
    struct job *job;
    struct action *reading;
    struct loop_timer timer;
    enum err read;
};

static struct prng *dice_of(const struct attempts *a) { return &a->loop->w->relay_dice; }

static void try_free(struct try *t)
{
    if (t->reading)
        senders_read_forget(t->reading);
    loop_timer_fini(&t->timer);
    link_remove(&t->link);
    t->attempts->session_count--;
    free(t);
}

static void recipient_outcome(struct prng *dice, struct outcome *o)
{
    uint64_t draw = prng_below(dice, 100);
    if (draw < 70)
        outcome_of_reply(250, "2.0.0 taken", NULL, "mx.example[192.0.2.1]", o);
    else if (draw < 88)
        outcome_of_reply(450, "4.2.0 later", "RCPT TO", "mx.example[192.0.2.1]", o);
    else
        outcome_of_reply(550, "5.1.1 nobody here", "RCPT TO", "mx.example[192.0.2.1]", o);
}

static void try_tell(struct attempts *a, struct job *job, enum err read)
{
    struct outcome o;
    for (uint32_t i = 0; i < job->count; i++) {
        if (job->recipients[i].status != MARK_PENDING)
            continue;
        if (read == ERR_OK)
            recipient_outcome(dice_of(a), &o);
        else
            outcome_of_err(read, "reading the message", &o);
        a->cb.on_outcome(a->cb.owner, job, i, &o, "mx.example[192.0.2.1]:25");
    }
    a->cb.on_host_worked(a->cb.owner, job->lane);
    a->cb.on_done(a->cb.owner, job);
}

static void try_over(struct loop_timer *timer)
{
    struct try *t = timer->owner;
    struct attempts *a = t->attempts;
    struct job *job = t->job;
    enum err read = t->read;
    uint64_t draw = prng_below(dice_of(a), 100);
    struct outcome why;
    outcome_of_text("4.4.1 the connection was lost", "4.4.1", &why);
    job->attempt = NULL;
    try_free(t);
    if (draw < 6)
        a->cb.on_host_failed(a->cb.owner, job, &why);
    else if (draw < 10)
        a->cb.on_again(a->cb.owner, job, &why);
    else
        try_tell(a, job, read);
}

static void try_was_read(void *owner, enum err e)
{
    struct try *t = owner;
    t->reading = NULL;
    t->read = e;
    loop_timer_set(&t->timer, prng_below(dice_of(t->attempts), LONGEST_MS));
}

void attempt_start(struct attempts *a, struct job *job)
{
    struct try *t = calloc(1, sizeof *t);
    struct held *held = sim_port_held(a->port, job->item->mail->qid);
    ASSERT(t != NULL);
    *t = (struct try){.attempts = a, .job = job};
    loop_timer_init(a->loop, &t->timer, try_over, t);
    link_push(&a->running, &t->link);
    a->session_count++;
    job->attempt = t;
    if (!held)
        world_fail(a->loop->w, "the scheduler tries what is not leased to it");
    else if (!attempt_body(job))
        t->reading = senders_read(a->loop->w, held->msg, &held->place, held->digest,
                                  &(struct reader){.owner = t, .over = try_was_read});
    if (!t->reading)
        loop_timer_set(&t->timer, prng_below(dice_of(a), LONGEST_MS));
}

/* Small frames have no room for a report of RFC 3464, and its words are not what is looked at here. */
enum err dsn_make(const struct dsn_report *report, struct mail **mail_out)
{
    uint8_t envelope[512], *body = malloc(BOUNCE_HEAD_MAX + 80);
    uint32_t head = report->head_len < BOUNCE_HEAD_MAX ? report->head_len : BOUNCE_HEAD_MAX;
    struct envelope e = {.arrival_ms = report->now_ms, .sender = "", .client = "local", .client_len = 5,
                         .helo = report->hostname, .helo_len = (uint32_t)strlen(report->hostname)};
    struct envelope_writer writer;
    ASSERT(body != NULL);
    uint32_t length = (uint32_t)snprintf((char *)body, 80, "%u recipients of %llu did not get it\r\n", report->count,
                                         (unsigned long long)report->mail->qid.counter);
    if (head)
        memcpy(body + length, report->head, head);
    e.body_bytes = length + head;
    e.flags = ENVELOPE_BOUNCE;
    enum err err = envelope_begin(&writer, envelope, sizeof envelope, &e);
    if (err == ERR_OK)
        err = envelope_add_recipient(&writer, report->to, report->to_len);
    ASSERT(err == ERR_OK);
    err = mail_make(report->qid, envelope, envelope_end(&writer, length + head, ENVELOPE_BOUNCE), body, mail_out);
    if (err != ERR_OK)
        free(body);
    return err;
}

const uint8_t *attempt_body(const struct job *job) { return job->item->body ? job->item->body : job->item->mail->body; }
void attempts_quit_idle(struct attempts *a) { (void)a; }
uint32_t attempts_connections(const struct attempts *a) { return a->session_count; }

enum err attempts_open(struct loop *loop, struct port *port, const struct settings *settings,
                       const struct attempt_callbacks *cb, struct attempts **attempts_out)
{
    struct attempts *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NO_MEMORY;
    *a = (struct attempts){.loop = loop, .port = port, .settings = settings, .cb = *cb};
    link_init(&a->running);
    *attempts_out = a;
    return ERR_OK;
}

void attempts_close(struct attempts **attempts)
{
    if (!*attempts)
        return;
    LINK_EACH_SAFE(l, next, &(*attempts)->running)
        try_free(CONTAINER_OF(l, struct try, link));
    free(*attempts);
    *attempts = NULL;
}
