/* SPDX-License-Identifier: Apache-2.0 */
/* A pool over the smallest world, for tests of the engine: appends with known bytes, turns, crashes, reads. Everything is
 * static: each test program is one world. No index: the places that came with the acknowledgements are the expectation. */
#ifndef SPOOL_WORLD_H
#define SPOOL_WORLD_H

#include "ram_io.h"

#include <base/assert.h>
#include <setjmp.h>
#include <spoolfs/spool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

#define SEGMENT (2 * MIB)
#define MEMBER_BYTES (SEGMENT * 40)
#define SENT_MAX 4096u

struct sent {
    struct spool_group group;
    struct spool_record record;
    uint8_t envelope[64];
    uint8_t *body;
    uint32_t body_bytes;
    bool answered;
    enum err e;
    struct digest digest;
};

struct world {
    struct ram_io ram;
    struct pool_config config;
    struct pool *pool;
    struct uuid uuid;
    struct sent sent[SENT_MAX];
    uint32_t count;
};

static struct world w;

static UNUSED void on_event(void *owner, const struct event *e)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s %s: %s\n", event_name(e->kind), e->member, e->evidence);
}

static UNUSED void mount(void)
{
    const char *text;
    enum err e = pool_mount(&w.ram.io, &w.config, &w.pool, &text);
    if (e != ERR_OK)
        fail_msg("mount: %s: %s", err_name(e), text);
}

static UNUSED int setup_members(uint32_t members)
{
    memset(&w, 0, sizeof w);
    ram_io_open(&w.ram, members, MEMBER_BYTES);
    w.config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000),
                                    .member_count = members, .sink = {.emit = on_event}};
    for (uint32_t i = 0; i < members; i++) {
        snprintf(w.config.members[i].name, sizeof w.config.members[i].name, "%c", 'a' + (int)i);
        snprintf(w.config.members[i].path, sizeof w.config.members[i].path, "/ram/%u", i);
    }
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    const char *text;
    enum err e = pool_create(&w.ram.io, &w.config, &o, &w.uuid, &text);
    if (e != ERR_OK)
        fail_msg("create: %s", text);
    mount();
    return 0;
}

static UNUSED int setup(void **state)
{
    (void)state;
    return setup_members(3);
}

static UNUSED int teardown(void **state)
{
    (void)state;
    if (w.pool)
        pool_unmount(&w.pool);
    for (uint32_t i = 0; i < w.count; i++)
        free(w.sent[i].body);
    ram_io_forget(&w.ram);
    ram_io_close(&w.ram);
    return 0;
}

static UNUSED void on_answer(struct spool_group *g, enum err e)
{
    struct sent *s = g->owner;
    assert_false(s->answered);
    s->answered = true;
    s->e = e;
}

static UNUSED enum err append_submit(struct sent *s)
{
    s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer,
                                    .owner = s};
    enum err e = spool_submit(w.pool, &s->group);
    if (e == ERR_OK)
        w.count++;
    else
        free(s->body);
    return e;
}

static UNUSED struct sent *sent_next(uint32_t body_bytes)
{
    ASSERT(w.count < SENT_MAX);
    struct sent *s = &w.sent[w.count];
    memset(s, 0, sizeof *s);
    s->body = malloc(body_bytes + 1);
    s->body_bytes = body_bytes;
    for (uint32_t i = 0; i < body_bytes; i++)
        s->body[i] = (uint8_t)(i * 31 + w.count);
    return s;
}

static UNUSED enum err append_chunk(uint32_t bytes)
{
    struct sent *s = sent_next(bytes);
    s->record = (struct spool_record){.type = RECORD_CHUNK, .qid = spool_lend_queue_ids(w.pool, 1),
                                      .parts = {{s->body, bytes}}};
    return append_submit(s);
}

