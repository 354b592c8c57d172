/* SPDX-License-Identifier: Apache-2.0 */
/* Who runs smartctl: a process of its own, forked before the alarm process gives its privileges up, because a disk's
 * health is told to root only. It is asked "which device" by number and nothing else; what smartctl says is
 * carried back unread and parsed where there are no privileges.
 *
 *  SMR-1  it runs one program with the words that were configured at its birth; the number chooses among them.
 *  SMR-2  it reads no network and no file; it ends with the alarm process (the end of its socket).
 *  SMR-3  a smartctl that hangs is killed after SMART_RUN_S: a disk that does not answer must not end the asking. */
#ifndef DAEMON_SMART_RUN_H
#define DAEMON_SMART_RUN_H

#include "smart.h"

#include <loop.h>
#include <spoolfs/limits.h>

#define SMART_RUN_S 60u

struct smart_device { bool used; char device[256], type[32]; }; /* type: smartctl -d; empty: it finds out */

struct smart_run {
    struct loop *loop;
    void *owner;
    /* The whole answer, at most SMART_BYTES_MAX; valid during the call. len 0: it could not be run. */
    void (*done)(struct smart_run *r, uint32_t member, const char *bytes, uint32_t len);
    /* private */
    struct loop_watch watch;
    int fd;                  /* -1: there is no runner */
    bool asking;
    uint32_t member, got;
    uint8_t head[8];
    char *bytes;
};

/* The disk of a member, "/dev/sda" of /dev/disk/by-id/...-part1. Asks sysfs and opens nothing. ERR_NOT_FOUND: a file, or a
 * device that is no disk (loop, dm, md). */
enum err smart_device_find(const char *member_path, char device_out[256]) MUST_CHECK;
/* Forks; before the loop and threads. fd stays -1 when no device is used. */
enum err smart_run_fork(const char *smartctl, const struct smart_device devices[MEMBERS_MAX], int *fd_out) MUST_CHECK;
enum err smart_run_open(struct smart_run *r) MUST_CHECK; /* in the loop; r->fd is taken over */
void smart_run_close(struct smart_run *r);
enum err smart_run_ask(struct smart_run *r, uint32_t member) MUST_CHECK; /* ERR_BUSY: one is asked; ERR_SYSTEM: the runner is gone */

#endif
