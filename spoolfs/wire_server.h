/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's end of the wire, without sockets: bytes of a relay in, engine calls, bytes out. Engine thread only.
 * relay/daemon/spool_wire.c joins it to a socketpair; the simulator and the tests feed it directly.
 *
 *  SRV-1  the relay is hostile (P8): only ids lent to it may be appended, only messages leased to it may be marked,
 *         fetched or released, credits are limits: else the connection is dropped with a line in the log.
 *  SRV-2  an answer is given exactly once for every APPEND, CHUNK and MARK of a connection that lives.
 *  SRV-3  a message presented again is stored once: what the engine still has in flight is waited for, what is held is
 *         known, what is of an earlier spool is looked up in the index; while that cannot be, the answer is "later".
 *  SRV-4  nothing due is handed out before the relay has presented all it holds.
 *  SRV-5  bounded: a context per append, mark, chunk and fetch under way, two buffers, one table of held messages. */
#ifndef WIRE_SERVER_H
#define WIRE_SERVER_H

#include <base/err.h>
#include <base/ids.h>
#include <spoolfs/pool.h>

struct wire_server;

#define WIRE_SERVER_GRACE_MS 30000u /* leases outlive their connection by this: a relay restarts within a second, and
                                       gives up its own unanswered appends after 30 s */

struct wire_server_hooks {
    void *owner;
    void (*on_document)(void *owner, uint32_t request, const char *kind);
    void (*on_report)(void *owner, const char *json, uint32_t len);
    void (*on_log)(void *owner, const char *line);
    const uint8_t *trays; /* WIRE-5 (wire.h): the memory shared with the relay; NULL: CHUNKs bring their bytes */
};

enum err wire_server_open(struct io *io, struct pool *pool, const struct wire_server_hooks *hooks,
                          struct wire_server **server_out) MUST_CHECK;
void wire_server_close(struct wire_server **server); /* not busy, or its pool abandoned; the io still there */

/* A new connection takes the place of the old one, whose unsent output is dropped. */
void wire_server_connect(struct wire_server *s);
void wire_server_disconnect(struct wire_server *s);
bool wire_server_connected(const struct wire_server *s); /* false after a violation: close the socket */

/* Input: room for bytes read, then how many were; 0 bytes of room: do not read now (backpressure). */
uint8_t *wire_server_input(struct wire_server *s, uint32_t *room_out);
void wire_server_received(struct wire_server *s, uint32_t len);
/* Output that waits, then how much of it was sent. */
const uint8_t *wire_server_output(struct wire_server *s, uint32_t *len_out);
void wire_server_sent(struct wire_server *s, uint32_t len);
/* After each turn of the io and pool_step, before output is asked for. */
void wire_server_step(struct wire_server *s);

void wire_server_recall(struct wire_server *s, struct queue_id qid);
bool wire_server_held(const struct wire_server *s, struct queue_id qid);
void wire_server_flush(struct wire_server *s);
void wire_server_poke(struct wire_server *s);
void wire_server_document(struct wire_server *s, uint32_t request, enum err e, const void *bytes, uint32_t len);

/* Takes nothing more; busy until what is in the engine has come back. */
void wire_server_stop(struct wire_server *s);
bool wire_server_busy(const struct wire_server *s);

#endif
