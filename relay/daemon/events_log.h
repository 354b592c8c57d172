/* SPDX-License-Identifier: Apache-2.0 */
/* The spool process's memory of what happened: the last EVENTS_MAX events, each also a line in the log. Alarms that
 * matter are gauges too; this ring is for people who ask "what happened". */
#ifndef DAEMON_EVENTS_LOG_H
#define DAEMON_EVENTS_LOG_H

#include "json_out.h"

#include <spoolfs/pool.h>

#define EVENTS_MAX 1000u

struct events_log;

enum err events_log_open(struct events_log **log_out) MUST_CHECK;
void events_log_close(struct events_log **log);
/* For pool_config.sink: `owner` is the struct events_log. */
void events_log_emit(void *owner, const struct event *e);
/* Numbers rise from 1; `next` is the number the next event will get, `first` the oldest still known. */
uint64_t events_log_first(const struct events_log *log);
uint64_t events_log_next(const struct events_log *log);
/* One object; the event must still be known. */
void events_log_write(const struct events_log *log, uint64_t number, struct json_out *j);
uint64_t events_log_count(const struct events_log *log, enum event_kind kind); /* since the start */

#endif
