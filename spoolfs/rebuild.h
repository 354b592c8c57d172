/* SPDX-License-Identifier: Apache-2.0 */
/* Private to rebuild.c and rebuild_job.c.
 *
 *  RBL-1  the source of every byte was verified in the same read.
 *  RBL-2  the new image counts only after the table says so; a crash before leaves a slot nobody owns.
 *  RBL-3  it never aborts on a bad frame: what no image has is reported and passed over.
 *  RBL-4  the throttle's word comes before every read.
 *  RBL-5  at most REBUILD_AT_ONCE segments, each by one job with JOB_BUFFERS buffers: one is filled while others are written.
 *  RBL-6  what waits for a member that refuses reads, or does not answer, holds up nobody else: a job that was refused is over and its
 *         segment is tried again later and later; one whose read is out for JOB_LATE_NS is not one of REBUILD_AT_ONCE any more, and no
 *         other begins on that member. Where those that wait have taken all of REBUILD_JOBS_MAX, one stays for each member, to hear
 *         when it answers: the others are let go and begin anew then.
 *  RBL-7  an image counts once in each failure domain. One that shares its domain with another is made again in a domain that the
 *         segment has no image in, or stays: each job ends with one domain more, so that there is an end to them.
 *  RBL-8  an image made with holes, where no image that was here had a frame, says so in the same record of the table that makes it
 *         count as an image: it is no redundancy before the scrub has found all of it whole (EVI-2).
 *  RBL-9  what a job wrote is durable when its flush says so and no flush and no durable write on that member has failed that was asked
 *         for between the job's first write and the answer of its flush (MEM-4); those that are still out are waited for. Else the
 *         job is over, and its segment is tried again later. */
#ifndef REBUILD_H
#define REBUILD_H

#include "upkeep_parts.h"

#define REBUILD_AT_ONCE 8u /* each has one read under way: what keeps flash and network disks busy; 32 MiB of buffers while it runs */
#define REBUILD_JOBS_MAX (2 * REBUILD_AT_ONCE) /* with those that wait for a member that does not answer */
/* A drive works on a bad sector for some seconds; the job keeps what it has, and goes on when it is answered. */
#define JOB_LATE_NS (10 * NS_PER_S)
#define REBUILD_BESIDE_MAIL 4u /* of these read while there is mail: what waits for a device is not paid for yet, and comes in a burst */
#define JOB_BUFFERS 3u     /* a read is answered while two writes are not */

struct rebuild_job {
    struct pool *pool;
    struct segment *segment;   /* NULL: left behind with a write that is out */
    uint32_t image;            /* the one replaced, or image_count: one is added */
    struct image target;
    struct walk walk;
    const struct frame_view *frame;
    struct frame_view view;
    struct job_buffer {
        uint8_t *bytes;
        uint64_t at;           /* offset in the segment of what is gathered */
        uint32_t gathered;
        bool writing;
        struct member_op op;
    } buffers[JOB_BUFFERS];
    uint32_t filling;          /* of the two */
    struct member_op end;      /* image header, then flush */
    bool ending, walked, failed, table;
    bool flushed;              /* RBL-9: it only waits for what was asked of the member before */
    uint64_t durable_asked, durable_failed; /* of the member: at the answer of the flush; at the start */
    struct link link;          /* in pool.rebuild_orphans */
};

/* NULL: no memory, or the slot is not to be had. */
struct rebuild_job *rebuild_job_start(struct pool *p, struct segment *s, uint32_t image, struct image target);
void rebuild_job_step(struct rebuild_job *r);
void rebuild_job_free(struct rebuild_job *r);
uint32_t rebuild_job_waits_for(const struct rebuild_job *r); /* mask of members whose answer it waits for, for JOB_LATE_NS and more */

/* rebuild.c */
void rebuild_job_over(struct rebuild_job *r, struct segment *s, bool done); /* it is no longer one of those under way */
struct rebuild_job *rebuild_job_of(const struct pool *p, const struct segment *s);
bool rebuild_paused(const struct pool *p);
uint32_t rebuild_jobs_reading(const struct pool *p);
void rebuild_count_bytes(struct pool *p, uint64_t bytes);

#endif
