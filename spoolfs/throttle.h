/* SPDX-License-Identifier: Apache-2.0 */
/* How much background work one member may do now. Pure: (samples, state) -> tokens; replayed on traces by its test.
 *
 *  THR-1  a member without mail runs background work at full speed.
 *  THR-2  while mail flows, work is halved when mail takes longer than the undisturbed baseline by more than the tolerance
 *         - in the mean or at the worst - and grows by a step while it does not. Mail is compared with itself: commits with
 *         commits, deliveries with deliveries, on this member.
 *  THR-3  the floor always remains: mail never starves the work for good.
 *  THR-4  the baseline is measured and not believed: THROTTLE_REST of THROTTLE_CYCLE intervals nothing runs, on all
 *         members at the same time; it follows what drifts and is not moved far by one outlier.
 *  THR-5  on an arm background work has at most its share of the device's time, and mail the rest: what an arm needs to
 *         serve more mail cannot be seen in the latency of the mail there is. */
#ifndef THROTTLE_H
#define THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THROTTLE_INTERVAL_MS 100u
#define THROTTLE_CYCLE 16u
#define THROTTLE_REST 2u                         /* the first of them may still see the end of what ran before */
#define THROTTLE_IDLE_INTERVALS 5u               /* without mail: half a second */
#define THROTTLE_RATE_MAX (UINT64_C(2) << 30)    /* bytes a second: above what a member reads */
/* For each judgement that went well: bytes a second so few that an arm does not jump over its limit, and a part of what
 * the member is known to bear, so that flash does not take minutes. */
#define THROTTLE_STEP (UINT64_C(512) << 10)
#define THROTTLE_STEP_PART 16u
/* A judgement takes so many samples that its mean can be told from noise, or a second of thin mail; below five samples
 * there is none, and after five such the work creeps up (as Linux's writeback throttle does). */
#define THROTTLE_JUDGE_SAMPLES 64u
#define THROTTLE_JUDGE_INTERVALS_MIN 3u
#define THROTTLE_JUDGE_INTERVALS_MAX 10u
#define THROTTLE_SAMPLES_MIN 5u
#define THROTTLE_UNKNOWN_MAX 5u

enum throttle_mail { THROTTLE_COMMIT, THROTTLE_DELIVER, THROTTLE_MAIL_KINDS };

/* Of one interval. */
struct throttle_sample {
    struct { uint64_t ops, sum_ns, worst_ns; } mail[THROTTLE_MAIL_KINDS];
    uint64_t bytes;      /* background work that began */
    uint64_t busy_ns;    /* with at least one background op at the device */
    bool disturbed;      /* there was one at any time */
};

/* What is asked of the controller now. */
struct throttle_need {
    uint64_t floor;               /* bytes a second that always remain */
    uint32_t tolerance_percent;   /* of the time mail takes, over the baseline */
    uint32_t share_percent;       /* of the device's time; 100: not bounded */
};

struct throttle_sum { uint64_t ops, sum_ns, worst_sum_ns, worst_count; };

struct throttle {
    uint64_t rate;                /* bytes a second while mail flows */
    struct { double mean_ns, worst_ns; } base[THROTTLE_MAIL_KINDS]; /* undisturbed; 0: not measured yet */
    struct throttle_sum rested[THROTTLE_MAIL_KINDS], worked[THROTTLE_MAIL_KINDS]; /* gathered for the next step */
    uint64_t worked_bytes, worked_busy_ns, granted;
    uint32_t worked_intervals, unknown, intervals, idle;
    bool resting;
    uint64_t cuts, raises;
};

/* Called once an interval; returns the bytes background work may do in the next one. */
uint64_t throttle_next(struct throttle *t, const struct throttle_need *need, const struct throttle_sample *s);

/* One line of a trace: numbers in the order of the struct, times in microseconds. False: it is not one. */
bool throttle_sample_parse(const char *line, struct throttle_sample *s_out);
int throttle_sample_print(char *text, size_t bytes, const struct throttle_sample *s);

#endif
