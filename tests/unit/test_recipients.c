/* SPDX-License-Identifier: Apache-2.0 */
/* The recipients of a message with alias tables: whole or not at all (RCP-1), within one envelope (RCP-2), and what the
 * envelope then says of where each came from. And the origins' codec (ENV-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recipients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct alias_table *g_table;
static struct recipients g;
static char g_shown[8192];

static void open_table(const char *aliases)
{
    char path[] = "/tmp/ironspool-recipients-XXXXXX", *files[] = {path}, text[MAPFILE_TEXT_BYTES];
    struct alias_config c = {.hostname = "here.test", .alias_files = files, .alias_file_count = 1};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, aliases, strlen(aliases)), (ssize_t)strlen(aliases));
    close(fd);
    assert_int_equal(alias_table_open(&c, text, &g_table), ERR_OK);
    unlink(path);
}

static void begin(const char *sender)
{
    struct envelope e = {.sender = sender, .sender_len = (uint32_t)strlen(sender), .client = "c", .client_len = 1, .helo = "h",
                         .helo_len = 1};
    recipients_free(&g);
    g.aliases = g_table;
    assert_int_equal(recipients_begin(&g, &e), ERR_OK);
}

static int teardown(void **state)
{
    (void)state;
    recipients_free(&g);
    alias_table_close(&g_table);
    return 0;
}

static enum err add(const char *address)
{
    const char *why;
    return recipients_add(&g, address, (uint32_t)strlen(address), &why);
}

/* "0:a@b(said/sender) 1:..." */
static const char *envelope(void)
{
    struct envelope e;
    struct envelope_cursor c, origins;
    struct envelope_origin origin = {0};
    const char *address;
    uint32_t len, used = 0, bytes;
    g_shown[0] = '\0';
    assert_int_equal(recipients_end(&g, 7, 0, &bytes), ERR_OK);
    assert_int_equal(envelope_decode(g.envelope.buffer, bytes, &e), ERR_OK);
    envelope_recipients(&e, &c);
    envelope_origins(&e, &origins);
    for (uint32_t i = 0; envelope_recipient_next(&c, &address, &len); i++) {
        const struct envelope_origin *o = envelope_origin_of(&origins, &origin, i);
        used += (uint32_t)snprintf(g_shown + used, sizeof g_shown - used, "%s%.*s", i ? " " : "", (int)len, address);
        if (o)
            used += (uint32_t)snprintf(g_shown + used, sizeof g_shown - used, "(%.*s/%.*s)", (int)o->address_len, o->address,
                                       (int)o->sender_len, o->sender);
    }
    return g_shown;
}

static void the_envelope_says_where_each_recipient_came_from(void **state)
{
    (void)state;
    uint32_t len;
    open_table("list: a@far.test, b@far.test, sub@here.test\nowner-sub: boss@far.test\nsub: c@far.test, d@far.test\n"
               "self: self@here.test, a@far.test\n");
    begin("s@far.test");
    assert_int_equal(add("x@far.test"), ERR_OK);
    assert_non_null(recipients_single(&g, &len));
    assert_int_equal(add("list@here.test"), ERR_OK);
    assert_null(recipients_single(&g, &len));
    assert_int_equal(add("self@here.test"), ERR_OK);
    assert_string_equal(envelope(), "x@far.test a@far.test(list@here.test/) b@far.test(list@here.test/) "
                                    "c@far.test(list@here.test/owner-sub@here.test) "
                                    "d@far.test(list@here.test/owner-sub@here.test) self@here.test");
    begin("");
    assert_int_equal(add("sub@here.test"), ERR_OK);
    assert_string_equal(envelope(), "c@far.test(sub@here.test/) d@far.test(sub@here.test/)");
}

static void without_aliases_the_envelope_is_the_old_one(void **state)
{
    (void)state;
    begin("s@far.test");
    assert_int_equal(add("x@far.test"), ERR_OK);
    assert_int_equal(add("x@far.test"), ERR_OK);
    assert_string_equal(envelope(), "x@far.test x@far.test");
    assert_int_equal(g.envelope.buffer[0], 1);
    open_table("list: a@far.test\n");
    begin("s@far.test");
    assert_int_equal(add("x@far.test"), ERR_OK);
    assert_string_equal(envelope(), "x@far.test");
    assert_int_equal(g.envelope.buffer[0], 1);
    begin("s@far.test");
    assert_int_equal(add("list@here.test"), ERR_OK);
    assert_string_equal(envelope(), "a@far.test(list@here.test/)");
    assert_int_equal(g.envelope.buffer[0], 2);
}

