/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: how much a run has met. Which slots were used how often, what was under way when the power went, and whether
 * that is enough for a seed that counts (MSR-1). Reads the writes that pass by, never the engine.
 *
 *  MSR-1  a measured seed has begun MEASURE_APPENDS appends, crashed MEASURE_CRASHES times, and every slot of every
 *         member was used again MEASURE_REUSES times; its work goes on until then, within MEASURE_ACTIONS_MAX. */
#include "world.h"

#include <spoolfs/format.h>
#include <string.h>

static bool image_header_of(const struct world *w, const struct io_op *op, struct image_head_disk *head, uint64_t *slot)
{
    if (op->kind != IO_WRITE || op->length != BLOCK_BYTES || op->offset < PLAN_SLOTS_OFFSET ||
        (op->offset - PLAN_SLOTS_OFFSET) % w->plan.segment_bytes)
        return false;
    *slot = (op->offset - PLAN_SLOTS_OFFSET) / w->plan.segment_bytes;
    memcpy(head, op->buffer, sizeof *head);
    return *slot < WORLD_SLOTS_MAX && le64_get(head->magic) == IMAGE_MAGIC;
}

/* Another segment's image header than the last one there: the slot is used again. */
void measure_slot(struct world *w, const struct io_op *op)
{
    struct image_head_disk head;
    uint64_t slot;
    bool wrong_disk = w->atlas.aside && op->target == w->atlas.victim;
    if (wrong_disk || !image_header_of(w, op, &head, &slot))
        return;
    struct slot_use *use = &w->slots[op->target][slot];
    struct segment_id id = segment_id_disk_get(head.segment);
    if (segment_id_equal(use->last, id))
        return;
    use->last = id;
    w->counts.slots_used += use->times == 0;
    w->counts.slots_reused += use->times != 0;
    w->counts.reused_while_out += use->times != 0 && (w->atlas.out || w->atlas.aside || w->halves.apart);
    use->times++;
}

/* Two members have changed places. */
void measure_swap(struct world *w, uint16_t a, uint16_t b)
{
    struct slot_use kept[WORLD_SLOTS_MAX];
    memcpy(kept, w->slots[a], sizeof kept);
    memcpy(w->slots[a], w->slots[b], sizeof kept);
    memcpy(w->slots[b], kept, sizeof kept);
}

/* --- frames --- */

struct under_way { struct world *w; bool seal, hedge, compaction, rebuild, repair; };
struct twin { const struct io_op *op; bool found; };

static bool frame_of(const struct io_op *op, struct frame_head_disk *frame, struct record_head_disk *record)
{
    if (op->kind != IO_WRITE || op->length < FRAME_HEAD_BYTES + sizeof *record)
        return false;
    memcpy(frame, op->buffer, sizeof *frame);
    memcpy(record, (const uint8_t *)op->buffer + FRAME_HEAD_BYTES, sizeof *record);
    return le64_get(frame->magic) == FRAME_MAGIC && le32_get(frame->records_end) <= op->length;
}

