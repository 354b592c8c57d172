/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: formatting the members of a new pool through the io. Blocking. What may be formatted was decided by the caller
 * with probe.h; here geometry, failure domains and the first superblocks. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_OFFSET ((uint64_t)(64 * KIB)) /* behind two superblock copies, aligned for any device */
#define AUTO_SEGMENTS_PER_MEMBER 256u       /* DESIGN section 5, Space */

static char create_text[512];

static uint64_t create_auto_segment_bytes(const struct io *io, uint32_t count)
{
    uint64_t smallest = UINT64_MAX;
    for (uint16_t t = 0; t < count; t++) {
        uint64_t bytes = io->ops->target((struct io *)io, t)->bytes;
        smallest = bytes < smallest ? bytes : smallest;
    }
    uint64_t segment = smallest / AUTO_SEGMENTS_PER_MEMBER / (64 * KIB) * (64 * KIB);
    if (segment < SEGMENT_BYTES_MIN)
        segment = SEGMENT_BYTES_MIN;
    return segment > SEGMENT_BYTES_MAX ? SEGMENT_BYTES_MAX : segment;
}

static uint64_t create_slot_count(uint64_t member_bytes, uint64_t slot_bytes)
{
    uint64_t ends = SLOTS_OFFSET + 2 * SUPERBLOCK_BYTES + BLOCK_BYTES;
    return member_bytes > ends ? (member_bytes - ends) / slot_bytes : 0;
}

static enum err create_check_geometry(struct io *io, const struct pool_config *c, uint64_t slot_bytes)
{
    uint64_t total = 0;
    if (slot_bytes < SEGMENT_BYTES_MIN || slot_bytes > SEGMENT_BYTES_MAX || slot_bytes % BLOCK_BYTES) {
        snprintf(create_text, sizeof create_text, "segment size %llu is not a multiple of 4096 between %llu and %llu",
                 (unsigned long long)slot_bytes, (unsigned long long)SEGMENT_BYTES_MIN,
                 (unsigned long long)SEGMENT_BYTES_MAX);
        return ERR_INVALID;
    }
    for (uint16_t t = 0; t < c->member_count; t++) {
        const struct io_target *target = io_target(io, t);
        uint64_t slots = create_slot_count(target->bytes, slot_bytes);
        if (!target->present) {
            snprintf(create_text, sizeof create_text, "member \"%s\" (%s) is not there", c->members[t].name,
                     c->members[t].path);
            return ERR_MEMBER_GONE;
        }
        if (slots < SLOTS_PER_MEMBER_MIN || slots > SLOTS_PER_MEMBER_MAX) {
            snprintf(create_text, sizeof create_text,
                     "member \"%s\" has room for %llu segments of %llu bytes; between %u and %u are needed: change "
                     "--size or --segment-size",
                     c->members[t].name, (unsigned long long)slots, (unsigned long long)slot_bytes,
                     SLOTS_PER_MEMBER_MIN, SLOTS_PER_MEMBER_MAX);
            return ERR_INVALID;
        }
        total += slots;
    }
    if (total * sizeof(struct table_segment_disk) + 4 * FRAME_BYTES_MAX / 8 > slot_bytes) {
        snprintf(create_text, sizeof create_text, "%llu segments of %llu bytes are too many for one TABLE: raise --segment-size",
                 (unsigned long long)total, (unsigned long long)slot_bytes);
        return ERR_TOO_LARGE;
    }
    return ERR_OK;
}

static const char *create_domain(struct io *io, const struct pool_config *c, uint16_t t)
{
    return c->members[t].domain[0] ? c->members[t].domain : io_target(io, t)->domain;
}

static enum err create_check_domains(struct io *io, const struct pool_config *c)
{
    for (uint16_t a = 0; a < c->member_count && !c->share_disk; a++)
        for (uint16_t b = 0; b < a; b++)
            if (create_domain(io, c, a)[0] && strcmp(create_domain(io, c, a), create_domain(io, c, b)) == 0) {
                snprintf(create_text, sizeof create_text,
                         "members \"%s\" and \"%s\" share the failure domain %s: put them on different disks, or set "
                         "share_disk = yes for a demonstration",
                         c->members[b].name, c->members[a].name, create_domain(io, c, a));
                return ERR_SAME_DISK;
            }
    return ERR_OK;
}

