/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: MARK: results, RETIRE and bounce of one leased message as one group (SPL-2), and the end of its lease. */
#include "wire_server_parts.h"

#include <spoolfs/envelope.h>

void mark_answer(struct wire_server *s, uint32_t connection, const struct wire_message *m, enum err e,
                 enum err bounce_error, struct segment_id bounce_locator)
{
    if (!server_is_current(s, connection))
        return;
    s->marks--;
    server_say(s, &(struct wire_message){.type = WIRE_MARKED, .tag = m->tag, .error = e, .flags = m->flags & WIRE_BOUNCE,
                                         .bounce_error = bounce_error, .qid = m->qid, .bounce = m->bounce,
                                         .locator = bounce_locator});
}

static void mark_held_done(struct server_group *g, enum err e)
{
    struct wire_held *h = wire_table_find(&g->server->held, g->qid);
    if (!h)
        return;
    ASSERT(h->slot > 0);
    h->slot--;
    if (e != ERR_OK && (g->flags & WIRE_ENDS))
        h->flags &= ~(uint32_t)HELD_ENDING;
    if ((e == ERR_OK && (g->flags & WIRE_ENDS)) || (h->flags & HELD_OVER))
        server_end_lease(g->server, g->qid);
}

static void mark_on_done(struct spool_group *group, enum err e)
{
    struct server_group *g = group->owner;
    struct wire_server *s = g->server;
    struct segment_id locator = {0};
    enum err bounce_error = e;
    group_returned(g);
    if (g->flags & WIRE_BOUNCE) {
        locator = g->records[g->message].place.segment;
        if (e != ERR_OK)
            server_id_use(s, g->bounce, false);
        else if (!server_hold(s, g->bounce, locator, server_is_current(s, g->connection) ? 0 : HELD_STALE))
            bounce_error = ERR_NO_MEMORY; /* stored, not leased: due by itself */
    }
    mark_held_done(g, e);
    struct wire_message m = {.tag = g->tag, .flags = g->flags, .qid = g->qid, .bounce = g->bounce};
    mark_answer(s, g->connection, &m, e, bounce_error, locator);
    group_give(g);
}

/* The caller has looked at the ids; the message is held. */
enum err mark_submit(struct wire_server *s, const struct wire_message *m)
{
    struct wire_held *h = wire_table_find(&s->held, m->qid);
    ASSERT(h);
    struct server_group *g = group_take(s, GROUP_MARK, m);
    if (!g)
        return ERR_NO_MEMORY;
    uint32_t n = 0;
    if (m->marks.len)
        g->records[n++] = (struct spool_record){.type = RECORD_MARK, .qid = m->qid, .message_segment = h->locator,
                                                .parts = {{m->marks.bytes, m->marks.len}}};
    if (m->flags & WIRE_RETIRE)
        g->records[n++] = (struct spool_record){.type = RECORD_RETIRE, .qid = m->qid, .message_segment = h->locator};
    if (m->flags & WIRE_BOUNCE) {
        g->message = n;
        g->records[n++] = (struct spool_record){.type = RECORD_MESSAGE, .qid = m->bounce,
                                                .envelope_bytes = m->envelope.len,
                                                .parts = {{m->envelope.bytes, m->envelope.len},
                                                          {m->body.bytes, m->body.len}}};
    }
    g->group.done = mark_on_done;
    enum err e = group_submit(g, n, SPOOL_RESULT);
    if (e != ERR_OK)
        return e;
    if (m->flags & WIRE_BOUNCE)
        server_id_use(s, m->bounce, true);
    h->slot++;
    if (m->flags & WIRE_ENDS)
        h->flags |= HELD_ENDING;
    return ERR_OK;
}

