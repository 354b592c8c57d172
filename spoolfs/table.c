/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the segment table as a log: OPEN, SEAL, FREED records behind a TABLE, in a table segment the superblocks name.
 *
 *   rewrite:  segment_open -> TABLE parts, frame by frame -> superblock_update -> the old table segment is dropped
 *
 * Invariants: TAB-1: the superblocks name a table segment only after its whole TABLE is durable. TAB-2: while a
 * rewrite runs no OPEN, SEAL or FREED is committed, so the parts are one state. TAB-3: what follows the TABLE in its
 * segment is newer than it. TAB-4: OPENs of an incarnation come in the order of their counters, so that at any time what
 * is below its high-water mark and not listed was freed, or never took a frame: a table that stopped early, on a member that
 * left, takes nothing for dead that it only did not live to see. TAB-5: a table segment that was given up is never written
 * again, and what it said is in the next one of its incarnation, whose counter is higher. So who has read one knows all
 * that an older one told, and a member whose superblocks name a newer one may know more. TAB-6: a table segment takes
 * records as soon as the superblocks of the members that hold it name it: a slow member does not hold the mail. Until all
 * superblocks do, the one before keeps its slots, no third one is begun, no new segment with an image on a member that is
 * behind takes a frame, and no slot there is taken: left alone, that member knows neither what was opened nor what was freed. */
#include "engine.h"

#include <base/planted.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct table_part_disk) + INCARNATIONS_MAX * sizeof(struct table_incarnation_disk) +
                       TABLE_SEGMENTS_PER_PART * sizeof(struct table_segment_disk) + RECORD_HEAD_BYTES +
                       FRAME_HEAD_BYTES + FRAME_BLOCKS_MAX * 8 + RECORD_ALIGN <= FRAME_BYTES_MAX,
               "a TABLE part fits one frame");
#define TABLE_RETRY_NS (20 * NS_PER_MS)

/* --- incarnations --- */

struct incarnation *table_incarnation(struct pool *p, uint64_t incarnation)
{
    for (uint32_t i = 0; i < p->incarnation_count; i++)
        if (p->incarnations[i].incarnation == incarnation)
            return &p->incarnations[i];
    return NULL;
}

/* At the limit the oldest incarnation without a live segment is forgotten: an image of it on a member that was away
 * for INCARNATIONS_MAX mounts would count as live mail, which costs duplicates, never mail. */
static enum err incarnation_make_room(struct pool *p)
{
    for (uint32_t i = 0; i < p->incarnation_count; i++) {
        bool live = p->incarnations[i].incarnation == p->incarnation;
        for (uint32_t s = 0; s < p->segment_used && !live; s++)
            live = p->segments[s].state != SEGMENT_UNUSED &&
                   p->segments[s].id.incarnation == p->incarnations[i].incarnation;
        if (live)
            continue;
        memmove(&p->incarnations[i], &p->incarnations[i + 1],
                (p->incarnation_count - i - 1) * sizeof p->incarnations[0]);
        p->incarnation_count--;
        return ERR_OK;
    }
    return ERR_FULL;
}

enum err table_note_incarnation(struct pool *p, uint64_t incarnation, uint64_t high_water)
{
    struct incarnation *i = table_incarnation(p, incarnation);
    if (i) {
        i->high_water = high_water > i->high_water ? high_water : i->high_water;
        return ERR_OK;
    }
    if (p->incarnation_count == INCARNATIONS_MAX && incarnation_make_room(p) != ERR_OK)
        return ERR_FULL;
    p->incarnations[p->incarnation_count++] = (struct incarnation){incarnation, high_water, 0};
    return ERR_OK;
}

bool table_covers(struct pool *p, struct segment_id table)
{
    const struct incarnation *i = table_incarnation(p, table.incarnation);
    return segment_id_is_none(table) || (i && table.counter <= i->last_table);
}

enum err table_note_read(struct pool *p, struct segment_id table)
{
    enum err e = table_note_incarnation(p, table.incarnation, 0);
    struct incarnation *i = e == ERR_OK ? table_incarnation(p, table.incarnation) : NULL;
    if (i && i->last_table < table.counter)
        i->last_table = table.counter;
    return e;
}

bool table_says_dead(struct pool *p, struct segment_id id)
{
    const struct incarnation *i = table_incarnation(p, id.incarnation);
    return i && id.counter <= i->high_water && !segment_find(p, id);
}

/* --- entries --- */

