/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server: its listeners, its limits and counters, reload and stop. Every decision about the protocol is
 * smtp_in's, every one about the message intake's; one session is session.c and session_events.c. Invariants in
 * server.h. */
#include "server_parts.h"

#include "log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 64
#define ACCEPT_PAUSE_MS 1000u
#define SWEEP_MS 5000u

const char *const server_refusal_words[SERVER_REFUSED_COUNT] = {
    "relay", "transient", "full", "too_large", "syntax", "limit",
};

/* --- settings and counters --- */

struct settings *server_settings_ref(struct settings *s)
{
    s->refs++;
    return s;
}

void server_settings_unref(struct server *server, struct settings *s)
{
    if (--s->refs == 0 && server->deps.settings_free)
        server->deps.settings_free(s);
}

void server_count_refused(struct server *server, enum err why)
{
    enum server_refusal r = SERVER_REFUSED_TRANSIENT;
    if (why == ERR_DENIED)
        r = SERVER_REFUSED_RELAY;
    else if (why == ERR_TOO_LARGE)
        r = SERVER_REFUSED_TOO_LARGE;
    else if (why == ERR_BUSY)
        r = SERVER_REFUSED_LIMIT;
    else if (err_class(why) == ERR_CLASS_FULL)
        r = SERVER_REFUSED_FULL;
    else if (err_class(why) == ERR_CLASS_INVALID)
        r = SERVER_REFUSED_SYNTAX;
    server->counters.refused[r]++;
}

void server_counters(const struct server *server, struct server_counters *counters_out)
{
    *counters_out = server->counters;
}

/* --- listening --- */

static void set_accepting(struct server *server, bool on)
{
    if (server->accepting == on)
        return;
    server->accepting = on;
    for (uint32_t i = 0; i < server->listener_count; i++)
        loop_watch_change(&server->listeners[i].watch, on, false);
}

static void accept_again(struct loop_timer *t)
{
    struct server *server = t->owner;
    if (!server->stopping)
        set_accepting(server, true);
}

static void pause_accepting(struct server *server, int error) /* SES-1 */
{
    server->counters.accept_pauses++;
    log_line("smtpd", "warning: accept: %s; pausing for %u ms", strerror(error), ACCEPT_PAUSE_MS);
    set_accepting(server, false);
    loop_timer_set(&server->accept_again, ACCEPT_PAUSE_MS);
}

