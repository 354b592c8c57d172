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
        uint64_t last_completed_ms;   /* wall clock; 0: never in this mount */
        uint64_t passes, bytes_verified, errors_found, errors_repaired, eta_seconds;
    } scrub;
    struct {
        enum upkeep_state state;
        uint64_t bytes_remaining, messages_remaining, bytes_per_second, eta_seconds, segments_rebuilt, bytes_rebuilt;
        bool behind;                  /* the redundancy deadline slipped */
    } rebuild;
};
void upkeep_status(struct pool *pool, struct upkeep_status *status_out);

void scrub_start(struct pool *pool);  /* a pass now, at the pace the throttle gives */
void scrub_pause(struct pool *pool, bool paused);
void rebuild_pause(struct pool *pool, bool paused);

/* Moves every image off a member that still works; it takes no new segments, and that holds over restarts. ERR_NOT_FOUND,
 * ERR_INVALID (not in service). `member_clear` ends that, puts a slow or suspect member back into service, and a spare to
 * work. */
enum err member_evacuate(struct pool *pool, const char *name) MUST_CHECK;
enum err member_clear(struct pool *pool, const char *name) MUST_CHECK;
/* Takes a member out of the pool for good. ERR_BUSY: any segment has an image there; ERR_INVALID: it is in service.
 * when_empty: then it is emptied, and removed as soon as nothing is left there, over restarts. */
enum err member_remove(struct pool *pool, const char *name, bool when_empty) MUST_CHECK;
/* The last change of membership is in the superblocks. */
bool members_settled(const struct pool *pool);

#endif
