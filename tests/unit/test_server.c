/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server over real sockets against a fake port: whole transactions, plain and under TLS, limits of sessions,
 * early talkers, reload and a stop that lets a transaction finish. The client is a few non-blocking sockets turned by
 * the same loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fake_port.h>
#include <self_signed.h>

#include "conn.h"
#include "log.h"
#include "server.h"

#define TURNS_MAX 4000

static struct loop *loop;
static struct loop_timer tick;
static struct server *server;
static struct settings settings;
static struct settings_network networks[] = {{4, {127, 0, 0, 1}, 32}};
static struct tls_context *server_tls, *client_tls;
static struct sockaddr_in address;
static unsigned accepted, stops;
static struct mail *last_mail;

struct client {
    struct conn *conn;
    char got[65536];
    size_t got_len;
    bool closed, connected;
    unsigned tls_done;
    enum err tls_why;
};

static void tick_fired(struct loop_timer *t)
{
    (void)t;
    loop_stop(loop);
}

static void turn(void)
{
    loop_timer_set(&tick, 1);
    loop_run(loop);
}

#define UNTIL(condition)                                                   \
    do {                                                                   \
        for (int turns_ = 0; turns_ < TURNS_MAX && !(condition); turns_++) \
            turn();                                                        \
        assert_true(condition);                                            \
    } while (0)

static void on_accepted(void *owner, struct mail *mail)
{
    (void)owner;
    mail_unref(&last_mail);
    last_mail = mail;
    accepted++;
}

static void on_stopped(void *owner)
{
    (void)owner;
    stops++;
}

static void settings_free(struct settings *s)
{
    s->refs = 0;
}

static int setup(void **state)
{
    (void)state;
    fake_port_reset();
    fake.answer_at_once = true;
    accepted = stops = 0;
    settings = (struct settings){
        .hostname = "mx.test", .mail_name = "Ironspool", .mynetworks = networks, .mynetworks_count = 1,
        .message_size_limit = 1000000, .smtpd_recipient_limit = 100, .hopcount_limit = 50, .header_size_limit = 102400,
        .line_length_limit = 65536, .smtpd_timeout_s = 300, .smtpd_hard_error_limit = 20,
        .smtpd_client_connection_count_limit = 2, .sessions_max = 3, .smtpd_min_data_rate = 500,
        .smtpd_tls_security_level = "may", .fresh_bytes_max = 16 * MIB,
    };
    assert_int_equal(loop_open(&loop), ERR_OK);
    loop_timer_init(loop, &tick, tick_fired, NULL);
    assert_int_equal(log_open(loop, "ironspool", "/dev/null"), ERR_OK);
    char path[64], text[256];
    assert_true(self_signed_make(path));
    assert_int_equal(tls_server_open(path, path, text, &server_tls), ERR_OK);
    assert_int_equal(tls_client_open(false, NULL, text, &client_tls), ERR_OK);
    unlink(path);
    struct server_deps deps = {loop, &fake.port, &settings, settings_free, server_tls, NULL, on_accepted};
    assert_int_equal(server_open(&deps, &server), ERR_OK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(server_listen(server, fd), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_close(&server);
    conn_forget_left(loop);
    mail_unref(&last_mail);
    tls_context_unref(&server_tls);
    tls_context_unref(&client_tls);
    log_close();
    loop_timer_fini(&tick);
    loop_close(&loop);
    fake_port_reset();
    assert_int_equal(settings.refs, 0);
    assert_int_equal(mail_memory_bytes(), 0);
    return 0;
}

static void on_connected(void *owner)
{
    ((struct client *)owner)->connected = true;
}

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct client *c = owner;
    assert_true(c->got_len + len < sizeof c->got);
    memcpy(c->got + c->got_len, bytes, len);
    c->got_len += len;
    c->got[c->got_len] = '\0';
    return len;
}

static void on_tls(void *owner, enum err e, const char *text)
{
    struct client *c = owner;
    (void)text;
    c->tls_done++;
    c->tls_why = e;
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct client *c = owner;
    (void)e;
    (void)text;
    c->closed = true;
}

static const struct conn_callbacks callbacks = {
    .on_connected = on_connected,
    .on_bytes = on_bytes,
    .on_tls = on_tls,
    .on_closed = on_closed,
};

static void client_open(struct client *c)
{
    memset(c, 0, sizeof *c);
    assert_int_equal(conn_connect(loop, (struct sockaddr *)&address, sizeof address, &callbacks, c, &c->conn), ERR_OK);
}

static void say(struct client *c, const char *text)
{
    conn_write(c->conn, text, strlen(text));
}

static bool heard(const struct client *c, const char *text)
{
    return strstr(c->got, text) != NULL;
}

static struct server_counters counters(void)
{
    struct server_counters c;
    server_counters(server, &c);
    return c;
}

#define TRANSACTION "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"

static void a_pipelined_session_is_answered_in_order(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    UNTIL(heard(&c, "220 mx.test ESMTP Ironspool\r\n"));
    say(&c, "EHLO client.test\r\n" TRANSACTION TRANSACTION "QUIT\r\n");
    UNTIL(c.closed);
    assert_int_equal(accepted, 2);
    const char *first = strstr(c.got, "queued as ");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "queued as "));
    assert_non_null(strstr(c.got, "221 2.0.0 Bye\r\n"));
    conn_close(&c.conn, false);
    UNTIL(counters().sessions == 0);
    assert_int_equal(counters().accepted, 2);
    assert_int_equal(counters().accepted_bytes, 2 * strlen("Subject: x\r\n\r\nbody\r\n"));
}

