/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to a host, and the transactions it carries: DNS, connect, TLS, the client machine, the body. Owns the
 * sessions; a session without a job waits in its lane for the next one, at most IDLE_MS. See attempt.h, smtp_out.h.
 *
 *      resolve -> connect --greeted--> ready <-> transaction
 *                   ^  \--failed--> next address; none left: on_host_failed
 *                   \--TLS failed and not required: the same address without TLS
 *
 * Failures found inside the machine are kept in `doom` and dealt with when it has returned: a session is never freed
 * under its machine. */
#include "attempt.h"
#include "conn.h"
#include "dns.h"
#include "smtp_out.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define IDLE_MS 2000u              /* Postfix's smtp_connection_cache_time_limit */
#define AGE_MS_MAX 300000u         /* Postfix's smtp_connection_reuse_time_limit */
#define REPLY_MS 300000u           /* RFC 5321 4.5.3.2: MAIL, RCPT 5 min, DATA 2 min */
#define DOT_MS 600000u             /* 4.5.3.2.6 */
#define PROGRESS_MS 180000u        /* 4.5.3.2.5: each piece of the body */
#define QUEUED_BYTES_MAX (256u * 1024) /* of a streamed body towards the kernel */

struct session {
    struct link link, idle_link, lane_link;
    struct attempts *attempts;
    struct lane *lane;
    struct job *job;
    struct conn *conn;
    struct dns_query *query;       /* addresses; until the handshake is over */
    uint32_t address_at;
    struct loop_timer timer;
    uint64_t deadline_ms, armed_ms, opened_ms;
    struct loop_task task;         /* connects outside attempt_start */
    struct smtp_out machine;
    bool started, working, in_transaction, plaintext, reused;
    bool doomed;
    bool untouched;                /* it failed before it said anything to this message */
    struct outcome doom;           /* why the connection is of no more use; the last host's failure */
    struct body_fetch body;
    struct port_fetch stream;
    bool streaming, stream_paused;
    uint32_t sent;                 /* recipients of the transaction */
    uint32_t map[SMTP_OUT_RECIPIENTS_MAX];
    struct smtp_out_address recipients[SMTP_OUT_RECIPIENTS_MAX];
    char peer[DNS_NAME_BYTES + 72]; /* name[address] */
    char relay[DNS_NAME_BYTES + 80];
};

static void try_next(struct session *s);
static void begin_job(struct session *s);

/* --- time --- */

/* The timer is moved only when the deadline comes nearer; later deadlines are seen when it fires. */
static void touch(struct session *s, uint64_t ms)
{
    uint64_t now = loop_now_ms(s->attempts->loop);
    s->deadline_ms = now + ms;
    if (s->armed_ms == 0 || s->deadline_ms < s->armed_ms) {
        s->armed_ms = s->deadline_ms;
        loop_timer_set(&s->timer, ms);
    }
}

/* --- life and death --- */

static void stop_body(struct session *s)
{
    body_fetch_cancel(&s->body);
    if (s->streaming)
        port_fetch_cancel(s->attempts->port, &s->stream);
    s->streaming = s->stream_paused = false;
}

static void leave_idle(struct session *s)
{
    if (link_linked(&s->idle_link)) {
        link_remove(&s->idle_link);
        link_remove(&s->lane_link);
    }
}

static void drop_connection(struct session *s, bool flush)
{
    if (s->conn)
        conn_close(&s->conn, flush);
    if (s->working)
        s->lane->working--;
    s->working = s->started = s->in_transaction = false;
}

static void free_session(struct session *s)
{
    struct attempts *a = s->attempts;
    struct lane *lane = s->lane;
    stop_body(s);
    leave_idle(s);
    drop_connection(s, false);
    if (s->query)
        dns_cancel(s->query);
    free(s->query);
    loop_timer_fini(&s->timer);
    loop_defer_cancel(&s->task);
    link_remove(&s->link);
    a->session_count--;
    lane->sessions--;
    free(s);
    if (a->cb.on_session_gone)
        a->cb.on_session_gone(a->cb.owner, lane);
}

