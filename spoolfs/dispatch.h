/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for one member and what is under way on it, by class. Read dispatch.c. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include <base/link.h>
#include <spoolfs/io.h>

/* Background ops with the device at one time. With mail about: one on an arm, because each costs a seek that mail waits
 * for; few elsewhere, because the device's own queue is where latency is made. Without mail: OpenZFS's three for an
 * arm, and enough for a flash device to be busy. */
#define DISPATCH_ARM_BUSY 1u
#define DISPATCH_ARM_IDLE 3u
#define DISPATCH_FLASH_BUSY 4u
#define DISPATCH_FLASH_IDLE 16u
/* What says that it has an arm and moves more than this, in bytes a second, has none: virtual disks say so, and caches and arrays of
 * many arms behave so. No drive with an arm comes near. Without mail it is kept as busy as flash; with mail it stays an arm. */
#define DISPATCH_ARM_RATE_MAX (UINT64_C(400) << 20)
/* OpenZFS's credit: so many background ops may begin while one and the same piece of mail is waiting. */
#define DISPATCH_CREDIT 5u
#define DISPATCH_IDLE_NS UINT64_C(50000000)      /* without mail for so long a member counts as idle */
#define DISPATCH_PATIENCE_NS UINT64_C(250000000) /* a class that waited so long goes before its betters, once */
/* An arm with mail about transfers so much at most before it serves others: 2 ms at 128 MB/s. */
#define DISPATCH_PIECE_BYTES (256u * 1024)

struct dispatch {
    struct link waiting[IO_CLASS_COUNT]; /* of io_op.link; background classes only */
    uint32_t waits[IO_CLASS_COUNT], in_flight[IO_CLASS_COUNT];
    uint64_t ops[IO_CLASS_COUNT], bytes[IO_CLASS_COUNT]; /* answered */
    uint64_t waiting_bytes; /* of all that waits: charged when it starts */
    uint32_t background;   /* in flight, of all background classes */
    uint32_t mail;         /* in flight, that somebody waits for */
    uint32_t credit;
    uint64_t mail_ns;      /* when mail was last begun or answered */
    bool any_mail;
    bool no_arm;           /* it moved more than an arm can in the last interval in which it was busy */
};

/* What background work moved on the member while it was busy, of one interval. */
void dispatch_note_rate(struct dispatch *d, uint64_t bytes, uint64_t busy_ns);

static inline bool io_class_is_background(enum io_class c) { return c >= IO_CLASS_REPAIR; }
/* What an op costs of the throttle's tokens. */
static inline uint64_t io_op_cost(const struct io_op *op) { return op->kind == IO_DISCARD ? 0 : op->length; }

#endif
