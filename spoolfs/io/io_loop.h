/* SPDX-License-Identifier: Apache-2.0 */
/* The loop both real worlds sit on: time, timers, watches, the list of ended ops. A world adds how ops get to the
 * device and back. */
#ifndef IO_IO_LOOP_H
#define IO_IO_LOOP_H

#include "io_member.h"

#include <pthread.h>
#include <spoolfs/io_real.h>
#include <spoolfs/limits.h>

struct io_loop;

struct io_world {
    const char *name;
    void (*push)(struct io_loop *loop);                                  /* start what waits */
    void (*reap)(struct io_loop *loop);                                  /* io_loop_landed for each that is back */
    void (*recall)(struct io_loop *loop, struct io_member *m, struct io_op *op); /* a flying op, if it can be had */
    void (*close)(struct io_loop *loop);                                 /* wait for all that fly, forget them */
};

#define IO_RANDOM_WORDS 32u
#define IO_WHY_BYTES 200u

struct io_loop {
    struct io io; /* first */
    const struct io_world *world;
    void *world_state;
    struct io_member members[MEMBERS_MAX];
    uint32_t member_count;
    int epoll, wake; /* wake: eventfd, edge triggered and never read: each write of it ends one wait */
    bool hurry;      /* the world wants another turn soon: the kernel took not everything */
    bool in_turn, old_kernel;
    uint64_t now_ns, wall_ms;
    struct heap timers;
    struct link ready; /* ended ops whose done() has not run */
    uint64_t random[IO_RANDOM_WORDS];
    uint32_t random_left;
    struct epoll_event *batch; /* of the turn under way, for watches removed meanwhile */
    int batch_count;
    char why[IO_WHY_BYTES];
    struct {
        pthread_mutex_t lock;
        struct link ops; /* guarded by lock; io_workers.c fills it, from threads */
    } landed;
};

enum err io_loop_open(struct io_loop **loop_out) MUST_CHECK;
void io_loop_close(struct io_loop **loop); /* the members' files too; the world is closed before */
static inline struct io_loop *io_loop_of(struct io *io) { return (struct io_loop *)(void *)io; }

/* The op is back from the kernel: it ends, or what is left of it waits again. */
void io_loop_landed(struct io_loop *loop, struct io_op *op);
struct io_member *io_loop_member(struct io_loop *loop, const struct io_op *op);

#endif
