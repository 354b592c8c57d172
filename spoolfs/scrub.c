/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading and verifying every image of every segment, image headers and superblocks, oldest-verified first.
 *
 *   segment chosen -> headers of all images -> windows of all images side by side -> each frame of each image judged
 *   -> bad ones handed to repair with a proved source -> next window ... -> pass over: superblocks rewritten if any differs
 *
 * Invariants: SCR-1: a finding is repaired only from bytes proved in the same window. SCR-2: the pace is what one pass
 * per interval needs, within the throttle's tokens; evidence (a read that failed) puts its segment first. SCR-3: the
 * pass covers every segment that was sealed when it began or got sealed meanwhile and is not verified yet. */
#include "engine.h"

#include <base/planted.h>
#include <spoolfs/upkeep.h>
#include <stdlib.h>
#include <string.h>

#define SCRUB_INTERVAL_DEFAULT_NS (24 * 3600 * NS_PER_S)
#define SCRUB_PACE_MIN (UINT64_C(1) << 20) /* bytes a second and image row: a nearly empty pool is verified often */

struct scrub {
    struct pool *pool;
    struct segment *segment;
    uint64_t offset, window_at;
    uint32_t window_bytes;
    uint8_t *window[COPIES_MAX];
    uint32_t have[COPIES_MAX];
    uint8_t *whole;
    struct block_read reads[COPIES_MAX];
    uint32_t pending;
    bool headers, paused, forced, in_pass, window_waits;
    uint8_t *superblocks;
    struct member_op super_op;
    uint32_t super_member, super_copy;
    struct member *super_reading;
    bool super_running, super_bad;
    uint64_t pass, pass_bytes, pass_done, pass_started_ns, next_ns;
    uint64_t last_completed_ms, passes, bytes_verified, errors_found, errors_repaired;
};

static struct scrub *scrub_of(struct pool *p)
{
    if (!p->scrub) {
        struct scrub *c = calloc(1, sizeof *c);
        if (!c)
            return NULL;
        c->pool = p;
        p->scrub = c;
    }
    return p->scrub;
}

static bool scrub_free_windows(struct scrub *c)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        free(c->window[i]);
        c->window[i] = NULL;
    }
    free(c->whole);
    c->whole = NULL;
    return false;
}

static bool scrub_windows(struct scrub *c)
{
    if (!c->whole)
        c->whole = sync_buffer(FRAME_BYTES_MAX);
    bool enough = c->whole != NULL;
    for (uint32_t i = 0; i < c->segment->image_count && enough; i++) {
        if (!c->window[i])
            c->window[i] = sync_buffer(FRAME_BYTES_MAX);
        enough = c->window[i] != NULL;
    }
    return enough;
}

/* Evidence first, then what this pass has not seen, the lowest index first: slots fill in order, so this walks members
 * roughly in the order they were written. */
static struct segment *scrub_choose(struct scrub *c)
{
    struct segment *best = NULL;
    for (uint32_t i = 0; i < c->pool->segment_used; i++) {
        struct segment *s = &c->pool->segments[i];
        if (s->state != SEGMENT_SEALED || s->kind != SEGMENT_MAIL || s->compacting || s->rebuilding)
            continue;
        if (s->suspicious)
            return s;
        if (s->scrubbed_pass < c->pass && !best)
            best = s;
    }
    return best;
}

static bool scrub_awaits_seal(const struct scrub *c)
{
    for (uint32_t i = 0; i < c->pool->segment_used; i++) {
        const struct segment *s = &c->pool->segments[i];
        if ((s->state == SEGMENT_OPEN && s->close_soon) || (s->state == SEGMENT_CLOSED && s->kind == SEGMENT_MAIL))
            return true;
    }
    return false;
}

static void scrub_found(struct scrub *c, uint32_t image, uint64_t offset, enum err why, bool repairable)
{
    struct pool *p = c->pool;
    struct member *m = &p->members[c->segment->images[image].member];
    c->errors_found++;
    c->errors_repaired += repairable;
    if (why == ERR_IDENTITY)
        m->errors_identity++;
    else if (why == ERR_CORRUPT)
        m->errors_checksum++;
    pool_event(p, EVENT_frame_corrupt, m, "scrub: segment %llu at %llu: %s%s", (unsigned long long)c->segment->id.counter,
               (unsigned long long)offset, err_text(why), repairable ? "; repaired from a sibling" : "");
}

/* --- one frame on all images --- */

