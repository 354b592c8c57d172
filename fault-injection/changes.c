/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the operator of a run: puts disks in, replaces those that are gone, takes members out, has spares.
 * Invariants: CHG-1: what is done keeps more members in service than `copies` and the one the atlas hurts, so that no
 * promise is off. CHG-2: draws from a stream of its own, so that it moves no fault and no message.
 * Never: reads the engine's mind; uses pool_format_candidate and the doors of upkeep.h as spooltool does. */
#include "world.h"

#include <spoolfs/upkeep.h>
#include <string.h>

#define TAKEN_OUT_MAX 2u /* a long run would end with a pool too small for its mail */
#define SPARE_AFTER_NS (UINT64_C(20) * 1000000000)

void changes_init(struct world *w)
{
    w->change.state = w->plan.seed ^ UINT64_C(0x6d656d62657273);
    w->config.spare_after_ns = SPARE_AFTER_NS;
    for (uint32_t i = 0; i < w->plan.members; i++)
        w->config.members[i].spare = (w->plan.spare_mask >> i) & 1;
    w->serving = 0;
    for (uint32_t i = 0; i < w->plan.first_members; i++)
        w->serving += !w->config.members[i].spare;
}

static const struct pool_status *changes_status(struct world *w)
{
    static struct pool_status s; /* large; one thread */
    pool_status(w->pool, &s);
    return &s;
}

bool changes_can_restore(struct world *w)
{
    const struct pool_status *s = changes_status(w);
    uint32_t well = 0;
    for (uint32_t i = 0; i < s->member_count; i++)
        well += s->members[i].state != MEMBER_ABSENT && s->members[i].state != MEMBER_REMOVED &&
                s->members[i].state != MEMBER_EVACUATING && s->members[i].state != MEMBER_SPARE;
    return well >= w->plan.copies;
}

/* The pool's UUID, from whatever superblock says it: what spooltool asks the daemon for. */
static bool changes_pool(struct world *w, struct uuid *pool_out)
{
    bool candidate;
    for (uint16_t t = 0; t < w->config.member_count; t++)
        if (t != w->atlas.victim && sim_io_present(w->sim, t) &&
            pool_probe_member(w->io, t, pool_out, &candidate) == ERR_OK && !candidate)
            return true;
    return false;
}

static void changes_format(struct world *w, uint16_t t)
{
    struct pool_candidate c = {.segment_bytes = w->plan.segment_bytes, .copies = w->plan.copies,
                               .member = w->config.members[t]};
    struct pool_create_options o = {0};
    const char *text;
    o.durable_by[t] = w->plan.durable_by[t];
    if (!changes_pool(w, &c.pool) || world_crashed(w))
        return;
    static const struct uuid nobody;
    bool replaces = !uuid_equal(w->lost, nobody) && prng_below(&w->change, 3);
    if (replaces)
        c.replaces = w->lost;
    enum err e = pool_format_candidate(w->io, t, &c, &o, &text);
    if (e != ERR_OK || world_crashed(w))
        return; /* once more before another mount */
    w->formatted_mask |= 1u << t;
    w->counts.joined++;
    w->counts.replaced += replaces;
    world_say(w, "member %u is put in%s", t, replaces ? ", in the place of the victim" : "");
}

/* A format that the power cut short, or that seemed to be: it may be a member in service by now. */
static bool changes_unfinished(struct world *w, uint16_t t)
{
    struct uuid pool;
    bool candidate;
    if (!(w->formatted_mask & (1u << t)) && pool_probe_member(w->io, t, &pool, &candidate) == ERR_OK && !candidate)
        w->formatted_mask |= 1u << t;
    return !(w->formatted_mask & (1u << t));
}

bool changes_before_mount(struct world *w)
{
    if (w->faults_off || halves_calm(w) || w->counts.mounts == 0)
        return true;
    uint16_t next = (uint16_t)w->config.member_count;
    if (next > w->plan.first_members && changes_unfinished(w, (uint16_t)(next - 1u)))
        next--;
    if (next < w->plan.members && prng_below(&w->change, 100) < w->plan.change_percent && sim_io_present(w->sim, next)) {
        w->config.member_count = next + 1u;
        changes_format(w, next);
    }
    return !world_crashed(w);
}

/* Anyone in service, when enough others are (CHG-1). */
static void changes_take_out(struct world *w)
{
    const struct pool_status *s = changes_status(w);
    uint32_t healthy = 0;
    for (uint32_t i = 0; i < s->member_count; i++)
        healthy += s->members[i].state == MEMBER_HEALTHY;
    uint32_t i = (uint32_t)prng_below(&w->change, s->member_count);
    if (s->members[i].state != MEMBER_HEALTHY || healthy <= w->plan.copies + 1 || w->serving <= w->plan.copies + 1 ||
        w->counts.taken_out >= TAKEN_OUT_MAX)
        return;
    if (member_remove(w->pool, s->members[i].name, true) != ERR_OK)
        return;
    w->serving--;
    w->counts.taken_out++;
    world_say(w, "member \"%s\" leaves", s->members[i].name);
}

void changes_step(struct world *w)
{
    if (w->faults_off || halves_calm(w) || !w->pool || w->plan.change_percent == 0)
        return;
    if (prng_below(&w->change, 100000) < w->plan.change_percent)
        changes_take_out(w);
}

void changes_after_mount(struct world *w)
{
    if (w->plan.change_percent == 0)
        return;
    const struct pool_status *s = changes_status(w);
    w->lost = (struct uuid){0};
    for (uint32_t i = 0; i < s->member_count; i++)
        if (s->members[i].state == MEMBER_ABSENT)
            w->lost = s->members[i].uuid;
}
