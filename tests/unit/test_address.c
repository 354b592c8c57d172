/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and relay control: what matches, what does not, and that nothing is let through without a reason (POL-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "address.h"

#define TEXT(s) s, (uint32_t)strlen(s)

static void the_domain_is_behind_the_last_at_sign(void **state)
{
    (void)state;
    const char *domain;
    uint32_t len;
    assert_true(address_domain(TEXT("\"a@b\"@Example.org"), &domain, &len));
    assert_int_equal(len, 11);
    assert_memory_equal(domain, "Example.org", 11);
    assert_false(address_domain(TEXT("postmaster"), &domain, &len));
    assert_false(address_domain(TEXT("a@"), &domain, &len));
    assert_false(address_domain(TEXT("\"a@b\""), &domain, &len));
    assert_false(address_domain("", 0, &domain, &len));
}

static void a_pattern_with_a_dot_matches_what_is_below_it_and_only_that(void **state)
{
    (void)state;
    assert_true(address_domain_matches(TEXT("Lists.Example.ORG"), "lists.example.org"));
    assert_false(address_domain_matches(TEXT("a.lists.example.org"), "lists.example.org"));
    assert_true(address_domain_matches(TEXT("a.b.example.org"), ".example.org"));
    assert_false(address_domain_matches(TEXT("example.org"), ".example.org"));
    assert_false(address_domain_matches(TEXT(".example.org"), ".example.org"));
    assert_false(address_domain_matches(TEXT("notexample.org"), ".example.org"));
    assert_false(address_domain_matches(TEXT("example.org.evil.test"), ".example.org"));
    assert_false(address_domain_matches("", 0, ""));
}

static void local_parts_keep_their_case_and_domains_do_not(void **state)
{
    (void)state;
    assert_true(address_same(TEXT("Bob@EXAMPLE.org"), TEXT("Bob@example.ORG")));
    assert_false(address_same(TEXT("Bob@example.org"), TEXT("bob@example.org")));
    assert_false(address_same(TEXT("bob@example.org"), TEXT("bob")));
    assert_true(address_same(TEXT("bob"), TEXT("bob")));
    char text[] = "\xc3\x84" "BC";
    address_lower(text, 4);
    assert_string_equal(text, "\xc3\x84" "bc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_domain_is_behind_the_last_at_sign),
        cmocka_unit_test(a_pattern_with_a_dot_matches_what_is_below_it_and_only_that),
        cmocka_unit_test(local_parts_keep_their_case_and_domains_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
