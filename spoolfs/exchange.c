/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: where a compaction puts its copies when no slot is left for them: one new segment, in the slot kept for it, that counts
 * only from the record on that frees all its victims. compact.c reads the victims; here are the segment, its frames and that
 * record.
 *
 *   NONE -> OPENING [exchange_open] -> FILLING [OPEN durable] -> SAYING [exchange_say] -> FEEDING [SEAL and FREED durable]
 *        -> ASKING [the index was fed] -> DROPPING [the index has synced] -> NONE [no victim is read any more]
 *   OPENING, FILLING -> DEAD [failed, or nothing to say] -> NONE [FREED durable]
 *
 * Invariants: EXC-1: until the record is durable the victims hold everything and the new segment nothing (`provisional`): a
 * crash before it costs no slot and a crash after it frees them; recovery forgets what is provisional. EXC-2: on no member are
 * fewer slots free afterwards: each of the new segment's members gives back one of the first victim. EXC-3: the last slot of a
 * member stays the segment table's, but where the table lies on that member alone and will not be full before the exchange is
 * over. EXC-4: the slots of the victims are given back when the index knows the new places. EXC-5: while results find no slot,
 * leased messages are moved, too: none of their results is on its way then and none is taken until the index knows the new
 * places; from then on the lease is there, and what a relay says about the place of before goes where the lease is. EXC-6: the new
 * segment has copies of its victims only: what was copied of another before it was broken off is not in it. EXC-7: the index takes the
 * copies as it takes those of any compaction, not as a replay: what was retired since they were written stays so. */
#include "compact.h"
#include "images.h"

#include <stdlib.h>
#include <string.h>

#define EXCHANGE_VICTIMS_MAX 64u           /* each takes a block of the new segment at least */
#define EXCHANGE_AGAIN_NS (1 * NS_PER_S)   /* after one that came to nothing */
#define EXCHANGE_RETRY_NS (100 * NS_PER_MS) /* while no member that has the new segment can be read */

enum exchange_state { EXCHANGE_NONE, EXCHANGE_OPENING, EXCHANGE_FILLING, EXCHANGE_SAYING, EXCHANGE_FEEDING, EXCHANGE_ASKING,
                      EXCHANGE_DROPPING, EXCHANGE_DEAD };

struct exchange {
    struct pool *pool;
    enum exchange_state state;
    struct segment *out;
    struct segment *victims[EXCHANGE_VICTIMS_MAX];
    uint32_t victim_count;
    struct frame frame;
    uint8_t *buffer;
    struct segment_id moved_from;
    struct digest digest;
    struct member_op ops[COPIES_MAX];
    uint32_t blocks, pending;     /* of the frame on its way */
    uint64_t kept_length, kept_previous; /* of the new segment: what is behind is of a victim that is not taken yet (EXC-6) */
    bool failed, full, freeing;
    bool walking, walked, by_replay; /* by_replay: a frame of it could not be read, and a replay tells what that costs */
    struct walk walk;             /* FEEDING */
    struct frame_view view;       /* waits for room in the index; the walk rests */
    uint64_t next_ns, retry_ns;
    struct index_query barrier;
};

static struct exchange *exchange_of(struct pool *p)
{
    struct exchange *x = p->exchange;
    if (x)
        return x;
    x = calloc(1, sizeof *x);
    if (x)
        x->buffer = sync_buffer(FRAME_BYTES_MAX);
    if (!x || !x->buffer) {
        free(x);
        return NULL;
    }
    x->pool = p;
    p->exchange = x;
    return x;
}

void exchange_fini(struct pool *p)
{
    if (p->exchange && p->exchange->walking)
        walk_fini(&p->exchange->walk);
    if (p->exchange)
        free(p->exchange->buffer);
    free(p->exchange);
    p->exchange = NULL;
}

bool exchange_idle(const struct pool *p)
{
    return !p->exchange || p->exchange->state == EXCHANGE_NONE;
}

bool exchange_fills(const struct pool *p)
{
    return p->exchange && p->exchange->state == EXCHANGE_FILLING;
}

bool exchange_failed(const struct pool *p)
{
    return !exchange_fills(p) || p->exchange->failed;
}

/* It goes in the same record: what is about it is not needed, and what was moved out of it may go, too. */
bool exchange_holds(const struct pool *p, const struct segment *s)
{
    for (uint32_t i = 0; p->exchange && i < p->exchange->victim_count; i++)
        if (p->exchange->victims[i] == s)
            return true;
    return false;
}