/* Returns the bytes to go on by; 0: the frame reaches beyond the window. */
static uint64_t scrub_frame(struct scrub *c)
{
    struct pool *p = c->pool;
    struct segment *s = c->segment;
    uint32_t at = (uint32_t)(c->offset - c->window_at), good = UINT32_MAX, bad = 0;
    enum err why[COPIES_MAX] = {0};
    struct frame_view view, best;
    uint8_t *here[COPIES_MAX] = {0};
    uint32_t have[COPIES_MAX] = {0};
    for (uint32_t i = 0; i < s->image_count; i++) {
        if (c->have[i] <= at)
            continue;
        here[i] = c->window[i] + at;
        have[i] = c->have[i] - at;
        why[i] = verify_head(here[i], &p->uuid, s->id, c->offset, &view);
        if (why[i] == ERR_OK && view.blocks * BLOCK_BYTES > have[i])
            return 0;
        if (why[i] == ERR_OK)
            why[i] = verify_frame(here[i], &p->uuid, &view, NULL);
        if (why[i] == ERR_OK && good == UINT32_MAX) {
            good = i;
            best = view;
        } else if (why[i] != ERR_OK) {
            bad |= 1u << i;
        }
    }
    if (good == UINT32_MAX &&
        salvage_frame(&p->uuid, s->id, c->offset, here, have, s->image_count, c->whole, &best) != ERR_OK) {
        c->errors_found++;
        return BLOCK_BYTES; /* no image has it: replay and reads have told by id; go on at the next block */
    }
    for (uint32_t i = 0; i < s->image_count; i++)
        if (bad & (1u << i))
            scrub_found(c, i, c->offset, why[i], true);
    if (bad)
        repair_frame(p, s, &best, bad);
    return (uint64_t)best.blocks * BLOCK_BYTES;
}

static void scrub_headers(struct scrub *c)
{
    struct pool *p = c->pool;
    struct segment *s = c->segment;
    for (uint32_t i = 0; i < s->image_count; i++) {
        if (c->have[i] < BLOCK_BYTES)
            continue;
        struct member *m = &p->members[s->images[i].member];
        struct image_view v;
        enum err e = image_head_decode(c->window[i], &v);
        if (e == ERR_OK && (!segment_id_equal(v.segment, s->id) || v.slot != s->images[i].slot ||
                            !uuid_equal(v.member, m->uuid)))
            e = ERR_IDENTITY;
        if (e == ERR_OK)
            continue;
        v = (struct image_view){.segment = s->id, .kind = s->kind, .slot = s->images[i].slot, .pool = p->uuid,
                                .member = m->uuid, .image_count = s->image_count};
        for (uint32_t j = 0; j < s->image_count; j++) {
            v.images[j].member = s->images[j].member;
            v.images[j].slot = s->images[j].slot;
        }
        image_head_encode(&v, c->whole);
        struct frame_view block = {.bytes = c->whole, .blocks = 1, .offset = 0};
        scrub_found(c, i, 0, e == ERR_NOT_FOUND ? ERR_CORRUPT : e, true);
        repair_frame(p, s, &block, 1u << i);
    }
}

/* --- windows --- */

static void scrub_leave(struct scrub *c)
{
    c->segment->refs--;
    c->segment = NULL;
}

static void scrub_window_over(struct scrub *c)
{
    struct segment *s = c->segment;
    if (c->headers) {
        scrub_headers(c);
        c->headers = false;
        c->offset = BLOCK_BYTES;
    }
    while (c->offset < s->length && c->offset < c->window_at + c->window_bytes) {
        if (c->pool->repairs_count + COPIES_MAX > REPAIRS_MAX) {
            c->window_waits = true; /* for room in the repairs' queue */
            return;
        }
        uint64_t by = scrub_frame(c);
        if (by == 0)
            break;
        c->offset += by;
    }
    c->window_bytes = 0;
    if (c->offset < s->length)
        return;
    s->scrubbed_pass = c->pass;
    s->suspicious = false;
    c->pass_done += s->length;
    scrub_leave(c);
}

static void scrub_on_read(struct block_read *r)
{
    struct scrub *c = r->owner;
    uint32_t i = (uint32_t)(r - c->reads);
    bool zeros = r->result == ERR_MEDIA; /* never verify, and are written anew from a sibling */
    c->have[i] = r->result == ERR_OK || zeros ? r->length : 0;
    c->bytes_verified += c->have[i];
    if (--c->pending == 0)
        scrub_window_over(c);
}

