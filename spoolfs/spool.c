/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the door for mail: admission and the choice of an appender. What happens behind it is commit.c.
 *
 * Invariants, of what keeps a segment alive when its mail is gone (design/0051); they save space and no promise rests on them.
 * SPO-1: a segment holds results about itself and older ones. What it holds is then not needed any more when those are dead;
 * results about newer ones would tie it to them, those to newer ones again, and so on up to what is being written now. SPO-2:
 * what compactions move has segments of its own: it has lived long and will live on, and among mail that passes it would keep
 * all that comes after it, too. */
#include "compact.h"

#include <base/planted.h>

/* New mail needs an index that can follow. */
enum err spool_index_follows(const struct pool *p)
{
    uint64_t limit = p->config.index_lag_limit ? p->config.index_lag_limit : INDEX_LAG_BYTES_DEFAULT;
    if (p->index_full)
        return ERR_INDEX_FULL;
    return p->index_lag > limit ? ERR_INDEX_LAG : ERR_OK;
}

/* New mail waits a moment for an index that is nearly a ring behind: a replay costs it much more than what it has to do now, and
 * nothing is freed meanwhile. If it does not get on, mail goes on without it, and it replays. */
#define INDEX_WAIT_NS (500 * NS_PER_MS)

static bool spool_waits_for_index(struct pool *p)
{
    uint32_t room = p->index && p->index_live ? index_room(p->index) : INDEX_RING_BYTES;
    if (room > INDEX_RING_BYTES / 2)
        p->index_wait_ns = 0;
    if (room >= INDEX_RING_BYTES / 4)
        return false;
    uint64_t now = io_now_ns(p->io);
    p->index_wait_ns = p->index_wait_ns ? p->index_wait_ns : now;
    return now - p->index_wait_ns < INDEX_WAIT_NS;
}

/* Room in an open segment is room that is already taken. */
static bool appender_has_room(const struct appender *a)
{
    return a->next || (a->segment && a->segment->length + FRAME_BYTES_MAX <= a->pool->slot_bytes);
}

/* EXC-5: the message may lie elsewhere by now than where the relay took it from. */
static void spool_follow_leases(const struct pool *p, struct spool_group *g)
{
    for (uint32_t i = 0; i < g->count && g->class == SPOOL_RESULT; i++) {
        struct spool_record *r = &g->records[i];
        struct segment_id leased = r->type == RECORD_MESSAGE ? (struct segment_id){0} : lease_segment(p, r->qid);
        if (!segment_id_is_none(leased))
            r->message_segment = leased;
    }
}

static enum err spool_admits(struct pool *p, const struct spool_group *g)
{
    enum err why;
    if (p->read_only)
        return ERR_READ_ONLY;
    if (p->stopping)
        return ERR_STOPPING;
    if (pool_domains_usable(p) < p->config.min_copies)
        return ERR_BELOW_POLICY;
    for (uint32_t i = 0; i < g->count && g->class == SPOOL_RESULT; i++) { /* LEASE-1 */
        const struct segment *s = segment_find(p, g->records[i].message_segment);
        if (s && s->compacting && !PLANTED(compact_under_lease))
            return ERR_BUSY;
    }
    if (g->class != SPOOL_NEW_MAIL)
        return ERR_OK;
    if (p->headroom_full)
        return ERR_FULL;
    if ((why = spool_index_follows(p)) != ERR_OK)
        return why;
    if (spool_waits_for_index(p))
        return ERR_BUSY;
    for (uint32_t i = 1; i < p->appender_count; i++)
        if (!p->appenders[i].moves && appender_has_room(&p->appenders[i]))
            return ERR_OK;
    return placement_possible(p, SPOOL_NEW_MAIL, 0, &why) ? ERR_OK : why;
}

/* CHUNKs of new mail go to appenders of their own, where no member is slow enough to prefer one place at a time. */
static bool spool_wants_bulk(const struct pool *p, const struct spool_group *g)
{
    if (g->class != SPOOL_NEW_MAIL || g->records[0].type != RECORD_CHUNK)
        return false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (member_usable(&p->members[i]) && latency_percentile(&p->members[i].write_latency, 50) > BULK_WRITE_NS_MAX)
            return false;
    return true;
}

/* Where the newest message lies that the group has a result about: the counter, of segments of this mount. */
static uint64_t group_about(const struct pool *p, const struct spool_group *g)
{
    uint64_t newest = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        const struct segment_id about = g->records[i].message_segment;
        if (about.incarnation == p->incarnation && about.counter > newest)
            newest = about.counter;
    }
    return newest;
}

