/* SPDX-License-Identifier: Apache-2.0 */
/* Members on their way to being formatted, for `pool create` and `member add`: what is refused, how they are opened. */
#ifndef TOOLS_FORMAT_H
#define TOOLS_FORMAT_H

#include "tool.h"

#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>
#include <spoolfs/probe.h>

#define FORMAT_CALIBRATE_OFFSET (64 * KIB) /* the first slot: behind the superblocks, and zeroed afterwards or never read */

struct format {
    struct tool *tool;
    const char *command;         /* what to type with --force=MEMBER */
    struct pool_config pool;     /* a copy of the configuration's */
    uint32_t wanted_mask;        /* the members that are formatted; the others are only looked at */
    enum io_engine engine;
    uint64_t size, segment_bytes;
    bool size_given, dry_run, bad_option;
    bool denied;                 /* format_look met what this user may not open */
    bool segment_of_pool;        /* segment_bytes is what the pool has, not a choice */
    const char *force[MEMBERS_MAX];
    uint32_t force_count;
    struct probe probes[MEMBERS_MAX];
    bool make[MEMBERS_MAX];      /* a file to be made or made anew */
    struct io_real_member opened[MEMBERS_MAX];
    uint32_t dsync_us[MEMBERS_MAX], flush_us[MEMBERS_MAX];
    struct pool_create_options options;
};

/* For tool_options; the owner is the struct format. */
void format_set_size(void *owner, const char *value);
void format_set_segment_size(void *owner, const char *value);
void format_set_force(void *owner, const char *value);
void format_set_dry_run(void *owner, const char *value);

uint64_t format_member_bytes(const struct format *f, uint32_t i);
/* Says everything that is wrong, not only the first. TOOL_DONE, or the exit code: nothing may be touched. */
int format_look(struct format *f) MUST_CHECK;
/* Opens, locks and, where they are files, makes the wanted members; measures how they flush best. The io's target i is
 * the configuration's member i. What was made is gone again after a failure, which has been said. */
enum err format_open(struct format *f, struct io **io_out) MUST_CHECK;
/* Closes the io; `failed`: unlinks what format_open made. */
void format_close(struct format *f, struct io **io, bool failed);

#endif
