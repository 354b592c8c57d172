/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the store in memory, for the simulator and tests: a skip list whose heights come from the keys, so that equal
 * histories give equal structures. Invariants: STM-1: level 0 holds every node in order of key. STM-2: `undo` holds
 * what each change of the running transaction replaced, so that abort restores it, memory or not. STM-3: a store that keeps
 * (index_kept.h) holds that of all transactions since the last sync as well, so that the newest of them can be taken back.
 * STM-4: a finger is a node in the list that begins with the letter of the searches that it serves. */
#include "store.h"

#include <base/assert.h>
#include <base/digest.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS 20u
#define WORDS (STORE_KEY_BYTES_MAX / 8u)
#define FINGERS 32u     /* kinds of rows are letters */
#define FINGER_STEPS 8u /* a search from the top takes about as many comparisons */

/* A key as it is compared: the letter of its row, then numbers, as rows.c makes them; zeros behind what is no whole one. */
struct order { uint8_t row, len; uint64_t words[WORDS]; };

struct node {
    uint8_t *value;
    uint32_t value_len;
    uint32_t height;
    struct order order;
    uint8_t key[STORE_KEY_BYTES_MAX];
    struct node *next[]; /* `height` of them */
};

/* STM-2; nothing is allocated to restore it. */
struct undo {
    uint8_t key_len;
    uint8_t key[STORE_KEY_BYTES_MAX];
    struct node *removed; /* the node that was there; else: */
    uint8_t *value;       /* the value that was there, or NULL: nothing was */
    uint32_t value_len;
};

struct store_mem {
    struct store store;
    struct node *heads[LEVELS];
    uint32_t levels;              /* no node is higher */
    struct node *fingers[FINGERS]; /* STM-4 */
    struct node *cursor;
    struct undo *undo;
    uint32_t undo_count, undo_capacity;
    uint32_t *ends;               /* STM-3: undo_count behind each transaction since the last sync */
    uint32_t end_count, end_capacity;
    bool in_txn, writing, keeps;
};

static struct store_mem *mem(struct store *s)
{
    return (struct store_mem *)(void *)s;
}

static void order_of(struct bytes key, struct order *o_out)
{
    const uint8_t *at = key.at;
    uint64_t word;
    uint32_t i = 0;
    ASSERT(key.len > 0 && key.len <= STORE_KEY_BYTES_MAX);
    o_out->row = *at++;
    o_out->len = (uint8_t)key.len;
    size_t left = key.len - 1;
    for (; left >= sizeof word; i++, at += sizeof word, left -= sizeof word) {
        memcpy(&word, at, sizeof word);
        o_out->words[i] = be64toh(word);
    }
    word = 0;
    for (uint32_t shift = 56; left > 0; left--, shift -= 8)
        word |= (uint64_t)*at++ << shift;
    o_out->words[i] = word;
}

static uint32_t order_words(const struct order *o) { return (o->len + 6u) / 8u; }

/* Is the node before the key? */
static inline bool node_before(const struct node *n, const struct order *o)
{
    if (n->order.row != o->row)
        return n->order.row < o->row;
    uint32_t mine = order_words(&n->order), its = order_words(o), both = mine < its ? mine : its;
    for (uint32_t i = 0; i < both; i++)
        if (n->order.words[i] != o->words[i])
            return n->order.words[i] < o->words[i];
    return n->order.len < o->len;
}

static bool node_is(const struct node *n, struct bytes key)
{
    return n && n->order.len == key.len && memcmp(n->key, key.at, key.len) == 0;
}

/* The first node at or behind the key; path[l]: the place that points at it on level l. */
static struct node *mem_path(struct store_mem *m, struct bytes key, struct node **path[LEVELS])
{
    struct order o;
    struct node **row = m->heads;
    order_of(key, &o);
    for (uint32_t l = LEVELS; l-- > 0;) {
        while (row[l] && node_before(row[l], &o))
            row = row[l]->next;
        path[l] = &row[l];
    }
    return row[0];
}

static struct node **mem_finger(struct store_mem *m, struct bytes key)
{
    return &m->fingers[*(const uint8_t *)key.at % FINGERS];
}

