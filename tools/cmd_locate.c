/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool member locate: which disk to look for, by everything that could be printed on it, and what to type so that it
 * shows itself. For a disk that is not here: which ones it is not. */
#include "ask.h"
#include "disk_find.h"

#include <spoolfs/probe.h>
#include <stdio.h>
#include <string.h>

static const struct doc *member_of(const struct doc *s, const char *name)
{
    for (size_t i = 0; i < doc_length(s, "members"); i++)
        if (strcmp(doc_text(doc_item(s, "members", i), "name"), name) == 0)
            return doc_item(s, "members", i);
    return NULL;
}

static void tell_others(const struct doc *s, const char *name)
{
    printf("its disk is not here; it is none of these:\n");
    for (size_t i = 0; i < doc_length(s, "members"); i++) {
        const struct doc *m = doc_item(s, "members", i);
        const char *state = doc_text(m, "state");
        if (strcmp(doc_text(m, "name"), name) != 0 && strcmp(state, "absent") != 0 && strcmp(state, "removed") != 0)
            printf("  %s: %s, serial %s\n", doc_text(m, "name"), doc_text(m, "path"),
                   *doc_text(m, "serial") ? doc_text(m, "serial") : "not known");
    }
}

static void tell_text(const struct doc *s, const struct doc *m, const struct probe *p, const struct disk_place *place)
{
    const char *serial = p->serial[0] ? p->serial : doc_text(m, "serial");
    printf("member %s\n  path            %s\n  whole disk      %s%s\n  serial          %s\n  failure domain  %s\n"
           "  state           %s\n", doc_text(m, "name"), doc_text(m, "path"), p->whole_disk[0] ? "/dev/" : "not known",
           p->whole_disk, *serial ? serial : "not known", doc_text(m, "failure_domain"), doc_text(m, "state"));
    for (unsigned i = 0; i < place->link_count; i++)
        printf("  by id           %s\n", place->links[i]);
    if (!p->exists)
        tell_others(s, doc_text(m, "name"));
    else if (place->led[0])
        printf("to make its light blink:  echo 1 > %s\nand to end that:          echo 0 > %s\n", place->led, place->led);
    else if (p->whole_disk[0])
        printf("no enclosure shows a light for it; where the controller can:  ledctl locate=/dev/%s\n"
               "else its activity light burns while this runs:               dd if=/dev/%s of=/dev/null bs=1M\n",
               p->whole_disk, p->whole_disk);
}

static void tell_json(const struct doc *m, const struct probe *p, const struct disk_place *place)
{
    static const char *const kept[] = {"name", "uuid", "path", "failure_domain", "state"};
    struct doc *d = doc_object(), *links = doc_array();
    for (unsigned i = 0; i < sizeof kept / sizeof kept[0]; i++)
        doc_set_text(d, kept[i], doc_text(m, kept[i]));
    doc_set_text(d, "serial", p->serial[0] ? p->serial : doc_text(m, "serial"));
    doc_set_bool(d, "here", p->exists);
    doc_set_text(d, "whole_disk", p->whole_disk);
    for (unsigned i = 0; i < place->link_count; i++)
        doc_append_text(links, place->links[i]);
    doc_set(d, "by_id", links);
    doc_set_text(d, "led", place->led);
    doc_print(d, stdout);
    doc_free(&d);
}

int cmd_member_locate(struct tool *t, int argc, char **argv)
{
    struct doc *s;
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 1)
        return words < 0 ? TOOL_USAGE
               : words < 1 ? tool_usage(t, "the name of a member is needed") : tool_usage(t, "\"%s\" is not expected here", argv[1]);
    int code = ask_for(t, "members", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    const struct doc *m = member_of(s, argv[0]);
    struct probe probe = {0};
    struct disk_place place;
    if (!m) {
        code = tool_say(TOOL_NOT_FOUND, "there is no member \"%s\"; spooltool members lists all", argv[0]);
    } else {
        if (probe_path(doc_text(m, "path"), &probe) != ERR_OK)
            probe = (struct probe){0};
        disk_find("/dev/disk/by-id", "/sys", probe.whole_disk, &place);
        if (t->json)
            tell_json(m, &probe, &place);
        else
            tell_text(s, m, &probe, &place);
    }
    doc_free(&s);
    return code;
}
