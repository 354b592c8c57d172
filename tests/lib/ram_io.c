/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: members in memory behind the seam. Invariants: IO-1 to IO-7 (<spoolfs/io.h>); writes land when they are
 * answered, so an op that is held has not happened. */
#include "ram_io.h"

#include <base/assert.h>
#include <spoolfs/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ram_io *ram(struct io *io)
{
    return CONTAINER_OF(io, struct ram_io, io);
}

static void ram_submit(struct io *io, struct io_op *op)
{
    struct ram_io *r = ram(io);
    op->link = (struct link){0};
    op->submitted_ns = r->now_ns;
    r->submitted++;
    link_push(&r->queue, &op->link);
}

static void ram_bad(struct ram_io *r, uint16_t target, uint64_t offset, bool stays, uint32_t times)
{
    for (uint32_t i = 0; i < RAM_BAD_MAX; i++)
        if (!r->bad[i].used) {
            r->bad[i].used = true;
            r->bad[i].target = target;
            r->bad[i].offset = offset / BLOCK_BYTES * BLOCK_BYTES;
            r->bad[i].stays = stays;
            r->bad[i].times = times;
            return;
        }
    UNREACHABLE(); /* no room for one more bad block */
}

void ram_io_make_bad(struct ram_io *r, uint16_t target, uint64_t offset, bool stays)
{
    ram_bad(r, target, offset, stays, 0);
}

void ram_io_refuse(struct ram_io *r, uint16_t target, uint64_t offset, uint32_t times)
{
    ram_bad(r, target, offset, false, times);
}

static bool ram_meets_bad(struct ram_io *r, const struct io_op *op)
{
    bool meets = false;
    for (uint32_t i = 0; i < RAM_BAD_MAX; i++) {
        if (!r->bad[i].used || r->bad[i].target != op->target || op->offset > r->bad[i].offset ||
            op->offset + op->length <= r->bad[i].offset)
            continue;
        if (op->kind == IO_WRITE && !r->bad[i].stays)
            r->bad[i].used = false;
        meets = meets || op->kind == IO_READ;
        if (op->kind == IO_READ && r->bad[i].times > 0)
            r->bad[i].used = --r->bad[i].times > 0;
    }
    return meets;
}

static enum err ram_do(struct ram_io *r, struct io_op *op)
{
    uint16_t t = op->target;
    if (!r->targets[t].present)
        return ERR_MEMBER_GONE;
    bool there = r->fail_range[t].to == 0 || (op->offset >= r->fail_range[t].from && op->offset < r->fail_range[t].to);
    if (r->fail[t] != ERR_OK && there && (!r->fail_one_kind || op->kind == r->fail_kind))
        return r->fail[t];
    ASSERT(op->offset % BLOCK_BYTES == 0 && op->length % BLOCK_BYTES == 0);
    ASSERT(op->offset + op->length <= r->targets[t].bytes);
    if (ram_meets_bad(r, op))
        return r->bad_answer ? r->bad_answer : ERR_MEDIA;
    if (op->kind == IO_WRITE)
        memcpy(r->bytes[t] + op->offset, op->buffer, op->length);
    else if (op->kind == IO_READ)
        memcpy(op->buffer, r->bytes[t] + op->offset, op->length);
    return ERR_OK;
}

static uint32_t ram_turn(struct io *io, uint64_t wait_ns)
{
    struct ram_io *r = ram(io);
    uint32_t ran = 0;
    struct link ready;
    link_init(&ready);
    LINK_EACH_SAFE(l, next, &r->queue) {
        if (r->held[CONTAINER_OF(l, struct io_op, link)->target])
            continue;
        link_remove(l);
        link_push(&ready, l);
    }
    if (link_empty(&ready)) {
        struct heap_node *top = heap_top(&r->timers);
        uint64_t until = r->now_ns + wait_ns;
        r->now_ns = top && top->key < until ? (top->key > r->now_ns ? top->key : r->now_ns) : until;
    }
    r->now_ns += 1000;
    struct link *l;
    while ((l = link_pop(&ready)) != NULL) {
        struct io_op *op = CONTAINER_OF(l, struct io_op, link);
        op->result = ram_do(r, op);
        op->done_ns = r->now_ns;
        op->done(op);
        ran++;
    }
    while (heap_top(&r->timers) && heap_top(&r->timers)->key <= r->now_ns) {
        struct io_timer *t = CONTAINER_OF(heap_pop(&r->timers), struct io_timer, node);
        t->fire(t);
        ran++;
    }
    return ran;
}

static void ram_cancel(struct io *io, struct io_op *op)
{
    (void)io;
    (void)op; /* IO-6: a wish */
}
static uint64_t ram_now(struct io *io) { return ram(io)->now_ns; }
static uint64_t ram_wall(struct io *io) { return ram(io)->wall_ms + ram(io)->now_ns / 1000000; }
static uint64_t ram_random(struct io *io)
{
    struct ram_io *r = ram(io);
    r->random += UINT64_C(0x9e3779b97f4a7c15);
    return (r->random ^ (r->random >> 31)) * UINT64_C(0xbf58476d1ce4e5b9);
}
static void ram_timer_set(struct io *io, struct io_timer *t, uint64_t when_ns)
{
    if (io_timer_is_set(t))
        heap_remove(&ram(io)->timers, &t->node);
    enum err e = heap_push(&ram(io)->timers, &t->node, when_ns);
    ASSERT(e == ERR_OK);
}
static void ram_timer_clear(struct io *io, struct io_timer *t)
{
    if (io_timer_is_set(t))
        heap_remove(&ram(io)->timers, &t->node);
}
static uint32_t ram_target_count(struct io *io) { return ram(io)->count; }
static const struct io_target *ram_target(struct io *io, uint16_t t) { return &ram(io)->targets[t]; }
static void ram_set_durable_by(struct io *io, uint16_t t, enum io_durable_by by) { ram(io)->targets[t].durable_by = by; }
static const char *ram_name(struct io *io)
{
    (void)io;
    return "ram";
}

static const struct io_ops ram_ops = {
    .submit = ram_submit, .cancel = ram_cancel, .turn = ram_turn, .now_ns = ram_now, .wall_ms = ram_wall,
    .random64 = ram_random, .timer_set = ram_timer_set, .timer_clear = ram_timer_clear,
    .target_count = ram_target_count, .target = ram_target, .target_set_durable_by = ram_set_durable_by,
    .name = ram_name,
};

void ram_io_open(struct ram_io *r, uint32_t count, uint64_t bytes_each)
{
    ASSERT(count <= RAM_TARGETS_MAX);
    *r = (struct ram_io){.io = {&ram_ops}, .count = count, .now_ns = 1000000000, .wall_ms = UINT64_C(1700000000000),
                         .random = 42};
    link_init(&r->queue);
    heap_init(&r->timers, r->timer_nodes, 4096);
    for (uint32_t i = 0; i < count; i++) {
        r->bytes[i] = calloc(1, bytes_each);
        ASSERT(r->bytes[i]);
        r->targets[i] = (struct io_target){.bytes = bytes_each, .present = true, .is_file = true};
        snprintf(r->targets[i].domain, sizeof r->targets[i].domain, "disk:ram%u", i);
        snprintf(r->targets[i].serial, sizeof r->targets[i].serial, "RAM%04u", i);
    }
}

void ram_io_forget(struct ram_io *r)
{
    while (link_pop(&r->queue) != NULL)
        ;
    while (heap_pop(&r->timers) != NULL)
        ;
}

void ram_io_close(struct ram_io *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        free(r->bytes[i]);
}
