/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the pass over everything the members hold, what it remembers over restarts, and who looks when.
 *
 *   due or asked for -> superblocks, canary, segment table -> segments, longest unverified first [scrub_choose]
 *        -> what was missed once more -> repairs over -> report
 *   beside it: evidence [evidence_step], read-back of new frames, surface of free slots
 *
 * Invariants: SCR-1 to SCR-5 (scrub.h). SCR-6: the pass covers what was there when it began; younger segments are read
 * back, and belong to the next pass. SCR-7: its number, its marks and its pause are durable: a restart goes on. */
#include "scrub.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

#define SCRUB_INTERVAL_DEFAULT_NS (24 * 3600 * NS_PER_S)
#define SCRUB_PACE_MIN (UINT64_C(1) << 20) /* bytes a second and image row: a nearly empty pool is verified often */
#define PASS_END_PATIENCE_NS (60 * NS_PER_S)    /* for members that were missed; longer than a restart of a drive */
#define PASS_SETTLE_PATIENCE_NS (60 * NS_PER_S) /* for repairs under way */
#define PASS_SAVE_NS (600 * NS_PER_S)           /* what a crash may cost of a pass; each costs a whole TABLE */

static void pass_look_over(struct look *l);
static uint64_t pass_bytes_left(const struct scrub *c);

uint64_t scrub_interval_ns(const struct pool *p)
{
    return p->config.scrub_interval_ns ? p->config.scrub_interval_ns : SCRUB_INTERVAL_DEFAULT_NS;
}

/* SCR-7 */
static void scrub_remember(struct scrub *c)
{
    const struct scrub_saved *saved = &c->pool->scrub_saved;
    uint64_t now_ms = io_wall_ms(c->pool->io), now = io_now_ns(c->pool->io), interval = scrub_interval_ns(c->pool);
    uint64_t ago = saved->started_ms && saved->started_ms < now_ms ? (now_ms - saved->started_ms) * NS_PER_MS : 0;
    ago = ago < interval ? ago : interval;
    c->pass = saved->pass;
    c->last_completed_ms = saved->completed_ms;
    c->paused = saved->paused;
    c->pass_started_ms = saved->started_ms;
    c->pass_started_ns = now > ago ? now - ago : 0; /* what is left of it is spread over what is left of the interval */
    c->in_pass = saved->running;
    c->next_ns = saved->pass && !saved->running ? now + interval - ago : 0;
    if (!saved->running)
        return;
    c->pass_bytes = pass_bytes_left(c);
    report_begin(c);
}

struct scrub *scrub_of(struct pool *p)
{
    if (p->scrub)
        return p->scrub;
    struct scrub *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->report = calloc(1, sizeof *c->report);
    c->last_report = calloc(1, sizeof *c->last_report);
    if (!c->report || !c->last_report) {
        free(c->report);
        free(c->last_report);
        free(c);
        return NULL;
    }
    c->pool = p;
    c->pass_look.scrub = c->evidence_look.scrub = c;
    c->pass_look.over = pass_look_over;
    c->evidence_look.over = evidence_over;
    link_init(&c->orphans);
    link_init(&c->super_reads);
    link_init(&c->late_canaries);
    link_init(&c->late_surfaces);
    c->evidence = c->holes_told = pool_holed(p);
    p->scrub = c;
    scrub_remember(c);
    return c;
}

bool scrub_may(struct scrub *c, uint32_t members_mask)
{
    return upkeep_may(c->pool, members_mask, IO_CLASS_SCRUB);
}

uint16_t scrub_mark(const struct scrub *c)
{
    return (uint16_t)c->pass; /* 0: never; pass_begin leaves out the numbers that end so */
}

static void scrub_note_saved(struct scrub *c)
{
    c->pool->scrub_saved = (struct scrub_saved){.pass = c->pass, .started_ms = c->pass_started_ms,
                                                .completed_ms = c->last_completed_ms, .paused = c->paused,
                                                .running = c->in_pass};
}

static void scrub_save(struct scrub *c)
{
    scrub_note_saved(c);
    if (c->pool->mounted && !c->pool->read_only)
        superblock_update(c->pool, NULL);
}

