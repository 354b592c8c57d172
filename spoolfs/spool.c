/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the door for mail: admission and the choice of an appender. What happens behind it is commit.c. */
#include "engine.h"

#include <base/planted.h>

/* Committed bytes the index may lag behind in a running pool (a replay at mount does not count). */
#define INDEX_LAG_BYTES_MAX (512 * MIB)

static uint64_t index_lag(const struct pool *p)
{
    uint64_t lag = 0;
    for (uint32_t i = 1; i < p->appender_count; i++) {
        const struct segment *s = p->appenders[i].segment;
        lag += s ? s->length - s->fed : 0;
    }
    return lag;
}

static enum err spool_admits(struct pool *p, const struct spool_group *g)
{
    enum err why;
    if (p->read_only)
        return ERR_READ_ONLY;
    if (p->stopping)
        return ERR_STOPPING;
    if (pool_domains_usable(p) < p->config.min_copies)
        return ERR_BELOW_POLICY;
    for (uint32_t i = 0; i < g->count && g->class == SPOOL_RESULT; i++) { /* LEASE-1, for results without a lease */
        const struct segment *s = segment_find(p, g->records[i].message_segment);
        if (s && s->compacting && !PLANTED(compact_under_lease))
            return ERR_BUSY;
    }
    if (g->class != SPOOL_NEW_MAIL)
        return ERR_OK;
    if (p->headroom_full)
        return ERR_FULL;
    if (p->index_ready && !p->index_live && index_lag(p) > INDEX_LAG_BYTES_MAX)
        return ERR_INDEX_LAG;
    for (uint32_t i = 1; i < p->appender_count; i++) /* room in an open segment is room that is already taken */
        if (p->appenders[i].next || (p->appenders[i].segment && p->appenders[i].segment->length + FRAME_BYTES_MAX <=
                                                                    p->slot_bytes))
            return ERR_OK;
    return placement_possible(p, SPOOL_NEW_MAIL, 0, &why) ? ERR_OK : why;
}

/* An idle appender commits at once; else the one with the least gathered. */
static struct appender *spool_choose(struct pool *p)
{
    struct appender *best = NULL;
    uint64_t best_score = UINT64_MAX;
    for (uint32_t i = 1; i < p->appender_count; i++) {
        struct appender *a = &p->appenders[i];
        uint64_t score = (a->flight ? FRAME_BYTES_MAX : 0) + (a->building ? a->building->frame.used : 0);
        if (score < best_score) {
            best = a;
            best_score = score;
        }
    }
    return best;
}

enum err spool_submit(struct pool *p, struct spool_group *g)
{
    enum err e = spool_admits(p, g);
    if (e != ERR_OK)
        return e;
    g->link = (struct link){0};
    struct appender *first = spool_choose(p);
    e = commit_submit(first, g);
    for (uint32_t i = 1; i < p->appender_count && e == ERR_BUSY; i++)
        if (&p->appenders[i] != first)
            e = commit_submit(&p->appenders[i], g);
    if (e == ERR_BUSY)
        p->room_wanted = true;
    return e;
}

void spool_on_room(struct pool *p, void (*on_room)(void *owner), void *owner)
{
    p->on_room = on_room;
    p->on_room_owner = owner;
}

struct queue_id spool_lend_queue_ids(struct pool *p, uint32_t count)
{
    struct queue_id first = {PLANTED(reuse_queue_id) ? 1 : p->incarnation, p->next_queue + 1};
    ASSERT(p->next_queue + count <= QUEUE_ID_COUNTER_MAX);
    p->next_queue += count;
    return first;
}

struct index *spool_index(struct pool *p)
{
    return p->index;
}

bool spool_index_ready(struct pool *p)
{
    return p->index_ready;
}

uint32_t spool_images(struct pool *p, struct segment_id segment, bool *below_out)
{
    const struct segment *s = segment_find(p, segment);
    uint32_t images = s ? segment_images_good(p, s) : 0;
    *below_out = images < p->config.copies;
    return images;
}

uint64_t spool_due_after_ms(struct pool *p)
{
    return p->due_after_ms;
}

void spool_abort(struct pool *p, struct queue_id qid)
{
    if (p->index && index_abort(p->index, qid) != ERR_OK)
        return; /* the next mount finds CHUNKs without a MESSAGE and drops them */
}
