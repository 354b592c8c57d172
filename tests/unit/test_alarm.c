/* SPDX-License-Identifier: Apache-2.0 */
/* What the alarm process raises, repeats and clears (ALS-1 to ALS-4): its machine, pure, second by second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/alarm_state.h"
#include "daemon/alarm_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S 1000u
#define WALL UINT64_C(1700000000000)
#define REPEAT (600 * S)

static struct {
    struct alarm_state s;
    struct alarm_view v;
    uint64_t now;
    struct alarm_note notes[512];
    uint32_t count;
} w;

static void on_note(void *owner, const struct alarm_note *n)
{
    (void)owner;
    assert_true(w.count < 512);
    w.notes[w.count++] = *n;
}

static int setup(void **state)
{
    struct alarm_limits limits = {.repeat_ms = REPEAT, .late_seconds = 3600};
    (void)state;
    memset(&w, 0, sizeof w);
    w.now = 5000;
    alarm_state_init(&w.s, &limits, w.now);
    w.s.emit = on_note;
    w.v = (struct alarm_view){.mounted = true, .relay_connected = true, .index_ready = true, .pool = "uuid",
                              .state = "healthy", .messages = 10, .member_count = 2,
                              .members = {{.name = "a", .path = "/a", .serial = "SA", .state = "healthy"},
                                          {.name = "b", .path = "/b", .serial = "SB", .state = "healthy"}}};
    return 0;
}

/* The spool reports every second and the machine steps. */
static void pass(uint32_t seconds)
{
    for (uint32_t i = 0; i < seconds; i++) {
        w.now += S;
        alarm_state_saw(&w.s, &w.v, w.now);
        alarm_state_step(&w.s, w.now, WALL + w.now);
    }
}

static void pass_silent(uint32_t seconds)
{
    for (uint32_t i = 0; i < seconds; i++) {
        w.now += S;
        alarm_state_step(&w.s, w.now, WALL + w.now);
    }
}

static uint32_t told(enum event_kind kind, enum alarm_what what)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.count; i++)
        n += w.notes[i].what == what && (what == ALARM_BEAT || w.notes[i].kind == kind);
    return n;
}

static const struct alarm_note *last(void)
{
    assert_true(w.count > 0);
    return &w.notes[w.count - 1];
}

static void a_healthy_pool_is_silent(void **state)
{
    (void)state;
    pass(100000);
    assert_int_equal(w.count, 0);
}

static void what_lasts_is_said_again_and_its_end_once(void **state)
{
    (void)state;
    w.v.below_copies = 3;
    pass(10);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_RAISED), 1);
    assert_string_equal(last()->severity, "critical");
    assert_string_equal(last()->pool, "uuid");
    assert_string_equal(last()->path, "");
    assert_non_null(strstr(last()->evidence, "3 of 10 messages"));
    pass(600);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_REPEATED), 1);
    assert_int_equal(last()->count, 2);
    pass(1200);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_REPEATED), 3);
    w.v.below_copies = 0;
    pass(3000);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED), 1);
    assert_int_equal(last()->what, ALARM_CLEARED);
    assert_non_null(strstr(last()->evidence, "3 of 10 messages")); /* what it was */
    assert_int_equal(w.count, 5);
}

/* Two disks and two copies: at-risk for ever, by choice. */
static void how_a_pool_was_made_is_said_once_and_what_happens_to_it_at_once(void **state)
{
    (void)state;
    snprintf(w.v.state, sizeof w.v.state, "at-risk");
    w.v.lacks_domains = true;
    pass(10000);
    assert_int_equal(told(EVENT_pool_state, ALARM_RAISED), 1);
    assert_string_equal(last()->severity, "warning");
    assert_int_equal(w.count, 1);
    w.v.lacks_domains = false; /* a message with one image: now it is at risk */
    pass(1);
    assert_int_equal(w.count, 1);
    pass(10);
    assert_int_equal(told(EVENT_pool_state, ALARM_RAISED), 2);
    assert_string_equal(last()->severity, "critical");
    pass(1200);
    assert_int_equal(told(EVENT_pool_state, ALARM_REPEATED), 2);
    w.v.lacks_domains = true; /* as it was: not said */
    pass(10000);
    assert_int_equal(w.count, 4);
    snprintf(w.v.state, sizeof w.v.state, "healthy");
    w.v.lacks_domains = false;
    pass(10);
    assert_int_equal(told(EVENT_pool_state, ALARM_CLEARED), 1);
    assert_int_equal(w.count, 5);
}

