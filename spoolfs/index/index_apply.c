/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what records mean. All pending records of one queue id are applied to its messages in memory (index_group.c), then
 * only what came out is written: a MESSAGE and its RETIRE in one batch leave no row behind, and that is what makes mail that
 * is delivered at once cheap.
 *
 *   rows of the queue id -> items [group_load] -> each record in order -> changed items taken out and put back [group_write]
 *
 * IDX-2 holds by these rules. During a replay there is a tombstone for each segment that a RETIRE of the queue id is
 * about, and for each segment that holds a copy of a message besides the place it is known by. It knows which messages
 * lie there. A RETIRE hits the messages in its segment at once; when the queue id has one message only, it hits that
 * one at the end of the replay, wherever it lies (index_replay.c). Of two places of one message the one whose frame
 * has the higher sequence wins. Messages with one queue id and different digests are all
 * kept, and lose the results that came before: a duplicate is better than a loss. */
#include "index_group.h"

#include <base/planted.h>
#include <stdlib.h>

/* --- MESSAGE --- */

/* The latest copy: what a RETIRE says keeps away every copy made before the one it is about, never a later one. */
bool place_wins(const struct core *c, const struct place *a, bool a_moved, const struct place *b, bool b_moved)
{
    if (a->sequence != b->sequence)
        return a->sequence > b->sequence;
    bool a_new = a->segment.incarnation == c->incarnation, b_new = b->segment.incarnation == c->incarnation;
    if (a_new != b_new)
        return a_new; /* an append under way is known by where its CHUNKs lie (index_replay.c) */
    if (a_moved != b_moved)
        return a_moved;
    const uint64_t x[4] = {a->segment.incarnation, a->segment.counter, a->frame, a->record};
    const uint64_t y[4] = {b->segment.incarnation, b->segment.counter, b->frame, b->record};
    for (uint32_t i = 0; i < 4; i++)
        if (x[i] != y[i])
            return x[i] > y[i];
    return false;
}

static struct item *group_item(struct group *g, struct digest digest)
{
    for (uint32_t i = 0; i < g->item_count; i++)
        if (digest_equal(g->items[i].m.digest, digest))
            return &g->items[i];
    return NULL;
}

static uint32_t group_alive(const struct group *g)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; i < g->item_count; i++)
        alive += !g->items[i].dead;
    return alive;
}

/* With the last message its CHUNKs go, those of this batch first. Not in a replay: another message of this id may still
 * come, and the end of the replay looks. */
static void group_purge(struct group *g)
{
    if (group_alive(g) > 0)
        return;
    g->chunk_count = 0;
    g->purge = true;
}

static void item_in_conflict(struct item *it)
{
    if (it->m.conflict || it->dead)
        return;
    item_change(it);
    it->m.conflict = true;
    it->m.results = (struct results){0};
}

/* Another message of this id is known, alive or hit by a tombstone: what MARKs said cannot be told apart. */
static void group_check_conflict(struct group *g, struct digest digest, const struct place *place)
{
    bool conflict = false;
    for (uint32_t i = 0; i < g->item_count; i++)
        conflict = conflict || (!g->items[i].dead && !digest_equal(g->items[i].m.digest, digest));
    for (uint32_t i = 0; i < g->tombs.count; i++)
        for (uint32_t h = 0; h < g->tombs.at[i].hit_count; h++)
            conflict = conflict || !digest_equal(g->tombs.at[i].hits[h], digest);
    if (!conflict)
        return;
    batch_conflict(g->core, g->qid, *place);
    for (uint32_t i = 0; i < g->item_count; i++)
        item_in_conflict(&g->items[i]);
}

static void item_move(struct item *it, const struct index_record *r)
{
    item_change(it);
    it->m.place = r->place;
    it->m.moved = r->moved;
}

static void item_new(struct group *g, const struct index_record *r)
{
    if (g->item_count == ITEMS_MAX) { /* the log keeps it, and the event says so */
        batch_conflict(g->core, g->qid, r->place);
        return;
    }
    struct item *it = &g->items[g->item_count++];
    *it = (struct item){.m = {.qid = r->qid, .digest = r->digest, .place = r->place, .moved = r->moved,
                              .chunk_count = r->arg, .envelope = r->payload, .envelope_bytes = r->payload_bytes}};
    if (g->side_there) {
        it->m.results = g->side.results; /* its bytes live as long as the group */
        g->side.results = (struct results){0};
        g->side_there = false;
        g->side_changed = true;
    }
    group_check_conflict(g, r->digest, &r->place);
}

static bool tomb_has_hit(const struct tomb *t, struct digest digest)
{
    for (uint32_t i = 0; i < t->hit_count; i++)
        if (digest_equal(t->hits[i], digest))
            return true;
    return false;
}

static void tomb_note_hit(struct tomb *t, struct digest digest)
{
    if (tomb_has_hit(t, digest) || t->hit_count == ITEMS_MAX)
        return;
    t->hits[t->hit_count++] = digest;
    t->changed = true;
}

