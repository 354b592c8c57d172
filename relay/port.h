/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's end of the wire to the spool: credits, leases, retries over restarts of the spool.
 *
 *  PRT-1  an append keeps its queue id for ever: after a lost connection it is presented again under the same id,
 *         so that it is idempotent. What is unanswered 30 s after the connection was lost fails with ERR_SPOOL_GONE.
 *  PRT-2  marks are kept until acknowledged and presented again on reconnect, before anything due is asked for;
 *         at WIRE_MARKS_MAX port_mark says ERR_BUSY and delivery pauses.
 *  PRT-3  one write per loop turn on the socketpair.
 *  PRT-4  whatever is held (acknowledged appends, due items) is presented on reconnect; the lease goes on.
 *  PRT-5  a tray is taken only while the connection is up: by then the spool has read, or dropped, all that an earlier
 *         connection said of trays. */
#ifndef RELAY_PORT_H
#define RELAY_PORT_H

#include "loop.h"
#include "mail.h"

#include <spoolfs/limits.h>

struct port;

struct port_status {
    enum err accepting;        /* ERR_OK, or the class of refusal new mail gets now */
    uint64_t free_bytes;       /* what new mail may still take */
    bool connected, index_ready;
    uint64_t pool_clock_ms;    /* see port_clock_ms */
};

struct port_callbacks {
    void *owner;
    /* A due message, leased to us: the mail's reference is the callee's. Never more than asked for. */
    void (*on_due)(void *owner, struct mail *mail);
    void (*on_status)(void *owner, const struct port_status *s);  /* changed */
    void (*on_room)(void *owner);                                 /* somebody was told ERR_BUSY: try again */
    /* From the administrator, through the spool: the message was deleted, held or changed while we hold it: give the
     * lease back at the next safe moment (finish an attempt in flight, start no new one). */
    void (*on_recall)(void *owner, struct queue_id qid);
    void (*on_flush)(void *owner);                                /* forget back-offs: "queue retry --all" */
};

enum err port_open(struct loop *loop, const struct port_callbacks *cb, struct port **port_out) MUST_CHECK;
void port_close(struct port **port);
/* Nothing is unanswered: no append, no mark. To stop without duplicates wait for it before port_close. */
bool port_idle(const struct port *port);
/* A new connection to the (re)started spool; the old one, if any, is dropped. */
void port_attach(struct port *port, int fd);
struct port_status port_status(const struct port *port);
uint64_t port_clock_ms(const struct port *port); /* pool clock now, extrapolated with monotonic time */

/* The next lent queue id; ERR_BUSY when none is at hand (asked for, on_room will come). */
enum err port_take_queue_id(struct port *port, struct queue_id *qid_out) MUST_CHECK;

/* Space admission: a transaction in progress reserves its SIZE (or message_size_limit) before 354. ERR_FULL,
 * ERR_BELOW_POLICY, ERR_READ_ONLY, ERR_INDEX_LAG, ERR_INDEX_FULL, ERR_SPOOL_GONE (longer than a short grace). */
enum err port_reserve(struct port *port, uint64_t bytes) MUST_CHECK;
void port_unreserve(struct port *port, uint64_t bytes);

/* Append. The mail (envelope and, when chunk_count is 0, the body) stays valid and unchanged until done; after
 * done(ERR_OK) it is leased to us and mail->locator is set. ERR_BUSY: out of credit, wait for on_room. */
struct port_append {
    struct mail *mail;
    void (*done)(struct port_append *a, enum err e);
    void *owner;
    struct link link;        /* private */
    uint64_t scratch[4];
};
/* Else than ERR_OK done() does not come: ERR_SPOOL_GONE, ERR_TOO_LARGE, or what failed one of its CHUNKs. */
enum err port_append(struct port *port, struct port_append *a) MUST_CHECK;
/* Memory shared with the spool (WIRE_TRAYS of CHUNK_BYTES_MAX); NULL: there is none. Before the first port_attach. */
void port_use_trays(struct port *port, uint8_t *memory);
/* A tray to gather a CHUNK in, so that it need not be copied into the socket. NULL: none now, own memory will do. */
uint8_t *port_tray_take(struct port *port);
void port_tray_give(struct port *port, uint8_t *tray);
/* One CHUNK of a large message, copied at once, or in a tray, which is the port's after ERR_OK. Not acknowledged by itself:
 * the MESSAGE's append fails when a CHUNK did (or when the spool restarted in between). ERR_BUSY: out of credit. */
enum err port_chunk(struct port *port, struct queue_id qid, uint32_t number, const void *bytes, uint32_t len) MUST_CHECK;
void port_abort(struct port *port, struct queue_id qid); /* CHUNKs of an append that will not come */

/* Marks of one message, as one atomic group: results, then RETIRE when all recipients are done, then the bounce's
 * append. Copied at once, kept until acknowledged. The lease ends with `retire` or `release`. */
struct port_mark {
    struct queue_id qid;
    struct segment_id locator;
    const struct mark *marks;
    uint32_t count;
    bool retire;             /* every recipient is done */
    bool release;            /* the lease ends, the message comes back when due */
    struct mail *bounce;     /* appended in the same frame; envelope and whole body in memory; may be NULL */
    /* when the bounce was stored (leased to us, locator set) or refused; the mark itself needs no answer */
    void (*bounce_done)(void *owner, struct mail *bounce, enum err e);
    void *owner;
};
/* ERR_BUSY: wait for on_room. ERR_NOT_FOUND: not leased to us (any more). ERR_TOO_LARGE: the bounce. The bounce's reference
 * is taken with ERR_OK only. bounce_done(ERR_CANCELED): the message was no longer live; a bounce that was stored is due
 * by itself. */
enum err port_mark(struct port *port, const struct port_mark *m) MUST_CHECK;

/* The body of a leased message, in order, in pieces of at most CHUNK_BYTES_MAX. `on_bytes` returning false pauses
 * until port_fetch_resume; at most two pieces are under way per fetch. done(ERR_OK) only after the last piece
 * verified. ERR_LOST: no good copy: the final dot must not be sent, drop the connection. */
struct port_fetch {
    struct mail *mail;
    bool (*on_bytes)(struct port_fetch *f, const uint8_t *bytes, uint32_t len);
    void (*done)(struct port_fetch *f, enum err e);
    void *owner;
    struct link link;        /* private */
    uint64_t scratch[8];
};
void port_fetch(struct port *port, struct port_fetch *f);
void port_fetch_resume(struct port *port, struct port_fetch *f);
void port_fetch_cancel(struct port *port, struct port_fetch *f); /* no callback follows */

/* Ask for up to `count` more due messages (at most WIRE_DUE_CREDIT_MAX held at one time). */
void port_want_due(struct port *port, uint32_t count);
/* A destination that takes nothing now: nothing due only for it is handed out until then. Bounded (4,096): the
 * oldest pauses are forgotten, which costs only an early hand-out. until_ms 0 ends it. Loop time. */
void port_pause_destination(struct port *port, uint64_t destination, uint64_t until_ms);

/* Counters of the relay for status and metrics: one JSON object, sent on at most once a second. */
void port_report(struct port *port, const char *json, uint32_t len);
/* Status page and metrics: the spool answers with a document. kind: "status" (JSON) or "metrics" (text format).
 * ERR_SPOOL_GONE at once or later through done. At most 8 at one time. */
enum err port_document(struct port *port, const char *kind, void *owner,
                       void (*done)(void *owner, enum err e, const char *bytes, uint32_t len)) MUST_CHECK;

#endif
