/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: telling what is lost by name. Bytes that no image has become reads of the messages that have bytes there, and a
 * message whose record no image has becomes one event with its queue id, sender and recipients, as far as the index knows.
 *
 *   lost_range [rebuild, scrub] -> the index is listed page by page; each record with bytes there is read -> ERR_LOST
 *   lost_members [roster; and once in each mount] -> the same for all segments of which members given up had the last image
 *   lost_message [every read that ends so] -> looked up -> record_lost
 *
 * Invariants: LST-1: a message is told and counted once in a mount; of more than LOST_SAID_MAX the oldest may be told again.
 * LST-2: without an index, or where there is no room to wait, what is known is told at once: the queue id, or the segment and
 * the bytes. LST-3: only what was read and is nowhere counts as lost: a frame may be bad everywhere and a record in it good.
 * LST-4: what lay on members that were given up is told when they are, and by the segment where an index that was made anew
 * since cannot know what was in it. */
#include "lost_said.h"
#include "upkeep_parts.h"

#include <spoolfs/envelope.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOST_WAITING_MAX 64u     /* ranges */
#define LOST_MESSAGES_MAX 1024u  /* waiting; a listing rests at half of it, so that reads beside it find room */
#define LOST_PAGE 256u
#define LOST_CHUNKS 256u         /* places of CHUNKs asked for at a time */
#define LOST_NAMES_BYTES 150u    /* of one event: its evidence is one line for people */

struct lost_range { struct segment_id segment; uint64_t from, to; }; /* no segment: all that members given up had */

struct lost {
    struct pool *pool;
    struct lost_range ranges[LOST_WAITING_MAX];
    struct queue_id messages[LOST_MESSAGES_MAX];
    uint32_t range_count, message_count;
    struct lost_said said;
    bool listing, looking;       /* a range, a message is under way */
    bool resting;                /* the listing, until messages have been told */
    struct index_query list, chunks, lookup;
    struct spool_read read;
    uint32_t at;                 /* entry of the page that is looked at */
    uint32_t chunk, chunk_at;    /* of its CHUNKs, the first of the answer, and the one of the answer that is looked at */
    bool entry_read;             /* its MESSAGE was looked at */
};

static struct lost *lost_of(struct pool *p)
{
    if (!p->lost) {
        p->lost = calloc(1, sizeof *p->lost);
        if (p->lost)
            p->lost->pool = p;
    }
    return p->lost;
}

void lost_fini(struct pool *p)
{
    struct lost *l = p->lost;
    p->lost = NULL;
    if (!l)
        return;
    index_query_fini(&l->list);
    index_query_fini(&l->chunks);
    index_query_fini(&l->lookup);
    lost_said_fini(&l->said);
    free(l);
}

/* LST-1 */
static bool lost_is_new(struct lost *l, struct queue_id qid)
{
    if (!lost_said_add(&l->said, qid))
        return false;
    l->pool->count_lost++;
    return true;
}

/* As many recipients as one line takes; the rest in further events, so that each is named. */
static void lost_say(struct lost *l, const struct index_entry *e)
{
    char id[QUEUE_ID_TEXT], to[LOST_NAMES_BYTES + ADDRESS_BYTES_MAX + 8];
    struct envelope v;
    struct envelope_cursor c;
    const char *address;
    uint32_t len, used = 0;
    if (!lost_is_new(l, e->qid))
        return;
    queue_id_print(e->qid, id);
    if (envelope_decode(e->envelope, e->envelope_bytes, &v) != ERR_OK) {
        pool_event(l->pool, EVENT_record_lost, NULL, "%s: its envelope does not tell from whom and to whom", id);
        return;
    }
    envelope_recipients(&v, &c);
    bool more = envelope_recipient_next(&c, &address, &len);
    while (more) {
        used += (uint32_t)snprintf(to + used, sizeof to - used, "%s<%.*s>", used ? "," : "", (int)len, address);
        more = envelope_recipient_next(&c, &address, &len);
        if (more && used + len < LOST_NAMES_BYTES)
            continue;
        pool_event(l->pool, EVENT_record_lost, NULL, "%s from=<%.*s> to=%s", id, (int)v.sender_len, v.sender, to);
        used = 0;
    }
}

/* --- messages --- */

