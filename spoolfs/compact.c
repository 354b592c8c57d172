/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: moving the few live records out of a mostly dead segment, so that retire.c can free it.
 *
 *   victim chosen -> walk its frames; each needed record: ask the index, copy it with its marks -> all copies durable
 *   -> barrier (the index has moved the places) -> over; the victim is dead and retire.c takes it
 *
 * Invariants: LEASE-1 (compact.h). CMP-1: a MESSAGE is copied byte for byte together with its present marks and hold in
 * one frame, so that the old MARKs are not needed any more. CMP-2: a frame of copies holds nothing else and names the
 * victim, so that the segment it lands in outlives the victim; unless both go in one record (exchange.c). CMP-3: a
 * victim is chosen by counts that include all the index was told of it. CMP-4: where results find no slot and nothing else can be
 * moved, what is leased is exchanged (EXC-5): results need slots and leases end with results. One compaction at a time. */
#include "compact.h"
#include "images.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

#define COMPACT_COPIES_IN_FLIGHT_MAX 64u
#define COMPACT_NEARLY_EMPTY 16u /* below a sixteenth live: at once, so that hedges and crash loops cannot burn slots */
/* How short slots are: 0 to COMPACT_PRESSURE, in eighths of the slots of the member with the fewest: above a half free, a half,
 * three eighths, a quarter. At each step more of a segment may be live, and compaction's floor rises (upkeep.c): it begins early
 * and is cheap, for every transaction may ask for room for the largest message long before the slots are gone. */
#define COMPACT_PRESSURE 3u      /* anything less than half live, at any price */
#define COMPACT_MARGIN 2u        /* pressure also so many above those that new mail leaves: few slots have no quarter above them */
#define COMPACT_CHAIN 16u         /* so many segments without mail that are not freed: a chain */
#define COMPACT_OPEN_NS (30 * NS_PER_S) /* a segment that is open for so long takes little, and may be what holds the chain */
#define COMPACT_HURRY_NS (20 * NS_PER_MS)
#define COMPACT_PAUSE_NS (200 * NS_PER_MS) /* between looks for a victim: leaves time for retirement to do the work */
/* What passes is gone by then; what is still there has come to stay. Sooner when slots get short. */
#define COMPACT_YOUNG_NS (5 * NS_PER_S)
#define COMPACT_YOUNG_NEEDED_NS (1 * NS_PER_S)

struct copy {
    struct spool_group group;
    struct spool_record records[3];
    bool used;
};

struct compaction {
    struct pool *pool;
    struct segment *victim;
    uint32_t images;           /* of what is moved now */
    struct walk walk;
    struct frame_view frame;   /* whose records are being looked at; the walk rests */
    struct record_view record;
    struct index_query query;
    uint32_t at, left, in_flight;
    bool source_lives;         /* a segment that was compacted into the victim is not dead yet */
    bool running, asking, have_frame, have_record, walked, failed, barrier, full;
    bool exchange;             /* the copies go where exchange.c puts them */
    bool more;                 /* there was more than one to choose from */
    bool chain;                /* segments without mail pile up: what holds them is looked for */
    struct compact_ahead ahead;
    struct copy copies[COMPACT_COPIES_IN_FLIGHT_MAX];
    uint64_t next_ns;
};

uint32_t compact_need(const struct pool *p)
{
    uint32_t need = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (!member_usable(m))
            continue;
        uint32_t eighths = m->slots_free * 8 / m->slot_count, step = eighths >= 4 ? 0 : eighths < 2 ? COMPACT_PRESSURE : 4 - eighths;
        if (m->slots_free <= slot_reserve(m, SPOOL_NEW_MAIL) + COMPACT_MARGIN)
            step = COMPACT_PRESSURE;
        need = step > need ? step : need;
    }
    return need;
}

static bool compact_pressure(const struct pool *p)
{
    return compact_need(p) == COMPACT_PRESSURE;
}

/* CMP-3. What was fed may wait in the ring, or in a batch that is not committed. */
static bool compact_counted(const struct segment *s)
{
    return s->counted && s->told >= s->length && s->fed >= s->length;
}

/* Its results are about mail that lives: it is what holds a chain of segments without mail. */
static bool compact_holds_a_chain(struct pool *p, const struct segment *s)
{
    bool holds = s->deps_overflowed;
    for (uint32_t d = 0; d < s->dep_count && !holds; d++) {
        const struct segment *about = segment_find(p, s->deps[d]);
        holds = about && about != s && !segment_is_empty_of_mail(about);
    }
    return holds;
}

