/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: one write transaction and what it adds up while it runs: live counts of segments, first due rows of
 * destinations, dependencies, counters. All of it is written once, at the end.
 *
 * Invariants: IDX-1 (watermark and effects share the transaction), CORE-2 (events leave after the commit). BATCH-1: a
 * destination has a head row exactly when it has a due row that is not DUE_NEVER, and it names the earliest. */
#include "core.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

/* --- rows --- */

enum err row_put(struct core *c, const struct key *k, struct bytes value)
{
    c->batch.writes++;
    c->batch.bytes += value.len;
    return store_put(c->store, key_bytes(k), value);
}

bool batch_large(const struct core *c)
{
    return c->batch.writes >= (c->rebuilding ? BATCH_WRITES_REBUILD_MAX : BATCH_WRITES_MAX) ||
           c->batch.bytes >= BATCH_BYTES_MAX;
}

static enum err row_put_empty(struct core *c, const struct key *k)
{
    uint8_t buffer[CHECK_BYTES];
    return row_put(c, k, value_seal(k, buffer, NULL, 0));
}

/* What should be there and is not counts as damage: somebody else's bits. */
enum err row_delete(struct core *c, const struct key *k)
{
    enum err e = store_del(c->store, key_bytes(k));
    c->batch.writes++;
    return e == ERR_NOT_FOUND ? ERR_CORRUPT : e;
}

enum err row_delete_all(struct core *c, const struct key *prefix, uint32_t max, uint32_t *count_out)
{
    struct bytes key, value;
    *count_out = 0;
    while (*count_out < max) {
        enum err e = store_seek(c->store, key_bytes(prefix), &key, &value);
        if (e == ERR_NOT_FOUND || (e == ERR_OK && !key_begins(key, prefix)))
            return ERR_OK;
        struct key k = {.len = (uint8_t)key.len};
        if (e != ERR_OK || key.len > sizeof k.b)
            return e != ERR_OK ? e : ERR_CORRUPT;
        memcpy(k.b, key.at, key.len);
        if ((e = store_del(c->store, key_bytes(&k))) != ERR_OK)
            return e;
        ++*count_out;
    }
    return ERR_OK;
}

/* --- segments --- */

enum err batch_segment(struct core *c, struct segment_id id, struct segment_touched **out)
{
    struct segment_touched *s = map_get(&c->batch.segments, id.incarnation, id.counter);
    struct bytes value;
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return ERR_NO_MEMORY;
        s->id = id;
        struct key k = key_segment('s', id);
        enum err e = store_get(c->store, key_bytes(&k), &value);
        if (e == ERR_OK)
            e = segment_decode(key_bytes(&k), value, &s->row);
        if (e == ERR_OK || e == ERR_NOT_FOUND)
            e = map_put(&c->batch.segments, id.incarnation, id.counter, s);
        if (e != ERR_OK) {
            free(s);
            return e;
        }
    }
    *out = s;
    return ERR_OK;
}

void batch_forget(struct core *c, struct segment_id id)
{
    free(map_remove(&c->batch.segments, id.incarnation, id.counter));
}

static enum err count_by(uint32_t *count, uint64_t *bytes, int by, uint64_t length)
{
    if (by < 0 && (*count == 0 || *bytes < length))
        return ERR_CORRUPT;
    *count = by < 0 ? *count - 1 : *count + 1;
    *bytes = by < 0 ? *bytes - length : *bytes + length;
    return ERR_OK;
}

enum err batch_count_message(struct core *c, const struct message *m, int by)
{
    struct segment_touched *s;
    enum err e = batch_segment(c, m->place.segment, &s);
    return e != ERR_OK ? e : count_by(&s->row.live_messages, &s->row.live_bytes, by, m->place.length);
}

enum err batch_count_chunk(struct core *c, const struct chunk_row *chunk, int by)
{
    struct segment_touched *s;
    enum err e = batch_segment(c, chunk->place.segment, &s);
    return e != ERR_OK ? e : count_by(&s->row.live_chunks, &s->row.live_bytes, by, chunk->place.length);
}

