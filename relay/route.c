/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the route table: lower-cased patterns in a keymap, and the routes they name, each stored once. Pattern order as
 * Postfix asks: user@domain, domain, .parent for each parent, "*"; then relayhost and default_transport. The parser's
 * input is the operator's: every refusal names file and line. */
#include "route.h"

#include "keymap.h"
#include "mapfile.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARENTS_MAX 16u    /* labels walked upwards for one lookup */
#define ROUTES_MAX 65536u  /* different right sides in one table */

struct route_table {
    struct route *routes;
    uint32_t route_count, route_capacity;
    struct keymap keys;       /* to the index of a route */
    uint32_t otherwise;       /* the route of everything not listed */
    struct route standard;    /* default_transport, for right sides that leave the transport out */
};

const char *route_domain(const char *address, uint32_t len, uint32_t *len_out)
{
    const char *at = len && address[len - 1] != '"' ? memrchr(address, '@', len) : NULL; /* as address_domain */
    *len_out = at ? (uint32_t)(address + len - (at + 1)) : 0;
    return at ? at + 1 : address + len;
}

/* --- one right side --- */

static enum err refuse(char text[ROUTE_TEXT_BYTES], const char *why, const char *what)
{
    snprintf(text, ROUTE_TEXT_BYTES, "%s: \"%.200s\"", why, what);
    return ERR_CONFIG;
}

static enum err parse_port(const char *digits, uint16_t *port_out, char text[ROUTE_TEXT_BYTES])
{
    char *end = NULL;
    unsigned long n = strtoul(digits, &end, 10);
    if (!isdigit((unsigned char)digits[0]) || *end || n == 0 || n > 65535) {
        if (strcmp(digits, "smtp") == 0)
            n = 25;
        else if (strcmp(digits, "submission") == 0)
            n = 587;
        else if (strcmp(digits, "lmtp") == 0)
            n = 24;
        else
            return refuse(text, "not a port from 1 to 65535", digits);
    }
    *port_out = (uint16_t)n;
    return ERR_OK;
}

/* "host", "host:port", "[host]", "[host]:port", "unix:/path" */
static enum err parse_nexthop(const char *hop, struct route *r, char text[ROUTE_TEXT_BYTES])
{
    if (r->kind == ROUTE_LMTP && strncmp(hop, "unix:", 5) == 0) {
        if (hop[5] != '/' || strlen(hop + 5) >= 108) /* sun_path */
            return refuse(text, "unix: takes an absolute path of at most 107 bytes", hop);
        r->local_socket = true;
        snprintf(r->host, sizeof r->host, "%s", hop + 5);
        return ERR_OK;
    }
    if (r->kind == ROUTE_LMTP && strncmp(hop, "inet:", 5) == 0)
        hop += 5;
    const char *host = hop, *end, *after;
    r->mx = r->kind == ROUTE_SMTP && hop[0] != '[';
    if (hop[0] == '[') {
        host = hop + 1;
        end = strchr(hop, ']');
        if (!end)
            return refuse(text, "a \"]\" is missing", hop);
        after = end + 1;
    } else {
        end = strchr(hop, ':');
        if (end && strchr(end + 1, ':'))
            return refuse(text, "an IPv6 address stands in brackets", hop);
        end = end ? end : hop + strlen(hop);
        after = end;
    }
    if (end == host)
        return refuse(text, "no host before the port", hop);
    memcpy(r->host, host, (size_t)(end - host)); /* shorter than nexthop, which fitted */
    for (char *c = r->host; *c; c++) {
        if (isspace((unsigned char)*c) || *c == '@' || *c == '/')
            return refuse(text, "not a host", hop);
        *c = (char)tolower((unsigned char)*c);
    }
    if (*after == '\0')
        return ERR_OK;
    if (*after != ':')
        return refuse(text, "only \":port\" may follow the host", hop);
    return parse_port(after + 1, &r->port, text);
}

