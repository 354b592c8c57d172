/* SPDX-License-Identifier: Apache-2.0 */
/* The port against a real engine with a real index behind the real server of the wire, in one thread: the relay's loop
 * runs, and a timer in it turns the spool's world. Connections and the spool are cut where a test says. Everything is
 * static: each test program is one world. */
#ifndef PORT_WORLD_H
#define PORT_WORLD_H

#include "port.h"
#include "port_parts.h"

#include "ram_io.h"
#include "wire_server_parts.h"

#include <errno.h>
#include <setjmp.h>
#include <spoolfs/spool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define UNUSED __attribute__((unused))

#define SEGMENT (2 * MIB)
#define MEMBER_BYTES (SEGMENT * 40)
#define MAILS_MAX 512u

struct item {
    struct port_append append;
    struct mail *mail;         /* ours after done(OK) or on_due */
    struct queue_id qid;
    uint32_t answers;
    enum err e;
};

static struct {
    struct ram_io ram;
    struct pool_config config;
    struct pool *pool;
    struct wire_server *server;
    int fd;                    /* the spool's end; -1: none */
    int64_t cut_in, cut_out;   /* bytes until the connection is cut; -1: never */
    bool restart_on_cut;
    bool freeze;               /* the spool does nothing while an append waits for its answer */
    uint32_t cuts, violations, conflicts;
    struct loop *loop;
    struct port *port;
    struct loop_timer timer;
    bool (*until)(void);
    uint32_t turns;
    uint64_t begun_ms;
    struct item items[MAILS_MAX];
    uint32_t count;
    struct mail *due[MAILS_MAX];
    uint32_t due_count, rooms, recalls, flushes, statuses, documents;
    struct queue_id recalled;
    uint8_t *body;             /* as fetched */
    uint32_t body_len, pieces, fetch_answers;
    enum err fetch_error;
    bool pause_fetch;
    uint32_t bounce_answers;
    enum err bounce_error;
    struct mail *bounce;
} w;

/* --- the spool's world --- */

static UNUSED enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, out);
}

static UNUSED void on_event(void *owner, const struct event *e)
{
    (void)owner;
    w.conflicts += e->kind == EVENT_message_conflict;
}

static UNUSED void on_document(void *owner, uint32_t request, const char *kind)
{
    (void)owner;
    static char bytes[200000];
    memset(bytes, kind[0], sizeof bytes);
    wire_server_document(w.server, request, strcmp(kind, "nothing") ? ERR_OK : ERR_NOT_FOUND, bytes, sizeof bytes);
}

static UNUSED void on_log(void *owner, const char *line)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s\n", line);
    w.violations += strstr(line, "dropped") != NULL;
}

static uint8_t trays[WIRE_TRAYS * CHUNK_BYTES_MAX]; /* as the supervisor makes them: they outlive both ends */

static UNUSED void mount(void)
{
    const char *text;
    const struct wire_server_hooks hooks = {.on_document = on_document, .on_log = on_log, .trays = trays};
    assert_int_equal(pool_mount(&w.ram.io, &w.config, &w.pool, &text), ERR_OK);
    assert_int_equal(wire_server_open(&w.ram.io, w.pool, &hooks, &w.server), ERR_OK);
}

static UNUSED void hang_up(void)
{
    if (w.fd >= 0)
        close(w.fd);
    w.fd = -1;
    wire_server_disconnect(w.server);
}

static UNUSED void attach(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    hang_up();
    w.fd = fds[0];
    wire_server_connect(w.server);
    port_attach(w.port, fds[1]);
}

/* kill -9: what is not on the members is gone, the index too. */
static UNUSED void crash_spool(void)
{
    if (w.fd >= 0)
        close(w.fd);
    w.fd = -1;
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    wire_server_close(&w.server);
    mount();
}

static UNUSED void spool_read_socket(void)
{
    uint32_t room;
    uint8_t *at = wire_server_input(w.server, &room);
    if (w.cut_in >= 0 && room > w.cut_in)
        room = (uint32_t)w.cut_in;
    ssize_t n = room ? recv(w.fd, at, room, MSG_DONTWAIT) : -1;
    if (n > 0)
        wire_server_received(w.server, (uint32_t)n);
    if (n > 0 && w.cut_in >= 0)
        w.cut_in -= n;
}

