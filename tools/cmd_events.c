/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool events: what happened, oldest first; with --follow what happens. */
#include "ask.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_DEFAULT 100u
#define EVENTS_ALL 1000000u

struct events {
    struct tool *tool;
    bool follow, bad;
    uint64_t count;
    char run[64];     /* whose numbers `last` counts: each spool process begins at 1 */
    uint64_t last;
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
    struct events *o = owner;
    uint64_t number = doc_count(e, "number");
    if (number <= o->last)
        return; /* shown before the connection was lost */
    o->last = number;
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

static int events_ask(struct events *o, uint64_t count)
{
    struct doc *request = doc_object(), *end = NULL;
    struct ask *a;
    doc_set_count(request, "count", count);
    doc_set_bool(request, "follow", o->follow);
    int code = ask_open(o->tool, "events", request, &a);
    if (code != TOOL_DONE)
        return code;
    if (strcmp(o->run, doc_text(ask_header(a), "run")) != 0)
        o->last = 0;
    snprintf(o->run, sizeof o->run, "%s", doc_text(ask_header(a), "run"));
    if (o->follow)
        ask_wait_forever(a);
    code = ask_lines(a, o, events_one, &end);
    doc_free(&end);
    ask_close(&a);
    return code;
}

int cmd_events(struct tool *t, int argc, char **argv)
{
    struct events o = {.tool = t, .count = EVENTS_DEFAULT};
    int words = tool_options(t, argc, argv, events_options, &o);
    if (words < 0)
        return TOOL_USAGE;
    if (words > 0 || o.bad)
        return words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0]) : tool_usage(t, "--count needs a number");
    int code = events_ask(&o, o.count);
    /* what a new process has to say since its start is news, all of it */
    while (o.follow && code == TOOL_UNREACHABLE && o.run[0] && ask_wait_daemon(t))
        code = events_ask(&o, EVENTS_ALL);
    return code;
}
