/* SPDX-License-Identifier: Apache-2.0 */
/* The door for mail over the smallest world: what is acknowledged is there, whatever happens to one member. No index:
 * the places that came with the acknowledgements are the expectation. */
#include "ram_io.h"

#include <base/assert.h>
#include <setjmp.h>
#include <spoolfs/spool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void on_event(void *owner, const struct event *e)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "  %s %s: %s\n", event_name(e->kind), e->member, e->evidence);
}

static void mount(void)
{
    const char *text;
    enum err e = pool_mount(&w.ram.io, &w.config, &w.pool, &text);
    if (e != ERR_OK)
        fail_msg("mount: %s: %s", err_name(e), text);
}

static int setup_members(uint32_t members)
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

static int setup(void **state)
{
    (void)state;
    return setup_members(3);
}

static int teardown(void **state)
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

static void on_answer(struct spool_group *g, enum err e)
{
    struct sent *s = g->owner;
    assert_false(s->answered);
    s->answered = true;
    s->e = e;
}

static enum err append(uint32_t body_bytes)
{
    ASSERT(w.count < SENT_MAX);
    struct sent *s = &w.sent[w.count];
    memset(s, 0, sizeof *s);
    s->body = malloc(body_bytes + 1);
    s->body_bytes = body_bytes;
    for (uint32_t i = 0; i < body_bytes; i++)
        s->body[i] = (uint8_t)(i * 31 + w.count);
    snprintf((char *)s->envelope, sizeof s->envelope, "envelope %u", w.count);
    s->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = spool_lend_queue_ids(w.pool, 1),
                                      .envelope_bytes = 64,
                                      .parts = {{s->envelope, 64}, {s->body, body_bytes / 2},
                                                {s->body + body_bytes / 2, body_bytes - body_bytes / 2}}};
    s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer,
                                    .owner = s};
    enum err e = spool_submit(w.pool, &s->group);
    if (e == ERR_OK)
        w.count++;
    else
        free(s->body);
    return e;
}

static void turn(void)
{
    io_turn(&w.ram.io, 1000000);
    pool_step(w.pool);
}

/* Turns until all are answered or virtual time passes `seconds`. */
static void settle(uint64_t seconds)
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

static uint32_t count_ok(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.count; i++)
        n += w.sent[i].answered && w.sent[i].e == ERR_OK;
    return n;
}

static void fill(uint32_t count, uint32_t body_bytes)
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
static void on_read(struct spool_read *r, enum err e)
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
static struct digest digest_at(const struct sent *s)
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

static enum err read_back(struct sent *s)
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

static void all_readable(void)
{
    for (uint32_t i = 0; i < w.count; i++)
        if (w.sent[i].answered && w.sent[i].e == ERR_OK)
            assert_int_equal(read_back(&w.sent[i]), ERR_OK);
}

static void crash_and_mount(void)
{
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    mount();
}

static void an_append_is_acknowledged_and_reads_back(void **state)
{
    (void)state;
    assert_int_equal(append(4000), ERR_OK);
    settle(1);
    assert_true(w.sent[0].answered);
    assert_int_equal(w.sent[0].e, ERR_OK);
    assert_int_equal(read_back(&w.sent[0]), ERR_OK);
}

static void many_appends_over_many_segments_survive_a_crash(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 400; i++) {
        assert_int_equal(append(20000 + i), ERR_OK);
        if (i % 7 == 0)
            turn();
    }
    settle(5);
    assert_int_equal(count_ok(), 400);
    all_readable();
    crash_and_mount();
    all_readable();
    crash_and_mount();
    all_readable();
    pool_unmount(&w.pool);
    mount();
    all_readable();
}

static void a_member_that_fails_a_write_costs_no_append(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(append(5000), ERR_OK);
    w.ram.fail[1] = ERR_IO;
    w.ram.fail_kind = IO_WRITE;
    w.ram.fail_one_kind = true;
    settle(5);
    assert_int_equal(count_ok(), 50);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(5);
    assert_int_equal(count_ok(), 100);
    all_readable();
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_not_equal(s.state, POOL_HEALTHY);
}

static void a_member_that_does_not_answer_is_left_behind(void **state)
{
    (void)state;
    append(100);
    settle(1);
    w.ram.held[0] = true;
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(6);
    assert_int_equal(count_ok(), 21);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(append(5000), ERR_OK);
    settle(6);
    assert_int_equal(count_ok(), 41);
    w.ram.held[0] = false;
    for (uint32_t i = 0; i < 100; i++)
        turn();
    all_readable();
    crash_and_mount();
    all_readable();
}

static void below_min_copies_new_mail_is_refused_and_nothing_hangs(void **state)
{
    (void)state;
    pool_unmount(&w.pool);
    w.config.min_copies = 2;
    mount();
    append(100);
    settle(1);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(append(5000), ERR_OK);
    w.ram.targets[0].present = w.ram.targets[1].present = false;
    settle(30);
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.sent[i].answered);
    assert_int_equal(append(100), ERR_BELOW_POLICY);
    w.ram.targets[0].present = w.ram.targets[1].present = true;
    crash_and_mount();
    all_readable();
}

static void a_full_pool_refuses_and_keeps_what_it_has(void **state)
{
    (void)state;
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < 3000 && e == ERR_OK; i++) {
        e = append(60000);
        if (e == ERR_BUSY) {
            turn();
            e = ERR_OK;
        }
    }
    settle(10);
    assert_int_equal(e, ERR_FULL);
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.sent[i].answered);
    all_readable();
    crash_and_mount();
    all_readable();
    assert_int_equal(append(60000), ERR_FULL);
}

static void one_damaged_member_is_read_around_and_repaired(void **state)
{
    (void)state;
    fill(60, 30000);
    pool_unmount(&w.pool);
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    for (uint64_t at = 64 * KIB; at < MEMBER_BYTES - 64 * KIB; at += 8192)
        w.ram.bytes[2][at + 17] ^= 0x40;
    mount();
    all_readable();
    for (uint32_t i = 0; i < 400; i++)
        turn();
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_true(s.members[2].errors_checksum > 0);
    assert_true(s.members[2].repaired_blocks > 0);
}

static void members_are_known_by_identity_when_swapped(void **state)
{
    (void)state;
    fill(60, 30000);
    pool_unmount(&w.pool);
    uint8_t *b = w.ram.bytes[0];
    w.ram.bytes[0] = w.ram.bytes[1];
    w.ram.bytes[1] = b;
    mount();
    all_readable();
}

static void a_lost_superblock_and_a_lost_member_leave_the_mail(void **state)
{
    (void)state;
    fill(60, 30000);
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    memset(w.ram.bytes[0], 0xaa, MEMBER_BYTES);
    memset(w.ram.bytes[1], 0, 3 * 16384 / 2);
    mount();
    all_readable();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_append_is_acknowledged_and_reads_back, setup, teardown),
        cmocka_unit_test_setup_teardown(many_appends_over_many_segments_survive_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_fails_a_write_costs_no_append, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_does_not_answer_is_left_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(below_min_copies_new_mail_is_refused_and_nothing_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pool_refuses_and_keeps_what_it_has, setup, teardown),
        cmocka_unit_test_setup_teardown(one_damaged_member_is_read_around_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(members_are_known_by_identity_when_swapped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_superblock_and_a_lost_member_leave_the_mail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
