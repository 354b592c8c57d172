/* SPDX-License-Identifier: Apache-2.0 */
/* What is this path? The only door to libblkid and sysfs. Used by pool creation and by the opener of members. */
#ifndef SPOOLFS_PROBE_H
#define SPOOLFS_PROBE_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

struct probe {
    bool exists, is_block, is_file;
    uint64_t bytes;
    uint32_t logical_block;       /* 512 or 4096; alignment O_DIRECT asks for */
    bool rotational, discards;
    bool mounted;                 /* the device itself or a partition of it */
    bool in_use;                  /* O_EXCL refused, holders in sysfs */
    bool copy_on_write;           /* file on btrfs without NOCOW: warn */
    char signature[64];           /* what libblkid found ("ext4", "LVM2_member"), "ironspool" for ours, or empty */
    char whole_disk[64];          /* e.g. "sda", "loop3": kernel name of the disk at the bottom */
    char serial[64];              /* of the whole disk, or empty */
    char domain[128];             /* default failure domain: "disk:" + stable name of the whole disk */
};

/* ERR_NOT_FOUND when the path does not exist (and *probe_out is filled with its directory's disk, so that a file
 * still to be made has a failure domain), ERR_DENIED, ERR_SYSTEM. */
enum err probe_path(const char *path, struct probe *probe_out) MUST_CHECK;

#endif
