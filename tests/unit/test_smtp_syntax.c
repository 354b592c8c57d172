/* SPDX-License-Identifier: Apache-2.0 */
/* SMTP's grammar: what parses, what does not, and that what parses can be said again (SYN-2). Every input is an exact
 * allocation, so that a read behind it is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp_syntax.h"

static struct smtp_text exact(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    return (struct smtp_text){copy, (uint32_t)len};
}

static void expect_path(const char *argument, const char *address, const char *rest, bool has_domain, bool non_ascii)
{
    struct smtp_text in = exact(argument, strlen(argument)), left;
    struct smtp_path path;
    enum err e = smtp_parse_path(in, "TO:", &path, &left);
    if (e)
        fail_msg("%s: %s", argument, err_name(e));
    assert_int_equal(path.len, strlen(address));
    assert_memory_equal(path.at, address, path.len);
    assert_int_equal(left.len, strlen(rest));
    assert_memory_equal(left.at, rest, left.len);
    assert_int_equal(path.has_domain, has_domain);
    assert_int_equal(path.non_ascii, non_ascii);
    free((char *)in.at);
}

static void refuse_path(const char *argument, size_t len)
{
    struct smtp_text in = exact(argument, len), left;
    struct smtp_path path;
    if (smtp_parse_path(in, "TO:", &path, &left) == ERR_OK)
        fail_msg("taken: %.*s", (int)len, argument);
    free((char *)in.at);
}

static void paths_of_all_kinds_are_understood(void **state)
{
    (void)state;
    expect_path("TO:<a@b>", "a@b", "", true, false);
    expect_path("to: <a@b.example> SIZE=1  X=y", "a@b.example", "SIZE=1  X=y", true, false);
    expect_path("TO:<>", "", "", false, false);
    expect_path("TO:<postmaster>", "postmaster", "", false, false);
    expect_path("TO:<@x.test,@y.test:a@b>", "a@b", "", true, false);
    expect_path("TO:<\"a b\\\" >@c\"@d.test>", "\"a b\\\" >@c\"@d.test", "", true, false);
    expect_path("TO:<a..b.@docomo.test>", "a..b.@docomo.test", "", true, false);
    expect_path("TO:<a+b=c!#$%&'*/?^_`{|}~-@[192.0.2.1]>", "a+b=c!#$%&'*/?^_`{|}~-@[192.0.2.1]", "", true, false);
    expect_path("TO:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", "", true, false);
    expect_path("TO:<j\xc3\xb6rg@b\xc3\xbc.test>", "j\xc3\xb6rg@b\xc3\xbc.test", "", true, true);
    expect_path("TO:<a@_under.test>", "a@_under.test", "", true, false);
}

static void malformed_paths_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",          "TO",        "TO:",         "TO:<",        "TO:<a",         "TO:<a@",       "TO:<a@>",    "TO:<@>",
        "TO:<@b>",   "TO:a@b",    "TO:<a@b",     "TO:<a@b>x",   "TO:<a b@c>",    "TO:<a@b c>",   "TO:<a@@b>",  "TO:<a@b..c>",
        "TO:<a@.b>", "TO:<a@b.>", "TO:<a@-b>",   "TO:<a@b->",   "TO:<\"a@b>",    "TO:<\"a\\",    "TO:<\"a\"",  "TO:<a\"b@c>",
        "TO:<@x:>",  "TO:<@x>",   "TO:<@x,:a@b>", "TO:<a@[1.2.3]>", "TO:<a@[x]>", "TO:<a@[1.2.3.4>", "TO:<<a@b>>", "FROM:<a@b>",
        "TO:<a@[IPv6:1.2.3.4]>", "TO:<a\x01@b>", "TO:<a@b\x7f>", "TO:<\"a\x01\"@b>", "TO:<\xff@b>", "TO:<\xc0\xaf@b>",
        "TO:<\xed\xa0\x80@b>", "TO:<a@b>\tX", "TO:<(a)@b>", "TO:<a,b@c>", "TO:<a;b@c>", "TO:<a\\b@c>",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse_path(bad[i], strlen(bad[i]));
    refuse_path("TO:<a\0b@c>", 10);
    refuse_path("TO:<\"a\0b\"@c>", 12);
    refuse_path("TO:<a@b\0c>", 10);
}

static void addresses_are_taken_up_to_their_limits(void **state)
{
    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        char text[400], label[64];
        memset(label, 'd', sizeof label);
        /* TO:<local@domain> with local + 1 + 63 = ADDRESS_BYTES_MAX */
        size_t local = ADDRESS_BYTES_MAX - 64 + extra;
        memcpy(text, "TO:<", 4);
        memset(text + 4, 'l', local);
        text[4 + local] = '@';
        memcpy(text + 5 + local, label, 63);
        text[68 + local] = '>';
        struct smtp_text in = exact(text, 69 + local), rest;
        struct smtp_path path;
        assert_int_equal(smtp_parse_path(in, "TO:", &path, &rest), extra ? ERR_TOO_LARGE : ERR_OK);
        free((char *)in.at);
    }
    refuse_path("TO:<a@dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd>", 72); /* a label of 64 */
}

