/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: members that come and go by command. What changes the member table is answered when the superblocks have it.
 *
 *   join: member-prepare -> [spooltool formats] -> member-join -> exit CHILD_AGAIN: the next mount admits it
 *
 * Never: formats or opens a member; who asks does the first, the next spool process the second. */
#include "admin_client.h"

#include <log.h>
#include <spoolfs/locate.h>
#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDS_BYTES (256 * KIB)                /* a member beside its slots, generously */

static void settled_pump(struct admin_client *c)
{
    if (!c->spool->pool || !members_settled(c->spool->pool))
        return;
    c->pump = NULL;
    admin_done(c);
}

static void say(struct admin_client *c, const char *command, const char *name, enum err e, const char *text)
{
    log_line("spool", "control: %s %s: %s", command, name, e == ERR_OK ? "done" : err_text(e));
    if (e != ERR_OK)
        admin_fail(c, e, text);
    else
        c->pump = settled_pump;
}

static const char *refusal(const char *command, enum err e)
{
    bool remove = strcmp(command, "member-remove") == 0;
    if (e == ERR_NOT_FOUND)
        return "there is no such member in the pool: spooltool members";
    if (e == ERR_BELOW_POLICY)
        return "without it fewer failure domains than min_copies would be in service: add a member first (spooltool member add)";
    if (e == ERR_INVALID && remove)
        return "it is in service: spooltool member evacuate NAME empties it; with --when-empty it is emptied and then removed";
    if (e == ERR_BUSY && remove)
        return "some mail still has an image on it: spooltool rebuild status shows how much; with --when-empty it is removed as "
               "soon as nothing needs it. If it is absent and never comes back: spooltool member remove NAME --lost gives up what only it "
               "holds and says by queue id what that is; first with --dry-run, which only counts it";
    if (e == ERR_INVALID)
        return "it is not in service: a member that is absent or failed comes back with a restart, or is replaced "
               "(spooltool member replace)";
    return err_text(e);
}

/* --- giving up --- */

static const char *refusal_to_give_up(enum err e)
{
    if (e == ERR_INVALID)
        return "it is here, and what it holds is read: spooltool member evacuate NAME empties it; only a member that is absent is "
               "given up as lost. Unplug a dead disk that the system still lists, then again";
    if (e == ERR_BUSY)
        return "the index, which knows whose mail would be lost, is not complete yet: spooltool status shows how far it is";
    return refusal("member-remove", e);
}

static void give_up(struct admin_client *c, const char *name, bool dry_run)
{
    struct member_loss loss;
    enum err e = member_give_up(c->spool->pool, name, dry_run, &loss);
    if (e == ERR_OK && !dry_run)
        log_line("spool", "control: member %s is given up as lost, and with it %llu messages", name,
                 (unsigned long long)loss.messages);
    if (e != ERR_OK || !dry_run) {
        say(c, "member-remove", name, e, refusal_to_give_up(e));
        return;
    }
    admin_ok(c, "json");
    json_object_begin(&c->out, NULL);
    json_text(&c->out, "name", name);
    json_count(&c->out, "messages_lost", loss.messages);
    json_count(&c->out, "segments_unknown", loss.segments_unknown);
    json_object_end(&c->out);
    json_line_end(&c->out);
    admin_finish(c);
}

/* --- joining --- */

static const struct pool_member_config *configured(const struct spool_process *sp, const char *name, uint16_t *target_out)
{
    for (uint16_t i = 0; i < sp->config->pool.member_count; i++)
        if (strcmp(sp->config->pool.members[i].name, name) == 0) {
            *target_out = i;
            return &sp->config->pool.members[i];
        }
    return NULL;
}

static const struct pool_member_status *listed(const struct pool_status *s, const char *name)
{
    for (uint32_t i = 0; i < s->member_count; i++)
        if (strcmp(s->members[i].name, name) == 0 && s->members[i].state != MEMBER_REMOVED)
            return &s->members[i];
    return NULL;
}

