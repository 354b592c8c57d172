/* SPDX-License-Identifier: Apache-2.0 */
/* Connections over socket pairs: what is written arrives, what is not consumed comes again, a pause holds the peer, no
 * plaintext survives a handshake (CON-1), the last reply is not lost (CON-6), and a conn closed in its own callback is
 * silent (CON-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <self_signed.h>

#include "conn.h"
#include "tls.h"

#define TURNS_MAX 4000

static struct loop *loop;
static struct loop_timer tick;

struct end {
    struct conn *conn;
    uint8_t *got;
    size_t got_len, take_at_most;
    unsigned calls, drained, closed, connected, tls_done;
    enum err closed_why, tls_why;
    char text[256];
    bool refuse_all, close_in_bytes, start_tls_in_bytes;
    struct tls_context *tls;
};

static void tick_fired(struct loop_timer *t)
{
    (void)t;
    loop_stop(loop);
}

static int setup(void **state)
{
    (void)state;
    assert_int_equal(loop_open(&loop), ERR_OK);
    loop_timer_init(loop, &tick, tick_fired, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_timer_fini(&tick);
    loop_close(&loop);
    return 0;
}

static void turn(void)
{
    loop_timer_set(&tick, 1);
    loop_run(loop);
}

/* The loop turns until it holds, or for so long that it never will. */
#define UNTIL(condition)                                       \
    do {                                                       \
        for (int turns_ = 0; turns_ < TURNS_MAX && !(condition); turns_++) \
            turn();                                            \
        assert_true(condition);                                \
    } while (0)

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct end *e = owner;
    e->calls++;
    if (e->close_in_bytes) {
        conn_close(&e->conn, false);
        return len;
    }
    if (e->start_tls_in_bytes) {
        e->start_tls_in_bytes = false;
        assert_int_equal(conn_start_tls(e->conn, e->tls, true, NULL), ERR_OK);
        return len < 2 ? len : 2;
    }
    if (e->refuse_all)
        return 0;
    size_t n = e->take_at_most && len > e->take_at_most ? e->take_at_most : len;
    uint8_t *more = realloc(e->got, e->got_len + n + 1);
    assert_non_null(more);
    e->got = more;
    memcpy(e->got + e->got_len, bytes, n);
    e->got_len += n;
    e->got[e->got_len] = 0;
    return n;
}

static void on_drained(void *owner)
{
    ((struct end *)owner)->drained++;
}

static void on_connected(void *owner)
{
    ((struct end *)owner)->connected++;
}

static void on_tls(void *owner, enum err e, const char *text)
{
    struct end *end = owner;
    end->tls_done++;
    end->tls_why = e;
    snprintf(end->text, sizeof end->text, "%s", text);
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct end *end = owner;
    end->closed++;
    end->closed_why = e;
    snprintf(end->text, sizeof end->text, "%s", text);
}

static const struct conn_callbacks callbacks = {
    .on_connected = on_connected,
    .on_bytes = on_bytes,
    .on_drained = on_drained,
    .on_tls = on_tls,
    .on_closed = on_closed,
};

static int pair(struct end *e)
{
    int fds[2];
    memset(e, 0, sizeof *e);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(conn_accept(loop, fds[0], &callbacks, e, &e->conn), ERR_OK);
    return fds[1];
}

static void pair_of_conns(struct end *a, struct end *b)
{
    int fd = pair(a);
    memset(b, 0, sizeof *b);
    assert_int_equal(conn_accept(loop, fd, &callbacks, b, &b->conn), ERR_OK);
}

