/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the workers and the order of their answers. JOB-1: answers are told in the order of seeds, whatever order they
 * came in. JOB-2: no seed is begun twice, none is left out below the last one begun.
 * Never: looks into a seed or an answer. */
#include "jobs.h"

#include <base/assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WINDOW (JOBS_MAX * 16u) /* answers that wait for an earlier seed */

struct worker {
    pid_t pid;
    int fd;             /* seeds out, answers in */
    bool busy;
    uint64_t seed;
    time_t since;
};

struct pending { bool there, died; char how[64]; uint8_t *answer; };

struct boss {
    const struct jobs *jobs;
    struct worker workers[JOBS_MAX];
    struct pending pending[WINDOW];
    uint64_t next, told, busy;
};

static bool write_all(int fd, const void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = write(fd, (const uint8_t *)bytes + at, length - at);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool read_all(int fd, void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = read(fd, (uint8_t *)bytes + at, length - at);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static _Noreturn void worker_main(const struct jobs *jobs, int fd)
{
    uint8_t *answer = calloc(1, jobs->answer_bytes);
    uint64_t seed;
    ASSERT(answer != NULL);
    while (read_all(fd, &seed, sizeof seed)) {
        memset(answer, 0, jobs->answer_bytes);
        jobs->run(jobs->owner, seed, answer);
        fflush(stdout);
        if (!write_all(fd, answer, jobs->answer_bytes))
            break;
    }
    free(answer);
    _exit(0);
}

static bool worker_start(struct boss *b, struct worker *w)
{
    int pair[2];
    fflush(stdout);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        for (uint32_t i = 0; i < b->jobs->workers; i++) /* a sibling's end kept open would hide its death */
            if (b->workers[i].pid && &b->workers[i] != w)
                close(b->workers[i].fd);
        close(pair[0]);
        worker_main(b->jobs, pair[1]);
    }
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return false;
    }
    *w = (struct worker){.pid = pid, .fd = pair[0]};
    return true;
}

static struct pending *pending_of(struct boss *b, uint64_t seed) { return &b->pending[(seed - b->jobs->first) % WINDOW]; }

/* JOB-1 */
static void tell(struct boss *b)
{
    for (; b->told < b->next; b->told++) {
        struct pending *p = pending_of(b, b->told);
        if (!p->there)
            return;
        b->jobs->answered(b->jobs->owner, b->told, p->died ? NULL : p->answer, p->how);
        p->there = false;
    }
}

static void worker_died(struct boss *b, struct worker *w)
{
    struct pending *p = pending_of(b, w->seed);
    int status = 0;
    waitpid(w->pid, &status, 0);
    close(w->fd);
    if (WIFSIGNALED(status))
        snprintf(p->how, sizeof p->how, "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(p->how, sizeof p->how, "ended with exit code %d", WEXITSTATUS(status));
    p->there = p->died = true;
    b->busy--;
    *w = (struct worker){0};
}

static void worker_answers(struct boss *b, struct worker *w)
{
    struct pending *p = pending_of(b, w->seed);
    if (!read_all(w->fd, p->answer, b->jobs->answer_bytes)) {
        worker_died(b, w);
        return;
    }
    p->there = true;
    p->died = false;
    w->busy = false;
    b->busy--;
}

/* JOB-2: seeds are handed out in order. */
static bool hand_out(struct boss *b, bool late)
{
    for (uint32_t i = 0; i < b->jobs->workers && !late; i++) {
        struct worker *w = &b->workers[i];
        if (w->busy || b->next - b->jobs->first >= b->jobs->count || b->next - b->told >= WINDOW)
            continue;
        if (!w->pid && !worker_start(b, w))
            return false;
        w->seed = b->next++;
        w->busy = true;
        w->since = time(NULL);
        b->busy++;
        if (!write_all(w->fd, &w->seed, sizeof w->seed))
            worker_died(b, w);
    }
    return true;
}

static void wait_for_answers(struct boss *b)
{
    struct pollfd fds[JOBS_MAX];
    struct worker *who[JOBS_MAX];
    nfds_t n = 0;
    for (uint32_t i = 0; i < b->jobs->workers; i++)
        if (b->workers[i].busy) {
            who[n] = &b->workers[i];
            fds[n++] = (struct pollfd){.fd = b->workers[i].fd, .events = POLLIN};
        }
    if (poll(fds, n, 1000) < 0)
        return;
    for (nfds_t i = 0; i < n; i++) {
        if (fds[i].revents)
            worker_answers(b, who[i]);
        else if (time(NULL) - who[i]->since > (time_t)b->jobs->seed_seconds)
            kill(who[i]->pid, SIGXCPU); /* seen as its death in the next round */
    }
}

static void boss_fini(struct boss *b)
{
    for (uint32_t i = 0; i < b->jobs->workers; i++)
        if (b->workers[i].pid) {
            close(b->workers[i].fd);
            waitpid(b->workers[i].pid, NULL, 0);
        }
    for (uint32_t i = 0; i < WINDOW; i++)
        free(b->pending[i].answer);
}

bool jobs_run(const struct jobs *jobs, uint64_t *begun_out)
{
    static struct boss boss;
    time_t begin = time(NULL); /* of the real clock: how many seeds fit, never what happens in one */
    boss = (struct boss){.jobs = jobs, .next = jobs->first, .told = jobs->first};
    ASSERT(jobs->workers > 0 && jobs->workers <= JOBS_MAX);
    signal(SIGPIPE, SIG_IGN);
    bool ok = true, more = true;
    for (uint32_t i = 0; i < WINDOW; i++) {
        boss.pending[i].answer = calloc(1, jobs->answer_bytes);
        ASSERT(boss.pending[i].answer != NULL);
    }
    do {
        bool late = jobs->stop_after && (uint64_t)(time(NULL) - begin) >= jobs->stop_after;
        ok = hand_out(&boss, late);
        if (ok && boss.busy > 0)
            wait_for_answers(&boss);
        tell(&boss);
        more = !late && boss.next - jobs->first < jobs->count;
    } while (ok && (boss.busy > 0 || more));
    boss_fini(&boss);
    *begun_out = boss.next - jobs->first;
    return ok;
}
