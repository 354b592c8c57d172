/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the queue ids lent to relays and the table of messages leased to one. Invariant SRV-1 rests on both.
 *
 *  IDS-1  an id of this run is taken for a MESSAGE at most once; a group that failed gives it back.
 *  IDS-2  a held message has an engine lease, or is tried again until it has (HELD_LEASED), or is a ghost. */
#include "wire_server_parts.h"

#include <stdlib.h>

#define HELD_RETRY_MS 20u

/* --- ids --- */

void server_lend(struct wire_server *s, uint32_t count)
{
    if (s->lent_last.counter + 2 * WIRE_QUEUE_IDS_LENT > QUEUE_ID_COUNTER_MAX) {
        server_log(s, "queue ids of this mount are used up: restart the spool");
        return;
    }
    struct server_range *r = calloc(1, sizeof *r);
    if (!r)
        return; /* the relay asks again */
    struct queue_id first = spool_lend_queue_ids(s->pool, count);
    *r = (struct server_range){.first = first.counter, .count = count};
    if (s->range_count == SERVER_RANGES_MAX) {
        free(s->ranges[s->range_first]);
        s->range_first = (s->range_first + 1) % SERVER_RANGES_MAX;
        s->range_count--;
    }
    s->ranges[(s->range_first + s->range_count++) % SERVER_RANGES_MAX] = r;
    s->incarnation = first.incarnation;
    s->lent_last = (struct queue_id){first.incarnation, first.counter + count - 1};
}

