/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool alarm test: does an alarm reach the outside? One is sent by every channel that is configured, and waited for. */
#include "ask.h"

#include <string.h>
#include <unistd.h>

#define PATIENCE_S 20 /* longer than one try of either channel takes by default */
#define CHANNELS 2

static const char *const channels[CHANNELS] = {"hook", "webhook"};

struct seen { bool configured; uint64_t sent, failed; };

static int look(struct tool *t, struct seen seen[CHANNELS])
{
    struct doc *s;
    int code = ask_for(t, "status", NULL, &s);
    if (code != TOOL_DONE)
        return code;
    if (!doc_true(s, "alarm.connected"))
        code = tool_say(TOOL_UNREACHABLE, "the alarm process is not connected; look at the daemon's log");
    for (int i = 0; i < CHANNELS; i++) {
        char path[64];
        snprintf(path, sizeof path, "alarm.%s.configured", channels[i]);
        seen[i].configured = doc_true(s, path);
        snprintf(path, sizeof path, "alarm.%s.sent", channels[i]);
        seen[i].sent = doc_count(s, path);
        snprintf(path, sizeof path, "alarm.%s.failed", channels[i]);
        seen[i].failed = doc_count(s, path);
    }
    doc_free(&s);
    return code;
}

static int tell(struct tool *t, const bool arrived[CHANNELS], const struct seen seen[CHANNELS])
{
    int code = TOOL_DONE;
    struct doc *d = doc_object();
    for (int i = 0; i < CHANNELS; i++) {
        const char *word = !seen[i].configured ? "not configured" : arrived[i] ? "arrived" : "not yet";
        if (t->json)
            doc_set_text(d, channels[i], word);
        else
            printf("%-8s %s%s\n", channels[i], word, seen[i].configured && !arrived[i] ? "; the daemon's log says why" : "");
        if (seen[i].configured && !arrived[i])
            code = TOOL_FAILED;
    }
    if (t->json)
        doc_print(d, stdout);
    doc_free(&d);
    return code;
}

int cmd_alarm_test(struct tool *t, int argc, char **argv)
{
    struct seen before[CHANNELS] = {0}, now[CHANNELS] = {0};
    bool arrived[CHANNELS] = {false};
    struct doc *answer;
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    int code = look(t, before);
    if (code != TOOL_DONE)
        return code;
    if (!before[0].configured && !before[1].configured)
        return tool_say(TOOL_FAILED, "no alarm leaves this machine: neither hook_program nor webhook is configured");
    code = ask_for(t, "alarm-test", NULL, &answer);
    if (code != TOOL_DONE)
        return code;
    doc_free(&answer);
    for (int s = 0; s < PATIENCE_S; s++) {
        bool all = true;
        sleep(1);
        code = look(t, now);
        if (code != TOOL_DONE)
            return code;
        for (int i = 0; i < CHANNELS; i++) {
            arrived[i] = now[i].sent > before[i].sent;
            all = all && (arrived[i] || !now[i].configured);
        }
        if (all)
            break;
    }
    return tell(t, arrived, now);
}
