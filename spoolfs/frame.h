/* SPDX-License-Identifier: Apache-2.0 */
/* Gather records into a frame and seal it. Pure: bytes in, bytes out. */
#ifndef FRAME_H
#define FRAME_H

#include <spoolfs/format.h>
#include <spoolfs/record.h>

struct frame_identity {
    struct uuid pool;          /* salts every check: a frame of another pool never verifies */
    struct segment_id segment;
    uint64_t offset;
    uint64_t previous;         /* low half of the digest of the frame before */
    struct segment_id moved_from;
    uint64_t stamp_ms;
};

struct record_fields {
    enum record_type type;
    uint8_t flags;
    struct queue_id qid;
    struct segment_id message_segment;
    uint64_t sequence;
    uint32_t arg, envelope_bytes;
    const struct digest_piece *parts;
    uint32_t part_count;
};

/* A frame under construction in a buffer of FRAME_BYTES_MAX, BLOCK_BYTES aligned. */
struct frame {
    uint8_t *bytes;
    uint32_t used;             /* end of records */
    uint32_t record_count;
    uint64_t sequence;         /* of the first record */
};

void frame_init(struct frame *f, uint8_t *buffer);
/* Bytes a record with this payload takes. */
uint32_t frame_record_bytes(uint64_t payload);
/* FRAME-1: what has room now still fits together with its block checks when sealed. */
bool frame_has_room(const struct frame *f, uint64_t record_bytes_total);
/* Copies the record in; returns its offset in the frame. The caller asked frame_has_room. */
uint32_t frame_add(struct frame *f, const struct record_fields *r);
/* Copies a whole record (head and payload) byte for byte. */
uint32_t frame_add_raw(struct frame *f, const uint8_t *record, uint32_t length, uint64_t sequence);
/* Pads, checks, writes the head. Returns the frame's length in blocks; may be repeated with another identity. */
uint32_t frame_seal(struct frame *f, const struct frame_identity *id, struct digest *digest_out);

#endif
