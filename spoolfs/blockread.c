/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading a range of a member so that one bad sector costs one block: the range in one read, or in as large pieces
 * as the dispatcher wants, and where one fails in smaller ones, bad blocks as zeros, which never verify.
 *
 *   piece -> next piece, twice as large ... -> done | failed, member still there: half of it, down to one block -> zeros
 *   the last block was refused without a word about the medium -> witness: another block of the slot -> that one again -> done
 *
 * Invariants: BRD-1: ERR_OK means that what is not zeros is what the member said; the caller still verifies everything.
 * BRD-2: a bad sector costs some twenty reads, not one for each block of the range: on a slow member the caller's
 * patience ended before that many answers were there, again and again. BRD-3: a block counts as bad when the member says so of its
 * medium, or when it answered for other blocks after it had refused this one: a cable, a controller or a driver refuses
 * everything for a while, and what lies behind it is not lost. */
#include "images.h"

#include <base/planted.h>
#include <string.h>

static void block_read_next(struct block_read *r);

static void block_read_end(struct block_read *r, enum err result)
{
    r->result = result;
    r->done(r);
}

static void block_read_on_piece(struct member_op *mo);

static void block_read_submit(struct block_read *r, uint32_t bytes)
{
    r->op = (struct member_op){.done = block_read_on_piece, .owner = r, .mail = r->mail};
    r->op.op = (struct io_op){.kind = IO_READ, .class = r->class, .length = bytes, .buffer = r->buffer + r->at,
                              .offset = r->offset + r->at};
    member_submit(r->member, &r->op);
}

static void block_read_gave_up(struct block_read *r, enum err e)
{
    r->refused = e != ERR_MEDIA;
    memset(r->buffer + r->at, 0, BLOCK_BYTES);
    r->bad_blocks++;
    if (r->unread)
        r->unread[r->at / BLOCK_BYTES / 64] |= UINT64_C(1) << (r->at / BLOCK_BYTES % 64);
    r->at += BLOCK_BYTES;
}

static void block_read_on_piece(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    enum err e = mo->op.result;
    uint32_t length = mo->op.length;
    r->refused = r->refused && e != ERR_OK; /* it answers */
    if (e == ERR_MEMBER_GONE || e == ERR_CANCELED || (PLANTED(short_read_is_end) && e == ERR_SHORT)) {
        block_read_end(r, e);
        return;
    }
    if (e == ERR_OK) {
        r->at += length;
        if (r->piece < r->length)
            r->piece *= 2;
    } else if (length > BLOCK_BYTES) {
        r->piece = length / BLOCK_BYTES / 2 * BLOCK_BYTES; /* BRD-2 */
    } else if (r->piece == 0) {
        r->piece = BLOCK_BYTES; /* nothing counts as bad that was asked for only once */
    } else {
        block_read_gave_up(r, e);
    }
    block_read_next(r);
}

/* --- BRD-3 --- */

/* The last block's place in the buffer serves for both: it holds zeros. */
static void block_read_ask(struct block_read *r, uint64_t offset, void (*done)(struct member_op *mo))
{
    r->op = (struct member_op){.done = done, .owner = r, .mail = r->mail};
    r->op.op = (struct io_op){.kind = IO_READ, .class = r->class, .length = BLOCK_BYTES, .offset = offset,
                              .buffer = r->buffer + r->length - BLOCK_BYTES};
    member_submit(r->member, &r->op);
}

static void block_read_judged(struct block_read *r, bool refuses_this_one)
{
    memset(r->buffer + r->length - BLOCK_BYTES, 0, BLOCK_BYTES);
    r->refused = !refuses_this_one;
    if (r->refused && r->member->refused_since_ns == 0)
        r->member->refused_since_ns = io_now_ns(r->member->pool->io);
    block_read_end(r, r->refused ? ERR_IO : r->bad_blocks * BLOCK_BYTES == r->length ? ERR_MEDIA : ERR_OK);
}

static void block_read_on_again(struct member_op *mo)
{
    block_read_judged(mo->owner, mo->op.result != ERR_OK && mo->op.result != ERR_MEMBER_GONE);
}

static void block_read_on_witness(struct member_op *mo)
{
    struct block_read *r = mo->owner;
    if (mo->op.result == ERR_OK || mo->op.result == ERR_MEDIA)
        block_read_ask(r, r->offset + r->length - BLOCK_BYTES, block_read_on_again);
    else
        block_read_judged(r, false);
}

/* Beside the header of the image in the slot that begins at `slot`, a block that no commit writes just now: of its first frame, once that
 * is durable; else the last one of the slot. */
static uint64_t block_read_beside_header(const struct member *m, uint64_t slot)
{
    uint32_t owner = m->slot_owner[(slot - m->slots_offset) / m->slot_bytes];
    bool grown = owner && owner != SLOT_RETIRED && m->pool->segments[owner - 1].length > BLOCK_BYTES;
    return slot + (grown ? BLOCK_BYTES : m->slot_bytes - BLOCK_BYTES);
}

/* The image's header, or a block beside it when that is what was asked for. Outside of slots, where the canary is, no other block is
 * ours to read: the first one of the range. */
static void block_read_witness(struct block_read *r)
{
    const struct member *m = r->member;
    uint64_t asked = r->offset + r->length - BLOCK_BYTES, other = r->offset;
    if (r->offset >= m->slots_offset) {
        uint64_t slot = r->offset - (r->offset - m->slots_offset) % m->slot_bytes;
        other = asked > slot ? slot : block_read_beside_header(m, slot);
    }
    if (other == asked)
        block_read_judged(r, false);
    else
        block_read_ask(r, other, block_read_on_witness);
}

static void block_read_next(struct block_read *r)
{
    uint32_t left = r->length - r->at;
    if (left == 0 && r->refused) {
        block_read_witness(r);
        return;
    }
    if (left == 0) {
        block_read_end(r, r->bad_blocks * BLOCK_BYTES == r->length ? ERR_MEDIA : ERR_OK);
        return;
    }
    if (r->piece > 0 && r->piece < left)
        left = r->piece;
    block_read_submit(r, io_class_is_background(r->class) ? dispatch_piece(r->member, left) : left);
}

void block_read_start(struct block_read *r)
{
    r->bad_blocks = 0;
    r->refused = false;
    r->at = r->piece = 0;
    block_read_next(r);
}
