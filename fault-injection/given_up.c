/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: members that die together, more than redundancy pays for, and are given up by name, one after the other. At the end of a run
 * that is whole: on a read-only mount it is asked which members have an image of which record, then some vanish for good.
 *
 *   whole, read-only -> some vanish -> mounted without them -> each: asked what that costs, given up [the power may go] -> what only they
 *   held is told, read as lost, bounced; all else is read byte for byte, and whole again where domains are left -> stop
 *
 *  GVN-1  lost is exactly the mail of which a record has an image on members given up and nowhere else: each such message is told by its
 *         queue id, in the mount in which the last of its members goes and again in every later one while it is there, and reads say LOST;
 *         no other is. Until the last of its members goes it waits: MEMBER_GONE.
 *  GVN-2  what a dry run counts is that, for MESSAGEs.
 *  GVN-3  draws from a stream of its own. The index is kept: what one that was made anew cannot know has no id.
 *  GVN-5  where the segment table dies with them nobody can say what they held (0046), and the rest may have no slot that is known to
 *         be free: then they come back, as if nothing had happened.
 *  GVN-6  they die of a pool that is whole on its media: what a flush lied about before, no scrub could know of and no redundancy pays for
 *         beside dead members (ATL-1). It is on the medium by then; where a flush failed on what is still readable, no power goes.
 *  GVN-7  what is left is whole again by itself where there is room for it: slots, in enough failure domains; bounces are taken while
 *         there is room for results.
 *  GVN-8  while another member is away, CHUNKs that dead members held may belong to mail that it has: their segment stays until it is
 *         back, and the check says that its frames are lost.
 *  GVN-4  some disks come back at the end; they are refused and nothing of theirs is seen again. */
#include "world.h"

#include <base/assert.h>
#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_NS (UINT64_C(90) * 1000000000)
#define RESTORE_NS (UINT64_C(7200) * 1000000000)
#define QUIET_NS (UINT64_C(15) * 1000000000)
#define READS_AT_ONCE 12u
#define RECORDS_MAX 8192u
#define CRASH_ONE_IN 3u           /* members given up */
#define CRASH_TURNS 6u            /* at most, from the request to it */
#define MOUNTS_MAX 20u

struct held { struct model_message *msg; bool message; uint32_t targets; };

static struct giving {
    struct world *w;
    struct prng dice;
    struct held records[RECORDS_MAX];
    uint32_t count;
    bool kills_only;                             /* GVN-6 */
    uint32_t serving, dying, asked, gone;        /* targets; asked: the pool was told to give it up; gone: it says so */
    char names[MEMBERS_MAX][MEMBER_NAME_BYTES];  /* by target */
    uint64_t listed;                             /* the number of the audit that saw them */
    struct sim_disk *before[MEMBERS_MAX];        /* GVN-5: as they were when some died */
    struct index_kept *index_before;
} giving;

static const struct pool_member_status *given_member(struct world *w, const char *name)
{
    static struct pool_status s; /* large; one thread */
    pool_status(w->pool, &s);
    for (uint32_t i = 0; i < s.member_count; i++)
        if (strcmp(s.members[i].name, name) == 0)
            return &s.members[i];
    return NULL;
}

/* --- who dies --- */

static void given_on_record(void *owner, struct model_message *msg, bool message, uint32_t targets)
{
    struct giving *g = owner;
    if (g->count < RECORDS_MAX)
        g->records[g->count] = (struct held){msg, message, targets};
    g->count++;
}

static void given_members(struct giving *g)
{
    static struct pool_status s;
    unsigned t;
    pool_status(g->w->pool, &s);
    for (uint32_t i = 0; i < s.member_count; i++) {
        if (s.members[i].state != MEMBER_HEALTHY || sscanf(s.members[i].path, "/sim/%u", &t) != 1)
            continue;
        g->serving |= 1u << t;
        memcpy(g->names[t], s.members[i].name, sizeof g->names[t]);
    }
}

