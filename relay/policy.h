/* SPDX-License-Identifier: Apache-2.0 */
/* Who may send what through us: mynetworks may send anywhere, everybody else to relay_domains and to what the alias tables
 * list. Pure.
 *
 *  POL-1  without a reason to accept, the answer is no: an open relay needs a line in the configuration. */
#ifndef RELAY_POLICY_H
#define RELAY_POLICY_H

#include "settings.h"

#include <base/err.h>
#include <sys/socket.h>

/* In mynetworks? A v4-mapped IPv6 address counts as the IPv4 address. */
bool policy_client_trusted(const struct settings *settings, const struct sockaddr *address);
/* ERR_DENIED: 554 5.7.1. ERR_NO_USER: 550 5.1.1, of a domain that the alias tables own. Addresses without a domain are ours
 * (hostname): trusted clients only, postmaster from all. */
enum err policy_recipient(const struct settings *settings, bool trusted, const char *address, uint32_t len) MUST_CHECK;

#endif
