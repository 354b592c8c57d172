/* SPDX-License-Identifier: Apache-2.0 */
/* The seam: all that spoolfs knows of the world.
 *
 * Contract, tested once against every implementation (tests/unit/test_io_contract.c):
 *  IO-1  done() is called exactly once per submitted op, from io_turn, never inside io_submit.
 *  IO-2  transfers are whole or an error; a short transfer is ERR_SHORT or ERR_MEMBER_GONE.
 *  IO-3  a flush covers only writes whose done() ran before the flush was submitted.
 *  IO-4  a write with `durable` set is on stable storage when done(ERR_OK) runs, by the target's own method
 *        (O_DSYNC/FUA or write then flush, whichever io_target.durable_by says). It is not what a drive may have
 *        dropped because the flush of another op failed meanwhile.
 *  IO-5  whoever submits an op owns it and its buffer until done(); there are no deadlines here: a timer that
 *        fires is an event and changes nothing about the op, its buffer stays pinned.
 *  IO-6  cancel is a wish: done() still comes, with ERR_CANCELED or with the real result.
 *  IO-7  time stands still within one io_turn; completion order is hostile.
 *  IO-8  offset and length are multiples of BLOCK_BYTES, buffers are aligned to BLOCK_BYTES.
 * Nothing above this header may assume a file descriptor. One thread calls all of it. */
#ifndef SPOOLFS_IO_H
#define SPOOLFS_IO_H

#include <base/err.h>
#include <base/heap.h>
#include <base/link.h>
#include <stdbool.h>
#include <stdint.h>

enum io_kind { IO_READ, IO_WRITE, IO_FLUSH, IO_DISCARD };

/* Classes in order of precedence; the dispatcher of a member sorts by them. */
enum io_class {
    IO_CLASS_COMMIT,
    IO_CLASS_DELIVER,
    IO_CLASS_REPAIR,
    IO_CLASS_REBUILD,
    IO_CLASS_EVACUATE,
    IO_CLASS_SCRUB,
    IO_CLASS_COMPACT,
    IO_CLASS_BACKUP,
    IO_CLASS_COUNT
};

struct io_op {
    enum io_kind kind;
    enum io_class class;
    bool durable;      /* IO_WRITE only: see IO-4 */
    uint16_t target;   /* which member: the number io_target_* knows it by */
    uint32_t length;   /* bytes; 0 for IO_FLUSH */
    uint64_t offset;   /* bytes from the start of the member */
    void *buffer;      /* NULL for IO_FLUSH and IO_DISCARD */
    void (*done)(struct io_op *op);
    void *owner;       /* the submitter's own */
    enum err result;   /* valid in done() */
    uint64_t submitted_ns, done_ns;
    /* private to the implementation while submitted */
    struct link link;
    uint64_t scratch[8];
};

struct io_timer {
    struct heap_node node; /* private; initialise with io_timer_init */
    void (*fire)(struct io_timer *timer);
    void *owner;
};

enum io_durable_by { IO_DURABLE_UNKNOWN, IO_DURABLE_DSYNC, IO_DURABLE_FLUSH };

struct io_target {
    uint64_t bytes;
    bool present;        /* false: every op ends in ERR_MEMBER_GONE */
    bool rotational;
    bool buffered;       /* O_DIRECT was refused: page cache and fdatasync; one failed flush fails the member */
    bool discards;       /* block devices only; file members are never punched */
    bool is_file;
    enum io_durable_by durable_by;
    char serial[64];     /* of the whole disk below, or empty */
    char domain[128];    /* default failure domain: the whole disk below */
};

struct io;

struct io_ops {
    void (*submit)(struct io *io, struct io_op *op);
    void (*cancel)(struct io *io, struct io_op *op);
    /* Waits at most wait_ns (0: poll) for events, then runs what is ready. Returns how many callbacks ran. */
    uint32_t (*turn)(struct io *io, uint64_t wait_ns);
    uint64_t (*now_ns)(struct io *io);      /* monotonic, of this turn */
    uint64_t (*wall_ms)(struct io *io);     /* since 1970; may jump */
    uint64_t (*random64)(struct io *io);    /* unpredictable, but for the simulator */
    void (*timer_set)(struct io *io, struct io_timer *t, uint64_t when_ns); /* again moves it; fires in io_turn */
    void (*timer_clear)(struct io *io, struct io_timer *t);                 /* harmless when not set */
    uint32_t (*target_count)(struct io *io);
    const struct io_target *(*target)(struct io *io, uint16_t target);
    void (*target_set_durable_by)(struct io *io, uint16_t target, enum io_durable_by by);
    const char *(*name)(struct io *io);     /* "uring", "threads", "sim": shows in status */
};

struct io { const struct io_ops *ops; };

static inline void io_timer_init(struct io_timer *t, void (*fire)(struct io_timer *), void *owner)
{
    heap_node_init(&t->node);
    t->fire = fire;
    t->owner = owner;
}
static inline bool io_timer_is_set(const struct io_timer *t) { return heap_node_in(&t->node); }

static inline void io_submit(struct io *io, struct io_op *op) { io->ops->submit(io, op); }
static inline void io_cancel(struct io *io, struct io_op *op) { io->ops->cancel(io, op); }
static inline uint32_t io_turn(struct io *io, uint64_t wait_ns) { return io->ops->turn(io, wait_ns); }
static inline uint64_t io_now_ns(struct io *io) { return io->ops->now_ns(io); }
static inline uint64_t io_wall_ms(struct io *io) { return io->ops->wall_ms(io); }
static inline uint64_t io_random64(struct io *io) { return io->ops->random64(io); }
static inline void io_timer_set(struct io *io, struct io_timer *t, uint64_t when_ns) { io->ops->timer_set(io, t, when_ns); }
static inline void io_timer_clear(struct io *io, struct io_timer *t) { io->ops->timer_clear(io, t); }
static inline uint32_t io_target_count(struct io *io) { return io->ops->target_count(io); }
static inline const struct io_target *io_target(struct io *io, uint16_t t) { return io->ops->target(io, t); }

#endif
