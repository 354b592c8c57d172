/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of spoolfs/io.h, rule by rule, against every implementation: the worlds of io_worlds.h. */
#include "io_worlds.h"

/* --- IO-1 --- */

static void done_runs_once_and_only_from_a_turn(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 32; i++) {
        fill(block(i), BLOCK_BYTES, i);
        io_submit(w->io, &op_at(i, IO_WRITE, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES, block(i))->op);
        assert_int_equal(t.ops[i].done, 0);
    }
    finish(w, 32);
    for (uint32_t i = 0; i < 8; i++)
        turn(w, 0);
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(t.ops[i].done, 1);
        assert_int_equal(t.ops[i].op.result, ERR_OK);
        assert_true(t.ops[i].op.done_ns >= t.ops[i].op.submitted_ns);
    }
}

static void an_absent_member_answers_every_op_gone_from_a_turn(void **state)
{
    struct world *w = *state;
    static const enum io_kind kinds[] = {IO_READ, IO_WRITE, IO_FLUSH, IO_DISCARD};
    assert_false(io_target(w->io, 1)->present);
    for (uint32_t i = 0; i < 4; i++) {
        bool bytes = kinds[i] == IO_READ || kinds[i] == IO_WRITE;
        struct probe_op *p = op_at(i, kinds[i], 0, kinds[i] == IO_FLUSH ? 0 : BLOCK_BYTES, bytes ? block(i) : NULL);
        p->op.target = 1;
        io_submit(w->io, &p->op);
        assert_int_equal(p->done, 0);
    }
    finish(w, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(t.ops[i].op.result, ERR_MEMBER_GONE);
}

static struct world *nested_world;

static void submit_next(struct io_op *op)
{
    struct probe_op *p = op->owner;
    on_done(op);
    if (p - t.ops + 1 < 5)
        io_submit(nested_world->io, &p[1].op);
}

static void what_is_submitted_from_done_ends_in_a_later_turn(void **state)
{
    struct world *w = *state;
    nested_world = w;
    for (uint32_t i = 0; i < 5; i++) {
        op_at(i, IO_FLUSH, 0, 0, NULL)->op.target = 1; /* ends at once: the temptation is greatest */
        t.ops[i].op.done = submit_next;
    }
    io_submit(w->io, &t.ops[0].op);
    finish(w, 5);
    for (uint32_t i = 1; i < 5; i++)
        assert_true(t.ops[i].turn > t.ops[i - 1].turn);
}

/* --- IO-2 --- */

static void a_transfer_is_whole(void **state)
{
    struct world *w = *state;
    static const uint32_t lengths[] = {BLOCK_BYTES, 5 * BLOCK_BYTES, FRAME_BYTES_MAX};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t offset = MEMBER_BYTES - lengths[i]; /* to the very end */
        fill(t.large, lengths[i], 77 + i);
        assert_int_equal(run_one(w, op_at(0, IO_WRITE, offset, lengths[i], t.large)), ERR_OK);
        memset(t.large, 0, lengths[i]);
        assert_int_equal(run_one(w, op_at(1, IO_READ, offset, lengths[i], t.large)), ERR_OK);
        for (uint32_t at = 0; at < lengths[i]; at++)
            assert_int_equal(t.large[at], (uint8_t)((77 + i) * 31 + at * 7 + (at >> 12)));
    }
}

static void a_place_past_the_end_is_an_error(void **state)
{
    struct world *w = *state;
    if (w->simple)
        skip();
    assert_int_not_equal(run_one(w, op_at(0, IO_READ, MEMBER_BYTES, BLOCK_BYTES, block(0))), ERR_OK);
    assert_int_not_equal(run_one(w, op_at(0, IO_WRITE, MEMBER_BYTES - BLOCK_BYTES, 2 * BLOCK_BYTES, block(0))), ERR_OK);
    assert_int_not_equal(run_one(w, op_at(0, IO_READ, UINT64_MAX - BLOCK_BYTES + 1, BLOCK_BYTES, block(0))), ERR_OK);
    assert_int_equal(run_one(w, op_at(0, IO_READ, MEMBER_BYTES - BLOCK_BYTES, BLOCK_BYTES, block(0))), ERR_OK);
}

