/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: clients, framing, the small commands. Protocol and invariants in admin.h; queue commands in
 * admin_queue.c and admin_act.c.
 *
 *   reading [a whole line] -> answering [pump until finished] -> flushing [all sent] -> closed */
#include "admin_client.h"
#include "alarm_wire.h"

#include <base/assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define REQUEST_FIRST_BYTES 4096u

struct admin {
    struct spool_process *spool;
    struct io_watch watch;
    bool closed;               /* takes no more clients */
    struct admin_client clients[ADMIN_CLIENTS_MAX];
};

/* --- output --- */

static size_t unsent(const struct admin_client *c)
{
    return c->out.len - c->sent;
}

bool admin_has_room(const struct admin_client *c)
{
    return !c->broken && !c->finished && unsent(c) < ADMIN_OUTPUT_MAX;
}

void admin_ok(struct admin_client *c, const char *format)
{
    text_add(&c->out, "{\"ok\":true,\"format\":\"%s\"}\n", format);
}

void admin_finish(struct admin_client *c)
{
    c->finished = true;
}

void admin_fail(struct admin_client *c, enum err e, const char *text)
{
    struct json_out *j = &c->out;
    json_object_begin(j, NULL);
    json_bool(j, "ok", false);
    json_text(j, "error", err_name(e));
    json_text(j, "text", text);
    json_object_end(j);
    json_line_end(j);
    admin_finish(c);
}

/* Bytes left unread when a socket is closed would cost the peer the answer it has not read yet (ECONNRESET). */
static void drop_input(struct admin_client *c)
{
    char bytes[4096];
    for (unsigned got = 0; got < ADMIN_REQUEST_BYTES_MAX;) {
        ssize_t n = recv(c->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n <= 0)
            return;
        got += (unsigned)n;
    }
}

static void close_client(struct admin_client *c)
{
    struct io *io = c->spool->io;
    drop_input(c);
    if (c->drop)
        c->drop(c);
    spool_counts_forget(&c->counts);
    io_timer_clear(io, &c->idle);
    io_watch_remove(io, &c->watch);
    close(c->watch.fd);
    json_free(&c->out);
    free(c->request);
    *c = (struct admin_client){.admin = c->admin, .spool = c->spool};
}

