/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: when a segment is dead and how its slots come back.
 *
 *   dead set chosen -> barrier: the index has applied and synced it -> FREED durable -> index told, segment_drop
 *
 * Invariants: RET-1: a segment goes only when it holds nothing live and everything that depends on what it holds is
 * dead or goes with it in the same FREED. RET-2: the index is on stable storage with the state that says so before
 * FREED is written, so an index never claims mail in a freed segment. RET-3: of a set that is too large for one FREED a part
 * goes that is closed under what it depends on: first who waits for nobody, then whole rings. What waits for each other in a
 * ring larger than that is broken up by compaction, which carries the results along. */
#include "compact.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

struct retire {
    struct index_query barrier;
    struct segment_id ids[SEGMENTS_FREED_MAX];
    uint32_t count;
    bool running, more;           /* more: a part of the set is left for the next FREED */
};

void retire_fini(struct pool *p)
{
    free(p->retire);
    p->retire = NULL;
}

/* What no present image can read may be live mail that an absent member holds, or one that refuses to say. */
static bool segment_may_return(const struct pool *p, const struct segment *s)
{
    bool absent = false;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &p->members[s->images[i].member];
        absent = absent || (!member_readable(m) && !m->removed);
    }
    return s->in_doubt || (s->unread && absent);
}

/* What it says of others keeps nothing from coming back: it was moved, there is nothing of the kind in it, or no disk has it any more. */
static bool segment_keeps_nothing(const struct pool *p, const struct segment *s)
{
    return s->compacted || s->chunks_only || segment_given_up(p, s);
}

static bool segment_empty(const struct pool *p, const struct segment *s)
{
    if (s->kind != SEGMENT_MAIL || s->state != SEGMENT_SEALED || s->refs ||
        (s->leased && !PLANTED(compact_under_lease)) || s->compacting || s->repairing ||
        segment_may_return(p, s))
        return false;
    if (s->length <= BLOCK_BYTES)
        return true; /* it never took a frame */
    /* Of `chunks_only` and of what was given up the index says nothing when no frame could be read; what it has not said yet it says
     * before the barrier. */
    return (s->counted || s->chunks_only || segment_given_up(p, s)) && s->fed >= s->length && s->live_messages == 0 &&
           (s->live_chunks == 0 || PLANTED(free_live_chunks) || (PLANTED(compact_drops_chunks) && s->compacted)) &&
           (segment_keeps_nothing(p, s) || !s->deps_overflowed);
}

/* A segment that `s` depends on and that stands `as` in the set; NULL: none. What was compacted, or given up, depends on nobody. */
static const struct segment *retire_dep(struct pool *p, const struct segment *s, const uint8_t *in, enum retire_mark as)
{
    if (segment_keeps_nothing(p, s) || PLANTED(drop_retire_early))
        return NULL;
    for (uint32_t d = 0; d < s->dep_count; d++) {
        const struct segment *dep = segment_find(p, s->deps[d]);
        if (dep && in[segment_index(p, dep)] == as)
            return dep;
    }
    return NULL;
}

/* Members of the set whose deps are neither dead nor in the set fall out, until nothing changes. */
static void retire_close(struct pool *p, uint8_t *in)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < p->segment_used; i++) {
            if (in[i] == RETIRE_IN && retire_dep(p, &p->segments[i], in, RETIRE_OUT)) {
                in[i] = RETIRE_OUT;
                changed = true;
            }
        }
    }
}

/* `first` and all of the set that it depends on, directly or not: they wait for each other. 0: more than `max`. */
static uint32_t retire_ring(struct pool *p, uint8_t *in, uint32_t first, struct segment_id *ids, uint32_t max)
{
    uint32_t count = 1;
    ids[0] = p->segments[first].id;
    in[first] = RETIRE_TAKEN;
    for (uint32_t at = 0; at < count; at++) {
        const struct segment *s = segment_find(p, ids[at]), *dep;
        while ((dep = retire_dep(p, s, in, RETIRE_IN)) != NULL) {
            if (count == max) {
                while (count > 0)
                    in[segment_index(p, segment_find(p, ids[--count]))] = RETIRE_IN;
                return 0;
            }
            in[segment_index(p, dep)] = RETIRE_TAKEN;
            ids[count++] = dep->id;
        }
    }
    return count;
}

