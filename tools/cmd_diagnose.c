/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool diagnose, explain: what is wrong, why we think so, the next command, and the page to read. Everything said
 * here follows from the status document and the tables of states; nothing is guessed. */
#include "ask.h"
#include "out.h"

#include <spoolfs/pool.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_AGE_NOTED_S 3600.0 /* a first retry comes after 5 min, the second after 10: an hour is worth a look */

static void finding(struct doc *findings, const char *what, const char *why, const char *next, const char *runbook)
{
    struct doc *one = doc_object();
    doc_set_text(one, "what", what);
    doc_set_text(one, "why", why);
    doc_set_text(one, "next", next);
    doc_set_text(one, "runbook", runbook);
    doc_append(findings, one);
}

static void diagnose_pool(const struct doc *s, struct doc *findings)
{
    const char *word = doc_text(s, "pool.state"), *action = doc_text(s, "pool.action");
    char what[160], page[64], why[160];
    if (strcmp(word, "healthy") != 0) {
        enum pool_state state = POOL_HEALTHY;
        for (int i = 0; i < POOL_STATE_COUNT; i++)
            if (strcmp(pool_state_word((enum pool_state)i), word) == 0)
                state = (enum pool_state)i;
        snprintf(what, sizeof what, "the pool is %s: %s", word, pool_state_text(state));
        if (doc_count(s, "pool.messages_below_copies"))
            snprintf(why, sizeof why, "%llu of %llu messages have fewer than %llu images",
                     (unsigned long long)doc_count(s, "pool.messages_below_copies"),
                     (unsigned long long)doc_count(s, "pool.messages"), (unsigned long long)doc_count(s, "pool.copies"));
        else
            snprintf(why, sizeof why, "every message has its images, but the members in service could not absorb a loss");
        snprintf(page, sizeof page, "docs/runbooks/pool-%s.md", word);
        finding(findings, what, why, *action ? action : pool_state_action(state), page);
    }
    if (doc_count(s, "pool.messages_lost")) {
        snprintf(why, sizeof why, "%llu records failed verification on every image that is here",
                 (unsigned long long)doc_count(s, "pool.messages_lost"));
        finding(findings, "mail is lost, unless a member that is absent holds it", why, "spooltool events",
                "docs/runbooks/event-record_lost.md");
    }
    if (strcmp(word, "healthy") == 0 && doc_at(s, "pool.bytes_headroom") && doc_count(s, "pool.bytes_headroom") == 0)
        finding(findings, "after the loss of one member there would be no room for all images",
                "the headroom is zero", "add a member in another failure domain, or let the queue drain",
                "docs/runbooks/pool-at-risk.md");
}

static void diagnose_scrub(const struct doc *s, struct doc *findings)
{
    char why[160];
    if (doc_true(s, "scrub.blind"))
        finding(findings, "the scrub does not find damage that was put there to be found",
                "the last canary was read back damaged, and the scrub called it good", "spooltool scrub start",
                "docs/runbooks/event-scrub_blind.md");
    if (doc_count(s, "scrub.slots_retired")) {
        snprintf(why, sizeof why, "%llu slots have a place that stays bad; they are not used any more",
                 (unsigned long long)doc_count(s, "scrub.slots_retired"));
        finding(findings, "a disk has places that cannot be used", why, "spooltool scrub report",
                "docs/runbooks/event-slot_retired.md");
    }
}

static void diagnose_member(const struct doc *m, struct doc *findings)
{
    const char *word = doc_text(m, "state"), *serial = doc_text(m, "serial"), *evidence = doc_text(m, "evidence");
    char what[320], page[64], next[96];
    if (strcmp(word, "healthy") == 0 || strcmp(word, "spare") == 0 || strcmp(word, "removed") == 0)
        return;
    enum member_state state = MEMBER_HEALTHY;
    for (int i = 0; i < MEMBER_STATE_COUNT; i++)
        if (strcmp(member_state_word((enum member_state)i), word) == 0)
            state = (enum member_state)i;
    snprintf(what, sizeof what, "member \"%s\" (%s%s%s) is %s: %s", doc_text(m, "name"), doc_text(m, "path"),
             *serial ? ", serial " : "", serial, word, member_state_text(state));
    snprintf(page, sizeof page, "docs/runbooks/member-%s.md", word);
    snprintf(next, sizeof next, "see %s", page);
    const char *action = member_state_action(state);
    finding(findings, what, *evidence ? evidence : "no more is known", *action ? action : next, page);
}

static void diagnose_queue(const struct doc *s, struct doc *findings)
{
    char why[160], age[OUT_TEXT];
    if (doc_length(s, "faults_injected"))
        finding(findings, "faults are injected on purpose", "fault_injection = yes and somebody asked for them",
                "spooltool status --json (faults_injected)", "docs/runbooks/pool-degraded.md");
    if (doc_number(s, "queue.oldest_age_seconds") < QUEUE_AGE_NOTED_S || !doc_count(s, "queue.deferred"))
        return;
    snprintf(why, sizeof why, "%llu messages are deferred, the oldest has waited %s",
             (unsigned long long)doc_count(s, "queue.deferred"), out_age(doc_number(s, "queue.oldest_age_seconds"), age));
    finding(findings, "mail waits for its destinations", why, "spooltool queue summary", "docs/runbooks/README.md");
}

