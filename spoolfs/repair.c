/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: rewriting a frame on images where it is bad, from bytes that were proved whole in the same read.
 *
 *   queued -> write (when nothing else is outstanding on the slot) -> read back -> compare
 *
 * Invariants: REP-1: the source carries the frame's own digest chain: head, checks and every block verified. REP-2: an
 * image under repair is not read (segment.repairing). REP-3: only sealed segments are repaired, so no commit is near. */
#include "engine.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

struct repair {
    struct link link;
    struct pool *pool;
    struct segment *segment;
    uint64_t offset;
    uint32_t bytes, image;
    bool started;
    uint8_t *good, *back;
    struct member_op op;
};

bool image_repairing(const struct segment *s, uint32_t image)
{
    return (s->repairing >> image) & 1;
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

/* REP-2: one that ends before it began opens the image only when no other one writes there. */
static bool repair_writes(const struct pool *p, const struct segment *s, uint32_t image)
{
    bool writes = false;
    LINK_EACH(l, &p->repairs) {
        const struct repair *o = CONTAINER_OF(l, struct repair, link);
        writes = writes || (o->started && o->segment == s && o->image == image);
    }
    return writes;
}

static void repair_end(struct repair *r, enum err e)
{
    struct pool *p = r->pool;
    struct member *m = &p->members[r->segment->images[r->image].member];
    r->started = false;
    if (!repair_writes(p, r->segment, r->image))
        r->segment->repairing &= (uint8_t)~(1u << r->image);
    r->segment->refs--;
    if (e == ERR_OK) {
        m->repaired_blocks += r->bytes / BLOCK_BYTES;
        pool_event(p, EVENT_image_repaired, m, "segment %llu, %u bytes at %llu rewritten and read back",
                   (unsigned long long)r->segment->id.counter, r->bytes, (unsigned long long)r->offset);
    } else {
        r->segment->images[r->image].bad = r->segment->images[r->image].bad || e == ERR_CORRUPT || e == ERR_MEDIA || e == ERR_IO;
        pool_event(p, EVENT_frame_corrupt, m, "segment %llu, %llu: repair failed: %s",
                   (unsigned long long)r->segment->id.counter, (unsigned long long)r->offset, err_text(e));
    }
    scrub_note_repair(p, r->segment, r->image, r->offset, e);
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
            queued = queued || (o->segment == s && o->offset == good->offset && o->image == i);
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
        r->image = i;
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
        struct member *m = &p->members[s->images[r->image].member];
        if (r->started || s->state != SEGMENT_SEALED)
            continue;
        if (!member_usable(m)) {
            repair_end(r, ERR_MEMBER_GONE);
            continue;
        }
        if (image_repairing(s, r->image) && m->slot_busy[s->images[r->image].slot] > 0)
            continue;
        s->repairing |= (uint8_t)(1u << r->image); /* REP-2: readers go elsewhere, the slot runs dry */
        if (m->slot_busy[s->images[r->image].slot] > 0 && !PLANTED(repair_overlaps))
            continue;
        r->started = true;
        r->op = (struct member_op){.done = repair_on_write, .owner = r};
        r->op.op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_REPAIR, .durable = true, .length = r->bytes,
                                  .buffer = r->good, .offset = segment_image_offset(p, &s->images[r->image]) + r->offset};
        member_submit(m, &r->op);
    }
}

void repair_fini(struct pool *p)
{
    struct link *l;
    while ((l = link_pop(&p->repairs)) != NULL)
        repair_free(CONTAINER_OF(l, struct repair, link));
}
