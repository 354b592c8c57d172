/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and records under damage: a verdict; nothing outside the frame is read (VER-2); damage whose checksums were not
 * made right is never taken for good. Input: one byte (bit 0: the checks, bit 1: the head's digest, bit 2: records'
 * digests are made right; bit 3: the input's own bytes as a record), then patches. */
#include "fuzz_input.h"
#include "verify.h"

#include <base/assert.h>
#include <stdlib.h>

static const struct uuid pool = {{7}};
static const struct frame_identity identity = {.pool = {{7}}, .segment = {11, 12}, .offset = 8 * BLOCK_BYTES,
                                               .stamp_ms = UINT64_C(1700000000000), .previous = 99};
static uint8_t *sealed; /* FRAME_BYTES_MAX, aligned */
static uint32_t sealed_bytes;

static void seal_once(void)
{
    static uint8_t payload[6000];
    struct digest digest;
    struct frame f;
    sealed = aligned_alloc(BLOCK_BYTES, FRAME_BYTES_MAX);
    ASSERT(sealed);
    for (uint32_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 7);
    frame_init(&f, sealed);
    for (uint32_t i = 0; i < 4; i++) {
        struct digest_piece part = {payload, i == 3 ? 0 : 100 + i * 2900u};
        frame_add(&f, &(struct record_fields){.type = i == 3 ? RECORD_RETIRE : RECORD_MESSAGE, .qid = {11, i + 1},
                                              .sequence = i + 1, .envelope_bytes = i == 3 ? 0 : 60, .parts = &part,
                                              .part_count = 1});
    }
    sealed_bytes = frame_seal(&f, &identity, &digest) * BLOCK_BYTES;
}

/* Walks like a reader does. Returns the records found. */
static uint32_t walk(const uint8_t *bytes, uint32_t end)
{
    struct record_view r;
    uint32_t at = FRAME_HEAD_BYTES, count = 0;
    while (at < end && verify_record(bytes, at, end, &r) == ERR_OK) {
        ASSERT(r.length >= RECORD_HEAD_BYTES && r.offset + r.length <= end);
        ASSERT(r.envelope + r.envelope_bytes == r.body && r.body + r.body_bytes == r.bytes + r.length);
        at += (r.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        count++;
    }
    return count;
}

static void mend_records(uint8_t *bytes)
{
    uint32_t end = sealed_bytes, at = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < 4 && at + RECORD_HEAD_BYTES <= end; i++) {
        struct record_head_disk h;
        memcpy(&h, bytes + at, sizeof h);
        uint32_t length = le32_get(h.length);
        if (length < RECORD_HEAD_BYTES || length > end - at)
            return;
        h.digest = digest_disk_of(digest_of(bytes + at + sizeof h.digest, length - sizeof h.digest));
        memcpy(bytes + at, &h.digest, sizeof h.digest);
        at += (length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
    }
}

static void mend(uint8_t *bytes, unsigned options)
{
    struct frame_head_disk h;
    if (options & 4)
        mend_records(bytes);
    memcpy(&h, bytes, sizeof h);
    uint32_t end = le32_get(h.records_end), blocks = sealed_bytes / BLOCK_BYTES;
    if (options & 1 && end >= FRAME_HEAD_BYTES && (uint64_t)end + blocks * 8u <= sealed_bytes) {
        for (uint32_t i = 0; i < blocks; i++) {
            struct le64 check = le64_of(verify_block_check(bytes, i, end, &identity));
            memcpy(bytes + end + i * 8u, &check, 8);
        }
        h.checks = digest_disk_of(digest_of(bytes + end, sealed_bytes - end));
    }
    if (options & 3)
        h.digest = digest_disk_of(verify_head_digest(&h, &pool));
    memcpy(bytes, &h, sizeof h);
}

static void try_frame(uint8_t *bytes, bool forged)
{
    struct frame_view view;
    uint32_t bad = UINT32_MAX;
    if (verify_head(bytes, &pool, identity.segment, identity.offset, &view) != ERR_OK)
        return;
    ASSERT(view.blocks <= FRAME_BLOCKS_MAX && view.records_end <= view.blocks * BLOCK_BYTES);
    if (view.blocks * BLOCK_BYTES > sealed_bytes)
        return; /* the reader would read more first */
    enum err e = verify_frame(bytes, &pool, &view, &bad);
    ASSERT(e == ERR_OK || bad < view.blocks);
    if (e != ERR_OK)
        return;
    uint32_t found = walk(bytes, view.records_end);
    ASSERT(forged || (found == view.record_count && memcmp(bytes, sealed, sealed_bytes) == 0));
}

static void try_record(const struct fuzz_input *in)
{
    size_t len = fuzz_left(in);
    uint8_t *exact = malloc(len + 1);
    ASSERT(exact);
    memcpy(exact, in->at, len);
    struct record_view r;
    for (uint32_t at = 0; at < len && at < 64; at++)
        ASSERT(verify_record(exact, at, (uint32_t)len, &r) != ERR_OK || r.offset + r.length <= len);
    (void)walk(exact, (uint32_t)len);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input in = {bytes, bytes + len};
    unsigned options = (unsigned)fuzz_number(&in, 1);
    if (!sealed)
        seal_once();
    if (options & 8) {
        try_record(&in);
        return 0;
    }
    uint8_t *exact = malloc(sealed_bytes);
    ASSERT(exact);
    memcpy(exact, sealed, sealed_bytes);
    while (in.at < in.end)
        fuzz_patch(&in, exact, sealed_bytes);
    mend(exact, options);
    try_frame(exact, options & 7);
    free(exact);
    return 0;
}
