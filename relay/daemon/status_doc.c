/* SPDX-License-Identifier: Apache-2.0 */
/* Status as JSON and as text. See status_doc.h. */
#include "status_doc.h"

#include "alarm_doc.h"

#include <stdio.h>
#include <string.h>

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static double oldest_age(const struct status_view *v)
{
    bool known = v->queue.messages > 0 && v->queue.oldest_ms > 0 && v->now_ms > v->queue.oldest_ms;
    return known ? (double)(v->now_ms - v->queue.oldest_ms) / 1000.0 : 0.0;
}

static void member_io_json(const struct pool_member_status *m, struct json_out *j)
{
    json_object_begin(j, "io");
    for (enum io_class c = 0; c < IO_CLASS_COUNT; c++) {
        json_object_begin(j, io_class_word(c));
        json_count(j, "waiting", m->io[c].waiting);
        json_count(j, "in_flight", m->io[c].in_flight);
        json_count(j, "operations", m->io[c].ops);
        json_count(j, "bytes", m->io[c].bytes);
        json_object_end(j);
    }
    json_object_end(j);
}

static void member_health_json(const struct pool_member_status *m, struct json_out *j)
{
    json_object_begin(j, "health");
    json_count(j, "score", m->health.score);
    json_text(j, "evidence", m->health.evidence);
    json_bool(j, "avoided", m->health.avoided);
    json_bool(j, "stays_out", m->health.stays_out);
    json_count(j, "steers", m->health.steers);
    json_object_end(j);
}

static void member_throttle_json(const struct pool_member_status *m, struct json_out *j)
{
    json_object_begin(j, "throttle");
    json_bool(j, "idle", m->throttle.idle);
    json_count(j, "bytes_per_second", m->throttle.bytes_per_second);
    json_number(j, "baseline_commit_seconds", seconds(m->throttle.baseline_commit_ns));
    json_number(j, "baseline_delivery_seconds", seconds(m->throttle.baseline_delivery_ns));
    json_count(j, "cuts", m->throttle.cuts);
    json_count(j, "raises", m->throttle.raises);
    json_object_end(j);
}

static void member_json(const struct status_view *v, const struct pool_member_status *m, bool more, struct json_out *j)
{
    char uuid[UUID_TEXT];
    uuid_print(m->uuid, uuid);
    json_object_begin(j, NULL);
    json_text(j, "name", m->name);
    json_text(j, "uuid", uuid);
    json_text(j, "path", m->path);
    json_text(j, "serial", m->serial);
    json_text(j, "failure_domain", m->domain);
    json_text(j, "state", member_state_word(m->state));
    json_time(j, "since", m->since_ms);
    json_text(j, "evidence", m->evidence);
    json_count(j, "bytes_total", m->bytes_total);
    json_count(j, "bytes_used", m->bytes_used);
    json_object_begin(j, "errors");
    json_count(j, "read", m->errors_read);
    json_count(j, "write", m->errors_write);
    json_count(j, "flush", m->errors_flush);
    json_count(j, "checksum", m->errors_checksum);
    json_count(j, "identity", m->errors_identity);
    json_count(j, "timeout", m->errors_timeout);
    json_object_end(j);
    json_count(j, "repaired_blocks", m->repaired_blocks);
    json_object_begin(j, "latency_seconds");
    json_number(j, "write_p50", seconds(m->write_p50_ns));
    json_number(j, "write_p99", seconds(m->write_p99_ns));
    json_number(j, "read_p50", seconds(m->read_p50_ns));
    json_number(j, "read_p99", seconds(m->read_p99_ns));
    json_object_end(j);
    member_io_json(m, j);
    alarm_doc_member(v, m->name, j);
    member_throttle_json(m, j);
    member_health_json(m, j);
    if (more) {
        json_text(j, "meaning", member_state_text(m->state));
        json_count(j, "writes", m->writes);
        json_count(j, "write_bytes", m->write_bytes);
        json_count(j, "flushes", m->flushes);
        json_count(j, "reads", m->reads);
        json_count(j, "read_bytes", m->read_bytes);
        json_bool(j, "rotational", m->rotational);
        json_bool(j, "buffered", m->buffered);
        json_text(j, "durable_by", m->durable_by == IO_DURABLE_DSYNC ? "dsync"
                                   : m->durable_by == IO_DURABLE_FLUSH ? "flush" : "unknown");
    }
    json_object_end(j);
}

