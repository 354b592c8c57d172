/* SPDX-License-Identifier: Apache-2.0 */
/* Which disk is at the bottom? sysfs only: never touches the device itself, so that a stuck disk cannot stall it. */
#ifndef IO_DISK_H
#define IO_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct disk {
    bool found;              /* false: no block device below (tmpfs, overlayfs, network) */
    char node[64];           /* kernel name of the device itself: "sda1", "dm-3" */
    char carrier[64];        /* the same, for a partition its disk: "sda" */
    char whole[64];          /* the disk at the bottom, below dm and md too; the lowest name when there are several */
    char serial[64];         /* of `whole`, or empty */
    char domain[128];        /* "disk:<serial or kernel name>", or "fs:<major>:<minor>" when no disk is found */
    bool partition, rotational, discards, held; /* held: something stacked on it or on a partition of it */
    uint32_t logical_block;
};

/* The device numbered `device` (st_rdev of a block device). */
void disk_of_device(dev_t device, struct disk *disk_out);
/* What an open file or directory lies on. */
void disk_of_file(int fd, struct disk *disk_out);
/* Is the device, or a partition of it, mounted? */
bool disk_is_mounted(const struct disk *disk, dev_t device);

/* Tests build a tree of their own; "/sys" otherwise. */
void disk_set_root(const char *directory);

#endif
