/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the connection: bytes in, one decoded message at a time to the file that understands it, bytes out.
 *
 *   NONE -> NEW [wire_server_connect] -> PRESENTING [HELLO, once the old connection's groups are back] -> READY [PRESENTED]
 *     ^________________________________________ disconnect, violation ________________________________________|
 *
 * Invariants SRV-1 to SRV-5 (wire_server.h). Never blocks, never calls a socket. Next: wire_server_append.c. */
#include "wire_server_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void server_on_wake(struct io_timer *t);

/* --- life --- */

enum err wire_server_open(struct io *io, struct pool *pool, const struct wire_server_hooks *hooks,
                          struct wire_server **server_out)
{
    struct wire_server *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    s->io = io;
    s->pool = pool;
    s->hooks = *hooks;
    s->run = io_random64(io);
    s->wake_ns = UINT64_MAX;
    link_init(&s->groups_free);
    link_init(&s->groups_engine);
    link_init(&s->again);
    link_init(&s->again_asked);
    link_init(&s->fetch_waiting);
    link_init(&s->streams_waiting);
    io_timer_init(&s->wake, server_on_wake, s);
    for (uint32_t i = 0; i < SERVER_STREAMS_MAX; i++)
        s->streams_free[s->streams_free_count++] = (uint16_t)i;
    enum err e = wire_buffer_make(&s->in, SERVER_IN_BYTES);
    if (e == ERR_OK)
        e = wire_buffer_make(&s->out, SERVER_OUT_BYTES);
    if (e == ERR_OK)
        e = wire_table_make(&s->held, LEASES_MAX);
    if (e == ERR_OK)
        e = wire_table_make(&s->stream_of, SERVER_STREAMS_MAX);
    if (e != ERR_OK) {
        wire_server_close(&s);
        return e;
    }
    *server_out = s;
    return ERR_OK;
}

void wire_server_close(struct wire_server **server)
{
    struct wire_server *s = *server;
    *server = NULL;
    if (!s)
        return;
    struct link *l;
    while ((l = link_pop(&s->groups_free)) != NULL || (l = link_pop(&s->groups_engine)) != NULL)
        free(CONTAINER_OF(l, struct server_group, link));
    while ((l = link_pop(&s->again_asked)) != NULL)
        link_push(&s->again, l);
    again_drop(s);
    server_streams_drop(s, true);
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX * 2; i++)
        index_query_fini(&s->fetches[i].query);
    index_query_fini(&s->due);
    index_query_fini(&s->barrier);
    io_timer_clear(s->io, &s->wake);
    for (uint32_t i = 0; i < s->range_count; i++)
        free(s->ranges[(s->range_first + i) % SERVER_RANGES_MAX]);
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++)
        free(s->documents[i].bytes);
    wire_buffer_free(&s->in);
    wire_buffer_free(&s->out);
    wire_table_free(&s->held);
    wire_table_free(&s->stream_of);
    free(s);
}

void wire_server_stop(struct wire_server *s)
{
    wire_server_disconnect(s);
    s->stopping = true;
    again_drop(s);
    io_timer_clear(s->io, &s->wake);
}

bool wire_server_busy(const struct wire_server *s)
{
    return s->groups_out > 0 || s->lookups > 0 || s->barrier_out || s->due_out || s->fetches_busy > 0;
}

/* --- helpers of all files --- */

uint64_t server_now_ns(struct wire_server *s)
{
    return io_now_ns(s->io);
}

static void server_on_wake(struct io_timer *t)
{
    struct wire_server *s = t->owner;
    s->wake_ns = UINT64_MAX; /* the turn is what was wanted: wire_server_step comes after it */
}

void server_wake_at(struct wire_server *s, uint64_t ns)
{
    if (ns >= s->wake_ns || s->stopping)
        return;
    s->wake_ns = ns;
    io_timer_set(s->io, &s->wake, ns);
}

void server_log(struct wire_server *s, const char *format, ...)
{
    char line[256];
    va_list args;
    if (!s->hooks.on_log)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    s->hooks.on_log(s->hooks.owner, line);
}

