/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: looking at the images of one segment: read side by side, every byte judged, bad places handed to repair.
 *
 *   begun -> tokens -> window of every image [look_read_window] -> headers, frames [look_judge] -> next window -> over
 *                          | a member does not answer: its image is missed, its buffer stays with the read
 *                          +-> repairs' queue is full: waits, then goes on judging
 *
 * Invariants: SCR-1, SCR-2, SCR-4 (scrub.h). Never: writes. */
#include "images.h"
#include "scrub.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

/* The longest one window may take though it moves: a member that crawls block by block must not hold the others. */
#define LOOK_WINDOW_NS (120 * NS_PER_S)

/* One image's part of a window. An orphan (no look) is freed when it comes back. */
struct look_read {
    struct block_read read;
    struct link link;              /* in scrub.orphans */
    struct look *look;
    uint32_t image;
    uint8_t *window;
    uint32_t seen_at;              /* how far its blocks were when it was last asked */
    uint64_t moved_ns;
    uint64_t unread[FRAME_BLOCK_WORDS];
};

static void look_read_free(struct look_read *o)
{
    free(o->window);
    free(o);
}

void look_forget_orphans(struct scrub *c)
{
    struct link *l;
    while ((l = link_pop(&c->orphans)) != NULL)
        look_read_free(CONTAINER_OF(l, struct look_read, link));
}

void look_free_windows(struct look *l)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        free(l->window[i]);
        l->window[i] = NULL;
    }
    free(l->whole);
    l->whole = NULL;
}

static void look_leave_out(struct look *l, uint32_t i)
{
    struct look_read *o = l->out[i];
    o->look = NULL;
    link_push(&l->scrub->orphans, &o->link);
    l->out[i] = NULL;
    l->pending--;
    l->have[i] = 0;
    l->missed |= 1u << i;
}

static struct member *look_member(const struct look *l, uint32_t i)
{
    return &l->scrub->pool->members[l->images[i].member];
}

uint32_t look_missed(const struct look *l)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < l->count; i++)
        mask |= look_member(l, i)->removed ? 0 : l->missed & (1u << i);
    return mask;
}

static void look_end(struct look *l)
{
    l->running = false;
    l->missed |= l->undecided;
    if (l->segment) {
        struct segment *s = l->segment;
        s->refs--;
        if (!s->dirty && s->state == SEGMENT_SEALED) { /* it may have become free to go meanwhile */
            s->dirty = true;
            l->scrub->pool->dirty_segments++;
        }
    }
    l->over(l);
    l->segment = NULL;
}

void look_fini(struct look *l)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        if (l->out[i])
            look_leave_out(l, i);
    if (l->running && l->segment)
        l->segment->refs--;
    l->running = false;
    look_free_windows(l);
}

static void look_reset(struct look *l, enum look_what what, struct segment_id id, uint64_t end)
{
    ASSERT(!l->running && l->pending == 0 && l->over);
    l->what = what;
    l->id = id;
    l->kind = what == LOOK_TABLE ? SEGMENT_TABLE : SEGMENT_MAIL;
    l->end = end;
    l->window_bytes = l->missed = l->undecided = l->bad = l->mended = l->unsealed = l->bad_blocks = 0;
    l->lost = l->waits = l->stopped = l->dropped = false;
    l->waits_since_ns = 0;
    l->segment = NULL;
    l->running = true;
}

void look_begin(struct look *l, struct segment *s, uint64_t from, uint64_t end)
{
    struct pool *p = l->scrub->pool;
    look_reset(l, s->kind == SEGMENT_TABLE ? LOOK_TABLE : LOOK_MAIL, s->id, end);
    l->count = s->image_count;
    for (uint32_t i = 0; i < s->image_count; i++) {
        l->images[i] = s->images[i];
        l->base[i] = segment_image_offset(p, &s->images[i]);
        l->scrub->member_turn[s->images[i].member] = ++l->scrub->turn;
    }
    l->headers = from == 0;
    l->offset = from;
    l->chained = from == 0;
    l->previous = 0;
    if (l->what == LOOK_MAIL) { /* the table's segment may be dropped at any time: look_step sees it, and slot_busy guards what is out */
        l->segment = s;
        s->refs++;
    }
}

