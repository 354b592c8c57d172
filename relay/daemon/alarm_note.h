/* SPDX-License-Identifier: Apache-2.0 */
/* What the alarm process knows and what it says: plain data between its parts. Pure. */
#ifndef DAEMON_ALARM_NOTE_H
#define DAEMON_ALARM_NOTE_H

#include "json_out.h"

#include <base/ids.h>
#include <spoolfs/pool.h>

/* --- what the spool process last said (alarm_view.c) --- */

struct alarm_member {
    char name[MEMBER_NAME_BYTES], path[256], serial[64], state[16], evidence[160];
};

struct alarm_view {
    bool mounted, relay_connected, rebuild_behind, scrub_blind;
    bool lacks_domains;               /* the state is at-risk because of how the pool was made, and nothing else */
    bool domains_wanting;             /* whatever mail comes has fewer images than copies */
    bool index_ready;                 /* late_seconds is known */
    char pool[UUID_TEXT], state[16], action[160];
    char refusing[160];               /* why new mail is refused now, or empty */
    uint64_t messages, below_copies, refused; /* refused: answers of 451 and 452 since the relay's start */
    double late_seconds;              /* how long the message that is due the longest has been due */
    uint32_t member_count;
    struct alarm_member members[MEMBERS_MAX];
};

/* An event of the spool's own log. */
struct alarm_event {
    enum event_kind kind;
    uint64_t wall_ms;
    char member[MEMBER_NAME_BYTES], serial[64], evidence[256];
};

/* --- what goes out --- */

enum alarm_what { ALARM_RAISED, ALARM_REPEATED, ALARM_CLEARED, ALARM_HAPPENED, ALARM_BEAT };

struct alarm_note {
    enum alarm_what what;
    enum event_kind kind;             /* means nothing for ALARM_BEAT */
    const char *severity;             /* static */
    char member[MEMBER_NAME_BYTES], path[256], serial[64], pool[UUID_TEXT], evidence[256];
    uint64_t at_ms, since_ms;         /* wall clock */
    uint32_t count;                   /* HAPPENED: how many of the kind this stands for; REPEATED: which one */
};

const char *alarm_what_word(enum alarm_what what);
/* The event's name as hooks and webhooks see it: "queue_delayed", "queue_delayed_cleared", "heartbeat". */
void alarm_note_name(const struct alarm_note *n, char name[48]);
/* One object: the webhook's body. docs/CONFIG.md lists the members. */
void alarm_note_json(const struct alarm_note *n, const char *host, struct json_out *j);

#endif
