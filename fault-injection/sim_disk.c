/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the bytes of a simulated disk. Three layers, read from the top: the volatile cache (completed, unflushed writes,
 * in order), the damage overlay of a block, the medium.
 *  DSK-1  a block's damage ends when the block is written whole; healing brings the true bytes back.
 *  DSK-2  after a power cut the cache is empty and every settled write is on the medium.
 * Never: decides by itself what goes wrong. Next: sim_io.c. */
#include "sim_disk.h"

#include <base/assert.h>
#include <base/link.h>
#include <spoolfs/limits.h>
#include <stdlib.h>
#include <string.h>

#define SECTORS_PER_BLOCK (BLOCK_BYTES / SIM_SECTOR_BYTES)

struct block { /* shared between snapshots, never changed while refs > 1 */
    uint32_t refs;
    uint8_t bytes[BLOCK_BYTES];
};

struct cell {
    struct block *now;    /* the true bytes; NULL: never written */
    struct block *before; /* what the last overwrite replaced, for stale reads */
    struct block *shown;  /* damage: what reads see in place of `now` */
    struct block *junk;   /* what a disk shows that was never written there; once it was asked for */
    uint16_t rot_at;
    uint8_t rot_mask;     /* 0: no rot */
    bool unreadable;
};

struct cached_write {
    struct link link;
    uint64_t number, offset;
    uint32_t length;
    bool doomed;
    uint8_t bytes[];
};

struct sim_disk {
    struct sim_disk_shape shape;
    uint64_t cell_count;
    struct cell *cells;
    struct link cache; /* oldest first */
    uint32_t cached, damaged;
    uint64_t writes;
};

static struct block zeros = {.refs = 1}; /* most of a zero-filled file: not worth a copy each */

static void *must_alloc(size_t bytes)
{
    void *p = calloc(1, bytes);
    ASSERT(p != NULL);
    return p;
}

static struct block *block_ref(struct block *b)
{
    if (b && b != &zeros)
        b->refs++;
    return b;
}

/* Blocks nobody refers to, for the next write: the allocator would merge and split them each time. */
#define SPARES_MAX 4096u
static struct block *spares[SPARES_MAX];
static uint32_t spare_count;

static void block_drop(struct block **at)
{
    struct block *b = *at;
    *at = NULL;
    if (!b || b == &zeros || --b->refs > 0)
        return;
    if (spare_count < SPARES_MAX)
        spares[spare_count++] = b;
    else
        free(b);
}

static struct block *block_new(void)
{
    struct block *b = spare_count ? spares[--spare_count] : malloc(sizeof *b);
    ASSERT(b != NULL);
    b->refs = 1;
    return b;
}

static struct block *block_of(const uint8_t *bytes)
{
    if (memcmp(bytes, zeros.bytes, BLOCK_BYTES) == 0)
        return &zeros;
    struct block *b = block_new();
    memcpy(b->bytes, bytes, BLOCK_BYTES);
    return b;
}

/* The same bytes each time. */
static const struct block *junk_of(const struct sim_disk *disk, uint64_t block)
{
    struct cell *c = &disk->cells[block];
    if (disk->shape.is_file)
        return &zeros;
    if (c->junk)
        return c->junk;
    c->junk = block_new();
    struct prng prng = {disk->shape.seed ^ (block * UINT64_C(0x9e3779b97f4a7c15))};
    for (uint32_t i = 0; i < BLOCK_BYTES; i += 8) {
        uint64_t word = prng_next(&prng);
        memcpy(c->junk->bytes + i, &word, 8);
    }
    return c->junk;
}

static struct cell *cell_at(const struct sim_disk *disk, uint64_t offset)
{
    ASSERT(offset / BLOCK_BYTES < disk->cell_count);
    return &disk->cells[offset / BLOCK_BYTES];
}

static bool cell_is_damaged(const struct cell *c)
{
    return c->shown || c->rot_mask || c->unreadable;
}

static void cell_heal(struct sim_disk *disk, struct cell *c)
{
    disk->damaged -= cell_is_damaged(c) ? 1 : 0;
    block_drop(&c->shown);
    c->rot_mask = 0;
    c->unreadable = false;
}

static void cell_clear(struct sim_disk *disk, struct cell *c)
{
    cell_heal(disk, c);
    block_drop(&c->now);
    block_drop(&c->before);
}

static void cell_bytes(const struct sim_disk *disk, uint64_t block, const struct block *b, uint8_t *bytes)
{
    memcpy(bytes, b ? b->bytes : junk_of(disk, block)->bytes, BLOCK_BYTES);
}

