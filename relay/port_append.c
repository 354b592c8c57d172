/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: appends and CHUNKs on their way. Invariants PRT-1 (port.h) and
 *  PAP-1  an append has a tag and its share of the credit from port_append to its answer; a tag whose append has failed
 *         here meanwhile stays taken until the spool has answered or the connection is lost.
 *  PAP-2  a tray is free, taken by one who fills it, or sent; what is sent comes back with CHUNKED or with the loss of the
 *         connection (PRT-5, WIRE-5).
 *
 *   unsent [port_append] -> sent [append_pump] -> held, done(OK) [APPENDED]
 *     ^____ connection lost: flagged AGAIN ____|      | 30 s after the loss: done(ERR_SPOOL_GONE); stored after all: retired */
#include "port_parts.h"

#include <string.h>

static struct port_append *append_at(struct link *l)
{
    return CONTAINER_OF(l, struct port_append, link);
}

static uint32_t append_cost(const struct mail *m)
{
    return m->envelope_len + (m->chunk_count ? 0 : (uint32_t)m->body_bytes);
}

void append_init(struct port *p)
{
    link_init(&p->appends_unsent);
    link_init(&p->appends_sent);
    for (uint32_t i = WIRE_APPENDS_MAX; i > 0; i--)
        p->append_free[p->append_free_count++] = (uint16_t)(i - 1);
}

void append_fini(struct port *p) /* their owners close with us: no done() */
{
    struct link *l;
    while ((l = link_pop(&p->appends_unsent)) != NULL || (l = link_pop(&p->appends_sent)) != NULL)
        append_at(l)->scratch[APPEND_TAG] = 0;
}

static void tag_free(struct port *p, uint32_t tag)
{
    p->append_of[tag] = NULL;
    p->append_qid[tag] = (struct queue_id){0};
    p->append_bytes -= p->append_size[tag];
    p->append_size[tag] = 0;
    p->append_free[p->append_free_count++] = (uint16_t)tag;
    port_made_room(p);
}

/* --- trays --- */

void port_use_trays(struct port *p, uint8_t *memory)
{
    ASSERT(!p->trays && p->state == PORT_DOWN);
    p->trays = memory;
    for (uint32_t i = WIRE_TRAYS; memory && i > 0; i--)
        p->tray_free[p->tray_free_count++] = (uint8_t)(i - 1);
}

static uint8_t *tray_at(const struct port *p, uint32_t tray)
{
    return p->trays + (size_t)tray * CHUNK_BYTES_MAX;
}

static uint32_t tray_number(const struct port *p, const uint8_t *bytes) /* WIRE_TRAYS: not a tray */
{
    if (!p->trays || bytes < p->trays || bytes >= tray_at(p, WIRE_TRAYS))
        return WIRE_TRAYS;
    return (uint32_t)((size_t)(bytes - p->trays) / CHUNK_BYTES_MAX);
}

uint8_t *port_tray_take(struct port *p)
{
    if (p->state != PORT_UP || p->tray_free_count == 0)
        return NULL; /* PRT-5 */
    uint32_t tray = p->tray_free[--p->tray_free_count];
    ASSERT(p->tray_state[tray] == TRAY_FREE);
    p->tray_state[tray] = TRAY_TAKEN;
    return tray_at(p, tray);
}

static void tray_free(struct port *p, uint32_t tray)
{
    p->tray_state[tray] = TRAY_FREE;
    p->tray_free[p->tray_free_count++] = (uint8_t)tray;
}

void port_tray_give(struct port *p, uint8_t *bytes)
{
    uint32_t tray = tray_number(p, bytes);
    ASSERT(tray < WIRE_TRAYS && p->tray_state[tray] == TRAY_TAKEN);
    tray_free(p, tray);
}

/* --- CHUNKs --- */

static struct wire_held *stream_now(struct port *p, struct queue_id qid) /* of this connection, or NULL */
{
    struct wire_held *st = wire_table_find(&p->streams, qid);
    return st && st->flags == p->connection && p->state == PORT_UP ? st : NULL;
}

static bool spool_is_lost(struct port *p)
{
    return p->lost_ms && loop_now_ms(p->loop) - p->lost_ms >= PORT_LOST_MS;
}

