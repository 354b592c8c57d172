/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the simulated relay: appends (inline and in CHUNKs) and visits (look up or due, lease, read, compare, result).
 *
 *   append: CHUNKs, a few at a time -> MESSAGE -> acknowledged [-> retired from memory]
 *   visit:  LOOKUP | DUE -> lease -> read the record -> read its CHUNKs -> MARK | RETIRE | STATE -> lease ends
 *
 * Never: two actions on one message at a time (the lease of a real relay). */
#include "world.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS_AT_ONCE 4u
#define DUE_AT_ONCE 6u
#define RETRY_NS UINT64_C(5000000)
#define FULL_PAUSE_NS UINT64_C(1000000000) /* 452: the sender comes again, and compaction has had time for some segments */

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
    bool chunk_failed, leased, fresh, querying, reading;
    enum err failed;
    bool full_then;                   /* `failed` is FULL, and the pool was when it was said */
    struct spool_read read;
    struct index_query query;
    struct mark mark;
    uint32_t marked;
    uint8_t payload[256];
};

static struct action *action_new(struct world *w, enum action_kind kind, struct model_message *msg)
{
    struct action *a = calloc(1, sizeof *a);
    ASSERT(a != NULL);
    a->w = w;
    a->kind = kind;
    a->msg = msg;
    a->begun_ns = io_now_ns(w->io);
    link_push(&w->actions, &a->link);
    w->action_count++;
    if (msg)
        msg->busy = true;
    return a;
}

static void action_end(struct action *a)
{
    struct world *w = a->w;
    if (a->leased)
        spool_lease_end(w->pool, a->msg->qid);
    if (a->msg)
        a->msg->busy = a->msg->leased = false;
    if (a->bounce)
        a->bounce->busy = false;
    link_remove(&a->link);
    w->action_count--;
    free(a);
}

static void action_later(struct action *a, void (*again)(struct action *a))
{
    a->again = again;
    a->retry_ns = io_now_ns(a->w->io) + RETRY_NS;
}

/* Refusals that pass by themselves: the relay tries again. */
static bool refusal_passes(enum err e) { return e == ERR_BUSY || e == ERR_INDEX_LAG; }

/* Nothing is left for new mail, or next to nothing: a frame may be on its way. */
static bool pool_is_full(struct world *w)
{
    static struct pool_status s;
    pool_status(w->pool, &s);
    return s.accepting != ERR_OK || s.bytes_free_for_mail < 2 * w->plan.segment_bytes;
}

static void refused_full(struct world *w)
{
    w->counts.refused[ERR_FULL]++;
    w->full_ns = io_now_ns(w->io);
    if (io_now_ns(w->io) + FULL_PAUSE_NS > w->resume_ns)
        w->resume_ns = io_now_ns(w->io) + FULL_PAUSE_NS;
}

/* A group was refused or failed though only the victim is hurt: full pools and an engine without power aside, that
 * breaks P4. */
static void judge_refusal(struct world *w, enum err e, const char *what)
{
    if (e == ERR_FULL)
        refused_full(w);
    else
        w->counts.refused[e]++;
    bool excused = (e == ERR_FULL && (world_crashed(w) || pool_is_full(w))) || e == ERR_INDEX_LAG || e == ERR_STOPPING ||
                   world_crashed(w) ||
                   w->plan.level == PLAN_BEYOND || (w->memory_short && (e == ERR_NO_MEMORY || e == ERR_TIMEOUT));
    if (!excused)
        world_fail(w, "P4: %s was answered %s while enough members are well", what, err_name(e));
}

/* A message under a queue id that was never lent before. */
static struct model_message *message_new(struct world *w)
{
    struct queue_id qid = spool_lend_queue_ids(w->pool, 1);
    while (model_find(&w->model, qid)) {
        world_fail(w, "promise broken: queue id %llx.%llu is lent twice", (unsigned long long)qid.incarnation,
                   (unsigned long long)qid.counter);
        qid.counter++;
    }
    return model_add(&w->model, qid, prng_next(&w->work));
}

