/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the world of POSIX threads, for where io_uring is forbidden (many containers) or absent. A few threads for each
 * member, so that a stuck disk holds nobody else's; they share nothing with the loop but two lists (io_workers.c). */
#include "io_worlds.h"
#include "io_workers.h"

#include <errno.h>
#include <stdlib.h>

/* Enough that a commit, a delivery and two of background are under way on one member; more gain nothing on a disk with
 * arms, and an SSD that deserves more has io_uring. */
#define THREADS_PER_MEMBER 4u

struct posix_world {
    struct io_workers *workers[MEMBERS_MAX];
};

static void posix_push(struct io_loop *loop)
{
    struct posix_world *world = loop->world_state;
    for (uint32_t i = 0; i < loop->member_count; i++)
        for (struct io_op *op = io_member_next(&loop->members[i]); op; op = io_member_next(&loop->members[i]))
            io_workers_give(world->workers[i], op);
}

static void posix_recall(struct io_loop *loop, struct io_member *m, struct io_op *op)
{
    struct posix_world *world = loop->world_state;
    if (!io_workers_recall(world->workers[m - loop->members], op))
        return;
    io_private(op)->moved_now = -ECANCELED;
    io_loop_landed(loop, op);
}

static void posix_close(struct io_loop *loop)
{
    struct posix_world *world = loop->world_state;
    for (uint32_t i = 0; i < loop->member_count; i++)
        io_workers_stop(&world->workers[i]);
    free(world);
    loop->world_state = NULL;
}

static const struct io_world posix_world = {
    .name = "threads",
    .push = posix_push,
    .reap = io_workers_reap,
    .recall = posix_recall,
    .close = posix_close,
};

enum err io_posix_open(struct io_loop *loop)
{
    struct posix_world *world = calloc(1, sizeof *world);
    if (!world)
        return ERR_NO_MEMORY;
    loop->world_state = world;
    for (uint32_t i = 0; i < loop->member_count; i++) {
        struct io_member *m = &loop->members[i];
        enum err e = ERR_OK;
        if (m->target.present)
            e = io_workers_start(loop, m, THREADS_PER_MEMBER, &world->workers[i]);
        if (e != ERR_OK) {
            posix_close(loop);
            return e;
        }
    }
    loop->world = &posix_world;
    return ERR_OK;
}
