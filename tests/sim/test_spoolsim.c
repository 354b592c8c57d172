/* SPDX-License-Identifier: Apache-2.0 */
/* Some seeds with the limits of a real pool and the preset's sanitizers; the many, with small limits, are the test
 * sim.seeds. The program prints the counters of the whole run and, for a seed that fails, the command that replays it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ctest runs tests in the build directory; elsewhere IRONSPOOL_BIN names the programs' directory. */
static int run_seeds(const char *level, const char *first_seed)
{
    const char *bin = getenv("IRONSPOOL_BIN");
    char command[1024];
    snprintf(command, sizeof command, "%s/spoolsim-full --faults %s --seed %s --seeds 6 --ops 500 --jobs 2",
             bin ? bin : "bin", level, first_seed);
    print_message("%s\n", command);
    fflush(stdout);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Everything the program prints, into a buffer; its exit code. */
static int run_small(const char *options, char *out, size_t max)
{
    const char *bin = getenv("IRONSPOOL_BIN");
    char command[1024];
    snprintf(command, sizeof command, "%s/spoolsim %s 2>&1", bin ? bin : "bin", options);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, max - 1, f);
    out[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void the_summary_does_not_depend_on_how_many_work_at_it(void **state)
{
    (void)state;
    static char alone[16384], many[16384];
    assert_int_equal(run_small("--faults mixed --seed 11 --seeds 6 --ops 300 --once", alone, sizeof alone), 0);
    assert_int_equal(run_small("--faults mixed --seed 11 --seeds 6 --ops 300 --once --jobs 3", many, sizeof many), 0);
    assert_string_equal(alone, many);
}

static void what_is_no_number_runs_no_seed(void **state)
{
    (void)state;
    static char out[16384];
    static const char *const wrong[] = {"--seed x", "--seed -1", "--seed 1x", "--seed 99999999999999999999999", "--seeds 0",
                                        "--ops 4294967296", "--jobs ''", "--faults bad", "--without bad", "more"};
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(run_small(wrong[i], out, sizeof out), 2);
        assert_null(strstr(out, "held"));
    }
}

static void what_a_run_had_to_meet_and_did_not_fails_it(void **state)
{
    (void)state;
    static char out[16384];
    assert_int_equal(run_small("--faults none --ops 50 --once", out, sizeof out), 0);
    assert_int_equal(run_small("--faults none --ops 50 --once --require", out, sizeof out), 1);
    assert_non_null(strstr(out, "MISSING: a crash in compaction (crashes_in_compaction)"));
    assert_non_null(strstr(out, "MISSING: the fault bit-rot"));
}

static void a_seed_goes_on_until_it_has_met_the_measure(void **state)
{
    (void)state;
    static char out[16384];
    assert_int_equal(run_small("--faults realistic --seed 3 --once", out, sizeof out), 0);
    const char *acked = strstr(out, "acknowledged ");
    assert_non_null(acked);
    assert_true(strtoull(acked + strlen("acknowledged "), NULL, 10) >= 1000);
}

/* A half that had only an older segment table took what that said of slots for true, and forgot the mail that lay in them since. */
static void a_half_that_lost_mail_keeps_it(void **state)
{
    (void)state;
    static char out[16384];
    assert_int_equal(run_small("--faults realistic --seed 29 --once", out, sizeof out), 0);
}

static void seeds_with_realistic_faults_keep_every_promise(void **state)
{
    (void)state;
    assert_int_equal(run_seeds("realistic", "1"), 0);
}

static void seeds_with_cruel_faults_keep_every_promise(void **state)
{
    (void)state;
    assert_int_equal(run_seeds("cruel", "100001"), 0);
}

static void seeds_beyond_redundancy_return_nothing_wrong(void **state)
{
    (void)state;
    assert_int_equal(run_seeds("beyond", "200001"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_summary_does_not_depend_on_how_many_work_at_it),
        cmocka_unit_test(what_is_no_number_runs_no_seed),
        cmocka_unit_test(what_a_run_had_to_meet_and_did_not_fails_it),
        cmocka_unit_test(a_seed_goes_on_until_it_has_met_the_measure),
        cmocka_unit_test(a_half_that_lost_mail_keeps_it),
        cmocka_unit_test(seeds_with_realistic_faults_keep_every_promise),
        cmocka_unit_test(seeds_with_cruel_faults_keep_every_promise),
        cmocka_unit_test(seeds_beyond_redundancy_return_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
