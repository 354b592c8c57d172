/* SPDX-License-Identifier: Apache-2.0 */
/* An ordered map of bytes to bytes with transactions: all that the index knows of LMDB. Keys compare as bytes.
 *
 *  STORE-1  one transaction at a time; a write transaction is seen whole or not at all.
 *  STORE-2  bytes handed out are valid until the next put, del, clear or end of the transaction.
 *  STORE-3  after a put or del the cursor is lost: seek again. */
#ifndef INDEX_STORE_H
#define INDEX_STORE_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_KEY_BYTES_MAX 64u

struct bytes { const void *at; size_t len; };

struct store;

struct store_ops {
    enum err (*begin)(struct store *s, bool write);
    enum err (*commit)(struct store *s);  /* ends the transaction, whatever it says */
    void (*abort)(struct store *s);       /* also ends a reading one */
    enum err (*get)(struct store *s, struct bytes key, struct bytes *value_out);
    enum err (*put)(struct store *s, struct bytes key, struct bytes value);
    enum err (*del)(struct store *s, struct bytes key);
    enum err (*seek)(struct store *s, struct bytes key, struct bytes *key_out, struct bytes *value_out); /* >= key */
    enum err (*next)(struct store *s, struct bytes *key_out, struct bytes *value_out);
    enum err (*clear)(struct store *s);
    enum err (*sync)(struct store *s);    /* outside a transaction */
    enum err (*grow)(struct store *s);    /* outside a transaction, after ERR_FULL: more room, or why not */
    void (*soon)(struct store *s);        /* most of it will be read now; NULL: nothing to prepare */
    void (*close)(struct store *s);
};

struct store { const struct store_ops *ops; };

/* ERR_NOT_FOUND: no such key, or none at or behind it. ERR_FULL: see grow. ERR_CORRUPT: the store is damaged. */
static inline enum err store_begin(struct store *s, bool write) { return s->ops->begin(s, write); }
static inline enum err store_commit(struct store *s) { return s->ops->commit(s); }
static inline void store_abort(struct store *s) { s->ops->abort(s); }
static inline enum err store_get(struct store *s, struct bytes key, struct bytes *v) { return s->ops->get(s, key, v); }
static inline enum err store_put(struct store *s, struct bytes key, struct bytes v) { return s->ops->put(s, key, v); }
static inline enum err store_del(struct store *s, struct bytes key) { return s->ops->del(s, key); }
static inline enum err store_seek(struct store *s, struct bytes key, struct bytes *k, struct bytes *v)
{
    return s->ops->seek(s, key, k, v);
}
static inline enum err store_next(struct store *s, struct bytes *k, struct bytes *v) { return s->ops->next(s, k, v); }
static inline enum err store_clear(struct store *s) { return s->ops->clear(s); }
static inline enum err store_sync(struct store *s) { return s->ops->sync(s); }
static inline enum err store_grow(struct store *s) { return s->ops->grow(s); }
static inline void store_soon(struct store *s)
{
    if (s->ops->soon)
        s->ops->soon(s);
}
static inline void store_close(struct store *s) { s->ops->close(s); }

enum err store_mem_open(struct store **store_out) MUST_CHECK;
/* For index_kept.h. From now on the transactions since the last sync can be taken back, the newest first. */
void store_mem_keep(struct store *s);
uint32_t store_mem_unsynced(const struct store *s);                  /* transactions */
void store_mem_take_back(struct store *s, uint32_t transactions);
enum err store_mem_copy(const struct store *from, struct store **copy_out) MUST_CHECK; /* as if synced */
bool store_mem_flip(struct store *s, uint64_t number, uint64_t bit); /* of one value; false: there is none */

#endif
