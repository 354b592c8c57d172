/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the report of a scrub pass over the control socket: first what it is about, then a line for each finding. The
 * schema is docs/SCRUB-REPORT.md. The report is copied when it is asked for: a pass that ends meanwhile changes nothing. */
#include "admin_client.h"

#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scrub_job {
    struct scrub_report report;
    uint32_t at;
};

static void segment_json(struct json_out *j, struct segment_id id)
{
    char text[48];
    snprintf(text, sizeof text, "%016llx-%llu", (unsigned long long)id.incarnation, (unsigned long long)id.counter);
    if (id.incarnation == 0 && id.counter == 0)
        json_none(j, "segment");
    else
        json_text(j, "segment", text);
}

static void member_json(const struct scrub_member_report *m, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_text(j, "name", m->name);
    json_text(j, "serial", m->serial);
    json_count(j, "images_verified", m->images);
    json_count(j, "bytes_verified", m->bytes);
    json_count(j, "images_missed", m->missed);
    json_object_begin(j, "places_found");
    for (int k = 0; k < SCRUB_KIND_COUNT; k++)
        json_count(j, scrub_kind_word((enum scrub_kind)k), m->found[k]);
    json_object_end(j);
    json_count(j, "places_repaired", m->repaired);
    json_count(j, "places_left", m->left);
    json_object_end(j);
}

static void missed_json(const struct scrub_report *r, struct json_out *j)
{
    json_array_begin(j, "missed");
    for (uint32_t i = 0; i < r->missed_count; i++) {
        const struct scrub_missed *m = &r->missed[i];
        json_object_begin(j, NULL);
        json_text(j, "member", r->members[m->member].name);
        json_text(j, "serial", r->members[m->member].serial);
        segment_json(j, m->segment);
        json_text(j, "why", m->why);
        json_object_end(j);
    }
    json_array_end(j);
}

static void summary_json(const struct scrub_report *r, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_object_begin(j, "report");
    json_count(j, "pass", r->pass);
    json_time(j, "started", r->started_ms);
    json_time(j, "ended", r->ended_ms);
    json_bool(j, "complete", r->ended_ms != 0 && r->complete);
    json_count(j, "places_found", r->places_found);
    json_count(j, "places_repaired", r->places_repaired);
    json_count(j, "places_left", r->places_left);
    json_count(j, "findings_total", r->finding_total);
    json_count(j, "missed_total", r->missed_total);
    json_array_begin(j, "members");
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (r->members[i].name[0])
            member_json(&r->members[i], j);
    json_array_end(j);
    missed_json(r, j);
    json_object_end(j);
    json_object_end(j);
    json_line_end(j);
}

static void finding_json(const struct scrub_report *r, const struct scrub_finding *f, struct json_out *j)
{
    json_object_begin(j, NULL);
    json_time(j, "found", f->found_ms);
    json_time(j, "ended", f->ended_ms);
    json_text(j, "member", r->members[f->member].name);
    json_text(j, "serial", r->members[f->member].serial);
    json_text(j, "kind", scrub_kind_word(f->kind));
    json_text(j, "fault", err_name(f->fault));
    json_text(j, "outcome", scrub_outcome_word(f->outcome));
    segment_json(j, f->segment);
    if (f->slot == UINT32_MAX)
        json_none(j, "slot");
    else
        json_count(j, "slot", f->slot);
    json_count(j, "offset", f->offset);
    json_count(j, "places", f->blocks);
    json_object_end(j);
    json_line_end(j);
}

static void scrub_pump(struct admin_client *c)
{
    struct scrub_job *job = c->job;
    while (job->at < job->report.finding_count && admin_has_room(c)) {
        finding_json(&job->report, &job->report.findings[job->at], &c->out);
        job->at++;
    }
    if (job->at < job->report.finding_count)
        return;
    text_add(&c->out, "{\"end\":true,\"count\":%u}\n", job->at);
    admin_finish(c);
}

static void scrub_drop(struct admin_client *c)
{
    free(c->job);
}

bool admin_scrub_report(struct admin_client *c, const char *command, const struct json_in *request)
{
    if (strcmp(command, "scrub-report") != 0)
        return false;
    const struct scrub_report *r = scrub_report(c->spool->pool, !json_in_true(request, "current"));
    if (!r) {
        admin_ok(c, "lines");
        text_add(&c->out, "{\"report\":null}\n{\"end\":true,\"count\":0}\n");
        admin_finish(c);
        return true;
    }
    struct scrub_job *job = malloc(sizeof *job);
    if (!job) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return true;
    }
    job->report = *r;
    job->at = 0;
    c->job = job;
    c->pump = scrub_pump;
    c->drop = scrub_drop;
    admin_ok(c, "lines");
    summary_json(&job->report, &c->out);
    return true;
}
