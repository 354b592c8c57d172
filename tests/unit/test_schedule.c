/* SPDX-License-Identifier: Apache-2.0 */
/* What the schedule promises (SCH-1 to SCH-6), with Maildirs, discards and a host at the other end. */
#include "schedule_parts.h"
#include "schedule_world.h"

static uint64_t later_ms; /* the loop's clock is so far ahead */
uint64_t __real_loop_now_ms(struct loop *loop);
uint64_t __wrap_loop_now_ms(struct loop *loop);
uint64_t __wrap_loop_now_ms(struct loop *loop) { return __real_loop_now_ms(loop) + later_ms; }

static void a_discarded_mail_is_retired_without_marks(void **state)
{
    (void)state;
    open_world("discard");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.mark_count, 1);
    assert_true(g.marks[0].retire);
    assert_int_equal(g.marks[0].count, 0);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.delivered, 1);
    assert_int_equal(c.mails, 0);
}

static void a_maildir_gets_the_bytes_as_they_were_sent(void **state)
{
    (void)state;
    char spec[128], path[1024], text[512] = {0};
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    schedule_fresh(g.schedule, make_mail("User@B.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(files_in("User@b.test/new", path, sizeof path), 1);
    assert_int_equal(files_in("User@b.test/tmp", NULL, 0), 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    assert_string_equal(text, "Return-Path: <from@a.test>\r\nDelivered-To: User@B.test\r\n"
                              "Subject: x\r\n\r\nhello\r\n.dot\r\n");
}

static void a_mail_tried_again_after_a_crash_makes_no_second_copy(void **state)
{
    (void)state;
    char spec[128];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *first = make_mail("u@b.test");
    struct mail *again = NULL;
    uint8_t *body = (uint8_t *)strdup((char *)first->body);
    assert_int_equal(mail_make(first->qid, first->envelope_bytes, first->envelope_len, body, &again), ERR_OK);
    schedule_fresh(g.schedule, first);
    run_until_ended(1);
    schedule_on_due(g.schedule, again);
    run_until_ended(2);
    assert_int_equal(g.retired, 2);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 1);
}

static void a_large_body_reaches_the_maildir_in_pieces(void **state)
{
    (void)state;
    char spec[128], path[1024];
    static uint8_t body[200000];
    for (uint32_t i = 0; i < sizeof body; i++)
        body[i] = "0123456789abcde\n"[i % 16];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test", "v@b.test"}, 2, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(g.fetches, 2);
    struct stat st;
    assert_int_equal(files_in("v@b.test/new", path, sizeof path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > (off_t)sizeof body);
}

static void a_body_that_is_lost_on_the_way_is_not_delivered(void **state)
{
    (void)state;
    char spec[128];
    static uint8_t body[200000];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    g.fetch_error = ERR_LOST;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 0);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 0);
}

static void a_refused_recipient_comes_back_as_a_bounce_in_the_same_mark(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "nobody";
    h.rcpt_reply = "550 5.1.1 no such user\r\n";
    schedule_fresh(g.schedule, make_mail("nobody@b.test"));
    run_until_ended(1);
    assert_true(g.marks[0].retire && g.marks[0].bounce);
    assert_non_null(g.bounce);
    assert_int_equal(g.bounce->envelope.sender_len, 0);
    assert_true(g.bounce->envelope.flags & ENVELOPE_BOUNCE);
    assert_non_null(strstr(g.bounce_body, "Final-Recipient: rfc822; nobody@b.test"));
    assert_non_null(strstr(g.bounce_body, "Status: 5.1.1"));
    assert_non_null(strstr(g.bounce_body, "Subject: x"));
    assert_null(strstr(g.bounce_body, "hello"));
}

static void a_bounce_is_never_bounced(void **state)
{
    (void)state;
    open_world("error:5.1.1 nobody");
    schedule_fresh(g.schedule, make_mail_for("", (const char *const[]){"x@b.test"}, 1, "S: x\r\n\r\n"));
    run_until_ended(1);
    assert_null(g.bounce);
    assert_int_equal(g.retired, 1);
}

static void a_dead_host_defers_everything_for_it_and_is_paused(void **state)
{
    (void)state;
    char spec[64];
    host_open();
    snprintf(spec, sizeof spec, "smtp:[127.0.0.1]:%u", h.port);
    host_close();
    open_world(spec);
    for (int i = 0; i < 50; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(50);
    assert_int_equal(g.released, 50);
    assert_true(g.pauses > 0);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 1);
    assert_int_equal(c.deferred, 50);
    assert_true(c.attempts <= 5);
    assert_non_null(strstr(g.marks[g.mark_count - 1].reason, "refused"));
    assert_true(g.pauses <= 3); /* once, not for each mail */
    assert_true(g.last_pause_until > 0);
    schedule_on_flush(g.schedule);
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 0);
    assert_int_equal(g.last_pause_until, 0);
}

