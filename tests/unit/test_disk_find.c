/* SPDX-License-Identifier: Apache-2.0 */
/* A disk is found by its links and its light in a tree that looks like udev's and sysfs'. */
#include "../../tools/disk_find.c"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[64];

static const char *in_root(const char *path)
{
    static char text[4][PATH_MAX];
    static unsigned next;
    char *to = text[next++ % 4];
    snprintf(to, PATH_MAX, "%s/%s", root, path);
    return to;
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/disk_find-XXXXXX");
    assert_non_null(mkdtemp(root));
    const char *const directories[] = {"by-id", "sys", "sys/class", "sys/class/enclosure", "sys/class/enclosure/0:0:8:0",
                                       "sys/class/enclosure/0:0:8:0/Slot 03", "sys/class/enclosure/0:0:8:0/Slot 03/device",
                                       "sys/class/enclosure/0:0:8:0/Slot 03/device/block",
                                       "sys/class/enclosure/0:0:8:0/Slot 03/device/block/sdc"};
    for (unsigned i = 0; i < sizeof directories / sizeof directories[0]; i++)
        assert_int_equal(mkdir(in_root(directories[i]), 0700), 0);
    const char *const links[] = {"by-id/wwn-0x5000c500a1b2c3d4", "by-id/ata-EXAMPLE_Z1"};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(symlink("../../sdc", in_root(links[i])), 0);
    assert_int_equal(symlink("../../sdc1", in_root("by-id/ata-EXAMPLE_Z1-part1")), 0);
    assert_int_equal(symlink("../../sdd", in_root("by-id/ata-EXAMPLE_Z2")), 0);
    FILE *f = fopen(in_root("sys/class/enclosure/0:0:8:0/Slot 03/locate"), "w");
    assert_non_null(f);
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void a_disk_has_its_links_and_its_light(void **state)
{
    struct disk_place p;
    (void)state;
    disk_find(in_root("by-id"), in_root("sys"), "sdc", &p);
    assert_int_equal(p.link_count, 2);
    assert_string_equal(p.links[0], in_root("by-id/ata-EXAMPLE_Z1"));
    assert_string_equal(p.led, in_root("sys/class/enclosure/0:0:8:0/Slot 03/locate"));
}

static void a_disk_in_no_enclosure_has_no_light(void **state)
{
    struct disk_place p;
    (void)state;
    disk_find(in_root("by-id"), in_root("sys"), "sdd", &p);
    assert_int_equal(p.link_count, 1);
    assert_string_equal(p.led, "");
}

static void what_is_no_name_of_a_disk_finds_nothing(void **state)
{
    static const char *const names[] = {"", "*", "sd?", "../sdc", "sdz"};
    struct disk_place p;
    (void)state;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        disk_find(in_root("by-id"), in_root("sys"), names[i], &p);
        assert_int_equal(p.link_count, 0);
        assert_string_equal(p.led, "");
    }
    disk_find(in_root("nowhere"), in_root("nowhere"), "sdc", &p);
    assert_int_equal(p.link_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_disk_has_its_links_and_its_light, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_in_no_enclosure_has_no_light, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_name_of_a_disk_finds_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
