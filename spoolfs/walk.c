/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: visiting the frames of a segment in order, from any image, without blocking: replay, compaction, and what
 * verifies in the background. Every frame is proved whole before on_frame sees it.
 *
 *   window of one image -> frame good: on_frame, rest until walk_next
 *                       -> bad or unreadable: the same place of all images -> salvage -> on_frame | on_lost
 */
#include "images.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

static void walk_run(struct walk *w);

/* What a drive gave up is gone (BRD-3). A member that refuses everything may be back in a moment: it is asked again so often, for a
 * minute where the replay asks, before the walk passes over what it may hold; the segment is then kept (in_doubt). */
#define WALK_REFUSED_MAX 600u
/* Longer than READ_LATE_NS: nobody waits for a walk but the backlog. */
#define WALK_LATE_NS (1 * NS_PER_S)

struct walk_read {
    struct block_read read;
    struct link link;          /* in pool.walk_orphans */
    struct walk *walk;         /* NULL: an orphan */
    uint32_t image, kept;      /* kept: bytes at the window's start that are there from the read before */
    uint8_t *window;
    uint64_t unread[FRAME_BLOCK_WORDS];
};

static void walk_read_free(struct walk_read *o)
{
    free(o->window);
    free(o);
}

void walk_forget_orphans(struct pool *p)
{
    struct link *l;
    while ((l = link_pop(&p->walk_orphans)) != NULL)
        walk_read_free(CONTAINER_OF(l, struct walk_read, link));
}

/* IO-5: its buffer stays with it. */
static void walk_orphan(struct walk *w, uint32_t i)
{
    struct walk_read *o = w->out[i];
    o->walk = NULL;
    link_push(&w->pool->walk_orphans, &o->link);
    w->out[i] = NULL;
    w->pending--;
}

static void walk_on_read(struct block_read *r)
{
    struct walk_read *o = r->owner;
    struct walk *w = o->walk;
    uint32_t i = o->image;
    if (!w) {
        link_remove(&o->link);
        walk_read_free(o);
        return;
    }
    w->window[i] = o->window;
    bool refuses = r->result != ERR_OK && r->result != ERR_MEDIA && r->result != ERR_MEMBER_GONE && r->result != ERR_CANCELED;
    bool gone = r->result == ERR_MEDIA || (refuses && w->refused >= WALK_REFUSED_MAX);
    w->in_doubt = w->in_doubt || (gone && refuses);
    w->refusing = w->refusing || (w->all && refuses && !gone);
    if (gone)
        memset(o->window + o->kept, 0, r->length); /* zeros never verify */
    if (gone && refuses)
        memset(o->unread, 0xff, sizeof o->unread);
    memcpy(w->unread[i], o->unread, sizeof o->unread);
    w->window_bytes[i] = r->result == ERR_OK || gone ? o->kept + r->length : 0;
    w->out[i] = NULL;
    if (PLANTED(short_read_is_end) && r->result == ERR_SHORT)
        w->offset = w->end;
    free(o);
    w->pending--;
    if (w->pending == 0 && !w->stopped)
        walk_run(w);
}

static bool walk_submit(struct walk *w, uint32_t i, uint32_t bytes, uint32_t kept)
{
    struct pool *p = w->pool;
    struct walk_read *o = calloc(1, sizeof *o);
    if (o && !w->window[i])
        w->window[i] = sync_buffer(FRAME_BYTES_MAX);
    if (!o || !w->window[i]) {
        free(o);
        return false;
    }
    o->walk = w;
    o->image = i;
    o->kept = kept;
    o->window = w->window[i];
    w->window[i] = NULL;
    o->read = (struct block_read){.member = &p->members[w->segment->images[i].member], .class = w->class,
                                  .offset = segment_image_offset(p, &w->segment->images[i]) + w->offset + kept,
                                  .length = bytes - kept, .buffer = o->window + kept, .unread = o->unread,
                                  .done = walk_on_read, .owner = o};
    w->out[i] = o;
    w->pending++;
    block_read_start(&o->read);
    return true;
}

/* The beginning of a frame that ends behind the window stays: only the rest of it is read. */
static uint32_t walk_keep(struct walk *w)
{
    uint32_t i = w->image;
    if (w->all || !w->want || i >= w->segment->image_count || !w->window[i] || w->offset < w->window_at)
        return 0;
    uint64_t at = w->offset - w->window_at;
    if (at == 0 || at >= w->window_bytes[i] || !image_readable(w->pool, w->segment, i) || (w->late_mask & (1u << i)))
        return 0;
    uint32_t kept = w->window_bytes[i] - (uint32_t)at;
    memmove(w->window[i], w->window[i] + at, kept);
    return kept;
}

