/* SPDX-License-Identifier: Apache-2.0 */
/* Where records lie, as the index tells it: CHUNKs and their MESSAGE, copies, what was moved, which segment depends on which. Once
 * against every implementation. */
#include "test_index_world.h"

static void chunks_live_and_go_with_their_message(enum kind kind)
{
    struct world w;
    struct index_query q;
    world_start(&w, kind);
    live(&w);
    for (uint32_t i = 0; i < 20; i++)
        feed(&w, chunk(1, i, 1 + i % 2));
    assert_int_equal(segment(&w, 1)->live_chunks, 10);
    struct made m = message(1, 3, 1);
    m.r.arg = 20;
    feed(&w, m);
    assert_int_equal(chunks(&w, 1, 3, &q), ERR_OK);
    assert_int_equal(q.max, 17);
    assert_true(segment_id_equal(q.chunks[0].place.segment, seg(2)));
    assert_int_equal(q.chunks[0].place.frame, 103 * 4096);
    index_query_fini(&q);
    struct made moved = chunk(1, 4, 5);
    moved.r.moved = true;
    feed(&w, moved);
    assert_int_equal(segment(&w, 1)->live_chunks, 9);
    assert_int_equal(segment(&w, 5)->live_chunks, 1);
    feed(&w, result(RECORD_RETIRE, 1, 3, 0, 0));
    moved.r.arg = 5;
    feed(&w, moved); /* a copy that comes too late */
    assert_int_equal(segment(&w, 1)->live_chunks, 0);
    assert_int_equal(segment(&w, 2)->live_chunks, 0);
    assert_int_equal(segment(&w, 5)->live_chunks, 0);
    assert_int_equal(chunks(&w, 1, 0, &q), ERR_NOT_FOUND);
    index_query_fini(&q);
    feed(&w, chunk(2, 0, 1));
    settle(&w);
    feed(&w, chunk(2, 1, 1));
    assert_int_equal(index_abort(w.index, qid(2)), ERR_OK);
    assert_int_equal(segment(&w, 1)->live_chunks, 0);
    world_end(&w);
}

static void a_missing_chunk_is_named(enum kind kind)
{
    struct world w;
    struct index_query q;
    world_start(&w, kind);
    live(&w);
    for (uint32_t i = 0; i < 6; i++)
        if (i != 4)
            feed(&w, chunk(1, i, 1));
    struct made m = message(1, 1, 1);
    m.r.arg = 6;
    feed(&w, m);
    assert_int_equal(chunks(&w, 1, 0, &q), ERR_LOST);
    assert_int_equal(q.first, 4);
    index_query_fini(&q);
    world_end(&w);
}

static void the_end_of_a_replay_drops_chunks_of_earlier_mounts_only(enum kind kind)
{
    struct world w;
    world_start(&w, kind);
    assert_int_equal(index_incarnation(w.index, 33, false), ERR_OK);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
    feed(&w, chunk(1, 0, 1));
    struct made now = chunk(2, 0, 2);
    now.r.place.segment.incarnation = 33;
    feed(&w, now);
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(segment(&w, 1)->live_chunks, 0);
    struct index_query q;
    assert_int_equal(chunks(&w, 1, 0, &q), ERR_NOT_FOUND);
    index_query_fini(&q);
    assert_int_equal(chunks(&w, 2, 0, &q), ERR_OK);
    index_query_fini(&q);
    world_end(&w);
}

static void chunks_wait_for_a_member_that_may_hold_their_message(enum kind kind)
{
    struct world w;
    struct index_query q;
    world_start(&w, kind);
    assert_int_equal(index_incarnation(w.index, 33, true), ERR_OK);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
    feed(&w, chunk(1, 0, 1));
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(segment(&w, 1)->live_chunks, 1);
    assert_int_equal(chunks(&w, 1, 0, &q), ERR_OK);
    index_query_fini(&q);
    world_end(&w);
}

