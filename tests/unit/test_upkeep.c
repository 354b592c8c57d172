/* SPDX-License-Identifier: Apache-2.0 */
/* Scrub, rebuild, evacuation: the pool gets whole again by itself, from verified bytes only. */
#include "scrub_world.h"

static void a_dead_member_is_replaced_by_free_space_elsewhere(void **state)
{
    (void)state;
    fill(300, 30000);
    pool_unmount(&w.pool);
    mount();
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    w.ram.targets[1].present = false;
    pass_seconds(60);
    assert_true(upkeep().rebuild.segments_rebuilt > 0);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    all_readable();
    memset(w.ram.bytes[1], 0x55, MEMBER_BYTES);
    crash_and_mount();
    all_readable();
    w.ram.targets[2].present = false; /* a second one: nothing lost, because the first was made up for */
    crash_and_mount();
    all_readable();
}

static void a_rebuild_takes_good_frames_from_whichever_image_has_them(void **state)
{
    (void)state;
    fill(100, 30000);
    pool_unmount(&w.pool);
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    mount();
    /* every member has bad places, each elsewhere; then one goes */
    for (uint32_t t = 1; t < 4; t++)
        for (uint64_t at = 64 * KIB + t * 8192; at + 64 * KIB < MEMBER_BYTES; at += 40960)
            w.ram.bytes[t][at + 100] ^= 1;
    scrub_start(w.pool);
    pass_seconds(60);
    assert_true(upkeep().scrub.errors_found > 0);
    w.ram.targets[0].present = false;
    pass_seconds(120);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    all_readable();
}

static void a_scrub_pass_finds_and_repairs_every_bad_place(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 60; i++)
        fill(3, 9000); /* many frames */
    pool_unmount(&w.pool);
    mount();
    turns(100);
    for (uint64_t at = 64 * KIB; at + 64 * KIB < MEMBER_BYTES; at += 4096)
        w.ram.bytes[2][at + 5] ^= 8; /* headers, payload, padding: every block */
    w.ram.bytes[2][100] ^= 1;        /* and a superblock */
    scrub_start(w.pool);
    pass_seconds(120);
    struct upkeep_status s = upkeep();
    assert_int_equal(s.scrub.passes, 1);
    assert_true(s.scrub.errors_found > 10);
    uint64_t found = s.scrub.errors_found;
    scrub_start(w.pool);
    pass_seconds(120);
    s = upkeep();
    assert_int_equal(s.scrub.passes, 2);
    assert_int_equal(s.scrub.errors_found, found); /* nothing is left to find */
    memset(w.ram.bytes[0], 0, MEMBER_BYTES);
    memset(w.ram.bytes[1], 0, MEMBER_BYTES);
    crash_and_mount();
    uint32_t good = 0;
    for (uint32_t i = 0; i < w.count; i++)
        good += read_back(&w.sent[i]) == ERR_OK;
    assert_true(good > w.count / 3); /* what had an image on this member is whole on it alone */
}

static void an_evacuated_member_ends_empty_and_can_be_removed(void **state)
{
    (void)state;
    fill(200, 30000);
    pool_unmount(&w.pool);
    mount();
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    assert_int_equal(member_remove(w.pool, "b", false), ERR_INVALID);
    assert_int_equal(member_evacuate(w.pool, "nobody"), ERR_NOT_FOUND);
    assert_int_equal(member_evacuate(w.pool, "b"), ERR_OK);
    assert_int_equal(member_remove(w.pool, "b", false), ERR_BUSY);
    pass_seconds(60);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    assert_int_equal(member_remove(w.pool, "b", false), ERR_OK);
    turns(100);
    memset(w.ram.bytes[1] + 64 * KIB, 0x77, MEMBER_BYTES - 128 * KIB);
    all_readable();
    fill(50, 30000);
    pool_unmount(&w.pool);
    mount();
    all_readable();
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_equal(s.members[1].state, MEMBER_REMOVED);
}

static uint64_t rebuilt_bytes(void)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 3; i++)
        bytes += w.pool->members[i].dispatch.bytes[IO_CLASS_REBUILD];
    return bytes;
}

