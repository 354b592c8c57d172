/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of one answer: handed out in pieces, freed at once. */
#ifndef INDEX_RESULT_H
#define INDEX_RESULT_H

#include <stdint.h>

void *result_new(void);
void *result_bytes(void *result, uint32_t bytes); /* aligned for anything, zeroed; NULL: no memory */
uint32_t result_used(const void *result);
void result_free(void *result);

#endif
