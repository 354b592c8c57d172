/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what health.c is shown of each member, and what is done about its verdicts: steering new mail away, suspect, slow,
 * failing; probes, and the way back.
 *
 *   healthy -> steered [four late commits in a row, or one that is out while its peers answer: mail goes elsewhere; nothing is
 *                       said of the member] -> healthy [the pause is over, and probes in a row were good]
 *   healthy -> suspect -> slow | failing [windows, watch_window]
 *   slow -> (pause, then probes, all good) -> suspect on probation -> healthy;   a bad probe: the pause doubles
 *
 * Invariants: WAT-1: a member is taken out for slowness or errors only while `copies` failure domains stay in service.
 * WAT-2: steering and suspicion move new mail only where there is another place for it, and no more members are steered around than
 * `copies` failure domains without them allow. WAT-3: a member that was slow three times in a day stays out until it is
 * cleared, while WAT-1 lets it. WAT-4: it is by probes that a steered member is tried again, never by mail. WAT-5: an arm's patience is
 * for a member whose commits take as long as an arm's; that the kernel says it has one is not enough.
 * Next: health.c, member.c (lateness). */
#include "engine.h"

#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <string.h>

#define LATE_ROW 4u                               /* one stall, or two, is nothing */
#define LATE_TIMES 16.0                           /* of its own median */
#define LATE_FLOOR_FLASH_NS (20 * NS_PER_MS)      /* below, a sender does not care */
#define LATE_FLOOR_ARM_NS (150 * NS_PER_MS)
/* One commit that is out for so long (the research's age for a hedge), while others answer what was begun no earlier, is enough. */
#define STALL_FLOOR_FLASH_NS (50 * NS_PER_MS)
#define STALL_FLOOR_ARM_NS (250 * NS_PER_MS)
/* Half a turn of the fastest drives: what usually makes a write durable sooner waits for no arm. */
#define ARM_COMMIT_NS (2 * NS_PER_MS)
#define YOUNG_WRITES 100u                         /* of this mount: before it has a past, half of them say what is usual */
#define STEER_NS (10 * NS_PER_S)
#define STEER_PROBES 3u
#define PEER_FRESH_NS (1 * NS_PER_S)
#define SLOW_PAUSE_NS (10 * NS_PER_S)
#define SLOW_DOUBLINGS_MAX 8u
#define PROBE_NS (500 * NS_PER_MS)
#define PROBES_GOOD 5u
#define PROBE_TIMES 4.0                           /* of its own median: still good */
#define DAY_NS (24 * 3600 * NS_PER_S)
#define REFUSED_GONE_NS (60 * NS_PER_S)           /* a controller that is reset is back sooner */

bool member_avoided(const struct member *m)
{
    return (m->watch.by_health && m->state == MEMBER_SUSPECT) || m->watch.steered;
}

static bool watch_has_arm(const struct member *m)
{
    return io_target(m->pool->io, m->target)->rotational;
}

/* WAT-5. The kernel says it of virtual disks, and of drives behind a cache that lasts. The verdict takes its word (health.c): a cache
 * that is full for a while is no reason to take a member out, but mail need not wait for it. */
static bool watch_waits_for_arm(const struct member *m)
{
    const struct health_member *h = &m->pool->health.members[m->number];
    bool quick = h->base_windows[HEALTH_COMMIT] > 0 && h->base_ns[HEALTH_COMMIT] < (double)ARM_COMMIT_NS;
    return watch_has_arm(m) && !quick;
}

/* --- samples --- */

static uint64_t watch_errors(const struct member *m)
{
    return m->errors_read + m->errors_write + m->errors_flush + m->errors_checksum + m->errors_identity;
}

/* What a commit takes when all is well: its own past, or the slowest past of a peer of its kind. 0: nobody has one yet. */
static double watch_past_ns(const struct member *m)
{
    const struct health_member *h = m->pool->health.members;
    double worst = 0;
    if (h[m->number].base_windows[HEALTH_COMMIT] >= HEALTH_YOUNG_WINDOWS)
        return h[m->number].base_ns[HEALTH_COMMIT];
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *o = &m->pool->members[i];
        bool peer = o != m && member_usable(o) && watch_has_arm(o) == watch_has_arm(m) &&
                    h[i].base_windows[HEALTH_COMMIT] >= HEALTH_YOUNG_WINDOWS;
        worst = peer && h[i].base_ns[HEALTH_COMMIT] > worst ? h[i].base_ns[HEALTH_COMMIT] : worst;
    }
    return worst;
}

