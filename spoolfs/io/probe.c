/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the answer to "what is this path?", asked before anything is formatted. The only file that knows libblkid.
 * Every doubt counts as occupied: an ambivalent signature is a signature, a device that cannot be claimed is in use.
 * Never: writes. Next: disk.c (sysfs). */
#include "disk.h"
#include "io_error.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <spoolfs/format.h>
#include <spoolfs/probe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

static void fill_from_disk(struct probe *p, const struct disk *d)
{
    p->logical_block = d->logical_block ? d->logical_block : 512;
    p->rotational = d->rotational;
    memcpy(p->whole_disk, d->whole, sizeof p->whole_disk);
    memcpy(p->serial, d->serial, sizeof p->serial);
    memcpy(p->domain, d->domain, sizeof p->domain);
}

/* btrfs copies on write unless a file, or the directory it is made in, carries the NOCOW attribute. */
static bool copies_on_write(int fd)
{
    struct statfs fs;
    int flags = 0;
    if (fstatfs(fd, &fs) != 0 || fs.f_type != BTRFS_SUPER_MAGIC)
        return false;
    return ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0 || !(flags & FS_NOCOW_FL);
}

/* --- signatures --- */

/* libblkid: 0 found, 1 nothing there, -2 more than one, else it could not read. */
static enum err blkid_signature(int fd, char *text, size_t size)
{
    blkid_probe probe = blkid_new_probe();
    const char *value = NULL;
    if (!probe)
        return ERR_NO_MEMORY;
    if (blkid_probe_set_device(probe, fd, 0, 0) != 0) {
        blkid_free_probe(probe);
        return ERR_SYSTEM;
    }
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
    blkid_probe_enable_partitions(probe, 1);
    int rc = blkid_do_safeprobe(probe);
    if (rc == 0 && blkid_probe_lookup_value(probe, "TYPE", &value, NULL) != 0 &&
        blkid_probe_lookup_value(probe, "PTTYPE", &value, NULL) != 0)
        value = "unnamed";
    if (rc == -2)
        value = "ambivalent";
    if (value)
        snprintf(text, size, "%s", value);
    blkid_free_probe(probe);
    return rc == -1 ? ERR_IO : ERR_OK;
}

static enum err find_signature(int fd, struct probe *p)
{
    char head[sizeof SUPERBLOCK_MAGIC - 1];
    if (p->bytes < sizeof head)
        return ERR_OK;
    ssize_t got = pread(fd, head, sizeof head, 0);
    if (got < 0)
        return ERR_IO;
    if (got == (ssize_t)sizeof head && memcmp(head, SUPERBLOCK_MAGIC, sizeof head) == 0) {
        snprintf(p->signature, sizeof p->signature, "ironspool");
        return ERR_OK;
    }
    return blkid_signature(fd, p->signature, sizeof p->signature);
}

/* --- kinds of path --- */

static bool claim_refused(const char *path)
{
    int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == EBUSY;
    close(fd);
    return false;
}

static enum err probe_block(int fd, const char *path, const struct stat *st, struct probe *p)
{
    struct disk disk;
    int sector = 0;
    disk_of_device(st->st_rdev, &disk);
    fill_from_disk(p, &disk);
    p->is_block = true;
    p->discards = disk.discards;
    if (ioctl(fd, BLKGETSIZE64, &p->bytes) != 0)
        p->bytes = 0;
    if (ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
        p->logical_block = (uint32_t)sector;
    p->mounted = disk_is_mounted(&disk, st->st_rdev);
    p->in_use = disk.held || claim_refused(path);
    return find_signature(fd, p);
}

static enum err probe_file(int fd, const struct stat *st, struct probe *p)
{
    struct disk disk;
    struct statx sx;
    disk_of_file(fd, &disk);
    fill_from_disk(p, &disk);
    p->is_file = true;
    p->bytes = (uint64_t)st->st_size;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN) &&
        sx.stx_dio_offset_align > 0)
        p->logical_block = sx.stx_dio_offset_align;
    p->copy_on_write = copies_on_write(fd);
    return find_signature(fd, p);
}

/* A file still to be made has the failure domain of its directory. */
static enum err probe_absent(const char *path, struct probe *p)
{
    struct disk disk;
    char *copy = strdup(path);
    if (!copy)
        return ERR_NO_MEMORY;
    char *cut = strrchr(copy, '/');
    if (cut)
        cut[cut == copy ? 1 : 0] = '\0';
    int fd = open(cut ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int number = errno;
    free(copy);
    if (fd < 0) /* no such directory either: nothing is known about the path */
        return number == ENOENT || number == ENOTDIR ? ERR_NOT_FOUND : io_error_of_errno(number);
    disk_of_file(fd, &disk);
    fill_from_disk(p, &disk);
    p->copy_on_write = copies_on_write(fd);
    close(fd);
    return ERR_NOT_FOUND;
}

/* What the path is, before it is opened: opening a pipe or a tape has effects. */
static enum err probe_kind(const char *path, struct probe *p)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT ? probe_absent(path, p) : io_error_of_errno(errno);
    p->exists = true;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return ERR_OK; /* neither is_block nor is_file: no member */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return io_error_of_errno(errno);
    enum err e = fstat(fd, &st) != 0 ? ERR_SYSTEM : ERR_OK;
    if (e == ERR_OK && S_ISBLK(st.st_mode))
        e = probe_block(fd, path, &st, p);
    else if (e == ERR_OK && S_ISREG(st.st_mode))
        e = probe_file(fd, &st, p);
    close(fd);
    return e == ERR_OK || e == ERR_NO_MEMORY ? e : ERR_SYSTEM;
}

enum err probe_path(const char *path, struct probe *probe_out)
{
    struct probe p = {.logical_block = 512};
    enum err e = probe_kind(path, &p);
    if (e == ERR_OK || e == ERR_NOT_FOUND)
        *probe_out = p;
    return e == ERR_OK || e == ERR_NOT_FOUND || e == ERR_DENIED || e == ERR_NO_MEMORY ? e : ERR_SYSTEM;
}
