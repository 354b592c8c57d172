/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool pool check: with the daemon down, every image of every segment is read and verified; nothing is written.
 * The report is by place and, for what is lost, by message. Exit: 0 sound, 11 repairable, or something waits for a member that is
 * away, 12 something is lost. */
#include "doc.h"
#include "out.h"
#include "tool.h"

#include "config.h"
#include "members_open.h"

#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FINDINGS_SHOWN_MAX 10000u /* kept for the report; all are counted */

struct check {
    struct tool *tool;
    struct pool_config pool;
    struct members_open opened;
    struct doc *findings, *events;
    uint32_t shown;
    struct pool_check_totals totals;
    char uuid[UUID_TEXT], away[1024]; /* away: the members that something waits for */
    uint32_t members_here;
};

/* Mounting reports more than that, but only what a check that writes nothing can stand for, and no finding says. */
static bool check_event_counts(enum event_kind kind)
{
    return kind == EVENT_pool_diverged || kind == EVENT_member_foreign || kind == EVENT_member_stale ||
           kind == EVENT_message_conflict || kind == EVENT_record_lost || kind == EVENT_flush_lied;
}

static void check_event(void *owner, const struct event *e)
{
    struct check *c = owner;
    if (!check_event_counts(e->kind))
        return;
    struct doc *one = doc_object();
    doc_set_text(one, "event", event_name(e->kind));
    doc_set_text(one, "severity", event_severity(e->kind));
    doc_set_text(one, "member", e->member);
    doc_set_text(one, "serial", e->serial);
    doc_set_text(one, "evidence", e->evidence);
    doc_append(c->events, one);
}

/* Each once, for the last lines. */
static void check_note_away(struct check *c, const struct doc *member)
{
    const char *name = doc_text(member, "member"), *uuid = doc_text(member, "uuid"), *serial = doc_text(member, "serial");
    char one[160];
    snprintf(one, sizeof one, "\"%s\" (uuid %s%s%s)", name, uuid, *serial ? ", serial " : "", serial);
    size_t used = strlen(c->away);
    if (!strstr(c->away, one))
        snprintf(c->away + used, sizeof c->away - used, "%s%s", used ? ", " : "", one);
}

static void check_found(void *owner, const struct pool_check_finding *f)
{
    struct check *c = owner;
    char text[QUEUE_ID_TEXT] = "", segment[48] = "";
    if (c->shown++ >= FINDINGS_SHOWN_MAX)
        return;
    if (!queue_id_is_none(f->qid))
        queue_id_print(f->qid, text);
    if (!segment_id_is_none(f->segment))
        snprintf(segment, sizeof segment, "%016llx.%llu", (unsigned long long)f->segment.incarnation,
                 (unsigned long long)f->segment.counter);
    struct doc *one = doc_object();
    doc_set_text(one, "member", f->member ? f->member : "");
    doc_set_text(one, "segment", segment);
    doc_set_count(one, "offset", f->offset);
    doc_set_text(one, "fault", err_name(f->fault));
    doc_set_text(one, "text", f->text ? f->text : err_text(f->fault));
    doc_set_text(one, "queue_id", text);
    doc_set_bool(one, "lost", f->lost);
    struct doc *waits = doc_array();
    for (uint32_t i = 0; i < f->waits_count; i++) {
        char uuid[UUID_TEXT];
        struct doc *m = doc_object();
        uuid_print(f->waits_for[i].uuid, uuid);
        doc_set_text(m, "member", f->waits_for[i].member);
        doc_set_text(m, "uuid", uuid);
        doc_set_text(m, "serial", f->waits_for[i].serial);
        check_note_away(c, m);
        doc_append(waits, m);
    }
    doc_set(one, "waits_for", waits);
    doc_append(c->findings, one);
}

static enum err check_open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                                 struct index **index_out)
{
    struct check *c = owner;
    (void)discard;
    uuid_print(pool, c->uuid);
    return index_mem_open(pool, cb, index_out); /* derived anew from the log: what is on disk is not touched */
}

/* A member that is not there is a finding of the check, not a reason not to check; a locked one is. */
static int check_open_members(struct check *c)
{
    int code = TOOL_DONE;
    bool denied = false;
    members_open(&c->pool, &c->opened);
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        c->members_here += c->opened.members[i].fd >= 0;
        if (c->opened.locked_elsewhere[i])
            code = tool_say(TOOL_FAILED, "member \"%s\" is in use: the daemon runs. A running pool is scrubbed by itself "
                            "(spooltool status); for this check stop it: systemctl stop ironspool", m->name);
        else if (c->opened.members[i].fd < 0)
            tool_say(0, "member \"%s\": %s: %s", m->name, m->path, c->opened.why[i]);
        denied |= c->opened.denied[i];
    }
    /* for root it is a disk that has become read-only: then the others are checked all the same */
    if (code == TOOL_DONE && denied && (c->members_here == 0 || geteuid() != 0))
        code = tool_say(TOOL_DENIED, "a member may not be opened by this user; run as root");
    else if (code == TOOL_DONE && c->members_here == 0)
        code = tool_say(TOOL_FAILED, "no member is there; check the paths in %s, or make a pool: spooltool pool create",
                        c->tool->config_path);
    return code;
}

static enum err check_mounted(struct check *c, struct io *io, const char **text_out)
{
    struct pool *pool;
    enum err e = pool_mount(io, &c->pool, &pool, text_out);
    if (e != ERR_OK)
        return e;
    e = pool_check(pool, c, check_found, &c->totals);
    pool_unmount(&pool);
    *text_out = err_text(e);
    return e;
}

