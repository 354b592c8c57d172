/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: opening a member's file for direct I/O, the order of what waits for it, the end of each op.
 *  MBR-1  at most IO_IN_FLIGHT_PER_MEMBER_MAX ops of a member are with the kernel or its workers; the rest waits here.
 *  MBR-2  a waiting op is passed only by ops of a class with precedence; within a class the order is kept.
 *  MBR-3  buffered: a durable write is a write and then fdatasync, so that it is known which of the two failed. One
 *         failed flush fails the member for good: the page cache has dropped what it could not write and marked it clean,
 *         so a second flush would succeed and prove nothing. Every later op ends in ERR_MEMBER_GONE. The kernel tells
 *         a failure to one flush only, so flushes of a buffered member run one at a time: a second one, told nothing,
 *         could otherwise bless a write whose pages the first one lost.
 *  MBR-4  direct: a drive that fails a flush may drop all that lies in its cache, and answers the next flush as if nothing had
 *         been. A durable write that was under way when another's flush failed is repeated whole, and a flush ends in ERR_IO.
 *         The worlds run the flushes of a member one at a time, so that a failure is known before the next one begins; one
 *         flush serves all that wait for it. A failed write with O_DSYNC counts as a failed flush: without FUA it may be
 *         one, and the order of those is the kernel's own.
 * Never: starts a transfer, calls done(). Next: io_posix.c, io_uring.c. */
#include "io_member.h"

#include "disk.h"
#include "io_error.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <spoolfs/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define ATTEMPTS_MAX 16u /* answers of EAGAIN or EINTR to one op before it ends in ERR_BUSY */

/* Asks without touching the disk where the kernel can tell (Linux 6.1), so that a stuck disk does not stall the open. */
static bool direct_io_works(int fd, bool is_file, const struct disk *disk)
{
    struct statfs fs;
    struct statx sx;
    if (!is_file)
        return disk->logical_block <= BLOCK_BYTES;
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
        return false; /* accepts O_DIRECT since 6.6 and ignores it */
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN))
        return sx.stx_dio_offset_align > 0 && sx.stx_dio_offset_align <= BLOCK_BYTES &&
               sx.stx_dio_mem_align <= BLOCK_BYTES;
    void *block = NULL;
    if (posix_memalign(&block, BLOCK_BYTES, BLOCK_BYTES) != 0)
        return false;
    ssize_t got = pread(fd, block, BLOCK_BYTES, 0);
    bool refused = got < 0 && (errno == EINVAL || errno == EOPNOTSUPP);
    free(block);
    return !refused;
}

/* Every transfer of ours is a multiple of BLOCK_BYTES, aligned to it. */
static bool try_direct(int fd, bool is_file, const struct disk *disk)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0)
        return false;
    if (direct_io_works(fd, is_file, disk))
        return true;
    (void)fcntl(fd, F_SETFL, flags & ~O_DIRECT); /* what was accepted above can be taken back */
    return false;
}

static uint64_t file_bytes(int fd, const struct stat *st)
{
    uint64_t bytes = 0;
    if (S_ISREG(st->st_mode))
        bytes = (uint64_t)st->st_size;
    else if (ioctl(fd, BLKGETSIZE64, &bytes) != 0)
        bytes = 0;
    return bytes / BLOCK_BYTES * BLOCK_BYTES;
}