static void lost_on_lookup(struct index_query *q, enum err e)
{
    struct lost *l = q->owner;
    l->looking = false;
    if (e == ERR_OK && q->entry_count == 1) { /* else it was retired meanwhile */
        lost_say(l, &q->entries[0]);
    } else if (e != ERR_OK && e != ERR_NOT_FOUND && lost_is_new(l, l->messages[0])) { /* LST-2 */
        char id[QUEUE_ID_TEXT];
        queue_id_print(l->messages[0], id);
        pool_event(l->pool, EVENT_record_lost, NULL, "%s: the index cannot tell from whom and to whom: %s", id, err_text(e));
    }
    index_query_fini(q);
    l->message_count--;
    memmove(&l->messages[0], &l->messages[1], l->message_count * sizeof l->messages[0]);
}

void lost_message(struct pool *p, struct queue_id qid, const struct place *at)
{
    struct lost *l = p->index && p->index_ready ? lost_of(p) : NULL;
    char id[QUEUE_ID_TEXT];
    if (l && lost_said_has(&l->said, qid))
        return;
    for (uint32_t i = 0; l && i < l->message_count; i++)
        if (queue_id_equal(l->messages[i], qid))
            return;
    if (l && l->message_count < LOST_MESSAGES_MAX) {
        l->messages[l->message_count++] = qid;
        return;
    }
    queue_id_print(qid, id); /* LST-2 */
    p->count_lost++;
    pool_event(p, EVENT_record_lost, NULL, "%s: no image of segment %llu has its record at %llu", id,
               (unsigned long long)at->segment.counter, (unsigned long long)at->frame);
}

/* --- ranges --- */

static bool lost_covers(const struct lost *l, const struct place *at)
{
    const struct lost_range *r = &l->ranges[0];
    if (segment_id_is_none(r->segment)) {
        const struct segment *s = segment_find(l->pool, at->segment);
        return s && (segment_given_up(l->pool, s) || s->unread);
    }
    return segment_id_equal(at->segment, r->segment) && at->frame < r->to &&
           at->frame + (uint64_t)at->frame_blocks * BLOCK_BYTES > r->from;
}

static void lost_next(struct lost *l);

static void lost_on_read(struct spool_read *r, enum err e)
{
    (void)e; /* LST-3: a read that finds nothing has told so itself */
    lost_next(r->owner);
}

static void lost_read(struct lost *l, struct place place, struct digest digest, enum record_type type)
{
    l->read = (struct spool_read){.place = place, .qid = l->list.entries[l->at].qid, .digest = digest, .type = type,
                                  .done = lost_on_read, .owner = l};
    spool_read(l->pool, &l->read);
}

static void lost_on_chunks(struct index_query *q, enum err e)
{
    struct lost *l = q->owner;
    if (e != ERR_OK || q->max == 0) { /* moved, or retired meanwhile */
        index_query_fini(q);
        l->chunk = l->list.entries[l->at].chunk_count;
    }
    l->chunk_at = 0;
    lost_next(l);
}

static void lost_ask_chunks(struct lost *l)
{
    l->chunks = (struct index_query){.kind = INDEX_CHUNKS, .qid = l->list.entries[l->at].qid, .first = l->chunk,
                                     .max = LOST_CHUNKS, .done = lost_on_chunks, .owner = l};
    index_query(l->pool->index, &l->chunks);
}

/* True: something of this entry is being read or asked for. */
static bool lost_entry(struct lost *l, const struct index_entry *e)
{
    if (!l->entry_read) {
        l->entry_read = true;
        l->chunk = l->chunk_at = 0;
        if (lost_covers(l, &e->place)) {
            lost_read(l, e->place, e->digest, RECORD_MESSAGE);
            return true;
        }
    }
    while (l->chunk < e->chunk_count) {
        if (!l->chunks.chunks) {
            lost_ask_chunks(l);
            return true;
        }
        while (l->chunk_at < l->chunks.max) {
            uint32_t i = l->chunk_at++;
            if (!lost_covers(l, &l->chunks.chunks[i].place))
                continue;
            lost_read(l, l->chunks.chunks[i].place, l->chunks.chunks[i].digest, RECORD_CHUNK);
            return true;
        }
        l->chunk += l->chunks.max;
        index_query_fini(&l->chunks);
        l->chunks.chunks = NULL;
    }
    return false;
}

