/* SPDX-License-Identifier: Apache-2.0 */
/* EVI-2, RBL-8: what is known to be bad or missing in an image counts as missing, over restarts, and ends by itself: filled when somebody
 * has it, made again elsewhere when the place stays bad. There is no index in this world: each segment stands for one message. */
#include "scrub_world.h"

#include "upkeep_parts.h"

#define GONE 3u
#define C 2u
#define HURT_MAX 8u

static const struct pool_status *status(void)
{
    static struct pool_status s;
    for (uint32_t i = 0; i < w.pool->segment_used; i++) /* what the index would say */
        if (w.pool->segments[i].kind == SEGMENT_MAIL)
            w.pool->segments[i].live_messages = w.pool->segments[i].state != SEGMENT_UNUSED;
    pool_status(w.pool, &s);
    return &s;
}

static uint64_t record_at(const struct sent *s, const struct image *image)
{
    return segment_image_offset(w.pool, image) + s->record.place.frame + s->record.place.record;
}

static bool unreadable(uint32_t target, uint64_t from, uint64_t to)
{
    bool bad = false;
    for (uint32_t i = 0; i < RAM_BAD_MAX; i++)
        bad = bad || (w.ram.bad[i].used && w.ram.bad[i].target == target && w.ram.bad[i].offset < to &&
                      w.ram.bad[i].offset + BLOCK_BYTES > from);
    return bad;
}

/* What is true of the bytes, whatever the pool believes. */
static bool in_fact_below(const struct sent *s)
{
    const struct segment *segment = segment_find(w.pool, s->record.place.segment);
    uint32_t good = 0;
    assert_non_null(segment);
    for (uint32_t i = 0; i < segment->image_count; i++) {
        uint8_t m = segment->images[i].member;
        uint64_t at = record_at(s, &segment->images[i]);
        const uint8_t *r = w.ram.bytes[m] + at;
        good += w.ram.targets[m].present && !unreadable(m, at, at + s->record.place.length) &&
                digest_equal(digest_of(r + 16, s->record.place.length - 16), s->digest);
    }
    return good < 2;
}

static uint32_t below_in_fact(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.count; i++)
        n += in_fact_below(&w.sent[i]);
    return n;
}

/* The number may be up too long, never down too early. */
static void says_so_if_anything_is_below(void)
{
    if (below_in_fact() == 0)
        return;
    assert_true(status()->messages_below_copies > 0);
    assert_true(status()->segments_degraded > 0);
    assert_int_not_equal(status()->state, POOL_HEALTHY);
}

static void watched_for(uint32_t seconds)
{
    for (uint32_t n = 0; n < seconds * 4; n++) {
        uint64_t until = io_now_ns(&w.ram.io) + 250 * NS_PER_MS;
        while (io_now_ns(&w.ram.io) < until)
            turn();
        says_so_if_anything_is_below();
    }
}

static void remount(void)
{
    pool_unmount(&w.pool);
    mount();
}

static void fill_and_know(void)
{
    for (uint32_t i = 0; i < 60; i++)
        fill(8, 30000); /* frames of a quarter of a MiB */
    remount();
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    turns(200);
    assert_int_equal(below_in_fact(), 0);
    assert_int_equal(status()->messages_below_copies, 0);
}

/* Blocks of mail that C and `other` share cannot be read on C, each of another frame. */
static uint32_t hurt_c_where(uint32_t other, bool stays)
{
    uint32_t hurt = 0;
    uint64_t last = 0;
    for (uint32_t i = 0; i < w.count && hurt < HURT_MAX; i++) {
        const struct segment *s = segment_find(w.pool, w.sent[i].record.place.segment);
        if (segment_members(s) != (1u << C | 1u << other))
            continue;
        uint64_t at = record_at(&w.sent[i], &s->images[s->images[0].member == C ? 0 : 1]) + 9000;
        if (hurt > 0 && at < last + FRAME_BYTES_MAX / 2 && at + FRAME_BYTES_MAX / 2 > last)
            continue;
        ram_io_make_bad(&w.ram, C, at, stays);
        last = at;
        hurt++;
    }
    assert_true(hurt > 1);
    return hurt;
}

static void checked_clean(void)
{
    struct pool_check_totals totals;
    pool_unmount(&w.pool);
    w.config.read_only = true;
    mount();
    assert_int_equal(pool_check(w.pool, NULL, NULL, &totals), ERR_OK);
    assert_int_equal(totals.faults, 0);
    w.config.read_only = false;
    remount();
}

/* The only source of what it held is a member that cannot read all of it. */
static void rebuilt_with_holes(void)
{
    fill_and_know();
    hurt_c_where(GONE, false);
    w.ram.targets[GONE].present = false;
    pass_seconds(8); /* until somebody talks to it */
    watched_for(60);
    assert_int_equal(upkeep().rebuild.state, UPKEEP_IDLE);
    assert_true(upkeep().rebuild.segments_rebuilt > 0);
    assert_true(below_in_fact() > 0);
}

