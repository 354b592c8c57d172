/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what a fault does to one operation, which a carrier stands in for at the real world.
 *
 *   carrier: (old contents are read first) -> real op -> changed answer -> (slow: timer) -> done
 *            or no real op at all -> timer -> done
 *
 * Every answer comes from a done() or a timer of the real world, so never from inside submit (IO-1) and never twice in
 * one turn's time (timers that are due now fire in the next turn). */
#include "inject_parts.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_NS UINT64_C(20000) /* what an operation costs that never reaches the device */
#define SECTOR_BYTES 512u

/* --- earlier contents --- */

static void stale_keep(struct inject_io *j, const struct io_op *op, const uint8_t *old)
{
    for (uint32_t at = 0; at < op->length; at += BLOCK_BYTES) {
        uint32_t n = j->stale_next;
        uint64_t block = (op->offset + at) / BLOCK_BYTES;
        for (uint32_t i = 0; i < INJECT_STALE_BLOCKS; i++)
            if (j->stale[i].used && j->stale[i].block == block && j->stale[i].target == op->target)
                n = i; /* one before the last write is enough */
        if (n == j->stale_next)
            j->stale_next = (n + 1) % INJECT_STALE_BLOCKS;
        j->stale[n] = (struct stale_block){.block = block, .target = op->target, .used = true};
        memcpy(j->stale_bytes + (size_t)n * BLOCK_BYTES, old + at, BLOCK_BYTES);
    }
}

