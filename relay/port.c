/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the connection to the spool: socket, HELLO and presenting, queue ids, status, documents; and the turn: what the
 * other port_*.c files have to say is gathered in one buffer and written once (PRT-3).
 *
 *   DOWN -> HELLO [port_attach] -> PRESENTING [WELCOME: held, marks and appends from before] -> UP [PRESENTED]
 *     ^______________________________ end of file, error, not the protocol _______________________________|
 *
 * Presenting goes on in pieces while the buffer has room; what is new waits behind it. Next: port_append.c. */
#include "port_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static void run_pump(struct loop_task *t);
static void on_tick(struct loop_timer *t);
static void on_ready(struct loop_watch *w, bool readable, bool writable);

/* --- life --- */

enum err port_open(struct loop *loop, const struct port_callbacks *cb, struct port **port_out)
{
    struct port *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NO_MEMORY;
    p->loop = loop;
    p->cb = *cb;
    p->watch = (struct loop_watch){.fd = -1, .ready = on_ready, .owner = p};
    p->pump = (struct loop_task){.run = run_pump, .owner = p};
    p->lost_ms = loop_now_ms(loop);
    p->status.accepting = ERR_SPOOL_GONE;
    loop_timer_init(loop, &p->tick, on_tick, p);
    append_init(p);
    mark_init(p);
    link_init(&p->fetches_waiting);
    enum err e = wire_buffer_make(&p->in, PORT_IN_BYTES);
    if (e == ERR_OK)
        e = wire_buffer_make(&p->out, PORT_OUT_BYTES);
    if (e == ERR_OK)
        e = wire_table_make(&p->held, LEASES_MAX);
    if (e == ERR_OK)
        e = wire_table_make(&p->streams, PORT_STREAMS_MAX);
    if (e == ERR_OK && getrandom(&p->session, sizeof p->session, 0) != sizeof p->session)
        e = ERR_SYSTEM;
    if (e != ERR_OK) {
        port_close(&p);
        return e;
    }
    *port_out = p;
    return ERR_OK;
}

static void close_socket(struct port *p)
{
    if (p->watch.fd < 0)
        return;
    loop_watch_remove(&p->watch);
    close(p->watch.fd);
    p->watch.fd = -1;
}

void port_close(struct port **port)
{
    struct port *p = *port;
    *port = NULL;
    if (!p)
        return;
    loop_defer_cancel(&p->pump);
    loop_timer_fini(&p->tick);
    close_socket(p);
    append_fini(p);
    mark_fini(p);
    fetch_fini(p);
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++)
        free(p->documents[i].bytes);
    free(p->present_row);
    wire_buffer_free(&p->in);
    wire_buffer_free(&p->out);
    wire_table_free(&p->held);
    wire_table_free(&p->streams);
    free(p);
}

bool port_idle(const struct port *p)
{
    return p->append_free_count == WIRE_APPENDS_MAX && p->mark_free_count == WIRE_MARKS_MAX &&
           link_empty(&p->appends_unsent);
}

/* --- saying --- */

void port_soon(struct port *p)
{
    loop_defer(p->loop, &p->pump);
}

enum err port_busy(struct port *p)
{
    p->room_wanted = true;
    port_want_tick(p);
    return ERR_BUSY;
}

void port_made_room(struct port *p)
{
    p->room_made = true;
    port_soon(p);
}

bool port_try_say(struct port *p, const struct wire_message *m)
{
    if (p->state == PORT_DOWN)
        return false;
    p->out_full = wire_encoded_bytes(m) + PORT_OUT_KEPT > wire_buffer_room(&p->out);
    return !p->out_full && wire_buffer_put(&p->out, m);
}

void port_say(struct port *p, const struct wire_message *m)
{
    if (p->state == PORT_DOWN)
        return; /* what matters of it is presented when there is a connection */
    if (!wire_buffer_put(&p->out, m))
        port_drop_connection(p); /* the spool has not read 6,000 small messages: it will not read more */
    port_soon(p);
}

/* --- the connection --- */

static void tell_status(struct port *p)
{
    p->cb.on_status(p->cb.owner, &p->status);
}

void port_attach(struct port *p, int fd)
{
    int bytes = WIRE_SOCKET_BYTES;
    port_drop_connection(p);
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        flags = fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    /* the system's limit is enough when this is refused: only the number of writes grows */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    p->watch.fd = fd;
    if (flags < 0 || loop_watch_add(p->loop, &p->watch, true, false) != ERR_OK) {
        close(fd);
        p->watch.fd = -1;
        return; /* as lost: the next connection comes from the supervisor */
    }
    p->connection++;
    p->state = PORT_HELLO;
    port_say(p, &(struct wire_message){.type = WIRE_HELLO, .number = WIRE_VERSION, .clock_ms = WIRE_MAGIC,
                                       .value = p->session});
}

