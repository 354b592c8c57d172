/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the segments in memory, the slots of members, and how a segment is opened.
 *
 *   UNUSED -> OPENING [segment_open] -> OPEN [OPEN durable] -> CLOSED [commit_close_segment] -> SEALED [SEAL durable]
 *          -> FREEING [retire] -> UNUSED [FREED durable: segment_drop]
 *
 * Invariants: SEG-1, SEG-2 (engine.h). SEG-3: slot_owner[s] names the segment whose image lies in slot s. */
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

static uint32_t segment_hash_of(const struct pool *p, struct segment_id id)
{
    uint64_t h = (id.incarnation ^ id.counter * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(h >> 32) & p->segment_hash_mask;
}

uint32_t segment_index(const struct pool *p, const struct segment *s)
{
    return (uint32_t)(s - p->segments);
}

struct segment *segment_find(struct pool *p, struct segment_id id)
{
    for (uint32_t i = p->segment_hash[segment_hash_of(p, id)]; i; i = p->segments[i - 1].hash_next)
        if (segment_id_equal(p->segments[i - 1].id, id))
            return &p->segments[i - 1];
    return NULL;
}

struct segment *segment_add(struct pool *p, struct segment_id id, enum segment_kind kind)
{
    ASSERT(segment_find(p, id) == NULL);
    struct segment *s;
    if (p->segments_free_head) {
        s = &p->segments[p->segments_free_head - 1];
        p->segments_free_head = s->hash_next;
    } else if (p->segment_used < p->segment_capacity) {
        s = &p->segments[p->segment_used++];
    } else {
        return NULL;
    }
    *s = (struct segment){.id = id, .kind = kind, .length = BLOCK_BYTES, .fed = BLOCK_BYTES};
    uint32_t *head = &p->segment_hash[segment_hash_of(p, id)];
    s->hash_next = *head;
    *head = segment_index(p, s) + 1;
    p->segment_count++;
    return s;
}

static void segment_unlink(struct pool *p, struct segment *s)
{
    uint32_t *at = &p->segment_hash[segment_hash_of(p, s->id)];
    while (*at && *at != segment_index(p, s) + 1)
        at = &p->segments[*at - 1].hash_next;
    ASSERT(*at != 0);
    *at = s->hash_next;
}

static void slot_discarded(struct member_op *mo)
{
    free(mo); /* the slot's busy count went down: it can be claimed now */
}

/* Block devices are told that the slot's contents are gone; file members are never punched. */
static void slot_discard(struct member *m, uint32_t slot)
{
    const struct io_target *t = io_target(m->pool->io, m->target);
    if (!m->present || !t->discards || t->is_file || m->slot_busy[slot] > 0)
        return; /* a late op is still out (SEG-2): not discarding costs only wear */
    struct member_op *mo = calloc(1, sizeof *mo);
    if (!mo)
        return; /* a discard that is not sent costs nothing but wear */
    mo->op = (struct io_op){.kind = IO_DISCARD, .class = IO_CLASS_COMPACT, .length = (uint32_t)m->slot_bytes,
                            .offset = m->slots_offset + slot * m->slot_bytes};
    mo->done = slot_discarded;
    member_submit(m, mo);
    link_push(&m->pool->discards, &mo->out);
}

void segment_forget_discards(struct pool *p)
{
    struct link *l;
    while ((l = link_pop(&p->discards)) != NULL)
        free(CONTAINER_OF(l, struct member_op, out));
}

void segment_drop(struct pool *p, struct segment *s)
{
    p->compact_stuck = p->results_stuck = false;
    ASSERT(s->refs == 0 && s->state != SEGMENT_UNUSED);
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        if (!m->slot_owner || m->slot_owner[s->images[i].slot] != segment_index(p, s) + 1)
            continue;
        m->slot_owner[s->images[i].slot] = 0;
        m->slots_free++;
        if (s->table_known)
            slot_discard(m, s->images[i].slot);
    }
    segment_unlink(p, s);
    free(s->deps);
    ASSERT(s->opening == NULL);
    if (s->dirty)
        p->dirty_segments--;
    *s = (struct segment){.state = SEGMENT_UNUSED, .hash_next = p->segments_free_head};
    p->segments_free_head = segment_index(p, s) + 1;
    p->segment_count--;
}

bool segment_on_member(const struct segment *s, uint8_t member)
{
    for (uint32_t i = 0; i < s->image_count; i++)
        if (s->images[i].member == member)
            return true;
    return false;
}

uint32_t segment_members(const struct segment *s)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        mask |= 1u << s->images[i].member;
    return mask;
}

uint32_t segment_image_at(const struct segment *s, const struct image *place)
{
    for (uint32_t i = 0; i < s->image_count; i++)
        if (s->images[i].member == place->member && s->images[i].slot == place->slot)
            return i;
    return COPIES_MAX;
}