static void tell_what_to_format(struct admin_client *c, const struct pool_status *s, const struct pool_member_config *m,
                                const struct pool_member_status *old)
{
    char uuid[UUID_TEXT];
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->member_count; i++)
        bytes = s->members[i].state != MEMBER_REMOVED && s->members[i].bytes_total > bytes ? s->members[i].bytes_total : bytes;
    admin_ok(c, "json");
    json_object_begin(&c->out, NULL);
    uuid_print(s->uuid, uuid);
    json_text(&c->out, "pool", uuid);
    json_text(&c->out, "path", m->path);
    json_count(&c->out, "copies", s->copies);
    json_count(&c->out, "segment_bytes", s->segment_bytes);
    json_count(&c->out, "member_bytes", bytes + ENDS_BYTES);
    if (old)
        uuid_print(old->uuid, uuid);
    json_text(&c->out, "replaces", old ? uuid : "");
    json_object_end(&c->out);
    json_line_end(&c->out);
    admin_finish(c);
}

static void prepare(struct admin_client *c, const char *name, const char *replaces)
{
    struct spool_process *sp = c->spool;
    uint16_t target = 0;
    struct pool_status *s = malloc(sizeof *s);
    const struct pool_member_config *m = configured(sp, name, &target);
    if (!s) {
        admin_fail(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    pool_status(sp->pool, s);
    const struct pool_member_status *old = replaces[0] ? listed(s, replaces) : NULL, *same = listed(s, name);
    if (!m)
        admin_fail(c, ERR_NOT_FOUND, "the running daemon's configuration has no such member: write it into pool { }, then: "
                                     "systemctl reload ironspool");
    else if (replaces[0] && !old)
        admin_fail(c, ERR_NOT_FOUND, "the member to be replaced is not in the pool: spooltool members");
    else if (pool_target_serves(sp->pool, target))
        admin_fail(c, ERR_EXISTS, replaces[0] ? "the new disk's place holds a member that is in service: put the new disk in "
                                                "first, or configure it under another name and path"
                                              : "it is a member of this pool already: spooltool members");
    else if (!replaces[0] && same)
        admin_fail(c, ERR_EXISTS, "a member of this name is in the pool and not here: spooltool member replace NAME puts this "
                                  "disk in its place");
    else if (s->member_count >= MEMBERS_MAX)
        admin_fail(c, ERR_FULL, "the member table is full: 16 members, removed ones among them; a new pool takes the mail over "
                                "by spooltool export and import");
    else
        tell_what_to_format(c, s, m, old);
    free(s);
}

static void join(struct admin_client *c, const char *name)
{
    struct spool_process *sp = c->spool;
    uint16_t target = 0;
    const struct pool_member_config *m = configured(sp, name, &target);
    if (!m || !members_could_open(m)) {
        admin_fail(c, m ? ERR_INVALID : ERR_NOT_FOUND,
                   m ? "it is not formatted, or cannot be opened: spooltool member add NAME" : "it is not configured");
        return;
    }
    if (!sp->exit_at_ns) {
        log_line("spool", "member \"%s\" joins: the pool is mounted again with it", name);
        sp->exit_code = CHILD_AGAIN;
        sp->exit_at_ns = EXIT_AFTER_ANSWER;
    }
    admin_done(c);
}

bool admin_member(struct admin_client *c, const char *command, const struct json_in *request)
{
    struct pool *pool = c->spool->pool;
    const char *name = json_in_text(request, "name");
    enum err e;
    if (strcmp(command, "member-prepare") == 0) {
        prepare(c, name, json_in_text(request, "replaces"));
        return true;
    }
    if (strcmp(command, "member-join") == 0) {
        join(c, name);
        return true;
    }
    if (strcmp(command, "member-remove") == 0 && json_in_true(request, "lost")) {
        give_up(c, name, json_in_true(request, "dry_run"));
        return true;
    }
    if (strcmp(command, "member-evacuate") == 0)
        e = member_evacuate(pool, name);
    else if (strcmp(command, "member-clear") == 0)
        e = member_clear(pool, name);
    else if (strcmp(command, "member-remove") == 0)
        e = member_remove(pool, name, json_in_true(request, "when_empty"));
    else
        return false;
    say(c, command, name, e, refusal(command, e));
    return true;
}
