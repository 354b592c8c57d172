/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: APPEND, CHUNK and ABORT: groups in the engine and messages that arrive in CHUNKs.
 *
 *   APPEND -> group [append_submit] -> held, leased, APPENDED [append_on_done]
 *   CHUNK ... CHUNK -> stream; its APPEND waits for the last CHUNK, so that a MESSAGE never outlives one of its CHUNKs
 *
 * Bodies are copied once: from the input buffer, or a tray, into the frame, by spool_submit, and what is checksummed is the
 * copy: a relay that changes a tray meanwhile damages its own message only. Contexts come from a free list. */
#include "wire_server_parts.h"

#include <spoolfs/envelope.h>
#include <stdlib.h>
#include <string.h>

bool server_is_current(const struct wire_server *s, uint32_t connection)
{
    return s->state != CONNECTION_NONE && s->connection == connection;
}

/* --- groups --- */

struct server_group *group_take(struct wire_server *s, enum group_kind kind, const struct wire_message *m)
{
    struct link *l = link_pop(&s->groups_free);
    struct server_group *g = l ? CONTAINER_OF(l, struct server_group, link) : calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->server = s;
    g->kind = kind;
    g->connection = s->connection;
    g->tag = m->tag;
    g->number = m->number;
    g->flags = m->flags;
    g->qid = m->qid;
    g->bounce = m->bounce;
    g->bytes = 0;
    g->message = UINT32_MAX;
    return g;
}

void group_give(struct server_group *g)
{
    link_push_front(&g->server->groups_free, &g->link);
}

enum err group_submit(struct server_group *g, uint32_t count, enum spool_class class)
{
    g->group.records = g->records;
    g->group.count = count;
    g->group.class = class;
    g->group.owner = g;
    g->group.moved_from = (struct segment_id){0};
    enum err e = spool_submit(g->server->pool, &g->group);
    if (e == ERR_OK) {
        g->server->groups_out++;
        link_push(&g->server->groups_engine, &g->link);
    } else {
        group_give(g);
    }
    return e;
}

void group_returned(struct server_group *g)
{
    struct wire_server *s = g->server;
    ASSERT(s->groups_out > 0);
    s->groups_out--;
    link_remove(&g->link);
    if (!server_is_current(s, g->connection) && s->groups_old > 0)
        s->groups_old--;
}

bool envelope_fits(const struct wire_message *m, uint64_t body_bytes)
{
    struct envelope e;
    return envelope_decode(m->envelope.bytes, m->envelope.len, &e) == ERR_OK && e.body_bytes == body_bytes &&
           e.recipient_count > 0;
}

/* --- streams --- */

static struct server_stream *stream_find(struct wire_server *s, struct queue_id qid)
{
    const struct wire_held *h = wire_table_find(&s->stream_of, qid);
    return h ? &s->streams[h->slot] : NULL;
}

static struct server_stream *stream_make(struct wire_server *s, struct queue_id qid)
{
    struct wire_held *h = s->streams_free_count ? wire_table_add(&s->stream_of, qid) : NULL;
    if (!h)
        return NULL;
    h->slot = s->streams_free[--s->streams_free_count];
    struct server_stream *st = &s->streams[h->slot];
    *st = (struct server_stream){.qid = qid, .connection = s->connection};
    return st;
}

static void stream_end(struct wire_server *s, struct server_stream *st)
{
    ASSERT(st->pending == 0);
    if (link_linked(&st->link))
        link_remove(&st->link);
    free(st->copy);
    wire_table_remove(&s->stream_of, st->qid);
    *st = (struct server_stream){0};
    s->streams_free[s->streams_free_count++] = (uint16_t)(st - s->streams);
}

/* Its MESSAGE will not come: what is written of it is dead; it goes when the engine has given back the last CHUNK. */
static void stream_abort(struct wire_server *s, struct server_stream *st)
{
    st->error = ERR_CANCELED;
    st->waits = false;
    if (link_linked(&st->link))
        link_remove(&st->link);
    if (st->pending > 0)
        return;
    if (!s->stopping)
        spool_abort(s->pool, st->qid);
    stream_end(s, st);
}

void server_streams_drop(struct wire_server *s, bool all)
{
    for (uint32_t i = 0; i < SERVER_STREAMS_MAX && s->stream_of.count > 0; i++) {
        struct server_stream *st = &s->streams[i];
        if (queue_id_is_none(st->qid))
            continue;
        if (all) {
            free(st->copy);
            st->copy = NULL;
        } else {
            stream_abort(s, st);
        }
    }
}

/* MESSAGEs whose CHUNKs are all there, or have failed. */
void server_streams_step(struct wire_server *s)
{
    LINK_EACH_SAFE(l, next, &s->streams_waiting) {
        struct server_stream *st = CONTAINER_OF(l, struct server_stream, link);
        if (st->pending > 0)
            continue;
        enum err e = st->error != ERR_OK ? st->error : append_submit(s, &st->message);
        if (e == ERR_BUSY)
            continue; /* the next step */
        if (e != ERR_OK) {
            append_answer(s, st->connection, st->message.tag, st->qid, st->message.envelope.len, e,
                          (struct segment_id){0});
            spool_abort(s->pool, st->qid);
        }
        stream_end(s, st);
    }
}

