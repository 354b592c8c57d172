/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the relay's port (relay/port.h) as the scheduler sees it, spoken to spool.h: due messages under lease, results and bounces in
 * one frame, in order; and the scheduler's life between two mounts. Linked instead of relay/port*.c, never beside them.
 *
 *   INDEX_DUE -> lease -> schedule_on_due ... port_mark -> queue -> spool_submit -> the model -> the lease ends
 *
 * Never: gives a refused result up while it may pass: one that found no slot is kept with its lease and tried again, as relay/port_mark.c
 * does. What the pool refuses for good ends the lease, and the message is due again. */
#include "sim_relay.h"

#include "mail.h"
#include "route.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DUE_AT_ONCE 16u
#define PAUSES 64u
#define FULL_AGAIN_NS UINT64_C(1000000000) /* PORT_MARK_RETRY_MS */
#define MARKS_AT_ONCE 8u /* recipients in one port_mark: no message has more */

struct pause { uint64_t destination, until_ms; };

struct result {
    struct link link;
    struct port *port;
    struct held *held;
    struct model_message *bounced;
    struct mail *bounce;
    void (*bounce_done)(void *owner, struct mail *bounce, enum err e);
    void *owner;
    bool ends, retires, out;
    uint32_t recipients[MARKS_AT_ONCE], count; /* that have their mail now */
    struct spool_record records[2];
    struct spool_group group;
    uint64_t again_ns; /* not before */
    uint8_t payload[1024];
};

struct port {
    struct world *w;
    struct loop *loop;
    struct schedule *schedule;
    struct settings settings;
    struct link held, results;   /* results: in the order they were said */
    struct link reads;           /* of struct fetching */
    uint32_t credit;
    bool asking;
    struct index_query query;
    struct pause pauses[PAUSES];
    uint64_t skip[PAUSES];
};

struct held *sim_port_held(struct port *p, struct queue_id qid)
{
    LINK_EACH(l, &p->held)
        if (queue_id_equal(CONTAINER_OF(l, struct held, link)->msg->qid, qid))
            return CONTAINER_OF(l, struct held, link);
    return NULL;
}

static struct held *held_make(struct port *p, struct model_message *msg, const struct place *place, struct digest digest)
{
    struct held *h = calloc(1, sizeof *h);
    ASSERT(h != NULL);
    *h = (struct held){.msg = msg, .place = *place, .digest = digest, .since_ns = io_now_ns(p->w->io)};
    msg->busy = msg->leased = true;
    msg->segment = place->segment;
    link_push(&p->held, &h->link);
    p->w->action_count++;
    return h;
}

static void held_end(struct port *p, struct held *h)
{
    spool_lease_end(p->w->pool, h->msg->qid);
    h->msg->busy = h->msg->leased = false;
    p->w->action_count--;
    link_remove(&h->link);
    free(h);
}

/* --- due --- */

static void due_status(const struct index_entry *e, struct mail *mail)
{
    struct mark_cursor c;
    struct mark mark;
    mark_begin(&c, e->marks, e->marks_bytes);
    while (mark_next(&c, &mark))
        mail->status[mark.recipient] = (uint8_t)mark.status;
}

static void due_hand_out(struct port *p, const struct index_entry *e)
{
    struct world *w = p->w;
    struct model_message *msg = model_find(&w->model, e->qid);
    struct mail *mail = NULL;
    bool below;
    if (!msg || msg->elsewhere) {
        world_fail(w, "MOD-3: a message is due that nobody handed over");
        return;
    }
    if (msg->busy || spool_lease(w->pool, e->qid, e->place.segment) != ERR_OK)
        return;
    if (msg->held == MODEL_YES && msg->was_held && w->plan.level != PLAN_BEYOND)
        world_fail(w, "MOD-5: a message on hold is due: queue id %llu", (unsigned long long)e->qid.counter);
    const char *wrong = model_audit_envelope(msg, e->envelope, e->envelope_bytes);
    if (wrong)
        world_fail(w, "P2: %s (queue id %llu, due)", wrong, (unsigned long long)e->qid.counter);
    enum err made = mail_make(e->qid, e->envelope, e->envelope_bytes, NULL, &mail);
    ASSERT(made == ERR_OK);
    due_status(e, mail);
    mail->locator = e->place.segment;
    mail->chunk_count = e->chunk_count;
    mail->attempts = e->attempts;
    mail->images = spool_images(w->pool, e->place.segment, &below);
    mail->accepted_ms = loop_now_ms(p->loop);
    held_make(p, msg, &e->place, e->digest);
    p->credit--;
    w->counts.visits++;
    schedule_on_due(p->schedule, mail);
}

