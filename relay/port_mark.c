/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: marks from port_mark to their acknowledgement. Invariant PRT-2 (port.h).
 *
 *   unsent [port_mark] -> sent [mark_pump] -> acknowledged [MARKED]
 *     ^___ connection lost, or refused for now ___|
 *
 * A message counts as held until the mark that ends its lease is acknowledged, so that it is presented with it. */
#include "port_parts.h"

#include <stdlib.h>
#include <string.h>

#define MARK_REASON_SHORT 64u /* of reasons when a row of marks with full ones is larger than a message */

static struct port_mark_kept *kept_at(struct link *l)
{
    return CONTAINER_OF(l, struct port_mark_kept, link);
}

void mark_init(struct port *p)
{
    link_init(&p->marks_unsent);
    link_init(&p->marks_sent);
    link_init(&p->marks_spare);
    for (uint32_t i = WIRE_MARKS_MAX; i > 0; i--)
        p->mark_free[p->mark_free_count++] = (uint16_t)(i - 1);
}

void mark_fini(struct port *p)
{
    struct link *l;
    while ((l = link_pop(&p->marks_unsent)) != NULL || (l = link_pop(&p->marks_sent)) != NULL ||
           (l = link_pop(&p->marks_spare)) != NULL) {
        struct port_mark_kept *k = kept_at(l);
        free(k->heap);
        mail_unref(&k->bounce);
        free(k);
    }
}

static struct port_mark_kept *kept_take(struct port *p)
{
    struct link *l = link_pop(&p->marks_spare);
    struct port_mark_kept *k = l ? kept_at(l) : malloc(sizeof *k);
    if (!k)
        return NULL;
    memset(k, 0, offsetof(struct port_mark_kept, inline_bytes));
    k->bounce = NULL;
    return k;
}

static void kept_give(struct port *p, struct port_mark_kept *k)
{
    free(k->heap);
    k->heap = NULL;
    link_push_front(&p->marks_spare, &k->link);
}

/* The row of marks: full reasons if they fit a message, else short ones. */
static enum err kept_encode(struct port_mark_kept *k, const struct mark *marks, uint32_t count)
{
    if (count == 0)
        return ERR_OK;
    if (mark_encode(k->inline_bytes, PORT_MARK_INLINE, marks, count, &k->len) == ERR_OK)
        return ERR_OK;
    uint32_t capacity = WIRE_PAYLOAD_MAX / 2;
    k->heap = malloc(capacity);
    struct mark *brief = malloc(count * sizeof *brief);
    enum err e = k->heap && brief ? mark_encode(k->heap, capacity, marks, count, &k->len) : ERR_NO_MEMORY;
    if (e != ERR_OK && e != ERR_NO_MEMORY) {
        memcpy(brief, marks, count * sizeof *brief);
        for (uint32_t i = 0; i < count; i++)
            brief[i].reason_len = brief[i].reason_len < MARK_REASON_SHORT ? brief[i].reason_len : MARK_REASON_SHORT;
        e = mark_encode(k->heap, capacity, brief, count, &k->len);
    }
    free(brief);
    if (e == ERR_OK) {
        uint8_t *smaller = realloc(k->heap, k->len);
        k->heap = smaller ? smaller : k->heap;
    }
    return e;
}

static void kept_queue(struct port *p, struct port_mark_kept *k, struct wire_held *h)
{
    k->tag = p->mark_free[--p->mark_free_count];
    p->mark_of[k->tag] = k;
    if (k->flags & WIRE_ENDS)
        h->flags |= PORT_HELD_ENDING;
    link_push(&p->marks_unsent, &k->link);
    port_soon(p);
}

static enum err mark_lawful(const struct port_mark *m, const struct wire_held *h)
{
    if (!h || (h->flags & PORT_HELD_ENDING))
        return ERR_NOT_FOUND; /* not ours, or not any more */
    if (m->bounce && (m->bounce->chunk_count || m->bounce->body_bytes > BODY_INLINE_MAX ||
                      m->bounce->envelope_len > ENVELOPE_BYTES_MAX / 2))
        return ERR_TOO_LARGE;
    return ERR_OK;
}

enum err port_mark(struct port *p, const struct port_mark *m)
{
    struct wire_held *h = wire_table_find(&p->held, m->qid);
    enum err e = mark_lawful(m, h);
    if (e != ERR_OK)
        return e;
    if (p->mark_free_count == 0)
        return port_busy(p);
    struct port_mark_kept *k = kept_take(p);
    if (!k)
        return ERR_NO_MEMORY;
    k->qid = m->qid;
    k->flags = (uint8_t)((m->retire ? WIRE_RETIRE : 0) | (m->retire || m->release ? WIRE_ENDS : 0) |
                         (m->bounce ? WIRE_BOUNCE : 0));
    k->bounce_done = m->bounce_done;
    k->owner = m->owner;
    e = kept_encode(k, m->marks, m->retire ? 0 : m->count); /* RETIRE says it all */
    if (e != ERR_OK) {
        kept_give(p, k);
        return e;
    }
    k->bounce = m->bounce; /* its reference goes with the mark and comes back with bounce_done */
    kept_queue(p, k, h);
    return ERR_OK;
}

void mark_retire_unwanted(struct port *p, struct queue_id qid, struct segment_id locator)
{
    struct wire_held *h = wire_table_find(&p->held, qid);
    struct port_mark_kept *k = p->mark_free_count > 0 ? kept_take(p) : NULL;
    (void)locator;
    if (!k) { /* then it is delivered, and the sender's second copy too */
        wire_table_remove(&p->held, qid);
        port_say(p, &(struct wire_message){.type = WIRE_RELEASE, .qid = qid});
        return;
    }
    k->qid = qid;
    k->flags = WIRE_RETIRE | WIRE_ENDS;
    kept_queue(p, k, h);
}

