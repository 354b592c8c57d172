/* SPDX-License-Identifier: Apache-2.0 */
/* Packets between supervisor and children. Never blocks. See control.h. */
#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct packet { uint32_t kind, value; char text[160]; };

enum err control_pair(int *ours_out, int *theirs_out)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
        return errno == EMFILE || errno == ENFILE ? ERR_NO_FD : ERR_SYSTEM;
    *ours_out = fds[0];
    *theirs_out = fds[1];
    return ERR_OK;
}

enum err control_send(int control, enum control_kind kind, uint32_t value, int fd, const char *text)
{
    struct packet p = {.kind = (uint32_t)kind, .value = value};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } ancillary = {0};
    struct iovec v = {.iov_base = &p, .iov_len = sizeof p};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    snprintf(p.text, sizeof p.text, "%s", text ? text : "");
    if (fd >= 0) {
        m.msg_control = ancillary.bytes;
        m.msg_controllen = sizeof ancillary.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n = sendmsg(control, &m, MSG_NOSIGNAL);
    if (n == (ssize_t)sizeof p)
        return ERR_OK;
    return n < 0 && errno == EAGAIN ? ERR_BUSY : ERR_CANCELED;
}

enum err control_receive(int control, struct control_message *m_out)
{
    struct packet p;
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } ancillary;
    struct iovec v = {.iov_base = &p, .iov_len = sizeof p};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ancillary.bytes,
                       .msg_controllen = sizeof ancillary.bytes};
    ssize_t n = recvmsg(control, &m, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_BUSY : ERR_CANCELED;
    if (n != (ssize_t)sizeof p)
        return ERR_CANCELED;
    struct control_message out = {.kind = (enum control_kind)p.kind, .value = p.value, .fd = -1};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(&out.fd, CMSG_DATA(c), sizeof out.fd);
    p.text[sizeof p.text - 1] = '\0';
    memcpy(out.text, p.text, sizeof out.text);
    *m_out = out;
    return ERR_OK;
}
