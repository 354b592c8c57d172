/* SPDX-License-Identifier: Apache-2.0 */
/* The relay process: composes loop, log, port, server, schedule and status page, and gives up its privileges before the
 * first byte from the network.
 *
 *   begin (keys, log: with privileges) -> sandbox -> serve -> [stop] draining -> exit 0
 *
 *  RLM-1  nothing is read from a peer before the sandbox holds.
 *  RLM-3  nobody is greeted before the spool has answered, or has been waited for; RLM-4 see lost_over.
 *  RLM-2  a reload is a new relay process: keys, files and limits of the new configuration come before its sandbox. The
 *         old one takes no new session and finishes what is under way; connections wait in the listen queue meanwhile. */
#include "child.h"
#include "http.h"
#include "json_out.h"
#include "sandbox.h"

#include <conn.h>
#include <errno.h>
#include <log.h>
#include <malloc.h>
#include <mail.h>
#include <port.h>
#include <schedule.h>
#include <server.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <tls.h>
#include <unistd.h>

#define REPORT_MS 1000u
#define FIRST_STATUS_MS 2000u
#define LOST_MS 60000u
#define IDLE_LOOK_MS 10u
#define FDS_BESIDES 256u /* listeners, resolver, log, wire, status page */
#define SERVICE "relay"

struct relay {
    const struct child_start *start;
    const struct config *config;
    struct loop *loop;
    struct port *port;
    struct server *server;
    struct schedule *schedule;
    struct http *http;
    struct tls_context *tls;
    struct loop_watch control;
    struct loop_timer alive, report, grace;
    struct json_out json;
    char sandbox[256];
    struct loop_timer first, lost, idle;
    bool stopping, server_over, schedule_over, listening, cut_off;
};

/* --- the port's callbacks --- */

static void on_due(void *owner, struct mail *mail)
{
    struct relay *r = owner;
    schedule_on_due(r->schedule, mail);
}

/* RLM-3: nobody is greeted before the spool has said what it takes, or has let FIRST_STATUS_MS pass. */
static void begin_listening(struct relay *r)
{
    const struct listeners *l = r->start->listeners;
    enum err e = ERR_OK;
    loop_timer_clear(&r->first);
    if (r->listening || r->stopping)
        return;
    r->listening = true;
    for (uint32_t i = 0; i < l->mail_count && e == ERR_OK; i++)
        e = server_listen(r->server, l->mail[i].fd);
    if (e == ERR_OK)
        return;
    log_line(SERVICE, "fatal: listening: %s", err_text(e));
    r->cut_off = true;
    loop_stop(r->loop);
}

static void first_over(struct loop_timer *t)
{
    begin_listening(t->owner);
}

/* RLM-4: a wire that broke while the spool lives is not made again by anybody but a new relay process. */
static void lost_over(struct loop_timer *t)
{
    struct relay *r = t->owner;
    log_line(SERVICE, "no connection to the spool for %u s: this process ends, another begins", LOST_MS / 1000);
    r->cut_off = true;
    loop_stop(r->loop);
}

static void on_status(void *owner, const struct port_status *s)
{
    struct relay *r = owner;
    if (s->connected) {
        loop_timer_clear(&r->lost);
        begin_listening(r);
    } else {
        loop_timer_set(&r->lost, LOST_MS);
    }
    schedule_on_status(r->schedule, s);
}

static void on_room(void *owner)
{
    struct relay *r = owner;
    server_room(r->server);
    schedule_on_room(r->schedule);
}

static void on_recall(void *owner, struct queue_id qid)
{
    struct relay *r = owner;
    schedule_on_recall(r->schedule, qid);
}

static void on_flush(void *owner)
{
    struct relay *r = owner;
    schedule_on_flush(r->schedule);
}

static void on_accepted(void *owner, struct mail *mail)
{
    struct relay *r = owner;
    schedule_fresh(r->schedule, mail);
}

/* --- what is reported: the source of status.relay and of the relay's metrics (metrics_doc.c) --- */

static void report_server(struct relay *r, struct json_out *j)
{
    struct server_counters c;
    server_counters(r->server, &c);
    json_count(j, "accepted", c.accepted);
    json_count(j, "accepted_bytes", c.accepted_bytes);
    json_object_begin(j, "refused");
    for (int i = 0; i < SERVER_REFUSED_COUNT; i++)
        json_count(j, server_refusal_words[i], c.refused[i]);
    json_object_end(j);
    json_count(j, "sessions", c.sessions);
    json_count(j, "sessions_total", c.sessions_total);
    json_count(j, "sessions_tls", c.sessions_tls);
    json_count(j, "timeouts", c.timeouts);
    json_count(j, "accept_pauses", c.accept_pauses);
}

