/* SPDX-License-Identifier: Apache-2.0 */
/* The real engine with its memory index on simulated members, simulated senders and destinations in front of it, and
 * the model beside it. One world is one run: made from a plan, stepped until its work is done, audited at the end.
 *
 *  WLD-1  every promise of the model is checked after mounts, at pauses and at the end; the first broken one stops the
 *         run and says which, where and when.
 *  WLD-2  no action waits for ever: LIVENESS_NS of virtual time.
 *  WLD-3  the atlas keeps one member at a time the liar; no fault on it may fail an append or hide a message. */
#ifndef WORLD_H
#define WORLD_H

#include "model.h"
#include "plan.h"

#include <spoolfs/index_kept.h>
#include <spoolfs/spool.h>

#define WORLD_CHUNK_BYTES (CHUNK_BYTES_MAX - 4096u)
#define WORLD_SLOTS_MAX 64u
#define WORLD_LIVENESS_NS (UINT64_C(120) * 1000000000)

struct world_counts {
    uint64_t appends, acked, refused[ERR_COUNT], visits, reads, read_bytes, retires, marks, states, bounces, large;
    uint64_t crashes, crashes_in_mount, lost_by_id, salvaged, mounts, unmounts, audits, messages_audited, eras, lost_said;
    uint64_t scheduled, halves_refused, cramped, worn_out, slots_used, slots_reused, given_up, short_of_measure;
#define X(counter, text) uint64_t counter;
#include "measure.def"
#undef X
    uint64_t compacted, hedges, frames, steps, joined, replaced, taken_out, spares, events[EVENT_COUNT];
};

/* Which member may be hurt. Written by atlas.c. */
struct atlas {
    uint16_t victim;      /* target */
    bool locked;          /* it holds damage that healing does not undo: no other member may be hurt any more */
    bool out;             /* it was pulled, or its place holds another disk */
    struct sim_disk *aside;    /* its own disk, while another is in its place */
    struct sim_disk *snapshot; /* an older copy of it */
    struct sim_disk *foreign;  /* of another pool */
    uint32_t slow_factor;
    uint64_t next_rest_ns, slow_until_ns, calm_until_ns; /* calm: no new slowness or stall before this */
};

struct slot_use { struct segment_id last; uint32_t times; }; /* image headers of different segments written there */
struct struck { bool compaction, hedge, seal, recovery, merge; };   /* what the last crash interrupted */

/* The index between mounts. Written by kept.c. */
struct kept {
    struct index_kept *now;   /* NULL: it is empty at every mount */
    struct index_kept *older; /* of an earlier mount */
    struct index_kept *divided; /* of when the pool was cut in two: the other half's */
    struct prng dice;
    uint64_t sync_ns;
    bool discard;             /* the next mount finds none */
    bool died;                /* with the process; nothing reaches it any more */
};

/* A pool cut in two. Written by halves.c. */
struct halves {
    struct prng dice;
    uint32_t until;           /* of `begun`, while calm */
    bool due;                 /* the pool is to be cut when it is mounted next */
    bool calm;                /* nothing is damaged; from the cut until all is whole again */
    bool apart, meeting;      /* one half is alone; the other comes to it */
    bool refused;             /* the half that is alone has no room to be mounted */
};

struct world;
struct relay_ops {
    void (*step)(struct world *w);
    void (*stop)(struct world *w); /* the engine is gone: nothing is answered any more */
};