/* --- victims --- */

/* EXC-3. A table with another member might need its next place because of that one. */
static bool exchange_has_slot(const struct pool *p, const struct member *m)
{
    const struct segment *t = p->table_segment;
    bool alone = t && t->state == SEGMENT_OPEN && t->image_count == 1 && segment_on_member(t, m->number) &&
                 t->length < p->slot_bytes / 2 && !p->table_renew && !p->table_rewriting;
    return m->slots_free > (alone ? 0 : 1);
}

/* EXC-2, EXC-3 */
static uint32_t exchange_members(struct pool *p, const struct segment *s, uint8_t members_out[COPIES_MAX])
{
    uint32_t count = 0, want = placement_want(p);
    for (uint32_t i = 0; i < s->image_count && count < want; i++) {
        const struct member *m = &p->members[s->images[i].member];
        bool fits = member_usable(m) && exchange_has_slot(p, m);
        for (uint32_t k = 0; fits && k < count; k++)
            fits = !members_share_domain(m, &p->members[members_out[k]]);
        if (fits)
            members_out[count++] = m->number;
    }
    return count == want ? count : 0;
}

/* EXC-2: it gives back a slot on each member where the new segment takes one, or would. */
static bool exchange_first(struct exchange *x, const struct segment *s)
{
    uint8_t members[COPIES_MAX];
    return x->out ? (segment_members(x->out) & ~segment_members(s)) == 0 : exchange_members(x->pool, s, members) > 0;
}

/* At most so much has to be copied: its mail, and of the rest the part that is about segments which stay. */
static uint64_t exchange_cost(struct pool *p, const struct segment *s)
{
    uint64_t rest = s->length - BLOCK_BYTES, stay = 0;
    rest = rest > s->live_bytes ? rest - s->live_bytes : 0;
    for (uint32_t i = 0; i < s->dep_count; i++) {
        const struct segment *dep = segment_find(p, s->deps[i]);
        stay += dep && !exchange_holds(p, dep);
    }
    if (s->deps_overflowed)
        return s->live_bytes + rest;
    return s->live_bytes + (s->dep_count ? rest * stay / s->dep_count : 0);
}

/* EXC-5 */
static bool exchange_takes_leased(const struct pool *p)
{
    return p->results_stuck && commit_idle(p);
}

static bool exchange_may_take(const struct pool *p, const struct segment *s)
{
    return compact_movable(p, s) && (!s->leased || exchange_takes_leased(p)) && !s->rebuilding && !s->unread &&
           !s->in_doubt;
}

static bool exchange_has_two(const struct pool *p)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < p->segment_used && found < 2; i++)
        found += exchange_may_take(p, &p->segments[i]) && compact_pays(&p->segments[i]);
    return found == 2;
}

struct segment *exchange_choose(struct pool *p)
{
    struct exchange *x = exchange_of(p);
    bool fills = x && x->state == EXCHANGE_FILLING;
    if (!x || (!fills && !exchange_has_two(p)) || /* one for one is no gain, and what was written is left alone for a while */
        (!fills && (x->state != EXCHANGE_NONE || io_now_ns(p->io) < x->next_ns)) ||
        (fills && (x->failed || x->full || x->victim_count == EXCHANGE_VICTIMS_MAX)))
        return NULL;
    struct segment *best = NULL;
    uint64_t best_cost = 0, left = x->out ? p->slot_bytes - x->out->length : p->slot_bytes;
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (!exchange_may_take(p, s) || (x->victim_count == 0 && !exchange_first(x, s)))
            continue;
        uint64_t cost = exchange_cost(p, s);
        if (x->victim_count > 1 && cost + BLOCK_BYTES > left)
            continue; /* two for one are a gain: no more is risked */
        if (!best || cost < best_cost) {
            best = s;
            best_cost = cost;
        }
    }
    return best;
}

void exchange_take(struct pool *p, struct segment *victim)
{
    struct exchange *x = p->exchange;
    ASSERT(x->state == EXCHANGE_FILLING && x->victim_count < EXCHANGE_VICTIMS_MAX);
    victim->compacting = true; /* until its slots are given back: LEASE-1 */
    x->victims[x->victim_count++] = victim;
    x->kept_length = x->out->length;
    x->kept_previous = x->out->previous;
}