static enum err parse_kind(const char *name, struct route *r, char text[ROUTE_TEXT_BYTES])
{
    static const struct { const char *name; enum route_kind kind; } kinds[] = {
        {"smtp", ROUTE_SMTP}, {"relay", ROUTE_SMTP}, {"lmtp", ROUTE_LMTP}, {"maildir", ROUTE_MAILDIR},
        {"hold", ROUTE_HOLD}, {"discard", ROUTE_DISCARD}, {"error", ROUTE_ERROR},
    };
    for (uint32_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            r->kind = kinds[i].kind;
            return ERR_OK;
        }
    }
    return refuse(text, "unknown transport; known: smtp, lmtp, maildir, hold, discard, error", name);
}

enum err route_parse(const char *spec, struct route *route_out, char text[ROUTE_TEXT_BYTES])
{
    struct route r = {0};
    char name[16];
    size_t len = strcspn(spec, ":");
    if (len >= sizeof name)
        return refuse(text, "unknown transport", spec);
    memcpy(name, spec, len);
    name[len] = '\0';
    enum err e = parse_kind(name, &r, text);
    if (e)
        return e;
    const char *hop = spec[len] == ':' ? spec + len + 1 : "";
    if (strlen(hop) >= sizeof r.nexthop)
        return refuse(text, "longer than 255 bytes", hop);
    snprintf(r.nexthop, sizeof r.nexthop, "%s", hop);
    r.port = r.kind == ROUTE_LMTP ? 24 : 25;
    r.mx = r.kind == ROUTE_SMTP;
    switch (r.kind) {
    case ROUTE_MAILDIR:
        if (hop[0] != '/')
            return refuse(text, "maildir takes an absolute directory", spec);
        snprintf(r.host, sizeof r.host, "%s", hop);
        break;
    case ROUTE_LMTP:
        if (*hop == '\0')
            return refuse(text, "lmtp needs a host or unix:/path", spec);
        e = parse_nexthop(hop, &r, text);
        break;
    case ROUTE_SMTP:
        e = *hop ? parse_nexthop(hop, &r, text) : ERR_OK;
        break;
    case ROUTE_ERROR:
        snprintf(r.host, sizeof r.host, "%s", *hop ? hop : "5.7.1 mail is not accepted for this address");
        break;
    case ROUTE_HOLD:
    case ROUTE_DISCARD:
        break;
    }
    if (e == ERR_OK)
        *route_out = r;
    return e;
}

/* --- the table --- */

static enum err add_route(struct route_table *t, const struct route *r, uint32_t *index_out)
{
    /* maps usually name few routes, one after the other: look back a little before storing another */
    for (uint32_t back = 1; back <= 8 && back <= t->route_count; back++) {
        if (memcmp(&t->routes[t->route_count - back], r, sizeof *r) == 0) {
            *index_out = t->route_count - back;
            return ERR_OK;
        }
    }
    if (t->route_count == ROUTES_MAX)
        return ERR_TOO_LARGE;
    if (t->route_count == t->route_capacity) {
        uint32_t capacity = t->route_capacity ? t->route_capacity * 2 : 8;
        struct route *grown = reallocarray(t->routes, capacity, sizeof *grown);
        if (!grown)
            return ERR_NO_MEMORY;
        t->routes = grown;
        t->route_capacity = capacity;
    }
    *index_out = t->route_count;
    t->routes[t->route_count++] = *r;
    return ERR_OK;
}

/* --- the map files --- */

/* The right side of a line: the transport may be left out (":nexthop"), or both (":", meaning as if not listed). */
static enum err parse_right(const struct route_table *t, const char *spec, struct route *r, char text[ROUTE_TEXT_BYTES])
{
    if (spec[0] != ':')
        return route_parse(spec, r, text);
    if (spec[1] == '\0') {
        *r = t->standard;
        return ERR_OK;
    }
    static const char *const names[] = {"smtp", "lmtp", "maildir", "hold", "discard", "error"};
    char whole[ROUTE_LINE_BYTES_MAX + 16];
    snprintf(whole, sizeof whole, "%s%s", names[t->standard.kind], spec);
    return route_parse(whole, r, text);
}

