/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which missing images are made again, in which order and where: the fewest images first, the newest mail first
 * among equals, several at a time; and how far that is. Invariants: RBL-1 to RBL-7 (rebuild.h). */
#include "images.h"
#include "pace.h"
#include "rebuild.h"

#include <base/planted.h>
#include <spoolfs/upkeep.h>
#include <stdlib.h>
#include <string.h>

/* A member that left comes back often enough within this time that copying everything would be waste. */
#define REBUILD_GRACE_NS (10 * NS_PER_S)
#define REBUILD_GRACE_SLOW_NS (120 * NS_PER_S)
#define REBUILD_LOOK_NS (500 * NS_PER_MS)
/* A segment whose job failed is tried again after this, twice as long after each failure in a row, and half a minute at most. */
#define REBUILD_AGAIN_NS (2 * NS_PER_S)
#define REBUILD_AGAIN_DOUBLED_MAX 4u

struct rebuild {
    struct pool *pool;
    struct rebuild_job *jobs[REBUILD_JOBS_MAX];
    bool paused;
    struct pace pace;
    uint64_t next_ns, bytes, segments, bytes_this_second, second_ns, rate;
};

static bool image_is_whole(const struct pool *p, const struct segment *s, uint32_t i)
{
    return member_usable(&p->members[s->images[i].member]) && !s->images[i].unproved && !s->images[i].bad;
}

static uint32_t images_whole(const struct pool *p, const struct segment *s)
{
    uint32_t whole = 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        whole |= image_is_whole(p, s, i) ? 1u << i : 0;
    return whole;
}

uint32_t segment_images_counting(const struct pool *p, const struct segment *s)
{
    return segment_images_apart(p, s, images_whole(p, s));
}

static bool images_suffice(const struct pool *p, const struct segment *s)
{
    return (uint32_t)__builtin_popcount(segment_images_counting(p, s)) >= p->config.copies;
}

/* A whole image that shares its failure domain with one that counts is replaced as one on an evacuating member is (RBL-7). */
static bool image_given_up(const struct pool *p, const struct segment *s, uint32_t i)
{
    const struct member *m = &p->members[s->images[i].member];
    if (image_is_whole(p, s, i))
        return !((segment_images_counting(p, s) >> i) & 1);
    if (s->images[i].bad || m->plan != PLAN_STAYS)
        return true;
    uint64_t gone = io_now_ns(p->io) - m->left_ns;
    return m->state == MEMBER_EVACUATING || m->state == MEMBER_FAILING || m->removed ||
           gone >= (m->state == MEMBER_SLOW ? REBUILD_GRACE_SLOW_NS : REBUILD_GRACE_NS);
}

/* What a repair writes to is waited for, unless its member is out of service and may never answer (REP-4). */
static bool repairs_go_on(const struct pool *p, const struct segment *s)
{
    bool any = false;
    for (uint32_t i = 0; i < s->image_count; i++)
        any = any || (image_repairing(s, i) && member_usable(&p->members[s->images[i].member]));
    return any;
}

/* Which image of `s` is to be made again; image_count: one more than there are; UINT32_MAX: none. */
static uint32_t rebuild_wants(const struct pool *p, const struct segment *s)
{
    if (s->kind != SEGMENT_MAIL || s->state != SEGMENT_SEALED || s->compacting || repairs_go_on(p, s) || s->rebuilding ||
        PLANTED(rebuild_never) || s->length <= BLOCK_BYTES || segment_images_readable(p, s) == 0 ||
        io_now_ns(p->io) < s->rebuild_after_ns || images_suffice(p, s))
        return UINT32_MAX;
    bool more = s->image_count < p->config.copies;
    for (uint32_t i = 0; i < s->image_count; i++) {
        if (!image_given_up(p, s, i))
            continue;
        const struct member *m = &p->members[s->images[i].member];
        bool may_hold_more = !m->removed && (s->unread || (s->images[i].unproved && m->plan != PLAN_LEAVES));
        if (!may_hold_more || member_readable(m))
            return i;
        more = true; /* an absent image that may hold more than we know stays listed: one is added beside it */
    }
    return more && s->image_count < COPIES_MAX ? s->image_count : UINT32_MAX;
}

