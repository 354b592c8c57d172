/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world keeps the seam's rules (IO-1 to IO-8), forgets what was not flushed, and lies only on request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sim_io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (4 * MIB)
#define OPS_MAX 16u

struct call {
    struct io_op op;
    uint32_t ended;
    uint64_t ended_at_ns, order;
    bool inside_submit;
};

struct bench {
    struct sim_io *sim;
    struct io *io;
    bool submitting;
    uint64_t ends;
    struct call calls[OPS_MAX];
    uint32_t used;
    uint8_t *memory;
    struct sim_fate fate;
    uint64_t fate_at;
};

static void on_done(struct io_op *op)
{
    struct bench *b = op->owner;
    struct call *c = CONTAINER_OF(op, struct call, op);
    c->ended++;
    c->order = b->ends++;
    c->ended_at_ns = io_now_ns(b->io);
    c->inside_submit = b->submitting;
}

static void decide(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct bench *b = owner;
    (void)op;
    if (index == b->fate_at)
        *fate = b->fate;
}

static void bench_open(struct bench *b, uint64_t seed, uint32_t members)
{
    *b = (struct bench){.fate_at = UINT64_MAX};
    b->sim = sim_io_make(seed);
    b->io = sim_io_door(b->sim);
    for (uint32_t i = 0; i < members; i++)
        sim_io_add_member(b->sim, &(struct sim_member_shape){.disk = {.bytes = DISK_BYTES, .is_file = true, .seed = i},
                                                             .latency = SIM_LATENCY_SSD});
    b->memory = aligned_alloc(BLOCK_BYTES, OPS_MAX * 16 * BLOCK_BYTES);
    assert_non_null(b->memory);
    sim_io_on_submit(b->sim, b, decide);
}

static void bench_close(struct bench *b)
{
    assert_string_equal(sim_io_violation(b->sim), "");
    sim_io_free(&b->sim);
    free(b->memory);
}

static uint8_t *buffer_of(struct bench *b, const struct call *c)
{
    return b->memory + (size_t)(c - b->calls) * 16 * BLOCK_BYTES;
}

static struct call *start(struct bench *b, enum io_kind kind, uint64_t offset, uint32_t length, int fill)
{
    assert_true(b->used < OPS_MAX);
    struct call *c = &b->calls[b->used++];
    bool moves = kind == IO_READ || kind == IO_WRITE;
    *c = (struct call){.op = {.kind = kind, .offset = offset, .length = length, .done = on_done, .owner = b,
                              .buffer = moves ? buffer_of(b, c) : NULL}};
    if (kind == IO_WRITE)
        memset(buffer_of(b, c), fill, length);
    b->submitting = true;
    io_submit(b->io, &c->op);
    b->submitting = false;
    return c;
}

static void turn_until_quiet(struct bench *b)
{
    for (uint32_t n = 0; sim_io_in_flight(b->sim) > 0; n++) {
        assert_true(n < 1000);
        io_turn(b->io, UINT64_C(1000000000));
    }
}

/* One op from beginning to end; its result. */
static enum err whole(struct bench *b, enum io_kind kind, uint64_t offset, uint32_t length, int fill)
{
    b->used = 0;
    struct call *c = start(b, kind, offset, length, fill);
    turn_until_quiet(b);
    assert_int_equal(c->ended, 1);
    return c->op.result;
}

static enum err write_durably(struct bench *b, uint64_t offset, uint32_t length, int fill)
{
    b->used = 0;
    struct call *c = &b->calls[b->used++];
    *c = (struct call){.op = {.kind = IO_WRITE, .durable = true, .offset = offset, .length = length, .done = on_done,
                              .owner = b, .buffer = buffer_of(b, c)}};
    memset(buffer_of(b, c), fill, length);
    io_submit(b->io, &c->op);
    turn_until_quiet(b);
    return c->op.result;
}

