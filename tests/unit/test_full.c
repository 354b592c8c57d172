/* SPDX-License-Identifier: Apache-2.0 */
/* CMP-4, EXC-5: a pool that is full to the reserve of results, with leases out on all that is worth moving. Leases end with results,
 * results need slots, slots come from moving what is leased: it gets out by itself, and results go where the lease is. */
#include "compact.h"
#include "spool_world.h"

#include <spoolfs/index.h>

#define MESSAGES 320u
#define BODY 60000u
#define EVERY 4u                   /* one in so many stays: leased, as by a relay that delivers it */
#define AGAIN_NS (1 * NS_PER_S)    /* a relay tries again what found no slot */

static struct { struct sent end; bool asked; uint64_t again_ns; } lives[MESSAGES];

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **index_out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, index_out);
}

static uint32_t free_slots(void)
{
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (member_usable(&w.pool->members[i]) && w.pool->members[i].slots_free < least)
            least = w.pool->members[i].slots_free;
    return least;
}

static uint32_t reserve(enum spool_class class)
{
    return slot_reserve(&w.pool->members[0], class); /* the segment table is on both */
}

/* As if each had a place that stays bad. */
static void take_free_slots(uint32_t down_to)
{
    for (uint32_t i = 0; i < w.ram.count; i++) {
        struct member *m = &w.pool->members[i];
        uint32_t slot;
        while (m->slots_free > down_to && slot_find(m, &slot)) {
            m->slots_free--;
            slot_retire(m, slot);
        }
    }
}

static uint32_t count_open(void)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        struct segment *s = &w.pool->segments[i];
        bool mail = s->kind == SEGMENT_MAIL && s->state != SEGMENT_UNUSED && s->state != SEGMENT_SEALED;
        s->close_soon = s->close_soon || (mail && s->state == SEGMENT_OPEN);
        open += mail;
    }
    return open;
}

static enum err say_retired(uint32_t i)
{
    struct sent *s = &lives[i].end;
    *s = (struct sent){.record = {.type = RECORD_RETIRE, .qid = w.sent[i].record.qid,
                                  .message_segment = w.sent[i].record.place.segment}};
    s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_RESULT, .done = on_answer, .owner = s};
    return spool_submit(w.pool, &s->group);
}

static bool stays(uint32_t i)
{
    return i % EVERY == 0;
}

/* Mail passes; what stays is leased. Then nothing is open, and `slots` are free. */
static void fill_to(uint32_t slots)
{
    for (uint32_t i = 0; i < MESSAGES; i++) {
        assert_int_equal(append(BODY), ERR_OK);
        settle(5);
        assert_int_equal(w.sent[i].e, ERR_OK);
        if (stays(i)) {
            assert_int_equal(spool_lease(w.pool, w.sent[i].record.qid, w.sent[i].record.place.segment), ERR_OK);
            continue;
        }
        assert_int_equal(say_retired(i), ERR_OK);
        while (!lives[i].end.answered)
            turn();
        assert_int_equal(lives[i].end.e, ERR_OK);
    }
    uint64_t until = io_now_ns(&w.ram.io) + 10 * NS_PER_S;
    while (count_open() > 0 || io_now_ns(&w.ram.io) < until) {
        turn();
        w.ram.now_ns += NS_PER_MS;
        take_free_slots(slots);
    }
    assert_int_equal(free_slots(), slots);
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        const struct segment *s = &w.pool->segments[i];
        assert_true(s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL || (s->leased && s->live_bytes < s->length / 2));
    }
    assert_true(exchange_idle(w.pool));
}

static int setup_indexed_members(uint32_t members)
{
    setup_members(members);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    mount();
    while (!spool_index_ready(w.pool))
        turn();
    memset(lives, 0, sizeof lives);
    return 0;
}

static int setup_indexed(void **state)
{
    (void)state;
    return setup_indexed_members(2);
}

static int setup_one_member(void **state)
{
    (void)state;
    return setup_indexed_members(1);
}

/* A relay in which the results of those are ready that `ready` says: each is tried until it is taken. Returns how many wait still. */
static uint32_t relay_turn(bool (*ready)(uint32_t i))
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct sent *s = &lives[i].end;
        if (!stays(i) || !spool_leased(w.pool, w.sent[i].record.qid) || !ready(i))
            continue;
        if (lives[i].asked && s->answered && s->e == ERR_OK) {
            spool_lease_end(w.pool, w.sent[i].record.qid);
            continue;
        }
        waiting++;
        bool out = lives[i].asked && !s->answered;
        if (out || io_now_ns(&w.ram.io) < lives[i].again_ns)
            continue;
        enum err e = say_retired(i);
        assert_true(e == ERR_OK || e == ERR_FULL || e == ERR_BUSY);
        lives[i].asked = e == ERR_OK;
        lives[i].again_ns = io_now_ns(&w.ram.io) + AGAIN_NS;
    }
    turn();
    w.ram.now_ns += NS_PER_MS;
    return waiting;
}

