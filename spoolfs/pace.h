/* SPDX-License-Identifier: Apache-2.0 */
/* Whether redundancy is whole again by its deadline, judged from what remains and the pace so far. Pure.
 *
 *   whole -> counting [something is at risk: the clock begins] -> behind -> counting | whole
 *
 *  PAC-1  behind is said as soon as the pace of PACE_FIRM windows in a row leads past the deadline, and when it has passed.
 *  PAC-2  it is taken back when nothing remains, or before the deadline when PACE_FIRM windows in a row lead to its first
 *         PACE_CLEAR_PERCENT: between the two nothing changes, so that a pace at the edge does not flap.
 *  PAC-3  a window in which the work could not go on (paused, no place to go) says nothing of its pace; the clock runs. */
#ifndef PACE_H
#define PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_DEADLINE_S 3600u   /* DESIGN section 6 */
#define PACE_WINDOW_S 10u       /* some segments each, at the floor */
#define PACE_FIRM 3u            /* half a minute: a burst of mail or a flush that takes its time is over by then */
#define PACE_CLEAR_PERCENT 90u

struct pace_sample {
    uint64_t now_ns;
    uint64_t remaining;         /* bytes; 0: whole */
    uint64_t done;              /* bytes so far, ever */
    bool working;               /* now */
};

struct pace {
    uint64_t since_ns;          /* when redundancy was lost; 0: it is whole */
    uint64_t window_ns, window_done; /* where the window began; one sample a second is looked at */
    uint64_t looked_ns;
    uint32_t seconds, worked;   /* samples of the window, and those in which there was work */
    double rate;                /* bytes a second */
    uint32_t windows, late_row, early_row;
    bool behind;
};

/* Called often. Returns whether `behind` changed. */
bool pace_judge(struct pace *p, const struct pace_sample *s);
/* Seconds until all that remains is done, at this pace; UINT64_MAX: not known, or never. */
uint64_t pace_seconds_left(const struct pace *p, uint64_t remaining);

#endif
