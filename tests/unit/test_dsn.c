/* SPDX-License-Identifier: Apache-2.0 */
/* Bounces: what RFC 3464 asks for, within one inline body, whatever the original and the peers said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dsn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mail *original(const char *sender, uint32_t flags)
{
    static uint8_t bytes[4096];
    struct envelope_writer w;
    struct envelope e = {.arrival_ms = 1700000000000, .sender = sender, .sender_len = (uint32_t)strlen(sender),
                         .client = "c", .client_len = 1, .helo = "h", .helo_len = 1};
    assert_int_equal(envelope_begin(&w, bytes, sizeof bytes, &e), ERR_OK);
    assert_int_equal(envelope_add_recipient(&w, "r@b.test", 8), ERR_OK);
    uint32_t len = envelope_end(&w, 10, flags);
    struct mail *m = NULL;
    assert_int_equal(mail_make((struct queue_id){3, 4}, bytes, len, NULL, &m), ERR_OK);
    return m;
}

static char *make(struct mail *m, const struct dsn_recipient *recipients, uint32_t count, const char *head, struct mail **bounce_out)
{
    struct dsn_report r = {.qid = {8, 9}, .mail = m, .to = m->envelope.sender, .to_len = m->envelope.sender_len,
                           .recipients = recipients, .count = count, .head = (const uint8_t *)head,
                           .head_len = (uint32_t)strlen(head), .hostname = "relay.test", .mail_name = "Ironspool",
                           .now_ms = 1700000100000};
    assert_int_equal(dsn_make(&r, bounce_out), ERR_OK);
    return strndup((const char *)(*bounce_out)->body, (*bounce_out)->body_bytes);
}

static void a_bounce_goes_to_the_sender_from_nobody(void **state)
{
    (void)state;
    struct mail *m = original("s@a.test", 0), *b = NULL;
    struct dsn_recipient r = {"r@b.test", 8, "5.1.1", "host h said: 550 no", false, "list@c.test", 11};
    char *text = make(m, &r, 1, "From: s@a.test\r\nSubject: hi\r\n\r\nsecret body\r\n", &b);
    struct envelope_cursor c;
    const char *to;
    uint32_t len;
    assert_int_equal(b->envelope.sender_len, 0);
    assert_true(b->envelope.flags & ENVELOPE_BOUNCE);
    assert_int_equal(b->envelope.recipient_count, 1);
    assert_int_equal(b->envelope.body_bytes, b->body_bytes);
    envelope_recipients(&b->envelope, &c);
    assert_true(envelope_recipient_next(&c, &to, &len));
    assert_memory_equal(to, "s@a.test", 8);
    static const char *const wanted[] = {
        "To: s@a.test\r\n", "Auto-Submitted: auto-replied\r\n", "report-type=delivery-status", "Reporting-MTA: dns; relay.test\r\n",
        "Original-Recipient: rfc822; list@c.test\r\nFinal-Recipient: rfc822; r@b.test\r\n",
        "Action: failed\r\n", "Status: 5.1.1\r\n", "host h said: 550 no",
        "Subject: hi\r\n", "Tue, 14 Nov 2023 22:15:00 +0000",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_non_null(strstr(text, wanted[i]));
    assert_null(strstr(text, "secret body"));
    free(text);
    mail_unref(&m);
    mail_unref(&b);
}

static void check_lines(const char *text)
{
    for (const char *l = text; *l;) {
        const char *eol = strstr(l, "\r\n");
        assert_non_null(eol);
        assert_true(eol - l <= 998);
        for (const char *c = l; c < eol; c++)
            assert_true((unsigned char)*c >= 0x20 || *c == '\t');
        l = eol + 2;
    }
}

static void what_others_said_cannot_leave_its_line(void **state)
{
    (void)state;
    struct mail *m = original("s@a.test", 0), *b = NULL;
    struct dsn_recipient r = {"r@b.test", 8, "5.1.1", "no\r\nBcc: all@a.test\r\n\r\n--x", false, NULL, 0};
    char *text = make(m, &r, 1, "Subject: a\rb\x01\nX: y\r\n--fake-boundary--\r\n\r\n", &b);
    check_lines(text);
    assert_null(strstr(text, "\r\nBcc:"));
    assert_null(strstr(text, "\r\n--fake"));
    free(text);
    mail_unref(&m);
    mail_unref(&b);
}

static void the_largest_bounce_fits_one_body(void **state)
{
    (void)state;
    static char reason[600], address[321], head[20000];
    struct dsn_recipient r[DSN_RECIPIENTS_MAX];
    memset(reason, 'r', sizeof reason - 1);
    memset(address, 'a', sizeof address - 1);
    for (size_t i = 0; i + 3 < sizeof head; i++)
        head[i] = i % 80 == 78 ? '\r' : i % 80 == 79 ? '\n' : 'h';
    for (uint32_t i = 0; i < DSN_RECIPIENTS_MAX; i++)
        r[i] = (struct dsn_recipient){address, 320, "5.123.123", reason, true, address, i % 2 ? 256 : 257};
    struct mail *m = original("s@a.test", ENVELOPE_SMTPUTF8), *b = NULL;
    char *text = make(m, r, DSN_RECIPIENTS_MAX, head, &b);
    assert_true(b->body_bytes <= BODY_INLINE_MAX);
    check_lines(text);
    const char *end = strstr(text, "/report--\r\n");
    assert_non_null(end);
    assert_string_equal(end, "/report--\r\n");
    assert_non_null(strstr(text, "global-delivery-status"));
    free(text);
    mail_unref(&m);
    mail_unref(&b);
}

static void a_header_line_without_end_is_cut(void **state)
{
    (void)state;
    static char head[20000];
    memset(head, 'x', sizeof head - 1);
    head[15000] = '\n';
    struct mail *m = original("s@a.test", 0), *b = NULL;
    struct dsn_recipient r = {"r@b.test", 8, "5.1.1", "", false, NULL, 0};
    char *text = make(m, &r, 1, head, &b);
    check_lines(text);
    free(text);
    mail_unref(&m);
    mail_unref(&b);
}

static void without_the_original_there_is_still_a_bounce(void **state)
{
    (void)state;
    struct mail *m = original("s@a.test", 0), *b = NULL;
    struct dsn_recipient r = {"r@b.test", 8, "4.4.1", "delivery time expired", true, NULL, 0};
    char *text = make(m, &r, 1, "", &b);
    check_lines(text);
    assert_non_null(strstr(text, "Status: 4.4.1"));
    free(text);
    mail_unref(&m);
    mail_unref(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bounce_goes_to_the_sender_from_nobody),
        cmocka_unit_test(what_others_said_cannot_leave_its_line),
        cmocka_unit_test(the_largest_bounce_fits_one_body),
        cmocka_unit_test(a_header_line_without_end_is_cut),
        cmocka_unit_test(without_the_original_there_is_still_a_bounce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
