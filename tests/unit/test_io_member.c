/* SPDX-License-Identifier: Apache-2.0 */
/* One member of a real world, with the test as its kernel: the error table, the order of a member's ops, the rules of a
 * buffered member. */
#include "io_real_ops.h"

#include <errno.h>
#include <io/io_error.h>
#include <io/io_member.h>
#include <string.h>

/* --- the table --- */

static void every_result_has_the_meaning_that_was_measured(void **state)
{
    static const struct {
        struct io_outcome o;
        enum err e;
    } cases[] = {
        /* a pulled disk: the triple, and the rare honest answers */
        {{IO_WRITE, false, false, 4096, -ENOSPC}, ERR_MEMBER_GONE},
        {{IO_READ, false, false, 4096, 0}, ERR_MEMBER_GONE},
        {{IO_FLUSH, false, true, 0, -EIO}, ERR_MEMBER_GONE},
        {{IO_READ, false, false, 4096, -ENODEV}, ERR_MEMBER_GONE},
        {{IO_WRITE, false, false, 4096, -ENXIO}, ERR_MEMBER_GONE},
        {{IO_READ, true, false, 4096, -ENOTCONN}, ERR_MEMBER_GONE},
        {{IO_READ, false, true, 4096, -EIO}, ERR_MEMBER_GONE},
        {{IO_WRITE, false, true, 8192, 4096}, ERR_MEMBER_GONE},
        /* a flush that failed on a device that is there is not a pulled disk */
        {{IO_FLUSH, false, false, 0, -EIO}, ERR_IO},
        {{IO_FLUSH, true, false, 0, -EIO}, ERR_IO},
        /* media */
        {{IO_READ, false, false, 4096, -ENODATA}, ERR_MEDIA},
        {{IO_READ, true, false, 4096, -EILSEQ}, ERR_MEDIA},
        {{IO_READ, true, false, 4096, -EBADMSG}, ERR_MEDIA},
        {{IO_READ, false, false, 4096, -EIO}, ERR_IO},
        {{IO_WRITE, false, false, 4096, -EIO}, ERR_IO},
        {{IO_WRITE, true, false, 4096, -EROFS}, ERR_IO},
        {{IO_READ, false, false, 4096, -ETIMEDOUT}, ERR_TIMEOUT},
        /* full is for files */
        {{IO_WRITE, true, false, 4096, -ENOSPC}, ERR_MEMBER_FULL},
        {{IO_WRITE, true, false, 4096, -EDQUOT}, ERR_MEMBER_FULL},
        {{IO_FLUSH, true, false, 0, -ENOSPC}, ERR_MEMBER_FULL},
        /* short */
        {{IO_READ, true, false, 4096, 0}, ERR_SHORT},
        {{IO_READ, true, false, 8192, 4096}, ERR_SHORT},
        {{IO_READ, false, false, 8192, 4096}, ERR_SHORT},
        {{IO_WRITE, true, false, 8192, 512}, ERR_SHORT},
        {{IO_WRITE, false, false, 4096, 0}, ERR_SHORT},
        /* well, canceled, out of breath */
        {{IO_READ, false, false, 4096, 4096}, ERR_OK},
        {{IO_WRITE, true, false, 4096, 4096}, ERR_OK},
        {{IO_FLUSH, false, false, 0, 0}, ERR_OK},
        {{IO_DISCARD, false, false, 0, 0}, ERR_OK},
        {{IO_DISCARD, false, false, 0, -EOPNOTSUPP}, ERR_INVALID},
        {{IO_WRITE, false, false, 4096, -EOPNOTSUPP}, ERR_IO},
        {{IO_WRITE, false, true, 4096, -ECANCELED}, ERR_CANCELED},
        {{IO_READ, false, false, 4096, -ENOMEM}, ERR_NO_MEMORY},
        {{IO_READ, false, false, 4096, -EAGAIN}, ERR_BUSY},
        {{IO_READ, false, false, 4096, -9999}, ERR_IO},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (io_error_of(&cases[i].o) != cases[i].e)
            fail_msg("case %zu: %s, not %s", i, err_name(io_error_of(&cases[i].o)), err_name(cases[i].e));
}

/* --- a member, with the test as its kernel --- */

static void member_of(struct io_member *m, const char *directory)
{
    int fd = make_file(directory);
    assert_true(fd >= 0);
    io_member_init(m, fd);
    assert_true(m->target.present);
}

static bool land(struct io_member *m, struct io_op *op, int64_t moved, int64_t flushed)
{
    io_private(op)->moved_now = moved;
    io_private(op)->flushed = flushed;
    return io_member_land(m, op);
}

static void a_commit_passes_what_waits_and_background_leaves_room(void **state)
{
    struct io_member m;
    uint32_t started = 0;
    (void)state;
    member_of(&m, ".");
    for (uint32_t i = 0; i < 100; i++)
        io_member_wait(&m, op_of(i, IO_READ, IO_CLASS_SCRUB, BLOCK_BYTES));
    while (io_member_next(&m))
        started++;
    assert_int_equal(started, IO_BACKGROUND_IN_FLIGHT_MAX);
    io_member_wait(&m, op_of(100, IO_READ, IO_CLASS_REPAIR, BLOCK_BYTES));
    for (uint32_t i = 101; i < 150; i++)
        io_member_wait(&m, op_of(i, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES));
    io_member_wait(&m, op_of(150, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES));
    for (uint32_t i = 101; started < IO_IN_FLIGHT_PER_MEMBER_MAX; i++, started++)
        assert_ptr_equal(io_member_next(&m), &ops[i]);
    assert_null(io_member_next(&m));
    assert_true(land(&m, &ops[0], BLOCK_BYTES, FLUSH_NONE));
    assert_int_equal(ops[0].result, ERR_OK);
    assert_int_equal(io_member_next(&m)->class, IO_CLASS_COMMIT);
    io_member_close(&m);
}

static void a_remainder_goes_on_where_it_was_cut(void **state)
{
    struct io_member m;
    (void)state;
    member_of(&m, ".");
    io_member_wait(&m, op_of(0, IO_WRITE, IO_CLASS_COMMIT, 4 * BLOCK_BYTES));
    assert_ptr_equal(io_member_next(&m), &ops[0]);
    assert_false(land(&m, &ops[0], BLOCK_BYTES, FLUSH_NONE));
    assert_ptr_equal(io_member_next(&m), &ops[0]);
    assert_int_equal(io_private(&ops[0])->moved, BLOCK_BYTES);
    assert_false(land(&m, &ops[0], -EINTR, FLUSH_NONE));
    assert_ptr_equal(io_member_next(&m), &ops[0]);
    assert_true(land(&m, &ops[0], 100, FLUSH_NONE)); /* no whole block: no going on */
    assert_int_equal(ops[0].result, ERR_SHORT);
    io_member_wait(&m, op_of(1, IO_READ, IO_CLASS_COMMIT, BLOCK_BYTES));
    uint32_t tries = 0;
    do {
        assert_ptr_equal(io_member_next(&m), &ops[1]);
        assert_true(++tries < 1000);
    } while (!land(&m, &ops[1], -EAGAIN, FLUSH_NONE));
    assert_int_equal(ops[1].result, ERR_BUSY);
    assert_int_equal(m.in_flight, 0);
    io_member_close(&m);
}

static void one_failed_flush_fails_a_buffered_member_for_good(void **state)
{
    struct io_member m;
    (void)state;
    if (access("/dev/shm", W_OK) != 0)
        skip();
    member_of(&m, "/dev/shm");
    assert_true(m.target.buffered);
    for (uint32_t i = 0; i < 4; i++)
        op_of(i, i == 2 ? IO_FLUSH : IO_WRITE, IO_CLASS_COMMIT, i == 2 ? 0 : BLOCK_BYTES)->durable = i < 2;
    for (uint32_t i = 0; i < 4; i++)
        io_member_wait(&m, &ops[i]);
    assert_ptr_equal(io_member_next(&m), &ops[0]);
    assert_int_equal(io_private(&ops[0])->way, IO_WAY_THEN_FLUSH);
    assert_null(io_member_next(&m)); /* one flush at a time */
    assert_true(land(&m, &ops[0], BLOCK_BYTES, 0));
    assert_int_equal(ops[0].result, ERR_OK);
    assert_ptr_equal(io_member_next(&m), &ops[1]);
    assert_true(land(&m, &ops[1], BLOCK_BYTES, -EIO));
    assert_int_equal(ops[1].result, ERR_IO);
    assert_ptr_equal(io_member_next_failed(&m), &ops[2]);
    assert_ptr_equal(io_member_next_failed(&m), &ops[3]);
    assert_null(io_member_next_failed(&m));
    assert_int_equal(io_member_admit(&m, op_of(0, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_MEMBER_GONE);
    io_member_close(&m);
}

static void a_failed_flush_fails_only_its_op_where_nothing_is_cached(void **state)
{
    struct io_member m;
    (void)state;
    member_of(&m, ".");
    if (m.target.buffered) {
        io_member_close(&m);
        skip();
    }
    m.target.durable_by = IO_DURABLE_FLUSH;
    op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES)->durable = true;
    io_member_wait(&m, &ops[0]);
    assert_ptr_equal(io_member_next(&m), &ops[0]);
    assert_true(land(&m, &ops[0], BLOCK_BYTES, -EIO));
    assert_int_equal(ops[0].result, ERR_IO);
    assert_int_equal(io_member_admit(&m, op_of(1, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_OK);
    io_member_close(&m);
}

/* MBR-4: the drive may have dropped what they had written, and answers their flush as if nothing had been. */
static void what_was_made_durable_beside_a_failed_flush_is_written_again(void **state)
{
    struct io_member m;
    (void)state;
    member_of(&m, ".");
    if (m.target.buffered) {
        io_member_close(&m);
        skip();
    }
    for (uint32_t way = IO_DURABLE_DSYNC; way <= IO_DURABLE_FLUSH; way++) {
        int64_t failed = way == IO_DURABLE_FLUSH ? -EIO : FLUSH_NONE, well = way == IO_DURABLE_FLUSH ? 0 : FLUSH_NONE;
        m.target.durable_by = (enum io_durable_by)way;
        for (uint32_t i = 0; i < 5; i++) {
            op_of(i, i == 3 ? IO_FLUSH : IO_WRITE, IO_CLASS_COMMIT, i == 3 ? 0 : BLOCK_BYTES)->durable = i < 3;
            io_member_wait(&m, &ops[i]);
            assert_ptr_equal(io_member_next(&m), &ops[i]);
        }
        assert_true(land(&m, &ops[0], BLOCK_BYTES, well));
        assert_true(land(&m, &ops[1], way == IO_DURABLE_FLUSH ? (int64_t)BLOCK_BYTES : -EIO, failed));
        assert_false(land(&m, &ops[2], BLOCK_BYTES, well));
        assert_true(land(&m, &ops[3], 0, FLUSH_NONE)); /* nobody knows which writes it was for */
        assert_true(land(&m, &ops[4], BLOCK_BYTES, FLUSH_NONE));
        assert_ptr_equal(io_member_next(&m), &ops[2]);
        assert_int_equal(io_private(&ops[2])->moved, 0);
        assert_true(land(&m, &ops[2], BLOCK_BYTES, well));
        static const enum err results[] = {ERR_OK, ERR_IO, ERR_OK, ERR_IO, ERR_OK};
        for (uint32_t i = 0; i < 5; i++)
            assert_int_equal(ops[i].result, results[i]);
    }
    io_member_close(&m);
}

static void what_is_no_file_and_no_block_device_is_absent(void **state)
{
    static const char *const paths[] = {".", "/dev/null"};
    struct io_member m;
    int pipe_fds[2];
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        io_member_init(&m, open(paths[i], O_RDONLY | O_CLOEXEC));
        assert_false(m.target.present);
        io_member_close(&m);
    }
    assert_int_equal(pipe(pipe_fds), 0);
    io_member_init(&m, pipe_fds[0]);
    assert_false(m.target.present);
    io_member_close(&m);
    close(pipe_fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_result_has_the_meaning_that_was_measured),
        cmocka_unit_test(a_commit_passes_what_waits_and_background_leaves_room),
        cmocka_unit_test(a_remainder_goes_on_where_it_was_cut),
        cmocka_unit_test(one_failed_flush_fails_a_buffered_member_for_good),
        cmocka_unit_test(a_failed_flush_fails_only_its_op_where_nothing_is_cached),
        cmocka_unit_test(what_was_made_durable_beside_a_failed_flush_is_written_again),
        cmocka_unit_test(what_is_no_file_and_no_block_device_is_absent),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
