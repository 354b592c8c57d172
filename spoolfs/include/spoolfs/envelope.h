/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope and the marks: binary, length-prefixed, never line-oriented. Pure codecs, used by relay, index, engine
 * and tools. Decoding treats its input as foreign bytes: a verdict, never an assert, no read past the end. */
#ifndef SPOOLFS_ENVELOPE_H
#define SPOOLFS_ENVELOPE_H

#include <base/err.h>
#include <base/ids.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum envelope_flag {
    ENVELOPE_SMTPUTF8 = 1,
    ENVELOPE_8BITMIME = 2,
    ENVELOPE_HOLD = 4,   /* arrives in the hold queue */
    ENVELOPE_BOUNCE = 8, /* made by us: a DSN; never bounced itself */
};

struct envelope {
    uint32_t flags;
    uint64_t arrival_ms;  /* pool clock, milliseconds since 1970 */
    uint64_t body_bytes;  /* whole body, inline or in CHUNKs */
    const char *sender;   /* not terminated; length 0: the null sender */
    uint32_t sender_len;
    const char *client;   /* "name[address]" of the peer, for the log */
    uint32_t client_len;
    const char *helo;
    uint32_t helo_len;
    uint32_t recipient_count;
    const uint8_t *recipients; /* encoded; walk with envelope_recipient_next */
    uint32_t recipients_bytes;
    uint32_t origin_count;
    const uint8_t *origins; /* encoded; walk with envelope_origin_next */
    uint32_t origins_bytes;
};

/* Where recipients came from: those from `first` on were made of `address` by the alias tables, and what is to be said
 * of them goes to `sender` (length 0: the message's own). Recipients without an origin are as the client gave them. */
struct envelope_origin {
    uint32_t first, count; /* recipients, by their index */
    const char *address, *sender;
    uint32_t address_len, sender_len;
};

/* Encoding: begin with everything but recipients, add each, then the origins in the order of the recipients, end. The
 * buffer is the caller's (ENVELOPE_BYTES_MAX). */
struct envelope_writer { uint8_t *buffer; uint32_t capacity, used, count, origin_count, origins_bytes; };
enum err envelope_begin(struct envelope_writer *w, uint8_t *buffer, uint32_t capacity, const struct envelope *e) MUST_CHECK;
enum err envelope_add_recipient(struct envelope_writer *w, const char *address, uint32_t len) MUST_CHECK;
#define ENVELOPE_ORIGIN_BYTES 8u /* of one origin, beside its two addresses */
enum err envelope_add_origin(struct envelope_writer *w, const struct envelope_origin *o) MUST_CHECK;
/* Returns the encoded length. body_bytes and flags may be set late. */
uint32_t envelope_end(struct envelope_writer *w, uint64_t body_bytes, uint32_t flags);

/* Everything points into `bytes`. Checks the whole structure, so that the walk cannot fail. */
enum err envelope_decode(const uint8_t *bytes, uint32_t len, struct envelope *e_out) MUST_CHECK;
struct envelope_cursor { const uint8_t *at, *end; };
void envelope_recipients(const struct envelope *e, struct envelope_cursor *c);
bool envelope_recipient_next(struct envelope_cursor *c, const char **address_out, uint32_t *len_out);
void envelope_origins(const struct envelope *e, struct envelope_cursor *c);
bool envelope_origin_next(struct envelope_cursor *c, struct envelope_origin *o_out);
/* The origin of recipient `index`, asked for in rising order; `o` and `c` begin as {0} and envelope_origins made them. NULL:
 * it has none. */
const struct envelope_origin *envelope_origin_of(struct envelope_cursor *c, struct envelope_origin *o, uint32_t index);

/* The destination of an address: digest of its lower-cased domain; addresses without one share destination 0. */
uint64_t envelope_destination(const char *address, uint32_t len);
uint64_t envelope_destination_of_domain(const char *domain, uint32_t len);

/* Marks: per-recipient results. */
enum mark_status { MARK_PENDING = 0, MARK_DELIVERED = 1, MARK_DEFERRED = 2, MARK_BOUNCED = 3, MARK_EXPIRED = 4 };

struct mark {
    uint32_t recipient;       /* index in the envelope */
    enum mark_status status;
    uint64_t deferred_until_ms; /* pool clock; MARK_DEFERRED only */
    const char *reason;       /* one line, printable, at most REASON_BYTES_MAX; not terminated */
    uint32_t reason_len;
};

/* A MARK record's payload is a row of marks. */
enum err mark_encode(uint8_t *buffer, uint32_t capacity, const struct mark *marks, uint32_t count, uint32_t *len_out) MUST_CHECK;
struct mark_cursor { const uint8_t *at, *end; };
enum err mark_check(const uint8_t *bytes, uint32_t len, uint32_t *count_out) MUST_CHECK;
void mark_begin(struct mark_cursor *c, const uint8_t *bytes, uint32_t len); /* after mark_check said OK */
bool mark_next(struct mark_cursor *c, struct mark *mark_out);

#endif
