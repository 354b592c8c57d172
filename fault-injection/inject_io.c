/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the seam around a real one: what goes straight through, what is held, and what a carrier takes (inject_carry.c).
 * Invariants: INJ-1 to INJ-4 (inject_io.h).
 *
 *   submit: no fault -> straight through
 *           stall -> held [released when no stall of the member is left] -> submit again
 *           fault (inject_faults.c) -> carrier -> done */
#include "inject_parts.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

static struct inject_io *inject_of(struct io *io)
{
    return CONTAINER_OF(io, struct inject_io, io);
}

static bool hold(struct inject_io *j, struct io_op *user)
{
    struct inject_fault *f = fault_of_kind(j, user, INJECT_STALL);
    struct held *h = f ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return false;
    h->user = user;
    link_push(&j->held, &h->link);
    fault_count_one(j, f->id);
    return true;
}

static void inject_submit(struct io *io, struct io_op *op)
{
    struct inject_io *j = inject_of(io);
    struct inject_fault stale = {.kind = INJECT_STALE_READ}, *f = NULL, *slow = NULL, *arm = NULL;
    op->submitted_ns = io_now_ns(j->under);
    if (j->count) {
        if (hold(j, op))
            return;
        fault_note_write(j, op);
        f = fault_that_changes(j, op);
        slow = fault_of_kind(j, op, INJECT_SLOW);
        arm = fault_of_kind(j, op, INJECT_ONE_ARM);
        if (!f && fault_wants_stale(j, op))
            f = &stale; /* nothing is injected yet: what is overwritten is remembered */
    }
    struct carrier *c = f || slow || arm ? carry(j, op, f, slow) : NULL;
    if (!c) {
        io_submit(j->under, op);
        return;
    }
    if (slow)
        fault_count_one(j, slow->id);
    if (arm) {
        c->arm_done_ns = inject_arm_done(&j->arms[op->target], op, io_target(j->under, op->target)->bytes, arm->factor,
                                         op->submitted_ns);
        fault_count_one(j, arm->id);
    }
    carrier_start(c);
}

/* IO-6. What is held by a stall or waits for its answer is as deaf as a disk would be. */
static void inject_cancel(struct io *io, struct io_op *op)
{
    struct inject_io *j = inject_of(io);
    LINK_EACH(l, &j->held) {
        if (CONTAINER_OF(l, struct held, link)->user == op)
            return;
    }
    LINK_EACH(l, &j->carriers) {
        struct carrier *c = CONTAINER_OF(l, struct carrier, link);
        if (c->user != op)
            continue;
        if (c->stage == CARRIER_OP)
            io_cancel(j->under, &c->op);
        return;
    }
    io_cancel(j->under, op);
}

static uint32_t inject_turn(struct io *io, uint64_t wait_ns)
{
    return io_turn(inject_of(io)->under, wait_ns);
}
static uint64_t inject_now(struct io *io)
{
    return io_now_ns(inject_of(io)->under);
}
static uint64_t inject_wall(struct io *io)
{
    return io_wall_ms(inject_of(io)->under);
}
static uint64_t inject_random(struct io *io)
{
    return io_random64(inject_of(io)->under);
}
static void inject_timer_set(struct io *io, struct io_timer *t, uint64_t when_ns)
{
    io_timer_set(inject_of(io)->under, t, when_ns);
}
static void inject_timer_clear(struct io *io, struct io_timer *t)
{
    io_timer_clear(inject_of(io)->under, t);
}
static uint32_t inject_target_count(struct io *io)
{
    return io_target_count(inject_of(io)->under);
}

static const struct io_target *inject_target(struct io *io, uint16_t target)
{
    struct inject_io *j = inject_of(io);
    const struct io_target *real = io_target(j->under, target);
    bool vanished = fault_is_on(j, target, INJECT_VANISH), arm = fault_is_on(j, target, INJECT_ONE_ARM);
    if (!vanished && !arm)
        return real;
    j->targets[target] = *real;
    j->targets[target].present = real->present && !vanished;
    j->targets[target].rotational = real->rotational || arm;
    return &j->targets[target];
}

static void inject_set_durable_by(struct io *io, uint16_t target, enum io_durable_by by)
{
    struct io *under = inject_of(io)->under;
    under->ops->target_set_durable_by(under, target, by);
}

static const char *inject_name(struct io *io)
{
    struct io *under = inject_of(io)->under;
    return under->ops->name(under);
}

static const struct io_ops inject_ops = {
    .submit = inject_submit, .cancel = inject_cancel, .turn = inject_turn, .now_ns = inject_now, .wall_ms = inject_wall,
    .random64 = inject_random, .timer_set = inject_timer_set, .timer_clear = inject_timer_clear,
    .target_count = inject_target_count, .target = inject_target, .target_set_durable_by = inject_set_durable_by,
    .name = inject_name,
};

/* --- life --- */

/* What was held goes on its way as if it were submitted now; another stall may hold it again. */
void inject_release_held(struct inject_io *j)
{
    struct link again;
    link_init(&again);
    for (struct link *l; (l = link_pop(&j->held)) != NULL;)
        link_push(&again, l);
    for (struct link *l; (l = link_pop(&again)) != NULL;) {
        struct held *h = CONTAINER_OF(l, struct held, link);
        struct io_op *user = h->user;
        uint64_t since = user->submitted_ns;
        free(h);
        inject_submit(&j->io, user);
        user->submitted_ns = since;
    }
}

enum err inject_io_open(struct io *under, const struct inject_hooks *hooks, struct inject_io **inject_out)
{
    struct inject_io *j = calloc(1, sizeof *j);
    uint8_t *memory = malloc((size_t)INJECT_STALE_BLOCKS * BLOCK_BYTES); /* untouched until stale-read wants it */
    if (!j || !memory) {
        free(j);
        free(memory);
        return ERR_NO_MEMORY;
    }
    j->io.ops = &inject_ops;
    j->under = under;
    j->hooks = *hooks;
    j->stale_bytes = memory;
    link_init(&j->carriers);
    link_init(&j->held);
    io_timer_init(&j->timer, fault_expired, j);
    *inject_out = j;
    return ERR_OK;
}

struct io *inject_io_door(struct inject_io *inject)
{
    return &inject->io;
}

void inject_io_close(struct inject_io **inject)
{
    struct inject_io *j = *inject;
    *inject = NULL;
    if (!j)
        return;
    for (struct link *l; (l = link_pop(&j->carriers)) != NULL;) {
        struct carrier *c = CONTAINER_OF(l, struct carrier, link);
        free(c->memory);
        free(c);
    }
    for (struct link *l; (l = link_pop(&j->held)) != NULL;)
        free(CONTAINER_OF(l, struct held, link));
    for (uint32_t i = 0; i < j->count; i++)
        free(j->faults[i].written);
    free(j->stale_bytes);
    free(j);
}