/* --- the new segment --- */

static void exchange_on_opened(struct segment *s, enum err e)
{
    struct exchange *x = s->opener;
    ASSERT(x->state == EXCHANGE_OPENING && x->out == s);
    if (e != ERR_OK)
        x->out = NULL; /* it is gone when this returns */
    x->kept_length = e == ERR_OK ? s->length : 0;
    x->kept_previous = e == ERR_OK ? s->previous : 0;
    x->state = e == ERR_OK ? EXCHANGE_FILLING : EXCHANGE_NONE;
    x->next_ns = io_now_ns(x->pool->io) + EXCHANGE_AGAIN_NS;
}

enum err exchange_open(struct pool *p, const struct segment *first)
{
    struct exchange *x = p->exchange;
    uint8_t members[COPIES_MAX];
    uint32_t count = exchange_members(p, first, members);
    enum err e = count ? segment_open_on(p, SEGMENT_MAIL, members, count, &x->out) : ERR_FULL;
    if (e != ERR_OK) {
        x->out = NULL;
        x->next_ns = io_now_ns(p->io) + EXCHANGE_AGAIN_NS;
        return e;
    }
    x->out->provisional = x->out->compacting = true;
    x->out->opened = exchange_on_opened;
    x->out->opener = x;
    x->state = EXCHANGE_OPENING;
    x->victim_count = 0;
    x->failed = x->full = x->freeing = false;
    frame_init(&x->frame, x->buffer);
    return ERR_OK;
}

static void exchange_on_image(struct member_op *mo)
{
    struct exchange *x = mo->owner;
    x->failed = x->failed || mo->op.result != ERR_OK;
    if (--x->pending > 0)
        return;
    x->out->length += (uint64_t)x->blocks * BLOCK_BYTES;
    x->out->previous = x->digest.lo;
    frame_init(&x->frame, x->buffer);
}

static void exchange_write(struct exchange *x)
{
    struct pool *p = x->pool;
    struct segment *s = x->out;
    struct frame_identity id = {.pool = p->uuid, .segment = s->id, .offset = s->length, .previous = s->previous,
                                .moved_from = x->moved_from, .stamp_ms = pool_clock_ms(p)};
    x->blocks = frame_seal(&x->frame, &id, &x->digest);
    ASSERT(s->length + (uint64_t)x->blocks * BLOCK_BYTES <= p->slot_bytes);
    x->pending = s->image_count;
    for (uint32_t i = 0; i < s->image_count; i++) {
        x->ops[i] = (struct member_op){.done = exchange_on_image, .owner = x};
        x->ops[i].op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_COMMIT, .durable = true,
                                      .length = x->blocks * BLOCK_BYTES, .buffer = x->buffer,
                                      .offset = segment_image_offset(p, &s->images[i]) + s->length};
    }
    uint32_t count = s->image_count;
    for (uint32_t i = 0; i < count; i++)
        member_submit(&p->members[s->images[i].member], &x->ops[i]);
}

enum err exchange_add(struct pool *p, const struct spool_group *g)
{
    struct exchange *x = p->exchange;
    uint64_t bytes = group_bytes(g), left = p->slot_bytes - x->out->length;
    bool other = x->frame.record_count > 0 && !segment_id_equal(x->moved_from, g->moved_from);
    if (exchange_failed(p))
        return ERR_IO;
    if (x->pending > 0)
        return ERR_BUSY;
    if (bytes > FRAME_BYTES_MAX - FRAME_HEAD_BYTES - FRAME_BLOCKS_MAX * 8u)
        return ERR_TOO_LARGE;
    if (other || !frame_has_room(&x->frame, bytes)) {
        exchange_write(x);
        return ERR_BUSY;
    }
    if (x->frame.used + bytes + FRAME_BLOCKS_MAX * 8u > left) {
        x->full = true;
        return ERR_FULL;
    }
    x->moved_from = g->moved_from;
    for (uint32_t i = 0; i < g->count; i++) {
        const struct spool_record *r = &g->records[i];
        uint64_t sequence = ++p->next_sequence;
        struct record_fields fields = {.type = r->type, .qid = r->qid, .message_segment = r->message_segment,
                                       .sequence = sequence, .arg = r->arg, .envelope_bytes = r->envelope_bytes,
                                       .parts = r->parts, .part_count = 3};
        if (r->raw)
            (void)frame_add_raw(&x->frame, r->raw, r->raw_bytes, sequence);
        else
            (void)frame_add(&x->frame, &fields);
    }
    return ERR_OK;
}

