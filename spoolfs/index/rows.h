/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the index as bytes: keys in the order of what they name, values behind a 64-bit check that covers the key
 * as well (IDX-3). Pure.
 *
 *   u                 pool, version, who kept it                 n                                counters
 *   m qid digest                         a message                c qid number                     where a CHUNK lies
 *   d destination due qid digest         due row: one for each destination that a pending recipient has
 *   e due destination                    the earliest due row of a destination (held: none)
 *   a arrival qid digest                 messages by age
 *   s segment                            watermark, live counts
 *   p segment about / q about segment    `segment` depends on `about`, both ways round
 *   y qid segment / z segment qid        `segment` holds a copy of a message besides the place it is known by, both ways round
 *   t qid segment                        tombstone: a RETIRE said that the message lay in `segment`   (replay only)
 *   k qid                                results that came before their MESSAGE                       (replay only) */
#ifndef INDEX_ROWS_H
#define INDEX_ROWS_H

#include "store.h"

#include <base/assert.h>
#include <endian.h>
#include <spoolfs/index.h>
#include <spoolfs/limits.h>
#include <string.h>

#define ROWS_VERSION 3u /* raised with each change of a row: an older index is made anew from the log */
#define CHECK_BYTES 8u

struct key { uint8_t len; uint8_t b[STORE_KEY_BYTES_MAX]; };

static inline struct bytes key_bytes(const struct key *k) { return (struct bytes){k->b, k->len}; }

/* Also the start of all rows of that kind. What is behind `len` is nobody's: an answer builds thousands of keys. */
static inline struct key key_of(char row)
{
    struct key k;
    k.len = 1;
    k.b[0] = (uint8_t)row;
    return k;
}
static inline void key_add(struct key *k, uint64_t v)
{
    ASSERT(k->len + 8u <= sizeof k->b);
    v = htobe64(v);
    memcpy(k->b + k->len, &v, sizeof v);
    k->len += sizeof v;
}
void key_add32(struct key *k, uint32_t v);
uint64_t key_u64(struct bytes key, uint32_t offset);     /* offset 1: behind the kind of row */
uint32_t key_u32(struct bytes key, uint32_t offset);
bool key_begins(struct bytes key, const struct key *with);
/* The first key behind everything that begins with k. */
struct key key_after(const struct key *k);

struct key key_message(struct queue_id qid, struct digest digest);
struct key key_messages(struct queue_id qid);            /* what the keys of all messages of that id begin with */
struct key key_chunk(struct queue_id qid, uint32_t number);
struct key key_due(uint64_t destination, uint64_t due_ms, struct queue_id qid, struct digest digest);
struct key key_head(uint64_t due_ms, uint64_t destination);
struct key key_arrival(uint64_t arrival_ms, struct queue_id qid, struct digest digest);
struct key key_segment(char row, struct segment_id a);
struct key key_pair(char row, struct segment_id a, struct segment_id b);
struct key key_tomb(struct queue_id qid, struct segment_id about);
struct key key_side(struct queue_id qid);

static inline struct segment_id key_segment_at(struct bytes key, uint32_t offset)
{
    return (struct segment_id){key_u64(key, offset), key_u64(key, offset + 8)};
}
static inline struct queue_id key_qid_at(struct bytes key, uint32_t offset)
{
    return (struct queue_id){key_u64(key, offset), key_u64(key, offset + 8)};
}
static inline struct digest key_digest_at(struct bytes key, uint32_t offset)
{
    return (struct digest){.hi = key_u64(key, offset), .lo = key_u64(key, offset + 8)};
}

/* A value is check, head, tail; `buffer` takes CHECK_BYTES more than head and tail. */
struct bytes value_seal(const struct key *k, uint8_t *buffer, const void *head, size_t head_len);
enum err value_open(struct bytes key, struct bytes value, struct bytes *body_out) MUST_CHECK;

/* What MARKs and STATEs have said of a message so far. */
struct results {
    uint32_t attempts;             /* MARKs with a deferral in them, copies not counted */
    uint32_t state;                /* enum record_state of the STATE with the highest sequence, 0: none */
    uint64_t state_sequence;
    const uint8_t *marks;          /* mark_encode, in order of recipient */
    const uint8_t *sequences;      /* 8 bytes for each mark: of the record that said so */
    uint32_t marks_bytes, mark_count;
};

struct message {
    struct queue_id qid;
    struct digest digest;
    struct place place;
    bool moved;                    /* the place is of a compaction's copy */
    bool conflict;                 /* another message has the same queue id */
    uint32_t chunk_count, envelope_bytes;
    struct results results;
    const uint8_t *envelope;
};

struct chunk_row { struct place place; struct digest digest; uint64_t bytes; bool moved; };
struct segment_row { uint64_t watermark; uint32_t live_messages, live_chunks; uint64_t live_bytes; };
struct counts_row { uint64_t messages, recipients, active, deferred, hold, bytes; };
struct due_row { uint64_t arrival_ms; uint32_t recipients; };

/* Encoding: into `buffer` behind CHECK_BYTES; returns the whole length, check included. */
#define MESSAGE_HEAD_BYTES 92u
uint32_t message_bytes(const struct message *m);
struct bytes message_encode(const struct message *m, const struct key *k, uint8_t *buffer);
enum err message_decode(struct bytes key, struct bytes value, struct message *m_out) MUST_CHECK;
uint32_t results_bytes(const struct results *r);
struct bytes results_encode(const struct results *r, const struct key *k, uint8_t *buffer);
enum err results_decode(struct bytes key, struct bytes value, struct results *r_out) MUST_CHECK;
#define SMALL_VALUE_BYTES 128u
struct bytes chunk_encode(const struct chunk_row *c, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES]);
enum err chunk_decode(struct bytes key, struct bytes value, struct chunk_row *c_out) MUST_CHECK;
struct bytes segment_encode(const struct segment_row *s, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES]);
enum err segment_decode(struct bytes key, struct bytes value, struct segment_row *s_out) MUST_CHECK;
struct bytes counts_encode(const struct counts_row *c, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES]);
enum err counts_decode(struct bytes key, struct bytes value, struct counts_row *c_out) MUST_CHECK;
struct bytes due_encode(const struct due_row *d, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES]);
enum err due_decode(struct bytes key, struct bytes value, struct due_row *d_out) MUST_CHECK;

/* Whether rows can be believed, looked at one after the other as they lie. False: this one is damaged. */
struct rows_look { uint64_t rows, messages; bool bad; struct counts_row counts; };
bool rows_look(struct rows_look *l, struct bytes key, struct bytes value);

/* --- what follows from a message --- */

#define DUE_NEVER UINT64_MAX
struct destination_due { uint64_t destination, due_ms; uint32_t recipients; };
struct message_view {
    uint64_t arrival_ms, body_bytes, next_due_ms;
    uint32_t recipients, attempts; /* recipients: pending ones */
    enum index_state state;
    uint32_t destination_count;
};
/* `d`: room for RECIPIENTS_PER_MESSAGE_MAX; comes back in order of destination, at least one. */
void message_look(const struct message *m, struct message_view *v_out, struct destination_due *d);

#endif
