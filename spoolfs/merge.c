/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what mount does with members that were mounted without the others (halves that ran apart): their segment table is
 * read beside ours, and the two are made one. Only in memory; the TABLE that the mount writes makes it last.
 *
 *   superblock of a member that is not as new as the newest -> its table (the view) -> it has news -> places -> segments
 *   -> incarnations -> everything is replayed
 *
 * Invariants: MRG-1: the union of the MESSAGEs less the union of the RETIREs and FREEDs: what both know or one has alone
 * is live; of what one half has freed and the other still holds only CHUNKs count (`chunks_only`), because a MESSAGE of the
 * other half may need them; everything else in there is retired, about what is retired, or lies elsewhere. MRG-2: each half
 * says what lies in the slots of its own members, nobody else. MRG-3: a segment known to both that a crash left open, or
 * that recovery sealed, is walked once more over all images. MRG-4: what a half has freed it has retired, or moved to segments of
 * its own: the other's copy gives way only when an image of each segment of that half is here. Otherwise it stays live mail.
 * MRG-5: a place that one half only remembers, on a member of the other which lists no such segment and takes none for dead, counts
 * unless what lies there is another's, or nobody's: a half that was known by its image headers has freed without a mark that says so.
 * Never: scans image headers (recover_scan.c does, where the other half's table cannot be read). */
#include "mount.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

/* The other half as its own table tells it. Its members carry no I/O: only numbers and slots. */
struct half {
    struct pool *pool, *view;
    struct member *speaker;
    const struct superblock *super;
    uint32_t members;             /* mask: of this half, here */
    uint32_t same;                /* mask: member numbers that mean the same member in both */
    bool theirs_here, ours_here;  /* MRG-4 */
};

static void view_free(struct pool *v)
{
    for (uint32_t i = 0; v && i < MEMBERS_MAX; i++)
        member_fini(&v->members[i]);
    if (v) {
        free(v->incarnations);
        free(v->segments);
        free(v->segment_hash);
    }
    free(v);
}

static struct pool *view_make(const struct pool *p, const struct superblock *s)
{
    struct pool *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    v->io = p->io;
    v->uuid = p->uuid;
    v->slot_bytes = p->slot_bytes;
    v->incarnations = calloc(INCARNATIONS_MAX, sizeof *v->incarnations);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        v->members[i] = (struct member){.pool = v, .number = (uint8_t)i, .used = s->members[i].used,
                                        .uuid = s->members[i].uuid, .slot_count = s->members[i].slot_count};
    if (v->incarnations && pool_alloc_slots(v) == ERR_OK)
        return v;
    view_free(v);
    return NULL;
}

static bool half_has(const struct half *h, uint8_t member) { return (h->members >> member) & 1; }

static bool half_means_same(const struct half *h, uint8_t member) { return (h->same >> member) & 1; }

/* Of this half is who is told of in its table and not in ours (TAB-5). */
static void half_know_members(struct half *h)
{
    struct pool *p = h->pool;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (!m->used || m->removed || !h->super->members[i].used || !uuid_equal(m->uuid, h->super->members[i].uuid))
            continue;
        h->same |= 1u << i;
        struct segment_id table = m->present ? p->superblocks[m->target].table : (struct segment_id){0};
        if (!table_covers(p, table) && table_covers(h->view, table))
            h->members |= 1u << i;
    }
}

/* Can all that `of` lists be read, or is there nothing of it that could come back? */
static bool half_is_here(const struct half *h, const struct pool *of)
{
    for (uint32_t n = 0; n < of->segment_used; n++) {
        const struct segment *s = &of->segments[n];
        uint32_t here = 0;
        for (uint32_t i = 0; i < s->image_count; i++)
            here += (of == h->pool || half_means_same(h, s->images[i].member)) &&
                    h->pool->members[s->images[i].member].present;
        bool asked = s->state != SEGMENT_UNUSED && s->kind == SEGMENT_MAIL && !s->provisional;
        if (asked && (here == 0 || (s->unread && here < s->image_count)))
            return false;
    }
    return true;
}

/* A half frees only what it has seen: one of its members held an image. Where it seems to have freed anything else, its
 * table stopped before it knew, or we made its image elsewhere since: then the mail may come twice. */
static bool half_freed(const struct half *h, const struct segment *s)
{
    bool held = false;
    for (uint32_t i = 0; i < s->image_count; i++)
        held = held || half_has(h, s->images[i].member);
    return held && table_says_dead(h->view, s->id);
}

