/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the controller of background work. Pure. Invariants THR-1 to THR-3 (throttle.h). */
#include "throttle.h"

static uint64_t per_interval(uint64_t rate)
{
    return rate * THROTTLE_INTERVAL_MS / 1000;
}

uint64_t throttle_next(struct throttle *t, const struct throttle_sample *s)
{
    double mean = s->commits ? (double)s->commit_ns_sum / (double)s->commits : 0;
    t->intervals++;
    if (t->rate < t->floor)
        t->rate = t->floor;
    t->idle = s->commits ? 0 : t->idle + 1;
    if (t->idle >= THROTTLE_IDLE_INTERVALS) { /* THR-1 */
        t->resting = false;
        return per_interval(THROTTLE_RATE_MAX);
    }
    if (s->commits && s->bytes_done == 0) { /* undisturbed: an average over about eight such intervals */
        t->baseline_ns = t->baseline_ns == 0 ? mean : t->baseline_ns * 0.875 + mean * 0.125;
    } else if (s->commits && t->baseline_ns != 0) {
        double limit = t->baseline_ns * (1.0 + t->tolerance_percent / 100.0);
        if (mean > limit)
            t->rate = t->rate * 7 / 10; /* THR-2 */
        else
            t->rate += THROTTLE_STEP;
        if (t->rate > THROTTLE_RATE_MAX)
            t->rate = THROTTLE_RATE_MAX;
        if (t->rate < t->floor) /* THR-3 */
            t->rate = t->floor;
    }
    t->resting = t->intervals % THROTTLE_REST_EVERY == 0 || t->baseline_ns == 0;
    if (t->baseline_ns == 0 && t->intervals > THROTTLE_REST_EVERY * 4)
        t->resting = false; /* mail too thin to measure: the floor */
    return t->resting ? 0 : per_interval(t->rate);
}
