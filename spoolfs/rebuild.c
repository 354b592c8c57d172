/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: making missing images again, one segment at a time, the fewest images first.
 *
 *   chosen -> slot claimed -> frames, each proved, gathered and written -> flush -> image header -> SEAL with the new
 *   place durable -> the new image counts and the old place is given up
 *
 * Invariants: RBL-1: the source of every byte was verified in the same read. RBL-2: the new image counts only after the
 * table says so; a crash before leaves a slot nobody owns. RBL-3: it never aborts on a bad frame: what no image has is
 * reported by the walk and passed over. RBL-4: tokens of the throttle come before every read. */
#include "engine.h"

#include <base/planted.h>
#include <spoolfs/upkeep.h>
#include <stdlib.h>
#include <string.h>

/* A member that left comes back often enough within this time that copying everything would be waste. */
#define REBUILD_GRACE_NS (10 * NS_PER_S)
#define REBUILD_GRACE_SLOW_NS (120 * NS_PER_S)
#define REBUILD_DEADLINE_NS (3600 * NS_PER_S) /* DESIGN section 6: then the event rebuild_behind */
#define REBUILD_LOOK_NS (500 * NS_PER_MS)

struct rebuild {
    struct pool *pool;
    struct segment *segment;   /* NULL: idle */
    uint32_t image;            /* the one replaced, or image_count: one is added */
    struct image target;
    struct walk walk;
    const struct frame_view *frame;
    struct frame_view view;
    uint8_t *buffer;
    uint64_t buffer_at;        /* offset in the segment of what is gathered */
    uint32_t gathered;
    struct member_op op;
    bool writing, walked, failed, paused, table, behind, orphan;
    struct link link;          /* in pool.rebuild_orphans */
    uint64_t next_ns, since_ns, bytes, segments, bytes_this_second, second_ns, rate;
};

static bool image_counts(const struct pool *p, const struct segment *s, uint32_t i)
{
    return member_usable(&p->members[s->images[i].member]) && !s->images[i].unproved && !s->images[i].bad;
}

static uint32_t images_counting(const struct pool *p, const struct segment *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        n += image_counts(p, s, i);
    return n;
}

static bool image_given_up(const struct pool *p, const struct segment *s, uint32_t i)
{
    const struct member *m = &p->members[s->images[i].member];
    if (image_counts(p, s, i))
        return false;
    if (s->images[i].bad || m->plan != PLAN_STAYS)
        return true;
    uint64_t gone = io_now_ns(p->io) - m->left_ns;
    return m->state == MEMBER_EVACUATING || m->state == MEMBER_FAILING || m->removed ||
           gone >= (m->state == MEMBER_SLOW ? REBUILD_GRACE_SLOW_NS : REBUILD_GRACE_NS);
}

/* Which image of `s` is to be made again; image_count: one more than there are; UINT32_MAX: none. */
static uint32_t rebuild_wants(const struct pool *p, const struct segment *s)
{
    if (s->kind != SEGMENT_MAIL || s->state != SEGMENT_SEALED || s->compacting || s->repairing ||
        PLANTED(rebuild_never) || s->length <= BLOCK_BYTES || segment_images_readable(p, s) == 0 ||
        images_counting(p, s) >= p->config.copies)
        return UINT32_MAX;
    bool more = s->image_count < p->config.copies;
    for (uint32_t i = 0; i < s->image_count; i++) {
        if (!image_given_up(p, s, i))
            continue;
        const struct member *m = &p->members[s->images[i].member];
        if (!s->images[i].unproved || member_readable(m) || (m->plan == PLAN_LEAVES && !s->unread))
            return i;
        more = true; /* an absent image that may hold more than we know stays listed: one is added beside it */
    }
    return more && s->image_count < COPIES_MAX ? s->image_count : UINT32_MAX;
}

static struct member *rebuild_target(struct pool *p, const struct segment *s, uint32_t replaced, uint32_t *slot_out)
{
    struct member *best = NULL;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        bool fits = member_usable(m) && m->state == MEMBER_HEALTHY && m->slots_free > slot_reserve(m, SPOOL_RESULT);
        for (uint32_t k = 0; fits && k < s->image_count; k++)
            fits = k == replaced ||
                   (s->images[k].member != i &&
                    (!member_usable(&p->members[s->images[k].member]) ||
                    !members_share_domain(m, &p->members[s->images[k].member])));
        if (fits && (!best || (uint64_t)m->slots_free * best->slot_count > (uint64_t)best->slots_free * m->slot_count))
            best = m;
    }
    return best && slot_find(best, slot_out) ? best : NULL;
}