/* --- append --- */

static void append_chunks(struct action *a);
static void append_message(struct action *a);

/* The action ends when its other CHUNKs have been answered; by then there may be room again. */
static void chunk_refused(struct action *a, enum err e)
{
    a->chunk_failed = true;
    a->failed = e;
    a->full_then = e == ERR_FULL && pool_is_full(a->w);
}

static void append_on_chunk(struct spool_group *g, enum err e)
{
    struct action *a = g->owner;
    struct chunk_group *c = CONTAINER_OF(g, struct chunk_group, group);
    c->out = false;
    a->chunks_out--;
    a->chunks_done += e == ERR_OK;
    if (e != ERR_OK)
        chunk_refused(a, e);
    append_chunks(a);
}

static bool append_chunk(struct action *a, struct chunk_group *c)
{
    static uint8_t body[WORLD_CHUNK_BYTES];
    struct model_message *msg = a->msg;
    uint32_t length = model_part_bytes(msg, a->chunk_next, WORLD_CHUNK_BYTES);
    model_body(msg, a->chunk_next, body, length);
    *c = (struct chunk_group){.record = {.type = RECORD_CHUNK, .qid = msg->qid, .arg = a->chunk_next,
                                         .parts = {{body, length}}},
                              .group = {.count = 1, .class = SPOOL_NEW_MAIL, .done = append_on_chunk, .owner = a}};
    c->group.records = &c->record;
    enum err e = spool_submit(a->w->pool, &c->group);
    if (e == ERR_OK) {
        c->out = true;
        a->chunks_out++;
        a->chunk_next++;
        return true;
    }
    if (refusal_passes(e)) {
        action_later(a, append_chunks);
    } else {
        chunk_refused(a, e);
    }
    return false;
}

static void append_give_up(struct action *a)
{
    a->msg->appended = MODEL_NO; /* its MESSAGE was never handed over */
    spool_abort(a->w->pool, a->msg->qid);
    if (a->full_then)
        refused_full(a->w);
    else
        judge_refusal(a->w, a->failed, "an append");
    action_end(a);
}

static void append_chunks(struct action *a)
{
    a->again = NULL;
    for (uint32_t i = 0; i < CHUNKS_AT_ONCE && !a->chunk_failed && a->chunk_next < a->msg->chunk_count; i++)
        if (!a->chunks[i].out && !append_chunk(a, &a->chunks[i]))
            break;
    if (a->chunk_failed && a->chunks_out == 0)
        append_give_up(a);
    else if (!a->chunk_failed && a->chunks_done == a->msg->chunk_count)
        append_message(a);
}

static void result_submit(struct action *a);

static void append_on_message(struct spool_group *g, enum err e)
{
    struct action *a = g->owner;
    struct world *w = a->w;
    model_on_appended(&w->model, a->msg, e);
    if (e != ERR_OK) {
        judge_refusal(w, e, "an append");
        action_end(a);
        return;
    }
    witness_acknowledged(w, a->msg, a->records[0].place.segment);
    w->counts.acked++;
    world_say(w, "append %llu of %u bytes in segment %llu at %llu", (unsigned long long)a->msg->qid.counter,
              a->msg->body_bytes, (unsigned long long)a->records[0].place.segment.counter,
              (unsigned long long)a->records[0].place.frame);
    a->msg->segment = a->records[0].place.segment;
    if (!a->fresh || spool_lease(w->pool, a->msg->qid, a->msg->segment) != ERR_OK) {
        action_end(a);
        return;
    }
    a->leased = a->msg->leased = true;
    a->visit = VISIT_RETIRE; /* delivered from memory */
    result_submit(a);
}

