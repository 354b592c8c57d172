/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what mount learns from the members: who they are, the segment table, and the ends of segments that a crash
 * left open. Blocking. Idempotent: it changes only what a second run would change in the same way.
 * Invariants: REC-1: identity decides, never position. REC-2: a frame valid on any image is kept and made whole on
 * every present image before anything is done because of it. REC-3: a bad frame followed by a valid one is corruption,
 * not the torn end. REC-4: what could not be read for want of memory fails the mount: only what the members say counts as
 * damage. REC-6: a segment whose images are all away is not empty: what it holds is unknown (`unread`), and retire.c keeps
 * it until one of them is back. REC-5: what image headers told is in the TABLE that the mount writes; they never raise an
 * incarnation's high-water mark, for what they did not show may lie on a member that is away. REC-7: what recovery sealed without an
 * image grows by what that image, back again, holds behind the end, but not by copies: they were not acknowledged, and the mail in them
 * has been moved again from where it was, or retired. Where the index knew of more than the images showed (`unread`), all counts. */
#include "mount.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <base/text.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- superblocks --- */

struct found { struct superblock s; enum err e; uint32_t good; };

static bool newer(const struct superblock *a, const struct superblock *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->update > b->update;
}

/* The pool that was mounted here before wins outright; of equals the one whose member names are the configured ones. */
static uint32_t recover_head_start(const struct superblock *s, const struct pool_config *config)
{
    static const struct uuid none;
    if (!uuid_equal(config->expected, none) && uuid_equal(s->pool, config->expected))
        return 1000 * MEMBERS_MAX;
    uint32_t names = 0;
    for (uint32_t c = 0; c < config->member_count; c++)
        for (uint32_t i = 0; i < MEMBERS_MAX; i++)
            names += s->members[i].used && strcmp(s->members[i].name, config->members[c].name) == 0;
    return names;
}

/* The pool most members belong to; of two equal halves the one mounted more often. */
static const struct superblock *recover_vote(const struct found *found, uint32_t count, const struct pool_config *config)
{
    const struct superblock *best = NULL;
    uint32_t best_votes = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found[i].e != ERR_OK || roster_is_candidate(&found[i].s))
            continue;
        uint32_t votes = recover_head_start(&found[i].s, config);
        const struct superblock *newest = &found[i].s;
        for (uint32_t j = 0; j < count; j++) {
            if (found[j].e != ERR_OK || !uuid_equal(found[j].s.pool, found[i].s.pool) || roster_is_candidate(&found[j].s))
                continue;
            votes += 2 * MEMBERS_MAX; /* a member counts more than any name */
            if (newer(&found[j].s, newest))
                newest = &found[j].s;
        }
        if (votes > best_votes || (votes == best_votes && newer(newest, best))) {
            best = newest;
            best_votes = votes;
        }
    }
    return best;
}

static void recover_member_of_table(struct pool *p, const struct superblock *newest, uint32_t i)
{
    struct member *m = &p->members[i];
    m->pool = p;
    m->number = (uint8_t)i;
    m->used = newest->members[i].used;
    m->uuid = newest->members[i].uuid;
    m->removed = newest->members[i].removed;
    m->was_in_sync = newest->members[i].in_sync;
    m->slot_count = newest->members[i].slot_count;
    m->plan = newest->members[i].plan;
    m->spare = newest->members[i].spare;
    m->covered = newest->members[i].covered;
    m->slow_count = newest->members[i].slow_count;
    m->slow_minutes = newest->members[i].slow_minutes;
    m->watch.stays_out = newest->members[i].stays_out;
    watch_remember(m, newest->clock_ms);
    memcpy(m->name, newest->members[i].name, sizeof m->name);
    memcpy(m->domain, newest->members[i].domain, sizeof m->domain);
}