/* The medium as a read sees it, the cache aside. */
static void cell_show(const struct sim_disk *disk, uint64_t block, uint8_t *bytes)
{
    const struct cell *c = &disk->cells[block];
    cell_bytes(disk, block, c->shown ? c->shown : c->now, bytes);
    if (c->rot_mask)
        bytes[c->rot_at] ^= c->rot_mask;
}

struct sim_disk *sim_disk_make(const struct sim_disk_shape *shape)
{
    ASSERT(shape->bytes > 0 && shape->bytes % BLOCK_BYTES == 0);
    struct sim_disk *disk = must_alloc(sizeof *disk);
    disk->shape = *shape;
    disk->cell_count = shape->bytes / BLOCK_BYTES;
    disk->cells = must_alloc(disk->cell_count * sizeof *disk->cells);
    link_init(&disk->cache);
    return disk;
}

static void cache_drop(struct sim_disk *disk, struct cached_write *w)
{
    link_remove(&w->link);
    disk->cached--;
    free(w);
}

void sim_disk_blank(struct sim_disk *disk)
{
    LINK_EACH_SAFE(l, next, &disk->cache)
        cache_drop(disk, CONTAINER_OF(l, struct cached_write, link));
    for (uint64_t i = 0; i < disk->cell_count; i++)
        cell_clear(disk, &disk->cells[i]);
    ASSERT(disk->damaged == 0 && disk->cached == 0);
}

void sim_disk_free(struct sim_disk **disk)
{
    if (!*disk)
        return;
    sim_disk_blank(*disk);
    for (uint64_t i = 0; i < (*disk)->cell_count; i++)
        block_drop(&(*disk)->cells[i].junk);
    free((*disk)->cells);
    free(*disk);
    *disk = NULL;
}

struct sim_disk *sim_disk_snapshot(const struct sim_disk *disk)
{
    struct sim_disk *copy = sim_disk_make(&disk->shape);
    for (uint64_t i = 0; i < disk->cell_count; i++) {
        copy->cells[i] = disk->cells[i];
        block_ref(copy->cells[i].now);
        block_ref(copy->cells[i].before);
        block_ref(copy->cells[i].shown);
        block_ref(copy->cells[i].junk);
    }
    copy->damaged = disk->damaged;
    LINK_EACH(l, &disk->cache) {
        const struct cached_write *w = CONTAINER_OF(l, const struct cached_write, link);
        sim_disk_write_through(copy, w->offset, w->length, w->bytes);
    }
    return copy;
}

uint64_t sim_disk_bytes(const struct sim_disk *disk) { return disk->shape.bytes; }
bool sim_disk_is_file(const struct sim_disk *disk) { return disk->shape.is_file; }
uint32_t sim_disk_damaged(const struct sim_disk *disk) { return disk->damaged; }
uint32_t sim_disk_unflushed(const struct sim_disk *disk) { return disk->cached; }
uint64_t sim_disk_mark(const struct sim_disk *disk) { return disk->writes; }

/* Some sectors of one block reach the medium: bit i of `sectors` is sector i. */
static void medium_put(struct sim_disk *disk, uint64_t offset, const uint8_t *bytes, uint32_t sectors)
{
    struct cell *c = cell_at(disk, offset);
    uint8_t merged[BLOCK_BYTES];
    const uint32_t all = (1u << SECTORS_PER_BLOCK) - 1;
    if (sectors == 0)
        return;
    if (sectors != all) { /* damage of the block stays until it is written whole, and heals to the merged bytes */
        cell_bytes(disk, offset / BLOCK_BYTES, c->now, merged);
        for (uint32_t s = 0; s < SECTORS_PER_BLOCK; s++)
            if (sectors & (1u << s))
                memcpy(merged + s * SIM_SECTOR_BYTES, bytes + s * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
        bytes = merged;
    } else {
        cell_heal(disk, c); /* DSK-1 */
    }
    struct block *fresh = block_of(bytes);
    block_drop(&c->before);
    c->before = c->now;
    c->now = fresh;
}

static void medium_write(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes)
{
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES)
        medium_put(disk, offset + at, bytes + at, (1u << SECTORS_PER_BLOCK) - 1);
}

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

/* A drive may write back whenever it likes: older writes of the same range go first, so that order is kept. */
static void cache_settle_range(struct sim_disk *disk, uint64_t offset, uint64_t length)
{
    LINK_EACH_SAFE(l, next, &disk->cache) {
        struct cached_write *w = CONTAINER_OF(l, struct cached_write, link);
        if (!overlaps(w->offset, w->length, offset, length))
            continue;
        if (!w->doomed)
            medium_write(disk, w->offset, w->length, w->bytes);
        cache_drop(disk, w);
    }
}

