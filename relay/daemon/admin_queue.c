/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at the queue: list, summary, show, body. Lists go page by page through the index and stop while the client
 * does not read; a body is read record by record, each verified, and cut short rather than sent damaged (P2). */
#include "admin_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A job whose client went away while a query or a read was under way lives until that is done. */
struct list_job {
    struct admin_client *client;   /* NULL: orphaned */
    struct spool_process *spool;
    struct index_query query;
    struct admin_selector select;
    bool asked, have, last;
    uint32_t at, id_at;
    uint64_t count;
};

static void list_free(struct list_job *job)
{
    index_query_fini(&job->query);
    selector_free(&job->select);
    free(job);
}

static void list_came(struct index_query *q, enum err e)
{
    struct list_job *job = q->owner;
    job->asked = false;
    if (!job->client) {
        list_free(job);
        return;
    }
    job->have = e == ERR_OK;
    job->at = 0;
    bool gone = e == ERR_NOT_FOUND && job->query.kind == INDEX_LOOKUP;
    if (e != ERR_OK && !gone)
        job->client->broken = true; /* the missing end tells the client */
}

static void list_ask(struct list_job *job)
{
    struct queue_id cursor = job->query.qid;
    bool lookup = job->select.id_count > 0;
    index_query_fini(&job->query);
    job->have = false;
    job->query = (struct index_query){.kind = lookup ? INDEX_LOOKUP : INDEX_LIST, .done = list_came, .owner = job,
                                      .qid = lookup ? job->select.ids[job->id_at++] : cursor,
                                      .max = INDEX_QUERY_ENTRIES_MAX};
    job->asked = job->client->moved = true;
    index_query(spool_index(job->spool->pool), &job->query);
}

static bool list_more(const struct list_job *job)
{
    if (job->select.id_count > 0)
        return job->id_at < job->select.id_count;
    return !job->query.done || job->query.more;
}

static void list_pump(struct admin_client *c)
{
    struct list_job *job = c->job;
    while (admin_has_room(c) && !job->asked) {
        if (job->have && job->at < job->query.entry_count) {
            const struct index_entry *e = &job->query.entries[job->at++];
            if (!selector_matches(&job->select, c->spool, e))
                continue;
            entry_write(c->spool, e, &c->out);
            json_object_end(&c->out);
            json_line_end(&c->out);
            job->count++;
            continue;
        }
        if (list_more(job)) {
            list_ask(job);
            continue;
        }
        text_add(&c->out, "{\"end\":true,\"count\":%llu}\n", (unsigned long long)job->count);
        admin_finish(c);
    }
}

static void list_drop(struct admin_client *c)
{
    struct list_job *job = c->job;
    if (job->asked)
        job->client = NULL;
    else
        list_free(job);
}

void admin_list(struct admin_client *c, const struct json_in *request)
{
    const char *text;
    struct list_job *job = calloc(1, sizeof *job);
    enum err e = ERR_NO_MEMORY;
    text = err_text(e);
    if (job)
        e = selector_parse(request, &job->select, &text);
    if (e != ERR_OK) {
        free(job);
        admin_fail(c, e, text);
        return;
    }
    job->client = c;
    job->spool = c->spool;
    c->job = job;
    c->pump = list_pump;
    c->drop = list_drop;
    admin_ok(c, "lines");
}

/* --- one query, one answer --- */

#define SUMMARY_DOMAINS 200u /* the busiest destinations; who needs all lists the queue */

struct ask_job {
    struct admin_client *client;
    struct spool_process *spool;
    struct index_query query;
    struct counts_wait counts;
    bool asked;
};

static void ask_drop(struct admin_client *c)
{
    struct ask_job *job = c->job;
    spool_counts_forget(&job->counts);
    if (job->asked) {
        job->client = NULL;
        return;
    }
    index_query_fini(&job->query);
    free(job);
}

static struct ask_job *ask_begin(struct admin_client *c, struct index_query query)
{
    struct ask_job *job = calloc(1, sizeof *job);
    if (!job) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    job->client = c;
    job->spool = c->spool;
    job->query = query;
    job->query.owner = job;
    c->job = job;
    c->drop = ask_drop;
    job->asked = true;
    index_query(spool_index(c->spool->pool), &job->query);
    return job;
}

