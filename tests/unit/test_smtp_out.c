/* SPDX-License-Identifier: Apache-2.0 */
/* The client machine against scripted peers: every split of their replies, every refusal at every step, nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RCPTS 3

static struct {
    struct smtp_out m;
    char sent[1 << 17];
    uint32_t sent_len;
    int results[RCPTS];        /* how many each recipient got */
    unsigned codes[RCPTS];
    char commands[RCPTS][32];  /* "" for a success */
    uint32_t ready, bodies, failed, tls_started;
    unsigned fail_code;
    char fail_text[SMTP_OUT_TEXT_BYTES + 64];
    bool send_when_ready, sent_one, hold_body;
    struct smtp_out_message msg;
    const char *body;
} g;

static const struct smtp_out_address recipients[RCPTS] = {{"a@x.test", 8}, {"b@x.test", 8}, {"c@x.test", 8}};

static void on_write(void *owner, const void *bytes, size_t len)
{
    (void)owner;
    assert_true(g.sent_len + len < sizeof g.sent);
    memcpy(g.sent + g.sent_len, bytes, len);
    g.sent_len += (uint32_t)len;
    g.sent[g.sent_len] = '\0';
}
static void on_start_tls(void *owner) { (void)owner; g.tls_started++; }
static void on_ready(void *owner)
{
    (void)owner;
    g.ready++;
    if (g.send_when_ready && !g.sent_one) {
        g.sent_one = true;
        assert_null(smtp_out_refusal(&g.m, &g.msg));
        smtp_out_send(&g.m, &g.msg);
    }
}
static void on_body(void *owner)
{
    (void)owner;
    g.bodies++;
    if (g.hold_body)
        return;
    smtp_out_body(&g.m, (const uint8_t *)g.body, strlen(g.body));
    smtp_out_body_end(&g.m);
}
static void on_result(void *owner, uint32_t i, unsigned code, const char *text, const char *command)
{
    (void)owner;
    assert_true(i < RCPTS);
    assert_non_null(text);
    g.results[i]++;
    g.codes[i] = code;
    snprintf(g.commands[i], sizeof g.commands[i], "%s", command ? command : "");
}
static void on_failed(void *owner, unsigned code, const char *text, const char *command)
{
    (void)owner;
    (void)command;
    g.failed++;
    g.fail_code = code;
    snprintf(g.fail_text, sizeof g.fail_text, "%s", text);
}
static const struct smtp_out_callbacks callbacks = {
    .write = on_write, .start_tls = on_start_tls, .on_ready = on_ready, .on_body = on_body, .on_result = on_result,
    .on_failed = on_failed,
};

static void begin(enum smtp_out_tls tls, bool lmtp, uint32_t count)
{
    memset(&g, 0, sizeof g);
    smtp_out_init(&g.m, &callbacks, NULL, "relay.test", tls, lmtp);
    g.send_when_ready = true;
    g.body = "S: x\r\n\r\nhello\r\n";
    g.msg = (struct smtp_out_message){.sender = {"f@y.test", 8}, .recipients = recipients, .count = count,
                                      .body_bytes = strlen(g.body)};
}

static void feed(const char *text)
{
    (void)smtp_out_feed(&g.m, (const uint8_t *)text, strlen(text));
}

#define HELLO "220 h ready\r\n250-h\r\n250-PIPELINING\r\n250 SIZE 5000\r\n"
#define HELLO_SLOW "220 h ready\r\n250 h\r\n"
#define FULL HELLO "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n250 Ok\r\n354 go\r\n250 2.0.0 queued\r\n"

static void check_full(void)
{
    assert_int_equal(g.failed, 0);
    assert_int_equal(g.ready, 2);
    for (int i = 0; i < RCPTS; i++)
        assert_int_equal(g.results[i], 1);
    assert_int_equal(g.codes[0], 250);
    assert_int_equal(g.codes[1], 550);
    assert_string_equal(g.commands[1], "RCPT TO");
    assert_string_equal(g.commands[2], "");
    assert_non_null(strstr(g.sent, "EHLO relay.test\r\nMAIL FROM:<f@y.test> SIZE=15\r\nRCPT TO:<a@x.test>\r\n"
                                   "RCPT TO:<b@x.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\nS: x\r\n\r\nhello\r\n.\r\n"));
}