static double watch_normal_ns(const struct member *m)
{
    double past = watch_past_ns(m);
    return past > 0 ? past : (double)COMMIT_DEADLINE_NS / (2 * PROBE_TIMES);
}

static uint64_t watch_late_ns(const struct member *m, uint64_t floor_flash, uint64_t floor_arm)
{
    double past = watch_past_ns(m);
    if (!(past > 0) && m->write_latency.total >= YOUNG_WRITES)
        past = (double)latency_percentile(&m->write_latency, 50);
    uint64_t floor = watch_waits_for_arm(m) ? floor_arm : floor_flash;
    uint64_t late = (uint64_t)((past > 0 ? past : watch_normal_ns(m)) * LATE_TIMES);
    return late > floor ? late : floor;
}

uint64_t watch_stall_ns(const struct member *m)
{
    return watch_late_ns(m, STALL_FLOOR_FLASH_NS, STALL_FLOOR_ARM_NS);
}

/* --- steering --- */

/* WAT-2: as many domains as there are copies, without it and those that are avoided already. */
static bool watch_may_steer(const struct member *m)
{
    const struct pool *p = m->pool;
    uint32_t domains = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *o = &p->members[i];
        bool fresh = o != m && member_usable(o) && !member_avoided(o);
        for (uint32_t j = 0; fresh && j < i; j++)
            fresh = !(&p->members[j] != m && member_usable(&p->members[j]) && !member_avoided(&p->members[j]) &&
                      members_share_domain(o, &p->members[j]));
        domains += fresh;
    }
    return domains >= p->config.copies;
}

/* None of the others is late itself, and one has answered within the last second - or, `since`, what was begun no earlier. That its
 * last mail was late says nothing of a member that got none since. */
static bool watch_peers_are_fine(const struct member *m, uint64_t now, uint64_t since)
{
    bool fresh = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *o = &m->pool->members[i];
        if (o == m || !member_usable(o) || o->watch.steered)
            continue;
        bool answers = o->watch.answered_ns && now - o->watch.answered_ns < PEER_FRESH_NS;
        bool hangs = since && member_commit_age(o) >= watch_late_ns(o, LATE_FLOOR_FLASH_NS, LATE_FLOOR_ARM_NS);
        if (hangs || (answers && o->watch.late_row > 0))
            return false;
        fresh = fresh || (since ? o->watch.answered_begun_ns >= since : answers);
    }
    return fresh;
}

static void watch_steer(struct member *m, uint64_t now, const char *why)
{
    struct member_watch *w = &m->watch;
    if (w->steered || !watch_may_steer(m))
        return;
    w->late_row = 0;
    w->probes_good = 0;
    w->steers++;
    w->steered = true;
    w->steer_until_ns = now + (STEER_NS << (w->steers < 5 ? w->steers - 1 : 4));
    pool_event(m->pool, EVENT_segment_hedged, m, "new mail goes elsewhere for %llu s and until probes are good: %s",
               (unsigned long long)((w->steer_until_ns - now) / NS_PER_S), why);
}

static void watch_lateness(struct member *m, const struct io_op *op, uint64_t now)
{
    struct member_watch *w = &m->watch;
    const struct health_member *h = &m->pool->health.members[m->number];
    uint64_t ns = op->done_ns - op->submitted_ns;
    bool known = h->base_windows[HEALTH_COMMIT] >= HEALTH_YOUNG_WINDOWS;
    char why[96];
    w->answered_ns = now;
    if (!known || ns < watch_late_ns(m, LATE_FLOOR_FLASH_NS, LATE_FLOOR_ARM_NS)) {
        w->late_row = 0;
        return;
    }
    if (++w->late_row < LATE_ROW || !watch_peers_are_fine(m, now, 0))
        return;
    snprintf(why, sizeof why, "%u commits in a row took %llu ms and more, its peers' did not", LATE_ROW,
             (unsigned long long)(ns / NS_PER_MS));
    watch_steer(m, now, why);
}

