/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded text: always terminated, cut when too long. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <string.h>

static inline void text_copy(char *to, size_t room, const char *from)
{
    size_t len = strnlen(from, room - 1);
    memmove(to, from, len);
    to[len] = '\0';
}

#endif
