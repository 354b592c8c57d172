/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of the simulator, as many as fit: `realistic` and `cruel`, each seed twice with the same trace. The program
 * prints the counters of the whole run and, for a seed that fails, the command that replays it. */
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
    const char *bin = getenv("IRONSPOOL_BIN"), *seconds = getenv("SIM_SECONDS");
    char command[1024];
    snprintf(command, sizeof command, "%s/spoolsim --faults %s --seed %s --seeds 1000000 --ops 1000 --seconds %s",
             bin ? bin : "bin", level, first_seed, seconds ? seconds : "50");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_with_realistic_faults_keep_every_promise),
        cmocka_unit_test(seeds_with_cruel_faults_keep_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
