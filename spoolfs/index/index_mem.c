/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the index in memory: no thread, no clock, no file. All work happens in index_dispatch, so that equal calls give
 * equal answers (simulator, tests, offline checks). It ends with its process, or stays (index_kept.h: KEPT-1, KEPT-2). */
#include "port.h"

#include <base/assert.h>
#include <spoolfs/index_kept.h>
#include <stdlib.h>

struct index_kept {
    struct store *store;
    bool dead;           /* the index that is open on it belongs to a process that is gone */
    bool seen;           /* the next opening looks it through */
};

struct mem_index {
    struct index x;      /* first */
    struct index_kept *kept; /* NULL: nothing stays */
};

static struct mem_index *owner_of(struct index *x) { return (struct mem_index *)(void *)x; }

static void mem_wake(struct index *x, bool now)
{
    (void)x;
    (void)now;
}

/* KEPT-2 */
static enum err mem_look(struct index_kept *kept)
{
    struct rows_look look = {0};
    struct bytes key, value;
    if (!kept->seen) {
        kept->seen = true;
        return ERR_OK;
    }
    enum err e = store_begin(kept->store, false);
    ASSERT(e == ERR_OK);
    e = store_seek(kept->store, (struct bytes){"", 1}, &key, &value);
    while (e == ERR_OK && rows_look(&look, key, value))
        e = store_next(kept->store, &key, &value);
    store_abort(kept->store);
    return look.bad ? ERR_CORRUPT : ERR_OK;
}

static enum err mem_open(struct mem_index *m)
{
    struct core *c = &m->x.core;
    enum err e = m->kept ? mem_look(m->kept) : ERR_OK;
    if (e == ERR_OK)
        e = core_open(c);
    if (e != ERR_CORRUPT || !m->kept)
        return e;
    index_kept_discard(m->kept);
    e = core_open(c);
    return e == ERR_NOT_FOUND ? ERR_CORRUPT : e;
}

static void mem_work(struct index *x)
{
    const struct index_kept *kept = owner_of(x)->kept;
    if (kept && kept->dead)
        return;
    if (!x->out.opened) {
        port_opened(x, mem_open(owner_of(x)));
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
    struct index_kept *kept = owner_of(x)->kept;
    if (kept && !kept->dead && x->out.opened && port_drain(x) == ERR_OK && core_flush(&x->core) == ERR_OK &&
        store_sync(store) != ERR_OK)
        kept->dead = true; /* the next mount replays what is missing */
    core_fini(&x->core);
    if (!kept)
        store_close(store);
}

static enum err mem_make(struct uuid pool, struct index_kept *kept, struct store *store, const struct index_callbacks *cb,
                         struct index **index_out)
{
    struct mem_index *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NO_MEMORY;
    struct index *x = &m->x;
    m->kept = kept;
    x->wake = mem_wake;
    x->work = mem_work;
    x->stop = mem_stop;
    enum err e = port_init(x, cb);
    if (e == ERR_OK)
        e = core_init(&x->core, store, pool, &x->out);
    if (e != ERR_OK) {
        port_fini(x);
        free(m);
        return e;
    }
    *index_out = x;
    return ERR_OK;
}

enum err index_mem_open(struct uuid pool, const struct index_callbacks *cb, struct index **index_out)
{
    struct store *store;
    enum err e = store_mem_open(&store);
    if (e == ERR_OK && (e = mem_make(pool, NULL, store, cb, index_out)) != ERR_OK)
        store_close(store);
    return e;
}

enum err index_mem_open_kept(struct uuid pool, struct index_kept *kept, const struct index_callbacks *cb,
                             struct index **index_out)
{
    kept->dead = false;
    return mem_make(pool, kept, kept->store, cb, index_out);
}

/* --- what stays --- */

static enum err kept_over(struct store *store, struct index_kept **kept_out)
{
    struct index_kept *k = calloc(1, sizeof *k);
    if (!k) {
        store_close(store);
        return ERR_NO_MEMORY;
    }
    store_mem_keep(store);
    *k = (struct index_kept){.store = store, .seen = true};
    *kept_out = k;
    return ERR_OK;
}

enum err index_kept_make(struct index_kept **kept_out)
{
    struct store *store;
    enum err e = store_mem_open(&store);
    return e == ERR_OK ? kept_over(store, kept_out) : e;
}

enum err index_kept_copy(const struct index_kept *kept, struct index_kept **copy_out)
{
    struct store *store;
    enum err e = store_mem_copy(kept->store, &store);
    return e == ERR_OK ? kept_over(store, copy_out) : e;
}

void index_kept_free(struct index_kept **kept)
{
    if (*kept)
        store_close((*kept)->store);
    free(*kept);
    *kept = NULL;
}

void index_kept_discard(struct index_kept *kept)
{
    enum err e = store_begin(kept->store, true);
    if (e == ERR_OK)
        e = store_clear(kept->store);
    if (e == ERR_OK)
        e = store_commit(kept->store);
    ASSERT(e == ERR_OK);
}

void index_kept_sync(struct index_kept *kept)
{
    enum err e = store_sync(kept->store);
    ASSERT(e == ERR_OK);
}

uint32_t index_kept_unsynced(const struct index_kept *kept) { return store_mem_unsynced(kept->store); }

void index_kept_die(struct index_kept *kept, uint32_t lost)
{
    kept->dead = true;
    store_mem_take_back(kept->store, lost);
}

bool index_kept_damage(struct index_kept *kept, uint64_t draw, bool seen)
{
    if (!store_mem_flip(kept->store, draw >> 32, draw))
        return false;
    kept->seen = seen;
    return true;
}
