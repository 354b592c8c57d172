/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the index in memory: no thread, no clock, no file. All work happens in index_dispatch, so that equal calls give
 * equal answers (simulator, tests, offline checks). */
#include "port.h"

#include <base/assert.h>
#include <stdlib.h>

static void mem_wake(struct index *x, bool now)
{
    (void)x;
    (void)now;
}

static void mem_work(struct index *x)
{
    if (!x->out.opened) {
        port_opened(x, core_open(&x->core));
        return; /* the engine hears of it first */
    }
    enum err e = port_drain(x);
    if (e == ERR_OK)
        e = core_flush(&x->core);
    if (e == ERR_OK)
        e = port_answer(x);
    ASSERT(e == ERR_OK || e == ERR_NO_MEMORY); /* then the next dispatch goes on from here */
}

static void mem_stop(struct index *x)
{
    struct store *store = x->core.store;
    core_fini(&x->core);
    store_close(store);
}

enum err index_mem_open(struct uuid pool, const struct index_callbacks *cb, struct index **index_out)
{
    struct store *store;
    struct index *x = calloc(1, sizeof *x);
    if (!x)
        return ERR_NO_MEMORY;
    x->wake = mem_wake;
    x->work = mem_work;
    x->stop = mem_stop;
    enum err e = port_init(x, cb);
    if (e == ERR_OK)
        e = store_mem_open(&store);
    if (e == ERR_OK && (e = core_init(&x->core, store, pool, &x->out)) != ERR_OK)
        store_close(store);
    if (e != ERR_OK) {
        port_fini(x);
        free(x);
        return e;
    }
    *index_out = x;
    return ERR_OK;
}
