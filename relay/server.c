/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server's sockets, sessions and counters. Every decision about the protocol is smtp_in's, every one about the
 * message intake's; here they meet. Invariants in server.h.
 *
 * A session ends in two steps: whoever finds it over calls retire(), the end of the turn frees it, so that no function
 * of the machine or of intake returns into memory that is gone. */
#include "server.h"

#include "address.h"
#include "conn.h"
#include "intake.h"
#include "log.h"
#include "policy.h"
#include "smtp_in.h"

#include <arpa/inet.h>
#include <base/assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 64
#define ACCEPT_PAUSE_MS 1000u
#define SWEEP_MS 5000u
#define DATA_RATE_GRACE_MS 30000u           /* slow starts and short stalls are not slow clients */
#define OUTPUT_BYTES_MAX (64u * 1024)       /* replies nobody reads; then no more commands */
#define COMMANDS_SLICE 8192u                /* fed at once, so that the line above is checked often enough */
#define CLIENT_BUCKETS 1024u

const char *const server_refusal_words[SERVER_REFUSED_COUNT] = {
    "relay", "transient", "full", "too-large", "syntax", "limit",
};

struct listener {
    struct server *server;
    struct loop_watch watch;
};

struct server {
    struct server_deps deps;
    struct intake *intake;
    struct settings *settings;
    struct tls_context *tls;
    struct listener listeners[SERVER_LISTENERS_MAX];
    uint32_t listener_count;
    bool accepting, stopping;
    struct loop_timer accept_again, sweep, grace;
    struct loop_task stopped_task;
    void (*stopped)(void *owner);
    void *stopped_owner;
    struct link sessions;
    struct link clients[CLIENT_BUCKETS]; /* sessions of clients outside mynetworks, by address */
    struct server_counters counters;
};

struct session {
    struct link link, client_link;
    struct server *server;
    struct settings *settings;
    struct tls_context *tls;
    struct conn *conn;
    struct intake_transaction *transaction;
    struct smtp_in smtp;
    struct smtp_in_config config;
    struct loop_task end_task;
    uint64_t progress_ms;      /* the last time something was consumed */
    uint64_t content_ms;       /* content began, moved on by the time it waited for us */
    uint64_t stalled_ms;
    uint8_t client[16];        /* what connections are counted by: IPv4, or the /64 of IPv6 */
    char address[INET6_ADDRSTRLEN];
    char sender[ADDRESS_BYTES_MAX + 1];
    char *tls_text;
    bool trusted, retired, tls_wanted, content;
};

/* --- settings and counters --- */

static struct settings *settings_ref(struct settings *s)
{
    s->refs++;
    return s;
}

static void settings_unref(struct server *server, struct settings *s)
{
    if (--s->refs == 0 && server->deps.settings_free)
        server->deps.settings_free(s);
}

static void count_refused(struct server *server, enum err why)
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

/* --- the end of a session --- */

static void session_free(struct session *s)
{
    struct server *server = s->server;
    loop_defer_cancel(&s->end_task);
    link_remove(&s->link);
    if (link_linked(&s->client_link))
        link_remove(&s->client_link);
    intake_abandon(&s->transaction);
    settings_unref(server, s->settings);
    tls_context_unref(&s->tls);
    free(s->tls_text);
    free(s);
    server->counters.sessions--;
    if (server->stopping && link_empty(&server->sessions))
        loop_defer(server->deps.loop, &server->stopped_task);
}

