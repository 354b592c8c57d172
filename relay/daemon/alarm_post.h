/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP request at a time to one URL: a webhook's POST, a heartbeat's GET.
 *
 *   idle -> resolving -> connecting [-> handshake] -> asking -> answered 2xx | failed -> idle
 *
 *  APO-1  done exactly once for each post_start, never from inside it, at the latest after ALARM_POST_MS.
 *  APO-2  https goes to nobody whose certificate does not prove the URL's host (TLS-2). Redirects are not followed: they
 *         would take the alarm somewhere the operator did not name. */
#ifndef DAEMON_ALARM_POST_H
#define DAEMON_ALARM_POST_H

#include "alarm_url.h"

#include <conn.h>
#include <dns.h>

#define ALARM_POST_MS 15000u

struct alarm_post {
    /* in, before the first start */
    struct loop *loop;
    struct dns *dns;
    struct tls_context *tls;   /* for https; not owned */
    struct alarm_url url;
    void *owner;
    void (*done)(struct alarm_post *p, bool ok, const char *text);
    /* private */
    struct dns_query query;
    struct conn *conn;
    struct loop_timer limit;
    struct loop_task task;
    uint32_t address;          /* the one of the query that is being tried */
    bool busy, begun;
    char text[256];
    bool ok;
    char head[ALARM_URL_BYTES + 512];
    size_t head_len, body_len;
    char *body;                /* owned */
    char answer[ALARM_ANSWER_BYTES_MAX];
    size_t answer_len;
};

void alarm_post_open(struct alarm_post *p);
void alarm_post_close(struct alarm_post *p); /* forgets what is under way; no done follows */
/* body NULL: a GET. Copied. ERR_BUSY, ERR_NO_MEMORY: then no done follows. */
enum err alarm_post_start(struct alarm_post *p, const char *body, size_t len) MUST_CHECK;

#endif
