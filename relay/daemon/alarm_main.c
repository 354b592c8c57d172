/* SPDX-License-Identifier: Apache-2.0 */
/* The alarm process: hears from the spool how things stand and carries what is wrong outside, by ways that are not our
 * own queue: hook, webhook, heartbeat. It also asks the disks for their health.
 *
 *   begin (runner of smartctl, certificates, log: with privileges) -> sandbox -> serve -> [stop] -> exit 0
 *
 *  ALM-1  no disk and no mail; its privileges are gone before the first byte from outside is read. The one process that
 *         keeps them runs smartctl and reads nothing (smart_run.h).
 *  ALM-2  mail never waits for it: the spool talks to it without waiting, and nothing asks it anything.
 *  ALM-3  every channel is bounded, in tries and in time, and none waits for another (alarm_queue.h).
 * What is raised and when: alarm_state.c. */
#include "alarm_hook.h"
#include "alarm_post.h"
#include "alarm_queue.h"
#include "alarm_state.h"
#include "alarm_view.h"
#include "child.h"
#include "sandbox.h"
#include "smart_run.h"

#include <errno.h>
#include <log.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <tls.h>
#include <unistd.h>

#define STEP_MS 250u
#define REPORT_MS 1000u
#define SMART_AGAIN_MS 2000u   /* one device after the other */
#define PACKETS_PER_TURN 64u
#define SERVICE "alarm"

struct channel {
    struct alarm_queue queue;
    bool wanted;
};

struct alarm {
    const struct child_start *start;
    const struct config *config;
    struct loop *loop;
    struct dns *dns;
    struct tls_context *tls;
    struct alarm_state state;
    struct channel by_hook, by_webhook, by_heartbeat;
    struct alarm_hook hook;
    struct alarm_post webhook, heartbeat;
    struct smart_run smart;
    struct smart_device devices[MEMBERS_MAX];
    struct smart_report reports[MEMBERS_MAX];
    uint64_t smart_next_ms;    /* loop time; when the next device is asked */
    uint32_t smart_member;
    bool smart_said[MEMBERS_MAX];
    struct loop_watch control, spool; /* spool.fd -1: no connection */
    struct loop_timer alive, step, report;
    struct json_out json;
    char *packet;
    uint64_t last_beat_ms;     /* wall clock; the last heartbeat that arrived */
    char sandbox[256];
};

/* --- to the spool --- */

static void spool_gone(struct alarm *a)
{
    if (a->spool.fd < 0)
        return;
    loop_watch_remove(&a->spool);
    close(a->spool.fd);
    a->spool.fd = -1;
}

