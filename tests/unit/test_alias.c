/* SPDX-License-Identifier: Apache-2.0 */
/* Alias tables and what they make of a recipient: the files' syntax (aliases(5), virtual(5)), refusals that name file
 * and line, the order of lookup, circles, owners, and each limit at its last value and one past it (ALI, EXP). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "expand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char g_text[MAPFILE_TEXT_BYTES], g_found[65536];
static const char *g_why;
static struct alias_table *g_table;
static struct expansion g_expansion;

static void write_file(char path[32], const char *content)
{
    strcpy(path, "/tmp/ironspool-alias-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
}

/* NULL: no such file. */
static enum err open_tables(const char *aliases, const char *virtuals)
{
    char alias_path[32], virtual_path[32], *alias_files[] = {alias_path}, *virtual_files[] = {virtual_path};
    static char domain[] = "here.test", *domains[] = {domain};
    struct alias_config c = {.hostname = "mx.test", .destinations = domains, .destination_count = 1,
                             .alias_files = alias_files, .virtual_files = virtual_files};
    if (aliases)
        write_file(alias_path, aliases);
    if (virtuals)
        write_file(virtual_path, virtuals);
    c.alias_file_count = aliases != NULL;
    c.virtual_file_count = virtuals != NULL;
    alias_table_close(&g_table);
    enum err e = alias_table_open(&c, g_text, &g_table);
    if (aliases)
        unlink(alias_path);
    if (virtuals)
        unlink(virtual_path);
    return e;
}

static int teardown(void **state)
{
    (void)state;
    alias_table_close(&g_table);
    expansion_free(&g_expansion);
    return 0;
}

static enum err more_of(const char *address, bool keep_sender)
{
    return expand(&g_expansion, g_table, address, (uint32_t)strlen(address), keep_sender, &g_why);
}

/* "a@b c@d<owner>" */
static const char *of(const char *address)
{
    size_t used = 0;
    expansion_free(&g_expansion);
    g_found[0] = '\0';
    if (more_of(address, false) != ERR_OK)
        return g_why;
    for (uint32_t i = 0; i < g_expansion.found_count; i++) {
        const struct found *f = &g_expansion.found[i];
        used += (size_t)snprintf(g_found + used, sizeof g_found - used, "%s%.*s", i ? " " : "", (int)f->len,
                                 g_expansion.text.bytes + f->at);
        if (f->owner_len)
            used += (size_t)snprintf(g_found + used, sizeof g_found - used, "<%.*s>", (int)f->owner_len,
                                     g_expansion.text.bytes + f->owner_at);
    }
    return g_found;
}

static void without_files_there_is_no_table(void **state)
{
    (void)state;
    assert_int_equal(open_tables(NULL, NULL), ERR_OK);
    assert_null(g_table);
}

static void aliases_are_read_as_aliases_5_has_them(void **state)
{
    (void)state;
    assert_int_equal(open_tables("# comment\n"
                                 "Postmaster: root\n"
                                 "root:\tann@far.test,\n"
                                 "   # between\n"
                                 "\tBob <bob@far.test>, (a comment, with a comma) carol\n"
                                 "\"two words\" : ann@far.test\n"
                                 "  , \"odd name\"@far.test\n"
                                 "quoted: \"ann\"@far.test,\n", NULL), ERR_OK);
    assert_string_equal(of("postmaster@here.test"), "ann@far.test bob@far.test carol@mx.test");
    assert_string_equal(of("PostMaster@HERE.test"), "ann@far.test bob@far.test carol@mx.test");
    assert_string_equal(of("\"root\"@here.test"), "ann@far.test bob@far.test carol@mx.test");
    assert_string_equal(of("\"Two Words\"@here.test"), "ann@far.test \"odd name\"@far.test");
    assert_string_equal(of("quoted@here.test"), "\"ann\"@far.test");
    assert_string_equal(of("root@mx.test"), "ann@far.test bob@far.test carol@mx.test"); /* the host is always one of them */
    assert_string_equal(of("root@elsewhere.test"), "root@elsewhere.test");
    assert_string_equal(of("nobody@here.test"), "nobody@here.test");
}