bool watch_stalled(struct member *m, uint64_t since_ns)
{
    uint64_t now = io_now_ns(m->pool->io);
    char why[96];
    if (member_avoided(m))
        return true;
    if (now - since_ns < watch_stall_ns(m) || !watch_peers_are_fine(m, now, since_ns))
        return false;
    snprintf(why, sizeof why, "a commit is out for %llu ms, its peers answered what was begun with it",
             (unsigned long long)((now - since_ns) / NS_PER_MS));
    watch_steer(m, now, why);
    return member_avoided(m);
}

void watch_answered(struct member *m, const struct member_op *mo)
{
    const struct io_op *op = &mo->op;
    uint64_t ns = op->done_ns - op->submitted_ns;
    if (op->result != ERR_OK)
        return;
    if (op->class == IO_CLASS_COMMIT && op->kind == IO_WRITE) {
        latency_note(&m->watch.window[HEALTH_COMMIT], ns);
        if (op->submitted_ns > m->watch.answered_begun_ns && ns < watch_late_ns(m, LATE_FLOOR_FLASH_NS, LATE_FLOOR_ARM_NS))
            m->watch.answered_begun_ns = op->submitted_ns;
        if (mo->mail)
            watch_lateness(m, op, io_now_ns(m->pool->io));
    } else if (op->class == IO_CLASS_DELIVER && op->kind == IO_READ) {
        latency_note(&m->watch.window[mo->mail ? HEALTH_DELIVER : HEALTH_PROBE], ns);
    }
}

static void watch_sample(struct member *m, struct health_sample *s)
{
    struct member_watch *w = &m->watch;
    *s = (struct health_sample){.watched = m->present && member_usable(m), .domain = m->number};
    if (!s->watched)
        return;
    s->arm = watch_has_arm(m);
    s->busy = w->busy_ns > HEALTH_WINDOW_MS * NS_PER_MS / 2;
    for (uint32_t i = 0; i < m->number; i++)
        if (member_usable(&m->pool->members[i]) && members_share_domain(&m->pool->members[i], m)) {
            s->domain = (uint8_t)i;
            break;
        }
    for (enum health_kind k = 0; k < HEALTH_KINDS; k++) {
        s->kind[k].ops = (uint32_t)w->window[k].total;
        s->kind[k].p50_ns = latency_percentile(&w->window[k], 50);
        w->window[k] = (struct latency){0};
    }
    s->errors = (uint32_t)(watch_errors(m) - w->errors_seen);
    w->errors_seen = watch_errors(m);
    w->busy_ns = 0;
}

/* --- verdicts --- */

/* WAT-1 */
static bool watch_may_leave(struct member *m)
{
    struct pool *p = m->pool;
    enum member_state state = m->state;
    m->state = MEMBER_SLOW; /* as if */
    bool enough = pool_domains_usable(p) >= p->config.copies;
    m->state = state;
    return enough;
}

/* Where all refuse it is what they share, and it may be back in a moment. */
static bool watch_others_answer(const struct pool *p)
{
    uint32_t domains = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        bool fresh = member_usable(m) && !m->refused_since_ns;
        for (uint32_t j = 0; fresh && j < i; j++)
            fresh = !(member_usable(&p->members[j]) && !p->members[j].refused_since_ns && members_share_domain(m, &p->members[j]));
        domains += fresh;
    }
    return domains >= p->config.copies;
}

static void watch_count_slow(struct member *m, uint64_t now)
{
    struct member_watch *w = &m->watch;
    m->slow_count++;
    m->slow_minutes = (uint32_t)(pool_clock_ms(m->pool) / 60000);
    w->slow_ns[m->slow_count % WATCH_SLOW_PER_DAY] = now;
    uint64_t oldest = w->slow_ns[(m->slow_count + 1) % WATCH_SLOW_PER_DAY];
    w->stays_out = m->slow_count >= WATCH_SLOW_PER_DAY && now - oldest < DAY_NS;
    w->probes_good = 0;
    w->pause_from_ns = now;
}

