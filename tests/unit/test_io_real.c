/* SPDX-License-Identifier: Apache-2.0 */
/* What the two real worlds have beyond the contract: watches, the fall back from io_uring, calibration, full and vanished
 * members, the end. What a member does by itself is test_io_member.c. */
#include "io_real_ops.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct io *open_io(enum io_engine engine, int fd)
{
    struct io *io = NULL;
    const char *why;
    struct io_real_member member = {fd, "member"};
    enum err e = io_real_open(engine, &member, 1, &io, &why);
    return e == ERR_OK ? io : NULL;
}

struct seen { uint32_t calls, events; struct io_watch *removes; struct io *io; };

static void on_ready(struct io_watch *watch, uint32_t events)
{
    struct seen *s = watch->owner;
    s->calls++;
    s->events |= events;
    if (s->removes)
        io_watch_remove(s->io, s->removes);
}

static void watches_are_level_triggered_change_and_go(void **state)
{
    struct io *io = open_io(IO_ENGINE_THREADS, -1);
    int fds[2];
    struct seen s = {.io = io};
    (void)state;
    assert_non_null(io);
    assert_int_equal(pipe(fds), 0);
    struct io_watch w = {.fd = fds[0], .events = EPOLLIN, .ready = on_ready, .owner = &s};
    assert_int_equal(io_watch_add(io, &w), ERR_OK);
    assert_int_equal(io_watch_add(io, &w), ERR_EXISTS);
    io_turn(io, 0);
    assert_int_equal(s.calls, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(io_turn(io, TURN_NS), 1);
    assert_int_equal(io_turn(io, TURN_NS), 1); /* still readable */
    assert_int_equal(s.events, EPOLLIN);
    io_watch_change(io, &w, 0);
    assert_int_equal(io_turn(io, 0), 0);
    io_watch_change(io, &w, EPOLLIN);
    assert_int_equal(io_turn(io, TURN_NS), 1);
    io_watch_remove(io, &w);
    assert_int_equal(io_turn(io, 0), 0);
    close(fds[0]);
    close(fds[1]);
    io_real_close(&io);
    assert_null(io);
}

static void a_watch_removed_by_another_is_not_called_even_when_ready(void **state)
{
    struct io *io = open_io(IO_ENGINE_THREADS, -1);
    int fds[4];
    struct seen s[2] = {{.io = io}, {.io = io}};
    struct io_watch w[2];
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(pipe(fds + i * 2), 0);
        w[i] = (struct io_watch){.fd = fds[i * 2], .events = EPOLLIN, .ready = on_ready, .owner = &s[i]};
        s[i].removes = &w[1 - i];
        assert_int_equal(io_watch_add(io, &w[i]), ERR_OK);
        assert_int_equal(write(fds[i * 2 + 1], "x", 1), 1);
    }
    assert_int_equal(io_turn(io, TURN_NS), 1);
    assert_int_equal(s[0].calls + s[1].calls, 1);
    for (uint32_t i = 0; i < 4; i++)
        close(fds[i]);
    io_real_close(&io);
}

static uint32_t done_calls;
static void count_done(struct io_op *op)
{
    (void)op;
    done_calls++;
}

static enum err run(struct io *io, struct io_op *op)
{
    done_calls = 0;
    op->done = count_done;
    io_submit(io, op);
    while (done_calls == 0)
        io_turn(io, TURN_NS);
    return op->result;
}

static void closing_waits_for_ops_and_runs_no_done(void **state)
{
    static const enum io_engine engines[] = {IO_ENGINE_THREADS, IO_ENGINE_URING};
    (void)state;
    for (uint32_t e = 0; e < 2; e++) {
        struct io *io = open_io(engines[e], make_file("."));
        if (!io)
            continue;
        done_calls = 0;
        for (uint32_t i = 0; i < 200; i++) {
            op_of(i, i % 2 ? IO_READ : IO_FLUSH, IO_CLASS_COMMIT, i % 2 ? BLOCK_BYTES : 0)->done = count_done;
            io_submit(io, &ops[i]);
        }
        io_turn(io, 0); /* some fly, some wait, some are back */
        uint32_t before = done_calls;
        io_real_close(&io);
        assert_int_equal(done_calls, before);
    }
}

