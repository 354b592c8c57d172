/* SPDX-License-Identifier: Apache-2.0 */
/* Injected faults over the smallest world: each kind does what it says, only where and while it should, and the seam's
 * contract holds meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inject_io.h>
#include <ram_io.h>
#include <spoolfs/limits.h>
#include <stdlib.h>
#include <string.h>

#define MEMBER_BYTES (4 * MIB)
#define SECOND UINT64_C(1000000000)
#define OP_BYTES (2 * BLOCK_BYTES)

static struct ram_io ram;
static struct inject_io *inject;
static struct io *io;
static uint32_t ended, ended_cleared, done_count;
static bool in_submit;
static uint8_t out[OP_BYTES], in[OP_BYTES];

static void on_ended(void *owner, const struct inject_fault *f, bool cleared)
{
    (void)owner;
    (void)f;
    ended++;
    ended_cleared += cleared;
}

static int setup(void **state)
{
    (void)state;
    ended = ended_cleared = done_count = 0;
    ram_io_open(&ram, 2, MEMBER_BYTES);
    assert_int_equal(inject_io_open(&ram.io, &(struct inject_hooks){.ended = on_ended}, &inject), ERR_OK);
    io = inject_io_door(inject);
    memset(ram.bytes[0], 0x11, MEMBER_BYTES);
    memset(out, 0xab, sizeof out);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ram_io_forget(&ram);
    inject_io_close(&inject);
    ram_io_close(&ram);
    return 0;
}

static void on_done(struct io_op *op)
{
    assert_false(in_submit); /* IO-1 */
    *(bool *)op->owner = true;
    done_count++;
}

static void submit(struct io_op *op)
{
    op->done = on_done;
    in_submit = true;
    io_submit(io, op);
    in_submit = false;
}

/* Turns until the op is answered; fails after `seconds` of virtual time. */
static enum err finish(const struct io_op *op, const bool *answered, uint64_t seconds)
{
    uint64_t until = io_now_ns(io) + seconds * SECOND;
    while (!*answered && io_now_ns(io) < until)
        io_turn(io, SECOND / 1000);
    assert_true(*answered);
    return op->result;
}

static enum err one(enum io_kind kind, uint16_t target, uint64_t offset, void *buffer, bool durable)
{
    bool answered = false;
    struct io_op op = {.kind = kind, .target = target, .offset = offset, .length = kind == IO_FLUSH ? 0 : OP_BYTES,
                       .buffer = buffer, .durable = durable, .owner = &answered};
    submit(&op);
    return finish(&op, &answered, 10);
}

static uint32_t add(enum inject_kind kind, uint16_t target)
{
    uint32_t id = 0;
    struct inject_fault f = {.kind = kind, .target = target, .rate = 1, .factor = 10, .to = UINT64_MAX, .seed = 7,
                             .until_ns = io_now_ns(io) + 60 * SECOND};
    assert_int_equal(inject_add(inject, &f, &id), ERR_OK);
    return id;
}

static bool all(const uint8_t *bytes, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static uint32_t bits_different(const uint8_t *a, const uint8_t *b, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += (uint32_t)__builtin_popcount(a[i] ^ b[i]);
    return n;
}

static void without_a_fault_everything_goes_straight_through(void **state)
{
    (void)state;
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(one(IO_FLUSH, 0, 0, NULL, false), ERR_OK);
    assert_int_equal(inject_total(inject), 0);
}

static void rot_flips_one_bit_of_a_write_and_of_a_read(void **state)
{
    (void)state;
    uint32_t id = add(INJECT_BIT_ROT, 0);
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    assert_int_equal(bits_different(ram.bytes[0], out, sizeof out), 1);
    assert_true(all(out, sizeof out, 0xab)); /* the caller's bytes are its own */
    assert_int_equal(inject_clear(inject, INJECT_ANY_TARGET, id), 1);
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    add(INJECT_BIT_ROT, 0);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_int_equal(bits_different(in, out, sizeof in), 1);
    assert_memory_equal(ram.bytes[0], out, sizeof out);
}

static void a_torn_write_claims_success_and_is_old_and_new(void **state)
{
    (void)state;
    add(INJECT_TORN_WRITE, 0);
    assert_int_equal(one(IO_WRITE, 0, BLOCK_BYTES, out, true), ERR_OK);
    const uint8_t *at = ram.bytes[0] + BLOCK_BYTES;
    uint32_t fresh = 0;
    for (uint32_t s = 0; s < OP_BYTES; s += 512) {
        assert_true(all(at + s, 512, 0xab) || all(at + s, 512, 0x11));
        fresh += at[s] == 0xab;
    }
    assert_true(fresh > 0 && fresh < OP_BYTES / 512);
    assert_int_equal(inject_total(inject), 1);
}

static void a_lost_write_claims_success_and_changes_nothing(void **state)
{
    (void)state;
    add(INJECT_LOST_WRITE, 0);
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    assert_true(all(ram.bytes[0], MEMBER_BYTES, 0x11));
}

static void a_misdirected_write_lands_elsewhere_on_the_same_member(void **state)
{
    (void)state;
    add(INJECT_MISDIRECTED_WRITE, 0);
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    uint64_t found = UINT64_MAX;
    for (uint64_t at = 0; at + OP_BYTES <= MEMBER_BYTES; at += BLOCK_BYTES)
        if (all(ram.bytes[0] + at, OP_BYTES, 0xab))
            found = at;
    assert_true(found != UINT64_MAX && found != 0);
    assert_true(all(ram.bytes[1], MEMBER_BYTES, 0)); /* INJ-2 */
}

static void a_misdirected_read_returns_another_places_bytes(void **state)
{
    (void)state;
    memset(ram.bytes[0], 0x22, OP_BYTES);
    add(INJECT_MISDIRECTED_READ, 0);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_true(memcmp(in, ram.bytes[0], OP_BYTES) != 0);
    assert_true(in[OP_BYTES - 1] == 0x11);
}

static void a_stale_read_returns_what_was_there_before_the_last_write(void **state)
{
    (void)state;
    uint32_t id = add(INJECT_STALE_READ, 0);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_int_equal(inject_total(inject), 0); /* nothing was written yet: INJ-4 */
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_OK);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_true(all(in, sizeof in, 0x11));
    assert_true(all(ram.bytes[0], sizeof out, 0xab));
    assert_int_equal(inject_clear(inject, 0, id), 1);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_memory_equal(in, out, sizeof in);
}

