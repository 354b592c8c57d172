/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: who is in the pool and on what terms: candidates that join, members that leave, spares that take over, and the
 * door upkeep.h for members.
 *
 *   candidate [pool_format_candidate] -> member or spare [roster_admit, at a mount]
 *   spare -> member [another is lost: spare_takes_over; too few serve: spare_fills_up]
 *   absent -> removed [member_give_up]
 *   member -> evacuating [member_evacuate] -> leaving [replaced, or removed when empty] -> removed [roster_leave]
 *
 * Invariants: ROS-1: membership changes only by superblocks of a higher epoch; a candidate carries all there is to know,
 * so that a crash leaves the pool as it was, with the candidate waiting for the next mount, or as it will be. ROS-2: a
 * member is removed only when no segment has an image there, or when it is given up. ROS-3: one spare for one lost member.
 * ROS-4: who evacuates or is spare serves all the same while fewer than min_copies domains would be left without it. ROS-5: who is
 * away and given up counts as removed, whatever lies there, and only when the superblocks say so: until then it might come back.
 * ROS-6: no spare waits while fewer than `copies` domains serve, it would add one, and nobody is out who may come back: who was removed
 * before a spare was due leaves a place that nobody else asks for.
 * Never: moves data; rebuild.c does, because the plans say so. */
#include "mount.h"
#include "upkeep_parts.h"

#include <base/text.h>
#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROSTER_LOOK_NS (500 * NS_PER_MS)
#define SPARE_AFTER_DEFAULT_NS (60 * NS_PER_S) /* a pulled cable or a shelf that restarts is back sooner */
#define SPARE_AFTER_FAILED_NS (2 * NS_PER_S)   /* it does not come back by itself */

struct roster {
    struct pool *pool;
    uint64_t next_ns;
    bool eager;                /* the next image at once */
    struct segment *dropping;  /* the table is being told that an image of it does not count any more */
    uint8_t dropped;           /* that of this member */
};

/* --- joining --- */

bool roster_is_candidate(const struct superblock *s)
{
    return s->epoch == 0;
}

uint8_t roster_number(const struct pool *p, const struct superblock *s)
{
    for (uint8_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used && uuid_equal(p->members[i].uuid, s->member))
            return i;
    return NO_MEMBER;
}

static void roster_say_no(struct pool *p, const struct pool_member_config *c, const char *why)
{
    struct member ghost = {.pool = p};
    snprintf(ghost.name, sizeof ghost.name, "%s", c->name);
    pool_event(p, EVENT_member_foreign, &ghost, "%s is formatted for this pool but cannot join: %s", c->path, why);
}

/* An entry for one more member: an unused one. Removed members stay listed, so that they are refused. */
static struct member *roster_free_entry(struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (!p->members[i].used)
            return &p->members[i];
    return NULL;
}

static struct member *member_named_any(struct pool *p, const char *name)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used && strcmp(p->members[i].name, name) == 0)
            return &p->members[i];
    return NULL;
}

/* Names are unique: who had this one before is called NAME.old from now on. */
static void roster_rename(struct pool *p, const char *name)
{
    struct member *m = member_named_any(p, name);
    char next[MEMBER_NAME_BYTES];
    for (uint32_t n = 1; m && n <= MEMBERS_MAX; n++) {
        if (n == 1)
            snprintf(next, sizeof next, "%.24s.old", name);
        else
            snprintf(next, sizeof next, "%.24s.old%u", name, n);
        if (member_named_any(p, next))
            continue;
        text_copy(m->name, sizeof m->name, next);
        return;
    }
}

static bool roster_room(struct pool *p, const struct superblock *s, const struct pool_member_config *c)
{
    uint64_t slots = s->slot_count;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        slots += p->members[i].used ? p->members[i].slot_count : 0;
    const char *why = p->read_only                      ? "the pool is mounted read-only"
                      : s->slot_bytes != p->slot_bytes  ? "its segments have another size"
                      : !table_fits(slots, p->slot_bytes) ? "the segment table has no room for so many slots"
                      : !roster_free_entry(p)           ? "the member table is full"
                                                        : NULL;
    if (why)
        roster_say_no(p, c, why);
    return !why;
}