/* How many of the bytes read at offset are `value`; the read must succeed. */
static uint32_t count_bytes(struct bench *b, uint64_t offset, uint32_t length, int value)
{
    assert_int_equal(whole(b, IO_READ, offset, length, 0), ERR_OK);
    uint32_t count = 0;
    for (uint32_t i = 0; i < length; i++)
        count += buffer_of(b, &b->calls[0])[i] == value;
    return count;
}

static void cut_power(struct bench *b, enum sim_survival survival)
{
    sim_io_set_survival(b->sim, survival);
    sim_io_power_cut(b->sim);
    sim_io_drain(b->sim);
    sim_io_power_on(b->sim);
}

static void fail_next(struct bench *b, enum sim_fault fault, uint64_t elsewhere)
{
    b->fate = (struct sim_fate){.fault = fault, .elsewhere = elsewhere, .delay_ns = 0};
    b->fate_at = sim_io_counts(b->sim)->ops;
}

static void done_runs_once_in_a_turn_and_never_inside_submit(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 1, 1);
    start(&b, IO_WRITE, 0, BLOCK_BYTES, 1);
    start(&b, IO_READ, 8 * BLOCK_BYTES, BLOCK_BYTES, 0);
    start(&b, IO_FLUSH, 0, 0, 0);
    turn_until_quiet(&b);
    io_turn(b.io, 1000);
    for (uint32_t i = 0; i < b.used; i++) {
        assert_int_equal(b.calls[i].ended, 1);
        assert_false(b.calls[i].inside_submit);
    }
    bench_close(&b);
}

static void completion_order_is_not_submission_order_for_every_seed(void **state)
{
    (void)state;
    bool kept = false, turned = false;
    for (uint64_t seed = 0; seed < 32; seed++) {
        struct bench b;
        bench_open(&b, seed, 1);
        struct call *first = start(&b, IO_WRITE, 0, BLOCK_BYTES, 1);
        struct call *second = start(&b, IO_WRITE, BLOCK_BYTES, BLOCK_BYTES, 2);
        turn_until_quiet(&b);
        kept = kept || first->order < second->order;
        turned = turned || second->order < first->order;
        bench_close(&b);
    }
    assert_true(kept && turned);
}

static uint64_t trace_of(uint64_t seed)
{
    struct bench b;
    bench_open(&b, seed, 2);
    for (int i = 0; i < 6; i++)
        start(&b, i % 2 ? IO_WRITE : IO_READ, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES, i);
    turn_until_quiet(&b);
    start(&b, IO_WRITE, 0, 16 * BLOCK_BYTES, 9);
    sim_io_power_cut(b.sim);
    sim_io_drain(b.sim);
    sim_io_power_on(b.sim);
    whole(&b, IO_READ, 0, 16 * BLOCK_BYTES, 0);
    uint64_t trace = sim_io_trace(b.sim);
    bench_close(&b);
    return trace;
}

static void one_seed_gives_one_trace_and_another_seed_another(void **state)
{
    (void)state;
    assert_int_equal(trace_of(7), trace_of(7));
    assert_int_not_equal(trace_of(7), trace_of(8));
}

static void a_read_sees_what_was_written_before_it_and_zeros_on_a_fresh_file(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 3, 1);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 0), BLOCK_BYTES);
    assert_int_equal(whole(&b, IO_WRITE, 0, 2 * BLOCK_BYTES, 5), ERR_OK);
    assert_int_equal(count_bytes(&b, 0, 2 * BLOCK_BYTES, 5), 2 * BLOCK_BYTES);
    bench_close(&b);
}

static void an_unflushed_write_is_lost_when_nothing_survives(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 4, 1);
    assert_int_equal(whole(&b, IO_WRITE, 0, BLOCK_BYTES, 5), ERR_OK);
    cut_power(&b, SIM_SURVIVE_NONE);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), 0);
    bench_close(&b);
}

