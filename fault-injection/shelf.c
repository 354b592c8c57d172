/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: a failure domain that is named later. At the end of a run that is whole the operator learns that some members hang on one shelf
 * and says so; mail that has its images there has one too few from then on.
 *
 *  SHF-1  where none was below `copies` before (a mount may ask for another look at an image), after it exactly the messages are whose
 *         MESSAGE lies in fewer domains.
 *  SHF-2  the pool mends that by itself: nothing is below `copies`, and a copy of the disks without the whole shelf has all mail.
 *  SHF-3  enough domains are left for `copies` images, and in them slots for what has to move; where they have not, the name is
 *         taken back before the pool is mounted with it to write: a full disk takes nothing, and that is told (pool_full). Draws from
 *         a stream of its own. The name stays for what follows in the run. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#define RESTORE_NS (UINT64_C(7200) * 1000000000)
#define SHELF_NAME "shelf:1"

struct naming { struct world *w; uint64_t below; bool fits; };

static uint32_t shelf_serving(struct world *w, bool *whole_out)
{
    static struct pool_status s; /* large; one thread */
    uint32_t serving = 0;
    unsigned t;
    pool_status(w->pool, &s);
    *whole_out = s.messages_below_copies == 0;
    for (uint32_t i = 0; i < s.member_count; i++)
        if (s.members[i].state == MEMBER_HEALTHY && sscanf(s.members[i].path, "/sim/%u", &t) == 1)
            serving |= 1u << t;
    return serving;
}

/* Two of them, or three; 0: too few domains would be left. */
static uint32_t shelf_choose(struct world *w, uint32_t serving, struct prng *dice)
{
    uint32_t want = 2 + (uint32_t)prng_below(dice, 2), count = (uint32_t)__builtin_popcount(serving), shelf = 0;
    want = count - 2 < w->plan.copies ? 2 : want;
    if (count < w->plan.copies + 1)
        return 0;
    while ((uint32_t)__builtin_popcount(shelf) < want)
        shelf |= serving & (1u << prng_below(dice, MEMBERS_MAX));
    return shelf;
}

bool shelf_first(const struct world *w, uint32_t among, uint16_t target)
{
    const char *domain = w->config.members[target].domain;
    bool first = true;
    for (uint16_t t = 0; domain[0] && t < target; t++)
        first = first && !(((among >> t) & 1) && strcmp(w->config.members[t].domain, domain) == 0);
    return first;
}

/* SHF-1 */
static void shelf_on_record(void *owner, struct model_message *msg, bool message, uint32_t targets)
{
    struct naming *n = owner;
    uint32_t domains = 0;
    (void)msg;
    for (uint16_t t = 0; t < n->w->config.member_count; t++)
        domains += ((targets >> t) & 1) && shelf_first(n->w, targets, t);
    n->below += message && domains < n->w->plan.copies;
}

static bool shelf_named(struct world *w, bool whole)
{
    static struct pool_status s;
    struct naming n = {.w = w};
    if (losses_look(w)) {
        losses_holders(w, &n, shelf_on_record);
        pool_status(w->pool, &s);
        if (whole ? s.messages_below_copies != n.below : s.messages_below_copies < n.below)
            world_fail(w, "a failure domain is named: %llu messages are below copies, says the pool, and %llu are",
                       (unsigned long long)s.messages_below_copies, (unsigned long long)n.below);
        n.fits = room_for_images(&s, SHELF_NAME); /* SHF-3 */
        w->counts.domains_named++;
        w->counts.moved_from_domain += n.fits ? n.below : 0;
        world_say(w, "a failure domain is named: %llu messages are below copies%s", (unsigned long long)n.below,
                  n.fits ? "" : ", and the other domains have no room");
    }
    losses_leave(w);
    return n.fits;
}

static void shelf_name(struct world *w, uint32_t shelf, const char *name)
{
    for (uint16_t t = 0; t < w->config.member_count; t++)
        if ((shelf >> t) & 1)
            snprintf(w->config.members[t].domain, sizeof w->config.members[t].domain, "%s", name);
}

void shelf_run(struct world *w)
{
    struct prng dice = {w->plan.seed ^ UINT64_C(0x7368656c66212121)};
    uint32_t shelf = 0;
    bool whole = false;
    if (!w->plan.names_domain)
        return;
    if (losses_look(w))
        shelf = shelf_choose(w, shelf_serving(w, &whole), &dice);
    losses_leave(w);
    if (!shelf || world_failed(w))
        return;
    shelf_name(w, shelf, SHELF_NAME);
    if (!shelf_named(w, whole)) {
        shelf_name(w, shelf, "");
        return;
    }
    if (world_failed(w) || !world_restart(w))
        return;
    world_restored(w, io_now_ns(w->io) + RESTORE_NS);
    if (world_failed(w))
        return;
    sim_io_kill(w->sim);
    world_after_crash(w);
    if (audit_copy(w, shelf) && world_restart(w)) /* SHF-2 */
        world_unmount(w);
}
