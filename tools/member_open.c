/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: descriptors of members on their way from the path to the io. */
#include "member_open.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum err open_error(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
    case ENXIO: return ERR_NOT_FOUND;
    case EBUSY: return ERR_BUSY; /* O_EXCL on a block device */
    case EACCES:
    case EPERM:
    case EROFS: return ERR_DENIED;
    default: return ERR_SYSTEM;
    }
}

static enum err open_locked(const char *path, int flags, int *fd_out)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        flags |= O_EXCL;
    int fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return open_error(errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum err e = errno == EWOULDBLOCK ? ERR_BUSY : ERR_SYSTEM;
        close(fd);
        return e;
    }
    *fd_out = fd;
    return ERR_OK;
}

enum err member_open(const char *path, int *fd_out)
{
    return open_locked(path, 0, fd_out);
}

static enum err sync_directory_of(const char *path)
{
    char copy[512];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return open_error(errno);
    int failed = fsync(fd);
    close(fd);
    return failed ? ERR_SYSTEM : ERR_OK;
}

enum err member_make(const char *path, uint64_t bytes, int *fd_out)
{
    int fd;
    enum err e = open_locked(path, O_CREAT, &fd);
    if (e != ERR_OK)
        return e;
    bool ok = ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0;
    /* reserves the space where the file system can; zero-writing the slots comes later and maps the blocks */
    if (ok && fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP)
        ok = false;
    ok = ok && fsync(fd) == 0;
    e = ok ? sync_directory_of(path) : errno == ENOSPC ? ERR_MEMBER_FULL : ERR_SYSTEM;
    if (e != ERR_OK) {
        int kept = errno;
        unlink(path);
        close(fd);
        errno = kept;
        return e;
    }
    *fd_out = fd;
    return ERR_OK;
}
