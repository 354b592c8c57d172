/* SPDX-License-Identifier: Apache-2.0 */
/* Bounces: multipart/report of RFC 3464 with the original's headers, from the null sender. Pure.
 *
 *  DSN-1  the whole bounce fits BODY_INLINE_MAX, whatever the original's headers and the peers' replies.
 *  DSN-2  what the original and the peers said cannot leave its place: no line of it is longer than 998 bytes, none has
 *         a control character, none is the boundary. */
#ifndef RELAY_DSN_H
#define RELAY_DSN_H

#include "alias.h"
#include "mail.h"

#include <stdbool.h>

#define DSN_ORIGINAL_BYTES_MAX 16384u /* of the original's headers */
#define DSN_RECIPIENTS_MAX 50u
#define DSN_ENVELOPE_BYTES_MAX 65536u /* an alias that makes more of `to` is left to its own name: results and bounce
                                         share one message of the wire */

struct dsn_recipient {
    const char *address;
    uint32_t len;
    const char *dsn;   /* "5.1.1" */
    const char *text;  /* what became of it */
    bool expired;
    const char *original; /* what the client said, when an alias made this of it; NULL */
    uint32_t original_len;
};

struct dsn_report {
    struct queue_id qid;               /* of the bounce */
    const struct mail *mail;           /* the original */
    const char *to;                    /* its sender, or the owner of the alias; never empty */
    uint32_t to_len;
    const struct alias_table *aliases; /* or NULL */
    const struct dsn_recipient *recipients;
    uint32_t count;                    /* at most DSN_RECIPIENTS_MAX */
    const uint8_t *head;               /* the beginning of the original, its headers and more; may be empty */
    uint32_t head_len;
    const char *hostname, *mail_name;
    uint64_t now_ms;                   /* pool clock, since 1970 */
};

/* ERR_NO_MEMORY; the mail is ready to be appended: envelope, whole body, ENVELOPE_BOUNCE. */
enum err dsn_make(const struct dsn_report *report, struct mail **mail_out) MUST_CHECK;

#endif
