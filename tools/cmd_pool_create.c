/* SPDX-License-Identifier: Apache-2.0 */
/* spooltool pool create: looks at every member first and refuses with its name and the next step; only when all may be
 * formatted does it touch the first. A dry run ends before the first touch. */
#include "doc.h"
#include "member_open.h"
#include "out.h"
#include "tool.h"

#include "config.h"

#include <errno.h>
#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>
#include <spoolfs/probe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE_DEFAULT (1 * GIB)
#define CALIBRATE_OFFSET (64 * KIB) /* the first slot: behind the superblocks, and zeroed afterwards or never read */

struct create {
    struct tool *tool;
    struct pool_config pool;     /* a copy of the configuration's */
    enum io_engine engine;
    uint64_t size, segment_bytes;
    bool size_given, dry_run, bad_option;
    const char *force[MEMBERS_MAX];
    uint32_t force_count;
    struct probe probes[MEMBERS_MAX];
    bool make[MEMBERS_MAX];      /* a file to be made or made anew */
    struct io_real_member opened[MEMBERS_MAX];
    uint32_t dsync_us[MEMBERS_MAX], flush_us[MEMBERS_MAX];
    struct pool_create_options options;
};

static void set_size(void *owner, const char *value)
{
    struct create *c = owner;
    c->size_given = true;
    c->bad_option |= tool_bytes(value, &c->size) != ERR_OK;
}

static void set_segment_size(void *owner, const char *value)
{
    struct create *c = owner;
    if (strcmp(value, "auto") != 0)
        c->bad_option |= tool_bytes(value, &c->segment_bytes) != ERR_OK;
}

static void set_force(void *owner, const char *value)
{
    struct create *c = owner;
    if (c->force_count < MEMBERS_MAX)
        c->force[c->force_count++] = value;
}

static void set_dry_run(void *owner, const char *value)
{
    (void)value;
    ((struct create *)owner)->dry_run = true;
}

static const struct tool_option create_options[] = {
    {"size", true, set_size}, {"segment-size", true, set_segment_size}, {"force", true, set_force},
    {"dry-run", false, set_dry_run}, {NULL, false, NULL},
};

static bool forced(const struct create *c, uint32_t i)
{
    for (uint32_t f = 0; f < c->force_count; f++)
        if (strcmp(c->force[f], c->pool.members[i].name) == 0)
            return true;
    return false;
}

/* --- look --- */

static bool refuse_device(const struct create *c, uint32_t i)
{
    const struct pool_member_config *m = &c->pool.members[i];
    const struct probe *p = &c->probes[i];
    if (p->mounted)
        tool_say(0, "member \"%s\": %s is mounted; if its contents may go: umount %s", m->name, m->path, m->path);
    else if (p->in_use)
        tool_say(0, "member \"%s\": %s is in use; see by whom: lsblk %s", m->name, m->path, m->path);
    else
        return false;
    return true;
}

static bool refuse_contents(const struct create *c, uint32_t i)
{
    const struct pool_member_config *m = &c->pool.members[i];
    const struct probe *p = &c->probes[i];
    if (forced(c, i) || (!p->signature[0] && !(p->is_file && p->bytes > 0)))
        return false;
    if (strcmp(p->signature, "ironspool") == 0)
        tool_say(0, "member \"%s\": %s is a member of an Ironspool pool already; look at it with: spooltool pool check; "
                 "if its mail may be destroyed: spooltool pool create --force=%s", m->name, m->path, m->name);
    else if (p->signature[0])
        tool_say(0, "member \"%s\": %s carries a signature (%s); if its contents may be destroyed: "
                 "spooltool pool create --force=%s", m->name, m->path, p->signature, m->name);
    else
        tool_say(0, "member \"%s\": %s exists and is not empty; if its contents may be destroyed: "
                 "spooltool pool create --force=%s", m->name, m->path, m->name);
    return true;
}

static bool refuse_missing(const struct create *c, uint32_t i, enum err e)
{
    const struct pool_member_config *m = &c->pool.members[i];
    const struct probe *p = &c->probes[i];
    if (e == ERR_NOT_FOUND && strncmp(m->path, "/dev/", 5) == 0)
        tool_say(0, "member \"%s\": there is no device %s; those that are here: ls -l /dev/disk/by-id", m->name, m->path);
    else if (e == ERR_NOT_FOUND && !p->domain[0])
        tool_say(0, "member \"%s\": the directory of %s does not exist; make it, on the disk that shall carry it", m->name,
                 m->path);
    else if (e == ERR_DENIED)
        tool_say(0, "member \"%s\": %s may not be opened by this user; run as root", m->name, m->path);
    else if (e == ERR_OK && !p->is_block && !p->is_file)
        tool_say(0, "member \"%s\": %s is neither a block device nor a file", m->name, m->path);
    else if (e != ERR_OK && e != ERR_NOT_FOUND)
        tool_say(0, "member \"%s\": %s: %s", m->name, m->path, err_text(e));
    else
        return false;
    return true;
}