/* The message is not live any more: its marks are done, and so is the bounce that went with them (SPL-2). */
static void mark_is_past(struct wire_server *s, const struct wire_message *m)
{
    struct wire_held *b = m->flags & WIRE_BOUNCE ? wire_table_find(&s->held, m->bounce) : NULL;
    if (b)
        b->flags &= ~(uint32_t)HELD_STALE;
    struct segment_id locator = b ? b->locator : (struct segment_id){0};
    if (m->flags & WIRE_ENDS)
        server_end_lease(s, m->qid);
    mark_answer(s, s->connection, m, ERR_OK, b || !(m->flags & WIRE_BOUNCE) ? ERR_OK : ERR_CANCELED, locator);
}

static bool mark_lawful(struct wire_server *s, const struct wire_message *m, const struct wire_held *h, enum id_state id)
{
    uint32_t count;
    const char *why = NULL;
    if (s->marks >= WIRE_MARKS_MAX)
        why = "it marks beyond its credit";
    else if (!h && !(m->flags & WIRE_AGAIN))
        why = "it marks a message that is not leased to it";
    else if (m->marks.len && mark_check(m->marks.bytes, m->marks.len, &count) != ERR_OK)
        why = "malformed marks";
    else if ((m->flags & WIRE_RETIRE) && !(m->flags & WIRE_ENDS))
        why = "it retires a message and keeps it";
    else if ((m->flags & WIRE_BOUNCE) && (id == ID_UNKNOWN || ((id == ID_USED || id == ID_FOREIGN) && !(m->flags & WIRE_AGAIN))))
        why = "its bounce has a queue id that was not lent to it";
    if (why)
        server_violation(s, why);
    return !why;
}

/* A mark names the segment of its MESSAGE: not before that is certain and held fast by a lease. While the index replays
 * there is no compaction, and the relay's word is good. */
bool mark_must_wait(struct wire_server *s, const struct wire_held *h)
{
    bool certain = (h->flags & HELD_LEASED) || !(h->flags & (HELD_PRESENTED | HELD_UNSURE));
    if ((h->flags & HELD_PRESENTED) && (h->flags & HELD_ASKED) && server_index_usable(s))
        certain = false;
    return !certain || (h->flags & HELD_ENDING);
}

/* Answers what needs no group. */
static bool mark_settled(struct wire_server *s, const struct wire_message *m, const struct wire_held *h, enum id_state id)
{
    bool bounce = m->flags & WIRE_BOUNCE;
    if (!h || (h->flags & HELD_GHOST))
        mark_is_past(s, m);
    else if (bounce && wire_table_find(&s->held, m->bounce))
        mark_is_past(s, m); /* the group was committed: its answer was lost */
    else if (mark_must_wait(s, h))
        mark_answer(s, s->connection, m, ERR_BUSY, ERR_BUSY, (struct segment_id){0});
    else if (bounce && (id == ID_FORGOTTEN || !envelope_fits(m, m->body.len) || !server_can_hold(s))) {
        enum err e = server_can_hold(s) ? ERR_INVALID : ERR_BUSY;
        mark_answer(s, s->connection, m, e, e, (struct segment_id){0});
    } else if (!bounce && !m->marks.len && !(m->flags & WIRE_RETIRE))
        mark_is_past(s, m); /* nothing to write: at most the lease ends */
    else if (bounce && id != ID_FRESH) {
        if (!again_add(s, AGAIN_MARK, m))
            mark_answer(s, s->connection, m, ERR_BUSY, ERR_BUSY, (struct segment_id){0});
    } else
        return false;
    return true;
}

enum verdict server_on_mark(struct wire_server *s, const struct wire_message *m)
{
    const struct wire_held *h = wire_table_find(&s->held, m->qid);
    enum id_state id = m->flags & WIRE_BOUNCE ? server_id_state(s, m->bounce) : ID_FRESH;
    if (!mark_lawful(s, m, h, id))
        return TAKEN;
    s->marks++;
    if (mark_settled(s, m, h, id))
        return TAKEN;
    enum err e = mark_submit(s, m);
    if (e == ERR_BUSY) {
        s->marks--;
        return BLOCKED;
    }
    if (e != ERR_OK)
        mark_answer(s, s->connection, m, e, e, (struct segment_id){0});
    return TAKEN;
}
