/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: what mounting, creating and checking a pool use. All of it blocks, runs before pool_step or without
 * it, and has no place on the way of a message. Invariants: REC-1..9 (recover*.c), MRG-1..5 (merge.c). */
#ifndef MOUNT_H
#define MOUNT_H

#include "engine.h"

/* sync.c: blocking I/O for mount, create and check */
/* member: counts the op while it is out; NULL before the member is known. */
struct sync_read {
    struct member *member;
    struct io *io;
    uint16_t target;
    uint64_t offset;
    uint32_t length;
    uint8_t *buffer;
    enum err result;
};
void sync_read_all(struct io *io, struct sync_read *reads, uint32_t count);
enum err sync_read_one(struct io *io, uint16_t target, uint64_t offset, void *buffer, uint32_t length) MUST_CHECK;
enum err sync_write_one(struct io *io, uint16_t target, uint64_t offset, const void *buffer, uint32_t length) MUST_CHECK;
enum err sync_write_member(struct io *io, struct member *m, uint64_t offset, const void *buffer, uint32_t length) MUST_CHECK;
enum err sync_read_member(struct member *m, uint64_t offset, void *buffer, uint32_t length) MUST_CHECK;

/* reader.c: blocking, one frame after the other, from any image (mount and check only) */
struct reader {
    struct pool *pool;
    struct segment_id segment;
    struct image images[COPIES_MAX];
    uint32_t image_count;
    uint64_t limit;                    /* bytes of the segment to look at */
    uint8_t *window[COPIES_MAX];       /* FRAME_BYTES_MAX each */
    uint64_t window_at[COPIES_MAX];
    uint32_t window_bytes[COPIES_MAX]; /* 0: nothing there or not readable */
    bool dead[COPIES_MAX];             /* image cannot be read at all */
    bool no_memory;                    /* for a read: says nothing about the images (REC-4) */
    uint8_t *whole;
    uint32_t good_mask, bad_mask;      /* of the last frame: images that hold it whole; that should and do not */
    uint32_t missing_mask;             /* of those: images that could be read, and show something else in its place */
    bool patchy[COPIES_MAX];           /* something of the window could not be read: zeros there */
    enum err fault[COPIES_MAX];        /* why not */
};
enum err reader_open(struct reader *r, struct pool *p, struct segment_id id, const struct image *images,
                     uint32_t count) MUST_CHECK;
void reader_close(struct reader *r);
/* The frame at `offset`, proved whole, from any image or from the good blocks of several. ERR_NOT_FOUND: no image has
 * anything of this segment there; ERR_CORRUPT: something is there, but no whole frame can be made of it; ERR_NO_MEMORY:
 * nobody knows. */
enum err reader_frame(struct reader *r, uint64_t offset, struct frame_view *view_out) MUST_CHECK;
/* The next offset behind a bad place where any image has a frame head; ERR_NOT_FOUND: none within a frame's reach. */
enum err reader_resync(struct reader *r, uint64_t offset, uint64_t *next_out) MUST_CHECK;
/* Its header and the first frame behind it both say, whole, that another segment has lain there since; or neither the header nor
 * a block within a frame's reach is that segment's. What cannot be read says nothing. */
enum err reader_slot_gone(struct pool *p, struct segment_id id, const struct image *image, bool *gone_out) MUST_CHECK;

/* recover.c and recover_tails.c */
/* Reads one table segment, through the members of `p`, from its TABLE on. The last frame may be torn; anything else that is
 * bad fails. What it says goes into `into`. */
enum err table_load(struct pool *p, struct pool *into, struct segment_id id, const struct image *images,
                    uint32_t count) MUST_CHECK;
enum err recover_superblocks(struct pool *p, struct superblock *newest_out) MUST_CHECK;
enum err recover_table(struct pool *p, const struct superblock *newest) MUST_CHECK;
bool members_away(const struct pool *p); /* somebody who was not removed is not here */
enum err recover_tails(struct pool *p) MUST_CHECK;

/* merge.c: the half this member speaks for, when it knows of something that we do not. */
enum err merge_half(struct pool *p, struct member *m) MUST_CHECK;
enum err pool_alloc_slots(struct pool *p) MUST_CHECK; /* pool.c: slots and segments as the members say */

bool table_fits(uint64_t slots, uint64_t slot_bytes); /* create.c */

#endif
