/* SPDX-License-Identifier: Apache-2.0 */
/* From a transaction of the SMTP server to an append: envelope, Received header, body in memory or in CHUNKs.
 * Knows nothing of SMTP replies and sockets; speaks to the spool through port.h only.
 *
 *  INT-1  done(ERR_OK) is called after port_append's done(ERR_OK) and never before: it is what "250" rests on.
 *  INT-2  memory of one transaction is bounded: its envelope and one buffer of BODY_INLINE_MAX. When the spool is out of
 *         credit intake_body takes less than it was offered and go_on follows.
 *  INT-3  an append in flight outlives its session: intake_abandon gives up waiting for it, never the message.
 *  INT-4  what was reserved is given back exactly once, however the transaction ends. */
#ifndef RELAY_INTAKE_H
#define RELAY_INTAKE_H

#include "loop.h"
#include "mail.h"
#include "port.h"
#include "settings.h"

#include <stddef.h>

struct intake;
struct intake_transaction;

struct intake_deps {
    struct loop *loop;
    struct port *port;
    void *owner;
    /* A stored message, leased to us, locator set, `fresh`. The reference is the callee's. The body is in memory unless
     * it is in CHUNKs or settings.fresh_bytes_max was reached. */
    void (*on_accepted)(void *owner, struct mail *mail);
};

enum err intake_open(const struct intake_deps *deps, struct intake **intake_out) MUST_CHECK;
/* Before port_close, when no session is left. What is in flight stays allocated until the port answers it, or for ever:
 * the process ends. */
void intake_close(struct intake **intake);
void intake_room(struct intake *intake);   /* port's on_room */
uint32_t intake_in_flight(const struct intake *intake); /* appends without an answer yet */

/* What the server knows of the peer. Everything is copied or used at once. */
struct intake_client {
    const char *name;      /* "unknown" unless resolved */
    const char *address;   /* "192.0.2.1" or "2001:db8::1" */
    const char *helo;
    const char *tls;       /* "TLSv1.3 with cipher ...", or NULL */
    bool esmtp, smtputf8;  /* "with SMTP | ESMTP | ESMTPS | UTF8SMTP | UTF8SMTPS" */
};

struct intake_callbacks {
    void (*go_on)(void *owner); /* there is room again: repeat what said ERR_BUSY, or offer the rest */
    /* The end: ERR_OK and the queue id, or why not. The transaction is gone. */
    void (*done)(void *owner, enum err e, const char *queue_id);
};

/* `size`: SIZE= of MAIL, 0 when not given. ERR_FULL, ERR_BELOW_POLICY, ERR_READ_ONLY, ERR_INDEX_LAG, ERR_INDEX_FULL when that is known
 * now; ERR_TOO_LARGE over message_size_limit; ERR_NO_MEMORY. `settings` outlives the transaction's session. */
enum err intake_begin(struct intake *intake, const struct settings *settings, const struct intake_callbacks *cb, void *owner,
                      const struct intake_client *client, const char *sender, uint32_t sender_len, uint64_t size,
                      uint32_t envelope_flags, struct intake_transaction **t_out) MUST_CHECK;
/* What the alias tables make of it is added. ERR_TOO_MANY: this envelope has no room for all of it; ERR_EXPANSION; ERR_NO_MEMORY:
 * nothing of it was added. */
enum err intake_recipient(struct intake_transaction *t, const char *address, uint32_t len) MUST_CHECK;
/* Before 354: reserves the space, takes a queue id, writes the Received header. ERR_BUSY: ask again when go_on comes. Any
 * other error: refused, the transaction goes on living (intake_abandon it). */
enum err intake_body_begin(struct intake_transaction *t, const struct settings *settings,
                           const struct intake_client *client) MUST_CHECK;
/* Returns how many bytes were taken; fewer than len: offer the rest after go_on. After a failure everything is taken
 * and forgotten, and intake_body_end tells. */
size_t intake_body(struct intake_transaction *t, const uint8_t *bytes, size_t len);
/* The whole body was given: append. `message_id` is for the log. done follows, maybe before this returns. */
void intake_body_end(struct intake_transaction *t, const char *message_id);
/* RSET, disconnect, refusal. Before intake_body_end nothing remains of it; afterwards the append goes on (INT-3). */
void intake_abandon(struct intake_transaction **t);

#endif
