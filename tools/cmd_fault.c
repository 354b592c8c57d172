/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool fault: hurts one member of a running pool on purpose, for a limited time. The daemon refuses it unless
 * fault_injection = yes. */
#include "ask.h"
#include "out.h"

#include <inject_io.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fault {
    struct doc *request;
    const char *bad; /* the option whose value makes no sense */
};

static void set_member(void *owner, const char *value)
{
    doc_set_text(((struct fault *)owner)->request, "name", value);
}

static void set_queue_id(void *owner, const char *value)
{
    doc_set_text(((struct fault *)owner)->request, "queue_id", value);
}

static void set_rate(void *owner, const char *value)
{
    struct fault *f = owner;
    char *end;
    double rate = strtod(value, &end);
    if (end == value || *end || !(rate > 0 && rate <= 1))
        f->bad = "--rate is above 0 and at most 1";
    else
        doc_set_number(f->request, "rate", rate);
}

static bool whole_number(const char *value, uint64_t *n_out)
{
    char *end;
    errno = 0;
    *n_out = strtoull(value, &end, 0);
    return isdigit((unsigned char)value[0]) && !errno && !*end && *n_out <= INT64_MAX;
}

static void set_factor(void *owner, const char *value)
{
    struct fault *f = owner;
    uint64_t n;
    if (!whole_number(value, &n))
        f->bad = "--factor is a whole number";
    doc_set_count(f->request, "factor", n);
}

static void set_seed(void *owner, const char *value)
{
    struct fault *f = owner;
    uint64_t n;
    if (!whole_number(value, &n))
        f->bad = "--seed is a whole number";
    doc_set_count(f->request, "seed", n);
}

static void set_id(void *owner, const char *value)
{
    struct fault *f = owner;
    uint64_t n;
    if (!whole_number(value, &n) || n == 0)
        f->bad = "--id is a number of spooltool fault list";
    doc_set_count(f->request, "id", n);
}

static void set_range(void *owner, const char *value)
{
    struct fault *f = owner;
    char first[32];
    uint64_t from = 0, to = 0;
    const char *dash = strchr(value, '-');
    size_t len = dash ? (size_t)(dash - value) : 0;
    bool good = dash && len < sizeof first;
    if (good) {
        memcpy(first, value, len);
        first[len] = '\0';
        good = tool_bytes(first, &from) == ERR_OK && tool_bytes(dash + 1, &to) == ERR_OK && from < to && to <= INT64_MAX;
    }
    if (!good)
        f->bad = "--range is FIRST-END in bytes of the member, with K M G T: 1M-2M";
    doc_set_count(f->request, "from", from);
    doc_set_count(f->request, "to", to);
}

static void set_for(void *owner, const char *value)
{
    struct fault *f = owner;
    uint64_t seconds = 0;
    if (tool_seconds(value, &seconds) != ERR_OK || seconds == 0 || seconds > 86400)
        f->bad = "--for is a time of up to a day: 60s, 10m, 1h";
    doc_set_count(f->request, "seconds", seconds);
}

static const struct tool_option add_options[] = {
    {"member", true, set_member}, {"rate", true, set_rate}, {"factor", true, set_factor}, {"range", true, set_range},
    {"queue-id", true, set_queue_id}, {"for", true, set_for}, {"seed", true, set_seed}, {NULL, false, NULL}};
static const struct tool_option clear_options[] = {{"member", true, set_member}, {"id", true, set_id}, {NULL, false, NULL}};

/* Sends the request, which it takes over. */
static int fault_ask(struct tool *t, const char *command, struct fault *f, struct doc **answer_out)
{
    struct doc *request = f->request;
    f->request = NULL;
    return ask_for(t, command, request, answer_out);
}

/* "bit-rot torn-write ..." */
static const char *fault_kinds(char text[512])
{
    size_t at = 0;
    for (int k = 0; k < INJECT_KIND_COUNT && at < 480; k++)
        at += (size_t)snprintf(text + at, 512 - at, "%s%s", k ? " " : "", inject_kind_word((enum inject_kind)k));
    return text;
}

/* What would be passed over in silence is refused. NULL: nothing is. */
static const char *fault_contradicts(const struct doc *request, enum inject_kind kind)
{
    bool all_of_it = kind == INJECT_VANISH || kind == INJECT_RETURN;
    if (doc_at(request, "factor") && kind != INJECT_SLOW && kind != INJECT_ONE_ARM)
        return "--factor is for slow and one-arm; how often another fault strikes is --rate";
    if (all_of_it && (doc_at(request, "rate") || doc_at(request, "to") || doc_at(request, "queue_id")))
        return "a member vanishes and returns as a whole: no --rate, --range or --queue-id";
    if (doc_at(request, "to") && doc_at(request, "queue_id"))
        return "--range and --queue-id both say where: give one";
    return NULL;
}

