/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: how much live mail the pool could still hold after the loss of any one failure domain, whether new mail is
 * refused for it, and how many segments what is free takes. HDR-1: refused only while the pool is whole and has more
 * failure domains than `copies`; with fewer, or after a loss, the reserve alone decides (DESIGN section 6). */
#include "upkeep_parts.h"

#define HEADROOM_LOOK_NS (500 * NS_PER_MS)

struct domains { uint64_t capacity[MEMBERS_MAX]; uint32_t count; };

static bool headroom_serves(const struct member *m, bool spares)
{
    return member_usable(m) || (spares && m->used && m->present && m->state == MEMBER_SPARE);
}

static uint64_t headroom_now(const struct member *m)
{
    return headroom_serves(m, false) ? m->slot_count * m->slot_bytes : 0;
}

static uint64_t headroom_with_spares(const struct member *m)
{
    return headroom_serves(m, true) ? m->slot_count * m->slot_bytes : 0;
}

/* Slots new mail may still have. */
static uint64_t headroom_slots(const struct member *m)
{
    uint32_t reserve = headroom_serves(m, false) ? slot_reserve(m, SPOOL_NEW_MAIL) : UINT32_MAX;
    return m->slots_free > reserve ? m->slots_free - reserve : 0;
}

/* Members that share a domain are one disk as far as losses and placement go: what each has adds up. */
static void headroom_domains(const struct pool *p, uint64_t (*has)(const struct member *m), struct domains *d)
{
    uint8_t first[MEMBERS_MAX]; /* a member of each domain */
    *d = (struct domains){0};
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        uint64_t capacity = has(m);
        if (capacity == 0)
            continue;
        uint32_t k = 0;
        while (k < d->count && !members_share_domain(m, &p->members[first[k]]))
            k++;
        if (k == d->count)
            first[d->count++] = (uint8_t)i;
        d->capacity[k] += capacity;
    }
}

/* Each image of a message lies in another domain, so that no domain holds more than L of the images of L live bytes. */
static bool headroom_holds(const struct domains *d, uint32_t lost, uint64_t live, uint32_t copies)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < d->count; i++)
        if (i != lost)
            sum += d->capacity[i] < live ? d->capacity[i] : live;
    return sum >= copies * live;
}

static bool headroom_survives(const struct domains *now, const struct domains *with_spares, uint64_t live, uint32_t copies)
{
    if (!headroom_holds(now, UINT32_MAX, live, copies)) /* a spare takes nothing before a loss */
        return false;
    for (uint32_t lost = 0; lost < with_spares->count; lost++)
        if (!headroom_holds(with_spares, lost, live, copies))
            return false;
    return with_spares->count > 0;
}

uint32_t headroom_domain_count(const struct pool *p)
{
    struct domains d;
    headroom_domains(p, headroom_with_spares, &d);
    return d.count;
}

/* Found by halving. */
uint64_t headroom_segments(const struct pool *p, uint32_t copies)
{
    struct domains d;
    headroom_domains(p, headroom_slots, &d);
    uint64_t low = 0, high = (uint64_t)MEMBERS_MAX * SLOTS_PER_MEMBER_MAX;
    while (high - low > 1) {
        uint64_t mid = low + (high - low) / 2;
        if (headroom_holds(&d, UINT32_MAX, mid, copies))
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* The largest L that survives, found by halving to a block, less what is live. */
uint64_t headroom_bytes(const struct pool *p, uint64_t live)
{
    struct domains now, with_spares;
    headroom_domains(p, headroom_now, &now);
    headroom_domains(p, headroom_with_spares, &with_spares);
    uint64_t low = 0, high = 0;
    for (uint32_t i = 0; i < now.count; i++)
        high += now.capacity[i];
    high++;
    while (high - low > BLOCK_BYTES) {
        uint64_t mid = low + (high - low) / 2;
        if (headroom_survives(&now, &with_spares, mid, p->config.copies))
            low = mid;
        else
            high = mid;
    }
    return low > live ? low - live : 0;
}

static bool headroom_pool_is_whole(const struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (m->used && !m->removed && !headroom_serves(m, true))
            return false;
    }
    return true;
}

/* HDR-1 */
bool headroom_counts(const struct pool *p)
{
    return headroom_pool_is_whole(p) && headroom_domain_count(p) > p->config.copies;
}

void headroom_step(struct pool *p)
{
    uint64_t now = io_now_ns(p->io), live = 0;
    if (now < p->headroom_next_ns)
        return;
    p->headroom_next_ns = now + HEADROOM_LOOK_NS;
    for (uint32_t i = 0; i < p->segment_used; i++)
        live += p->segments[i].state != SEGMENT_UNUSED ? p->segments[i].live_bytes : 0;
    p->headroom_full = headroom_counts(p) && headroom_bytes(p, live) == 0;
    enum err why = ERR_OK;
    bool full = p->headroom_full || (!placement_possible(p, SPOOL_NEW_MAIL, 0, &why) && why == ERR_FULL);
    if (full && !p->full_said)
        pool_event(p, EVENT_pool_full, NULL, "%llu bytes of live mail; %s", (unsigned long long)live,
                   p->headroom_full ? "the others have no room for what one failure domain holds"
                                    : "what is free is the reserve of results and compaction");
    p->full_said = full;
}