static void due_on_answer(struct index_query *q, enum err e)
{
    struct port *p = q->owner;
    p->asking = false;
    for (uint32_t i = 0; e == ERR_OK && i < q->entry_count && p->credit > 0 && !p->w->paused; i++)
        due_hand_out(p, &q->entries[i]);
    index_query_fini(q);
}

static int skip_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void due_ask(struct port *p)
{
    uint32_t skips = 0;
    if (p->asking || p->credit == 0 || p->w->paused)
        return;
    for (uint32_t i = 0; i < PAUSES; i++)
        if (p->pauses[i].until_ms > loop_now_ms(p->loop))
            p->skip[skips++] = p->pauses[i].destination;
    qsort(p->skip, skips, sizeof p->skip[0], skip_compare);
    p->asking = true;
    p->query = (struct index_query){.kind = INDEX_DUE, .now_ms = pool_clock_ms(p->w->pool), .skip = p->skip, .skip_count = skips,
                                    .max = p->credit < DUE_AT_ONCE ? p->credit : DUE_AT_ONCE, .done = due_on_answer, .owner = p};
    index_query(spool_index(p->w->pool), &p->query);
}

void port_want_due(struct port *p, uint32_t count) { p->credit += count; }

void port_pause_destination(struct port *p, uint64_t destination, uint64_t until_ms)
{
    p->pauses[destination % PAUSES] = (struct pause){destination, until_ms};
}

/* --- results --- */

static void result_free(struct result *r)
{
    link_remove(&r->link);
    mail_unref(&r->bounce);
    free(r);
}

static void bounce_over(struct result *r, enum err e)
{
    struct port *p = r->port;
    struct mail *bounce = r->bounce;
    struct place place = r->records[1].place;
    r->bounce = NULL;
    if (!bounce)
        return;
    if (e == ERR_OK && spool_lease(p->w->pool, bounce->qid, place.segment) != ERR_OK)
        e = ERR_CANCELED; /* it is due by itself */
    r->bounced->busy = false;
    if (e == ERR_OK) {
        bounce->locator = place.segment;
        held_make(p, r->bounced, &place, (struct digest){0});
    }
    r->bounce_done(r->owner, bounce, e);
}

static void result_answered(struct result *r, enum err e)
{
    struct world *w = r->port->w;
    struct model_message *msg = r->held->msg;
    for (uint32_t i = 0; i < r->count; i++)
        model_on_delivered(msg, r->recipients[i], e);
    if (r->retires)
        model_on_retired(&w->model, msg, e);
    if (r->bounced) {
        model_on_appended(&w->model, r->bounced, e);
        if (e == ERR_OK)
            witness_acknowledged(w, r->bounced, r->records[1].place.segment);
    }
    w->counts.retires += r->retires && e == ERR_OK;
    w->counts.bounces += r->bounced && e == ERR_OK;
    w->counts.marks += !r->retires && e == ERR_OK;
    w->counts.scheduled += e == ERR_OK;
}

static void result_over(struct result *r, enum err e)
{
    struct port *p = r->port;
    world_say(p->w, "the scheduler's %s %llu, result in segment %llu: %s", r->retires ? "retire" : "mark",
              (unsigned long long)r->held->msg->qid.counter, (unsigned long long)r->records[0].place.segment.counter, err_name(e));
    if (e != ERR_OK)
        judge_refusal(p->w, e, "a result");
    bounce_over(r, e);
    if (r->ends)
        held_end(p, r->held);
    result_free(r);
}

/* Nothing was taken. */
static void result_keep(struct result *r)
{
    world_say(r->port->w, "the scheduler's %s %llu waits for a slot", r->retires ? "retire" : "mark",
              (unsigned long long)r->held->msg->qid.counter);
    judge_refusal(r->port->w, ERR_FULL, "a result");
    if (r->bounced)
        witness_refused(r->bounced);
    r->out = false;
    r->again_ns = io_now_ns(r->port->w->io) + FULL_AGAIN_NS;
}

static void result_on_done(struct spool_group *g, enum err e)
{
    struct result *r = g->owner;
    if (e == ERR_FULL) {
        result_keep(r);
        return;
    }
    result_answered(r, e);
    result_over(r, e);
}

/* Nothing was taken. */
static void result_was_refused(struct result *r, enum err e)
{
    struct model_message *msg = r->held->msg;
    for (uint32_t i = 0; i < r->count; i++)
        if (msg->delivered[r->recipients[i]] == MODEL_ASKED)
            msg->delivered[r->recipients[i]] = MODEL_NO;
    if (r->retires && msg->retired == MODEL_ASKED)
        msg->retired = MODEL_NO;
    if (r->bounced)
        r->bounced->appended = MODEL_NO;
    result_over(r, e);
}

