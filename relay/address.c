/* SPDX-License-Identifier: Apache-2.0 */
/* Address helpers. Pure: no state, no locale. See address.h. */
#include "address.h"

#include <string.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool address_domain(const char *address, uint32_t len, const char **domain_out, uint32_t *domain_len_out)
{
    const char *at = len && address[len - 1] != '"' ? memrchr(address, '@', len) : NULL; /* "a@b" is a local part */
    if (!at || at + 1 == address + len)
        return false;
    *domain_out = at + 1;
    *domain_len_out = (uint32_t)(address + len - (at + 1));
    return true;
}

void address_lower(char *bytes, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = lower(bytes[i]);
}

bool address_equal_ignoring_case(const char *a, uint32_t a_len, const char *b, uint32_t b_len)
{
    if (a_len != b_len)
        return false;
    for (uint32_t i = 0; i < a_len; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

bool address_same(const char *a, uint32_t a_len, const char *b, uint32_t b_len)
{
    const char *a_domain = a + a_len, *b_domain = b + b_len;
    uint32_t a_domain_len = 0, b_domain_len = 0;
    address_domain(a, a_len, &a_domain, &a_domain_len);
    address_domain(b, b_len, &b_domain, &b_domain_len);
    if (a_len - a_domain_len != b_len - b_domain_len || memcmp(a, b, a_len - a_domain_len) != 0)
        return false;
    return address_equal_ignoring_case(a_domain, a_domain_len, b_domain, b_domain_len);
}

bool address_domain_matches(const char *domain, uint32_t len, const char *pattern)
{
    uint32_t pattern_len = (uint32_t)strlen(pattern);
    if (pattern_len == 0)
        return false;
    if (pattern[0] != '.')
        return address_equal_ignoring_case(domain, len, pattern, pattern_len);
    if (len <= pattern_len) /* a label is left of the dot */
        return false;
    return address_equal_ignoring_case(domain + len - pattern_len, pattern_len, pattern, pattern_len);
}
