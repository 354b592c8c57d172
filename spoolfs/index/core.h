/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the index: what happens to the rows, whoever owns the store and whichever thread runs it. One thread.
 *
 *   index_port.c (the doors, the ring) -> core_take -> pending -> core_flush: batch -> index_apply.c, index_group.c -> rows
 *                                      -> core_answer (index_query.c)
 *   rows committed -> struct out -> index_dispatch -> the engine's callbacks
 *
 *  CORE-1  pending records are kept until the transaction with their effects is committed: a store that is full or
 *          fails for a while delays and forgets nothing.
 *  CORE-2  what a batch tells the engine, it tells after its commit.
 *  CORE-3  damage is told once; from then on records are dropped and queries end in ERR_CORRUPT.
 *  CORE-4  a watermark is never ahead of the effects of the records below it. A large batch takes several transactions,
 *          the watermarks are in the last; after a crash between them records are fed again, which changes nothing but
 *          a count of attempts. */
#ifndef INDEX_CORE_H
#define INDEX_CORE_H

#include "rows.h"
#include "store.h"

#include <base/link.h>
#include <base/map.h>
#include <pthread.h>
#include <spoolfs/format.h>
#include <spoolfs/index.h>
#include <spoolfs/limits.h>

#define PENDING_RECORDS_MAX 32768u                   /* one transaction, at most */
#define PENDING_BYTES_MAX ((uint32_t)(8 * MIB))      /* payloads of one transaction */
/* Behind a watermark with more than this a batch ends, so that a frame is not cut in two for want of room. */
#define PENDING_RECORDS_ENOUGH 16384u                /* a second of the peers' best intake */
#define PENDING_BYTES_ENOUGH (PENDING_BYTES_MAX - FRAME_BYTES_MAX)
_Static_assert(PENDING_RECORDS_MAX - PENDING_RECORDS_ENOUGH > FRAME_BYTES_MAX / RECORD_HEAD_BYTES, "a frame fits");
/* A transaction ends behind the queue id that brings it here: LMDB holds every page it writes in memory until then. */
#define BATCH_WRITES_MAX 16384u
#define BATCH_WRITES_REBUILD_MAX 65536u              /* keys rise then, and pages are shared */
#define BATCH_BYTES_MAX ((uint64_t)(16 * MIB))
#define ITEMS_MAX 8u                                 /* messages with one queue id that are told apart */
#define CONFLICTS_MAX 256u                           /* told at one time; the rest is in the log anyway */

/* --- out: to the engine's thread --- */

struct segment_event {
    struct link link;
    struct index_segment segment;
    struct segment_id deps[];
};
struct conflict { struct queue_id qid; struct place second; };

struct out {
    pthread_mutex_t lock;
    struct link segments;                            /* of struct segment_event, the newest of each segment */
    struct map segment_of;
    struct conflict conflicts[CONFLICTS_MAX];
    uint32_t conflict_count;
    bool opened, open_told, room, damaged;
    enum err open_error;
    uint64_t kept_by;
    char damage[80];
};
void out_segment(struct out *o, struct segment_event *e);
void out_conflict(struct out *o, struct queue_id qid, struct place second);
void out_damage(struct out *o, const char *what);

/* --- one write transaction --- */

struct segment_touched { struct segment_id id; struct segment_row row; };
struct destination_touched { uint64_t destination, head_before; };
struct dep { struct segment_id segment, about; };

struct batch {
    struct map segments, destinations;
    struct dep *deps;
    uint32_t dep_count, dep_capacity;
    struct counts_row counts;
    struct conflict conflicts[CONFLICTS_MAX];
    uint32_t conflict_count;
    struct link events;
    uint32_t writes;
    uint64_t bytes;
    struct key resume;                               /* for a step that runs in slices */
};

/* --- pending --- */