static void append_message(struct action *a)
{
    static uint8_t envelope[MODEL_ENVELOPE_BYTES_MAX], body[BODY_INLINE_MAX];
    struct model_message *msg = a->msg;
    struct world *w = a->w;
    uint32_t envelope_bytes = model_envelope(msg, pool_clock_ms(w->pool), envelope, sizeof envelope);
    uint32_t inline_bytes = msg->chunk_count ? 0 : msg->body_bytes;
    model_body(msg, 0, body, inline_bytes);
    a->records[0] = (struct spool_record){.type = RECORD_MESSAGE, .qid = msg->qid, .arg = msg->chunk_count,
                                          .envelope_bytes = envelope_bytes,
                                          .parts = {{envelope, envelope_bytes}, {body, inline_bytes}}};
    a->group = (struct spool_group){.records = a->records, .count = 1, .class = SPOOL_NEW_MAIL,
                                    .done = append_on_message, .owner = a};
    enum err e = spool_submit(w->pool, &a->group);
    if (e == ERR_OK)
        return;
    if (refusal_passes(e)) {
        action_later(a, append_message);
        return;
    }
    chunk_refused(a, e);
    append_give_up(a);
}

struct model_message *senders_append(struct world *w, uint32_t body_bytes, bool fresh)
{
    struct model_message *msg = message_new(w);
    msg->body_bytes = body_bytes;
    msg->recipients = 1 + (uint32_t)(msg->seed % MODEL_RECIPIENTS_MAX);
    if (body_bytes > BODY_INLINE_MAX)
        msg->chunk_count = (body_bytes + WORLD_CHUNK_BYTES - 1) / WORLD_CHUNK_BYTES;
    struct action *a = action_new(w, ACTION_APPEND, msg);
    a->fresh = fresh;
    w->counts.appends++;
    w->counts.large += msg->chunk_count > 0;
    if (msg->chunk_count)
        append_chunks(a);
    else
        append_message(a);
    return msg;
}

/* --- results --- */

static const char *visit_word(enum visit_kind kind)
{
    static const char *const words[] = {"nothing", "mark", "defer", "retire", "bounce", "hold", "release"};
    return words[kind];
}

static void result_on_done(struct spool_group *g, enum err e)
{
    struct action *a = g->owner;
    struct world *w = a->w;
    struct model_message *msg = a->msg;
    world_say(w, "%s %llu, its message in segment %llu, result in segment %llu at %llu: %s", visit_word(a->visit),
              (unsigned long long)msg->qid.counter, (unsigned long long)msg->segment.counter,
              (unsigned long long)a->records[0].place.segment.counter,
              (unsigned long long)a->records[0].place.frame, err_name(e));
    switch (a->visit) {
    case VISIT_BOUNCE:
        model_on_appended(&w->model, a->bounce, e);
        if (e == ERR_OK)
            witness_acknowledged(w, a->bounce, a->records[1].place.segment);
        w->counts.bounces += e == ERR_OK;
        __attribute__((fallthrough));
    case VISIT_RETIRE:
        model_on_retired(&w->model, msg, e);
        w->counts.retires += e == ERR_OK;
        break;
    case VISIT_MARK:
        model_on_delivered(msg, a->mark.recipient, e);
        w->counts.marks += e == ERR_OK;
        break;
    case VISIT_HOLD:
    case VISIT_RELEASE:
        model_on_held(msg, e);
        w->counts.states += e == ERR_OK;
        break;
    default:
        break;
    }
    if (e != ERR_OK)
        judge_refusal(w, e, "a result");
    action_end(a);
}

static void result_mark(struct action *a)
{
    bool deferred = a->visit == VISIT_DEFER;
    uint32_t length = 0;
    a->mark = (struct mark){.recipient = (uint32_t)prng_below(&a->w->work, a->msg->recipients),
                            .status = deferred ? MARK_DEFERRED : MARK_DELIVERED, .reason = "250 ok", .reason_len = 6};
    if (deferred && a->msg->delivered[a->mark.recipient] != MODEL_NO)
        a->mark.status = MARK_DELIVERED; /* a recipient that has its mail is not deferred again */
    if (a->mark.status == MARK_DELIVERED)
        a->visit = VISIT_MARK;
    else
        a->mark.deferred_until_ms = pool_clock_ms(a->w->pool) + prng_below(&a->w->work, 5000);
    enum err e = mark_encode(a->payload, sizeof a->payload, &a->mark, 1, &length);
    ASSERT(e == ERR_OK);
    a->records[0] = (struct spool_record){.type = RECORD_MARK, .parts = {{a->payload, length}}};
    if (a->visit == VISIT_MARK && a->msg->delivered[a->mark.recipient] == MODEL_NO)
        a->msg->delivered[a->mark.recipient] = MODEL_ASKED;
}