/* RCP-1, RCP-2: in what is left of the envelope a list fits whole or leaves no trace. */
static void a_list_is_added_whole_or_not_at_all(void **state)
{
    (void)state;
    char address[64];
    open_table("three: a@far.test, b@far.test, c@far.test\nfour: a@far.test, b@far.test, c@far.test, d@far.test\n");
    begin("s@far.test");
    for (uint32_t i = 0; i < RECIPIENTS_PER_MESSAGE_MAX - 3; i++) {
        snprintf(address, sizeof address, "u%u@far.test", i);
        assert_int_equal(add(address), ERR_OK);
    }
    uint32_t used = g.envelope.used;
    assert_int_equal(add("four@here.test"), ERR_TOO_MANY);
    assert_int_equal(g.envelope.used, used);
    assert_int_equal(g.origin_count + g.origin_bytes, 0);
    assert_int_equal(g.expansion.found_count, RECIPIENTS_PER_MESSAGE_MAX - 3);
    assert_int_equal(add("three@here.test"), ERR_OK);
    assert_int_equal(g.envelope.count, RECIPIENTS_PER_MESSAGE_MAX);
    assert_int_equal(add("one@far.test"), ERR_TOO_MANY);
    assert_int_equal(add("three@here.test"), ERR_OK); /* all of it is there already */
    uint32_t bytes;
    assert_int_equal(recipients_end(&g, 7, 0, &bytes), ERR_OK);
}

/* Origins count: addresses of full length with origins of full length fill the envelope before there are a thousand. */
static void origins_fit_the_envelope_too(void **state)
{
    (void)state;
    static char table[700 * 1024];
    char *at = table, said[ADDRESS_BYTES_MAX + 1];
    memset(said, 'n', 310);
    strcpy(said + 310, "@here.test");
    for (uint32_t i = 0; i < RECIPIENTS_PER_MESSAGE_MAX; i++)
        at += sprintf(at, "%06u%.304s: %06u%.304s@here.tset\n", i, said, i, said);
    open_table(table);
    begin("s@far.test");
    uint32_t added = 0;
    enum err e = ERR_OK;
    for (; added < RECIPIENTS_PER_MESSAGE_MAX && !e; added += !e) {
        char digits[8];
        snprintf(digits, sizeof digits, "%06u", added);
        memcpy(said, digits, 6);
        e = add(said);
    }
    assert_int_equal(e, ERR_TOO_MANY);
    assert_int_equal(added, (ENVELOPE_BYTES_MAX - 40 - 12) / (2 * ADDRESS_BYTES_MAX + 2 + ENVELOPE_ORIGIN_BYTES));
    uint32_t bytes;
    assert_int_equal(recipients_end(&g, 7, 0, &bytes), ERR_OK);
    assert_true(bytes <= ENVELOPE_BYTES_MAX);
}

static void origins_that_lie_do_not_decode(void **state)
{
    (void)state;
    uint8_t bytes[256], bad[256];
    struct envelope_writer w;
    struct envelope e = {.sender = "", .client = "", .helo = ""}, decoded;
    struct envelope_origin o = {.first = 0, .count = 2, .address = "a", .address_len = 1, .sender = "b", .sender_len = 1};
    assert_int_equal(envelope_begin(&w, bytes, sizeof bytes, &e), ERR_OK);
    assert_int_equal(envelope_add_recipient(&w, "x@y", 3), ERR_OK);
    assert_int_equal(envelope_add_origin(&w, &o), ERR_INVALID); /* there is one recipient */
    o.count = 1;
    assert_int_equal(envelope_add_origin(&w, &o), ERR_OK);
    uint32_t len = envelope_end(&w, 0, 0), at = 40 + 2 + 3;
    assert_int_equal(envelope_decode(bytes, len, &decoded), ERR_OK);
    assert_int_equal(len, at + 8 + 2);
    const struct { uint32_t offset; uint8_t value; } lies[] = {
        {0, 1}, {0, 3}, {38, 0}, {38, 2}, {at, 1}, {at, 2}, {at + 2, 0}, {at + 2, 2}, {at + 4, 0}, {at + 4, 2}, {at + 6, 0},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        memcpy(bad, bytes, len);
        bad[lies[i].offset] = lies[i].value;
        assert_int_not_equal(envelope_decode(bad, len, &decoded), ERR_OK);
    }
    for (uint32_t cut = 0; cut < len; cut++)
        assert_int_not_equal(envelope_decode(bytes, cut, &decoded), ERR_OK);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, teardown)
    const struct CMUnitTest tests[] = {
        T(the_envelope_says_where_each_recipient_came_from),
        T(without_aliases_the_envelope_is_the_old_one),
        T(a_list_is_added_whole_or_not_at_all),
        T(origins_fit_the_envelope_too),
        T(origins_that_lie_do_not_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
