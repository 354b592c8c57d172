/* SPDX-License-Identifier: Apache-2.0 */
/* Route tables: Postfix's order of lookup, its file syntax, and refusals that name file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char g_text[ROUTE_TEXT_BYTES];

static enum err open_map(const char *content, const char *standard, const char *relayhost,
                         struct route_table **table_out)
{
    char path[] = "/tmp/ironspool-route-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
    char *files[] = {path};
    enum err e = route_table_open(standard, relayhost, files, 1, g_text, table_out);
    unlink(path);
    return e;
}

static const struct route *of(const struct route_table *t, const char *address)
{
    return route_of(t, address, (uint32_t)strlen(address));
}

static void the_most_specific_pattern_wins(void **state)
{
    (void)state;
    struct route_table *t;
    assert_int_equal(open_map("# comment\n"
                              "user@b.test  discard:\n"
                              "b.test       smtp:[192.0.2.1]:2525\n"
                              ".b.test\tlmtp:unix:/run/lmtp\n"
                              "*  error:5.1.1 no\n", "smtp", "", &t), ERR_OK);
    assert_int_equal(of(t, "User@B.Test")->kind, ROUTE_DISCARD);
    assert_int_equal(of(t, "other@b.test")->kind, ROUTE_SMTP);
    assert_string_equal(of(t, "other@b.test")->host, "192.0.2.1");
    assert_int_equal(of(t, "other@b.test")->port, 2525);
    assert_false(of(t, "other@b.test")->mx);
    assert_int_equal(of(t, "x@deep.sub.b.test")->kind, ROUTE_LMTP);
    assert_true(of(t, "x@deep.sub.b.test")->local_socket);
    assert_string_equal(of(t, "x@deep.sub.b.test")->host, "/run/lmtp");
    assert_int_equal(of(t, "x@notb.test")->kind, ROUTE_ERROR);
    assert_string_equal(of(t, "x@notb.test")->host, "5.1.1 no");
    assert_int_equal(route_table_entries(t), 4);
    route_table_close(&t);
}

static void continuations_and_comments_are_postfixs(void **state)
{
    (void)state;
    struct route_table *t;
    static const char map[] = "\n  # indented comment\na.test\n# between\n\n   smtp:[h.test]\nc.test smtp:d.test\n";
    assert_int_equal(open_map(map, "hold", "", &t), ERR_OK);
    assert_string_equal(of(t, "x@a.test")->host, "h.test");
    assert_int_equal(of(t, "x@a.test")->port, 25);
    assert_true(of(t, "x@c.test")->mx);
    assert_int_equal(of(t, "x@e.test")->kind, ROUTE_HOLD);
    route_table_close(&t);
}

static void relayhost_applies_where_the_transport_names_no_host(void **state)
{
    (void)state;
    struct route_table *t;
    assert_int_equal(open_map("a.test :[own.test]:26\nb.test :\n", "smtp", "[relay.test]:2526", &t), ERR_OK);
    assert_string_equal(of(t, "x@z.test")->host, "relay.test");
    assert_int_equal(of(t, "x@z.test")->port, 2526);
    assert_string_equal(of(t, "x@a.test")->host, "own.test");
    assert_string_equal(of(t, "x@b.test")->host, "relay.test");
    route_table_close(&t);
    assert_int_equal(route_table_open("maildir:/m", "[relay.test]", NULL, 0, g_text, &t), ERR_OK);
    assert_int_equal(of(t, "x@z.test")->kind, ROUTE_MAILDIR);
    assert_string_equal(of(t, "x@z.test")->host, "/m");
    route_table_close(&t);
}

static void without_anything_mail_goes_by_mx_of_its_own_domain(void **state)
{
    (void)state;
    struct route_table *t;
    assert_int_equal(route_table_open("smtp", "", NULL, 0, g_text, &t), ERR_OK);
    const struct route *r = of(t, "x@z.test");
    assert_int_equal(r->kind, ROUTE_SMTP);
    assert_true(r->mx);
    assert_string_equal(r->host, "");
    assert_int_equal(of(t, "")->kind, ROUTE_SMTP);
    assert_int_equal(of(t, "no-domain")->kind, ROUTE_SMTP);
    route_table_close(&t);
}

static void what_is_wrong_is_told_with_file_and_line(void **state)
{
    (void)state;
    static const struct { const char *content, *line, *word; } cases[] = {
        {"a.test smtp:\nb.test pigeon:coop\n", ":2: ", "unknown transport"},
        {"a.test\n", ":1: ", "right side"},
        {"a.test smtp:[h\n", ":1: ", "]"},
        {"a.test smtp:h:0\n", ":1: ", "port"},
        {"a.test smtp:h:70000\n", ":1: ", "port"},
        {"a.test smtp:[h]x\n", ":1: ", "port"},
        {"a.test lmtp:\n", ":1: ", "lmtp"},
        {"a.test lmtp:unix:relative\n", ":1: ", "absolute"},
        {"a.test maildir:relative\n", ":1: ", "absolute"},
        {"a.test smtp:::1\n", ":1: ", "brackets"},
        {"a.test smtp:\n\nA.TEST smtp:\n", ":3: ", "twice"},
        {"  smtp:x\n", ":1: ", "continuation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct route_table *t = NULL;
        assert_int_equal(open_map(cases[i].content, "smtp", "", &t), ERR_CONFIG);
        assert_null(t);
        assert_non_null(strstr(g_text, cases[i].line));
        assert_non_null(strstr(g_text, cases[i].word));
    }
}

static void a_line_beyond_its_limit_is_refused(void **state)
{
    (void)state;
    char long_line[ROUTE_LINE_BYTES_MAX + 100];
    struct route_table *t = NULL;
    memset(long_line, 'a', sizeof long_line);
    memcpy(long_line + sizeof long_line - 2, "\n", 2);
    assert_int_equal(open_map(long_line, "smtp", "", &t), ERR_CONFIG);
    assert_non_null(strstr(g_text, "longer"));
}

static void a_missing_file_and_a_bad_default_are_refused(void **state)
{
    (void)state;
    struct route_table *t = NULL;
    char *files[] = {"/nonexistent/transport"};
    assert_int_equal(route_table_open("smtp", "", files, 1, g_text, &t), ERR_CONFIG);
    assert_non_null(strstr(g_text, "/nonexistent/transport"));
    assert_int_equal(route_table_open("nonsense", "", NULL, 0, g_text, &t), ERR_CONFIG);
    assert_non_null(strstr(g_text, "default_transport"));
    assert_int_equal(route_table_open("smtp", "[x", NULL, 0, g_text, &t), ERR_CONFIG);
    assert_non_null(strstr(g_text, "relayhost"));
}

static void many_entries_are_all_found(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    char *content = malloc(COUNT * 64);
    uint32_t used = 0;
    for (int i = 0; i < COUNT; i++)
        used += (uint32_t)sprintf(content + used, "d%d.test smtp:[h%d.test]\n", i, i % 7);
    struct route_table *t;
    assert_int_equal(open_map(content, "smtp", "", &t), ERR_OK);
    free(content);
    for (int i = 0; i < COUNT; i++) {
        char address[64], host[64];
        snprintf(address, sizeof address, "x@d%d.test", i);
        snprintf(host, sizeof host, "h%d.test", i % 7);
        assert_string_equal(of(t, address)->host, host);
    }
    assert_string_equal(of(t, "x@d5000.test")->host, "");
    route_table_close(&t);
}

static void ipv6_hosts_stand_in_brackets(void **state)
{
    (void)state;
    struct route r;
    assert_int_equal(route_parse("smtp:[2001:db8::1]:26", &r, g_text), ERR_OK);
    assert_string_equal(r.host, "2001:db8::1");
    assert_int_equal(r.port, 26);
    assert_int_equal(route_parse("lmtp:inet:mda.test:24", &r, g_text), ERR_OK);
    assert_string_equal(r.host, "mda.test");
    assert_int_equal(r.port, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_specific_pattern_wins),
        cmocka_unit_test(continuations_and_comments_are_postfixs),
        cmocka_unit_test(relayhost_applies_where_the_transport_names_no_host),
        cmocka_unit_test(without_anything_mail_goes_by_mx_of_its_own_domain),
        cmocka_unit_test(what_is_wrong_is_told_with_file_and_line),
        cmocka_unit_test(a_line_beyond_its_limit_is_refused),
        cmocka_unit_test(a_missing_file_and_a_bad_default_are_refused),
        cmocka_unit_test(many_entries_are_all_found),
        cmocka_unit_test(ipv6_hosts_stand_in_brackets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
