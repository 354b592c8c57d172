/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the offline check: every frame of every segment on every image, and what could not be repaired. Blocking, on a
 * read-only mount; writes nothing. */
#include "mount.h"

#include <stdlib.h>
#include <string.h>

struct check {
    struct pool *pool;
    void *owner;
    void (*found)(void *owner, const struct pool_check_finding *f);
    struct pool_check_totals *totals;
};

static void check_report(struct check *c, struct segment *s, const struct pool_check_finding *f)
{
    struct pool_check_finding one = *f;
    one.segment = s ? s->id : (struct segment_id){0};
    c->totals->faults++;
    c->totals->lost += one.lost;
    c->totals->waits += one.waits_count > 0;
    if (c->found)
        c->found(c->owner, &one);
}

static void check_records(struct check *c, struct segment *s, const struct frame_view *v)
{
    uint32_t at = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < v->record_count; i++) {
        struct record_view r;
        if (verify_record(v->bytes, at, v->records_end, &r) != ERR_OK) {
            check_report(c, s, &(struct pool_check_finding){.member = "", .offset = v->offset + at, .fault = ERR_CORRUPT,
                                                            .lost = true, .text = "record is damaged in a sound frame"});
            return;
        }
        c->totals->records++;
        at = (at + r.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
    }
}

static enum err check_headers(struct check *c, struct segment *s)
{
    uint8_t *block = sync_buffer(BLOCK_BYTES);
    enum err e = block ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t i = 0; e != ERR_NO_MEMORY && i < s->image_count; i++) {
        struct member *m = &c->pool->members[s->images[i].member];
        struct image_view v;
        if (m->removed)
            continue;
        if (!member_readable(m)) {
            check_report(c, s, &(struct pool_check_finding){.member = m->name, .fault = ERR_MEMBER_GONE,
                                                            .text = "image is on a member that is not here"});
            continue;
        }
        c->totals->images++;
        e = sync_read_one(c->pool->io, m->target, segment_image_offset(c->pool, &s->images[i]), block, BLOCK_BYTES);
        if (e == ERR_OK)
            e = image_head_decode(block, &v);
        if (e == ERR_OK && (!segment_id_equal(v.segment, s->id) || v.slot != s->images[i].slot))
            e = ERR_IDENTITY;
        if (e != ERR_OK && e != ERR_NO_MEMORY)
            check_report(c, s, &(struct pool_check_finding){.member = m->name, .fault = e, .text = "image header"});
    }
    free(block);
    return e == ERR_NO_MEMORY ? e : ERR_OK;
}

/* No image that is here has a frame at `offset`. What was not asked, because its member is away or left while it was read, may. */
static void check_nowhere(struct check *c, struct segment *s, const struct reader *r, uint64_t offset)
{
    struct pool_check_finding f = {.member = "", .offset = offset, .fault = ERR_LOST, .lost = true,
                                   .text = "no image has a whole frame here"};
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &c->pool->members[s->images[i].member];
        if (!r->dead[i] || m->removed)
            continue;
        f.waits_for[f.waits_count].member = m->name;
        f.waits_for[f.waits_count].serial = m->serial;
        f.waits_for[f.waits_count++].uuid = m->uuid;
    }
    if (f.waits_count) {
        f.lost = false;
        f.fault = ERR_MEMBER_GONE;
        f.text = "no image here has a whole frame; one on a member that is away may";
    }
    check_report(c, s, &f);
}

static enum err check_segment(struct check *c, struct segment *s)
{
    struct reader r;
    enum err e = reader_open(&r, c->pool, s->id, s->images, s->image_count);
    if (e != ERR_OK)
        return e;
    uint64_t offset = BLOCK_BYTES;
    while (offset < s->length) {
        struct frame_view v;
        enum err one = reader_frame(&r, offset, &v);
        if ((e = one == ERR_NO_MEMORY ? one : ERR_OK) != ERR_OK)
            break;
        for (uint32_t i = 0; i < s->image_count; i++)
            if (!r.dead[i] && !(r.good_mask & (1u << i)) && (one == ERR_OK || (r.bad_mask & (1u << i))))
                check_report(c, s, &(struct pool_check_finding){
                                       .member = c->pool->members[s->images[i].member].name, .offset = offset,
                                       .fault = r.fault[i] ? r.fault[i] : ERR_CORRUPT, .text = "frame"});
        if (one == ERR_OK) {
            c->totals->frames++;
            c->totals->bytes += (uint64_t)v.blocks * BLOCK_BYTES;
            check_records(c, s, &v);
            offset += (uint64_t)v.blocks * BLOCK_BYTES;
            continue;
        }
        uint64_t next = s->length;
        enum err behind = reader_resync(&r, offset, &next);
        if ((e = behind == ERR_NO_MEMORY ? behind : ERR_OK) != ERR_OK)
            break;
        if (behind != ERR_OK || next > s->length)
            next = s->length;
        check_nowhere(c, s, &r, offset);
        offset = next;
    }
    reader_close(&r);
    return e;
}

static void check_superblocks(struct check *c)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &c->pool->members[i];
        if (!m->used || m->removed)
            continue;
        if (!m->present)
            check_report(c, NULL, &(struct pool_check_finding){.member = m->name, .fault = ERR_MEMBER_GONE,
                                                               .text = m->evidence});
        else if (m->superblock_good != (1u << SUPERBLOCK_COPIES) - 1)
            check_report(c, NULL, &(struct pool_check_finding){.member = m->name, .fault = ERR_CORRUPT,
                                                               .text = "a superblock copy is damaged or old"});
    }
}

static void check_on_summary(struct index_query *q, enum err e)
{
    uint64_t *live = q->owner;
    *live = e == ERR_OK ? q->counts.messages : 0;
    q->owner = NULL;
}

enum err pool_check(struct pool *p, void *owner, void (*found)(void *owner, const struct pool_check_finding *f),
                    struct pool_check_totals *totals_out)
{
    *totals_out = (struct pool_check_totals){0};
    struct check c = {.pool = p, .owner = owner, .found = found, .totals = totals_out};
    check_superblocks(&c);
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL)
            continue;
        totals_out->segments++;
        enum err e = check_headers(&c, s);
        if (e == ERR_OK)
            e = check_segment(&c, s);
        if (e != ERR_OK)
            return e;
    }
    for (uint32_t n = 0; p->index && !p->index_ready && n < 1000000; n++) {
        pool_step(p);
        if (!p->index_ready)
            io_turn(p->io, NS_PER_MS);
    }
    if (p->index) {
        struct index_query q = {.kind = INDEX_SUMMARY, .done = check_on_summary, .owner = &totals_out->messages_live};
        index_query(p->index, &q);
        while (q.owner) {
            index_dispatch(p->index);
            if (q.owner)
                io_turn(p->io, NS_PER_MS);
        }
        index_query_fini(&q);
    }
    return totals_out->lost ? ERR_LOST : totals_out->faults ? ERR_CORRUPT : ERR_OK;
}
