/* SPDX-License-Identifier: Apache-2.0 */
/* What ran apart is put together: members that were mounted without each other, and a segment table that nobody can read.
 * What the mount that merges has found must last: the mounts after it read a table, not the image headers. */
#include "halves.h"

#include <engine.h>
#include <spoolfs/upkeep.h>

/* Mail taken by one half alone; then the other half is mounted alone and takes mail too; then both are here. */
static void halves_that_ran_apart_are_merged(void **state)
{
    (void)state;
    for (uint64_t seed = 33; seed < 43; seed++) {
        struct world *w = story_open(seed, 2, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 3, 3000);
        for (uint16_t away = 0; away < 2 && !world_failed(w); away++) {
            story_cut(w, SIM_SURVIVE_RANDOM);
            here(w, 2u >> away);
            if (mounts(w)) /* ready although the other half has segments that are nowhere else */
                story_append(w, 3, 3000);
        }
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, 3);
        if (mounts(w))
            audit_run(w);
        lasts(w, 3);
        story_close(w, "halves, seed", seed);
    }
}

/* What image headers told is in the table from then on (REC-5). */
static void what_a_scan_of_headers_found_lasts(void **state)
{
    (void)state;
    for (uint64_t seed = 50; seed < 56; seed++) {
        struct world *w = story_open(seed, 3, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 8, 20000);
        story_cut(w, SIM_SURVIVE_ALL);
        for (uint16_t t = 0; t < 3; t++) /* no member has a table any more */
            story_rot(w, t, SEGMENT_TABLE);
        if (mounts(w))
            audit_run(w);
        lasts(w, 3);
        story_close(w, "no table, seed", seed);
    }
}

/* One member of the other half comes back before the others: what its headers show is not all that its half holds, and
 * does not make the rest dead (REC-5). */
static void one_member_of_a_half_does_not_speak_for_the_others(void **state)
{
    (void)state;
    for (uint64_t seed = 60; seed < 72; seed++) {
        struct world *w = story_open(seed, 4, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 4, 3000);
        static const uint32_t alone[] = {1, 14};
        for (uint32_t half = 0; half < 2; half++) {
            story_cut(w, SIM_SURVIVE_RANDOM);
            here(w, alone[(half + seed) % 2]);
            if (mounts(w))
                story_append(w, 60, 50000); /* several segments, on different pairs */
        }
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, seed % 3 ? 3 : 5);
        if (mounts(w))
            story_append(w, 3, 20000);
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, 15);
        if (mounts(w))
            audit_run(w);
        lasts(w, 2);
        story_close(w, "one by one, seed", seed);
    }
}

/* An open segment of members that are away is not empty: the half that is here keeps its place (REC-6). */
static void a_half_does_not_free_what_it_cannot_read(void **state)
{
    (void)state;
    for (uint64_t seed = 90; seed < 96; seed++) {
        struct world *w = story_open(seed, 3, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 6, 3000);
        for (uint32_t alone = 0; alone < 3; alone++) {
            story_cut(w, SIM_SURVIVE_RANDOM);
            here(w, 1u << alone);
            if (mounts(w))
                story_append(w, 6, 3000);
            if (!world_failed(w))
                turn_for(w, 5);
        }
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, 7);
        if (mounts(w))
            audit_run(w);
        lasts(w, 2);
        story_close(w, "each alone, seed", seed);
    }
}

static void retire_all(struct world *w)
{
    for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++)
        if (model_must_be_there(&w->model.messages[i]))
            senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    if (!world_failed(w))
        world_settle(w);
}

/* Mounted alone, `times` times: the more often, the higher its epoch. */
static void alone(struct world *w, uint32_t mask, uint32_t times)
{
    for (uint32_t n = 0; n < times && !world_failed(w); n++) {
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, mask);
        mounts(w);
    }
}

