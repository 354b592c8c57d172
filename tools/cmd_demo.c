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

static int demo_send(struct demo *d, const char *when)
{
    static const char text[] = "From: demo@example.org\r\nSubject: demonstration\r\n\r\nOne of many.\r\n";
    static const char line[] = "{\"sender\":\"demo@example.org\",\"recipients\":[{\"address\":\"demo@example.org\"}]}";
    struct smtp_send *s = NULL;
    struct doc *envelope;
    double slowest = 0, begin = now_s();
    char mean[OUT_TEXT], worst[OUT_TEXT];
    if (doc_parse(line, sizeof line - 1, &envelope) != ERR_OK)
        return TOOL_FAILED;
    int code = smtp_send_open(d->tool, &s);
    for (unsigned i = 0; i < DEMO_MESSAGES && code == TOOL_DONE; i++) {
        FILE *body = fmemopen((void *)(uintptr_t)text, sizeof text - 1, "r");
        double started = now_s();
        code = body ? smtp_send_message(s, envelope, body, sizeof text - 1) : TOOL_FAILED;
        double took = now_s() - started;
        slowest = took > slowest ? took : slowest;
        if (body)
            fclose(body);
    }
    if (code == TOOL_DONE)
        printf("%s: %u messages, one after the other, all accepted: %s each, the slowest %s\n", when, DEMO_MESSAGES,
               out_latency((now_s() - begin) / DEMO_MESSAGES, mean), out_latency(slowest, worst));
    smtp_send_close(&s);
    doc_free(&envelope);
    return code;
}

/* Tells the pool's state and the members that are not healthy when that has changed; true when all is healthy. */
static bool demo_state(struct demo *d)
{
    struct doc *s;
    char now[DEMO_STATE_BYTES];
    if (ask_for(d->tool, "status", NULL, &s) != TOOL_DONE)
        return false;
    int at = snprintf(now, sizeof now, "    the pool is %s", doc_text(s, "pool.state"));
    bool healthy = strcmp(doc_text(s, "pool.state"), "healthy") == 0;
    for (size_t i = 0; i < doc_length(s, "members") && at < (int)sizeof now; i++) {
        const struct doc *m = doc_item(s, "members", i);
        if (strcmp(doc_text(m, "state"), "healthy") == 0)
            continue;
        healthy = false;
        at += snprintf(now + at, sizeof now - (size_t)at, "; member %s is %s: %s", doc_text(m, "name"), doc_text(m, "state"),
                       doc_text(m, "evidence"));
    }
    if (strcmp(now, d->said) != 0)
        puts(now);
    fflush(stdout);
    snprintf(d->said, sizeof d->said, "%s", now);
    doc_free(&s);
    return healthy;
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
    printf("the disk under member %s is pulled\n", d->pull);
    code = demo_send(d, "without it");
    for (unsigned i = 0; i < DEMO_WITHOUT_S; i++) {
        demo_state(d);
        sleep(1);
    }
    if (code == TOOL_DONE)
        code = demo_fault(d, "fault-clear");
    if (code != TOOL_DONE)
        return code;
    puts("the disk is back");
    for (unsigned i = 0; i < DEMO_PATIENCE_S; i++) {
        tool_hush(true); /* the pool is mounted again with it */
        bool healthy = demo_state(d);
        tool_hush(false);
        if (healthy)
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

int cmd_demo(struct tool *t, int argc, char **argv)
{
    struct demo d = {.tool = t};
    int words = tool_options(t, argc, argv, demo_options, &d);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    const struct config *config = tool_config(t);
    if (!config)
        return TOOL_FAILED;
    if (!config->fault_injection)
        return tool_say(TOOL_DENIED, "a demonstration sends mail and pulls disks: only where the configuration says "
                        "fault_injection = yes, as that of ./run does");
    int code = d.pull ? demo_member(&d, config) : TOOL_DONE;
    if (code == TOOL_DONE)
        code = demo_send(&d, "with every disk");
    if (code != TOOL_DONE)
        return code;
    demo_state(&d);
    return d.pull ? demo_pull(&d) : TOOL_DONE;
}