static bool refuse_shared(const struct create *c, uint32_t i)
{
    for (uint32_t k = 0; k < i && !c->pool.share_disk && !forced(c, i); k++) {
        if (!c->probes[i].domain[0] || strcmp(c->probes[i].domain, c->probes[k].domain) != 0)
            continue;
        tool_say(0, "members \"%s\" and \"%s\" lie on one disk (%s): its death would take both images of a message; use "
                 "another disk; for a demonstration say share_disk = yes in pool { }; if the failure domains you configured "
                 "are the truth: --force=%s",
                 c->pool.members[k].name, c->pool.members[i].name, c->probes[i].domain, c->pool.members[i].name);
        return true;
    }
    return false;
}

static uint64_t member_bytes(const struct create *c, uint32_t i)
{
    const struct probe *p = &c->probes[i];
    bool keep = p->is_block || (!c->size_given && p->exists && p->bytes > 0);
    return keep ? p->bytes : c->size;
}

/* The engine refuses this too, but only after files were made or emptied. */
static bool refuse_small(const struct create *c, uint32_t i)
{
    uint64_t least = SLOTS_PER_MEMBER_MIN * (c->segment_bytes ? c->segment_bytes : SEGMENT_BYTES_MIN) + 2 * MIB;
    char has[OUT_TEXT], needs[OUT_TEXT];
    if (member_bytes(c, i) >= least)
        return false;
    tool_say(0, "member \"%s\": %s is too small for %u segments, it takes %s: choose a larger --size%s",
             c->pool.members[i].name, out_bytes(member_bytes(c, i), has), SLOTS_PER_MEMBER_MIN, out_bytes(least, needs),
             c->segment_bytes ? " or a smaller --segment-size" : "");
    return true;
}

/* Says everything that is wrong, not only the first. */
static bool look(struct create *c)
{
    bool refused = false;
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        enum err e = probe_path(c->pool.members[i].path, &c->probes[i]);
        if (refuse_missing(c, i, e) || refuse_device(c, i) || refuse_contents(c, i) || refuse_shared(c, i) ||
            refuse_small(c, i)) {
            refused = true;
            continue;
        }
        if (c->probes[i].copy_on_write)
            tool_say(0, "member \"%s\": %s is on a copy-on-write file system; before it is filled, in its directory: "
                     "chattr +C .", c->pool.members[i].name, c->pool.members[i].path);
        c->make[i] = !c->probes[i].is_block;
    }
    for (uint32_t f = 0; f < c->force_count; f++) {
        bool known = false;
        for (uint32_t i = 0; i < c->pool.member_count; i++)
            known |= strcmp(c->force[f], c->pool.members[i].name) == 0;
        if (!known) {
            tool_say(0, "--force=%s: the configuration has no such member", c->force[f]);
            refused = true;
        }
    }
    return !refused;
}

/* --- touch --- */

static enum err open_members(struct create *c)
{
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        errno = 0;
        enum err e = c->make[i] ? member_make(m->path, member_bytes(c, i), &c->opened[i].fd)
                                : member_open(m->path, &c->opened[i].fd);
        c->opened[i].path = m->path;
        if (e == ERR_BUSY)
            tool_say(0, "member \"%s\": %s is in use by a running Ironspool; stop it first: systemctl stop ironspool",
                     m->name, m->path);
        else if (e == ERR_MEMBER_FULL)
            tool_say(0, "member \"%s\": no room for %s; see: df -h %s; or choose a smaller --size", m->name, m->path, m->path);
        else if (e != ERR_OK)
            tool_say(0, "member \"%s\": %s: %s%s%s", m->name, m->path, err_text(e), errno ? ": " : "",
                     errno ? strerror(errno) : "");
        if (e != ERR_OK) {
            c->opened[i].fd = -1;
            return e;
        }
    }
    return ERR_OK;
}

static void progress(void *owner, uint32_t member, uint64_t done, uint64_t total)
{
    const struct create *c = owner;
    char what[MEMBER_NAME_BYTES + 32];
    snprintf(what, sizeof what, "zero-writing member \"%s\"", c->pool.members[member].name);
    if (total > 2 * MIB) /* the ends of a device are not worth a line */
        out_progress(what, done + FRAME_BYTES_MAX < total ? done : total, total);
}

