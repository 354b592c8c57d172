/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the choice between the two real worlds, and the end of either. The members' descriptors are taken over when
 * opening succeeds and stay the caller's when it fails. Reads sysfs, makes threads or rings: to be called before a
 * sandbox that forbids these. */
#include "io_worlds.h"

#include <base/assert.h>
#include <stdio.h>

static const char why_memory[] = "no memory or no descriptor left for the event loop";
static char why_failed[IO_WHY_BYTES]; /* the loop that would own the text is gone */

static enum err open_world(struct io_loop *loop, enum io_engine engine)
{
    char refused[IO_WHY_BYTES];
    enum err e;
    if (engine == IO_ENGINE_THREADS) {
        snprintf(loop->why, sizeof loop->why, "threads: as configured");
        return io_posix_open(loop);
    }
    e = io_uring_open(loop);
    if (e == ERR_OK)
        snprintf(loop->why, sizeof loop->why, "uring: %s", engine == IO_ENGINE_AUTO ? "available" : "as configured");
    if (e == ERR_OK || engine == IO_ENGINE_URING)
        return e;
    snprintf(refused, sizeof refused, "%s", loop->why);
    snprintf(loop->why, sizeof loop->why, "threads: %.*s", (int)sizeof loop->why - 16, refused);
    return io_posix_open(loop);
}

enum err io_real_open(enum io_engine engine, const struct io_real_member *members, uint32_t count, struct io **io_out,
                      const char **why_out)
{
    struct io_loop *loop;
    ASSERT(count <= MEMBERS_MAX);
    enum err e = io_loop_open(&loop);
    if (e != ERR_OK) {
        *why_out = why_memory;
        return e;
    }
    for (uint32_t i = 0; i < count; i++)
        io_member_init(&loop->members[i], members[i].fd);
    loop->member_count = count;
    e = open_world(loop, engine);
    if (e != ERR_OK) {
        snprintf(why_failed, sizeof why_failed, "%s", loop->why);
        *why_out = why_failed;
        for (uint32_t i = 0; i < count; i++)
            loop->members[i].fd = -1; /* the caller's */
        io_loop_close(&loop);
        return e;
    }
    *why_out = loop->why;
    *io_out = &loop->io;
    return ERR_OK;
}

void io_real_close(struct io **io)
{
    if (!*io)
        return;
    struct io_loop *loop = io_loop_of(*io);
    loop->world->close(loop);
    io_loop_close(&loop);
    *io = NULL;
}
