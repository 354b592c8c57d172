/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in, fields out. See alarm_url.h. */
#include "alarm_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static enum err refuse(char why[256], const char *what)
{
    snprintf(why, 256, "%s", what);
    return ERR_CONFIG;
}

/* "host", "host:port", "[::1]:port". */
static bool split_authority(const char *at, size_t len, struct alarm_url *u)
{
    const char *end = at + len, *host = at, *host_end, *colon;
    if (len > 0 && at[0] == '[') {
        host = at + 1;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (!host_end || !memchr(host, ':', (size_t)(host_end - host)))
            return false;
        colon = host_end + 1;
    } else {
        colon = memchr(at, ':', len);
        host_end = colon ? colon : end;
        colon = colon ? colon : end;
    }
    size_t host_len = (size_t)(host_end - host);
    if (host_len == 0 || host_len >= sizeof u->host)
        return false;
    memcpy(u->host, host, host_len);
    u->host[host_len] = '\0';
    if (colon == end)
        return true;
    unsigned port = 0;
    for (const char *d = colon + 1; d < end; d++) {
        if (*d < '0' || *d > '9' || (port = port * 10 + (unsigned)(*d - '0')) > 65535)
            return false;
    }
    u->port = (uint16_t)port;
    return *colon == ':' && port > 0;
}

enum err alarm_url_parse(const char *text, struct alarm_url *url_out, char why[256])
{
    struct alarm_url u = {.port = 80};
    const char *at = text;
    if (strlen(text) >= ALARM_URL_BYTES)
        return refuse(why, "is longer than 511 characters");
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~')
            return refuse(why, "has a byte in it that a URL may not have");
    if (strncasecmp(at, "https://", 8) == 0) {
        u.tls = true;
        u.port = 443;
        at += 8;
    } else if (strncasecmp(at, "http://", 7) == 0) {
        at += 7;
    } else {
        return refuse(why, "does not begin with http:// or https://");
    }
    size_t len = strcspn(at, "/?#");
    if (memchr(at, '@', len))
        return refuse(why, "has a user in it; put a secret into the path instead");
    if (!split_authority(at, len, &u))
        return refuse(why, "has no host, or its port is none (http://host:port/path)");
    if (strchr(at + len, '#'))
        return refuse(why, "has a fragment (#), which is never sent");
    snprintf(u.target, sizeof u.target, "%s%s", at[len] == '/' ? "" : "/", at + len);
    *url_out = u;
    return ERR_OK;
}

size_t alarm_url_request(const struct alarm_url *u, size_t body_len, char *head, size_t room)
{
    char port[8] = "", length[96] = "";
    bool v6 = strchr(u->host, ':') != NULL;
    if (u->port != (u->tls ? 443 : 80))
        snprintf(port, sizeof port, ":%u", u->port);
    if (body_len)
        snprintf(length, sizeof length, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body_len);
    int n = snprintf(head, room, "%s %s HTTP/1.1\r\nHost: %s%s%s%s\r\nUser-Agent: Ironspool/" IRONSPOOL_VERSION "\r\n"
                     "Accept: */*\r\n%sConnection: close\r\n\r\n", body_len ? "POST" : "GET", u->target, v6 ? "[" : "", u->host,
                     v6 ? "]" : "", port, length);
    return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

enum err alarm_url_answer(const char *bytes, size_t len, unsigned *status_out)
{
    static const char protocol[] = "HTTP/1.";
    const char *end = memchr(bytes, '\n', len);
    size_t known = len < sizeof protocol - 1 ? len : sizeof protocol - 1;
    if (memcmp(bytes, protocol, known) != 0 || (!end && len >= ALARM_ANSWER_BYTES_MAX))
        return ERR_INVALID;
    if (!end)
        return ERR_SHORT;
    const char *code = bytes + sizeof protocol; /* behind the minor version */
    if (end - bytes < 12 || code[0] != ' ' || code[1] < '1' || code[1] > '5' || code[2] < '0' || code[2] > '9' ||
        code[3] < '0' || code[3] > '9')
        return ERR_INVALID;
    *status_out = (unsigned)((code[1] - '0') * 100 + (code[2] - '0') * 10 + (code[3] - '0'));
    return ERR_OK;
}
