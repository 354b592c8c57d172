/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the verdict on bytes that come from a member. Pure. Every check is salted with pool, segment and offset, so
 * that data of another place, time or pool fails without any other lookup (VER-1). Every length is bounded before it
 * is used (VER-2). Its mirror is frame.c. */
#include "verify.h"

#include <base/assert.h>
#include <base/planted.h>
#include <string.h>

struct digest verify_head_digest(const struct frame_head_disk *head, const struct uuid *pool)
{
    uint8_t salted[16 + FRAME_HEAD_BYTES - sizeof head->digest];
    memcpy(salted, pool->b, 16);
    memcpy(salted + 16, (const uint8_t *)head + sizeof head->digest, sizeof salted - 16);
    return digest_of(salted, sizeof salted);
}

static uint64_t salt_of(const struct uuid *pool, struct segment_id segment, uint64_t offset)
{
    uint64_t half[2];
    memcpy(half, pool->b, 16);
    return (half[0] ^ half[1]) + segment.incarnation * UINT64_C(0x9e3779b97f4a7c15) +
           segment.counter * UINT64_C(0xbf58476d1ce4e5b9) + offset;
}

static uint64_t block_check(const uint8_t *block, uint32_t number, uint32_t records_end, uint64_t salt)
{
    uint32_t from = number * BLOCK_BYTES, to = from + BLOCK_BYTES;
    uint32_t begin = number == 0 ? FRAME_HEAD_BYTES : from;
    if (to > records_end)
        to = records_end > begin ? records_end : begin;
    return digest64_of(block + (begin - from), to - begin, salt + number);
}

uint64_t verify_block_check(const uint8_t *frame, uint32_t block, uint32_t records_end, const struct frame_identity *id)
{
    uint64_t salt = salt_of(&id->pool, id->segment, id->offset);
    return block_check(frame + (size_t)block * BLOCK_BYTES, block, records_end, salt);
}

enum err verify_head(const uint8_t *bytes, const struct uuid *pool, struct segment_id segment, uint64_t offset,
                     struct frame_view *view_out)
{
    struct frame_head_disk h;
    memcpy(&h, bytes, sizeof h);
    if (le64_get(h.magic) != FRAME_MAGIC)
        return ERR_CORRUPT;
    struct digest d = verify_head_digest(&h, pool);
    if (!digest_equal(d, digest_disk_get(h.digest)))
        return ERR_CORRUPT;
    if (le32_get(h.version) != FORMAT_VERSION)
        return ERR_VERSION;
    struct frame_view v = {
        .bytes = bytes,
        .blocks = le32_get(h.blocks),
        .records_end = le32_get(h.records_end),
        .record_count = le32_get(h.record_count),
        .segment = segment_id_disk_get(h.segment),
        .moved_from = {le64_get(h.moved_incarnation), le64_get(h.moved_from)},
        .offset = le64_get(h.offset),
        .sequence = le64_get(h.sequence),
        .stamp_ms = le64_get(h.stamp_ms),
        .previous = le64_get(h.previous),
        .digest = d,
    };
    if (!PLANTED(drop_identity) && (!segment_id_equal(v.segment, segment) || v.offset != offset))
        return ERR_IDENTITY;
    if (v.blocks == 0 || v.blocks > FRAME_BLOCKS_MAX || v.records_end < FRAME_HEAD_BYTES ||
        (uint64_t)v.records_end + v.blocks * 8u > (uint64_t)v.blocks * BLOCK_BYTES || v.record_count == 0)
        return ERR_CORRUPT;
    *view_out = v;
    return ERR_OK;
}

bool verify_checks(const uint8_t *bytes, const struct frame_view *view)
{
    struct frame_head_disk h;
    memcpy(&h, bytes, sizeof h);
    struct digest d = digest_of(bytes + view->records_end, view->blocks * BLOCK_BYTES - view->records_end);
    return digest_equal(d, digest_disk_get(h.checks));
}

bool verify_block(const uint8_t *block, const uint8_t *checks_frame, const struct uuid *pool,
                  const struct frame_view *view, uint32_t number)
{
    ASSERT(number < view->blocks);
    struct le64 stored;
    memcpy(&stored, checks_frame + view->records_end + number * 8u, 8);
    uint64_t salt = salt_of(pool, view->segment, view->offset);
    return le64_get(stored) == block_check(block, number, view->records_end, salt);
}

