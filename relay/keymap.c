/* SPDX-License-Identifier: Apache-2.0 */
/* An open-addressed hash, at most half full, over one row of key bytes. See keymap.h. */
#include "keymap.h"

#include <base/assert.h>
#include <base/digest.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MIN 64u
#define ARENA_MIN 4096u
#define ARENA_MAX (UINT32_C(1) << 31)

enum err arena_add(struct arena *a, const char *bytes, uint32_t len, uint32_t *at_out)
{
    if (len > ARENA_MAX - a->used)
        return ERR_TOO_LARGE;
    if (a->capacity - a->used < len) {
        uint64_t capacity = a->capacity ? a->capacity * UINT64_C(2) : ARENA_MIN;
        while (capacity - a->used < len)
            capacity *= 2;
        char *grown = realloc(a->bytes, capacity);
        if (!grown)
            return ERR_NO_MEMORY;
        a->bytes = grown;
        a->capacity = (uint32_t)capacity;
    }
    memcpy(a->bytes + a->used, bytes, len);
    *at_out = a->used;
    a->used += len;
    return ERR_OK;
}

static struct keymap_entry *place_of(const struct keymap *m, const char *key, uint32_t len)
{
    uint32_t at = (uint32_t)digest64_of(key, len, 0) & m->mask;
    while (m->entries[at].key_len > 0) {
        const struct keymap_entry *e = &m->entries[at];
        if (e->key_len == len && memcmp(m->keys.bytes + e->key_at, key, len) == 0)
            break; /* KEY-1 */
        at = (at + 1) & m->mask;
    }
    return &m->entries[at];
}

static enum err grow(struct keymap *m)
{
    struct keymap_entry *old = m->entries;
    uint32_t old_size = old ? m->mask + 1 : 0, size = old ? old_size * 2 : ENTRIES_MIN;
    struct keymap_entry *entries = calloc(size, sizeof *entries);
    if (!entries)
        return ERR_NO_MEMORY;
    m->entries = entries;
    m->mask = size - 1;
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i].key_len > 0)
            *place_of(m, m->keys.bytes + old[i].key_at, old[i].key_len) = old[i];
    free(old);
    return ERR_OK;
}

enum err keymap_add(struct keymap *m, const char *key, uint32_t len, uint32_t value, uint32_t entries_max)
{
    ASSERT(len > 0);
    if (m->count >= entries_max)
        return ERR_TOO_LARGE;
    if (!m->entries || m->count * 2 > m->mask) {
        enum err e = grow(m);
        if (e)
            return e;
    }
    struct keymap_entry *place = place_of(m, key, len);
    if (place->key_len > 0)
        return ERR_EXISTS;
    uint32_t at;
    enum err e = arena_add(&m->keys, key, len, &at);
    if (e)
        return e;
    *place = (struct keymap_entry){.key_at = at, .key_len = len, .value = value};
    m->count++;
    return ERR_OK;
}

uint32_t *keymap_value(const struct keymap *m, const char *key, uint32_t len)
{
    if (m->count == 0 || len == 0)
        return NULL;
    struct keymap_entry *e = place_of(m, key, len);
    return e->key_len ? &e->value : NULL;
}

bool keymap_find(const struct keymap *m, const char *key, uint32_t len, uint32_t *value_out)
{
    const uint32_t *value = keymap_value(m, key, len);
    if (value)
        *value_out = *value;
    return value != NULL;
}

void keymap_clear(struct keymap *m)
{
    if (m->entries)
        memset(m->entries, 0, (m->mask + UINT64_C(1)) * sizeof *m->entries);
    m->count = 0;
    m->keys.used = 0;
}

void keymap_free(struct keymap *m)
{
    free(m->entries);
    free(m->keys.bytes);
    *m = (struct keymap){0};
}