static void a_member_cut_short_answers_short_or_gone(void **state)
{
    struct world *w = *state;
    if (!w->shorten)
        skip();
    w->shorten(w, 4 * MIB + BLOCK_BYTES);
    enum err whole = run_one(w, op_at(0, IO_READ, 6 * MIB, BLOCK_BYTES, block(0)));
    enum err part = run_one(w, op_at(0, IO_READ, 4 * MIB, 2 * BLOCK_BYTES, block(0)));
    assert_true(whole == ERR_SHORT || whole == ERR_MEMBER_GONE);
    assert_true(part == ERR_SHORT || part == ERR_MEMBER_GONE);
    assert_int_equal(run_one(w, op_at(0, IO_READ, 0, BLOCK_BYTES, block(0))), ERR_OK);
}

/* --- IO-3, IO-4 --- */

static void what_a_flush_covers_is_there_after_reopening(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 16; i++) {
        fill(block(i), BLOCK_BYTES, 200 + i);
        io_submit(w->io, &op_at(i, IO_WRITE, (uint64_t)(64 + i) * BLOCK_BYTES, BLOCK_BYTES, block(i))->op);
    }
    finish(w, 16);
    assert_int_equal(run_one(w, op_at(16, IO_FLUSH, 0, 0, NULL)), ERR_OK);
    w->reopen(w);
    for (uint32_t i = 0; i < 16; i++) {
        fill(block(17), BLOCK_BYTES, 200 + i);
        assert_int_equal(run_one(w, op_at(16, IO_READ, (uint64_t)(64 + i) * BLOCK_BYTES, BLOCK_BYTES, block(16))), ERR_OK);
        assert_memory_equal(block(16), block(17), BLOCK_BYTES);
    }
}

static void a_durable_write_is_there_after_reopening_whichever_way(void **state)
{
    struct world *w = *state;
    static const enum io_durable_by ways[] = {IO_DURABLE_UNKNOWN, IO_DURABLE_DSYNC, IO_DURABLE_FLUSH};
    for (uint32_t i = 0; i < 3; i++) {
        w->io->ops->target_set_durable_by(w->io, 0, ways[i]);
        fill(block(0), BLOCK_BYTES, 90 + i);
        struct probe_op *p = op_at(0, IO_WRITE, i * BLOCK_BYTES, BLOCK_BYTES, block(0));
        p->op.durable = true;
        assert_int_equal(run_one(w, p), ERR_OK);
        w->reopen(w);
        assert_int_equal(run_one(w, op_at(1, IO_READ, i * BLOCK_BYTES, BLOCK_BYTES, block(1))), ERR_OK);
        assert_memory_equal(block(0), block(1), BLOCK_BYTES);
    }
}

static void many_durable_writes_and_flushes_at_once_all_end_well(void **state)
{
    struct world *w = *state;
    for (uint32_t way = IO_DURABLE_DSYNC; way <= IO_DURABLE_FLUSH; way++) {
        w->io->ops->target_set_durable_by(w->io, 0, (enum io_durable_by)way);
        for (uint32_t i = 0; i < 40; i++) {
            bool flush = i % 5 == 4;
            op_at(i, flush ? IO_FLUSH : IO_WRITE, flush ? 0 : i * BLOCK_BYTES, flush ? 0 : BLOCK_BYTES,
                  flush ? NULL : block(i))->op.durable = !flush && i % 2;
            io_submit(w->io, &t.ops[i].op);
        }
        finish(w, 40);
        for (uint32_t i = 0; i < 40; i++)
            assert_int_equal(t.ops[i].op.result, ERR_OK);
    }
}

/* --- IO-5 --- */

struct probe_timer {
    struct io_timer timer;
    uint32_t fired;
    uint64_t turn, at_ns;
    struct world *world;
    struct probe_timer *sets, *clears;
};

static void on_fire(struct io_timer *timer)
{
    struct probe_timer *p = timer->owner;
    assert_true(t.in_turn);
    assert_true(p->fired == 0 || p->turn != t.turns); /* once a turn at most */
    p->fired++;
    p->turn = t.turns;
    p->at_ns = io_now_ns(p->world->io);
    if (p->sets)
        io_timer_set(p->world->io, &p->sets->timer, p->at_ns);
    if (p->clears)
        io_timer_clear(p->world->io, &p->clears->timer);
}

static void timer_init(struct probe_timer *p, struct world *w)
{
    *p = (struct probe_timer){.world = w};
    io_timer_init(&p->timer, on_fire, p);
}