static bool stale_give(struct inject_io *j, const struct io_op *op)
{
    bool given = false;
    for (uint32_t i = 0; i < INJECT_STALE_BLOCKS; i++) {
        const struct stale_block *s = &j->stale[i];
        uint64_t at = s->block * BLOCK_BYTES;
        if (!s->used || s->target != op->target || at < op->offset || at >= op->offset + op->length)
            continue;
        memcpy((uint8_t *)op->buffer + (at - op->offset), j->stale_bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
        given = true;
    }
    return given;
}

/* --- answers --- */

static void carrier_answer(struct carrier *c)
{
    struct io_op *user = c->user;
    user->result = c->answer;
    user->done_ns = io_now_ns(c->inject->under);
    link_remove(&c->link);
    free(c->memory);
    free(c);
    user->done(user);
}

static void on_carrier_timer(struct io_timer *t)
{
    carrier_answer(t->owner);
}

static void answer_in(struct carrier *c, uint64_t ns)
{
    c->stage = CARRIER_WAITS;
    io_timer_set(c->inject->under, &c->timer, io_now_ns(c->inject->under) + ns);
}

/* When what was ready at `now` is answered: the arm comes first, and all of it is made slow. */
static uint64_t late_until(const struct carrier *c, uint64_t now)
{
    uint64_t ready = now > c->arm_done_ns ? now : c->arm_done_ns, took = ready - c->user->submitted_ns;
    if (!c->factor)
        return ready;
    if (took < INJECT_LATENCY_MIN_NS)
        took = INJECT_LATENCY_MIN_NS;
    return c->user->submitted_ns + took * c->factor;
}

static void carrier_finish(struct carrier *c)
{
    uint64_t now = io_now_ns(c->inject->under), end = late_until(c, now);
    if (end > now)
        answer_in(c, end - now);
    else
        carrier_answer(c);
}

/* --- what a fault does to an operation --- */

static void flip_bit(struct carrier *c, uint8_t *bytes)
{
    struct prng p = {c->seed};
    uint64_t bit = prng_below(&p, (uint64_t)c->user->length * 8);
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* Another place of the member where the operation fits. */
static uint64_t elsewhere(struct carrier *c)
{
    struct prng p = {c->seed};
    uint64_t blocks = (c->inject->under->ops->target(c->inject->under, c->user->target)->bytes - c->user->length) / BLOCK_BYTES;
    uint64_t block = prng_below(&p, blocks + 1);
    if (block * BLOCK_BYTES == c->user->offset)
        block = block ? block - 1 : block + (blocks > 0);
    return block * BLOCK_BYTES;
}

/* `memory` holds what was there before: the first or the last sectors of the write join it. */
static void tear(struct carrier *c)
{
    struct prng p = {c->seed};
    uint32_t sectors = c->user->length / SECTOR_BYTES;
    uint32_t kept = (uint32_t)(1 + prng_below(&p, sectors - 1)) * SECTOR_BYTES;
    const uint8_t *wanted = c->user->buffer;
    if (prng_below(&p, 2))
        memcpy(c->memory, wanted, kept);
    else
        memcpy(c->memory + kept, wanted + kept, c->user->length - kept);
}

static void start_op(struct carrier *c)
{
    c->stage = CARRIER_OP;
    io_submit(c->inject->under, &c->op);
}

/* The old contents are in memory, or could not be had: then the write goes through unharmed. */
static void on_old(struct carrier *c)
{
    enum err e = c->op.result;
    c->op.kind = c->user->kind;
    c->op.durable = c->user->durable;
    c->op.buffer = c->user->buffer;
    if (e == ERR_OK && c->kind == INJECT_STALE_READ)
        stale_keep(c->inject, c->user, c->memory);
    if (e == ERR_OK && c->kind == INJECT_TORN_WRITE) {
        tear(c);
        c->op.buffer = c->memory;
        fault_count_one(c->inject, c->fault_id);
    }
}

static void on_real(struct carrier *c)
{
    bool read = c->user->kind == IO_READ;
    c->answer = c->op.result;
    if (c->answer == ERR_OK && c->kind == INJECT_BIT_ROT && read)
        flip_bit(c, c->user->buffer);
    if (c->answer == ERR_OK && c->kind == INJECT_STALE_READ && read && stale_give(c->inject, c->user))
        fault_count_one(c->inject, c->fault_id);
    if (c->answer == ERR_OK && c->kind == INJECT_FLUSH_ERROR)
        c->answer = ERR_IO;
    carrier_finish(c);
}

static void on_op(struct io_op *op)
{
    struct carrier *c = op->owner;
    if (c->stage == CARRIER_OLD) {
        on_old(c);
        start_op(c);
    } else {
        on_real(c);
    }
}

static bool needs_old(const struct carrier *c)
{
    return c->kind == INJECT_TORN_WRITE || (c->kind == INJECT_STALE_READ && c->user->kind == IO_WRITE);
}

static bool needs_memory(const struct carrier *c)
{
    return needs_old(c) || (c->kind == INJECT_BIT_ROT && c->user->kind == IO_WRITE);
}

static void read_old(struct carrier *c)
{
    c->stage = CARRIER_OLD;
    c->op.kind = IO_READ;
    c->op.durable = false;
    c->op.buffer = c->memory;
    io_submit(c->inject->under, &c->op);
}

/* Answers without the device: true. */
static bool answers_itself(struct carrier *c)
{
    switch (c->kind) {
    case INJECT_READ_ERROR:
    case INJECT_WRITE_ERROR:
        c->answer = ERR_IO;
        return true;
    case INJECT_MEDIA_ERROR:
        c->answer = ERR_MEDIA;
        return true;
    case INJECT_FULL:
        c->answer = ERR_MEMBER_FULL;
        return true;
    case INJECT_VANISH:
        c->answer = ERR_MEMBER_GONE;
        return true;
    case INJECT_LOST_WRITE:
        c->answer = ERR_OK;
        return true;
    case INJECT_FLUSH_LIE:
        c->answer = ERR_OK;
        return c->user->kind == IO_FLUSH;
    case INJECT_FLUSH_ERROR:
        c->answer = ERR_IO;
        return c->user->kind == IO_FLUSH;
    default:
        return false;
    }
}

void carrier_start(struct carrier *c)
{
    bool later = needs_old(c) || (c->kind == INJECT_STALE_READ); /* counted when it turns out to have an effect */
    if (c->kind != INJECT_KIND_COUNT && !later)
        fault_count_one(c->inject, c->fault_id);
    if (answers_itself(c)) {
        uint64_t now = io_now_ns(c->inject->under), end = late_until(c, now);
        answer_in(c, end > now ? end - now : ANSWER_NS);
        return;
    }
    if (needs_old(c)) {
        read_old(c);
        return;
    }
    if (c->kind == INJECT_FLUSH_LIE || c->kind == INJECT_FLUSH_ERROR)
        c->op.durable = false;
    if (c->kind == INJECT_MISDIRECTED_READ || c->kind == INJECT_MISDIRECTED_WRITE)
        c->op.offset = elsewhere(c);
    if (c->kind == INJECT_BIT_ROT && c->user->kind == IO_WRITE) {
        memcpy(c->memory, c->user->buffer, c->user->length);
        flip_bit(c, c->memory);
        c->op.buffer = c->memory;
    }
    start_op(c);
}

struct carrier *carry(struct inject_io *j, struct io_op *user, struct inject_fault *f, const struct inject_fault *slow)
{
    struct carrier *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct carrier){.inject = j, .user = user, .op = *user, .kind = f ? f->kind : INJECT_KIND_COUNT,
                          .fault_id = f ? f->id : 0, .factor = slow ? slow->factor : 0,
                          .seed = f ? prng_next(&f->prng) : 0};
    c->op.link = (struct link){0};
    c->op.owner = c;
    c->op.done = on_op;
    io_timer_init(&c->timer, on_carrier_timer, c);
    if (needs_memory(c))
        c->memory = aligned_alloc(BLOCK_BYTES, user->length);
    if (needs_memory(c) && !c->memory) {
        free(c);
        return NULL;
    }
    link_push(&j->carriers, &c->link);
    return c;
}
