/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the messages of one queue id in memory while its records are applied: loaded from the rows, and what changed
 * written back with all that follows from it.
 * APPLY-1: rows that follow from a message (due, arrival, counts) are there exactly while its row is. Never: knows what a
 * record means (index_apply.c). */
#include "index_group.h"

#include <stdlib.h>
#include <string.h>

static enum err due_row_change(struct core *c, const struct message *m, const struct destination_due *d,
                               uint64_t arrival, bool put)
{
    uint8_t buffer[SMALL_VALUE_BYTES];
    struct due_row row = {.arrival_ms = arrival, .recipients = d->recipients};
    struct key k = key_due(d->destination, d->due_ms, m->qid, m->digest);
    enum err e = batch_destination(c, d->destination);
    if (e != ERR_OK)
        return e;
    return put ? row_put(c, &k, due_encode(&row, &k, buffer)) : row_delete(c, &k);
}

/* From the due rows of `old` to those of `m`, both in order of destination; only what differs is touched. */
static enum err due_rows_change(struct core *c, const struct message *m, const struct message_view *old,
                                const struct message_view *now)
{
    const struct destination_due *a = c->destinations_old, *b = c->destinations;
    const struct destination_due *a_end = a + old->destination_count, *b_end = b + now->destination_count;
    enum err e = ERR_OK;
    while (e == ERR_OK && (a < a_end || b < b_end)) {
        bool only_a = b == b_end || (a < a_end && a->destination < b->destination);
        bool only_b = a == a_end || (b < b_end && b->destination < a->destination);
        bool moved = !only_a && !only_b && a->due_ms != b->due_ms;
        bool same = !only_a && !only_b && !moved && a->recipients == b->recipients;
        if (only_a || moved)
            e = due_row_change(c, m, a, old->arrival_ms, false);
        if (!only_a && !same && e == ERR_OK)
            e = due_row_change(c, m, b, now->arrival_ms, true);
        a += !only_b;
        b += !only_a;
    }
    return e;
}

static void counts_change(struct counts_row *n, const struct message_view *v, uint64_t by)
{
    n->messages += by;
    n->recipients += by * v->recipients;
    n->bytes += by * v->body_bytes;
    *(v->state == INDEX_HOLD ? &n->hold : v->attempts ? &n->deferred : &n->active) += by;
}

/* What follows from a message, from how it was to how it is; NULL: it was not, or is not any more. */
static enum err message_rows_change(struct core *c, const struct message *old, const struct message *now)
{
    struct message_view was = {0}, is = {0};
    const struct message *m = now ? now : old;
    uint8_t buffer[SMALL_VALUE_BYTES];
    if (old) {
        message_look(old, &was, c->destinations_old);
        counts_change(&c->batch.counts, &was, UINT64_MAX); /* unsigned: minus one */
    }
    if (now) {
        message_look(now, &is, c->destinations);
        counts_change(&c->batch.counts, &is, 1);
    }
    enum err e = due_rows_change(c, m, &was, &is);
    struct key a = key_arrival(old ? was.arrival_ms : is.arrival_ms, m->qid, m->digest); /* never changes */
    if (e == ERR_OK && !old)
        e = row_put(c, &a, value_seal(&a, buffer, NULL, 0));
    if (e == ERR_OK && !now)
        e = row_delete(c, &a);
    if (e == ERR_OK && old)
        e = batch_count_message(c, old, -1);
    return e == ERR_OK && now ? batch_count_message(c, now, 1) : e;
}

/* Call before a message changes. */
void item_change(struct item *it)
{
    if (it->stored && !it->changed)
        it->before = it->m;
    it->changed = true;
}

static enum err item_write(struct core *c, const struct item *it)
{
    struct key k = key_message(it->m.qid, it->m.digest);
    if (it->stored ? !it->changed : it->dead)
        return ERR_OK;
    enum err e = it->dead ? row_delete(c, &k) : row_put(c, &k, message_encode(&it->m, &k, c->value));
    if (e != ERR_OK)
        return e;
    return message_rows_change(c, it->stored ? &it->before : NULL, it->dead ? NULL : &it->m);
}

