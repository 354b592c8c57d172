/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics, in Prometheus' exposition format. Every series exists from the first scrape on, with 0 where nothing
 * happened yet, so that an alert on a rate needs no guess. docs/METRICS.md lists them; a test compares. */
#include "alarm_doc.h"
#include "status_doc.h"

#include <log.h>
#include <stdio.h>
#include <string.h>

static void head(struct json_out *j, const char *name, const char *type, const char *help)
{
    text_add(j, "# HELP ironspool_%s %s\n# TYPE ironspool_%s %s\n", name, help, name, type);
}

static void number(struct json_out *j, const char *name, const char *type, const char *help, double value)
{
    head(j, name, type, help);
    text_add(j, "ironspool_%s %.15g\n", name, value);
}

static void gauge(struct json_out *j, const char *name, const char *help, double value)
{
    number(j, name, "gauge", help, value);
}

static void counter(struct json_out *j, const char *name, const char *help, uint64_t value)
{
    number(j, name, "counter", help, (double)value);
}

/* A label's value: backslash, quote and newline are escaped (member names and paths are the operator's). */
static const char *label(const char *value, char text[600])
{
    size_t n = 0;
    for (; *value && n < 590; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            text[n++] = '\\';
        text[n++] = *value == '\n' ? 'n' : *value;
    }
    text[n] = '\0';
    return text;
}

static void pool_metrics(const struct status_view *v, struct json_out *j)
{
    const struct pool_status *p = v->pool;
    head(j, "pool_state", "gauge", "1 for the state the pool is in.");
    for (int s = 0; s < POOL_STATE_COUNT; s++)
        text_add(j, "ironspool_pool_state{state=\"%s\"} %d\n", pool_state_word((enum pool_state)s), p->state == (enum pool_state)s);
    gauge(j, "pool_accepting", "1 while new mail is accepted.", p->accepting == ERR_OK && v->mounted);
    gauge(j, "pool_copies", "Images of every message the configuration asks for.", p->copies);
    gauge(j, "pool_min_copies", "Images below which mail is refused.", p->min_copies);
    gauge(j, "pool_epoch", "Raised by every writable mount and membership change.", (double)p->epoch);
    gauge(j, "pool_bytes", "Bytes of all slots.", (double)p->bytes_total);
    gauge(j, "pool_used_bytes", "Bytes of slots in use.", (double)p->bytes_used);
    gauge(j, "pool_live_bytes", "Bytes of live mail, one copy counted.", (double)p->bytes_live);
    gauge(j, "pool_headroom_bytes", "Live bytes that may come before the loss of a failure domain could not be absorbed.",
          (double)p->bytes_headroom);
    gauge(j, "pool_free_for_mail_bytes", "Bytes new mail may still take.", (double)p->bytes_free_for_mail);
    gauge(j, "segments", "Segments in use.", p->segments);
    gauge(j, "segments_degraded", "Segments with fewer readable images than copies.", p->segments_degraded);
    gauge(j, "messages_below_copies", "Messages with fewer images than copies on members that have not failed. Stays up until it is 0.",
          (double)p->messages_below_copies);
    counter(j, "messages_lost_total", "Messages without any good copy, found since the start.", p->messages_lost);
    counter(j, "frames_total", "Frames committed.", p->frames);
    counter(j, "records_total", "Records committed.", p->records);
    counter(j, "hedges_total", "Commits that were placed elsewhere because a member was slow or failed.", p->hedges);
    counter(j, "segments_compacted_total", "Segments freed by compaction.", p->segments_compacted);
    gauge(j, "absent_wait_seconds", "How long older mail still waits for an absent member.", (double)p->absent_wait_ms / 1e3);
    gauge(j, "index_ready", "1 when the index is complete.", p->index_ready);
    gauge(j, "index_full", "1 while state_directory has no room for the index; new mail is refused.", p->index_full);
    gauge(j, "index_progress_ratio", "Part of the log the index has read back.", p->index_progress);
}

struct member_metric {
    const char *name, *type, *help;
    double (*value)(const struct pool_member_status *m);
};
static double member_bytes(const struct pool_member_status *m) { return (double)m->bytes_total; }
static double member_used(const struct pool_member_status *m) { return (double)m->bytes_used; }
static double member_repaired(const struct pool_member_status *m) { return (double)m->repaired_blocks; }
static double member_writes(const struct pool_member_status *m) { return (double)m->writes; }
static double member_write_bytes(const struct pool_member_status *m) { return (double)m->write_bytes; }
static double member_reads(const struct pool_member_status *m) { return (double)m->reads; }
static double member_read_bytes(const struct pool_member_status *m) { return (double)m->read_bytes; }
static double member_flushes(const struct pool_member_status *m) { return (double)m->flushes; }

