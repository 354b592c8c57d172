/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: frames on their way to all images of a segment, and acknowledgement. Where they go is commit_appender.c; what
 * happens when an image is late or fails is commit_hedge.c.
 *
 *   group -> building [commit_submit] -> flight [commit_step] -> committed: acknowledged [commit_on_image]
 *                                           ^ failed or late: commit_replace (close, wait for SEAL) |
 *                                           +--------------------------------------------------------+
 * Invariants: COM-1, COM-2 (engine.h). Never: chooses members, nor gives a late frame's buffer to another (COM-4). */
#include "commit.h"
#include "compact.h"
#include "upkeep_parts.h"

#include <base/planted.h>

uint64_t group_bytes(const struct spool_group *g)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        const struct spool_record *r = &g->records[i];
        uint64_t payload = r->raw ? r->raw_bytes - RECORD_HEAD_BYTES : 0;
        for (uint32_t j = 0; !r->raw && j < 3; j++)
            payload += r->parts[j].len;
        if (payload >= FRAME_BYTES_MAX)
            return UINT64_MAX;
        total += frame_record_bytes(payload);
    }
    return total;
}

void commit_init(struct pool *p)
{
    for (uint32_t i = 0; i < FRAME_SLOTS; i++) {
        p->frames[i].buffer = p->frame_memory + (size_t)i * FRAME_BYTES_MAX;
        p->frames[i].pool = p;
        link_init(&p->frames[i].groups);
    }
}

struct append_frame *frame_take(struct pool *p, struct appender *a)
{
    for (uint32_t i = 0; i < FRAME_SLOTS; i++) {
        struct append_frame *f = &p->frames[i];
        if (f->appender)
            continue;
        uint8_t *buffer = f->buffer;
        *f = (struct append_frame){.pool = p, .appender = a, .buffer = buffer};
        link_init(&f->groups);
        frame_init(&f->frame, buffer);
        io_timer_init(&f->deadline, commit_on_deadline, f);
        return f;
    }
    return NULL;
}

static void frame_release(struct append_frame *f)
{
    ASSERT(f->pending == 0 && link_empty(&f->groups));
    io_timer_clear(f->pool->io, &f->deadline);
    f->appender = NULL;
}

enum err commit_submit(struct appender *a, struct spool_group *g)
{
    struct pool *p = a->pool;
    uint64_t bytes = group_bytes(g);
    if (g->count == 0 || bytes > FRAME_BYTES_MAX - FRAME_HEAD_BYTES - FRAME_BLOCKS_MAX * 8u)
        return g->count ? ERR_TOO_LARGE : ERR_INVALID;
    if (!a->building)
        a->building = frame_take(p, a);
    struct append_frame *f = a->building;
    if (!f || !frame_has_room(&f->frame, bytes))
        return ERR_BUSY;
    if (f->frame.record_count == 0) {
        f->moved_from = g->moved_from;
        f->born_ns = io_now_ns(p->io);
    }
    else if (!segment_id_equal(f->moved_from, g->moved_from))
        return ERR_BUSY; /* a frame holds a compaction's copies, or none */
    for (uint32_t i = 0; i < g->count; i++) {
        struct spool_record *r = &g->records[i];
        uint64_t sequence = ++p->next_sequence;
        r->place = (struct place){0};
        if (r->raw) {
            r->place.record = frame_add_raw(&f->frame, r->raw, r->raw_bytes, sequence);
            r->place.length = r->raw_bytes;
            continue;
        }
        struct record_fields fields = {.type = r->type, .qid = r->qid, .message_segment = r->message_segment,
                                       .sequence = sequence, .arg = r->arg, .envelope_bytes = r->envelope_bytes,
                                       .parts = r->parts, .part_count = 3};
        uint32_t before = f->frame.used;
        r->place.record = frame_add(&f->frame, &fields);
        ASSERT(r->place.record == before);
        r->place.length = RECORD_HEAD_BYTES;
        for (uint32_t j = 0; j < 3; j++)
            r->place.length += (uint32_t)r->parts[j].len;
    }
    if (g->class > a->want_class || f->frame.record_count == g->count)
        a->want_class = g->class;
    link_push(&f->groups, &g->link);
    return ERR_OK;
}

/* --- ends of a frame --- */

void frame_fail(struct append_frame *f, enum err e)
{
    struct link groups;
    link_init(&groups);
    struct link *l;
    while ((l = link_pop(&f->groups)) != NULL)
        link_push(&groups, l);
    frame_release(f);
    while ((l = link_pop(&groups)) != NULL) {
        struct spool_group *g = CONTAINER_OF(l, struct spool_group, link);
        g->done(g, e);
    }
}

