/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of `status --json`, and that every metric is there from the first scrape on and in docs/METRICS.md. */
#include <status_doc.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct pool_status g_pool;

static struct status_view a_view(void)
{
    g_pool = (struct pool_status){.state = POOL_AT_RISK, .copies = 2, .min_copies = 1, .member_count = 2,
                                  .messages_below_copies = 7, .accepting = ERR_OK};
    snprintf(g_pool.members[0].name, sizeof g_pool.members[0].name, "a");
    snprintf(g_pool.members[1].name, sizeof g_pool.members[1].name, "b");
    snprintf(g_pool.members[1].path, sizeof g_pool.members[1].path, "/srv/\"q\\\xff.member");
    g_pool.members[1].state = MEMBER_FAILED;
    g_pool.members[1].since_ms = UINT64_C(1795560662003);
    g_pool.members[1].errors_write = 3;
    g_pool.members[1].health.score = 42;
    snprintf(g_pool.members[1].health.evidence, sizeof g_pool.members[1].health.evidence, "commits take long");
    g_pool.members[1].io[IO_CLASS_SCRUB].waiting = 4;
    g_pool.members[1].io[IO_CLASS_SCRUB].bytes = 8192;
    g_pool.members[1].write_p99_ns = 2500000;
    return (struct status_view){.pool = &g_pool, .mounted = true, .mount_text = "", .io_engine = "sim", .io_why = "test",
                                .uptime_seconds = 12.5, .now_ms = 100000,
                                .queue = {.messages = 3, .recipients = 5, .hold = 1, .oldest_ms = 40000}};
}

static struct json_in *parsed(const struct json_out *j)
{
    struct json_in *in = NULL;
    char why[160] = "";
    assert_false(j->failed);
    assert_int_equal(j->bytes[j->len - 1], '\n');
    enum err e = json_in_parse(j->bytes, j->len, why, &in);
    if (e != ERR_OK)
        print_message("%s\n%s\n", why, j->bytes);
    assert_int_equal(e, ERR_OK);
    return in;
}

static void every_field_of_the_contract_is_there(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "schema", "version", "io_engine", "uptime_seconds", "pool.uuid", "pool.state", "pool.action", "pool.copies",
        "pool.min_copies", "pool.epoch", "pool.bytes_total", "pool.bytes_used", "pool.bytes_live", "pool.bytes_headroom",
        "pool.segments", "pool.messages", "pool.messages_below_copies", "pool.messages_lost", "members", "scrub.state",
        "scrub.progress", "scrub.bytes_verified", "scrub.errors_found", "scrub.errors_repaired", "scrub.eta_seconds",
        "rebuild.state", "rebuild.bytes_remaining", "rebuild.messages_remaining", "rebuild.bytes_per_second",
        "rebuild.eta_seconds", "queue.messages", "queue.recipients", "queue.active", "queue.deferred", "queue.hold",
        "queue.oldest_age_seconds", "faults_injected"};
    struct status_view v = a_view();
    struct json_out j = {0};
    status_doc_json(&v, &j);
    struct json_in *in = parsed(&j);
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (!json_in_has(in, paths[i]))
            print_message("missing: %s\n", paths[i]);
        assert_true(json_in_has(in, paths[i]));
    }
    assert_non_null(strstr(j.bytes, "\"last_completed\":null"));
    assert_string_equal(json_in_text(in, "pool.state"), "at-risk");
    assert_int_equal(json_in_count(in, "pool.messages_below_copies"), 7);
    assert_true(fabs(json_in_number(in, "queue.oldest_age_seconds") - 60.0) < 1e-9);
    assert_int_equal(json_in_items(in, "members"), 2);
    json_in_free(&in);
    json_free(&j);
}

static void members_carry_errors_times_and_text_that_stays_json(void **state)
{
    (void)state;
    struct status_view v = a_view();
    struct json_out j = {0};
    status_doc_members(&v, &j);
    struct json_in *in = parsed(&j);
    json_in_free(&in);
    assert_non_null(strstr(j.bytes, "\"since\":\"2026-11-24T22:51:02.003Z\""));
    assert_non_null(strstr(j.bytes, "\"state\":\"failed\""));
    assert_non_null(strstr(j.bytes, "\"write_p99\":0.0025"));
    assert_non_null(strstr(j.bytes, "/srv/\\\"q\\\\\xef\xbf\xbd.member"));
    assert_non_null(strstr(j.bytes, "\"health\":{\"score\":42,\"evidence\":\"commits take long\",\"avoided\":false,"));
    assert_non_null(strstr(j.bytes, "\"scrub\":{\"waiting\":4,\"in_flight\":0,\"operations\":0,\"bytes\":8192}"));
    json_free(&j);
}