static void table_entry_of(const struct segment *s, struct table_segment_disk *d)
{
    bool sealed = s->state == SEGMENT_SEALED || s->state == SEGMENT_FREEING;
    *d = (struct table_segment_disk){
        .id = segment_id_disk_of(s->id),
        .length = le64_of(sealed ? s->length : 0),
        .kind = (uint8_t)s->kind,
        .state = (uint8_t)(!sealed ? TABLE_OPEN : s->by_recovery ? TABLE_SEALED_BY_RECOVERY : TABLE_SEALED),
        .image_count = s->image_count,
        .unread = s->unread,
        .chunks_only = s->chunks_only,
        .provisional = s->provisional,
    };
    if (PLANTED(seal_short) && sealed && s->length > BLOCK_BYTES)
        d->length = le64_of(s->length - BLOCK_BYTES);
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        bool used = i < s->image_count;
        d->images[i].member = le16_of(used ? s->images[i].member : UINT16_MAX);
        d->images[i].slot = le32_of(used ? s->images[i].slot : 0);
        d->images[i].verified = le16_of(used ? s->images[i].verified : 0);
        if (used && s->images[i].unproved)
            d->unproved |= (uint8_t)(1u << i);
    }
}

static enum err table_entry_check(const struct pool *p, const struct table_segment_disk *d)
{
    if (d->image_count == 0 || d->image_count > COPIES_MAX || d->state < TABLE_OPEN ||
        d->state > TABLE_SEALED_BY_RECOVERY || d->kind != SEGMENT_MAIL)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < d->image_count; i++) {
        uint32_t member = le16_get(d->images[i].member);
        if (member >= MEMBERS_MAX || !p->members[member].used ||
            le32_get(d->images[i].slot) >= p->members[member].slot_count)
            return ERR_CORRUPT;
    }
    uint64_t length = le64_get(d->length);
    if (length > p->slot_bytes || length % BLOCK_BYTES)
        return ERR_CORRUPT;
    return ERR_OK;
}

static enum err table_take_images(struct pool *p, struct segment *s, const struct table_segment_disk *d)
{
    s->image_count = d->image_count;
    for (uint32_t i = 0; i < d->image_count; i++) {
        s->images[i] = (struct image){.member = (uint8_t)le16_get(d->images[i].member),
                                      .verified = le16_get(d->images[i].verified),
                                      .slot = le32_get(d->images[i].slot)};
        if (!slot_take(&p->members[s->images[i].member], s->images[i].slot, s))
            return ERR_CORRUPT; /* two live images in one slot */
    }
    return ERR_OK;
}

static bool table_images_differ(const struct segment *s, const struct table_segment_disk *d)
{
    bool differ = s->image_count != d->image_count;
    for (uint32_t i = 0; i < s->image_count && !differ; i++)
        differ = s->images[i].member != le16_get(d->images[i].member) || s->images[i].slot != le32_get(d->images[i].slot);
    return differ;
}

/* What a TABLE or a SEAL names may have been adopted: others of its incarnation may still turn up, so only an OPEN
 * and the TABLE's own list say how far an incarnation is known. */
static enum err table_enter(struct pool *p, const struct table_segment_disk *d, bool opened)
{
    enum err e = table_entry_check(p, d);
    if (e != ERR_OK)
        return e;
    struct segment_id id = segment_id_disk_get(d->id);
    struct segment *s = segment_find(p, id);
    if (!s) {
        s = segment_add(p, id, SEGMENT_MAIL);
        if (!s)
            return ERR_CORRUPT; /* more segments than slots */
        s->table_known = true;
        e = table_take_images(p, s, d);
        if (e != ERR_OK)
            return e;
    }
    if (table_images_differ(s, d)) { /* a rebuild gave it another place */
        for (uint32_t i = 0; i < s->image_count; i++) {
            struct member *m = &p->members[s->images[i].member];
            if (m->slot_owner[s->images[i].slot] == segment_index(p, s) + 1) {
                m->slot_owner[s->images[i].slot] = 0;
                m->slots_free++;
            }
        }
        s->image_count = 0;
        e = table_take_images(p, s, d);
        if (e != ERR_OK)
            return e;
    }
    for (uint32_t i = 0; i < s->image_count; i++)
        s->images[i].unproved = (d->unproved >> i) & 1;
    s->state = d->state == TABLE_OPEN ? SEGMENT_OPEN : SEGMENT_SEALED;
    s->by_recovery = d->state == TABLE_SEALED_BY_RECOVERY;
    s->unread = d->unread != 0;
    s->chunks_only = d->chunks_only != 0;
    s->provisional = d->provisional != 0;
    if (d->state != TABLE_OPEN)
        s->length = le64_get(d->length) > BLOCK_BYTES ? le64_get(d->length) : BLOCK_BYTES;
    return opened ? table_note_incarnation(p, id.incarnation, id.counter) : ERR_OK;
}

