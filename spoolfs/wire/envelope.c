/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of envelopes and marks. Pure. Encoded bytes are foreign bytes wherever they come from: decoding checks
 * everything once, so that the walks afterwards cannot fail.
 *
 *  ENV-1  an envelope that decodes re-encodes to the same bytes: no slack, no padding, no trailing bytes.
 *  ENV-2  a walk after a check that said OK never leaves the bytes that were checked. */
#include <base/assert.h>
#include <base/digest.h>
#include <base/le.h>
#include <spoolfs/envelope.h>
#include <spoolfs/limits.h>

#include <string.h>

#define ENVELOPE_VERSION 1u
#define ENVELOPE_VERSION_ORIGINS 2u /* with origins behind the recipients; without any it is version 1 */
#define NAME_BYTES_MAX 1024u /* of client and helo: what a 1,000 byte command line can carry */

struct envelope_head {
    struct le32 version, flags;
    struct le64 arrival_ms, body_bytes;
    struct le32 recipient_count, recipients_bytes;
    struct le16 sender_len, client_len, helo_len, origin_count;
};
_Static_assert(sizeof(struct envelope_head) == 40, "envelope head");

struct origin_head { struct le16 first, count, address_len, sender_len; }; /* then both */
_Static_assert(sizeof(struct origin_head) == ENVELOPE_ORIGIN_BYTES, "origin head");
_Static_assert(RECIPIENTS_PER_MESSAGE_MAX <= UINT16_MAX, "origins name recipients in 16 bits");

struct mark_head {
    struct le32 recipient;
    struct le16 status, reason_len;
    struct le64 deferred_until_ms;
};
_Static_assert(sizeof(struct mark_head) == 16, "mark head");

enum err envelope_begin(struct envelope_writer *w, uint8_t *buffer, uint32_t capacity, const struct envelope *e)
{
    if (e->sender_len > ADDRESS_BYTES_MAX || e->client_len > NAME_BYTES_MAX || e->helo_len > NAME_BYTES_MAX)
        return ERR_TOO_LARGE;
    uint32_t names = e->sender_len + e->client_len + e->helo_len;
    if (capacity < sizeof(struct envelope_head) + names)
        return ERR_TOO_LARGE;
    struct envelope_head head = {
        .version = le32_of(ENVELOPE_VERSION),
        .flags = le32_of(e->flags),
        .arrival_ms = le64_of(e->arrival_ms),
        .body_bytes = le64_of(e->body_bytes),
        .sender_len = le16_of((uint16_t)e->sender_len),
        .client_len = le16_of((uint16_t)e->client_len),
        .helo_len = le16_of((uint16_t)e->helo_len),
    };
    uint8_t *at = buffer;
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (e->sender_len)
        memcpy(at, e->sender, e->sender_len);
    at += e->sender_len;
    if (e->client_len)
        memcpy(at, e->client, e->client_len);
    at += e->client_len;
    if (e->helo_len)
        memcpy(at, e->helo, e->helo_len);
    *w = (struct envelope_writer){.buffer = buffer, .capacity = capacity, .used = (uint32_t)sizeof head + names};
    return ERR_OK;
}

enum err envelope_add_recipient(struct envelope_writer *w, const char *address, uint32_t len)
{
    if (len == 0 || len > ADDRESS_BYTES_MAX)
        return ERR_INVALID;
    if (w->count >= RECIPIENTS_PER_MESSAGE_MAX || w->capacity - w->used < 2 + len)
        return ERR_TOO_LARGE;
    ASSERT(w->origin_count == 0);
    struct le16 n = le16_of((uint16_t)len);
    memcpy(w->buffer + w->used, &n, 2);
    memcpy(w->buffer + w->used + 2, address, len);
    w->used += 2 + len;
    w->count++;
    return ERR_OK;
}

enum err envelope_add_origin(struct envelope_writer *w, const struct envelope_origin *o)
{
    if (o->address_len == 0 || o->address_len > ADDRESS_BYTES_MAX || o->sender_len > ADDRESS_BYTES_MAX || o->count == 0 ||
        o->first > w->count || o->count > w->count - o->first)
        return ERR_INVALID;
    uint32_t bytes = ENVELOPE_ORIGIN_BYTES + o->address_len + o->sender_len;
    if (w->capacity - w->used < bytes)
        return ERR_TOO_LARGE;
    struct origin_head head = {le16_of((uint16_t)o->first), le16_of((uint16_t)o->count), le16_of((uint16_t)o->address_len),
                               le16_of((uint16_t)o->sender_len)};
    uint8_t *at = w->buffer + w->used;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, o->address, o->address_len);
    if (o->sender_len)
        memcpy(at + sizeof head + o->address_len, o->sender, o->sender_len);
    w->used += bytes;
    w->origins_bytes += bytes;
    w->origin_count++;
    return ERR_OK;
}

