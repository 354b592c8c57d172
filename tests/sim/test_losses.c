/* SPDX-License-Identifier: Apache-2.0 */
/* What is bad on every image is reported, costs what it held, and holds up nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#include <spoolfs/record.h>
#include <string.h>

/* The one block of the frame that begins with this message, on this member; false: it is not there. */
static bool make_frame_unreadable(struct world *w, uint16_t target, const struct model_message *msg)
{
    struct sim_disk *disk = sim_io_disk(w->sim, target);
    uint8_t block[BLOCK_BYTES];
    struct frame_head_disk frame;
    struct record_head_disk record;
    for (uint64_t at = PLAN_SLOTS_OFFSET; at < sim_disk_bytes(disk); at += BLOCK_BYTES) {
        if (sim_disk_read(disk, at, BLOCK_BYTES, block) != ERR_OK)
            continue;
        memcpy(&frame, block, sizeof frame);
        memcpy(&record, block + FRAME_HEAD_BYTES, sizeof record);
        if (le64_get(frame.magic) != FRAME_MAGIC || record.type != RECORD_MESSAGE ||
            !queue_id_equal(queue_id_disk_get(record.qid), msg->qid))
            continue;
        assert_int_equal(le32_get(frame.blocks), 1);
        sim_disk_make_unreadable(disk, at);
        return true;
    }
    return false;
}

/* The drives gave the sector up on both sides, and nothing comes behind it: the index is complete without it. */
static void a_last_frame_that_no_drive_can_read_does_not_hold_the_index(void **state)
{
    (void)state;
    struct world *w = story_open(61, 2, IO_DURABLE_DSYNC);
    assert_true(world_create_pool(w) && world_mount(w));
    story_append(w, 3, 40000);
    story_append(w, 1, 300);
    struct model_message *last = &w->model.messages[w->model.count - 1];
    world_unmount(w);
    assert_true(make_frame_unreadable(w, 0, last) && make_frame_unreadable(w, 1, last));
    last->lost_said = true;
    if (!world_failed(w) && world_mount(w))
        audit_run(w); /* all others, byte for byte */
    story_close(w, "unreadable on both", 0);
}

/* An end that is bad on one member only is read from the other. */
static void a_last_frame_that_one_drive_cannot_read_is_there(void **state)
{
    (void)state;
    for (uint16_t target = 0; target < 2; target++) {
        struct world *w = story_open(61, 2, IO_DURABLE_DSYNC);
        assert_true(world_create_pool(w) && world_mount(w));
        story_append(w, 1, 300);
        world_unmount(w);
        assert_true(make_frame_unreadable(w, target, &w->model.messages[0]));
        if (!world_failed(w) && world_mount(w))
            audit_run(w);
        story_close(w, "unreadable on", target);
    }
}

/* LOS-1 to LOS-3 on a pool that nothing else has hurt. */
static void what_is_spoilt_everywhere_is_reported_by_id_and_nothing_else_is_lost(void **state)
{
    (void)state;
    for (uint64_t seed = 70; seed < 76; seed++) {
        struct world *w = story_open(seed, 3, IO_DURABLE_FLUSH);
        assert_true(world_create_pool(w) && world_mount(w));
        for (uint32_t i = 0; i < 8; i++)
            story_append(w, 5, 200 + i * 3000);
        story_append(w, 1, 200000);
        world_unmount(w);
        losses_run(w);
        assert_true(world_failed(w) || w->counts.lost_by_id > 0);
        story_close(w, "spoilt", seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_last_frame_that_no_drive_can_read_does_not_hold_the_index),
        cmocka_unit_test(a_last_frame_that_one_drive_cannot_read_is_there),
        cmocka_unit_test(what_is_spoilt_everywhere_is_reported_by_id_and_nothing_else_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
