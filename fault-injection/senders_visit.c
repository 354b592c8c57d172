/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: visits. Every byte of a message is compared before anything is said of it.
 *
 *   LOOKUP | DUE -> lease -> read the record -> read its CHUNKs -> MARK | RETIRE | STATE (senders_result.c) -> lease ends */
#include "senders.h"

#include <string.h>

#define DUE_AT_ONCE 6u

static void visit_read_chunk(struct action *a);
static void visit_follow(struct action *a);

static void visit_over(struct action *a, enum err e)
{
    struct reader reader = a->reader;
    action_end(a);
    if (reader.over)
        reader.over(reader.owner, e);
}

static void visit_lost(struct action *a, enum err e, const char *what)
{
    struct world *w = a->w;
    a->reading = false;
    bool spoilt = (a->msg->doomed && e == ERR_LOST) || (a->msg->waits && e == ERR_MEMBER_GONE);
    bool borne = w->losing ? spoilt : w->plan.level == PLAN_BEYOND;
    bool excused = world_crashed(w) || borne || (w->memory_short && e == ERR_NO_MEMORY);
    if (!excused && model_must_be_there(a->msg))
        world_fail(w, "P1: %s of an acknowledged message: %s", what, err_name(e));
    if (!world_crashed(w) && borne && (e == ERR_LOST || w->losing)) {
        a->msg->lost_said = true;
        w->counts.lost_said++;
    }
    if (!world_crashed(w) && spoilt && e == ERR_LOST && w->giving_up && a->visit == VISIT_BOUNCE) {
        result_submit(a); /* its sender is told, and it is over */
        return;
    }
    visit_over(a, e);
}

/* Every byte was compared. */
static void visit_verified(struct action *a)
{
    a->msg->verified = a->w->model.audits;
    if (a->lent)
        visit_over(a, ERR_OK);
    else
        result_submit(a);
}

static void visit_on_part(struct spool_read *r, enum err e)
{
    struct action *a = r->owner;
    struct world *w = a->w;
    bool message = r->type == RECORD_MESSAGE;
    a->reading = false;
    if (e == ERR_NOT_FOUND && message && !world_crashed(w)) {
        visit_follow(a);
        return;
    }
    if (e != ERR_OK) {
        visit_lost(a, e, message ? "a read" : "a read of a CHUNK");
        return;
    }
    w->counts.reads++;
    w->counts.read_bytes += r->body_bytes;
    const char *wrong = message ? model_audit_envelope(a->msg, r->envelope, r->envelope_bytes) : NULL;
    bool has_part = !message || a->msg->chunk_count == 0;
    if (!wrong && has_part)
        wrong = model_audit_part(a->msg, message ? 0 : a->chunk_next, r->body, r->body_bytes, WORLD_CHUNK_BYTES);
    if (wrong) {
        world_fail(w, "P2: %s (queue id %llu, part %u)", wrong, (unsigned long long)a->msg->qid.counter, a->chunk_next);
        action_end(a);
        return;
    }
    if (has_part && a->reader.told)
        a->reader.told(a->reader.owner, r->body, r->body_bytes);
    a->chunk_next += !message;
    if (a->chunk_next < a->msg->chunk_count)
        visit_read_chunk(a);
    else
        visit_verified(a);
}

static void visit_read(struct action *a, struct place place, struct digest digest, enum record_type type)
{
    a->read = (struct spool_read){.place = place, .qid = a->msg->qid, .digest = digest, .type = type,
                                  .done = visit_on_part, .owner = a};
    a->reading = true;
    spool_read(a->w->pool, &a->read);
}

/* A full pool moves what is leased, too (EXC-5): where the index has it now, if that is elsewhere. */
static void visit_on_followed(struct index_query *q, enum err e)
{
    struct action *a = q->owner;
    struct index_entry *found = e == ERR_OK && q->entry_count == 1 ? &q->entries[0] : NULL;
    struct place place = found ? found->place : a->read.place;
    struct digest digest = a->read.digest;
    a->querying = false;
    index_query_fini(q);
    if (segment_id_equal(place.segment, a->read.place.segment))
        visit_lost(a, e == ERR_OK ? ERR_NOT_FOUND : e, "a read");
    else
        visit_read(a, place, digest, RECORD_MESSAGE);
}

static void visit_follow(struct action *a)
{
    a->query = (struct index_query){.kind = INDEX_LOOKUP, .qid = a->msg->qid, .done = visit_on_followed, .owner = a};
    a->querying = true;
    index_query(spool_index(a->w->pool), &a->query);
}

