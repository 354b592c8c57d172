/* SPDX-License-Identifier: Apache-2.0 */
/* The index in memory that stays: what a stop, a crash and damage leave of it (KEPT-1, KEPT-2). */
#include "test_index_world.h"

static void start(struct world *w)
{
    *w = (struct world){.kind = MEM, .pool = {{1, 2, 3}}};
    assert_int_equal(index_kept_make(&w->kept), ERR_OK);
    world_open(w);
    assert_int_equal(w->open_error, ERR_NOT_FOUND);
    live(w);
}

static void end(struct world *w)
{
    index_close(&w->index);
    index_kept_free(&w->kept);
    assert_null(w->kept);
}

/* One transaction. */
static void take(struct world *w, struct made m)
{
    feed(w, m);
    index_dispatch(w->index);
}

static void again(struct world *w)
{
    index_close(&w->index);
    world_open(w);
}

static bool there(struct world *w, uint64_t n)
{
    struct index_entry e;
    return lookup(w, n, &e) == ERR_OK;
}

static void a_stop_keeps_what_was_fed(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    feed(&w, message(1, 1, 1)); /* still on its way */
    again(&w);
    assert_int_equal(w.open_error, ERR_OK);
    assert_true(there(&w, 1));
    assert_int_equal(summary(&w).messages, 1);
    end(&w);
}

static void a_crash_loses_the_newest_transactions_and_none_that_was_synced(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    take(&w, message(1, 1, 1));
    settle(&w);
    assert_int_equal(index_kept_unsynced(w.kept), 0);
    take(&w, message(2, 1, 2));
    take(&w, result(RECORD_RETIRE, 1, 1, 1, 0));
    take(&w, message(3, 1, 3));
    assert_int_equal(index_kept_unsynced(w.kept), 3);
    index_kept_die(w.kept, 2);
    feed(&w, message(4, 1, 4)); /* the process is dead */
    again(&w);
    assert_int_equal(w.open_error, ERR_OK);
    assert_true(there(&w, 1));
    assert_true(there(&w, 2));
    assert_false(there(&w, 3));
    assert_false(there(&w, 4));
    assert_int_equal(summary(&w).messages, 2);
    index_kept_die(w.kept, index_kept_unsynced(w.kept));
    again(&w);
    assert_true(there(&w, 1));
    assert_false(there(&w, 2));
    end(&w);
}

static void a_copy_is_of_its_hour(void **state)
{
    (void)state;
    struct world w;
    struct index_kept *older;
    start(&w);
    take(&w, message(1, 1, 1));
    assert_int_equal(index_kept_copy(w.kept, &older), ERR_OK);
    take(&w, result(RECORD_RETIRE, 1, 1, 1, 0));
    assert_false(there(&w, 1));
    index_close(&w.index);
    index_kept_free(&w.kept);
    w.kept = older;
    world_open(&w);
    assert_int_equal(w.open_error, ERR_OK);
    assert_true(there(&w, 1));
    end(&w);
}

static void what_is_discarded_is_gone(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    take(&w, message(1, 1, 1));
    index_close(&w.index);
    index_kept_discard(w.kept);
    assert_false(index_kept_damage(w.kept, 1, true)); /* nothing is there */
    world_open(&w);
    assert_int_equal(w.open_error, ERR_NOT_FOUND);
    assert_false(there(&w, 1));
    end(&w);
}

/* Every value in turn. */
static void damage_that_the_opening_sees_begins_anew(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 24; n++) {
        struct world w;
        start(&w);
        take(&w, message(1, 1, 1));
        take(&w, record(RECORD_CHUNK, 2, 1, 2));
        index_close(&w.index);
        assert_true(index_kept_damage(w.kept, n << 32 | n * 7, true));
        world_open(&w);
        assert_int_equal(w.open_error, ERR_CORRUPT);
        assert_int_equal(w.damages, 0);
        live(&w);
        assert_false(there(&w, 1));
        take(&w, message(3, 2, 1));
        assert_true(there(&w, 3));
        again(&w);
        assert_int_equal(w.open_error, ERR_OK);
        end(&w);
    }
}

/* Never a wrong answer: the opening says so, or whoever reads the row. */
static void damage_that_the_opening_does_not_see_is_found_by_whoever_reads_it(void **state)
{
    (void)state;
    uint32_t found = 0;
    for (uint64_t n = 0; n < 24; n++) {
        struct world w;
        start(&w);
        take(&w, message(1, 1, 1));
        index_close(&w.index);
        assert_true(index_kept_damage(w.kept, n << 32 | n * 11, false));
        world_open(&w);
        if (w.open_error == ERR_OK) {
            struct index_query q = {.kind = INDEX_LIST, .max = 10};
            enum err e = ask(&w, &q);
            assert_true(e == ERR_CORRUPT || (e == ERR_OK && q.entry_count == 1));
            assert_int_equal(w.damages, e == ERR_CORRUPT);
            found += w.damages;
            index_query_fini(&q);
            again(&w); /* now it looks */
            assert_int_equal(w.open_error, ERR_CORRUPT);
        } else {
            assert_int_equal(w.open_error, ERR_CORRUPT);
        }
        end(&w);
    }
    assert_true(found > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_keeps_what_was_fed),
        cmocka_unit_test(a_crash_loses_the_newest_transactions_and_none_that_was_synced),
        cmocka_unit_test(a_copy_is_of_its_hour),
        cmocka_unit_test(what_is_discarded_is_gone),
        cmocka_unit_test(damage_that_the_opening_sees_begins_anew),
        cmocka_unit_test(damage_that_the_opening_does_not_see_is_found_by_whoever_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
