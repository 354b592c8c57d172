/* SPDX-License-Identifier: Apache-2.0 */
/* EXC-1 to EXC-4: a pool in which compaction has no slot left gets out by itself, and no crash on the way costs it one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compact.h"
#include "story.h"

#include <stdlib.h>

#define MESSAGES 90u

/* All but what compaction leaves alone is gone, as if each slot had a place that stays bad. */
static void take_free_slots(struct world *w, uint32_t left)
{
    for (uint32_t i = 0; i < w->plan.members; i++) {
        struct member *m = &w->pool->members[i];
        uint32_t slot;
        while (m->slots_free > slot_reserve(m, SPOOL_COMPACTION) + left && slot_find(m, &slot)) {
            m->slots_free--;
            slot_retire(m, slot);
        }
    }
}

static uint32_t free_slots(const struct world *w, uint32_t member) { return w->pool->members[member].slots_free; }

static void turns_for(struct world *w, uint64_t seconds)
{
    uint64_t until = io_now_ns(w->io) + seconds * NS_PER_S;
    while (!world_failed(w) && !world_crashed(w) && io_now_ns(w->io) < until)
        world_turn(w);
}

/* Segments in which a message here and there is left; then not a slot that compaction might take. */
static struct world *open_full(uint64_t seed, uint32_t members)
{
    struct world *w = story_open(seed, members, seed % 2 ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH);
    assert_true(world_create_pool(w) && world_mount(w));
    story_append(w, MESSAGES, 40000);
    turns_for(w, 1);
    take_free_slots(w, 1); /* for the results below */
    for (uint32_t i = 0; i < MESSAGES && !world_failed(w); i++)
        if (i % 12 != seed % 12)
            senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    w->pool->compact_stuck = true; /* no compaction of the usual kind on the way */
    world_settle(w);
    take_free_slots(w, 0);
    return w;
}

static void a_pool_without_a_slot_to_compact_into_gets_out_by_itself(void **state)
{
    (void)state;
    uint32_t exchanges = 0;
    for (uint64_t seed = 300; seed < 308; seed++) {
        struct world *w = open_full(seed, (uint32_t)(2 + seed % 3));
        uint32_t before[MEMBERS_MAX], gained = 0;
        for (uint32_t i = 0; i < w->plan.members; i++)
            before[i] = free_slots(w, i);
        bool exchanged = false;
        for (uint64_t until = io_now_ns(w->io) + 30 * NS_PER_S; !world_failed(w) && io_now_ns(w->io) < until;) {
            world_turn(w);
            exchanged = exchanged || exchange_fills(w->pool);
        }
        exchanges += exchanged; /* in larger pools enough may die without a copy */
        for (uint32_t i = 0; i < w->plan.members; i++) {
            assert_true(free_slots(w, i) >= before[i]); /* EXC-2 */
            gained += free_slots(w, i) - before[i];
        }
        assert_true(gained >= 2);
        assert_true(w->pool->count_compacted >= 2 || !exchanged); /* two for one; or what died without a copy gave the slots */
        assert_true(exchange_idle(w->pool));
        audit_run(w);
        story_cut(w, SIM_SURVIVE_NONE);
        if (world_mount(w))
            audit_run(w);
        story_close(w, "a full pool", seed);
    }
    assert_true(exchanges >= 3);
}

/* Where in the run the exchange begins and ends: the cuts below go between. */
static void find_exchange(uint64_t seed, uint64_t *begin_out, uint64_t *end_out)
{
    struct world *w = open_full(seed, 2);
    for (uint32_t n = 0; n < 10000 && !world_failed(w) && exchange_idle(w->pool); n++)
        world_turn(w);
    *begin_out = sim_io_counts(w->sim)->ops;
    while (!world_failed(w) && !exchange_idle(w->pool))
        world_turn(w);
    *end_out = sim_io_counts(w->sim)->ops;
    story_close(w, "undisturbed", seed);
}