static void a_flushed_or_durable_write_survives_every_power_cut(void **state)
{
    (void)state;
    const enum io_durable_by ways[] = {IO_DURABLE_DSYNC, IO_DURABLE_FLUSH};
    for (uint32_t survival = 0; survival < SIM_SURVIVE_COUNT; survival++)
        for (uint32_t way = 0; way < 2; way++) {
            struct bench b;
            bench_open(&b, 5 + survival, 1);
            b.io->ops->target_set_durable_by(b.io, 0, ways[way]);
            assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 5), ERR_OK);
            assert_int_equal(whole(&b, IO_WRITE, 8 * BLOCK_BYTES, BLOCK_BYTES, 6), ERR_OK);
            assert_int_equal(whole(&b, IO_FLUSH, 0, 0, 0), ERR_OK);
            cut_power(&b, survival);
            assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 5), 4 * BLOCK_BYTES);
            assert_int_equal(count_bytes(&b, 8 * BLOCK_BYTES, BLOCK_BYTES, 6), BLOCK_BYTES);
            bench_close(&b);
        }
}

static void a_flush_does_not_cover_a_write_that_ended_after_its_submission(void **state)
{
    (void)state;
    bool lost = false;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct bench b;
        bench_open(&b, seed, 1);
        start(&b, IO_WRITE, 0, BLOCK_BYTES, 5);
        start(&b, IO_FLUSH, 0, 0, 0);
        turn_until_quiet(&b);
        cut_power(&b, SIM_SURVIVE_NONE);
        lost = lost || count_bytes(&b, 0, BLOCK_BYTES, 5) == 0;
        bench_close(&b);
    }
    assert_true(lost);
}

static void a_write_in_flight_at_the_cut_tears_at_sectors(void **state)
{
    (void)state;
    bool torn_inside = false;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct bench b;
        bench_open(&b, seed, 1);
        struct call *c = start(&b, IO_WRITE, 0, 4 * BLOCK_BYTES, 5);
        cut_power(&b, SIM_SURVIVE_RANDOM);
        assert_int_equal(c->op.result, ERR_MEMBER_GONE);
        uint32_t there = count_bytes(&b, 0, 4 * BLOCK_BYTES, 5);
        assert_int_equal(there % SIM_SECTOR_BYTES, 0);
        torn_inside = torn_inside || there % BLOCK_BYTES;
        bench_close(&b);
    }
    assert_true(torn_inside);
}

static void without_power_nothing_succeeds_and_nothing_changes(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 6, 1);
    assert_int_equal(write_durably(&b, 0, BLOCK_BYTES, 5), ERR_OK);
    sim_io_power_cut(b.sim);
    assert_int_equal(whole(&b, IO_WRITE, 0, BLOCK_BYTES, 6), ERR_MEMBER_GONE);
    assert_int_equal(whole(&b, IO_READ, 0, BLOCK_BYTES, 0), ERR_MEMBER_GONE);
    assert_int_equal(whole(&b, IO_FLUSH, 0, 0, 0), ERR_MEMBER_GONE);
    sim_io_drain(b.sim);
    sim_io_power_on(b.sim);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), BLOCK_BYTES);
    bench_close(&b);
}

static void a_killed_process_leaves_whole_writes_or_none_and_the_cache(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 6, 1);
    assert_int_equal(whole(&b, IO_WRITE, 0, BLOCK_BYTES, 5), ERR_OK);
    start(&b, IO_WRITE, 8 * BLOCK_BYTES, 4 * BLOCK_BYTES, 6);
    sim_io_kill(b.sim);
    sim_io_drain(b.sim);
    sim_io_power_on(b.sim);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), BLOCK_BYTES);
    uint32_t there = count_bytes(&b, 8 * BLOCK_BYTES, 4 * BLOCK_BYTES, 6);
    assert_true(there == 0 || there == 4 * BLOCK_BYTES);
    bench_close(&b);
}

