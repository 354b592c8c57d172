/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool demo: mail with every disk, mail while one is pulled, and whole again. Only where the configuration says
 * fault_injection = yes: it sends mail and hurts a member. */
#include "ask.h"
#include "out.h"
#include "smtp_send.h"

#include "config.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEMO_MESSAGES 200u
#define DEMO_PULLED_S 60u    /* the fault ends by itself should we be stopped in between */
#define DEMO_WITHOUT_S 10u   /* time to look at the status from another terminal */
#define DEMO_PATIENCE_S 150u /* a member that came back joins within a minute or two */
#define DEMO_STATE_BYTES 512

struct demo {
    struct tool *tool;
    const char *pull;              /* member, or NULL */
    struct doc *before;            /* the status before it was pulled */
    struct doc *sent;              /* what was sent when, and how long it took */
    FILE *told;                    /* what happens, for people; with --json beside the document */
    char said[DEMO_STATE_BYTES];   /* the state as last told */
};

static void set_pull(void *owner, const char *value)
{
    ((struct demo *)owner)->pull = value;
}

static const struct tool_option demo_options[] = {{"pull-disk", true, set_pull}, {NULL, false, NULL}};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void demo_sent(struct demo *d, const char *when, double mean_s, double slowest_s)
{
    char mean[OUT_TEXT], worst[OUT_TEXT];
    struct doc *one = doc_object();
    fprintf(d->told, "%s: %u messages, one after the other, all accepted: %s each, the slowest %s\n", when, DEMO_MESSAGES,
            out_latency(mean_s, mean), out_latency(slowest_s, worst));
    doc_set_text(one, "when", when);
    doc_set_count(one, "accepted", DEMO_MESSAGES);
    doc_set_number(one, "mean_seconds", mean_s);
    doc_set_number(one, "slowest_seconds", slowest_s);
    doc_append(d->sent, one);
}

static int demo_send(struct demo *d, const char *when)
{
    static const char text[] = "From: demo@example.org\r\nSubject: demonstration\r\n\r\nOne of many.\r\n";
    static const char line[] = "{\"sender\":\"demo@example.org\",\"recipients\":[{\"address\":\"demo@example.org\"}]}";
    struct smtp_send *s = NULL;
    struct doc *envelope;
    double slowest = 0, begin = now_s();
    if (doc_parse(line, sizeof line - 1, &envelope) != ERR_OK)
        return TOOL_FAILED;
    int code = smtp_send_open(d->tool, &s);
    for (unsigned i = 0; i < DEMO_MESSAGES && code == TOOL_DONE; i++) {
        FILE *body = fmemopen((void *)(uintptr_t)text, sizeof text - 1, "r");
        double started = now_s();
        code = body ? smtp_send_message(s, envelope, false, body, sizeof text - 1) : TOOL_FAILED;
        double took = now_s() - started;
        slowest = took > slowest ? took : slowest;
        if (body)
            fclose(body);
    }
    if (code == TOOL_DONE)
        demo_sent(d, when, (now_s() - begin) / DEMO_MESSAGES, slowest);
    smtp_send_close(&s);
    doc_free(&envelope);
    return code;
}

static const char *demo_member_before(const struct demo *d, const char *name)
{
    for (size_t i = 0; i < doc_length(d->before, "members"); i++)
        if (strcmp(doc_text(doc_item(d->before, "members", i), "name"), name) == 0)
            return doc_text(doc_item(d->before, "members", i), "state");
    return "";
}

/* As good as before the pull: a pool of as many failure domains as copies is at-risk at its best, and a spare took over or waits. */
static bool demo_whole(const struct demo *d, const struct doc *s)
{
    const char *pool = doc_text(s, "pool.state");
    if (doc_count(s, "pool.messages_below_copies") > 0 || !doc_true(s, "pool.mounted") ||
        (strcmp(pool, "healthy") != 0 && strcmp(pool, doc_text(d->before, "pool.state")) != 0))
        return false;
    for (size_t i = 0; i < doc_length(s, "members"); i++) {
        const struct doc *m = doc_item(s, "members", i);
        const char *state = doc_text(m, "state");
        if (strcmp(state, "healthy") != 0 && strcmp(state, "spare") != 0 &&
            strcmp(state, demo_member_before(d, doc_text(m, "name"))) != 0)
            return false;
    }
    return true;
}

/* Tells the pool's state and the members that are not healthy when that has changed; true when it is whole. The first one is what it
 * is compared with. */
