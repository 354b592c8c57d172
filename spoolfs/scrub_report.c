/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what a pass found, where, and what came of it. Bounded: beyond SCRUB_FINDINGS_MAX only counted.
 * Invariants: SRP-1: a place that is found again while it is still open is one finding. SRP-2: `repaired` counts what was
 * read back, never what was only tried. SRP-3: a pass does not end, within its patience, while something it found may still
 * be repaired, or go with its segment: one found open is sealed first, and an empty one is freed at once. */
#include "images.h"
#include "scrub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *scrub_kind_word(enum scrub_kind k)
{
    static const char *const words[] = {"frame", "image-header", "superblock", "table", "free-slot"};
    return k < SCRUB_KIND_COUNT ? words[k] : "unknown";
}

const char *scrub_outcome_word(enum scrub_outcome o)
{
    static const char *const words[] = {"under-repair", "repaired", "stays-bad", "no-source", "gone", "deferred"};
    return o < SCRUB_OUTCOME_COUNT ? words[o] : "unknown";
}

static struct scrub_member_report *report_member(struct scrub *c, const struct member *m)
{
    struct scrub_member_report *r = &c->report->members[m->number];
    if (!r->name[0]) {
        snprintf(r->name, sizeof r->name, "%s", m->name);
        snprintf(r->serial, sizeof r->serial, "%s", m->serial);
    }
    return r;
}

void report_begin(struct scrub *c)
{
    struct scrub_report *r = c->report;
    r->pass = c->pass;
    r->started_ms = c->pass_started_ms;
    r->ended_ms = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &c->pool->members[i];
        if (m->used && !m->removed)
            (void)report_member(c, m);
        r->members[i].images = r->members[i].bytes = r->members[i].missed = 0;
    }
    r->missed_count = 0;
    r->missed_total = 0;
}

/* The two change places: what is found from now on belongs to the next pass. */
void report_end(struct scrub *c, bool complete)
{
    c->report->complete = complete;
    c->report->ended_ms = io_wall_ms(c->pool->io);
    struct scrub_report *ended = c->report;
    c->report = c->last_report;
    c->last_report = ended;
    memset(c->report, 0, sizeof *c->report);
}

static bool finding_is(const struct scrub_finding *f, enum scrub_kind kind, const struct member *m, struct segment_id id,
                       uint64_t offset)
{
    return f->outcome == SCRUB_OPEN && f->kind == kind && (!m || f->member == m->number) &&
           segment_id_equal(f->segment, id) && (offset == UINT64_MAX || f->offset == offset);
}

static void report_count(struct scrub *c, struct scrub_member_report *m, enum scrub_outcome o, uint32_t blocks)
{
    struct scrub_report *r = c->report;
    bool repaired = o == SCRUB_REPAIRED, left = o == SCRUB_STAYS_BAD || o == SCRUB_NO_SOURCE || o == SCRUB_DEFERRED;
    m->repaired += repaired ? blocks : 0;
    r->places_repaired += repaired ? blocks : 0;
    m->left += left ? blocks : 0;
    r->places_left += left ? blocks : 0;
    c->errors_repaired += repaired;
}

static void report_tell(struct scrub *c, struct member *m, const struct scrub_found *f)
{
    if (f->fault == ERR_IDENTITY)
        m->errors_identity++;
    else if (f->fault != ERR_MEDIA) /* counted as a read error when it was read */
        m->errors_checksum++;
    enum event_kind kind = f->kind == SCRUB_SUPERBLOCK ? EVENT_superblock_repaired : EVENT_frame_corrupt;
    pool_event(c->pool, kind, m, "scrub: %s, segment %llu at %llu: %s, %u blocks%s", scrub_kind_word(f->kind),
               (unsigned long long)f->segment.counter, (unsigned long long)f->offset, err_text(f->fault), f->blocks,
               f->outcome == SCRUB_NO_SOURCE ? "; no verified bytes to repair it from" : "");
}