static UNUSED enum err append(uint32_t body_bytes)
{
    struct sent *s = sent_next(body_bytes);
    snprintf((char *)s->envelope, sizeof s->envelope, "envelope %u", w.count);
    s->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = spool_lend_queue_ids(w.pool, 1),
                                      .envelope_bytes = 64,
                                      .parts = {{s->envelope, 64}, {s->body, body_bytes / 2},
                                                {s->body + body_bytes / 2, body_bytes - body_bytes / 2}}};
    return append_submit(s);
}

static UNUSED void turn(void)
{
    io_turn(&w.ram.io, 1000000);
    pool_step(w.pool);
}

static UNUSED void turns(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        turn();
}

static UNUSED void pass_seconds(uint64_t seconds)
{
    uint64_t until = io_now_ns(&w.ram.io) + seconds * 1000000000u;
    while (io_now_ns(&w.ram.io) < until) {
        io_turn(&w.ram.io, 20000000);
        pool_step(w.pool);
    }
}

/* Turns until all are answered or virtual time passes `seconds`. */
static UNUSED void settle(uint64_t seconds)
{
    uint64_t until = io_now_ns(&w.ram.io) + seconds * 1000000000u;
    for (;;) {
        uint32_t open = 0;
        for (uint32_t i = 0; i < w.count; i++)
            open += !w.sent[i].answered;
        if (open == 0 || io_now_ns(&w.ram.io) >= until)
            return;
        turn();
    }
}

static UNUSED uint32_t count_ok(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.count; i++)
        n += w.sent[i].answered && w.sent[i].e == ERR_OK;
    return n;
}

static UNUSED void fill(uint32_t count, uint32_t body_bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        enum err e = append(body_bytes);
        for (uint32_t n = 0; e == ERR_BUSY && n < 1000; n++) {
            turn();
            e = append(body_bytes);
        }
        assert_int_equal(e, ERR_OK);
    }
    settle(5);
    assert_int_equal(count_ok(), w.count);
}

static struct { bool answered; enum err e; } got;
static UNUSED void on_read(struct spool_read *r, enum err e)
{
    const struct sent *s = r->owner;
    got.answered = true;
    got.e = e;
    if (e != ERR_OK)
        return;
    assert_int_equal(r->envelope_bytes, 64);
    assert_memory_equal(r->envelope, s->envelope, 64);
    assert_int_equal(r->body_bytes, s->body_bytes);
    if (s->body_bytes)
        assert_memory_equal(r->body, s->body, s->body_bytes);
}

/* The digest is what the index would hold: taken from the record where it lies. */
static UNUSED struct digest digest_at(const struct sent *s)
{
    for (uint32_t t = 0; t < w.ram.count; t++) {
        for (uint64_t at = 64 * KIB; at + SEGMENT <= MEMBER_BYTES; at += SEGMENT) {
            const uint8_t *r = w.ram.bytes[t] + at + s->record.place.frame + s->record.place.record;
            struct digest d;
            memcpy(&d, r, sizeof d);
            if (memcmp(r + 80, s->envelope, 64) == 0 &&
                digest_equal(digest_of(r + 16, s->record.place.length - 16), d))
                return d;
        }
    }
    return (struct digest){0};
}

static UNUSED enum err read_back(struct sent *s)
{
    if (s->digest.lo == 0)
        s->digest = digest_at(s);
    struct spool_read r = {.place = s->record.place, .qid = s->record.qid, .digest = s->digest,
                           .type = RECORD_MESSAGE, .done = on_read, .owner = s};
    got.answered = false;
    spool_read(w.pool, &r);
    for (uint32_t n = 0; !got.answered && n < 20000; n++) {
        pool_step(w.pool);
        io_turn(&w.ram.io, 1000000);
    }
    assert_true(got.answered);
    return got.e;
}

static UNUSED void all_readable(void)
{
    for (uint32_t i = 0; i < w.count; i++)
        if (w.sent[i].answered && w.sent[i].e == ERR_OK)
            assert_int_equal(read_back(&w.sent[i]), ERR_OK);
}

static UNUSED void crash_and_mount(void)
{
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    mount();
}

#endif