static void tell_spool(struct alarm *a)
{
    if (a->spool.fd < 0 || a->json.failed)
        return;
    ssize_t n = send(a->spool.fd, a->json.bytes, a->json.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        spool_gone(a);
}

/* For the spool's log of events: what the spool cannot see by itself. */
static void say_event(struct alarm *a, const struct alarm_note *n)
{
    char text[256];
    bool ours = n->kind == EVENT_redundancy_low || n->kind == EVENT_queue_delayed || n->kind == EVENT_mail_refused ||
                n->kind == EVENT_spool_silent;
    bool over = n->what == ALARM_CLEARED && (ours || n->kind == EVENT_smart_failing);
    if (!over && !(ours && n->what == ALARM_RAISED))
        return;
    snprintf(text, sizeof text, "%s after %llu s: %s", event_name(n->kind),
             (unsigned long long)((n->at_ms - n->since_ms) / 1000), n->evidence);
    json_reset(&a->json);
    json_object_begin(&a->json, NULL);
    json_text(&a->json, "say", event_name(over ? EVENT_alarm_cleared : n->kind));
    json_text(&a->json, "member", n->member);
    json_text(&a->json, "evidence", over ? text : n->evidence);
    json_object_end(&a->json);
    tell_spool(a);
}

static void report_channel(struct alarm *a, const char *name, const struct channel *c)
{
    json_object_begin(&a->json, name);
    json_bool(&a->json, "configured", c->wanted);
    json_count(&a->json, "sent", c->queue.sent);
    json_count(&a->json, "failed", c->queue.failed);
    json_count(&a->json, "dropped", c->queue.dropped);
    json_count(&a->json, "waiting", c->queue.count);
    json_object_end(&a->json);
}

static void report_raised(struct alarm *a)
{
    json_array_begin(&a->json, "raised");
    for (uint32_t i = 0; i < ALARM_CONDITIONS_MAX; i++) {
        const struct alarm_condition *c = &a->state.conditions[i];
        if (!c->used || !c->raised)
            continue;
        json_object_begin(&a->json, NULL);
        json_text(&a->json, "event", event_name(c->kind));
        json_text(&a->json, "member", c->member);
        json_text(&a->json, "severity", c->severity);
        json_count(&a->json, "since_ms", c->since_wall_ms);
        json_count(&a->json, "count", c->count);
        json_text(&a->json, "evidence", c->evidence);
        json_object_end(&a->json);
    }
    json_array_end(&a->json);
}

static void report_smart(struct alarm *a)
{
    json_array_begin(&a->json, "smart");
    for (uint32_t i = 0; i < a->config->pool.member_count; i++) {
        const struct smart_report *r = &a->reports[i];
        json_object_begin(&a->json, NULL);
        json_text(&a->json, "member", a->config->pool.members[i].name);
        smart_report_members(r, &a->json);
        json_object_end(&a->json);
    }
    json_array_end(&a->json);
}

static void on_report(struct loop_timer *t)
{
    struct alarm *a = t->owner;
    loop_timer_set(t, REPORT_MS);
    json_reset(&a->json);
    json_object_begin(&a->json, NULL);
    json_object_begin(&a->json, "report");
    report_channel(a, "hook", &a->by_hook);
    report_channel(a, "webhook", &a->by_webhook);
    report_channel(a, "heartbeat", &a->by_heartbeat);
    json_count(&a->json, "last_heartbeat_ms", a->last_beat_ms);
    report_raised(a);
    json_object_end(&a->json);
    report_smart(a);
    json_object_end(&a->json);
    tell_spool(a);
}

/* --- channels --- */

static void on_note(void *owner, const struct alarm_note *n)
{
    struct alarm *a = owner;
    char name[48];
    bool beat = n->what == ALARM_BEAT;
    alarm_note_name(n, name);
    if (!beat && n->what != ALARM_HAPPENED) /* the spool has logged those */
        log_line(SERVICE, "%s%s %s%s%s: %s", n->what == ALARM_CLEARED ? "" : "warning: ", alarm_what_word(n->what), name,
                 n->member[0] ? " member=" : "", n->member, n->evidence);
    say_event(a, n);
    if (beat && !a->by_heartbeat.wanted && !a->config->alarm.heartbeat_hook)
        a->last_beat_ms = n->at_ms; /* the metric is the heartbeat */
    if (beat && a->by_heartbeat.wanted)
        alarm_queue_put(&a->by_heartbeat.queue, n);
    if (a->by_hook.wanted && (!beat || a->config->alarm.heartbeat_hook))
        alarm_queue_put(&a->by_hook.queue, n);
    if (a->by_webhook.wanted && !beat)
        alarm_queue_put(&a->by_webhook.queue, n);
}

static void ended(struct alarm *a, struct channel *c, const char *name, bool ok, const char *text)
{
    const struct alarm_queue *q = &c->queue;
    uint64_t given_up = q->failed;
    enum alarm_what what = q->notes[0].what;
    alarm_queue_done(&c->queue, ok, loop_now_ms(a->loop));
    if (ok && what == ALARM_BEAT)
        a->last_beat_ms = loop_wall_ms(a->loop);
    if (!ok)
        log_line(SERVICE, "warning: the %s failed: %s%s", name, text, q->failed > given_up ? "; given up" : "; tried again");
}

static void hook_ended(struct alarm_hook *h, bool ok, const char *text)
{
    ended(h->owner, &((struct alarm *)h->owner)->by_hook, "hook", ok, text);
}

static void webhook_ended(struct alarm_post *p, bool ok, const char *text)
{
    ended(p->owner, &((struct alarm *)p->owner)->by_webhook, "webhook", ok, text);
}

static void heartbeat_ended(struct alarm_post *p, bool ok, const char *text)
{
    ended(p->owner, &((struct alarm *)p->owner)->by_heartbeat, "heartbeat", ok, text);
}

static void pump(struct alarm *a)
{
    uint64_t now = loop_now_ms(a->loop);
    const struct alarm_note *n;
    if ((n = alarm_queue_next(&a->by_hook.queue, now)) != NULL) {
        enum err e = alarm_hook_start(&a->hook, n);
        if (e != ERR_OK)
            ended(a, &a->by_hook, "hook", false, err_text(e));
    }
    if ((n = alarm_queue_next(&a->by_webhook.queue, now)) != NULL) {
        json_reset(&a->json);
        alarm_note_json(n, a->config->settings.hostname, &a->json);
        enum err e = a->json.failed ? ERR_NO_MEMORY : alarm_post_start(&a->webhook, a->json.bytes, a->json.len);
        if (e != ERR_OK)
            ended(a, &a->by_webhook, "webhook", false, err_text(e));
    }
    if (alarm_queue_next(&a->by_heartbeat.queue, now) != NULL) {
        enum err e = alarm_post_start(&a->heartbeat, NULL, 0);
        if (e != ERR_OK)
            ended(a, &a->by_heartbeat, "heartbeat", false, err_text(e));
    }
}

/* --- the disks' health --- */

static void smart_came(struct smart_run *run, uint32_t member, const char *bytes, uint32_t len)
{
    struct alarm *a = run->owner;
    struct smart_report r;
    const char *name = a->config->pool.members[member].name;
    smart_parse(bytes, len, &r);
    if (r.verdict == SMART_UNKNOWN) { /* in standby, pulled, or without SMART: what was known stays */
        if (!a->smart_said[member])
            log_line(SERVICE, "SMART of member \"%s\" (%s): %s", name, a->devices[member].device, r.evidence);
        a->smart_said[member] = true;
        if (a->reports[member].verdict == SMART_UNKNOWN)
            a->reports[member] = r;
        return;
    }
    if (r.verdict != a->reports[member].verdict)
        log_line(SERVICE, "SMART of member \"%s\" (%s): %s: %s", name, a->devices[member].device,
                 smart_verdict_word(r.verdict), r.evidence);
    a->reports[member] = r;
    alarm_state_smart(&a->state, name, r.verdict == SMART_FAILING, r.evidence, loop_now_ms(a->loop));
}

static void ask_smart(struct alarm *a)
{
    uint64_t now = loop_now_ms(a->loop);
    if (a->smart.fd < 0 || a->smart.asking || now < a->smart_next_ms)
        return;
    while (a->smart_member < MEMBERS_MAX && !a->devices[a->smart_member].used)
        a->smart_member++;
    if (a->smart_member == MEMBERS_MAX) {
        a->smart_member = 0;
        a->smart_next_ms = now + a->config->alarm.smart_interval_ms;
        return;
    }
    a->smart_next_ms = now + SMART_AGAIN_MS;
    if (smart_run_ask(&a->smart, a->smart_member++) == ERR_SYSTEM) {
        log_line(SERVICE, "error: smartctl's runner is gone; the disks' health is not read until this process is replaced");
        smart_run_close(&a->smart);
    }
}

/* A device of a member: what the configuration names, else the member itself when it is a block device. */
static void choose_devices(struct alarm *a)
{
    const struct config *c = a->config;
    const char *smartctl = c->alarm.smartctl;
    bool there = smartctl[0] && access(smartctl, X_OK) == 0;
    if (smartctl[0] && !there)
        log_line(SERVICE, "SMART is not read: smartctl = \"%s\": %s", smartctl, strerror(errno));
    for (uint32_t i = 0; there && i < c->pool.member_count; i++) {
        struct smart_device *d = &a->devices[i];
        snprintf(d->device, sizeof d->device, "%s", c->smart[i].device);
        snprintf(d->type, sizeof d->type, "%s", c->smart[i].type);
        d->used = d->device[0] || smart_device_find(c->pool.members[i].path, d->device) == ERR_OK;
        snprintf(a->reports[i].evidence, sizeof a->reports[i].evidence, d->used ? "not asked yet" : "the member is no disk");
        if (!d->used)
            log_line(SERVICE, "SMART of member \"%s\" is not read: it is no disk; smart_device names the disk below it",
                     c->pool.members[i].name);
    }
}

/* --- hearing --- */

static void take(struct alarm *a, const struct json_in *in)
{
    struct alarm_view view;
    struct alarm_event event;
    uint64_t now = loop_now_ms(a->loop);
    if (json_in_has(in, "state")) {
        alarm_view_read(in, &view);
        alarm_state_saw(&a->state, &view, now);
    } else if (json_in_true(in, "test")) {
        alarm_state_test(&a->state, loop_wall_ms(a->loop));
    } else if (alarm_event_read(in, &event) == ERR_OK) {
        alarm_state_happened(&a->state, &event, now);
    }
}

static void on_spool(struct loop_watch *w, bool readable, bool writable)
{
    struct alarm *a = w->owner;
    (void)readable;
    (void)writable;
    for (unsigned i = 0; i < PACKETS_PER_TURN; i++) {
        struct json_in *in = NULL;
        ssize_t n = recv(w->fd, a->packet, ALARM_PACKET_BYTES_MAX, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            spool_gone(a);
            break;
        }
        if (json_in_parse(a->packet, (size_t)n, NULL, &in) == ERR_OK)
            take(a, in);
        json_in_free(&in);
    }
    pump(a);
}

static void take_spool(struct alarm *a, int fd)
{
    spool_gone(a);
    a->spool = (struct loop_watch){.fd = fd, .ready = on_spool, .owner = a};
    if (loop_watch_add(a->loop, &a->spool, true, false) != ERR_OK) {
        close(fd);
        a->spool.fd = -1;
    }
}

static void on_control(struct loop_watch *w, bool readable, bool writable)
{
    struct alarm *a = w->owner;
    struct control_message m;
    enum err e;
    (void)readable;
    (void)writable;
    while ((e = control_receive(w->fd, &m)) == ERR_OK) {
        if (m.kind == CONTROL_ALARM && m.fd >= 0)
            take_spool(a, m.fd);
        else if (m.kind == CONTROL_STOP)
            loop_stop(a->loop); /* what waits in the queues is said anew by the next one, if it is still so */
    }
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED); /* SPV-2 */
}

