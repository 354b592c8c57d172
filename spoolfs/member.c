/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: one member's life: state with evidence, error counters, latencies, and every op on it while it is under way.
 * Invariants: MEM-1: slot_busy counts the ops outstanding on a slot; a slot with any is not claimed (SEG-2).
 * MEM-2: a member that left does not come back before the next mount. A member that left for anything but absence
 * still serves reads, as the last resort. MEM-3: a slot with a write that a mount gave up on is not read. MEM-4: a flush proves
 * nothing about what was written before another flush, or the flush of a durable write, that failed: a drive may have dropped it and have
 * told only whoever asked first. Who relies on a flush looks whether any that was asked for before its answer has failed. */
#include "upkeep_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pool_event(struct pool *p, enum event_kind kind, struct member *m, const char *format, ...)
{
    char evidence[256];
    va_list args;
    va_start(args, format);
    vsnprintf(evidence, sizeof evidence, format, args);
    va_end(args);
    struct event e = {.kind = kind, .wall_ms = io_wall_ms(p->io), .member = m ? m->name : "",
                      .serial = m ? m->serial : "", .evidence = evidence};
    if (p->config.sink.emit)
        p->config.sink.emit(p->config.sink.owner, &e);
}

void member_set_state(struct member *m, enum member_state state, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(m->evidence, sizeof m->evidence, format, args);
    va_end(args);
    if (m->state == state && m->since_ms)
        return;
    enum member_state before = m->state;
    bool first = m->since_ms == 0;
    m->state = state;
    m->since_ms = io_wall_ms(m->pool->io);
    if (first && state == MEMBER_HEALTHY)
        return;
    pool_event(m->pool, EVENT_member_state, m, "%s -> %s: %s", first ? "unknown" : member_state_word(before),
               member_state_word(state), m->evidence);
}

bool member_usable(const struct member *m)
{
    return m->used && m->present && (m->state == MEMBER_HEALTHY || m->state == MEMBER_SUSPECT);
}

bool member_readable(const struct member *m)
{
    return m->used && m->present;
}

bool member_kept(const struct member *m)
{
    return member_usable(m) || (m->used && m->present && (m->state == MEMBER_SPARE || m->state == MEMBER_EVACUATING));
}

