/* SPDX-License-Identifier: Apache-2.0 */
/* The order of ops on one member: DSP-1 to DSP-4 on a device whose answers the test gives one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <upkeep_parts.h>

#define OPS_MAX 512u
#define MS UINT64_C(1000000)

static struct {
    struct io io;
    struct io_target target;
    struct pool pool;
    struct member *m;
    uint64_t now;
    struct io_op *device[OPS_MAX]; /* with the device, in order of arrival */
    uint32_t at_device, answered;
    struct member_op ops[OPS_MAX];
    uint32_t count;
} t;

static void device_submit(struct io *io, struct io_op *op)
{
    (void)io;
    t.device[t.at_device++] = op;
}
static uint64_t device_now(struct io *io) { (void)io; return t.now; }
static uint64_t device_wall(struct io *io) { (void)io; return t.now / MS; }
static const struct io_target *device_target(struct io *io, uint16_t n) { (void)io; (void)n; return &t.target; }
static const struct io_ops device_ops = {.submit = device_submit, .now_ns = device_now, .wall_ms = device_wall,
                                         .target = device_target};

static void on_answer(struct member_op *mo)
{
    (void)mo;
    t.answered++;
}

static struct member_op *start(enum io_class class)
{
    struct member_op *mo = &t.ops[t.count++];
    *mo = (struct member_op){.done = on_answer, .mail = class <= IO_CLASS_DELIVER};
    mo->op = (struct io_op){.kind = class == IO_CLASS_COMMIT ? IO_WRITE : IO_READ, .class = class, .length = BLOCK_BYTES};
    member_submit(t.m, mo);
    return mo;
}

/* The device answers the i-th of what it has. */
static struct io_op *answer(uint32_t i)
{
    assert_true(i < t.at_device);
    struct io_op *op = t.device[i];
    memmove(&t.device[i], &t.device[i + 1], (--t.at_device - i) * sizeof t.device[0]);
    op->result = ERR_OK;
    op->done_ns = t.now;
    op->done(op);
    return op;
}

/* The first background op the device has, from the i-th on. */
static uint32_t background_at(uint32_t i)
{
    while (i < t.at_device && !io_class_is_background(t.device[i]->class))
        i++;
    return i;
}

static int fresh(bool arm)
{
    memset(&t, 0, sizeof t);
    t.io.ops = &device_ops;
    t.now = UINT64_C(1000000000);
    t.target = (struct io_target){.present = true, .rotational = arm};
    t.pool.io = &t.io;
    t.m = &t.pool.members[0];
    *t.m = (struct member){.pool = &t.pool, .used = true, .present = true, .state = MEMBER_HEALTHY,
                           .slots_offset = UINT64_MAX};
    link_init(&t.m->commits);
    link_init(&t.m->durables);
    dispatch_init(&t.m->dispatch);
    return 0;
}
static int setup_arm(void **state) { (void)state; return fresh(true); }
static int setup_flash(void **state) { (void)state; return fresh(false); }

static void an_idle_member_gets_as_much_as_keeps_it_busy(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        start(IO_CLASS_SCRUB);
    assert_int_equal(t.at_device, DISPATCH_FLASH_IDLE);
    fresh(true);
    for (uint32_t i = 0; i < 20; i++)
        start(IO_CLASS_SCRUB);
    assert_int_equal(t.at_device, DISPATCH_ARM_IDLE);
    assert_int_equal(t.m->dispatch.waits[IO_CLASS_SCRUB], 20 - DISPATCH_ARM_IDLE);
    assert_int_equal(t.m->ops, 20); /* DSP-4 */
}

static void mail_never_waits_for_background_work(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 50; i++)
        start(IO_CLASS_REBUILD);
    for (uint32_t i = 0; i < 40; i++) {
        uint32_t before = t.at_device;
        struct member_op *mail = start(i % 2 ? IO_CLASS_DELIVER : IO_CLASS_COMMIT);
        assert_int_equal(t.at_device, before + 1); /* DSP-1 */
        assert_ptr_equal(t.device[before], &mail->op);
    }
}

static void with_mail_about_an_arm_does_one_thing_beside_it(void **state)
{
    (void)state;
    start(IO_CLASS_COMMIT);
    for (uint32_t i = 0; i < 5; i++)
        start(IO_CLASS_SCRUB);
    assert_int_equal(t.at_device, 2);
    answer(0);                       /* the mail: for 50 ms more the member is not idle */
    assert_int_equal(t.at_device, 1);
    answer(0);
    assert_int_equal(t.at_device, 1);
    t.now += DISPATCH_IDLE_NS;
    answer(0);
    assert_int_equal(t.at_device, DISPATCH_ARM_IDLE);
}

