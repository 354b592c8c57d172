/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spool_main.c and admin*.c: the spool process's own objects. One thread. */
#ifndef DAEMON_SPOOL_PROCESS_H
#define DAEMON_SPOOL_PROCESS_H

#include "child.h"
#include "events_log.h"
#include "json_in.h"
#include "members_open.h"
#include "status_doc.h"

#include <inject_io.h>
#include <log.h>
#include <spoolfs/io_real.h>
#include <spoolfs/spool.h>

struct admin;
struct spool_wire;
struct alarm_wire;

/* spool_process.exit_at_ns where somebody has to hear of it before the connection ends: so long from the next turn on, for what
 * was asked may have taken longer than that (a member is opened), and the clock stands still within a turn. */
#define EXIT_AFTER_ANSWER UINT64_MAX
#define ANSWER_FIRST_NS (UINT64_C(500000000))

struct spool_process {
    const struct child_start *start;
    const struct config *config;
    struct loop *loop;               /* the log's; never run */
    struct io *io;
    struct inject_io *inject;        /* NULL: fault_injection = no */
    struct fault_row fault_rows[INJECT_FAULTS_MAX];
    struct pool *pool;               /* NULL: not mounted, mount_text says why */
    struct spool_wire *wire;         /* NULL: not mounted */
    struct admin *admin;
    struct alarm_wire *alarm;
    struct events_log *events;
    struct json_in *relay;           /* the relay's last report */
    struct members_open members;
    const char *io_why, *mount_text;
    enum err mount_error;
    uint64_t started_ns, exit_at_ns; /* exit_at_ns: when to try again with fresh opens; 0: not planned */
    int exit_code;
    bool stop, marked;
    int wire_fd;                     /* came before the pool was mounted; -1: none */
    struct io_watch control_watch, index_watch;
    struct io_timer alive, rejoin;
    uint32_t rejoin_seen;            /* mask of members that could be opened again */
    struct index_query summary;
    bool summary_running;
    struct index_counts counts;
    struct link waits;
};

/* The queue's counters, asked anew; askers that come while a question is under way share its answer. done comes at once
 * (the pool is not mounted) or later. */
struct counts_wait {
    struct link link;
    void (*done)(struct counts_wait *w);
    void *owner;
};
void spool_counts_ask(struct spool_process *sp, struct counts_wait *w);
void spool_counts_forget(struct counts_wait *w); /* harmless when it was called already */
/* Fills both; the view points to *status and into sp. */
void spool_view(struct spool_process *sp, struct pool_status *status, struct status_view *view);

#endif
