/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what stories told step by step to a simulated pool have in common. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world *story_open(uint64_t seed, uint32_t members, enum io_durable_by by)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    plan_make_plain(&plan, seed, members, 2);
    for (uint32_t i = 0; i < members; i++)
        plan.durable_by[i] = by;
    world_make(w, &plan);
    w->paused = true;
    w->verbose = getenv("SIM_VERBOSE") != NULL;
    return w;
}

void story_close(struct world *w, const char *what, uint64_t number)
{
    bool failed = world_failed(w);
    if (failed)
        print_message("%s, %llu: %s\n", what, (unsigned long long)number, w->failure);
    world_free(w);
    free(w);
    if (failed)
        fail();
}

void story_cut(struct world *w, enum sim_survival survival)
{
    if (world_failed(w))
        return;
    sim_io_set_survival(w->sim, survival);
    sim_io_power_cut(w->sim);
    world_after_crash(w);
}

void story_append(struct world *w, uint32_t count, uint32_t bytes)
{
    for (uint32_t i = 0; i < count && !world_failed(w) && w->pool; i++)
        senders_append(w, bytes + i * 100, false);
    if (!world_failed(w) && w->pool)
        world_settle(w);
}

void story_rot(struct world *w, uint16_t target, enum segment_kind kind)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    for (uint32_t slot = 0; slot < w->plan.slots; slot++) {
        uint64_t at = 64 * KIB + slot * w->plan.segment_bytes;
        uint8_t block[BLOCK_BYTES];
        struct image_head_disk head;
        if (sim_disk_read(disk, at, BLOCK_BYTES, block) != ERR_OK)
            continue;
        memcpy(&head, block, sizeof head);
        if (le64_get(head.magic) == IMAGE_MAGIC && le32_get(head.kind) == kind)
            sim_disk_rot(disk, at + BLOCK_BYTES + 200, 1);
    }
}