void look_begin_canary(struct look *l, struct segment_id id, const struct image *images, const uint64_t *base,
                       uint32_t count, uint64_t end)
{
    look_reset(l, LOOK_CANARY, id, end);
    l->count = count;
    for (uint32_t i = 0; i < count; i++) {
        l->images[i] = images[i];
        l->base[i] = base[i];
    }
    l->headers = l->chained = false;
    l->offset = 0;
}

/* --- what was found --- */

/* The image as the segment knows it now; COPIES_MAX: it was given up meanwhile. */
static uint32_t look_image_now(const struct look *l, uint32_t i)
{
    return segment_image_at(l->segment, &l->images[i]);
}

static void look_mend(struct look *l, uint32_t i, uint32_t now, const struct frame_view *source)
{
    l->mended |= 1u << i;
    image_mark_hole(&l->segment->images[now]);
    repair_frame(l->scrub->pool, l->segment, source, 1u << now);
}

/* `source`: proved bytes, or NULL when there are none. */
static void look_found(struct look *l, uint32_t i, struct scrub_found f, const struct frame_view *source)
{
    struct pool *p = l->scrub->pool;
    l->bad |= 1u << i;
    l->bad_blocks += f.blocks;
    if (l->what == LOOK_CANARY) {
        canary_found(l->scrub, l, i);
        return;
    }
    f.segment = l->id;
    f.slot = l->images[i].slot;
    f.outcome = source || l->what == LOOK_TABLE ? SCRUB_OPEN : SCRUB_NO_SOURCE;
    if (l->what == LOOK_TABLE)
        f.kind = SCRUB_TABLE;
    report_found(l->scrub, look_member(l, i), &f);
    if (l->what == LOOK_TABLE) {
        p->table_renew = true; /* written whole elsewhere from what is in memory; this place is then free */
        return;
    }
    uint32_t now = look_image_now(l, i);
    if (now == COPIES_MAX)
        report_outcome(l->scrub, f.kind, look_member(l, i), l->id, f.offset, SCRUB_GONE);
    else if (source)
        look_mend(l, i, now, source);
    if (source && l->segment->state != SEGMENT_SEALED)
        l->unsealed |= 1u << i;
}

static void look_headers(struct look *l)
{
    struct pool *p = l->scrub->pool;
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->have[i] < BLOCK_BYTES)
            continue;
        struct member *m = look_member(l, i);
        struct image_view v;
        enum err e = (l->unread[i][0] & 1) ? ERR_MEDIA : image_head_decode(l->window[i], &v);
        if (e == ERR_OK && (!segment_id_equal(v.segment, l->id) || v.slot != l->images[i].slot || v.kind != l->kind ||
                            !uuid_equal(v.member, m->uuid) || !uuid_equal(v.pool, p->uuid)))
            e = ERR_IDENTITY;
        if (e == ERR_OK)
            continue;
        v = (struct image_view){.segment = l->id, .kind = l->kind, .slot = l->images[i].slot, .pool = p->uuid,
                                .member = m->uuid, .image_count = l->count};
        for (uint32_t j = 0; j < l->count; j++) {
            v.images[j].member = l->images[j].member;
            v.images[j].slot = l->images[j].slot;
        }
        image_head_encode(&v, l->whole); /* the segment table in memory is the independent source */
        struct frame_view block = {.bytes = l->whole, .blocks = 1, .offset = 0};
        struct scrub_found f = {.kind = SCRUB_IMAGE_HEADER, .blocks = 1, .fault = e == ERR_NOT_FOUND ? ERR_CORRUPT : e};
        look_found(l, i, f, &block);
    }
}

static bool look_unread(const struct look *l, uint32_t i, uint32_t block)
{
    return (l->unread[i][block / 64] >> (block % 64)) & 1;
}

static bool look_unread_any(const struct look *l, uint32_t i, uint32_t at, const struct frame_view *f)
{
    bool any = false;
    for (uint32_t b = 0; b < f->blocks; b++)
        any = any || look_unread(l, i, at / BLOCK_BYTES + b);
    return any;
}

/* Blocks of the frame that are not what the proved source has. */
static uint32_t look_bad_blocks(const struct look *l, uint32_t i, uint32_t at, const struct frame_view *good)
{
    uint32_t bad = 0;
    for (uint32_t b = 0; b < good->blocks; b++)
        bad += look_unread(l, i, at / BLOCK_BYTES + b) ||
               memcmp(l->window[i] + at + (size_t)b * BLOCK_BYTES, good->bytes + (size_t)b * BLOCK_BYTES, BLOCK_BYTES) != 0;
    return bad;
}

