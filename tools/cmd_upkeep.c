/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool scrub, rebuild, member: the work that keeps the pool whole, and members that leave on purpose. */
#include "ask.h"
#include "out.h"

#include <string.h>

static int words_expected(struct tool *t, int argc, char **argv, int wanted)
{
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words == wanted)
        return TOOL_DONE;
    return words < 0 ? TOOL_USAGE
           : words < wanted ? tool_usage(t, "the name of a member is needed")
                            : tool_usage(t, "\"%s\" is not expected here", argv[wanted]);
}

/* Commands that are answered with "done". */
static int upkeep_do(struct tool *t, int argc, char **argv, const char *command, bool named, const char *said)
{
    struct doc *request = NULL, *answer;
    int code = words_expected(t, argc, argv, named);
    if (code != TOOL_DONE)
        return code;
    if (named) {
        request = doc_object();
        doc_set_text(request, "name", argv[0]);
    }
    code = ask_for(t, command, request, &answer);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(answer, stdout);
    else
        printf("%s%s%s\n", named ? argv[0] : "", named ? ": " : "", said);
    doc_free(&answer);
    return TOOL_DONE;
}

int cmd_scrub_start(struct tool *t, int argc, char **argv)
{
    return upkeep_do(t, argc, argv, "scrub-start", false, "a pass over every image begins; follow it: spooltool scrub status");
}
int cmd_scrub_pause(struct tool *t, int argc, char **argv)
{
    return upkeep_do(t, argc, argv, "scrub-pause", false, "the scrub pauses until: spooltool scrub resume");
}
int cmd_scrub_resume(struct tool *t, int argc, char **argv)
{
    return upkeep_do(t, argc, argv, "scrub-resume", false, "the scrub goes on");
}
int cmd_rebuild_pause(struct tool *t, int argc, char **argv)
{
    return upkeep_do(t, argc, argv, "rebuild-pause", false,
                     "the rebuild pauses; mail with fewer images stays so until: spooltool rebuild resume");
}
int cmd_rebuild_resume(struct tool *t, int argc, char **argv)
{
    return upkeep_do(t, argc, argv, "rebuild-resume", false, "the rebuild goes on");
}
/* --- how far --- */

static void work_tell(const struct doc *s, const char *name)
{
    const struct doc *work = doc_at(s, name);
    char text[OUT_TEXT];
    printf("%s is %s\n", name, doc_text(work, "state"));
    if (doc_at(work, "progress"))
        printf("  progress        %.0f %%\n", doc_number(work, "progress") * 100);
    if (doc_at(work, "last_completed"))
        printf("  last completed  %s\n", doc_text(work, "last_completed"));
    if (doc_at(work, "bytes_verified"))
        printf("  verified        %s\n", out_bytes(doc_count(work, "bytes_verified"), text));
    if (doc_at(work, "errors_found"))
        printf("  errors          %llu found, %llu repaired\n", (unsigned long long)doc_count(work, "errors_found"),
               (unsigned long long)doc_count(work, "errors_repaired"));
    if (doc_at(work, "bytes_remaining"))
        printf("  to go           %s, %llu messages\n", out_bytes(doc_count(work, "bytes_remaining"), text),
               (unsigned long long)doc_count(work, "messages_remaining"));
    if (doc_number(work, "eta_seconds") > 0)
        printf("  done in         %s\n", out_age(doc_number(work, "eta_seconds"), text));
}

static int work_status(struct tool *t, int argc, char **argv, const char *name)
{
    struct doc *s;
    int code = words_expected(t, argc, argv, 0);
    if (code == TOOL_DONE)
        code = ask_for(t, "status", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    if (t->json && doc_at(s, name))
        doc_print(doc_at(s, name), stdout);
    else
        work_tell(s, name);
    doc_free(&s);
    return TOOL_DONE;
}

int cmd_scrub_status(struct tool *t, int argc, char **argv) { return work_status(t, argc, argv, "scrub"); }
int cmd_rebuild_status(struct tool *t, int argc, char **argv) { return work_status(t, argc, argv, "rebuild"); }

/* --- scrub report: the passes, place by place, and the events; docs/SCRUB-REPORT.md --- */

static void report_event(void *owner, const struct doc *e, const char *raw)
{
    static const char *const kinds[] = {"frame_corrupt", "image_repaired", "superblock_repaired", "record_lost", "flush_lied",
                                        "slot_retired", "scrub_blind", "scrub_completed"};
    struct doc *events = owner, *copy;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(doc_text(e, "event"), kinds[i]) == 0 && doc_parse(raw, strlen(raw), &copy) == ERR_OK)
            doc_append(events, copy);
}

struct pass { struct doc *report, *findings; };

static void pass_line(void *owner, const struct doc *line, const char *raw)
{
    struct pass *p = owner;
    struct doc *copy;
    (void)line;
    if (doc_parse(raw, strlen(raw), &copy) != ERR_OK)
        return;
    if (p->report)
        doc_append(p->findings, copy);
    else
        p->report = copy;
}

static void pass_copy(void *owner, const char *key, const struct doc *value)
{
    doc_copy(owner, key, value);
}

/* The report of the last pass, or of the one under way, as one document; "null" when there is none. */
static int pass_ask(struct tool *t, bool current, struct doc **report_out)
{
    struct pass p = {.findings = doc_array()};
    struct doc *request = doc_object(), *end = NULL;
    struct ask *a = NULL;
    doc_set_bool(request, "current", current);
    int code = ask_open(t, "scrub-report", request, &a);
    if (code == TOOL_DONE)
        code = ask_lines(a, &p, pass_line, &end);
    struct doc *d = doc_object();
    if (code == TOOL_DONE && doc_at(p.report, "report")) {
        doc_each(doc_at(p.report, "report"), d, pass_copy);
        doc_set(d, "findings", p.findings);
        p.findings = NULL;
    }
    *report_out = d;
    ask_close(&a);
    doc_free(&end);
    doc_free(&p.report);
    doc_free(&p.findings);
    return code;
}