static enum err table_apply_part(struct pool *p, const struct record_view *r)
{
    struct table_part_disk head;
    uint32_t left = r->body_bytes;
    const uint8_t *at = r->body;
    if (left < sizeof head)
        return ERR_CORRUPT;
    memcpy(&head, at, sizeof head);
    at += sizeof head;
    left -= (uint32_t)sizeof head;
    uint32_t incarnations = le32_get(head.incarnations), segments = le32_get(head.segments);
    if (incarnations > INCARNATIONS_MAX || segments > TABLE_SEGMENTS_PER_PART ||
        left < segments * sizeof(struct table_segment_disk))
        return ERR_CORRUPT;
    left -= segments * (uint32_t)sizeof(struct table_segment_disk);
    uint32_t row = sizeof(struct table_incarnation_disk);
    if (left != incarnations * row)
        row = offsetof(struct table_incarnation_disk, last_table); /* written before there was one: nothing counts as read */
    if (left != incarnations * row)
        return ERR_CORRUPT;
    if (le32_get(head.part) == 0)
        p->table_parts_read = 0;
    if (le32_get(head.part) != p->table_parts_read || p->table_parts_read >= le32_get(head.parts))
        return ERR_CORRUPT;
    p->table_parts_read++;
    p->table_parts_missing = le32_get(head.parts) - p->table_parts_read;
    p->next_table = le64_get(head.table) > p->next_table ? le64_get(head.table) : p->next_table;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < incarnations && e == ERR_OK; i++) {
        struct table_incarnation_disk d = {0};
        memcpy(&d, at, row);
        at += row;
        e = table_note_incarnation(p, le64_get(d.incarnation), le64_get(d.high_water));
        if (e == ERR_OK)
            e = table_note_read(p, (struct segment_id){le64_get(d.incarnation), le64_get(d.last_table)});
    }
    for (uint32_t i = 0; i < segments && e == ERR_OK; i++) {
        struct table_segment_disk d;
        memcpy(&d, at, sizeof d);
        at += sizeof d;
        e = table_enter(p, &d, false);
    }
    return e;
}

enum err table_apply(struct pool *p, const struct record_view *r, bool *begun)
{
    struct table_segment_disk d;
    switch (r->type) {
    case RECORD_TABLE:
        *begun = true;
        return table_apply_part(p, r);
    case RECORD_OPEN:
    case RECORD_SEAL:
        if (r->body_bytes != sizeof d)
            return ERR_CORRUPT;
        memcpy(&d, r->body, sizeof d);
        return table_enter(p, &d, r->type == RECORD_OPEN);
    case RECORD_FREED:
        for (uint32_t at = 0; at + sizeof(struct id_disk) <= r->body_bytes; at += sizeof(struct id_disk)) {
            struct id_disk id;
            memcpy(&id, r->body + at, sizeof id);
            struct segment *s = segment_find(p, segment_id_disk_get(id));
            if (s && !PLANTED(freed_forgotten)) {
                s->table_known = false; /* no discard here: nothing is written before the mount decides to */
                segment_drop(p, s);
            }
        }
        return ERR_OK;
    default:
        return ERR_CORRUPT;
    }
}

/* --- groups: OPEN, SEAL, FREED --- */

static void table_group_free(struct table_group *t);

static void table_on_group(struct spool_group *g, enum err e)
{
    struct table_group *t = CONTAINER_OF(g, struct table_group, group);
    struct pool *p = t->pool;
    if (e == ERR_OK && t->records[0].type == RECORD_OPEN) {
        t->segment->table_known = true;
        e = table_note_incarnation(p, t->segment->id.incarnation, t->segment->id.counter);
    }
    t->done(t, e);
    table_group_free(t);
}

static void table_enqueue(struct table_group *t, uint32_t count)
{
    t->group = (struct spool_group){.records = t->records, .count = count, .class = SPOOL_COMPACTION,
                                    .done = table_on_group};
    link_push(&t->pool->table_queue, &t->link);
}

static struct table_group *table_group_make(struct pool *p, void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = calloc(1, sizeof *t);
    if (t) {
        t->pool = p;
        t->done = done;
    }
    return t;
}

