/* SPDX-License-Identifier: Apache-2.0 */
/* Private to commit.c, commit_appender.c and commit_hedge.c: a frame and the appender it belongs to. A frame is one of
 * pool.frames; it is taken while its `appender` is set. */
#ifndef COMMIT_H
#define COMMIT_H

#include "engine.h"

/* commit.c */
/* A free frame, empty, for this appender. NULL: all are taken; one comes back when its writes do. */
struct append_frame *frame_take(struct pool *p, struct appender *a);
/* Answers all its groups with `e` and gives the frame back. Nothing of it is in flight, and no appender names it. */
void frame_fail(struct append_frame *f, enum err e);

/* commit_hedge.c */
/* Places a frame in flight again, in a segment that avoids these members; the one it was in is closed (COM-3). With writes
 * out it is copied, and stays behind as an orphan until they come back (COM-4); without a free frame nothing happens. */
void commit_replace(struct append_frame *f, uint32_t avoid_mask);
uint64_t frame_look_ns(const struct append_frame *f);     /* when to look for the first time whether a member is slow */
void frame_leave_avoided(struct append_frame *f);         /* in flight: it goes elsewhere if it waits for an avoided member */
void commit_on_deadline(struct io_timer *t);              /* its owner is the frame */
void appender_give_up(struct appender *a);                /* answers what waited too long for a segment or a SEAL */

/* commit_appender.c */
void appender_close_next(struct appender *a);             /* the one opened ahead; the one it writes to stays */
/* Begins to open the next segment, unless one is open already or was refused just now. An error: none can be had. */
enum err appender_open_next(struct appender *a, enum spool_class class) MUST_CHECK;
/* There is no segment to write to: asks for one. Where that is refused, `f` is answered at once and given back. */
void appender_want_segment(struct appender *a, struct append_frame *f);
bool segment_could_have_more(struct pool *p, const struct segment *s); /* images: a member is back */
/* Its segment was given up because of a member: the next one is opened at once, whether mail waits for it or not. */
void appender_reopen(struct appender *a);
bool appender_reopens(const struct appender *a);
enum spool_class appender_class(const struct appender *a); /* of the segments it opens */
/* WAT-2. `hedged`: members that are not asked for either: whoever asks opens there only where there is nothing else. */
bool segment_better_elsewhere(struct pool *p, const struct segment *s, enum spool_class class, uint32_t hedged);

#endif