/* --- marks --- */

bool scrub_image_answers(const struct pool *p, const struct segment *s, uint32_t i)
{
    const struct member *m = &p->members[s->images[i].member];
    bool missed = (s->missed_members >> m->number) & 1;
    return member_readable(m) && (!missed || io_now_ns(p->io) >= s->look_again_ns) && !look_owed_by(p->scrub, m);
}

bool scrub_counts(const struct scrub *c, const struct segment *s)
{
    return s->kind == SEGMENT_MAIL && (s->state == SEGMENT_OPEN || s->state == SEGMENT_CLOSED || s->state == SEGMENT_SEALED) &&
           (s->id.incarnation != c->pool->incarnation || s->id.counter <= c->newest_segment);
}

static bool segment_covered(const struct scrub *c, const struct segment *s)
{
    for (uint32_t i = 0; i < s->image_count; i++)
        if (s->images[i].verified != scrub_mark(c))
            return false;
    return true;
}

bool scrub_can_look_at(const struct segment *s)
{
    return (s->state == SEGMENT_OPEN || s->state == SEGMENT_SEALED) && !s->compacting && !s->rebuilding;
}

/* SCR-3 */
void scrub_look_over(struct look *l)
{
    struct scrub *c = l->scrub;
    struct segment *s = l->segment;
    if (l->dropped)
        return;
    s->missed_members = 0;
    evidence_judge(l);
    for (uint32_t i = 0; i < l->count; i++) {
        for (uint32_t k = 0; k < s->image_count; k++) {
            if (s->images[k].member != l->images[i].member || s->images[k].slot != l->images[i].slot)
                continue;
            bool missed = (l->missed >> i) & 1;
            bool again = (l->unsealed >> i) & 1; /* it is found again, and repaired, once it is sealed */
            if (missed || again) {
                s->missed_members |= missed && (look_missed(l) & (1u << i)) ? 1u << s->images[k].member : 0;
                s->look_again_ns = io_now_ns(c->pool->io) + (missed ? LOOK_AGAIN_NS : NS_PER_S);
                continue;
            }
            if (s->images[k].verified != scrub_mark(c))
                c->idle_since_ns = c->settle_since_ns = 0;
            s->images[k].verified = scrub_mark(c);
            c->unsaved = true;
            if (c->in_pass)
                report_image(c, &c->pool->members[s->images[k].member], l->end);
        }
    }
}

/* --- the pass --- */

static uint64_t pass_bytes_left(const struct scrub *c)
{
    uint64_t left = 0;
    for (uint32_t i = 0; i < c->pool->segment_used; i++) {
        const struct segment *s = &c->pool->segments[i];
        if (s->state != SEGMENT_UNUSED && scrub_counts(c, s) && !segment_covered(c, s))
            left += s->length;
    }
    return left;
}

/* What is left of the interval for what is left to read; a fifth is reserve. */
static uint64_t pass_pace(const struct scrub *c)
{
    if (c->forced)
        return 0;
    uint64_t end = c->pass_started_ns + scrub_interval_ns(c->pool) / 5 * 4, now = io_now_ns(c->pool->io);
    uint64_t seconds = end > now ? (end - now) / NS_PER_S + 1 : 1;
    uint64_t left = c->pass_bytes > c->pass_done ? c->pass_bytes - c->pass_done : 0;
    uint64_t pace = left / seconds;
    return pace > SCRUB_PACE_MIN ? pace : SCRUB_PACE_MIN;
}

static void pass_table_over(struct scrub *c, const struct look *l)
{
    if (l->dropped || (l->stopped && !l->missed))
        return; /* written anew meanwhile: once more */
    c->table_done = l->missed == 0;
    c->table_missed = 0;
    c->table_again_ns = io_now_ns(c->pool->io) + LOOK_AGAIN_NS;
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->missed & (1u << i))
            c->table_missed |= 1u << l->images[i].member;
        else if (c->table_done)
            report_image(c, &c->pool->members[l->images[i].member], l->end);
    }
}