static double member_score(const struct pool_member_status *m) { return m->health.score; }
static double member_steers(const struct pool_member_status *m) { return m->health.steers; }
static double member_throttle(const struct pool_member_status *m) { return (double)m->throttle.bytes_per_second; }
static double member_cuts(const struct pool_member_status *m) { return (double)m->throttle.cuts; }

static const struct member_metric member_metrics[] = {
    {"member_bytes", "gauge", "Bytes of the member's slots.", member_bytes},
    {"member_used_bytes", "gauge", "Bytes of the member's slots in use.", member_used},
    {"member_repaired_blocks_total", "counter", "Blocks rewritten from a good image.", member_repaired},
    {"member_writes_total", "counter", "Writes completed.", member_writes},
    {"member_written_bytes_total", "counter", "Bytes written.", member_write_bytes},
    {"member_reads_total", "counter", "Reads completed.", member_reads},
    {"member_read_bytes_total", "counter", "Bytes read.", member_read_bytes},
    {"member_flushes_total", "counter", "Flushes and durable writes completed.", member_flushes},
    {"member_health_score", "gauge", "Against peers and past: 100 nothing, 0 to be taken out.", member_score},
    {"member_steers_total", "counter", "How often new mail was steered away for a while.", member_steers},
    {"member_background_bytes_per_second", "gauge", "What background work may do while mail flows.", member_throttle},
    {"member_background_cuts_total", "counter", "How often background work was cut because mail got slower.", member_cuts},
};

static void member_errors(const struct pool_member_status *m, struct json_out *j)
{
    const struct { const char *kind; uint64_t count; } errors[] = {
        {"read", m->errors_read}, {"write", m->errors_write}, {"flush", m->errors_flush},
        {"checksum", m->errors_checksum}, {"identity", m->errors_identity}, {"timeout", m->errors_timeout}};
    char name[600];
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++)
        text_add(j, "ironspool_member_errors_total{member=\"%s\",kind=\"%s\"} %llu\n", label(m->name, name), errors[i].kind,
                 (unsigned long long)errors[i].count);
}

static void member_durations(const struct pool_member_status *m, struct json_out *j)
{
    const struct { const char *op, *quantile; uint64_t ns; } rows[] = {
        {"write", "0.5", m->write_p50_ns}, {"write", "0.99", m->write_p99_ns},
        {"read", "0.5", m->read_p50_ns}, {"read", "0.99", m->read_p99_ns}};
    char name[600];
    label(m->name, name);
    for (unsigned i = 0; i < 4; i++)
        text_add(j, "ironspool_member_io_duration_seconds{member=\"%s\",op=\"%s\",quantile=\"%s\"} %.9g\n", name, rows[i].op,
                 rows[i].quantile, (double)rows[i].ns / 1e9);
    text_add(j, "ironspool_member_io_duration_seconds_count{member=\"%s\",op=\"write\"} %llu\n", name,
             (unsigned long long)m->writes);
    text_add(j, "ironspool_member_io_duration_seconds_count{member=\"%s\",op=\"read\"} %llu\n", name,
             (unsigned long long)m->reads);
}

static uint64_t class_waiting(const struct pool_member_status *m, enum io_class c) { return m->io[c].waiting; }
static uint64_t class_in_flight(const struct pool_member_status *m, enum io_class c) { return m->io[c].in_flight; }
static uint64_t class_ops(const struct pool_member_status *m, enum io_class c) { return m->io[c].ops; }
static uint64_t class_bytes(const struct pool_member_status *m, enum io_class c) { return m->io[c].bytes; }

static const struct {
    const char *name, *type, *help;
    uint64_t (*value)(const struct pool_member_status *m, enum io_class c);
} class_metrics[] = {
    {"member_io_waiting", "gauge", "Operations that wait for their turn.", class_waiting},
    {"member_io_in_flight", "gauge", "Operations that are with the device.", class_in_flight},
    {"member_io_operations_total", "counter", "Operations answered.", class_ops},
    {"member_io_bytes_total", "counter", "Bytes of operations answered.", class_bytes},
};