/* One of the same message is still out. */
static bool result_waits(const struct port *p, const struct result *r)
{
    LINK_EACH(l, &p->results) {
        const struct result *earlier = CONTAINER_OF(l, const struct result, link);
        if (earlier == r)
            return false;
        if (earlier->held == r->held)
            return true;
    }
    return false;
}

static void results_submit(struct port *p)
{
    LINK_EACH_SAFE(l, next, &p->results) {
        struct result *r = CONTAINER_OF(l, struct result, link);
        if (r->out || io_now_ns(p->w->io) < r->again_ns || result_waits(p, r))
            continue;
        if (r->group.count == 0) { /* only the lease ends */
            held_end(p, r->held);
            result_free(r);
            continue;
        }
        r->out = true;
        enum err e = spool_submit(p->w->pool, &r->group);
        if (e == ERR_OK)
            continue;
        r->out = false;
        if (e == ERR_FULL) {
            result_keep(r);
            continue;
        }
        if (!refusal_passes(e))
            result_was_refused(r, e);
        return; /* the rest with the next turn */
    }
}

static void result_fill(struct result *r, const struct port_mark *m)
{
    struct model_message *msg = r->held->msg;
    uint32_t length = 0;
    for (uint32_t i = 0; i < m->count; i++)
        if (m->marks[i].status == MARK_DELIVERED) {
            r->recipients[r->count++] = m->marks[i].recipient;
            if (msg->delivered[m->marks[i].recipient] == MODEL_NO)
                msg->delivered[m->marks[i].recipient] = MODEL_ASKED;
        }
    if (m->count) {
        enum err e = mark_encode(r->payload, sizeof r->payload, m->marks, m->count, &length);
        ASSERT(e == ERR_OK);
    }
    r->records[0] = (struct spool_record){.type = m->retire ? RECORD_RETIRE : RECORD_MARK, .qid = m->qid,
                                          .message_segment = m->locator, .parts = {{r->payload, length}}};
    if (m->retire && msg->retired == MODEL_NO)
        msg->retired = MODEL_ASKED;
    r->group = (struct spool_group){.records = r->records, .count = m->retire || m->count, .class = SPOOL_RESULT,
                                    .done = result_on_done, .owner = r};
}

static void result_fill_bounce(struct result *r, struct mail *bounce)
{
    struct model_message *msg = model_find(&r->port->w->model, bounce->qid);
    ASSERT(msg && r->group.count == 1);
    msg->appended = MODEL_ASKED;
    msg->given = msg->bounce = msg->busy = true;
    msg->recipients = bounce->envelope.recipient_count;
    msg->body_bytes = (uint32_t)bounce->body_bytes;
    msg->body = digest_of(bounce->body, bounce->body_bytes);
    msg->envelope = digest_of(bounce->envelope_bytes, bounce->envelope_len);
    r->bounced = msg;
    r->bounce = bounce;
    r->records[1] = (struct spool_record){
        .type = RECORD_MESSAGE, .qid = bounce->qid, .envelope_bytes = bounce->envelope_len,
        .parts = {{bounce->envelope_bytes, bounce->envelope_len}, {bounce->body, (uint32_t)bounce->body_bytes}}};
    r->group.count = 2;
}

enum err port_mark(struct port *p, const struct port_mark *m)
{
    struct held *held = sim_port_held(p, m->qid);
    ASSERT(m->count <= MARKS_AT_ONCE);
    if (!held) {
        world_fail(p->w, "the scheduler marks what is not leased to it");
        return ERR_NOT_FOUND;
    }
    struct result *r = calloc(1, sizeof *r);
    ASSERT(r != NULL);
    *r = (struct result){.port = p, .held = held, .bounce_done = m->bounce_done, .owner = m->owner,
                         .ends = m->retire || m->release, .retires = m->retire};
    result_fill(r, m);
    if (m->bounce)
        result_fill_bounce(r, m->bounce);
    link_push(&p->results, &r->link);
    return ERR_OK;
}

enum err port_take_queue_id(struct port *p, struct queue_id *qid_out)
{
    struct model_message *msg = message_new(p->w);
    msg->appended = MODEL_NO; /* until it is handed over */
    *qid_out = msg->qid;
    return ERR_OK;
}

uint64_t port_clock_ms(const struct port *p) { return pool_clock_ms(p->w->pool); }

/* --- bodies, for the heads that bounces carry --- */

struct fetching { struct link link; struct port_fetch *fetch; bool enough; };

