/* SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading of the packets' contents. See alarm_view.h. */
#include "alarm_view.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static void member_write(const struct pool_member_status *m, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_text(j, "name", m->name);
    json_text(j, "path", m->path);
    json_text(j, "serial", m->serial);
    json_text(j, "state", member_state_word(m->state));
    json_text(j, "evidence", m->evidence);
    json_object_end(j);
}

void alarm_view_write(const struct status_view *v, struct json_out *j)
{
    const struct pool_status *p = v->pool;
    char uuid[UUID_TEXT];
    bool due = v->queue.due_ms && v->now_ms > v->queue.due_ms && p->index_ready;
    uuid_print(p->uuid, uuid);
    json_object_begin(j, NULL);
    json_object_begin(j, "state");
    json_bool(j, "mounted", v->mounted);
    json_text(j, "pool", v->mounted ? uuid : "");
    json_text(j, "state", pool_state_word(p->state));
    json_bool(j, "lacks_domains", p->lacks_domains);
    json_bool(j, "domains_wanting", p->domains_wanting);
    json_text(j, "action", p->action);
    json_text(j, "refusing", p->accepting == ERR_OK ? "" : err_text(p->accepting));
    json_bool(j, "relay_connected", v->relay_connected);
    json_bool(j, "rebuild_behind", v->upkeep.rebuild.behind);
    json_bool(j, "scrub_blind", v->upkeep.scrub.blind);
    json_bool(j, "index_ready", p->index_ready);
    json_count(j, "messages", p->messages);
    json_count(j, "below_copies", p->messages_below_copies);
    json_count(j, "refused", json_in_count(v->relay, "refused.transient") + json_in_count(v->relay, "refused.full"));
    json_number(j, "late_seconds", due ? (double)(v->now_ms - v->queue.due_ms) / 1000.0 : 0);
    json_array_begin(j, "members");
    for (uint32_t i = 0; i < p->member_count; i++)
        member_write(&p->members[i], j);
    json_array_end(j);
    json_object_end(j);
    json_object_end(j);
}

#define TEXT(to, path) snprintf(to, sizeof to, "%s", json_in_text(in, path))

static void member_read(const struct json_in *in, size_t i, struct alarm_member *m)
{
    static const char *const fields[] = {"name", "path", "serial", "state", "evidence"};
    char *const to[] = {m->name, m->path, m->serial, m->state, m->evidence};
    const size_t room[] = {sizeof m->name, sizeof m->path, sizeof m->serial, sizeof m->state, sizeof m->evidence};
    for (unsigned f = 0; f < 5; f++) {
        char path[64];
        snprintf(path, sizeof path, "state.members.%zu.%s", i, fields[f]);
        snprintf(to[f], room[f], "%s", json_in_text(in, path));
    }
}

void alarm_view_read(const struct json_in *in, struct alarm_view *view_out)
{
    struct alarm_view v = {.mounted = json_in_true(in, "state.mounted"),
                           .relay_connected = json_in_true(in, "state.relay_connected"),
                           .rebuild_behind = json_in_true(in, "state.rebuild_behind"),
                           .scrub_blind = json_in_true(in, "state.scrub_blind"),
                           .lacks_domains = json_in_true(in, "state.lacks_domains"),
                           .domains_wanting = json_in_true(in, "state.domains_wanting"),
                           .index_ready = json_in_true(in, "state.index_ready"),
                           .messages = json_in_count(in, "state.messages"),
                           .below_copies = json_in_count(in, "state.below_copies"),
                           .refused = json_in_count(in, "state.refused"),
                           .late_seconds = json_in_number(in, "state.late_seconds")};
    TEXT(v.pool, "state.pool");
    TEXT(v.state, "state.state");
    TEXT(v.action, "state.action");
    TEXT(v.refusing, "state.refusing");
    size_t members = json_in_items(in, "state.members");
    v.member_count = members < MEMBERS_MAX ? (uint32_t)members : MEMBERS_MAX;
    for (uint32_t i = 0; i < v.member_count; i++)
        member_read(in, i, &v.members[i]);
    *view_out = v;
}

enum err event_parse(const char *name, enum event_kind *kind_out)
{
    for (int k = 0; k < EVENT_COUNT; k++) {
        if (strcmp(event_name((enum event_kind)k), name) == 0) {
            *kind_out = (enum event_kind)k;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

/* As time_print writes it; 0: not a time. */
static uint64_t time_parse(const char *text)
{
    struct tm t = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
    time_t s = rest ? timegm(&t) : 0;
    unsigned ms = 0;
    if (rest && rest[0] == '.' && sscanf(rest + 1, "%3u", &ms) != 1)
        ms = 0;
    return s > 0 ? (uint64_t)s * 1000 + ms : 0;
}

enum err alarm_event_read(const struct json_in *in, struct alarm_event *event_out)
{
    struct alarm_event e = {.wall_ms = time_parse(json_in_text(in, "time"))};
    if (event_parse(json_in_text(in, "event"), &e.kind) != ERR_OK)
        return ERR_INVALID;
    TEXT(e.member, "member");
    TEXT(e.serial, "serial");
    TEXT(e.evidence, "evidence");
    *event_out = e;
    return ERR_OK;
}