static void image_add(struct half *h, struct segment *s, const struct image *i, bool unproved)
{
    struct pool *p = h->pool;
    if (s->image_count == COPIES_MAX || !half_means_same(h, i->member) || segment_on_member(s, i->member) ||
        !slot_take(&p->members[i->member], i->slot, s))
        return;
    s->images[s->image_count++] = (struct image){.member = i->member, .slot = i->slot,
                                                 .unproved = i->unproved || unproved, .holed = i->holed};
}

/* MRG-5 */
static enum err merge_drop_gone(struct half *h, struct segment *s, uint32_t i)
{
    bool gone = false;
    enum err e = h->pool->members[s->images[i].member].present ? reader_slot_gone(h->pool, s->id, &s->images[i], &gone)
                                                               : ERR_OK;
    if (gone)
        segment_lose_image(h->pool, s, i);
    return e;
}

/* MRG-2: what we believe of the other half's members ends where it knows better. */
static enum err merge_strip(struct half *h)
{
    struct pool *p = h->pool;
    enum err e = ERR_OK;
    for (uint32_t n = 0; n < p->segment_used && e == ERR_OK; n++) {
        struct segment *s = &p->segments[n];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL)
            continue;
        bool listed = segment_find(h->view, s->id) != NULL, dead = half_freed(h, s);
        s->chunks_only = s->chunks_only || (dead && h->theirs_here);
        for (uint32_t i = s->image_count; i-- > 0 && e == ERR_OK;) {
            if (!half_has(h, s->images[i].member))
                continue;
            const struct member *there = &h->view->members[s->images[i].member];
            bool other = s->images[i].slot < there->slot_count && there->slot_owner[s->images[i].slot] != 0;
            if (listed || dead || other)
                segment_lose_image(p, s, i);
            else
                e = merge_drop_gone(h, s, i);
        }
        s->chunks_only = s->chunks_only || (dead && s->image_count == 0); /* nothing is left of it, and nothing is lost */
    }
    return e;
}

/* MRG-3. A SEAL by the run that wrote the segment is final, whoever knows of it. */
static void merge_ends(struct segment *s, const struct segment *theirs)
{
    bool final = s->state == SEGMENT_SEALED && !s->by_recovery;
    if (final)
        return;
    if (theirs->state == SEGMENT_SEALED && !theirs->by_recovery) {
        s->state = SEGMENT_SEALED;
        s->by_recovery = false;
        s->length = theirs->length;
        return;
    }
    s->length = s->state == SEGMENT_SEALED && s->length > theirs->length ? s->length : theirs->length;
    s->state = SEGMENT_SEALED;
    s->by_recovery = true;
    for (uint32_t i = 0; i < s->image_count; i++)
        s->images[i].unproved = true;
}

static enum err merge_segment(struct half *h, const struct segment *theirs)
{
    struct pool *p = h->pool;
    struct segment *s = segment_find(p, theirs->id);
    enum err e = ERR_OK;
    bool known = s != NULL, dead = !known && table_says_dead(p, theirs->id);
    if (theirs->provisional)
        return ERR_OK; /* EXC-1: to them it holds nothing, and neither is it dead */
    if (known)
        s->provisional = false; /* they went on */
    if (!known) {
        s = segment_add(p, theirs->id, SEGMENT_MAIL);
        if (!s)
            return ERR_CORRUPT; /* more segments than slots */
        s->state = theirs->state;
        s->by_recovery = theirs->by_recovery;
        s->length = theirs->length;
        s->table_known = s->adopted = true;
        s->chunks_only = dead && h->ours_here;
    }
    s->unread = s->unread || theirs->unread;
    s->unfed = s->unfed || theirs->unread;
    s->chunks_only = s->chunks_only || theirs->chunks_only;
    for (uint32_t i = 0; i < theirs->image_count; i++) { /* what we freed we may have written over, but not on theirs */
        bool theirs_to_say = half_has(h, theirs->images[i].member);
        if (theirs_to_say || (!s->chunks_only && !p->members[theirs->images[i].member].present))
            image_add(h, s, &theirs->images[i], !theirs_to_say);
    }
    bool nowhere = s->image_count == 0 && !s->chunks_only && !dead;
    for (uint32_t i = 0, before = 0; i < theirs->image_count && nowhere && e == ERR_OK; i++, before = s->image_count) {
        image_add(h, s, &theirs->images[i], true); /* where nobody contradicts */
        if (s->image_count > before)
            e = merge_drop_gone(h, s, before);
    }
    s->chunks_only = s->chunks_only || (dead && s->image_count == 0);
    if (known)
        merge_ends(s, theirs);
    return e;
}