static struct tomb *group_tomb(struct group *g, struct segment_id about)
{
    struct tomb *t = tombs_about(&g->tombs, about);
    g->no_memory = g->no_memory || !t;
    return t;
}

/* A copy that is not the place the message is known by: a RETIRE may be about it all the same. */
static void group_note_copy(struct group *g, struct segment_id where, struct digest digest)
{
    struct tomb *t = g->core->replaying ? group_tomb(g, where) : NULL;
    if (t)
        tomb_note_hit(t, digest);
}

/* True when a RETIRE is about this message; the tombstone then knows which one it hit. */
static bool tombs_hit(struct group *g, const struct index_record *r)
{
    bool hit = false;
    for (uint32_t i = 0; i < g->tombs.count; i++) {
        struct tomb *t = &g->tombs.at[i];
        if (t->retired && segment_id_equal(t->about, r->place.segment))
            tomb_note_hit(t, r->digest);
        hit = hit || (t->retired && tomb_has_hit(t, r->digest));
    }
    if (hit)
        group_note_copy(g, r->place.segment, r->digest);
    return hit;
}

static void item_die(struct item *it)
{
    if (it->dead)
        return;
    item_change(it);
    it->dead = true;
}

static enum err apply_message(struct group *g, const struct index_record *r)
{
    struct core *c = g->core;
    struct item *it = group_item(g, r->digest);
    if (c->replaying && !PLANTED(resurrect_retired) && tombs_hit(g, r)) {
        group_check_conflict(g, r->digest, &r->place);
        if (it && !it->dead) {
            group_note_copy(g, it->m.place.segment, r->digest);
            item_die(it);
        }
        return ERR_OK;
    }
    if (it && !it->dead) {
        bool same = segment_id_equal(it->m.place.segment, r->place.segment) && it->m.place.frame == r->place.frame &&
                    it->m.place.record == r->place.record;
        bool wins = r->moved;
        if (c->replaying)
            wins = place_wins(c, &r->place, r->moved, &it->m.place, it->m.moved);
        if (same)
            return ERR_OK;
        group_note_copy(g, wins ? it->m.place.segment : r->place.segment, r->digest);
        if (wins)
            item_move(it, r);
        return ERR_OK;
    }
    if (r->moved && !c->replaying) /* it was retired meanwhile */
        return copies_late(c, g->qid, r->message_segment, r->place.segment);
    if (!it)
        item_new(g, r);
    return ERR_OK;
}

/* --- RETIRE, MARK, STATE --- */

static struct segment_id record_about(const struct index_record *r)
{
    return segment_id_is_none(r->message_segment) ? r->place.segment : r->message_segment;
}

static void tomb_add(struct group *g, struct segment_id about, struct segment_id in)
{
    struct tomb *t = group_tomb(g, about);
    bool later = t && (in.incarnation != t->in.incarnation ? in.incarnation > t->in.incarnation : in.counter > t->in.counter);
    if (t && (!t->retired || later)) {
        t->in = in; /* one is enough: it goes when no copy is left, or leaves the RETIRE behind in another */
        t->retired = t->changed = true;
    }
    for (uint32_t i = 0; t && i < g->item_count; i++) {
        struct item *it = &g->items[i];
        bool here = segment_id_equal(it->m.place.segment, about) || tomb_has_hit(t, it->m.digest);
        if (it->dead || !here)
            continue;
        tomb_note_hit(t, it->m.digest);
        group_note_copy(g, it->m.place.segment, it->m.digest);
        item_die(it);
        t = group_tomb(g, about); /* the row may lie elsewhere now */
    }
}

/* Of several messages the first that lies where the record says; else the first. */
static struct item *group_meant(struct group *g, struct segment_id about)
{
    struct item *first = NULL;
    for (uint32_t i = 0; i < g->item_count; i++) {
        struct item *it = &g->items[i];
        if (it->dead)
            continue;
        if (segment_id_equal(it->m.place.segment, about))
            return it;
        first = first ? first : it;
    }
    return first;
}

static enum err apply_retire(struct group *g, const struct index_record *r)
{
    struct core *c = g->core;
    if (c->replaying) {
        tomb_add(g, record_about(r), r->place.segment);
        return ERR_OK;
    }
    struct item *it = group_meant(g, record_about(r));
    if (!it)
        return ERR_OK;
    /* found elsewhere than the RETIRE says: it is needed as long as that place is, too */
    enum err e = batch_dep(c, r->place.segment, it->m.place.segment);
    if (e == ERR_OK)
        e = copies_retired(c, g->qid, r->place.segment);
    item_die(it);
    group_purge(g);
    return e;
}

