/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: a new table segment: the whole TABLE is written into it, then the superblocks name it.
 *
 *   segment_open -> TABLE parts, frame by frame -> superblock_update -> the old table segment is dropped
 *
 * Invariants: TAB-1: the superblocks name a table segment only after its whole TABLE is durable. TAB-2: while a rewrite
 * runs no OPEN, SEAL or FREED is committed, so the parts are one state. TAB-6: a table segment takes records as soon as
 * the superblocks of the members that hold it name it: a slow member does not hold the mail. Until all superblocks do, the
 * one before keeps its slots, no third one is begun, no new segment with an image on a member that is behind takes a
 * frame, and no slot there is taken: left alone, that member knows neither what was opened nor what was freed. */
#include "commit.h"
#include "table.h"

#include <stdlib.h>

_Static_assert(sizeof(struct table_part_disk) + INCARNATIONS_MAX * sizeof(struct table_incarnation_disk) +
                       TABLE_SEGMENTS_PER_PART * sizeof(struct table_segment_disk) + RECORD_HEAD_BYTES +
                       FRAME_HEAD_BYTES + FRAME_BLOCKS_MAX * 8 + RECORD_ALIGN <= FRAME_BYTES_MAX,
               "a TABLE part fits one frame");
#define TABLE_RETRY_NS (20 * NS_PER_MS)

static void rewrite_again(struct pool *p)
{
    if (p->table_candidate)
        segment_drop(p, p->table_candidate);
    p->table_candidate = NULL;
    p->table_frame = NULL;
    p->table_rewriting = false;
    p->table_retry_ns = io_now_ns(p->io) + TABLE_RETRY_NS;
}

/* A part that a member is late with, or that a member which left will never answer: once more elsewhere. Its buffer
 * stays with the op. */
void rewrite_watch(struct pool *p)
{
    bool left = false, late = p->table_candidate && segment_better_elsewhere(p, p->table_candidate, SPOOL_TABLE,
                                                                            p->appenders[APPENDER_TABLE].avoid_mask);
    if (late)
        segment_open_leave(p, p->table_candidate);
    if (p->table_candidate)
        segment_open_step(p, p->table_candidate);
    struct append_frame *f = p->table_frame;
    if (!f || (!late && io_now_ns(p->io) - f->submitted_ns < COMMIT_DEADLINE_NS))
        return;
    for (uint32_t i = 0; i < f->segment->image_count; i++) {
        const struct member *m = &p->members[f->segment->images[i].member];
        late = late || (member_late(m) && m->state == MEMBER_SUSPECT && pool_domains_usable(p) > f->segment->image_count);
        left = left || !member_usable(m);
    }
    if (!late && !left)
        return;
    f->orphaned = true;
    p->table_frame = NULL;
    rewrite_again(p);
}

/* The members that hold it name it: it takes records, though a slow member's superblocks still name the one before (TAB-6). */
static void rewrite_on_named(struct superblock_wait *w)
{
    struct pool *p = w->owner;
    struct segment *s = p->table_candidate;
    p->table_candidate = NULL;
    p->table_old = p->table_segment;
    p->table_segment = s;
    p->table_rewriting = false;
    p->table_settling = true;
    for (uint32_t i = 0; i < s->image_count; i++)
        if (!member_usable(&p->members[s->images[i].member])) {
            s->state = SEGMENT_CLOSED; /* it lost an image meanwhile: once more */
            return;
        }
    appender_adopt(&p->appenders[APPENDER_TABLE], s);
}

static void rewrite_on_superblocks(struct superblock_wait *w)
{
    struct pool *p = w->owner;
    struct segment *old = p->table_old;
    p->table_settling = false;
    p->table_old = NULL;
    if (old)
        segment_drop(p, old);
}

static void rewrite_commit(struct pool *p)
{
    struct segment *s = p->table_candidate;
    p->table_id = s->id;
    p->table_image_count = s->image_count;
    for (uint32_t i = 0; i < s->image_count; i++)
        p->table_images[i] = s->images[i];
    p->table_wait = (struct superblock_wait){.named = rewrite_on_named, .done = rewrite_on_superblocks, .owner = p,
                                             .named_by = p->mounted ? segment_members(s) : UINT32_MAX}; /* POOL-1 */
    superblock_update(p, &p->table_wait);
}

static uint32_t rewrite_parts(const struct pool *p)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < p->segment_used; i++)
        known += p->segments[i].state != SEGMENT_UNUSED && p->segments[i].table_known &&
                 p->segments[i].kind == SEGMENT_MAIL;
    return known / TABLE_SEGMENTS_PER_PART + 1;
}

