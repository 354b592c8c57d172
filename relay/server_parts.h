/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the SMTP server share: server.c, session.c, session_events.c. Nobody else includes this. */
#ifndef RELAY_SERVER_PARTS_H
#define RELAY_SERVER_PARTS_H

#include "address.h"
#include "conn.h"
#include "intake.h"
#include "server.h"
#include "smtp_in.h"

#include <netinet/in.h>

#define CLIENT_BUCKETS 1024u

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

/* --- server.c --- */

struct settings *server_settings_ref(struct settings *s);
void server_settings_unref(struct server *server, struct settings *s);
void server_count_refused(struct server *server, enum err why);

/* --- session.c --- */

void session_begin(struct server *server, int fd, const struct sockaddr_storage *from); /* the descriptor is its */
void session_retire(struct session *s); /* it ends with this turn */
void session_free(struct session *s);
void session_log_disconnect(const struct session *s);
bool session_too_slow(const struct session *s, uint64_t now);

/* --- session_events.c --- */

extern const struct smtp_in_callbacks session_smtp_callbacks;
extern const struct conn_callbacks session_conn_callbacks;

#endif
