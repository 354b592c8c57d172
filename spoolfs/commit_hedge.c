/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: frames that do not get through. An image is late or fails, or its member leaves: the segment is closed and the
 * frame is committed again elsewhere. What finds no place in time is answered with an error.
 * Invariants: COM-3 (engine.h). COM-4: a buffer with an outstanding write is never changed: a late frame is copied, its
 * old buffer stays with it as an orphan. A late frame goes only where it has as many images, until it must be answered. */
#include "commit.h"

#include <base/planted.h>
#include <string.h>

#define COMMIT_DEADLINE_MAX_NS (1500 * NS_PER_MS) /* below degrade_after, so that a hedge is tried first */
#define LOOK_AGAIN_NS (10 * NS_PER_MS)
#define LATE_AGAIN_NS (100 * NS_PER_MS)

static uint32_t frame_late_mask(const struct append_frame *f)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < f->segment->image_count; i++)
        if (f->late_mask & (1u << i))
            mask |= 1u << f->segment->images[i].member;
    return mask;
}

/* How long its writes may take before they are late, whatever others do. */
static uint64_t frame_deadline_ns(const struct append_frame *f)
{
    uint64_t worst = 0;
    for (uint32_t i = 0; i < f->segment->image_count; i++) {
        uint64_t p99 = latency_percentile(&f->pool->members[f->segment->images[i].member].write_latency, 99);
        worst = p99 > worst ? p99 : worst;
    }
    uint64_t deadline = worst * 8 > COMMIT_DEADLINE_NS ? worst * 8 : COMMIT_DEADLINE_NS;
    return deadline < COMMIT_DEADLINE_MAX_NS ? deadline : COMMIT_DEADLINE_MAX_NS;
}

uint64_t frame_look_ns(const struct append_frame *f)
{
    uint64_t worst = 0, deadline = frame_deadline_ns(f);
    for (uint32_t i = 0; i < f->segment->image_count; i++) {
        uint64_t stall = watch_stall_ns(&f->pool->members[f->segment->images[i].member]);
        worst = stall > worst ? stall : worst;
    }
    return worst < deadline ? worst : deadline;
}

/* As many images elsewhere as here? A hedge never lowers their number. */
static bool hedge_possible(struct append_frame *f, uint32_t avoid)
{
    struct pool *p = f->pool;
    uint32_t others = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        bool fresh = member_usable(&p->members[i]) && !(avoid & (1u << i));
        for (uint32_t j = 0; fresh && j < i; j++)
            fresh = !(member_usable(&p->members[j]) && !(avoid & (1u << j)) &&
                      members_share_domain(&p->members[i], &p->members[j]));
        others += fresh;
    }
    enum err why;
    return others >= f->segment->image_count && placement_possible(p, SPOOL_RESULT, avoid, &why);
}

void commit_replace(struct append_frame *f, uint32_t avoid_mask)
{
    struct pool *p = f->pool;
    struct appender *a = f->appender;
    ASSERT(a->flight == f);
    struct append_frame *to = f;
    if (f->pending > 0) { /* COM-4 */
        to = frame_take(p, a);
        if (!to)
            return; /* asked again at the next deadline */
        memcpy(to->buffer, f->buffer, f->frame.used);
        to->frame.used = f->frame.used;
        to->frame.record_count = f->frame.record_count;
        to->frame.sequence = f->frame.sequence;
        to->moved_from = f->moved_from;
        to->born_ns = f->born_ns;
        struct link *l;
        while ((l = link_pop(&f->groups)) != NULL)
            link_push(&to->groups, l);
        f->orphaned = true;
        io_timer_clear(p->io, &f->deadline);
        if (PLANTED(buffer_reused)) {
            f->buffer = to->buffer;
            to->buffer = to->frame.bytes = f->frame.bytes;
        }
    }
    to->in_flight = false;
    to->failed = false;
    to->late_mask = 0;
    a->flight = to;
    a->avoid_mask |= avoid_mask;
    p->count_hedges++;
    pool_event(p, EVENT_segment_hedged, NULL, "frame of %u records placed again, avoiding members %#x",
               to->frame.record_count, a->avoid_mask);
    if (a->segment == f->segment) {
        a->waits_for_seal = a->kind == SEGMENT_MAIL;
        a->sealing = f->segment->id;
        a->reopen = appender_reopens(a);
        commit_close_segment(a);
    }
    if (PLANTED(hedge_races_seal) && f->orphaned) {
        a->flight = NULL;
        frame_fail(to, ERR_OK);
    }
}

