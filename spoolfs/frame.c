/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the encoding of frames and records. Pure. Its mirror is verify.c; the layout is in <spoolfs/format.h>.
 * Invariants: FRAME-1 (see frame.h); FRAME-2: bytes outside head, records and checks are zero, so that equal
 * frames are equal images. */
#include "frame.h"

#include "verify.h"

#include <base/assert.h>
#include <string.h>

static uint32_t align_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

void frame_init(struct frame *f, uint8_t *buffer)
{
    ASSERT(((uintptr_t)buffer & (BLOCK_BYTES - 1)) == 0);
    *f = (struct frame){.bytes = buffer, .used = FRAME_HEAD_BYTES};
}

uint32_t frame_record_bytes(uint64_t payload)
{
    ASSERT(payload < FRAME_BYTES_MAX);
    return align_up(RECORD_HEAD_BYTES + (uint32_t)payload, RECORD_ALIGN);
}

bool frame_has_room(const struct frame *f, uint64_t record_bytes_total)
{
    return f->used + record_bytes_total + FRAME_BLOCKS_MAX * 8u <= FRAME_BYTES_MAX;
}

static uint8_t *frame_claim(struct frame *f, uint32_t length, uint64_t sequence)
{
    uint32_t whole = align_up(length, RECORD_ALIGN);
    ASSERT(frame_has_room(f, whole));
    uint8_t *at = f->bytes + f->used;
    memset(at + length, 0, whole - length);
    if (f->record_count++ == 0)
        f->sequence = sequence;
    f->used += whole;
    return at;
}

uint32_t frame_add(struct frame *f, const struct record_fields *r)
{
    uint64_t payload = 0;
    for (uint32_t i = 0; i < r->part_count; i++)
        payload += r->parts[i].len;
    uint32_t offset = f->used;
    uint32_t length = RECORD_HEAD_BYTES + (uint32_t)payload;
    uint8_t *at = frame_claim(f, length, r->sequence);
    struct record_head_disk head = {
        .magic = le32_of(RECORD_MAGIC),
        .type = (uint8_t)r->type,
        .flags = r->flags,
        .length = le32_of(length),
        .envelope_bytes = le32_of(r->envelope_bytes),
        .qid = queue_id_disk_of(r->qid),
        .message_segment = segment_id_disk_of(r->message_segment),
        .sequence = le64_of(r->sequence),
        .arg = le32_of(r->arg),
    };
    memcpy(at, &head, sizeof head);
    uint8_t *to = at + RECORD_HEAD_BYTES;
    for (uint32_t i = 0; i < r->part_count; i++) {
        if (r->parts[i].len)
            memcpy(to, r->parts[i].bytes, r->parts[i].len);
        to += r->parts[i].len;
    }
    struct digest_disk d = digest_disk_of(digest_of(at + sizeof d, length - sizeof d));
    memcpy(at, &d, sizeof d);
    return offset;
}

uint32_t frame_add_raw(struct frame *f, const uint8_t *record, uint32_t length, uint64_t sequence)
{
    uint32_t offset = f->used;
    memcpy(frame_claim(f, length, sequence), record, length);
    return offset;
}

uint32_t frame_seal(struct frame *f, const struct frame_identity *id, struct digest *digest_out)
{
    ASSERT(f->record_count > 0);
    uint32_t blocks = 1;
    while (f->used + blocks * 8u > blocks * BLOCK_BYTES)
        blocks = (f->used + blocks * 8u + BLOCK_BYTES - 1) / BLOCK_BYTES;
    ASSERT(blocks <= FRAME_BLOCKS_MAX);
    uint32_t end = blocks * BLOCK_BYTES;
    memset(f->bytes + f->used, 0, end - f->used);
    for (uint32_t i = 0; i < blocks; i++) {
        struct le64 check = le64_of(verify_block_check(f->bytes, i, f->used, id));
        memcpy(f->bytes + f->used + i * 8u, &check, 8);
    }
    struct frame_head_disk head = {
        .magic = le64_of(FRAME_MAGIC),
        .version = le32_of(FORMAT_VERSION),
        .blocks = le32_of(blocks),
        .records_end = le32_of(f->used),
        .record_count = le32_of(f->record_count),
        .segment = segment_id_disk_of(id->segment),
        .offset = le64_of(id->offset),
        .sequence = le64_of(f->sequence),
        .stamp_ms = le64_of(id->stamp_ms),
        .checks = digest_disk_of(digest_of(f->bytes + f->used, end - f->used)),
        .previous = le64_of(id->previous),
        .moved_from = le64_of(id->moved_from.counter),
        .moved_incarnation = le64_of(id->moved_from.incarnation),
    };
    head.digest = digest_disk_of(verify_head_digest(&head, &id->pool));
    memcpy(f->bytes, &head, sizeof head);
    *digest_out = digest_disk_get(head.digest);
    return blocks;
}
