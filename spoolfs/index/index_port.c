/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the doors of index.h, the ring behind index_feed, and the way back through index_dispatch. Invariants: IDX-4,
 * PORT-1, PORT-2. */
#include "port.h"
#include "result.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct command) <= INDEX_FEED_OVERHEAD, "what index_room promises");
_Static_assert((INDEX_RING_BYTES & (INDEX_RING_BYTES - 1)) == 0, "ring.h");

enum err port_init(struct index *x, const struct index_callbacks *cb)
{
    x->cb = *cb;
    x->event_fd = -1;
    link_init(&x->asked);
    link_init(&x->answered);
    link_init(&x->out.segments);
    pthread_mutex_init(&x->out.lock, NULL);
    return ring_init(&x->ring, INDEX_RING_BYTES);
}

void port_fini(struct index *x)
{
    for (struct link *l; (l = link_pop(&x->out.segments));)
        free(CONTAINER_OF(l, struct segment_event, link));
    map_free(&x->out.segment_of);
    pthread_mutex_destroy(&x->out.lock);
    ring_fini(&x->ring);
}

/* --- feed: the engine's thread writes --- */

static enum err port_feed(struct index *x, const struct command *cmd, const void *payload, bool now)
{
    if (ring_room(&x->ring) < sizeof *cmd + cmd->payload_bytes)
        return ERR_INDEX_LAG;
    uint64_t at = ring_writing(&x->ring);
    ring_copy_in(&x->ring, &at, cmd, sizeof *cmd);
    ring_copy_in(&x->ring, &at, payload, cmd->payload_bytes);
    ring_publish(&x->ring, at);
    x->wake(x, now);
    return ERR_OK;
}

enum err index_feed(struct index *x, const struct index_record *r)
{
    ASSERT(r->type >= RECORD_MESSAGE && r->type <= RECORD_STATE && r->payload_bytes < PENDING_BYTES_MAX / 2);
    struct command cmd = {.kind = COMMAND_RECORD, .payload_bytes = r->payload_bytes, .record = *r};
    return port_feed(x, &cmd, r->payload, false);
}

enum err index_watermark(struct index *x, struct segment_id segment, uint64_t offset, struct segment_id moved_from)
{
    struct command cmd = {.kind = COMMAND_WATERMARK, .offset = offset};
    cmd.record.place.segment = segment;
    cmd.record.message_segment = moved_from;
    return port_feed(x, &cmd, NULL, false);
}

uint64_t index_kept_by(struct index *x)
{
    pthread_mutex_lock(&x->out.lock);
    uint64_t incarnation = x->out.kept_by;
    pthread_mutex_unlock(&x->out.lock);
    return incarnation;
}

enum err index_freed(struct index *x, const struct segment_id *segments, uint32_t count)
{
    struct command cmd = {.kind = COMMAND_FREED, .payload_bytes = count * (uint32_t)sizeof *segments};
    return port_feed(x, &cmd, segments, false);
}

enum err index_abort(struct index *x, struct queue_id qid)
{
    struct command cmd = {.kind = COMMAND_ABORT, .record.qid = qid};
    return port_feed(x, &cmd, NULL, false);
}

uint32_t index_room(struct index *x)
{
    return ring_room(&x->ring);
}

bool index_full(const struct index *x)
{
    return atomic_load_explicit(&x->full, memory_order_relaxed);
}

enum err index_replay_begin(struct index *x, bool rebuild)
{
    struct command cmd = {.kind = COMMAND_REPLAY_BEGIN, .flag = rebuild};
    return port_feed(x, &cmd, NULL, true);
}

enum err index_replay_end(struct index *x)
{
    struct command cmd = {.kind = COMMAND_REPLAY_END};
    return port_feed(x, &cmd, NULL, true);
}

enum err index_lease(struct index *x, struct queue_id qid, bool leased)
{
    struct command cmd = {.kind = COMMAND_LEASE, .record.qid = qid, .flag = leased};
    return port_feed(x, &cmd, NULL, false);
}

enum err index_incarnation(struct index *x, uint64_t incarnation, bool keep_chunks)
{
    struct command cmd = {.kind = COMMAND_INCARNATION, .offset = incarnation, .flag = keep_chunks};
    return port_feed(x, &cmd, NULL, false);
}

/* --- drain: the owner of the store reads --- */

static void port_look_at_room(struct index *x)
{
    bool above = ring_used(&x->ring) > INDEX_RING_BYTES / 2;
    if (x->above_half && !above) {
        pthread_mutex_lock(&x->out.lock);
        x->out.room = true;
        pthread_mutex_unlock(&x->out.lock);
    }
    x->above_half = above;
}

