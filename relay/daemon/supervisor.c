/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's loop: signals, children, deadlines. Invariants and states in supervisor.h. One thread, blocks only in
 * poll. Read spool_main.c, relay_main.c and alarm_main.c next. */
#include "supervisor.h"

#include "board.h"
#include "child.h"
#include "maildirs.h"
#include "notify.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <log.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <spoolfs/wire.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 5000u
#define STABLE_MS 10000u         /* a child that lived this long starts with the first back-off again */
#define HANG_MS 30000u           /* no sign of life: longer than any stall of a disk the engine survives */
#define CRASHES_FOR_DISCARD 3u
#define CRASH_WINDOW_MS 60000u
#define SPOOL_STOP_MS 15000u     /* to be mounted again: pool_unmount gives up after 8 s twice */
#define SPOOL_STOP_MS_MIN 1000u  /* a kill costs the next start a recovery: not for less */
#define ALARM_STOP_MS 5000u      /* it finishes nothing */
#define LOCK_PATIENCE_MS 2000u   /* the children of a supervisor that was killed need a moment to be gone */
#define SERVICE "ironspoold"

enum which { SPOOL, RELAY, ALARM, CHILDREN };

struct child {
    const char *name;
    pid_t pid;                    /* 0: down */
    int control;
    uint64_t started_ms, start_at_ms, alive_ms, kill_at_ms;
    uint32_t backoff_ms;
    bool ready, stopping, ended;  /* ended: its control socket is closed, its exit is still to come */
    uint64_t crashes[CRASHES_FOR_DISCARD];
    bool discard;
};

struct supervisor {
    struct config *config;
    struct loop *loop;            /* the log's; never run */
    struct board *board;
    uint8_t *trays;
    struct identity identity;
    struct listeners listeners;
    int admin, signals, lock;
    struct child children[CHILDREN];
    bool stopping, said_ready;
    uint64_t watchdog_at_ms, stop_by_ms;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void index_marker_path(const struct config *config, char path[256])
{
    snprintf(path, 256, "%s/index.unproved", config->state_directory);
}

/* --- a child's birth --- */

static void close_other_ends(struct supervisor *s, enum which which)
{
    for (int i = 0; i < CHILDREN; i++)
        if (s->children[i].control >= 0)
            close(s->children[i].control);
    close(s->signals);
    notify_close();
    if (which != RELAY)
        listeners_close(&s->listeners);
    if (which != SPOOL && s->admin >= 0)
        close(s->admin);
}

/* Terminal and service manager signal the whole group; what a child does is the supervisor's word. */
static void reset_signals(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT};
    sigset_t none;
    for (unsigned i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static const struct { const char *name; int (*main)(const struct child_start *start); } mains[CHILDREN] = {
    {"ironspool-spool", spool_main}, {"ironspool-relay", relay_main}, {"ironspool-alarm", alarm_main}};

static _Noreturn void be_child(struct supervisor *s, enum which which, int control, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CHILD_FAILED); /* it died before prctl */
    prctl(PR_SET_NAME, mains[which].name);
    log_close();
    loop_close(&s->loop);
    close_other_ends(s, which);
    reset_signals();
    struct child_start start = {.config = s->config, .listeners = &s->listeners, .control = control,
                                .admin_fd = s->admin, .discard_index = s->children[which].discard,
                                 .board = s->board, .trays = s->trays, .identity = s->identity};
    exit(mains[which].main(&start));
}

/* A fresh socketpair between the spool and another child, when both are there. */
static void give_pair(struct supervisor *s, enum which other)
{
    int fds[2], type = other == RELAY ? SOCK_STREAM : SOCK_SEQPACKET;
    const enum which ends[2] = {SPOOL, other};
    if (!s->children[SPOOL].pid || !s->children[other].pid)
        return;
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) {
        log_line(SERVICE, "error: socketpair: %s", strerror(errno));
        return;
    }
    for (int i = 0; i < 2; i++) {
        const struct child *c = &s->children[ends[i]];
        if (control_send(c->control, other == RELAY ? CONTROL_WIRE : CONTROL_ALARM, 0, fds[i], NULL) != ERR_OK)
            log_line(SERVICE, "warning: the %s process does not take its end of the wire", c->name);
        close(fds[i]);
    }
}

