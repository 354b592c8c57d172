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

/* --- scrub report: the pass, what each member had, and the events that say where --- */

static void report_event(void *owner, const struct doc *e, const char *raw)
{
    static const char *const kinds[] = {"frame_corrupt", "image_repaired", "superblock_repaired", "record_lost", "flush_lied"};
    struct doc *findings = owner, *copy;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(doc_text(e, "event"), kinds[i]) == 0 && doc_parse(raw, strlen(raw), &copy) == ERR_OK)
            doc_append(findings, copy);
}

static void report_tell(const struct doc *s, const struct doc *findings)
{
    work_tell(s, "scrub");
    for (size_t i = 0; i < doc_length(s, "members"); i++) {
        const struct doc *m = doc_item(s, "members", i);
        printf("member %s: %llu checksum, %llu identity, %llu read errors, %llu blocks repaired\n", doc_text(m, "name"),
               (unsigned long long)doc_count(m, "errors.checksum"), (unsigned long long)doc_count(m, "errors.identity"),
               (unsigned long long)doc_count(m, "errors.read"), (unsigned long long)doc_count(m, "repaired_blocks"));
    }
    for (size_t i = 0; i < doc_length(findings, ""); i++) {
        const struct doc *e = doc_item(findings, "", i);
        printf("%s  %s  %s  %s\n", doc_text(e, "time"), doc_text(e, "event"), doc_text(e, "member"), doc_text(e, "evidence"));
    }
}

int cmd_scrub_report(struct tool *t, int argc, char **argv)
{
    struct doc *s = NULL, *end = NULL, *findings = doc_array();
    struct ask *a = NULL;
    int code = words_expected(t, argc, argv, 0);
    if (code == TOOL_DONE)
        code = ask_for(t, "status", NULL, &s);
    if (code == TOOL_DONE)
        code = ask_open(t, "events", NULL, &a);
    if (code == TOOL_DONE)
        code = ask_lines(a, findings, report_event, &end);
    if (code == TOOL_DONE && t->json) {
        struct doc *d = doc_object();
        doc_set_count(d, "schema", 1);
        doc_copy(d, "scrub", doc_at(s, "scrub"));
        doc_copy(d, "members", doc_at(s, "members"));
        doc_set(d, "findings", findings);
        findings = NULL;
        doc_print(d, stdout);
        doc_free(&d);
    } else if (code == TOOL_DONE) {
        report_tell(s, findings);
    }
    ask_close(&a);
    doc_free(&s);
    doc_free(&end);
    doc_free(&findings);
    return code;
}
