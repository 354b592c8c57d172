/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a transaction: its Received header, its space, its one buffer and the CHUNKs that leave from it (INT-2,
 * INT-4). Nothing is known here of the envelope and of what becomes of the message: intake.c. */
#include "intake_parts.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_CAPACITY_MIN 4096u
#define RECEIVED_BYTES_MAX 2048u            /* names of 255 and 320 bytes, folded */
#define RESERVE_OVERHEAD (UINT64_C(8) * 1024) /* Received header and envelope */
#define RESERVE_STEP (UINT64_C(1024) * 1024)  /* when SIZE= was too small */

/* --- the Received header --- */

static const char *date_now(struct intake *i)
{
    time_t now = (time_t)(loop_wall_ms(i->deps.loop) / 1000);
    if (now != i->date_second) {
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(i->date, sizeof i->date, "%a, %d %b %Y %H:%M:%S %z (%Z)", &tm);
        i->date_second = now;
    }
    return i->date;
}

/* What a client calls itself must not leave its place in the header. */
static void clean_name(const char *from, char to[256])
{
    size_t n = 0;
    for (; from[n] && n < 255; n++)
        to[n] = strchr("()<>\"\\,;", from[n]) ? '?' : from[n];
    to[n] = '\0';
}

/* " for <address>", as the client said it, when it named one and no other could learn of it. */
static void for_clause(const struct intake_transaction *t, char *text, size_t capacity)
{
    uint32_t len;
    const char *address = recipients_single(&t->recipients, &len);
    text[0] = '\0';
    if (address)
        snprintf(text, capacity, "\r\n\tfor <%.*s>", (int)len, address);
}

static const char *protocol(const struct intake_client *c)
{
    if (c->smtputf8)
        return c->tls ? "UTF8SMTPS" : "UTF8SMTP";
    if (!c->esmtp)
        return "SMTP";
    return c->tls ? "ESMTPS" : "ESMTP";
}

static uint32_t received_header(struct intake_transaction *t, const struct settings *s, const struct intake_client *c,
                                char header[RECEIVED_BYTES_MAX])
{
    char helo[256], to[ADDRESS_BYTES_MAX + 16], tls[320] = "";
    clean_name(c->helo, helo);
    for_clause(t, to, sizeof to);
    if (c->tls)
        snprintf(tls, sizeof tls, "\r\n\t(using %s)", c->tls);
    int n = snprintf(header, RECEIVED_BYTES_MAX,
                     "Received: from %s (%s [%s%s])%s\r\n\tby %s (%s) with %s id %s%s;\r\n\t%s\r\n", helo, c->name,
                     strchr(c->address, ':') ? "IPv6:" : "", c->address, tls, s->hostname, s->mail_name, protocol(c),
                     t->qid_text, to, date_now(t->intake));
    ASSERT(n > 0 && n < (int)RECEIVED_BYTES_MAX);
    return (uint32_t)n;
}

/* --- the buffer --- */

void intake_body_drop(struct intake_transaction *t)
{
    if (t->body_in_tray)
        port_tray_give(t->intake->deps.port, t->body);
    else
        free(t->body);
    t->body = NULL;
    t->body_in_tray = false;
    t->body_len = t->body_capacity = 0;
}

static enum err body_capacity(struct intake_transaction *t, uint64_t wanted)
{
    if (wanted <= t->body_capacity)
        return ERR_OK;
    bool large = t->chunk_count > 0 || t->size_hint > BODY_INLINE_MAX;
    uint8_t *tray = large && !t->body ? port_tray_take(t->intake->deps.port) : NULL;
    if (tray) {
        t->body = tray;
        t->body_in_tray = true;
        t->body_capacity = CHUNK_BYTES_MAX;
        return ERR_OK;
    }
    uint64_t capacity = t->body_capacity * 2 > wanted ? t->body_capacity * 2 : wanted;
    if (capacity < BODY_CAPACITY_MIN)
        capacity = BODY_CAPACITY_MIN;
    if (capacity > BODY_INLINE_MAX || large)
        capacity = BODY_INLINE_MAX;
    ASSERT(!t->body_in_tray); /* it has all the room there is */
    uint8_t *body = realloc(t->body, capacity);
    if (!body)
        return ERR_NO_MEMORY;
    t->body = body;
    t->body_capacity = (uint32_t)capacity;
    return ERR_OK;
}

