/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's lists, and what must hold between its keys. Looks at the files it names, reads none. */
#include "alarm_url.h"
#include "config_keys.h"

#include <alias.h>
#include <route.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIST_MAX 4096u /* networks, and domains, each: beyond this a table is the right tool */

static enum err parse_network(const char *text, struct settings_network *n_out, char why[256])
{
    char address[64];
    struct settings_network n = {0};
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    bool bracket = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (len - (bracket ? 2 : 0) < sizeof address) {
        snprintf(address, sizeof address, "%.*s", (int)(len - (bracket ? 2 : 0)), text + bracket);
        n.family = inet_pton(AF_INET6, address, n.address) == 1 ? 6
                   : !bracket && inet_pton(AF_INET, address, n.address) == 1 ? 4 : 0;
    }
    unsigned most = n.family == 4 ? 32 : 128, prefix = most;
    if (n.family && slash) {
        char *end;
        unsigned long p = strtoul(slash + 1, &end, 10);
        if (!isdigit((unsigned char)slash[1]) || *end || p > most)
            n.family = 0;
        else
            prefix = (unsigned)p;
    }
    if (!n.family) {
        snprintf(why, 256, "\"%.100s\" is not a network (192.0.2.0/24, [2001:db8::]/32)", text);
        return ERR_CONFIG;
    }
    n.prefix = (uint8_t)prefix;
    for (unsigned bit = prefix; bit < most; bit++) {
        if (n.address[bit / 8] & (0x80u >> bit % 8)) {
            snprintf(why, 256, "\"%.100s\" has bits set beyond its prefix length", text);
            return ERR_CONFIG;
        }
    }
    *n_out = n;
    return ERR_OK;
}

static enum err add_network(struct config *c, const char *text, char why[256])
{
    struct settings *s = &c->settings;
    struct settings_network n;
    enum err e = parse_network(text, &n, why);
    if (e != ERR_OK)
        return e;
    for (uint32_t i = 0; i < s->mynetworks_count; i++)
        if (memcmp(&s->mynetworks[i], &n, sizeof n) == 0)
            return ERR_OK; /* the last value comes again when its list ends */
    void *more = reallocarray(s->mynetworks, s->mynetworks_count + 1u, sizeof n);
    if (!more)
        return ERR_NO_MEMORY;
    s->mynetworks = more;
    s->mynetworks[s->mynetworks_count++] = n;
    return ERR_OK;
}

/* A list of domains; NULL: the key is of another kind. */
struct domains { char ***row; uint32_t *count; };

static bool domains_of(struct config *c, const struct config_key *key, struct domains *d_out)
{
    struct settings *s = &c->settings;
    if (strcmp(key->name, "relay_domains") == 0)
        *d_out = (struct domains){&s->relay_domains, &s->relay_domains_count};
    else if (strcmp(key->name, "mydestination") == 0)
        *d_out = (struct domains){&s->mydestination, &s->mydestination_count};
    else
        return false;
    return true;
}