static void reads_fail_as_told(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 9, 1);
    assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 1), ERR_OK);
    assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 2), ERR_OK);
    assert_int_equal(write_durably(&b, 16 * BLOCK_BYTES, 4 * BLOCK_BYTES, 3), ERR_OK);
    const struct { enum sim_fault fault; enum err result; } errors[] = {
        {SIM_FAULT_read_error, ERR_IO}, {SIM_FAULT_media_error, ERR_MEDIA}, {SIM_FAULT_short_transfer, ERR_SHORT}};
    for (uint32_t i = 0; i < 3; i++) {
        fail_next(&b, errors[i].fault, 0);
        assert_int_equal(whole(&b, IO_READ, 0, 4 * BLOCK_BYTES, 0), errors[i].result);
    }
    fail_next(&b, SIM_FAULT_stale_read, 0);
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 1), 4 * BLOCK_BYTES);
    fail_next(&b, SIM_FAULT_misdirected_read, 16 * BLOCK_BYTES);
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 3), 4 * BLOCK_BYTES);
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 2), 4 * BLOCK_BYTES);
    assert_int_equal(sim_io_counts(b.sim)->faults[SIM_FAULT_stale_read], 1);
    bench_close(&b);
}

static void writes_that_fail_say_so(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 10, 1);
    const struct { enum sim_fault fault; enum err result; } errors[] = {
        {SIM_FAULT_write_error, ERR_IO}, {SIM_FAULT_full, ERR_MEMBER_FULL}, {SIM_FAULT_short_transfer, ERR_SHORT},
        {SIM_FAULT_flush_error, ERR_IO}};
    for (uint32_t i = 0; i < 4; i++) {
        fail_next(&b, errors[i].fault, 0);
        assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 7), errors[i].result);
    }
    bench_close(&b);
}

static void writes_that_lie_leave_the_old_bytes_and_healing_brings_the_true_ones(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 11, 1);
    assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 1), ERR_OK);
    fail_next(&b, SIM_FAULT_lost_write, 0);
    assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 2), ERR_OK);
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 1), 4 * BLOCK_BYTES);
    assert_int_equal(sim_disk_damaged(sim_io_disk(b.sim, 0)), 4);
    sim_disk_heal(sim_io_disk(b.sim, 0));
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 2), 4 * BLOCK_BYTES);
    fail_next(&b, SIM_FAULT_misdirected_write, 32 * BLOCK_BYTES);
    assert_int_equal(write_durably(&b, 0, 4 * BLOCK_BYTES, 3), ERR_OK);
    assert_int_equal(count_bytes(&b, 0, 4 * BLOCK_BYTES, 2), 4 * BLOCK_BYTES);
    assert_int_equal(count_bytes(&b, 32 * BLOCK_BYTES, 4 * BLOCK_BYTES, 3), 4 * BLOCK_BYTES);
    fail_next(&b, SIM_FAULT_torn_write, 0);
    assert_int_equal(write_durably(&b, 64 * BLOCK_BYTES, 16 * BLOCK_BYTES, 4), ERR_OK);
    assert_true(count_bytes(&b, 64 * BLOCK_BYTES, 16 * BLOCK_BYTES, 4) < 16 * BLOCK_BYTES);
    bench_close(&b);
}

static void a_flush_that_lies_shows_only_when_the_power_goes(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 12, 1);
    fail_next(&b, SIM_FAULT_flush_lie, 0);
    assert_int_equal(write_durably(&b, 0, BLOCK_BYTES, 5), ERR_OK);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), BLOCK_BYTES);
    cut_power(&b, SIM_SURVIVE_NONE);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), 0);
    bench_close(&b);
}

static void a_flush_after_a_failed_flush_rescues_nothing(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 13, 1);
    assert_int_equal(whole(&b, IO_WRITE, 0, BLOCK_BYTES, 5), ERR_OK);
    fail_next(&b, SIM_FAULT_flush_error, 0);
    assert_int_equal(whole(&b, IO_FLUSH, 0, 0, 0), ERR_IO);
    assert_int_equal(whole(&b, IO_FLUSH, 0, 0, 0), ERR_OK);
    cut_power(&b, SIM_SURVIVE_ALL);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 5), 0);
    bench_close(&b);
}