static uint32_t latency_bucket(uint64_t ns)
{
    uint64_t us = ns / 1000;
    if (us == 0)
        return 0;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(us);
    uint32_t quarter = log >= 2 ? (uint32_t)(us >> (log - 2)) & 3 : (uint32_t)(us << (2 - log)) & 3;
    uint32_t bucket = log * 4 + quarter;
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

void latency_note(struct latency *l, uint64_t ns)
{
    l->count[latency_bucket(ns)]++;
    l->total++;
}

uint64_t latency_percentile(const struct latency *l, uint32_t percent)
{
    uint64_t want = (l->total * percent + 99) / 100, seen = 0;
    if (l->total == 0)
        return 0;
    for (uint32_t b = 0; b < LATENCY_BUCKETS; b++) {
        seen += l->count[b];
        if (seen >= want && seen > 0)
            return ((UINT64_C(4) + (b & 3)) << (b / 4)) * 1000 / 4;
    }
    return UINT64_C(65) * NS_PER_S;
}

void member_leave(struct member *m, enum member_state state, const char *why)
{
    bool gone = state == MEMBER_ABSENT && m->present;
    if (!member_kept(m) && !gone)
        return;
    if (gone)
        m->present = false;
    m->in_sync = false;
    m->left_ns = io_now_ns(m->pool->io);
    member_set_state(m, state, "%s", why);
    pool_update_state(m->pool);
    commit_member_left(m->pool, m);
}

static void member_count_error(struct member *m, const struct io_op *op)
{
    if (op->result == ERR_TIMEOUT)
        m->errors_timeout++;
    else if (op->kind == IO_READ)
        m->errors_read++;
    else if (op->kind == IO_WRITE)
        m->errors_write++;
    else
        m->errors_flush++;
}

/* What an op's failure says about its member. */
static void member_judge(struct member *m, const struct io_op *op)
{
    char why[128];
    if (op->result == ERR_OK) {
        if (op->kind == IO_WRITE)
            m->write_errors_in_row = 0;
        return;
    }
    if (op->result == ERR_CANCELED)
        return;
    member_count_error(m, op);
    if (!member_kept(m) && op->result != ERR_MEMBER_GONE)
        return;
    if (op->result == ERR_MEMBER_GONE) {
        member_leave(m, MEMBER_ABSENT, "the device has vanished");
    } else if (op->kind == IO_FLUSH) {
        member_leave(m, MEMBER_FAILED, "a flush failed: nothing written before it can be trusted");
    } else if (op->kind == IO_WRITE) {
        m->write_errors_in_row++;
        snprintf(why, sizeof why, "%u writes in a row failed, the last: %s", m->write_errors_in_row,
                 err_text(op->result));
        if (m->write_errors_in_row >= MEMBER_WRITE_ERRORS_MAX || io_target(m->pool->io, m->target)->buffered)
            member_leave(m, MEMBER_FAILED, why);
        else if (member_usable(m)) {
            m->suspect_late = false;
            member_set_state(m, MEMBER_SUSPECT, "%s", why);
        }
    }
}

/* --- lateness --- */

static uint64_t member_oldest_commit_ns(const struct member *m)
{
    if (link_empty(&m->commits))
        return UINT64_MAX;
    return CONTAINER_OF(m->commits.next, struct member_op, out)->op.submitted_ns;
}

uint64_t member_commit_age(const struct member *m)
{
    uint64_t oldest = member_oldest_commit_ns(m), now = io_now_ns(m->pool->io);
    return oldest < now ? now - oldest : 0;
}

/* A steered member is known to be slow, and no mail waits for its probe: that it takes its time is no news, twice a second. */
static bool member_only_probe_is_late(const struct member *m)
{
    return m->watch.steered && m->probing && m->commits.next == &m->heartbeat->out;
}

bool member_late(const struct member *m)
{
    return member_commit_age(m) >= COMMIT_DEADLINE_NS;
}

/* When the others are late as well it is the load, the controller or the host: leaving would lose redundancy and win
 * nothing. */
bool member_peers_answer(const struct member *m)
{
    const struct pool *p = m->pool;
    uint32_t domains = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *o = &p->members[i];
        bool good = o != m && member_usable(o) && !member_late(o) && !members_share_domain(o, m);
        for (uint32_t j = 0; good && j < i; j++)
            good = !(&p->members[j] != m && member_usable(&p->members[j]) && !member_late(&p->members[j]) &&
                     members_share_domain(o, &p->members[j]));
        domains += good;
    }
    return domains >= p->config.min_copies && domains > 0;
}

/* --- heartbeat --- */

#define HEARTBEAT_OFFSET (2 * SUPERBLOCK_BYTES) /* between superblocks and slots: only probes write there */
#define HEARTBEAT_NS (5 * NS_PER_S) /* well within "a fail-slow disk within a minute" (P5) */

static void member_on_heartbeat(struct member_op *mo)
{
    (void)mo; /* member_judge has seen the result */
}

void member_probe(struct member *m, bool write, void (*done)(struct member_op *mo))
{
    ASSERT(!m->probing); /* the block and its op are free */
    m->watch.probe_ns = io_now_ns(m->pool->io);
    if (!m->heartbeat) {
        m->heartbeat = calloc(1, sizeof *m->heartbeat);
        m->heartbeat_block = sync_buffer(BLOCK_BYTES);
    }
    if (!m->heartbeat || !m->heartbeat_block)
        return;
    if (write)
        memset(m->heartbeat_block, 0, BLOCK_BYTES);
    *m->heartbeat = (struct member_op){.done = done};
    m->heartbeat->op = (struct io_op){.kind = write ? IO_WRITE : IO_READ, .durable = write, .length = BLOCK_BYTES,
                                      .class = write ? IO_CLASS_COMMIT : IO_CLASS_DELIVER,
                                      .buffer = m->heartbeat_block, .offset = HEARTBEAT_OFFSET};
    m->probing = true;
    member_submit(m, m->heartbeat);
}

static void member_heartbeat(struct member *m)
{
    if (m->ops == 0 && io_now_ns(m->pool->io) - m->heard_ns >= HEARTBEAT_NS)
        member_probe(m, false, member_on_heartbeat);
}

void member_fini(struct member *m)
{
    free(m->heartbeat);
    free(m->heartbeat_block);
    free(m->slot_owner);
    free(m->slot_busy);
    free(m->slot_writes);
}