/* An open segment is no victim and is not freed, however little of it is needed. */
static void compact_close_old(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        bool old = s->state == SEGMENT_OPEN && s->kind == SEGMENT_MAIL && io_now_ns(p->io) - s->opened_ns >= COMPACT_OPEN_NS;
        s->close_soon = s->close_soon || (old && s->length > BLOCK_BYTES);
    }
}

bool compact_movable(const struct pool *p, const struct segment *s)
{
    return s->kind == SEGMENT_MAIL && s->state == SEGMENT_SEALED && compact_counted(s) && !s->refs && !s->repairing &&
           s->length > BLOCK_BYTES && !s->compacting && !s->compacted && io_now_ns(p->io) >= s->compact_after_ns;
}

static bool compact_eligible(const struct pool *p, const struct segment *s)
{
    return compact_movable(p, s) && (!s->leased || PLANTED(compact_under_lease));
}

bool compact_pays(const struct segment *s)
{
    return s->live_bytes < s->length / 2;
}

/* Whether moving what is needed of it is worth it now. */
static bool compact_wanted(const struct compaction *c, const struct segment *s, uint32_t need)
{
    struct pool *p = c->pool;
    bool empty = segment_is_empty_of_mail(s), half = compact_pays(s);
    if (need == COMPACT_PRESSURE)
        return half;
    if (half && !empty && segment_images_good(p, s) < c->images) /* moved, it has as many images as the domains allow */
        return true;
    if (io_now_ns(p->io) - s->opened_ns < (need ? COMPACT_YOUNG_NEEDED_NS : COMPACT_YOUNG_NS))
        return false;
    if (empty) /* what holds only results waits for the segments they are about, if it waits alone */
        return c->chain && compact_holds_a_chain(p, s);
    return s->live_bytes < p->slot_bytes / COMPACT_NEARLY_EMPTY << need;
}

static struct segment *compact_choose(struct compaction *c)
{
    struct pool *p = c->pool;
    struct segment *best = NULL;
    uint64_t best_order = 0;
    uint32_t chained = 0, found = 0, need = compact_need(p);
    c->images = placement_want(p);
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (!compact_eligible(p, s))
            continue;
        bool empty = segment_is_empty_of_mail(s);
        chained += empty;
        if (s->compact_first)
            return s;
        if (!compact_wanted(c, s, need))
            continue;
        found++;
        /* Empty ones last: when the mail that their results are about has moved, they die without a copy. Where that mail stays
         * - on hold, or deferred - those with results about it come before the chain behind them, which then dies without one. */
        uint64_t order = !empty ? s->live_bytes : compact_holds_a_chain(p, s) ? UINT64_MAX - 1 : UINT64_MAX;
        if (!best || order < best_order) {
            best = s;
            best_order = order;
        }
    }
    c->chain = chained >= COMPACT_CHAIN;
    c->more = found > 1;
    if (need == COMPACT_PRESSURE && c->chain)
        compact_close_old(p);
    return best;
}

static void compact_end(struct compaction *c)
{
    struct pool *p = c->pool;
    uint64_t now = io_now_ns(p->io);
    walk_fini(&c->walk);
    c->running = false;
    if (c->exchange && !c->failed) {
        exchange_take(p, c->victim);
        c->next_ns = now; /* the next one into the same segment */
        return;
    }
    if (c->exchange)
        exchange_leave_out(p);
    c->victim->compacting = false;
    if (!c->victim->dirty) {
        c->victim->dirty = true;
        p->dirty_segments++;
    }
    p->count_compacted += !c->failed;
    c->victim->compacted = !c->failed && !c->source_lives;
    c->victim->compact_after_ns = c->full ? now : now + COMPACT_AGAIN_NS;
    bool hurry = c->source_lives || (!c->failed && (c->more || compact_pressure(p)));
    uint64_t pause = hurry ? COMPACT_HURRY_NS : c->failed && !c->full ? 10 * COMPACT_PAUSE_NS : COMPACT_PAUSE_NS;
    c->next_ns = now + pause;
}

static void compact_on_copied(struct spool_group *g, enum err e)
{
    struct compaction *c = g->owner;
    struct copy *copy = CONTAINER_OF(g, struct copy, group);
    copy->used = false;
    c->in_flight--;
    c->failed = c->failed || e != ERR_OK;
    c->full = c->full || e == ERR_FULL;
    c->pool->compact_stuck = c->pool->compact_stuck || e == ERR_FULL; /* until a segment is freed: by exchange.c */
}

