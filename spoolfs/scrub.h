/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the scrub: what its files ask of each other. scrub.c is the pass, the others are what it does.
 *
 *  SCR-1  a finding is repaired only from bytes that carry their own checks, their identity and, where the frame before
 *         them is known, its digest. Two good frames that differ repair nothing.
 *  SCR-2  each look has its own patience: one stuck member costs its image, never another look.
 *  SCR-3  an image counts as verified in a pass only when all its bytes were read in it. What was missed is looked at
 *         again in the same pass, and named by the report when it stays so.
 *  SCR-4  every read asks the throttle first (scrub_may).
 *  SCR-5  canary damage lies outside the slots: no mail can ever lie there. */
#ifndef SCRUB_H
#define SCRUB_H

#include "upkeep_parts.h"

#include <spoolfs/upkeep.h>

/* A choice: longer than the retries of a drive inside its own error recovery (7 s with ERC, about 20 s without). */
#define LOOK_PATIENCE_NS (20 * NS_PER_S)
#define LOOK_AGAIN_NS (15 * NS_PER_S) /* a missed image: often enough that it is back within the pass's end */

enum look_what { LOOK_MAIL, LOOK_TABLE, LOOK_CANARY };

struct look_read;

/* One look at the images of a segment, side by side, window after window. */
struct look {
    struct scrub *scrub;
    enum look_what what;
    bool running, stopped;
    bool dropped;                  /* a stop or a pause: nothing of it counts */
    struct segment *segment;       /* LOOK_MAIL: held by a ref */
    struct segment_id id;
    enum segment_kind kind;
    struct image images[COPIES_MAX]; /* as they were when it began; may be replaced meanwhile */
    uint64_t base[COPIES_MAX];     /* of each image on its member */
    uint32_t count;
    uint64_t offset, end;          /* of the segment */
    bool headers, chained;         /* chained: the digest of the frame before is known */
    uint64_t previous;
    uint64_t window_at;
    uint32_t window_bytes;
    uint8_t *window[COPIES_MAX], *whole;
    uint32_t have[COPIES_MAX];
    uint64_t unread[COPIES_MAX][FRAME_BLOCK_WORDS]; /* blocks of the window that could not be read: zeros */
    struct look_read *out[COPIES_MAX];
    uint32_t pending;
    uint32_t missed;               /* mask: images not read in this look */
    uint32_t undecided;            /* mask: bad here, and what was missed may have it: counts as missed in the end */
    uint32_t bad;                  /* mask: images something was found on */
    uint32_t mended;               /* mask: of these, where another image has it */
    uint32_t unsealed;             /* mask: of these, where the segment was not sealed yet: nothing is repaired there before */
    uint32_t bad_blocks;
    bool lost;                     /* places that no image has */
    bool waits;                    /* for room in the repairs' queue */
    uint64_t waits_since_ns, read_ns, next_ns;
    uint64_t pace;                 /* bytes a second; 0: what the tokens give */
    uint32_t duty_percent;         /* of the time its reads may take; 0: all */
    void (*over)(struct look *l);
};

/* scrub_look.c. The caller has set scrub and over, and what else it wants; images of a member that is away are missed. */
void look_begin(struct look *l, struct segment *s, uint64_t from, uint64_t end);
void look_begin_canary(struct look *l, struct segment_id id, const struct image *images, const uint64_t *base,
                       uint32_t count, uint64_t end);
void look_step(struct look *l);
void look_drop(struct look *l);        /* ends it at once, or when its reads are back */
bool look_owed_by(const struct scrub *c, const struct member *m); /* a late read of ours is out there */
void look_fini(struct look *l);        /* windows too; reads still out keep theirs */
void look_free_windows(struct look *l);
void look_forget_orphans(struct scrub *c);

/* scrub_evidence.c */
#define CHOOSE_PAUSE_NS (200 * NS_PER_MS) /* between looks over all segments that find nothing to do */
#define SCAN_AT_ONCE 2048u                /* segments looked over in one step: well below a millisecond */
void evidence_step(struct scrub *c);
void evidence_over(struct look *l);
void evidence_around(struct scrub *c, const struct image *image);
static inline void image_mark_hole(struct image *image) { image->holed = image->holed || !image->bad; } /* EVI-2 */
void evidence_judge(struct look *l);      /* what the look says of holes (EVI-2) */
void evidence_save(struct scrub *c);      /* holes, or their end, that no table tells of yet */
bool pool_holed(const struct pool *p);    /* an image is */
uint32_t look_missed(const struct look *l); /* mask: images that were not read, and that somebody may still answer for */

