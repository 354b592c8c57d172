/* SPDX-License-Identifier: Apache-2.0 */
/* What stays of an index in memory when it is closed or its process dies: to the simulator what the state directory is to
 * the real one. One index at a time is open on it.
 *
 *  KEPT-1  what was synced stays; of the transactions since then the newest can be lost, never one without those after it.
 *  KEPT-2  it is looked through when it is opened, as the one over LMDB is: what is damaged is discarded, and the engine
 *          hears ERR_CORRUPT and begins anew. */
#ifndef SPOOLFS_INDEX_KEPT_H
#define SPOOLFS_INDEX_KEPT_H

#include <spoolfs/index.h>

struct index_kept;

enum err index_kept_make(struct index_kept **kept_out) MUST_CHECK;
enum err index_kept_copy(const struct index_kept *kept, struct index_kept **copy_out) MUST_CHECK; /* as it is now */
void index_kept_free(struct index_kept **kept);
void index_kept_discard(struct index_kept *kept);           /* the next open finds nothing; while no index is open on it */
void index_kept_sync(struct index_kept *kept);
uint32_t index_kept_unsynced(const struct index_kept *kept); /* transactions */
/* The process dies: the newest `lost` of them never happened. An index that is open on it applies nothing any more. */
void index_kept_die(struct index_kept *kept, uint32_t lost);
/* A bit of one value flips; `seen`: the next opening looks as far as that, else whoever reads it finds it. False: nothing is
 * there to be damaged. */
bool index_kept_damage(struct index_kept *kept, uint64_t draw, bool seen);

enum err index_mem_open_kept(struct uuid pool, struct index_kept *kept, const struct index_callbacks *cb,
                             struct index **index_out) MUST_CHECK;

#endif
