/* SPDX-License-Identifier: Apache-2.0 */
/* The one table from what happened to what it means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "outcome.h"

#include <string.h>

static void replies_decide_by_their_first_digit_and_keep_their_code(void **state)
{
    (void)state;
    struct outcome o;
    outcome_of_reply(250, "2.0.0 Ok: queued as X", NULL, "h[192.0.2.1]", &o);
    assert_int_equal(o.status, MARK_DELIVERED);
    assert_string_equal(o.dsn, "2.0.0");
    assert_string_equal(o.text, "250 2.0.0 Ok: queued as X");
    outcome_of_reply(451, "4.3.2 busy", "RCPT TO", "h[192.0.2.1]", &o);
    assert_int_equal(o.status, MARK_DEFERRED);
    assert_int_equal(o.blame, OUTCOME_MESSAGE);
    assert_string_equal(o.dsn, "4.3.2");
    assert_string_equal(o.text, "host h[192.0.2.1] said: 451 4.3.2 busy (in reply to RCPT TO command)");
    outcome_of_reply(550, "no such user", "RCPT TO", "h", &o);
    assert_int_equal(o.status, MARK_BOUNCED);
    assert_string_equal(o.dsn, "5.0.0");
}

static void an_enhanced_code_that_contradicts_the_reply_is_not_believed(void **state)
{
    (void)state;
    struct outcome o;
    outcome_of_reply(450, "5.1.1 confused", "RCPT TO", "h", &o);
    assert_int_equal(o.status, MARK_DEFERRED);
    assert_string_equal(o.dsn, "4.0.0");
}

static void a_greeting_that_refuses_blames_the_host_and_bounces_nothing(void **state)
{
    (void)state;
    struct outcome o;
    outcome_of_reply(554, "5.7.1 go away", "greeting", "h", &o);
    assert_int_equal(o.status, MARK_DEFERRED);
    assert_int_equal(o.blame, OUTCOME_HOST);
    outcome_of_reply(421, "4.3.2 closing", "MAIL FROM", "h", &o);
    assert_int_equal(o.blame, OUTCOME_HOST);
}

static void no_error_of_our_own_bounces_mail(void **state)
{
    (void)state;
    for (int e = 0; e < ERR_COUNT; e++) {
        struct outcome o;
        outcome_of_err((enum err)e, "something", &o);
        assert_int_equal(o.status, MARK_DEFERRED);
        assert_int_equal(o.dsn[0], '4');
        assert_non_null(strstr(o.text, "something"));
    }
}

static void our_own_sentences_carry_their_code(void **state)
{
    (void)state;
    struct outcome o;
    outcome_of_text("5.1.10 the domain takes no mail", "4.0.0", &o);
    assert_int_equal(o.status, MARK_BOUNCED);
    assert_string_equal(o.dsn, "5.1.10");
    assert_string_equal(o.text, "the domain takes no mail");
    outcome_of_text("without a code", "5.7.1", &o);
    assert_int_equal(o.status, MARK_BOUNCED);
    assert_string_equal(o.text, "without a code");
}

static void control_characters_do_not_survive(void **state)
{
    (void)state;
    struct outcome o;
    outcome_of_reply(550, "5.1.1 a\r\nb\x1b[1m", "RCPT TO", "h", &o);
    for (const char *c = o.text; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static void endless_replies_are_cut(void **state)
{
    (void)state;
    static char text[100000];
    struct outcome o;
    memset(text, 'x', sizeof text - 1);
    outcome_of_reply(550, text, "RCPT TO", text, &o);
    assert_true(strlen(o.text) < REASON_BYTES_MAX);
    outcome_of_text(text, "5.0.0", &o);
    outcome_expire(&o);
    assert_int_equal(strlen(o.text), REASON_BYTES_MAX - 1);
    assert_int_equal(o.status, MARK_EXPIRED);
}

static void enhanced_codes_are_recognised_exactly(void **state)
{
    (void)state;
    char dsn[OUTCOME_DSN_BYTES];
    assert_int_equal(outcome_dsn_in("5.123.123 x", dsn), 9);
    assert_string_equal(dsn, "5.123.123");
    assert_int_equal(outcome_dsn_in("5.1", dsn), 0);
    assert_int_equal(outcome_dsn_in("5.1.", dsn), 0);
    assert_int_equal(outcome_dsn_in("5.1.1234 x", dsn), 0);
    assert_int_equal(outcome_dsn_in("3.1.1 x", dsn), 0);
    assert_int_equal(outcome_dsn_in("5.1.1x", dsn), 0);
    assert_int_equal(outcome_dsn_in("", dsn), 0);
}

static void delays_are_printed_as_postfix_prints_them(void **state)
{
    (void)state;
    char text[OUTCOME_DELAYS_BYTES];
    struct outcome_delays d = {.before_ms = 20, .queue_ms = 0, .connect_ms = 1500, .transmit_ms = 123456};
    outcome_print_delays(&d, text);
    assert_string_equal(text, "0.02/0/1.5/123.46");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_decide_by_their_first_digit_and_keep_their_code),
        cmocka_unit_test(an_enhanced_code_that_contradicts_the_reply_is_not_believed),
        cmocka_unit_test(a_greeting_that_refuses_blames_the_host_and_bounces_nothing),
        cmocka_unit_test(no_error_of_our_own_bounces_mail),
        cmocka_unit_test(our_own_sentences_carry_their_code),
        cmocka_unit_test(control_characters_do_not_survive),
        cmocka_unit_test(endless_replies_are_cut),
        cmocka_unit_test(enhanced_codes_are_recognised_exactly),
        cmocka_unit_test(delays_are_printed_as_postfix_prints_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
