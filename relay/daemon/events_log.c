/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of events. See events_log.h. */
#include "events_log.h"

#include <base/assert.h>
#include <log.h>
#include <stdio.h>
#include <stdlib.h>

struct kept {
    enum event_kind kind;
    uint64_t wall_ms;
    char member[MEMBER_NAME_BYTES], serial[64], evidence[256];
};

struct events_log {
    uint64_t next;
    uint64_t counts[EVENT_COUNT];
    struct kept ring[EVENTS_MAX];
};

enum err events_log_open(struct events_log **log_out)
{
    struct events_log *log = calloc(1, sizeof *log);
    if (!log)
        return ERR_NO_MEMORY;
    log->next = 1;
    *log_out = log;
    return ERR_OK;
}

void events_log_close(struct events_log **log)
{
    free(*log);
    *log = NULL;
}

void events_log_emit(void *owner, const struct event *e)
{
    struct events_log *log = owner;
    struct kept *k = &log->ring[log->next++ % EVENTS_MAX];
    log->counts[e->kind]++;
    k->kind = e->kind;
    k->wall_ms = e->wall_ms;
    snprintf(k->member, sizeof k->member, "%s", e->member);
    snprintf(k->serial, sizeof k->serial, "%s", e->serial);
    snprintf(k->evidence, sizeof k->evidence, "%s", e->evidence);
    const char *severity = event_severity(e->kind);
    log_line("spool", "%s%sevent %s%s%s: %s%s%s", severity[0] == 'i' ? "" : severity, severity[0] == 'i' ? "" : ": ",
             event_name(e->kind), k->member[0] ? " member=" : "", k->member, event_text(e->kind),
             k->evidence[0] ? ": " : "", k->evidence);
}

uint64_t events_log_first(const struct events_log *log)
{
    return log->next > EVENTS_MAX ? log->next - EVENTS_MAX : 1;
}

uint64_t events_log_next(const struct events_log *log)
{
    return log->next;
}

void events_log_write(const struct events_log *log, uint64_t number, struct json_out *j)
{
    ASSERT(number >= events_log_first(log) && number < log->next);
    const struct kept *k = &log->ring[number % EVENTS_MAX];
    json_object_begin(j, NULL);
    json_count(j, "number", number);
    json_time(j, "time", k->wall_ms);
    json_text(j, "event", event_name(k->kind));
    json_text(j, "severity", event_severity(k->kind));
    json_text(j, "member", k->member);
    json_text(j, "serial", k->serial);
    json_text(j, "text", event_text(k->kind));
    json_text(j, "evidence", k->evidence);
    json_object_end(j);
}

uint64_t events_log_count(const struct events_log *log, enum event_kind kind)
{
    return log->counts[kind];
}
