/* SPDX-License-Identifier: Apache-2.0 */
/* What the alarm process reports, shown. See alarm_doc.h. */
#include "alarm_doc.h"

#include <stdio.h>
#include <string.h>

static const char *const channels[] = {"hook", "webhook", "heartbeat"};
static const char *const smart_counts[] = {"reallocated", "pending", "uncorrectable", "media_errors", "percentage_used",
                                           "critical_warning", "temperature_celsius", "power_on_hours"};
static const char *const smart_texts[] = {"verdict", "evidence", "model", "serial"};

bool alarm_doc_smart(const struct status_view *v, const char *member, char path[32])
{
    char name[48];
    path[0] = '\0';
    for (size_t i = 0; i < json_in_items(v->alarm, "smart") && i < MEMBERS_MAX; i++) {
        snprintf(path, 32, "smart.%zu", i);
        snprintf(name, sizeof name, "%s.member", path);
        if (strcmp(json_in_text(v->alarm, name), member) == 0)
            return true;
    }
    return false;
}

void alarm_doc_member(const struct status_view *v, const char *member, struct json_out *j)
{
    char path[32], name[64];
    bool known = alarm_doc_smart(v, member, path);
    json_object_begin(j, "smart");
    for (unsigned i = 0; i < sizeof smart_texts / sizeof smart_texts[0]; i++) {
        snprintf(name, sizeof name, "%s.%s", path, smart_texts[i]);
        json_text(j, smart_texts[i], known ? json_in_text(v->alarm, name) : i == 0 ? "unknown" : "");
    }
    for (unsigned i = 0; i < sizeof smart_counts / sizeof smart_counts[0]; i++) {
        snprintf(name, sizeof name, "%s.%s", path, smart_counts[i]);
        json_count(j, smart_counts[i], known ? json_in_count(v->alarm, name) : 0);
    }
    json_object_end(j);
}

static void channel_json(const struct status_view *v, const char *channel, struct json_out *j)
{
    static const char *const counts[] = {"sent", "failed", "dropped", "waiting"};
    char path[64];
    json_object_begin(j, channel);
    snprintf(path, sizeof path, "report.%s.configured", channel);
    json_bool(j, "configured", json_in_true(v->alarm, path));
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "report.%s.%s", channel, counts[i]);
        json_count(j, counts[i], json_in_count(v->alarm, path));
    }
    json_object_end(j);
}

static const char *raised(const struct status_view *v, size_t i, const char *field)
{
    char path[64];
    snprintf(path, sizeof path, "report.raised.%zu.%s", i, field);
    return json_in_text(v->alarm, path);
}

static uint64_t raised_count(const struct status_view *v, size_t i, const char *field)
{
    char path[64];
    snprintf(path, sizeof path, "report.raised.%zu.%s", i, field);
    return json_in_count(v->alarm, path);
}

void alarm_doc_json(const struct status_view *v, struct json_out *j)
{
    json_object_begin(j, "alarm");
    json_bool(j, "connected", v->alarm_connected);
    json_array_begin(j, "raised");
    for (size_t i = 0; i < json_in_items(v->alarm, "report.raised"); i++) {
        json_object_begin(j, NULL);
        json_text(j, "event", raised(v, i, "event"));
        json_text(j, "member", raised(v, i, "member"));
        json_text(j, "severity", raised(v, i, "severity"));
        json_time(j, "since", raised_count(v, i, "since_ms"));
        json_text(j, "evidence", raised(v, i, "evidence"));
        json_object_end(j);
    }
    json_array_end(j);
    json_time(j, "last_heartbeat", json_in_count(v->alarm, "report.last_heartbeat_ms"));
    for (unsigned i = 0; i < sizeof channels / sizeof channels[0]; i++)
        channel_json(v, channels[i], j);
    json_object_end(j);
}

void alarm_doc_member_text(const struct status_view *v, const char *member, struct json_out *j)
{
    char path[32], name[64];
    if (!alarm_doc_smart(v, member, path))
        return;
    snprintf(name, sizeof name, "%s.verdict", path);
    const char *verdict = json_in_text(v->alarm, name);
    if (strcmp(verdict, "attention") != 0 && strcmp(verdict, "failing") != 0)
        return;
    text_add(j, "           SMART %s: ", verdict);
    snprintf(name, sizeof name, "%s.evidence", path);
    text_add(j, "%s\n", json_in_text(v->alarm, name));
}

void alarm_doc_text(const struct status_view *v, struct json_out *j)
{
    size_t count = json_in_items(v->alarm, "report.raised");
    if (!v->alarm_connected) {
        text_add(j, "alarms     the alarm process is not connected: nothing is told outside\n");
        return;
    }
    if (count == 0)
        text_add(j, "alarms     none\n");
    for (size_t i = 0; i < count; i++) {
        const char *member = raised(v, i, "member");
        text_add(j, "alarms     %s: %s%s%s\n", raised(v, i, "severity"), raised(v, i, "event"), member[0] ? " " : "", member);
        text_add(j, "           %s\n", raised(v, i, "evidence"));
    }
}
