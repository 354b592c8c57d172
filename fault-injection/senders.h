/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the simulated relay share; nobody else includes it.
 *
 *   senders.c (life, what comes next) -> senders_append.c -> acknowledged [-> senders_result.c: retired from memory]
 *                                     -> senders_visit.c (look up or due, lease, read, compare) -> senders_result.c
 *
 *  SND-1  two actions are never under way on one message: the lease of a real relay. */
#ifndef SENDERS_H
#define SENDERS_H

#include "world.h"

#define CHUNKS_AT_ONCE 4u

/* Who reads a message for its own sake. */
struct reader {
    void *owner;
    void (*told)(void *owner, const uint8_t *bytes, uint32_t len); /* a part of the body, compared; may be NULL */
    void (*over)(void *owner, enum err e);                         /* never from inside senders_read */
};

enum action_kind { ACTION_APPEND, ACTION_VISIT, ACTION_DUE };

struct chunk_group {
    struct spool_group group;
    struct spool_record record;
    bool out;
};

struct action {
    struct link link;
    struct world *w;
    enum action_kind kind;
    enum visit_kind visit;
    struct model_message *msg, *bounce;
    uint64_t begun_ns, retry_ns;
    void (*again)(struct action *a);  /* to be called at retry_ns */
    struct spool_group group;
    struct spool_record records[2];
    struct chunk_group chunks[CHUNKS_AT_ONCE];
    uint32_t chunk_next, chunks_done, chunks_out;
    bool chunk_failed, leased, fresh, querying, reading, lent; /* lent: the lease is the reader's */
    enum err failed;
    bool full_then;                   /* `failed` is FULL, and the pool was when it was said */
    struct spool_read read;
    struct index_query query;
    struct mark mark;
    uint32_t marked;
    uint8_t payload[256];
    struct reader reader;             /* over: somebody else's read; the lease is his, too */
};

/* senders.c */
struct action *action_new(struct world *w, enum action_kind kind, struct model_message *msg);
void action_end(struct action *a);
void action_later(struct action *a, void (*again)(struct action *a));
bool refusal_passes(enum err e);        /* refusals that pass by themselves: the relay tries again */
bool pool_is_full(struct world *w);     /* nothing is left for new mail, or next to nothing: a frame may be on its way */
void refused_full(struct world *w);
/* A group was refused or failed though only the victim is hurt: full pools and an engine without power aside, that
 * breaks P4. */
void judge_refusal(struct world *w, enum err e, const char *what);
struct model_message *message_new(struct world *w); /* under a queue id that was never lent before */

/* senders_visit.c */
enum visit_kind visit_draw(struct world *w);
/* Reads and compares every byte of a message that somebody has leased. */
struct action *senders_read(struct world *w, struct model_message *msg, const struct place *place, struct digest digest,
                            const struct reader *reader);
void senders_read_forget(struct action *a); /* the reader is gone; the read ends by itself */

/* senders_result.c: what a->visit says; ends the action */
void result_submit(struct action *a);

#endif
