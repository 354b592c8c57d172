/* SPDX-License-Identifier: Apache-2.0 */
/* What the relay was told: filled from the configuration file by daemon/config.c, read-only afterwards; a reload
 * makes a new one and the old one lives until its last session ends (refs). Postfix's names and defaults. */
#ifndef RELAY_SETTINGS_H
#define RELAY_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

struct settings_network { uint8_t family; /* 4 or 6 */ uint8_t address[16]; uint8_t prefix; };

struct settings {
    uint32_t refs;
    char hostname[256];
    char mail_name[64];                   /* "Ironspool", in the banner and the Received header */
    char syslog_name[64];                 /* "ironspool" */
    /* who may relay */
    struct settings_network *mynetworks;
    uint32_t mynetworks_count;
    char **relay_domains;                 /* lower case; ".example.org" matches subdomains */
    uint32_t relay_domains_count;
    /* server */
    uint64_t message_size_limit;          /* 10240000 */
    uint32_t smtpd_recipient_limit;       /* 1000 */
    uint32_t hopcount_limit;              /* 50 */
    uint32_t header_size_limit;           /* 102400 */
    uint32_t line_length_limit;           /* 65536 bytes in DATA, never folded */
    uint32_t smtpd_timeout_s;             /* 300 */
    uint32_t smtpd_hard_error_limit;      /* 20 */
    uint32_t smtpd_client_connection_count_limit; /* 50 a client address; mynetworks exempt */
    uint32_t sessions_max;                /* 1000 */
    uint32_t smtpd_min_data_rate;         /* 500 bytes/s */
    char smtpd_tls_security_level[16];    /* none, may, encrypt */
    char smtpd_tls_cert_file[256], smtpd_tls_key_file[256];
    /* delivery */
    char relayhost[256];
    char default_transport[256];
    char smtp_tls_security_level[16];     /* none, may, encrypt, verify */
    char smtp_tls_ca_file[256];
    uint32_t default_destination_concurrency_limit; /* 20 */
    uint32_t initial_destination_concurrency;       /* 5 */
    uint32_t default_destination_recipient_limit;   /* 50 */
    uint64_t minimal_backoff_ms, maximal_backoff_ms;/* 300 s, 4000 s */
    uint64_t maximal_queue_lifetime_ms, bounce_queue_lifetime_ms; /* 5 d */
    uint32_t smtp_connect_timeout_s;      /* 30 */
    uint32_t deliveries_max;              /* attempts in flight altogether, 400 */
    uint64_t fresh_bytes_max;             /* bodies kept in memory for first delivery: 16 MiB */
    char **mydestination;                 /* domains whose local parts alias_maps knows; as relay_domains */
    uint32_t mydestination_count;
    void *aliases;                        /* struct alias_table *, parsed alias_maps and virtual_alias_maps; NULL: none */
    void *transports;                     /* struct route_table *, parsed transport_maps; route.h */
};

#endif
