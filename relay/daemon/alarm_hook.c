/* SPDX-License-Identifier: Apache-2.0 */
/* Fork, exec, wait by a descriptor of the process, kill. See alarm_hook.h. */
#include "alarm_hook.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLES 13u
#define VARIABLE_BYTES 512u
#define CANNOT_RUN 126 /* as a shell says it */

struct run { /* made before the fork: the child only copies pointers */
    char event[48], variables[VARIABLES][VARIABLE_BYTES];
    const char *argv[5], *envp[VARIABLES + 1];
};

static void add(struct run *r, unsigned *n, const char *name, const char *value)
{
    ASSERT(*n < VARIABLES);
    snprintf(r->variables[*n], VARIABLE_BYTES, "%s=%s", name, value);
    r->envp[*n] = r->variables[*n];
    (*n)++;
}

static void prepare(const struct alarm_hook *h, const struct alarm_note *note, struct run *r)
{
    unsigned n = 0;
    char since[TIME_TEXT] = "", count[16], runbook[96];
    alarm_note_name(note, r->event);
    r->argv[0] = h->program;
    r->argv[1] = r->event;
    r->argv[2] = note->pool[0] ? note->pool : "ironspool";
    r->argv[3] = note->path[0] ? note->path : NULL;
    if (note->since_ms)
        time_print(note->since_ms, since);
    snprintf(count, sizeof count, "%u", note->count);
    snprintf(runbook, sizeof runbook, "docs/runbooks/event-%s.md", note->what == ALARM_BEAT ? "" : event_name(note->kind));
    add(r, &n, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add(r, &n, "IRONSPOOL_EVENT", note->what == ALARM_BEAT ? "heartbeat" : event_name(note->kind));
    add(r, &n, "IRONSPOOL_WHAT", alarm_what_word(note->what));
    add(r, &n, "IRONSPOOL_SEVERITY", note->severity ? note->severity : "info");
    add(r, &n, "IRONSPOOL_HOST", h->host);
    add(r, &n, "IRONSPOOL_POOL", note->pool);
    add(r, &n, "IRONSPOOL_MEMBER", note->member);
    add(r, &n, "IRONSPOOL_PATH", note->path);
    add(r, &n, "IRONSPOOL_SERIAL", note->serial);
    add(r, &n, "IRONSPOOL_EVIDENCE", note->evidence);
    add(r, &n, "IRONSPOOL_SINCE", since);
    add(r, &n, "IRONSPOOL_COUNT", count);
    add(r, &n, "IRONSPOOL_RUNBOOK", note->what == ALARM_BEAT ? "" : runbook);
}

/* In the child, between fork and exec: nothing that takes a lock. */
static _Noreturn void become(const struct alarm_hook *h, const struct run *r)
{
    sigset_t none;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setpgid(0, 0);
    for (int sig = 1; sig < 32; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0 || syscall(SYS_close_range, 3u, ~0u, 0u) != 0)
        _exit(CANNOT_RUN);
    execve(h->program, (char *const *)(uintptr_t)r->argv, (char *const *)(uintptr_t)r->envp);
    _exit(CANNOT_RUN);
}

/* --- the end --- */

static void kill_all(const struct alarm_hook *h)
{
    kill(-h->pid, SIGKILL);
    kill(h->pid, SIGKILL); /* before it had its own group */
}

static void forget(struct alarm_hook *h)
{
    loop_watch_remove(&h->watch);
    close(h->watch.fd);
    loop_timer_clear(&h->limit);
    h->pid = 0;
}

static void ended(struct loop_watch *w, bool readable, bool writable)
{
    struct alarm_hook *h = w->owner;
    int status = 0;
    char text[160];
    (void)readable;
    (void)writable;
    if (waitpid(h->pid, &status, WNOHANG) != h->pid)
        return;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !h->late;
    if (h->late)
        snprintf(text, sizeof text, "it took longer than %llu s and was killed", (unsigned long long)(h->limit_ms / 1000));
    else if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_RUN)
        snprintf(text, sizeof text, "it ended with code %d: it could not be run, or says so itself", CANNOT_RUN);
    else if (WIFEXITED(status))
        snprintf(text, sizeof text, "it ended with code %d", WEXITSTATUS(status));
    else
        snprintf(text, sizeof text, "it was killed by signal %d", WTERMSIG(status));
    kill(-h->pid, SIGKILL); /* what it left behind in its group */
    forget(h);
    h->done(h, ok, text);
}

static void limit_over(struct loop_timer *t)
{
    struct alarm_hook *h = t->owner;
    h->late = true;
    kill_all(h);
}

/* --- life --- */

void alarm_hook_open(struct alarm_hook *h)
{
    loop_timer_init(h->loop, &h->limit, limit_over, h);
}

void alarm_hook_close(struct alarm_hook *h)
{
    if (!h->loop)
        return;
    if (h->pid) {
        kill_all(h);
        waitpid(h->pid, NULL, 0);
        forget(h);
    }
    loop_timer_fini(&h->limit);
}

enum err alarm_hook_start(struct alarm_hook *h, const struct alarm_note *n)
{
    struct run run = {0};
    if (h->pid)
        return ERR_BUSY;
    prepare(h, n, &run);
    h->late = false;
    pid_t pid = fork();
    if (pid == 0)
        become(h, &run);
    if (pid < 0)
        return ERR_SYSTEM;
    setpgid(pid, pid); /* whoever comes first */
    h->pid = pid;
    h->watch = (struct loop_watch){.fd = (int)syscall(SYS_pidfd_open, pid, 0u), .ready = ended, .owner = h};
    enum err e = h->watch.fd < 0 ? ERR_NO_FD : loop_watch_add(h->loop, &h->watch, true, false);
    if (e != ERR_OK) { /* it cannot be waited for: it did not run */
        kill_all(h);
        waitpid(pid, NULL, 0);
        if (h->watch.fd >= 0)
            close(h->watch.fd);
        h->pid = 0;
        return ERR_SYSTEM;
    }
    loop_timer_set(&h->limit, h->limit_ms);
    return ERR_OK;
}