static enum err apply_mark(struct group *g, const struct index_record *r)
{
    struct core *c = g->core;
    struct item *it = group_meant(g, record_about(r));
    struct results_merged merged;
    if (it && it->m.conflict && (c->replaying || !segment_id_equal(it->m.place.segment, record_about(r))))
        return ERR_OK;
    if (!it && !c->replaying)
        return ERR_OK;
    enum err e = results_merge(c, it ? &it->m.results : &g->side.results, r, &merged);
    if (e != ERR_OK)
        return e;
    if (it) {
        item_change(it);
        it->m.results = merged.results;
        if (merged.bytes) {
            free(it->results);
            it->results = merged.bytes;
        }
    } else {
        g->side.results = merged.results;
        if (merged.bytes) {
            free(g->side.bytes);
            g->side.bytes = merged.bytes;
        }
        g->side_there = g->side_changed = true;
    }
    return ERR_OK;
}

static void apply_state(struct group *g, const struct index_record *r)
{
    if (r->arg < RECORD_STATE_HOLD || r->arg > RECORD_STATE_RETRY)
        return; /* of a later version: says nothing to us */
    for (uint32_t i = 0; i < g->item_count; i++) {
        struct item *it = &g->items[i];
        bool newer_is_known = it->m.results.state_sequence > r->sequence && !PLANTED(replay_order);
        if (it->dead || newer_is_known || (it->m.conflict && g->core->replaying))
            continue;
        item_change(it);
        it->m.results.state = r->arg;
        it->m.results.state_sequence = r->sequence;
    }
    if (group_alive(g) == 0 && g->core->replaying && g->side.results.state_sequence <= r->sequence) {
        g->side.results.state = r->arg;
        g->side.results.state_sequence = r->sequence;
        g->side_there = g->side_changed = true;
    }
}

/* --- CHUNK --- */

static enum err apply_chunk(struct group *g, const struct index_record *r)
{
    if (g->chunk_count == g->chunk_capacity) {
        uint32_t capacity = g->chunk_capacity ? g->chunk_capacity * 2 : 16;
        struct chunk_op *bigger = realloc(g->chunks, capacity * sizeof *bigger);
        if (!bigger)
            return ERR_NO_MEMORY;
        g->chunks = bigger;
        g->chunk_capacity = capacity;
    }
    g->had_chunks = true;
    g->chunks[g->chunk_count++] = (struct chunk_op){
        r->arg, {.place = r->place, .digest = r->digest, .bytes = r->body_bytes, .moved = r->moved}};
    return ERR_OK;
}

/* --- the group --- */

static enum err apply_one(struct group *g, const struct pending_record *p, bool dies)
{
    struct core *c = g->core;
    const struct index_record *r = &p->r;
    if (p->abort) {
        g->had_chunks = true; /* maybe */
        group_purge(g);
        return ERR_OK;
    }
    bool result = r->type == RECORD_MARK || r->type == RECORD_RETIRE || r->type == RECORD_STATE;
    enum err e = result ? batch_dep(c, r->place.segment, r->message_segment) : ERR_OK;
    if (e == ERR_OK && r->type == RECORD_RETIRE && r->moved && !c->replaying)
        e = copies_retired(c, g->qid, r->place.segment);
    if (e != ERR_OK || (result && r->moved && !c->replaying))
        return e; /* a copy: only its place counts */
    switch (r->type) {
    case RECORD_MESSAGE:
        return apply_message(g, r);
    case RECORD_CHUNK:
        return apply_chunk(g, r);
    case RECORD_MARK:
        return dies ? ERR_OK : apply_mark(g, r);
    case RECORD_STATE:
        if (!dies)
            apply_state(g, r);
        return ERR_OK;
    case RECORD_RETIRE:
        return apply_retire(g, r);
    default:
        return ERR_OK;
    }
}

/* The last RETIRE that counts; what results came before it need not be worked out. 0: none. */
static uint32_t group_end(const struct core *c, const struct pending_record *const *records, uint32_t count)
{
    for (uint32_t i = count; i > 0 && !c->replaying; i--)
        if (!records[i - 1]->abort && records[i - 1]->r.type == RECORD_RETIRE && !records[i - 1]->r.moved)
            return i;
    return 0;
}

enum err apply_group(struct core *c, const struct pending_record *const *records, uint32_t count)
{
    struct group g = {.core = c, .qid = records[0]->r.qid};
    enum err e = group_load(&g);
    uint32_t end = g.item_count <= 1 ? group_end(c, records, count) : 0;
    for (uint32_t i = 0; i < count && e == ERR_OK; i++)
        e = apply_one(&g, records[i], i < end);
    e = e == ERR_OK && g.no_memory ? ERR_NO_MEMORY : e;
    if (e == ERR_OK)
        e = group_write(&g);
    group_fini(&g);
    return e;
}

enum err apply_drop(struct core *c, struct queue_id qid, struct digest digest)
{
    struct group g = {.core = c, .qid = qid};
    enum err e = group_load_items(&g);
    struct item *it = e == ERR_OK ? group_item(&g, digest) : NULL;
    if (it)
        item_die(it);
    if (e == ERR_OK)
        e = group_write(&g);
    group_fini(&g);
    return e;
}