static const char *check_verdict(const struct check *c)
{
    return c->totals.lost ? "data loss" : c->totals.waits ? "waits for a member" : c->totals.faults ? "repairable" : "sound";
}

static void check_tell_json(struct check *c)
{
    const struct pool_check_totals *n = &c->totals;
    struct doc *d = doc_object(), *totals = doc_object();
    doc_set_count(d, "schema", 1);
    doc_set_text(d, "pool", c->uuid);
    doc_set_text(d, "verdict", check_verdict(c));
    doc_set_count(totals, "segments", n->segments);
    doc_set_count(totals, "images", n->images);
    doc_set_count(totals, "frames", n->frames);
    doc_set_count(totals, "records", n->records);
    doc_set_count(totals, "messages", n->messages_live);
    doc_set_count(totals, "bytes", n->bytes);
    doc_set_count(totals, "faults", n->faults);
    doc_set_count(totals, "lost", n->lost);
    doc_set_count(totals, "waits", n->waits);
    doc_set(d, "totals", totals);
    doc_set(d, "findings", c->findings);
    doc_set(d, "events", c->events);
    c->findings = c->events = NULL;
    doc_print(d, stdout);
    doc_free(&d);
}

static void check_tell_findings(const struct check *c)
{
    static const char *const columns[] = {"MEMBER", "SEGMENT", ">OFFSET", "FAULT", "WHAT", "QUEUE ID", "LOST", NULL};
    struct out_table *t = out_table(columns);
    for (size_t i = 0; i < doc_length(c->findings, ""); i++) {
        const struct doc *f = doc_item(c->findings, "", i);
        char offset[OUT_TEXT];
        const char *cells[] = {doc_text(f, "member"), doc_text(f, "segment"), out_count(doc_count(f, "offset"), offset),
                               doc_text(f, "fault"), doc_text(f, "text"), doc_text(f, "queue_id"),
                               doc_true(f, "lost") ? "lost" : doc_length(f, "waits_for") ? "waits" : ""};
        out_row(t, cells);
    }
    out_table_print(&t);
    if (c->shown > FINDINGS_SHOWN_MAX)
        printf("... and %u more\n", c->shown - FINDINGS_SHOWN_MAX);
    putchar('\n');
}

static void check_tell_text(struct check *c)
{
    const struct pool_check_totals *n = &c->totals;
    char bytes[OUT_TEXT], messages[OUT_TEXT], records[OUT_TEXT];
    for (size_t i = 0; i < doc_length(c->events, ""); i++) {
        const struct doc *e = doc_item(c->events, "", i);
        printf("%s: %s %s%s\n", doc_text(e, "severity"), doc_text(e, "event"), doc_text(e, "member"),
               *doc_text(e, "member") ? ":" : "");
        printf("    %s\n", doc_text(e, "evidence"));
    }
    if (c->shown)
        check_tell_findings(c);
    printf("pool %s: %s\n", c->uuid, check_verdict(c));
    printf("  %u of %u members, %llu segments, %llu images, %s records in %s verified; %s messages wait\n", c->members_here,
           c->pool.member_count, (unsigned long long)n->segments, (unsigned long long)n->images,
           out_count(n->records, records), out_bytes(n->bytes, bytes), out_count(n->messages_live, messages));
    if (n->faults)
        printf("  %llu faults, %llu of them without a good copy\n", (unsigned long long)n->faults,
               (unsigned long long)(n->lost + n->waits));
    if (n->waits)
        printf("  %llu of these wait for what is not here: %s\n  next: bring it back and check again; nothing of that is lost before "
               "it was read\n", (unsigned long long)n->waits, c->away);
    if (n->lost)
        puts("  next: docs/runbooks/event-record_lost.md");
    else if (n->faults && !n->waits)
        puts("  next: start the daemon; it repairs from the good images (spooltool members, spooltool events)");
}

int cmd_pool_check(struct tool *t, int argc, char **argv)
{
    const struct config *config = tool_config(t);
    struct check *c = calloc(1, sizeof *c);
    struct io *io = NULL;
    const char *text = "";
    int code = TOOL_FAILED;
    if (!config || !c)
        goto out;
    int words = tool_options(t, argc, argv, NULL, NULL);
    code = words < 0 ? TOOL_USAGE : words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0]) : TOOL_DONE;
    if (code != TOOL_DONE)
        goto out;
    *c = (struct check){.tool = t, .pool = config->pool, .findings = doc_array(), .events = doc_array()};
    c->pool.read_only = true;
    c->pool.sink.owner = c;
    c->pool.sink.emit = check_event;
    c->pool.index.owner = c;
    c->pool.index.open = check_open_index;
    if ((code = check_open_members(c)) != TOOL_DONE)
        goto out;
    enum err e = io_real_open(config->io_engine, c->opened.members, c->opened.count, &io, &text);
    if (e == ERR_OK)
        e = check_mounted(c, io, &text);
    if (e != ERR_OK && e != ERR_CORRUPT && e != ERR_LOST) {
        code = tool_say(TOOL_FAILED, "the pool can not be checked: %s", *text ? text : err_text(e));
        goto out;
    }
    (t->json ? check_tell_json : check_tell_text)(c);
    code = c->totals.lost ? TOOL_LOSS : c->totals.faults ? TOOL_DEGRADED : TOOL_DONE;
out:
    for (uint32_t i = 0; c && !io && i < c->opened.count; i++)
        if (c->opened.members[i].fd >= 0)
            close(c->opened.members[i].fd);
    if (io)
        io_real_close(&io);
    if (c) {
        doc_free(&c->findings);
        doc_free(&c->events);
    }
    free(c);
    return code;
}
