/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: damage at rest on one member of a pool that is whole: one pass of the scrub must find all of it, and nothing may be
 * left for the next. The counter-proof is the second pass: the same eyes, and a member whose every place was rewritten. */
#include "world.h"

#include <spoolfs/upkeep.h>
#include <stdio.h>

#define RESTED_PLACES 200u
#define RESTED_UNREADABLE_ONE_IN 8u

/* A member in service, as the target its disk is at; -1: none is. */
static int rested_target(struct world *w, struct prng *dice)
{
    static struct pool_status s;
    unsigned targets[MEMBERS_MAX], count = 0;
    pool_status(w->pool, &s);
    for (uint32_t i = 0; i < s.member_count; i++)
        if (s.members[i].state == MEMBER_HEALTHY && sscanf(s.members[i].path, "/sim/%u", &targets[count]) == 1)
            count++;
    return count ? (int)targets[prng_below(dice, count)] : -1;
}

static uint32_t rested_hurt(struct world *w, uint16_t target, struct prng *dice)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    uint64_t blocks = (sim_disk_bytes(disk) - 128 * KIB) / BLOCK_BYTES;
    uint32_t hurt = 0;
    for (uint32_t tries = 0; tries < RESTED_PLACES * 20 && hurt < RESTED_PLACES; tries++) {
        uint64_t at = 64 * KIB + prng_below(dice, blocks) * BLOCK_BYTES;
        if (!sim_disk_written(disk, at))
            continue;
        hurt++;
        if (prng_below(dice, RESTED_UNREADABLE_ONE_IN) == 0)
            sim_disk_make_unreadable(disk, at);
        else
            sim_disk_rot(disk, at + prng_below(dice, BLOCK_BYTES), (uint8_t)(1u << prng_below(dice, 8)));
    }
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy += 2) /* one at each end */
        sim_disk_rot(disk, (copy ? sim_disk_bytes(disk) - 2 * SUPERBLOCK_BYTES : 0) + prng_below(dice, BLOCK_BYTES), 0x20);
    return hurt;
}

void rested_run(struct world *w, uint64_t until)
{
    struct prng dice = {w->plan.seed ^ UINT64_C(0x7265737465642121)}; /* its own: it moves no other fault */
    int target = rested_target(w, &dice);
    if (target < 0 || world_failed(w))
        return;
    uint32_t hurt = rested_hurt(w, (uint16_t)target, &dice);
    uint64_t found = world_scrub(w, until);
    if (world_failed(w))
        return;
    const struct scrub_report *r = scrub_report(w->pool, true);
    world_say(w, "at rest: %u written places hurt on member %d, %llu places found", hurt, target, (unsigned long long)found);
    if (r->places_left > 0)
        world_fail(w, "P5: of what rotted at rest on one member %llu places are left", (unsigned long long)r->places_left);
    world_restored(w, until); /* what is being freed is gone before the next pass */
    found = world_scrub(w, until);
    if (found > 0)
        world_fail(w, "P5: one pass did not find all that rotted at rest: the next one finds %llu more", (unsigned long long)found);
}
