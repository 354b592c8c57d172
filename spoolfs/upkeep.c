/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the share of each member background work gets, and the door upkeep.h. Rebuild takes tokens before scrub does:
 * redundancy comes before evidence. */
#include "engine.h"

#include <spoolfs/upkeep.h>
#include <string.h>

#define REBUILD_FLOOR (UINT64_C(8) << 20)  /* bytes a second: 2 GiB of live mail in four minutes under full load */
#define SCRUB_FLOOR (UINT64_C(1) << 20)
#define REBUILD_TOLERANCE_PERCENT 25u      /* DESIGN P3 */
#define SCRUB_TOLERANCE_PERCENT 10u
/* What does not ask before it works (repairs, the replay of the index) leaves no longer debt than this. */
#define UPKEEP_DEBT_MAX ((int64_t)(4 * FRAME_BYTES_MAX))

const char *upkeep_state_word(enum upkeep_state s)
{
    return s == UPKEEP_RUNNING ? "running" : s == UPKEEP_PAUSED ? "paused" : "idle";
}

bool upkeep_may(struct pool *p, uint32_t members_mask, enum io_class class)
{
    ASSERT(io_class_is_background(class));
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if ((members_mask & (1u << i)) && p->members[i].present && p->members[i].share.tokens <= 0)
            return false;
    return true;
}

void upkeep_charge(struct member *m, const struct io_op *op)
{
    uint64_t bytes = op->kind == IO_DISCARD ? 0 : op->length;
    m->share.tokens -= (int64_t)bytes;
    if (m->share.tokens < -UPKEEP_DEBT_MAX)
        m->share.tokens = -UPKEEP_DEBT_MAX;
    m->share.sample.bytes_done += bytes;
}

void upkeep_note_mail(struct member *m, uint64_t ns)
{
    m->share.sample.commits++;
    m->share.sample.commit_ns_sum += ns;
}

/* What was not taken is not saved up; what was taken beyond the grant is owed, so that a large window at a low floor
 * does not become a high floor. */
static void upkeep_grant_member(struct member *m, bool rebuilding)
{
    struct upkeep_share *h = &m->share;
    h->throttle.floor = rebuilding ? REBUILD_FLOOR : SCRUB_FLOOR;
    h->throttle.tolerance_percent = rebuilding ? REBUILD_TOLERANCE_PERCENT : SCRUB_TOLERANCE_PERCENT;
    int64_t grant = (int64_t)throttle_next(&h->throttle, &h->sample);
    h->tokens = (h->tokens < 0 ? h->tokens : 0) + grant;
    h->sample = (struct throttle_sample){0};
}

static void upkeep_grant(struct pool *p)
{
    uint64_t now = io_now_ns(p->io);
    if (now < p->upkeep_next_ns)
        return;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used)
            upkeep_grant_member(&p->members[i], !rebuild_idle(p));
    p->upkeep_next_ns = now + THROTTLE_INTERVAL_MS * NS_PER_MS;
}

void upkeep_step(struct pool *p)
{
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
    rebuild_fini(p);
    scrub_fini(p);
}

void upkeep_status(struct pool *p, struct upkeep_status *o)
{
    memset(o, 0, sizeof *o);
    rebuild_status(p, o);
    scrub_status(p, o);
}