static void log_disconnect(const struct session *s)
{
    static const enum smtp_verb shown[] = {SMTP_EHLO, SMTP_HELO, SMTP_STARTTLS, SMTP_MAIL, SMTP_RCPT, SMTP_DATA,
                                           SMTP_BDAT, SMTP_RSET, SMTP_NOOP,     SMTP_VRFY, SMTP_QUIT, SMTP_UNKNOWN};
    static const char *const words[] = {"ehlo", "helo", "starttls", "mail", "rcpt", "data",
                                        "bdat", "rset", "noop",     "vrfy", "quit", "unknown"};
    char text[512];
    size_t used = 0;
    uint32_t good = 0, seen = 0;
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        uint32_t g = s->smtp.good[shown[i]], n = s->smtp.seen[shown[i]];
        if (n == 0)
            continue;
        good += g;
        seen += n;
        int len = g == n ? snprintf(text + used, sizeof text - used, " %s=%u", words[i], n)
                         : snprintf(text + used, sizeof text - used, " %s=%u/%u", words[i], g, n);
        used += len > 0 && (size_t)len < sizeof text - used ? (size_t)len : 0;
    }
    if (good == seen)
        snprintf(text + used, sizeof text - used, " commands=%u", seen);
    else
        snprintf(text + used, sizeof text - used, " commands=%u/%u", good, seen);
    log_line("smtpd", "disconnect from unknown[%s]%s", s->address, text);
}

static void session_ends(struct loop_task *t)
{
    struct session *s = t->owner;
    log_disconnect(s);
    conn_close(&s->conn, true);
    session_free(s);
}

static void retire(struct session *s)
{
    if (s->retired)
        return;
    s->retired = true;
    loop_defer(s->server->deps.loop, &s->end_task);
}

/* --- smtp_in's actions --- */

static void on_reply(void *owner, const char *bytes, size_t len)
{
    struct session *s = owner;
    conn_write(s->conn, bytes, len);
}

/* An address without a domain is one of this host's. */
static uint32_t complete(const struct session *s, const char *address, uint32_t len, char out[ADDRESS_BYTES_MAX + 1])
{
    const char *domain;
    uint32_t domain_len;
    int n = 0;
    if (len > 0 && !address_domain(address, len, &domain, &domain_len))
        n = snprintf(out, ADDRESS_BYTES_MAX + 1, "%.*s@%s", (int)len, address, s->settings->hostname);
    if (n > 0 && n <= (int)ADDRESS_BYTES_MAX)
        return (uint32_t)n;
    memcpy(out, address, len);
    out[len] = '\0';
    return len;
}

static struct intake_client client_of(const struct session *s)
{
    return (struct intake_client){
        .name = "unknown",
        .address = s->address,
        .helo = s->smtp.helo,
        .tls = s->tls_text,
        .esmtp = s->smtp.esmtp,
        .smtputf8 = s->smtp.smtputf8,
    };
}

static void on_go_on(void *owner);
static void on_done(void *owner, enum err e, const char *queue_id);
static const struct intake_callbacks intake_callbacks = {.go_on = on_go_on, .done = on_done};

static enum err on_mail(void *owner, const struct smtp_in_mail *mail)
{
    struct session *s = owner;
    struct intake_client client = client_of(s);
    uint32_t flags = (mail->smtputf8 ? ENVELOPE_SMTPUTF8 : 0u) | (mail->eightbit ? ENVELOPE_8BITMIME : 0u);
    uint32_t len = complete(s, mail->sender, mail->sender_len, s->sender);
    if (s->server->stopping)
        return ERR_STOPPING; /* SRV-3 */
    return intake_begin(s->server->intake, s->settings, &intake_callbacks, s, &client, s->sender, len, mail->size, flags,
                        &s->transaction);
}

static enum err on_recipient(void *owner, const char *address, uint32_t len)
{
    struct session *s = owner;
    char whole[ADDRESS_BYTES_MAX + 1];
    enum err e = policy_recipient(s->settings, s->trusted, address, len);
    if (e)
        return e;
    len = complete(s, address, len, whole);
    return intake_recipient(s->transaction, whole, len);
}

static void content_begins(struct session *s)
{
    s->content = true;
    s->content_ms = loop_now_ms(s->server->deps.loop);
}

static enum err on_body_begin(void *owner)
{
    struct session *s = owner;
    struct intake_client client = client_of(s);
    client.smtputf8 = s->smtp.smtputf8;
    enum err e = intake_body_begin(s->transaction, s->settings, &client);
    if (!e)
        content_begins(s);
    return e;
}

