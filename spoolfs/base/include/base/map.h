/* SPDX-License-Identifier: Apache-2.0 */
/* A growing hash table from 128-bit ids to pointers. Open addressing, linear; no two threads. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

struct map_slot { uint64_t a, b; void *value; }; /* value NULL: empty */
struct map { struct map_slot *slots; uint32_t count, capacity; };

void *map_get(const struct map *m, uint64_t a, uint64_t b);
enum err map_put(struct map *m, uint64_t a, uint64_t b, void *value) MUST_CHECK; /* replaces */
void *map_remove(struct map *m, uint64_t a, uint64_t b);
void map_clear(struct map *m); /* keeps the memory */
void map_free(struct map *m);
/* All values; `at` from 0, until NULL. Nothing may be put or removed between. */
struct map_slot *map_next(const struct map *m, uint32_t *at);

#endif
