/* SPDX-License-Identifier: Apache-2.0 */
/* What a lane learns about its destination. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lane.h"

#include <stdio.h>
#include <string.h>

static const struct lane_limits limits = {.initial = 5, .max = 20, .backoff_min_ms = 300, .backoff_max_ms = 4000};
static struct lane_table t;
static struct route by_mx = {.kind = ROUTE_SMTP, .mx = true, .port = 25};
static const struct outcome refused = {.status = MARK_DEFERRED, .blame = OUTCOME_HOST, .dsn = "4.4.1", .text = "refused"};

static int setup(void **state)
{
    (void)state;
    return lane_table_open(&t) == ERR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    lane_table_close(&t);
    return 0;
}

static struct lane *find(const struct route *r, const char *domain)
{
    struct lane *lane = NULL;
    assert_int_equal(lane_find(&t, r, domain, (uint32_t)strlen(domain), &lane), ERR_OK);
    lane_configure(lane, &limits);
    return lane;
}

static void a_domain_has_one_lane_and_a_nexthop_one_for_all_domains(void **state)
{
    (void)state;
    struct route relay = {.kind = ROUTE_SMTP, .port = 25, .nexthop = "[r.test]", .host = "r.test"};
    assert_ptr_equal(find(&by_mx, "a.test"), find(&by_mx, "A.TEST"));
    assert_ptr_not_equal(find(&by_mx, "a.test"), find(&by_mx, "b.test"));
    assert_ptr_equal(find(&relay, "a.test"), find(&relay, "b.test"));
    struct route other_port = relay;
    other_port.port = 26;
    assert_ptr_not_equal(find(&relay, "a.test"), find(&other_port, "a.test"));
    assert_string_equal(find(&by_mx, "A.test")->route.host, "a.test");
}

static void concurrency_grows_by_one_for_each_full_window_of_successes(void **state)
{
    (void)state;
    struct lane *lane = find(&by_mx, "a.test");
    assert_int_equal(lane->limit, 5);
    for (int i = 0; i < 4; i++)
        lane_succeeded(lane);
    assert_int_equal(lane->limit, 5);
    lane_succeeded(lane);
    assert_int_equal(lane->limit, 6);
    for (int i = 0; i < 10000; i++)
        lane_succeeded(lane);
    assert_int_equal(lane->limit, 20);
}

static void a_failure_beside_working_connections_only_narrows_the_lane(void **state)
{
    (void)state;
    struct lane *lane = find(&by_mx, "a.test");
    lane->working = lane->sessions = 3;
    assert_false(lane_failed(&t, lane, &limits, 1000, &refused));
    assert_int_equal(lane->limit, 3);
    assert_int_equal(lane->dead_until_ms, 0);
    lane->working = lane->sessions = 0;
}

static void each_death_lasts_twice_as_long_up_to_the_limit(void **state)
{
    (void)state;
    static const uint64_t waits[] = {300, 600, 1200, 2400, 4000, 4000};
    struct lane *lane = find(&by_mx, "a.test");
    uint64_t now = 1000;
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        assert_true(lane_failed(&t, lane, &limits, now, &refused));
        assert_false(lane_failed(&t, lane, &limits, now, &refused)); /* a straggler */
        assert_int_equal(lane->dead_until_ms, now + waits[i]);
        assert_null(lane_wake(&t, now + waits[i] - 1, now, &limits));
        now += waits[i];
        assert_ptr_equal(lane_wake(&t, now, now, &limits), lane);
        assert_int_equal(lane->dead_until_ms, 0);
        assert_int_equal(lane->limit, 1);
    }
    lane_succeeded(lane);
    assert_true(lane_failed(&t, lane, &limits, now, &refused));
    assert_int_equal(lane->dead_until_ms, now + 300);
}