static struct server_range *range_of(const struct wire_server *s, struct queue_id qid)
{
    uint32_t low = 0, high = s->range_count;
    while (low < high) { /* the last range that begins at or below it */
        uint32_t middle = (low + high) / 2;
        if (s->ranges[(s->range_first + middle) % SERVER_RANGES_MAX]->first <= qid.counter)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    struct server_range *r = s->ranges[(s->range_first + low - 1) % SERVER_RANGES_MAX];
    return qid.counter < r->first + r->count ? r : NULL;
}

enum id_state server_id_state(const struct wire_server *s, struct queue_id qid)
{
    if (qid.incarnation != s->incarnation)
        return ID_FOREIGN;
    const struct server_range *r = range_of(s, qid);
    if (!r && s->range_count == SERVER_RANGES_MAX && qid.counter < s->ranges[s->range_first]->first)
        return ID_FORGOTTEN;
    if (!r)
        return ID_UNKNOWN;
    uint64_t at = qid.counter - r->first;
    return r->used[at / 64] >> at % 64 & 1 ? ID_USED : ID_FRESH;
}

void server_id_use(struct wire_server *s, struct queue_id qid, bool used)
{
    struct server_range *r = qid.incarnation == s->incarnation ? range_of(s, qid) : NULL;
    if (!r)
        return;
    uint64_t at = qid.counter - r->first, bit = UINT64_C(1) << at % 64;
    r->used[at / 64] = used ? r->used[at / 64] | bit : r->used[at / 64] & ~bit;
}

/* --- held --- */

/* Everything under way may end up held: its place is kept (P7). */
bool server_can_hold(const struct wire_server *s)
{
    return s->held.count + s->groups_out + 1 < LEASES_MAX;
}

static void held_lease(struct wire_server *s, struct wire_held *h)
{
    enum err e = spool_lease(s->pool, h->qid, h->locator);
    if (e == ERR_OK || e == ERR_EXISTS) {
        h->flags = (h->flags & ~(uint32_t)HELD_UNSURE) | HELD_LEASED;
        return;
    }
    if (e == ERR_NOT_FOUND)
        h->flags |= HELD_UNSURE; /* its segment is gone: the index knows where it is now, if it is */
    s->unleased = true; /* tried again by server_held_step */
}

/* A segment under compaction is no place to be leased in, and afterwards the message lies elsewhere: ask the index. */
static void held_retry(struct wire_server *s, struct wire_held *h)
{
    struct wire_message m = {.type = WIRE_HELD, .qid = h->qid, .locator = h->locator};
    if (!(h->flags & (HELD_PRESENTED | HELD_UNSURE)))
        held_lease(s, h);
    else if (!(h->flags & HELD_ASKED) && again_add(s, AGAIN_VERIFY, &m))
        h->flags |= HELD_ASKED;
    s->unleased = s->unleased || !(h->flags & HELD_LEASED);
}

bool server_hold(struct wire_server *s, struct queue_id qid, struct segment_id locator, uint32_t flags)
{
    struct wire_held *h = wire_table_add(&s->held, qid);
    if (!h)
        return false;
    bool moved = !segment_id_equal(h->locator, locator);
    if ((h->flags & HELD_LEASED) && moved)
        spool_lease_end(s->pool, qid);
    if (moved)
        h->flags &= ~(uint32_t)(HELD_LEASED | HELD_UNSURE);
    h->locator = locator;
    h->flags = (h->flags & ~(uint32_t)(HELD_STALE | HELD_GHOST)) | flags;
    if (!(h->flags & (HELD_LEASED | HELD_GHOST)))
        held_lease(s, h);
    return true;
}

void server_let_go(struct wire_server *s, struct queue_id qid)
{
    const struct wire_held *h = wire_table_find(&s->held, qid);
    if (!h)
        return;
    spool_lease_end(s->pool, qid);
    wire_table_remove(&s->held, qid);
}

/* Groups of one message may be committed in any order: its lease ends with the last of them. */
void server_end_lease(struct wire_server *s, struct queue_id qid)
{
    struct wire_held *h = wire_table_find(&s->held, qid);
    if (!h)
        return;
    h->flags |= HELD_OVER;
    if (h->slot == 0)
        server_let_go(s, qid);
}

void server_held_stale(struct wire_server *s)
{
    WIRE_TABLE_EACH(h, &s->held)
        h->flags = (h->flags & ~(uint32_t)HELD_ASKED) | HELD_STALE; /* its lookup ends with the connection */
    s->grace_until_ns = server_now_ns(s) + WIRE_SERVER_GRACE_MS * SERVER_NS_PER_MS;
    server_wake_at(s, s->grace_until_ns);
}

void server_held_drop_stale(struct wire_server *s)
{
    WIRE_TABLE_EACH(h, &s->held) {
        if ((h->flags & HELD_STALE) && h->slot > 0)
            h->flags |= HELD_OVER;
        else if (h->flags & HELD_STALE)
            spool_lease_end(s->pool, h->qid);
    }
    /* removing shifts what is behind the hole: look at the same place again */
    for (uint32_t i = 0; i < s->held.places;) {
        struct wire_held *h = &s->held.at[i];
        if (!queue_id_is_none(h->qid) && (h->flags & HELD_STALE) && h->slot == 0)
            wire_table_remove(&s->held, h->qid);
        else
            i++;
    }
    s->grace_until_ns = 0;
}

static void held_presented(struct wire_server *s, struct queue_id qid, struct segment_id locator)
{
    struct wire_held *h = wire_table_find(&s->held, qid);
    if (h) {
        h->flags &= ~(uint32_t)(HELD_STALE | HELD_ENDING);
        if (h->flags & (HELD_RECALLED | HELD_GHOST))
            server_say(s, &(struct wire_message){.type = WIRE_RECALL, .qid = qid});
        return;
    }
    if (!server_can_hold(s) || !server_hold(s, qid, locator, HELD_PRESENTED | HELD_ASKED)) {
        server_violation(s, "it holds more than can be leased");
        return;
    }
    struct wire_message m = {.type = WIRE_HELD, .qid = qid, .locator = locator};
    if (!again_add(s, AGAIN_VERIFY, &m))
        server_violation(s, "no memory for what it presents");
}

void server_on_held(struct wire_server *s, const struct wire_message *m)
{
    if (s->state != CONNECTION_PRESENTING) {
        server_violation(s, "it presents after it has presented");
        return;
    }
    for (uint32_t i = 0; i < m->marks.len / WIRE_HELD_BYTES && s->state == CONNECTION_PRESENTING; i++) {
        struct queue_id qid;
        struct segment_id locator;
        wire_held_get(m->marks.bytes, i, &qid, &locator);
        if (queue_id_is_none(qid) || qid.counter > QUEUE_ID_COUNTER_MAX)
            server_violation(s, "it holds what has no queue id");
        else
            held_presented(s, qid, locator);
    }
}

void server_held_step(struct wire_server *s)
{
    uint64_t now = server_now_ns(s);
    if (s->grace_until_ns && now >= s->grace_until_ns && s->state == CONNECTION_NONE) {
        if (s->held.count)
            server_log(s, "no relay has come back: %u leases end", s->held.count);
        server_held_drop_stale(s);
    }
    if (s->grace_until_ns && s->state == CONNECTION_NONE)
        server_wake_at(s, s->grace_until_ns);
    if (!s->unleased)
        return;
    server_wake_at(s, s->unleased_retry_ns);
    if (now < s->unleased_retry_ns)
        return;
    s->unleased_retry_ns = now + HELD_RETRY_MS * SERVER_NS_PER_MS;
    s->unleased = false;
    WIRE_TABLE_EACH(h, &s->held)
        if (!(h->flags & (HELD_LEASED | HELD_GHOST)))
            held_retry(s, h);
}

bool wire_server_held(const struct wire_server *s, struct queue_id qid)
{
    return wire_table_find(&s->held, qid) != NULL;
}

void wire_server_recall(struct wire_server *s, struct queue_id qid)
{
    struct wire_held *h = wire_table_find(&s->held, qid);
    if (!h)
        return;
    h->flags |= HELD_RECALLED; /* said again when it is presented again */
    if (s->state == CONNECTION_PRESENTING || s->state == CONNECTION_READY)
        server_say(s, &(struct wire_message){.type = WIRE_RECALL, .qid = qid});
}
