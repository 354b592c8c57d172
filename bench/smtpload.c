/* SPDX-License-Identifier: Apache-2.0 */
/* An SMTP load driver for measurements: N sessions in one thread, each sends messages one after the other, optionally
 * with the next MAIL..DATA pipelined behind the body. Prints one line of JSON: rate and the time from the end of data to
 * 250. Body bytes carry the message's number, so that a sink can tell what arrived.
 *
 *   smtpload [-s sessions] [-m messages] [-l bytes] [-p] [-r rate] [-o timeline] host:port
 *
 * -r offers so many messages a second, whatever the server does: one that no session is free for waits for one and is
 * late. -o writes a line for each message: seconds since the start at its end, milliseconds it took, the reply's code.
 *
 * It measures, it never judges: no figure here makes a test fail. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum step { STEP_BANNER, STEP_EHLO, STEP_REST, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_DOT, STEP_QUIT, STEP_OVER };

struct session {
    int fd;
    enum step step;
    char *out;
    size_t out_len, out_at;
    char line[4096];
    size_t line_len;
    uint64_t dot_ns;
    bool lead;                 /* MAIL..DATA of the next message went out with this one's dot */
};

static struct {
    unsigned sessions, messages, bytes;
    bool pipelined;
    unsigned started, done, refused;
    double rate;               /* messages a second; 0: as fast as they go */
    uint64_t begin_ns;
    uint64_t *latency_ns;
    struct { double end; uint64_t ns; int code; } *timeline;
    char *body;
    size_t body_len;
    int epoll;
} load;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "smtpload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void session_flush(struct session *s)
{
    while (s->out_at < s->out_len) {
        ssize_t n = write(s->fd, s->out + s->out_at, s->out_len - s->out_at);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            die("write");
        s->out_at += (size_t)n;
    }
    if (s->out_at == s->out_len)
        s->out_at = s->out_len = 0;
    struct epoll_event e = {.events = EPOLLIN | (s->out_len ? EPOLLOUT : 0u), .data.ptr = s};
    if (epoll_ctl(load.epoll, EPOLL_CTL_MOD, s->fd, &e) != 0)
        die("epoll_ctl");
}

static void session_put(struct session *s, const char *bytes, size_t len)
{
    memcpy(s->out + s->out_len, bytes, len);
    s->out_len += len;
}

static void session_say(struct session *s, const char *text)
{
    session_put(s, text, strlen(text));
}

#define LEAD "MAIL FROM:<load@example.com>\r\nRCPT TO:<sink@example.net>\r\nDATA\r\n"

static bool session_take(struct session *s)
{
    if (load.started == load.messages) {
        session_say(s, "QUIT\r\n");
        s->step = STEP_QUIT;
        return false;
    }
    load.started++;
    return true;
}

/* When the next message is offered. */
static uint64_t due_ns(void)
{
    return load.rate > 0 ? load.begin_ns + (uint64_t)(load.started / load.rate * 1e9) : 0;
}

static void session_next(struct session *s)
{
    if (load.started < load.messages && now_ns() < due_ns()) {
        s->step = STEP_REST;
        return;
    }
    if (!session_take(s))
        return;
    session_say(s, LEAD);
    s->step = STEP_MAIL;
}

static void session_body(struct session *s)
{
    session_put(s, load.body, load.body_len);
    s->dot_ns = now_ns();
    s->step = STEP_DOT;
    s->lead = load.pipelined && load.started < load.messages;
    if (s->lead) {
        load.started++;
        session_say(s, LEAD);
    }
}

static void note(uint64_t ns, int code)
{
    unsigned n = load.done + load.refused;
    load.latency_ns[n] = ns;
    load.timeline[n].end = (double)(now_ns() - load.begin_ns) / 1e9;
    load.timeline[n].ns = ns;
    load.timeline[n].code = code;
}

static void session_reply(struct session *s, int code)
{
    switch (s->step) {
    case STEP_BANNER:
        session_say(s, "EHLO load.example.com\r\n");
        s->step = STEP_EHLO;
        break;
    case STEP_EHLO:
        session_next(s);
        break;
    case STEP_MAIL:
    case STEP_RCPT:
        if (code / 100 != 2) {
            fprintf(stderr, "smtpload: refused with %d before DATA\n", code);
            exit(1);
        }
        s->step++;
        break;
    case STEP_DATA:
        if (code != 354) {
            fprintf(stderr, "smtpload: DATA answered with %d\n", code);
            exit(1);
        }
        session_body(s);
        break;
    case STEP_DOT:
        note(now_ns() - s->dot_ns, code);
        if (code == 250)
            load.done++;
        else
            load.refused++;
        if (s->lead)
            s->step = STEP_MAIL;
        else
            session_next(s);
        break;
    default:
        close(s->fd);
        s->step = STEP_OVER;
    }
}

static void session_read(struct session *s)
{
    ssize_t n = read(s->fd, s->line + s->line_len, sizeof s->line - s->line_len);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        fprintf(stderr, "smtpload: the server closed a session\n");
        exit(1);
    }
    s->line_len += (size_t)n;
    char *at = s->line, *end;
    while (s->step != STEP_OVER && (end = memchr(at, '\n', s->line_len - (size_t)(at - s->line))) != NULL) {
        if (end - at >= 4 && at[3] == ' ')
            session_reply(s, atoi(at));
        at = end + 1;
    }
    if (s->step == STEP_OVER)
        return;
    s->line_len -= (size_t)(at - s->line);
    memmove(s->line, at, s->line_len);
    session_flush(s);
}