static void results_wait_for_room_and_nothing_starts_meanwhile(void **state)
{
    (void)state;
    open_world("discard");
    g.no_room = true;
    for (int i = 0; i < 10; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_a_while(50);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.attempts, 1);
    assert_int_equal(g.mark_count, 0);
    g.no_room = false;
    schedule_on_room(g.schedule);
    run_until_ended(10);
    assert_int_equal(g.retired, 10);
}

static void a_lease_that_is_gone_costs_its_result_and_nothing_else(void **state)
{
    (void)state;
    open_world("discard");
    g.lease_gone = true;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_a_while(20);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.mails, 0);
    g.lease_gone = false;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
}

static void a_bounce_shows_the_headers_of_a_body_that_has_to_be_fetched(void **state)
{
    (void)state;
    static char body[200000];
    open_host_world("smtp");
    h.refuse_rcpt = "nobody";
    h.rcpt_reply = "550 5.1.1 no such user\r\n";
    memset(body, 'x', sizeof body - 1);
    memcpy(body, "Subject: far away\r\n\r\n", 21);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"nobody@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = (const uint8_t *)body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_non_null(g.bounce);
    assert_non_null(strstr(g.bounce_body, "Subject: far away\r\n"));
    assert_null(strstr(g.bounce_body, "xxxx"));
}

static void what_is_too_old_after_three_attempts_expires(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "x@";
    h.rcpt_reply = "450 4.2.1 later\r\n";
    g.clock_skew_ms = 6ull * 86400 * 1000;
    struct mail *young = make_mail("x@b.test"), *old = make_mail("x@b.test");
    young->attempts = 1;
    old->attempts = 2;
    schedule_on_due(g.schedule, young);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    schedule_on_due(g.schedule, old);
    run_until_ended(2);
    assert_int_equal(g.retired, 1);
    assert_non_null(g.bounce);
    assert_non_null(strstr(g.bounce_body, "delivery time expired"));
}

static void a_recalled_mail_goes_back_without_an_attempt(void **state)
{
    (void)state;
    open_world("discard");
    struct mail *m = make_mail("x@b.test");
    struct queue_id qid = m->qid;
    schedule_fresh(g.schedule, m);
    schedule_on_recall(g.schedule, qid);
    run_until_ended(1);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(g.released, 1);
    assert_int_equal(c.attempts, 0);
}

