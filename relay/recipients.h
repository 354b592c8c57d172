/* SPDX-License-Identifier: Apache-2.0 */
/* The recipients of one message while it is being received: what the client said, what the alias tables make of it, and
 * the envelope both end in. Pure but for its memory.
 *
 *  RCP-1  a recipient is added with all it expands to, or not at all: one envelope, one body, one frame carry them.
 *  RCP-2  bounded by ENVELOPE_BYTES_MAX and RECIPIENTS_PER_MESSAGE_MAX, origins included. */
#ifndef RELAY_RECIPIENTS_H
#define RELAY_RECIPIENTS_H

#include "expand.h"
#include "route.h"

#include <spoolfs/envelope.h>

struct recipients_origin { uint32_t first, count, at, len, owner_at, owner_len; }; /* at: in said; owner_at: in expansion.text */

struct recipients {
    struct envelope_writer envelope; /* its buffer is ours */
    const struct route_table *routes;/* or NULL */
    const struct alias_table *aliases; /* or NULL: nothing expands, and what comes twice stays twice */
    bool null_sender;
    bool other_than_hold;            /* a recipient goes somewhere: the message does not arrive in the hold queue */
    struct expansion expansion;
    struct arena said;               /* what expanded, and the first recipient */
    uint32_t first_len, asked;       /* the first is at 0 in said */
    struct recipients_origin *origins;
    uint32_t origin_count, origin_capacity, origin_bytes;
};

/* `e`: everything but recipients. The rest of *r is the caller's: zero but for routes and aliases. */
enum err recipients_begin(struct recipients *r, const struct envelope *e) MUST_CHECK;
/* ERR_TOO_MANY: no room for all of it; ERR_EXPANSION, *why_out says why; ERR_NO_MEMORY. */
enum err recipients_add(struct recipients *r, const char *address, uint32_t len, const char **why_out) MUST_CHECK;
/* The only one the client named, or NULL. */
const char *recipients_single(const struct recipients *r, uint32_t *len_out);
/* The envelope, whole: in r->envelope.buffer. ERR_NO_MEMORY. */
enum err recipients_end(struct recipients *r, uint64_t body_bytes, uint32_t flags, uint32_t *len_out) MUST_CHECK;
void recipients_free(struct recipients *r);

#endif
