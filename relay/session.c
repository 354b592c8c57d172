/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning and the end of a session of the SMTP server: who is let in, with which limits, and how it is freed. A
 * session ends in two steps: whoever finds it over calls session_retire(), the end of the turn frees it, so that no
 * function of the machine or of intake returns into memory that is gone. In between: session_events.c. */
#include "server_parts.h"

#include "log.h"
#include "policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA_RATE_GRACE_MS 30000u /* slow starts and short stalls are not slow clients */

/* --- the end --- */

void session_free(struct session *s)
{
    struct server *server = s->server;
    loop_defer_cancel(&s->end_task);
    link_remove(&s->link);
    if (link_linked(&s->client_link))
        link_remove(&s->client_link);
    intake_abandon(&s->transaction);
    server_settings_unref(server, s->settings);
    tls_context_unref(&s->tls);
    free(s->tls_text);
    free(s);
    server->counters.sessions--;
    if (server->stopping && link_empty(&server->sessions))
        loop_defer(server->deps.loop, &server->stopped_task);
}

void session_log_disconnect(const struct session *s)
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
    session_log_disconnect(s);
    conn_close(&s->conn, true);
    session_free(s);
}

void session_retire(struct session *s)
{
    if (s->retired)
        return;
    s->retired = true;
    loop_defer(s->server->deps.loop, &s->end_task);
}

/* --- the beginning --- */

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

void session_begin(struct server *server, int fd, const struct sockaddr_storage *from)
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
    else if (conn_accept(server->deps.loop, fd, &session_conn_callbacks, s, &s->conn))
        refusal = "out of memory";
    if (refusal) {
        turn_away(server, fd, s->address, refusal);
        if (link_linked(&s->client_link))
            link_remove(&s->client_link);
        free(s);
        return;
    }
    server_settings_ref(s->settings);
    s->tls = server->tls ? tls_context_ref(server->tls) : NULL;
    s->end_task = (struct loop_task){.run = session_ends, .owner = s};
    s->progress_ms = loop_now_ms(server->deps.loop);
    link_push(&server->sessions, &s->link);
    server->counters.sessions++;
    server->counters.sessions_total++;
    configure(s);
    conn_set_timeout_ms(s->conn, s->settings->smtpd_timeout_s * 1000ull, s->settings->smtpd_timeout_s * 1000ull);
    smtp_in_open(&s->smtp, &s->config, &session_smtp_callbacks, s);
    log_line("smtpd", "connect from unknown[%s]", s->address);
    char early;
    if (recv(fd, &early, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) /* else the machine turns the early talker away */
        smtp_in_greet(&s->smtp);
}

bool session_too_slow(const struct session *s, uint64_t now)
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
