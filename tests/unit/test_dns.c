/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver against a name server played here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dns.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct record { const char *name; uint16_t type, preference; const char *value; };

/* not below .test: resolvers answer for that one themselves (RFC 6761) */
static const struct record zone[] = {
    {"good.example", 15, 20, "second.example"}, {"good.example", 15, 10, "first.example"}, {"first.example", 1, 0, "192.0.2.1"},
    {"second.example", 1, 0, "192.0.2.2"},   {"second.example", 1, 0, "192.0.2.3"}, {"null.example", 15, 0, ""},
    {"implicit.example", 1, 0, "192.0.2.4"}, {"loop.example", 15, 10, "relay.example"}, {"loop.example", 15, 20, "second.example"},
    {"backup.example", 15, 10, "first.example"}, {"backup.example", 15, 20, "relay.example"}, {"backup.example", 15, 30, "second.example"},
    {"relay.example", 1, 0, "192.0.2.9"},    {"dangling.example", 15, 10, "nowhere.example"},
};

static struct {
    struct loop *loop;
    struct dns *dns;
    struct loop_watch watch;
    struct dns_query q;
    uint32_t done;
    enum err result;
} g;

static uint32_t put_name(uint8_t *to, const char *name)
{
    uint32_t used = 0;
    while (*name) {
        size_t len = strcspn(name, ".");
        to[used++] = (uint8_t)len;
        memcpy(to + used, name, len);
        used += (uint32_t)len;
        name += len + (name[len] == '.');
    }
    to[used++] = 0;
    return used;
}

static uint32_t put_record(uint8_t *to, const struct record *r)
{
    uint32_t used = put_name(to, r->name), len_at;
    const uint8_t fixed[] = {0, (uint8_t)r->type, 0, 1, 0, 0, 0, 60, 0, 0};
    memcpy(to + used, fixed, sizeof fixed);
    used += (uint32_t)sizeof fixed;
    len_at = used - 2;
    if (r->type == 1) {
        assert_int_equal(inet_pton(AF_INET, r->value, to + used), 1);
        used += 4;
    } else {
        to[used++] = (uint8_t)(r->preference >> 8);
        to[used++] = (uint8_t)r->preference;
        used += put_name(to + used, r->value);
    }
    to[len_at + 1] = (uint8_t)(used - len_at - 2);
    return used;
}

static void answer(struct loop_watch *w, bool readable, bool writable)
{
    uint8_t in[1500], out[1500];
    char name[256] = "";
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    (void)readable;
    (void)writable;
    ssize_t n = recvfrom(w->fd, in, sizeof in, 0, (struct sockaddr *)&from, &from_len);
    if (n < 17)
        return;
    uint32_t at = 12;
    while (in[at]) {
        strncat(name, (char *)in + at + 1, in[at]);
        at += in[at] + 1u;
        if (in[at])
            strcat(name, ".");
    }
    uint16_t type = (uint16_t)(in[at + 1] << 8 | in[at + 2]);
    uint32_t question = at + 5 - 12, used = 12 + question, count = 0;
    bool known = false;
    memset(out, 0, sizeof out);
    memcpy(out, in, 12 + question);
    for (size_t i = 0; i < sizeof zone / sizeof *zone; i++) {
        if (strcasecmp(zone[i].name, name) != 0)
            continue;
        known = true;
        if (zone[i].type == type) {
            used += put_record(out + used, &zone[i]);
            count++;
        }
    }
    bool broken = strcasecmp(name, "broken.example") == 0;
    out[2] = 0x84;
    out[3] = (uint8_t)(0x80 | (broken ? 2 : known ? 0 : 3));
    memset(out + 6, 0, 6);
    out[7] = (uint8_t)count;
    (void)sendto(w->fd, out, used, 0, (struct sockaddr *)&from, from_len);
}