static void compaction_moves_places_and_revives_nothing(enum kind kind)
{
    struct world w;
    struct index_entry e;
    world_start(&w, kind);
    live(&w);
    feed(&w, message(1, 1, 1));
    feed(&w, message(2, 1, 2));
    feed(&w, mark(1, 1, 0, 0, MARK_DEFERRED, 7000));
    settle(&w);
    feed(&w, result(RECORD_RETIRE, 2, 1, 0, 0));
    for (uint64_t i = 1; i <= 2; i++) {
        struct made m = message(i, 4, 10 + i);
        m.r.moved = true;
        feed(&w, m);
    }
    struct made k = mark(1, 4, 0, 0, MARK_DEFERRED, 7000);
    k.r.moved = true;
    feed(&w, k);
    assert_int_equal(index_watermark(w.index, seg(4), 8192, seg(1)), ERR_OK);
    assert_int_equal(lookup(&w, 2, &e), ERR_NOT_FOUND);
    assert_int_equal(lookup(&w, 1, &e), ERR_OK);
    assert_true(segment_id_equal(e.place.segment, seg(4)));
    assert_int_equal(e.attempts, 1);
    assert_int_equal(segment(&w, 1)->live_messages, 0);
    assert_int_equal(segment(&w, 4)->live_messages, 1);
    assert_int_equal(segment(&w, 4)->dep_count, 1);
    assert_true(segment_id_equal(segment(&w, 4)->deps[0], seg(1)));
    world_end(&w);
}

static bool depends(const struct index_segment *s, uint64_t on)
{
    bool found = false;
    for (uint32_t i = 0; i < s->dep_count; i++)
        found = found || segment_id_equal(s->deps[i], seg(on));
    return found;
}

static uint32_t copies(struct world *w, uint64_t id)
{
    struct index_query q = {.kind = INDEX_COPIES, .qid = qid(id)};
    assert_int_equal(ask(w, &q), ERR_OK);
    uint32_t count = q.copy_count;
    index_query_fini(&q);
    return count;
}

/* IDX-5: halves that ran apart have moved one message, each to a place of its own. */
static void a_retire_is_kept_by_every_copy_that_a_replay_saw(enum kind kind)
{
    struct world w;
    struct index_entry e;
    world_start(&w, kind);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
    feed(&w, message(1, 4, 1)); /* the later one: known by it */
    feed(&w, message(1, 3, 1));
    feed(&w, message(2, 6, 1)); /* retired already, and the RETIRE is about the first */
    feed(&w, result(RECORD_RETIRE, 2, 8, 6, 0));
    feed(&w, message(2, 7, 1));
    feed(&w, result(RECORD_RETIRE, 3, 8, 60, 0)); /* the place it names is not there any more */
    feed(&w, message(3, 9, 1));
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    settle(&w);
    assert_int_equal(lookup(&w, 1, &e), ERR_OK);
    assert_true(segment_id_equal(e.place.segment, seg(4)));
    assert_int_equal(lookup(&w, 2, &e), ERR_NOT_FOUND);
    assert_int_equal(lookup(&w, 3, &e), ERR_NOT_FOUND);
    assert_int_equal(copies(&w, 1), 1);
    assert_int_equal(copies(&w, 2), 1);
    assert_int_equal(copies(&w, 3), 1);
    assert_int_equal(copies(&w, 4), 0);
    assert_true(depends(segment(&w, 8), 6) && depends(segment(&w, 8), 7) && depends(segment(&w, 8), 9));
    feed(&w, result(RECORD_RETIRE, 1, 10, 4, 0));
    settle(&w);
    assert_true(depends(segment(&w, 10), 4) && depends(segment(&w, 10), 3));
    struct made moved = result(RECORD_RETIRE, 1, 11, 4, 0); /* by a compaction of its segment */
    moved.r.moved = true;
    feed(&w, moved);
    settle(&w);
    assert_true(depends(segment(&w, 11), 4) && depends(segment(&w, 11), 3));
    assert_int_equal(index_freed(w.index, (struct segment_id[]){seg(4), seg(3)}, 2), ERR_OK);
    settle(&w);
    assert_int_equal(copies(&w, 1), 0);
    assert_int_equal(segment(&w, 10)->dep_count, 0);
    assert_int_equal(segment(&w, 11)->dep_count, 0);
    assert_int_equal(copies(&w, 2), 1);
    world_end(&w);
}

