/* SPDX-License-Identifier: Apache-2.0 */
/* sd_notify's protocol: datagrams of lines to a unix socket that systemd names. See notify.h. */
#include "notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int g_fd = -1; /* a process has one manager */
static uint64_t g_watchdog_ms;

void notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (usec && (!pid || strtol(pid, NULL, 10) == getpid()))
        g_watchdog_ms = strtoull(usec, NULL, 10) / 2000;
    if (path && (path[0] == '/' || path[0] == '@') && strlen(path) < sizeof to.sun_path) {
        memcpy(to.sun_path, path, strlen(path));
        if (path[0] == '@')
            to.sun_path[0] = '\0';
        socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
        g_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (g_fd >= 0 && connect(g_fd, (struct sockaddr *)&to, len) != 0)
            notify_close();
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_close(void)
{
    if (g_fd >= 0)
        close(g_fd);
    g_fd = -1;
}

void notify_say(const char *format, ...)
{
    char text[512];
    va_list args;
    if (g_fd < 0)
        return;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ssize_t ignored = send(g_fd, text, len < (int)sizeof text ? (size_t)len : sizeof text - 1, MSG_NOSIGNAL);
    (void)ignored;
}

void notify_reloading(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    notify_say("RELOADING=1\nMONOTONIC_USEC=%llu",
               (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000);
}

uint64_t notify_watchdog_ms(void)
{
    return g_watchdog_ms;
}
