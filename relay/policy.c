/* SPDX-License-Identifier: Apache-2.0 */
/* Relay control. Pure; reads the settings and nothing else. See policy.h. */
#include "policy.h"

#include "address.h"
#include "alias.h"

#include <netinet/in.h>
#include <string.h>

static bool prefix_equal(const uint8_t *a, const uint8_t *b, uint8_t bits)
{
    uint8_t whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

static bool in_networks(const struct settings *settings, uint8_t family, const uint8_t *address)
{
    uint8_t bits_max = family == 4 ? 32 : 128;
    for (uint32_t i = 0; i < settings->mynetworks_count; i++) {
        const struct settings_network *n = &settings->mynetworks[i];
        if (n->family == family && n->prefix <= bits_max && prefix_equal(n->address, address, n->prefix))
            return true;
    }
    return false;
}

bool policy_client_trusted(const struct settings *settings, const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        return in_networks(settings, 4, (const uint8_t *)&in->sin_addr);
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
        const uint8_t *bytes = in6->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            return in_networks(settings, 4, bytes + 12);
        return in_networks(settings, 6, bytes);
    }
    return false;
}

/* RFC 5321 4.5.1: of this host, whoever asks. */
static bool is_postmaster(const char *address, uint32_t len, bool local)
{
    const char *domain;
    uint32_t domain_len;
    if (address_domain(address, len, &domain, &domain_len)) {
        if (!local)
            return false;
        len -= domain_len + 1;
    }
    return address_equal_ignoring_case(address, len, "postmaster", 10);
}

enum err policy_recipient(const struct settings *settings, bool trusted, const char *address, uint32_t len)
{
    const char *domain;
    uint32_t domain_len;
    enum alias_verdict aliases = settings->aliases ? alias_verdict(settings->aliases, address, len) : ALIAS_NOT_OURS;
    if (aliases == ALIAS_UNKNOWN)
        return ERR_NO_USER; /* it could only come back to us */
    if (trusted || aliases == ALIAS_LISTED || is_postmaster(address, len, aliases == ALIAS_LOCAL))
        return ERR_OK;
    if (!address_domain(address, len, &domain, &domain_len))
        return aliases == ALIAS_LOCAL ? ERR_NO_USER : ERR_DENIED;
    for (uint32_t i = 0; i < settings->relay_domains_count; i++)
        if (address_domain_matches(domain, domain_len, settings->relay_domains[i]))
            return ERR_OK;
    return aliases == ALIAS_LOCAL ? ERR_NO_USER : ERR_DENIED;
}
