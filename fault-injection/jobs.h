/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds spread over forked workers: a seed that aborts or never ends costs its worker, not the run. The summary does
 * not depend on how many there are. */
#ifndef JOBS_H
#define JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOBS_MAX 64u /* workers */

struct jobs {
    uint64_t first, count;   /* seeds */
    uint32_t workers;
    uint32_t seed_seconds;   /* a worker that has not answered for this long is killed: its seed has failed */
    uint64_t stop_after;     /* seconds; 0: never. What was not begun by then is not counted */
    size_t answer_bytes;
    void *owner;
    /* In the worker: runs one seed and fills the answer. */
    void (*run)(void *owner, uint64_t seed, void *answer);
    /* In the parent, in the order of seeds. `answer` NULL: the worker died, `how` says how. */
    void (*answered)(void *owner, uint64_t seed, const void *answer, const char *how);
};

/* False: workers could not be made. */
bool jobs_run(const struct jobs *jobs, uint64_t *begun_out);

#endif