static void documents_fail(struct port *p, uint64_t before_ms)
{
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++) {
        struct port_document_slot d = p->documents[i];
        if (!d.used || d.deadline_ms > before_ms)
            continue;
        bool answer_comes = p->state != PORT_DOWN; /* then its tag is not free yet */
        p->documents[i] = (struct port_document_slot){.used = answer_comes, .deadline_ms = UINT64_MAX};
        if (d.done)
            d.done(d.owner, ERR_SPOOL_GONE, NULL, 0);
        free(d.bytes);
    }
}

void port_drop_connection(struct port *p)
{
    if (p->state == PORT_DOWN)
        return;
    close_socket(p);
    p->state = PORT_DOWN;
    p->lost_ms = loop_now_ms(p->loop);
    wire_buffer_reset(&p->in);
    wire_buffer_reset(&p->out);
    p->write_blocked = p->ids_asked = false;
    p->ids[0].count = p->ids[1].count = 0;
    p->due_wanted += p->due_asked;
    p->due_asked = 0;
    append_on_lost(p);
    mark_on_lost(p);
    p->status.connected = p->status.index_ready = false;
    port_want_tick(p);
    fetch_on_lost(p);
    documents_fail(p, UINT64_MAX);
    tell_status(p);
}

/* PRT-4: a snapshot of what is held; it goes out row by row while the buffer has room. */
static void present_begin(struct port *p)
{
    uint32_t n = 0;
    free(p->present_row);
    p->present_at = p->present_count = 0;
    p->present_row = malloc((size_t)p->held.count * WIRE_HELD_BYTES + 1);
    if (!p->present_row) {
        port_drop_connection(p);
        return;
    }
    WIRE_TABLE_EACH(h, &p->held)
        wire_held_put(p->present_row, n++, h->qid, h->locator);
    p->present_count = n;
}

static void on_welcome(struct port *p, const struct wire_message *m)
{
    if (p->state != PORT_HELLO) {
        port_drop_connection(p);
        return;
    }
    p->state = PORT_PRESENTING;
    p->run = m->value;
    p->incarnation = m->qid.incarnation;
    p->lost_ms = 0;
    p->status.connected = true;
    present_begin(p);
    port_made_room(p);
}

static bool present_held(struct port *p)
{
    while (p->present_at < p->present_count) {
        uint32_t n = p->present_count - p->present_at;
        n = n < WIRE_HELD_ROW_MAX ? n : WIRE_HELD_ROW_MAX;
        struct wire_message m = {.type = WIRE_HELD, .marks = {p->present_row + (size_t)p->present_at * WIRE_HELD_BYTES,
                                                              n * WIRE_HELD_BYTES}};
        if (!port_try_say(p, &m))
            return false;
        p->present_at += n;
    }
    free(p->present_row);
    p->present_row = NULL;
    return true;
}

static void present_step(struct port *p)
{
    if (!present_held(p) || !mark_pump(p, true) || !append_pump(p, true) || p->state != PORT_PRESENTING)
        return;
    p->state = PORT_UP;
    port_say(p, &(struct wire_message){.type = WIRE_PRESENTED});
}

/* --- queue ids --- */

enum err port_take_queue_id(struct port *p, struct queue_id *qid_out)
{
    if (p->ids[0].count == 0) {
        p->ids[0] = p->ids[1];
        p->ids[1].count = 0;
    }
    if (p->ids[0].count == 0) {
        port_soon(p);
        return port_busy(p);
    }
    *qid_out = (struct queue_id){p->incarnation, p->ids[0].next++};
    p->ids[0].count--;
    if (p->ids[0].count + p->ids[1].count < WIRE_QUEUE_IDS_LENT / 2)
        port_soon(p);
    return ERR_OK;
}

static void ids_pump(struct port *p)
{
    uint64_t have = p->ids[0].count + p->ids[1].count;
    if (p->ids_asked || p->ids[1].count > 0 || have >= WIRE_QUEUE_IDS_LENT / 2)
        return;
    p->ids_asked = true;
    port_say(p, &(struct wire_message){.type = WIRE_WANT_IDS, .number = WIRE_QUEUE_IDS_LENT - (uint32_t)have});
}

static void on_lend(struct port *p, const struct wire_message *m)
{
    uint32_t at = p->ids[0].count > 0;
    if (at && p->ids[1].count > 0)
        return; /* more than was asked for */
    p->incarnation = m->qid.incarnation;
    p->ids[at].next = m->qid.counter;
    p->ids[at].count = m->number;
    p->ids_asked = false;
    port_made_room(p);
}

