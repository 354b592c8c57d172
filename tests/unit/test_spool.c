/* SPDX-License-Identifier: Apache-2.0 */
/* The door for mail over the smallest world: what is acknowledged is there, whatever happens to one member. */
#include "spool_world.h"

static void an_append_is_acknowledged_and_reads_back(void **state)
{
    (void)state;
    assert_int_equal(append(4000), ERR_OK);
    settle(1);
    assert_true(w.sent[0].answered);
    assert_int_equal(w.sent[0].e, ERR_OK);
    assert_int_equal(read_back(&w.sent[0]), ERR_OK);
}

static void many_appends_over_many_segments_survive_a_crash(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 400; i++) {
        assert_int_equal(append(20000 + i), ERR_OK);
        if (i % 7 == 0)
            turn();
    }
    settle(5);
    assert_int_equal(count_ok(), 400);
    all_readable();
    crash_and_mount();
    all_readable();
    crash_and_mount();
    all_readable();
    pool_unmount(&w.pool);
    mount();
    all_readable();
}

static void a_member_that_fails_a_write_costs_no_append(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(append(5000), ERR_OK);
    w.ram.fail[1] = ERR_IO;
    w.ram.fail_kind = IO_WRITE;
    w.ram.fail_one_kind = true;
    settle(5);
    assert_int_equal(count_ok(), 50);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(5);
    assert_int_equal(count_ok(), 100);
    all_readable();
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_not_equal(s.state, POOL_HEALTHY);
}

static void a_member_that_does_not_answer_is_left_behind(void **state)
{
    (void)state;
    append(100);
    settle(1);
    w.ram.held[0] = true;
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(6);
    assert_int_equal(count_ok(), 21);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(6);
    assert_int_equal(count_ok(), 41);
    w.ram.held[0] = false;
    for (uint32_t i = 0; i < 100; i++)
        turn();
    all_readable();
    crash_and_mount();
    all_readable();
}

static void below_min_copies_new_mail_is_refused_and_nothing_hangs(void **state)
{
    (void)state;
    pool_unmount(&w.pool);
    w.config.min_copies = 2;
    mount();
    append(100);
    settle(1);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(append(5000), ERR_OK);
    w.ram.targets[0].present = w.ram.targets[1].present = false;
    settle(30);
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.sent[i].answered);
    assert_int_equal(append(100), ERR_BELOW_POLICY);
    w.ram.targets[0].present = w.ram.targets[1].present = true;
    crash_and_mount();
    all_readable();
}

static void a_full_pool_refuses_and_keeps_what_it_has(void **state)
{
    (void)state;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < 3000 && e == ERR_OK; i++) {
        e = append(60000);
        if (e == ERR_BUSY) {
            turn();
            e = ERR_OK;
        }
    }
    settle(10);
    assert_int_equal(e, ERR_FULL);
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.sent[i].answered);
    all_readable();
    crash_and_mount();
    all_readable();
    assert_int_equal(append(60000), ERR_FULL);
}

static void chunks_and_small_mail_lie_in_segments_of_their_own(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(i % 4 ? append_chunk(65536) : append(2000), ERR_OK);
        turn();
    }
    settle(5);
    assert_int_equal(count_ok(), 40);
    for (uint32_t i = 0; i < 40; i += 4)
        for (uint32_t k = 0; k < 40; k++)
            assert_true(k % 4 == 0 || !segment_id_equal(w.sent[i].record.place.segment, w.sent[k].record.place.segment));
}

static void a_pool_full_of_chunks_refuses_and_takes_what_fits(void **state)
{
    (void)state;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < 4000 && e == ERR_OK; i++) {
        e = append_chunk(65000);
        if (e == ERR_BUSY) {
            turn();
            e = ERR_OK;
        }
    }
    settle(10);
    assert_int_equal(e, ERR_FULL);
    uint64_t bytes = (uint64_t)count_ok() * 65000, slots = (uint64_t)40 * 3 / 2 * SEGMENT;
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.sent[i].answered && (w.sent[i].e == ERR_OK || w.sent[i].e == ERR_FULL));
    assert_true(bytes > slots * 3 / 4); /* reserves, the segment table and the ends of segments take the rest */
    crash_and_mount();
    assert_int_equal(append_chunk(65000), ERR_FULL);
}

static void slow_members_get_one_place_for_chunks_and_mail(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) { /* every write takes 5 ms by the clock of this world */
        for (uint32_t m = 0; m < 3; m++)
            w.ram.held[m] = true;
        assert_int_equal(append(2000), ERR_OK);
        for (uint32_t n = 0; n < 12; n++)
            turn();
        for (uint32_t m = 0; m < 3; m++)
            w.ram.held[m] = false;
        settle(5);
    }
    uint32_t first = w.count;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(i % 2 ? append_chunk(65000) : append(2000), ERR_OK);
    settle(5);
    for (uint32_t i = 1; i < 4; i++)
        assert_true(segment_id_equal(w.sent[first].record.place.segment, w.sent[first + i].record.place.segment));
}

static void one_damaged_member_is_read_around_and_repaired(void **state)
{
    (void)state;
    fill(60, 30000);
    pool_unmount(&w.pool);
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    for (uint64_t at = 64 * KIB; at < MEMBER_BYTES - 64 * KIB; at += 8192)
        w.ram.bytes[2][at + 17] ^= 0x40;
    mount();
    all_readable();
    for (uint32_t i = 0; i < 400; i++)
        turn();
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_true(s.members[2].errors_checksum > 0);
    assert_true(s.members[2].repaired_blocks > 0);
}

static void members_are_known_by_identity_when_swapped(void **state)
{
    (void)state;
    fill(60, 30000);
    pool_unmount(&w.pool);
    uint8_t *b = w.ram.bytes[0];
    w.ram.bytes[0] = w.ram.bytes[1];
    w.ram.bytes[1] = b;
    mount();
    all_readable();
}

static void a_lost_superblock_and_a_lost_member_leave_the_mail(void **state)
{
    (void)state;
    fill(60, 30000);
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    memset(w.ram.bytes[0], 0xaa, MEMBER_BYTES);
    memset(w.ram.bytes[1], 0, 3 * 16384 / 2);
    mount();
    all_readable();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_append_is_acknowledged_and_reads_back, setup, teardown),
        cmocka_unit_test_setup_teardown(many_appends_over_many_segments_survive_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_fails_a_write_costs_no_append, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_does_not_answer_is_left_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(below_min_copies_new_mail_is_refused_and_nothing_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pool_refuses_and_keeps_what_it_has, setup, teardown),
        cmocka_unit_test_setup_teardown(chunks_and_small_mail_lie_in_segments_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_full_of_chunks_refuses_and_takes_what_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_members_get_one_place_for_chunks_and_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(one_damaged_member_is_read_around_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(members_are_known_by_identity_when_swapped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_superblock_and_a_lost_member_leave_the_mail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
