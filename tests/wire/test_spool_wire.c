/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of the wire over a real socketpair, real files and the real loops: the spool in its own thread, as it is in
 * its own process. WIRE_MAILS, WIRE_SENDERS and WIRE_BODY in the environment make a measurement of it. */
#include "port.h"

#include <fcntl.h>
#include <setjmp.h>
#include <pthread.h>
#include <spool_wire.h>
#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define MEMBERS 3u
#define MEMBER_BYTES (256 * MIB)
#define SENDERS_MAX 512u

static struct {
    pthread_t thread;
    atomic_bool stop, ready;
    _Atomic int attach;        /* an fd to be attached; -1: none */
    _Atomic uint64_t turns, frames;
} spool;

/* --- the spool's thread --- */

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, out);
}

static void on_event(void *owner, const struct event *e)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s %s: %s\n", event_name(e->kind), e->member, e->evidence);
}

static void on_log(void *owner, const char *line)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s\n", line);
}

static struct pool *make_pool(struct io *io)
{
    static struct pool_config config;
    struct pool_create_options options = {.segment_bytes = 4 * MIB};
    struct uuid uuid;
    struct pool *pool;
    const char *text = "";
    config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000),
                                  .member_count = MEMBERS, .share_disk = true, .sink = {.emit = on_event},
                                  .index = {.open = open_index}};
    for (uint32_t i = 0; i < MEMBERS; i++) {
        snprintf(config.members[i].name, sizeof config.members[i].name, "%c", 'a' + (int)i);
        options.zero[i] = getenv("WIRE_MAILS") != NULL;
    }
    if (pool_create(io, &config, &options, &uuid, &text) != ERR_OK || pool_mount(io, &config, &pool, &text) != ERR_OK) {
        fprintf(stderr, "pool: %s\n", text);
        abort();
    }
    return pool;
}

static struct io *open_io(void)
{
    struct io_real_member members[MEMBERS];
    struct io *io;
    const char *why;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        char path[] = "./wire-XXXXXX";
        members[i] = (struct io_real_member){.fd = mkstemp(path), .path = "member"};
        unlink(path);
        if (members[i].fd < 0 || ftruncate(members[i].fd, (off_t)MEMBER_BYTES))
            abort();
    }
    if (io_real_open(IO_ENGINE_AUTO, members, MEMBERS, &io, &why) != ERR_OK)
        abort();
    return io;
}

static void *spool_run(void *arg)
{
    struct io *io = open_io();
    struct pool *pool = make_pool(io);
    struct spool_wire *wire;
    const struct spool_wire_hooks hooks = {.on_log = on_log};
    (void)arg;
    if (spool_wire_open(io, pool, &hooks, &wire) != ERR_OK)
        abort();
    spool.ready = true;
    while (!spool.stop) {
        io_turn(io, 1000000);
        int fd = atomic_exchange(&spool.attach, -1);
        if (fd >= 0 && spool_wire_attach(wire, fd) != ERR_OK)
            abort();
        pool_step(pool);
        spool_wire_step(wire);
        spool.turns++;
    }
    struct pool_status *status = calloc(1, sizeof *status);
    pool_status(pool, status);
    spool.frames = status->frames;
    free(status);
    spool_wire_stop(wire);
    while (spool_wire_busy(wire)) {
        io_turn(io, 1000000);
        pool_step(pool);
    }
    pool_unmount(&pool);
    spool_wire_close(&wire);
    io_real_close(&io);
    return NULL;
}

/* --- the relay --- */

struct sender { struct port_append append; struct mail *mail; };

static struct {
    struct loop *loop;
    struct port *port;
    struct loop_timer poll;
    struct sender senders[SENDERS_MAX];
    uint32_t sender_count, body_bytes;
    uint64_t target, started, stored, failed, retired, statuses;
    uint64_t begun_ns;
    bool running;
} r;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void start(struct sender *s);

static void on_done(struct port_append *a, enum err e)
{
    struct sender *s = a->owner;
    if (e != ERR_OK) {
        r.failed++;
    } else {
        r.stored++;
        const struct port_mark mark = {.qid = s->mail->qid, .locator = s->mail->locator, .retire = true};
        if (port_mark(r.port, &mark) == ERR_OK)
            r.retired++;
    }
    mail_unref(&s->mail);
    start(s);
}

