/* SPDX-License-Identifier: Apache-2.0 */
/* P8: what the process that parses the network gives up before it reads its first byte. */
#ifndef DAEMON_SANDBOX_H
#define DAEMON_SANDBOX_H

#include "child.h"

/* Whom the relay becomes: `user` and `group`; "nobody" with a warning when the default user is not there. Not root:
 * nobody changes. ERR_CONFIG with text when a configured name does not exist. */
enum err identity_find(const struct config *c, struct identity *identity_out, char text[256]) MUST_CHECK;

/* Privileges, then file system (Landlock, where the kernel has it), then system calls, in this order and for good.
 * report: one line for the log and the status: what holds and what does not. An error means: do not go on. */
enum err sandbox_relay(const struct config *c, const struct identity *identity, char report[256]) MUST_CHECK;
/* The alarm process: as the relay; with a hook_program it may start programs, and the files they need are not restricted. */
enum err sandbox_alarm(const struct config *c, const struct identity *identity, char report[256]) MUST_CHECK;
/* The spool process: no new privileges, no network, no program. */
enum err sandbox_spool(char report[256]) MUST_CHECK;

#endif
