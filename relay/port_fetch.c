/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: due messages coming in, bodies of leased messages, pauses of destinations.
 *  PFT-1  a fetch that loses its connection goes on at the next one with the piece it lacks; pieces were verified one by
 *         one, so nothing is given out twice.
 *  PFT-2  the tag of a canceled fetch stays taken until its last piece has come. */
#include "port_parts.h"

#include <stdlib.h>
#include <string.h>

/* struct port_fetch.scratch */
enum { FETCH_TAG, FETCH_SENT, FETCH_PIECES, FETCH_PAUSED, FETCH_WAITING, FETCH_OWED };
/* A piece that came while the fetch is paused; two at most (WIRE_FETCH_PIECES). */
struct waiting_piece { struct waiting_piece *next; uint32_t len; uint8_t last, error; uint8_t bytes[]; };

/* --- due --- */

void port_want_due(struct port *p, uint32_t count)
{
    uint32_t most = WIRE_DUE_CREDIT_MAX - (p->due_wanted < WIRE_DUE_CREDIT_MAX ? p->due_wanted : WIRE_DUE_CREDIT_MAX);
    p->due_wanted += count < most ? count : most;
    port_soon(p);
}

void due_pump(struct port *p)
{
    uint32_t taken = p->held_due + p->due_asked;
    uint32_t n = taken < WIRE_DUE_CREDIT_MAX ? WIRE_DUE_CREDIT_MAX - taken : 0;
    n = n < p->due_wanted ? n : p->due_wanted;
    if (n == 0)
        return;
    p->due_wanted -= n;
    p->due_asked += n;
    port_say(p, &(struct wire_message){.type = WIRE_WANT_DUE, .number = n});
}

static struct mail *due_mail(const struct wire_message *m)
{
    struct mail *mail;
    if (mail_make(m->qid, m->envelope.bytes, m->envelope.len, NULL, &mail) != ERR_OK)
        return NULL;
    if (mail->envelope.recipient_count != m->marks.len) {
        mail_unref(&mail);
        return NULL;
    }
    memcpy(mail->status, m->marks.bytes, m->marks.len);
    mail->locator = m->locator;
    mail->chunk_count = m->chunk_count;
    mail->attempts = m->number;
    mail->images = m->value < COPIES_MAX ? (uint32_t)m->value : COPIES_MAX;
    return mail;
}

void due_on_message(struct port *p, const struct wire_message *m)
{
    if (p->due_asked == 0 || wire_table_find(&p->held, m->qid)) {
        port_drop_connection(p); /* nobody asked, or what is ours already */
        return;
    }
    p->due_asked--;
    struct mail *mail = due_mail(m);
    struct wire_held *h = mail ? wire_table_add(&p->held, m->qid) : NULL;
    if (!h) { /* no memory: it comes again */
        mail_unref(&mail);
        p->due_wanted++;
        port_say(p, &(struct wire_message){.type = WIRE_RELEASE, .qid = m->qid});
        return;
    }
    h->locator = m->locator;
    h->flags = PORT_HELD_DUE;
    p->held_due++;
    mail->accepted_ms = loop_now_ms(p->loop);
    p->cb.on_due(p->cb.owner, mail);
}

void port_pause_destination(struct port *p, uint64_t destination, uint64_t until_ms)
{
    uint64_t now = loop_now_ms(p->loop), wait = until_ms > now ? until_ms - now : 0;
    if (p->state != PORT_UP)
        return; /* costs an early hand-out */
    port_say(p, &(struct wire_message){.type = WIRE_PAUSE, .value = destination,
                                       .number = wait < UINT32_MAX ? (uint32_t)wait : UINT32_MAX});
}

/* --- fetch --- */

static struct waiting_piece *pieces_of(const struct port_fetch *f)
{
    return (struct waiting_piece *)(uintptr_t)f->scratch[FETCH_WAITING];
}

static void pieces_drop(struct port_fetch *f)
{
    struct waiting_piece *w = pieces_of(f);
    while (w) {
        struct waiting_piece *next = w->next;
        free(w);
        w = next;
    }
    f->scratch[FETCH_WAITING] = 0;
}

void port_fetch(struct port *p, struct port_fetch *f)
{
    memset(f->scratch, 0, sizeof f->scratch);
    f->link = (struct link){0};
    link_push(&p->fetches_waiting, &f->link);
    port_soon(p);
}

static uint32_t fetch_tag(struct port *p)
{
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX; i++)
        if (!p->fetches[i].used)
            return i;
    return UINT32_MAX;
}

/* Leaves its slot or list; nothing of it is kept. */
static void fetch_forget(struct port *p, struct port_fetch *f)
{
    if (link_linked(&f->link))
        link_remove(&f->link);
    else if (f->scratch[FETCH_SENT])
        p->fetches[f->scratch[FETCH_TAG]] = (struct port_fetch_slot){0};
    f->scratch[FETCH_SENT] = 0;
    pieces_drop(f);
}

static void fetch_done(struct port *p, struct port_fetch *f, enum err e)
{
    fetch_forget(p, f);
    port_soon(p);
    f->done(f, e);
}

/* The answer comes in a turn of its own, never from inside port_fetch. */
void fetch_pump(struct port *p)
{
    while (!link_empty(&p->fetches_waiting)) {
        struct port_fetch *f = CONTAINER_OF(p->fetches_waiting.next, struct port_fetch, link);
        uint32_t tag = fetch_tag(p);
        if (tag == UINT32_MAX)
            return;
        if (!wire_table_find(&p->held, f->mail->qid)) {
            fetch_done(p, f, ERR_CANCELED); /* its lease has ended */
            continue;
        }
        link_remove(&f->link);
        p->fetches[tag] = (struct port_fetch_slot){.used = true, .fetch = f};
        f->scratch[FETCH_TAG] = tag;
        f->scratch[FETCH_SENT] = 1;
        port_say(p, &(struct wire_message){.type = WIRE_FETCH, .tag = tag, .qid = f->mail->qid,
                                           .number = (uint32_t)f->scratch[FETCH_PIECES]});
        if (p->state != PORT_UP)
            return;
    }
}

