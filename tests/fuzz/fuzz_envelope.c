/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes and marks of arbitrary bytes: a verdict; a walk stays inside (ENV-2); what decodes encodes to the same bytes
 * (ENV-1). The first byte chooses. */
#include "fuzz_input.h"

#include <base/assert.h>
#include <spoolfs/envelope.h>
#include <spoolfs/limits.h>
#include <stdlib.h>

#define MARKS_MAX 512u

static void try_envelope(const uint8_t *bytes, uint32_t len)
{
    struct envelope e;
    struct envelope_cursor cursor;
    struct envelope_writer w;
    const char *address;
    uint32_t address_len, count = 0;
    if (envelope_decode(bytes, len, &e) != ERR_OK)
        return;
    uint8_t *again = malloc(len);
    ASSERT(again && envelope_begin(&w, again, len, &e) == ERR_OK);
    envelope_recipients(&e, &cursor);
    while (envelope_recipient_next(&cursor, &address, &address_len)) {
        ASSERT((const uint8_t *)address >= bytes && (const uint8_t *)address + address_len <= bytes + len);
        ASSERT(envelope_add_recipient(&w, address, address_len) == ERR_OK);
        (void)envelope_destination(address, address_len);
        count++;
    }
    struct envelope_origin o = {0}, of = {0};
    struct envelope_cursor again_from;
    uint32_t origins = 0;
    envelope_origins(&e, &cursor);
    envelope_origins(&e, &again_from);
    for (uint32_t next = 0; envelope_origin_next(&cursor, &o); next = o.first + o.count, origins++) {
        ASSERT(o.first >= next && o.first + o.count <= e.recipient_count && envelope_add_origin(&w, &o) == ERR_OK);
        const struct envelope_origin *found = envelope_origin_of(&again_from, &of, o.first);
        ASSERT(found && found->address == o.address && found->sender == o.sender);
    }
    ASSERT(origins == e.origin_count);
    ASSERT(count == e.recipient_count && envelope_end(&w, e.body_bytes, e.flags) == len);
    ASSERT(memcmp(again, bytes, len) == 0);
    free(again);
}

static void try_marks(const uint8_t *bytes, uint32_t len)
{
    static struct mark marks[MARKS_MAX];
    struct mark_cursor cursor;
    uint32_t count, at = 0, again_len;
    if (mark_check(bytes, len, &count) != ERR_OK || count > MARKS_MAX)
        return;
    mark_begin(&cursor, bytes, len);
    while (at < count && mark_next(&cursor, &marks[at]))
        at++;
    struct mark none;
    ASSERT(at == count && !mark_next(&cursor, &none));
    uint8_t *again = malloc(len + 1u);
    ASSERT(again && mark_encode(again, len, marks, count, &again_len) == ERR_OK && again_len == len);
    ASSERT(len == 0 || memcmp(again, bytes, len) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0 || len > ENVELOPE_BYTES_MAX)
        return 0;
    uint8_t *exact = malloc(len);
    ASSERT(exact);
    memcpy(exact, bytes + 1, len - 1);
    (bytes[0] & 1 ? try_marks : try_envelope)(exact, (uint32_t)len - 1);
    free(exact);
    return 0;
}
