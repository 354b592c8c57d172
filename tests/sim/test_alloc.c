/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the engine in the scripted workload refused once, and every few from there on: for a minute, and for
 * ever. Each ends in a clear error or in success; never in loss, a hang or a crash. With memory back and the pool mounted anew everything
 * promised is there. What the index allocates counts too; what the test and the simulator allocate does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "swept_memory.h"
#include "sweeping.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <world.h>

#define MEMBERS 3u
#define SEED 21u
#define STEP 7u /* of those refused for long one in so many: their neighbours fail at the next allocation anyway */
#define MINUTE_NS (UINT64_C(60) * 1000000000)

enum refusal { ONCE, A_MINUTE, FOR_EVER };

static struct world *open_world(void)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    plan_make_plain(&plan, SEED, MEMBERS, 2);
    world_make(w, &plan);
    w->verbose = getenv("SIM_VERBOSE") != NULL;
    return w;
}

static bool close_world(struct world *w, const char *what, uint64_t at)
{
    bool failed = world_failed(w);
    if (failed)
        print_message("%s at allocation %llu, seed %u: %s\n", what, (unsigned long long)at, SEED, w->failure);
    world_free(w);
    free(w);
    return !failed;
}

/* What may be said while there is no memory: that there is none, or that nothing was heard in time. An index without it
 * waits, and whoever asks waits for the index. */
static void forgive(struct world *w, enum refusal how)
{
    static const char *const answers[] = {"create: NO_MEMORY", "mount: NO_MEMORY", "mount: TIMEOUT", "(index)",
                                          "the index is not complete"};
    for (size_t i = 0; i < (how == ONCE ? 2 : how == A_MINUTE ? 3 : 5); i++)
        if (strstr(w->failure, answers[i]))
            w->failure[0] = '\0';
}

static struct world *g_world;
static uint64_t now_ns(void) { return io_now_ns(g_world->io); }

static void all_stops(struct world *w)
{
    swept_memory = (struct swept_memory){.refuse_at = UINT64_MAX};
    w->memory_short = false;
    if (w->pool || sim_io_in_flight(w->sim) > 0) {
        sim_io_power_cut(w->sim);
        world_after_crash(w);
    }
}

static const char *const refusal_words[] = {"refused once", "refused for a minute", "refused for ever"};

static bool refuse_one(uint64_t at, enum refusal how)
{
    struct world *w = g_world = open_world();
    swept_memory = (struct swept_memory){.refuse_at = at, .stays = how != ONCE, .now_ns = now_ns,
                                         .until_ns = how == A_MINUTE ? now_ns() + MINUTE_NS : 0};
    w->memory_short = true;
    script_run(w);
    forgive(w, how);
    all_stops(w);
    if (!world_failed(w) && w->counts.mounts == 0) /* nothing was promised yet, and the first disk may be half made */
        world_create_pool(w);
    if (!world_failed(w))
        script_after_cut(w);
    return close_world(w, refusal_words[how], at);
}

static uint64_t g_allocations;

static bool once(uint64_t at) { return refuse_one(at, ONCE); }
static bool a_minute(uint64_t at) { return refuse_one(at, A_MINUTE); }
static bool for_ever(uint64_t at) { return refuse_one(at, FOR_EVER); }

static int count_allocations(void **state)
{
    (void)state;
    struct world *w = open_world();
    swept_memory = (struct swept_memory){.refuse_at = UINT64_MAX};
    script_run(w);
    g_allocations = swept_memory.count;
    return close_world(w, "nothing refused", 0) && g_allocations > 1000 ? 0 : -1;
}

static void an_allocation_refused_once_costs_nothing(void **state)
{
    (void)state;
    assert_int_equal(sweep_range(0, g_allocations, 1, once), 0);
}

/* Longer than any deadline of the engine; then it goes on where it stood, without a restart. */
static void without_memory_for_a_minute_it_goes_on_afterwards(void **state)
{
    (void)state;
    assert_int_equal(sweep_range(3, g_allocations, STEP, a_minute), 0);
}

static void allocations_refused_for_ever_lose_nothing(void **state)
{
    (void)state;
    assert_int_equal(sweep_range(0, g_allocations, STEP, for_ever), 0);
}

int main(int argc, char **argv)
{
    if (argc == 3) /* test_alloc 0|1|2 N: one run, to look at */
        return refuse_one(strtoull(argv[2], NULL, 10), (enum refusal)(argv[1][0] - '0')) ? 0 : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allocation_refused_once_costs_nothing),
        cmocka_unit_test(without_memory_for_a_minute_it_goes_on_afterwards),
        cmocka_unit_test(allocations_refused_for_ever_lose_nothing),
    };
    return cmocka_run_group_tests(tests, count_allocations, NULL);
}
