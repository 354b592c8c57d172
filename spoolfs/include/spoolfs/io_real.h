/* SPDX-License-Identifier: Apache-2.0 */
/* The two real worlds: io_uring (one ring per member) and POSIX threads. Both sit on one epoll loop, which also
 * carries the spool process's sockets. Only composition roots and tests include this header. */
#ifndef SPOOLFS_IO_REAL_H
#define SPOOLFS_IO_REAL_H

#include <spoolfs/io.h>

enum io_engine { IO_ENGINE_AUTO, IO_ENGINE_URING, IO_ENGINE_THREADS };

struct io_real_member {
    int fd;             /* opened O_RDWR without O_DIRECT; -1: absent. Owned by the io from here on.
                         * The io tries O_DIRECT itself (fcntl) and falls back to buffered. */
    const char *path;   /* for probing and messages; copied */
};

/* auto: io_uring, else threads; *why_out says in words which and why (static or io-owned string). */
enum err io_real_open(enum io_engine engine, const struct io_real_member *members, uint32_t count, struct io **io_out,
                      const char **why_out) MUST_CHECK;
void io_real_close(struct io **io); /* waits for outstanding ops without running their done() */

/* Sockets and eventfds on the same loop. One callback per fd; level triggered; events are EPOLLIN/EPOLLOUT. */
struct io_watch {
    int fd;
    uint32_t events;
    void (*ready)(struct io_watch *watch, uint32_t events);
    void *owner;
};
enum err io_watch_add(struct io *io, struct io_watch *watch) MUST_CHECK;
void io_watch_change(struct io *io, struct io_watch *watch, uint32_t events);
void io_watch_remove(struct io *io, struct io_watch *watch);

/* Times 32 durable 4 KiB writes at `offset` both ways and returns the faster method (ties: O_DSYNC). Overwrites
 * what is there: only for pool creation. p50s in microseconds go to the _out parameters. */
enum err io_real_calibrate(struct io *io, uint16_t target, uint64_t offset, enum io_durable_by *by_out,
                           uint32_t *dsync_us_out, uint32_t *flush_us_out) MUST_CHECK;

#endif
