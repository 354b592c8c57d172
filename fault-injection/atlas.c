/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what is hurt and where, so that redundancy can always pay for it.
 *
 * Invariants: ATL-1: damage lies on one member at a time (the victim); the others only lose power. ATL-2: the next
 * victim comes only after a mount at which the last one was there, an audit that found everything, all damage healed
 * and no message below `copies`. ATL-3: damage that healing does not undo (an older copy, a lie that a power cut made
 * true) keeps the victim for the rest of the run. PLAN_BEYOND has no atlas: every member is fair game. */
#include "world.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define LATE_NS_MIN UINT64_C(200000000)
#define LATE_NS_MAX UINT64_C(8000000000)
#define SUPERBLOCK_SAYS_BYTES 200u /* every byte of them says something; behind them is the member table, mostly empty */
/* A crash costs slots, and a pool that is full has few to free others with (docs/design/0016): there it comes seldom. */
#define FULL_NS UINT64_C(10000000000)
#define FULL_CRASHES_LESS 10u
#define EXCHANGE_CRASH_ONE_IN 200u /* operations beside an exchange */
#define MERGE_CRASH_ONE_IN 300u /* operations of a mount that merges two halves: it comes once or twice in a run */
#define CALM_NS UINT64_C(40000000000) /* between two stalls: a member that never answers is the fault `vanish` */

/* Of those that are put in. */
static uint16_t any_member(struct world *w) { return (uint16_t)prng_below(&w->hurt, w->config.member_count); }

/* A disk of another pool with the same geometry. */
static struct sim_disk *foreign_make(struct world *w)
{
    struct world *other = calloc(1, sizeof *other);
    ASSERT(other != NULL);
    struct plan plan = w->plan;
    plan.level = PLAN_NONE;
    plan.seed ^= UINT64_C(0xf0e1);
    world_make(other, &plan);
    struct sim_disk *disk = NULL;
    if (world_create_pool(other))
        disk = sim_disk_snapshot(sim_io_disk(other->sim, 0));
    world_free(other);
    free(other);
    return disk;
}

void atlas_init(struct world *w)
{
    w->atlas = (struct atlas){.victim = any_member(w)};
    w->atlas.next_rest_ns = sim_io_now(w->sim) + prng_below(&w->hurt, w->plan.rest_every_ns * 2 + 1);
}

void atlas_fini(struct world *w)
{
    sim_disk_free(&w->atlas.aside);
    sim_disk_free(&w->atlas.snapshot);
    sim_disk_free(&w->atlas.foreign);
}

/* --- for one operation --- */

static bool scripted(struct world *w, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    if (index == w->scripted_cut) {
        fate->fault = w->scripted_kill ? SIM_FAULT_kill : SIM_FAULT_power_cut;
        return true;
    }
    if (w->scripted_fault == SIM_FAULT_none || index < w->scripted_fault_at)
        return false;
    if (index == w->scripted_fault_at)
        w->scripted_fault_target = op->target;
    if (index == w->scripted_fault_at || (w->scripted_fault_stays && op->target == w->scripted_fault_target))
        fate->fault = w->scripted_fault;
    if (fate->fault == SIM_FAULT_read_error && op->kind != IO_READ) /* EIO on whatever it is */
        fate->fault = op->kind == IO_WRITE ? SIM_FAULT_write_error : SIM_FAULT_flush_error;
    return fate->fault != SIM_FAULT_none;
}

static uint64_t misdirect(struct world *w, const struct io_op *op)
{
    uint64_t bytes = sim_disk_bytes(sim_io_disk(w->sim, op->target)), stride = w->plan.segment_bytes;
    uint64_t at = op->offset + stride * prng_below(&w->hurt, w->plan.slots);
    return at + op->length <= bytes ? at : at % (bytes - op->length) / BLOCK_BYTES * BLOCK_BYTES;
}

/* ATL-3: what was said to be flushed goes with the power. */
static void atlas_note_cut(struct world *w)
{
    if (sim_disk_unflushed(sim_io_disk(w->sim, w->atlas.victim)) > 0 && w->plan.op_fault_one_in[SIM_FAULT_flush_lie])
        w->atlas.locked = true;
}

static enum sim_fault draw_op_fault(struct world *w, const struct io_op *op)
{
    for (enum sim_fault f = SIM_FAULT_none + 1; f < SIM_FAULT_COUNT; f++)
        if (w->plan.op_fault_one_in[f] && prng_below(&w->hurt, w->plan.op_fault_one_in[f]) == 0)
            return f;
    (void)op;
    return SIM_FAULT_none;
}