/* The healthier one, then the emptier one. A suspect member is a better place than none. */
static bool rebuild_goes_rather_to(const struct member *m, const struct member *best)
{
    if (!best || (m->state == MEMBER_HEALTHY) != (best->state == MEMBER_HEALTHY))
        return !best || m->state == MEMBER_HEALTHY;
    return (uint64_t)m->slots_free * best->slot_count > (uint64_t)best->slots_free * m->slot_count;
}

static struct member *rebuild_target(struct pool *p, const struct segment *s, uint32_t replaced, uint32_t *slot_out)
{
    struct member *best = NULL;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        bool fits = member_usable(m) && !(table_behind(p) & (1u << i)) && m->slots_free > slot_reserve(m, SPOOL_RESULT);
        for (uint32_t k = 0; fits && k < s->image_count; k++)
            fits = k == replaced ||
                   (s->images[k].member != i &&
                    (!member_usable(&p->members[s->images[k].member]) ||
                    !members_share_domain(m, &p->members[s->images[k].member])));
        if (fits && rebuild_goes_rather_to(m, best))
            best = m;
    }
    return best && slot_find(best, slot_out) ? best : NULL;
}

/* The fewest domains, then the fewest images: two that share a domain survive the loss of a disk. */
static uint32_t rebuild_redundancy(const struct pool *p, const struct segment *s)
{
    uint32_t whole = images_whole(p, s);
    uint32_t domains = (uint32_t)__builtin_popcount(segment_images_apart(p, s, whole));
    return domains * (COPIES_MAX + 1) + (uint32_t)__builtin_popcount(whole);
}

/* The fewest images first; among equals those with mail before those with results only, and the newest first. */
static bool rebuild_comes_before(const struct segment *s, uint32_t good, const struct segment *best, uint32_t best_good)
{
    if (!best || good != best_good)
        return good < best_good;
    bool dead = segment_is_empty_of_mail(s), best_dead = segment_is_empty_of_mail(best);
    return dead != best_dead ? best_dead : s->id.counter > best->id.counter;
}

/* RBL-6: there is an image on a member that no job waits for. */
static bool rebuild_has_source(const struct pool *p, const struct segment *s, uint32_t late_mask)
{
    for (uint32_t i = 0; late_mask && i < s->image_count; i++)
        if (image_readable(p, s, i) && !(late_mask & (1u << s->images[i].member)))
            return true;
    return late_mask == 0;
}

static struct segment *rebuild_choose(struct pool *p, uint32_t late_mask, uint32_t *image_out, struct image *target_out)
{
    struct segment *best = NULL;
    uint32_t best_good = UINT32_MAX;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        uint32_t image = s->state == SEGMENT_UNUSED ? UINT32_MAX : rebuild_wants(p, s);
        if (image == UINT32_MAX || !rebuild_has_source(p, s, late_mask))
            continue;
        uint32_t good = rebuild_redundancy(p, s), slot;
        if (!rebuild_comes_before(s, good, best, best_good))
            continue;
        struct member *m = rebuild_target(p, s, image, &slot);
        if (!m)
            continue;
        best = s;
        best_good = good;
        *image_out = image;
        *target_out = (struct image){.member = m->number, .slot = slot};
    }
    return best;
}

/* --- jobs --- */

struct rebuild_job *rebuild_job_of(const struct pool *p, const struct segment *s)
{
    for (uint32_t i = 0; p->rebuild && i < REBUILD_JOBS_MAX; i++)
        if (p->rebuild->jobs[i] && p->rebuild->jobs[i]->segment == s)
            return p->rebuild->jobs[i];
    return NULL;
}

bool rebuild_paused(const struct pool *p)
{
    return p->rebuild->paused;
}

uint32_t rebuild_jobs_reading(const struct pool *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX; i++)
        n += p->rebuild->jobs[i] && p->rebuild->jobs[i]->walk.pending > 0 && !rebuild_job_waits_for(p->rebuild->jobs[i]);
    return n;
}