static void what_is_canceled_before_it_starts_never_starts(void **state)
{
    static const enum io_engine engines[] = {IO_ENGINE_THREADS, IO_ENGINE_AUTO};
    (void)state;
    for (uint32_t e = 0; e < 2; e++) {
        struct io *io = open_io(engines[e], make_file("."));
        assert_non_null(io);
        memset(aligned, 0x33, BLOCK_BYTES);
        struct io_op *op = op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES);
        op->done = count_done;
        done_calls = 0;
        io_submit(io, op);
        io_cancel(io, op);
        io_cancel(io, op); /* harmless */
        assert_int_equal(done_calls, 0);
        io_turn(io, TURN_NS);
        assert_int_equal(done_calls, 1);
        assert_int_equal(op->result, ERR_CANCELED);
        assert_int_equal(run(io, op_of(1, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_OK);
        assert_int_equal(aligned[0], 0);
        io_real_close(&io);
    }
}

static void closing_gives_the_file_back_at_once(void **state)
{
    char path[] = "io-real-XXXXXX";
    (void)state;
    close(mkstemp(path));
    assert_int_equal(truncate(path, (off_t)BYTES), 0);
    for (uint32_t i = 0; i < 20; i++) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0); /* fails while the one before is held */
        struct io *io = open_io(i % 2 ? IO_ENGINE_AUTO : IO_ENGINE_THREADS, fd);
        assert_non_null(io);
        assert_int_equal(run(io, op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES)), ERR_OK);
        io_real_close(&io);
    }
    unlink(path);
}

static void calibration_returns_a_way_and_leaves_the_setting(void **state)
{
    static const enum io_engine engines[] = {IO_ENGINE_THREADS, IO_ENGINE_URING};
    static const char *const places[] = {".", "/dev/shm"};
    (void)state;
    for (uint32_t e = 0; e < 4; e++) {
        int fd = make_file(places[e / 2]);
        struct io *io = fd < 0 ? NULL : open_io(engines[e % 2], fd);
        enum io_durable_by by = IO_DURABLE_UNKNOWN;
        uint32_t dsync = 0, flush = 0;
        if (!io)
            continue;
        enum io_durable_by before = io_target(io, 0)->durable_by;
        assert_int_equal(io_real_calibrate(io, 0, 1 * MIB, &by, &dsync, &flush), ERR_OK);
        assert_int_equal(io_target(io, 0)->durable_by, before);
        if (io_target(io, 0)->buffered)
            assert_int_equal(by, IO_DURABLE_FLUSH);
        else
            assert_int_equal(by, dsync <= flush ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH);
        assert_int_equal(io_real_calibrate(io, 0, BYTES, &by, &dsync, &flush), ERR_INVALID);
        io_real_close(&io);
    }
    struct io *absent = open_io(IO_ENGINE_THREADS, -1);
    enum io_durable_by by;
    uint32_t a, b;
    assert_int_equal(io_real_calibrate(absent, 0, 0, &by, &a, &b), ERR_MEMBER_GONE);
    io_real_close(&absent);
}

static void a_file_member_is_never_punched(void **state)
{
    struct io *io = open_io(IO_ENGINE_AUTO, make_file("."));
    (void)state;
    assert_non_null(io);
    memset(aligned, 0x5a, BLOCK_BYTES);
    assert_int_equal(run(io, op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES)), ERR_OK);
    assert_int_equal(run(io, op_of(0, IO_DISCARD, IO_CLASS_COMPACT, BLOCK_BYTES)), ERR_INVALID);
    memset(aligned, 0, BLOCK_BYTES);
    assert_int_equal(run(io, op_of(0, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_OK);
    assert_int_equal(aligned[17], 0x5a);
    io_real_close(&io);
}

static bool loop_of(char *loop, size_t size, const char *file)
{
    char command[200];
    snprintf(command, sizeof command, "losetup --find --show %s 2>/dev/null", file);
    FILE *f = geteuid() == 0 ? popen(command, "r") : NULL;
    bool got = f && fgets(loop, (int)size, f) != NULL;
    if (f)
        pclose(f);
    loop[strcspn(loop, "\n")] = '\0';
    return got;
}

static void a_block_device_discards_in_both_worlds(void **state)
{
    char file[] = "io-real-XXXXXX", loop[64], command[100];
    (void)state;
    int fd = mkstemp(file);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)BYTES), 0);
    close(fd);
    bool got = loop_of(loop, sizeof loop, file);
    for (uint32_t i = 0; got && i < 2; i++) {
        struct io *io = open_io(i ? IO_ENGINE_URING : IO_ENGINE_THREADS, open(loop, O_RDWR | O_CLOEXEC));
        if (!io)
            continue;
        assert_false(io_target(io, 0)->is_file);
        memset(aligned, 0x5a, BLOCK_BYTES);
        assert_int_equal(run(io, op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES)), ERR_OK);
        if (io_target(io, 0)->discards) {
            assert_int_equal(run(io, op_of(0, IO_DISCARD, IO_CLASS_COMPACT, BLOCK_BYTES)), ERR_OK);
            assert_int_equal(run(io, op_of(0, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_OK);
            assert_int_equal(aligned[17], 0); /* a loop device punches its file */
        }
        io_real_close(&io);
    }
    snprintf(command, sizeof command, "losetup --detach %s", loop);
    if (got)
        assert_int_equal(system(command), 0);
    unlink(file);
    if (!got)
        skip();
}

