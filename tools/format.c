/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the way of a member from a path of the configuration to an open io: refused with its name and the next step, or
 * opened, made and measured. Nothing is touched before everything was looked at. */
#include "format.h"

#include "member_open.h"
#include "out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void format_set_size(void *owner, const char *value)
{
    struct format *f = owner;
    f->size_given = true;
    f->bad_option |= tool_bytes(value, &f->size) != ERR_OK;
}

void format_set_segment_size(void *owner, const char *value)
{
    struct format *f = owner;
    if (strcmp(value, "auto") != 0)
        f->bad_option |= tool_bytes(value, &f->segment_bytes) != ERR_OK;
}

void format_set_force(void *owner, const char *value)
{
    struct format *f = owner;
    if (f->force_count < MEMBERS_MAX)
        f->force[f->force_count++] = value;
}

void format_set_dry_run(void *owner, const char *value)
{
    (void)value;
    ((struct format *)owner)->dry_run = true;
}

static bool forced(const struct format *f, uint32_t i)
{
    for (uint32_t k = 0; k < f->force_count; k++)
        if (strcmp(f->force[k], f->pool.members[i].name) == 0)
            return true;
    return false;
}

static bool wanted(const struct format *f, uint32_t i)
{
    return (f->wanted_mask >> i) & 1;
}

/* --- look --- */

static bool refuse_device(const struct format *f, uint32_t i)
{
    const struct pool_member_config *m = &f->pool.members[i];
    const struct probe *p = &f->probes[i];
    if (p->mounted)
        tool_say(0, "member \"%s\": %s is mounted; if its contents may go: umount %s", m->name, m->path, m->path);
    else if (p->in_use)
        tool_say(0, "member \"%s\": %s is in use; see by whom: lsblk %s", m->name, m->path, m->path);
    else
        return false;
    return true;
}

static bool refuse_contents(const struct format *f, uint32_t i)
{
    const struct pool_member_config *m = &f->pool.members[i];
    const struct probe *p = &f->probes[i];
    if (forced(f, i) || (!p->signature[0] && !(p->is_file && p->bytes > 0)))
        return false;
    if (strcmp(p->signature, "ironspool") == 0)
        tool_say(0, "member \"%s\": %s is a member of an Ironspool pool already; look at it with: spooltool pool check; "
                 "if its mail may be destroyed: spooltool %s --force=%s", m->name, m->path, f->command, m->name);
    else if (p->signature[0])
        tool_say(0, "member \"%s\": %s carries a signature (%s); if its contents may be destroyed: "
                 "spooltool %s --force=%s", m->name, m->path, p->signature, f->command, m->name);
    else
        tool_say(0, "member \"%s\": %s exists and is not empty; if its contents may be destroyed: "
                 "spooltool %s --force=%s", m->name, m->path, f->command, m->name);
    return true;
}

static bool refuse_missing(struct format *f, uint32_t i, enum err e)
{
    const struct pool_member_config *m = &f->pool.members[i];
    const struct probe *p = &f->probes[i];
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
    f->denied |= e == ERR_DENIED;
    return true;
}

/* Files are made on any disk, and whoever names both their failure domains has said that they fail apart. It is told all the same. */
static bool named_apart(const struct format *f, uint32_t i, uint32_t k)
{
    const struct pool_member_config *a = &f->pool.members[i], *b = &f->pool.members[k];
    return !f->probes[i].is_block && !f->probes[k].is_block && a->domain[0] && b->domain[0] && strcmp(a->domain, b->domain) != 0;
}

static bool refuse_shared(const struct format *f, uint32_t i)
{
    for (uint32_t k = 0; k < f->pool.member_count && !f->pool.share_disk && !forced(f, i); k++) {
        if (k == i || (wanted(f, k) && k > i) || !f->probes[i].domain[0] || strcmp(f->probes[i].domain, f->probes[k].domain) != 0)
            continue;
        if (named_apart(f, i, k)) {
            tool_say(0, "warning: members \"%s\" and \"%s\" lie on one disk (%s), whatever their failure domains are called: its death "
                     "takes both images of a message", f->pool.members[k].name, f->pool.members[i].name, f->probes[i].domain);
            continue;
        }
        tool_say(0, "members \"%s\" and \"%s\" lie on one disk (%s): its death would take both images of a message; use "
                 "another disk; for a demonstration give each a failure_domain of its own, or say share_disk = yes in pool { }; if they "
                 "may lie there: --force=%s",
                 f->pool.members[k].name, f->pool.members[i].name, f->probes[i].domain, f->pool.members[i].name);
        return true;
    }
    return false;
}

uint64_t format_member_bytes(const struct format *f, uint32_t i)
{
    const struct probe *p = &f->probes[i];
    bool keep = p->is_block || (!f->size_given && p->exists && p->bytes > 0);
    return keep ? p->bytes : f->size;
}

/* The engine refuses this too, but only after files were made or emptied. */
static bool refuse_small(const struct format *f, uint32_t i)
{
    uint64_t least = SLOTS_PER_MEMBER_MIN * (f->segment_bytes ? f->segment_bytes : SEGMENT_BYTES_MIN) + 2 * MIB;
    char has[OUT_TEXT], needs[OUT_TEXT];
    if (format_member_bytes(f, i) >= least)
        return false;
    tool_say(0, "member \"%s\": %s is too small for %u segments, it takes %s: choose a larger --size%s",
             f->pool.members[i].name, out_bytes(format_member_bytes(f, i), has), SLOTS_PER_MEMBER_MIN, out_bytes(least, needs),
             f->segment_bytes && !f->segment_of_pool ? " or a smaller --segment-size" : "");
    return true;
}