static void the_hold_transport_defers_and_never_expires(void **state)
{
    (void)state;
    open_world("hold");
    g.clock_skew_ms = 60ull * 86400 * 1000;
    struct mail *m = make_mail("x@b.test");
    m->attempts = 10;
    schedule_on_due(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
}

static void backlog_and_fresh_mail_both_move(void **state)
{
    (void)state;
    open_host_world("smtp");
    for (int i = 0; i < 200; i++)
        schedule_on_due(g.schedule, make_mail("x@b.test"));
    struct mail *fresh[20];
    for (int i = 0; i < 20; i++) {
        fresh[i] = mail_ref(make_mail("x@b.test"));
        schedule_fresh(g.schedule, fresh[i]);
    }
    run_until_ended(220);
    uint32_t last_fresh = 0, backlog_before = 0;
    for (uint32_t i = 0; i < g.mark_count; i++)
        for (int k = 0; k < 20; k++)
            if (queue_id_equal(g.marks[i].qid, fresh[k]->qid))
                last_fresh = i;
    backlog_before = last_fresh + 1 - 20;
    assert_true(backlog_before >= 3);   /* backlog was not starved */
    assert_true(backlog_before <= 60);  /* nor did fresh mail stand behind it */
    for (int i = 0; i < 20; i++)
        mail_unref(&fresh[i]);
}

/* SCH-6 and SCH-2 together. */
static void the_backlog_with_the_fewest_images_starts_first_and_fresh_mail_keeps_its_share(void **state)
{
    (void)state;
    struct mail *risk[10], *fresh[10];
    uint32_t last_risk = 0, last_fresh = 0;
    open_host_world("smtp");
    for (int i = 0; i < 100; i++) {
        struct mail *m = make_mail("x@b.test");
        m->images = i % 2 ? 2 : 0;
        schedule_on_due(g.schedule, m);
    }
    for (int i = 0; i < 10; i++) {
        risk[i] = mail_ref(make_mail("x@b.test"));
        risk[i]->images = 1;
        schedule_on_due(g.schedule, risk[i]);
        fresh[i] = mail_ref(make_mail("x@b.test"));
        schedule_fresh(g.schedule, fresh[i]);
    }
    run_until_ended(120);
    for (uint32_t i = 0; i < g.mark_count; i++) {
        for (int k = 0; k < 10; k++) {
            last_risk = queue_id_equal(g.marks[i].qid, risk[k]->qid) ? i : last_risk;
            last_fresh = queue_id_equal(g.marks[i].qid, fresh[k]->qid) ? i : last_fresh;
        }
    }
    assert_true(last_risk < 60);  /* without the order it would be among the last */
    assert_true(last_fresh < 40); /* three starts of four are its own */
    for (int i = 0; i < 10; i++) {
        mail_unref(&risk[i]);
        mail_unref(&fresh[i]);
    }
}

/* SCH-6: as long as mail in danger keeps coming, here all the time, for what has stood back long enough. */
static void mail_in_danger_does_not_keep_the_rest_of_the_backlog_for_ever(void **state)
{
    (void)state;
    struct mail *whole[5];
    uint32_t last_whole = 0, in_danger = 0;
    open_host_world("smtp");
    for (int i = 0; i < 105; i++) {
        struct mail *m = make_mail("x@b.test");
        m->images = i < 5 ? 2 + (uint32_t)i % 2 : 1;
        if (i < 5)
            whole[i] = mail_ref(m);
        schedule_on_due(g.schedule, m);
        later_ms = i < 4 ? 0 : SCHEDULE_STAND_BACK_MS;
    }
    run_until_ended(105);
    later_ms = 0;
    for (uint32_t i = 0; i < g.mark_count; i++)
        for (int k = 0; k < 5; k++)
            last_whole = queue_id_equal(g.marks[i].qid, whole[k]->qid) ? i : last_whole;
    in_danger = last_whole + 1 - 5;
    assert_true(in_danger <= 60); /* all hundred of them, were there no turn for what has waited */
    assert_true(in_danger >= 10); /* which they have most of the turns before */
    for (int i = 0; i < 5; i++)
        mail_unref(&whole[i]);
}

/* SCH-6: an attempt that came to nothing does not send it to the end of the wait. */
static void what_is_tried_again_has_stood_back_since_it_came(void **state)
{
    (void)state;
    open_host_world("smtp");
    schedule_on_due(g.schedule, make_mail("x@b.test"));
    struct job *job = NULL;
    for (uint32_t i = 0; i < SCHEDULE_BUCKETS && !job; i++)
        LINK_EACH(l, &g.schedule->buckets[i])
            job = CONTAINER_OF(CONTAINER_OF(l, struct item, hash_link)->jobs.next, struct job, item_link);
    assert_non_null(job);
    uint64_t came = job->queued_ms;
    later_ms = SCHEDULE_STAND_BACK_MS;
    schedule_dequeue(g.schedule, job);
    schedule_enqueue(g.schedule, job, true);
    assert_int_equal(job->queued_ms, came);
    schedule_dequeue(g.schedule, job);
    schedule_enqueue(g.schedule, job, false);
    assert_true(job->queued_ms >= came + SCHEDULE_STAND_BACK_MS);
    later_ms = 0;
}

static void one_destinations_backlog_does_not_fill_the_window(void **state)
{
    (void)state;
    open_world("smtp");
    for (uint32_t i = 0; i < 250; i++)
        schedule_on_due(g.schedule, make_mail("x@b.example"));
    assert_int_equal(g.pauses, 0);
    for (uint32_t i = 0; i < 250; i++)
        schedule_on_due(g.schedule, make_mail("x@b.example"));
    assert_int_equal(g.pauses, 1);
    assert_true(g.last_pause_until > 0);
}

static void the_window_over_due_mail_is_bounded(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.greeting = ""; /* it never speaks: what comes, stays */
    run_a_while(10);
    assert_int_equal(g.wanted, SCHEDULE_HELPING); /* nothing came: nothing more is asked for */
    for (uint32_t came = 0, round = 0; round < 30; round++) {
        for (; came < g.wanted; came++)
            schedule_on_due(g.schedule, make_mail("x@b.test"));
        run_a_while(1);
    }
    assert_int_equal(g.wanted, WIRE_DUE_CREDIT_MAX);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.mails, WIRE_DUE_CREDIT_MAX);
}

