/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server machine: bytes into lines and content, and the events from outside. Pure: everything it knows is in
 * struct smtp_in, everything it does goes through the callbacks. Commands are whole lines left in the caller's buffer
 * until their CRLF is there (smtp_in_command.c); content goes on in pieces as large as they come (smtp_in_content.c);
 * answers are smtp_in_reply.c's. Invariants in smtp_in.h. */
#include "smtp_in_parts.h"

#include <string.h>

static size_t skip_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    const uint8_t *cr = memchr(bytes, '\r', len);
    size_t n = cr ? (size_t)(cr - bytes) : len;
    if (memchr(bytes, '\n', n) || (n + 1 < len && bytes[n + 1] != '\n')) {
        smtp_in_refuse_bare(m);
        return len;
    }
    uint64_t total = (uint64_t)m->skipped + n;
    m->verb = SMTP_UNKNOWN;
    if (total > SMTP_SKIPPED_BYTES_MAX) {
        smtp_in_refuse(m, ERR_INVALID, "500 5.5.2 Error: line too long");
        smtp_in_end_session(m);
        return len;
    }
    m->skipped = (uint32_t)total;
    if (n + 1 >= len) /* a CR at the end waits for its LF */
        return n;
    m->state = SMTP_IN_COMMANDS;
    smtp_in_refuse(m, ERR_INVALID, "500 5.5.2 Error: line too long");
    if (m->errors >= m->config->hard_error_limit)
        smtp_in_end_session_with(m, ERR_INVALID, "421 4.7.0", "Error: too many errors");
    return n + 2;
}

static size_t command_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    const uint8_t *cr = memchr(bytes, '\r', len);
    size_t line = cr ? (size_t)(cr - bytes) : len;
    if (line > SMTP_COMMAND_BYTES_MAX && !memchr(bytes, '\n', SMTP_COMMAND_BYTES_MAX)) {
        m->state = SMTP_IN_SKIPPING;
        m->skipped = 0;
        return skip_step(m, bytes, len);
    }
    if (memchr(bytes, '\n', line) || (line + 1 < len && bytes[line + 1] != '\n')) {
        smtp_in_refuse_bare(m);
        return len;
    }
    if (line + 1 >= len)
        return 0;
    smtp_in_command(m, (const char *)bytes, (uint32_t)line);
    return line + 2;
}

static size_t step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    switch (m->state) {
    case SMTP_IN_NEW:
        smtp_in_end_session_with(m, ERR_INVALID, "554 5.5.1", "Error: client spoke before the banner");
        return len;
    case SMTP_IN_COMMANDS:
        return command_step(m, bytes, len);
    case SMTP_IN_SKIPPING:
        return skip_step(m, bytes, len);
    case SMTP_IN_CONTENT:
        return m->content_bdat ? smtp_in_bdat_step(m, bytes, len) : smtp_in_data_step(m, bytes, len);
    case SMTP_IN_CLOSED:
        return len;
    default:
        return 0;
    }
}

size_t smtp_in_feed(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    while (used < len) {
        size_t n = step(m, bytes + used, len - used);
        if (n == 0)
            break;
        used += n;
    }
    return used;
}

/* --- events --- */

void smtp_in_open(struct smtp_in *m, const struct smtp_in_config *config, const struct smtp_in_callbacks *cb, void *owner)
{
    memset(m, 0, sizeof *m);
    m->config = config;
    m->cb = cb;
    m->owner = owner;
    m->verb = SMTP_UNKNOWN;
}

void smtp_in_greet(struct smtp_in *m)
{
    if (m->state != SMTP_IN_NEW)
        return;
    m->state = SMTP_IN_COMMANDS;
    if (m->stopping)
        smtp_in_end_if_stopping(m);
    else
        smtp_in_say(m, "220 %s ESMTP %s", m->config->hostname, m->config->mail_name);
}

bool smtp_in_waits(const struct smtp_in *m)
{
    return m->state == SMTP_IN_BEGINNING || m->state == SMTP_IN_STALLED || m->state == SMTP_IN_FINISHING ||
           m->state == SMTP_IN_HANDSHAKE;
}

void smtp_in_go_on(struct smtp_in *m, enum err e)
{
    if (m->state == SMTP_IN_STALLED)
        m->state = SMTP_IN_CONTENT;
    else if (m->state == SMTP_IN_BEGINNING && e == ERR_OK)
        smtp_in_begin_content(m);
    else if (m->state == SMTP_IN_BEGINNING && e != ERR_BUSY)
        smtp_in_content_refused(m, e);
}

void smtp_in_finish(struct smtp_in *m, enum err e, const char *queue_id)
{
    if (m->state != SMTP_IN_FINISHING) /* timed out or gone meanwhile */
        return;
    m->state = SMTP_IN_COMMANDS;
    if (!e) {
        m->errors = 0;
        smtp_in_good(m);
        smtp_in_say(m, "250 2.0.0 Ok: queued as %s", queue_id);
    } else if (smtp_in_refuse_error(m, e)) {
        return;
    }
    smtp_in_end_mail(m);
    smtp_in_end_if_stopping(m);
}

void smtp_in_tls_started(struct smtp_in *m)
{
    if (m->state != SMTP_IN_HANDSHAKE)
        return;
    m->state = SMTP_IN_COMMANDS; /* SIN-4 */
    m->tls = true;
    m->esmtp = false;
    m->helo[0] = '\0';
    smtp_in_end_if_stopping(m);
}

void smtp_in_timeout(struct smtp_in *m)
{
    if (m->state != SMTP_IN_CLOSED)
        smtp_in_end_session_with(m, ERR_TIMEOUT, "421 4.4.2", "Error: timeout exceeded");
}

void smtp_in_stop(struct smtp_in *m)
{
    m->stopping = true;
    smtp_in_end_if_stopping(m);
}

void smtp_in_cut_off(struct smtp_in *m)
{
    m->stopping = true;
    if (m->state == SMTP_IN_HANDSHAKE) /* nothing can be said there */
        smtp_in_end_session(m);
    else if (m->state != SMTP_IN_CLOSED)
        smtp_in_end_stopping(m);
}