enum command_kind {
    COMMAND_RECORD, COMMAND_ABORT,                   /* gathered */
    COMMAND_WATERMARK,
    COMMAND_FREED, COMMAND_REPLAY_BEGIN, COMMAND_REPLAY_END, COMMAND_LEASE, COMMAND_INCARNATION, /* done at once */
};
struct command {
    enum command_kind kind;
    uint32_t payload_bytes;
    struct index_record record;
    uint64_t offset;                                 /* WATERMARK; INCARNATION: it */
    bool flag;                                       /* REPLAY_BEGIN: rebuild; LEASE: leased; INCARNATION: keep all CHUNKs */
};

struct pending_record { struct index_record r; bool abort, done; uint32_t order; };
struct pending_mark { struct segment_id segment, moved_from; uint64_t offset; };

struct core {
    struct store *store;
    struct out *out;
    struct uuid pool;
    struct counts_row counts;                        /* as committed */
    bool replaying, rebuilding, replayed, damaged, framed;       /* framed: the last command ended a frame */
    uint64_t incarnation, batches;                   /* batches: committed */
    uint64_t kept_by;                                /* the incarnation that the meta row names: the last that replayed into it */
    bool keep_chunks;                                /* no CHUNK is an orphan in this mount */
    bool copies_known;                               /* there are rows of copies, or may be */
    struct map leases, retiring;                     /* retiring: a RETIRE is pending; not due any more */
    struct pending_record *records;
    struct pending_record **sorted;
    uint32_t record_count;
    struct pending_mark *marks;
    uint32_t mark_count;
    uint8_t *payloads;
    uint32_t payload_bytes;
    struct batch batch;
    struct key due_cursor;                           /* the head row served last: round robin over answers */
    uint8_t *value;                                  /* VALUE_BYTES_MAX */
    struct destination_due *destinations, *destinations_old; /* RECIPIENTS_PER_MESSAGE_MAX */
    struct mark *merge_marks;
    uint64_t *merge_sequences;
};
#define MARKS_BYTES_MAX (RECIPIENTS_PER_MESSAGE_MAX * (REASON_BYTES_MAX + 64u))
#define VALUE_BYTES_MAX                                                                                               \
    (CHECK_BYTES + MESSAGE_HEAD_BYTES + ENVELOPE_BYTES_MAX + RECIPIENTS_PER_MESSAGE_MAX * 8u + MARKS_BYTES_MAX)

enum err core_init(struct core *c, struct store *store, struct uuid pool, struct out *out) MUST_CHECK;
void core_fini(struct core *c);
/* Looks at what the store holds: ERR_OK, ERR_NOT_FOUND (empty; is made ours), ERR_CORRUPT (of another pool or damaged).
 * All segments are told. */
enum err core_open(struct core *c) MUST_CHECK;
/* Where the payload of the next command goes; NULL: flush first. */
uint8_t *core_payload(struct core *c, uint32_t bytes);
/* Everything but ERR_OK: not now, the store is full or fails; the same again later. */
enum err core_take(struct core *c, const struct command *command) MUST_CHECK;
bool core_pending(const struct core *c);
bool core_enough(const struct core *c); /* time for a flush */
bool core_pending_free(const struct core *c);
bool core_pending_about(const struct core *c, struct queue_id qid);
bool core_pending_about_any(const struct core *c, const struct queue_id *qids, uint32_t count);
enum err core_flush(struct core *c) MUST_CHECK; /* ERR_OK also when damaged: there is nothing to wait for */
enum err core_answer(struct core *c, struct index_query *q) MUST_CHECK;
void core_damage(struct core *c, const char *what);

/* Runs `step` in a write transaction, again after the store has grown. */
enum err core_transact(struct core *c, enum err (*step)(struct core *c, void *arg), void *arg) MUST_CHECK;

