/* SPDX-License-Identifier: Apache-2.0 */
/* How an alarm goes out: what waits in a channel (ALQ-1 to ALQ-3), which URLs are taken, which answers are one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/alarm_queue.h"
#include "daemon/alarm_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- channels --- */

static struct alarm_queue q;

static struct alarm_note note_of(enum event_kind kind, const char *member, enum alarm_what what)
{
    struct alarm_note n = {.what = what, .kind = kind, .severity = "warning"};
    snprintf(n.member, sizeof n.member, "%s", member);
    return n;
}

static void put(enum event_kind kind, const char *member, enum alarm_what what)
{
    struct alarm_note n = note_of(kind, member, what);
    alarm_queue_put(&q, &n);
}

static void a_note_is_tried_again_with_pauses_and_given_up(void **state)
{
    uint64_t now = 1000, before = 0;
    (void)state;
    memset(&q, 0, sizeof q);
    put(EVENT_pool_state, "", ALARM_RAISED);
    put(EVENT_frame_corrupt, "a", ALARM_HAPPENED);
    for (uint32_t try = 0; try < ALARM_TRIES_MAX; try++) {
        while (!alarm_queue_next(&q, now))
            now++;
        assert_true(try == 0 || now - before >= (uint64_t)ALARM_RETRY_FIRST_MS << (try - 1));
        assert_null(alarm_queue_next(&q, now)); /* ALQ-3 */
        before = now;
        alarm_queue_done(&q, false, now);
    }
    assert_int_equal(q.failed, 1);
    const struct alarm_note *n = alarm_queue_next(&q, now); /* the next does not pay for the one before */
    assert_non_null(n);
    assert_int_equal(n->kind, EVENT_frame_corrupt);
    alarm_queue_done(&q, true, now);
    assert_int_equal(q.sent, 1);
    assert_int_equal(q.count, 0);
}

static void of_one_condition_the_latest_word_waits(void **state)
{
    (void)state;
    memset(&q, 0, sizeof q);
    put(EVENT_member_state, "a", ALARM_RAISED);
    put(EVENT_member_state, "b", ALARM_RAISED);
    assert_non_null(alarm_queue_next(&q, 0)); /* a's is in flight, and stays as it is */
    put(EVENT_member_state, "a", ALARM_REPEATED);
    put(EVENT_member_state, "b", ALARM_REPEATED);
    assert_int_equal(q.count, 3);
    assert_int_equal(q.notes[0].what, ALARM_RAISED);
    assert_int_equal(q.notes[1].what, ALARM_RAISED); /* nobody has heard of b yet */
    put(EVENT_member_state, "a", ALARM_CLEARED);
    put(EVENT_member_state, "b", ALARM_CLEARED);
    assert_int_equal(q.count, 3);
    assert_int_equal(q.notes[1].what, ALARM_CLEARED);
    put(EVENT_frame_corrupt, "b", ALARM_HAPPENED); /* what happened, happened each time */
    put(EVENT_frame_corrupt, "b", ALARM_HAPPENED);
    assert_int_equal(q.count, 5);
}

static void a_full_channel_drops_the_oldest_that_is_not_in_flight(void **state)
{
    (void)state;
    memset(&q, 0, sizeof q);
    put(EVENT_record_lost, "first", ALARM_HAPPENED);
    assert_non_null(alarm_queue_next(&q, 0));
    for (uint32_t i = 1; i < ALARM_QUEUE_MAX; i++)
        put(EVENT_frame_corrupt, i == 1 ? "second" : "x", ALARM_HAPPENED);
    assert_int_equal(q.dropped, 0);
    assert_int_equal(q.count, ALARM_QUEUE_MAX);
    put(EVENT_frame_corrupt, "last", ALARM_HAPPENED);
    assert_int_equal(q.dropped, 1);
    assert_int_equal(q.count, ALARM_QUEUE_MAX);
    assert_string_equal(q.notes[0].member, "first");
    assert_string_equal(q.notes[1].member, "x");
    assert_string_equal(q.notes[ALARM_QUEUE_MAX - 1].member, "last");
}

/* --- URLs and answers --- */

