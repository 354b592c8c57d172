/* SPDX-License-Identifier: Apache-2.0 */
/* The mail log: formats, escapes, collects, writes once a turn. The one global of the relay, because a process has one
 * log. Invariants in log.h. */
#include "log.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 50       /* a stuck reader is asked again 20 times a second */
#define SAFE_PIECE 4096u  /* PIPE_BUF: what poll's POLLOUT promises to take without blocking */

static struct {
    struct loop *loop;
    struct loop_task task;
    struct loop_timer retry;
    char name[64], host[65];
    int fd;
    bool stamped;      /* lines begin with time and host */
    bool journal;      /* or with the priority the journal takes off */
    bool may_block;    /* pipe, socket or terminal: ask before writing */
    uint32_t used;
    uint64_t dropped, dropped_reported;
    time_t stamp_second;
    char stamp[16];    /* "Mon dd hh:mm:ss" of stamp_second */
    char *buffer;
} g_log = {.fd = STDERR_FILENO, .name = "ironspool", .stamped = true};

static void write_out(void)
{
    uint32_t done = 0;
    while (done < g_log.used) {
        size_t piece = g_log.used - done;
        if (g_log.may_block) {
            struct pollfd p = {.fd = g_log.fd, .events = POLLOUT};
            if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP)))
                break;
            piece = piece < SAFE_PIECE ? piece : SAFE_PIECE;
        }
        ssize_t n = write(g_log.fd, g_log.buffer + done, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { /* EAGAIN waits; a full disk or a vanished reader costs log lines, never mail */
            if (errno != EAGAIN)
                done = g_log.used;
            break;
        }
        done += (uint32_t)n;
    }
    memmove(g_log.buffer, g_log.buffer + done, g_log.used - done);
    g_log.used -= done;
}

void log_flush(void)
{
    if (!g_log.buffer)
        return;
    write_out();
    if (g_log.dropped > g_log.dropped_reported && g_log.used < LOG_BUFFER_BYTES / 2) {
        uint64_t lines = g_log.dropped - g_log.dropped_reported;
        g_log.dropped_reported = g_log.dropped;
        log_line("log", "warning: %llu lines dropped: the log's reader is too slow", (unsigned long long)lines);
        write_out();
    }
    if (g_log.used > 0 && g_log.loop)
        loop_timer_set(&g_log.retry, RETRY_MS);
}

static void run_flush(struct loop_task *t)
{
    (void)t;
    log_flush();
}

static void retry_fired(struct loop_timer *t)
{
    (void)t;
    log_flush();
}

/* The manager sets it for every child, and hands it on: only the file it names is the journal. */
static bool is_journal(const struct stat *st)
{
    unsigned long long device, inode;
    const char *stream = getenv("JOURNAL_STREAM");
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && device == st->st_dev && inode == st->st_ino;
}

enum err log_open(struct loop *loop, const char *syslog_name, const char *path)
{
    int fd = STDERR_FILENO;
    if (path && (fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640)) < 0)
        return ERR_SYSTEM;
    char *buffer = malloc(LOG_BUFFER_BYTES);
    if (!buffer) {
        if (path)
            close(fd);
        return ERR_NO_MEMORY;
    }
    log_close();
    struct stat st;
    g_log.fd = fd;
    g_log.buffer = buffer;
    bool known = fstat(fd, &st) == 0;
    g_log.may_block = known && !S_ISREG(st.st_mode);
    g_log.journal = !path && known && is_journal(&st);
    g_log.stamped = !g_log.journal;
    snprintf(g_log.name, sizeof g_log.name, "%s", syslog_name);
    if (gethostname(g_log.host, sizeof g_log.host - 1) != 0)
        snprintf(g_log.host, sizeof g_log.host, "localhost");
    g_log.loop = loop;
    g_log.task = (struct loop_task){.run = run_flush};
    loop_timer_init(loop, &g_log.retry, retry_fired, NULL);
    return ERR_OK;
}

void log_close(void)
{
    if (!g_log.buffer)
        return;
    write_out();
    loop_defer_cancel(&g_log.task);
    loop_timer_fini(&g_log.retry);
    free(g_log.buffer);
    if (g_log.fd != STDERR_FILENO)
        close(g_log.fd);
    g_log.buffer = NULL;
    g_log.loop = NULL;
    g_log.used = 0;
    g_log.fd = STDERR_FILENO;
    g_log.stamped = true;
    g_log.journal = false;
}

uint64_t log_lines_dropped(void)
{
    return g_log.dropped;
}

static const char *stamp(void)
{
    time_t now = time(NULL);
    if (now != g_log.stamp_second) { /* once a second: localtime costs more than the rest of a line */
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(g_log.stamp, sizeof g_log.stamp, "%b %e %H:%M:%S", &tm);
        g_log.stamp_second = now;
    }
    return g_log.stamp;
}

/* LOG-1. Returns the escaped length; cuts at capacity. */
static uint32_t escape(const char *from, uint32_t len, char *to, uint32_t capacity)
{
    static const char hex[] = "0123456789ABCDEF";
    uint32_t used = 0;
    for (uint32_t i = 0; i < len; i++) {
        uint8_t b = (uint8_t)from[i];
        bool plain = b >= 0x20 && b < 0x7f;
        if (used + (plain ? 1 : 4) > capacity)
            break;
        if (plain) {
            to[used++] = (char)b;
        } else {
            to[used++] = '\\';
            to[used++] = 'x';
            to[used++] = hex[b >> 4];
            to[used++] = hex[b & 15];
        }
    }
    return used;
}

/* What the journal sorts by (sd-daemon(3)): the word a line begins with, in the words of syslog(3). */
static const char *priority_of(const char *said)
{
    static const struct { const char *word, *prefix; } words[] = {
        {"warning: ", "<4>"}, {"error: ", "<3>"}, {"critical: ", "<2>"}, {"fatal: ", "<2>"}};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strncmp(said, words[i].word, strlen(words[i].word)) == 0)
            return words[i].prefix;
    return "<6>";
}

static uint32_t format_line(char *line, const char *service, const char *format, va_list args)
{
    char text[LOG_LINE_BYTES];
    int n = 0;
    if (g_log.stamped)
        n = snprintf(text, sizeof text, "%s %s ", stamp(), *g_log.host ? g_log.host : "localhost");
    n += snprintf(text + n, sizeof text - (size_t)n, "%s/%s[%d]: ", g_log.name, service, (int)getpid());
    int more = vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    uint32_t len = (uint32_t)(n + (more > 0 ? more : 0)), at = 0;
    if (len > sizeof text - 1)
        len = sizeof text - 1;
    if (g_log.journal) {
        memcpy(line, priority_of(text + n), 3);
        at = 3;
    }
    at += escape(text, len, line + at, LOG_LINE_BYTES - 1 - at);
    line[at++] = '\n';
    return at;
}

void log_line(const char *service, const char *format, ...)
{
    char line[LOG_LINE_BYTES];
    va_list args;
    va_start(args, format);
    uint32_t len = format_line(line, service, format, args);
    va_end(args);
    if (!g_log.buffer) {
        ssize_t ignored = write(STDERR_FILENO, line, len);
        (void)ignored;
        return;
    }
    if (g_log.used + len > LOG_BUFFER_BYTES)
        write_out();
    if (g_log.used + len > LOG_BUFFER_BYTES) {
        g_log.dropped++;
        return;
    }
    memcpy(g_log.buffer + g_log.used, line, len);
    g_log.used += len;
    loop_defer(g_log.loop, &g_log.task);
}