/* Answers with what it came with; the credit goes back. Only while the connection it came from lives. */
static void chunk_answer(struct wire_server *s, uint32_t connection, struct wire_message m, enum err e)
{
    if (!server_is_current(s, connection))
        return;
    s->chunks--;
    s->append_bytes -= m.chunk_count;
    m.type = WIRE_CHUNKED;
    m.error = e;
    m.body = (struct wire_bytes){0};
    server_say(s, &m);
}

static void chunk_on_done(struct spool_group *group, enum err e)
{
    struct server_group *g = group->owner;
    struct wire_server *s = g->server;
    group_returned(g);
    chunk_answer(s, g->connection, (struct wire_message){.tag = g->tag, .number = g->number, .flags = g->flags,
                                                         .chunk_count = g->bytes, .qid = g->qid}, e);
    struct server_stream *st = stream_find(s, g->qid);
    ASSERT(st && st->pending > 0);
    st->pending--;
    if (e != ERR_OK && st->error == ERR_OK)
        st->error = e;
    if (st->pending == 0 && st->error == ERR_CANCELED)
        stream_abort(s, st);
    group_give(g);
}

static enum err chunk_submit(struct wire_server *s, const struct wire_message *m, struct server_stream *st)
{
    struct server_group *g = group_take(s, GROUP_CHUNK, m);
    if (!g)
        return ERR_NO_MEMORY;
    g->bytes = m->body.len;
    g->records[0] = (struct spool_record){.type = RECORD_CHUNK, .qid = m->qid, .arg = m->number,
                                          .parts = {{m->body.bytes, m->body.len}}};
    g->group.done = chunk_on_done;
    enum err e = group_submit(g, 1, SPOOL_NEW_MAIL);
    if (e != ERR_OK)
        return e;
    st->pending++;
    st->next++;
    st->bytes += m->body.len;
    return ERR_OK;
}

/* Where the bytes are. False: in a tray, and there are none. */
static bool chunk_find_bytes(const struct wire_server *s, struct wire_message *m)
{
    if (!(m->flags & WIRE_TRAY))
        m->chunk_count = m->body.len;
    else if (s->hooks.trays)
        m->body = (struct wire_bytes){s->hooks.trays + (size_t)m->tag * CHUNK_BYTES_MAX, m->chunk_count};
    return m->body.len > 0;
}

enum verdict server_on_chunk(struct wire_server *s, const struct wire_message *said)
{
    struct wire_message chunk = *said, *m = &chunk;
    enum id_state id = server_id_state(s, m->qid);
    if (!chunk_find_bytes(s, m)) {
        server_violation(s, "it names a tray, and shares no memory with this spool");
        return TAKEN;
    }
    if (s->append_bytes + m->body.len > WIRE_APPEND_BYTES_CREDIT || s->chunks >= WIRE_CHUNKS_MAX) {
        server_violation(s, "it sends CHUNKs beyond its credit");
        return TAKEN;
    }
    if (id == ID_USED || id == ID_UNKNOWN) {
        server_violation(s, "a CHUNK under a queue id that is not its to fill");
        return TAKEN;
    }
    struct server_stream *st = id == ID_FRESH ? stream_find(s, m->qid) : NULL;
    if (!st && id == ID_FRESH && m->number == 0)
        st = stream_make(s, m->qid);
    enum err e = st ? st->error : m->number ? ERR_SPOOL_GONE : ERR_BUSY;
    if (e == ERR_OK && (st->connection != s->connection || st->waits || st->next != m->number)) {
        server_violation(s, "CHUNKs out of order");
        return TAKEN;
    }
    if (e == ERR_OK)
        e = chunk_submit(s, m, st);
    if (e == ERR_BUSY && st)
        return BLOCKED;
    s->chunks++;
    s->append_bytes += m->body.len;
    if (e == ERR_OK)
        return TAKEN;
    if (st && st->error == ERR_OK)
        st->error = e;
    s->status_wanted = true;
    chunk_answer(s, s->connection, *m, e);
    return TAKEN;
}

void server_on_abort(struct wire_server *s, const struct wire_message *m)
{
    struct server_stream *st = stream_find(s, m->qid);
    if (st && !st->waits)
        stream_abort(s, st);
}

/* --- append --- */

void append_answer(struct wire_server *s, uint32_t connection, uint32_t tag, struct queue_id qid, uint32_t bytes,
                   enum err e, struct segment_id locator)
{
    if (!server_is_current(s, connection))
        return;
    s->appends--;
    s->append_bytes -= bytes;
    if (e != ERR_OK)
        s->status_wanted = true;
    server_say(s, &(struct wire_message){.type = WIRE_APPENDED, .tag = tag, .error = e, .qid = qid, .locator = locator});
}