enum err port_chunk(struct port *p, struct queue_id qid, uint32_t number, const void *bytes, uint32_t len)
{
    struct wire_held *st = stream_now(p, qid);
    if (len == 0 || len > CHUNK_BYTES_MAX || number >= CHUNKS_PER_MESSAGE_MAX)
        return ERR_TOO_LARGE;
    if (st && st->slot != ERR_OK)
        return (enum err)st->slot;
    if ((number > 0 && !st) || spool_is_lost(p))
        return ERR_SPOOL_GONE; /* its first CHUNKs went to another spool */
    if (p->state != PORT_UP)
        return port_busy(p);
    if (qid.incarnation != p->incarnation)
        return ERR_SPOOL_GONE;
    struct wire_message m = {.type = WIRE_CHUNK, .qid = qid, .number = number, .body = {bytes, len}};
    uint32_t tray = tray_number(p, bytes);
    if (tray < WIRE_TRAYS) {
        ASSERT(p->tray_state[tray] == TRAY_TAKEN && bytes == tray_at(p, tray));
        m.flags = WIRE_TRAY;
        m.tag = tray;
        m.chunk_count = len;
        m.body = (struct wire_bytes){0};
    }
    if (p->append_bytes + p->chunk_bytes + len > WIRE_APPEND_BYTES_CREDIT || p->chunks >= WIRE_CHUNKS_MAX ||
        (!st && p->streams.count == PORT_STREAMS_MAX))
        return port_busy(p);
    if (!st && !(st = wire_table_add(&p->streams, qid)))
        return ERR_NO_MEMORY;
    st->flags = p->connection;
    if (!port_try_say(p, &m)) {
        if (number == 0)
            wire_table_remove(&p->streams, qid);
        return port_busy(p);
    }
    p->chunks++;
    p->chunk_bytes += len;
    if (tray < WIRE_TRAYS)
        p->tray_state[tray] = TRAY_SENT;
    port_soon(p);
    return ERR_OK;
}

void append_on_chunked(struct port *p, const struct wire_message *m)
{
    bool tray = m->flags & WIRE_TRAY;
    if (p->chunks == 0 || m->chunk_count > p->chunk_bytes ||
        (tray && (m->tag >= WIRE_TRAYS || p->tray_state[m->tag] != TRAY_SENT))) {
        port_drop_connection(p);
        return;
    }
    if (tray)
        tray_free(p, m->tag);
    p->chunks--;
    p->chunk_bytes -= m->chunk_count;
    struct wire_held *st = stream_now(p, m->qid);
    if (st && m->error != ERR_OK && st->slot == ERR_OK)
        st->slot = m->error;
    port_made_room(p);
}

void port_abort(struct port *p, struct queue_id qid)
{
    bool here = stream_now(p, qid) != NULL;
    wire_table_remove(&p->streams, qid);
    if (here)
        port_say(p, &(struct wire_message){.type = WIRE_ABORT, .qid = qid});
}

/* --- appends --- */

static enum err stream_verdict(struct port *p, const struct port_append *a)
{
    if (a->mail->chunk_count == 0 || a->scratch[APPEND_AGAIN])
        return ERR_OK;
    const struct wire_held *st = stream_now(p, a->mail->qid);
    return st ? (enum err)st->slot : ERR_SPOOL_GONE;
}

enum err port_append(struct port *p, struct port_append *a)
{
    const struct mail *m = a->mail;
    if (m->envelope_len > ENVELOPE_BYTES_MAX || (m->chunk_count == 0 && m->body_bytes > BODY_INLINE_MAX))
        return ERR_TOO_LARGE;
    if (spool_is_lost(p))
        return ERR_SPOOL_GONE;
    enum err e = ERR_OK;
    memset(a->scratch, 0, sizeof a->scratch);
    if ((e = stream_verdict(p, a)) != ERR_OK)
        return e;
    uint32_t cost = append_cost(m);
    if (p->append_free_count == 0 || p->append_bytes + p->chunk_bytes + cost > WIRE_APPEND_BYTES_CREDIT)
        return port_busy(p);
    uint32_t tag = p->append_free[--p->append_free_count];
    p->append_of[tag] = a;
    p->append_qid[tag] = m->qid;
    p->append_size[tag] = cost;
    p->append_bytes += cost;
    a->scratch[APPEND_TAG] = tag;
    a->scratch[APPEND_LOST_MS] = p->lost_ms;
    a->link = (struct link){0};
    link_push(&p->appends_unsent, &a->link);
    port_soon(p);
    return ERR_OK;
}

