/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server machine. Pure: everything it knows is in struct smtp_in, everything it does goes through the
 * callbacks. Commands are whole lines left in the caller's buffer until their CRLF is there; content goes through
 * smtp_body.c in pieces as large as they come. Invariants in smtp_in.h. */
#include "smtp_in.h"

#include <base/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define REPLY_BYTES 1024
#define SWALLOWED_EXTRA (UINT64_C(1) << 20) /* a refused message may be this much more than twice the limit */

#define SAY(m, literal) (m)->cb->reply((m)->owner, literal "\r\n", sizeof literal + 1)

static void say(struct smtp_in *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct smtp_in *m, const char *format, ...)
{
    char line[REPLY_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line - 2, format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof line - 2 ? (size_t)n : sizeof line - 3;
    memcpy(line + len, "\r\n", 2);
    m->cb->reply(m->owner, line, len + 2);
}

static void good(struct smtp_in *m)
{
    m->good[m->verb]++;
}

static void refuse_address(struct smtp_in *m, enum err why, const char *text, const char *address, uint32_t len)
{
    say(m, "%s", text);
    if (text[0] == '5')
        m->errors++;
    m->cb->refused(m->owner, m->verb, why, text, address, len);
}

static void refuse(struct smtp_in *m, enum err why, const char *text)
{
    refuse_address(m, why, text, NULL, 0);
}

static void tell_abandoned(struct smtp_in *m)
{
    if (!m->open)
        return;
    m->open = false;
    m->cb->abandon(m->owner);
}

static void end_mail(struct smtp_in *m)
{
    tell_abandoned(m);
    m->in_mail = m->smtputf8 = false;
    m->bdat_begun = m->bdat_failed = false;
    m->refusal = NULL;
    m->recipients = 0;
    m->scanned = 0;
}

static void end_session(struct smtp_in *m)
{
    if (m->state == SMTP_IN_CLOSED)
        return;
    end_mail(m);
    m->state = SMTP_IN_CLOSED;
    m->cb->close(m->owner);
}

static void end_session_with(struct smtp_in *m, enum err why, const char *code, const char *text)
{
    char line[REPLY_BYTES];
    snprintf(line, sizeof line, "%s %s %s", code, m->config->hostname, text);
    refuse(m, why, line);
    end_session(m);
}

static void end_stopping(struct smtp_in *m)
{
    end_session_with(m, ERR_STOPPING, "421 4.3.2", "Service shutting down, closing connection");
}

static void end_if_stopping(struct smtp_in *m)
{
    if (m->stopping && !m->in_mail && m->state == SMTP_IN_COMMANDS)
        end_stopping(m);
}

static void refuse_bare(struct smtp_in *m) /* SIN-2 */
{
    end_session_with(m, ERR_INVALID, "521 5.5.2", "Error: bare <CR> or <LF> received");
}

/* The one place where errors of the world become replies. */
static const char *reply_of(enum err e)
{
    if (e == ERR_TOO_LARGE)
        return "552 5.3.4 Message size exceeds fixed limit";
    if (e == ERR_DENIED)
        return "554 5.7.1 Relay access denied";
    if (e == ERR_TOO_MANY) /* the client sends the others the message once more */
        return "452 4.5.3 Error: too many recipients";
    if (e == ERR_EXPANSION)
        return "451 4.6.0 Alias expansion error, try again later";
    switch (err_class(e)) {
    case ERR_CLASS_FULL:
        return "452 4.3.1 Insufficient system storage";
    case ERR_CLASS_DEGRADED:
        return "451 4.3.0 Too few disks to keep mail safely, try again later";
    case ERR_CLASS_TRANSIENT:
    default:
        return "451 4.3.0 Mail cannot be stored now, try again later";
    }
}

/* Returns true when the session is over. */
static bool refuse_error(struct smtp_in *m, enum err e)
{
    if (e == ERR_STOPPING) {
        end_stopping(m);
        return true;
    }
    refuse(m, e, reply_of(e));
    return false;
}

/* --- content --- */

static uint64_t content_bytes_max(const struct smtp_in *m)
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
    tell_abandoned(m); /* its memory is not needed while we wait for the end */
    if (m->body.bytes > content_bytes_max(m)) {
        refuse(m, m->refusal_why, m->refusal);
        end_session(m);
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
        refuse(m, m->refusal_why, m->refusal);
        end_mail(m);
        end_if_stopping(m);
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
        refuse_bare(m);
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
        refuse_bare(m);
        return len;
    }
    content_complete(m);
    return 3;
}

