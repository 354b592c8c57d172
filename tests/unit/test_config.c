/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks CFG-1 and CFG-2: what is wrong is refused by file, line and key; what is right arrives in its unit. */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL "pool { member \"a\" { path = \"/srv/a\" } member \"b\" { path = \"/srv/b\" } }\n"

static char g_text[CONFIG_TEXT_BYTES];

static struct config *good(const char *file)
{
    struct config *c = NULL;
    enum err e = config_parse("t.conf", file, (uint32_t)strlen(file), &c, g_text);
    if (e != ERR_OK)
        print_message("%s\n", g_text);
    assert_int_equal(e, ERR_OK);
    return c;
}

static void refused(const char *file, const char *text)
{
    struct config *c = NULL;
    assert_int_equal(config_parse("t.conf", file, (uint32_t)strlen(file), &c, g_text), ERR_CONFIG);
    assert_null(c);
    if (!strstr(g_text, text))
        print_message("said: %s\nwanted: %s\n", g_text, text);
    assert_non_null(strstr(g_text, text));
}

static void the_contracts_example_is_understood(void **state)
{
    (void)state;
    char map[] = "/tmp/ironspool-test-map-XXXXXX", file[4096];
    int fd = mkstemp(map);
    assert_true(fd >= 0);
    close(fd);
    snprintf(file, sizeof file,
             "hostname = \"mx.example.org\"\n"
             "state_directory = \"/var/lib/ironspool\"          # index and locks; derived data only\n"
             "control_socket = \"/run/ironspool/control.sock\"\n"
             "pool {\n    copies = 2   # images { of every message\n    min_copies = 1\n    io_engine = \"auto\"\n"
             "    scrub_interval = \"24h\"  degrade_after = \"2s\"  absent_wait = \"10m\"\n"
             "    member \"a\" { path = \"/dev/disk/by-id/ata-EXAMPLE1\" }\n"
             "    member \"b\" { path = \"/srv/disk2/b.member\"  failure_domain = \"shelf-2\" }\n}\n"
             "listen \"mx\" { address = \"0.0.0.0\"  port = 25 }\nhttp { address = \"127.0.0.1\"  port = 8025 }\n"
             "mynetworks = { \"127.0.0.0/8\" }\nrelay_domains = { \"Lists.example.org\" }\n"
             "relayhost = \"[127.0.0.1]:2526\"\ndefault_transport = \"smtp\"\n"
             "transport_maps = { \"%s\" }\nfault_injection = no\n", map);
    struct config *c = good(file);
    assert_string_equal(c->settings.hostname, "mx.example.org");
    assert_int_equal(c->pool.copies, 2);
    assert_int_equal(c->pool.min_copies, 1);
    assert_int_equal(c->io_engine, IO_ENGINE_AUTO);
    assert_int_equal(c->pool.scrub_interval_ns, UINT64_C(86400000000000));
    assert_int_equal(c->pool.degrade_after_ns, 2000000000);
    assert_int_equal(c->pool.absent_wait_ns, 600000000000);
    assert_int_equal(c->pool.member_count, 2);
    assert_string_equal(c->pool.members[0].path, "/dev/disk/by-id/ata-EXAMPLE1");
    assert_string_equal(c->pool.members[1].domain, "shelf-2");
    assert_int_equal(c->listen_count, 1);
    assert_int_equal(c->listens[0].port, 25);
    assert_int_equal(c->http.port, 8025);
    assert_int_equal(c->settings.mynetworks_count, 1);
    assert_int_equal(c->settings.mynetworks[0].prefix, 8);
    assert_string_equal(c->settings.relay_domains[0], "lists.example.org");
    assert_string_equal(c->transport_maps.files[0], map);
    assert_false(c->fault_injection);
    config_free(&c);
    unlink(map);
}

static void what_the_file_does_not_say_has_postfixs_default(void **state)
{
    (void)state;
    struct config *c = good(POOL);
    assert_int_equal(c->settings.message_size_limit, 10240000);
    assert_int_equal(c->settings.smtpd_recipient_limit, 1000);
    assert_int_equal(c->settings.smtpd_timeout_s, 300);
    assert_int_equal(c->settings.minimal_backoff_ms, 300000);
    assert_int_equal(c->settings.maximal_queue_lifetime_ms, 432000000);
    assert_int_equal(c->settings.default_destination_concurrency_limit, 20);
    assert_string_equal(c->settings.default_transport, "smtp");
    assert_string_equal(c->settings.mail_name, "Ironspool");
    assert_int_equal(c->settings.mynetworks_count, 2);
    assert_int_equal(c->http.port, 0);
    assert_int_equal(c->shutdown_grace_ms, 10000);
    assert_string_equal(c->user, "ironspool");
    config_free(&c);
}

