/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the operations a fault has touched, each in a carrier that stands in for it at the real world, and the faults.
 * Invariants: INJ-1 to INJ-4 (inject_io.h).
 *
 *   submit: no fault -> straight through
 *           stall -> held [released when no stall of the member is left] -> submit again
 *           fault -> carrier: (old contents are read first) -> real op -> changed answer -> (slow: timer) -> done
 *                             or no real op at all -> timer -> done
 *
 * Every answer comes from a done() or a timer of the real world, so never from inside submit (IO-1) and never twice in
 * one turn's time (timers that are due now fire in the next turn). */
#include "inject_io.h"

#include "inject_arm.h"

#include <base/assert.h>
#include <spoolfs/limits.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_NS UINT64_C(20000) /* what an operation costs that never reaches the device */
#define SECTOR_BYTES 512u

struct stale_block { uint64_t block; uint16_t target; bool used; };

struct inject_io {
    struct io io;
    struct io *under;
    struct inject_hooks hooks;
    struct inject_fault faults[INJECT_FAULTS_MAX];
    uint32_t count, last_id;
    uint64_t total;
    struct link carriers;             /* of all kinds */
    struct link held;                 /* of struct held */
    struct io_timer timer;            /* the next end of a fault */
    struct io_target targets[MEMBERS_MAX];
    struct inject_arm arms[MEMBERS_MAX];
    struct stale_block stale[INJECT_STALE_BLOCKS]; /* a ring */
    uint8_t *stale_bytes;
    uint32_t stale_next;
};

enum carrier_stage { CARRIER_OLD, CARRIER_OP, CARRIER_WAITS };

struct carrier {
    struct link link;
    struct inject_io *inject;
    struct io_op op;                  /* at the real world, for `user` */
    struct io_op *user;
    struct io_timer timer;
    enum carrier_stage stage;
    enum inject_kind kind;            /* INJECT_KIND_COUNT: only slow */
    uint32_t fault_id;
    uint32_t factor;                  /* 0: not slow */
    uint64_t arm_done_ns;             /* no answer before; 0: no arm */
    enum err answer;
    uint64_t seed;                    /* of its own decisions */
    uint8_t *memory;                  /* as long as the operation; NULL when not needed */
};

struct held { struct link link; struct io_op *user; };

static const struct { const char *word, *text; } kinds[] = {
#define X(name, word, text) [INJECT_##name] = {word, text},
    INJECT_KINDS(X)
#undef X
};

const char *inject_kind_word(enum inject_kind kind)
{
    ASSERT(kind < INJECT_KIND_COUNT);
    return kinds[kind].word;
}

const char *inject_kind_text(enum inject_kind kind)
{
    ASSERT(kind < INJECT_KIND_COUNT);
    return kinds[kind].text;
}

