/* SPDX-License-Identifier: Apache-2.0 */
/* MEM-4, RBL-9: the flush of a commit fails while a rebuild's writes lie in the same drive's cache. The drive drops them and says
 * nothing when the rebuild flushes: the image does not count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#include <string.h>

#define SECOND UINT64_C(1000000000)
#define FAILURES_MAX 2u /* fewer than a member is given up for */
#define AWAY 2u

struct failing { uint32_t gathered, told; };

/* The next commit there after what a rebuild has written. */
static void fail_after_rebuild(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct failing *f = owner;
    (void)index;
    if (op->kind != IO_WRITE || op->target != 0)
        return;
    if (op->class == IO_CLASS_REBUILD) {
        f->gathered++;
    } else if (op->durable && f->gathered > 0 && f->told < FAILURES_MAX) {
        fate->fault = SIM_FAULT_flush_error;
        f->gathered = 0;
        f->told++;
    }
}

static bool redundant(struct world *w)
{
    static struct pool_status s;
    pool_status(w->pool, &s);
    return s.segments_degraded == 0;
}

static void on_finding(void *owner, const struct pool_check_finding *f)
{
    uint32_t *bad = owner;
    if (f->fault == ERR_MEMBER_GONE)
        return;
    print_message("%s on \"%s\": segment %llu at %llu, %s\n", f->text, f->member, (unsigned long long)f->segment.counter,
                  (unsigned long long)f->offset, err_name(f->fault));
    (*bad)++;
}

/* Without a repair before it. */
static uint32_t bad_places(struct world *w)
{
    struct pool_check_totals totals;
    uint32_t bad = 0;
    w->config.read_only = true;
    if (!world_failed(w) && world_mount(w))
        assert_true(pool_check(w->pool, &bad, on_finding, &totals) != ERR_LOST);
    return bad;
}

static void what_a_failed_flush_dropped_is_not_rebuilt(void **state)
{
    (void)state;
    const enum io_durable_by by[] = {IO_DURABLE_FLUSH, IO_DURABLE_DSYNC};
    for (uint32_t seed = 80; seed < 86; seed++) {
        struct world *w = story_open(seed, 3, by[seed % 2]);
        struct failing f = {0};
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 100, 60000); /* segments on each pair of members */
        sim_io_vanish(w->sim, AWAY);
        sim_io_on_submit(w->sim, &f, fail_after_rebuild);
        for (uint64_t until = io_now_ns(w->io) + 60 * SECOND; !world_failed(w) && io_now_ns(w->io) < until &&
                                                              f.told < FAILURES_MAX;) {
            if (f.gathered > 0 && w->action_count < 2)
                senders_append(w, 3000, false);
            world_turn(w);
        }
        sim_io_on_submit(w->sim, NULL, NULL);
        if (!world_failed(w))
            world_settle(w);
        for (uint64_t until = io_now_ns(w->io) + 900 * SECOND; !world_failed(w) && io_now_ns(w->io) < until && !redundant(w);)
            world_turn(w);
        bool whole = !world_failed(w) && redundant(w);
        uint32_t told = f.told;
        if (!world_failed(w))
            pool_unmount(&w->pool);
        story_cut(w, SIM_SURVIVE_ALL);
        uint32_t bad = bad_places(w);
        story_close(w, "failed flush, seed", seed);
        assert_true(told > 0 && whole);
        assert_int_equal(bad, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_failed_flush_dropped_is_not_rebuilt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