/* A block device that shrinks to nothing answers as a pulled disk does: writes ENOSPC, reads nothing. */
static void a_device_without_size_is_gone(void **state)
{
    char file[] = "io-real-XXXXXX", loop[64], command[200];
    (void)state;
    int fd = mkstemp(file);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)BYTES), 0);
    bool got = loop_of(loop, sizeof loop, file);
    struct io *io[2] = {NULL, NULL};
    for (uint32_t i = 0; got && i < 2; i++)
        io[i] = open_io(i ? IO_ENGINE_URING : IO_ENGINE_THREADS, open(loop, O_RDWR | O_CLOEXEC));
    snprintf(command, sizeof command, "losetup --set-capacity %s", loop);
    bool shrunk = got && ftruncate(fd, 0) == 0 && system(command) == 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (shrunk && io[i]) {
            assert_int_equal(run(io[i], op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES)), ERR_MEMBER_GONE);
            assert_int_equal(run(io[i], op_of(0, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_MEMBER_GONE);
            if (io_target(io[i], 0)->discards) /* an errno that means nothing by itself: the size decides */
                assert_int_equal(run(io[i], op_of(0, IO_DISCARD, IO_CLASS_COMPACT, BLOCK_BYTES)), ERR_MEMBER_GONE);
        }
        io_real_close(&io[i]);
    }
    close(fd);
    snprintf(command, sizeof command, "losetup --detach %s", loop);
    if (got)
        assert_int_equal(system(command), 0);
    unlink(file);
    if (!shrunk)
        skip();
}

/* A sparse file on a file system too small for it: full is the file's word, not a pulled disk's. */
static void a_file_on_a_full_file_system_says_so(void **state)
{
    char directory[] = "io-real-XXXXXX", path[64], command[200];
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/member", directory);
    snprintf(command, sizeof command, "mount -t tmpfs -o size=256k none %s 2>/dev/null", directory);
    bool mounted = geteuid() == 0 && system(command) == 0;
    for (uint32_t i = 0; mounted && i < 2; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate(fd, (off_t)BYTES), 0);
        struct io *io = open_io(i ? IO_ENGINE_URING : IO_ENGINE_THREADS, fd);
        if (!io) {
            close(fd);
            continue;
        }
        enum err e = ERR_OK;
        for (uint32_t n = 0; n < 100 && e == ERR_OK; n++) {
            struct io_op *op = op_of(0, IO_WRITE, IO_CLASS_COMMIT, BLOCK_BYTES);
            op->offset = (uint64_t)n * BLOCK_BYTES;
            op->durable = true;
            e = run(io, op);
        }
        assert_int_equal(e, ERR_MEMBER_FULL);
        assert_int_equal(run(io, op_of(0, IO_READ, IO_CLASS_DELIVER, BLOCK_BYTES)), ERR_OK); /* and is still there */
        io_real_close(&io);
        unlink(path);
    }
    snprintf(command, sizeof command, "umount %s", directory);
    if (mounted)
        assert_int_equal(system(command), 0);
    rmdir(directory);
    if (!mounted)
        skip();
}

/* --- io_uring forbidden, as in many containers --- */

static void forbid_io_uring(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof rules[0], .filter = rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

static int without_io_uring(void)
{
    struct io *io = NULL;
    const char *why = "";
    forbid_io_uring();
    struct io_real_member member = {make_file("."), "member"};
    if (io_real_open(IO_ENGINE_AUTO, &member, 1, &io, &why) != ERR_OK || strcmp(io->ops->name(io), "threads") != 0 ||
        !strstr(why, "forbidden"))
        return 1;
    if (run(io, op_of(0, IO_READ, IO_CLASS_COMMIT, BLOCK_BYTES)) != ERR_OK)
        return 2;
    io_real_close(&io);
    member.fd = make_file(".");
    why = "";
    if (io_real_open(IO_ENGINE_URING, &member, 1, &io, &why) != ERR_DENIED || !strstr(why, "forbidden") || io)
        return 3;
    if (close(member.fd) != 0) /* refused: still ours */
        return 4;
    return 0;
}

static void auto_falls_back_to_threads_where_io_uring_is_forbidden(void **state)
{
    int status = 0;
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(without_io_uring());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watches_are_level_triggered_change_and_go),
        cmocka_unit_test(a_watch_removed_by_another_is_not_called_even_when_ready),
        cmocka_unit_test(closing_waits_for_ops_and_runs_no_done),
        cmocka_unit_test(what_is_canceled_before_it_starts_never_starts),
        cmocka_unit_test(closing_gives_the_file_back_at_once),
        cmocka_unit_test(calibration_returns_a_way_and_leaves_the_setting),
        cmocka_unit_test(a_file_member_is_never_punched),
        cmocka_unit_test(a_block_device_discards_in_both_worlds),
        cmocka_unit_test(a_device_without_size_is_gone),
        cmocka_unit_test(a_file_on_a_full_file_system_says_so),
        cmocka_unit_test(auto_falls_back_to_threads_where_io_uring_is_forbidden),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