static void a_death_is_remembered_for_a_while_and_then_forgotten(void **state)
{
    (void)state;
    struct lane *lane = find(&by_mx, "a.test");
    assert_true(lane_failed(&t, lane, &limits, 1000, &refused));
    lane_free_when_empty(&t, lane);
    assert_int_equal(t.count, 1);
    assert_ptr_equal(lane_wake(&t, 1300, 1300, &limits), lane);
    lane_free_when_empty(&t, lane);
    assert_int_equal(t.count, 1);
    assert_null(lane_wake(&t, 1300 + 4001, 1300 + 4001, &limits));
    assert_int_equal(t.count, 0);
}

static void a_flush_forgets_all_deaths(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        char domain[32];
        snprintf(domain, sizeof domain, "d%d.test", i);
        assert_true(lane_failed(&t, find(&by_mx, domain), &limits, 1000, &refused));
    }
    assert_int_equal(t.dead, 100);
    uint32_t woken = 0;
    while (lane_wake(&t, UINT64_MAX, 1001, &limits))
        woken++;
    assert_int_equal(woken, 100);
    assert_int_equal(t.dead, 0);
    assert_int_equal(t.count, 0);
}

static void backlog_leaves_room_for_fresh_mail(void **state)
{
    (void)state;
    struct lane *lane = find(&by_mx, "a.test");
    struct job fresh = {.lane = lane}, backlog = {.lane = lane};
    lane->limit = 8;
    link_push(&lane->queue[LANE_FRESH], &fresh.link);
    link_push(&lane->queue[LANE_BACKLOG], &backlog.link);
    lane->busy = lane->busy_of[LANE_BACKLOG] = 6;
    assert_true(lane_can_start(lane, LANE_FRESH));
    assert_false(lane_can_start(lane, LANE_BACKLOG));
    lane->limit = 1;
    lane->busy = lane->busy_of[LANE_BACKLOG] = 0;
    assert_true(lane_can_start(lane, LANE_BACKLOG));
    link_remove(&fresh.link);
    link_remove(&backlog.link);
}

static void backlog_queues_by_its_images_and_the_unreadable_is_last(void **state)
{
    (void)state;
    assert_int_equal(lane_queue_of(LANE_FRESH, 1), LANE_QUEUE_FRESH);
    assert_int_equal(lane_queue_of(LANE_BACKLOG, 1), LANE_QUEUE_RISK);
    assert_int_equal(lane_queue_of(LANE_BACKLOG, 2), LANE_QUEUE_RISK + 1);
    assert_int_equal(lane_queue_of(LANE_BACKLOG, LANE_RANKS), LANE_QUEUES - 1);
    assert_int_equal(lane_queue_of(LANE_BACKLOG, LANE_RANKS + 1), LANE_QUEUES - 1);
    assert_int_equal(lane_queue_of(LANE_BACKLOG, 0), LANE_QUEUES - 1);
    assert_int_equal(lane_class_of(LANE_QUEUES - 1), LANE_BACKLOG);
}

static void the_table_is_bounded_and_says_so(void **state)
{
    (void)state;
    struct lane *lane;
    for (uint32_t i = 0; i < LANES_MAX; i++) {
        char domain[32];
        snprintf(domain, sizeof domain, "d%u.test", i);
        (void)find(&by_mx, domain);
    }
    assert_int_equal(lane_find(&t, &by_mx, "one.more", 8, &lane), ERR_BUSY);
    assert_int_equal(lane_find(&t, &by_mx, "d7.test", 7, &lane), ERR_OK);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_domain_has_one_lane_and_a_nexthop_one_for_all_domains),
        T(concurrency_grows_by_one_for_each_full_window_of_successes),
        T(a_failure_beside_working_connections_only_narrows_the_lane),
        T(each_death_lasts_twice_as_long_up_to_the_limit),
        T(a_death_is_remembered_for_a_while_and_then_forgotten),
        T(a_flush_forgets_all_deaths),
        T(backlog_leaves_room_for_fresh_mail),
        T(backlog_queues_by_its_images_and_the_unreadable_is_last),
        T(the_table_is_bounded_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