/* Those that hold one message, and perhaps one more; somebody is left. */
static void given_choose(struct giving *g)
{
    uint32_t one = 1u << prng_below(&g->dice, g->w->config.member_count), count = g->count;
    uint32_t held = count ? g->records[prng_below(&g->dice, count)].targets : 0;
    g->dying = (held | (prng_below(&g->dice, 3) == 0 ? one : 0)) & g->serving;
    while (g->dying && g->dying == g->serving)
        g->dying &= ~(1u << prng_below(&g->dice, MEMBERS_MAX));
}

/* Where the CHUNKs lie of what may be retired or not no audit has asked. */
static bool given_knows_all(const struct world *w)
{
    bool all = true;
    for (uint32_t i = 0; i < w->model.count; i++) {
        const struct model_message *msg = &w->model.messages[i];
        all = all && (msg->seen != w->model.audits || msg->chunk_count == 0 || model_must_be_there(msg));
    }
    return all;
}

static bool given_look(struct giving *g)
{
    struct world *w = g->w;
    bool known = losses_look(w) && given_knows_all(w);
    if (known)
        losses_holders(w, g, given_on_record);
    known = known && g->count < RECORDS_MAX;
    if (known) {
        g->listed = w->model.audits;
        given_members(g);
        given_choose(g);
    }
    losses_leave(w);
    return known && g->dying && !world_failed(w);
}

/* GVN-1. Asked for, it may be told at any moment; until the pool says that it is gone, it may still be waited for. */
static void given_doom(struct giving *g)
{
    for (uint32_t i = 0; i < g->count; i++) {
        const struct held *h = &g->records[i];
        h->msg->doomed = h->msg->doomed || (h->targets & ~g->asked) == 0;
        h->msg->waits = false;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        const struct held *h = &g->records[i];
        h->msg->waits = h->msg->waits || ((h->targets & ~g->dying) == 0 && (h->targets & ~g->gone) != 0);
    }
}

/* GVN-6 */
static void given_settle(struct giving *g)
{
    for (uint16_t t = 0; t < g->w->config.member_count; t++) {
        struct sim_disk *disk = sim_io_disk(g->w->sim, t);
        sim_disk_settle(disk, UINT64_MAX);
        g->kills_only = g->kills_only || sim_disk_unflushed(disk) > 0;
    }
}

/* --- GVN-5 --- */

static void given_keep(struct giving *g)
{
    enum err e = index_kept_copy(g->w->kept.now, &g->index_before);
    ASSERT(e == ERR_OK);
    for (uint16_t t = 0; t < g->w->config.member_count; t++)
        g->before[t] = sim_disk_snapshot(sim_io_disk(g->w->sim, t));
}

static void given_back(struct giving *g)
{
    struct world *w = g->w;
    losses_leave(w);
    for (uint16_t t = 0; t < w->config.member_count; t++) {
        struct sim_disk *later = sim_io_change_disk(w->sim, t, g->before[t]);
        sim_disk_free(&later);
        g->before[t] = NULL;
        if ((g->dying >> t) & 1)
            sim_io_return(w->sim, t);
    }
    index_kept_free(&w->kept.now);
    w->kept.now = g->index_before;
    g->index_before = NULL;
    w->kept.discard = w->kept.died = w->halves.refused = false;
}

static void given_forget(struct giving *g)
{
    for (uint16_t t = 0; t < g->w->config.member_count; t++)
        sim_disk_free(&g->before[t]);
    index_kept_free(&g->index_before);
}

/* --- mounts --- */

static bool given_mount(struct giving *g)
{
    struct world *w = g->w;
    for (uint32_t i = 0; i < w->model.count; i++)
        w->model.messages[i].lost_told = false; /* GVN-1 */
    if (!world_mount(w) && !w->halves.refused)
        world_fail(w, "the mount without members that are dead did not end");
    return !world_failed(w);
}

/* Between a request and its end: the next mount finds the member absent, or removed. */
static void given_crash(struct giving *g)
{
    struct world *w = g->w;
    if (prng_below(&g->dice, 2) && !g->kills_only)
        sim_io_power_cut(w->sim);
    else
        sim_io_kill(w->sim);
    w->counts.crashes_in_giving_up++;
    world_after_crash(w);
    given_mount(g);
}

/* --- one of them --- */

