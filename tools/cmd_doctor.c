/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool doctor: looks over what stands around the daemon, whether it runs or not: the configuration, the members'
 * paths, the state directory, the control socket. Opens nothing for writing. */
#include "ask.h"
#include "out.h"

#include "config.h"

#include <spoolfs/probe.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define STATE_FREE_MIN (256 * MIB) /* the index of a million messages */

struct doctor {
    struct tool *tool;
    struct out_table *table;
    struct doc *looks;
    int code;
};

static void look(struct doctor *d, int code, const char *subject, const char *found, const char *next)
{
    const char *verdict = code == TOOL_DONE ? "ok" : code == TOOL_ATTENTION ? "attention" : "wrong";
    if (d->tool->json) {
        struct doc *one = doc_object();
        doc_set_text(one, "subject", subject);
        doc_set_text(one, "verdict", verdict);
        doc_set_text(one, "found", found);
        doc_set_text(one, "next", next);
        doc_append(d->looks, one);
    } else {
        out_row(d->table, (const char *const[]){subject, verdict, found, next});
    }
    if (code != TOOL_DONE && (d->code == TOOL_DONE || d->code == TOOL_ATTENTION))
        d->code = code;
}

static void look_at_member(struct doctor *d, const struct pool_member_config *m)
{
    struct probe p;
    char subject[64], found[512], size[OUT_TEXT];
    snprintf(subject, sizeof subject, "member %s", m->name);
    enum err e = probe_path(m->path, &p);
    if (e != ERR_OK) {
        snprintf(found, sizeof found, "%s: %s", m->path, err_text(e));
        if (e == ERR_DENIED)
            look(d, TOOL_DENIED, subject, found, "run as root");
        else
            look(d, TOOL_FAILED, subject, found, "check the disk and the path");
        return;
    }
    snprintf(found, sizeof found, "%s, %s%s%s on %s", m->path, out_bytes(p.bytes, size), p.serial[0] ? ", serial " : "",
             p.serial, m->domain[0] ? m->domain : p.domain);
    if (strcmp(p.signature, "ironspool") != 0)
        look(d, TOOL_FAILED, subject, found, "no member: is it the right path? A new pool of all members: spooltool pool create");
    else if (p.mounted)
        look(d, TOOL_FAILED, subject, found, "it is mounted as a file system: umount it");
    else
        look(d, TOOL_DONE, subject, found, "");
}

static void look_at_state(struct doctor *d, const struct config *c)
{
    struct statvfs v;
    char found[320], size[OUT_TEXT];
    if (statvfs(c->state_directory, &v) != 0) {
        snprintf(found, sizeof found, "%s is not there", c->state_directory);
        look(d, TOOL_FAILED, "state_directory", found, "make it; the daemon makes it at its start when it may");
        return;
    }
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    snprintf(found, sizeof found, "%s, %s free", c->state_directory, out_bytes(room, size));
    look(d, room < STATE_FREE_MIN ? TOOL_ATTENTION : TOOL_DONE, "state_directory", found,
         room < STATE_FREE_MIN ? "the index needs room: without it the queue is not shown whole and new mail is refused with 451" : "");
}

static void look_at_daemon(struct doctor *d)
{
    struct doc *s;
    char found[320];
    int code = ask_for(d->tool, "status", NULL, &s);
    if (code != TOOL_DONE) {
        look(d, code, "daemon", "does not answer", "systemctl status ironspool; journalctl -u ironspool -n 50");
        return;
    }
    snprintf(found, sizeof found, "version %s, pool is %s, %s I/O", doc_text(s, "version"), doc_text(s, "pool.state"),
             doc_text(s, "io_engine"));
    code = status_exit(s);
    look(d, code, "daemon", found, code == TOOL_DONE ? "" : "spooltool diagnose");
    if (strcmp(doc_text(s, "version"), IRONSPOOL_VERSION) != 0)
        look(d, TOOL_ATTENTION, "version", "the daemon is of another version than spooltool " IRONSPOOL_VERSION,
             "systemctl restart ironspool");
    doc_free(&s);
}

int cmd_doctor(struct tool *t, int argc, char **argv)
{
    static const char *const columns[] = {"SUBJECT", "VERDICT", "FOUND", "NEXT", NULL};
    struct doctor d = {.tool = t};
    int words = tool_options(t, argc, argv, NULL, NULL);
    if (words != 0)
        return words < 0 ? TOOL_USAGE : tool_usage(t, "\"%s\" is not expected here", argv[0]);
    const struct config *c = tool_config(t);
    if (!c)
        return TOOL_FAILED;
    if (t->json)
        d.looks = doc_array();
    else
        d.table = out_table(columns);
    look(&d, TOOL_DONE, "configuration", t->config_path, "");
    for (uint32_t i = 0; i < c->pool.member_count; i++)
        look_at_member(&d, &c->pool.members[i]);
    look_at_state(&d, c);
    look_at_daemon(&d);
    if (t->json) {
        struct doc *all = doc_object();
        doc_set_count(all, "schema", 1);
        doc_set(all, "looks", d.looks);
        doc_print(all, stdout);
        doc_free(&all);
    } else {
        out_table_print(&d.table);
    }
    return d.code;
}
