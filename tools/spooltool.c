/* SPDX-License-Identifier: Apache-2.0 */
/* The one face for people: finds the command and hands over. Commands live in cmd_*.c. */
#include "tool.h"

#include "config.h"

#include <base/ids.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SELECTOR "[QUEUE_ID...] [--all] [--sender S] [--domain D] [--older-than 2d] [--queue deferred]"
#define DRY " [--dry-run]"

static const struct command {
    const char *words; /* one or two */
    tool_command *run;
    const char *arguments, *does;
} commands[] = {
    {"pool create", cmd_pool_create,
     "[--size 1G] [--segment-size auto] [--force=MEMBER] [--dry-run]",
     "format the configured members as a new pool"},
    {"pool check", cmd_pool_check, "", "with the daemon down: verify every image of every segment, write nothing"},
    {"status", cmd_status, "", "how the pool, its members and the queue stand"},
    {"members", cmd_members, "", "every member: state, evidence, errors, latencies"},
    {"events", cmd_events, "[--count N] [--follow]", "what happened, oldest first"},
    {"diagnose", cmd_diagnose, "", "what is wrong, why we think so, and the next command"},
    {"explain", cmd_explain, "QUEUE_ID", "why this message is still here"},
    {"doctor", cmd_doctor, "", "look over configuration, members and the running daemon"},
    {"queue list", cmd_queue_list, SELECTOR, "what waits; with --json what postqueue -j prints, and more"},
    {"queue summary", cmd_queue_summary, "", "by destination domain"},
    {"queue show", cmd_queue_show, "QUEUE_ID [--raw]", "one message; --raw: its header and body, verified"},
    {"queue hold", cmd_queue_hold, SELECTOR DRY, "no delivery until released"},
    {"queue release", cmd_queue_release, SELECTOR DRY, "end a hold"},
    {"queue retry", cmd_queue_retry, SELECTOR DRY, "due now, whatever the back-off says"},
    {"queue requeue", cmd_queue_requeue, SELECTOR DRY, "the same, and those on hold are released; routes are looked up anew"},
    {"queue delete", cmd_queue_delete, SELECTOR DRY, "for good, without a bounce"},
    {"queue expire", cmd_queue_expire, SELECTOR DRY, "give up now: returned to the sender as undeliverable"},
    {"member add", cmd_member_add, "NAME [--size 1G] [--force=NAME] [--dry-run]",
     "format a configured member and put it into the running pool"},
    {"member replace", cmd_member_replace, "OLD [NEW] [--size 1G] [--force=NEW] [--dry-run]",
     "the same, in the place of OLD, which is removed when no mail needs it; without NEW: the disk at OLD's path is new"},
    {"member evacuate", cmd_member_evacuate, "NAME", "move every image off a member that still works"},
    {"member remove", cmd_member_remove, "NAME [--when-empty | --lost [--dry-run]]",
     "take an empty member out of the pool for good; --when-empty: as soon as it is; --lost: it is absent and never comes\n"
     "      back: what only it holds is lost, told by queue id and bounced; --dry-run: only count that"},
    {"member clear", cmd_member_clear, "NAME",
     "put a slow or suspect member back into service or a spare to work, or end an evacuation"},
    {"member locate", cmd_member_locate, "NAME", "which disk to look for, and what makes its light blink"},
    {"scrub start", cmd_scrub_start, "", "verify every image now"},
    {"scrub pause", cmd_scrub_pause, "", "until resumed"},
    {"scrub resume", cmd_scrub_resume, "", "go on"},
    {"scrub status", cmd_scrub_status, "", "how far the pass is"},
    {"scrub report", cmd_scrub_report, "", "what was found, by member and by event"},
    {"rebuild status", cmd_rebuild_status, "", "how much is left"},
    {"rebuild pause", cmd_rebuild_pause, "", "until resumed"},
    {"rebuild resume", cmd_rebuild_resume, "", "go on"},
    {"export", cmd_export, "[--since CURSOR] [--out FILE]",
     "undelivered mail, verified, as a tar.zst of .eml and .json; an old FILE is replaced when the new one is whole"},
    {"import", cmd_import, "[--from FILE] [--hold]",
     "the mail of an export into the running relay, while it serves; --hold: what was on hold stays on hold"},
    {"alarm test", cmd_alarm_test, "", "send a test by hook and webhook, and see whether it arrives"},
    {"fault add", cmd_fault_add,
     "KIND --member NAME [--rate 0.1] [--factor 100] [--range 0-64M] [--queue-id Q] [--for 60s] [--seed N]",
     "hurt a member on purpose, where fault_injection = yes: bit-rot torn-write lost-write misdirected-write\n"
     "      misdirected-read stale-read read-error media-error write-error flush-error flush-lie slow one-arm stall vanish\n"
     "      return full; --factor: times as slow, or for one-arm the percentage of a 7200 rpm disk's time; --rate: of the\n"
     "      operations, or for media-error of the blocks"},
    {"fault list", cmd_fault_list, "", "what is injected now"},
    {"fault clear", cmd_fault_clear, "[--member NAME] [--id N]", "end all, those of one member, or one"},
    {"demo", cmd_demo, "[--pull-disk NAME]", "mail with every disk, without one, and whole again; where fault_injection = yes"},
    {"check nagios", cmd_check_nagios, "", "a monitoring plugin: exit 0 to 3, with performance data"},
    {"metrics", cmd_metrics, "[--textfile DIR]", "Prometheus text format"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static bool tool_hushed;

void tool_hush(bool hush)
{
    tool_hushed = hush;
}

int tool_say(int code, const char *format, ...)
{
    va_list arguments;
    if (tool_hushed)
        return code;
    va_start(arguments, format);
    fputs("spooltool: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return code;
}

int tool_usage(const struct tool *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("spooltool: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nusage: spooltool [-c FILE] %s\n", t->usage);
    va_end(arguments);
    return TOOL_USAGE;
}

const struct config *tool_config(struct tool *t)
{
    char text[CONFIG_TEXT_BYTES];
    if (!t->config) {
        enum err e = config_load_to_look(t->config_path, &t->config, text);
        if (e == ERR_NOT_FOUND)
            tool_say(0, "%s; name the configuration with -c FILE or %s", text, CONFIG_PATH_VARIABLE);
        else if (e == ERR_DENIED)
            tool_say(0, "%s; run as root, or as a user who may read it", text);
        else if (e != ERR_OK)
            tool_say(0, "%s", text);
        t->config_denied = e == ERR_DENIED;
        if (e != ERR_OK)
            return NULL;
    }
    return t->config;
}

enum err tool_bytes(const char *text, uint64_t *bytes_out)
{
    static const char suffixes[] = "KMGT";
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)text[0]))
        return ERR_INVALID;
    uint64_t n = strtoull(text, &end, 10), factor = 1;
    const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    if (suffix) {
        for (int i = 0; i <= suffix - suffixes; i++)
            factor *= 1024;
        end++;
    }
    if (errno || *end || __builtin_mul_overflow(n, factor, &n))
        return ERR_INVALID;
    *bytes_out = n;
    return ERR_OK;
}