static void a_large_message_passes_with_backpressure(void **state)
{
    (void)state;
    struct client c;
    char line[102];
    client_open(&c);
    memset(line, 'm', 100);
    memcpy(line + 100, "\r\n", 2);
    UNTIL(heard(&c, "220"));
    say(&c, "EHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\n");
    UNTIL(heard(&c, "354"));
    fake.chunks_busy = 1000000;
    for (int i = 0; i < 8000; i++)
        conn_write(c.conn, line, sizeof line);
    say(&c, ".\r\n");
    for (int i = 0; i < 30; i++)
        turn();
    assert_int_equal(fake.chunks, 0);
    fake.chunks_busy = 0;
    for (int i = 0; i < TURNS_MAX && !heard(&c, "queued as"); i++) {
        if (i % 3 == 0)
            fake.chunks_busy = 1;
        server_room(server);
        turn();
    }
    assert_true(heard(&c, "250 2.0.0 Ok: queued as"));
    assert_int_equal(counters().accepted_bytes, 8000 * sizeof line);
    assert_memory_equal(fake.stored + fake.stored_bytes - sizeof line, line, sizeof line);
    conn_close(&c.conn, false);
}

static void starttls_begins_anew_and_carries_mail(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    UNTIL(heard(&c, "220"));
    say(&c, "EHLO client.test\r\nSTARTTLS\r\n");
    UNTIL(heard(&c, "250-STARTTLS") && heard(&c, "220 2.0.0 Ready"));
    assert_int_equal(conn_start_tls(c.conn, client_tls, false, NULL), ERR_OK);
    UNTIL(c.tls_done);
    assert_int_equal(c.tls_why, ERR_OK);
    say(&c, "MAIL FROM:<>\r\n");
    UNTIL(heard(&c, "503 5.5.1"));
    say(&c, "EHLO client.test\r\n" TRANSACTION);
    UNTIL(heard(&c, "queued as"));
    assert_non_null(memmem(last_mail->body, last_mail->body_bytes, "with ESMTPS id", 14));
    assert_non_null(memmem(last_mail->body, last_mail->body_bytes, "(using TLSv1.3 with cipher", 26));
    conn_close(&c.conn, false);
}

static void plaintext_behind_starttls_ends_the_session(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    UNTIL(heard(&c, "220 mx"));
    say(&c, "EHLO client.test\r\nSTARTTLS\r\n" TRANSACTION);
    UNTIL(c.closed);
    assert_int_equal(accepted, 0);
    conn_close(&c.conn, false);
}

