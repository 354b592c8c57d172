/* SPDX-License-Identifier: Apache-2.0 */
/* Alias tables of arbitrary bytes: refused with a text, or whatever address is asked for expands within its bounds (EXP-1)
 * to addresses SMTP can express (ALI-2), twice the same, and an error leaves nothing behind (EXP-3, RCP-1).
 * Input: a table of aliases, a NUL, a table of virtual aliases, a NUL, the file that /proc/self/fd/100 includes. */
#include "fuzz_input.h"
#include "recipients.h"
#include "smtp_syntax.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIASES, VIRTUALS, INCLUDED, FILES };
#define FIRST_FD 98 /* the third is 100 */

static char paths[FILES][32];

static void check_address(const char *address, uint32_t len)
{
    char line[ADDRESS_BYTES_MAX + 8];
    struct smtp_path path;
    struct smtp_text rest;
    ASSERT(len > 0 && len <= ADDRESS_BYTES_MAX);
    int n = snprintf(line, sizeof line, "TO:<%.*s>", (int)len, address);
    ASSERT(n == (int)len + 5);
    ASSERT(smtp_parse_path((struct smtp_text){line, (uint32_t)n}, "TO:", &path, &rest) == ERR_OK && path.len == len);
}

static void check_found(const struct expansion *x, uint32_t from)
{
    ASSERT(x->found_count - from <= ALIAS_EXPANSION_MAX && x->steps <= ALIAS_STEPS_MAX && x->pending_count == 0);
    for (uint32_t i = from; i < x->found_count; i++) {
        const struct found *f = &x->found[i];
        check_address(x->text.bytes + f->at, f->len);
        if (f->owner_len > 0)
            check_address(x->text.bytes + f->owner_at, f->owner_len);
    }
}

static void try_address(const struct alias_table *t, struct expansion *all, struct recipients *r, const char *address,
                        uint32_t len)
{
    struct expansion one = {0}, again = {0};
    const char *why = NULL;
    uint32_t before = all->found_count, count = r->envelope.count;
    (void)alias_verdict(t, address, len);
    enum err e = expand(&one, t, address, len, false, &why);
    ASSERT((e == ERR_EXPANSION && why && one.found_count == 0) || (e == ERR_OK && one.found_count > 0));
    if (!e)
        check_found(&one, 0);
    ASSERT(expand(&again, t, address, len, false, &why) == e && again.found_count == one.found_count);
    ASSERT(expand(all, t, address, len, true, &why) == e);
    ASSERT(all->found_count - before <= one.found_count);
    enum err added = recipients_add(r, address, len, &why);
    ASSERT(added == ERR_OK || (r->envelope.count == count && (added == e || added == ERR_TOO_MANY)));
    expansion_free(&one);
    expansion_free(&again);
}

static void check_envelope(struct recipients *r)
{
    struct envelope e;
    uint32_t len;
    ASSERT(recipients_end(r, 0, 0, &len) == ERR_OK && len <= ENVELOPE_BYTES_MAX);
    ASSERT(envelope_decode(r->envelope.buffer, len, &e) == ERR_OK);
}

static void check_tables(const struct alias_table *t, const uint8_t *bytes, size_t len)
{
    static const char *const fixed[] = {"list@h.test", "owner-list@h.test", "a@v.test", "\"a b\"@h.test", "@"};
    struct expansion all = {0};
    struct recipients r = {.aliases = t};
    ASSERT(recipients_begin(&r, &(struct envelope){.sender = "s@t", .sender_len = 3, .client = "", .helo = ""}) == ERR_OK);
    for (unsigned i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (fixed[i][1])
            try_address(t, &all, &r, fixed[i], (uint32_t)strlen(fixed[i]));
    for (size_t at = 0; at < len && at < 600; at++) { /* what stands at the beginning of a line, as a name of ours */
        const uint8_t *end = at == 0 || bytes[at - 1] == '\n' ? bytes + at : NULL;
        while (end && end < bytes + len && end < bytes + at + 60 && *end > ' ' && *end != ':')
            end++;
        char address[80];
        int n = end > bytes + at ? snprintf(address, sizeof address, "%.*s%s", (int)(end - bytes - at), bytes + at,
                                            memchr(bytes + at, '@', (size_t)(end - bytes - at)) ? "" : "@h.test") : 0;
        struct smtp_path path;
        struct smtp_text rest;
        char line[96];
        int m = snprintf(line, sizeof line, "TO:<%s>", n > 0 ? address : "");
        if (n > 0 && smtp_parse_path((struct smtp_text){line, (uint32_t)m}, "TO:", &path, &rest) == ERR_OK && path.len > 0 &&
            path.has_domain)
            try_address(t, &all, &r, path.at, path.len); /* as it comes from RCPT */
    }
    check_envelope(&r);
    recipients_free(&r);
    expansion_free(&all);
}

static void write_files(const uint8_t *bytes, size_t len)
{
    for (int i = 0; i < FILES; i++) {
        if (!paths[i][0]) {
            int fd = memfd_create("aliases", 0);
            ASSERT(fd >= 0 && dup2(fd, FIRST_FD + i) == FIRST_FD + i && close(fd) == 0);
            snprintf(paths[i], sizeof paths[i], "/proc/self/fd/%d", FIRST_FD + i);
        }
        const uint8_t *end = i < INCLUDED && len ? memchr(bytes, '\0', len) : NULL;
        size_t n = end ? (size_t)(end - bytes) : len;
        ASSERT(ftruncate(FIRST_FD + i, 0) == 0 && pwrite(FIRST_FD + i, bytes, n, 0) == (ssize_t)n);
        bytes += end ? n + 1 : n;
        len -= end ? n + 1 : n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char text[MAPFILE_TEXT_BYTES];
    struct alias_table *t = NULL;
    write_files(bytes, len);
    char *const aliases[] = {paths[ALIASES]}, *const virtuals[] = {paths[VIRTUALS]};
    struct alias_config c = {.hostname = "h.test", .alias_files = aliases, .alias_file_count = 1, .virtual_files = virtuals,
                             .virtual_file_count = 1};
    if (alias_table_open(&c, text, &t) != ERR_OK) {
        ASSERT(text[0] && memchr(text, '\0', sizeof text) && !t);
        return 0;
    }
    check_tables(t, bytes, len);
    alias_table_close(&t);
    return 0;
}
