/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server machine as bytes in, bytes out: the same script in all its splits must give the same replies (SIN-1),
 * no line end but CRLF may pass (SIN-2), limits hold at their last value and bite at the next. */
#include "smtp_in_peer.h"

static void every_split_of_a_session_gives_the_same_replies(void **state)
{
    (void)state;
    SPLITS(HELLO ENVELOPE "RCPT TO:<x@other.test>\r\nDATA\r\n"
                          "Received: one\r\nMessage-ID:\r\n <id@client.test>\r\n\r\n..stuffed\r\n.\r\n"
                          "RSET\r\nNOOP\r\nVRFY b\r\n" ENVELOPE "BDAT 5\r\nab\r\nc" "BDAT 7 LAST\r\nd\r\n.\r\ne"
                          "HELP\r\nBOGUS\r\nEXPN x\r\nQUIT\r\n",
           "221 2.0.0 Bye\r\n");
    SPLITS(HELLO ENVELOPE "DATA\r\n.\r\n" ENVELOPE "BDAT 0 LAST\r\n" ENVELOPE "BDAT 1\r\n\rBDAT 1 LAST\r\n\nQUIT\r\n",
           "221 2.0.0 Bye\r\n");
    SPLITS("HELO h\r\nDATA\r\nRCPT TO:<b@lists.test>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRSET\r\nBDAT 3\r\nabc"
           "BDAT 4 LAST\r\nRSETMAIL FROM:<> SIZE=1001\r\nMAIL FROM:<x\r\nMAIL FROM:<> FOO=1\r\nQUIT\r\n",
           "221 2.0.0 Bye\r\n");
}

static void every_split_of_refused_content_gives_the_same_replies(void **state)
{
    (void)state;
    char script[8192], line[300];
    memset(line, 'x', sizeof line);
    int n = snprintf(script, sizeof script, HELLO ENVELOPE "DATA\r\n");
    for (int i = 0; i < 12; i++) /* over the size limit, and a line over the line limit */
        n += snprintf(script + n, sizeof script - (size_t)n, "%.*s\r\n", i == 5 ? 201 : 100, line);
    n += snprintf(script + n, sizeof script - (size_t)n, ".\r\n" ENVELOPE "DATA\r\n%.201s\r\n.\r\n", line);
    n += snprintf(script + n, sizeof script - (size_t)n, ENVELOPE "DATA\r\nReceived: 1\r\nReceived: 2\r\nReceived: 3\r\n\r\n.\r\n");
    n += snprintf(script + n, sizeof script - (size_t)n, ENVELOPE "BDAT 201 LAST\r\n%.201sQUIT\r\n", line);
    expect_in_all_splits(script, (size_t)n, "221 2.0.0 Bye\r\n");
}

static void a_line_end_that_is_not_crlf_ends_the_session_in_every_split(void **state)
{
    (void)state;
    static const char *const contents[] = {
        "a\nb\r\n.\r\n",       "a\rb\r\n.\r\n",    "a\r\n.\nMAIL FROM:<evil@x>\r\n", "a\n.\r\nMAIL FROM:<evil@x>\r\n",
        "a\n.\nMAIL FROM:<>\r\n", "a\r.\rMAIL FROM:<>\r\n", "a\r\n.\rMAIL\r\n",    "\n.\r\n",
        "\r\r\n.\r\n",         ".\r.\r\n.\r\n",    "a\r\n..\n\r\n.\r\n",             "a\r\r\n.\r\n",
        ".\nx\r\n.\r\n",       "a\r\n.\r\r\n",
    };
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        char script[512];
        int n = snprintf(script, sizeof script, HELLO ENVELOPE "DATA\r\n%s", contents[i]);
        expect_in_all_splits(script, (size_t)n, "521 5.5.2 mx.test Error: bare <CR> or <LF> received\r\n");
    }
    SPLITS(HELLO ENVELOPE "BDAT 4 LAST\r\na\nbcQUIT\r\n", "521 5.5.2");
    SPLITS(HELLO ENVELOPE "BDAT 4 LAST\r\na\rbcQUIT\r\n", "521 5.5.2");
    SPLITS(HELLO ENVELOPE "BDAT 2 LAST\r\na\rQUIT\r\n", "521 5.5.2");
    SPLITS(HELLO ENVELOPE "BDAT 2\r\na\rBDAT 2 LAST\r\nb\nQUIT\r\n", "521 5.5.2");
    SPLITS("EHLO x\nNOOP\r\n", "521 5.5.2");
    SPLITS("NOOP\rNOOP\r\n", "521 5.5.2");
    SPLITS("NOOP\r\r\n", "521 5.5.2");
}