/* scrub_super.c */
struct super_tour {
    bool running, again;           /* again: the second round, after the copies were written anew */
    uint32_t member, copy;
    struct super_read *reading;
    uint64_t read_ns;
    uint32_t bad_mask;             /* members with a bad copy */
    uint32_t only;                 /* mask of members to look at */
    uint32_t missed;               /* mask: did not answer */
    struct superblock_wait wait;
    bool waiting;                  /* for the update */
};
struct super_read;
void super_tour_begin(struct scrub *c, uint32_t members_mask);
void super_tour_step(struct scrub *c);
void super_tour_fini(struct scrub *c);

/* canary.c */
#define CANARY_OFFSET (UINT64_C(48) * KIB) /* on the member: behind two superblocks and the heartbeat's block */
#define CANARY_BYTES ((uint32_t)(16 * KIB)) /* before the slots */
struct canary;
void canary_begin(struct scrub *c);    /* once a pass */
void canary_step(struct scrub *c);
bool canary_idle(const struct scrub *c);
void canary_fini(struct scrub *c);
void canary_found(struct scrub *c, struct look *l, uint32_t image);

/* scrub_readback.c */
struct readback;
void readback_step(struct scrub *c);
bool readback_idle(const struct scrub *c);
void readback_fini(struct scrub *c);

/* scrub_surface.c */
struct surface;
void surface_step(struct scrub *c);
bool surface_idle(const struct scrub *c);
void surface_fini(struct scrub *c);

/* scrub_report.c */
struct scrub_found {
    enum scrub_kind kind;
    struct segment_id segment;
    uint32_t slot;
    uint64_t offset;
    uint32_t blocks;
    enum err fault;
    enum scrub_outcome outcome;
};
void report_begin(struct scrub *c);
void report_end(struct scrub *c, bool complete);
void report_found(struct scrub *c, struct member *m, const struct scrub_found *f);
void report_image(struct scrub *c, const struct member *m, uint64_t bytes);
void report_missed(struct scrub *c, struct segment_id segment, const struct member *m, const char *why);
/* What came of open findings of `kind` on a member (NULL: any); all of the segment when offset is UINT64_MAX. */
void report_outcome(struct scrub *c, enum scrub_kind kind, const struct member *m, struct segment_id segment,
                    uint64_t offset, enum scrub_outcome outcome);
bool report_open(const struct scrub *c, enum scrub_kind kind);
bool report_pending(const struct scrub *c); /* something will still become of a finding about an image, or the table */
void report_settle(struct scrub *c); /* the pass is over: what is open is gone, or comes later */

#define PASS_NEXT_MAX 64u

struct scrub {
    struct pool *pool;
    struct look pass_look, evidence_look;
    struct super_tour super;
    struct canary *canary;
    struct readback *readback;
    struct surface *surface;
    struct link orphans;           /* of struct look_read: late reads whose look went on */
    struct link super_reads;       /* of struct super_read, late ones too: no update may overlap them */
    struct link late_canaries;     /* of struct canary: their writes are still out */
    struct link late_surfaces;     /* of struct surface_read */
    bool holes_unsaved, holes_told;
    bool paused, forced, in_pass, evidence, evidence_left, table_done, table_open, supers_done, supers_new, unsaved;
    uint32_t table_missed;         /* members whose table image was not read */
    uint64_t table_again_ns, super_again_ns, choose_ns, evidence_choose_ns, holes_save_ns, holes_look_ns;
    uint64_t pass, pass_bytes, pass_done, pass_started_ns, pass_started_ms, next_ns, saved_ns;
    uint64_t newest_segment;       /* of this incarnation when the pass began: younger ones are the next pass's */
    uint32_t scan_at, evidence_at; /* in pool.segments: where the next part of a look over all of them begins */
    uint32_t next[PASS_NEXT_MAX], next_count; /* what the pass looks at next, in no order */
    uint64_t idle_since_ns;        /* nothing left but what was missed */
    uint64_t settle_since_ns;      /* everything looked at; repairs are under way */
    uint64_t last_completed_ms, passes, bytes_verified, errors_found, errors_repaired;
    uint64_t turn;                 /* rises with every look: the members take turns */
    uint64_t member_turn[MEMBERS_MAX];
    uint64_t canaries, canaries_missed;
    bool blind;
    uint64_t readback_bytes, readback_skipped, surface_bytes;
    struct scrub_report *report, *last_report;
};

/* scrub.c */
struct scrub *scrub_of(struct pool *p);
bool scrub_may(struct scrub *c, uint32_t members_mask); /* SCR-4; the one place that asks the throttle */
uint64_t scrub_interval_ns(const struct pool *p);
bool scrub_image_answers(const struct pool *p, const struct segment *s, uint32_t image);
bool scrub_can_look_at(const struct segment *s);
bool scrub_counts(const struct scrub *c, const struct segment *s); /* the pass covers it */
uint16_t scrub_mark(const struct scrub *c);                        /* of an image that was verified in this pass */
struct segment *scrub_choose(struct scrub *c, bool *none_out);     /* scrub_choose.c */
void scrub_look_over(struct look *l); /* marks what was verified, and what was not */

#endif
