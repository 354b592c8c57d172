/* SPDX-License-Identifier: Apache-2.0 */
/* Notes on their way through one channel (the hook, the webhook): bounded, in order, tried again, given up. Pure.
 *
 *   waiting --[next]--> in flight --[done: ok]--> sent
 *      ^----[done: failed, back-off]-'--ALARM_TRIES_MAX--> failed
 *
 *  ALQ-1  at most ALARM_QUEUE_MAX notes; the oldest that is not in flight makes room and is counted as dropped. The
 *         alarm process repeats what lasts, so a dropped note costs time, not the alarm.
 *  ALQ-2  of one condition the latest word waits, not every word: a channel that was down for a day says what is.
 *  ALQ-3  one note is in flight at a time. */
#ifndef DAEMON_ALARM_QUEUE_H
#define DAEMON_ALARM_QUEUE_H

#include "alarm_note.h"

#define ALARM_QUEUE_MAX 64u
#define ALARM_TRIES_MAX 6u          /* 2, 4, 8, 16, 32 s in between: a minute; what lasts is repeated anyway */
#define ALARM_RETRY_FIRST_MS 2000u

struct alarm_queue {
    struct alarm_note notes[ALARM_QUEUE_MAX]; /* in order */
    uint32_t count, tries;
    bool flying;                    /* notes[0] is in flight */
    uint64_t not_before_ms;
    uint64_t sent, failed, dropped; /* failed: given up */
};

void alarm_queue_put(struct alarm_queue *q, const struct alarm_note *n);
/* The note to send now, which is in flight from here on; NULL: nothing to do now. Stays valid until alarm_queue_done. */
const struct alarm_note *alarm_queue_next(struct alarm_queue *q, uint64_t now_ms);
void alarm_queue_done(struct alarm_queue *q, bool ok, uint64_t now_ms);

#endif