static void plan_restart(struct child *c, uint64_t now)
{
    if (now - c->started_ms >= STABLE_MS || c->backoff_ms == 0)
        c->backoff_ms = BACKOFF_FIRST_MS;
    c->start_at_ms = now + c->backoff_ms;
    c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
}

static void start_child(struct supervisor *s, enum which which)
{
    struct child *c = &s->children[which];
    int ours, theirs;
    uint64_t now = now_ms();
    c->started_ms = c->alive_ms = now;
    enum err e = control_pair(&ours, &theirs);
    pid_t parent = getpid(), pid = e == ERR_OK ? (log_flush(), fork()) : -1;
    if (pid == 0) {
        close(ours);
        be_child(s, which, theirs, parent);
    }
    if (pid < 0) {
        log_line(SERVICE, "error: cannot start the %s process: %s", c->name, e == ERR_OK ? strerror(errno) : err_text(e));
        if (e == ERR_OK) {
            close(ours);
            close(theirs);
        }
        plan_restart(c, now);
        return;
    }
    close(theirs);
    c->pid = pid;
    c->control = ours;
    c->ready = c->stopping = c->ended = c->discard = false;
    c->kill_at_ms = 0;
    if (which != ALARM)
        give_pair(s, RELAY);
    if (which != RELAY)
        give_pair(s, ALARM);
}

/* --- a child's end --- */

static bool crashed(int status)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return sig == SIGBUS || sig == SIGSEGV || sig == SIGABRT || (WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static bool crashed_in_index(struct supervisor *s, struct child *c, uint64_t now)
{
    char marker[256];
    memmove(&c->crashes[1], &c->crashes[0], sizeof c->crashes - sizeof c->crashes[0]);
    c->crashes[0] = now;
    index_marker_path(s->config, marker);
    uint64_t oldest = c->crashes[CRASHES_FOR_DISCARD - 1];
    return access(marker, F_OK) == 0 || (oldest != 0 && now - oldest < CRASH_WINDOW_MS);
}

static void describe_end(int status, char text[64])
{
    if (WIFSIGNALED(status))
        snprintf(text, 64, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, 64, "exited with code %d", WEXITSTATUS(status));
}

static void reaped(struct supervisor *s, enum which which, int status)
{
    struct child *c = &s->children[which];
    uint64_t now = now_ms();
    char how[64];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    bool asked = c->stopping;
    describe_end(status, how);
    close(c->control);
    c->control = -1;
    c->pid = 0;
    c->ready = c->stopping = false;
    c->start_at_ms = now;
    if (asked && code != 0)
        log_line(SERVICE, "warning: the %s process %s while stopping", c->name, how);
    if (asked || code == CHILD_AGAIN)
        return;
    c->discard = code == CHILD_INDEX ||
                 (which == SPOOL && crashed(status) && crashed_in_index(s, c, now));
    if (code == CHILD_INDEX)
        return;
    plan_restart(c, now);
    log_line(SERVICE, "error: the %s process %s; it is started again in %u ms%s", c->name, how,
             (unsigned)(c->start_at_ms - now), c->discard ? " with its index discarded" : "");
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < CHILDREN; i++)
            if (s->children[i].pid == pid)
                reaped(s, (enum which)i, status);
}

static void ask_to_stop(struct child *c, uint64_t grace_ms, uint64_t patience_ms)
{
    if (!c->pid || c->stopping)
        return;
    c->stopping = true;
    c->ready = false;
    c->kill_at_ms = now_ms() + patience_ms;
    enum err e = control_send(c->control, CONTROL_STOP, (uint32_t)grace_ms, -1, NULL);
    if (e != ERR_OK)
        kill(c->pid, SIGKILL);
}

