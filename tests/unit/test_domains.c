/* SPDX-License-Identifier: Apache-2.0 */
/* Failure domains that are named, or change, when mail is there already: two images in one count once, one of them is made again
 * elsewhere, and where there is no elsewhere nothing is copied. */
#include "spool_world.h"

#include <engine.h>
#include <spoolfs/upkeep.h>

static int setup_four(void **state)
{
    (void)state;
    return setup_members(4);
}

static int setup_three_copies_of_six(void **state)
{
    (void)state;
    setup_members(6);
    w.config.copies = 3;
    pool_unmount(&w.pool);
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    const char *text;
    assert_int_equal(pool_create(&w.ram.io, &w.config, &o, &w.uuid, &text), ERR_OK);
    mount();
    return 0;
}

static void name_domain(uint32_t target, const char *domain)
{
    snprintf(w.config.members[target].domain, sizeof w.config.members[target].domain, "%s", domain);
}

static void remount(void)
{
    pool_unmount(&w.pool);
    mount();
}

static struct pool_status status(void)
{
    struct pool_status s;
    pool_status(w.pool, &s);
    return s;
}

static struct upkeep_status upkeep(void)
{
    struct upkeep_status s;
    upkeep_status(w.pool, &s);
    return s;
}

static void rebuilt(void)
{
    for (uint32_t n = 0; n < 100 && upkeep().rebuild.bytes_remaining > 0; n++)
        pass_seconds(2);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
}

/* Segments with an image on each of `members`. */
static uint32_t held_by_all(uint32_t members)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        const struct segment *s = &w.pool->segments[i];
        n += s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && (segment_members(s) & members) == members;
    }
    return n;
}

/* What the index would say of each segment: there is none in this world. */
static void all_hold_mail(void)
{
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        if (w.pool->segments[i].kind == SEGMENT_MAIL)
            w.pool->segments[i].live_messages = w.pool->segments[i].state != SEGMENT_UNUSED;
}

static uint32_t images_of_mail(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        const struct segment *s = &w.pool->segments[i];
        n += s->state != SEGMENT_UNUSED && s->kind == SEGMENT_MAIL ? s->image_count : 0;
    }
    return n;
}

static void know_all(void)
{
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
}

/* Members a and b are gone for good; nothing is made again before the mail is asked for. */
static void the_shelf_of_a_and_b_dies(void)
{
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    w.ram.targets[0].present = w.ram.targets[1].present = false;
    mount();
    rebuild_pause(w.pool, true);
    all_readable();
}

static void a_domain_named_later_holds_for_the_mail_that_is_there(void **state)
{
    (void)state;
    fill(400, 30000);
    know_all();
    remount();
    assert_true(held_by_all(3) > 0);
    assert_int_equal(status().state, POOL_HEALTHY);
    assert_false(status().domains_wanting);
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    remount();
    rebuild_pause(w.pool, true);
    uint32_t twins = held_by_all(3), images = images_of_mail();
    all_hold_mail();
    assert_int_equal(status().segments_degraded, twins);
    assert_int_equal(status().messages_below_copies, twins);
    assert_int_equal(upkeep().rebuild.messages_remaining, twins);
    assert_int_equal(status().state, POOL_AT_RISK);
    assert_non_null(strstr(status().action, "rebuild status"));
    pass_seconds(5);
    assert_int_equal(held_by_all(3), twins);
    rebuild_pause(w.pool, false);
    rebuilt();
    assert_int_equal(held_by_all(3), 0);
    assert_int_equal(images_of_mail(), images); /* the other image is given up */
    assert_int_equal(upkeep().rebuild.segments_rebuilt, twins);
    assert_int_equal(status().messages_below_copies, 0);
    assert_int_equal(status().state, POOL_HEALTHY);
    all_readable();
    pass_seconds(30);
    assert_int_equal(upkeep().rebuild.segments_rebuilt, twins);
    the_shelf_of_a_and_b_dies();
}

static void a_crash_while_images_leave_a_shared_domain_loses_nothing(void **state)
{
    (void)state;
    fill(400, 30000);
    know_all();
    remount();
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    for (uint32_t round = 1; round <= 6; round++) {
        crash_and_mount();
        turns(round * 9);
        all_readable();
    }
    crash_and_mount();
    rebuilt();
    assert_int_equal(held_by_all(3), 0);
    the_shelf_of_a_and_b_dies();
}

static void a_slot_that_was_given_up_takes_new_mail(void **state)
{
    (void)state;
    fill(400, 30000);
    know_all();
    remount();
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    crash_and_mount();
    for (uint32_t n = 0; n < 10; n++) {
        fill(40, 30000);
        know_all();
        pass_seconds(2);
        all_readable();
    }
    remount();
    rebuilt();
    assert_int_equal(held_by_all(3), 0);
    all_readable();
    the_shelf_of_a_and_b_dies();
}

