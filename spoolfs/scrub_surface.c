/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading free slots, slowly: a spool is often nearly empty, and the next write deserves to be safe.
 *
 *   free slot read piece by piece -> good -> next
 *        | a block cannot be read: the slot is taken out, zeros are written there and read back
 *        +-> good again (the drive put another sector in its place): free | stays bad: retired
 *
 * Invariants: SUR-1: only slots that are free and have nothing outstanding; while a read is out none can claim them
 * (SEG-2). SUR-2: a slot under trial belongs to nobody: no segment can be opened there. */
#include "images.h"
#include "scrub.h"

#include <stdlib.h>
#include <string.h>

#define SURFACE_PIECE ((uint32_t)(256 * KIB)) /* large enough to be cheap, small enough that a commit hardly waits for it */
#define SURFACE_INTERVALS 7u                  /* a tour of the free slots takes so many scrub intervals: a week */
#define SURFACE_PACE_MIN (UINT64_C(64) * KIB) /* bytes a second */

struct surface_read {
    struct scrub *scrub;           /* NULL: late, the tour went on */
    struct link link;              /* in scrub.late_surfaces */
    struct block_read read;
    struct member_op op;
    struct member *member;
    uint32_t slot, block;          /* block: of the piece, under trial */
    uint64_t at;                   /* of the piece in the slot */
    bool trial, zeroed, failed;
    bool careful;                  /* buffered: a failed write would fail the member; only read once more */
    uint64_t unread[FRAME_BLOCK_WORDS];
    uint64_t since_ns;
    uint8_t *bytes, *zeros;
};

struct surface {
    struct surface_read *out;
    uint32_t member;
    uint32_t slot[MEMBERS_MAX];
    uint64_t at[MEMBERS_MAX], next_ns;
};

static void surface_read_free(struct surface_read *r)
{
    free(r->bytes);
    free(r->zeros);
    free(r);
}

/* SUR-2 */
static void slot_set_aside(struct member *m, uint32_t slot)
{
    ASSERT(m->slot_owner[slot] == 0 && m->slots_free > 0);
    m->slot_owner[slot] = SLOT_RETIRED;
    m->slots_free--;
}

static void slot_give_back(struct member *m, uint32_t slot)
{
    ASSERT(m->slot_owner[slot] == SLOT_RETIRED);
    m->slot_owner[slot] = 0;
    m->slots_free++;
}

static void surface_over(struct surface_read *r)
{
    struct scrub *c = r->scrub;
    if (!c) {
        link_remove(&r->link);
        surface_read_free(r); /* a slot under trial on a member that does not answer stays set aside until the next mount */
        return;
    }
    if (r->trial) {
        enum scrub_outcome o = r->failed ? SCRUB_STAYS_BAD : SCRUB_REPAIRED;
        report_outcome(c, SCRUB_FREE_SLOT, r->member, (struct segment_id){0}, r->at, o);
        if (r->failed) {
            slot_retire(r->member, r->slot);
            pool_event(c->pool, EVENT_slot_retired, r->member, "free slot %u: a place near %llu stays bad; the slot is not used",
                       r->slot, (unsigned long long)r->at);
        } else {
            slot_give_back(r->member, r->slot);
        }
    }
    c->surface->out = NULL;
    surface_read_free(r);
}

/* --- trial --- */

static void surface_trial_next(struct surface_read *r);

static void surface_on_trial(struct member_op *mo)
{
    struct surface_read *r = mo->owner;
    bool failed = mo->op.result != ERR_OK;
    bool back = mo->op.kind == IO_READ;
    if (back && !failed && !r->careful)
        failed = memcmp(r->bytes, r->zeros, BLOCK_BYTES) != 0;
    r->failed = r->failed || failed;
    if (r->failed || !r->scrub) {
        surface_over(r);
        return;
    }
    r->zeroed = !back;
    r->block += back;
    surface_trial_next(r);
}

static void surface_trial_next(struct surface_read *r)
{
    uint32_t blocks = r->read.length / BLOCK_BYTES;
    while (r->block < blocks && !((r->unread[r->block / 64] >> (r->block % 64)) & 1))
        r->block++;
    if (r->block == blocks) {
        surface_over(r);
        return;
    }
    bool read = r->zeroed || r->careful;
    r->op = (struct member_op){.done = surface_on_trial, .owner = r};
    r->op.op = (struct io_op){.kind = read ? IO_READ : IO_WRITE, .class = IO_CLASS_SCRUB, .durable = !read,
                              .length = BLOCK_BYTES, .buffer = read ? r->bytes : r->zeros,
                              .offset = r->read.offset + (uint64_t)r->block * BLOCK_BYTES};
    r->since_ns = io_now_ns(r->member->pool->io);
    member_submit(r->member, &r->op);
}