static size_t on_body(void *owner, const uint8_t *bytes, size_t len)
{
    struct session *s = owner;
    size_t taken = intake_body(s->transaction, bytes, len);
    if (taken < len)
        s->stalled_ms = loop_now_ms(s->server->deps.loop);
    return taken;
}

static void on_body_end(void *owner, const char *message_id)
{
    struct session *s = owner;
    s->content = false;
    intake_body_end(s->transaction, message_id); /* on_done may have run when this returns */
}

static void on_abandon(void *owner)
{
    struct session *s = owner;
    s->content = false;
    intake_abandon(&s->transaction);
}

static void on_start_tls(void *owner)
{
    struct session *s = owner;
    s->tls_wanted = true; /* in on_drained, when the reply has left */
}

static void on_refused(void *owner, enum smtp_verb verb, enum err why, const char *reply, const char *address,
                       uint32_t len)
{
    struct session *s = owner;
    count_refused(s->server, why);
    if (why == ERR_STOPPING || why == ERR_TIMEOUT)
        return;
    log_line("smtpd", "NOQUEUE: reject: %s from unknown[%s]: %s; from=<%s> to=<%.*s> proto=%s helo=<%s>",
             smtp_verb_words[verb], s->address, reply, s->smtp.in_mail ? s->sender : "", (int)len, address ? address : "",
             s->smtp.esmtp ? "ESMTP" : "SMTP", s->smtp.helo);
}

static void on_close(void *owner)
{
    retire(owner);
}

static const struct smtp_in_callbacks smtp_callbacks = {
    .reply = on_reply,
    .mail = on_mail,
    .recipient = on_recipient,
    .body_begin = on_body_begin,
    .body = on_body,
    .body_end = on_body_end,
    .abandon = on_abandon,
    .start_tls = on_start_tls,
    .refused = on_refused,
    .close = on_close,
};

/* --- intake's answers --- */

static void read_on(struct session *s)
{
    s->progress_ms = loop_now_ms(s->server->deps.loop);
    if (!s->retired && !smtp_in_waits(&s->smtp) && conn_queued_bytes(s->conn) <= OUTPUT_BYTES_MAX)
        conn_pause(s->conn, false);
}

static void on_go_on(void *owner)
{
    struct session *s = owner;
    if (s->smtp.state == SMTP_IN_BEGINNING) {
        enum err e = on_body_begin(s);
        if (e == ERR_BUSY)
            return;
        smtp_in_go_on(&s->smtp, e);
    } else {
        s->content_ms += loop_now_ms(s->server->deps.loop) - s->stalled_ms; /* our slowness, not the client's */
        smtp_in_go_on(&s->smtp, ERR_OK);
    }
    read_on(s);
}

static void on_done(void *owner, enum err e, const char *queue_id)
{
    struct session *s = owner;
    s->transaction = NULL;
    if (!e) {
        s->server->counters.accepted++;
        s->server->counters.accepted_bytes += s->smtp.body.bytes;
    }
    smtp_in_finish(&s->smtp, e, queue_id);
    read_on(s);
}

/* --- conn's events --- */

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct session *s = owner;
    size_t used = 0;
    while (used < len && !s->retired) {
        size_t slice = len - used;
        if (s->smtp.state != SMTP_IN_CONTENT && slice > COMMANDS_SLICE)
            slice = COMMANDS_SLICE;
        size_t n = smtp_in_feed(&s->smtp, bytes + used, slice);
        used += n;
        if (n == 0 || conn_queued_bytes(s->conn) > OUTPUT_BYTES_MAX)
            break;
    }
    if (used > 0)
        s->progress_ms = loop_now_ms(s->server->deps.loop);
    if (smtp_in_waits(&s->smtp) || conn_queued_bytes(s->conn) > OUTPUT_BYTES_MAX)
        conn_pause(s->conn, true);
    return s->retired ? len : used;
}

