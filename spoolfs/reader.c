/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: blocking reads of frames from any image of a segment, for mount and check. Every frame is proved whole before
 * anybody sees it; where no image has it whole it is assembled block by block. walk.c is its twin that never blocks;
 * both share salvage_frame. */
#include "images.h"
#include "mount.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

enum err salvage_frame(const struct uuid *pool, struct segment_id segment, uint64_t offset, uint8_t *const buffers[],
                       const uint32_t have[], uint32_t count, uint8_t *whole, struct frame_view *view_out)
{
    struct frame_view view;
    bool found = false;
    for (uint32_t i = 0; i < count && !found; i++)
        found = buffers[i] && have[i] >= BLOCK_BYTES && verify_head(buffers[i], pool, segment, offset, &view) == ERR_OK;
    if (!found)
        return ERR_CORRUPT;
    memcpy(whole, view.bytes, FRAME_HEAD_BYTES);
    uint32_t frame_bytes = view.blocks * BLOCK_BYTES;
    bool checks = false;
    for (uint32_t i = 0; i < count && !checks; i++) {
        if (!buffers[i] || have[i] < frame_bytes)
            continue;
        memcpy(whole + view.records_end, buffers[i] + view.records_end, frame_bytes - view.records_end);
        checks = verify_checks(whole, &view);
    }
    if (!checks)
        return ERR_CORRUPT;
    for (uint32_t b = 0; b < view.blocks; b++) {
        uint32_t from = b * BLOCK_BYTES > FRAME_HEAD_BYTES ? b * BLOCK_BYTES : FRAME_HEAD_BYTES;
        uint32_t to = (b + 1) * BLOCK_BYTES < view.records_end ? (b + 1) * BLOCK_BYTES : view.records_end;
        bool good = from >= to;
        for (uint32_t i = 0; i < count && !good; i++) {
            if (!buffers[i] || have[i] < (b + 1) * BLOCK_BYTES)
                continue;
            memcpy(whole + from, buffers[i] + from, to - from);
            good = verify_block(whole + (size_t)b * BLOCK_BYTES, whole, pool, &view, b);
        }
        if (!good)
            return ERR_CORRUPT;
    }
    view.bytes = whole;
    if (verify_frame(whole, pool, &view, NULL) != ERR_OK)
        return ERR_CORRUPT;
    *view_out = view;
    return ERR_OK;
}

enum err reader_open(struct reader *r, struct pool *p, struct segment_id id, const struct image *images, uint32_t count)
{
    ASSERT(count <= COPIES_MAX);
    *r = (struct reader){.pool = p, .segment = id, .image_count = count, .limit = p->slot_bytes};
    r->whole = sync_buffer(FRAME_BYTES_MAX);
    bool enough = r->whole != NULL;
    for (uint32_t i = 0; i < count; i++) {
        r->images[i] = images[i];
        r->dead[i] = !member_readable(&p->members[images[i].member]);
        r->window[i] = sync_buffer(FRAME_BYTES_MAX);
        enough = enough && r->window[i];
    }
    if (!enough)
        reader_close(r);
    return enough ? ERR_OK : ERR_NO_MEMORY;
}

void reader_close(struct reader *r)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        free(r->window[i]);
    free(r->whole);
    *r = (struct reader){0};
}

static void reader_give_up(struct reader *r, uint32_t i, enum err e)
{
    struct member *m = &r->pool->members[r->images[i].member];
    r->dead[i] = true;
    r->window_bytes[i] = 0;
    if (e == ERR_TIMEOUT) /* its read is still out: nothing may be written there */
        member_leave(m, MEMBER_SLOW, "a read is not answered at mount");
    else if (e == ERR_IO)
        member_leave(m, MEMBER_ABSENT, "it refuses every read at mount");
}

/* True: the member refused it without a word about the medium. */
static bool reader_block(struct reader *r, uint32_t i, uint64_t offset, uint8_t *block)
{
    enum err e = sync_read_member(&r->pool->members[r->images[i].member], offset, block, BLOCK_BYTES);
    r->no_memory = r->no_memory || e == ERR_NO_MEMORY;
    if (e == ERR_TIMEOUT || e == ERR_MEMBER_GONE)
        reader_give_up(r, i, e);
    else if (e != ERR_OK)
        memset(block, 0, BLOCK_BYTES); /* zeros never verify */
    return e != ERR_OK && e != ERR_MEDIA && !r->dead[i] && !r->no_memory;
}

/* As BRD-3 has it: block by block; where all were refused the image's header tells whether the member answers at all. Who does not
 * is away: what it holds is neither bad nor the end of the segment. */
