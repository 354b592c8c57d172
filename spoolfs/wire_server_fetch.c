/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the bodies of leased messages on their way out, piece by piece, each verified in the read it comes from (SPL-3).
 *
 *   FETCH -> LOOKUP -> MESSAGE inline: one read -> PIECE, LAST
 *                   +-> CHUNKs: places [INDEX_CHUNKS], one read at a time, as far as the relay's credit goes
 *
 * Bounded: one query or read of a fetch is out at a time, WIRE_FETCH_PIECES pieces of it in the output, and
 * SERVER_READS_MAX reads of all fetches, each with its room in the output kept (server_out_room). */
#include "wire_server_parts.h"

#include <string.h>

#define FETCH_PLACES 64u       /* CHUNK places asked for at a time: 4 MiB of body */
#define FETCH_RETRY_MS 100u    /* the index has not applied a fresh message yet */
#define FETCH_WAIT_MS 20000u

static void fetch_end(struct server_fetch *f)
{
    struct wire_server *s = f->server;
    ASSERT(!f->busy);
    if (link_linked(&f->link))
        link_remove(&f->link);
    if (server_is_current(s, f->connection) && s->fetch_of[f->tag] == f)
        s->fetch_of[f->tag] = NULL;
    index_query_fini(&f->query);
    f->used = false;
}

static void fetch_piece(struct server_fetch *f, enum err e, const uint8_t *bytes, uint32_t len, bool last)
{
    server_say(f->server, &(struct wire_message){.type = WIRE_PIECE, .tag = f->tag, .error = e, .body = {bytes, len},
                                                 .flags = last ? WIRE_LAST : 0});
    if (last)
        fetch_end(f);
}

/* That a leased message is not found is a delay of ours (the index is behind), not a fault of the request. */
static enum err ours(enum err e)
{
    return e == ERR_NOT_FOUND ? ERR_INDEX_LAG : e;
}

static void fetch_wait(struct server_fetch *f)
{
    if (!link_linked(&f->link))
        link_push(&f->server->fetch_waiting, &f->link);
}

/* Something came back; false: nobody waits for it any more. */
static bool fetch_back(struct server_fetch *f)
{
    f->busy = false;
    f->server->fetches_busy--;
    if (!f->ended && server_is_current(f->server, f->connection))
        return true;
    fetch_end(f);
    return false;
}

static void fetch_on_read(struct spool_read *r, enum err e)
{
    struct server_fetch *f = r->owner;
    struct wire_server *s = f->server;
    s->reads_out--;
    if (!fetch_back(f))
        return;
    if (e == ERR_NOT_FOUND && server_now_ns(s) < f->deadline_ns) { /* moved since it was looked up (EXC-5; CHUNKs: any compaction) */
        f->looked_up = f->has_places = false;
        f->retry_ns = server_now_ns(s) + FETCH_RETRY_MS * SERVER_NS_PER_MS;
        fetch_wait(f);
        return;
    }
    bool last = e != ERR_OK || !f->chunked || f->next + 1 == f->chunk_count;
    if (e == ERR_OK && r->body_bytes > CHUNK_BYTES_MAX) {
        e = ERR_CORRUPT;
        last = true;
    }
    e = ours(e);
    f->next++;
    f->place_at++;
    f->credit--;
    fetch_piece(f, e, r->body, e == ERR_OK ? r->body_bytes : 0, last);
    if (!last)
        fetch_wait(f);
}

static void fetch_read(struct server_fetch *f, enum record_type type, struct place place, struct digest digest)
{
    struct wire_server *s = f->server;
    f->read = (struct spool_read){.place = place, .qid = f->qid, .digest = digest, .type = type, .done = fetch_on_read,
                                  .owner = f};
    f->busy = true;
    s->fetches_busy++;
    s->reads_out++;
    spool_read(s->pool, &f->read);
}

static void fetch_on_chunks(struct index_query *q, enum err e)
{
    struct server_fetch *f = q->owner;
    if (!fetch_back(f))
        return;
    f->place_at = 0;
    f->has_places = e == ERR_OK;
    if (e != ERR_OK)
        fetch_piece(f, ours(e), NULL, 0, true);
    else
        fetch_wait(f);
}

static void fetch_on_lookup(struct index_query *q, enum err e)
{
    struct server_fetch *f = q->owner;
    uint64_t now = server_now_ns(f->server);
    if (!fetch_back(f))
        return;
    if (e == ERR_OK && q->entry_count > 0) {
        f->looked_up = true;
        f->chunk_count = q->entries[0].chunk_count;
        f->chunked = f->chunk_count > 0;
        if (f->next >= (f->chunked ? f->chunk_count : 1)) {
            fetch_piece(f, ERR_INVALID, NULL, 0, true);
            return;
        }
    } else if ((e != ERR_OK && e != ERR_NOT_FOUND) || now >= f->deadline_ns) {
        fetch_piece(f, e == ERR_OK ? ERR_INDEX_LAG : ours(e), NULL, 0, true);
        return;
    } else {
        f->retry_ns = now + FETCH_RETRY_MS * SERVER_NS_PER_MS;
    }
    fetch_wait(f);
}