static void cache_show(const struct sim_disk *disk, uint64_t offset, uint32_t length, uint8_t *buffer)
{
    LINK_EACH(l, &disk->cache) {
        const struct cached_write *w = CONTAINER_OF(l, const struct cached_write, link);
        if (!overlaps(w->offset, w->length, offset, length))
            continue;
        uint64_t from = w->offset > offset ? w->offset : offset;
        uint64_t w_end = w->offset + w->length, end = offset + length;
        uint64_t to = w_end < end ? w_end : end;
        memcpy(buffer + (from - offset), w->bytes + (from - w->offset), to - from);
    }
}

enum err sim_disk_read(const struct sim_disk *disk, uint64_t offset, uint32_t length, uint8_t *buffer)
{
    enum err e = ERR_OK;
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES) {
        if (cell_at(disk, offset + at)->unreadable) {
            e = ERR_MEDIA;
            break;
        }
        cell_show(disk, (offset + at) / BLOCK_BYTES, buffer + at);
    }
    if (e == ERR_OK)
        cache_show(disk, offset, length, buffer);
    return e;
}

void sim_disk_read_before(const struct sim_disk *disk, uint64_t offset, uint32_t length, uint8_t *buffer)
{
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES) {
        const struct cell *c = cell_at(disk, offset + at);
        cell_bytes(disk, (offset + at) / BLOCK_BYTES, c->before, buffer + at);
    }
}

void sim_disk_write(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes)
{
    while (disk->cached >= SIM_CACHE_WRITES_MAX) {
        struct cached_write *oldest = CONTAINER_OF(disk->cache.next, struct cached_write, link);
        cache_settle_range(disk, oldest->offset, oldest->length);
    }
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES)
        cell_heal(disk, cell_at(disk, offset + at)); /* DSK-1: the cache answers for the block from here on */
    struct cached_write *w = malloc(sizeof *w + length);
    ASSERT(w != NULL);
    *w = (struct cached_write){.number = ++disk->writes, .offset = offset, .length = length};
    memcpy(w->bytes, bytes, length);
    link_push(&disk->cache, &w->link);
    disk->cached++;
}

void sim_disk_write_through(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes)
{
    cache_settle_range(disk, offset, length);
    disk->writes++;
    medium_write(disk, offset, length, bytes);
}

/* TRIM promises nothing about what is read afterwards: zeros, junk or the old bytes. */
void sim_disk_discard(struct sim_disk *disk, uint64_t offset, uint64_t length, struct prng *prng)
{
    cache_settle_range(disk, offset, length);
    uint64_t mood = prng_below(prng, 3);
    for (uint64_t at = 0; at < length && mood < 2; at += BLOCK_BYTES) {
        struct cell *c = cell_at(disk, offset + at);
        cell_clear(disk, c);
        c->now = mood == 0 ? &zeros : NULL;
    }
}

/* What older writes that never reach the medium show from here on, where `w` is newer. */
static void cache_supersede(struct sim_disk *disk, const struct cached_write *w)
{
    LINK_EACH(l, &disk->cache) {
        struct cached_write *old = CONTAINER_OF(l, struct cached_write, link);
        if (old->number >= w->number || !overlaps(old->offset, old->length, w->offset, w->length))
            continue;
        uint64_t from = old->offset > w->offset ? old->offset : w->offset;
        uint64_t old_end = old->offset + old->length, w_end = w->offset + w->length;
        uint64_t to = old_end < w_end ? old_end : w_end;
        memcpy(old->bytes + (from - old->offset), w->bytes + (from - w->offset), to - from);
    }
}

void sim_disk_settle(struct sim_disk *disk, uint64_t mark)
{
    LINK_EACH_SAFE(l, next, &disk->cache) {
        struct cached_write *w = CONTAINER_OF(l, struct cached_write, link);
        if (w->number > mark || w->doomed)
            continue;
        cache_supersede(disk, w);
        medium_write(disk, w->offset, w->length, w->bytes);
        cache_drop(disk, w);
    }
}

void sim_disk_doom(struct sim_disk *disk, uint64_t mark)
{
    LINK_EACH(l, &disk->cache) {
        struct cached_write *w = CONTAINER_OF(l, struct cached_write, link);
        w->doomed = w->doomed || w->number <= mark;
    }
}

/* Which sectors of a write survive: bit per sector of one block, drawn block by block. */
static uint32_t cut_sectors(struct sim_cut *cut, uint32_t fate)
{
    const uint32_t all = (1u << SECTORS_PER_BLOCK) - 1;
    if (fate == 0)
        return 0;
    if (fate == 1)
        return all;
    uint64_t draw = prng_next(cut->prng);
    if ((draw & 3) == 0)
        return 0;
    return (draw & 3) == 1 ? all : (uint32_t)(draw >> 8) & all;
}

