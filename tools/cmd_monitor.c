/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool check nagios, metrics: for monitoring. check nagios has the plugin's own exit codes, 0 to 3. */
#include "ask.h"
#include "out.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum nagios { NAGIOS_OK, NAGIOS_WARNING, NAGIOS_CRITICAL, NAGIOS_UNKNOWN };

/* The raised alarm of that event, or NULL. */
static const struct doc *nagios_alarm(const struct doc *s, const char *event)
{
    for (size_t i = 0; i < doc_length(s, "alarm.raised"); i++)
        if (strcmp(doc_text(doc_item(s, "alarm.raised", i), "event"), event) == 0)
            return doc_item(s, "alarm.raised", i);
    return NULL;
}

/* Whatever else is a reason to look: no WARNING without one. What pool and members show as well is not said twice. */
static void nagios_reasons(const struct doc *s)
{
    bool healthy = strcmp(doc_text(s, "pool.state"), "healthy") == 0;
    for (size_t i = 0; i < doc_length(s, "alarm.raised"); i++) {
        const struct doc *a = doc_item(s, "alarm.raised", i);
        const char *event = doc_text(a, "event"), *member = doc_text(a, "member");
        bool shown = strcmp(event, "pool_state") == 0 || strcmp(event, "member_state") == 0;
        if (!shown || healthy) /* that one is over, and the alarm will be in a moment */
            printf(", %s%s%s: %s (docs/runbooks/event-%s.md)", event, *member ? " " : "", member, doc_text(a, "evidence"), event);
    }
    if (*doc_text(s, "pool.action"))
        printf(", next: %s", doc_text(s, "pool.action"));
    if (doc_length(s, "faults_injected"))
        printf(", faults are injected (docs/runbooks/event-fault_injected.md)");
}

static enum nagios nagios_of(const struct doc *s)
{
    const char *state = doc_text(s, "pool.state");
    if (doc_count(s, "pool.messages_lost") || strcmp(state, "failed") == 0 || strcmp(state, "read-only") == 0)
        return NAGIOS_CRITICAL;
    if (strcmp(state, "at-risk") == 0 || nagios_alarm(s, "mail_refused"))
        return NAGIOS_CRITICAL;
    return status_exit(s) == TOOL_DONE ? NAGIOS_OK : NAGIOS_WARNING;
}

/* The first member that is not healthy, with its evidence. */
static void nagios_member(const struct doc *s)
{
    for (size_t i = 0; i < doc_length(s, "members"); i++) {
        const struct doc *m = doc_item(s, "members", i);
        const char *state = doc_text(m, "state"), *serial = doc_text(m, "serial");
        if (strcmp(state, "healthy") == 0 || strcmp(state, "spare") == 0 || strcmp(state, "removed") == 0)
            continue;
        printf(", member %s%s%s is %s%s%s (docs/runbooks/member-%s.md)", doc_text(m, "name"), *serial ? " serial " : "",
               serial, state, *doc_text(m, "evidence") ? ": " : "", doc_text(m, "evidence"), state);
        return;
    }
}

int cmd_check_nagios(struct tool *t, int argc, char **argv)
{
    static const char *const words[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
    struct doc *s;
    (void)argv;
    if (argc > 1) {
        puts("IRONSPOOL UNKNOWN - check nagios takes no arguments");
        return NAGIOS_UNKNOWN;
    }
    int code = ask_for(t, "status", NULL, &s);
    if (code != TOOL_DONE) {
        bool down = code == TOOL_UNREACHABLE;
        printf("IRONSPOOL %s - %s\n", words[down ? NAGIOS_CRITICAL : NAGIOS_UNKNOWN],
               down ? "the daemon does not answer: systemctl status ironspool" : "the daemon could not be asked");
        return down ? NAGIOS_CRITICAL : NAGIOS_UNKNOWN;
    }
    enum nagios verdict = nagios_of(s);
    char age[OUT_TEXT];
    printf("IRONSPOOL %s - pool is %s", words[verdict], doc_text(s, "pool.state"));
    nagios_member(s);
    nagios_reasons(s);
    if (doc_count(s, "pool.messages_lost"))
        printf(", %llu records are lost (docs/runbooks/event-record_lost.md)",
               (unsigned long long)doc_count(s, "pool.messages_lost"));
    printf(", %llu messages wait, oldest %s", (unsigned long long)doc_count(s, "queue.messages"),
           out_age(doc_number(s, "queue.oldest_age_seconds"), age));
    printf(" | messages=%llu;;;0 deferred=%llu;;;0 oldest=%.0fs;;;0 below_copies=%llu;;;0 lost=%llu;;;0 used=%lluB;;;0;%llu\n",
           (unsigned long long)doc_count(s, "queue.messages"), (unsigned long long)doc_count(s, "queue.deferred"),
           doc_number(s, "queue.oldest_age_seconds"), (unsigned long long)doc_count(s, "pool.messages_below_copies"),
           (unsigned long long)doc_count(s, "pool.messages_lost"), (unsigned long long)doc_count(s, "pool.bytes_used"),
           (unsigned long long)doc_count(s, "pool.bytes_total"));
    doc_free(&s);
    return verdict;
}

struct metrics { const char *directory; };

static void set_textfile(void *owner, const char *value)
{
    ((struct metrics *)owner)->directory = value;
}

static const struct tool_option metrics_options[] = {{"textfile", true, set_textfile}, {NULL, false, NULL}};

/* node_exporter may read at any moment: the file is whole or the one before. */
static int metrics_to_file(struct ask *a, const char *directory)
{
    char path[512], fresh[520];
    if (snprintf(path, sizeof path, "%s/ironspool.prom", directory) >= (int)sizeof path)
        return tool_say(TOOL_FAILED, "--textfile: the path is too long");
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *to = fopen(fresh, "w");
    if (!to)
        return tool_say(errno == EACCES ? TOOL_DENIED : TOOL_FAILED, "%s: %s", fresh, strerror(errno));
    int code = ask_text(a, to);
    bool failed = ferror(to) != 0;
    failed |= fclose(to) != 0;
    if (code == TOOL_DONE && (failed || rename(fresh, path) != 0))
        code = tool_say(TOOL_FAILED, "%s: %s", path, strerror(errno));
    if (code != TOOL_DONE)
        unlink(fresh);
    return code;
}

int cmd_metrics(struct tool *t, int argc, char **argv)
{
    struct metrics o = {NULL};
    struct ask *a;
    int words = tool_options(t, argc, argv, metrics_options, &o);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = ask_open(t, "metrics", NULL, &a);
    if (code != TOOL_DONE)
        return code;
    code = o.directory ? metrics_to_file(a, o.directory) : ask_text(a, stdout);
    ask_close(&a);
    return code;
}
