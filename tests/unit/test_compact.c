/* SPDX-License-Identifier: Apache-2.0 */
/* CMP-3: what is compacted is chosen by counts that include all the index was told. Here the index stops applying: it
 * takes what it is fed and answers nobody, as a thread behind a slow file system does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine.h"
#include "index/port.h"
#include "story.h"

static struct { bool held; void (*work)(struct index *x); } lag;

static void work_unless_held(struct index *x)
{
    if (!lag.held)
        lag.work(x);
}

static enum err open_lagging(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                             struct index **index_out)
{
    (void)owner;
    (void)discard;
    enum err e = index_mem_open(pool, cb, index_out);
    if (e == ERR_OK) {
        lag.work = (*index_out)->work;
        (*index_out)->work = work_unless_held;
    }
    return e;
}

static struct world *open_lagging_world(void)
{
    struct world *w = story_open(70, 3, IO_DURABLE_DSYNC);
    lag.held = false;
    w->config.index.open = open_lagging;
    assert_true(world_create_pool(w) && world_mount(w));
    return w;
}

static void turns_for(struct world *w, uint64_t seconds)
{
    uint64_t until = io_now_ns(w->io) + seconds * NS_PER_S;
    while (io_now_ns(w->io) < until && !world_failed(w))
        world_turn(w);
}

/* Sealed segments with frames in them; of these, how many a compaction is at. */
static uint32_t count_sealed(struct world *w, uint32_t *victims_out)
{
    uint32_t sealed = 0;
    *victims_out = 0;
    for (uint32_t i = 0; i < w->pool->segment_used; i++) {
        const struct segment *s = &w->pool->segments[i];
        bool holds = s->state == SEGMENT_SEALED && s->kind == SEGMENT_MAIL && s->length > BLOCK_BYTES;
        sealed += holds;
        *victims_out += holds && s->compacting;
    }
    return sealed;
}

/* The index has told of the first message of a segment when it stops; then the segment fills and is sealed. */
static void a_segment_is_no_victim_before_the_index_has_counted_all_of_it(void **state)
{
    (void)state;
    struct world *w = open_lagging_world();
    uint32_t victims;
    story_append(w, 1, 2000);
    turns_for(w, 1);
    lag.held = true;
    story_append(w, 40, 50000);
    for (uint32_t i = 0; i < 50 && !world_failed(w); i++) {
        turns_for(w, 1);
        uint32_t sealed = count_sealed(w, &victims);
        assert_true(sealed > 0);
        assert_int_equal(victims, 0);
    }
    lag.held = false;
    turns_for(w, 10);
    assert_int_equal(w->pool->count_compacted, 0); /* full of live mail */
    audit_run(w);
    story_close(w, "an index that lags", 0);
}

/* The same segments, when the index has applied that nearly all of it was retired. */
static void what_the_index_has_counted_is_compacted(void **state)
{
    (void)state;
    struct world *w = open_lagging_world();
    story_append(w, 40, 50000);
    turns_for(w, 1);
    for (uint32_t i = 1; i < 38 && !world_failed(w); i++)
        senders_visit(w, &w->model.messages[i], VISIT_RETIRE);
    world_settle(w);
    turns_for(w, 20);
    assert_true(w->pool->count_compacted > 0);
    audit_run(w);
    story_close(w, "an index that keeps up", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_is_no_victim_before_the_index_has_counted_all_of_it),
        cmocka_unit_test(what_the_index_has_counted_is_compacted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
