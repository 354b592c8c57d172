/* SPDX-License-Identifier: Apache-2.0 */
/* The hosts of a destination, in the order to try them: MX, else the domain itself (RFC 5321 section 5), addresses of
 * each. The only door to libunbound. /etc/hosts and /etc/resolv.conf are read once, when the resolver is opened.
 *
 *  DNS-1  done is called exactly once unless canceled, never from inside dns_resolve.
 *  DNS-2  hosts of equal preference come in random order; a list that names ourselves ends before our own preference.
 *  DNS-3  bounded: DNS_HOSTS_MAX hosts, DNS_ADDRESSES_MAX addresses, DNS_TIMEOUT_MS altogether. */
#ifndef RELAY_DNS_H
#define RELAY_DNS_H

#include "loop.h"
#include "outcome.h"

#include <sys/socket.h>

#define DNS_HOSTS_MAX 10u      /* Postfix's smtp_mx_address_limit is 5; enough for every domain worth reaching */
#define DNS_ADDRESSES_MAX 16u
#define DNS_TIMEOUT_MS 30000u  /* choice: the sessions a dead resolver holds are freed before the next back-off */
#define DNS_NAME_BYTES 256u

struct dns;

struct dns_address {
    struct sockaddr_storage to;
    socklen_t to_len;
    char host[DNS_NAME_BYTES]; /* for TLS and the log */
    char text[64];             /* the address alone */
};

struct dns_query {
    /* in */
    char host[DNS_NAME_BYTES]; /* name or numeric address, without brackets */
    uint16_t port;
    bool mx;
    /* ERR_OK: `count` > 0 addresses. Else `why` says deferred or bounced. */
    void (*done)(struct dns_query *q, enum err e);
    void *owner;
    /* out */
    struct dns_address addresses[DNS_ADDRESSES_MAX];
    uint32_t count;
    struct outcome why;
    /* private */
    struct dns *dns;
    struct loop_timer timer;
    struct loop_task task;
    bool running;
    int asking_id;             /* libunbound's id of the lookup in flight; 0: none */
    uint32_t host_at, host_count;
    bool asked_v4;
    bool soft_failure;         /* one of the lookups failed for now */
    enum err result;
    struct dns_host { char name[DNS_NAME_BYTES]; uint16_t preference; uint32_t order; } hosts[DNS_HOSTS_MAX];
};

/* `own_name`: our hostname, against loops. `server`: "address@port" of the only name server to ask; NULL: what
 * /etc/resolv.conf says. */
enum err dns_open(struct loop *loop, const char *own_name, const char *server, struct dns **dns_out) MUST_CHECK;
void dns_close(struct dns **dns); /* no query is running */
void dns_resolve(struct dns *dns, struct dns_query *q);
void dns_cancel(struct dns_query *q); /* harmless when it is not running */

/* Sorts by preference, then order (random), and cuts from the preference of own_name on. Returns how many are left;
 * *looped_out: own_name was among the best. Pure. */
uint32_t dns_sort_hosts(struct dns_host *hosts, uint32_t count, const char *own_name, bool *looped_out);

#endif
