/* SPDX-License-Identifier: Apache-2.0 */
/* One state directory for two halves that run apart: the index that one of them has kept tells the other nothing (FEED-4). */
#include "halves.h"

static void visit_all(struct world *w, enum visit_kind kind, uint32_t but)
{
    for (uint32_t i = 0; i < w->model.count && !world_failed(w); i++)
        if (i % but)
            senders_visit(w, &w->model.messages[i], kind);
    if (!world_failed(w))
        world_settle(w);
}

/* One state directory for both halves. What the first says lies in segments that the second never heard of, with no live mail in them that
 * would tell: the second makes its index from its own log (FEED-4), and keeps it over a mount of its own. */
static void an_index_that_another_half_kept_is_made_anew(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 304; seed++) {
        struct world *w = story_open(seed, 2, durable_by(seed));
        enum err e = index_kept_make(&w->kept.now);
        assert_int_equal(e, ERR_OK);
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 6, 3000);
        world_unmount(w);
        model_divide(&w->model);
        uint64_t rebuilds[3] = {w->counts.events[EVENT_index_rebuild]};
        for (uint8_t half = 1; half <= 2 && !world_failed(w); half++) {
            model_half_begin(&w->model, half);
            here(w, half);
            for (uint32_t n = 0; n < 2 && mounts(w) && audit_run(w); n++) {
                visit_all(w, VISIT_MARK, 3);
                visit_all(w, VISIT_HOLD, 5);
                world_unmount(w);
            }
            rebuilds[half] = w->counts.events[EVENT_index_rebuild];
            model_half_end(&w->model);
        }
        model_join(&w->model);
        here(w, 3);
        if (mounts(w))
            audit_run(w);
        lasts(w, 1);
        story_close(w, "index of another half, seed", seed);
        assert_int_equal(rebuilds[1], rebuilds[0]);
        assert_int_equal(rebuilds[2], rebuilds[0] + 1);
    }
}

static void retire(struct world *w, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to && !world_failed(w); i++)
        senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    if (!world_failed(w))
        world_settle(w);
}

/* The first half retires the rest of what lies in a segment, frees it, and then its own segments, too: nothing in the index is of that
 * half any more. The second half still has the segment, and a RETIRE about it in another one that counts as read. */
static void an_index_says_whose_it_is_when_nothing_of_that_half_is_left(void **state)
{
    (void)state;
    for (uint64_t seed = 340; seed < 344; seed++) {
        struct world *w = story_open(seed, 2, durable_by(seed));
        enum err e = index_kept_make(&w->kept.now);
        assert_int_equal(e, ERR_OK);
        if (world_create_pool(w) && world_mount(w))
            story_append(w, 3, 3000);
        world_unmount(w);
        if (mounts(w))
            story_append(w, 12, 40000);
        retire(w, 0, 1);
        world_unmount(w);
        model_divide(&w->model);
        uint64_t rebuilds = w->counts.events[EVENT_index_rebuild];
        model_half_begin(&w->model, 1);
        here(w, 1);
        if (mounts(w))
            retire(w, 1, 3);
        world_unmount(w);
        for (uint32_t n = 0; n < 2 && mounts(w); n++) {
            turn_for(w, 30);
            world_unmount(w);
        }
        model_half_end(&w->model);
        assert_int_equal(w->counts.events[EVENT_index_rebuild], rebuilds);
        model_half_begin(&w->model, 2);
        here(w, 2);
        if (mounts(w))
            audit_run(w); /* MOD-4: the first one stays retired */
        uint64_t then = w->counts.events[EVENT_index_rebuild];
        world_unmount(w);
        model_half_end(&w->model);
        model_join(&w->model);
        here(w, 3);
        if (mounts(w))
            audit_run(w);
        story_close(w, "index of a half that left nothing, seed", seed);
        assert_int_equal(then, rebuilds + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_that_another_half_kept_is_made_anew),
        cmocka_unit_test(an_index_says_whose_it_is_when_nothing_of_that_half_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