/* Reads from the walk's offset: one image, or all of them when that one did not do. */
static void walk_read(struct walk *w, bool all)
{
    uint64_t left = w->end - w->offset;
    uint32_t bytes = left < FRAME_BYTES_MAX ? (uint32_t)left : FRAME_BYTES_MAX;
    uint32_t kept = all ? 0 : walk_keep(w);
    memset(w->window_bytes, 0, sizeof w->window_bytes);
    w->window_at = w->offset;
    w->want = bytes;
    w->all = all;
    w->refusing = false;
    if (!kept)
        w->image = read_choose_image(w->pool, w->segment, w->late_mask);
    w->read_ns = io_now_ns(w->pool->io);
    for (uint32_t i = 0; i < w->segment->image_count; i++) {
        bool here = image_readable(w->pool, w->segment, i);
        bool wanted = all ? here && !(w->late_mask & (1u << i)) : i == w->image;
        if (all && !here && member_readable(&w->pool->members[w->segment->images[i].member]))
            w->late_mask |= 1u << i; /* it cannot be asked now: what it holds is not lost */
        if (wanted)
            (void)walk_submit(w, i, bytes, kept);
    }
}

static void walk_give(struct walk *w, const struct frame_view *v)
{
    w->resting = true;
    w->refused = 0;
    w->offset += (uint64_t)v->blocks * BLOCK_BYTES;
    w->on_frame(w, v);
}

/* What the window has at the walk's place, by the frame's head: 1 all of a frame, 0 more has to be read, -1 none. */
static int walk_look(const struct walk *w, struct frame_view *v_out)
{
    uint32_t i = w->image;
    if (i == COPIES_MAX || w->window_bytes[i] == 0)
        return -1;
    uint64_t at = w->offset - w->window_at;
    if (at + BLOCK_BYTES > w->window_bytes[i])
        return 0;
    if (verify_head(w->window[i] + at, &w->pool->uuid, w->segment->id, w->offset, v_out) != ERR_OK ||
        w->offset + (uint64_t)v_out->blocks * BLOCK_BYTES > w->end)
        return -1;
    if (at + (uint64_t)v_out->blocks * BLOCK_BYTES > w->window_bytes[i])
        return at == 0 ? -1 : 0;
    return 1;
}

/* From one window: 1 given, 0 more has to be read, -1 bad here. */
static int walk_try_one(struct walk *w)
{
    struct frame_view v;
    int got = walk_look(w, &v);
    if (got != 1)
        return got;
    const uint8_t *bytes = w->window[w->image] + (w->offset - w->window_at);
    if (verify_frame(bytes, &w->pool->uuid, &v, NULL) != ERR_OK && !PLANTED(walk_unverified))
        return -1;
    walk_give(w, &v);
    return 1;
}

bool walk_has_next(const struct walk *w)
{
    struct frame_view v;
    return w->offset >= w->end || (w->resting && w->want && w->pending == 0 && walk_look(w, &v) == 1);
}

/* The next place where any image has a frame head, within the windows; w->end when there is none. */
static uint64_t walk_resync(struct walk *w)
{
    struct frame_view v;
    for (uint64_t at = w->offset + BLOCK_BYTES; at < w->end; at += BLOCK_BYTES)
        for (uint32_t i = 0; i < w->segment->image_count; i++)
            if (at - w->window_at + BLOCK_BYTES <= w->window_bytes[i] &&
                verify_head(w->window[i] + (at - w->window_at), &w->pool->uuid, w->segment->id, at, &v) == ERR_OK)
                return at;
    return w->offset + w->want < w->end ? w->offset + w->want : w->end;
}

/* A block that could not be read was counted as a read error when it was; its checksum says nothing. */
static void walk_blame(struct walk *w, uint32_t image, uint32_t blocks)
{
    struct member *m = &w->pool->members[w->segment->images[image].member];
    bool unread = false;
    for (uint32_t b = 0; b < blocks; b++)
        unread = unread || ((w->unread[image][b / 64] >> (b % 64)) & 1);
    m->errors_checksum += !unread;
    pool_event(w->pool, EVENT_frame_corrupt, m, "segment %llu, frame at %llu: %s", (unsigned long long)w->segment->id.counter,
               (unsigned long long)w->offset, err_text(unread ? ERR_MEDIA : ERR_CORRUPT));
    scrub_note_fault(w->pool, w->segment, image); /* its repair may find no room, and where one place is bad others are */
}

