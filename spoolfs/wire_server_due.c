/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: handing out what is due, within the relay's credit, leased before it is said; destinations that pause.
 * Invariant SRV-4. One query is under way at a time; when nothing was due the next comes after SERVER_DUE_POLL_MS. */
#include "wire_server_parts.h"

#include <spoolfs/envelope.h>
#include <stdlib.h>
#include <string.h>

/* --- pauses --- */

static struct server_pause *pause_place(struct wire_server *s, uint64_t destination)
{
    struct server_pause *oldest = NULL;
    for (uint32_t i = 0; i < s->pause_count; i++) {
        struct server_pause *p = &s->pauses[i];
        if (p->destination == destination)
            return p;
        if (!oldest || p->age < oldest->age)
            oldest = p;
    }
    return s->pause_count < WIRE_PAUSES_MAX ? &s->pauses[s->pause_count++] : oldest; /* costs an early hand-out */
}

void server_on_pause(struct wire_server *s, const struct wire_message *m)
{
    struct server_pause *p = pause_place(s, m->value);
    *p = (struct server_pause){.destination = m->value, .age = ++s->pause_age,
                               .until_ns = server_now_ns(s) + m->number * SERVER_NS_PER_MS};
    if (m->number == 0)
        s->due_next_ns = 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The query keeps pointing at s->skip: only rewritten while none is out. */
static uint32_t skip_now(struct wire_server *s)
{
    uint64_t now = server_now_ns(s);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->pause_count; i++)
        if (s->pauses[i].until_ns > now)
            s->pauses[kept++] = s->pauses[i];
    s->pause_count = kept;
    for (uint32_t i = 0; i < kept; i++)
        s->skip[i] = s->pauses[i].destination;
    qsort(s->skip, kept, sizeof s->skip[0], by_value);
    return kept;
}

/* --- due --- */

static void statuses_of(const struct index_entry *e, uint32_t recipients, uint8_t status[RECIPIENTS_PER_MESSAGE_MAX])
{
    struct mark_cursor c;
    struct mark mark;
    uint32_t count;
    memset(status, MARK_PENDING, recipients);
    if (!e->marks_bytes || mark_check(e->marks, e->marks_bytes, &count) != ERR_OK)
        return;
    mark_begin(&c, e->marks, e->marks_bytes);
    while (mark_next(&c, &mark))
        if (mark.recipient < recipients)
            status[mark.recipient] = (uint8_t)mark.status;
}

enum handed { HANDED, PASSED, NO_ROOM };

static enum handed due_hand_out(struct wire_server *s, const struct index_entry *e, uint32_t images)
{
    struct envelope envelope;
    uint8_t status[RECIPIENTS_PER_MESSAGE_MAX];
    uint64_t after = spool_due_after_ms(s->pool);
    if (wire_table_find(&s->held, e->qid) || e->state == INDEX_HOLD)
        return PASSED;
    if (envelope_decode(e->envelope, e->envelope_bytes, &envelope) != ERR_OK ||
        envelope.recipient_count > RECIPIENTS_PER_MESSAGE_MAX)
        return PASSED; /* IDX-3 keeps this from happening; the scrub names such a record */
    if (after && envelope.arrival_ms < after)
        return PASSED; /* waits for an absent member, which may hold newer results */
    statuses_of(e, envelope.recipient_count, status);
    struct wire_message m = {.type = WIRE_DUE, .qid = e->qid, .locator = e->place.segment, .number = e->attempts,
                             .value = images, .chunk_count = e->chunk_count, .envelope = {e->envelope, e->envelope_bytes},
                             .marks = {status, envelope.recipient_count}};
    if (!server_can_hold(s) || server_out_room(s) < wire_encoded_bytes(&m))
        return NO_ROOM;
    if (spool_lease(s->pool, e->qid, e->place.segment) != ERR_OK)
        return PASSED; /* its segment is under compaction, or somebody works on it: later */
    if (!server_hold(s, e->qid, e->place.segment, HELD_LEASED)) {
        spool_lease_end(s->pool, e->qid);
        return NO_ROOM;
    }
    server_say(s, &m);
    s->due_credit--;
    return HANDED;
}

/* Good images of each entry; s->due_risk: some have fewer than the pool wants. */
static void due_images_of(struct wire_server *s, const struct index_query *q, uint8_t images[INDEX_QUERY_ENTRIES_MAX])
{
    s->due_risk = false;
    for (uint32_t i = 0; i < q->entry_count; i++) {
        bool below;
        images[i] = (uint8_t)spool_images(s->pool, q->entries[i].place.segment, &below);
        s->due_risk = s->due_risk || below;
    }
}

/* The fewest images first, in the index's order among equals; what no member can serve now comes last. *room_out:
 * nothing stood in the way but the credit. Returns how many were handed out. */
static uint32_t due_hand_out_all(struct wire_server *s, const struct index_query *q, bool *room_out)
{
    uint8_t images[INDEX_QUERY_ENTRIES_MAX];
    uint32_t handed = 0;
    due_images_of(s, q, images);
    for (uint32_t rank = 1; rank <= COPIES_MAX + 1; rank++) {
        uint32_t wanted = rank <= COPIES_MAX ? rank : 0;
        for (uint32_t at = 0; at < q->entry_count && *room_out && s->due_credit > 0; at++) {
            if (images[at] != wanted)
                continue;
            enum handed h = due_hand_out(s, &q->entries[at], wanted);
            handed += h == HANDED;
            *room_out = h != NO_ROOM;
        }
    }
    return handed;
}

static void due_on_done(struct index_query *q, enum err e)
{
    struct wire_server *s = q->owner;
    bool room = true;
    s->due_out = false;
    bool asked_still = s->state == CONNECTION_READY && !s->lost && e == ERR_OK;
    uint32_t handed = asked_still ? due_hand_out_all(s, q, &room) : 0;
    /* All that was found was handed out: there may be more, now. Else wait, or this would turn without end. */
    bool more = asked_still && handed > 0 && (q->more || q->entry_count == q->max || !room);
    uint64_t now = server_now_ns(s);
    s->due_next_ns = more ? 0 : now + SERVER_DUE_POLL_MS * SERVER_NS_PER_MS;
    index_query_fini(q);
}

void due_step(struct wire_server *s)
{
    if (s->due_out || s->due_credit == 0 || !server_index_usable(s))
        return;
    if (server_now_ns(s) < s->due_next_ns) {
        server_wake_at(s, s->due_next_ns);
        return;
    }
    if (server_out_room(s) < WIRE_MESSAGE_MAX)
        return; /* sent first */
    uint32_t max = s->due_credit < SERVER_DUE_BATCH ? s->due_credit : SERVER_DUE_BATCH;
    if (spool_due_after_ms(s->pool) || s->due_risk)
        max = INDEX_QUERY_ENTRIES_MAX; /* most of what is found may have to wait: look past it */
    uint32_t skip_count = skip_now(s);
    s->due = (struct index_query){.kind = INDEX_DUE, .done = due_on_done, .owner = s, .now_ms = pool_clock_ms(s->pool),
                                  .skip = s->skip, .skip_count = skip_count, .max = max};
    s->due_out = true;
    index_query(spool_index(s->pool), &s->due);
}