static struct copy *compact_take(struct compaction *c)
{
    for (uint32_t i = 0; i < COMPACT_COPIES_IN_FLIGHT_MAX; i++)
        if (!c->copies[i].used)
            return &c->copies[i];
    return NULL;
}

static uint32_t compact_state(const struct index_entry *e)
{
    return e->state == INDEX_HOLD ? RECORD_STATE_HOLD : e->state == INDEX_EXPIRE ? RECORD_STATE_EXPIRE : RECORD_STATE_RELEASE;
}

/* ERR_BUSY: once more later. */
static enum err compact_copy(struct compaction *c, const struct index_entry *e)
{
    struct copy at_once, *copy = c->exchange ? &at_once : compact_take(c);
    if (!copy)
        return ERR_BUSY;
    memset(copy, 0, sizeof *copy);
    uint32_t n = 1;
    copy->records[0] = (struct spool_record){.type = c->record.type, .qid = c->record.qid, .raw = c->record.bytes,
                                             .raw_bytes = c->record.length};
    if (e && e->marks_bytes && !PLANTED(compact_drops_marks))
        copy->records[n++] = (struct spool_record){.type = RECORD_MARK, .qid = c->record.qid,
                                                   .parts = {{e->marks, e->marks_bytes}}};
    if (e && !PLANTED(compact_drops_hold)) /* always: of the STATEs before it some may be gone and others not (CMP-1) */
        copy->records[n++] = (struct spool_record){.type = RECORD_STATE, .qid = c->record.qid, .arg = compact_state(e)};
    copy->group = (struct spool_group){.records = copy->records, .count = n, .class = SPOOL_COMPACTION,
                                       .done = compact_on_copied, .owner = c, .moved_from = c->victim->id};
    if (c->exchange)
        return exchange_add(c->pool, &copy->group);
    enum err err = spool_submit(c->pool, &copy->group);
    if (err != ERR_OK)
        return err;
    copy->used = true;
    c->in_flight++;
    return ERR_OK;
}

static bool place_is(const struct place *at, const struct compaction *c)
{
    return segment_id_equal(at->segment, c->victim->id) && at->frame == c->frame.offset && at->record == c->record.offset;
}

/* IDX-5 */
static bool compact_copy_stays(const struct compaction *c, const struct index_query *q)
{
    bool stays = q->copy_count == INDEX_COPIES_MAX; /* there may be more */
    for (uint32_t i = 0; i < q->copy_count; i++) {
        const struct segment *s = segment_find(c->pool, q->copies[i]);
        stays = stays || (s && s != c->victim && !(c->exchange && exchange_holds(c->pool, s)));
    }
    return stays;
}

static bool compact_answered_live(const struct compaction *c, const struct index_query *q)
{
    switch (q->kind) {
    case INDEX_LOOKUP:
        return q->entry_count == 1 && place_is(&q->entries[0].place, c);
    case INDEX_COPIES:
        return compact_copy_stays(c, q);
    default:
        return q->max > 0 && place_is(&q->chunks[0].place, c);
    }
}

static void compact_on_answer(struct index_query *q, enum err e)
{
    struct compaction *c = q->owner;
    c->asking = false;
    bool live = e == ERR_OK && compact_answered_live(c, q);
    enum err copied = ERR_OK;
    if (live && !c->failed)
        copied = compact_copy(c, q->kind == INDEX_LOOKUP ? &q->entries[0] : NULL);
    index_query_fini(q);
    if (e != ERR_OK && e != ERR_NOT_FOUND && e != ERR_LOST)
        c->failed = true;
    if (copied != ERR_BUSY) {
        c->have_record = false;
        c->failed = c->failed || copied != ERR_OK;
    }
}

static void compact_ask(struct compaction *c, enum index_query_kind kind)
{
    c->query = (struct index_query){.kind = kind, .qid = c->record.qid, .first = c->record.arg, .max = 1,
                                    .done = compact_on_answer, .owner = c};
    c->asking = true;
    index_query(c->pool->index, &c->query);
}

/* Results about messages that lie in other segments that stay. Those about messages here went along as marks (CMP-1). */
static bool compact_result_needed(struct compaction *c)
{
    if (c->victim->chunks_only)
        return false; /* MRG-1 */
    struct segment *about = segment_find(c->pool, c->record.message_segment);
    bool goes = !about || about == c->victim || (c->exchange && exchange_holds(c->pool, about));
    return !goes && !(PLANTED(compact_drops_retire) && c->record.type == RECORD_RETIRE);
}