static void end_close(struct end *e)
{
    conn_close(&e->conn, false);
    free(e->got);
    e->got = NULL;
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void bytes_go_both_ways_in_order(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    put(fd, "hello");
    UNTIL(e.got_len == 5);
    conn_write(e.conn, "one ", 4);
    conn_write(e.conn, "two", 3);
    assert_int_equal(conn_queued_bytes(e.conn), 7);
    UNTIL(e.drained == 1);
    char text[16] = "";
    assert_int_equal(read(fd, text, sizeof text), 7);
    assert_string_equal(text, "one two");
    end_close(&e);
    close(fd);
}

static void what_is_not_consumed_comes_again_with_more(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    e.refuse_all = true;
    put(fd, "par");
    UNTIL(e.calls == 1);
    put(fd, "tial");
    UNTIL(e.calls == 2);
    e.refuse_all = false;
    put(fd, "!");
    UNTIL(e.got_len == 8);
    assert_string_equal(e.got, "partial!");
    end_close(&e);
    close(fd);
}

static void a_pause_holds_the_peer_and_resume_brings_what_waits(void **state)
{
    (void)state;
    struct end e;
    char block[4096];
    int fd = pair(&e);
    memset(block, 'x', sizeof block);
    conn_pause(e.conn, true);
    size_t sent = 0;
    for (int i = 0; i < 2000; i++) {
        ssize_t n = write(fd, block, sizeof block);
        if (n > 0)
            sent += (size_t)n;
        if (i % 100 == 0)
            turn();
    }
    assert_int_equal(e.calls, 0);
    assert_true(sent < 2000 * sizeof block); /* the kernel's buffers are full, ours are not used */
    conn_pause(e.conn, false);
    UNTIL(e.got_len == sent);
    e.take_at_most = 3; /* leaves bytes with the connection */
    put(fd, "abcdef");
    UNTIL(e.got_len == sent + 3);
    conn_pause(e.conn, true);
    turn();
    assert_int_equal(e.got_len, sent + 3);
    conn_pause(e.conn, false);
    UNTIL(e.got_len == sent + 6);
    assert_memory_equal(e.got + sent, "abcdef", 6);
    end_close(&e);
    close(fd);
}

static void more_input_than_anybody_takes_ends_the_connection(void **state)
{
    (void)state;
    struct end e;
    char block[8192] = {0};
    int fd = pair(&e);
    e.refuse_all = true;
    for (int i = 0; i < 100 && !e.closed; i++) {
        ssize_t ignored = write(fd, block, sizeof block);
        (void)ignored;
        turn();
    }
    assert_int_equal(e.closed, 1);
    assert_int_equal(e.closed_why, ERR_TOO_LARGE);
    end_close(&e);
    close(fd);
}

static void a_full_socket_keeps_the_rest_and_sends_it_later(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    size_t total = 3000000, got = 0;
    uint8_t *bytes = malloc(total), *back = malloc(total);
    assert_true(bytes && back);
    for (size_t i = 0; i < total; i++)
        bytes[i] = (uint8_t)(i * 7 % 253);
    conn_write(e.conn, bytes, total);
    turn();
    assert_true(conn_queued_bytes(e.conn) > 0);
    assert_int_equal(e.drained, 0);
    for (int i = 0; i < TURNS_MAX && got < total; i++) {
        ssize_t n = read(fd, back + got, total - got);
        if (n > 0)
            got += (size_t)n;
        turn();
    }
    assert_int_equal(got, total);
    assert_memory_equal(bytes, back, total);
    UNTIL(e.drained == 1);
    assert_int_equal(conn_queued_bytes(e.conn), 0);
    free(bytes);
    free(back);
    end_close(&e);
    close(fd);
}

static void the_peers_end_is_told_once_and_a_last_word_is_possible(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    put(fd, "bye");
    shutdown(fd, SHUT_WR);
    UNTIL(e.closed == 1);
    assert_int_equal(e.closed_why, ERR_OK);
    assert_string_equal(e.got, "bye");
    conn_write(e.conn, "421 x", 5);
    conn_close(&e.conn, true);
    char text[16] = "";
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(read(fd, text, sizeof text), 5);
    assert_int_equal(read(fd, text, sizeof text), 0);
    assert_int_equal(e.closed, 1);
    end_close(&e);
    close(fd);
}

static void a_conn_closed_in_its_own_callback_is_silent(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    e.close_in_bytes = true;
    put(fd, "x");
    UNTIL(e.conn == NULL);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(e.calls, 1);
    assert_int_equal(e.closed + e.drained, 0);
    close(fd);
}

static void a_timeout_is_told_and_the_last_word_still_leaves(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    conn_set_timeout_ms(e.conn, 5, 5);
    UNTIL(e.closed == 1);
    assert_int_equal(e.closed_why, ERR_TIMEOUT);
    conn_write(e.conn, "421", 3);
    conn_close(&e.conn, true);
    char text[8] = "";
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(read(fd, text, 3), 3);
    assert_string_equal(text, "421");
    close(fd);
    for (int i = 0; i < 5; i++) /* it was lingering */
        turn();
    end_close(&e);
}

static void a_pause_does_not_time_out(void **state)
{
    (void)state;
    struct end e;
    int fd = pair(&e);
    conn_set_timeout_ms(e.conn, 5, 5);
    conn_pause(e.conn, true);
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(e.closed, 0);
    conn_pause(e.conn, false);
    UNTIL(e.closed == 1);
    end_close(&e);
    close(fd);
}

/* CON-6: without the lingering, bytes the peer sent meanwhile would make the kernel answer with a reset. */
static void the_last_reply_survives_bytes_nobody_read(void **state)
{
    (void)state;
    int listener = socket(AF_INET, SOCK_STREAM, 0), peer = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof to;
    assert_int_equal(bind(listener, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&to, &len), 0);
    assert_int_equal(connect(peer, (struct sockaddr *)&to, sizeof to), 0);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    struct end e = {0};
    assert_int_equal(conn_accept(loop, fd, &callbacks, &e, &e.conn), ERR_OK);
    put(peer, "many bytes that nobody reads");
    conn_write(e.conn, "521 no\r\n", 8);
    conn_close(&e.conn, true);
    for (int i = 0; i < 5; i++)
        turn();
    put(peer, "and more");
    turn();
    put(peer, "and more");
    char text[16] = "";
    assert_int_equal(read(peer, text, sizeof text), 8);
    assert_string_equal(text, "521 no\r\n");
    assert_int_equal(read(peer, text, sizeof text), 0);
    close(peer);
    close(listener);
    for (int i = 0; i < 5; i++)
        turn();
    free(e.got);
}

static void connecting_succeeds_or_says_why_not(void **state)
{
    (void)state;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof to;
    assert_int_equal(bind(listener, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&to, &len), 0);
    struct end e = {0};
    assert_int_equal(conn_connect(loop, (struct sockaddr *)&to, len, &callbacks, &e, &e.conn), ERR_OK);
    UNTIL(e.closed == 1); /* nobody listens yet */
    assert_int_equal(e.closed_why, ERR_SYSTEM);
    assert_non_null(strstr(e.text, "refused"));
    assert_int_equal(e.connected, 0);
    end_close(&e);
    assert_int_equal(listen(listener, 1), 0);
    memset(&e, 0, sizeof e);
    assert_int_equal(conn_connect(loop, (struct sockaddr *)&to, len, &callbacks, &e, &e.conn), ERR_OK);
    conn_write(e.conn, "early", 5);
    UNTIL(e.connected == 1 && e.drained == 1);
    char text[8] = "";
    int fd = accept(listener, NULL, NULL);
    assert_int_equal(read(fd, text, sizeof text), 5);
    close(fd);
    close(listener);
    end_close(&e);
}

static struct tls_context *server_tls, *client_tls, *verifying_tls;

static void open_tls(void)
{
    char path[64], text[256];
    assert_true(self_signed_make(path));
    assert_int_equal(tls_server_open(path, path, text, &server_tls), ERR_OK);
    assert_int_equal(tls_client_open(false, NULL, text, &client_tls), ERR_OK);
    assert_int_equal(tls_client_open(true, path, text, &verifying_tls), ERR_OK);
    unlink(path);
}

static void close_tls(void)
{
    tls_context_unref(&server_tls);
    tls_context_unref(&client_tls);
    tls_context_unref(&verifying_tls);
}

static void tls_carries_bytes_both_ways(void **state)
{
    (void)state;
    struct end server, client;
    open_tls();
    pair_of_conns(&server, &client);
    conn_pause(server.conn, true); /* a session waiting for the handshake is paused: it goes on all the same */
    assert_int_equal(conn_start_tls(server.conn, server_tls, true, NULL), ERR_OK);
    assert_int_equal(conn_start_tls(client.conn, verifying_tls, false, "mx.test"), ERR_OK);
    UNTIL(server.tls_done && client.tls_done);
    assert_int_equal(server.tls_why, ERR_OK);
    assert_int_equal(client.tls_why, ERR_OK);
    assert_memory_equal(client.text, "TLSv1.", 6);
    assert_true(conn_is_tls(server.conn) && conn_is_tls(client.conn));
    conn_pause(server.conn, false);
    size_t total = 300000;
    uint8_t *bytes = malloc(total);
    assert_non_null(bytes);
    for (size_t i = 0; i < total; i++)
        bytes[i] = (uint8_t)(i % 249);
    server.take_at_most = 20000; /* so that rests are kept between records */
    conn_write(client.conn, bytes, total);
    conn_write(server.conn, bytes, 1000);
    UNTIL(client.got_len == 1000);
    for (int i = 0; i < TURNS_MAX && server.got_len < total; i++) {
        turn();
        conn_pause(server.conn, i % 2);
    }
    assert_int_equal(server.got_len, total);
    assert_memory_equal(server.got, bytes, total);
    conn_write(server.conn, "last", 4);
    conn_close(&server.conn, true);
    UNTIL(client.closed == 1);
    assert_int_equal(client.closed_why, ERR_OK);
    assert_int_equal(client.got_len, 1004);
    free(bytes);
    free(server.got);
    end_close(&client);
    for (int i = 0; i < 5; i++)
        turn();
    close_tls();
}

static void a_name_that_is_not_proved_is_no_connection(void **state)
{
    (void)state;
    struct end server, client;
    open_tls();
    pair_of_conns(&server, &client);
    assert_int_equal(conn_start_tls(server.conn, server_tls, true, NULL), ERR_OK);
    assert_int_equal(conn_start_tls(client.conn, verifying_tls, false, "other.test"), ERR_OK);
    UNTIL(client.tls_done);
    assert_int_equal(client.tls_why, ERR_DENIED);
    assert_false(conn_is_tls(client.conn));
    end_close(&server);
    end_close(&client);
    close_tls();
}

static void no_plaintext_survives_a_handshake(void **state)
{
    (void)state;
    struct end e;
    open_tls();
    int fd = pair(&e);
    e.refuse_all = true; /* received and kept */
    put(fd, "EVIL\r\n");
    UNTIL(e.calls == 1);
    assert_int_equal(conn_start_tls(e.conn, server_tls, true, NULL), ERR_INVALID);
    end_close(&e);
    close(fd);

    fd = pair(&e); /* in the same piece, behind what was consumed */
    e.start_tls_in_bytes = true;
    e.tls = server_tls;
    put(fd, "OKEVIL\r\n");
    UNTIL(e.closed == 1);
    assert_int_equal(e.closed_why, ERR_INVALID);
    assert_int_equal(e.got_len, 0);
    end_close(&e);
    close(fd);

    fd = pair(&e); /* output that has not left */
    conn_write(e.conn, "220", 3);
    assert_int_equal(conn_start_tls(e.conn, server_tls, true, NULL), ERR_INVALID);
    end_close(&e);
    close(fd);

    fd = pair(&e); /* plaintext afterwards is no handshake */
    assert_int_equal(conn_start_tls(e.conn, server_tls, true, NULL), ERR_OK);
    put(fd, "EHLO evil\r\nMAIL FROM:<>\r\n");
    UNTIL(e.tls_done == 1);
    assert_int_equal(e.tls_why, ERR_DENIED);
    assert_int_equal(e.got_len, 0);
    end_close(&e);
    close(fd);
    close_tls();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(bytes_go_both_ways_in_order),
        T(what_is_not_consumed_comes_again_with_more),
        T(a_pause_holds_the_peer_and_resume_brings_what_waits),
        T(more_input_than_anybody_takes_ends_the_connection),
        T(a_full_socket_keeps_the_rest_and_sends_it_later),
        T(the_peers_end_is_told_once_and_a_last_word_is_possible),
        T(a_conn_closed_in_its_own_callback_is_silent),
        T(a_timeout_is_told_and_the_last_word_still_leaves),
        T(a_pause_does_not_time_out),
        T(the_last_reply_survives_bytes_nobody_read),
        T(connecting_succeeds_or_says_why_not),
        T(tls_carries_bytes_both_ways),
        T(a_name_that_is_not_proved_is_no_connection),
        T(no_plaintext_survives_a_handshake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