/* What has no place left. Of what one half has freed that is no wonder. */
static void merge_drop_placeless(struct pool *p)
{
    for (uint32_t n = 0; n < p->segment_used; n++) {
        struct segment *s = &p->segments[n];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL || s->image_count > 0)
            continue;
        if (!s->chunks_only && !s->provisional)
            pool_event(p, EVENT_record_lost, NULL, "segment %llu: the halves of the pool know no place of it",
                       (unsigned long long)s->id.counter);
        segment_drop(p, s);
    }
}

/* Its table's slots stay taken: should this mount die, the next reads it again. They are free after the next mount. */
static void merge_keep_table(struct half *h)
{
    struct pool *p = h->pool;
    struct segment *s = segment_find(p, h->super->table) ? NULL : segment_add(p, h->super->table, SEGMENT_TABLE);
    if (!s)
        return;
    s->state = SEGMENT_CLOSED;
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        struct image at = {.member = (uint8_t)h->super->table_images[i].member, .slot = h->super->table_images[i].slot};
        if (h->super->table_images[i].member < MEMBERS_MAX && half_has(h, at.member))
            image_add(h, s, &at, false);
    }
}

/* Does it know of anything that we do not? A member that only was away holds an older state of ours, and so does one that is the only one
 * to tell of a mount which died before it opened a segment: what that lists and we do not we have freed. */
static bool half_has_news(const struct half *h)
{
    struct pool *p = h->pool, *v = h->view;
    for (uint32_t i = 0; i < v->incarnation_count; i++) {
        const struct incarnation *ours = table_incarnation(p, v->incarnations[i].incarnation);
        if ((ours ? ours->high_water : 0) < v->incarnations[i].high_water)
            return true;
    }
    for (uint32_t n = 0; n < v->segment_used; n++) {
        const struct segment *s = &v->segments[n];
        if (s->state != SEGMENT_UNUSED && s->kind == SEGMENT_MAIL && !segment_find(p, s->id) && !table_says_dead(p, s->id))
            return true;
    }
    for (uint32_t n = 0; n < p->segment_used; n++) {
        const struct segment *s = &p->segments[n];
        if (s->state != SEGMENT_UNUSED && s->kind == SEGMENT_MAIL && half_freed(h, s))
            return true;
    }
    return false;
}

static enum err merge_incarnation(struct pool *p, const struct incarnation *theirs)
{
    enum err e = table_note_incarnation(p, theirs->incarnation, theirs->high_water);
    return e == ERR_OK ? table_note_read(p, (struct segment_id){theirs->incarnation, theirs->last_table}) : e;
}

static enum err merge_view(struct half *h)
{
    struct pool *p = h->pool;
    const struct pool *v = h->view;
    enum err e = ERR_OK;
    pool_event(p, EVENT_pool_diverged, h->speaker, "this member was in service without the others; its mail is merged");
    h->theirs_here = half_is_here(h, v);
    h->ours_here = half_is_here(h, p);
    e = merge_strip(h);
    merge_keep_table(h);
    for (uint32_t n = 0; n < v->segment_used && e == ERR_OK; n++)
        if (v->segments[n].state != SEGMENT_UNUSED && v->segments[n].kind == SEGMENT_MAIL)
            e = merge_segment(h, &v->segments[n]);
    if (e != ERR_OK)
        return e;
    merge_drop_placeless(p);
    p->table_partial = p->table_partial || v->table_partial;
    p->next_sequence = v->next_sequence > p->next_sequence ? v->next_sequence : p->next_sequence;
    p->next_table = v->next_table > p->next_table ? v->next_table : p->next_table;
    p->clock_base_ms = v->clock_base_ms > p->clock_base_ms ? v->clock_base_ms : p->clock_base_ms;
    p->index_discard = true;
    return e;
}

enum err merge_half(struct pool *p, struct member *m)
{
    const struct superblock *super = &p->superblocks[m->target];
    struct half h = {.pool = p, .speaker = m, .super = super, .view = view_make(p, super)};
    if (!h.view)
        return ERR_NO_MEMORY;
    struct image images[COPIES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        uint32_t n = super->table_images[i].member;
        if (n < MEMBERS_MAX && p->members[n].used && uuid_equal(p->members[n].uuid, super->members[n].uuid))
            images[count++] = (struct image){.member = (uint8_t)n, .slot = super->table_images[i].slot};
    }
    enum err e = count ? table_load(p, h.view, super->table, images, count) : ERR_NOT_FOUND;
    if (e == ERR_OK)
        half_know_members(&h);
    if (e == ERR_OK && half_has_news(&h))
        e = merge_view(&h);
    for (uint32_t i = 0; i < h.view->incarnation_count && e == ERR_OK; i++)
        e = merge_incarnation(p, &h.view->incarnations[i]);
    view_free(h.view);
    return e;
}
