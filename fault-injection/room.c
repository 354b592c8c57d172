/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what a pool has room for. A full disk takes nothing, and a disk whose slots bad places have taken is a smaller one than was put in:
 * the pool says so (slot_retired, pool_full), and nobody waits there for what has no room. */
#include "world.h"

#include <spoolfs/upkeep.h>
#include <string.h>

#define SLOTS_KEPT 8u            /* new mail leaves as many on a small member; a rebuild two fewer, which are for what a mount opens */
#define SLOTS_KEPT_BY_RESULTS 6u
#define SLOTS_FOR_BAD_PLACES 2u  /* of a member: the measure leaves them out, too */

static uint64_t room_slots(const struct pool_status *s, const struct pool_member_status *m)
{
    return (m->bytes_total - m->bytes_used) / s->segment_bytes;
}

/* Slots of the domain that member `i` is in, if none before it is. */
static uint64_t room_of_domain(const struct pool_status *s, uint32_t i, uint32_t kept)
{
    uint64_t slots = 0;
    for (uint32_t j = 0; j < s->member_count; j++) {
        const struct pool_member_status *m = &s->members[j];
        uint64_t left = room_slots(s, m);
        if (strcmp(m->domain, s->members[i].domain) != 0)
            continue;
        if (j < i)
            return 0;
        slots += m->state == MEMBER_HEALTHY && left > kept ? left - kept : 0;
    }
    return slots;
}

bool room_for_images(const struct pool_status *s, const char *beside)
{
    uint64_t room = 0, short_of = s->segments_degraded;
    for (uint32_t i = 0; i < s->member_count; i++) {
        uint64_t slots = strcmp(s->members[i].domain, beside) ? room_of_domain(s, i, SLOTS_KEPT) : 0;
        room += slots < short_of ? slots : short_of;
    }
    return room >= short_of * (s->copies - 1);
}

/* Bad places have taken more slots of the victim than the two that a plan leaves for them, and whichever domain has what is left of a
 * segment, the others have no slot for it. */
bool room_is_cramped(const struct world *w, const struct pool_status *s)
{
    bool fits = true;
    for (uint32_t i = 0; i < s->member_count; i++)
        fits = fits && room_for_images(s, s->members[i].domain);
    return !fits && w->counts.events[EVENT_slot_retired] > SLOTS_FOR_BAD_PLACES;
}

/* Bad places have taken most slots of a member in service, and without it too few domains have one for results. */
bool room_is_worn_out(struct world *w)
{
    static struct pool_status s;
    struct upkeep_status u;
    uint32_t domains = 0;
    bool worn = false;
    pool_status(w->pool, &s);
    upkeep_status(w->pool, &u);
    for (uint32_t i = 0; i < s.member_count; i++) {
        const struct pool_member_status *m = &s.members[i];
        bool serves = m->state == MEMBER_HEALTHY || m->state == MEMBER_SUSPECT;
        domains += room_of_domain(&s, i, SLOTS_KEPT_BY_RESULTS) > 0;
        bool retired = u.scrub.slots_retired > m->bytes_total / s.segment_bytes / 2;
        worn = worn || (serves && retired && room_slots(&s, m) <= SLOTS_KEPT_BY_RESULTS);
    }
    return worn && domains < s.copies;
}
