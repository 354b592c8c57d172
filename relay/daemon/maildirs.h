/* SPDX-License-Identifier: Apache-2.0 */
/* The directories below which the configuration delivers: `maildir:/dir` in default_transport and transport_maps. */
#ifndef DAEMON_MAILDIRS_H
#define DAEMON_MAILDIRS_H

#include "child.h"

/* Of each its absolute path, as it is written; told() keeps nothing. A map that cannot be read is passed over. */
void maildirs_each(const struct config *c, void *owner, void (*told)(void *owner, const char *path));

/* A warning in the log for each in which whom the relay becomes may not write: nothing would be delivered there. Called before there are
 * threads, while the process may still become that user and come back. */
void maildirs_warn(const struct config *c, const struct identity *identity);

#endif