static enum err take_line(void *owner, char *line, char text[MAPFILE_TEXT_BYTES])
{
    struct route_table *t = owner;
    size_t key_len = strcspn(line, " \t");
    char *right = line + key_len + strspn(line + key_len, " \t");
    if (key_len > 320)
        return refuse(text, "the address is longer than 320 bytes", line);
    line[key_len] = '\0';
    if (*right == '\0')
        return refuse(text, "no transport on the right side", line);
    char *end = right + strlen(right);
    while (end > right && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        *--end = '\0';
    for (char *c = line; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    struct route r;
    uint32_t index = 0;
    enum err e = parse_right(t, right, &r, text);
    if (e)
        return e;
    e = add_route(t, &r, &index);
    if (!e)
        e = keymap_add(&t->keys, line, (uint32_t)key_len, index, ROUTE_ENTRIES_MAX);
    if (e == ERR_EXISTS)
        return refuse(text, "listed twice", line);
    if (e == ERR_TOO_LARGE)
        return refuse(text, "more entries than the table may hold", line);
    return e;
}

static enum err read_map(struct route_table *t, const char *file, char text[ROUTE_TEXT_BYTES])
{
    const char *path = strncmp(file, "texthash:", 9) == 0 ? file + 9 : file;
    struct mapfile_reader reader = {.what = "transport_maps", .line_bytes_max = ROUTE_LINE_BYTES_MAX, .take = take_line,
                                    .owner = t};
    return mapfile_read(path, &reader, text);
}

static enum err set_defaults(struct route_table *t, const char *default_transport, const char *relayhost,
                             char text[ROUTE_TEXT_BYTES])
{
    char why[ROUTE_TEXT_BYTES];
    const char *name = "default_transport";
    enum err e = route_parse(*default_transport ? default_transport : "smtp", &t->standard, why);
    if (!e && *relayhost && t->standard.kind == ROUTE_SMTP && !t->standard.nexthop[0]) {
        name = "relayhost";
        char spec[ROUTE_NEXTHOP_BYTES + 8];
        snprintf(spec, sizeof spec, "smtp:%.255s", relayhost);
        e = route_parse(spec, &t->standard, why);
    }
    if (e == ERR_CONFIG)
        snprintf(text, ROUTE_TEXT_BYTES, "%s: %.400s", name, why);
    return e ? e : add_route(t, &t->standard, &t->otherwise);
}

enum err route_table_open(const char *default_transport, const char *relayhost, char *const *map_files,
                          uint32_t map_count, char text[ROUTE_TEXT_BYTES], struct route_table **table_out)
{
    text[0] = '\0';
    struct route_table *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NO_MEMORY;
    enum err e = set_defaults(t, default_transport, relayhost, text);
    for (uint32_t i = 0; i < map_count && !e; i++)
        e = read_map(t, map_files[i], text);
    if (e) {
        route_table_close(&t);
        return e;
    }
    *table_out = t;
    return ERR_OK;
}

void route_table_close(struct route_table **table)
{
    if (!*table)
        return;
    free((*table)->routes);
    keymap_free(&(*table)->keys);
    free(*table);
    *table = NULL;
}

uint32_t route_table_entries(const struct route_table *table)
{
    return table->keys.count;
}

const struct route *route_of(const struct route_table *t, const char *address, uint32_t len)
{
    uint32_t index = t->otherwise, domain_len;
    if (t->keys.count == 0 || len == 0 || len > 320)
        return &t->routes[index];
    char key[320];
    for (uint32_t i = 0; i < len; i++)
        key[i] = (char)tolower((unsigned char)address[i]);
    if (keymap_find(&t->keys, key, len, &index))
        return &t->routes[index];
    const char *domain = route_domain(key, len, &domain_len);
    for (uint32_t labels = 0; domain_len > 0 && labels < PARENTS_MAX; labels++) {
        if (keymap_find(&t->keys, domain, domain_len, &index))
            return &t->routes[index]; /* first "a.b.c", then ".b.c", ".c" */
        const char *dot = memchr(domain + 1, '.', domain_len - 1);
        domain_len = dot ? (uint32_t)(domain + domain_len - dot) : 0;
        domain = dot;
    }
    (void)keymap_find(&t->keys, "*", 1, &index);
    return &t->routes[index];
}
