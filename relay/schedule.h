/* SPDX-License-Identifier: Apache-2.0 */
/* Which message goes where, and when: owns every mail between its 250 (or `due`) and the mark that ends its lease.
 *
 *  SCH-1  a mail handed to the schedule ends in exactly one mark with retire or release.
 *  SCH-2  fresh mail and backlog cannot starve each other: with both waiting, one start in SCHEDULE_BACKLOG_TURN is
 *         backlog's, and backlog never holds the last 1/SCHEDULE_FRESH_SHARE of the attempts.
 *  SCH-3  memory is a window: at most SCHEDULE_FRESH_MAX fresh mails and WIRE_DUE_CREDIT_MAX from the backlog; a
 *         fresh mail beyond that goes back to the spool and comes again as due.
 *  SCH-4  a result that could not be marked is kept, and while the spool takes none no attempt starts.
 *  SCH-5  a bounce is stored in the same frame as the result it tells of; a bounce is never bounced.
 *  SCH-6  of the backlog in memory the mail with the fewest good images starts first; fresh mail keeps its share (SCH-2). What has
 *         stood back for SCHEDULE_STAND_BACK_MS, since it came, has one of the backlog's starts in SCHEDULE_OLDEST_TURN: nothing stays
 *         leased for as long as mail in danger keeps coming. */
#ifndef RELAY_SCHEDULE_H
#define RELAY_SCHEDULE_H

#include "loop.h"
#include "mail.h"
#include "port.h"
#include "settings.h"

#define SCHEDULE_BACKLOG_TURN 4u        /* choice: an outage's backlog keeps a quarter of the starts */
#define SCHEDULE_STAND_BACK_MS 60000u   /* choice: most that is in danger after a loss is gone then, and a backlog bears it */
#define SCHEDULE_OLDEST_TURN 4u         /* choice: then mail in danger keeps three quarters of the backlog's starts */
#define SCHEDULE_FRESH_SHARE 4u         /* a quarter of deliveries_max stays free for mail that has just come */
#define SCHEDULE_FRESH_MAX 16384u       /* about ten seconds of the fastest accepting we measured */
#define SCHEDULE_MEMORY_MAX (UINT64_C(64) * 1024 * 1024) /* of envelopes and bodies, beside fresh_bytes_max; beyond it
                                           nothing due is asked for and fresh mail goes back to the spool */
#define SCHEDULE_HELPING 256u           /* due mail asked for at a time: one query of the index; their envelopes are what
                                           may come on top of SCHEDULE_MEMORY_MAX */
#define SCHEDULE_JOB_RECIPIENTS_MAX 50u /* recipients in one transaction, whatever the setting: all of them must fit
                                           one bounce of BODY_INLINE_MAX */
#define SCHEDULE_EXPIRY_ATTEMPTS 3u     /* nothing expires before it was tried so often */

struct schedule;

/* `settings` must live until schedule_close. Starts the worker threads and the resolver. */
enum err schedule_open(struct loop *loop, struct port *port, const struct settings *settings,
                       struct schedule **schedule_out) MUST_CHECK;
/* Drops attempts and mail; leases end with the spool's connection. Before port_close. Nobody's callback follows. */
void schedule_close(struct schedule **schedule);

/* Mail that has just been acknowledged to its sender. Takes the caller's reference. */
void schedule_fresh(struct schedule *schedule, struct mail *mail);

/* The port's callbacks that are meant for the schedule. */
void schedule_on_due(struct schedule *schedule, struct mail *mail); /* takes the reference */
void schedule_on_recall(struct schedule *schedule, struct queue_id qid);
void schedule_on_flush(struct schedule *schedule);
void schedule_on_room(struct schedule *schedule);
void schedule_on_status(struct schedule *schedule, const struct port_status *status);

/* Starts nothing new; `done` once no attempt is in flight and every result is marked (maybe at once, then from the
 * loop, never from inside). */
void schedule_drain(struct schedule *schedule, void (*done)(void *owner), void *owner);

#define SCHEDULE_DELAY_BUCKETS 12
extern const uint64_t schedule_delay_bucket_ms[SCHEDULE_DELAY_BUCKETS]; /* upper bounds; the rest is only in the count */

struct schedule_counters {
    uint64_t delivered, deferred, bounced, expired; /* recipients, since start */
    uint64_t retired, attempts;                     /* messages; transactions begun */
    uint64_t delay_bucket[SCHEDULE_DELAY_BUCKETS];  /* delivered recipients, not cumulative */
    uint64_t delay_sum_ms;                          /* over all delivered recipients */
    uint32_t mails, fresh, active, connections, lanes, lanes_dead, unmarked;
};
void schedule_counters(const struct schedule *schedule, struct schedule_counters *counters_out);

#endif