static size_t data_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
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
        refuse(m, m->refusal_why, m->refusal);
        m->refusal = "503 5.5.1 Error: an earlier chunk was refused";
        m->refusal_why = ERR_INVALID;
        if (m->bdat_last || !m->in_mail)
            end_mail(m);
        end_if_stopping(m);
    } else if (m->bdat_last && m->body.after_cr) {
        refuse_bare(m);
    } else if (m->bdat_last) {
        content_complete(m);
    } else if (m->refusal) {
        m->state = SMTP_IN_COMMANDS;
        m->bdat_failed = true;
        refuse(m, m->refusal_why, m->refusal);
        m->refusal = "503 5.5.1 Error: an earlier chunk was refused";
        m->refusal_why = ERR_INVALID;
    } else {
        m->state = SMTP_IN_COMMANDS;
        good(m);
        say(m, "250 2.0.0 Ok: %llu bytes", (unsigned long long)m->chunk_bytes);
    }
}

static size_t bdat_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    size_t n = len < m->chunk_left ? len : (size_t)m->chunk_left;
    if (!m->bdat_failed) {
        if (m->scanned == 0) {
            m->scanned = smtp_body_scan(&m->body, bytes, n, false);
            if (m->scanned == 0) {
                refuse_bare(m);
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
static void begin_content(struct smtp_in *m)
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

static void begin_discarding(struct smtp_in *m, enum err why, const char *reply)
{
    m->bdat_failed = true;
    m->refusal = reply;
    m->refusal_why = why;
    m->state = SMTP_IN_CONTENT;
    if (m->chunk_left == 0)
        chunk_complete(m);
}

static void content_refused(struct smtp_in *m, enum err e)
{
    m->state = SMTP_IN_COMMANDS;
    tell_abandoned(m);
    if (m->content_bdat && e != ERR_STOPPING) { /* its bytes are coming whatever we say */
        begin_discarding(m, e, reply_of(e));
        return;
    }
    if (refuse_error(m, e))
        return;
    end_mail(m);
    end_if_stopping(m);
}

static void ask_for_content(struct smtp_in *m)
{
    smtp_body_begin(&m->body);
    m->scanned = 0;
    m->refusal = NULL;
    m->state = SMTP_IN_BEGINNING;
    enum err e = m->cb->body_begin(m->owner);
    if (e == ERR_BUSY)
        return;
    if (e)
        content_refused(m, e);
    else
        begin_content(m);
}

/* --- commands --- */

static void do_helo(struct smtp_in *m, struct smtp_text argument, bool extended)
{
    if (smtp_parse_helo(argument)) {
        refuse(m, ERR_INVALID, extended ? "501 5.5.4 Syntax: EHLO hostname" : "501 5.5.4 Syntax: HELO hostname");
        return;
    }
    end_mail(m);
    memcpy(m->helo, argument.at, argument.len);
    m->helo[argument.len] = '\0';
    m->esmtp = extended;
    good(m);
    if (!extended) {
        say(m, "250 %s", m->config->hostname);
        return;
    }
    say(m,
        "250-%s\r\n250-PIPELINING\r\n250-SIZE %llu\r\n%s250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
        "250-SMTPUTF8\r\n250-LIMITS RCPTMAX=%u\r\n250 CHUNKING",
        m->config->hostname, (unsigned long long)m->config->message_size_limit,
        m->config->tls_offered && !m->tls ? "250-STARTTLS\r\n" : "", m->config->recipient_limit);
}

static bool utf8_missing(struct smtp_in *m, const struct smtp_path *path, bool smtputf8)
{
    if (!path->non_ascii || smtputf8)
        return false;
    refuse_address(m, ERR_INVALID, "553 5.6.7 Address needs SMTPUTF8", path->at, path->len);
    return true;
}

static void refuse_parameters(struct smtp_in *m, enum err e)
{
    refuse(m, e == ERR_TOO_LARGE ? e : ERR_INVALID,
           e == ERR_TOO_LARGE   ? reply_of(e)
           : e == ERR_NOT_FOUND ? "555 5.5.4 Unsupported option"
                                : "501 5.5.4 Bad parameter");
}

static void do_mail(struct smtp_in *m, struct smtp_text argument)
{
    struct smtp_path path;
    struct smtp_text rest;
    struct smtp_mail_parameters p;
    if (!m->helo[0] || m->in_mail) {
        refuse(m, ERR_INVALID, m->in_mail ? "503 5.5.1 Error: nested MAIL command" : "503 5.5.1 Error: send EHLO or HELO first");
        return;
    }
    if (smtp_parse_path(argument, "FROM:", &path, &rest)) {
        refuse(m, ERR_INVALID, "501 5.1.7 Bad sender address syntax");
        return;
    }
    enum err e = smtp_parse_mail_parameters(rest, &p);
    if (!e && p.size > m->config->message_size_limit)
        e = ERR_TOO_LARGE;
    if (e) {
        refuse_parameters(m, e);
        return;
    }
    if (utf8_missing(m, &path, p.smtputf8))
        return;
    struct smtp_in_mail mail = {path.at, path.len, p.size, p.smtputf8, p.eightbit};
    e = m->cb->mail(m->owner, &mail);
    if (e) {
        refuse_error(m, e);
        return;
    }
    m->in_mail = m->open = true;
    m->smtputf8 = p.smtputf8;
    good(m);
    SAY(m, "250 2.1.0 Ok");
}

static void recipient_refused(struct smtp_in *m, enum err e, const struct smtp_path *path)
{
    char line[REPLY_BYTES];
    if (e == ERR_STOPPING) {
        refuse_error(m, e);
        return;
    }
    const char *reply = reply_of(e);
    if (e != ERR_DENIED && e != ERR_NO_USER) {
        refuse_address(m, e, reply, path->at, path->len);
        return;
    }
    snprintf(line, sizeof line, e == ERR_DENIED ? "554 5.7.1 <%.*s>: Relay access denied"
                                                : "550 5.1.1 <%.*s>: User unknown", (int)path->len, path->at);
    refuse_address(m, e, line, path->at, path->len);
}

static void do_rcpt(struct smtp_in *m, struct smtp_text argument)
{
    struct smtp_path path;
    struct smtp_text rest;
    if (!m->in_mail || m->bdat_begun || m->bdat_failed) {
        refuse(m, ERR_INVALID, m->in_mail ? "503 5.5.1 Error: BDAT under way" : "503 5.5.1 Error: need MAIL command");
        return;
    }
    if (smtp_parse_path(argument, "TO:", &path, &rest) || path.len == 0) {
        refuse(m, ERR_INVALID, "501 5.1.3 Bad recipient address syntax");
        return;
    }
    enum err e = smtp_parse_rcpt_parameters(rest);
    if (e) {
        refuse_parameters(m, e);
        return;
    }
    if (utf8_missing(m, &path, m->smtputf8))
        return;
    if (m->recipients >= m->config->recipient_limit) {
        refuse_address(m, ERR_BUSY, "452 4.5.3 Error: too many recipients", path.at, path.len);
        return;
    }
    e = m->cb->recipient(m->owner, path.at, path.len);
    if (e) {
        recipient_refused(m, e, &path);
        return;
    }
    m->recipients++;
    good(m);
    SAY(m, "250 2.1.5 Ok");
}

static void do_data(struct smtp_in *m, struct smtp_text argument)
{
    if (argument.len > 0)
        refuse(m, ERR_INVALID, "501 5.5.4 Syntax: DATA");
    else if (!m->in_mail)
        refuse(m, ERR_INVALID, "503 5.5.1 Error: need MAIL command");
    else if (m->bdat_begun || m->bdat_failed)
        refuse(m, ERR_INVALID, "503 5.5.1 Error: BDAT under way");
    else if (m->recipients == 0)
        refuse(m, ERR_INVALID, "554 5.5.1 Error: no valid recipients");
    else {
        m->content_bdat = false;
        ask_for_content(m);
    }
}

/* Once the size is known its bytes are coming, whatever we think of them: they are taken, then answered. */
static void do_bdat(struct smtp_in *m, struct smtp_text argument)
{
    uint64_t size = 0;
    bool last = false;
    enum err e = smtp_parse_bdat(argument, &size, &last);
    if (!e && size > content_bytes_max(m))
        e = ERR_TOO_LARGE;
    if (e) { /* what follows cannot be told from commands */
        refuse(m, e, e == ERR_TOO_LARGE ? reply_of(e) : "501 5.5.4 Syntax: BDAT size [LAST]");
        end_session(m);
        return;
    }
    m->content_bdat = true;
    m->chunk_bytes = m->chunk_left = size;
    m->bdat_last = last;
    if (m->bdat_failed)
        begin_discarding(m, ERR_INVALID, "503 5.5.1 Error: an earlier chunk was refused");
    else if (!m->in_mail)
        begin_discarding(m, ERR_INVALID, "503 5.5.1 Error: need MAIL command");
    else if (m->recipients == 0)
        begin_discarding(m, ERR_INVALID, "554 5.5.1 Error: no valid recipients");
    else if (m->bdat_begun)
        begin_content(m);
    else
        ask_for_content(m);
}

static void do_starttls(struct smtp_in *m, struct smtp_text argument)
{
    if (!m->config->tls_offered)
        refuse(m, ERR_INVALID, "502 5.5.1 Error: command not implemented");
    else if (m->tls)
        refuse(m, ERR_INVALID, "554 5.5.1 Error: TLS already active");
    else if (argument.len > 0)
        refuse(m, ERR_INVALID, "501 5.5.4 Syntax: STARTTLS");
    else {
        end_mail(m);
        good(m);
        SAY(m, "220 2.0.0 Ready to start TLS");
        m->state = SMTP_IN_HANDSHAKE;
        m->cb->start_tls(m->owner);
    }
}

static void do_simple(struct smtp_in *m, enum smtp_verb verb, struct smtp_text argument)
{
    if (verb == SMTP_VRFY && argument.len == 0) {
        refuse(m, ERR_INVALID, "501 5.5.4 Syntax: VRFY address");
        return;
    }
    if (verb == SMTP_RSET && argument.len > 0) {
        refuse(m, ERR_INVALID, "501 5.5.4 Syntax: RSET");
        return;
    }
    good(m);
    switch (verb) {
    case SMTP_RSET:
        end_mail(m);
        SAY(m, "250 2.0.0 Ok");
        break;
    case SMTP_VRFY:
        SAY(m, "252 2.0.0 Cannot VRFY user, but will accept the message and attempt delivery");
        break;
    case SMTP_HELP:
        SAY(m, "214 2.0.0 See RFC 5321");
        break;
    case SMTP_QUIT:
        SAY(m, "221 2.0.0 Bye");
        end_session(m);
        break;
    default:
        SAY(m, "250 2.0.0 Ok");
        break;
    }
}

static bool tls_missing(struct smtp_in *m, enum smtp_verb verb)
{
    if (!m->config->tls_required || m->tls)
        return false;
    return verb == SMTP_MAIL || verb == SMTP_RCPT || verb == SMTP_DATA || verb == SMTP_VRFY;
}

static void dispatch(struct smtp_in *m, enum smtp_verb verb, struct smtp_text argument)
{
    switch (verb) {
    case SMTP_MAIL:
        do_mail(m, argument);
        break;
    case SMTP_RCPT:
        do_rcpt(m, argument);
        break;
    case SMTP_DATA:
        do_data(m, argument);
        break;
    case SMTP_BDAT:
        do_bdat(m, argument);
        break;
    case SMTP_EHLO:
    case SMTP_HELO:
        do_helo(m, argument, verb == SMTP_EHLO);
        break;
    case SMTP_STARTTLS:
        do_starttls(m, argument);
        break;
    case SMTP_UNIMPLEMENTED:
        refuse(m, ERR_INVALID, "502 5.5.1 Error: command not implemented");
        break;
    case SMTP_FOREIGN: /* a browser made to talk to us: nothing behind this line is meant for us */
        end_session_with(m, ERR_INVALID, "521 5.5.1", "Error: this is not HTTP");
        break;
    case SMTP_UNKNOWN:
        refuse(m, ERR_INVALID, "500 5.5.1 Error: command not recognized");
        break;
    default:
        do_simple(m, verb, argument);
        break;
    }
}

static void command(struct smtp_in *m, const char *line, uint32_t len)
{
    struct smtp_text argument;
    enum smtp_verb verb = smtp_verb_of(line, len, &argument);
    m->verb = verb;
    m->seen[verb]++;
    if (m->stopping && !m->in_mail && verb != SMTP_QUIT)
        end_if_stopping(m);
    else if (tls_missing(m, verb))
        refuse(m, ERR_INVALID, "530 5.7.0 Must issue a STARTTLS command first");
    else
        dispatch(m, verb, argument);
    if (m->errors >= m->config->hard_error_limit && m->state == SMTP_IN_COMMANDS)
        end_session_with(m, ERR_INVALID, "421 4.7.0", "Error: too many errors");
    else
        end_if_stopping(m);
}

static size_t skip_step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    const uint8_t *cr = memchr(bytes, '\r', len);
    size_t n = cr ? (size_t)(cr - bytes) : len;
    if (memchr(bytes, '\n', n) || (n + 1 < len && bytes[n + 1] != '\n')) {
        refuse_bare(m);
        return len;
    }
    uint64_t total = (uint64_t)m->skipped + n;
    m->verb = SMTP_UNKNOWN;
    if (total > SMTP_SKIPPED_BYTES_MAX) {
        refuse(m, ERR_INVALID, "500 5.5.2 Error: line too long");
        end_session(m);
        return len;
    }
    m->skipped = (uint32_t)total;
    if (n + 1 >= len) /* a CR at the end waits for its LF */
        return n;
    m->state = SMTP_IN_COMMANDS;
    refuse(m, ERR_INVALID, "500 5.5.2 Error: line too long");
    if (m->errors >= m->config->hard_error_limit)
        end_session_with(m, ERR_INVALID, "421 4.7.0", "Error: too many errors");
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
        refuse_bare(m);
        return len;
    }
    if (line + 1 >= len)
        return 0;
    command(m, (const char *)bytes, (uint32_t)line);
    return line + 2;
}

static size_t step(struct smtp_in *m, const uint8_t *bytes, size_t len)
{
    switch (m->state) {
    case SMTP_IN_NEW:
        end_session_with(m, ERR_INVALID, "554 5.5.1", "Error: client spoke before the banner");
        return len;
    case SMTP_IN_COMMANDS:
        return command_step(m, bytes, len);
    case SMTP_IN_SKIPPING:
        return skip_step(m, bytes, len);
    case SMTP_IN_CONTENT:
        return m->content_bdat ? bdat_step(m, bytes, len) : data_step(m, bytes, len);
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
        end_if_stopping(m);
    else
        say(m, "220 %s ESMTP %s", m->config->hostname, m->config->mail_name);
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
        begin_content(m);
    else if (m->state == SMTP_IN_BEGINNING && e != ERR_BUSY)
        content_refused(m, e);
}

void smtp_in_finish(struct smtp_in *m, enum err e, const char *queue_id)
{
    if (m->state != SMTP_IN_FINISHING) /* timed out or gone meanwhile */
        return;
    m->state = SMTP_IN_COMMANDS;
    if (!e) {
        m->errors = 0;
        good(m);
        say(m, "250 2.0.0 Ok: queued as %s", queue_id);
    } else if (refuse_error(m, e)) {
        return;
    }
    end_mail(m);
    end_if_stopping(m);
}

void smtp_in_tls_started(struct smtp_in *m)
{
    if (m->state != SMTP_IN_HANDSHAKE)
        return;
    m->state = SMTP_IN_COMMANDS; /* SIN-4 */
    m->tls = true;
    m->esmtp = false;
    m->helo[0] = '\0';
    end_if_stopping(m);
}

void smtp_in_timeout(struct smtp_in *m)
{
    if (m->state != SMTP_IN_CLOSED)
        end_session_with(m, ERR_TIMEOUT, "421 4.4.2", "Error: timeout exceeded");
}

void smtp_in_stop(struct smtp_in *m)
{
    m->stopping = true;
    end_if_stopping(m);
}

void smtp_in_cut_off(struct smtp_in *m)
{
    m->stopping = true;
    if (m->state == SMTP_IN_HANDSHAKE) /* nothing can be said there */
        end_session(m);
    else if (m->state != SMTP_IN_CLOSED)
        end_stopping(m);
}
