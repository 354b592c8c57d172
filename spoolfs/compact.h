/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: the end of segments: when they die, how what lives in them is moved away, and who holds messages
 * meanwhile.
 *
 *  LEASE-1 in a segment under compaction no message becomes leased and no result is taken about what lies there. Only an exchange
 *          moves leased messages (EXC-5).
 *
 * More: RET-1..3 (retire.c), CMP-1..4 (compact.c), AHD-1 (compact_ahead.c), EXC-1..5 (exchange.c). */
#ifndef COMPACT_H
#define COMPACT_H

#include "engine.h"

/* What a compaction packed is not packed again at once: it holds only what is needed, until segments it is about die. */
#define COMPACT_AGAIN_NS (60 * NS_PER_S)

/* retire.c, compact.c, lease.c */
void retire_step(struct pool *p);
enum retire_mark { RETIRE_OUT, RETIRE_IN, RETIRE_TAKEN };
/* Of the set `in` (a mark for each segment), closed under what it depends on, a part that is closed as well (RET-3), at most `max`. */
uint32_t retire_take(struct pool *p, uint8_t *in, struct segment_id *ids, uint32_t max);
void compact_step(struct pool *p);
uint32_t compact_need(const struct pool *p);           /* how short slots are: 0 not at all, to 3 */
void compact_stop(struct pool *p);
bool compact_idle(const struct pool *p);
bool compact_at_rest(const struct pool *p);            /* no victim is being read */
bool compact_movable(const struct pool *p, const struct segment *s);  /* might be a victim now, were nothing in it leased */
bool compact_pays(const struct segment *s);            /* less than half live: two of them make one */
void compact_fini(struct pool *p);
enum err lease_init(struct pool *p) MUST_CHECK;
void lease_fini(struct pool *p);
void lease_step(struct pool *p);
/* What was leased in the victims of the exchange is leased in `to`, where it lies now (EXC-5). */
void lease_moved(struct pool *p, struct segment *to);
/* The segment of the lease; none: not leased. */
struct segment_id lease_segment(const struct pool *p, struct queue_id qid);
void retire_fini(struct pool *p);

/* compact_ahead.c: which messages of a victim are dead, asked at once */
#define COMPACT_AHEAD_MAX 1024u      /* queue ids at a time: a window of messages of 1 KiB */
struct compact_ahead {
    struct index_query query;
    struct queue_id qids[COMPACT_AHEAD_MAX]; /* asked for; once answered, those that are dead, in order */
    uint32_t count;
    uint64_t until;                  /* bytes of the segment that were asked for */
    bool asking;
};
void compact_ahead_ask(struct compact_ahead *a, struct pool *p, const struct walk *w, const struct frame_view *first);
bool compact_ahead_dead(const struct compact_ahead *a, struct queue_id qid);

/* exchange.c: compactions when there is no slot to compact into */
struct segment *exchange_choose(struct pool *p);       /* the next victim, or the first; NULL: none */
enum err exchange_open(struct pool *p, const struct segment *first) MUST_CHECK;
/* A copy goes into the new segment. ERR_BUSY: once more later; ERR_FULL: no room. The bytes are taken at once. */
enum err exchange_add(struct pool *p, const struct spool_group *g) MUST_CHECK;
enum err exchange_settle(struct pool *p) MUST_CHECK;   /* all that was added is durable; ERR_BUSY: not yet */
void exchange_take(struct pool *p, struct segment *victim); /* all that is needed of it was added */
void exchange_leave_out(struct pool *p);               /* a victim was broken off */
void exchange_say(struct pool *p);                     /* no more victims */
void exchange_step(struct pool *p);
bool exchange_holds(const struct pool *p, const struct segment *s);
bool exchange_fills(const struct pool *p);
bool exchange_writes(const struct pool *p);            /* a frame of it is on its way */
bool exchange_feeds(const struct pool *p, const struct segment *s); /* it tells the index of `s` itself */
bool exchange_failed(const struct pool *p);
bool exchange_idle(const struct pool *p);
void exchange_fini(struct pool *p);

#endif
