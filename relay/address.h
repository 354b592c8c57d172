/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as they stand in envelopes: "local@domain" without angle brackets, the local part quoted where it has to be.
 * Pure. Lengths are explicit; nothing here is terminated but patterns from the configuration. */
#ifndef RELAY_ADDRESS_H
#define RELAY_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The domain behind the last '@' (a domain has none); false when there is no '@' or nothing behind it. */
bool address_domain(const char *address, uint32_t len, const char **domain_out, uint32_t *domain_len_out);
void address_lower(char *bytes, uint32_t len); /* ASCII only: what DNS compares */
bool address_equal_ignoring_case(const char *a, uint32_t a_len, const char *b, uint32_t b_len); /* ASCII only */
/* Local parts are compared as they are, domains without case. */
bool address_same(const char *a, uint32_t a_len, const char *b, uint32_t b_len);
/* `pattern`: "example.org" is that domain alone, ".example.org" whatever lies below it. */
bool address_domain_matches(const char *domain, uint32_t len, const char *pattern);

#endif
