/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool status, members: how things stand. The exit code says the same in a number. */
#include "ask.h"
#include "out.h"

#include <string.h>

int status_exit(const struct doc *status)
{
    const char *state = doc_text(status, "pool.state");
    if (doc_count(status, "pool.messages_lost") > 0)
        return TOOL_LOSS;
    if (strcmp(state, "healthy") != 0)
        return TOOL_DEGRADED;
    for (size_t i = 0; i < doc_length(status, "members"); i++) {
        const char *member = doc_text(doc_item(status, "members", i), "state");
        if (strcmp(member, "healthy") != 0 && strcmp(member, "spare") != 0 && strcmp(member, "removed") != 0)
            return TOOL_ATTENTION;
    }
    bool attention = doc_length(status, "alarm.raised") > 0 || *doc_text(status, "pool.action") ||
                     doc_length(status, "faults_injected") > 0;
    return attention ? TOOL_ATTENTION : TOOL_DONE;
}

static uint64_t member_errors(const struct doc *m)
{
    return doc_count(m, "errors.read") + doc_count(m, "errors.write") + doc_count(m, "errors.flush") +
           doc_count(m, "errors.checksum") + doc_count(m, "errors.identity") + doc_count(m, "errors.timeout");
}

/* What we know of the member, and what its disk says of itself when that is bad. */
static const char *status_evidence(const struct doc *m, char text[400])
{
    const char *verdict = doc_text(m, "smart.verdict"), *evidence = doc_text(m, "evidence");
    if (strcmp(verdict, "attention") != 0 && strcmp(verdict, "failing") != 0)
        return evidence;
    snprintf(text, 400, "%s%sSMART %s: %s", evidence, *evidence ? "; " : "", verdict, doc_text(m, "smart.evidence"));
    return text;
}

static void status_members(const struct doc *status)
{
    static const char *const columns[] = {"MEMBER", "STATE", "FAILURE DOMAIN", ">USED", ">SIZE", ">ERRORS", ">REPAIRED",
                                          ">WRITE P50", ">P99", ">READ P50", ">P99", "EVIDENCE", NULL};
    struct out_table *t = out_table(columns);
    for (size_t i = 0; i < doc_length(status, "members"); i++) {
        const struct doc *m = doc_item(status, "members", i);
        char used[OUT_TEXT], size[OUT_TEXT], errors[OUT_TEXT], repaired[OUT_TEXT], latency[4][OUT_TEXT], evidence[400];
        const char *cells[] = {doc_text(m, "name"), doc_text(m, "state"), doc_text(m, "failure_domain"),
                               out_bytes(doc_count(m, "bytes_used"), used), out_bytes(doc_count(m, "bytes_total"), size),
                               out_count(member_errors(m), errors), out_count(doc_count(m, "repaired_blocks"), repaired),
                               out_latency(doc_number(m, "latency_seconds.write_p50"), latency[0]),
                               out_latency(doc_number(m, "latency_seconds.write_p99"), latency[1]),
                               out_latency(doc_number(m, "latency_seconds.read_p50"), latency[2]),
                               out_latency(doc_number(m, "latency_seconds.read_p99"), latency[3]),
                               status_evidence(m, evidence)};
        out_row(t, cells);
    }
    out_table_print(&t);
}

