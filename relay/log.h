/* SPDX-License-Identifier: Apache-2.0 */
/* The process's mail log, in Postfix's line shape. One per process, so that a line needs no handle.
 *
 *  LOG-1  every byte of a line is printable ASCII; all else, whoever said it, is written as \xHH.
 *  LOG-2  lines are collected and written once at the end of the loop's turn; a line is never cut in two by another.
 *  LOG-3  bounded: when the reader of a pipe is stuck, lines beyond LOG_BUFFER_BYTES are dropped and counted, and the
 *         count is logged when there is room again. The loop never blocks on a pipe, socket or terminal. */
#ifndef RELAY_LOG_H
#define RELAY_LOG_H

#include "loop.h"

#define LOG_BUFFER_BYTES (256u * 1024) /* about 1,500 lines: what 50 senders log in 25 ms */
#define LOG_LINE_BYTES 2048u           /* longer lines are cut, as syslog(3) users expect */

/* path NULL: stderr, with "Mon dd hh:mm:ss host " in front, or, when it is the journal (JOURNAL_STREAM names it), with "<4>" for a
 * line that begins with "warning:", "<3>" for "error:", "<2>" for "critical:" and "fatal:", "<6>" for all others. Before log_open
 * and after log_close lines go to stderr at once. */
enum err log_open(struct loop *loop, const char *syslog_name, const char *path) MUST_CHECK;
void log_close(void); /* writes what is left */
void log_flush(void); /* now */
/* "<syslog_name>/<service>[pid]: ..." without the newline. */
void log_line(const char *service, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t log_lines_dropped(void);

#endif