static void scrub_read(struct scrub *c)
{
    struct pool *p = c->pool;
    struct segment *s = c->segment;
    uint64_t from = c->headers ? 0 : c->offset, left = s->length - from;
    uint32_t bytes = left < FRAME_BYTES_MAX ? (uint32_t)left : FRAME_BYTES_MAX;
    c->window_at = from;
    c->window_bytes = bytes;
    c->pending = 1;
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        c->have[i] = 0;
        if (!image_readable(p, s, i) || (PLANTED(scrub_one_image) && i > 0))
            continue;
        c->pending++;
        c->reads[i] = (struct block_read){.member = m, .class = IO_CLASS_SCRUB, .length = bytes, .buffer = c->window[i],
                                          .offset = segment_image_offset(p, &s->images[i]) + from,
                                          .done = scrub_on_read, .owner = c};
        block_read_start(&c->reads[i]);
    }
    if (--c->pending == 0) { /* nobody can be read: nothing to verify */
        c->offset = s->length;
        scrub_window_over(c);
    }
}

/* --- superblocks: read all copies; any that differs makes the pool write all of them anew --- */

static void scrub_super_next(struct scrub *c);

static void scrub_on_super(struct member_op *mo)
{
    struct scrub *c = mo->owner;
    struct superblock s;
    c->super_reading = NULL;
    superblock_read_back(c->pool, mo->member);
    bool good = mo->op.result == ERR_OK && superblock_decode(c->superblocks, &s) == ERR_OK && s.copy == c->super_copy &&
                uuid_equal(s.member, mo->member->uuid);
    if (!good && !c->pool->super.running) {
        c->errors_found++;
        c->errors_repaired++;
        c->super_bad = true;
        mo->member->errors_checksum++;
        pool_event(c->pool, EVENT_superblock_repaired, mo->member, "scrub: copy %u is damaged; all copies are written anew",
                   c->super_copy);
    }
    c->super_copy++;
    scrub_super_next(c);
}

static void scrub_super_next(struct scrub *c)
{
    struct pool *p = c->pool;
    if (c->super_copy == SUPERBLOCK_COPIES) {
        c->super_copy = 0;
        c->super_member++;
    }
    while (c->super_member < MEMBERS_MAX && !member_usable(&p->members[c->super_member]))
        c->super_member++;
    if (c->super_member >= MEMBERS_MAX || p->super.running) { /* an update writes them all anyway */
        c->super_running = false;
        if (c->super_bad)
            superblock_update(p, NULL);
        return;
    }
    struct member *m = &p->members[c->super_member];
    c->super_op = (struct member_op){.done = scrub_on_super, .owner = c};
    c->super_op.op = (struct io_op){.kind = IO_READ, .class = IO_CLASS_SCRUB, .length = SUPERBLOCK_BYTES,
                                    .buffer = c->superblocks, .offset = superblock_offset(m->member_bytes, c->super_copy)};
    c->super_reading = m;
    member_submit(m, &c->super_op);
}

bool scrub_reads_superblock(const struct pool *p, const struct member *m)
{
    return p->scrub && p->scrub->super_reading == m;
}

static void scrub_supers(struct scrub *c)
{
    if (!c->superblocks)
        c->superblocks = sync_buffer(SUPERBLOCK_BYTES);
    if (!c->superblocks || c->pool->super.running)
        return;
    c->super_member = c->super_copy = 0;
    c->super_running = true;
    c->super_bad = false;
    scrub_super_next(c);
}

/* --- pace and passes --- */

static uint64_t scrub_total(const struct pool *p)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->segment_used; i++)
        if (p->segments[i].state == SEGMENT_SEALED && p->segments[i].kind == SEGMENT_MAIL)
            total += p->segments[i].length;
    return total;
}

static uint64_t scrub_interval_ns(const struct pool *p)
{
    return p->config.scrub_interval_ns ? p->config.scrub_interval_ns : SCRUB_INTERVAL_DEFAULT_NS;
}

static void scrub_pass_begin(struct scrub *c)
{
    c->pass++;
    c->in_pass = true;
    c->pass_bytes = scrub_total(c->pool);
    c->pass_done = 0;
    c->pass_started_ns = io_now_ns(c->pool->io);
    for (uint32_t i = 0; i < c->pool->segment_used; i++) { /* SCR-3: what is open is sealed, so that it is covered */
        struct segment *s = &c->pool->segments[i];
        s->close_soon = s->close_soon || (s->state == SEGMENT_OPEN && s->kind == SEGMENT_MAIL && s->length > BLOCK_BYTES);
    }
    c->pool->table_renew = true; /* the segment table is not read but written anew: what rots in it does not last a pass */
    scrub_supers(c);
}

static void scrub_pass_end(struct scrub *c)
{
    struct pool *p = c->pool;
    c->in_pass = false;
    c->forced = false;
    c->passes++;
    c->last_completed_ms = io_wall_ms(p->io);
    scrub_free_windows(c);
    pool_event(p, EVENT_scrub_completed, NULL, "pass %llu: %llu bytes of images verified, %llu errors found since the mount",
               (unsigned long long)c->passes, (unsigned long long)c->bytes_verified, (unsigned long long)c->errors_found);
    uint64_t took = io_now_ns(p->io) - c->pass_started_ns, interval = scrub_interval_ns(p);
    c->next_ns = io_now_ns(p->io) + (took < interval ? interval - took : 0);
}