static void on_alive(struct loop_timer *t)
{
    struct alarm *a = t->owner;
    loop_timer_set(t, CONTROL_ALIVE_MS);
    enum err e = control_send(a->start->control, CONTROL_ALIVE, 0, -1, NULL);
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED);
}

static void on_step(struct loop_timer *t)
{
    struct alarm *a = t->owner;
    loop_timer_set(t, STEP_MS);
    alarm_state_step(&a->state, loop_now_ms(a->loop), loop_wall_ms(a->loop));
    ask_smart(a);
    pump(a);
}

/* --- begin and end --- */

/* Read while we still may. */
static enum err open_tls(struct alarm *a)
{
    const struct config_alarm *c = &a->config->alarm;
    char text[256] = "";
    if (!a->webhook.url.tls && !a->heartbeat.url.tls)
        return ERR_OK;
    enum err e = tls_client_open(true, c->webhook_ca_file, text, &a->tls);
    if (e != ERR_OK)
        log_line(SERVICE, "fatal: webhook_ca_file: %s", text);
    return e;
}

static enum err choose_channels(struct alarm *a)
{
    const struct config_alarm *c = &a->config->alarm;
    char why[256];
    a->by_hook.wanted = c->hook_program[0] != '\0';
    a->by_webhook.wanted = c->webhook[0] != '\0';
    a->by_heartbeat.wanted = c->heartbeat_url[0] != '\0';
    enum err e = a->by_webhook.wanted ? alarm_url_parse(c->webhook, &a->webhook.url, why) : ERR_OK;
    if (e == ERR_OK && a->by_heartbeat.wanted)
        e = alarm_url_parse(c->heartbeat_url, &a->heartbeat.url, why);
    return e; /* config_check has seen both */
}

