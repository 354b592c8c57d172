/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the bytes between engine and index. Invariant RING-1: read <= written <= read + capacity. */
#include "ring.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

enum err ring_init(struct ring *r, uint32_t capacity)
{
    ASSERT(capacity && (capacity & (capacity - 1)) == 0);
    r->bytes = malloc(capacity);
    r->capacity = capacity;
    atomic_init(&r->written, 0);
    atomic_init(&r->read, 0);
    return r->bytes ? ERR_OK : ERR_NO_MEMORY;
}

void ring_fini(struct ring *r)
{
    free(r->bytes);
    r->bytes = NULL;
}

uint64_t ring_writing(const struct ring *r)
{
    return atomic_load_explicit(&r->written, memory_order_relaxed);
}

uint64_t ring_reading(const struct ring *r)
{
    return atomic_load_explicit(&r->read, memory_order_relaxed);
}

uint32_t ring_room(const struct ring *r)
{
    uint64_t used = ring_writing(r) - atomic_load_explicit(&r->read, memory_order_acquire);
    ASSERT(used <= r->capacity);
    return r->capacity - (uint32_t)used;
}

uint32_t ring_used(const struct ring *r)
{
    return (uint32_t)(atomic_load(&r->written) - ring_reading(r));
}

void ring_copy_in(struct ring *r, uint64_t *at, const void *bytes, uint32_t len)
{
    uint32_t offset = (uint32_t)*at & (r->capacity - 1), first = r->capacity - offset;
    first = first < len ? first : len;
    if (len) {
        memcpy(r->bytes + offset, bytes, first);
        memcpy(r->bytes, (const uint8_t *)bytes + first, len - first);
    }
    *at += len;
}

void ring_publish(struct ring *r, uint64_t at)
{
    ASSERT(at - atomic_load_explicit(&r->read, memory_order_relaxed) <= r->capacity);
    atomic_store(&r->written, at); /* in one order with a reader's flag that it is about to sleep */
}

void ring_copy_out(const struct ring *r, uint64_t *at, void *bytes, uint32_t len)
{
    uint32_t offset = (uint32_t)*at & (r->capacity - 1), first = r->capacity - offset;
    first = first < len ? first : len;
    if (len) {
        memcpy(bytes, r->bytes + offset, first);
        memcpy((uint8_t *)bytes + first, r->bytes, len - first);
    }
    *at += len;
}

void ring_release(struct ring *r, uint64_t at)
{
    ASSERT(at <= atomic_load_explicit(&r->written, memory_order_relaxed));
    atomic_store_explicit(&r->read, at, memory_order_release);
}