static enum err create_zero(struct io *io, const struct pool_create_options *o, uint16_t t, uint64_t from, uint64_t to)
{
    uint8_t *zeros = sync_buffer(FRAME_BYTES_MAX);
    enum err e = zeros ? ERR_OK : ERR_NO_MEMORY;
    if (zeros)
        memset(zeros, 0, FRAME_BYTES_MAX);
    for (uint64_t at = from; at < to && e == ERR_OK; at += FRAME_BYTES_MAX) {
        uint64_t left = to - at;
        e = sync_write_one(io, t, at, zeros, left < FRAME_BYTES_MAX ? (uint32_t)left : FRAME_BYTES_MAX);
        if (o->progress)
            o->progress(o->progress_owner, t, at - from, to - from);
    }
    free(zeros);
    return e;
}

static void create_uuid(struct io *io, struct uuid *u)
{
    uint64_t half[2] = {io_random64(io), io_random64(io)};
    memcpy(u->b, half, 16);
    u->b[6] = (u->b[6] & 0x0f) | 0x40; /* version 4, variant 1: RFC 4122 */
    u->b[8] = (u->b[8] & 0x3f) | 0x80;
}

static enum err create_write_member(struct io *io, struct superblock *s, uint16_t t)
{
    uint8_t *bytes = sync_buffer(SUPERBLOCK_BYTES);
    enum err e = bytes ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES && e == ERR_OK; copy++) {
        s->copy = copy;
        superblock_encode(s, bytes);
        e = sync_write_one(io, t, superblock_offset(s->member_bytes, copy), bytes, SUPERBLOCK_BYTES);
    }
    free(bytes);
    struct superblock back;
    uint32_t good = 0;
    if (e == ERR_OK)
        e = superblock_load(io, t, &back, &good);
    if (e == ERR_OK && good != (1u << SUPERBLOCK_COPIES) - 1)
        e = ERR_CORRUPT;
    return e;
}

static void create_fill(struct io *io, const struct pool_config *c, const struct pool_create_options *o,
                        uint64_t slot_bytes, struct superblock *s)
{
    s->copies = c->copies;
    s->slot_bytes = slot_bytes;
    s->slots_offset = SLOTS_OFFSET;
    s->epoch = 1;
    s->update = 1;
    s->clock_ms = io_wall_ms(io);
    s->clean = true;
    create_uuid(io, &s->pool);
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        s->table_images[i].member = UINT16_MAX;
    for (uint16_t t = 0; t < c->member_count; t++) {
        create_uuid(io, &s->members[t].uuid);
        s->members[t].used = true;
        s->members[t].in_sync = true;
        s->members[t].slot_count = (uint32_t)create_slot_count(io_target(io, t)->bytes, slot_bytes);
        snprintf(s->members[t].name, sizeof s->members[t].name, "%s", c->members[t].name);
        snprintf(s->members[t].domain, sizeof s->members[t].domain, "%s", create_domain(io, c, t));
    }
    (void)o;
}

enum err pool_create(struct io *io, const struct pool_config *c, const struct pool_create_options *o,
                     struct uuid *pool_out, const char **text_out)
{
    *text_out = create_text;
    uint64_t slot_bytes = o->segment_bytes ? o->segment_bytes : create_auto_segment_bytes(io, c->member_count);
    enum err e = create_check_geometry(io, c, slot_bytes);
    if (e == ERR_OK)
        e = create_check_domains(io, c);
    if (e != ERR_OK)
        return e;
    struct superblock *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    create_fill(io, c, o, slot_bytes, s);
    for (uint16_t t = 0; t < c->member_count && e == ERR_OK; t++) {
        s->member = s->members[t].uuid;
        s->member_number = t;
        s->slot_count = s->members[t].slot_count;
        s->member_bytes = io_target(io, t)->bytes / BLOCK_BYTES * BLOCK_BYTES;
        s->durable_by = o->durable_by[t] == IO_DURABLE_DSYNC ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH;
        io->ops->target_set_durable_by(io, t, s->durable_by);
        /* first the ends: an earlier pool's superblocks must not survive an interrupted format */
        e = create_zero(io, o, t, 0, SLOTS_OFFSET);
        uint64_t tail = SLOTS_OFFSET + s->slot_count * slot_bytes;
        if (e == ERR_OK)
            e = o->zero[t] ? create_zero(io, o, t, SLOTS_OFFSET, s->member_bytes)
                           : create_zero(io, o, t, tail, s->member_bytes);
        if (e == ERR_OK)
            e = create_write_member(io, s, t);
        if (e != ERR_OK)
            snprintf(create_text, sizeof create_text, "member \"%s\" (%s): %s", c->members[t].name, c->members[t].path,
                     err_text(e));
    }
    if (e == ERR_OK)
        *pool_out = s->pool;
    free(s);
    return e;
}
