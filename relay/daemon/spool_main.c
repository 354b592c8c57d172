/* SPDX-License-Identifier: Apache-2.0 */
/* The spool process: disks, index, wire and control socket on one loop.
 *
 *   members_open -> io -> pool_mount -> serve -> [stop] -> pool_unmount -> exit 0
 *                          | refused: answer the control socket, wait, exit CHILD_AGAIN: fresh opens, next try
 *   index damaged while running -> unmount, exit CHILD_INDEX
 *
 *  SPM-1  the loop blocks in io_turn only; log lines are written between turns and never waited for.
 *  SPM-2  a pool that cannot be mounted is a state that is shown, never a crash loop.
 *  SPM-3  a member that was not there at the mount joins by a clean remount, at most once in REJOIN_AFTER_NS. */
#include "admin.h"
#include "alarm_wire.h"
#include "board.h"
#include "fault_live.h"
#include "sandbox.h"
#include "spool_process.h"
#include "spool_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define NS_PER_MS UINT64_C(1000000)
#define TURN_NS (200 * NS_PER_MS)
#define RETRY_NS (3000 * NS_PER_MS)       /* a pool below policy: how soon its members are opened again */
#define REJOIN_NS (5000 * NS_PER_MS)
#define REJOIN_AFTER_NS (30000 * NS_PER_MS) /* a member that flaps costs two remounts a minute */
#define ADMIN_STOP_NS (100 * NS_PER_MS)    /* who has just connected gets an answer */
#define WIRE_STOP_NS (2000 * NS_PER_MS)
#define SERVICE "spool"

/* --- what is said about us --- */

static void unmounted_status(struct spool_process *sp, struct pool_status *o)
{
    const struct pool_config *p = &sp->config->pool;
    *o = (struct pool_status){.state = sp->mount_error == ERR_BELOW_POLICY ? POOL_READ_ONLY : POOL_FAILED,
                              .copies = p->copies, .min_copies = p->min_copies, .member_count = p->member_count,
                              .accepting = sp->mount_error == ERR_OK ? ERR_SPOOL_GONE : sp->mount_error};
    snprintf(o->action, sizeof o->action, "%s", sp->mount_text);
    for (uint32_t i = 0; i < p->member_count; i++) {
        struct pool_member_status *m = &o->members[i];
        snprintf(m->name, sizeof m->name, "%s", p->members[i].name);
        snprintf(m->path, sizeof m->path, "%s", p->members[i].path);
        snprintf(m->domain, sizeof m->domain, "%s", p->members[i].domain);
        snprintf(m->evidence, sizeof m->evidence, "%s", sp->members.why[i]);
        m->state = sp->members.locked_elsewhere[i] ? MEMBER_SUSPECT : MEMBER_ABSENT;
        m->since_ms = sp->io ? io_wall_ms(sp->io) : 0;
        if (sp->io && io_target_count(sp->io) > i && io_target(sp->io, (uint16_t)i)->present) {
            const struct io_target *t = io_target(sp->io, (uint16_t)i);
            snprintf(m->evidence, sizeof m->evidence, "opened; the pool is not mounted");
            snprintf(m->serial, sizeof m->serial, "%s", t->serial);
            m->bytes_total = t->bytes;
            m->state = MEMBER_SUSPECT;
        }
        o->bytes_total += m->bytes_total;
    }
}

static void fill_members(struct spool_process *sp, struct pool_status *o)
{
    for (uint32_t i = 0; i < o->member_count; i++) {
        struct pool_member_status *m = &o->members[i];
        for (uint32_t c = 0; c < sp->config->pool.member_count; c++) {
            const struct pool_member_config *config = &sp->config->pool.members[c];
            if (strcmp(config->name, m->name) != 0)
                continue;
            if (!m->path[0])
                snprintf(m->path, sizeof m->path, "%s", config->path);
            if (m->state == MEMBER_ABSENT && sp->members.why[c][0])
                snprintf(m->evidence, sizeof m->evidence, "%s", sp->members.why[c]);
        }
    }
}