static void visit_on_chunks(struct index_query *q, enum err e)
{
    struct action *a = q->owner;
    a->querying = false;
    if (e != ERR_OK || q->max == 0) {
        index_query_fini(q);
        visit_lost(a, e == ERR_OK ? ERR_LOST : e, "the place of a CHUNK");
        return;
    }
    struct place place = q->chunks[0].place;
    struct digest digest = q->chunks[0].digest;
    if (a->w->config.read_only && !a->w->losing)
        losses_chunk(a->msg, place, model_part_bytes(a->msg, a->chunk_next, WORLD_CHUNK_BYTES));
    index_query_fini(q);
    visit_read(a, place, digest, RECORD_CHUNK);
}

static void visit_read_chunk(struct action *a)
{
    a->query = (struct index_query){.kind = INDEX_CHUNKS, .qid = a->msg->qid, .first = a->chunk_next, .max = 1,
                                    .done = visit_on_chunks, .owner = a};
    a->querying = true;
    index_query(spool_index(a->w->pool), &a->query);
}

struct action *senders_read(struct world *w, struct model_message *msg, const struct place *place, struct digest digest,
                            const struct reader *reader)
{
    struct action *a = action_new(w, ACTION_VISIT, msg);
    a->reader = *reader;
    a->lent = true;
    visit_read(a, *place, digest, RECORD_MESSAGE);
    return a;
}

void senders_read_forget(struct action *a) { a->reader = (struct reader){0}; }

/* Leased or not at all: a segment under compaction says BUSY and the visit ends. */
static bool visit_begin(struct action *a, const struct index_entry *e)
{
    struct world *w = a->w;
    if (spool_lease(w->pool, a->msg->qid, e->place.segment) != ERR_OK)
        return false;
    a->leased = a->msg->leased = true;
    a->msg->segment = e->place.segment;
    w->counts.visits++;
    visit_read(a, e->place, e->digest, RECORD_MESSAGE);
    return true;
}

static void visit_on_lookup(struct index_query *q, enum err e)
{
    struct action *a = q->owner;
    a->querying = false;
    bool begun = e == ERR_OK && q->entry_count == 1 && visit_begin(a, &q->entries[0]);
    index_query_fini(q);
    if (!begun)
        action_end(a); /* being moved, or not applied yet: the audits decide whether it is there */
}

bool senders_visit(struct world *w, struct model_message *msg, enum visit_kind kind)
{
    if (msg->busy || !spool_index_ready(w->pool))
        return false;
    struct action *a = action_new(w, ACTION_VISIT, msg);
    a->visit = kind;
    a->query = (struct index_query){.kind = INDEX_LOOKUP, .qid = msg->qid, .done = visit_on_lookup, .owner = a};
    a->querying = true;
    index_query(spool_index(w->pool), &a->query);
    return true;
}

enum visit_kind visit_draw(struct world *w)
{
    if (prng_below(&w->work, 100) < w->plan.retire_percent)
        return prng_below(&w->work, 10) ? VISIT_RETIRE : VISIT_BOUNCE;
    static const enum visit_kind kinds[] = {VISIT_NOTHING, VISIT_MARK, VISIT_MARK, VISIT_DEFER, VISIT_HOLD};
    return kinds[prng_below(&w->work, sizeof kinds / sizeof kinds[0])];
}

static void due_on_answer(struct index_query *q, enum err e)
{
    struct action *due = q->owner;
    struct world *w = due->w;
    due->querying = false;
    for (uint32_t i = 0; e == ERR_OK && i < q->entry_count; i++) {
        struct model_message *msg = model_find(&w->model, q->entries[i].qid);
        if (!msg) {
            world_fail(w, "MOD-3: a message is due that nobody handed over");
            break;
        }
        if (msg->busy)
            continue;
        if (msg->held == MODEL_YES && msg->was_held && w->plan.level != PLAN_BEYOND)
            world_fail(w, "MOD-5: a message on hold is due: queue id %llx.%llu", (unsigned long long)msg->qid.incarnation,
                       (unsigned long long)msg->qid.counter);
        struct action *a = action_new(w, ACTION_VISIT, msg);
        a->visit = visit_draw(w);
        if (!visit_begin(a, &q->entries[i]))
            action_end(a);
    }
    index_query_fini(q);
    action_end(due);
}

void senders_due(struct world *w)
{
    if (!spool_index_ready(w->pool) || w->scheduler)
        return;
    struct action *a = action_new(w, ACTION_DUE, NULL);
    a->query = (struct index_query){.kind = INDEX_DUE, .now_ms = pool_clock_ms(w->pool), .max = DUE_AT_ONCE,
                                    .done = due_on_answer, .owner = a};
    a->querying = true;
    index_query(spool_index(w->pool), &a->query);
}

