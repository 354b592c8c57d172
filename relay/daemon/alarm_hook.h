/* SPDX-License-Identifier: Apache-2.0 */
/* The hook: a program of the operator's, run for a note with the arguments mdadm's PROGRAM gets: event, device (the
 * pool), and where there is one the component (the member's path). The rest is in IRONSPOOL_* of its environment.
 *
 *  AHK-1  one run at a time; one that takes longer than its time is killed with all it started.
 *  AHK-2  it gets no descriptor but /dev/null and our stderr, no environment but PATH and ours, and no privilege the
 *         alarm process does not have. */
#ifndef DAEMON_ALARM_HOOK_H
#define DAEMON_ALARM_HOOK_H

#include "alarm_note.h"

#include <loop.h>
#include <sys/types.h>

struct alarm_hook {
    /* in */
    struct loop *loop;
    const char *program, *host;
    uint64_t limit_ms;
    void *owner;
    void (*done)(struct alarm_hook *h, bool ok, const char *text);
    /* private */
    pid_t pid;                 /* 0: nothing runs */
    struct loop_watch watch;   /* on a descriptor of the process */
    struct loop_timer limit;
    bool late;
};

void alarm_hook_open(struct alarm_hook *h);
void alarm_hook_close(struct alarm_hook *h); /* kills what runs; no done follows */
/* done follows, never from inside. ERR_BUSY: one runs; ERR_SYSTEM: it could not be started. */
enum err alarm_hook_start(struct alarm_hook *h, const struct alarm_note *n) MUST_CHECK;

#endif