static void quit(struct session *s)
{
    if (s->machine.state == SMTP_OUT_READY) {
        smtp_out_quit(&s->machine);
        drop_connection(s, true); /* the reply to QUIT interests nobody */
    }
    free_session(s);
}

static void go_idle(struct session *s)
{
    struct attempts *a = s->attempts;
    s->job = NULL;
    s->reused = true;
    if (loop_now_ms(a->loop) - s->opened_ms > AGE_MS_MAX) {
        touch(s, 0); /* nobody finds it any more; it quits from its timer, as we may be inside its machine */
        return;
    }
    link_push_front(&s->lane->idle, &s->lane_link); /* the warmest first */
    link_push(&a->idle, &s->idle_link);
    touch(s, IDLE_MS);
}

/* --- results --- */

static void finish_job(struct session *s)
{
    struct attempts *a = s->attempts;
    struct job *job = s->job;
    s->job = NULL;
    stop_body(s);
    s->in_transaction = false;
    a->cb.on_done(a->cb.owner, job);
}

static void give_rest(struct session *s, const struct outcome *o)
{
    struct attempts *a = s->attempts;
    for (uint32_t i = 0; i < s->job->count; i++)
        if (s->job->recipients[i].status == MARK_PENDING)
            a->cb.on_outcome(a->cb.owner, s->job, i, o, s->relay[0] ? s->relay : "none");
}

/* The connection broke, or must be broken, with `doom` as the reason. */
static void fail(struct session *s)
{
    struct attempts *a = s->attempts;
    struct job *job = s->job;
    bool was_working = s->working;
    s->doomed = false;
    stop_body(s);
    drop_connection(s, false);
    if (!job) {
        free_session(s);
        return;
    }
    if (!was_working) {
        /* a host that may do without TLS and fails at it gets the same address tried once more */
        bool without = s->machine.state == SMTP_OUT_TLS && s->machine.tls == SMTP_OUT_TLS_MAY && !s->plaintext;
        s->plaintext = without;
        s->address_at += !without;
        s->machine.state = SMTP_OUT_DEAD;
        try_next(s);
        return;
    }
    if (job->resolved == 0 && s->untouched && s->doom.blame == OUTCOME_HOST) {
        struct outcome why = s->doom;
        s->job = NULL;
        if (s->reused) /* it closed between two messages: nothing happened to this one */
            a->cb.on_again(a->cb.owner, job, &why);
        else
            a->cb.on_host_failed(a->cb.owner, job, &why);
        free_session(s);
        return;
    }
    give_rest(s, &s->doom);
    finish_job(s);
    free_session(s);
}

static void doom_with(struct session *s, const char *text)
{
    outcome_of_text(text, "4.4.2", &s->doom);
    s->doom.blame = OUTCOME_HOST;
    s->doomed = true;
}

/* --- the machine's callbacks --- */

static void machine_write(void *owner, const void *bytes, size_t len)
{
    struct session *s = owner;
    if (s->conn)
        conn_write(s->conn, bytes, len);
}

static void machine_start_tls(void *owner)
{
    struct session *s = owner;
    const char *name = s->query ? s->query->addresses[s->address_at].host : s->lane->route.host;
    touch(s, REPLY_MS);
    if (conn_start_tls(s->conn, s->attempts->tls, false, name) != ERR_OK)
        doom_with(s, "4.7.5 the TLS handshake could not begin");
}

static void machine_ready(void *owner)
{
    struct session *s = owner;
    struct attempts *a = s->attempts;
    if (!s->working) {
        s->working = true;
        s->lane->working++;
        free(s->query); /* addresses were for connecting */
        s->query = NULL;
    }
    if (!s->in_transaction) {
        begin_job(s);
        return;
    }
    a->cb.on_host_worked(a->cb.owner, s->lane);
    finish_job(s);
    go_idle(s);
}

