/* SPDX-License-Identifier: Apache-2.0 */
/* From a seed to every number of a run: the pool, the senders, the faults. Pure. */
#ifndef PLAN_H
#define PLAN_H

#include "sim_io.h"

enum plan_level { PLAN_NONE, PLAN_REALISTIC, PLAN_CRUEL, PLAN_BEYOND, PLAN_LEVEL_COUNT };
const char *plan_level_word(enum plan_level level);
bool plan_level_parse(const char *word, enum plan_level *level_out);

#define PLAN_SLOTS_OFFSET ((uint64_t)(64 * KIB))                /* two superblock copies, rounded up: create.c */
#define PLAN_ENDS_BYTES (PLAN_SLOTS_OFFSET + 36 * KIB) /* of a member; the rest are slots */

struct plan {
    uint64_t seed;
    enum plan_level level;
    /* the pool */
    uint32_t members, copies, min_copies, slots;
    uint32_t first_members;         /* of these, in the pool from the start; the others are put in later (changes.c) */
    uint32_t spare_mask;            /* members that are formatted as spares */
    uint32_t change_percent;        /* of mounts, before which the operator changes something; and of stops */
    uint64_t segment_bytes;
    struct sim_member_shape shapes[MEMBERS_MAX];
    enum io_durable_by durable_by[MEMBERS_MAX];
    /* the work */
    uint32_t ops;                   /* appends and visits to begin */
    bool measured;                  /* and on until the measure is reached: MSR-1 */
    uint32_t at_once;               /* actions under way at one time */
    uint32_t body_max, large_max;   /* bytes; inline and in CHUNKs */
    uint32_t large_one_in;
    uint32_t retire_percent;
    uint64_t backlog_bytes;         /* of live bodies; no append is begun above */
    uint64_t pause_ns;              /* longest pause between two actions */
    /* the faults: one in so many operations; 0: never */
    uint32_t crash_one_in, mount_crash_one_in;
    uint32_t op_fault_one_in[SIM_FAULT_COUNT]; /* OP kinds, on the member the atlas names */
    uint64_t rest_every_ns;         /* mean pause between REST kinds */
    uint32_t rest_weight[SIM_FAULT_COUNT];
    uint32_t mount_percent[SIM_FAULT_COUNT];   /* MOUNT kinds, at each mount */
    uint32_t halves_percent;        /* of times when all is well, and the first: the pool is cut in two halves */
    uint32_t half_actions;          /* about, of each */
    uint32_t departure_percent;     /* of those cuts that happen to a running pool: one half leaves it */
    bool names_domain;              /* at the end some members turn out to share a failure domain */
    bool gives_up;                  /* and some die together, more than redundancy pays for, and are given up */
    bool scheduled;                 /* the relay's own scheduler takes what is due */
    bool index_kept;                /* from mount to mount; else it is empty at each */
    uint32_t unmount_percent;       /* of stops that are clean */
    uint32_t audit_percent;         /* of mounts that are followed by a full audit */
};

void plan_make(struct plan *plan, uint64_t seed, enum plan_level level, uint32_t ops);
/* One pool in three is cut in two halves that are mounted without each other; or each one. */
void plan_halves(struct plan *plan, bool always);
/* No faults, one latency: for scripts that decide everything themselves. */
void plan_make_plain(struct plan *plan, uint64_t seed, uint32_t members, uint32_t copies);

#endif