/* The member a target holds enters service. */
static void recover_attach(struct pool *p, uint16_t target, const struct found *f, const struct superblock *newest)
{
    uint8_t number = PLANTED(position_not_identity) ? (uint8_t)target : roster_number(p, &f->s);
    struct member *m = &p->members[number == NO_MEMBER ? f->s.member_number : number];
    const struct pool_member_config *c = &p->config.members[target];
    if (!m->used || (!uuid_equal(m->uuid, f->s.member) && !PLANTED(position_not_identity)) || m->removed) {
        struct member ghost = {.pool = p};
        snprintf(ghost.name, sizeof ghost.name, "%s", c->name);
        pool_event(p, EVENT_member_foreign, &ghost, "%s was removed from this pool and is refused", c->path);
        return;
    }
    if (m->present) { /* a copy of a member we have: the newer one counts */
        pool_event(p, EVENT_member_stale, m, "%s is an older copy of the member at %s and is left alone", c->path, m->path);
        return;
    }
    m->present = true;
    m->target = target;
    m->slot_count = f->s.slot_count;
    m->slot_bytes = f->s.slot_bytes;
    m->slots_offset = f->s.slots_offset;
    m->member_bytes = f->s.member_bytes;
    m->durable_by = f->s.durable_by;
    m->superblock_good = f->good;
    m->retired_count = f->s.retired_count;
    memcpy(m->retired, f->s.retired, sizeof m->retired);
    m->loaded_incarnation = f->s.incarnation;
    p->superblocks[target] = f->s;
    m->behind = newer(newest, &f->s) && !m->joined;
    p->io->ops->target_set_durable_by(p->io, target, m->durable_by);
    p->member_of_target[target] = m->number;
    text_copy(m->path, sizeof m->path, c->path);
    snprintf(m->serial, sizeof m->serial, "%s", io_target(p->io, target)->serial);
    m->domain_named = c->domain[0] != '\0';
    if (m->domain_named)
        text_copy(m->domain, sizeof m->domain, c->domain);
    if (strcmp(c->name, m->name) != 0)
        pool_event(p, EVENT_member_stale, m, "configured as \"%s\": %s holds member \"%s\", recognised by identity",
                   c->name, c->path, m->name);
    member_set_state(m, MEMBER_HEALTHY, "superblock is valid");
    if (m->superblock_good != (1u << SUPERBLOCK_COPIES) - 1)
        pool_event(p, EVENT_superblock_repaired, m, "copies %#x of %#x are good; the others are written anew",
                   m->superblock_good, (1u << SUPERBLOCK_COPIES) - 1);
}

static void recover_absent(struct pool *p, const struct found *found, uint32_t count)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!m->used || m->present)
            continue;
        m->slot_bytes = p->slot_bytes;
        m->left_ns = io_now_ns(p->io);
        snprintf(m->path, sizeof m->path, "(unknown)");
        const char *why = "not configured";
        for (uint32_t t = 0; t < count; t++) {
            if (strcmp(p->config.members[t].name, m->name) != 0)
                continue;
            snprintf(m->path, sizeof m->path, "%s", p->config.members[t].path);
            why = found[t].e == ERR_OK ? "its place holds another member" : err_text(found[t].e);
            if (found[t].e == ERR_NOT_FOUND)
                why = "no superblock is there";
        }
        member_set_state(m, m->removed ? MEMBER_REMOVED : MEMBER_ABSENT, "%s: %s", m->path, why);
    }
}

enum err recover_superblocks(struct pool *p, struct superblock *newest_out)
{
    struct found *found = calloc(MEMBERS_MAX, sizeof *found);
    p->superblocks = calloc(MEMBERS_MAX, sizeof *p->superblocks);
    if (!found || !p->superblocks) {
        free(found);
        return ERR_NO_MEMORY;
    }
    uint32_t count = p->config.member_count;
    for (uint32_t t = 0; t < count; t++)
        found[t].e = io_target(p->io, (uint16_t)t)->present
                         ? superblock_load(p->io, (uint16_t)t, &found[t].s, &found[t].good)
                         : ERR_MEMBER_GONE;
    for (uint32_t t = 0; t < count; t++)
        if (found[t].e == ERR_NO_MEMORY) { /* REC-4 */
            free(found);
            return ERR_NO_MEMORY;
        }
    const struct superblock *newest = recover_vote(found, count, &p->config);
    enum err e = newest ? ERR_OK : ERR_NOT_FOUND;
    if (newest) {
        *newest_out = *newest;
        p->uuid = newest->pool;
        p->slot_bytes = newest->slot_bytes;
        for (uint32_t i = 0; i < MEMBERS_MAX; i++)
            recover_member_of_table(p, newest_out, i);
    }
    /* newest first, so that of two copies of one member the newer enters service */
    for (int pass = 0; newest && pass < 3; pass++) {
        for (uint32_t t = 0; t < count; t++) {
            if (found[t].e != ERR_OK)
                continue;
            bool ours = uuid_equal(found[t].s.pool, p->uuid);
            bool fresh = !newer(newest_out, &found[t].s);
            bool candidate = roster_is_candidate(&found[t].s);
            if (ours && candidate && pass == 2 && roster_admit(p, &found[t].s, &p->config.members[t]))
                recover_attach(p, (uint16_t)t, &found[t], newest_out);
            if (candidate || pass == 2)
                continue;
            struct member ghost = {.pool = p};
            snprintf(ghost.name, sizeof ghost.name, "%s", p->config.members[t].name);
            if (!ours && pass == 0)
                pool_event(p, EVENT_member_foreign, &ghost, "%s belongs to another pool", p->config.members[t].path);
            if (ours && fresh == (pass == 0))
                recover_attach(p, (uint16_t)t, &found[t], newest_out);
        }
    }
    if (newest) {
        recover_absent(p, found, count);
        roster_settle(p);
    }
    free(found);
    return e;
}

