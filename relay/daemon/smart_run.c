/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of the socket to smartctl's runner. See smart_run.h.
 *
 *   request: one byte, the member.   answer: length le32, member le32, bytes */
#include "smart_run.h"

#include <base/le.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEAD 8u

/* --- which disk --- */

enum err smart_device_find(const char *member_path, char device_out[256])
{
    struct stat st;
    char at[64], partition[PATH_MAX + 16], real[PATH_MAX];
    if (stat(member_path, &st) != 0 || !S_ISBLK(st.st_mode))
        return ERR_NOT_FOUND;
    snprintf(at, sizeof at, "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    if (!realpath(at, real) || strstr(real, "/virtual/"))
        return ERR_NOT_FOUND;
    snprintf(partition, sizeof partition, "%s/partition", real);
    char *name = strrchr(real, '/');
    if (name && access(partition, F_OK) == 0) {
        *name = '\0';
        name = strrchr(real, '/');
    }
    if (!name || strlen(name) > 200)
        return ERR_NOT_FOUND;
    snprintf(device_out, 256, "/dev%s", name);
    return ERR_OK;
}

/* --- the runner --- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static _Noreturn void become_smartctl(const char *smartctl, const struct smart_device *d, int out)
{
    const char *argv[] = {"smartctl", "--json", "-a", "-n", "standby,0", d->device, d->type[0] ? "-d" : NULL, d->type, NULL};
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *const envp[] = {path, NULL};
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(null, 2) < 0 || syscall(SYS_close_range, 3u, ~0u, 0u) != 0)
        _exit(126);
    execve(smartctl, (char *const *)(uintptr_t)argv, envp);
    _exit(126);
}

/* All it prints until it ends, is too long, or is too late. Returns how much there is; 0: nothing that is whole. */
static uint32_t collect(int fd, char *bytes)
{
    uint32_t len = 0;
    for (uint64_t until = now_ms() + SMART_RUN_S * 1000;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ms();
        if (now >= until || poll(&p, 1, (int)(until - now)) == 0)
            return 0;
        ssize_t n = read(fd, bytes + len, SMART_BYTES_MAX + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? len : 0;
        len += (uint32_t)n;
        if (len > SMART_BYTES_MAX)
            return 0;
    }
}

static uint32_t run_one(const char *smartctl, const struct smart_device *d, char *bytes)
{
    int out[2];
    if (!d->used || pipe2(out, O_CLOEXEC) != 0)
        return 0;
    pid_t pid = fork();
    if (pid == 0)
        become_smartctl(smartctl, d, out[1]);
    close(out[1]);
    uint32_t len = pid > 0 ? collect(out[0], bytes) : 0;
    close(out[0]);
    if (pid > 0) {
        kill(pid, SIGKILL); /* it has ended by itself, or is to */
        waitpid(pid, NULL, 0);
    }
    return len;
}

static bool send_all(int fd, const char *bytes, uint32_t len)
{
    for (uint32_t sent = 0; sent < len;) {
        ssize_t n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
        if (n <= 0 && errno != EINTR)
            return false;
        sent += n > 0 ? (uint32_t)n : 0;
    }
    return true;
}

static _Noreturn void be_runner(const char *smartctl, const struct smart_device *devices, int fd, pid_t parent)
{
    uint8_t which;
    char *bytes = malloc(HEAD + SMART_BYTES_MAX + 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "ironspool-smart");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (getppid() != parent || !bytes || dup2(fd, 3) < 0 || syscall(SYS_close_range, 4u, ~0u, 0u) != 0)
        _exit(1);
    while (recv(3, &which, 1, 0) == 1) {
        uint32_t len = which < MEMBERS_MAX ? run_one(smartctl, &devices[which], bytes + HEAD) : 0;
        struct le32 head[2] = {le32_of(len), le32_of(which)};
        memcpy(bytes, head, HEAD);
        if (!send_all(3, bytes, HEAD + len))
            break;
    }
    _exit(0);
}

enum err smart_run_fork(const char *smartctl, const struct smart_device devices[MEMBERS_MAX], int *fd_out)
{
    int fds[2];
    bool any = false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        any = any || devices[i].used;
    if (!any)
        return ERR_OK;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return ERR_NO_FD;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        be_runner(smartctl, devices, fds[1], parent);
    close(fds[1]);
    if (pid < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) {
        close(fds[0]);
        return ERR_SYSTEM;
    }
    *fd_out = fds[0];
    return ERR_OK;
}

/* --- the alarm process's end --- */

static void gone(struct smart_run *r)
{
    loop_watch_remove(&r->watch);
    close(r->fd);
    r->fd = -1;
    r->asking = false;
}

/* Reads the head, then the bytes; true when all is there. */
static bool take(struct smart_run *r)
{
    for (;;) {
        struct le32 len_disk;
        memcpy(&len_disk, r->head, sizeof len_disk);
        uint32_t len = r->got < HEAD ? 0 : le32_get(len_disk), want = HEAD + len;
        if (len > SMART_BYTES_MAX) {
            gone(r);
            return false;
        }
        if (r->got >= HEAD && r->got == want)
            return true;
        uint8_t *to = r->got < HEAD ? r->head + r->got : (uint8_t *)r->bytes + (r->got - HEAD);
        ssize_t n = recv(r->fd, to, (r->got < HEAD ? HEAD : want) - r->got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            gone(r);
        if (n <= 0)
            return false;
        r->got += (uint32_t)n;
    }
}

static void ready(struct loop_watch *w, bool readable, bool writable)
{
    struct smart_run *r = w->owner;
    (void)readable;
    (void)writable;
    if (!take(r))
        return;
    r->asking = false;
    uint32_t len = r->got - HEAD;
    r->got = 0;
    r->done(r, r->member, r->bytes, len);
}

enum err smart_run_open(struct smart_run *r)
{
    r->bytes = malloc(SMART_BYTES_MAX + 1);
    if (!r->bytes)
        return ERR_NO_MEMORY;
    r->watch = (struct loop_watch){.fd = r->fd, .ready = ready, .owner = r};
    return loop_watch_add(r->loop, &r->watch, true, false);
}

void smart_run_close(struct smart_run *r)
{
    if (r->fd >= 0 && r->watch.read_event)
        loop_watch_remove(&r->watch);
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    free(r->bytes);
    r->bytes = NULL;
}

enum err smart_run_ask(struct smart_run *r, uint32_t member)
{
    uint8_t which = (uint8_t)member;
    if (r->fd < 0)
        return ERR_SYSTEM;
    if (r->asking)
        return ERR_BUSY;
    if (send(r->fd, &which, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
        return ERR_SYSTEM;
    r->asking = true;
    r->member = member;
    r->got = 0;
    return ERR_OK;
}
