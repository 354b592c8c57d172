/* SPDX-License-Identifier: Apache-2.0 */
/* A range of runs on two processes: each run is a world of its own, and a run that crashes is a run that failed. */
#ifndef SWEEPING_H
#define SWEEPING_H

#include <base/assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SWEEP_PROCESSES 2u
#define SWEEP_BAD_MAX 5u   /* then it stops: the first failures tell */
#define SWEEP_RUN_S 120u   /* a run takes some ten milliseconds; one that takes so long does not end */

static uint64_t sweep_now;

static inline void sweep_ended(int signal)
{
    char text[80];
    int n = snprintf(text, sizeof text, "signal %d in the run at %llu\n", signal, (unsigned long long)sweep_now);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    _exit(1);
}

static inline int sweep_part(uint64_t from, uint64_t to, uint64_t step, bool (*run)(uint64_t at))
{
    static const int ends[] = {SIGALRM, SIGABRT, SIGSEGV, SIGBUS};
    int bad = 0;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        signal(ends[i], sweep_ended);
    for (uint64_t at = from; at < to && bad < (int)SWEEP_BAD_MAX; at += step) {
        sweep_now = at;
        alarm(SWEEP_RUN_S);
        bad += !run(at);
    }
    return bad;
}

/* How many runs failed, at most; a process that was ended by a signal counts as one. */
static inline int sweep_range(uint64_t from, uint64_t to, uint64_t step, bool (*run)(uint64_t at))
{
    int bad = 0;
    pid_t children[SWEEP_PROCESSES];
    fflush(NULL);
    for (uint64_t i = 0; i < SWEEP_PROCESSES; i++) {
        children[i] = fork();
        ASSERT(children[i] >= 0);
        if (children[i] == 0)
            _exit(sweep_part(from + i * step, to, step * SWEEP_PROCESSES, run));
    }
    for (uint64_t i = 0; i < SWEEP_PROCESSES; i++) {
        int status;
        ASSERT(waitpid(children[i], &status, 0) == children[i]);
        bad += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    return bad;
}

#endif