/* After each the mount has its place for the segment table, all is there, and no slot is lost: neither what was half copied nor
 * what the record has freed. */
static void no_crash_in_an_exchange_costs_a_slot(void **state)
{
    (void)state;
    uint64_t begin, end;
    find_exchange(301, &begin, &end);
    assert_true(end > begin + 10);
    for (uint64_t at = begin; at < end; at++) {
        struct world *w = open_full(301, 2);
        uint32_t before[2] = {free_slots(w, 0), free_slots(w, 1)};
        w->scripted_cut = at;
        w->scripted_kill = at % 3 == 0;
        sim_io_set_survival(w->sim, at % 2 ? SIM_SURVIVE_RANDOM : SIM_SURVIVE_NONE);
        while (!world_failed(w) && !world_crashed(w))
            world_turn(w);
        w->scripted_cut = UINT64_MAX;
        world_after_crash(w);
        if (world_mount(w))
            for (uint32_t i = 0; i < 2; i++)
                assert_true(free_slots(w, i) >= before[i]); /* EXC-1; the segment table is on both, before and after */
        if (!world_failed(w))
            audit_run(w);
        turns_for(w, 30);
        assert_true(w->pool->count_compacted >= 2 || free_slots(w, 0) > before[0]);
        audit_run(w);
        story_close(w, "cut at operation", at);
    }
}

static void mark_in_doubt(struct world *w, bool doubt)
{
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        if (w->pool->segments[i].state == SEGMENT_SEALED)
            w->pool->segments[i].in_doubt = doubt;
}

/* A mount that could not read to the end of a segment, because nobody answered, does not know what is behind: it is kept as it is. */
static void what_may_hold_more_than_was_read_is_no_victim(void **state)
{
    (void)state;
    struct world *w = open_full(301, 2);
    mark_in_doubt(w, true);
    for (uint64_t until = io_now_ns(w->io) + 10 * NS_PER_S; !world_failed(w) && io_now_ns(w->io) < until;) {
        world_turn(w);
        assert_true(exchange_idle(w->pool));
    }
    mark_in_doubt(w, false);
    turns_for(w, 30);
    assert_true(w->pool->count_compacted >= 2);
    audit_run(w);
    story_close(w, "in doubt", 301);
}

struct deletion { struct spool_group group; struct spool_record record; struct model *model; struct model_message *msg; };

static void on_deleted(struct spool_group *g, enum err e)
{
    struct deletion *d = g->owner;
    model_on_retired(d->model, d->msg, e);
}

/* As an administrator deletes: no lease, and the place may be a victim's in the next moment. */
static bool delete_message(struct world *w, struct model_message *msg, struct deletion *d)
{
    *d = (struct deletion){.model = &w->model, .msg = msg};
    d->record = (struct spool_record){.type = RECORD_RETIRE, .qid = msg->qid, .message_segment = msg->place.segment};
    d->group = (struct spool_group){.records = &d->record, .count = 1, .class = SPOOL_RESULT, .done = on_deleted, .owner = d};
    return spool_submit(w->pool, &d->group) == ERR_OK;
}

/* What is deleted while its segment is being chosen, or copied, does not come back with the copies (EXC-7). */
static void what_is_deleted_meanwhile_stays_so(void **state)
{
    (void)state;
    static struct deletion d[MESSAGES];
    uint32_t deleted = 0;
    for (uint32_t turns = 0; turns < 24; turns++) {
        struct world *w = open_full(301, 2);
        for (uint32_t n = 0; n < 10000 && !world_failed(w) && exchange_idle(w->pool); n++)
            world_turn(w);
        for (uint32_t n = 0; n < turns && !world_failed(w); n++)
            world_turn(w);
        for (uint32_t i = 0; i < MESSAGES; i++)
            deleted += model_must_be_there(&w->model.messages[i]) && delete_message(w, &w->model.messages[i], &d[i]);
        turns_for(w, 20);
        audit_run(w);
        story_cut(w, SIM_SURVIVE_ALL);
        if (!world_failed(w) && world_mount(w))
            audit_run(w);
        story_close(w, "deleted after turn", turns);
    }
    assert_true(deleted > 0);
}

