/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the measurement that decides how a member makes writes durable. Drives differ by more than two to one, either
 * way, so it is measured and not assumed. The two ways take turns, so that a drive that warms up favours neither.
 * A buffered member has one way only (MBR-3): its O_DSYNC figure is 0. Blocks; turns the io itself. */
#include <base/assert.h>
#include <spoolfs/io_real.h>
#include <spoolfs/limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 32u
#define WARM_UP 2u
#define PATIENCE_NS UINT64_C(1000000000) /* one turn's; the write itself may take as long as it likes */

struct calibration {
    struct io *io;
    struct io_op op;
    bool done;
    uint32_t dsync_us[ROUNDS], flush_us[ROUNDS];
};

static uint64_t clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void on_done(struct io_op *op)
{
    struct calibration *c = op->owner;
    c->done = true;
}

static enum err time_one(struct calibration *c, enum io_durable_by by, uint32_t *us_out)
{
    c->io->ops->target_set_durable_by(c->io, c->op.target, by);
    c->done = false;
    uint64_t start = clock_us();
    io_submit(c->io, &c->op);
    while (!c->done)
        io_turn(c->io, PATIENCE_NS);
    uint64_t took = clock_us() - start;
    *us_out = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    return c->op.result;
}

static enum err run(struct calibration *c, bool buffered)
{
    for (uint32_t i = 0; i < WARM_UP + ROUNDS; i++) {
        uint32_t at = i < WARM_UP ? 0 : i - WARM_UP; /* what warming up measured is overwritten */
        enum err e = buffered ? ERR_OK : time_one(c, IO_DURABLE_DSYNC, &c->dsync_us[at]);
        if (e == ERR_OK)
            e = time_one(c, IO_DURABLE_FLUSH, &c->flush_us[at]);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

static int compare(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static uint32_t median(uint32_t *us)
{
    qsort(us, ROUNDS, sizeof *us, compare);
    return us[ROUNDS / 2];
}

enum err io_real_calibrate(struct io *io, uint16_t target, uint64_t offset, enum io_durable_by *by_out,
                           uint32_t *dsync_us_out, uint32_t *flush_us_out)
{
    const struct io_target *t = io_target(io, target);
    enum io_durable_by before = t->durable_by;
    struct calibration *c = calloc(1, sizeof *c);
    void *buffer = NULL;
    if (!c || posix_memalign(&buffer, BLOCK_BYTES, BLOCK_BYTES) != 0) {
        free(c);
        return ERR_NO_MEMORY;
    }
    memset(buffer, 0, BLOCK_BYTES);
    c->io = io;
    c->op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_COMMIT, .durable = true, .target = target,
                           .length = BLOCK_BYTES, .offset = offset, .buffer = buffer, .done = on_done, .owner = c};
    enum err e = run(c, t->buffered);
    io->ops->target_set_durable_by(io, target, before);
    if (e == ERR_OK) {
        *dsync_us_out = median(c->dsync_us);
        *flush_us_out = median(c->flush_us);
        *by_out = !t->buffered && *dsync_us_out <= *flush_us_out ? IO_DURABLE_DSYNC : IO_DURABLE_FLUSH;
    }
    free(buffer);
    free(c);
    return e;
}