/* Other copies of the message keep a RETIRE, too, and the segment it lies in depends on them. */
static bool compact_retire_may_be_needed(const struct compaction *c)
{
    return c->record.type == RECORD_RETIRE && !c->victim->chunks_only && !PLANTED(compact_drops_retire) &&
           (c->victim->dep_count > 0 || c->victim->deps_overflowed);
}

static void compact_record(struct compaction *c)
{
    switch (c->record.type) {
    case RECORD_MESSAGE:
        if (compact_ahead_dead(&c->ahead, c->record.qid))
            c->have_record = false;
        else
            compact_ask(c, INDEX_LOOKUP);
        return;
    case RECORD_CHUNK:
        if (PLANTED(compact_drops_chunks))
            c->have_record = false;
        else
            compact_ask(c, INDEX_CHUNKS);
        return;
    case RECORD_MARK:
    case RECORD_RETIRE:
    case RECORD_STATE: {
        if (!compact_result_needed(c) && compact_retire_may_be_needed(c)) {
            compact_ask(c, INDEX_COPIES);
            return;
        }
        enum err e = compact_result_needed(c) ? compact_copy(c, NULL) : ERR_OK;
        c->have_record = e == ERR_BUSY;
        c->failed = c->failed || (e != ERR_OK && e != ERR_BUSY);
        return;
    }
    default:
        c->have_record = false;
    }
}

static void compact_on_frame(struct walk *w, const struct frame_view *f)
{
    struct compaction *c = w->owner;
    c->frame = *f;
    c->have_frame = true;
    struct segment *source = segment_id_is_none(f->moved_from) ? NULL : segment_find(c->pool, f->moved_from);
    if (source && !(c->exchange && exchange_holds(c->pool, source))) {
        /* its RETIREs also keep what lies in there from coming back: that one goes first */
        c->source_lives = c->failed = true;
        source->compact_first = true;
    }
    c->at = FRAME_HEAD_BYTES;
    c->left = f->record_count;
}

static void compact_on_lost(struct walk *w, uint64_t offset, uint64_t bytes)
{
    struct compaction *c = w->owner;
    (void)offset;
    (void)bytes;
    c->failed = true; /* a segment with a record no present image can read is not freed: it stays as it is */
}

static void compact_on_end(struct walk *w)
{
    struct compaction *c = w->owner;
    c->walked = true;
}

static void compact_on_barrier(struct index_query *q, enum err e)
{
    struct compaction *c = q->owner;
    index_query_fini(q);
    c->asking = false;
    c->failed = c->failed || e != ERR_OK;
    c->barrier = true;
}

static bool compact_asks(const struct compaction *c)
{
    return c->asking || c->ahead.asking;
}

/* Where slots are short, space comes before latency. */
static bool compact_may_read(const struct compaction *c)
{
    return compact_pressure(c->pool) || c->pool->stopping ||
           upkeep_may(c->pool, segment_members(c->victim), IO_CLASS_COMPACT);
}