static void every_split_of_the_replies_gives_the_same_result(void **state)
{
    (void)state;
    for (size_t cut = 0; cut <= strlen(FULL); cut++) {
        begin(SMTP_OUT_TLS_NONE, false, 3);
        (void)smtp_out_feed(&g.m, (const uint8_t *)FULL, cut);
        (void)smtp_out_feed(&g.m, (const uint8_t *)FULL + cut, strlen(FULL) - cut);
        check_full();
    }
    begin(SMTP_OUT_TLS_NONE, false, 3);
    for (size_t i = 0; i < strlen(FULL); i++)
        assert_int_equal(smtp_out_feed(&g.m, (const uint8_t *)FULL + i, 1), 1);
    check_full();
}

static void with_pipelining_all_commands_leave_at_once_and_the_body_waits_for_354(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 2);
    feed(HELLO);
    assert_non_null(strstr(g.sent, "DATA\r\n"));
    assert_int_equal(g.bodies, 0);
    feed("250 Ok\r\n250 Ok\r\n250 Ok\r\n");
    assert_int_equal(g.bodies, 0);
    feed("354 go\r\n");
    assert_int_equal(g.bodies, 1);
}

static void without_pipelining_one_command_waits_for_the_other(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 2);
    feed(HELLO_SLOW);
    assert_null(strstr(g.sent, "RCPT"));
    feed("250 Ok\r\n");
    assert_null(strstr(g.sent, "b@x.test"));
    feed("250 Ok\r\n");
    assert_null(strstr(g.sent, "DATA"));
    feed("250 Ok\r\n");
    assert_non_null(strstr(g.sent, "DATA"));
    feed("354 go\r\n250 Ok\r\n");
    assert_int_equal(g.results[0] + g.results[1], 2);
    assert_int_equal(g.ready, 2);
}

/* at each step, pipelined or not: refusal for now and for good; every recipient gets one result and the machine is
 * ready for the next mail */
static void a_refusal_at_any_step_gives_each_recipient_one_result(void **state)
{
    (void)state;
    static const char *const codes[] = {"450 4.0.0 no\r\n", "550 5.0.0 no\r\n"};
    for (int pipelined = 0; pipelined < 2; pipelined++) {
        for (int refused = 0; refused < 5; refused++) { /* MAIL, RCPT 1, RCPT 2, DATA, dot */
            for (int c = 0; c < 2; c++) {
                begin(SMTP_OUT_TLS_NONE, false, 2);
                feed(pipelined ? HELLO : HELLO_SLOW);
                for (int step = 0; step < 5 && g.ready == 1; step++) {
                    if (step == 3 && !strstr(g.sent, "DATA\r\n"))
                        break;
                    bool after_mail = refused == 0 && step > 0;
                    if (step == refused)
                        feed(codes[c]);
                    else if (step == 3)
                        feed(after_mail ? "503 5.5.1 need RCPT\r\n" : "354 go\r\n");
                    else if (after_mail)
                        feed("503 5.5.1 need MAIL\r\n");
                    else
                        feed("250 Ok\r\n");
                }
                if (g.ready == 1)
                    feed("250 Ok\r\n"); /* RSET */
                assert_int_equal(g.failed, 0);
                assert_int_equal(g.ready, 2);
                for (int i = 0; i < 2; i++)
                    assert_int_equal(g.results[i], 1);
                if (refused != 2)
                    assert_int_equal(g.codes[0], c ? 550 : 450);
                assert_int_equal(g.codes[1] / 100, refused == 1 ? 2 : c ? 5 : 4);
            }
        }
    }
}

static void when_all_recipients_are_refused_a_pipelined_354_is_answered_with_an_empty_message(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 2);
    feed(HELLO "250 Ok\r\n550 no\r\n550 no\r\n354 go\r\n");
    assert_int_equal(g.bodies, 0);
    assert_string_equal(g.sent + g.sent_len - 9, "DATA\r\n.\r\n");
    feed("554 5.5.1 no valid recipients\r\n");
    assert_int_equal(g.ready, 2);
    assert_int_equal(g.results[0], 1);
    assert_int_equal(g.results[1], 1);
}

static void after_an_abandoned_transaction_the_next_begins_clean(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 1);
    feed(HELLO_SLOW "250 Ok\r\n550 no\r\n");
    assert_non_null(strstr(g.sent, "RSET\r\n"));
    assert_int_equal(g.ready, 1);
    feed("250 Ok\r\n");
    assert_int_equal(g.ready, 2);
}

