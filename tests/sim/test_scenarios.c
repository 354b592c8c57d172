/* SPDX-License-Identifier: Apache-2.0 */
/* Stories that once broke a promise, told step by step, and the seeds that found others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#include <base/assert.h>
#include <engine.h>
#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void turns(struct world *w, uint64_t seconds)
{
    uint64_t until = io_now_ns(w->io) + seconds * UINT64_C(1000000000);
    while (!world_failed(w) && !world_crashed(w) && io_now_ns(w->io) < until)
        world_turn(w);
}

static uint64_t operations_of_a_mount(uint32_t members)
{
    struct world *w = story_open(31, members, IO_DURABLE_DSYNC);
    uint64_t before = script_created_at(w);
    assert_true(world_mount(w));
    uint64_t ops = sim_io_counts(w->sim)->ops - before;
    story_close(w, "mount", 0);
    return ops;
}

/* A mount that dies at that operation, or was over before it and loses its power then. */
static void mount_and_die(struct world *w, uint64_t at)
{
    w->scripted_cut = at;
    bool mounted = !world_failed(w) && world_mount(w);
    w->scripted_cut = UINT64_MAX;
    if (mounted)
        story_cut(w, SIM_SURVIVE_RANDOM);
    else if (world_crashed(w))
        world_after_crash(w);
}

/* A mount dies while the superblocks are written: some members carry its epoch and table, some do not. One of them is
 * then away, the others mount under the same epoch number and take mail; it comes back. */
static void two_mounts_with_one_epoch_number_lose_nothing(void **state)
{
    (void)state;
    uint64_t ops = operations_of_a_mount(3);
    for (uint64_t at = 0; at < ops; at++)
        for (uint16_t away = 0; away < 3; away++) {
            struct world *w = story_open(31, 3, IO_DURABLE_DSYNC);
            mount_and_die(w, script_created_at(w) + at);
            sim_io_vanish(w->sim, away);
            if (!world_failed(w) && world_mount(w))
                story_append(w, 4, 3000);
            story_cut(w, SIM_SURVIVE_NONE);
            sim_io_return(w->sim, away);
            if (!world_failed(w) && world_mount(w))
                audit_run(w);
            story_close(w, "cut at operation of the first mount", at);
        }
}

/* The segments that a mount lists. */
struct listed { struct segment_id ids[256]; uint32_t count; };

static void list_segments(const struct world *w, struct listed *l)
{
    l->count = 0;
    for (uint32_t i = 0; w->pool && i < w->pool->segment_used; i++)
        if (w->pool->segments[i].state != SEGMENT_UNUSED && l->count < 256)
            l->ids[l->count++] = w->pool->segments[i].id;
}

static bool lists(const struct listed *l, struct segment_id id)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (segment_id_equal(l->ids[i], id))
            return true;
    return false;
}

static void deliver_all_and_fill(struct world *w, uint32_t times)
{
    for (uint32_t n = 0; n < times && !world_failed(w); n++) {
        for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++)
            if (model_must_be_there(&w->model.messages[i]))
                senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
        if (!world_failed(w))
            world_settle(w);
        turns(w, 5);
        story_append(w, 40, 30000);
    }
}

/* A mount dies before it opens a segment, and one member only may have been told of it. That one is away while the others deliver all
 * mail and write over it; then it is here, and another one is not: it brings no segment back (MRG-1). */