static struct segment *rebuild_choose(struct pool *p, uint32_t *image_out, struct image *target_out)
{
    struct segment *best = NULL;
    uint32_t best_good = UINT32_MAX;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        uint32_t image = s->state == SEGMENT_UNUSED ? UINT32_MAX : rebuild_wants(p, s);
        if (image == UINT32_MAX)
            continue;
        uint32_t good = images_counting(p, s), slot;
        bool newer = best && good == best_good && s->id.counter > best->id.counter;
        if (best && good >= best_good && !newer)
            continue;
        struct member *m = rebuild_target(p, s, image, &slot);
        if (!m)
            continue;
        best = s;
        best_good = good;
        *image_out = image;
        *target_out = (struct image){.member = m->number, .slot = slot};
    }
    return best;
}

static void rebuild_end(struct rebuild *r, bool done)
{
    struct pool *p = r->pool;
    struct segment *s = r->segment;
    walk_fini(&r->walk);
    free(r->buffer);
    r->buffer = NULL;
    s->rebuilding = false;
    struct member *m = &p->members[r->target.member];
    if (!done && m->slot_owner[r->target.slot] == segment_index(p, s) + 1) {
        m->slot_owner[r->target.slot] = 0;
        m->slots_free++;
    }
    r->segment = NULL;
    r->segments += done;
    r->next_ns = done ? 0 : io_now_ns(p->io) + REBUILD_LOOK_NS * 4;
    if (!s->dirty) {
        s->dirty = true;
        p->dirty_segments++;
    }
    if (done)
        pool_update_state(p);
}

/* RBL-2. The old image's slot is free from here on: on a member that is away nobody will look there again. */
static void rebuild_on_table(struct table_group *t, enum err e)
{
    struct rebuild *r = t->pool->rebuild;
    struct segment *s = r->segment;
    r->table = false;
    if (e == ERR_OK)
        segment_replace_image(t->pool, s, r->image, r->target);
    rebuild_end(r, e == ERR_OK);
}

static void rebuild_say(struct rebuild *r)
{
    struct segment *s = r->segment;
    struct image old[COPIES_MAX];
    uint8_t count = s->image_count;
    memcpy(old, s->images, sizeof old);
    s->images[r->image] = r->target;
    if (r->image == count)
        s->image_count++;
    enum err e = table_submit(r->pool, RECORD_SEAL, s, rebuild_on_table);
    memcpy(s->images, old, sizeof old); /* as it is until the record is durable */
    s->image_count = count;
    r->table = e == ERR_OK;
    r->failed = r->failed || e != ERR_OK;
}

static void rebuild_on_write(struct member_op *mo);

static void rebuild_submit(struct rebuild *r, enum io_kind kind, uint64_t offset, uint32_t bytes, bool durable)
{
    struct member *m = &r->pool->members[r->target.member];
    r->op = (struct member_op){.done = rebuild_on_write, .owner = r};
    r->op.op = (struct io_op){.kind = kind, .class = IO_CLASS_REBUILD, .durable = durable, .length = bytes,
                              .buffer = kind == IO_WRITE ? r->buffer : NULL,
                              .offset = kind == IO_WRITE ? segment_image_offset(r->pool, &r->target) + offset : 0};
    r->writing = true;
    member_submit(m, &r->op);
}

static void rebuild_header(struct rebuild *r)
{
    struct pool *p = r->pool;
    struct segment *s = r->segment;
    uint32_t count = r->image == s->image_count ? s->image_count + 1u : s->image_count;
    struct image_view v = {.segment = s->id, .kind = s->kind, .slot = r->target.slot, .pool = p->uuid,
                           .member = p->members[r->target.member].uuid, .image_count = count};
    for (uint32_t i = 0; i < count; i++) {
        const struct image *image = i == r->image ? &r->target : &s->images[i];
        v.images[i].member = image->member;
        v.images[i].slot = image->slot;
    }
    image_head_encode(&v, r->buffer);
    rebuild_submit(r, IO_WRITE, 0, BLOCK_BYTES, true);
}

