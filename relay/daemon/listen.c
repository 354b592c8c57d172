/* SPDX-License-Identifier: Apache-2.0 */
/* Bound sockets: mail ports, status page, control socket. Never accepts. See listen.h. */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024 /* connections that wait while the relay is being replaced; the kernel's somaxconn caps it */

static enum err bind_port(const struct config_listen *at, int *fd_out, char text[256])
{
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } a = {0};
    socklen_t len = sizeof a.v4;
    int on = 1;
    if (inet_pton(AF_INET, at->address, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t)at->port);
    } else if (inet_pton(AF_INET6, at->address, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons((uint16_t)at->port);
        len = sizeof a.v6;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (a.any.sa_family == AF_INET || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
        bind(fd, &a.any, len) == 0 && listen(fd, BACKLOG) == 0) {
        *fd_out = fd;
        return ERR_OK;
    }
    enum err e = errno == EADDRINUSE ? ERR_EXISTS : ERR_SYSTEM;
    snprintf(text, 256, "%s \"%s\": %s port %u: %s", "listen", at->name, at->address, at->port, strerror(errno));
    if (fd >= 0)
        close(fd);
    return e;
}

static bool same(const struct config_listen *a, const struct config_listen *b)
{
    return a->port == b->port && strcmp(a->address, b->address) == 0;
}

static int find_bound(const struct listeners *l, const struct config_listen *at)
{
    for (uint32_t i = 0; i < l->mail_count; i++)
        if (same(&l->mail[i].at, at))
            return l->mail[i].fd;
    return l->http.fd >= 0 && same(&l->http.at, at) ? l->http.fd : -1;
}

static bool has_fd(const struct listeners *l, int fd)
{
    for (uint32_t i = 0; i < l->mail_count; i++)
        if (l->mail[i].fd == fd)
            return true;
    return l->http.fd == fd;
}

static void close_unless(struct listeners *l, const struct listeners *kept)
{
    for (uint32_t i = 0; i < l->mail_count; i++)
        if (!has_fd(kept, l->mail[i].fd))
            close(l->mail[i].fd);
    if (l->http.fd >= 0 && !has_fd(kept, l->http.fd))
        close(l->http.fd);
}

enum err listeners_apply(struct listeners *l, const struct config *c, char text[256])
{
    struct listeners next = {.http.fd = -1};
    for (uint32_t i = 0; i <= c->listen_count; i++) {
        bool http = i == c->listen_count;
        const struct config_listen *at = http ? &c->http : &c->listens[i];
        if (http && at->port == 0)
            break;
        int fd = find_bound(l, at);
        enum err e = fd >= 0 ? ERR_OK : bind_port(at, &fd, text);
        if (e != ERR_OK) {
            close_unless(&next, l);
            return e;
        }
        struct listener *to = http ? &next.http : &next.mail[next.mail_count++];
        *to = (struct listener){.at = *at, .fd = fd};
    }
    close_unless(l, &next);
    *l = next;
    return ERR_OK;
}

void listeners_close(struct listeners *l)
{
    struct listeners none = {.http.fd = -1};
    close_unless(l, &none);
    *l = none;
}

void listener_print(const struct listener *l, char text[96])
{
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } a = {0};
    socklen_t len = sizeof a;
    unsigned port = l->at.port;
    if (getsockname(l->fd, &a.any, &len) == 0)
        port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
    bool six = strchr(l->at.address, ':') != NULL;
    snprintf(text, 96, "%s%s%s:%u", six ? "[" : "", l->at.address, six ? "]" : "", port);
}

static bool somebody_answers(const struct sockaddr_un *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answers = fd >= 0 && connect(fd, (const struct sockaddr *)at, sizeof *at) == 0;
    if (fd >= 0)
        close(fd);
    return answers;
}

enum err control_socket_bind(const char *path, unsigned gid, int *fd_out, char text[256])
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char directory[sizeof at.sun_path];
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash && slash != directory) {
        *slash = '\0';
        if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
            snprintf(text, 256, "control_socket: %s: %s", directory, strerror(errno));
            return ERR_SYSTEM;
        }
    }
    if (somebody_answers(&at)) {
        snprintf(text, 256, "control_socket: %s: another ironspoold answers there", path);
        return ERR_EXISTS;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    bool bound = fd >= 0 && (unlink(path) == 0 || errno == ENOENT) && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    umask(before);
    if (bound && gid != (unsigned)-1)
        bound = chown(path, (uid_t)-1, gid) == 0 && chmod(path, 0660) == 0;
    if (bound && listen(fd, 64) == 0) {
        *fd_out = fd;
        return ERR_OK;
    }
    snprintf(text, 256, "control_socket: %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ERR_SYSTEM;
}