static void frame_committed(struct append_frame *f)
{
    struct pool *p = f->pool;
    struct appender *a = f->appender;
    struct segment *s = f->segment;
    ASSERT(a->flight == f && s->state == SEGMENT_OPEN && s->length == f->offset); /* COM-2 */
    s->length += (uint64_t)f->blocks * BLOCK_BYTES;
    s->previous = f->digest.lo;
    p->count_frames++;
    if (!segment_id_is_none(f->moved_from)) {
        s->copies_bytes += (uint64_t)f->blocks * BLOCK_BYTES;
        if (s->copies_bytes > s->length / 2)
            s->compact_after_ns = io_now_ns(p->io) + COMPACT_AGAIN_NS;
    }
    p->count_records += f->frame.record_count;
    a->flight = NULL;
    a->avoid_mask = 0;
    struct link groups;
    link_init(&groups);
    struct link *l;
    while ((l = link_pop(&f->groups)) != NULL) {
        struct spool_group *g = CONTAINER_OF(l, struct spool_group, link);
        for (uint32_t i = 0; i < g->count; i++) {
            g->records[i].place.segment = s->id;
            g->records[i].place.frame = f->offset;
            g->records[i].place.frame_blocks = f->blocks;
            g->records[i].place.sequence = f->frame.sequence;
        }
        link_push(&groups, l);
    }
    if (s->kind == SEGMENT_MAIL) {
        replay_committed(p, f);
        scrub_note_commit(p, f);
    }
    frame_release(f);
    while ((l = link_pop(&groups)) != NULL) {
        struct spool_group *g = CONTAINER_OF(l, struct spool_group, link);
        g->done(g, ERR_OK);
    }
}

static void commit_on_image(struct member_op *mo)
{
    struct append_frame *f = mo->owner;
    uint32_t image = (uint32_t)(mo - f->ops);
    ASSERT(f->pending > 0 && (f->late_mask & (1u << image)));
    f->pending--;
    f->late_mask &= ~(1u << image);
    if (mo->op.result != ERR_OK)
        f->failed = f->failed || !PLANTED(ack_lost_image);
    else if (mo->member->state == MEMBER_SUSPECT && !mo->member->watch.by_health &&
             mo->op.done_ns - mo->op.submitted_ns < COMMIT_DEADLINE_NS)
        member_set_state(mo->member, MEMBER_HEALTHY, "writes are answered again");
    if (f->orphaned) {
        if (f->pending == 0)
            frame_release(f);
        return;
    }
    if (!f->in_flight)
        return; /* member_judge has placed it elsewhere already and nothing is out any more */
    if (PLANTED(enospc_is_full) && mo->op.result == ERR_MEMBER_FULL && f->pending == 0 &&
        f->appender->kind == SEGMENT_MAIL && f->appender->flight == f && f->appender->segment == f->segment) {
        f->appender->flight = NULL;
        commit_close_segment(f->appender);
        frame_fail(f, ERR_FULL);
        return;
    }
    if (f->failed && f->appender->flight == f) {
        /* the failing image decides: do not wait for the others, their late writes stay with the orphan */
        commit_replace(f, 0);
        return;
    }
    if (f->pending > 0)
        return;
    io_timer_clear(f->pool->io, &f->deadline);
    frame_committed(f);
}

/* --- starting frames --- */

static void frame_submit(struct append_frame *f)
{
    struct pool *p = f->pool;
    struct segment *s = f->segment;
    f->in_flight = true;
    f->failed = false;
    f->pending = s->image_count;
    f->late_mask = (1u << s->image_count) - 1;
    f->submitted_ns = io_now_ns(p->io);
    for (uint32_t i = 0; i < s->image_count; i++) {
        f->ops[i] = (struct member_op){.done = commit_on_image, .owner = f,
                                       .mail = s->kind == SEGMENT_MAIL && segment_id_is_none(f->moved_from)};
        f->ops[i].op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_COMMIT,
                                      .durable = !PLANTED(skip_flush) && (i == 0 || !PLANTED(ack_one_image)),
                                      .length = f->blocks * BLOCK_BYTES, .buffer = f->buffer,
                                      .offset = segment_image_offset(p, &s->images[i]) + f->offset};
    }
    io_timer_set(p->io, &f->deadline, f->submitted_ns + frame_look_ns(f));
    for (uint32_t i = 0; i < s->image_count; i++)
        member_submit(&p->members[s->images[i].member], &f->ops[i]);
    if (PLANTED(feed_before_commit) && s->kind == SEGMENT_MAIL)
        replay_committed(p, f);
}

/* Seals the frame for the place it goes to. False: it does not fit the rest of the segment. */
static bool frame_place(struct append_frame *f, struct segment *s)
{
    struct pool *p = f->pool;
    struct frame_identity id = {.pool = p->uuid, .segment = s->id, .offset = s->length, .previous = s->previous,
                                .moved_from = f->moved_from, .stamp_ms = pool_clock_ms(p)};
    f->segment = s;
    f->offset = s->length;
    f->blocks = frame_seal(&f->frame, &id, &f->digest);
    return s->length + (uint64_t)f->blocks * BLOCK_BYTES <= p->slot_bytes;
}

