/* SPDX-License-Identifier: Apache-2.0 */
/* ironspoold's first process: owns ports, the control socket's place and the three children; holds no disk and reads no
 * byte from the network.
 *
 *   down -> running [start_child] -> down [reaped; back-off 100 ms .. 5 s]
 *   running -> stopping [ask_to_stop: stop, reload] -> down
 *
 *  SPV-1  a member is opened by the spool child, after the fork: neither the supervisor nor another child ever has one.
 *  SPV-2  children die with the supervisor (PDEATHSIG, and the end of their control socket).
 *  SPV-3  every fresh child means new socketpairs between the spool and the other two; the other children go on living.
 *  SPV-4  a reload with a bad file changes nothing. */
#ifndef DAEMON_SUPERVISOR_H
#define DAEMON_SUPERVISOR_H

#include "config.h"

/* Takes over the config. Returns the exit code of the program. */
int supervisor_run(struct config *config);

#endif
