/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the four superblock copies of a member: their encoding, loading the newest valid one, updating them.
 * Invariants: SUP-1: an update counts on a member when three copies are written and read back; copies are written one
 * after the other, so that a torn one never leaves fewer than three good ones. SUP-2: opening takes the newest valid
 * copy by (epoch, update). */
#include "mount.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

uint64_t superblock_offset(uint64_t member_bytes, uint32_t copy)
{
    ASSERT(copy < SUPERBLOCK_COPIES);
    uint64_t end = member_bytes / BLOCK_BYTES * BLOCK_BYTES;
    return copy < 2 ? copy * SUPERBLOCK_BYTES : end - (SUPERBLOCK_COPIES - copy) * SUPERBLOCK_BYTES;
}

void superblock_encode(const struct superblock *s, uint8_t bytes[SUPERBLOCK_BYTES])
{
    memset(bytes, 0, SUPERBLOCK_BYTES);
    struct superblock_disk *d = (void *)bytes; /* alignment 1 */
    memcpy(d->magic, SUPERBLOCK_MAGIC, 8);
    d->version = le32_of(FORMAT_VERSION);
    d->copy = le32_of(s->copy);
    memcpy(d->pool_uuid, s->pool.b, 16);
    memcpy(d->member_uuid, s->member.b, 16);
    d->member_number = le32_of(s->member_number);
    d->slot_count = le32_of(s->slot_count);
    d->slot_bytes = le64_of(s->slot_bytes);
    d->slots_offset = le64_of(s->slots_offset);
    d->member_bytes = le64_of(s->member_bytes);
    d->durable_by = le32_of((uint32_t)s->durable_by);
    d->copies = le32_of(s->copies);
    d->epoch = le64_of(s->epoch);
    d->update = le64_of(s->update);
    d->incarnation = le64_of(s->incarnation);
    d->clock_ms = le64_of(s->clock_ms);
    d->clean = le64_of(s->clean);
    d->table = segment_id_disk_of(s->table);
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        d->table_images[i].member = le16_of(s->table_images[i].member);
        d->table_images[i].slot = le32_of(s->table_images[i].slot);
    }
    d->scrub_pass = le64_of(s->scrub.pass);
    d->scrub_started_ms = le64_of(s->scrub.started_ms);
    d->scrub_completed_ms = le64_of(s->scrub.completed_ms);
    d->scrub_flags = le32_of((s->scrub.paused ? SCRUB_FLAG_PAUSED : 0u) | (s->scrub.running ? SCRUB_FLAG_RUNNING : 0u));
    d->retired_count = le32_of(s->retired_count);
    for (uint32_t i = 0; i < s->retired_count; i++)
        d->retired[i] = le32_of(s->retired[i]);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct superblock_member_disk *m = &d->members[i];
        if (!s->members[i].used)
            continue;
        memcpy(m->uuid, s->members[i].uuid.b, 16);
        memcpy(m->name, s->members[i].name, sizeof m->name);
        memcpy(m->domain, s->members[i].domain, sizeof m->domain);
        m->slot_count = le32_of(s->members[i].slot_count);
        m->removed = s->members[i].removed;
        m->in_sync = s->members[i].in_sync;
        m->plan = (uint8_t)s->members[i].plan;
        m->spare = s->members[i].spare;
        m->covered = s->members[i].covered;
        m->slow_count = s->members[i].slow_count;
        m->stays_out = s->members[i].stays_out;
        m->slow_minutes = le32_of(s->members[i].slow_minutes);
    }
    struct digest sum = digest_of(bytes + 24, SUPERBLOCK_BYTES - 24);
    d->digest = digest_disk_of(sum);
}

static void superblock_decode_members(const struct superblock_disk *d, struct superblock *s)
{
    static const uint8_t none[16];
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct superblock_member_disk *m = &d->members[i];
        if (memcmp(m->uuid, none, 16) == 0)
            continue;
        s->members[i].used = true;
        memcpy(s->members[i].uuid.b, m->uuid, 16);
        memcpy(s->members[i].name, m->name, sizeof m->name);
        s->members[i].name[sizeof m->name - 1] = '\0';
        memcpy(s->members[i].domain, m->domain, sizeof m->domain);
        s->members[i].domain[sizeof m->domain - 1] = '\0';
        s->members[i].slot_count = le32_get(m->slot_count);
        s->members[i].removed = m->removed != 0;
        s->members[i].in_sync = m->in_sync != 0;
        s->members[i].plan = m->plan <= PLAN_LEAVES ? (enum member_plan)m->plan : PLAN_STAYS;
        s->members[i].spare = m->spare != 0;
        s->members[i].covered = m->covered != 0;
        s->members[i].slow_count = m->slow_count;
        s->members[i].stays_out = m->stays_out != 0;
        s->members[i].slow_minutes = le32_get(m->slow_minutes);
    }
}

