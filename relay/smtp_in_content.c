/* SPDX-License-Identifier: Apache-2.0 */
/* The content of a message on its way through the machine: DATA up to its dot, BDAT chunk by chunk, both by
 * smtp_body.c's scan, never normalised (SIN-2). What is refused is taken to its end and then answered, as long as that
 * is bounded (SIN-5). */
#include "smtp_in_parts.h"

#include <base/assert.h>

#define SWALLOWED_EXTRA (UINT64_C(1) << 20) /* a refused message may be this much more than twice the limit */

uint64_t smtp_in_content_bytes_max(const struct smtp_in *m)
{
    return m->config->message_size_limit * 2 + SWALLOWED_EXTRA;
}

/* Always the same order, so that the reply does not depend on the pieces (SIN-1). */
static const char *content_flaw(const struct smtp_in *m, enum err *why_out)
{
    const struct smtp_body *b = &m->body;
    const struct smtp_in_config *c = m->config;
    *why_out = ERR_TOO_LARGE;
    if (b->bytes > c->message_size_limit)
        return "552 5.3.4 Message size exceeds fixed limit";
    if (b->header_bytes > c->header_size_limit)
        return "552 5.3.4 Message header exceeds fixed limit";
    if (b->line_bytes_max > c->line_length_limit || b->line_bytes > (uint64_t)c->line_length_limit + 1)
        return "554 5.6.0 Line too long";
    *why_out = ERR_BUSY;
    return b->hops > c->hopcount_limit ? "554 5.4.6 Too many hops" : NULL;
}

static void judge_content(struct smtp_in *m)
{
    m->refusal = content_flaw(m, &m->refusal_why);
    if (!m->refusal)
        return;
    smtp_in_tell_abandoned(m); /* its memory is not needed while we wait for the end */
    if (m->body.bytes > smtp_in_content_bytes_max(m)) {
        smtp_in_refuse(m, m->refusal_why, m->refusal);
        smtp_in_end_session(m);
    }
}

static void content_complete(struct smtp_in *m)
{
    judge_content(m);
    if (m->content_bdat && !m->refusal && m->body.line_bytes > m->config->line_length_limit) {
        m->refusal = "554 5.6.0 Line too long"; /* a last line without its CRLF */
        m->refusal_why = ERR_TOO_LARGE;
    }
    if (m->state == SMTP_IN_CLOSED)
        return;
    if (m->refusal) {
        m->state = SMTP_IN_COMMANDS;
        smtp_in_refuse(m, m->refusal_why, m->refusal);
        smtp_in_end_mail(m);
        smtp_in_end_if_stopping(m);
        return;
    }
    m->state = SMTP_IN_FINISHING;
    m->open = false;
    m->cb->body_end(m->owner, m->body.message_id);
}

/* Gives scanned bytes away; the machine stalls when not all are taken. */
static size_t hand_on(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    size_t n = len < m->scanned ? len : m->scanned;
    size_t taken = m->refusal ? n : m->cb->body(m->owner, bytes, n);
    ASSERT(taken <= n);
    m->scanned -= taken;
    if (taken < n)
        m->state = SMTP_IN_STALLED;
    return taken;
}

/* At a dot that begins a line, or at a bare CR or LF. */
static size_t data_special(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    if (m->body.bare) {
        smtp_in_refuse_bare(m);
        return len;
    }
    if (len < 2)
        return 0;
    if (bytes[1] != '\r') {
        m->body.line_start = false; /* the dot was stuffed */
        return 1;
    }
    if (len < 3)
        return 0;
    if (bytes[2] != '\n') {
        smtp_in_refuse_bare(m);
        return len;
    }
    content_complete(m);
    return 3;
}

size_t smtp_in_data_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    if (m->scanned == 0) {
        m->scanned = smtp_body_scan(&m->body, bytes, len, true);
        if (m->scanned == 0)
            return data_special(m, bytes, len);
        judge_content(m);
        if (m->state == SMTP_IN_CLOSED)
            return len;
    }
    return hand_on(m, bytes, len);
}

static void chunk_complete(struct smtp_in *m)
{
    if (m->bdat_failed) {
        m->state = SMTP_IN_COMMANDS;
        smtp_in_refuse(m, m->refusal_why, m->refusal);
        m->refusal = "503 5.5.1 Error: an earlier chunk was refused";
        m->refusal_why = ERR_INVALID;
        if (m->bdat_last || !m->in_mail)
            smtp_in_end_mail(m);
        smtp_in_end_if_stopping(m);
    } else if (m->bdat_last && m->body.after_cr) {
        smtp_in_refuse_bare(m);
    } else if (m->bdat_last) {
        content_complete(m);
    } else if (m->refusal) {
        m->state = SMTP_IN_COMMANDS;
        m->bdat_failed = true;
        smtp_in_refuse(m, m->refusal_why, m->refusal);
        m->refusal = "503 5.5.1 Error: an earlier chunk was refused";
        m->refusal_why = ERR_INVALID;
    } else {
        m->state = SMTP_IN_COMMANDS;
        smtp_in_good(m);
        smtp_in_say(m, "250 2.0.0 Ok: %llu bytes", (unsigned long long)m->chunk_bytes);
    }
}

size_t smtp_in_bdat_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    size_t n = len < m->chunk_left ? len : (size_t)m->chunk_left;
    if (!m->bdat_failed) {
        if (m->scanned == 0) {
            m->scanned = smtp_body_scan(&m->body, bytes, n, false);
            if (m->scanned == 0) {
                smtp_in_refuse_bare(m);
                return len;
            }
            judge_content(m);
            if (m->state == SMTP_IN_CLOSED)
                return len;
        }
        n = hand_on(m, bytes, n);
    }
    m->chunk_left -= n;
    if (m->chunk_left == 0)
        chunk_complete(m);
    return n;
}

/* body_begin was granted (or granted earlier, for a later BDAT). */
void smtp_in_begin_content(struct smtp_in *m)
{
    m->state = SMTP_IN_CONTENT;
    if (!m->content_bdat) {
        SAY(m, "354 End data with <CR><LF>.<CR><LF>");
        return;
    }
    m->bdat_begun = true;
    if (m->chunk_left == 0)
        chunk_complete(m);
}

void smtp_in_begin_discarding(struct smtp_in *m, enum err why, const char *reply)
{
    m->bdat_failed = true;
    m->refusal = reply;
    m->refusal_why = why;
    m->state = SMTP_IN_CONTENT;
    if (m->chunk_left == 0)
        chunk_complete(m);
}

void smtp_in_content_refused(struct smtp_in *m, enum err e)
{
    m->state = SMTP_IN_COMMANDS;
    smtp_in_tell_abandoned(m);
    if (m->content_bdat && e != ERR_STOPPING) { /* its bytes are coming whatever we say */
        smtp_in_begin_discarding(m, e, smtp_in_reply_of(e));
        return;
    }
    if (smtp_in_refuse_error(m, e))
        return;
    smtp_in_end_mail(m);
    smtp_in_end_if_stopping(m);
}

void smtp_in_ask_for_content(struct smtp_in *m)
{
    smtp_body_begin(&m->body);
    m->scanned = 0;
    m->refusal = NULL;
    m->state = SMTP_IN_BEGINNING;
    enum err e = m->cb->body_begin(m->owner);
    if (e == ERR_BUSY)
        return;
    if (e)
        smtp_in_content_refused(m, e);
    else
        smtp_in_begin_content(m);
}
