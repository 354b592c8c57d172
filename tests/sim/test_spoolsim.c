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
        cmocka_unit_test(seeds_with_realistic_faults_keep_every_promise),
        cmocka_unit_test(seeds_with_cruel_faults_keep_every_promise),
        cmocka_unit_test(seeds_beyond_redundancy_return_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
