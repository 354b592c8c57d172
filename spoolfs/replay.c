/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: feeding the index. One way in: frames in the order of their segment. In the steady state the frame that was just
 * committed; after a mount, or when the index did not keep up, a walk from each segment's watermark (REPLAY) until
 * nothing is behind.
 *
 *   closed -> open [index on_open] -> REPLAY: walks -> LIVE [nothing behind] -> REPLAY [ring full]
 *
 * Invariants: FEED-1: segment.fed <= segment.length, and every frame is fed whole or not at all. FEED-2: nothing is due
 * before the first replay ended. FEED-3: a replay is told to the index, which then does not depend on order.
 * FEED-4: an index that knows a segment the table never heard of, or was kept by an incarnation that it never heard of, was kept by
 * another half: what that half said and freed is in its rows, and none of it in this log. It is made anew. */
#include "compact.h"
#include "images.h"
#include "mount.h"
#include "table.h"
#include "upkeep_parts.h"

#include <stdlib.h>
#include <string.h>

static void index_record_of(const struct record_view *v, struct segment_id segment, const struct frame_view *f,
                            struct index_record *r)
{
    *r = (struct index_record){
        .type = v->type,
        .moved = !segment_id_is_none(f->moved_from),
        .qid = v->qid,
        .message_segment = v->type == RECORD_MESSAGE ? f->moved_from : v->message_segment,
        .place = {.segment = segment, .frame = f->offset, .frame_blocks = f->blocks, .record = v->offset,
                  .length = v->length, .sequence = f->sequence},
        .sequence = v->sequence,
        .digest = v->digest,
        .arg = v->arg,
        .body_bytes = v->type == RECORD_CHUNK ? v->body_bytes : 0,
    };
    if (v->type == RECORD_MESSAGE) {
        r->payload = v->envelope;
        r->payload_bytes = v->envelope_bytes;
    } else if (v->type == RECORD_MARK) {
        r->payload = v->body;
        r->payload_bytes = v->body_bytes;
    }
}

/* The record at `at` of a frame that is proved already: the head is trusted, the digest taken from it. */
static uint32_t record_peek(const struct frame_view *f, uint32_t at, struct record_view *v)
{
    struct record_head_disk h;
    memcpy(&h, f->bytes + at, sizeof h);
    uint32_t length = le32_get(h.length), envelope = le32_get(h.envelope_bytes);
    ASSERT(le32_get(h.magic) == RECORD_MAGIC && length >= RECORD_HEAD_BYTES && at + length <= f->records_end);
    ASSERT(envelope <= length - RECORD_HEAD_BYTES);
    const uint8_t *bytes = f->bytes + at;
    *v = (struct record_view){
        .type = (enum record_type)h.type, .flags = h.flags, .qid = queue_id_disk_get(h.qid),
        .message_segment = segment_id_disk_get(h.message_segment), .sequence = le64_get(h.sequence),
        .arg = le32_get(h.arg), .length = length, .offset = at, .digest = digest_disk_get(h.digest), .bytes = bytes,
        .envelope = bytes + RECORD_HEAD_BYTES, .envelope_bytes = envelope,
        .body = bytes + RECORD_HEAD_BYTES + envelope, .body_bytes = length - RECORD_HEAD_BYTES - envelope,
    };
    return (at + length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
}

static uint64_t feed_bytes(const struct frame_view *f)
{
    uint64_t need = 2 * INDEX_FEED_OVERHEAD;
    struct record_view v;
    uint32_t at = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < f->record_count; i++) {
        at = record_peek(f, at, &v);
        need += INDEX_FEED_OVERHEAD;
        need += v.type == RECORD_MESSAGE ? v.envelope_bytes : v.type == RECORD_MARK ? v.body_bytes : 0;
    }
    return need;
}

