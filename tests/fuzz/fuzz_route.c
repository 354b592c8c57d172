/* SPDX-License-Identifier: Apache-2.0 */
/* A transport table of arbitrary bytes: refused with a text, or every address has a route (RTE-1), twice the same, and
 * nothing in a route is longer than it may be. Input: one line that is tried as a route, then the table. */
#include "fuzz_input.h"
#include "route.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char path[64];
static int table_fd = -1;

static void check_route(const struct route *r)
{
    ASSERT(r && r->kind <= ROUTE_ERROR);
    ASSERT(memchr(r->host, '\0', sizeof r->host) && memchr(r->nexthop, '\0', sizeof r->nexthop));
    ASSERT(r->kind != ROUTE_MAILDIR || r->host[0]);
}

static void check_table(const struct route_table *t, const uint8_t *bytes, size_t len)
{
    static const char *const addresses[] = {"a@b.test", "", "@", "a@", "a+x@b.test", "a@x.sub.b.test", "a"};
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++)
        check_route(route_of(t, addresses[i], (uint32_t)strlen(addresses[i])));
    for (size_t at = 0; at < len && at < 400; at += 37) {
        uint32_t n = (uint32_t)(len - at < 64 ? len - at : 64);
        char *exact = malloc(n);
        ASSERT(exact);
        memcpy(exact, bytes + at, n);
        const struct route *r = route_of(t, exact, n);
        check_route(r);
        ASSERT(r == route_of(t, exact, n));
        free(exact);
    }
}

static void try_line(const struct fuzz_input *in, size_t len)
{
    struct route route;
    char text[ROUTE_TEXT_BYTES], *line = malloc(len + 1);
    ASSERT(line);
    memcpy(line, in->at, len);
    line[len] = '\0';
    text[0] = '\0';
    if (route_parse(line, &route, text) == ERR_OK)
        check_route(&route);
    else
        ASSERT(memchr(text, '\0', sizeof text));
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input in = {bytes, bytes + len};
    const uint8_t *eol = len ? memchr(bytes, '\n', len) : NULL;
    if (table_fd < 0) {
        table_fd = memfd_create("transport", 0);
        ASSERT(table_fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", table_fd);
    }
    try_line(&in, eol ? (size_t)(eol - bytes) : len);
    if (eol)
        in.at = eol + 1;
    ASSERT(ftruncate(table_fd, 0) == 0 && pwrite(table_fd, in.at, fuzz_left(&in), 0) == (ssize_t)fuzz_left(&in));
    char *const maps[] = {path};
    char text[ROUTE_TEXT_BYTES];
    struct route_table *t = NULL;
    if (route_table_open("smtp", "", maps, 1, text, &t) != ERR_OK) {
        ASSERT(text[0] && memchr(text, '\0', sizeof text) && !t);
        return 0;
    }
    check_table(t, in.at, fuzz_left(&in));
    route_table_close(&t);
    return 0;
}