static void lost_range_over(struct lost *l)
{
    l->range_count--;
    memmove(&l->ranges[0], &l->ranges[1], l->range_count * sizeof l->ranges[0]);
    l->listing = false;
}

static void lost_on_list(struct index_query *q, enum err e)
{
    struct lost *l = q->owner;
    l->at = 0;
    l->entry_read = false;
    if (e == ERR_OK) {
        lost_next(l);
        return;
    }
    index_query_fini(q);
    lost_range_over(l);
}

static void lost_ask_list(struct lost *l, struct queue_id cursor)
{
    l->listing = true;
    l->list = (struct index_query){.kind = INDEX_LIST, .qid = cursor, .max = LOST_PAGE, .done = lost_on_list, .owner = l};
    index_query(l->pool->index, &l->list);
}

static void lost_next(struct lost *l)
{
    l->resting = l->message_count >= LOST_MESSAGES_MAX / 2;
    if (l->resting)
        return;
    while (l->at < l->list.entry_count) {
        if (lost_entry(l, &l->list.entries[l->at]))
            return;
        l->at++;
        l->entry_read = false;
    }
    struct queue_id cursor = l->list.qid;
    bool more = l->list.more && l->list.entry_count > 0 && !l->pool->stopping;
    index_query_fini(&l->list);
    if (more)
        lost_ask_list(l, cursor);
    else
        lost_range_over(l);
}

void lost_range(struct pool *p, struct segment_id segment, uint64_t offset, uint64_t bytes)
{
    struct lost *l = p->index ? lost_of(p) : NULL;
    for (uint32_t i = 0; l && i < l->range_count; i++)
        if (segment_id_equal(l->ranges[i].segment, segment) && l->ranges[i].from <= offset && offset + bytes <= l->ranges[i].to)
            return;
    pool_event(p, EVENT_frame_corrupt, NULL, "segment %llu: %llu bytes at %llu are bad on every image that is here",
               (unsigned long long)segment.counter, (unsigned long long)bytes, (unsigned long long)offset);
    if (l && l->range_count < LOST_WAITING_MAX)
        l->ranges[l->range_count++] = (struct lost_range){segment, offset, offset + bytes};
}

/* --- members given up --- */

bool segment_given_up(const struct pool *p, const struct segment *s)
{
    bool up = s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && s->image_count > 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        up = up && p->members[s->images[i].member].removed;
    return up;
}

void lost_members(struct pool *p)
{
    p->lost_looked = false;
}

/* LST-4 */
static void lost_look(struct pool *p)
{
    struct lost *l = NULL;
    if (!p->index_live || (p->lost && p->lost->range_count == LOST_WAITING_MAX))
        return; /* later */
    p->lost_looked = true;
    bool any = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        any = any || (p->members[i].used && p->members[i].removed);
    for (uint32_t i = 0; any && i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state != SEGMENT_SEALED || s->kind != SEGMENT_MAIL || !(segment_given_up(p, s) || s->unread))
            continue;
        l = lost_of(p);
        if (!s->dirty) { /* it may go now */
            s->dirty = true;
            p->dirty_segments++;
        }
        if (!segment_given_up(p, s) || !s->unread || s->length <= BLOCK_BYTES)
            continue;
        p->count_lost++;
        pool_event(p, EVENT_record_lost, NULL, "segment %llu: %llu bytes lay on members that were given up only, and no index tells "
                   "what was in them", (unsigned long long)s->id.counter, (unsigned long long)(s->length - BLOCK_BYTES));
    }
    if (l)
        l->ranges[l->range_count++] = (struct lost_range){0};
}

void lost_step(struct pool *p)
{
    if (p->index_ready && !p->lost_looked && !p->stopping)
        lost_look(p);
    struct lost *l = p->lost;
    if (!l || !p->index_ready || p->stopping)
        return;
    if (l->message_count > 0 && !l->looking) {
        l->looking = true;
        l->lookup = (struct index_query){.kind = INDEX_LOOKUP, .qid = l->messages[0], .done = lost_on_lookup, .owner = l};
        index_query(p->index, &l->lookup);
    }
    if (l->resting && l->message_count < LOST_MESSAGES_MAX / 2)
        lost_next(l);
    if (l->range_count > 0 && !l->listing)
        lost_ask_list(l, (struct queue_id){0});
}