/* One half delivers everything, and frees what it lay in and then the results. The other half still has the mail; it does
 * not come back, whichever of them speaks for the pool (MRG-1). */
static void what_one_half_retired_does_not_come_back_from_the_other(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 108; seed++) {
        struct world *w = story_open(seed, 2, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 30, 30000);
        alone(w, 1, seed % 4 < 2 ? 3 : 1);
        for (uint32_t round = 0; round < 8 && !world_failed(w); round++) {
            retire_all(w);
            turn_for(w, 5);
            story_append(w, 30, 30000);
        }
        alone(w, 2, seed % 4 < 2 ? 1 : 3);
        if (!world_failed(w))
            story_append(w, 4, 3000);
        alone(w, 3, 1);
        if (!world_failed(w))
            audit_run(w);
        lasts(w, 2);
        story_close(w, "retired by one half, seed", seed);
    }
}

/* A large message is under way when a member leaves: its first CHUNKs lie on both, its MESSAGE on one. The member that left
 * is mounted alone, finds CHUNKs that no MESSAGE names, and frees them; the other half still needs them. */
static void chunks_that_the_other_half_needs_stay(void **state)
{
    (void)state;
    uint64_t acked = 0;
    for (uint32_t turns = 2; turns < 60; turns += 3) {
        struct world *w = story_open(110 + turns, 2, durable_by(turns));
        if (world_create_pool(w) && world_mount(w))
            senders_append(w, 600 * 1024, false);
        for (uint32_t n = 0; n < turns && !world_failed(w); n++)
            world_turn(w);
        sim_io_vanish(w->sim, 1);
        if (!world_failed(w))
            world_settle(w);
        acked += w->model.acked;
        alone(w, 2, turns % 2 ? 1 : 4);
        if (!world_failed(w))
            turn_for(w, 5);
        if (!world_failed(w))
            story_append(w, 60, 30000);
        alone(w, 3, 1);
        if (!world_failed(w))
            audit_run(w);
        lasts(w, 2);
        story_close(w, "member left after turn", turns);
    }
    assert_true(acked > 10);
}

/* The power goes while a large message is under way: its MESSAGE may have reached one member only. That one is away for a mount,
 * which must not take the CHUNKs for those of an append that came to nothing. */
static void chunks_wait_for_the_end_of_a_segment_on_a_member_that_is_away(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 24; run++)
        for (uint16_t away = 0; away < 3; away++) {
            struct world *w = story_open(420 + run, 3, IO_DURABLE_DSYNC);
            if (world_create_pool(w) && world_mount(w))
                story_append(w, 9, 3000);
            sim_io_set_survival(w->sim, SIM_SURVIVE_ONLY_ONE);
            w->scripted_cut = sim_io_counts(w->sim)->ops + 6 + run % 3;
            senders_append(w, 200 * 1024, false);
            world_settle(w);
            w->scripted_cut = UINT64_MAX;
            if (world_crashed(w))
                world_after_crash(w);
            else
                story_cut(w, SIM_SURVIVE_NONE);
            here(w, 7u & ~(1u << away));
            bool mounted = mounts(w);
            for (uint64_t n = 0; mounted && n < run % 12 && !world_failed(w); n++)
                world_turn(w); /* the CHUNKs' segment goes, that of the mail stays */
            story_cut(w, SIM_SURVIVE_NONE);
            here(w, 7);
            if (mounts(w))
                audit_run(w);
            story_close(w, "a large message under way, run", run);
        }
}

/* Passes of the scrub: after each the segment table is written anew, in another place. */
static void table_moves(struct world *w, uint32_t times)
{
    for (uint32_t n = 0; n < times && !world_failed(w); n++)
        world_scrub(w, io_now_ns(w->io) + UINT64_C(600) * 1000000000);
    if (!world_failed(w))
        turn_for(w, 1);
}