static void fetch_piece(void *owner, const uint8_t *bytes, uint32_t len)
{
    struct fetching *f = owner;
    if (f->fetch && !f->enough)
        f->enough = !f->fetch->on_bytes(f->fetch, bytes, len);
}

static void fetch_over(void *owner, enum err e)
{
    struct fetching *f = owner;
    struct port_fetch *fetch = f->fetch;
    bool enough = f->enough;
    link_remove(&f->link);
    free(f);
    if (fetch && !enough)
        fetch->done(fetch, e);
}

void port_fetch(struct port *p, struct port_fetch *fetch)
{
    struct held *held = sim_port_held(p, fetch->mail->qid);
    struct fetching *f = calloc(1, sizeof *f);
    ASSERT(f != NULL && held != NULL);
    *f = (struct fetching){.fetch = fetch};
    link_push(&p->reads, &f->link);
    (void)senders_read(p->w, held->msg, &held->place, held->digest,
                       &(struct reader){.owner = f, .told = fetch_piece, .over = fetch_over});
}

void port_fetch_cancel(struct port *p, struct port_fetch *fetch)
{
    LINK_EACH(l, &p->reads) {
        struct fetching *f = CONTAINER_OF(l, struct fetching, link);
        f->fetch = f->fetch == fetch ? NULL : f->fetch;
    }
}

/* --- life --- */

static struct port *relay_make(struct world *w)
{
    static const char *const transports[] = {"smtp", "smtp:[mx.example]:25"};
    char text[ROUTE_TEXT_BYTES];
    struct port *p = calloc(1, sizeof *p);
    struct route_table *table = NULL;
    ASSERT(p != NULL);
    p->w = w;
    p->loop = sim_loop_make(w);
    link_init(&p->held);
    link_init(&p->results);
    link_init(&p->reads);
    p->settings = (struct settings){
        .hostname = "relay.example", .mail_name = "Ironspool", .default_destination_concurrency_limit = 20,
        .initial_destination_concurrency = 1 + (uint32_t)prng_below(&w->relay_dice, 5), .default_destination_recipient_limit = 50,
        .minimal_backoff_ms = 500, .maximal_backoff_ms = 5000, .maximal_queue_lifetime_ms = 60000,
        .bounce_queue_lifetime_ms = 30000, .deliveries_max = 2 + (uint32_t)prng_below(&w->relay_dice, 20),
        .fresh_bytes_max = 16 << 20};
    enum err e = route_table_open(transports[prng_below(&w->relay_dice, 2)], "", NULL, 0, text, &table);
    p->settings.transports = table;
    if (e == ERR_OK)
        e = schedule_open(p->loop, p, &p->settings, &p->schedule);
    ASSERT(e == ERR_OK);
    return p;
}

static void relay_stop(struct world *w)
{
    struct port *p = w->relay;
    if (!p)
        return;
    w->relay = NULL;
    struct route_table *table = p->settings.transports;
    schedule_close(&p->schedule);
    if (p->asking)
        index_query_fini(&p->query);
    LINK_EACH_SAFE(l, next, &p->results)
        result_free(CONTAINER_OF(l, struct result, link));
    LINK_EACH_SAFE(l, next, &p->reads)
        free(CONTAINER_OF(l, struct fetching, link));
    LINK_EACH_SAFE(l, next, &p->held)
        free(CONTAINER_OF(l, struct held, link));
    route_table_close(&table);
    sim_loop_free(&p->loop);
    free(p);
}

/* SRL-1 */
static void relay_watch(struct port *p)
{
    LINK_EACH(l, &p->held) {
        struct held *h = CONTAINER_OF(l, struct held, link);
        if (io_now_ns(p->w->io) - h->since_ns <= WORLD_LIVENESS_NS)
            continue;
        if (!room_is_worn_out(p->w)) {
            world_fail(p->w, "liveness: the scheduler keeps queue id %llu for %llu s", (unsigned long long)h->msg->qid.counter,
                       (unsigned long long)(WORLD_LIVENESS_NS / 1000000000));
            return;
        }
        h->since_ns = io_now_ns(p->w->io);
        p->w->counts.worn_out++;
        measure_worn_out(p->w);
    }
}

static void relay_step(struct world *w)
{
    if (world_crashed(w) || world_failed(w) || (!w->relay && (w->paused || !spool_index_ready(w->pool))))
        return;
    if (!w->relay)
        w->relay = relay_make(w);
    struct port *p = w->relay;
    sim_loop_turn(p->loop);
    results_submit(p);
    due_ask(p);
    relay_watch(p);
}

const struct relay_ops sim_relay_ops = {.step = relay_step, .stop = relay_stop};
