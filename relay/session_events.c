/* SPDX-License-Identifier: Apache-2.0 */
/* Where the parts of a session meet: the socket's events (conn.h), the protocol's decisions (smtp_in.h) and the way of
 * the message (intake.h). Nothing is decided here: every function hands on to the others what one of them said. */
#include "server_parts.h"

#include "log.h"
#include "policy.h"

#include <stdio.h>
#include <string.h>

#define OUTPUT_BYTES_MAX (64u * 1024) /* replies nobody reads; then no more commands */
#define COMMANDS_SLICE 8192u          /* fed at once, so that the line above is checked often enough */

/* --- smtp_in's actions --- */

static void on_reply(void *owner, const char *bytes, size_t len)
{
    struct session *s = owner;
    conn_write(s->conn, bytes, len);
}

/* An address without a domain is one of this host's. */
static uint32_t complete(const struct session *s, const char *address, uint32_t len, char out[ADDRESS_BYTES_MAX + 1])
{
    const char *domain;
    uint32_t domain_len;
    int n = 0;
    if (len > 0 && !address_domain(address, len, &domain, &domain_len))
        n = snprintf(out, ADDRESS_BYTES_MAX + 1, "%.*s@%s", (int)len, address, s->settings->hostname);
    if (n > 0 && n <= (int)ADDRESS_BYTES_MAX)
        return (uint32_t)n;
    memcpy(out, address, len);
    out[len] = '\0';
    return len;
}

static struct intake_client client_of(const struct session *s)
{
    return (struct intake_client){
        .name = "unknown",
        .address = s->address,
        .helo = s->smtp.helo,
        .tls = s->tls_text,
        .esmtp = s->smtp.esmtp,
        .smtputf8 = s->smtp.smtputf8,
    };
}

static void on_go_on(void *owner);
static void on_done(void *owner, enum err e, const char *queue_id);
static const struct intake_callbacks intake_callbacks = {.go_on = on_go_on, .done = on_done};

static enum err on_mail(void *owner, const struct smtp_in_mail *mail)
{
    struct session *s = owner;
    struct intake_client client = client_of(s);
    uint32_t flags = (mail->smtputf8 ? ENVELOPE_SMTPUTF8 : 0u) | (mail->eightbit ? ENVELOPE_8BITMIME : 0u) |
                     (mail->hold ? ENVELOPE_HOLD : 0u);
    uint32_t len = complete(s, mail->sender, mail->sender_len, s->sender);
    if (s->server->stopping)
        return ERR_STOPPING; /* SES-3 */
    if (mail->hold && !s->trusted)
        return ERR_DENIED; /* a stranger's mail would stay here for ever */
    return intake_begin(s->server->intake, s->settings, &intake_callbacks, s, &client, s->sender, len, mail->size, flags,
                        &s->transaction);
}

static enum err on_recipient(void *owner, const char *address, uint32_t len)
{
    struct session *s = owner;
    char whole[ADDRESS_BYTES_MAX + 1];
    enum err e = policy_recipient(s->settings, s->trusted, address, len);
    if (e)
        return e;
    len = complete(s, address, len, whole);
    return intake_recipient(s->transaction, whole, len);
}

static void content_begins(struct session *s)
{
    s->content = true;
    s->content_ms = loop_now_ms(s->server->deps.loop);
}

static enum err on_body_begin(void *owner)
{
    struct session *s = owner;
    struct intake_client client = client_of(s);
    client.smtputf8 = s->smtp.smtputf8;
    enum err e = intake_body_begin(s->transaction, s->settings, &client);
    if (!e)
        content_begins(s);
    return e;
}

static size_t on_body(void *owner, const uint8_t *bytes, size_t len)
{
    struct session *s = owner;
    size_t taken = intake_body(s->transaction, bytes, len);
    if (taken < len)
        s->stalled_ms = loop_now_ms(s->server->deps.loop);
    return taken;
}

static void on_body_end(void *owner, const char *message_id)
{
    struct session *s = owner;
    s->content = false;
    intake_body_end(s->transaction, message_id); /* on_done may have run when this returns */
}

static void on_abandon(void *owner)
{
    struct session *s = owner;
    s->content = false;
    intake_abandon(&s->transaction);
}

static void on_start_tls(void *owner)
{
    struct session *s = owner;
    s->tls_wanted = true; /* in on_drained, when the reply has left */
}

