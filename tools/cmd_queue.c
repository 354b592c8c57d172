/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool queue: look at what waits, and act on it. A list is streamed, never gathered: ten million messages print
 * in the memory of one. */
#include "ask.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

struct queue {
    struct tool *tool;
    struct doc *selector; /* as the control socket takes it */
    bool narrowed, all, bad, dry_run, raw;
    uint64_t shown;
};

static void set_all(void *owner, const char *value)
{
    (void)value;
    ((struct queue *)owner)->all = true;
}

static void set_narrow(struct queue *q, const char *key, const char *value)
{
    doc_set_text(q->selector, key, value);
    q->narrowed = true;
}

static void set_sender(void *owner, const char *value)
{
    set_narrow(owner, "sender", strcmp(value, "<>") == 0 ? "" : value); /* the null sender, as it is shown */
}
static void set_domain(void *owner, const char *value) { set_narrow(owner, "domain", value); }

static void set_queue(void *owner, const char *value)
{
    struct queue *q = owner;
    if (strcmp(value, "active") != 0 && strcmp(value, "deferred") != 0 && strcmp(value, "hold") != 0)
        q->bad = true;
    set_narrow(q, "queue", value);
}

static void set_older_than(void *owner, const char *value)
{
    struct queue *q = owner;
    uint64_t seconds = 0;
    q->bad |= tool_seconds(value, &seconds) != ERR_OK;
    doc_set_count(q->selector, "older_than_seconds", seconds);
    q->narrowed = true;
}

static void set_dry_run(void *owner, const char *value)
{
    (void)value;
    ((struct queue *)owner)->dry_run = true;
}

static void set_raw(void *owner, const char *value)
{
    (void)value;
    ((struct queue *)owner)->raw = true;
}

static const struct tool_option list_options[] = {
    {"all", false, set_all}, {"sender", true, set_sender}, {"domain", true, set_domain}, {"queue", true, set_queue},
    {"older-than", true, set_older_than}, {NULL, false, NULL}};
static const struct tool_option change_options[] = {
    {"all", false, set_all}, {"sender", true, set_sender}, {"domain", true, set_domain}, {"queue", true, set_queue},
    {"older-than", true, set_older_than}, {"dry-run", false, set_dry_run}, {NULL, false, NULL}};
static const struct tool_option show_options[] = {{"raw", false, set_raw}, {NULL, false, NULL}};

/* Turns the words and options into q->selector. TOOL_DONE or the exit code. */
static int queue_select(struct queue *q, int argc, char **argv, const struct tool_option *options, bool must)
{
    q->selector = doc_object();
    int words = tool_options(q->tool, argc, argv, options, q);
    if (words < 0)
        return TOOL_USAGE;
    if (q->bad)
        return tool_usage(q->tool, "--older-than takes a number with s, m, h or d; --queue takes active, deferred or hold");
    if (q->all && words)
        return tool_usage(q->tool, "--all and queue ids at once: which of them?");
    if (must && !words && !q->all && !q->narrowed)
        return tool_usage(q->tool, "which messages? Queue ids, --all, --sender, --domain or --older-than");
    if (words) {
        struct doc *ids = doc_array();
        int code = TOOL_DONE;
        for (int i = 0; i < words && code == TOOL_DONE; i++) {
            code = tool_queue_id(argv[i]);
            doc_append_text(ids, argv[i]);
        }
        doc_set(q->selector, "ids", ids);
        return code;
    }
    doc_set_bool(q->selector, "all", true);
    return TOOL_DONE;
}

/* --- list --- */

static void list_one(void *owner, const struct doc *m, const char *raw)
{
    struct queue *q = owner;
    char size[OUT_TEXT], when[OUT_TEXT];
    (void)raw;
    q->shown++;
    printf("%-21s  %-8s  %8s  %s  %s\n", doc_text(m, "queue_id"), doc_text(m, "queue_name"),
           out_bytes(doc_count(m, "message_size"), size), out_time(doc_count(m, "arrival_time") * 1000, when),
           *doc_text(m, "sender") ? doc_text(m, "sender") : "<>");
    for (size_t i = 0; i < doc_length(m, "recipients"); i++) {
        const struct doc *r = doc_item(m, "recipients", i);
        printf("%25s%s\n", "", doc_text(r, "address"));
        if (*doc_text(r, "delay_reason"))
            printf("%27s(%s)\n", "", doc_text(r, "delay_reason"));
    }
}

int cmd_queue_list(struct tool *t, int argc, char **argv)
{
    struct queue q = {.tool = t};
    struct doc *request = doc_object(), *end = NULL;
    struct ask *a;
    int code = queue_select(&q, argc, argv, list_options, false);
    if (code != TOOL_DONE) {
        doc_free(&q.selector);
        doc_free(&request);
        return code;
    }
    bool narrowed = q.narrowed || doc_length(q.selector, "ids") > 0;
    doc_set(request, "selector", q.selector);
    code = ask_open(t, "queue-list", request, &a);
    if (code != TOOL_DONE)
        return code;
    code = t->json ? ask_copy_lines(a, stdout, &end) : ask_lines(a, &q, list_one, &end);
    char text[OUT_TEXT];
    if (code == TOOL_DONE && !t->json)
        printf(q.shown ? "-- %s messages\n" : narrowed ? "No message matches.\n" : "The queue is empty.\n",
               out_count(q.shown, text));
    doc_free(&end);
    ask_close(&a);
    return code;
}

