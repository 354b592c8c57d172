/* SPDX-License-Identifier: Apache-2.0 */
/* CMP-4: a pool that is full to the reserve of results, with leases out on all that is worth moving. Leases end with results, results
 * need slots, slots need a victim without leases: it gets out by itself. */
#include "compact.h"
#include "spool_world.h"

#include <spoolfs/index.h>

#define MESSAGES 160u
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
    assert_true(segment_id_is_none(spool_closing(w.pool)));
}

static int setup_indexed(void **state)
{
    (void)state;
    setup_members(2);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    mount();
    while (!spool_index_ready(w.pool))
        turn();
    memset(lives, 0, sizeof lives);
    return 0;
}

static bool lies_in(uint32_t i, struct segment_id segment)
{
    return segment_id_equal(w.sent[i].record.place.segment, segment);
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

static void results_that_wait_for_a_slot_get_one(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_RESULT));
    bool closed = false;
    uint32_t least = UINT32_MAX, waiting = MESSAGES;
    for (uint64_t until = io_now_ns(&w.ram.io) + 60 * NS_PER_S; waiting && io_now_ns(&w.ram.io) < until;) {
        waiting = relay_turn(all_are_ready);
        closed = closed || !segment_id_is_none(spool_closing(w.pool));
        least = free_slots() < least ? free_slots() : least;
    }
    assert_int_equal(waiting, 0);
    assert_true(closed);
    assert_true(least >= reserve(SPOOL_COMPACTION)); /* what is below is the exchange's and the segment table's */
    for (uint64_t until = io_now_ns(&w.ram.io) + 60 * NS_PER_S; io_now_ns(&w.ram.io) < until;)
        (void)relay_turn(all_are_ready);
    assert_true(free_slots() > reserve(SPOOL_NEW_MAIL));
    assert_true(segment_id_is_none(spool_closing(w.pool)));
    assert_int_equal(append(BODY), ERR_OK);
}

/* With the last slot that results may have: compaction has none then, and the exchange gives slots back. */
static void the_last_slot_of_all_is_enough(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_COMPACTION) + 1);
    uint32_t waiting = MESSAGES, least = UINT32_MAX;
    for (uint64_t until = io_now_ns(&w.ram.io) + 300 * NS_PER_S; io_now_ns(&w.ram.io) < until && waiting;) {
        waiting = relay_turn(all_are_ready);
        least = free_slots() < least ? free_slots() : least;
    }
    assert_int_equal(waiting, 0);
    assert_true(least + 1 >= reserve(SPOOL_COMPACTION)); /* an exchange takes one and gives it back */
    for (uint64_t until = io_now_ns(&w.ram.io) + 120 * NS_PER_S; io_now_ns(&w.ram.io) < until;)
        (void)relay_turn(all_are_ready);
    assert_true(free_slots() > reserve(SPOOL_RESULT)); /* all but what is open came back, and it was not many */
}

/* The others are with peers that do not answer; only what compaction waits for gets on. */
static struct segment_id g_first;
static bool only_the_first_closed_is_ready(uint32_t i)
{
    return !segment_id_is_none(g_first) ? lies_in(i, g_first) : true;
}

static void one_segment_whose_leases_end_is_enough(void **state)
{
    (void)state;
    g_first = (struct segment_id){0};
    fill_to(reserve(SPOOL_RESULT));
    uint32_t before = free_slots(), sent = 0;
    for (uint64_t until = io_now_ns(&w.ram.io) + 30 * NS_PER_S; io_now_ns(&w.ram.io) < until;) {
        (void)relay_turn(only_the_first_closed_is_ready);
        g_first = segment_id_is_none(g_first) ? spool_closing(w.pool) : g_first;
    }
    assert_false(segment_id_is_none(g_first));
    assert_null(segment_find(w.pool, g_first)); /* moved, freed */
    assert_true(free_slots() + 1 >= before);    /* what took the results is open, and what took the copies */
    for (uint32_t i = 0; i < MESSAGES; i++)
        sent += stays(i) && spool_leased(w.pool, w.sent[i].record.qid);
    assert_true(sent > 0);
}

