/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what the daemon does about injected faults beside injecting them. See fault_live.h. */
#include "fault_live.h"

#include "control.h"

#include <inject_io.h>
#include <spoolfs/locate.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

static void say(struct spool_process *sp, enum event_kind kind, const struct inject_fault *f, const char *how)
{
    char evidence[256], where[64] = "everywhere";
    if (f->from > 0 || f->to != UINT64_MAX)
        snprintf(where, sizeof where, "bytes %llu to %llu", (unsigned long long)f->from, (unsigned long long)f->to);
    snprintf(evidence, sizeof evidence, "fault %u: %s, rate %g, %s, seed %llu: %s", f->id, inject_kind_word(f->kind), f->rate, where,
             (unsigned long long)f->seed, how);
    events_log_emit(sp->events, &(struct event){.kind = kind, .wall_ms = io_wall_ms(sp->io), .serial = "",
                                                .member = sp->pool ? pool_name_of(sp->pool, f->target) : "",
                                                .evidence = evidence});
}

/* A member joins a running pool by a clean mount, as after a real return (SPM-3). One that nobody missed just goes on. */
static void mount_again(struct spool_process *sp, uint16_t target)
{
    if (sp->exit_at_ns || sp->stop || !sp->pool || pool_target_serves(sp->pool, target))
        return;
    log_line("spool", "a vanished member is back: the pool is mounted again with it; injected faults end with that");
    sp->exit_code = CHILD_AGAIN;
    sp->exit_at_ns = EXIT_AFTER_ANSWER;
}

static void on_ended(void *owner, const struct inject_fault *f, bool cleared)
{
    struct spool_process *sp = owner;
    char how[80];
    snprintf(how, sizeof how, "%s after %llu operations", cleared ? "cleared" : "over", (unsigned long long)f->injected);
    say(sp, EVENT_fault_ended, f, how);
    if (f->kind == INJECT_VANISH)
        mount_again(sp, f->target);
}

enum err fault_live_open(struct spool_process *sp)
{
    if (!sp->config->fault_injection)
        return ERR_OK;
    log_line("spool", "warning: fault_injection = yes: spooltool may hurt this pool");
    return inject_io_open(sp->io, &(struct inject_hooks){.owner = sp, .ended = on_ended}, &sp->inject);
}

struct io *fault_live_door(struct spool_process *sp)
{
    return sp->inject ? inject_io_door(sp->inject) : sp->io;
}

void fault_live_row(struct spool_process *sp, const struct inject_fault *f, struct fault_row *row_out)
{
    uint64_t now = io_now_ns(sp->io);
    *row_out = (struct fault_row){.id = f->id, .kind = inject_kind_word(f->kind), .text = inject_kind_text(f->kind),
                                  .rate = f->rate,
                                  .factor = f->kind == INJECT_SLOW || f->kind == INJECT_ONE_ARM ? f->factor : 0,
                                  .from = f->from, .to = f->to, .seed = f->seed, .injected = f->injected,
                                  .seconds_left = f->until_ns > now && f->kind != INJECT_RETURN ? (double)(f->until_ns - now) / 1e9 : 0};
    snprintf(row_out->member, sizeof row_out->member, "%s", sp->pool ? pool_name_of(sp->pool, f->target) : "");
}

void fault_live_rows(struct spool_process *sp, struct status_view *view)
{
    if (!sp->inject)
        return;
    view->fault_count = inject_count(sp->inject);
    view->faults_total = inject_total(sp->inject);
    view->faults = sp->fault_rows;
    for (uint32_t i = 0; i < view->fault_count; i++)
        fault_live_row(sp, inject_at(sp->inject, i), &sp->fault_rows[i]);
}

static const char *refusal(const struct spool_process *sp, const struct inject_fault *wanted, enum err e)
{
    if (e == ERR_BUSY)
        return "as many faults as are allowed at one time are active; end some: spooltool fault clear";
    if (e == ERR_NOT_FOUND)
        return "that member has not vanished";
    if (wanted->kind == INJECT_SLOW && (wanted->factor < 2 || wanted->factor > INJECT_FACTOR_MAX))
        return "factor is a number from 2 to 1000000";
    if (wanted->kind == INJECT_ONE_ARM && (wanted->factor < 1 || wanted->factor > INJECT_FACTOR_MAX))
        return "factor is the percentage of a 7200 rpm disk's time: a number from 1 to 1000000";
    if (wanted->from >= wanted->to)
        return "a range is FIRST-LAST in bytes, and FIRST comes first";
    if (wanted->from >= io_target(sp->io, wanted->target)->bytes)
        return "the range begins behind the end of the member; its size: spooltool members";
    return wanted->rate > 0 && wanted->rate <= 1 ? "a fault lasts from a second to a day"
                                                 : "rate is above 0 and at most 1";
}

enum err fault_live_add(struct spool_process *sp, struct inject_fault *wanted, uint64_t seconds, uint32_t *id_out,
                        const char **text_out)
{
    uint64_t held = seconds <= INJECT_SECONDS_MAX ? seconds : INJECT_SECONDS_MAX + 1;
    wanted->until_ns = io_now_ns(sp->io) + held * NS_PER_S;
    if (!wanted->seed)
        wanted->seed = io_random64(sp->io) >> 32 | 1; /* short enough to be typed again */
    enum err e = inject_add(sp->inject, wanted, id_out);
    if (e != ERR_OK) {
        *text_out = refusal(sp, wanted, e);
        return e;
    }
    wanted->id = *id_out;
    char how[48];
    snprintf(how, sizeof how, "for %llu s", (unsigned long long)seconds);
    say(sp, EVENT_fault_injected, wanted, wanted->kind == INJECT_RETURN ? "at once" : how);
    return ERR_OK;
}