static void decide(struct world *w, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    if (scripted(w, op, index, fate) || w->faults_off || w->plan.level == PLAN_NONE)
        return;
    uint32_t crash = w->mounting ? w->plan.mount_crash_one_in : w->plan.crash_one_in;
    if (w->halves.meeting && w->mounting && crash > MERGE_CRASH_ONE_IN)
        crash = MERGE_CRASH_ONE_IN;
    if (!segment_id_equal(w->exchange, (struct segment_id){0})) /* a few in each */
        crash = crash > EXCHANGE_CRASH_ONE_IN ? EXCHANGE_CRASH_ONE_IN : crash;
    else if (w->full_ns && sim_io_now(w->sim) - w->full_ns < FULL_NS)
        crash *= FULL_CRASHES_LESS;
    if (crash && prng_below(&w->hurt, crash) == 0) {
        fate->fault = prng_below(&w->hurt, 4) ? SIM_FAULT_power_cut : SIM_FAULT_kill;
        if (fate->fault == SIM_FAULT_power_cut)
            atlas_note_cut(w);
        return;
    }
    bool fair = w->plan.level == PLAN_BEYOND ? prng_below(&w->hurt, w->plan.members) == 0 : op->target == w->atlas.victim;
    if (!fair || w->atlas.aside || halves_calm(w))
        return;
    fate->fault = draw_op_fault(w, op);
    fate->elsewhere = misdirect(w, op);
    if (fate->fault == SIM_FAULT_late)
        fate->delay_ns = LATE_NS_MIN + prng_below(&w->hurt, LATE_NS_MAX);
    if (fate->fault == SIM_FAULT_vanish) {
        if (op->target != w->atlas.victim) {
            fate->fault = SIM_FAULT_none; /* one at a time is out, so that something mounts again */
            return;
        }
        atlas_note_cut(w);
        w->atlas.out = true;
    }
}

void atlas_decide(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct world *w = owner;
    decide(w, op, index, fate);
    measure_slot(w, op);
    measure_exchange(w, op, false);
    if (fate->fault == SIM_FAULT_power_cut || fate->fault == SIM_FAULT_kill) {
        measure_crash(w, op);
        kept_die(w);
    }
    if (fate->fault != SIM_FAULT_none)
        world_say(w, "fault: %s for op %llu, if it fits, member %u at %llu", sim_fault_word(fate->fault),
                  (unsigned long long)index, op->target, (unsigned long long)op->offset);
}

/* --- at rest --- */

static bool written_place(struct world *w, uint16_t target, uint64_t *offset_out)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    uint64_t first = 64 * KIB, blocks = (sim_disk_bytes(disk) - first - 64 * KIB) / BLOCK_BYTES;
    for (uint32_t tries = 0; tries < 200; tries++) {
        *offset_out = first + prng_below(&w->hurt, blocks) * BLOCK_BYTES;
        if (sim_disk_written(disk, *offset_out))
            return true;
    }
    return false;
}

uint64_t atlas_superblock_at(const struct sim_disk *disk, uint64_t copy)
{
    return copy < 2 ? copy * SUPERBLOCK_BYTES : sim_disk_bytes(disk) - (SUPERBLOCK_COPIES - copy) * SUPERBLOCK_BYTES;
}

static void rest_rot(struct world *w, enum sim_fault fault, uint16_t target)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    uint64_t offset = 0;
    uint32_t within = (uint32_t)prng_below(&w->hurt, BLOCK_BYTES);
    switch (fault) {
    case SIM_FAULT_rot_superblock: {
        offset = atlas_superblock_at(disk, prng_below(&w->hurt, SUPERBLOCK_COPIES));
        within %= SUPERBLOCK_SAYS_BYTES;
        break;
    }
    case SIM_FAULT_rot_image_header:
        offset = 64 * KIB + prng_below(&w->hurt, w->plan.slots) * w->plan.segment_bytes;
        within %= 200;
        break;
    case SIM_FAULT_rot_header:
        within %= 128;
        __attribute__((fallthrough));
    default:
        if (!written_place(w, target, &offset))
            return;
    }
    if (fault == SIM_FAULT_unreadable)
        sim_disk_make_unreadable(disk, offset);
    else
        sim_disk_rot(disk, offset + within, (uint8_t)(1u << prng_below(&w->hurt, 8)));
    sim_io_count_fault(w->sim, fault);
    world_say(w, "fault: %s on member %u at %llu", sim_fault_word(fault), target, (unsigned long long)offset);
}

