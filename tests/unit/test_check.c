/* SPDX-License-Identifier: Apache-2.0 */
/* The offline check tells what is lost from what waits for a member that is away. */
#include "spool_world.h"

#include "engine.h"

static struct {
    uint32_t lost, waiting;
    char member[MEMBER_NAME_BYTES];
    struct uuid uuid;
} found;

static void on_finding(void *owner, const struct pool_check_finding *f)
{
    (void)owner;
    found.lost += f->lost;
    if (f->waits_count == 0)
        return;
    assert_false(f->lost);
    assert_int_equal(f->fault, ERR_MEMBER_GONE);
    assert_int_equal(f->waits_count, 1);
    found.waiting++;
    snprintf(found.member, sizeof found.member, "%s", f->waits_for[0].member);
    found.uuid = f->waits_for[0].uuid;
}

static int setup_two(void **state)
{
    (void)state;
    return setup_members(2);
}

static enum err check(struct pool_check_totals *totals)
{
    memset(&found, 0, sizeof found);
    w.config.read_only = true;
    mount();
    enum err e = pool_check(w.pool, NULL, on_finding, totals);
    assert_int_equal(totals->lost, found.lost);
    assert_int_equal(totals->waits, found.waiting);
    return e;
}

static void spoil(uint32_t member, const struct sent *s)
{
    uint64_t at = 64 * KIB;
    while (at + SEGMENT <= MEMBER_BYTES &&
           memcmp(w.ram.bytes[member] + at + s->record.place.frame + s->record.place.record + 80, s->envelope, 64) != 0)
        at += SEGMENT;
    assert_true(at + SEGMENT <= MEMBER_BYTES);
    w.ram.bytes[member][at + s->record.place.frame + s->record.place.record + 80] ^= 1;
}

static void what_is_bad_here_waits_for_the_member_that_is_away(void **state)
{
    (void)state;
    fill(20, 3000);
    struct uuid b = w.pool->members[1].uuid;
    pool_unmount(&w.pool);
    spoil(0, &w.sent[3]);
    w.ram.targets[1].present = false;
    struct pool_check_totals totals;
    assert_int_equal(check(&totals), ERR_CORRUPT); /* not ERR_LOST */
    assert_int_equal(totals.lost, 0);
    assert_int_equal(totals.waits, 1);
    assert_string_equal(found.member, "b");
    assert_true(uuid_equal(found.uuid, b));
    pool_unmount(&w.pool);
    w.ram.targets[1].present = true; /* it is back: it has a good copy */
    assert_int_equal(check(&totals), ERR_CORRUPT);
    assert_int_equal(totals.lost + totals.waits, 0);
}

static void what_is_bad_on_all_is_lost(void **state)
{
    (void)state;
    fill(20, 3000);
    pool_unmount(&w.pool);
    spoil(0, &w.sent[3]);
    spoil(1, &w.sent[3]);
    struct pool_check_totals totals;
    assert_int_equal(check(&totals), ERR_LOST);
    assert_int_equal(totals.lost, 1);
    assert_int_equal(totals.waits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_bad_here_waits_for_the_member_that_is_away, setup_two, teardown),
        cmocka_unit_test_setup_teardown(what_is_bad_on_all_is_lost, setup_two, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