static enum err open_channels(struct alarm *a)
{
    const struct config_alarm *c = &a->config->alarm;
    enum err e = a->by_webhook.wanted || a->by_heartbeat.wanted
                     ? dns_open(a->loop, a->config->settings.hostname, NULL, &a->dns) : ERR_OK;
    a->hook = (struct alarm_hook){.loop = a->loop, .program = c->hook_program, .host = a->config->settings.hostname,
                                  .limit_ms = c->hook_timeout_ms, .owner = a, .done = hook_ended};
    alarm_hook_open(&a->hook);
    struct alarm_post *const posts[] = {&a->webhook, &a->heartbeat};
    for (unsigned i = 0; i < 2; i++) {
        posts[i]->loop = a->loop;
        posts[i]->dns = a->dns;
        posts[i]->tls = a->tls;
        posts[i]->owner = a;
        posts[i]->done = i == 0 ? webhook_ended : heartbeat_ended;
        alarm_post_open(posts[i]);
    }
    return e;
}

static enum err begin(struct alarm *a)
{
    const struct config_alarm *c = &a->config->alarm;
    struct alarm_limits limits = {.repeat_ms = c->repeat_ms, .beat_ms = c->heartbeat_ms,
                                  .late_seconds = (double)c->delay_ms / 1000.0};
    enum err e = open_tls(a);
    if (e != ERR_OK)
        return e;
    e = sandbox_alarm(a->config, &a->start->identity, a->sandbox); /* before there are threads */
    log_line(SERVICE, "sandbox: %s", a->sandbox);
    if (e == ERR_OK)
        e = open_channels(a);
    if (e == ERR_OK && a->smart.fd >= 0) {
        a->smart.loop = a->loop;
        a->smart.owner = a;
        a->smart.done = smart_came;
        e = smart_run_open(&a->smart);
    }
    a->packet = malloc(ALARM_PACKET_BYTES_MAX);
    if (e != ERR_OK || !a->packet)
        return e != ERR_OK ? e : ERR_NO_MEMORY;
    alarm_state_init(&a->state, &limits, loop_now_ms(a->loop));
    a->state.owner = a;
    a->state.emit = on_note;
    a->control = (struct loop_watch){.fd = a->start->control, .ready = on_control, .owner = a};
    loop_timer_init(a->loop, &a->alive, on_alive, a);
    loop_timer_init(a->loop, &a->step, on_step, a);
    loop_timer_init(a->loop, &a->report, on_report, a);
    loop_timer_set(&a->alive, CONTROL_ALIVE_MS);
    loop_timer_set(&a->step, STEP_MS);
    loop_timer_set(&a->report, 0);
    e = loop_watch_add(a->loop, &a->control, true, false);
    return e == ERR_OK ? control_send(a->start->control, CONTROL_READY, 0, -1, a->sandbox) : e;
}