void spool_view(struct spool_process *sp, struct pool_status *status, struct status_view *view)
{
    *view = (struct status_view){.pool = status, .mounted = sp->pool != NULL, .mount_text = sp->mount_text,
                                 .io_engine = sp->io->ops->name(sp->io), .io_why = sp->io_why,
                                 .uptime_seconds = (double)(io_now_ns(sp->io) - sp->started_ns) / 1e9,
                                 .queue = sp->counts, .relay = sp->relay, .events = sp->events,
                                 .fault_injection = sp->config->fault_injection};
    fault_live_rows(sp, view);
    alarm_wire_view(sp->alarm, view);
    if (sp->pool) {
        pool_status(sp->pool, status);
        fill_members(sp, status);
        upkeep_status(sp->pool, &view->upkeep);
        view->now_ms = pool_clock_ms(sp->pool);
        view->relay_connected = sp->wire && spool_wire_connected(sp->wire);
    } else {
        unmounted_status(sp, status);
        view->now_ms = io_wall_ms(sp->io);
    }
}

/* --- the queue's counters --- */

static void counts_tell(struct spool_process *sp)
{
    struct link *l;
    while ((l = link_pop(&sp->waits)) != NULL) {
        struct counts_wait *w = CONTAINER_OF(l, struct counts_wait, link);
        w->done(w);
    }
}

static void counts_came(struct index_query *q, enum err e)
{
    struct spool_process *sp = q->owner;
    sp->summary_running = false;
    if (e == ERR_OK)
        sp->counts = q->counts;
    index_query_fini(q);
    counts_tell(sp);
}

void spool_counts_ask(struct spool_process *sp, struct counts_wait *w)
{
    struct index *index = sp->pool ? spool_index(sp->pool) : NULL;
    if (!index || !spool_index_open(sp->pool) || sp->stop) {
        w->done(w);
        return;
    }
    w->link = (struct link){0};
    link_push(&sp->waits, &w->link);
    if (sp->summary_running)
        return;
    sp->summary_running = true;
    sp->summary = (struct index_query){.kind = INDEX_SUMMARY, .done = counts_came, .owner = sp,
                                       .now_ms = pool_clock_ms(sp->pool)};
    index_query(index, &sp->summary);
}

void spool_counts_forget(struct counts_wait *w)
{
    if (link_linked(&w->link))
        link_remove(&w->link);
}

/* --- the relay asks --- */

struct document {
    struct counts_wait wait;
    struct spool_process *sp;
    uint32_t request;
    char kind[32];
};

static void make_document(struct spool_process *sp, const char *kind, struct json_out *j)
{
    struct pool_status *status = malloc(sizeof *status);
    struct status_view view;
    j->failed = j->failed || !status;
    if (!status)
        return;
    spool_view(sp, status, &view);
    if (strcmp(kind, "metrics") == 0)
        metrics_doc(&view, j);
    else if (strcmp(kind, "text") == 0)
        status_doc_text(&view, j);
    else if (strcmp(kind, "status") == 0)
        status_doc_json(&view, j);
    free(status);
}

/* There is no wire without a pool: what there is to say is posted. */
static void post_documents(struct spool_process *sp)
{
    static const char *const kinds[] = {"status", "text", "metrics"};
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct json_out j = {0};
        make_document(sp, kinds[i], &j);
        if (!j.failed)
            board_post(sp->start->board, kinds[i], j.bytes, (uint32_t)j.len);
        json_free(&j);
    }
    board_post(sp->start->board, "health", sp->mount_text, (uint32_t)strlen(sp->mount_text));
}

static void document_answer(struct counts_wait *w)
{
    struct document *d = CONTAINER_OF(w, struct document, wait);
    struct spool_process *sp = d->sp;
    struct json_out j = {0};
    make_document(sp, d->kind, &j);
    enum err e = j.failed ? ERR_NO_MEMORY : j.len == 0 ? ERR_INVALID : ERR_OK;
    if (sp->wire)
        spool_wire_document(sp->wire, d->request, e, j.bytes, e == ERR_OK ? (uint32_t)j.len : 0);
    json_free(&j);
    free(d);
}