enum err inject_kind_parse(const char *word, enum inject_kind *kind_out)
{
    for (int i = 0; i < INJECT_KIND_COUNT; i++) {
        if (strcmp(kinds[i].word, word) == 0) {
            *kind_out = (enum inject_kind)i;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

static struct inject_io *inject_of(struct io *io)
{
    return CONTAINER_OF(io, struct inject_io, io);
}

/* --- which fault --- */

static bool kind_hits(enum inject_kind kind, const struct io_op *op)
{
    bool durable = op->kind == IO_FLUSH || (op->kind == IO_WRITE && op->durable);
    switch (kind) {
    case INJECT_BIT_ROT:
        return op->kind == IO_READ || op->kind == IO_WRITE;
    case INJECT_TORN_WRITE:
    case INJECT_LOST_WRITE:
    case INJECT_MISDIRECTED_WRITE:
    case INJECT_WRITE_ERROR:
    case INJECT_FULL:
        return op->kind == IO_WRITE;
    case INJECT_MISDIRECTED_READ:
    case INJECT_STALE_READ:
    case INJECT_READ_ERROR:
        return op->kind == IO_READ;
    case INJECT_FLUSH_ERROR:
    case INJECT_FLUSH_LIE:
        return durable;
    case INJECT_SLOW:
    case INJECT_ONE_ARM:
    case INJECT_STALL:
    case INJECT_VANISH:
        return true;
    case INJECT_RETURN:
    case INJECT_KIND_COUNT:
        break;
    }
    return false;
}

static bool fault_covers(const struct inject_io *j, const struct inject_fault *f, const struct io_op *op)
{
    bool inside = op->kind == IO_FLUSH || (op->offset < f->to && op->offset + op->length > f->from);
    return f->target == op->target && inside && io_now_ns(j->under) < f->until_ns;
}

static bool fault_chooses(struct inject_fault *f)
{
    return f->rate >= 1.0 || (double)(prng_next(&f->prng) >> 11) * 0x1p-53 < f->rate;
}

/* The first fault of one kind that wants this operation. */
static struct inject_fault *fault_of_kind(struct inject_io *j, const struct io_op *op, enum inject_kind kind)
{
    for (uint32_t i = 0; i < j->count; i++) {
        struct inject_fault *f = &j->faults[i];
        if (f->kind == kind && kind_hits(kind, op) && fault_covers(j, f, op) && fault_chooses(f))
            return f;
    }
    return NULL;
}

/* The first fault that changes what this operation does, in the order they were added. */
static struct inject_fault *fault_that_changes(struct inject_io *j, const struct io_op *op)
{
    for (uint32_t i = 0; i < j->count; i++) {
        struct inject_fault *f = &j->faults[i];
        bool only_late = f->kind == INJECT_SLOW || f->kind == INJECT_ONE_ARM || f->kind == INJECT_STALL;
        if (!only_late && kind_hits(f->kind, op) && fault_covers(j, f, op) &&
            fault_chooses(f))
            return f;
    }
    return NULL;
}

static bool stale_wanted(const struct inject_io *j, const struct io_op *op)
{
    for (uint32_t i = 0; i < j->count; i++)
        if (j->faults[i].kind == INJECT_STALE_READ && op->kind == IO_WRITE && fault_covers(j, &j->faults[i], op))
            return true;
    return false;
}

static void count_one(struct inject_io *j, uint32_t id)
{
    for (uint32_t i = 0; i < j->count; i++)
        j->faults[i].injected += j->faults[i].id == id;
    j->total++;
}

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
        count_one(c->inject, c->fault_id);
    }
}

static void on_real(struct carrier *c)
{
    bool read = c->user->kind == IO_READ;
    c->answer = c->op.result;
    if (c->answer == ERR_OK && c->kind == INJECT_BIT_ROT && read)
        flip_bit(c, c->user->buffer);
    if (c->answer == ERR_OK && c->kind == INJECT_STALE_READ && read && stale_give(c->inject, c->user))
        count_one(c->inject, c->fault_id);
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

static void carrier_start(struct carrier *c)
{
    bool later = needs_old(c) || (c->kind == INJECT_STALE_READ); /* counted when it turns out to have an effect */
    if (c->kind != INJECT_KIND_COUNT && !later)
        count_one(c->inject, c->fault_id);
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

/* --- the seam --- */

static bool hold(struct inject_io *j, struct io_op *user)
{
    struct inject_fault *f = fault_of_kind(j, user, INJECT_STALL);
    struct held *h = f ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return false;
    h->user = user;
    link_push(&j->held, &h->link);
    count_one(j, f->id);
    return true;
}

static struct carrier *carry(struct inject_io *j, struct io_op *user, struct inject_fault *f, const struct inject_fault *slow)
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

static void inject_submit(struct io *io, struct io_op *op)
{
    struct inject_io *j = inject_of(io);
    struct inject_fault stale = {.kind = INJECT_STALE_READ}, *f = NULL, *slow = NULL, *arm = NULL;
    op->submitted_ns = io_now_ns(j->under);
    if (j->count) {
        if (hold(j, op))
            return;
        f = fault_that_changes(j, op);
        slow = fault_of_kind(j, op, INJECT_SLOW);
        arm = fault_of_kind(j, op, INJECT_ONE_ARM);
        if (!f && stale_wanted(j, op))
            f = &stale; /* nothing is injected yet: what is overwritten is remembered */
    }
    struct carrier *c = f || slow || arm ? carry(j, op, f, slow) : NULL;
    if (!c) {
        io_submit(j->under, op);
        return;
    }
    if (slow)
        count_one(j, slow->id);
    if (arm) {
        c->arm_done_ns = inject_arm_done(&j->arms[op->target], op, io_target(j->under, op->target)->bytes, arm->factor,
                                         op->submitted_ns);
        count_one(j, arm->id);
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

static bool has_fault(const struct inject_io *j, uint16_t target, enum inject_kind kind)
{
    for (uint32_t i = 0; i < j->count; i++)
        if (j->faults[i].kind == kind && j->faults[i].target == target)
            return true;
    return false;
}

static const struct io_target *inject_target(struct io *io, uint16_t target)
{
    struct inject_io *j = inject_of(io);
    const struct io_target *real = io_target(j->under, target);
    bool vanished = has_fault(j, target, INJECT_VANISH), arm = has_fault(j, target, INJECT_ONE_ARM);
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

/* --- faults come and go --- */

/* What was held goes on its way as if it were submitted now; another stall may hold it again. */
static void release_held(struct inject_io *j)
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

static void set_timer(struct inject_io *j)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < j->count; i++)
        next = j->faults[i].until_ns < next ? j->faults[i].until_ns : next;
    if (next == UINT64_MAX)
        io_timer_clear(j->under, &j->timer);
    else
        io_timer_set(j->under, &j->timer, next);
}

static void end_fault(struct inject_io *j, uint32_t i, bool cleared)
{
    struct inject_fault f = j->faults[i];
    memmove(&j->faults[i], &j->faults[i + 1], (j->count - i - 1) * sizeof f);
    j->count--;
    for (uint32_t n = 0; n < INJECT_STALE_BLOCKS && f.kind == INJECT_STALE_READ; n++)
        j->stale[n].used = j->stale[n].used && j->stale[n].target != f.target;
    if (j->hooks.ended)
        j->hooks.ended(j->hooks.owner, &f, cleared);
}

static void on_expiry(struct io_timer *t)
{
    struct inject_io *j = t->owner;
    for (uint32_t i = j->count; i-- > 0;)
        if (io_now_ns(j->under) >= j->faults[i].until_ns)
            end_fault(j, i, false);
    release_held(j);
    set_timer(j);
}

static enum err check_wanted(const struct inject_io *j, const struct inject_fault *w)
{
    uint64_t now = io_now_ns(j->under), longest = INJECT_SECONDS_MAX * UINT64_C(1000000000);
    bool sane = w->kind < INJECT_KIND_COUNT && w->target < io_target_count(j->under) && w->rate > 0 && w->rate <= 1 &&
                w->from < w->to && w->until_ns > now && w->until_ns - now <= longest &&
                (w->kind != INJECT_SLOW || (w->factor >= 2 && w->factor <= INJECT_FACTOR_MAX)) &&
                (w->kind != INJECT_ONE_ARM || (w->factor >= 1 && w->factor <= INJECT_FACTOR_MAX));
    return sane ? ERR_OK : ERR_INVALID;
}

static enum err come_back(struct inject_io *j, uint16_t target)
{
    enum err e = ERR_NOT_FOUND;
    for (uint32_t i = j->count; i-- > 0;) {
        if (j->faults[i].kind != INJECT_VANISH || j->faults[i].target != target)
            continue;
        end_fault(j, i, true);
        e = ERR_OK;
    }
    set_timer(j);
    return e;
}

enum err inject_add(struct inject_io *j, const struct inject_fault *wanted, uint32_t *id_out)
{
    enum err e = check_wanted(j, wanted);
    if (e == ERR_OK && wanted->kind == INJECT_RETURN)
        e = come_back(j, wanted->target);
    else if (e == ERR_OK && j->count == INJECT_FAULTS_MAX)
        e = ERR_BUSY;
    if (e != ERR_OK)
        return e;
    *id_out = ++j->last_id;
    if (wanted->kind == INJECT_RETURN)
        return ERR_OK;
    struct inject_fault *f = &j->faults[j->count++];
    *f = *wanted;
    f->id = *id_out;
    f->injected = 0;
    f->prng.state = f->seed;
    if (f->kind == INJECT_ONE_ARM)
        j->arms[f->target] = (struct inject_arm){.read_end = UINT64_MAX};
    if (f->kind == INJECT_VANISH) { /* there is no half of it */
        f->rate = 1;
        f->from = 0;
        f->to = UINT64_MAX;
    }
    set_timer(j);
    return ERR_OK;
}

uint32_t inject_clear(struct inject_io *j, uint16_t target, uint32_t id)
{
    uint32_t cleared = 0;
    for (uint32_t i = j->count; i-- > 0;) {
        const struct inject_fault *f = &j->faults[i];
        if ((target != INJECT_ANY_TARGET && f->target != target) || (id && f->id != id))
            continue;
        end_fault(j, i, true);
        cleared++;
    }
    release_held(j);
    set_timer(j);
    return cleared;
}

uint32_t inject_count(const struct inject_io *j)
{
    return j->count;
}

const struct inject_fault *inject_at(const struct inject_io *j, uint32_t i)
{
    ASSERT(i < j->count);
    return &j->faults[i];
}

uint64_t inject_total(const struct inject_io *j)
{
    return j->total;
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
    io_timer_init(&j->timer, on_expiry, j);
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
    free(j->stale_bytes);
    free(j);
}