static enum err mail_parameters(const char *text, struct smtp_mail_parameters *p)
{
    struct smtp_text in = exact(text, strlen(text));
    enum err e = smtp_parse_mail_parameters(in, p);
    free((char *)in.at);
    return e;
}

static void mail_parameters_are_what_we_announce_and_nothing_else(void **state)
{
    (void)state;
    struct smtp_mail_parameters p;
    assert_int_equal(mail_parameters("", &p), ERR_OK);
    assert_int_equal(mail_parameters(" size=18446744073709551615  BODY=8bitmime SMTPUTF8", &p), ERR_OK);
    assert_true(p.size == UINT64_MAX && p.eightbit && p.smtputf8 && !p.hold);
    assert_int_equal(mail_parameters("SIZE=1 xhold", &p), ERR_OK);
    assert_true(p.hold);
    assert_int_equal(mail_parameters("BODY=7BIT", &p), ERR_OK);
    assert_false(p.eightbit);
    assert_int_equal(mail_parameters("SIZE=18446744073709551616", &p), ERR_TOO_LARGE);
    static const char *const malformed[] = {"SIZE=", "SIZE", "SIZE=x", "SIZE=-1", "SIZE=1 SIZE=2", "SMTPUTF8=1",
                                            "SMTPUTF8 SMTPUTF8", "XHOLD=1", "XHOLD XHOLD",
                                            "BODY=7BIT BODY=7BIT", "SIZE=99999999999999999999x"};
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        assert_int_equal(mail_parameters(malformed[i], &p), ERR_INVALID);
    static const char *const foreign[] = {"BODY=BINARYMIME", "BODY", "RET=FULL", "ENVID=x", "AUTH=<>", "=1", "SIZES=1"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        assert_int_equal(mail_parameters(foreign[i], &p), ERR_NOT_FOUND);
    assert_int_equal(smtp_parse_rcpt_parameters((struct smtp_text){"NOTIFY=NEVER", 12}), ERR_NOT_FOUND);
    assert_int_equal(smtp_parse_rcpt_parameters((struct smtp_text){"", 0}), ERR_OK);
}

static void verbs_are_known_in_any_case_and_by_whole_words(void **state)
{
    (void)state;
    struct smtp_text argument;
    assert_int_equal(smtp_verb_of("mAiL  FROM:<a> ", 15, &argument), SMTP_MAIL);
    assert_int_equal(argument.len, 8);
    assert_memory_equal(argument.at, "FROM:<a>", 8);
    assert_int_equal(smtp_verb_of("QUIT\t", 5, &argument), SMTP_QUIT);
    assert_int_equal(smtp_verb_of("QUITX", 5, &argument), SMTP_UNKNOWN);
    assert_int_equal(smtp_verb_of("QUI", 3, &argument), SMTP_UNKNOWN);
    assert_int_equal(smtp_verb_of("", 0, &argument), SMTP_UNKNOWN);
    assert_int_equal(smtp_verb_of(" NOOP", 5, &argument), SMTP_UNKNOWN);
    assert_int_equal(smtp_verb_of("auth PLAIN", 10, &argument), SMTP_UNIMPLEMENTED);
    assert_int_equal(smtp_verb_of("GET / HTTP/1.1", 14, &argument), SMTP_FOREIGN);
    assert_int_equal(smtp_verb_of("UNKNOWN", 7, &argument), SMTP_UNKNOWN);
    assert_int_equal(smtp_verb_of("FOREIGN", 7, &argument), SMTP_UNKNOWN);
}

static void a_helo_name_is_one_printable_word(void **state)
{
    (void)state;
    assert_int_equal(smtp_parse_helo((struct smtp_text){"[IPv6:::1]", 10}), ERR_OK);
    assert_int_equal(smtp_parse_helo((struct smtp_text){"", 0}), ERR_INVALID);
    assert_int_equal(smtp_parse_helo((struct smtp_text){"a b", 3}), ERR_INVALID);
    assert_int_equal(smtp_parse_helo((struct smtp_text){"\xc3\xb6", 2}), ERR_INVALID);
    char name[256];
    memset(name, 'n', sizeof name);
    assert_int_equal(smtp_parse_helo((struct smtp_text){name, 255}), ERR_OK);
    assert_int_equal(smtp_parse_helo((struct smtp_text){name, 256}), ERR_INVALID);
}

static void utf8_is_checked_to_the_last_byte(void **state)
{
    (void)state;
    assert_true(smtp_utf8_valid("a\xc3\xb6\xe2\x82\xac\xf0\x9f\x93\xa8\xf4\x8f\xbf\xbf", 14));
    static const char *const bad[] = {"\x80", "\xc3", "\xc1\xbf", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3\x28"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(smtp_utf8_valid(bad[i], (uint32_t)strlen(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_of_all_kinds_are_understood),
        cmocka_unit_test(malformed_paths_are_refused),
        cmocka_unit_test(addresses_are_taken_up_to_their_limits),
        cmocka_unit_test(mail_parameters_are_what_we_announce_and_nothing_else),
        cmocka_unit_test(verbs_are_known_in_any_case_and_by_whole_words),
        cmocka_unit_test(a_helo_name_is_one_printable_word),
        cmocka_unit_test(utf8_is_checked_to_the_last_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
