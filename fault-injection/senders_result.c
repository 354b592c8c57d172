/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what the simulated relay says of a message it holds: MARK, RETIRE, STATE, a bounce in the frame of what it is about; and what
 * the model is told of the answer. */
#include "senders.h"

#include <base/assert.h>
#include <string.h>

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

void result_submit(struct action *a)
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