static void nothing_behind_a_bare_line_end_is_obeyed(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE "DATA\r\nx\r\n.\nMAIL FROM:<evil@x>\r\nRCPT TO:<v@lists.test>\r\nDATA\r\nboo\r\n.\r\n");
    assert_null(strstr(p->done, "evil"));
    assert_null(strstr(p->said, "queued"));
    assert_non_null(strstr(p->done, "abandon close"));
    assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
    peer_close(p);
}

static void content_arrives_byte_for_byte_with_only_stuffed_dots_removed(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE "DATA\r\n..a\r\n...\r\n.b\r\nc.\r\n\r\n\t.\r\n.\r\n");
    assert_string_equal(p->body, ".a\r\n..\r\nb\r\nc.\r\n\r\n\t.\r\n|");
    send_text(p, ENVELOPE "BDAT 9 LAST\r\n..a\r\n.\r\nz");
    assert_non_null(strstr(p->body, "|..a\r\n.\r\nz|"));
    peer_close(p);
}

static void the_size_limit_takes_its_last_byte_and_refuses_the_next(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        char text[1200];
        struct peer *p = greeted(&plain_config);
        size_t n = 0;
        for (; n < 900; n += 100) {
            memset(text + n, 'y', 98);
            memcpy(text + n + 98, "\r\n", 2);
        }
        memset(text + n, 'y', 98 + extra);
        memcpy(text + n + 98 + extra, "\r\n.\r\n", 5);
        send_text(p, ENVELOPE "DATA\r\n");
        send_bytes(p, text, n + 98 + extra + 5);
        assert_non_null(strstr(p->said, extra ? "552 5.3.4" : "250 2.0.0 Ok: queued as QID"));
        char bdat[128];
        snprintf(bdat, sizeof bdat, ENVELOPE "BDAT %zu LAST\r\n", (size_t)1000 + extra);
        forget(p);
        send_text(p, bdat);
        send_bytes(p, text, n + 98 + extra + 2);
        assert_non_null(strstr(p->said, extra ? "552 5.3.4" : "250 2.0.0 Ok: queued as QID"));
        forget(p);
        send_text(p, extra ? "MAIL FROM:<> SIZE=1001\r\n" : "MAIL FROM:<> SIZE=1000\r\n");
        assert_non_null(strstr(p->said, extra ? "552 5.3.4" : "250 2.1.0"));
        peer_close(p);
    }
}

static void endless_content_is_cut_off(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    char line[102];
    memset(line, 'z', 100);
    memcpy(line + 100, "\r\n", 2);
    send_text(p, ENVELOPE "DATA\r\n");
    for (int i = 0; i < 20000 && p->machine.state != SMTP_IN_CLOSED; i++)
        send_bytes(p, line, sizeof line);
    assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
    assert_non_null(strstr(p->said, "552 5.3.4"));
    assert_true(p->body_len <= 1102);
    peer_close(p);
}

static void a_chunk_too_large_to_swallow_ends_the_session(void **state)
{
    (void)state;
    static const char *const sizes[] = {"99999999999999999999999999", "18446744073709551615", "2000000000"};
    for (size_t i = 0; i < 3; i++) {
        char line[100];
        struct peer *p = greeted(&plain_config);
        snprintf(line, sizeof line, ENVELOPE "BDAT %s\r\nQUIT\r\n", sizes[i]);
        send_text(p, line);
        assert_non_null(strstr(p->said, "552 5.3.4"));
        assert_null(strstr(p->said, "221"));
        assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
        peer_close(p);
    }
}