static void errors_end_what_they_name_and_nothing_else(void **state)
{
    (void)state;
    static const struct { enum inject_kind kind; enum err read, write, flush; } rows[] = {
        {INJECT_READ_ERROR, ERR_IO, ERR_OK, ERR_OK},
        {INJECT_WRITE_ERROR, ERR_OK, ERR_IO, ERR_OK},
        {INJECT_FLUSH_ERROR, ERR_OK, ERR_OK, ERR_IO},
        {INJECT_FULL, ERR_OK, ERR_MEMBER_FULL, ERR_OK},
        {INJECT_VANISH, ERR_MEMBER_GONE, ERR_MEMBER_GONE, ERR_MEMBER_GONE},
        {INJECT_FLUSH_LIE, ERR_OK, ERR_OK, ERR_OK},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t id = add(rows[i].kind, 0);
        assert_int_equal(one(IO_READ, 0, 0, in, false), rows[i].read);
        assert_int_equal(one(IO_WRITE, 0, 0, out, false), rows[i].write);
        assert_int_equal(one(IO_FLUSH, 0, 0, NULL, false), rows[i].flush);
        assert_int_equal(one(IO_WRITE, 1, 0, out, true), ERR_OK); /* INJ-2 */
        assert_int_equal(inject_clear(inject, 0, id), 1);
    }
}

static void a_durable_write_meets_a_flush_error_and_a_lie(void **state)
{
    (void)state;
    add(INJECT_FLUSH_ERROR, 0);
    assert_int_equal(one(IO_WRITE, 0, 0, out, true), ERR_IO);
    inject_clear(inject, INJECT_ANY_TARGET, 0);
    add(INJECT_FLUSH_LIE, 0);
    ram.held[0] = true; /* a flush that lies does not ask the disk */
    assert_int_equal(one(IO_FLUSH, 0, 0, NULL, false), ERR_OK);
}

static void a_slow_member_answers_right_but_late(void **state)
{
    (void)state;
    bool answered = false;
    struct io_op op = {.kind = IO_READ, .length = OP_BYTES, .buffer = in, .owner = &answered};
    add(INJECT_SLOW, 0);
    uint64_t begun = io_now_ns(io);
    submit(&op);
    assert_int_equal(finish(&op, &answered, 10), ERR_OK);
    assert_true(io_now_ns(io) - begun >= INJECT_LATENCY_MIN_NS * 9);
    assert_true(all(in, sizeof in, 0x11));
    assert_true(op.done_ns > op.submitted_ns);
}

