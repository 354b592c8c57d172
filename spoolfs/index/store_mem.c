/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the store in memory, for the simulator and tests: a skip list whose heights come from the keys, so that equal
 * histories give equal structures. Invariants: MEM-1: level 0 holds every node in order of key. MEM-2: `undo` holds
 * what each change of the running transaction replaced, so that abort restores it. */
#include "store.h"

#include <base/assert.h>
#include <base/digest.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS 20u

struct node {
    struct node **next;
    uint8_t *value;
    uint32_t value_len;
    uint8_t key_len;
    uint8_t key[STORE_KEY_BYTES_MAX];
};

struct undo { uint8_t key_len; uint8_t key[STORE_KEY_BYTES_MAX]; uint8_t *value; uint32_t value_len; };

struct store_mem {
    struct store store;
    struct node *heads[LEVELS];
    struct node *cursor;
    struct undo *undo;
    uint32_t undo_count, undo_capacity;
    bool in_txn, writing;
};

static struct store_mem *mem(struct store *s)
{
    return (struct store_mem *)(void *)s;
}

static int key_compare(const struct node *n, struct bytes key)
{
    size_t both = n->key_len < key.len ? n->key_len : key.len;
    int c = memcmp(n->key, key.at, both);
    return c ? c : (n->key_len > key.len) - (n->key_len < key.len);
}

/* The first node at or behind the key; path[l]: the place that points at it on level l. */
static struct node *mem_find(struct store_mem *m, struct bytes key, struct node **path[LEVELS])
{
    struct node **row = m->heads;
    for (uint32_t l = LEVELS; l-- > 0;) {
        while (row[l] && key_compare(row[l], key) < 0)
            row = row[l]->next;
        if (path)
            path[l] = &row[l];
    }
    return row[0];
}

static uint32_t mem_height(struct bytes key)
{
    uint64_t h = digest64_of(key.at, key.len, 0x69726f6e);
    uint32_t height = 1;
    while (height < LEVELS && (h & 3) == 0) {
        height++;
        h >>= 2;
    }
    return height;
}

static void node_free(struct node *n)
{
    free(n->next);
    free(n->value);
    free(n);
}

static uint8_t *copy_of(const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (copy && len)
        memcpy(copy, bytes, len);
    return copy;
}

/* Takes `value`. */
static enum err mem_insert(struct store_mem *m, struct bytes key, uint8_t *value, uint32_t value_len)
{
    struct node **path[LEVELS];
    struct node *n = mem_find(m, key, path);
    if (n && key_compare(n, key) == 0) {
        free(n->value);
        n->value = value;
        n->value_len = value_len;
        return ERR_OK;
    }
    uint32_t height = mem_height(key);
    n = calloc(1, sizeof *n);
    struct node **next = calloc(height, sizeof(struct node *));
    if (!n || !next) {
        free(n);
        free(next);
        free(value);
        return ERR_NO_MEMORY;
    }
    n->next = next;
    n->value = value;
    n->value_len = value_len;
    n->key_len = (uint8_t)key.len;
    memcpy(n->key, key.at, key.len);
    for (uint32_t l = 0; l < height; l++) {
        next[l] = *path[l];
        *path[l] = n;
    }
    return ERR_OK;
}

static bool mem_remove(struct store_mem *m, struct bytes key)
{
    struct node **path[LEVELS];
    struct node *n = mem_find(m, key, path);
    if (!n || key_compare(n, key) != 0)
        return false;
    for (uint32_t l = 0; l < LEVELS; l++)
        if (*path[l] == n)
            *path[l] = n->next[l];
    node_free(n);
    return true;
}

static void mem_drop_all(struct store_mem *m)
{
    for (struct node *n = m->heads[0], *next; n; n = next) {
        next = n->next[0];
        node_free(n);
    }
    memset(m->heads, 0, sizeof m->heads);
    m->cursor = NULL;
}

/* --- transactions --- */

static enum err mem_note_undo(struct store_mem *m, struct bytes key, const struct node *old)
{
    if (m->undo_count == m->undo_capacity) {
        uint32_t capacity = m->undo_capacity ? m->undo_capacity * 2 : 256;
        struct undo *bigger = realloc(m->undo, capacity * sizeof *bigger);
        if (!bigger)
            return ERR_NO_MEMORY;
        m->undo = bigger;
        m->undo_capacity = capacity;
    }
    struct undo *u = &m->undo[m->undo_count];
    u->key_len = (uint8_t)key.len;
    memcpy(u->key, key.at, key.len);
    u->value = old ? copy_of(old->value, old->value_len) : NULL;
    u->value_len = old ? old->value_len : 0;
    if (old && !u->value)
        return ERR_NO_MEMORY;
    m->undo_count++;
    return ERR_OK;
}

