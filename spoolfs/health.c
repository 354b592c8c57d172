/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the verdict on each member from windows of latencies and errors. Pure. Invariants HLT-1 to HLT-5 (health.h).
 *
 *   window -> each kind of op: own p50 against peers and past -> points -> good | suspect | slow;  errors -> failing
 */
#include "health.h"

#include <stdio.h>
#include <string.h>

static const char *const kind_words[HEALTH_KINDS] = {"commits", "deliveries", "probes"};

static uint32_t ops_min(enum health_kind k)
{
    return k == HEALTH_PROBE ? 1 : HEALTH_OPS_MIN; /* a probe every five seconds is all an idle member gets */
}

/* The upper median of the peers; 0: nobody to compare with. */
static uint64_t peers_p50(const struct health_sample *s, uint32_t i, enum health_kind k, uint32_t *count_out)
{
    uint64_t sorted[MEMBERS_MAX];
    uint32_t n = 0;
    for (uint32_t j = 0; j < MEMBERS_MAX; j++) {
        if (j == i || !s[j].watched || s[j].arm != s[i].arm || s[j].domain == s[i].domain || s[j].kind[k].ops < ops_min(k))
            continue;
        uint32_t at = n++;
        for (; at > 0 && sorted[at - 1] > s[j].kind[k].p50_ns; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = s[j].kind[k].p50_ns;
    }
    *count_out = n;
    return n ? sorted[n / 2] : 0;
}

enum finding { NOTHING, FINE, SLOW, VERY_SLOW };

/* HLT-1, HLT-3 */
static enum finding look(struct health_member *m, const struct health_sample *s, uint32_t i, enum health_kind k)
{
    uint32_t peers;
    uint64_t own = s[i].kind[k].p50_ns, others = peers_p50(s, i, k, &peers);
    if (s[i].kind[k].ops < ops_min(k) || peers == 0)
        return NOTHING;
    double times = (double)own / (double)(others ? others : 1);
    bool young = m->base_windows[k] < HEALTH_YOUNG_WINDOWS;
    double past = young ? times * HEALTH_SLOW_TIMES / HEALTH_SLOW_TIMES_YOUNG : (double)own / m->base_ns[k];
    double least = times < past ? times : past;
    if (own < (s[i].arm ? HEALTH_FLOOR_ARM_NS : HEALTH_FLOOR_FLASH_NS) || least < HEALTH_SLOW_TIMES)
        return FINE;
    bool very = least >= HEALTH_VERY_SLOW_TIMES;
    if (s[i].busy && !very)
        return NOTHING;
    snprintf(m->evidence, sizeof m->evidence, "%s take %.1f ms (half of %u in %u s), %.0f times what %u peer%s need%s",
             kind_words[k], (double)own / 1e6, s[i].kind[k].ops, HEALTH_WINDOW_MS / 1000, times, peers,
             peers == 1 ? "" : "s", peers == 1 ? "s" : "");
    if (!young && strlen(m->evidence) + 40 < sizeof m->evidence)
        snprintf(m->evidence + strlen(m->evidence), 40, " and %.0f times its own past", (double)own / m->base_ns[k]);
    return very ? VERY_SLOW : SLOW;
}

static void remember(struct health_member *m, enum health_kind k, double ns)
{
    uint32_t n = m->base_windows[k];
    if (n >= HEALTH_YOUNG_WINDOWS && ns > m->base_ns[k] * 2)
        ns = m->base_ns[k] * 2;
    double share = n < 64 ? 1.0 / (n + 1) : 1.0 / 64; /* a past of minutes: a drift over hours is followed */
    m->base_ns[k] += (ns - m->base_ns[k]) * share;
    m->base_windows[k] = n < 64 ? n + 1 : n;
}

static void judge_speed(struct health_member *m, const struct health_sample *s, uint32_t i)
{
    enum finding worst = NOTHING;
    for (enum health_kind k = 0; k < HEALTH_KINDS; k++) {
        enum finding f = look(m, s, i, k);
        worst = f > worst ? f : worst;
        bool fine = f == FINE || (f == NOTHING && s[i].kind[k].ops >= ops_min(k) && !s[i].busy && m->slow_points == 0);
        if (fine)
            remember(m, k, (double)s[i].kind[k].p50_ns);
    }
    if (worst >= SLOW)
        m->slow_points += worst == VERY_SLOW ? 2 : 1;
    else if (worst == FINE) /* twice as fast down as up: who is slow is slow most of the time */
        m->slow_points -= m->slow_points < 2 ? m->slow_points : 2;
    if (m->slow_points > HEALTH_POINTS_SLOW)
        m->slow_points = HEALTH_POINTS_SLOW;
}

/* HLT-5 */
static void judge_errors(struct health_member *m, const struct health_sample *s)
{
    if (s->errors > 0) {
        m->error_points += HEALTH_ERROR_POINTS;
        m->quiet_windows = 0;
        snprintf(m->evidence, sizeof m->evidence, "errors keep coming: %u in the last %u s, not for the first time", s->errors,
                 HEALTH_WINDOW_MS / 1000);
    } else if (++m->quiet_windows % HEALTH_ERROR_DECAY_WINDOWS == 0 && m->error_points > 0) {
        m->error_points--;
    }
    if (m->error_points > HEALTH_ERROR_POINTS_FAILING)
        m->error_points = HEALTH_ERROR_POINTS_FAILING;
}

/* HLT-4: at least two members in it, and each slow in the last window or the one before: one of them was noticed first. */
static bool domain_is_slow(const struct health *h, const struct health_sample *s, uint8_t domain)
{
    uint32_t all = 0, slow = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        if (!s[i].watched || s[i].domain != domain)
            continue;
        all++;
        slow += h->members[i].slow_points >= 2;
    }
    return all > 1 && slow == all;
}

