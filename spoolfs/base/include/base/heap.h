/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive binary min-heap by a 64-bit key, for timers and due times.
 * The owner gives the array; the capacity is a declared bound. Equal keys pop in push order. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

#define HEAP_OUT UINT32_MAX

struct heap_node {
    uint64_t key;
    uint64_t tie;  /* owned by the heap */
    uint32_t at;   /* position, HEAP_OUT when not in a heap; must be initialised with heap_node_init */
};

struct heap {
    struct heap_node **nodes;
    uint32_t count, capacity;
    uint64_t pushed;
};

static inline void heap_node_init(struct heap_node *n) { n->at = HEAP_OUT; }
static inline bool heap_node_in(const struct heap_node *n) { return n->at != HEAP_OUT; }
static inline struct heap_node *heap_top(const struct heap *h) { return h->count ? h->nodes[0] : (struct heap_node *)0; }

void heap_init(struct heap *h, struct heap_node **nodes, uint32_t capacity);
enum err heap_push(struct heap *h, struct heap_node *n, uint64_t key) MUST_CHECK; /* ERR_BUSY at capacity */
void heap_remove(struct heap *h, struct heap_node *n);
struct heap_node *heap_pop(struct heap *h);

#endif
