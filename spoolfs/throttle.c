/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the controller of one member's background work. Pure. Invariants THR-1 to THR-5 (throttle.h).
 *
 *   sample -> rested: baseline  | worked: gathered -> judged: halved, raised, held -> tokens
 */
#include "throttle.h"

#include <inttypes.h>
#include <stdio.h>

#define BASELINE_SHARE 0.125  /* of a new measurement: the baseline follows a drift within ten seconds */
#define OUTLIER 8.0           /* a measurement counts for no more than so many times the baseline */

static uint64_t per_interval(uint64_t rate)
{
    return rate * THROTTLE_INTERVAL_MS / 1000;
}

static void gather(struct throttle_sum sums[THROTTLE_MAIL_KINDS], const struct throttle_sample *s)
{
    for (int k = 0; k < THROTTLE_MAIL_KINDS; k++) {
        sums[k].ops += s->mail[k].ops;
        sums[k].sum_ns += s->mail[k].sum_ns;
        sums[k].worst_sum_ns += s->mail[k].ops ? s->mail[k].worst_ns : 0;
        sums[k].worst_count += s->mail[k].ops > 0;
    }
}

static double mean_of(const struct throttle_sum *u) { return (double)u->sum_ns / (double)u->ops; }
static double worst_of(const struct throttle_sum *u) { return (double)u->worst_sum_ns / (double)u->worst_count; }

static double follow(double base, double now)
{
    if (base == 0)
        return now;
    if (now > base * OUTLIER)
        now = base * OUTLIER;
    return base + (now - base) * BASELINE_SHARE;
}

/* THR-4 */
static void learn(struct throttle *t)
{
    for (int k = 0; k < THROTTLE_MAIL_KINDS; k++) {
        if (t->rested[k].ops < THROTTLE_SAMPLES_MIN)
            continue;
        t->base[k].mean_ns = follow(t->base[k].mean_ns, mean_of(&t->rested[k]));
        t->base[k].worst_ns = follow(t->base[k].worst_ns, worst_of(&t->rested[k]));
        t->rested[k] = (struct throttle_sum){0};
    }
}

static bool knows(const struct throttle *t)
{
    return t->base[THROTTLE_COMMIT].mean_ns > 0 || t->base[THROTTLE_DELIVER].mean_ns > 0;
}

enum verdict { UNKNOWN, WELL, BADLY };

static enum verdict judge(const struct throttle *t, const struct throttle_need *need)
{
    enum verdict v = UNKNOWN;
    double factor = 1.0 + need->tolerance_percent / 100.0;
    for (int k = 0; k < THROTTLE_MAIL_KINDS; k++) {
        const struct throttle_sum *u = &t->worked[k];
        if (u->ops < THROTTLE_SAMPLES_MIN || t->base[k].mean_ns == 0)
            continue;
        if (mean_of(u) > t->base[k].mean_ns * factor || worst_of(u) > t->base[k].worst_ns * factor)
            return BADLY;
        v = WELL;
    }
    return v;
}

/* THR-5: by how much too much; 1: not at all. */
static double overdrawn(const struct throttle *t, const struct throttle_need *need)
{
    double time = (double)t->worked_intervals * THROTTLE_INTERVAL_MS * 1e6;
    double share = time > 0 ? (double)t->worked_busy_ns / time * 100.0 : 0;
    return need->share_percent < 100 && share > need->share_percent ? share / need->share_percent : 1.0;
}

static void cut(struct throttle *t, double by)
{
    uint64_t used = t->worked_bytes * 1000 / (t->worked_intervals * THROTTLE_INTERVAL_MS);
    t->rate = used < t->rate ? used : t->rate; /* what was not used was no part of the trouble, and would not help it */
    t->rate = (uint64_t)((double)t->rate / by);
    t->cuts++;
}

