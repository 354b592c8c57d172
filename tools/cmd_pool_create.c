/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool pool create: formats the configured members as a new pool. What is refused: format.c. A dry run ends before
 * the first touch. */
#include "doc.h"
#include "format.h"
#include "out.h"

#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_DEFAULT (1 * GIB)

static const struct tool_option create_options[] = {
    {"size", true, format_set_size}, {"segment-size", true, format_set_segment_size}, {"force", true, format_set_force},
    {"dry-run", false, format_set_dry_run}, {NULL, false, NULL},
};

/* --- tell --- */

static void tell_text(const struct format *c, const char *uuid)
{
    static const char *const columns[] = {"MEMBER", "PATH", ">SIZE", "FAILURE DOMAIN", ">O_DSYNC", ">FLUSH", "USES", NULL};
    struct out_table *t = out_table(columns);
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        char size[OUT_TEXT], dsync[OUT_TEXT], flush[OUT_TEXT];
        bool measured = uuid != NULL;
        const char *cells[] = {m->name, m->path, out_bytes(format_member_bytes(c, i), size),
                               m->domain[0] ? m->domain : c->probes[i].domain,
                               out_latency(measured ? c->dsync_us[i] * 1e-6 : 0, dsync),
                               out_latency(measured ? c->flush_us[i] * 1e-6 : 0, flush),
                               !measured ? "" : c->options.durable_by[i] == IO_DURABLE_DSYNC ? "O_DSYNC" : "flush"};
        out_row(t, cells);
    }
    out_table_print(&t);
    if (uuid)
        printf("\npool %s is made: %u members, %u copies.  Next: ironspoold -c %s\n", uuid, c->pool.member_count,
               c->pool.copies, c->tool->config_path);
    else
        printf("\nnothing was written: without --dry-run these members are formatted\n");
}

static void tell_json(const struct format *c, const char *uuid)
{
    struct doc *d = doc_object(), *members = doc_array();
    doc_set_text(d, "pool", uuid ? uuid : "");
    doc_set_bool(d, "dry_run", c->dry_run);
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        struct doc *one = doc_object();
        doc_set_text(one, "name", m->name);
        doc_set_text(one, "path", m->path);
        doc_set_count(one, "bytes", format_member_bytes(c, i));
        doc_set_text(one, "failure_domain", m->domain[0] ? m->domain : c->probes[i].domain);
        if (uuid) {
            doc_set_text(one, "durable_by", c->options.durable_by[i] == IO_DURABLE_DSYNC ? "dsync" : "flush");
            doc_set_count(one, "dsync_p50_us", c->dsync_us[i]);
            doc_set_count(one, "flush_p50_us", c->flush_us[i]);
        }
        doc_append(members, one);
    }
    doc_set(d, "members", members);
    doc_print(d, stdout);
    doc_free(&d);
}

static int create_run(struct format *c)
{
    char text[UUID_TEXT];
    struct uuid pool;
    struct io *io = NULL;
    const char *why = "";
    enum err e = format_open(c, &io);
    if (e == ERR_OK) {
        e = pool_create(io, &c->pool, &c->options, &pool, &why);
        if (e != ERR_OK)
            tool_say(0, "%s", *why ? why : err_text(e));
        format_close(c, &io, e != ERR_OK);
    }
    if (e != ERR_OK)
        return e == ERR_DENIED ? TOOL_DENIED : TOOL_FAILED;
    uuid_print(pool, text);
    (c->tool->json ? tell_json : tell_text)(c, text);
    return TOOL_DONE;
}

int cmd_pool_create(struct tool *t, int argc, char **argv)
{
    struct format *c = calloc(1, sizeof *c);
    const struct config *config = tool_config(t);
    int code = TOOL_FAILED;
    if (!c || !config)
        goto out;
    *c = (struct format){.tool = t, .command = "pool create", .pool = config->pool, .engine = config->io_engine,
                         .size = SIZE_DEFAULT, .wanted_mask = (1u << config->pool.member_count) - 1};
    int words = tool_options(t, argc, argv, create_options, c);
    if (words < 0) {
        code = TOOL_USAGE;
    } else if (words > 0 || c->bad_option) {
        code = words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0])
                         : tool_usage(t, "a size is a number with K, M, G or T");
    } else if (c->pool.member_count == 0) {
        tool_say(0, "%s configures no member: pool { member \"a\" { path = \"...\" } ... }", t->config_path);
    } else if ((code = format_look(c)) == TOOL_DONE) {
        if (!c->dry_run)
            code = create_run(c);
        else
            (t->json ? tell_json : tell_text)(c, NULL);
    }
out:
    free(c);
    return code;
}
