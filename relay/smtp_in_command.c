/* SPDX-License-Identifier: Apache-2.0 */
/* What each SMTP command does to the machine: one line in, one answer out, or the content that it announces
 * (smtp_in_content.c). Pure; never reads beyond its line. */
#include "smtp_in_parts.h"

#include <stdio.h>
#include <string.h>

static void do_helo(struct smtp_in *m, struct smtp_text argument, bool extended)
{
    if (smtp_parse_helo(argument)) {
        smtp_in_refuse(m, ERR_INVALID,
                       extended ? "501 5.5.4 Syntax: EHLO hostname" : "501 5.5.4 Syntax: HELO hostname");
        return;
    }
    smtp_in_end_mail(m);
    memcpy(m->helo, argument.at, argument.len);
    m->helo[argument.len] = '\0';
    m->esmtp = extended;
    smtp_in_good(m);
    if (!extended) {
        smtp_in_say(m, "250 %s", m->config->hostname);
        return;
    }
    smtp_in_say(m,
        "250-%s\r\n250-PIPELINING\r\n250-SIZE %llu\r\n%s250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
        "250-SMTPUTF8\r\n250-LIMITS RCPTMAX=%u\r\n250 CHUNKING",
        m->config->hostname, (unsigned long long)m->config->message_size_limit,
        m->config->tls_offered && !m->tls ? "250-STARTTLS\r\n" : "", m->config->recipient_limit);
}

static bool utf8_missing(struct smtp_in *m, const struct smtp_path *path, bool smtputf8)
{
    if (!path->non_ascii || smtputf8)
        return false;
    smtp_in_refuse_address(m, ERR_INVALID, "553 5.6.7 Address needs SMTPUTF8", path->at, path->len);
    return true;
}

static void refuse_parameters(struct smtp_in *m, enum err e)
{
    smtp_in_refuse(m, e == ERR_TOO_LARGE ? e : ERR_INVALID,
           e == ERR_TOO_LARGE   ? smtp_in_reply_of(e)
           : e == ERR_NOT_FOUND ? "555 5.5.4 Unsupported option"
                                : "501 5.5.4 Bad parameter");
}

