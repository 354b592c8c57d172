/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: rewriting a frame on images where it is bad, from bytes that were proved whole in the same read.
 *
 *   queued -> write (when nothing else is outstanding on the slot) -> read back -> compare
 *
 * Invariants: REP-1: the source carries the frame's own digest chain: head, checks and every block verified. REP-2: an
 * image under repair is not read (segment.repairing). REP-3: only sealed segments are repaired, so no commit is near.
 * REP-4: a member that is out of service but here (slow, failing, evacuating) is repaired as well, one place at a time, as
 * long as it answers; what stays bad there is made again elsewhere, and a repair that hangs holds up no rebuild. */
#include "images.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

/* A member out of service whose ops are all unanswered for so long is not waited for; as LOOK_PATIENCE_NS. */
#define REPAIR_PATIENCE_NS (20 * NS_PER_S)

struct repair {
    struct link link;
    struct pool *pool;
    struct segment *segment;
    struct image at;              /* where it is written; a rebuild may have given the image another place meanwhile */
    uint64_t offset;
    uint32_t bytes;
    bool started;
    uint8_t *good, *back;
    struct member_op op;
};

bool image_repairing(const struct segment *s, uint32_t image)
{
    return (s->repairing >> image) & 1;
}

bool segment_repair_waits(const struct pool *p, const struct segment *s)
{
    LINK_EACH(l, &p->repairs)
        if (CONTAINER_OF(l, struct repair, link)->segment == s)
            return true;
    return false;
}

bool image_readable(const struct pool *p, const struct segment *s, uint32_t image)
{
    const struct member *m = &p->members[s->images[image].member];
    return member_readable(m) && !image_repairing(s, image) && m->slot_writes[s->images[image].slot] == 0;
}

static void repair_free(struct repair *r)
{
    free(r->good);
    free(r->back);
    free(r);
}

bool member_takes_repairs(const struct member *m)
{
    bool here = m->used && m->present && m->state != MEMBER_FAILED && m->state != MEMBER_ABSENT;
    bool hangs = m->ops > 0 && io_now_ns(m->pool->io) - m->heard_ns >= REPAIR_PATIENCE_NS;
    return member_usable(m) || (here && !hangs);
}

/* REP-2: one that ends before it began opens the image only when no other one writes there. */
static bool repair_writes(const struct pool *p, const struct segment *s, const struct image *at)
{
    bool writes = false;
    LINK_EACH(l, &p->repairs) {
        const struct repair *o = CONTAINER_OF(l, struct repair, link);
        writes = writes || (o->started && o->segment == s && o->at.member == at->member && o->at.slot == at->slot);
    }
    return writes;
}

/* REP-4 */
static bool repair_waits_its_turn(const struct pool *p, const struct member *m)
{
    bool busy = false;
    LINK_EACH(l, &p->repairs) {
        const struct repair *o = CONTAINER_OF(l, struct repair, link);
        busy = busy || (o->started && o->at.member == m->number);
    }
    return busy && !member_usable(m);
}

static void repair_end(struct repair *r, enum err e)
{
    struct pool *p = r->pool;
    struct segment *s = r->segment;
    struct member *m = &p->members[r->at.member];
    uint32_t image = segment_image_at(s, &r->at);
    r->started = false;
    if (image < COPIES_MAX && !repair_writes(p, s, &r->at))
        s->repairing &= (uint8_t)~(1u << image);
    s->refs--;
    if (image == COPIES_MAX) {
        ; /* made again elsewhere meanwhile: nobody reads here any more */
    } else if (e == ERR_OK) {
        m->repaired_blocks += r->bytes / BLOCK_BYTES;
        pool_event(p, EVENT_image_repaired, m, "segment %llu, %u bytes at %llu rewritten and read back",
                   (unsigned long long)s->id.counter, r->bytes, (unsigned long long)r->offset);
    } else {
        s->images[image].bad = s->images[image].bad || e == ERR_CORRUPT || e == ERR_MEDIA || e == ERR_IO;
        s->images[image].holed = s->images[image].holed && !s->images[image].bad; /* no look makes it whole any more */
        pool_event(p, EVENT_frame_corrupt, m, "segment %llu, %llu: repair failed: %s",
                   (unsigned long long)s->id.counter, (unsigned long long)r->offset, err_text(e));
    }
    if (image < COPIES_MAX)
        scrub_note_repair(p, s, image, r->offset, e);
    link_remove(&r->link);
    p->repairs_count--;
    repair_free(r);
}