static void append_on_done(struct spool_group *group, enum err e)
{
    struct server_group *g = group->owner;
    struct wire_server *s = g->server;
    struct segment_id locator = g->records[0].place.segment;
    group_returned(g);
    if (e != ERR_OK)
        server_id_use(s, g->qid, false); /* IDS-1 */
    else if (!server_hold(s, g->qid, locator, server_is_current(s, g->connection) ? 0 : HELD_STALE))
        e = ERR_NO_MEMORY; /* stored, not leased: it is due by itself; a duplicate is better than a loss */
    append_answer(s, g->connection, g->tag, g->qid, g->bytes, e, e == ERR_OK ? locator : (struct segment_id){0});
    group_give(g);
}

enum err append_submit(struct wire_server *s, const struct wire_message *m)
{
    struct server_group *g = group_take(s, GROUP_APPEND, m);
    if (!g)
        return ERR_NO_MEMORY;
    g->bytes = m->envelope.len + m->body.len;
    g->records[0] = (struct spool_record){.type = RECORD_MESSAGE, .qid = m->qid, .arg = m->chunk_count,
                                          .envelope_bytes = m->envelope.len,
                                          .parts = {{m->envelope.bytes, m->envelope.len}, {m->body.bytes, m->body.len}}};
    g->group.done = append_on_done;
    enum err e = group_submit(g, 1, SPOOL_NEW_MAIL);
    if (e == ERR_OK)
        server_id_use(s, m->qid, true);
    return e;
}

/* The MESSAGE of a stream waits until its last CHUNK is durable: server_streams_step goes on, in this same turn. */
static enum err stream_finish(struct wire_server *s, const struct wire_message *m)
{
    struct server_stream *st = stream_find(s, m->qid);
    if (!st)
        return ERR_SPOOL_GONE; /* its CHUNKs went to another spool, or another connection */
    if (st->waits)
        return ERR_EXISTS;
    if (st->error == ERR_OK && (st->next != m->chunk_count || !envelope_fits(m, st->bytes)))
        st->error = ERR_INVALID;
    st->copy = malloc(m->envelope.len + 1);
    if (!st->copy)
        return ERR_NO_MEMORY; /* the relay aborts it */
    memcpy(st->copy, m->envelope.bytes, m->envelope.len);
    st->message = *m;
    st->message.envelope.bytes = st->copy;
    st->message.body = (struct wire_bytes){0};
    st->waits = true;
    link_push(&s->streams_waiting, &st->link);
    return ERR_OK;
}

/* Presented again, or under an id of an earlier spool: known here, or judged by the index later (SRV-3). */
static void append_again(struct wire_server *s, const struct wire_message *m, struct wire_held *h)
{
    uint32_t bytes = m->envelope.len + m->body.len;
    if (h) {
        h->flags &= ~(uint32_t)HELD_STALE;
        append_answer(s, s->connection, m->tag, m->qid, bytes, ERR_OK, h->locator);
    } else if (!again_add(s, AGAIN_APPEND, m))
        append_answer(s, s->connection, m->tag, m->qid, bytes, ERR_BUSY, (struct segment_id){0});
}

static bool append_lawful(struct wire_server *s, const struct wire_message *m, enum id_state id)
{
    const char *why = NULL;
    if (s->append_bytes + m->envelope.len + m->body.len > WIRE_APPEND_BYTES_CREDIT || s->appends >= WIRE_APPENDS_MAX)
        why = "it appends beyond its credit";
    else if (id == ID_UNKNOWN || (!(m->flags & WIRE_AGAIN) && id != ID_FRESH && id != ID_FORGOTTEN))
        why = "it appends under a queue id that was not lent to it";
    if (why)
        server_violation(s, why);
    return !why;
}

enum verdict server_on_append(struct wire_server *s, const struct wire_message *m)
{
    enum id_state id = server_id_state(s, m->qid);
    if (!append_lawful(s, m, id))
        return TAKEN;
    struct wire_held *h = m->flags & WIRE_AGAIN ? wire_table_find(&s->held, m->qid) : NULL;
    uint32_t bytes = m->envelope.len + m->body.len;
    bool answered_later = true;
    enum err e = ERR_OK;
    s->appends++;
    s->append_bytes += bytes;
    if (m->chunk_count == 0 && !envelope_fits(m, m->body.len))
        e = ERR_INVALID;
    else if (id == ID_FORGOTTEN && !h)
        e = ERR_SPOOL_GONE;
    else if (!server_can_hold(s))
        e = ERR_BUSY;
    else if (h || id != ID_FRESH)
        append_again(s, m, h);
    else if (m->chunk_count > 0)
        e = stream_finish(s, m);
    else {
        e = append_submit(s, m);
        answered_later = e != ERR_BUSY;
    }
    if (!answered_later) { /* as if it had not come yet */
        s->appends--;
        s->append_bytes -= bytes;
        return BLOCKED;
    }
    if (e != ERR_OK)
        append_answer(s, s->connection, m->tag, m->qid, bytes, e, (struct segment_id){0});
    return TAKEN;
}
