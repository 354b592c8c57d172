/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the one mapping from what happened to what it means. Pure: no log, no clock. See outcome.h; its callers are
 * attempt.c and schedule.c. */
#include "outcome.h"

#include <stdio.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

uint32_t outcome_dsn_in(const char *text, char dsn[OUTCOME_DSN_BYTES])
{
    uint32_t at = 0;
    if (text[0] != '2' && text[0] != '4' && text[0] != '5')
        return 0;
    at = 1;
    for (int part = 0; part < 2; part++) {
        if (text[at++] != '.')
            return 0;
        uint32_t digits = 0;
        while (is_digit(text[at]) && digits < 3) {
            at++;
            digits++;
        }
        if (digits == 0)
            return 0;
    }
    if (text[at] != ' ' && text[at] != '\0')
        return 0;
    memcpy(dsn, text, at);
    dsn[at] = '\0';
    return at;
}

/* A printable line of at most REASON_BYTES_MAX - 1 bytes. UTF-8 is kept: replies may carry it. */
static void set_text(struct outcome *o, const char *text)
{
    uint32_t used = 0;
    for (const char *c = text; *c && used < sizeof o->text - 1; c++)
        o->text[used++] = (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c;
    o->text[used] = '\0';
}

/* Replies that speak of the host and not of the message: it is going away or never was ready. */
static bool blames_host(unsigned code, const char *command)
{
    if (code == 421)
        return true;
    return command && (strcmp(command, "greeting") == 0 || strcmp(command, "EHLO") == 0 ||
                       strcmp(command, "LHLO") == 0 || strcmp(command, "HELO") == 0 || strcmp(command, "STARTTLS") == 0);
}

void outcome_of_reply(unsigned code, const char *text, const char *command, const char *peer, struct outcome *o)
{
    memset(o, 0, sizeof *o);
    unsigned class = code / 100;
    bool host = class != 2 && blames_host(code, command);
    /* 5xx of a greeting or an EHLO refuses us, not the mail: another host of the domain may take it */
    o->status = class == 2 ? MARK_DELIVERED : class == 5 && !host ? MARK_BOUNCED : MARK_DEFERRED;
    o->blame = host ? OUTCOME_HOST : OUTCOME_MESSAGE;
    char digit = o->status == MARK_DELIVERED ? '2' : o->status == MARK_BOUNCED ? '5' : '4';
    if (outcome_dsn_in(text, o->dsn) == 0 || o->dsn[0] != digit)
        snprintf(o->dsn, sizeof o->dsn, "%c.0.0", digit);
    char line[2 * REASON_BYTES_MAX];
    if (o->status == MARK_DELIVERED)
        snprintf(line, sizeof line, "%u %.400s", code, text);
    else
        snprintf(line, sizeof line, "host %.120s said: %u %.300s (in reply to %.30s command)", peer, code, text,
                 command ? command : "a");
    set_text(o, line);
}

void outcome_of_err(enum err e, const char *what, struct outcome *o)
{
    memset(o, 0, sizeof *o);
    o->status = MARK_DEFERRED; /* an error of ours or of the way never bounces mail */
    switch (err_class(e)) {
    case ERR_CLASS_NONE: /* the peer closed the connection */
        o->blame = OUTCOME_HOST;
        snprintf(o->dsn, sizeof o->dsn, "4.4.2");
        snprintf(o->text, sizeof o->text, "lost connection with %.400s", what);
        return;
    case ERR_CLASS_TRANSIENT:
        o->blame = e == ERR_TIMEOUT || e == ERR_SYSTEM ? OUTCOME_HOST : OUTCOME_US;
        snprintf(o->dsn, sizeof o->dsn, e == ERR_TIMEOUT ? "4.4.2" : o->blame == OUTCOME_HOST ? "4.4.1" : "4.3.0");
        break;
    case ERR_CLASS_LOST:
        o->blame = OUTCOME_MESSAGE;
        snprintf(o->dsn, sizeof o->dsn, "4.3.0");
        break;
    case ERR_CLASS_INVALID: /* what the peer sent makes no sense */
        o->blame = OUTCOME_HOST;
        snprintf(o->dsn, sizeof o->dsn, "4.5.0");
        break;
    case ERR_CLASS_FULL:
    case ERR_CLASS_DEGRADED:
    case ERR_CLASS_CORRUPT:
    case ERR_CLASS_CANCELED:
        o->blame = OUTCOME_US;
        snprintf(o->dsn, sizeof o->dsn, "4.3.0");
        break;
    }
    char line[2 * REASON_BYTES_MAX];
    snprintf(line, sizeof line, "%.400s: %s", what, err_text(e));
    set_text(o, line);
}

void outcome_of_text(const char *text, const char *otherwise, struct outcome *o)
{
    memset(o, 0, sizeof *o);
    uint32_t skip = outcome_dsn_in(text, o->dsn);
    if (skip == 0)
        snprintf(o->dsn, sizeof o->dsn, "%s", otherwise);
    while (text[skip] == ' ')
        skip++;
    o->status = o->dsn[0] == '2' ? MARK_DELIVERED : o->dsn[0] == '5' ? MARK_BOUNCED : MARK_DEFERRED;
    o->blame = OUTCOME_MESSAGE;
    set_text(o, text + skip);
}

void outcome_expire(struct outcome *o)
{
    char line[2 * REASON_BYTES_MAX];
    o->status = MARK_EXPIRED;
    o->dsn[0] = '4'; /* RFC 3464: an expired message keeps the code of its last deferral */
    snprintf(line, sizeof line, "delivery time expired; last: %s", o->text);
    set_text(o, line);
}

const char *outcome_status_word(enum mark_status s)
{
    switch (s) {
    case MARK_DELIVERED:
        return "sent";
    case MARK_BOUNCED:
        return "bounced";
    case MARK_EXPIRED:
        return "expired";
    case MARK_PENDING:
    case MARK_DEFERRED:
        break;
    }
    return "deferred";
}

void outcome_print_delay(uint64_t ms, char *text, uint32_t bytes)
{
    uint64_t hundredths = (ms + 5) / 10;
    unsigned fraction = (unsigned)(hundredths % 100);
    unsigned long long whole = hundredths / 100;
    if (fraction == 0)
        snprintf(text, bytes, "%llu", whole);
    else if (fraction % 10 == 0)
        snprintf(text, bytes, "%llu.%u", whole, fraction / 10);
    else
        snprintf(text, bytes, "%llu.%02u", whole, fraction);
}

void outcome_print_delays(const struct outcome_delays *d, char text[OUTCOME_DELAYS_BYTES])
{
    char a[16], b[16], c[16], t[16];
    outcome_print_delay(d->before_ms, a, sizeof a);
    outcome_print_delay(d->queue_ms, b, sizeof b);
    outcome_print_delay(d->connect_ms, c, sizeof c);
    outcome_print_delay(d->transmit_ms, t, sizeof t);
    snprintf(text, OUTCOME_DELAYS_BYTES, "%.15s/%.15s/%.15s/%.15s", a, b, c, t);
}
