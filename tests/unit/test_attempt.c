/* SPDX-License-Identifier: Apache-2.0 */
/* Connections and transactions over real sockets: reuse, pipelining, TLS, bodies, and every way a host can fail. */
#include "schedule_world.h"

#include "attempt.h"
#include "self_signed.h"

static void a_host_gets_many_mails_over_few_connections(void **state)
{
    (void)state;
    open_host_world("smtp");
    for (int i = 0; i < 500; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(500);
    assert_int_equal(g.retired, 500);
    assert_int_equal(h.messages, 500);
    assert_in_range(h.most_open, 1, 20);
    assert_in_range(h.connections, 1, 20);
    assert_non_null(strstr(h.body, "hello\r\n.dot\r\n"));
}

static void a_host_without_pipelining_is_spoken_to_step_by_step(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.no_pipelining = true;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.messages, 1);
}

static void recipients_of_one_mail_share_a_transaction_and_keep_their_own_results(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "later";
    h.rcpt_reply = "450 4.2.1 later\r\n";
    static const char *const to[] = {"one@b.test", "later@b.test", "two@c.test"};
    schedule_fresh(g.schedule, make_mail_for("f@a.test", to, 3, "S: x\r\n\r\nb\r\n"));
    run_until_ended(1);
    assert_int_equal(h.messages, 1);
    assert_int_equal(g.mark_count, 1);
    assert_true(g.marks[0].release);
    assert_int_equal(g.marks[0].count, 3);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DELIVERED);
    assert_int_equal(g.marks[0].marks[1].status, MARK_DEFERRED);
    assert_true(g.marks[0].marks[1].deferred_until_ms > loop_wall_ms(g.loop) + 200000);
    assert_int_equal(g.marks[0].marks[2].status, MARK_DELIVERED);
}

static void a_host_that_closes_between_mails_costs_a_new_connection_only(void **state)
{
    (void)state;
    open_host_world("smtp");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    h.drop_at = "MAIL";
    h.drops = 1;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(2);
    assert_int_equal(g.retired, 2);
    assert_int_equal(h.messages, 2);
    assert_int_equal(h.connections, 2);
}

static void a_host_that_says_no_in_its_greeting_is_dead(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.greeting = "554 5.7.1 go away\r\n";
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 1);
}

static void lmtp_answers_for_each_recipient(void **state)
{
    (void)state;
    open_host_world("lmtp");
    h.lmtp = true;
    static const char *const to[] = {"one@b.test", "two@b.test"};
    schedule_fresh(g.schedule, make_mail_for("f@a.test", to, 2, "S: x\r\n\r\nb\r\n"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.messages, 1);
}

static void a_large_body_is_streamed_to_the_host(void **state)
{
    (void)state;
    static uint8_t body[600000];
    for (uint32_t i = 0; i < sizeof body; i++)
        body[i] = "0123456789abcd\r\n"[i % 16];
    open_host_world("smtp");
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 10;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.body_len, sizeof body);
    assert_memory_equal(h.body, body, sizeof body);
}

static void a_body_that_is_lost_never_gets_its_final_dot(void **state)
{
    (void)state;
    static uint8_t body[600000];
    memset(body, 'x', sizeof body);
    open_host_world("smtp");
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 10;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    g.fetch_error = ERR_LOST;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    run_a_while(50);
    assert_int_equal(h.messages, 0);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
}

static void lost_body(uint32_t deferrals, uint64_t age_ms)
{
    open_host_world("smtp");
    g.settings.fresh_bytes_max = 0;
    g.fetch_bytes = (const uint8_t *)"x";
    g.fetch_len = 0;
    g.fetch_error = ERR_LOST;
    struct mail *m = make_mail("x@b.test");
    m->attempts = deferrals;
    m->envelope.arrival_ms = port_clock_ms(NULL) - age_ms;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(h.messages, 0);
}

static void a_body_that_stays_lost_is_told_to_its_sender(void **state)
{
    (void)state;
    lost_body(LOST_DEFERRALS, LOST_AGE_MS);
    assert_int_equal(g.retired, 1);
    assert_non_null(g.bounce);
    assert_non_null(strstr(g.bounce_body, "lost in this system's spool"));
}

static void a_body_that_is_lost_once_more_but_not_for_long_waits(void **state)
{
    (void)state;
    lost_body(LOST_DEFERRALS, LOST_AGE_MS - 60000);
    assert_int_equal(g.released, 1);
    assert_null(g.bounce);
}

