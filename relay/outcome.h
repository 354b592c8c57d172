/* SPDX-License-Identifier: Apache-2.0 */
/* What became of one recipient in one attempt. The one table that turns replies, errors and DNS verdicts into
 * delivered, deferred or bounced, a DSN code and a sentence. Pure. */
#ifndef RELAY_OUTCOME_H
#define RELAY_OUTCOME_H

#include <base/err.h>
#include <spoolfs/envelope.h>
#include <spoolfs/limits.h>
#include <stdbool.h>
#include <stdint.h>

#define OUTCOME_DSN_BYTES 12u /* "5.123.123" */

/* Who is to blame: decides what else learns from it. */
enum outcome_blame {
    OUTCOME_MESSAGE, /* this message or recipient only */
    OUTCOME_HOST,    /* the peer as a whole: try its next address, then back off from the destination */
    OUTCOME_US,      /* our own side: spool, memory, file descriptors */
};

struct outcome {
    enum mark_status status;           /* MARK_DELIVERED, MARK_DEFERRED, MARK_BOUNCED, MARK_EXPIRED */
    enum outcome_blame blame;
    char dsn[OUTCOME_DSN_BYTES];
    char text[REASON_BYTES_MAX];       /* one printable line, terminated */
};

/* A reply of a peer. `code` 200..599; `text` as it came, with the enhanced code in front if the peer sent one;
 * `command`: "RCPT TO", "end of DATA" ... NULL for a success; `peer`: "name[address]". */
void outcome_of_reply(unsigned code, const char *text, const char *command, const char *peer, struct outcome *o);
/* An error of our own; `what`: what was tried ("connect to mx.example.org[192.0.2.1]:25"). */
void outcome_of_err(enum err e, const char *what, struct outcome *o);
/* "5.1.10 Domain takes no mail": a sentence of our own that may begin with its DSN code. `otherwise`: the code when
 * it does not; its class decides. */
void outcome_of_text(const char *text, const char *otherwise, struct outcome *o);
/* A deferral that came too late. */
void outcome_expire(struct outcome *o);

const char *outcome_status_word(enum mark_status s); /* sent, deferred, bounced, expired */
/* Finds "d.d.d" at the start of text. Returns its length, 0 when there is none. */
uint32_t outcome_dsn_in(const char *text, char dsn[OUTCOME_DSN_BYTES]);

/* "a/b/c/d" of Postfix's log line, and its sum: seconds with at most two decimals. */
#define OUTCOME_DELAYS_BYTES 64u
struct outcome_delays { uint64_t before_ms, queue_ms, connect_ms, transmit_ms; };
void outcome_print_delay(uint64_t ms, char *text, uint32_t bytes);
void outcome_print_delays(const struct outcome_delays *d, char text[OUTCOME_DELAYS_BYTES]);

#endif