/* Times of the mounts before are not kept one by one: all count as if they were at this one. */
void watch_remember(struct member *m, uint64_t clock_ms)
{
    uint64_t day = DAY_NS / NS_PER_S / 60, now = clock_ms / 60000;
    if (!m->watch.stays_out && now > m->slow_minutes + day)
        m->slow_count = 0;
    for (uint32_t i = 0; i < WATCH_SLOW_PER_DAY && m->slow_count > 0; i++)
        m->watch.slow_ns[i] = io_now_ns(m->pool->io);
}

/* WAT-1, WAT-3 */
void watch_settle(struct member *m)
{
    if (!m->used || !m->watch.stays_out || !member_usable(m) || !watch_may_leave(m))
        return;
    m->left_ns = m->watch.pause_from_ns = io_now_ns(m->pool->io);
    m->watch.of_before = true;
    member_set_state(m, MEMBER_SLOW, "was slow %u times in a day before this mount; stays out until cleared", m->slow_count);
}

void watch_left_slow(struct member *m, const char *why)
{
    char text[sizeof m->evidence];
    watch_count_slow(m, io_now_ns(m->pool->io));
    m->watch.by_health = m->watch.of_before = false;
    snprintf(text, sizeof text, "%s%s", why, m->watch.stays_out ? "; the third time in a day: stays out until cleared" : "");
    member_leave(m, MEMBER_SLOW, text);
}

static void watch_apply(struct member *m)
{
    struct health_member *h = &m->pool->health.members[m->number];
    bool suspect = m->state == MEMBER_SUSPECT && m->watch.by_health;
    if (h->verdict == HEALTH_SLOW && watch_may_leave(m)) {
        watch_left_slow(m, h->evidence);
    } else if ((h->verdict == HEALTH_FAILING || m->watch.smart[0]) && watch_may_leave(m)) {
        m->watch.by_health = false;
        member_leave(m, MEMBER_FAILING, m->watch.smart[0] ? m->watch.smart : h->evidence);
    } else if (h->verdict != HEALTH_GOOD && m->state == MEMBER_HEALTHY) {
        m->watch.by_health = true;
        member_set_state(m, MEMBER_SUSPECT, "%s", h->evidence);
    } else if (h->verdict == HEALTH_GOOD && suspect && !m->watch.smart[0]) {
        m->watch.by_health = false;
        member_set_state(m, MEMBER_HEALTHY, "as good as its peers for a while");
    }
}

static void watch_domains(struct pool *p)
{
    uint32_t slow = 0;
    bool sure = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        bool with = p->health.members[i].with_domain && member_usable(&p->members[i]);
        slow |= with ? 1u << i : 0;
        sure = sure || (with && p->health.members[i].verdict != HEALTH_GOOD);
    }
    if (!sure) {
        p->domain_slow = 0;
        return;
    }
    if (!p->domain_slow)
        for (uint32_t i = 0; i < MEMBERS_MAX; i++)
            if (slow & (1u << i)) {
                pool_event(p, EVENT_domain_slow, &p->members[i], "all members in %s are slow together: %s",
                           p->members[i].domain, p->health.members[i].evidence);
                break;
            }
    p->domain_slow = slow;
}

static void watch_window(struct pool *p)
{
    struct health_sample samples[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used)
            watch_sample(&p->members[i], &samples[i]);
    health_window(&p->health, samples);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (samples[i].watched)
            watch_apply(&p->members[i]);
    watch_domains(p);
}

/* --- probes --- */

static void watch_on_probe(struct member_op *mo)
{
    struct member *m = mo->member;
    struct member_watch *w = &m->watch;
    uint64_t ns = mo->op.done_ns - mo->op.submitted_ns;
    uint64_t floor = watch_waits_for_arm(m) ? HEALTH_FLOOR_ARM_NS : HEALTH_FLOOR_FLASH_NS;
    bool good = mo->op.result == ERR_OK && ((double)ns < watch_normal_ns(m) * PROBE_TIMES || ns < floor);
    w->probes_good = good ? w->probes_good + 1 : 0;
    if (!good && m->state == MEMBER_SLOW) {
        w->pause_from_ns = io_now_ns(m->pool->io);
        w->pauses++;
    }
}