/* SPO-1 */
static bool appender_follows(const struct appender *a, uint64_t about)
{
    const struct segment *s = a->segment ? a->segment : a->next;
    return !s || s->id.counter >= about;
}

/* Mail and results go where copies go as little as the other way round; while slots are short copies go where there is room. */
static bool appender_is_for(const struct appender *a, bool bulk, bool moves)
{
    return a->bulk == bulk && a->moves == moves;
}

/* Of its kind, while that has room or can open a segment: an idle appender commits at once; else the one with the least
 * gathered. CHUNKs go where most has gathered, so that frames are large. */
static struct appender *spool_choose(struct pool *p, const struct spool_group *g)
{
    struct appender *best = NULL;
    uint64_t best_score = UINT64_MAX;
    bool bulk = spool_wants_bulk(p, g), moves = !segment_id_is_none(g->moved_from), room = false;
    uint64_t about = group_about(p, g);
    enum err why;
    for (uint32_t i = 1; i < p->appender_count; i++)
        room = room || (appender_is_for(&p->appenders[i], bulk, moves) && appender_has_room(&p->appenders[i]));
    bool strict = g->class == SPOOL_RESULT || room || placement_possible(p, g->class, 0, &why);
    for (uint32_t i = 1; i < p->appender_count; i++) {
        struct appender *a = &p->appenders[i];
        uint64_t gathered = a->building ? a->building->frame.used : 0;
        uint64_t score = (a->flight ? FRAME_BYTES_MAX : 0) + gathered;
        if (bulk && gathered > 0)
            score = FRAME_BYTES_MAX - gathered;
        else if (bulk)
            score += FRAME_BYTES_MAX;
        if (strict ? !appender_is_for(a, bulk, moves) : !appender_has_room(a) || (a->moves && !moves))
            score += 4 * (uint64_t)FRAME_BYTES_MAX;
        if (appender_waits(a))
            score += 2 * (uint64_t)FRAME_BYTES_MAX;
        if (!appender_follows(a, about))
            score += 2 * (uint64_t)FRAME_BYTES_MAX; /* not when all that follow are full: a tie now and then does no harm */
        if (score < best_score) {
            best = a;
            best_score = score;
        }
    }
    return best;
}

enum err spool_submit(struct pool *p, struct spool_group *g)
{
    spool_follow_leases(p, g);
    enum err e = spool_admits(p, g);
    p->room_wanted = p->room_wanted || e == ERR_BUSY;
    if (e != ERR_OK)
        return e;
    g->link = (struct link){0};
    struct appender *first = spool_choose(p, g);
    e = commit_submit(first, g);
    for (uint32_t i = 1; i < p->appender_count && e == ERR_BUSY; i++)
        if (appender_is_for(&p->appenders[i], first->bulk, first->moves))
            e = commit_submit(&p->appenders[i], g);
    if (e == ERR_BUSY)
        p->room_wanted = true;
    return e;
}

void spool_on_room(struct pool *p, void (*on_room)(void *owner), void *owner)
{
    p->on_room = on_room;
    p->on_room_owner = owner;
}

struct queue_id spool_lend_queue_ids(struct pool *p, uint32_t count)
{
    struct queue_id first = {PLANTED(reuse_queue_id) ? 1 : p->incarnation, p->next_queue + 1};
    ASSERT(p->next_queue + count <= QUEUE_ID_COUNTER_MAX);
    p->next_queue += count;
    return first;
}

struct index *spool_index(struct pool *p)
{
    return p->index;
}

bool spool_index_open(struct pool *p)
{
    return p->index_open;
}

bool spool_index_ready(struct pool *p)
{
    return p->index_ready;
}

uint32_t spool_images(struct pool *p, struct segment_id segment, bool *below_out)
{
    const struct segment *s = segment_find(p, segment);
    uint32_t images = s ? segment_images_good(p, s) : 0;
    *below_out = images < p->config.copies;
    return images;
}

uint64_t spool_due_after_ms(struct pool *p)
{
    return p->due_after_ms;
}

void spool_abort(struct pool *p, struct queue_id qid)
{
    if (p->index && index_abort(p->index, qid) != ERR_OK)
        return; /* the next mount finds CHUNKs without a MESSAGE and drops them */
}
