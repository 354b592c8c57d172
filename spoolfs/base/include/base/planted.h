/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs, planted at real places, to prove that the simulator finds them (docs/design/0013-planted-bugs.md).
 * PLANTED(name) is 0 and compiles away, unless the build option IRONSPOOL_PLANTED is ON: then it is true for the one
 * bug the process chose (spoolsim --planted NAME). Never: in a build that carries mail. */
#ifndef BASE_PLANTED_H
#define BASE_PLANTED_H

#ifdef IRONSPOOL_PLANTED

#include <stdbool.h>

enum planted_bug {
    PLANTED_none,
#define X(name, verdict, text) PLANTED_##name,
#include <base/planted.def>
#undef X
    PLANTED_COUNT
};
extern enum planted_bug planted_bug;
bool planted_choose(const char *name);            /* false: there is no bug of that name */
const char *planted_name(enum planted_bug bug);
const char *planted_verdict(enum planted_bug bug); /* an extended regular expression */
const char *planted_text(enum planted_bug bug);

#define PLANTED(name) (planted_bug == PLANTED_##name)

#else

#define PLANTED(name) 0

#endif
#endif