static void repair_on_back(struct member_op *mo)
{
    struct repair *r = mo->owner;
    enum err e = mo->op.result;
    if (e == ERR_OK && memcmp(r->good, r->back, r->bytes) != 0)
        e = ERR_CORRUPT; /* the place stays bad */
    repair_end(r, e);
}

static void repair_on_write(struct member_op *mo)
{
    struct repair *r = mo->owner;
    if (mo->op.result != ERR_OK) {
        repair_end(r, mo->op.result);
        return;
    }
    mo->op.kind = IO_READ;
    mo->op.durable = false;
    mo->op.buffer = r->back;
    mo->done = repair_on_back;
    member_submit(mo->member, mo);
}

void repair_frame(struct pool *p, struct segment *s, const struct frame_view *good, uint32_t bad_mask)
{
    if (s->state != SEGMENT_SEALED) { /* REP-3: it is sealed soon, and the scrub looks at it first */
        s->close_soon = s->close_soon || bad_mask;
        if (bad_mask)
            scrub_note_fault(p, s, COPIES_MAX);
        return;
    }
    for (uint32_t i = 0; i < s->image_count; i++) {
        if (!(bad_mask & (1u << i)) || p->read_only || p->repairs_count == REPAIRS_MAX)
            continue;
        bool queued = false;
        LINK_EACH(l, &p->repairs) {
            struct repair *o = CONTAINER_OF(l, struct repair, link);
            queued = queued || (o->segment == s && o->offset == good->offset && segment_image_at(s, &o->at) == i);
        }
        struct repair *r = queued ? NULL : calloc(1, sizeof *r);
        if (!r)
            continue;
        r->bytes = good->blocks * BLOCK_BYTES;
        r->good = sync_buffer(r->bytes);
        r->back = sync_buffer(r->bytes);
        if (!r->good || !r->back) {
            repair_free(r);
            continue;
        }
        memcpy(r->good, good->bytes, r->bytes);
        r->pool = p;
        r->segment = s;
        r->offset = good->offset;
        r->at = s->images[i];
        s->refs++;
        p->repairs_count++;
        link_push(&p->repairs, &r->link);
    }
}

void repair_step(struct pool *p)
{
    LINK_EACH_SAFE(l, next, &p->repairs) {
        struct repair *r = CONTAINER_OF(l, struct repair, link);
        struct segment *s = r->segment;
        struct member *m = &p->members[r->at.member];
        uint32_t image = segment_image_at(s, &r->at);
        if (r->started || s->state != SEGMENT_SEALED)
            continue;
        if (image == COPIES_MAX || !member_takes_repairs(m)) {
            repair_end(r, ERR_MEMBER_GONE);
            continue;
        }
        if (repair_waits_its_turn(p, m) || (image_repairing(s, image) && m->slot_busy[r->at.slot] > 0))
            continue;
        s->repairing |= (uint8_t)(1u << image); /* REP-2: readers go elsewhere, the slot runs dry */
        if (m->slot_busy[r->at.slot] > 0 && !PLANTED(repair_overlaps))
            continue;
        r->started = true;
        r->op = (struct member_op){.done = repair_on_write, .owner = r};
        r->op.op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_REPAIR, .durable = true, .length = r->bytes,
                                  .buffer = r->good, .offset = segment_image_offset(p, &r->at) + r->offset};
        member_submit(m, &r->op);
    }
}

void repair_fini(struct pool *p)
{
    struct link *l;
    while ((l = link_pop(&p->repairs)) != NULL)
        repair_free(CONTAINER_OF(l, struct repair, link));
}
