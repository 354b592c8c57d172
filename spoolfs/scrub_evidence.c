/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: following evidence. Where a read, a read-back or a look found something, the whole segment is looked at at once,
 * all its images side by side, and so are the segments beside that place on that member.
 *
 *   noted [scrub_note_fault] -> suspicious -> looked at -> clean: over | bad: what lies around it on that member, too
 *                                          -> an image was missed: stays suspicious, again when it answers
 *                                          -> repairs were begun: again when they are over [mend_look_ns]
 *
 * Invariants: SCR-2, SCR-3 (scrub.h). EVI-1: what lies around a place is not looked at twice within EVIDENCE_AGAIN_NS:
 * a member full of damage does not become an endless round; the pass goes over it anyway. EVI-2: an image with a place that is
 * known to be bad, or was never written, and that another image has or may have, is holed. It does not count as redundancy, after a
 * restart neither, before a look has read all of it and found nothing; and as long as there is one, its segment is looked at as soon
 * as the image that was missed answers, or is out of the question. What no image has is lost, and makes no hole. */
#include "images.h"
#include "scrub.h"

#define EVIDENCE_AGAIN_NS (600 * NS_PER_S)      /* around a place; the place itself is looked at each time */
#define MEND_LOOK_NS NS_PER_S                   /* after a look that began repairs; twice as long after each more in a row */
#define MEND_LOOKS_DOUBLED_MAX 6u               /* a minute: a member that lies at each read is not read for that alone */
#define HOLES_SAVE_NS (60 * NS_PER_S)           /* at most one TABLE a minute for them */

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

static void hole_note(struct scrub *c, struct segment *s, uint32_t image)
{
    c->evidence = c->evidence_left = true;
    c->evidence_choose_ns = 0;
    if (image < s->image_count)
        image_mark_hole(&s->images[image]);
}

void scrub_note_hole(struct pool *p, struct segment *s, uint32_t image)
{
    s->suspicious = true;
    struct scrub *c = scrub_of(p);
    if (!c)
        return;
    hole_note(c, s, image);
    c->holes_told = true; /* by the rebuild's SEAL */
}

void scrub_note_fault(struct pool *p, struct segment *s, uint32_t image)
{
    s->suspicious = true;
    struct scrub *c = scrub_of(p);
    if (!c)
        return;
    hole_note(c, s, image);
    if (image < s->image_count)
        evidence_around(c, &s->images[image]);
}

/* EVI-2. Whatever was noted while it looked comes to another look. */
void evidence_judge(struct look *l)
{
    struct scrub *c = l->scrub;
    struct segment *s = l->segment;
    bool mends = false;
    s->loss_listed = s->loss_listed || l->lost;
    for (uint32_t i = 0; i < l->count; i++) {
        uint32_t now = segment_image_at(s, &l->images[i]);
        if (now == COPIES_MAX)
            continue;
        struct image *image = &s->images[now];
        mends = mends || ((l->mended & (1u << i)) && !image->bad);
        bool given_up = c->pool->members[image->member].removed; /* nobody reads there any more */
        if (!image->holed || (!given_up && (image->unproved || ((l->mended | l->missed) & (1u << i)) || s->suspicious)))
            continue;
        image->holed = false;
        c->holes_unsaved = c->holes_unsaved || c->holes_told;
    }
    bool stays = l->undecided || (mends && s->mend_looks > 0); /* what is mended at once needs no table */
    c->holes_unsaved = c->holes_unsaved || stays;
    s->mend_look_ns = mends ? io_now_ns(c->pool->io) + (MEND_LOOK_NS << s->mend_looks) : 0;
    s->mend_looks = !mends ? 0 : s->mend_looks < MEND_LOOKS_DOUBLED_MAX ? s->mend_looks + 1 : s->mend_looks;
    c->evidence = c->evidence || segment_holed(s);
    c->evidence_left = c->evidence_left || segment_holed(s);
}

bool pool_holed(const struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++)
        if (p->segments[i].state != SEGMENT_UNUSED && segment_holed(&p->segments[i]))
            return true;
    return false;
}

void evidence_save(struct scrub *c)
{
    uint64_t now = io_now_ns(c->pool->io);
    if (!c->holes_unsaved || now < c->holes_look_ns)
        return;
    c->holes_look_ns = now + NS_PER_S;
    bool left = pool_holed(c->pool);
    if (left && now < c->holes_save_ns)
        return; /* the end of the last one is told at once: a mount need not look again */
    c->holes_unsaved = false;
    c->holes_save_ns = now + HOLES_SAVE_NS;
    c->pool->table_renew = true;
    c->holes_told = left;
}

void evidence_over(struct look *l)
{
    struct scrub *c = l->scrub;
    struct segment *s = l->segment;
    scrub_look_over(l);
    look_free_windows(l);
    s->suspicious = s->suspicious || l->dropped || look_missed(l) || l->unsealed; /* SCR-3: all of it was not seen, or repaired */
    if (l->dropped)
        return;
    s->evidence_ns = io_now_ns(c->pool->io);
    for (uint32_t i = 0; i < l->count; i++)
        if (l->bad & (1u << i))
            evidence_around(c, &l->images[i]);
}

static bool evidence_wants(const struct scrub *c, const struct segment *s)
{
    if (s->kind != SEGMENT_MAIL || !scrub_can_look_at(s))
        return false;
    if (s->mend_look_ns)
        return io_now_ns(c->pool->io) >= s->mend_look_ns && !segment_repair_waits(c->pool, s);
    bool missed = false, answers = false;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &c->pool->members[s->images[i].member];
        bool was = !m->removed && ((s->missed_members >> m->number) & 1);
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
        if (s->state == SEGMENT_UNUSED || !(s->suspicious || segment_holed(s)))
            continue;
        c->evidence_left = true;
        if (!evidence_wants(c, s) || (c->pass_look.running && c->pass_look.segment == s))
            continue;
        s->suspicious = false; /* what is noted from here on comes to the next one */
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
