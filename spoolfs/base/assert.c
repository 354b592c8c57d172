/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what happens when we are wrong: one line on stderr, then abort() for the core dump. */
#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void assert_failed(const char *condition, const char *file, int line, const char *function)
{
    fprintf(stderr, "ironspool: invariant broken: %s at %s:%d in %s\n", condition, file, line, function);
    fflush(stderr);
    abort();
}
