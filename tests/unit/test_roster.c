/* SPDX-License-Identifier: Apache-2.0 */
/* Members that join, take another's place, leave and stand by: over crashes, by identity, never by position. */
#include "spool_world.h"

#include <spoolfs/upkeep.h>

static void setup_some_of_six(uint32_t members)
{
    setup_members(members);
    for (uint32_t t = members; t < 6; t++) { /* disks beside the pool */
        w.ram.bytes[t] = calloc(1, MEMBER_BYTES);
        w.ram.targets[t] = w.ram.targets[0];
        snprintf(w.ram.targets[t].domain, sizeof w.ram.targets[t].domain, "disk:ram%u", t);
    }
    w.ram.count = 6;
}

static int setup_three_of_six(void **state)
{
    (void)state;
    setup_some_of_six(3);
    return 0;
}

static int setup_two_of_six(void **state)
{
    (void)state;
    setup_some_of_six(2);
    return 0;
}

static const struct pool_status *status(void)
{
    static struct pool_status s;
    pool_status(w.pool, &s);
    return &s;
}

static const struct pool_member_status *member(const char *name)
{
    const struct pool_status *s = status();
    for (uint32_t i = 0; i < s->member_count; i++)
        if (strcmp(s->members[i].name, name) == 0)
            return &s->members[i];
    fail_msg("no member %s", name);
    return NULL;
}

static void configure(uint16_t target, const char *name, bool spare)
{
    struct pool_member_config *c = &w.config.members[target];
    *c = (struct pool_member_config){.spare = spare};
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->path, sizeof c->path, "/ram/%u", target);
    w.config.member_count = target + 1u > w.config.member_count ? target + 1u : w.config.member_count;
}

static enum err format(uint16_t target, const char *name, bool spare, struct uuid replaces)
{
    configure(target, name, spare);
    struct pool_candidate c = {.pool = w.uuid, .replaces = replaces, .segment_bytes = SEGMENT, .copies = 2,
                               .member = w.config.members[target]};
    struct pool_create_options o = {0};
    const char *text;
    return pool_format_candidate(&w.ram.io, target, &c, &o, &text);
}

static struct uuid nobody(void)
{
    return (struct uuid){0};
}

static void remember_digests(void)
{
    for (uint32_t i = 0; i < w.count; i++)
        if (w.sent[i].digest.lo == 0)
            w.sent[i].digest = digest_at(&w.sent[i]);
}

static void remount(void)
{
    pool_unmount(&w.pool);
    mount();
}

static void rebuilt(void)
{
    struct upkeep_status s;
    for (uint32_t n = 0; n < 100; n++) {
        pass_seconds(2);
        upkeep_status(w.pool, &s);
        if (s.rebuild.bytes_remaining == 0)
            return;
    }
    fail_msg("%llu bytes are not rebuilt", (unsigned long long)s.rebuild.bytes_remaining);
}

static void a_formatted_member_joins_at_the_next_mount_under_a_higher_epoch(void **state)
{
    (void)state;
    fill(50, 20000);
    uint64_t epoch = status()->epoch;
    assert_int_equal(format(3, "d", false, nobody()), ERR_OK);
    assert_int_equal(status()->member_count, 3);
    remount();
    assert_int_equal(status()->member_count, 4);
    assert_true(status()->epoch > epoch);
    assert_int_equal(member("d")->state, MEMBER_HEALTHY);
    all_readable();
    fill(300, 30000);
    assert_true(member("d")->bytes_used > 0);
    crash_and_mount();
    assert_int_equal(status()->member_count, 4);
    all_readable();
    w.ram.targets[0].present = false; /* it holds its share */
    crash_and_mount();
    all_readable();
}

static void a_crash_while_it_joins_leaves_the_old_pool_or_the_new_one(void **state)
{
    (void)state;
    fill(20, 20000);
    assert_int_equal(format(3, "d", false, nobody()), ERR_OK);
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    for (uint32_t kept = 0; kept < 4; kept++) { /* superblocks of some members are as they were before the join */
        static uint8_t head[4][64 * KIB], tail[4][64 * KIB];
        for (uint32_t t = 0; t < 4; t++) {
            memcpy(head[t], w.ram.bytes[t], 64 * KIB);
            memcpy(tail[t], w.ram.bytes[t] + MEMBER_BYTES - 64 * KIB, 64 * KIB);
        }
        mount();
        assert_int_equal(status()->member_count, 4);
        all_readable();
        ram_io_forget(&w.ram);
        pool_abandon(&w.pool);
        if (kept == 3)
            break;
        for (uint32_t t = 0; t < 4; t++) {
            if (t == kept)
                continue;
            memcpy(w.ram.bytes[t], head[t], 64 * KIB);
            memcpy(w.ram.bytes[t] + MEMBER_BYTES - 64 * KIB, tail[t], 64 * KIB);
        }
    }
    mount();
    assert_int_equal(status()->member_count, 4);
    all_readable();
}