static void status_pool(const struct doc *s)
{
    char a[OUT_TEXT], b[OUT_TEXT], c[OUT_TEXT], d[OUT_TEXT];
    const char *accepting = doc_text(s, "pool.accepting");
    printf("pool      %s%s%s\n", doc_text(s, "pool.state"), *doc_text(s, "pool.meaning") ? ": " : "",
           doc_text(s, "pool.meaning"));
    if (*accepting && strcmp(accepting, "yes") != 0)
        printf("          new mail is refused: %s\n", accepting);
    if (doc_at(s, "relay") && !doc_true(s, "relay.connected"))
        puts("          the relay process is not connected");
    printf("          %llu copies of every message (at least %llu), epoch %llu, %s I/O, up %s\n",
           (unsigned long long)doc_count(s, "pool.copies"), (unsigned long long)doc_count(s, "pool.min_copies"),
           (unsigned long long)doc_count(s, "pool.epoch"), doc_text(s, "io_engine"),
           out_age(doc_number(s, "uptime_seconds"), a));
    printf("space     %s live, %s used of %s, headroom %s\n", out_bytes(doc_count(s, "pool.bytes_live"), a),
           out_bytes(doc_count(s, "pool.bytes_used"), b), out_bytes(doc_count(s, "pool.bytes_total"), c),
           out_bytes(doc_count(s, "pool.bytes_headroom"), d));
    uint64_t below = doc_count(s, "pool.messages_below_copies"), lost = doc_count(s, "pool.messages_lost");
    if (below)
        printf("          %s messages have fewer images than copies\n", out_count(below, a));
    if (lost)
        printf("          %s records are lost; by message: spooltool events\n", out_count(lost, a));
    printf("queue     %s messages, %s recipients: %s active", out_count(doc_count(s, "queue.messages"), a),
           out_count(doc_count(s, "queue.recipients"), b), out_count(doc_count(s, "queue.active"), c));
    printf(", %s deferred, %s hold", out_count(doc_count(s, "queue.deferred"), a), out_count(doc_count(s, "queue.hold"), b));
    if (doc_count(s, "queue.messages"))
        printf("; oldest %s", out_age(doc_number(s, "queue.oldest_age_seconds"), a));
    putchar('\n');
    if (doc_at(s, "queue.index_ready") && !doc_true(s, "queue.index_ready"))
        printf("          the index is being read back: %.0f %%; the numbers above are not whole yet\n",
               doc_number(s, "queue.index_progress") * 100);
    if (doc_number(s, "pool.absent_wait_seconds") > 0)
        printf("          older mail waits %s for an absent member\n", out_age(doc_number(s, "pool.absent_wait_seconds"), a));
    if (doc_length(s, "faults_injected"))
        printf("faults    %zu are injected on purpose\n", doc_length(s, "faults_injected"));
}

static void status_alarms(const struct doc *s)
{
    if (doc_at(s, "alarm") && !doc_true(s, "alarm.connected"))
        puts("alarms    the alarm process is not connected: nothing is told outside");
    for (size_t i = 0; i < doc_length(s, "alarm.raised"); i++) {
        const struct doc *a = doc_item(s, "alarm.raised", i);
        const char *member = doc_text(a, "member");
        printf("alarm     %s: %s%s%s: %s\n", doc_text(a, "severity"), doc_text(a, "event"), *member ? " " : "", member,
               doc_text(a, "evidence"));
    }
}

static void status_background(const struct doc *s, const char *name)
{
    const struct doc *work = doc_at(s, name);
    const char *state = doc_text(work, "state");
    char left[OUT_TEXT], eta[OUT_TEXT];
    if (!*state || strcmp(state, "idle") == 0 || strcmp(state, "none") == 0)
        return;
    printf("%-9s %s", name, state);
    if (doc_at(work, "progress"))
        printf(", %.0f %%", doc_number(work, "progress") * 100);
    if (doc_count(work, "bytes_remaining"))
        printf(", %s to go", out_bytes(doc_count(work, "bytes_remaining"), left));
    if (doc_number(work, "eta_seconds") > 0)
        printf(", done in %s", out_age(doc_number(work, "eta_seconds"), eta));
    putchar('\n');
}

static int no_words(struct tool *t, int argc, char **argv)
{
    int words = tool_options(t, argc, argv, NULL, NULL);
    return words < 0 ? TOOL_USAGE : words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0]) : TOOL_DONE;
}

int cmd_status(struct tool *t, int argc, char **argv)
{
    struct doc *s;
    int code = no_words(t, argc, argv);
    if (code == TOOL_DONE)
        code = ask_for(t, "status", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    if (t->json) {
        doc_print(s, stdout);
    } else {
        status_pool(s);
        status_background(s, "scrub");
        status_background(s, "rebuild");
        status_alarms(s);
        putchar('\n');
        status_members(s);
        if (*doc_text(s, "pool.action"))
            printf("\nnext      %s\n", doc_text(s, "pool.action"));
    }
    code = status_exit(s);
    doc_free(&s);
    return code;
}

int cmd_members(struct tool *t, int argc, char **argv)
{
    struct doc *s;
    int code = no_words(t, argc, argv);
    if (code == TOOL_DONE)
        code = ask_for(t, "members", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(s, stdout);
    else
        status_members(s);
    doc_free(&s);
    return TOOL_DONE;
}