static void walk_salvage(struct walk *w)
{
    struct frame_view v;
    uint32_t bad = 0;
    if (!w->whole)
        w->whole = sync_buffer(FRAME_BYTES_MAX);
    enum err e = w->whole ? salvage_frame(&w->pool->uuid, w->segment->id, w->offset, w->window, w->window_bytes,
                                          w->segment->image_count, w->whole, &v)
                          : ERR_NO_MEMORY;
    w->all = false;
    bool any = false;
    for (uint32_t i = 0; i < w->segment->image_count; i++)
        any = any || w->window_bytes[i] > 0;
    if (!any && segment_images_readable(w->pool, w->segment) == 0) { /* all on members that are not here */
        uint64_t from = w->offset;
        w->offset = w->end;
        w->on_lost(w, from, w->end - from);
        return;
    }
    if (e == ERR_NO_MEMORY || !any || (e != ERR_OK && (w->late_mask || w->refusing))) { /* says nothing about what is there */
        w->refused += !any || w->refusing;
        w->unreadable = true;
        return;
    }
    w->refused = w->in_doubt ? w->refused : 0; /* what was given up for once is not waited for at every place */
    if (e != ERR_OK || w->offset + (uint64_t)v.blocks * BLOCK_BYTES > w->end) {
        uint64_t from = w->offset, to = walk_resync(w);
        w->offset = to;
        memset(w->window_bytes, 0, sizeof w->window_bytes);
        w->on_lost(w, from, to - from);
        return;
    }
    for (uint32_t i = 0; i < w->segment->image_count; i++) {
        struct frame_view one;
        struct member *m = &w->pool->members[w->segment->images[i].member];
        if (!member_readable(m) || w->window_bytes[i] == 0)
            continue;
        if (verify_head(w->window[i], &w->pool->uuid, w->segment->id, w->offset, &one) != ERR_OK ||
            verify_frame(w->window[i], &w->pool->uuid, &one, NULL) != ERR_OK) {
            bad |= 1u << i;
            walk_blame(w, i, v.blocks);
        }
    }
    repair_frame(w->pool, w->segment, &v, bad);
    for (uint32_t i = 0; i < w->segment->image_count; i++) /* what was gathered serves the next frames, too */
        if (w->window_bytes[i] > 0 && !(bad & (1u << i)))
            w->image = i;
    walk_give(w, &v);
}

static void walk_run(struct walk *w)
{
    if (w->running)
        return;
    w->running = true;
    while (!w->stopped && !w->resting && w->pending == 0 && !w->ended && !w->unreadable) {
        if (w->offset >= w->end) {
            w->ended = true;
            w->on_end(w);
            break;
        }
        if (w->all) {
            walk_salvage(w);
            continue;
        }
        int got = w->want ? walk_try_one(w) : 0;
        if (got == 1)
            continue;
        walk_read(w, got < 0);
        if (w->pending == 0 && !w->all) { /* no image to read from: all say so */
            walk_read(w, true);
        }
    }
    w->running = false;
}

enum err walk_start(struct walk *w)
{
    ASSERT(w->on_frame && w->on_lost && w->on_end);
    w->segment->refs++;
    w->want = 0;
    walk_run(w);
    return ERR_OK;
}

void walk_next(struct walk *w)
{
    w->resting = false;
    walk_run(w);
}

void walk_step(struct walk *w)
{
    if (w->pending == 0 || w->stopped || io_now_ns(w->pool->io) - w->read_ns < WALK_LATE_NS)
        return;
    uint32_t out = 0;
    for (uint32_t i = 0; i < w->segment->image_count; i++)
        out |= w->out[i] ? 1u << i : 0;
    bool other = read_choose_image(w->pool, w->segment, w->late_mask | out) < COPIES_MAX;
    if (!other && !w->all)
        return; /* nobody else to ask */
    for (uint32_t i = 0; i < w->segment->image_count; i++)
        if (w->out[i])
            walk_orphan(w, i);
    w->late_mask |= out;
    if (!w->all)
        w->want = 0; /* reads again from here, elsewhere */
    if (!w->all)
        memset(w->window_bytes, 0, sizeof w->window_bytes);
    walk_run(w);
}

void walk_retry(struct walk *w)
{
    w->unreadable = false;
    w->late_mask = 0;
    walk_run(w);
}

void walk_stop(struct walk *w)
{
    w->stopped = true;
}

bool walk_idle(const struct walk *w)
{
    return w->pending == 0 && !w->running;
}

const uint8_t *walk_window(const struct walk *w, uint64_t offset, uint32_t *bytes_out)
{
    uint32_t i = w->image;
    bool here = w->resting && i < w->segment->image_count && w->window[i] && offset >= w->window_at &&
                offset - w->window_at < w->window_bytes[i];
    *bytes_out = here ? w->window_bytes[i] - (uint32_t)(offset - w->window_at) : 0;
    return here ? w->window[i] + (offset - w->window_at) : NULL;
}

void walk_fini(struct walk *w)
{
    if (w->segment)
        w->segment->refs--;
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        if (w->out[i])
            walk_orphan(w, i);
        free(w->window[i]);
    }
    free(w->whole);
    memset(w, 0, sizeof *w);
}
