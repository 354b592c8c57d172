/* SPDX-License-Identifier: Apache-2.0 */
/* REC-4: a mount that cannot get memory says so. It takes nothing for damaged, gives up no member and loses no mail: the
 * next mount finds everything as it was. Allocations of a mount fail one by one, once or from there on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine.h"
#include "story.h"

#include <errno.h>
#include <string.h>

static struct { uint64_t count, fail_at; bool on, for_ever; } memory;

static bool memory_fails(void)
{
    if (!memory.on)
        return false;
    uint64_t n = memory.count++;
    return n == memory.fail_at || (memory.for_ever && n > memory.fail_at);
}

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) { return memory_fails() ? NULL : __real_calloc(count, bytes); }

int __real_posix_memalign(void **at, size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **at, size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **at, size_t alignment, size_t bytes)
{
    return memory_fails() ? ENOMEM : __real_posix_memalign(at, alignment, bytes);
}

/* What the mount finds: a clean pool; frames to heal at the end of an open segment; no segment table. */
enum finds { FINDS_ALL_WELL, FINDS_TAIL, FINDS_NO_TABLE, FINDS_COUNT };

static struct world *world_before_mount(enum finds finds)
{
    struct world *w = story_open(80 + finds, 3, IO_DURABLE_DSYNC);
    assert_true(world_create_pool(w) && world_mount(w));
    story_append(w, 8, 20000);
    if (finds == FINDS_ALL_WELL)
        world_unmount(w);
    else
        story_cut(w, SIM_SURVIVE_ALL);
    if (finds == FINDS_TAIL)
        story_rot(w, 1, SEGMENT_MAIL);
    for (uint16_t t = 0; t < 3 && finds == FINDS_NO_TABLE; t++)
        story_rot(w, t, SEGMENT_TABLE);
    return w;
}

/* False: the mount did not come to its allocation `at`. */
static bool mount_short_of_memory(enum finds finds, uint64_t at, bool for_ever)
{
    struct world *w = world_before_mount(finds);
    const char *text;
    uint64_t lost = w->counts.events[EVENT_record_lost], members = w->counts.events[EVENT_member_state];
    memory.count = 0;
    memory.fail_at = at;
    memory.for_ever = for_ever;
    memory.on = true;
    enum err e = pool_mount(w->io, &w->config, &w->pool, &text);
    memory.on = false;
    if (e == ERR_NO_MEMORY)
        assert_non_null(strstr(text, "memory"));
    else if (e != ERR_OK)
        assert_int_equal(e, ERR_TIMEOUT); /* the new table could not be written in all that time */
    assert_int_equal(w->counts.events[EVENT_member_state], members);
    assert_in_range(w->counts.events[EVENT_record_lost], lost, lost + (finds == FINDS_NO_TABLE)); /* that there is none */
    if (e == ERR_OK)
        story_cut(w, SIM_SURVIVE_RANDOM);
    if (!world_failed(w) && world_mount(w))
        audit_run(w);
    story_close(w, "allocation", at);
    return memory.count > at;
}

static void a_mount_without_memory_says_so_and_loses_nothing(void **state)
{
    (void)state;
    for (enum finds finds = FINDS_ALL_WELL; finds < FINDS_COUNT; finds++)
        for (uint32_t for_ever = 0; for_ever < 2; for_ever++) {
            uint64_t at = 0, step = (for_ever ? 5 : 1) * (finds == FINDS_NO_TABLE ? 5 : 1); /* a scan is much the same */
            while (mount_short_of_memory(finds, at, for_ever))
                at += step;
            assert_true(at > 50);
        }
}

/* Of two STATEs the higher sequence wins: those of this mount are higher than all before it. Frames of several segments are
 * filled side by side, so that a frame's first sequence and its number of records do not tell its last one. */
static void sequences_go_on_beyond_everything_written(void **state)
{
    (void)state;
    for (uint64_t seed = 85; seed < 90; seed++) {
        struct world *w = story_open(seed, 4, IO_DURABLE_DSYNC);
        assert_true(world_create_pool(w) && world_mount(w));
        for (uint32_t i = 0; i < 5; i++)
            story_append(w, 40, 300);
        uint64_t used = w->pool->next_sequence;
        story_cut(w, SIM_SURVIVE_RANDOM);
        if (!world_failed(w) && world_mount(w))
            assert_true(w->pool->next_sequence > used);
        story_close(w, "sequences, seed", seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_go_on_beyond_everything_written),
        cmocka_unit_test(a_mount_without_memory_says_so_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