static void report_schedule(struct relay *r, struct json_out *j)
{
    struct schedule_counters c;
    schedule_counters(r->schedule, &c);
    json_count(j, "delivered", c.delivered);
    json_count(j, "deferred", c.deferred);
    json_count(j, "bounced", c.bounced);
    json_count(j, "expired", c.expired);
    json_count(j, "retired", c.retired);
    json_count(j, "attempts", c.attempts);
    json_count(j, "mails", c.mails);
    json_count(j, "fresh", c.fresh);
    json_count(j, "active", c.active);
    json_count(j, "connections", c.connections);
    json_count(j, "lanes", c.lanes);
    json_count(j, "lanes_dead", c.lanes_dead);
    json_count(j, "unmarked", c.unmarked);
    json_array_begin(j, "delay_bounds_ms");
    for (int i = 0; i < SCHEDULE_DELAY_BUCKETS; i++)
        json_count(j, NULL, schedule_delay_bucket_ms[i]);
    json_array_end(j);
    json_array_begin(j, "delay_buckets");
    for (int i = 0; i < SCHEDULE_DELAY_BUCKETS; i++)
        json_count(j, NULL, c.delay_bucket[i]);
    json_array_end(j);
    json_count(j, "delay_sum_ms", c.delay_sum_ms);
}

static void on_report(struct loop_timer *t)
{
    struct relay *r = t->owner;
    struct json_out *j = &r->json;
    loop_timer_set(t, REPORT_MS);
    json_reset(j);
    json_object_begin(j, NULL);
    json_text(j, "sandbox", r->sandbox);
    json_count(j, "mail_memory", mail_memory_bytes());
    json_count(j, "log_dropped", log_lines_dropped());
    report_server(r, j);
    report_schedule(r, j);
    json_object_end(j);
    if (!j->failed)
        port_report(r->port, j->bytes, (uint32_t)j->len);
}

/* --- stop --- */

static void check_over(struct relay *r)
{
    if (!r->server_over || !r->schedule_over)
        return;
    if (port_idle(r->port))
        loop_stop(r->loop);
    else
        loop_timer_set(&r->idle, IDLE_LOOK_MS); /* the last marks are on their way; grace_over bounds it */
}

static void idle_look(struct loop_timer *t)
{
    check_over(t->owner);
}

static void schedule_drained(void *owner)
{
    struct relay *r = owner;
    r->schedule_over = true;
    check_over(r);
}

static void server_stopped(void *owner)
{
    struct relay *r = owner;
    r->server_over = true;
    check_over(r);
}

static void grace_over(struct loop_timer *t)
{
    struct relay *r = t->owner;
    log_line(SERVICE, "stopping: what is still under way is cut off; it stays in the queue");
    loop_stop(r->loop);
}

static void begin_stop(struct relay *r, uint32_t grace_ms)
{
    if (r->stopping)
        return;
    r->stopping = true;
    http_stop(r->http);
    loop_timer_set(&r->grace, grace_ms);
    server_stop(r->server, grace_ms / 10 * 9, server_stopped, r); /* whom it cuts off is told: that takes a moment */
    schedule_drain(r->schedule, schedule_drained, r);
}

/* --- the supervisor --- */

static void on_control(struct loop_watch *w, bool readable, bool writable)
{
    struct relay *r = w->owner;
    struct control_message m;
    enum err e;
    (void)readable;
    (void)writable;
    while ((e = control_receive(w->fd, &m)) == ERR_OK) {
        if (m.kind == CONTROL_WIRE && m.fd >= 0)
            port_attach(r->port, m.fd);
        else if (m.kind == CONTROL_STOP)
            begin_stop(r, m.value);
    }
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED); /* SPV-2 */
}

static void on_alive(struct loop_timer *t)
{
    struct relay *r = t->owner;
    loop_timer_set(t, CONTROL_ALIVE_MS);
    enum err e = control_send(r->start->control, CONTROL_ALIVE, 0, -1, NULL);
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED);
}

/* --- begin --- */

static void raise_descriptors(const struct settings *s)
{
    struct rlimit limit;
    rlim_t want = s->sessions_max + s->deliveries_max + FDS_BESIDES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < want)
        log_line(SERVICE, "warning: %llu descriptors are allowed, %llu are wanted for sessions_max and deliveries_max",
                 (unsigned long long)limit.rlim_cur, (unsigned long long)want);
}