static enum err mem_begin(struct store *s, bool write)
{
    struct store_mem *m = mem(s);
    ASSERT(!m->in_txn);
    m->in_txn = true;
    m->writing = write;
    return ERR_OK;
}

static enum err mem_commit(struct store *s)
{
    struct store_mem *m = mem(s);
    ASSERT(m->in_txn && m->writing);
    for (uint32_t i = 0; i < m->undo_count; i++)
        free(m->undo[i].value);
    m->undo_count = 0;
    m->in_txn = m->writing = false;
    return ERR_OK;
}

static void mem_abort(struct store *s)
{
    struct store_mem *m = mem(s);
    ASSERT(m->in_txn);
    while (m->undo_count > 0) {
        struct undo *u = &m->undo[--m->undo_count];
        struct bytes key = {u->key, u->key_len};
        if (u->value) {
            enum err e = mem_insert(m, key, u->value, u->value_len);
            ASSERT(e == ERR_OK); /* tests and simulator only: there, memory for a restore must be there */
        } else {
            mem_remove(m, key);
        }
    }
    m->in_txn = m->writing = false;
}

/* --- data --- */

static enum err mem_get(struct store *s, struct bytes key, struct bytes *value_out)
{
    struct node *n = mem_find(mem(s), key, NULL);
    if (!n || key_compare(n, key) != 0)
        return ERR_NOT_FOUND;
    *value_out = (struct bytes){n->value, n->value_len};
    return ERR_OK;
}

static enum err mem_put(struct store *s, struct bytes key, struct bytes value)
{
    struct store_mem *m = mem(s);
    ASSERT(m->writing && key.len <= STORE_KEY_BYTES_MAX);
    m->cursor = NULL;
    struct node *old = mem_find(m, key, NULL);
    uint8_t *copy = copy_of(value.at, value.len);
    if (!copy || mem_note_undo(m, key, old && key_compare(old, key) == 0 ? old : NULL) != ERR_OK) {
        free(copy);
        return ERR_NO_MEMORY;
    }
    return mem_insert(m, key, copy, (uint32_t)value.len);
}

static enum err mem_del(struct store *s, struct bytes key)
{
    struct store_mem *m = mem(s);
    ASSERT(m->writing);
    m->cursor = NULL;
    struct node *old = mem_find(m, key, NULL);
    if (!old || key_compare(old, key) != 0)
        return ERR_NOT_FOUND;
    if (mem_note_undo(m, key, old) != ERR_OK)
        return ERR_NO_MEMORY;
    mem_remove(m, key);
    return ERR_OK;
}

static enum err mem_at_cursor(const struct store_mem *m, struct bytes *key_out, struct bytes *value_out)
{
    if (!m->cursor)
        return ERR_NOT_FOUND;
    *key_out = (struct bytes){m->cursor->key, m->cursor->key_len};
    *value_out = (struct bytes){m->cursor->value, m->cursor->value_len};
    return ERR_OK;
}

static enum err mem_seek(struct store *s, struct bytes key, struct bytes *key_out, struct bytes *value_out)
{
    mem(s)->cursor = mem_find(mem(s), key, NULL);
    return mem_at_cursor(mem(s), key_out, value_out);
}

static enum err mem_next(struct store *s, struct bytes *key_out, struct bytes *value_out)
{
    struct store_mem *m = mem(s);
    m->cursor = m->cursor ? m->cursor->next[0] : NULL;
    return mem_at_cursor(m, key_out, value_out);
}

static enum err mem_clear(struct store *s)
{
    struct store_mem *m = mem(s);
    ASSERT(m->writing && m->undo_count == 0);
    mem_drop_all(m); /* not undone: whoever clears wants nothing back */
    return ERR_OK;
}

static enum err mem_sync(struct store *s)
{
    (void)s;
    return ERR_OK;
}

static enum err mem_grow(struct store *s)
{
    (void)s;
    return ERR_OK;
}

static void mem_close(struct store *s)
{
    struct store_mem *m = mem(s);
    ASSERT(!m->in_txn);
    mem_drop_all(m);
    free(m->undo);
    free(m);
}

static const struct store_ops mem_ops = {
    .begin = mem_begin, .commit = mem_commit, .abort = mem_abort, .get = mem_get, .put = mem_put, .del = mem_del,
    .seek = mem_seek, .next = mem_next, .clear = mem_clear, .sync = mem_sync, .grow = mem_grow, .close = mem_close,
};

enum err store_mem_open(struct store **store_out)
{
    struct store_mem *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NO_MEMORY;
    m->store.ops = &mem_ops;
    *store_out = &m->store;
    return ERR_OK;
}
