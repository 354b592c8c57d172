/* SPDX-License-Identifier: Apache-2.0 */
/* The notice board: one writer, a sequence that is odd while it writes. See board.h. */
#include "board.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *const kinds[] = {"status", "text", "metrics", "health"};
#define KINDS (sizeof kinds / sizeof kinds[0])
#define TRIES 8

struct board {
    _Atomic uint32_t sequence;
    uint32_t len[KINDS];
    char bytes[KINDS][BOARD_DOCUMENT_BYTES_MAX];
};

struct board *board_make(void)
{
    void *memory = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static unsigned kind_number(const char *kind)
{
    unsigned i = 0;
    while (i < KINDS && strcmp(kinds[i], kind) != 0)
        i++;
    return i;
}

static void write_begin(struct board *b)
{
    /* a writer that was killed in the middle left it odd */
    atomic_store_explicit(&b->sequence, atomic_load_explicit(&b->sequence, memory_order_relaxed) | 1u, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void write_end(struct board *b)
{
    atomic_store_explicit(&b->sequence, atomic_load_explicit(&b->sequence, memory_order_relaxed) + 1, memory_order_release);
}

void board_post(struct board *b, const char *kind, const char *bytes, uint32_t len)
{
    unsigned i = kind_number(kind);
    if (!b || i == KINDS || len > BOARD_DOCUMENT_BYTES_MAX)
        return;
    write_begin(b);
    memcpy(b->bytes[i], bytes, len);
    b->len[i] = len;
    write_end(b);
}

void board_clear(struct board *b)
{
    if (!b)
        return;
    write_begin(b);
    memset(b->len, 0, sizeof b->len);
    write_end(b);
}

enum err board_read(struct board *b, const char *kind, char **bytes_out, uint32_t *len_out)
{
    unsigned i = kind_number(kind);
    if (!b || i == KINDS || b->len[i] == 0)
        return ERR_NOT_FOUND;
    char *copy = malloc(BOARD_DOCUMENT_BYTES_MAX + 1);
    if (!copy)
        return ERR_NO_MEMORY;
    for (int try = 0; try < TRIES; try++) {
        uint32_t before = atomic_load_explicit(&b->sequence, memory_order_acquire), len = b->len[i];
        if ((before & 1) || len == 0 || len > BOARD_DOCUMENT_BYTES_MAX)
            continue;
        memcpy(copy, b->bytes[i], len);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&b->sequence, memory_order_relaxed) != before)
            continue;
        copy[len] = '\0';
        *bytes_out = copy;
        *len_out = len;
        return ERR_OK;
    }
    free(copy);
    return ERR_BUSY;
}
