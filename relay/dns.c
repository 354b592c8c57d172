/* SPDX-License-Identifier: Apache-2.0 */
/* Owns libunbound's context and the lookups in flight. One query asks one thing at a time:
 *
 *      numeric -----------------------------------------------.
 *      mx: MX? -> sort -> for each host: A? -> AAAA? -> next ... -> done
 *      else:              the one host
 *
 * Sending nothing to the network itself, libunbound's thread does; its answers come through ub_fd on the loop. */
#include "dns.h"

#include <base/assert.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unbound.h>

enum { TYPE_A = 1, TYPE_MX = 15, TYPE_AAAA = 28, CLASS_IN = 1 };

struct dns {
    struct loop *loop;
    struct ub_ctx *ctx;
    struct loop_watch watch;
    bool watching;
    char own_name[DNS_NAME_BYTES];
};

static void answers_ready(struct loop_watch *w, bool readable, bool writable)
{
    struct dns *dns = w->owner;
    (void)readable;
    (void)writable;
    ub_process(dns->ctx); /* a failure here leaves queries to their timers */
}

static void ignore_answer(void *owner, int failed, struct ub_result *result)
{
    (void)owner;
    (void)failed;
    ub_resolve_free(result);
}

enum err dns_open(struct loop *loop, const char *own_name, const char *server, struct dns **dns_out)
{
    struct dns *dns = calloc(1, sizeof *dns);
    if (!dns)
        return ERR_NO_MEMORY;
    dns->loop = loop;
    snprintf(dns->own_name, sizeof dns->own_name, "%s", own_name);
    dns->ctx = ub_ctx_create();
    enum err e = ERR_NO_MEMORY;
    if (!dns->ctx)
        goto out;
    /* resolv.conf often names a resolver on this very host */
    (void)ub_ctx_set_option(dns->ctx, "do-not-query-localhost:", "no");
    /* missing files are no error: without resolv.conf libunbound asks the root servers itself */
    if (server)
        (void)ub_ctx_set_fwd(dns->ctx, server);
    else
        (void)ub_ctx_resolvconf(dns->ctx, NULL);
    (void)ub_ctx_hosts(dns->ctx, NULL);
    e = ERR_SYSTEM;
    if (ub_ctx_async(dns->ctx, 1) != 0)
        goto out;
    /* a question it answers itself: the thread starts now, before the process gives up what that takes */
    if (ub_resolve_async(dns->ctx, "localhost.", TYPE_A, CLASS_IN, NULL, ignore_answer, NULL) != 0)
        goto out;
    dns->watch = (struct loop_watch){.fd = ub_fd(dns->ctx), .ready = answers_ready, .owner = dns};
    e = loop_watch_add(loop, &dns->watch, true, false);
    if (e)
        goto out;
    dns->watching = true;
    *dns_out = dns;
    dns = NULL;
out:
    dns_close(&dns);
    return e;
}

void dns_close(struct dns **dns)
{
    if (!*dns)
        return;
    if ((*dns)->watching)
        loop_watch_remove(&(*dns)->watch);
    if ((*dns)->ctx)
        ub_ctx_delete((*dns)->ctx);
    free(*dns);
    *dns = NULL;
}

/* --- the end of a query --- */

static void finish(struct dns_query *q, enum err e)
{
    ASSERT(q->running);
    q->running = false;
    q->asking_id = 0;
    loop_timer_fini(&q->timer);
    loop_defer_cancel(&q->task);
    q->done(q, e);
}

static void finish_with(struct dns_query *q, const char *text)
{
    outcome_of_text(text, "4.4.3", &q->why);
    q->why.blame = q->why.status == MARK_DEFERRED ? OUTCOME_HOST : OUTCOME_MESSAGE;
    finish(q, ERR_NOT_FOUND);
}

static void finish_said(struct dns_query *q, const char *dsn, const char *what)
{
    char text[REASON_BYTES_MAX];
    snprintf(text, sizeof text, "%s %s %.250s", dsn, what, q->host);
    finish_with(q, text);
}