struct world {
    struct plan plan;
    struct sim_io *sim;
    struct io *io;
    struct pool_config config;
    struct pool *pool;
    struct model model;
    struct prng work, hurt, change; /* separate: a fault more does not change what senders do */
    uint32_t serving;         /* members that are certainly meant to serve */
    struct uuid lost;         /* a member that was absent at the last mount */
    uint32_t formatted_mask;  /* members that were put in, and formatted without a crash */
    struct atlas atlas;
    struct kept kept;
    struct halves halves;
    const struct relay_ops *scheduler; /* a real scheduler takes what is due (sim_relay.h); NULL: the senders do */
    void *relay;              /* its own */
    struct prng relay_dice;
    struct link actions;
    uint32_t action_count;
    uint32_t begun;           /* of plan.ops */
    bool enough;              /* the measure is reached; asked again from measure_next on */
    uint32_t measure_next;
    uint64_t called_up_ns;    /* when a spare took another's place; 0: never */
    uint64_t resume_ns;       /* no new action before this */
    bool cramped;             /* at the end there was no room to be whole (room_is_cramped) */
    uint64_t full_ns;         /* when something was refused for want of room; 0: never */
    bool paused, mounting, faults_off;
    bool losing;              /* losses.c, given_up.c: what is doomed is to be reported lost, and nothing else */
    bool giving_up;           /* given_up.c: and bounced */
    bool unbounced;           /* for want of room it was not: the run is over */
    bool table_lost;          /* a mount found no segment table */
    bool given_up;            /* PLAN_BEYOND: more is broken than the pool can bear; the run ends, nothing wrong was shown */
    bool era_due;             /* all is well: the next stop may change the victim */
    uint64_t scripted_cut;    /* op index at which the power goes; UINT64_MAX: none */
    bool scripted_kill;
    enum sim_fault scripted_fault;
    uint64_t scripted_fault_at, scripted_fault_target;
    bool scripted_fault_stays;
    bool memory_short;        /* allocations are refused: saying so is an answer */
    struct { struct index_query query; bool done; enum err e; } asked; /* an audit's question: outlives a crash */
    struct slot_use slots[MEMBERS_MAX][WORLD_SLOTS_MAX];
    struct struck struck;
    struct segment_id exchange; /* the provisional segment of the one under way, in measure.c; none: zero */
    struct world_counts counts;
    char failure[512];
    bool verbose;
    uint64_t list_from;       /* verbose: operations from this one on are listed */
};