/* Nothing waits for a member that is avoided, where there is another place. Once for each frame and member: where it lands on it
 * again there was nothing else. The segment table stays while no other may be begun (TAB-6): that could take longer. */
void frame_leave_avoided(struct append_frame *f)
{
    uint32_t pending = frame_late_mask(f), avoid = 0;
    if (f->appender->kind == SEGMENT_TABLE && f->pool->table_settling)
        return;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        avoid |= (pending & (1u << i)) && member_avoided(&f->pool->members[i]) ? 1u << i : 0;
    avoid &= ~f->appender->avoid_mask;
    if (avoid && segment_better_elsewhere(f->pool, f->segment, appender_class(f->appender), f->appender->avoid_mask | avoid))
        commit_replace(f, avoid);
}

void commit_on_deadline(struct io_timer *t)
{
    struct append_frame *f = t->owner;
    struct pool *p = f->pool;
    if (!f->in_flight || f->orphaned || f->pending == 0)
        return;
    uint32_t avoid = frame_late_mask(f);
    uint64_t now = io_now_ns(p->io), age = now - f->submitted_ns;
    bool hopeless = f->appender->kind == SEGMENT_MAIL && now - f->born_ns >= COMMIT_GIVE_UP_NS, stalled = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        stalled = ((avoid & (1u << i)) && watch_stalled(&p->members[i], f->submitted_ns)) || stalled;
    if (stalled)
        frame_leave_avoided(f); /* commit_step has the other frames there follow */
    if (f->orphaned)
        return;
    if (hopeless || (age >= frame_deadline_ns(f) && hedge_possible(f, avoid))) {
        commit_replace(f, avoid); /* otherwise members_watch decides: the member leaves, or all are late */
        if (f->orphaned)
            return;
    }
    io_timer_set(p->io, &f->deadline, now + (age < COMMIT_DEADLINE_NS ? LOOK_AGAIN_NS : LATE_AGAIN_NS));
}

void commit_member_left(struct pool *p, struct member *m)
{
    if (!p->mounted)
        return;
    for (uint32_t i = 0; i < p->appender_count; i++) {
        struct appender *a = &p->appenders[i];
        struct segment *s = a->segment;
        if (a->next && a->next->state == SEGMENT_OPEN && segment_on_member(a->next, m->number))
            appender_close_next(a);
        if (!s || !segment_on_member(s, m->number))
            continue;
        if (a->flight && a->flight->in_flight && a->flight->segment == s)
            commit_replace(a->flight, 0);
        else
            commit_close_segment(a);
    }
    if (!p->stopping)
        superblock_update(p, NULL);
}

/* What waits for a segment or a SEAL that will not come is answered. */
void appender_give_up(struct appender *a)
{
    struct pool *p = a->pool;
    struct append_frame *frames[2] = {a->flight, a->building};
    if (!a->flight && !a->building)
        return;
    bool below = pool_domains_usable(p) < p->config.min_copies;
    for (uint32_t i = 0; i < 2; i++) {
        struct append_frame *f = frames[i];
        if (!f || f->in_flight || f->frame.record_count == 0)
            continue;
        if (!below && io_now_ns(p->io) - f->born_ns < COMMIT_GIVE_UP_NS)
            continue;
        if (i == 1 && a->flight)
            continue; /* in order: what came first is answered first */
        *(i ? &a->building : &a->flight) = NULL;
        frame_fail(f, below ? ERR_BELOW_POLICY : ERR_TIMEOUT);
    }
}
