/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: blocking I/O for mount, create and check, when there is no mail to serve. An op that outlives its patience
 * is abandoned with its private buffer, which is freed when it comes back: nobody else ever sees late bytes. */
#include "mount.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

/* A member that does not answer for this long at mount is treated as absent. Longer than any healthy disk's worst
 * read, shorter than the kernel's 30 s. */
#define SYNC_PATIENCE_NS (5 * NS_PER_S)

struct sync_op {
    struct io_op op;
    struct member *member;
    uint32_t slot;
    bool returned, abandoned;
    uint8_t *bounce;
};

void *sync_buffer(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, BLOCK_BYTES, bytes) != 0)
        return NULL;
    return p;
}

static void sync_free(struct sync_op *s)
{
    free(s->bounce);
    free(s);
}

static void sync_on_done(struct io_op *op)
{
    struct sync_op *s = op->owner;
    s->returned = true;
    if (s->member) {
        s->member->ops--;
        if (s->slot != UINT32_MAX) {
            s->member->slot_busy[s->slot]--;
            if (op->kind == IO_WRITE)
                s->member->slot_writes[s->slot]--;
        }
    }
    if (s->abandoned)
        sync_free(s);
}

static struct sync_op *sync_start(struct io *io, enum io_kind kind, uint16_t target, uint64_t offset, uint32_t length)
{
    struct sync_op *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->bounce = length ? sync_buffer(length) : NULL;
    if (length && !s->bounce) {
        free(s);
        return NULL;
    }
    s->op = (struct io_op){.kind = kind, .class = IO_CLASS_DELIVER, .target = target,
                           .durable = kind == IO_WRITE && !PLANTED(recovery_unflushed), .length = length,
                           .offset = offset, .buffer = s->bounce, .done = sync_on_done, .owner = s};
    (void)io;
    return s;
}

/* SEG-2 holds for these as well: a slot with one still out, abandoned or not, is not claimed. */
static void sync_submit(struct io *io, struct sync_op *s, struct member *m)
{
    s->member = m;
    s->slot = UINT32_MAX;
    if (m) {
        m->ops++;
        if (m->slot_busy && s->op.offset >= m->slots_offset &&
            (s->op.offset - m->slots_offset) / m->slot_bytes < m->slot_count) {
            s->slot = (uint32_t)((s->op.offset - m->slots_offset) / m->slot_bytes);
            m->slot_busy[s->slot]++;
            if (s->op.kind == IO_WRITE)
                m->slot_writes[s->slot]++;
        }
    }
    io_submit(io, &s->op);
}

static void sync_wait(struct io *io, struct sync_op *const *ops, uint32_t count)
{
    uint64_t until = io_now_ns(io) + SYNC_PATIENCE_NS;
    for (;;) {
        bool all = true;
        for (uint32_t i = 0; i < count; i++)
            all = all && (!ops[i] || ops[i]->returned);
        if (all || io_now_ns(io) >= until)
            return;
        io_turn(io, until - io_now_ns(io));
    }
}

static enum err sync_end(struct sync_op *s, void *buffer, uint32_t length)
{
    if (!s)
        return ERR_NO_MEMORY;
    if (!s->returned) {
        s->abandoned = true;
        return ERR_TIMEOUT;
    }
    enum err e = s->op.result;
    if (e == ERR_OK && buffer)
        memcpy(buffer, s->bounce, length);
    sync_free(s);
    return e;
}

#define SYNC_READS_MAX 64u

void sync_read_all(struct io *io, struct sync_read *reads, uint32_t count)
{
    ASSERT(count <= SYNC_READS_MAX);
    struct sync_op *ops[SYNC_READS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++) {
        ops[i] = sync_start(io, IO_READ, reads[i].target, reads[i].offset, reads[i].length);
        if (!ops[i])
            continue;
        sync_submit(io, ops[i], reads[i].member);
    }
    sync_wait(io, ops, count);
    for (uint32_t i = 0; i < count; i++)
        reads[i].result = sync_end(ops[i], reads[i].buffer, reads[i].length);
}

enum err sync_read_one(struct io *io, uint16_t target, uint64_t offset, void *buffer, uint32_t length)
{
    struct sync_read r = {.io = io, .target = target, .offset = offset, .length = length, .buffer = buffer};
    sync_read_all(io, &r, 1);
    return r.result;
}

enum err sync_read_member(struct member *m, uint64_t offset, void *buffer, uint32_t length)
{
    struct io *io = m->pool->io;
    struct sync_read r = {.member = m, .io = io, .target = m->target, .offset = offset, .length = length, .buffer = buffer};
    sync_read_all(io, &r, 1);
    return r.result;
}

static enum err sync_write(struct io *io, uint16_t target, struct member *m, uint64_t offset, const void *buffer,
                           uint32_t length)
{
    struct sync_op *s = sync_start(io, IO_WRITE, target, offset, length);
    if (!s)
        return ERR_NO_MEMORY;
    memcpy(s->bounce, buffer, length);
    sync_submit(io, s, m);
    sync_wait(io, &s, 1);
    return sync_end(s, NULL, length);
}

enum err sync_write_one(struct io *io, uint16_t target, uint64_t offset, const void *buffer, uint32_t length)
{
    return sync_write(io, target, NULL, offset, buffer, length);
}

enum err sync_write_member(struct io *io, struct member *m, uint64_t offset, const void *buffer, uint32_t length)
{
    return sync_write(io, m->target, m, offset, buffer, length);
}