/* The next place in the window where an image has a frame's head; the window's end when there is none. */
static uint64_t look_resync(const struct look *l)
{
    struct frame_view v;
    uint64_t end = l->window_at + l->window_bytes;
    for (uint64_t at = l->offset + BLOCK_BYTES; at < end; at += BLOCK_BYTES)
        for (uint32_t i = 0; i < l->count; i++)
            if (at - l->window_at + BLOCK_BYTES <= l->have[i] &&
                verify_head(l->window[i] + (at - l->window_at), &l->scrub->pool->uuid, l->id, at, &v) == ERR_OK)
                return at;
    return end;
}

/* No image that was read has the frame. Where an image was missed nothing is decided, but for a canary. Where none was it is
 * over, and what lay there is told by id: once, for the reads that this takes are evidence again. */
static uint64_t look_lost(struct look *l, const enum err why[COPIES_MAX])
{
    uint64_t by = look_resync(l) - l->offset;
    l->chained = false;
    bool mail = l->what == LOOK_MAIL, waits = mail && look_missed(l);
    if (mail && !waits && !l->segment->loss_listed)
        lost_range(l->scrub->pool, l->id, l->offset, by);
    l->lost = l->lost || (mail && !waits);
    for (uint32_t i = 0; i < l->count; i++)
        if (l->have[i] && waits) {
            l->undecided |= 1u << i;
            if (look_image_now(l, i) != COPIES_MAX)
                image_mark_hole(&l->segment->images[look_image_now(l, i)]);
        } else if (l->have[i]) {
            struct scrub_found f = {.kind = SCRUB_FRAME, .offset = l->offset, .blocks = (uint32_t)(by / BLOCK_BYTES),
                                    .fault = why[i]};
            look_found(l, i, f, NULL);
        }
    return by;
}

struct look_verdict {
    enum err why[COPIES_MAX];
    struct frame_view view[COPIES_MAX];
    uint8_t *here[COPIES_MAX];
    uint32_t have[COPIES_MAX];
    uint32_t good;     /* an image with a good frame that follows the one before; COPIES_MAX: none */
    bool differ;       /* good frames that are not one */
};

/* False: a frame reaches beyond the window. */
static bool look_verify(const struct look *l, uint32_t at, struct look_verdict *v)
{
    const struct uuid *pool = &l->scrub->pool->uuid;
    *v = (struct look_verdict){.good = COPIES_MAX};
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->have[i] <= at)
            continue;
        v->here[i] = l->window[i] + at;
        v->have[i] = l->have[i] - at;
        v->why[i] = verify_head(v->here[i], pool, l->id, l->offset, &v->view[i]);
        if (v->why[i] == ERR_OK && v->view[i].blocks * BLOCK_BYTES > v->have[i]) {
            if (at > 0)
                return false;
            v->why[i] = ERR_CORRUPT; /* longer than the segment */
        }
        if (v->why[i] == ERR_OK && !PLANTED(scrub_blind))
            v->why[i] = verify_frame(v->here[i], pool, &v->view[i], NULL);
        if (v->why[i] != ERR_OK)
            continue;
        bool follows = !l->chained || v->view[i].previous == l->previous;
        if (v->good == COPIES_MAX)
            v->good = i;
        else if (!digest_equal(v->view[v->good].digest, v->view[i].digest))
            v->differ = true;
        if (follows && l->chained && v->view[v->good].previous != l->previous)
            v->good = i; /* SCR-1 */
    }
    return true;
}

