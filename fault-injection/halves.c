/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: a pool that is cut in two. Its members are mounted in two halves, one after the other and each without the other;
 * each takes mail, delivers, moves and frees; then all are mounted together. Or some leave the running pool, which goes on without
 * them; then they are mounted without those that stayed, or not at all before all are together again.
 *
 *   whole [halves_run] -> stop -> one half: mounts, stops -> stop -> the other half -> stop -> both: the merge -> whole
 *   whole [halves_run] -> one after the other vanishes -> those that stay: goes on, stops, mounts -> stop -> the others [-> stop] -> both
 *
 *  HLV-1  nothing is damaged from the beginning until all mail is on `copies` images again: one half alone has no image to spare.
 *         The power goes as ever.
 *  HLV-2  what each half may know is the model's (MOD-6). A half that does not see the mail of before takes nothing from it.
 *  HLV-3  draws from a stream of its own.
 *  HLV-5  mail handed over after the last one left is nowhere but with those that stayed; until then it may be with either.
 *  HLV-4  a half that is too full to be mounted alone (its members keep what only the others know to be dead) stays down.
 * Never: lets anybody come to a running pool. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#define MEND_NS (UINT64_C(7200) * 1000000000)
#define LOOK_EVERY_NS (UINT64_C(2) * 1000000000)
#define LOOKS_MAX 60u
#define TURNS_BETWEEN 40u                      /* at most, from one departure to the next: some frames are written */
#define NEVER_ALONE_ONE_IN 4u                  /* departures: those that left are not mounted by themselves */
#define PATIENCE_NS (UINT64_C(3) * 1000000000) /* at most: older mail waits for the other half, in a run that is soon over */

void halves_init(struct world *w) { w->halves.dice.state = w->plan.seed ^ UINT64_C(0x68616c7665733f21); }

static const struct pool_status *halves_status(struct world *w)
{
    static struct pool_status s; /* large; one thread */
    pool_status(w->pool, &s);
    return &s;
}

/* Everything is there and nothing below `copies`; who serves, as targets. */
static bool halves_well(struct world *w, uint32_t *serving_out)
{
    const struct pool_status *s = halves_status(w);
    bool well = s->messages_below_copies == 0 && s->segments_degraded == 0;
    *serving_out = 0;
    for (uint32_t i = 0; i < s->member_count; i++) {
        unsigned target;
        enum member_state state = s->members[i].state;
        well = well && (state == MEMBER_HEALTHY || state == MEMBER_SPARE || state == MEMBER_REMOVED);
        if (state == MEMBER_HEALTHY && sscanf(s->members[i].path, "/sim/%u", &target) == 1)
            *serving_out |= 1u << target;
    }
    return well;
}

/* Each half has somebody who serves; everybody else is in either. */
static uint32_t halves_cut(struct world *w, uint32_t serving)
{
    uint32_t all = (1u << w->config.member_count) - 1, mask;
    do
        mask = (uint32_t)prng_next(&w->halves.dice) & all;
    while ((mask & serving) == 0 || (~mask & serving) == 0);
    return mask;
}

/* --- one half --- */

static void halves_stop(struct world *w)
{
    uint64_t draw = prng_below(&w->halves.dice, 3);
    if (!w->pool || world_failed(w))
        return;
    if (draw == 0) {
        world_unmount(w);
        return;
    }
    if (draw == 1)
        sim_io_power_cut(w->sim);
    else
        sim_io_kill(w->sim);
    world_after_crash(w);
}

static void halves_here(struct world *w, uint32_t mask)
{
    for (uint16_t t = 0; t < w->config.member_count; t++)
        if (mask & (1u << t))
            sim_io_return(w->sim, t);
        else
            sim_io_vanish(w->sim, t);
}

static void halves_work(struct world *w, uint32_t actions)
{
    w->halves.until = w->begun + actions;
    while (!world_failed(w) && (w->begun < w->halves.until || w->action_count > 0))
        if (!world_go_on(w))
            break;
}