int cmd_fault_add(struct tool *t, int argc, char **argv)
{
    struct fault f = {.request = doc_object()};
    struct doc *answer;
    enum inject_kind kind;
    const char *contradiction;
    char kinds[512];
    int words = tool_options(t, argc, argv, add_options, &f), code = TOOL_DONE;
    if (words < 0)
        code = TOOL_USAGE;
    else if (words != 1)
        code = tool_usage(t, words ? "\"%s\" is not expected here" : "which kind of fault?", words ? argv[1] : "");
    else if (inject_kind_parse(argv[0], &kind) != ERR_OK)
        code = tool_usage(t, "\"%s\" is not a kind of fault: %s", argv[0], fault_kinds(kinds));
    else if (f.bad)
        code = tool_usage(t, "%s", f.bad);
    else if ((contradiction = fault_contradicts(f.request, kind)) != NULL)
        code = tool_usage(t, "%s", contradiction);
    else if (!*doc_text(f.request, "name"))
        code = tool_usage(t, "--member NAME is needed: a fault hurts one member");
    if (code == TOOL_DONE) {
        doc_set_text(f.request, "kind", argv[0]);
        code = fault_ask(t, "fault-add", &f, &answer);
    }
    doc_free(&f.request);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(answer, stdout);
    else
        printf("fault %llu: %s on member %s: %s\n", (unsigned long long)doc_count(answer, "id"), doc_text(answer, "kind"),
               doc_text(answer, "member"), doc_text(answer, "meaning"));
    if (!t->json && doc_number(answer, "seconds_left") > 0)
        printf("ends by itself in %.0f s, or by: spooltool fault clear\n", doc_number(answer, "seconds_left"));
    doc_free(&answer);
    return TOOL_DONE;
}

static void fault_row(struct out_table *table, const struct doc *f)
{
    char id[24], rate[24], bytes[64], left[OUT_TEXT], injected[OUT_TEXT], seed[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)doc_count(f, "id"));
    snprintf(rate, sizeof rate, "%g", doc_number(f, "rate"));
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)doc_count(f, "seed"));
    snprintf(bytes, sizeof bytes, doc_at(f, "to") ? "%llu-%llu" : "all", (unsigned long long)doc_count(f, "from"),
             (unsigned long long)doc_count(f, "to"));
    out_age(doc_number(f, "seconds_left"), left);
    out_count(doc_count(f, "injected"), injected);
    out_row(table, (const char *const[]){id, doc_text(f, "kind"), doc_text(f, "member"), rate, bytes, seed, left, injected});
}

int cmd_fault_list(struct tool *t, int argc, char **argv)
{
    struct doc *answer;
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = ask_for(t, "fault-list", NULL, &answer);
    if (code != TOOL_DONE)
        return code;
    size_t count = doc_length(answer, "faults");
    if (t->json) {
        doc_print(answer, stdout);
    } else if (count == 0) {
        puts("no fault is injected");
    } else {
        struct out_table *table =
            out_table((const char *const[]){">id", "kind", "member", ">rate", "bytes", ">seed", ">left", ">injected", NULL});
        for (size_t i = 0; i < count; i++)
            fault_row(table, doc_item(answer, "faults", i));
        out_table_print(&table);
    }
    doc_free(&answer);
    return TOOL_DONE;
}

int cmd_fault_clear(struct tool *t, int argc, char **argv)
{
    struct fault f = {.request = doc_object()};
    struct doc *answer;
    int words = tool_options(t, argc, argv, clear_options, &f), code = TOOL_DONE;
    if (words < 0)
        code = TOOL_USAGE;
    else if (words > 0)
        code = tool_usage(t, "\"%s\" is not expected here", argv[0]);
    else if (f.bad)
        code = tool_usage(t, "%s", f.bad);
    if (code == TOOL_DONE)
        code = fault_ask(t, "fault-clear", &f, &answer);
    doc_free(&f.request);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(answer, stdout);
    else
        printf("%llu faults cleared\n", (unsigned long long)doc_count(answer, "cleared"));
    doc_free(&answer);
    return TOOL_DONE;
}