static void strings_of_any_bytes_come_out_as_json(void **state)
{
    (void)state;
    struct json_out j = {0};
    uint64_t seed = 42;
    for (int round = 0; round < 2000; round++) {
        char bytes[24];
        for (unsigned i = 0; i < sizeof bytes; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            bytes[i] = (char)(seed >> 56);
        }
        json_reset(&j);
        json_object_begin(&j, NULL);
        json_bytes(&j, "x", bytes, sizeof bytes);
        json_count(&j, "y", seed);
        json_object_end(&j);
        json_line_end(&j);
        struct json_in *in = NULL;
        bool has_zero = memchr(bytes, 0, sizeof bytes) != NULL; /* jansson refuses \u0000 unless told; JSON allows it */
        enum err e = json_in_parse(j.bytes, j.len, NULL, &in);
        assert_true(e == ERR_OK || has_zero || seed > INT64_MAX);
        json_in_free(&in);
    }
    json_free(&j);
}

static bool sample_is_there(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = strstr(text, name); at; at = strstr(at + 1, name))
        if ((at == text || at[-1] == '\n') && (at[len] == ' ' || at[len] == '{'))
            return true;
    return false;
}

static void injected_faults_are_shown_and_counted(void **state)
{
    (void)state;
    const struct fault_row rows[] = {
        {.id = 3, .kind = "slow", .text = "late", .member = "b", .rate = 0.5, .factor = 20, .to = UINT64_MAX, .seconds_left = 9},
        {.id = 4, .kind = "bit-rot", .text = "rot", .member = "a", .rate = 1, .from = 4096, .to = 8192, .seed = 5, .injected = 6}};
    struct status_view v = a_view();
    struct json_out j = {0}, metrics = {0};
    v.faults = rows;
    v.fault_count = 2;
    v.faults_total = 41;
    status_doc_json(&v, &j);
    struct json_in *in = parsed(&j);
    assert_int_equal(json_in_items(in, "faults_injected"), 2);
    assert_non_null(strstr(j.bytes, "\"id\":3,\"kind\":\"slow\",\"meaning\":\"late\",\"member\":\"b\",\"rate\":0.5,\"factor\":20,"
                                    "\"seed\":0,\"seconds_left\":9,\"injected\":0}"));
    assert_non_null(strstr(j.bytes, "\"from\":4096,\"to\":8192,\"seed\":5,"));
    metrics_doc(&v, &metrics);
    assert_non_null(strstr(metrics.bytes, "\nironspool_faults_injected 2\n"));
    assert_non_null(strstr(metrics.bytes, "\nironspool_fault_operations_total 41\n"));
    json_in_free(&in);
    json_free(&j);
    json_free(&metrics);
}

static void the_contracts_metrics_exist_before_anything_happened(void **state)
{
    (void)state;
    static const char *const names[] = {
        "ironspool_pool_state", "ironspool_messages_below_copies", "ironspool_member_state", "ironspool_member_errors_total",
        "ironspool_member_io_duration_seconds", "ironspool_scrub_last_completed_timestamp_seconds",
        "ironspool_scrub_errors_total", "ironspool_rebuild_remaining_bytes", "ironspool_queue_messages",
        "ironspool_queue_oldest_message_age_seconds", "ironspool_delivery_delay_seconds_count", "ironspool_accepted_total",
        "ironspool_accept_refused_total", "ironspool_delivered_total"};
    struct status_view v = a_view();
    struct json_out j = {0};
    metrics_doc(&v, &j);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!sample_is_there(j.bytes, names[i]))
            print_message("missing: %s\n", names[i]);
        assert_true(sample_is_there(j.bytes, names[i]));
    }
    assert_non_null(strstr(j.bytes, "ironspool_pool_state{state=\"at-risk\"} 1\n"));
    assert_non_null(strstr(j.bytes, "ironspool_pool_state{state=\"healthy\"} 0\n"));
    assert_non_null(strstr(j.bytes, "ironspool_member_errors_total{member=\"b\",kind=\"write\"} 3\n"));
    assert_non_null(strstr(j.bytes, "ironspool_member_health_score{member=\"b\"} 42\n"));
    assert_non_null(strstr(j.bytes, "ironspool_member_io_waiting{member=\"b\",class=\"scrub\"} 4\n"));
    assert_non_null(strstr(j.bytes, "ironspool_member_io_bytes_total{member=\"b\",class=\"scrub\"} 8192\n"));
    assert_non_null(strstr(j.bytes, "ironspool_accept_refused_total{reason=\"full\"} 0\n"));
    json_free(&j);
}

static void the_delay_histogram_is_cumulative(void **state)
{
    (void)state;
    static const char report[] = "{\"delivered\":10,\"delay_sum_ms\":2500,\"delay_bounds_ms\":[100,1000],\"delay_buckets\":[4,3]}";
    struct status_view v = a_view();
    struct json_in *relay = NULL;
    struct json_out j = {0};
    assert_int_equal(json_in_parse(report, sizeof report - 1, NULL, &relay), ERR_OK);
    v.relay = relay;
    metrics_doc(&v, &j);
    assert_non_null(strstr(j.bytes, "ironspool_delivery_delay_seconds_bucket{le=\"0.1\"} 4\n"
                                    "ironspool_delivery_delay_seconds_bucket{le=\"1\"} 7\n"
                                    "ironspool_delivery_delay_seconds_bucket{le=\"+Inf\"} 10\n"
                                    "ironspool_delivery_delay_seconds_sum 2.5\n"));
    json_in_free(&relay);
    json_free(&j);
}