/* gathered frames -> flush -> header -> table: `walked` and what kind of op came back say which. */
static void rebuild_on_write(struct member_op *mo)
{
    struct rebuild *r = mo->owner;
    if (r->orphan) {
        link_remove(&r->link);
        free(r->buffer);
        free(r);
        return;
    }
    r->writing = false;
    if (mo->op.result != ERR_OK) {
        r->failed = true;
        return;
    }
    bool header = mo->op.kind == IO_WRITE && mo->op.offset == segment_image_offset(r->pool, &r->target);
    if (mo->op.kind == IO_FLUSH)
        rebuild_header(r);
    else if (header)
        rebuild_say(r);
    else
        r->gathered = 0;
}

static void rebuild_on_frame(struct walk *w, const struct frame_view *f)
{
    struct rebuild *r = w->owner;
    r->view = *f;
    r->frame = &r->view;
}

static void rebuild_on_lost(struct walk *w, uint64_t offset, uint64_t bytes)
{
    w->segment->unread = true;
    pool_event(w->pool, EVENT_record_lost, NULL, "segment %llu: %llu bytes at %llu are bad on every image that is here",
               (unsigned long long)w->segment->id.counter, (unsigned long long)bytes, (unsigned long long)offset);
}

static void rebuild_on_end(struct walk *w)
{
    struct rebuild *r = w->owner;
    r->walked = true;
}

/* Takes the frame the walk rests on, or writes out what is gathered before it. */
static void rebuild_gather(struct rebuild *r)
{
    const struct frame_view *f = r->frame;
    uint32_t bytes = f->blocks * BLOCK_BYTES;
    bool follows = r->gathered && r->buffer_at + r->gathered == f->offset && r->gathered + bytes <= FRAME_BYTES_MAX;
    if (r->gathered && !follows) {
        rebuild_submit(r, IO_WRITE, r->buffer_at, r->gathered, false);
        return;
    }
    if (!r->gathered)
        r->buffer_at = f->offset;
    memcpy(r->buffer + r->gathered, f->bytes, bytes);
    r->gathered += bytes;
    r->bytes += bytes;
    r->bytes_this_second += bytes;
    r->frame = NULL;
}

static void rebuild_begin(struct rebuild *r)
{
    struct pool *p = r->pool;
    r->next_ns = io_now_ns(p->io) + REBUILD_LOOK_NS;
    struct segment *s = rebuild_choose(p, &r->image, &r->target);
    if (!s) {
        r->since_ns = 0;
        r->behind = false;
        return;
    }
    r->buffer = sync_buffer(FRAME_BYTES_MAX);
    if (!r->buffer)
        return;
    if (!slot_take(&p->members[r->target.member], r->target.slot, s)) {
        free(r->buffer);
        r->buffer = NULL;
        return;
    }
    if (!r->since_ns)
        r->since_ns = io_now_ns(p->io);
    r->segment = s;
    s->rebuilding = true;
    r->gathered = 0;
    r->frame = NULL;
    r->writing = r->walked = r->failed = r->table = false;
    r->walk = (struct walk){.pool = p, .segment = s, .offset = BLOCK_BYTES, .end = s->length, .class = IO_CLASS_REBUILD,
                            .on_frame = rebuild_on_frame, .on_lost = rebuild_on_lost, .on_end = rebuild_on_end,
                            .owner = r};
    enum err e = walk_start(&r->walk);
    ASSERT(e == ERR_OK);
}

static void rebuild_watch_deadline(struct rebuild *r)
{
    struct pool *p = r->pool;
    uint64_t now = io_now_ns(p->io);
    if (now - r->second_ns >= NS_PER_S) {
        r->rate = r->bytes_this_second * NS_PER_S / (now - r->second_ns);
        r->second_ns = now;
        r->bytes_this_second = 0;
    }
    if (r->since_ns && !r->behind && now - r->since_ns > REBUILD_DEADLINE_NS) {
        r->behind = true;
        pool_event(p, EVENT_rebuild_behind, NULL, "redundancy is not restored after %llu s",
                   (unsigned long long)((now - r->since_ns) / NS_PER_S));
    }
}