static enum event_kind event_of(const char *name)
{
    enum event_kind kind = 0;
    while (kind < EVENT_COUNT && strcmp(event_name(kind), name) != 0)
        kind++;
    return kind;
}

/* What pool, members and queue do not show by themselves; when they show nothing any more, every alarm that is still raised. */
static void diagnose_alarms(const struct doc *s, struct doc *findings)
{
    static const char *const told[] = {"queue_delayed", "mail_refused", "spool_silent", "smart_failing"};
    bool quiet = doc_length(findings, "") == 0;
    for (size_t i = 0; i < doc_length(s, "alarm.raised"); i++) {
        const struct doc *a = doc_item(s, "alarm.raised", i);
        const char *event = doc_text(a, "event"), *member = doc_text(a, "member");
        char what[160], page[64], next[96];
        enum event_kind kind = event_of(event);
        bool tell = quiet;
        for (unsigned k = 0; k < sizeof told / sizeof told[0]; k++)
            tell = tell || strcmp(told[k], event) == 0;
        if (!tell || kind == EVENT_COUNT)
            continue;
        snprintf(what, sizeof what, "%s%s%s%s", event_text(kind), *member ? ": member \"" : "", member, *member ? "\"" : "");
        snprintf(page, sizeof page, "docs/runbooks/event-%s.md", event);
        snprintf(next, sizeof next, "see %s", page);
        finding(findings, what, doc_text(a, "evidence"), next, page);
    }
    if (doc_at(s, "alarm") && !doc_true(s, "alarm.connected"))
        finding(findings, "the alarm process is not connected", "hook, webhook and heartbeat are silent",
                "look at the log of the daemon, then restart it", "docs/runbooks/README.md");
}

static void diagnose_tell(const struct doc *findings)
{
    if (doc_length(findings, "") == 0)
        puts("nothing is wrong: the pool is healthy, every member serves, mail flows");
    for (size_t i = 0; i < doc_length(findings, ""); i++) {
        const struct doc *f = doc_item(findings, "", i);
        printf("%s%s\n    why   %s\n    next  %s\n    read  %s\n", i ? "\n" : "", doc_text(f, "what"), doc_text(f, "why"),
               doc_text(f, "next"), doc_text(f, "runbook"));
    }
}

int cmd_diagnose(struct tool *t, int argc, char **argv)
{
    struct doc *s;
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = ask_for(t, "status", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    struct doc *findings = doc_array();
    diagnose_scrub(s, findings);
    diagnose_pool(s, findings);
    for (size_t i = 0; i < doc_length(s, "members"); i++)
        diagnose_member(doc_item(s, "members", i), findings);
    diagnose_queue(s, findings);
    diagnose_alarms(s, findings);
    code = status_exit(s);
    if (t->json) {
        struct doc *d = doc_object();
        doc_set_count(d, "schema", 1);
        doc_set(d, "findings", findings);
        doc_print(d, stdout);
        doc_free(&d);
    } else {
        diagnose_tell(findings);
        doc_free(&findings);
    }
    doc_free(&s);
    return code;
}

static void explain_recipient(const struct doc *r)
{
    const char *reason = doc_text(r, "delay_reason"), *status = doc_text(r, "status");
    printf("  %s: %s%s%s\n", doc_text(r, "address"), *status ? status : *reason ? "deferred" : "not tried yet",
           *reason ? ": " : "", reason);
}

static void explain_tell(const struct doc *m)
{
    char size[OUT_TEXT], when[OUT_TEXT];
    const char *queue = doc_text(m, "queue_name"), *sender = doc_text(m, "sender");
    printf("%s from %s, %s, arrived %s\n", doc_text(m, "queue_id"), *sender ? sender : "<>",
           out_bytes(doc_count(m, "message_size"), size), out_time(doc_count(m, "arrival_time") * 1000, when));
    for (size_t i = 0; i < doc_length(m, "recipients"); i++)
        explain_recipient(doc_item(m, "recipients", i));
    if (strcmp(queue, "hold") == 0)
        printf("It is held by the administrator.\nnext: spooltool queue release %s\n", doc_text(m, "queue_id"));
    else if (strcmp(queue, "deferred") == 0)
        printf("It is tried again at %s.\nnext: spooltool queue retry %s, once the reason above is gone\n",
               *doc_text(m, "next_attempt") ? doc_text(m, "next_attempt") : "the end of its destination's back-off",
               doc_text(m, "queue_id"));
    else
        puts("It is being delivered, or is next in line.");
}

int cmd_explain(struct tool *t, int argc, char **argv)
{
    struct doc *m;
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 1)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "one queue id is needed");
    int code = tool_queue_id(argv[0]);
    if (code != TOOL_DONE)
        return code;
    struct doc *request = doc_object();
    doc_set_text(request, "id", argv[0]);
    code = ask_for(t, "queue-show", request, &m);
    if (code == TOOL_NOT_FOUND)
        tool_say(0, "it is not in the queue: delivered, returned to its sender or deleted; the log knows: grep %s", argv[0]);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(m, stdout);
    else
        explain_tell(m);
    doc_free(&m);
    return TOOL_DONE;
}
