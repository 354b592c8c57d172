/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool events: what happened, oldest first; with --follow what happens. */
#include "ask.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_DEFAULT 100u

struct events {
    struct tool *tool;
    bool follow, bad;
    uint64_t count;
};

static void set_follow(void *owner, const char *value)
{
    (void)value;
    ((struct events *)owner)->follow = true;
}

static void set_count(void *owner, const char *value)
{
    struct events *o = owner;
    char *end;
    o->count = strtoull(value, &end, 10);
    o->bad |= *end || end == value;
}

static const struct tool_option events_options[] = {{"follow", false, set_follow}, {"count", true, set_count},
                                                    {NULL, false, NULL}};

static void events_one(void *owner, const struct doc *e, const char *raw)
{
    const struct events *o = owner;
    const char *member = doc_text(e, "member"), *serial = doc_text(e, "serial");
    if (o->tool->json) {
        puts(raw);
    } else {
        printf("%s  %-8s  %s", doc_text(e, "time"), doc_text(e, "severity"), doc_text(e, "event"));
        if (*member)
            printf("  member \"%s\"%s%s", member, *serial ? " serial " : "", serial);
        printf("  %s", *doc_text(e, "evidence") ? doc_text(e, "evidence") : doc_text(e, "text"));
        if (strcmp(doc_text(e, "severity"), "info") != 0)
            printf("  (docs/runbooks/event-%s.md)", doc_text(e, "event"));
        putchar('\n');
    }
    if (o->follow)
        fflush(stdout);
}

int cmd_events(struct tool *t, int argc, char **argv)
{
    struct events o = {.tool = t, .count = EVENTS_DEFAULT};
    struct doc *request = NULL, *end = NULL;
    struct ask *a;
    int words = tool_options(t, argc, argv, events_options, &o);
    if (words < 0)
        return TOOL_USAGE;
    if (words > 0 || o.bad)
        return words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0]) : tool_usage(t, "--count needs a number");
    request = doc_object();
    doc_set_count(request, "count", o.count);
    doc_set_bool(request, "follow", o.follow);
    int code = ask_open(t, "events", request, &a);
    if (code != TOOL_DONE)
        return code;
    if (o.follow)
        ask_wait_forever(a);
    code = ask_lines(a, &o, events_one, &end);
    doc_free(&end);
    ask_close(&a);
    return code;
}
