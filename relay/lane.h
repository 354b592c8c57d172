/* SPDX-License-Identifier: Apache-2.0 */
/* A lane: the mail in memory for one destination, how many attempts it bears at one time, and whether it is dead.
 * Pure: time is an argument. schedule.c drives it, attempt.c keeps its connections in it.
 *
 *      alive --every host failed, nothing works [lane_failed]--> dead --dead_until_ms passed, or flush [lane_revive]--> alive
 *
 *  LAN-1  limit <= the configured limit; at busy >= limit nothing starts; a dead lane starts nothing.
 *  LAN-2  a lane with an attempt, a queued job or a connection is never freed.
 *  LAN-3  a lane stands in the ready list of a queue exactly when that queue waits and lane_can_start says so.
 *  LAN-4  backlog never holds the last limit / LANE_FRESH_SHARE attempts of its lane. */
#ifndef RELAY_LANE_H
#define RELAY_LANE_H

#include "mail.h"
#include "outcome.h"
#include "route.h"

#include <base/heap.h>

#define LANES_MAX 16384u     /* destinations with mail in memory, or dead, at one time */
#define LANE_KEY_BYTES 520u  /* kind, nexthop and domain */
#define LANE_FRESH_SHARE 4u  /* backlog leaves a quarter of the lane's connections to mail that has just come: what is
                                slow here is slow for minutes, and a connection that is taken cannot be taken back */
#define LANE_RETRIES_MAX 2u  /* a job whose connection died under it goes to another one, so often, before it is deferred */

enum lane_class { LANE_FRESH, LANE_BACKLOG, LANE_CLASSES };

/* A lane's queues: fresh mail, then backlog by the good images of its message: 1, 2, 3 and more. Of none (no member that
 * has it can be read now) an attempt can only be in vain: last. */
#define LANE_RANKS 3u
enum { LANE_QUEUE_FRESH, LANE_QUEUE_RISK, LANE_QUEUES = LANE_QUEUE_RISK + LANE_RANKS };
static inline enum lane_class lane_class_of(uint32_t queue)
{
    return queue == LANE_QUEUE_FRESH ? LANE_FRESH : LANE_BACKLOG;
}
static inline uint32_t lane_queue_of(enum lane_class class, uint32_t images)
{
    uint32_t rank = images == 0 || images > LANE_RANKS ? LANE_RANKS : images;
    return class == LANE_FRESH ? LANE_QUEUE_FRESH : LANE_QUEUE_RISK + rank - 1;
}

/* One mail in the schedule. */
struct item {
    struct link link;          /* schedule's list of leases waiting for room to be ended, or none */
    struct link hash_link;
    struct link jobs;          /* job.item_link */
    struct mail *mail;
    uint8_t *body;             /* fetched: shared by its jobs; mail->body when that is there */
    enum lane_class class;
    bool due;                  /* came from the backlog: counts in the window of due mail */
    bool recalled;             /* the administrator wants it back */
    uint32_t open;             /* recipients of this round without a result that is marked */
    uint32_t staying;          /* recipients that are not done: at the end release instead of retire */
};

struct job_recipient {
    uint32_t index;            /* in the envelope */
    uint32_t len;
    const char *address;       /* in the mail's envelope */
    const char *original;      /* likewise: what the client said, when the alias tables made this of it; or NULL */
    uint32_t original_len;
    enum mark_status status;   /* MARK_PENDING: no result yet */
    uint64_t deferred_until_ms;/* pool clock */
    char dsn[OUTCOME_DSN_BYTES];
    char *reason;              /* owned; NULL when delivered */
};

enum job_state { JOB_QUEUED, JOB_ACTIVE, JOB_FINISHED };

/* Recipients of one mail that go the same way from the same sender, in one transaction. */
struct job {
    struct link link;          /* lane queue, or schedule's list of results without a mark */
    struct link item_link;
    struct item *item;
    struct lane *lane;         /* NULL: the route itself was the answer */
    const char *sender;        /* in the mail's envelope: its own, or the owner of the alias */
    uint32_t sender_len;
    void *attempt;             /* whoever works on it: attempt.c; afterwards the head being fetched: schedule_mark.c */
    struct mail *bounce;       /* written, not yet marked */
    enum job_state state;
    uint64_t queued_ms, started_ms, connected_ms; /* loop time */
    enum lane_class class;
    uint8_t retries;
    bool held;                 /* by its transport: waits for a person, never expires */
    uint32_t count, capacity, resolved, bounced;
    struct job_recipient recipients[];
};

struct lane {
    struct link hash_link;
    struct link ready[LANE_QUEUES];    /* in the schedule's ready lists */
    struct heap_node wake;             /* in the table's heap: end of death, then of the memory of it */
    struct link queue[LANE_QUEUES];    /* jobs */
    struct link idle;                  /* connections without a job: attempt.c */
    struct route route;                /* host filled in: never empty for SMTP */
    uint64_t key_hash;
    struct job *filling;               /* while a mail is being sorted: its job here */
    struct lane *filling_next;
    bool in_filling, paused;           /* paused: the spool hands out nothing for this domain */
    uint32_t queued, busy, busy_of[LANE_CLASSES];
    uint32_t sessions;                 /* connections, being made or made */
    uint32_t working;                  /* connections that got through their handshake */
    uint32_t limit, limit_max;
    uint32_t successes;                /* since the limit last grew */
    uint32_t failures;                 /* rounds of death without a success between */
    uint64_t dead_until_ms;            /* loop time; 0: alive */
    struct outcome why_dead;
    char key[LANE_KEY_BYTES];
};

struct lane_table {
    struct link *buckets;
    uint32_t count, dead;
    struct heap wakes;
    struct heap_node **wake_nodes;
};

enum err lane_table_open(struct lane_table *t) MUST_CHECK;
void lane_table_close(struct lane_table *t); /* frees what is left; queues must be empty */
/* The lane of a route and a recipient's domain; made when new. ERR_BUSY at LANES_MAX. */
enum err lane_find(struct lane_table *t, const struct route *route, const char *domain, uint32_t domain_len,
                   struct lane **lane_out) MUST_CHECK;
void lane_free_when_empty(struct lane_table *t, struct lane *lane);

struct lane_limits { uint32_t initial, max; uint64_t backoff_min_ms, backoff_max_ms; };
void lane_configure(struct lane *lane, const struct lane_limits *limits);
bool lane_can_start(const struct lane *lane, uint32_t queue);
void lane_succeeded(struct lane *lane);
/* The host failed before it took anything. True: nothing else works there, the lane is now dead. */
bool lane_failed(struct lane_table *t, struct lane *lane, const struct lane_limits *limits, uint64_t now_ms,
                 const struct outcome *why);
void lane_revive(struct lane_table *t, struct lane *lane, uint64_t now_ms, const struct lane_limits *limits);
/* The next lane whose death, or the memory of it, ends by `through_ms` (UINT64_MAX: all, forgetting the memory too);
 * NULL. The lane is revived already; one that nothing needs any more is freed and passed over. */
struct lane *lane_wake(struct lane_table *t, uint64_t through_ms, uint64_t now_ms, const struct lane_limits *limits);

#endif
