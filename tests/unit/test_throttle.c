/* SPDX-License-Identifier: Apache-2.0 */
/* The controller of one member's background work: on models of disks that answer to what it grants, and on recorded
 * traces (tests/unit/traces: one sample a line as throttle_sample_print writes it; lines with # are text). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <base/prng.h>
#include <cmocka.h>
#include <dirent.h>
#include <throttle.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define MIB_S (UINT64_C(1) << 20)
#define FULL (THROTTLE_RATE_MAX * THROTTLE_INTERVAL_MS / 1000)

static const struct throttle_need rebuild = {.floor = 8 * MIB_S, .tolerance_percent = 25, .share_percent = 100};
static const struct throttle_need scrub = {.floor = MIB_S / 16, .tolerance_percent = 10, .share_percent = 100};

/* A disk: mail of `base` (the worst of an interval three times that, both with noise), slower with each MiB/s beside it. */
struct disk {
    double base_ns, per_mib_s;
    uint64_t mails;
    uint32_t noise_percent;
    struct prng prng;
};

struct seen { double mean, worst; uint64_t done, least, intervals; };

static double noisy(struct disk *d, double ns)
{
    uint64_t n = d->noise_percent ? prng_below(&d->prng, d->noise_percent * 2u + 1u) : 0;
    return ns * (100.0 - d->noise_percent + (double)n) / 100.0;
}

static struct throttle_sample disk_interval(struct disk *d, uint64_t tokens)
{
    double factor = 1.0 + (double)tokens * 10 / MIB_S * d->per_mib_s;
    double mean = noisy(d, d->base_ns * factor), worst = noisy(d, d->base_ns * 3 * factor);
    struct throttle_sample s = {.bytes = tokens, .disturbed = tokens > 0};
    s.mail[THROTTLE_COMMIT].ops = d->mails;
    s.mail[THROTTLE_COMMIT].sum_ns = (uint64_t)(mean * (double)d->mails);
    s.mail[THROTTLE_COMMIT].worst_ns = (uint64_t)worst;
    return s;
}

/* Runs the loop; the second half is what is seen. */
static struct seen run(struct throttle *t, const struct throttle_need *need, struct disk *d, unsigned intervals)
{
    uint64_t tokens = 0;
    struct seen r = {.least = UINT64_MAX};
    for (unsigned i = 0; i < intervals; i++) {
        struct throttle_sample s = disk_interval(d, tokens);
        tokens = throttle_next(t, need, &s);
        if (i < intervals / 2)
            continue;
        r.mean += (double)s.mail[0].sum_ns / (double)s.mail[0].ops;
        r.done += tokens;
        r.intervals++;
        if (!t->resting && tokens < r.least)
            r.least = tokens;
    }
    r.mean /= (double)r.intervals;
    return r;
}

static uint64_t rate(const struct seen *r)
{
    return r->done * 10 / r->intervals;
}

static void without_mail_work_goes_at_full_speed(void **state)
{
    (void)state;
    struct throttle t = {0};
    uint64_t tokens = 0;
    for (unsigned i = 0; i < 10; i++)
        tokens = throttle_next(&t, &rebuild, &(struct throttle_sample){0});
    assert_int_equal(tokens, FULL);
    struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 0.01};
    struct throttle_sample s = disk_interval(&d, tokens);
    assert_true(throttle_next(&t, &rebuild, &s) < FULL); /* mail is back: at once */
}

static void mail_keeps_its_time_within_the_tolerance(void **state)
{
    (void)state;
    const struct throttle_need *needs[] = {&rebuild, &scrub};
    for (unsigned n = 0; n < 2; n++) {
        for (uint32_t noise = 0; noise <= 10; noise += 10) {
            struct throttle t = {0};
            struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 0.002, .noise_percent = noise, .prng = {7}};
            struct seen r = run(&t, needs[n], &d, 8000);
            assert_true(r.mean < 1e6 * (1 + needs[n]->tolerance_percent / 100.0));
            assert_true(rate(&r) > needs[n]->floor); /* and of the room there is some is used */
        }
    }
}

static void a_disk_that_does_not_mind_is_used(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e5, .mails = 100, .per_mib_s = 0, .noise_percent = 3, .prng = {1}};
    struct seen r = run(&t, &scrub, &d, 3000);
    assert_true(rate(&r) > 200 * MIB_S);
}

