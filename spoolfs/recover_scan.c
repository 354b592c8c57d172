/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what the headers of all images tell, where the segment table the superblocks name cannot be read: an older table,
 * and the segments that none names. Blocking.
 * Invariants: REC-5: what image headers told is in the TABLE that the mount writes; they never raise an incarnation's
 * high-water mark, for what they did not show may lie on a member that is away. That there may be such is in the TABLE, too, until
 * nobody is away (`table_partial`): the mounts after this one drop no CHUNK without a MESSAGE either. REC-8: a segment of an older table
 * that is not where that says is where image headers say it is; it is dropped only when none knows of it. */
#include "recover.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

/* Where the header says that others lie whose members are not here. */
static void adopt_absent(struct pool *p, struct segment *s, const struct image_view *v)
{
    for (uint32_t i = 0; i < v->image_count && s->image_count < COPIES_MAX; i++) {
        struct member *m = v->images[i].member < MEMBERS_MAX ? &p->members[v->images[i].member] : NULL;
        if (m && m->used && !m->present && !m->removed && !segment_on_member(s, m->number) &&
            slot_take(m, v->images[i].slot, s))
            s->images[s->image_count++] = (struct image){.member = m->number, .slot = v->images[i].slot, .unproved = true};
    }
}

/* A header that is not dead is newer than the table: what the table says of that slot was freed since, or by the other half, before
 * the slot was used again (SEG-2); or, where the table is an older one (`old_table`), it was moved: its headers say where to (REC-8). */
static bool adopt_slot(struct member *m, uint32_t slot, struct segment *s, bool old_table)
{
    struct pool *p = m->pool;
    uint32_t owner = slot < m->slot_count ? m->slot_owner[slot] : 0;
    struct segment *old = owner ? &p->segments[owner - 1] : NULL;
    if (old && old != s && old->kind == SEGMENT_MAIL) {
        for (uint32_t i = old->image_count; i-- > 0;)
            if (old->images[i].member == m->number)
                old->images[i] = old->images[--old->image_count];
        m->slot_owner[slot] = 0;
        m->slots_free++;
        if (old->image_count == 0 && !old_table)
            segment_drop(p, old);
        else
            old->adopted = old->adopted || old->image_count == 0;
    }
    return slot_take(m, slot, s);
}

/* An image found by its header that the table does not name and does not know to be dead is live mail. REC-5: it counts
 * as known from here on, so that the TABLE this mount writes names it. */
static void recover_adopt(struct member *m, const struct image_view *v, bool old_table)
{
    struct pool *p = m->pool;
    if (v->kind != SEGMENT_MAIL || table_says_dead(p, v->segment))
        return;
    struct segment *s = segment_find(p, v->segment);
    bool known = s != NULL;
    if (!known) {
        s = segment_add(p, v->segment, SEGMENT_MAIL);
        if (!s)
            return;
        s->state = SEGMENT_OPEN; /* its end has to be found */
        s->table_known = s->adopted = true;
    } else if (!s->adopted || segment_on_member(s, m->number) || s->image_count == COPIES_MAX) {
        return;
    }
    if (adopt_slot(m, v->slot, s, old_table))
        s->images[s->image_count++] = (struct image){.member = m->number, .slot = v->slot};
    if (s->image_count > 0)
        adopt_absent(p, s, v);
    else if (!known)
        segment_drop(p, s);
}

struct table_found { struct segment_id id; struct image images[COPIES_MAX]; uint32_t count; };

static void recover_note_table(struct table_found *tables, uint32_t *count, uint32_t max, uint8_t member,
                               const struct image_view *v)
{
    uint32_t i = 0;
    while (i < *count && !segment_id_equal(tables[i].id, v->segment))
        i++;
    if (i == max)
        return;
    if (i == *count) {
        tables[i] = (struct table_found){.id = v->segment};
        (*count)++;
    }
    if (tables[i].count < COPIES_MAX)
        tables[i].images[tables[i].count++] = (struct image){.member = member, .slot = v->slot};
}

#define HEADERS_AT_ONCE 32u

static bool block_is_blank(const uint8_t *block) /* as formatted, or discarded */
{
    return memcmp(block, block + 1, BLOCK_BYTES - 1) == 0;
}

/* NULL is found where a header cannot be read, or is bad or astray: nobody knows whose image that is. */
static enum err recover_scan_member(struct pool *p, struct member *m,
                                    void (*found)(struct member *, const struct image_view *, void *),
                                    void *owner)
{
    uint8_t *blocks = sync_buffer((size_t)HEADERS_AT_ONCE * BLOCK_BYTES);
    struct sync_read reads[HEADERS_AT_ONCE];
    enum err e = blocks ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t slot = 0; e == ERR_OK && slot < m->slot_count; slot += HEADERS_AT_ONCE) {
        uint32_t n = m->slot_count - slot < HEADERS_AT_ONCE ? m->slot_count - slot : HEADERS_AT_ONCE;
        for (uint32_t i = 0; i < n; i++)
            reads[i] = (struct sync_read){.member = m, .io = p->io, .target = m->target, .length = BLOCK_BYTES,
                                          .offset = m->slots_offset + (slot + i) * m->slot_bytes,
                                          .buffer = blocks + i * BLOCK_BYTES};
        sync_read_all(p->io, reads, n);
        for (uint32_t i = 0; i < n && e == ERR_OK; i++) {
            struct image_view v;
            bool read = reads[i].result == ERR_OK;
            bool whole = read && image_head_decode(reads[i].buffer, &v) == ERR_OK, ours = whole && uuid_equal(v.pool, p->uuid);
            if (reads[i].result == ERR_NO_MEMORY)
                e = ERR_NO_MEMORY; /* REC-4 */
            else if (ours && uuid_equal(v.member, m->uuid) && v.slot == slot + i)
                found(m, &v, owner);
            else if (whole ? ours : !(read && block_is_blank(reads[i].buffer)))
                found(m, NULL, owner);
        }
    }
    free(blocks);
    return e;
}