static void a_malformed_bdat_is_not_guessed_at(void **state)
{
    (void)state;
    static const char *const bad[] = {"BDAT\r\n", "BDAT x\r\n", "BDAT -1\r\n", "BDAT 5 FIRST\r\n", "BDAT 5LAST\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct peer *p = greeted(&plain_config);
        send_text(p, ENVELOPE);
        send_text(p, bad[i]);
        send_text(p, "MAIL FROM:<evil@x>\r\n");
        assert_non_null(strstr(p->said, "501 5.5.4"));
        assert_null(strstr(p->done, "evil"));
        peer_close(p);
    }
}

static void bdat_without_recipients_swallows_its_bytes(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, "MAIL FROM:<a@client.test>\r\nRCPT TO:<x@other.test>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert_non_null(strstr(p->said, "554 5.5.1 Error: no valid recipients\r\n250 2.0.0 Ok\r\n"));
    assert_null(strstr(p->said, "221"));
    peer_close(p);
}

static void data_and_rcpt_are_refused_between_chunks(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE "BDAT 3\r\nabcDATA\r\nRCPT TO:<c@lists.test>\r\nBDAT 3 LAST\r\ndef");
    assert_string_equal(p->said, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: 3 bytes\r\n503 5.5.1 Error: BDAT under way\r\n"
                                 "503 5.5.1 Error: BDAT under way\r\n250 2.0.0 Ok: queued as QID\r\n");
    assert_string_equal(p->body, "abcdef|");
    peer_close(p);
}

static void recipients_are_taken_up_to_the_limit(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, "MAIL FROM:<>\r\n");
    for (int i = 0; i < 4; i++)
        send_text(p, "RCPT TO:<b@lists.test>\r\n");
    assert_string_equal(p->said, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n"
                                 "452 4.5.3 Error: too many recipients\r\n");
    assert_int_equal(p->refused_why, ERR_BUSY);
    send_text(p, "DATA\r\nx\r\n.\r\n");
    assert_non_null(strstr(p->said, "queued as QID"));
    peer_close(p);
}

static void hops_are_counted_in_the_header_only(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE "DATA\r\nReceived: 1\r\nrEcEiVeD : 2\r\n\r\nReceived: 3\r\n.\r\n");
    assert_non_null(strstr(p->said, "queued as QID"));
    forget(p);
    send_text(p, ENVELOPE "DATA\r\nReceived: 1\r\n folded\r\nX: y\r\nReceived: 2\r\nReceived:3\r\n\r\n.\r\n");
    assert_non_null(strstr(p->said, "554 5.4.6 Too many hops"));
    peer_close(p);
}

static void an_early_talker_is_turned_away(void **state)
{
    (void)state;
    struct peer *p = peer_open(&plain_config);
    send_text(p, HELLO ENVELOPE);
    smtp_in_greet(&p->machine);
    assert_string_equal(p->said, "554 5.5.1 mx.test Error: client spoke before the banner\r\n");
    assert_string_equal(p->done, "close ");
    peer_close(p);
}

static void a_command_line_is_taken_up_to_its_limit(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        char *line = malloc(SMTP_COMMAND_BYTES_MAX + 8);
        assert_non_null(line);
        size_t n = SMTP_COMMAND_BYTES_MAX + extra;
        memset(line, 'a', n);
        memcpy(line, "NOOP ", 5);
        memcpy(line + n, "\r\n", 2);
        struct peer *p = greeted(&plain_config);
        send_bytes(p, line, n + 2);
        assert_string_equal(p->said, extra ? "500 5.5.2 Error: line too long\r\n" : "250 2.0.0 Ok\r\n");
        send_text(p, "NOOP\r\n");
        assert_non_null(strstr(p->said, "250 2.0.0 Ok\r\n"));
        expect_in_all_splits(line, n + 2, extra ? "500 5.5.2" : "250 2.0.0");
        peer_close(p);
        free(line);
    }
}

