/* SPDX-License-Identifier: Apache-2.0 */
/* The wire's decoder under arbitrary bytes: a verdict, nothing read past the end (WIRE-1), rows inside the message, and
 * what it accepts is exactly what the encoder writes (WIRE-4). The first byte chooses the side. */
#include <spoolfs/wire.h>

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

static void check_row(struct wire_bytes row, const uint8_t *begin, const uint8_t *end)
{
    ASSERT(row.len == 0 || (row.bytes >= begin && row.bytes + row.len <= end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_message m;
    uint32_t used;
    if (size == 0)
        return 0;
    char side = data[0] & 1 ? 'r' : 's';
    const uint8_t *at = data + 1;
    size_t len = size - 1;
    while (wire_decode(at, len, side, &m, &used) == ERR_OK) {
        ASSERT(used >= WIRE_HEAD_BYTES && used <= len && used == wire_encoded_bytes(&m));
        check_row(m.envelope, at, at + used);
        check_row(m.marks, at, at + used);
        check_row(m.body, at, at + used);
        uint8_t *again = malloc(used);
        ASSERT(again && wire_encode(again, &m) == used && memcmp(again, at, used) == 0);
        free(again);
        at += used;
        len -= used;
    }
    return 0;
}