static void members_json(const struct status_view *v, bool more, struct json_out *j)
{
    json_array_begin(j, "members");
    for (uint32_t i = 0; i < v->pool->member_count; i++)
        member_json(v, &v->pool->members[i], more, j);
    json_array_end(j);
}

static void pool_json(const struct status_view *v, struct json_out *j)
{
    const struct pool_status *p = v->pool;
    char uuid[UUID_TEXT];
    uuid_print(p->uuid, uuid);
    json_object_begin(j, "pool");
    json_text(j, "uuid", uuid);
    json_text(j, "state", pool_state_word(p->state));
    json_text(j, "action", p->action);
    json_text(j, "meaning", v->mounted ? pool_state_text(p->state) : v->mount_text);
    json_count(j, "copies", p->copies);
    json_count(j, "min_copies", p->min_copies);
    json_count(j, "epoch", p->epoch);
    json_count(j, "bytes_total", p->bytes_total);
    json_count(j, "bytes_used", p->bytes_used);
    json_count(j, "bytes_live", p->bytes_live);
    json_count(j, "bytes_headroom", p->bytes_headroom);
    json_count(j, "bytes_free_for_mail", p->bytes_free_for_mail);
    json_count(j, "segments", p->segments);
    json_count(j, "segments_degraded", p->segments_degraded);
    json_count(j, "messages", p->messages);
    json_count(j, "messages_below_copies", p->messages_below_copies);
    json_count(j, "messages_lost", p->messages_lost);
    json_bool(j, "mounted", v->mounted);
    json_text(j, "accepting", p->accepting == ERR_OK ? "yes" : err_text(p->accepting));
    json_number(j, "absent_wait_seconds", (double)p->absent_wait_ms / 1000.0);
    json_count(j, "frames", p->frames);
    json_count(j, "records", p->records);
    json_count(j, "hedges", p->hedges);
    json_count(j, "segments_compacted", p->segments_compacted);
    json_object_end(j);
}

static void upkeep_json(const struct status_view *v, struct json_out *j)
{
    const struct upkeep_status *u = &v->upkeep;
    json_object_begin(j, "scrub");
    json_text(j, "state", upkeep_state_word(u->scrub.state));
    json_number(j, "progress", u->scrub.progress);
    json_time(j, "last_completed", u->scrub.last_completed_ms);
    json_count(j, "bytes_verified", u->scrub.bytes_verified);
    json_count(j, "errors_found", u->scrub.errors_found);
    json_count(j, "errors_repaired", u->scrub.errors_repaired);
    json_count(j, "eta_seconds", u->scrub.eta_seconds);
    json_count(j, "passes", u->scrub.passes);
    json_count(j, "canaries", u->scrub.canaries);
    json_count(j, "canaries_missed", u->scrub.canaries_missed);
    json_bool(j, "blind", u->scrub.blind);
    json_count(j, "readback_bytes", u->scrub.readback_bytes);
    json_count(j, "readback_skipped_bytes", u->scrub.readback_skipped_bytes);
    json_count(j, "surface_bytes", u->scrub.surface_bytes);
    json_count(j, "slots_retired", u->scrub.slots_retired);
    json_object_end(j);
    json_object_begin(j, "rebuild");
    json_text(j, "state", upkeep_state_word(u->rebuild.state));
    json_count(j, "bytes_remaining", u->rebuild.bytes_remaining);
    json_count(j, "messages_remaining", u->rebuild.messages_remaining);
    json_count(j, "bytes_per_second", u->rebuild.bytes_per_second);
    json_count(j, "eta_seconds", u->rebuild.eta_seconds);
    json_count(j, "segments_rebuilt", u->rebuild.segments_rebuilt);
    json_count(j, "bytes_rebuilt", u->rebuild.bytes_rebuilt);
    json_bool(j, "behind", u->rebuild.behind);
    json_object_end(j);
}

