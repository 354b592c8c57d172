/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool export: undelivered mail of the running daemon as QUEUE_ID.json (envelope) and QUEUE_ID.eml (verified bytes)
 * for each message, in order of queue id, and export.json at the end: without it the archive was cut short. */
#include "archive.h"
#include "ask.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct export {
    struct tool *tool;
    const char *since, *out;    /* out: NULL for standard output */
    FILE *list;                 /* lines of queue-list; a file, because ten million do not fit memory */
    struct archive archive;
    uint64_t listed, done;
    uint64_t since_s, newest_s; /* arrival, seconds since 1970 of the pool's clock */
    struct doc *missing;        /* ids whose bytes did not verify */
    char cursor[64];
};

static void set_since(void *owner, const char *value) { ((struct export *)owner)->since = value; }
static void set_out(void *owner, const char *value) { ((struct export *)owner)->out = value; }
static const struct tool_option export_options[] = {{"since", true, set_since}, {"out", true, set_out}, {NULL, false, NULL}};

/* Arrival is when a transaction begins, and queue ids say nothing of time: a message that was being received while an
 * earlier export was made is in the next one, and what lies in the overlap is in both. */
#define OVERLAP_S 7200u /* longer than any transaction with smtpd_min_data_rate at its default */

static void keep_line(void *owner, const struct doc *line, const char *raw)
{
    struct export *x = owner;
    uint64_t arrival_s = doc_count(line, "arrival_time");
    if (x->since_s ? arrival_s < x->since_s : x->since && strcmp(doc_text(line, "queue_id"), x->since) <= 0)
        return;
    x->newest_s = arrival_s > x->newest_s ? arrival_s : x->newest_s;
    fprintf(x->list, "%s\n", raw);
    x->listed++;
}

static int export_list(struct export *x)
{
    struct ask *a;
    struct doc *end = NULL;
    x->list = tmpfile();
    if (!x->list)
        return tool_say(TOOL_FAILED, "no temporary file can be made; is TMPDIR writable?");
    int code = ask_open(x->tool, "queue-list", NULL, &a);
    if (code != TOOL_DONE)
        return code;
    code = ask_lines(a, x, keep_line, &end);
    doc_free(&end);
    ask_close(&a);
    rewind(x->list);
    return code;
}

static bool add_text(struct export *x, const char *name, const char *text, uint64_t mtime_s)
{
    FILE *bytes = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    bool ok = bytes && archive_add(&x->archive, name, bytes, strlen(text), mtime_s);
    if (bytes)
        fclose(bytes);
    return ok;
}

/* TOOL_DONE, TOOL_NOT_FOUND when it was delivered meanwhile, TOOL_LOSS when no good copy of its bytes is left. */
static int fetch_body(struct export *x, const char *qid, FILE *to, uint64_t *length_out)
{
    struct doc *request = doc_object();
    struct ask *a;
    doc_set_text(request, "id", qid);
    int code = ask_open(x->tool, "queue-body", request, &a);
    if (code != TOOL_DONE)
        return code;
    *length_out = doc_count(ask_header(a), "bytes");
    code = ask_bytes(a, to) == TOOL_DONE ? TOOL_DONE : TOOL_LOSS;
    ask_close(&a);
    rewind(to);
    return code;
}

static int export_one(struct export *x, const char *line)
{
    struct doc *d;
    char qid[64], name[ARCHIVE_NAME_BYTES];
    uint64_t length = 0, arrival_s;
    if (doc_parse(line, strlen(line), &d) != ERR_OK)
        return TOOL_FAILED;
    snprintf(qid, sizeof qid, "%s", doc_text(d, "queue_id"));
    arrival_s = doc_count(d, "arrival_time");
    doc_free(&d);
    FILE *body = tmpfile();
    int code = body ? fetch_body(x, qid, body, &length) : tool_say(TOOL_FAILED, "no temporary file can be made");
    if (code == TOOL_DONE) {
        bool ok = snprintf(name, sizeof name, "%s.json", qid) > 0 && add_text(x, name, line, arrival_s) &&
                  snprintf(name, sizeof name, "%s.eml", qid) > 0 && archive_add(&x->archive, name, body, length, arrival_s);
        if (!ok)
            code = tool_say(TOOL_FAILED, "the archive could not be written; is there room?");
        x->done++;
    } else if (code == TOOL_LOSS) {
        doc_append_text(x->missing, qid);
        code = TOOL_DONE;
    } else if (code == TOOL_NOT_FOUND) {
        code = TOOL_DONE; /* delivered since the list was made */
    }
    if (body)
        fclose(body);
    return code;
}