static void reader_blocks(struct reader *r, uint32_t i, uint64_t offset, uint32_t bytes)
{
    struct member *m = &r->pool->members[r->images[i].member];
    uint8_t *header = NULL;
    bool refused = true;
    for (uint32_t b = 0; b < bytes && !r->dead[i]; b += BLOCK_BYTES)
        refused = reader_block(r, i, offset + b, r->window[i] + b) && refused;
    if (!refused || r->dead[i] || !(header = sync_buffer(BLOCK_BYTES)))
        return;
    enum err e = sync_read_member(m, segment_image_offset(r->pool, &r->images[i]), header, BLOCK_BYTES);
    free(header);
    if (e != ERR_OK && e != ERR_MEDIA)
        reader_give_up(r, i, e == ERR_TIMEOUT || e == ERR_MEMBER_GONE ? e : ERR_IO);
}

/* Makes [offset, offset + bytes) of every image visible, where it can be read. A place that fails to read is tried
 * again block by block, so that one bad sector costs one block. */
static void reader_fill(struct reader *r, uint64_t offset, uint32_t bytes)
{
    struct sync_read reads[COPIES_MAX];
    uint32_t image_of[COPIES_MAX], count = 0;
    uint64_t room = r->limit - offset;
    uint32_t want = room < FRAME_BYTES_MAX ? (uint32_t)room : FRAME_BYTES_MAX;
    for (uint32_t i = 0; i < r->image_count; i++) {
        bool inside = offset >= r->window_at[i] && offset + bytes <= r->window_at[i] + r->window_bytes[i];
        if (r->dead[i] || inside)
            continue;
        const struct member *m = &r->pool->members[r->images[i].member];
        reads[count] = (struct sync_read){.member = &r->pool->members[r->images[i].member], .io = r->pool->io,
                                          .target = m->target, .length = want,
                                          .offset = segment_image_offset(r->pool, &r->images[i]) + offset,
                                          .buffer = r->window[i]};
        image_of[count++] = i;
    }
    sync_read_all(r->pool->io, reads, count);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t i = image_of[n];
        r->window_at[i] = offset;
        r->window_bytes[i] = want;
        r->fault[i] = reads[n].result;
        r->patchy[i] = reads[n].result != ERR_OK;
        r->no_memory = r->no_memory || reads[n].result == ERR_NO_MEMORY;
        if (reads[n].result == ERR_OK || r->no_memory)
            continue;
        if (reads[n].result == ERR_MEMBER_GONE || reads[n].result == ERR_TIMEOUT) {
            reader_give_up(r, i, reads[n].result);
            continue;
        }
        if (PLANTED(short_read_is_end) && reads[n].result == ERR_SHORT)
            r->limit = offset;
        reader_blocks(r, i, reads[n].offset, want);
    }
}

static const uint8_t *reader_at(const struct reader *r, uint32_t i, uint64_t offset, uint32_t bytes)
{
    if (r->dead[i] || offset < r->window_at[i] || offset + bytes > r->window_at[i] + r->window_bytes[i])
        return NULL;
    return r->window[i] + (offset - r->window_at[i]);
}

/* A frame that is damaged still shows its own digest or that of its checks; where both differ it was never written, or not kept. */
static void reader_note_missing(struct reader *r, uint64_t offset, const struct frame_view *view)
{
    struct frame_head_disk is, should;
    memcpy(&should, view->bytes, sizeof should);
    for (uint32_t i = 0; i < r->image_count; i++) {
        const uint8_t *at = r->bad_mask & (1u << i) && !r->patchy[i] ? reader_at(r, i, offset, BLOCK_BYTES) : NULL;
        if (!at)
            continue;
        memcpy(&is, at, sizeof is);
        if (memcmp(&is.digest, &should.digest, sizeof is.digest) != 0 && memcmp(&is.checks, &should.checks, sizeof is.checks) != 0)
            r->missing_mask |= 1u << i;
    }
}