/* SCR-2 */
static bool scrub_may_read(struct scrub *c, uint32_t bytes)
{
    struct pool *p = c->pool;
    uint64_t now = io_now_ns(p->io);
    if (!c->forced && now < c->next_ns)
        return false;
    if (!upkeep_may(p, segment_members(c->segment), IO_CLASS_SCRUB))
        return false;
    uint64_t pace = c->pass_bytes / (scrub_interval_ns(p) / NS_PER_S + 1) * 2; /* twice: half the interval is reserve */
    pace = pace > SCRUB_PACE_MIN ? pace : SCRUB_PACE_MIN;
    c->next_ns = now + bytes * NS_PER_S / pace;
    return true;
}

void scrub_step(struct pool *p)
{
    struct scrub *c = scrub_of(p);
    if (!c || !p->mounted || c->pending || c->super_running || p->repairs_count > 0)
        return; /* an image under repair is not read: what follows would not be verified */
    if (c->window_waits && c->segment) {
        c->window_waits = false;
        scrub_window_over(c);
        return;
    }
    if (c->segment && (p->stopping || c->paused)) {
        scrub_leave(c);
        return;
    }
    if (p->stopping || c->paused)
        return;
    for (uint32_t n = 0; n < 4 && !c->pending; n++) {
        if (!c->in_pass) {
            if (!c->forced && (io_now_ns(p->io) < c->next_ns || !p->index_ready))
                return;
            scrub_pass_begin(c);
            if (c->super_running)
                return;
        }
        if (!c->segment) {
            struct segment *s = scrub_choose(c);
            if (!s && scrub_awaits_seal(c))
                return;
            if (!s) {
                scrub_pass_end(c);
                return;
            }
            c->segment = s;
            s->refs++;
            c->headers = true;
            c->window_waits = false;
            c->offset = 0;
        }
        if (!scrub_windows(c) || !scrub_may_read(c, FRAME_BYTES_MAX < c->segment->length ? FRAME_BYTES_MAX
                                                                                        : (uint32_t)c->segment->length))
            return;
        scrub_read(c);
    }
}

bool scrub_idle(const struct pool *p)
{
    return !p->scrub || (!p->scrub->segment && !p->scrub->pending && !p->scrub->super_running);
}

void scrub_note_fault(struct pool *p, struct segment *s)
{
    s->suspicious = true;
    if (p->scrub) {
        p->scrub->next_ns = 0;
        p->scrub->forced = p->scrub->forced || !p->scrub->in_pass;
    }
}

void scrub_fini(struct pool *p)
{
    struct scrub *c = p->scrub;
    p->scrub = NULL;
    if (!c)
        return;
    scrub_free_windows(c);
    free(c->superblocks);
    free(c);
}

void scrub_start(struct pool *p)
{
    struct scrub *c = scrub_of(p);
    if (!c)
        return;
    c->forced = true;
    c->paused = false;
    if (!c->in_pass)
        c->next_ns = 0;
}

void scrub_pause(struct pool *p, bool paused)
{
    struct scrub *c = scrub_of(p);
    if (c)
        c->paused = paused;
}

void scrub_status(struct pool *p, struct upkeep_status *o)
{
    const struct scrub *c = p->scrub;
    if (!c)
        return;
    o->scrub.state = c->paused ? UPKEEP_PAUSED : c->in_pass ? UPKEEP_RUNNING : UPKEEP_IDLE;
    o->scrub.progress = c->in_pass ? (c->pass_bytes ? (double)c->pass_done / (double)c->pass_bytes : 0) : c->passes ? 1 : 0;
    if (o->scrub.progress > 1)
        o->scrub.progress = 1;
    o->scrub.last_completed_ms = c->last_completed_ms;
    o->scrub.passes = c->passes;
    o->scrub.bytes_verified = c->bytes_verified;
    o->scrub.errors_found = c->errors_found;
    o->scrub.errors_repaired = c->errors_repaired;
    uint64_t pace = c->pass_bytes / (scrub_interval_ns(p) / NS_PER_S + 1) * 2;
    pace = pace > SCRUB_PACE_MIN ? pace : SCRUB_PACE_MIN;
    if (c->in_pass && c->pass_bytes > c->pass_done)
        o->scrub.eta_seconds = (c->pass_bytes - c->pass_done) / pace;
}