static void listener_ready(struct loop_watch *w, bool readable, bool writable)
{
    struct server *server = ((struct listener *)w->owner)->server;
    (void)readable;
    (void)writable;
    for (int i = 0; i < ACCEPTS_PER_TURN && server->accepting; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof from;
        int fd = accept4(w->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            session_begin(server, fd, &from);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(server, errno);
        if (errno == EAGAIN || !server->accepting)
            break; /* whatever else is wrong is that connection's trouble */
    }
}

enum err server_listen(struct server *server, int fd)
{
    int on = 1;
    if (server->listener_count == SERVER_LISTENERS_MAX)
        return ERR_BUSY;
    struct listener *l = &server->listeners[server->listener_count];
    l->server = server;
    l->watch = (struct loop_watch){.fd = fd, .ready = listener_ready, .owner = l};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    enum err e = loop_watch_add(server->deps.loop, &l->watch, server->accepting, false);
    if (!e)
        server->listener_count++;
    return e;
}

static void close_listeners(struct server *server)
{
    server->accepting = false;
    for (uint32_t i = 0; i < server->listener_count; i++) {
        loop_watch_remove(&server->listeners[i].watch);
        close(server->listeners[i].watch.fd);
    }
    server->listener_count = 0;
}

/* --- slow clients --- */

static void sweep(struct loop_timer *t)
{
    struct server *server = t->owner;
    uint64_t now = loop_now_ms(server->deps.loop);
    LINK_EACH_SAFE (l, next, &server->sessions) {
        struct session *s = CONTAINER_OF(l, struct session, link);
        if (s->retired || !session_too_slow(s, now))
            continue;
        server->counters.timeouts++;
        log_line("smtpd", "timeout after %s from unknown[%s]: too slow", smtp_verb_words[s->smtp.verb], s->address);
        smtp_in_timeout(&s->smtp);
    }
    loop_timer_set(t, SWEEP_MS);
}

/* --- life --- */

static void tell_stopped(struct loop_task *t)
{
    struct server *server = t->owner;
    void (*stopped)(void *) = server->stopped;
    loop_timer_clear(&server->grace);
    server->stopped = NULL;
    if (stopped)
        stopped(server->stopped_owner);
}

static void cut_off(struct server *server)
{
    LINK_EACH_SAFE (l, next, &server->sessions) {
        struct session *s = CONTAINER_OF(l, struct session, link);
        session_log_disconnect(s);
        conn_close(&s->conn, s->retired);
        session_free(s);
    }
}

static void grace_over(struct loop_timer *t)
{
    struct server *server = t->owner;
    LINK_EACH_SAFE (l, next, &server->sessions)
        smtp_in_cut_off(&CONTAINER_OF(l, struct session, link)->smtp);
    cut_off(server); /* what was said still leaves */
    loop_defer(server->deps.loop, &server->stopped_task);
}

enum err server_open(const struct server_deps *deps, struct server **server_out)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return ERR_NO_MEMORY;
    struct intake_deps intake = {deps->loop, deps->port, deps->owner, deps->on_accepted};
    enum err e = intake_open(&intake, &server->intake);
    if (e) {
        free(server);
        return e;
    }
    server->deps = *deps;
    server->settings = server_settings_ref(deps->settings);
    server->tls = deps->tls ? tls_context_ref(deps->tls) : NULL;
    server->accepting = true;
    link_init(&server->sessions);
    for (uint32_t i = 0; i < CLIENT_BUCKETS; i++)
        link_init(&server->clients[i]);
    server->stopped_task = (struct loop_task){.run = tell_stopped, .owner = server};
    loop_timer_init(deps->loop, &server->accept_again, accept_again, server);
    loop_timer_init(deps->loop, &server->sweep, sweep, server);
    loop_timer_init(deps->loop, &server->grace, grace_over, server);
    loop_timer_set(&server->sweep, SWEEP_MS);
    *server_out = server;
    return ERR_OK;
}

void server_room(struct server *server)
{
    intake_room(server->intake);
}

void server_reload(struct server *server, struct settings *settings, struct tls_context *tls)
{
    struct settings *old = server->settings;
    struct tls_context *old_tls = server->tls;
    server->settings = server_settings_ref(settings);
    server->tls = tls ? tls_context_ref(tls) : NULL;
    server_settings_unref(server, old);
    tls_context_unref(&old_tls);
}

void server_stop(struct server *server, uint64_t grace_ms, void (*stopped)(void *owner), void *owner)
{
    server->stopping = true;
    server->stopped = stopped;
    server->stopped_owner = owner;
    close_listeners(server);
    loop_timer_set(&server->grace, grace_ms);
    LINK_EACH_SAFE (l, next, &server->sessions)
        smtp_in_stop(&CONTAINER_OF(l, struct session, link)->smtp);
    if (link_empty(&server->sessions))
        loop_defer(server->deps.loop, &server->stopped_task);
}

void server_close(struct server **server)
{
    struct server *old = *server;
    *server = NULL;
    if (!old)
        return;
    old->stopping = false; /* nobody is told */
    close_listeners(old);
    cut_off(old);
    intake_close(&old->intake);
    loop_defer_cancel(&old->stopped_task);
    loop_timer_fini(&old->accept_again);
    loop_timer_fini(&old->sweep);
    loop_timer_fini(&old->grace);
    server_settings_unref(old, old->settings);
    tls_context_unref(&old->tls);
    free(old);
}
