/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the comparison of everything the pool shows with everything that was promised. First the list (nothing missing,
 * nothing foreign, nothing back from the dead), then every byte of every message through the pool's own read path. */
#include "world.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 256u
#define READS_AT_ONCE 12u
#define PATIENCE_NS (UINT64_C(90) * 1000000000) /* for the index to catch up, and for reads behind a stalled member */

static void on_page(struct index_query *q, enum err e)
{
    struct world *w = q->owner;
    w->asked.done = true;
    w->asked.e = e;
}

/* Waits for one answer. False: the power went; the index forgets the question when it is closed. */
static bool ask(struct world *w, const struct index_query *question)
{
    w->asked.query = *question;
    w->asked.query.done = on_page;
    w->asked.query.owner = w;
    w->asked.done = false;
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    index_query(spool_index(w->pool), &w->asked.query);
    while (!w->asked.done && !world_crashed(w) && !world_failed(w)) {
        world_turn(w);
        if (io_now_ns(w->io) > until)
            world_fail(w, "liveness: the index does not answer");
    }
    return w->asked.done && !world_failed(w);
}

static void audit_entry(struct world *w, const struct index_entry *e)
{
    struct model_message *msg = NULL;
    const char *wrong = model_audit_entry(&w->model, e, &msg);
    if (!wrong)
        wrong = model_audit_envelope(msg, e->envelope, e->envelope_bytes);
    bool borne = wrong && (w->plan.level == PLAN_BEYOND || w->losing) && strncmp(wrong, "MOD-3", 5) != 0; /* a result may be lost */
    if (wrong && !borne)
        world_fail(w, "promise broken: %s (queue id %llx.%llu)", wrong, (unsigned long long)e->qid.incarnation,
                   (unsigned long long)e->qid.counter);
    w->counts.messages_audited++;
}

static bool audit_list(struct world *w)
{
    struct queue_id cursor = {0};
    bool more = true;
    model_audit_begin(&w->model);
    while (more) {
        struct index_query *q = &w->asked.query;
        if (!ask(w, &(struct index_query){.kind = INDEX_LIST, .qid = cursor, .max = PAGE_MAX}))
            return false;
        if (world_crashed(w)) {
            index_query_fini(q);
            return false;
        }
        if (w->asked.e != ERR_OK)
            world_fail(w, "the index answers a list with %s", err_name(w->asked.e));
        for (uint32_t i = 0; i < q->entry_count && !world_failed(w); i++)
            audit_entry(w, &q->entries[i]);
        cursor = q->qid;
        more = w->asked.e == ERR_OK && q->more && q->entry_count > 0;
        index_query_fini(q);
    }
    return !world_failed(w);
}

/* What was acknowledged may still be on its way into the index: patience, then a verdict. */
static bool audit_complete(struct world *w)
{
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    for (;;) {
        if (!audit_list(w))
            return false;
        const struct model_message *missing = model_audit_missing(&w->model);
        if (!missing || (w->plan.level == PLAN_BEYOND && !w->losing))
            break;
        if (io_now_ns(w->io) > until) {
            world_fail(w, "MOD-1: acknowledged and not retired, and gone: queue id %llx.%llu of %u bytes, segment %llu",
                       (unsigned long long)missing->qid.incarnation, (unsigned long long)missing->qid.counter,
                       missing->body_bytes, (unsigned long long)missing->segment.counter);
            return false;
        }
        for (uint32_t i = 0; i < 10 && !world_crashed(w) && !world_failed(w); i++)
            world_turn(w);
        if (world_crashed(w) || world_failed(w))
            return false;
    }
    model_audit_settle(&w->model);
    return true;
}

static bool audit_bytes(struct world *w)
{
    uint64_t until = io_now_ns(w->io) + PATIENCE_NS;
    bool left = true;
    uint32_t from = 0; /* nothing is to be read before it */
    while (left && !world_crashed(w) && !world_failed(w)) {
        left = w->action_count > 0;
        for (uint32_t i = from; i < w->model.count; i++) {
            struct model_message *msg = &w->model.messages[i];
            bool read = msg->seen != w->model.audits || msg->verified == w->model.audits;
            from += read && i == from;
            if (read || !model_must_be_there(msg))
                continue;
            left = true;
            if (w->action_count < READS_AT_ONCE && !senders_visit(w, msg, VISIT_NOTHING) && io_now_ns(w->io) > until) {
                world_fail(w, "liveness: queue id %llu cannot be read", (unsigned long long)msg->qid.counter);
                return false;
            }
        }
        world_turn(w);
        if (io_now_ns(w->io) > until && left)
            world_fail(w, "liveness: an audit's reads do not end");
    }
    return !world_crashed(w) && !world_failed(w);
}

bool audit_run(struct world *w)
{
    bool was = w->paused;
    w->paused = true;
    bool ok = world_settle(w) && audit_complete(w) && audit_bytes(w);
    w->paused = was;
    w->counts.audits += ok;
    if (ok)
        world_say(w, "audit: %u handed over, all promises kept", w->model.count);
    return ok;
}

bool audit_strict(struct world *w)
{
    w->losing = true;
    bool ok = audit_run(w);
    w->losing = false;
    return ok;
}

void audit_is_final(struct world *w)
{
    for (uint32_t i = 0; i < w->model.count; i++) {
        struct model_message *msg = &w->model.messages[i];
        if (msg->seen == w->model.audits)
            continue;
        if (msg->appended == MODEL_MAYBE)
            msg->appended = MODEL_NO;
        if (msg->appended == MODEL_YES && msg->retired == MODEL_MAYBE)
            msg->retired = MODEL_YES;
    }
}

static void copy_disks(struct world *to, struct world *from, uint32_t absent_mask)
{
    for (uint16_t t = 0; t < from->plan.members; t++) {
        struct sim_disk *old = sim_io_change_disk(to->sim, t, sim_disk_snapshot(sim_io_disk(from->sim, t)));
        sim_disk_free(&old);
        if ((absent_mask & (1u << t)) || !sim_io_present(from->sim, t))
            sim_io_vanish(to->sim, t);
    }
}

bool audit_copy(struct world *w, uint32_t absent_mask)
{
    struct world *copy = calloc(1, sizeof *copy);
    ASSERT(copy != NULL);
    struct plan plan = w->plan;
    plan.level = PLAN_NONE;
    world_make(copy, &plan);
    model_fini(&copy->model);
    model_copy(&copy->model, &w->model);
    model_on_crash(&copy->model);
    copy->paused = copy->faults_off = true;
    copy->verbose = w->verbose;
    copy->list_from = w->list_from;
    copy->config.member_count = w->config.member_count;
    copy_disks(copy, w, absent_mask);
    kept_copy(copy, w);
    if (world_mount(copy))
        audit_run(copy);
    if (world_failed(copy))
        world_fail(w, "without members %#x: %.400s", absent_mask, copy->failure);
    bool ok = !world_failed(copy);
    world_free(copy);
    free(copy);
    return ok;
}