/* Returns the bytes to go on by; 0: the frame reaches beyond the window. */
static uint64_t look_frame(struct look *l)
{
    struct look_verdict v;
    uint32_t at = (uint32_t)(l->offset - l->window_at);
    if (!look_verify(l, at, &v))
        return 0;
    struct frame_view best;
    if (v.good != COPIES_MAX)
        best = v.view[v.good];
    else if (salvage_frame(&l->scrub->pool->uuid, l->id, l->offset, v.here, v.have, l->count, l->whole, &best) != ERR_OK)
        return look_lost(l, v.why);
    bool proved = !l->chained || best.previous == l->previous;
    for (uint32_t i = 0; i < l->count; i++) {
        if (v.have[i] == 0)
            continue;
        bool other = v.why[i] == ERR_OK && !digest_equal(v.view[i].digest, best.digest);
        uint32_t blocks = look_bad_blocks(l, i, at, &best);
        if (v.why[i] == ERR_OK && !other && (blocks == 0 || PLANTED(scrub_blind)) && proved)
            continue;
        enum err why = look_unread_any(l, i, at, &best) ? ERR_MEDIA
                       : v.why[i] != ERR_OK ? v.why[i] : other || !proved ? ERR_IDENTITY : ERR_CORRUPT;
        bool decided = proved && (!v.differ || l->chained);
        struct scrub_found f = {.kind = SCRUB_FRAME, .offset = l->offset, .blocks = blocks ? blocks : 1, .fault = why};
        look_found(l, i, f, decided ? &best : NULL);
    }
    l->chained = true;
    l->previous = best.digest.lo;
    return (uint64_t)best.blocks * BLOCK_BYTES;
}

/* --- windows --- */

/* What is found is handed to repair at once: it waits where that takes no more. */
static bool look_has_room(const struct look *l)
{
    return l->what != LOOK_MAIL || l->scrub->pool->repairs_count + COPIES_MAX <= REPAIRS_MAX;
}

static void look_judge(struct look *l)
{
    l->waits = false;
    if (l->what == LOOK_TABLE && (!l->scrub->pool->table_segment ||
                                  !segment_id_equal(l->scrub->pool->table_segment->id, l->id)))
        l->stopped = true; /* written anew meanwhile: these bytes are nobody's */
    if (l->headers && !l->stopped) {
        if (!look_has_room(l)) {
            l->waits = true;
            return;
        }
        look_headers(l);
        l->headers = false;
        l->offset = BLOCK_BYTES;
    }
    uint64_t window_end = l->window_at + l->window_bytes;
    while (!l->stopped && l->offset < l->end && l->offset < window_end) {
        if (!look_has_room(l)) {
            l->waits = true;
            return;
        }
        uint64_t by = look_frame(l);
        if (by == 0)
            break;
        l->offset += by;
    }
    l->window_bytes = 0;
    if (l->stopped || l->offset >= l->end)
        look_end(l);
}

static void look_window_over(struct look *l)
{
    uint64_t took = io_now_ns(l->scrub->pool->io) - l->read_ns;
    if (l->duty_percent)
        l->next_ns = l->read_ns + took * 100 / l->duty_percent;
    bool any = false;
    for (uint32_t i = 0; i < l->count; i++)
        any = any || l->have[i];
    if (!any) { /* nobody could be asked: all are missed, and nothing is said about the bytes */
        l->missed = (1u << l->count) - 1;
        l->stopped = true;
    }
    look_judge(l);
}

static void look_on_read(struct block_read *r)
{
    struct look_read *o = r->owner;
    struct look *l = o->look;
    uint32_t i = o->image;
    if (!l) {
        link_remove(&o->link);
        look_read_free(o);
        return;
    }
    bool there = r->result == ERR_OK || r->result == ERR_MEDIA; /* unreadable blocks are written anew from a sibling */
    l->window[i] = o->window;
    l->have[i] = there ? r->length : 0;
    memcpy(l->unread[i], o->unread, sizeof l->unread[i]);
    if (!there)
        l->missed |= 1u << i;
    l->scrub->bytes_verified += l->have[i];
    l->out[i] = NULL;
    free(o);
    if (--l->pending == 0)
        look_window_over(l);
}

static bool look_submit(struct look *l, uint32_t i, uint32_t bytes)
{
    struct look_read *o = calloc(1, sizeof *o);
    if (o && !l->window[i])
        l->window[i] = sync_buffer(FRAME_BYTES_MAX);
    if (!o || !l->window[i]) {
        free(o);
        return false;
    }
    o->look = l;
    o->image = i;
    o->window = l->window[i];
    l->window[i] = NULL;
    o->moved_ns = io_now_ns(l->scrub->pool->io);
    o->read = (struct block_read){.member = look_member(l, i), .class = IO_CLASS_SCRUB, .length = bytes,
                                  .buffer = o->window, .offset = l->base[i] + l->window_at, .unread = o->unread,
                                  .done = look_on_read, .owner = o};
    l->out[i] = o;
    l->pending++;
    block_read_start(&o->read);
    return true;
}

