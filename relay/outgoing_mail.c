/* SPDX-License-Identifier: Apache-2.0 */
/* The transactions of one connection: the client machine's actions, the body on its way, one job after the other.
 * Failures found inside the machine are kept in `doom` and dealt with when it has returned. See outgoing.h, smtp_out.h. */
#include "outgoing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUED_BYTES_MAX (256u * 1024) /* of a streamed body towards the kernel */

/* --- the machine's callbacks --- */

static void machine_write(void *owner, const void *bytes, size_t len)
{
    struct outgoing *s = owner;
    if (s->conn)
        conn_write(s->conn, bytes, len);
}

static void machine_start_tls(void *owner)
{
    struct outgoing *s = owner;
    const char *name = s->query ? s->query->addresses[s->address_at].host : s->lane->route.host;
    outgoing_touch(s, REPLY_MS);
    if (conn_start_tls(s->conn, s->attempts->tls, false, name) != ERR_OK)
        outgoing_doom(s, "4.7.5 the TLS handshake could not begin");
}

static void machine_ready(void *owner)
{
    struct outgoing *s = owner;
    struct attempts *a = s->attempts;
    if (!s->working) {
        s->working = true;
        s->lane->working++;
        free(s->query); /* addresses were for connecting */
        s->query = NULL;
    }
    if (!s->in_transaction) {
        outgoing_begin_job(s);
        return;
    }
    a->cb.on_host_worked(a->cb.owner, s->lane);
    outgoing_finish_job(s);
    outgoing_go_idle(s);
}

static void machine_result(void *owner, uint32_t i, unsigned code, const char *text, const char *command)
{
    struct outgoing *s = owner;
    struct attempts *a = s->attempts;
    struct outcome o;
    outcome_of_reply(code, text, command, s->peer, &o);
    a->cb.on_outcome(a->cb.owner, s->job, s->map[i], &o, s->relay);
}

static void machine_failed(void *owner, unsigned code, const char *text, const char *command)
{
    struct outgoing *s = owner;
    s->untouched = command && (strcmp(command, "MAIL FROM") == 0 || strcmp(command, "idle") == 0);
    if (code == 0) {
        char line[REASON_BYTES_MAX];
        snprintf(line, sizeof line, "%.300s: host %.180s", text, s->peer);
        outgoing_doom(s, line);
    } else {
        outcome_of_reply(code, text, command, s->peer, &s->doom);
        s->doom.status = MARK_DEFERRED;
        s->doom.blame = OUTCOME_HOST;
        s->doomed = true;
    }
}

/* --- bodies --- */

static bool stream_bytes(struct port_fetch *f, const uint8_t *bytes, uint32_t len)
{
    struct outgoing *s = f->owner;
    if (!s->conn || s->doomed)
        return false;
    smtp_out_body(&s->machine, bytes, len);
    outgoing_touch(s, PROGRESS_MS);
    s->stream_paused = conn_queued_bytes(s->conn) > QUEUED_BYTES_MAX;
    return !s->stream_paused;
}

static void stream_done(struct port_fetch *f, enum err e)
{
    struct outgoing *s = f->owner;
    s->streaming = s->stream_paused = false;
    if (s->doomed)
        return;
    if (e) { /* ATT-3 */
        outcome_of_body(s->attempts->port, s->job, e, &s->doom);
        s->doom.blame = OUTCOME_US;
        outgoing_fail(s);
        return;
    }
    outgoing_touch(s, DOT_MS);
    smtp_out_body_end(&s->machine);
}

static void machine_body(void *owner)
{
    struct outgoing *s = owner;
    const uint8_t *body = attempt_body(s->job);
    if (body) {
        outgoing_touch(s, DOT_MS);
        smtp_out_body(&s->machine, body, s->job->item->mail->body_bytes);
        smtp_out_body_end(&s->machine);
        return;
    }
    s->stream = (struct port_fetch){.mail = s->job->item->mail, .on_bytes = stream_bytes, .done = stream_done,
                                    .owner = s};
    s->streaming = true;
    outgoing_touch(s, PROGRESS_MS);
    port_fetch(s->attempts->port, &s->stream);
}

const struct smtp_out_callbacks outgoing_machine_callbacks = {
    .write = machine_write, .start_tls = machine_start_tls, .on_ready = machine_ready, .on_body = machine_body,
    .on_result = machine_result, .on_failed = machine_failed,
};

/* --- a transaction --- */

/* Recipients that cannot be said in SMTP have their outcome already; returns how many can. */
static uint32_t choose_recipients(struct outgoing *s, bool utf8)
{
    struct attempts *a = s->attempts;
    s->sent = 0;
    for (uint32_t i = 0; i < s->job->count; i++) {
        const struct job_recipient *r = &s->job->recipients[i];
        struct smtp_out_address address = {.address = r->address, .len = r->len};
        if (smtp_out_can_express(&address, utf8)) {
            s->map[s->sent] = i;
            s->recipients[s->sent++] = address;
            continue;
        }
        struct outcome o;
        outcome_of_text("5.1.3 the address cannot be expressed in SMTP", "5.1.3", &o);
        a->cb.on_outcome(a->cb.owner, s->job, i, &o, s->relay);
    }
    return s->sent;
}

static void send_job(struct outgoing *s)
{
    const struct mail *m = s->job->item->mail;
    bool utf8 = m->envelope.flags & ENVELOPE_SMTPUTF8;
    struct smtp_out_message msg = {
        .sender = {.address = s->job->sender, .len = s->job->sender_len}, .recipients = s->recipients,
        .body_bytes = m->body_bytes, .smtputf8 = utf8, .eight_bit = m->envelope.flags & ENVELOPE_8BITMIME,
    };
    s->job->connected_ms = loop_now_ms(s->attempts->loop);
    const char *refusal = NULL;
    msg.count = choose_recipients(s, utf8);
    if (msg.count > 0)
        refusal = smtp_out_refusal(&s->machine, &msg);
    if (refusal || msg.count == 0) {
        struct outcome o;
        outcome_of_text(refusal ? refusal : "5.1.3", "5.1.3", &o);
        outgoing_give_rest(s, &o);
        outgoing_finish_job(s);
        outgoing_go_idle(s);
        return;
    }
    s->in_transaction = true;
    outgoing_touch(s, REPLY_MS);
    smtp_out_send(&s->machine, &msg);
}

static void body_ready(struct body_fetch *f, enum err e)
{
    struct outgoing *s = f->owner;
    if (!e) {
        send_job(s);
        return;
    }
    struct outcome o;
    outcome_of_body(s->attempts->port, s->job, e, &o);
    outgoing_give_rest(s, &o);
    outgoing_finish_job(s);
    outgoing_go_idle(s);
}

void outgoing_begin_job(struct outgoing *s)
{
    const struct mail *m = s->job->item->mail;
    if (attempt_body(s->job) || m->chunk_count > 0 || m->body_bytes > ATTEMPT_BODY_AT_ONCE_MAX) {
        send_job(s);
        return;
    }
    outgoing_touch(s, PROGRESS_MS);
    enum err e = body_fetch_start(&s->body, s->attempts->port, s->job, body_ready, s);
    if (e)
        body_ready(&s->body, e);
}
