/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the arithmetic of one arm. Pure. Invariants ARM-1 to ARM-3 (inject_arm.h). */
#include "inject_arm.h"

/* The root of way / all, in 1/65536. */
static uint64_t root_of_part(uint64_t way, uint64_t all)
{
    uint64_t part = (way >> 12) * (UINT64_C(1) << 32) / ((all >> 12) + 1), root = 0; /* bytes in blocks: 4 TiB fit */
    for (uint64_t bit = UINT64_C(1) << 16; bit > 0; bit >>= 1)
        if ((root + bit) * (root + bit) <= part)
            root += bit;
    return root;
}

static uint64_t seek_ns(const struct inject_arm *arm, uint64_t offset, uint64_t member_bytes)
{
    uint64_t way = offset > arm->head ? offset - arm->head : arm->head - offset;
    if (way < ARM_TRACK_BYTES)
        return 0;
    return ARM_SETTLE_NS + ARM_STROKE_NS * root_of_part(way, member_bytes) / 65536;
}

/* Until the first byte passes: where the platter is follows from the time. */
static uint64_t turn_ns(uint64_t offset, uint64_t at_ns)
{
    uint64_t wanted = offset % ARM_TRACK_BYTES * ARM_TURN_NS / ARM_TRACK_BYTES, now = at_ns % ARM_TURN_NS;
    return wanted >= now ? wanted - now : wanted + ARM_TURN_NS - now;
}

static uint64_t pass_ns(uint64_t bytes)
{
    return bytes * ARM_TURN_NS / ARM_TRACK_BYTES;
}

uint64_t inject_arm_done(struct inject_arm *arm, const struct io_op *op, uint64_t member_bytes, uint32_t percent, uint64_t now_ns)
{
    uint64_t begin = now_ns > arm->free_ns ? now_ns : arm->free_ns, cost = 0;
    if (op->kind == IO_READ && op->offset == arm->read_end) {
        cost = pass_ns(op->length); /* ARM-3 */
    } else if (op->kind == IO_READ || op->kind == IO_WRITE) {
        uint64_t seek = seek_ns(arm, op->offset, member_bytes);
        cost = seek + turn_ns(op->offset, begin + seek) + pass_ns(op->length);
    }
    if (op->kind == IO_READ || op->kind == IO_WRITE)
        arm->head = op->offset + op->length;
    arm->read_end = op->kind == IO_READ ? arm->head : UINT64_MAX;
    arm->free_ns = begin + cost * percent / 100;
    return arm->free_ns;
}
