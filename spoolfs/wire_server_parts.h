/* SPDX-License-Identifier: Apache-2.0 */
/* Private to wire_server*.c: one server, its connection and what its files ask of each other. See wire_server.h. */
#ifndef WIRE_SERVER_PARTS_H
#define WIRE_SERVER_PARTS_H

#include "wire_server.h"

#include <base/assert.h>
#include <base/link.h>
#include <spoolfs/index.h>
#include <spoolfs/spool.h>
#include <spoolfs/wire.h>

#define SERVER_NS_PER_MS UINT64_C(1000000)
#define SERVER_IN_BYTES ((uint32_t)(1 * MIB))  /* one read a turn; at least one whole message */
#define SERVER_OUT_BYTES ((uint32_t)(5 * MIB))
/* Nothing more is parsed while so much output waits: what is under way by then (appends, chunks and marks within their
 * credits, 64 bytes an answer) fits the rest, so that an answer always has room (SRV-2). */
#define SERVER_OUT_GATE ((uint32_t)(1 * MIB))
#define SERVER_OUT_ANSWERS ((uint32_t)(1 * MIB)) /* kept free for answers by due, pieces and documents */
#define SERVER_RANGES_MAX 4096u                /* lent ranges remembered: 16 million ids, 17 minutes at 16,000 a second;
                                                  a transaction older than that gets 451 */
#define SERVER_STREAMS_MAX 1024u               /* messages arriving in CHUNKs at one time: sessions_max */
#define SERVER_AGAIN_BYTES_MAX ((uint32_t)(16 * MIB))
#define SERVER_AGAIN_LOOK_MS 500u
#define SERVER_AGAIN_LOOKUPS 32u               /* index queries at one time */
#define SERVER_AGAIN_WAIT_MS 25000u            /* then "later": before the relay's own 30 s are over */
#define SERVER_DUE_BATCH 256u
#define SERVER_DUE_POLL_MS 1000u               /* nothing was due: when to ask again; due times are minutes */
#define SERVER_BLOCKED_MS 5u                   /* the engine had no room and nothing of it may be in flight: look again */
#define SERVER_STATUS_MS 500u
#define SERVER_STATUS_SOON_MS 20u              /* after a refusal; a pool of many segments takes a while to sum up */
#define SERVER_READS_MAX 16u                   /* what the engine has in flight (READS_IN_FLIGHT_MAX) */

_Static_assert((WIRE_APPENDS_MAX + WIRE_MARKS_MAX + WIRE_CHUNKS_MAX) * 80u <= SERVER_OUT_ANSWERS, "answers fit");
_Static_assert(SERVER_OUT_GATE + 2 * SERVER_OUT_ANSWERS + SERVER_READS_MAX * (CHUNK_BYTES_MAX + 64) <= SERVER_OUT_BYTES,
               "pieces fit beside answers");
_Static_assert(SERVER_IN_BYTES >= 2 * WIRE_MESSAGE_MAX, "a message and the start of the next");

/* held.flags; held.slot counts the message's groups in the engine */
enum held_flag {
    HELD_LEASED = 1,   /* the engine knows: else it is tried again */
    HELD_STALE = 2,    /* of a connection that is gone, not presented again yet */
    HELD_GHOST = 4,    /* no longer live: its marks are acknowledged and forgotten */
    HELD_UNSURE = 8,   /* its segment is unknown: looked up when the index is ready */
    HELD_ENDING = 16,  /* a group that ends the lease is in the engine */
    HELD_RECALLED = 32,
    HELD_PRESENTED = 128, /* its locator is the relay's word: the index has the last one */
    HELD_ASKED = 256,  /* a lookup is under way */
    HELD_OVER = 64,    /* the relay has given it back; held until the last of its groups is back */
};

enum group_kind { GROUP_APPEND, GROUP_CHUNK, GROUP_MARK };

/* A group in the engine, and what to answer when it comes back. */
struct server_group {
    struct spool_group group;
    struct spool_record records[3];
    struct wire_server *server;
    struct link link;            /* free list, or in the engine */
    enum group_kind kind;
    uint32_t connection, tag, number;
    uint32_t bytes;              /* of the append credit */
    uint32_t message;            /* which record is the MESSAGE; UINT32_MAX: none */
    uint8_t flags;
    struct queue_id qid, bounce;
};

