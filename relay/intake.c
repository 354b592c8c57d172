/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions on their way into the spool. Owns the envelope and, until the append is answered, the mail; then it
 * belongs to whoever on_accepted names. Bodies are intake_body.c's. Invariants in intake.h, states in intake_parts.h. */
#include "intake_parts.h"

#include "log.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_BYTES_MAX 600u

enum err intake_open(const struct intake_deps *deps, struct intake **intake_out)
{
    struct intake *i = calloc(1, sizeof *i);
    if (!i)
        return ERR_NO_MEMORY;
    i->deps = *deps;
    link_init(&i->waiting);
    link_init(&i->in_flight);
    i->date_second = -1;
    *intake_out = i;
    return ERR_OK;
}

static void transaction_free(struct intake_transaction *t)
{
    if (link_linked(&t->link))
        link_remove(&t->link);
    if (t->reserved)
        port_unreserve(t->intake->deps.port, t->reserved); /* INT-4 */
    recipients_free(&t->recipients);
    intake_body_drop(t);
    mail_unref(&t->mail);
    free(t);
}

/* Appends in flight are the port's until it answers or closes; those whose intake was closed wait here. */
static struct intake *g_closed;

static void closed_free(struct intake *i)
{
    for (struct intake **at = &g_closed; *at; at = &(*at)->next_closed) {
        if (*at == i) {
            *at = i->next_closed;
            break;
        }
    }
    free(i);
}

void intake_close(struct intake **intake)
{
    struct intake *i = *intake;
    *intake = NULL;
    if (!i)
        return;
    LINK_EACH_SAFE (l, next, &i->waiting) {
        struct intake_transaction *t = CONTAINER_OF(l, struct intake_transaction, link);
        if (t->chunk_count > 0)
            port_abort(i->deps.port, t->qid);
        transaction_free(t);
    }
    if (i->in_flight_count == 0) {
        free(i);
        return;
    }
    i->closed = true;
    i->next_closed = g_closed;
    g_closed = i;
}

uint32_t intake_in_flight(const struct intake *intake)
{
    return intake->in_flight_count;
}

void intake_wait_for_room(struct intake_transaction *t)
{
    if (!link_linked(&t->link))
        link_push(&t->intake->waiting, &t->link);
}

/* --- envelope --- */

static enum err room_now(struct intake *i, uint64_t size)
{
    struct port_status s = port_status(i->deps.port);
    switch (s.accepting) {
    case ERR_FULL:
    case ERR_BELOW_POLICY:
    case ERR_READ_ONLY:
    case ERR_INDEX_LAG:
    case ERR_INDEX_FULL:
        return s.accepting;
    default: /* a spool that restarts has its grace: port_reserve knows */
        return s.connected && s.accepting == ERR_OK && size > s.free_bytes ? ERR_FULL : ERR_OK;
    }
}

static enum err begin_envelope(struct intake_transaction *t, const struct intake_client *client, const char *sender,
                               uint32_t sender_len)
{
    char peer[NAMES_BYTES_MAX];
    int n = snprintf(peer, sizeof peer, "%s[%s]", client->name, client->address);
    struct envelope e = {
        .flags = t->flags,
        .arrival_ms = port_clock_ms(t->intake->deps.port),
        .sender = sender,
        .sender_len = sender_len,
        .client = peer,
        .client_len = (uint32_t)(n < (int)sizeof peer ? n : (int)sizeof peer - 1),
        .helo = client->helo,
        .helo_len = (uint32_t)strlen(client->helo),
    };
    return recipients_begin(&t->recipients, &e);
}

enum err intake_begin(struct intake *intake, const struct settings *settings, const struct intake_callbacks *cb, void *owner,
                      const struct intake_client *client, const char *sender, uint32_t sender_len, uint64_t size,
                      uint32_t envelope_flags, struct intake_transaction **t_out)
{
    ASSERT(owner);
    if (size > settings->message_size_limit)
        return ERR_TOO_LARGE;
    enum err e = room_now(intake, size);
    if (e)
        return e;
    struct intake_transaction *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NO_MEMORY;
    t->intake = intake;
    t->cb = cb;
    t->owner = owner;
    t->flags = envelope_flags;
    t->recipients.routes = settings->transports;
    t->recipients.aliases = settings->aliases;
    t->size_hint = size;
    t->size_max = settings->message_size_limit;
    t->fresh_bytes_max = settings->fresh_bytes_max;
    e = begin_envelope(t, client, sender, sender_len);
    if (e) {
        transaction_free(t);
        return e;
    }
    *t_out = t;
    return ERR_OK;
}

enum err intake_recipient(struct intake_transaction *t, const char *address, uint32_t len)
{
    const char *why = "";
    enum err e = recipients_add(&t->recipients, address, len, &why);
    if (e == ERR_EXPANSION)
        log_line("cleanup", "warning: alias expansion of <%.*s> refused: %s", (int)len, address, why);
    return e;
}

/* --- append --- */

static void finish(struct intake_transaction *t, enum err e)
{
    const struct intake_callbacks *cb = t->cb;
    void *owner = t->owner;
    char qid[QUEUE_ID_TEXT];
    memcpy(qid, t->qid_text, sizeof qid);
    if (e && t->chunk_count > 0)
        port_abort(t->intake->deps.port, t->qid);
    transaction_free(t);
    if (owner)
        cb->done(owner, e, qid);
}