uint32_t envelope_end(struct envelope_writer *w, uint64_t body_bytes, uint32_t flags)
{
    struct envelope_head head;
    memcpy(&head, w->buffer, sizeof head);
    uint32_t names = (uint32_t)le16_get(head.sender_len) + le16_get(head.client_len) + le16_get(head.helo_len);
    head.flags = le32_of(flags);
    head.body_bytes = le64_of(body_bytes);
    head.recipient_count = le32_of(w->count);
    head.recipients_bytes = le32_of(w->used - (uint32_t)sizeof head - names - w->origins_bytes);
    head.origin_count = le16_of((uint16_t)w->origin_count);
    head.version = le32_of(w->origin_count ? ENVELOPE_VERSION_ORIGINS : ENVELOPE_VERSION);
    memcpy(w->buffer, &head, sizeof head);
    return w->used;
}

static bool recipients_well_formed(const uint8_t *at, uint32_t bytes, uint32_t count)
{
    const uint8_t *end = at + bytes;
    uint32_t seen = 0;
    while (at < end) {
        struct le16 n;
        if ((size_t)(end - at) < sizeof n)
            return false;
        memcpy(&n, at, sizeof n);
        uint32_t len = le16_get(n);
        if (len == 0 || len > ADDRESS_BYTES_MAX || (size_t)(end - at) - sizeof n < len)
            return false;
        at += sizeof n + len;
        seen++;
    }
    return seen == count;
}

/* Origins name recipients that are there, in rising order, none twice. */
static bool origins_well_formed(const uint8_t *at, uint32_t bytes, uint32_t count, uint32_t recipients)
{
    const uint8_t *end = at + bytes;
    uint32_t seen = 0, next = 0;
    while (at < end) {
        struct origin_head head;
        if ((size_t)(end - at) < sizeof head)
            return false;
        memcpy(&head, at, sizeof head);
        uint32_t first = le16_get(head.first), n = le16_get(head.count);
        uint32_t address_len = le16_get(head.address_len), sender_len = le16_get(head.sender_len);
        if (first < next || n == 0 || first > recipients || n > recipients - first || address_len == 0 ||
            address_len > ADDRESS_BYTES_MAX || sender_len > ADDRESS_BYTES_MAX ||
            (size_t)(end - at) - sizeof head < address_len + sender_len)
            return false;
        next = first + n;
        at += sizeof head + address_len + sender_len;
        seen++;
    }
    return seen == count;
}

enum err envelope_decode(const uint8_t *bytes, uint32_t len, struct envelope *e_out)
{
    struct envelope_head head;
    if (len < sizeof head || len > ENVELOPE_BYTES_MAX)
        return ERR_INVALID;
    memcpy(&head, bytes, sizeof head);
    struct envelope e = {
        .flags = le32_get(head.flags),
        .arrival_ms = le64_get(head.arrival_ms),
        .body_bytes = le64_get(head.body_bytes),
        .sender_len = le16_get(head.sender_len),
        .client_len = le16_get(head.client_len),
        .helo_len = le16_get(head.helo_len),
        .recipient_count = le32_get(head.recipient_count),
        .recipients_bytes = le32_get(head.recipients_bytes),
        .origin_count = le16_get(head.origin_count),
    };
    if (le32_get(head.version) != ENVELOPE_VERSION && le32_get(head.version) != ENVELOPE_VERSION_ORIGINS)
        return ERR_VERSION;
    if (e.sender_len > ADDRESS_BYTES_MAX || e.client_len > NAME_BYTES_MAX || e.helo_len > NAME_BYTES_MAX ||
        e.body_bytes > MESSAGE_BYTES_MAX || e.recipient_count > RECIPIENTS_PER_MESSAGE_MAX ||
        (le32_get(head.version) == ENVELOPE_VERSION_ORIGINS) != (e.origin_count > 0)) /* ENV-1 */
        return ERR_INVALID;
    uint32_t names = e.sender_len + e.client_len + e.helo_len;
    uint32_t rest = len - (uint32_t)sizeof head;
    if (names > rest || rest - names < e.recipients_bytes)
        return ERR_INVALID;
    e.origins_bytes = rest - names - e.recipients_bytes;
    e.sender = (const char *)bytes + sizeof head;
    e.client = e.sender + e.sender_len;
    e.helo = e.client + e.client_len;
    e.recipients = bytes + sizeof head + names;
    e.origins = e.recipients + e.recipients_bytes;
    if (!recipients_well_formed(e.recipients, e.recipients_bytes, e.recipient_count) ||
        !origins_well_formed(e.origins, e.origins_bytes, e.origin_count, e.recipient_count))
        return ERR_INVALID;
    *e_out = e;
    return ERR_OK;
}

void envelope_recipients(const struct envelope *e, struct envelope_cursor *c)
{
    *c = (struct envelope_cursor){e->recipients, e->recipients + e->recipients_bytes};
}

bool envelope_recipient_next(struct envelope_cursor *c, const char **address_out, uint32_t *len_out)
{
    if (c->at >= c->end)
        return false;
    struct le16 n;
    memcpy(&n, c->at, sizeof n);
    uint32_t len = le16_get(n);
    ASSERT((size_t)(c->end - c->at) >= sizeof n + len); /* ENV-2 */
    *address_out = (const char *)c->at + sizeof n;
    *len_out = len;
    c->at += sizeof n + len;
    return true;
}