void rebuild_count_bytes(struct pool *p, uint64_t bytes)
{
    p->rebuild->bytes += bytes;
    p->rebuild->bytes_this_second += bytes;
}

static void rebuild_try_later(struct segment *s, uint64_t now)
{
    s->rebuild_after_ns = now + (REBUILD_AGAIN_NS << s->rebuild_failures);
    if (s->rebuild_failures < REBUILD_AGAIN_DOUBLED_MAX)
        s->rebuild_failures++;
}

void rebuild_job_over(struct rebuild_job *job, struct segment *s, bool done)
{
    struct pool *p = job->pool;
    struct rebuild *r = p->rebuild;
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX; i++)
        if (r->jobs[i] == job)
            r->jobs[i] = NULL;
    r->segments += done;
    r->next_ns = 0;
    if (!done) {
        rebuild_try_later(s, io_now_ns(p->io));
        return;
    }
    s->rebuild_failures = 0;
    pool_update_state(p);
}

static uint32_t rebuild_jobs(const struct rebuild *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; r && i < REBUILD_JOBS_MAX; i++)
        n += r->jobs[i] != NULL;
    return n;
}

/* RBL-6. Each leaves one read behind that keeps its buffer: at most as many as were under way, for none begins before they are answered. */
static void rebuild_let_go(struct rebuild *r)
{
    uint32_t heard = 0;
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX; i++) {
        uint32_t waits_for = r->jobs[i] ? rebuild_job_waits_for(r->jobs[i]) : 0;
        if (waits_for && (waits_for & ~heard) == 0)
            r->jobs[i]->failed = true;
        heard |= waits_for;
    }
}

static void rebuild_begin(struct rebuild *r)
{
    struct pool *p = r->pool;
    uint32_t late_mask = 0, in_place = 0;
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX; i++) {
        uint32_t waits_for = r->jobs[i] ? rebuild_job_waits_for(r->jobs[i]) : 0;
        late_mask |= waits_for;
        in_place += r->jobs[i] && waits_for == 0;
    }
    if (rebuild_jobs(r) == REBUILD_JOBS_MAX && in_place < REBUILD_AT_ONCE)
        rebuild_let_go(r);
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX && in_place < REBUILD_AT_ONCE; i++) {
        struct image target;
        uint32_t image;
        if (r->jobs[i])
            continue;
        struct segment *s = rebuild_choose(p, late_mask, &image, &target);
        if (s)
            r->jobs[i] = rebuild_job_start(p, s, image, target);
        if (!r->jobs[i]) {
            r->next_ns = io_now_ns(p->io) + REBUILD_LOOK_NS;
            break;
        }
        in_place++;
    }
}

/* Bytes of the segments with fewer images than `copies` that can be read, if any of them holds mail. What a member that is
 * emptied still holds is not at risk. */
static uint64_t rebuild_at_risk(const struct pool *p)
{
    uint64_t bytes = 0;
    bool mail = false;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        if (s->state != SEGMENT_SEALED || s->kind != SEGMENT_MAIL || segment_images_good(p, s) >= p->config.copies ||
            segment_given_up(p, s))
            continue;
        bytes += s->length;
        mail = mail || s->live_messages > 0 || s->live_chunks > 0;
    }
    return mail ? bytes : 0;
}

