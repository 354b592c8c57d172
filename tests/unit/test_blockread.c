/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks BRD-1 to BRD-3: one bad sector costs one block, what is refused is not bad, and what is bad is not put off. */
#include "spool_world.h"

#include "images.h"

#define RANGE (64 * BLOCK_BYTES)

static struct {
    struct block_read read;
    uint64_t unread[FRAME_BLOCK_WORDS];
    uint8_t *buffer;
    bool over;
} b;

static void on_blocks(struct block_read *r)
{
    (void)r;
    b.over = true;
}

static uint64_t slot_at(uint32_t slot)
{
    const struct member *m = &w.pool->members[0];
    return m->slots_offset + slot * m->slot_bytes;
}

static enum err ask(uint64_t offset, uint32_t length)
{
    free(b.buffer);
    memset(&b, 0, sizeof b);
    b.buffer = sync_buffer(length);
    assert_non_null(b.buffer);
    memset(b.buffer, 0x5a, length);
    b.read = (struct block_read){.member = &w.pool->members[0], .class = IO_CLASS_DELIVER, .offset = offset, .length = length,
                                 .buffer = b.buffer, .unread = b.unread, .done = on_blocks};
    block_read_start(&b.read);
    for (uint32_t n = 0; n < 1000 && !b.over; n++)
        io_turn(&w.ram.io, 1000000);
    assert_true(b.over);
    return b.read.result;
}

static int setup_slot(void **state)
{
    setup(state);
    w.ram.bad_answer = ERR_IO;
    for (uint32_t i = 0; i < SEGMENT; i++)
        w.ram.bytes[0][slot_at(5) + i] = (uint8_t)(i / 7);
    return 0;
}

static int teardown_slot(void **state)
{
    free(b.buffer);
    b.buffer = NULL;
    memset(w.ram.fail, 0, sizeof w.ram.fail);
    return teardown(state);
}

static void refuse_all(bool on)
{
    w.ram.fail_one_kind = true;
    w.ram.fail_kind = IO_READ;
    w.ram.fail[0] = on ? ERR_IO : ERR_OK;
}

/* All but block `bad` (UINT32_MAX: all) is what the member holds; that one is zeros. */
static void holds(uint64_t offset, uint32_t length, uint32_t bad)
{
    static const uint8_t zeros[BLOCK_BYTES];
    for (uint32_t i = 0; i < length / BLOCK_BYTES; i++) {
        assert_int_equal((b.unread[i / 64] >> (i % 64)) & 1, i == bad);
        assert_memory_equal(b.buffer + i * BLOCK_BYTES, i == bad ? zeros : w.ram.bytes[0] + offset + i * BLOCK_BYTES, BLOCK_BYTES);
    }
}

static void one_bad_sector_costs_one_block_and_some_twenty_reads(void **state)
{
    (void)state;
    for (uint32_t bad = 0; bad < RANGE / BLOCK_BYTES; bad += 21) {
        w.ram.bad_answer = bad % 2 ? ERR_MEDIA : ERR_IO;
        ram_io_make_bad(&w.ram, 0, slot_at(5) + bad * BLOCK_BYTES, true);
        uint64_t before = w.ram.submitted;
        assert_int_equal(ask(slot_at(5), RANGE), ERR_OK);
        assert_true(w.ram.submitted - before <= 24);
        assert_int_equal(b.read.bad_blocks, 1);
        holds(slot_at(5), RANGE, bad);
        w.ram.bad[0].used = false;
    }
}

/* BRD-3: the last block of what was asked for: whether the member answers for others is asked of the image's header. */
static void a_last_block_that_is_refused_while_the_member_answers_is_bad(void **state)
{
    (void)state;
    uint64_t last = slot_at(5) + RANGE - BLOCK_BYTES;
    ram_io_make_bad(&w.ram, 0, last, true);
    assert_int_equal(ask(slot_at(5), RANGE), ERR_OK);
    assert_int_equal(b.read.bad_blocks, 1);
    holds(slot_at(5), RANGE, RANGE / BLOCK_BYTES - 1);
    assert_int_equal(ask(last, BLOCK_BYTES), ERR_MEDIA); /* nothing else was asked for */
    assert_int_equal(w.pool->members[0].refused_since_ns, 0);
    w.ram.bad[0].used = false;
    ram_io_make_bad(&w.ram, 0, slot_at(5), true); /* the header itself: the other end of the slot is the witness */
    assert_int_equal(ask(slot_at(5), BLOCK_BYTES), ERR_MEDIA);
}

