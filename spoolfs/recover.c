/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what mount learns from the members: who they are, and the segment table. Blocking. Idempotent: it changes only
 * what a second run would change in the same way. Where no table can be read, recover_scan.c asks the image headers; the
 * ends of segments that a crash left open are found by recover_tails.c.
 * Invariants: REC-1: identity decides, never position. REC-4: what could not be read for want of memory fails the mount: only
 * what the members say counts as damage. REC-2, REC-3, REC-6, REC-7: recover_tails.c; REC-5: recover_scan.c. */
#include "recover.h"
#include "table.h"
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

bool members_away(const struct pool *p)
{
    bool away = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        away = away || (p->members[i].used && !p->members[i].present && !p->members[i].removed);
    return away;
}

/* --- the segment table --- */

void recover_forget_segments(struct pool *p)
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

/* The slots of the table in force stay taken until the superblocks name its successor. */
void recover_keep_table(struct pool *p, struct segment_id id, const struct image *images, uint32_t count)
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

/* A half whose table cannot be read is known by its image headers. */
static enum err recover_half(struct pool *p, struct member *m)
{
    uint32_t before = p->segment_count;
    enum err e = merge_half(p, m);
    if (e == ERR_OK || e == ERR_NO_MEMORY)
        return e;
    e = recover_scan_half(p, m);
    p->table_partial = true; /* of that half */
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
