/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the faults of a running pool: which one an operation meets, and how they come and go. INJ-2, INJ-3, INJ-4 (inject_io.h). */
#include "inject_parts.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

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
    case INJECT_MEDIA_ERROR:
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

/* --- bad blocks --- */

static bool block_is_bad(const struct inject_fault *f, uint64_t block)
{
    struct prng of_block = {.state = f->seed ^ (block + 1) * UINT64_C(0xd1b54a32d192ed03)};
    bool chosen = f->rate >= 1.0 || (double)(prng_next(&of_block) >> 11) * 0x1p-53 < f->rate;
    return chosen && !(block < f->blocks && f->written[block / 8] & (1u << (block % 8)));
}

static bool meets_bad_block(const struct inject_fault *f, const struct io_op *op)
{
    uint64_t from = op->offset > f->from ? op->offset : f->from, end = op->offset + op->length;
    end = end < f->to ? end : f->to;
    for (uint64_t block = from / BLOCK_BYTES; block * BLOCK_BYTES < end; block++)
        if (block_is_bad(f, block))
            return true;
    return false;
}

void fault_note_write(struct inject_io *j, const struct io_op *op)
{
    for (uint32_t i = 0; i < j->count && op->kind == IO_WRITE; i++) {
        struct inject_fault *f = &j->faults[i];
        if (f->kind != INJECT_MEDIA_ERROR || f->target != op->target)
            continue;
        for (uint64_t b = op->offset / BLOCK_BYTES; b < (op->offset + op->length) / BLOCK_BYTES && b < f->blocks; b++)
            f->written[b / 8] |= (uint8_t)(1u << (b % 8));
    }
}

static bool fault_chooses(struct inject_fault *f, const struct io_op *op)
{
    if (f->kind == INJECT_MEDIA_ERROR)
        return meets_bad_block(f, op);
    return f->rate >= 1.0 || (double)(prng_next(&f->prng) >> 11) * 0x1p-53 < f->rate;
}

/* The first fault of one kind that wants this operation. */
struct inject_fault *fault_of_kind(struct inject_io *j, const struct io_op *op, enum inject_kind kind)
{
    for (uint32_t i = 0; i < j->count; i++) {
        struct inject_fault *f = &j->faults[i];
        if (f->kind == kind && kind_hits(kind, op) && fault_covers(j, f, op) && fault_chooses(f, op))
            return f;
    }
    return NULL;
}

/* The first fault that changes what this operation does, in the order they were added. */
struct inject_fault *fault_that_changes(struct inject_io *j, const struct io_op *op)
{
    for (uint32_t i = 0; i < j->count; i++) {
        struct inject_fault *f = &j->faults[i];
        bool only_late = f->kind == INJECT_SLOW || f->kind == INJECT_ONE_ARM || f->kind == INJECT_STALL;
        if (!only_late && kind_hits(f->kind, op) && fault_covers(j, f, op) &&
            fault_chooses(f, op))
            return f;
    }
    return NULL;
}

bool fault_wants_stale(const struct inject_io *j, const struct io_op *op)
{
    for (uint32_t i = 0; i < j->count; i++)
        if (j->faults[i].kind == INJECT_STALE_READ && op->kind == IO_WRITE && fault_covers(j, &j->faults[i], op))
            return true;
    return false;
}

void fault_count_one(struct inject_io *j, uint32_t id)
{
    for (uint32_t i = 0; i < j->count; i++)
        j->faults[i].injected += j->faults[i].id == id;
    j->total++;
}

bool fault_is_on(const struct inject_io *j, uint16_t target, enum inject_kind kind)
{
    for (uint32_t i = 0; i < j->count; i++)
        if (j->faults[i].kind == kind && j->faults[i].target == target)
            return true;
    return false;
}

/* --- faults come and go --- */

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
    free(f.written);
    f.written = NULL;
    if (j->hooks.ended)
        j->hooks.ended(j->hooks.owner, &f, cleared);
}

void fault_expired(struct io_timer *t)
{
    struct inject_io *j = t->owner;
    for (uint32_t i = j->count; i-- > 0;)
        if (io_now_ns(j->under) >= j->faults[i].until_ns)
            end_fault(j, i, false);
    inject_release_held(j);
    set_timer(j);
}

static enum err check_wanted(const struct inject_io *j, const struct inject_fault *w)
{
    uint64_t now = io_now_ns(j->under), longest = INJECT_SECONDS_MAX * UINT64_C(1000000000);
    uint64_t bytes = w->target < io_target_count(j->under) ? io_target(j->under, w->target)->bytes : 0;
    bool behind = bytes > 0 && w->from >= bytes; /* 0: it is not here, and may be larger */
    bool sane = w->kind < INJECT_KIND_COUNT && w->target < io_target_count(j->under) && w->rate > 0 && w->rate <= 1 &&
                w->from < w->to && !behind && w->until_ns > now && w->until_ns - now <= longest &&
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
    uint64_t blocks = io_target(j->under, wanted->target)->bytes / BLOCK_BYTES; /* 0: it is not here */
    uint8_t *written = NULL;
    if (wanted->kind == INJECT_MEDIA_ERROR) {
        written = calloc(blocks / 8 + 1, 1);
        if (!written)
            return ERR_NO_MEMORY;
    }
    *id_out = ++j->last_id;
    if (wanted->kind == INJECT_RETURN)
        return ERR_OK;
    struct inject_fault *f = &j->faults[j->count++];
    *f = *wanted;
    f->id = *id_out;
    f->injected = 0;
    f->written = written;
    f->blocks = blocks;
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
    inject_release_held(j);
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
