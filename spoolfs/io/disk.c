/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: reading sysfs and mountinfo. The way down: partition -> its disk -> slaves of dm and md, until nothing is below.
 * A loop device is its own bottom: its backing file may lie on a disk that others use too, but what a loop device
 * models in tests and rehearsals is a disk. With several disks below (RAID, a volume group) the lowest name stands for
 * all: two volumes over the same set then count as one failure domain.
 * A serial names the disk in its domain: kernel names change from boot to boot, and two paths to one disk have two of
 * them. Where disks of a cheap make share a serial they count as one domain: the operator says otherwise by name.
 * What is found here is text from the kernel: too long or missing means empty, never an assert. */
#include "disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char *root = "/sys";

void disk_set_root(const char *directory) { root = directory; }

#define DISK_DEPTH_MAX 8u /* crypt over logical volume over RAID over partition over disk is five */

static bool text_copy(char *to, size_t size, const char *from)
{
    size_t length = strlen(from);
    if (length >= size)
        return false;
    memcpy(to, from, length + 1);
    return true;
}

/* First line of a sysfs file, blanks at both ends removed. Empty when there is none. */
static bool sysfs_read(const char *path, char *text, size_t size)
{
    text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    size_t skip = strspn(text, " "), length = strlen(text);
    while (length > skip && text[length - 1] == ' ')
        text[--length] = '\0';
    memmove(text, text + skip, length - skip + 1);
    return text[0] != '\0';
}

static bool sysfs_attribute(const char *name, const char *attribute, char *text, size_t size)
{
    char path[256];
    text[0] = '\0';
    if (snprintf(path, sizeof path, "%s/class/block/%s/%s", root, name, attribute) >= (int)sizeof path)
        return false;
    return sysfs_read(path, text, size);
}

static uint64_t sysfs_number(const char *name, const char *attribute)
{
    char text[32];
    return sysfs_attribute(name, attribute, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

static bool sysfs_has(const char *name, const char *attribute)
{
    char path[256];
    return snprintf(path, sizeof path, "%s/class/block/%s/%s", root, name, attribute) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

/* "254:1" -> "vda1"; false when the kernel knows no such block device. */
static bool node_name(dev_t device, char *name, size_t size)
{
    char path[256], target[512];
    snprintf(path, sizeof path, "%s/dev/block/%u:%u", root, major(device), minor(device));
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    const char *base = strrchr(target, '/');
    return text_copy(name, size, base ? base + 1 : target);
}

/* The disk a partition belongs to is its directory's parent in sysfs. */
static bool partition_parent(const char *name, char *parent, size_t size)
{
    char path[256], target[512];
    snprintf(path, sizeof path, "%s/class/block/%s", root, name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    char *cut = strrchr(target, '/');
    if (!cut)
        return false;
    *cut = '\0';
    cut = strrchr(target, '/');
    return cut && text_copy(parent, size, cut + 1);
}

/* The lowest name in a directory, or false when it is empty or not there. */
static bool lowest_entry(const char *path, char *name, size_t size)
{
    bool found = false;
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= size)
            continue;
        if (!found || strcmp(entry->d_name, name) < 0)
            found = text_copy(name, size, entry->d_name);
    }
    closedir(dir);
    return found;
}

static bool has_entries(const char *name, const char *directory)
{
    char path[256], first[256];
    snprintf(path, sizeof path, "%s/class/block/%s/%s", root, name, directory);
    return lowest_entry(path, first, sizeof first);
}

/* Runs `test` on the carrier and each of its partitions until one says yes. */
static bool any_partition(const char *carrier, bool (*test)(const char *name, void *context), void *context)
{
    char path[256];
    bool yes = test(carrier, context);
    snprintf(path, sizeof path, "%s/class/block/%s", root, carrier);
    DIR *dir = yes ? NULL : opendir(path);
    if (!dir)
        return yes;
    for (struct dirent *entry = readdir(dir); entry && !yes; entry = readdir(dir))
        if (strncmp(entry->d_name, carrier, strlen(carrier)) == 0 && sysfs_has(entry->d_name, "partition"))
            yes = test(entry->d_name, context);
    closedir(dir);
    return yes;
}

static bool node_held(const char *name, void *context)
{
    (void)context;
    return has_entries(name, "holders");
}

static void walk_down(const char *from, char *whole, size_t size)
{
    char at[64], next[64], path[256];
    snprintf(at, sizeof at, "%s", from);
    for (uint32_t depth = 0; depth < DISK_DEPTH_MAX; depth++) {
        if (sysfs_has(at, "partition") && partition_parent(at, next, sizeof next)) {
            memcpy(at, next, sizeof at);
            continue;
        }
        snprintf(path, sizeof path, "%s/class/block/%s/slaves", root, at);
        if (!lowest_entry(path, next, sizeof next))
            break;
        memcpy(at, next, sizeof at);
    }
    text_copy(whole, size, at);
}

static void find_serial(const char *whole, char *serial, size_t size)
{
    static const char *const places[] = {"serial", "device/serial", "device/wwid", "wwid"};
    char text[256];
    serial[0] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!sysfs_attribute(whole, places[i], text, sizeof text))
            continue;
        snprintf(serial, size, "%.*s", (int)size - 1, text);
        return;
    }
}