static int export_all(struct export *x)
{
    char *line = NULL;
    size_t room = 0;
    uint64_t seen = 0;
    int code = TOOL_DONE;
    while (code == TOOL_DONE && getline(&line, &room, x->list) > 0) {
        line[strcspn(line, "\n")] = 0;
        code = export_one(x, line);
        out_progress("export", ++seen, x->listed);
    }
    free(line);
    return code;
}

static int export_end(struct export *x)
{
    struct doc *d = doc_object();
    size_t lost = doc_length(x->missing, "");
    doc_set_count(d, "schema", 1);
    doc_set_count(d, "messages", x->done);
    doc_set_text(d, "cursor", x->cursor);
    doc_set(d, "lost", x->missing);
    x->missing = NULL;
    char *text = doc_line(d);
    FILE *to = x->out ? stdout : stderr; /* stdout is the archive */
    bool ok = add_text(x, "export.json", text, (uint64_t)time(NULL));
    free(text);
    if (ok)
        ok = archive_finish(&x->archive);
    else
        archive_abandon(&x->archive);
    if (ok && x->tool->json)
        doc_print(d, to);
    else if (ok)
        fprintf(to, "%llu messages exported, %zu without a good copy; next time: --since %s\n",
                (unsigned long long)x->done, lost, *x->cursor ? x->cursor : "(nothing was there)");
    doc_free(&d);
    if (!ok)
        return tool_say(TOOL_FAILED, "the archive could not be written to its end%s%s", x->out ? ", and was not kept: " : "",
                        x->out ? x->out : "");
    return lost ? TOOL_LOSS : TOOL_DONE;
}

/* What an export printed; queue ids, which earlier ones printed, are still understood. */
static int read_cursor(struct tool *t, struct export *x)
{
    size_t len = x->since ? strlen(x->since) : 0;
    if (len == 0)
        return TOOL_DONE;
    if (len <= 11 && strspn(x->since, "0123456789") == len)
        x->since_s = strtoull(x->since, NULL, 10);
    else if (len < 12 || strspn(x->since, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != len)
        return tool_usage(t, "--since takes the cursor that an export printed, not \"%s\"", x->since);
    snprintf(x->cursor, sizeof x->cursor, "%s", x->since);
    return TOOL_DONE;
}

int cmd_export(struct tool *t, int argc, char **argv)
{
    struct export x = {.tool = t, .missing = NULL};
    int words = tool_options(t, argc, argv, export_options, &x);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    if (archive_is_standard(x.out))
        x.out = NULL;
    if (!x.out && isatty(STDOUT_FILENO))
        return tool_usage(t, "an archive is not for a terminal: --out FILE");
    x.missing = doc_array();
    int code = read_cursor(t, &x);
    if (code == TOOL_DONE)
        code = export_list(&x);
    if (x.newest_s > x.since_s + OVERLAP_S)
        snprintf(x.cursor, sizeof x.cursor, "%llu", (unsigned long long)(x.newest_s - OVERLAP_S));
    if (code == TOOL_DONE)
        code = archive_create(x.out, &x.archive);
    if (code == TOOL_DONE) {
        code = export_all(&x);
        if (code == TOOL_DONE)
            code = export_end(&x);
        else {
            archive_abandon(&x.archive);
            tool_say(0, "the archive is not whole%s%s", x.out ? ", and was not kept: " : "", x.out ? x.out : "");
        }
    }
    if (x.list)
        fclose(x.list);
    doc_free(&x.missing);
    return code;
}