/* Marks of one message keep their order: one that is refused goes back before those that came after it. */
static void mark_refused(struct port *p, struct port_mark_kept *k)
{
    k->flags |= WIRE_AGAIN;
    k->retry_ms = loop_now_ms(p->loop) + PORT_MARK_RETRY_MS;
    link_remove(&k->link);
    link_push_front(&p->marks_unsent, &k->link);
    port_want_tick(p);
}

static void mark_end(struct port *p, struct port_mark_kept *k)
{
    link_remove(&k->link);
    p->mark_of[k->tag] = NULL;
    p->mark_free[p->mark_free_count++] = (uint16_t)k->tag;
    port_made_room(p);
}

static void held_end(struct port *p, struct queue_id qid)
{
    const struct wire_held *h = wire_table_find(&p->held, qid);
    if (h && (h->flags & PORT_HELD_DUE)) {
        p->held_due--;
        port_made_room(p);
    }
    wire_table_remove(&p->held, qid);
}

static void bounce_end(struct port *p, struct port_mark_kept *k, enum err e, struct segment_id locator)
{
    struct mail *bounce = k->bounce;
    k->bounce = NULL;
    if (e == ERR_OK) {
        struct wire_held *h = wire_table_add(&p->held, bounce->qid);
        if (h)
            h->locator = locator;
        else
            port_say(p, &(struct wire_message){.type = WIRE_RELEASE, .qid = bounce->qid});
        bounce->locator = locator;
        e = h ? ERR_OK : ERR_NO_MEMORY;
    }
    if (k->bounce_done)
        k->bounce_done(k->owner, bounce, e);
    else
        mail_unref(&bounce);
}

/* A mark of the same message that waits to be tried again: the one that ends the lease must not overtake it. */
static bool refused_before(struct port *p, const struct port_mark_kept *k)
{
    LINK_EACH(l, &p->marks_unsent) {
        const struct port_mark_kept *before = kept_at(l);
        if (before == k || before->retry_ms == 0)
            return false; /* refused ones stand at the front */
        if (queue_id_equal(before->qid, k->qid))
            return true;
    }
    return false;
}

bool mark_pump(struct port *p, bool again_only)
{
    uint64_t now = again_only || link_empty(&p->marks_unsent) ? 0 : loop_now_ms(p->loop);
    LINK_EACH_SAFE(l, next, &p->marks_unsent) {
        struct port_mark_kept *k = kept_at(l);
        if (again_only && !(k->flags & WIRE_AGAIN))
            return true;
        if (!again_only && k->retry_ms > now)
            continue;
        const struct wire_held *h = wire_table_find(&p->held, k->qid);
        if (!h) { /* refused for a while, and overtaken by the mark that ended the lease */
            mark_end(p, k);
            if (k->bounce)
                bounce_end(p, k, ERR_CANCELED, (struct segment_id){0});
            kept_give(p, k);
            p->out_full = true;
            return false; /* the list may have changed: the next turn */
        }
        if ((k->flags & WIRE_ENDS) && refused_before(p, k))
            continue;
        struct wire_message m = {.type = WIRE_MARK, .flags = k->flags, .tag = k->tag, .qid = k->qid, .locator = h->locator,
                                 .marks = {k->heap ? k->heap : k->inline_bytes, k->len}};
        if (k->flags & WIRE_BOUNCE) {
            m.bounce = k->bounce->qid;
            m.envelope = (struct wire_bytes){k->bounce->envelope_bytes, k->bounce->envelope_len};
            m.body = (struct wire_bytes){k->bounce->body, (uint32_t)k->bounce->body_bytes};
            m.flags |= k->bounce->qid.incarnation != p->incarnation ? WIRE_AGAIN : 0;
        }
        if (!port_try_say(p, &m))
            return false;
        link_remove(l);
        link_push(&p->marks_sent, l);
    }
    return true;
}

void mark_on_answer(struct port *p, const struct wire_message *m)
{
    struct port_mark_kept *k = m->tag < WIRE_MARKS_MAX ? p->mark_of[m->tag] : NULL;
    if (!k || !queue_id_equal(k->qid, m->qid) || !(m->flags & WIRE_BOUNCE) != !k->bounce) {
        port_drop_connection(p);
        return;
    }
    bool for_good = err_class(m->error) == ERR_CLASS_INVALID;
    if (m->error != ERR_OK && !for_good) {
        mark_refused(p, k);
        return;
    }
    mark_end(p, k);
    if (k->flags & WIRE_ENDS)
        held_end(p, k->qid);
    if (for_good && (k->flags & WIRE_ENDS)) /* nothing was written: the message goes back to the queue and comes again when due */
        port_say(p, &(struct wire_message){.type = WIRE_RELEASE, .qid = k->qid});
    if (k->bounce)
        bounce_end(p, k, for_good ? m->error : m->bounce_error, m->locator);
    kept_give(p, k);
}

void mark_on_lost(struct port *p)
{
    while (!link_empty(&p->marks_sent)) {
        struct link *l = p->marks_sent.prev;
        link_remove(l);
        kept_at(l)->flags |= WIRE_AGAIN;
        link_push_front(&p->marks_unsent, l);
    }
}

bool mark_tick(struct port *p, uint64_t now_ms)
{
    bool waiting = false;
    LINK_EACH(l, &p->marks_unsent)
        waiting = waiting || kept_at(l)->retry_ms > now_ms;
    return waiting || !link_empty(&p->marks_unsent);
}