static void describe(struct disk *d)
{
    d->partition = sysfs_has(d->node, "partition");
    if (!d->partition || !partition_parent(d->node, d->carrier, sizeof d->carrier))
        memcpy(d->carrier, d->node, sizeof d->carrier);
    walk_down(d->node, d->whole, sizeof d->whole);
    find_serial(d->whole, d->serial, sizeof d->serial);
    snprintf(d->domain, sizeof d->domain, "disk:%s", d->serial[0] ? d->serial : d->whole);
    d->rotational = sysfs_number(d->carrier, "queue/rotational") != 0;
    d->discards = sysfs_number(d->carrier, "queue/discard_max_bytes") != 0;
    d->logical_block = (uint32_t)sysfs_number(d->carrier, "queue/logical_block_size");
    d->held = d->partition ? node_held(d->node, NULL) : any_partition(d->carrier, node_held, NULL);
    d->found = true;
}

void disk_of_device(dev_t device, struct disk *disk_out)
{
    *disk_out = (struct disk){.logical_block = 512};
    if (major(device) != 0 && node_name(device, disk_out->node, sizeof disk_out->node))
        describe(disk_out);
    else
        snprintf(disk_out->domain, sizeof disk_out->domain, "fs:%u:%u", major(device), minor(device));
}

/* --- mountinfo: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" --- */

struct mount_line {
    uint64_t id;
    unsigned major, minor;
    char source[256]; /* empty when longer */
};

static bool mount_parse(const char *line, struct mount_line *m)
{
    unsigned long long id;
    m->source[0] = '\0';
    if (sscanf(line, "%llu %*u %u:%u", &id, &m->major, &m->minor) != 3)
        return false;
    m->id = id;
    const char *dash = strstr(line, " - ");
    if (dash && sscanf(dash + 3, "%*s %255s", m->source) != 1)
        m->source[0] = '\0';
    return true;
}

/* Runs `match` over the mounts until one says yes. */
static bool any_mount(bool (*match)(const struct mount_line *m, void *context), void *context)
{
    char *line = NULL;
    size_t size = 0;
    bool yes = false;
    FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return false;
    while (!yes && getline(&line, &size, f) > 0) {
        struct mount_line m;
        yes = mount_parse(line, &m) && match(&m, context);
    }
    free(line);
    fclose(f);
    return yes;
}

struct mount_source { uint64_t id; dev_t device; };

static bool match_id(const struct mount_line *m, void *context)
{
    struct mount_source *want = context;
    struct stat st;
    if (m->id != want->id)
        return false;
    if (strncmp(m->source, "/dev/", 5) == 0 && stat(m->source, &st) == 0 && S_ISBLK(st.st_mode))
        want->device = st.st_rdev;
    return true;
}

/* btrfs and its like number their files by invented devices: the mount's source knows the real one. */
static dev_t device_of_mount(int fd)
{
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &sx) != 0 || !(sx.stx_mask & STATX_MNT_ID))
        return 0;
    struct mount_source want = {.id = sx.stx_mnt_id};
    any_mount(match_id, &want);
    return want.device;
}

void disk_of_file(int fd, struct disk *disk_out)
{
    struct stat st;
    *disk_out = (struct disk){.logical_block = 512};
    if (fstat(fd, &st) != 0)
        return;
    dev_t device = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
    if (!S_ISBLK(st.st_mode) && major(device) == 0) {
        dev_t below = device_of_mount(fd);
        if (below)
            device = below;
    }
    disk_of_device(device, disk_out);
}

struct mounted_search { dev_t device; };

static bool match_device(const struct mount_line *m, void *context)
{
    const struct mounted_search *s = context;
    struct stat st;
    if (makedev(m->major, m->minor) == s->device)
        return true;
    return m->major == 0 && strncmp(m->source, "/dev/", 5) == 0 && stat(m->source, &st) == 0 &&
           S_ISBLK(st.st_mode) && st.st_rdev == s->device;
}

static bool node_mounted(const char *name, void *context)
{
    char text[32];
    unsigned ma, mi;
    (void)context;
    if (!sysfs_attribute(name, "dev", text, sizeof text) || sscanf(text, "%u:%u", &ma, &mi) != 2)
        return false;
    struct mounted_search s = {makedev(ma, mi)};
    return any_mount(match_device, &s);
}

bool disk_is_mounted(const struct disk *disk, dev_t device)
{
    struct mounted_search s = {device};
    if (!disk->found)
        return any_mount(match_device, &s);
    return disk->partition ? node_mounted(disk->node, NULL) : any_partition(disk->node, node_mounted, NULL);
}