/* GVN-2 */
static uint64_t given_cost(const struct giving *g, uint16_t t)
{
    uint64_t messages = 0;
    for (uint32_t i = 0; i < g->count; i++)
        messages += g->records[i].message && (g->records[i].targets & ~(g->gone | 1u << t)) == 0;
    return messages;
}

static void given_ask(struct giving *g, uint16_t t)
{
    struct world *w = g->w;
    struct member_loss loss;
    enum err e = member_give_up(w->pool, g->names[t], true, &loss);
    uint64_t cost = given_cost(g, t);
    if (e != ERR_OK || loss.messages != cost || loss.segments_unknown != 0)
        world_fail(w, "to give up member \"%s\" would cost %llu messages, says the pool (%s), and %llu have no other image", g->names[t],
                   (unsigned long long)loss.messages, err_name(e), (unsigned long long)cost);
    g->asked |= 1u << t;
    given_doom(g);
    e = member_give_up(w->pool, g->names[t], false, &loss);
    if (e != ERR_OK || loss.messages != cost)
        world_fail(w, "member \"%s\" cannot be given up: %s", g->names[t], err_name(e));
    world_say(w, "member \"%s\" is given up; with it %llu messages", g->names[t], (unsigned long long)cost);
}

static void given_up_one(struct giving *g, uint16_t t)
{
    struct world *w = g->w;
    uint32_t mounts = 0, crash_in = UINT32_MAX;
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    bool asked = false;
    while (!world_failed(w)) {
        const struct pool_member_status *m = given_member(w, g->names[t]);
        if (m && m->state == MEMBER_REMOVED)
            break;
        if (!m || m->state != MEMBER_ABSENT || io_now_ns(w->io) > until) {
            world_fail(w, "member \"%s\" is dead and given up, and the pool says: %s", g->names[t],
                       m ? member_state_word(m->state) : "no such member");
            return;
        }
        if (!asked) {
            given_ask(g, t);
            asked = true;
            crash_in = mounts < MOUNTS_MAX && prng_below(&g->dice, CRASH_ONE_IN) == 0 ? (uint32_t)prng_below(&g->dice, CRASH_TURNS)
                                                                                     : UINT32_MAX;
        } else if (crash_in-- == 0) {
            mounts++;
            given_crash(g);
            asked = false;
            continue;
        }
        world_turn(w);
    }
    g->gone |= 1u << t;
    given_doom(g);
    w->counts.members_given_up++;
}

/* --- what that costs --- */

static bool given_untold(const struct giving *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        if (g->records[i].msg->doomed && !g->records[i].msg->lost_told)
            return true;
    return false;
}

static void given_tell(struct giving *g)
{
    static struct pool_status s;
    struct world *w = g->w;
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS, doomed = 0;
    while (!world_failed(w) && given_untold(g)) {
        world_turn(w);
        if (io_now_ns(w->io) > until)
            world_fail(w, "P2: members are given up, and of what only they held not every message is told");
    }
    for (uint32_t i = 0; i < w->model.count; i++)
        doomed += w->model.messages[i].doomed;
    pool_status(w->pool, &s);
    if (!world_failed(w) && s.messages_lost != doomed)
        world_fail(w, "P2: %llu messages are lost, says the pool, and %llu are", (unsigned long long)s.messages_lost,
                   (unsigned long long)doomed);
}

/* Lost: bounced, as the relay does. All else that is promised: every byte. */
static bool given_is_done(const struct giving *g, const struct model_message *msg)
{
    if (msg->doomed)
        return msg->retired == MODEL_YES;
    return msg->seen != g->listed || msg->verified == g->w->model.audits || !model_must_be_there(msg);
}