/* All members of one shelf: mail comes and goes, each with one image. */
static void where_failure_domains_are_wanting_an_empty_queue_ends_nothing(void **state)
{
    (void)state;
    snprintf(w.v.state, sizeof w.v.state, "at-risk");
    w.v.domains_wanting = true;
    pass(100);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_RAISED), 0); /* no mail yet */
    assert_int_equal(told(EVENT_pool_state, ALARM_RAISED), 1);
    for (int i = 0; i < 20; i++) { /* 400 s: less than until it is repeated */
        w.v.below_copies = 1;
        pass(10);
        w.v.below_copies = 0;
        pass(10);
    }
    assert_int_equal(told(EVENT_redundancy_low, ALARM_RAISED), 1);
    assert_int_equal(w.count, 2);
    pass(2 * REPEAT / S);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_REPEATED), 2);
    assert_int_equal(last()->kind, EVENT_redundancy_low); /* the pool's state was said before it */
    assert_non_null(strstr(last()->evidence, "failure domains are wanting"));
    w.v.domains_wanting = false;
    pass(10);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED), 1);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_RAISED), 1);
}

static void what_is_not_known_now_is_not_over(void **state)
{
    (void)state;
    w.v.below_copies = 3;
    w.v.late_seconds = 1e6;
    pass(10);
    w.v.below_copies = 0;
    w.v.late_seconds = 0;
    w.v.mounted = w.v.index_ready = false;
    pass(100);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED) + told(EVENT_queue_delayed, ALARM_CLEARED), 0);
    w.v.mounted = true; /* the index is read back behind */
    pass(100);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED), 1);
    assert_int_equal(told(EVENT_queue_delayed, ALARM_CLEARED), 0);
    w.v.index_ready = true;
    pass(100);
    assert_int_equal(told(EVENT_queue_delayed, ALARM_CLEARED), 1);
}

static void what_comes_and_goes_at_once_is_nothing_and_what_flaps_is_one_alarm(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) { /* one look: ALS-2 */
        w.v.below_copies = 1;
        pass(1);
        w.v.below_copies = 0;
        pass(10);
    }
    assert_int_equal(w.count, 0);
    for (int i = 0; i < 20; i++) {
        w.v.below_copies = 1;
        pass(4);
        w.v.below_copies = 0;
        pass(3);
    }
    assert_int_equal(w.count, 1);
    pass(10);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED), 1);
}

static void a_member_is_told_with_its_path_and_serial(void **state)
{
    (void)state;
    snprintf(w.v.members[1].state, sizeof w.v.members[1].state, "absent");
    snprintf(w.v.members[1].evidence, sizeof w.v.members[1].evidence, "it was pulled");
    pass(10);
    assert_int_equal(w.count, 1);
    assert_int_equal(last()->kind, EVENT_member_state);
    assert_string_equal(last()->member, "b");
    assert_string_equal(last()->path, "/b");
    assert_string_equal(last()->serial, "SB");
    assert_string_equal(last()->evidence, "absent: it was pulled");
    w.v.member_count = 1; /* taken out of the pool: no alarm any more */
    pass(10);
    assert_int_equal(told(EVENT_member_state, ALARM_CLEARED), 1);
}

static void a_suspect_member_has_a_minute(void **state)
{
    (void)state;
    snprintf(w.v.members[0].state, sizeof w.v.members[0].state, "suspect");
    pass(59);
    assert_int_equal(w.count, 0);
    pass(5);
    assert_int_equal(told(EVENT_member_state, ALARM_RAISED), 1);
    snprintf(w.v.members[0].state, sizeof w.v.members[0].state, "spare");
    pass(10);
    assert_int_equal(told(EVENT_member_state, ALARM_CLEARED), 1);
}

