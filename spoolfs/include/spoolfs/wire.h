/* SPDX-License-Identifier: Apache-2.0 */
/* The wire between relay and spool: a typed protocol over one SOCK_STREAM socketpair. Pure codec; docs/WIRE.md tells
 * the story. A message is a head of 8 bytes, a fixed part of its type, then at most three rows of bytes.
 *
 *  WIRE-1  decoding treats its input as foreign bytes: a verdict, never an assert, no read past the end.
 *  WIRE-2  no message is larger than WIRE_MESSAGE_MAX; who sends more, an unknown type or a malformed one is dropped.
 *  WIRE-3  every message that makes the other side hold something is covered by a credit (P7).
 *  WIRE-4  what wire_encode wrote, wire_decode gives back.
 *  WIRE-5  a tray (shared memory, WIRE_TRAYS of CHUNK_BYTES_MAX) is written by the relay alone, and not between the CHUNK
 *          that names it and its CHUNKED; the spool reads it once, into its own buffer, and believes only the copy. */
#ifndef SPOOLFS_WIRE_H
#define SPOOLFS_WIRE_H

#include <base/err.h>
#include <base/ids.h>
#include <spoolfs/limits.h>
#include <stdbool.h>

#define WIRE_MAGIC UINT64_C(0x31455249574c5053) /* "SPLWIRE1" */
#define WIRE_VERSION 2u
#define WIRE_HEAD_BYTES 8u
#define WIRE_FIXED_MAX 80u                      /* the largest fixed part */
#define WIRE_MESSAGE_MAX (WIRE_HEAD_BYTES + WIRE_PAYLOAD_MAX)
#define WIRE_APPENDS_MAX 4096u     /* appends without an answer: tags; 50 senders never come near */
#define WIRE_CHUNKS_MAX 1024u      /* CHUNKs without an answer */
#define WIRE_TRAYS 192u            /* 128 are the append credit, 64 are being filled meanwhile: 12 MiB */
#define WIRE_FETCHES_MAX 256u      /* fetches under way; more than a disk sorts well */
#define WIRE_FETCH_PIECES 2u       /* pieces of one fetch under way: one is sent while the next is read */
#define WIRE_DOCUMENTS_MAX 8u
#define WIRE_DOCUMENT_BYTES_MAX ((uint32_t)(4 * MIB))
#define WIRE_DOCUMENT_KIND_MAX 32u
#define WIRE_REPORT_BYTES_MAX ((uint32_t)(64 * KIB))
#define WIRE_HELD_ROW_MAX 1024u    /* held ids in one message */
#define WIRE_PAUSES_MAX 4096u      /* destinations that take nothing now */
#define WIRE_SOCKET_BYTES ((int)(1 * MIB)) /* SO_SNDBUF: a turn's worth of appends goes in one write */

/* X(NAME, from): who says it: r the relay, s the spool. The order is the protocol. */
#define WIRE_TYPES(X)                                                                                                 \
    X(HELLO, r)      /* first, once a connection: who I am */                                                         \
    X(HELD, r)       /* a row of messages that are leased to me */                                                    \
    X(PRESENTED, r)  /* that was all of held, marks and appends from before: now due may come */                      \
    X(WANT_IDS, r)   /* lend me queue ids */                                                                          \
    X(APPEND, r)     /* a MESSAGE; answered by APPENDED */                                                            \
    X(CHUNK, r)      /* of a MESSAGE to come, its bytes here or in a tray; answered by CHUNKED */                     \
    X(ABORT, r)      /* that MESSAGE will not come */                                                                 \
    X(MARK, r)       /* results, RETIRE and bounce of one leased message, one group; answered by MARKED */            \
    X(RELEASE, r)    /* the lease ends; no answer */                                                                  \
    X(WANT_DUE, r)   /* so many more due messages */                                                                  \
    X(FETCH, r)      /* the body of a leased message; answered by PIECEs */                                           \
    X(FETCH_MORE, r) /* so many more pieces */                                                                        \
    X(FETCH_END, r)  /* no more pieces; answered by a last one, ERR_CANCELED */                                       \
    X(PAUSE, r)      /* nothing due only for this destination for so long; 0: go on */                                \
    X(REPORT, r)     /* counters of the relay, JSON */                                                                \
    X(DOCUMENT, r)   /* asks for "status" or "metrics"; answered by DOCUMENT_PARTs */                                 \
    X(WELCOME, s)    /* first, answers HELLO */                                                                       \
    X(LEND, s)       /* consecutive queue ids */                                                                      \
    X(APPENDED, s)                                                                                                    \
    X(CHUNKED, s)                                                                                                     \
    X(MARKED, s)                                                                                                      \
    X(DUE, s)        /* a message, leased to you */                                                                   \
    X(PIECE, s)                                                                                                       \
    X(STATUS, s)                                                                                                      \
    X(RECALL, s)     /* give the lease back at the next safe moment */                                                \
    X(FLUSH, s)      /* forget back-offs */                                                                           \
    X(DOCUMENT_PART, s)

enum wire_type {
    WIRE_NONE,
#define X(name, from) WIRE_##name,
    WIRE_TYPES(X)
#undef X
    WIRE_TYPE_COUNT
};

enum wire_flag {
    WIRE_AGAIN = 1,    /* APPEND, MARK: was sent before on a connection that was lost, or its id is of an earlier spool */
    WIRE_RETIRE = 2,   /* MARK: every recipient is done */
    WIRE_ENDS = 4,     /* MARK: the lease ends with it */
    WIRE_BOUNCE = 8,   /* MARK: a bounce comes along; MARKED: its answer is in bounce_error and locator */
    WIRE_LAST = 16,    /* PIECE, DOCUMENT_PART */
    WIRE_INDEX_READY = 32, /* STATUS */
    WIRE_TRAY = 64,    /* CHUNK, CHUNKED: chunk_count bytes lie in tray `tag` of the shared memory */
};

