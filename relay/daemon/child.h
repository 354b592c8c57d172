/* SPDX-License-Identifier: Apache-2.0 */
/* What a child process is given at its birth, and the three that exist. */
#ifndef DAEMON_CHILD_H
#define DAEMON_CHILD_H

#include "config.h"
#include "control.h"
#include "listen.h"

#include <sys/types.h>

struct identity {
    bool drops;             /* we are root and become uid, gid */
    uid_t uid;
    gid_t gid;
    char name[64];
};

struct board;

struct child_start {
    const struct config *config;      /* the child's own copy, by fork */
    const struct listeners *listeners;/* relay only; the child's to give away */
    int admin_fd;                     /* spool only */
    int control;
    bool discard_index;               /* spool only */
    struct board *board;              /* the spool writes, the relay reads */
    uint8_t *trays;                   /* the relay writes, the spool reads: spoolfs/wire.h; NULL: no memory */
    struct identity identity;
};

/* Run until told to stop; return the exit code (enum child_exit). The log is closed when they begin. */
int spool_main(const struct child_start *start);
int relay_main(const struct child_start *start);
int alarm_main(const struct child_start *start);

/* Exists from before the index is opened until it has proved good: a crash meanwhile means the index is bad. */
void index_marker_path(const struct config *config, char path[256]);

#endif