/* --- status --- */

static void on_status(struct port *p, const struct wire_message *m)
{
    p->status.accepting = m->error;
    p->status.free_bytes = m->value;
    p->status.index_ready = m->flags & WIRE_INDEX_READY;
    p->status.pool_clock_ms = m->clock_ms;
    p->status_at_ms = loop_now_ms(p->loop);
    tell_status(p);
}

struct port_status port_status(const struct port *p)
{
    return p->status;
}

uint64_t port_clock_ms(const struct port *p)
{
    if (p->status_at_ms == 0)
        return loop_wall_ms(p->loop); /* nothing is known yet; nothing is accepted before the first status */
    return p->status.pool_clock_ms + (loop_now_ms(p->loop) - p->status_at_ms);
}

enum err port_reserve(struct port *p, uint64_t bytes)
{
    if (p->lost_ms && loop_now_ms(p->loop) - p->lost_ms > PORT_GRACE_MS)
        return ERR_SPOOL_GONE;
    if (p->status.accepting != ERR_OK)
        return p->status.accepting;
    if (bytes > p->status.free_bytes || p->reserved > p->status.free_bytes - bytes)
        return ERR_FULL;
    p->reserved += bytes;
    return ERR_OK;
}

void port_unreserve(struct port *p, uint64_t bytes)
{
    ASSERT(bytes <= p->reserved);
    p->reserved -= bytes;
}

/* --- documents and the report --- */

void port_report(struct port *p, const char *json, uint32_t len)
{
    uint64_t now = loop_now_ms(p->loop);
    if (p->state != PORT_UP || len > WIRE_REPORT_BYTES_MAX || (p->report_ms && now - p->report_ms < 1000))
        return;
    if (port_try_say(p, &(struct wire_message){.type = WIRE_REPORT, .body = {(const uint8_t *)json, len}}))
        p->report_ms = now;
    port_soon(p);
}

enum err port_document(struct port *p, const char *kind, void *owner,
                       void (*done)(void *owner, enum err e, const char *bytes, uint32_t len))
{
    size_t len = strlen(kind);
    if (p->state == PORT_DOWN || p->state == PORT_HELLO)
        return ERR_SPOOL_GONE;
    if (len > WIRE_DOCUMENT_KIND_MAX)
        return ERR_INVALID;
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++) {
        struct port_document_slot *d = &p->documents[i];
        if (d->used)
            continue;
        *d = (struct port_document_slot){.used = true, .done = done, .owner = owner,
                                         .deadline_ms = loop_now_ms(p->loop) + PORT_DOCUMENT_MS};
        port_say(p, &(struct wire_message){.type = WIRE_DOCUMENT, .tag = i, .body = {(const uint8_t *)kind, (uint32_t)len}});
        port_want_tick(p);
        return ERR_OK;
    }
    return ERR_BUSY;
}

static bool document_grow(struct port_document_slot *d, uint32_t len)
{
    if (len > WIRE_DOCUMENT_BYTES_MAX - d->len)
        return false;
    if (d->len + len <= d->capacity)
        return true;
    uint32_t capacity = (d->len + len) * 2;
    uint8_t *bytes = realloc(d->bytes, capacity);
    if (!bytes)
        return false;
    d->bytes = bytes;
    d->capacity = capacity;
    return true;
}

static void on_document_part(struct port *p, const struct wire_message *m)
{
    struct port_document_slot *d = m->tag < WIRE_DOCUMENTS_MAX ? &p->documents[m->tag] : NULL;
    if (!d || !d->used) {
        port_drop_connection(p);
        return;
    }
    enum err e = m->error;
    if (e == ERR_OK && !document_grow(d, m->body.len))
        e = ERR_TOO_LARGE;
    if (e == ERR_OK && m->body.len) {
        memcpy(d->bytes + d->len, m->body.bytes, m->body.len);
        d->len += m->body.len;
    }
    if (!(m->flags & WIRE_LAST))
        return;
    struct port_document_slot ended = *d;
    *d = (struct port_document_slot){0};
    if (ended.done)
        ended.done(ended.owner, e, (const char *)ended.bytes, e == ERR_OK ? ended.len : 0);
    free(ended.bytes);
}

/* --- hearing --- */

static void on_recall(struct port *p, struct queue_id qid)
{
    const struct wire_held *h = wire_table_find(&p->held, qid);
    if (h && !(h->flags & PORT_HELD_ENDING))
        p->cb.on_recall(p->cb.owner, qid);
}

