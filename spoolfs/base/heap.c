/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the order of timers. Invariant HEAP-1: nodes[n->at] == n for every node inside. */
#include <base/assert.h>
#include <base/heap.h>

static bool before(const struct heap_node *a, const struct heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

static void put(struct heap *h, uint32_t at, struct heap_node *n)
{
    h->nodes[at] = n;
    n->at = at;
}

static void sift_up(struct heap *h, struct heap_node *n)
{
    uint32_t at = n->at;
    while (at > 0 && before(n, h->nodes[(at - 1) / 2])) {
        put(h, at, h->nodes[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(h, at, n);
}

static void sift_down(struct heap *h, struct heap_node *n)
{
    uint32_t at = n->at;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!before(h->nodes[child], n))
            break;
        put(h, at, h->nodes[child]);
        at = child;
    }
    put(h, at, n);
}

void heap_init(struct heap *h, struct heap_node **nodes, uint32_t capacity)
{
    *h = (struct heap){.nodes = nodes, .capacity = capacity};
}

enum err heap_push(struct heap *h, struct heap_node *n, uint64_t key)
{
    ASSERT(n->at == HEAP_OUT);
    if (h->count == h->capacity)
        return ERR_BUSY;
    n->key = key;
    n->tie = h->pushed++;
    put(h, h->count++, n);
    sift_up(h, n);
    return ERR_OK;
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    ASSERT(n->at < h->count && h->nodes[n->at] == n);
    struct heap_node *last = h->nodes[--h->count];
    uint32_t at = n->at;
    n->at = HEAP_OUT;
    if (last == n)
        return;
    put(h, at, last);
    sift_up(h, last);
    sift_down(h, last);
}

struct heap_node *heap_pop(struct heap *h)
{
    struct heap_node *n = heap_top(h);
    if (n)
        heap_remove(h, n);
    return n;
}