static void a_candidate_alone_is_no_pool(void **state)
{
    (void)state;
    fill(5, 2000);
    assert_int_equal(format(3, "d", false, nobody()), ERR_OK);
    pool_unmount(&w.pool);
    for (uint32_t t = 0; t < 3; t++)
        w.ram.targets[t].present = false;
    const char *text;
    assert_int_equal(pool_mount(&w.ram.io, &w.config, &w.pool, &text), ERR_NOT_FOUND);
    for (uint32_t t = 0; t < 3; t++)
        w.ram.targets[t].present = true;
    mount();
    all_readable();
}

static void a_candidate_that_does_not_fit_is_left_alone(void **state)
{
    (void)state;
    fill(5, 2000);
    w.ram.targets[3].bytes = 20 * SEGMENT; /* fewer slots than a member has at least */
    assert_int_equal(format(3, "d", false, nobody()), ERR_INVALID);
    w.ram.targets[3].bytes = MEMBER_BYTES;
    struct pool_candidate c = {.pool = w.uuid, .segment_bytes = SEGMENT_BYTES_MIN, .copies = 2};
    struct pool_create_options o = {0};
    const char *text;
    configure(3, "d", false);
    c.member = w.config.members[3];
    assert_int_equal(pool_format_candidate(&w.ram.io, 3, &c, &o, &text), ERR_OK);
    remount();
    assert_int_equal(status()->member_count, 3);
    all_readable();
}

static void a_dead_member_is_replaced_and_removed_when_nothing_needs_it(void **state)
{
    (void)state;
    fill(200, 30000);
    remount();
    remember_digests();
    struct uuid old = member("b")->uuid;
    w.ram.targets[1].present = false;
    crash_and_mount(); /* segments of before this crash are unproved on the dead member */
    assert_int_equal(format(3, "b", false, old), ERR_OK);
    remount();
    assert_int_equal(member("b")->state, MEMBER_HEALTHY);
    assert_int_equal(member("b.old")->state, MEMBER_ABSENT);
    crash_and_mount(); /* the plan survives */
    rebuilt();
    pass_seconds(60);
    assert_int_equal(member("b.old")->state, MEMBER_REMOVED);
    all_readable();
    w.ram.targets[1].present = true; /* it comes back and is refused */
    crash_and_mount();
    assert_int_equal(member("b.old")->state, MEMBER_REMOVED);
    assert_int_equal(member("b")->state, MEMBER_HEALTHY);
    w.ram.targets[0].present = false;
    crash_and_mount();
    all_readable();
}

static void a_working_member_is_replaced_without_losing_a_copy_on_the_way(void **state)
{
    (void)state;
    fill(200, 30000);
    remount();
    remember_digests();
    assert_int_equal(format(3, "d", false, member("a")->uuid), ERR_OK);
    remount();
    assert_int_equal(member("a")->state, MEMBER_EVACUATING);
    all_readable();
    rebuilt();
    pass_seconds(30);
    assert_int_equal(member("a")->state, MEMBER_REMOVED);
    memset(w.ram.bytes[0], 0x11, MEMBER_BYTES);
    all_readable();
}

static void an_evacuation_and_a_leaving_survive_a_crash(void **state)
{
    (void)state;
    fill(200, 30000);
    remount();
    remember_digests();
    assert_int_equal(member_evacuate(w.pool, "b"), ERR_OK);
    rebuild_pause(w.pool, true);
    pass_seconds(1);
    crash_and_mount();
    rebuild_pause(w.pool, true);
    assert_int_equal(member("b")->state, MEMBER_EVACUATING);
    assert_int_equal(member_remove(w.pool, "b", false), ERR_BUSY);
    assert_int_equal(member_remove(w.pool, "b", true), ERR_OK);
    pass_seconds(1);
    assert_true(members_settled(w.pool));
    crash_and_mount();
    rebuilt();
    pass_seconds(30);
    assert_int_equal(member("b")->state, MEMBER_REMOVED);
    all_readable();
    crash_and_mount();
    assert_int_equal(member("b")->state, MEMBER_REMOVED);
    assert_int_equal(member_clear(w.pool, "b"), ERR_NOT_FOUND);
}

static void an_evacuating_member_serves_when_nobody_else_is_left(void **state)
{
    (void)state;
    fill(100, 30000);
    remount();
    remember_digests();
    assert_int_equal(member_evacuate(w.pool, "b"), ERR_OK);
    pass_seconds(1);
    w.ram.targets[0].present = w.ram.targets[2].present = false;
    crash_and_mount();
    assert_int_equal(member("b")->state, MEMBER_HEALTHY);
    fill(10, 2000);
}