/* FEED-1: whole or not at all. */
bool replay_feed(struct pool *p, struct segment *s, const struct frame_view *f)
{
    if (index_room(p->index) < feed_bytes(f))
        return false;
    uint32_t at = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < f->record_count; i++) {
        struct record_view v;
        struct index_record r;
        at = record_peek(f, at, &v);
        if (s->chunks_only && v.type != RECORD_CHUNK)
            continue; /* MRG-1 */
        index_record_of(&v, s->id, f, &r);
        enum err e = index_feed(p->index, &r);
        ASSERT(e == ERR_OK); /* room was asked for */
    }
    uint64_t end = f->offset + (uint64_t)f->blocks * BLOCK_BYTES;
    enum err e = index_watermark(p->index, s->id, end, f->moved_from);
    ASSERT(e == ERR_OK);
    s->fed = end;
    return true;
}

void replay_committed(struct pool *p, struct append_frame *f)
{
    struct segment *s = f->segment;
    if (!p->index_live || s->fed != f->offset)
        return; /* the walk will come by */
    struct frame_view v = {.bytes = f->buffer, .blocks = f->blocks, .records_end = f->frame.used,
                           .record_count = f->frame.record_count, .segment = s->id, .moved_from = f->moved_from,
                           .offset = f->offset, .sequence = f->frame.sequence};
    if (!replay_feed(p, s, &v))
        p->index_live = false;
}

/* --- replay --- */

static struct segment *replay_behind(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        bool holds = s->state == SEGMENT_OPEN || s->state == SEGMENT_CLOSED || s->state == SEGMENT_SEALED;
        if (holds && s->kind == SEGMENT_MAIL && !s->provisional && s->fed < s->length && !exchange_feeds(p, s))
            return s;
    }
    return NULL;
}

static void replay_give(struct pool *p)
{
    struct walk *w = &p->replay_walk;
    if (!replay_feed(p, w->segment, &p->replay_view))
        return; /* on_room, or the next step */
    p->replay_bytes += (uint64_t)p->replay_view.blocks * BLOCK_BYTES;
    p->replay_view.bytes = NULL;
}

static void replay_on_frame(struct walk *w, const struct frame_view *f)
{
    struct pool *p = w->owner;
    p->replay_view = *f; /* the walk rests: its buffers stay as they are */
    replay_give(p);
}

static void replay_on_lost(struct walk *w, uint64_t offset, uint64_t bytes)
{
    struct pool *p = w->owner;
    if (w->segment->chunks_only)
        return; /* MRG-1: a CHUNK of it that is needed is told lost by the message that needs it */
    if (!w->segment->unfed)
        p->table_renew = true;
    w->segment->unread = w->segment->unfed = true;
    w->segment->in_doubt = w->segment->in_doubt || w->in_doubt;
    if (segment_given_up(p, w->segment)) {
        lost_members(p); /* LST-4 */
        return;
    }
    if (segment_images_readable(p, w->segment) == 0) {
        pool_event(p, EVENT_segment_absent, NULL, "segment %llu: %llu bytes at %llu wait for a member that is not here",
                   (unsigned long long)w->segment->id.counter, (unsigned long long)bytes, (unsigned long long)offset);
        return;
    }
    p->count_lost++;
    pool_event(p, EVENT_record_lost, NULL, "segment %llu: %llu bytes at %llu are bad on every image that is here",
               (unsigned long long)w->segment->id.counter, (unsigned long long)bytes, (unsigned long long)offset);
}

static void replay_on_end(struct walk *w)
{
    struct pool *p = w->owner;
    w->segment->fed = w->end; /* also over bytes that are lost */
    p->replay_stopping = true;
}

static void replay_finish(struct pool *p)
{
    if (index_replay_end(p->index) != ERR_OK)
        return; /* ring full: next step */
    p->index_replaying = false;
    p->index_live = true;
    if (!p->index_ready)
        pool_event(p, EVENT_index_ready, NULL, "%llu bytes of log replayed", (unsigned long long)p->replay_bytes);
    p->index_ready = true;
}

static bool replay_begin(struct pool *p)
{
    if (index_replay_begin(p->index, p->index_rebuild) != ERR_OK)
        return false;
    bool rebuild = p->index_rebuild;
    p->index_rebuild = false;
    p->index_replaying = true;
    p->replay_bytes = 0;
    p->replay_total = 0;
    for (uint32_t i = 0; i < p->segment_used; i++)
        if (p->segments[i].state != SEGMENT_UNUSED && p->segments[i].kind == SEGMENT_MAIL)
            p->replay_total += p->segments[i].length - p->segments[i].fed;
    if (rebuild && p->replay_total > 0) /* a new pool's index is empty because there is nothing to know */
        pool_event(p, EVENT_index_rebuild, NULL, "the index is empty: every segment is read");
    return true;
}