uint64_t segment_image_offset(const struct pool *p, const struct image *i)
{
    const struct member *m = &p->members[i->member];
    return m->slots_offset + (uint64_t)i->slot * m->slot_bytes;
}

void segment_lose_image(struct pool *p, struct segment *s, uint32_t i)
{
    struct member *m = &p->members[s->images[i].member];
    if (m->slot_owner[s->images[i].slot] == segment_index(p, s) + 1) {
        m->slot_owner[s->images[i].slot] = 0;
        m->slots_free++;
    }
    s->images[i] = s->images[--s->image_count];
}

bool slot_take(struct member *m, uint32_t slot, struct segment *s)
{
    if (slot >= m->slot_count || m->slot_owner[slot] != 0)
        return false;
    m->slot_owner[slot] = segment_index(m->pool, s) + 1;
    ASSERT(m->slots_free > 0);
    m->slots_free--;
    m->slot_cursor = (slot + 1) % m->slot_count; /* also as the table is read at mount: slots go on being used in turn */
    return true;
}

/* Slots a class leaves untouched (docs/design/0016). A member keeps one for the segment table's next place, another while the
 * table is not on it - wherever the table goes, the mount after that finds a slot, whichever members are here - and one for
 * exchange.c, which frees slots when nothing else can. */
uint32_t slot_reserve(const struct member *m, enum spool_class class)
{
    const struct segment *table = m->pool->table_segment;
    uint32_t percent = m->slot_count * 3 / 100, kept = table && segment_on_member(table, m->number) ? 2 : 3;
    switch (class) {
    case SPOOL_NEW_MAIL:
        return percent > kept + 5 ? percent : kept + 5;
    case SPOOL_RESULT:
        return kept + 3;
    case SPOOL_COMPACTION:
        return kept;
    }
    return 0; /* SPOOL_TABLE */
}

bool slot_find(struct member *m, uint32_t *slot_out)
{
    for (uint32_t n = 0; n < m->slot_count; n++) {
        uint32_t slot = m->slot_cursor;
        m->slot_cursor = (slot + 1) % m->slot_count;
        if (m->slot_owner[slot] == 0 && (m->slot_busy[slot] == 0 || PLANTED(late_write_reused))) {
            *slot_out = slot;
            return true;
        }
    }
    return false;
}

void slot_retire(struct member *m, uint32_t slot)
{
    m->slot_owner[slot] = SLOT_RETIRED;
    for (uint32_t i = 0; i < m->retired_count; i++)
        if (m->retired[i] == slot)
            return;
    if (m->retired_count == SLOTS_RETIRED_MAX)
        return; /* until the next mount, then it shows again */
    m->retired[m->retired_count++] = slot;
    superblock_update(m->pool, NULL);
}

/* What a segment has is its own: a slot is retired only after the table gave its image another place. */
void slots_stay_retired(struct member *m)
{
    for (uint32_t i = 0; i < m->retired_count; i++) {
        if (m->slot_owner[m->retired[i]] != 0)
            continue;
        m->slot_owner[m->retired[i]] = SLOT_RETIRED;
        m->slots_free--;
    }
}

void segment_replace_image(struct pool *p, struct segment *s, uint32_t image, struct image by)
{
    ASSERT(image <= s->image_count && image < COPIES_MAX);
    if (image == s->image_count) {
        s->image_count++;
    } else {
        struct member *m = &p->members[s->images[image].member];
        uint32_t slot = s->images[image].slot;
        scrub_note_given_up(p, s, image);
        if (m->slot_owner[slot] == segment_index(p, s) + 1 && s->images[image].bad) {
            slot_retire(m, slot);
            pool_event(p, EVENT_slot_retired, m, "slot %u: a place stays bad; its image was made again elsewhere", slot);
        } else if (m->slot_owner[slot] == segment_index(p, s) + 1) {
            m->slot_owner[slot] = 0;
            m->slots_free++;
            slot_discard(m, slot);
        }
    }
    s->repairing &= (uint8_t)~(1u << image); /* REP-4: what may still be written to the old place keeps its slot, not the image */
    s->images[image] = by;
}

void segment_drop_image(struct pool *p, struct segment *s, uint8_t member)
{
    ASSERT(s->refs == 0 && s->image_count > 1);
    uint8_t kept = 0, count = s->image_count;
    for (uint32_t i = 0; i < count; i++)
        if (s->images[i].member == member)
            scrub_note_given_up(p, s, i);
    for (uint32_t i = 0; i < count; i++) {
        struct image image = s->images[i];
        struct member *m = &p->members[image.member];
        if (image.member != member) {
            s->images[kept++] = image;
        } else if (m->slot_owner[image.slot] == segment_index(p, s) + 1) {
            m->slot_owner[image.slot] = 0;
            m->slots_free++;
            slot_discard(m, image.slot);
        }
    }
    s->image_count = kept;
}