enum err port_drain(struct index *x)
{
    uint64_t end = ring_reading(&x->ring) + ring_used(&x->ring);
    enum err e = ERR_OK;
    x->above_half = x->above_half || ring_used(&x->ring) > INDEX_RING_BYTES / 2;
    while (ring_reading(&x->ring) < end && e == ERR_OK) {
        struct command cmd;
        uint64_t at = ring_reading(&x->ring);
        ring_copy_out(&x->ring, &at, &cmd, sizeof cmd);
        uint8_t *payload = core_payload(&x->core, cmd.payload_bytes);
        if (!payload) {
            e = core_flush(&x->core);
            payload = core_payload(&x->core, cmd.payload_bytes);
        }
        if (e != ERR_OK)
            break;
        ring_copy_out(&x->ring, &at, payload, cmd.payload_bytes);
        e = core_take(&x->core, &cmd);
        if (e == ERR_OK)
            ring_release(&x->ring, at);
        if (e == ERR_OK && core_enough(&x->core))
            e = core_flush(&x->core);
        port_look_at_room(x);
    }
    return e;
}

/* --- ask --- */

void index_query(struct index *x, struct index_query *q)
{
    q->link = (struct link){0};
    q->result = NULL;
    q->entry_count = q->domain_count = 0;
    q->more = false;
    pthread_mutex_lock(&x->out.lock);
    link_push(&x->asked, &q->link);
    pthread_mutex_unlock(&x->out.lock);
    x->wake(x, true);
}

void index_query_fini(struct index_query *q)
{
    result_free(q->result);
    q->result = NULL;
    q->entries = NULL;
    q->live = NULL;
    q->chunks = NULL;
    q->domains = NULL;
    q->entry_count = q->domain_count = 0;
}

/* Needs nothing that is still pending: then what is delivered at once never reaches the store. */
static bool query_waits(const struct core *c, const struct index_query *q)
{
    if (!core_pending(c))
        return false;
    switch (q->kind) {
    case INDEX_LOOKUP:
    case INDEX_CHUNKS:
        return core_pending_about(c, q->qid);
    case INDEX_LIVE:
        return core_pending_about_any(c, q->qids, q->qid_count);
    case INDEX_DUE:
        return core_pending_free(c);
    default:
        return true;
    }
}

static struct index_query *port_next(struct index *x)
{
    pthread_mutex_lock(&x->out.lock);
    struct link *l = link_empty(&x->asked) ? NULL : x->asked.next;
    pthread_mutex_unlock(&x->out.lock);
    return l ? CONTAINER_OF(l, struct index_query, link) : NULL;
}

static void port_answered(struct index *x, struct index_query *q)
{
    pthread_mutex_lock(&x->out.lock);
    link_remove(&q->link);
    link_push(&x->answered, &q->link);
    pthread_mutex_unlock(&x->out.lock);
}

void port_answer_possible(struct index *x)
{
    struct index_query *found;
    bool all_taken = ring_used(&x->ring) == 0; /* PORT-1 */
    do {
        found = NULL;
        pthread_mutex_lock(&x->out.lock);
        LINK_EACH (l, &x->asked) {
            struct index_query *q = CONTAINER_OF(l, struct index_query, link);
            if (q->kind == INDEX_SUMMARY || (all_taken && !query_waits(&x->core, q))) {
                found = q;
                break;
            }
        }
        pthread_mutex_unlock(&x->out.lock);
        if (found) { /* nobody else takes from `asked` */
            found->answer = core_answer(&x->core, found);
            port_answered(x, found);
        }
    } while (found);
}

enum err port_answer(struct index *x)
{
    for (struct index_query *q; (q = port_next(x));) {
        enum err e = port_drain(x);
        if (e == ERR_OK && query_waits(&x->core, q))
            e = core_flush(&x->core);
        if (e != ERR_OK)
            return e;
        q->answer = core_answer(&x->core, q);
        port_answered(x, q);
    }
    return ERR_OK;
}

/* --- out --- */

void out_segment(struct out *o, struct segment_event *ev)
{
    struct segment_id id = ev->segment.id;
    ev->link = (struct link){0};
    pthread_mutex_lock(&o->lock);
    struct segment_event *old = map_remove(&o->segment_of, id.incarnation, id.counter);
    if (old) {
        link_remove(&old->link);
        free(old);
    }
    enum err e = map_put(&o->segment_of, id.incarnation, id.counter, ev);
    link_push(&o->segments, &ev->link); /* without memory for the map: told twice, which does no harm */
    (void)e;
    pthread_mutex_unlock(&o->lock);
}

