/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of bytes between one writer and one reader, who may be two threads. What is written wraps anywhere, so room is
 * exact: entries that fit by their sum fit one by one. Neither side ever waits. */
#ifndef INDEX_RING_H
#define INDEX_RING_H

#include <base/err.h>
#include <stdatomic.h>
#include <stdint.h>

struct ring {
    uint8_t *bytes;
    uint32_t capacity;              /* a power of two */
    _Atomic uint64_t written, read; /* totals since the start */
};

enum err ring_init(struct ring *r, uint32_t capacity) MUST_CHECK;
void ring_fini(struct ring *r);
uint32_t ring_room(const struct ring *r); /* the writer's view: never less later */
uint32_t ring_used(const struct ring *r); /* the reader's view */
/* The writer: copies at `*at`, a total that starts as ring_writing(); seen by the reader after ring_publish. */
uint64_t ring_writing(const struct ring *r);
void ring_copy_in(struct ring *r, uint64_t *at, const void *bytes, uint32_t len);
void ring_publish(struct ring *r, uint64_t at);
/* The reader: the same the other way round. */
uint64_t ring_reading(const struct ring *r);
void ring_copy_out(const struct ring *r, uint64_t *at, void *bytes, uint32_t len);
void ring_release(struct ring *r, uint64_t at);

#endif
