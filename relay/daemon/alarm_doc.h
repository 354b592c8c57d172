/* SPDX-License-Identifier: Apache-2.0 */
/* The alarm process's report in status, as JSON and as text. Pure: a view in, text out. */
#ifndef DAEMON_ALARM_DOC_H
#define DAEMON_ALARM_DOC_H

#include "status_doc.h"

/* Where the report has the disk of a member ("smart.3"), or false. */
bool alarm_doc_smart(const struct status_view *v, const char *member, char path[32]);
void alarm_doc_member(const struct status_view *v, const char *member, struct json_out *j); /* "smart": {...} */
void alarm_doc_json(const struct status_view *v, struct json_out *j);                        /* "alarm": {...} */
void alarm_doc_member_text(const struct status_view *v, const char *member, struct json_out *j);
void alarm_doc_text(const struct status_view *v, struct json_out *j);

#endif