static void end(struct alarm *a)
{
    alarm_hook_close(&a->hook);
    alarm_post_close(&a->webhook);
    alarm_post_close(&a->heartbeat);
    dns_close(&a->dns);
    smart_run_close(&a->smart);
    spool_gone(a);
    if (a->control.read_event)
        loop_watch_remove(&a->control);
    loop_timer_fini(&a->alive);
    loop_timer_fini(&a->step);
    loop_timer_fini(&a->report);
    if (a->loop)
        conn_forget_left(a->loop);
    tls_context_unref(&a->tls);
    json_free(&a->json);
    free(a->packet);
    log_close();
    if (a->loop)
        loop_close(&a->loop);
    struct config *config = (struct config *)a->config;
    config_free(&config);
}

int alarm_main(const struct child_start *start)
{
    static struct alarm alarm; /* one a process, and too large for the stack */
    struct alarm *a = &alarm;
    a->start = start;
    a->config = start->config;
    a->smart.fd = a->spool.fd = -1;
    mallopt(M_ARENA_MAX, 2);
    enum err e = loop_open(&a->loop);
    if (e == ERR_OK)
        e = log_open(a->loop, a->config->settings.syslog_name, a->config->log_file[0] ? a->config->log_file : NULL);
    if (e == ERR_OK)
        e = choose_channels(a);
    choose_devices(a);
    log_flush();
    if (e == ERR_OK)
        e = smart_run_fork(a->config->alarm.smartctl, a->devices, &a->smart.fd);
    if (e == ERR_OK)
        e = begin(a);
    if (e == ERR_OK)
        loop_run(a->loop);
    else
        log_line(SERVICE, "fatal: %s", err_text(e));
    end(a);
    return e == ERR_OK ? 0 : CHILD_FAILED;
}
