/* SPDX-License-Identifier: Apache-2.0 */
/* What a path is, on files everywhere and, when root may have one, on a loop device. */
#include <fcntl.h>
#include <io/disk.h>
#include <setjmp.h>
#include <spoolfs/limits.h>
#include <spoolfs/probe.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES (8 * MIB)

static char file[64], loop[64];

static bool command(const char *format, const char *a, const char *b)
{
    char text[512];
    snprintf(text, sizeof text, format, a, b); /* formats are literals of this file */
    return system(text) == 0;
}

static bool loop_up(void)
{
    char text[256];
    snprintf(text, sizeof text, "losetup --find --show %s 2>/dev/null", file);
    FILE *f = geteuid() == 0 ? popen(text, "r") : NULL;
    bool got = f && fgets(loop, sizeof loop, f) != NULL;
    if (f)
        pclose(f);
    loop[strcspn(loop, "\n")] = '\0';
    return got;
}

static void loop_down(void)
{
    if (loop[0])
        assert_true(command("losetup --detach %s", loop, ""));
    loop[0] = '\0';
}

static int setup(void **state)
{
    (void)state;
    snprintf(file, sizeof file, "probe-XXXXXX");
    int fd = mkstemp(file);
    loop[0] = '\0';
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)BYTES) != 0)
        return -1;
    return close(fd);
}

static int teardown(void **state)
{
    (void)state;
    loop_down();
    return unlink(file);
}

static void put(const char *path, off_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, offset), (ssize_t)length);
    assert_int_equal(fsync(fd), 0);
    close(fd);
}

/* Enough of each format for its signature. */
static void put_swap(const char *path)
{
    static const uint32_t head[2] = {1, 2047}; /* version, last page */
    put(path, 1024, head, sizeof head);
    put(path, 4086, "SWAPSPACE2", 10);
}
static void put_ext(const char *path)
{
    uint8_t super[1024] = {0};
    super[4] = 1;              /* blocks */
    super[0x38] = 0x53, super[0x39] = 0xef;
    super[0x4c] = 1;
    super[0x5c] = 4;           /* has_journal */
    put(path, 1024, super, sizeof super);
}
static void put_partition_table(const char *path)
{
    uint8_t mbr[512] = {0};
    mbr[446 + 4] = 0x83;
    mbr[446 + 8] = 1;          /* first sector 1 */
    mbr[446 + 13] = 4;         /* 1024 sectors */
    mbr[510] = 0x55, mbr[511] = 0xaa;
    put(path, 0, mbr, sizeof mbr);
}

static void an_empty_file_has_a_size_a_domain_and_no_signature(void **state)
{
    struct probe p;
    (void)state;
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_true(p.exists && p.is_file && !p.is_block && !p.mounted && !p.in_use && !p.discards);
    assert_int_equal(p.bytes, BYTES);
    assert_string_equal(p.signature, "");
    assert_true(strncmp(p.domain, "disk:", 5) == 0 || strncmp(p.domain, "fs:", 3) == 0);
    assert_true(strncmp(p.domain, "disk:", 5) != 0 || p.whole_disk[0] != '\0');
    assert_true(p.logical_block >= 1 && p.logical_block <= BLOCK_BYTES);
}

static void a_file_to_be_made_has_the_domain_of_its_directory(void **state)
{
    struct probe there, absent, rooted;
    (void)state;
    assert_int_equal(probe_path(file, &there), ERR_OK);
    assert_int_equal(probe_path("probe-none", &absent), ERR_NOT_FOUND);
    assert_false(absent.exists);
    assert_string_equal(absent.domain, there.domain);
    assert_string_equal(absent.whole_disk, there.whole_disk);
    assert_int_equal(probe_path("/probe-none", &rooted), ERR_NOT_FOUND);
    assert_true(rooted.domain[0] != '\0');
    assert_int_equal(probe_path("/no-such/directory/here", &rooted), ERR_NOT_FOUND);
    assert_string_equal(rooted.domain, "");
}

static void two_files_of_one_file_system_share_a_domain(void **state)
{
    struct probe a, b;
    char other[] = "probe-XXXXXX";
    (void)state;
    int fd = mkstemp(other);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(probe_path(file, &a), ERR_OK);
    assert_int_equal(probe_path(other, &b), ERR_OK); /* no byte in it */
    assert_string_equal(a.domain, b.domain);
    assert_int_equal(b.bytes, 0);
    assert_string_equal(b.signature, "");
    unlink(other);
}

static void our_magic_is_named_ironspool(void **state)
{
    struct probe p;
    (void)state;
    put(file, 0, "IRONSPL1", 8);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_string_equal(p.signature, "ironspool");
    put(file, 0, "IRONSPL2", 8);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_string_equal(p.signature, "");
}