static void nonsense_ends_the_connection(void **state)
{
    (void)state;
    static const char *const nonsense[] = {
        "hello\r\n", "\r\n", "99 x\r\n", "650 x\r\n", "2x0 x\r\n", "250x\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 400 Bad\r\n",
    };
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        begin(SMTP_OUT_TLS_NONE, false, 1);
        feed(nonsense[i]);
        assert_int_equal(g.failed, 1);
        assert_int_equal(g.fail_code, 0);
        begin(SMTP_OUT_TLS_NONE, false, 1);
        feed(HELLO);
        feed(nonsense[i]);
        assert_int_equal(g.failed, 1);
        assert_int_equal(g.results[0], 0);
        feed("250 Ok\r\n"); /* a dead machine takes nothing */
        assert_int_equal(g.failed, 1);
    }
}

static void a_reply_without_end_is_bounded(void **state)
{
    (void)state;
    static uint8_t endless[SMTP_OUT_REPLY_BYTES_MAX + 1000];
    begin(SMTP_OUT_TLS_NONE, false, 1);
    memset(endless, 'x', sizeof endless);
    (void)smtp_out_feed(&g.m, endless, sizeof endless);
    assert_int_equal(g.failed, 1);
    begin(SMTP_OUT_TLS_NONE, false, 1);
    for (int i = 0; i < 100000 && !g.failed; i++)
        feed("220-more and more\r\n");
    assert_int_equal(g.failed, 1);
}

static void long_lines_are_cut_and_nul_bytes_do_not_hide_the_rest(void **state)
{
    (void)state;
    char line[4000];
    begin(SMTP_OUT_TLS_NONE, false, 1);
    memset(line, 'y', sizeof line);
    memcpy(line, "220 ", 4);
    memcpy(line + sizeof line - 3, "\r\n", 3);
    feed(line);
    assert_non_null(strstr(g.sent, "EHLO"));
    (void)smtp_out_feed(&g.m, (const uint8_t *)"250 h\0h\r\n", 9);
    assert_int_equal(g.failed, 0);
    assert_int_equal(g.ready, 1);
}

static void closing_421_fails_the_connection_wherever_it_comes(void **state)
{
    (void)state;
    static const char *const before[] = {"", "220 h\r\n", HELLO, HELLO "250 Ok\r\n", HELLO "250 Ok\r\n250 Ok\r\n",
                                         HELLO "250 Ok\r\n250 Ok\r\n354 go\r\n"};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        begin(SMTP_OUT_TLS_NONE, false, 1);
        feed(before[i]);
        feed("421 4.3.2 closing\r\n");
        assert_int_equal(g.failed, 1);
        assert_int_equal(g.fail_code, 421);
        assert_int_equal(g.results[0], 0);
    }
}

static void a_reply_before_the_end_of_the_body_gives_up_the_connection(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 1);
    g.hold_body = true;
    feed(HELLO "250 Ok\r\n250 Ok\r\n354 go\r\n");
    smtp_out_body(&g.m, (const uint8_t *)"part", 4);
    feed("552 5.3.4 too much\r\n");
    assert_int_equal(g.failed, 1);
    assert_int_equal(g.results[0], 1);
    assert_int_equal(g.codes[0], 552);
    assert_null(strstr(g.sent, "\r\n.\r\n"));
    smtp_out_body_end(&g.m); /* what comes late does nothing */
    assert_null(strstr(g.sent, "\r\n.\r\n"));
}

static void too_many_recipients_is_no_permanent_failure(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 2);
    feed(HELLO "250 Ok\r\n250 Ok\r\n552 too many\r\n");
    assert_int_equal(g.codes[1], 452);
}

static void lmtp_has_one_reply_for_each_accepted_recipient(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, true, 3);
    feed(HELLO);
    assert_non_null(strstr(g.sent, "LHLO relay.test"));
    feed("250 Ok\r\n250 Ok\r\n550 no\r\n250 Ok\r\n354 go\r\n");
    assert_int_equal(g.ready, 1);
    feed("250 2.0.0 one\r\n");
    assert_int_equal(g.results[0], 1);
    assert_int_equal(g.ready, 1);
    feed("452 4.2.2 full\r\n");
    assert_int_equal(g.codes[2], 452);
    assert_int_equal(g.ready, 2);
}

static void helo_is_the_answer_to_a_host_that_knows_no_ehlo(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_MAY, false, 1);
    feed("220 old\r\n502 what\r\n");
    assert_non_null(strstr(g.sent, "HELO relay.test\r\n"));
    feed("250 hi\r\n");
    assert_int_equal(g.ready, 1);
    assert_non_null(strstr(g.sent, "MAIL FROM:<f@y.test>\r\n"));
}