static void queue_json(const struct status_view *v, struct json_out *j)
{
    json_object_begin(j, "queue");
    json_count(j, "messages", v->queue.messages);
    json_count(j, "recipients", v->queue.recipients);
    json_count(j, "active", v->queue.active);
    json_count(j, "deferred", v->queue.deferred);
    json_count(j, "hold", v->queue.hold);
    json_number(j, "oldest_age_seconds", oldest_age(v));
    json_bool(j, "index_ready", v->pool->index_ready);
    json_number(j, "index_progress", v->pool->index_progress);
    json_object_end(j);
}

static void relay_json(const struct status_view *v, struct json_out *j)
{
    static const char *const counts[] = {"sessions", "accepted", "delivered", "deferred", "bounced", "expired"};
    json_object_begin(j, "relay");
    json_bool(j, "connected", v->relay_connected);
    json_text(j, "sandbox", json_in_text(v->relay, "sandbox"));
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_count(j, counts[i], json_in_count(v->relay, counts[i]));
    json_object_end(j);
}

void fault_json(const struct fault_row *f, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_count(j, "id", f->id);
    json_text(j, "kind", f->kind);
    json_text(j, "meaning", f->text);
    json_text(j, "member", f->member);
    json_number(j, "rate", f->rate);
    if (f->factor)
        json_count(j, "factor", f->factor);
    if (f->from > 0 || f->to < UINT64_MAX) {
        json_count(j, "from", f->from);
        json_count(j, "to", f->to);
    }
    json_count(j, "seed", f->seed);
    json_number(j, "seconds_left", f->seconds_left);
    json_count(j, "injected", f->injected);
    json_object_end(j);
}

void faults_json(const struct status_view *v, const char *key, struct json_out *j)
{
    json_array_begin(j, key);
    for (uint32_t i = 0; i < v->fault_count; i++)
        fault_json(&v->faults[i], j);
    json_array_end(j);
}

void status_doc_json(const struct status_view *v, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_count(j, "schema", 1);
    json_text(j, "version", IRONSPOOL_VERSION);
    json_text(j, "io_engine", v->io_engine);
    json_text(j, "io_engine_reason", v->io_why);
    json_number(j, "uptime_seconds", v->uptime_seconds);
    pool_json(v, j);
    members_json(v, false, j);
    upkeep_json(v, j);
    queue_json(v, j);
    relay_json(v, j);
    alarm_doc_json(v, j);
    json_bool(j, "fault_injection", v->fault_injection);
    faults_json(v, "faults_injected", j);
    json_object_end(j);
    json_line_end(j);
}

void status_doc_members(const struct status_view *v, struct json_out *j)
{
    json_object_begin(j, NULL);
    members_json(v, true, j);
    json_object_end(j);
    json_line_end(j);
}

/* --- for people --- */

