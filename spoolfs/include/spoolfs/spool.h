/* SPDX-License-Identifier: Apache-2.0 */
/* The only door for mail: append, mark, retire, read. Engine thread only.
 *
 *  SPL-1  done(ERR_OK) of a group means: every record of it is durable on every image of its segment, and that is
 *         `copies` images in different failure domains, or as many as min_copies allows while degraded.
 *  SPL-2  a group is atomic: its records share one frame.
 *  SPL-3  what a read hands out was verified against its digest in the same read. */
#ifndef SPOOLFS_SPOOL_H
#define SPOOLFS_SPOOL_H

#include <spoolfs/pool.h>
#include <spoolfs/record.h>

enum spool_class {
    SPOOL_NEW_MAIL,  /* leaves each member the most slots: docs/design/0016 */
    SPOOL_RESULT,    /* marks, retires, states, bounces: leaves four to compaction */
    SPOOL_COMPACTION /* leaves the segment table's and the exchange's */
};

struct spool_record {
    enum record_type type;             /* MESSAGE, CHUNK, MARK, RETIRE, STATE */
    struct queue_id qid;
    struct segment_id message_segment; /* MARK, RETIRE, STATE: the locator that came with the message */
    uint32_t arg;                      /* record.h */
    uint32_t envelope_bytes;           /* MESSAGE: how much of the payload is envelope */
    struct digest_piece parts[3];      /* payload; copied before spool_submit returns */
    const uint8_t *raw;                /* compaction: the whole record, copied byte for byte; else NULL */
    uint32_t raw_bytes;
    struct place place;                /* out, valid in done(ERR_OK): place.segment is the locator */
};

struct spool_group {
    struct spool_record *records;
    uint32_t count;
    enum spool_class class;
    void (*done)(struct spool_group *g, enum err e); /* never from inside spool_submit */
    void *owner;
    struct segment_id moved_from; /* compaction: the segment its records come from; else none */
    struct link link;             /* private */
    uint64_t scratch[4];
};

/* ERR_BUSY: bounded buffers are full, try again from on_room. ERR_FULL, ERR_BELOW_POLICY, ERR_READ_ONLY,
 * ERR_INDEX_LAG, ERR_INDEX_FULL: refused now, nothing was taken. ERR_TOO_LARGE: does not fit one frame. */
enum err spool_submit(struct pool *pool, struct spool_group *g) MUST_CHECK;
/* One callback, for the one who was told ERR_BUSY. */
void spool_on_room(struct pool *pool, void (*on_room)(void *owner), void *owner);

/* Queue ids never repeat, not even over index loss. Lends `count` consecutive counters of the mount's incarnation. */
struct queue_id spool_lend_queue_ids(struct pool *pool, uint32_t count);

struct spool_read {
    struct place place;
    struct queue_id qid;
    struct digest digest;              /* from the index; the record must match it */
    enum record_type type;
    void (*done)(struct spool_read *r, enum err e); /* ERR_LOST: no good copy anywhere */
    void *owner;
    /* out, valid inside done() only */
    const uint8_t *envelope;
    uint32_t envelope_bytes;
    const uint8_t *body;
    uint32_t body_bytes;
    /* private */
    struct link link;
    void *state;
};
/* Bounded number in flight; the rest waits in order. */
void spool_read(struct pool *pool, struct spool_read *r);

/* Leases (LEASE-1): a leased message stays where it is, but in a full pool (EXC-5): results about it then go where the lease is, and a
 * read of where it was is ERR_NOT_FOUND: look it up again. A lease also keeps the message out of INDEX_DUE. ERR_BUSY: the segment is
 * under compaction, or the table is full: try later; ERR_EXISTS: leased already. */
enum err spool_lease(struct pool *pool, struct queue_id qid, struct segment_id segment) MUST_CHECK;
void spool_lease_end(struct pool *pool, struct queue_id qid); /* harmless when there is none */
bool spool_leased(struct pool *pool, struct queue_id qid);

/* For queries. NULL never; not ready (nothing is due) until pool_status.index_ready. */
struct index *spool_index(struct pool *pool);
bool spool_index_open(struct pool *pool);  /* queries are answered, from as much as is replayed */
bool spool_index_ready(struct pool *pool);
/* Messages that arrived before this pool-clock time wait for absent_wait; 0: none wait. */
uint64_t spool_due_after_ms(struct pool *pool);
/* Images of a segment that can be read and are not known to be bad, one in each failure domain; below_out: fewer than `copies`.
 * 0: none, or no such segment. */
uint32_t spool_images(struct pool *pool, struct segment_id segment, bool *below_out);
/* CHUNKs of an append that will never commit. */
void spool_abort(struct pool *pool, struct queue_id qid);

#endif
