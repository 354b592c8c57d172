/* SPDX-License-Identifier: Apache-2.0 */
/* PRT-1, PRT-2, PRT-4 and SRV-3: the connection is lost, or the spool killed, at every point of a small storm of appends,
 * marks and a bounce; nothing is lost, nothing is stored twice, and both sides agree on what is held. */
#include "port_world.h"

/* Every append is answered once, what was answered OK is stored once, and no id is stored twice. */
static void storm(int64_t cut_in, int64_t cut_out, bool restart)
{
    uint32_t live = 0;
    w.cut_in = cut_in;
    w.cut_out = cut_out;
    w.restart_on_cut = restart;
    for (uint32_t i = 0; i < 12; i++)
        append(i * 400);
    run_until(is_idle_and_ready);
    for (uint32_t i = 0; i < w.count; i++) {
        assert_int_equal(w.items[i].answers, 1);
        assert_int_equal(w.items[i].e, ERR_OK);
    }
    for (uint32_t i = 0; i < w.count; i++) {
        if (i % 3 == 0)
            mark(w.items[i].mail, true, false);
        else if (i % 3 == 1)
            mark(w.items[i].mail, false, false);
        live += i % 3 != 0;
    }
    retire_with_bounce(w.items[2].mail);
    run_until(bounce_answered);
    assert_int_equal(messages_in_queue(), live); /* one went, its bounce came */
    assert_int_equal(w.conflicts, 0);
    assert_int_equal(w.violations, 0);
    for (uint32_t i = 0; i < w.count; i++) {
        bool held = wire_table_find(&w.port->held, w.items[i].qid) != NULL;
        assert_int_equal(held, i % 3 != 0 && i != 2);
        if (getenv("TRACE") && spool_leased(w.pool, w.items[i].qid) != held) {
            const struct wire_held *h = wire_table_find(&w.server->held, w.items[i].qid);
            fprintf(stderr, "item %u: %x\n", i, h ? h->flags : 0xffffu);
        }
        assert_int_equal(spool_leased(w.pool, w.items[i].qid), held);
    }
}

static void sweep(int64_t step_in, int64_t step_out, bool restart)
{
    uint32_t cuts = 0, rounds = 0;
    bool in = step_in > 0;
    for (int64_t at = 1;; at += in ? step_in : step_out) {
        teardown(NULL);
        setup(NULL);
        storm(in ? at : -1, in ? -1 : at, restart);
        rounds++;
        if (w.cuts == 0)
            break; /* beyond the last byte */
        cuts += w.cuts;
    }
    assert_true(cuts >= rounds - 1 && cuts > 5);
}

static void a_connection_lost_at_any_point_of_the_way_in_costs_nothing(void **state)
{
    (void)state;
    sweep(997, 0, false);
}
static void a_connection_lost_at_any_point_of_the_way_out_costs_nothing(void **state)
{
    (void)state;
    sweep(0, 61, false);
}
static void a_spool_killed_at_any_point_of_the_way_in_costs_nothing(void **state)
{
    (void)state;
    sweep(1499, 0, true);
}
static void a_spool_killed_at_any_point_of_the_way_out_costs_nothing(void **state)
{
    (void)state;
    sweep(0, 127, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(a_connection_lost_at_any_point_of_the_way_in_costs_nothing),
        T(a_connection_lost_at_any_point_of_the_way_out_costs_nothing),
        T(a_spool_killed_at_any_point_of_the_way_in_costs_nothing),
        T(a_spool_killed_at_any_point_of_the_way_out_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
