/* SPDX-License-Identifier: Apache-2.0 */
/* One try to deliver one job, whatever the transport. Between the schedule, which decides, and the machines, which do.
 *
 *  ATT-1  a started job ends in exactly one of on_done (every recipient has an outcome), on_again (nothing happened to
 *         it) or on_host_failed (ditto, and the destination is to blame).
 *  ATT-2  on_outcome and on_done may come from inside attempt_start (discard, no memory); the others never do.
 *  ATT-3  a message whose body did not verify to its last piece never gets its final dot: the connection is dropped. */
#ifndef RELAY_ATTEMPT_H
#define RELAY_ATTEMPT_H

#include "lane.h"
#include "loop.h"
#include "port.h"
#include "settings.h"

struct attempts;

struct attempt_callbacks {
    void *owner;
    void (*on_outcome)(void *owner, struct job *job, uint32_t recipient, const struct outcome *o, const char *relay);
    void (*on_done)(void *owner, struct job *job);
    void (*on_again)(void *owner, struct job *job, const struct outcome *why);
    void (*on_host_failed)(void *owner, struct job *job, const struct outcome *why);
    void (*on_host_worked)(void *owner, struct lane *lane);   /* it took a transaction, whatever it said of recipients */
    void (*on_session_gone)(void *owner, struct lane *lane);  /* the lane may be free now */
};

enum err attempts_open(struct loop *loop, struct port *port, const struct settings *settings,
                       const struct attempt_callbacks *cb, struct attempts **attempts_out) MUST_CHECK;
void attempts_close(struct attempts **attempts); /* drops all; no callback follows */

/* The job is in no list, its lane's `busy` counts it. */
void attempt_start(struct attempts *attempts, struct job *job);
void attempts_quit_idle(struct attempts *attempts);
uint32_t attempts_connections(const struct attempts *attempts);

/* --- between attempt.c and its transports --- */
struct maildir_out;
struct dns;
struct tls_context;

struct attempts {
    struct loop *loop;
    struct port *port;
    const struct settings *settings;
    struct attempt_callbacks cb;
    struct maildir_out *maildir;
    struct link running;        /* attempt_maildir.c */
    struct dns *dns;
    struct tls_context *tls;
    struct link sessions, idle; /* attempt_smtp.c: all; those without a job, oldest first */
    uint32_t session_count;
};
#define ATTEMPT_BODY_AT_ONCE_MAX BODY_INLINE_MAX /* smaller bodies are fetched whole, before the transaction begins */

/* One outcome for every recipient that has none yet, then on_done. */
void attempt_all(struct attempts *a, struct job *job, const struct outcome *o, const char *relay);
/* The body in memory, or NULL: it has to be fetched. */
const uint8_t *attempt_body(const struct job *job);

/* Fetches a small body whole into the item. */
struct body_fetch {
    struct port_fetch fetch;
    struct port *port;
    struct job *job;
    uint8_t *bytes;
    uint64_t used, total;
    bool running, too_long;
    void (*done)(struct body_fetch *f, enum err e);
    void *owner;
};
enum err body_fetch_start(struct body_fetch *f, struct port *port, struct job *job,
                          void (*done)(struct body_fetch *, enum err), void *owner) MUST_CHECK; /* ERR_NO_MEMORY */
void body_fetch_cancel(struct body_fetch *f);

/* The body could not be read. Still lost after LOST_DEFERRALS deferrals and LOST_AGE_MS - a disk or its cable may have thought
 * better of it meanwhile - it is lost for good: the sender is told before the message's lifetime ends. */
#define LOST_DEFERRALS 3u
#define LOST_AGE_MS UINT64_C(3600000)
void outcome_of_body(struct port *port, const struct job *job, enum err e, struct outcome *o);

void attempt_maildir_start(struct attempts *a, struct job *job);
void attempt_maildir_close(struct attempts *a);
void attempt_smtp_start(struct attempts *a, struct job *job);
void attempt_smtp_close(struct attempts *a);

#endif
