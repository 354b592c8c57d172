/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what a relay presents again and only the index can judge (SRV-3): messages held over a restart of the spool
 * (VERIFY), appends and marks with a bounce whose queue id is of an earlier spool or was used before.
 *
 *   waiting -> index ready, barrier passed -> LOOKUP -> live: answered as stored
 *      | SERVER_AGAIN_WAIT_MS: "later"              +-> not known: submitted as new, under the same id */
#include "wire_server_parts.h"

#include <stdlib.h>
#include <string.h>

static uint32_t rows_bytes(const struct wire_message *m)
{
    return m->envelope.len + m->marks.len + m->body.len;
}

static uint8_t *copy_row(uint8_t *to, struct wire_bytes *row)
{
    if (row->len)
        memcpy(to, row->bytes, row->len);
    row->bytes = to;
    return to + row->len;
}

bool again_add(struct wire_server *s, enum again_kind kind, const struct wire_message *m)
{
    uint32_t bytes = rows_bytes(m);
    if (bytes > SERVER_AGAIN_BYTES_MAX - s->again_bytes)
        return false;
    struct server_again *a = calloc(1, sizeof *a);
    if (!a)
        return false;
    a->copy = bytes ? malloc(bytes) : NULL;
    if (bytes && !a->copy) {
        free(a);
        return false;
    }
    a->server = s;
    a->kind = kind;
    a->connection = s->connection;
    a->bytes = bytes;
    a->message = *m;
    copy_row(copy_row(copy_row(a->copy, &a->message.envelope), &a->message.marks), &a->message.body);
    a->deadline_ns = server_now_ns(s) + SERVER_AGAIN_WAIT_MS * SERVER_NS_PER_MS;
    s->again_bytes += bytes;
    link_push(&s->again, &a->link);
    return true;
}

static void again_end(struct server_again *a)
{
    struct wire_server *s = a->server;
    if (link_linked(&a->link))
        link_remove(&a->link);
    s->again_bytes -= a->bytes;
    index_query_fini(&a->query);
    free(a->copy);
    free(a);
}

void again_drop(struct wire_server *s) /* those whose query is out come back and end by themselves */
{
    struct link *l;
    while ((l = link_pop(&s->again)) != NULL)
        again_end(CONTAINER_OF(l, struct server_again, link));
}

static void again_answer(struct server_again *a, enum err e, struct segment_id locator)
{
    const struct wire_message *m = &a->message;
    if (a->kind == AGAIN_APPEND)
        append_answer(a->server, a->connection, m->tag, m->qid, m->envelope.len + m->body.len, e, locator);
    if (a->kind == AGAIN_MARK)
        mark_answer(a->server, a->connection, m, e, e, locator);
}

static void verify_found(struct server_again *a, enum err e)
{
    struct wire_server *s = a->server;
    struct wire_held *h = wire_table_find(&s->held, a->message.qid);
    if (!h)
        return; /* its lease has ended meanwhile */
    h->flags &= ~(uint32_t)HELD_ASKED;
    if (e == ERR_OK) {
        server_hold(s, a->message.qid, a->query.entries[0].place.segment, 0);
        return;
    }
    if ((h->flags & HELD_ENDING) || !(h->flags & HELD_PRESENTED))
        return; /* it is going; or it is so new that the index has not applied it: asked again */
    spool_lease_end(s->pool, a->message.qid);
    h->flags = (h->flags & ~(uint32_t)(HELD_LEASED | HELD_UNSURE)) | HELD_GHOST;
    server_say(s, &(struct wire_message){.type = WIRE_RECALL, .qid = a->message.qid});
}

/* The index knows the message: the group was committed and its answer was lost. */
static void stored_found(struct server_again *a)
{
    struct wire_server *s = a->server;
    struct queue_id qid = a->kind == AGAIN_MARK ? a->message.bounce : a->message.qid;
    struct segment_id locator = a->query.entries[0].place.segment;
    bool held = server_can_hold(s) && server_hold(s, qid, locator, 0);
    if (a->kind == AGAIN_MARK && (a->message.flags & WIRE_ENDS))
        server_end_lease(s, a->message.qid);
    server_id_use(s, qid, true);
    if (a->kind == AGAIN_MARK)
        mark_answer(s, a->connection, &a->message, ERR_OK, held ? ERR_OK : ERR_NO_MEMORY, locator);
    else
        again_answer(a, held ? ERR_OK : ERR_NO_MEMORY, locator);
}

