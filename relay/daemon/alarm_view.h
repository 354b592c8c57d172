/* SPDX-License-Identifier: Apache-2.0 */
/* What spool and alarm process tell each other, as JSON objects, one a packet of a SOCK_SEQPACKET pair:
 *
 *   spool -> alarm  {"state": {...}} once a second; {"event": "frame_corrupt", ...} as `spooltool events` shows them;
 *                   {"test": true}
 *   alarm -> spool  {"report": {...}, "smart": [one a configured member, in order]} once a second;
 *                   {"say": "queue_delayed", "member", "evidence"} for the spool's log of events
 *
 * Pure. Both are parts of one program, but what is read is foreign bytes all the same: a verdict, never an assert. */
#ifndef DAEMON_ALARM_VIEW_H
#define DAEMON_ALARM_VIEW_H

#include "alarm_note.h"
#include "json_in.h"
#include "status_doc.h"

#define ALARM_PACKET_BYTES_MAX ((uint32_t)(64 * 1024)) /* 16 members and all conditions take 20 KiB */

void alarm_view_write(const struct status_view *v, struct json_out *j);
void alarm_view_read(const struct json_in *in, struct alarm_view *view_out);
/* ERR_INVALID: no event of this version. */
enum err alarm_event_read(const struct json_in *in, struct alarm_event *event_out) MUST_CHECK;
/* By name. ERR_NOT_FOUND. */
enum err event_parse(const char *name, enum event_kind *kind_out) MUST_CHECK;

#endif