static const struct segment *fed_by_exchange(const struct world *w)
{
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        if (exchange_feeds(w->pool, &w->pool->segments[i]))
            return &w->pool->segments[i];
    return NULL;
}

/* The new segment cannot be read on any image while the index is told: the replay tells what that costs, and the exchange ends. What was
 * promised is broken here on purpose, so that the world is not asked for it. */
static void an_exchange_ends_when_what_it_wrote_cannot_be_read(void **state)
{
    (void)state;
    struct world *w = open_full(301, 2);
    const struct segment *s;
    while ((s = fed_by_exchange(w)) == NULL)
        world_turn(w);
    uint64_t lost = w->counts.events[EVENT_record_lost];
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &w->pool->members[s->images[i].member];
        for (uint64_t at = BLOCK_BYTES; at < s->length; at += BLOCK_BYTES)
            sim_disk_rot(sim_io_disk(w->sim, m->target), segment_image_offset(w->pool, &s->images[i]) + at + 200, 1);
    }
    turns_for(w, 60);
    assert_true(exchange_idle(w->pool));
    assert_true(w->pool->index_live);
    assert_true(w->counts.events[EVENT_record_lost] > lost);
    world_free(w);
    free(w);
}

/* A member leaves while the new segment fills: it comes to nothing, and the next one goes elsewhere. */
static void an_exchange_that_loses_a_member_comes_to_nothing(void **state)
{
    (void)state;
    struct world *w = open_full(302, 3);
    for (uint32_t n = 0; n < 10000 && !world_failed(w) && !exchange_fills(w->pool); n++)
        world_turn(w);
    uint16_t gone = UINT16_MAX;
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        if (w->pool->segments[i].provisional)
            gone = w->pool->members[w->pool->segments[i].images[0].member].target;
    assert_int_not_equal(gone, UINT16_MAX);
    sim_io_vanish(w->sim, gone);
    turns_for(w, 60);
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        assert_false(w->pool->segments[i].provisional && segment_on_member(&w->pool->segments[i], (uint8_t)gone));
    audit_run(w);
    sim_io_return(w->sim, gone);
    story_cut(w, SIM_SURVIVE_NONE);
    if (world_mount(w))
        audit_run(w);
    turns_for(w, 30);
    assert_true(w->pool->count_compacted > 0 || exchange_idle(w->pool));
    audit_run(w);
    story_close(w, "a member left", 302);
}