/* STM-4: from where the last search for such a row ended, or from the top. */
static struct node *mem_find(struct store_mem *m, struct bytes key)
{
    struct order o;
    struct node **finger = mem_finger(m, key), *before = *finger, **row = m->heads;
    order_of(key, &o);
    if (before && node_before(before, &o))
        for (uint32_t i = 0; i < FINGER_STEPS; i++) {
            struct node *next = before->next[0];
            if (!next || !node_before(next, &o)) {
                *finger = before->order.row == o.row ? before : NULL;
                return next;
            }
            before = next;
        }
    before = NULL;
    for (uint32_t l = m->levels; l-- > 0;)
        while (row[l] && node_before(row[l], &o)) {
            before = row[l];
            row = before->next;
        }
    *finger = before && before->order.row == o.row ? before : NULL;
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

static void mem_link(struct store_mem *m, struct node *n)
{
    struct node **path[LEVELS];
    struct bytes key = {n->key, n->order.len};
    (void)mem_path(m, key, path);
    m->levels = n->height > m->levels ? n->height : m->levels;
    for (uint32_t l = 0; l < n->height; l++) {
        n->next[l] = *path[l];
        *path[l] = n;
    }
}

/* Takes `value`. The key is not there yet. */
static enum err mem_insert(struct store_mem *m, struct bytes key, uint8_t *value, uint32_t value_len)
{
    uint32_t height = mem_height(key);
    struct node *n = calloc(1, sizeof *n + height * sizeof n->next[0]);
    if (!n) {
        free(value);
        return ERR_NO_MEMORY;
    }
    n->height = height;
    n->value = value;
    n->value_len = value_len;
    order_of(key, &n->order);
    memcpy(n->key, key.at, key.len);
    mem_link(m, n);
    return ERR_OK;
}

/* Out of the lists, not freed; NULL: it is not there. */
static struct node *mem_unlink(struct store_mem *m, struct bytes key)
{
    struct node **path[LEVELS];
    struct node *n = mem_path(m, key, path), **finger = mem_finger(m, key);
    if (!node_is(n, key))
        return NULL;
    for (uint32_t l = 0; l < n->height; l++)
        *path[l] = n->next[l];
    *finger = *finger == n ? NULL : *finger;
    return n;
}

static void mem_drop_all(struct store_mem *m)
{
    for (struct node *n = m->heads[0], *next; n; n = next) {
        next = n->next[0];
        node_free(n);
    }
    memset(m->heads, 0, sizeof m->heads);
    memset(m->fingers, 0, sizeof m->fingers);
    m->levels = 0;
    m->cursor = NULL;
}

/* --- transactions --- */

/* Room for one undo more; what it says is the caller's to fill in. */
static struct undo *mem_note_undo(struct store_mem *m, struct bytes key)
{
    if (m->undo_count == m->undo_capacity) {
        uint32_t capacity = m->undo_capacity ? m->undo_capacity * 2 : 256;
        struct undo *bigger = realloc(m->undo, capacity * sizeof *bigger);
        if (!bigger)
            return NULL;
        m->undo = bigger;
        m->undo_capacity = capacity;
    }
    struct undo *u = &m->undo[m->undo_count++];
    *u = (struct undo){.key_len = (uint8_t)key.len};
    memcpy(u->key, key.at, key.len);
    return u;
}

/* What can be taken back ends here. */
static void mem_forget_undo(struct store_mem *m)
{
    for (uint32_t i = 0; i < m->undo_count; i++) {
        free(m->undo[i].value);
        if (m->undo[i].removed)
            node_free(m->undo[i].removed);
    }
    m->undo_count = m->end_count = 0;
}

/* STM-2 */
static void mem_take_back(struct store_mem *m, uint32_t down_to)
{
    m->cursor = NULL;
    while (m->undo_count > down_to) {
        struct undo *u = &m->undo[--m->undo_count];
        struct bytes key = {u->key, u->key_len};
        if (u->removed) {
            mem_link(m, u->removed);
        } else if (u->value) {
            struct node *n = mem_find(m, key);
            free(n->value);
            n->value = u->value;
            n->value_len = u->value_len;
        } else {
            struct node *n = mem_unlink(m, key);
            if (n) /* it was noted, and then there was no memory for it */
                node_free(n);
        }
    }
}

static uint32_t mem_last_end(const struct store_mem *m) { return m->end_count ? m->ends[m->end_count - 1] : 0; }

/* STM-3; without memory for it the transaction counts as synced, and all before it. */
static void mem_keep(struct store_mem *m)
{
    if (m->end_count == m->end_capacity) {
        uint32_t capacity = m->end_capacity ? m->end_capacity * 2 : 64;
        uint32_t *bigger = realloc(m->ends, capacity * sizeof *bigger);
        if (!bigger) {
            mem_forget_undo(m);
            return;
        }
        m->ends = bigger;
        m->end_capacity = capacity;
    }
    if (m->undo_count > mem_last_end(m))
        m->ends[m->end_count++] = m->undo_count;
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
    if (m->keeps)
        mem_keep(m);
    else
        mem_forget_undo(m);
    m->in_txn = m->writing = false;
    return ERR_OK;
}

static void mem_abort(struct store *s)
{
    struct store_mem *m = mem(s);
    ASSERT(m->in_txn);
    mem_take_back(m, mem_last_end(m));
    m->in_txn = m->writing = false;
}

/* --- data --- */

static enum err mem_get(struct store *s, struct bytes key, struct bytes *value_out)
{
    struct node *n = mem_find(mem(s), key);
    if (!node_is(n, key))
        return ERR_NOT_FOUND;
    *value_out = (struct bytes){n->value, n->value_len};
    return ERR_OK;
}

static enum err mem_put(struct store *s, struct bytes key, struct bytes value)
{
    struct store_mem *m = mem(s);
    ASSERT(m->writing && key.len <= STORE_KEY_BYTES_MAX);
    m->cursor = NULL;
    uint8_t *copy = copy_of(value.at, value.len);
    struct undo *u = copy ? mem_note_undo(m, key) : NULL;
    if (!u) {
        free(copy);
        return ERR_NO_MEMORY;
    }
    struct node *n = mem_find(m, key);
    if (!node_is(n, key))
        return mem_insert(m, key, copy, (uint32_t)value.len);
    u->value = n->value;
    u->value_len = n->value_len;
    n->value = copy;
    n->value_len = (uint32_t)value.len;
    return ERR_OK;
}

static enum err mem_del(struct store *s, struct bytes key)
{
    struct store_mem *m = mem(s);
    ASSERT(m->writing);
    m->cursor = NULL;
    if (!node_is(mem_find(m, key), key))
        return ERR_NOT_FOUND;
    struct undo *u = mem_note_undo(m, key);
    if (!u)
        return ERR_NO_MEMORY;
    u->removed = mem_unlink(m, key);
    return ERR_OK;
}

static enum err mem_at_cursor(const struct store_mem *m, struct bytes *key_out, struct bytes *value_out)
{
    if (!m->cursor)
        return ERR_NOT_FOUND;
    *key_out = (struct bytes){m->cursor->key, m->cursor->order.len};
    *value_out = (struct bytes){m->cursor->value, m->cursor->value_len};
    return ERR_OK;
}

static enum err mem_seek(struct store *s, struct bytes key, struct bytes *key_out, struct bytes *value_out)
{
    mem(s)->cursor = mem_find(mem(s), key);
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
    ASSERT(m->writing && m->undo_count == mem_last_end(m));
    mem_forget_undo(m);
    mem_drop_all(m); /* not undone: whoever clears wants nothing back */
    return ERR_OK;
}

static enum err mem_sync(struct store *s)
{
    ASSERT(!mem(s)->in_txn);
    mem_forget_undo(mem(s));
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
    mem_forget_undo(m);
    mem_drop_all(m);
    free(m->undo);
    free(m->ends);
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

/* --- a store that outlives its index --- */

void store_mem_keep(struct store *s) { mem(s)->keeps = true; }

uint32_t store_mem_unsynced(const struct store *s) { return ((const struct store_mem *)(const void *)s)->end_count; }

void store_mem_take_back(struct store *s, uint32_t transactions)
{
    struct store_mem *m = mem(s);
    ASSERT(!m->in_txn && transactions <= m->end_count);
    m->end_count -= transactions;
    mem_take_back(m, mem_last_end(m));
}

enum err store_mem_copy(const struct store *from, struct store **copy_out)
{
    const struct store_mem *m = (const struct store_mem *)(const void *)from;
    struct store *copy;
    enum err e = store_mem_open(&copy);
    if (e != ERR_OK)
        return e;
    for (const struct node *n = m->heads[0]; n && e == ERR_OK; n = n->next[0]) {
        uint8_t *value = copy_of(n->value, n->value_len);
        e = value ? mem_insert(mem(copy), (struct bytes){n->key, n->order.len}, value, n->value_len) : ERR_NO_MEMORY;
    }
    if (e != ERR_OK) {
        store_close(copy);
        return e;
    }
    *copy_out = copy;
    return ERR_OK;
}

bool store_mem_flip(struct store *s, uint64_t number, uint64_t bit)
{
    uint64_t count = 0;
    for (const struct node *n = mem(s)->heads[0]; n; n = n->next[0])
        count += n->value_len > 0;
    for (struct node *n = mem(s)->heads[0]; n && count; n = n->next[0])
        if (n->value_len > 0 && number-- % count == 0) {
            n->value[bit / 8 % n->value_len] ^= (uint8_t)(1u << bit % 8);
            return true;
        }
    return false;
}
