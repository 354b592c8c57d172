/* SPDX-License-Identifier: Apache-2.0 */
/* A note as a name and as JSON. Pure. See alarm_note.h. */
#include "alarm_note.h"

#include <stdio.h>

const char *alarm_what_word(enum alarm_what what)
{
    switch (what) {
    case ALARM_RAISED: return "raised";
    case ALARM_REPEATED: return "repeated";
    case ALARM_CLEARED: return "cleared";
    case ALARM_HAPPENED: return "event";
    case ALARM_BEAT: break;
    }
    return "heartbeat";
}

void alarm_note_name(const struct alarm_note *n, char name[48])
{
    if (n->what == ALARM_BEAT)
        snprintf(name, 48, "heartbeat");
    else
        snprintf(name, 48, "%s%s", event_name(n->kind), n->what == ALARM_CLEARED ? "_cleared" : "");
}

void alarm_note_json(const struct alarm_note *n, const char *host, struct json_out *j)
{
    bool beat = n->what == ALARM_BEAT;
    char runbook[96];
    snprintf(runbook, sizeof runbook, "docs/runbooks/event-%s.md", beat ? "" : event_name(n->kind));
    json_object_begin(j, NULL);
    json_count(j, "schema", 1);
    json_text(j, "host", host);
    json_text(j, "pool", n->pool);
    json_text(j, "event", beat ? "heartbeat" : event_name(n->kind));
    json_text(j, "what", alarm_what_word(n->what));
    json_text(j, "severity", n->severity ? n->severity : "info");
    json_text(j, "member", n->member);
    json_text(j, "path", n->path);
    json_text(j, "serial", n->serial);
    json_text(j, "text", beat ? "Ironspool is alive" : event_text(n->kind));
    json_text(j, "evidence", n->evidence);
    json_time(j, "time", n->at_ms);
    json_time(j, "since", n->since_ms);
    json_count(j, "count", n->count);
    json_text(j, "runbook", beat || event_severity(n->kind)[0] == 'i' ? "" : runbook);
    json_object_end(j);
}