static enum err add_domain(const struct domains *d, const char *text, char why[256])
{
    size_t len = strlen(text);
    if (len > 255 || strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.[]:*") != len) {
        snprintf(why, 256, "\"%.100s\" is not a domain", text);
        return ERR_CONFIG;
    }
    for (uint32_t i = 0; i < *d->count; i++)
        if (strcasecmp((*d->row)[i], text) == 0)
            return ERR_OK; /* the last value comes again when its list ends */
    char *copy = strdup(text);
    void *more = reallocarray(*d->row, *d->count + 1u, sizeof **d->row);
    if (more)
        *d->row = more;
    if (!copy || !more) {
        free(copy);
        return ERR_NO_MEMORY;
    }
    for (char *p = copy; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    (*d->row)[(*d->count)++] = copy;
    return ERR_OK;
}

static struct config_maps *maps_of(struct config *c, const struct config_key *key)
{
    return strcmp(key->name, "alias_maps") == 0           ? &c->alias_maps
           : strcmp(key->name, "virtual_alias_maps") == 0 ? &c->virtual_alias_maps : &c->transport_maps;
}

/* CFG-5. errno tells why not. */
static bool may_use(const struct config *c, const char *path, int mode)
{
    return access(path, mode) == 0 || (c->look_only && (errno == EACCES || errno == EPERM));
}

static enum err add_map(const struct config *c, struct config_maps *maps, const char *text, char why[256])
{
    static const char *const types[] = {"texthash:", "hash:", "lmdb:", "file:", "btree:", "cdb:"};
    const char *path = text;
    for (unsigned i = 0; i < sizeof types / sizeof types[0]; i++) /* Postfix's: we read the text file they are made from */
        if (strncmp(text, types[i], strlen(types[i])) == 0)
            path = text + strlen(types[i]);
    for (uint32_t i = 0; i < maps->count; i++)
        if (strcmp(maps->files[i], path) == 0)
            return ERR_OK;
    if (path[0] != '/') {
        snprintf(why, 256, "\"%.100s\" is not an absolute path", text);
        return ERR_CONFIG;
    }
    if (!may_use(c, path, R_OK)) {
        snprintf(why, 256, "%.160s: %s", path, strerror(errno));
        return ERR_CONFIG;
    }
    if (maps->count == CONFIG_MAPS_MAX) {
        snprintf(why, 256, "more than %u tables", CONFIG_MAPS_MAX);
        return ERR_CONFIG;
    }
    char *copy = strdup(path);
    if (!copy)
        return ERR_NO_MEMORY;
    maps->files[maps->count++] = copy;
    return ERR_OK;
}

static enum err add_word(struct config *c, const struct config_key *key, const char *word, char why[256])
{
    struct domains d;
    if (strcmp(key->name, "mynetworks") == 0)
        return add_network(c, word, why);
    return domains_of(c, key, &d) ? add_domain(&d, word, why) : add_map(c, maps_of(c, key), word, why);
}

enum err config_add(struct config *c, const struct config_key *key, const char *value, char why[256])
{
    char row[4096], *state = NULL;
    const struct settings *s = &c->settings;
    if (strlen(value) >= sizeof row) {
        snprintf(why, 256, "is longer than %zu characters", sizeof row - 1);
        return ERR_CONFIG;
    }
    strcpy(row, value);
    for (char *word = strtok_r(row, ", \t\r\n", &state); word; word = strtok_r(NULL, ", \t\r\n", &state)) {
        enum err e = add_word(c, key, word, why);
        if (e != ERR_OK)
            return e;
        if (s->mynetworks_count > LIST_MAX || s->relay_domains_count > LIST_MAX || s->mydestination_count > LIST_MAX) {
            snprintf(why, 256, "more than %u entries", LIST_MAX);
            return ERR_CONFIG;
        }
    }
    return ERR_OK;
}

void config_clear(struct config *c, const struct config_key *key)
{
    struct domains d;
    struct config_maps *maps = maps_of(c, key);
    if (strcmp(key->name, "mynetworks") == 0) {
        c->settings.mynetworks_count = 0;
    } else if (domains_of(c, key, &d)) {
        while (*d.count > 0)
            free((*d.row)[--*d.count]);
    } else {
        while (maps->count > 0)
            free(maps->files[--maps->count]);
    }
}

/* --- between keys --- */

static enum err check_pool(const struct config *c, char why[512])
{
    const struct pool_config *p = &c->pool;
    if (p->member_count == 0) {
        snprintf(why, 512, "pool: no member is configured (pool { member \"a\" { path = \"...\" } })");
        return ERR_CONFIG;
    }
    uint32_t serve = 0;
    for (uint32_t i = 0; i < p->member_count; i++)
        serve += !p->members[i].spare;
    if (p->copies > serve) {
        snprintf(why, 512, "pool: copies = %u needs at least as many members%s, there are %u", p->copies,
                 serve < p->member_count ? " that are not spare" : "", serve);
        return ERR_CONFIG;
    }
    if (p->min_copies > p->copies) {
        snprintf(why, 512, "pool: min_copies = %u is more than copies = %u", p->min_copies, p->copies);
        return ERR_CONFIG;
    }
    for (uint32_t i = 0; i < p->member_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(p->members[i].path, p->members[j].path) == 0) {
                snprintf(why, 512, "pool: members \"%s\" and \"%s\" have one path, %s", p->members[j].name,
                         p->members[i].name, p->members[i].path);
                return ERR_CONFIG;
            }
        }
    }
    return ERR_OK;
}

static enum err check_address(const char *what, const struct config_listen *l, char why[512])
{
    uint8_t bytes[16];
    if (inet_pton(AF_INET, l->address, bytes) == 1 || inet_pton(AF_INET6, l->address, bytes) == 1)
        return ERR_OK;
    snprintf(why, 512, "%s: address: \"%s\" is not a numeric address", what, l->address);
    return ERR_CONFIG;
}

static enum err check_listens(const struct config *c, char why[512])
{
    char what[64];
    for (uint32_t i = 0; i < c->listen_count; i++) {
        snprintf(what, sizeof what, "listen \"%s\"", c->listens[i].name);
        enum err e = check_address(what, &c->listens[i], why);
        if (e != ERR_OK)
            return e;
        for (uint32_t j = 0; j < i; j++) {
            if (c->listens[i].port && c->listens[j].port == c->listens[i].port &&
                strcmp(c->listens[j].address, c->listens[i].address) == 0) {
                snprintf(why, 512, "%s: \"%s\" has this address and port already", what, c->listens[j].name);
                return ERR_CONFIG;
            }
        }
    }
    return c->http.port ? check_address("http", &c->http, why) : ERR_OK;
}

static enum err check_file(const struct config *c, const char *key, const char *path, char why[512])
{
    if (!path[0] || may_use(c, path, R_OK))
        return ERR_OK;
    snprintf(why, 512, "%s: %.256s: %s", key, path, strerror(errno));
    return ERR_CONFIG;
}