static void stop_relay(struct supervisor *s)
{
    uint64_t grace = s->config->shutdown_grace_ms; /* the rest is for the spool's unmount */
    ask_to_stop(&s->children[RELAY], grace * 7 / 10, grace > 1000 ? grace * 85 / 100 : 850);
}

/* Disks that do not answer do not hold up the end: what was acknowledged is on them or elsewhere. */
static void stop_spool(struct supervisor *s, uint64_t now)
{
    uint64_t left = s->stop_by_ms > now ? s->stop_by_ms - now : 0;
    ask_to_stop(&s->children[SPOOL], 0, left > SPOOL_STOP_MS_MIN ? left : SPOOL_STOP_MS_MIN);
}

/* --- reload --- */

static void reopen_logs(struct supervisor *s)
{
    const char *path = s->config->log_file[0] ? s->config->log_file : NULL;
    if (log_open(s->loop, s->config->settings.syslog_name, path) != ERR_OK)
        log_line(SERVICE, "warning: log_file: %s: %s", s->config->log_file, strerror(errno));
    for (int i = 0; i < CHILDREN; i++) {
        if (!s->children[i].pid)
            continue;
        enum err e = control_send(s->children[i].control, CONTROL_REOPEN, 0, -1, NULL);
        if (e != ERR_OK)
            log_line(SERVICE, "warning: the %s process keeps its old log file", s->children[i].name);
    }
}

/* SPV-4 */
static void reload(struct supervisor *s)
{
    struct config *next = NULL;
    char text[CONFIG_TEXT_BYTES] = "";
    char where[256] = "";
    notify_reloading();
    enum err e = config_load(s->config->file, &next, text);
    if (e == ERR_OK && strcmp(next->control_socket, s->config->control_socket) != 0) {
        snprintf(text, sizeof text, "%s: control_socket cannot change while running", next->file);
        e = ERR_CONFIG;
    }
    if (e == ERR_OK)
        e = config_open_tables(next, text);
    if (e == ERR_OK && (e = listeners_apply(&s->listeners, next, where)) != ERR_OK)
        snprintf(text, sizeof text, "%s", where);
    if (e == ERR_OK && (e = identity_find(next, &s->identity, where)) != ERR_OK)
        snprintf(text, sizeof text, "%s", where);
    if (e != ERR_OK) {
        config_free(&next);
        log_line(SERVICE, "error: reload refused, the old configuration stays: %s", text);
        notify_say("READY=1\nSTATUS=reload refused: %s", text);
        return;
    }
    bool spool_too = config_spool_differs(s->config, next);
    stop_relay(s);
    ask_to_stop(&s->children[ALARM], 0, ALARM_STOP_MS);
    if (spool_too)
        ask_to_stop(&s->children[SPOOL], 0, SPOOL_STOP_MS);
    config_free(&s->config);
    s->config = next;
    reopen_logs(s);
    log_line(SERVICE, "reload: %s; the relay process is replaced%s", s->config->file,
             spool_too ? ", the spool process too" : "");
    s->said_ready = false;
}

/* --- the loop --- */

