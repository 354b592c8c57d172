/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: damage beyond redundancy whose cost is known beforehand. On a read-only mount, where nothing moves, blocks of some
 * messages' records are spoilt on every image of their segment, and others on one image here and another there.
 *
 *  LOS-1  while the index still knows them, exactly the messages whose record has a block that is bad everywhere are
 *         reported lost, each by its queue id in an event; all others are read byte for byte. Where an image is on a member
 *         that is away (a person has to see to it) nothing is lost: a read of it says that the member is gone, and no event
 *         says lost.
 *  LOS-2  the offline check names exactly the frames that were spoilt, besides those that were lost before: as lost, or, where an
 *         image is away, as waiting for its member.
 *  LOS-3  with the index made anew from the log the loss is that of frames: all messages without a record in them are there.
 * Never: writes through the pool. Ends the run: what it spoilt stays spoilt. */
#include "world.h"

#include <base/assert.h>
#include <spoolfs/format.h>
#include <spoolfs/locate.h>
#include <stdlib.h>
#include <string.h>

#define SPOILT_MAX 6u
#define PATIENCE_NS (UINT64_C(90) * 1000000000)
#define READS_AT_ONCE 12u
#define FRAMES_MAX 512u
#define IMAGES_MAX (MEMBERS_MAX * 2) /* of one segment, with old ones in slots that are free now */

struct lost_frame { struct segment_id segment; uint64_t offset; bool found; };

/* Where a CHUNK lay when it was read last. */
struct chunk_place { struct model_message *msg; struct place place; uint32_t bytes; };
#define CHUNKS_MAX 4096u
static struct chunk_place chunks[CHUNKS_MAX];
static uint32_t chunk_count;

struct losses {
    struct world *w;
    struct prng prng;           /* of its own: moves nothing else */
    struct lost_frame frames[FRAMES_MAX]; /* that the check has to name */
    uint32_t count;
    bool before;                /* the check of before: its findings are taken as they are */
    struct segment_id away[FRAMES_MAX]; /* an image of them is on a member that is not here, says the check of before */
    uint32_t away_count;
    bool somebody_away;
};

/* --- places --- */

/* By its image header, or by the head of the frame: damage of before may have taken either. Other frames of it may lie behind what
 * a new segment has written there. */
static bool slot_holds(struct world *w, uint16_t target, uint64_t slot_at, const struct place *place)
{
    static uint8_t block[BLOCK_BYTES];
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    struct image_head_disk image;
    struct frame_head_disk frame;
    if (sim_disk_read(disk, slot_at, BLOCK_BYTES, block) == ERR_OK) {
        memcpy(&image, block, sizeof image);
        if (le64_get(image.magic) == IMAGE_MAGIC && segment_id_equal(segment_id_disk_get(image.segment), place->segment))
            return true;
    }
    if (sim_disk_read(disk, slot_at + place->frame, BLOCK_BYTES, block) != ERR_OK)
        return false;
    memcpy(&frame, block, sizeof frame);
    return le64_get(frame.magic) == FRAME_MAGIC && le64_get(frame.offset) == place->frame &&
           segment_id_equal(segment_id_disk_get(frame.segment), place->segment);
}

/* Every slot that holds something of the segment, old images among them: at[] on member[]. */
static uint32_t images_of(struct world *w, const struct place *place, uint16_t *member, uint64_t *at, uint32_t max)
{
    uint32_t count = 0;
    for (uint16_t t = 0; t < w->config.member_count; t++) {
        uint64_t end = sim_disk_bytes(sim_io_disk(w->sim, t)) - PLAN_ENDS_BYTES;
        for (uint64_t slot = 0; (slot + 1) * w->plan.segment_bytes <= end && count < max; slot++) {
            uint64_t offset = PLAN_SLOTS_OFFSET + slot * w->plan.segment_bytes;
            if (!slot_holds(w, t, offset, place))
                continue;
            member[count] = t;
            at[count++] = offset;
        }
    }
    return count;
}

/* Old images, and those on a member that is not in service, make up for nothing. */
static bool image_serves(struct world *w, uint16_t target, uint64_t at, const struct place *place)
{
    uint64_t offset;
    return pool_locate(w->pool, target, place, &offset) == ERR_OK && offset == at + place->frame + place->record;
}