/* Encodes part `table_part` from `table_cursor` on. */
static enum err rewrite_fill(struct pool *p, struct frame *f)
{
    uint32_t incarnations = p->table_part == 0 ? p->incarnation_count : 0;
    struct table_incarnation_disk *inc = calloc(incarnations + 1u, sizeof *inc);
    struct table_segment_disk *seg = calloc(TABLE_SEGMENTS_PER_PART, sizeof *seg);
    if (!inc || !seg) {
        free(inc);
        free(seg);
        return ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < incarnations; i++)
        inc[i] = (struct table_incarnation_disk){le64_of(p->incarnations[i].incarnation),
                                                 le64_of(p->incarnations[i].high_water),
                                                 le64_of(p->incarnations[i].last_table)};
    uint32_t segments = 0;
    while (p->table_cursor < p->segment_used && segments < TABLE_SEGMENTS_PER_PART) {
        const struct segment *s = &p->segments[p->table_cursor++];
        if (s->state != SEGMENT_UNUSED && s->table_known && s->kind == SEGMENT_MAIL)
            table_entry_of(s, &seg[segments++]);
    }
    struct table_part_disk head = {.table = le64_of(p->next_table), .part = le32_of(p->table_part),
                                   .parts = le32_of(rewrite_parts(p)), .incarnations = le32_of(incarnations),
                                   .segments = le32_of(segments)};
    struct digest_piece parts[3] = {{&head, sizeof head}, {inc, incarnations * sizeof *inc},
                                    {seg, segments * sizeof *seg}};
    struct record_fields r = {.type = RECORD_TABLE, .sequence = ++p->next_sequence, .parts = parts, .part_count = 3,
                              .arg = p->table_partial ? TABLE_PARTIAL : 0};
    frame_add(f, &r);
    free(inc);
    free(seg);
    return ERR_OK;
}

static void rewrite_part(struct pool *p);

static void rewrite_on_image(struct member_op *mo)
{
    struct append_frame *f = mo->owner;
    struct pool *p = f->pool;
    f->failed = f->failed || mo->op.result != ERR_OK;
    if (--f->pending > 0)
        return;
    if (f->orphaned) { /* the rewrite went on without it */
        f->orphaned = false;
        f->appender = NULL;
        return;
    }
    p->table_frame = NULL;
    bool failed = f->failed;
    struct segment *s = f->segment;
    s->length += (uint64_t)f->blocks * BLOCK_BYTES;
    s->previous = f->digest.lo;
    f->appender = NULL;
    for (uint32_t i = 0; i < s->image_count; i++)
        failed = failed || !member_usable(&p->members[s->images[i].member]);
    if (failed)
        rewrite_again(p);
    else if (++p->table_part < rewrite_parts(p))
        rewrite_part(p);
    else
        rewrite_commit(p);
}

static void rewrite_part(struct pool *p)
{
    struct append_frame *f = NULL;
    for (uint32_t i = 0; i < FRAME_SLOTS && !f; i++)
        if (!p->frames[i].appender)
            f = &p->frames[i];
    struct segment *s = p->table_candidate;
    if (f)
        frame_init(&f->frame, f->buffer);
    if (!f || rewrite_fill(p, &f->frame) != ERR_OK) {
        rewrite_again(p);
        return;
    }
    struct frame_identity id = {.pool = p->uuid, .segment = s->id, .offset = s->length, .previous = s->previous,
                                .stamp_ms = pool_clock_ms(p)};
    f->appender = &p->appenders[APPENDER_TABLE];
    f->segment = s;
    f->failed = false;
    f->orphaned = false;
    f->in_flight = false;
    f->submitted_ns = io_now_ns(p->io);
    p->table_frame = f;
    f->blocks = frame_seal(&f->frame, &id, &f->digest);
    ASSERT(s->length + (uint64_t)f->blocks * BLOCK_BYTES <= p->slot_bytes);
    f->pending = s->image_count;
    for (uint32_t i = 0; i < s->image_count; i++) {
        f->ops[i] = (struct member_op){.done = rewrite_on_image, .owner = f};
        f->ops[i].op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_COMMIT, .durable = true,
                                      .length = f->blocks * BLOCK_BYTES, .buffer = f->buffer,
                                      .offset = segment_image_offset(p, &s->images[i]) + s->length};
        member_submit(&p->members[s->images[i].member], &f->ops[i]);
    }
}

static void rewrite_on_opened(struct segment *s, enum err e)
{
    struct pool *p = s->opener;
    ASSERT(p->table_candidate == s);
    if (e != ERR_OK) {
        p->table_candidate = NULL; /* it is gone when this returns */
        rewrite_again(p);
        return;
    }
    p->next_table++;
    p->table_cursor = 0;
    p->table_part = 0;
    rewrite_part(p);
}

void table_rewrite(struct pool *p)
{
    if (p->table_rewriting || p->table_settling || p->read_only || io_now_ns(p->io) < p->table_retry_ns)
        return;
    p->table_rewriting = true;
    uint32_t avoid = p->appenders[APPENDER_TABLE].avoid_mask;
    enum err e = segment_open(p, SEGMENT_TABLE, SPOOL_TABLE, avoid, &p->table_candidate);
    if (e != ERR_OK && avoid)
        e = segment_open(p, SEGMENT_TABLE, SPOOL_TABLE, 0, &p->table_candidate);
    if (e != ERR_OK) {
        p->table_candidate = NULL;
        rewrite_again(p);
        return;
    }
    p->table_candidate->opened = rewrite_on_opened;
    p->table_candidate->opener = p;
}