static bool superblock_sane(const struct superblock *s)
{
    uint64_t slots_end = s->slots_offset + (uint64_t)s->slot_count * s->slot_bytes;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (s->members[i].slot_count > SLOTS_PER_MEMBER_MAX)
            return false;
    if (s->retired_count > SLOTS_RETIRED_MAX)
        return false;
    for (uint32_t i = 0; i < s->retired_count; i++)
        if (s->retired[i] >= s->slot_count)
            return false;
    return s->member_number < MEMBERS_MAX && s->slot_count >= 1 && s->slot_count <= SLOTS_PER_MEMBER_MAX &&
           s->slot_bytes >= SEGMENT_BYTES_MIN && s->slot_bytes <= SEGMENT_BYTES_MAX &&
           s->slot_bytes % BLOCK_BYTES == 0 && s->slots_offset >= 2 * SUPERBLOCK_BYTES &&
           s->slots_offset % BLOCK_BYTES == 0 && s->slots_offset <= INT64_MAX && s->member_bytes <= INT64_MAX &&
           slots_end + 2 * SUPERBLOCK_BYTES <= s->member_bytes &&
           s->copies >= 1 && s->copies <= COPIES_MAX && s->members[s->member_number].used &&
           uuid_equal(s->members[s->member_number].uuid, s->member);
}

enum err superblock_decode(const uint8_t bytes[SUPERBLOCK_BYTES], struct superblock *s_out)
{
    struct superblock_disk d;
    memcpy(&d, bytes, sizeof d);
    if (memcmp(d.magic, SUPERBLOCK_MAGIC, 8) != 0)
        return ERR_NOT_FOUND;
    if (!digest_equal(digest_of(bytes + 24, SUPERBLOCK_BYTES - 24), digest_disk_get(d.digest)) &&
        !PLANTED(superblock_unchecked))
        return ERR_CORRUPT;
    if (le32_get(d.version) != FORMAT_VERSION || le64_get(d.features_incompat) != 0)
        return ERR_VERSION;
    struct superblock s = {
        .version = le32_get(d.version),
        .copy = le32_get(d.copy),
        .member_number = le32_get(d.member_number),
        .slot_count = le32_get(d.slot_count),
        .copies = le32_get(d.copies),
        .slot_bytes = le64_get(d.slot_bytes),
        .slots_offset = le64_get(d.slots_offset),
        .member_bytes = le64_get(d.member_bytes),
        .durable_by = le32_get(d.durable_by) == IO_DURABLE_DSYNC ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH,
        .epoch = le64_get(d.epoch),
        .update = le64_get(d.update),
        .incarnation = le64_get(d.incarnation),
        .clock_ms = le64_get(d.clock_ms),
        .clean = le64_get(d.clean) == 1,
        .table = segment_id_disk_get(d.table),
        .scrub = {.pass = le64_get(d.scrub_pass), .started_ms = le64_get(d.scrub_started_ms),
                  .completed_ms = le64_get(d.scrub_completed_ms),
                  .paused = (le32_get(d.scrub_flags) & SCRUB_FLAG_PAUSED) != 0,
                  .running = (le32_get(d.scrub_flags) & SCRUB_FLAG_RUNNING) != 0},
    };
    memcpy(s.pool.b, d.pool_uuid, 16);
    memcpy(s.member.b, d.member_uuid, 16);
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        s.table_images[i].member = le16_get(d.table_images[i].member);
        s.table_images[i].slot = le32_get(d.table_images[i].slot);
    }
    superblock_decode_members(&d, &s);
    s.retired_count = le32_get(d.retired_count);
    for (uint32_t i = 0; i < s.retired_count && i < SLOTS_RETIRED_MAX; i++)
        s.retired[i] = le32_get(d.retired[i]);
    if (!superblock_sane(&s))
        return ERR_CORRUPT;
    *s_out = s;
    return ERR_OK;
}

static bool superblock_newer(const struct superblock *a, const struct superblock *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->update > b->update;
}

