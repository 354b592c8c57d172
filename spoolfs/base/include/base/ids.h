/* SPDX-License-Identifier: Apache-2.0 */
/* Identities. An id is (incarnation, counter): random per writable mount, then rising; never a clock. */
#ifndef BASE_IDS_H
#define BASE_IDS_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue_id { uint64_t incarnation, counter; };
struct segment_id { uint64_t incarnation, counter; };
struct uuid { uint8_t b[16]; };

/* Text form of a queue id: 21 characters, Crockford base 32, upper case, fixed width, sorts as the id. */
#define QUEUE_ID_TEXT 22
/* counters above this do not fit the text form: 40 bits, a million messages a second for 12 days a mount,
 * and a mount at the limit draws a new incarnation */
#define QUEUE_ID_COUNTER_MAX ((UINT64_C(1) << 40) - 1)
void queue_id_print(struct queue_id id, char text[QUEUE_ID_TEXT]);
enum err queue_id_parse(const char *text, size_t len, struct queue_id *id_out) MUST_CHECK;

#define UUID_TEXT 37
void uuid_print(struct uuid u, char text[UUID_TEXT]);
enum err uuid_parse(const char *text, struct uuid *uuid_out) MUST_CHECK;

static inline bool queue_id_equal(struct queue_id a, struct queue_id b)
{
    return a.incarnation == b.incarnation && a.counter == b.counter;
}
static inline bool queue_id_is_none(struct queue_id a) { return a.incarnation == 0; }
static inline bool segment_id_equal(struct segment_id a, struct segment_id b)
{
    return a.incarnation == b.incarnation && a.counter == b.counter;
}
static inline bool segment_id_is_none(struct segment_id a) { return a.incarnation == 0; }
static inline bool uuid_equal(struct uuid a, struct uuid b)
{
    return __builtin_memcmp(a.b, b.b, sizeof a.b) == 0;
}

#endif