static void on_document(void *owner, uint32_t request, const char *kind)
{
    struct spool_process *sp = owner;
    struct document *d = calloc(1, sizeof *d);
    if (!d) {
        spool_wire_document(sp->wire, request, ERR_NO_MEMORY, NULL, 0);
        return;
    }
    d->sp = sp;
    d->request = request;
    d->wait.done = document_answer;
    snprintf(d->kind, sizeof d->kind, "%s", kind);
    spool_counts_ask(sp, &d->wait);
}

static void on_report(void *owner, const char *json, uint32_t len)
{
    struct spool_process *sp = owner;
    struct json_in *report = NULL;
    if (json_in_parse(json, len, NULL, &report) != ERR_OK)
        return; /* the last good one stays */
    json_in_free(&sp->relay);
    sp->relay = report;
}

static void on_wire_log(void *owner, const char *line)
{
    (void)owner;
    log_line(SERVICE, "%s", line);
}

/* --- the supervisor --- */

static void take_wire(struct spool_process *sp, int fd)
{
    if (!sp->wire) {
        if (sp->wire_fd >= 0)
            close(sp->wire_fd);
        sp->wire_fd = fd;
        return;
    }
    enum err e = spool_wire_attach(sp->wire, fd);
    if (e != ERR_OK)
        log_line(SERVICE, "error: the relay's connection could not be taken: %s", err_text(e));
}

static void on_control(struct io_watch *watch, uint32_t events)
{
    struct spool_process *sp = watch->owner;
    struct control_message m;
    enum err e;
    (void)events;
    while ((e = control_receive(watch->fd, &m)) == ERR_OK) {
        if (m.kind == CONTROL_WIRE && m.fd >= 0)
            take_wire(sp, m.fd);
        else if (m.kind == CONTROL_ALARM && m.fd >= 0)
            alarm_wire_attach(sp->alarm, m.fd);
        else if (m.kind == CONTROL_STOP)
            sp->stop = true;
        else if (m.kind == CONTROL_REOPEN && sp->config->log_file[0] &&
                 log_open(sp->loop, sp->config->settings.syslog_name, sp->config->log_file) != ERR_OK)
            log_line(SERVICE, "warning: log_file: %s: %s", sp->config->log_file, strerror(errno));
    }
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED); /* SPV-2; a cut is what the log is made for */
}

static void say_alive(struct spool_process *sp, enum control_kind kind, const char *text)
{
    enum err e = control_send(sp->start->control, kind, 0, -1, text);
    if (e == ERR_CANCELED)
        _exit(CHILD_FAILED);
}

static void plan_exit(struct spool_process *sp, int code, uint64_t in_ns)
{
    sp->exit_code = code;
    sp->exit_at_ns = io_now_ns(sp->io) + in_ns;
}

static void check_index(struct spool_process *sp)
{
    struct pool_status *status = malloc(sizeof *status);
    if (!status)
        return;
    pool_status(sp->pool, status);
    if (status->index_damaged) {
        log_line(SERVICE, "error: the index is damaged: it is discarded and made again from the log");
        plan_exit(sp, CHILD_INDEX, 0);
    }
    free(status);
}

static void on_alive(struct io_timer *t)
{
    struct spool_process *sp = t->owner;
    io_timer_set(sp->io, t, io_now_ns(sp->io) + CONTROL_ALIVE_MS * NS_PER_MS);
    say_alive(sp, CONTROL_ALIVE, NULL);
    if (sp->wire && !sp->exit_at_ns)
        check_index(sp);
}

