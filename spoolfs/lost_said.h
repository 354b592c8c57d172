/* SPDX-License-Identifier: Apache-2.0 */
/* The queue ids that were told lost in this mount: a set of LOST_SAID_MAX, the oldest forgotten first. Pure. */
#ifndef LOST_SAID_H
#define LOST_SAID_H

#include <base/ids.h>
#include <base/map.h>
#include <spoolfs/limits.h>

struct lost_said {
    struct queue_id ids[LOST_SAID_MAX]; /* a ring, in the order in which they came */
    uint64_t count;                     /* that ever came */
    struct map at;                      /* those that are in the ring */
};

bool lost_said_has(const struct lost_said *s, struct queue_id qid);
/* False: it was there. Where there is no memory to remember it, it may be told once more: better than not at all. */
bool lost_said_add(struct lost_said *s, struct queue_id qid);
void lost_said_fini(struct lost_said *s);

#endif