/* Mail all the time, on every member, and a controller that leaves no more than the floor. */
static void mail_for(uint64_t seconds)
{
    uint64_t until = io_now_ns(&w.ram.io) + seconds * NS_PER_S;
    for (uint32_t n = 0; io_now_ns(&w.ram.io) < until; n++) {
        if (n % 4 == 0)
            assert_int_equal(append(1000), ERR_OK);
        for (uint32_t i = 0; i < 3; i++)
            w.pool->members[i].share.throttle.rate = w.pool->members[i].share.throttle.idle = 0;
        io_turn(&w.ram.io, 10000000);
        pool_step(w.pool);
    }
}

static void a_rebuild_makes_its_floor_beside_mail(void **state)
{
    (void)state;
    fill(1200, 30000);
    mail_for(5);
    assert_int_equal(member_evacuate(w.pool, "b"), ERR_OK);
    mail_for(1);
    uint64_t before = rebuilt_bytes();
    mail_for(6);
    assert_int_equal(upkeep().rebuild.state, UPKEEP_RUNNING);
    uint64_t floor = w.pool->members[0].share.floor[IO_CLASS_REBUILD];
    assert_int_equal(floor, 2 * MIB);
    assert_true(rebuilt_bytes() - before >= 2 * floor * 6 * 95 / 100); /* of its source and of its target; windows of 1 MiB */
}

static void a_suspect_member_is_a_better_place_than_none(void **state)
{
    (void)state;
    fill(200, 30000);
    w.ram.targets[0].present = false;
    pass_seconds(6);
    assert_int_equal(member_smart(w.pool, "c", true, "the drive says that it fails"), ERR_OK);
    pass_seconds(60);
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_equal(s.members[0].state, MEMBER_ABSENT);
    assert_int_equal(s.members[2].state, MEMBER_SUSPECT); /* two are left, and two copies are wanted */
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    w.ram.targets[1].present = false;
    pass_seconds(1);
    all_readable();
    w.ram.targets[1].present = true;
}

static void what_a_failed_member_holds_is_below_copies_until_it_is_made_again(void **state)
{
    (void)state;
    struct pool_status s;
    fill(200, 30000);
    w.ram.fail[1] = ERR_IO;
    w.ram.fail_kind = IO_WRITE;
    w.ram.fail_one_kind = true;
    fill(20, 30000);
    pass_seconds(1);
    pool_status(w.pool, &s);
    assert_int_equal(s.members[1].state, MEMBER_FAILED);
    assert_true(s.segments_degraded > 0);
    pass_seconds(60);
    pool_status(w.pool, &s);
    assert_int_equal(s.members[1].state, MEMBER_FAILED);
    assert_int_equal(s.segments_degraded, 0);
    memset(w.ram.bytes[1], 0x55, MEMBER_BYTES); /* "from then on the failed disk is not missed" */
    w.ram.fail[1] = ERR_OK;
    crash_and_mount();
    all_readable();
}

static void a_crash_in_a_rebuild_is_repeated_and_ends_whole(void **state)
{
    (void)state;
    fill(200, 30000);
    pool_unmount(&w.pool);
    mount();
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    w.ram.targets[3].present = false;
    for (uint32_t round = 0; round < 12; round++) {
        pass_seconds(11);
        turns(round * 7);
        crash_and_mount();
        all_readable();
    }
    pass_seconds(60);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    all_readable();
}

static int setup_five(void **state)
{
    (void)state;
    return setup_members(5);
}

static uint32_t below_copies(uint32_t members, bool there)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        const struct segment *s = &w.pool->segments[i];
        if (s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && (segment_members(s) == members) == there)
            n += segment_images_good(w.pool, s) < 2;
    }
    return n;
}