void server_violation(struct wire_server *s, const char *what)
{
    if (s->state == CONNECTION_NONE || s->lost)
        return;
    server_log(s, "relay connection dropped: %s", what);
    s->lost = true; /* whoever calls may be in the middle of a list: the disconnect comes from outside */
}

void server_say(struct wire_server *s, const struct wire_message *m)
{
    if (s->state != CONNECTION_NONE && !s->lost && !wire_buffer_put(&s->out, m))
        server_violation(s, "it does not read what it asked for");
}

bool server_index_usable(struct wire_server *s)
{
    return spool_index(s->pool) && spool_index_ready(s->pool);
}

uint32_t server_out_room(const struct wire_server *s)
{
    uint32_t kept = 2 * SERVER_OUT_ANSWERS + s->reads_out * (CHUNK_BYTES_MAX + 64);
    uint32_t room = wire_buffer_room(&s->out);
    return room > kept ? room - kept : 0;
}

/* --- the connection --- */

void wire_server_connect(struct wire_server *s)
{
    if (s->state != CONNECTION_NONE)
        server_log(s, "relay connection replaced by a new one");
    wire_server_disconnect(s);
    if (s->stopping)
        return;
    s->connection++;
    s->state = CONNECTION_NEW;
    s->groups_old = s->groups_out;
}

static void documents_drop(struct wire_server *s)
{
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++) {
        free(s->documents[i].bytes);
        s->documents[i] = (struct server_document){0};
    }
}

void wire_server_disconnect(struct wire_server *s)
{
    if (s->state == CONNECTION_NONE)
        return;
    s->state = CONNECTION_NONE;
    s->blocked = s->lost = false;
    wire_buffer_reset(&s->in);
    wire_buffer_reset(&s->out);
    s->appends = s->append_bytes = s->chunks = s->marks = 0;
    s->groups_old = s->groups_out;
    s->due_credit = 0;
    s->pause_count = 0;
    again_drop(s);
    server_streams_drop(s, false);
    fetch_drop(s);
    documents_drop(s);
    server_held_stale(s);
}

bool wire_server_connected(const struct wire_server *s)
{
    return s->state != CONNECTION_NONE && !s->lost;
}

static enum verdict on_hello(struct wire_server *s, const struct wire_message *m)
{
    if (s->groups_old > 0) /* SRV-3: what it may present again is not decided yet */
        return BLOCKED;
    s->state = CONNECTION_PRESENTING;
    s->barrier_wanted = true;
    server_lend(s, WIRE_QUEUE_IDS_LENT);
    server_say(s, &(struct wire_message){.type = WIRE_WELCOME, .number = WIRE_VERSION, .clock_ms = WIRE_MAGIC,
                                         .qid = {s->incarnation, 0}, .value = s->run});
    server_say(s, &(struct wire_message){.type = WIRE_LEND, .number = WIRE_QUEUE_IDS_LENT,
                                         .qid = {s->incarnation, s->lent_last.counter - WIRE_QUEUE_IDS_LENT + 1}});
    server_log(s, "relay %016llx connected", (unsigned long long)m->value);
    s->status_wanted = true;
    s->status_soon_ns = 0;
    s->status_sent.type = WIRE_NONE;
    return TAKEN;
}

static void on_presented(struct wire_server *s)
{
    if (s->state != CONNECTION_PRESENTING) {
        server_violation(s, "it presents twice");
        return;
    }
    s->state = CONNECTION_READY;
    server_held_drop_stale(s); /* what it does not hold any more is due again */
    s->due_next_ns = 0;
}

static void on_want_ids(struct wire_server *s, uint32_t count)
{
    if (count == 0 || count > WIRE_QUEUE_IDS_LENT) {
        server_violation(s, "it wants more queue ids than there are credits for");
        return;
    }
    uint64_t before = s->lent_last.counter;
    server_lend(s, count);
    if (s->lent_last.counter != before)
        server_say(s, &(struct wire_message){.type = WIRE_LEND, .number = count,
                                             .qid = {s->incarnation, s->lent_last.counter - count + 1}});
}

