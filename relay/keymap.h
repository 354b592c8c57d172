/* SPDX-License-Identifier: Apache-2.0 */
/* A table from byte strings to numbers, and the row of bytes it keeps its keys in: what the map files of transport_maps
 * and alias_maps become. Grows, never shrinks. Pure but for its memory.
 *
 *  KEY-1  a key stands once; its bytes are compared, not only their digest. */
#ifndef RELAY_KEYMAP_H
#define RELAY_KEYMAP_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

/* Bytes one behind the other, named by where they begin. All zeros: empty. */
struct arena { char *bytes; uint32_t used, capacity; };
enum err arena_add(struct arena *a, const char *bytes, uint32_t len, uint32_t *at_out) MUST_CHECK; /* ERR_TOO_LARGE at 2 GiB */

struct keymap_entry { uint32_t key_at, key_len, value; }; /* key_len 0: an empty place */
struct keymap { struct keymap_entry *entries; uint32_t count, mask; struct arena keys; }; /* all zeros: empty */

/* len > 0. ERR_EXISTS; ERR_TOO_LARGE at entries_max; ERR_NO_MEMORY. */
enum err keymap_add(struct keymap *m, const char *key, uint32_t len, uint32_t value, uint32_t entries_max) MUST_CHECK;
uint32_t *keymap_value(const struct keymap *m, const char *key, uint32_t len); /* NULL: not there */
bool keymap_find(const struct keymap *m, const char *key, uint32_t len, uint32_t *value_out);
void keymap_clear(struct keymap *m); /* forgets the entries, keeps the memory */
void keymap_free(struct keymap *m);

#endif