/* The bounce first, then what it is about: they share one frame. */
static void result_bounce(struct action *a, uint8_t *envelope, uint32_t envelope_max, uint8_t *body)
{
    struct world *w = a->w;
    if (!a->bounce) {
        a->bounce = message_new(w);
        a->bounce->bounce = a->bounce->busy = true;
        a->bounce->recipients = 1;
        a->bounce->body_bytes = 700;
    }
    uint32_t length = model_envelope(a->bounce, pool_clock_ms(w->pool), envelope, envelope_max);
    model_body(a->bounce, 0, body, a->bounce->body_bytes);
    a->records[1] = (struct spool_record){.type = RECORD_MESSAGE, .qid = a->bounce->qid, .envelope_bytes = length,
                                          .parts = {{envelope, length}, {body, a->bounce->body_bytes}}};
}

static void result_refused(struct action *a, enum err e)
{
    struct model_message *msg = a->msg;
    if (msg->retired == MODEL_ASKED)
        msg->retired = MODEL_NO;
    if (a->visit == VISIT_HOLD || a->visit == VISIT_RELEASE)
        msg->held = MODEL_MAYBE;
    if (a->bounce)
        a->bounce->appended = MODEL_NO;
    judge_refusal(a->w, e, "a result");
    action_end(a);
}

static void result_submit(struct action *a)
{
    static uint8_t envelope[MODEL_ENVELOPE_BYTES_MAX], body[1024];
    struct model_message *msg = a->msg;
    enum model_fact marked_before[MODEL_RECIPIENTS_MAX];
    memcpy(marked_before, msg->delivered, sizeof marked_before);
    uint32_t count = 1;
    switch (a->visit) {
    case VISIT_MARK:
    case VISIT_DEFER:
        result_mark(a);
        break;
    case VISIT_BOUNCE:
        result_bounce(a, envelope, sizeof envelope, body);
        count = 2;
        __attribute__((fallthrough));
    case VISIT_RETIRE:
        a->records[0] = (struct spool_record){.type = RECORD_RETIRE};
        msg->retired = msg->retired == MODEL_NO ? MODEL_ASKED : msg->retired;
        break;
    case VISIT_HOLD:
    case VISIT_RELEASE:
        a->records[0] = (struct spool_record){
            .type = RECORD_STATE, .arg = a->visit == VISIT_HOLD ? RECORD_STATE_HOLD : RECORD_STATE_RELEASE};
        msg->want_held = a->visit == VISIT_HOLD;
        msg->held = MODEL_ASKED;
        break;
    default:
        action_end(a);
        return;
    }
    a->records[0].qid = msg->qid;
    a->records[0].message_segment = msg->segment;
    a->group = (struct spool_group){.records = a->records, .count = count, .class = SPOOL_RESULT, .done = result_on_done, .owner = a};
    enum err e = spool_submit(a->w->pool, &a->group);
    if (e == ERR_OK)
        return;
    memcpy(msg->delivered, marked_before, sizeof marked_before);
    if (refusal_passes(e))
        action_later(a, result_submit);
    else
        result_refused(a, e);
}

/* --- visit --- */

static void visit_read_chunk(struct action *a);

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
    action_end(a);
}

/* Every byte was compared. */
static void visit_verified(struct action *a)
{
    a->msg->verified = a->w->model.audits;
    result_submit(a);
}