static void background_goes_by_class_and_in_order(void **state)
{
    (void)state;
    start(IO_CLASS_COMMIT);
    start(IO_CLASS_BACKUP); /* with the device, before anything better came */
    const enum io_class come[] = {IO_CLASS_COMPACT, IO_CLASS_SCRUB, IO_CLASS_EVACUATE, IO_CLASS_SCRUB, IO_CLASS_REPAIR,
                                  IO_CLASS_REBUILD};
    const uint32_t go[] = {4, 5, 2, 1, 3, 0};
    struct member_op *ops[6];
    for (uint32_t i = 0; i < 6; i++)
        ops[i] = start(come[i]);
    for (uint32_t i = 0; i < 6; i++) {
        answer(background_at(0));
        assert_ptr_equal(t.device[background_at(0)], &ops[go[i]]->op);
        start(IO_CLASS_COMMIT); /* mail stays about, and each piece brings new credit */
        answer(t.device[0]->class == IO_CLASS_COMMIT ? 0 : 1);
    }
}

static void one_piece_of_mail_lets_five_pass_and_no_more(void **state)
{
    (void)state;
    start(IO_CLASS_COMMIT);
    for (uint32_t i = 0; i < 20; i++)
        start(IO_CLASS_SCRUB);
    uint32_t passed = 0;
    while (t.at_device > 1) {
        answer(1);
        passed++;
    }
    assert_int_equal(passed, DISPATCH_CREDIT);
    answer(0); /* the mail is answered: on it goes */
    assert_true(t.at_device > 0);
}

static void a_class_that_waited_long_goes_first_once(void **state)
{
    (void)state;
    start(IO_CLASS_COMMIT);
    start(IO_CLASS_REBUILD);
    struct member_op *scrub = start(IO_CLASS_SCRUB);
    struct member_op *scrub_too = start(IO_CLASS_SCRUB);
    t.now += DISPATCH_PATIENCE_NS - 1;
    start(IO_CLASS_REBUILD);
    struct member_op *rebuild = start(IO_CLASS_REBUILD);
    (void)rebuild;
    t.now += 1;
    answer(1);
    assert_ptr_equal(t.device[1], &scrub->op);
    answer(1);
    assert_ptr_equal(t.device[1], &scrub_too->op); /* it waited as long */
    answer(1);
    assert_int_equal(t.device[1]->class, IO_CLASS_REBUILD);
}

static void whatever_comes_everything_is_answered(void **state)
{
    (void)state;
    srand(7);
    for (uint32_t round = 0; round < 40; round++) {
        fresh(round % 2);
        while (t.count < 400 || t.at_device > 0) {
            if (t.count < 400 && rand() % 3 > 0)
                start((enum io_class)(rand() % IO_CLASS_COUNT));
            else if (t.at_device > 0)
                answer((uint32_t)rand() % t.at_device);
            t.now += (uint64_t)(rand() % 3) * 10 * MS;
        }
        assert_int_equal(t.answered, 400); /* DSP-3: nothing is left behind when the device has nothing more */
        assert_int_equal(t.m->ops, 0);
    }
}

static void what_is_done_is_charged_to_the_member_it_goes_to(void **state)
{
    (void)state;
    t.m->share.tokens = 3 * BLOCK_BYTES;
    t.m->share.own[IO_CLASS_SCRUB] = 2 * BLOCK_BYTES;
    assert_true(upkeep_may(&t.pool, 1, IO_CLASS_SCRUB));
    for (uint32_t i = 0; i < 3; i++)
        start(IO_CLASS_SCRUB);
    assert_false(upkeep_may(&t.pool, 1, IO_CLASS_SCRUB));
    assert_int_equal(t.m->share.tokens, 0);
    start(IO_CLASS_REPAIR); /* does not ask; owes */
    assert_int_equal(t.m->share.tokens, -(int64_t)BLOCK_BYTES);
    assert_true(upkeep_may(&t.pool, 2, IO_CLASS_SCRUB)); /* another member, not here: it holds nobody up */
}

static void an_arm_with_mail_about_reads_in_pieces(void **state)
{
    (void)state;
    assert_int_equal(dispatch_piece(t.m, 4 * DISPATCH_PIECE_BYTES), 4 * DISPATCH_PIECE_BYTES);
    start(IO_CLASS_COMMIT);
    assert_int_equal(dispatch_piece(t.m, 4 * DISPATCH_PIECE_BYTES), DISPATCH_PIECE_BYTES);
    assert_int_equal(dispatch_piece(t.m, BLOCK_BYTES), BLOCK_BYTES);
    t.target.rotational = false;
    assert_int_equal(dispatch_piece(t.m, 4 * DISPATCH_PIECE_BYTES), 4 * DISPATCH_PIECE_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_idle_member_gets_as_much_as_keeps_it_busy, setup_flash),
        cmocka_unit_test_setup(mail_never_waits_for_background_work, setup_arm),
        cmocka_unit_test_setup(with_mail_about_an_arm_does_one_thing_beside_it, setup_arm),
        cmocka_unit_test_setup(background_goes_by_class_and_in_order, setup_arm),
        cmocka_unit_test_setup(one_piece_of_mail_lets_five_pass_and_no_more, setup_flash),
        cmocka_unit_test_setup(a_class_that_waited_long_goes_first_once, setup_arm),
        cmocka_unit_test_setup(whatever_comes_everything_is_answered, setup_flash),
        cmocka_unit_test_setup(what_is_done_is_charged_to_the_member_it_goes_to, setup_flash),
        cmocka_unit_test_setup(an_arm_with_mail_about_reads_in_pieces, setup_arm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
