/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which planted bug this process has. Empty unless the build option IRONSPOOL_PLANTED is ON. */
#include <base/planted.h>

#ifdef IRONSPOOL_PLANTED

#include <string.h>

static const struct { const char *name, *verdict, *text; } bugs[] = {
    {"none", "", "no bug"},
#define X(name, verdict, text) {#name, verdict, text},
#include <base/planted.def>
#undef X
};

enum planted_bug planted_bug = PLANTED_none;

const char *planted_name(enum planted_bug bug) { return bugs[bug].name; }
const char *planted_verdict(enum planted_bug bug) { return bugs[bug].verdict; }
const char *planted_text(enum planted_bug bug) { return bugs[bug].text; }

bool planted_choose(const char *name)
{
    for (enum planted_bug b = PLANTED_none; b < PLANTED_COUNT; b++)
        if (strcmp(name, bugs[b].name) == 0) {
            planted_bug = b;
            return true;
        }
    return false;
}

#else

_Static_assert(!PLANTED(none), "normal builds hold no bug on purpose");

#endif