static void a_body_that_was_lost_less_often_waits_however_old_it_is(void **state)
{
    (void)state;
    lost_body(LOST_DEFERRALS - 1, 2 * LOST_AGE_MS);
    assert_int_equal(g.released, 1);
    assert_null(g.bounce);
}

static void a_body_that_left_memory_is_fetched(void **state)
{
    (void)state;
    open_host_world("smtp");
    g.settings.fresh_bytes_max = 0;
    g.fetch_bytes = (const uint8_t *)"Subject: x\r\n\r\nhello\r\n.dot\r\n";
    g.fetch_len = strlen((const char *)g.fetch_bytes);
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.fetches, 1);
    assert_int_equal(g.retired, 1);
    assert_non_null(strstr(h.body, "hello\r\n.dot\r\n"));
}

static char g_cert[64];

static void open_tls_host_world(const char *level)
{
    char text[256];
    assert_true(self_signed_make(g_cert));
    assert_int_equal(tls_server_open(g_cert, g_cert, text, &h.tls), ERR_OK);
    snprintf(g.settings.smtp_tls_security_level, sizeof g.settings.smtp_tls_security_level, "%s", level);
    const char *ca = strcmp(level, "verify") == 0 ? g_cert : "";
    snprintf(g.settings.smtp_tls_ca_file, sizeof g.settings.smtp_tls_ca_file, "%s", ca);
    open_host_world("smtp");
    unlink(g_cert);
}

static void tls_is_taken_when_it_is_offered(void **state)
{
    (void)state;
    open_tls_host_world("may");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.handshakes, 1);
    assert_non_null(strstr(h.body, "hello\r\n.dot\r\n"));
}

static void a_host_whose_tls_breaks_gets_the_mail_without_unless_tls_is_required(void **state)
{
    (void)state;
    snprintf(g.settings.smtp_tls_security_level, sizeof g.settings.smtp_tls_security_level, "may");
    h.tls_breaks = true;
    open_host_world("smtp");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.connections, 2);
}

static void required_tls_that_breaks_defers(void **state)
{
    (void)state;
    snprintf(g.settings.smtp_tls_security_level, sizeof g.settings.smtp_tls_security_level, "encrypt");
    h.tls_breaks = true;
    open_host_world("smtp");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(h.messages, 0);
}

static void a_name_that_is_not_proved_gets_nothing(void **state)
{
    (void)state;
    open_tls_host_world("verify"); /* its certificate is for mx.test, its name here is 127.0.0.1 */
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(h.messages, 0);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
}

static void a_name_in_brackets_is_looked_up_without_mx(void **state)
{
    (void)state;
    char spec[64];
    host_open();
    snprintf(spec, sizeof spec, "smtp:[localhost]:%u", h.port);
    open_world(spec);
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
}

static void each_way_a_connection_ends_gives_one_result(void **state)
{
    (void)state;
    static const char *const at[] = {"EHLO", "MAIL", "RCPT", "DATA"};
    open_host_world("smtp");
    for (uint32_t i = 0; i < sizeof at / sizeof *at; i++) {
        h.drop_at = at[i];
        h.drops = 100;
        schedule_fresh(g.schedule, make_mail("x@b.test"));
        run_until_ended(i + 1);
        assert_int_equal(g.released, i + 1);
        schedule_on_flush(g.schedule);
    }
    h.drops = 0;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(5);
    assert_int_equal(g.retired, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_host_gets_many_mails_over_few_connections),
        T(a_host_without_pipelining_is_spoken_to_step_by_step),
        T(recipients_of_one_mail_share_a_transaction_and_keep_their_own_results),
        T(a_host_that_closes_between_mails_costs_a_new_connection_only),
        T(a_host_that_says_no_in_its_greeting_is_dead),
        T(lmtp_answers_for_each_recipient),
        T(a_large_body_is_streamed_to_the_host),
        T(a_body_that_is_lost_never_gets_its_final_dot),
        T(a_body_that_stays_lost_is_told_to_its_sender),
        T(a_body_that_is_lost_once_more_but_not_for_long_waits),
        T(a_body_that_was_lost_less_often_waits_however_old_it_is),
        T(a_body_that_left_memory_is_fetched),
        T(tls_is_taken_when_it_is_offered),
        T(a_host_whose_tls_breaks_gets_the_mail_without_unless_tls_is_required),
        T(required_tls_that_breaks_defers),
        T(a_name_that_is_not_proved_gets_nothing),
        T(a_name_in_brackets_is_looked_up_without_mx),
        T(each_way_a_connection_ends_gives_one_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