static enum err reserve(struct intake_transaction *t, uint64_t bytes)
{
    enum err e = port_reserve(t->intake->deps.port, bytes);
    if (!e)
        t->reserved += bytes;
    return e;
}

static size_t add_bytes(struct intake_transaction *t, const uint8_t *bytes, size_t len);

enum err intake_body_begin(struct intake_transaction *t, const struct settings *settings, const struct intake_client *client)
{
    ASSERT(t->stage == RECEIVING);
    enum err e = ERR_OK;
    if (!t->reserved)
        e = reserve(t, (t->size_hint ? t->size_hint : t->size_max) + RESERVE_OVERHEAD);
    if (!e)
        e = port_take_queue_id(t->intake->deps.port, &t->qid);
    if (e == ERR_BUSY)
        intake_wait_for_room(t);
    if (e)
        return e;
    char header[RECEIVED_BYTES_MAX];
    queue_id_print(t->qid, t->qid_text);
    uint32_t len = received_header(t, settings, client, header);
    e = body_capacity(t, len + (t->size_hint ? t->size_hint + 64 : 0)); /* 64: a slightly wrong SIZE */
    if (e)
        return e;
    t->stage = BODY;
    add_bytes(t, (const uint8_t *)header, len);
    return ERR_OK;
}

void intake_body_fail(struct intake_transaction *t, enum err e)
{
    t->failed = e;
    intake_body_drop(t);
}

enum err intake_send_chunk(struct intake_transaction *t)
{
    if (t->chunk_count == CHUNKS_PER_MESSAGE_MAX)
        return ERR_TOO_LARGE;
    enum err e = port_chunk(t->intake->deps.port, t->qid, t->chunk_count, t->body, t->body_len);
    if (e)
        return e;
    t->chunk_count++;
    if (t->body_in_tray)
        t->body = NULL; /* the port's */
    t->body_in_tray = false;
    intake_body_drop(t);
    return ERR_OK;
}

static enum err admit(struct intake_transaction *t, size_t len)
{
    if (t->total + len > t->size_max + RECEIVED_BYTES_MAX)
        return ERR_TOO_LARGE; /* the machine stops long before; a spool's limit must not depend on that */
    if (t->total + len <= t->reserved)
        return ERR_OK;
    return reserve(t, len > RESERVE_STEP ? len : RESERVE_STEP);
}

static size_t add_bytes(struct intake_transaction *t, const uint8_t *bytes, size_t len)
{
    size_t taken = 0;
    enum err e = admit(t, len);
    while (!e && taken < len) {
        if (t->body_len == BODY_INLINE_MAX) {
            e = intake_send_chunk(t);
            if (e == ERR_BUSY) {
                intake_wait_for_room(t); /* INT-2 */
                return taken;
            }
            if (e)
                break;
        }
        size_t n = BODY_INLINE_MAX - t->body_len < len - taken ? BODY_INLINE_MAX - t->body_len : len - taken;
        e = body_capacity(t, t->body_len + n);
        if (e)
            break;
        memcpy(t->body + t->body_len, bytes + taken, n);
        t->body_len += (uint32_t)n;
        t->total += n;
        taken += n;
    }
    if (e)
        intake_body_fail(t, e);
    return e ? len : taken;
}

size_t intake_body(struct intake_transaction *t, const uint8_t *bytes, size_t len)
{
    ASSERT(t->stage == BODY);
    return t->failed ? len : add_bytes(t, bytes, len);
}