/* The segment table in force no longer verifies on `target`; the ones before it do. */
static void rot_newest_table(struct world *w, uint16_t target)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    uint64_t newest = 0, newest_at = 0;
    for (uint32_t slot = 0; slot < w->plan.slots; slot++) {
        uint64_t at = PLAN_SLOTS_OFFSET + slot * w->plan.segment_bytes;
        uint8_t block[BLOCK_BYTES];
        struct image_head_disk head;
        if (sim_disk_read(disk, at, BLOCK_BYTES, block) != ERR_OK)
            continue;
        memcpy(&head, block, sizeof head);
        bool table = le64_get(head.magic) == IMAGE_MAGIC && le32_get(head.kind) == SEGMENT_TABLE;
        if (table && le64_get(head.segment.counter) > newest) {
            newest = le64_get(head.segment.counter);
            newest_at = at;
        }
    }
    if (newest)
        sim_disk_rot(disk, newest_at + BLOCK_BYTES + 200, 1);
}

/* The header in a slot that is free: whose it was nobody knows then. */
static void spoil_a_header(struct world *w, uint16_t target)
{
    const struct member *m = &w->pool->members[target];
    for (uint32_t slot = 0; slot < m->slot_count; slot++) {
        if (m->slot_owner[slot] != 0)
            continue;
        sim_disk_rot(sim_io_disk(w->sim, target), PLAN_SLOTS_OFFSET + slot * w->plan.segment_bytes + 100, 1);
        return;
    }
    fail_msg("no slot is free");
}

/* The table in force is lost on every member, and the one before it, which can be read, names segments that were freed since; in
 * their slots lies other mail now. It is there, and is written over by nobody. That those segments were freed is known when all headers
 * can be read, and nobody is told of a loss; else they are named. */
static void mail_in_a_slot_used_again_outlives_the_table_that_knew_it(void **state)
{
    (void)state;
    for (uint64_t seed = 500; seed < 504; seed++) {
        struct world *w = story_open(seed, 2, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 20 + (uint32_t)seed % 4, 700 * 1024);
        table_moves(w, 2); /* the last two tables name what all that lies in */
        retire_all(w);
        if (!world_failed(w))
            turn_for(w, 10);
        story_append(w, 20, 700 * 1024);
        bool doubt = seed % 4 == 1;
        if (doubt && !world_failed(w))
            spoil_a_header(w, 1);
        story_cut(w, SIM_SURVIVE_ALL);
        for (uint16_t t = 0; t < 2; t++)
            rot_newest_table(w, t);
        uint64_t lost = w->counts.events[EVENT_record_lost], unplaced = w->counts.events[EVENT_segment_unplaced];
        if (mounts(w))
            audit_run(w);
        lost = w->counts.events[EVENT_record_lost] - lost;
        unplaced = w->counts.events[EVENT_segment_unplaced] - unplaced;
        lasts(w, 2);
        story_close(w, "an older table, seed", seed);
        assert_int_equal(lost, 1); /* the table itself */
        assert_true(doubt ? unplaced > 0 : unplaced == 0);
    }
}

/* No table of this mount after `last` verifies any more. */
static void rot_tables_after(struct world *w, struct segment_id last)
{
    for (uint16_t t = 0; t < w->plan.members && !world_failed(w); t++)
        for (uint32_t slot = 0; slot < w->plan.slots; slot++) {
            uint64_t at = PLAN_SLOTS_OFFSET + slot * w->plan.segment_bytes;
            uint8_t block[BLOCK_BYTES];
            struct image_view v;
            if (sim_disk_read(sim_io_disk(w->sim, t), at, BLOCK_BYTES, block) == ERR_OK &&
                image_head_decode(block, &v) == ERR_OK && v.kind == SEGMENT_TABLE &&
                v.segment.incarnation == last.incarnation && v.segment.counter > last.counter)
                sim_disk_rot(sim_io_disk(w->sim, t), at + BLOCK_BYTES + 200, 1);
        }
}