static void pass_look_over(struct look *l)
{
    struct scrub *c = l->scrub;
    if (l->what == LOOK_TABLE) {
        pass_table_over(c, l);
        return;
    }
    scrub_look_over(l);
    for (uint32_t i = 0; i < l->count; i++)
        if (l->bad & (1u << i))
            evidence_around(c, &l->images[i]);
    c->pass_done += l->missed ? 0 : l->end;
}

static void pass_begin(struct scrub *c)
{
    c->pass++;
    c->pass += scrub_mark(c) == 0;
    c->in_pass = true;
    c->table_done = c->supers_done = false;
    c->table_missed = 0;
    c->table_again_ns = c->choose_ns = 0;
    c->scan_at = c->next_count = 0;
    c->newest_segment = c->pool->next_segment;
    c->pass_bytes = pass_bytes_left(c);
    c->pass_done = 0;
    c->pass_started_ns = c->saved_ns = io_now_ns(c->pool->io);
    c->pass_started_ms = io_wall_ms(c->pool->io);
    c->idle_since_ns = c->settle_since_ns = 0;
    report_begin(c);
    scrub_note_saved(c); /* written once the superblocks have been read: an update would hide what is wrong with them */
}

static void segment_report_missed(struct scrub *c, const struct segment *s)
{
    if (s->state == SEGMENT_UNUSED || !scrub_counts(c, s) || segment_covered(c, s))
        return;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &c->pool->members[s->images[i].member];
        if (s->images[i].verified == scrub_mark(c) || m->removed)
            continue;
        report_missed(c, s->id, m, !member_readable(m) ? "member away" : scrub_can_look_at(s) ? "no answer" : "busy");
    }
}

static void pass_end(struct scrub *c)
{
    struct pool *p = c->pool;
    for (uint32_t i = 0; i < p->segment_used; i++)
        segment_report_missed(c, &p->segments[i]);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (!c->table_done && (c->table_missed & (1u << i)))
            report_missed(c, p->table_id, &p->members[i], "segment table");
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (c->super.missed & (1u << i))
            report_missed(c, (struct segment_id){0}, &p->members[i], "superblocks");
    bool complete = c->report->missed_total == 0;
    report_settle(c);
    c->in_pass = c->forced = false;
    c->passes++;
    if (complete)
        c->last_completed_ms = io_wall_ms(p->io);
    look_free_windows(&c->pass_look);
    const struct scrub_report *r = c->report;
    pool_event(p, EVENT_scrub_completed, NULL,
               "pass %llu: %llu places found bad, %llu repaired, %llu left; %llu images missed; %llu bytes verified since the mount",
               (unsigned long long)c->pass, (unsigned long long)r->places_found, (unsigned long long)r->places_repaired,
               (unsigned long long)r->places_left, (unsigned long long)r->missed_total, (unsigned long long)c->bytes_verified);
    report_end(c, complete);
    uint64_t took = io_now_ns(p->io) - c->pass_started_ns, interval = scrub_interval_ns(p);
    c->next_ns = io_now_ns(p->io) + (took < interval ? interval - took : 0);
    p->table_renew = true; /* with its marks */
    c->unsaved = false;
    scrub_save(c);
}

/* Nothing can be looked at just now. True: nothing more will come. Each wait has its own patience. */
static bool pass_waited_long_enough(struct scrub *c)
{
    uint64_t now = io_now_ns(c->pool->io);
    bool left = pass_bytes_left(c) > 0 || !c->table_done || c->super.missed;
    if (left && c->idle_since_ns == 0)
        c->idle_since_ns = now;
    if (left && now - c->idle_since_ns < PASS_END_PATIENCE_NS)
        return false;
    bool open = c->pool->repairs_count > 0 || report_pending(c) || c->evidence_look.running;
    if (open && c->settle_since_ns == 0)
        c->settle_since_ns = now;
    return !open || now - c->settle_since_ns >= PASS_SETTLE_PATIENCE_NS;
}

static bool pass_due(const struct scrub *c)
{
    return c->forced || (io_now_ns(c->pool->io) >= c->next_ns && c->pool->index_ready);
}