static void rebuild_watch_deadline(struct rebuild *r)
{
    struct pool *p = r->pool;
    uint64_t now = io_now_ns(p->io);
    if (now - r->second_ns < NS_PER_S)
        return;
    r->rate = r->bytes_this_second * NS_PER_S / (now - r->second_ns);
    r->second_ns = now;
    r->bytes_this_second = 0;
    struct pace_sample s = {.now_ns = now, .remaining = rebuild_at_risk(p), .done = r->bytes,
                            .working = rebuild_jobs(r) > 0 && !r->paused};
    if (!pace_judge(&r->pace, &s) || !r->pace.behind)
        return;
    uint64_t gone = (now - r->pace.since_ns) / NS_PER_S, left = pace_seconds_left(&r->pace, s.remaining);
    if (gone >= PACE_DEADLINE_S || left == UINT64_MAX)
        pool_event(p, EVENT_rebuild_behind, NULL, "redundancy is not restored after %llu s, and %llu MiB remain",
                   (unsigned long long)gone, (unsigned long long)(s.remaining >> 20));
    else
        pool_event(p, EVENT_rebuild_behind, NULL, "after %llu s %llu MiB remain, and at %.1f MiB/s that takes %llu s more",
                   (unsigned long long)gone, (unsigned long long)(s.remaining >> 20), r->pace.rate / (1 << 20),
                   (unsigned long long)left);
}

void rebuild_step(struct pool *p)
{
    if (!p->rebuild) {
        p->rebuild = calloc(1, sizeof *p->rebuild);
        if (!p->rebuild)
            return;
        p->rebuild->pool = p;
    }
    struct rebuild *r = p->rebuild;
    rebuild_watch_deadline(r);
    for (uint32_t i = 0; i < REBUILD_JOBS_MAX; i++)
        if (r->jobs[i])
            rebuild_job_step(r->jobs[i]);
    if (!r->paused && !p->stopping && p->mounted && io_now_ns(p->io) >= r->next_ns)
        rebuild_begin(r);
}

bool rebuild_idle(const struct pool *p)
{
    return rebuild_jobs(p->rebuild) == 0;
}

void rebuild_fini(struct pool *p)
{
    struct rebuild *r = p->rebuild;
    p->rebuild = NULL;
    for (uint32_t i = 0; r && i < REBUILD_JOBS_MAX; i++) {
        if (!r->jobs[i])
            continue;
        walk_fini(&r->jobs[i]->walk);
        rebuild_job_free(r->jobs[i]);
    }
    free(r);
    struct link *l;
    while ((l = link_pop(&p->rebuild_orphans)) != NULL)
        rebuild_job_free(CONTAINER_OF(l, struct rebuild_job, link));
}

void rebuild_pause(struct pool *p, bool paused)
{
    if (p->rebuild)
        p->rebuild->paused = paused;
}

uint32_t rebuild_images_left(const struct pool *p)
{
    uint32_t least = COPIES_MAX; /* of the segments under way: the least redundant decides how much the work may take */
    for (uint32_t i = 0; p->rebuild && i < REBUILD_JOBS_MAX; i++) {
        uint32_t good = p->rebuild->jobs[i] ? segment_images_good(p, p->rebuild->jobs[i]->segment) : COPIES_MAX;
        least = good < least ? good : least;
    }
    return least;
}

uint64_t rebuild_seconds_left(const struct pool *p)
{
    uint64_t since = p->rebuild ? p->rebuild->pace.since_ns : 0, now = io_now_ns(p->io);
    uint64_t gone = since && now > since ? (now - since) / NS_PER_S : 0;
    return gone + 1 < PACE_DEADLINE_S ? PACE_DEADLINE_S - gone : 1;
}

void rebuild_status(struct pool *p, struct upkeep_status *o)
{
    const struct rebuild *r = p->rebuild;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        bool counts = s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && s->length > BLOCK_BYTES;
        bool below = counts && !images_suffice(p, s) && !segment_given_up(p, s);
        o->rebuild.bytes_remaining += below ? s->length : 0;
        o->rebuild.messages_remaining += below ? s->live_messages : 0;
    }
    if (!r)
        return;
    o->rebuild.state = r->paused ? UPKEEP_PAUSED : rebuild_jobs(r) ? UPKEEP_RUNNING : UPKEEP_IDLE;
    o->rebuild.bytes_per_second = rebuild_jobs(r) ? r->rate : 0;
    o->rebuild.eta_seconds = rebuild_jobs(r) && r->rate ? o->rebuild.bytes_remaining / r->rate : 0;
    o->rebuild.segments_rebuilt = r->segments;
    o->rebuild.bytes_rebuilt = r->bytes;
    o->rebuild.behind = r->pace.behind;
}