/* What was freed is discarded, but for tables. */
static void discard_free(struct world *w)
{
    struct prng prng = {7};
    for (uint16_t t = 0; t < w->plan.members && !world_failed(w) && w->pool; t++)
        for (uint32_t slot = 0; slot < w->plan.slots; slot++) {
            struct sim_disk *disk = sim_io_disk(w->sim, t);
            uint64_t at = PLAN_SLOTS_OFFSET + slot * w->plan.segment_bytes;
            uint8_t block[BLOCK_BYTES];
            struct image_view v;
            if (w->pool->members[t].slot_owner[slot] == 0 && sim_disk_read(disk, at, BLOCK_BYTES, block) == ERR_OK &&
                image_head_decode(block, &v) == ERR_OK && v.kind == SEGMENT_MAIL)
                sim_disk_discard(disk, at, w->plan.segment_bytes, &prng);
        }
}

static void evacuate(struct world *w, const char *name)
{
    if (world_failed(w) || !w->pool)
        return;
    assert_int_equal(member_evacuate(w->pool, name), ERR_OK);
    struct upkeep_status u;
    for (uint32_t n = 0; n < 60 && !world_failed(w); n++) {
        turn_for(w, 5);
        upkeep_status(w->pool, &u);
        if (u.rebuild.bytes_remaining == 0)
            break;
    }
    assert_int_equal(member_clear(w->pool, name), ERR_OK);
    turn_for(w, 2);
}

/* Both images of a segment were made again elsewhere since the last table that can be read, and their slots discarded: the segment is where
 * its image headers are (REC-8). */
static void mail_that_was_moved_to_other_members_outlives_the_table_that_knew_it(void **state)
{
    (void)state;
    for (uint64_t seed = 520; seed < 524; seed++) {
        struct world *w = story_open(seed, 4, durable_by(seed));
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 20, 200 * 1024);
        table_moves(w, 2);
        struct segment_id before = w->pool ? w->pool->table_id : (struct segment_id){0};
        evacuate(w, "a");
        evacuate(w, "b");
        evacuate(w, "c");
        evacuate(w, "d");
        discard_free(w);
        story_cut(w, SIM_SURVIVE_ALL);
        rot_tables_after(w, before);
        uint64_t unplaced = w->counts.events[EVENT_segment_unplaced];
        if (mounts(w))
            audit_run(w);
        unplaced = w->counts.events[EVENT_segment_unplaced] - unplaced;
        lasts(w, 2);
        story_close(w, "moved since an older table, seed", seed);
        assert_int_equal(unplaced, 0);
    }
}

static void append_until_cut(struct world *w, uint64_t at, uint32_t count, uint32_t bytes)
{
    sim_io_set_survival(w->sim, SIM_SURVIVE_NONE);
    w->scripted_cut = sim_io_counts(w->sim)->ops + at;
    for (uint32_t n = 0; n < count && !world_failed(w) && !world_crashed(w); n++)
        story_append(w, 1, bytes + n % 2 * 4 * bytes);
    w->scripted_cut = UINT64_MAX;
    if (!world_failed(w) && !world_crashed(w))
        sim_io_power_cut(w->sim);
    if (!world_failed(w))
        world_after_crash(w);
}

/* The power goes at the `at`th operation after the segment table moved, or after `one` of three left. Then `one` is mounted
 * alone and takes mail; then all are here. How many were acknowledged before the power went. */
static uint64_t one_goes_on(uint32_t moves, uint16_t one, uint64_t at, bool left)
{
    struct world *w = story_open(300 + moves, 3, durable_by(at));
    if (world_create_pool(w) && world_mount(w))
        story_append(w, 3, 3000);
    table_moves(w, moves);
    uint64_t before = w->model.acked;
    if (left)
        sim_io_vanish(w->sim, one);
    append_until_cut(w, at, left ? 8 : 40, left ? 3000 : 60000);
    uint64_t acked = w->model.acked - before;
    here(w, 1u << one);
    if (mounts(w))
        story_append(w, 3, 3000);
    story_cut(w, SIM_SURVIVE_NONE);
    here(w, 7);
    if (mounts(w))
        audit_run(w);
    lasts(w, 1);
    if (world_failed(w))
        print_message("the table moved %u times, member %u goes on%s\n", moves, one, left ? ", having left" : "");
    story_close(w, "cut at operation", at);
    return acked;
}