/* A message that arrives in CHUNKs. */
struct server_stream {
    struct link link;            /* while its MESSAGE waits */
    struct queue_id qid;
    uint32_t next, pending, connection;
    uint64_t bytes;
    enum err error;
    bool waits;                  /* its MESSAGE came and waits for the last CHUNK */
    struct wire_message message; /* its rows point into copy */
    uint8_t *copy;
};

struct server_range { uint64_t first; uint32_t count; uint64_t used[WIRE_QUEUE_IDS_LENT / 64]; };

enum again_kind { AGAIN_VERIFY, AGAIN_APPEND, AGAIN_MARK };

/* Something presented again that only the index can judge. */
struct server_again {
    struct link link;
    struct wire_server *server;
    enum again_kind kind;
    uint32_t connection, bytes;
    struct wire_message message; /* its rows point into copy */
    uint8_t *copy;
    uint64_t deadline_ns;
    bool judged;                 /* not known: to be submitted as new */
    struct index_query query;
};

struct server_fetch {
    struct link link;            /* in the waiting list */
    struct wire_server *server;
    bool used, busy, ended, looked_up, chunked, has_places;
    uint32_t connection, tag, credit;
    struct queue_id qid;
    uint32_t next, chunk_count;
    uint32_t place_at;           /* in query.chunks */
    uint64_t retry_ns, deadline_ns;
    struct index_query query;
    struct spool_read read;
};

struct server_pause { uint64_t destination, until_ns, age; };

struct server_document {
    bool used, answered;
    uint32_t connection, tag, generation;
    enum err error;
    uint8_t *bytes;
    uint32_t len, sent;
};

enum connection_state { CONNECTION_NONE, CONNECTION_NEW, CONNECTION_PRESENTING, CONNECTION_READY };

struct wire_server {
    struct io *io;
    struct pool *pool;
    struct wire_server_hooks hooks;
    struct wire_buffer in, out;
    enum connection_state state;
    uint32_t connection;         /* its number; 0 before the first */
    bool blocked, stopping;
    bool lost;                   /* a violation: nothing more is said or heard until the disconnect */
    uint64_t run;                /* random, of this server: a relay sees whether the spool restarted */
    uint64_t incarnation;
    struct io_timer wake;
    uint64_t wake_ns;

    /* groups */
    struct link groups_free, groups_engine;
    uint32_t groups_out, groups_old; /* in the engine; and those of earlier connections */
    uint32_t appends, append_bytes, chunks, marks; /* credits taken by this connection */
    struct server_stream streams[SERVER_STREAMS_MAX];
    struct link streams_waiting;
    struct wire_table stream_of;
    uint16_t streams_free[SERVER_STREAMS_MAX];
    uint32_t streams_free_count;

    /* ids */
    struct server_range *ranges[SERVER_RANGES_MAX];
    uint32_t range_first, range_count;
    struct queue_id lent_last;

    /* held */
    struct wire_table held;
    bool unleased;               /* some entries are not HELD_LEASED */
    uint64_t unleased_retry_ns, grace_until_ns;

    /* again */
    struct link again, again_asked; /* waiting; their lookup is out */
    uint32_t again_bytes, lookups;
    uint64_t again_next_ns;      /* while the index is not ready: when to look for what has waited too long */
    bool barrier_wanted, barrier_out;
    struct index_query barrier;

    /* due */
    uint32_t due_credit;
    bool due_out, due_risk;      /* due_risk: what was found last was partly below copies: look further ahead */
    uint64_t due_next_ns;
    struct index_query due;
    struct server_pause pauses[WIRE_PAUSES_MAX];
    uint32_t pause_count;
    uint64_t pause_age;
    uint64_t skip[WIRE_PAUSES_MAX];

    /* fetch */
    struct server_fetch fetches[WIRE_FETCHES_MAX * 2]; /* as many again for those of a lost connection */
    struct server_fetch *fetch_of[WIRE_FETCHES_MAX];
    struct link fetch_waiting;
    uint32_t fetches_busy, reads_out;