static void the_floor_remains_however_slow_mail_gets(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 10};
    struct seen r = run(&t, &rebuild, &d, 2000);
    assert_true(r.least >= rebuild.floor / 10);
    assert_true(rate(&r) >= rebuild.floor * 99 / 100); /* what rests is made up for */
    assert_true(rate(&r) < rebuild.floor * 2);
}

static void mail_too_thin_to_compare_gets_the_floor_and_a_little_more(void **state)
{
    (void)state;
    struct throttle t = {0};
    uint64_t first = 0, tokens = 0;
    for (unsigned i = 0; i < 600; i++) {
        struct throttle_sample s = {.bytes = tokens, .disturbed = tokens > 0};
        s.mail[THROTTLE_COMMIT].ops = i % 3 == 0;
        s.mail[THROTTLE_COMMIT].sum_ns = s.mail[THROTTLE_COMMIT].worst_ns = i % 3 == 0 ? MS : 0;
        tokens = throttle_next(&t, &rebuild, &s);
        first = first ? first : tokens;
        assert_true(tokens < FULL);
    }
    assert_true(first >= rebuild.floor / 10 && first < rebuild.floor / 5);
    assert_true(t.rate >= rebuild.floor);
}

static void a_baseline_that_drifts_is_followed(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 0.002, .noise_percent = 5, .prng = {3}};
    struct seen before = run(&t, &rebuild, &d, 4000);
    d.base_ns = 4e6; /* all mail is slower now, whatever runs beside it */
    struct seen after = run(&t, &rebuild, &d, 4000);
    assert_true(rate(&after) > rate(&before) / 2);
    assert_true(after.mean < 4e6 * 1.25);
}

static void one_outlier_does_not_open_the_door(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 0.01, .noise_percent = 5, .prng = {4}};
    (void)run(&t, &rebuild, &d, 1000);
    while (!t.resting)
        (void)run(&t, &rebuild, &d, 1);
    d.base_ns = 1e9;
    struct throttle_sample s = disk_interval(&d, 0);
    (void)throttle_next(&t, &rebuild, &s);
    d.base_ns = 1e6;
    assert_true(t.base[THROTTLE_COMMIT].mean_ns < 2e6);
    struct seen r = run(&t, &rebuild, &d, 400);
    assert_true(r.mean < 1e6 * 1.3);
}

static void deliveries_alone_are_protected_as_well(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e6, .mails = 100, .per_mib_s = 0.05};
    uint64_t tokens = 0, sum = 0;
    for (unsigned i = 0; i < 2000; i++) {
        struct throttle_sample s = disk_interval(&d, tokens);
        s.mail[THROTTLE_DELIVER].ops = s.mail[THROTTLE_COMMIT].ops;
        s.mail[THROTTLE_DELIVER].sum_ns = s.mail[THROTTLE_COMMIT].sum_ns;
        s.mail[THROTTLE_DELIVER].worst_ns = s.mail[THROTTLE_COMMIT].worst_ns;
        memset(&s.mail[THROTTLE_COMMIT], 0, sizeof s.mail[THROTTLE_COMMIT]);
        tokens = throttle_next(&t, &scrub, &s);
        sum += i >= 1000 ? s.mail[THROTTLE_DELIVER].sum_ns / 100 : 0;
    }
    assert_true((double)sum / 1000 < 1e6 * 1.1);
}

static void a_rate_nobody_uses_does_not_rise(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct disk d = {.base_ns = 1e6, .mails = 100};
    for (unsigned i = 0; i < 3000; i++) {
        struct throttle_sample s = disk_interval(&d, i % 2 ? 4096 : 0);
        (void)throttle_next(&t, &rebuild, &s);
    }
    assert_true(t.rate < rebuild.floor + 2 * THROTTLE_STEP);
}