static void on_refused(void *owner, enum smtp_verb verb, enum err why, const char *reply, const char *address,
                       uint32_t len)
{
    struct session *s = owner;
    server_count_refused(s->server, why);
    if (why == ERR_STOPPING || why == ERR_TIMEOUT)
        return;
    log_line("smtpd", "NOQUEUE: reject: %s from unknown[%s]: %s; from=<%s> to=<%.*s> proto=%s helo=<%s>",
             smtp_verb_words[verb], s->address, reply, s->smtp.in_mail ? s->sender : "", (int)len, address ? address : "",
             s->smtp.esmtp ? "ESMTP" : "SMTP", s->smtp.helo);
}

static void on_close(void *owner)
{
    session_retire(owner);
}

const struct smtp_in_callbacks session_smtp_callbacks = {
    .reply = on_reply,
    .mail = on_mail,
    .recipient = on_recipient,
    .body_begin = on_body_begin,
    .body = on_body,
    .body_end = on_body_end,
    .abandon = on_abandon,
    .start_tls = on_start_tls,
    .refused = on_refused,
    .close = on_close,
};

/* --- intake's answers --- */

static void read_on(struct session *s)
{
    s->progress_ms = loop_now_ms(s->server->deps.loop);
    if (!s->retired && !smtp_in_waits(&s->smtp) && conn_queued_bytes(s->conn) <= OUTPUT_BYTES_MAX)
        conn_pause(s->conn, false);
}

static void on_go_on(void *owner)
{
    struct session *s = owner;
    if (s->smtp.state == SMTP_IN_BEGINNING) {
        enum err e = on_body_begin(s);
        if (e == ERR_BUSY)
            return;
        smtp_in_go_on(&s->smtp, e);
    } else {
        s->content_ms += loop_now_ms(s->server->deps.loop) - s->stalled_ms; /* our slowness, not the client's */
        smtp_in_go_on(&s->smtp, ERR_OK);
    }
    read_on(s);
}

static void on_done(void *owner, enum err e, const char *queue_id)
{
    struct session *s = owner;
    s->transaction = NULL;
    if (!e) {
        s->server->counters.accepted++;
        s->server->counters.accepted_bytes += s->smtp.body.bytes;
    }
    smtp_in_finish(&s->smtp, e, queue_id);
    read_on(s);
}

/* --- conn's events --- */

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct session *s = owner;
    size_t used = 0;
    while (used < len && !s->retired) {
        size_t slice = len - used;
        if (s->smtp.state != SMTP_IN_CONTENT && slice > COMMANDS_SLICE)
            slice = COMMANDS_SLICE;
        size_t n = smtp_in_feed(&s->smtp, bytes + used, slice);
        used += n;
        if (n == 0 || conn_queued_bytes(s->conn) > OUTPUT_BYTES_MAX)
            break;
    }
    if (used > 0)
        s->progress_ms = loop_now_ms(s->server->deps.loop);
    if (smtp_in_waits(&s->smtp) || conn_queued_bytes(s->conn) > OUTPUT_BYTES_MAX)
        conn_pause(s->conn, true);
    return s->retired ? len : used;
}

static void on_drained(void *owner)
{
    struct session *s = owner;
    if (!s->tls_wanted) {
        read_on(s);
        return;
    }
    s->tls_wanted = false;
    enum err e = conn_start_tls(s->conn, s->tls, true, NULL);
    if (!e)
        return;
    log_line("smtpd", "SSL_accept error from unknown[%s]: %s", s->address,
             e == ERR_INVALID ? "plaintext behind STARTTLS" : err_text(e));
    server_count_refused(s->server, e);
    session_retire(s);
}

static void on_tls(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    if (e) {
        log_line("smtpd", "SSL_accept error from unknown[%s]: %s", s->address, text);
        session_retire(s);
        return;
    }
    log_line("smtpd", "Anonymous TLS connection established from unknown[%s]: %s", s->address, text);
    s->server->counters.sessions_tls++;
    s->tls_text = strdup(text); /* without memory the Received header lacks it */
    smtp_in_tls_started(&s->smtp);
    read_on(s);
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    const char *where = s->smtp.seen[s->smtp.verb] ? smtp_verb_words[s->smtp.verb] : "CONNECT";
    if (e == ERR_TIMEOUT) {
        s->server->counters.timeouts++;
        log_line("smtpd", "timeout after %s from unknown[%s]", where, s->address);
        if (s->smtp.state != SMTP_IN_HANDSHAKE)
            smtp_in_timeout(&s->smtp);
    } else if (s->smtp.state != SMTP_IN_CLOSED) {
        log_line("smtpd", "lost connection after %s from unknown[%s]%s%s", where, s->address, e ? ": " : "", e ? text : "");
    }
    session_retire(s);
}

const struct conn_callbacks session_conn_callbacks = {
    .on_bytes = on_bytes,
    .on_drained = on_drained,
    .on_tls = on_tls,
    .on_closed = on_closed,
};