static void an_endless_command_line_ends_the_session(void **state)
{
    (void)state;
    char line[1000];
    struct peer *p = greeted(&plain_config);
    memset(line, 'a', sizeof line);
    for (int i = 0; i < 70; i++)
        send_bytes(p, line, sizeof line);
    assert_string_equal(p->said, "500 5.5.2 Error: line too long\r\n");
    assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
    peer_close(p);
}

static void errors_end_the_session_at_the_limit_and_mail_forgives_them(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    for (int i = 0; i < 19; i++)
        send_text(p, "BOGUS\r\n");
    assert_int_equal(p->machine.state, SMTP_IN_COMMANDS);
    send_text(p, ENVELOPE "DATA\r\nx\r\n.\r\n");
    for (int i = 0; i < 19; i++)
        send_text(p, "BOGUS\r\n");
    assert_int_equal(p->machine.state, SMTP_IN_COMMANDS);
    send_text(p, "BOGUS\r\nNOOP\r\n");
    assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
    assert_non_null(strstr(p->said, "421 4.7.0 mx.test Error: too many errors\r\n"));
    peer_close(p);
}

static void starttls_forgets_what_was_said_before(void **state)
{
    (void)state;
    struct smtp_in_config config = plain_config;
    config.tls_offered = true;
    struct peer *p = greeted(&config);
    static const char script[] = ENVELOPE "STARTTLS\r\nMAIL FROM:<evil@x>\r\n";
    send_bytes(p, script, sizeof script - 1);
    assert_int_equal(p->machine.state, SMTP_IN_HANDSHAKE);
    assert_int_equal(p->waiting_len, sizeof "MAIL FROM:<evil@x>\r\n" - 1); /* left to the connection, which refuses it */
    assert_null(strstr(p->done, "evil"));
    assert_non_null(strstr(p->done, "abandon tls"));
    p->waiting_len = 0;
    forget(p);
    smtp_in_tls_started(&p->machine);
    send_text(p, "MAIL FROM:<a@b>\r\n");
    assert_string_equal(p->said, "503 5.5.1 Error: send EHLO or HELO first\r\n");
    forget(p);
    send_text(p, HELLO "STARTTLS\r\n");
    assert_null(strstr(p->said, "250-STARTTLS"));
    assert_non_null(strstr(p->said, "554 5.5.1 Error: TLS already active"));
    peer_close(p);
}

static void required_tls_lets_no_mail_in_before_it(void **state)
{
    (void)state;
    struct smtp_in_config config = plain_config;
    config.tls_offered = config.tls_required = true;
    struct peer *p = greeted(&config);
    send_text(p, ENVELOPE "NOOP\r\n");
    assert_string_equal(p->said, "530 5.7.0 Must issue a STARTTLS command first\r\n"
                                 "530 5.7.0 Must issue a STARTTLS command first\r\n250 2.0.0 Ok\r\n");
    assert_string_equal(p->done, "");
    peer_close(p);
}

static void ehlo_announces_what_there_is(void **state)
{
    (void)state;
    struct peer *p = peer_open(&plain_config);
    smtp_in_greet(&p->machine);
    send_text(p, HELLO "STARTTLS\r\nHELO x\r\n");
    assert_string_equal(p->said, "220 mx.test ESMTP Ironspool\r\n250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n"
                                 "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-LIMITS RCPTMAX=3\r\n"
                                 "250 CHUNKING\r\n"
                                 "502 5.5.1 Error: command not implemented\r\n250 mx.test\r\n");
    peer_close(p);
}