static void a_mount_that_died_young_brings_nothing_back(void **state)
{
    (void)state;
    static struct listed before, now;
    uint64_t ops = operations_of_a_mount(3);
    for (uint64_t at = 0; at < ops; at += 2)
        for (uint16_t away = 0; away < 3; away++) {
            struct world *w = story_open(31, 3, IO_DURABLE_DSYNC);
            if (world_create_pool(w) && world_mount(w))
                story_append(w, 40, 30000);
            story_cut(w, SIM_SURVIVE_ALL);
            mount_and_die(w, sim_io_counts(w->sim)->ops + at);
            sim_io_vanish(w->sim, away);
            if (!world_failed(w) && world_mount(w))
                deliver_all_and_fill(w, 4);
            list_segments(w, &before);
            story_cut(w, SIM_SURVIVE_ALL);
            sim_io_return(w->sim, away);
            sim_io_vanish(w->sim, (uint16_t)((away + 1) % 3));
            if (!world_failed(w) && world_mount(w)) {
                audit_run(w);
                list_segments(w, &now);
                for (uint32_t i = 0; i < now.count; i++)
                    if (now.ids[i].incarnation != w->pool->incarnation && !lists(&before, now.ids[i]))
                        world_fail(w, "a segment that was freed is back");
            }
            story_close(w, "a mount that died at operation", at);
        }
}

/* kill -9 leaves frames in the drives' caches only. Recovery shows them: then they must survive the next power cut. */
static void what_recovery_showed_survives_the_next_power_cut(void **state)
{
    (void)state;
    struct world *w = story_open(32, 3, IO_DURABLE_DSYNC);
    uint64_t created = script_created_at(w);
    story_close(w, "create", 0);
    w = story_open(32, 3, IO_DURABLE_DSYNC);
    script_run(w);
    uint64_t ops = sim_io_counts(w->sim)->ops;
    story_close(w, "undisturbed", 0);
    for (uint64_t at = created; at < ops; at += 5) {
        w = story_open(32, 3, IO_DURABLE_DSYNC);
        w->scripted_cut = at;
        w->scripted_kill = true;
        script_run(w);
        script_after_cut(w);
        story_cut(w, SIM_SURVIVE_NONE);
        script_after_cut(w);
        story_close(w, "killed at operation", at);
    }
}

/* The first write to `target` takes longer than a mount waits. */
struct late_write { uint16_t target; uint64_t before; bool over; }; /* before: so many are in time */

static void delay_first_write(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct late_write *late = owner;
    (void)index;
    if (late->over || op->kind != IO_WRITE || op->target != late->target)
        return;
    if (late->before-- > 0)
        return;
    late->over = true;
    *fate = (struct sim_fate){.fault = SIM_FAULT_late, .delay_ns = UINT64_C(12) * 1000000000};
}

/* Recovery heals a frame, the member does not answer, the mount goes on without it (MEM-3): nobody reads there before
 * that write is over. */
static void a_write_that_a_mount_gave_up_on_is_left_alone(void **state)
{
    (void)state;
    for (uint16_t target = 0; target < 3; target++) {
        struct world *w = story_open(44, 3, IO_DURABLE_DSYNC);
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 8, 30 * 1024); /* too full to be compacted at once */
        sim_io_kill(w->sim);
        world_after_crash(w);
        story_rot(w, target, SEGMENT_MAIL);
        struct late_write late = {.target = target};
        sim_io_on_submit(w->sim, &late, delay_first_write);
        if (!world_failed(w))
            world_mount(w);
        for (uint32_t pass = 0; pass < 20 && !world_failed(w); pass++) {
            scrub_start(w->pool);
            uint64_t until = io_now_ns(w->io) + UINT64_C(1000000000);
            while (!world_failed(w) && io_now_ns(w->io) < until)
                world_turn(w);
        }
        if (!world_failed(w))
            audit_run(w);
        story_close(w, "late member", target);
    }
}

/* Three segments in which little is left, just before compaction begins with them, those with the least first; what is moved
 * before the last one is enough to keep the segment that takes the copies. */
static const uint32_t moved_last[] = {50, 60};

static struct world *compaction_under_way(uint64_t seed)
{
    static const uint32_t stay[] = {0, 20, 50, 60, 100};
    struct world *w = story_open(seed, 2, IO_DURABLE_DSYNC);
    w->plan.index_kept = true;
    kept_init(w);
    if (world_create_pool(w) && world_mount(w))
        story_append(w, 125, 20000);
    for (uint32_t i = 0, next = 0; i < 125 && !world_failed(w); i++)
        if (next < 5 && i == stay[next])
            next++;
        else
            senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    if (!world_failed(w))
        world_settle(w);
    return w;
}