/* ROS-1. What is listed already had joined when a crash kept the news from its own superblocks. */
bool roster_admit(struct pool *p, const struct superblock *s, const struct pool_member_config *c)
{
    uint8_t listed = roster_number(p, s);
    if (listed != NO_MEMBER) {
        p->members[listed].joined = !p->members[listed].present;
        return !p->read_only;
    }
    if (!roster_room(p, s, c))
        return false;
    roster_rename(p, c->name);
    struct member *m = roster_free_entry(p);
    const char *replaces = NULL;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *o = &p->members[i];
        for (uint32_t k = 0; k < MEMBERS_MAX && o->used && !o->removed; k++)
            if (s->members[k].used && s->members[k].plan == PLAN_LEAVES && uuid_equal(s->members[k].uuid, o->uuid)) {
                o->plan = PLAN_LEAVES;
                replaces = o->name;
            }
    }
    *m = (struct member){.pool = p, .number = (uint8_t)(m - p->members), .used = true, .uuid = s->member, .joined = true,
                         .slot_count = s->slot_count, .spare = s->members[s->member_number].spare, .commits = m->commits};
    link_init(&m->commits);
    link_init(&m->durables);
    dispatch_init(&m->dispatch);
    text_copy(m->name, sizeof m->name, c->name);
    text_copy(m->domain, sizeof m->domain, s->members[s->member_number].domain);
    pool_event(p, EVENT_member_joined, m, "%s: %u slots%s%s%s%s", c->path, m->slot_count, m->spare ? ", as a spare" : "",
               replaces ? ", in the place of \"" : "", replaces ? replaces : "", replaces ? "\"" : "");
    return true;
}

/* --- states as planned --- */

static void roster_serve(struct member *m, const char *why)
{
    m->spare = false;
    m->covered = false;
    m->write_errors_in_row = 0;
    member_set_state(m, MEMBER_HEALTHY, "%s", why);
}

/* ROS-4 */
static void roster_call_up(struct pool *p)
{
    while (pool_domains_usable(p) < p->config.min_copies) {
        struct member *best = NULL;
        for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
            struct member *m = &p->members[i];
            bool could = m->used && m->present && (m->state == MEMBER_EVACUATING || m->state == MEMBER_SPARE);
            if (could && (!best || (best->state == MEMBER_SPARE && m->state == MEMBER_EVACUATING)))
                best = m; /* who holds mail comes first */
        }
        if (!best)
            return;
        roster_serve(best, "needed: without it fewer failure domains than min_copies are here");
    }
}

void roster_settle(struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!m->used || !m->present || m->removed)
            continue;
        if (m->spare)
            member_set_state(m, MEMBER_SPARE, "formatted; takes mail when another member is lost");
        else if (m->plan != PLAN_STAYS)
            member_set_state(m, MEMBER_EVACUATING, m->plan == PLAN_LEAVES ? "leaves the pool when it is empty" : "on request");
        else
            m->covered = false;
    }
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        watch_settle(&p->members[i]);
    roster_call_up(p);
}

/* --- spares --- */

static bool member_is_lost(const struct pool *p, const struct member *m, uint64_t *after_out)
{
    uint64_t patience = p->config.spare_after_ns ? p->config.spare_after_ns : SPARE_AFTER_DEFAULT_NS;
    bool down = m->state == MEMBER_FAILED || m->state == MEMBER_FAILING || m->state == MEMBER_EVACUATING;
    *after_out = down && patience > SPARE_AFTER_FAILED_NS ? SPARE_AFTER_FAILED_NS : patience;
    return m->used && !m->removed && !m->spare && !member_usable(m);
}

bool members_lost(const struct pool *p)
{
    uint64_t after;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (member_is_lost(p, &p->members[i], &after) && !p->members[i].covered)
            return true;
    return false;
}

static uint32_t domain_used(const struct pool *p, const struct member *m)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (&p->members[i] != m && member_usable(&p->members[i]) && members_share_domain(&p->members[i], m))
            return 1;
    return 0;
}

/* The spare that adds a failure domain comes first. */
static struct member *spare_choose(struct pool *p)
{
    struct member *best = NULL;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (m->used && m->present && m->state == MEMBER_SPARE && (!best || domain_used(p, m) < domain_used(p, best)))
            best = m;
    }
    return best;
}

static void spare_takes_over(struct pool *p, struct member *lost)
{
    struct member *spare = spare_choose(p);
    char why[128];
    if (!spare)
        return;
    snprintf(why, sizeof why, "takes the place of \"%s\" (%s)", lost->name, member_state_word(lost->state));
    roster_serve(spare, why);
    lost->covered = true; /* ROS-3 */
    p->epoch++;
    pool_update_state(p);
    superblock_update(p, NULL);
}

/* ROS-6 */
static void spare_fills_up(struct pool *p)
{
    struct member *spare = spare_choose(p);
    if (!spare || members_lost(p) || pool_domains_usable(p) >= p->config.copies || domain_used(p, spare))
        return;
    roster_serve(spare, "needed: fewer failure domains than copies serve, and nobody is out who may come back");
    p->epoch++;
    pool_update_state(p);
    superblock_update(p, NULL);
}