static bool all_are_ready(uint32_t i)
{
    (void)i;
    return true;
}

/* Turns until all that `ready` says is over, or time is up. */
static uint32_t relay_for(uint64_t seconds, bool (*ready)(uint32_t i), uint32_t *exchanges_out)
{
    uint32_t waiting = MESSAGES;
    bool before = false;
    for (uint64_t until = io_now_ns(&w.ram.io) + seconds * NS_PER_S; waiting && io_now_ns(&w.ram.io) < until;) {
        waiting = relay_turn(ready);
        *exchanges_out += exchange_fills(w.pool) && !before;
        before = exchange_fills(w.pool);
    }
    return waiting;
}

struct answer { bool came; enum err e; };

static void on_lookup(struct index_query *q, enum err e)
{
    *(struct answer *)q->owner = (struct answer){true, e};
}

static struct index_entry look_up(uint32_t i, enum err *e_out)
{
    struct answer a = {0};
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = w.sent[i].record.qid, .done = on_lookup, .owner = &a};
    struct index_entry found = {0};
    index_query(spool_index(w.pool), &q);
    while (!a.came)
        turn();
    *e_out = a.e == ERR_OK && q.entry_count == 0 ? ERR_NOT_FOUND : a.e;
    if (*e_out == ERR_OK)
        found = (struct index_entry){.place = q.entries[0].place, .digest = q.entries[0].digest};
    index_query_fini(&q);
    return found;
}

/* At the reserve of results, and down to the slot that only an exchange takes. */
static void results_that_wait_for_a_slot_get_one(void **state)
{
    for (uint32_t slots = 2; slots <= 5; slots++) {
        uint32_t exchanges = 0;
        if (slots > 2)
            setup_indexed(state);
        assert_int_equal(reserve(SPOOL_COMPACTION), 2);
        assert_int_equal(reserve(SPOOL_RESULT), 5);
        fill_to(slots);
        assert_int_equal(relay_for(300, all_are_ready, &exchanges), 0);
        assert_true(exchanges > 0);
        for (uint64_t until = io_now_ns(&w.ram.io) + 120 * NS_PER_S; io_now_ns(&w.ram.io) < until;) {
            turn();
            w.ram.now_ns += NS_PER_MS;
        }
        assert_true(free_slots() > reserve(SPOOL_NEW_MAIL));
        assert_int_equal(append(BODY), ERR_OK);
        if (slots < 5)
            teardown(state);
    }
}

/* EXC-3: a pool of one member, or of the only one that is left, gets on with its last slot. With two it is the segment table's, which
 * would have to leave a member that fails. */
static void the_last_slot_serves_where_the_table_is_on_that_member_alone(void **state)
{
    uint32_t exchanges = 0;
    fill_to(1);
    assert_int_equal(w.pool->table_segment->image_count, 1);
    assert_int_equal(relay_for(300, all_are_ready, &exchanges), 0);
    assert_true(exchanges > 0);
    assert_int_equal(append(BODY), ERR_OK);
    pass_seconds(5);
    teardown(state);
    setup_indexed(state);
    fill_to(1);
    exchanges = 0;
    assert_true(relay_for(30, all_are_ready, &exchanges) > 0);
    assert_int_equal(exchanges, 0);
}

static void with_a_slot_for_results_nothing_leased_is_moved(void **state)
{
    (void)state;
    uint32_t exchanges = 0;
    fill_to(reserve(SPOOL_RESULT) + 1);
    assert_int_equal(relay_for(10, all_are_ready, &exchanges), 0);
    assert_int_equal(exchanges, 0);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_true(!lives[i].end.answered || lives[i].end.e == ERR_OK);
}

/* One of them only asks, again and again; the peers of the others do not answer. */
static bool only_the_first_is_ready(uint32_t i)
{
    return i == 0;
}