enum err tool_seconds(const char *text, uint64_t *seconds_out)
{
    static const char units[] = "smhdw";
    static const uint64_t seconds[] = {1, 60, 3600, 86400, 604800};
    char *end = NULL;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : units;
    if (!isdigit((unsigned char)text[0]) || errno || !unit || (*end && end[1]) ||
        __builtin_mul_overflow(n, seconds[unit - units], &n) || n > INT64_MAX)
        return ERR_INVALID;
    *seconds_out = n;
    return ERR_OK;
}

int tool_queue_id(const char *text)
{
    struct queue_id id;
    if (queue_id_parse(text, strlen(text), &id) == ERR_OK)
        return TOOL_DONE;
    return tool_say(TOOL_NOT_FOUND, "\"%s\" is no queue id; they look as in: spooltool queue list", text);
}

static const struct tool_option *option_find(const struct tool_option *options, const char *name, size_t len)
{
    for (; options && options->name; options++)
        if (strlen(options->name) == len && strncmp(options->name, name, len) == 0)
            return options;
    return NULL;
}

int tool_options(struct tool *t, int argc, char **argv, const struct tool_option *options, void *owner)
{
    int words = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            argv[words++] = argv[i];
            continue;
        }
        char *name = argv[i] + 2, *value = strchr(name, '=');
        size_t len = value ? (size_t)(value - name) : strlen(name);
        const struct tool_option *o = option_find(options, name, len);
        if (len == 4 && strncmp(name, "json", 4) == 0 && !value) {
            t->json = true;
            continue;
        }
        if (!o) {
            tool_usage(t, "unknown option %s", argv[i]);
            return -1;
        }
        if (value)
            value++;
        else if (o->takes_value)
            value = ++i < argc ? argv[i] : NULL;
        if (o->takes_value != (value != NULL)) {
            tool_usage(t, o->takes_value ? "--%s needs a value" : "--%s takes no value", o->name);
            return -1;
        }
        o->set(owner, value);
    }
    return words;
}