static void pass_tell_member(const struct doc *m)
{
    static const char *const kinds[] = {"frame", "image-header", "superblock", "table", "free-slot"};
    char size[OUT_TEXT];
    printf("  member %s, serial %s: %llu images, %s verified; %llu missed; %llu places repaired, %llu left;", doc_text(m, "name"),
           *doc_text(m, "serial") ? doc_text(m, "serial") : "not known", (unsigned long long)doc_count(m, "images_verified"),
           out_bytes(doc_count(m, "bytes_verified"), size), (unsigned long long)doc_count(m, "images_missed"),
           (unsigned long long)doc_count(m, "places_repaired"), (unsigned long long)doc_count(m, "places_left"));
    const char *before = " found:";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint64_t n = doc_count(doc_at(m, "places_found"), kinds[i]);
        if (n > 0) {
            printf("%s %llu in %s", before, (unsigned long long)n, kinds[i]);
            before = ",";
        }
    }
    printf("%s\n", before[0] == ',' ? "" : " nothing found");
}

static void pass_tell_finding(const struct doc *f)
{
    char slot[24] = "-";
    if (doc_at(f, "slot"))
        snprintf(slot, sizeof slot, "%llu", (unsigned long long)doc_count(f, "slot"));
    printf("  %s  %s %s  %s: segment %s, slot %s, at %llu, %llu places, %s: %s%s%s\n", doc_text(f, "found"), doc_text(f, "member"),
           doc_text(f, "serial"), doc_text(f, "kind"), doc_at(f, "segment") ? doc_text(f, "segment") : "-", slot,
           (unsigned long long)doc_count(f, "offset"), (unsigned long long)doc_count(f, "places"), doc_text(f, "fault"),
           doc_text(f, "outcome"), doc_at(f, "ended") ? ", " : "", doc_text(f, "ended"));
}

static void pass_tell(const struct doc *r, const char *which)
{
    if (!doc_at(r, "pass"))
        return;
    printf("%s, number %llu: began %s, ended %s, %s\n", which, (unsigned long long)doc_count(r, "pass"),
           doc_at(r, "started") ? doc_text(r, "started") : "-", doc_at(r, "ended") ? doc_text(r, "ended") : "-",
           doc_at(r, "ended") ? doc_true(r, "complete") ? "complete" : "NOT complete" : "under way");
    for (size_t i = 0; i < doc_length(r, "members"); i++)
        pass_tell_member(doc_item(r, "members", i));
    for (size_t i = 0; i < doc_length(r, "missed"); i++) {
        const struct doc *m = doc_item(r, "missed", i);
        printf("  missed: member %s, segment %s: %s\n", doc_text(m, "member"),
               doc_at(m, "segment") ? doc_text(m, "segment") : "-", doc_text(m, "why"));
    }
    for (size_t i = 0; i < doc_length(r, "findings"); i++)
        pass_tell_finding(doc_item(r, "findings", i));
}

static void report_tell(const struct doc *d)
{
    work_tell(d, "scrub");
    pass_tell(doc_at(d, "last"), "last pass");
    pass_tell(doc_at(d, "current"), "this pass");
    for (size_t i = 0; i < doc_length(d, "members"); i++) {
        const struct doc *m = doc_item(d, "members", i);
        printf("member %s: %llu checksum, %llu identity, %llu read errors, %llu blocks repaired\n", doc_text(m, "name"),
               (unsigned long long)doc_count(m, "errors.checksum"), (unsigned long long)doc_count(m, "errors.identity"),
               (unsigned long long)doc_count(m, "errors.read"), (unsigned long long)doc_count(m, "repaired_blocks"));
    }
    for (size_t i = 0; i < doc_length(d, "findings"); i++) {
        const struct doc *e = doc_item(d, "findings", i);
        printf("%s  %s  %s  %s\n", doc_text(e, "time"), doc_text(e, "event"), doc_text(e, "member"), doc_text(e, "evidence"));
    }
}

int cmd_scrub_report(struct tool *t, int argc, char **argv)
{
    struct doc *s = NULL, *end = NULL, *events = doc_array(), *last = NULL, *current = NULL;
    struct ask *a = NULL;
    int code = words_expected(t, argc, argv, 0);
    if (code == TOOL_DONE)
        code = ask_for(t, "status", NULL, &s);
    if (code == TOOL_DONE)
        code = pass_ask(t, false, &last);
    if (code == TOOL_DONE)
        code = pass_ask(t, true, &current);
    if (code == TOOL_DONE)
        code = ask_open(t, "events", NULL, &a);
    if (code == TOOL_DONE)
        code = ask_lines(a, events, report_event, &end);
    if (code == TOOL_DONE) {
        struct doc *d = doc_object();
        doc_set_count(d, "schema", 1);
        doc_copy(d, "scrub", doc_at(s, "scrub"));
        doc_copy(d, "last", doc_at(last, "pass") ? last : NULL);
        doc_copy(d, "current", doc_at(current, "started") || doc_count(current, "findings_total") > 0 ? current : NULL);
        doc_copy(d, "members", doc_at(s, "members"));
        doc_copy(d, "findings", events);
        if (t->json)
            doc_print(d, stdout);
        else
            report_tell(d);
        doc_free(&d);
    }
    ask_close(&a);
    doc_free(&s);
    doc_free(&end);
    doc_free(&events);
    doc_free(&last);
    doc_free(&current);
    return code;
}