static void what_is_leased_is_moved_and_its_results_go_there(void **state)
{
    (void)state;
    uint32_t exchanges = 0, moved = 0;
    fill_to(reserve(SPOOL_RESULT));
    assert_int_equal(relay_for(60, only_the_first_is_ready, &exchanges), 0);
    assert_true(exchanges > 0);
    for (uint32_t i = 1; i < MESSAGES; i++) {
        struct sent *s = &w.sent[i];
        enum err e;
        if (!stays(i))
            continue;
        struct index_entry now = look_up(i, &e);
        assert_int_equal(e, ERR_OK);
        assert_true(spool_leased(w.pool, s->record.qid));
        assert_true(segment_id_equal(lease_segment(w.pool, s->record.qid), now.place.segment));
        s->digest = now.digest;
        if (!segment_id_equal(s->record.place.segment, now.place.segment)) {
            moved++;
            assert_null(segment_find(w.pool, s->record.place.segment));
            assert_int_equal(read_back(s), ERR_NOT_FOUND);
        }
        while ((e = say_retired(i)) == ERR_BUSY) /* names the place of before, as a relay does that knows no other */
            turn();
        assert_int_equal(e, ERR_OK);
        assert_true(segment_id_equal(lives[i].end.record.message_segment, now.place.segment));
        s->record.place = now.place;
        assert_int_equal(read_back(s), ERR_OK);
        while (!lives[i].end.answered)
            turn();
        assert_int_equal(lives[i].end.e, ERR_OK);
        spool_lease_end(w.pool, s->record.qid);
    }
    assert_true(moved > 0);
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        assert_int_equal(w.pool->segments[i].leased, 0);
    pass_seconds(60); /* what only results keep is gone by now */
    pool_unmount(&w.pool);
    mount(); /* with an index made anew from what is left */
    while (!spool_index_ready(w.pool))
        turn();
    for (uint32_t i = 0; i < MESSAGES; i++) {
        enum err e;
        (void)look_up(i, &e);
        assert_int_equal(e, ERR_NOT_FOUND); /* nothing comes back */
    }
}

/* EXC-5: until the index knows the new places. */
static void nothing_is_said_of_what_is_being_moved(void **state)
{
    (void)state;
    uint32_t asked = 0, until_known = 0;
    fill_to(reserve(SPOOL_RESULT));
    for (uint64_t until = io_now_ns(&w.ram.io) + 60 * NS_PER_S; io_now_ns(&w.ram.io) < until && asked < 2000;) {
        (void)relay_turn(only_the_first_is_ready);
        for (uint32_t i = 1; i < MESSAGES; i++) {
            struct segment *s = stays(i) ? segment_find(w.pool, w.sent[i].record.place.segment) : NULL;
            if (!s || !(s->compacting || s->state == SEGMENT_FREEING) || !spool_leased(w.pool, w.sent[i].record.qid))
                continue;
            assert_true(segment_id_equal(lease_segment(w.pool, w.sent[i].record.qid), s->id));
            assert_int_equal(say_retired(i), ERR_BUSY);
            until_known += s->state == SEGMENT_FREEING;
            asked++;
        }
    }
    assert_true(asked > 0);
    assert_true(until_known > 0); /* also after the record that frees it */
}

/* EXC-5: a result on its way names the place of before. */
static void nothing_leased_is_moved_while_a_result_is_on_its_way(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_RESULT));
    assert_null(exchange_choose(w.pool)); /* nobody waits */
    w.pool->results_stuck = true;
    assert_non_null(exchange_choose(w.pool));
    assert_int_equal(say_retired(0), ERR_OK); /* taken; its frame is still to be placed */
    assert_null(exchange_choose(w.pool));
    while (!lives[0].end.answered)
        turn();
    assert_int_equal(lives[0].end.e, ERR_FULL);
}

/* One for one is no gain: it would be written again and again, and each time left alone for a minute. */
static void one_segment_is_not_exchanged(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_COMPACTION));
    const struct segment_id first = w.sent[0].record.place.segment;
    for (uint32_t i = 0; i < MESSAGES; i++)
        if (stays(i) && segment_id_equal(w.sent[i].record.place.segment, first))
            spool_lease_end(w.pool, w.sent[i].record.qid);
    for (uint64_t until = io_now_ns(&w.ram.io) + 10 * NS_PER_S; io_now_ns(&w.ram.io) < until;) {
        turn();
        w.ram.now_ns += NS_PER_MS;
        assert_true(exchange_idle(w.pool)); /* results wait for nothing, so that only one may be moved */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(results_that_wait_for_a_slot_get_one, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(the_last_slot_serves_where_the_table_is_on_that_member_alone, setup_one_member, teardown),
        cmocka_unit_test_setup_teardown(with_a_slot_for_results_nothing_leased_is_moved, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(what_is_leased_is_moved_and_its_results_go_there, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_said_of_what_is_being_moved, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(nothing_leased_is_moved_while_a_result_is_on_its_way, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(one_segment_is_not_exchanged, setup_indexed, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
