/* SPDX-License-Identifier: Apache-2.0 */
/* Where an address goes: transport_maps, then relayhost, then default_transport. Pure but for reading the map files
 * when the table is opened; a lookup is a few probes of one hash table, without recursion.
 *
 *  RTE-1  every address has a route: route_of never fails.
 *  RTE-2  a table never changes once it is open; a reload opens a new one. */
#ifndef RELAY_ROUTE_H
#define RELAY_ROUTE_H

#include "mapfile.h"

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

#define ROUTE_ENTRIES_MAX 1000000u                      /* lines in all transport_maps together */
#define ROUTE_LINE_BYTES_MAX 2048u                      /* one logical line, continuations included */
#define ROUTE_NEXTHOP_BYTES 256u
#define ROUTE_TEXT_BYTES MAPFILE_TEXT_BYTES             /* a message about what is wrong */

enum route_kind { ROUTE_SMTP, ROUTE_LMTP, ROUTE_MAILDIR, ROUTE_HOLD, ROUTE_DISCARD, ROUTE_ERROR };

struct route {
    enum route_kind kind;
    bool mx;                             /* `host` is a mail domain: ask for its MX records first */
    bool local_socket;                   /* LMTP: `host` is the path of a socket */
    uint16_t port;
    char nexthop[ROUTE_NEXTHOP_BYTES];   /* as configured, for the log; empty: the recipient's own domain */
    char host[ROUTE_NEXTHOP_BYTES];      /* name, address or path; empty: the recipient's own domain.
                                            MAILDIR: the directory; ERROR: the text, with its DSN code if it has one */
};

struct route_table;

/* ERR_CONFIG with "file:line: what is wrong" in text; ERR_NO_MEMORY. */
enum err route_table_open(const char *default_transport, const char *relayhost, char *const *map_files,
                          uint32_t map_count, char text[ROUTE_TEXT_BYTES], struct route_table **table_out) MUST_CHECK;
void route_table_close(struct route_table **table);
/* The result lives as long as the table. */
const struct route *route_of(const struct route_table *table, const char *address, uint32_t len);
uint32_t route_table_entries(const struct route_table *table);

/* One "transport:nexthop"; ERR_CONFIG with what is wrong. */
enum err route_parse(const char *spec, struct route *route_out, char text[ROUTE_TEXT_BYTES]) MUST_CHECK;
/* The domain of an address: after its last '@'; empty when it has none. */
const char *route_domain(const char *address, uint32_t len, uint32_t *len_out);

#endif
