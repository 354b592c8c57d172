/* SPDX-License-Identifier: Apache-2.0 */
/* Changing the queue: hold, release, retry, expire, delete. Each change is a record, committed like mail, and counts only
 * when it is durable; then the relay is asked to give back what it holds.
 *
 *   asking (a page of the index) -> choosing (up to ACT_BATCH) -> committing (one group) -> telling -> asking ...
 *
 * One group is in flight per client; a client that goes away ends the work after that group. */
#include "admin_client.h"
#include "spool_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACT_BATCH 128u /* records of one group: a frame's share that mail does not feel */

enum act { ACT_HOLD, ACT_RELEASE, ACT_RETRY, ACT_REQUEUE, ACT_EXPIRE, ACT_DELETE };
static const struct { const char *verb, *done; enum record_type type; enum record_state state; } acts[] = {
    [ACT_HOLD] = {"hold", "held", RECORD_STATE, RECORD_STATE_HOLD},
    [ACT_RELEASE] = {"release", "released", RECORD_STATE, RECORD_STATE_RELEASE},
    [ACT_RETRY] = {"retry", "due now", RECORD_STATE, RECORD_STATE_RETRY},
    [ACT_REQUEUE] = {"requeue", "requeued", RECORD_STATE, RECORD_STATE_RETRY}, /* or released: choose */
    [ACT_EXPIRE] = {"expire", "expired", RECORD_STATE, RECORD_STATE_EXPIRE},
    [ACT_DELETE] = {"delete", "deleted", RECORD_RETIRE, 0},
};

struct act_job {
    struct admin_client *client;  /* NULL: orphaned */
    struct spool_process *spool;
    struct index_query query;
    struct admin_selector select;
    enum act act;
    bool dry_run, asked, have, in_flight, waits; /* waits: the group was told ERR_BUSY */
    uint32_t at, id_at;
    uint64_t matched, changed, failed;
    struct spool_group group;
    struct spool_record records[ACT_BATCH];
};

static void act_free(struct act_job *job)
{
    index_query_fini(&job->query);
    selector_free(&job->select);
    free(job);
}

static void say(struct act_job *job, struct queue_id qid, const char *result)
{
    char text[QUEUE_ID_TEXT];
    struct json_out *j = &job->client->out;
    queue_id_print(qid, text);
    json_object_begin(j, NULL);
    json_text(j, "queue_id", text);
    json_text(j, "result", result);
    json_object_end(j);
    json_line_end(j);
}

/* --- commit --- */

static void after_commit(struct act_job *job)
{
    struct spool_wire *wire = job->spool->wire;
    for (uint32_t i = 0; i < job->group.count && wire; i++)
        if (job->act != ACT_RELEASE)
            spool_wire_recall(wire, job->records[i].qid);
    if (wire && job->act != ACT_HOLD && job->act != ACT_DELETE)
        spool_wire_poke(wire);
}

static void act_committed(struct spool_group *g, enum err e)
{
    struct act_job *job = g->owner;
    job->in_flight = false;
    if (e == ERR_OK)
        after_commit(job);
    for (uint32_t i = 0; i < g->count && job->client; i++)
        say(job, job->records[i].qid, e == ERR_OK ? acts[job->act].done : err_text(e));
    job->changed += e == ERR_OK ? g->count : 0;
    job->failed += e == ERR_OK ? 0 : g->count;
    g->count = 0;
    if (!job->client)
        act_free(job);
}

static void act_submit(struct act_job *job)
{
    enum err e = spool_submit(job->spool->pool, &job->group);
    job->waits = e == ERR_BUSY; /* the next turn tries again */
    if (e == ERR_OK) {
        job->in_flight = job->client->moved = true;
    } else if (e != ERR_BUSY) {
        for (uint32_t i = 0; i < job->group.count; i++)
            say(job, job->records[i].qid, err_text(e));
        job->failed += job->group.count;
        job->group.count = 0;
    }
}

/* --- choose --- */

static void choose(struct act_job *job, const struct index_entry *e)
{
    if (!selector_matches(&job->select, job->spool, e))
        return;
    bool held = e->state == INDEX_HOLD;
    const char *skip = job->act == ACT_HOLD && held ? "is on hold already"
                       : job->act == ACT_RELEASE && !held ? "is not on hold"
                       : job->act == ACT_RETRY && held ? "is on hold: release it" : NULL;
    job->matched++;
    if (skip || job->dry_run) {
        char text[64];
        snprintf(text, sizeof text, "would be %s", acts[job->act].done);
        say(job, e->qid, skip ? skip : text);
        return;
    }
    bool release = job->act == ACT_REQUEUE && held;
    job->records[job->group.count++] = (struct spool_record){
        .type = acts[job->act].type, .qid = e->qid, .message_segment = e->place.segment,
        .arg = (uint32_t)acts[release ? ACT_RELEASE : job->act].state};
}