static int help(FILE *to)
{
    fputs("usage: spooltool [-c FILE] COMMAND [--json]\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %s%s%s\n      %s\n", commands[i].words, *commands[i].arguments ? " " : "", commands[i].arguments,
                commands[i].does);
    fprintf(to, "\n-c FILE, or the environment variable %s: the configuration; %s when neither is given.\n"
                "Exit codes: 0 done, 1 failed, 2 usage, 3 not permitted, 4 daemon unreachable, 5 not found,\n"
                "10 healthy but attention, 11 degraded, 12 data loss present.\n",
            CONFIG_PATH_VARIABLE, CONFIG_PATH_DEFAULT);
    return to == stdout ? TOOL_DONE : TOOL_USAGE;
}

/* How many words of argv name this command: 1 or 2, or 0. */
static int command_matches(const struct command *c, int argc, char **argv)
{
    const char *space = strchr(c->words, ' ');
    size_t first = space ? (size_t)(space - c->words) : strlen(c->words);
    if (argc < 1 || strlen(argv[0]) != first || strncmp(argv[0], c->words, first) != 0)
        return 0;
    if (!space)
        return 1;
    return argc > 1 && strcmp(argv[1], space + 1) == 0 ? 2 : 0;
}

static int command_unknown(int argc, char **argv)
{
    size_t len = strlen(argv[0]);
    bool family = false;
    for (size_t i = 0; i < COMMANDS; i++)
        if (strncmp(commands[i].words, argv[0], len) == 0 && commands[i].words[len] == ' ') {
            fprintf(stderr, "%s  spooltool %s\n", family ? "" : "one of these?\n", commands[i].words);
            family = true;
        }
    if (family)
        return TOOL_USAGE;
    (void)argc;
    return tool_say(TOOL_USAGE, "there is no command \"%s\"; spooltool help lists all", argv[0]);
}

int main(int argc, char **argv)
{
    struct tool t = {.config_path = config_default_path()};
    int at = 1, code = -1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "-c") == 0 && at + 1 < argc)
            t.config_path = argv[++at];
        else if (strcmp(argv[at], "--json") == 0)
            t.json = true;
        else if (strcmp(argv[at], "--version") == 0)
            return printf("spooltool %s\n", IRONSPOOL_VERSION) < 0;
        else
            return help(strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0 ? stdout : stderr);
    }
    if (at == argc)
        return help(stderr);
    if (strcmp(argv[at], "help") == 0)
        return help(stdout);
    for (size_t i = 0; i < COMMANDS && code < 0; i++) {
        int words = command_matches(&commands[i], argc - at, argv + at);
        if (!words)
            continue;
        char usage[256];
        snprintf(usage, sizeof usage, "%s %s", commands[i].words, commands[i].arguments);
        t.usage = usage;
        if (strcmp(argv[argc - 1], "--help") == 0) {
            printf("usage: spooltool [-c FILE] %s\n  %s\n", usage, commands[i].does);
            return TOOL_DONE;
        }
        code = commands[i].run(&t, argc - at - words + 1, argv + at + words - 1);
    }
    if (code < 0)
        code = command_unknown(argc - at, argv + at);
    if (t.config_denied && code == TOOL_FAILED)
        code = TOOL_DENIED;
    config_free(&t.config);
    if (fflush(stdout) != 0 || ferror(stdout))
        return tool_say(TOOL_FAILED, "could not write the answer: %s", strerror(errno));
    return code;
}