/* True: the whole block is gone; false: one byte of it is wrong. */
static bool spoil(struct losses *l, uint16_t member, uint64_t offset, uint32_t within)
{
    struct sim_disk *disk = sim_io_disk(l->w->sim, member);
    bool whole = prng_below(&l->prng, 2) == 0;
    if (whole)
        sim_disk_make_unreadable(disk, offset);
    else
        sim_disk_rot(disk, offset + within, (uint8_t)(1u << prng_below(&l->prng, 8)));
    return whole;
}

/* --- what is spoilt --- */

static uint32_t record_bytes(const struct model_message *msg)
{
    return RECORD_HEAD_BYTES + msg->envelope_bytes + (msg->chunk_count ? 0 : msg->body_bytes);
}

static bool same_frame(const struct place *a, const struct place *b)
{
    return segment_id_equal(a->segment, b->segment) && a->frame == b->frame;
}

/* Bytes of the frame that no image has any more. */
struct gone { struct place frame; uint64_t from, to; };

static bool touched(const struct gone *g, const struct place *at, uint32_t bytes)
{
    return same_frame(&g->frame, at) && at->record < g->to && g->from < at->record + bytes;
}

static bool shown(const struct world *w, const struct model_message *msg)
{
    return msg->seen == w->model.audits && model_must_be_there(msg);
}

static bool is_away(const struct losses *l, struct segment_id segment)
{
    for (uint32_t i = 0; i < l->away_count; i++)
        if (segment_id_equal(l->away[i], segment))
            return true;
    return false;
}

static void doom(struct losses *l, const struct gone *g)
{
    struct world *w = l->w;
    bool away = is_away(l, g->frame.segment);
    for (uint32_t i = 0; i < w->model.count; i++) {
        struct model_message *msg = &w->model.messages[i];
        if (!shown(w, msg))
            continue;
        msg->frame_lost = msg->frame_lost || same_frame(&msg->place, &g->frame);
        if (touched(g, &msg->place, record_bytes(msg)))
            *(away ? &msg->waits : &msg->doomed) = true;
    }
    for (uint32_t i = 0; i < chunk_count; i++) {
        const struct chunk_place *c = &chunks[i];
        c->msg->frame_lost = c->msg->frame_lost || same_frame(&c->place, &g->frame);
        if (touched(g, &c->place, c->bytes))
            *(away ? &c->msg->waits : &c->msg->doomed) = true;
    }
    ASSERT(l->count < FRAMES_MAX);
    l->frames[l->count++] = (struct lost_frame){.segment = g->frame.segment, .offset = g->frame.frame};
    world_say(w, "spoilt on every image: %llu to %llu of the frame at %llu of segment %llu", (unsigned long long)g->from,
              (unsigned long long)g->to, (unsigned long long)g->frame.frame, (unsigned long long)g->frame.segment.counter);
}

/* The same byte everywhere, or its whole block: lost. */
static void spoil_everywhere(struct losses *l, struct model_message *victim)
{
    uint16_t member[IMAGES_MAX];
    uint64_t at[IMAGES_MAX], byte = victim->place.record + RECORD_HEAD_BYTES, block = byte - byte % BLOCK_BYTES;
    uint32_t count = images_of(l->w, &victim->place, member, at, IMAGES_MAX);
    bool whole = true;
    for (uint32_t i = 0; i < count; i++) {
        bool block_gone = spoil(l, member[i], at[i] + victim->place.frame + block, (uint32_t)(byte - block));
        whole &= block_gone || !image_serves(l->w, member[i], at[i], &victim->place);
    }
    if (count > 0)
        doom(l, &(struct gone){victim->place, whole ? block : byte, whole ? block + BLOCK_BYTES : byte + 1});
}

/* The record's first block here, its last there: nothing is lost. */
static void spoil_in_halves(struct losses *l, struct model_message *victim)
{
    uint16_t member[IMAGES_MAX];
    uint64_t at[IMAGES_MAX], first = victim->place.record + RECORD_HEAD_BYTES;
    uint64_t last = victim->place.record + record_bytes(victim) - 1;
    uint32_t count = images_of(l->w, &victim->place, member, at, IMAGES_MAX), serving = 0;
    bool whole = false;
    if (first / BLOCK_BYTES == last / BLOCK_BYTES)
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (!image_serves(l->w, member[i], at[i], &victim->place))
            continue;
        uint64_t byte = serving++ % 2 ? last : first, within = byte % BLOCK_BYTES;
        whole = spoil(l, member[i], at[i] + victim->place.frame + byte - within, (uint32_t)within);
    }
    l->w->counts.salvaged += serving > 1;
    uint64_t block = first - first % BLOCK_BYTES;
    if (serving == 1) /* the only image */
        doom(l, &(struct gone){victim->place, whole ? block : first, whole ? block + BLOCK_BYTES : first + 1});
}