void io_member_init(struct io_member *m, int fd)
{
    struct stat st;
    struct disk disk;
    *m = (struct io_member){.fd = fd};
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++)
        link_init(&m->waiting[c]);
    if (fd < 0 || fstat(fd, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
        return;
    disk_of_file(fd, &disk);
    struct io_target *t = &m->target;
    t->is_file = S_ISREG(st.st_mode);
    t->bytes = file_bytes(fd, &st);
    t->present = t->bytes > 0;
    t->rotational = disk.rotational;
    t->discards = !t->is_file && disk.discards;
    t->buffered = t->present && !try_direct(fd, t->is_file, &disk);
    t->durable_by = t->buffered ? IO_DURABLE_FLUSH : IO_DURABLE_UNKNOWN;
    memcpy(t->serial, disk.serial, sizeof t->serial);
    memcpy(t->domain, disk.domain, sizeof t->domain);
}

void io_member_close(struct io_member *m)
{
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

enum err io_member_admit(const struct io_member *m, const struct io_op *op)
{
    ASSERT(op->offset % BLOCK_BYTES == 0 && op->length % BLOCK_BYTES == 0); /* IO-8 */
    ASSERT((uintptr_t)op->buffer % BLOCK_BYTES == 0);
    ASSERT((op->kind == IO_FLUSH) == (op->length == 0));
    ASSERT((op->buffer != NULL) == (op->kind == IO_READ || op->kind == IO_WRITE));
    if (!m->target.present || m->failed)
        return ERR_MEMBER_GONE;
    if (op->kind == IO_DISCARD && !m->target.discards)
        return ERR_INVALID; /* a file member is never punched */
    if (op->kind != IO_FLUSH && (op->offset > m->target.bytes || op->length > m->target.bytes - op->offset))
        return ERR_INVALID; /* geometry is read from disks: a place past the end is a verdict */
    return ERR_OK;
}

void io_member_wait(struct io_member *m, struct io_op *op)
{
    ASSERT((unsigned)op->class < IO_CLASS_COUNT);
    io_private(op)->phase = IO_PHASE_WAITING;
    link_push(&m->waiting[op->class], &op->link);
}

void io_member_wait_again(struct io_member *m, struct io_op *op)
{
    io_private(op)->phase = IO_PHASE_WAITING;
    link_push_front(&m->waiting[op->class], &op->link);
}

static bool needs_flush(const struct io_op *op)
{
    return op->kind == IO_FLUSH || (op->kind == IO_WRITE && op->durable);
}

static enum io_way way_of(const struct io_member *m, const struct io_op *op)
{
    if (op->kind != IO_WRITE || !op->durable)
        return IO_WAY_PLAIN;
    return m->target.durable_by == IO_DURABLE_FLUSH ? IO_WAY_THEN_FLUSH : IO_WAY_THROUGH;
}

static void take_off(struct io_member *m, struct io_op *op)
{
    struct io_private *p = io_private(op);
    link_remove(&op->link);
    m->flushing = m->flushing || needs_flush(op); /* read for buffered members only: there it is one at a time */
    p->phase = IO_PHASE_FLYING;
    p->way = (uint8_t)way_of(m, op);
    p->flushing = false;
    if (p->moved == 0) /* what was moved before is as old as the first attempt */
        p->flushes_failed = m->flushes_failed;
    p->background = op->class >= IO_CLASS_REPAIR;
    p->moved_now = 0;
    p->flushed = FLUSH_NONE;
    m->background += p->background;
    m->in_flight++;
}

struct io_op *io_member_next_failed(struct io_member *m)
{
    for (uint32_t c = 0; m->failed && c < IO_CLASS_COUNT; c++) {
        struct link *l = link_pop(&m->waiting[c]);
        if (l)
            return CONTAINER_OF(l, struct io_op, link);
    }
    return NULL;
}

struct io_op *io_member_next(struct io_member *m)
{
    if (m->in_flight >= IO_IN_FLIGHT_PER_MEMBER_MAX) /* MBR-1 */
        return NULL;
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++) {
        if (c >= IO_CLASS_REPAIR && m->background >= IO_BACKGROUND_IN_FLIGHT_MAX)
            return NULL;
        if (link_empty(&m->waiting[c])) /* MBR-2 */
            continue;
        struct io_op *op = CONTAINER_OF(m->waiting[c].next, struct io_op, link);
        if (m->target.buffered && m->flushing && needs_flush(op)) /* MBR-3 */
            continue;
        take_off(m, op);
        return op;
    }
    return NULL;
}

/* Only after a failure. The size of a block device comes from memory: asking does not wait for the disk. */
static bool member_vanished(const struct io_member *m)
{
    uint64_t bytes = 0;
    if (m->target.is_file)
        return false;
    return ioctl(m->fd, BLKGETSIZE64, &bytes) != 0 || bytes == 0;
}

static enum err classify(struct io_member *m, const struct io_op *op, enum io_kind kind, int64_t result)
{
    struct io_outcome o = {.kind = kind, .is_file = m->target.is_file, .result = result,
                           .length = kind == IO_READ || kind == IO_WRITE ? op->length : 0};
    if (result < 0 || result < (int64_t)o.length)
        o.vanished = member_vanished(m);
    enum err e = io_error_of(&o);
    if (e != ERR_OK && e != ERR_CANCELED && kind == IO_FLUSH && m->target.buffered)
        m->failed = true; /* MBR-3 */
    return e;
}

static bool wants_again(int64_t result)
{
    return result == -EAGAIN || result == -EINTR;
}

/* MBR-4: what it has made durable another's failed flush may have dropped. */
static bool doubted(const struct io_member *m, struct io_op *op)
{
    return needs_flush(op) && io_private(op)->flushes_failed != m->flushes_failed;
}

bool io_member_land(struct io_member *m, struct io_op *op)
{
    struct io_private *p = io_private(op);
    ASSERT(p->phase == IO_PHASE_FLYING && m->in_flight > 0 && m->background >= p->background);
    m->in_flight--;
    m->background -= p->background;
    if (needs_flush(op))
        m->flushing = false;
    bool transfer = op->kind == IO_READ || op->kind == IO_WRITE;
    if (transfer && p->moved_now > 0) {
        ASSERT(p->moved_now <= (int64_t)(op->length - p->moved));
        p->moved += (uint32_t)p->moved_now;
    }
    bool cut = transfer && p->moved_now > 0 && p->moved < op->length && p->moved % BLOCK_BYTES == 0;
    bool again = wants_again(p->moved_now) || (p->flushed != FLUSH_NONE && wants_again(p->flushed));
    bool repeat = op->kind == IO_WRITE && doubted(m, op) && !m->failed && p->moved == op->length &&
                  (p->flushed == 0 || p->flushed == FLUSH_NONE);
    if (cut || ((again || repeat) && p->attempts++ < ATTEMPTS_MAX)) {
        if (repeat || (again && wants_again(p->flushed) && transfer))
            p->moved = 0; /* the flush must follow a write again: repeat both */
        io_member_wait_again(m, op);
        return false;
    }
    op->result = classify(m, op, op->kind, transfer && p->moved_now >= 0 ? p->moved : p->moved_now);
    if (op->result == ERR_OK && p->flushed != FLUSH_NONE)
        op->result = classify(m, op, IO_FLUSH, p->flushed);
    ASSERT(op->result != ERR_OK || p->way != IO_WAY_THEN_FLUSH || p->flushed == 0); /* IO-4 */
    if (op->result != ERR_OK && op->result != ERR_CANCELED && needs_flush(op) &&
        (p->way != IO_WAY_THEN_FLUSH || p->flushed != FLUSH_NONE))
        m->flushes_failed++;
    else if (op->result == ERR_OK && op->kind != IO_READ && m->failed)
        op->result = ERR_MEMBER_GONE; /* MBR-3 */
    else if (op->result == ERR_OK && doubted(m, op))
        op->result = ERR_IO; /* MBR-4 */
    return true;
}
