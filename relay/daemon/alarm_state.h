/* SPDX-License-Identifier: Apache-2.0 */
/* Which alarms are raised: a machine over what the spool says and over its silence. Pure: time is an argument.
 *
 *   quiet --present for the kind's settling time [step]--> raised --every repeat_ms [step]--> raised, said again
 *     ^--- absent for ALARM_CLEAR_MS [step], said once -------'
 *
 *  ALS-1  level-triggered: a condition that lasts is said again every repeat_ms, and its end is said exactly once. One that is
 *         how the pool was made is said once, and anew as soon as there is more to it.
 *  ALS-2  nothing is raised by one look alone that the next look takes back: settling times, and ALARM_CLEAR_MS. Nor is
 *         anything over that the next message brings back: redundancy_low lasts while failure domains are wanting.
 *  ALS-3  bounded: one condition a kind and member; of events that come in crowds one a kind and member is said in
 *         ALARM_EVENT_GAP_MS, with how many it stands for.
 *  ALS-4  the heart beats only while the spool reports and a relay is connected: its silence is the alarm. */
#ifndef DAEMON_ALARM_STATE_H
#define DAEMON_ALARM_STATE_H

#include "alarm_note.h"

#define ALARM_SILENT_MS 15000u      /* a mount or a restart of the spool takes seconds; the supervisor kills it after 30 s */
#define ALARM_CLEAR_MS 5000u        /* what flaps within this is one alarm */
#define ALARM_REFUSED_MS 60000u     /* a refusal so long ago is over */
#define ALARM_EVENT_GAP_MS 60000u
#define ALARM_CONDITIONS_MAX (8u + 2u * MEMBERS_MAX)
#define ALARM_EVENTS_MAX 64u        /* kinds and members remembered for ALS-3; the oldest is forgotten */

struct alarm_limits {
    uint64_t repeat_ms, beat_ms;    /* beat_ms 0: no heartbeat */
    double late_seconds;
};

struct alarm_condition {
    bool used, present, raised;
    bool once;                      /* not repeated: nothing has happened, and only a person with a disk ends it */
    enum event_kind kind;
    char member[MEMBER_NAME_BYTES], evidence[256];
    const char *severity;
    uint64_t settle_ms;
    uint64_t changed_ms;            /* since when `present` is what it is */
    uint64_t said_ms, since_wall_ms;
    uint32_t count;
};

struct alarm_seen {
    bool used;
    enum event_kind kind;
    char member[MEMBER_NAME_BYTES];
    uint64_t said_ms;
    uint32_t more;                  /* since then */
    struct alarm_event last;
};

struct alarm_state {
    struct alarm_limits limits;
    struct alarm_view view;         /* the last one */
    struct alarm_condition conditions[ALARM_CONDITIONS_MAX];
    struct alarm_seen seen[ALARM_EVENTS_MAX];
    uint64_t saw_ms;                /* when; at first: the start */
    uint64_t beat_ms, refused_ms;   /* refused_ms 0: not since the start */
    bool saw;
    void *owner;
    void (*emit)(void *owner, const struct alarm_note *note);
};

void alarm_state_init(struct alarm_state *s, const struct alarm_limits *limits, uint64_t now_ms);
void alarm_state_saw(struct alarm_state *s, const struct alarm_view *view, uint64_t now_ms);
void alarm_state_happened(struct alarm_state *s, const struct alarm_event *event, uint64_t now_ms);
void alarm_state_test(struct alarm_state *s, uint64_t wall_ms); /* says that it is only a test */
/* A member's SMART verdict is bad, or is not any more. */
void alarm_state_smart(struct alarm_state *s, const char *member, bool failing, const char *evidence, uint64_t now_ms);
/* Says what is to be said. Call at least once a second. */
void alarm_state_step(struct alarm_state *s, uint64_t now_ms, uint64_t wall_ms);

#endif
