/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what the segment table says: the entry of a segment as bytes, taking records in at a mount, and the incarnations
 * it knows of.
 * Invariants: TAB-4: OPENs of an incarnation come in the order of their counters, so that at any time what is below its
 * high-water mark and not listed was freed, or never took a frame: a table that stopped early, on a member that left, takes
 * nothing for dead that it only did not live to see. TAB-5: a table segment that was given up is never written again, and
 * what it said is in the next one of its incarnation, whose counter is higher. So who has read one knows all that an older
 * one told, and a member whose superblocks name a newer one may know more. Never: trusts a byte of a record. */
#include "table.h"

#include <base/planted.h>
#include <stddef.h>
#include <string.h>

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

void table_entry_of(const struct segment *s, struct table_segment_disk *d)
{
    bool sealed = s->state == SEGMENT_SEALED || s->state == SEGMENT_FREEING;
    *d = (struct table_segment_disk){
        .id = segment_id_disk_of(s->id),
        .length = le64_of(sealed ? s->length : 0),
        .kind = (uint8_t)s->kind,
        .state = (uint8_t)(!sealed ? TABLE_OPEN : s->by_recovery ? TABLE_SEALED_BY_RECOVERY : TABLE_SEALED),
        .image_count = s->image_count,
        .unread = (uint8_t)(!s->unread ? 0 : s->unfed ? TABLE_UNREAD_UNFED : TABLE_UNREAD),
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
        if (used && s->images[i].holed)
            d->holed |= (uint8_t)(1u << i);
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
    for (uint32_t i = 0; i < s->image_count; i++) {
        s->images[i].unproved = (d->unproved >> i) & 1;
        s->images[i].holed = (d->holed >> i) & 1;
    }
    s->state = d->state == TABLE_OPEN ? SEGMENT_OPEN : SEGMENT_SEALED;
    s->by_recovery = d->state == TABLE_SEALED_BY_RECOVERY;
    s->unread = d->unread != 0;
    s->unfed = s->unread && d->unread != TABLE_UNREAD;
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
    p->table_partial = p->table_partial || (r->arg & TABLE_PARTIAL);
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
