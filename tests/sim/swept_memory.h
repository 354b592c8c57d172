/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's allocations in the sweeps (tests/CMakeLists.txt gives them these names): counted, and refused from a
 * chosen one on. What others allocate is not touched. */
#ifndef SWEPT_MEMORY_H
#define SWEPT_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct swept_memory {
    uint64_t count;      /* so far */
    uint64_t refuse_at;  /* UINT64_MAX: none */
    bool stays;          /* that one and all after it */
    uint64_t until_ns;   /* with stays: by the clock below, for so long; 0: for ever */
    uint64_t (*now_ns)(void);
};
extern struct swept_memory swept_memory;

#endif