static void sizes_and_times_take_their_suffixes(void **state)
{
    (void)state;
    struct config *c = good("message_size_limit = 50M\nheader_size_limit = 64k\nsmtpd_timeout = 2m\n"
                            "minimal_backoff_time = 500ms\nmaximal_backoff_time = 1h\nbounce_queue_lifetime = \"1d\"\n" POOL);
    assert_int_equal(c->settings.message_size_limit, 50u << 20);
    assert_int_equal(c->settings.header_size_limit, 65536);
    assert_int_equal(c->settings.smtpd_timeout_s, 120);
    assert_int_equal(c->settings.minimal_backoff_ms, 500);
    assert_int_equal(c->settings.maximal_backoff_ms, 3600000);
    assert_int_equal(c->settings.bounce_queue_lifetime_ms, 86400000);
    config_free(&c);
}

static void an_unknown_key_is_named_with_its_line_and_the_nearest_key(void **state)
{
    (void)state;
    refused("# a comment\n/* two\n lines */\nhostnam = \"a\"\n" POOL,
            "t.conf:4: unknown key `hostnam`; did you mean `hostname`?");
    refused("pool {\n copies = 2\n min_copeis = 1\n}\n", "t.conf:3: unknown key `min_copeis`; did you mean `min_copies`?");
    refused("pool { member \"a\" {\n paht = \"/x\" } }\n", "t.conf:2: unknown key `paht`; did you mean `path`?");
    refused("copies = 2\n" POOL, "unknown key `copies` here; it belongs into pool { }");
    refused("frobnicate = 2\n" POOL, "t.conf:1: unknown key `frobnicate`");
}

