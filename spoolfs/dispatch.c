/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the order in which a member's ops reach its device. Every op of a mounted pool passes here.
 *
 *   commit, delivery -> device                                          [dispatch_submit]
 *   background       -> waits by class -> device [dispatch_run, called whenever an op of the member was answered]
 *
 * Invariants:
 *  DSP-1  commit and delivery never wait here, whatever else does.
 *  DSP-2  background goes by class, first come first served within one; a class that waited DISPATCH_PATIENCE_NS goes
 *         first once, so that none starves.
 *  DSP-3  what waits, waits for something that is with the device: an answer always comes and lets it go on. No timer.
 *  DSP-4  an op that waits is outstanding for everybody else: its slot is busy, its buffer is pinned.
 * How much background work there is at all is decided before it gets here (upkeep.c); here only how much at once.
 * Never: judges a member, touches a buffer, calls done(). */
#include "upkeep_parts.h"

void dispatch_init(struct dispatch *d)
{
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++)
        link_init(&d->waiting[c]);
    d->credit = DISPATCH_CREDIT;
}

static bool dispatch_idle(const struct dispatch *d, uint64_t now)
{
    return !d->any_mail || (d->mail == 0 && now >= d->mail_ns + DISPATCH_IDLE_NS);
}

static bool dispatch_has_arm(const struct member *m)
{
    return io_target(m->pool->io, m->target)->rotational;
}

uint32_t dispatch_piece(const struct member *m, uint32_t bytes)
{
    bool small = dispatch_has_arm(m) && !dispatch_idle(&m->dispatch, io_now_ns(m->pool->io));
    return small && bytes > DISPATCH_PIECE_BYTES ? DISPATCH_PIECE_BYTES : bytes;
}

#define RATE_BUSY_NS_MIN (UINT64_C(20) * 1000000) /* what moved in less is the device's cache, or chance */

void dispatch_note_rate(struct dispatch *d, uint64_t bytes, uint64_t busy_ns)
{
    if (busy_ns >= RATE_BUSY_NS_MIN)
        d->no_arm = (double)bytes * 1e9 / (double)busy_ns > (double)DISPATCH_ARM_RATE_MAX;
}

static bool dispatch_may(const struct member *m, uint64_t now)
{
    const struct dispatch *d = &m->dispatch;
    bool arm = dispatch_has_arm(m);
    if (dispatch_idle(d, now))
        return d->background < (arm && !d->no_arm ? DISPATCH_ARM_IDLE : DISPATCH_FLASH_IDLE);
    if (d->mail > 0 && d->credit == 0)
        return false;
    return d->background < (arm ? DISPATCH_ARM_BUSY : DISPATCH_FLASH_BUSY);
}

static void dispatch_start(struct member *m, struct member_op *mo)
{
    struct dispatch *d = &m->dispatch;
    enum io_class class = mo->op.class;
    uint64_t now = io_now_ns(m->pool->io);
    d->in_flight[class]++;
    if (io_class_is_background(class)) {
        if (d->background++ == 0)
            upkeep_note_busy(m, true);
        d->credit -= d->mail > 0 && d->credit > 0;
        upkeep_charge(m, &mo->op);
    } else if (mo->mail) {
        d->mail++;
        d->mail_ns = now;
        d->any_mail = true;
    }
    mo->op.submitted_ns = now; /* latencies are the device's: what was spent waiting here is not its fault */
    io_submit(m->pool->io, &mo->op);
}

/* DSP-2 */
static enum io_class dispatch_choose(const struct dispatch *d, uint64_t now)
{
    enum io_class first = IO_CLASS_COUNT, patient = IO_CLASS_COUNT;
    uint64_t longest = DISPATCH_PATIENCE_NS;
    for (enum io_class c = IO_CLASS_REPAIR; c < IO_CLASS_COUNT; c++) {
        if (link_empty(&d->waiting[c]))
            continue;
        uint64_t waited = now - CONTAINER_OF(d->waiting[c].next, struct io_op, link)->submitted_ns;
        if (first == IO_CLASS_COUNT)
            first = c;
        if (waited >= longest) {
            longest = waited + 1;
            patient = c;
        }
    }
    return patient != IO_CLASS_COUNT ? patient : first;
}

void dispatch_run(struct member *m)
{
    struct dispatch *d = &m->dispatch;
    uint64_t now = io_now_ns(m->pool->io);
    while (dispatch_may(m, now)) {
        enum io_class c = dispatch_choose(d, now);
        if (c == IO_CLASS_COUNT)
            return;
        struct io_op *op = CONTAINER_OF(link_pop(&d->waiting[c]), struct io_op, link);
        d->waits[c]--;
        d->waiting_bytes -= io_op_cost(op);
        dispatch_start(m, CONTAINER_OF(op, struct member_op, op));
    }
    ASSERT(d->background > 0 || d->mail > 0); /* DSP-3 */
}

void dispatch_submit(struct member *m, struct member_op *mo)
{
    struct dispatch *d = &m->dispatch;
    ASSERT((unsigned)mo->op.class < IO_CLASS_COUNT);
    if (!io_class_is_background(mo->op.class)) { /* DSP-1 */
        dispatch_start(m, mo);
        return;
    }
    mo->op.submitted_ns = io_now_ns(m->pool->io);
    mo->op.link = (struct link){0};
    link_push(&d->waiting[mo->op.class], &mo->op.link);
    d->waits[mo->op.class]++;
    d->waiting_bytes += io_op_cost(&mo->op);
    dispatch_run(m);
}

void dispatch_answered(struct member *m, const struct member_op *mo)
{
    struct dispatch *d = &m->dispatch;
    enum io_class class = mo->op.class;
    ASSERT(d->in_flight[class] > 0);
    d->in_flight[class]--;
    d->ops[class]++;
    d->bytes[class] += mo->op.length;
    if (io_class_is_background(class)) {
        ASSERT(d->background > 0);
        if (--d->background == 0)
            upkeep_note_busy(m, false);
    } else if (mo->mail) {
        ASSERT(d->mail > 0);
        d->mail--;
        d->credit = DISPATCH_CREDIT;
        d->mail_ns = mo->op.done_ns;
    }
}
