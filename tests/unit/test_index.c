/* SPDX-License-Identifier: Apache-2.0 */
/* What the index promises (spoolfs/index.h), once against every implementation: messages, what is due, what is listed and counted.
 * Where records lie is in test_index_places.c. */
#include "test_index_world.h"

/* --- tests --- */

static void a_message_is_found_with_its_place_and_envelope(enum kind kind)
{
    struct world w;
    struct index_entry e;
    world_start(&w, kind);
    live(&w);
    feed(&w, message(1, 1, 5));
    assert_int_equal(index_watermark(w.index, seg(1), 6 * 4096, seg(0)), ERR_OK);
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = qid(1)};
    assert_int_equal(ask(&w, &q), ERR_OK);
    assert_true(segment_id_equal(q.entries[0].place.segment, seg(1)));
    assert_int_equal(q.entries[0].place.frame, 5 * 4096);
    assert_int_equal(q.entries[0].state, INDEX_ACTIVE);
    assert_int_equal(q.entries[0].next_due_ms, 1001);
    struct envelope env;
    assert_int_equal(envelope_decode(q.entries[0].envelope, q.entries[0].envelope_bytes, &env), ERR_OK);
    assert_int_equal(env.recipient_count, 1);
    index_query_fini(&q);
    index_query_fini(&q); /* harmless */
    assert_int_equal(lookup(&w, 2, &e), ERR_NOT_FOUND);
    const struct index_segment *s = segment(&w, 1);
    assert_int_equal(s->watermark, 6 * 4096);
    assert_int_equal(s->live_messages, 1);
    assert_int_equal(s->live_bytes, 1000);
    world_end(&w);
}

static void a_message_and_its_retire_leave_only_the_watermark(enum kind kind)
{
    struct world w;
    struct index_entry e;
    world_start(&w, kind);
    live(&w);
    for (uint64_t i = 1; i <= 100; i++) {
        feed(&w, message(i, 1, i));
        feed(&w, mark(i, 2, 1, 0, MARK_DELIVERED, 0));
        feed(&w, result(RECORD_RETIRE, i, 2, 1, 0));
    }
    assert_int_equal(index_watermark(w.index, seg(1), 8192, seg(0)), ERR_OK);
    settle(&w);
    assert_int_equal(summary(&w).messages, 0);
    assert_int_equal(lookup(&w, 50, &e), ERR_NOT_FOUND);
    assert_int_equal(segment(&w, 1)->live_messages, 0);
    assert_int_equal(segment(&w, 1)->live_bytes, 0);
    assert_int_equal(segment(&w, 2)->dep_count, 1);
    assert_true(segment_id_equal(segment(&w, 2)->deps[0], seg(1)));
    assert_int_equal(index_freed(w.index, &(struct segment_id){9, 1}, 1), ERR_OK);
    assert_int_equal(segment(&w, 2)->dep_count, 0);
    world_end(&w);
}

static void due_goes_round_the_destinations(enum kind kind)
{
    struct world w;
    uint64_t ids[64];
    world_start(&w, kind);
    live(&w);
    const char *to[3] = {"x@one.example", "y@two.example", "z@three.example"};
    for (uint64_t i = 0; i < 30; i++) /* one.example has by far the most */
        feed(&w, message_to(1 + i, 1, i, &to[i < 26 ? 0 : i < 28 ? 1 : 2], 1, 0));
    assert_int_equal(due(&w, 10, 10, NULL, 0, ids), 0);
    assert_int_equal(due(&w, 5000, 6, NULL, 0, ids), 6);
    uint32_t of[3] = {0};
    for (uint32_t i = 0; i < 6; i++)
        of[ids[i] <= 26 ? 0 : ids[i] <= 28 ? 1 : 2]++;
    assert_int_equal(of[0], 2);
    assert_int_equal(of[1], 2);
    assert_int_equal(of[2], 2);
    uint64_t skip = envelope_destination(to[0], (uint32_t)strlen(to[0]));
    assert_int_equal(due(&w, 5000, 64, &skip, 1, ids), 4);
    assert_int_equal(due(&w, 5000, 64, NULL, 0, ids), 30);
    bool turns[3] = {false};
    for (uint32_t i = 0; i < 3; i++) { /* also over several answers */
        assert_int_equal(due(&w, 5000, 1, NULL, 0, ids), 1);
        turns[ids[0] <= 26 ? 0 : ids[0] <= 28 ? 1 : 2] = true;
    }
    assert_true(turns[0] && turns[1] && turns[2]);
    world_end(&w);
}

