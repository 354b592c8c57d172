/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: background work, and what the rest of the engine asks of it: who is in the pool, how much may be done
 * on each member, making lost images again, the scrub, what is lost for good, and what would fit after a loss. The door for
 * programs is include/spoolfs/upkeep.h. Invariants: ROS-1..6 (roster.c), RBL-1..7 (rebuild.h), SCR-1..5 (scrub.h),
 * LST-1..4 (lost.c), HDR-1 (headroom.c). */
#ifndef UPKEEP_PARTS_H
#define UPKEEP_PARTS_H

#include "engine.h"

/* roster.c */
bool roster_is_candidate(const struct superblock *s);
uint8_t roster_number(const struct pool *p, const struct superblock *s); /* by identity; NO_MEMBER: not listed */
bool roster_admit(struct pool *p, const struct superblock *s, const struct pool_member_config *c);
void roster_settle(struct pool *p);                   /* states as the plans say, as far as the policy allows */
void roster_step(struct pool *p);
bool roster_idle(const struct pool *p);
void roster_fini(struct pool *p);
bool members_lost(const struct pool *p);              /* a member is out that no spare has made up for */

/* upkeep.c, rebuild.c, scrub.c */
void upkeep_step(struct pool *p);
/* May background work of `class` go on, on each member of the mask? False: not now. What it does is charged when its ops
 * start, to the member they go to. */
bool upkeep_may(struct pool *p, uint32_t members_mask, enum io_class class);
void upkeep_charge(struct member *m, const struct io_op *op);
void upkeep_note_mail(struct member *m, const struct io_op *op); /* mail was answered */
void upkeep_note_busy(struct member *m, bool busy); /* background ops begin to be with the device, or end to be */
bool upkeep_idle(const struct pool *p);
void upkeep_fini(struct pool *p);
void rebuild_step(struct pool *p);
bool rebuild_idle(const struct pool *p);
void rebuild_fini(struct pool *p);
/* Of the segment in work: images that can be read, those of a member that is emptied included. COPIES_MAX: none is. */
uint32_t rebuild_images_left(const struct pool *p);
uint64_t rebuild_seconds_left(const struct pool *p); /* until its deadline; 1: it has passed */
struct upkeep_status;
void rebuild_status(struct pool *p, struct upkeep_status *o);
void scrub_step(struct pool *p);
bool scrub_idle(const struct pool *p);
void scrub_fini(struct pool *p);
void scrub_status(struct pool *p, struct upkeep_status *o);
bool scrub_reads_superblock(const struct pool *p, const struct member *m);
/* Evidence: something was bad on `image` (COPIES_MAX: not known which): look at the segment and around that place. */
void scrub_note_fault(struct pool *p, struct segment *s, uint32_t image);
/* The image does not count from here on, also after a restart, until a look has found all of it whole (EVI-2). */
void scrub_note_hole(struct pool *p, struct segment *s, uint32_t image);
void scrub_note_repair(struct pool *p, struct segment *s, uint32_t image, uint64_t offset, enum err e);
void scrub_note_given_up(struct pool *p, const struct segment *s, uint32_t image); /* nobody reads there any more */
void scrub_note_commit(struct pool *p, const struct append_frame *f); /* to be read back */

/* lost.c */
void lost_range(struct pool *p, struct segment_id segment, uint64_t offset, uint64_t bytes); /* no image has these bytes */
void lost_message(struct pool *p, struct queue_id qid, const struct place *at);              /* no image has this record */
void lost_step(struct pool *p);
void lost_members(struct pool *p); /* a member was given up */
bool segment_given_up(const struct pool *p, const struct segment *s); /* every image of it was on such members */
void lost_fini(struct pool *p);

/* headroom.c */
uint32_t headroom_domain_count(const struct pool *p);  /* that serve, or would after a loss: spares are among them */
uint64_t headroom_bytes(const struct pool *p, uint64_t live);
/* How many segments, each with `copies` images in as many domains, what new mail may have of the free slots takes. */
uint64_t headroom_segments(const struct pool *p, uint32_t copies);
bool headroom_counts(const struct pool *p);            /* new mail is refused when it is 0 */
void headroom_step(struct pool *p);

#endif