#define REPLAY_RETRY_NS (100 * NS_PER_MS) /* of a segment no present member can be read for */
#define REPLAY_FRAMES_PER_STEP 16u /* then the loop turns: commits come first */

#define LAG_LOOK_NS (10 * NS_PER_MS) /* between looks at all segments while it is behind */

/* What the index owes to this mount; the backlog of a replay does not count. */
static uint64_t replay_lag(const struct pool *p)
{
    uint64_t lag = 0;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        bool holds = s->state == SEGMENT_OPEN || s->state == SEGMENT_CLOSED || s->state == SEGMENT_SEALED;
        if (holds && s->kind == SEGMENT_MAIL && s->id.incarnation == p->incarnation && s->fed < s->length)
            lag += s->length - s->fed;
    }
    return lag;
}

/* How the index keeps up; admission (spool.c) goes by it. */
static void replay_look(struct pool *p)
{
    bool full = p->index && index_full(p->index);
    if (full && !p->index_full)
        pool_event(p, EVENT_index_full, NULL, "the file system of state_directory takes nothing more; new mail is refused");
    p->index_full = full;
    bool counts = p->index_ready || !p->index_open; /* one that is made again from the log gets on by itself */
    if (!p->index || p->index_live || !counts) {
        p->index_lag = 0;
    } else if (io_now_ns(p->io) >= p->lag_next_ns) {
        p->index_lag = replay_lag(p);
        p->lag_next_ns = io_now_ns(p->io) + LAG_LOOK_NS;
    }
}

void replay_step(struct pool *p)
{
    replay_look(p);
    if (!p->index_open || p->index_live)
        return;
    if (!p->index_replaying && !replay_begin(p))
        return;
    for (uint32_t n = 0; n < REPLAY_FRAMES_PER_STEP; n++) {
        struct walk *w = &p->replay_walk;
        if (p->replay_walking)
            walk_step(w);
        if (p->replay_stopping && walk_idle(w)) {
            walk_fini(w);
            p->replay_walking = p->replay_stopping = false;
        }
        if (!p->replay_walking) {
            struct segment *s = replay_behind(p);
            if (!s) {
                replay_finish(p);
                return;
            }
            *w = (struct walk){.pool = p, .segment = s, .offset = s->fed, .end = s->length, .class = IO_CLASS_REBUILD,
                               .on_frame = replay_on_frame, .on_lost = replay_on_lost, .on_end = replay_on_end,
                               .owner = p};
            p->replay_walking = true;
            p->replay_view.bytes = NULL;
            enum err e = walk_start(w);
            ASSERT(e == ERR_OK);
        }
        if (w->unreadable && !p->replay_stopping) {
            if (io_now_ns(p->io) < p->replay_retry_ns)
                return;
            p->replay_retry_ns = io_now_ns(p->io) + REPLAY_RETRY_NS;
            walk_retry(w);
        }
        if (!w->resting || p->replay_stopping)
            return; /* a read is under way */
        if (p->replay_view.bytes)
            replay_give(p);
        if (p->replay_view.bytes)
            return; /* no room yet */
        walk_next(w);
    }
}

void replay_stop(struct pool *p)
{
    if (p->replay_walking) {
        walk_stop(&p->replay_walk);
        p->replay_stopping = true;
    }
}

/* --- the index's callbacks --- */

/* Recovery sealed it without this image, which may be longer. */
static bool segment_may_be_longer(const struct pool *p, const struct segment *s)
{
    bool longer = false;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &p->members[s->images[i].member];
        longer = longer || (s->images[i].unproved && !m->present && !m->removed);
    }
    return longer;
}

