/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and opening connections to hosts: an idle one of the lane, or DNS, connect and the socket's events for a new
 * one. Invariants in attempt.h; what a connection then does is outgoing.c and outgoing_mail.c. */
#include "outgoing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* --- the connection's callbacks --- */

static void conn_connected(void *owner)
{
    struct outgoing *s = owner;
    const struct settings *settings = s->attempts->settings;
    enum smtp_out_tls tls = SMTP_OUT_TLS_REQUIRED;
    if (!s->attempts->tls || s->lane->route.local_socket)
        tls = SMTP_OUT_TLS_NONE;
    else if (strcmp(settings->smtp_tls_security_level, "may") == 0)
        tls = s->plaintext ? SMTP_OUT_TLS_NONE : SMTP_OUT_TLS_MAY;
    s->started = true;
    smtp_out_init(&s->machine, &outgoing_machine_callbacks, s, settings->hostname, tls, s->lane->route.kind == ROUTE_LMTP);
    outgoing_touch(s, REPLY_MS);
}

static size_t conn_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct outgoing *s = owner;
    if (!s->started)
        return len;
    if (s->machine.state != SMTP_OUT_READY)
        outgoing_touch(s, s->machine.state == SMTP_OUT_DOT ? DOT_MS : REPLY_MS);
    size_t taken = smtp_out_feed(&s->machine, bytes, len);
    if (s->doomed)
        outgoing_fail(s);
    return taken;
}

static void conn_drained(void *owner)
{
    struct outgoing *s = owner;
    if (s->streaming)
        outgoing_touch(s, PROGRESS_MS);
    if (s->stream_paused) {
        s->stream_paused = false;
        port_fetch_resume(s->attempts->port, &s->stream);
    }
}

static void conn_tls(void *owner, enum err e, const char *text)
{
    struct outgoing *s = owner;
    if (!e) {
        outgoing_touch(s, REPLY_MS);
        smtp_out_tls_done(&s->machine);
        return;
    }
    char line[REASON_BYTES_MAX];
    snprintf(line, sizeof line, "4.7.5 TLS handshake with %.200s failed: %.200s", s->peer, text ? text : err_text(e));
    outgoing_doom(s, line);
    outgoing_fail(s);
}

static void conn_closed(void *owner, enum err e, const char *text)
{
    struct outgoing *s = owner;
    char line[REASON_BYTES_MAX];
    if (!s->started)
        snprintf(line, sizeof line, "4.4.1 connect to %.330s: %.100s", s->relay, text ? text : err_text(e));
    else
        snprintf(line, sizeof line, "4.4.2 lost connection with %.200s while waiting for the answer to %.30s%s%.60s", s->peer,
                 smtp_out_command(&s->machine), e && text ? ": " : "", e && text ? text : "");
    s->untouched = s->started && (s->machine.state == SMTP_OUT_MAIL || s->machine.state == SMTP_OUT_READY);
    outgoing_doom(s, line);
    outgoing_fail(s);
}

static const struct conn_callbacks conn_callbacks = {
    .on_connected = conn_connected, .on_bytes = conn_bytes, .on_drained = conn_drained, .on_tls = conn_tls,
    .on_closed = conn_closed,
};

/* --- connecting --- */

static enum err connect_local(struct outgoing *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", s->lane->route.host);
    snprintf(s->peer, sizeof s->peer, "%.250s", s->lane->route.host);
    snprintf(s->relay, sizeof s->relay, "%.250s", s->lane->route.host);
    return conn_connect(s->attempts->loop, (const struct sockaddr *)&un, sizeof un, &conn_callbacks, s, &s->conn);
}

static enum err connect_inet(struct outgoing *s, const struct dns_address *a)
{
    snprintf(s->peer, sizeof s->peer, "%s[%s]", a->host, a->text);
    snprintf(s->relay, sizeof s->relay, "%s[%s]:%u", a->host, a->text, s->lane->route.port);
    return conn_connect(s->attempts->loop, (const struct sockaddr *)&a->to, a->to_len, &conn_callbacks, s, &s->conn);
}

void attempt_smtp_try_next(struct outgoing *s)
{
    struct attempts *a = s->attempts;
    uint32_t count = s->query ? s->query->count : 1;
    for (; s->address_at < count; s->address_at++) {
        enum err e = s->query ? connect_inet(s, &s->query->addresses[s->address_at]) : connect_local(s);
        if (!e) {
            outgoing_touch(s, (uint64_t)a->settings->smtp_connect_timeout_s * 1000);
            return;
        }
        char what[REASON_BYTES_MAX];
        snprintf(what, sizeof what, "connect to %.330s", s->relay);
        outcome_of_err(e, what, &s->doom);
        if (s->doom.blame == OUTCOME_US) /* no descriptor, no memory: no other address would fare better */
            break;
    }
    struct job *job = s->job;
    struct outcome why = s->doom;
    s->job = NULL;
    if (why.blame == OUTCOME_US)
        a->cb.on_again(a->cb.owner, job, &why);
    else
        a->cb.on_host_failed(a->cb.owner, job, &why);
    outgoing_free(s);
}