/* The key is read while we still may. */
static enum err open_tls(struct relay *r)
{
    const struct settings *s = &r->config->settings;
    char text[256] = "";
    if (strcmp(s->smtpd_tls_security_level, "none") == 0)
        return ERR_OK;
    const char *key = s->smtpd_tls_key_file[0] ? s->smtpd_tls_key_file : s->smtpd_tls_cert_file;
    enum err e = tls_server_open(s->smtpd_tls_cert_file, key, text, &r->tls);
    if (e == ERR_OK)
        return ERR_OK;
    bool must = strcmp(s->smtpd_tls_security_level, "encrypt") == 0;
    log_line(SERVICE, "%s: smtpd_tls_cert_file: %s%s", must ? "fatal" : "error", text, must ? "" : "; no STARTTLS is offered");
    return must ? e : ERR_OK;
}

static enum err open_parts(struct relay *r)
{
    struct settings *settings = (struct settings *)&r->config->settings; /* counted, never changed */
    struct port_callbacks callbacks = {.owner = r, .on_due = on_due, .on_status = on_status, .on_room = on_room,
                                       .on_recall = on_recall, .on_flush = on_flush};
    struct server_deps deps = {.loop = r->loop, .settings = settings, .tls = r->tls, .owner = r, .on_accepted = on_accepted};
    enum err e = port_open(r->loop, &callbacks, &r->port);
    if (e == ERR_OK)
        port_use_trays(r->port, r->start->trays);
    if (e == ERR_OK)
        e = schedule_open(r->loop, r->port, settings, &r->schedule);
    deps.port = r->port;
    if (e == ERR_OK)
        e = server_open(&deps, &r->server);
    const struct listeners *l = r->start->listeners;
    if (e == ERR_OK && l->http.fd >= 0)
        e = http_open(r->loop, r->port, r->start->board, l->http.fd, &r->http);
    return e;
}

static enum err begin(struct relay *r)
{
    enum err e = open_tls(r);
    if (e != ERR_OK)
        return e;
    raise_descriptors(&r->config->settings);
    e = sandbox_relay(r->config, &r->start->identity, r->sandbox); /* before there are threads */
    log_line(SERVICE, "sandbox: %s", r->sandbox);
    loop_timer_init(r->loop, &r->first, first_over, r);
    loop_timer_init(r->loop, &r->lost, lost_over, r);
    loop_timer_init(r->loop, &r->idle, idle_look, r);
    if (e == ERR_OK)
        e = open_parts(r);
    if (e != ERR_OK)
        return e;
    r->control = (struct loop_watch){.fd = r->start->control, .ready = on_control, .owner = r};
    loop_timer_init(r->loop, &r->alive, on_alive, r);
    loop_timer_init(r->loop, &r->report, on_report, r);
    loop_timer_init(r->loop, &r->grace, grace_over, r);
    loop_timer_set(&r->alive, CONTROL_ALIVE_MS);
    loop_timer_set(&r->report, REPORT_MS);
    loop_timer_set(&r->first, FIRST_STATUS_MS);
    e = loop_watch_add(r->loop, &r->control, true, false);
    return e == ERR_OK ? control_send(r->start->control, CONTROL_READY, 0, -1, r->sandbox) : e;
}

static void end(struct relay *r)
{
    if (r->server)
        server_close(&r->server);
    if (r->schedule)
        schedule_close(&r->schedule);
    if (r->port)
        port_close(&r->port);
    http_close(&r->http);
    if (r->control.read_event)
        loop_watch_remove(&r->control);
    loop_timer_fini(&r->alive);
    loop_timer_fini(&r->report);
    loop_timer_fini(&r->grace);
    loop_timer_fini(&r->first);
    loop_timer_fini(&r->lost);
    loop_timer_fini(&r->idle);
    if (r->loop)
        conn_forget_left(r->loop);
    tls_context_unref(&r->tls);
    json_free(&r->json);
    log_close();
    if (r->loop)
        loop_close(&r->loop);
    struct config *config = (struct config *)r->config;
    config_free(&config);
}

int relay_main(const struct child_start *start)
{
    struct relay r = {.start = start, .config = start->config};
    mallopt(M_ARENA_MAX, 2); /* the worker threads share: no arena a thread */
    enum err e = loop_open(&r.loop);
    if (e == ERR_OK)
        e = log_open(r.loop, r.config->settings.syslog_name, r.config->log_file[0] ? r.config->log_file : NULL);
    if (e == ERR_OK)
        e = begin(&r);
    if (e == ERR_OK)
        loop_run(r.loop);
    else
        log_line(SERVICE, "fatal: %s", err_text(e));
    end(&r);
    return e == ERR_OK && !r.cut_off ? 0 : CHILD_FAILED;
}