static void spoil_some(struct losses *l)
{
    struct world *w = l->w;
    for (uint32_t n = 0, tries = 0; n < SPOILT_MAX && tries < 200 && w->model.count > 0; tries++) {
        struct model_message *msg = &w->model.messages[prng_below(&l->prng, w->model.count)];
        if (!shown(w, msg) || msg->frame_lost || msg->spoilt)
            continue;
        bool everywhere = n++ % 2 == 0 || w->plan.level == PLAN_BEYOND; /* there an image may be hollow for good already */
        for (uint32_t i = 0; i < w->model.count; i++) /* one damage a segment: the check names a bad place once */
            w->model.messages[i].spoilt |= segment_id_equal(w->model.messages[i].place.segment, msg->place.segment);
        if (everywhere)
            spoil_everywhere(l, msg);
        else
            spoil_in_halves(l, msg);
    }
}

/* --- verdicts --- */

static bool losses_untold(const struct world *w)
{
    for (uint32_t i = 0; i < w->model.count; i++)
        if (w->model.messages[i].doomed && !w->model.messages[i].waits && !w->model.messages[i].lost_told)
            return true;
    return false;
}

/* LOS-1. `visit_lost` in senders_visit.c notes what was answered, world.c's sink what events said. */
static void losses_read(struct losses *l)
{
    struct world *w = l->w;
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    w->losing = true;
    w->model.audits++; /* `verified` counts from here */
    bool left = true;
    while (left && !world_failed(w)) {
        left = w->action_count > 0;
        for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++) {
            struct model_message *msg = &w->model.messages[i];
            if (msg->seen + 1 != w->model.audits || msg->verified == w->model.audits || !model_must_be_there(msg))
                continue;
            left = true;
            if (w->action_count < READS_AT_ONCE)
                senders_visit(w, msg, VISIT_NOTHING);
        }
        world_turn(w);
        if (io_now_ns(w->io) > until && left)
            world_fail(w, "liveness: reads of spoilt mail do not end");
    }
    while (losses_untold(w) && !world_failed(w) && io_now_ns(w->io) < until)
        world_turn(w); /* the event follows the read: the index is asked for sender and recipients */
    w->losing = false;
    for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++) {
        struct model_message *msg = &w->model.messages[i];
        w->counts.lost_by_id += msg->doomed;
        if (msg->waits && !msg->lost_said) /* with one part lost and another away, either may be the answer */
            world_fail(w, "P2: queue id %llu is on a member that is away and is handed out", (unsigned long long)msg->qid.counter);
        if (msg->doomed && !msg->waits && (!msg->lost_said || !msg->lost_told))
            world_fail(w, "P2: queue id %llu is lost and %s", (unsigned long long)msg->qid.counter,
                       msg->lost_said ? "no event says so" : "is handed out");
    }
}

void losses_chunk(struct model_message *msg, struct place place, uint32_t bytes)
{
    if (chunk_count < CHUNKS_MAX)
        chunks[chunk_count++] = (struct chunk_place){msg, place, RECORD_HEAD_BYTES + bytes};
}

/* "QUEUE-ID: ..." */
void losses_told(struct world *w, const char *evidence)
{
    struct queue_id qid;
    struct model_message *msg = NULL;
    if (queue_id_parse(evidence, strcspn(evidence, ": "), &qid) == ERR_OK) /* the id comes first */
        msg = model_find(&w->model, qid);
    if (msg && msg->doomed)
        msg->lost_told = true;
    else if (msg)
        world_fail(w, "P2: an event says that queue id %llu is lost, and it is not", (unsigned long long)qid.counter);
}

