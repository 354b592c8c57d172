/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's end of the wire with a real engine behind it, and a relay that says what it likes and counts what it hears. To
 * be included by the one .c of a test program. */
#ifndef WIRE_WORLD_H
#define WIRE_WORLD_H

#include "ram_io.h"
#include "wire_server_parts.h"

#include <base/prng.h>
#include <setjmp.h>
#include <spoolfs/envelope.h>
#include <spoolfs/upkeep.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEGMENT (2 * MIB)
#define MEMBER_BYTES (SEGMENT * 40)

static struct {
    struct ram_io ram;
    struct pool_config config;
    struct pool *pool;
    struct wire_server *s;
    struct queue_id lent;      /* the next id */
    uint32_t lent_count;
    uint32_t heard[WIRE_TYPE_COUNT];
    enum err last_error, piece_error; /* of the last answer, of the last PIECE */
    struct queue_id due[4096];
    uint64_t due_images[4096];
    uint32_t due_count;
    struct segment_id locator; /* of the last APPENDED */
    bool deaf;                 /* reads nothing */
    uint32_t dropped;
    uint8_t envelope[512];
    uint32_t envelope_len;
    uint8_t pieces[BODY_INLINE_MAX];
    uint32_t pieces_len;
} w;

static uint8_t trays[WIRE_TRAYS * CHUNK_BYTES_MAX];

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, out);
}

static void on_event(void *owner, const struct event *e) { (void)owner; (void)e; }
static void on_log(void *owner, const char *line)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s\n", line);
    w.dropped += strstr(line, "dropped") != NULL;
}

static int setup_world(bool index, uint32_t members, bool shared)
{
    const struct wire_server_hooks hooks = {.on_log = on_log, .trays = shared ? trays : NULL};
    memset(&w, 0, sizeof w);
    ram_io_open(&w.ram, members, MEMBER_BYTES);
    w.config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000),
                                    .member_count = members, .sink = {.emit = on_event}};
    w.config.index.open = index ? open_index : NULL;
    for (uint32_t i = 0; i < members; i++)
        snprintf(w.config.members[i].name, sizeof w.config.members[i].name, "%c", 'a' + (int)i);
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    struct uuid uuid;
    const char *text;
    assert_int_equal(pool_create(&w.ram.io, &w.config, &o, &uuid, &text), ERR_OK);
    assert_int_equal(pool_mount(&w.ram.io, &w.config, &w.pool, &text), ERR_OK);
    assert_int_equal(wire_server_open(&w.ram.io, w.pool, &hooks, &w.s), ERR_OK);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_world(true, 2, true);
}

static int setup_without_trays(void **state)
{
    (void)state;
    return setup_world(true, 2, false);
}

static int setup_without_index(void **state)
{
    (void)state;
    return setup_world(false, 2, true);
}

static int setup_four_members(void **state)
{
    (void)state;
    return setup_world(true, 4, true); /* two open segments, each on two of them */
}

static int teardown(void **state)
{
    (void)state;
    wire_server_stop(w.s);
    for (int i = 0; i < 5000 && wire_server_busy(w.s); i++) {
        io_turn(&w.ram.io, 1000000);
        pool_step(w.pool);
    }
    assert_false(wire_server_busy(w.s));
    pool_unmount(&w.pool);
    wire_server_close(&w.s);
    ram_io_forget(&w.ram);
    ram_io_close(&w.ram);
    return 0;
}

/* --- the relay --- */

static void hear(const struct wire_message *m)
{
    w.heard[m->type]++;
    if (m->type == WIRE_LEND) {
        w.lent = m->qid;
        w.lent_count = m->number;
    }
    if (m->type == WIRE_APPENDED || m->type == WIRE_MARKED || m->type == WIRE_CHUNKED)
        w.last_error = m->error;
    if (m->type == WIRE_PIECE)
        w.piece_error = m->error;
    if (m->type == WIRE_APPENDED)
        w.locator = m->locator;
    if (m->type == WIRE_PIECE && w.pieces_len + m->body.len <= sizeof w.pieces) {
        memcpy(w.pieces + w.pieces_len, m->body.bytes, m->body.len);
        w.pieces_len += m->body.len;
    }
    if (m->type == WIRE_DUE) {
        w.due_images[w.due_count % 4096] = m->value;
        w.due[w.due_count++ % 4096] = m->qid;
    }
}

