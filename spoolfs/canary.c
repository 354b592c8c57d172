/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the canary: a frame of no segment, in a reserved place before the slots, damaged on purpose on one member, so that
 * the scrub proves now and then that it still finds what it should. docs/design/0041-canary.md.
 *
 *   write [damaged on one member, whole on another] -> the scrub looks -> found: it sees
 *                                                                    -> not found: read again -> is damaged: blind
 *
 * Invariants: SCR-5. CAN-1: blind is only said when the damaged bytes were read back as they were written: a write the
 * member lost proves nothing. CAN-2: a frame has an id of its own that no segment ever has: no older one verifies. */
#include "scrub.h"

#include <stdlib.h>
#include <string.h>

#define CANARY_PAYLOAD 16000u /* four blocks with head, record head and checks, and some padding */

enum canary_state { CANARY_WRITING, CANARY_LOOKING, CANARY_READING };

struct canary {
    struct scrub *scrub;           /* NULL: late, the pass went on */
    struct link link;              /* in scrub.late_canaries */
    enum canary_state state;
    struct look look;
    struct segment_id id;
    struct image images[2];        /* 0: the damaged one */
    uint64_t base[2];
    uint32_t count, pending;
    bool failed, found, over;
    uint64_t since_ns;
    uint8_t *good, *damaged, *back;
    struct member_op ops[2];
};

static void canary_free(struct canary *k)
{
    look_free_windows(&k->look);
    free(k->good);
    free(k->damaged);
    free(k->back);
    free(k);
}

static bool canary_place(const struct member *m)
{
    return member_kept(m) && m->slots_offset >= CANARY_OFFSET + CANARY_BYTES;
}

/* Members take turns. */
static uint32_t canary_members(const struct scrub *c, struct image images[2])
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < MEMBERS_MAX && count < 2; n++) {
        const struct member *m = &c->pool->members[(c->pass + n) % MEMBERS_MAX];
        if (canary_place(m) && !look_owed_by(c, m)) /* a late read may be of this very place */
            images[count++] = (struct image){.member = m->number, .slot = UINT32_MAX};
    }
    return count;
}

/* A whole frame of random bytes, and a copy of it with damage of one kind. */
static void canary_bytes(struct scrub *c, struct canary *k)
{
    struct io *io = c->pool->io;
    uint8_t payload[CANARY_PAYLOAD];
    for (uint32_t i = 0; i < sizeof payload; i += 8) {
        uint64_t r = io_random64(io);
        memcpy(payload + i, &r, 8);
    }
    struct digest_piece piece = {payload, sizeof payload};
    struct record_fields r = {.type = RECORD_CHUNK, .qid = {k->id.incarnation, k->id.counter}, .sequence = 1,
                              .parts = &piece, .part_count = 1};
    struct frame_identity id = {.pool = c->pool->uuid, .segment = k->id};
    struct frame f;
    struct digest d;
    frame_init(&f, k->good);
    frame_add(&f, &r);
    uint32_t blocks = frame_seal(&f, &id, &d);
    ASSERT(blocks * BLOCK_BYTES == CANARY_BYTES);
    memcpy(k->damaged, k->good, CANARY_BYTES);
    uint64_t dice = io_random64(io);
    uint32_t at = (uint32_t)(dice >> 8) % CANARY_BYTES, block = at / BLOCK_BYTES * BLOCK_BYTES;
    if (dice % 4 == 0)
        memset(k->damaged + block, 0, BLOCK_BYTES);
    else if (dice % 4 == 1)
        memcpy(k->damaged + block, k->good + (block + BLOCK_BYTES) % CANARY_BYTES, BLOCK_BYTES);
    else
        k->damaged[at] ^= (uint8_t)(1u << (dice >> 40) % 8); /* head, record, checks or padding */
}

static void canary_end(struct canary *k)
{
    k->scrub->canary = NULL;
    canary_free(k);
}

static void canary_verdict(struct canary *k, bool seen)
{
    struct scrub *c = k->scrub;
    struct member *m = &c->pool->members[k->images[0].member];
    c->canaries++;
    c->canaries_missed += !seen;
    c->blind = !seen;
    if (!seen)
        pool_event(c->pool, EVENT_scrub_blind, m, "damage was written to a reserved place, is there, and the scrub did not find it");
}