/* --- the segment table --- */

static void recover_forget_segments(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++)
        if (p->segments[i].state != SEGMENT_UNUSED) {
            p->segments[i].table_known = false;
            segment_drop(p, &p->segments[i]);
        }
    p->incarnation_count = 0;
}

enum err table_load(struct pool *p, struct pool *into, struct segment_id id, const struct image *images, uint32_t count)
{
    struct reader r;
    enum err e = reader_open(&r, p, id, images, count);
    if (e != ERR_OK)
        return e;
    bool begun = false;
    struct frame_view view;
    uint64_t offset = BLOCK_BYTES, next;
    while (e == ERR_OK && (e = reader_frame(&r, offset, &view)) == ERR_OK) {
        uint32_t at = FRAME_HEAD_BYTES;
        struct record_view record;
        for (uint32_t n = 0; n < view.record_count && e == ERR_OK; n++) {
            e = verify_record(view.bytes, at, view.records_end, &record);
            if (e == ERR_OK)
                e = table_apply(into, &record, &begun);
            at = (at + record.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        }
        uint64_t after = view.sequence + view.record_count;
        into->next_sequence = after > into->next_sequence ? after : into->next_sequence;
        into->clock_base_ms = view.stamp_ms > into->clock_base_ms ? view.stamp_ms : into->clock_base_ms;
        offset += (uint64_t)view.blocks * BLOCK_BYTES;
    }
    if (e == ERR_NOT_FOUND || e == ERR_CORRUPT) {
        enum err behind = begun ? reader_resync(&r, offset, &next) : ERR_OK;
        e = behind == ERR_NOT_FOUND ? ERR_OK : behind == ERR_NO_MEMORY ? behind : ERR_CORRUPT; /* REC-3 */
    }
    if (e == ERR_OK && into->table_parts_missing > 0)
        e = ERR_CORRUPT; /* what it does not list would count as dead */
    reader_close(&r);
    return e == ERR_OK ? table_note_read(into, id) : e;
}

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
 * the slot was used again (SEG-2). */
static bool adopt_slot(struct member *m, uint32_t slot, struct segment *s)
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
        if (old->image_count == 0)
            segment_drop(p, old);
    }
    return slot_take(m, slot, s);
}

/* An image found by its header that the table does not name and does not know to be dead is live mail. REC-5: it counts
 * as known from here on, so that the TABLE this mount writes names it. */
static void recover_adopt(struct pool *p, struct member *m, const struct image_view *v)
{
    if (v->kind != SEGMENT_MAIL || table_says_dead(p, v->segment))
        return;
    struct segment *s = segment_find(p, v->segment);
    if (!s) {
        s = segment_add(p, v->segment, SEGMENT_MAIL);
        if (!s)
            return;
        s->state = SEGMENT_OPEN; /* its end has to be found */
        s->table_known = s->adopted = true;
    } else if (!s->adopted || segment_on_member(s, m->number) || s->image_count == COPIES_MAX) {
        return;
    }
    if (adopt_slot(m, v->slot, s))
        s->images[s->image_count++] = (struct image){.member = m->number, .slot = v->slot};
    if (s->image_count > 0)
        adopt_absent(p, s, v);
    else
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

static enum err recover_scan_member(struct pool *p, struct member *m,
                                    void (*found)(struct pool *, struct member *, const struct image_view *, void *),
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
            if (reads[i].result == ERR_NO_MEMORY)
                e = ERR_NO_MEMORY; /* REC-4 */
            else if (reads[i].result == ERR_OK && image_head_decode(reads[i].buffer, &v) == ERR_OK &&
                     uuid_equal(v.pool, p->uuid) && uuid_equal(v.member, m->uuid) && v.slot == slot + i)
                found(p, m, &v, owner);
        }
    }
    free(blocks);
    return e;
}

