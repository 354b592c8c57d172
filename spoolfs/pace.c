/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the forecast of a rebuild. Pure. Invariants PAC-1 to PAC-3 (pace.h). */
#include "pace.h"

#define SECOND_NS UINT64_C(1000000000)
#define SHARE 0.25 /* of a new window: half of it is forgotten after half a minute */

uint64_t pace_seconds_left(const struct pace *p, uint64_t remaining)
{
    if (p->windows == 0 || p->rate < 1.0)
        return UINT64_MAX;
    double seconds = (double)remaining / p->rate;
    return seconds < 1e15 ? (uint64_t)seconds : UINT64_MAX;
}

static bool pace_set(struct pace *p, bool behind)
{
    bool changed = p->behind != behind;
    p->behind = behind;
    p->late_row = p->early_row = 0;
    return changed;
}

static void pace_begin_window(struct pace *p, const struct pace_sample *s)
{
    p->window_ns = s->now_ns;
    p->window_done = s->done;
    p->worked = 0;
    p->seconds = 0;
}

/* PAC-1, PAC-2 */
static bool pace_window_over(struct pace *p, const struct pace_sample *s)
{
    double seconds = (double)(s->now_ns - p->window_ns) / (double)SECOND_NS;
    double rate = (double)(s->done - p->window_done) / seconds;
    uint64_t gone = (s->now_ns - p->since_ns) / SECOND_NS;
    p->rate = p->windows ? p->rate + (rate - p->rate) * SHARE : rate;
    p->windows++;
    uint64_t left = pace_seconds_left(p, s->remaining);
    bool late = left > PACE_DEADLINE_S - gone; /* or never */
    bool early = left <= PACE_DEADLINE_S && (gone + left) * 100 <= (uint64_t)PACE_DEADLINE_S * PACE_CLEAR_PERCENT;
    p->late_row = late ? p->late_row + 1 : 0;
    p->early_row = early ? p->early_row + 1 : 0;
    if (p->late_row >= PACE_FIRM)
        return pace_set(p, true);
    return p->early_row >= PACE_FIRM && pace_set(p, false);
}

bool pace_judge(struct pace *p, const struct pace_sample *s)
{
    if (s->remaining == 0) {
        bool changed = p->behind;
        *p = (struct pace){0};
        return changed;
    }
    if (p->since_ns == 0) {
        p->since_ns = p->looked_ns = s->now_ns ? s->now_ns : 1;
        pace_begin_window(p, s);
        return false;
    }
    if (s->now_ns - p->looked_ns < SECOND_NS)
        return false;
    p->looked_ns = s->now_ns;
    if (s->now_ns - p->since_ns >= PACE_DEADLINE_S * SECOND_NS)
        return pace_set(p, true);
    p->seconds++;
    p->worked += s->working ? 1 : 0;
    if (s->now_ns - p->window_ns < PACE_WINDOW_S * SECOND_NS)
        return false;
    bool told = p->worked * 2 > p->seconds; /* PAC-3 */
    bool changed = told && pace_window_over(p, s);
    pace_begin_window(p, s);
    return changed;
}
