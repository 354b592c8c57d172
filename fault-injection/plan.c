/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the numbers of a run. What is realistic and what is cruel is decided here and nowhere else.
 * Sources of the realistic rates: none of them is a field rate - those are one in billions - but one at which a run of
 * a few thousand operations meets every kind; "cruel" is ten to fifty times that. */
#include "plan.h"

#define SLOTS_KEPT 6u /* of a member, for compaction, results and the table: new mail does not get them */

#include <stdio.h>
#include <string.h>

const char *plan_level_word(enum plan_level level)
{
    static const char *const words[] = {"none", "realistic", "cruel", "beyond"};
    return words[level];
}

bool plan_level_parse(const char *word, enum plan_level *level_out)
{
    for (enum plan_level l = PLAN_NONE; l < PLAN_LEVEL_COUNT; l++)
        if (strcmp(word, plan_level_word(l)) == 0) {
            *level_out = l;
            return true;
        }
    return false;
}

static uint32_t between(struct prng *p, uint32_t low, uint32_t high)
{
    return low + (uint32_t)prng_below(p, high - low + 1u);
}

static void plan_members(struct plan *plan, struct prng *prng)
{
    const struct sim_latency *all = prng_below(prng, 4) == 0   ? &SIM_LATENCY_ARMS
                                    : prng_below(prng, 2) == 0 ? &SIM_LATENCY_SSD
                                                               : &SIM_LATENCY_NVME;
    bool files = prng_below(prng, 2) == 0;
    for (uint32_t i = 0; i < plan->members; i++) {
        uint32_t slots = plan->slots + (uint32_t)prng_below(prng, 9);
        struct sim_member_shape *s = &plan->shapes[i];
        *s = (struct sim_member_shape){.latency = *all, .discards = !files && prng_below(prng, 2) == 0};
        s->rotational = all == &SIM_LATENCY_ARMS;
        s->disk = (struct sim_disk_shape){.bytes = slots * plan->segment_bytes + PLAN_ENDS_BYTES, .is_file = files,
                                          .seed = plan->seed * MEMBERS_MAX + i};
        snprintf(s->domain, sizeof s->domain, "disk:sim%u", i);
        plan->durable_by[i] = prng_below(prng, 2) ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH;
    }
}

static void plan_pool(struct plan *plan, struct prng *prng)
{
    plan->members = between(prng, 2, 8);
    plan->copies = plan->members > 3 && prng_below(prng, 4) == 0 ? 3 : 2;
    plan->min_copies = 1;
    plan->segment_bytes = SEGMENT_BYTES_MIN + prng_below(prng, 4) * (FRAME_BYTES_MAX / 8);
    plan->slots = SLOTS_PER_MEMBER_MIN;
    plan->first_members = plan->members;
}

/* Every second pool gets disks put in, taken out and replaced, or has spares. A stream of its own. */
static void plan_changes(struct plan *plan)
{
    struct prng prng = {plan->seed ^ UINT64_C(0x6368616e67657321)};
    if (plan->level == PLAN_BEYOND || prng_below(&prng, 2))
        return;
    uint32_t more = between(&prng, 1, 3);
    plan->members += more;
    plan->change_percent = between(&prng, 5, 40);
    for (uint32_t i = plan->first_members; i < plan->members; i++)
        plan->spare_mask |= prng_below(&prng, 3) == 0 ? 1u << i : 0;
    if (prng_below(&prng, 3) == 0) { /* the first of them from the beginning */
        plan->spare_mask |= 1u << plan->first_members;
        plan->first_members++;
    }
}

static void plan_work(struct plan *plan, struct prng *prng)
{
    plan->at_once = between(prng, 1, 40);
    plan->body_max = between(prng, 1, 4) * BODY_INLINE_MAX / 4 - BODY_INLINE_MAX / 8;
    plan->large_max = between(prng, 100, 600) * (BODY_INLINE_MAX / 64);
    plan->large_one_in = between(prng, 15, 60);
    plan->retire_percent = between(prng, 40, 90);
    uint32_t serving = plan->first_members - (uint32_t)__builtin_popcount(plan->spare_mask & ((1u << plan->first_members) - 1));
    uint32_t left = serving - 1, copies = plan->copies < left ? plan->copies : left; /* with the victim away */
    plan->backlog_bytes = plan->segment_bytes * (plan->slots - SLOTS_KEPT) * left / copies * between(prng, 5, 25) / 100;
    plan->pause_ns = (uint64_t)between(prng, 20, 120) * 1000000; /* retirement and compaction keep pace with it */
}

