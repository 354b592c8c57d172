/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the scripted workload of the power-cut and failure sweeps: create, mount, small and large appends, results of
 * every kind, segments that fill and roll, compaction and reuse, a clean stop and a second mount. Every step is one
 * that a crash or a fault may hit; the plan's generator only draws body bytes. */
#include "world.h"

#include <base/assert.h>

#define COMPACTION_NS (UINT64_C(3) * 1000000000)

static bool going(const struct world *w) { return !world_failed(w) && !world_crashed(w) && w->pool; }

static void turn_for(struct world *w, uint64_t ns)
{
    uint64_t until = io_now_ns(w->io) + ns;
    while (going(w) && io_now_ns(w->io) < until)
        world_turn(w);
}

static void append_many(struct world *w, uint32_t count, uint32_t bytes, uint32_t at_once)
{
    for (uint32_t i = 0; i < count && going(w); i++) {
        senders_append(w, bytes + i * 37u, false);
        while (w->action_count >= at_once && going(w))
            world_turn(w);
    }
    if (going(w))
        world_settle(w);
}

/* Each message that is there and whose turn it is, one after the other. */
static void visit_each(struct world *w, uint32_t from, uint32_t step, enum visit_kind kind)
{
    for (uint32_t i = from; i < w->model.count && going(w); i += step) {
        if (model_must_be_there(&w->model.messages[i]))
            senders_visit(w, &w->model.messages[i], kind);
        if (i % 3 == 0)
            world_settle(w);
    }
    if (going(w))
        world_settle(w);
}

static void script_work(struct world *w)
{
    append_many(w, 6, 700, 3);
    append_many(w, 2, 150 * 1024, 2); /* in CHUNKs */
    visit_each(w, 0, 4, VISIT_MARK);
    visit_each(w, 1, 5, VISIT_DEFER);
    visit_each(w, 2, 5, VISIT_HOLD);
    append_many(w, 44, 60 * 1024, 4); /* segments fill and roll */
    visit_each(w, 3, 10, VISIT_BOUNCE);
    visit_each(w, 2, 5, VISIT_RELEASE);
    for (uint32_t i = 0; i < 7 && going(w); i++) /* all but one in eight: what is left is moved */
        visit_each(w, 8 + i, 8, VISIT_RETIRE);
    turn_for(w, COMPACTION_NS);
    append_many(w, 12, 20 * 1024, 4);
}

void script_run(struct world *w)
{
    w->paused = true;
    if (!world_create_pool(w) || !world_mount(w))
        return;
    script_work(w);
    if (!going(w))
        return;
    w->paused = true;
    world_unmount(w);
    if (world_failed(w) || w->counts.crashes || !world_mount(w))
        return;
    append_many(w, 4, 900, 2);
    visit_each(w, 0, 3, VISIT_RETIRE);
    turn_for(w, COMPACTION_NS / 3);
}

uint64_t script_created_at(struct world *w)
{
    uint64_t at = 0;
    if (world_create_pool(w))
        at = sim_io_counts(w->sim)->ops;
    return at;
}

void script_after_cut(struct world *w)
{
    if (world_failed(w))
        return;
    w->scripted_cut = UINT64_MAX;
    w->scripted_fault = SIM_FAULT_none;
    if (world_crashed(w))
        world_after_crash(w);
    if (!w->pool && world_mount(w) && audit_run(w) && w->plan.level == PLAN_NONE)
        audit_is_final(w);
}