static void fetch_keep(struct port *p, struct port_fetch *f, const struct wire_message *m)
{
    struct waiting_piece *w = malloc(sizeof *w + m->body.len), *tail = pieces_of(f);
    if (!w) {
        port_fetch_cancel(p, f);
        f->done(f, ERR_NO_MEMORY);
        return;
    }
    *w = (struct waiting_piece){.len = m->body.len, .last = (m->flags & WIRE_LAST) != 0, .error = (uint8_t)m->error};
    if (m->body.len)
        memcpy(w->bytes, m->body.bytes, m->body.len);
    while (tail && tail->next)
        tail = tail->next;
    if (tail)
        tail->next = w;
    else
        f->scratch[FETCH_WAITING] = (uint64_t)(uintptr_t)w;
}

/* One piece to its owner. False: the fetch is over, canceled from inside, or paused. */
static bool fetch_give(struct port *p, struct port_fetch *f, const struct wire_message *m)
{
    uint32_t tag = (uint32_t)f->scratch[FETCH_TAG];
    uint32_t connection = p->connection;
    bool last = m->flags & WIRE_LAST;
    bool sent = f->scratch[FETCH_SENT];
    if (m->error != ERR_OK) {
        fetch_done(p, f, m->error);
        return false;
    }
    f->scratch[FETCH_PIECES]++;
    bool more = m->body.len == 0 || f->on_bytes(f, m->body.bytes, m->body.len);
    /* on_bytes may have canceled it */
    if (sent && (p->connection != connection || !p->fetches[tag].used || p->fetches[tag].fetch != f))
        return false;
    if (last) {
        fetch_done(p, f, ERR_OK);
        return false;
    }
    if (!more)
        f->scratch[FETCH_PAUSED] = 1;
    if (more && f->scratch[FETCH_SENT])
        port_say(p, &(struct wire_message){.type = WIRE_FETCH_MORE, .tag = tag, .number = 1});
    else if (!more)
        f->scratch[FETCH_OWED]++;
    return more;
}

void fetch_on_piece(struct port *p, const struct wire_message *m)
{
    struct port_fetch_slot *slot = m->tag < WIRE_FETCHES_MAX ? &p->fetches[m->tag] : NULL;
    if (!slot || !slot->used || (m->error != ERR_OK && !(m->flags & WIRE_LAST))) {
        port_drop_connection(p);
        return;
    }
    if (slot->ended) { /* PFT-2 */
        if (m->flags & WIRE_LAST)
            *slot = (struct port_fetch_slot){0};
        port_soon(p);
        return;
    }
    struct port_fetch *f = slot->fetch;
    if (f->scratch[FETCH_PAUSED])
        fetch_keep(p, f, m);
    else
        (void)fetch_give(p, f, m);
}

void port_fetch_resume(struct port *p, struct port_fetch *f)
{
    if (!f->scratch[FETCH_PAUSED])
        return;
    f->scratch[FETCH_PAUSED] = 0;
    uint32_t owed = (uint32_t)f->scratch[FETCH_OWED];
    f->scratch[FETCH_OWED] = 0;
    if (owed && f->scratch[FETCH_SENT])
        port_say(p, &(struct wire_message){.type = WIRE_FETCH_MORE, .tag = (uint32_t)f->scratch[FETCH_TAG], .number = owed});
    struct waiting_piece *w;
    bool more = true;
    while (more && (w = pieces_of(f)) != NULL) {
        f->scratch[FETCH_WAITING] = (uint64_t)(uintptr_t)w->next;
        struct wire_message m = {.type = WIRE_PIECE, .error = (enum err)w->error, .flags = w->last ? WIRE_LAST : 0,
                                 .body = {w->bytes, w->len}};
        more = fetch_give(p, f, &m);
        free(w);
    }
}

void port_fetch_cancel(struct port *p, struct port_fetch *f)
{
    bool last_is_here = false;
    for (const struct waiting_piece *w = pieces_of(f); w; w = w->next)
        last_is_here = last_is_here || w->last;
    bool sent = f->scratch[FETCH_SENT];
    uint32_t tag = (uint32_t)f->scratch[FETCH_TAG];
    fetch_forget(p, f);
    if (!sent || last_is_here)
        return;
    p->fetches[tag] = (struct port_fetch_slot){.used = true, .ended = true};
    port_say(p, &(struct wire_message){.type = WIRE_FETCH_END, .tag = tag});
}

void fetch_on_lost(struct port *p)
{
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX; i++) {
        struct port_fetch *f = p->fetches[i].fetch;
        bool again = p->fetches[i].used && !p->fetches[i].ended;
        p->fetches[i] = (struct port_fetch_slot){0};
        if (!again)
            continue;
        f->scratch[FETCH_SENT] = f->scratch[FETCH_OWED] = 0;
        pieces_drop(f); /* asked for again */
        link_push_front(&p->fetches_waiting, &f->link); /* PFT-1 */
    }
}

void fetch_fini(struct port *p)
{
    struct link *l;
    while ((l = link_pop(&p->fetches_waiting)) != NULL)
        pieces_drop(CONTAINER_OF(l, struct port_fetch, link));
    for (uint32_t i = 0; i < WIRE_FETCHES_MAX; i++)
        if (p->fetches[i].used && !p->fetches[i].ended)
            pieces_drop(p->fetches[i].fetch);
}