/* index_batch.c: inside a transaction */
enum err batch_segment(struct core *c, struct segment_id id, struct segment_touched **out) MUST_CHECK;
enum err batch_count_message(struct core *c, const struct message *m, int by) MUST_CHECK;
enum err batch_count_chunk(struct core *c, const struct chunk_row *chunk, int by) MUST_CHECK;
enum err batch_destination(struct core *c, uint64_t destination) MUST_CHECK; /* before its due rows change */
void batch_forget(struct core *c, struct segment_id id); /* not written, not told */
enum err batch_event(struct core *c, const struct segment_touched *s) MUST_CHECK;
void batch_tell(struct core *c);
enum err batch_dep(struct core *c, struct segment_id segment, struct segment_id about) MUST_CHECK;
void batch_conflict(struct core *c, struct queue_id qid, struct place second);
enum err row_put(struct core *c, const struct key *k, struct bytes value) MUST_CHECK;
enum err row_delete(struct core *c, const struct key *k) MUST_CHECK;
bool batch_large(const struct core *c);
enum err row_delete_all(struct core *c, const struct key *prefix, uint32_t max, uint32_t *count_out) MUST_CHECK;

/* index_copies.c. In a replay: which messages of this id lie, or lay, in a segment besides the place they are known by, and whether a
 * RETIRE is about that segment, and where one such lies. */
struct tomb {
    struct segment_id about, in;
    struct digest hits[ITEMS_MAX];
    uint32_t hit_count;
    bool retired, changed;
};
/* Of one queue id: one for each segment, as many as there are. One that is left out would let a message come back. */
struct tombs { struct tomb *at; uint32_t count, capacity; };
enum err tombs_load(struct core *c, struct queue_id qid, struct tombs *t) MUST_CHECK;
struct tomb *tombs_about(struct tombs *t, struct segment_id about); /* made when it is not there; NULL: no memory */
enum err tombs_put(struct core *c, struct queue_id qid, const struct tombs *t) MUST_CHECK; /* those that changed */
/* What they say in the end: where copies are that no RETIRE is about (and in `where`, unless none), and where RETIREs. */
enum err copies_settle(struct core *c, struct queue_id qid, const struct tombs *t, struct segment_id where) MUST_CHECK;
/* A RETIRE lies in `in`: it depends on all copies. */
enum err copies_retired(struct core *c, struct queue_id qid, struct segment_id in) MUST_CHECK;
/* A copy came to lie in `where`, out of `from`, of a message that was retired before. */
enum err copies_late(struct core *c, struct queue_id qid, struct segment_id from, struct segment_id where) MUST_CHECK;
enum err copies_freed(struct core *c, struct segment_id where) MUST_CHECK;
enum err copies_look(struct core *c, bool *known_out) MUST_CHECK;
enum err copies_list(struct core *c, struct queue_id qid, struct segment_id *where, uint32_t max, uint32_t *count_out) MUST_CHECK;

/* index_apply.c: all pending records of one queue id, in order of arrival */
enum err apply_group(struct core *c, const struct pending_record *const *records, uint32_t count) MUST_CHECK;
/* Takes one message out of the index as if it had been retired. */
enum err apply_drop(struct core *c, struct queue_id qid, struct digest digest) MUST_CHECK;
/* index_group.c: deletes the CHUNKs of a queue id. */
enum err apply_drop_chunks(struct core *c, struct queue_id qid) MUST_CHECK;

/* index_results.c */
struct results_merged { struct results results; uint8_t *bytes; };
enum err results_merge(struct core *c, const struct results *old, const struct index_record *mark,
                       struct results_merged *out) MUST_CHECK;

/* index_replay.c */
enum err core_replay_begin(struct core *c, bool rebuild) MUST_CHECK;
enum err core_replay_end(struct core *c) MUST_CHECK;
enum err core_freed(struct core *c, const struct segment_id *ids, uint32_t count) MUST_CHECK;
enum err core_meta_step(struct core *c, void *arg) MUST_CHECK; /* who keeps it, of which pool and version */

#endif