static void virtual_names_are_looked_up_in_postfixs_order(void **state)
{
    (void)state;
    assert_int_equal(open_tables("ann: alias@far.test\n", "ann@shop.test   first@far.test, second@far.test\n"
                                                          "@shop.test      @here.test\n"
                                                          "bob             bob@far.test\n"
                                                          "@all.test       catch@far.test\n"
                                                          "x@all.test      x@all.test, copy@far.test\n"
                                                          "domain.test     anything\n"
                                                          "in@domain.test  in@far.test\n"), ERR_OK);
    assert_string_equal(of("Ann@Shop.test"), "first@far.test second@far.test");
    assert_string_equal(of("bob@shop.test"), "bob@far.test"); /* the catch-all, then the name alone */
    assert_string_equal(of("bob@here.test"), "bob@far.test");
    assert_string_equal(of("bob@other.test"), "bob@other.test");
    assert_string_equal(of("ann@here.test"), "alias@far.test");
    assert_string_equal(of("y@all.test"), "catch@far.test");
    assert_string_equal(of("x@all.test"), "x@all.test copy@far.test"); /* itself: not looked up again */
    assert_string_equal(of("Zed+a@shop.test"), "Zed+a@here.test"); /* the local part stays as it was written */
    assert_int_equal(alias_verdict(g_table, "in@domain.test", 14), ALIAS_LISTED);
    assert_int_equal(alias_verdict(g_table, "out@domain.test", 15), ALIAS_UNKNOWN);
    assert_int_equal(alias_verdict(g_table, "q@all.test", 10), ALIAS_LISTED);
    assert_int_equal(alias_verdict(g_table, "q@here.test", 11), ALIAS_LOCAL);
    assert_int_equal(alias_verdict(g_table, "q@far.test", 10), ALIAS_NOT_OURS);
}

static void included_files_are_lists_of_lines(void **state)
{
    (void)state;
    char list[32], table[256];
    write_file(list, "# subscribers\n  ann@far.test\nBob <bob@far.test>, carol\n\n");
    snprintf(table, sizeof table, "list: :include:%s, dan@far.test\nagain: \":include:%s\"\n", list, list);
    assert_int_equal(open_tables(table, NULL), ERR_OK);
    assert_string_equal(of("list@here.test"), "ann@far.test bob@far.test carol@mx.test dan@far.test");
    assert_string_equal(of("again@here.test"), "ann@far.test bob@far.test carol@mx.test");
    unlink(list);
    assert_int_equal(open_tables(table, NULL), ERR_CONFIG); /* ALI-1 */
    assert_non_null(strstr(g_text, ":1: "));
    assert_non_null(strstr(g_text, list));
}