/* 0: not at all, 1: wholly, 2: torn. */
static uint32_t cut_fate(struct sim_cut *cut)
{
    bool chosen = cut->at++ == cut->chosen;
    switch (cut->survival) {
    case SIM_SURVIVE_NONE:
        return 0;
    case SIM_SURVIVE_ALL:
        return 1;
    case SIM_SURVIVE_ALL_BUT_ONE:
        return chosen ? 0 : 1;
    case SIM_SURVIVE_ONLY_ONE:
        return chosen ? 1 : 0;
    case SIM_SURVIVE_RANDOM:
        return (uint32_t)prng_below(cut->prng, 3);
    case SIM_SURVIVE_COUNT:
        break;
    }
    UNREACHABLE();
}

void sim_disk_tear(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes, struct sim_cut *cut)
{
    uint32_t fate = cut_fate(cut);
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES)
        medium_put(disk, offset + at, bytes + at, cut_sectors(cut, fate));
}

void sim_disk_power_cut(struct sim_disk *disk, struct sim_cut *cut)
{
    LINK_EACH_SAFE(l, next, &disk->cache) {
        struct cached_write *w = CONTAINER_OF(l, struct cached_write, link);
        if (w->doomed)
            cut->at++;
        else
            sim_disk_tear(disk, w->offset, w->length, w->bytes, cut);
        cache_drop(disk, w);
    }
    ASSERT(disk->cached == 0); /* DSK-2 */
}

void sim_disk_rot(struct sim_disk *disk, uint64_t offset, uint8_t mask)
{
    struct cell *c = cell_at(disk, offset);
    ASSERT(mask != 0);
    cache_settle_range(disk, offset - offset % BLOCK_BYTES, BLOCK_BYTES);
    if (!cell_is_damaged(c))
        disk->damaged++;
    c->rot_at = (uint16_t)(offset % BLOCK_BYTES);
    c->rot_mask = mask;
}

void sim_disk_make_unreadable(struct sim_disk *disk, uint64_t offset)
{
    struct cell *c = cell_at(disk, offset);
    cache_settle_range(disk, offset - offset % BLOCK_BYTES, BLOCK_BYTES);
    if (!cell_is_damaged(c))
        disk->damaged++;
    c->unreadable = true;
}

/* Reads go on seeing `shown_bytes` at a place whose true bytes are what they should be. */
static void cell_overlay(struct sim_disk *disk, uint64_t offset, const uint8_t *shown_bytes)
{
    struct cell *c = cell_at(disk, offset);
    struct block *shown = block_of(shown_bytes);
    if (!cell_is_damaged(c))
        disk->damaged++;
    block_drop(&c->shown);
    c->shown = shown;
}

void sim_disk_lose_write(struct sim_disk *disk, uint64_t offset, uint32_t length, const uint8_t *bytes)
{
    uint8_t old[BLOCK_BYTES];
    cache_settle_range(disk, offset, length);
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES) {
        cell_show(disk, (offset + at) / BLOCK_BYTES, old);
        medium_write(disk, offset + at, BLOCK_BYTES, bytes + at);
        cell_overlay(disk, offset + at, old);
    }
}

void sim_disk_misplace_write(struct sim_disk *disk, uint64_t offset, uint64_t wrong_offset, uint32_t length,
                             const uint8_t *bytes)
{
    sim_disk_lose_write(disk, offset, length, bytes);
    cache_settle_range(disk, wrong_offset, length);
    for (uint32_t at = 0; at < length; at += BLOCK_BYTES)
        cell_overlay(disk, wrong_offset + at, bytes + at);
}

void sim_disk_heal(struct sim_disk *disk)
{
    for (uint64_t i = 0; i < disk->cell_count && disk->damaged > 0; i++)
        cell_heal(disk, &disk->cells[i]);
    ASSERT(disk->damaged == 0);
}

bool sim_disk_written(const struct sim_disk *disk, uint64_t offset)
{
    const struct cell *c = cell_at(disk, offset);
    return c->now != NULL && c->now != &zeros;
}

void sim_disk_truncate(struct sim_disk *disk, uint64_t bytes)
{
    ASSERT(bytes % BLOCK_BYTES == 0 && bytes > 0 && bytes <= disk->shape.bytes);
    cache_settle_range(disk, 0, disk->shape.bytes);
    for (uint64_t i = bytes / BLOCK_BYTES; i < disk->cell_count; i++)
        cell_clear(disk, &disk->cells[i]);
    disk->cell_count = bytes / BLOCK_BYTES;
    disk->shape.bytes = bytes;
}