static void visit_on_part(struct spool_read *r, enum err e)
{
    struct action *a = r->owner;
    struct world *w = a->w;
    bool message = r->type == RECORD_MESSAGE;
    a->reading = false;
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

static enum visit_kind visit_draw(struct world *w)
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
    if (!spool_index_ready(w->pool))
        return;
    struct action *a = action_new(w, ACTION_DUE, NULL);
    a->query = (struct index_query){.kind = INDEX_DUE, .now_ms = pool_clock_ms(w->pool), .max = DUE_AT_ONCE,
                                    .done = due_on_answer, .owner = a};
    a->querying = true;
    index_query(spool_index(w->pool), &a->query);
}

/* --- the plan's next actions --- */

static struct model_message *senders_pick(struct world *w)
{
    if (w->model.count == 0)
        return NULL;
    for (uint32_t tries = 0; tries < 8; tries++) {
        struct model_message *msg = &w->model.messages[prng_below(&w->work, w->model.count)];
        bool there = model_must_be_there(msg) || (msg->apart && msg->appended == MODEL_YES && msg->retired == MODEL_NO);
        if (there && !msg->busy)
            return msg;
    }
    return NULL;
}

static uint32_t senders_body(struct world *w)
{
    if (prng_below(&w->work, w->plan.large_one_in) == 0)
        return BODY_INLINE_MAX + 1 + (uint32_t)prng_below(&w->work, w->plan.large_max);
    return (uint32_t)prng_below(&w->work, w->plan.body_max);
}

static void senders_begin(struct world *w)
{
    uint64_t draw = prng_below(&w->work, 100);
    w->begun++;
    if (draw < 50 && w->model.live_bytes < w->plan.backlog_bytes) {
        senders_append(w, senders_body(w), prng_below(&w->work, 3) == 0);
        return;
    }
    struct model_message *msg = draw < 65 ? senders_pick(w) : NULL;
    if (!msg)
        senders_due(w);
    else if (msg->was_held || msg->held == MODEL_MAYBE)
        senders_visit(w, msg, VISIT_RELEASE);
    else
        senders_visit(w, msg, visit_draw(w));
}

static void senders_watch(struct world *w)
{
    uint64_t now = io_now_ns(w->io);
    LINK_EACH_SAFE(l, next, &w->actions) {
        struct action *a = CONTAINER_OF(l, struct action, link);
        if (now - a->begun_ns > WORLD_LIVENESS_NS) {
            world_fail(w, "liveness: %s of queue id %llu has waited %llu s (%s)",
                       a->kind == ACTION_APPEND ? "an append" : "a visit",
                       (unsigned long long)(a->msg ? a->msg->qid.counter : 0),
                       (unsigned long long)((now - a->begun_ns) / 1000000000),
                       a->querying ? "index" : a->reading ? "read" : a->again ? "refused" : "commit");
            return;
        }
        if (a->again && now >= a->retry_ns) {
            void (*again)(struct action *) = a->again;
            a->again = NULL;
            again(a);
            return; /* it may have ended actions: the list is looked at anew in the next step */
        }
    }
}

void senders_step(struct world *w)
{
    senders_watch(w);
    if (w->paused || io_now_ns(w->io) < w->resume_ns)
        return;
    while (w->action_count < w->plan.at_once && world_begins(w)) {
        senders_begin(w);
        if (w->plan.pause_ns && prng_below(&w->work, 4) == 0) {
            w->resume_ns = io_now_ns(w->io) + prng_below(&w->work, w->plan.pause_ns);
            return;
        }
    }
}

void senders_forget(struct world *w)
{
    struct link *l;
    while ((l = link_pop(&w->actions)) != NULL) {
        struct action *a = CONTAINER_OF(l, struct action, link);
        index_query_fini(&a->query);
        /* CHUNKs only: the MESSAGE was never handed over */
        if (a->kind == ACTION_APPEND && a->msg->appended == MODEL_ASKED && a->group.records == NULL)
            a->msg->appended = MODEL_NO;
        free(a);
    }
    w->action_count = 0;
}