static UNUSED void spool_write_socket(void)
{
    uint32_t len;
    const uint8_t *at = wire_server_output(w.server, &len);
    if (w.cut_out >= 0 && len > w.cut_out)
        len = (uint32_t)w.cut_out;
    ssize_t n = len ? send(w.fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (n > 0)
        wire_server_sent(w.server, (uint32_t)n);
    if (n > 0 && w.cut_out >= 0)
        w.cut_out -= n;
}

static UNUSED void spool_turn(void)
{
    if (w.freeze && !link_empty(&w.port->appends_sent))
        return;
    if (w.fd >= 0)
        spool_read_socket();
    io_turn(&w.ram.io, 1000000);
    pool_step(w.pool);
    wire_server_step(w.server);
    if (w.fd >= 0)
        spool_write_socket();
    bool cut = w.cut_in == 0 || w.cut_out == 0;
    if (cut) {
        w.cut_in = w.cut_out = -1;
        w.cuts++;
        if (w.restart_on_cut)
            crash_spool();
        attach();
    } else if (w.fd >= 0 && !wire_server_connected(w.server)) {
        hang_up();
    }
}

/* --- the relay's side --- */

static UNUSED void keep_due(void *owner, struct mail *mail)
{
    (void)owner;
    assert_true(w.due_count < MAILS_MAX);
    w.due[w.due_count++] = mail;
}
static UNUSED void on_status(void *owner, const struct port_status *s) { (void)owner; (void)s; w.statuses++; }
static UNUSED void on_room(void *owner) { (void)owner; w.rooms++; }
static UNUSED void on_flush(void *owner) { (void)owner; w.flushes++; }
static UNUSED void on_recall(void *owner, struct queue_id qid)
{
    (void)owner;
    w.recalls++;
    w.recalled = qid;
}

static UNUSED void on_timer(struct loop_timer *t)
{
    spool_turn();
    if (w.until() || (++w.turns > 2000000 && loop_now_ms(w.loop) - w.begun_ms > 20000)) /* the port's ticks are a second apart */
        loop_stop(w.loop);
    else
        loop_timer_set(t, 0);
}

static UNUSED void run_until(bool (*until)(void))
{
    w.until = until;
    w.turns = 0;
    w.begun_ms = loop_now_ms(w.loop);
    loop_timer_set(&w.timer, 0);
    loop_run(w.loop);
    assert_true(until());
}

static UNUSED bool is_up(void) { return w.port->state == PORT_UP && port_status(w.port).accepting == ERR_OK; }
static UNUSED bool is_quiet(void) { return is_up() && port_idle(w.port) && !wire_server_busy(w.server) && !w.server->unleased; }
static UNUSED bool is_idle_and_ready(void) { return is_quiet() && port_status(w.port).index_ready; }

static UNUSED int setup(void **state)
{
    (void)state;
    const struct port_callbacks cb = {.on_due = keep_due, .on_status = on_status, .on_room = on_room,
                                      .on_recall = on_recall, .on_flush = on_flush};
    memset(&w, 0, sizeof w);
    w.fd = -1;
    w.cut_in = w.cut_out = -1;
    ram_io_open(&w.ram, 3, MEMBER_BYTES);
    w.config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000),
                                    .member_count = 3, .sink = {.emit = on_event}, .index = {.open = open_index}};
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(w.config.members[i].name, sizeof w.config.members[i].name, "%c", 'a' + (int)i);
        snprintf(w.config.members[i].path, sizeof w.config.members[i].path, "/ram/%u", i);
    }
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    struct uuid uuid;
    const char *text;
    assert_int_equal(pool_create(&w.ram.io, &w.config, &o, &uuid, &text), ERR_OK);
    mount();
    assert_int_equal(loop_open(&w.loop), ERR_OK);
    loop_timer_init(w.loop, &w.timer, on_timer, NULL);
    assert_int_equal(port_open(w.loop, &cb, &w.port), ERR_OK);
    port_use_trays(w.port, trays);
    attach();
    run_until(is_up);
    return 0;
}

static UNUSED int teardown(void **state)
{
    (void)state;
    port_close(&w.port);
    loop_timer_fini(&w.timer);
    loop_close(&w.loop);
    hang_up();
    wire_server_stop(w.server);
    for (int i = 0; i < 1000 && wire_server_busy(w.server); i++) {
        io_turn(&w.ram.io, 1000000);
        pool_step(w.pool);
    }
    assert_false(wire_server_busy(w.server));
    pool_unmount(&w.pool);
    wire_server_close(&w.server);
    ram_io_forget(&w.ram);
    ram_io_close(&w.ram);
    for (uint32_t i = 0; i < w.count; i++)
        mail_unref(&w.items[i].mail);
    for (uint32_t i = 0; i < w.due_count; i++)
        mail_unref(&w.due[i]);
    mail_unref(&w.bounce);
    free(w.body);
    return 0;
}