static enum err recover_scan_all(struct pool *p,
                                 void (*found)(struct pool *, struct member *, const struct image_view *, void *),
                                 void *owner)
{
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < MEMBERS_MAX && e == ERR_OK; i++)
        if (p->members[i].used && p->members[i].present)
            e = recover_scan_member(p, &p->members[i], found, owner);
    return e;
}

static void scan_adopts(struct pool *p, struct member *m, const struct image_view *v, void *owner)
{
    (void)owner;
    recover_adopt(p, m, v);
}

#define TABLES_FOUND_MAX 64u
struct tables_found { struct table_found t[TABLES_FOUND_MAX]; uint32_t count; };

static void scan_notes_tables(struct pool *p, struct member *m, const struct image_view *v, void *owner)
{
    (void)p;
    struct tables_found *f = owner;
    if (v->kind == SEGMENT_TABLE)
        recover_note_table(f->t, &f->count, TABLES_FOUND_MAX, m->number, v);
}

/* The slots of the table in force stay taken until the superblocks name its successor. */
static void recover_keep_table(struct pool *p, struct segment_id id, const struct image *images, uint32_t count)
{
    struct segment *s = segment_find(p, id) ? NULL : segment_add(p, id, SEGMENT_TABLE);
    if (!s)
        return;
    s->state = SEGMENT_CLOSED;
    for (uint32_t i = 0; i < count; i++)
        if (slot_take(&p->members[images[i].member], images[i].slot, s))
            s->images[s->image_count++] = images[i];
    p->table_segment = s;
}

/* What an older table names may have been freed since, and its slots discarded, or used and freed again: no header says so. */
static enum err recover_drop_gone(struct pool *p)
{
    enum err e = ERR_OK;
    for (uint32_t n = 0; n < p->segment_used && e == ERR_OK; n++) {
        struct segment *s = &p->segments[n];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL || s->adopted)
            continue;
        for (uint32_t i = s->image_count; i-- > 0 && e == ERR_OK;) {
            bool gone = false;
            if (p->members[s->images[i].member].present)
                e = reader_slot_gone(p, s->id, &s->images[i], &gone);
            if (gone)
                segment_lose_image(p, s, i);
        }
        if (e != ERR_OK || s->image_count > 0)
            continue;
        if (!s->chunks_only && !s->provisional)
            pool_event(p, EVENT_record_lost, NULL, "segment %llu: nothing is left of it where an older segment table names it",
                       (unsigned long long)s->id.counter);
        segment_drop(p, s);
    }
    return e;
}

/* The table the superblocks name is lost: the newest readable one that any header names, then everything it does not
 * know to be dead. */
static enum err recover_table_by_scan(struct pool *p)
{
    struct tables_found *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NO_MEMORY;
    enum err e = recover_scan_all(p, scan_notes_tables, f);
    uint64_t best = 0;
    uint32_t best_at = UINT32_MAX;
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
        e = recover_scan_all(p, scan_adopts, NULL);
    if (e == ERR_OK)
        e = recover_drop_gone(p);
    p->index_discard = true;
    p->table_scanned = true;
    if (e == ERR_OK && best_at != UINT32_MAX)
        recover_keep_table(p, f->t[best_at].id, f->t[best_at].images, f->t[best_at].count);
    free(f);
    return e;
}

/* A half whose table cannot be read is known by its image headers. */
static enum err recover_half(struct pool *p, struct member *m)
{
    uint32_t before = p->segment_count;
    enum err e = merge_half(p, m);
    if (e == ERR_OK || e == ERR_NO_MEMORY)
        return e;
    e = recover_scan_member(p, m, scan_adopts, NULL);
    p->index_discard = p->index_discard || p->segment_count > before;
    if (e == ERR_OK && p->segment_count > before)
        pool_event(p, EVENT_pool_diverged, m, "this member was in service without the others; its mail is merged");
    return e;
}

/* The newest of those that may know of something we do not (TAB-5): who has an older superblock of the same mount then only
 * was away. */
static struct member *halves_next(struct pool *p, uint32_t seen)
{
    struct member *next = NULL;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (m->used && m->present && !(seen & (1u << i)) && !table_covers(p, p->superblocks[m->target].table) &&
            (!next || newer(&p->superblocks[m->target], &p->superblocks[next->target])))
            next = m;
    }
    return next;
}