/* Its write is out on a member that does not answer: the write keeps its buffer, the work begins anew elsewhere. */
static void rebuild_leave_behind(struct rebuild *r)
{
    struct pool *p = r->pool;
    struct rebuild *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return; /* waits instead */
    *fresh = (struct rebuild){.pool = p, .paused = r->paused, .behind = r->behind, .since_ns = r->since_ns,
                              .bytes = r->bytes, .segments = r->segments, .second_ns = r->second_ns};
    uint8_t *buffer = r->buffer;
    r->buffer = NULL;
    rebuild_end(r, false);
    r->buffer = buffer;
    fresh->next_ns = r->next_ns;
    r->orphan = true;
    link_push(&p->rebuild_orphans, &r->link);
    p->rebuild = fresh;
}

static void rebuild_advance(struct rebuild *r)
{
    struct pool *p = r->pool;
    walk_step(&r->walk);
    if (!member_usable(&p->members[r->target.member]) || r->walk.unreadable)
        r->failed = true;
    if (r->failed || p->stopping) {
        walk_stop(&r->walk);
        if (r->writing)
            rebuild_leave_behind(r);
        else if (!r->table)
            rebuild_end(r, false);
        return;
    }
    for (uint32_t n = 0; n < 64 && !r->writing && !r->table; n++) {
        if (r->frame) {
            rebuild_gather(r);
        } else if (r->walked && walk_idle(&r->walk)) {
            if (r->gathered)
                rebuild_submit(r, IO_WRITE, r->buffer_at, r->gathered, false);
            else
                rebuild_submit(r, IO_FLUSH, 0, 0, false);
        } else if (r->walk.resting) {
            if (!upkeep_may(p, segment_members(r->segment) | 1u << r->target.member, IO_CLASS_REBUILD))
                return; /* RBL-4 */
            walk_next(&r->walk);
        } else {
            return; /* a read is under way */
        }
    }
}

void rebuild_step(struct pool *p)
{
    if (!p->rebuild) {
        p->rebuild = calloc(1, sizeof *p->rebuild);
        if (!p->rebuild)
            return;
        p->rebuild->pool = p;
    }
    struct rebuild *r = p->rebuild;
    rebuild_watch_deadline(r);
    if (r->segment)
        rebuild_advance(r);
    else if (!r->paused && !p->stopping && p->mounted && io_now_ns(p->io) >= r->next_ns)
        rebuild_begin(r);
}

bool rebuild_idle(const struct pool *p)
{
    return !p->rebuild || !p->rebuild->segment;
}

void rebuild_fini(struct pool *p)
{
    struct rebuild *r = p->rebuild;
    p->rebuild = NULL;
    if (r && r->segment) {
        walk_fini(&r->walk);
        free(r->buffer);
    }
    free(r);
    struct link *l;
    while ((l = link_pop(&p->rebuild_orphans)) != NULL) {
        struct rebuild *o = CONTAINER_OF(l, struct rebuild, link);
        free(o->buffer);
        free(o);
    }
}

void rebuild_pause(struct pool *p, bool paused)
{
    if (p->rebuild)
        p->rebuild->paused = paused;
}

uint32_t rebuild_images_left(const struct pool *p)
{
    return rebuild_idle(p) ? COPIES_MAX : segment_images_good(p, p->rebuild->segment);
}

uint64_t rebuild_seconds_left(const struct pool *p)
{
    uint64_t since = p->rebuild ? p->rebuild->since_ns : 0, now = io_now_ns(p->io);
    uint64_t gone = since && now > since ? now - since : 0;
    return gone + NS_PER_S < REBUILD_DEADLINE_NS ? (REBUILD_DEADLINE_NS - gone) / NS_PER_S : 1;
}

void rebuild_status(struct pool *p, struct upkeep_status *o)
{
    const struct rebuild *r = p->rebuild;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        bool below = s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && images_counting(p, s) < p->config.copies;
        o->rebuild.bytes_remaining += below ? s->length : 0;
        o->rebuild.messages_remaining += below ? s->live_messages : 0;
    }
    if (!r)
        return;
    o->rebuild.state = r->paused ? UPKEEP_PAUSED : r->segment ? UPKEEP_RUNNING : UPKEEP_IDLE;
    o->rebuild.bytes_per_second = r->segment ? r->rate : 0;
    o->rebuild.eta_seconds = r->segment && r->rate ? o->rebuild.bytes_remaining / r->rate : 0;
    o->rebuild.segments_rebuilt = r->segments;
    o->rebuild.bytes_rebuilt = r->bytes;
    o->rebuild.behind = r->behind;
}