int format_look(struct format *f)
{
    bool refused = false;
    for (uint32_t i = 0; i < f->pool.member_count; i++)
        if (!wanted(f, i) && probe_path(f->pool.members[i].path, &f->probes[i]) != ERR_OK)
            f->probes[i] = (struct probe){0}; /* not there: it shares no disk */
    for (uint32_t i = 0; i < f->pool.member_count; i++) {
        if (!wanted(f, i))
            continue;
        enum err e = probe_path(f->pool.members[i].path, &f->probes[i]);
        if (refuse_missing(f, i, e) || refuse_device(f, i) || refuse_contents(f, i) || refuse_shared(f, i) ||
            refuse_small(f, i)) {
            refused = true;
            continue;
        }
        if (f->probes[i].copy_on_write)
            tool_say(0, "member \"%s\": %s is on a copy-on-write file system; before it is filled, in its directory: "
                     "chattr +C .", f->pool.members[i].name, f->pool.members[i].path);
        f->make[i] = !f->probes[i].is_block;
    }
    for (uint32_t k = 0; k < f->force_count; k++) {
        bool known = false;
        for (uint32_t i = 0; i < f->pool.member_count; i++)
            known |= wanted(f, i) && strcmp(f->force[k], f->pool.members[i].name) == 0;
        if (!known) {
            tool_say(0, "--force=%s: %s formats no such member", f->force[k], f->command);
            refused = true;
        }
    }
    return !refused ? TOOL_DONE : f->denied ? TOOL_DENIED : TOOL_FAILED;
}

/* --- touch --- */

static enum err open_members(struct format *f)
{
    for (uint32_t i = 0; i < f->pool.member_count; i++) {
        const struct pool_member_config *m = &f->pool.members[i];
        if (!wanted(f, i))
            continue;
        errno = 0;
        enum err e = f->make[i] ? member_make(m->path, format_member_bytes(f, i), &f->opened[i].fd)
                                : member_open(m->path, &f->opened[i].fd);
        f->opened[i].path = m->path;
        if (e == ERR_BUSY)
            tool_say(0, "member \"%s\": %s is in use by a running Ironspool: stop it first (systemctl stop ironspool), or take "
                     "the member out of its configuration", m->name, m->path);
        else if (e == ERR_MEMBER_FULL)
            tool_say(0, "member \"%s\": no room for %s; see: df -h %s; or choose a smaller --size", m->name, m->path, m->path);
        else if (e != ERR_OK)
            tool_say(0, "member \"%s\": %s: %s%s%s", m->name, m->path, err_text(e), errno ? ": " : "",
                     errno ? strerror(errno) : "");
        if (e != ERR_OK) {
            f->opened[i].fd = -1;
            return e;
        }
    }
    return ERR_OK;
}

static void progress(void *owner, uint32_t member, uint64_t done, uint64_t total)
{
    const struct format *f = owner;
    char what[MEMBER_NAME_BYTES + 32];
    snprintf(what, sizeof what, "zero-writing member \"%s\"", f->pool.members[member].name);
    if (total > 2 * MIB) /* the ends of a device are not worth a line */
        out_progress(what, done + FRAME_BYTES_MAX < total ? done : total, total);
}

static enum err measure(struct format *f, struct io *io)
{
    for (uint16_t i = 0; i < f->pool.member_count; i++) {
        if (!wanted(f, i))
            continue;
        enum err e = io_real_calibrate(io, i, FORMAT_CALIBRATE_OFFSET, &f->options.durable_by[i], &f->dsync_us[i],
                                       &f->flush_us[i]);
        if (e != ERR_OK) {
            tool_say(0, "member \"%s\": 32 durable writes failed: %s; look at: dmesg", f->pool.members[i].name, err_text(e));
            return e;
        }
        f->options.zero[i] = f->make[i];
    }
    f->options.segment_bytes = f->segment_bytes;
    f->options.progress = progress;
    f->options.progress_owner = f;
    return ERR_OK;
}

void format_close(struct format *f, struct io **io, bool failed)
{
    if (*io)
        io_real_close(io);
    for (uint32_t i = 0; i < f->pool.member_count && failed; i++)
        if (f->opened[i].path && f->make[i] && !f->probes[i].exists)
            unlink(f->pool.members[i].path); /* made by us a moment ago, and no member */
}

enum err format_open(struct format *f, struct io **io_out)
{
    struct io *io = NULL;
    const char *why = "";
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        f->opened[i].fd = -1;
    enum err e = open_members(f);
    if (e == ERR_OK) {
        e = io_real_open(f->engine, f->opened, f->pool.member_count, &io, &why);
        if (e != ERR_OK)
            tool_say(0, "the members could not be opened for I/O: %s (%s)", err_text(e), why);
    }
    for (uint32_t i = 0; i < MEMBERS_MAX && !io; i++)
        if (f->opened[i].fd >= 0)
            close(f->opened[i].fd);
    if (e == ERR_OK)
        e = measure(f, io);
    if (e != ERR_OK)
        format_close(f, &io, true);
    else
        *io_out = io;
    return e;
}