    struct server_document documents[WIRE_DOCUMENTS_MAX];
    uint32_t document_generation;

    struct pool_status status;   /* large: not on the stack */
    struct wire_message status_sent;
    uint64_t status_next_ns, status_soon_ns;
    bool status_wanted, index_ready;
};

enum verdict { TAKEN, BLOCKED }; /* BLOCKED: the engine has no room, the message stays where it is */

/* wire_server.c */
uint64_t server_now_ns(struct wire_server *s);
void server_wake_at(struct wire_server *s, uint64_t ns);
void server_say(struct wire_server *s, const struct wire_message *m);
void server_violation(struct wire_server *s, const char *what);
void server_log(struct wire_server *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool server_index_usable(struct wire_server *s);
uint32_t server_out_room(const struct wire_server *s); /* for due, pieces and documents, answers kept free */

/* wire_server_ids.c: ids lent, messages held */
void server_lend(struct wire_server *s, uint32_t count);
enum id_state { ID_UNKNOWN, ID_FRESH, ID_USED, ID_FOREIGN, ID_FORGOTTEN /* SERVER_RANGES_MAX */ };
enum id_state server_id_state(const struct wire_server *s, struct queue_id qid);
void server_id_use(struct wire_server *s, struct queue_id qid, bool used); /* harmless when it is not one of ours */
bool server_can_hold(const struct wire_server *s);
bool server_hold(struct wire_server *s, struct queue_id qid, struct segment_id locator, uint32_t flags);
void server_let_go(struct wire_server *s, struct queue_id qid);
void server_end_lease(struct wire_server *s, struct queue_id qid);
void server_held_stale(struct wire_server *s);           /* the connection is lost: all of them */
void server_held_drop_stale(struct wire_server *s);
bool server_is_current(const struct wire_server *s, uint32_t connection);
void server_on_held(struct wire_server *s, const struct wire_message *m);
void server_held_step(struct wire_server *s);

/* wire_server_append.c, wire_server_mark.c */
struct server_group *group_take(struct wire_server *s, enum group_kind kind, const struct wire_message *m);
void group_give(struct server_group *g);
enum err group_submit(struct server_group *g, uint32_t count, enum spool_class class) MUST_CHECK;
void group_returned(struct server_group *g); /* it came back: counted */
enum verdict server_on_append(struct wire_server *s, const struct wire_message *m);
enum err append_submit(struct wire_server *s, const struct wire_message *m) MUST_CHECK;
/* Answers, and gives the credit back: only while the connection it came from lives. */
void append_answer(struct wire_server *s, uint32_t connection, uint32_t tag, struct queue_id qid, uint32_t bytes,
                   enum err e, struct segment_id locator);
enum verdict server_on_chunk(struct wire_server *s, const struct wire_message *m);
void server_on_abort(struct wire_server *s, const struct wire_message *m);
void server_streams_drop(struct wire_server *s, bool all);
void server_streams_step(struct wire_server *s);
enum verdict server_on_mark(struct wire_server *s, const struct wire_message *m);
enum err mark_submit(struct wire_server *s, const struct wire_message *m) MUST_CHECK;
void mark_answer(struct wire_server *s, uint32_t connection, const struct wire_message *m, enum err e,
                 enum err bounce_error, struct segment_id bounce_locator);
bool mark_must_wait(struct wire_server *s, const struct wire_held *h);
bool envelope_fits(const struct wire_message *m, uint64_t body_bytes);

/* wire_server_again.c */
bool again_add(struct wire_server *s, enum again_kind kind, const struct wire_message *m); /* false: no room */
void again_step(struct wire_server *s);
void again_drop(struct wire_server *s);

/* wire_server_due.c */
void server_on_pause(struct wire_server *s, const struct wire_message *m);
void due_step(struct wire_server *s);

/* wire_server_fetch.c */
void server_on_fetch(struct wire_server *s, const struct wire_message *m);
void server_on_fetch_more(struct wire_server *s, const struct wire_message *m);
void server_on_fetch_end(struct wire_server *s, const struct wire_message *m);
void fetch_drop(struct wire_server *s);
void fetch_step(struct wire_server *s);

#endif
