/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of dead segments that wait for each other, of any size: they go together, or in parts that leave nobody behind (RET-1, RET-3). */
#include "spool_world.h"

#include "compact.h"

#define MEMBERS 8u /* of 40 slots each: room for 300 segments */

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **index_out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, index_out);
}

static int setup_with_index(void **state)
{
    (void)state;
    setup_members(MEMBERS);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    mount();
    pass_seconds(1);
    return 0;
}

/* Segments that took no frame and have no image: nothing but what they depend on keeps them. */
static struct segment_id made[512];
static uint32_t made_count;

static void make(uint32_t count)
{
    for (made_count = 0; made_count < count; made_count++) {
        struct segment *s = segment_add(w.pool, segment_next_id(w.pool), SEGMENT_MAIL);
        assert_non_null(s);
        s->state = SEGMENT_SEALED;
        made[made_count] = s->id;
    }
}

static void depends(uint32_t a, uint32_t b)
{
    struct segment *s = segment_find(w.pool, made[a]);
    s->deps = realloc(s->deps, (s->dep_count + 1) * sizeof *s->deps);
    s->deps[s->dep_count++] = made[b];
}

static void make_ring(uint32_t from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        depends(from + i, from + (i + 1) % count);
}

static uint32_t left(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < made_count; i++)
        n += segment_find(w.pool, made[i]) != NULL;
    return n;
}

static void look(void)
{
    segment_find(w.pool, made[0])->dirty = true;
    w.pool->dirty_segments++;
    pass_seconds(1);
}

static void a_ring(uint32_t count)
{
    make(count);
    make_ring(0, count);
    look();
    assert_int_equal(left(), 0);
    pool_unmount(&w.pool); /* what the table says of it can be read back */
    mount();
    pass_seconds(1);
}

static void a_ring_of_256_goes(void **state)
{
    (void)state;
    a_ring(256);
}

static void a_ring_of_257_goes(void **state)
{
    (void)state;
    a_ring(257);
}

/* --- parts: at most 256 at a time --- */

static uint8_t in[1024];
static struct segment_id part[1024];

static void all_in(void)
{
    memset(in, RETIRE_OUT, sizeof in);
    for (uint32_t i = 0; i < made_count; i++) {
        const struct segment *s = segment_find(w.pool, made[i]);
        if (s)
            in[segment_index(w.pool, s)] = RETIRE_IN;
    }
}

/* Takes a part and frees it. Nobody who is freed leaves a segment behind that it depends on. */
static uint32_t take(uint32_t max)
{
    all_in();
    uint32_t count = retire_take(w.pool, in, part, max);
    assert_true(count <= max);
    for (uint32_t i = 0; i < count; i++) {
        const struct segment *s = segment_find(w.pool, part[i]);
        for (uint32_t d = 0; d < s->dep_count; d++) {
            const struct segment *dep = segment_find(w.pool, s->deps[d]);
            assert_true(!dep || in[segment_index(w.pool, dep)] == RETIRE_TAKEN);
        }
    }
    for (uint32_t i = 0; i < count; i++)
        segment_drop(w.pool, segment_find(w.pool, part[i]));
    return count;
}

static void a_chain_of_257_goes_in_two_parts_from_its_end(void **state)
{
    (void)state;
    make(257);
    for (uint32_t i = 0; i < 256; i++)
        depends(i, i + 1);
    assert_int_equal(take(256), 256);
    assert_non_null(segment_find(w.pool, made[0]));
    assert_int_equal(take(256), 1);
    assert_int_equal(left(), 0);
}

static void a_ring_that_fits_goes_and_who_depends_on_it_goes_after_it(void **state)
{
    (void)state;
    make(280);
    make_ring(20, 256);
    depends(0, 20);  /* waits for the ring */
    depends(30, 277); /* the ring waits for this one */
    for (uint32_t i = 1; i < 20; i++)
        depends(i, 0);
    assert_int_equal(take(256), 4); /* 276 to 279 */
    assert_int_equal(take(256), 256);
    assert_null(segment_find(w.pool, made[20]));
    assert_non_null(segment_find(w.pool, made[0]));
    assert_int_equal(take(256), 20);
    assert_int_equal(left(), 0);
}

static void a_ring_that_does_not_fit_stays_and_keeps_nobody_else(void **state)
{
    (void)state;
    make(290);
    make_ring(0, 257);
    make_ring(257, 30);
    assert_int_equal(take(256), 3);
    assert_int_equal(take(256), 30);
    assert_int_equal(take(256), 0);
    assert_int_equal(left(), 257);
    assert_int_equal(take(257), 257);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_with_index, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_ring_of_256_goes),
        TEST(a_ring_of_257_goes),
        TEST(a_chain_of_257_goes_in_two_parts_from_its_end),
        TEST(a_ring_that_fits_goes_and_who_depends_on_it_goes_after_it),
        TEST(a_ring_that_does_not_fit_stays_and_keeps_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