static void member_classes(const struct pool_status *p, struct json_out *j)
{
    char name[600];
    for (unsigned k = 0; k < sizeof class_metrics / sizeof class_metrics[0]; k++) {
        head(j, class_metrics[k].name, class_metrics[k].type, class_metrics[k].help);
        for (uint32_t i = 0; i < p->member_count; i++)
            for (enum io_class c = 0; c < IO_CLASS_COUNT; c++)
                text_add(j, "ironspool_%s{member=\"%s\",class=\"%s\"} %llu\n", class_metrics[k].name,
                         label(p->members[i].name, name), io_class_word(c),
                         (unsigned long long)class_metrics[k].value(&p->members[i], c));
    }
}

static void members_metrics(const struct status_view *v, struct json_out *j)
{
    const struct pool_status *p = v->pool;
    char name[600], path[600], serial[600];
    head(j, "member_info", "gauge", "Which disk a member is.");
    for (uint32_t i = 0; i < p->member_count; i++)
        text_add(j, "ironspool_member_info{member=\"%s\",path=\"%s\",serial=\"%s\"} 1\n", label(p->members[i].name, name),
                 label(p->members[i].path, path), label(p->members[i].serial, serial));
    head(j, "member_state", "gauge", "1 for the state the member is in.");
    for (uint32_t i = 0; i < p->member_count; i++)
        for (int s = 0; s < MEMBER_STATE_COUNT; s++)
            text_add(j, "ironspool_member_state{member=\"%s\",state=\"%s\"} %d\n", label(p->members[i].name, name),
                     member_state_word((enum member_state)s), p->members[i].state == (enum member_state)s);
    head(j, "member_errors_total", "counter", "Errors of a member by kind.");
    for (uint32_t i = 0; i < p->member_count; i++)
        member_errors(&p->members[i], j);
    head(j, "member_io_duration_seconds", "summary", "Latency of a member's reads and writes.");
    for (uint32_t i = 0; i < p->member_count; i++)
        member_durations(&p->members[i], j);
    for (unsigned k = 0; k < sizeof member_metrics / sizeof member_metrics[0]; k++) {
        const struct member_metric *m = &member_metrics[k];
        head(j, m->name, m->type, m->help);
        for (uint32_t i = 0; i < p->member_count; i++)
            text_add(j, "ironspool_%s{member=\"%s\"} %.15g\n", m->name, label(p->members[i].name, name),
                     m->value(&p->members[i]));
    }
    member_classes(p, j);
}

static void upkeep_metrics(const struct status_view *v, struct json_out *j)
{
    const struct upkeep_status *u = &v->upkeep;
    gauge(j, "scrub_running", "1 while a scrub pass runs.", u->scrub.state == UPKEEP_RUNNING);
    gauge(j, "scrub_progress_ratio", "Part of this pass that is done.", u->scrub.progress);
    gauge(j, "scrub_last_completed_timestamp_seconds", "When the last pass that missed nothing ended; 0: never.",
          (double)u->scrub.last_completed_ms / 1e3);
    counter(j, "scrub_verified_bytes_total", "Bytes the scrub has verified.", u->scrub.bytes_verified);
    counter(j, "scrub_errors_total", "Errors the scrub has found.", u->scrub.errors_found);
    counter(j, "scrub_repaired_total", "Errors the scrub has found and repaired.", u->scrub.errors_repaired);
    counter(j, "scrub_canaries_total", "Damage put in reserved places to be found.", u->scrub.canaries);
    counter(j, "scrub_canaries_missed_total", "Of these, not found.", u->scrub.canaries_missed);
    gauge(j, "scrub_blind", "1 while the last canary was not found.", u->scrub.blind);
    counter(j, "scrub_readback_bytes_total", "Bytes read back after their commit.", u->scrub.readback_bytes);
    counter(j, "scrub_readback_skipped_bytes_total", "New bytes not read back in time; the next pass reads them.",
            u->scrub.readback_skipped_bytes);
    counter(j, "scrub_surface_bytes_total", "Bytes of free slots read.", u->scrub.surface_bytes);
    gauge(j, "slots_retired", "Slots that are not used because a place there stays bad.", (double)u->scrub.slots_retired);
    gauge(j, "rebuild_running", "1 while images are made again.", u->rebuild.state == UPKEEP_RUNNING);
    gauge(j, "rebuild_remaining_bytes", "Bytes of images still to be made again.", (double)u->rebuild.bytes_remaining);
    gauge(j, "rebuild_remaining_messages", "Messages with fewer images than copies that the rebuild still sees.",
          (double)u->rebuild.messages_remaining);
    counter(j, "rebuild_bytes_total", "Bytes of images made again.", u->rebuild.bytes_rebuilt);
    gauge(j, "rebuild_behind", "1 while redundancy is not restored within its deadline, or will not be at this pace.", u->rebuild.behind);
    head(j, "events_total", "counter", "Events since the start, by kind.");
    for (int e = 0; e < EVENT_COUNT; e++)
        text_add(j, "ironspool_events_total{event=\"%s\",severity=\"%s\"} %llu\n", event_name((enum event_kind)e),
                 event_severity((enum event_kind)e),
                 (unsigned long long)(v->events ? events_log_count(v->events, (enum event_kind)e) : 0));
}