/* A rebuild may have given the image another place between two windows: the old slot is somebody else's by now. */
static bool look_given_up(const struct look *l, uint32_t i)
{
    return l->segment && look_image_now(l, i) == COPIES_MAX;
}

static bool look_repairing(const struct look *l, uint32_t i)
{
    uint32_t now = l->segment ? look_image_now(l, i) : COPIES_MAX;
    return now != COPIES_MAX && image_repairing(l->segment, now);
}

static uint32_t look_members(const struct look *l)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < l->count; i++)
        mask |= (l->missed & (1u << i)) ? 0 : 1u << l->images[i].member;
    return mask;
}

static uint32_t look_next_bytes(const struct look *l)
{
    uint64_t left = l->end - l->offset;
    return left < FRAME_BYTES_MAX ? (uint32_t)left : FRAME_BYTES_MAX;
}

static void look_read_window(struct look *l)
{
    uint64_t now = io_now_ns(l->scrub->pool->io);
    uint32_t bytes = look_next_bytes(l);
    l->window_at = l->offset;
    l->window_bytes = bytes;
    l->read_ns = now;
    l->waits_since_ns = 0;
    l->next_ns = l->pace ? now + bytes * NS_PER_S / l->pace : 0;
    if (!l->whole)
        l->whole = sync_buffer(FRAME_BYTES_MAX);
    l->pending = 1;
    for (uint32_t i = 0; i < l->count; i++) {
        l->have[i] = 0;
        const struct member *m = look_member(l, i);
        bool write_out = l->what != LOOK_CANARY && m->slot_writes[l->images[i].slot] > 0; /* MEM-3 */
        bool wanted = l->whole && !(l->missed & (1u << i)) && member_readable(m) && !look_repairing(l, i) &&
                      !write_out && !look_given_up(l, i) && !look_owed_by(l->scrub, m);
        if (PLANTED(scrub_one_image) && i > 0)
            continue;
        if (!wanted || !look_submit(l, i, bytes))
            l->missed |= 1u << i;
    }
    if (--l->pending == 0)
        look_window_over(l);
}

/* SCR-2 */
static void look_lose_patience(struct look *l)
{
    uint64_t now = io_now_ns(l->scrub->pool->io);
    for (uint32_t i = 0; i < l->count; i++) {
        struct look_read *o = l->out[i];
        if (!o)
            continue;
        if (o->read.at != o->seen_at) {
            o->seen_at = o->read.at;
            o->moved_ns = now;
        }
        if (now - o->moved_ns >= LOOK_PATIENCE_NS || now - l->read_ns >= LOOK_WINDOW_NS)
            look_leave_out(l, i);
    }
    if (l->pending == 0)
        look_window_over(l);
}

/* A repair of this segment is waited for, with a patience of its own: what follows would not be verified. */
static bool look_waits_for_repair(struct look *l)
{
    uint64_t now = io_now_ns(l->scrub->pool->io);
    bool repairing = false;
    for (uint32_t i = 0; i < l->count; i++)
        repairing = repairing || look_repairing(l, i);
    if (!repairing)
        return false;
    if (l->waits_since_ns == 0)
        l->waits_since_ns = now;
    return now - l->waits_since_ns < LOOK_PATIENCE_NS;
}

bool look_owed_by(const struct scrub *c, const struct member *m)
{
    LINK_EACH(l, &c->orphans)
        if (CONTAINER_OF(l, struct look_read, link)->read.member == m)
            return true;
    return false;
}

void look_drop(struct look *l)
{
    if (!l->running)
        return;
    l->dropped = l->stopped = true;
    if (l->pending == 0) {
        l->window_bytes = 0;
        look_end(l);
    }
}

void look_step(struct look *l)
{
    struct scrub *c = l->scrub;
    if (!l->running)
        return;
    if (l->pending) {
        look_lose_patience(l);
        return;
    }
    bool rewritten = l->what == LOOK_TABLE && !segment_find(c->pool, l->id); /* its slots are others' by now */
    if (c->pool->stopping || c->paused || rewritten) {
        look_drop(l);
        return;
    }
    if (l->waits) {
        look_judge(l);
        return;
    }
    if (l->offset >= l->end) {
        look_end(l);
        return;
    }
    if (look_waits_for_repair(l) || io_now_ns(c->pool->io) < l->next_ns || !scrub_may(c, look_members(l)))
        return;
    look_read_window(l);
}
