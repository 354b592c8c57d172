/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which messages a relay holds. Open addressing over a fixed table of LEASES_MAX * 2 entries.
 * Invariant LEASE-1 (compact.h). segment.leased counts the leases whose message lies there. */
#include "compact.h"

#include <base/planted.h>
#include <stdlib.h>

#define LEASE_BUCKETS (LEASES_MAX * 2u)

struct lease_table {
    uint32_t count, ending_count;
    struct queue_id ending[LEASES_MAX]; /* over, but the index could not be told yet */
    struct { struct queue_id qid; struct segment_id segment; } at[LEASE_BUCKETS];
};

static uint32_t lease_hash(struct queue_id q)
{
    uint64_t h = (q.incarnation ^ q.counter * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(h >> 40) % LEASE_BUCKETS;
}

enum err lease_init(struct pool *p)
{
    p->leases = calloc(1, sizeof *p->leases);
    return p->leases ? ERR_OK : ERR_NO_MEMORY;
}

void lease_fini(struct pool *p)
{
    free(p->leases);
    p->leases = NULL;
}

/* Where the id is, or the empty place it would take. */
static uint32_t lease_find(const struct lease_table *t, struct queue_id q)
{
    uint32_t i = lease_hash(q);
    while (!queue_id_is_none(t->at[i].qid) && !queue_id_equal(t->at[i].qid, q))
        i = (i + 1) % LEASE_BUCKETS;
    return i;
}

bool spool_leased(struct pool *p, struct queue_id qid)
{
    return !queue_id_is_none(p->leases->at[lease_find(p->leases, qid)].qid);
}

struct segment_id lease_segment(const struct pool *p, struct queue_id qid)
{
    return p->leases->at[lease_find(p->leases, qid)].segment;
}

enum err spool_lease(struct pool *p, struct queue_id qid, struct segment_id segment)
{
    struct lease_table *t = p->leases;
    uint32_t i = lease_find(t, qid);
    if (!queue_id_is_none(t->at[i].qid))
        return ERR_EXISTS;
    struct segment *s = segment_find(p, segment);
    if (t->count == LEASES_MAX || (s && s->compacting && !PLANTED(compact_under_lease)))
        return ERR_BUSY;
    if (!s)
        return ERR_NOT_FOUND;
    enum err e = p->index ? index_lease(p->index, qid, true) : ERR_OK;
    if (e != ERR_OK)
        return ERR_BUSY;
    t->at[i].qid = qid;
    t->at[i].segment = segment;
    t->count++;
    s->leased++;
    return ERR_OK;
}

void spool_lease_end(struct pool *p, struct queue_id qid)
{
    struct lease_table *t = p->leases;
    uint32_t hole = lease_find(t, qid);
    if (queue_id_is_none(t->at[hole].qid))
        return;
    struct segment *s = segment_find(p, t->at[hole].segment);
    if (s) {
        ASSERT(s->leased > 0);
        s->leased--;
    }
    t->count--;
    t->at[hole].qid = (struct queue_id){0};
    t->at[hole].segment = (struct segment_id){0};
    /* close the hole, so that every chain stays unbroken */
    for (uint32_t i = (hole + 1) % LEASE_BUCKETS; !queue_id_is_none(t->at[i].qid); i = (i + 1) % LEASE_BUCKETS) {
        uint32_t home = lease_hash(t->at[i].qid);
        bool stays = hole < i ? home > hole && home <= i : home > hole || home <= i;
        if (stays)
            continue;
        t->at[hole] = t->at[i];
        t->at[i].qid = (struct queue_id){0};
        t->at[i].segment = (struct segment_id){0};
        hole = i;
    }
    if (p->index && index_lease(p->index, qid, false) != ERR_OK && t->ending_count < LEASES_MAX)
        t->ending[t->ending_count++] = qid;
}

void lease_moved(struct pool *p, struct segment *to)
{
    struct lease_table *t = p->leases;
    for (uint32_t i = 0; i < LEASE_BUCKETS; i++) {
        struct segment *s = queue_id_is_none(t->at[i].qid) ? NULL : segment_find(p, t->at[i].segment);
        if (!s || !exchange_holds(p, s))
            continue;
        ASSERT(s->leased > 0);
        s->leased--;
        to->leased++;
        t->at[i].segment = to->id;
    }
}

void lease_step(struct pool *p)
{
    struct lease_table *t = p->leases;
    while (t->ending_count > 0 && p->index) {
        struct queue_id qid = t->ending[t->ending_count - 1];
        if (!spool_leased(p, qid) && index_lease(p->index, qid, false) != ERR_OK)
            return;
        t->ending_count--;
    }
}