/* NULL: the client is gone and the job freed, or it was told about the error. */
static struct admin_client *ask_client(struct ask_job *job, enum err e)
{
    struct admin_client *c = job->client;
    job->asked = false;
    if (!c) {
        index_query_fini(&job->query);
        free(job);
        return NULL;
    }
    if (e == ERR_OK)
        return c;
    admin_fail(c, e, e == ERR_NOT_FOUND ? "no such message in the queue" : err_text(e));
    return NULL;
}

static int by_messages(const void *a, const void *b)
{
    const struct index_domain *x = a, *y = b;
    return x->messages < y->messages ? 1 : x->messages > y->messages ? -1 : strcmp(x->domain, y->domain);
}

static void summary_write(struct counts_wait *w)
{
    struct ask_job *job = w->owner;
    struct admin_client *c = job->client;
    const struct index_counts *n = &job->spool->counts;
    uint64_t now = pool_clock_ms(job->spool->pool);
    struct json_out *j = &c->out;
    admin_ok(c, "json");
    json_object_begin(j, NULL);
    json_count(j, "messages", n->messages);
    json_count(j, "recipients", n->recipients);
    json_count(j, "active", n->active);
    json_count(j, "deferred", n->deferred);
    json_count(j, "hold", n->hold);
    json_count(j, "bytes", n->bytes);
    json_number(j, "oldest_age_seconds", n->messages && now > n->oldest_ms ? (double)(now - n->oldest_ms) / 1e3 : 0);
    json_array_begin(j, "domains");
    qsort(job->query.domains, job->query.domain_count, sizeof *job->query.domains, by_messages);
    for (uint32_t i = 0; i < job->query.domain_count; i++) {
        const struct index_domain *d = &job->query.domains[i];
        json_object_begin(j, NULL);
        json_text(j, "domain", d->domain);
        json_count(j, "messages", d->messages);
        json_count(j, "recipients", d->recipients);
        json_number(j, "oldest_age_seconds", now > d->oldest_ms ? (double)(now - d->oldest_ms) / 1e3 : 0);
        json_object_end(j);
    }
    json_array_end(j);
    json_object_end(j);
    json_line_end(j);
    admin_finish(c);
}

static void summary_came(struct index_query *q, enum err e)
{
    struct ask_job *job = q->owner;
    if (!ask_client(job, e))
        return;
    job->counts = (struct counts_wait){.done = summary_write, .owner = job};
    spool_counts_ask(job->spool, &job->counts);
}

void admin_summary(struct admin_client *c)
{
    (void)ask_begin(c, (struct index_query){.kind = INDEX_DOMAINS, .done = summary_came, .max = SUMMARY_DOMAINS,
                                            .now_ms = pool_clock_ms(c->spool->pool)});
}

static void show_came(struct index_query *q, enum err e)
{
    struct ask_job *job = q->owner;
    struct admin_client *c = ask_client(job, e);
    char text[64];
    if (!c)
        return;
    const struct index_entry *entry = &q->entries[0];
    struct json_out *j = &c->out;
    admin_ok(c, "json");
    entry_write(c->spool, entry, j);
    json_object_begin(j, "place");
    snprintf(text, sizeof text, "%016llx-%llu", (unsigned long long)entry->place.segment.incarnation,
             (unsigned long long)entry->place.segment.counter);
    json_text(j, "segment", text);
    json_count(j, "frame", entry->place.frame);
    json_count(j, "record", entry->place.record);
    json_count(j, "length", entry->place.length);
    json_object_end(j);
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)entry->digest.hi, (unsigned long long)entry->digest.lo);
    json_text(j, "digest", text);
    json_object_end(j);
    json_line_end(j);
    admin_finish(c);
}

static bool parse_id(struct admin_client *c, const struct json_in *request, struct queue_id *qid_out)
{
    const char *text = json_in_text(request, "id");
    enum err e = queue_id_parse(text, strlen(text), qid_out);
    if (e != ERR_OK)
        admin_fail(c, e, "that is not a queue id");
    return e == ERR_OK;
}

void admin_show(struct admin_client *c, const struct json_in *request)
{
    struct queue_id qid;
    if (parse_id(c, request, &qid))
        (void)ask_begin(c, (struct index_query){.kind = INDEX_LOOKUP, .done = show_came, .qid = qid});
}

