/* SPDX-License-Identifier: Apache-2.0 */
/* Members are waited for while a killed spool still holds them: by a lock, or, on a block device, by O_EXCL. The latter is
 * played here by open() itself, so that no device is needed. */
#include "engine.h"
#include "members_open.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES (8 * MIB)

static char g_path[64];
static unsigned g_busy; /* how many more times open() says EBUSY for it */

int open(const char *path, int flags, ...)
{
    if (g_busy > 0 && strcmp(path, g_path) == 0) {
        g_busy--;
        errno = EBUSY;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}

static struct pool_config g_pool;

static int setup(void **state)
{
    (void)state;
    snprintf(g_path, sizeof g_path, "./members-open-%d", (int)getpid());
    int fd = (int)syscall(SYS_openat, AT_FDCWD, g_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    assert_int_equal(pwrite(fd, SUPERBLOCK_MAGIC, 8, (off_t)superblock_offset(BYTES, 0)), 8);
    close(fd);
    g_pool = (struct pool_config){.member_count = 1};
    snprintf(g_pool.members[0].name, sizeof g_pool.members[0].name, "a");
    snprintf(g_pool.members[0].path, sizeof g_pool.members[0].path, "%s", g_path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_busy = 0;
    return unlink(g_path);
}

static void a_member_that_is_busy_for_a_moment_is_waited_for(void **state)
{
    struct members_open m;
    (void)state;
    g_busy = 5;
    members_open(&g_pool, &m);
    assert_int_equal(g_busy, 0);
    assert_int_equal(m.count, 1);
    assert_true(m.members[0].fd >= 0);
    assert_false(m.locked_elsewhere[0]);
    assert_false(members_could_open(&g_pool.members[0])); /* it is locked, by us */
    close(m.members[0].fd);
    assert_true(members_could_open(&g_pool.members[0]));
}

static void a_member_that_stays_busy_is_left_out_and_said_to_be_in_use(void **state)
{
    struct members_open m;
    (void)state;
    g_busy = UINT32_MAX;
    members_open(&g_pool, &m);
    assert_int_equal(m.members[0].fd, -1);
    assert_non_null(strstr(m.why[0], "in use by another"));
}

static void a_member_that_stays_locked_is_left_out_and_said_to_be_locked(void **state)
{
    struct members_open m;
    (void)state;
    int fd = open(g_path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    members_open(&g_pool, &m);
    assert_int_equal(m.members[0].fd, -1);
    assert_true(m.locked_elsewhere[0]);
    close(fd);
}

static void a_member_without_a_superblock_is_not_held(void **state)
{
    struct members_open m;
    (void)state;
    int fd = open(g_path, O_RDWR);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    members_open(&g_pool, &m);
    assert_int_equal(m.members[0].fd, -1);
    assert_non_null(strstr(m.why[0], "no superblock"));
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(a_member_that_is_busy_for_a_moment_is_waited_for),
        T(a_member_that_stays_busy_is_left_out_and_said_to_be_in_use),
        T(a_member_that_stays_locked_is_left_out_and_said_to_be_locked),
        T(a_member_without_a_superblock_is_not_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
