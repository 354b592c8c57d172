/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the memory of answers, in blocks. */
#include "result.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define RESULT_FIRST_BYTES (4u * 1024) /* most answers are "nothing" or a few messages */
#define RESULT_BLOCK_BYTES (64u * 1024)

struct block {
    struct block *next;
    _Alignas(max_align_t) uint8_t bytes[];
};
struct result {
    struct block *blocks;
    uint32_t left, used;
    uint8_t *at;
    _Alignas(max_align_t) uint8_t first[RESULT_FIRST_BYTES];
};

void *result_new(void)
{
    struct result *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    r->blocks = NULL;
    r->used = 0;
    r->left = RESULT_FIRST_BYTES;
    r->at = r->first;
    return r;
}

void *result_bytes(void *result, uint32_t bytes)
{
    struct result *r = result;
    bytes = (bytes + 15u) / 16u * 16u;
    if (r->left < bytes) {
        uint32_t size = bytes > RESULT_BLOCK_BYTES ? bytes : RESULT_BLOCK_BYTES;
        struct block *b = malloc(sizeof *b + size);
        if (!b)
            return NULL;
        b->next = r->blocks;
        r->blocks = b;
        r->at = b->bytes;
        r->left = size;
    }
    uint8_t *at = r->at;
    r->at += bytes;
    r->left -= bytes;
    r->used += bytes;
    memset(at, 0, bytes);
    return at;
}

uint32_t result_used(const void *result)
{
    return ((const struct result *)result)->used;
}

void result_free(void *result)
{
    struct result *r = result;
    if (!r)
        return;
    for (struct block *b = r->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(r);
}