static void resolved(struct dns_query *q, enum err e)
{
    struct outgoing *s = q->owner;
    struct attempts *a = s->attempts;
    if (!e) {
        attempt_smtp_try_next(s);
        return;
    }
    struct job *job = s->job;
    struct outcome why = q->why;
    s->job = NULL;
    if (why.status == MARK_DEFERRED)
        a->cb.on_host_failed(a->cb.owner, job, &why);
    else
        attempt_all(a, job, &why, "none");
    outgoing_free(s);
}

static void run_connect(struct loop_task *t)
{
    attempt_smtp_try_next(t->owner);
}

static void timer_fired(struct loop_timer *t)
{
    struct outgoing *s = t->owner;
    uint64_t now = loop_now_ms(s->attempts->loop);
    s->armed_ms = 0;
    if (now < s->deadline_ms) {
        outgoing_touch(s, s->deadline_ms - now);
        return;
    }
    if (!s->job) {
        outgoing_quit(s);
        return;
    }
    if (!s->conn)
        return; /* the resolver has its own clock */
    char line[REASON_BYTES_MAX];
    s->untouched = false;
    if (!s->started)
        snprintf(line, sizeof line, "4.4.1 connect to %.330s: connection timed out", s->relay);
    else
        snprintf(line, sizeof line, "4.4.2 conversation with %.200s timed out while waiting for the answer to %.30s", s->peer,
                 smtp_out_command(&s->machine));
    outgoing_doom(s, line);
    outgoing_fail(s);
}

static struct outgoing *open_outgoing(struct attempts *a, struct job *job)
{
    struct outgoing *s = calloc(1, sizeof *s);
    struct dns_query *q = job->lane->route.local_socket ? NULL : calloc(1, sizeof *q);
    if (!s || (!q && !job->lane->route.local_socket)) {
        free(s);
        free(q);
        return NULL;
    }
    s->attempts = a;
    s->lane = job->lane;
    s->job = job;
    s->query = q;
    s->opened_ms = loop_now_ms(a->loop);
    s->task = (struct loop_task){.run = run_connect, .owner = s};
    loop_timer_init(a->loop, &s->timer, timer_fired, s);
    link_push(&a->sessions, &s->link);
    a->session_count++;
    s->lane->sessions++;
    return s;
}

static void resolve(struct outgoing *s)
{
    struct dns_query *q = s->query;
    const struct route *r = &s->lane->route;
    size_t len = strlen(r->host);
    q->mx = r->mx;
    q->port = r->port;
    q->owner = s;
    q->done = resolved;
    snprintf(q->host, sizeof q->host, "%s", r->host);
    if (len > 2 && r->host[0] == '[' && r->host[len - 1] == ']') { /* user@[192.0.2.1] */
        snprintf(q->host, sizeof q->host, "%.*s", (int)(len - 2), r->host + 1);
        q->mx = false;
    }
    dns_resolve(s->attempts->dns, q);
}

void attempt_smtp_start(struct attempts *a, struct job *job)
{
    struct lane *lane = job->lane;
    if (!link_empty(&lane->idle)) {
        struct outgoing *s = CONTAINER_OF(lane->idle.next, struct outgoing, lane_link);
        outgoing_leave_idle(s);
        s->job = job;
        outgoing_begin_job(s);
        return;
    }
    /* descriptors are counted for deliveries_max connections: idle ones make room */
    if (a->session_count >= a->settings->deliveries_max && !link_empty(&a->idle))
        outgoing_quit(CONTAINER_OF(a->idle.next, struct outgoing, idle_link));
    struct outgoing *s = open_outgoing(a, job);
    if (!s) {
        struct outcome o;
        outcome_of_err(ERR_NO_MEMORY, "connecting", &o);
        attempt_all(a, job, &o, "none");
        return;
    }
    if (s->query)
        resolve(s);
    else
        loop_defer(a->loop, &s->task);
}

void attempts_quit_idle(struct attempts *a)
{
    while (!link_empty(&a->idle))
        outgoing_quit(CONTAINER_OF(a->idle.next, struct outgoing, idle_link));
}

void attempt_smtp_close(struct attempts *a)
{
    a->cb.on_session_gone = NULL;
    LINK_EACH_SAFE(l, next, &a->sessions) {
        struct outgoing *s = CONTAINER_OF(l, struct outgoing, link);
        s->job = NULL;
        outgoing_free(s);
    }
}