/* TAB-5: what members acknowledged while they were a half, or became one in that moment, is there: whether their superblocks
 * had the time to say that another left, or none had left before the power went, and whether the member that then went on
 * could read a segment table or had to go by image headers. */
static void a_half_is_known_by_its_table_not_by_what_it_says_of_others(void **state)
{
    (void)state;
    uint64_t acked = 0;
    for (uint32_t moves = 1; moves < 3; moves++)
        for (uint16_t one = 0; one < 3; one++) {
            for (uint64_t at = 1; at < 40; at += 4)
                acked += one_goes_on(moves, one, at + moves + one, true);
            for (uint64_t at = 150; at < 450; at += 100)
                acked += one_goes_on(moves, one, at + one, false);
        }
    assert_true(acked > 400);
}

/* A half delivers most of its mail and moves the rest to members that then stay away. What the other half, or the member
 * both had, still holds of it is mail, not a copy that somebody has freed (MRG-4). */
static void what_was_moved_to_members_that_are_away_stays(void **state)
{
    (void)state;
    uint64_t moved = 0;
    for (uint64_t seed = 200; seed < 204; seed++) {
        struct world *w = story_open(seed, 4, durable_by(seed));
        here(w, 15);
        if (world_create_pool(w)) {
            here(w, 3);
            if (mounts(w))
                story_append(w, 30, 30000);
        }
        model_divide(&w->model);
        model_half_begin(&w->model, 1);
        alone(w, 1, seed % 2 ? 1 : 4);
        model_half_end(&w->model);
        if (!world_failed(w))
            story_cut(w, SIM_SURVIVE_RANDOM);
        model_half_begin(&w->model, 2);
        here(w, 14);
        if (mounts(w)) {
            table_moves(w, 1); /* so that new segments are the other two's */
            for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++)
                if (i % 15 != 14)
                    senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
            world_settle(w);
            turn_for(w, 20);
        }
        static struct pool_status s;
        if (w->pool)
            pool_status(w->pool, &s);
        moved += s.segments_compacted;
        story_cut(w, SIM_SURVIVE_RANDOM);
        model_half_end(&w->model);
        model_join(&w->model);
        here(w, 3);
        if (mounts(w))
            audit_run(w);
        story_cut(w, SIM_SURVIVE_RANDOM);
        here(w, 15);
        if (mounts(w))
            audit_run(w);
        lasts(w, 1);
        story_close(w, "moved away, seed", seed);
    }
    assert_true(moved > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_that_ran_apart_are_merged),
        cmocka_unit_test(what_a_scan_of_headers_found_lasts),
        cmocka_unit_test(one_member_of_a_half_does_not_speak_for_the_others),
        cmocka_unit_test(a_half_does_not_free_what_it_cannot_read),
        cmocka_unit_test(what_one_half_retired_does_not_come_back_from_the_other),
        cmocka_unit_test(chunks_that_the_other_half_needs_stay),
        cmocka_unit_test(chunks_wait_for_the_end_of_a_segment_on_a_member_that_is_away),
        cmocka_unit_test(mail_in_a_slot_used_again_outlives_the_table_that_knew_it),
        cmocka_unit_test(mail_that_was_moved_to_other_members_outlives_the_table_that_knew_it),
        cmocka_unit_test(what_was_moved_to_members_that_are_away_stays),
        cmocka_unit_test(a_half_is_known_by_its_table_not_by_what_it_says_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