static void on_signals(struct supervisor *s)
{
    struct signalfd_siginfo i;
    while (read(s->signals, &i, sizeof i) == (ssize_t)sizeof i) {
        if (i.ssi_signo == SIGCHLD) {
            reap(s);
        } else if (i.ssi_signo == SIGHUP) {
            if (!s->stopping)
                reload(s);
        } else if (!s->stopping) {
            s->stopping = true;
            s->stop_by_ms = now_ms() + s->config->shutdown_grace_ms;
            log_line(SERVICE, "stopping (%s)", i.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
            notify_say("STOPPING=1");
            stop_relay(s);
            ask_to_stop(&s->children[ALARM], 0, ALARM_STOP_MS); /* that we stop is no alarm */
        }
    }
}

static void on_control(struct supervisor *s, struct child *c)
{
    struct control_message m;
    while (c->control >= 0 && control_receive(c->control, &m) == ERR_OK) {
        if (m.fd >= 0)
            close(m.fd);
        c->alive_ms = now_ms();
        if (m.kind != CONTROL_READY)
            continue;
        c->ready = true;
        log_line(SERVICE, "the %s process is ready: %s", c->name, m.text);
    }
    if (!s->said_ready && s->children[SPOOL].ready && s->children[RELAY].ready) {
        s->said_ready = true;
        log_line(SERVICE, "ready");
        notify_say("READY=1\nSTATUS=accepting mail");
    }
}

static void check_child(struct supervisor *s, enum which which, uint64_t now)
{
    struct child *c = &s->children[which];
    if (!c->pid && !s->stopping && now >= c->start_at_ms)
        start_child(s, which);
    if (c->pid && c->stopping && now >= c->kill_at_ms) {
        log_line(SERVICE, "warning: the %s process did not stop in time and is killed", c->name);
        c->kill_at_ms = UINT64_MAX;
        kill(c->pid, SIGKILL);
    }
    if (c->pid && c->ready && !c->stopping && now - c->alive_ms > HANG_MS) {
        log_line(SERVICE, "error: the %s process gave no sign of life for %u s and is killed", c->name, HANG_MS / 1000);
        c->alive_ms = now;
        kill(c->pid, SIGKILL);
    }
}

/* False: all is over. */
static bool check(struct supervisor *s)
{
    uint64_t now = now_ms();
    bool healthy = true;
    check_child(s, SPOOL, now);
    check_child(s, RELAY, now);
    check_child(s, ALARM, now);
    for (int i = 0; i < ALARM; i++) /* mail goes on without it */
        healthy = healthy && (!s->children[i].ready || now - s->children[i].alive_ms < HANG_MS);
    if (notify_watchdog_ms() && healthy && now >= s->watchdog_at_ms) {
        notify_say("WATCHDOG=1");
        s->watchdog_at_ms = now + notify_watchdog_ms();
    }
    if (!s->stopping)
        return true;
    if (!s->children[RELAY].pid)
        stop_spool(s, now);
    return s->children[RELAY].pid || s->children[SPOOL].pid || s->children[ALARM].pid;
}

static int wait_ms(const struct supervisor *s)
{
    uint64_t now = now_ms(), until = now + 1000;
    for (int i = 0; i < CHILDREN; i++) {
        const struct child *c = &s->children[i];
        uint64_t at = !c->pid && !s->stopping ? c->start_at_ms : c->pid && c->stopping ? c->kill_at_ms : until;
        until = at < until ? at : until;
    }
    if (notify_watchdog_ms() && s->watchdog_at_ms < until)
        until = s->watchdog_at_ms;
    return until > now ? (int)(until - now) : 0;
}

static void turn(struct supervisor *s)
{
    struct pollfd p[1 + CHILDREN] = {{.fd = s->signals, .events = POLLIN}};
    for (int i = 0; i < CHILDREN; i++)
        p[1 + i] = (struct pollfd){.fd = s->children[i].ended ? -1 : s->children[i].control, .events = POLLIN};
    log_flush();
    if (poll(p, 1 + CHILDREN, wait_ms(s)) < 0)
        return;
    for (int i = 0; i < CHILDREN; i++) {
        if (p[1 + i].revents & POLLIN)
            on_control(s, &s->children[i]);
        s->children[i].ended = s->children[i].ended || (p[1 + i].revents & POLLHUP);
    }
    if (p[0].revents & POLLIN)
        on_signals(s);
}

/* --- begin --- */

static enum err take_lock(struct supervisor *s, char text[256])
{
    char path[256];
    const char *directory = s->config->state_directory;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST) {
        snprintf(text, 256, "state_directory: %s: %s", directory, strerror(errno));
        return ERR_SYSTEM;
    }
    snprintf(path, sizeof path, "%s/lock", directory);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (uint64_t until = now_ms() + LOCK_PATIENCE_MS; s->lock >= 0; usleep(20000)) {
        if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
            return ERR_OK;
        if (errno != EWOULDBLOCK || now_ms() > until)
            break;
    }
    snprintf(text, 256, "state_directory: %s: %s", path,
             errno == EWOULDBLOCK ? "another ironspoold has this state_directory" : strerror(errno));
    return ERR_EXISTS;
}

