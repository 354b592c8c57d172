/* SPDX-License-Identifier: Apache-2.0 */
/* Every I/O index of the scripted workload x {EIO, ENOSPC, ENODATA, short, vanished} x {once, for ever}: on three
 * members with two copies, one member's failure costs no append and no message, and nothing waits for ever. A member
 * that vanishes once is back at the next mount, one that vanishes for ever is missing at that as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sweeping.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <world.h>

#define MEMBERS 3u
#define SEED UINT64_C(21)
#ifndef STRIDE
#define STRIDE 1u /* with sanitizers more: a run costs ten times as much */
#endif

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

/* `gone`: who does not, MEMBERS: nobody. */
static void members_return(struct world *w, uint16_t gone)
{
    if (w->pool) {
        sim_io_power_cut(w->sim);
        world_after_crash(w);
    }
    for (uint16_t t = 0; t < MEMBERS; t++)
        if (t != gone)
            sim_io_return(w->sim, t);
}

static enum sim_fault g_fault;
static bool g_stays;

/* One run of the script with one fault; what the pool then shows with the fault gone is compared with the promises. */
static bool sweep_one(uint64_t at)
{
    enum sim_fault fault = g_fault;
    bool stays = g_stays;
    struct world *w = open_world(SEED);
    w->scripted_fault = fault;
    w->scripted_fault_at = at;
    w->scripted_fault_stays = stays;
    script_run(w);
    if (!world_failed(w)) {
        w->scripted_fault = SIM_FAULT_none;
        members_return(w, fault == SIM_FAULT_vanish && stays ? (uint16_t)w->scripted_fault_target : MEMBERS);
        script_after_cut(w);
    }
    return close_world(w, fault, stays, at);
}

static void sweep(enum sim_fault fault, bool stays)
{
    struct world *w = open_world(SEED);
    uint64_t created = script_created_at(w);
    assert_true(close_world(w, fault, stays, 0));
    w = open_world(SEED);
    script_run(w);
    uint64_t ops = sim_io_counts(w->sim)->ops, from = created + (fault + stays) % STRIDE;
    assert_true(close_world(w, fault, stays, 0));
    g_fault = fault;
    g_stays = stays;
    int bad = sweep_range(from, ops, STRIDE, sweep_one);
    print_message("%s, %s: %llu runs\n", sim_fault_word(fault), stays ? "for ever" : "once",
                  (unsigned long long)((ops - from + STRIDE - 1) / STRIDE));
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
static void a_member_that_vanishes_and_returns_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_vanish, false); }
static void a_member_that_vanishes_for_ever_costs_nothing(void **state) { (void)state; sweep(SIM_FAULT_vanish, true); }
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
            members_return(w, MEMBERS);
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
        cmocka_unit_test(a_member_that_vanishes_and_returns_costs_nothing),
        cmocka_unit_test(a_member_that_vanishes_for_ever_costs_nothing),
        cmocka_unit_test(a_write_that_takes_seconds_costs_nothing),
        cmocka_unit_test(a_fault_while_a_pool_is_created_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
