/* SPDX-License-Identifier: Apache-2.0 */
/* One member as the two real worlds share it: the open file, what it can do, who waits for it and in which order. */
#ifndef IO_IO_MEMBER_H
#define IO_IO_MEMBER_H

#include <spoolfs/io.h>

/* Background classes may fill this share of a member's places, so that a commit always finds one free. */
#define IO_BACKGROUND_IN_FLIGHT_MAX 48u

/* io_op.scratch while the op is ours */
enum io_phase {
    IO_PHASE_WAITING = 1, /* in io_member.waiting */
    IO_PHASE_FLYING,      /* with the kernel or a worker */
    IO_PHASE_READY,       /* result is set, done() is to run */
};
/* how a write gets where it must be; settled when it starts, so that a new io_target.durable_by waits for the next */
enum io_way { IO_WAY_PLAIN, IO_WAY_THROUGH, IO_WAY_THEN_FLUSH };
struct io_private {
    uint8_t phase;
    uint8_t way;        /* enum io_way */
    uint8_t flushing;   /* io_uring: the transfer is over, its flush is on the way */
    uint8_t attempts;   /* EAGAIN answers so far */
    uint8_t background; /* counted in io_member.background */
    uint32_t moved;     /* bytes, over all attempts */
    uint32_t flushes_failed; /* io_member.flushes_failed when it was started */
    int64_t moved_now;  /* answer to the transfer: bytes or -errno */
    int64_t flushed;    /* answer to the flush of a durable write: 0, -errno, or FLUSH_NONE */
};
#define FLUSH_NONE INT64_MIN
_Static_assert(sizeof(struct io_private) <= sizeof((struct io_op *)0)->scratch, "io_private lives in io_op.scratch");

static inline struct io_private *io_private(struct io_op *op) { return (void *)op->scratch; }

struct io_member {
    int fd; /* -1: absent */
    struct io_target target;
    bool failed;       /* a flush failed on a buffered member: ERR_MEMBER_GONE from here on */
    bool flushing;     /* a flush, or a write with one behind it, is under way */
    struct link waiting[IO_CLASS_COUNT];
    uint32_t in_flight, background;
    uint32_t flushes_failed; /* MBR-4 */
};

void io_member_init(struct io_member *m, int fd); /* takes the fd */
void io_member_close(struct io_member *m);

/* Answers what needs no device: ERR_OK means submit it. */
enum err io_member_admit(const struct io_member *m, const struct io_op *op) MUST_CHECK;
void io_member_wait(struct io_member *m, struct io_op *op);
void io_member_wait_again(struct io_member *m, struct io_op *op); /* at the front: a remainder or an EAGAIN */
/* The next op to start, by class, or NULL when none waits or the places are taken. Counts it as in flight. */
struct io_op *io_member_next(struct io_member *m);
/* On a member that failed: the next one waiting, to be ended without a try. */
struct io_op *io_member_next_failed(struct io_member *m);

/* Takes the op out of flight. True: op->result is set. False: there is a remainder, it waits again (op->buffer and
 * op->offset are untouched, io_private.moved tells how far it came). */
bool io_member_land(struct io_member *m, struct io_op *op);

#endif