static void send_some(struct admin_client *c)
{
    while (unsent(c) > 0 && !c->broken) {
        ssize_t n = send(c->watch.fd, c->out.bytes + c->sent, unsent(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            c->broken = true;
            break;
        }
        c->sent += (size_t)n;
        c->begun = true;
        io_timer_set(c->spool->io, &c->idle, io_now_ns(c->spool->io) + ADMIN_IDLE_S * NS_PER_S);
    }
    if (c->sent == c->out.len) {
        bool comma = c->out.comma;
        json_reset(&c->out);
        c->out.comma = comma;
        c->sent = 0;
    }
}

/* Makes output while there is room, sends, and closes what is over. */
static void go_on(struct admin_client *c)
{
    size_t before = c->out.len;
    if (c->pump && admin_has_room(c))
        c->pump(c);
    bool made = c->out.len > before;
    if (c->out.failed)
        c->broken = true; /* no memory: the missing end tells the client */
    send_some(c);
    c->moved = c->moved || (made && admin_has_room(c)); /* there may be more, after the engine had its turn */
    bool over = c->broken || (c->finished && unsent(c) == 0);
    if (over) {
        close_client(c);
        return;
    }
    io_watch_change(c->spool->io, &c->watch, (c->shut ? 0 : (uint32_t)EPOLLIN) | (unsent(c) ? (uint32_t)EPOLLOUT : 0));
}

/* --- documents --- */

static void document_write(struct admin_client *c)
{
    struct pool_status *status = malloc(sizeof *status);
    struct status_view view;
    if (!status) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    spool_view(c->spool, status, &view);
    bool text = strcmp(c->format, "status-text") == 0 || strcmp(c->format, "metrics") == 0;
    admin_ok(c, text ? "text" : "json");
    if (strcmp(c->format, "status-text") == 0)
        status_doc_text(&view, &c->out);
    else if (strcmp(c->format, "metrics") == 0)
        metrics_doc(&view, &c->out);
    else if (strcmp(c->format, "members") == 0)
        status_doc_members(&view, &c->out);
    else
        status_doc_json(&view, &c->out);
    free(status);
    admin_finish(c);
}

static void document_ready(struct counts_wait *w)
{
    struct admin_client *c = w->owner;
    document_write(c); /* leaves with the next admin_step */
}

static void document_ask(struct admin_client *c, const char *which)
{
    c->format = which;
    c->counts = (struct counts_wait){.done = document_ready, .owner = c};
    spool_counts_ask(c->spool, &c->counts);
}

/* --- events --- */

struct events_job { uint64_t at; bool follow; uint64_t count; };

static void events_pump(struct admin_client *c)
{
    struct events_job *job = c->job;
    const struct events_log *log = c->spool->events;
    if (job->at < events_log_first(log))
        job->at = events_log_first(log);
    while (job->at < events_log_next(log) && admin_has_room(c)) {
        events_log_write(log, job->at++, &c->out);
        json_line_end(&c->out);
        job->count++;
    }
    if (job->at < events_log_next(log) || job->follow)
        return;
    text_add(&c->out, "{\"end\":true,\"count\":%llu}\n", (unsigned long long)job->count);
    admin_finish(c);
}

static void events_drop(struct admin_client *c)
{
    free(c->job);
}

static void events_begin(struct admin_client *c, const struct json_in *request)
{
    struct events_job *job = calloc(1, sizeof *job);
    uint64_t count = json_in_has(request, "count") ? json_in_count(request, "count") : EVENTS_MAX;
    uint64_t next = events_log_next(c->spool->events);
    if (!job) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    job->follow = json_in_true(request, "follow");
    job->at = count < next ? next - count : 1;
    c->job = job;
    c->pump = events_pump;
    c->drop = events_drop;
    /* `run` names this process: numbers begin again with the next one */
    text_add(&c->out, "{\"ok\":true,\"format\":\"lines\",\"run\":\"%d.%llu\"}\n", (int)getpid(),
             (unsigned long long)c->spool->started_ns);
}

/* --- upkeep --- */

void admin_done(struct admin_client *c)
{
    admin_ok(c, "json");
    text_add(&c->out, "{\"done\":true}\n");
    admin_finish(c);
}

/* False: not one of these. */
static bool upkeep_command(struct admin_client *c, const char *command)
{
    struct pool *pool = c->spool->pool;
    if (strcmp(command, "scrub-start") == 0)
        scrub_start(pool);
    else if (strcmp(command, "scrub-pause") == 0 || strcmp(command, "scrub-resume") == 0)
        scrub_pause(pool, command[6] == 'p');
    else if (strcmp(command, "rebuild-pause") == 0 || strcmp(command, "rebuild-resume") == 0)
        rebuild_pause(pool, command[8] == 'p');
    else
        return false;
    log_line("spool", "control: %s: done", command);
    admin_done(c);
    return true;
}

/* --- requests --- */

static bool queue_command(struct admin_client *c, const char *command, const struct json_in *request)
{
    static const char *const acts[] = {"hold", "release", "retry", "delete", "requeue", "expire"};
    if (strncmp(command, "queue-", 6) != 0)
        return false;
    const char *verb = command + 6;
    if (c->spool->pool && !spool_index_open(c->spool->pool)) {
        admin_fail(c, ERR_BUSY, "the index is not open yet; if that lasts: spooltool doctor");
        return true;
    }
    bool one = strcmp(verb, "show") == 0 || strcmp(verb, "body") == 0;
    if (!one && c->spool->pool && index_full(spool_index(c->spool->pool))) {
        admin_fail(c, ERR_INDEX_FULL, "the index has no room in state_directory, so it does not know all: make some, then ask again");
        return true;
    }
    if (strcmp(verb, "list") == 0) {
        admin_list(c, request);
        return true;
    }
    if (strcmp(verb, "summary") == 0) {
        admin_summary(c);
        return true;
    }
    if (one) {
        (verb[0] == 's' ? admin_show : admin_body)(c, request);
        return true;
    }
    for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (strcmp(verb, acts[i]) == 0 && c->spool->pool && !spool_index_ready(c->spool->pool)) {
            admin_fail(c, ERR_BUSY, "the index is being rebuilt, so not every message is known yet: try again when "
                                    "`spooltool status` shows no rebuild");
            return true;
        }
        if (strcmp(verb, acts[i]) == 0) {
            admin_act(c, request, acts[i]);
            return true;
        }
    }
    return false;
}

