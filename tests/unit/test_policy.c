/* SPDX-License-Identifier: Apache-2.0 */
/* Relay control: trusted by network, limited by domain, and closed when nothing says otherwise (POL-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "alias.h"
#include "policy.h"

#include <stdlib.h>
#include <unistd.h>

static struct settings_network networks[] = {
    {4, {127}, 8},
    {4, {192, 0, 2, 128}, 25},
    {6, {0x20, 0x01, 0x0d, 0xb8}, 32},
    {6, {[15] = 1}, 128},
};
static char domain_a[] = "lists.example.org", domain_b[] = ".example.net";
static char *domains[] = {domain_a, domain_b};

static const struct settings settings = {
    .hostname = "mx.test",
    .mynetworks = networks,
    .mynetworks_count = 4,
    .relay_domains = domains,
    .relay_domains_count = 2,
};
static const struct settings empty = {.hostname = "mx.test"};

static bool trusted(const struct settings *s, const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        return policy_client_trusted(s, (const struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return policy_client_trusted(s, (const struct sockaddr *)&in6);
}

static void networks_match_to_their_last_bit(void **state)
{
    (void)state;
    assert_true(trusted(&settings, "127.0.0.1"));
    assert_true(trusted(&settings, "127.255.255.255"));
    assert_false(trusted(&settings, "128.0.0.0"));
    assert_true(trusted(&settings, "192.0.2.128"));
    assert_false(trusted(&settings, "192.0.2.127"));
    assert_true(trusted(&settings, "2001:db8:ffff::1"));
    assert_false(trusted(&settings, "2001:db9::1"));
    assert_true(trusted(&settings, "::1"));
    assert_false(trusted(&settings, "::2"));
    assert_true(trusted(&settings, "::ffff:127.0.0.1"));
    assert_false(trusted(&settings, "::ffff:10.0.0.1"));
    assert_false(trusted(&empty, "127.0.0.1"));
    struct sockaddr unix_peer = {.sa_family = AF_UNIX};
    assert_false(policy_client_trusted(&settings, &unix_peer));
}

static enum err rcpt(const struct settings *s, bool is_trusted, const char *address)
{
    return policy_recipient(s, is_trusted, address, (uint32_t)strlen(address));
}

static void strangers_reach_relay_domains_only(void **state)
{
    (void)state;
    assert_int_equal(rcpt(&settings, false, "dev@lists.example.org"), ERR_OK);
    assert_int_equal(rcpt(&settings, false, "dev@LISTS.EXAMPLE.ORG"), ERR_OK);
    assert_int_equal(rcpt(&settings, false, "x@a.example.net"), ERR_OK);
    assert_int_equal(rcpt(&settings, false, "x@example.net"), ERR_DENIED);
    assert_int_equal(rcpt(&settings, false, "x@elsewhere.test"), ERR_DENIED);
    assert_int_equal(rcpt(&settings, false, "x%elsewhere.test@evil.test"), ERR_DENIED);
    assert_int_equal(rcpt(&settings, false, "\"x@lists.example.org\"@evil.test"), ERR_DENIED);
    assert_int_equal(rcpt(&settings, false, "root"), ERR_DENIED);
    assert_int_equal(rcpt(&settings, false, "PostMaster"), ERR_OK);
    assert_int_equal(rcpt(&empty, false, "dev@lists.example.org"), ERR_DENIED);
}

static void trusted_clients_reach_everybody(void **state)
{
    (void)state;
    assert_int_equal(rcpt(&settings, true, "x@elsewhere.test"), ERR_OK);
    assert_int_equal(rcpt(&settings, true, "root"), ERR_OK);
}

/* What the alias tables list is for everybody; what they own and do not list is unknown, not forbidden. */
static void strangers_reach_what_the_alias_tables_list(void **state)
{
    (void)state;
    static const char aliases[] = "sales: a@far.test\n";
    static const char virtuals[] = "v.test anything\nin@v.test a@far.test\nout@far.test b@far.test\n";
    char path[2][40] = {"/tmp/ironspool-policy-XXXXXX", "/tmp/ironspool-policy-XXXXXX"}, text[MAPFILE_TEXT_BYTES];
    char *files[] = {path[0], path[1]}, local[] = "here.test", *destinations[] = {local};
    struct alias_table *t;
    for (int i = 0; i < 2; i++) {
        int fd = mkstemp(path[i]);
        const char *content = i ? virtuals : aliases;
        assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        close(fd);
    }
    struct alias_config c = {.hostname = "mx.test", .destinations = destinations, .destination_count = 1, .alias_files = files,
                             .alias_file_count = 1, .virtual_files = files + 1, .virtual_file_count = 1};
    assert_int_equal(alias_table_open(&c, text, &t), ERR_OK);
    struct settings s = settings;
    s.aliases = t;
    static const struct { const char *address; enum err strangers, ours; } tries[] = {
        {"sales@here.test", ERR_OK, ERR_OK},          {"sales@mx.test", ERR_OK, ERR_OK},
        {"sales", ERR_OK, ERR_OK},                    {"nobody@here.test", ERR_NO_USER, ERR_OK},
        {"nobody", ERR_NO_USER, ERR_OK},              {"Postmaster@here.test", ERR_OK, ERR_OK},
        {"postmaster", ERR_OK, ERR_OK},               {"postmaster@far.test", ERR_DENIED, ERR_OK},
        {"in@v.test", ERR_OK, ERR_OK},                {"nobody@v.test", ERR_NO_USER, ERR_NO_USER},
        {"out@far.test", ERR_OK, ERR_OK},             {"sales@far.test", ERR_DENIED, ERR_OK},
        {"x@lists.example.org", ERR_OK, ERR_OK},
    };
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        assert_int_equal(rcpt(&s, false, tries[i].address), tries[i].strangers);
        assert_int_equal(rcpt(&s, true, tries[i].address), tries[i].ours);
    }
    alias_table_close(&t);
    for (int i = 0; i < 2; i++)
        unlink(path[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_match_to_their_last_bit),
        cmocka_unit_test(strangers_reach_relay_domains_only),
        cmocka_unit_test(trusted_clients_reach_everybody),
        cmocka_unit_test(strangers_reach_what_the_alias_tables_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
