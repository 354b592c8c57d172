/* SPDX-License-Identifier: Apache-2.0 */
/* Where a disk stands: its names and its light, from udev's links and sysfs. */
#ifndef TOOLS_DISK_FIND_H
#define TOOLS_DISK_FIND_H

#include <stdbool.h>
#include <stddef.h>

#define DISK_LINKS_MAX 8u

struct disk_place {
    char links[DISK_LINKS_MAX][256]; /* of the whole disk, in by-id */
    unsigned link_count;
    char led[256];                   /* write 1 to it: the slot's light; empty: there is no such file */
};

/* `disk`: kernel name of the whole disk ("sdc"). The roots are /dev/disk/by-id and /sys, but for tests. */
void disk_find(const char *by_id, const char *sys, const char *disk, struct disk_place *place_out);

#endif