static int setup(void **state)
{
    (void)state;
    char server[64];
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    memset(&g, 0, sizeof g);
    assert_int_equal(loop_open(&g.loop), ERR_OK);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    g.watch = (struct loop_watch){.fd = fd, .ready = answer};
    assert_int_equal(loop_watch_add(g.loop, &g.watch, true, false), ERR_OK);
    snprintf(server, sizeof server, "127.0.0.1@%u", ntohs(in.sin_port));
    assert_int_equal(dns_open(g.loop, "relay.example", server, &g.dns), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_close(&g.dns);
    loop_watch_remove(&g.watch);
    close(g.watch.fd);
    loop_close(&g.loop);
    return 0;
}

static void on_done(struct dns_query *q, enum err e)
{
    (void)q;
    g.done++;
    g.result = e;
    loop_stop(g.loop);
}

static void ask(const char *host, bool mx)
{
    memset(&g.q, 0, sizeof g.q);
    snprintf(g.q.host, sizeof g.q.host, "%s", host);
    g.q.port = 25;
    g.q.mx = mx;
    g.q.done = on_done;
    dns_resolve(g.dns, &g.q);
    loop_run(g.loop);
}

static void mail_exchangers_come_in_order_of_preference(void **state)
{
    (void)state;
    ask("good.example", true);
    assert_int_equal(g.result, ERR_OK);
    assert_int_equal(g.q.count, 3);
    assert_string_equal(g.q.addresses[0].host, "first.example");
    assert_string_equal(g.q.addresses[0].text, "192.0.2.1");
    assert_string_equal(g.q.addresses[1].host, "second.example");
    assert_int_equal(((struct sockaddr_in *)&g.q.addresses[0].to)->sin_port, htons(25));
}

static void a_domain_without_mx_is_its_own(void **state)
{
    (void)state;
    ask("implicit.example", true);
    assert_int_equal(g.result, ERR_OK);
    assert_string_equal(g.q.addresses[0].text, "192.0.2.4");
}

static void what_cannot_be_reached_is_told_from_what_cannot_be_reached_now(void **state)
{
    (void)state;
    static const struct { const char *host; enum mark_status status; const char *dsn; } cases[] = {
        {"null.example", MARK_BOUNCED, "5.1.10"},   {"missing.example", MARK_BOUNCED, "5.4.4"},
        {"dangling.example", MARK_BOUNCED, "5.4.4"}, {"loop.example", MARK_BOUNCED, "5.4.6"},
        {"broken.example", MARK_DEFERRED, "4.4.3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask(cases[i].host, true);
        assert_int_not_equal(g.result, ERR_OK);
        assert_int_equal(g.q.why.status, cases[i].status);
        assert_string_equal(g.q.why.dsn, cases[i].dsn);
        assert_non_null(strstr(g.q.why.text, cases[i].host));
    }
}

static void hosts_no_better_than_ourselves_are_not_tried(void **state)
{
    (void)state;
    ask("backup.example", true);
    assert_int_equal(g.result, ERR_OK);
    assert_int_equal(g.q.count, 1);
    assert_string_equal(g.q.addresses[0].host, "first.example");
}

static void a_host_is_asked_for_its_addresses_only(void **state)
{
    (void)state;
    ask("second.example", false);
    assert_int_equal(g.result, ERR_OK);
    assert_int_equal(g.q.count, 2);
    ask("good.example", false); /* has MX records only */
    assert_int_equal(g.q.why.status, MARK_BOUNCED);
}

static void numeric_addresses_ask_nobody(void **state)
{
    (void)state;
    ask("192.0.2.77", false);
    assert_int_equal(g.result, ERR_OK);
    assert_string_equal(g.q.addresses[0].text, "192.0.2.77");
    ask("IPv6:2001:db8::7", true);
    assert_string_equal(g.q.addresses[0].text, "2001:db8::7");
    assert_int_equal(g.q.addresses[0].to.ss_family, AF_INET6);
}

static void a_canceled_query_calls_nobody(void **state)
{
    (void)state;
    memset(&g.q, 0, sizeof g.q);
    snprintf(g.q.host, sizeof g.q.host, "good.example");
    g.q.mx = true;
    g.q.done = on_done;
    dns_resolve(g.dns, &g.q);
    dns_cancel(&g.q);
    dns_cancel(&g.q);
    uint32_t before = g.done;
    ask("implicit.example", true);
    assert_int_equal(g.done, before + 1);
}

static void hosts_are_sorted_by_preference_then_at_random(void **state)
{
    (void)state;
    struct dns_host h[4] = {{"d", 30, 1}, {"b", 10, 9}, {"c", 20, 1}, {"a", 10, 3}};
    bool looped;
    assert_int_equal(dns_sort_hosts(h, 4, "none", &looped), 4);
    assert_false(looped);
    assert_string_equal(h[0].name, "a");
    assert_string_equal(h[1].name, "b");
    assert_string_equal(h[3].name, "d");
    assert_int_equal(dns_sort_hosts(h, 4, "C", &looped), 2);
    assert_false(looped);
    assert_int_equal(dns_sort_hosts(h, 4, "b", &looped), 0);
    assert_true(looped);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(mail_exchangers_come_in_order_of_preference),
        T(a_domain_without_mx_is_its_own),
        T(what_cannot_be_reached_is_told_from_what_cannot_be_reached_now),
        T(hosts_no_better_than_ourselves_are_not_tried),
        T(a_host_is_asked_for_its_addresses_only),
        T(numeric_addresses_ask_nobody),
        T(a_canceled_query_calls_nobody),
        cmocka_unit_test(hosts_are_sorted_by_preference_then_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
