/* SPDX-License-Identifier: Apache-2.0 */
/* The door for keeping the pool whole: scrub, rebuild, members that leave on purpose. Engine thread only. */
#ifndef SPOOLFS_UPKEEP_H
#define SPOOLFS_UPKEEP_H

#include <spoolfs/pool.h>

enum upkeep_state { UPKEEP_IDLE, UPKEEP_RUNNING, UPKEEP_PAUSED };
const char *upkeep_state_word(enum upkeep_state s); /* "idle", "running", "paused" */

struct upkeep_status {
    struct {
        enum upkeep_state state;
        double progress;              /* of this pass, 0 to 1 */
        uint64_t last_completed_ms;   /* wall clock, of a pass that missed nothing; 0: never */
        uint64_t passes, bytes_verified, errors_found, errors_repaired, eta_seconds;
        uint64_t canaries, canaries_missed;
        bool blind;                   /* the last canary was not found */
        uint64_t readback_bytes, readback_skipped_bytes, surface_bytes, slots_retired;
    } scrub;
    struct {
        enum upkeep_state state;
        uint64_t bytes_remaining, messages_remaining, bytes_per_second, eta_seconds, segments_rebuilt, bytes_rebuilt;
        bool behind;                  /* the redundancy deadline has passed, or cannot be kept at this pace */
    } rebuild;
};
void upkeep_status(struct pool *pool, struct upkeep_status *status_out);

void scrub_start(struct pool *pool);  /* a pass over everything from here on, at the pace the throttle gives */
void scrub_pause(struct pool *pool, bool paused); /* until resumed, over restarts, too */

/* --- the report of a pass; docs/SCRUB-REPORT.md --- */
#define SCRUB_FINDINGS_MAX 4096u /* listed in one report; more are only counted: whoever reads them knows enough by then */
#define SCRUB_MISSED_MAX 256u

enum scrub_kind { SCRUB_FRAME, SCRUB_IMAGE_HEADER, SCRUB_SUPERBLOCK, SCRUB_TABLE, SCRUB_FREE_SLOT, SCRUB_KIND_COUNT };
enum scrub_outcome {
    SCRUB_OPEN,       /* under repair */
    SCRUB_REPAIRED,   /* rewritten and read back, or written anew elsewhere */
    SCRUB_STAYS_BAD,  /* bad after the repair: the image is made again in another slot, this one is retired */
    SCRUB_NO_SOURCE,  /* no verified bytes to repair it from */
    SCRUB_GONE,       /* the segment was freed before */
    SCRUB_DEFERRED,   /* the member was out of service until the pass ended: it is found again when it is back */
    SCRUB_OUTCOME_COUNT
};
const char *scrub_kind_word(enum scrub_kind k);       /* "frame", "image-header", ... */
const char *scrub_outcome_word(enum scrub_outcome o); /* "under-repair", "repaired", ... */

struct scrub_finding {
    uint64_t found_ms, ended_ms;  /* wall clock; ended_ms 0: still open */
    enum scrub_kind kind;
    enum scrub_outcome outcome;
    enum err fault;
    uint8_t member;               /* index in the report's members */
    struct segment_id segment;    /* none for superblocks and free slots */
    uint32_t slot;                /* UINT32_MAX: outside the slots */
    uint64_t offset;              /* in the image; of a superblock on the member */
    uint32_t blocks;              /* places of 4 KiB that are bad */
};

struct scrub_missed { struct segment_id segment; uint8_t member; char why[24]; };

struct scrub_member_report {
    char name[32], serial[64];    /* empty name: no such member */
    uint64_t images, bytes, missed;
    uint64_t found[SCRUB_KIND_COUNT], repaired, left; /* places; left: stays bad, no source, deferred */
};

struct scrub_report {
    uint64_t pass;                /* number, over restarts */
    uint64_t started_ms, ended_ms; /* ended_ms 0: it runs, or waits to begin */
    bool complete;                /* nothing was missed */
    uint64_t places_found, places_repaired, places_left;
    uint64_t finding_total;       /* listed or not */
    uint32_t finding_count, missed_count;
    uint64_t missed_total;
    struct scrub_member_report members[MEMBERS_MAX];
    struct scrub_missed missed[SCRUB_MISSED_MAX];
    struct scrub_finding findings[SCRUB_FINDINGS_MAX];
};
/* The pass under way (with what was found since the one before), or the last one that ended; NULL: none yet. */
const struct scrub_report *scrub_report(const struct pool *pool, bool last);
void rebuild_pause(struct pool *pool, bool paused);

/* Moves every image off a member that still works; it takes no new segments, and that holds over restarts. ERR_NOT_FOUND,
 * ERR_INVALID (not in service). `member_clear` ends that, puts a slow or suspect member back into service, and a spare to
 * work. */
enum err member_evacuate(struct pool *pool, const char *name) MUST_CHECK;
enum err member_clear(struct pool *pool, const char *name) MUST_CHECK;
/* Takes a member out of the pool for good. ERR_BUSY: any segment has an image there; ERR_INVALID: it is in service.
 * when_empty: then it is emptied, and removed as soon as nothing is left there, over restarts. */
enum err member_remove(struct pool *pool, const char *name, bool when_empty) MUST_CHECK;
/* For a member that is away and never comes back: removed whatever lies there. Messages of which nobody else has an image are
 * lost, told by name, and reads say so from then on. dry_run: only tells what that would be. ERR_NOT_FOUND; ERR_INVALID: it is
 * here; ERR_BUSY: the index, which knows whose mail it is, is not complete. */
struct member_loss {
    uint64_t messages;
    uint64_t segments_unknown;    /* that would be lost, and the index could not be told what is in them */
};
enum err member_give_up(struct pool *pool, const char *name, bool dry_run, struct member_loss *loss_out) MUST_CHECK;
/* What the drive says of itself. `failing`: the member is emptied while `copies` failure domains stay in service without
 * it, else it is suspect. ERR_NOT_FOUND: no such member. */
enum err member_smart(struct pool *pool, const char *name, bool failing, const char *evidence) MUST_CHECK;
/* The last change of membership is in the superblocks. */
bool members_settled(const struct pool *pool);

#endif