static void queue_metrics(const struct status_view *v, struct json_out *j)
{
    const struct index_counts *q = &v->queue;
    double age = q->messages && q->oldest_ms && v->now_ms > q->oldest_ms ? (double)(v->now_ms - q->oldest_ms) / 1e3 : 0;
    head(j, "queue_messages", "gauge", "Messages in the queue.");
    text_add(j, "ironspool_queue_messages{queue=\"active\"} %llu\nironspool_queue_messages{queue=\"deferred\"} %llu\n"
                "ironspool_queue_messages{queue=\"hold\"} %llu\n", (unsigned long long)q->active,
             (unsigned long long)q->deferred, (unsigned long long)q->hold);
    gauge(j, "queue_recipients", "Recipients still to be served.", (double)q->recipients);
    gauge(j, "queue_bytes", "Bytes of the queue's messages.", (double)q->bytes);
    gauge(j, "queue_oldest_message_age_seconds", "Age of the oldest message in the queue; 0: it is empty.", age);
}

static void delivery_delay(const struct json_in *r, struct json_out *j)
{
    uint64_t sum = 0, count = json_in_count(r, "delivered");
    head(j, "delivery_delay_seconds", "histogram", "From arrival to delivery, per recipient.");
    for (size_t i = 0; i < json_in_items(r, "delay_bounds_ms"); i++) {
        sum += json_in_item_count(r, "delay_buckets", i);
        text_add(j, "ironspool_delivery_delay_seconds_bucket{le=\"%.9g\"} %llu\n",
                 (double)json_in_item_count(r, "delay_bounds_ms", i) / 1e3, (unsigned long long)sum);
    }
    text_add(j, "ironspool_delivery_delay_seconds_bucket{le=\"+Inf\"} %llu\nironspool_delivery_delay_seconds_sum %.9g\n"
                "ironspool_delivery_delay_seconds_count %llu\n", (unsigned long long)count,
             (double)json_in_count(r, "delay_sum_ms") / 1e3, (unsigned long long)count);
}

static void relay_metrics(const struct status_view *v, struct json_out *j)
{
    static const char *const refusals[] = {"relay", "transient", "full", "too_large", "syntax", "limit"};
    const struct json_in *r = v->relay;
    gauge(j, "relay_connected", "1 while a relay process is connected to the spool.", v->relay_connected);
    counter(j, "accepted_total", "Messages answered with 250 since the relay's start.", json_in_count(r, "accepted"));
    counter(j, "accepted_bytes_total", "Their bytes.", json_in_count(r, "accepted_bytes"));
    head(j, "accept_refused_total", "counter", "Refusals by reason.");
    for (unsigned i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "refused.%s", refusals[i]);
        text_add(j, "ironspool_accept_refused_total{reason=\"%s\"} %llu\n", refusals[i],
                 (unsigned long long)json_in_count(r, path));
    }
    counter(j, "delivered_total", "Recipients delivered.", json_in_count(r, "delivered"));
    counter(j, "deferrals_total", "Recipients deferred, each time anew.", json_in_count(r, "deferred"));
    counter(j, "bounced_total", "Recipients bounced.", json_in_count(r, "bounced"));
    counter(j, "expired_total", "Recipients given up after their lifetime.", json_in_count(r, "expired"));
    counter(j, "delivery_attempts_total", "Deliveries begun.", json_in_count(r, "attempts"));
    gauge(j, "deliveries_active", "Deliveries in flight.", json_in_number(r, "active"));
    gauge(j, "destinations_dead", "Destinations that take nothing now.", json_in_number(r, "lanes_dead"));
    gauge(j, "smtpd_sessions", "Sessions open.", json_in_number(r, "sessions"));
    counter(j, "smtpd_sessions_total", "Sessions since the relay's start.", json_in_count(r, "sessions_total"));
    counter(j, "smtpd_tls_sessions_total", "Sessions with TLS.", json_in_count(r, "sessions_tls"));
    gauge(j, "relay_mail_memory_bytes", "Envelopes and bodies the relay holds in memory.", json_in_number(r, "mail_memory"));
    counter(j, "relay_log_lines_dropped_total", "Log lines lost because the log's reader was too slow.",
            json_in_count(r, "log_dropped"));
    delivery_delay(r, j);
}

