/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to a host, and the transactions it carries: DNS, connect, TLS, the client machine, the body. It carries
 * one job at a time; without one it waits in its lane for the next. Shared by attempt_smtp.c, outgoing.c, outgoing_mail.c.
 *
 *      resolve -> connect --greeted--> ready <-> transaction
 *                   ^  \--failed--> next address; none left: on_host_failed
 *                   \--TLS failed and not required: the same address without TLS
 *
 * Failures found inside the machine are kept in `doom` and dealt with when it has returned: a connection is never freed
 * under its machine. */
#ifndef RELAY_OUTGOING_H
#define RELAY_OUTGOING_H

#include "attempt.h"
#include "conn.h"
#include "dns.h"
#include "smtp_out.h"

#define REPLY_MS 300000u           /* RFC 5321 4.5.3.2: MAIL, RCPT 5 min, DATA 2 min */
#define DOT_MS 600000u             /* 4.5.3.2.6 */
#define PROGRESS_MS 180000u        /* 4.5.3.2.5: each piece of the body */

struct outgoing {
    struct link link, idle_link, lane_link;
    struct attempts *attempts;
    struct lane *lane;
    struct job *job;
    struct conn *conn;
    struct dns_query *query;       /* addresses; until the handshake is over */
    uint32_t address_at;
    struct loop_timer timer;
    uint64_t deadline_ms, armed_ms, opened_ms;
    struct loop_task task;         /* connects outside attempt_start */
    struct smtp_out machine;
    bool started, working, in_transaction, plaintext, reused;
    bool doomed;
    bool untouched;                /* it failed before it said anything to this message */
    struct outcome doom;           /* why the connection is of no more use; the last host's failure */
    struct body_fetch body;
    struct port_fetch stream;
    bool streaming, stream_paused;
    uint32_t sent;                 /* recipients of the transaction */
    uint32_t map[SMTP_OUT_RECIPIENTS_MAX];
    struct smtp_out_address recipients[SMTP_OUT_RECIPIENTS_MAX];
    char peer[DNS_NAME_BYTES + 72]; /* name[address] */
    char relay[DNS_NAME_BYTES + 80];
};

/* --- outgoing.c --- */

void outgoing_touch(struct outgoing *s, uint64_t ms); /* its deadline is in `ms` */
void outgoing_leave_idle(struct outgoing *s);
void outgoing_go_idle(struct outgoing *s);            /* without a job; the next one of its lane finds it */
void outgoing_quit(struct outgoing *s);
void outgoing_free(struct outgoing *s);
void outgoing_finish_job(struct outgoing *s);         /* every recipient has its outcome */
void outgoing_give_rest(struct outgoing *s, const struct outcome *o); /* to the recipients that have none */
void outgoing_doom(struct outgoing *s, const char *text); /* the host is to blame */
void outgoing_fail(struct outgoing *s);               /* the connection broke, or must be, with `doom` as the reason */
void outgoing_stop_body(struct outgoing *s);

/* --- outgoing_mail.c --- */

extern const struct smtp_out_callbacks outgoing_machine_callbacks;
void outgoing_begin_job(struct outgoing *s);

/* --- attempt_smtp.c --- */

void attempt_smtp_try_next(struct outgoing *s); /* connects to the next address that can be tried, or gives the job back */

#endif
