/* SPDX-License-Identifier: Apache-2.0 */
/* A disk with one arm, as a clock: when would it have done this? Pure. Geometry and speeds of a 7200 rpm drive whose whole
 * surface is the member.
 *
 *  ARM-1  one operation at a time, in the order they come.
 *  ARM-2  an operation costs the way of the arm, the turn of the platter until its first byte is under the head, and the
 *         passing of its bytes. A write that follows the last one a moment too late waits for a whole turn, as a log's does.
 *  ARM-3  a read that goes on where the last one ended comes from the drive's read-ahead: only its bytes pass. */
#ifndef INJECT_ARM_H
#define INJECT_ARM_H

#include <spoolfs/io.h>

#define ARM_TURN_NS UINT64_C(8333333)        /* 7200 rpm */
#define ARM_TRACK_BYTES UINT64_C(1310720)    /* in a turn: 157 MB/s */
#define ARM_SETTLE_NS UINT64_C(600000)       /* to the next track */
#define ARM_STROKE_NS UINT64_C(14000000)     /* on top, over the whole surface; a third of the way takes the usual 8.5 ms */

struct inject_arm {
    uint64_t free_ns;   /* when what came before is done */
    uint64_t head;      /* byte the head stands at then */
    uint64_t read_end;  /* where the last read ended, if nothing else came since; else UINT64_MAX */
};

/* When `op`, which comes now, is done on an arm of `percent` of the time such a drive takes. */
uint64_t inject_arm_done(struct inject_arm *arm, const struct io_op *op, uint64_t member_bytes, uint32_t percent, uint64_t now_ns);

#endif
