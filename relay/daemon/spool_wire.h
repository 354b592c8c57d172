/* SPDX-License-Identifier: Apache-2.0 */
/* The spool process's end of the wire: sockets of the io's loop <-> spoolfs/wire_server.h <-> the engine.
 *
 *   for (;;) { io_turn(io, ...); pool_step(pool); spool_wire_step(wire); }
 *
 * One relay is served at a time; one more may wait while what the old connection left in the engine finishes. Leases of
 * a lost connection go on for a grace of WIRE_SERVER_GRACE_MS, so that a relay that comes back presents and keeps them. */
#ifndef DAEMON_SPOOL_WIRE_H
#define DAEMON_SPOOL_WIRE_H

#include <base/err.h>
#include <base/ids.h>
#include <spoolfs/io.h>
#include <spoolfs/pool.h>

struct spool_wire;

struct spool_wire_hooks {
    void *owner;
    /* The relay asks for "status" or "metrics": answer now or later with spool_wire_document(request). May be NULL. */
    void (*on_document)(void *owner, uint32_t request, const char *kind);
    /* Counters of the relay, JSON, at most once a second; valid during the call. May be NULL. */
    void (*on_report)(void *owner, const char *json, uint32_t len);
    /* One line for the log: connected, lost, dropped and why. May be NULL. */
    void (*on_log)(void *owner, const char *line);
    const uint8_t *trays; /* shared with the relay (spoolfs/wire.h), or NULL */
};

enum err spool_wire_open(struct io *io, struct pool *pool, const struct spool_wire_hooks *hooks,
                         struct spool_wire **wire_out) MUST_CHECK;
/* A socketpair end to a relay; owned from here on, also on failure. The connection before it is dropped. */
enum err spool_wire_attach(struct spool_wire *wire, int fd) MUST_CHECK;
/* After each io_turn and pool_step: one write per connection, due, leases, what waited for room. */
void spool_wire_step(struct spool_wire *wire);

/* For the administrator: the message was deleted, held or changed while a relay may hold it. Harmless when none does. */
void spool_wire_recall(struct spool_wire *wire, struct queue_id qid);
bool spool_wire_held(const struct spool_wire *wire, struct queue_id qid);
void spool_wire_flush(struct spool_wire *wire); /* "queue retry --all": the relay forgets its back-offs */
void spool_wire_poke(struct spool_wire *wire);  /* something may have become due: look now instead of within a second */
bool spool_wire_connected(const struct spool_wire *wire);

/* Answers on_document; copied. A request of a connection that is gone is ignored. */
void spool_wire_document(struct spool_wire *wire, uint32_t request, enum err e, const void *bytes, uint32_t len);

/* Stop: drop the connections and take nothing more; keep turning while busy; pool_unmount; close. */
void spool_wire_stop(struct spool_wire *wire);
bool spool_wire_busy(const struct spool_wire *wire);
void spool_wire_close(struct spool_wire **wire);

#endif