static enum health_verdict verdict_of(const struct health_member *m)
{
    if (m->error_points >= HEALTH_ERROR_POINTS_FAILING)
        return HEALTH_FAILING;
    if (m->slow_points >= HEALTH_POINTS_SLOW && !m->with_domain)
        return HEALTH_SLOW;
    if (m->slow_points >= HEALTH_POINTS_SUSPECT || m->error_points >= HEALTH_ERROR_POINTS_SUSPECT)
        return HEALTH_SUSPECT;
    bool left = m->slow_points > 0 || m->error_points > HEALTH_ERROR_POINTS; /* HLT-2 */
    return m->verdict != HEALTH_GOOD && left ? HEALTH_SUSPECT : HEALTH_GOOD;
}

void health_window(struct health *h, const struct health_sample samples[MEMBERS_MAX])
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        if (!samples[i].watched)
            continue;
        judge_speed(&h->members[i], samples, i);
        judge_errors(&h->members[i], &samples[i]);
    }
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct health_member *m = &h->members[i];
        if (!samples[i].watched)
            continue;
        m->with_domain = domain_is_slow(h, samples, samples[i].domain);
        m->verdict = verdict_of(m);
        if (m->verdict == HEALTH_GOOD && m->slow_points == 0 && m->error_points == 0)
            m->evidence[0] = '\0';
    }
}

void health_forgive(struct health_member *m)
{
    m->slow_points = m->error_points = m->quiet_windows = 0;
    m->verdict = HEALTH_GOOD;
    m->with_domain = false;
    m->evidence[0] = '\0';
}

uint32_t health_score(const struct health_member *m)
{
    uint32_t slow = m->slow_points * 100 / HEALTH_POINTS_SLOW, errors = m->error_points * 100 / HEALTH_ERROR_POINTS_FAILING;
    uint32_t worst = slow > errors ? slow : errors;
    return worst > 100 ? 0 : 100 - worst;
}
