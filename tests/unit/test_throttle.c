/* SPDX-License-Identifier: Apache-2.0 */
/* The controller of background work on synthetic traces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <throttle.h>

#define MS 1000000u

static struct throttle fresh(void)
{
    return (struct throttle){.floor = 8u << 20, .tolerance_percent = 25};
}

static void an_idle_pool_works_at_full_speed(void **state)
{
    (void)state;
    struct throttle t = fresh();
    uint64_t tokens = 0;
    for (int i = 0; i < 10; i++)
        tokens = throttle_next(&t, &(struct throttle_sample){0});
    assert_int_equal(tokens, THROTTLE_RATE_MAX * THROTTLE_INTERVAL_MS / 1000);
}

/* A disk on which background work of r bytes a second makes commits slower in proportion. */
static double run(struct throttle *t, unsigned intervals, double slowdown_per_mib, uint64_t *least_out)
{
    uint64_t tokens = 0, done = 0, least = UINT64_MAX;
    double sum = 0;
    unsigned counted = 0;
    for (unsigned i = 0; i < intervals; i++) {
        double mib = (double)tokens / 104857.6;
        double mean = 1.0 * MS * (1.0 + mib * slowdown_per_mib);
        tokens = throttle_next(t, &(struct throttle_sample){(uint64_t)mean * 100, 100, tokens});
        done += tokens;
        if (i > intervals / 2) {
            sum += mean;
            counted++;
            if (!t->resting && tokens < least)
                least = tokens;
        }
    }
    *least_out = least;
    return sum / counted / MS;
}

static void mail_keeps_its_commit_time_within_the_tolerance(void **state)
{
    (void)state;
    struct throttle t = fresh();
    uint64_t least;
    double ratio = run(&t, 4000, 0.01, &least);
    assert_true(ratio < 1.25);
    assert_true(ratio > 1.02); /* and the room there is gets used */
}

static void the_floor_remains_however_slow_mail_gets(void **state)
{
    (void)state;
    struct throttle t = fresh();
    uint64_t least;
    (void)run(&t, 2000, 10.0, &least);
    assert_int_equal(least, (uint64_t)(8u << 20) * THROTTLE_INTERVAL_MS / 1000);
}

static void the_same_trace_gives_the_same_tokens(void **state)
{
    (void)state;
    struct throttle a = fresh(), b = fresh();
    for (unsigned i = 0; i < 500; i++) {
        struct throttle_sample s = {i * 977 % 5 * MS, i % 7, i % 3 * 1000};
        assert_int_equal(throttle_next(&a, &s), throttle_next(&b, &s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_pool_works_at_full_speed),
        cmocka_unit_test(mail_keeps_its_commit_time_within_the_tolerance),
        cmocka_unit_test(the_floor_remains_however_slow_mail_gets),
        cmocka_unit_test(the_same_trace_gives_the_same_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