static void an_arm_does_one_thing_at_a_time(void **state)
{
    (void)state;
    bool answered[4] = {0};
    struct io_op ops[4];
    struct inject_fault arm = {.kind = INJECT_ONE_ARM, .rate = 1, .to = UINT64_MAX, .factor = 100, .seed = 1,
                               .until_ns = io_now_ns(io) + 3600 * SECOND};
    uint32_t id;
    assert_false(io_target(io, 0)->rotational);
    assert_int_equal(inject_add(inject, &arm, &id), ERR_OK);
    assert_true(io_target(io, 0)->rotational);
    assert_false(io_target(io, 1)->rotational);
    uint64_t begun = io_now_ns(io);
    for (uint32_t i = 0; i < 4; i++) {
        ops[i] = (struct io_op){.kind = IO_READ, .offset = (i % 2) * 64 * OP_BYTES, .length = OP_BYTES, .buffer = in,
                                .owner = &answered[i]};
        submit(&ops[i]);
    }
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(finish(&ops[i], &answered[i], 10), ERR_OK);
    for (uint32_t i = 1; i < 4; i++)
        assert_true(ops[i].done_ns > ops[i - 1].done_ns);
    assert_true(io_now_ns(io) - begun > 3 * 4000000); /* three times back and forth, half a turn each */
    inject_clear(inject, 0, id);
    assert_false(io_target(io, 0)->rotational);
}

static void a_stall_holds_operations_until_it_ends(void **state)
{
    (void)state;
    bool answered[3] = {0};
    struct io_op ops[3];
    add(INJECT_STALL, 0);
    for (uint32_t i = 0; i < 3; i++) {
        ops[i] = (struct io_op){.kind = IO_WRITE, .target = i == 2, .offset = i * OP_BYTES, .length = OP_BYTES,
                                .buffer = out, .owner = &answered[i]};
        submit(&ops[i]);
    }
    assert_int_equal(finish(&ops[2], &answered[2], 1), ERR_OK);
    for (uint32_t i = 0; i < 20; i++)
        io_turn(io, SECOND);
    assert_false(answered[0] || answered[1]);
    io_cancel(io, &ops[0]); /* IO-6: a wish */
    assert_int_equal(finish(&ops[0], &answered[0], 60), ERR_OK);
    assert_int_equal(finish(&ops[1], &answered[1], 1), ERR_OK);
    assert_int_equal(ended, 1); /* by itself: INJ-3 */
    assert_int_equal(ended_cleared, 0);
    assert_int_equal(done_count, 3);
}

static void a_vanished_member_shows_as_absent_until_it_returns(void **state)
{
    (void)state;
    uint32_t id;
    struct inject_fault back = {.kind = INJECT_RETURN, .rate = 1, .to = UINT64_MAX, .until_ns = io_now_ns(io) + SECOND};
    assert_int_equal(inject_add(inject, &back, &id), ERR_NOT_FOUND);
    add(INJECT_VANISH, 0);
    assert_false(io_target(io, 0)->present);
    assert_true(io_target(io, 1)->present);
    assert_int_equal(io_target(io, 0)->bytes, MEMBER_BYTES);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_MEMBER_GONE);
    assert_int_equal(inject_add(inject, &back, &id), ERR_OK);
    assert_true(io_target(io, 0)->present);
    assert_int_equal(one(IO_READ, 0, 0, in, false), ERR_OK);
    assert_int_equal(inject_count(inject), 0);
}

static void a_range_and_a_rate_bound_what_is_hit(void **state)
{
    (void)state;
    uint32_t id, failed = 0;
    struct inject_fault f = {.kind = INJECT_READ_ERROR, .rate = 0.25, .from = MIB, .to = 2 * MIB, .seed = 3,
                             .until_ns = io_now_ns(io) + 3600 * SECOND};
    assert_int_equal(inject_add(inject, &f, &id), ERR_OK);
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(one(IO_READ, 0, MIB - OP_BYTES, in, false), ERR_OK);
        assert_int_equal(one(IO_READ, 0, 2 * MIB, in, false), ERR_OK);
        failed += one(IO_READ, 0, MIB - BLOCK_BYTES, in, false) == ERR_IO; /* its second block is inside */
    }
    assert_true(failed > 20 && failed < 100);
    assert_int_equal(inject_total(inject), failed);
    assert_int_equal(inject_at(inject, 0)->injected, failed);
}

static void the_same_blocks_are_bad_until_they_are_written(void **state)
{
    (void)state;
    uint32_t id, bad = 0;
    struct inject_fault f = {.kind = INJECT_MEDIA_ERROR, .rate = 0.1, .to = UINT64_MAX, .seed = 3,
                             .until_ns = io_now_ns(io) + 3600 * SECOND};
    assert_int_equal(inject_add(inject, &f, &id), ERR_OK);
    for (uint64_t at = 0; at < MIB; at += OP_BYTES) {
        enum err e = one(IO_READ, 0, at, in, false);
        assert_true(e == ERR_OK || e == ERR_MEDIA);
        assert_int_equal(one(IO_READ, 0, at, in, false), e);
        assert_int_equal(one(IO_READ, 1, at, in, false), ERR_OK); /* INJ-2 */
        if (e == ERR_OK)
            continue;
        bad++;
        assert_int_equal(one(IO_WRITE, 0, at, out, false), ERR_OK);
        assert_int_equal(one(IO_READ, 0, at, in, false), ERR_OK);
    }
    uint32_t places = MIB / OP_BYTES;
    assert_true(bad > places / 20 && bad < places / 2);
    assert_int_equal(inject_total(inject), 2 * bad);
}