static void on_open(void *owner, enum err e)
{
    struct pool *p = owner;
    bool rebuild = e != ERR_OK;
    for (uint32_t i = 0; i < p->segment_used && e == ERR_OK; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || s->fed <= s->length)
            continue;
        rebuild = true; /* it knows more than the log */
        bool hidden = !s->unfed && segment_may_be_longer(p, s); /* REC-7 */
        s->unread = s->unread || hidden;
        s->unfed = s->unfed || hidden;
        p->table_renew = p->table_renew || hidden;
    }
    if (p->index_rebuild || (e == ERR_OK && !table_incarnation(p, index_kept_by(p->index)))) /* FEED-4 */
        rebuild = true; /* it holds mail of a segment the table says is freed, or is of a half that is not here */
    for (uint32_t i = 0; i < p->segment_used && rebuild; i++)
        p->segments[i].fed = p->segments[i].length < BLOCK_BYTES ? p->segments[i].length : BLOCK_BYTES;
    p->index_rebuild = rebuild;
    p->index_open = true;
}

void segment_note_stat(struct pool *p, const struct index_segment *stat)
{
    struct segment *s = segment_find(p, stat->id);
    if (!s) {
        bool live = stat->live_messages + stat->live_chunks > 0;
        if (!p->index_open && (live || !table_says_dead(p, stat->id))) /* FEED-4 */
            p->index_rebuild = true;
        if (stat->live_messages + stat->live_chunks == 0 && index_freed(p->index, &stat->id, 1) != ERR_OK)
            return; /* asked again after the next mount */
        return;
    }
    if (!p->index_open)
        s->fed = stat->watermark > BLOCK_BYTES ? stat->watermark : BLOCK_BYTES;
    s->live_messages = stat->live_messages;
    s->live_chunks = stat->live_chunks;
    s->live_bytes = stat->live_bytes;
    s->counted = true;
    s->told = stat->watermark;
    s->deps_overflowed = stat->deps_overflowed;
    struct segment_id *deps = stat->dep_count ? calloc(stat->dep_count, sizeof *deps) : NULL;
    if (stat->dep_count && !deps) {
        s->deps_overflowed = true; /* no memory to say which: all of them */
    } else {
        free(s->deps);
        s->deps = deps;
        s->dep_count = stat->dep_count;
        if (deps)
            memcpy(deps, stat->deps, stat->dep_count * sizeof *deps);
    }
    if (!s->dirty) {
        s->dirty = true;
        p->dirty_segments++;
    }
}

static void on_segment(void *owner, const struct index_segment *stat)
{
    segment_note_stat(owner, stat);
}

static void on_room(void *owner)
{
    (void)owner; /* replay_step looks by itself */
}

static void on_damage(void *owner, const char *what)
{
    struct pool *p = owner;
    pool_event(p, EVENT_index_rebuild, NULL, "the index is damaged (%s) and is rebuilt", what);
    p->index_damaged = true;
}

static void on_conflict(void *owner, struct queue_id qid, struct place second)
{
    char id[QUEUE_ID_TEXT];
    queue_id_print(qid, id);
    pool_event(owner, EVENT_message_conflict, NULL, "%s also lies in segment %llu", id,
               (unsigned long long)second.segment.counter);
}

/* The MESSAGE of a CHUNK may lie on members that are not here: in a segment of which no image can be read, at the end of one
 * that is longer there, or, when the segment table itself had to be put together from headers, now or in a mount before, in one that
 * nobody here knows. */
static bool replay_keeps_chunks(const struct pool *p)
{
    bool hidden = p->table_partial;
    for (uint32_t i = 0; i < p->segment_used && !hidden; i++) {
        const struct segment *s = &p->segments[i];
        hidden = s->state != SEGMENT_UNUSED && s->kind == SEGMENT_MAIL &&
                 (segment_images_readable(p, s) == 0 || segment_may_be_longer(p, s));
    }
    return hidden && members_away(p);
}

enum err replay_open(struct pool *p, bool discard)
{
    if (!p->config.index.open)
        return ERR_OK;
    struct index_callbacks cb = {.owner = p, .on_open = on_open, .on_segment = on_segment, .on_room = on_room,
                                 .on_damage = on_damage, .on_conflict = on_conflict};
    p->index_discard = false;
    enum err e = p->config.index.open(p->config.index.owner, p->uuid, discard, &cb, &p->index);
    return e == ERR_OK ? index_incarnation(p->index, p->incarnation, replay_keeps_chunks(p)) : e;
}
