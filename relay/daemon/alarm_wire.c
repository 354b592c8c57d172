/* SPDX-License-Identifier: Apache-2.0 */
/* See alarm_wire.h.
 *
 *   away [attach] -> connected [state each second, events, reports] -> away [the other end closed] */
#include "alarm_wire.h"

#include "alarm_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define STATE_NS UINT64_C(1000000000)
#define PACKETS_PER_TURN 16u

struct alarm_wire {
    struct spool_process *sp;
    struct io_watch watch;      /* fd -1: away */
    struct io_timer timer;
    struct counts_wait wait;
    bool waiting;
    struct json_out out;
    struct json_in *report;     /* the last one */
    uint64_t next_event;
    enum smart_verdict smart[MEMBERS_MAX]; /* by configured member: what was said last */
    bool failing[MEMBERS_MAX];             /* the engine knows that the drive says so of itself */
    char *packet;
};

static void hang_up(struct alarm_wire *w)
{
    if (w->watch.fd < 0)
        return;
    io_watch_remove(w->sp->io, &w->watch);
    close(w->watch.fd);
    w->watch.fd = -1;
    json_in_free(&w->report);
}

/* False: not now. */
static bool say(struct alarm_wire *w)
{
    if (w->watch.fd < 0 || w->out.failed || w->out.len > ALARM_PACKET_BYTES_MAX)
        return false;
    ssize_t n = send(w->watch.fd, w->out.bytes, w->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        hang_up(w);
    return n >= 0;
}

/* --- how things stand --- */

static void tell(struct alarm_wire *w)
{
    struct pool_status *status = malloc(sizeof *status);
    struct status_view view;
    if (!status)
        return;
    spool_view(w->sp, status, &view);
    json_reset(&w->out);
    alarm_view_write(&view, &w->out);
    (void)say(w);
    free(status);
}

static void counts_are_there(struct counts_wait *wait)
{
    struct alarm_wire *w = wait->owner;
    w->waiting = false;
    tell(w);
}

static void on_second(struct io_timer *t)
{
    struct alarm_wire *w = t->owner;
    io_timer_set(w->sp->io, t, io_now_ns(w->sp->io) + STATE_NS);
    if (w->watch.fd < 0)
        return;
    if (w->waiting) { /* an index that is busy is no silence: the numbers are those of before */
        tell(w);
        return;
    }
    w->wait = (struct counts_wait){.done = counts_are_there, .owner = w};
    w->waiting = true;
    spool_counts_ask(w->sp, &w->wait);
}

void alarm_wire_step(struct alarm_wire *w)
{
    const struct events_log *log = w->sp->events;
    if (w->watch.fd < 0)
        return;
    if (w->next_event < events_log_first(log))
        w->next_event = events_log_first(log);
    for (unsigned n = 0; n < PACKETS_PER_TURN && w->next_event < events_log_next(log); n++) {
        json_reset(&w->out);
        events_log_write(log, w->next_event, &w->out);
        if (!say(w))
            return; /* tried again after the next turn */
        w->next_event++;
    }
}

/* --- what comes back --- */

static void tell_engine(struct alarm_wire *w, uint32_t member, bool failing, const char *evidence)
{
    if (!w->sp->pool || w->failing[member] == failing)
        return; /* without a pool: with one of the next reports */
    if (member_smart(w->sp->pool, w->sp->config->pool.members[member].name, failing, evidence) == ERR_OK)
        w->failing[member] = failing;
}

/* A verdict that became worse is an event, with its evidence; one of failing makes the engine empty the member. */
static void take_smart(struct alarm_wire *w, const struct json_in *in)
{
    const struct pool_config *pool = &w->sp->config->pool;
    for (uint32_t i = 0; i < pool->member_count; i++) {
        char verdict[32], member[32], serial[32], evidence[32];
        snprintf(verdict, sizeof verdict, "smart.%u.verdict", i);
        snprintf(member, sizeof member, "smart.%u.member", i);
        snprintf(serial, sizeof serial, "smart.%u.serial", i);
        snprintf(evidence, sizeof evidence, "smart.%u.evidence", i);
        enum smart_verdict v = smart_verdict_of(json_in_text(in, verdict)), before = w->smart[i];
        if (v == SMART_UNKNOWN || strcmp(json_in_text(in, member), pool->members[i].name) != 0)
            continue;
        w->smart[i] = v;
        tell_engine(w, i, v == SMART_FAILING, json_in_text(in, evidence));
        if (v <= before || v == SMART_PASSED)
            continue;
        events_log_emit(w->sp->events, &(struct event){.kind = v == SMART_FAILING ? EVENT_smart_failing : EVENT_smart_attention,
                                                       .wall_ms = io_wall_ms(w->sp->io), .member = pool->members[i].name,
                                                       .serial = json_in_text(in, serial),
                                                       .evidence = json_in_text(in, evidence)});
    }
}

static void take(struct alarm_wire *w, struct json_in **in)
{
    enum event_kind kind;
    if (json_in_has(*in, "report")) {
        take_smart(w, *in);
        json_in_free(&w->report);
        w->report = *in;
        *in = NULL;
    } else if (event_parse(json_in_text(*in, "say"), &kind) == ERR_OK) {
        events_log_emit(w->sp->events, &(struct event){.kind = kind, .wall_ms = io_wall_ms(w->sp->io), .serial = "",
                                                       .member = json_in_text(*in, "member"),
                                                       .evidence = json_in_text(*in, "evidence")});
    }
}

static void on_ready(struct io_watch *watch, uint32_t events)
{
    struct alarm_wire *w = watch->owner;
    (void)events;
    for (unsigned i = 0; i < PACKETS_PER_TURN && w->watch.fd >= 0; i++) {
        struct json_in *in = NULL;
        ssize_t n = recv(w->watch.fd, w->packet, ALARM_PACKET_BYTES_MAX, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            hang_up(w);
            return;
        }
        if (json_in_parse(w->packet, (size_t)n, NULL, &in) == ERR_OK)
            take(w, &in);
        json_in_free(&in);
    }
}

/* --- life --- */

enum err alarm_wire_open(struct spool_process *sp, struct alarm_wire **wire_out)
{
    struct alarm_wire *w = calloc(1, sizeof *w);
    if (!w || !(w->packet = malloc(ALARM_PACKET_BYTES_MAX))) {
        free(w);
        return ERR_NO_MEMORY;
    }
    w->sp = sp;
    w->watch.fd = -1;
    io_timer_init(&w->timer, on_second, w);
    io_timer_set(sp->io, &w->timer, io_now_ns(sp->io));
    *wire_out = w;
    return ERR_OK;
}

void alarm_wire_attach(struct alarm_wire *w, int fd)
{
    hang_up(w);
    w->watch = (struct io_watch){.fd = fd, .events = EPOLLIN, .ready = on_ready, .owner = w};
    if (io_watch_add(w->sp->io, &w->watch) != ERR_OK) {
        close(fd);
        w->watch.fd = -1;
    }
}

enum err alarm_wire_test(struct alarm_wire *w)
{
    if (w->watch.fd < 0)
        return ERR_NOT_FOUND;
    json_reset(&w->out);
    json_object_begin(&w->out, NULL);
    json_bool(&w->out, "test", true);
    json_object_end(&w->out);
    return say(w) ? ERR_OK : ERR_BUSY;
}

void alarm_wire_view(const struct alarm_wire *w, struct status_view *view)
{
    view->alarm_connected = w && w->watch.fd >= 0;
    view->alarm = w ? w->report : NULL;
}

void alarm_wire_close(struct alarm_wire **wire)
{
    struct alarm_wire *w = *wire;
    *wire = NULL;
    if (!w)
        return;
    hang_up(w);
    spool_counts_forget(&w->wait);
    io_timer_clear(w->sp->io, &w->timer);
    json_in_free(&w->report);
    json_free(&w->out);
    free(w->packet);
    free(w);
}
