/* SPDX-License-Identifier: Apache-2.0 */
/* An index that cannot follow: new mail is refused while it has no room or lags beyond its limit, what was taken is there,
 * and mail is taken again by itself. */
#include "engine.h"
#include "index/port.h"
#include "spool_world.h"

#define CHUNK 100000u

static struct index *g_index;
static void (*g_work)(struct index *x);

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **index_out)
{
    (void)owner;
    (void)discard;
    enum err e = index_mem_open(pool, cb, &g_index);
    if (e == ERR_OK) {
        g_work = g_index->work;
        *index_out = g_index;
    }
    return e;
}

static int setup_indexed(void **state)
{
    setup(state);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    w.config.index_lag_limit = 2 * MIB;
    mount();
    while (!spool_index_ready(w.pool))
        turn();
    return 0;
}

static enum err accepting(void)
{
    struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_equal(s.index_full, s.accepting == ERR_INDEX_FULL);
    return s.accepting;
}

/* Whoever has no mail to bring is not held up: results are what frees. */
static enum err submit_result(void)
{
    static struct spool_record record;
    static struct spool_group group;
    record = (struct spool_record){.type = RECORD_RETIRE, .qid = spool_lend_queue_ids(w.pool, 1)};
    group = (struct spool_group){.records = &record, .count = 1, .class = SPOOL_RESULT, .done = on_answer, .owner = &w.sent[w.count]};
    memset(&w.sent[w.count], 0, sizeof w.sent[w.count]);
    enum err e = spool_submit(w.pool, &group);
    w.count += e == ERR_OK;
    return e;
}

static void while_the_index_has_no_room_mail_is_refused_and_results_are_not(void **state)
{
    (void)state;
    assert_int_equal(append_chunk(CHUNK), ERR_OK);
    settle(1);
    atomic_store(&g_index->full, true);
    turn();
    assert_int_equal(append_chunk(CHUNK), ERR_INDEX_FULL);
    assert_int_equal(accepting(), ERR_INDEX_FULL);
    assert_int_equal(err_class(ERR_INDEX_FULL), ERR_CLASS_TRANSIENT);
    assert_int_equal(submit_result(), ERR_OK);
    atomic_store(&g_index->full, false);
    turn();
    assert_int_equal(accepting(), ERR_OK);
    assert_int_equal(append_chunk(CHUNK), ERR_OK);
    settle(1);
    assert_int_equal(count_ok(), w.count);
}

/* An append that waits for the index, as whoever is told ERR_BUSY does it. */
static enum err append_when_not_busy(uint32_t *waited_ms)
{
    enum err e = append_chunk(CHUNK);
    for (*waited_ms = 0; e == ERR_BUSY && *waited_ms < 5000; (*waited_ms)++) {
        turn();
        e = append_chunk(CHUNK);
    }
    return e;
}

/* Held: its thread is at something else, and the ring fills. */
static void ring_fills(uint32_t room)
{
    g_index->work = NULL;
    for (uint64_t n = 1; index_room(g_index) > room && index_lease(g_index, (struct queue_id){1, n}, true) == ERR_OK; n++) {}
}

static void mail_waits_for_an_index_that_is_nearly_a_ring_behind(void **state)
{
    (void)state;
    uint32_t waited;
    ring_fills(INDEX_RING_BYTES / 8);
    assert_int_equal(append_chunk(CHUNK), ERR_BUSY);
    assert_int_equal(submit_result(), ERR_OK); /* results are what frees */
    assert_true(w.pool->index_live);
    g_index->work = g_work;
    assert_int_equal(append_when_not_busy(&waited), ERR_OK);
    assert_true(waited <= 2);
    settle(1);
    assert_true(w.pool->index_live); /* it was spared a replay */
    assert_int_equal(count_ok(), w.count);
}

static void mail_does_not_wait_long_for_an_index_that_does_not_get_on(void **state)
{
    (void)state;
    uint32_t waited;
    ring_fills(INDEX_RING_BYTES / 8);
    assert_int_equal(append_when_not_busy(&waited), ERR_OK);
    assert_true(waited > 400 && waited < 600);
    assert_int_equal(append_chunk(CHUNK), ERR_OK); /* nor once more */
    settle(1);
    assert_int_equal(count_ok(), w.count);
}

static void an_index_that_lags_beyond_its_limit_stops_new_mail_until_it_follows(void **state)
{
    (void)state;
    ring_fills(0);
    enum err e = ERR_OK;
    uint32_t taken = 0, waited;
    for (; e == ERR_OK && taken < 200; taken += e == ERR_OK) {
        e = append_when_not_busy(&waited);
        settle(1);
    }
    assert_int_equal(e, ERR_INDEX_LAG);
    assert_int_equal(accepting(), ERR_INDEX_LAG);
    assert_true(taken * (uint64_t)CHUNK > MIB); /* over several segments, not only of what one still holds */
    assert_int_equal(count_ok(), taken);
    g_index->work = g_work;
    for (uint32_t i = 0; accepting() != ERR_OK; i++) {
        assert_true(i < 100000);
        turn();
    }
    assert_int_equal(append_chunk(CHUNK), ERR_OK);
    settle(1);
    assert_int_equal(count_ok(), taken + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(while_the_index_has_no_room_mail_is_refused_and_results_are_not, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(mail_waits_for_an_index_that_is_nearly_a_ring_behind, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(mail_does_not_wait_long_for_an_index_that_does_not_get_on, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(an_index_that_lags_beyond_its_limit_stops_new_mail_until_it_follows, setup_indexed,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
