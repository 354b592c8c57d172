/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that lies on request: sparse blocks, a volatile write cache, damage as an overlay over the true bytes.
 * No time and no operations here (sim_io.c); every choice comes from the caller's generator. */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <base/err.h>
#include <base/prng.h>
#include <stdbool.h>
#include <stdint.h>

#define SIM_SECTOR_BYTES 512u     /* what a power cut tears at: the smallest unit a drive writes whole */
#define SIM_CACHE_WRITES_MAX 512u /* unflushed writes a disk holds; beyond, the oldest reach the medium by themselves */

struct sim_disk;

struct sim_disk_shape {
    uint64_t bytes;
    bool is_file;     /* unwritten blocks read as zeros; else as seeded junk */
    uint64_t seed;
};

/* What a power cut leaves of the writes that no flush covers. */
enum sim_survival {
    SIM_SURVIVE_NONE,
    SIM_SURVIVE_ALL,
    SIM_SURVIVE_ALL_BUT_ONE,
    SIM_SURVIVE_ONLY_ONE,
    SIM_SURVIVE_RANDOM, /* each wholly, not at all, or any subset of its sectors */
    SIM_SURVIVE_COUNT
};

/* One power cut over all disks: `chosen` is the unflushed write the ONE patterns are about, counted over the disks. */
struct sim_cut {
    enum sim_survival survival;
    struct prng *prng;
    uint32_t chosen, at;
};

struct sim_disk *sim_disk_make(const struct sim_disk_shape *shape);
void sim_disk_free(struct sim_disk **disk);
struct sim_disk *sim_disk_snapshot(const struct sim_disk *disk); /* as if flushed; damage included */
uint64_t sim_disk_bytes(const struct sim_disk *disk);
bool sim_disk_is_file(const struct sim_disk *disk);
void sim_disk_truncate(struct sim_disk *disk, uint64_t bytes); /* content past it is gone */
void sim_disk_blank(struct sim_disk *disk);                    /* as from the shop */

/* ERR_MEDIA when a block is unreadable; the buffer then holds what precedes it. */
enum err sim_disk_read(const struct sim_disk *disk, uint64_t offset, uint32_t length, uint8_t *buffer) MUST_CHECK;
/* What the range held before its last overwrite: a stale read. */
void sim_disk_read_before(const struct sim_disk *disk, uint64_t offset, uint32_t length, uint8_t *buffer);
/* Into the cache: visible to reads at once, on the medium after sim_disk_settle. */
void sim_disk_write(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes);
void sim_disk_write_through(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes);
void sim_disk_discard(struct sim_disk *disk, uint64_t offset, uint64_t length, struct prng *prng);

uint64_t sim_disk_mark(const struct sim_disk *disk);            /* number of the newest write so far */
void sim_disk_settle(struct sim_disk *disk, uint64_t mark);     /* a flush: writes up to `mark` reach the medium */
void sim_disk_doom(struct sim_disk *disk, uint64_t mark);       /* a failed flush: readable until power goes, then lost */
uint32_t sim_disk_unflushed(const struct sim_disk *disk);
void sim_disk_power_cut(struct sim_disk *disk, struct sim_cut *cut);
/* A write in flight when the power went, or one that failed half way: it survives as the cut says. */
void sim_disk_tear(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes, struct sim_cut *cut);

/* Damage, until the block is written again or healed. */
void sim_disk_rot(struct sim_disk *disk, uint64_t offset, uint8_t mask); /* flips bits of the byte at offset */
void sim_disk_make_unreadable(struct sim_disk *disk, uint64_t offset);
void sim_disk_lose_write(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes);
void sim_disk_misplace_write(struct sim_disk *disk, uint64_t offset, uint64_t wrong_offset, uint32_t length,
                             const uint8_t *bytes);
uint32_t sim_disk_damaged(const struct sim_disk *disk); /* blocks */
void sim_disk_heal(struct sim_disk *disk);
bool sim_disk_written(const struct sim_disk *disk, uint64_t offset); /* the block holds something but zeros */

#endif