/* --- a body --- */

#define CHUNKS_A_TIME 256u

struct body_job {
    struct admin_client *client;
    struct spool_process *spool;
    struct index_query query;
    struct spool_read read;
    struct queue_id qid;
    uint32_t chunk_count, next, have_first, have_count; /* places of have_first.. are in query.chunks */
    bool busy, begun;
};

static void body_free(struct body_job *job)
{
    index_query_fini(&job->query);
    free(job);
}

/* False: orphaned, and freed. */
static bool body_alive(struct body_job *job)
{
    job->busy = false;
    if (job->client)
        return true;
    body_free(job);
    return false;
}

static void body_read_done(struct spool_read *r, enum err e)
{
    struct body_job *job = r->owner;
    if (!body_alive(job))
        return;
    if (e != ERR_OK) {
        job->client->broken = true; /* P2: shorter than promised, never wrong */
        return;
    }
    text_put(&job->client->out, (const char *)r->body, r->body_bytes);
    job->next++;
    if (job->next >= job->chunk_count)
        admin_finish(job->client);
}

static void body_read(struct body_job *job, struct place place, struct digest digest, enum record_type type)
{
    job->read = (struct spool_read){.place = place, .qid = job->qid, .digest = digest, .type = type,
                                    .done = body_read_done, .owner = job};
    job->busy = job->client->moved = true;
    spool_read(job->spool->pool, &job->read);
}

static void body_chunks_came(struct index_query *q, enum err e)
{
    struct body_job *job = q->owner;
    if (!body_alive(job))
        return;
    if (e != ERR_OK) {
        job->client->broken = true;
        return;
    }
    job->have_first = job->next;
    job->have_count = job->chunk_count - job->next < CHUNKS_A_TIME ? job->chunk_count - job->next : CHUNKS_A_TIME;
}

static void body_pump(struct admin_client *c)
{
    struct body_job *job = c->job;
    if (job->busy || !job->begun)
        return;
    if (job->next < job->have_first + job->have_count) {
        uint32_t i = job->next - job->have_first;
        body_read(job, job->query.chunks[i].place, job->query.chunks[i].digest, RECORD_CHUNK);
        return;
    }
    index_query_fini(&job->query);
    job->query = (struct index_query){.kind = INDEX_CHUNKS, .done = body_chunks_came, .owner = job, .qid = job->qid,
                                      .first = job->next, .max = CHUNKS_A_TIME};
    job->busy = c->moved = true;
    index_query(spool_index(c->spool->pool), &job->query);
}

static void body_found(struct index_query *q, enum err e)
{
    struct body_job *job = q->owner;
    if (!body_alive(job))
        return;
    struct envelope envelope;
    if (e == ERR_OK)
        e = envelope_decode(q->entries[0].envelope, q->entries[0].envelope_bytes, &envelope);
    if (e != ERR_OK) {
        admin_fail(job->client, e, e == ERR_NOT_FOUND ? "no such message in the queue" : err_text(e));
        return;
    }
    text_add(&job->client->out, "{\"ok\":true,\"format\":\"bytes\",\"bytes\":%llu}\n", (unsigned long long)envelope.body_bytes);
    job->chunk_count = q->entries[0].chunk_count;
    job->begun = job->chunk_count > 0;
    if (job->chunk_count == 0)
        body_read(job, q->entries[0].place, q->entries[0].digest, RECORD_MESSAGE);
}

static void body_drop(struct admin_client *c)
{
    struct body_job *job = c->job;
    if (job->busy)
        job->client = NULL;
    else
        body_free(job);
}

void admin_body(struct admin_client *c, const struct json_in *request)
{
    struct queue_id qid;
    if (!parse_id(c, request, &qid))
        return;
    struct body_job *job = calloc(1, sizeof *job);
    if (!job) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    *job = (struct body_job){.client = c, .spool = c->spool, .qid = qid, .busy = true};
    job->query = (struct index_query){.kind = INDEX_LOOKUP, .done = body_found, .owner = job, .qid = qid};
    c->job = job;
    c->pump = body_pump;
    c->drop = body_drop;
    index_query(spool_index(c->spool->pool), &job->query);
}
