/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the operations in flight, their order, and the power.
 *
 *   submitted [sim_submit: fate, latency] -> due [sim_turn, in hostile order] -> carried out [faults.c] -> done
 *                      | power cut or member pulled: torn as the cut says, ends in ERR_MEMBER_GONE
 *
 * Invariants: SIM-1, SIM-2, SIM-3 (sim_io.h), IO-1 to IO-8 (io.h). A write takes effect when it ends, at once: what is
 * in flight when the power goes is torn instead. Never: decides a fate (the owner's `decide` does). */
#include "sim_io.h"

#include <base/assert.h>
#include <base/digest.h>
#include <spoolfs/limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DARK_NS UINT64_C(20000)       /* how soon ops end once the power or the member is gone */
#define DRAIN_TURNS_MAX 100000u       /* an engine that still submits after so many turns of darkness never stops */
#define READ_POISON 0xa5              /* in a read's buffer until it ends: early looks see nonsense */

const struct sim_latency SIM_LATENCY_NVME = {.base_ns = 20000, .spread_ns = 60000, .ns_per_mib = 500000,
                                             .tail_ns = 3000000, .tail_one_in = 500};
const struct sim_latency SIM_LATENCY_SSD = {.base_ns = 100000, .spread_ns = 400000, .ns_per_mib = 2000000,
                                            .tail_ns = 20000000, .tail_one_in = 200};
const struct sim_latency SIM_LATENCY_ARMS = {.base_ns = 2000000, .spread_ns = 12000000, .ns_per_mib = 7000000,
                                             .tail_ns = 120000000, .tail_one_in = 100};

struct sim_member {
    struct io_target target;
    struct sim_disk *disk;
    struct sim_latency latency;
    uint32_t slow_factor;
    uint64_t stalled_until_ns;
};

struct sim_io {
    struct io io; /* first: the door is this */
    struct prng order, fates, engine; /* separate streams, so that one more draw here moves nothing there */
    struct sim_clock clock;
    struct sim_member members[MEMBERS_MAX];
    uint32_t member_count;
    struct link flight; /* of struct io_op, as submitted */
    uint32_t in_flight;
    bool dark;
    enum sim_survival survival;
    void *decide_owner;
    void (*decide)(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate);
    void *ended_owner;
    void (*ended)(void *owner, const struct io_op *op, uint64_t index);
    struct sim_counts counts;
    uint64_t trace;
    char violation[256];
};

/* What lies in io_op.scratch while the op is ours. */
struct sim_op {
    uint64_t due_ns, index, digest, mark, elsewhere;
    uint32_t fault, canceled;
};
_Static_assert(sizeof(struct sim_op) <= sizeof((struct io_op *)0)->scratch, "private part of an op");

static struct sim_op *sim_op_of(struct io_op *op) { return (struct sim_op *)(void *)op->scratch; }
static struct sim_io *sim_of(struct io *io) { return (struct sim_io *)(void *)io; }

void sim_io_note(struct sim_io *sim, uint64_t word)
{
    struct { uint64_t trace, word; } both = {sim->trace, word};
    sim->trace = digest64_of(&both, sizeof both, 0);
}

__attribute__((format(printf, 2, 3))) static void sim_violate(struct sim_io *sim, const char *format, ...)
{
    if (sim->violation[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(sim->violation, sizeof sim->violation, format, args);
    va_end(args);
}

static struct sim_member *member_at(struct sim_io *sim, uint16_t target)
{
    ASSERT(target < sim->member_count);
    return &sim->members[target];
}

/* --- submit --- */

static const char *kind_word(enum io_kind kind)
{
    static const char *const words[] = {"read", "write", "flush", "discard"};
    return words[kind];
}

static void sim_check(struct sim_io *sim, const struct io_op *op, uint64_t index)
{
    if (op->kind == IO_FLUSH)
        return;
    if (op->offset % BLOCK_BYTES || op->length % BLOCK_BYTES || op->length == 0 || (uintptr_t)op->buffer % BLOCK_BYTES)
        sim_violate(sim, "op %llu: %s of %u bytes at %llu is not aligned", (unsigned long long)index,
                    kind_word(op->kind), op->length, (unsigned long long)op->offset);
    LINK_EACH(l, &sim->flight) {
        const struct io_op *o = CONTAINER_OF(l, const struct io_op, link);
        if (o->target != op->target || o->kind == IO_FLUSH || (o->kind == IO_READ && op->kind == IO_READ))
            continue;
        if (o->offset < op->offset + op->length && op->offset < o->offset + o->length)
            sim_violate(sim, "op %llu: %s of %u at %llu on member %u overlaps a %s of %u at %llu in flight",
                        (unsigned long long)index, kind_word(op->kind), op->length, (unsigned long long)op->offset,
                        op->target, kind_word(o->kind), o->length, (unsigned long long)o->offset);
    }
}

static uint64_t sim_latency_of(struct sim_io *sim, const struct sim_member *m, const struct io_op *op)
{
    const struct sim_latency *l = &m->latency;
    uint64_t ns = l->base_ns + prng_below(&sim->order, l->spread_ns) + l->ns_per_mib * op->length / MIB;
    if (l->tail_one_in && prng_below(&sim->order, l->tail_one_in) == 0)
        ns += prng_below(&sim->order, l->tail_ns);
    return ns * m->slow_factor;
}

static void sim_count(struct sim_io *sim, const struct io_op *op)
{
    sim->counts.ops++;
    sim->counts.reads += op->kind == IO_READ;
    sim->counts.writes += op->kind == IO_WRITE;
    sim->counts.flushes += op->kind == IO_FLUSH;
    sim->counts.discards += op->kind == IO_DISCARD;
}

static bool fault_fits(enum sim_fault fault, const struct io_op *op)
{
    switch (fault) {
    case SIM_FAULT_read_error:
    case SIM_FAULT_media_error:
    case SIM_FAULT_misdirected_read:
    case SIM_FAULT_stale_read:
        return op->kind == IO_READ;
    case SIM_FAULT_short_transfer:
        return op->kind == IO_READ || op->kind == IO_WRITE;
    case SIM_FAULT_write_error:
    case SIM_FAULT_full:
    case SIM_FAULT_torn_write:
    case SIM_FAULT_lost_write:
    case SIM_FAULT_misdirected_write:
        return op->kind == IO_WRITE;
    case SIM_FAULT_flush_error:
    case SIM_FAULT_flush_lie:
        return op->kind == IO_FLUSH || (op->kind == IO_WRITE && op->durable);
    default:
        return fault != SIM_FAULT_none;
    }
}

/* A fate that strikes now, not when the op ends. The op itself is in flight already. */
static void sim_strike(struct sim_io *sim, uint16_t target, enum sim_fault fault)
{
    if (fault == SIM_FAULT_power_cut)
        sim_io_power_cut(sim);
    else if (fault == SIM_FAULT_kill)
        sim_io_kill(sim);
    else if (fault == SIM_FAULT_vanish)
        sim_io_vanish(sim, target);
}

static void sim_submit(struct io *io, struct io_op *op)
{
    struct sim_io *sim = sim_of(io);
    struct sim_member *m = member_at(sim, op->target);
    struct sim_op *s = sim_op_of(op);
    struct sim_fate fate = {0};
    uint64_t index = sim->counts.ops;
    op->submitted_ns = sim->clock.now_ns;
    op->link = (struct link){0};
    *s = (struct sim_op){.index = index, .mark = sim_disk_mark(m->disk)};
    if (sim->dark || !m->target.present) {
        s->due_ns = sim->clock.now_ns + DARK_NS;
    } else {
        sim_check(sim, op, index);
        sim_count(sim, op);
        if (sim->decide)
            sim->decide(sim->decide_owner, op, index, &fate);
        if (!fault_fits(fate.fault, op))
            fate = (struct sim_fate){0};
        s->fault = fate.fault;
        s->elsewhere = fate.elsewhere;
        s->due_ns = sim->clock.now_ns + sim_latency_of(sim, m, op) + fate.delay_ns;
        if (m->stalled_until_ns > sim->clock.now_ns)
            s->due_ns += m->stalled_until_ns - sim->clock.now_ns;
        if (fate.fault != SIM_FAULT_none)
            sim->counts.faults[fate.fault]++;
    }
    if (op->kind == IO_READ)
        memset(op->buffer, READ_POISON, op->length);
    else if (op->kind == IO_WRITE)
        s->digest = digest64_of(op->buffer, op->length, 0);
    link_push(&sim->flight, &op->link);
    sim->in_flight++;
    sim_strike(sim, op->target, fate.fault);
}

static void sim_cancel(struct io *io, struct io_op *op)
{
    (void)io;
    sim_op_of(op)->canceled = 1;
}

/* --- turn --- */

static void sim_trace_op(struct sim_io *sim, const struct io_op *op, uint64_t index, uint64_t digest)
{
    struct { uint64_t trace, index, offset, digest, now; uint32_t length, result; uint16_t target, kind; uint32_t zero; }
        line = {sim->trace, index, op->offset, digest, sim->clock.now_ns, op->length, op->result, op->target,
                (uint16_t)op->kind, 0};
    sim->trace = digest64_of(&line, sizeof line, 0);
}

static void sim_end(struct sim_io *sim, struct io_op *op)
{
    struct sim_member *m = member_at(sim, op->target);
    struct sim_op s = *sim_op_of(op);
    struct sim_fate fate = {.fault = s.fault, .elsewhere = s.elsewhere};
    uint64_t digest = s.digest;
    if (op->kind == IO_WRITE && digest64_of(op->buffer, op->length, 0) != s.digest)
        sim_violate(sim, "op %llu: the buffer of a write of %u at %llu on member %u was changed in flight",
                    (unsigned long long)s.index, op->length, (unsigned long long)op->offset, op->target);
    if (sim->dark || !m->target.present)
        op->result = ERR_MEMBER_GONE;
    else if (s.canceled && prng_below(&sim->order, 2) == 0)
        op->result = ERR_CANCELED;
    else
        op->result = fault_carry_out(m->disk, op, &fate, s.mark, m->target.durable_by, &sim->fates);
    if (op->kind == IO_READ && op->result == ERR_OK)
        digest = digest64_of(op->buffer, op->length, 0);
    op->done_ns = sim->clock.now_ns;
    link_remove(&op->link);
    sim->in_flight--;
    sim_trace_op(sim, op, s.index, digest);
    if (sim->ended)
        sim->ended(sim->ended_owner, op, s.index);
    op->done(op);
}

static uint64_t sim_next_ns(const struct sim_io *sim)
{
    uint64_t next = sim_clock_next_ns(&sim->clock);
    LINK_EACH(l, &sim->flight) {
        uint64_t due = sim_op_of(CONTAINER_OF(l, struct io_op, link))->due_ns;
        next = due < next ? due : next;
    }
    return next;
}

#define DUE_AT_ONCE_MAX 256u

/* What is due, in an order nobody asked for. Ops submitted meanwhile wait for the next turn. */
static uint32_t sim_end_due(struct sim_io *sim)
{
    struct io_op *due[DUE_AT_ONCE_MAX];
    uint32_t count = 0;
    LINK_EACH(l, &sim->flight) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        if (sim_op_of(op)->due_ns <= sim->clock.now_ns && count < DUE_AT_ONCE_MAX)
            due[count++] = op;
    }
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)prng_below(&sim->order, i);
        struct io_op *swap = due[i - 1];
        due[i - 1] = due[j];
        due[j] = swap;
    }
    for (uint32_t i = 0; i < count; i++)
        sim_end(sim, due[i]);
    return count;
}