bool exchange_writes(const struct pool *p) { return exchange_fills(p) && p->exchange->pending > 0; }

enum err exchange_settle(struct pool *p)
{
    struct exchange *x = p->exchange;
    if (x->pending > 0)
        return ERR_BUSY;
    if (exchange_failed(p))
        return ERR_IO;
    if (x->frame.record_count == 0)
        return ERR_OK;
    exchange_write(x);
    return ERR_BUSY;
}

/* EXC-6: what of it is in the segment already is written over, or lies behind its end. */
void exchange_leave_out(struct pool *p)
{
    struct exchange *x = p->exchange;
    if (x->pending > 0 || !x->out)
        return; /* it has failed, and comes to nothing as a whole */
    frame_init(&x->frame, x->buffer);
    x->out->length = x->kept_length;
    x->out->previous = x->kept_previous;
}

/* --- the record --- */

static void exchange_on_said(struct table_group *t, enum err e)
{
    struct pool *p = t->pool;
    struct exchange *x = p->exchange;
    ASSERT(x->state == EXCHANGE_SAYING);
    if (e != ERR_OK) {
        for (uint32_t i = 0; i < x->victim_count; i++)
            x->victims[i]->state = SEGMENT_SEALED;
        x->failed = true;
        x->state = EXCHANGE_FILLING;
        return;
    }
    x->out->state = SEGMENT_SEALED;
    x->out->provisional = false; /* still `compacting`: EXC-5 */
    for (uint32_t i = 0; i < x->victim_count; i++)
        x->victims[i]->table_known = false; /* no TABLE names it any more */
    p->count_compacted += x->victim_count;
    x->walked = x->by_replay = false;
    x->view.bytes = NULL;
    x->state = EXCHANGE_FEEDING;
}

void exchange_say(struct pool *p)
{
    struct exchange *x = p->exchange;
    struct segment_id ids[EXCHANGE_VICTIMS_MAX];
    if (x->state != EXCHANGE_FILLING || x->failed || x->pending > 0)
        return;
    for (uint32_t i = 0; i < x->victim_count; i++)
        ids[i] = x->victims[i]->id;
    if (x->victim_count == 0 || table_submit_exchange(p, x->out, ids, x->victim_count, exchange_on_said) != ERR_OK) {
        x->failed = true;
        return;
    }
    for (uint32_t i = 0; i < x->victim_count; i++)
        x->victims[i]->state = SEGMENT_FREEING;
    x->state = EXCHANGE_SAYING;
}

/* --- the index is told --- */

bool exchange_feeds(const struct pool *p, const struct segment *s)
{
    const struct exchange *x = p->exchange;
    return x && x->state == EXCHANGE_FEEDING && x->out == s && !x->by_replay;
}

static void exchange_give(struct exchange *x)
{
    if (replay_feed(x->pool, x->out, &x->view))
        x->view.bytes = NULL;
}

static void exchange_on_frame(struct walk *w, const struct frame_view *f)
{
    struct exchange *x = w->owner;
    x->view = *f;
    exchange_give(x);
}

static void exchange_on_lost(struct walk *w, uint64_t offset, uint64_t bytes)
{
    struct exchange *x = w->owner;
    (void)offset;
    (void)bytes;
    x->by_replay = true;
}

static void exchange_on_end(struct walk *w)
{
    struct exchange *x = w->owner;
    x->walked = true;
}

static bool exchange_walks(struct exchange *x)
{
    struct pool *p = x->pool;
    if (x->walking)
        return true;
    x->walk = (struct walk){.pool = p, .segment = x->out, .offset = x->out->fed, .end = x->out->length, .class = IO_CLASS_REBUILD,
                            .on_frame = exchange_on_frame, .on_lost = exchange_on_lost, .on_end = exchange_on_end, .owner = x};
    x->walking = walk_start(&x->walk) == ERR_OK;
    return x->walking;
}

static void exchange_walk_over(struct exchange *x)
{
    walk_fini(&x->walk);
    x->walking = false;
    x->view.bytes = NULL;
    if (x->by_replay)
        x->pool->index_live = false;
}