static void fetch_ask(struct server_fetch *f, enum index_query_kind kind,
                      void (*done)(struct index_query *q, enum err e))
{
    struct wire_server *s = f->server;
    uint32_t left = f->chunk_count - f->next;
    index_query_fini(&f->query);
    f->query = (struct index_query){.kind = kind, .done = done, .owner = f, .qid = f->qid, .first = f->next,
                                    .max = left < FETCH_PLACES ? left : FETCH_PLACES};
    f->busy = true;
    s->fetches_busy++;
    index_query(spool_index(s->pool), &f->query);
}

/* The next thing a fetch needs. False: it keeps waiting. */
static bool fetch_go_on(struct server_fetch *f)
{
    struct wire_server *s = f->server;
    if (!f->looked_up) {
        if (server_now_ns(s) < f->retry_ns || !spool_index(s->pool)) {
            server_wake_at(s, f->retry_ns);
            return false;
        }
        fetch_ask(f, INDEX_LOOKUP, fetch_on_lookup);
        return true;
    }
    if (f->credit == 0)
        return true; /* FETCH_MORE brings it back */
    if (f->chunked && (!f->has_places || f->place_at == f->query.max)) {
        fetch_ask(f, INDEX_CHUNKS, fetch_on_chunks);
        return true;
    }
    if (s->reads_out >= SERVER_READS_MAX || server_out_room(s) < CHUNK_BYTES_MAX + 64)
        return false;
    if (f->chunked)
        fetch_read(f, RECORD_CHUNK, f->query.chunks[f->place_at].place, f->query.chunks[f->place_at].digest);
    else
        fetch_read(f, RECORD_MESSAGE, f->query.entries[0].place, f->query.entries[0].digest);
    return true;
}

void fetch_step(struct wire_server *s)
{
    LINK_EACH_SAFE(l, next, &s->fetch_waiting) {
        struct server_fetch *f = CONTAINER_OF(l, struct server_fetch, link);
        link_remove(l);
        if (!fetch_go_on(f)) {
            l->next = next; /* back to its place in the order */
            l->prev = next->prev;
            next->prev->next = l;
            next->prev = l;
        }
    }
}

/* --- the relay's side of it --- */

void server_on_fetch(struct wire_server *s, const struct wire_message *m)
{
    const struct wire_held *h = wire_table_find(&s->held, m->qid);
    if (!h || m->tag >= WIRE_FETCHES_MAX || s->fetch_of[m->tag]) {
        server_violation(s, h ? "it fetches beyond its credit" : "it fetches a message that is not leased to it");
        return;
    }
    struct server_fetch *f = NULL;
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX * 2 && !f; i++)
        f = s->fetches[i].used ? NULL : &s->fetches[i];
    if (!f || (h->flags & HELD_GHOST)) {
        server_say(s, &(struct wire_message){.type = WIRE_PIECE, .tag = m->tag, .flags = WIRE_LAST,
                                             .error = f ? ERR_CANCELED : ERR_BUSY});
        return;
    }
    *f = (struct server_fetch){.used = true, .server = s, .connection = s->connection, .tag = m->tag, .qid = m->qid,
                               .next = m->number, .credit = WIRE_FETCH_PIECES,
                               .deadline_ns = server_now_ns(s) + FETCH_WAIT_MS * SERVER_NS_PER_MS};
    s->fetch_of[m->tag] = f;
    fetch_wait(f);
}

void server_on_fetch_more(struct wire_server *s, const struct wire_message *m)
{
    struct server_fetch *f = m->tag < WIRE_FETCHES_MAX ? s->fetch_of[m->tag] : NULL;
    if (!f)
        return; /* its last piece is on its way */
    if (m->number > WIRE_FETCH_PIECES - f->credit) {
        server_violation(s, "it takes more pieces than it was sent");
        return;
    }
    f->credit += m->number;
    if (!f->busy)
        fetch_wait(f);
}

void server_on_fetch_end(struct wire_server *s, const struct wire_message *m)
{
    struct server_fetch *f = m->tag < WIRE_FETCHES_MAX ? s->fetch_of[m->tag] : NULL;
    if (!f)
        return;
    f->ended = true;
    s->fetch_of[m->tag] = NULL;
    server_say(s, &(struct wire_message){.type = WIRE_PIECE, .tag = m->tag, .flags = WIRE_LAST, .error = ERR_CANCELED});
    if (!f->busy)
        fetch_end(f);
}

void fetch_drop(struct wire_server *s)
{
    memset(s->fetch_of, 0, sizeof s->fetch_of);
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX * 2; i++) {
        struct server_fetch *f = &s->fetches[i];
        f->ended = true;
        if (f->used && !f->busy)
            fetch_end(f);
    }
}