static void leased_and_held_messages_are_not_due(enum kind kind)
{
    struct world w;
    struct index_entry e;
    uint64_t ids[8];
    world_start(&w, kind);
    live(&w);
    const char *to = "x@one.example";
    feed(&w, message(1, 1, 1));
    feed(&w, message(2, 1, 2));
    feed(&w, message_to(3, 1, 3, &to, 1, ENVELOPE_HOLD));
    assert_int_equal(index_lease(w.index, qid(1), true), ERR_OK);
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 1);
    assert_int_equal(ids[0], 2);
    assert_int_equal(summary(&w).hold, 1);
    feed(&w, result(RECORD_STATE, 2, 1, 0, RECORD_STATE_HOLD));
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 0);
    assert_int_equal(lookup(&w, 2, &e), ERR_OK);
    assert_int_equal(e.state, INDEX_HOLD);
    feed(&w, result(RECORD_STATE, 3, 1, 0, RECORD_STATE_RELEASE));
    assert_int_equal(index_lease(w.index, qid(1), false), ERR_OK);
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 2);
    struct made old = result(RECORD_STATE, 2, 1, 0, RECORD_STATE_RELEASE);
    old.r.sequence = 1; /* lower than that of the HOLD */
    feed(&w, old);
    assert_int_equal(summary(&w).hold, 1);
    feed(&w, result(RECORD_STATE, 2, 1, 0, RECORD_STATE_EXPIRE));
    assert_int_equal(lookup(&w, 2, &e), ERR_OK);
    assert_int_equal(e.state, INDEX_EXPIRE);
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 3);
    world_end(&w);
}

static void a_deferral_moves_the_due_time_and_retry_brings_it_back(enum kind kind)
{
    struct world w;
    struct index_entry e;
    uint64_t ids[8];
    world_start(&w, kind);
    live(&w);
    const char *to[2] = {"x@one.example", "y@two.example"};
    feed(&w, message_to(1, 1, 1, to, 2, 0));
    assert_int_equal(summary(&w).recipients, 2);
    feed(&w, mark(1, 1, 0, 0, MARK_DELIVERED, 0));
    feed(&w, mark(1, 1, 0, 1, MARK_DEFERRED, 9000));
    assert_int_equal(due(&w, 8999, 8, NULL, 0, ids), 0);
    assert_int_equal(due(&w, 9000, 8, NULL, 0, ids), 1);
    assert_int_equal(summary(&w).recipients, 1);
    assert_int_equal(summary(&w).deferred, 1);
    feed(&w, mark(1, 1, 0, 1, MARK_DEFERRED, 12000));
    assert_int_equal(lookup(&w, 1, &e), ERR_OK);
    assert_int_equal(e.attempts, 2);
    assert_int_equal(e.next_due_ms, 12000);
    feed(&w, result(RECORD_STATE, 1, 1, 0, RECORD_STATE_RETRY));
    assert_int_equal(due(&w, 2000, 8, NULL, 0, ids), 1);
    feed(&w, mark(1, 1, 0, 1, MARK_DEFERRED, 20000)); /* after the RETRY: counts again */
    assert_int_equal(due(&w, 19999, 8, NULL, 0, ids), 0);
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = qid(1)};
    assert_int_equal(ask(&w, &q), ERR_OK);
    struct mark_cursor c;
    struct mark m;
    mark_begin(&c, q.entries[0].marks, q.entries[0].marks_bytes);
    assert_true(mark_next(&c, &m) && m.recipient == 0 && m.status == MARK_DELIVERED);
    assert_true(mark_next(&c, &m) && m.recipient == 1 && m.deferred_until_ms == 20000 && m.reason_len == 3);
    assert_false(mark_next(&c, &m));
    index_query_fini(&q);
    world_end(&w);
}

static void a_list_pages_in_order(enum kind kind)
{
    struct world w;
    world_start(&w, kind);
    live(&w);
    for (uint64_t i = 0; i < 2500; i++)
        feed(&w, message(1 + (i * 977) % 2500, 1, i));
    struct index_query q = {.kind = INDEX_LIST, .max = 1000};
    uint64_t next = 1;
    uint32_t pages = 0;
    do {
        assert_int_equal(ask(&w, &q), ERR_OK);
        for (uint32_t i = 0; i < q.entry_count; i++)
            assert_int_equal(q.entries[i].qid.counter, next++);
        index_query_fini(&q);
        pages++;
    } while (q.more);
    assert_int_equal(next, 2501);
    assert_int_equal(pages, 3);
    struct queue_id ids[3] = {qid(1), qid(9999), qid(2500)};
    struct index_query l = {.kind = INDEX_LIVE, .qids = ids, .qid_count = 3};
    assert_int_equal(ask(&w, &l), ERR_OK);
    assert_true(l.live[0] && !l.live[1] && l.live[2]);
    index_query_fini(&l);
    world_end(&w);
}