static void on_drained(void *owner)
{
    struct session *s = owner;
    if (!s->tls_wanted) {
        read_on(s);
        return;
    }
    s->tls_wanted = false;
    enum err e = conn_start_tls(s->conn, s->tls, true, NULL);
    if (!e)
        return;
    log_line("smtpd", "SSL_accept error from unknown[%s]: %s", s->address,
             e == ERR_INVALID ? "plaintext behind STARTTLS" : err_text(e));
    count_refused(s->server, e);
    retire(s);
}

static void on_tls(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    if (e) {
        log_line("smtpd", "SSL_accept error from unknown[%s]: %s", s->address, text);
        retire(s);
        return;
    }
    log_line("smtpd", "Anonymous TLS connection established from unknown[%s]: %s", s->address, text);
    s->server->counters.sessions_tls++;
    s->tls_text = strdup(text); /* without memory the Received header lacks it */
    smtp_in_tls_started(&s->smtp);
    read_on(s);
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct session *s = owner;
    const char *where = s->smtp.seen[s->smtp.verb] ? smtp_verb_words[s->smtp.verb] : "CONNECT";
    if (e == ERR_TIMEOUT) {
        s->server->counters.timeouts++;
        log_line("smtpd", "timeout after %s from unknown[%s]", where, s->address);
        if (s->smtp.state != SMTP_IN_HANDSHAKE)
            smtp_in_timeout(&s->smtp);
    } else if (s->smtp.state != SMTP_IN_CLOSED) {
        log_line("smtpd", "lost connection after %s from unknown[%s]%s%s", where, s->address, e ? ": " : "", e ? text : "");
    }
    retire(s);
}

static const struct conn_callbacks conn_callbacks = {
    .on_bytes = on_bytes,
    .on_drained = on_drained,
    .on_tls = on_tls,
    .on_closed = on_closed,
};

/* --- the beginning of a session --- */

static void print_address(const struct sockaddr_storage *from, struct session *s)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        inet_ntop(AF_INET, &in->sin_addr, s->address, sizeof s->address);
        memcpy(s->client, &in->sin_addr, 4);
        return;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)from;
    const uint8_t *bytes = in6->sin6_addr.s6_addr;
    if (from->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        inet_ntop(AF_INET, bytes + 12, s->address, sizeof s->address);
        memcpy(s->client, bytes + 12, 4);
    } else if (from->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, bytes, s->address, sizeof s->address);
        memcpy(s->client, bytes, 8); /* whoever has one address of a /64 has them all */
    } else {
        snprintf(s->address, sizeof s->address, "unknown");
    }
}

static bool one_too_many(struct session *s)
{
    uint32_t hash = 2166136261u, same = 0;
    for (size_t i = 0; i < sizeof s->client; i++)
        hash = (hash ^ s->client[i]) * 16777619u;
    struct link *bucket = &s->server->clients[hash % CLIENT_BUCKETS];
    LINK_EACH (l, bucket) {
        struct session *other = CONTAINER_OF(l, struct session, client_link);
        same += memcmp(other->client, s->client, sizeof s->client) == 0;
    }
    uint32_t limit = s->settings->smtpd_client_connection_count_limit;
    if (limit > 0 && same >= limit) /* 0: as many as there are */
        return true;
    link_push(bucket, &s->client_link);
    return false;
}

static uint32_t at_least_one(uint32_t n)
{
    return n ? n : 1;
}

static void configure(struct session *s)
{
    const struct settings *set = s->settings;
    const char *level = set->smtpd_tls_security_level;
    uint32_t recipients = set->smtpd_recipient_limit;
    s->config = (struct smtp_in_config){
        .hostname = set->hostname,
        .mail_name = set->mail_name,
        .message_size_limit = set->message_size_limit,
        .recipient_limit = recipients < RECIPIENTS_PER_MESSAGE_MAX ? recipients : RECIPIENTS_PER_MESSAGE_MAX,
        .hopcount_limit = set->hopcount_limit,
        .header_size_limit = set->header_size_limit,
        .line_length_limit = set->line_length_limit,
        .hard_error_limit = at_least_one(set->smtpd_hard_error_limit),
        .tls_offered = s->tls && strcmp(level, "none") != 0,
        .tls_required = strcmp(level, "encrypt") == 0,
    };
}

