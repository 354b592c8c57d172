/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the text forms of identities. Pure. */
#include <base/assert.h>
#include <base/ids.h>
#include <stdio.h>
#include <string.h>

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static void base32_print(uint64_t n, char *text, unsigned width)
{
    for (unsigned i = width; i-- > 0; n >>= 5)
        text[i] = alphabet[n & 31];
    ASSERT(n == 0);
}

void queue_id_print(struct queue_id id, char text[QUEUE_ID_TEXT])
{
    ASSERT(id.counter <= QUEUE_ID_COUNTER_MAX);
    base32_print(id.incarnation, text, 13);
    base32_print(id.counter, text + 13, 8);
    text[21] = '\0';
}

static enum err base32_parse(const char *text, unsigned width, uint64_t *n_out)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < width; i++) {
        char c = text[i];
        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        const char *at = c ? strchr(alphabet, c) : NULL;
        if (!at || (n >> 59) != 0)
            return ERR_INVALID;
        n = (n << 5) | (uint64_t)(at - alphabet);
    }
    *n_out = n;
    return ERR_OK;
}

enum err queue_id_parse(const char *text, size_t len, struct queue_id *id_out)
{
    struct queue_id id;
    if (len != 21 || base32_parse(text, 13, &id.incarnation) || base32_parse(text + 13, 8, &id.counter))
        return ERR_INVALID;
    if (queue_id_is_none(id))
        return ERR_INVALID;
    *id_out = id;
    return ERR_OK;
}

void uuid_print(struct uuid u, char text[UUID_TEXT])
{
    const uint8_t *b = u.b;
    snprintf(text, UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

enum err uuid_parse(const char *text, struct uuid *uuid_out)
{
    struct uuid u;
    int end = 0;
    uint8_t *b = u.b;
    int n = sscanf(text, "%2hhx%2hhx%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx%n",
                   &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7], &b[8], &b[9], &b[10], &b[11], &b[12],
                   &b[13], &b[14], &b[15], &end);
    if (n != 16 || text[end] != '\0')
        return ERR_INVALID;
    *uuid_out = u;
    return ERR_OK;
}
