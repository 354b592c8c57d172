/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor and a child tell each other: small packets on a SOCK_SEQPACKET pair, descriptors by SCM_RIGHTS.
 * The end of the pair is the end of the other side: a child whose supervisor is gone exits at once. */
#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include <base/err.h>
#include <stdint.h>

enum control_kind {
    CONTROL_WIRE = 1,   /* to a child: a new socketpair end to the other one */
    CONTROL_STOP,       /* to a child: finish within value milliseconds and exit */
    CONTROL_REOPEN,     /* to a child: the log file was rotated */
    CONTROL_ALIVE,      /* from a child: the loop turns */
    CONTROL_ALARM,      /* to spool and alarm: a new socketpair end to the other one */
    CONTROL_READY,      /* from a child: serving; text says what */
};

struct control_message {
    enum control_kind kind;
    uint32_t value;
    int fd;              /* -1: none. The receiver owns it. */
    char text[160];
};

/* Exit codes of children beyond 0 (asked to stop). 1 is none of them: a sanitizer ends a crashed process with it. */
enum child_exit {
    CHILD_FAILED = 70,
    CHILD_AGAIN = 75,    /* start me again at once: I have waited already */
    CHILD_INDEX = 76,    /* start me again with the index discarded */
};

#define CONTROL_ALIVE_MS 1000u

enum err control_pair(int *ours_out, int *theirs_out) MUST_CHECK;
enum err control_send(int control, enum control_kind kind, uint32_t value, int fd, const char *text) MUST_CHECK;
/* ERR_BUSY: nothing there. ERR_CANCELED: the other side is gone. */
enum err control_receive(int control, struct control_message *m_out) MUST_CHECK;

#endif