/* The entry of `s` as it will be when the record is durable. */
static void table_group_entry(struct table_group *t, enum record_type type, struct segment *s)
{
    enum segment_state state = s->state;
    bool provisional = s->provisional;
    struct table_segment_disk d;
    if (type == RECORD_SEAL) {
        s->state = SEGMENT_SEALED;
        s->provisional = false;
    }
    table_entry_of(s, &d);
    s->state = state;
    s->provisional = provisional;
    _Static_assert(sizeof d == sizeof t->payload, "an entry is the payload");
    memcpy(t->payload, &d, sizeof d);
    t->segment = s;
    t->records[0].type = type;
    t->records[0].parts[0] = (struct digest_piece){t->payload, sizeof t->payload};
}

static bool table_group_freed(struct table_group *t, uint32_t at, const struct segment_id *ids, uint32_t count)
{
    struct id_disk *row = calloc(count, sizeof *row);
    if (!row)
        return false;
    for (uint32_t i = 0; i < count; i++)
        row[i] = segment_id_disk_of(ids[i]);
    t->heap = (uint8_t *)row;
    t->records[at].type = RECORD_FREED;
    t->records[at].parts[0] = (struct digest_piece){row, count * sizeof *row};
    return true;
}

enum err table_submit(struct pool *p, enum record_type type, struct segment *s,
                      void (*done)(struct table_group *t, enum err e))
{
    ASSERT(type == RECORD_OPEN || type == RECORD_SEAL);
    struct table_group *t = table_group_make(p, done);
    if (!t)
        return ERR_NO_MEMORY;
    table_group_entry(t, type, s);
    table_enqueue(t, 1);
    return ERR_OK;
}

enum err table_submit_freed(struct pool *p, const struct segment_id *ids, uint32_t count,
                            void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = table_group_make(p, done);
    if (!t || !table_group_freed(t, 0, ids, count)) {
        free(t);
        return ERR_NO_MEMORY;
    }
    table_enqueue(t, 1);
    return ERR_OK;
}

enum err table_submit_exchange(struct pool *p, struct segment *s, const struct segment_id *ids, uint32_t count,
                               void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = table_group_make(p, done);
    if (!t || !table_group_freed(t, 1, ids, count)) {
        free(t);
        return ERR_NO_MEMORY;
    }
    table_group_entry(t, RECORD_SEAL, s);
    table_enqueue(t, 2);
    return ERR_OK;
}

static void rewrite_again(struct pool *p);

/* A part that a member is late with, or that a member which left will never answer: once more elsewhere. Its buffer
 * stays with the op. */
static void rewrite_watch(struct pool *p)
{
    if (p->table_candidate)
        segment_open_step(p, p->table_candidate);
    struct append_frame *f = p->table_frame;
    if (!f || io_now_ns(p->io) - f->submitted_ns < COMMIT_DEADLINE_NS)
        return;
    bool late = false, left = false;
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

void table_step(struct pool *p)
{
    rewrite_watch(p);
    while (!link_empty(&p->table_queue)) {
        struct table_group *t = CONTAINER_OF(p->table_queue.next, struct table_group, link);
        enum err e = commit_submit(&p->appenders[APPENDER_TABLE], &t->group);
        if (e == ERR_BUSY)
            return;
        link_remove(&t->link);
        if (e != ERR_OK)
            table_on_group(&t->group, e);
    }
}

static void table_group_free(struct table_group *t)
{
    free(t->heap);
    free(t);
}

void table_fini(struct pool *p)
{
    while (!link_empty(&p->table_queue))
        table_group_free(CONTAINER_OF(link_pop(&p->table_queue), struct table_group, link));
    for (uint32_t i = 0; i < FRAME_SLOTS; i++) {
        struct append_frame *f = &p->frames[i];
        if (!f->appender || f->appender->kind != SEGMENT_TABLE)
            continue;
        struct link *l;
        while ((l = link_pop(&f->groups)) != NULL)
            table_group_free(CONTAINER_OF(CONTAINER_OF(l, struct spool_group, link), struct table_group, group));
    }
}

uint32_t table_behind(const struct pool *p)
{
    return p->table_settling ? p->super.todo_mask : 0;
}

bool table_busy(const struct pool *p)
{
    return p->table_rewriting || !link_empty(&p->table_queue) || p->super.running;
}

/* --- rewrite --- */

static void rewrite_again(struct pool *p)
{
    if (p->table_candidate)
        segment_drop(p, p->table_candidate);
    p->table_candidate = NULL;
    p->table_frame = NULL;
    p->table_rewriting = false;
    p->table_retry_ns = io_now_ns(p->io) + TABLE_RETRY_NS;
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
    struct record_fields r = {.type = RECORD_TABLE, .sequence = ++p->next_sequence, .parts = parts, .part_count = 3};
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