enum err superblock_load(struct io *io, uint16_t target, struct superblock *s_out, uint32_t *good_mask_out)
{
    uint64_t bytes = io_target(io, target)->bytes;
    if (bytes < 4 * SUPERBLOCK_BYTES)
        return ERR_NOT_FOUND;
    uint8_t *memory = sync_buffer((size_t)SUPERBLOCK_COPIES * SUPERBLOCK_BYTES);
    if (!memory)
        return ERR_NO_MEMORY;
    struct sync_read reads[SUPERBLOCK_COPIES];
    for (uint32_t c = 0; c < SUPERBLOCK_COPIES; c++)
        reads[c] = (struct sync_read){.io = io, .target = target, .offset = superblock_offset(bytes, c),
                                      .length = SUPERBLOCK_BYTES, .buffer = memory + c * SUPERBLOCK_BYTES};
    sync_read_all(io, reads, SUPERBLOCK_COPIES);
    enum err e = ERR_NOT_FOUND;
    struct superblock best, s;
    uint32_t good = 0;
    for (uint32_t c = 0; c < SUPERBLOCK_COPIES; c++)
        if (reads[c].result == ERR_TIMEOUT || reads[c].result == ERR_NO_MEMORY) {
            enum err why = reads[c].result; /* a stuck member: its read is still out, nothing may be written there */
            free(memory);
            return why;
        }
    for (uint32_t c = 0; c < SUPERBLOCK_COPIES; c++) {
        enum err one = reads[c].result ? reads[c].result : superblock_decode(reads[c].buffer, &s);
        if (one == ERR_OK && s.copy != c)
            one = ERR_IDENTITY;
        if (one == ERR_OK && s.member_bytes > bytes)
            one = ERR_CORRUPT; /* a member that was cut off, or copied to a smaller disk */
        if (one != ERR_OK) {
            if (e != ERR_OK && one != ERR_NOT_FOUND)
                e = one;
            continue;
        }
        if (e != ERR_OK || superblock_newer(&s, &best)) {
            best = s;
            good = 0;
            e = ERR_OK;
        }
        if (s.epoch == best.epoch && s.update == best.update)
            good |= 1u << c;
    }
    free(memory);
    if (e == ERR_OK) {
        *s_out = best;
        *good_mask_out = good;
    }
    return e;
}

/* --- update: per member, copy after copy: write, read back, compare --- */

static void update_step(struct member_op *mo);

static uint8_t *update_buffer(struct pool *p, uint8_t member, bool readback)
{
    return p->super.memory + ((size_t)member * 2 + readback) * SUPERBLOCK_BYTES;
}

static void superblock_of_pool(struct pool *p, const struct member *m, uint32_t copy, struct superblock *s)
{
    *s = (struct superblock){
        .pool = p->uuid, .member = m->uuid, .copy = copy, .member_number = m->number, .slot_count = m->slot_count,
        .copies = p->config.copies, .slot_bytes = m->slot_bytes, .slots_offset = m->slots_offset,
        .member_bytes = m->member_bytes, .durable_by = m->durable_by, .epoch = p->epoch, .update = p->update,
        .incarnation = p->incarnation, .clock_ms = pool_clock_ms(p), .clean = p->clean_flag != 0, .table = p->table_id,
        .scrub = p->scrub_saved, .retired_count = m->retired_count,
    };
    memcpy(s->retired, m->retired, sizeof s->retired);
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        s->table_images[i].member = i < p->table_image_count ? p->table_images[i].member : UINT16_MAX;
        s->table_images[i].slot = i < p->table_image_count ? p->table_images[i].slot : 0;
    }
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *o = &p->members[i];
        if (!o->used)
            continue;
        s->members[i].used = true;
        s->members[i].uuid = o->uuid;
        memcpy(s->members[i].name, o->name, sizeof o->name);
        memcpy(s->members[i].domain, o->domain, sizeof o->domain);
        s->members[i].slot_count = o->slot_count;
        s->members[i].removed = o->removed || o->given_up;
        s->members[i].in_sync = o->in_sync;
        s->members[i].plan = o->plan;
        s->members[i].spare = o->spare;
        s->members[i].covered = o->covered;
        s->members[i].slow_count = o->slow_count < UINT8_MAX ? (uint8_t)o->slow_count : UINT8_MAX;
        s->members[i].stays_out = o->watch.stays_out;
        s->members[i].slow_minutes = o->slow_minutes;
    }
}

/* Whom the slowest members need not be waited for. */
static void update_named(struct pool *p)
{
    for (struct link *l = p->super.current.next; l != &p->super.current; l = l->next) {
        struct superblock_wait *w = CONTAINER_OF(l, struct superblock_wait, link);
        void (*named)(struct superblock_wait *w) = w->named;
        if (!named || (w->named_by & p->super.todo_mask))
            continue;
        w->named = NULL;
        named(w);
    }
}

static void update_end_member(struct pool *p, uint32_t bit)
{
    ASSERT(p->super.pending > 0);
    p->super.todo_mask &= ~bit;
    update_named(p);
    if (--p->super.pending > 0)
        return;
    p->super.running = false;
    struct link *l;
    while ((l = link_pop(&p->super.current)) != NULL) {
        struct superblock_wait *w = CONTAINER_OF(l, struct superblock_wait, link);
        w->done(w);
    }
    if (p->super.again && !p->super.running)
        superblock_update(p, NULL);
}

