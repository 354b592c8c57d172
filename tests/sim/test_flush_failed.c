/* SPDX-License-Identifier: Apache-2.0 */
/* Who believes what a drive has dropped because a flush failed, and shows until its power is cut?
 * MEM-4, RBL-9: the flush of a commit fails while a rebuild's writes lie in the same drive's cache. The drive drops them and says
 * nothing when the rebuild flushes: the image does not count.
 * REC-2: the process dies behind a commit's failed flush, or the flush of a healing write fails while frames of the mount before
 * lie in that cache. The next mount sees the frames, and a flush succeeds. */
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

/* --- at mount --- */

/* A commit on member 0 fails; the process dies with the first write that is begun after it was answered. */
struct dying { struct sim_io *sim; const struct io_op *failing; bool out, killed; };

static void see_failing(void *owner, const struct io_op *op)
{
    struct dying *d = owner;
    d->out = d->out || op == d->failing;
}

static void fail_and_die(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct dying *d = owner;
    (void)index;
    if (op->kind != IO_WRITE || !op->durable)
        return;
    d->out = false;
    sim_io_each_in_flight(d->sim, d, see_failing);
    if (d->failing && !d->out) {
        fate->fault = SIM_FAULT_kill;
        d->killed = true;
    } else if (op->target == 0 && op->class == IO_CLASS_COMMIT && !d->failing) {
        fate->fault = SIM_FAULT_flush_error;
        d->failing = op;
    }
}

static void turn_until_dark(struct world *w)
{
    for (uint32_t n = 0; n < 10000 && !world_failed(w) && !sim_io_is_dark(w->sim); n++)
        world_turn(w);
    if (!world_failed(w) && sim_io_is_dark(w->sim))
        world_after_crash(w);
}

/* Mounts once more, waits until nothing is below copies, then takes the power: how much is bad behind that? */
static uint32_t bad_after_mount(struct world *w)
{
    bool whole = !world_failed(w) && !w->pool && world_mount(w);
    sim_io_on_submit(w->sim, NULL, NULL);
    for (uint64_t until = io_now_ns(w->io) + 900 * SECOND; !world_failed(w) && io_now_ns(w->io) < until && !redundant(w);)
        world_turn(w);
    whole = whole && !world_failed(w) && redundant(w);
    if (w->pool)
        pool_unmount(&w->pool);
    story_cut(w, SIM_SURVIVE_ALL);
    return bad_places(w) + !whole;
}

static void a_frame_whose_flush_failed_before_a_kill_is_made_to_stay(void **state)
{
    (void)state;
    const enum io_durable_by by[] = {IO_DURABLE_FLUSH, IO_DURABLE_DSYNC};
    for (uint32_t seed = 90; seed < 98; seed++) {
        struct world *w = story_open(seed, 2 + seed % 3, by[seed / 3 % 2]);
        struct dying d = {.sim = w->sim};
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 20, 6000);
        sim_io_on_submit(w->sim, &d, fail_and_die);
        for (uint32_t i = 0; i < 4; i++)
            senders_append(w, 3000, false);
        turn_until_dark(w);
        sim_io_on_submit(w->sim, NULL, NULL);
        uint32_t bad = bad_after_mount(w);
        story_close(w, "killed behind a failed flush, seed", seed);
        assert_true(d.killed);
        assert_int_equal(bad, 0);
    }
}

/* The first write of a mount that is neither the segment table's nor a superblock's. */
static void fail_heal(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    uint32_t *told = owner;
    (void)index;
    if (op->kind != IO_WRITE || op->class != IO_CLASS_DELIVER || !op->durable || *told > 0)
        return;
    fate->fault = SIM_FAULT_flush_error;
    (*told)++;
}

static void what_a_failed_healing_dropped_is_not_believed(void **state)
{
    (void)state;
    uint32_t all = 0;
    for (uint32_t seed = 100; seed < 116; seed++) {
        struct world *w = story_open(seed, 4, IO_DURABLE_FLUSH);
        uint32_t told = 0;
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 20, 6000);
        for (uint32_t i = 0; i < 16; i++)
            senders_append(w, 3000 + i % 2 * 200000, false); /* large ones have segments of their own */
        for (uint32_t n = 0; n < 1000 && sim_io_in_flight(w->sim) < 6; n++)
            world_turn(w);
        sim_io_kill(w->sim); /* each write that is out is whole in the drive's cache, or not there */
        world_after_crash(w);
        sim_io_on_submit(w->sim, &told, fail_heal);
        uint32_t bad = bad_after_mount(w);
        story_close(w, "a healing's flush failed, seed", seed);
        all += told;
        assert_int_equal(bad, 0);
    }
    assert_true(all > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_whose_flush_failed_before_a_kill_is_made_to_stay),
        cmocka_unit_test(what_a_failed_healing_dropped_is_not_believed),
        cmocka_unit_test(what_a_failed_flush_dropped_is_not_rebuilt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