static void early_talkers_are_turned_away(void **state)
{
    (void)state;
    struct client c;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(fd, "EHLO bot\r\n", 10), 10);
    for (int i = 0; i < 20; i++)
        turn();
    char text[256] = "";
    assert_true(read(fd, text, sizeof text - 1) > 0);
    assert_non_null(strstr(text, "554 5.5.1"));
    assert_null(strstr(text, "220"));
    close(fd);
    client_open(&c);
    UNTIL(heard(&c, "220"));
    conn_close(&c.conn, false);
}

static void sessions_are_limited_and_the_next_one_is_told(void **state)
{
    (void)state;
    struct client c[4];
    for (int i = 0; i < 3; i++) {
        client_open(&c[i]);
        UNTIL(heard(&c[i], "220"));
    }
    client_open(&c[3]);
    UNTIL(c[3].closed);
    assert_true(heard(&c[3], "421 4.7.0"));
    assert_int_equal(counters().refused[SERVER_REFUSED_LIMIT], 1);
    conn_close(&c[0].conn, false);
    UNTIL(counters().sessions == 2);
    conn_close(&c[3].conn, false);
    client_open(&c[3]);
    UNTIL(heard(&c[3], "220"));
    for (int i = 1; i < 4; i++)
        conn_close(&c[i].conn, false);
}

static void a_stranger_gets_so_many_connections_and_no_relaying(void **state)
{
    (void)state;
    struct client c[3];
    settings.mynetworks_count = 0;
    for (int i = 0; i < 2; i++) {
        client_open(&c[i]);
        UNTIL(heard(&c[i], "220"));
    }
    client_open(&c[2]);
    UNTIL(c[2].closed);
    assert_true(heard(&c[2], "421 4.7.0"));
    say(&c[0], "EHLO x\r\n" TRANSACTION);
    UNTIL(heard(&c[0], "554 5.7.1 <b@lists.test>: Relay access denied\r\n554 5.5.1"));
    assert_int_equal(counters().refused[SERVER_REFUSED_RELAY], 1);
    settings.smtpd_client_connection_count_limit = 0; /* no limit */
    conn_close(&c[2].conn, false);
    client_open(&c[2]);
    UNTIL(heard(&c[2], "220"));
    for (int i = 0; i < 3; i++)
        conn_close(&c[i].conn, false);
}

static void a_spool_that_refuses_is_said_before_the_body(void **state)
{
    (void)state;
    struct client c;
    fake.status.accepting = ERR_BELOW_POLICY;
    client_open(&c);
    UNTIL(heard(&c, "220"));
    say(&c, "EHLO x\r\nMAIL FROM:<>\r\n");
    UNTIL(heard(&c, "451 4.3.0"));
    fake.status.accepting = ERR_FULL;
    say(&c, "MAIL FROM:<>\r\n");
    UNTIL(heard(&c, "452 4.3.1"));
    assert_int_equal(counters().refused[SERVER_REFUSED_FULL], 1);
    assert_int_equal(counters().refused[SERVER_REFUSED_TRANSIENT], 1);
    conn_close(&c.conn, false);
}

static void a_client_that_leaves_before_the_answer_leaves_its_mail(void **state)
{
    (void)state;
    struct client c;
    fake.answer_at_once = false;
    client_open(&c);
    UNTIL(heard(&c, "220"));
    say(&c, "EHLO x\r\n" TRANSACTION);
    UNTIL(fake.append_count == 1);
    conn_close(&c.conn, false);
    for (int i = 0; i < 20; i++)
        turn();
    fake_port_answer(0, ERR_OK);
    assert_int_equal(accepted, 1);
    UNTIL(counters().sessions == 0);
}

static void a_stop_lets_the_transaction_finish_and_ends_the_idle(void **state)
{
    (void)state;
    struct client idle, busy;
    client_open(&idle);
    client_open(&busy);
    UNTIL(heard(&busy, "220"));
    say(&busy, "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\n");
    UNTIL(heard(&idle, "220") && heard(&busy, "354"));
    server_stop(server, 60000, on_stopped, NULL);
    UNTIL(idle.closed);
    assert_true(heard(&idle, "421 4.3.2"));
    assert_int_equal(stops, 0);
    say(&busy, "x\r\n.\r\n");
    UNTIL(busy.closed && stops == 1);
    assert_true(heard(&busy, "queued as"));
    assert_true(heard(&busy, "421 4.3.2"));
    conn_close(&idle.conn, false);
    conn_close(&busy.conn, false);
}

