/* SPDX-License-Identifier: Apache-2.0 */
/* Who is called slow and who is not: HLT-1 to HLT-5 on windows made of latencies, one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <base/prng.h>
#include <cmocka.h>
#include <health.h>

#define MS UINT64_C(1000000)
#define HOURS(n) ((n) * 3600u * 1000u / HEALTH_WINDOW_MS)

static struct health h;
static struct health_sample s[MEMBERS_MAX];

static void pool_of(uint32_t members, bool arm)
{
    memset(&h, 0, sizeof h);
    memset(s, 0, sizeof s);
    for (uint32_t i = 0; i < members; i++) {
        s[i] = (struct health_sample){.watched = true, .arm = arm, .domain = (uint8_t)i};
        s[i].kind[HEALTH_COMMIT].ops = 100;
        s[i].kind[HEALTH_COMMIT].p50_ns = arm ? 12 * MS : MS;
    }
}

static void windows(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        health_window(&h, s);
}

static void slower(uint32_t member, uint32_t times)
{
    s[member].kind[HEALTH_COMMIT].p50_ns *= times;
}

static void a_member_a_hundred_times_slower_is_named_within_a_minute(void **state)
{
    (void)state;
    pool_of(4, false);
    windows(100);
    slower(2, 100);
    windows(6);
    assert_int_equal(h.members[2].verdict, HEALTH_SLOW);
    assert_int_equal(health_score(&h.members[2]), 0);
    assert_non_null(strstr(h.members[2].evidence, "commits take 100.0 ms"));
    assert_non_null(strstr(h.members[2].evidence, "100 times what 3 peers need"));
    assert_int_equal(h.members[0].verdict, HEALTH_GOOD);
    assert_int_equal(health_score(&h.members[0]), 100);
}

static void one_a_little_slow_is_suspect_first_and_slow_within_a_minute(void **state)
{
    (void)state;
    for (uint32_t arm = 0; arm < 2; arm++) {
        pool_of(3, arm);
        windows(100);
        slower(1, 4);
        windows(HEALTH_POINTS_SUSPECT - 1);
        assert_int_equal(h.members[1].verdict, HEALTH_GOOD);
        windows(1);
        assert_int_equal(h.members[1].verdict, HEALTH_SUSPECT);
        windows(60000 / HEALTH_WINDOW_MS - HEALTH_POINTS_SUSPECT);
        assert_int_equal(h.members[1].verdict, HEALTH_SLOW);
    }
}

static void suspicion_ends_only_when_nothing_is_left_of_it(void **state)
{
    (void)state;
    pool_of(3, false);
    windows(100);
    slower(1, 5);
    windows(8);
    s[1].kind[HEALTH_COMMIT].p50_ns = MS;
    windows(3);
    assert_int_equal(h.members[1].verdict, HEALTH_SUSPECT);
    windows(1);
    assert_int_equal(h.members[1].verdict, HEALTH_GOOD);
}

static void what_all_feel_is_load(void **state)
{
    (void)state;
    pool_of(4, false);
    windows(100);
    for (uint32_t i = 0; i < 4; i++)
        slower(i, 60 + i * 20);
    windows(1000);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(h.members[i].verdict, HEALTH_GOOD);
}

static void what_a_member_always_did_is_its_nature(void **state)
{
    (void)state;
    pool_of(3, false);
    slower(2, 8); /* another make of disk */
    windows(1000);
    assert_int_equal(h.members[2].verdict, HEALTH_GOOD);
    pool_of(3, false);
    s[2].arm = true; /* no peer of its kind */
    slower(2, 30);
    windows(1000);
    assert_int_equal(h.members[2].verdict, HEALTH_GOOD);
    pool_of(3, false);
    slower(2, 40); /* and slow from the start beyond any nature */
    windows(20);
    assert_int_equal(h.members[2].verdict, HEALTH_SLOW);
}

static void below_the_floor_nobody_is_slow(void **state)
{
    (void)state;
    pool_of(3, false);
    for (uint32_t i = 0; i < 3; i++)
        s[i].kind[HEALTH_COMMIT].p50_ns = MS / 50;
    windows(100);
    s[0].kind[HEALTH_COMMIT].p50_ns = HEALTH_FLOOR_FLASH_NS - 1;
    windows(100);
    assert_int_equal(h.members[0].verdict, HEALTH_GOOD);
    s[0].kind[HEALTH_COMMIT].p50_ns = HEALTH_FLOOR_FLASH_NS;
    windows(100);
    assert_int_equal(h.members[0].verdict, HEALTH_SLOW);
}

static void few_samples_or_our_own_work_say_nothing(void **state)
{
    (void)state;
    pool_of(3, false);
    windows(100);
    slower(0, 10);
    s[0].kind[HEALTH_COMMIT].ops = HEALTH_OPS_MIN - 1;
    windows(100);
    assert_int_equal(h.members[0].slow_points, 0);
    s[0].kind[HEALTH_COMMIT].ops = HEALTH_OPS_MIN;
    s[0].busy = true;
    windows(100);
    assert_int_equal(h.members[0].slow_points, 0);
    slower(0, 10); /* a hundred times: our own work does not do that */
    windows(6);
    assert_int_equal(h.members[0].verdict, HEALTH_SLOW);
}

static void on_an_idle_pool_probes_are_enough(void **state)
{
    (void)state;
    pool_of(4, true);
    for (uint32_t i = 0; i < 4; i++) {
        s[i].kind[HEALTH_COMMIT].ops = 0;
        s[i].kind[HEALTH_PROBE].p50_ns = 9 * MS;
    }
    for (uint32_t n = 0; n < 200 + 20; n++) { /* one in five seconds */
        for (uint32_t i = 0; i < 4; i++)
            s[i].kind[HEALTH_PROBE].ops = n * 3 % 5 < 3;
        if (n == 200)
            s[3].kind[HEALTH_PROBE].p50_ns = 900 * MS;
        windows(1);
    }
    assert_int_equal(h.members[3].verdict, HEALTH_SLOW);
    assert_int_equal(h.members[2].verdict, HEALTH_GOOD);
}

