/* SPDX-License-Identifier: Apache-2.0 */
/* The conditions, one after the other, and when they are said. See alarm_state.h. */
#include "alarm_state.h"

#include <stdio.h>
#include <string.h>

#define S 1000u
#define SETTLE_MS (2 * S)          /* what a remount shows for a moment is no alarm */
#define SETTLE_SUSPECT_MS (60 * S) /* a member that is only looked at closely: most are healthy again in seconds */
#define SETTLE_REFUSED_MS (5 * S)  /* a relay that is replaced */

void alarm_state_init(struct alarm_state *s, const struct alarm_limits *limits, uint64_t now_ms)
{
    *s = (struct alarm_state){.limits = *limits, .saw_ms = now_ms, .beat_ms = now_ms};
}

/* --- conditions --- */

struct wanted { enum event_kind kind; const char *member, *severity, *evidence; uint64_t settle_ms; bool present; };

static struct alarm_condition *find(struct alarm_state *s, enum event_kind kind, const char *member)
{
    struct alarm_condition *free_one = NULL;
    for (uint32_t i = 0; i < ALARM_CONDITIONS_MAX; i++) {
        struct alarm_condition *c = &s->conditions[i];
        if (c->used && c->kind == kind && strcmp(c->member, member) == 0)
            return c;
        free_one = free_one || c->used ? free_one : c;
    }
    if (free_one) {
        *free_one = (struct alarm_condition){.used = true, .kind = kind};
        snprintf(free_one->member, sizeof free_one->member, "%s", member);
    }
    return free_one;
}

static void set(struct alarm_state *s, const struct wanted *w, uint64_t now_ms)
{
    struct alarm_condition *c = find(s, w->kind, w->member ? w->member : "");
    if (!c)
        return; /* more members than a pool can have */
    bool once = w->kind == EVENT_pool_state && s->view.lacks_domains;
    bool worse = w->present && c->once && !once;
    if (c->present != w->present || worse)
        c->changed_ms = now_ms;
    c->raised = c->raised && !worse; /* said anew */
    c->present = w->present;
    if (!w->present)
        return; /* what was wrong stays known for the message that it is over */
    c->once = once;
    c->severity = w->severity;
    c->settle_ms = w->settle_ms;
    snprintf(c->evidence, sizeof c->evidence, "%s", w->evidence);
}

/* ALS-2: a queue that is empty for a while is no redundancy. */
static void see_redundancy(struct alarm_state *s, uint64_t now_ms)
{
    const struct alarm_view *v = &s->view;
    const struct alarm_condition *low = find(s, EVENT_redundancy_low, "");
    char text[256] = "failure domains are wanting: whatever mail comes has fewer images than copies";
    if (v->below_copies > 0)
        snprintf(text, sizeof text, "%llu of %llu messages have fewer images than copies", (unsigned long long)v->below_copies,
                 (unsigned long long)v->messages);
    set(s, &(struct wanted){EVENT_redundancy_low, NULL, "critical", text, SETTLE_MS,
                            v->below_copies > 0 || (v->domains_wanting && low && low->raised)}, now_ms);
}

static void see_pool(struct alarm_state *s, uint64_t now_ms)
{
    const struct alarm_view *v = &s->view;
    char text[256];
    bool degraded = strcmp(v->state, "degraded") == 0;
    snprintf(text, sizeof text, "the pool is %s%s%s", v->state, v->action[0] ? "; next: " : "", v->action);
    set(s, &(struct wanted){EVENT_pool_state, NULL, degraded || v->lacks_domains ? "warning" : "critical", text, SETTLE_MS,
                            strcmp(v->state, "healthy") != 0}, now_ms);
    if (!v->mounted)
        return; /* what the mail is like is not known: what was raised stays so */
    see_redundancy(s, now_ms);
    set(s, &(struct wanted){EVENT_rebuild_behind, NULL, "critical",
                            "redundancy is not restored within an hour, or will not be at this pace", 0, v->rebuild_behind}, now_ms);
    set(s, &(struct wanted){EVENT_scrub_blind, NULL, "critical", "the scrub did not find damage that was put there to be found", 0,
                            v->scrub_blind}, now_ms);
}

