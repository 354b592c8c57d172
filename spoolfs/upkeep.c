/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the share of each member background work gets, and the door upkeep.h. Rebuild takes tokens before scrub does:
 * redundancy comes before evidence. */
#include "compact.h"
#include "upkeep_parts.h"

#include <spoolfs/upkeep.h>
#include <string.h>

/* Bytes a second while one image is left: 2 GiB of live mail are whole again in four minutes under full load. */
#define REBUILD_FLOOR (UINT64_C(8) << 20)
#define SCRUB_FLOOR_MIN (UINT64_C(64) << 10)   /* a nearly empty pool is verified as well */
#define COMPACT_FLOOR (UINT64_C(1) << 20)
#define SCRUB_INTERVAL_DEFAULT_S UINT64_C(86400)
#define REBUILD_TOLERANCE_PERCENT 25u          /* DESIGN P3 */
#define SCRUB_TOLERANCE_PERCENT 10u
#define ARM_SHARE_PERCENT 40u                  /* of an arm's time, beyond the floors; mail has 60: mClock's high_client */
#define UPKEEP_WANTS_NS (200 * NS_PER_MS)      /* a class that asked within this time still has work */
/* Intervals for which a floor is kept for a class that has work: it asks several members at a time, reads a window at once and pays for
 * it over the next intervals, so that what one member has waits for another. */
#define UPKEEP_SAVED_INTERVALS 10
/* What does not ask before it works (repairs, the replay of the index) leaves no longer debt than this. */
#define UPKEEP_DEBT_MAX ((int64_t)(4 * FRAME_BYTES_MAX))

const char *upkeep_state_word(enum upkeep_state s)
{
    return s == UPKEEP_RUNNING ? "running" : s == UPKEEP_PAUSED ? "paused" : "idle";
}

/* --- asking and paying --- */

static bool upkeep_better_wants(const struct upkeep_share *h, enum io_class class, uint64_t now)
{
    for (enum io_class c = IO_CLASS_REPAIR; c < class; c++)
        if (h->asked_ns[c] && now - h->asked_ns[c] < UPKEEP_WANTS_NS)
            return true;
    return false;
}

bool upkeep_may(struct pool *p, uint32_t members_mask, enum io_class class)
{
    ASSERT(io_class_is_background(class));
    uint64_t now = io_now_ns(p->io);
    bool may = true;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct upkeep_share *h = &p->members[i].share;
        if (!(members_mask & (1u << i)) || !p->members[i].present)
            continue;
        h->asked_ns[class] = now;
        int64_t waits = (int64_t)p->members[i].dispatch.waiting_bytes; /* charged when it starts */
        may = may && !h->throttle.resting &&
              (h->own[class] > waits || (h->tokens > waits && !upkeep_better_wants(h, class, now)));
    }
    return may;
}

static void upkeep_pay(int64_t *purse, uint64_t bytes)
{
    *purse -= (int64_t)bytes;
    if (*purse < -UPKEEP_DEBT_MAX)
        *purse = -UPKEEP_DEBT_MAX;
}

void upkeep_charge(struct member *m, const struct io_op *op)
{
    uint64_t bytes = io_op_cost(op);
    upkeep_pay(&m->share.tokens, bytes);
    upkeep_pay(&m->share.own[op->class], bytes);
    m->share.sample.bytes += bytes;
}

/* --- what the controllers see --- */

void upkeep_note_mail(struct member *m, const struct io_op *op)
{
    uint64_t ns = op->done_ns - op->submitted_ns;
    struct throttle_sample *s = &m->share.sample;
    enum throttle_mail k = op->kind == IO_WRITE ? THROTTLE_COMMIT : THROTTLE_DELIVER;
    s->mail[k].ops++;
    s->mail[k].sum_ns += ns;
    s->mail[k].worst_ns = ns > s->mail[k].worst_ns ? ns : s->mail[k].worst_ns;
}

void upkeep_note_busy(struct member *m, bool busy)
{
    uint64_t now = io_now_ns(m->pool->io);
    if (busy)
        m->share.busy_since_ns = now;
    else
        m->share.sample.busy_ns += now - m->share.busy_since_ns;
    m->share.sample.disturbed = true;
}

/* --- floors and grants --- */

/* Bytes a second so that redundancy is whole at its deadline: DESIGN section 6. */
static uint64_t upkeep_deadline_rate(struct pool *p)
{
    struct upkeep_status s;
    if (rebuild_idle(p))
        return 0;
    upkeep_status(p, &s);
    return s.rebuild.bytes_remaining / rebuild_seconds_left(p);
}

static bool upkeep_has_arm(const struct member *m)
{
    return m->present && io_target(m->pool->io, m->target)->rotational;
}

/* Rising as redundancy falls. An arm pays for each window with seeks: half there, but not less than a twentieth of its time, which is
 * what the least floor takes of it. */
static uint64_t upkeep_rebuild_floor(const struct member *m, uint64_t deadline_rate)
{
    uint32_t left = rebuild_images_left(m->pool);
    uint64_t floor = left >= 2 ? REBUILD_FLOOR / 2 : REBUILD_FLOOR;
    floor = upkeep_has_arm(m) ? floor / 2 : floor;
    floor = left >= m->pool->config.copies ? REBUILD_FLOOR / 4 : floor;
    return deadline_rate > floor ? deadline_rate : floor;
}