struct wire_bytes { const uint8_t *bytes; uint32_t len; };

/* One message, decoded. Which fields carry meaning is in the table of docs/WIRE.md and in wire.c's layouts; the others
 * are zero. Rows point into the decoded bytes. */
struct wire_message {
    enum wire_type type;
    uint8_t flags;             /* enum wire_flag */
    uint32_t tag;              /* APPEND(ED), MARK(ED), FETCH..., PIECE, DOCUMENT...: the relay's number for it;
                                * CHUNK(ED): the tray */
    uint32_t number;           /* CHUNK(ED): its number; DUE: attempts; counts of WANT_*, LEND, FETCH_MORE; HELLO,
                                * WELCOME: version; PAUSE: milliseconds; FETCH: the first piece */
    uint32_t chunk_count;      /* APPEND, DUE; CHUNKED, and CHUNK with a tray: bytes */
    enum err error;            /* APPENDED, CHUNKED, MARKED, PIECE, DOCUMENT_PART; STATUS: accepting */
    enum err bounce_error;     /* MARKED */
    struct queue_id qid;       /* also LEND: the first; WELCOME: incarnation only */
    struct queue_id bounce;    /* MARK, MARKED */
    struct segment_id locator; /* APPENDED, MARK, DUE; MARKED: of the bounce */
    uint64_t value;            /* HELLO: session; WELCOME: run; STATUS: free bytes; PAUSE: destination;
                                * DUE: good images of its MESSAGE */
    uint64_t clock_ms;         /* STATUS: pool clock */
    struct wire_bytes envelope;/* APPEND, DUE; MARK: of the bounce */
    struct wire_bytes body;    /* APPEND, CHUNK, PIECE, REPORT, DOCUMENT (kind), DOCUMENT_PART; MARK: of the bounce */
    struct wire_bytes marks;   /* MARK: as mark_encode; DUE: a status a recipient; HELD: wire_held_get */
};

/* Bytes the encoded message takes. */
uint32_t wire_encoded_bytes(const struct wire_message *m);
/* Writes exactly wire_encoded_bytes(m); the caller has that room and kept to the limits. Returns them. */
uint32_t wire_encode(uint8_t *buffer, const struct wire_message *m);
/* ERR_SHORT: more bytes are needed (*used_out: how many the message takes in all, when known, else 0); ERR_INVALID:
 * not the protocol. `from` is 'r' or 's': whose messages these must be. */
enum err wire_decode(const uint8_t *bytes, size_t len, char from, struct wire_message *m_out, uint32_t *used_out) MUST_CHECK;

/* Rows of HELD: 32 bytes an item. */
#define WIRE_HELD_BYTES 32u
void wire_held_put(uint8_t *row, uint32_t i, struct queue_id qid, struct segment_id locator);
void wire_held_get(const uint8_t *row, uint32_t i, struct queue_id *qid_out, struct segment_id *locator_out);

const char *wire_type_name(enum wire_type t);

/* --- bytes on their way: one linear buffer, made once --- */
struct wire_buffer { uint8_t *bytes; uint32_t capacity, head, tail; };
enum err wire_buffer_make(struct wire_buffer *b, uint32_t capacity) MUST_CHECK;
void wire_buffer_free(struct wire_buffer *b);
static inline uint32_t wire_buffer_used(const struct wire_buffer *b) { return b->tail - b->head; }
static inline uint32_t wire_buffer_room(const struct wire_buffer *b) { return b->capacity - wire_buffer_used(b); }
static inline uint8_t *wire_buffer_at(const struct wire_buffer *b) { return b->bytes + b->head; }
void wire_buffer_reset(struct wire_buffer *b);
void wire_buffer_compact(struct wire_buffer *b);                           /* all room behind tail */
void wire_buffer_drop(struct wire_buffer *b, uint32_t len);                /* from the front */
bool wire_buffer_put(struct wire_buffer *b, const struct wire_message *m); /* false: no room */

/* --- which messages are held: open addressing over queue ids, growing to a bound, never shrinking --- */
struct wire_held {
    struct queue_id qid;       /* none: empty place */
    struct segment_id locator;
    uint32_t flags;            /* the user's own */
    uint32_t slot;             /* the user's own */
};
struct wire_table { struct wire_held *at; uint32_t count, places, max; };
enum err wire_table_make(struct wire_table *t, uint32_t max) MUST_CHECK;
void wire_table_free(struct wire_table *t);
struct wire_held *wire_table_find(const struct wire_table *t, struct queue_id qid); /* NULL: not there */
/* The entry, made when missing. NULL: at the bound, or no memory. Pointers into the table end with the next call. */
struct wire_held *wire_table_add(struct wire_table *t, struct queue_id qid);
void wire_table_remove(struct wire_table *t, struct queue_id qid); /* harmless when not there */
void wire_table_clear(struct wire_table *t);
#define WIRE_TABLE_EACH(h, t)                                                                                         \
    for (struct wire_held *h = (t)->at; h < (t)->at + (t)->places; h++)                                               \
        if (!queue_id_is_none(h->qid))

_Static_assert(ENVELOPE_BYTES_MAX + BODY_INLINE_MAX + WIRE_FIXED_MAX + 2048 <= WIRE_PAYLOAD_MAX, "an APPEND fits");

#endif
