/* SPDX-License-Identifier: Apache-2.0 */
/* See swept_memory.h. */
#include "swept_memory.h"

#include <errno.h>
#include <stdlib.h>

struct swept_memory swept_memory = {.refuse_at = UINT64_MAX};

void *swept_malloc(size_t bytes);
void *swept_calloc(size_t count, size_t bytes);
void *swept_realloc(void *old, size_t bytes);
void *swept_reallocarray(void *old, size_t count, size_t bytes);
int swept_posix_memalign(void **to, size_t alignment, size_t bytes);

static bool refuses(void)
{
    struct swept_memory *m = &swept_memory;
    uint64_t at = m->count++;
    bool now = at == m->refuse_at || (m->stays && at > m->refuse_at);
    if (now && m->until_ns && m->now_ns() >= m->until_ns)
        now = m->stays = false;
    if (now)
        errno = ENOMEM;
    return now;
}

void *swept_malloc(size_t bytes)
{
    return refuses() ? NULL : malloc(bytes);
}

void *swept_calloc(size_t count, size_t bytes)
{
    return refuses() ? NULL : calloc(count, bytes);
}

void *swept_realloc(void *old, size_t bytes)
{
    return refuses() ? NULL : realloc(old, bytes);
}

void *swept_reallocarray(void *old, size_t count, size_t bytes)
{
    return refuses() ? NULL : reallocarray(old, count, bytes);
}

int swept_posix_memalign(void **to, size_t alignment, size_t bytes)
{
    return refuses() ? ENOMEM : posix_memalign(to, alignment, bytes);
}