static void plan_op_faults(struct plan *plan, struct prng *prng, uint32_t often)
{
    static const enum sim_fault kinds[] = {
        SIM_FAULT_read_error, SIM_FAULT_media_error, SIM_FAULT_short_transfer, SIM_FAULT_misdirected_read,
        SIM_FAULT_stale_read, SIM_FAULT_write_error, SIM_FAULT_full, SIM_FAULT_torn_write, SIM_FAULT_lost_write,
        SIM_FAULT_misdirected_write, SIM_FAULT_flush_error, SIM_FAULT_flush_lie, SIM_FAULT_late, SIM_FAULT_vanish};
    for (uint32_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (prng_below(prng, 2) == 0)
            plan->op_fault_one_in[kinds[i]] = between(prng, often / 2, often * 2);
    if (plan->op_fault_one_in[SIM_FAULT_vanish])
        plan->op_fault_one_in[SIM_FAULT_vanish] *= 4;
}

static void plan_faults(struct plan *plan, struct prng *prng)
{
    bool cruel = plan->level >= PLAN_CRUEL;
    uint32_t per_run = plan->ops * 4; /* about as many operations reach the disks as actions are begun, times four */
    plan->crash_one_in = per_run / between(prng, cruel ? 8 : 3, cruel ? 24 : 8) + 1;
    plan->mount_crash_one_in = cruel ? between(prng, 100, 800) : between(prng, 500, 3000);
    plan_op_faults(plan, prng, cruel ? 60 : 600);
    plan->rest_every_ns = (uint64_t)between(prng, 1, cruel ? 4 : 20) * 100000000;
    plan->rest_weight[SIM_FAULT_bit_rot] = 6;
    plan->rest_weight[SIM_FAULT_rot_header] = 3;
    plan->rest_weight[SIM_FAULT_rot_superblock] = 1;
    plan->rest_weight[SIM_FAULT_rot_image_header] = 1;
    plan->rest_weight[SIM_FAULT_unreadable] = 3;
    plan->rest_weight[SIM_FAULT_slow] = 1;
    plan->rest_weight[SIM_FAULT_stall] = 1;
    plan->mount_percent[SIM_FAULT_return_fresh] = 60;
    plan->mount_percent[SIM_FAULT_return_old] = 10;
    plan->mount_percent[SIM_FAULT_return_foreign] = 5;
    plan->mount_percent[SIM_FAULT_return_blank] = 5;
    plan->mount_percent[SIM_FAULT_swap] = 20;
    plan->mount_percent[SIM_FAULT_clock_jump] = 20;
    plan->mount_percent[SIM_FAULT_rot_superblock] = cruel ? 40 : 10;
}

/* A stream of its own, too: in one pool of four the index is empty at every mount. */
static void plan_index(struct plan *plan)
{
    struct prng prng = {plan->seed ^ UINT64_C(0x696e646578213f21)};
    plan->index_kept = prng_below(&prng, 4) > 0;
    plan->scheduled = (plan->seed * UINT64_C(0x9e3779b97f4a7c15)) >> 62 == 0;
    if (plan->level == PLAN_NONE)
        return;
    plan->mount_percent[SIM_FAULT_index_lost] = between(&prng, 0, 15);
    plan->mount_percent[SIM_FAULT_index_rewound] = between(&prng, 0, 15);
    plan->mount_percent[SIM_FAULT_index_damaged] = between(&prng, 0, 15);
}

void plan_halves(struct plan *plan, bool always)
{
    struct prng prng = {plan->seed ^ UINT64_C(0x68616c7665732121)};
    if ((prng_below(&prng, 3) && !always) || (plan->level != PLAN_REALISTIC && plan->level != PLAN_CRUEL))
        return;
    plan->halves_percent = between(&prng, 1, 100);
    plan->half_actions = between(&prng, 40, 400);
    plan->departure_percent = between(&prng, 0, 100);
}

/* What comes at the end of a run that is whole: streams of their own. */
static void plan_end(struct plan *plan)
{
    struct prng prng = {plan->seed ^ UINT64_C(0x74686520656e6421)};
    bool judged = plan->level == PLAN_REALISTIC || plan->level == PLAN_CRUEL;
    plan->names_domain = judged && prng_below(&prng, 4) == 0;
    plan->gives_up = judged && prng_below(&prng, 3) == 0;
}

void plan_make(struct plan *plan, uint64_t seed, enum plan_level level, uint32_t ops)
{
    struct prng prng = {seed ^ UINT64_C(0x5370304f4c53494d)};
    *plan = (struct plan){.seed = seed, .level = level, .ops = ops, .unmount_percent = 25, .audit_percent = 60};
    plan_pool(plan, &prng);
    plan_changes(plan);
    plan_members(plan, &prng);
    plan_work(plan, &prng);
    if (level != PLAN_NONE)
        plan_faults(plan, &prng);
    plan_index(plan);
    plan_halves(plan, false);
    plan_end(plan);
}

void plan_make_plain(struct plan *plan, uint64_t seed, uint32_t members, uint32_t copies)
{
    *plan = (struct plan){.seed = seed, .members = members, .first_members = members, .copies = copies, .min_copies = 1,
                          .slots = SLOTS_PER_MEMBER_MIN, .segment_bytes = SEGMENT_BYTES_MIN, .at_once = 1,
                          .body_max = 8192, .large_max = 256 * 1024, .large_one_in = 20, .retire_percent = 60,
                          .backlog_bytes = 64 * MIB, .audit_percent = 100};
    for (uint32_t i = 0; i < members; i++) {
        struct sim_member_shape *s = &plan->shapes[i];
        *s = (struct sim_member_shape){.latency = SIM_LATENCY_NVME};
        s->disk = (struct sim_disk_shape){.bytes = plan->slots * plan->segment_bytes + PLAN_ENDS_BYTES, .is_file = true,
                                          .seed = seed * MEMBERS_MAX + i};
        snprintf(s->domain, sizeof s->domain, "disk:sim%u", i);
        plan->durable_by[i] = i % 2 ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH;
    }
}
