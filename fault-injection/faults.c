/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what each fault kind of an operation does to a disk and what the operation then claims.
 * Never: decides when (plan.c), or whether redundancy can pay for it (atlas.c). */
#include "faults.h"

#include <base/assert.h>
#include <spoolfs/limits.h>
#include <string.h>

const char *sim_fault_word(enum sim_fault fault)
{
    static const char *const words[] = {
#define X(name, word, where, text) word,
#include "faults.def"
#undef X
    };
    ASSERT(fault < SIM_FAULT_COUNT);
    return words[fault];
}

const char *sim_fault_text(enum sim_fault fault)
{
    static const char *const texts[] = {
#define X(name, word, where, text) text,
#include "faults.def"
#undef X
    };
    ASSERT(fault < SIM_FAULT_COUNT);
    return texts[fault];
}

/* A whole number of blocks, less than the transfer. */
static uint32_t part_of(uint32_t length, struct prng *prng)
{
    return (uint32_t)prng_below(prng, length / BLOCK_BYTES) * BLOCK_BYTES;
}

static bool elsewhere_fits(const struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate)
{
    uint64_t at = fate->elsewhere, bytes = sim_disk_bytes(disk);
    return at % BLOCK_BYTES == 0 && at < bytes && bytes - at >= op->length &&
           (at + op->length <= op->offset || op->offset + op->length <= at);
}

static enum err carry_read(struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate, struct prng *prng)
{
    switch (fate->fault) {
    case SIM_FAULT_read_error:
        return ERR_IO;
    case SIM_FAULT_media_error:
        return ERR_MEDIA;
    case SIM_FAULT_short_transfer: {
        uint32_t part = part_of(op->length, prng);
        enum err e = part ? sim_disk_read(disk, op->offset, part, op->buffer) : ERR_OK;
        return e == ERR_OK ? ERR_SHORT : e;
    }
    case SIM_FAULT_stale_read:
        sim_disk_read_before(disk, op->offset, op->length, op->buffer);
        return ERR_OK;
    case SIM_FAULT_misdirected_read:
        return sim_disk_read(disk, elsewhere_fits(disk, op, fate) ? fate->elsewhere : op->offset, op->length, op->buffer);
    default:
        return sim_disk_read(disk, op->offset, op->length, op->buffer);
    }
}

/* Blocks from a random one on are lost, though the write says it succeeded. */
static void carry_torn(struct sim_disk *disk, const struct io_op *op, struct prng *prng)
{
    const uint8_t *bytes = op->buffer;
    uint32_t part = part_of(op->length, prng);
    if (part)
        sim_disk_write_through(disk, op->offset, part, bytes);
    sim_disk_lose_write(disk, op->offset + part, op->length - part, bytes + part);
}

static enum err carry_failed_write(struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate,
                                   struct prng *prng)
{
    struct sim_cut cut = {.survival = SIM_SURVIVE_RANDOM, .prng = prng};
    if (fate->fault == SIM_FAULT_full)
        return ERR_MEMBER_FULL;
    if (fate->fault == SIM_FAULT_short_transfer) {
        uint32_t part = part_of(op->length, prng);
        if (part)
            sim_disk_write(disk, op->offset, part, op->buffer);
        return ERR_SHORT;
    }
    sim_disk_tear(disk, op->offset, op->length, op->buffer, &cut);
    return ERR_IO;
}

static enum err carry_write(struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate,
                            enum io_durable_by by, struct prng *prng)
{
    switch (fate->fault) {
    case SIM_FAULT_write_error:
    case SIM_FAULT_full:
    case SIM_FAULT_short_transfer:
        return carry_failed_write(disk, op, fate, prng);
    case SIM_FAULT_torn_write:
        carry_torn(disk, op, prng);
        return ERR_OK;
    case SIM_FAULT_lost_write:
        sim_disk_lose_write(disk, op->offset, op->length, op->buffer);
        return ERR_OK;
    case SIM_FAULT_misdirected_write:
        if (elsewhere_fits(disk, op, fate))
            sim_disk_misplace_write(disk, op->offset, fate->elsewhere, op->length, op->buffer);
        else
            sim_disk_lose_write(disk, op->offset, op->length, op->buffer);
        return ERR_OK;
    default:
        break;
    }
    if (op->durable && by == IO_DURABLE_DSYNC && fate->fault != SIM_FAULT_flush_error && fate->fault != SIM_FAULT_flush_lie) {
        sim_disk_write_through(disk, op->offset, op->length, op->buffer);
        return ERR_OK;
    }
    sim_disk_write(disk, op->offset, op->length, op->buffer);
    if (!op->durable || fate->fault == SIM_FAULT_flush_lie)
        return ERR_OK;
    if (fate->fault == SIM_FAULT_flush_error) {
        sim_disk_doom(disk, sim_disk_mark(disk));
        return ERR_IO;
    }
    sim_disk_settle(disk, sim_disk_mark(disk));
    return ERR_OK;
}

enum err fault_carry_out(struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate, uint64_t mark,
                         enum io_durable_by by, struct prng *prng)
{
    uint64_t bytes = sim_disk_bytes(disk);
    if (op->kind != IO_FLUSH && (op->offset >= bytes || bytes - op->offset < op->length))
        return ERR_SHORT; /* the member has shrunk */
    switch (op->kind) {
    case IO_READ:
        return carry_read(disk, op, fate, prng);
    case IO_WRITE:
        return carry_write(disk, op, fate, by, prng);
    case IO_DISCARD:
        sim_disk_discard(disk, op->offset, op->length, prng);
        return ERR_OK;
    case IO_FLUSH:
        break;
    }
    if (fate->fault == SIM_FAULT_flush_error) {
        sim_disk_doom(disk, mark);
        return ERR_IO;
    }
    if (fate->fault != SIM_FAULT_flush_lie)
        sim_disk_settle(disk, mark);
    return ERR_OK;
}