static void a_pulled_member_answers_gone_and_the_others_serve(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 14, 2);
    struct call *c = start(&b, IO_WRITE, 0, BLOCK_BYTES, 5);
    sim_io_vanish(b.sim, 0);
    turn_until_quiet(&b);
    assert_int_equal(c->op.result, ERR_MEMBER_GONE);
    assert_false(io_target(b.io, 0)->present);
    assert_int_equal(whole(&b, IO_READ, 0, BLOCK_BYTES, 0), ERR_MEMBER_GONE);
    b.used = 0;
    struct call *other = &b.calls[b.used++];
    *other = (struct call){.op = {.kind = IO_READ, .target = 1, .length = BLOCK_BYTES, .done = on_done, .owner = &b,
                                  .buffer = buffer_of(&b, other)}};
    io_submit(b.io, &other->op);
    turn_until_quiet(&b);
    assert_int_equal(other->op.result, ERR_OK);
    sim_io_return(b.sim, 0);
    assert_int_equal(whole(&b, IO_READ, 0, BLOCK_BYTES, 0), ERR_OK);
    bench_close(&b);
}

static void a_stalled_member_answers_when_the_stall_is_over(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 15, 1);
    uint64_t begin = io_now_ns(b.io), stall = UINT64_C(3000000000);
    struct call *before = start(&b, IO_WRITE, 0, BLOCK_BYTES, 5);
    sim_io_stall(b.sim, 0, stall);
    struct call *after = start(&b, IO_WRITE, BLOCK_BYTES, BLOCK_BYTES, 5);
    turn_until_quiet(&b);
    assert_int_equal(before->op.result, ERR_OK);
    assert_int_equal(after->op.result, ERR_OK);
    assert_true(before->ended_at_ns >= begin + stall && after->ended_at_ns >= begin + stall);
    bench_close(&b);
}

static uint64_t fired_at;
static uint32_t fired;
static struct io *timer_io;

static void on_timer(struct io_timer *t)
{
    (void)t;
    fired++;
    fired_at = io_now_ns(timer_io);
}

static void timers_fire_once_not_early_and_time_moves_only_in_turns(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 16, 1);
    struct io_timer t;
    timer_io = b.io;
    fired = 0;
    io_timer_init(&t, on_timer, NULL);
    uint64_t begin = io_now_ns(b.io);
    io_timer_set(b.io, &t, begin + 1000);
    io_timer_set(b.io, &t, begin + 5000);
    assert_int_equal(io_now_ns(b.io), begin);
    io_turn(b.io, 4000);
    assert_int_equal(fired, 0);
    assert_int_equal(io_now_ns(b.io), begin + 4000);
    io_turn(b.io, UINT64_C(1000000));
    assert_int_equal(fired, 1);
    assert_int_equal(fired_at, begin + 5000);
    io_timer_set(b.io, &t, begin + 9000);
    io_timer_clear(b.io, &t);
    io_turn(b.io, UINT64_C(1000000));
    assert_int_equal(fired, 1);
    bench_close(&b);
}

static void the_wall_clock_jumps_and_the_other_does_not(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 17, 1);
    uint64_t wall = io_wall_ms(b.io), now = io_now_ns(b.io);
    sim_io_jump_wall(b.sim, -3600000);
    assert_int_equal(io_wall_ms(b.io), wall - 3600000);
    assert_int_equal(io_now_ns(b.io), now);
    bench_close(&b);
}