static enum err format(struct create *c, struct io *io, struct uuid *pool_out)
{
    const char *text = "";
    for (uint16_t i = 0; i < c->pool.member_count; i++) {
        enum err e = io_real_calibrate(io, i, CALIBRATE_OFFSET, &c->options.durable_by[i], &c->dsync_us[i], &c->flush_us[i]);
        if (e != ERR_OK) {
            tool_say(0, "member \"%s\": 32 durable writes failed: %s; look at: dmesg", c->pool.members[i].name, err_text(e));
            return e;
        }
        c->options.zero[i] = c->make[i];
    }
    c->options.segment_bytes = c->segment_bytes;
    c->options.progress = progress;
    c->options.progress_owner = c;
    enum err e = pool_create(io, &c->pool, &c->options, pool_out, &text);
    if (e != ERR_OK)
        tool_say(0, "%s", *text ? text : err_text(e));
    return e;
}

/* --- tell --- */

static void tell_text(const struct create *c, const char *uuid)
{
    static const char *const columns[] = {"MEMBER", "PATH", ">SIZE", "FAILURE DOMAIN", ">O_DSYNC", ">FLUSH", "USES", NULL};
    struct out_table *t = out_table(columns);
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        char size[OUT_TEXT], dsync[OUT_TEXT], flush[OUT_TEXT];
        bool measured = uuid != NULL;
        const char *cells[] = {m->name, m->path, out_bytes(member_bytes(c, i), size),
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

static void tell_json(const struct create *c, const char *uuid)
{
    struct doc *d = doc_object(), *members = doc_array();
    doc_set_text(d, "pool", uuid ? uuid : "");
    doc_set_bool(d, "dry_run", c->dry_run);
    for (uint32_t i = 0; i < c->pool.member_count; i++) {
        const struct pool_member_config *m = &c->pool.members[i];
        struct doc *one = doc_object();
        doc_set_text(one, "name", m->name);
        doc_set_text(one, "path", m->path);
        doc_set_count(one, "bytes", member_bytes(c, i));
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

static int create_run(struct create *c)
{
    char text[UUID_TEXT];
    struct uuid pool;
    struct io *io = NULL;
    const char *why = "";
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        c->opened[i].fd = -1;
    enum err e = open_members(c);
    if (e == ERR_OK) {
        e = io_real_open(c->engine, c->opened, c->pool.member_count, &io, &why);
        if (e != ERR_OK)
            tool_say(0, "the members could not be opened for I/O: %s (%s)", err_text(e), why);
    }
    for (uint32_t i = 0; i < MEMBERS_MAX && !io; i++)
        if (c->opened[i].fd >= 0)
            close(c->opened[i].fd);
    if (e == ERR_OK)
        e = format(c, io, &pool);
    if (io)
        io_real_close(&io);
    for (uint32_t i = 0; i < c->pool.member_count && e != ERR_OK; i++)
        if (c->opened[i].path && c->make[i] && !c->probes[i].exists)
            unlink(c->pool.members[i].path); /* made by us a moment ago, and no member */
    if (e != ERR_OK)
        return e == ERR_DENIED ? TOOL_DENIED : TOOL_FAILED;
    uuid_print(pool, text);
    (c->tool->json ? tell_json : tell_text)(c, text);
    return TOOL_DONE;
}

int cmd_pool_create(struct tool *t, int argc, char **argv)
{
    struct create *c = calloc(1, sizeof *c);
    const struct config *config = tool_config(t);
    int code = TOOL_FAILED;
    if (!c || !config)
        goto out;
    *c = (struct create){.tool = t, .pool = config->pool, .engine = config->io_engine, .size = SIZE_DEFAULT};
    int words = tool_options(t, argc, argv, create_options, c);
    if (words < 0) {
        code = TOOL_USAGE;
    } else if (words > 0 || c->bad_option) {
        code = words > 0 ? tool_usage(t, "\"%s\" is not expected here", argv[0])
                         : tool_usage(t, "a size is a number with K, M, G or T");
    } else if (c->pool.member_count == 0) {
        tool_say(0, "%s configures no member: pool { member \"a\" { path = \"...\" } ... }", t->config_path);
    } else if (look(c)) {
        if (!c->dry_run)
            code = create_run(c);
        else {
            (t->json ? tell_json : tell_text)(c, NULL);
            code = TOOL_DONE;
        }
    }
out:
    free(c);
    return code;
}