static void dispatch(struct port *p, const struct wire_message *m)
{
    if (p->state == PORT_HELLO && m->type != WIRE_WELCOME) {
        port_drop_connection(p);
        return;
    }
    switch (m->type) {
    case WIRE_WELCOME: on_welcome(p, m); break;
    case WIRE_LEND: on_lend(p, m); break;
    case WIRE_APPENDED: append_on_answer(p, m); break;
    case WIRE_CHUNKED: append_on_chunked(p, m); break;
    case WIRE_MARKED: mark_on_answer(p, m); break;
    case WIRE_DUE: due_on_message(p, m); break;
    case WIRE_PIECE: fetch_on_piece(p, m); break;
    case WIRE_STATUS: on_status(p, m); break;
    case WIRE_RECALL: on_recall(p, m->qid); break;
    case WIRE_FLUSH: p->cb.on_flush(p->cb.owner); break;
    case WIRE_DOCUMENT_PART: on_document_part(p, m); break;
    default: port_drop_connection(p); break;
    }
}

static void parse(struct port *p)
{
    uint32_t connection = p->connection;
    while (p->state != PORT_DOWN && p->connection == connection) {
        struct wire_message m;
        uint32_t used;
        enum err e = wire_decode(wire_buffer_at(&p->in), wire_buffer_used(&p->in), 's', &m, &used);
        if (e == ERR_SHORT)
            return;
        if (e != ERR_OK) {
            port_drop_connection(p);
            return;
        }
        dispatch(p, &m);
        if (p->state != PORT_DOWN && p->connection == connection)
            wire_buffer_drop(&p->in, used);
    }
}

static void on_ready(struct loop_watch *w, bool readable, bool writable)
{
    struct port *p = w->owner;
    if (writable) {
        p->write_blocked = false;
        loop_watch_change(&p->watch, true, false);
        port_made_room(p);
    }
    if (!readable)
        return;
    wire_buffer_compact(&p->in);
    ssize_t n = read(p->watch.fd, p->in.bytes + p->in.tail, p->in.capacity - p->in.tail);
    if (n > 0) {
        p->in.tail += (uint32_t)n;
        parse(p);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        port_drop_connection(p);
    }
}

/* --- the turn --- */

static void write_out(struct port *p)
{
    uint32_t len = wire_buffer_used(&p->out);
    if (p->state == PORT_DOWN || len == 0 || p->write_blocked)
        return;
    ssize_t n = send(p->watch.fd, wire_buffer_at(&p->out), len, MSG_NOSIGNAL);
    if (n >= 0) {
        wire_buffer_drop(&p->out, (uint32_t)n);
    } else if (errno != EAGAIN && errno != EINTR) {
        port_drop_connection(p);
        return;
    }
    if (wire_buffer_used(&p->out) > 0) {
        p->write_blocked = true;
        loop_watch_change(&p->watch, true, true);
    }
}

static void gather(struct port *p)
{
    p->out_full = false;
    if (p->state == PORT_PRESENTING)
        present_step(p);
    if (p->state != PORT_UP)
        return;
    ids_pump(p);
    (void)mark_pump(p, false);
    (void)append_pump(p, false);
    due_pump(p);
    fetch_pump(p);
}

static void run_pump(struct loop_task *t)
{
    struct port *p = t->owner;
    gather(p);
    if (p->room_wanted && p->room_made) {
        p->room_wanted = p->room_made = false;
        p->cb.on_room(p->cb.owner); /* what it brings goes out with this same write */
        gather(p);
    }
    p->room_made = false;
    loop_defer_cancel(&p->pump); /* asked for on the way here */
    write_out(p);
    if (p->out_full && !p->write_blocked && p->state != PORT_DOWN)
        port_soon(p); /* the socket took all there was: go on in the next round */
}

void port_want_tick(struct port *p)
{
    if (p->tick_set)
        return;
    p->tick_set = true;
    loop_timer_set(&p->tick, PORT_TICK_MS);
}

static void on_tick(struct loop_timer *t)
{
    struct port *p = t->owner;
    uint64_t now = loop_now_ms(p->loop);
    p->tick_set = false;
    p->ids_asked = false; /* a spool out of memory does not answer */
    append_tick(p, now);
    bool again = mark_tick(p, now);
    documents_fail(p, now);
    again = again || p->room_wanted || p->state != PORT_UP || !link_empty(&p->appends_sent) || !link_empty(&p->appends_unsent);
    for (uint32_t i = 0; i < WIRE_DOCUMENTS_MAX; i++)
        again = again || p->documents[i].used;
    if (again)
        port_want_tick(p);
    port_made_room(p); /* whoever still waits looks again: a wake-up that went astray costs one tick */
}
