/* SPDX-License-Identifier: Apache-2.0 */
/* Is this the frame, the record, the image we asked for? Bits, identity, place. Pure; foreign bytes get verdicts. */
#ifndef VERIFY_H
#define VERIFY_H

#include "frame.h"

#include <base/err.h>

/* What verification learned of a frame. Pointers are into its bytes. */
struct frame_view {
    const uint8_t *bytes;
    uint32_t blocks, records_end, record_count;
    struct segment_id segment, moved_from;
    uint64_t offset, sequence, stamp_ms, previous;
    struct digest digest;
};

struct record_view {
    enum record_type type;
    uint8_t flags;
    struct queue_id qid;
    struct segment_id message_segment;
    uint64_t sequence;
    uint32_t arg, length, offset; /* offset in the frame */
    struct digest digest;
    const uint8_t *bytes;         /* of the whole record */
    const uint8_t *envelope;
    uint32_t envelope_bytes;
    const uint8_t *body;          /* payload behind the envelope */
    uint32_t body_bytes;
};

struct digest verify_head_digest(const struct frame_head_disk *head, const struct uuid *pool);
uint64_t verify_block_check(const uint8_t *frame, uint32_t block, uint32_t records_end, const struct frame_identity *id);

/* The head alone (FRAME_HEAD_BYTES): ERR_CORRUPT when its bits are wrong, ERR_IDENTITY when it is another place's. */
enum err verify_head(const uint8_t *bytes, const struct uuid *pool, struct segment_id segment, uint64_t offset,
                     struct frame_view *view_out) MUST_CHECK;
/* All of the frame; `view` comes from verify_head and bytes holds view->blocks blocks. bad_block_out (may be NULL)
 * gets the first bad block. */
enum err verify_frame(const uint8_t *bytes, const struct uuid *pool, const struct frame_view *view,
                      uint32_t *bad_block_out) MUST_CHECK;
/* Whether one block of the frame matches its check, given a frame whose head and checks are good. */
bool verify_block(const uint8_t *block, const uint8_t *checks_frame, const struct uuid *pool,
                  const struct frame_view *view, uint32_t number);
bool verify_checks(const uint8_t *bytes, const struct frame_view *view); /* checks and padding against the head */
/* The record at `offset` of [bytes, end); ERR_CORRUPT. */
enum err verify_record(const uint8_t *bytes, uint32_t offset, uint32_t end, struct record_view *view_out) MUST_CHECK;

/* Image header of a slot. */
struct image_view {
    struct segment_id segment;
    enum segment_kind kind;
    uint32_t slot;
    struct uuid pool, member;
    uint32_t image_count;
    struct { uint16_t member; uint32_t slot; } images[COPIES_MAX];
};
void image_head_encode(const struct image_view *v, uint8_t block[BLOCK_BYTES]);
enum err image_head_decode(const uint8_t block[BLOCK_BYTES], struct image_view *view_out) MUST_CHECK;

#endif
