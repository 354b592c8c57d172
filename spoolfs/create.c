/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: formatting the members of a new pool through the io. Blocking. What may be formatted was decided by the caller
 * with probe.h; here geometry, failure domains and the first superblocks. */
#include "mount.h"
#include "upkeep_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_OFFSET ((uint64_t)(64 * KIB)) /* behind two superblock copies, aligned for any device */
#define AUTO_SEGMENTS_PER_MEMBER 256u       /* DESIGN section 5, Space */

static char create_text[512];

/* A whole TABLE of a pool with so many slots has room in one segment, and something can follow it. */
bool table_fits(uint64_t slots, uint64_t slot_bytes)
{
    return slots * sizeof(struct table_segment_disk) + 4 * FRAME_BYTES_MAX / 8 <= slot_bytes;
}

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

static enum err create_check_member(struct io *io, uint16_t t, const struct pool_member_config *c, uint64_t slot_bytes)
{
    const struct io_target *target = io_target(io, t);
    uint64_t slots = create_slot_count(target->bytes, slot_bytes);
    if (!target->present) {
        snprintf(create_text, sizeof create_text, "member \"%s\" (%s) is not there", c->name, c->path);
        return ERR_MEMBER_GONE;
    }
    if (slots < SLOTS_PER_MEMBER_MIN || slots > SLOTS_PER_MEMBER_MAX) {
        snprintf(create_text, sizeof create_text,
                 "member \"%s\" has room for %llu segments of %llu bytes; between %u and %u are needed: change --size or "
                 "--segment-size", c->name, (unsigned long long)slots, (unsigned long long)slot_bytes,
                 SLOTS_PER_MEMBER_MIN, SLOTS_PER_MEMBER_MAX);
        return ERR_INVALID;
    }
    return ERR_OK;
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
        enum err e = create_check_member(io, t, &c->members[t], slot_bytes);
        if (e != ERR_OK)
            return e;
        total += create_slot_count(io_target(io, t)->bytes, slot_bytes);
    }
    if (!table_fits(total, slot_bytes)) {
        snprintf(create_text, sizeof create_text, "%llu segments of %llu bytes are too many for one TABLE: raise --segment-size",
                 (unsigned long long)total, (unsigned long long)slot_bytes);
        return ERR_TOO_LARGE;
    }
    return ERR_OK;
}

static const char *create_domain(struct io *io, const struct pool_member_config *c, uint16_t t)
{
    return c->domain[0] ? c->domain : io_target(io, t)->domain;
}

/* Two disks of one shelf are two members in one failure domain; two members on one disk are a mistake. Where two members of one
 * domain lie on disks that are not known, they may be the same one. */
static bool create_on_one_disk(struct io *io, const struct pool_config *c, uint16_t a, uint16_t b)
{
    const char *domain = create_domain(io, &c->members[a], a);
    return domain[0] && strcmp(domain, create_domain(io, &c->members[b], b)) == 0 &&
           strcmp(io_target(io, a)->domain, io_target(io, b)->domain) == 0;
}

/* Where disks may be shared the disk below says nothing; a domain that was named does. */
static bool create_share_domain(struct io *io, const struct pool_config *c, uint16_t a, uint16_t b)
{
    const char *domain = create_domain(io, &c->members[a], a);
    bool counts = !c->share_disk || c->members[a].domain[0] || c->members[b].domain[0];
    return counts && domain[0] && strcmp(domain, create_domain(io, &c->members[b], b)) == 0;
}

/* Members that hold mail, and the domains they lie in. */
static void create_count_domains(struct io *io, const struct pool_config *c, uint32_t *members_out, uint32_t *domains_out)
{
    *members_out = *domains_out = 0;
    for (uint16_t a = 0; a < c->member_count; a++) {
        bool first = !c->members[a].spare;
        *members_out += !c->members[a].spare;
        for (uint16_t b = 0; first && b < a; b++)
            first = c->members[b].spare || !create_share_domain(io, c, a, b);
        *domains_out += first;
    }
}

