/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: reading the images of a segment - blocks, frames, all frames in turn - and rewriting what is bad on
 * one of them. Never blocks. Invariants: BRD-1..3 (blockread.c), RD-1 (read.c), REP-1..4 (repair.c). */
#ifndef IMAGES_H
#define IMAGES_H

#include "engine.h"

#define REPAIRS_MAX 64u              /* waiting at one time; what is not taken is found again by the next read or scrub */

/* blockread.c */
struct block_read {
    struct member *member;
    uint64_t offset;              /* on the member */
    uint32_t length;
    uint8_t *buffer;
    enum io_class class;
    bool mail;                    /* as in member_op */
    uint64_t *unread;             /* a bit for each block that could not be read, cleared by the caller; may be NULL */
    void (*done)(struct block_read *r);
    void *owner;
    /* out */
    enum err result;              /* ERR_OK: at least one block is there; ERR_MEDIA: none, for good; else nothing is known of it */
    uint32_t bad_blocks;          /* zeros in the buffer */
    /* private */
    bool refused;                 /* the last block, and nothing was answered since */
    uint32_t at, piece;           /* piece: bytes asked for at once after something failed; 0: nothing has */
    struct member_op op;
};
void block_read_start(struct block_read *r);

/* read.c and walk.c */
enum err read_init(struct pool *p) MUST_CHECK;
void read_fini(struct pool *p);
void read_clear_timers(struct pool *p);
void read_step(struct pool *p);
/* The healthiest readable image not in skip_mask; COPIES_MAX: none. */
uint32_t read_choose_image(const struct pool *p, const struct segment *s, uint32_t skip_mask);

enum err walk_start(struct walk *w) MUST_CHECK;
void walk_next(struct walk *w);
bool walk_has_next(const struct walk *w); /* walk_next reads nothing, unless what was read is bad */
void walk_retry(struct walk *w);      /* after `unreadable`, when a member may be back */
void walk_step(struct walk *w);       /* asks another image when one is late; call now and then */
void walk_stop(struct walk *w);       /* no callback follows */
bool walk_idle(const struct walk *w);
/* Bytes of the segment from `offset` on that were read already, unproved; NULL: none. While the walk rests. */
const uint8_t *walk_window(const struct walk *w, uint64_t offset, uint32_t *bytes_out);
void walk_fini(struct walk *w);       /* reads still out keep their buffers until they come back */
void walk_forget_orphans(struct pool *p); /* the io is gone */

/* reader.c */
/* Assembles one frame of `segment` at `offset` from the good blocks of several buffers, one per image (NULL: none,
 * have[i] bytes are there). Proves it whole. ERR_CORRUPT when some block is bad everywhere. */
enum err salvage_frame(const struct uuid *pool, struct segment_id segment, uint64_t offset, uint8_t *const buffers[],
                       const uint32_t have[], uint32_t count, uint8_t *whole, struct frame_view *view_out) MUST_CHECK;

/* repair.c */
/* A frame that was found bad on some images: rewrites them from proved bytes, reads back, counts. */
void repair_frame(struct pool *p, struct segment *s, const struct frame_view *good, uint32_t bad_mask);
void repair_step(struct pool *p);
void repair_fini(struct pool *p);
bool image_repairing(const struct segment *s, uint32_t image);
bool segment_repair_waits(const struct pool *p, const struct segment *s); /* one is queued or under way */
bool member_takes_repairs(const struct member *m);     /* REP-4 */
bool image_readable(const struct pool *p, const struct segment *s, uint32_t image); /* now: REP-2, MEM-3 */

#endif
