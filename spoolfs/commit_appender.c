/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the segment an appender writes to: opening the next one, ahead if it can, and closing it when it is full, lies on
 * a slow member, or may have more images elsewhere.
 * Invariant: COM-3 (engine.h): a segment that lost an image is closed, and its SEAL goes to the table; the frames that were
 * placed again wait for it (appender.waits_for_seal). Never: touches a frame, but to refuse it. */
#include "commit.h"
#include "compact.h"

/* How long a refused placement is not tried again: frees and returning members show up faster than a person. */
#define PLACEMENT_RETRY_NS (50 * NS_PER_MS)

static void close_on_sealed(struct table_group *t, enum err e)
{
    struct segment *s = t->segment;
    struct pool *p = t->pool;
    if (e == ERR_OK) {
        s->state = SEGMENT_SEALED;
        if (!s->dirty) {
            s->dirty = true;
            p->dirty_segments++;
        }
    }
    for (uint32_t i = 0; i < p->appender_count; i++)
        if (p->appenders[i].waits_for_seal && segment_id_equal(p->appenders[i].sealing, s->id))
            p->appenders[i].waits_for_seal = false;
}

void commit_close_segment(struct appender *a)
{
    struct segment *s = a->segment;
    ASSERT(s && s->state == SEGMENT_OPEN);
    a->segment = NULL;
    s->state = SEGMENT_CLOSED;
    if (s->kind == SEGMENT_TABLE)
        return; /* ends with the superblock update that names its successor */
    s->opener = a;
    enum err e = table_submit(a->pool, RECORD_SEAL, s, close_on_sealed);
    ASSERT(e == ERR_OK || e == ERR_NO_MEMORY);
    if (e != ERR_OK)
        a->waits_for_seal = false; /* without SEAL recovery finds the end by itself */
}

void appender_close_next(struct appender *a)
{
    struct segment *keep = a->segment;
    a->segment = a->next;
    a->next = NULL;
    commit_close_segment(a);
    a->segment = keep;
}

static void appender_on_opened(struct segment *s, enum err e)
{
    struct appender *a = s->opener;
    struct pool *p = a->pool;
    ASSERT(a->next == s);
    if (e != ERR_OK) {
        a->next = NULL; /* at once elsewhere: a late member is suspect by now and comes last */
        a->retry_ns = e == ERR_TIMEOUT || e == ERR_BUSY ? 0 : io_now_ns(p->io) + PLACEMENT_RETRY_NS;
        return;
    }
    for (uint32_t i = 0; i < s->image_count; i++) { /* a member may have left while OPEN was on its way */
        if (!member_usable(&p->members[s->images[i].member])) {
            struct segment *keep = a->segment;
            a->next = NULL;
            a->segment = s;
            commit_close_segment(a);
            a->segment = keep;
            return;
        }
    }
}

void appender_adopt(struct appender *a, struct segment *s)
{
    ASSERT(a->segment == NULL && s->state == SEGMENT_OPEN);
    a->segment = s;
}

enum err appender_open_next(struct appender *a, enum spool_class class)
{
    struct pool *p = a->pool;
    if (a->next || io_now_ns(p->io) < a->retry_ns)
        return ERR_OK;
    enum err e = segment_open(p, SEGMENT_MAIL, class, a->avoid_mask, &a->next);
    if (e != ERR_OK && a->avoid_mask) /* nowhere else: better the slow member than nothing */
        e = segment_open(p, SEGMENT_MAIL, class, 0, &a->next);
    if (e != ERR_OK) {
        a->retry_ns = io_now_ns(p->io) + PLACEMENT_RETRY_NS;
        return e;
    }
    a->next->opened = appender_on_opened;
    a->next->opener = a;
    return ERR_OK;
}

enum spool_class appender_class(const struct appender *a)
{
    return a->kind == SEGMENT_TABLE ? SPOOL_TABLE : a->moves ? SPOOL_COMPACTION : SPOOL_NEW_MAIL;
}

/* What compactions move and CHUNKs may wait a moment: a slot that they may not need is not taken ahead. */
bool appender_reopens(const struct appender *a)
{
    return a->kind == SEGMENT_MAIL && !a->bulk && !a->moves;
}

void appender_reopen(struct appender *a)
{
    if (!a->reopen)
        return;
    if (a->segment || (a->next && a->next->state == SEGMENT_OPEN) || compact_need(a->pool) > 0)
        a->reopen = false; /* where slots are short none is taken ahead of what waits for one */
    if (!a->reopen || a->next || a->pool->stopping)
        return;
    if (appender_open_next(a, appender_class(a)) == ERR_OK)
        return;
    a->reopen = false; /* what waits for a place asks for itself, at once: results have a claim that new mail has not */
    a->retry_ns = 0;
}

/* No segment to write to: ask for one, or answer now instead of waiting for a person. */
void appender_want_segment(struct appender *a, struct append_frame *f)
{
    if (a->kind == SEGMENT_TABLE) {
        table_rewrite(a->pool);
        return;
    }
    enum err e = appender_open_next(a, a->want_class);
    a->pool->results_stuck = a->pool->results_stuck || (e == ERR_FULL && a->want_class == SPOOL_RESULT); /* CMP-4 */
    bool refused = err_class(e) == ERR_CLASS_FULL || err_class(e) == ERR_CLASS_DEGRADED;
    if (!refused || a->next)
        return;
    a->flight = a->flight == f ? NULL : a->flight;
    a->building = a->building == f ? NULL : a->building;
    frame_fail(f, e);
}

/* An open segment with fewer images than `copies`, though a healthy member could hold one more: a member is back. The segment table
 * takes the slots that are kept for it, and is not given up before the next one has all of its places. */
bool segment_could_have_more(struct pool *p, const struct segment *s)
{
    enum spool_class class = s->kind == SEGMENT_TABLE ? SPOOL_TABLE : SPOOL_NEW_MAIL;
    enum err why;
    if (s->image_count >= p->config.copies || s->length <= BLOCK_BYTES || p->stopping ||
        (s->kind == SEGMENT_TABLE && !placement_possible(p, class, 0, &why)))
        return false;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        bool fits = member_usable(m) && m->state == MEMBER_HEALTHY && m->slots_free > slot_reserve(m, class);
        for (uint32_t k = 0; fits && k < s->image_count; k++)
            fits = !members_share_domain(m, &p->members[s->images[k].member]);
        if (fits)
            return true;
    }
    return false;
}

/* On a member that is slow just now, though there is room for as many images elsewhere (WAT-2). */
bool segment_better_elsewhere(struct pool *p, const struct segment *s, enum spool_class class, uint32_t hedged)
{
    uint32_t avoid = 0;
    enum err why;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        avoid |= p->members[i].used && p->members[i].present && member_avoided(&p->members[i]) ? 1u << i : 0;
    return (segment_members(s) & avoid) && !p->stopping && placement_possible(p, class, avoid | hedged, &why);
}
