/* SPDX-License-Identifier: Apache-2.0 */
/* See recipients.h. */
#include "recipients.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define ENVELOPE_CAPACITY_MIN 512u

enum err recipients_begin(struct recipients *r, const struct envelope *e)
{
    uint32_t capacity = ENVELOPE_CAPACITY_MIN + e->sender_len + e->client_len + e->helo_len;
    uint8_t *buffer = malloc(capacity);
    if (!buffer)
        return ERR_NO_MEMORY;
    enum err why = envelope_begin(&r->envelope, buffer, capacity, e);
    if (why) {
        free(buffer);
        r->envelope.buffer = NULL;
    }
    r->null_sender = e->sender_len == 0;
    return why;
}

/* Doubles until `more` fit. */
static enum err make_room(struct recipients *r, uint32_t more)
{
    struct envelope_writer *w = &r->envelope;
    uint32_t capacity = w->capacity;
    if (w->used + more > ENVELOPE_BYTES_MAX)
        return ERR_TOO_MANY;
    if (capacity - w->used >= more)
        return ERR_OK;
    while (capacity < ENVELOPE_BYTES_MAX && capacity - w->used < more)
        capacity = capacity * 2 < ENVELOPE_BYTES_MAX ? capacity * 2 : ENVELOPE_BYTES_MAX;
    uint8_t *buffer = realloc(w->buffer, capacity);
    if (!buffer)
        return ERR_NO_MEMORY;
    w->buffer = buffer;
    w->capacity = capacity;
    return ERR_OK;
}

static enum err add_one(struct recipients *r, const char *address, uint32_t len)
{
    struct envelope_writer *w = &r->envelope;
    if (w->count >= RECIPIENTS_PER_MESSAGE_MAX || w->used + 2 + len + r->origin_bytes > ENVELOPE_BYTES_MAX)
        return ERR_TOO_MANY; /* RCP-2 */
    enum err e = make_room(r, 2 + len);
    return e ? e : envelope_add_recipient(w, address, len);
}

/* Recipient number `index` came from what is at said_at; the same origin as the one before only grows. */
static enum err add_origin(struct recipients *r, uint32_t index, uint32_t said_at, uint32_t said_len, const struct found *f)
{
    struct recipients_origin *last = r->origin_count ? &r->origins[r->origin_count - 1] : NULL;
    if (last && last->first + last->count == index && last->at == said_at && last->owner_at == f->owner_at &&
        last->owner_len == f->owner_len) {
        last->count++;
        return ERR_OK;
    }
    if (r->origin_count == r->origin_capacity) {
        uint32_t capacity = r->origin_capacity ? r->origin_capacity * 2 : 4;
        struct recipients_origin *grown = reallocarray(r->origins, capacity, sizeof *grown);
        if (!grown)
            return ERR_NO_MEMORY;
        r->origins = grown;
        r->origin_capacity = capacity;
    }
    r->origins[r->origin_count++] = (struct recipients_origin){index, 1, said_at, said_len, f->owner_at, f->owner_len};
    r->origin_bytes += ENVELOPE_ORIGIN_BYTES + said_len + f->owner_len;
    return ERR_OK;
}

static enum err add_found(struct recipients *r, const struct found *f, uint32_t said_at, uint32_t said_len)
{
    const char *address = r->expansion.text.bytes + f->at;
    uint32_t index = r->envelope.count;
    bool itself = f->owner_len == 0 && f->len == said_len && memcmp(address, r->said.bytes + said_at, said_len) == 0;
    enum err e = itself ? ERR_OK : add_origin(r, index, said_at, said_len, f);
    if (!e)
        e = add_one(r, address, f->len);
    if (!e)
        r->other_than_hold = r->other_than_hold || !r->routes || route_of(r->routes, address, f->len)->kind != ROUTE_HOLD;
    return e;
}

static enum err add_expanded(struct recipients *r, const char *address, uint32_t len, const char **why_out)
{
    uint32_t said_at, found = r->expansion.found_count, text = r->expansion.text.used;
    enum err e = arena_add(&r->said, address, len, &said_at);
    if (!e)
        e = expand(&r->expansion, r->aliases, address, len, r->null_sender, why_out);
    for (uint32_t i = found; i < r->expansion.found_count && !e; i++)
        e = add_found(r, &r->expansion.found[i], said_at, len);
    if (e) {
        r->expansion.found_count = found;
        r->expansion.text.used = text;
    }
    return e;
}

enum err recipients_add(struct recipients *r, const char *address, uint32_t len, const char **why_out)
{
    struct envelope_writer envelope = r->envelope;
    uint32_t origins = r->origin_count, last_count = origins ? r->origins[origins - 1].count : 0, bytes = r->origin_bytes;
    uint32_t said = r->said.used;
    bool other = r->other_than_hold;
    enum err e;
    if (r->aliases) {
        e = add_expanded(r, address, len, why_out);
    } else {
        r->other_than_hold = other || !r->routes || route_of(r->routes, address, len)->kind != ROUTE_HOLD;
        e = r->asked == 0 ? arena_add(&r->said, address, len, &said) : ERR_OK;
        if (!e)
            e = add_one(r, address, len);
    }
    if (!e) {
        r->first_len = r->asked++ == 0 ? len : r->first_len;
        return ERR_OK;
    }
    r->envelope.used = envelope.used; /* RCP-1; the buffer may have grown */
    r->envelope.count = envelope.count;
    r->origin_count = origins;
    r->origin_bytes = bytes;
    if (origins)
        r->origins[origins - 1].count = last_count;
    r->said.used = said;
    r->other_than_hold = other;
    return e;
}

const char *recipients_single(const struct recipients *r, uint32_t *len_out)
{
    *len_out = r->first_len;
    return r->asked == 1 ? r->said.bytes : NULL;
}

enum err recipients_end(struct recipients *r, uint64_t body_bytes, uint32_t flags, uint32_t *len_out)
{
    enum err e = make_room(r, r->origin_bytes);
    for (uint32_t i = 0; i < r->origin_count && !e; i++) {
        const struct recipients_origin *from = &r->origins[i];
        struct envelope_origin o = {.first = from->first, .count = from->count, .address = r->said.bytes + from->at,
                                    .address_len = from->len, .sender = r->expansion.text.bytes + from->owner_at,
                                    .sender_len = from->owner_len};
        e = envelope_add_origin(&r->envelope, &o);
    }
    if (!e)
        *len_out = envelope_end(&r->envelope, body_bytes, flags);
    return e;
}

void recipients_free(struct recipients *r)
{
    free(r->envelope.buffer);
    expansion_free(&r->expansion);
    free(r->said.bytes);
    free(r->origins);
    *r = (struct recipients){0};
}
