/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which segment the pass looks at next.
 *
 *   all segments are looked over, SCAN_AT_ONCE in a step -> the PASS_NEXT_MAX best are kept -> taken one by one, each time
 *   the best as things are then -> looked over again
 *
 * Invariant CHO-1: no step looks over more than SCAN_AT_ONCE segments, however many there are. Changes nothing. */
#include "scrub.h"

struct rank { bool seen; uint32_t age; uint64_t turn; };

/* Missed before comes last; then the longest unverified; of equals the one whose members were read least recently: they
 * take turns. */
static bool choose_sooner(const struct rank *a, const struct rank *b)
{
    if (a->seen != b->seen)
        return b->seen;
    return a->age != b->age ? a->age > b->age : a->turn < b->turn;
}

/* age 0: there is nothing to look at. */
static struct rank rank_of(const struct scrub *c, const struct segment *s)
{
    struct rank r = {.seen = s->missed_members != 0};
    for (uint32_t k = 0; k < s->image_count; k++) {
        uint64_t last = c->member_turn[s->images[k].member];
        r.turn = last > r.turn ? last : r.turn;
        uint16_t verified = s->images[k].verified;
        if (verified == scrub_mark(c) || !scrub_image_answers(c->pool, s, k))
            continue;
        uint32_t age = verified ? (uint16_t)(scrub_mark(c) - verified) : UINT16_MAX + 1u;
        r.age = age > r.age ? age : r.age;
    }
    return r;
}

/* age 0: not now. */
static struct rank rank_now(const struct scrub *c, const struct segment *s)
{
    bool not_now = s->state == SEGMENT_UNUSED || !scrub_counts(c, s) || !scrub_can_look_at(s) ||
                   (s->state == SEGMENT_OPEN && io_now_ns(c->pool->io) < s->look_again_ns) ||
                   (c->evidence_look.running && c->evidence_look.segment == s);
    return not_now ? (struct rank){0} : rank_of(c, s);
}

/* The best of what the last scan gathered; it is taken out. NULL: nothing is left of it. */
static struct segment *choose_take(struct scrub *c)
{
    while (c->next_count > 0) {
        uint32_t best = 0;
        struct rank best_rank = {0};
        for (uint32_t i = 0; i < c->next_count; i++) {
            struct rank r = rank_now(c, &c->pool->segments[c->next[i]]);
            if (r.age && (!best_rank.age || choose_sooner(&r, &best_rank))) {
                best = i;
                best_rank = r;
            }
        }
        uint32_t index = c->next[best];
        c->next[best] = c->next[--c->next_count];
        if (best_rank.age)
            return &c->pool->segments[index];
        c->next_count = 0;
    }
    return NULL;
}

static void choose_gather(struct scrub *c, uint32_t index)
{
    struct rank r = rank_now(c, &c->pool->segments[index]);
    if (!r.age)
        return;
    if (c->next_count < PASS_NEXT_MAX) {
        c->next[c->next_count++] = index;
        return;
    }
    uint32_t worst = 0;
    struct rank worst_rank = rank_now(c, &c->pool->segments[c->next[0]]);
    for (uint32_t i = 1; i < PASS_NEXT_MAX; i++) {
        struct rank other = rank_now(c, &c->pool->segments[c->next[i]]);
        if (choose_sooner(&worst_rank, &other)) {
            worst = i;
            worst_rank = other;
        }
    }
    if (choose_sooner(&r, &worst_rank))
        c->next[worst] = index;
}

/* What to look at next, a part of all segments at a time: the engine has mail to carry. NULL: none is known yet, or
 * (*none_out) there is none now. */
struct segment *scrub_choose(struct scrub *c, bool *none_out)
{
    *none_out = false;
    struct segment *s = c->scan_at == 0 ? choose_take(c) : NULL;
    if (s)
        return s;
    for (uint32_t n = 0; n < SCAN_AT_ONCE && c->scan_at < c->pool->segment_used; n++)
        choose_gather(c, c->scan_at++);
    if (c->scan_at < c->pool->segment_used)
        return NULL;
    c->scan_at = 0;
    s = choose_take(c);
    *none_out = !s;
    return s;
}