static void rest_now(struct world *w, enum sim_fault fault, uint16_t target)
{
    bool late = fault == SIM_FAULT_slow || fault == SIM_FAULT_stall;
    if (late && sim_io_now(w->sim) < w->atlas.calm_until_ns)
        return;
    if (late)
        w->atlas.calm_until_ns = sim_io_now(w->sim) + CALM_NS;
    if (fault == SIM_FAULT_slow) {
        w->atlas.slow_factor = 10u + (uint32_t)prng_below(&w->hurt, 200);
        sim_io_slow(w->sim, target, w->atlas.slow_factor);
        w->atlas.slow_until_ns = sim_io_now(w->sim) + prng_below(&w->hurt, 20) * 1000000000;
    } else if (fault == SIM_FAULT_stall) {
        sim_io_stall(w->sim, target, LATE_NS_MIN + prng_below(&w->hurt, LATE_NS_MAX));
    } else {
        rest_rot(w, fault, target);
        return;
    }
    sim_io_count_fault(w->sim, fault);
    world_say(w, "fault: %s on member %u", sim_fault_word(fault), target);
}

void atlas_step(struct world *w)
{
    struct atlas *a = &w->atlas;
    uint64_t now = sim_io_now(w->sim);
    uint16_t target = w->plan.level == PLAN_BEYOND ? any_member(w) : a->victim;
    if (a->slow_until_ns && now > a->slow_until_ns) {
        for (uint16_t t = 0; t < w->plan.members; t++)
            sim_io_slow(w->sim, t, 1);
        a->slow_until_ns = 0;
    }
    if (w->faults_off || halves_calm(w) || w->plan.rest_every_ns == 0 || now < a->next_rest_ns || a->aside || a->out)
        return;
    a->next_rest_ns = now + prng_below(&w->hurt, w->plan.rest_every_ns * 2);
    uint32_t total = 0;
    for (uint32_t f = 0; f < SIM_FAULT_COUNT; f++)
        total += w->plan.rest_weight[f];
    uint64_t draw = prng_below(&w->hurt, total);
    for (uint32_t f = 0; f < SIM_FAULT_COUNT; f++) {
        if (draw < w->plan.rest_weight[f]) {
            rest_now(w, f, target);
            return;
        }
        draw -= w->plan.rest_weight[f];
    }
}

/* --- between mounts --- */

static bool chance(struct world *w, enum sim_fault fault)
{
    return prng_below(&w->hurt, 100) < w->plan.mount_percent[fault];
}

static void mount_fault(struct world *w, enum sim_fault fault)
{
    sim_io_count_fault(w->sim, fault);
    world_say(w, "fault: %s, member %u", sim_fault_word(fault), w->atlas.victim);
}

static void put_in_place(struct world *w, struct sim_disk *disk)
{
    struct atlas *a = &w->atlas;
    a->aside = sim_io_change_disk(w->sim, a->victim, disk);
    sim_io_return(w->sim, a->victim);
}

static void victim_returns(struct world *w)
{
    struct atlas *a = &w->atlas;
    if (a->aside) { /* another disk was in its place until now */
        struct sim_disk *wrong = sim_io_change_disk(w->sim, a->victim, a->aside);
        sim_disk_free(&wrong);
        a->aside = NULL;
    }
    sim_io_return(w->sim, a->victim);
    a->out = false;
}

static void victim_is_replaced(struct world *w)
{
    struct atlas *a = &w->atlas;
    if (a->aside)
        return;
    if (chance(w, SIM_FAULT_return_old) && a->snapshot) {
        struct sim_disk *newer = sim_io_change_disk(w->sim, a->victim, a->snapshot);
        sim_disk_free(&newer);
        a->snapshot = NULL;
        a->locked = true;
        a->out = false;
        sim_io_return(w->sim, a->victim);
        mount_fault(w, SIM_FAULT_return_old);
    } else if (chance(w, SIM_FAULT_return_foreign) && w->counts.mounts > 0) { /* of two never mounted pools none is ours */
        if (!a->foreign)
            a->foreign = foreign_make(w);
        if (a->foreign && sim_disk_bytes(a->foreign) > 0) {
            put_in_place(w, sim_disk_snapshot(a->foreign));
            mount_fault(w, SIM_FAULT_return_foreign);
        }
    } else if (chance(w, SIM_FAULT_return_blank)) {
        put_in_place(w, sim_disk_make(&w->plan.shapes[a->victim].disk));
        mount_fault(w, SIM_FAULT_return_blank);
    }
}

