/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: asking the index once for all messages of a victim that are in memory, instead of once for each: in a segment that is
 * nearly dead nearly all are, and each question takes a turn of the loop and of the index's thread.
 *
 * Invariant AHD-1: a message counts as dead only when the index was asked for its queue id and has none. A queue id the index
 * does not have is never live again (index.h), so the answer does not age; whatever was not asked is asked by itself. What is
 * read here of frames ahead only decides what is asked: they are proved when the walk comes to them. Never copies anything. */
#include "compact.h"
#include "images.h"

#include <stdlib.h>
#include <string.h>

static int queue_id_order(const void *a, const void *b)
{
    const struct queue_id *x = a, *y = b;
    if (x->incarnation != y->incarnation)
        return x->incarnation < y->incarnation ? -1 : 1;
    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

/* False: there was no room for all of this frame. */
static bool ahead_gather(struct compact_ahead *a, const struct frame_view *f)
{
    uint32_t at = FRAME_HEAD_BYTES, count = a->count;
    for (uint32_t i = 0; i < f->record_count; i++) {
        struct record_view r;
        if (verify_record(f->bytes, at, f->records_end, &r) != ERR_OK)
            return true; /* the walk finds it out */
        at = (at + r.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        if (r.type != RECORD_MESSAGE)
            continue;
        if (count == COMPACT_AHEAD_MAX)
            return false;
        a->qids[count++] = r.qid;
    }
    a->count = count;
    return true;
}

static void ahead_on_answer(struct index_query *q, enum err e)
{
    struct compact_ahead *a = q->owner;
    uint32_t dead = 0;
    for (uint32_t i = 0; e == ERR_OK && i < a->count; i++)
        if (!q->live[i])
            a->qids[dead++] = a->qids[i];
    a->count = dead; /* on an error none: each is asked by itself */
    qsort(a->qids, a->count, sizeof a->qids[0], queue_id_order);
    index_query_fini(q);
    a->asking = false;
}

/* The rest of a frame whose messages did not all fit is asked one by one. */
void compact_ahead_ask(struct compact_ahead *a, struct pool *p, const struct walk *w, const struct frame_view *first)
{
    struct frame_view f = *first;
    uint64_t at = first->offset;
    uint32_t left = 0;
    a->count = 0;
    while (ahead_gather(a, &f)) {
        at += (uint64_t)f.blocks * BLOCK_BYTES;
        const uint8_t *bytes = walk_window(w, at, &left);
        if (!bytes || left < BLOCK_BYTES || verify_head(bytes, &p->uuid, w->segment->id, at, &f) != ERR_OK ||
            (uint64_t)f.blocks * BLOCK_BYTES > left)
            break;
    }
    a->until = at > first->offset ? at : first->offset + BLOCK_BYTES;
    if (a->count == 0)
        return;
    a->query = (struct index_query){.kind = INDEX_LIVE, .qids = a->qids, .qid_count = a->count, .done = ahead_on_answer, .owner = a};
    a->asking = true;
    index_query(p->index, &a->query);
}

bool compact_ahead_dead(const struct compact_ahead *a, struct queue_id qid)
{
    return a->count > 0 && bsearch(&qid, a->qids, a->count, sizeof a->qids[0], queue_id_order) != NULL;
}
