/* SPDX-License-Identifier: Apache-2.0 */
/* "https://host:port/path" taken apart, and the little of HTTP that is needed to knock there. Pure. */
#ifndef DAEMON_ALARM_URL_H
#define DAEMON_ALARM_URL_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALARM_URL_BYTES 512u
#define ALARM_ANSWER_BYTES_MAX 8192u /* of an answer's first line and what came with it; the rest is not read */

struct alarm_url {
    bool tls;
    uint16_t port;
    char host[256];              /* without brackets */
    char target[ALARM_URL_BYTES];/* path and query, at least "/" */
};

/* ERR_CONFIG with why[] when it is none of ours: http or https, no user, no fragment, printable ASCII. */
enum err alarm_url_parse(const char *text, struct alarm_url *url_out, char why[256]) MUST_CHECK;
/* The request's head; returns its length, 0 when it does not fit. body_len 0: a GET. */
size_t alarm_url_request(const struct alarm_url *url, size_t body_len, char *head, size_t room);
/* The status of an answer. ERR_SHORT: its first line is not whole yet; ERR_INVALID: that is not HTTP. */
enum err alarm_url_answer(const char *bytes, size_t len, unsigned *status_out) MUST_CHECK;

#endif