int cmd_queue_summary(struct tool *t, int argc, char **argv)
{
    static const char *const columns[] = {"DOMAIN", ">MESSAGES", ">RECIPIENTS", ">OLDEST", NULL};
    struct doc *s;
    char a[OUT_TEXT], b[OUT_TEXT], c[OUT_TEXT];
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = ask_for(t, "queue-summary", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    if (t->json) {
        doc_print(s, stdout);
    } else {
        printf("%s messages, %s recipients: %s active", out_count(doc_count(s, "messages"), a),
               out_count(doc_count(s, "recipients"), b), out_count(doc_count(s, "active"), c));
        printf(", %s deferred, %s hold\n", out_count(doc_count(s, "deferred"), a), out_count(doc_count(s, "hold"), b));
        struct out_table *table = out_table(columns);
        for (size_t i = 0; i < doc_length(s, "domains"); i++) {
            const struct doc *d = doc_item(s, "domains", i);
            const char *cells[] = {doc_text(d, "domain"), out_count(doc_count(d, "messages"), a),
                                   out_count(doc_count(d, "recipients"), b), out_age(doc_number(d, "oldest_age_seconds"), c)};
            out_row(table, cells);
        }
        out_table_print(&table);
    }
    doc_free(&s);
    return TOOL_DONE;
}

/* --- show --- */

static int show_raw(struct tool *t, const char *qid)
{
    struct doc *request = doc_object();
    struct ask *a;
    doc_set_text(request, "id", qid);
    int code = ask_open(t, "queue-body", request, &a);
    if (code != TOOL_DONE)
        return code;
    code = ask_bytes(a, stdout);
    ask_close(&a);
    return code;
}

int cmd_queue_show(struct tool *t, int argc, char **argv)
{
    struct queue q = {.tool = t};
    int words = tool_options(t, argc, argv, show_options, &q);
    if (words < 0)
        return TOOL_USAGE;
    if (words != 1)
        return tool_usage(t, "one queue id is needed");
    int code = tool_queue_id(argv[0]);
    if (code != TOOL_DONE || q.raw)
        return code != TOOL_DONE ? code : show_raw(t, argv[0]);
    struct doc *request = doc_object(), *m;
    doc_set_text(request, "id", argv[0]);
    code = ask_for(t, "queue-show", request, &m);
    if (code != TOOL_DONE)
        return code;
    doc_print(m, stdout); /* for people too: indented, every key named */
    doc_free(&m);
    return TOOL_DONE;
}

/* --- change --- */

static void change_one(void *owner, const struct doc *line, const char *raw)
{
    struct queue *q = owner;
    if (q->tool->json)
        puts(raw);
    else
        printf("%s  %s\n", doc_text(line, "queue_id"), doc_text(line, "result"));
}

static void print_line(const struct doc *d)
{
    char *line = doc_line(d);
    puts(line);
    free(line);
}

static int queue_change(struct tool *t, int argc, char **argv, const char *command, const char *done)
{
    struct queue q = {.tool = t};
    struct doc *request = doc_object(), *end = NULL;
    struct ask *a;
    char count[OUT_TEXT], failed[OUT_TEXT];
    int code = queue_select(&q, argc, argv, change_options, true);
    if (code != TOOL_DONE) {
        doc_free(&q.selector);
        doc_free(&request);
        return code;
    }
    bool by_id = doc_length(q.selector, "ids") > 0;
    doc_set(request, "selector", q.selector);
    doc_set_bool(request, "dry_run", q.dry_run);
    code = ask_open(t, command, request, &a);
    if (code != TOOL_DONE)
        return code;
    ask_wait_forever(a); /* a change waits for its commit; millions take their time */
    code = ask_lines(a, &q, change_one, &end);
    if (code == TOOL_DONE) {
        if (t->json)
            print_line(end);
        else if (q.dry_run)
            printf("-- %s messages match; nothing was changed\n", out_count(doc_count(end, "matched"), count));
        else
            printf("-- %s messages %s%s%s%s\n", out_count(doc_count(end, "count"), count), done,
                   doc_count(end, "failed") ? ", " : "", doc_count(end, "failed") ? out_count(doc_count(end, "failed"), failed) : "",
                   doc_count(end, "failed") ? " failed" : "");
        code = by_id && doc_count(end, "matched") == 0 ? TOOL_NOT_FOUND : doc_count(end, "failed") ? TOOL_FAILED : TOOL_DONE;
        if (code == TOOL_NOT_FOUND)
            tool_say(0, "no such message; it may have been delivered: spooltool queue list, or the mail log");
    }
    doc_free(&end);
    ask_close(&a);
    return code;
}

int cmd_queue_hold(struct tool *t, int argc, char **argv) { return queue_change(t, argc, argv, "queue-hold", "held"); }
int cmd_queue_release(struct tool *t, int argc, char **argv)
{
    return queue_change(t, argc, argv, "queue-release", "released");
}
int cmd_queue_retry(struct tool *t, int argc, char **argv) { return queue_change(t, argc, argv, "queue-retry", "due now"); }
int cmd_queue_requeue(struct tool *t, int argc, char **argv)
{
    return queue_change(t, argc, argv, "queue-requeue", "requeued");
}
int cmd_queue_delete(struct tool *t, int argc, char **argv)
{
    return queue_change(t, argc, argv, "queue-delete", "deleted");
}
int cmd_queue_expire(struct tool *t, int argc, char **argv)
{
    return queue_change(t, argc, argv, "queue-expire", "expired");
}
