/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the beginning and the end of a replay, and what becomes of rows when segments are freed. What can be long runs
 * in slices, a transaction each; every slice leaves rows that the same call would go on from. */
#include "core.h"

#include <base/assert.h>
#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_IDS 1024u      /* queue ids settled in one transaction */
#define SLICE_ROWS 8192u

/* --- freed --- */

struct freed { const struct segment_id *ids; uint32_t count; bool copies; };

/* Rows (kind, a, b) and their mirror images go; whoever stands on the far side is told again. */
static enum err freed_pairs(struct core *c, char kind, char mirror, struct segment_id a)
{
    struct key from = key_segment(kind, a);
    for (;;) {
        struct bytes key, value;
        struct segment_touched *s;
        enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
        if (e == ERR_NOT_FOUND || (e == ERR_OK && !key_begins(key, &from)))
            return ERR_OK;
        if (e != ERR_OK)
            return e;
        struct segment_id b = key_segment_at(key, 17);
        struct key here = key_pair(kind, a, b), there = key_pair(mirror, b, a);
        e = row_delete(c, &here);
        if (e == ERR_OK)
            e = row_delete(c, &there);
        if (e == ERR_OK && kind == 'q')
            e = batch_segment(c, b, &s);
        if (e != ERR_OK)
            return e;
    }
}

static enum err freed_step(struct core *c, void *arg)
{
    struct freed *f = arg;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < f->count && e == ERR_OK; i++) {
        struct key k = key_segment('s', f->ids[i]);
        e = freed_pairs(c, 'q', 'p', f->ids[i]);
        if (e == ERR_OK)
            e = freed_pairs(c, 'p', 'q', f->ids[i]);
        if (e == ERR_OK)
            e = copies_freed(c, f->ids[i]);
        if (e == ERR_OK)
            e = store_del(c->store, key_bytes(&k));
        if (e == ERR_NOT_FOUND)
            e = ERR_OK;
    }
    for (uint32_t i = 0; i < f->count && e == ERR_OK; i++) /* one of them may have depended on another */
        batch_forget(c, f->ids[i]);
    return e == ERR_OK ? copies_look(c, &f->copies) : e;
}

enum err core_freed(struct core *c, const struct segment_id *ids, uint32_t count)
{
    struct freed f = {ids, count, false};
    enum err e = core_transact(c, freed_step, &f);
    c->copies_known = e == ERR_OK ? f.copies : c->copies_known;
    return e;
}

/* --- begin --- */

static enum err rebuild_step(struct core *c, void *arg)
{
    (void)arg;
    enum err e = store_clear(c->store);
    c->batch.counts = (struct counts_row){0};
    return e == ERR_OK ? core_meta_step(c, NULL) : e;
}

/* From here on it is this mount's: the engine has said whether it goes on with what was there. */
enum err core_replay_begin(struct core *c, bool rebuild)
{
    bool ours = c->kept_by == c->incarnation;
    enum err e = rebuild ? core_transact(c, rebuild_step, NULL) : ours ? ERR_OK : core_transact(c, core_meta_step, NULL);
    if (e == ERR_OK) {
        c->replaying = true;
        c->kept_by = c->incarnation;
    }
    c->copies_known = c->copies_known && !(e == ERR_OK && rebuild);
    c->rebuilding = c->rebuilding || (e == ERR_OK && rebuild);
    return e;
}

/* --- end --- */

struct look { uint32_t messages, meant; struct digest digest; struct segment_id where; bool retired; };