static void a_domain_that_is_slow_together_is_named_and_none_is_taken_out(void **state)
{
    (void)state;
    pool_of(6, true);
    s[4].domain = s[5].domain = 4;
    windows(100);
    slower(4, 30);
    slower(5, 40);
    windows(100);
    for (uint32_t i = 4; i < 6; i++) {
        assert_true(h.members[i].with_domain);
        assert_int_equal(h.members[i].verdict, HEALTH_SUSPECT);
    }
    s[4].kind[HEALTH_COMMIT].p50_ns = 12 * MS; /* one gets well: it was not the controller */
    windows(30);
    assert_int_equal(h.members[4].verdict, HEALTH_GOOD);
    assert_int_equal(h.members[5].verdict, HEALTH_SLOW);
}

static void errors_that_keep_coming_fail_a_member_and_a_burst_does_not(void **state)
{
    (void)state;
    pool_of(3, false);
    windows(10);
    s[1].errors = 100000;
    windows(2);
    s[1].errors = 0;
    windows(1);
    assert_int_equal(h.members[1].verdict, HEALTH_GOOD);
    windows(HOURS(1));
    assert_int_equal(h.members[1].error_points, 0);
    s[1].errors = 1;
    windows(9);
    assert_int_equal(h.members[1].verdict, HEALTH_SUSPECT);
    windows(1);
    assert_int_equal(h.members[1].verdict, HEALTH_FAILING);
    health_forgive(&h.members[1]);
    assert_int_equal(h.members[1].verdict, HEALTH_GOOD);
}

/* --- 20 healthy hours --- */

/* Medians of a window on healthy members: noise of its own, a tail of bad windows, bursts of seconds on one member
 * (garbage collection, a self-test), stalls of the whole pool, load that comes and goes, thin windows. FAST'16: a disk is
 * more than twice as slow as its peers 0.2 % of the time, flash 0.6 %; ten times as often here. */
static uint64_t noisy(struct prng *r, uint64_t base, double load, bool burst)
{
    double ns = (double)base * load * (0.7 + (double)prng_below(r, 600) / 1000.0);
    if (prng_below(r, 1000) < 60)
        ns *= 2 + (double)prng_below(r, 80) / 10.0;
    if (burst)
        ns *= 3 + (double)prng_below(r, 200) / 10.0;
    return (uint64_t)ns;
}

static void twenty_noisy_hours(uint64_t seed, uint32_t members, bool arm)
{
    struct prng r = {seed};
    uint32_t burst[MEMBERS_MAX] = {0}, stall = 0;
    pool_of(members, arm);
    uint64_t nature[MEMBERS_MAX];
    for (uint32_t i = 0; i < members; i++)
        nature[i] = (arm ? 12 * MS : MS) * (100 + prng_below(&r, 80)) / 100;
    double load = 1;
    for (uint32_t n = 0; n < HOURS(20); n++) {
        load += ((double)prng_below(&r, 200) - 100) / 1000;
        load = load < 0.5 ? 0.5 : load > 6 ? 6 : load;
        stall = stall ? stall - 1 : prng_below(&r, 400) == 0 ? 1 + (uint32_t)prng_below(&r, 10) : 0;
        for (uint32_t i = 0; i < members; i++) {
            burst[i] = burst[i] ? burst[i] - 1 : prng_below(&r, 1000) == 0 ? 1 + (uint32_t)prng_below(&r, 2) : 0;
            for (enum health_kind k = 0; k < HEALTH_KINDS; k++) {
                s[i].kind[k].ops = (uint32_t)prng_below(&r, k == HEALTH_PROBE ? 2 : 40);
                s[i].kind[k].p50_ns = noisy(&r, nature[i], load * (stall ? 50 : 1), burst[i] > 0);
            }
            s[i].errors = prng_below(&r, 2000) == 0; /* a block now and then */
        }
        windows(1);
        for (uint32_t i = 0; i < members; i++)
            if (h.members[i].verdict != HEALTH_GOOD)
                fail_msg("seed %u: member %u is verdict %d after %u windows: %s", (unsigned)seed, i, h.members[i].verdict, n,
                         h.members[i].evidence);
    }
}

static void twenty_healthy_hours_of_noise_flag_nobody(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        twenty_noisy_hours(seed, 2, false);
        twenty_noisy_hours(seed, 4, false);
        twenty_noisy_hours(seed, 12, false);
        twenty_noisy_hours(seed, 4, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_a_hundred_times_slower_is_named_within_a_minute),
        cmocka_unit_test(one_a_little_slow_is_suspect_first_and_slow_within_a_minute),
        cmocka_unit_test(suspicion_ends_only_when_nothing_is_left_of_it),
        cmocka_unit_test(what_all_feel_is_load),
        cmocka_unit_test(what_a_member_always_did_is_its_nature),
        cmocka_unit_test(below_the_floor_nobody_is_slow),
        cmocka_unit_test(few_samples_or_our_own_work_say_nothing),
        cmocka_unit_test(on_an_idle_pool_probes_are_enough),
        cmocka_unit_test(a_domain_that_is_slow_together_is_named_and_none_is_taken_out),
        cmocka_unit_test(errors_that_keep_coming_fail_a_member_and_a_burst_does_not),
        cmocka_unit_test(twenty_healthy_hours_of_noise_flag_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