static void tls_is_taken_when_offered_and_everything_said_before_is_forgotten(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_MAY, false, 1);
    feed("220 h\r\n250-h\r\n250-PIPELINING\r\n250 STARTTLS\r\n");
    assert_int_equal(g.ready, 0);
    const char *both = "220 go\r\n250 injected\r\n";
    assert_int_equal(smtp_out_feed(&g.m, (const uint8_t *)both, strlen(both)), 8); /* nothing behind it is taken */
    assert_int_equal(g.tls_started, 1);
    smtp_out_tls_done(&g.m);
    assert_false(g.m.pipelining);
    feed("250-h\r\n250 STARTTLS\r\n");
    assert_int_equal(g.ready, 1);
}

static void required_tls_is_never_given_up(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_REQUIRED, false, 1);
    feed("220 h\r\n250 h\r\n");
    assert_int_equal(g.failed, 1);
    begin(SMTP_OUT_TLS_REQUIRED, false, 1);
    feed("220 h\r\n250 STARTTLS is not the first line\r\n");
    assert_int_equal(g.failed, 1);
    begin(SMTP_OUT_TLS_REQUIRED, false, 1);
    feed("220 h\r\n250-h\r\n250 STARTTLS\r\n454 4.7.0 not now\r\n");
    assert_int_equal(g.failed, 1);
    assert_int_equal(g.ready, 0);
    begin(SMTP_OUT_TLS_MAY, false, 1);
    feed("220 h\r\n250-h\r\n250 STARTTLS\r\n454 4.7.0 not now\r\n");
    assert_int_equal(g.ready, 1);
}

static void what_the_host_cannot_take_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    begin(SMTP_OUT_TLS_NONE, false, 1);
    g.send_when_ready = false;
    feed(HELLO);
    g.msg.body_bytes = 5001;
    assert_non_null(strstr(smtp_out_refusal(&g.m, &g.msg), "5.3.4"));
    g.msg.body_bytes = 5000;
    assert_null(smtp_out_refusal(&g.m, &g.msg));
    g.msg.smtputf8 = true;
    assert_non_null(strstr(smtp_out_refusal(&g.m, &g.msg), "5.6.7"));
    g.msg.smtputf8 = false;
    g.msg.sender = (struct smtp_out_address){"a>b@c", 5};
    assert_non_null(strstr(smtp_out_refusal(&g.m, &g.msg), "5.1.7"));
}

static void an_address_that_could_end_its_command_is_not_expressed(void **state)
{
    (void)state;
    static const char *const bad[] = {"a\r\nDATA@x", "a b@x", "<a@x", "a@x>", "\"open@x", "a\x01@x", "\xc3\xbc@x"};
    static const char *const good[] = {"", "a@x", "\"a b\"@x", "\"a>\\\"b\"@x", "a+b=c@[192.0.2.1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct smtp_out_address a = {bad[i], (uint32_t)strlen(bad[i])};
        assert_false(smtp_out_can_express(&a, false));
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct smtp_out_address a = {good[i], (uint32_t)strlen(good[i])};
        assert_true(smtp_out_can_express(&a, false));
    }
    struct smtp_out_address utf8 = {"\xc3\xbc@x", 4};
    assert_true(smtp_out_can_express(&utf8, true));
}

/* what a peer makes of the bytes: unstuffed lines up to the lone dot */
static uint32_t unstuff(const char *wire, char *out)
{
    uint32_t used = 0;
    for (;;) {
        const char *eol = strstr(wire, "\r\n");
        assert_non_null(eol);
        if (eol - wire == 1 && wire[0] == '.')
            return used;
        if (wire[0] == '.')
            wire++;
        memcpy(out + used, wire, (size_t)(eol + 2 - wire));
        used += (uint32_t)(eol + 2 - wire);
        wire = eol + 2;
    }
}

static void a_body_arrives_whole_however_it_is_cut_in_pieces(void **state)
{
    (void)state;
    static const char body[] = ".\r\n..\r\nline\r\n.dot\r\n\r\n.\r\nx.\r\n";
    char got[256];
    for (size_t a = 0; a <= strlen(body); a++) {
        for (size_t b = a; b <= strlen(body); b++) {
            begin(SMTP_OUT_TLS_NONE, false, 1);
            g.hold_body = true;
            feed(HELLO "250 Ok\r\n250 Ok\r\n354 go\r\n");
            g.sent_len = 0;
            smtp_out_body(&g.m, (const uint8_t *)body, a);
            smtp_out_body(&g.m, (const uint8_t *)body + a, b - a);
            smtp_out_body(&g.m, (const uint8_t *)body + b, strlen(body) - b);
            smtp_out_body_end(&g.m);
            assert_int_equal(unstuff(g.sent, got), strlen(body));
            assert_memory_equal(got, body, strlen(body));
        }
    }
}