void report_found(struct scrub *c, struct member *m, const struct scrub_found *f)
{
    struct scrub_report *r = c->report;
    for (uint32_t i = 0; i < r->finding_count; i++) /* SRP-1 */
        if (finding_is(&r->findings[i], f->kind, m, f->segment, f->offset))
            return;
    struct scrub_member_report *by = report_member(c, m);
    c->errors_found++;
    r->finding_total++;
    by->found[f->kind] += f->blocks;
    r->places_found += f->blocks;
    report_count(c, by, f->outcome, f->blocks);
    report_tell(c, m, f);
    c->table_open = c->table_open || f->kind == SCRUB_TABLE;
    if (r->finding_count == SCRUB_FINDINGS_MAX)
        return;
    r->findings[r->finding_count++] = (struct scrub_finding){
        .found_ms = io_wall_ms(c->pool->io), .kind = f->kind, .outcome = f->outcome, .fault = f->fault,
        .ended_ms = f->outcome == SCRUB_OPEN ? 0 : io_wall_ms(c->pool->io), .member = m->number, .segment = f->segment,
        .slot = f->slot, .offset = f->offset, .blocks = f->blocks};
}

void report_outcome(struct scrub *c, enum scrub_kind kind, const struct member *m, struct segment_id segment,
                    uint64_t offset, enum scrub_outcome outcome)
{
    for (uint32_t i = 0; i < c->report->finding_count; i++) {
        struct scrub_finding *f = &c->report->findings[i];
        if (!finding_is(f, kind, m, segment, offset))
            continue;
        f->outcome = outcome;
        f->ended_ms = io_wall_ms(c->pool->io);
        report_count(c, &c->report->members[f->member], outcome, f->blocks);
    }
}

bool report_open(const struct scrub *c, enum scrub_kind kind)
{
    for (uint32_t i = 0; i < c->report->finding_count; i++)
        if (c->report->findings[i].outcome == SCRUB_OPEN && c->report->findings[i].kind == kind)
            return true;
    return false;
}

/* SRP-3 */
bool report_pending(const struct scrub *c)
{
    for (uint32_t i = 0; i < c->report->finding_count; i++) {
        const struct scrub_finding *f = &c->report->findings[i];
        bool image = f->kind == SCRUB_FRAME || f->kind == SCRUB_IMAGE_HEADER;
        if (f->outcome == SCRUB_OPEN && image && member_takes_repairs(&c->pool->members[f->member]) && segment_find(c->pool, f->segment))
            return true;
    }
    return report_open(c, SCRUB_TABLE);
}

void report_settle(struct scrub *c)
{
    for (uint32_t i = 0; i < c->report->finding_count; i++) {
        struct scrub_finding *f = &c->report->findings[i];
        if (f->outcome != SCRUB_OPEN || f->kind == SCRUB_FREE_SLOT)
            continue;
        bool gone = f->kind <= SCRUB_IMAGE_HEADER && !segment_find(c->pool, f->segment);
        report_outcome(c, f->kind, &c->pool->members[f->member], f->segment, f->offset, gone ? SCRUB_GONE : SCRUB_DEFERRED);
    }
}

void report_image(struct scrub *c, const struct member *m, uint64_t bytes)
{
    struct scrub_member_report *by = report_member(c, m);
    by->images++;
    by->bytes += bytes;
}

void report_missed(struct scrub *c, struct segment_id segment, const struct member *m, const char *why)
{
    struct scrub_report *r = c->report;
    report_member(c, m)->missed++;
    r->missed_total++;
    if (r->missed_count == SCRUB_MISSED_MAX)
        return;
    struct scrub_missed *x = &r->missed[r->missed_count++];
    *x = (struct scrub_missed){.segment = segment, .member = m->number};
    snprintf(x->why, sizeof x->why, "%s", why);
}

const struct scrub_report *scrub_report(const struct pool *p, bool last)
{
    const struct scrub *c = p->scrub;
    if (!c)
        return NULL;
    const struct scrub_report *r = last ? c->last_report : c->report;
    return last && r->ended_ms == 0 ? NULL : r;
}