static void run_command(struct admin_client *c, const struct json_in *request)
{
    static const char *const documents[] = {"status", "status-text", "members", "metrics"};
    const char *command = json_in_text(request, "command");
    for (unsigned i = 0; i < sizeof documents / sizeof documents[0]; i++) {
        if (strcmp(command, documents[i]) == 0) {
            document_ask(c, documents[i]);
            return;
        }
    }
    if (strcmp(command, "events") == 0) {
        events_begin(c, request);
        return;
    }
    if (strcmp(command, "alarm-test") == 0) {
        enum err e = alarm_wire_test(c->spool->alarm);
        log_line("spool", "control: alarm-test: %s", e == ERR_OK ? "done" : err_text(e));
        if (e == ERR_OK)
            admin_done(c);
        else
            admin_fail(c, ERR_BUSY, e == ERR_NOT_FOUND ? "the alarm process is not connected" : err_text(e));
        return;
    }
    if (!c->spool->wire) {
        admin_fail(c, c->spool->mount_error ? c->spool->mount_error : ERR_BUSY, c->spool->mount_text);
        return;
    }
    if (!queue_command(c, command, request) && !upkeep_command(c, command) &&
        !admin_scrub_report(c, command, request) && !admin_member(c, command, request) && !admin_fault(c, command, request))
        admin_fail(c, ERR_INVALID, command[0] ? "this daemon does not know that command" : "no command was given");
}

static void take_request(struct admin_client *c, uint32_t line_len)
{
    struct json_in *request = NULL;
    char why[160];
    c->answering = true;
    enum err e = json_in_parse(c->request, line_len, why, &request);
    if (e != ERR_OK)
        admin_fail(c, e, e == ERR_INVALID ? why : err_text(e));
    else
        run_command(c, request);
    json_in_free(&request);
    free(c->request);
    c->request = NULL;
}

/* Room for more of the request: 4 KiB, then what is allowed. */
static bool request_room(struct admin_client *c)
{
    uint32_t want = c->request_len < REQUEST_FIRST_BYTES ? REQUEST_FIRST_BYTES : ADMIN_REQUEST_BYTES_MAX;
    if (c->request_len == ADMIN_REQUEST_BYTES_MAX) {
        c->answering = true;
        admin_fail(c, ERR_TOO_LARGE, "the request is too large: select by --sender, --domain or --all");
        return false;
    }
    if (c->request && c->request_len != REQUEST_FIRST_BYTES)
        return true;
    char *more = realloc(c->request, want);
    if (!more) {
        c->broken = true;
        return false;
    }
    c->request = more;
    return true;
}

static void read_request(struct admin_client *c)
{
    while (!c->answering && !c->broken && request_room(c)) {
        uint32_t room = (c->request_len < REQUEST_FIRST_BYTES ? REQUEST_FIRST_BYTES : ADMIN_REQUEST_BYTES_MAX) - c->request_len;
        ssize_t n = recv(c->watch.fd, c->request + c->request_len, room, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            c->broken = true;
            return;
        }
        char *end = memchr(c->request + c->request_len, '\n', (size_t)n);
        c->request_len += (uint32_t)n;
        if (end)
            take_request(c, (uint32_t)(end - c->request));
    }
}

