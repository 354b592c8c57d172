/* SPDX-License-Identifier: Apache-2.0 */
/* Every I/O index of the scripted workload x {EIO, ENOSPC, ENODATA, short, vanished} x {once, for ever}: on three
 * members with two copies, one member's failure costs no append and no message, and nothing waits for ever. Each index
 * meets a fifth of the combinations, each combination a fifth of the indexes.
 *
 * Allocation failures are not swept: the engine has no allocator hook. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <world.h>

#define MEMBERS 3u
#define STRIDE 5u

static struct world *open_world(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    plan_make_plain(&plan, seed, MEMBERS, 2);
    world_make(w, &plan);
    w->verbose = getenv("SIM_VERBOSE") != NULL;
    return w;
}

static bool close_world(struct world *w, enum sim_fault fault, bool stays, uint64_t at)
{
    bool failed = world_failed(w);
    if (failed)
        print_message("%s %s at operation %llu, seed %llu: %s\n", sim_fault_word(fault), stays ? "for ever" : "once",
                      (unsigned long long)at, (unsigned long long)w->plan.seed, w->failure);
    world_free(w);
    free(w);
    return !failed;
}

static void members_return(struct world *w)
{
    if (w->pool) {
        sim_io_power_cut(w->sim);
        world_after_crash(w);
    }
    for (uint16_t t = 0; t < MEMBERS; t++)
        sim_io_return(w->sim, t);
}

/* One run of the script with one fault; what the pool then shows with the fault gone is compared with the promises. */
static bool sweep_one(uint64_t seed, enum sim_fault fault, bool stays, uint64_t at)
{
    struct world *w = open_world(seed);
    w->scripted_fault = fault;
    w->scripted_fault_at = at;
    w->scripted_fault_stays = stays;
    script_run(w);
    if (!world_failed(w)) {
        w->scripted_fault = SIM_FAULT_none;
        members_return(w);
        script_after_cut(w);
    }
    return close_world(w, fault, stays, at);
}

static void sweep(enum sim_fault fault, bool stays)
{
    const uint64_t seed = 21;
    struct world *w = open_world(seed);
    uint64_t created = script_created_at(w);
    assert_true(close_world(w, fault, stays, 0));
    w = open_world(seed);
    script_run(w);
    uint64_t ops = sim_io_counts(w->sim)->ops, runs = 0, bad = 0;
    assert_true(close_world(w, fault, stays, 0));
    for (uint64_t at = created + (fault + stays) % STRIDE; at < ops && bad < 5; at += STRIDE, runs++)
        bad += !sweep_one(seed, fault, stays, at);
    print_message("%s, %s: %llu runs\n", sim_fault_word(fault), stays ? "for ever" : "once", (unsigned long long)runs);
    assert_int_equal(bad, 0);
}

static void an_input_output_error_once_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_read_error, false); }
static void input_output_errors_for_ever_cost_nothing(void **state) { (void)state; sweep(SIM_FAULT_read_error, true); }
static void a_full_member_once_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_full, false); }
static void a_full_member_for_ever_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_full, true); }
static void a_media_error_once_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_media_error, false); }
static void media_errors_for_ever_cost_nothing(void **state) { (void)state; sweep(SIM_FAULT_media_error, true); }
static void a_short_transfer_once_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_short_transfer, false); }
static void short_transfers_for_ever_cost_nothing(void **state) { (void)state; sweep(SIM_FAULT_short_transfer, true); }
static void a_member_that_vanishes_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_vanish, false); }
static void a_write_that_takes_seconds_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_late, false); }

/* Faults while the pool is made: a clear answer, and the next attempt works. */
static void a_fault_while_a_pool_is_created_is_answered(void **state)
{
    (void)state;
    const enum sim_fault faults[] = {SIM_FAULT_read_error, SIM_FAULT_full, SIM_FAULT_media_error,
                                     SIM_FAULT_short_transfer, SIM_FAULT_vanish};
    struct world *w = open_world(22);
    uint64_t created = script_created_at(w);
    assert_true(close_world(w, SIM_FAULT_none, false, 0));
    for (uint32_t f = 0; f < sizeof faults / sizeof faults[0]; f++)
        for (uint64_t at = 0; at < created; at++) {
            w = open_world(22);
            w->scripted_fault = faults[f];
            w->scripted_fault_at = at;
            world_create_pool(w);
            w->failure[0] = 0; /* an error is an answer */
            w->scripted_fault = SIM_FAULT_none;
            while (sim_io_in_flight(w->sim) > 0)
                io_turn(w->io, UINT64_C(1000000000));
            members_return(w);
            if (world_create_pool(w) && world_mount(w)) {
                senders_append(w, 1000, false);
                world_settle(w);
            }
            assert_true(close_world(w, faults[f], false, at));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_input_output_error_once_costs_nothing),
        cmocka_unit_test(input_output_errors_for_ever_cost_nothing),
        cmocka_unit_test(a_full_member_once_costs_nothing),
        cmocka_unit_test(a_full_member_for_ever_costs_nothing),
        cmocka_unit_test(a_media_error_once_costs_nothing),
        cmocka_unit_test(media_errors_for_ever_cost_nothing),
        cmocka_unit_test(a_short_transfer_once_costs_nothing),
        cmocka_unit_test(short_transfers_for_ever_cost_nothing),
        cmocka_unit_test(a_member_that_vanishes_costs_nothing),
        cmocka_unit_test(a_write_that_takes_seconds_costs_nothing),
        cmocka_unit_test(a_fault_while_a_pool_is_created_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