static void appender_start(struct appender *a)
{
    struct pool *p = a->pool;
    struct append_frame *f = a->flight ? a->flight : a->building;
    if (a->segment && !frame_place(f, a->segment))
        commit_close_segment(a);
    if (!a->segment && a->next && a->next->state == SEGMENT_OPEN) {
        if (a->kind == SEGMENT_MAIL && (segment_members(a->next) & table_behind(p)))
            return; /* TAB-6 */
        a->segment = a->next;
        a->next = NULL;
        bool fits = frame_place(f, a->segment);
        ASSERT(fits || a->segment->length > BLOCK_BYTES); /* a fresh segment has room for any frame */
    }
    if (!a->segment) {
        appender_want_segment(a, f);
        return;
    }
    if (f == a->building)
        a->building = NULL;
    a->flight = f;
    frame_submit(f);
    if (a->kind == SEGMENT_MAIL && !a->moves && !a->next && a->segment && a->segment->length > p->slot_bytes / 2) {
        enum err e = appender_open_next(a, SPOOL_NEW_MAIL);
        (void)e; /* opened ahead only to save time; needed later, it is asked for again */
    }
}

static bool same_members(const struct segment *a, const struct segment *b)
{
    bool same = a->image_count == b->image_count;
    for (uint32_t i = 0; i < a->image_count; i++)
        same = same && segment_on_member(b, a->images[i].member);
    return same;
}

/* A frame of CHUNKs that is less than half full lets another one go first on the same members: its end comes soon and
 * sends this one, larger. Never behind a member that holds no part of it. */
static bool bulk_may_grow(const struct appender *a)
{
    const struct pool *p = a->pool;
    if (!a->bulk || a->flight || !a->segment || !a->building || a->building->frame.used >= FRAME_BYTES_MAX / 2)
        return false;
    for (uint32_t i = 1; i < p->appender_count; i++) {
        const struct append_frame *f = p->appenders[i].flight;
        if (p->appenders[i].bulk && f && f->in_flight && same_members(a->segment, f->segment))
            return true;
    }
    return false;
}

bool appender_waits(const struct appender *a)
{
    const struct append_frame *f = a->flight;
    if (a->reopen || (!a->segment && a->next && a->next->state == SEGMENT_OPENING))
        return true;
    return f && (!f->in_flight || io_now_ns(a->pool->io) - f->submitted_ns >= frame_look_ns(f) / 4);
}

/* What waits for an avoided member goes elsewhere, what is opened there is left, and a segment that was is followed by another. */
static void appender_leave_avoided(struct appender *a)
{
    if (a->flight && a->flight->in_flight)
        frame_leave_avoided(a->flight);
    if (a->next && segment_better_elsewhere(a->pool, a->next, appender_class(a), a->avoid_mask))
        segment_open_leave(a->pool, a->next);
    appender_reopen(a);
}

void commit_step(struct pool *p)
{
    enum err why;
    for (uint32_t i = 0; i < p->appender_count; i++) {
        struct appender *a = &p->appenders[i];
        if (a->next)
            segment_open_step(p, a->next);
        if (a->kind == SEGMENT_MAIL)
            appender_give_up(a);
        appender_leave_avoided(a);
        if (a->waits_for_seal || (a->flight && a->flight->in_flight))
            continue;
        if (a->kind == SEGMENT_TABLE && p->table_rewriting)
            continue;
        if (a->kind == SEGMENT_MAIL && a->segment && (a->segment->close_soon || segment_could_have_more(p, a->segment) ||
                                                         segment_better_elsewhere(p, a->segment, appender_class(a), a->avoid_mask))) {
            a->reopen = !a->segment->close_soon && appender_reopens(a);
            commit_close_segment(a);
            appender_reopen(a);
        } else if (a->next && a->next->state == SEGMENT_OPEN &&
                   (a->next->close_soon || segment_better_elsewhere(p, a->next, appender_class(a), a->avoid_mask))) {
            appender_close_next(a);
        }
        if (a->kind == SEGMENT_TABLE && a->segment &&
            (segment_could_have_more(p, a->segment) || segment_better_elsewhere(p, a->segment, SPOOL_RESULT, a->avoid_mask)))
            p->table_renew = true; /* each segment is opened and sealed through it: mail would wait for the slow member there */
        if (a->kind == SEGMENT_TABLE && p->table_renew && a->segment && !a->flight && p->mounted && !p->stopping &&
            !p->table_settling && placement_possible(p, SPOOL_TABLE, 0, &why)) { /* else nothing could be freed any more */
            p->table_renew = false;
            commit_close_segment(a); /* the next turn writes a whole TABLE */
        }
        if (bulk_may_grow(a))
            continue;
        if (a->flight || (a->building && a->building->frame.record_count > 0))
            appender_start(a);
        else if (a->kind == SEGMENT_TABLE && !a->segment && p->mounted && !p->stopping)
            table_rewrite(p); /* it lost an image: the table is never left with fewer */
    }
    if (p->room_wanted && p->on_room) {
        p->room_wanted = false;
        p->on_room(p->on_room_owner);
    }
}

bool commit_idle(const struct pool *p)
{
    for (uint32_t i = 0; i < p->appender_count; i++) {
        const struct appender *a = &p->appenders[i];
        if (a->flight || (a->building && a->building->frame.record_count > 0))
            return false;
        if (a->next && a->next->state == SEGMENT_OPENING)
            return false;
    }
    return true;
}
