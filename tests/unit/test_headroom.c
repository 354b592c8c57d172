/* SPDX-License-Identifier: Apache-2.0 */
/* Headroom: how much live mail survives the loss of any one failure domain. Members are made up; nothing is mounted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <upkeep_parts.h>

#include <cmocka.h>

#define SLOTS 100u
#define CAPACITY (SLOTS * SEGMENT_BYTES_MIN)
#define NEAR(a, b) assert_in_range(a, (b) - BLOCK_BYTES, (b) + BLOCK_BYTES)

static struct pool *p;

static int setup(void **state)
{
    (void)state;
    p = calloc(1, sizeof *p);
    p->config.copies = 2;
    p->config.min_copies = 1;
    p->slot_bytes = SEGMENT_BYTES_MIN;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(p);
    return 0;
}

static struct member *add(const char *domain, uint32_t slots, enum member_state state)
{
    uint32_t i = 0;
    while (p->members[i].used)
        i++;
    struct member *m = &p->members[i];
    *m = (struct member){.pool = p, .number = (uint8_t)i, .used = true, .present = true, .state = state,
                         .slot_count = slots, .slot_bytes = SEGMENT_BYTES_MIN};
    snprintf(m->domain, sizeof m->domain, "%s", domain);
    return m;
}

static void three_equal_members_hold_one_members_worth(void **state)
{
    (void)state;
    for (char d = 'a'; d <= 'c'; d++)
        add((char[]){d, 0}, SLOTS, MEMBER_HEALTHY);
    NEAR(headroom_bytes(p, 0), CAPACITY);
    NEAR(headroom_bytes(p, CAPACITY / 4), CAPACITY * 3 / 4);
    assert_int_equal(headroom_bytes(p, CAPACITY + MIB), 0);
    assert_true(headroom_counts(p));
}

static void no_more_domains_than_copies_have_none_and_refuse_nothing(void **state)
{
    (void)state;
    add("a", SLOTS, MEMBER_HEALTHY);
    add("b", SLOTS, MEMBER_HEALTHY);
    assert_int_equal(headroom_bytes(p, 0), 0);
    assert_false(headroom_counts(p));
    add("b", SLOTS, MEMBER_HEALTHY); /* a third disk in a domain that is there */
    assert_int_equal(headroom_bytes(p, 0), 0);
    assert_false(headroom_counts(p));
}

static void what_shares_a_domain_is_lost_together_and_counts_once(void **state)
{
    (void)state;
    add("shelf", SLOTS, MEMBER_HEALTHY);
    add("shelf", SLOTS, MEMBER_HEALTHY);
    add("c", SLOTS, MEMBER_HEALTHY);
    add("d", SLOTS / 2, MEMBER_HEALTHY);
    /* without the shelf: c and d, 150 slots for two images each, at most 50 of each message's in d */
    NEAR(headroom_bytes(p, 0), CAPACITY / 2);
    p->config.copies = 3;
    assert_int_equal(headroom_bytes(p, 0), 0);
}

static void the_largest_member_is_the_loss_that_decides(void **state)
{
    (void)state;
    add("a", SLOTS * 10, MEMBER_HEALTHY);
    add("b", SLOTS, MEMBER_HEALTHY);
    add("c", SLOTS, MEMBER_HEALTHY);
    NEAR(headroom_bytes(p, 0), CAPACITY);
}

static void a_spare_counts_after_a_loss_and_not_before(void **state)
{
    (void)state;
    add("a", SLOTS, MEMBER_HEALTHY);
    add("b", SLOTS, MEMBER_HEALTHY);
    add("s", SLOTS * 10, MEMBER_SPARE);
    NEAR(headroom_bytes(p, 0), CAPACITY);
    assert_true(headroom_counts(p));
    p->members[1].state = MEMBER_ABSENT;
    p->members[1].present = false;
    assert_false(headroom_counts(p));
}

static void a_pool_that_lost_a_member_refuses_nothing_for_it(void **state)
{
    (void)state;
    for (char d = 'a'; d <= 'd'; d++)
        add((char[]){d, 0}, SLOTS, MEMBER_HEALTHY);
    assert_true(headroom_counts(p));
    p->members[3].state = MEMBER_FAILED;
    assert_false(headroom_counts(p));
    p->members[3].removed = true; /* gone for good: the three are whole */
    assert_true(headroom_counts(p));
}

/* Slots new mail may have; what else is free is the reserve. */
static void leave(struct member *m, uint32_t slots) { m->slots_free = slot_reserve(m, SPOOL_NEW_MAIL) + slots; }

static void what_is_free_in_one_domain_takes_one_image_of_each_segment(void **state)
{
    (void)state;
    struct member *a = add("shelf", SLOTS, MEMBER_HEALTHY), *b = add("shelf", SLOTS, MEMBER_HEALTHY),
                  *c = add("c", SLOTS, MEMBER_HEALTHY);
    leave(a, 10);
    leave(b, 20);
    leave(c, 0);
    assert_int_equal(headroom_segments(p, 2), 0); /* no segment has both images on one shelf */
    assert_int_equal(headroom_segments(p, 1), 30);
    leave(c, 7);
    assert_int_equal(headroom_segments(p, 2), 7);
    leave(c, 40);
    assert_int_equal(headroom_segments(p, 2), 30);
    leave(add("d", SLOTS, MEMBER_SPARE), 50); /* takes none before it is called up */
    assert_int_equal(headroom_segments(p, 2), 30);
    snprintf(b->domain, sizeof b->domain, "b");
    assert_int_equal(headroom_segments(p, 2), 30);
    leave(c, 0);
    assert_int_equal(headroom_segments(p, 2), 10);
}

static void members_that_may_share_a_disk_are_domains_of_their_own_unless_named(void **state)
{
    (void)state;
    p->config.share_disk = true;
    struct member *a = add("x", SLOTS, MEMBER_HEALTHY), *b = add("x", SLOTS, MEMBER_HEALTHY);
    leave(a, 10);
    leave(b, 20);
    assert_int_equal(headroom_segments(p, 2), 10);
    a->domain_named = true;
    assert_int_equal(headroom_segments(p, 2), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(three_equal_members_hold_one_members_worth),
        TEST(no_more_domains_than_copies_have_none_and_refuse_nothing),
        TEST(what_shares_a_domain_is_lost_together_and_counts_once),
        TEST(the_largest_member_is_the_loss_that_decides),
        TEST(a_spare_counts_after_a_loss_and_not_before),
        TEST(a_pool_that_lost_a_member_refuses_nothing_for_it),
        TEST(what_is_free_in_one_domain_takes_one_image_of_each_segment),
        TEST(members_that_may_share_a_disk_are_domains_of_their_own_unless_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