static void listen_all(void)
{
    uint32_t len, used;
    const uint8_t *at = wire_server_output(w.s, &len);
    struct wire_message m;
    while (!w.deaf && wire_decode(at, len, 's', &m, &used) == ERR_OK) {
        hear(&m);
        wire_server_sent(w.s, used);
        at = wire_server_output(w.s, &len);
    }
    assert_true(w.deaf || len == 0); /* whole messages, and ours decode */
}

static void turn(void)
{
    io_turn(&w.ram.io, 1000000);
    pool_step(w.pool);
    wire_server_step(w.s);
    if (wire_server_connected(w.s))
        listen_all();
}

static void turns(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        turn();
}

static void say_bytes(const uint8_t *bytes, uint32_t len)
{
    while (len > 0 && wire_server_connected(w.s)) {
        uint32_t room;
        uint8_t *at = wire_server_input(w.s, &room);
        uint32_t n = len < room ? len : room;
        memcpy(at, bytes, n);
        if (n)
            wire_server_received(w.s, n);
        bytes += n;
        len -= n;
        if (n == 0)
            turn();
    }
}

static void say(const struct wire_message *m)
{
    static uint8_t bytes[WIRE_MESSAGE_MAX];
    say_bytes(bytes, wire_encode(bytes, m));
}

static void connect_only(void)
{
    wire_server_connect(w.s);
    say(&(struct wire_message){.type = WIRE_HELLO, .number = WIRE_VERSION, .clock_ms = WIRE_MAGIC, .value = 1});
    turns(5);
}

static void connect_and_present(void)
{
    connect_only();
    say(&(struct wire_message){.type = WIRE_PRESENTED});
    for (int i = 0; i < 1000 && !spool_index_ready(w.pool); i++)
        turn();
    turns(2);
    assert_true(wire_server_connected(w.s));
    assert_int_equal(w.heard[WIRE_WELCOME], 1);
    assert_true(w.lent_count > 0 && w.heard[WIRE_STATUS] > 0);
}

static struct queue_id take_id(void)
{
    assert_true(w.lent_count > 0);
    w.lent_count--;
    return (struct queue_id){w.lent.incarnation, w.lent.counter++};
}

static void make_envelope(const char *recipient, uint64_t body_bytes)
{
    struct envelope_writer writer;
    struct envelope e = {.sender = "a@example.org", .sender_len = 13, .arrival_ms = pool_clock_ms(w.pool)};
    assert_int_equal(envelope_begin(&writer, w.envelope, sizeof w.envelope, &e), ERR_OK);
    assert_int_equal(envelope_add_recipient(&writer, recipient, (uint32_t)strlen(recipient)), ERR_OK);
    w.envelope_len = envelope_end(&writer, body_bytes, 0);
}

static uint8_t body[BODY_INLINE_MAX];

static struct wire_message append_of(struct queue_id qid, const char *recipient, uint32_t body_bytes)
{
    make_envelope(recipient, body_bytes);
    return (struct wire_message){.type = WIRE_APPEND, .qid = qid, .envelope = {w.envelope, w.envelope_len},
                                 .body = {body, body_bytes}};
}

static struct queue_id store(const char *recipient, uint32_t body_bytes)
{
    struct queue_id qid = take_id();
    struct wire_message m = append_of(qid, recipient, body_bytes);
    uint32_t before = w.heard[WIRE_APPENDED];
    say(&m);
    for (int i = 0; i < 1000 && w.heard[WIRE_APPENDED] == before; i++)
        turn();
    assert_int_equal(w.last_error, ERR_OK);
    return qid;
}

#endif