static enum err check_tls(const struct config *c, char why[512])
{
    const struct settings *s = &c->settings;
    if (strcmp(s->smtpd_tls_security_level, "none") != 0 && !s->smtpd_tls_cert_file[0]) {
        snprintf(why, 512, "smtpd_tls_security_level = \"%s\" needs smtpd_tls_cert_file", s->smtpd_tls_security_level);
        return ERR_CONFIG;
    }
    enum err e = check_file(c, "smtpd_tls_cert_file", s->smtpd_tls_cert_file, why);
    if (e == ERR_OK)
        e = check_file(c, "smtpd_tls_key_file", s->smtpd_tls_key_file, why);
    return e == ERR_OK ? check_file(c, "smtp_tls_ca_file", s->smtp_tls_ca_file, why) : e;
}

static enum err check_url(const char *key, const char *text, char why[512])
{
    struct alarm_url url;
    char what[256];
    if (!text[0] || alarm_url_parse(text, &url, what) == ERR_OK)
        return ERR_OK;
    snprintf(why, 512, "%s: \"%.200s\" %s", key, text, what);
    return ERR_CONFIG;
}

static enum err check_alarm(const struct config *c, char why[512])
{
    const struct config_alarm *a = &c->alarm;
    struct stat st;
    if (a->hook_program[0] && !may_use(c, a->hook_program, X_OK)) {
        snprintf(why, 512, "hook_program: %.256s: %s", a->hook_program, strerror(errno));
        return ERR_CONFIG;
    }
    if (a->hook_program[0] && stat(a->hook_program, &st) == 0 && !S_ISREG(st.st_mode)) {
        snprintf(why, 512, "hook_program: %.256s: not a program", a->hook_program);
        return ERR_CONFIG;
    }
    enum err e = check_url("webhook", a->webhook, why);
    if (e == ERR_OK)
        e = check_url("heartbeat_url", a->heartbeat_url, why);
    return e == ERR_OK ? check_file(c, "webhook_ca_file", a->webhook_ca_file, why) : e;
}

static enum err check_transport(const char *key, const char *transport, char why[512])
{
    struct route route;
    char text[ROUTE_TEXT_BYTES];
    enum err e = route_parse(transport, &route, text);
    if (e != ERR_OK)
        snprintf(why, 512, "%s: %.400s", key, text);
    return e;
}

static enum err check_settings(const struct config *c, char why[512])
{
    const struct settings *s = &c->settings;
    if (!s->hostname[0] || strspn(s->hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
                               strlen(s->hostname)) {
        snprintf(why, 512, "hostname: \"%.128s\" is not a host name", s->hostname);
        return ERR_CONFIG;
    }
    if (s->minimal_backoff_ms > s->maximal_backoff_ms) {
        snprintf(why, 512, "minimal_backoff_time is longer than maximal_backoff_time");
        return ERR_CONFIG;
    }
    if (s->initial_destination_concurrency > s->default_destination_concurrency_limit) {
        snprintf(why, 512, "initial_destination_concurrency is more than default_destination_concurrency_limit");
        return ERR_CONFIG;
    }
    char relayhost[sizeof s->relayhost + 8];
    snprintf(relayhost, sizeof relayhost, "smtp:%s", s->relayhost);
    enum err e = check_tls(c, why);
    if (e == ERR_OK)
        e = check_transport("default_transport", s->default_transport, why);
    return e == ERR_OK ? check_transport("relayhost", relayhost, why) : e;
}

enum err config_check(struct config *c, char why[512])
{
    c->io_engine = strcmp(c->io_engine_word, "uring") == 0 ? IO_ENGINE_URING
                   : strcmp(c->io_engine_word, "threads") == 0 ? IO_ENGINE_THREADS : IO_ENGINE_AUTO;
    enum err e = check_pool(c, why);
    if (e == ERR_OK)
        e = check_listens(c, why);
    if (e == ERR_OK)
        e = check_alarm(c, why);
    return e == ERR_OK ? check_settings(c, why) : e;
}

enum err config_open_tables(struct config *c, char text[CONFIG_TEXT_BYTES])
{
    char why[ROUTE_TEXT_BYTES];
    struct route_table *routes = NULL;
    struct alias_table *aliases = NULL;
    const struct alias_config ac = {
        .hostname = c->settings.hostname,
        .destinations = c->settings.mydestination, .destination_count = c->settings.mydestination_count,
        .alias_files = c->alias_maps.files, .alias_file_count = c->alias_maps.count,
        .virtual_files = c->virtual_alias_maps.files, .virtual_file_count = c->virtual_alias_maps.count,
    };
    enum err e = route_table_open(c->settings.default_transport, c->settings.relayhost, c->transport_maps.files,
                                  c->transport_maps.count, why, &routes);
    if (e == ERR_OK)
        e = alias_table_open(&ac, why, &aliases);
    c->settings.transports = routes;
    c->settings.aliases = aliases;
    if (e != ERR_OK)
        snprintf(text, CONFIG_TEXT_BYTES, "%s", e == ERR_CONFIG ? why : err_text(e));
    return e;
}

void config_close_tables(struct config *c)
{
    struct route_table *routes = c->settings.transports;
    struct alias_table *aliases = c->settings.aliases;
    route_table_close(&routes);
    alias_table_close(&aliases);
    c->settings.transports = c->settings.aliases = NULL;
}