static void an_image_made_with_holes_does_not_count_until_they_are_filled(void **state)
{
    (void)state;
    rebuilt_with_holes();
    uint64_t below = status()->messages_below_copies;
    assert_true(below < status()->messages); /* what is whole does count */
    w.ram.targets[GONE].present = true;
    remount();
    assert_int_equal(status()->messages_below_copies, below); /* nobody has looked yet, and it is known */
    watched_for(60);
    assert_int_equal(below_in_fact(), 0);
    assert_int_equal(status()->messages_below_copies, 0);
    assert_int_equal(status()->state, POOL_HEALTHY);
    crash_and_mount(); /* the table says so */
    assert_int_equal(status()->messages_below_copies, 0);
    checked_clean();
    assert_int_equal(status()->messages_below_copies, 0);
    all_readable();
}

static void holes_are_known_over_crashes_while_nobody_can_fill_them(void **state)
{
    (void)state;
    rebuilt_with_holes();
    for (uint32_t n = 0; n < 4; n++) {
        crash_and_mount();
        says_so_if_anything_is_below();
        watched_for(n * 3);
    }
    assert_true(below_in_fact() > 0);
    w.ram.targets[GONE].present = true;
    crash_and_mount();
    watched_for(60);
    assert_int_equal(below_in_fact(), 0);
    assert_int_equal(status()->messages_below_copies, 0);
    checked_clean();
}

/* One that leaves is not let go while it alone has what another lacks. */
static void what_fills_a_hole_is_kept_until_it_has(void **state)
{
    (void)state;
    rebuilt_with_holes();
    w.ram.targets[GONE].present = true;
    remount();
    assert_int_equal(member_remove(w.pool, "d", true), ERR_OK);
    watched_for(90);
    assert_int_equal(below_in_fact(), 0);
    assert_int_equal(status()->messages_below_copies, 0);
    assert_int_equal(status()->members[GONE].state, MEMBER_REMOVED);
    memset(w.ram.bytes[GONE] + 64 * KIB, 0x77, MEMBER_BYTES - 128 * KIB);
    all_readable();
}

static void found_and_mended(bool stays)
{
    fill_and_know();
    hurt_c_where(GONE, stays);
    uint32_t below = below_in_fact();
    scrub_start(w.pool);
    bool told = false;
    for (uint32_t n = 0; n < 120000 && (below_in_fact() > 0 || status()->messages_below_copies > 0); n++) {
        turn();
        if (n % 50 == 0 || w.pool->repairs_count > 0)
            told = told || (upkeep().scrub.errors_found > 0 && below_in_fact() > 0 && status()->messages_below_copies > 0);
        for (uint32_t i = 0; i < w.pool->segment_used; i++) /* nothing that is being mended counts */
            if (w.pool->repairs_count > 0 && w.pool->segments[i].state == SEGMENT_SEALED && w.pool->segments[i].repairing)
                assert_true(segment_images_good(w.pool, &w.pool->segments[i]) < 2);
    }
    assert_true(below > 0 && told);
    watched_for(5);
    assert_int_equal(status()->messages_below_copies, 0);
    assert_int_equal(status()->state, POOL_HEALTHY);
    if (!stays)
        assert_true(w.pool->members[C].repaired_blocks > 0);
    checked_clean();
    all_readable();
}

static void a_place_found_by_reading_counts_as_missing_until_it_is_mended(void **state)
{
    (void)state;
    found_and_mended(false);
}

static void a_place_that_stays_bad_counts_as_missing_until_its_image_is_elsewhere(void **state)
{
    (void)state;
    found_and_mended(true);
    assert_true(w.pool->members[C].retired_count > 0);
}

/* Each look at C finds other places, and every repair says that it went well. */
static void a_member_that_lies_at_each_read_is_not_read_for_ever(void **state)
{
    (void)state;
    fill_and_know();
    struct segment *s = NULL;
    for (uint32_t i = 0; i < w.pool->segment_used && !s; i++)
        if (w.pool->segments[i].state == SEGMENT_SEALED && segment_members(&w.pool->segments[i]) == (1u << C | 8u))
            s = &w.pool->segments[i];
    assert_non_null(s);
    uint32_t image = s->images[0].member == C ? 0 : 1;
    uint64_t at = segment_image_offset(w.pool, &s->images[image]) + BLOCK_BYTES + 99;
    uint64_t found = 0, until = io_now_ns(&w.ram.io) + 300 * NS_PER_S;
    scrub_note_fault(w.pool, s, image);
    w.ram.bytes[C][at] ^= 1;
    uint8_t wrong = w.ram.bytes[C][at];
    while (io_now_ns(&w.ram.io) < until) {
        pass_seconds(1);
        w.ram.bytes[C][at] = w.pool->repairs_count == 0 ? wrong : w.ram.bytes[C][at];
        found = upkeep().scrub.errors_found;
        assert_true(segment_images_good(w.pool, s) < 2);
    }
    assert_in_range(found, 5, 12); /* after 1, 2, 4 .. 64 s */
    pass_seconds(70);
    if (w.ram.bytes[C][at] == wrong)
        pass_seconds(70);
    pass_seconds(70);
    assert_int_equal(status()->messages_below_copies, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_image_made_with_holes_does_not_count_until_they_are_filled, setup_four, teardown),
        cmocka_unit_test_setup_teardown(holes_are_known_over_crashes_while_nobody_can_fill_them, setup_four, teardown),
        cmocka_unit_test_setup_teardown(what_fills_a_hole_is_kept_until_it_has, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_place_found_by_reading_counts_as_missing_until_it_is_mended, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_place_that_stays_bad_counts_as_missing_until_its_image_is_elsewhere, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_lies_at_each_read_is_not_read_for_ever, setup_four, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