/* Results that end no lease there keep out of the last segment that results get, and everybody out of the exchange's slot. */
static void the_last_segment_is_for_what_compaction_waits_for(void **state)
{
    (void)state;
    for (uint32_t left = 0; left < 2; left++) {
        if (left)
            setup_indexed(state);
        fill_to(reserve(SPOOL_COMPACTION) + left);
        w.pool->results_stuck = true;
        struct segment_id closing = {0};
        for (uint32_t n = 0; n < 2000 && segment_id_is_none(closing); n++) {
            (void)relay_turn(only_the_first_closed_is_ready);
            closing = spool_closing(w.pool);
        }
        assert_false(segment_id_is_none(closing));
        pass_seconds(1); /* what was asked before is answered */
        uint32_t inside = MESSAGES, outside = MESSAGES;
        for (uint32_t i = 0; i < MESSAGES; i++)
            if (stays(i) && spool_leased(w.pool, w.sent[i].record.qid) && !(lives[i].asked && lives[i].end.e == ERR_OK))
                *(lies_in(i, closing) ? &inside : &outside) = i;
        assert_true(inside < MESSAGES && outside < MESSAGES);
        enum err e = say_retired(inside);
        assert_int_equal(e, ERR_OK);
        pass_seconds(1);
        assert_int_equal(lives[inside].end.e, left ? ERR_OK : ERR_FULL);
        assert_int_equal(say_retired(outside), ERR_FULL); /* though there is room in what is open */
        assert_true(free_slots() >= reserve(SPOOL_COMPACTION));
        if (!left)
            teardown(state);
    }
}

static void with_one_slot_more_nothing_is_closed(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_RESULT) + 1);
    uint32_t waiting = MESSAGES;
    for (uint64_t until = io_now_ns(&w.ram.io) + 10 * NS_PER_S; waiting && io_now_ns(&w.ram.io) < until;) {
        waiting = relay_turn(all_are_ready);
        assert_true(segment_id_is_none(spool_closing(w.pool)));
        for (uint32_t i = 0; i < MESSAGES; i++)
            assert_true(!lives[i].end.answered || lives[i].end.e == ERR_OK);
    }
    assert_int_equal(waiting, 0);
}

/* As when a member is added: no segment is freed. */
static void give_slots_back(void)
{
    for (uint32_t i = 0; i < w.ram.count; i++) {
        struct member *m = &w.pool->members[i];
        for (uint32_t slot = 0; slot < m->slot_count; slot++)
            if (m->slot_owner[slot] == SLOT_RETIRED) {
                m->slot_owner[slot] = 0;
                m->slots_free++;
            }
    }
}

static void nothing_stays_closed_when_there_is_room_again(void **state)
{
    (void)state;
    g_first = (struct segment_id){0};
    fill_to(reserve(SPOOL_RESULT));
    for (uint32_t n = 0; n < 2000 && segment_id_is_none(spool_closing(w.pool)); n++)
        (void)relay_turn(all_are_ready);
    struct segment_id closing = spool_closing(w.pool);
    assert_false(segment_id_is_none(closing));
    uint32_t there = 0;
    while (!lies_in(there, closing) || stays(there)) /* gone, but the lease is only a name here */
        there++;
    assert_int_equal(spool_lease(w.pool, w.sent[there].record.qid, closing), ERR_BUSY);
    give_slots_back();
    pass_seconds(1);
    assert_true(segment_id_is_none(spool_closing(w.pool)));
    assert_int_equal(spool_lease(w.pool, w.sent[there].record.qid, closing), ERR_OK);
    spool_lease_end(w.pool, w.sent[there].record.qid);
}

/* What is said of a message there that nobody holds - an operator's hold - frees nothing and takes nothing of the reserve. */
static void only_leases_count_as_ending(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_RESULT));
    w.pool->closing = w.sent[0].record.place.segment;
    struct spool_record record = {.type = RECORD_STATE, .qid = w.sent[0].record.qid, .arg = RECORD_STATE_HOLD,
                                  .message_segment = w.pool->closing};
    struct spool_group group = {.records = &record, .count = 1, .class = SPOOL_RESULT};
    assert_int_equal(spool_class_of(w.pool, &group), SPOOL_COMPACTION);
    assert_int_equal(spool_lease(w.pool, w.sent[1].record.qid, w.pool->closing), ERR_BUSY);
    spool_lease_end(w.pool, w.sent[0].record.qid);
    assert_int_equal(spool_class_of(w.pool, &group), SPOOL_RESULT);
    assert_int_equal(spool_lease(w.pool, w.sent[0].record.qid, w.pool->closing), ERR_BUSY);
    record.message_segment = (struct segment_id){w.pool->incarnation, 1u << 30};
    assert_int_equal(spool_class_of(w.pool, &group), SPOOL_RESULT);
    w.pool->closing = (struct segment_id){0};
    record.message_segment = w.pool->closing; /* of no segment, while none is closing */
    assert_int_equal(spool_class_of(w.pool, &group), SPOOL_RESULT);
}

