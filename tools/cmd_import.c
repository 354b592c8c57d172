/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool import: the mail of an export, handed to the running relay by SMTP while it serves: each message gets its own 250 and a
 * new queue id, and with --hold what was on hold arrives on hold. What was imported before a failure stays; the line that failed says
 * where to go on. */
#include "archive.h"
#include "out.h"
#include "smtp_send.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

#define ENVELOPE_TEXT_MAX (1024u * 1024u) /* 1,000 recipients with reasons */

struct import {
    struct tool *tool;
    const char *from;
    struct archive archive;
    struct smtp_send *smtp;
    struct doc *envelope;      /* of the .eml that comes next */
    bool hold;                 /* what was on hold stays on hold */
    uint64_t done, held;
    bool whole;                /* export.json was there */
};

static void set_from(void *owner, const char *value) { ((struct import *)owner)->from = value; }
static void set_hold(void *owner, const char *value)
{
    (void)value;
    ((struct import *)owner)->hold = true;
}
static const struct tool_option import_options[] = {{"from", true, set_from}, {"hold", false, set_hold}, {NULL, false, NULL}};

static int import_text(struct import *m, uint64_t length, struct doc **doc_out)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = length <= ENVELOPE_TEXT_MAX ? open_memstream(&text, &size) : NULL;
    bool ok = to && archive_read(&m->archive, to, length);
    if (to)
        fclose(to);
    ok = ok && doc_parse(text, size, doc_out) == ERR_OK;
    free(text);
    return ok ? TOOL_DONE : tool_say(TOOL_FAILED, "the archive is damaged");
}

static int import_body(struct import *m, const char *name, uint64_t length)
{
    FILE *body = tmpfile();
    int code = TOOL_DONE;
    bool hold = m->hold && strcmp(doc_text(m->envelope, "queue_name"), "hold") == 0;
    if (!body || !m->envelope || !archive_read(&m->archive, body, length))
        code = tool_say(TOOL_FAILED, "the archive is damaged at %s", name);
    if (code == TOOL_DONE) {
        rewind(body);
        code = smtp_send_message(m->smtp, m->envelope, hold, body, length);
    }
    if (code != TOOL_DONE)
        tool_say(0, "%s was not imported, nor what follows it; %llu messages were", name, (unsigned long long)m->done);
    else {
        m->done++;
        m->held += hold;
    }
    if (body)
        fclose(body);
    doc_free(&m->envelope);
    return code;
}

static int import_all(struct import *m)
{
    char name[ARCHIVE_NAME_BYTES];
    uint64_t length;
    for (;;) {
        enum err e = archive_next(&m->archive, name, &length);
        if (e == ERR_NOT_FOUND)
            return m->whole ? TOOL_DONE : tool_say(TOOL_FAILED, "the archive was cut short; %llu messages were imported",
                                                   (unsigned long long)m->done);
        size_t n = strlen(name);
        int code = TOOL_FAILED;
        if (e != ERR_OK)
            tool_say(0, "this is no archive of spooltool export");
        else if (n > 4 && strcmp(name + n - 4, ".eml") == 0)
            code = import_body(m, name, length);
        else if (n > 5 && strcmp(name + n - 5, ".json") == 0) {
            doc_free(&m->envelope);
            code = import_text(m, length, &m->envelope);
            m->whole = strcmp(name, "export.json") == 0;
        } else
            tool_say(0, "the archive has a file that no export writes: %s", name);
        if (code != TOOL_DONE)
            return code;
    }
}

int cmd_import(struct tool *t, int argc, char **argv)
{
    struct import m = {.tool = t};
    int words = tool_options(t, argc, argv, import_options, &m);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = smtp_send_open(t, &m.smtp);
    if (code == TOOL_DONE)
        code = archive_open(m.from, &m.archive);
    if (code == TOOL_DONE) {
        code = import_all(&m);
        if (!archive_close(&m.archive) && code == TOOL_DONE)
            code = tool_say(TOOL_FAILED, "zstd found the archive damaged; %llu messages were imported", (unsigned long long)m.done);
    }
    if (code == TOOL_DONE && t->json)
        printf("{\"messages\": %llu, \"hold\": %llu}\n", (unsigned long long)m.done, (unsigned long long)m.held);
    else if (code == TOOL_DONE)
        printf(m.held ? "%llu messages imported, %llu of them on hold, as they were: spooltool queue list --queue hold\n"
                      : "%llu messages imported\n", (unsigned long long)m.done, (unsigned long long)m.held);
    doc_free(&m.envelope);
    smtp_send_close(&m.smtp);
    return code;
}