static int latency_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void body_make(void)
{
    static const char head[] = "From: load@example.com\r\nTo: sink@example.net\r\nSubject: load\r\n\r\n";
    load.body = malloc(load.bytes + 256);
    if (!load.body)
        die("malloc");
    size_t at = sizeof head - 1;
    memcpy(load.body, head, at);
    for (unsigned column = 0; at + 2 < load.bytes; at++)
        if (++column == 71) {
            memcpy(load.body + at, "\r\n", 2);
            at++;
            column = 0;
        } else {
            load.body[at] = (char)('A' + column % 26);
        }
    memcpy(load.body + at, "\r\n.\r\n", 5);
    load.body_len = at + 5;
}

static void session_open(struct session *s, const struct sockaddr_in *to)
{
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    s->out = malloc(load.body_len + 4096);
    if (s->fd < 0 || !s->out || connect(s->fd, (const struct sockaddr *)to, sizeof *to) != 0)
        die("connect");
    int one = 1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, s->fd, &e) != 0)
        die("epoll_ctl");
}

static void report(double seconds)
{
    unsigned n = load.done + load.refused;
    qsort(load.latency_ns, n, sizeof *load.latency_ns, latency_order);
    printf("{\"sessions\":%u,\"bytes\":%u,\"pipelined\":%s,\"accepted\":%u,\"refused\":%u,\"seconds\":%.3f,\"rate\":%.1f,"
           "\"dot_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}}\n",
           load.sessions, load.bytes, load.pipelined ? "true" : "false", load.done, load.refused, seconds,
           load.done / seconds, n ? (double)load.latency_ns[n / 2] / 1e6 : 0,
           n ? (double)load.latency_ns[(uint64_t)n * 99 / 100] / 1e6 : 0, n ? (double)load.latency_ns[n - 1] / 1e6 : 0);
}

static void timeline_write(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        die(path);
    for (unsigned i = 0; i < load.done + load.refused; i++)
        fprintf(f, "%.6f %.3f %d\n", load.timeline[i].end, (double)load.timeline[i].ns / 1e6, load.timeline[i].code);
    if (fclose(f) != 0)
        die(path);
}

/* Milliseconds until the next message is offered to a session that rests; a minute when nobody rests. */
static int wait_ms(const struct session *sessions)
{
    for (unsigned i = 0; i < load.sessions; i++)
        if (sessions[i].step == STEP_REST) {
            uint64_t now = now_ns(), due = due_ns();
            return due > now ? (int)((due - now) / 1000000u) + 1 : 0;
        }
    return 60000;
}

static void offer(struct session *sessions)
{
    for (unsigned i = 0; i < load.sessions; i++) {
        if (sessions[i].step != STEP_REST)
            continue;
        session_next(&sessions[i]);
        if (sessions[i].step == STEP_REST)
            return;
        session_flush(&sessions[i]);
    }
}

int main(int argc, char **argv)
{
    const char *timeline = NULL;
    load.sessions = 10;
    load.messages = 1000;
    load.bytes = 4096;
    int c;
    while ((c = getopt(argc, argv, "s:m:l:pr:o:")) != -1) {
        if (c == 's')
            load.sessions = (unsigned)atoi(optarg);
        else if (c == 'm')
            load.messages = (unsigned)atoi(optarg);
        else if (c == 'l')
            load.bytes = (unsigned)atoi(optarg);
        else if (c == 'p')
            load.pipelined = true;
        else if (c == 'r')
            load.rate = atof(optarg);
        else if (c == 'o')
            timeline = optarg;
        else
            return 2;
    }
    char *colon = optind < argc ? strrchr(argv[optind], ':') : NULL;
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (!colon || load.sessions == 0 || load.messages == 0 || load.bytes < 100 || load.rate < 0 ||
        (load.pipelined && load.rate > 0)) {
        fprintf(stderr, "usage: smtpload [-s sessions] [-m messages] [-l bytes, at least 100] [-p | -r rate] [-o timeline] "
                        "address:port\n");
        return 2;
    }
    *colon = '\0';
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, argv[optind], &to.sin_addr) != 1)
        die(argv[optind]);
    body_make();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.latency_ns = calloc(load.messages + 1u, sizeof *load.latency_ns);
    struct session *sessions = calloc(load.sessions, sizeof *sessions);
    load.timeline = calloc(load.messages + 1u, sizeof *load.timeline);
    if (load.epoll < 0 || !load.latency_ns || !load.timeline || !sessions)
        die("start");
    load.begin_ns = now_ns();
    for (unsigned i = 0; i < load.sessions; i++)
        session_open(&sessions[i], &to);
    struct epoll_event events[256];
    while (load.done + load.refused < load.messages) {
        int patience = wait_ms(sessions);
        int n = epoll_wait(load.epoll, events, 256, patience);
        if (n == 0 && patience == 60000) {
            errno = ETIMEDOUT;
            die("no answer for a minute");
        }
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                session_flush(s);
            if (s->step != STEP_OVER && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                session_read(s);
        }
        offer(sessions);
    }
    if (timeline)
        timeline_write(timeline);
    report((double)(now_ns() - load.begin_ns) / 1e9);
    return 0;
}
