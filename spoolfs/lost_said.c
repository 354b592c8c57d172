/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the set of lost_said.h: a ring says who is the oldest, a hash table who is in it; each read that ends in ERR_LOST asks.
 * Never: allocates more than the table of LOST_SAID_MAX ids takes. */
#include "lost_said.h"

bool lost_said_has(const struct lost_said *s, struct queue_id qid)
{
    return map_get(&s->at, qid.incarnation, qid.counter) != NULL;
}

bool lost_said_add(struct lost_said *s, struct queue_id qid)
{
    if (lost_said_has(s, qid))
        return false;
    struct queue_id *place = &s->ids[s->count % LOST_SAID_MAX];
    if (s->count >= LOST_SAID_MAX)
        map_remove(&s->at, place->incarnation, place->counter);
    bool kept = map_put(&s->at, qid.incarnation, qid.counter, place) == ERR_OK;
    *place = kept ? qid : (struct queue_id){0};
    s->count++;
    return true;
}

void lost_said_fini(struct lost_said *s)
{
    map_free(&s->at);
}
