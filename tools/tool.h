/* SPDX-License-Identifier: Apache-2.0 */
/* What every command gets, and the exit codes the contract promises. */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

enum tool_exit {
    TOOL_DONE = 0,
    TOOL_FAILED = 1,
    TOOL_USAGE = 2,
    TOOL_DENIED = 3,
    TOOL_UNREACHABLE = 4,
    TOOL_NOT_FOUND = 5,
    TOOL_ATTENTION = 10,
    TOOL_DEGRADED = 11,
    TOOL_LOSS = 12,
};

struct config;

struct tool {
    const char *config_path;
    bool json;
    struct config *config;  /* read when first asked for; tool_config */
    bool config_denied;     /* it is there, and this user may not read it: whatever came of that is TOOL_DENIED */
    const char *usage;      /* of the command that runs */
};

/* A command: argv[0] is its last word. Returns the exit code. */
typedef int tool_command(struct tool *t, int argc, char **argv);

tool_command cmd_pool_create, cmd_pool_check, cmd_status, cmd_members, cmd_events, cmd_diagnose, cmd_explain, cmd_doctor,
    cmd_queue_list, cmd_queue_summary, cmd_queue_show, cmd_queue_hold, cmd_queue_release, cmd_queue_retry, cmd_queue_requeue,
    cmd_queue_delete,
    cmd_queue_expire, cmd_check_nagios, cmd_metrics, cmd_scrub_start, cmd_scrub_pause, cmd_scrub_resume, cmd_scrub_status,
    cmd_scrub_report, cmd_rebuild_status, cmd_rebuild_pause, cmd_rebuild_resume, cmd_member_evacuate, cmd_member_clear,
    cmd_member_remove, cmd_member_locate, cmd_member_add, cmd_member_replace, cmd_export, cmd_import,
    cmd_alarm_test, cmd_fault_add, cmd_fault_list, cmd_fault_clear, cmd_demo;

struct doc;
int status_exit(const struct doc *status); /* the exit code that a status document stands for; cmd_status.c */

/* "spooltool: what", to stderr; returns `code`, so that a command can end with it. */
int tool_say(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tool_hush(bool hush); /* tool_say says nothing: whoever asks again and again expects some answers to fail */
int tool_usage(const struct tool *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* NULL after having said why: the command ends with TOOL_FAILED. */
const struct config *tool_config(struct tool *t);

/* Options of one command, "--name", "--name=value" or "--name value", anywhere among the words. Words are moved to the
 * front of argv; returns how many there are, or -1 after having said what is wrong. */
struct tool_option {
    const char *name;       /* without the dashes; NULL ends the table */
    bool takes_value;
    void (*set)(void *owner, const char *value); /* value is NULL when none is taken; may come more than once */
};
int tool_options(struct tool *t, int argc, char **argv, const struct tool_option *options, void *owner);

/* "64M" -> bytes; K M G T. */
enum err tool_bytes(const char *text, uint64_t *bytes_out) MUST_CHECK;
/* "60s" -> seconds; s m h d w, bare numbers are seconds. At most INT64_MAX. */
enum err tool_seconds(const char *text, uint64_t *seconds_out) MUST_CHECK;

/* TOOL_NOT_FOUND, after having said so, for what can not be the id of any message. */
int tool_queue_id(const char *text);

#endif