static void a_timer_that_fires_changes_nothing_about_an_op(void **state)
{
    struct world *w = *state;
    struct probe_timer deadline;
    timer_init(&deadline, w);
    fill(t.large, FRAME_BYTES_MAX, 5);
    struct probe_op *p = op_at(0, IO_WRITE, 0, FRAME_BYTES_MAX, t.large);
    p->op.durable = true;
    io_submit(w->io, &p->op);
    io_timer_set(w->io, &deadline.timer, io_now_ns(w->io)); /* passed before the op can end */
    while (deadline.fired == 0)
        turn(w, TURN_NS);
    finish(w, 1);
    assert_int_equal(p->op.result, ERR_OK);
    assert_int_equal(p->done, 1);
    assert_int_equal(deadline.fired, 1);
    memset(t.large, 0, FRAME_BYTES_MAX);
    assert_int_equal(run_one(w, op_at(0, IO_READ, 0, FRAME_BYTES_MAX, t.large)), ERR_OK);
    assert_int_equal(t.large[FRAME_BYTES_MAX - 1],
                     (uint8_t)(5 * 31 + (FRAME_BYTES_MAX - 1) * 7 + ((FRAME_BYTES_MAX - 1) >> 12)));
}

/* --- IO-6 --- */

static void a_canceled_op_still_ends_once_canceled_or_done(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 300; i++) {
        bool write = i % 3 == 0;
        fill(block(i), BLOCK_BYTES, i);
        op_at(i, write ? IO_WRITE : IO_READ, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES, block(i))->op.durable = write;
        io_submit(w->io, &t.ops[i].op);
        if (i % 4 == 0)
            io_cancel(w->io, &t.ops[i].op); /* while it waits */
    }
    turn(w, 0);
    for (uint32_t i = 0; i < 300; i += 2)
        if (t.ops[i].done == 0)
            io_cancel(w->io, &t.ops[i].op); /* while it flies, or again */
    finish(w, 300);
    turn(w, 0);
    for (uint32_t i = 0; i < 300; i++) {
        assert_int_equal(t.ops[i].done, 1);
        if (i % 2 == 1)
            assert_int_equal(t.ops[i].op.result, ERR_OK); /* nobody asked for these to go */
        else
            assert_true(t.ops[i].op.result == ERR_OK || t.ops[i].op.result == ERR_CANCELED);
    }
}

/* One flush may serve many: who is canceled takes nobody along. */
static void who_is_canceled_with_a_flush_under_way_takes_nobody_along(void **state)
{
    struct world *w = *state;
    w->io->ops->target_set_durable_by(w->io, 0, IO_DURABLE_FLUSH);
    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < 40; i++) {
            bool flush = i % 5 == 4;
            op_at(i, flush ? IO_FLUSH : IO_WRITE, flush ? 0 : i * BLOCK_BYTES, flush ? 0 : BLOCK_BYTES,
                  flush ? NULL : block(i))->op.durable = !flush;
            io_submit(w->io, &t.ops[i].op);
        }
        for (uint32_t i = round % 3; i < 40; i += 3) {
            turn(w, 0);
            if (t.ops[i].done == 0)
                io_cancel(w->io, &t.ops[i].op);
        }
        finish(w, 40);
        turn(w, 0);
        for (uint32_t i = 0; i < 40; i++) {
            assert_int_equal(t.ops[i].done, 1);
            assert_true(t.ops[i].op.result == ERR_OK || (i % 3 == round % 3 && t.ops[i].op.result == ERR_CANCELED));
        }
    }
}

static void after_a_cancel_the_same_op_can_be_used_again(void **state)
{
    struct world *w = *state;
    for (uint32_t round = 0; round < 50; round++) {
        struct probe_op *p = op_at(0, IO_READ, 0, BLOCK_BYTES, block(0));
        io_submit(w->io, &p->op);
        if (round % 2)
            turn(w, 0);
        if (p->done == 0)
            io_cancel(w->io, &p->op);
        finish(w, 1);
        assert_int_equal(run_one(w, op_at(0, IO_READ, BLOCK_BYTES, BLOCK_BYTES, block(0))), ERR_OK);
    }
}

/* --- IO-7 --- */

static uint64_t stood_turn, stood_ns, stood_ms;

