/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the life of the simulated relay's actions (SND-1), what it begins next, and how long anything may wait (WLD-2). How mail is
 * handed over is senders_append.c's, how it is read senders_visit.c's, what is said of it senders_result.c's. */
#include "senders.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS UINT64_C(5000000)
#define FULL_PAUSE_NS UINT64_C(1000000000) /* 452: the sender comes again, and compaction has had time for some segments */

struct action *action_new(struct world *w, enum action_kind kind, struct model_message *msg)
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

void action_end(struct action *a)
{
    struct world *w = a->w;
    if (a->leased)
        spool_lease_end(w->pool, a->msg->qid);
    if (a->msg && !a->lent)
        a->msg->busy = a->msg->leased = false;
    if (a->bounce)
        a->bounce->busy = false;
    link_remove(&a->link);
    w->action_count--;
    free(a);
}

void action_later(struct action *a, void (*again)(struct action *a))
{
    a->again = again;
    a->retry_ns = io_now_ns(a->w->io) + RETRY_NS;
}

bool refusal_passes(enum err e) { return e == ERR_BUSY || e == ERR_INDEX_LAG; }

bool pool_is_full(struct world *w)
{
    static struct pool_status s;
    pool_status(w->pool, &s);
    return s.accepting != ERR_OK || s.bytes_free_for_mail < 2 * w->plan.segment_bytes;
}

void refused_full(struct world *w)
{
    w->counts.refused[ERR_FULL]++;
    w->full_ns = io_now_ns(w->io);
    if (io_now_ns(w->io) + FULL_PAUSE_NS > w->resume_ns)
        w->resume_ns = io_now_ns(w->io) + FULL_PAUSE_NS;
}

void judge_refusal(struct world *w, enum err e, const char *what)
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

struct model_message *message_new(struct world *w)
{
    struct queue_id qid = spool_lend_queue_ids(w->pool, 1);
    while (model_find(&w->model, qid)) {
        world_fail(w, "promise broken: queue id %llx.%llu is lent twice", (unsigned long long)qid.incarnation,
                   (unsigned long long)qid.counter);
        qid.counter++;
    }
    return model_add(&w->model, qid, prng_next(&w->work));
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
    if (w->scheduler)
        w->scheduler->step(w);
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
    if (w->scheduler)
        w->scheduler->stop(w);
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
