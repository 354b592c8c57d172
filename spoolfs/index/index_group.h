/* SPDX-License-Identifier: Apache-2.0 */
/* Private to index_apply.c and index_group.c: the messages of one queue id, in memory. */
#ifndef INDEX_GROUP_H
#define INDEX_GROUP_H

#include "core.h"

struct item {
    struct message m, before;      /* before: as stored, once it changed */
    uint8_t *row, *results;        /* what m points into, when it is ours */
    bool stored, changed, dead;
};

struct chunk_op { uint32_t number; struct chunk_row row; };

struct group {
    struct core *core;
    struct queue_id qid;
    struct item items[ITEMS_MAX];
    uint32_t item_count;
    struct tombs tombs;
    bool no_memory;                /* a tombstone could not be made: the batch is tried again */
    struct results_merged side;
    uint8_t *side_row;
    bool side_stored, side_there, side_changed;
    struct chunk_op *chunks;
    uint32_t chunk_count, chunk_capacity;
    bool purge, had_chunks;        /* purge: the CHUNKs that were there before are not needed any more */
};

/* index_group.c. A group begins zeroed but for core and qid, and ends with group_fini, whatever failed. */
enum err group_load(struct group *g) MUST_CHECK;       /* its messages; in a replay tombstones and results without one, too */
enum err group_load_items(struct group *g) MUST_CHECK; /* its messages only */
enum err group_write(struct group *g) MUST_CHECK;
void group_fini(struct group *g);
void item_change(struct item *it); /* call before a message changes */

/* index_apply.c: of two places of one message, does `a` count? */
bool place_wins(const struct core *c, const struct place *a, bool a_moved, const struct place *b, bool b_moved);

#endif