static void burn_and_look(struct io_op *op)
{
    struct timespec a, b;
    on_done(op);
    if (stood_turn != t.turns) {
        stood_turn = t.turns;
        stood_ns = io_now_ns(nested_world->io);
        stood_ms = io_wall_ms(nested_world->io);
    }
    clock_gettime(CLOCK_MONOTONIC, &a);
    do
        clock_gettime(CLOCK_MONOTONIC, &b);
    while ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec < 3000000);
    assert_int_equal(io_now_ns(nested_world->io), stood_ns);
    assert_int_equal(io_wall_ms(nested_world->io), stood_ms);
}

static void time_stands_still_within_a_turn_and_goes_on_between(void **state)
{
    struct world *w = *state;
    nested_world = w;
    stood_turn = 0;
    for (uint32_t i = 0; i < 4; i++) { /* an absent member answers them together */
        op_at(i, IO_FLUSH, 0, 0, NULL)->op.target = 1;
        t.ops[i].op.done = burn_and_look;
        io_submit(w->io, &t.ops[i].op);
    }
    finish(w, 4);
    uint64_t before = io_now_ns(w->io);
    struct probe_timer p;
    timer_init(&p, w);
    io_timer_set(w->io, &p.timer, before + 1000000);
    while (p.fired == 0)
        turn(w, TURN_NS);
    assert_true(p.at_ns >= before + 1000000);
}

static void more_ops_than_fly_at_once_all_end_whatever_the_order(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < OPS_MAX; i++) {
        fill(block(i), BLOCK_BYTES, i);
        io_submit(w->io, &op_at(i, IO_WRITE, (uint64_t)(OPS_MAX - i) * BLOCK_BYTES, BLOCK_BYTES, block(i))->op);
    }
    finish(w, OPS_MAX);
    memset(t.buffers, 0, (size_t)OPS_MAX * BLOCK_BYTES);
    for (uint32_t i = 0; i < OPS_MAX; i++) {
        assert_int_equal(t.ops[i].op.result, ERR_OK);
        io_submit(w->io, &op_at(i, IO_READ, (uint64_t)(OPS_MAX - i) * BLOCK_BYTES, BLOCK_BYTES, block(i))->op);
    }
    finish(w, OPS_MAX);
    for (uint32_t i = 0; i < OPS_MAX; i++) {
        fill(t.large, BLOCK_BYTES, i);
        assert_int_equal(t.ops[i].op.result, ERR_OK);
        assert_memory_equal(block(i), t.large, BLOCK_BYTES);
    }
}

/* --- timers --- */

static void timers_fire_in_order_move_and_clear(void **state)
{
    struct world *w = *state;
    struct probe_timer p[4];
    for (uint32_t i = 0; i < 4; i++)
        timer_init(&p[i], w);
    uint64_t now = io_now_ns(w->io);
    io_timer_set(w->io, &p[0].timer, now + 8000000);
    io_timer_set(w->io, &p[1].timer, now + 4000000);
    io_timer_set(w->io, &p[2].timer, now + 1000);
    io_timer_set(w->io, &p[2].timer, now + 12000000); /* moved */
    io_timer_set(w->io, &p[3].timer, now + 2000);
    io_timer_clear(w->io, &p[3].timer);
    io_timer_clear(w->io, &p[3].timer); /* harmless */
    assert_true(io_timer_is_set(&p[0].timer) && !io_timer_is_set(&p[3].timer));
    for (uint32_t patience = 0; p[2].fired == 0 && patience < 10000; patience++)
        turn(w, TURN_NS);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(p[i].fired, 1);
    assert_int_equal(p[3].fired, 0);
    assert_true(p[1].at_ns <= p[0].at_ns && p[0].at_ns <= p[2].at_ns);
    assert_true(p[1].at_ns >= now + 4000000 && p[2].at_ns >= now + 12000000);
    assert_false(io_timer_is_set(&p[2].timer));
}

static void a_timer_set_from_a_callback_fires_in_a_later_turn(void **state)
{
    struct world *w = *state;
    struct probe_timer again, victim, clearer;
    if (w->simple)
        skip();
    timer_init(&again, w);
    timer_init(&victim, w);
    timer_init(&clearer, w);
    again.sets = &again;
    clearer.clears = &victim;
    uint64_t now = io_now_ns(w->io);
    io_timer_set(w->io, &again.timer, now); /* equal times fire in the order they were set */
    io_timer_set(w->io, &clearer.timer, now);
    io_timer_set(w->io, &victim.timer, now);
    for (uint32_t i = 1; i <= 4; i++) {
        uint32_t before = again.fired;
        turn(w, TURN_NS);
        assert_in_range(again.fired, before, before + 1);
    }
    while (again.fired < 3)
        turn(w, TURN_NS);
    assert_int_equal(clearer.fired, 1);
    assert_int_equal(victim.fired, 0);
    io_timer_clear(w->io, &again.timer);
}