static void roster_watch_spares(struct pool *p)
{
    uint64_t now = io_now_ns(p->io), after;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (member_is_lost(p, m, &after) && !m->covered && now - m->left_ns >= after)
            spare_takes_over(p, m);
    }
    spare_fills_up(p);
}

static bool superblocks_settled(const struct pool *p)
{
    return !p->super.running && !p->super.again;
}

/* --- leaving --- */

static bool member_holds(const struct pool *p, const struct member *m)
{
    for (uint32_t i = 0; i < p->segment_used; i++)
        if (p->segments[i].state != SEGMENT_UNUSED && segment_on_member(&p->segments[i], m->number))
            return true;
    return false;
}

/* ROS-2 */
static void roster_leave(struct member *m, const char *why)
{
    struct pool *p = m->pool;
    m->removed = true;
    m->present = false;
    m->plan = PLAN_STAYS;
    member_set_state(m, MEMBER_REMOVED, "%s", why);
    p->epoch++;
    superblock_update(p, NULL);
    pool_update_state(p);
}

static void roster_on_dropped(struct table_group *t, enum err e)
{
    struct roster *r = t->pool->roster;
    struct segment *s = r->dropping;
    r->dropping = NULL;
    r->eager = true;
    s->rebuilding = false;
    if (e != ERR_OK || s->refs > 0 || s->repairing || s->state != SEGMENT_SEALED)
        return; /* in use: told again later */
    segment_drop_image(t->pool, s, r->dropped);
}

/* An image nobody needs: `copies` others count. It was kept because it might have held more than we knew. */
static void roster_drop_image(struct pool *p, struct segment *s, uint8_t member)
{
    struct roster *r = p->roster;
    struct image old[COPIES_MAX];
    uint8_t count = s->image_count, kept = 0;
    memcpy(old, s->images, sizeof old);
    for (uint32_t i = 0; i < count; i++)
        if (old[i].member != member)
            s->images[kept++] = old[i];
    s->image_count = kept;
    enum err e = kept > 0 ? table_submit(p, RECORD_SEAL, s, roster_on_dropped) : ERR_INVALID;
    memcpy(s->images, old, sizeof old); /* as it is until the record is durable */
    s->image_count = count;
    if (e != ERR_OK)
        return;
    r->dropping = s;
    r->dropped = member;
    s->rebuilding = true;
}

/* What the others lack this one may have (EVI-2). */
static bool segment_holed_without(const struct segment *s, const struct member *m)
{
    bool holed = false;
    for (uint32_t i = 0; i < s->image_count; i++)
        holed = holed || (s->images[i].holed && s->images[i].member != m->number);
    return holed;
}

static bool segment_can_spare(const struct pool *p, const struct segment *s, const struct member *m)
{
    if (!m->removed && segment_holed_without(s, m))
        return false;
    if (s->kind != SEGMENT_MAIL || s->state != SEGMENT_SEALED || s->refs || s->repairing || s->rebuilding ||
        s->compacting || (s->unread && !m->removed) || !segment_on_member(s, m->number))
        return false;
    return (uint32_t)__builtin_popcount(segment_images_counting(p, s)) >= p->config.copies; /* `m` is out of service */
}

static void roster_watch_leaving(struct pool *p)
{
    for (uint32_t n = 0; n < MEMBERS_MAX; n++) {
        struct member *m = &p->members[n];
        if (!m->used || (!m->removed && m->plan != PLAN_LEAVES) || member_usable(m))
            continue;
        if (!m->removed && !member_holds(p, m)) {
            roster_leave(m, "nothing is left on it");
            continue;
        }
        for (uint32_t i = 0; i < p->segment_used && !p->roster->dropping; i++)
            if (segment_can_spare(p, &p->segments[i], m))
                roster_drop_image(p, &p->segments[i], m->number);
    }
}

/* --- giving up --- */

/* ROS-5. A mount between the request and this finds the member as it was or removed, by the superblocks it finds. */
static void roster_watch_given_up(struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX && superblocks_settled(p); i++) {
        struct member *m = &p->members[i];
        if (!m->used || !m->given_up)
            continue;
        m->given_up = false;
        roster_leave(m, "given up on request: what only it held is lost");
        lost_members(p);
    }
}

