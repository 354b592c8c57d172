/* SPDX-License-Identifier: Apache-2.0 */
/* Opening members without the daemon: the same exclusive lock as the spool process takes, so that never two write. */
#ifndef TOOLS_MEMBER_OPEN_H
#define TOOLS_MEMBER_OPEN_H

#include <base/err.h>
#include <stdint.h>

/* ERR_NOT_FOUND, ERR_BUSY (locked: the daemon runs, or another spooltool), ERR_DENIED, ERR_SYSTEM. */
enum err member_open(const char *path, int *fd_out) MUST_CHECK;
/* Makes a file of `bytes`, durable in its directory; what it held is gone. The lock is taken before anything changes.
 * errno tells more on ERR_SYSTEM. */
enum err member_make(const char *path, uint64_t bytes, int *fd_out) MUST_CHECK;

#endif
