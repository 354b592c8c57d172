/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: handing mail over.
 *
 *   CHUNKs, a few at a time -> MESSAGE -> acknowledged [-> retired from memory: senders_result.c] */
#include "senders.h"

#include <stdlib.h>
#include <string.h>

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

