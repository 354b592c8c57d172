/* SPDX-License-Identifier: Apache-2.0 */
/* The index: derived data about the log, behind the commit path, disposable. One implementation over LMDB with its
 * own thread, one in memory and synchronous (simulator, tests). The engine's thread calls everything here.
 *
 *  IDX-1  the watermark of a segment never advances in a transaction before that of the effects of the records below it;
 *         records that are fed twice because of a crash change nothing but a count of attempts.
 *  IDX-2  the result does not depend on the order in which segments are replayed: during a replay a RETIRE or MARK
 *         before its MESSAGE leaves a tombstone; of two STATEs the higher sequence wins; a MESSAGE seen twice (hedge,
 *         compaction) with one digest is one message; with another digest it is a second message (index_on_conflict).
 *  IDX-3  every value carries a check; a value that fails it counts as index damage: on_damage, never a wrong answer.
 *  IDX-4  index_feed never blocks; when the ring is full it says ERR_INDEX_LAG and nothing was taken.
 *  IDX-5  a segment with a RETIRE depends on every segment known to hold a copy of the message (index_copies.c). */
#ifndef SPOOLFS_INDEX_H
#define SPOOLFS_INDEX_H

#include <base/err.h>
#include <base/link.h>
#include <spoolfs/envelope.h>
#include <spoolfs/record.h>
#include <stdbool.h>

struct index;

/* A committed record. `payload`: MESSAGE: the encoded envelope; MARK: the marks; else empty. Copied by index_feed. */
struct index_record {
    enum record_type type;
    bool moved;                       /* a copy made by compaction: it changes places, never liveness */
    struct queue_id qid;
    struct segment_id message_segment;/* MARK, RETIRE, STATE: where their MESSAGE lay when they were written */
    struct place place;
    uint64_t sequence;
    struct digest digest;
    uint32_t arg;                     /* CHUNK number, CHUNK count of a MESSAGE, record_state */
    uint64_t body_bytes;              /* CHUNK: its bytes */
    const void *payload;
    uint32_t payload_bytes;
};

/* What a segment still holds. `deps`: segments that must be dead before this one may go, because this one holds
 * their RETIREs, MARKs or STATEs, or was the target of their compaction. */
struct index_segment {
    struct segment_id id;
    uint64_t watermark;               /* bytes of the segment that are applied */
    uint32_t live_messages, live_chunks;
    uint64_t live_bytes;
    const struct segment_id *deps;
    uint32_t dep_count;
    bool deps_overflowed;             /* more than INDEX_DEPS_MAX: depends on every other segment */
};
#define INDEX_DEPS_MAX 1024u

struct index_callbacks {
    void *owner;
    /* All run on the engine's thread, from index_dispatch. */
    void (*on_open)(void *owner, enum err e);           /* ERR_OK, or ERR_NOT_FOUND/ERR_CORRUPT...: empty, to be rebuilt */
    void (*on_segment)(void *owner, const struct index_segment *s); /* coalesced; after each batch, and for all at open */
    void (*on_room)(void *owner);                       /* the ring has emptied to half */
    void (*on_damage)(void *owner, const char *what);   /* found while running: the caller discards and rebuilds */
    void (*on_conflict)(void *owner, struct queue_id qid, struct place second);
};

/* --- feed: in commit order within a segment --- */
enum err index_feed(struct index *index, const struct index_record *r) MUST_CHECK;
/* All of `segment` below `offset` has been fed. `moved_from`: set when the frame held a compaction's copies. */
enum err index_watermark(struct index *index, struct segment_id segment, uint64_t offset, struct segment_id moved_from) MUST_CHECK;
enum err index_freed(struct index *index, const struct segment_id *segments, uint32_t count) MUST_CHECK;
/* CHUNKs of an append that will never commit. */
enum err index_abort(struct index *index, struct queue_id qid) MUST_CHECK;
/* The incarnation of this mount, once, right after open: index_replay_end keeps CHUNKs without a MESSAGE that lie in its
 * segments, for their append may be under way. Untold, the first replay's end drops all, later ones none. `keep_chunks`: it
 * keeps all of them, because a member is away that may hold their MESSAGEs. */
enum err index_incarnation(struct index *index, uint64_t incarnation, bool keep_chunks) MUST_CHECK;
/* The incarnation of the last mount that began a replay into what was opened, from on_open on; 0: it was empty. */
uint64_t index_kept_by(struct index *index);
uint32_t index_room(struct index *index);               /* bytes free in the ring */
/* The file system has no room for what was fed: it waits, and is tried again. Each change makes the event fd readable. */
bool index_full(const struct index *index);
#define INDEX_FEED_OVERHEAD 192u                        /* ring bytes of a record beyond its payload */