static uint32_t sim_turn(struct io *io, uint64_t wait_ns)
{
    struct sim_io *sim = sim_of(io);
    uint64_t next = sim_next_ns(sim), limit = sim->clock.now_ns + wait_ns;
    if (next > sim->clock.now_ns)
        sim->clock.now_ns = next < limit ? next : limit;
    if (prng_below(&sim->order, 2) == 0) {
        uint32_t first = sim_clock_fire(&sim->clock);
        return first + sim_end_due(sim);
    }
    uint32_t first = sim_end_due(sim);
    return first + sim_clock_fire(&sim->clock);
}

/* --- power --- */

/* What the power took: caches, and writes in flight, on one member or on all. */
static void sim_cut(struct sim_io *sim, uint32_t member_mask, enum sim_survival survival)
{
    struct sim_cut cut = {.survival = survival, .prng = &sim->fates};
    uint32_t at_stake = 0;
    for (uint32_t i = 0; i < sim->member_count; i++)
        if (member_mask & (1u << i))
            at_stake += sim_disk_unflushed(sim->members[i].disk);
    LINK_EACH(l, &sim->flight) {
        const struct io_op *op = CONTAINER_OF(l, const struct io_op, link);
        at_stake += op->kind == IO_WRITE && (member_mask & (1u << op->target)) ? 1 : 0;
    }
    cut.chosen = (uint32_t)prng_below(&sim->fates, at_stake);
    for (uint32_t i = 0; i < sim->member_count; i++)
        if (member_mask & (1u << i))
            sim_disk_power_cut(sim->members[i].disk, &cut);
    LINK_EACH(l, &sim->flight) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        struct sim_member *m = &sim->members[op->target];
        if (!(member_mask & (1u << op->target)))
            continue;
        sim_op_of(op)->due_ns = sim->clock.now_ns + prng_below(&sim->order, DARK_NS);
        if (op->kind == IO_WRITE && m->target.present && op->offset + op->length <= sim_disk_bytes(m->disk))
            sim_disk_tear(m->disk, op->offset, op->length, op->buffer, &cut);
    }
}

