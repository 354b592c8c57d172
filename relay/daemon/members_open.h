/* SPDX-License-Identifier: Apache-2.0 */
/* The members' descriptors, opened anew for every start of the spool process and held by nobody else (DESIGN: one
 * writer). After kill -9 the kernel tears an io_uring down by and by: the lock on a member is free only when the dead
 * process's last write to it is over. */
#ifndef DAEMON_MEMBERS_OPEN_H
#define DAEMON_MEMBERS_OPEN_H

#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>

#define MEMBERS_LOCK_MS 1000u  /* all members together; who is not free by then joins later */

struct members_open {
    struct io_real_member members[MEMBERS_MAX]; /* fd -1: not opened */
    bool locked_elsewhere[MEMBERS_MAX];
    bool denied[MEMBERS_MAX];                   /* this user may not open it */
    char why[MEMBERS_MAX][160];
    uint32_t count;
};

/* Opens what can be opened and carries a superblock of any pool; the io owns the descriptors afterwards. */
void members_open(const struct pool_config *pool, struct members_open *m_out);
/* Could this member be opened and locked now, and does it carry a superblock? Nothing stays open. */
bool members_could_open(const struct pool_member_config *member);

#endif