/* One thing at a time: the next record of the frame, or the next frame. */
static void compact_advance(struct compaction *c)
{
    if (c->have_record) {
        compact_record(c);
    } else if (c->have_frame && c->frame.offset >= c->ahead.until && !c->failed) {
        compact_ahead_ask(&c->ahead, c->pool, &c->walk, &c->frame);
    } else if (c->have_frame && c->left > 0 && !c->failed) {
        c->left--;
        enum err e = verify_record(c->frame.bytes, c->at, c->frame.records_end, &c->record);
        if (e != ERR_OK) {
            c->failed = true;
            return;
        }
        c->at = (c->at + c->record.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        c->have_record = true;
    } else if (c->have_frame && !c->failed && compact_may_read(c)) {
        c->have_frame = false;
        walk_next(&c->walk);
    }
}

static void compact_on_applied(struct index_query *q, enum err e)
{
    struct compaction *c = q->owner;
    index_query_fini(q);
    c->asking = false;
    c->failed = c->failed || e != ERR_OK;
}

static bool results_stuck(struct pool *p)
{
    enum err why;
    p->results_stuck = p->results_stuck && !placement_possible(p, SPOOL_RESULT, 0, &why); /* a member may have come */
    return p->results_stuck;
}

/* Nothing to compact into: the victims of an exchange, one after the other. NULL: none just now. */
static struct segment *compact_exchanges(struct compaction *c)
{
    struct pool *p = c->pool;
    struct segment *victim = exchange_choose(p);
    if (exchange_fills(p)) {
        if (!victim)
            exchange_say(p);
        return victim;
    }
    c->exchange = victim && exchange_open(p, victim) == ERR_OK;
    if (c->exchange)
        c->next_ns = io_now_ns(p->io);
    return NULL;
}

static bool compact_begin(struct compaction *c)
{
    struct pool *p = c->pool;
    c->next_ns = io_now_ns(p->io) + COMPACT_PAUSE_NS;
    c->exchange = exchange_fills(p);
    c->victim = NULL;
    if (c->exchange || p->compact_stuck)
        c->victim = compact_exchanges(c);
    if (!c->exchange)
        c->victim = compact_choose(c);
    if (!c->exchange && !c->victim && results_stuck(p)) /* CMP-4 */
        c->victim = compact_exchanges(c);
    if (!c->victim)
        return false;
    c->victim->compacting = true;
    c->running = true;
    c->source_lives = false;
    c->have_frame = c->have_record = c->walked = c->failed = c->barrier = c->full = false;
    c->ahead.count = 0;
    c->ahead.until = 0;
    c->walk = (struct walk){.pool = p, .segment = c->victim, .offset = BLOCK_BYTES, .end = c->victim->length,
                            .class = IO_CLASS_COMPACT, .on_frame = compact_on_frame, .on_lost = compact_on_lost,
                            .on_end = compact_on_end, .owner = c};
    if (c->exchange) { /* what the replay reads from there later must not bring back what is retired by now */
        c->query = (struct index_query){.kind = INDEX_BARRIER, .done = compact_on_applied, .owner = c};
        c->asking = true;
        index_query(p->index, &c->query);
    }
    return walk_start(&c->walk) == ERR_OK;
}

/* False: not yet. */
static bool compact_settled(struct compaction *c)
{
    struct pool *p = c->pool;
    if (c->exchange && exchange_writes(p))
        return false;
    if (c->failed)
        return true;
    if (c->exchange) {
        enum err e = exchange_settle(p);
        c->failed = e != ERR_OK && e != ERR_BUSY;
        return e != ERR_BUSY;
    }
    if (c->barrier)
        return true;
    c->query = (struct index_query){.kind = INDEX_BARRIER, .done = compact_on_barrier, .owner = c};
    c->asking = true;
    index_query(p->index, &c->query);
    return false;
}

#define COMPACT_STEPS 256u

void compact_step(struct pool *p)
{
    struct compaction *c = p->compaction;
    if (!c) {
        c = p->compaction = calloc(1, sizeof *c);
        if (!c)
            return;
        c->pool = p;
    }
    exchange_step(p);
    if (!c->running) {
        bool exchanges = !exchange_idle(p) && !exchange_fills(p);
        if (exchanges || p->stopping || !p->index_live || io_now_ns(p->io) < c->next_ns || !compact_begin(c))
            return;
    }
    walk_step(&c->walk);
    c->failed = c->failed || c->walk.unreadable || (c->exchange && exchange_failed(p));
    bool reading = false;
    for (uint32_t n = 0; n < COMPACT_STEPS && !compact_asks(c) && !c->failed && !c->walked && !reading; n++) {
        bool had = c->have_record, rests = c->have_frame && !c->have_record && c->left == 0;
        reading = !c->have_frame && !c->have_record;
        compact_advance(c);
        if ((had && c->have_record) || (rests && c->have_frame && c->left == 0))
            break; /* no room, or no tokens: later */
    }
    if ((!c->walked && !c->failed) || compact_asks(c) || c->in_flight > 0)
        return;
    if (c->failed && !c->walked)
        walk_stop(&c->walk);
    if (!walk_idle(&c->walk))
        return;
    if (compact_settled(c))
        compact_end(c);
}

void compact_stop(struct pool *p)
{
    struct compaction *c = p->compaction;
    if (c && c->running)
        c->failed = true; /* compact_step brings it to its end */
}

void compact_fini(struct pool *p)
{
    struct compaction *c = p->compaction;
    p->compaction = NULL;
    if (c && c->running)
        walk_fini(&c->walk);
    free(c);
    exchange_fini(p);
}

bool compact_idle(const struct pool *p)
{
    return compact_at_rest(p) && exchange_idle(p);
}

bool compact_at_rest(const struct pool *p)
{
    return !p->compaction || !p->compaction->running;
}