/* THR-2 */
static void act(struct throttle *t, const struct throttle_need *need)
{
    enum verdict v = judge(t, need);
    double over = overdrawn(t, need);
    t->unknown = v == UNKNOWN ? t->unknown + 1 : 0;
    bool creep = t->unknown >= THROTTLE_UNKNOWN_MAX;
    bool wanted = t->worked_bytes >= t->granted / 2; /* a rate nobody uses says nothing about a higher one */
    if (v == BADLY || over > 1.0) {
        cut(t, v == BADLY && over < 2.0 ? 2.0 : over);
    } else if ((v == WELL || creep) && wanted) {
        t->rate += THROTTLE_STEP + t->rate / THROTTLE_STEP_PART;
        t->raises++;
        t->unknown = 0;
    }
    for (int k = 0; k < THROTTLE_MAIL_KINDS; k++)
        t->worked[k] = (struct throttle_sum){0};
    t->worked_bytes = t->worked_busy_ns = t->granted = 0;
    t->worked_intervals = 0;
}

static bool ripe(const struct throttle *t)
{
    uint64_t ops = t->worked[THROTTLE_COMMIT].ops + t->worked[THROTTLE_DELIVER].ops;
    return (ops >= THROTTLE_JUDGE_SAMPLES && t->worked_intervals >= THROTTLE_JUDGE_INTERVALS_MIN) ||
           t->worked_intervals >= THROTTLE_JUDGE_INTERVALS_MAX;
}

/* With nothing to compare, the work rests until there is; where mail is too thin for that, at most two cycles. */
static bool rests(const struct throttle *t)
{
    if (!knows(t) && t->intervals <= THROTTLE_CYCLE * 2)
        return true;
    return t->intervals % THROTTLE_CYCLE >= THROTTLE_CYCLE - THROTTLE_REST;
}

uint64_t throttle_next(struct throttle *t, const struct throttle_need *need, const struct throttle_sample *s)
{
    bool mail = s->mail[THROTTLE_COMMIT].ops > 0 || s->mail[THROTTLE_DELIVER].ops > 0;
    t->intervals++;
    t->idle = mail ? 0 : t->idle + 1;
    if (t->idle < THROTTLE_IDLE_INTERVALS) {
        if (s->disturbed) {
            gather(t->worked, s);
            t->worked_bytes += s->bytes;
            t->worked_busy_ns += s->busy_ns;
            t->worked_intervals++;
            if (ripe(t))
                act(t, need);
        } else {
            gather(t->rested, s);
            learn(t);
        }
    }
    if (t->rate > THROTTLE_RATE_MAX)
        t->rate = THROTTLE_RATE_MAX;
    if (t->rate < need->floor) /* THR-3 */
        t->rate = need->floor;
    if (t->idle >= THROTTLE_IDLE_INTERVALS) { /* THR-1 */
        t->resting = false;
        return per_interval(THROTTLE_RATE_MAX);
    }
    t->resting = rests(t);
    if (t->resting)
        return 0;
    /* what rests cannot do is made up for, so that the rate is kept */
    uint64_t tokens = per_interval(t->rate) * THROTTLE_CYCLE / (THROTTLE_CYCLE - THROTTLE_REST);
    t->granted += tokens;
    return tokens;
}

/* --- traces --- */

bool throttle_sample_parse(const char *line, struct throttle_sample *s_out)
{
    struct throttle_sample s = {0};
    uint64_t us[5], disturbed;
    int n = sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                   " %" SCNu64, &s.mail[0].ops, &us[0], &us[1], &s.mail[1].ops, &us[2], &us[3], &s.bytes, &us[4],
                   &disturbed);
    if (n != 9)
        return false;
    for (int k = 0; k < THROTTLE_MAIL_KINDS; k++) {
        s.mail[k].sum_ns = us[k * 2] * 1000;
        s.mail[k].worst_ns = us[k * 2 + 1] * 1000;
    }
    s.busy_ns = us[4] * 1000;
    s.disturbed = disturbed != 0;
    *s_out = s;
    return true;
}

int throttle_sample_print(char *text, size_t bytes, const struct throttle_sample *s)
{
    return snprintf(text, bytes, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                    " %d", s->mail[0].ops, s->mail[0].sum_ns / 1000, s->mail[0].worst_ns / 1000, s->mail[1].ops,
                    s->mail[1].sum_ns / 1000, s->mail[1].worst_ns / 1000, s->bytes, s->busy_ns / 1000, s->disturbed);
}
