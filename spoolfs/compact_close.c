/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which segments become leased no further, so that compaction has a victim in a full pool (design/0016).
 *
 * Invariants: CMP-4: when results find no slot and all that is worth moving is leased - leases end with results, results need slots, slots
 * come from a victim without leases - one segment is `closing`: nothing in it becomes leased, and what ends its leases takes slots of
 * compaction's, which has the exchange behind it. CMP-5: while results find no slot, the last two segments that are worth moving and that
 * nobody holds stay so until they are moved: compaction has a victim, and the exchange its two. Never: ends a lease. */
#include "compact.h"

#define COMPACT_KEEPS_NS (60 * NS_PER_S) /* what is moved, or exchanged, is so within seconds */

static bool results_find_no_slot(struct pool *p)
{
    enum err why;
    return !placement_possible(p, SPOOL_RESULT, 0, &why) && why == ERR_FULL;
}

/* The one with the fewest leases; it stays the one until it is moved, or nobody waits any more. */
static void compact_close_one(struct pool *p)
{
    const struct segment *best = NULL;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        if (!s->leased || !compact_movable(p, s) || !compact_pays(s))
            continue;
        if (segment_id_equal(s->id, p->closing))
            return;
        if (!best || s->leased < best->leased)
            best = s;
    }
    p->closing = best ? best->id : (struct segment_id){0};
}

/* There may be room again without a segment that was freed: a member came. */
void compact_close(struct pool *p, bool has_victim)
{
    enum err why;
    if (p->full_ns && !results_find_no_slot(p))
        p->full_ns = 0;
    p->results_stuck = p->results_stuck && !placement_possible(p, SPOOL_RESULT, 0, &why);
    if (!p->results_stuck)
        p->closing = (struct segment_id){0};
    else if (!has_victim)
        compact_close_one(p);
}

/* CMP-5. Not for ever: should compaction come to nothing, mail is not held up by it. Asked for each lease: what is cheap comes first. */
bool compact_keeps(struct pool *p, const struct segment *s)
{
    if (!compact_pays(s) || !compact_eligible(p, s) || !results_find_no_slot(p))
        return false;
    uint64_t now = io_now_ns(p->io);
    p->full_ns = p->full_ns ? p->full_ns : now;
    if (now - p->full_ns >= COMPACT_KEEPS_NS)
        return false;
    uint32_t others = 0;
    for (uint32_t i = 0; i < p->segment_used && others < 2; i++) {
        const struct segment *o = &p->segments[i];
        others += o != s && compact_pays(o) && compact_eligible(p, o);
    }
    return others < 2;
}
