/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading a range of a member so that one bad sector costs one block: the range in one read, and where that fails
 * block by block, bad blocks as zeros, which never verify.
 *
 *   whole -> done | failed, member still there: block 0, block 1 ... -> done
 *
 * Invariant BRD-1: ERR_OK means that what is not zeros is what the member said; the caller still verifies everything. */
#include "engine.h"

#include <base/planted.h>
#include <string.h>

static void block_read_next(struct block_read *r);

static void block_read_on_block(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    if (mo->op.result == ERR_MEMBER_GONE) {
        r->result = ERR_MEMBER_GONE;
        r->done(r);
        return;
    }
    if (mo->op.result != ERR_OK) {
        memset(r->buffer + r->at, 0, BLOCK_BYTES);
        r->bad_blocks++;
    }
    r->at += BLOCK_BYTES;
    block_read_next(r);
}

static void block_read_next(struct block_read *r)
{
    if (r->at == r->length) {
        r->result = r->bad_blocks * BLOCK_BYTES == r->length ? ERR_MEDIA : ERR_OK;
        r->done(r);
        return;
    }
    r->op = (struct member_op){.done = block_read_on_block, .owner = r};
    r->op.op = (struct io_op){.kind = IO_READ, .class = r->class, .length = BLOCK_BYTES, .buffer = r->buffer + r->at,
                              .offset = r->offset + r->at};
    member_submit(r->member, &r->op);
}

static void block_read_on_whole(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    r->result = mo->op.result;
    if (r->result == ERR_OK || r->result == ERR_MEMBER_GONE || r->result == ERR_CANCELED ||
        (PLANTED(short_read_is_end) && r->result == ERR_SHORT)) {
        r->done(r);
        return;
    }
    r->at = 0;
    block_read_next(r);
}

void block_read_start(struct block_read *r)
{
    r->bad_blocks = 0;
    r->op = (struct member_op){.done = block_read_on_whole, .owner = r};
    r->op.op = (struct io_op){.kind = IO_READ, .class = r->class, .length = r->length, .buffer = r->buffer,
                              .offset = r->offset};
    member_submit(r->member, &r->op);
}