static void canary_on_back(struct member_op *mo)
{
    struct canary *k = mo->owner;
    if (!k->scrub) {
        link_remove(&k->link);
        canary_free(k);
        return;
    }
    k->pending = 0;
    if (mo->op.result == ERR_OK && memcmp(k->back, k->damaged, CANARY_BYTES) == 0) /* CAN-1 */
        canary_verdict(k, false);
    k->over = true;
}

static void canary_submit(struct canary *k, uint32_t i, enum io_kind kind, uint8_t *bytes, void (*done)(struct member_op *))
{
    k->ops[i] = (struct member_op){.done = done, .owner = k};
    k->ops[i].op = (struct io_op){.kind = kind, .class = IO_CLASS_SCRUB, .durable = kind == IO_WRITE,
                                  .length = CANARY_BYTES, .buffer = bytes, .offset = CANARY_OFFSET};
    k->pending++;
    member_submit(&k->scrub->pool->members[k->images[i].member], &k->ops[i]);
}

void canary_found(struct scrub *c, struct look *l, uint32_t image)
{
    ASSERT(c->canary && l == &c->canary->look);
    c->canary->found = c->canary->found || image == 0;
}

static void canary_on_looked(struct look *l)
{
    struct canary *k = l->scrub->canary;
    if ((l->missed & 1) || l->dropped) {
        k->over = true; /* not seen at all: proves nothing */
        return;
    }
    if (k->found) {
        canary_verdict(k, true);
        k->over = true;
        return;
    }
    k->state = CANARY_READING;
    k->since_ns = io_now_ns(l->scrub->pool->io);
    canary_submit(k, 0, IO_READ, k->back, canary_on_back);
}

static void canary_on_written(struct member_op *mo)
{
    struct canary *k = mo->owner;
    k->failed = k->failed || mo->op.result != ERR_OK;
    if (--k->pending > 0)
        return;
    if (!k->scrub) {
        link_remove(&k->link);
        canary_free(k);
        return;
    }
    k->over = k->failed;
    if (k->failed)
        return;
    k->state = CANARY_LOOKING;
    k->look.scrub = k->scrub;
    k->look.over = canary_on_looked;
    look_begin_canary(&k->look, k->id, k->images, k->base, k->count, CANARY_BYTES);
}

void canary_begin(struct scrub *c)
{
    if (c->canary || !link_empty(&c->late_canaries))
        return;
    struct canary *k = calloc(1, sizeof *k);
    if (!k)
        return;
    k->good = sync_buffer(FRAME_BYTES_MAX);
    k->damaged = sync_buffer(CANARY_BYTES);
    k->back = sync_buffer(CANARY_BYTES);
    k->count = canary_members(c, k->images);
    if (!k->good || !k->damaged || !k->back || k->count == 0) {
        canary_free(k);
        return;
    }
    k->scrub = c;
    k->since_ns = io_now_ns(c->pool->io);
    k->id = (struct segment_id){c->pool->incarnation, io_random64(c->pool->io) | UINT64_C(1) << 63}; /* CAN-2 */
    k->base[0] = k->base[1] = CANARY_OFFSET;
    canary_bytes(c, k);
    c->canary = k;
    for (uint32_t i = 0; i < k->count; i++)
        canary_submit(k, i, IO_WRITE, i == 0 ? k->damaged : k->good, canary_on_written);
}

void canary_step(struct scrub *c)
{
    struct canary *k = c->canary;
    if (!k)
        return;
    look_step(&k->look);
    if (k->over) {
        canary_end(k);
    } else if (k->pending && io_now_ns(c->pool->io) - k->since_ns >= LOOK_PATIENCE_NS) { /* SCR-2 */
        k->scrub = NULL;
        link_push(&c->late_canaries, &k->link);
        c->canary = NULL;
    }
}

bool canary_idle(const struct scrub *c)
{
    return !c->canary;
}

void canary_fini(struct scrub *c)
{
    struct link *l;
    if (c->canary) {
        look_fini(&c->canary->look);
        canary_end(c->canary);
    }
    while ((l = link_pop(&c->late_canaries)) != NULL)
        canary_free(CONTAINER_OF(l, struct canary, link));
}