enum err verify_frame(const uint8_t *bytes, const struct uuid *pool, const struct frame_view *view,
                      uint32_t *bad_block_out)
{
    if (!verify_checks(bytes, view)) {
        if (bad_block_out)
            *bad_block_out = view->records_end / BLOCK_BYTES;
        return ERR_CORRUPT;
    }
    for (uint32_t i = 0; i < view->blocks; i++) {
        if (!verify_block(bytes + (size_t)i * BLOCK_BYTES, bytes, pool, view, i)) {
            if (bad_block_out)
                *bad_block_out = i;
            return ERR_CORRUPT;
        }
    }
    return ERR_OK;
}

enum err verify_record(const uint8_t *bytes, uint32_t offset, uint32_t end, struct record_view *view_out)
{
    if (offset > end || end - offset < RECORD_HEAD_BYTES)
        return ERR_CORRUPT;
    struct record_head_disk h;
    memcpy(&h, bytes + offset, sizeof h);
    uint32_t length = le32_get(h.length), envelope = le32_get(h.envelope_bytes);
    if (le32_get(h.magic) != RECORD_MAGIC || length < RECORD_HEAD_BYTES || length > end - offset ||
        envelope > length - RECORD_HEAD_BYTES || h.type == 0 || h.type >= RECORD_TYPE_COUNT)
        return ERR_CORRUPT;
    const uint8_t *at = bytes + offset;
    struct digest d = digest_of(at + sizeof h.digest, length - sizeof h.digest);
    if (!digest_equal(d, digest_disk_get(h.digest)) && !PLANTED(deliver_unverified))
        return ERR_CORRUPT;
    *view_out = (struct record_view){
        .type = (enum record_type)h.type,
        .flags = h.flags,
        .qid = queue_id_disk_get(h.qid),
        .message_segment = segment_id_disk_get(h.message_segment),
        .sequence = le64_get(h.sequence),
        .arg = le32_get(h.arg),
        .length = length,
        .offset = offset,
        .digest = d,
        .bytes = at,
        .envelope = at + RECORD_HEAD_BYTES,
        .envelope_bytes = envelope,
        .body = at + RECORD_HEAD_BYTES + envelope,
        .body_bytes = length - RECORD_HEAD_BYTES - envelope,
    };
    return ERR_OK;
}

void image_head_encode(const struct image_view *v, uint8_t block[BLOCK_BYTES])
{
    memset(block, 0, BLOCK_BYTES);
    struct image_head_disk h = {
        .magic = le64_of(IMAGE_MAGIC),
        .version = le32_of(FORMAT_VERSION),
        .kind = le32_of((uint32_t)v->kind),
        .segment = segment_id_disk_of(v->segment),
        .slot = le32_of(v->slot),
        .image_count = le32_of(v->image_count),
    };
    memcpy(h.pool_uuid, v->pool.b, 16);
    memcpy(h.member_uuid, v->member.b, 16);
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        bool used = i < v->image_count;
        h.images[i].member = le16_of(used ? v->images[i].member : UINT16_MAX);
        h.images[i].slot = le32_of(used ? v->images[i].slot : 0);
    }
    memcpy(block, &h, sizeof h);
    h.digest = digest_disk_of(digest_of(block + sizeof h.digest, BLOCK_BYTES - sizeof h.digest));
    memcpy(block, &h.digest, sizeof h.digest);
}

enum err image_head_decode(const uint8_t block[BLOCK_BYTES], struct image_view *view_out)
{
    struct image_head_disk h;
    memcpy(&h, block, sizeof h);
    if (le64_get(h.magic) != IMAGE_MAGIC)
        return ERR_NOT_FOUND;
    if (!digest_equal(digest_of(block + sizeof h.digest, BLOCK_BYTES - sizeof h.digest), digest_disk_get(h.digest)))
        return ERR_CORRUPT;
    uint32_t kind = le32_get(h.kind), count = le32_get(h.image_count);
    if (le32_get(h.version) != FORMAT_VERSION)
        return ERR_VERSION;
    if ((kind != SEGMENT_MAIL && kind != SEGMENT_TABLE) || count == 0 || count > COPIES_MAX)
        return ERR_CORRUPT;
    struct image_view v = {
        .segment = segment_id_disk_get(h.segment),
        .kind = (enum segment_kind)kind,
        .slot = le32_get(h.slot),
        .image_count = count,
    };
    memcpy(v.pool.b, h.pool_uuid, 16);
    memcpy(v.member.b, h.member_uuid, 16);
    for (uint32_t i = 0; i < count; i++) {
        v.images[i].member = le16_get(h.images[i].member);
        v.images[i].slot = le32_get(h.images[i].slot);
    }
    *view_out = v;
    return ERR_OK;
}
