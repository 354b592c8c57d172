/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: looking a disk up in udev's by-id links and in the enclosures that sysfs knows. Looks, changes nothing. */
#include "disk_find.h"

#include <dirent.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void find_links(const char *by_id, const char *disk, struct disk_place *p)
{
    DIR *d = opendir(by_id);
    struct dirent *e;
    while (d && (e = readdir(d)) && p->link_count < DISK_LINKS_MAX) {
        char path[PATH_MAX], to[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", by_id, e->d_name);
        ssize_t n = readlink(path, to, sizeof to - 1);
        if (n <= 0)
            continue;
        to[n] = '\0';
        const char *base = strrchr(to, '/');
        if (strcmp(base ? base + 1 : to, disk) == 0)
            snprintf(p->links[p->link_count++], sizeof p->links[0], "%.254s", path);
    }
    if (d)
        closedir(d);
    qsort(p->links, p->link_count, sizeof p->links[0], by_name);
}

/* /sys/class/enclosure/ENCLOSURE/SLOT/device/block/DISK, and beside `device` the file `locate` */
static void find_led(const char *sys, const char *disk, struct disk_place *p)
{
    char pattern[PATH_MAX];
    glob_t g = {0};
    snprintf(pattern, sizeof pattern, "%s/class/enclosure/*/*/device/block/%s", sys, disk);
    if (glob(pattern, 0, NULL, &g) == 0 && g.gl_pathc > 0) {
        char *end = strstr(g.gl_pathv[0], "/device/block/");
        snprintf(pattern, sizeof pattern, "%.*s/locate", (int)(end - g.gl_pathv[0]), g.gl_pathv[0]);
        if (access(pattern, F_OK) == 0)
            snprintf(p->led, sizeof p->led, "%.254s", pattern);
    }
    globfree(&g);
}

void disk_find(const char *by_id, const char *sys, const char *disk, struct disk_place *place_out)
{
    *place_out = (struct disk_place){0};
    if (!disk[0] || strpbrk(disk, "*?[/"))
        return;
    find_links(by_id, disk, place_out);
    find_led(sys, disk, place_out);
}
