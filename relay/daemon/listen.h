/* SPDX-License-Identifier: Apache-2.0 */
/* The ports the supervisor binds while it still may, kept open over reloads and restarts of the relay, and the control
 * socket. */
#ifndef DAEMON_LISTEN_H
#define DAEMON_LISTEN_H

#include "config.h"

struct listener { struct config_listen at; int fd; };

struct listeners {
    struct listener mail[CONFIG_LISTENS_MAX];
    uint32_t mail_count;
    struct listener http;   /* fd -1: none */
};

/* Binds what `c` asks for, keeps what is bound already and still wanted, closes the rest. On failure nothing changed
 * and text names the address and the reason. */
enum err listeners_apply(struct listeners *l, const struct config *c, char text[256]) MUST_CHECK;
void listeners_close(struct listeners *l);
/* "127.0.0.1:2525", with the port the kernel chose where the configuration says 0. */
void listener_print(const struct listener *l, char text[96]);

/* Makes the directory, replaces a socket nobody answers on. gid -1: mode 0600, else 0660 and that group. */
enum err control_socket_bind(const char *path, unsigned gid, int *fd_out, char text[256]) MUST_CHECK;

#endif
