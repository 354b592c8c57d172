/* SPDX-License-Identifier: Apache-2.0 */
/* P1 and P2 under power cuts at every operation of the scripted workload (script.c): afterwards everything that was
 * acknowledged is there byte for byte, what was not is there whole or not at all, nothing retired is back - also with
 * any one member gone, also when the power goes again during recovery. */
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

static struct world *open_world(uint64_t seed, uint32_t members)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    plan_make_plain(&plan, seed, members, 2);
    world_make(w, &plan);
    w->verbose = getenv("SIM_VERBOSE") != NULL;
    return w;
}

static void close_world(struct world *w, const char *what, uint64_t cut)
{
    bool failed = world_failed(w);
    if (failed)
        print_message("%s, cut at operation %llu, seed %llu: %s\n", what, (unsigned long long)cut,
                      (unsigned long long)w->plan.seed, w->failure);
    world_free(w);
    free(w);
    if (failed)
        fail();
}

/* How many operations the undisturbed script submits; the first behind pool_create. */
static uint64_t script_length(uint64_t seed, uint32_t members, uint64_t *created_out)
{
    struct world *w = open_world(seed, members);
    *created_out = script_created_at(w);
    close_world(w, "create", 0);
    w = open_world(seed, members);
    script_run(w);
    uint64_t ops = sim_io_counts(w->sim)->ops;
    close_world(w, "undisturbed", 0);
    assert_true(ops > *created_out);
    return ops;
}

/* The script with the power going at one operation, up to the moment the disks are dark. */
static struct world *cut_world(uint64_t seed, uint32_t members, uint64_t cut, enum sim_survival survival, bool kill)
{
    struct world *w = open_world(seed, members);
    sim_io_set_survival(w->sim, survival);
    w->scripted_cut = cut;
    w->scripted_kill = kill;
    script_run(w);
    if (world_crashed(w))
        world_after_crash(w);
    return w;
}

static void cut_everywhere(uint64_t seed, uint32_t members, uint32_t step, bool kill, bool absent)
{
    uint64_t created, ops = script_length(seed, members, &created);
    uint64_t cuts = 0;
    for (uint64_t cut = created; cut < ops; cut += step) {
        enum sim_survival survival = cut % 2 ? SIM_SURVIVE_RANDOM : (enum sim_survival)(cut / 2 % SIM_SURVIVE_COUNT);
        struct world *w = cut_world(seed, members, cut, survival, kill);
        cuts += w->counts.crashes;
        if (absent && !world_failed(w))
            audit_copy(w, 1u << (cut % members));
        script_after_cut(w);
        close_world(w, "power cut", cut);
    }
    print_message("%llu operations, %llu cuts\n", (unsigned long long)ops, (unsigned long long)cuts);
    assert_true(cuts > (ops - created) / step * 9 / 10);
}

static void the_undisturbed_script_meets_every_kind_of_work(void **state)
{
    (void)state;
    struct world *w = open_world(1, MEMBERS);
    script_run(w);
    static struct pool_status s;
    assert_string_equal(w->failure, "");
    pool_status(w->pool, &s);
    assert_true(w->counts.large >= 2 && w->counts.bounces > 0 && w->counts.marks > 0 && w->counts.states > 0);
    assert_true(w->counts.retires > 20);
    assert_true(w->counts.compacted + s.segments_compacted > 0);
    assert_int_equal(s.messages_below_copies, 0);
    assert_true(audit_run(w));
    for (uint32_t t = 0; t < MEMBERS; t++)
        audit_copy(w, 1u << t);
    close_world(w, "undisturbed", 0);
}

static void a_power_cut_at_any_operation_loses_nothing_even_with_one_member_less(void **state)
{
    (void)state;
    cut_everywhere(1, MEMBERS, 1, false, true);
}

static void a_power_cut_on_two_members_loses_nothing(void **state)
{
    (void)state;
    cut_everywhere(2, 2, 3, false, false);
}

static void a_killed_process_loses_nothing(void **state)
{
    (void)state;
    cut_everywhere(3, MEMBERS, 3, true, false);
}

static void a_power_cut_during_recovery_changes_nothing(void **state)
{
    (void)state;
    uint64_t created, ops = script_length(4, MEMBERS, &created), inside = 0;
    for (uint64_t cut = created; cut < ops; cut += 41) {
        bool over = false;
        for (uint64_t later = 0; !over; later += 3) { /* the later-th operation of the mount */
            struct world *w = cut_world(4, MEMBERS, cut, SIM_SURVIVE_RANDOM, false);
            over = world_failed(w) || w->pool;
            if (!over) {
                w->scripted_cut = sim_io_counts(w->sim)->ops + later;
                over = world_mount(w) || world_failed(w);
                inside += !over;
            }
            script_after_cut(w);
            close_world(w, "power cut during recovery", cut);
        }
    }
    print_message("%llu power cuts during recovery\n", (unsigned long long)inside);
    assert_true(inside > 100);
}

static void recovery_twice_shows_the_same_messages(void **state)
{
    (void)state;
    uint64_t created, ops = script_length(5, MEMBERS, &created);
    for (uint64_t cut = created; cut < ops; cut += 17) {
        struct world *w = cut_world(5, MEMBERS, cut, SIM_SURVIVE_RANDOM, false);
        for (uint32_t n = 0; n < 3 && !world_failed(w); n++) {
            script_after_cut(w);
            if (!world_failed(w)) {
                sim_io_power_cut(w->sim);
                world_after_crash(w);
            }
        }
        close_world(w, "recovery again", cut);
    }
}

static void a_power_cut_while_a_pool_is_created_leaves_one_that_can_be_created(void **state)
{
    (void)state;
    uint64_t created, ops = script_length(6, 2, &created);
    assert_true(created < ops);
    for (uint64_t cut = 0; cut < created; cut++) {
        struct world *w = cut_world(6, 2, cut, SIM_SURVIVE_RANDOM, false);
        w->scripted_cut = UINT64_MAX;
        if (!world_failed(w))
            script_run(w);
        close_world(w, "create", cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_undisturbed_script_meets_every_kind_of_work),
        cmocka_unit_test(a_power_cut_at_any_operation_loses_nothing_even_with_one_member_less),
        cmocka_unit_test(a_power_cut_on_two_members_loses_nothing),
        cmocka_unit_test(a_killed_process_loses_nothing),
        cmocka_unit_test(a_power_cut_during_recovery_changes_nothing),
        cmocka_unit_test(recovery_twice_shows_the_same_messages),
        cmocka_unit_test(a_power_cut_while_a_pool_is_created_leaves_one_that_can_be_created),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