static bool is_bad(const char *state)
{
    static const char *const bad[] = {"suspect", "slow", "failing", "failed", "absent"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (strcmp(state, bad[i]) == 0)
            return true;
    return false;
}

static void see_members(struct alarm_state *s, uint64_t now_ms)
{
    const struct alarm_view *v = &s->view;
    for (uint32_t i = 0; i < ALARM_CONDITIONS_MAX; i++) { /* a member that is gone from the pool is no alarm */
        struct alarm_condition *c = &s->conditions[i];
        bool known = !c->used || !c->member[0];
        for (uint32_t m = 0; m < v->member_count && !known; m++)
            known = strcmp(c->member, v->members[m].name) == 0;
        if (!known && c->present) {
            c->present = false;
            c->changed_ms = now_ms;
        }
    }
    for (uint32_t i = 0; i < v->member_count; i++) {
        const struct alarm_member *m = &v->members[i];
        char text[256];
        bool suspect = strcmp(m->state, "suspect") == 0;
        snprintf(text, sizeof text, "%s%s%s", m->state, m->evidence[0] ? ": " : "", m->evidence);
        set(s, &(struct wanted){EVENT_member_state, m->name, "warning", text, suspect ? SETTLE_SUSPECT_MS : SETTLE_MS,
                                is_bad(m->state)}, now_ms);
    }
}

static void see_mail(struct alarm_state *s, uint64_t now_ms)
{
    const struct alarm_view *v = &s->view;
    char text[256];
    bool lately = s->refused_ms && now_ms - s->refused_ms < ALARM_REFUSED_MS;
    if (!v->relay_connected)
        snprintf(text, sizeof text, "no relay process is connected to the spool");
    else if (v->refusing[0])
        snprintf(text, sizeof text, "new mail is answered with 4xx: %s", v->refusing);
    else
        snprintf(text, sizeof text, "mail was answered with 451 or 452 within the last minute");
    set(s, &(struct wanted){EVENT_mail_refused, NULL, "critical", text, SETTLE_REFUSED_MS,
                            !v->relay_connected || v->refusing[0] || lately}, now_ms);
    if (!v->index_ready)
        return;
    snprintf(text, sizeof text, "a message has been due for %.0f s; %llu are in the queue", v->late_seconds,
             (unsigned long long)v->messages);
    set(s, &(struct wanted){EVENT_queue_delayed, NULL, "warning", text, 0, v->late_seconds > s->limits.late_seconds}, now_ms);
}

void alarm_state_saw(struct alarm_state *s, const struct alarm_view *view, uint64_t now_ms)
{
    if (s->saw && view->refused > s->view.refused)
        s->refused_ms = now_ms; /* fewer: another relay began to count */
    s->view = *view;
    s->saw = true;
    s->saw_ms = now_ms;
    see_pool(s, now_ms);
    see_members(s, now_ms);
    see_mail(s, now_ms);
}

void alarm_state_smart(struct alarm_state *s, const char *member, bool failing, const char *evidence, uint64_t now_ms)
{
    set(s, &(struct wanted){EVENT_smart_failing, member, "critical", evidence, 0, failing}, now_ms);
}

/* --- saying --- */

static void name_member(const struct alarm_state *s, struct alarm_note *n, const char *member)
{
    snprintf(n->member, sizeof n->member, "%s", member);
    snprintf(n->pool, sizeof n->pool, "%s", s->view.pool);
    for (uint32_t i = 0; i < s->view.member_count; i++) {
        const struct alarm_member *m = &s->view.members[i];
        if (strcmp(m->name, member) != 0)
            continue;
        snprintf(n->path, sizeof n->path, "%s", m->path);
        snprintf(n->serial, sizeof n->serial, "%s", m->serial);
    }
}

static void say(struct alarm_state *s, struct alarm_condition *c, enum alarm_what what, uint64_t wall_ms)
{
    struct alarm_note n = {.what = what, .kind = c->kind, .severity = what == ALARM_CLEARED ? "info" : c->severity,
                           .at_ms = wall_ms, .since_ms = c->since_wall_ms, .count = c->count};
    name_member(s, &n, c->member);
    snprintf(n.evidence, sizeof n.evidence, "%s", c->evidence);
    s->emit(s->owner, &n);
}

static void step_condition(struct alarm_state *s, struct alarm_condition *c, uint64_t now_ms, uint64_t wall_ms)
{
    uint64_t held = now_ms - c->changed_ms;
    if (c->present && !c->raised && held >= c->settle_ms) {
        c->raised = true;
        c->since_wall_ms = wall_ms - held;
        c->said_ms = now_ms;
        c->count = 1;
        say(s, c, ALARM_RAISED, wall_ms);
    } else if (c->raised && !c->present && held >= ALARM_CLEAR_MS) {
        c->raised = false;
        say(s, c, ALARM_CLEARED, wall_ms);
    } else if (c->raised && !c->once && now_ms - c->said_ms >= s->limits.repeat_ms) {
        c->said_ms = now_ms;
        c->count++;
        say(s, c, ALARM_REPEATED, wall_ms); /* ALS-1; also while it is only just away */
    }
}

/* --- events --- */

/* Its lasting part is a condition, or it is ours. */
static bool is_condition(enum event_kind kind)
{
    static const enum event_kind kinds[] = {EVENT_pool_state, EVENT_member_state, EVENT_rebuild_behind, EVENT_redundancy_low,
                                            EVENT_queue_delayed, EVENT_mail_refused, EVENT_spool_silent, EVENT_smart_failing,
                                            EVENT_scrub_blind};
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i] == kind)
            return true;
    return false;
}