static void start(struct sender *s)
{
    static uint8_t buffer[1024];
    struct queue_id qid;
    struct envelope_writer writer;
    struct envelope e = {.sender = "a@example.org", .sender_len = 13};
    if (r.started == r.target || s->mail || port_take_queue_id(r.port, &qid) != ERR_OK)
        return; /* on_room comes */
    uint8_t *body = malloc(r.body_bytes);
    memset(body, (int)qid.counter, r.body_bytes);
    if (envelope_begin(&writer, buffer, sizeof buffer, &e) != ERR_OK ||
        envelope_add_recipient(&writer, "b@example.net", 13) != ERR_OK)
        abort();
    uint32_t len = envelope_end(&writer, r.body_bytes, 0);
    if (mail_make(qid, buffer, len, body, &s->mail) != ERR_OK)
        abort();
    s->append = (struct port_append){.mail = s->mail, .done = on_done, .owner = s};
    if (port_append(r.port, &s->append) != ERR_OK)
        mail_unref(&s->mail);
    else
        r.started++;
}

static void start_all(void)
{
    for (uint32_t i = 0; i < r.sender_count; i++)
        start(&r.senders[i]);
}

static void on_room(void *owner)
{
    (void)owner;
    if (r.running)
        start_all();
}

static void on_status(void *owner, const struct port_status *s)
{
    (void)owner;
    r.statuses++;
    if (!r.running && s->connected && s->accepting == ERR_OK) {
        r.running = true;
        r.begun_ns = now_ns();
        start_all();
    }
}

static void on_due(void *owner, struct mail *mail) { (void)owner; mail_unref(&mail); }
static void on_recall(void *owner, struct queue_id qid) { (void)owner; (void)qid; }
static void on_flush(void *owner) { (void)owner; }

static void on_poll(struct loop_timer *t)
{
    if (r.stored + r.failed == r.target && port_idle(r.port))
        loop_stop(r.loop);
    else
        loop_timer_set(t, 1);
}

static uint32_t setting(const char *name, uint32_t otherwise)
{
    const char *text = getenv(name);
    return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static void connect_both(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    spool.attach = fds[0];
    port_attach(r.port, fds[1]);
}

static void mail_goes_through_sockets_threads_and_files(void **state)
{
    const struct port_callbacks cb = {.on_due = on_due, .on_status = on_status, .on_room = on_room,
                                      .on_recall = on_recall, .on_flush = on_flush};
    (void)state;
    r.target = setting("WIRE_MAILS", 500);
    r.sender_count = setting("WIRE_SENDERS", 50);
    r.body_bytes = setting("WIRE_BODY", 4096);
    assert_true(r.sender_count <= SENDERS_MAX);
    spool.attach = -1;
    assert_int_equal(pthread_create(&spool.thread, NULL, spool_run, NULL), 0);
    while (!spool.ready)
        usleep(1000);
    assert_int_equal(loop_open(&r.loop), ERR_OK);
    assert_int_equal(port_open(r.loop, &cb, &r.port), ERR_OK);
    loop_timer_init(r.loop, &r.poll, on_poll, NULL);
    loop_timer_set(&r.poll, 1);
    connect_both();
    loop_run(r.loop);
    double seconds = (double)(now_ns() - r.begun_ns) / 1e9;
    loop_timer_fini(&r.poll);
    port_close(&r.port);
    loop_close(&r.loop);
    spool.stop = true;
    pthread_join(spool.thread, NULL);
    if (getenv("WIRE_MAILS"))
        fprintf(stderr, "%llu mails of %u bytes, %u senders: %.0f/s, %llu turns, %llu frames\n",
                (unsigned long long)r.stored, r.body_bytes, r.sender_count, (double)r.stored / seconds,
                (unsigned long long)spool.turns, (unsigned long long)spool.frames);
    assert_int_equal(r.stored, r.target);
    assert_int_equal(r.retired, r.target);
    assert_int_equal(r.failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mail_goes_through_sockets_threads_and_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