static void log_accepted(const struct intake_transaction *t)
{
    const struct mail *m = t->mail;
    const struct envelope *e = &m->envelope;
    log_line("smtpd", "%s: client=%.*s", t->qid_text, (int)e->client_len, e->client);
    log_line("cleanup", "%s: message-id=%s", t->qid_text, t->message_id);
    log_line("qmgr", "%s: from=<%.*s>, size=%llu, nrcpt=%u (queue active)", t->qid_text, (int)e->sender_len, e->sender,
             (unsigned long long)m->body_bytes, e->recipient_count);
}

static void append_done(struct port_append *a, enum err e)
{
    struct intake_transaction *t = a->owner;
    struct intake *i = t->intake;
    i->in_flight_count--;
    link_remove(&t->link);
    if (i->closed) { /* stored or not: its lease ends with us, the spool hands it out again */
        transaction_free(t);
        if (i->in_flight_count == 0)
            closed_free(i);
        return;
    }
    if (e) {
        log_line("cleanup", "%s: warning: not stored: %s", t->qid_text, err_text(e));
        finish(t, e);
        return;
    }
    log_accepted(t);
    struct mail *mail = t->mail;
    t->mail = NULL;
    mail->fresh = true;
    mail->accepted_ms = loop_now_ms(i->deps.loop);
    if (mail->body && mail_memory_bytes() > t->fresh_bytes_max)
        mail_drop_body(mail);
    finish(t, ERR_OK); /* INT-1 */
    i->deps.on_accepted(i->deps.owner, mail);
}

static void try_append(struct intake_transaction *t)
{
    struct intake *i = t->intake;
    t->stage = IN_FLIGHT;
    i->in_flight_count++;
    link_push(&i->in_flight, &t->link);
    enum err e = port_append(i->deps.port, &t->append);
    if (!e) /* it may be answered and gone by now */
        return;
    t->stage = APPENDING;
    i->in_flight_count--;
    link_remove(&t->link);
    if (e == ERR_BUSY)
        intake_wait_for_room(t);
    else
        finish(t, e);
}

static void make_mail(struct intake_transaction *t)
{
    const struct recipients *to = &t->recipients;
    uint32_t flags = t->flags | (to->other_than_hold || to->envelope.count == 0 ? 0 : ENVELOPE_HOLD), envelope_len = 0;
    enum err e = recipients_end(&t->recipients, t->total, flags, &envelope_len);
    uint8_t *body = NULL;
    if (e) {
        finish(t, e);
        return;
    }
    if (t->chunk_count == 0) {
        body = t->body;
        if (t->body_in_tray) { /* smaller than it said */
            body = malloc(t->body_len);
            if (body)
                memcpy(body, t->body, t->body_len);
        } else if (t->body_capacity - t->body_len > t->body_len / 8 + 256) { /* kept until delivered: by its true size */
            uint8_t *smaller = realloc(body, t->body_len);
            body = smaller ? smaller : body;
        }
        if (!t->body_in_tray)
            t->body = NULL; /* the mail's */
        if (!body) {
            finish(t, ERR_NO_MEMORY);
            return;
        }
    }
    intake_body_drop(t);
    e = mail_make(t->qid, to->envelope.buffer, envelope_len, body, &t->mail);
    if (e) {
        free(body);
        finish(t, e == ERR_INVALID ? ERR_SYSTEM : e); /* an envelope of ours that does not decode is our fault */
        return;
    }
    t->mail->chunk_count = t->chunk_count;
    t->append = (struct port_append){.mail = t->mail, .done = append_done, .owner = t};
    t->stage = APPENDING;
    try_append(t);
}

static void send_last_chunk(struct intake_transaction *t)
{
    enum err e = t->body_len > 0 ? intake_send_chunk(t) : ERR_OK;
    if (e == ERR_BUSY)
        intake_wait_for_room(t);
    else if (e)
        finish(t, e);
    else
        make_mail(t);
}

void intake_body_end(struct intake_transaction *t, const char *message_id)
{
    ASSERT(t->stage == BODY);
    snprintf(t->message_id, sizeof t->message_id, "%s", message_id);
    if (t->failed) {
        finish(t, t->failed);
        return;
    }
    t->stage = LAST_CHUNK;
    if (t->chunk_count > 0)
        send_last_chunk(t);
    else
        make_mail(t);
}

void intake_abandon(struct intake_transaction **transaction)
{
    struct intake_transaction *t = *transaction;
    *transaction = NULL;
    if (!t)
        return;
    if (t->stage == LAST_CHUNK || t->stage == APPENDING || t->stage == IN_FLIGHT) { /* INT-3 */
        t->owner = NULL;
        return;
    }
    if (t->chunk_count > 0)
        port_abort(t->intake->deps.port, t->qid);
    transaction_free(t);
}

static void retry(struct intake_transaction *t)
{
    switch (t->stage) {
    case RECEIVING:
        t->cb->go_on(t->owner);
        break;
    case BODY: {
        enum err e = t->failed ? ERR_OK : intake_send_chunk(t);
        if (e == ERR_BUSY) {
            intake_wait_for_room(t);
            return;
        }
        if (e)
            intake_body_fail(t, e);
        t->cb->go_on(t->owner);
        break;
    }
    case LAST_CHUNK:
        send_last_chunk(t);
        break;
    case APPENDING:
        try_append(t);
        break;
    case IN_FLIGHT:
        UNREACHABLE();
    }
}

void intake_room(struct intake *intake)
{
    struct link last = {0}; /* those who wait now; whoever waits again comes behind it */
    link_push(&intake->waiting, &last);
    for (struct link *l = link_pop(&intake->waiting); l != &last; l = link_pop(&intake->waiting))
        retry(CONTAINER_OF(l, struct intake_transaction, link));
}