static void surface_on_read(struct block_read *b)
{
    struct surface_read *r = b->owner;
    struct scrub *c = r->scrub;
    bool there = b->result == ERR_OK || b->result == ERR_MEDIA;
    if (c && there)
        c->surface_bytes += b->length;
    if (!c || !there || b->bad_blocks == 0 || !member_kept(r->member)) {
        surface_over(r);
        return;
    }
    r->trial = true;
    r->careful = io_target(c->pool->io, r->member->target)->buffered;
    slot_set_aside(r->member, r->slot); /* it was free: our read kept everybody else out (SUR-1) */
    struct scrub_found f = {.kind = SCRUB_FREE_SLOT, .slot = r->slot, .offset = r->at, .blocks = b->bad_blocks,
                            .fault = ERR_MEDIA, .outcome = SCRUB_OPEN};
    report_found(c, r->member, &f);
    surface_trial_next(r);
}

/* --- the tour --- */

static bool slot_is_free(const struct member *m, uint32_t slot)
{
    return m->slot_owner[slot] == 0 && m->slot_busy[slot] == 0;
}

/* The next free piece of the next member; false: no free slot there. */
static bool surface_next(struct surface *s, const struct member *m)
{
    uint32_t n = m->number;
    for (uint32_t tries = 0; tries <= m->slot_count; tries++) {
        if (s->slot[n] < m->slot_count && s->at[n] < m->slot_bytes && slot_is_free(m, s->slot[n]))
            return true;
        s->slot[n] = s->slot[n] + 1 < m->slot_count ? s->slot[n] + 1 : 0;
        s->at[n] = 0;
    }
    return false;
}

static struct member *surface_choose(struct scrub *c)
{
    struct surface *s = c->surface;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        s->member = (s->member + 1) % MEMBERS_MAX;
        struct member *m = &c->pool->members[s->member];
        if (member_kept(m) && m->slot_owner && surface_next(s, m))
            return m;
    }
    return NULL;
}

static uint64_t surface_pace(const struct pool *p)
{
    uint64_t bytes = 0, seconds = scrub_interval_ns(p) / NS_PER_S * SURFACE_INTERVALS + 1;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        bytes += p->members[i].used ? p->members[i].slots_free * p->members[i].slot_bytes : 0;
    return bytes / seconds > SURFACE_PACE_MIN ? bytes / seconds : SURFACE_PACE_MIN;
}

static void surface_begin(struct scrub *c, struct member *m)
{
    struct surface *s = c->surface;
    struct surface_read *r = calloc(1, sizeof *r);
    if (!r)
        return;
    r->bytes = sync_buffer(SURFACE_PIECE);
    r->zeros = sync_buffer(BLOCK_BYTES);
    if (!r->bytes || !r->zeros) {
        surface_read_free(r);
        return;
    }
    memset(r->zeros, 0, BLOCK_BYTES);
    uint64_t left = m->slot_bytes - s->at[m->number];
    r->scrub = c;
    r->member = m;
    r->slot = s->slot[m->number];
    r->at = s->at[m->number];
    r->since_ns = io_now_ns(c->pool->io);
    r->read = (struct block_read){.member = m, .class = IO_CLASS_SCRUB, .buffer = r->bytes, .unread = r->unread,
                                  .length = left < SURFACE_PIECE ? (uint32_t)left : SURFACE_PIECE,
                                  .offset = m->slots_offset + r->slot * m->slot_bytes + r->at,
                                  .done = surface_on_read, .owner = r};
    s->at[m->number] += r->read.length;
    s->next_ns = r->since_ns + r->read.length * NS_PER_S / surface_pace(c->pool);
    s->out = r;
    block_read_start(&r->read);
}

/* Each process begins elsewhere: restarts do not keep the tour at the first slots. */
static struct surface *surface_of(struct scrub *c)
{
    if (c->surface)
        return c->surface;
    c->surface = calloc(1, sizeof *c->surface);
    for (uint32_t i = 0; c->surface && i < MEMBERS_MAX; i++)
        if (c->pool->members[i].slot_count)
            c->surface->slot[i] = (uint32_t)(c->pool->incarnation >> 32) % c->pool->members[i].slot_count;
    return c->surface;
}

void surface_step(struct scrub *c)
{
    struct surface *s = surface_of(c);
    uint64_t now = io_now_ns(c->pool->io);
    if (s && s->out && now - s->out->since_ns >= LOOK_PATIENCE_NS) { /* SCR-2 */
        s->out->scrub = NULL;
        link_push(&c->late_surfaces, &s->out->link);
        s->out = NULL;
    }
    if (!s || s->out || c->paused || c->pool->stopping || now < s->next_ns || !link_empty(&c->late_surfaces))
        return;
    struct member *m = surface_choose(c);
    if (!m)
        s->next_ns = now + NS_PER_S;
    else if (scrub_may(c, 1u << m->number))
        surface_begin(c, m);
}

bool surface_idle(const struct scrub *c)
{
    return !c->surface || !c->surface->out;
}

void surface_fini(struct scrub *c)
{
    struct link *l;
    while ((l = link_pop(&c->late_surfaces)) != NULL)
        surface_read_free(CONTAINER_OF(l, struct surface_read, link));
    if (c->surface && c->surface->out)
        surface_read_free(c->surface->out);
    free(c->surface);
    c->surface = NULL;
}