static void on_document(struct wire_server *s, const struct wire_message *m)
{
    char kind[WIRE_DOCUMENT_KIND_MAX + 1] = {0};
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++) {
        struct server_document *d = &s->documents[i];
        if (d->used)
            continue;
        *d = (struct server_document){.used = true, .connection = s->connection, .tag = m->tag,
                                      .generation = ++s->document_generation};
        memcpy(kind, m->body.bytes, m->body.len);
        uint32_t request = d->generation * WIRE_DOCUMENTS_MAX + i;
        if (s->hooks.on_document)
            s->hooks.on_document(s->hooks.owner, request, kind);
        else
            wire_server_document(s, request, ERR_NOT_FOUND, NULL, 0);
        return;
    }
    server_violation(s, "it asks for too many documents");
}

void wire_server_document(struct wire_server *s, uint32_t request, enum err e, const void *bytes, uint32_t len)
{
    struct server_document *d = &s->documents[request % WIRE_DOCUMENTS_MAX];
    if (!d->used || d->answered || d->generation % (UINT32_MAX / WIRE_DOCUMENTS_MAX + 1) != request / WIRE_DOCUMENTS_MAX)
        return; /* of a connection that is gone */
    d->answered = true;
    d->error = len > WIRE_DOCUMENT_BYTES_MAX ? ERR_TOO_LARGE : e;
    if (d->error != ERR_OK || len == 0)
        return;
    d->bytes = malloc(len);
    d->error = d->bytes ? ERR_OK : ERR_NO_MEMORY;
    if (d->bytes) {
        memcpy(d->bytes, bytes, len);
        d->len = len;
    }
}

static void documents_step(struct wire_server *s)
{
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++) {
        struct server_document *d = &s->documents[i];
        while (d->used && d->answered && server_out_room(s) >= CHUNK_BYTES_MAX + 64) {
            uint32_t part = d->len - d->sent < CHUNK_BYTES_MAX ? d->len - d->sent : CHUNK_BYTES_MAX;
            bool last = d->sent + part == d->len;
            server_say(s, &(struct wire_message){.type = WIRE_DOCUMENT_PART, .tag = d->tag, .error = d->error,
                                                 .flags = last ? WIRE_LAST : 0, .body = {d->bytes + d->sent, part}});
            d->sent += part;
            if (last) {
                free(d->bytes);
                *d = (struct server_document){0};
            }
        }
    }
}

/* --- messages --- */

static enum verdict dispatch(struct wire_server *s, const struct wire_message *m)
{
    if ((s->state == CONNECTION_NEW) != (m->type == WIRE_HELLO)) {
        server_violation(s, s->state == CONNECTION_NEW ? "it does not say who it is" : "it says twice who it is");
        return TAKEN;
    }
    switch (m->type) {
    case WIRE_HELLO: return on_hello(s, m);
    case WIRE_HELD: server_on_held(s, m); break;
    case WIRE_PRESENTED: on_presented(s); break;
    case WIRE_WANT_IDS: on_want_ids(s, m->number); break;
    case WIRE_APPEND: return server_on_append(s, m);
    case WIRE_CHUNK: return server_on_chunk(s, m);
    case WIRE_ABORT: server_on_abort(s, m); break;
    case WIRE_MARK: return server_on_mark(s, m);
    case WIRE_RELEASE: server_end_lease(s, m->qid); break;
    case WIRE_WANT_DUE:
        s->due_credit = m->number > WIRE_DUE_CREDIT_MAX - s->due_credit ? WIRE_DUE_CREDIT_MAX : s->due_credit + m->number;
        break;
    case WIRE_FETCH: server_on_fetch(s, m); break;
    case WIRE_FETCH_MORE: server_on_fetch_more(s, m); break;
    case WIRE_FETCH_END: server_on_fetch_end(s, m); break;
    case WIRE_PAUSE: server_on_pause(s, m); break;
    case WIRE_REPORT:
        if (s->hooks.on_report)
            s->hooks.on_report(s->hooks.owner, (const char *)m->body.bytes, m->body.len);
        break;
    case WIRE_DOCUMENT: on_document(s, m); break;
    default: server_violation(s, "it says what only a spool says"); break;
    }
    return TAKEN;
}