/* Of the mail that stays, what lies in the first `segments` segments: the attempts are over, nobody holds it. One of each goes out. */
static void end_leases_in_first(uint32_t segments, uint32_t ones_out[])
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        bool another = stays(i) && (found == 0 || !lies_in(i, w.sent[ones_out[found - 1]].record.place.segment));
        if (another && found == segments)
            return;
        if (another)
            ones_out[found++] = i;
        if (stays(i))
            spool_lease_end(w.pool, w.sent[i].record.qid);
    }
}

static enum err lease(uint32_t i)
{
    return spool_lease(w.pool, w.sent[i].record.qid, w.sent[i].record.place.segment);
}

/* CMP-5, as after a mount: what nobody holds gives a slot, if nobody comes to hold it first. */
static void the_last_two_that_nobody_holds_stay_so_until_they_are_moved(void **state)
{
    (void)state;
    uint32_t ones[3];
    fill_to(reserve(SPOOL_COMPACTION));
    end_leases_in_first(3, ones);
    assert_int_equal(lease(ones[1]), ERR_OK); /* two others are left */
    assert_int_equal(lease(ones[0]), ERR_BUSY);
    assert_int_equal(lease(ones[2]), ERR_BUSY);
    w.pool->full_ns = io_now_ns(&w.ram.io) - 60 * NS_PER_S + 1;
    assert_int_equal(lease(ones[0]), ERR_BUSY);
    w.pool->full_ns -= 1; /* not for ever */
    assert_int_equal(lease(ones[0]), ERR_OK);
    spool_lease_end(w.pool, w.sent[ones[0]].record.qid);
    w.pool->full_ns = 0;
    for (uint64_t until = io_now_ns(&w.ram.io) + 60 * NS_PER_S; free_slots() <= reserve(SPOOL_COMPACTION);) {
        assert_true(io_now_ns(&w.ram.io) < until);
        turn();
        w.ram.now_ns += NS_PER_MS;
    }
}

static void with_a_slot_for_results_nothing_is_kept_from_leases(void **state)
{
    (void)state;
    for (uint32_t more = 0; more < 2; more++) {
        uint32_t one;
        if (more)
            setup_indexed(state);
        fill_to(reserve(SPOOL_RESULT) + more);
        end_leases_in_first(1, &one);
        assert_int_equal(lease(one), more ? ERR_OK : ERR_BUSY);
        if (!more)
            teardown(state);
    }
}

/* One for one is no gain: it would be written again and again, and each time left alone for a minute. */
static void one_segment_is_not_exchanged(void **state)
{
    (void)state;
    fill_to(reserve(SPOOL_COMPACTION));
    uint32_t one;
    end_leases_in_first(1, &one);
    for (uint64_t until = io_now_ns(&w.ram.io) + 10 * NS_PER_S; io_now_ns(&w.ram.io) < until;) {
        turn();
        w.ram.now_ns += NS_PER_MS;
        assert_true(exchange_idle(w.pool));
    }
    assert_int_equal(lease(one), ERR_BUSY); /* but waits for a second one, a minute at most */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(results_that_wait_for_a_slot_get_one, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(the_last_slot_of_all_is_enough, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(one_segment_whose_leases_end_is_enough, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(the_last_segment_is_for_what_compaction_waits_for, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(with_one_slot_more_nothing_is_closed, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(nothing_stays_closed_when_there_is_room_again, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(only_leases_count_as_ending, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(the_last_two_that_nobody_holds_stay_so_until_they_are_moved, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(with_a_slot_for_results_nothing_is_kept_from_leases, setup_indexed, teardown),
        cmocka_unit_test_setup_teardown(one_segment_is_not_exchanged, setup_indexed, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