void dns_cancel(struct dns_query *q)
{
    if (!q->running)
        return;
    if (q->asking_id)
        ub_cancel(q->dns->ctx, q->asking_id);
    q->running = false;
    q->asking_id = 0;
    loop_timer_fini(&q->timer);
    loop_defer_cancel(&q->task);
}

static void timed_out(struct loop_timer *t)
{
    struct dns_query *q = t->owner;
    if (q->asking_id)
        ub_cancel(q->dns->ctx, q->asking_id);
    q->asking_id = 0;
    if (q->count > 0) /* some of the hosts are known: enough to begin with */
        finish(q, ERR_OK);
    else
        finish_said(q, "4.4.3", "no answer in time from the name servers of");
}

static void run_result(struct loop_task *t)
{
    struct dns_query *q = t->owner;
    if (q->result == ERR_OK)
        finish(q, ERR_OK);
    else
        finish_said(q, "4.3.0", "the resolver refuses to ask for");
}

static void finish_later(struct dns_query *q, enum err e)
{
    q->result = e;
    loop_defer(q->dns->loop, &q->task);
}

/* --- addresses --- */

static void add_address(struct dns_query *q, const char *host, int family, const void *bytes)
{
    if (q->count == DNS_ADDRESSES_MAX)
        return;
    struct dns_address *a = &q->addresses[q->count++];
    memset(a, 0, sizeof *a);
    snprintf(a->host, sizeof a->host, "%s", host);
    inet_ntop(family, bytes, a->text, sizeof a->text);
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&a->to;
        in->sin_family = AF_INET;
        in->sin_port = htons(q->port);
        memcpy(&in->sin_addr, bytes, 4);
        a->to_len = sizeof *in;
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)&a->to;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(q->port);
        memcpy(&in->sin6_addr, bytes, 16);
        a->to_len = sizeof *in;
    }
}

static bool add_numeric(struct dns_query *q)
{
    uint8_t bytes[16];
    const char *text = strncasecmp(q->host, "ipv6:", 5) == 0 ? q->host + 5 : q->host;
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, bytes) != 1)
        return false;
    add_address(q, text, family, bytes);
    return true;
}

static void ask(struct dns_query *q, const char *name, int type);

static void ask_host(struct dns_query *q)
{
    if (q->host_at < q->host_count && q->count < DNS_ADDRESSES_MAX) {
        ask(q, q->hosts[q->host_at].name, q->asked_v4 ? TYPE_AAAA : TYPE_A);
        return;
    }
    if (q->count > 0)
        finish(q, ERR_OK);
    else if (q->soft_failure)
        finish_said(q, "4.4.3", "the name servers cannot tell the addresses of");
    else
        finish_said(q, "5.4.4", "no host has an address for");
}

static void take_addresses(struct dns_query *q, const struct ub_result *result)
{
    size_t want = q->asked_v4 ? 16 : 4;
    for (int i = 0; result && result->havedata && result->data[i]; i++)
        if ((size_t)result->len[i] == want)
            add_address(q, q->hosts[q->host_at].name, q->asked_v4 ? AF_INET6 : AF_INET, result->data[i]);
    if (q->asked_v4)
        q->host_at++;
    q->asked_v4 = !q->asked_v4;
    ask_host(q);
}

/* --- MX --- */

uint32_t dns_sort_hosts(struct dns_host *hosts, uint32_t count, const char *own_name, bool *looped_out)
{
    for (uint32_t i = 1; i < count; i++) { /* ten at most */
        struct dns_host h = hosts[i];
        uint32_t at = i;
        while (at > 0 && (hosts[at - 1].preference > h.preference ||
                          (hosts[at - 1].preference == h.preference && hosts[at - 1].order > h.order))) {
            hosts[at] = hosts[at - 1];
            at--;
        }
        hosts[at] = h;
    }
    *looped_out = false;
    for (uint32_t i = 0; i < count; i++) {
        if (strcasecmp(hosts[i].name, own_name) != 0)
            continue;
        uint32_t keep = 0;
        while (hosts[keep].preference < hosts[i].preference)
            keep++;
        *looped_out = keep == 0;
        return keep;
    }
    return count;
}