static void watch_back(struct member *m)
{
    struct member_watch *w = &m->watch;
    health_forgive(&m->pool->health.members[m->number]);
    w->pauses = 0;
    w->late_row = 0;
    w->steered = false;
    m->suspect_late = true;
    if (m->spare || m->plan != PLAN_STAYS)
        member_set_state(m, m->spare ? MEMBER_SPARE : MEMBER_EVACUATING, "answers again");
    else
        member_set_state(m, MEMBER_SUSPECT, "%u probes were answered in time; on probation", w->probes_good);
    pool_update_state(m->pool);
    superblock_update(m->pool, NULL);
}

/* A member that was slow is tried again when nothing is outstanding on it, each time after twice the pause: what it
 * holds of sealed segments is whole, because every segment it was late for was closed. */
static void watch_probation(struct member *m, uint64_t now)
{
    struct member_watch *w = &m->watch;
    uint32_t doublings = m->slow_count + w->pauses;
    doublings = doublings < SLOW_DOUBLINGS_MAX ? doublings : SLOW_DOUBLINGS_MAX;
    bool kept_out = w->stays_out && pool_domains_usable(m->pool) >= m->pool->config.copies; /* WAT-3 */
    if (m->ops > 0 || kept_out || now - w->pause_from_ns < (SLOW_PAUSE_NS << doublings) / 2)
        return;
    if (w->probes_good >= PROBES_GOOD)
        watch_back(m);
    else if (now - w->probe_ns >= PROBE_NS)
        member_probe(m, true, watch_on_probe);
}

static bool watch_suspects_any(const struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (member_usable(&p->members[i]) && (p->health.members[i].slow_points > 0 || member_avoided(&p->members[i])))
            return true;
    return false;
}

/* Where no mail goes it must be asked how fast a member is: of one that is avoided, and of all that it is compared with. */
static void watch_member(struct member *m, bool ask, uint64_t now)
{
    struct member_watch *w = &m->watch;
    if (m->refused_since_ns && now - m->refused_since_ns >= REFUSED_GONE_NS && watch_others_answer(m->pool))
        member_leave(m, MEMBER_ABSENT, "it refuses every read for a minute"); /* as if it were pulled: what it holds is not lost */
    else if (m->state == MEMBER_SLOW)
        watch_probation(m, now);
    else if (ask && member_usable(m) && (m->ops == 0 || (w->steered && !m->probing)) && now - w->probe_ns >= PROBE_NS &&
             now - w->answered_ns >= PROBE_NS)
        member_probe(m, true, watch_on_probe);
    if (w->steered && now >= w->steer_until_ns && w->probes_good >= STEER_PROBES)
        w->steered = false;
}

void watch_step(struct pool *p)
{
    uint64_t now = io_now_ns(p->io);
    bool ask = watch_suspects_any(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used && p->members[i].present)
            watch_member(&p->members[i], ask, now);
    if (now < p->health_next_ns)
        return;
    p->health_next_ns = now + HEALTH_WINDOW_MS * NS_PER_MS;
    watch_window(p);
}

void watch_clear(struct member *m)
{
    health_forgive(&m->pool->health.members[m->number]);
    m->slow_count = 0;
    m->watch = (struct member_watch){.errors_seen = watch_errors(m)};
}

enum err member_smart(struct pool *p, const char *name, bool failing, const char *evidence)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &p->members[i];
        if (!m->used || m->removed || strcmp(m->name, name) != 0)
            continue;
        snprintf(m->watch.smart, sizeof m->watch.smart, "%s", failing ? evidence : "");
        if (!failing || p->read_only || !member_usable(m))
            return ERR_OK;
        if (m->state == MEMBER_HEALTHY && !watch_may_leave(m)) { /* later, when there is enough without it */
            m->watch.by_health = true;
            member_set_state(m, MEMBER_SUSPECT, "%s", evidence);
        }
        watch_apply(m);
        return ERR_OK;
    }
    return ERR_NOT_FOUND;
}