uint32_t retire_take(struct pool *p, uint8_t *in, struct segment_id *ids, uint32_t max)
{
    uint32_t count = 0, all = 0;
    for (uint32_t i = 0; i < p->segment_used; i++)
        all += in[i] == RETIRE_IN;
    bool whole = all <= max, changed = true; /* a whole set may go in any order */
    while (changed && count < max) {
        changed = false;
        for (uint32_t i = 0; i < p->segment_used && count < max; i++) {
            if (in[i] != RETIRE_IN || (!whole && retire_dep(p, &p->segments[i], in, RETIRE_IN)))
                continue;
            in[i] = RETIRE_TAKEN;
            ids[count++] = p->segments[i].id;
            changed = true;
        }
    }
    for (uint32_t i = 0; i < p->segment_used && count == 0; i++)
        count = in[i] == RETIRE_IN ? retire_ring(p, in, i, ids, max) : 0;
    return count;
}

/* Of the largest set of empty segments whose deps are dead or in the set, as many as one FREED takes. */
static uint32_t retire_choose(struct pool *p, struct retire *r)
{
    uint8_t *in = calloc(p->segment_used + 1u, 1);
    if (!in)
        return 0;
    for (uint32_t i = 0; i < p->segment_used; i++)
        in[i] = segment_empty(p, &p->segments[i]) ? RETIRE_IN : RETIRE_OUT;
    retire_close(p, in);
    r->count = retire_take(p, in, r->ids, SEGMENTS_FREED_MAX);
    r->more = r->count > 0 && memchr(in, RETIRE_IN, p->segment_used);
    free(in);
    return r->count;
}

/* What was chosen before the barrier and still may go by what the index has told until now. */
static uint32_t retire_choose_again(struct pool *p, struct retire *r)
{
    uint8_t *in = calloc(p->segment_used + 1u, 1);
    if (!in)
        return 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct segment *s = segment_find(p, r->ids[i]);
        if (s && segment_empty(p, s))
            in[segment_index(p, s)] = RETIRE_IN;
    }
    retire_close(p, in);
    r->count = retire_take(p, in, r->ids, SEGMENTS_FREED_MAX);
    free(in);
    return r->count;
}

static void retire_on_freed(struct table_group *t, enum err e)
{
    struct pool *p = t->pool;
    struct retire *r = p->retire;
    r->running = false;
    for (uint32_t i = 0; i < r->count; i++) {
        struct segment *s = segment_find(p, r->ids[i]);
        ASSERT(s && s->state == SEGMENT_FREEING);
        if (e == ERR_OK)
            segment_drop(p, s);
        else
            s->state = SEGMENT_SEALED;
    }
    p->dirty_segments += e == ERR_OK && r->more;
    if (e == ERR_OK && p->index && index_freed(p->index, r->ids, r->count) != ERR_OK)
        return; /* its rows are empty and are dropped at the next mount */
}

/* RET-1 holds by what the index knew at the barrier: it was told of more since the set was chosen. */
static void retire_on_barrier(struct index_query *q, enum err e)
{
    struct pool *p = q->owner;
    struct retire *r = p->retire;
    index_query_fini(q);
    r->running = false;
    if (e != ERR_OK || p->stopping || retire_choose_again(p, r) == 0 ||
        (!PLANTED(reuse_before_freed) && table_submit_freed(p, r->ids, r->count, retire_on_freed) != ERR_OK))
        return;
    r->running = true;
    for (uint32_t i = 0; i < r->count; i++)
        segment_find(p, r->ids[i])->state = SEGMENT_FREEING;
    if (PLANTED(reuse_before_freed))
        retire_on_freed(&(struct table_group){.pool = p}, ERR_OK);
}

void retire_step(struct pool *p)
{
    if (!p->retire)
        p->retire = calloc(1, sizeof *p->retire);
    struct retire *r = p->retire;
    if (!r || r->running || p->dirty_segments == 0 || !p->index_live || p->stopping)
        return;
    for (uint32_t i = 0; i < p->segment_used; i++)
        p->segments[i].dirty = false;
    p->dirty_segments = 0;
    if (retire_choose(p, r) == 0)
        return;
    r->running = true;
    r->barrier = (struct index_query){.kind = INDEX_BARRIER, .sync = true, .done = retire_on_barrier, .owner = p};
    index_query(p->index, &r->barrier);
}