/* There a frame may be on its way. */
static void the_end_of_a_segment_that_grows_is_no_witness(void **state)
{
    (void)state;
    const struct segment *s = NULL;
    for (uint32_t i = 0; i < 10 && !(s && segment_on_member(s, 0)); i++) {
        fill(1, 9000);
        s = segment_find(w.pool, w.sent[w.count - 1].record.place.segment);
        assert_non_null(s);
        for (uint32_t k = 0; k < w.pool->segment_used; k++)
            w.pool->segments[k].close_soon = !segment_on_member(s, 0);
        turns(50);
    }
    assert_true(segment_on_member(s, 0));
    const struct image *image = &s->images[s->images[0].member != 0];
    uint64_t slot = segment_image_offset(w.pool, image), refused = w.pool->members[0].refused_since_ns;
    ram_io_make_bad(&w.ram, 0, slot, true);
    ram_io_make_bad(&w.ram, 0, slot + SEGMENT - BLOCK_BYTES, true);
    assert_int_equal(ask(slot, BLOCK_BYTES), ERR_MEDIA);
    assert_int_equal(w.pool->members[0].refused_since_ns, refused);
}

/* BRD-3: however long it takes until it answers again, nothing is called bad. */
static void a_last_block_that_is_refused_for_a_moment_is_not_bad(void **state)
{
    (void)state;
    uint64_t last = slot_at(5) + RANGE - BLOCK_BYTES;
    uint32_t later = 0;
    ram_io_refuse(&w.ram, 0, last, 1000);
    assert_int_equal(ask(slot_at(5), RANGE), ERR_OK);
    uint32_t enough = 1000 - w.ram.bad[0].times; /* so often it is asked before it is bad */
    assert_int_equal(b.read.bad_blocks, 1);
    w.ram.bad[0].used = false;
    for (uint32_t times = 1; times < enough; times++) {
        ram_io_refuse(&w.ram, 0, last, times);
        enum err e = ask(slot_at(5), RANGE);
        assert_true(e == ERR_IO || (e == ERR_OK && b.read.bad_blocks == 0));
        later += e == ERR_IO;
        assert_int_equal(ask(slot_at(5), RANGE), ERR_OK);
        holds(slot_at(5), RANGE, UINT32_MAX);
    }
    assert_true(later > 0);
}

/* BRD-3 */
static void a_member_that_refuses_everything_says_nothing_of_its_medium(void **state)
{
    (void)state;
    refuse_all(true);
    assert_int_equal(ask(slot_at(5), RANGE), ERR_IO);
    assert_true(w.pool->members[0].refused_since_ns > 0);
    assert_int_equal(ask(slot_at(5) + BLOCK_BYTES, BLOCK_BYTES), ERR_IO);
    assert_int_equal(ask(48 * KIB, 4 * BLOCK_BYTES), ERR_IO); /* the canary's place: no slot, and no witness but its own blocks */
    assert_int_equal(ask(48 * KIB, BLOCK_BYTES), ERR_IO);
    refuse_all(false);
    assert_int_equal(ask(slot_at(5), RANGE), ERR_OK);
    holds(slot_at(5), RANGE, UINT32_MAX);
    assert_int_equal(w.pool->members[0].refused_since_ns, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_slot, teardown_slot)
    const struct CMUnitTest tests[] = {
        TEST(one_bad_sector_costs_one_block_and_some_twenty_reads),
        TEST(a_last_block_that_is_refused_while_the_member_answers_is_bad),
        TEST(a_last_block_that_is_refused_for_a_moment_is_not_bad),
        TEST(the_end_of_a_segment_that_grows_is_no_witness),
        TEST(a_member_that_refuses_everything_says_nothing_of_its_medium),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