static void states_of_the_pool_differ_in_severity(void **state)
{
    static const struct { const char *state, *severity; } rows[] = {
        {"degraded", "warning"}, {"at-risk", "critical"}, {"read-only", "critical"}, {"failed", "critical"}};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        snprintf(w.v.state, sizeof w.v.state, "%s", rows[i].state);
        w.count = 0;
        pass(10);
        assert_int_equal(w.count, 1);
        assert_int_equal(last()->kind, EVENT_pool_state);
        assert_string_equal(last()->severity, rows[i].severity);
        snprintf(w.v.state, sizeof w.v.state, "healthy");
        pass(10);
    }
}

static void mail_that_is_late_is_told_at_the_limit_and_not_before(void **state)
{
    (void)state;
    w.v.late_seconds = 3600;
    pass(100);
    assert_int_equal(w.count, 0);
    w.v.late_seconds = 3600.1;
    pass(2);
    assert_int_equal(told(EVENT_queue_delayed, ALARM_RAISED), 1);
}

static void refusals_are_told_while_they_last_and_a_minute_longer(void **state)
{
    (void)state;
    w.v.refused = 7; /* before we came */
    pass(100);
    assert_int_equal(w.count, 0);
    for (int i = 0; i < 10; i++) {
        w.v.refused++;
        pass(1);
    }
    assert_int_equal(told(EVENT_mail_refused, ALARM_RAISED), 1);
    pass(50);
    assert_int_equal(told(EVENT_mail_refused, ALARM_CLEARED), 0);
    pass(20);
    assert_int_equal(told(EVENT_mail_refused, ALARM_CLEARED), 1);
    w.v.refused = 0; /* another relay begins to count */
    pass(100);
    snprintf(w.v.refusing, sizeof w.v.refusing, "the pool is full");
    pass(10);
    assert_int_equal(told(EVENT_mail_refused, ALARM_RAISED), 2);
    assert_non_null(strstr(last()->evidence, "the pool is full"));
    w.v.refusing[0] = '\0';
    pass(100);
    w.v.relay_connected = false;
    pass(4);
    assert_int_equal(told(EVENT_mail_refused, ALARM_RAISED), 2); /* a reload takes a moment */
    pass(4);
    assert_int_equal(told(EVENT_mail_refused, ALARM_RAISED), 3);
}

static void a_silent_spool_is_told_also_when_it_never_spoke(void **state)
{
    (void)state;
    pass_silent(14);
    assert_int_equal(w.count, 0);
    pass_silent(2);
    assert_int_equal(told(EVENT_spool_silent, ALARM_RAISED), 1);
    pass(10);
    assert_int_equal(told(EVENT_spool_silent, ALARM_CLEARED), 1);
    w.v.below_copies = 1;
    pass(10);
    pass_silent(1200); /* what was known before goes on */
    assert_int_equal(told(EVENT_spool_silent, ALARM_RAISED), 2);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_REPEATED), 2);
    assert_int_equal(told(EVENT_redundancy_low, ALARM_CLEARED), 0);
}

static void the_heart_stops_with_the_spool_and_with_the_relay(void **state)
{
    (void)state;
    w.s.limits.beat_ms = 10 * S;
    pass_silent(14);
    assert_int_equal(told(0, ALARM_BEAT), 0);
    pass(100);
    uint32_t beats = told(0, ALARM_BEAT);
    assert_in_range(beats, 9, 11);
    pass_silent(100);
    assert_in_range(told(0, ALARM_BEAT), beats, beats + 2); /* until the silence is noticed */
    w.v.relay_connected = false;
    pass(2);
    beats = told(0, ALARM_BEAT);
    pass(100);
    assert_int_equal(told(0, ALARM_BEAT), beats);
}

static void a_crowd_of_events_is_one_a_minute_with_its_number(void **state)
{
    struct alarm_event e = {.kind = EVENT_frame_corrupt, .wall_ms = WALL, .member = "a", .evidence = "frame 7"};
    (void)state;
    pass(1);
    for (int i = 0; i < 1000; i++)
        alarm_state_happened(&w.s, &e, w.now);
    assert_int_equal(w.count, 1);
    assert_int_equal(last()->what, ALARM_HAPPENED);
    assert_string_equal(last()->path, "/a");
    snprintf(e.member, sizeof e.member, "b");
    alarm_state_happened(&w.s, &e, w.now); /* another member is another matter */
    assert_int_equal(w.count, 2);
    pass(120);
    assert_int_equal(w.count, 3);
    assert_int_equal(last()->count, 999);
    e.kind = EVENT_index_ready;
    alarm_state_happened(&w.s, &e, w.now);
    e.kind = EVENT_member_state; /* its lasting part is a condition */
    alarm_state_happened(&w.s, &e, w.now);
    assert_int_equal(w.count, 3);
}

