/* SPDX-License-Identifier: Apache-2.0 */
/* Stories about a simulated pool in which nothing happens by itself: no faults, one latency, no sender of its own. */
#ifndef STORY_H
#define STORY_H

#include <spoolfs/format.h>
#include <world.h>

struct world *story_open(uint64_t seed, uint32_t members, enum io_durable_by by); /* two copies */
void story_close(struct world *w, const char *what, uint64_t number); /* fails the test when a promise is broken */
void story_cut(struct world *w, enum sim_survival survival);
void story_append(struct world *w, uint32_t count, uint32_t bytes);   /* each a little larger than the one before */
/* The first frame of each image of that kind on `target` no longer verifies. */
void story_rot(struct world *w, uint16_t target, enum segment_kind kind);

#endif