/* Nothing can be taken into it just then, as when what the victims were copied from lives on members that it is not on. */
static void an_exchange_that_takes_nothing_is_not_the_last(void **state)
{
    (void)state;
    struct world *w = open_full(302, 2);
    uint32_t before[2] = {free_slots(w, 0), free_slots(w, 1)};
    for (uint32_t n = 0; n < 10000 && !world_failed(w) && !exchange_fills(w->pool); n++)
        world_turn(w);
    assert_true(exchange_fills(w->pool));
    for (uint32_t i = 0; i < w->pool->segment_used; i++)
        w->pool->segments[i].compact_after_ns = io_now_ns(w->io) + 5 * NS_PER_S;
    compact_stop(w->pool); /* the one it has begun with */
    while (!world_failed(w) && !exchange_idle(w->pool))
        world_turn(w);
    assert_int_equal(w->pool->count_compacted, 0);
    w->pool->compact_stuck = true; /* as the next compaction would find: an open segment has a little room here */
    for (uint64_t until = io_now_ns(w->io) + 90 * NS_PER_S; io_now_ns(w->io) < until && !exchange_fills(w->pool);)
        world_turn(w);
    assert_true(exchange_fills(w->pool));
    turns_for(w, 30);
    assert_true(w->pool->count_compacted >= 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(free_slots(w, i) > before[i]);
    audit_run(w);
    story_close(w, "nothing to take", 302);
}

/* Of the slots that new mail leaves one is the segment table's: when a member is back, the table is on two members again at once, however
 * full the pool is. Where that member has no slot the table stays what it is. */
static void the_segment_table_takes_the_slot_that_is_kept_for_it(void **state)
{
    (void)state;
    for (uint32_t left = 0; left < 2; left++) {
        struct world *w = story_open(310 + left, 2, IO_DURABLE_DSYNC);
        assert_true(world_create_pool(w) && world_mount(w));
        story_append(w, 4, 4000);
        member_leave(&w->pool->members[1], MEMBER_SLOW, "a test");
        turns_for(w, 1);
        assert_int_equal(w->pool->table_segment->image_count, 1);
        struct member *m = &w->pool->members[1];
        uint64_t until = UINT64_MAX;
        while (!world_failed(w) && io_now_ns(w->io) < until) { /* what comes free meanwhile is taken, too */
            for (uint32_t slot; m->slots_free > left && w->pool->table_segment->image_count == 1 && slot_find(m, &slot);) {
                m->slots_free--;
                slot_retire(m, slot);
            }
            world_turn(w);
            if (until == UINT64_MAX && m->state == MEMBER_HEALTHY)
                until = io_now_ns(w->io) + NS_PER_S;
        }
        assert_int_equal(w->pool->table_segment->image_count, 1 + left);
        assert_int_equal(w->pool->table_segment->state, SEGMENT_OPEN);
        story_append(w, 1, 4000);
        audit_run(w);
        story_close(w, "slots left", left);
    }
}

/* Nothing is freed but through it. Where it shall be written anew and no member has a place for the next one, it stays open. */
static void the_segment_table_is_not_given_up_before_there_is_a_place_for_the_next(void **state)
{
    (void)state;
    struct world *w = story_open(312, 2, IO_DURABLE_DSYNC);
    assert_true(world_create_pool(w) && world_mount(w));
    story_append(w, MESSAGES, 40000);
    turns_for(w, 1);
    const struct segment *table = w->pool->table_segment;
    for (uint32_t i = 0; i < 2; i++) {
        struct member *m = &w->pool->members[i];
        for (uint32_t slot; m->slots_free > 0 && slot_find(m, &slot);) {
            m->slots_free--;
            slot_retire(m, slot);
        }
    }
    w->pool->table_renew = true;
    turns_for(w, 2);
    assert_ptr_equal(w->pool->table_segment, table);
    assert_int_equal(table->state, SEGMENT_OPEN);
    for (uint32_t i = 0; i < MESSAGES / 2 && !world_failed(w); i++) /* the results have room in what is open */
        senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    turns_for(w, 5);
    assert_true(free_slots(w, 0) > 0 && free_slots(w, 1) > 0);
    assert_ptr_not_equal(w->pool->table_segment, table); /* then it is */
    assert_int_equal(w->pool->table_segment->state, SEGMENT_OPEN);
    audit_run(w);
    story_close(w, "no place for the next segment table", 312);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_without_a_slot_to_compact_into_gets_out_by_itself),
        cmocka_unit_test(no_crash_in_an_exchange_costs_a_slot),
        cmocka_unit_test(what_may_hold_more_than_was_read_is_no_victim),
        cmocka_unit_test(what_is_deleted_meanwhile_stays_so),
        cmocka_unit_test(an_exchange_ends_when_what_it_wrote_cannot_be_read),
        cmocka_unit_test(an_exchange_that_loses_a_member_comes_to_nothing),
        cmocka_unit_test(an_exchange_that_takes_nothing_is_not_the_last),
        cmocka_unit_test(the_segment_table_takes_the_slot_that_is_kept_for_it),
        cmocka_unit_test(the_segment_table_is_not_given_up_before_there_is_a_place_for_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
