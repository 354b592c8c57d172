/* SPDX-License-Identifier: Apache-2.0 */
/* What the stories of halves share: who is here, mounts that may fail, and what has to last. */
#ifndef HALVES_H
#define HALVES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

static inline enum io_durable_by durable_by(uint64_t seed) { return seed % 2 ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH; }

static inline bool mounts(struct world *w) { return !world_failed(w) && world_mount(w); }

/* Mount after mount: everything is there, and mail that is taken in between does not lie over it. */
static inline void lasts(struct world *w, uint32_t mounts_more)
{
    for (uint32_t n = 0; n <= mounts_more && !world_failed(w); n++) {
        story_cut(w, SIM_SURVIVE_RANDOM);
        if (mounts(w) && audit_run(w))
            story_append(w, 4, 20000);
    }
}

/* The members of `mask` only. */
static inline void here(struct world *w, uint32_t mask)
{
    for (uint16_t t = 0; t < w->plan.members && !world_failed(w); t++)
        if (mask & (1u << t))
            sim_io_return(w->sim, t);
        else
            sim_io_vanish(w->sim, t);
}

static inline void turn_for(struct world *w, uint64_t seconds)
{
    uint64_t until = io_now_ns(w->io) + seconds * UINT64_C(1000000000);
    while (!world_failed(w) && io_now_ns(w->io) < until)
        world_turn(w);
}

#endif