static void no_bare_cr_or_lf_leaves_and_nothing_in_a_body_ends_it(void **state)
{
    (void)state;
    static const char *const bodies[] = {"a\n.\nMAIL FROM:<evil@x>\r\n", "a\r\n.\rb\r\n", "a\r.\r\nb", "a\n.\r\nb\r\n",
                                         "\r\r\n.\r\n", "x\r", "", "\n", ".", "\r", "no end"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        for (size_t cut = 0; cut <= strlen(bodies[i]); cut++) {
            begin(SMTP_OUT_TLS_NONE, false, 1);
            g.hold_body = true;
            feed(HELLO "250 Ok\r\n250 Ok\r\n354 go\r\n");
            g.sent_len = 0;
            g.sent[0] = '\0';
            smtp_out_body(&g.m, (const uint8_t *)bodies[i], cut);
            smtp_out_body(&g.m, (const uint8_t *)bodies[i] + cut, strlen(bodies[i]) - cut);
            assert_null(strstr(g.sent, "\r\n.\r\n"));
            assert_int_not_equal(strncmp(g.sent, ".\r\n", 3), 0);
            smtp_out_body_end(&g.m);
            char got[256];
            (void)unstuff(g.sent, got);
            assert_string_equal(g.sent + g.sent_len - 3, ".\r\n");
            for (uint32_t k = 0; k < g.sent_len; k++) {
                if (g.sent[k] == '\n')
                    assert_true(k > 0 && g.sent[k - 1] == '\r');
                if (g.sent[k] == '\r')
                    assert_int_equal(g.sent[k + 1], '\n');
            }
        }
    }
}

static void random_bytes_never_break_the_machine(void **state)
{
    (void)state;
    uint64_t seed = 12345;
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        begin(round & 1 ? SMTP_OUT_TLS_MAY : SMTP_OUT_TLS_NONE, round & 2, 3);
        for (int piece = 0; piece < 6; piece++) {
            static const char alphabet[] = "2345 0-\r\n.abcSTARTTLS";
            for (size_t i = 0; i < sizeof bytes; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                bytes[i] = (uint8_t)alphabet[(seed >> 33) % (sizeof alphabet - 1)];
            }
            if (piece == 0)
                feed("220 h\r\n250-h\r\n250 PIPELINING\r\n");
            (void)smtp_out_feed(&g.m, bytes, sizeof bytes);
        }
        for (int i = 0; i < 3; i++)
            assert_in_range(g.results[i], 0, 1);
        assert_in_range(g.failed, 0, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_the_replies_gives_the_same_result),
        cmocka_unit_test(with_pipelining_all_commands_leave_at_once_and_the_body_waits_for_354),
        cmocka_unit_test(without_pipelining_one_command_waits_for_the_other),
        cmocka_unit_test(a_refusal_at_any_step_gives_each_recipient_one_result),
        cmocka_unit_test(when_all_recipients_are_refused_a_pipelined_354_is_answered_with_an_empty_message),
        cmocka_unit_test(after_an_abandoned_transaction_the_next_begins_clean),
        cmocka_unit_test(nonsense_ends_the_connection),
        cmocka_unit_test(a_reply_without_end_is_bounded),
        cmocka_unit_test(long_lines_are_cut_and_nul_bytes_do_not_hide_the_rest),
        cmocka_unit_test(closing_421_fails_the_connection_wherever_it_comes),
        cmocka_unit_test(a_reply_before_the_end_of_the_body_gives_up_the_connection),
        cmocka_unit_test(too_many_recipients_is_no_permanent_failure),
        cmocka_unit_test(lmtp_has_one_reply_for_each_accepted_recipient),
        cmocka_unit_test(helo_is_the_answer_to_a_host_that_knows_no_ehlo),
        cmocka_unit_test(tls_is_taken_when_offered_and_everything_said_before_is_forgotten),
        cmocka_unit_test(required_tls_is_never_given_up),
        cmocka_unit_test(what_the_host_cannot_take_is_refused_before_it_is_sent),
        cmocka_unit_test(an_address_that_could_end_its_command_is_not_expressed),
        cmocka_unit_test(a_body_arrives_whole_however_it_is_cut_in_pieces),
        cmocka_unit_test(no_bare_cr_or_lf_leaves_and_nothing_in_a_body_ends_it),
        cmocka_unit_test(random_bytes_never_break_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
