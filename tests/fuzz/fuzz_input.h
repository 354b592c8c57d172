/* SPDX-License-Identifier: Apache-2.0 */
/* Small numbers out of a fuzzer's input, and patches for structures whose checksums random bytes never meet: the program
 * makes a good one, the input says where to damage it and whether the checksums are made right again afterwards. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct fuzz_input { const uint8_t *at, *end; };

static inline size_t fuzz_left(const struct fuzz_input *in)
{
    return (size_t)(in->end - in->at);
}

/* Little-endian, of `bytes` bytes; what is not there is zero. */
static inline uint64_t fuzz_number(struct fuzz_input *in, unsigned bytes)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < bytes && in->at < in->end; i++)
        n |= (uint64_t)*in->at++ << (8 * i);
    return n;
}

/* One patch: offset (2 bytes), length (1), what (1): 0 set to the bytes that follow, 1 xor with them, 2 fill with one. */
static inline void fuzz_patch(struct fuzz_input *in, uint8_t *target, size_t size)
{
    size_t offset = (size_t)fuzz_number(in, 2) % size, len = (size_t)fuzz_number(in, 1);
    unsigned what = (unsigned)fuzz_number(in, 1) % 3;
    uint8_t fill = what == 2 ? (uint8_t)fuzz_number(in, 1) : 0;
    if (len > size - offset)
        len = size - offset;
    for (size_t i = 0; i < len && (what == 2 || in->at < in->end); i++) {
        uint8_t b = what == 2 ? fill : *in->at++;
        target[offset + i] = what == 1 ? target[offset + i] ^ b : b;
    }
}

#endif