static void more_kinds_of_events_than_are_remembered_lose_none(void **state)
{
    (void)state;
    pass(1);
    for (uint32_t i = 0; i < ALARM_EVENTS_MAX * 2; i++) {
        struct alarm_event e = {.kind = EVENT_frame_corrupt, .wall_ms = WALL};
        snprintf(e.member, sizeof e.member, "m%u", i);
        alarm_state_happened(&w.s, &e, w.now + i);
    }
    assert_int_equal(w.count, ALARM_EVENTS_MAX * 2);
}

static void a_failing_disk_is_a_condition(void **state)
{
    (void)state;
    pass(1);
    alarm_state_smart(&w.s, "a", true, "the drive says so", w.now);
    pass(2);
    assert_int_equal(told(EVENT_smart_failing, ALARM_RAISED), 1);
    assert_string_equal(last()->serial, "SA");
    alarm_state_smart(&w.s, "a", false, "", w.now);
    pass(10);
    assert_int_equal(told(EVENT_smart_failing, ALARM_CLEARED), 1);
}

static void a_test_is_said_at_once_and_is_no_alarm(void **state)
{
    struct json_out j = {0};
    (void)state;
    alarm_state_test(&w.s, WALL);
    assert_int_equal(w.count, 1);
    assert_string_equal(last()->severity, "info");
    alarm_note_json(last(), "mx.example.org", &j);
    assert_non_null(strstr(j.bytes, "\"event\":\"alarm_test\""));
    assert_non_null(strstr(j.bytes, "\"runbook\":\"\""));
    json_free(&j);
}

static void every_condition_of_the_largest_pool_has_a_place(void **state)
{
    (void)state;
    w.v.member_count = MEMBERS_MAX;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        snprintf(w.v.members[i].name, sizeof w.v.members[i].name, "m%u", i);
        snprintf(w.v.members[i].state, sizeof w.v.members[i].state, "failed");
        alarm_state_smart(&w.s, w.v.members[i].name, true, "e", w.now);
    }
    snprintf(w.v.state, sizeof w.v.state, "failed");
    w.v.below_copies = 1;
    w.v.late_seconds = 1e9;
    w.v.rebuild_behind = w.v.scrub_blind = true;
    w.v.relay_connected = false;
    pass(20);
    pass_silent(20);
    assert_int_equal(w.count, 2 * MEMBERS_MAX + 7);
    assert_true(2 * MEMBERS_MAX + 7 <= ALARM_CONDITIONS_MAX);
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_healthy_pool_is_silent),
        T(what_lasts_is_said_again_and_its_end_once),
        T(how_a_pool_was_made_is_said_once_and_what_happens_to_it_at_once),
        T(where_failure_domains_are_wanting_an_empty_queue_ends_nothing),
        T(what_is_not_known_now_is_not_over),
        T(what_comes_and_goes_at_once_is_nothing_and_what_flaps_is_one_alarm),
        T(a_member_is_told_with_its_path_and_serial),
        T(a_suspect_member_has_a_minute),
        T(states_of_the_pool_differ_in_severity),
        T(mail_that_is_late_is_told_at_the_limit_and_not_before),
        T(refusals_are_told_while_they_last_and_a_minute_longer),
        T(a_silent_spool_is_told_also_when_it_never_spoke),
        T(the_heart_stops_with_the_spool_and_with_the_relay),
        T(a_crowd_of_events_is_one_a_minute_with_its_number),
        T(more_kinds_of_events_than_are_remembered_lose_none),
        T(a_failing_disk_is_a_condition),
        T(a_test_is_said_at_once_and_is_no_alarm),
        T(every_condition_of_the_largest_pool_has_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