/* The record at *at, which is set behind it; false: there is none. */
static bool frame_next(const struct io_op *op, const struct frame_head_disk *frame, uint32_t *at, struct record_head_disk *r_out)
{
    if (*at + RECORD_HEAD_BYTES > le32_get(frame->records_end))
        return false;
    memcpy(r_out, (const uint8_t *)op->buffer + *at, sizeof *r_out);
    *at += (le32_get(r_out->length) + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
    return true;
}

static bool frame_has_seal(const struct io_op *op, const struct frame_head_disk *frame)
{
    struct record_head_disk r;
    for (uint32_t at = FRAME_HEAD_BYTES; frame_next(op, frame, &at, &r);)
        if (r.type == RECORD_SEAL)
            return true;
    return false;
}

/* --- exchanges: from the OPEN of a provisional segment to the record group that frees its victims, or it --- */

static bool freed_names(const uint8_t *ids, uint32_t count, struct segment_id id)
{
    for (uint32_t i = 0; i < count; i++) {
        struct id_disk d;
        memcpy(&d, ids + i * sizeof d, sizeof d);
        if (segment_id_equal(segment_id_disk_get(d), id))
            return true;
    }
    return false;
}

static void exchange_record(struct world *w, const struct record_head_disk *r, const uint8_t *payload, bool over)
{
    struct table_segment_disk d;
    uint32_t bytes = le32_get(r->length) - RECORD_HEAD_BYTES;
    if (r->type == RECORD_FREED && over && freed_names(payload, bytes / (uint32_t)sizeof(struct id_disk), w->exchange))
        w->exchange = (struct segment_id){0};
    if ((r->type != RECORD_OPEN && r->type != RECORD_SEAL) || bytes < sizeof d)
        return;
    memcpy(&d, payload, sizeof d);
    bool it = segment_id_equal(segment_id_disk_get(d.id), w->exchange);
    if (r->type == RECORD_OPEN && d.provisional && !over)
        w->exchange = segment_id_disk_get(d.id);
    else if (r->type == RECORD_SEAL && it && over) {
        w->counts.exchanges++;
        w->exchange = (struct segment_id){0};
    }
}

/* A write that is about to be in flight, or one that is over. */
void measure_exchange(struct world *w, const struct io_op *op, bool over)
{
    struct frame_head_disk frame;
    struct record_head_disk r;
    if ((over && op->result != ERR_OK) || !frame_of(op, &frame, &r) || r.type <= RECORD_STATE)
        return;
    for (uint32_t at = FRAME_HEAD_BYTES, from = at; frame_next(op, &frame, &at, &r); from = at)
        exchange_record(w, &r, (const uint8_t *)op->buffer + from + RECORD_HEAD_BYTES, over);
}

/* --- crashes --- */

/* The same record on its way to another segment. Copies of a compaction keep their digest, too: they are told apart. */
static void look_for_twin(void *owner, const struct io_op *op)
{
    struct twin *twin = owner;
    struct frame_head_disk a, b;
    struct record_head_disk x, y;
    if (twin->found || !frame_of(op, &a, &x) || !frame_of(twin->op, &b, &y))
        return;
    twin->found = memcmp(&a.segment, &b.segment, sizeof a.segment) != 0 && x.type == y.type && x.type <= RECORD_STATE &&
                  memcmp(&x.qid, &y.qid, sizeof x.qid) == 0 &&
                  le64_get(a.moved_incarnation) == le64_get(b.moved_incarnation);
}

static void look_at_op(void *owner, const struct io_op *op)
{
    struct under_way *u = owner;
    struct frame_head_disk frame;
    struct record_head_disk record;
    u->compaction |= op->kind == IO_READ && op->class == IO_CLASS_COMPACT;
    u->rebuild |= op->class == IO_CLASS_REBUILD && !u->w->mounting; /* until then: a replay's reads */
    u->repair |= op->class == IO_CLASS_REPAIR;
    if (!frame_of(op, &frame, &record))
        return;
    u->compaction |= le64_get(frame.moved_incarnation) != 0;
    u->seal |= frame_has_seal(op, &frame);
    struct twin twin = {.op = op};
    sim_io_each_in_flight(u->w->sim, &twin, look_for_twin);
    u->hedge |= twin.found;
}

/* Just before the power goes or the process is killed with `op`, which is about to be in flight. */
void measure_crash(struct world *w, const struct io_op *op)
{
    struct under_way u = {.w = w};
    sim_io_each_in_flight(w->sim, &u, look_at_op);
    look_at_op(&u, op);
    w->struck = (struct struck){.compaction = u.compaction, .hedge = u.hedge, .seal = u.seal, .recovery = w->mounting && !w->pool,
                               .merge = w->halves.meeting && w->mounting && !w->pool};
    w->counts.crashes_in_exchange += !segment_id_equal(w->exchange, (struct segment_id){0});
    w->counts.crashes_in_compaction += u.compaction;
    w->counts.crashes_in_hedge += u.hedge;
    w->counts.crashes_in_seal += u.seal;
    w->counts.crashes_in_recovery += w->struck.recovery;
    w->counts.crashes_in_merge += w->struck.merge;
    w->counts.crashes_in_rebuild += u.rebuild;
    w->counts.crashes_in_repair += u.repair;
    w->counts.crashes_before_index += w->mounting && w->pool;
}

/* The mount behind a crash finds no index. */
void measure_index_lost(struct world *w)
{
    w->counts.index_lost_in_compaction += w->struck.compaction;
    w->counts.index_lost_in_hedge += w->struck.hedge;
    w->counts.index_lost_in_seal += w->struck.seal;
    w->counts.index_lost_in_recovery += w->struck.recovery;
    w->counts.index_lost_in_merge += w->struck.merge;
}

/* --- enough --- */

/* Of the least used slot of a member, but for those that a bad place keeps from use. */
static uint32_t reuses_of(struct world *w, uint16_t member)
{
    bool away = w->atlas.aside && member == w->atlas.victim;
    const struct sim_disk *disk = away ? w->atlas.aside : sim_io_disk(w->sim, member);
    uint64_t slots = (sim_disk_bytes(disk) - PLAN_ENDS_BYTES) / w->plan.segment_bytes;
    uint32_t least[MEASURE_HELD + 1]; /* rising */
    for (uint32_t i = 0; i <= MEASURE_HELD; i++)
        least[i] = UINT32_MAX;
    for (uint64_t slot = 0; slot < slots && slot < WORLD_SLOTS_MAX; slot++) {
        uint32_t times = w->slots[member][slot].times, reuses = times ? times - 1 : 0;
        for (uint32_t i = 0; i <= MEASURE_HELD; i++) {
            uint32_t kept = least[i];
            least[i] = reuses < kept ? reuses : kept;
            reuses = reuses < kept ? kept : reuses;
        }
    }
    return least[MEASURE_HELD];
}

/* Members of the first hour that are in service now: others came late or went early. */
static uint32_t measure_reuses(struct world *w, bool patient, uint32_t *member_out)
{
    static struct pool_status s; /* large; one thread */
    uint32_t least = UINT32_MAX;
    pool_status(w->pool, &s);
    for (uint16_t m = 0; m < w->plan.first_members; m++) {
        bool counts = m == w->atlas.victim ? patient : false;
        for (uint32_t i = 0; i < s.member_count && m != w->atlas.victim; i++)
            counts = counts || (strcmp(s.members[i].path, w->config.members[m].path) == 0 && s.members[i].state == MEMBER_HEALTHY);
        uint32_t reuses = counts ? reuses_of(w, m) : UINT32_MAX;
        if (reuses < least) {
            least = reuses;
            *member_out = m;
        }
    }
    return least;
}

/* The run ends and is judged like any other; that it does not count is told, and how many may not is for --require. */
static void measure_short(struct world *w, const char *why)
{
    w->counts.short_of_measure++;
    w->enough = true;
    world_say(w, "the plan: after %u actions %s", w->begun, why);
}

static bool measure_reached(struct world *w)
{
    const struct world_counts *c = &w->counts;
    bool patient = w->begun < MEASURE_VICTIM * w->plan.ops;
    uint32_t member = 0, reuses;
    if (!w->pool || c->acked < MEASURE_APPENDS || c->crashes < MEASURE_CRASHES)
        return false;
    reuses = measure_reuses(w, patient, &member);
    if (reuses < MEASURE_REUSES && w->begun >= MEASURE_ACTIONS_MAX)
        measure_short(w, "a slot of a member was used again too seldom");
    return reuses >= MEASURE_REUSES;
}

void measure_worn_out(struct world *w)
{
    if (!w->enough)
        measure_short(w, "bad places left no room for results");
}

static uint64_t measure_epoch(struct world *w)
{
    static struct pool_status s;
    if (!w->pool)
        return 0;
    pool_status(w->pool, &s);
    return s.epoch;
}

bool measure_goes_on(struct world *w)
{
    if (w->begun < w->plan.ops || !w->plan.measured)
        return w->begun < w->plan.ops;
    if (!w->enough && w->begun >= w->measure_next) {
        w->measure_next = w->begun + MEASURE_EVERY;
        w->enough = measure_reached(w) || w->enough;
        if (!w->enough && w->begun >= 2 * MEASURE_ACTIONS_MAX)
            measure_short(w, "there were too few appends or crashes");
        if (!w->enough && measure_epoch(w) >= MEASURE_EPOCHS_MAX)
            measure_short(w, "the pool was mounted as often as it remembers");
    }
    return !w->enough;
}