static void errors_of_the_spool_become_their_replies(void **state)
{
    (void)state;
    static const struct {
        enum err e;
        const char *reply;
    } rows[] = {
        {ERR_SPOOL_GONE, "451 4.3.0"}, {ERR_BELOW_POLICY, "451 4.3.0"}, {ERR_READ_ONLY, "451 4.3.0"},
        {ERR_INDEX_LAG, "451 4.3.0"},  {ERR_INDEX_FULL, "451 4.3.0"},   {ERR_NO_MEMORY, "451 4.3.0"},
        {ERR_FULL, "452 4.3.1"},       {ERR_TOO_LARGE, "552 5.3.4"},    {ERR_STOPPING, "421 4.3.2"},
        {ERR_LOST, "451 4.3.0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int where = 0; where < 5; where++) {
            struct peer *p = greeted(&plain_config);
            p->mail_says = where == 0 ? rows[i].e : ERR_OK;
            p->recipient_says = where == 1 ? rows[i].e : ERR_OK;
            p->begin_says = where == 2 || where == 3 ? rows[i].e : ERR_OK;
            p->finish_says = where == 4 ? rows[i].e : ERR_OK;
            send_text(p, where == 3 ? ENVELOPE "BDAT 6 LAST\r\nNOOP\r\n" : ENVELOPE "DATA\r\n");
            if (where == 4)
                send_text(p, "x\r\n.\r\n");
            if (!strstr(p->said, rows[i].reply))
                fail_msg("%s at %d: %s", err_name(rows[i].e), where, p->said);
            assert_null(strstr(p->said, "queued"));
            assert_int_equal(p->machine.state == SMTP_IN_CLOSED, rows[i].e == ERR_STOPPING);
            peer_close(p);
        }
    }
}

static void no_reply_comes_before_the_spool_has_answered(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    p->finish_later = true;
    p->begin_busy = true;
    send_text(p, ENVELOPE "DATA\r\nx\r\n.\r\nNOOP\r\n");
    assert_null(strstr(p->said, "354"));
    assert_true(smtp_in_waits(&p->machine));
    p->begin_busy = false;
    smtp_in_go_on(&p->machine, ERR_OK);
    send_text(p, "");
    assert_non_null(strstr(p->said, "354"));
    assert_null(strstr(p->said, "queued"));
    assert_int_equal(p->machine.state, SMTP_IN_FINISHING);
    smtp_in_finish(&p->machine, ERR_OK, "QID");
    send_text(p, "");
    assert_non_null(strstr(p->said, "250 2.0.0 Ok: queued as QID\r\n250 2.0.0 Ok\r\n"));
    peer_close(p);
}

static void stopping_waits_for_the_transaction_under_way(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE);
    smtp_in_stop(&p->machine);
    assert_int_equal(p->machine.state, SMTP_IN_COMMANDS);
    send_text(p, "DATA\r\nx\r\n.\r\n");
    assert_non_null(strstr(p->said, "queued as QID\r\n421 4.3.2 mx.test Service shutting down"));
    assert_int_equal(p->machine.state, SMTP_IN_CLOSED);
    peer_close(p);
    p = greeted(&plain_config);
    smtp_in_stop(&p->machine);
    assert_non_null(strstr(p->said, "421 4.3.2"));
    peer_close(p);
    p = greeted(&plain_config);
    send_text(p, ENVELOPE "DATA\r\nx");
    smtp_in_stop(&p->machine);
    assert_int_equal(p->machine.state, SMTP_IN_CONTENT);
    smtp_in_cut_off(&p->machine);
    assert_non_null(strstr(p->said, "421 4.3.2"));
    assert_non_null(strstr(p->done, "abandon close"));
    peer_close(p);
}

static void a_timeout_is_said_and_abandons(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, ENVELOPE "DATA\r\nx");
    smtp_in_timeout(&p->machine);
    assert_non_null(strstr(p->said, "421 4.4.2"));
    assert_non_null(strstr(p->done, "abandon close"));
    peer_close(p);
}

static void utf8_addresses_need_their_parameter(void **state)
{
    (void)state;
    struct peer *p = greeted(&plain_config);
    send_text(p, "MAIL FROM:<j\xc3\xb6rg@client.test>\r\n");
    send_text(p, "MAIL FROM:<j\xc3\xb6rg@client.test> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<\xe2\x82\xac@lists.test>\r\nRSET\r\n");
    send_text(p, "MAIL FROM:<a@client.test>\r\nRCPT TO:<\xe2\x82\xac@lists.test>\r\n");
    assert_string_equal(p->said, "553 5.6.7 Address needs SMTPUTF8\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n"
                                 "250 2.1.0 Ok\r\n553 5.6.7 Address needs SMTPUTF8\r\n");
    peer_close(p);
}