/* A name in wire form, without compression (libunbound's rdata has none). False: not one. */
static bool read_name(const uint8_t *at, size_t len, char name[DNS_NAME_BYTES])
{
    uint32_t used = 0;
    size_t i = 0;
    while (i < len && at[i] != 0) {
        uint8_t label = at[i++];
        if (label > 63 || label > len - i || used + label + 2 > DNS_NAME_BYTES)
            return false;
        if (used > 0)
            name[used++] = '.';
        for (uint8_t k = 0; k < label; k++) {
            uint8_t c = at[i++];
            if (c <= 0x20 || c >= 0x7f || c == '.')
                return false;
            name[used++] = (char)tolower(c);
        }
    }
    name[used] = '\0';
    return i < len;
}

static void take_mx(struct dns_query *q, const struct ub_result *result)
{
    bool null_mx = false, looped = false;
    for (int i = 0; result->havedata && result->data[i] && q->host_count < DNS_HOSTS_MAX; i++) {
        const uint8_t *rdata = (const uint8_t *)result->data[i];
        struct dns_host h;
        if (result->len[i] < 3 || !read_name(rdata + 2, (size_t)result->len[i] - 2, h.name))
            continue;
        if (h.name[0] == '\0') {
            null_mx = true;
            continue;
        }
        h.preference = (uint16_t)(rdata[0] << 8 | rdata[1]);
        if (getrandom(&h.order, sizeof h.order, GRND_NONBLOCK) != sizeof h.order)
            h.order = (uint32_t)i;
        q->hosts[q->host_count++] = h;
    }
    if (null_mx && q->host_count == 0) {
        finish_said(q, "5.1.10", "the domain takes no mail (null MX):");
        return;
    }
    if (q->host_count == 0) { /* RFC 5321 5.1: the domain is its own MX */
        snprintf(q->hosts[0].name, sizeof q->hosts[0].name, "%s", q->host);
        q->hosts[0].preference = 0;
        q->host_count = 1;
    }
    q->host_count = dns_sort_hosts(q->hosts, q->host_count, q->dns->own_name, &looped);
    if (looped)
        finish_said(q, "5.4.6", "mail loops back to ourselves for");
    else
        ask_host(q);
}

/* --- answers --- */

static void answered(void *owner, int failed, struct ub_result *result)
{
    struct dns_query *q = owner;
    bool mx = q->mx && q->host_count == 0;
    q->asking_id = 0;
    bool unsure = failed || !result || result->bogus || (result->rcode != 0 && result->rcode != 3);
    q->soft_failure |= unsure;
    if (!mx)
        take_addresses(q, unsure ? NULL : result);
    else if (unsure)
        finish_said(q, "4.4.3", "the name servers cannot tell the mail exchangers of");
    else if (result->nxdomain || result->rcode == 3)
        finish_said(q, "5.4.4", "no such domain:");
    else
        take_mx(q, result);
    ub_resolve_free(result);
}

static void ask(struct dns_query *q, const char *name, int type)
{
    int id = 0;
    if (ub_resolve_async(q->dns->ctx, name, type, CLASS_IN, q, answered, &id) != 0)
        finish_later(q, q->count > 0 ? ERR_OK : ERR_SYSTEM);
    else
        q->asking_id = id;
}

void dns_resolve(struct dns *dns, struct dns_query *q)
{
    q->dns = dns;
    q->running = true;
    q->count = q->host_at = q->host_count = 0;
    q->asking_id = 0;
    q->asked_v4 = q->soft_failure = false;
    q->task = (struct loop_task){.run = run_result, .owner = q};
    loop_timer_init(dns->loop, &q->timer, timed_out, q);
    if (add_numeric(q)) {
        finish_later(q, ERR_OK);
        return;
    }
    loop_timer_set(&q->timer, DNS_TIMEOUT_MS);
    if (q->mx) {
        ask(q, q->host, TYPE_MX);
        return;
    }
    snprintf(q->hosts[0].name, sizeof q->hosts[0].name, "%s", q->host);
    q->host_count = 1;
    ask(q, q->host, TYPE_A);
}
