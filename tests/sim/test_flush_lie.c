/* SPDX-License-Identifier: Apache-2.0 */
/* REC-9: a member that lost what it had called durable is named after the crash, and made whole; one that lost only what was in
 * flight, or whose bits have flipped, is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "story.h"

#define MAIL_BYTES 20000u /* larger than any frame of the segment table here */

struct liar { uint16_t target; enum sim_fault fault; uint32_t told; };

static void lie(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    struct liar *l = owner;
    (void)index;
    if (op->kind != IO_WRITE || !op->durable || op->target != l->target || op->length < MAIL_BYTES)
        return;
    fate->fault = l->fault;
    l->told++;
}

static struct world *mounted(uint64_t seed)
{
    struct world *w = story_open(seed, 2, IO_DURABLE_DSYNC);
    assert_true(world_create_pool(w) && world_mount(w));
    return w;
}

static void append_one_after_the_other(struct world *w, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        story_append(w, 1, MAIL_BYTES);
}

static uint64_t accused_after_mount(struct world *w)
{
    uint64_t before = w->counts.events[EVENT_flush_lied];
    if (!world_failed(w) && world_mount(w))
        audit_run(w);
    return w->counts.events[EVENT_flush_lied] - before;
}

static void what_was_called_durable_and_is_not_there_names_its_member(void **state)
{
    (void)state;
    const enum sim_fault lies[] = {SIM_FAULT_flush_lie, SIM_FAULT_lost_write};
    for (uint32_t i = 0; i < 2; i++)
        for (uint16_t target = 0; target < 2; target++) {
            struct world *w = mounted(60 + i);
            struct liar l = {.target = target, .fault = lies[i]};
            sim_io_on_submit(w->sim, &l, lie);
            append_one_after_the_other(w, 3);
            sim_io_on_submit(w->sim, NULL, NULL);
            assert_true(l.told >= 3);
            story_cut(w, SIM_SURVIVE_NONE);
            uint64_t accused = accused_after_mount(w);
            story_cut(w, SIM_SURVIVE_NONE);
            uint64_t again = accused_after_mount(w); /* it was healed, and that stayed */
            story_close(w, "lies", target);
            assert_true(accused == 1 && again == 0);
        }
}

static void what_only_the_last_frame_lacks_proves_nothing(void **state)
{
    (void)state;
    for (uint16_t target = 0; target < 2; target++) {
        struct world *w = mounted(62);
        struct liar l = {.target = target, .fault = SIM_FAULT_lost_write};
        append_one_after_the_other(w, 2);
        sim_io_on_submit(w->sim, &l, lie);
        append_one_after_the_other(w, 1);
        sim_io_on_submit(w->sim, NULL, NULL);
        assert_true(l.told >= 1);
        story_cut(w, SIM_SURVIVE_NONE);
        uint64_t accused = accused_after_mount(w);
        story_close(w, "last frame", target);
        assert_int_equal(accused, 0);
    }
}

static void an_honest_member_is_not_accused_wherever_the_power_goes(void **state)
{
    (void)state;
    for (uint32_t turns = 0; turns < 24; turns++) {
        struct world *w = mounted(64);
        append_one_after_the_other(w, 2);
        for (uint32_t i = 0; i < 12 && !world_failed(w); i++)
            senders_append(w, MAIL_BYTES, false);
        for (uint32_t i = 0; i < turns && !world_failed(w); i++)
            world_turn(w);
        story_cut(w, SIM_SURVIVE_RANDOM);
        uint64_t accused = accused_after_mount(w);
        story_close(w, "power goes after turn", turns);
        assert_int_equal(accused, 0);
    }
}

static void flipped_bits_are_no_lie(void **state)
{
    (void)state;
    for (uint16_t target = 0; target < 2; target++) {
        struct world *w = mounted(65);
        append_one_after_the_other(w, 3);
        story_cut(w, SIM_SURVIVE_NONE);
        story_rot(w, target, SEGMENT_MAIL);
        uint64_t accused = accused_after_mount(w);
        story_close(w, "rot", target);
        assert_int_equal(accused, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_called_durable_and_is_not_there_names_its_member),
        cmocka_unit_test(what_only_the_last_frame_lacks_proves_nothing),
        cmocka_unit_test(an_honest_member_is_not_accused_wherever_the_power_goes),
        cmocka_unit_test(flipped_bits_are_no_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