void out_conflict(struct out *o, struct queue_id qid, struct place second)
{
    pthread_mutex_lock(&o->lock);
    if (o->conflict_count < CONFLICTS_MAX)
        o->conflicts[o->conflict_count++] = (struct conflict){qid, second};
    pthread_mutex_unlock(&o->lock);
}

void out_damage(struct out *o, const char *what)
{
    pthread_mutex_lock(&o->lock);
    o->damaged = true;
    snprintf(o->damage, sizeof o->damage, "%s", what);
    pthread_mutex_unlock(&o->lock);
}

void port_opened(struct index *x, enum err e)
{
    pthread_mutex_lock(&x->out.lock);
    x->out.opened = true;
    x->out.open_error = e;
    x->out.kept_by = e == ERR_OK ? x->core.kept_by : 0;
    pthread_mutex_unlock(&x->out.lock);
}

bool port_asked(struct index *x)
{
    return port_next(x) != NULL;
}

bool port_has_news(struct index *x)
{
    struct out *o = &x->out;
    pthread_mutex_lock(&o->lock);
    bool news = !link_empty(&x->answered) || !link_empty(&o->segments) || o->conflict_count || o->room || o->damaged ||
                (o->opened && !o->open_told);
    pthread_mutex_unlock(&o->lock);
    return news;
}

/* --- dispatch --- */

/* Takes the whole of `from`, so that what callbacks cause comes with the next dispatch. */
static void link_take(struct link *from, struct link *to)
{
    link_init(to);
    for (struct link *l; (l = link_pop(from));)
        link_push(to, l);
}

struct news {
    struct link segments, answered;
    struct conflict conflicts[CONFLICTS_MAX];
    uint32_t conflict_count;
    bool opened, room, damaged;
    enum err open_error;
    char damage[80];
};

static void news_take(struct index *x, struct news *n)
{
    struct out *o = &x->out;
    pthread_mutex_lock(&o->lock);
    n->opened = o->opened && !o->open_told;
    o->open_told = o->opened;
    n->open_error = o->open_error;
    n->room = o->room;
    n->damaged = o->damaged;
    memcpy(n->damage, o->damage, sizeof n->damage);
    n->conflict_count = o->conflict_count;
    memcpy(n->conflicts, o->conflicts, o->conflict_count * sizeof *o->conflicts);
    o->room = o->damaged = false;
    o->conflict_count = 0;
    link_take(&o->segments, &n->segments);
    map_clear(&o->segment_of);
    link_take(&x->answered, &n->answered);
    pthread_mutex_unlock(&o->lock);
}

uint32_t index_dispatch(struct index *x)
{
    struct news n;
    uint32_t ran = 0;
    if (x->work)
        x->work(x);
    news_take(x, &n);
    for (struct link *l; (l = link_pop(&n.segments)); ran++) { /* before on_open: it looks at them all */
        struct segment_event *ev = CONTAINER_OF(l, struct segment_event, link);
        x->cb.on_segment(x->cb.owner, &ev->segment);
        free(ev);
    }
    if (n.opened) {
        x->cb.on_open(x->cb.owner, n.open_error);
        ran++;
    }
    for (uint32_t i = 0; i < n.conflict_count; i++, ran++)
        x->cb.on_conflict(x->cb.owner, n.conflicts[i].qid, n.conflicts[i].second);
    if (n.damaged) {
        x->cb.on_damage(x->cb.owner, n.damage);
        ran++;
    }
    for (struct link *l; (l = link_pop(&n.answered)); ran++) {
        struct index_query *q = CONTAINER_OF(l, struct index_query, link);
        q->done(q, q->answer);
    }
    if (n.room) {
        x->cb.on_room(x->cb.owner);
        ran++;
    }
    return ran;
}

int index_event_fd(struct index *x)
{
    return x->event_fd;
}

void index_close(struct index **index)
{
    struct index *x = *index;
    *index = NULL;
    if (!x)
        return;
    x->stop(x);
    for (struct link *l; (l = link_pop(&x->asked));) /* never done; what they hold is theirs, the result is ours */
        index_query_fini(CONTAINER_OF(l, struct index_query, link));
    for (struct link *l; (l = link_pop(&x->answered));)
        index_query_fini(CONTAINER_OF(l, struct index_query, link));
    port_fini(x);
    free(x);
}