static void act_came(struct index_query *q, enum err e)
{
    struct act_job *job = q->owner;
    job->asked = false;
    if (!job->client) {
        act_free(job);
        return;
    }
    job->have = e == ERR_OK;
    job->at = 0;
    if (e == ERR_NOT_FOUND && q->kind == INDEX_LOOKUP) {
        say(job, job->select.ids[job->id_at - 1], "no such message in the queue");
        job->failed++;
    } else if (e != ERR_OK) {
        job->client->broken = true;
    }
}

static void act_ask(struct act_job *job)
{
    struct queue_id cursor = job->query.qid;
    bool lookup = job->select.id_count > 0;
    index_query_fini(&job->query);
    job->have = false;
    job->query = (struct index_query){.kind = lookup ? INDEX_LOOKUP : INDEX_LIST, .done = act_came, .owner = job,
                                      .qid = lookup ? job->select.ids[job->id_at++] : cursor,
                                      .max = INDEX_QUERY_ENTRIES_MAX};
    job->asked = job->client->moved = true;
    index_query(spool_index(job->spool->pool), &job->query);
}

static bool act_more(const struct act_job *job)
{
    if (job->select.id_count > 0)
        return job->id_at < job->select.id_count;
    return !job->query.done || job->query.more;
}

static void act_end(struct admin_client *c, struct act_job *job)
{
    if ((job->act == ACT_RETRY || job->act == ACT_REQUEUE) && job->select.all && !job->dry_run)
        spool_wire_flush(job->spool->wire);
    log_line("spool", "control: queue %s%s: %llu matched, %llu changed, %llu failed", acts[job->act].verb,
             job->dry_run ? " (dry run)" : "", (unsigned long long)job->matched, (unsigned long long)job->changed,
             (unsigned long long)job->failed);
    text_add(&c->out, "{\"end\":true,\"count\":%llu,\"matched\":%llu,\"failed\":%llu}\n", (unsigned long long)job->changed,
             (unsigned long long)job->matched, (unsigned long long)job->failed);
    admin_finish(c);
}

static void act_pump(struct admin_client *c)
{
    struct act_job *job = c->job;
    if (job->waits)
        act_submit(job);
    while (admin_has_room(c) && !job->asked && !job->in_flight && !job->waits) {
        bool entries = job->have && job->at < job->query.entry_count;
        bool full = job->group.count == ACT_BATCH;
        /* looked up one by one, ids gather until a group is full */
        if (entries && !full)
            choose(job, &job->query.entries[job->at++]);
        else if (job->group.count > 0 && (full || !act_more(job) || job->select.id_count == 0))
            act_submit(job);
        else if (act_more(job))
            act_ask(job);
        else
            act_end(c, job);
    }
}

static void act_drop(struct admin_client *c)
{
    struct act_job *job = c->job;
    if (job->asked || job->in_flight)
        job->client = NULL;
    else
        act_free(job);
}

static enum act act_named(const char *verb)
{
    for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++)
        if (strcmp(acts[i].verb, verb) == 0)
            return (enum act)i;
    UNREACHABLE(); /* admin.c looked it up */
}

void admin_act(struct admin_client *c, const struct json_in *request, const char *verb)
{
    const char *text = err_text(ERR_NO_MEMORY);
    struct act_job *job = calloc(1, sizeof *job);
    enum err e = job ? selector_parse(request, &job->select, &text) : ERR_NO_MEMORY;
    if (e == ERR_OK && !job->select.any) {
        text = "select messages: ids, all, sender, domain, older_than_seconds";
        e = ERR_INVALID;
    }
    if (e != ERR_OK) {
        if (job)
            act_free(job);
        admin_fail(c, e, text);
        return;
    }
    job->client = c;
    job->spool = c->spool;
    job->act = act_named(verb);
    job->dry_run = json_in_true(request, "dry_run");
    job->group = (struct spool_group){.records = job->records, .class = SPOOL_RESULT, .done = act_committed, .owner = job};
    c->job = job;
    c->pump = act_pump;
    c->drop = act_drop;
    admin_ok(c, "lines");
}
