/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which segments hold a copy of a message besides the place it is known by, or held one when it was retired; and the
 * tombstones of a replay, which find them. A compaction leaves such copies until its victim is freed, and one that it wrote while the
 * RETIRE was on its way; halves that ran apart have moved a message each to a place of its own (docs/design/0014).
 *
 * Invariant IDX-5 (index.h): a RETIRE names one place, and an index made anew from the log finds whatever copy is left. So the segment in
 * which a RETIRE lies depends on all that hold a copy, and a compaction takes the RETIRE along while one of them is there
 * (INDEX_COPIES). Nothing else waits for them: RETIREs can always be moved, so nobody waits in a circle.
 *
 *   tombstones [end of the replay] -> rows, dependencies        a copy of what is retired [apply] -> row, dependencies
 *   rows -> gone with their segment [freed] */
#include "core.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

/* --- tombstones --- */

#define TOMB_HEAD_BYTES (1u + (uint32_t)sizeof(struct segment_id))

static enum err tomb_decode(struct bytes key, struct bytes value, struct tomb *t_out)
{
    struct tomb t = {.about = key_segment_at(key, 17)};
    struct bytes body;
    if (value_open(key, value, &body) != ERR_OK || body.len < TOMB_HEAD_BYTES || body.len > TOMB_HEAD_BYTES + sizeof t.hits)
        return ERR_CORRUPT;
    const uint8_t *at = body.at;
    t.retired = at[0];
    memcpy(&t.in, at + 1, sizeof t.in);
    t.hit_count = (uint32_t)((body.len - TOMB_HEAD_BYTES) / sizeof t.hits[0]);
    memcpy(t.hits, at + TOMB_HEAD_BYTES, t.hit_count * sizeof t.hits[0]);
    *t_out = t;
    return ERR_OK;
}

static enum err tomb_put(struct core *c, struct queue_id qid, const struct tomb *t)
{
    struct key k = key_tomb(qid, t->about);
    uint8_t buffer[CHECK_BYTES + TOMB_HEAD_BYTES + sizeof t->hits], body[TOMB_HEAD_BYTES + sizeof t->hits];
    size_t hits = t->hit_count * sizeof t->hits[0];
    body[0] = t->retired;
    memcpy(body + 1, &t->in, sizeof t->in);
    memcpy(body + TOMB_HEAD_BYTES, t->hits, hits);
    return row_put(c, &k, value_seal(&k, buffer, body, TOMB_HEAD_BYTES + hits));
}

/* Those that are there already keep their places in the row; a pointer into it lasts until the next one is made. */
static struct tomb *tombs_new(struct tombs *t)
{
    if (t->count == t->capacity) {
        uint32_t capacity = t->capacity ? t->capacity * 2 : 4;
        struct tomb *bigger = realloc(t->at, capacity * sizeof *bigger);
        if (!bigger)
            return NULL;
        t->at = bigger;
        t->capacity = capacity;
    }
    return &t->at[t->count++];
}

enum err tombs_load(struct core *c, struct queue_id qid, struct tombs *t)
{
    struct key from = key_tomb(qid, (struct segment_id){0});
    struct bytes key, value;
    from.len = 17;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    while (e == ERR_OK && key_begins(key, &from)) {
        struct tomb *one = tombs_new(t);
        e = one ? tomb_decode(key, value, one) : ERR_NO_MEMORY;
        if (e == ERR_OK)
            e = store_next(c->store, &key, &value);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

struct tomb *tombs_about(struct tombs *t, struct segment_id about)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (segment_id_equal(t->at[i].about, about))
            return &t->at[i];
    struct tomb *one = tombs_new(t);
    if (one)
        *one = (struct tomb){.about = about, .changed = true};
    return one;
}

enum err tombs_put(struct core *c, struct queue_id qid, const struct tombs *t)
{
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < t->count && e == ERR_OK; i++)
        if (t->at[i].changed)
            e = tomb_put(c, qid, &t->at[i]);
    return e;
}

/* --- rows --- */

static struct key key_copies(struct queue_id qid)
{
    struct key k = key_of('y');
    key_add(&k, qid.incarnation);
    key_add(&k, qid.counter);
    return k;
}

