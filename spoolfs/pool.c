/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: mount, step, unmount of a pool, and its clock. Mounting reads superblocks, the table and the tails (recover.c),
 * then makes a new incarnation durable before anything is appended (POOL-1). */
#include "compact.h"
#include "images.h"
#include "mount.h"
#include "table.h"
#include "upkeep_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TICK_NS (100 * NS_PER_MS)      /* retries and queries that nothing else wakes */
#define CLOCK_STEP_MAX_MS UINT64_C(3600000) /* DESIGN section 7: at most an hour at mount */
#define UNMOUNT_PATIENCE_NS (8 * NS_PER_S)
#define END_PATIENCE_NS (35 * NS_PER_S) /* the kernel gives up on a command after 30 s */
#define MOUNT_PATIENCE_NS (10 * NS_PER_S)

uint64_t pool_clock_ms(struct pool *p)
{
    return p->clock_base_ms + (io_now_ns(p->io) - p->clock_base_ns) / NS_PER_MS;
}

static void pool_start_clock(struct pool *p, uint64_t last_ms)
{
    uint64_t wall = io_wall_ms(p->io);
    uint64_t last = p->clock_base_ms > last_ms ? p->clock_base_ms : last_ms;
    if (last == 0)
        last = wall;
    p->clock_base_ms = wall < last ? last : wall > last + CLOCK_STEP_MAX_MS ? last + CLOCK_STEP_MAX_MS : wall;
    p->clock_base_ns = io_now_ns(p->io);
}

static void pool_on_tick(struct io_timer *t)
{
    struct pool *p = t->owner;
    io_timer_set(p->io, t, io_now_ns(p->io) + TICK_NS);
}

static void pool_free(struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        member_fini(&p->members[i]);
    for (uint32_t i = 0; i < p->segment_used; i++) {
        free(p->segments[i].deps);
        segment_opening_fini(&p->segments[i]);
    }
    segment_forget_discards(p);
    table_fini(p);
    walk_forget_orphans(p);
    if (p->frame_memory)
        munmap(p->frame_memory, (size_t)FRAME_SLOTS * FRAME_BYTES_MAX);
    lease_fini(p);
    free(p->segments);
    free(p->segment_hash);
    free(p->incarnations);
    free(p->superblocks);
    free(p->super.memory);
    free(p);
}

#define HUGE_PAGE_BYTES ((size_t)(2 * MIB))

/* In huge pages where there are some: a frame of 1 MiB then is one piece for the device instead of 256 pages, which have to
 * be pinned one by one and are more than many devices take at once; the kernel would hand such writes to a worker. */
static uint8_t *frame_memory_make(void)
{
    size_t bytes = (size_t)FRAME_SLOTS * FRAME_BYTES_MAX;
    uint8_t *map = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE_BYTES - (uintptr_t)map % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (before)
        munmap(map, before);
    munmap(map + before + bytes, HUGE_PAGE_BYTES - before);
    (void)madvise(map + before, bytes, MADV_HUGEPAGE); /* refused: small pages do */
    return map + before;
}

static enum err pool_alloc(struct io *io, const struct pool_config *config, struct pool **pool_out)
{
    struct pool *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NO_MEMORY;
    p->io = io;
    p->config = *config;
    p->read_only = config->read_only;
    link_init(&p->super.waiters);
    link_init(&p->super.current);
    link_init(&p->table_queue);
    link_init(&p->reads_waiting);
    link_init(&p->walk_orphans);
    link_init(&p->frame_orphans);
    link_init(&p->rebuild_orphans);
    link_init(&p->repairs);
    link_init(&p->discards);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        link_init(&p->members[i].commits);
        link_init(&p->members[i].durables);
        dispatch_init(&p->members[i].dispatch);
    }
    io_timer_init(&p->tick, pool_on_tick, p);
    p->incarnations = calloc(INCARNATIONS_MAX, sizeof *p->incarnations);
    p->super.memory = sync_buffer((size_t)MEMBERS_MAX * 2 * SUPERBLOCK_BYTES);
    p->frame_memory = frame_memory_make(); /* touched only as far as frames grow */
    if (!p->incarnations || !p->super.memory || !p->frame_memory || lease_init(p) != ERR_OK) {
        pool_free(p);
        return ERR_NO_MEMORY;
    }
    commit_init(p);
    *pool_out = p;
    return ERR_OK;
}