static void parse(struct wire_server *s)
{
    while (s->state != CONNECTION_NONE && !s->lost && !s->blocked) {
        struct wire_message m;
        uint32_t used;
        if (wire_buffer_used(&s->out) > SERVER_OUT_GATE)
            return; /* the relay reads first; parsed on from wire_server_step */
        enum err e = wire_decode(wire_buffer_at(&s->in), wire_buffer_used(&s->in), 'r', &m, &used);
        if (e == ERR_SHORT)
            return;
        if (e != ERR_OK) {
            server_violation(s, "not the protocol");
            return;
        }
        if (dispatch(s, &m) == BLOCKED)
            s->blocked = true;
        else
            wire_buffer_drop(&s->in, used);
    }
}

uint8_t *wire_server_input(struct wire_server *s, uint32_t *room_out)
{
    bool full = s->state == CONNECTION_NONE || s->lost || s->blocked || wire_buffer_used(&s->out) > SERVER_OUT_GATE;
    if (!full)
        wire_buffer_compact(&s->in);
    *room_out = full ? 0 : s->in.capacity - s->in.tail;
    return s->in.bytes + s->in.tail;
}

void wire_server_received(struct wire_server *s, uint32_t len)
{
    ASSERT(len <= s->in.capacity - s->in.tail);
    s->in.tail += len;
    parse(s);
}

const uint8_t *wire_server_output(struct wire_server *s, uint32_t *len_out)
{
    *len_out = s->state == CONNECTION_NONE || s->lost ? 0 : wire_buffer_used(&s->out);
    return wire_buffer_at(&s->out);
}

void wire_server_sent(struct wire_server *s, uint32_t len)
{
    wire_buffer_drop(&s->out, len);
}

/* --- what is said unasked --- */

void wire_server_flush(struct wire_server *s)
{
    if (s->state != CONNECTION_NONE && s->state != CONNECTION_NEW)
        server_say(s, &(struct wire_message){.type = WIRE_FLUSH});
    wire_server_poke(s);
}

void wire_server_poke(struct wire_server *s)
{
    s->due_next_ns = 0;
}

static void status_say(struct wire_server *s)
{
    pool_status(s->pool, &s->status);
    struct wire_message m = {.type = WIRE_STATUS, .error = s->status.accepting, .value = s->status.bytes_free_for_mail,
                             .clock_ms = pool_clock_ms(s->pool),
                             .flags = s->status.index_ready ? WIRE_INDEX_READY : 0};
    const struct wire_message *last = &s->status_sent;
    uint64_t moved = m.value > last->value ? m.value - last->value : last->value - m.value;
    bool news = last->type == WIRE_NONE || m.error != last->error || m.flags != last->flags || moved > m.value / 64 ||
                m.clock_ms - last->clock_ms > 10000;
    if (!news)
        return;
    server_say(s, &m);
    s->status_sent = m;
}

static void status_step(struct wire_server *s)
{
    uint64_t now = server_now_ns(s);
    bool ready = server_index_usable(s);
    if (ready != s->index_ready) {
        s->index_ready = ready;
        s->status_wanted = true;
        s->due_next_ns = 0;
    }
    if (now >= (s->status_wanted ? s->status_soon_ns : s->status_next_ns)) {
        s->status_wanted = false;
        s->status_soon_ns = now + SERVER_STATUS_SOON_MS * SERVER_NS_PER_MS;
        s->status_next_ns = now + SERVER_STATUS_MS * SERVER_NS_PER_MS;
        status_say(s);
    }
    server_wake_at(s, s->status_wanted ? s->status_soon_ns : s->status_next_ns);
}

void wire_server_step(struct wire_server *s)
{
    if (s->stopping)
        return;
    if (s->lost)
        wire_server_disconnect(s);
    s->blocked = false; /* each turn may have made room */
    parse(s);
    server_streams_step(s);
    server_held_step(s);
    again_step(s);
    fetch_step(s);
    if (s->state == CONNECTION_READY)
        due_step(s);
    if (s->state == CONNECTION_READY || s->state == CONNECTION_PRESENTING) {
        documents_step(s);
        status_step(s);
    }
    if (s->blocked || !link_empty(&s->streams_waiting))
        server_wake_at(s, server_now_ns(s) + SERVER_BLOCKED_MS * SERVER_NS_PER_MS);
}
