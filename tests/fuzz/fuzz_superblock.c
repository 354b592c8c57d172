/* SPDX-License-Identifier: Apache-2.0 */
/* Superblocks and image headers under damage: a verdict, and what is taken for good says the same after another round
 * through the encoder. Input: one byte (bit 0: an image header; bit 1: the digest is made right; bit 2: nothing but the
 * input's own bytes), then patches. */
#include "engine.h"
#include "fuzz_input.h"

#include <stdlib.h>

static void good_superblock(uint8_t bytes[SUPERBLOCK_BYTES])
{
    struct superblock s = {.copies = 2, .slot_count = 40, .slot_bytes = 2 * MIB, .slots_offset = 2 * SUPERBLOCK_BYTES,
                           .member_bytes = 81 * MIB, .durable_by = IO_DURABLE_FLUSH, .epoch = 3, .update = 4,
                           .incarnation = 5, .clock_ms = UINT64_C(1700000000000), .clean = true, .table = {5, 1},
                           .pool = {{1}}, .member = {{2}}};
    for (uint32_t i = 0; i < 3; i++) {
        s.members[i].used = s.members[i].in_sync = true;
        s.members[i].uuid.b[0] = (uint8_t)(2 + i);
        s.members[i].slot_count = 40;
        s.members[i].name[0] = (char)('a' + i);
    }
    superblock_encode(&s, bytes);
}

static void try_superblock(const uint8_t *bytes)
{
    struct superblock first, second;
    static uint8_t again[SUPERBLOCK_BYTES], twice[SUPERBLOCK_BYTES];
    if (superblock_decode(bytes, &first) != ERR_OK)
        return;
    ASSERT(first.slots_offset <= first.member_bytes &&
           (uint64_t)first.slot_count * first.slot_bytes <= first.member_bytes - first.slots_offset);
    ASSERT(first.member_number < MEMBERS_MAX && first.copies <= COPIES_MAX);
    superblock_encode(&first, again);
    ASSERT(superblock_decode(again, &second) == ERR_OK);
    superblock_encode(&second, twice);
    ASSERT(memcmp(again, twice, sizeof again) == 0);
}

static void good_image(uint8_t bytes[BLOCK_BYTES])
{
    struct image_view v = {.segment = {5, 9}, .kind = SEGMENT_MAIL, .slot = 7, .pool = {{1}}, .member = {{2}},
                           .image_count = 2, .images = {{0, 7}, {1, 3}}};
    image_head_encode(&v, bytes);
}

static void try_image(const uint8_t *bytes)
{
    struct image_view first, second;
    uint8_t again[BLOCK_BYTES], twice[BLOCK_BYTES];
    if (image_head_decode(bytes, &first) != ERR_OK)
        return;
    ASSERT(first.image_count >= 1 && first.image_count <= COPIES_MAX);
    image_head_encode(&first, again);
    ASSERT(image_head_decode(again, &second) == ERR_OK);
    image_head_encode(&second, twice);
    ASSERT(memcmp(again, twice, sizeof again) == 0);
}

static void set_digest(uint8_t *bytes, size_t size, size_t at)
{
    struct digest_disk d = digest_disk_of(digest_of(bytes + at + sizeof d, size - at - sizeof d));
    memcpy(bytes + at, &d, sizeof d);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input in = {bytes, bytes + len};
    unsigned options = (unsigned)fuzz_number(&in, 1);
    bool image = options & 1;
    size_t size = image ? BLOCK_BYTES : SUPERBLOCK_BYTES;
    uint8_t *exact = calloc(1, size);
    ASSERT(exact);
    if (options & 4)
        memcpy(exact, in.at, fuzz_left(&in) < size ? fuzz_left(&in) : size);
    else
        (image ? good_image : good_superblock)(exact);
    while (!(options & 4) && in.at < in.end)
        fuzz_patch(&in, exact, size);
    if (options & 2)
        set_digest(exact, size, image ? 0 : 8);
    (image ? try_image : try_superblock)(exact);
    free(exact);
    return 0;
}