void members_watch(struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX && !p->read_only; i++) {
        struct member *m = &p->members[i];
        if (!m->used || !m->present)
            continue;
        if (!p->stopping && p->mounted)
            member_heartbeat(m);
        if (!member_usable(m) || !member_late(m))
            continue;
        uint64_t age = member_commit_age(m);
        if (m->state == MEMBER_HEALTHY && !member_only_probe_is_late(m)) {
            m->errors_timeout++;
            m->suspect_late = true;
            member_set_state(m, MEMBER_SUSPECT, "a write is out for %llu ms", (unsigned long long)(age / NS_PER_MS));
        }
        if (age >= p->config.degrade_after_ns && member_peers_answer(m)) {
            watch_left_slow(m, "a write is not answered within degrade_after while other members answer");
        }
    }
    if (!p->read_only && p->mounted && !p->stopping)
        watch_step(p);
}

/* --- MEM-4 --- */

static void member_note_durable(struct member *m, struct member_op *mo)
{
    mo->durable_out = (struct link){0};
    if (mo->op.kind != IO_FLUSH && !(mo->op.kind == IO_WRITE && mo->op.durable))
        return;
    mo->durable_number = ++m->durable_asked;
    link_push(&m->durables, &mo->durable_out);
}

static void member_durable_answered(struct member *m, struct member_op *mo)
{
    if (!link_linked(&mo->durable_out))
        return;
    link_remove(&mo->durable_out);
    m->durable_failed += mo->op.result != ERR_OK;
}

bool member_durables_answered(const struct member *m, uint64_t number)
{
    return link_empty(&m->durables) ||
           CONTAINER_OF(m->durables.next, struct member_op, durable_out)->durable_number > number;
}

static void member_on_done(struct io_op *op)
{
    struct member_op *mo = op->owner;
    struct member *m = mo->member;
    ASSERT(m->ops > 0);
    m->ops--;
    m->probing = m->probing && mo != m->heartbeat;
    dispatch_answered(m, mo);
    m->heard_ns = op->done_ns;
    if (link_linked(&mo->out))
        link_remove(&mo->out);
    member_durable_answered(m, mo);
    if (mo->slot != UINT32_MAX) {
        ASSERT(m->slot_busy[mo->slot] > 0);
        m->slot_busy[mo->slot]--;
    }
    uint64_t ns = op->done_ns - op->submitted_ns;
    if (op->kind == IO_WRITE) {
        m->writes++;
        m->write_bytes += op->length;
        latency_note(&m->write_latency, ns);
        if (op->durable)
            m->flushes++;
    } else if (op->kind == IO_READ) {
        m->reads++;
        m->read_bytes += op->length;
        if (op->result == ERR_OK)
            m->refused_since_ns = 0;
        latency_note(&m->read_latency, ns);
    }
    if (mo->mail && op->result == ERR_OK)
        upkeep_note_mail(m, op);
    watch_answered(m, mo);
    member_judge(m, op);
    if (m->state == MEMBER_SUSPECT && m->suspect_late && !m->watch.by_health && op->kind == IO_WRITE && op->result == ERR_OK &&
        ns < COMMIT_DEADLINE_NS && !member_late(m))
        member_set_state(m, MEMBER_HEALTHY, "writes are answered in time again");
    mo->done(mo);
    dispatch_run(m);
}

void member_submit(struct member *m, struct member_op *mo)
{
    ASSERT(m->used);
    mo->member = m;
    mo->op.target = m->target;
    mo->op.owner = mo;
    mo->op.done = member_on_done;
    mo->slot = UINT32_MAX;
    if (mo->op.offset >= m->slots_offset) {
        uint64_t slot = (mo->op.offset - m->slots_offset) / m->slot_bytes;
        if (slot < m->slot_count) {
            mo->slot = (uint32_t)slot;
            ASSERT(m->slot_busy[slot] < UINT8_MAX);
            m->slot_busy[slot]++;
        }
    }
    m->ops++;
    mo->out = (struct link){0};
    if (mo->op.class == IO_CLASS_COMMIT)
        link_push(&m->commits, &mo->out);
    member_note_durable(m, mo);
    dispatch_submit(m, mo);
}

bool members_share_domain(const struct member *a, const struct member *b)
{
    bool counts = !a->pool->config.share_disk || a->domain_named || b->domain_named;
    return a == b || (counts && strcmp(a->domain, b->domain) == 0);
}

uint32_t pool_domains_usable(const struct pool *p)
{
    const struct member *first[MEMBERS_MAX]; /* of each domain */
    uint32_t count = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        bool fresh = member_usable(&p->members[i]);
        for (uint32_t j = 0; fresh && j < count; j++)
            fresh = !members_share_domain(&p->members[i], first[j]);
        if (fresh)
            first[count++] = &p->members[i];
    }
    return count;
}