enum err batch_dep(struct core *c, struct segment_id segment, struct segment_id about)
{
    struct batch *b = &c->batch;
    struct segment_touched *s;
    if (segment_id_is_none(about) || segment_id_equal(segment, about))
        return ERR_OK;
    enum err e = batch_segment(c, segment, &s);
    if (e != ERR_OK)
        return e;
    if (b->dep_count == b->dep_capacity) {
        uint32_t capacity = b->dep_capacity ? b->dep_capacity * 2 : 1024;
        struct dep *bigger = realloc(b->deps, capacity * sizeof *bigger);
        if (!bigger)
            return ERR_NO_MEMORY;
        b->deps = bigger;
        b->dep_capacity = capacity;
    }
    b->deps[b->dep_count++] = (struct dep){segment, about};
    return ERR_OK;
}

static int dep_compare(const void *a, const void *b)
{
    const struct dep *x = a, *y = b;
    const uint64_t i[4] = {x->segment.incarnation, x->segment.counter, x->about.incarnation, x->about.counter};
    const uint64_t j[4] = {y->segment.incarnation, y->segment.counter, y->about.incarnation, y->about.counter};
    for (uint32_t n = 0; n < 4; n++)
        if (i[n] != j[n])
            return i[n] < j[n] ? -1 : 1;
    return 0;
}