static void a_bad_value_is_named_with_its_line(void **state)
{
    (void)state;
    refused("\n\nmessage_size_limit = 10X\n" POOL, "t.conf:3: message_size_limit: \"10X\" is not a size");
    refused("smtpd_timeout = soon\n" POOL, "t.conf:1: smtpd_timeout: \"soon\" is not a time");
    refused("pool {\n copies = 9 }", "t.conf:2: copies: 9 is outside 1 to 4");
    refused("pool {\n copies = -1 }", "t.conf:2: copies: \"-1\" is not a number");
    refused("pool { io_engine = magic }", "is not one of auto|uring|threads");
    refused("mynetworks = { \"10.0.0.0/8\",\n \"10.0.0.1/8\" }\n" POOL, "t.conf:2: mynetworks: \"10.0.0.1/8\" has bits set");
    refused("mynetworks = \"10.0.0.0/33\"\n" POOL, "is not a network");
    refused("fault_injection = perhaps\n" POOL, "t.conf:1: fault_injection: \"perhaps\" is neither yes nor no");
    refused("state_directory = \"var\"\n" POOL, "is not an absolute path");
    refused("\nrelayhost = \"[127.0.0.1:25\"\n" POOL, "t.conf:2: relayhost: a \"]\" is missing");
    refused("message_size_limit = 99999999999999999999\n" POOL, "is not a size");
    static const char *const meaningless[] = { /* nothing, less than nothing, beyond all sense */
        "message_size_limit = 0", "message_size_limit = -1", "message_size_limit = 2G", "header_size_limit = 0",
        "line_length_limit = 1", "smtpd_recipient_limit = 0", "smtpd_recipient_limit = 1001", "hopcount_limit = 0",
        "smtpd_timeout = 0", "smtpd_timeout = 2d", "smtpd_hard_error_limit = 0", "sessions_max = 0",
        "default_destination_concurrency_limit = 0", "initial_destination_concurrency = 0", "deliveries_max = 0",
        "default_destination_recipient_limit = 0", "minimal_backoff_time = 0", "minimal_backoff_time = 2d",
        "maximal_backoff_time = 0", "maximal_queue_lifetime = 1000w", "bounce_queue_lifetime = -5d",
        "smtp_connect_timeout = 0", "shutdown_grace = 1d", "fresh_bytes_max = 1T", "smtpd_min_data_rate = 2G",
        "pool { copies = 0 }", "pool { min_copies = 0 }", "pool { scrub_interval = 1s }", "pool { scrub_interval = 100w }",
        "pool { degrade_after = 0 }", "pool { degrade_after = 1h }", "pool { absent_wait = 2w }",
        "listen \"a\" { port = 65536 }", "listen \"a\" { port = -1 }", "http { port = 70000 }",
    };
    for (size_t i = 0; i < sizeof meaningless / sizeof meaningless[0]; i++) {
        char file[256];
        snprintf(file, sizeof file, "\n%s\n", meaningless[i]);
        refused(file, "t.conf:2: ");
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    refused("transport_maps = { \"/nonexistent/transport\" }\n" POOL, "t.conf:1: transport_maps: /nonexistent/transport: No such file");
    struct config *c = NULL;
    assert_int_equal(config_load("/nonexistent/ironspool.conf", &c, g_text), ERR_NOT_FOUND);
    assert_string_equal(g_text, "/nonexistent/ironspool.conf: No such file or directory");
}

static void broken_syntax_is_refused_with_its_line(void **state)
{
    (void)state;
    refused("pool {\n member \"a\" { path = \"/srv/a\" }\n", "t.conf:1: `{` without its `}`");
    refused("hostname = \"a\n\n", "t.conf:1: a string that begins here has no closing");
    refused("hostname \"a\"\n", "t.conf:1: missing equal sign");
    refused("}\n", "t.conf:1: unexpected closing brace");
    refused("pool { member \"a\" { path = \"/x\" }\nmember \"a\" { path = \"/y\" } }", "t.conf:2: found duplicate title 'a'");
    struct config *c = NULL;
    assert_int_equal(config_parse("t.conf", "a\n\0b", 4, &c, g_text), ERR_CONFIG);
    assert_string_equal(g_text, "t.conf:2: a NUL byte: this is not a text file");
}

static void keys_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    refused("hostname = \"a\"\n", "no member is configured");
    refused("pool { copies = 3 member \"a\" { path = \"/a\" } }", "copies = 3 needs at least as many members, there are 1");
    refused("pool { copies = 1 min_copies = 2 member \"a\" { path = \"/a\" } }", "min_copies = 2 is more than copies = 1");
    refused("pool { copies = 1 member \"a\" { path = \"/a\" } member \"b\" { path = \"/a\" } }", "have one path, /a");
    refused("pool { member \"a\" { } }", "`path` is missing");
    refused("listen \"x\" { address = \"localhost\" }\n" POOL, "\"localhost\" is not a numeric address");
    refused("smtpd_tls_security_level = may\n" POOL, "needs smtpd_tls_cert_file");
    refused("default_transport = \"carrier-pigeon\"\n" POOL, "default_transport");
    refused("\npool {\n copies = 3\n member \"a\" { path = \"/a\" } }", "t.conf:3: pool: copies = 3 needs");
    refused("pool {\n copies = 1\n min_copies = 2\n member \"a\" { path = \"/a\" } }", "t.conf:3: pool: min_copies = 2 is more");
    refused("pool { copies = 1\n member \"a\" { path = \"/a\" }\n member \"b\" { path = \"/a\" }\n member \"c\" { path = \"/c\" } }",
            "t.conf:3: pool: members \"a\" and \"b\" have one path, /a");
    refused("listen \"y\" { port = 1 }\nlisten \"x\" {\n address = \"localhost\" }\n" POOL, "t.conf:3: listen \"x\": address:");
    refused("minimal_backoff_time = 2h\nmaximal_backoff_time = 1h\n" POOL, "t.conf:2: minimal_backoff_time is longer");
    refused("initial_destination_concurrency = 30\n" POOL, "t.conf:1: initial_destination_concurrency is more");
    refused("hostname = \"a b\"\n" POOL, "t.conf:1: hostname: \"a b\" is not a host name");
    refused("\nsmtpd_tls_security_level = may\n" POOL, "t.conf:2: smtpd_tls_security_level");
}