/* Which configured members are not in service because they are not there: a mask. */
static uint32_t members_missing(struct spool_process *sp)
{
    struct pool_status *status = malloc(sizeof *status);
    uint32_t missing = 0;
    if (!status)
        return 0;
    pool_status(sp->pool, status);
    for (uint32_t i = 0; i < sp->members.count; i++) {
        bool absent = sp->members.why[i][0] != '\0'; /* not opened at the mount */
        for (uint32_t m = 0; m < status->member_count && !absent; m++)
            absent = status->members[m].state == MEMBER_ABSENT &&
                     strcmp(status->members[m].name, sp->config->pool.members[i].name) == 0;
        missing |= absent ? 1u << i : 0;
    }
    free(status);
    return missing;
}

/* SPM-3. Seen twice in a row: a path that appears is often not yet the whole disk. One that vanished while we had it can
 * be locked anew only when it is another file or device node than the one we still hold. */
static void on_rejoin(struct io_timer *t)
{
    struct spool_process *sp = t->owner;
    uint64_t now = io_now_ns(sp->io);
    io_timer_set(sp->io, t, now + REJOIN_NS);
    uint32_t missing = sp->wire && !sp->exit_at_ns ? members_missing(sp) : 0;
    for (uint32_t i = 0; i < sp->members.count; i++) {
        uint32_t bit = 1u << i;
        bool could = (missing & bit) && members_could_open(&sp->config->pool.members[i]);
        bool again = could && (sp->rejoin_seen & bit);
        sp->rejoin_seen = could ? sp->rejoin_seen | bit : sp->rejoin_seen & ~bit;
        if (!again || sp->exit_at_ns || (!sp->members.locked_elsewhere[i] && now - sp->started_ns < REJOIN_AFTER_NS))
            continue;
        log_line(SERVICE, "member \"%s\" is there now: the pool is mounted again with it", sp->config->pool.members[i].name);
        plan_exit(sp, CHILD_AGAIN, 0);
    }
}

/* --- the index --- */

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                           struct index **index_out)
{
    struct spool_process *sp = owner;
    char directory[256];
    snprintf(directory, sizeof directory, "%s/index", sp->config->state_directory);
    if (discard || sp->start->discard_index) {
        enum err e = index_lmdb_discard(directory);
        log_line(SERVICE, "the index is discarded and made again from the log");
        if (e != ERR_OK && e != ERR_NOT_FOUND)
            return e;
    }
    return index_lmdb_open(directory, pool, cb, index_out);
}

