/* SPDX-License-Identifier: Apache-2.0 */
/* fault-add, fault-list, fault-clear. A fault on one message's record asks the index first where it lies. */
#include "admin_client.h"
#include "fault_live.h"

#include <inject_io.h>
#include <spoolfs/locate.h>
#include <stdlib.h>
#include <string.h>

struct fault_job {
    struct admin_client *client; /* NULL: orphaned */
    struct index_query query;
    struct inject_fault wanted;
    uint64_t seconds;
    bool asked;
};

static void answer_added(struct admin_client *c, struct inject_fault *wanted, uint64_t seconds)
{
    uint32_t id;
    const char *text = NULL;
    struct fault_row row;
    enum err e = fault_live_add(c->spool, wanted, seconds, &id, &text);
    if (e != ERR_OK) {
        admin_fail(c, e == ERR_NOT_FOUND ? e : ERR_INVALID, text);
        return;
    }
    fault_live_row(c->spool, wanted, &row);
    admin_ok(c, "json");
    fault_json(&row, &c->out);
    json_line_end(&c->out);
    admin_finish(c);
}

static void job_free(struct fault_job *job)
{
    index_query_fini(&job->query);
    free(job);
}

static void job_drop(struct admin_client *c)
{
    struct fault_job *job = c->job;
    if (job->asked)
        job->client = NULL;
    else
        job_free(job);
}

static void place_came(struct index_query *q, enum err e)
{
    struct fault_job *job = q->owner;
    struct admin_client *c = job->client;
    uint64_t offset = 0;
    job->asked = false;
    if (!c) {
        job_free(job);
        return;
    }
    if (e != ERR_OK) {
        admin_fail(c, e, e == ERR_NOT_FOUND ? "no such message in the queue" : err_text(e));
        return;
    }
    const struct place *place = &q->entries[0].place;
    e = pool_locate(c->spool->pool, job->wanted.target, place, &offset);
    if (e != ERR_OK) {
        admin_fail(c, e, "no copy of that message lies on that member");
        return;
    }
    job->wanted.from = offset;
    job->wanted.to = offset + place->length;
    answer_added(c, &job->wanted, job->seconds);
}

static void ask_place(struct admin_client *c, const struct inject_fault *wanted, uint64_t seconds, const char *id)
{
    struct queue_id qid;
    enum err e = queue_id_parse(id, strlen(id), &qid);
    struct fault_job *job = e == ERR_OK ? calloc(1, sizeof *job) : NULL;
    if (!job) {
        admin_fail(c, e != ERR_OK ? e : ERR_NO_MEMORY, e != ERR_OK ? "that is not a queue id" : err_text(ERR_NO_MEMORY));
        return;
    }
    *job = (struct fault_job){.client = c, .wanted = *wanted, .seconds = seconds, .asked = true,
                              .query = {.kind = INDEX_LOOKUP, .done = place_came, .owner = job, .qid = qid}};
    c->job = job;
    c->drop = job_drop;
    c->moved = true;
    index_query(spool_index(c->spool->pool), &job->query);
}

static double number_or(const struct json_in *request, const char *key, double otherwise)
{
    return json_in_has(request, key) ? json_in_number(request, key) : otherwise;
}

static void fault_add(struct admin_client *c, const struct json_in *request)
{
    struct inject_fault wanted = {.rate = number_or(request, "rate", 1), .from = json_in_count(request, "from"),
                                  .to = json_in_has(request, "to") ? json_in_count(request, "to") : UINT64_MAX,
                                  .factor = (uint32_t)json_in_count(request, "factor"),
                                  .seed = json_in_count(request, "seed")};
    uint64_t seconds = json_in_has(request, "seconds") ? json_in_count(request, "seconds") : INJECT_SECONDS_DEFAULT;
    const char *id = json_in_text(request, "queue_id");
    if (!json_in_has(request, "factor"))
        wanted.factor = INJECT_FACTOR_DEFAULT;
    else if (json_in_count(request, "factor") > INJECT_FACTOR_MAX)
        wanted.factor = 0; /* refused, not cut */
    if (inject_kind_parse(json_in_text(request, "kind"), &wanted.kind) != ERR_OK) {
        admin_fail(c, ERR_INVALID, "that is not a kind of fault: bit-rot torn-write lost-write misdirected-write "
                                   "misdirected-read stale-read read-error media-error write-error flush-error flush-lie slow "
                                   "one-arm stall vanish return full");
        return;
    }
    enum err e = pool_target_of(c->spool->pool, json_in_text(request, "name"), &wanted.target);
    if (e != ERR_OK)
        admin_fail(c, e, e == ERR_NOT_FOUND ? "there is no such member" : "that member is not there");
    else if (id[0])
        ask_place(c, &wanted, seconds, id);
    else
        answer_added(c, &wanted, seconds);
}

static void fault_list(struct admin_client *c)
{
    struct status_view view = {0};
    fault_live_rows(c->spool, &view);
    admin_ok(c, "json");
    json_object_begin(&c->out, NULL);
    faults_json(&view, "faults", &c->out);
    json_object_end(&c->out);
    json_line_end(&c->out);
    admin_finish(c);
}

static void fault_clear(struct admin_client *c, const struct json_in *request)
{
    const char *name = json_in_text(request, "name");
    uint16_t target = INJECT_ANY_TARGET;
    uint64_t id = json_in_count(request, "id");
    if (name[0] && pool_target_of(c->spool->pool, name, &target) != ERR_OK) {
        admin_fail(c, ERR_NOT_FOUND, "there is no such member");
        return;
    }
    uint32_t cleared = id <= UINT32_MAX ? inject_clear(c->spool->inject, target, (uint32_t)id) : 0;
    if (id && !cleared) {
        admin_fail(c, ERR_NOT_FOUND, "no fault with that number is active");
        return;
    }
    admin_ok(c, "json");
    text_add(&c->out, "{\"cleared\":%u}\n", cleared);
    admin_finish(c);
}

bool admin_fault(struct admin_client *c, const char *command, const struct json_in *request)
{
    if (strncmp(command, "fault-", 6) != 0)
        return false;
    const char *verb = command + 6;
    if (strcmp(verb, "add") != 0 && strcmp(verb, "list") != 0 && strcmp(verb, "clear") != 0)
        return false;
    if (!c->spool->inject)
        admin_fail(c, ERR_DENIED, "faults may not be injected here: the configuration says fault_injection = no");
    else if (verb[0] == 'a')
        fault_add(c, request);
    else if (verb[0] == 'l')
        fault_list(c);
    else
        fault_clear(c, request);
    return true;
}
