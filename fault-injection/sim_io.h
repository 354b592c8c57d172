/* SPDX-License-Identifier: Apache-2.0 */
/* The fourth world behind the seam: struct io over simulated disks, virtual time, seeded and hostile.
 *
 *  SIM-1  the same seed and the same calls give the same trace.
 *  SIM-2  after a power cut nothing reaches a disk and nothing succeeds until sim_io_power_on: the engine that ran
 *         sees its members gone, is abandoned by its owner, and everything it submitted still ends in done().
 *  SIM-3  what the engine must never do (change a buffer in flight, overlap a write, transfer unaligned) is noted as a
 *         violation, with the operation that did it. */
#ifndef SIM_IO_H
#define SIM_IO_H

#include "faults.h"
#include "sim_clock.h"
#include "sim_disk.h"

#include <spoolfs/limits.h>

struct sim_latency {
    uint64_t base_ns, spread_ns, ns_per_mib;
    uint64_t tail_ns;       /* one op in tail_one_in takes up to this much longer */
    uint32_t tail_one_in;   /* 0: never */
};
extern const struct sim_latency SIM_LATENCY_NVME, SIM_LATENCY_SSD, SIM_LATENCY_ARMS;

struct sim_member_shape {
    struct sim_disk_shape disk;
    struct sim_latency latency;
    bool rotational, buffered, discards;
    char domain[128];
};

struct sim_io;

struct sim_io *sim_io_make(uint64_t seed);
void sim_io_free(struct sim_io **sim);
struct io *sim_io_door(struct sim_io *sim);
uint16_t sim_io_add_member(struct sim_io *sim, const struct sim_member_shape *shape);

/* `decide` is asked once per submitted operation; `index` counts them from 0 over all members. NULL: nothing fails. */
void sim_io_on_submit(struct sim_io *sim, void *owner,
                      void (*decide)(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate));

/* Told of every operation that ends, before its done(): for listings. */
void sim_io_on_end(struct sim_io *sim, void *owner, void (*ended)(void *owner, const struct io_op *op, uint64_t index));

/* --- power --- */
void sim_io_set_survival(struct sim_io *sim, enum sim_survival survival); /* for the next cut */
void sim_io_power_cut(struct sim_io *sim);
void sim_io_kill(struct sim_io *sim);   /* the process dies: writes in flight happen or not, caches stay */
bool sim_io_is_dark(const struct sim_io *sim);
void sim_io_drain(struct sim_io *sim);  /* in the dark: until every op has ended; then the engine may be abandoned */
void sim_io_power_on(struct sim_io *sim);

/* --- members --- */
void sim_io_vanish(struct sim_io *sim, uint16_t target);
void sim_io_return(struct sim_io *sim, uint16_t target); /* seen by the next mount */
bool sim_io_present(const struct sim_io *sim, uint16_t target);
void sim_io_slow(struct sim_io *sim, uint16_t target, uint32_t factor); /* 1: as usual */
void sim_io_stall(struct sim_io *sim, uint16_t target, uint64_t for_ns);
void sim_io_swap_disks(struct sim_io *sim, uint16_t a, uint16_t b); /* nothing is in flight; a stall goes with its disk */
struct sim_disk *sim_io_disk(struct sim_io *sim, uint16_t target);
struct sim_disk *sim_io_change_disk(struct sim_io *sim, uint16_t target, struct sim_disk *disk); /* returns the old */
void sim_io_jump_wall(struct sim_io *sim, int64_t by_ms);

/* --- what happened --- */
struct sim_counts {
    uint64_t ops, reads, writes, flushes, discards, power_cuts, kills;
    uint64_t faults[SIM_FAULT_COUNT]; /* that were carried out */
};
const struct sim_counts *sim_io_counts(const struct sim_io *sim);
void sim_io_count_fault(struct sim_io *sim, enum sim_fault fault); /* REST and MOUNT kinds: their doer says so */
uint32_t sim_io_in_flight(const struct sim_io *sim);
void sim_io_each_in_flight(struct sim_io *sim, void *owner, void (*see)(void *owner, const struct io_op *op));
uint64_t sim_io_now(const struct sim_io *sim);
uint64_t sim_io_trace(const struct sim_io *sim);                   /* digest of everything so far */
void sim_io_note(struct sim_io *sim, uint64_t word);               /* folds the caller's facts into the trace */
const char *sim_io_violation(const struct sim_io *sim);            /* SIM-3; "" when there was none */

#endif