static void on_finding(void *owner, const struct pool_check_finding *f)
{
    struct losses *l = owner;
    struct world *w = l->w;
    world_say(w, "check: %s at %llu of segment %llu on \"%s\": %s%s", f->text, (unsigned long long)f->offset,
              (unsigned long long)f->segment.counter, f->member, err_name(f->fault), f->lost ? ", lost" : "");
    l->somebody_away = l->somebody_away || f->fault == ERR_MEMBER_GONE;
    if (l->before && f->fault == ERR_MEMBER_GONE && !segment_id_is_none(f->segment)) {
        ASSERT(l->away_count < FRAMES_MAX);
        l->away[l->away_count++] = f->segment;
    }
    if (!f->lost && !f->waits_count)
        return;
    if (f->waits_count ? !l->before && !is_away(l, f->segment) : is_away(l, f->segment))
        world_fail(w, "the check says that the frame at %llu of segment %llu %s", (unsigned long long)f->offset,
                   (unsigned long long)f->segment.counter,
                   f->lost ? "is lost, and a member that is away has an image" : "waits for a member, and none is away");
    for (uint32_t i = 0; i < l->count; i++)
        if (segment_id_equal(l->frames[i].segment, f->segment) && l->frames[i].offset == f->offset) {
            l->frames[i].found = true;
            return;
        }
    if (!l->before)
        world_fail(w, "the check says that the frame at %llu of segment %llu is lost, and it is not",
                   (unsigned long long)f->offset, (unsigned long long)f->segment.counter);
    else if (l->count < FRAMES_MAX)
        l->frames[l->count++] = (struct lost_frame){.segment = f->segment, .offset = f->offset};
}

/* LOS-2 */
static void losses_check(struct losses *l, bool before)
{
    struct world *w = l->w;
    struct pool_check_totals totals;
    l->before = before;
    enum err e = pool_check(w->pool, l, on_finding, &totals);
    bool waits = w->counts.members_given_up > 0 && l->somebody_away; /* GVN-8 */
    if (before && e == ERR_LOST && !waits && w->plan.level != PLAN_BEYOND)
        world_fail(w, "pool check says %llu lost", (unsigned long long)totals.lost);
    for (uint32_t i = 0; i < l->count && !before; i++)
        if (!l->frames[i].found)
            world_fail(w, "the check does not name the frame at %llu of segment %llu, which is bad everywhere",
                       (unsigned long long)l->frames[i].offset, (unsigned long long)l->frames[i].segment.counter);
}

static bool losses_mount(struct world *w)
{
    chunk_count = 0;
    w->config.read_only = true;
    bool ok = world_mount(w);
    if (!ok)
        world_fail(w, "the read-only mount of a pool with spoilt blocks did not end");
    return ok && !world_failed(w);
}

bool losses_look(struct world *w)
{
    w->paused = true;
    return losses_mount(w) && audit_run(w) && chunk_count < CHUNKS_MAX; /* else of some it is not known what they would lose */
}

void losses_leave(struct world *w)
{
    if (w->pool)
        pool_unmount(&w->pool);
    senders_forget(w);
    model_on_crash(&w->model);
    w->config.read_only = false;
}

static uint32_t targets_of(struct world *w, const struct place *place)
{
    uint64_t offset;
    uint32_t mask = 0;
    for (uint16_t t = 0; t < w->config.member_count; t++)
        mask |= pool_locate(w->pool, t, place, &offset) == ERR_OK ? 1u << t : 0;
    return mask;
}

void losses_holders(struct world *w, void *owner,
                    void (*told)(void *owner, struct model_message *msg, bool message, uint32_t targets))
{
    for (uint32_t i = 0; i < w->model.count; i++)
        if (w->model.messages[i].seen == w->model.audits)
            told(owner, &w->model.messages[i], true, targets_of(w, &w->model.messages[i].place));
    for (uint32_t i = 0; i < chunk_count; i++)
        told(owner, chunks[i].msg, false, targets_of(w, &chunks[i].place));
}

/* What an earlier loss took is not asked for again. */
static void losses_forget(struct world *w)
{
    for (uint32_t i = 0; i < w->model.count; i++)
        if (w->model.messages[i].seen != w->model.audits && model_must_be_there(&w->model.messages[i]))
            w->model.messages[i].lost_said = true;
}

/* LOS-3: the audit asks for all but those. */
static void losses_anew(struct losses *l)
{
    struct world *w = l->w;
    pool_unmount(&w->pool);
    senders_forget(w);
    model_on_crash(&w->model);
    for (uint32_t i = 0; i < w->model.count; i++)
        w->model.messages[i].lost_said = w->model.messages[i].lost_said || w->model.messages[i].frame_lost;
    kept_discard(w);
    if (losses_mount(w))
        audit_strict(w);
}

void losses_run(struct world *w)
{
    static struct losses l;
    l = (struct losses){.w = w, .prng = {w->plan.seed ^ UINT64_C(0x6c6f73736573)}};
    if (!losses_look(w))
        return;
    losses_forget(w);
    losses_check(&l, true);
    spoil_some(&l);
    losses_read(&l);
    if (!world_failed(w))
        losses_check(&l, false);
    if (!world_failed(w))
        losses_anew(&l);
    losses_leave(w);
}