static UNUSED uint8_t body_byte(uint32_t number, uint64_t at) { return (uint8_t)(number * 7 + at * 31 + (at >> 11)); }

static UNUSED struct mail *make_mail(struct queue_id qid, uint32_t number, uint64_t body_bytes, bool chunks)
{
    static uint8_t buffer[4096];
    struct envelope_writer writer;
    struct envelope e = {.arrival_ms = port_clock_ms(w.port), .sender = "a@example.org", .sender_len = 13, .client = "c",
                         .client_len = 1, .helo = "h", .helo_len = 1};
    uint8_t *body = chunks ? NULL : malloc(body_bytes + 1);
    for (uint64_t i = 0; !chunks && i < body_bytes; i++)
        body[i] = body_byte(number, i);
    assert_int_equal(envelope_begin(&writer, buffer, sizeof buffer, &e), ERR_OK);
    assert_int_equal(envelope_add_recipient(&writer, "b@example.net", 13), ERR_OK);
    assert_int_equal(envelope_add_recipient(&writer, "c@example.com", 13), ERR_OK);
    uint32_t len = envelope_end(&writer, body_bytes, 0);
    struct mail *m;
    assert_int_equal(mail_make(qid, buffer, len, body, &m), ERR_OK);
    return m;
}

static UNUSED void on_done(struct port_append *a, enum err e)
{
    struct item *i = a->owner;
    i->answers++;
    i->e = e;
    if (e != ERR_OK)
        mail_unref(&i->mail);
}

static UNUSED struct item *append(uint32_t body_bytes)
{
    struct item *i = &w.items[w.count];
    assert_true(w.count < MAILS_MAX);
    assert_int_equal(port_take_queue_id(w.port, &i->qid), ERR_OK);
    i->mail = make_mail(i->qid, w.count, body_bytes, false);
    i->append = (struct port_append){.mail = i->mail, .done = on_done, .owner = i};
    assert_int_equal(port_append(w.port, &i->append), ERR_OK);
    w.count++;
    return i;
}

static UNUSED void mark(struct mail *m, bool retire, bool release)
{
    struct mark marks[2] = {{.recipient = 0, .status = MARK_DELIVERED}, {.recipient = 1, .status = MARK_DEFERRED,
                             .deferred_until_ms = port_clock_ms(w.port) - 1, .reason = "busy", .reason_len = 4}};
    const struct port_mark pm = {.qid = m->qid, .locator = m->locator, .marks = marks, .count = 2, .retire = retire,
                                 .release = release};
    assert_int_equal(port_mark(w.port, &pm), ERR_OK);
}

/* --- what the queue holds, as the index says --- */

static struct { bool over; enum err e; struct index_counts counts; } asked;

static UNUSED void on_counts(struct index_query *q, enum err e)
{
    asked.over = true;
    asked.e = e;
    asked.counts = q->counts;
    index_query_fini(q);
}

static UNUSED bool counted(void) { return asked.over; }

static UNUSED uint64_t messages_in_queue(void)
{
    static struct index_query q;
    run_until(is_idle_and_ready);
    asked.over = false;
    q = (struct index_query){.kind = INDEX_SUMMARY, .done = on_counts};
    index_query(spool_index(w.pool), &q);
    run_until(counted);
    assert_int_equal(asked.e, ERR_OK);
    return asked.counts.messages;
}

/* --- bounces --- */

static UNUSED void on_bounce(void *owner, struct mail *bounce, enum err e)
{
    (void)owner;
    w.bounce_answers++;
    w.bounce_error = e;
    w.bounce = bounce;
}

static UNUSED void retire_with_bounce(struct mail *m)
{
    struct queue_id qid;
    assert_int_equal(port_take_queue_id(w.port, &qid), ERR_OK);
    const struct port_mark pm = {.qid = m->qid, .locator = m->locator, .retire = true, .bounce = make_mail(qid, 1, 500, false),
                                 .bounce_done = on_bounce};
    assert_int_equal(port_mark(w.port, &pm), ERR_OK);
}

static UNUSED bool bounce_answered(void) { return w.bounce_answers > 0 && is_quiet(); }

#endif
