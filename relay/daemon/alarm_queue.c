/* SPDX-License-Identifier: Apache-2.0 */
/* A short row of notes. See alarm_queue.h. */
#include "alarm_queue.h"

#include <base/assert.h>
#include <string.h>

static void drop_at(struct alarm_queue *q, uint32_t at)
{
    ASSERT(at < q->count && !(q->flying && at == 0));
    memmove(&q->notes[at], &q->notes[at + 1], (q->count - at - 1) * sizeof q->notes[0]);
    q->count--;
    if (at == 0) {
        q->tries = 0;
        q->not_before_ms = 0;
    }
}

static bool of_one_condition(const struct alarm_note *a, const struct alarm_note *b)
{
    if (a->what == ALARM_BEAT || b->what == ALARM_BEAT)
        return a->what == b->what;
    return a->what != ALARM_HAPPENED && b->what != ALARM_HAPPENED && a->kind == b->kind && strcmp(a->member, b->member) == 0;
}

void alarm_queue_put(struct alarm_queue *q, const struct alarm_note *n)
{
    struct alarm_note note = *n;
    uint32_t first = q->flying ? 1 : 0;
    for (uint32_t i = first; i < q->count; i++) { /* ALQ-2 */
        if (!of_one_condition(&q->notes[i], n))
            continue;
        if (q->notes[i].what == ALARM_RAISED && n->what == ALARM_REPEATED)
            note.what = ALARM_RAISED; /* nobody has heard of it yet */
        q->notes[i] = note;
        return;
    }
    if (q->count == ALARM_QUEUE_MAX) {
        drop_at(q, first);
        q->dropped++;
    }
    q->notes[q->count++] = note;
}

const struct alarm_note *alarm_queue_next(struct alarm_queue *q, uint64_t now_ms)
{
    if (q->flying || q->count == 0 || now_ms < q->not_before_ms)
        return NULL;
    q->flying = true;
    q->tries++;
    return &q->notes[0];
}

void alarm_queue_done(struct alarm_queue *q, bool ok, uint64_t now_ms)
{
    ASSERT(q->flying && q->count > 0);
    q->flying = false;
    if (!ok && q->tries < ALARM_TRIES_MAX) {
        q->not_before_ms = now_ms + ((uint64_t)ALARM_RETRY_FIRST_MS << (q->tries - 1));
        return;
    }
    q->sent += ok;
    q->failed += !ok;
    drop_at(q, 0);
}
