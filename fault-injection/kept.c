/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the index between mounts, and what becomes of it: kept as of some transaction since its last sync, lost, an older
 * one in its place, damaged.
 *
 *  KPT-1  a clean stop keeps all of it; a crash loses the newest transactions, never one that was synced.
 *  KPT-2  what is damaged is found by the look at opening or by whoever reads it; then the process ends, and the next
 *         mount begins with none, as the daemon does.
 *  KPT-3  draws from a stream of its own: it moves no fault and no message.
 * Never: knows a row. A plan without `index_kept` has an index that is empty at every mount. */
#include "world.h"

#include <base/assert.h>
#include <string.h>

#define KEPT_SYNC_NS (UINT64_C(5) * 1000000000) /* as index_thread.c */
#define KEPT_OLDER_ONE_IN 3u                    /* mounts at which the index of that hour is put aside */
#define KEPT_STRUCK_TIMES 3u                    /* behind a crash that interrupted something the index fails so much more often */

void kept_init(struct world *w)
{
    w->kept.dice.state = w->plan.seed ^ UINT64_C(0x6b65707421696478);
    if (!w->plan.index_kept)
        return;
    enum err e = index_kept_make(&w->kept.now);
    ASSERT(e == ERR_OK);
}

void kept_fini(struct world *w)
{
    index_kept_free(&w->kept.now);
    index_kept_free(&w->kept.older);
    index_kept_free(&w->kept.divided);
}

enum err kept_open(struct world *w, struct uuid pool, bool discard, const struct index_callbacks *cb,
                   struct index **index_out)
{
    if (!w->kept.now)
        return index_mem_open(pool, cb, index_out);
    if (discard || w->kept.discard)
        index_kept_discard(w->kept.now);
    w->kept.discard = w->kept.died = false;
    w->kept.sync_ns = sim_io_now(w->sim) + KEPT_SYNC_NS;
    return index_mem_open_kept(pool, w->kept.now, cb, index_out);
}

void kept_step(struct world *w)
{
    if (!w->kept.now || w->kept.died || sim_io_now(w->sim) < w->kept.sync_ns)
        return;
    w->kept.sync_ns = sim_io_now(w->sim) + KEPT_SYNC_NS;
    index_kept_sync(w->kept.now);
}

/* KPT-1. What the real one gathers for 200 ms is lost with the process, too. */
void kept_die(struct world *w)
{
    if (!w->kept.now || w->kept.died)
        return;
    uint32_t unsynced = index_kept_unsynced(w->kept.now), lost = 0;
    uint64_t mood = prng_below(&w->kept.dice, 3);
    if (mood > 0)
        lost = mood == 1 ? unsynced : (uint32_t)prng_below(&w->kept.dice, unsynced + 1u);
    index_kept_die(w->kept.now, lost);
    w->kept.died = true;
    world_say(w, "index: %u of %u transactions since its last sync are lost", lost, unsynced);
}

/* KPT-2 */
void kept_damaged(struct world *w)
{
    w->kept.discard = true;
    sim_io_kill(w->sim);
}

void kept_discard(struct world *w) { w->kept.discard = true; }

/* --- before a mount --- */

static bool kept_chance(struct world *w, enum sim_fault fault)
{
    static const struct struck nothing;
    bool struck = memcmp(&w->struck, &nothing, sizeof nothing) != 0;
    uint32_t times = struck ? KEPT_STRUCK_TIMES : 1;
    return prng_below(&w->kept.dice, 100) < w->plan.mount_percent[fault] * times;
}

static void kept_fails(struct world *w, enum sim_fault fault)
{
    sim_io_count_fault(w->sim, fault);
    world_say(w, "fault: %s", sim_fault_word(fault));
}

static void kept_put_aside(struct world *w)
{
    index_kept_free(&w->kept.older);
    enum err e = index_kept_copy(w->kept.now, &w->kept.older);
    ASSERT(e == ERR_OK);
}

void kept_before_mount(struct world *w)
{
    struct kept *k = &w->kept;
    if (!k->now || kept_chance(w, SIM_FAULT_index_lost)) {
        k->discard = true;
        kept_fails(w, SIM_FAULT_index_lost);
        measure_index_lost(w);
    } else if (k->older && kept_chance(w, SIM_FAULT_index_rewound)) {
        index_kept_free(&k->now);
        k->now = k->older;
        k->older = NULL;
        kept_fails(w, SIM_FAULT_index_rewound);
    } else if (kept_chance(w, SIM_FAULT_index_damaged)) {
        uint64_t draw = prng_next(&k->dice);
        if (index_kept_damage(k->now, draw, prng_below(&k->dice, 2) == 0))
            kept_fails(w, SIM_FAULT_index_damaged);
    } else if (prng_below(&k->dice, KEPT_OLDER_ONE_IN) == 0) {
        kept_put_aside(w);
    }
    w->struck = (struct struck){0};
}

void kept_divide(struct world *w)
{
    if (!w->kept.now || prng_below(&w->kept.dice, 2))
        return; /* one state directory, wherever the members are */
    index_kept_free(&w->kept.divided);
    enum err e = index_kept_copy(w->kept.now, &w->kept.divided);
    ASSERT(e == ERR_OK);
}

void kept_other_half(struct world *w)
{
    if (!w->kept.divided)
        return;
    index_kept_free(&w->kept.now);
    w->kept.now = w->kept.divided;
    w->kept.divided = NULL;
    w->kept.discard = false;
}

/* For a world that begins with a copy of these disks: of the index as well, or of none. */
void kept_copy(struct world *to, struct world *from)
{
    if (!from->kept.now || prng_below(&from->kept.dice, 2))
        return;
    index_kept_free(&to->kept.now);
    enum err e = index_kept_copy(from->kept.now, &to->kept.now);
    ASSERT(e == ERR_OK);
}