static void urls_are_taken_apart_or_refused(void **state)
{
    static const struct { const char *text, *host, *target; uint16_t port; bool tls; } good[] = {
        {"http://a.example", "a.example", "/", 80, false},
        {"HTTPS://a.example/x/y?z=1", "a.example", "/x/y?z=1", 443, true},
        {"https://[2001:db8::1]:8443?q", "2001:db8::1", "/?q", 8443, true},
        {"http://127.0.0.1:65535/", "127.0.0.1", "/", 65535, false}};
    static const char *const bad[] = {"", "a.example", "ftp://a/", "http://", "http:///x", "http://a:0/", "http://a:65536/",
                                      "http://a:8x/", "http://a:/", "http://u@a/", "http://a/#f", "http://a/ b", "http://a/\n",
                                      "http://[::1/", "http://[a]/", "http://[::1]x/", "http://\xc3\xa4/"};
    struct alarm_url u;
    char why[256], head[1024];
    (void)state;
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(alarm_url_parse(good[i].text, &u, why), ERR_OK);
        assert_string_equal(u.host, good[i].host);
        assert_string_equal(u.target, good[i].target);
        assert_int_equal(u.port, good[i].port);
        assert_int_equal(u.tls, good[i].tls);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why[0] = '\0';
        if (alarm_url_parse(bad[i], &u, why) != ERR_CONFIG)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_true(why[0] != '\0');
    }
    assert_int_equal(alarm_url_parse("https://[::1]:8443/x", &u, why), ERR_OK);
    size_t len = alarm_url_request(&u, 5, head, sizeof head);
    assert_int_equal(len, strlen(head));
    assert_non_null(strstr(head, "POST /x HTTP/1.1\r\nHost: [::1]:8443\r\n"));
    assert_non_null(strstr(head, "Content-Length: 5\r\n"));
    assert_int_equal(alarm_url_request(&u, 0, head, 20), 0);
}

static void a_url_is_bounded(void **state)
{
    char text[ALARM_URL_BYTES + 1], why[256], head[ALARM_URL_BYTES + 512];
    struct alarm_url u;
    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, "http://a/", 9);
    text[ALARM_URL_BYTES - 1] = '\0';
    assert_int_equal(alarm_url_parse(text, &u, why), ERR_OK);
    assert_true(alarm_url_request(&u, SIZE_MAX, head, sizeof head) > 0);
    text[ALARM_URL_BYTES - 1] = 'x';
    text[ALARM_URL_BYTES] = '\0';
    assert_int_equal(alarm_url_parse(text, &u, why), ERR_CONFIG);
}

static void an_answer_is_its_first_line(void **state)
{
    unsigned status = 0;
    char long_line[ALARM_ANSWER_BYTES_MAX];
    (void)state;
    assert_int_equal(alarm_url_answer("HTTP/1.1 204 No Content\r\nX: y", 28, &status), ERR_OK);
    assert_int_equal(status, 204);
    assert_int_equal(alarm_url_answer("HTTP/1.0 500\n", 13, &status), ERR_OK);
    assert_int_equal(status, 500);
    assert_int_equal(alarm_url_answer("", 0, &status), ERR_SHORT);
    assert_int_equal(alarm_url_answer("HTTP/1.1 20", 11, &status), ERR_SHORT);
    assert_int_equal(alarm_url_answer("HTTQ", 4, &status), ERR_INVALID);
    assert_int_equal(alarm_url_answer("220 mx ESMTP\r\n", 14, &status), ERR_INVALID);
    assert_int_equal(alarm_url_answer("HTTP/1.1 700 x\r\n", 16, &status), ERR_INVALID);
    memset(long_line, 'x', sizeof long_line);
    memcpy(long_line, "HTTP/1.1 200 ", 13);
    assert_int_equal(alarm_url_answer(long_line, sizeof long_line - 1, &status), ERR_SHORT);
    assert_int_equal(alarm_url_answer(long_line, sizeof long_line, &status), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_note_is_tried_again_with_pauses_and_given_up),
        cmocka_unit_test(of_one_condition_the_latest_word_waits),
        cmocka_unit_test(a_full_channel_drops_the_oldest_that_is_not_in_flight),
        cmocka_unit_test(urls_are_taken_apart_or_refused),
        cmocka_unit_test(a_url_is_bounded),
        cmocka_unit_test(an_answer_is_its_first_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