static enum err settle_messages(struct core *c, struct queue_id qid, struct look *l)
{
    struct key messages = key_messages(qid);
    struct bytes key, value;
    enum err e = store_seek(c->store, key_bytes(&messages), &key, &value);
    while (e == ERR_OK && key_begins(key, &messages) && l->messages < 2) {
        struct message m;
        if ((e = message_decode(key, value, &m)) != ERR_OK)
            return e;
        l->digest = m.digest;
        l->where = m.place.segment;
        l->messages++;
        e = store_next(c->store, &key, &value);
    }
    l->meant = l->messages;
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static void settle_tombs(const struct tombs *tombs, struct look *l)
{
    for (uint32_t n = 0; n < tombs->count; n++) {
        const struct tomb *t = &tombs->at[n];
        l->retired = l->retired || t->retired;
        for (uint32_t i = 0; i < t->hit_count; i++)
            l->meant += !digest_equal(t->hits[i], l->digest);
    }
}

/* One message of this id, and every tombstone that hit one hit this: then it is the one that was retired. */
static enum err tomb_settle(struct core *c, struct queue_id qid)
{
    struct key rows = key_tomb(qid, (struct segment_id){0});
    struct tombs tombs = {0};
    struct look l = {0};
    uint32_t ignored;
    rows.len = 17;
    enum err e = settle_messages(c, qid, &l);
    if (e == ERR_OK)
        e = tombs_load(c, qid, &tombs);
    settle_tombs(&tombs, &l);
    if (e == ERR_OK)
        e = row_delete_all(c, &rows, UINT32_MAX, &ignored);
    bool drop = l.retired && l.messages == 1 && l.meant == 1 && !PLANTED(resurrect_retired);
    if (e == ERR_OK)
        e = copies_settle(c, qid, &tombs, drop ? l.where : (struct segment_id){0});
    free(tombs.at);
    if (e == ERR_OK && drop)
        e = apply_drop(c, qid, l.digest);
    bool gone = drop || (l.retired && l.messages == 0);
    return e == ERR_OK && gone && !PLANTED(resurrect_retired) ? apply_drop_chunks(c, qid) : e;
}

static enum err tombs_step(struct core *c, void *arg)
{
    bool *more = arg;
    const struct key kind = key_of('t');
    *more = true;
    for (uint32_t n = 0; n < SLICE_IDS; n++) {
        struct bytes key, value;
        enum err e = store_seek(c->store, key_bytes(&kind), &key, &value);
        *more = e == ERR_OK && key_begins(key, &kind);
        if (!*more)
            return e == ERR_NOT_FOUND ? ERR_OK : e;
        if ((e = tomb_settle(c, key_qid_at(key, 1))) != ERR_OK)
            return e;
    }
    return ERR_OK;
}

static enum err sides_step(struct core *c, void *arg)
{
    bool *more = arg;
    uint32_t count;
    const struct key kind = key_of('k');
    enum err e = row_delete_all(c, &kind, SLICE_ROWS, &count);
    *more = count == SLICE_ROWS;
    return e;
}

/* CHUNKs without a MESSAGE are dead when they are of an earlier mount; of this one, the append may be under way. */
static enum err orphan_look(struct core *c, struct queue_id qid, bool *dead_out)
{
    struct key messages = key_messages(qid), chunks = key_chunk(qid, 0);
    struct bytes key, value;
    struct chunk_row row;
    chunks.len = 17;
    enum err e = store_seek(c->store, key_bytes(&messages), &key, &value);
    *dead_out = !(e == ERR_OK && key_begins(key, &messages)) && (c->incarnation || !c->replayed) && !c->keep_chunks;
    if ((e != ERR_OK && e != ERR_NOT_FOUND) || !*dead_out)
        return e == ERR_NOT_FOUND ? ERR_OK : e;
    e = store_seek(c->store, key_bytes(&chunks), &key, &value);
    while (e == ERR_OK && key_begins(key, &chunks) && *dead_out) {
        if (chunk_decode(key, value, &row) != ERR_OK)
            return ERR_CORRUPT;
        *dead_out = !c->incarnation || row.place.segment.incarnation != c->incarnation;
        e = store_next(c->store, &key, &value);
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

struct orphans { struct key at; bool more; };

static enum err orphans_step(struct core *c, void *arg)
{
    struct orphans *o = arg;
    const struct key kind = key_of('c');
    struct key at = o->at; /* the transaction may run twice */
    bool more = true;
    for (uint32_t n = 0; n < SLICE_IDS; n++) {
        struct bytes key, value;
        bool dead;
        enum err e = store_seek(c->store, key_bytes(&at), &key, &value);
        more = e == ERR_OK && key_begins(key, &kind);
        if (!more && (e == ERR_OK || e == ERR_NOT_FOUND))
            break;
        struct queue_id qid = key_qid_at(key, 1);
        if (e == ERR_OK)
            e = orphan_look(c, qid, &dead);
        if (e == ERR_OK && dead)
            e = apply_drop_chunks(c, qid);
        if (e != ERR_OK)
            return e;
        at = key_chunk(qid, 0);
        at.len = 17;
        at = key_after(&at);
    }
    o->more = more;
    if (!more)
        return ERR_OK;
    c->batch.resume = at;
    return ERR_OK;
}

enum err core_replay_end(struct core *c)
{
    bool more = true;
    enum err e = ERR_OK;
    while (more && e == ERR_OK)
        e = core_transact(c, tombs_step, &more);
    for (more = true; more && e == ERR_OK;)
        e = core_transact(c, sides_step, &more);
    for (struct orphans o = {key_of('c'), true}; o.more && e == ERR_OK; o.at = c->batch.resume)
        e = core_transact(c, orphans_step, &o);
    if (e == ERR_OK) {
        c->replaying = c->rebuilding = false;
        c->replayed = true;
    }
    return e;
}