enum err reader_frame(struct reader *r, uint64_t offset, struct frame_view *view_out)
{
    const struct uuid *pool = &r->pool->uuid;
    r->good_mask = 0;
    r->bad_mask = 0;
    r->missing_mask = 0;
    if (offset + BLOCK_BYTES > r->limit)
        return ERR_NOT_FOUND;
    reader_fill(r, offset, BLOCK_BYTES);
    if (r->no_memory)
        return ERR_NO_MEMORY;
    struct frame_view view, good;
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < r->image_count; i++) {
        const uint8_t *at = reader_at(r, i, offset, BLOCK_BYTES);
        if (at && verify_head(at, pool, r->segment, offset, &view) == ERR_OK)
            blocks = view.blocks;
    }
    if (blocks == 0 || offset + (uint64_t)blocks * BLOCK_BYTES > r->limit)
        return ERR_NOT_FOUND;
    reader_fill(r, offset, blocks * BLOCK_BYTES);
    if (r->no_memory)
        return ERR_NO_MEMORY;
    uint8_t *buffers[COPIES_MAX] = {0};
    uint32_t have[COPIES_MAX] = {0};
    for (uint32_t i = 0; i < r->image_count; i++) {
        const uint8_t *at = reader_at(r, i, offset, blocks * BLOCK_BYTES);
        if (!at)
            continue;
        buffers[i] = r->window[i] + (at - r->window[i]);
        have[i] = blocks * BLOCK_BYTES;
        enum err e = verify_head(at, pool, r->segment, offset, &view);
        if (e == ERR_OK && view.blocks == blocks)
            e = verify_frame(at, pool, &view, NULL);
        r->fault[i] = e;
        if (e == ERR_OK) {
            if (!r->good_mask)
                good = view;
            r->good_mask |= 1u << i;
        } else {
            r->bad_mask |= 1u << i;
        }
    }
    if (!r->good_mask)
        return salvage_frame(pool, r->segment, offset, buffers, have, r->image_count, r->whole, view_out);
    reader_note_missing(r, offset, &good);
    *view_out = good;
    return ERR_OK;
}

enum err reader_resync(struct reader *r, uint64_t offset, uint64_t *next_out)
{
    struct frame_view view;
    for (uint64_t at = offset + BLOCK_BYTES; at < r->limit && at <= offset + FRAME_BYTES_MAX; at += BLOCK_BYTES) {
        reader_fill(r, at, BLOCK_BYTES);
        if (r->no_memory)
            return ERR_NO_MEMORY;
        for (uint32_t i = 0; i < r->image_count; i++) {
            const uint8_t *bytes = reader_at(r, i, at, BLOCK_BYTES);
            if (bytes && verify_head(bytes, &r->pool->uuid, r->segment, at, &view) == ERR_OK) {
                *next_out = at;
                return ERR_OK;
            }
        }
    }
    return ERR_NOT_FOUND;
}

/* True: every block of `reach` could be read, and none is the head of a frame of that segment. */
static bool slot_shows_nothing(struct reader *r)
{
    struct frame_view view;
    bool all = true, found = false;
    for (uint64_t at = BLOCK_BYTES; at < r->limit && at <= FRAME_BYTES_MAX && all && !found; at += BLOCK_BYTES) {
        reader_fill(r, at, BLOCK_BYTES);
        const uint8_t *bytes = reader_at(r, 0, at, BLOCK_BYTES);
        all = bytes && !r->no_memory && r->fault[0] == ERR_OK;
        found = all && verify_head(bytes, &r->pool->uuid, r->segment, at, &view) == ERR_OK;
    }
    return all && !found;
}

static enum err slot_gone(struct pool *p, struct segment_id id, const struct image *image, bool *gone_out)
{
    struct member *m = &p->members[image->member];
    struct reader r;
    struct image_view head;
    struct frame_view frame;
    *gone_out = false;
    enum err e = reader_open(&r, p, id, image, 1);
    if (e != ERR_OK)
        return e;
    if (!r.dead[0]) { /* the header alone first: nearly always it is the one */
        e = sync_read_member(m, segment_image_offset(p, image), r.whole, BLOCK_BYTES);
        if (e == ERR_TIMEOUT || e == ERR_MEMBER_GONE)
            reader_give_up(&r, 0, e);
    }
    bool read = !r.dead[0] && e == ERR_OK;
    bool whole = read && image_head_decode(r.whole, &head) == ERR_OK && uuid_equal(head.pool, p->uuid) &&
                 uuid_equal(head.member, m->uuid) && head.slot == image->slot;
    if (read && !(whole && segment_id_equal(head.segment, id))) {
        reader_fill(&r, BLOCK_BYTES, BLOCK_BYTES);
        const uint8_t *first = reader_at(&r, 0, BLOCK_BYTES, BLOCK_BYTES);
        bool another = whole && first && r.fault[0] == ERR_OK &&
                       verify_head(first, &p->uuid, id, BLOCK_BYTES, &frame) == ERR_IDENTITY;
        *gone_out = another || slot_shows_nothing(&r);
    }
    e = e == ERR_NO_MEMORY || r.no_memory ? ERR_NO_MEMORY : ERR_OK;
    reader_close(&r);
    return e;
}

/* Asked twice: the slot is written over then, and one read may go astray. */
enum err reader_slot_gone(struct pool *p, struct segment_id id, const struct image *image, bool *gone_out)
{
    enum err e = slot_gone(p, id, image, gone_out);
    return e == ERR_OK && *gone_out ? slot_gone(p, id, image, gone_out) : e;
}