static void nothing_is_due_before_the_replay_ended(enum kind kind)
{
    struct world w;
    uint64_t ids[8];
    world_start(&w, kind);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
    feed(&w, message(1, 1, 1));
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 0);
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 1);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK); /* from nothing */
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(due(&w, 5000, 8, NULL, 0, ids), 0);
    assert_int_equal(summary(&w).messages, 0);
    world_end(&w);
}

static void domains_are_counted(enum kind kind)
{
    struct world w;
    world_start(&w, kind);
    live(&w);
    const char *to[3] = {"x@One.example", "y@one.example", "z@two.example"};
    feed(&w, message_to(1, 1, 1, to, 3, 0));
    feed(&w, message_to(2, 1, 2, to, 1, ENVELOPE_HOLD));
    struct index_query q = {.kind = INDEX_DOMAINS, .max = 10};
    assert_int_equal(ask(&w, &q), ERR_OK);
    assert_int_equal(q.domain_count, 2);
    assert_string_equal(q.domains[0].domain, "one.example");
    assert_int_equal(q.domains[0].messages, 2);
    assert_int_equal(q.domains[0].recipients, 3);
    assert_int_equal(q.domains[0].oldest_ms, 1001);
    assert_string_equal(q.domains[1].domain, "two.example");
    index_query_fini(&q);
    struct index_counts n = summary(&w);
    assert_int_equal(n.messages, 2);
    assert_int_equal(n.recipients, 4);
    assert_int_equal(n.oldest_ms, 1001);
    assert_int_equal(n.bytes, 1000);
    world_end(&w);
}

static void a_message_that_is_about_to_go_is_not_due(enum kind kind)
{
    struct world w;
    uint64_t ids[4];
    world_start(&w, kind);
    live(&w);
    feed(&w, message(1, 1, 1));
    feed(&w, message(2, 1, 2));
    settle(&w);
    assert_int_equal(due(&w, 5000, 4, NULL, 0, ids), 2);
    assert_int_equal(index_lease(w.index, qid(1), true), ERR_OK);
    feed(&w, result(RECORD_RETIRE, 1, 1, 0, 0));
    assert_int_equal(index_lease(w.index, qid(1), false), ERR_OK);
    assert_int_equal(due(&w, 5000, 4, NULL, 0, ids), 1);
    assert_int_equal(ids[0], 2);
    world_end(&w);
}

static void queries_that_wait_at_close_are_never_done(enum kind kind)
{
    struct world w;
    enum err answer = ERR_COUNT;
    world_start(&w, kind);
    live(&w);
    feed(&w, message(1, 1, 1));
    struct index_query q = {.kind = INDEX_LIST, .done = on_done, .owner = &answer};
    index_query(w.index, &q);
    world_end(&w);
    assert_int_equal(answer, ERR_COUNT);
}

static void a_full_ring_takes_nothing_and_tells_when_there_is_room(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, MEM);
    live(&w);
    uint64_t fed = 0;
    enum err e = ERR_OK;
    for (; e == ERR_OK; fed += e == ERR_OK) {
        struct made m = message(fed + 1, 1, fed);
        m.r.payload = m.payload;
        uint32_t room = index_room(w.index);
        e = index_feed(w.index, &m.r);
        assert_true(e == ERR_OK || e == ERR_INDEX_LAG);
        if (room >= m.r.payload_bytes + INDEX_FEED_OVERHEAD)
            assert_int_equal(e, ERR_OK); /* what index_room promises */
        if (e != ERR_OK)
            assert_int_equal(index_room(w.index), room);
    }
    assert_int_equal(w.rooms, 0);
    index_dispatch(w.index);
    assert_int_equal(w.rooms, 1);
    assert_int_equal(index_room(w.index), INDEX_RING_BYTES);
    assert_int_equal(summary(&w).messages, fed);
    world_end(&w);
}

#define BOTH(X)                                                                                                        \
    X(a_message_is_found_with_its_place_and_envelope)                                                                  \
    X(a_message_and_its_retire_leave_only_the_watermark)                                                               \
    X(due_goes_round_the_destinations)                                                                                 \
    X(leased_and_held_messages_are_not_due)                                                                            \
    X(a_deferral_moves_the_due_time_and_retry_brings_it_back)                                                          \
    X(a_list_pages_in_order)                                                                                           \
    X(nothing_is_due_before_the_replay_ended)                                                                          \
    X(domains_are_counted)                                                                                             \
    X(a_message_that_is_about_to_go_is_not_due)                                                                        \
    X(queries_that_wait_at_close_are_never_done)

BOTH(DEFINE)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(LIST) cmocka_unit_test(a_full_ring_takes_nothing_and_tells_when_there_is_room),
    };
    return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