static uint32_t members_kept(const struct scrub *c, uint32_t mask)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        kept |= member_kept(&c->pool->members[i]) ? mask & (1u << i) : 0;
    return kept;
}

/* What stands before the segments. True: under way. */
static bool pass_prepares(struct scrub *c)
{
    if (!c->supers_done) {
        super_tour_begin(c, UINT32_MAX);
        canary_begin(c);
        c->supers_done = c->supers_new = true;
    }
    if (c->super.running || !canary_idle(c))
        return true;
    if (c->supers_new)
        scrub_save(c);
    if (c->supers_new || !c->super.missed)
        c->super_again_ns = io_now_ns(c->pool->io) + LOOK_AGAIN_NS;
    c->supers_new = false;
    uint32_t missed = c->super.missed, kept = members_kept(c, missed);
    if (kept && io_now_ns(c->pool->io) >= c->super_again_ns) {
        c->supers_new = true;
        super_tour_begin(c, kept);
        c->super.missed = missed & ~kept;
        return true;
    }
    struct segment *table = c->pool->table_segment;
    bool still = table && !c->pool->table_rewriting && !c->pool->table_renew; /* else: when it is written anew */
    if (c->table_done || !still || io_now_ns(c->pool->io) < c->table_again_ns)
        return false;
    c->pass_look.pace = pass_pace(c);
    look_begin(&c->pass_look, table, 0, table->length);
    return true;
}

static void pass_step(struct scrub *c)
{
    look_step(&c->pass_look);
    if (c->pass_look.running || c->paused || c->pool->stopping)
        return;
    if (!c->in_pass) {
        if (!pass_due(c))
            return;
        pass_begin(c);
    }
    if (pass_prepares(c) || io_now_ns(c->pool->io) < c->choose_ns)
        return;
    bool none;
    struct segment *s = scrub_choose(c, &none);
    if (none)
        c->choose_ns = io_now_ns(c->pool->io) + CHOOSE_PAUSE_NS;
    if (s) {
        if (!s->missed_members) /* that one is asked again shows nothing: it counts when it answers */
            c->idle_since_ns = c->settle_since_ns = 0;
        c->pass_look.pace = pass_pace(c);
        look_begin(&c->pass_look, s, 0, s->length);
    } else if (none && pass_waited_long_enough(c)) {
        pass_end(c);
    }
}

/* The table in the log carries the marks: a crash costs what came after the last one. */
static void pass_save(struct scrub *c)
{
    uint64_t now = io_now_ns(c->pool->io);
    if (!c->in_pass || !c->unsaved || now - c->saved_ns < PASS_SAVE_NS)
        return;
    c->saved_ns = now;
    c->unsaved = false;
    c->pool->table_renew = true;
}

/* Open findings about a table segment end when another one has taken its place. */
static void table_findings_end(struct scrub *c)
{
    const struct segment *t = c->pool->table_segment;
    if (!c->table_open)
        return;
    c->table_open = report_open(c, SCRUB_TABLE);
    for (uint32_t i = 0; t && i < c->report->finding_count; i++) {
        const struct scrub_finding *f = &c->report->findings[i];
        if (f->kind == SCRUB_TABLE && f->outcome == SCRUB_OPEN && !segment_id_equal(f->segment, t->id))
            report_outcome(c, SCRUB_TABLE, NULL, f->segment, f->offset, SCRUB_REPAIRED);
    }
}

void scrub_step(struct pool *p)
{
    struct scrub *c = scrub_of(p);
    if (!c || !p->mounted)
        return;
    if (c->super.running)
        super_tour_step(c);
    canary_step(c);
    evidence_step(c);
    pass_step(c);
    readback_step(c);
    surface_step(c);
    table_findings_end(c);
    pass_save(c);
    evidence_save(c);
}

bool scrub_idle(const struct pool *p)
{
    const struct scrub *c = p->scrub;
    return !c || (!c->pass_look.running && !c->evidence_look.running && !c->super.running && canary_idle(c) &&
                  readback_idle(c) && surface_idle(c));
}