/* Too early for a session: a last word, if the socket takes it. */
static void turn_away(struct server *server, int fd, const char *address, const char *why)
{
    char line[512];
    int n = snprintf(line, sizeof line, "421 4.7.0 %s Error: %s\r\n", server->settings->hostname, why);
    ssize_t ignored = send(fd, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored;
    close(fd);
    server->counters.refused[SERVER_REFUSED_LIMIT]++;
    log_line("smtpd", "NOQUEUE: reject: CONNECT from unknown[%s]: 421 4.7.0 Error: %s", address, why);
}

static void session_begin(struct server *server, int fd, const struct sockaddr_storage *from)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s) {
        turn_away(server, fd, "unknown", "out of memory");
        return;
    }
    s->server = server;
    s->settings = server->settings;
    print_address(from, s);
    s->trusted = policy_client_trusted(s->settings, (const struct sockaddr *)from);
    const char *refusal = NULL;
    if (server->counters.sessions >= s->settings->sessions_max)
        refusal = "too many sessions";
    else if (!s->trusted && one_too_many(s))
        refusal = "too many connections from your address";
    else if (conn_accept(server->deps.loop, fd, &conn_callbacks, s, &s->conn))
        refusal = "out of memory";
    if (refusal) {
        turn_away(server, fd, s->address, refusal);
        if (link_linked(&s->client_link))
            link_remove(&s->client_link);
        free(s);
        return;
    }
    settings_ref(s->settings);
    s->tls = server->tls ? tls_context_ref(server->tls) : NULL;
    s->end_task = (struct loop_task){.run = session_ends, .owner = s};
    s->progress_ms = loop_now_ms(server->deps.loop);
    link_push(&server->sessions, &s->link);
    server->counters.sessions++;
    server->counters.sessions_total++;
    configure(s);
    conn_set_timeout_ms(s->conn, s->settings->smtpd_timeout_s * 1000ull, s->settings->smtpd_timeout_s * 1000ull);
    smtp_in_open(&s->smtp, &s->config, &smtp_callbacks, s);
    log_line("smtpd", "connect from unknown[%s]", s->address);
    char early;
    if (recv(fd, &early, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) /* else the machine turns the early talker away */
        smtp_in_greet(&s->smtp);
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

static void pause_accepting(struct server *server, int error) /* SRV-1 */
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

static bool too_slow(const struct session *s, uint64_t now)
{
    const struct settings *set = s->settings;
    if (smtp_in_waits(&s->smtp) || s->smtp.state == SMTP_IN_NEW)
        return false;
    if (now > s->progress_ms + set->smtpd_timeout_s * 1000ull)
        return true; /* bytes may come, but no command and no content */
    if (!s->content || s->smtp.state != SMTP_IN_CONTENT || set->smtpd_min_data_rate == 0)
        return false;
    uint64_t allowed_ms = DATA_RATE_GRACE_MS + s->smtp.body.bytes * 1000 / set->smtpd_min_data_rate;
    return now > s->content_ms + allowed_ms;
}

static void sweep(struct loop_timer *t)
{
    struct server *server = t->owner;
    uint64_t now = loop_now_ms(server->deps.loop);
    LINK_EACH_SAFE (l, next, &server->sessions) {
        struct session *s = CONTAINER_OF(l, struct session, link);
        if (s->retired || !too_slow(s, now))
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
        log_disconnect(s);
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
    server->settings = settings_ref(deps->settings);
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
    server->settings = settings_ref(settings);
    server->tls = tls ? tls_context_ref(tls) : NULL;
    settings_unref(server, old);
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
    settings_unref(old, old->settings);
    tls_context_unref(&old->tls);
    free(old);
}