static void machine_result(void *owner, uint32_t i, unsigned code, const char *text, const char *command)
{
    struct session *s = owner;
    struct attempts *a = s->attempts;
    struct outcome o;
    outcome_of_reply(code, text, command, s->peer, &o);
    a->cb.on_outcome(a->cb.owner, s->job, s->map[i], &o, s->relay);
}

static void machine_failed(void *owner, unsigned code, const char *text, const char *command)
{
    struct session *s = owner;
    s->untouched = command && (strcmp(command, "MAIL FROM") == 0 || strcmp(command, "idle") == 0);
    if (code == 0) {
        char line[REASON_BYTES_MAX];
        snprintf(line, sizeof line, "%.300s: host %.180s", text, s->peer);
        doom_with(s, line);
    } else {
        outcome_of_reply(code, text, command, s->peer, &s->doom);
        s->doom.status = MARK_DEFERRED;
        s->doom.blame = OUTCOME_HOST;
        s->doomed = true;
    }
}

/* --- bodies --- */

static bool stream_bytes(struct port_fetch *f, const uint8_t *bytes, uint32_t len)
{
    struct session *s = f->owner;
    if (!s->conn || s->doomed)
        return false;
    smtp_out_body(&s->machine, bytes, len);
    touch(s, PROGRESS_MS);
    s->stream_paused = conn_queued_bytes(s->conn) > QUEUED_BYTES_MAX;
    return !s->stream_paused;
}

static void stream_done(struct port_fetch *f, enum err e)
{
    struct session *s = f->owner;
    s->streaming = s->stream_paused = false;
    if (s->doomed)
        return;
    if (e) { /* ATT-3 */
        outcome_of_body(s->attempts->port, s->job, e, &s->doom);
        s->doom.blame = OUTCOME_US;
        fail(s);
        return;
    }
    touch(s, DOT_MS);
    smtp_out_body_end(&s->machine);
}

static void machine_body(void *owner)
{
    struct session *s = owner;
    const uint8_t *body = attempt_body(s->job);
    if (body) {
        touch(s, DOT_MS);
        smtp_out_body(&s->machine, body, s->job->item->mail->body_bytes);
        smtp_out_body_end(&s->machine);
        return;
    }
    s->stream = (struct port_fetch){.mail = s->job->item->mail, .on_bytes = stream_bytes, .done = stream_done, .owner = s};
    s->streaming = true;
    touch(s, PROGRESS_MS);
    port_fetch(s->attempts->port, &s->stream);
}

/* --- a transaction --- */

static const struct smtp_out_callbacks machine_callbacks = {
    .write = machine_write, .start_tls = machine_start_tls, .on_ready = machine_ready, .on_body = machine_body,
    .on_result = machine_result, .on_failed = machine_failed,
};

/* Recipients that cannot be said in SMTP have their outcome already; returns how many can. */
static uint32_t choose_recipients(struct session *s, bool utf8)
{
    struct attempts *a = s->attempts;
    s->sent = 0;
    for (uint32_t i = 0; i < s->job->count; i++) {
        const struct job_recipient *r = &s->job->recipients[i];
        struct smtp_out_address address = {.address = r->address, .len = r->len};
        if (smtp_out_can_express(&address, utf8)) {
            s->map[s->sent] = i;
            s->recipients[s->sent++] = address;
            continue;
        }
        struct outcome o;
        outcome_of_text("5.1.3 the address cannot be expressed in SMTP", "5.1.3", &o);
        a->cb.on_outcome(a->cb.owner, s->job, i, &o, s->relay);
    }
    return s->sent;
}