static void smart_metrics(const struct status_view *v, struct json_out *j)
{
    static const char *const verdicts[] = {"unknown", "passed", "attention", "failing"};
    static const struct { const char *name, *help, *field; } rows[] = {
        {"smart_reallocated", "Sectors the drive has reallocated.", "reallocated"},
        {"smart_pending", "Sectors that wait to be reallocated.", "pending"},
        {"smart_uncorrectable", "Uncorrectable errors the drive has counted.", "uncorrectable"},
        {"smart_media_errors", "NVMe media errors.", "media_errors"},
        {"smart_used_percent", "Part of its life the drive says is used up.", "percentage_used"},
        {"smart_temperature_celsius", "Temperature; 0: not told.", "temperature_celsius"}};
    char name[600], path[32], field[64];
    head(j, "smart_state", "gauge", "1 for what the member's disk says of its health.");
    for (uint32_t i = 0; i < v->pool->member_count; i++) {
        const char *member = v->pool->members[i].name;
        bool known = alarm_doc_smart(v, member, path);
        snprintf(field, sizeof field, "%s.verdict", path);
        const char *verdict = known ? json_in_text(v->alarm, field) : "unknown";
        for (unsigned k = 0; k < 4; k++)
            text_add(j, "ironspool_smart_state{member=\"%s\",state=\"%s\"} %d\n", label(member, name), verdicts[k],
                     strcmp(verdict, verdicts[k]) == 0);
    }
    for (unsigned r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        head(j, rows[r].name, "gauge", rows[r].help);
        for (uint32_t i = 0; i < v->pool->member_count; i++) {
            const char *member = v->pool->members[i].name;
            bool known = alarm_doc_smart(v, member, path);
            snprintf(field, sizeof field, "%s.%s", path, rows[r].field);
            text_add(j, "ironspool_%s{member=\"%s\"} %llu\n", rows[r].name, label(member, name),
                     (unsigned long long)(known ? json_in_count(v->alarm, field) : 0));
        }
    }
}

/* Of `field` of every channel. */
static void channel_metric(const struct status_view *v, const char *name, const char *field, struct json_out *j)
{
    static const char *const channels[] = {"hook", "webhook", "heartbeat"};
    char path[64];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "report.%s.%s", channels[i], field);
        text_add(j, "ironspool_%s{channel=\"%s\"} %llu\n", name, channels[i],
                 (unsigned long long)json_in_count(v->alarm, path));
    }
}

static void alarm_metrics(const struct status_view *v, struct json_out *j)
{
    gauge(j, "alarm_connected", "1 while the alarm process is connected to the spool.", v->alarm_connected);
    gauge(j, "alarms_raised", "Alarms that are raised now.", (double)json_in_items(v->alarm, "report.raised"));
    head(j, "alarm_sent_total", "counter", "Alarms that arrived, by channel.");
    channel_metric(v, "alarm_sent_total", "sent", j);
    head(j, "alarm_failed_total", "counter", "Alarms given up after several tries.");
    channel_metric(v, "alarm_failed_total", "failed", j);
    head(j, "alarm_dropped_total", "counter", "Alarms that made room for newer ones before they could be sent.");
    channel_metric(v, "alarm_dropped_total", "dropped", j);
    gauge(j, "alarm_heartbeat_timestamp_seconds", "When the last heartbeat arrived; 0: none yet.",
          (double)json_in_count(v->alarm, "report.last_heartbeat_ms") / 1e3);
}

void metrics_doc(const struct status_view *v, struct json_out *j)
{
    char engine[600];
    head(j, "build_info", "gauge", "The version that runs.");
    text_add(j, "ironspool_build_info{version=\"%s\",io_engine=\"%s\"} 1\n", IRONSPOOL_VERSION, label(v->io_engine, engine));
    gauge(j, "uptime_seconds", "Since the spool process began.", v->uptime_seconds);
    gauge(j, "fault_injection_enabled", "1 when faults may be injected: never on a machine that holds mail.", v->fault_injection);
    gauge(j, "faults_injected", "Injected faults that are active.", v->fault_count);
    counter(j, "fault_operations_total", "Operations an injected fault has changed.", v->faults_total);
    pool_metrics(v, j);
    members_metrics(v, j);
    upkeep_metrics(v, j);
    queue_metrics(v, j);
    relay_metrics(v, j);
    alarm_metrics(v, j);
    smart_metrics(v, j);
    counter(j, "spool_log_lines_dropped_total", "Log lines lost because the log's reader was too slow.", log_lines_dropped());
}