/* --- world.c: life --- */
void world_make(struct world *w, const struct plan *plan);
void world_free(struct world *w);
bool world_create_pool(struct world *w);  /* false: failed, or the power went */
bool world_mount(struct world *w);        /* one attempt; false: the power went, or world_failed */
void world_unmount(struct world *w);
bool world_crashed(const struct world *w);
void world_after_crash(struct world *w);  /* drains, abandons, restores the power; nothing is mounted */
void world_turn(struct world *w);         /* io_turn, pool_step, limits */
bool world_settle(struct world *w);       /* until no action is under way */
bool world_run(struct world *w);          /* the whole plan; false: failed */
bool world_run_on(struct world *w);       /* a turn, and whatever stop comes with it; false: failed, or nothing is mounted now */
bool world_go_on(struct world *w);        /* the same, and the mount behind a stop; false: failed */
bool world_restart(struct world *w);      /* until a pool is mounted and, when the plan says so, audited; false: failed */
bool world_begins(struct world *w);       /* more actions are to be begun */
bool world_failed(const struct world *w);
uint64_t world_scrub(struct world *w, uint64_t until);  /* one whole pass from now on; how many errors it found */
void world_restored(struct world *w, uint64_t until);   /* until nothing is below copies, and some quiet after */
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_say(const struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- senders.c: actions --- */
struct action;
enum visit_kind { VISIT_NOTHING, VISIT_MARK, VISIT_DEFER, VISIT_RETIRE, VISIT_BOUNCE, VISIT_HOLD, VISIT_RELEASE, VISIT_KINDS };
/* NULL: refused now; nothing was taken. */
struct model_message *senders_append(struct world *w, uint32_t body_bytes, bool keep_lease);
bool senders_visit(struct world *w, struct model_message *msg, enum visit_kind kind);
void senders_due(struct world *w);        /* asks for due messages and visits them */
void senders_step(struct world *w);       /* retries, limits, and the plan's next actions */
void senders_forget(struct world *w);     /* after the engine is gone */

/* --- script.c: one workload that meets every kind of record and every state of a segment --- */
/* From an empty disk to a clean stop. Ends early when the power goes or a promise breaks. */
void script_run(struct world *w);
uint64_t script_created_at(struct world *w); /* index of the first operation behind pool_create */
void script_after_cut(struct world *w);   /* power is back: mount and audit */

/* --- audit.c --- */
/* Everything the pool shows against everything promised. False: failed, or the power went. */
bool audit_run(struct world *w);
/* A copy of the disks as they are now, without the members of `absent_mask`, is mounted elsewhere and audited. */
bool audit_copy(struct world *w, uint32_t absent_mask);
bool audit_strict(struct world *w);       /* PLAN_BEYOND or not: all that is promised is there */
/* Nothing may appear later that an audit with every member did not see. Only where no fault is. */
void audit_is_final(struct world *w);

/* --- changes.c: members that are put in, replaced and taken out --- */
void changes_init(struct world *w);
bool changes_before_mount(struct world *w); /* false: the power went */
void changes_after_mount(struct world *w);
void changes_step(struct world *w);
bool changes_can_restore(struct world *w);  /* enough members are here that an image more has a place */

/* --- kept.c: the index between mounts --- */
void kept_init(struct world *w);
void kept_fini(struct world *w);
enum err kept_open(struct world *w, struct uuid pool, bool discard, const struct index_callbacks *cb,
                   struct index **index_out) MUST_CHECK;
void kept_step(struct world *w);
void kept_die(struct world *w);           /* the process is about to end without a stop */
void kept_damaged(struct world *w);       /* the pool says so: the process ends */
void kept_discard(struct world *w);       /* the next mount finds none */
void kept_before_mount(struct world *w);  /* lost, rewound, damaged */
void kept_copy(struct world *to, struct world *from);
void kept_divide(struct world *w);        /* the pool is cut in two; each half may have an index of its own */
void kept_other_half(struct world *w);

/* --- halves.c --- */
void halves_init(struct world *w);
void halves_run(struct world *w);         /* from a whole pool to a whole pool; fails the run or not */
bool halves_calm(const struct world *w);  /* no damage now */

/* --- rested.c --- */
void rested_run(struct world *w, uint64_t until); /* damage at rest on one member of a whole pool: one pass finds all */

/* --- witness.c: what members have said about a MESSAGE when it is acknowledged --- */
void witness_write(struct world *w, const struct io_op *op);
void witness_acknowledged(struct world *w, const struct model_message *msg, struct segment_id segment);
void witness_refused(struct model_message *msg); /* what was written of it is over: said again, it may go to an older segment */

/* --- losses.c: blocks bad on every image, and what the pool then says --- */
void losses_chunk(struct model_message *msg, struct place place, uint32_t bytes); /* where it lies */
void losses_told(struct world *w, const char *evidence); /* of an event `record_lost` */
void losses_run(struct world *w);         /* after the last stop; what it spoils stays so */
bool losses_look(struct world *w);        /* mounted read-only and audited; false: nothing can be said */
void losses_holders(struct world *w, void *owner, /* then: which targets have an image of each record, the MESSAGE and its CHUNKs */
                    void (*told)(void *owner, struct model_message *msg, bool message, uint32_t targets));
void losses_leave(struct world *w);       /* and unmounted */

/* --- shelf.c: a failure domain that is named later --- */
void shelf_run(struct world *w);          /* nothing is mounted, before and after */
bool shelf_first(const struct world *w, uint32_t among, uint16_t target); /* of `among` none before it is in its failure domain */

/* --- room.c: what a pool has room for --- */
/* Each segment that is short takes up to copies - 1 slots, one in a domain, and none in the domain `beside`: there are as many. */
bool room_for_images(const struct pool_status *s, const char *beside);
bool room_is_cramped(const struct world *w, const struct pool_status *s); /* bad places left none for what is short */
bool room_is_worn_out(struct world *w);   /* nor any for results */

/* --- given_up.c: members that die together and are given up by name --- */
void given_up_run(struct world *w);       /* the same */

/* --- measure.c: how much a run has met --- */
#define MEASURE_APPENDS 1000u
#define MEASURE_CRASHES 3u
#define MEASURE_REUSES 5u
#define MEASURE_HELD 2u            /* slots of a member that nobody waits for */
#define MEASURE_VICTIM 3u          /* times plan.ops, then the member that is hurt does not count: it may be out for good */
#define MEASURE_EVERY 50u          /* actions */
#define MEASURE_ACTIONS_MAX 100000u /* a plan that has not met it all by then is a bad plan */
#define MEASURE_EPOCHS_MAX (INCARNATIONS_MAX - 64u) /* an image whose mount is forgotten counts as mail again (table_entries.c) */
void measure_slot(struct world *w, const struct io_op *op);
void measure_exchange(struct world *w, const struct io_op *op, bool over);
void measure_swap(struct world *w, uint16_t a, uint16_t b);
void measure_crash(struct world *w, const struct io_op *op);
void measure_index_lost(struct world *w);
void measure_worn_out(struct world *w);   /* the run ends, and is judged like any other */
bool measure_goes_on(struct world *w);    /* more actions are to be begun */

/* --- atlas.c: what is hurt, within what redundancy pays for --- */
void atlas_init(struct world *w);
void atlas_fini(struct world *w);
void atlas_decide(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate);
void atlas_step(struct world *w);         /* damage at rest */
void atlas_before_mount(struct world *w); /* returns, swaps, jumps; perhaps another victim */
uint64_t atlas_superblock_at(const struct sim_disk *disk, uint64_t copy);
void atlas_stop(struct world *w);         /* faults stop, what they did stays; between mounts */
void atlas_next_era(struct world *w);     /* perhaps another victim; between mounts */

#endif