/* Two halves may carry one epoch number, and a half may be of an incarnation that we know, when it is the one that stayed in
 * service as the others left: what its superblocks say of others proves nothing, for they may be late by a moment. */
static enum err recover_halves(struct pool *p)
{
    enum err e = ERR_OK;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (m->used && m->present && m->behind && table_incarnation(p, m->loaded_incarnation))
            pool_event(p, EVENT_member_stale, m, "its superblock is older than the pool's; it is brought up to date");
    }
    for (struct member *m; e == ERR_OK && (m = halves_next(p, seen)) != NULL; seen |= 1u << m->number)
        e = recover_half(p, m);
    return e;
}

enum err recover_table(struct pool *p, const struct superblock *newest)
{
    struct image images[COPIES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        if (newest->table_images[i].member < MEMBERS_MAX && p->members[newest->table_images[i].member].used)
            images[count++] = (struct image){.member = (uint8_t)newest->table_images[i].member,
                                             .slot = newest->table_images[i].slot};
    if (segment_id_is_none(newest->table)) {
        enum err none = newest->incarnation ? recover_table_by_scan(p) : ERR_OK; /* never mounted: nothing to load */
        return none;
    }
    enum err e = table_load(p, p, newest->table, images, count);
    if (e == ERR_NO_MEMORY)
        return e; /* REC-4 */
    if (e != ERR_OK && !PLANTED(superblock_unchecked)) {
        recover_forget_segments(p);
        pool_event(p, EVENT_record_lost, NULL, "the segment table is not readable on any member: every image header is read");
        return recover_table_by_scan(p);
    }
    recover_keep_table(p, newest->table, images, count);
    return recover_halves(p);
}

/* --- ends of segments --- */

/* REC-2: writes the frame to every present image that does not hold it whole. */
static enum err tail_heal(struct pool *p, struct segment *s, struct reader *r, const struct frame_view *v)
{
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        if (!m->present || r->dead[i]) {
            s->images[i].unproved = true;
            continue;
        }
        if ((r->good_mask & (1u << i)) || p->read_only)
            continue;
        enum err e = sync_write_member(p->io, m, segment_image_offset(p, &s->images[i]) + v->offset, v->bytes,
                                       v->blocks * BLOCK_BYTES);
        if (e == ERR_NO_MEMORY)
            return e; /* REC-4 */
        if (e == ERR_TIMEOUT) { /* it is still out: nothing there is read or written any more */
            member_leave(m, MEMBER_SLOW, "a write is not answered at mount");
            r->dead[i] = true;
        }
        if (e != ERR_OK)
            s->images[i].unproved = true;
        else
            m->repaired_blocks += v->blocks;
    }
    return ERR_OK;
}

/* REC-7 */
static bool tail_takes(const struct segment *s, uint64_t offset, const struct frame_view *v)
{
    return s->state == SEGMENT_OPEN || s->unread || offset < s->length || segment_id_is_none(v->moved_from);
}

/* Frame after frame to the end, which the answer is when it is ERR_NOT_FOUND. */
static enum err tail_walk(struct pool *p, struct segment *s, struct reader *r, uint64_t *offset)
{
    struct frame_view v;
    uint64_t next;
    enum err e = reader_frame(r, *offset, &v);
    if (e == ERR_OK && !tail_takes(s, *offset, &v))
        return ERR_NOT_FOUND;
    if (e == ERR_OK) {
        if (!PLANTED(torn_tail_kept))
            e = tail_heal(p, s, r, &v);
        *offset += (uint64_t)v.blocks * BLOCK_BYTES;
        s->previous = v.digest.lo;
        uint64_t after = v.sequence + v.record_count;
        p->next_sequence = after > p->next_sequence ? after : p->next_sequence;
        p->clock_base_ms = v.stamp_ms > p->clock_base_ms ? v.stamp_ms : p->clock_base_ms;
        return e;
    }
    if (e == ERR_NO_MEMORY || (e = reader_resync(r, *offset, &next)) != ERR_OK)
        return e;
    pool_event(p, EVENT_frame_corrupt, NULL, "segment %llu: %llu bytes at %llu have no good copy", /* REC-3 */
               (unsigned long long)s->id.counter, (unsigned long long)(next - *offset), (unsigned long long)*offset);
    *offset = next;
    return ERR_OK;
}

