/* SPDX-License-Identifier: Apache-2.0 */
/* What one recipient becomes by the alias tables: every address it finally means, each once, with the sender bounces
 * of it go to. Pure but for its memory; iterative.
 *
 *  EXP-1  an expansion ends: a name is expanded once, ALIAS_DEPTH_MAX deep at most, in ALIAS_STEPS_MAX steps at most.
 *  EXP-2  a circle costs only what lies on it: the addresses reachable beside it are found. A circle with nothing beside
 *         it is an error, never a recipient that vanishes.
 *  EXP-3  whatever the error, `found` is as it was before the call. */
#ifndef RELAY_EXPAND_H
#define RELAY_EXPAND_H

#include "alias.h"

struct found { uint32_t at, len, owner_at, owner_len; }; /* in text; owner_len 0: the message's own sender */

struct pending { uint32_t at, len, owner_at, owner_len, depth; bool final; }; /* in work */

/* One for a message: what an earlier recipient became already is not found again. All zeros: empty. */
struct expansion {
    struct found *found;
    uint32_t found_count, found_capacity;
    struct arena text;
    struct keymap seen;     /* addresses found, their local parts as written, to their place in found */
    /* of the recipient being expanded */
    struct pending *pending;
    uint32_t pending_count, pending_capacity, steps, reached, found_before;
    struct arena work;
    struct keymap names;    /* expanded */
};

/* ERR_EXPANSION with the reason in *why_out: more than ALIAS_EXPANSION_MAX addresses, ALIAS_DEPTH_MAX, ALIAS_STEPS_MAX, or
 * a circle. ERR_NO_MEMORY. `keep_sender`: no owner-, for messages of the null sender (RFC 5321 4.5.5: what a bounce
 * brings about is told to nobody). */
enum err expand(struct expansion *x, const struct alias_table *t, const char *address, uint32_t len, bool keep_sender,
                const char **why_out) MUST_CHECK;
void expansion_free(struct expansion *x);

#endif
