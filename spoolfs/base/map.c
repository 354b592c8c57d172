/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the hash table of map.h. Invariant MAP-1: no chain has a hole, and at most half of the slots are taken. */
#include <base/map.h>

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

#define MAP_CAPACITY_MIN 64u

static uint32_t map_home(const struct map *m, uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    h ^= h >> 29;
    return (uint32_t)((h * UINT64_C(0x94d049bb133111eb)) >> 32) & (m->capacity - 1);
}

/* Where the id is, or the empty slot it would take. */
static uint32_t map_find(const struct map *m, uint64_t a, uint64_t b)
{
    uint32_t i = map_home(m, a, b);
    while (m->slots[i].value && (m->slots[i].a != a || m->slots[i].b != b))
        i = (i + 1) & (m->capacity - 1);
    return i;
}

void *map_get(const struct map *m, uint64_t a, uint64_t b)
{
    return m->capacity ? m->slots[map_find(m, a, b)].value : NULL;
}

static enum err map_grow(struct map *m)
{
    struct map bigger = {.capacity = m->capacity ? m->capacity * 2 : MAP_CAPACITY_MIN, .count = m->count};
    bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
    if (!bigger.slots)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < m->capacity; i++)
        if (m->slots[i].value)
            bigger.slots[map_find(&bigger, m->slots[i].a, m->slots[i].b)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return ERR_OK;
}

enum err map_put(struct map *m, uint64_t a, uint64_t b, void *value)
{
    ASSERT(value);
    if ((m->count + 1) * 2 > m->capacity && map_grow(m) != ERR_OK)
        return ERR_NO_MEMORY;
    struct map_slot *s = &m->slots[map_find(m, a, b)];
    m->count += s->value == NULL;
    *s = (struct map_slot){a, b, value};
    return ERR_OK;
}

void *map_remove(struct map *m, uint64_t a, uint64_t b)
{
    if (!m->capacity)
        return NULL;
    uint32_t hole = map_find(m, a, b);
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    m->count--;
    m->slots[hole].value = NULL;
    for (uint32_t i = (hole + 1) & (m->capacity - 1); m->slots[i].value; i = (i + 1) & (m->capacity - 1)) {
        uint32_t home = map_home(m, m->slots[i].a, m->slots[i].b);
        bool stays = hole < i ? home > hole && home <= i : home > hole || home <= i;
        if (stays)
            continue;
        m->slots[hole] = m->slots[i];
        m->slots[i].value = NULL;
        hole = i;
    }
    return value;
}

void map_clear(struct map *m)
{
    if (m->count)
        memset(m->slots, 0, m->capacity * sizeof *m->slots);
    m->count = 0;
}

void map_free(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}

struct map_slot *map_next(const struct map *m, uint32_t *at)
{
    while (*at < m->capacity)
        if (m->slots[(*at)++].value)
            return &m->slots[*at - 1];
    return NULL;
}
