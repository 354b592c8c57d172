/* SPDX-License-Identifier: Apache-2.0 */
/* The forecast of a rebuild: said when the deadline cannot be kept, taken back when it can, and steady in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pace.h"

#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define S UINT64_C(1000000000)

static struct { struct pace p; struct pace_sample s; uint32_t changes; } w;

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    w.s.now_ns = 100 * S;
    w.s.working = true;
    return 0;
}

/* So many seconds at `rate` bytes a second, looked at four times in each. */
static void go(uint64_t seconds, uint64_t rate)
{
    for (uint64_t i = 0; i < seconds * 4; i++) {
        uint64_t bytes = rate / 4 < w.s.remaining ? rate / 4 : w.s.remaining;
        w.s.now_ns += S / 4;
        w.s.remaining -= bytes;
        w.s.done += bytes;
        w.changes += pace_judge(&w.p, &w.s);
    }
}

static void a_pace_that_will_do_is_never_behind(void **state)
{
    (void)state;
    w.s.remaining = 3000 * 8 * MIB;
    go(3001, 8 * MIB);
    assert_int_equal(w.s.remaining, 0);
    assert_int_equal(w.changes, 0);
    assert_int_equal(w.p.since_ns, 0);
}

static void what_cannot_be_kept_is_said_within_a_minute(void **state)
{
    (void)state;
    w.s.remaining = 10000 * 8 * MIB;
    go(60, 8 * MIB);
    assert_true(w.p.behind);
    assert_int_equal(w.changes, 1);
    assert_in_range(pace_seconds_left(&w.p, w.s.remaining), 9900, 9960);
    go(3600, 8 * MIB);
    assert_int_equal(w.changes, 1); /* said once */
}

static void one_slow_window_says_nothing(void **state)
{
    (void)state;
    w.s.remaining = 2000 * 8 * MIB;
    go(60, 8 * MIB);
    go(12, 0);
    go(60, 8 * MIB);
    assert_int_equal(w.changes, 0);
}

static void a_rebuild_that_stands_still_is_behind(void **state)
{
    (void)state;
    w.s.remaining = 500 * MIB;
    go(40, 8 * MIB);
    assert_false(w.p.behind);
    go(300, 0);
    assert_true(w.p.behind);
    assert_int_equal(w.changes, 1);
}

static void it_is_taken_back_when_the_pace_is_there_and_when_it_is_over(void **state)
{
    (void)state;
    w.s.remaining = 10000 * 8 * MIB;
    go(60, 8 * MIB);
    assert_true(w.p.behind);
    go(120, 200 * MIB);
    assert_false(w.p.behind);
    assert_int_equal(w.changes, 2);
    go(600, 1 * MIB);
    assert_true(w.p.behind);
    w.s.remaining = 0;
    w.changes += pace_judge(&w.p, &w.s);
    assert_false(w.p.behind);
    assert_int_equal(w.changes, 4);
}

/* At 95 % of the time: neither late nor early enough to take anything back. */
static void a_pace_at_the_edge_does_not_flap(void **state)
{
    (void)state;
    w.s.remaining = 20000 * 8 * MIB;
    go(60, 8 * MIB);
    assert_true(w.p.behind);
    for (uint32_t i = 0; i < 20; i++) {
        uint64_t gone = (w.s.now_ns - w.p.since_ns) / S, at = 3600 * (94 + i % 3 * 3) / 100; /* 94, 97, 100 % */
        go(40, w.s.remaining / (at - gone));
    }
    assert_int_equal(w.changes, 1);
}

static void the_hour_itself_is_the_last_word(void **state)
{
    (void)state;
    w.s.remaining = 100 * MIB;
    w.s.working = false; /* paused, or there is no place: nothing is known of the pace, and the clock runs */
    go(3599, 0);
    assert_int_equal(w.changes, 0);
    go(2, 0);
    assert_true(w.p.behind);
    assert_int_equal(pace_seconds_left(&w.p, w.s.remaining), UINT64_MAX);
    w.s.working = true;
    go(40, 1 * MIB);
    assert_true(w.p.behind); /* too late to be early */
    go(70, 1 * MIB);
    assert_false(w.p.behind);
    assert_int_equal(w.changes, 2);
    w.s.remaining = 10 * MIB; /* another loss has an hour of its own */
    go(60, 0);
    assert_in_range((w.s.now_ns - w.p.since_ns) / S, 59, 60);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pace_that_will_do_is_never_behind),
        TEST(what_cannot_be_kept_is_said_within_a_minute),
        TEST(one_slow_window_says_nothing),
        TEST(a_rebuild_that_stands_still_is_behind),
        TEST(it_is_taken_back_when_the_pace_is_there_and_when_it_is_over),
        TEST(a_pace_at_the_edge_does_not_flap),
        TEST(the_hour_itself_is_the_last_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