static void again_on_lookup(struct index_query *q, enum err e)
{
    struct server_again *a = q->owner;
    struct wire_server *s = a->server;
    s->lookups--;
    bool found = e == ERR_OK && q->entry_count > 0;
    if (!server_is_current(s, a->connection)) {
        again_end(a);
        return;
    }
    if (!found && e != ERR_OK && e != ERR_NOT_FOUND) {
        again_answer(a, ERR_INDEX_LAG, (struct segment_id){0});
        again_end(a);
        return;
    }
    if (a->kind == AGAIN_VERIFY)
        verify_found(a, found ? ERR_OK : ERR_NOT_FOUND);
    else if (found)
        stored_found(a);
    else if (a->message.chunk_count > 0)
        again_answer(a, ERR_SPOOL_GONE, (struct segment_id){0}); /* its CHUNKs are dead */
    else {
        a->judged = true;
        link_remove(&a->link);
        link_push(&s->again, &a->link);
        return;
    }
    again_end(a);
}

static void again_lookup(struct server_again *a)
{
    struct wire_server *s = a->server;
    link_remove(&a->link);
    link_push(&s->again_asked, &a->link);
    s->lookups++;
    a->query = (struct index_query){.kind = INDEX_LOOKUP, .done = again_on_lookup, .owner = a,
                                    .qid = a->kind == AGAIN_MARK ? a->message.bounce : a->message.qid};
    index_query(spool_index(s->pool), &a->query);
}

/* False: no room in the engine, the next step. */
static bool again_submit(struct server_again *a)
{
    struct wire_server *s = a->server;
    enum err e = ERR_OK;
    const struct wire_held *h = a->kind == AGAIN_MARK ? wire_table_find(&s->held, a->message.qid) : NULL;
    if (!server_can_hold(s) || (h && mark_must_wait(s, h)))
        again_answer(a, ERR_INDEX_LAG, (struct segment_id){0});
    else if (a->kind == AGAIN_MARK && (!h || (h->flags & HELD_GHOST)))
        mark_answer(s, a->connection, &a->message, ERR_OK, ERR_CANCELED, (struct segment_id){0});
    else {
        e = a->kind == AGAIN_MARK ? mark_submit(s, &a->message) : append_submit(s, &a->message);
        if (e == ERR_BUSY)
            return false;
        if (e != ERR_OK)
            again_answer(a, e, (struct segment_id){0});
    }
    again_end(a);
    return true;
}

static void on_barrier(struct index_query *q, enum err e)
{
    struct wire_server *s = q->owner;
    (void)e; /* an index that fails here says so in every lookup */
    index_query_fini(q);
    s->barrier_out = false;
}

static bool barrier_passed(struct wire_server *s)
{
    if (s->barrier_out)
        return false;
    if (!s->barrier_wanted)
        return true;
    s->barrier_wanted = false;
    s->barrier_out = true;
    s->barrier = (struct index_query){.kind = INDEX_BARRIER, .done = on_barrier, .owner = s};
    index_query(spool_index(s->pool), &s->barrier);
    return false;
}

void again_step(struct wire_server *s)
{
    if (link_empty(&s->again))
        return;
    bool usable = server_index_usable(s) && barrier_passed(s);
    uint64_t now = server_now_ns(s);
    if (!usable && now < s->again_next_ns)
        return;
    s->again_next_ns = now + SERVER_AGAIN_LOOK_MS * SERVER_NS_PER_MS;
    server_wake_at(s, s->again_next_ns);
    LINK_EACH_SAFE(l, next, &s->again) {
        struct server_again *a = CONTAINER_OF(l, struct server_again, link);
        if (a->kind != AGAIN_VERIFY && now >= a->deadline_ns) {
            again_answer(a, ERR_INDEX_LAG, (struct segment_id){0});
            again_end(a);
        } else if (a->judged) {
            if (!again_submit(a))
                return;
        } else if (usable && s->lookups < SERVER_AGAIN_LOOKUPS) {
            again_lookup(a);
        } else if (usable) {
            return; /* lookups come back in a turn of their own */
        }
    }
}
