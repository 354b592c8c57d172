/* SPDX-License-Identifier: Apache-2.0 */
/* The spool process's end of the socketpair to the alarm process: tells how things stand once a second and what
 * happens at once, and keeps the alarm process's report for status and metrics.
 *
 *  ALW-1  it never waits: what does not fit into the socket is said later, or, being a state, not at all.
 *  ALW-2  every event of this process is said once, also over restarts of the alarm process, unless more than
 *         EVENTS_MAX came meanwhile.
 *  ALW-3  an alarm process that is away shows: status and metrics say so. */
#ifndef DAEMON_ALARM_WIRE_H
#define DAEMON_ALARM_WIRE_H

#include "smart.h"
#include "spool_process.h"

struct alarm_wire;

enum err alarm_wire_open(struct spool_process *sp, struct alarm_wire **wire_out) MUST_CHECK;
void alarm_wire_attach(struct alarm_wire *w, int fd); /* takes the descriptor; the one before is closed */
void alarm_wire_step(struct alarm_wire *w);           /* after each turn: events that came */
enum err alarm_wire_test(struct alarm_wire *w) MUST_CHECK; /* a test alarm, please. ERR_NOT_FOUND: it is away; ERR_BUSY */
void alarm_wire_close(struct alarm_wire **wire);
void alarm_wire_view(const struct alarm_wire *w, struct status_view *view); /* view->alarm, alarm_connected */

#endif