static void given_read(struct giving *g)
{
    struct world *w = g->w;
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    uint32_t count = w->model.count; /* bounces come behind it */
    const struct model_message *last = NULL;
    bool left = true;
    w->model.audits++; /* `verified` counts from here */
    while (left && !world_failed(w)) {
        left = w->action_count > 0;
        for (uint32_t i = 0; i < count && !world_failed(w); i++) {
            struct model_message *msg = &w->model.messages[i];
            if (given_is_done(g, msg))
                continue;
            left = true;
            last = msg;
            if (w->action_count < READS_AT_ONCE)
                senders_visit(w, msg, msg->doomed ? VISIT_BOUNCE : VISIT_NOTHING);
        }
        world_turn(w);
        if (io_now_ns(w->io) <= until || !left)
            continue;
        if (room_is_worn_out(w)) { /* GVN-7 */
            w->counts.worn_out++;
            w->unbounced = true;
            return;
        }
        world_fail(w, "liveness: visits of what dead members held do not end: %s queue id %llu, segment %llu",
                   last && last->doomed ? "lost" : "good", (unsigned long long)(last ? last->qid.counter : 0),
                   (unsigned long long)(last ? last->segment.counter : 0));
    }
    for (uint32_t i = 0; i < count && !world_failed(w); i++)
        if (w->model.messages[i].doomed && !w->model.messages[i].lost_said)
            world_fail(w, "P2: queue id %llu lay on dead members only and is handed out",
                       (unsigned long long)w->model.messages[i].qid.counter);
}

/* GVN-7. Whichever domain has what is left of a segment. A full pool takes nothing, and that is told (pool_full). */
static bool given_can_restore(const struct giving *g)
{
    static struct pool_status s;
    uint32_t domains = 0, left = g->serving & ~g->dying;
    pool_status(g->w->pool, &s);
    for (uint32_t i = 0; i < s.member_count; i++)
        if (!room_for_images(&s, s.members[i].domain))
            return false;
    for (uint16_t t = 0; t < g->w->config.member_count; t++)
        domains += ((left >> t) & 1) && shelf_first(g->w, left, t);
    return domains >= g->w->plan.copies;
}

static void given_end(struct giving *g)
{
    struct world *w = g->w;
    for (uint32_t i = 0; i < w->model.count; i++) {
        struct model_message *msg = &w->model.messages[i];
        w->counts.lost_with_members += msg->doomed && g->gone;
        msg->doomed = msg->waits = msg->lost_told = false;
    }
    w->losing = w->giving_up = false;
    if (w->pool)
        world_unmount(w);
    for (uint16_t t = 0; t < w->config.member_count && !world_failed(w); t++) /* GVN-4 */
        if (((g->gone >> t) & 1) && prng_below(&g->dice, 2))
            sim_io_return(w->sim, t);
    given_forget(g);
}

/* True: it is known what they held, and they are gone. */
static bool given_die(struct giving *g)
{
    struct world *w = g->w;
    given_settle(g);
    given_keep(g);
    for (uint16_t t = 0; t < w->config.member_count; t++)
        if ((g->dying >> t) & 1)
            sim_io_vanish(w->sim, t);
    w->losing = w->giving_up = true;
    w->table_lost = false;
    given_doom(g);
    given_mount(g);
    if (!w->table_lost || world_failed(w))
        return !world_failed(w);
    world_say(w, "the segment table died with them: as if nothing had happened");
    given_back(g);
    return false;
}

void given_up_run(struct world *w)
{
    struct giving *g = &giving;
    *g = (struct giving){.w = w, .dice = {w->plan.seed ^ UINT64_C(0x676976656e757021)}};
    w->scheduler = NULL; /* the run is over: from here on only what is asked for moves */
    if (!w->plan.gives_up || !w->kept.now || !given_look(g))
        return;
    bool known = given_die(g);
    for (uint32_t first = (uint32_t)prng_below(&g->dice, MEMBERS_MAX), n = 0; known && n < MEMBERS_MAX && !world_failed(w); n++) {
        uint16_t t = (uint16_t)((first + n) % MEMBERS_MAX);
        if ((g->dying >> t) & 1)
            given_up_one(g, t);
    }
    if (known && !world_failed(w))
        given_tell(g);
    if (known && !world_failed(w))
        given_read(g);
    if (known && !world_failed(w) && given_can_restore(g))
        world_restored(w, io_now_ns(w->io) + RESTORE_NS);
    uint64_t until = io_now_ns(w->io) + QUIET_NS; /* where no second domain is left, too, what was given up goes */
    while (known && !world_failed(w) && io_now_ns(w->io) < until)
        world_turn(w);
    given_end(g);
}