static enum err recover_scan_all(struct pool *p,
                                 void (*found)(struct member *, const struct image_view *, void *),
                                 void *owner)
{
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < MEMBERS_MAX && e == ERR_OK; i++)
        if (p->members[i].used && p->members[i].present)
            e = recover_scan_member(p, &p->members[i], found, owner);
    return e;
}

/* Behind an older table: `owner` says whether headers could not be read. */
static void scan_adopts_behind(struct member *m, const struct image_view *v, void *owner)
{
    bool *in_doubt = owner;
    *in_doubt = *in_doubt || !v;
    if (v)
        recover_adopt(m, v, true);
}

static void scan_adopts(struct member *m, const struct image_view *v, void *owner)
{
    (void)owner;
    if (v)
        recover_adopt(m, v, false);
}

#define TABLES_FOUND_MAX 64u
struct tables_found { struct table_found t[TABLES_FOUND_MAX]; uint32_t count; };

static void scan_notes_tables(struct member *m, const struct image_view *v, void *owner)
{
    struct tables_found *f = owner;
    if (v && v->kind == SEGMENT_TABLE)
        recover_note_table(f->t, &f->count, TABLES_FOUND_MAX, m->number, v);
}

/* What an older table names may have been freed since, or moved, and its slots discarded, or used again. REC-8: of what has no place
 * left here the headers tell the places. */
static enum err recover_strip_gone(struct pool *p)
{
    enum err e = ERR_OK;
    for (uint32_t n = 0; n < p->segment_used && e == ERR_OK; n++) {
        struct segment *s = &p->segments[n];
        uint32_t here = 0;
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL)
            continue;
        for (uint32_t i = s->image_count; i-- > 0 && e == ERR_OK;) {
            bool gone = false, present = p->members[s->images[i].member].present;
            if (present)
                e = reader_slot_gone(p, s->id, &s->images[i], &gone);
            if (gone)
                segment_lose_image(p, s, i);
            here += present && !gone;
        }
        s->adopted = here == 0;
    }
    return e;
}

/* What no header knows was freed, when all headers could be read. Else it may lie where they could not, and is told. */
static void recover_drop_placeless(struct pool *p, bool in_doubt)
{
    in_doubt = in_doubt || members_away(p);
    for (uint32_t n = 0; n < p->segment_used; n++) {
        struct segment *s = &p->segments[n];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL || s->image_count > 0)
            continue;
        if (in_doubt && !s->chunks_only && !s->provisional)
            pool_event(p, EVENT_segment_unplaced, NULL, "segment %llu, which an older segment table names",
                       (unsigned long long)s->id.counter);
        segment_drop(p, s);
    }
}

/* The table the superblocks name is lost: the newest readable one that any header names, then everything it does not
 * know to be dead. */
enum err recover_table_by_scan(struct pool *p)
{
    struct tables_found *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NO_MEMORY;
    enum err e = recover_scan_all(p, scan_notes_tables, f);
    uint64_t best = 0;
    uint32_t best_at = UINT32_MAX;
    bool in_doubt = false;
    for (uint32_t i = 0; i < f->count && e == ERR_OK; i++) {
        p->next_table = 0;
        enum err one = table_load(p, p, f->t[i].id, f->t[i].images, f->t[i].count);
        recover_forget_segments(p);
        e = one == ERR_NO_MEMORY ? one : ERR_OK;
        if (one == ERR_OK && p->next_table >= best) {
            best = p->next_table;
            best_at = i;
        }
    }
    if (e == ERR_OK && best_at != UINT32_MAX)
        e = table_load(p, p, f->t[best_at].id, f->t[best_at].images, f->t[best_at].count);
    if (e == ERR_OK)
        e = recover_strip_gone(p);
    if (e == ERR_OK)
        e = recover_scan_all(p, scan_adopts_behind, &in_doubt);
    if (e == ERR_OK)
        recover_drop_placeless(p, in_doubt);
    p->index_discard = true;
    p->table_scanned = p->table_partial = true;
    if (e == ERR_OK && best_at != UINT32_MAX)
        recover_keep_table(p, f->t[best_at].id, f->t[best_at].images, f->t[best_at].count);
    free(f);
    return e;
}

enum err recover_scan_half(struct pool *p, struct member *m)
{
    return recover_scan_member(p, m, scan_adopts, NULL);
}