/* Replay: between begin and end tombstones are kept and nothing is due. `rebuild` starts from nothing. */
enum err index_replay_begin(struct index *index, bool rebuild) MUST_CHECK;
enum err index_replay_end(struct index *index) MUST_CHECK; /* drops tombstones and CHUNKs without a MESSAGE */

/* Leased messages are not due. In memory only. */
enum err index_lease(struct index *index, struct queue_id qid, bool leased) MUST_CHECK;

/* --- ask --- */
enum index_state { INDEX_ACTIVE = 1, INDEX_HOLD = 2, INDEX_EXPIRE = 3 }; /* EXPIRE: due now, to be bounced */

struct index_entry {
    struct queue_id qid;
    struct place place;
    struct digest digest;
    enum index_state state;
    uint32_t chunk_count, attempts;
    uint64_t next_due_ms;
    const uint8_t *envelope;          /* encoded; the recipient list is complete */
    uint32_t envelope_bytes;
    const uint8_t *marks;             /* latest result of each recipient that has one, as a row of marks */
    uint32_t marks_bytes;
};

enum index_query_kind {
    INDEX_LOOKUP,   /* qid -> one entry or ERR_NOT_FOUND */
    INDEX_DUE,      /* due at now_ms, not leased, not held, destination not in skip[]; round robin over destinations */
                    /* a message stands in the lane of each destination that a pending recipient has: it comes when one
                     * of them is due and not skipped */
    INDEX_LIST,     /* from cursor on, in order of qid; cursor and `more` come back */
    INDEX_LIVE,     /* qids[]: live[i] says whether that message is in the index */
    INDEX_CHUNKS,   /* qid: places[i] of CHUNKs first.. ; max: how many came back; ERR_LOST: `first` is missing */
    INDEX_COPIES,   /* qid: segments that hold a copy besides the place it is known by, or that it was retired at */
    INDEX_SUMMARY,  /* counters */
    INDEX_DOMAINS,  /* per destination: messages, recipients, oldest; at most max */
    INDEX_BARRIER,  /* done when everything fed before is applied; `sync`: and on stable storage */
};

struct index_counts {
    uint64_t messages, recipients, active, deferred, hold, oldest_ms, bytes;
    uint64_t due_ms;                  /* when the message that is or becomes due first does; 0: none */
};
struct index_domain {
    uint64_t destination;
    char domain[256];
    uint64_t messages, recipients, oldest_ms;
};

struct index_query {
    enum index_query_kind kind;
    void (*done)(struct index_query *q, enum err e);
    void *owner;
    /* in */
    struct queue_id qid;              /* LOOKUP, CHUNKS; LIST: the cursor, none to start */
    uint64_t now_ms;                  /* DUE */
    const uint64_t *skip;             /* DUE: destinations, sorted; must live until done */
    uint32_t skip_count, max, first;
    const struct queue_id *qids;      /* LIVE */
    uint32_t qid_count;
    bool sync;
    /* out; pointers are into the query's result buffer, valid until index_query_fini */
    struct index_entry *entries;
    uint32_t entry_count;
    bool more;
    bool *live;
    struct { struct place place; struct digest digest; } *chunks;
    struct segment_id *copies;
    uint32_t copy_count;
    struct index_counts counts;
    struct index_domain *domains;
    uint32_t domain_count;
    /* private */
    struct link link;
    void *result;
    enum err answer;
};
#define INDEX_COPIES_MAX 64u                   /* in one answer; so many may be more */
#define INDEX_QUERY_ENTRIES_MAX 1024u          /* entries in one answer */
#define INDEX_QUERY_BYTES_MAX ((uint32_t)(1024 * 1024)) /* and their bytes, except that one entry always fits */

void index_query(struct index *index, struct index_query *q); /* done comes from index_dispatch, never from inside */
void index_query_fini(struct index_query *q);                 /* frees the result; harmless when there is none */

/* --- life --- */
int index_event_fd(struct index *index);      /* readable when index_dispatch has work; -1 for the memory index */
uint32_t index_dispatch(struct index *index); /* runs callbacks; returns how many */
void index_close(struct index **index);       /* applies what was fed, syncs, joins the thread */

/* LMDB in `directory` (made if missing), of `pool`. Never blocks on the data: on_open comes later. */
enum err index_lmdb_open(const char *directory, struct uuid pool, const struct index_callbacks *cb, struct index **index_out) MUST_CHECK;
/* Removes the files; the next open starts empty. */
enum err index_lmdb_discard(const char *directory) MUST_CHECK;
/* In memory, synchronous and deterministic: all work is done in index_dispatch. */
enum err index_mem_open(struct uuid pool, const struct index_callbacks *cb, struct index **index_out) MUST_CHECK;

#endif
