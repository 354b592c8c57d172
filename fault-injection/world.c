/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the life of one run: create, mount, work, crash, mount again, audit, end.
 *
 *   create -> mount [world_mount] -> work [world_turn] -> unmount | power cut -> mount ... -> final audit and check
 *                ^ power cut in mount |                        |
 *                +--------------------+------------------------+
 * Invariants: WLD-1, WLD-2, WLD-3 (world.h). Never: looks into the engine; its public doors are all there is. */
#include "world.h"

#include <base/assert.h>
#include <spoolfs/upkeep.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_NS UINT64_C(20000000)               /* the spool process's longest sleep */
#define RESTORE_NS (UINT64_C(7200) * 1000000000) /* redundancy is whole again, by itself, after the faults stopped */
#define RESTORE_QUIET_NS (UINT64_C(15) * 1000000000)
#define RESTORE_PASSES_MAX 6u
#define READY_NS (UINT64_C(300) * 1000000000)    /* index complete after a mount */
#define DRAIN_TURNS_MAX 100000u
#define RESTARTS_MAX 200u                        /* power cuts in a row during mounts */

bool world_failed(const struct world *w) { return w->failure[0] != 0 || w->given_up; }

/* Beyond redundancy only two things are promised: nothing wrong is returned, and nothing that nobody sent appears. */
static bool world_bears(struct world *w, const char *format)
{
    static const char *const kept[] = {"P2", "MOD-3", "promise broken", "seam", "the index answers", "the check"};
    if (w->plan.level != PLAN_BEYOND || w->losing)
        return false;
    for (uint32_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (strncmp(format, kept[i], strlen(kept[i])) == 0)
            return false;
    w->counts.given_up += !w->given_up;
    w->given_up = true;
    return true;
}

void world_fail(struct world *w, const char *format, ...)
{
    if (world_failed(w) || world_bears(w, format))
        return;
    int n = snprintf(w->failure, sizeof w->failure, "at %.6f s, op %llu: ", (double)sim_io_now(w->sim) / 1e9,
                     (unsigned long long)sim_io_counts(w->sim)->ops);
    va_list args;
    va_start(args, format);
    vsnprintf(w->failure + n, sizeof w->failure - (size_t)n, format, args);
    va_end(args);
    world_say(w, "FAILED %s", w->failure);
}

void world_say(const struct world *w, const char *format, ...)
{
    if (!w->verbose)
        return;
    va_list args;
    va_start(args, format);
    printf("%12.6f op %-7llu ", (double)sim_io_now(w->sim) / 1e9, (unsigned long long)sim_io_counts(w->sim)->ops);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

static void world_by_headers(struct world *w)
{
    w->table_lost = true;
    model_by_headers(&w->model);
}

/* Something can have taken away what a member had called durable, or hidden it from the mount. */
static bool world_has_lied(const struct world *w)
{
    static const enum sim_fault lies[] = {SIM_FAULT_flush_lie, SIM_FAULT_lost_write, SIM_FAULT_misdirected_write,
                                          SIM_FAULT_torn_write, SIM_FAULT_misdirected_read, SIM_FAULT_stale_read};
    bool lied = false;
    for (uint32_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        lied = lied || sim_io_counts(w->sim)->faults[lies[i]] > 0;
    return lied;
}

static void on_event(void *owner, const struct event *e)
{
    struct world *w = owner;
    w->counts.events[e->kind]++;
    bool called_up = e->kind == EVENT_member_state && strncmp(e->evidence, "spare -> healthy: ", 18) == 0;
    w->counts.spares += called_up;
    w->called_up_ns = called_up ? sim_io_now(w->sim) : w->called_up_ns;
    sim_io_note(w->sim, 1000u + e->kind);
    if (w->losing && e->kind == EVENT_record_lost)
        losses_told(w, e->evidence);
    world_say(w, "event %s %s: %s", event_name(e->kind), e->member, e->evidence);
    if (e->kind == EVENT_index_rebuild && strncmp(e->evidence, "the index is damaged", 20) == 0)
        kept_damaged(w);
    if (e->kind == EVENT_record_lost && strncmp(e->evidence, "the segment table is not readable", 33) == 0)
        world_by_headers(w);
    if (e->kind == EVENT_flush_lied && !world_has_lied(w))
        world_fail(w, "REC-9: an honest member is accused: %s", e->evidence);
    if (e->kind == EVENT_scrub_blind)
        world_fail(w, "P5: the scrub is blind: %s", e->evidence);
}

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                           struct index **index_out)
{
    return kept_open(owner, pool, discard, cb, index_out);
}

static void on_op_end(void *owner, const struct io_op *op, uint64_t index)
{
    static const char *const kinds[] = {"read", "write", "flush", "discard"};
    struct world *w = owner;
    witness_write(w, op);
    measure_exchange(w, op, true);
    if (!w->verbose || index < w->list_from)
        return;
    uint64_t slots = 64 * KIB, slot = op->offset < slots ? 0 : (op->offset - slots) / w->plan.segment_bytes;
    world_say(w, "  op %llu %s class %u, member %u, %u at %llu (slot %llu + %llu): %s", (unsigned long long)index,
              kinds[op->kind], op->class, op->target, op->length, (unsigned long long)op->offset,
              (unsigned long long)slot, (unsigned long long)(op->offset < slots ? 0 : op->offset - slots - slot * w->plan.segment_bytes),
              err_name(op->result));
}

void world_make(struct world *w, const struct plan *plan)
{
    *w = (struct world){.plan = *plan, .scripted_cut = UINT64_MAX, .list_from = UINT64_MAX};
    struct prng prng = {plan->seed};
    w->sim = sim_io_make(prng_next(&prng));
    w->io = sim_io_door(w->sim);
    w->work.state = prng_next(&prng);
    w->hurt.state = prng_next(&prng);
    link_init(&w->actions);
    model_init(&w->model);
    w->config = (struct pool_config){.copies = plan->copies, .min_copies = plan->min_copies,
                                     .degrade_after_ns = UINT64_C(2000000000),
                                     .absent_wait_ns = UINT64_C(60000000000), .member_count = plan->first_members,
                                     .sink = {.owner = w, .emit = on_event}, .index = {.owner = w, .open = open_index}};
    for (uint32_t i = 0; i < plan->members; i++) {
        sim_io_add_member(w->sim, &plan->shapes[i]);
        snprintf(w->config.members[i].name, sizeof w->config.members[i].name, "%c", 'a' + (int)i);
        snprintf(w->config.members[i].path, sizeof w->config.members[i].path, "/sim/%u", i);
    }
    changes_init(w);
    kept_init(w);
    halves_init(w);
    w->relay_dice.state = plan->seed ^ UINT64_C(0x72656c6179213f21);
    atlas_init(w);
    sim_io_on_submit(w->sim, w, atlas_decide);
    sim_io_on_end(w->sim, w, on_op_end);
}

bool world_crashed(const struct world *w) { return sim_io_is_dark(w->sim); }

static void world_note_status(struct world *w)
{
    static struct pool_status s; /* large; one thread */
    if (!w->pool)
        return;
    pool_status(w->pool, &s);
    w->counts.compacted += s.segments_compacted;
    w->counts.hedges += s.hedges;
    w->counts.frames += s.frames;
}

void world_after_crash(struct world *w)
{
    ASSERT(world_crashed(w));
    bool in_mount = w->mounting;
    w->mounting = false;
    w->counts.crashes++;
    w->counts.crashes_in_mount += in_mount;
    world_say(w, "no power%s", in_mount ? " during a mount" : "");
    world_note_status(w);
    kept_die(w);
    sim_io_drain(w->sim);
    pool_abandon(&w->pool); /* it still knows the queries of the actions */
    senders_forget(w);
    model_on_crash(&w->model);
    sim_io_power_on(w->sim);
}

void world_free(struct world *w)
{
    if (w->pool || sim_io_in_flight(w->sim) > 0) {
        sim_io_power_cut(w->sim);
        world_after_crash(w);
    }
    senders_forget(w);
    atlas_fini(w);
    kept_fini(w);
    model_fini(&w->model);
    sim_io_free(&w->sim);
}

bool world_create_pool(struct world *w)
{
    struct pool_create_options o = {.segment_bytes = w->plan.segment_bytes};
    struct uuid uuid;
    const char *text;
    memcpy(o.durable_by, w->plan.durable_by, sizeof o.durable_by);
    enum err e = pool_create(w->io, &w->config, &o, &uuid, &text);
    if (e != ERR_OK && !world_crashed(w))
        world_fail(w, "create: %s: %s", err_name(e), text);
    return e == ERR_OK && !world_crashed(w);
}

void world_turn(struct world *w)
{
    io_turn(w->io, TURN_NS);
    w->counts.steps++;
    if (world_crashed(w))
        return;
    if (w->pool) {
        pool_step(w->pool);
        senders_step(w);
        kept_step(w);
    }
    if (!world_crashed(w))
        atlas_step(w);
    if (sim_io_violation(w->sim)[0])
        world_fail(w, "seam: %s", sim_io_violation(w->sim));
}

static bool world_index_ready(struct world *w)
{
    uint64_t until = io_now_ns(w->io) + READY_NS;
    bool was = w->paused;
    w->paused = true;
    while (!spool_index_ready(w->pool) && !world_crashed(w) && !world_failed(w)) {
        world_turn(w);
        if (io_now_ns(w->io) > until)
            world_fail(w, "liveness: the index is not complete %u s after a mount", (uint32_t)(READY_NS / 1000000000));
    }
    w->paused = was;
    return !world_crashed(w) && !world_failed(w);
}

bool world_mount(struct world *w)
{
    const char *text;
    ASSERT(!w->pool && !world_failed(w));
    w->mounting = true;
    w->exchange = (struct segment_id){0};
    enum err e = pool_mount(w->io, &w->config, &w->pool, &text);
    bool excused = w->halves.apart || (w->giving_up && w->table_lost); /* HLV-4, GVN-5 */
    w->halves.refused = e == ERR_FULL && excused && !world_crashed(w);
    if (e != ERR_OK && !w->halves.refused && !world_crashed(w))
        world_fail(w, "P6: mount: %s: %s", err_name(e), text);
    if (sim_io_violation(w->sim)[0])
        world_fail(w, "seam: %s", sim_io_violation(w->sim));
    if (e != ERR_OK || world_crashed(w) || world_failed(w))
        return false;
    w->counts.mounts++;
    changes_after_mount(w);
    bool ready = world_index_ready(w);
    w->mounting = ready ? false : w->mounting;
    return ready;
}

bool world_settle(struct world *w)
{
    while (w->action_count > 0 && !world_crashed(w) && !world_failed(w))
        world_turn(w);
    return !world_crashed(w) && !world_failed(w);
}

/* Operations a stuck member still owes keep their memory after an unmount or a failed mount: they come back here. */
static void world_drain(struct world *w)
{
    for (uint32_t n = 0; sim_io_in_flight(w->sim) > 0 && !world_crashed(w) && n < DRAIN_TURNS_MAX; n++)
        io_turn(w->io, TURN_NS * 10);
    if (sim_io_in_flight(w->sim) > 0 && !world_crashed(w))
        world_fail(w, "liveness: %u operations never end after a stop", sim_io_in_flight(w->sim));
}

void world_unmount(struct world *w)
{
    bool was = w->paused;
    w->paused = true;
    if (world_settle(w)) {
        world_note_status(w);
        pool_unmount(&w->pool);
        world_drain(w);
        w->counts.unmounts++;
        world_say(w, "unmounted");
        if (!world_crashed(w)) {
            senders_forget(w);
            model_on_crash(&w->model);
        }
        if (sim_io_violation(w->sim)[0])
            world_fail(w, "seam: %s", sim_io_violation(w->sim));
    }
    w->paused = was;
    if (world_crashed(w))
        world_after_crash(w);
}

/* After whatever stop. */
bool world_restart(struct world *w)
{
    for (uint32_t n = 0; n < RESTARTS_MAX && !world_failed(w); n++) {
        if (w->era_due) {
            atlas_next_era(w);
            w->era_due = w->faults_off = false;
        }
        atlas_before_mount(w);
        if (!changes_before_mount(w)) {
            world_after_crash(w);
            continue;
        }
        if (n + 10 > RESTARTS_MAX)
            w->faults_off = true;
        bool audit = prng_below(&w->work, 100) < w->plan.audit_percent;
        if (world_mount(w) && (!audit || audit_run(w)))
            return true;
        if (world_crashed(w))
            world_after_crash(w);
        if (w->halves.refused)
            return false;
    }
    world_fail(w, "P6: no mount in %u attempts", RESTARTS_MAX);
    return false;
}

/* ATL-2: members all in service, nothing below `copies`, everything found. */
static void world_look_for_era(struct world *w)
{
    static struct pool_status s;
    if (halves_calm(w) || w->atlas.locked || w->atlas.out || w->atlas.aside || !audit_run(w))
        return;
    pool_status(w->pool, &s);
    bool well = s.messages_below_copies == 0 && s.segments_degraded == 0; /* results need their images as mail does */
    for (uint32_t i = 0; i < s.member_count; i++)
        well = well && (s.members[i].state == MEMBER_HEALTHY || s.members[i].state == MEMBER_SPARE ||
                        s.members[i].state == MEMBER_REMOVED);
    if (!well)
        return;
    w->era_due = w->faults_off = true;
    sim_io_kill(w->sim);
}

static void world_stop_now_and_then(struct world *w)
{
    uint64_t draw = prng_below(&w->work, 100000);
    if (w->plan.level != PLAN_NONE && draw < 60)
        world_look_for_era(w);
    else if (draw < 60u + w->plan.unmount_percent)
        world_unmount(w);
    else
        changes_step(w);
}

/* One scrub pass from now on; how many places it found bad. Free slots are read beside the passes, at a pace of their own. */
uint64_t world_scrub(struct world *w, uint64_t until)
{
    struct upkeep_status before, now;
    upkeep_status(w->pool, &before);
    scrub_start(w->pool);
    do {
        world_turn(w);
        upkeep_status(w->pool, &now);
        if (io_now_ns(w->io) > until)
            world_fail(w, "P5: a scrub pass does not end");
    } while (now.scrub.passes == before.scrub.passes && !world_failed(w));
    const struct scrub_report *r = scrub_report(w->pool, true);
    uint64_t found = 0;
    for (uint32_t i = 0; r && i < MEMBERS_MAX; i++)
        for (int k = 0; k < SCRUB_KIND_COUNT; k++)
            found += k == SCRUB_FREE_SLOT ? 0 : r->members[i].found[k];
    return found;
}

void world_restored(struct world *w, uint64_t until)
{
    static struct pool_status s;
    do {
        if (world_failed(w))
            return;
        world_turn(w);
        pool_status(w->pool, &s);
        w->cramped = io_now_ns(w->io) > until && room_is_cramped(w, &s);
        if (w->cramped) {
            w->counts.cramped++;
            return;
        }
        if (io_now_ns(w->io) > until)
            world_fail(w, "redundancy is not restored in %u s: %llu messages and %u segments below copies",
                       (uint32_t)(RESTORE_NS / 1000000000), (unsigned long long)s.messages_below_copies, s.segments_degraded);
    } while (s.messages_below_copies > 0 || s.segments_degraded > 0);
    uint64_t quiet = io_now_ns(w->io) + RESTORE_QUIET_NS; /* what is being freed is gone before the next pass */
    while (!world_failed(w) && io_now_ns(w->io) < quiet)
        world_turn(w);
}

/* With the faults stopped and nothing healed, the pool finds the damage and gets whole by itself; then damage at rest is
 * found by one pass. */
static void world_restores(struct world *w)
{
    uint64_t until = io_now_ns(w->io) + RESTORE_NS, found = 1;
    for (uint32_t n = 0; n < RESTORE_PASSES_MAX && found > 0 && !world_failed(w); n++) {
        found = world_scrub(w, until) + (n == 0);
        world_restored(w, until);
        if (w->cramped)
            return;
        world_say(w, "pass %u found %llu errors", n + 1, (unsigned long long)found - (n == 0));
    }
    if (found > 0)
        world_fail(w, "P5: scrub still finds errors in its pass %u though nothing fails any more", RESTORE_PASSES_MAX);
    if (!world_failed(w))
        rested_run(w, io_now_ns(w->io) + RESTORE_NS);
}

/* Any one member can be lost now. */
static void world_end_whole(struct world *w)
{
    if (w->plan.level == PLAN_BEYOND || w->plan.level == PLAN_NONE || !changes_can_restore(w))
        return;
    world_restores(w);
    if (world_failed(w) || w->cramped)
        return;
    sim_io_kill(w->sim); /* no power cut: what a lying flush left in a cache no scrub can know of */
    world_after_crash(w);
    for (uint32_t t = 0; t < w->plan.members && !world_failed(w); t++)
        audit_copy(w, 1u << t);
    if (world_failed(w) || !world_restart(w))
        return;
    world_unmount(w);
    if (!world_failed(w))
        shelf_run(w);
    if (!world_failed(w))
        given_up_run(w);
}

static void world_end(struct world *w)
{
    w->paused = true;
    if (w->pool)
        world_unmount(w);
    if (world_failed(w))
        return;
    w->plan.audit_percent = 100;
    atlas_stop(w);
    if (!world_restart(w))
        return;
    world_end_whole(w);
    if (w->pool && !world_failed(w))
        world_unmount(w);
    if (!world_failed(w) && !w->unbounced)
        losses_run(w);
}

bool world_begins(struct world *w) { return w->halves.calm ? w->begun < w->halves.until : measure_goes_on(w); }

bool world_run_on(struct world *w)
{
    world_turn(w);
    if (!world_crashed(w) && w->pool && !world_failed(w))
        world_stop_now_and_then(w);
    if (world_crashed(w))
        world_after_crash(w);
    return !world_failed(w) && w->pool;
}

bool world_go_on(struct world *w)
{
    return world_run_on(w) || (!world_failed(w) && world_restart(w));
}

bool world_run(struct world *w)
{
    w->faults_off = true;
    if (!world_create_pool(w))
        return false;
    w->faults_off = false;
    w->halves.due = w->plan.halves_percent > 0;
    if (!world_restart(w))
        return w->failure[0] == 0;
    while (!world_failed(w) && (measure_goes_on(w) || w->action_count > 0)) {
        if (w->halves.due)
            halves_run(w);
        else if (!world_go_on(w))
            break;
    }
    if (!world_failed(w))
        world_end(w);
    return w->failure[0] == 0;
}
