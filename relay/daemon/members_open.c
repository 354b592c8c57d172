/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and locking members. See members_open.h. */
#include "members_open.h"

#include <engine.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ASK_AGAIN_MS 10u

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* O_EXCL refuses a block device that is mounted or held by md, dm and the like - and one that a killed spool still holds
 * while the kernel tears its rings down: EBUSY. *errno_out is 0 for what is no member's kind of file. */
static int open_one(const char *path, char why[160], int *errno_out)
{
    struct stat st;
    int flags = O_RDWR | O_CLOEXEC;
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        flags |= O_EXCL;
    int fd = open(path, flags);
    if (fd >= 0 && fstat(fd, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISREG(st.st_mode)))
        return fd;
    *errno_out = fd < 0 ? errno : 0;
    snprintf(why, 160, "%s", fd >= 0 ? "neither a file nor a block device"
                             : *errno_out == EBUSY ? "in use by another (mounted, or part of another volume)"
                                                   : strerror(*errno_out));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Nothing in any of the four places where a superblock lies, and all of them can be read. */
static bool is_blank(int fd)
{
    off_t bytes = lseek(fd, 0, SEEK_END);
    char head[sizeof SUPERBLOCK_MAGIC - 1];
    if (bytes < 0)
        return false;
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES && bytes >= (off_t)(4 * SUPERBLOCK_BYTES); copy++) {
        ssize_t got = pread(fd, head, sizeof head, (off_t)superblock_offset((uint64_t)bytes, copy));
        if (got != (ssize_t)sizeof head || memcmp(head, SUPERBLOCK_MAGIC, sizeof head) == 0)
            return false;
    }
    return true;
}

enum asked { ASKED_OVER, ASKED_BUSY, ASKED_UNLOCKED, ASKED_LOCKED };

static enum asked open_member(const struct pool_config *pool, struct members_open *m, uint32_t i)
{
    int number = 0;
    m->members[i].path = pool->members[i].path;
    m->members[i].fd = open_one(pool->members[i].path, m->why[i], &number);
    m->denied[i] = m->members[i].fd < 0 && (number == EACCES || number == EPERM);
    if (m->members[i].fd < 0)
        return number == EBUSY ? ASKED_BUSY : ASKED_OVER;
    if (!is_blank(m->members[i].fd))
        return ASKED_UNLOCKED;
    snprintf(m->why[i], sizeof m->why[i], "no superblock is there: spooltool member add %s; member replace %s if it was in "
             "the pool", pool->members[i].name, pool->members[i].name);
    close(m->members[i].fd); /* not held: it is somebody else's to format */
    m->members[i].fd = -1;
    return ASKED_OVER;
}

void members_open(const struct pool_config *pool, struct members_open *m)
{
    enum asked asked[MEMBERS_MAX];
    uint64_t until = now_ms() + MEMBERS_LOCK_MS;
    *m = (struct members_open){.count = pool->member_count};
    for (uint32_t i = 0; i < m->count; i++)
        asked[i] = open_member(pool, m, i);
    for (bool waiting = true; waiting;) {
        waiting = false;
        for (uint32_t i = 0; i < m->count; i++) {
            if (asked[i] == ASKED_BUSY)
                asked[i] = open_member(pool, m, i);
            if (asked[i] == ASKED_UNLOCKED && flock(m->members[i].fd, LOCK_EX | LOCK_NB) == 0)
                asked[i] = ASKED_LOCKED;
            waiting = waiting || asked[i] == ASKED_BUSY || asked[i] == ASKED_UNLOCKED;
        }
        if (waiting && now_ms() >= until)
            break;
        if (waiting)
            usleep(ASK_AGAIN_MS * 1000);
    }
    for (uint32_t i = 0; i < m->count; i++) {
        if (asked[i] != ASKED_UNLOCKED)
            continue;
        close(m->members[i].fd);
        m->members[i].fd = -1;
        m->locked_elsewhere[i] = true;
        snprintf(m->why[i], sizeof m->why[i], "locked: a process that was stopped still writes to it, or another has it");
    }
}

bool members_could_open(const struct pool_member_config *member)
{
    char why[160];
    int number = 0, fd = open_one(member->path, why, &number);
    if (fd < 0)
        return false;
    bool free_now = !is_blank(fd) && flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return free_now;
}