enum err pool_alloc_slots(struct pool *p)
{
    uint64_t slots = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!m->used)
            continue;
        m->slot_owner = calloc(m->slot_count, sizeof *m->slot_owner);
        m->slot_busy = calloc(m->slot_count, 1);
        m->slot_writes = calloc(m->slot_count, 1);
        m->slots_free = m->slot_count;
        slots += m->slot_count;
        if (!m->slot_owner || !m->slot_busy || !m->slot_writes)
            return ERR_NO_MEMORY;
    }
    p->segment_capacity = (uint32_t)slots;
    uint32_t buckets = 64;
    while (buckets < slots)
        buckets *= 2;
    p->segment_hash_mask = buckets - 1;
    p->segment_hash = calloc(buckets, sizeof *p->segment_hash);
    p->segments = calloc(slots, sizeof *p->segments);
    return p->segment_hash && p->segments ? ERR_OK : ERR_NO_MEMORY;
}

/* Open segments take slots: the smallest members get one for CHUNKs, larger ones more. */
static uint32_t pool_bulk_appenders(const struct pool *p)
{
    uint32_t bulk = APPENDERS_BULK_MAX;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used && p->members[i].slot_count / SLOTS_PER_MEMBER_MIN < bulk)
            bulk = p->members[i].slot_count / SLOTS_PER_MEMBER_MIN;
    return bulk;
}

static void pool_init_appenders(struct pool *p)
{
    uint32_t mail = pool_domains_usable(p) / p->config.copies, bulk = pool_bulk_appenders(p);
    mail = mail < 1 ? 1 : mail > SEGMENTS_OPEN_MAX ? SEGMENTS_OPEN_MAX : mail;
    bulk = bulk < SEGMENTS_OPEN_MAX - mail ? bulk : SEGMENTS_OPEN_MAX - mail;
    p->appender_count = 1 + mail + bulk + 1;
    for (uint32_t i = 0; i < p->appender_count; i++) {
        bool moves = i == p->appender_count - 1;
        p->appenders[i] = (struct appender){.pool = p, .number = (uint8_t)i, .used = true, .bulk = i > mail && !moves,
                                            .moves = moves, .kind = i == APPENDER_TABLE ? SEGMENT_TABLE : SEGMENT_MAIL};
    }
}

/* Sequences of this mount are higher than all that any mount before gave out, although the frames at hand do not name the
 * highest: several are filled side by side, and some may lie on members that are away. More than one mount writes. */
#define SEQUENCE_STEP (UINT64_C(1) << 32)

/* POOL-1: the incarnation is in the superblocks, together with a new TABLE, before the first append. */
static enum err pool_begin_incarnation(struct pool *p, const struct superblock *newest)
{
    do {
        p->incarnation = io_random64(p->io);
    } while (p->incarnation == 0 || table_incarnation(p, p->incarnation));
    p->epoch = newest->epoch + 1;
    p->update = newest->update;
    p->next_sequence += SEQUENCE_STEP;
    enum err e = table_note_incarnation(p, p->incarnation, 0);
    if (e != ERR_OK)
        return e;
    pool_init_appenders(p);
    uint64_t until = io_now_ns(p->io) + MOUNT_PATIENCE_NS;
    while (!p->appenders[APPENDER_TABLE].segment) {
        if (pool_domains_usable(p) < p->config.min_copies)
            return ERR_BELOW_POLICY;
        if (io_now_ns(p->io) > until)
            return ERR_TIMEOUT;
        enum err why;
        if (!p->table_rewriting && !placement_possible(p, SPOOL_TABLE, 0, &why))
            return why;
        table_rewrite(p);
        io_turn(p->io, 20 * NS_PER_MS);
        members_watch(p);
        superblock_step(p);
        table_step(p);
    }
    return ERR_OK;
}