static void send_job(struct session *s)
{
    const struct mail *m = s->job->item->mail;
    bool utf8 = m->envelope.flags & ENVELOPE_SMTPUTF8;
    struct smtp_out_message msg = {
        .sender = {.address = s->job->sender, .len = s->job->sender_len}, .recipients = s->recipients,
        .body_bytes = m->body_bytes, .smtputf8 = utf8, .eight_bit = m->envelope.flags & ENVELOPE_8BITMIME,
    };
    s->job->connected_ms = loop_now_ms(s->attempts->loop);
    const char *refusal = NULL;
    msg.count = choose_recipients(s, utf8);
    if (msg.count > 0)
        refusal = smtp_out_refusal(&s->machine, &msg);
    if (refusal || msg.count == 0) {
        struct outcome o;
        outcome_of_text(refusal ? refusal : "5.1.3", "5.1.3", &o);
        give_rest(s, &o);
        finish_job(s);
        go_idle(s);
        return;
    }
    s->in_transaction = true;
    touch(s, REPLY_MS);
    smtp_out_send(&s->machine, &msg);
}

static void body_ready(struct body_fetch *f, enum err e)
{
    struct session *s = f->owner;
    if (!e) {
        send_job(s);
        return;
    }
    struct outcome o;
    outcome_of_body(s->attempts->port, s->job, e, &o);
    give_rest(s, &o);
    finish_job(s);
    go_idle(s);
}

static void begin_job(struct session *s)
{
    const struct mail *m = s->job->item->mail;
    if (attempt_body(s->job) || m->chunk_count > 0 || m->body_bytes > ATTEMPT_BODY_AT_ONCE_MAX) {
        send_job(s);
        return;
    }
    touch(s, PROGRESS_MS);
    enum err e = body_fetch_start(&s->body, s->attempts->port, s->job, body_ready, s);
    if (e)
        body_ready(&s->body, e);
}

/* --- the connection's callbacks --- */

static void conn_connected(void *owner)
{
    struct session *s = owner;
    const struct settings *settings = s->attempts->settings;
    enum smtp_out_tls tls = SMTP_OUT_TLS_REQUIRED;
    if (!s->attempts->tls || s->lane->route.local_socket)
        tls = SMTP_OUT_TLS_NONE;
    else if (strcmp(settings->smtp_tls_security_level, "may") == 0)
        tls = s->plaintext ? SMTP_OUT_TLS_NONE : SMTP_OUT_TLS_MAY;
    s->started = true;
    smtp_out_init(&s->machine, &machine_callbacks, s, settings->hostname, tls, s->lane->route.kind == ROUTE_LMTP);
    touch(s, REPLY_MS);
}

static size_t conn_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct session *s = owner;
    if (!s->started)
        return len;
    if (s->machine.state != SMTP_OUT_READY)
        touch(s, s->machine.state == SMTP_OUT_DOT ? DOT_MS : REPLY_MS);
    size_t taken = smtp_out_feed(&s->machine, bytes, len);
    if (s->doomed)
        fail(s);
    return taken;
}

static void conn_drained(void *owner)
{
    struct session *s = owner;
    if (s->streaming)
        touch(s, PROGRESS_MS);
    if (s->stream_paused) {
        s->stream_paused = false;
        port_fetch_resume(s->attempts->port, &s->stream);
    }
}

static void conn_tls(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    if (!e) {
        touch(s, REPLY_MS);
        smtp_out_tls_done(&s->machine);
        return;
    }
    char line[REASON_BYTES_MAX];
    snprintf(line, sizeof line, "4.7.5 TLS handshake with %.200s failed: %.200s", s->peer, text ? text : err_text(e));
    doom_with(s, line);
    fail(s);
}