static void a_key_that_is_set_twice_is_refused_with_both_lines(void **state)
{
    (void)state;
    refused("hostname = \"a\"\n\nhostname = \"b\"\n" POOL, "t.conf:3: `hostname` is set twice, here and in line 1: take one");
    refused("pool {\n copies = 1\n min_copies = 1\n copies = 1\n member \"a\" { path = \"/a\" } }",
            "t.conf:4: `copies` is set twice, here and in line 2");
    refused("pool { copies = 1\n member \"a\" { path = \"/a\"\n path = \"/b\" } }",
            "t.conf:3: `path` is set twice, here and in line 2");
    refused("pool { copies = 1 }\npool { copies = 2 member \"a\" { path = \"/a\" } }",
            "t.conf:2: `copies` is set twice, here and in line 1");
    refused("mynetworks = { \"10.0.0.0/8\",\n \"192.0.2.0/24\" }\nmynetworks = \"127.0.0.0/8\"\n" POOL,
            "t.conf:3: `mynetworks` is set twice, here and in line 1");
    refused("mynetworks = {}\nmynetworks = {}\n" POOL, "t.conf:2: `mynetworks` is set twice, here and in line 1");
    refused("relayhost = \"hostname = x\"\nmail_name = \"a\nb\"\nrelayhost = \"\"\n" POOL,
            "t.conf:4: `relayhost` is set twice, here and in line 1");
    struct config *c = good("mynetworks = \"10.0.0.0/8\"\nmynetworks += { \"192.0.2.0/24\" }\n"
                            "listen \"a\" { port = 1 }\nlisten \"b\" { port = 2 }\n"
                            "pool { copies = 1\n member \"a\" { path = \"/a\" }\n member \"b\" { path = \"/b\" } }");
    assert_int_equal(c->settings.mynetworks_count, 2); /* `+=` says that more comes; sections of their own names may repeat */
    assert_int_equal(c->listen_count, 2);
    assert_int_equal(c->pool.member_count, 2);
    config_free(&c);
}

static void a_list_in_the_file_replaces_the_default_and_may_be_empty(void **state)
{
    (void)state;
    struct config *c = good("mynetworks = \"192.0.2.0/24, [2001:db8::]/32\"\n" POOL);
    assert_int_equal(c->settings.mynetworks_count, 2);
    assert_int_equal(c->settings.mynetworks[1].family, 6);
    config_free(&c);
    c = good("mynetworks = {}\n" POOL);
    assert_int_equal(c->settings.mynetworks_count, 0);
    config_free(&c);
}

static void no_prefix_of_a_good_file_and_no_flipped_byte_crashes(void **state)
{
    (void)state;
    char file[] = "hostname = \"mx\" # c\nmynetworks = { \"10.0.0.0/8\", \"[::1]/128\" }\nmessage_size_limit = 1M\n"
                  "listen \"l\" { address = \"::\" port = 2525 }\n" POOL;
    struct config *c;
    for (uint32_t n = 0; n < sizeof file; n++)
        if (config_parse("t.conf", file, n, &c, g_text) == ERR_OK)
            config_free(&c);
    for (uint32_t i = 0; i < sizeof file - 1; i++) {
        for (unsigned flip = 1; flip < 256; flip <<= 1) {
            file[i] = (char)(file[i] ^ (char)flip);
            if (config_parse("t.conf", file, (uint32_t)sizeof file - 1, &c, g_text) == ERR_OK)
                config_free(&c);
            else
                assert_true(g_text[0] != '\0');
            file[i] = (char)(file[i] ^ (char)flip);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_contracts_example_is_understood),
        cmocka_unit_test(what_the_file_does_not_say_has_postfixs_default),
        cmocka_unit_test(sizes_and_times_take_their_suffixes),
        cmocka_unit_test(an_unknown_key_is_named_with_its_line_and_the_nearest_key),
        cmocka_unit_test(a_bad_value_is_named_with_its_line),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(broken_syntax_is_refused_with_its_line),
        cmocka_unit_test(keys_that_contradict_each_other_are_refused),
        cmocka_unit_test(a_key_that_is_set_twice_is_refused_with_both_lines),
        cmocka_unit_test(a_list_in_the_file_replaces_the_default_and_may_be_empty),
        cmocka_unit_test(no_prefix_of_a_good_file_and_no_flipped_byte_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