static void what_the_engine_must_never_do_is_noted(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 18, 1);
    start(&b, IO_WRITE, 0, 2 * BLOCK_BYTES, 5);
    start(&b, IO_READ, BLOCK_BYTES, BLOCK_BYTES, 0);
    turn_until_quiet(&b);
    assert_non_null(strstr(sim_io_violation(b.sim), "overlaps"));
    sim_io_free(&b.sim);
    free(b.memory);
    bench_open(&b, 18, 1);
    struct call *c = start(&b, IO_WRITE, 0, BLOCK_BYTES, 5);
    buffer_of(&b, c)[17] = 6;
    turn_until_quiet(&b);
    assert_non_null(strstr(sim_io_violation(b.sim), "changed in flight"));
    sim_io_free(&b.sim);
    free(b.memory);
}

static void a_snapshot_keeps_the_bytes_of_its_hour(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 19, 1);
    assert_int_equal(write_durably(&b, 0, BLOCK_BYTES, 1), ERR_OK);
    struct sim_disk *old = sim_disk_snapshot(sim_io_disk(b.sim, 0));
    assert_int_equal(write_durably(&b, 0, BLOCK_BYTES, 2), ERR_OK);
    struct sim_disk *newer = sim_io_change_disk(b.sim, 0, old);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 1), BLOCK_BYTES);
    sim_disk_free(&newer);
    bench_close(&b);
}

static void rot_and_unreadable_blocks_last_until_they_are_written(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, 20, 1);
    assert_int_equal(write_durably(&b, 0, 2 * BLOCK_BYTES, 1), ERR_OK);
    sim_disk_rot(sim_io_disk(b.sim, 0), 77, 0x40);
    sim_disk_make_unreadable(sim_io_disk(b.sim, 0), BLOCK_BYTES);
    assert_int_equal(count_bytes(&b, 0, BLOCK_BYTES, 1), BLOCK_BYTES - 1);
    assert_int_equal(whole(&b, IO_READ, BLOCK_BYTES, BLOCK_BYTES, 0), ERR_MEDIA);
    assert_int_equal(write_durably(&b, 0, 2 * BLOCK_BYTES, 2), ERR_OK);
    assert_int_equal(count_bytes(&b, 0, 2 * BLOCK_BYTES, 2), 2 * BLOCK_BYTES);
    assert_int_equal(sim_disk_damaged(sim_io_disk(b.sim, 0)), 0);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(done_runs_once_in_a_turn_and_never_inside_submit),
        cmocka_unit_test(completion_order_is_not_submission_order_for_every_seed),
        cmocka_unit_test(one_seed_gives_one_trace_and_another_seed_another),
        cmocka_unit_test(a_read_sees_what_was_written_before_it_and_zeros_on_a_fresh_file),
        cmocka_unit_test(an_unflushed_write_is_lost_when_nothing_survives),
        cmocka_unit_test(a_flushed_or_durable_write_survives_every_power_cut),
        cmocka_unit_test(a_flush_does_not_cover_a_write_that_ended_after_its_submission),
        cmocka_unit_test(a_write_in_flight_at_the_cut_tears_at_sectors),
        cmocka_unit_test(without_power_nothing_succeeds_and_nothing_changes),
        cmocka_unit_test(a_killed_process_leaves_whole_writes_or_none_and_the_cache),
        cmocka_unit_test(reads_fail_as_told),
        cmocka_unit_test(writes_that_fail_say_so),
        cmocka_unit_test(writes_that_lie_leave_the_old_bytes_and_healing_brings_the_true_ones),
        cmocka_unit_test(a_flush_that_lies_shows_only_when_the_power_goes),
        cmocka_unit_test(a_flush_after_a_failed_flush_rescues_nothing),
        cmocka_unit_test(a_pulled_member_answers_gone_and_the_others_serve),
        cmocka_unit_test(a_stalled_member_answers_when_the_stall_is_over),
        cmocka_unit_test(timers_fire_once_not_early_and_time_moves_only_in_turns),
        cmocka_unit_test(the_wall_clock_jumps_and_the_other_does_not),
        cmocka_unit_test(what_the_engine_must_never_do_is_noted),
        cmocka_unit_test(a_snapshot_keeps_the_bytes_of_its_hour),
        cmocka_unit_test(rot_and_unreadable_blocks_last_until_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