void sim_io_power_cut(struct sim_io *sim)
{
    if (sim->dark)
        return;
    sim_cut(sim, UINT32_MAX, sim->survival);
    sim->dark = true;
    sim->counts.power_cuts++;
    sim_io_note(sim, SIM_FAULT_power_cut);
}

/* The kernel brings a write it has begun to its end, and no other. */
void sim_io_kill(struct sim_io *sim)
{
    if (sim->dark)
        return;
    LINK_EACH(l, &sim->flight) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        struct sim_member *m = &sim->members[op->target];
        sim_op_of(op)->due_ns = sim->clock.now_ns + prng_below(&sim->order, DARK_NS);
        if (op->kind == IO_WRITE && m->target.present && prng_below(&sim->fates, 2) == 0 &&
            op->offset + op->length <= sim_disk_bytes(m->disk))
            sim_disk_write(m->disk, op->offset, op->length, op->buffer);
    }
    sim->dark = true;
    sim->counts.kills++;
    sim_io_note(sim, SIM_FAULT_kill);
}

void sim_io_vanish(struct sim_io *sim, uint16_t target)
{
    struct sim_member *m = member_at(sim, target);
    if (!m->target.present || sim->dark)
        return;
    sim_cut(sim, 1u << target, SIM_SURVIVE_RANDOM);
    m->target.present = false;
    sim_io_note(sim, SIM_FAULT_vanish);
}