/* The members for a new segment: usable, in different domains, with room for the class, most free slots first and
 * then those that serve the fewest open segments. */
static uint32_t placement_choose(struct pool *p, enum spool_class class, uint32_t avoid_mask, uint32_t want,
                                 uint8_t members_out[COPIES_MAX])
{
    uint32_t count = 0, taken = avoid_mask;
    while (count < want) {
        struct member *best = NULL;
        uint64_t best_score = 0;
        for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
            struct member *m = &p->members[i];
            if ((taken & (1u << i)) || !member_usable(m) || m->slots_free <= slot_reserve(m, class))
                continue;
            bool clash = false;
            for (uint32_t j = 0; j < count; j++)
                clash = clash || members_share_domain(m, &p->members[members_out[j]]);
            uint32_t open = 0;
            for (uint32_t a = 0; a < p->appender_count; a++)
                open += p->appenders[a].segment && !p->appenders[a].moves && /* little is written there */
                        segment_on_member(p->appenders[a].segment, m->number);
            uint64_t score = (uint64_t)m->slots_free * 1024 / m->slot_count * 16 / (1 + open) + 3;
            if (m->state == MEMBER_SUSPECT || (table_behind(p) & (1u << i)))
                score = 2; /* only where nobody else is left */
            if (member_avoided(m))
                score = 1; /* what lands there would leave again at once, for what is left (segment_better_elsewhere) */
            if (!clash && score > best_score) {
                best = m;
                best_score = score;
            }
        }
        if (!best)
            break;
        members_out[count++] = best->number;
        taken |= 1u << best->number;
    }
    return count;
}

/* `copies`, or what the usable domains give while that is not below min_copies. */
uint32_t placement_want(const struct pool *p)
{
    uint32_t domains = pool_domains_usable(p), want = domains < p->config.copies ? domains : p->config.copies;
    return p->read_only || want < p->config.min_copies ? 0 : want;
}

/* How many images a new segment gets now. 0 with the reason when nothing can be opened. */
static uint32_t placement_plan(struct pool *p, enum spool_class class, uint32_t avoid_mask,
                               uint8_t members_out[COPIES_MAX], enum err *why_out)
{
    uint32_t want = placement_want(p);
    *why_out = p->read_only ? ERR_READ_ONLY : ERR_BELOW_POLICY;
    if (want == 0)
        return 0;
    uint32_t got = placement_choose(p, class, avoid_mask, want, members_out);
    *why_out = ERR_FULL;
    return got == want ? got : 0; /* a full member never lowers the number of images */
}

bool placement_possible(struct pool *p, enum spool_class class, uint32_t avoid_mask, enum err *why_out)
{
    uint8_t members[COPIES_MAX];
    return placement_plan(p, class, avoid_mask, members, why_out) > 0;
}

struct segment_id segment_next_id(struct pool *p)
{
    return (struct segment_id){p->incarnation, ++p->next_segment};
}

/* --- opening --- */

/* The image headers under way. It outlives the segment when a member is late with one (abandoned: no segment). */
struct opening {
    struct segment *segment;
    uint8_t *bytes;
    uint32_t pending;
    bool failed;
    uint64_t since_ns;
    struct member_op ops[COPIES_MAX];
};

static void opening_free(struct opening *o)
{
    free(o->bytes);
    free(o);
}

void segment_opening_fini(struct segment *s)
{
    if (s->opening)
        opening_free(s->opening);
    s->opening = NULL;
}

/* On failure the segment is gone when this returns: opened() only hears of it. */
static void open_finish(struct pool *p, struct segment *s, enum err e)
{
    void (*opened)(struct segment *, enum err) = s->opened;
    s->opened = NULL;
    opened(s, e);
    if (e != ERR_OK)
        segment_drop(p, s);
}

static void open_on_table(struct table_group *t, enum err e)
{
    struct segment *s = t->segment;
    if (e == ERR_OK)
        s->state = SEGMENT_OPEN;
    open_finish(t->pool, s, e);
}

static void open_on_headers(struct pool *p, struct segment *s, bool failed)
{
    for (uint32_t i = 0; i < s->image_count; i++)
        failed = failed || !member_usable(&p->members[s->images[i].member]);
    enum err e = failed ? ERR_IO : ERR_OK;
    if (e == ERR_OK && s->kind == SEGMENT_MAIL && s->id.counter < p->open_submitted)
        e = ERR_BUSY; /* TAB-4: one with a higher counter was faster; once more under a new id */
    if (e == ERR_OK && s->kind == SEGMENT_MAIL) {
        p->open_submitted = s->id.counter;
        e = table_submit(p, RECORD_OPEN, s, open_on_table);
        if (e == ERR_OK)
            return;
    } else if (e == ERR_OK) {
        s->state = SEGMENT_OPEN; /* a table segment is known by the superblocks */
    }
    open_finish(p, s, e);
}