static enum err create_check_domains(struct io *io, const struct pool_config *c)
{
    uint32_t members, domains;
    for (uint16_t a = 0; a < c->member_count && !c->share_disk; a++)
        for (uint16_t b = 0; b < a; b++)
            if (create_on_one_disk(io, c, a, b)) {
                snprintf(create_text, sizeof create_text,
                         "members \"%s\" and \"%s\" lie on one disk (%s): put them on different disks, or set "
                         "share_disk = yes for a demonstration", c->members[b].name, c->members[a].name,
                         io_target(io, a)->domain);
                return ERR_SAME_DISK;
            }
    create_count_domains(io, c, &members, &domains);
    if (domains < c->copies && members >= c->copies) {
        snprintf(create_text, sizeof create_text,
                 "%u members lie in %u failure domain%s, and each of %u copies needs one of its own: put members into others, or "
                 "name their failure_domain as it is%s", members, domains, domains == 1 ? "" : "s", c->copies,
                 c->share_disk ? " (share_disk = yes makes a domain of each member that names none, and of no other)" : "");
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

static void create_base(struct io *io, uint64_t slot_bytes, struct superblock *s)
{
    s->slot_bytes = slot_bytes;
    s->slots_offset = SLOTS_OFFSET;
    s->epoch = 1;
    s->update = 1;
    s->clock_ms = io_wall_ms(io);
    s->clean = true;
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        s->table_images[i].member = UINT16_MAX;
}

static void create_entry(struct io *io, uint16_t t, const struct pool_member_config *c, struct superblock *s, uint32_t number)
{
    create_uuid(io, &s->members[number].uuid);
    s->members[number].used = true;
    s->members[number].in_sync = true;
    s->members[number].spare = c->spare;
    s->members[number].slot_count = (uint32_t)create_slot_count(io_target(io, t)->bytes, s->slot_bytes);
    snprintf(s->members[number].name, sizeof s->members[number].name, "%s", c->name);
    snprintf(s->members[number].domain, sizeof s->members[number].domain, "%s", create_domain(io, c, t));
}

static void create_fill(struct io *io, const struct pool_config *c, uint64_t slot_bytes, struct superblock *s)
{
    s->copies = c->copies;
    create_base(io, slot_bytes, s);
    create_uuid(io, &s->pool);
    for (uint16_t t = 0; t < c->member_count; t++)
        create_entry(io, t, &c->members[t], s, t);
}

/* First the ends: an earlier pool's superblocks must not survive an interrupted format. The superblocks come last. */
static enum err create_member(struct io *io, struct superblock *s, const struct pool_create_options *o, uint16_t t,
                              const struct pool_member_config *c)
{
    s->member_bytes = io_target(io, t)->bytes / BLOCK_BYTES * BLOCK_BYTES;
    s->durable_by = o->durable_by[t] == IO_DURABLE_DSYNC ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH;
    io->ops->target_set_durable_by(io, t, s->durable_by);
    enum err e = create_zero(io, o, t, 0, SLOTS_OFFSET);
    uint64_t tail = SLOTS_OFFSET + s->slot_count * s->slot_bytes;
    if (e == ERR_OK)
        e = o->zero[t] ? create_zero(io, o, t, SLOTS_OFFSET, s->member_bytes) : create_zero(io, o, t, tail, s->member_bytes);
    if (e == ERR_OK)
        e = create_write_member(io, s, t);
    if (e != ERR_OK)
        snprintf(create_text, sizeof create_text, "member \"%s\" (%s): %s", c->name, c->path, err_text(e));
    return e;
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
    create_fill(io, c, slot_bytes, s);
    for (uint16_t t = 0; t < c->member_count && e == ERR_OK; t++) {
        s->member = s->members[t].uuid;
        s->member_number = t;
        s->slot_count = s->members[t].slot_count;
        e = create_member(io, s, o, t, &c->members[t]);
    }
    if (e == ERR_OK)
        *pool_out = s->pool;
    free(s);
    return e;
}

enum err pool_format_candidate(struct io *io, uint16_t target, const struct pool_candidate *c,
                               const struct pool_create_options *o, const char **text_out)
{
    static const struct uuid none;
    *text_out = create_text;
    enum err e = create_check_member(io, target, &c->member, c->segment_bytes);
    if (e != ERR_OK)
        return e;
    struct superblock *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    s->copies = c->copies;
    create_base(io, c->segment_bytes, s);
    s->epoch = s->update = 0;
    s->pool = c->pool;
    create_entry(io, target, &c->member, s, 0);
    s->member = s->members[0].uuid;
    s->slot_count = s->members[0].slot_count;
    if (!uuid_equal(c->replaces, none)) {
        s->members[1].used = true;
        s->members[1].uuid = c->replaces;
        s->members[1].plan = PLAN_LEAVES;
    }
    e = create_member(io, s, o, target, &c->member);
    free(s);
    return e;
}

enum err pool_probe_member(struct io *io, uint16_t target, struct uuid *pool_out, bool *candidate_out)
{
    struct superblock *s = calloc(1, sizeof *s);
    uint32_t good;
    enum err e = s ? superblock_load(io, target, s, &good) : ERR_NO_MEMORY;
    if (e == ERR_OK) {
        *pool_out = s->pool;
        *candidate_out = roster_is_candidate(s);
    }
    free(s);
    return e;
}
