/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool member: members that come and go. `add` and `replace` ask the daemon what the new member has to be like, look
 * at the disk, format it and have the daemon mount the pool with it; a stop anywhere on the way leaves the pool as it was,
 * or a formatted disk that joins with the next start. */
#include "ask.h"
#include "format.h"
#include "out.h"

#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define JOIN_PATIENCE_S 60 /* a clean stop and a mount take about a second; a stuck disk holds them for half a minute */
#define LOOK_AGAIN_US 200000

/* --- what needs a name only --- */

struct remove_how { bool when_empty, lost, dry_run; };

static void set_when_empty(void *owner, const char *value)
{
    (void)value;
    ((struct remove_how *)owner)->when_empty = true;
}

static void set_lost(void *owner, const char *value)
{
    (void)value;
    ((struct remove_how *)owner)->lost = true;
}

static void set_dry_run(void *owner, const char *value)
{
    (void)value;
    ((struct remove_how *)owner)->dry_run = true;
}

static int member_do(struct tool *t, const char *command, const char *name, bool when_empty, const char *said)
{
    struct doc *request = doc_object(), *answer;
    doc_set_text(request, "name", name);
    doc_set_bool(request, "when_empty", when_empty);
    int code = ask_for(t, command, request, &answer);
    if (code != TOOL_DONE)
        return code;
    if (t->json)
        doc_print(answer, stdout);
    else
        printf("%s: %s\n", name, said);
    doc_free(&answer);
    return TOOL_DONE;
}

static int one_name(struct tool *t, int argc, char **argv, const struct tool_option *options, void *owner)
{
    int words = tool_options(t, argc, argv, options, owner);
    return words == 1  ? TOOL_DONE
           : words < 0 ? TOOL_USAGE
           : words < 1 ? tool_usage(t, "the name of a member is needed")
                       : tool_usage(t, "\"%s\" is not expected here", argv[1]);
}

int cmd_member_evacuate(struct tool *t, int argc, char **argv)
{
    int code = one_name(t, argc, argv, NULL, NULL);
    return code != TOOL_DONE ? code
                             : member_do(t, "member-evacuate", argv[0], false,
                                         "its images move to the other members, over restarts, too; follow it: spooltool "
                                         "members; then: spooltool member remove");
}

int cmd_member_clear(struct tool *t, int argc, char **argv)
{
    int code = one_name(t, argc, argv, NULL, NULL);
    return code != TOOL_DONE ? code : member_do(t, "member-clear", argv[0], false, "back in service");
}

/* What would be lost is asked first, so that it can be said by whoever does it. */
static int member_give_up(struct tool *t, const char *name, bool dry_run)
{
    struct doc *loss = NULL, *done = NULL;
    for (uint32_t n = 0; n < (dry_run ? 1u : 2u); n++) {
        struct doc *request = doc_object();
        doc_set_text(request, "name", name);
        doc_set_bool(request, "lost", true);
        doc_set_bool(request, "dry_run", n == 0);
        int code = ask_for(t, "member-remove", request, n == 0 ? &loss : &done);
        if (code != TOOL_DONE) {
            doc_free(&loss);
            return code;
        }
    }
    unsigned long long messages = doc_count(loss, "messages_lost"), segments = doc_count(loss, "segments_unknown");
    doc_set_bool(loss, "done", !dry_run);
    if (t->json)
        doc_print(loss, stdout);
    else if (dry_run)
        printf("%s: nothing was done; with it %llu messages are lost that have no image on another member\n", name, messages);
    else
        printf("%s: given up and removed for good; %llu messages are lost: spooltool events names them, their senders are told\n",
               name, messages);
    if (!t->json && segments)
        printf("%s: %llu segments %s lost of which the index does not know what is in them\n", name, segments,
               dry_run ? "would be" : "are");
    if (done)
        doc_free(&done);
    doc_free(&loss);
    return TOOL_DONE;
}

