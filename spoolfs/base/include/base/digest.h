/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3: the only door to xxHash. 128 bits prove content, 64 bits locate a bad block. */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest { uint64_t lo, hi; };

struct digest digest_of(const void *bytes, size_t len);
uint64_t digest64_of(const void *bytes, size_t len, uint64_t seed);

static inline bool digest_equal(struct digest a, struct digest b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* Several pieces, one digest: digest_of over their concatenation. */
struct digest_piece { const void *bytes; size_t len; };
struct digest digest_of_pieces(const struct digest_piece *pieces, unsigned count);

#endif