static void members_swap(struct world *w)
{
    struct atlas *a = &w->atlas;
    uint16_t other = any_member(w);
    if (other == a->victim || a->aside || a->out)
        return;
    sim_io_swap_disks(w->sim, a->victim, other);
    measure_swap(w, a->victim, other);
    a->victim = other;
    mount_fault(w, SIM_FAULT_swap);
}

/* Superblocks are read at mounts only and written anew by each: what rots between two writes shows here or never.
 * Draws from a stream of its own, so that it moves no other fault. */
static void superblock_rots(struct world *w)
{
    struct prng rot = {w->plan.seed ^ (w->counts.mounts + w->counts.crashes) << 32};
    if (prng_below(&rot, 100) >= w->plan.mount_percent[SIM_FAULT_rot_superblock])
        return;
    struct sim_disk *disk = sim_io_disk(w->sim, w->atlas.victim);
    uint64_t offset = atlas_superblock_at(disk, prng_below(&rot, SUPERBLOCK_COPIES)) + prng_below(&rot, SUPERBLOCK_SAYS_BYTES);
    sim_disk_rot(disk, offset, (uint8_t)(1u << prng_below(&rot, 8)));
    mount_fault(w, SIM_FAULT_rot_superblock);
}

static void members_return(struct world *w)
{
    struct atlas *a = &w->atlas;
    if (a->out || a->aside) {
        if (chance(w, SIM_FAULT_return_fresh)) {
            victim_returns(w);
            mount_fault(w, SIM_FAULT_return_fresh);
        }
    }
    victim_is_replaced(w);
    if (chance(w, SIM_FAULT_swap))
        members_swap(w);
    if (!a->aside && !a->out && prng_below(&w->hurt, 3) == 0) {
        sim_disk_free(&a->snapshot);
        a->snapshot = sim_disk_snapshot(sim_io_disk(w->sim, a->victim));
    }
}

void atlas_before_mount(struct world *w)
{
    struct atlas *a = &w->atlas;
    bool calm = halves_calm(w);
    if (w->faults_off || w->plan.level == PLAN_NONE)
        return;
    if (!calm)
        members_return(w);
    if (chance(w, SIM_FAULT_clock_jump)) {
        int64_t by = (int64_t)prng_below(&w->hurt, 7200000) - 3600000;
        sim_io_jump_wall(w->sim, prng_below(&w->hurt, 5) ? by : by * 20000);
        mount_fault(w, SIM_FAULT_clock_jump);
    }
    for (uint16_t t = 0; t < w->plan.members; t++) /* slowness goes with its disk */
        sim_io_slow(w->sim, t, t == a->victim && a->slow_until_ns > sim_io_now(w->sim) ? a->slow_factor : 1);
    if (!a->aside && !a->out && !calm)
        superblock_rots(w);
    kept_before_mount(w);
}

void atlas_stop(struct world *w)
{
    w->faults_off = true;
    victim_returns(w);
    for (uint16_t t = 0; t < w->plan.members; t++)
        sim_io_slow(w->sim, t, 1);
    if (w->plan.level != PLAN_BEYOND)
        return;
    for (uint16_t t = 0; t < w->plan.members; t++)
        sim_disk_heal(sim_io_disk(w->sim, t));
}

/* ATL-2. Between two mounts, after an audit of the last one said all is well. */
void atlas_next_era(struct world *w)
{
    struct atlas *a = &w->atlas;
    if (a->locked || a->out || a->aside || w->plan.level == PLAN_BEYOND)
        return;
    sim_disk_settle(sim_io_disk(w->sim, a->victim), UINT64_MAX); /* its lies about flushes come true */
    sim_disk_heal(sim_io_disk(w->sim, a->victim));
    sim_disk_free(&a->snapshot); /* another member's hour */
    a->victim = any_member(w);
    w->counts.eras++;
    w->halves.due = prng_below(&w->halves.dice, 100) < w->plan.halves_percent;
    world_say(w, "era: member %u may be hurt from now on", a->victim);
}