/* A crash leaves a frame of copies on one member only; the other goes on alone, moves the same mail again and retires it. What the
 * first one brings back was never acknowledged, and nothing in the index speaks of it any more (REC-7). */
static void copies_of_a_member_that_was_away_bring_nothing_back(void **state)
{
    (void)state;
    for (uint64_t nth = 0; nth < 20; nth++)
        for (uint16_t away = 0; away < 2; away++) {
            struct world *w = compaction_under_way(45);
            struct late_write late = {.target = (uint16_t)(1 - away), .before = nth};
            sim_io_on_submit(w->sim, &late, delay_first_write);
            for (uint64_t until = io_now_ns(w->io) + UINT64_C(10000000000); io_now_ns(w->io) < until && !late.over;)
                world_turn(w);
            late.over = true;
            world_turn(w); /* the other member answers */
            story_cut(w, SIM_SURVIVE_NONE);
            sim_io_vanish(w->sim, away);
            if (!world_failed(w) && world_mount(w))
                turns(w, 10);
            for (uint32_t i = 0; i < 2 && !world_failed(w); i++)
                senders_visit(w, &w->model.messages[moved_last[i]], VISIT_RETIRE);
            if (!world_failed(w))
                world_settle(w);
            turns(w, 6); /* the index has synced what it knows */
            story_cut(w, SIM_SURVIVE_ALL);
            sim_io_return(w->sim, away);
            if (!world_failed(w) && world_mount(w))
                audit_run(w);
            story_close(w, "late write", nth);
        }
}

/* Seeds that broke a promise once. The run behind a seed changes with the engine and the plan: they stay because they
 * were near something. */
static void seeds_that_found_something_hold(void **state)
{
    (void)state;
    static const struct { enum plan_level level; uint64_t seed; const char *what; } found[] = {
        {PLAN_REALISTIC, 4, "a discard met a late write"},
        {PLAN_REALISTIC, 12, "frames in volatile caches were served and then lost"},
        {PLAN_CRUEL, 35, "results were freed before the mail they are about"},
        {PLAN_CRUEL, 88, "the same, at the end of a replay"},
        {PLAN_CRUEL, 24, "segments of results filled the pool"},
        {PLAN_CRUEL, 26, "a segment on an absent member held the index"},
        {PLAN_CRUEL, 102, "a late write of a mount outlived it"},
        {PLAN_CRUEL, 103, "one slow member failed a mount"},
        {PLAN_CRUEL, 205, "the same"},
        {PLAN_REALISTIC, 1023, "copies out of a live segment went with their results"},
        {PLAN_REALISTIC, 1116, "a stale copy outlived the retirement"},
        {PLAN_CRUEL, 1164, "a read given up at mount met a write"},
        {PLAN_CRUEL, 1210, "two mounts had one epoch number"},
        {PLAN_CRUEL, 1233, "one bad sector was read a hundred thousand times"},
        {PLAN_CRUEL, 90019, "a scrub met a write that a mount had given up on"},
    };
    for (uint32_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        struct world *w = calloc(1, sizeof *w);
        ASSERT(w != NULL);
        struct plan plan;
        plan_make(&plan, found[i].seed, found[i].level, 1000);
        plan.index_kept = false; /* in the world they were found in */
        plan.halves_percent = 0;
        world_make(w, &plan);
        w->verbose = getenv("SIM_VERBOSE") != NULL;
        world_run(w);
        story_close(w, found[i].what, found[i].seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_mounts_with_one_epoch_number_lose_nothing),
        cmocka_unit_test(a_mount_that_died_young_brings_nothing_back),
        cmocka_unit_test(what_recovery_showed_survives_the_next_power_cut),
        cmocka_unit_test(a_write_that_a_mount_gave_up_on_is_left_alone),
        cmocka_unit_test(copies_of_a_member_that_was_away_bring_nothing_back),
        cmocka_unit_test(seeds_that_found_something_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
