/* SPDX-License-Identifier: Apache-2.0 */
/* Which member is worse than its peers. Pure: (windows of all members, state) -> verdicts with evidence.
 *
 *  HLT-1  a member is slow only against peers of its kind in other failure domains and against itself: what all feel is
 *         load, what it always did is its nature.
 *  HLT-2  one window proves nothing: points rise while a member is slow and fall while it is not; a verdict needs many,
 *         and goes away only when none is left.
 *  HLT-3  too few samples, no peer, or a device mostly busy with our own background work: the window says nothing.
 *  HLT-4  when all members of one failure domain are slow together it is what they share: none of them is taken out.
 *  HLT-5  errors that keep coming make a member fail; a burst of them, however large, does not. */
#ifndef HEALTH_H
#define HEALTH_H

#include <spoolfs/limits.h>
#include <stdbool.h>
#include <stdint.h>

#define HEALTH_WINDOW_MS 3000u
/* From running systems: three times the peers, and 20 ms on an arm (HDFS); a 2x alarm would ring all the time (FAST'16).
 * Where a member has no past yet, or is busy with our own work, only more than that convinces. */
#define HEALTH_SLOW_TIMES 3.0
#define HEALTH_SLOW_TIMES_YOUNG 10.0
#define HEALTH_VERY_SLOW_TIMES 20.0   /* counts for two windows: such a member is out within 20 s */
#define HEALTH_FLOOR_ARM_NS UINT64_C(20000000)
#define HEALTH_FLOOR_FLASH_NS UINT64_C(2000000)
#define HEALTH_OPS_MIN 3u
#define HEALTH_YOUNG_WINDOWS 5u
#define HEALTH_POINTS_SUSPECT 8u
#define HEALTH_POINTS_SLOW 12u        /* 36 s at the least slowness: within the minute of P5 */
#define HEALTH_ERROR_POINTS 4u        /* for a window with any */
#define HEALTH_ERROR_POINTS_SUSPECT 20u
#define HEALTH_ERROR_POINTS_FAILING 40u /* ten windows with errors, about as fast as they come */
#define HEALTH_ERROR_DECAY_WINDOWS 10u

enum health_kind { HEALTH_COMMIT, HEALTH_DELIVER, HEALTH_PROBE, HEALTH_KINDS };
enum health_verdict { HEALTH_GOOD, HEALTH_SUSPECT, HEALTH_SLOW, HEALTH_FAILING };

/* One member in one window. */
struct health_sample {
    bool watched;                /* in service: it is judged, and others are compared with it */
    bool arm;
    bool busy;                   /* our background work had more than half of its time */
    uint8_t domain;              /* members with one number fail together */
    struct { uint32_t ops; uint64_t p50_ns; } kind[HEALTH_KINDS];
    uint32_t errors;
};

struct health_member {
    double base_ns[HEALTH_KINDS]; /* its own past: moves slowly, and not while it is slow */
    uint32_t base_windows[HEALTH_KINDS];
    uint32_t slow_points, error_points, quiet_windows;
    enum health_verdict verdict;
    bool with_domain;            /* HLT-4 */
    char evidence[160];          /* of the last window that counted against it */
};

struct health { struct health_member members[MEMBERS_MAX]; };

void health_window(struct health *h, const struct health_sample samples[MEMBERS_MAX]);
void health_forgive(struct health_member *m);          /* it starts again, with its past */
uint32_t health_score(const struct health_member *m);  /* 100: nothing against it; 0: to be taken out */

#endif