static struct alarm_seen *seen_of(struct alarm_state *s, const struct alarm_event *e)
{
    struct alarm_seen *oldest = &s->seen[0];
    for (uint32_t i = 0; i < ALARM_EVENTS_MAX; i++) {
        struct alarm_seen *one = &s->seen[i];
        if (one->used && one->kind == e->kind && strcmp(one->member, e->member) == 0)
            return one;
        if (oldest->used && (!one->used || one->said_ms < oldest->said_ms))
            oldest = one;
    }
    *oldest = (struct alarm_seen){.kind = e->kind};
    snprintf(oldest->member, sizeof oldest->member, "%s", e->member);
    return oldest;
}

static void say_event(struct alarm_state *s, struct alarm_seen *one, uint64_t now_ms)
{
    struct alarm_note n = {.what = ALARM_HAPPENED, .kind = one->kind, .severity = event_severity(one->kind),
                           .at_ms = one->last.wall_ms, .since_ms = one->last.wall_ms, .count = one->more};
    name_member(s, &n, one->member);
    if (one->last.serial[0])
        snprintf(n.serial, sizeof n.serial, "%s", one->last.serial);
    snprintf(n.evidence, sizeof n.evidence, "%s", one->last.evidence);
    one->used = true;
    one->said_ms = now_ms;
    one->more = 0;
    s->emit(s->owner, &n);
}

void alarm_state_happened(struct alarm_state *s, const struct alarm_event *e, uint64_t now_ms)
{
    if (is_condition(e->kind) || event_severity(e->kind)[0] == 'i')
        return;
    struct alarm_seen *one = seen_of(s, e);
    one->last = *e;
    one->more++;
    if (!one->used || now_ms - one->said_ms >= ALARM_EVENT_GAP_MS)
        say_event(s, one, now_ms);
}

void alarm_state_test(struct alarm_state *s, uint64_t wall_ms)
{
    struct alarm_note n = {.what = ALARM_HAPPENED, .kind = EVENT_alarm_test, .severity = "info", .at_ms = wall_ms,
                           .since_ms = wall_ms, .count = 1, .evidence = "spooltool alarm test"};
    name_member(s, &n, "");
    s->emit(s->owner, &n);
}

void alarm_state_step(struct alarm_state *s, uint64_t now_ms, uint64_t wall_ms)
{
    char text[256];
    bool silent = now_ms - s->saw_ms >= ALARM_SILENT_MS;
    snprintf(text, sizeof text, "the spool process has said nothing for %llu s", (unsigned long long)((now_ms - s->saw_ms) / S));
    set(s, &(struct wanted){EVENT_spool_silent, NULL, "critical", text, 0, silent}, now_ms);
    for (uint32_t i = 0; i < ALARM_CONDITIONS_MAX; i++)
        if (s->conditions[i].used)
            step_condition(s, &s->conditions[i], now_ms, wall_ms);
    for (uint32_t i = 0; i < ALARM_EVENTS_MAX; i++)
        if (s->seen[i].used && s->seen[i].more > 0 && now_ms - s->seen[i].said_ms >= ALARM_EVENT_GAP_MS)
            say_event(s, &s->seen[i], now_ms);
    bool alive = s->saw && !silent && s->view.relay_connected; /* ALS-4 */
    if (s->limits.beat_ms && alive && now_ms - s->beat_ms >= s->limits.beat_ms) {
        struct alarm_note n = {.what = ALARM_BEAT, .severity = "info", .at_ms = wall_ms, .since_ms = wall_ms, .count = 1};
        s->beat_ms = now_ms;
        name_member(s, &n, "");
        s->emit(s->owner, &n);
    }
}
