/* SPDX-License-Identifier: Apache-2.0 */
/* A half of the pool that had to go by image headers does not know what lies on the members that are away. It knows that it does not,
 * in the mounts after that one, too, which read the table it has written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#include <engine.h>

#define MESSAGES 8u
#define THESE 12u /* c and d, where the CHUNKs are */
#define BYTES (200u * 1024)

static void mounted_with(struct world *w, uint32_t mask)
{
    story_cut(w, SIM_SURVIVE_ALL);
    for (uint16_t t = 0; t < w->plan.members && !world_failed(w); t++)
        if (mask & (1u << t))
            sim_io_return(w->sim, t);
        else
            sim_io_vanish(w->sim, t);
    if (!world_failed(w))
        world_mount(w);
}

static void turns(struct world *w)
{
    uint64_t until = world_failed(w) ? 0 : io_now_ns(w->io) + UINT64_C(10) * 1000000000;
    while (!world_failed(w) && io_now_ns(w->io) < until)
        world_turn(w);
}

/* All mail whose MESSAGE is here goes, and what comes lies over what was freed. */
static void goes_on(struct world *w)
{
    turns(w);
    for (uint32_t n = 0; n < 4 && !world_failed(w); n++) {
        story_append(w, 150, 45000); /* none of it in CHUNKs */
        for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++)
            senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
        if (!world_failed(w))
            world_settle(w);
        turns(w);
    }
}

static uint32_t chunks_here(const struct world *w)
{
    uint32_t chunks = 0;
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        chunks += w->pool->segments[i].state != SEGMENT_UNUSED ? w->pool->segments[i].live_chunks : 0;
    return chunks;
}

/* Some MESSAGEs lie on two members, their CHUNKs on the two others, which have no table and are mounted alone, `times` times. */
static void chunks_outlive_a_half(uint64_t seed, uint32_t times)
{
    struct world *w = story_open(seed, 4, seed % 2 ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH);
    if (world_create_pool(w) && world_mount(w))
        story_append(w, MESSAGES, BYTES);
    uint64_t scanned = w->counts.events[EVENT_record_lost];
    for (uint32_t n = 0; n < times; n++) {
        if (n == 0) {
            story_cut(w, SIM_SURVIVE_ALL);
            story_rot(w, 2, SEGMENT_TABLE);
            story_rot(w, 3, SEGMENT_TABLE);
        }
        mounted_with(w, THESE);
        assert_true(world_failed(w) || w->pool->table_partial);
        goes_on(w);
        assert_true(world_failed(w) || chunks_here(w) > 0);
    }
    assert_int_equal(w->counts.events[EVENT_record_lost] - scanned, 1); /* the table, at the first of them only */
    mounted_with(w, 15);
    assert_true(world_failed(w) || !w->pool->table_partial);
    if (!world_failed(w))
        audit_run(w);
    mounted_with(w, 7); /* nothing is in doubt any more */
    assert_true(world_failed(w) || !w->pool->table_partial);
    mounted_with(w, 15);
    if (!world_failed(w))
        audit_run(w);
    story_close(w, "chunks of mail that lies elsewhere, seed", seed);
}

static void chunks_wait_for_who_was_away_at_the_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 700; seed < 702; seed++)
        chunks_outlive_a_half(seed, 2 + (uint32_t)(seed % 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunks_wait_for_who_was_away_at_the_scan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