/* The lock went with the supervisor that was killed; its relay may hold the ports for a moment longer. */
static enum err take_ports(struct supervisor *s, char text[256])
{
    enum err e = listeners_apply(&s->listeners, s->config, text);
    for (uint64_t until = now_ms() + LOCK_PATIENCE_MS; e == ERR_EXISTS && now_ms() < until; usleep(20000))
        e = listeners_apply(&s->listeners, s->config, text);
    return e;
}

static enum err begin(struct supervisor *s, char text[256])
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signals < 0) {
        snprintf(text, 256, "signalfd: %s", strerror(errno));
        return ERR_SYSTEM;
    }
    enum err e = identity_find(s->config, &s->identity, text);
    if (e == ERR_OK)
        maildirs_warn(s->config, &s->identity);
    if (e == ERR_OK)
        e = take_lock(s, text);
    if (e == ERR_OK)
        e = take_ports(s, text);
    if (e == ERR_OK)
        e = control_socket_bind(s->config->control_socket, s->identity.drops ? s->identity.gid : (unsigned)-1,
                                &s->admin, text);
    return e;
}

static void say_start(const struct supervisor *s)
{
    char at[96];
    log_line(SERVICE, "Ironspool %s starts: %s", IRONSPOOL_VERSION, s->config->file);
    for (uint32_t i = 0; i < s->listeners.mail_count; i++) {
        listener_print(&s->listeners.mail[i], at);
        log_line(SERVICE, "listen \"%s\" on %s", s->listeners.mail[i].at.name, at);
    }
    if (s->listeners.http.fd >= 0) {
        listener_print(&s->listeners.http, at);
        log_line(SERVICE, "status page and metrics on http://%s/", at);
    }
    if (!s->identity.drops)
        log_line(SERVICE, "warning: not started as root: the relay runs as the same user as the spool");
}

/* Made before the children, so that it outlives either. NULL: no memory, then bodies cross in the socket. */
static uint8_t *trays_make(void)
{
    void *memory = mmap(NULL, (size_t)WIRE_TRAYS * CHUNK_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int supervisor_run(struct config *config)
{
    struct supervisor s = {.config = config, .admin = -1, .signals = -1, .lock = -1, .listeners.http.fd = -1,
                           .board = board_make(), .trays = trays_make(),
                           .children = {{.name = "spool", .control = -1}, {.name = "relay", .control = -1},
                                        {.name = "alarm", .control = -1}}};
    char text[256] = "";
    const char *log_file = config->log_file[0] ? config->log_file : NULL;
    int code = 1;
    enum err e = loop_open(&s.loop);
    if (e == ERR_OK)
        e = log_open(s.loop, config->settings.syslog_name, log_file);
    if (e != ERR_OK)
        snprintf(text, sizeof text, "log_file: %.200s: %s", config->log_file, err_text(e));
    notify_open();
    if (e == ERR_OK)
        e = begin(&s, text);
    if (e == ERR_OK) {
        say_start(&s);
        while (check(&s))
            turn(&s);
        unlink(s.config->control_socket);
        log_line(SERVICE, "stopped");
        code = 0;
    } else {
        log_line(SERVICE, "fatal: %s", text);
    }
    log_close();
    loop_close(&s.loop);
    listeners_close(&s.listeners);
    config_free(&s.config);
    return code;
}