/* While it is answered a client may only go away; more bytes of it are dropped. */
static void read_nothing(struct admin_client *c)
{
    char bytes[256];
    ssize_t n = recv(c->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    c->shut = c->shut || n == 0; /* maybe its sending side only (socat, nc -N): what is left is still sent to it */
    c->broken = c->broken || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void on_client(struct io_watch *watch, uint32_t events)
{
    struct admin_client *c = watch->owner;
    if (events & EPOLLIN && !c->answering)
        read_request(c);
    else if (events & EPOLLIN)
        read_nothing(c);
    if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))
        c->broken = true;
    go_on(c);
}

static void on_idle(struct io_timer *t)
{
    struct admin_client *c = t->owner;
    bool follows = c->answering && !c->finished && unsent(c) == 0;
    if (follows)
        io_timer_set(c->spool->io, t, io_now_ns(c->spool->io) + ADMIN_IDLE_S * NS_PER_S);
    else
        c->broken = true; /* closed by the next admin_step */
}

static void on_connection(struct io_watch *watch, uint32_t events)
{
    struct admin *a = watch->owner;
    struct io *io = a->spool->io;
    (void)events;
    for (;;) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return; /* none left; or out of descriptors: the next turn asks again */
        struct admin_client *c = NULL;
        for (uint32_t i = 0; i < ADMIN_CLIENTS_MAX && !c; i++)
            c = a->clients[i].used ? NULL : &a->clients[i];
        if (!c) {
            close(fd);
            continue;
        }
        *c = (struct admin_client){.admin = a, .spool = a->spool, .used = true,
                                   .watch = {.fd = fd, .events = EPOLLIN, .ready = on_client, .owner = c}};
        int room = ADMIN_SOCKET_BYTES;
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room); /* less only costs turns */
        io_timer_init(&c->idle, on_idle, c);
        if (io_watch_add(io, &c->watch) != ERR_OK) {
            close(fd);
            c->used = false;
            continue;
        }
        io_timer_set(io, &c->idle, io_now_ns(io) + ADMIN_IDLE_S * NS_PER_S);
    }
}

enum err admin_open(struct spool_process *spool, int listen_fd, struct admin **admin_out)
{
    struct admin *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NO_MEMORY;
    a->spool = spool;
    a->watch = (struct io_watch){.fd = listen_fd, .events = EPOLLIN, .ready = on_connection, .owner = a};
    enum err e = io_watch_add(spool->io, &a->watch);
    if (e != ERR_OK) {
        free(a);
        return e;
    }
    *admin_out = a;
    return ERR_OK;
}

bool admin_step(struct admin *a)
{
    bool moved = false;
    for (uint32_t i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        struct admin_client *c = &a->clients[i];
        if (c->used && c->answering)
            go_on(c);
        else if (c->used && c->broken)
            close_client(c);
        moved = moved || c->moved;
        c->moved = false;
    }
    return moved;
}

bool admin_stopping(struct admin *a)
{
    bool waiting = false;
    if (!a->closed)
        io_watch_remove(a->spool->io, &a->watch); /* who connects now waits for the next spool process */
    a->closed = true;
    for (uint32_t i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        const struct admin_client *c = &a->clients[i];
        waiting = waiting || (c->used && (!c->answering || unsent(c) > 0));
    }
    return waiting;
}

void admin_close(struct admin **admin)
{
    struct admin *a = *admin;
    *admin = NULL;
    if (!a)
        return;
    for (uint32_t i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        struct admin_client *c = &a->clients[i];
        if (!c->used)
            continue;
        if (c->out.len == 0 && !c->begun)
            admin_fail(c, ERR_SPOOL_GONE, err_text(ERR_SPOOL_GONE));
        send_some(c);
        close_client(c);
    }
    if (!a->closed)
        io_watch_remove(a->spool->io, &a->watch);
    close(a->watch.fd);
    free(a);
}