/* What one pass per interval needs of this member. */
static uint64_t upkeep_scrub_floor(const struct member *m)
{
    uint64_t interval = m->pool->config.scrub_interval_ns / NS_PER_S;
    uint64_t used = (uint64_t)(m->slot_count - m->slots_free) * m->slot_bytes;
    uint64_t floor = used / (interval ? interval : SCRUB_INTERVAL_DEFAULT_S) + 1;
    return floor > SCRUB_FLOOR_MIN ? floor : SCRUB_FLOOR_MIN;
}

static void upkeep_floors(struct pool *p)
{
    uint64_t now = io_now_ns(p->io);
    if (now < p->upkeep_floors_ns)
        return;
    p->upkeep_floors_ns = now + NS_PER_S;
    uint64_t deadline_rate = upkeep_deadline_rate(p);
    uint32_t need = compact_need(p); /* the shorter slots are, the more: mail without room is worse than mail that waits */
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!m->used)
            continue;
        m->share.floor[IO_CLASS_REBUILD] = upkeep_rebuild_floor(m, deadline_rate);
        m->share.floor[IO_CLASS_EVACUATE] = REBUILD_FLOOR / 4;
        m->share.floor[IO_CLASS_SCRUB] = upkeep_scrub_floor(m);
        m->share.floor[IO_CLASS_COMPACT] = COMPACT_FLOOR << (upkeep_has_arm(m) ? need : need ? 2 * need + 1 : 0);
        m->share.floor[IO_CLASS_BACKUP] = COMPACT_FLOOR;
    }
}

/* What was not taken of the grant is not saved up, of a floor for a moment; what was taken beyond it is owed, so that a large window at
 * a low floor does not become a high floor. */
static void upkeep_fill(int64_t *purse, uint64_t grant, int64_t saved)
{
    *purse = (*purse < saved ? *purse : saved) + (int64_t)grant;
}

static void upkeep_fill_own(struct upkeep_share *h, enum io_class c, bool wants)
{
    uint64_t grant = h->floor[c] * THROTTLE_INTERVAL_MS / 1000 * THROTTLE_CYCLE / (THROTTLE_CYCLE - THROTTLE_REST);
    int64_t saved = wants ? (int64_t)grant * UPKEEP_SAVED_INTERVALS : 0;
    upkeep_fill(&h->own[c], h->throttle.resting ? 0 : grant, saved);
}

static void upkeep_grant_member(struct member *m, uint64_t now)
{
    struct upkeep_share *h = &m->share;
    struct throttle_need need = {.tolerance_percent = SCRUB_TOLERANCE_PERCENT,
                                 .share_percent = upkeep_has_arm(m) ? ARM_SHARE_PERCENT : 100};
    for (enum io_class c = IO_CLASS_REPAIR; c < IO_CLASS_COUNT; c++) {
        bool wants = h->asked_ns[c] && now - h->asked_ns[c] < NS_PER_S;
        need.floor += wants ? h->floor[c] : 0;
        if (wants && (c == IO_CLASS_REBUILD || c == IO_CLASS_EVACUATE))
            need.tolerance_percent = REBUILD_TOLERANCE_PERCENT;
    }
    if (m->dispatch.background > 0) { /* up to here it belongs to this interval */
        upkeep_note_busy(m, false);
        h->busy_since_ns = now;
    }
    m->watch.busy_ns += h->sample.busy_ns;
    dispatch_note_rate(&m->dispatch, h->sample.bytes, h->sample.busy_ns);
    uint64_t grant = throttle_next(&h->throttle, &need, &h->sample);
    if (m->pool->upkeep_trace)
        m->pool->upkeep_trace(m->pool->upkeep_trace_owner, m, &h->sample, grant);
    upkeep_fill(&h->tokens, grant, 0);
    for (enum io_class c = IO_CLASS_REPAIR; c < IO_CLASS_COUNT; c++)
        upkeep_fill_own(h, c, h->asked_ns[c] && now - h->asked_ns[c] < NS_PER_S);
    h->sample = (struct throttle_sample){.disturbed = m->dispatch.background > 0};
}

static void upkeep_grant(struct pool *p)
{
    uint64_t now = io_now_ns(p->io);
    if (now < p->upkeep_next_ns)
        return;
    upkeep_floors(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) /* all at once: they rest together (THR-4) */
        if (p->members[i].used)
            upkeep_grant_member(&p->members[i], now);
    p->upkeep_next_ns += THROTTLE_INTERVAL_MS * NS_PER_MS; /* a turn that took long shortens the next interval: the rates are kept */
    if (p->upkeep_next_ns + THROTTLE_INTERVAL_MS * NS_PER_MS / 2 < now)
        p->upkeep_next_ns = now + THROTTLE_INTERVAL_MS * NS_PER_MS;
}

void upkeep_step(struct pool *p)
{
    lost_step(p); /* it only reads */
    if (p->read_only)
        return;
    upkeep_grant(p);
    roster_step(p);
    headroom_step(p);
    rebuild_step(p);
    scrub_step(p);
}

bool upkeep_idle(const struct pool *p)
{
    return rebuild_idle(p) && scrub_idle(p) && roster_idle(p);
}

void upkeep_fini(struct pool *p)
{
    roster_fini(p);
    lost_fini(p);
    rebuild_fini(p);
    scrub_fini(p);
}

void upkeep_status(struct pool *p, struct upkeep_status *o)
{
    memset(o, 0, sizeof *o);
    rebuild_status(p, o);
    scrub_status(p, o);
}