void sim_io_return(struct sim_io *sim, uint16_t target)
{
    struct sim_member *m = member_at(sim, target);
    ASSERT(sim->in_flight == 0);
    m->target.present = true;
    m->target.bytes = sim_disk_bytes(m->disk);
}

bool sim_io_is_dark(const struct sim_io *sim) { return sim->dark; }
void sim_io_set_survival(struct sim_io *sim, enum sim_survival survival) { sim->survival = survival; }

void sim_io_drain(struct sim_io *sim)
{
    ASSERT(sim->dark);
    for (uint32_t n = 0; sim->in_flight > 0; n++) {
        if (n == DRAIN_TURNS_MAX) {
            sim_violate(sim, "%u ops still in flight after %u turns without power", sim->in_flight, n);
            return;
        }
        sim_turn(&sim->io, DARK_NS);
    }
}

void sim_io_power_on(struct sim_io *sim)
{
    ASSERT(sim->in_flight == 0);
    if (sim_clock_armed(&sim->clock) > 0)
        sim_violate(sim, "%u timers of an abandoned engine are still armed", sim_clock_armed(&sim->clock));
    heap_init(&sim->clock.timers, sim->clock.nodes, SIM_TIMERS_MAX);
    sim->dark = false;
    for (uint32_t i = 0; i < sim->member_count; i++)
        sim->members[i].stalled_until_ns = 0;
}

/* --- members --- */

bool sim_io_present(const struct sim_io *sim, uint16_t target) { return sim->members[target].target.present; }
void sim_io_slow(struct sim_io *sim, uint16_t target, uint32_t factor) { member_at(sim, target)->slow_factor = factor; }

void sim_io_swap_disks(struct sim_io *sim, uint16_t a, uint16_t b)
{
    uint64_t stalled_until_ns = sim->members[a].stalled_until_ns;
    struct sim_disk *disk = sim_io_change_disk(sim, a, sim_io_disk(sim, b));
    sim_io_change_disk(sim, b, disk);
    sim->members[a].stalled_until_ns = sim->members[b].stalled_until_ns;
    sim->members[b].stalled_until_ns = stalled_until_ns;
}

void sim_io_stall(struct sim_io *sim, uint16_t target, uint64_t for_ns)
{
    struct sim_member *m = member_at(sim, target);
    m->stalled_until_ns = sim->clock.now_ns + for_ns;
    LINK_EACH(l, &sim->flight) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        if (op->target == target && sim_op_of(op)->due_ns < m->stalled_until_ns)
            sim_op_of(op)->due_ns = m->stalled_until_ns + prng_below(&sim->order, DARK_NS);
    }
}

struct sim_disk *sim_io_disk(struct sim_io *sim, uint16_t target) { return member_at(sim, target)->disk; }

struct sim_disk *sim_io_change_disk(struct sim_io *sim, uint16_t target, struct sim_disk *disk)
{
    struct sim_member *m = member_at(sim, target);
    struct sim_disk *old = m->disk;
    ASSERT(sim->in_flight == 0);
    m->disk = disk;
    m->target.bytes = sim_disk_bytes(disk);
    return old;
}