static void what_the_alarm_process_reports_is_shown_and_is_there_without_it(void **state)
{
    (void)state;
    static const char report[] =
        "{\"report\":{\"hook\":{\"configured\":true,\"sent\":3,\"failed\":1,\"dropped\":0,\"waiting\":2},\"last_heartbeat_ms\":5000,"
        "\"raised\":[{\"event\":\"queue_delayed\",\"member\":\"\",\"severity\":\"warning\",\"since_ms\":1000,\"evidence\":\"late\"}]},"
        "\"smart\":[{\"member\":\"b\",\"verdict\":\"failing\",\"evidence\":\"it says so\",\"pending\":12}]}";
    struct status_view v = a_view();
    struct json_in *alarm = NULL, *in;
    struct json_out j = {0};
    status_doc_json(&v, &j);
    in = parsed(&j);
    assert_true(json_in_has(in, "alarm.connected") && json_in_has(in, "alarm.raised") && json_in_has(in, "alarm.hook.sent"));
    assert_string_equal(json_in_text(in, "members.1.smart.verdict"), "unknown");
    json_in_free(&in);
    json_reset(&j);
    assert_int_equal(json_in_parse(report, sizeof report - 1, NULL, &alarm), ERR_OK);
    v.alarm = alarm;
    v.alarm_connected = true;
    status_doc_json(&v, &j);
    in = parsed(&j);
    assert_string_equal(json_in_text(in, "alarm.raised.0.event"), "queue_delayed");
    assert_string_equal(json_in_text(in, "alarm.raised.0.since"), "1970-01-01T00:00:01.000Z");
    assert_int_equal(json_in_count(in, "alarm.hook.waiting"), 2);
    assert_string_equal(json_in_text(in, "members.0.smart.verdict"), "unknown");
    assert_string_equal(json_in_text(in, "members.1.smart.verdict"), "failing");
    assert_int_equal(json_in_count(in, "members.1.smart.pending"), 12);
    json_in_free(&in);
    json_reset(&j);
    metrics_doc(&v, &j);
    assert_non_null(strstr(j.bytes, "ironspool_alarm_sent_total{channel=\"hook\"} 3\n"));
    assert_non_null(strstr(j.bytes, "ironspool_alarms_raised 1\n"));
    assert_non_null(strstr(j.bytes, "ironspool_alarm_heartbeat_timestamp_seconds 5\n"));
    assert_non_null(strstr(j.bytes, "ironspool_smart_state{member=\"b\",state=\"failing\"} 1\n"));
    assert_non_null(strstr(j.bytes, "ironspool_smart_pending{member=\"b\"} 12\n"));
    json_reset(&j);
    status_doc_text(&v, &j);
    assert_non_null(strstr(j.bytes, "SMART failing: it says so"));
    assert_non_null(strstr(j.bytes, "warning: queue_delayed"));
    json_in_free(&alarm);
    json_free(&j);
}

static void every_metric_is_in_the_documentation(void **state)
{
    (void)state;
    char source[512];
    static char doc[65536];
    snprintf(source, sizeof source, "%.*s/docs/METRICS.md", (int)(strstr(__FILE__, "/tests/unit/") - __FILE__), __FILE__);
    FILE *f = fopen(source, "r");
    assert_non_null(f);
    size_t len = fread(doc, 1, sizeof doc - 1, f);
    fclose(f);
    doc[len] = '\0';
    struct status_view v = a_view();
    struct json_out j = {0};
    metrics_doc(&v, &j);
    for (char *line = strtok(j.bytes, "\n"); line; line = strtok(NULL, "\n")) {
        char name[128];
        if (sscanf(line, "# TYPE %100s", name) != 1)
            continue;
        char quoted[132];
        snprintf(quoted, sizeof quoted, "`%s`", name);
        if (!strstr(doc, quoted))
            print_message("not documented: %s\n", name);
        assert_non_null(strstr(doc, quoted));
    }
    json_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_the_contract_is_there),
        cmocka_unit_test(members_carry_errors_times_and_text_that_stays_json),
        cmocka_unit_test(strings_of_any_bytes_come_out_as_json),
        cmocka_unit_test(injected_faults_are_shown_and_counted),
        cmocka_unit_test(the_contracts_metrics_exist_before_anything_happened),
        cmocka_unit_test(the_delay_histogram_is_cumulative),
        cmocka_unit_test(what_the_alarm_process_reports_is_shown_and_is_there_without_it),
        cmocka_unit_test(every_metric_is_in_the_documentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