static struct key key_copy(struct queue_id qid, struct segment_id where)
{
    struct key k = key_copies(qid);
    key_add(&k, where.incarnation);
    key_add(&k, where.counter);
    return k;
}

static struct key key_copy_back(struct segment_id where, struct queue_id qid)
{
    struct key k = key_segment('z', where);
    key_add(&k, qid.incarnation);
    key_add(&k, qid.counter);
    return k;
}

static enum err copies_put(struct core *c, struct queue_id qid, struct segment_id where)
{
    uint8_t buffer[CHECK_BYTES];
    struct key there = key_copy(qid, where), back = key_copy_back(where, qid);
    enum err e = row_put(c, &there, value_seal(&there, buffer, NULL, 0));
    c->copies_known = true;
    return e == ERR_OK ? row_put(c, &back, value_seal(&back, buffer, NULL, 0)) : e;
}

/* Inside a transaction. */
enum err copies_look(struct core *c, bool *known_out)
{
    struct key from = key_of('y');
    struct bytes key, value;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    *known_out = e == ERR_OK && key_begins(key, &from);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err copies_retired(struct core *c, struct queue_id qid, struct segment_id in)
{
    struct key from = key_copies(qid);
    struct bytes key, value;
    if (!c->copies_known)
        return ERR_OK;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    while (e == ERR_OK && key_begins(key, &from)) {
        if (key.len != 33)
            return ERR_CORRUPT;
        e = batch_dep(c, in, key_segment_at(key, 17));
        if (e == ERR_OK)
            e = store_next(c->store, &key, &value);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* Its RETIRE lies in one of the segments that depend on `from`, in the store or in this batch. */
enum err copies_late(struct core *c, struct queue_id qid, struct segment_id from, struct segment_id where)
{
    struct key about = key_segment('q', from);
    struct bytes key, value;
    enum err e = copies_put(c, qid, where);
    for (uint32_t i = 0, count = c->batch.dep_count; i < count && e == ERR_OK; i++)
        if (segment_id_equal(c->batch.deps[i].about, from))
            e = batch_dep(c, c->batch.deps[i].segment, where);
    if (e == ERR_OK)
        e = store_seek(c->store, key_bytes(&about), &key, &value);
    while (e == ERR_OK && key_begins(key, &about)) {
        if (key.len != 33)
            return ERR_CORRUPT;
        e = batch_dep(c, key_segment_at(key, 17), where);
        if (e == ERR_OK)
            e = store_next(c->store, &key, &value);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err copies_settle(struct core *c, struct queue_id qid, const struct tombs *t, struct segment_id where)
{
    enum err e = segment_id_is_none(where) ? ERR_OK : copies_put(c, qid, where);
    for (uint32_t i = 0; i < t->count && e == ERR_OK; i++)
        if (!t->at[i].retired && t->at[i].hit_count > 0)
            e = copies_put(c, qid, t->at[i].about);
    for (uint32_t i = 0; i < t->count && e == ERR_OK; i++)
        if (t->at[i].retired)
            e = copies_retired(c, qid, t->at[i].in);
    return e;
}

enum err copies_freed(struct core *c, struct segment_id where)
{
    struct key from = key_segment('z', where);
    while (c->copies_known) {
        struct bytes key, value;
        enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
        if (e == ERR_NOT_FOUND || (e == ERR_OK && !key_begins(key, &from)))
            return ERR_OK;
        if (e != ERR_OK)
            return e;
        struct queue_id qid = key_qid_at(key, 17);
        struct key back = key_copy_back(where, qid), there = key_copy(qid, where);
        e = row_delete(c, &back);
        if (e == ERR_OK)
            e = row_delete(c, &there);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

enum err copies_list(struct core *c, struct queue_id qid, struct segment_id *where, uint32_t max, uint32_t *count_out)
{
    struct key from = key_copies(qid);
    struct bytes key, value;
    uint32_t count = 0;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    while (e == ERR_OK && key_begins(key, &from) && count < max) {
        where[count++] = key_segment_at(key, 17);
        e = store_next(c->store, &key, &value);
    }
    *count_out = count;
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}