/* Out of its list; `tag_stays`: the spool's answer is still to come. */
static void append_end(struct port *p, struct port_append *a, enum err e, bool tag_stays)
{
    uint32_t tag = (uint32_t)a->scratch[APPEND_TAG];
    link_remove(&a->link);
    if (a->mail->chunk_count)
        wire_table_remove(&p->streams, a->mail->qid);
    if (tag_stays)
        p->append_of[tag] = NULL;
    else
        tag_free(p, tag);
    a->done(a, e);
}

bool append_pump(struct port *p, bool again_only)
{
    while (!link_empty(&p->appends_unsent)) {
        struct port_append *a = append_at(p->appends_unsent.next);
        const struct mail *mail = a->mail;
        bool again = a->scratch[APPEND_AGAIN];
        if (again_only && !again)
            return true;
        enum err e = again_only ? ERR_OK : stream_verdict(p, a);
        if (e != ERR_OK) {
            append_end(p, a, e, false);
            continue;
        }
        again = again || mail->qid.incarnation != p->incarnation; /* taken from a spool that has restarted since */
        struct wire_message m = {.type = WIRE_APPEND, .flags = again ? WIRE_AGAIN : 0, .qid = mail->qid,
                                 .tag = (uint32_t)a->scratch[APPEND_TAG], .chunk_count = mail->chunk_count,
                                 .envelope = {mail->envelope_bytes, mail->envelope_len}};
        if (mail->chunk_count == 0)
            m.body = (struct wire_bytes){mail->body, (uint32_t)mail->body_bytes};
        if (!port_try_say(p, &m))
            return false;
        link_remove(&a->link);
        link_push(&p->appends_sent, &a->link);
    }
    return true;
}

void append_on_answer(struct port *p, const struct wire_message *m)
{
    if (m->tag >= WIRE_APPENDS_MAX || !queue_id_equal(p->append_qid[m->tag], m->qid)) {
        port_drop_connection(p);
        return;
    }
    struct port_append *a = p->append_of[m->tag];
    struct wire_held *h = m->error == ERR_OK ? wire_table_add(&p->held, m->qid) : NULL;
    if (h)
        h->locator = m->locator;
    else if (m->error == ERR_OK) /* no memory to hold it: it is due by itself */
        port_say(p, &(struct wire_message){.type = WIRE_RELEASE, .qid = m->qid});
    if (!a) { /* PAP-1: its sender was told 451; what was stored after all is taken back */
        tag_free(p, m->tag);
        if (h)
            mark_retire_unwanted(p, m->qid, m->locator);
        return;
    }
    a->mail->locator = m->locator;
    append_end(p, a, m->error != ERR_OK ? m->error : h ? ERR_OK : ERR_NO_MEMORY, false);
}

void append_on_lost(struct port *p)
{
    for (uint32_t tag = 0; tag < WIRE_APPENDS_MAX; tag++)
        if (!queue_id_is_none(p->append_qid[tag]) && !p->append_of[tag])
            tag_free(p, tag); /* nobody asks for it again */
    p->chunks = p->chunk_bytes = 0;
    for (uint32_t tray = 0; tray < WIRE_TRAYS; tray++)
        if (p->tray_state[tray] == TRAY_SENT)
            tray_free(p, tray);
    while (!link_empty(&p->appends_sent)) { /* from the back to the front: their order stays */
        struct link *l = p->appends_sent.prev;
        link_remove(l);
        link_push_front(&p->appends_unsent, l);
        append_at(l)->scratch[APPEND_AGAIN] = 1;
    }
    LINK_EACH(l, &p->appends_unsent)
        if (!append_at(l)->scratch[APPEND_LOST_MS])
            append_at(l)->scratch[APPEND_LOST_MS] = p->lost_ms;
}

static bool append_fail_late(struct port *p, struct link *list, uint64_t now_ms, bool tag_stays)
{
    LINK_EACH(l, list) {
        struct port_append *a = append_at(l);
        if (!a->scratch[APPEND_LOST_MS] || now_ms - a->scratch[APPEND_LOST_MS] < PORT_LOST_MS)
            continue;
        append_end(p, a, ERR_SPOOL_GONE, tag_stays); /* its done() may change the list */
        return true;
    }
    return false;
}

void append_tick(struct port *p, uint64_t now_ms)
{
    while (append_fail_late(p, &p->appends_unsent, now_ms, false))
        ;
    while (append_fail_late(p, &p->appends_sent, now_ms, true))
        ;
}