static void foreign_signatures_are_named(void **state)
{
    struct probe p;
    (void)state;
    put_ext(file);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_string_equal(p.signature, "ext3");
    put(file, 1024, (uint8_t[1024]){0}, 1024);
    put_partition_table(file);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_string_equal(p.signature, "dos");
    put(file, 0, (uint8_t[512]){0}, 512);
    put_swap(file);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_string_equal(p.signature, "swap");
}

static void two_signatures_at_once_are_no_free_space(void **state)
{
    struct probe p;
    (void)state;
    put_partition_table(file);
    put_swap(file);
    assert_int_equal(probe_path(file, &p), ERR_OK);
    assert_true(p.signature[0] != '\0');
}

static void what_is_neither_file_nor_device_is_no_member(void **state)
{
    struct probe p;
    (void)state;
    assert_int_equal(probe_path(".", &p), ERR_OK);
    assert_true(p.exists && !p.is_file && !p.is_block);
    assert_int_equal(probe_path("/dev/null", &p), ERR_OK);
    assert_true(p.exists && !p.is_file && !p.is_block);
    assert_int_equal(probe_path("", &p), ERR_NOT_FOUND);
    assert_int_equal(probe_path("/dev/null/below", &p), ERR_NOT_FOUND);
}

static void a_tmpfs_is_its_own_domain(void **state)
{
    struct probe p;
    char path[] = "/dev/shm/probe-XXXXXX";
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0)
        skip();
    close(fd);
    assert_int_equal(probe_path(path, &p), ERR_OK);
    unlink(path);
    assert_memory_equal(p.domain, "fs:", 3);
    assert_string_equal(p.whole_disk, "");
}

static void a_loop_device_is_a_disk_of_its_own(void **state)
{
    struct probe p, below;
    (void)state;
    if (!loop_up())
        skip();
    assert_int_equal(probe_path(loop, &p), ERR_OK);
    assert_int_equal(probe_path(file, &below), ERR_OK);
    assert_true(p.is_block && !p.is_file && !p.mounted && !p.in_use);
    assert_int_equal(p.bytes, BYTES);
    assert_string_equal(p.whole_disk, loop + strlen("/dev/"));
    assert_memory_equal(p.domain, "disk:loop", 9);
    assert_string_not_equal(p.domain, below.domain);
    assert_true(p.logical_block == 512 || p.logical_block == 4096);
}

