/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading new frames back 30 to 60 s after their commit, while siblings, and often the sender, still have them.
 *
 *   committed -> range noted -> READBACK_AGE_NS -> looked at on all images -> bad: evidence, and repair once it is sealed
 *                                             -> older than READBACK_LATE_NS: skipped, counted; the pass comes to it
 *
 * Invariants: RBK-1: its reads take at most READBACK_PERCENT of the time. RBK-2: what waits is bounded. */
#include "scrub.h"

#include <stdlib.h>
#include <string.h>

#define READBACK_AGE_NS (30 * NS_PER_S)
#define READBACK_LATE_NS (60 * NS_PER_S)
#define READBACK_PERCENT 10u
#define READBACK_RANGES_MAX 4096u           /* a minute of full frames at 68 MB/s; at 10 % of a drive more is not read */
#define READBACK_JOIN_NS (5 * NS_PER_S)     /* frames of one segment that are read back together */

struct range {
    struct segment_id segment;
    uint64_t from, to, committed_ns;
};

struct readback {
    struct range ranges[READBACK_RANGES_MAX]; /* a ring */
    uint32_t first, count;
    struct look look;
};

static struct readback *readback_of(struct scrub *c)
{
    if (!c->readback)
        c->readback = calloc(1, sizeof *c->readback);
    return c->readback;
}

static struct range *range_at(struct readback *r, uint32_t n)
{
    return &r->ranges[(r->first + n) % READBACK_RANGES_MAX];
}

static void range_drop(struct scrub *c, struct readback *r, bool skipped)
{
    const struct range *oldest = range_at(r, 0);
    c->readback_skipped += skipped ? oldest->to - oldest->from : 0;
    r->first = (r->first + 1) % READBACK_RANGES_MAX;
    r->count--;
}

void scrub_note_commit(struct pool *p, const struct append_frame *f)
{
    struct scrub *c = scrub_of(p);
    struct readback *r = c ? readback_of(c) : NULL;
    if (!r)
        return;
    uint64_t now = io_now_ns(p->io), to = f->offset + (uint64_t)f->blocks * BLOCK_BYTES;
    struct range *last = r->count ? range_at(r, r->count - 1) : NULL;
    if (last && segment_id_equal(last->segment, f->segment->id) && last->to == f->offset &&
        now - last->committed_ns < READBACK_JOIN_NS && to - last->from <= FRAME_BYTES_MAX) {
        last->to = to;
        return;
    }
    if (r->count == READBACK_RANGES_MAX)
        range_drop(c, r, true);
    uint64_t from = f->offset == BLOCK_BYTES ? 0 : f->offset; /* with the image header before the first */
    *range_at(r, r->count++) = (struct range){.segment = f->segment->id, .from = from, .to = to, .committed_ns = now};
}

static void readback_over(struct look *l)
{
    struct scrub *c = l->scrub;
    c->readback_bytes += l->dropped ? 0 : l->end;
    for (uint32_t i = 0; i < l->count; i++)
        if (l->bad & (1u << i))
            scrub_note_fault(c->pool, l->segment, i);
    look_free_windows(l);
}

void readback_step(struct scrub *c)
{
    struct readback *r = c->readback;
    if (!r)
        return;
    look_step(&r->look);
    uint64_t now = io_now_ns(c->pool->io);
    if (r->look.running || c->paused || c->pool->stopping || now < r->look.next_ns) /* RBK-1 */
        return;
    while (r->count && now - range_at(r, 0)->committed_ns > READBACK_LATE_NS)
        range_drop(c, r, true);
    if (r->count == 0 || now - range_at(r, 0)->committed_ns < READBACK_AGE_NS)
        return;
    struct range next = *range_at(r, 0);
    range_drop(c, r, false);
    struct segment *s = segment_find(c->pool, next.segment);
    if (!s || s->compacting || (s->state != SEGMENT_OPEN && s->state != SEGMENT_CLOSED && s->state != SEGMENT_SEALED) ||
        next.to > s->length)
        return; /* freed, or on its way: nobody will read it again */
    r->look.scrub = c;
    r->look.over = readback_over;
    r->look.duty_percent = READBACK_PERCENT;
    look_begin(&r->look, s, next.from, next.to);
}

bool readback_idle(const struct scrub *c)
{
    return !c->readback || !c->readback->look.running;
}

void readback_fini(struct scrub *c)
{
    if (c->readback)
        look_fini(&c->readback->look);
    free(c->readback);
    c->readback = NULL;
}
