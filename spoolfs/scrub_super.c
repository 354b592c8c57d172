/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: verifying every superblock copy of every member in service.
 *
 *   member, copy read -> good and present | damaged, or valid and old: noted -> next copy ... -> all written anew
 *   -> the members in question once more: repaired | stays bad
 *
 * Invariants: SUP-3: no update's write overlaps a read of ours (scrub_reads_superblock), late ones included. */
#include "scrub.h"

#include <stdlib.h>
#include <string.h>

struct super_read {
    struct member_op op;
    struct link link;              /* in scrub.super_reads */
    struct scrub *scrub;           /* NULL: late, the tour went on */
    uint8_t *bytes;
};

bool scrub_reads_superblock(const struct pool *p, const struct member *m)
{
    if (!p->scrub)
        return false;
    LINK_EACH(l, &p->scrub->super_reads)
        if (CONTAINER_OF(l, struct super_read, link)->op.member == m)
            return true;
    return false;
}

static void super_read_free(struct super_read *r)
{
    link_remove(&r->link);
    free(r->bytes);
    free(r);
}

void super_tour_fini(struct scrub *c)
{
    LINK_EACH_SAFE(l, next, &c->super_reads)
        super_read_free(CONTAINER_OF(l, struct super_read, link));
}

static const struct segment_id no_segment;

static uint64_t super_offset(const struct scrub *c)
{
    return superblock_offset(c->pool->members[c->super.member].member_bytes, c->super.copy);
}

static void super_judge(struct scrub *c, struct member *m, const struct super_read *r)
{
    struct pool *p = c->pool;
    struct superblock s;
    enum err e = r->op.op.result;
    if (e == ERR_OK)
        e = superblock_decode(r->bytes, &s);
    if (e == ERR_OK && (s.copy != c->super.copy || !uuid_equal(s.member, m->uuid) || !uuid_equal(s.pool, p->uuid) ||
                        s.epoch != p->epoch || s.update != p->update))
        e = ERR_IDENTITY; /* of another place, or valid and old */
    if (e == ERR_OK)
        return;
    if (c->super.again) {
        report_outcome(c, SCRUB_SUPERBLOCK, m, no_segment, super_offset(c), SCRUB_STAYS_BAD);
        return;
    }
    struct scrub_found f = {.kind = SCRUB_SUPERBLOCK, .slot = UINT32_MAX, .offset = super_offset(c),
                            .blocks = 1, .fault = e == ERR_NOT_FOUND || e == ERR_VERSION ? ERR_CORRUPT : e};
    report_found(c, m, &f);
    c->super.bad_mask |= 1u << m->number;
}

static void super_on_read(struct member_op *mo)
{
    struct super_read *r = mo->owner;
    struct scrub *c = r->scrub;
    struct member *m = mo->member;
    struct pool *p = m->pool;
    bool gone = mo->op.result == ERR_MEMBER_GONE || mo->op.result == ERR_CANCELED;
    if (c)
        c->super.reading = NULL;
    if (c && c->super.running && !p->super.running && !gone) {
        super_judge(c, m, r);
        c->super.copy++;
    } else if (c && gone) {
        c->super.copy = SUPERBLOCK_COPIES;
    } /* an update began meanwhile: this copy is read once more */
    super_read_free(r);
    if (!scrub_reads_superblock(p, m)) /* a late one of an earlier tour may be out */
        superblock_read_back(p, m);
}

static void super_submit(struct scrub *c)
{
    struct member *m = &c->pool->members[c->super.member];
    struct super_read *r = calloc(1, sizeof *r);
    uint8_t *bytes = sync_buffer(SUPERBLOCK_BYTES);
    if (!r || !bytes) {
        free(r);
        free(bytes);
        return;
    }
    r->scrub = c;
    r->bytes = bytes;
    r->op = (struct member_op){.done = super_on_read, .owner = r};
    r->op.op = (struct io_op){.kind = IO_READ, .class = IO_CLASS_SCRUB, .length = SUPERBLOCK_BYTES, .buffer = bytes,
                              .offset = super_offset(c)};
    link_push(&c->super_reads, &r->link);
    c->super.reading = r;
    c->super.read_ns = io_now_ns(c->pool->io);
    member_submit(m, &r->op);
}

void super_tour_begin(struct scrub *c, uint32_t members_mask)
{
    if (c->super.waiting)
        return; /* all copies are being written anew */
    if (c->super.reading)
        c->super.reading->scrub = NULL;
    c->super = (struct super_tour){.running = true, .only = members_mask};
}

static void super_on_updated(struct superblock_wait *w)
{
    struct scrub *c = w->owner;
    c->super.waiting = false;
    c->super.again = true;
    c->super.member = c->super.copy = 0;
}

static void super_round_over(struct scrub *c)
{
    if (c->super.again) {
        for (uint32_t i = 0; i < MEMBERS_MAX; i++)
            if (c->super.bad_mask & (1u << i))
                report_outcome(c, SCRUB_SUPERBLOCK, &c->pool->members[i], no_segment, UINT64_MAX,
                               member_kept(&c->pool->members[i]) ? SCRUB_REPAIRED : SCRUB_STAYS_BAD);
        c->super.running = false;
    } else if (c->super.bad_mask) {
        c->super.waiting = true;
        c->super.wait = (struct superblock_wait){.done = super_on_updated, .owner = c};
        superblock_update(c->pool, &c->super.wait);
    } else {
        c->super.running = false;
    }
}

/* SCR-2 */
static void super_lose_patience(struct scrub *c)
{
    struct super_tour *t = &c->super;
    if (io_now_ns(c->pool->io) - t->read_ns < LOOK_PATIENCE_NS)
        return;
    t->reading->scrub = NULL;
    t->reading = NULL;
    t->missed |= 1u << t->member; /* once more before the pass ends */
    t->copy = SUPERBLOCK_COPIES;
}

static bool super_skips(const struct super_tour *t)
{
    uint32_t bit = 1u << t->member;
    return !(t->only & bit) || (t->again && !(t->bad_mask & bit));
}

void super_tour_step(struct scrub *c)
{
    struct super_tour *t = &c->super;
    if (t->reading) {
        super_lose_patience(c);
        return;
    }
    if (t->waiting || c->pool->super.running)
        return;
    if (c->pool->stopping || c->paused) {
        t->running = c->supers_done = false;
        return;
    }
    if (t->copy == SUPERBLOCK_COPIES) {
        t->copy = 0;
        t->member++;
    }
    while (t->member < MEMBERS_MAX && (!member_kept(&c->pool->members[t->member]) || super_skips(t))) {
        t->member++; /* what is not in service gets no updates: its copies are old by right */
        t->copy = 0;
    }
    if (t->member >= MEMBERS_MAX)
        super_round_over(c);
    else if (scrub_may(c, 1u << t->member))
        super_submit(c);
}