static enum err recover_tail(struct pool *p, struct segment *s)
{
    struct reader r;
    enum err e = reader_open(&r, p, s->id, s->images, s->image_count);
    if (e != ERR_OK)
        return e;
    uint64_t offset = BLOCK_BYTES, known = s->state == SEGMENT_SEALED ? s->length : BLOCK_BYTES;
    bool blind = true;
    while (e == ERR_OK)
        e = tail_walk(p, s, &r, &offset);
    for (uint32_t i = 0; i < s->image_count; i++) {
        s->images[i].unproved = s->images[i].unproved || r.dead[i];
        blind = blind && r.dead[i];
    }
    reader_close(&r);
    if (e != ERR_NOT_FOUND)
        return e;
    s->unread = s->unread || blind; /* REC-6 */
    s->in_doubt = s->in_doubt || blind;
    s->length = offset > known ? offset : known; /* what was told before is not shorter because it cannot be read now */
    s->state = SEGMENT_SEALED;
    s->by_recovery = true;
    return ERR_OK;
}

/* REC-2: a frame that was in flight when the process died may lie in a volatile cache only: what was found counts from
 * here on, so it is made to stay before the table says so. On a member that stays out of service from this mount on, too. */
static enum err recover_flush(struct pool *p, uint32_t mask)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!(mask & (1u << i)) || !(member_kept(m) || (m->present && m->watch.stays_out)))
            continue;
        enum err e = sync_flush_member(p->io, m);
        if (e == ERR_NO_MEMORY)
            return e; /* REC-4 */
        if (e == ERR_OK)
            continue;
        m->errors_flush++;
        member_leave(m, e == ERR_MEMBER_GONE ? MEMBER_ABSENT : MEMBER_FAILED, "a flush failed at mount");
        for (uint32_t s = 0; s < p->segment_used; s++)
            for (uint32_t k = 0; k < p->segments[s].image_count; k++)
                if (p->segments[s].by_recovery && p->segments[s].images[k].member == i)
                    p->segments[s].images[k].unproved = true;
    }
    return ERR_OK;
}

/* What nobody could read before may be there now: the index learns of it by reading everything. */
static void recover_unread(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || !s->unread)
            continue;
        bool away = false;
        for (uint32_t k = 0; k < s->image_count; k++) {
            const struct member *m = &p->members[s->images[k].member];
            away = away || (!member_readable(m) && !m->removed);
        }
        if (away || segment_given_up(p, s))
            continue;
        s->unread = false;
        p->index_discard = true;
    }
}

/* EXC-1 */
static void recover_drop_provisional(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || !s->provisional)
            continue;
        s->table_known = false; /* no discard here: nothing is written before the mount decides to */
        segment_drop(p, s);
    }
}

/* Sealed by the run that wrote it: each image got all of it before it was acknowledged. Another half only did not know (MRG-2). */
static enum err recover_prove_final(struct pool *p, struct segment *s)
{
    enum err e = ERR_OK;
    for (uint32_t k = 0; k < s->image_count && e == ERR_OK; k++) {
        bool gone = true;
        if (s->images[k].unproved && p->members[s->images[k].member].present)
            e = reader_slot_gone(p, s->id, &s->images[k], &gone);
        s->images[k].unproved = s->images[k].unproved && gone;
    }
    return e;
}

enum err recover_tails(struct pool *p)
{
    enum err e = ERR_OK;
    uint32_t walked = 0;
    recover_drop_provisional(p);
    for (uint32_t i = 0; i < p->segment_used && e == ERR_OK; i++) {
        struct segment *s = &p->segments[i];
        bool unproved = false; /* an image that was away when recovery sealed it is here now */
        for (uint32_t k = 0; k < s->image_count; k++)
            unproved = unproved || (s->images[k].unproved && p->members[s->images[k].member].present);
        if (s->state == SEGMENT_SEALED && !s->by_recovery && unproved)
            e = recover_prove_final(p, s);
        if (s->state == SEGMENT_SEALED && s->by_recovery && unproved)
            for (uint32_t k = 0; k < s->image_count; k++)
                s->images[k].unproved = false;
        if (s->state == SEGMENT_OPEN || (s->state == SEGMENT_SEALED && s->by_recovery && unproved)) {
            for (uint32_t k = 0; k < s->image_count; k++)
                walked |= 1u << s->images[k].member;
            e = recover_tail(p, s);
        }
    }
    if (e == ERR_OK && !p->read_only && !PLANTED(recovery_unflushed))
        e = recover_flush(p, walked);
    recover_unread(p);
    return e;
}