enum err group_load_items(struct group *g)
{
    struct core *c = g->core;
    struct key from = key_messages(g->qid);
    struct bytes key, value;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    while (e == ERR_OK && key_begins(key, &from) && g->item_count < ITEMS_MAX) {
        struct item *it = &g->items[g->item_count];
        it->row = malloc(value.len + 1);
        if (!it->row)
            return ERR_NO_MEMORY;
        memcpy(it->row, value.at, value.len);
        g->item_count++; /* from here on group_fini frees it */
        e = message_decode(key, (struct bytes){it->row, value.len}, &it->m);
        if (e != ERR_OK)
            return e;
        it->stored = true;
        e = store_next(c->store, &key, &value);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err group_load_side(struct group *g)
{
    struct key k = key_side(g->qid);
    struct bytes value;
    enum err e = store_get(g->core->store, key_bytes(&k), &value);
    if (e != ERR_OK)
        return e == ERR_NOT_FOUND ? ERR_OK : e;
    g->side_row = malloc(value.len + 1);
    if (!g->side_row)
        return ERR_NO_MEMORY;
    memcpy(g->side_row, value.at, value.len);
    g->side_stored = g->side_there = true;
    return results_decode(key_bytes(&k), (struct bytes){g->side_row, value.len}, &g->side.results);
}

enum err group_load(struct group *g)
{
    enum err e = group_load_items(g);
    if (e == ERR_OK && g->core->replaying)
        e = tombs_load(g->core, g->qid, &g->tombs);
    return e == ERR_OK && g->core->replaying ? group_load_side(g) : e;
}

void group_fini(struct group *g)
{
    for (uint32_t i = 0; i < g->item_count; i++) {
        free(g->items[i].row);
        free(g->items[i].results);
    }
    free(g->tombs.at);
    free(g->side.bytes);
    free(g->side_row);
    free(g->chunks);
}

static enum err chunk_write(struct group *g, const struct chunk_op *op)
{
    struct core *c = g->core;
    struct key k = key_chunk(g->qid, op->number);
    struct bytes value;
    struct chunk_row old;
    uint8_t buffer[SMALL_VALUE_BYTES];
    enum err e = store_get(c->store, key_bytes(&k), &value);
    if (e == ERR_NOT_FOUND && op->row.moved && !c->replaying)
        return ERR_OK;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    if (e == ERR_OK) {
        if ((e = chunk_decode(key_bytes(&k), value, &old)) != ERR_OK)
            return e;
        if (!digest_equal(old.digest, op->row.digest))
            batch_conflict(c, g->qid, op->row.place);
        bool wins = op->row.moved;
        if (c->replaying)
            wins = place_wins(c, &op->row.place, op->row.moved, &old.place, old.moved);
        if (!wins)
            return ERR_OK;
        if ((e = batch_count_chunk(c, &old, -1)) != ERR_OK)
            return e;
    }
    e = row_put(c, &k, chunk_encode(&op->row, &k, buffer));
    return e == ERR_OK ? batch_count_chunk(c, &op->row, 1) : e;
}

enum err apply_drop_chunks(struct core *c, struct queue_id qid)
{
    struct key from = key_chunk(qid, 0);
    from.len = 17;
    for (;;) {
        struct bytes key, value;
        struct chunk_row row;
        enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
        if (e == ERR_NOT_FOUND || (e == ERR_OK && !key_begins(key, &from)))
            return ERR_OK;
        struct key k = key_chunk(qid, key_u32(key, 17));
        if (e == ERR_OK)
            e = chunk_decode(key, value, &row);
        if (e == ERR_OK)
            e = batch_count_chunk(c, &row, -1);
        if (e == ERR_OK)
            e = row_delete(c, &k);
        if (e != ERR_OK)
            return e;
    }
}

enum err group_write(struct group *g)
{
    struct core *c = g->core;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < g->item_count && e == ERR_OK; i++) {
        g->had_chunks = g->had_chunks || g->items[i].m.chunk_count > 0;
        e = item_write(c, &g->items[i]);
    }
    if (e == ERR_OK)
        e = tombs_put(c, g->qid, &g->tombs);
    struct key side = key_side(g->qid);
    if (e == ERR_OK && g->side_changed && g->side_there)
        e = row_put(c, &side, results_encode(&g->side.results, &side, c->value));
    else if (e == ERR_OK && g->side_stored && !g->side_there)
        e = row_delete(c, &side);
    if (e == ERR_OK && g->purge && g->had_chunks)
        e = apply_drop_chunks(c, g->qid);
    for (uint32_t i = 0; i < g->chunk_count && e == ERR_OK; i++)
        e = chunk_write(g, &g->chunks[i]);
    return e;
}