void roster_step(struct pool *p)
{
    if (!p->roster)
        p->roster = calloc(1, sizeof *p->roster);
    struct roster *r = p->roster;
    if (r && p->mounted && !p->stopping)
        roster_watch_given_up(p);
    if (!r || !p->mounted || p->stopping || (io_now_ns(p->io) < r->next_ns && !r->eager))
        return;
    r->next_ns = io_now_ns(p->io) + ROSTER_LOOK_NS;
    r->eager = false;
    if (pool_domains_usable(p) < p->config.min_copies) {
        roster_call_up(p);
        pool_update_state(p);
        superblock_update(p, NULL);
    }
    roster_watch_spares(p);
    roster_watch_leaving(p);
}

bool roster_idle(const struct pool *p)
{
    return !p->roster || !p->roster->dropping;
}

void roster_fini(struct pool *p)
{
    free(p->roster);
    p->roster = NULL;
}

/* --- the door --- */

static struct member *member_named(struct pool *p, const char *name)
{
    struct member *m = member_named_any(p, name);
    return m && !m->removed ? m : NULL;
}

enum err member_evacuate(struct pool *p, const char *name)
{
    struct member *m = member_named(p, name);
    if (!m)
        return ERR_NOT_FOUND;
    if (p->read_only || !m->present || m->state == MEMBER_FAILED || m->state == MEMBER_ABSENT)
        return ERR_INVALID;
    if (m->state != MEMBER_EVACUATING && member_usable(m) && pool_domains_usable(p) <= p->config.min_copies)
        return ERR_BELOW_POLICY;
    if (m->plan == PLAN_STAYS)
        m->plan = PLAN_EVACUATES;
    m->spare = false; /* it does not become one by being emptied */
    if (member_usable(m)) {
        member_leave(m, MEMBER_EVACUATING, "on request");
    } else {
        member_set_state(m, MEMBER_EVACUATING, "on request");
        superblock_update(p, NULL);
    }
    return ERR_OK;
}

enum err member_clear(struct pool *p, const char *name)
{
    struct member *m = member_named(p, name);
    if (!m)
        return ERR_NOT_FOUND;
    bool late = m->ops > 0 && m->state != MEMBER_SPARE && m->state != MEMBER_EVACUATING;
    if (!m->present || m->state == MEMBER_FAILED || m->state == MEMBER_ABSENT || late)
        return ERR_INVALID; /* what failed a flush or a row of writes is whole again only after a mount */
    watch_clear(m);
    m->plan = PLAN_STAYS;
    p->epoch += m->spare;
    roster_serve(m, "cleared on request");
    pool_update_state(p);
    superblock_update(p, NULL);
    return ERR_OK;
}

enum err member_remove(struct pool *p, const char *name, bool when_empty)
{
    struct member *m = member_named(p, name);
    if (!m)
        return ERR_NOT_FOUND;
    if (p->read_only)
        return ERR_READ_ONLY;
    if (!member_usable(m) && !member_holds(p, m)) {
        roster_leave(m, "on request");
        return ERR_OK;
    }
    if (!when_empty)
        return member_usable(m) ? ERR_INVALID : ERR_BUSY; /* evacuate it first; it still holds something */
    enum err e = member_usable(m) ? member_evacuate(p, name) : ERR_OK;
    if (e != ERR_OK)
        return e;
    m->plan = PLAN_LEAVES;
    superblock_update(p, NULL);
    return ERR_OK;
}

/* Whether all that a segment has would be on members that are removed, with this one. */
static bool segment_falls_with(const struct pool *p, const struct segment *s, const struct member *m)
{
    bool falls = s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && s->length > BLOCK_BYTES && s->image_count > 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        falls = falls && (s->images[i].member == m->number || p->members[s->images[i].member].removed);
    return falls;
}

enum err member_give_up(struct pool *p, const char *name, bool dry_run, struct member_loss *loss_out)
{
    struct member *m = member_named(p, name);
    *loss_out = (struct member_loss){0};
    if (!m)
        return ERR_NOT_FOUND;
    if (p->read_only)
        return ERR_READ_ONLY;
    if (m->present)
        return ERR_INVALID;
    if (p->index && !p->index_ready)
        return ERR_BUSY; /* it is the index that knows whose mail it is */
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        if (!segment_falls_with(p, s, m))
            continue;
        loss_out->messages += s->live_messages;
        loss_out->segments_unknown += s->unread;
    }
    if (dry_run || m->given_up)
        return ERR_OK;
    if (!m->covered && !m->spare)
        spare_takes_over(p, m);
    m->given_up = true;
    p->epoch++;
    superblock_update(p, NULL);
    return ERR_OK;
}

bool members_settled(const struct pool *p)
{
    bool settled = superblocks_settled(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        settled = settled && !(p->members[i].used && p->members[i].given_up);
    return settled;
}