void sim_io_jump_wall(struct sim_io *sim, int64_t by_ms) { sim_clock_jump_wall(&sim->clock, by_ms); }

/* --- the rest of the seam --- */

static uint64_t sim_now_ns(struct io *io) { return sim_of(io)->clock.now_ns; }
static uint64_t sim_wall_ms(struct io *io) { return sim_clock_wall_ms(&sim_of(io)->clock); }
static uint64_t sim_random64(struct io *io) { return prng_next(&sim_of(io)->engine); }
static uint32_t sim_target_count(struct io *io) { return sim_of(io)->member_count; }
static const struct io_target *sim_target(struct io *io, uint16_t t) { return &member_at(sim_of(io), t)->target; }
static const char *sim_name(struct io *io) { (void)io; return "sim"; }

static void sim_timer_set(struct io *io, struct io_timer *t, uint64_t when_ns)
{
    sim_clock_set(&sim_of(io)->clock, t, when_ns);
}

static void sim_timer_clear(struct io *io, struct io_timer *t) { sim_clock_clear(&sim_of(io)->clock, t); }

static void sim_set_durable_by(struct io *io, uint16_t target, enum io_durable_by by)
{
    member_at(sim_of(io), target)->target.durable_by = by;
}

static const struct io_ops sim_ops = {
    .submit = sim_submit, .cancel = sim_cancel, .turn = sim_turn, .now_ns = sim_now_ns, .wall_ms = sim_wall_ms,
    .random64 = sim_random64, .timer_set = sim_timer_set, .timer_clear = sim_timer_clear,
    .target_count = sim_target_count, .target = sim_target, .target_set_durable_by = sim_set_durable_by,
    .name = sim_name,
};

struct sim_io *sim_io_make(uint64_t seed)
{
    struct sim_io *sim = calloc(1, sizeof *sim);
    ASSERT(sim != NULL);
    struct prng prng = {seed};
    sim->io.ops = &sim_ops;
    sim->order.state = prng_next(&prng);
    sim->fates.state = prng_next(&prng);
    sim->engine.state = prng_next(&prng);
    sim->survival = SIM_SURVIVE_RANDOM;
    sim_clock_init(&sim->clock);
    link_init(&sim->flight);
    return sim;
}

void sim_io_free(struct sim_io **sim)
{
    if (!*sim)
        return;
    ASSERT((*sim)->in_flight == 0);
    for (uint32_t i = 0; i < (*sim)->member_count; i++)
        sim_disk_free(&(*sim)->members[i].disk);
    free(*sim);
    *sim = NULL;
}

struct io *sim_io_door(struct sim_io *sim) { return &sim->io; }

uint16_t sim_io_add_member(struct sim_io *sim, const struct sim_member_shape *shape)
{
    ASSERT(sim->member_count < MEMBERS_MAX);
    uint16_t number = (uint16_t)sim->member_count++;
    struct sim_member *m = &sim->members[number];
    *m = (struct sim_member){.disk = sim_disk_make(&shape->disk), .latency = shape->latency, .slow_factor = 1};
    m->target = (struct io_target){.bytes = shape->disk.bytes, .present = true, .rotational = shape->rotational,
                                   .buffered = shape->buffered, .discards = shape->discards,
                                   .is_file = shape->disk.is_file};
    snprintf(m->target.serial, sizeof m->target.serial, "SIM%05u", number);
    snprintf(m->target.domain, sizeof m->target.domain, "%s", shape->domain);
    return number;
}

void sim_io_on_submit(struct sim_io *sim, void *owner,
                      void (*decide)(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate))
{
    sim->decide_owner = owner;
    sim->decide = decide;
}

void sim_io_on_end(struct sim_io *sim, void *owner, void (*ended)(void *owner, const struct io_op *op, uint64_t index))
{
    sim->ended_owner = owner;
    sim->ended = ended;
}

const struct sim_counts *sim_io_counts(const struct sim_io *sim) { return &sim->counts; }
void sim_io_count_fault(struct sim_io *sim, enum sim_fault fault) { sim->counts.faults[fault]++; }
uint32_t sim_io_in_flight(const struct sim_io *sim) { return sim->in_flight; }
void sim_io_each_in_flight(struct sim_io *sim, void *owner, void (*see)(void *owner, const struct io_op *op))
{
    LINK_EACH(l, &sim->flight)
        see(owner, CONTAINER_OF(l, const struct io_op, link));
}

uint64_t sim_io_now(const struct sim_io *sim) { return sim->clock.now_ns; }
uint64_t sim_io_trace(const struct sim_io *sim) { return sim->trace; }
const char *sim_io_violation(const struct sim_io *sim) { return sim->violation; }