/* EXC-7 */
static void exchange_feed(struct exchange *x)
{
    struct pool *p = x->pool;
    bool more = x->out->fed < x->out->length && !x->by_replay;
    if (!p->index_live || (!x->walking && !more) || !exchange_walks(x))
        return;
    walk_step(&x->walk);
    if (x->by_replay)
        walk_stop(&x->walk);
    if (x->walked || x->by_replay) {
        if (walk_idle(&x->walk))
            exchange_walk_over(x);
        return;
    }
    if (x->walk.unreadable && io_now_ns(p->io) >= x->retry_ns) {
        x->retry_ns = io_now_ns(p->io) + EXCHANGE_RETRY_NS;
        walk_retry(&x->walk);
    }
    if (!x->walk.resting)
        return;
    if (x->view.bytes)
        exchange_give(x);
    if (!x->view.bytes)
        walk_next(&x->walk);
}

/* --- the end --- */

static void exchange_on_barrier(struct index_query *q, enum err e)
{
    struct exchange *x = q->owner;
    struct pool *p = x->pool;
    (void)e; /* FREED is durable: an index that claims mail there is made anew at the next mount */
    index_query_fini(q);
    lease_moved(p, x->out);
    x->out->compacting = false;
    x->out->compact_after_ns = io_now_ns(p->io) + COMPACT_AGAIN_NS;
    x->out = NULL; /* it may die before the last reader of a victim has gone */
    x->state = EXCHANGE_DROPPING;
}

/* EXC-4 */
static void exchange_drop(struct exchange *x)
{
    struct pool *p = x->pool;
    for (uint32_t i = x->victim_count; i-- > 0;) {
        struct segment *s = x->victims[i];
        if (s->refs || s->repairing || s->rebuilding)
            continue;
        struct segment_id id = s->id;
        segment_drop(p, s);
        x->victims[i] = x->victims[--x->victim_count];
        if (index_freed(p->index, &id, 1) != ERR_OK)
            continue; /* its rows are empty and are dropped at the next mount */
    }
    if (x->victim_count > 0)
        return;
    x->state = EXCHANGE_NONE;
    x->next_ns = io_now_ns(p->io);
}

static void exchange_on_freed(struct table_group *t, enum err e)
{
    struct exchange *x = t->pool->exchange;
    (void)e; /* no record names it as anything but provisional */
    segment_drop(t->pool, x->out);
    x->out = NULL;
    x->state = EXCHANGE_NONE;
    x->next_ns = io_now_ns(t->pool->io) + EXCHANGE_AGAIN_NS;
}

/* EXC-1: FREED before its slots are used again. */
static void exchange_die(struct exchange *x)
{
    struct pool *p = x->pool;
    for (uint32_t i = 0; i < x->victim_count; i++)
        x->victims[i]->compacting = false;
    x->victim_count = 0;
    x->state = EXCHANGE_DEAD;
    if (!x->freeing && x->pending == 0)
        x->freeing = table_submit_freed(p, &x->out->id, 1, exchange_on_freed) == ERR_OK;
    if (x->freeing)
        x->out->state = SEGMENT_FREEING;
}

void exchange_step(struct pool *p)
{
    struct exchange *x = p->exchange;
    if (!x)
        return;
    switch (x->state) {
    case EXCHANGE_OPENING:
        segment_open_step(p, x->out);
        break;
    case EXCHANGE_FILLING:
        for (uint32_t i = 0; i < x->out->image_count; i++)
            x->failed = x->failed || !member_usable(&p->members[x->out->images[i].member]);
        if ((x->failed || p->stopping) && compact_at_rest(p))
            exchange_die(x);
        break;
    case EXCHANGE_FEEDING:
        exchange_feed(x);
        if (!p->index_live || x->walking || x->out->fed < x->out->length)
            break;
        x->barrier = (struct index_query){.kind = INDEX_BARRIER, .sync = true, .done = exchange_on_barrier, .owner = x};
        x->state = EXCHANGE_ASKING;
        index_query(p->index, &x->barrier);
        break;
    case EXCHANGE_DROPPING:
        exchange_drop(x);
        break;
    case EXCHANGE_DEAD:
        exchange_die(x);
        break;
    case EXCHANGE_NONE:
    case EXCHANGE_SAYING:
    case EXCHANGE_ASKING:
        break;
    }
}
