/* SPDX-License-Identifier: Apache-2.0 */
/* Two plain helpers of both ends of the wire: the linear buffer and the table of held messages. See wire.h. */
#include <spoolfs/wire.h>

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

/* --- buffer --- */

enum err wire_buffer_make(struct wire_buffer *b, uint32_t capacity)
{
    *b = (struct wire_buffer){.bytes = malloc(capacity), .capacity = capacity};
    return b->bytes ? ERR_OK : ERR_NO_MEMORY;
}

void wire_buffer_free(struct wire_buffer *b)
{
    free(b->bytes);
    *b = (struct wire_buffer){0};
}

void wire_buffer_reset(struct wire_buffer *b)
{
    b->head = b->tail = 0;
}

void wire_buffer_compact(struct wire_buffer *b)
{
    uint32_t used = wire_buffer_used(b);
    if (b->head && used)
        memmove(b->bytes, b->bytes + b->head, used);
    b->head = 0;
    b->tail = used;
}

void wire_buffer_drop(struct wire_buffer *b, uint32_t len)
{
    ASSERT(len <= wire_buffer_used(b));
    b->head += len;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

bool wire_buffer_put(struct wire_buffer *b, const struct wire_message *m)
{
    uint32_t need = wire_encoded_bytes(m);
    if (need > wire_buffer_room(b))
        return false;
    if (need > b->capacity - b->tail)
        wire_buffer_compact(b);
    b->tail += wire_encode(b->bytes + b->tail, m);
    return true;
}

/* --- table: half full at most, so that chains stay short --- */

#define PLACES_MIN 1024u

enum err wire_table_make(struct wire_table *t, uint32_t max)
{
    *t = (struct wire_table){.at = calloc(PLACES_MIN, sizeof *t->at), .places = PLACES_MIN, .max = max};
    return t->at ? ERR_OK : ERR_NO_MEMORY;
}

void wire_table_free(struct wire_table *t)
{
    free(t->at);
    *t = (struct wire_table){0};
}

static uint32_t home_of(const struct wire_table *t, struct queue_id q)
{
    uint64_t h = (q.incarnation ^ q.counter * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(h >> 32) & (t->places - 1);
}

static uint32_t place_of(const struct wire_table *t, struct queue_id q) /* where it is, or would go */
{
    uint32_t i = home_of(t, q);
    while (!queue_id_is_none(t->at[i].qid) && !queue_id_equal(t->at[i].qid, q))
        i = (i + 1) & (t->places - 1);
    return i;
}

struct wire_held *wire_table_find(const struct wire_table *t, struct queue_id qid)
{
    struct wire_held *h = &t->at[place_of(t, qid)];
    return queue_id_is_none(h->qid) ? NULL : h;
}

static bool table_grow(struct wire_table *t)
{
    struct wire_table bigger = {.at = calloc(t->places * 2u, sizeof *t->at), .places = t->places * 2, .max = t->max};
    if (!bigger.at)
        return false;
    WIRE_TABLE_EACH(h, t)
        bigger.at[place_of(&bigger, h->qid)] = *h;
    bigger.count = t->count;
    free(t->at);
    *t = bigger;
    return true;
}

struct wire_held *wire_table_add(struct wire_table *t, struct queue_id qid)
{
    ASSERT(!queue_id_is_none(qid));
    struct wire_held *h = wire_table_find(t, qid);
    if (h)
        return h;
    if (t->count >= t->max || (t->count * 2 >= t->places && !table_grow(t)))
        return NULL;
    h = &t->at[place_of(t, qid)];
    *h = (struct wire_held){.qid = qid};
    t->count++;
    return h;
}

void wire_table_remove(struct wire_table *t, struct queue_id qid)
{
    uint32_t hole = place_of(t, qid), mask = t->places - 1;
    if (queue_id_is_none(t->at[hole].qid))
        return;
    t->count--;
    t->at[hole] = (struct wire_held){0};
    for (uint32_t i = (hole + 1) & mask; !queue_id_is_none(t->at[i].qid); i = (i + 1) & mask) {
        uint32_t home = home_of(t, t->at[i].qid);
        if (((i - home) & mask) < ((i - hole) & mask))
            continue; /* its home lies behind the hole: the chain stays unbroken */
        t->at[hole] = t->at[i];
        t->at[i] = (struct wire_held){0};
        hole = i;
    }
}

void wire_table_clear(struct wire_table *t)
{
    memset(t->at, 0, (size_t)t->places * sizeof *t->at);
    t->count = 0;
}