static void a_spare_holds_nothing_until_a_member_is_lost_and_then_takes_its_place(void **state)
{
    (void)state;
    w.config.spare_after_ns = UINT64_C(20000000000);
    assert_int_equal(format(3, "s", true, nobody()), ERR_OK);
    assert_int_equal(format(4, "t", true, nobody()), ERR_OK);
    remount();
    assert_int_equal(member("s")->state, MEMBER_SPARE);
    fill(300, 30000);
    pass_seconds(40);
    assert_int_equal(member("s")->bytes_used, 0);
    assert_int_equal(status()->state, POOL_HEALTHY);
    remount();
    remember_digests();
    w.ram.targets[1].present = false;
    pass_seconds(10);
    assert_int_equal(member("b")->state, MEMBER_ABSENT);
    assert_int_equal(member("s")->state, MEMBER_SPARE);
    pass_seconds(20);
    assert_int_equal(member("s")->state, MEMBER_HEALTHY);
    assert_int_equal(member("t")->state, MEMBER_SPARE); /* one for one */
    rebuilt();
    crash_and_mount();
    pass_seconds(60);
    assert_int_equal(member("s")->state, MEMBER_HEALTHY);
    assert_int_equal(member("t")->state, MEMBER_SPARE);
    all_readable();
    w.ram.targets[0].present = false;
    pass_seconds(60);
    assert_int_equal(member("t")->state, MEMBER_HEALTHY);
    rebuilt();
    all_readable();
}

static void a_spare_that_dies_is_no_spare_and_one_that_is_cleared_serves(void **state)
{
    (void)state;
    assert_int_equal(format(3, "s", true, nobody()), ERR_OK);
    assert_int_equal(format(4, "t", true, nobody()), ERR_OK);
    remount();
    w.ram.targets[3].present = false;
    pass_seconds(20);
    assert_int_equal(member("s")->state, MEMBER_ABSENT);
    assert_int_equal(member("t")->state, MEMBER_SPARE); /* nobody takes the place of a spare */
    assert_int_equal(member_clear(w.pool, "t"), ERR_OK);
    assert_int_equal(member("t")->state, MEMBER_HEALTHY);
    pass_seconds(1);
    assert_true(members_settled(w.pool));
    crash_and_mount();
    assert_int_equal(member("t")->state, MEMBER_HEALTHY);
    fill(100, 30000);
    all_readable();
}

/* ROS-6 */
static void a_spare_serves_when_who_was_lost_is_removed_before_it_was_due(void **state)
{
    (void)state;
    w.config.spare_after_ns = UINT64_C(3600000000000);
    w.ram.targets[1].present = false;
    assert_int_equal(format(2, "s", true, member("b")->uuid), ERR_OK);
    assert_int_equal(format(3, "t", true, nobody()), ERR_OK);
    snprintf(w.config.members[1].name, sizeof w.config.members[1].name, "b.old");
    crash_and_mount();
    assert_int_equal(member("s")->state, MEMBER_SPARE); /* whoever is lost may come back */
    pass_seconds(20);
    assert_int_equal(member("b")->state, MEMBER_REMOVED);
    assert_int_equal(member("s")->state, MEMBER_HEALTHY);
    assert_int_equal(member("t")->state, MEMBER_SPARE); /* there are as many as copies */
    fill(100, 30000);
    crash_and_mount();
    assert_int_equal(member("s")->state, MEMBER_HEALTHY);
    assert_int_equal(member("t")->state, MEMBER_SPARE);
    w.ram.targets[0].present = false;
    crash_and_mount();
    all_readable();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_three_of_six, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_formatted_member_joins_at_the_next_mount_under_a_higher_epoch),
        TEST(a_crash_while_it_joins_leaves_the_old_pool_or_the_new_one),
        TEST(a_candidate_alone_is_no_pool),
        TEST(a_candidate_that_does_not_fit_is_left_alone),
        TEST(a_dead_member_is_replaced_and_removed_when_nothing_needs_it),
        TEST(a_working_member_is_replaced_without_losing_a_copy_on_the_way),
        TEST(an_evacuation_and_a_leaving_survive_a_crash),
        TEST(an_evacuating_member_serves_when_nobody_else_is_left),
        TEST(a_spare_holds_nothing_until_a_member_is_lost_and_then_takes_its_place),
        TEST(a_spare_that_dies_is_no_spare_and_one_that_is_cleared_serves),
        cmocka_unit_test_setup_teardown(a_spare_serves_when_who_was_lost_is_removed_before_it_was_due, setup_two_of_six, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