static void on_drained(void *owner)
{
    (void)owner;
    g.drained = true;
    loop_stop(g.loop);
}

static void draining_waits_for_what_is_in_flight(void **state)
{
    (void)state;
    char spec[128];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(0);
    schedule_drain(g.schedule, on_drained, NULL);
    loop_timer_set(&g.limit, 60000);
    loop_run(g.loop);
    assert_true(g.drained);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.active, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_discarded_mail_is_retired_without_marks),
        T(a_maildir_gets_the_bytes_as_they_were_sent),
        T(a_mail_tried_again_after_a_crash_makes_no_second_copy),
        T(a_large_body_reaches_the_maildir_in_pieces),
        T(a_body_that_is_lost_on_the_way_is_not_delivered),
        T(a_refused_recipient_comes_back_as_a_bounce_in_the_same_mark),
        T(a_bounce_is_never_bounced),
        T(a_dead_host_defers_everything_for_it_and_is_paused),
        T(results_wait_for_room_and_nothing_starts_meanwhile),
        T(a_lease_that_is_gone_costs_its_result_and_nothing_else),
        T(a_bounce_shows_the_headers_of_a_body_that_has_to_be_fetched),
        T(what_is_too_old_after_three_attempts_expires),
        T(a_recalled_mail_goes_back_without_an_attempt),
        T(the_hold_transport_defers_and_never_expires),
        T(backlog_and_fresh_mail_both_move),
        T(the_backlog_with_the_fewest_images_starts_first_and_fresh_mail_keeps_its_share),
        T(what_is_tried_again_has_stood_back_since_it_came),
        T(mail_in_danger_does_not_keep_the_rest_of_the_backlog_for_ever),
        T(one_destinations_backlog_does_not_fill_the_window),
        T(the_window_over_due_mail_is_bounded),
        T(draining_waits_for_what_is_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
