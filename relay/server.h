/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server: listeners, sessions, their limits and timeouts. Glue between conn (bytes), smtp_in (the machine),
 * policy (who may relay) and intake (what becomes of a transaction).
 *
 *  SES-1  every refusal for lack of something (sessions, descriptors, memory) is an answer or a pause, never a crash and
 *         never at the cost of the sessions that are there.
 *  SES-2  a session keeps the settings it began with; a reload is for the next ones.
 *  SES-3  after server_stop no transaction begins; those under way may finish within the grace. */
#ifndef RELAY_SERVER_H
#define RELAY_SERVER_H

#include "loop.h"
#include "mail.h"
#include "port.h"
#include "settings.h"
#include "tls.h"

struct server;

#define SERVER_LISTENERS_MAX 16u

struct server_deps {
    struct loop *loop;
    struct port *port;
    struct settings *settings;                      /* one reference (refs) is taken for the server and one a session */
    void (*settings_free)(struct settings *settings); /* called when the last reference is dropped here; NULL: nobody cares */
    struct tls_context *tls;                        /* a reference is taken; NULL: no STARTTLS */
    void *owner;
    /* A message that was answered, or is about to be answered, with 250: leased to us, locator set, `fresh`. The
     * reference is the callee's. */
    void (*on_accepted)(void *owner, struct mail *mail);
};

enum err server_open(const struct server_deps *deps, struct server **server_out) MUST_CHECK;
/* A bound and listening non-blocking TCP socket; the server owns it from now on. ERR_BUSY: SERVER_LISTENERS_MAX. */
enum err server_listen(struct server *server, int fd) MUST_CHECK;
void server_room(struct server *server); /* to be called from port's on_room */
void server_reload(struct server *server, struct settings *settings, struct tls_context *tls);
/* Stops listening; sessions get 421 4.3.2 at their next command or when they are idle. `stopped` once the last session
 * has ended, at the latest after grace_ms (then what is left is cut off), never from inside server_stop. */
void server_stop(struct server *server, uint64_t grace_ms, void (*stopped)(void *owner), void *owner);
void server_close(struct server **server); /* at once; before port_close */

enum server_refusal {
    SERVER_REFUSED_RELAY,       /* 554 5.7.1 */
    SERVER_REFUSED_TRANSIENT,   /* 451: spool gone, degraded below policy, index lag, memory */
    SERVER_REFUSED_FULL,        /* 452 4.3.1 */
    SERVER_REFUSED_TOO_LARGE,   /* 552 5.3.4 */
    SERVER_REFUSED_SYNTAX,      /* bare CR or LF, early talkers, error limit, malformed addresses */
    SERVER_REFUSED_LIMIT,       /* sessions, recipients, hops */
    SERVER_REFUSED_COUNT
};
extern const char *const server_refusal_words[SERVER_REFUSED_COUNT]; /* "relay", "transient", ... for metric labels */

struct server_counters {
    uint64_t accepted, accepted_bytes;         /* messages answered with 250 */
    uint64_t refused[SERVER_REFUSED_COUNT];    /* replies of 4xx and 5xx to MAIL, RCPT, DATA, BDAT, connect */
    uint64_t sessions_total, sessions_tls;
    uint32_t sessions;                         /* now */
    uint64_t timeouts, accept_pauses;
};
void server_counters(const struct server *server, struct server_counters *counters_out);

#endif
