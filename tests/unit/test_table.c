/* SPDX-License-Identifier: Apache-2.0 */
/* What a TABLE record says, read from bytes: which incarnations are known, and whose tables were read (TAB-5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <engine.h>
#include <stdlib.h>
#include <string.h>
#include <table.h>

#define OURS UINT64_C(0x1111)
#define THEIRS UINT64_C(0x2222)

static uint8_t bytes[sizeof(struct table_part_disk) + 2 * sizeof(struct table_incarnation_disk) + 1];

static struct pool *pool_of(void)
{
    struct pool *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->incarnations = calloc(INCARNATIONS_MAX, sizeof *p->incarnations);
    assert_non_null(p->incarnations);
    return p;
}

static void pool_gone(struct pool *p)
{
    free(p->incarnations);
    free(p);
}

/* A TABLE of one part with two incarnations in rows of `row` bytes, and `more` bytes behind them. */
static enum err read_rows(struct pool *p, uint32_t row, uint32_t more)
{
    struct table_part_disk head = {.table = le64_of(1), .parts = le32_of(1), .incarnations = le32_of(2)};
    struct table_incarnation_disk rows[2] = {{le64_of(OURS), le64_of(9), le64_of(7)}, {le64_of(THEIRS), le64_of(3), le64_of(2)}};
    bool begun = false;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &head, sizeof head);
    for (uint32_t i = 0; i < 2; i++)
        memcpy(bytes + sizeof head + i * row, &rows[i], row);
    struct record_view r = {.type = RECORD_TABLE, .body = bytes, .body_bytes = (uint32_t)sizeof head + 2 * row + more};
    return table_apply(p, &r, &begun);
}

static void a_table_is_covered_by_a_later_one_of_its_incarnation(void **state)
{
    (void)state;
    struct pool *p = pool_of();
    assert_int_equal(read_rows(p, sizeof(struct table_incarnation_disk), 0), ERR_OK);
    assert_true(table_covers(p, (struct segment_id){OURS, 7}));
    assert_true(table_covers(p, (struct segment_id){OURS, 6}));
    assert_false(table_covers(p, (struct segment_id){OURS, 8}));
    assert_false(table_covers(p, (struct segment_id){THEIRS, 3}));
    assert_false(table_covers(p, (struct segment_id){UINT64_C(0x3333), 1})); /* nobody has heard of it */
    assert_true(table_covers(p, (struct segment_id){0}));                     /* a member that was never mounted */
    assert_int_equal(table_note_read(p, (struct segment_id){OURS, 8}), ERR_OK);
    assert_int_equal(table_note_read(p, (struct segment_id){OURS, 2}), ERR_OK);
    assert_true(table_covers(p, (struct segment_id){OURS, 8}));
    assert_int_equal(table_incarnation(p, OURS)->high_water, 9); /* another matter */
    pool_gone(p);
}

/* One part that says so is enough, and a later one that does not takes nothing back. */
static void a_table_made_from_headers_says_so(void **state)
{
    (void)state;
    static const struct { uint32_t args[2]; bool partial; } cases[] = {
        {{0, 0}, false}, {{TABLE_PARTIAL, TABLE_PARTIAL}, true}, {{TABLE_PARTIAL, 0}, true}, {{2, 0}, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pool *p = pool_of();
        for (uint32_t part = 0; part < 2; part++) {
            struct table_part_disk head = {.table = le64_of(1), .part = le32_of(part), .parts = le32_of(2)};
            struct record_view r = {.type = RECORD_TABLE, .arg = cases[i].args[part], .body = (const uint8_t *)&head,
                                    .body_bytes = (uint32_t)sizeof head};
            bool begun = false;
            assert_int_equal(table_apply(p, &r, &begun), ERR_OK);
        }
        assert_int_equal(p->table_partial, cases[i].partial);
        pool_gone(p);
    }
}

/* Rows from before there was last_table: nothing counts as read, so that every table is looked at once more. */
static void a_table_of_the_older_format_is_read(void **state)
{
    (void)state;
    struct pool *p = pool_of();
    assert_int_equal(read_rows(p, offsetof(struct table_incarnation_disk, last_table), 0), ERR_OK);
    assert_int_equal(table_incarnation(p, THEIRS)->high_water, 3);
    assert_false(table_covers(p, (struct segment_id){THEIRS, 1}));
    pool_gone(p);
}

static void a_table_of_another_length_is_corrupt(void **state)
{
    (void)state;
    struct pool *p = pool_of();
    assert_int_equal(read_rows(p, sizeof(struct table_incarnation_disk), 1), ERR_CORRUPT);
    assert_int_equal(read_rows(p, offsetof(struct table_incarnation_disk, last_table), 1), ERR_CORRUPT);
    assert_int_equal(p->incarnation_count, 0);
    pool_gone(p);
}

/* At the limit all are known; one more, and the oldest without a live segment is forgotten, but for our own. */
static void the_oldest_incarnation_without_a_segment_is_forgotten_at_the_limit(void **state)
{
    (void)state;
    struct pool *p = pool_of();
    struct segment live = {.state = SEGMENT_SEALED, .id = {2, 1}};
    p->segments = &live;
    p->segment_used = 1;
    p->incarnation = 1;
    for (uint64_t i = 1; i <= INCARNATIONS_MAX; i++)
        assert_int_equal(table_note_incarnation(p, i, 9), ERR_OK);
    assert_int_equal(p->incarnation_count, INCARNATIONS_MAX);
    assert_non_null(table_incarnation(p, 3));
    assert_int_equal(table_note_incarnation(p, INCARNATIONS_MAX + 1, 9), ERR_OK);
    assert_int_equal(p->incarnation_count, INCARNATIONS_MAX);
    assert_non_null(table_incarnation(p, 1));
    assert_non_null(table_incarnation(p, 2));
    assert_null(table_incarnation(p, 3));
    assert_non_null(table_incarnation(p, 4));
    assert_non_null(table_incarnation(p, INCARNATIONS_MAX + 1));
    p->segments = NULL;
    p->segment_used = 0;
    pool_gone(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_covered_by_a_later_one_of_its_incarnation),
        cmocka_unit_test(a_table_made_from_headers_says_so),
        cmocka_unit_test(a_table_of_the_older_format_is_read),
        cmocka_unit_test(a_table_of_another_length_is_corrupt),
        cmocka_unit_test(the_oldest_incarnation_without_a_segment_is_forgotten_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