static void a_claimed_device_is_in_use(void **state)
{
    struct probe p;
    (void)state;
    if (!loop_up())
        skip();
    int fd = open(loop, O_RDWR | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(probe_path(loop, &p), ERR_OK);
    assert_true(p.in_use);
    close(fd);
    assert_int_equal(probe_path(loop, &p), ERR_OK);
    assert_false(p.in_use);
}

static void a_mounted_device_is_mounted_and_in_use(void **state)
{
    struct probe p;
    char directory[] = "probe-mount-XXXXXX";
    (void)state;
    if (!loop_up() || !command("mke2fs -q -t ext2 %s >/dev/null 2>&1", loop, ""))
        skip();
    assert_non_null(mkdtemp(directory));
    bool mounted = command("mount %s %s 2>/dev/null", loop, directory);
    if (mounted) {
        enum err e = probe_path(loop, &p);
        assert_true(command("umount %s", directory, ""));
        assert_int_equal(e, ERR_OK);
        assert_true(p.mounted && p.in_use);
        assert_string_equal(p.signature, "ext2");
    }
    rmdir(directory);
    if (!mounted)
        skip();
    assert_int_equal(probe_path(loop, &p), ERR_OK);
    assert_false(p.mounted || p.in_use);
}

static void a_partition_lies_on_its_disk(void **state)
{
    struct probe p;
    char partition[80];
    (void)state;
    if (!loop_up() || !command("addpart %s 1 8 1024 2>/dev/null", loop, ""))
        skip();
    snprintf(partition, sizeof partition, "%sp1", loop);
    for (uint32_t patience = 0; patience < 100 && access(partition, R_OK) != 0; patience++)
        usleep(10000); /* udev may make the node */
    assert_int_equal(probe_path(partition, &p), ERR_OK);
    assert_string_equal(p.whole_disk, loop + strlen("/dev/"));
    assert_int_equal(p.bytes, 1024 * 512);
    assert_false(p.in_use);
    int fd = open(partition, O_RDWR | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(probe_path(loop, &p), ERR_OK); /* a claimed partition claims the disk */
    assert_true(p.in_use);
    close(fd);
    assert_true(command("delpart %s 1", loop, ""));
}

/* --- stacks of devices, in a sysfs of our own --- */

/* sda (serial, rotating) with sda1 and sda2; sdb; md0 over sda1 and sdb; dm-0 over md0; dm-1 over sda2; nvme0n1;
 * dm-8 and dm-9, each over the other, as no kernel would have it. */
static const char *const build_sysfs =
    "cd %s && mkdir -p class/block dev/block d/sda/sda1/holders d/sda/sda2/holders d/sda/queue d/sda/device"
    " d/sda/holders d/sdb/holders d/sdb/queue d/md0/slaves d/md0/holders d/dm-0/slaves d/dm-0/holders"
    " d/dm-1/slaves d/nvme0n1/device d/nvme0n1/queue d/dm-8/slaves/dm-9 d/dm-9/slaves/dm-8"
    " d/md0/slaves/sdb d/md0/slaves/sda1 d/dm-0/slaves/md0 d/dm-1/slaves/sda2 d/sda/sda1/holders/md0"
    " d/sdb/holders/md0 d/md0/holders/dm-0"
    " && echo 1 >d/sda/sda1/partition && echo 2 >d/sda/sda2/partition && echo 1 >d/sda/queue/rotational"
    " && echo 0 >d/sda/queue/discard_max_bytes && echo 4096 >d/sda/queue/logical_block_size"
    " && echo '  WD-1234  ' >d/sda/device/serial && echo S5X >d/nvme0n1/device/serial"
    " && echo 2147450880 >d/nvme0n1/queue/discard_max_bytes"
    " && for x in sda sdb md0 dm-0 dm-1 dm-8 dm-9 nvme0n1; do ln -s ../../d/$x class/block/$x; done"
    " && for x in 1 2; do ln -s ../../d/sda/sda$x class/block/sda$x && ln -s ../../d/sda/sda$x dev/block/8:$x; done"
    " && ln -s ../../d/sda dev/block/8:0 && ln -s ../../d/sdb dev/block/8:16 && ln -s ../../d/md0 dev/block/9:0"
    " && ln -s ../../d/nvme0n1 dev/block/259:0"
    " && for x in 0 1 8 9; do ln -s ../../d/dm-$x dev/block/253:$x; done";

static void check_disk(unsigned ma, unsigned mi, const char *node, const char *whole, const char *domain, bool held)
{
    struct disk d;
    disk_of_device(makedev(ma, mi), &d);
    assert_true(d.found);
    assert_string_equal(d.node, node);
    assert_string_equal(d.whole, whole);
    assert_string_equal(d.domain, domain);
    assert_int_equal(d.held, held);
}

static void the_way_down_ends_at_the_disk_below_partitions_dm_and_md(void **state)
{
    struct disk d;
    char directory[] = "probe-sysfs-XXXXXX", text[2048];
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(text, sizeof text, build_sysfs, directory);
    assert_int_equal(system(text), 0);
    disk_set_root(directory);
    check_disk(8, 0, "sda", "sda", "disk:WD-1234", true); /* its partition is held */
    check_disk(8, 1, "sda1", "sda", "disk:WD-1234", true);
    check_disk(8, 2, "sda2", "sda", "disk:WD-1234", false);
    check_disk(8, 16, "sdb", "sdb", "disk:sdb", true);
    check_disk(9, 0, "md0", "sda", "disk:WD-1234", true); /* the lowest name stands for all */
    check_disk(253, 0, "dm-0", "sda", "disk:WD-1234", false);
    check_disk(253, 1, "dm-1", "sda", "disk:WD-1234", false);
    check_disk(259, 0, "nvme0n1", "nvme0n1", "disk:S5X", false);
    disk_of_device(makedev(8, 2), &d);
    assert_true(d.partition && d.rotational && !d.discards);
    assert_int_equal(d.logical_block, 4096);
    disk_of_device(makedev(259, 0), &d);
    assert_true(!d.partition && !d.rotational && d.discards);
    disk_of_device(makedev(253, 8), &d); /* a circle ends too */
    assert_true(d.found);
    disk_of_device(makedev(77, 1), &d);
    assert_false(d.found);
    assert_string_equal(d.domain, "fs:77:1");
    disk_set_root("/sys");
    snprintf(text, sizeof text, "rm -r %s", directory);
    assert_int_equal(system(text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_file_has_a_size_a_domain_and_no_signature, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_to_be_made_has_the_domain_of_its_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(two_files_of_one_file_system_share_a_domain, setup, teardown),
        cmocka_unit_test_setup_teardown(our_magic_is_named_ironspool, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_signatures_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(two_signatures_at_once_are_no_free_space, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_neither_file_nor_device_is_no_member, setup, teardown),
        cmocka_unit_test_setup_teardown(a_tmpfs_is_its_own_domain, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loop_device_is_a_disk_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(a_claimed_device_is_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(a_mounted_device_is_mounted_and_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(a_partition_lies_on_its_disk, setup, teardown),
        cmocka_unit_test(the_way_down_ends_at_the_disk_below_partitions_dm_and_md),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