int cmd_member_remove(struct tool *t, int argc, char **argv)
{
    struct remove_how how = {0};
    const struct tool_option options[] = {{"when-empty", false, set_when_empty}, {"lost", false, set_lost},
                                          {"dry-run", false, set_dry_run}, {NULL, false, NULL}};
    int code = one_name(t, argc, argv, options, &how);
    if (code != TOOL_DONE)
        return code;
    if (how.lost && how.when_empty)
        return tool_usage(t, "--lost and --when-empty exclude each other: what never comes back is not emptied");
    if (how.dry_run && !how.lost)
        return tool_usage(t, "--dry-run goes with --lost");
    if (how.lost)
        return member_give_up(t, argv[0], how.dry_run);
    return member_do(t, "member-remove", argv[0], how.when_empty,
                     how.when_empty ? "it is removed as soon as no mail needs it; follow it: spooltool members"
                                : "taken out of the pool for good; now take its member section out of the configuration");
}

/* --- add and replace --- */

static const struct tool_option add_options[] = {
    {"size", true, format_set_size}, {"force", true, format_set_force}, {"dry-run", false, format_set_dry_run},
    {NULL, false, NULL},
};

static int member_of_config(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->pool.member_count; i++)
        if (strcmp(config->pool.members[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* What the daemon says the new member has to be like. */
static int add_prepare(struct format *f, uint32_t i, const char *old, struct pool_candidate *candidate)
{
    const struct pool_member_config *m = &f->pool.members[i];
    struct doc *request = doc_object(), *answer;
    doc_set_text(request, "name", m->name);
    doc_set_text(request, "replaces", old ? old : "");
    int code = ask_for(f->tool, "member-prepare", request, &answer);
    if (code != TOOL_DONE)
        return code;
    *candidate = (struct pool_candidate){.segment_bytes = doc_count(answer, "segment_bytes"), .member = *m,
                                         .copies = (uint32_t)doc_count(answer, "copies")};
    bool good = uuid_parse(doc_text(answer, "pool"), &candidate->pool) == ERR_OK;
    if (good && *doc_text(answer, "replaces"))
        good = uuid_parse(doc_text(answer, "replaces"), &candidate->replaces) == ERR_OK;
    if (!good)
        code = tool_say(TOOL_FAILED, "the daemon's answer makes no sense: is it of this version?");
    else if (strcmp(doc_text(answer, "path"), m->path) != 0)
        code = tool_say(TOOL_FAILED, "member \"%s\": the running daemon has another path for it (%s): systemctl reload ironspool",
                        m->name, doc_text(answer, "path"));
    f->segment_bytes = candidate->segment_bytes;
    f->segment_of_pool = true;
    if (!f->size_given)
        f->size = doc_count(answer, "member_bytes");
    doc_free(&answer);
    return code;
}

static int add_format(struct format *f, uint32_t i, const struct pool_candidate *candidate)
{
    const char *why = "";
    struct io *io = NULL;
    enum err e = format_open(f, &io);
    if (e == ERR_OK) {
        e = pool_format_candidate(io, (uint16_t)i, candidate, &f->options, &why);
        if (e != ERR_OK)
            tool_say(0, "%s", *why ? why : err_text(e));
        format_close(f, &io, e != ERR_OK);
    }
    return e == ERR_OK ? TOOL_DONE : e == ERR_DENIED ? TOOL_DENIED : TOOL_FAILED;
}

static bool member_is_in(struct tool *t, const char *name, bool *spare_out)
{
    struct doc *s = NULL;
    bool in = false;
    tool_hush(true); /* the spool process is replaced meanwhile */
    int code = ask_wait_daemon(t) ? ask_for(t, "status", NULL, &s) : TOOL_UNREACHABLE;
    tool_hush(false);
    if (code != TOOL_DONE)
        return false;
    for (size_t k = 0; k < doc_length(s, "members") && doc_true(s, "pool.mounted"); k++) {
        const struct doc *m = doc_item(s, "members", k);
        const char *state = doc_text(m, "state");
        if (strcmp(doc_text(m, "name"), name) == 0 && strcmp(state, "absent") != 0 && strcmp(state, "removed") != 0)
            in = true;
        if (in && strcmp(doc_text(m, "name"), name) == 0)
            *spare_out = strcmp(state, "spare") == 0;
    }
    doc_free(&s);
    return in;
}

static int add_join(struct tool *t, const char *name, const char *old)
{
    struct doc *request = doc_object(), *answer;
    bool spare = false;
    doc_set_text(request, "name", name);
    int code = ask_for(t, "member-join", request, &answer);
    if (code != TOOL_DONE)
        return code;
    doc_free(&answer);
    time_t until = time(NULL) + JOIN_PATIENCE_S;
    while (!member_is_in(t, name, &spare)) {
        if (time(NULL) > until)
            return tool_say(TOOL_FAILED, "member \"%s\" is formatted and did not join; it does with the next start, or spooltool "
                            "events says why not", name);
        usleep(LOOK_AGAIN_US);
    }
    if (t->json) {
        struct doc *d = doc_object();
        doc_set_text(d, "joined", name);
        doc_set_text(d, "replaces", old ? old : "");
        doc_set_bool(d, "spare", spare);
        doc_print(d, stdout);
        doc_free(&d);
    } else if (old) {
        printf("%s: in the pool, in the place of \"%s\", which is removed when no mail needs it; follow it: spooltool rebuild "
               "status\n", name, old);
    } else {
        printf("%s: in the pool%s\n", name, spare ? " as a spare" : "");
    }
    return TOOL_DONE;
}

static void add_told_dry(const struct format *f, uint32_t i, const char *old)
{
    const struct pool_member_config *m = &f->pool.members[i];
    if (!f->tool->json) {
        printf("%s: nothing was written: without --dry-run %s is formatted and put into the pool\n", m->name, m->path);
        return;
    }
    struct doc *d = doc_object();
    doc_set_bool(d, "dry_run", true);
    doc_set_text(d, "name", m->name);
    doc_set_text(d, "replaces", old ? old : "");
    doc_set_text(d, "path", m->path);
    doc_set_count(d, "bytes", format_member_bytes(f, i));
    doc_set_text(d, "failure_domain", m->domain[0] ? m->domain : f->probes[i].domain);
    doc_print(d, stdout);
    doc_free(&d);
}

static int add_run(struct format *f, const char *name, const char *old)
{
    struct pool_candidate candidate;
    int i = member_of_config(tool_config(f->tool), name);
    if (i < 0)
        return tool_say(TOOL_NOT_FOUND, "%s has no member \"%s\": write member \"%s\" { path = \"...\" } into pool { }, then: "
                        "systemctl reload ironspool", f->tool->config_path, name, name);
    f->wanted_mask = 1u << i;
    int code = add_prepare(f, (uint32_t)i, old, &candidate);
    if (code != TOOL_DONE)
        return code;
    if ((code = format_look(f)) != TOOL_DONE)
        return code;
    if (f->dry_run) {
        add_told_dry(f, (uint32_t)i, old);
        return TOOL_DONE;
    }
    code = add_format(f, (uint32_t)i, &candidate);
    return code == TOOL_DONE ? add_join(f->tool, name, old) : code;
}
static int add(struct tool *t, int argc, char **argv, bool replace)
{
    struct format *f = calloc(1, sizeof *f);
    const struct config *config = tool_config(t);
    char command[2 * MEMBER_NAME_BYTES + 32];
    int code = TOOL_FAILED;
    if (!f || !config)
        goto out;
    *f = (struct format){.tool = t, .command = command, .pool = config->pool, .engine = config->io_engine};
    int words = tool_options(t, argc, argv, add_options, f);
    if (words < 0 || f->bad_option)
        code = words < 0 ? TOOL_USAGE : tool_usage(t, "a size is a number with K, M, G or T");
    else if (words < 1 || words > 1 + replace)
        code = words < 1 ? tool_usage(t, "the name of a member is needed")
                         : tool_usage(t, "\"%s\" is not expected here", argv[1 + replace]);
    else {
        const char *name = argv[words - 1], *old = replace ? argv[0] : NULL;
        snprintf(command, sizeof command, "member %s %.32s%s%.32s", replace ? "replace" : "add", argv[0], words > 1 ? " " : "",
                 words > 1 ? argv[1] : "");
        code = add_run(f, name, old);
    }
out:
    free(f);
    return code;
}

int cmd_member_add(struct tool *t, int argc, char **argv) { return add(t, argc, argv, false); }
int cmd_member_replace(struct tool *t, int argc, char **argv) { return add(t, argc, argv, true); }