static bool demo_state(struct demo *d)
{
    struct doc *s;
    char now[DEMO_STATE_BYTES];
    if (ask_for(d->tool, "status", NULL, &s) != TOOL_DONE)
        return false;
    int at = snprintf(now, sizeof now, "    the pool is %s", doc_text(s, "pool.state"));
    for (size_t i = 0; i < doc_length(s, "members") && at < (int)sizeof now; i++) {
        const struct doc *m = doc_item(s, "members", i);
        if (strcmp(doc_text(m, "state"), "healthy") == 0)
            continue;
        at += snprintf(now + at, sizeof now - (size_t)at, "; member %s is %s: %s", doc_text(m, "name"), doc_text(m, "state"),
                       doc_text(m, "evidence"));
    }
    if (strcmp(now, d->said) != 0)
        fprintf(d->told, "%s\n", now);
    fflush(d->told);
    snprintf(d->said, sizeof d->said, "%s", now);
    bool whole = !d->before || demo_whole(d, s);
    if (!d->before)
        d->before = s;
    else
        doc_free(&s);
    return whole;
}

static int demo_fault(struct demo *d, const char *command)
{
    struct doc *request = doc_object(), *answer = NULL;
    doc_set_text(request, "name", d->pull);
    if (strcmp(command, "fault-add") == 0) {
        doc_set_text(request, "kind", "vanish");
        doc_set_count(request, "seconds", DEMO_PULLED_S);
    }
    int code = ask_for(d->tool, command, request, &answer);
    doc_free(&answer);
    return code;
}

static int demo_pull(struct demo *d)
{
    int code = demo_fault(d, "fault-add");
    if (code != TOOL_DONE)
        return code;
    fprintf(d->told, "the disk under member %s is pulled\n", d->pull);
    code = demo_send(d, "without it");
    for (unsigned i = 0; i < DEMO_WITHOUT_S; i++) {
        demo_state(d);
        sleep(1);
    }
    if (code == TOOL_DONE)
        code = demo_fault(d, "fault-clear");
    if (code != TOOL_DONE)
        return code;
    fputs("the disk is back\n", d->told);
    for (unsigned i = 0; i < DEMO_PATIENCE_S; i++) {
        tool_hush(true); /* the pool is mounted again with it */
        bool whole = demo_state(d);
        tool_hush(false);
        if (whole)
            return demo_send(d, "whole again");
        sleep(1);
    }
    return tool_say(TOOL_DEGRADED, "it is not whole again yet; go on looking with: spooltool status");
}

/* Before anything is sent: is there such a member? */
static int demo_member(struct demo *d, const struct config *config)
{
    char known[DEMO_STATE_BYTES] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < config->pool.member_count && at < sizeof known; i++) {
        const char *name = config->pool.members[i].name;
        if (strcmp(name, d->pull) == 0)
            return TOOL_DONE;
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", name);
    }
    return tool_say(TOOL_NOT_FOUND, "there is no member \"%s\" to pull; there are: %s", d->pull, known);
}

static int demo_run(struct demo *d)
{
    d->sent = doc_array();
    int code = demo_send(d, "with every disk");
    if (code == TOOL_DONE) {
        demo_state(d);
        code = !d->before ? TOOL_UNREACHABLE : d->pull ? demo_pull(d) : TOOL_DONE;
    }
    if (d->tool->json) {
        struct doc *all = doc_object();
        doc_set_count(all, "schema", 1);
        doc_set_text(all, "pulled", d->pull ? d->pull : "");
        doc_set(all, "sent", d->sent);
        doc_set_bool(all, "done", code == TOOL_DONE);
        doc_print(all, stdout);
        doc_free(&all);
    } else {
        doc_free(&d->sent);
    }
    doc_free(&d->before);
    return code;
}

int cmd_demo(struct tool *t, int argc, char **argv)
{
    struct demo d = {.tool = t};
    int words = tool_options(t, argc, argv, demo_options, &d);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    d.told = t->json ? stderr : stdout;
    const struct config *config = tool_config(t);
    if (!config)
        return TOOL_FAILED;
    if (!config->fault_injection)
        return tool_say(TOOL_DENIED, "a demonstration sends mail and pulls disks: only where the configuration says "
                        "fault_injection = yes, as that of ./run does");
    int code = d.pull ? demo_member(&d, config) : TOOL_DONE;
    return code == TOOL_DONE ? demo_run(&d) : code;
}
