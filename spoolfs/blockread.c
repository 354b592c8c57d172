/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading a range of a member so that one bad sector costs one block: the range in one read, or in as large pieces
 * as the dispatcher wants, and where one fails block by block, bad blocks as zeros, which never verify.
 *
 *   piece -> next piece ... -> done | failed, member still there: its blocks one by one -> next piece
 *
 * Invariant BRD-1: ERR_OK means that what is not zeros is what the member said; the caller still verifies everything. */
#include "engine.h"

#include <base/planted.h>
#include <string.h>

static void block_read_next(struct block_read *r);

static void block_read_end(struct block_read *r, enum err result)
{
    r->result = result;
    r->done(r);
}

static void block_read_submit(struct block_read *r, uint32_t bytes, void (*done)(struct member_op *mo))
{
    r->op = (struct member_op){.done = done, .owner = r, .mail = r->mail};
    r->op.op = (struct io_op){.kind = IO_READ, .class = r->class, .length = bytes, .buffer = r->buffer + r->at,
                              .offset = r->offset + r->at};
    member_submit(r->member, &r->op);
}

static void block_read_on_block(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    if (mo->op.result == ERR_MEMBER_GONE) {
        block_read_end(r, ERR_MEMBER_GONE);
        return;
    }
    if (mo->op.result != ERR_OK) {
        memset(r->buffer + r->at, 0, BLOCK_BYTES);
        r->bad_blocks++;
        if (r->unread)
            r->unread[r->at / BLOCK_BYTES / 64] |= UINT64_C(1) << (r->at / BLOCK_BYTES % 64);
    }
    r->at += BLOCK_BYTES;
    r->piece -= BLOCK_BYTES;
    block_read_next(r);
}

static void block_read_on_piece(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    enum err e = mo->op.result;
    if (e == ERR_MEMBER_GONE || e == ERR_CANCELED || (PLANTED(short_read_is_end) && e == ERR_SHORT)) {
        block_read_end(r, e);
        return;
    }
    if (e == ERR_OK)
        r->at += mo->op.length;
    else
        r->piece = mo->op.length; /* once more, block by block */
    block_read_next(r);
}

static void block_read_next(struct block_read *r)
{
    if (r->at == r->length)
        block_read_end(r, r->bad_blocks * BLOCK_BYTES == r->length ? ERR_MEDIA : ERR_OK);
    else if (r->piece > 0)
        block_read_submit(r, BLOCK_BYTES, block_read_on_block);
    else if (io_class_is_background(r->class))
        block_read_submit(r, dispatch_piece(r->member, r->length - r->at), block_read_on_piece);
    else
        block_read_submit(r, r->length - r->at, block_read_on_piece);
}

void block_read_start(struct block_read *r)
{
    r->bad_blocks = 0;
    r->at = r->piece = 0;
    block_read_next(r);
}