/* While the members present are no majority and a missing one was in sync when last seen, it may have gone on alone
 * and hold newer RETIREs: older mail waits for it. */
static void pool_plan_absent_wait(struct pool *p)
{
    uint32_t present = 0, in_sync_missing = 0, all = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (!m->used || m->removed || m->joined)
            continue; /* what has just joined holds nothing and proves nothing */
        all++;
        present += m->present;
        in_sync_missing += !m->present && m->was_in_sync;
    }
    if (in_sync_missing == 0 || present * 2 > all)
        return;
    p->absent_wait_until_ns = io_now_ns(p->io) + p->config.absent_wait_ns;
    p->due_after_ms = pool_clock_ms(p);
    pool_event(p, EVENT_absent_wait, NULL, "%u of %u members are here; mail from before this mount waits %llu s",
               present, all, (unsigned long long)(p->config.absent_wait_ns / NS_PER_S));
}

static enum err pool_mount_steps(struct pool *p, const char **text_out)
{
    struct superblock newest;
    *text_out = "no member has a valid superblock of a pool: run `spooltool pool create`, or check the members' paths";
    enum err e = recover_superblocks(p, &newest);
    if (e != ERR_OK)
        return e;
    p->scrub_saved = newest.scrub;
    *text_out = "fewer failure domains than min_copies are here: bring a missing member back (spooltool members)";
    if (!p->read_only && pool_domains_usable(p) < p->config.min_copies)
        return ERR_BELOW_POLICY;
    *text_out = "not enough memory for the pool's tables";
    if ((e = pool_alloc_slots(p)) != ERR_OK)
        return e;
    *text_out = "the segment table could not be read or rebuilt";
    if ((e = recover_table(p, &newest)) != ERR_OK || (e = recover_tails(p)) != ERR_OK)
        return e;
    p->table_partial = p->table_partial && members_away(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].slot_owner)
            slots_stay_retired(&p->members[i]);
    p->clean_start = newest.clean;
    pool_start_clock(p, newest.clock_ms);
    if ((e = read_init(p)) != ERR_OK)
        return e;
    if (p->read_only) {
        p->epoch = newest.epoch;
        p->incarnation = newest.incarnation;
    } else {
        *text_out = "the new incarnation could not be made durable (no free slot, no memory, or members fail)";
        if ((e = pool_begin_incarnation(p, &newest)) != ERR_OK)
            return e;
        pool_plan_absent_wait(p);
    }
    *text_out = "the index could not be opened (state_directory)";
    return replay_open(p, p->index_discard);
}

static void pool_end(struct pool **pool);

enum err pool_mount(struct io *io, const struct pool_config *config, struct pool **pool_out, const char **text_out)
{
    struct pool *p;
    *text_out = "not enough memory";
    enum err e = pool_alloc(io, config, &p);
    if (e != ERR_OK)
        return e;
    e = pool_mount_steps(p, text_out);
    if (e != ERR_OK) {
        if (e == ERR_NO_MEMORY)
            *text_out = "not enough memory to mount: nothing was given up, mount again with more";
        p->stopping = true;
        pool_end(&p);
        return e;
    }
    p->mounted = true;
    io_timer_set(io, &p->tick, io_now_ns(io) + TICK_NS);
    pool_update_state(p);
    pool_event(p, EVENT_pool_mounted, NULL, "epoch %llu, %u segments, %s stop before", (unsigned long long)p->epoch,
               p->segment_count, p->clean_start ? "clean" : "unclean");
    pool_step(p);
    *text_out = "";
    *pool_out = p;
    return ERR_OK;
}