static void nonsense_and_too_many_are_refused(void **state)
{
    (void)state;
    uint32_t id;
    uint64_t soon = io_now_ns(io) + SECOND;
    const struct inject_fault wrong[] = {
        {.kind = INJECT_FULL, .rate = 0, .to = 1, .until_ns = soon},
        {.kind = INJECT_FULL, .rate = 1.5, .to = 1, .until_ns = soon},
        {.kind = INJECT_FULL, .rate = 1, .from = 5, .to = 5, .until_ns = soon},
        {.kind = INJECT_FULL, .rate = 1, .from = io_target(io, 0)->bytes, .to = UINT64_MAX, .until_ns = soon},
        {.kind = INJECT_FULL, .rate = 1, .to = 1, .until_ns = soon, .target = 2},
        {.kind = INJECT_FULL, .rate = 1, .to = 1, .until_ns = 0},
        {.kind = INJECT_FULL, .rate = 1, .to = 1, .until_ns = soon + (INJECT_SECONDS_MAX + 1) * SECOND},
        {.kind = INJECT_SLOW, .rate = 1, .to = 1, .until_ns = soon, .factor = 1},
        {.kind = INJECT_ONE_ARM, .rate = 1, .to = 1, .until_ns = soon, .factor = 0},
        {.kind = INJECT_KIND_COUNT, .rate = 1, .to = 1, .until_ns = soon},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(inject_add(inject, &wrong[i], &id), ERR_INVALID);
    for (uint32_t i = 0; i < INJECT_FAULTS_MAX; i++)
        add(INJECT_FULL, 1);
    struct inject_fault more = {.kind = INJECT_FULL, .rate = 1, .to = 1, .until_ns = soon};
    assert_int_equal(inject_add(inject, &more, &id), ERR_BUSY);
    assert_int_equal(inject_clear(inject, 0, 0), 0);
    assert_int_equal(inject_clear(inject, 1, 0), INJECT_FAULTS_MAX);
    assert_int_equal(ended_cleared, INJECT_FAULTS_MAX);
}

static void every_kind_has_a_word_that_leads_back_to_it(void **state)
{
    (void)state;
    enum inject_kind kind;
    for (int i = 0; i < INJECT_KIND_COUNT; i++) {
        assert_int_equal(inject_kind_parse(inject_kind_word((enum inject_kind)i), &kind), ERR_OK);
        assert_int_equal(kind, i);
        assert_true(inject_kind_text(kind)[0]);
    }
    assert_int_equal(inject_kind_parse("gremlins", &kind), ERR_NOT_FOUND);
}

static void one_seed_makes_one_course(void **state)
{
    (void)state;
    uint64_t course[2] = {0};
    for (unsigned run = 0; run < 2; run++) {
        uint32_t id;
        struct inject_fault f = {.kind = INJECT_WRITE_ERROR, .rate = 0.5, .to = UINT64_MAX, .seed = 99,
                                 .until_ns = io_now_ns(io) + 60 * SECOND};
        assert_int_equal(inject_add(inject, &f, &id), ERR_OK);
        for (uint32_t i = 0; i < 64; i++)
            course[run] = course[run] << 1 | (one(IO_WRITE, 0, 0, out, false) == ERR_IO);
        inject_clear(inject, INJECT_ANY_TARGET, id);
    }
    assert_true(course[0] == course[1] && course[0] != 0 && course[0] != UINT64_MAX);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(without_a_fault_everything_goes_straight_through),
        T(rot_flips_one_bit_of_a_write_and_of_a_read),
        T(a_torn_write_claims_success_and_is_old_and_new),
        T(a_lost_write_claims_success_and_changes_nothing),
        T(a_misdirected_write_lands_elsewhere_on_the_same_member),
        T(a_misdirected_read_returns_another_places_bytes),
        T(a_stale_read_returns_what_was_there_before_the_last_write),
        T(errors_end_what_they_name_and_nothing_else),
        T(a_durable_write_meets_a_flush_error_and_a_lie),
        T(a_slow_member_answers_right_but_late),
        T(an_arm_does_one_thing_at_a_time),
        T(a_stall_holds_operations_until_it_ends),
        T(a_vanished_member_shows_as_absent_until_it_returns),
        T(a_range_and_a_rate_bound_what_is_hit),
        T(the_same_blocks_are_bad_until_they_are_written),
        T(nonsense_and_too_many_are_refused),
        T(every_kind_has_a_word_that_leads_back_to_it),
        T(one_seed_makes_one_course),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
