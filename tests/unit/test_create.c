/* SPDX-License-Identifier: Apache-2.0 */
/* Which members make a pool: several disks of one shelf do, two members on one disk do not, and the images of a message lie in
 * different failure domains whatever these are called. */
#include "spool_world.h"

static const char *text;

static int setup_disks(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    ram_io_open(&w.ram, 4, MEMBER_BYTES);
    w.config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000), .member_count = 4,
                                    .sink = {.emit = on_event}};
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(w.ram.targets[i].domain, sizeof w.ram.targets[i].domain, "disk:%u", i);
        snprintf(w.config.members[i].name, sizeof w.config.members[i].name, "%c", 'a' + (int)i);
        snprintf(w.config.members[i].path, sizeof w.config.members[i].path, "/ram/%u", i);
    }
    return 0;
}

static void in_domains(const char *a, const char *b, const char *c, const char *d)
{
    const char *names[] = {a, b, c, d};
    for (uint32_t i = 0; i < 4; i++)
        snprintf(w.config.members[i].domain, sizeof w.config.members[i].domain, "%s", names[i]);
}

static enum err create(void)
{
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    return pool_create(&w.ram.io, &w.config, &o, &w.uuid, &text);
}

static void each_shelf_may_go(void)
{
    in_domains("shelf-1", "shelf-1", "shelf-2", "shelf-2");
    assert_int_equal(create(), ERR_OK);
    mount();
    fill(200, 50000);
    w.ram.targets[0].present = w.ram.targets[1].present = false; /* a shelf loses its power */
    settle(1);
    all_readable();
    w.ram.targets[0].present = w.ram.targets[1].present = true;
    pool_unmount(&w.pool);
    mount();
    w.ram.targets[2].present = w.ram.targets[3].present = false;
    settle(1);
    all_readable();
    w.ram.targets[2].present = w.ram.targets[3].present = true;
}

static void disks_of_one_shelf_make_a_pool_and_no_message_lies_on_one_shelf(void **state)
{
    (void)state;
    each_shelf_may_go();
}

static void shelves_count_where_disks_may_be_shared(void **state)
{
    (void)state;
    w.config.share_disk = true;
    for (uint32_t i = 0; i < 4; i++)
        snprintf(w.ram.targets[i].domain, sizeof w.ram.targets[i].domain, "disk:0");
    each_shelf_may_go();
}

static void as_many_domains_as_copies_are_enough_and_one_less_is_not(void **state)
{
    (void)state;
    w.config.copies = 3;
    in_domains("x", "x", "y", "y");
    assert_int_equal(create(), ERR_SAME_DISK);
    assert_non_null(strstr(text, "4 members lie in 2 failure domains, and each of 3 copies"));
    in_domains("x", "x", "y", "");
    assert_int_equal(create(), ERR_OK);
    w.config.copies = 2;
    in_domains("x", "x", "x", "x");
    assert_int_equal(create(), ERR_SAME_DISK);
    assert_non_null(strstr(text, "4 members lie in 1 failure domain,"));
    w.config.share_disk = true;
    assert_int_equal(create(), ERR_SAME_DISK);
    assert_non_null(strstr(text, "share_disk = yes makes a domain of each member that names none"));
    in_domains("x", "x", "x", "");
    assert_int_equal(create(), ERR_OK);
}

static void a_spare_makes_no_failure_domain(void **state)
{
    (void)state;
    in_domains("x", "x", "x", "y");
    w.config.members[3].spare = true;
    assert_int_equal(create(), ERR_SAME_DISK);
    w.config.members[3].spare = false;
    assert_int_equal(create(), ERR_OK);
}

static void two_members_on_one_disk_are_refused_by_name(void **state)
{
    (void)state;
    snprintf(w.ram.targets[2].domain, sizeof w.ram.targets[2].domain, "disk:1");
    assert_int_equal(create(), ERR_SAME_DISK);
    assert_non_null(strstr(text, "\"b\" and \"c\" lie on one disk (disk:1)"));
    in_domains("", "shelf", "shelf", "");
    assert_int_equal(create(), ERR_SAME_DISK);
    w.config.share_disk = true;
    assert_int_equal(create(), ERR_OK);
    w.config.share_disk = false;
    in_domains("", "left", "right", ""); /* disks that share a serial: the operator knows better */
    assert_int_equal(create(), ERR_OK);
}

static void disks_nobody_knows_may_be_one(void **state)
{
    (void)state;
    w.ram.targets[0].domain[0] = w.ram.targets[1].domain[0] = '\0';
    in_domains("shelf", "shelf", "", "");
    assert_int_equal(create(), ERR_SAME_DISK);
    in_domains("left", "right", "", "");
    assert_int_equal(create(), ERR_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_disks, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disks_of_one_shelf_make_a_pool_and_no_message_lies_on_one_shelf),
        TEST(shelves_count_where_disks_may_be_shared),
        TEST(as_many_domains_as_copies_are_enough_and_one_less_is_not),
        TEST(a_spare_makes_no_failure_domain),
        TEST(two_members_on_one_disk_are_refused_by_name),
        TEST(disks_nobody_knows_may_be_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