void pool_step(struct pool *p)
{
    if (p->index)
        index_dispatch(p->index);
    if (p->absent_wait_until_ns && io_now_ns(p->io) >= p->absent_wait_until_ns) {
        p->absent_wait_until_ns = 0;
        p->due_after_ms = 0;
    }
    members_watch(p);
    superblock_step(p);
    lease_step(p);
    replay_step(p);
    if (!p->read_only) {
        retire_step(p);
        compact_step(p);
    }
    upkeep_step(p);
    read_step(p);
    repair_step(p);
    table_step(p);
    commit_step(p);
    if (!link_empty(&p->table_queue)) {
        table_step(p);
        commit_step(p);
    }
}

/* --- stop --- */

static void pool_clear_timers(struct pool *p);

static uint32_t pool_ops(const struct pool *p)
{
    uint32_t ops = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        ops += p->members[i].ops;
    return ops;
}

/* IO-5: what is outstanding on a stuck member keeps its memory. The process is about to end, or mounts again later;
 * a leak is the price of a disk that does not answer. */
static void pool_end(struct pool **pool)
{
    struct pool *p = *pool;
    uint64_t until = io_now_ns(p->io) + END_PATIENCE_NS;
    while (pool_ops(p) > 0 && io_now_ns(p->io) < until)
        io_turn(p->io, 10 * NS_PER_MS);
    if (pool_ops(p) == 0) {
        pool_abandon(pool);
        return;
    }
    pool_clear_timers(p);
    if (p->index)
        index_close(&p->index);
    *pool = NULL;
}

static bool pool_quiet(const struct pool *p)
{
    return pool_ops(p) == 0 && commit_idle(p) && !table_busy(p) && upkeep_idle(p) && compact_idle(p);
}

static void pool_turn_until_quiet(struct pool *p, uint64_t until)
{
    while (!pool_quiet(p) && io_now_ns(p->io) < until) {
        io_turn(p->io, 10 * NS_PER_MS);
        pool_step(p);
    }
}

static void pool_close_segments(struct pool *p)
{
    for (uint32_t i = 1; i < p->appender_count; i++) {
        struct appender *a = &p->appenders[i];
        if (a->segment)
            commit_close_segment(a);
        if (a->next && a->next->state == SEGMENT_OPEN) {
            a->segment = a->next;
            a->next = NULL;
            commit_close_segment(a);
        }
    }
}

void pool_unmount(struct pool **pool)
{
    struct pool *p = *pool;
    if (!p)
        return;
    uint64_t until = io_now_ns(p->io) + UNMOUNT_PATIENCE_NS;
    compact_stop(p);
    replay_stop(p);
    p->stopping = true;
    if (!p->read_only) {
        pool_turn_until_quiet(p, until);
        pool_close_segments(p);
        pool_turn_until_quiet(p, until);
        p->clean_flag = 1;
        superblock_update(p, NULL);
    }
    pool_turn_until_quiet(p, until);
    pool_end(pool);
}

static void pool_clear_timers(struct pool *p)
{
    io_timer_clear(p->io, &p->tick);
    for (uint32_t i = 0; i < FRAME_SLOTS; i++)
        if (p->frames[i].appender && p->frames[i].deadline.fire)
            io_timer_clear(p->io, &p->frames[i].deadline);
    read_clear_timers(p);
}

void pool_abandon(struct pool **pool)
{
    struct pool *p = *pool;
    *pool = NULL;
    if (!p)
        return;
    pool_clear_timers(p);
    if (p->index)
        index_close(&p->index); /* first: it holds queries of the others */
    if (p->replay_walking)
        walk_fini(&p->replay_walk);
    compact_fini(p);
    upkeep_fini(p);
    read_fini(p);
    repair_fini(p);
    retire_fini(p);
    pool_free(p);
}