/* IDX-2, IDX-5: however many copies there are, the RETIRE hits the message, and is kept by each of them. 16 was a limit once. */
static void a_message_does_not_come_back_however_many_copies_of_it_there_are(enum kind kind)
{
    static const uint32_t counts[] = {16, 17, 40};
    for (uint32_t i = 0; i < 6; i++) {
        struct world w;
        struct index_entry e;
        uint32_t n = counts[i / 2], first = i % 2; /* the RETIRE comes first, or last */
        world_start(&w, kind);
        assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
        if (first)
            feed(&w, result(RECORD_RETIRE, 1, 50, 1, 0));
        for (uint32_t s = 1; s <= n; s++) {
            feed(&w, message(1, s, 1));
            if (s % 7 == 0)
                settle(&w); /* what is stored is read again */
        }
        if (!first)
            feed(&w, result(RECORD_RETIRE, 1, 50, 49, 0)); /* about a place that is not there any more */
        assert_int_equal(index_replay_end(w.index), ERR_OK);
        settle(&w);
        assert_int_equal(lookup(&w, 1, &e), ERR_NOT_FOUND);
        assert_int_equal(copies(&w, 1), first ? n - 1 : n);
        assert_int_equal(segment(&w, 50)->dep_count, first ? n : n + 1);
        world_end(&w);
    }
}

/* IDX-5: a compaction wrote it while the RETIRE was on its way. */
static void a_copy_that_came_after_the_retire_keeps_it(enum kind kind)
{
    struct world w;
    struct index_entry e;
    for (uint32_t together = 0; together < 2; together++) {
        world_start(&w, kind);
        live(&w);
        feed(&w, message(1, 1, 1));
        settle(&w);
        feed(&w, result(RECORD_RETIRE, 1, 5, 1, 0));
        if (!together)
            settle(&w);
        struct made m = message(1, 4, 9);
        m.r.moved = true;
        m.r.message_segment = seg(1); /* out of it */
        feed(&w, m);
        settle(&w);
        assert_int_equal(lookup(&w, 1, &e), ERR_NOT_FOUND);
        assert_int_equal(copies(&w, 1), 1);
        assert_true(depends(segment(&w, 5), 1) && depends(segment(&w, 5), 4));
        world_end(&w);
    }
}

static void two_messages_with_one_queue_id_are_both_kept(enum kind kind)
{
    struct world w;
    struct index_entry e;
    world_start(&w, kind);
    assert_int_equal(index_replay_begin(w.index, true), ERR_OK);
    struct made a = message(1, 1, 1), b = message(1, 2, 1);
    b.r.digest.lo = 77;
    feed(&w, a);
    feed(&w, b);
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(summary(&w).messages, 2);
    assert_int_equal(w.conflicts, 1);
    feed(&w, result(RECORD_RETIRE, 1, 3, 2, 0)); /* the one in segment 2 */
    assert_int_equal(lookup(&w, 1, &e), ERR_OK);
    assert_int_equal(e.digest.lo, 1);
    assert_int_equal(summary(&w).messages, 1);
    world_end(&w);
}

static void too_many_dependencies_are_all_of_them_until_enough_are_freed(enum kind kind)
{
    struct world w;
    world_start(&w, kind);
    live(&w);
    for (uint64_t i = 0; i <= INDEX_DEPS_MAX; i++)
        feed(&w, result(RECORD_RETIRE, 1 + i, 1, 100 + i, 0));
    assert_true(segment(&w, 1)->deps_overflowed);
    struct segment_id freed = seg(100);
    assert_int_equal(index_freed(w.index, &freed, 1), ERR_OK);
    assert_false(segment(&w, 1)->deps_overflowed);
    assert_int_equal(segment(&w, 1)->dep_count, INDEX_DEPS_MAX);
    for (uint64_t i = 1; i <= INDEX_DEPS_MAX; i++) {
        freed = seg(100 + i);
        assert_int_equal(index_freed(w.index, &freed, 1), ERR_OK);
    }
    assert_int_equal(segment(&w, 1)->dep_count, 0);
    world_end(&w);
}

#define BOTH(X)                                                                                                        \
    X(chunks_live_and_go_with_their_message)                                                                           \
    X(a_missing_chunk_is_named)                                                                                        \
    X(the_end_of_a_replay_drops_chunks_of_earlier_mounts_only)                                                         \
    X(chunks_wait_for_a_member_that_may_hold_their_message)                                                            \
    X(compaction_moves_places_and_revives_nothing)                                                                     \
    X(a_retire_is_kept_by_every_copy_that_a_replay_saw)                                                                \
    X(a_message_does_not_come_back_however_many_copies_of_it_there_are)                                                \
    X(a_copy_that_came_after_the_retire_keeps_it)                                                                      \
    X(two_messages_with_one_queue_id_are_both_kept)                                                                    \
    X(too_many_dependencies_are_all_of_them_until_enough_are_freed)

BOTH(DEFINE)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(LIST)
    };
    return cmocka_run_group_tests_name("index places", tests, NULL, NULL);
}