static void conn_closed(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    char line[REASON_BYTES_MAX];
    if (!s->started)
        snprintf(line, sizeof line, "4.4.1 connect to %.330s: %.100s", s->relay, text ? text : err_text(e));
    else
        snprintf(line, sizeof line, "4.4.2 lost connection with %.200s while waiting for the answer to %.30s%s%.60s", s->peer,
                 smtp_out_command(&s->machine), e && text ? ": " : "", e && text ? text : "");
    s->untouched = s->started && (s->machine.state == SMTP_OUT_MAIL || s->machine.state == SMTP_OUT_READY);
    doom_with(s, line);
    fail(s);
}

static const struct conn_callbacks conn_callbacks = {
    .on_connected = conn_connected, .on_bytes = conn_bytes, .on_drained = conn_drained, .on_tls = conn_tls,
    .on_closed = conn_closed,
};

/* --- connecting --- */

static enum err connect_local(struct session *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", s->lane->route.host);
    snprintf(s->peer, sizeof s->peer, "%.250s", s->lane->route.host);
    snprintf(s->relay, sizeof s->relay, "%.250s", s->lane->route.host);
    return conn_connect(s->attempts->loop, (const struct sockaddr *)&un, sizeof un, &conn_callbacks, s, &s->conn);
}

static enum err connect_inet(struct session *s, const struct dns_address *a)
{
    snprintf(s->peer, sizeof s->peer, "%s[%s]", a->host, a->text);
    snprintf(s->relay, sizeof s->relay, "%s[%s]:%u", a->host, a->text, s->lane->route.port);
    return conn_connect(s->attempts->loop, (const struct sockaddr *)&a->to, a->to_len, &conn_callbacks, s, &s->conn);
}

/* Connects to the next address that can be tried at all, or gives up. */
static void try_next(struct session *s)
{
    struct attempts *a = s->attempts;
    uint32_t count = s->query ? s->query->count : 1;
    for (; s->address_at < count; s->address_at++) {
        enum err e = s->query ? connect_inet(s, &s->query->addresses[s->address_at]) : connect_local(s);
        if (!e) {
            touch(s, (uint64_t)a->settings->smtp_connect_timeout_s * 1000);
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
    free_session(s);
}

static void resolved(struct dns_query *q, enum err e)
{
    struct session *s = q->owner;
    struct attempts *a = s->attempts;
    if (!e) {
        try_next(s);
        return;
    }
    struct job *job = s->job;
    struct outcome why = q->why;
    s->job = NULL;
    if (why.status == MARK_DEFERRED)
        a->cb.on_host_failed(a->cb.owner, job, &why);
    else
        attempt_all(a, job, &why, "none");
    free_session(s);
}

static void run_connect(struct loop_task *t)
{
    try_next(t->owner);
}

static void timer_fired(struct loop_timer *t)
{
    struct session *s = t->owner;
    uint64_t now = loop_now_ms(s->attempts->loop);
    s->armed_ms = 0;
    if (now < s->deadline_ms) {
        touch(s, s->deadline_ms - now);
        return;
    }
    if (!s->job) {
        quit(s);
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
    doom_with(s, line);
    fail(s);
}

static struct session *open_session(struct attempts *a, struct job *job)
{
    struct session *s = calloc(1, sizeof *s);
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

static void resolve(struct session *s)
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
        struct session *s = CONTAINER_OF(lane->idle.next, struct session, lane_link);
        leave_idle(s);
        s->job = job;
        begin_job(s);
        return;
    }
    /* descriptors are counted for deliveries_max connections: idle ones make room */
    if (a->session_count >= a->settings->deliveries_max && !link_empty(&a->idle))
        quit(CONTAINER_OF(a->idle.next, struct session, idle_link));
    struct session *s = open_session(a, job);
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
        quit(CONTAINER_OF(a->idle.next, struct session, idle_link));
}

void attempt_smtp_close(struct attempts *a)
{
    a->cb.on_session_gone = NULL;
    LINK_EACH_SAFE(l, next, &a->sessions) {
        struct session *s = CONTAINER_OF(l, struct session, link);
        s->job = NULL;
        free_session(s);
    }
}