static void a_stop_does_not_wait_longer_than_its_grace(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    UNTIL(heard(&c, "220"));
    say(&c, "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\n");
    UNTIL(heard(&c, "354"));
    server_stop(server, 20, on_stopped, NULL);
    UNTIL(stops == 1);
    assert_int_equal(counters().sessions, 0);
    UNTIL(c.closed);
    assert_true(heard(&c, "421 4.3.2"));
    conn_close(&c.conn, false);
}

static void a_reload_is_for_the_next_sessions(void **state)
{
    (void)state;
    struct settings next = settings;
    struct client before, after;
    next.refs = 0;
    next.message_size_limit = 4242;
    client_open(&before);
    UNTIL(heard(&before, "220"));
    server_reload(server, &next, NULL);
    client_open(&after);
    UNTIL(heard(&after, "220"));
    say(&before, "EHLO x\r\n");
    say(&after, "EHLO x\r\n");
    UNTIL(heard(&before, "CHUNKING") && heard(&after, "CHUNKING"));
    assert_true(heard(&before, "SIZE 1000000") && heard(&before, "STARTTLS"));
    assert_true(heard(&after, "SIZE 4242") && !heard(&after, "STARTTLS"));
    conn_close(&before.conn, false);
    conn_close(&after.conn, false);
    UNTIL(counters().sessions == 0);
    assert_int_equal(settings.refs, 0);
    server_close(&server);
    assert_int_equal(next.refs, 0);
}

static void without_descriptors_the_sessions_there_are_go_on(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    UNTIL(heard(&c, "220"));
    int waiting = socket(AF_INET, SOCK_STREAM, 0);
    int lowest = dup(waiting);
    struct rlimit was, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    close(lowest);
    now = (struct rlimit){(rlim_t)lowest, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(connect(waiting, (struct sockaddr *)&address, sizeof address), 0);
    UNTIL(counters().accept_pauses == 1);
    say(&c, "EHLO x\r\n" TRANSACTION);
    UNTIL(heard(&c, "queued as"));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    UNTIL(counters().sessions == 2); /* a second later */
    close(waiting);
    conn_close(&c.conn, false);
}

static void whoever_does_not_read_replies_is_not_read_either(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    for (int i = 0; i < 20; i++)
        turn();
    char commands[8 * 512];
    for (int i = 0; i < 512; i++)
        memcpy(commands + i * 8, "EHLO x\r\n", 8);
    size_t sent = 0;
    for (int i = 0; i < 20000; i++) {
        ssize_t n = send(fd, commands, sizeof commands, MSG_DONTWAIT);
        if (n > 0)
            sent += (size_t)n;
        turn();
        if (n < 0 && i > 200)
            break;
    }
    assert_true(sent < 20000 * sizeof commands);
    close(fd);
    UNTIL(counters().sessions == 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_pipelined_session_is_answered_in_order),
        T(a_large_message_passes_with_backpressure),
        T(starttls_begins_anew_and_carries_mail),
        T(plaintext_behind_starttls_ends_the_session),
        T(early_talkers_are_turned_away),
        T(sessions_are_limited_and_the_next_one_is_told),
        T(a_stranger_gets_so_many_connections_and_no_relaying),
        T(a_spool_that_refuses_is_said_before_the_body),
        T(a_client_that_leaves_before_the_answer_leaves_its_mail),
        T(a_stop_lets_the_transaction_finish_and_ends_the_idle),
        T(a_stop_does_not_wait_longer_than_its_grace),
        T(a_reload_is_for_the_next_sessions),
        T(without_descriptors_the_sessions_there_are_go_on),
        T(whoever_does_not_read_replies_is_not_read_either),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