/* owner counts the steps: copy * 2 + (0: write is under way, 1: read back is under way) */
static void update_submit(struct member_op *mo, struct member *m, uintptr_t step)
{
    struct pool *p = m->pool;
    uint32_t copy = (uint32_t)(step / 2);
    bool readback = step & 1;
    if (!readback) {
        struct superblock s;
        superblock_of_pool(p, m, copy, &s);
        superblock_encode(&s, update_buffer(p, m->number, false));
    }
    mo->op = (struct io_op){.kind = readback ? IO_READ : IO_WRITE, .class = IO_CLASS_COMMIT, .durable = !readback,
                            .length = SUPERBLOCK_BYTES, .offset = superblock_offset(m->member_bytes, copy),
                            .buffer = update_buffer(p, m->number, readback)};
    mo->done = update_step;
    mo->owner = (void *)step;
    p->super.out_mask |= 1u << m->number;
    member_submit(m, mo);
}

static void update_step(struct member_op *mo)
{
    struct member *m = mo->member;
    struct pool *p = m->pool;
    uintptr_t step = (uintptr_t)mo->owner;
    bool readback = step & 1;
    uint32_t bit = 1u << m->number;
    p->super.out_mask &= ~bit;
    if (p->super.abandoned_mask & bit) {
        p->super.abandoned_mask &= ~bit;
        return;
    }
    bool bad = mo->op.result != ERR_OK ||
               (readback && memcmp(update_buffer(p, m->number, false), update_buffer(p, m->number, true),
                                   SUPERBLOCK_BYTES) != 0);
    if (bad)
        m->update_failures++;
    if (!member_kept(m) || m->update_failures > 1) {
        if (member_kept(m))
            member_leave(m, MEMBER_FAILED, "superblock could not be written in three copies");
        update_end_member(p, bit);
        return;
    }
    uintptr_t next = bad ? (step / 2 + 1) * 2 : step + 1;
    if (next >= SUPERBLOCK_COPIES * 2) {
        update_end_member(p, bit);
        return;
    }
    update_submit(mo, m, next);
}

void superblock_update(struct pool *p, struct superblock_wait *w)
{
    if (w)
        link_push(&p->super.waiters, &w->link);
    if (p->super.running) {
        p->super.again = true;
        return;
    }
    p->super.again = false;
    p->super.running = true;
    p->super.since_ns = io_now_ns(p->io);
    p->update++;
    struct link *l;
    while ((l = link_pop(&p->super.waiters)) != NULL)
        link_push(&p->super.current, l);
    p->super.pending = 1;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!member_kept(m) || (p->super.out_mask & (1u << i)))
            continue;
        m->in_sync = true;
    }
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!member_kept(m) || (p->super.out_mask & (1u << i)))
            continue;
        m->update_failures = 0;
        p->super.pending++;
        p->super.todo_mask |= 1u << i;
        if (scrub_reads_superblock(p, m)) /* two ops never overlap if one is a write */
            p->super.deferred_mask |= 1u << i;
        else
            update_submit(&p->super.ops[i], m, 0);
    }
    update_end_member(p, 0);
}

void superblock_read_back(struct pool *p, struct member *m)
{
    uint32_t bit = 1u << m->number;
    if (!(p->super.deferred_mask & bit))
        return;
    p->super.deferred_mask &= ~bit;
    if (member_kept(m))
        update_submit(&p->super.ops[m->number], m, 0);
    else
        update_end_member(p, bit);
}

/* Everybody else has it: one member that takes its time for each of the eight ops does not hold the table, and with it
 * mail, for longer than a stuck one would. */
static void superblock_leave_stragglers(struct pool *p)
{
    if (io_now_ns(p->io) - p->super.since_ns < p->config.degrade_after_ns)
        return;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!((p->super.out_mask | p->super.deferred_mask) & (1u << i)) || !member_kept(m) || !member_peers_answer(m))
            continue;
        watch_left_slow(m, "its superblocks take longer than degrade_after while other members are done");
    }
}

void superblock_step(struct pool *p)
{
    if (!p->super.running)
        return;
    superblock_leave_stragglers(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        uint32_t bit = 1u << i;
        if ((p->super.deferred_mask & bit) && !member_kept(&p->members[i])) {
            p->super.deferred_mask &= ~bit;
            update_end_member(p, bit);
            continue;
        }
        if (!(p->super.out_mask & bit) || (p->super.abandoned_mask & bit) || member_kept(&p->members[i]))
            continue;
        p->super.abandoned_mask |= bit; /* its buffer stays with the op until that comes back */
        update_end_member(p, bit);
    }
}
