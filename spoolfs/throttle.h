/* SPDX-License-Identifier: Apache-2.0 */
/* How much background work may be done now. Pure: (samples, state) -> tokens; replayed on traces by its test.
 *
 *  THR-1  idle members run background work at full speed.
 *  THR-2  while mail flows, work is cut when the commit time rises above the undisturbed baseline by more than the
 *         tolerance, and grows additively while it does not; one interval in THROTTLE_REST_EVERY nothing runs, so that
 *         the baseline is measured and not believed.
 *  THR-3  the floor always remains: mail never starves the work for good. */
#ifndef THROTTLE_H
#define THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#define THROTTLE_INTERVAL_MS 100u
#define THROTTLE_REST_EVERY 8u
#define THROTTLE_IDLE_INTERVALS 5u               /* without a commit: half a second */
#define THROTTLE_RATE_MAX (UINT64_C(2) << 30)    /* bytes a second: above what a pool of disks reads */
#define THROTTLE_STEP (UINT64_C(2) << 20)        /* additive growth per interval: full disk speed in some seconds */

struct throttle {
    uint64_t floor;              /* bytes a second that always remain */
    uint32_t tolerance_percent;  /* of the commit time, over the baseline */
    /* state */
    uint64_t rate;               /* bytes a second while mail flows */
    double baseline_ns;          /* undisturbed commit time; 0: not measured yet */
    uint32_t intervals, idle;
    bool resting;
};

struct throttle_sample {
    uint64_t commit_ns_sum, commits; /* of the interval */
    uint64_t bytes_done;             /* by background work in the interval */
};

/* Called once an interval; returns the bytes background work may do in the next one. */
uint64_t throttle_next(struct throttle *t, const struct throttle_sample *s);

#endif
