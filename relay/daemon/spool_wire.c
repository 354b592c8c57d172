/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the sockets of the spool's end of the wire. One read and one write per turn and connection; what the bytes mean
 * is spoolfs/wire_server.c's. A connection that replaces another closes the old socket at once: whatever was in flight
 * for it is waited for by the server before the new relay is heard (SRV-3). */
#include "spool_wire.h"

#include "wire_server.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <spoolfs/io_real.h>
#include <spoolfs/wire.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct spool_wire {
    struct io *io;
    struct wire_server *server;
    struct io_watch watch;     /* fd -1: no connection */
    bool watched;
    bool write_blocked;        /* the socket is full: wait for EPOLLOUT */
    bool write_dead;           /* the relay is gone; what it said last is still read, to the end of file */
};

enum err spool_wire_open(struct io *io, struct pool *pool, const struct spool_wire_hooks *hooks,
                         struct spool_wire **wire_out)
{
    struct spool_wire *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NO_MEMORY;
    w->io = io;
    w->watch.fd = -1;
    const struct wire_server_hooks inner = {.owner = hooks->owner, .on_document = hooks->on_document,
                                            .on_report = hooks->on_report, .on_log = hooks->on_log,
                                            .trays = hooks->trays};
    enum err e = wire_server_open(io, pool, &inner, &w->server);
    if (e != ERR_OK)
        free(w);
    else
        *wire_out = w;
    return e;
}

static void wire_close_socket(struct spool_wire *w)
{
    if (w->watch.fd < 0)
        return;
    if (w->watched)
        io_watch_remove(w->io, &w->watch);
    close(w->watch.fd);
    w->watch.fd = -1;
    w->watched = w->write_blocked = w->write_dead = false;
}

static void wire_hang_up(struct spool_wire *w)
{
    wire_server_disconnect(w->server);
    wire_close_socket(w);
}

/* False: nothing more now. At the end of file everything before it has been parsed: with input waiting there is no
 * room, and nothing is read. */
static bool wire_read(struct spool_wire *w)
{
    uint32_t room;
    uint8_t *at = wire_server_input(w->server, &room);
    if (room == 0)
        return false; /* backpressure: spool_wire_step takes EPOLLIN away */
    ssize_t n = read(w->watch.fd, at, room);
    if (n > 0)
        wire_server_received(w->server, (uint32_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        wire_hang_up(w);
    return n > 0;
}

#define LAST_READS_MAX 64 /* what a relay that has just ended may have left in the socket, several times over */

/* The connection ends here, not at its end of file: what waits in the socket still counts. */
static void wire_hear_out(struct spool_wire *w)
{
    for (int i = 0; i < LAST_READS_MAX && w->watch.fd >= 0 && wire_read(w); i++)
        wire_server_step(w->server);
}

static void wire_on_ready(struct io_watch *watch, uint32_t events)
{
    struct spool_wire *w = watch->owner;
    if (events & EPOLLOUT)
        w->write_blocked = false; /* spool_wire_step writes: one write per turn */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        (void)wire_read(w);
}

enum err spool_wire_attach(struct spool_wire *w, int fd)
{
    wire_hear_out(w);
    wire_hang_up(w);
    int bytes = WIRE_SOCKET_BYTES;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        close(fd);
        return ERR_SYSTEM;
    }
    /* the system's limit is enough when this is refused: only the number of writes grows */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    w->watch = (struct io_watch){.fd = fd, .events = EPOLLIN, .ready = wire_on_ready, .owner = w};
    enum err e = io_watch_add(w->io, &w->watch);
    if (e != ERR_OK) {
        wire_close_socket(w);
        return e;
    }
    w->watched = true;
    wire_server_connect(w->server);
    return ERR_OK;
}

static void wire_write(struct spool_wire *w)
{
    uint32_t len;
    const uint8_t *at = wire_server_output(w->server, &len);
    if (len == 0 || w->write_blocked)
        return;
    ssize_t n = w->write_dead ? (ssize_t)len : send(w->watch.fd, at, len, MSG_NOSIGNAL);
    if (n >= 0) {
        wire_server_sent(w->server, (uint32_t)n);
        w->write_blocked = (uint32_t)n < len;
    } else if (errno == EAGAIN || errno == EINTR) {
        w->write_blocked = errno == EAGAIN;
    } else {
        w->write_dead = true; /* marks it sent before it died still count */
    }
}

/* With nothing to wait for the socket leaves the loop: a hang-up would be reported without end. */
static void wire_watch(struct spool_wire *w, uint32_t events)
{
    if (events && w->watched) {
        io_watch_change(w->io, &w->watch, events);
    } else if (events) {
        w->watch.events = events;
        w->watched = io_watch_add(w->io, &w->watch) == ERR_OK; /* refused: tried again after the next turn */
    } else if (w->watched) {
        io_watch_remove(w->io, &w->watch);
        w->watched = false;
    }
}

void spool_wire_step(struct spool_wire *w)
{
    uint32_t room;
    wire_server_step(w->server);
    if (w->watch.fd < 0)
        return;
    if (!wire_server_connected(w->server)) {
        wire_hang_up(w);
        return;
    }
    wire_write(w);
    if (w->watch.fd < 0)
        return;
    (void)wire_server_input(w->server, &room);
    wire_watch(w, (room ? (uint32_t)EPOLLIN : 0) | (w->write_blocked ? (uint32_t)EPOLLOUT : 0));
}

void spool_wire_recall(struct spool_wire *w, struct queue_id qid) { wire_server_recall(w->server, qid); }
bool spool_wire_held(const struct spool_wire *w, struct queue_id qid) { return wire_server_held(w->server, qid); }
void spool_wire_flush(struct spool_wire *w) { wire_server_flush(w->server); }
void spool_wire_poke(struct spool_wire *w) { wire_server_poke(w->server); }
bool spool_wire_connected(const struct spool_wire *w) { return wire_server_connected(w->server); }

void spool_wire_document(struct spool_wire *w, uint32_t request, enum err e, const void *bytes, uint32_t len)
{
    wire_server_document(w->server, request, e, bytes, len);
}

void spool_wire_stop(struct spool_wire *w)
{
    wire_hear_out(w);
    wire_hang_up(w);
    wire_server_stop(w->server);
}

bool spool_wire_busy(const struct spool_wire *w)
{
    return wire_server_busy(w->server);
}

void spool_wire_close(struct spool_wire **wire)
{
    struct spool_wire *w = *wire;
    *wire = NULL;
    if (!w)
        return;
    wire_close_socket(w);
    wire_server_close(&w->server);
    free(w);
}