static void there_is_room_for_thousands_of_timers(void **state)
{
    struct world *w = *state;
    enum { COUNT = 3000 };
    struct probe_timer *p = calloc(COUNT, sizeof *p);
    uint64_t now = io_now_ns(w->io);
    assert_non_null(p);
    for (uint32_t i = 0; i < COUNT; i++) {
        timer_init(&p[i], w);
        io_timer_set(w->io, &p[i].timer, now + (COUNT - i) * 100);
    }
    for (uint32_t patience = 0; p[0].fired == 0 && patience < 10000; patience++)
        turn(w, TURN_NS);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(p[i].fired, 1);
    free(p);
}

static void random_numbers_do_not_repeat(void **state)
{
    struct world *w = *state;
    uint64_t seen[200];
    for (uint32_t i = 0; i < 200; i++) {
        seen[i] = io_random64(w->io);
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(seen[i], seen[j]);
    }
}

static void targets_say_what_they_are(void **state)
{
    struct world *w = *state;
    assert_int_equal(io_target_count(w->io), 2);
    const struct io_target *a = io_target(w->io, 0), *b = io_target(w->io, 1);
    assert_true(a->present);
    assert_int_equal(a->bytes, MEMBER_BYTES);
    assert_true(a->domain[0] != '\0');
    assert_false(a->is_file && a->discards);
    assert_false(b->present);
    assert_true(w->io->ops->name(w->io)[0] != '\0');
}

static const struct CMUnitTest rules[] = {
    cmocka_unit_test(done_runs_once_and_only_from_a_turn),
    cmocka_unit_test(an_absent_member_answers_every_op_gone_from_a_turn),
    cmocka_unit_test(what_is_submitted_from_done_ends_in_a_later_turn),
    cmocka_unit_test(a_transfer_is_whole),
    cmocka_unit_test(a_place_past_the_end_is_an_error),
    cmocka_unit_test(a_member_cut_short_answers_short_or_gone),
    cmocka_unit_test(what_a_flush_covers_is_there_after_reopening),
    cmocka_unit_test(a_durable_write_is_there_after_reopening_whichever_way),
    cmocka_unit_test(many_durable_writes_and_flushes_at_once_all_end_well),
    cmocka_unit_test(a_timer_that_fires_changes_nothing_about_an_op),
    cmocka_unit_test(a_canceled_op_still_ends_once_canceled_or_done),
    cmocka_unit_test(who_is_canceled_with_a_flush_under_way_takes_nobody_along),
    cmocka_unit_test(after_a_cancel_the_same_op_can_be_used_again),
    cmocka_unit_test(time_stands_still_within_a_turn_and_goes_on_between),
    cmocka_unit_test(more_ops_than_fly_at_once_all_end_whatever_the_order),
    cmocka_unit_test(timers_fire_in_order_move_and_clear),
    cmocka_unit_test(a_timer_set_from_a_callback_fires_in_a_later_turn),
    cmocka_unit_test(there_is_room_for_thousands_of_timers),
    cmocka_unit_test(random_numbers_do_not_repeat),
    cmocka_unit_test(targets_say_what_they_are),
};
enum { RULES = sizeof rules / sizeof rules[0] };

int main(void)
{
    int failed = 0;
    for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
        struct CMUnitTest tests[RULES];
        struct world *w = &worlds[i];
        if (!w->make(w)) { /* no loop devices, no io_uring, no tmpfs: said, not failed */
            print_message("not here: %s\n", w->name);
            continue;
        }
        w->unmake(w);
        for (size_t r = 0; r < RULES; r++) {
            tests[r] = rules[r];
            tests[r].setup_func = setup;
            tests[r].teardown_func = teardown;
            tests[r].initial_state = w;
        }
        failed += _cmocka_run_group_tests(w->name, tests, RULES, NULL, NULL);
    }
    return failed;
}