static enum err batch_write_deps(struct core *c)
{
    struct batch *b = &c->batch;
    if (b->dep_count)
        qsort(b->deps, b->dep_count, sizeof *b->deps, dep_compare);
    for (uint32_t i = 0; i < b->dep_count; i++) {
        if (i > 0 && dep_compare(&b->deps[i - 1], &b->deps[i]) == 0)
            continue;
        struct key there = key_pair('p', b->deps[i].segment, b->deps[i].about);
        struct key back = key_pair('q', b->deps[i].about, b->deps[i].segment);
        enum err e = row_put_empty(c, &there);
        if (e == ERR_OK)
            e = row_put_empty(c, &back);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

/* What the engine is told of a segment, with its dependencies as they are now. */
enum err batch_event(struct core *c, const struct segment_touched *s)
{
    struct segment_event *ev = calloc(1, sizeof *ev + INDEX_DEPS_MAX * sizeof(struct segment_id));
    if (!ev)
        return ERR_NO_MEMORY;
    uint32_t count = 0;
    struct bytes key, value;
    struct key from = key_segment('p', s->id);
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    for (; e == ERR_OK && key_begins(key, &from) && count <= INDEX_DEPS_MAX; count++) {
        struct bytes nothing;
        if (key.len != 33 || value_open(key, value, &nothing) != ERR_OK) {
            e = ERR_CORRUPT;
            break;
        }
        if (count < INDEX_DEPS_MAX)
            ev->deps[count] = key_segment_at(key, 17);
        e = store_next(c->store, &key, &value);
    }
    if (e != ERR_OK && e != ERR_NOT_FOUND) {
        free(ev);
        return e;
    }
    bool over = count > INDEX_DEPS_MAX;
    struct segment_event *fit = realloc(ev, sizeof *ev + (over ? 0 : count) * sizeof(struct segment_id));
    ev = fit ? fit : ev;
    ev->segment = (struct index_segment){.id = s->id, .watermark = s->row.watermark,
                                         .live_messages = s->row.live_messages, .live_chunks = s->row.live_chunks,
                                         .live_bytes = s->row.live_bytes, .dep_count = over ? 0 : count,
                                         .deps_overflowed = over};
    ev->segment.deps = ev->deps;
    link_push(&c->batch.events, &ev->link);
    return ERR_OK;
}

static enum err batch_write_segments(struct core *c)
{
    uint8_t buffer[SMALL_VALUE_BYTES];
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&c->batch.segments, &at));) {
        struct segment_touched *s = slot->value;
        struct key k = key_segment('s', s->id);
        enum err e = row_put(c, &k, segment_encode(&s->row, &k, buffer));
        if (e == ERR_OK)
            e = batch_event(c, s);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

/* --- destinations --- */

static enum err destination_head(struct core *c, uint64_t destination, uint64_t *due_out)
{
    struct bytes key, value;
    struct key from = key_of('d');
    key_add(&from, destination);
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    *due_out = e == ERR_OK && key_begins(key, &from) ? key_u64(key, 9) : DUE_NEVER;
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err batch_destination(struct core *c, uint64_t destination)
{
    if (map_get(&c->batch.destinations, destination, 0))
        return ERR_OK;
    struct destination_touched *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NO_MEMORY;
    d->destination = destination;
    enum err e = destination_head(c, destination, &d->head_before);
    if (e == ERR_OK)
        e = map_put(&c->batch.destinations, destination, 0, d);
    if (e != ERR_OK)
        free(d);
    return e;
}

static enum err batch_write_heads(struct core *c)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(&c->batch.destinations, &at));) {
        const struct destination_touched *d = slot->value;
        uint64_t now;
        enum err e = destination_head(c, d->destination, &now);
        struct key before = key_head(d->head_before, d->destination), after = key_head(now, d->destination);
        if (e == ERR_OK && now != d->head_before && d->head_before != DUE_NEVER)
            e = row_delete(c, &before);
        if (e == ERR_OK && now != d->head_before && now != DUE_NEVER)
            e = row_put_empty(c, &after);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

void batch_conflict(struct core *c, struct queue_id qid, struct place second)
{
    if (c->batch.conflict_count < CONFLICTS_MAX)
        c->batch.conflicts[c->batch.conflict_count++] = (struct conflict){qid, second};
}

/* --- the transaction --- */

static void map_free_values(struct map *m)
{
    uint32_t at = 0;
    for (struct map_slot *slot; (slot = map_next(m, &at));)
        free(slot->value);
    map_clear(m);
}

static void batch_reset(struct core *c)
{
    map_free_values(&c->batch.segments);
    map_free_values(&c->batch.destinations);
    c->batch.dep_count = c->batch.conflict_count = c->batch.writes = 0;
    c->batch.bytes = 0;
    c->batch.counts = c->counts;
    for (struct link *l; (l = link_pop(&c->batch.events));)
        free(CONTAINER_OF(l, struct segment_event, link));
}

static enum err batch_write(struct core *c)
{
    uint8_t buffer[SMALL_VALUE_BYTES];
    struct key n = key_of('n');
    enum err e = batch_write_deps(c);
    if (e == ERR_OK)
        e = batch_write_heads(c);
    if (e == ERR_OK)
        e = batch_write_segments(c);
    return e == ERR_OK ? row_put(c, &n, counts_encode(&c->batch.counts, &n, buffer)) : e;
}

void batch_tell(struct core *c)
{
    c->counts = c->batch.counts;
    for (struct link *l; (l = link_pop(&c->batch.events));)
        out_segment(c->out, CONTAINER_OF(l, struct segment_event, link));
    for (uint32_t i = 0; i < c->batch.conflict_count; i++)
        out_conflict(c->out, c->batch.conflicts[i].qid, c->batch.conflicts[i].second);
}

static enum err batch_run(struct core *c, enum err (*step)(struct core *c, void *arg), void *arg)
{
    batch_reset(c);
    enum err e = store_begin(c->store, true);
    if (e != ERR_OK)
        return e;
    e = step(c, arg);
    if (e == ERR_OK)
        e = batch_write(c);
    if (e != ERR_OK) {
        store_abort(c->store);
        return e;
    }
    return store_commit(c->store);
}

enum err core_transact(struct core *c, enum err (*step)(struct core *c, void *arg), void *arg)
{
    enum err e = batch_run(c, step, arg);
    while (e == ERR_FULL && store_grow(c->store) == ERR_OK)
        e = batch_run(c, step, arg);
    c->batches += e == ERR_OK;
    if (e == ERR_OK)
        batch_tell(c);
    else if (e == ERR_CORRUPT || e == ERR_NOT_FOUND)
        core_damage(c, "rows do not fit together");
    batch_reset(c);
    return e == ERR_NOT_FOUND ? ERR_CORRUPT : e;
}