static void what_is_no_recipient_is_refused_with_file_line_and_advice(void **state)
{
    (void)state;
    static const struct { const char *aliases, *virtuals, *says; } bad[] = {
        {"a: b@c.test\nx: |/usr/bin/vacation\n", NULL, ":2: mail is not piped into a command; let the program listen with LMTP"},
        {"x: \"|/usr/bin/vacation -a b\"\n", NULL, ":1: mail is not piped"},
        {"x: /var/mail/x\n", NULL, ":1: mail is not appended to a file; name an address here and give it a Maildir"},
        {"x: \"/var/mail/x\"\n", NULL, ":1: mail is not appended"},
        {"x: :include:relative\n", NULL, ":1: :include: takes an absolute path"},
        {"x: :include:/nonexistent/file\n", NULL, ":1: /nonexistent/file: :include: file cannot be opened"},
        {"x: :include:/dev/null\n", NULL, ":1: /dev/null: :include:: not a regular file"},
        {"x: :blackhole:\n", NULL, ":1: not an address"},
        {"x: a@b.test c@d.test\n", NULL, ":1: not an address; is a comma missing?"},
        {"x: a@\n", NULL, ":1: not an address"},
        {"x: @b.test\n", NULL, ":1: a domain alone is a target in virtual_alias_maps only"},
        {"x: \"open\n", NULL, ":1: a quote or a parenthesis is open"},
        {"x: (open\n", NULL, ":1: a quote or a parenthesis is open"},
        {"x: <a@b.test\n", NULL, ":1: not an address: look at its < >"},
        {"x: a\ny: b\nX: c\n", NULL, ":3: listed twice: \"X\""},
        {"x\n", NULL, ":1: not \"name: target"},
        {": a\n", NULL, ":1: not \"name: target"},
        {"\"\": a\n", NULL, ":1: an empty name"},
        {"x:\n", NULL, ":1: no target on the right side"},
        {"x: ,,\n", NULL, ":1: no target on the right side"},
        {"x@here.test: a\n", NULL, ":1: the left side is a name without a domain"},
        {"  x: a\n", NULL, ":1: a continuation of nothing"},
        {NULL, "a@b.test\n", ":1: no target on the right side"},
        {NULL, "a@ b\n", ":1: no domain behind the @"},
        {NULL, "a@b.test |x\n", ":1: mail is not piped"},
        {NULL, "a@b.test :include:/x\n", ":1: :include: belongs into alias_maps"},
        {NULL, "a@b.test x\nA@B.test y\n", ":2: listed twice"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(open_tables(bad[i].aliases, bad[i].virtuals), ERR_CONFIG);
        assert_null(g_table);
        assert_ptr_equal(strstr(g_text, "/tmp/ironspool-alias-"), g_text);
        if (!strstr(g_text, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", g_text, bad[i].says);
    }
    char list[32], table[256];
    write_file(list, "a@b.test\n|x\n");
    snprintf(table, sizeof table, "list: :include:%s\n", list);
    assert_int_equal(open_tables(table, NULL), ERR_CONFIG);
    snprintf(table, sizeof table, ":1: %s:2: mail is not piped", list);
    assert_non_null(strstr(g_text, table));
    unlink(list);
}

static void circles_cost_only_what_lies_on_them(void **state)
{
    (void)state;
    assert_int_equal(open_tables("a: b\nb: a\nc: c, d\nd: c, e@far.test\nself: self\nf: \\f, g\ng: f\n",
                                 "a@mx.test a@here.test\nb@mx.test b@here.test\nc@mx.test c@here.test\nd@mx.test d@here.test\n"
                                 "f@mx.test f@here.test\ng@mx.test g@here.test\nself@mx.test self@here.test\n"), ERR_OK);
    assert_string_equal(of("a@here.test"), "it goes in a circle and reaches nobody"); /* EXP-2 */
    assert_int_equal(more_of("a@here.test", false), ERR_EXPANSION);
    assert_string_equal(of("d@here.test"), "e@far.test");
    assert_string_equal(of("f@here.test"), "f@mx.test");
}

static void a_name_among_its_own_targets_is_the_mailbox(void **state)
{
    (void)state;
    assert_int_equal(open_tables("ann: ann@here.test, copy@far.test\n", "x@v.test x@v.test\n"), ERR_OK);
    assert_string_equal(of("ann@here.test"), "ann@here.test copy@far.test");
    assert_string_equal(of("X@v.test"), "x@v.test");
}

static void an_address_comes_once_for_a_message(void **state)
{
    (void)state;
    assert_int_equal(open_tables("l: a@far.test, m@here.test, a@FAR.test\nm: b@far.test, a@far.test, \"b\"@far.test, B@far.test\n",
                                 NULL), ERR_OK);
    assert_string_equal(of("l@here.test"), "a@far.test b@far.test \"b\"@far.test B@far.test"); /* local parts: case counts */
    assert_int_equal(more_of("m@here.test", false), ERR_OK);
    assert_int_equal(g_expansion.found_count, 4);
    assert_int_equal(more_of("c@far.test", false), ERR_OK);
    assert_int_equal(more_of("c@far.test", false), ERR_OK);
    assert_int_equal(g_expansion.found_count, 5);
}

static void a_list_with_an_owner_sends_in_the_owners_name(void **state)
{
    (void)state;
    assert_int_equal(open_tables("list: a@far.test, sub@here.test\nowner-list: boss@far.test\n"
                                 "sub: b@far.test\nowner-sub: chief@far.test\nowner-owner-list: nobody@far.test\n", NULL), ERR_OK);
    assert_string_equal(of("list@here.test"), "a@far.test<owner-list@here.test> b@far.test<owner-sub@here.test>");
    assert_string_equal(of("owner-list@here.test"), "boss@far.test");
    expansion_free(&g_expansion);
    assert_int_equal(more_of("list@here.test", true), ERR_OK); /* the null sender stays */
    assert_int_equal(g_expansion.found[0].owner_len, 0);
}

/* "name<i>: name<i+1>" ... the last: a@far.test */
static void chain(uint32_t aliases)
{
    char *table = malloc(aliases * 64), *at = table;
    assert_non_null(table);
    for (uint32_t i = 0; i + 1 < aliases; i++)
        at += sprintf(at, "n%u: n%u@here.test\n", i, i + 1);
    sprintf(at, "n%u: a@far.test\n", aliases - 1);
    assert_int_equal(open_tables(table, NULL), ERR_OK);
    free(table);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    chain(ALIAS_DEPTH_MAX);
    assert_string_equal(of("n0@here.test"), "a@far.test");
    chain(ALIAS_DEPTH_MAX + 1);
    assert_string_equal(of("n0@here.test"), "aliases of aliases are nested too deep");
}

/* "list<i>: " with `each` targets of its own */
static char *lists(uint32_t count, uint32_t each, const char *tail)
{
    char *table = malloc(count * (each * 24u + 32u) + 4096), *at = table;
    assert_non_null(table);
    for (uint32_t i = 0; i < count; i++) {
        at += sprintf(at, "list%u: ", i);
        for (uint32_t n = 0; n < each; n++)
            at += sprintf(at, "%su%u-%u@far.test", n ? ", " : "", i, n);
        at += sprintf(at, "\n");
    }
    strcpy(at, tail);
    return table;
}

static void size_is_bounded_and_what_was_found_before_stays(void **state)
{
    (void)state;
    char *table = lists(2, ALIAS_EXPANSION_MAX / 2, "both: list0@here.test, list1@here.test\n"
                                                    "more: list0@here.test, list1@here.test, x@far.test\n");
    assert_int_equal(open_tables(table, NULL), ERR_OK);
    free(table);
    assert_int_equal(more_of("both@here.test", false), ERR_OK);
    assert_int_equal(g_expansion.found_count, ALIAS_EXPANSION_MAX);
    expansion_free(&g_expansion);
    assert_int_equal(more_of("early@far.test", false), ERR_OK);
    assert_int_equal(more_of("more@here.test", false), ERR_EXPANSION); /* EXP-3 */
    assert_int_equal(g_expansion.found_count, 1);
    assert_int_equal(more_of("list0@here.test", false), ERR_OK); /* not taken for found by the call that failed */
    assert_int_equal(g_expansion.found_count, 1 + ALIAS_EXPANSION_MAX / 2);
    table = lists(1, ALIAS_EXPANSION_MAX, "");
    assert_int_equal(open_tables(table, NULL), ERR_OK);
    free(table);
    table = lists(1, ALIAS_EXPANSION_MAX + 1, "");
    assert_int_equal(open_tables(table, NULL), ERR_CONFIG);
    assert_non_null(strstr(g_text, ":1: more than 1000 targets"));
    free(table);
}

/* Aliases that all name the same addresses: steps without end, but for the bound. */
static void steps_are_bounded(void **state)
{
    (void)state;
    enum { EACH = 127, LISTS = 127, TAIL = ALIAS_STEPS_MAX - (1 + LISTS + LISTS * EACH) };
    for (uint32_t tail = TAIL; tail <= TAIL + 1; tail++) {
        char *table = malloc(LISTS * (EACH * 20u + 64u) + 16384), *at = table;
        assert_non_null(table);
        at += sprintf(at, "top: ");
        for (uint32_t i = 0; i < LISTS; i++)
            at += sprintf(at, "%sl%u@here.test", i ? ", " : "", i);
        for (uint32_t i = 0; i < LISTS; i++) {
            at += sprintf(at, "\nl%u: ", i);
            for (uint32_t n = 0; n < EACH; n++)
                at += sprintf(at, "%su%u@far.test", n ? ", " : "", n);
        }
        for (uint32_t n = 0; n < tail; n++)
            at += sprintf(at, ", tail%u@far.test", n);
        strcpy(at, "\n");
        assert_int_equal(open_tables(table, NULL), ERR_OK);
        free(table);
        expansion_free(&g_expansion);
        assert_int_equal(more_of("top@here.test", false), tail == TAIL ? ERR_OK : ERR_EXPANSION);
        if (tail == TAIL)
            assert_int_equal(g_expansion.found_count, EACH + TAIL);
        else
            assert_string_equal(g_why, "it takes too many steps");
    }
}

static void an_address_made_too_long_is_an_error(void **state)
{
    (void)state;
    char table[512], address[ADDRESS_BYTES_MAX + 1], domain[200];
    memset(domain, 'd', sizeof domain);
    memcpy(domain + sizeof domain - 6, ".test", 6);
    for (size_t i = 50; i < 190; i += 50)
        domain[i] = '.';
    snprintf(table, sizeof table, "@v.test @%s\n", domain);
    assert_int_equal(open_tables(NULL, table), ERR_OK);
    for (size_t extra = 0; extra <= 1; extra++) {
        size_t local = ADDRESS_BYTES_MAX - strlen(domain) - 1 + extra;
        memset(address, 'l', local);
        strcpy(address + local, "@v.test");
        if (extra)
            assert_string_equal(of(address), "an address in it is too long");
        else
            assert_int_equal(strlen(of(address)), ADDRESS_BYTES_MAX);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, teardown)
    const struct CMUnitTest tests[] = {
        T(without_files_there_is_no_table),
        T(aliases_are_read_as_aliases_5_has_them),
        T(virtual_names_are_looked_up_in_postfixs_order),
        T(included_files_are_lists_of_lines),
        T(what_is_no_recipient_is_refused_with_file_line_and_advice),
        T(circles_cost_only_what_lies_on_them),
        T(a_name_among_its_own_targets_is_the_mailbox),
        T(an_address_comes_once_for_a_message),
        T(a_list_with_an_owner_sends_in_the_owners_name),
        T(depth_is_bounded),
        T(size_is_bounded_and_what_was_found_before_stays),
        T(steps_are_bounded),
        T(an_address_made_too_long_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
