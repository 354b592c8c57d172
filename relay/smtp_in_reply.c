/* SPDX-License-Identifier: Apache-2.0 */
/* What the server machine says, and how a transaction and a session end. The one place where errors of the world become
 * replies. Pure, as all of smtp_in: invariants in smtp_in.h. */
#include "smtp_in_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void smtp_in_say(struct smtp_in *m, const char *format, ...)
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

void smtp_in_good(struct smtp_in *m)
{
    m->good[m->verb]++;
}

void smtp_in_refuse_address(struct smtp_in *m, enum err why, const char *text, const char *address, uint32_t len)
{
    smtp_in_say(m, "%s", text);
    if (text[0] == '5')
        m->errors++;
    m->cb->refused(m->owner, m->verb, why, text, address, len);
}

void smtp_in_refuse(struct smtp_in *m, enum err why, const char *text)
{
    smtp_in_refuse_address(m, why, text, NULL, 0);
}

void smtp_in_tell_abandoned(struct smtp_in *m)
{
    if (!m->open)
        return;
    m->open = false;
    m->cb->abandon(m->owner);
}

void smtp_in_end_mail(struct smtp_in *m)
{
    smtp_in_tell_abandoned(m);
    m->in_mail = m->smtputf8 = false;
    m->bdat_begun = m->bdat_failed = false;
    m->refusal = NULL;
    m->recipients = 0;
    m->scanned = 0;
}

void smtp_in_end_session(struct smtp_in *m)
{
    if (m->state == SMTP_IN_CLOSED)
        return;
    smtp_in_end_mail(m);
    m->state = SMTP_IN_CLOSED;
    m->cb->close(m->owner);
}

void smtp_in_end_session_with(struct smtp_in *m, enum err why, const char *code, const char *text)
{
    char line[REPLY_BYTES];
    snprintf(line, sizeof line, "%s %s %s", code, m->config->hostname, text);
    smtp_in_refuse(m, why, line);
    smtp_in_end_session(m);
}

void smtp_in_end_stopping(struct smtp_in *m)
{
    smtp_in_end_session_with(m, ERR_STOPPING, "421 4.3.2", "Service shutting down, closing connection");
}

void smtp_in_end_if_stopping(struct smtp_in *m)
{
    if (m->stopping && !m->in_mail && m->state == SMTP_IN_COMMANDS)
        smtp_in_end_stopping(m);
}

void smtp_in_refuse_bare(struct smtp_in *m) /* SIN-2 */
{
    smtp_in_end_session_with(m, ERR_INVALID, "521 5.5.2", "Error: bare <CR> or <LF> received");
}

/* The one place where errors of the world become replies. */
const char *smtp_in_reply_of(enum err e)
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
bool smtp_in_refuse_error(struct smtp_in *m, enum err e)
{
    if (e == ERR_STOPPING) {
        smtp_in_end_stopping(m);
        return true;
    }
    smtp_in_refuse(m, e, smtp_in_reply_of(e));
    return false;
}