void scrub_note_repair(struct pool *p, struct segment *s, uint32_t image, uint64_t offset, enum err e)
{
    struct scrub *c = p->scrub;
    if (!c)
        return;
    const struct member *m = &p->members[s->images[image].member];
    if (e == ERR_MEMBER_GONE) { /* out of service: found again when it is back (SCR-3) */
        s->images[image].verified = 0;
        s->missed_members |= 1u << m->number;
        s->look_again_ns = io_now_ns(p->io) + LOOK_AGAIN_NS;
        return;
    }
    report_outcome(c, offset == 0 ? SCRUB_IMAGE_HEADER : SCRUB_FRAME, m, s->id, offset,
                   e == ERR_OK ? SCRUB_REPAIRED : SCRUB_STAYS_BAD);
}

void scrub_note_given_up(struct pool *p, const struct segment *s, uint32_t image)
{
    const struct member *m = &p->members[s->images[image].member];
    if (!p->scrub)
        return;
    report_outcome(p->scrub, SCRUB_FRAME, m, s->id, UINT64_MAX, SCRUB_GONE);
    report_outcome(p->scrub, SCRUB_IMAGE_HEADER, m, s->id, UINT64_MAX, SCRUB_GONE);
}

void scrub_fini(struct pool *p)
{
    struct scrub *c = p->scrub;
    p->scrub = NULL;
    if (!c)
        return;
    canary_fini(c);
    readback_fini(c);
    surface_fini(c);
    look_fini(&c->pass_look);
    look_fini(&c->evidence_look);
    super_tour_fini(c);
    look_forget_orphans(c);
    free(c->report);
    free(c->last_report);
    free(c);
}

void scrub_start(struct pool *p)
{
    struct scrub *c = scrub_of(p);
    if (!c)
        return;
    bool was_paused = c->paused;
    c->forced = true;
    c->paused = false;
    c->next_ns = 0;
    look_drop(&c->pass_look);
    look_drop(&c->evidence_look);
    if (c->in_pass) /* what it has seen so far is looked at again: it was asked for now */
        pass_begin(c);
    else if (was_paused)
        scrub_save(c);
}

void scrub_pause(struct pool *p, bool paused)
{
    struct scrub *c = scrub_of(p);
    if (!c || c->paused == paused)
        return;
    c->paused = paused;
    if (c->unsaved && c->in_pass) {
        c->unsaved = false;
        p->table_renew = true;
    }
    scrub_save(c);
}

void scrub_status(struct pool *p, struct upkeep_status *o)
{
    const struct scrub *c = p->scrub;
    o->scrub.state = p->scrub_saved.paused ? UPKEEP_PAUSED : UPKEEP_IDLE; /* until the first step has taken it over */
    o->scrub.last_completed_ms = p->scrub_saved.completed_ms;
    if (!c)
        return;
    o->scrub.state = c->paused ? UPKEEP_PAUSED : c->in_pass ? UPKEEP_RUNNING : UPKEEP_IDLE;
    o->scrub.progress = c->in_pass ? (c->pass_bytes ? (double)c->pass_done / (double)c->pass_bytes : 0) : c->passes ? 1 : 0;
    if (o->scrub.progress > 1)
        o->scrub.progress = 1;
    o->scrub.last_completed_ms = c->last_completed_ms;
    o->scrub.passes = c->passes;
    o->scrub.bytes_verified = c->bytes_verified;
    o->scrub.errors_found = c->errors_found;
    o->scrub.errors_repaired = c->errors_repaired;
    o->scrub.canaries = c->canaries;
    o->scrub.canaries_missed = c->canaries_missed;
    o->scrub.blind = c->blind;
    o->scrub.readback_bytes = c->readback_bytes;
    o->scrub.readback_skipped_bytes = c->readback_skipped;
    o->scrub.surface_bytes = c->surface_bytes;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        o->scrub.slots_retired += p->members[i].retired_count;
    uint64_t pace = pass_pace(c);
    if (c->in_pass && pace && c->pass_bytes > c->pass_done)
        o->scrub.eta_seconds = (c->pass_bytes - c->pass_done) / pace;
}