void bytes_print(uint64_t bytes, char text[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double n = (double)bytes;
    unsigned unit = 0;
    while (n >= 1024 && unit < 6) {
        n /= 1024;
        unit++;
    }
    snprintf(text, 24, unit == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[unit]);
}

static void age_print(double s, char text[24])
{
    if (s < 120)
        snprintf(text, 24, "%.0f s", s);
    else if (s < 7200)
        snprintf(text, 24, "%.0f min", s / 60);
    else if (s < 172800)
        snprintf(text, 24, "%.0f h", s / 3600);
    else
        snprintf(text, 24, "%.0f d", s / 86400);
}

static void pool_text(const struct status_view *v, struct json_out *j)
{
    const struct pool_status *p = v->pool;
    char used[24], total[24], live[24], headroom[24], up[24];
    bytes_print(p->bytes_used, used);
    bytes_print(p->bytes_total, total);
    bytes_print(p->bytes_live, live);
    bytes_print(p->bytes_headroom, headroom);
    age_print(v->uptime_seconds, up);
    text_add(j, "pool       %s: %s\n", pool_state_word(p->state), v->mounted ? pool_state_text(p->state) : v->mount_text);
    if (p->action[0])
        text_add(j, "next       %s\n", p->action);
    if (p->accepting != ERR_OK)
        text_add(j, "new mail   refused: %s\n", err_text(p->accepting));
    if (p->absent_wait_ms)
        text_add(j, "older mail waits %llu s for an absent member that may hold newer results\n",
                 (unsigned long long)(p->absent_wait_ms / 1000));
    text_add(j, "copies     %u, at least %u; epoch %llu; io %s; up %s\n", p->copies, p->min_copies,
             (unsigned long long)p->epoch, v->io_engine, up);
    text_add(j, "space      %s of %s used, %s live mail, headroom %s\n", used, total, live, headroom);
    text_add(j, "messages   %llu, %llu below copies, %llu lost\n", (unsigned long long)p->messages,
             (unsigned long long)p->messages_below_copies, (unsigned long long)p->messages_lost);
}

static void queue_text(const struct status_view *v, struct json_out *j)
{
    char age[24];
    age_print(oldest_age(v), age);
    if (!v->pool->index_ready)
        text_add(j, "index      %.0f %% read back; nothing old is delivered before it is complete\n",
                 v->pool->index_progress * 100);
    text_add(j, "queue      %llu messages, %llu recipients: %llu active, %llu deferred, %llu on hold; oldest %s\n",
             (unsigned long long)v->queue.messages, (unsigned long long)v->queue.recipients,
             (unsigned long long)v->queue.active, (unsigned long long)v->queue.deferred,
             (unsigned long long)v->queue.hold, age);
    if (v->relay_connected)
        text_add(j, "relay      %llu sessions, %llu accepted, %llu delivered, %llu deferred, %llu bounced since its start\n",
                 (unsigned long long)json_in_count(v->relay, "sessions"),
                 (unsigned long long)json_in_count(v->relay, "accepted"),
                 (unsigned long long)json_in_count(v->relay, "delivered"),
                 (unsigned long long)json_in_count(v->relay, "deferred"),
                 (unsigned long long)json_in_count(v->relay, "bounced"));
    else
        text_add(j, "relay      not connected\n");
}

static void upkeep_text(const struct status_view *v, struct json_out *j)
{
    const struct upkeep_status *u = &v->upkeep;
    char left[24], last[TIME_TEXT] = "never since the start";
    if (u->scrub.last_completed_ms)
        time_print(u->scrub.last_completed_ms, last);
    text_add(j, "scrub      %s, %.0f %% of this pass; last completed %s; %llu errors found, %llu repaired%s\n",
             upkeep_state_word(u->scrub.state), u->scrub.progress * 100, last, (unsigned long long)u->scrub.errors_found,
             (unsigned long long)u->scrub.errors_repaired, u->scrub.blind ? "; BLIND: it did not find its canary" : "");
    bytes_print(u->rebuild.bytes_remaining, left);
    text_add(j, "rebuild    %s, %s and %llu messages remain%s\n", upkeep_state_word(u->rebuild.state), left,
             (unsigned long long)u->rebuild.messages_remaining, u->rebuild.behind ? "; BEHIND its deadline" : "");
}

static void member_text(const struct status_view *v, const struct pool_member_status *m, struct json_out *j)
{
    char used[24], total[24];
    uint64_t errors = m->errors_read + m->errors_write + m->errors_flush + m->errors_checksum + m->errors_identity +
                      m->errors_timeout;
    bytes_print(m->bytes_used, used);
    bytes_print(m->bytes_total, total);
    text_add(j, "%-10s %-10s %9s %9s %8.1f ms %7llu  %s\n", m->name, member_state_word(m->state), used, total,
             (double)m->write_p99_ns / 1e6, (unsigned long long)errors, m->path);
    if (m->evidence[0])
        text_add(j, "           %s\n", m->evidence);
    alarm_doc_member_text(v, m->name, j);
}

void status_doc_text(const struct status_view *v, struct json_out *j)
{
    text_add(j, "Ironspool %s\n\n", IRONSPOOL_VERSION);
    pool_text(v, j);
    queue_text(v, j);
    upkeep_text(v, j);
    alarm_doc_text(v, j);
    text_add(j, "\n%-10s %-10s %9s %9s %11s %7s  %s\n", "MEMBER", "STATE", "USED", "TOTAL", "WRITE P99", "ERRORS", "PATH");
    for (uint32_t i = 0; i < v->pool->member_count; i++)
        member_text(v, &v->pool->members[i], j);
    uint64_t next = v->events ? events_log_next(v->events) : 1;
    if (next > 1)
        text_add(j, "\n%llu events since %s; the newest: spooltool events\n", (unsigned long long)(next - 1), "the start");
}