void envelope_origins(const struct envelope *e, struct envelope_cursor *c)
{
    *c = (struct envelope_cursor){e->origins, e->origins_bytes ? e->origins + e->origins_bytes : e->origins};
}

bool envelope_origin_next(struct envelope_cursor *c, struct envelope_origin *o_out)
{
    if (c->at >= c->end)
        return false;
    struct origin_head head;
    memcpy(&head, c->at, sizeof head);
    struct envelope_origin o = {.first = le16_get(head.first), .count = le16_get(head.count),
                                .address_len = le16_get(head.address_len), .sender_len = le16_get(head.sender_len)};
    ASSERT((size_t)(c->end - c->at) >= sizeof head + o.address_len + o.sender_len); /* ENV-2 */
    o.address = (const char *)c->at + sizeof head;
    o.sender = o.address + o.address_len;
    c->at += sizeof head + o.address_len + o.sender_len;
    *o_out = o;
    return true;
}

const struct envelope_origin *envelope_origin_of(struct envelope_cursor *c, struct envelope_origin *o, uint32_t index)
{
    while (index >= o->first + o->count)
        if (!envelope_origin_next(c, o))
            return NULL;
    return index >= o->first ? o : NULL;
}

uint64_t envelope_destination_of_domain(const char *domain, uint32_t len)
{
    char folded[ADDRESS_BYTES_MAX];
    if (len == 0)
        return 0;
    if (len > sizeof folded)
        len = sizeof folded;
    for (uint32_t i = 0; i < len; i++)
        folded[i] = domain[i] >= 'A' && domain[i] <= 'Z' ? (char)(domain[i] + 32) : domain[i];
    uint64_t d = digest64_of(folded, len, 0);
    return d ? d : 1; /* 0 is the destination of addresses without a domain */
}

uint64_t envelope_destination(const char *address, uint32_t len)
{
    const char *at = len ? memrchr(address, '@', len) : NULL;
    if (!at)
        return 0;
    uint32_t before = (uint32_t)(at + 1 - address);
    return envelope_destination_of_domain(at + 1, len - before);
}

enum err mark_encode(uint8_t *buffer, uint32_t capacity, const struct mark *marks, uint32_t count, uint32_t *len_out)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t reason = marks[i].reason_len < REASON_BYTES_MAX ? marks[i].reason_len : REASON_BYTES_MAX;
        if (marks[i].status > MARK_EXPIRED || marks[i].recipient >= RECIPIENTS_PER_MESSAGE_MAX)
            return ERR_INVALID;
        if (capacity - used < sizeof(struct mark_head) + reason)
            return ERR_TOO_LARGE;
        struct mark_head head = {
            .recipient = le32_of(marks[i].recipient),
            .status = le16_of((uint16_t)marks[i].status),
            .reason_len = le16_of((uint16_t)reason),
            .deferred_until_ms = le64_of(marks[i].deferred_until_ms),
        };
        memcpy(buffer + used, &head, sizeof head);
        if (reason)
            memcpy(buffer + used + sizeof head, marks[i].reason, reason);
        used += (uint32_t)sizeof head + reason;
    }
    *len_out = used;
    return ERR_OK;
}

enum err mark_check(const uint8_t *bytes, uint32_t len, uint32_t *count_out)
{
    const uint8_t *at = bytes, *end = len ? bytes + len : bytes; /* no marks may be no bytes at all */
    uint32_t count = 0;
    while (at < end) {
        struct mark_head head;
        if ((size_t)(end - at) < sizeof head)
            return ERR_INVALID;
        memcpy(&head, at, sizeof head);
        uint32_t reason = le16_get(head.reason_len);
        if (le16_get(head.status) > MARK_EXPIRED || le32_get(head.recipient) >= RECIPIENTS_PER_MESSAGE_MAX ||
            reason > REASON_BYTES_MAX || (size_t)(end - at) - sizeof head < reason)
            return ERR_INVALID;
        at += sizeof head + reason;
        count++;
    }
    *count_out = count;
    return ERR_OK;
}

void mark_begin(struct mark_cursor *c, const uint8_t *bytes, uint32_t len)
{
    *c = (struct mark_cursor){bytes, len ? bytes + len : bytes};
}

bool mark_next(struct mark_cursor *c, struct mark *mark_out)
{
    if (c->at >= c->end)
        return false;
    struct mark_head head;
    memcpy(&head, c->at, sizeof head);
    uint32_t reason = le16_get(head.reason_len);
    ASSERT((size_t)(c->end - c->at) >= sizeof head + reason); /* ENV-2 */
    *mark_out = (struct mark){
        .recipient = le32_get(head.recipient),
        .status = (enum mark_status)le16_get(head.status),
        .deferred_until_ms = le64_get(head.deferred_until_ms),
        .reason = (const char *)c->at + sizeof head,
        .reason_len = reason,
    };
    c->at += sizeof head + reason;
    return true;
}
