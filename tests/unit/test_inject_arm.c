/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of one arm: ARM-1 to ARM-3 on orders of operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <base/prng.h>
#include <cmocka.h>
#include <inject_arm.h>
#include <spoolfs/limits.h>

#define SIZE (4096 * MIB)
#define MS UINT64_C(1000000)

static struct inject_arm fresh(void)
{
    return (struct inject_arm){.read_end = UINT64_MAX};
}

/* Each follows the end of the one before; mean time of the second half. */
static uint64_t mean_ns(enum io_kind kind, uint32_t length, bool random, uint64_t pause)
{
    struct inject_arm arm = fresh();
    struct prng r = {5};
    uint64_t now = 123456789, at = 64 * MIB, sum = 0;
    for (uint32_t i = 0; i < 400; i++) {
        struct io_op op = {.kind = kind, .offset = at, .length = length};
        uint64_t done = inject_arm_done(&arm, &op, SIZE, 100, now);
        sum += i >= 200 ? done - now : 0;
        now = done + pause;
        at = random ? prng_below(&r, SIZE / BLOCK_BYTES - 256) * BLOCK_BYTES : at + length;
    }
    return sum / 200;
}

static void random_reads_take_what_a_drive_takes(void **state)
{
    (void)state;
    uint64_t ns = mean_ns(IO_READ, BLOCK_BYTES, true, 0);
    assert_true(ns > 9 * MS && ns < 16 * MS); /* 7200 rpm: about 12.5 */
}

static void what_follows_is_read_at_the_speed_of_the_platter(void **state)
{
    (void)state;
    uint64_t ns = mean_ns(IO_READ, 256 * 1024, false, MS);
    assert_true(256.0 * 1024 / (double)ns > 0.15 && 256.0 * 1024 / (double)ns < 0.16); /* GB/s */
}

static void a_log_waits_for_a_turn_with_every_write(void **state)
{
    (void)state;
    uint64_t ns = mean_ns(IO_WRITE, BLOCK_BYTES, false, MS / 10);
    assert_true(ns > 7 * MS && ns < 9 * MS);
}

static void one_operation_at_a_time_in_order(void **state)
{
    (void)state;
    struct inject_arm arm = fresh();
    struct prng r = {9};
    uint64_t last = 0;
    for (uint32_t i = 0; i < 100; i++) {
        struct io_op op = {.kind = i % 3 ? IO_READ : IO_WRITE, .offset = prng_below(&r, 1000) * MIB, .length = BLOCK_BYTES};
        uint64_t done = inject_arm_done(&arm, &op, SIZE, 100, MS);
        assert_true(done > last);
        last = done;
    }
    assert_true(last > 100 * 8 * MS);
    struct io_op flush = {.kind = IO_FLUSH};
    assert_int_equal(inject_arm_done(&arm, &flush, SIZE, 100, MS), last); /* costs nothing, and comes after them */
}

static void percent_is_of_the_time(void **state)
{
    (void)state;
    struct inject_arm a = fresh(), b = fresh();
    struct io_op op = {.kind = IO_READ, .offset = 2000 * MIB, .length = MIB};
    uint64_t one = inject_arm_done(&a, &op, SIZE, 100, MS) - MS, ten = inject_arm_done(&b, &op, SIZE, 1000, MS) - MS;
    assert_true(ten / 10 == one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_reads_take_what_a_drive_takes),
        cmocka_unit_test(what_follows_is_read_at_the_speed_of_the_platter),
        cmocka_unit_test(a_log_waits_for_a_turn_with_every_write),
        cmocka_unit_test(one_operation_at_a_time_in_order),
        cmocka_unit_test(percent_is_of_the_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