static void index_mark(struct spool_process *sp, bool on)
{
    char path[256];
    index_marker_path(sp->config, path);
    sp->marked = on;
    if (!on) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

/* pool_step dispatches; here it is enough to have woken up. */
static void on_index(struct io_watch *watch, uint32_t events)
{
    (void)watch;
    (void)events;
}

/* --- begin --- */

static enum err open_io(struct spool_process *sp)
{
    members_open(&sp->config->pool, &sp->members);
    for (uint32_t i = 0; i < sp->members.count; i++)
        if (sp->members.members[i].fd < 0)
            log_line(SERVICE, "warning: member \"%s\": %s: %s", sp->config->pool.members[i].name,
                     sp->config->pool.members[i].path, sp->members.why[i]);
    enum err e = io_real_open(sp->config->io_engine, sp->members.members, sp->members.count, &sp->io, &sp->io_why);
    if (e != ERR_OK) {
        log_line(SERVICE, "fatal: io_engine: %s: %s", err_text(e), sp->io_why ? sp->io_why : "");
        return e;
    }
    e = fault_live_open(sp);
    if (e != ERR_OK)
        return e;
    sp->started_ns = io_now_ns(sp->io);
    sp->control_watch = (struct io_watch){.fd = sp->start->control, .events = EPOLLIN, .ready = on_control, .owner = sp};
    io_timer_init(&sp->alive, on_alive, sp);
    io_timer_init(&sp->rejoin, on_rejoin, sp);
    e = alarm_wire_open(sp, &sp->alarm);
    if (e == ERR_OK)
        e = io_watch_add(sp->io, &sp->control_watch);
    return e == ERR_OK ? admin_open(sp, sp->start->admin_fd, &sp->admin) : e;
}

/* Which pool was mounted here before: decides when two members of two pools are all there is. Derived data. */
static void pool_note_path(const struct spool_process *sp, char path[512])
{
    snprintf(path, 512, "%s/pool", sp->config->state_directory);
}

static void pool_note_read(const struct spool_process *sp, struct uuid *expected)
{
    char path[512], text[UUID_TEXT] = "";
    pool_note_path(sp, path);
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    if (fgets(text, sizeof text, f) && uuid_parse(text, expected) != ERR_OK)
        *expected = (struct uuid){0};
    fclose(f);
}

static void pool_note_write(const struct spool_process *sp, struct uuid expected)
{
    char path[512], text[UUID_TEXT];
    struct pool_status *status = calloc(1, sizeof *status);
    if (!status)
        return;
    pool_status(sp->pool, status);
    if (!uuid_equal(status->uuid, expected)) {
        pool_note_path(sp, path);
        uuid_print(status->uuid, text);
        FILE *f = fopen(path, "we");
        bool written = f && fprintf(f, "%s\n", text) > 0;
        if (!f || fclose(f) != 0 || !written)
            log_line(SERVICE, "warning: %s: %s", path, strerror(errno));
    }
    free(status);
}

static enum err mount(struct spool_process *sp)
{
    struct pool_config config = sp->config->pool;
    pool_note_read(sp, &config.expected);
    struct spool_wire_hooks hooks = {.owner = sp, .on_document = on_document, .on_report = on_report, .on_log = on_wire_log,
                                    .trays = sp->start->trays};
    struct pool *pool = NULL;
    config.sink.owner = sp->events;
    config.sink.emit = events_log_emit;
    config.index.owner = sp;
    config.index.open = open_index;
    index_mark(sp, true);
    sp->mount_text = "the pool is being mounted";
    enum err e = pool_mount(fault_live_door(sp), &config, &pool, &sp->mount_text);
    if (e != ERR_OK) {
        index_mark(sp, false);
        return e;
    }
    sp->pool = pool;
    pool_note_write(sp, config.expected);
    sp->index_watch = (struct io_watch){.fd = index_event_fd(spool_index(pool)), .events = EPOLLIN, .ready = on_index,
                                        .owner = sp};
    if (sp->index_watch.fd >= 0)
        e = io_watch_add(sp->io, &sp->index_watch);
    if (e == ERR_OK)
        e = spool_wire_open(sp->io, pool, &hooks, &sp->wire);
    if (e == ERR_OK && sp->wire_fd >= 0) {
        int fd = sp->wire_fd;
        sp->wire_fd = -1;
        take_wire(sp, fd);
    }
    return e;
}

static void say_mounted(struct spool_process *sp, enum err e)
{
    char text[160];
    if (e == ERR_OK) {
        board_clear(sp->start->board);
        snprintf(text, sizeof text, "pool mounted, io %s (%s)", sp->io->ops->name(sp->io), sp->io_why);
    } else {
        sp->mount_error = e;
        snprintf(text, sizeof text, "pool not mounted: %s", err_text(e));
        log_line(SERVICE, "error: pool not mounted: %s: %s; the next try follows in %u s", err_text(e), sp->mount_text,
                 (unsigned)(RETRY_NS / NS_PER_MS / 1000));
        plan_exit(sp, CHILD_AGAIN, RETRY_NS);
        post_documents(sp);
    }
    say_alive(sp, CONTROL_READY, text);
}

/* --- the loop --- */

static void serve(struct spool_process *sp)
{
    uint64_t wait = 0;
    while (!sp->stop && !(sp->exit_at_ns && io_now_ns(sp->io) >= sp->exit_at_ns)) {
        io_turn(sp->io, wait);
        if (sp->exit_at_ns == EXIT_AFTER_ANSWER)
            sp->exit_at_ns = io_now_ns(sp->io) + ANSWER_FIRST_NS;
        if (sp->wire) {
            pool_step(sp->pool);
            spool_wire_step(sp->wire);
            if (sp->marked && spool_index_ready(sp->pool))
                index_mark(sp, false);
        }
        bool moved = admin_step(sp->admin);
        if (moved && sp->wire)
            pool_step(sp->pool);
        alarm_wire_step(sp->alarm);
        wait = moved ? 0 : TURN_NS;
        log_flush();
    }
}

static void stop(struct spool_process *sp)
{
    bool asked = sp->stop;
    sp->stop = true; /* nobody waits for counters any more */
    counts_tell(sp);
    for (uint64_t last = io_now_ns(sp->io) + ADMIN_STOP_NS; admin_stopping(sp->admin) && io_now_ns(sp->io) < last;) {
        io_turn(sp->io, 10 * NS_PER_MS);
        if (sp->wire)
            pool_step(sp->pool);
        (void)admin_step(sp->admin);
    }
    admin_close(&sp->admin);
    alarm_wire_close(&sp->alarm);
    if (!sp->pool)
        return;
    uint64_t until = io_now_ns(sp->io) + WIRE_STOP_NS;
    if (sp->wire)
        spool_wire_stop(sp->wire);
    while (sp->wire && (spool_wire_busy(sp->wire) || sp->summary_running) && io_now_ns(sp->io) < until) {
        io_turn(sp->io, 10 * NS_PER_MS);
        pool_step(sp->pool);
        spool_wire_step(sp->wire);
    }
    if (sp->index_watch.fd >= 0)
        io_watch_remove(sp->io, &sp->index_watch);
    pool_unmount(&sp->pool);
    if (sp->wire)
        spool_wire_close(&sp->wire);
    index_mark(sp, false);
    log_line(SERVICE, "pool unmounted%s", asked ? "" : ", to be mounted again");
}

/* Frees what is left, so that a leak check sees only leaks. */
static void end(struct spool_process *sp)
{
    alarm_wire_close(&sp->alarm);
    if (sp->io)
        io_real_close(&sp->io);
    inject_io_close(&sp->inject);
    json_in_free(&sp->relay);
    events_log_close(&sp->events);
    log_close();
    loop_close(&sp->loop);
    struct config *config = (struct config *)sp->config;
    config_free(&config);
}

int spool_main(const struct child_start *start)
{
    struct spool_process *sp = calloc(1, sizeof *sp);
    char report[256] = "";
    if (!sp)
        return CHILD_FAILED;
    sp->start = start;
    sp->config = start->config;
    sp->wire_fd = -1;
    sp->mount_text = "the members are being opened";
    link_init(&sp->waits);
    mallopt(M_ARENA_MAX, 2); /* the index's thread and ours: no arena a thread */
    enum err e = loop_open(&sp->loop);
    if (e == ERR_OK)
        e = log_open(sp->loop, sp->config->settings.syslog_name, sp->config->log_file[0] ? sp->config->log_file : NULL);
    if (e == ERR_OK)
        e = events_log_open(&sp->events);
    if (e == ERR_OK && sp->config->sandbox && (e = sandbox_spool(report)) == ERR_OK)
        log_line(SERVICE, "sandbox: %s", report); /* before there are threads: they are to have it too */
    if (e == ERR_OK)
        e = open_io(sp);
    if (e == ERR_OK) {
        io_timer_set(sp->io, &sp->alive, io_now_ns(sp->io));
        io_timer_set(sp->io, &sp->rejoin, io_now_ns(sp->io) + REJOIN_NS);
        say_mounted(sp, mount(sp));
        serve(sp);
        stop(sp);
    }
    int code = e != ERR_OK ? CHILD_FAILED : sp->exit_at_ns ? sp->exit_code : 0;
    if (e != ERR_OK)
        log_line(SERVICE, "fatal: %s", err_text(e));
    end(sp);
    free(sp);
    return code;
}