static void another_protocol_is_not_talked_to(void **state)
{
    (void)state;
    struct peer *p = peer_open(&plain_config);
    smtp_in_greet(&p->machine);
    send_text(p, "POST / HTTP/1.1\r\nHost: mx.test\r\n\r\n" HELLO ENVELOPE);
    assert_non_null(strstr(p->said, "521 5.5.1"));
    assert_string_equal(p->done, "close ");
    peer_close(p);
}

static void random_bytes_are_answered_and_never_obeyed_twice(void **state)
{
    (void)state;
    static const char *const words[] = {"EHLO x\r\n", ENVELOPE, "DATA\r\n", "BDAT 4\r\n", "BDAT 2 LAST\r\n", "x\r\n", ".\r\n",
                                        "\r", "\n", ".", "RSET\r\n", "ab", "..", "MAIL FROM:<", "NOOP\r\n", "\r\n"};
    uint64_t x = 88172645463325252u;
    for (int round = 0; round < 300; round++) {
        char script[2048];
        size_t n = 0;
        for (int i = 0; i < 24; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            /* line ends alone are rare, or nothing else would be seen */
            size_t w = x % (sizeof words / sizeof words[0]);
            if ((w == 7 || w == 8) && (x >> 32) % 8)
                w = 5;
            n += (size_t)snprintf(script + n, sizeof script - n, "%s", words[w]);
        }
        struct peer *whole = peer_open(&plain_config);
        smtp_in_greet(&whole->machine);
        send_bytes(whole, script, n);
        run_in_pieces(script, n, whole, 0, 1, 0);
        run_in_pieces(script, n, whole, 0, 3, 2);
        run_in_pieces(script, n, whole, n / 2, n, 1);
        peer_close(whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_a_session_gives_the_same_replies),
        cmocka_unit_test(every_split_of_refused_content_gives_the_same_replies),
        cmocka_unit_test(a_line_end_that_is_not_crlf_ends_the_session_in_every_split),
        cmocka_unit_test(nothing_behind_a_bare_line_end_is_obeyed),
        cmocka_unit_test(content_arrives_byte_for_byte_with_only_stuffed_dots_removed),
        cmocka_unit_test(the_size_limit_takes_its_last_byte_and_refuses_the_next),
        cmocka_unit_test(endless_content_is_cut_off),
        cmocka_unit_test(a_chunk_too_large_to_swallow_ends_the_session),
        cmocka_unit_test(a_malformed_bdat_is_not_guessed_at),
        cmocka_unit_test(bdat_without_recipients_swallows_its_bytes),
        cmocka_unit_test(data_and_rcpt_are_refused_between_chunks),
        cmocka_unit_test(recipients_are_taken_up_to_the_limit),
        cmocka_unit_test(hops_are_counted_in_the_header_only),
        cmocka_unit_test(an_early_talker_is_turned_away),
        cmocka_unit_test(a_command_line_is_taken_up_to_its_limit),
        cmocka_unit_test(an_endless_command_line_ends_the_session),
        cmocka_unit_test(errors_end_the_session_at_the_limit_and_mail_forgives_them),
        cmocka_unit_test(starttls_forgets_what_was_said_before),
        cmocka_unit_test(required_tls_lets_no_mail_in_before_it),
        cmocka_unit_test(ehlo_announces_what_there_is),
        cmocka_unit_test(errors_of_the_spool_become_their_replies),
        cmocka_unit_test(no_reply_comes_before_the_spool_has_answered),
        cmocka_unit_test(stopping_waits_for_the_transaction_under_way),
        cmocka_unit_test(a_timeout_is_said_and_abandons),
        cmocka_unit_test(utf8_addresses_need_their_parameter),
        cmocka_unit_test(another_protocol_is_not_talked_to),
        cmocka_unit_test(random_bytes_are_answered_and_never_obeyed_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
