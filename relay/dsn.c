/* SPDX-License-Identifier: Apache-2.0 */
/* Writes bounces. Pure: what it needs to know is in the report. Foreign text passes through put_clean, one line at a
 * time. See dsn.h. */
#include "dsn.h"

#include "recipients.h"

#include <base/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 998u   /* RFC 5322 2.1.1 */
#define TEXT_BYTES_MAX 400u   /* of one recipient's reason; less when there are many */
#define RECIPIENT_FIXED_BYTES 200u /* field names and a mail_name of 63 bytes */
#define ORIGINAL_BYTES_MAX 256u /* an Original-Recipient longer than this is left out: 50 of them have to fit */
#define OWN_BYTES 8192u       /* our own headers and texts, and at least 4 KiB of the original's headers */

struct writer { char *bytes; uint32_t used, capacity; };

static void put(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(w->bytes + w->used, w->capacity - w->used, format, args);
    va_end(args);
    ASSERT(n >= 0 && (uint32_t)n < w->capacity - w->used); /* DSN-1: the static assert below */
    w->used += (uint32_t)n;
}

/* DSN-2: at most `max` bytes, without control characters. */
static void put_clean(struct writer *w, const char *text, uint32_t len, uint32_t max)
{
    for (uint32_t i = 0; i < len && i < max; i++) {
        unsigned char c = (unsigned char)text[i];
        ASSERT(w->used + 1 < w->capacity);
        w->bytes[w->used++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
}

/* DSN-1: 50 recipients with addresses of full length, without any reason, leave the 8 KiB that text_bytes spares. */
_Static_assert(DSN_RECIPIENTS_MAX * (2 * ADDRESS_BYTES_MAX + ORIGINAL_BYTES_MAX + RECIPIENT_FIXED_BYTES) + OWN_BYTES <= BODY_INLINE_MAX,
               "a bounce fits");

static void put_date(struct writer *w, uint64_t ms)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&t, &tm);
    put(w, "%s, %d %s %d %02d:%02d:%02d +0000", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900,
        tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void put_head(struct writer *w, const struct dsn_report *r, const char *qid, const char *boundary)
{
    const struct envelope *e = &r->mail->envelope;
    bool utf8 = e->flags & ENVELOPE_SMTPUTF8;
    put(w, "Date: ");
    put_date(w, r->now_ms);
    put(w, "\r\nFrom: MAILER-DAEMON@%.255s (Mail Delivery System)\r\nSubject: Undelivered Mail Returned to Sender\r\nTo: ",
        r->hostname);
    put_clean(w, r->to, r->to_len, ADDRESS_BYTES_MAX);
    put(w, "\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=%s;\r\n boundary=\"%s\"\r\n"
        "Content-Transfer-Encoding: 8bit\r\nMessage-Id: <%s@%.255s>\r\n\r\n",
        utf8 ? "global-delivery-status" : "delivery-status", boundary, qid, r->hostname);
}

static void put_explanation(struct writer *w, const struct dsn_report *r, const char *boundary, uint32_t text_max)
{
    put(w, "This is a MIME-encapsulated message.\r\n\r\n--%s\r\nContent-Description: Notification\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "This is the mail system at host %.255s.\r\n\r\n"
        "Your message could not be delivered to the recipients below. It is attached\r\n"
        "in part, so that you can tell which one it was.\r\n", boundary, r->hostname);
    for (uint32_t i = 0; i < r->count; i++) {
        const struct dsn_recipient *f = &r->recipients[i];
        put(w, "\r\n<");
        put_clean(w, f->address, f->len, ADDRESS_BYTES_MAX);
        put(w, ">:\r\n    ");
        put_clean(w, f->text, (uint32_t)strlen(f->text), text_max);
        put(w, "\r\n");
    }
}

static void put_status(struct writer *w, const struct dsn_report *r, const char *boundary, uint32_t text_max)
{
    bool utf8 = r->mail->envelope.flags & ENVELOPE_SMTPUTF8;
    char qid[QUEUE_ID_TEXT];
    queue_id_print(r->mail->qid, qid);
    put(w, "\r\n--%s\r\nContent-Description: Delivery report\r\nContent-Type: message/%s\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
        "Reporting-MTA: dns; %.255s\r\nX-%.63s-Queue-ID: %s\r\nArrival-Date: ", boundary,
        utf8 ? "global-delivery-status" : "delivery-status", r->hostname, r->mail_name, qid);
    put_date(w, r->mail->envelope.arrival_ms);
    put(w, "\r\n");
    for (uint32_t i = 0; i < r->count; i++) {
        const struct dsn_recipient *f = &r->recipients[i];
        put(w, "\r\n");
        if (f->original && f->original_len <= ORIGINAL_BYTES_MAX) { /* RFC 3464 2.3.1 */
            put(w, "Original-Recipient: %s; ", utf8 ? "utf-8" : "rfc822");
            put_clean(w, f->original, f->original_len, ADDRESS_BYTES_MAX);
            put(w, "\r\n");
        }
        put(w, "Final-Recipient: %s; ", utf8 ? "utf-8" : "rfc822");
        put_clean(w, f->address, f->len, ADDRESS_BYTES_MAX);
        put(w, "\r\nAction: failed\r\nStatus: %.11s\r\nDiagnostic-Code: X-%.63s; ", f->dsn, r->mail_name);
        put_clean(w, f->text, (uint32_t)strlen(f->text), text_max);
        put(w, "\r\n");
    }
}

/* The original's headers, line by line, as far as they are whole and there is room. */
static void put_original(struct writer *w, const struct dsn_report *r, const char *boundary)
{
    bool utf8 = r->mail->envelope.flags & ENVELOPE_SMTPUTF8;
    put(w, "\r\n--%s\r\nContent-Description: Undelivered message headers\r\nContent-Type: %s\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n", boundary, utf8 ? "message/global-headers" : "text/rfc822-headers");
    const char *at = (const char *)r->head, *end = at + r->head_len;
    while (at < end) {
        const char *eol = memchr(at, '\n', (size_t)(end - at));
        if (!eol)
            break; /* cut in the middle */
        uint32_t len = (uint32_t)(eol - at);
        while (len > 0 && at[len - 1] == '\r')
            len--;
        if (len == 0 || w->used + LINE_MAX_BYTES + 256 > w->capacity)
            break; /* the headers' end, or no room */
        bool looks_like_boundary = len >= 2 && at[0] == '-' && at[1] == '-';
        put(w, "%s", looks_like_boundary ? " " : "");
        for (uint32_t i = 0; i < len && i < LINE_MAX_BYTES - 1; i++) {
            unsigned char c = (unsigned char)at[i];
            w->bytes[w->used++] = (c < 0x20 && c != '\t') || c == 0x7f ? '?' : (char)c;
        }
        put(w, "\r\n");
        at = eol + 1;
    }
    put(w, "\r\n--%s--\r\n", boundary);
}

/* How long a reason may be so that all recipients fit beside a useful part of the headers. */
static uint32_t text_bytes(const struct dsn_report *r)
{
    uint32_t fixed = OWN_BYTES;
    for (uint32_t i = 0; i < r->count; i++)
        fixed += 2 * r->recipients[i].len + r->recipients[i].original_len + RECIPIENT_FIXED_BYTES;
    uint32_t room = fixed < BODY_INLINE_MAX ? BODY_INLINE_MAX - fixed : 0;
    uint32_t each = room / (2 * (r->count ? r->count : 1));
    return each < TEXT_BYTES_MAX ? each : TEXT_BYTES_MAX;
}

/* `to`, or what the alias tables make of it: owner- names are aliases themselves. */
static enum err write_envelope(const struct dsn_report *r, const struct envelope *e, const struct alias_table *aliases,
                               struct recipients *to, uint32_t *len_out)
{
    const char *why;
    *to = (struct recipients){.aliases = aliases};
    enum err err = recipients_begin(to, e);
    if (!err)
        err = recipients_add(to, r->to, r->to_len, &why);
    if (!err)
        err = recipients_end(to, e->body_bytes, e->flags, len_out);
    if (!err && *len_out > DSN_ENVELOPE_BYTES_MAX)
        err = ERR_TOO_MANY;
    if (err)
        recipients_free(to);
    return err;
}

static enum err make_envelope(const struct dsn_report *r, uint32_t body_bytes, uint8_t *body, struct mail **mail_out)
{
    struct recipients to;
    uint32_t flags = ENVELOPE_BOUNCE | ENVELOPE_8BITMIME | (r->mail->envelope.flags & ENVELOPE_SMTPUTF8), len = 0;
    struct envelope e = {.flags = flags, .arrival_ms = r->now_ms, .body_bytes = body_bytes, .client = "local", .client_len = 5,
                         .helo = r->hostname, .helo_len = (uint32_t)strlen(r->hostname), .sender = ""};
    enum err why = write_envelope(r, &e, r->aliases, &to, &len);
    if (why == ERR_EXPANSION || why == ERR_TOO_MANY)
        why = write_envelope(r, &e, NULL, &to, &len);
    if (why)
        return why;
    why = mail_make(r->qid, to.envelope.buffer, len, body, mail_out);
    recipients_free(&to);
    return why;
}

enum err dsn_make(const struct dsn_report *r, struct mail **mail_out)
{
    ASSERT(r->count <= DSN_RECIPIENTS_MAX && r->to_len > 0);
    char boundary[96], qid[QUEUE_ID_TEXT];
    queue_id_print(r->qid, qid);
    snprintf(boundary, sizeof boundary, "%s.%llu/report", qid, (unsigned long long)r->now_ms);
    struct writer w = {.bytes = malloc(BODY_INLINE_MAX), .capacity = BODY_INLINE_MAX};
    if (!w.bytes)
        return ERR_NO_MEMORY;
    uint32_t text_max = text_bytes(r);
    put_head(&w, r, qid, boundary);
    put_explanation(&w, r, boundary, text_max);
    put_status(&w, r, boundary, text_max);
    put_original(&w, r, boundary);
    char *shrunk = realloc(w.bytes, w.used);
    uint8_t *body = (uint8_t *)(shrunk ? shrunk : w.bytes);
    enum err e = make_envelope(r, w.used, body, mail_out);
    if (e)
        free(body);
    return e;
}