static void on_an_arm_mail_keeps_its_share_of_the_time(void **state)
{
    (void)state;
    struct throttle t = {0};
    struct throttle_need arm = {.floor = MIB_S, .tolerance_percent = 25, .share_percent = 40};
    uint64_t tokens = 0, busy = 0;
    for (unsigned i = 0; i < 3000; i++) {
        struct disk d = {.base_ns = 1e7, .mails = 10}; /* mail does not show it yet */
        struct throttle_sample s = disk_interval(&d, tokens);
        s.busy_ns = tokens / MIB_S * 20 * MS < 100 * MS ? tokens * 20 * MS / MIB_S : 100 * MS; /* 50 MiB/s are all of it */
        busy += i >= 1000 ? s.busy_ns : 0;
        tokens = throttle_next(&t, &arm, &s);
    }
    assert_true(busy / 2000 < 45 * MS);
    assert_true(busy / 2000 > 20 * MS);
}

/* --- traces --- */

static void a_sample_is_printed_and_read_back(void **state)
{
    (void)state;
    struct throttle_sample s = {.mail = {{3, 7 * US, 4 * US}, {1, 2 * US, 2 * US}}, .bytes = 1 << 20, .busy_ns = 9 * US,
                                .disturbed = true}, r;
    char text[200];
    assert_true(throttle_sample_print(text, sizeof text, &s) > 0);
    assert_true(throttle_sample_parse(text, &r));
    assert_memory_equal(&r.mail, &s.mail, sizeof r.mail);
    assert_true(r.bytes == s.bytes && r.busy_ns == s.busy_ns && r.disturbed);
    assert_false(throttle_sample_parse("1 2 3", &r));
    assert_false(throttle_sample_parse("# 1 2 3 4 5 6 7 8 9", &r));
    assert_false(throttle_sample_parse("", &r));
}

/* What is said about a sample does not depend on anything but the samples, stays within bounds, and is 0 only at rest. */
static void replay(const char *path, const struct throttle_need *need)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    struct throttle a = {0}, b = {0};
    char line[256];
    uint32_t count = 0, idle = 0, rests = 0;
    while (fgets(line, sizeof line, f)) {
        struct throttle_sample s;
        if (line[0] == '#')
            continue;
        assert_true(throttle_sample_parse(line, &s));
        uint64_t tokens = throttle_next(&a, need, &s);
        assert_int_equal(tokens, throttle_next(&b, need, &s));
        idle = s.mail[0].ops || s.mail[1].ops ? 0 : idle + 1;
        if (idle >= THROTTLE_IDLE_INTERVALS)
            assert_int_equal(tokens, FULL); /* THR-1 */
        else if (a.resting)
            assert_int_equal(tokens, 0); /* THR-4 */
        else
            assert_true(tokens >= need->floor / 10 && tokens < FULL); /* THR-3 */
        rests += a.resting;
        count++;
    }
    fclose(f);
    assert_true(count > 50);
    print_message("%s: %u intervals, %u at rest, %llu cuts, %llu raises, baseline %.0f us\n", strrchr(path, '/') + 1, count,
                  rests, (unsigned long long)a.cuts, (unsigned long long)a.raises, a.base[THROTTLE_COMMIT].mean_ns / 1000);
}

static void recorded_traces_are_answered_within_bounds(void **state)
{
    (void)state;
    DIR *d = opendir(SOURCE_DIRECTORY "/tests/unit/traces");
    assert_non_null(d);
    uint32_t traces = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        char path[600];
        if (!strstr(e->d_name, ".trace"))
            continue;
        snprintf(path, sizeof path, "%s/tests/unit/traces/%s", SOURCE_DIRECTORY, e->d_name);
        replay(path, &rebuild);
        replay(path, &scrub);
        traces++;
    }
    closedir(d);
    assert_true(traces >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_mail_work_goes_at_full_speed),
        cmocka_unit_test(mail_keeps_its_time_within_the_tolerance),
        cmocka_unit_test(a_disk_that_does_not_mind_is_used),
        cmocka_unit_test(the_floor_remains_however_slow_mail_gets),
        cmocka_unit_test(mail_too_thin_to_compare_gets_the_floor_and_a_little_more),
        cmocka_unit_test(a_baseline_that_drifts_is_followed),
        cmocka_unit_test(one_outlier_does_not_open_the_door),
        cmocka_unit_test(deliveries_alone_are_protected_as_well),
        cmocka_unit_test(a_rate_nobody_uses_does_not_rise),
        cmocka_unit_test(on_an_arm_mail_keeps_its_share_of_the_time),
        cmocka_unit_test(a_sample_is_printed_and_read_back),
        cmocka_unit_test(recorded_traces_are_answered_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
