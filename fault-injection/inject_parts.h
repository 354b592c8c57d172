/* SPDX-License-Identifier: Apache-2.0 */
/* What inject_io.c (the seam), inject_faults.c (which fault, and how they come and go) and inject_carry.c (what one does to an
 * operation) share. Nobody else includes it. */
#ifndef INJECT_PARTS_H
#define INJECT_PARTS_H

#include "inject_arm.h"
#include "inject_io.h"

#include <base/link.h>
#include <spoolfs/limits.h>

struct stale_block { uint64_t block; uint16_t target; bool used; };

struct inject_io {
    struct io io;
    struct io *under;
    struct inject_hooks hooks;
    struct inject_fault faults[INJECT_FAULTS_MAX];
    uint32_t count, last_id;
    uint64_t total;
    struct link carriers;             /* of all kinds */
    struct link held;                 /* of struct held */
    struct io_timer timer;            /* the next end of a fault */
    struct io_target targets[MEMBERS_MAX];
    struct inject_arm arms[MEMBERS_MAX];
    struct stale_block stale[INJECT_STALE_BLOCKS]; /* a ring */
    uint8_t *stale_bytes;
    uint32_t stale_next;
};

enum carrier_stage { CARRIER_OLD, CARRIER_OP, CARRIER_WAITS };

struct carrier {
    struct link link;
    struct inject_io *inject;
    struct io_op op;                  /* at the real world, for `user` */
    struct io_op *user;
    struct io_timer timer;
    enum carrier_stage stage;
    enum inject_kind kind;            /* INJECT_KIND_COUNT: only slow */
    uint32_t fault_id;
    uint32_t factor;                  /* 0: not slow */
    uint64_t arm_done_ns;             /* no answer before; 0: no arm */
    enum err answer;
    uint64_t seed;                    /* of its own decisions */
    uint8_t *memory;                  /* as long as the operation; NULL when not needed */
};

struct held { struct link link; struct io_op *user; };

/* inject_io.c */
void inject_release_held(struct inject_io *j); /* what was held goes on its way as if it were submitted now */

/* inject_faults.c */
struct inject_fault *fault_of_kind(struct inject_io *j, const struct io_op *op, enum inject_kind kind);
/* The first fault that changes what this operation does, in the order they were added. */
struct inject_fault *fault_that_changes(struct inject_io *j, const struct io_op *op);
bool fault_wants_stale(const struct inject_io *j, const struct io_op *op);
bool fault_is_on(const struct inject_io *j, uint16_t target, enum inject_kind kind);
void fault_note_write(struct inject_io *j, const struct io_op *op);
void fault_count_one(struct inject_io *j, uint32_t id);
void fault_expired(struct io_timer *t);

/* inject_carry.c */
/* The operation in a carrier, not started; NULL: no memory, it goes through unharmed. */
struct carrier *carry(struct inject_io *j, struct io_op *user, struct inject_fault *f, const struct inject_fault *slow);
void carrier_start(struct carrier *c);

#endif