/* The newest mail, which comes first, lies on a and b only; a and c vanish, and b answers no read. */
static void b_answers_no_read(bool refuses)
{
    fill(400, 30000);
    for (uint16_t t = 2; t < 5; t++)
        w.ram.targets[t].present = false;
    crash_and_mount();
    fill(700, 30000);
    for (uint16_t t = 2; t < 5; t++)
        w.ram.targets[t].present = true;
    crash_and_mount();
    turns(100);
    w.ram.fail[1] = refuses ? ERR_IO : ERR_OK;
    w.ram.fail_kind = IO_READ;
    w.ram.fail_one_kind = true;
    w.ram.held[1] = !refuses;
    w.ram.targets[0].present = w.ram.targets[2].present = false;
    pass_seconds(8); /* until somebody talks to them */
    assert_true(below_copies(3, true) > 8); /* as many as there are places for jobs */
    assert_true(below_copies(3, false) > 0);
    pass_seconds(40); /* less than the minute after which b counts as absent */
    assert_int_equal(below_copies(3, false), 0); /* RBL-6 */
    w.ram.fail[1] = ERR_OK;
    w.ram.held[1] = false;
    pass_seconds(120);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    all_readable();
}

static void what_a_member_refuses_holds_up_no_other_segment(void **state)
{
    (void)state;
    b_answers_no_read(true);
}

static void what_a_member_does_not_answer_holds_up_no_other_segment(void **state)
{
    (void)state;
    b_answers_no_read(false);
}

static void a_segment_without_a_frame_is_nothing_to_copy(void **state)
{
    (void)state;
    struct segment *s = segment_add(w.pool, segment_next_id(w.pool), SEGMENT_MAIL);
    s->state = SEGMENT_SEALED; /* on no member at all */
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    s->length = 2 * BLOCK_BYTES;
    assert_int_equal(upkeep().rebuild.bytes_remaining, 2 * BLOCK_BYTES);
    segment_drop(w.pool, s);
}

/* Mail on two members each, group after group, so that the last two come first; of each of these one member vanishes and the other one
 * does not answer. */
static void two_members_that_do_not_answer_hold_up_no_other_segment(void **state)
{
    (void)state;
    for (uint16_t group = 0; group < 3; group++) {
        for (uint16_t t = 0; t < 7; t++)
            w.ram.targets[t].present = t / 2 == group;
        crash_and_mount();
        fill(group == 0 ? 200 : group * 600, 30000); /* the later a group, the higher its counters: it comes first */
    }
    for (uint16_t t = 0; t < 7; t++)
        w.ram.targets[t].present = true;
    crash_and_mount();
    turns(100);
    w.ram.targets[0].present = w.ram.targets[2].present = w.ram.targets[4].present = false;
    w.ram.held[3] = w.ram.held[5] = true;
    pass_seconds(8); /* until somebody talks to them */
    assert_true(below_copies(1u << 2 | 1u << 3, true) >= 8 && below_copies(1u << 4 | 1u << 5, true) >= 16); /* all places */
    assert_true(below_copies(3, true) > 0);
    pass_seconds(45); /* less than the minute after which they count as absent */
    assert_int_equal(below_copies(3, true), 0); /* RBL-6 */
    w.ram.held[3] = w.ram.held[5] = false;
    pass_seconds(180);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    all_readable();
}

static int setup_seven(void **state)
{
    (void)state;
    return setup_members(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_dead_member_is_replaced_by_free_space_elsewhere, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_rebuild_takes_good_frames_from_whichever_image_has_them, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_scrub_pass_finds_and_repairs_every_bad_place, setup, teardown),
        cmocka_unit_test_setup_teardown(an_evacuated_member_ends_empty_and_can_be_removed, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_rebuild_makes_its_floor_beside_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(a_suspect_member_is_a_better_place_than_none, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_member_refuses_holds_up_no_other_segment, setup_five, teardown),
        cmocka_unit_test_setup_teardown(what_a_member_does_not_answer_holds_up_no_other_segment, setup_five, teardown),
        cmocka_unit_test_setup_teardown(two_members_that_do_not_answer_hold_up_no_other_segment, setup_seven, teardown),
        cmocka_unit_test_setup_teardown(what_a_failed_member_holds_is_below_copies_until_it_is_made_again, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_crash_in_a_rebuild_is_repeated_and_ends_whole, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_segment_without_a_frame_is_nothing_to_copy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