static void without_another_domain_nothing_is_copied(void **state)
{
    (void)state;
    fill(300, 30000);
    know_all();
    remount();
    for (uint32_t i = 0; i < 4; i++)
        name_domain(i, "shelf");
    remount();
    all_hold_mail();
    uint32_t images = images_of_mail();
    assert_int_equal(status().state, POOL_AT_RISK);
    assert_non_null(strstr(status().action, "member add"));
    assert_int_equal(status().messages_below_copies, status().segments);
    assert_true(status().domains_wanting);
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        w.pool->segments[i].live_messages = 0;
    assert_false(status().lacks_domains); /* an empty queue makes no pool of it that was made so */
    pass_seconds(120);
    assert_int_equal(upkeep().rebuild.bytes_rebuilt, 0);
    assert_int_equal(images_of_mail(), images); /* what survives the loss of a disk stays */
    w.ram.targets[0].present = false;
    crash_and_mount();
    all_readable();
    w.ram.targets[0].present = true;
    for (uint32_t i = 0; i < 4; i++)
        name_domain(i, i < 2 ? "shelf" : "other");
    crash_and_mount();
    rebuilt();
    assert_int_equal(held_by_all(3) + held_by_all(12), 0);
    all_readable();
    the_shelf_of_a_and_b_dies();
}

static void a_domain_that_is_named_back_ends_it(void **state)
{
    (void)state;
    fill(300, 30000);
    know_all();
    remount();
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    remount();
    rebuild_pause(w.pool, true);
    assert_true(status().segments_degraded > 0);
    name_domain(1, "other");
    remount();
    assert_int_equal(status().segments_degraded, 0);
    assert_int_equal(status().state, POOL_HEALTHY);
    pass_seconds(20);
    assert_int_equal(upkeep().rebuild.segments_rebuilt, 0);
    all_readable();
}

static void where_disks_may_be_shared_only_a_named_domain_counts(void **state)
{
    (void)state;
    fill(300, 30000);
    w.config.share_disk = true;
    for (uint32_t i = 0; i < 4; i++)
        snprintf(w.ram.targets[i].domain, sizeof w.ram.targets[i].domain, "disk:one");
    remount();
    assert_int_equal(status().segments_degraded, 0);
    assert_int_equal(status().state, POOL_HEALTHY);
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    remount();
    assert_int_equal(status().segments_degraded, held_by_all(3));
    rebuilt();
    assert_int_equal(held_by_all(3), 0);
    all_readable();
}

static void of_three_copies_each_goes_to_a_domain_of_its_own(void **state)
{
    (void)state;
    fill(300, 30000);
    know_all();
    remount();
    for (uint32_t i = 0; i < 6; i++)
        name_domain(i, i < 2 ? "left" : i < 4 ? "middle" : "right");
    remount();
    rebuilt();
    assert_int_equal(held_by_all(3) + held_by_all(12) + held_by_all(48), 0);
    assert_int_equal(status().messages_below_copies, 0);
    w.ram.targets[2].present = w.ram.targets[3].present = false;
    the_shelf_of_a_and_b_dies();
}

/* Leaving costs no domain: an image is not spared because two others, which share one, are enough by number. */
static void a_member_that_leaves_is_not_spared_for_two_that_share_a_domain(void **state)
{
    (void)state;
    fill(300, 30000);
    know_all();
    pool_unmount(&w.pool);
    w.config.copies = 2;
    name_domain(0, "shelf");
    name_domain(1, "shelf");
    mount();
    uint32_t thirds = held_by_all(7);
    assert_true(thirds > 0);
    rebuild_pause(w.pool, true);
    assert_int_equal(member_remove(w.pool, "c", true), ERR_OK);
    pass_seconds(10);
    assert_int_equal(held_by_all(7), thirds);
    rebuild_pause(w.pool, false);
    rebuilt();
    pass_seconds(30);
    assert_int_equal(held_by_all(4), 0);
    assert_int_equal(status().segments_degraded, 0);
    the_shelf_of_a_and_b_dies();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_four, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_domain_named_later_holds_for_the_mail_that_is_there),
        TEST(a_crash_while_images_leave_a_shared_domain_loses_nothing),
        TEST(a_slot_that_was_given_up_takes_new_mail),
        TEST(without_another_domain_nothing_is_copied),
        TEST(a_domain_that_is_named_back_ends_it),
        TEST(where_disks_may_be_shared_only_a_named_domain_counts),
        cmocka_unit_test_setup_teardown(of_three_copies_each_goes_to_a_domain_of_its_own, setup_three_copies_of_six, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_leaves_is_not_spared_for_two_that_share_a_domain, setup_three_copies_of_six,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