static void do_mail(struct smtp_in *m, struct smtp_text argument)
{
    struct smtp_path path;
    struct smtp_text rest;
    struct smtp_mail_parameters p;
    if (!m->helo[0] || m->in_mail) {
        smtp_in_refuse(m, ERR_INVALID, m->in_mail ? "503 5.5.1 Error: nested MAIL command"
                                                  : "503 5.5.1 Error: send EHLO or HELO first");
        return;
    }
    if (smtp_parse_path(argument, "FROM:", &path, &rest)) {
        smtp_in_refuse(m, ERR_INVALID, "501 5.1.7 Bad sender address syntax");
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
    struct smtp_in_mail mail = {path.at, path.len, p.size, p.smtputf8, p.eightbit, p.hold};
    e = m->cb->mail(m->owner, &mail);
    if (e) {
        smtp_in_refuse_error(m, e);
        return;
    }
    m->in_mail = m->open = true;
    m->smtputf8 = p.smtputf8;
    smtp_in_good(m);
    SAY(m, "250 2.1.0 Ok");
}

static void recipient_refused(struct smtp_in *m, enum err e, const struct smtp_path *path)
{
    char line[REPLY_BYTES];
    if (e == ERR_STOPPING) {
        smtp_in_refuse_error(m, e);
        return;
    }
    const char *reply = smtp_in_reply_of(e);
    if (e != ERR_DENIED && e != ERR_NO_USER) {
        smtp_in_refuse_address(m, e, reply, path->at, path->len);
        return;
    }
    snprintf(line, sizeof line, e == ERR_DENIED ? "554 5.7.1 <%.*s>: Relay access denied"
                                                : "550 5.1.1 <%.*s>: User unknown", (int)path->len, path->at);
    smtp_in_refuse_address(m, e, line, path->at, path->len);
}

static void do_rcpt(struct smtp_in *m, struct smtp_text argument)
{
    struct smtp_path path;
    struct smtp_text rest;
    if (!m->in_mail || m->bdat_begun || m->bdat_failed) {
        smtp_in_refuse(m, ERR_INVALID, m->in_mail ? "503 5.5.1 Error: BDAT under way"
                                                  : "503 5.5.1 Error: need MAIL command");
        return;
    }
    if (smtp_parse_path(argument, "TO:", &path, &rest) || path.len == 0) {
        smtp_in_refuse(m, ERR_INVALID, "501 5.1.3 Bad recipient address syntax");
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
        smtp_in_refuse_address(m, ERR_BUSY, "452 4.5.3 Error: too many recipients", path.at, path.len);
        return;
    }
    e = m->cb->recipient(m->owner, path.at, path.len);
    if (e) {
        recipient_refused(m, e, &path);
        return;
    }
    m->recipients++;
    smtp_in_good(m);
    SAY(m, "250 2.1.5 Ok");
}

static void do_data(struct smtp_in *m, struct smtp_text argument)
{
    if (argument.len > 0)
        smtp_in_refuse(m, ERR_INVALID, "501 5.5.4 Syntax: DATA");
    else if (!m->in_mail)
        smtp_in_refuse(m, ERR_INVALID, "503 5.5.1 Error: need MAIL command");
    else if (m->bdat_begun || m->bdat_failed)
        smtp_in_refuse(m, ERR_INVALID, "503 5.5.1 Error: BDAT under way");
    else if (m->recipients == 0)
        smtp_in_refuse(m, ERR_INVALID, "554 5.5.1 Error: no valid recipients");
    else {
        m->content_bdat = false;
        smtp_in_ask_for_content(m);
    }
}

/* Once the size is known its bytes are coming, whatever we think of them: they are taken, then answered. */
static void do_bdat(struct smtp_in *m, struct smtp_text argument)
{
    uint64_t size = 0;
    bool last = false;
    enum err e = smtp_parse_bdat(argument, &size, &last);
    if (!e && size > smtp_in_content_bytes_max(m))
        e = ERR_TOO_LARGE;
    if (e) { /* what follows cannot be told from commands */
        smtp_in_refuse(m, e, e == ERR_TOO_LARGE ? smtp_in_reply_of(e) : "501 5.5.4 Syntax: BDAT size [LAST]");
        smtp_in_end_session(m);
        return;
    }
    m->content_bdat = true;
    m->chunk_bytes = m->chunk_left = size;
    m->bdat_last = last;
    if (m->bdat_failed)
        smtp_in_begin_discarding(m, ERR_INVALID, "503 5.5.1 Error: an earlier chunk was refused");
    else if (!m->in_mail)
        smtp_in_begin_discarding(m, ERR_INVALID, "503 5.5.1 Error: need MAIL command");
    else if (m->recipients == 0)
        smtp_in_begin_discarding(m, ERR_INVALID, "554 5.5.1 Error: no valid recipients");
    else if (m->bdat_begun)
        smtp_in_begin_content(m);
    else
        smtp_in_ask_for_content(m);
}

static void do_starttls(struct smtp_in *m, struct smtp_text argument)
{
    if (!m->config->tls_offered)
        smtp_in_refuse(m, ERR_INVALID, "502 5.5.1 Error: command not implemented");
    else if (m->tls)
        smtp_in_refuse(m, ERR_INVALID, "554 5.5.1 Error: TLS already active");
    else if (argument.len > 0)
        smtp_in_refuse(m, ERR_INVALID, "501 5.5.4 Syntax: STARTTLS");
    else {
        smtp_in_end_mail(m);
        smtp_in_good(m);
        SAY(m, "220 2.0.0 Ready to start TLS");
        m->state = SMTP_IN_HANDSHAKE;
        m->cb->start_tls(m->owner);
    }
}

static void do_simple(struct smtp_in *m, enum smtp_verb verb, struct smtp_text argument)
{
    if (verb == SMTP_VRFY && argument.len == 0) {
        smtp_in_refuse(m, ERR_INVALID, "501 5.5.4 Syntax: VRFY address");
        return;
    }
    if (verb == SMTP_RSET && argument.len > 0) {
        smtp_in_refuse(m, ERR_INVALID, "501 5.5.4 Syntax: RSET");
        return;
    }
    smtp_in_good(m);
    switch (verb) {
    case SMTP_RSET:
        smtp_in_end_mail(m);
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
        smtp_in_end_session(m);
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
        smtp_in_refuse(m, ERR_INVALID, "502 5.5.1 Error: command not implemented");
        break;
    case SMTP_FOREIGN: /* a browser made to talk to us: nothing behind this line is meant for us */
        smtp_in_end_session_with(m, ERR_INVALID, "521 5.5.1", "Error: this is not HTTP");
        break;
    case SMTP_UNKNOWN:
        smtp_in_refuse(m, ERR_INVALID, "500 5.5.1 Error: command not recognized");
        break;
    default:
        do_simple(m, verb, argument);
        break;
    }
}

void smtp_in_command(struct smtp_in *m, const char *line, uint32_t len)
{
    struct smtp_text argument;
    enum smtp_verb verb = smtp_verb_of(line, len, &argument);
    m->verb = verb;
    m->seen[verb]++;
    if (m->stopping && !m->in_mail && verb != SMTP_QUIT)
        smtp_in_end_if_stopping(m);
    else if (tls_missing(m, verb))
        smtp_in_refuse(m, ERR_INVALID, "530 5.7.0 Must issue a STARTTLS command first");
    else
        dispatch(m, verb, argument);
    if (m->errors >= m->config->hard_error_limit && m->state == SMTP_IN_COMMANDS)
        smtp_in_end_session_with(m, ERR_INVALID, "421 4.7.0", "Error: too many errors");
    else
        smtp_in_end_if_stopping(m);
}