static void open_on_header(struct member_op *mo)
{
    struct opening *o = mo->owner;
    struct pool *p = mo->member->pool;
    o->failed = o->failed || mo->op.result != ERR_OK;
    if (--o->pending > 0)
        return;
    struct segment *s = o->segment;
    bool failed = o->failed;
    opening_free(o);
    if (!s)
        return;
    s->opening = NULL;
    open_on_headers(p, s, failed);
}

void segment_open_leave(struct pool *p, struct segment *s)
{
    if (!s->opening)
        return;
    s->opening->segment = NULL;
    s->opening = NULL;
    open_finish(p, s, ERR_TIMEOUT);
}

void segment_open_step(struct pool *p, struct segment *s)
{
    struct opening *o = s->opening;
    if (!o || io_now_ns(p->io) - o->since_ns < COMMIT_DEADLINE_NS)
        return;
    bool left = false;
    for (uint32_t i = 0; i < s->image_count; i++)
        left = left || !member_usable(&p->members[s->images[i].member]);
    enum err why;
    uint32_t avoid = 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        if (member_late(&p->members[s->images[i].member]))
            avoid |= 1u << s->images[i].member;
    if (!left && !placement_possible(p, SPOOL_COMPACTION, avoid, &why))
        return; /* nowhere else to go */
    segment_open_leave(p, s);
}

static void open_write_headers(struct pool *p, struct segment *s)
{
    struct opening *o = s->opening;
    o->pending = s->image_count;
    o->since_ns = io_now_ns(p->io);
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        struct image_view v = {.segment = s->id, .kind = s->kind, .slot = s->images[i].slot, .pool = p->uuid,
                               .member = m->uuid, .image_count = s->image_count};
        for (uint32_t j = 0; j < s->image_count; j++) {
            v.images[j].member = s->images[j].member;
            v.images[j].slot = s->images[j].slot;
        }
        uint8_t *block = o->bytes + i * BLOCK_BYTES;
        image_head_encode(&v, block);
        o->ops[i] = (struct member_op){.done = open_on_header, .owner = o};
        o->ops[i].op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_COMMIT, .durable = true,
                                      .length = BLOCK_BYTES, .buffer = block,
                                      .offset = segment_image_offset(p, &s->images[i])};
    }
    uint32_t count = s->image_count; /* a member that is gone answers in a later turn, never here */
    for (uint32_t i = 0; i < count; i++)
        member_submit(&p->members[s->images[i].member], &o->ops[i]);
}

enum err segment_open_on(struct pool *p, enum segment_kind kind, const uint8_t members[COPIES_MAX], uint32_t count,
                         struct segment **segment_out)
{
    uint32_t slots[COPIES_MAX];
    for (uint32_t i = 0; i < count; i++)
        if (table_behind(p) & (1u << members[i]))
            return ERR_BUSY; /* TAB-6 */
    for (uint32_t i = 0; i < count; i++)
        if (!slot_find(&p->members[members[i]], &slots[i]))
            return ERR_BUSY; /* free slots still have late ops on them */
    struct opening *o = calloc(1, sizeof *o);
    if (o)
        o->bytes = sync_buffer((size_t)count * BLOCK_BYTES);
    struct segment *s = o && o->bytes ? segment_add(p, segment_next_id(p), kind) : NULL;
    if (!s) {
        enum err e = o && o->bytes ? ERR_FULL : ERR_NO_MEMORY;
        if (o)
            opening_free(o);
        return e;
    }
    o->segment = s;
    s->opening = o;
    s->state = SEGMENT_OPENING;
    s->opened_ns = io_now_ns(p->io);
    s->image_count = (uint8_t)count;
    for (uint32_t i = 0; i < count; i++) {
        s->images[i] = (struct image){.member = members[i], .slot = slots[i]};
        bool took = slot_take(&p->members[members[i]], slots[i], s);
        ASSERT(took);
    }
    open_write_headers(p, s);
    *segment_out = s;
    return ERR_OK;
}

enum err segment_open(struct pool *p, enum segment_kind kind, enum spool_class class, uint32_t avoid_mask,
                      struct segment **segment_out)
{
    uint8_t members[COPIES_MAX];
    enum err why;
    uint32_t count = placement_plan(p, class, avoid_mask, members, &why);
    return count ? segment_open_on(p, kind, members, count, segment_out) : why;
}
