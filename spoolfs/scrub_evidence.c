/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: following evidence. Where a read, a read-back or a look found something, the whole segment is looked at at once,
 * all its images side by side, and so are the segments beside that place on that member.
 *
 *   noted [scrub_note_fault] -> suspicious -> looked at -> clean: over | bad: what lies around it on that member, too
 *                                          -> an image was missed: stays suspicious, again when it answers
 *
 * Invariants: SCR-2, SCR-3 (scrub.h). EVI-1: what lies around a place is not looked at twice within EVIDENCE_AGAIN_NS:
 * a member full of damage does not become an endless round; the pass goes over it anyway. */
#include "scrub.h"

#define EVIDENCE_AGAIN_NS (600 * NS_PER_S)      /* around a place; the place itself is looked at each time */

static void evidence_at(struct scrub *c, struct segment *s)
{
    uint64_t now = io_now_ns(c->pool->io);
    if (s->evidence_ns && now - s->evidence_ns < EVIDENCE_AGAIN_NS)
        return;
    s->suspicious = true;
    c->evidence = c->evidence_left = true; /* wherever the round is */
}

/* What lies beside it on that member: damage seldom comes alone. */
void evidence_around(struct scrub *c, const struct image *image)
{
    const struct member *m = &c->pool->members[image->member];
    for (uint32_t d = 0; d < 2; d++) {
        uint32_t slot = d == 0 ? image->slot - 1 : image->slot + 1; /* below slot 0: beyond slot_count */
        if (slot < m->slot_count && m->slot_owner[slot] != 0 && m->slot_owner[slot] != SLOT_RETIRED)
            evidence_at(c, &c->pool->segments[m->slot_owner[slot] - 1]);
    }
}

void scrub_note_fault(struct pool *p, struct segment *s, uint32_t image)
{
    s->suspicious = true;
    struct scrub *c = scrub_of(p);
    if (!c)
        return;
    c->evidence = c->evidence_left = true;
    c->evidence_choose_ns = 0;
    if (image < s->image_count)
        evidence_around(c, &s->images[image]);
}

void evidence_over(struct look *l)
{
    struct scrub *c = l->scrub;
    struct segment *s = l->segment;
    scrub_look_over(l);
    look_free_windows(l);
    if (l->dropped)
        return;
    s->evidence_ns = io_now_ns(c->pool->io);
    s->suspicious = l->missed || l->unsealed; /* SCR-3: all of it was not seen, or repaired */
    for (uint32_t i = 0; i < l->count; i++)
        if (l->bad & (1u << i))
            evidence_around(c, &l->images[i]);
}

static bool evidence_wants(const struct scrub *c, const struct segment *s)
{
    if (!s->suspicious || s->kind != SEGMENT_MAIL || !scrub_can_look_at(s))
        return false;
    bool missed = false, answers = false;
    for (uint32_t i = 0; i < s->image_count; i++) {
        bool was = (s->missed_members >> s->images[i].member) & 1;
        missed = missed || was;
        answers = answers || (scrub_image_answers(c->pool, s, i) && (was || !s->missed_members));
    }
    if (s->missed_members && !missed)
        return true; /* the image that was missed lies elsewhere now */
    return answers && io_now_ns(c->pool->io) >= s->look_again_ns;
}

void evidence_step(struct scrub *c)
{
    look_step(&c->evidence_look);
    uint64_t now = io_now_ns(c->pool->io);
    if (c->evidence_look.running || !c->evidence || c->paused || c->pool->stopping || now < c->evidence_choose_ns)
        return;
    for (uint32_t n = 0; n < SCAN_AT_ONCE && c->evidence_at < c->pool->segment_used; n++) {
        struct segment *s = &c->pool->segments[c->evidence_at++];
        if (s->state == SEGMENT_UNUSED || !s->suspicious)
            continue;
        c->evidence_left = true;
        if (!evidence_wants(c, s) || (c->pass_look.running && c->pass_look.segment == s))
            continue;
        look_begin(&c->evidence_look, s, 0, s->length);
        return;
    }
    if (c->evidence_at < c->pool->segment_used)
        return;
    c->evidence = c->evidence_left; /* a round is over */
    c->evidence_left = false;
    c->evidence_at = 0;
    c->evidence_choose_ns = now + CHOOSE_PAUSE_NS;
}