/* HLV-5. One after the other leaves, in whatever order; what was handed over before may lie with any of them. */
static void halves_leave(struct world *w, uint32_t stay)
{
    uint32_t going = ~stay & ((1u << w->config.member_count) - 1);
    bool at_once = prng_below(&w->halves.dice, 3) == 0;
    while (going && !world_failed(w)) {
        uint16_t t = (uint16_t)prng_below(&w->halves.dice, w->config.member_count);
        uint64_t turns = prng_below(&w->halves.dice, TURNS_BETWEEN);
        if (!(going & (1u << t)))
            continue;
        going &= ~(1u << t);
        world_say(w, "halves: member %u leaves", t);
        model_depart(&w->model);
        sim_io_vanish(w->sim, t);
        for (; turns > 0 && going && !at_once; turns--)
            at_once = !world_run_on(w); /* the next mount is one of those that stay, and of nobody else */
    }
    w->counts.departures++;
}

static void halves_alone(struct world *w, uint8_t half, uint32_t mask)
{
    if (world_failed(w))
        return;
    world_say(w, "halves: members %#x are alone", mask);
    model_half_begin(&w->model, half);
    if (!w->pool)
        halves_here(w, mask);
    halves_work(w, w->plan.half_actions / 4 + (uint32_t)prng_below(&w->halves.dice, w->plan.half_actions));
    w->counts.halves_refused += w->halves.refused;
    w->halves.refused = false;
    halves_stop(w);
    model_half_end(&w->model);
}

/* --- both --- */

/* HLV-1. False: it does not get well, or the run has failed. */
static bool halves_get_well(struct world *w, uint32_t *serving_out)
{
    for (uint32_t looks = 0; looks < LOOKS_MAX && !world_failed(w); looks++) {
        uint64_t until = sim_io_now(w->sim) + LOOK_EVERY_NS;
        while (!world_failed(w) && sim_io_now(w->sim) < until && world_go_on(w)) {}
        if (!world_failed(w) && w->pool && halves_well(w, serving_out))
            return true;
    }
    return false;
}

static void halves_meet(struct world *w)
{
    uint64_t before = w->counts.events[EVENT_pool_diverged], until = sim_io_now(w->sim) + MEND_NS;
    uint32_t serving;
    if (world_failed(w))
        return;
    world_say(w, "halves: all members are here");
    model_join(&w->model);
    halves_here(w, UINT32_MAX);
    w->halves.meeting = true;
    while (!w->pool && !world_failed(w))
        if (world_restart(w) && !audit_run(w) && world_crashed(w))
            world_after_crash(w);
    w->halves.meeting = false;
    w->counts.merges += w->counts.events[EVENT_pool_diverged] > before;
    while (!world_failed(w) && !halves_get_well(w, &serving)) /* HLV-1 */
        if (sim_io_now(w->sim) > until)
            world_fail(w, "halves: redundancy is not restored in %u s", (uint32_t)(MEND_NS / 1000000000));
}

static void halves_divide(struct world *w, uint32_t serving)
{
    uint64_t wait_ns = w->config.absent_wait_ns;
    uint32_t first = halves_cut(w, serving);
    w->config.absent_wait_ns = 1 + prng_below(&w->halves.dice, PATIENCE_NS);
    bool live = w->plan.departure_percent && prng_below(&w->halves.dice, 100) < w->plan.departure_percent, never = false;
    if (!live)
        halves_stop(w);
    kept_divide(w);
    w->halves.apart = true;
    if (!live) {
        model_divide(&w->model);
    } else {
        halves_leave(w, first);
        never = prng_below(&w->halves.dice, NEVER_ALONE_ONE_IN) == 0;
    }
    halves_alone(w, 1, first);
    if (!never && !world_failed(w)) {
        kept_other_half(w);
        halves_alone(w, 2, ~first);
    }
    w->halves.apart = false;
    w->config.absent_wait_ns = wait_ns;
    halves_meet(w);
}

void halves_run(struct world *w)
{
    uint32_t serving = 0;
    w->halves.due = false;
    w->halves.calm = true;
    halves_work(w, (uint32_t)prng_below(&w->halves.dice, w->plan.half_actions));
    if (halves_get_well(w, &serving) && __builtin_popcount(serving) > 1)
        halves_divide(w, serving);
    w->halves.calm = false;
}

bool halves_calm(const struct world *w) { return w->halves.calm || w->halves.due; }
