/* SPDX-License-Identifier: Apache-2.0 */
/* The table of keys, and how one value becomes what the parts take. Pure: opens no file.
 * Names and defaults are Postfix's where the meaning is the same. Read config.c for the file's syntax. */
#include "config_keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT(field) offsetof(struct config, field), sizeof(((struct config *)0)->field)
#define SETTING(field) offsetof(struct settings, field), sizeof(((struct settings *)0)->field)
#define POOL(field) offsetof(struct pool_config, field), sizeof(((struct pool_config *)0)->field)
#define MEMBER(field) offsetof(struct pool_member_config, field), sizeof(((struct pool_member_config *)0)->field)
#define LISTEN(field) offsetof(struct config_listen, field), sizeof(((struct config_listen *)0)->field)

#define DAY_S (24u * 3600u)
#define DAY_MS (UINT64_C(1000) * DAY_S)
#define S_NS UINT64_C(1000000000)

const struct config_key config_keys[] = {
    {CONFIG_ROOT, "state_directory", CONFIG_PATH, ROOT(state_directory), 0, 0, NULL, "/var/lib/ironspool"},
    {CONFIG_ROOT, "control_socket", CONFIG_PATH, ROOT(control_socket), 0, 0, NULL, "/run/ironspool/control.sock"},
    {CONFIG_ROOT, "user", CONFIG_TEXT, ROOT(user), 0, 0, NULL, "ironspool"},
    {CONFIG_ROOT, "group", CONFIG_TEXT, ROOT(group), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "log_file", CONFIG_PATH, ROOT(log_file), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "shutdown_grace", CONFIG_TIME_MS, ROOT(shutdown_grace_ms), 0, 600000, NULL, "10s"},
    {CONFIG_ROOT, "fault_injection", CONFIG_BOOL, ROOT(fault_injection), 0, 0, NULL, "no"},
    {CONFIG_ROOT, "sandbox", CONFIG_BOOL, ROOT(sandbox), 0, 0, NULL, "yes"},
    {CONFIG_ROOT, "alarm_repeat", CONFIG_TIME_MS, ROOT(alarm.repeat_ms), 1000, 30 * DAY_MS, NULL, "4h"},
    {CONFIG_ROOT, "queue_delay_alarm", CONFIG_TIME_MS, ROOT(alarm.delay_ms), 1000, 30 * DAY_MS, NULL, "1h"},
    {CONFIG_ROOT, "hook_program", CONFIG_PATH, ROOT(alarm.hook_program), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "hook_timeout", CONFIG_TIME_MS, ROOT(alarm.hook_timeout_ms), 1000, 3600000, NULL, "30s"},
    {CONFIG_ROOT, "webhook", CONFIG_TEXT, ROOT(alarm.webhook), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "webhook_ca_file", CONFIG_PATH, ROOT(alarm.webhook_ca_file), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "heartbeat_url", CONFIG_TEXT, ROOT(alarm.heartbeat_url), 0, 0, NULL, NULL},
    {CONFIG_ROOT, "heartbeat_hook", CONFIG_BOOL, ROOT(alarm.heartbeat_hook), 0, 0, NULL, "no"},
    {CONFIG_ROOT, "heartbeat_interval", CONFIG_TIME_MS, ROOT(alarm.heartbeat_ms), 1000, DAY_MS, NULL, "1m"},
    {CONFIG_ROOT, "smartctl", CONFIG_PATH, ROOT(alarm.smartctl), 0, 0, NULL, "/usr/sbin/smartctl"},
    {CONFIG_ROOT, "smart_interval", CONFIG_TIME_MS, ROOT(alarm.smart_interval_ms), 1000, 30 * DAY_MS, NULL, "1h"},
    {CONFIG_ROOT, "transport_maps", CONFIG_LIST, 0, 0, 0, 0, NULL, NULL},
    {CONFIG_ROOT, "alias_maps", CONFIG_LIST, 0, 0, 0, 0, NULL, NULL},
    {CONFIG_ROOT, "virtual_alias_maps", CONFIG_LIST, 0, 0, 0, 0, NULL, NULL},

    {CONFIG_SETTINGS, "hostname", CONFIG_TEXT, SETTING(hostname), 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "mail_name", CONFIG_TEXT, SETTING(mail_name), 0, 0, NULL, "Ironspool"},
    {CONFIG_SETTINGS, "syslog_name", CONFIG_TEXT, SETTING(syslog_name), 0, 0, NULL, "ironspool"},
    {CONFIG_SETTINGS, "mynetworks", CONFIG_LIST, 0, 0, 0, 0, NULL, "127.0.0.0/8 [::1]/128"},
    {CONFIG_SETTINGS, "relay_domains", CONFIG_LIST, 0, 0, 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "mydestination", CONFIG_LIST, 0, 0, 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "message_size_limit", CONFIG_BYTES, SETTING(message_size_limit), 1024, MESSAGE_BYTES_MAX, NULL,
     "10240000"},
    {CONFIG_SETTINGS, "smtpd_recipient_limit", CONFIG_NUMBER, SETTING(smtpd_recipient_limit), 1,
     RECIPIENTS_PER_MESSAGE_MAX, NULL, "1000"},
    {CONFIG_SETTINGS, "hopcount_limit", CONFIG_NUMBER, SETTING(hopcount_limit), 1, 1000, NULL, "50"},
    {CONFIG_SETTINGS, "header_size_limit", CONFIG_BYTES32, SETTING(header_size_limit), 1024, 16 * MIB, NULL, "102400"},
    {CONFIG_SETTINGS, "line_length_limit", CONFIG_BYTES32, SETTING(line_length_limit), 998, 16 * MIB, NULL, "65536"},
    {CONFIG_SETTINGS, "smtpd_timeout", CONFIG_TIME_S, SETTING(smtpd_timeout_s), 1, DAY_S, NULL, "300s"},
    {CONFIG_SETTINGS, "smtpd_hard_error_limit", CONFIG_NUMBER, SETTING(smtpd_hard_error_limit), 1, 10000, NULL, "20"},
    {CONFIG_SETTINGS, "smtpd_client_connection_count_limit", CONFIG_NUMBER,
     SETTING(smtpd_client_connection_count_limit), 0, 100000, NULL, "50"},
    {CONFIG_SETTINGS, "sessions_max", CONFIG_NUMBER, SETTING(sessions_max), 1, 100000, NULL, "1000"},
    {CONFIG_SETTINGS, "smtpd_min_data_rate", CONFIG_BYTES32, SETTING(smtpd_min_data_rate), 0, GIB, NULL, "500"},
    {CONFIG_SETTINGS, "smtpd_tls_security_level", CONFIG_WORD, SETTING(smtpd_tls_security_level), 0, 0,
     "none|may|encrypt", "none"},
    {CONFIG_SETTINGS, "smtpd_tls_cert_file", CONFIG_PATH, SETTING(smtpd_tls_cert_file), 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "smtpd_tls_key_file", CONFIG_PATH, SETTING(smtpd_tls_key_file), 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "relayhost", CONFIG_TEXT, SETTING(relayhost), 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "default_transport", CONFIG_TEXT, SETTING(default_transport), 0, 0, NULL, "smtp"},
    {CONFIG_SETTINGS, "smtp_tls_security_level", CONFIG_WORD, SETTING(smtp_tls_security_level), 0, 0,
     "none|may|encrypt|verify", "may"},
    {CONFIG_SETTINGS, "smtp_tls_ca_file", CONFIG_PATH, SETTING(smtp_tls_ca_file), 0, 0, NULL, NULL},
    {CONFIG_SETTINGS, "default_destination_concurrency_limit", CONFIG_NUMBER,
     SETTING(default_destination_concurrency_limit), 1, 10000, NULL, "20"},
    {CONFIG_SETTINGS, "initial_destination_concurrency", CONFIG_NUMBER, SETTING(initial_destination_concurrency), 1,
     10000, NULL, "5"},
    {CONFIG_SETTINGS, "default_destination_recipient_limit", CONFIG_NUMBER,
     SETTING(default_destination_recipient_limit), 1, RECIPIENTS_PER_MESSAGE_MAX, NULL, "50"},
    {CONFIG_SETTINGS, "minimal_backoff_time", CONFIG_TIME_MS, SETTING(minimal_backoff_ms), 100, DAY_MS, NULL, "300s"},
    {CONFIG_SETTINGS, "maximal_backoff_time", CONFIG_TIME_MS, SETTING(maximal_backoff_ms), 100, 30 * DAY_MS, NULL,
     "4000s"},
    {CONFIG_SETTINGS, "maximal_queue_lifetime", CONFIG_TIME_MS, SETTING(maximal_queue_lifetime_ms), 0, 365 * DAY_MS,
     NULL, "5d"},
    {CONFIG_SETTINGS, "bounce_queue_lifetime", CONFIG_TIME_MS, SETTING(bounce_queue_lifetime_ms), 0, 365 * DAY_MS, NULL,
     "5d"},
    {CONFIG_SETTINGS, "smtp_connect_timeout", CONFIG_TIME_S, SETTING(smtp_connect_timeout_s), 1, 3600, NULL, "30s"},
    {CONFIG_SETTINGS, "deliveries_max", CONFIG_NUMBER, SETTING(deliveries_max), 1, 100000, NULL, "400"},
    {CONFIG_SETTINGS, "fresh_bytes_max", CONFIG_BYTES, SETTING(fresh_bytes_max), 0, 64 * GIB, NULL, "16M"},

    {CONFIG_POOL, "copies", CONFIG_NUMBER, POOL(copies), 1, COPIES_MAX, NULL, "2"},
    {CONFIG_POOL, "min_copies", CONFIG_NUMBER, POOL(min_copies), 1, COPIES_MAX, NULL, "1"},
    {CONFIG_POOL, "io_engine", CONFIG_WORD, 0, 0, 0, 0, "auto|uring|threads", "auto"},
    {CONFIG_POOL, "scrub_interval", CONFIG_TIME_NS, POOL(scrub_interval_ns), 60 * S_NS, 365 * DAY_S * S_NS, NULL, "24h"},
    {CONFIG_POOL, "degrade_after", CONFIG_TIME_NS, POOL(degrade_after_ns), S_NS / 10, 600 * S_NS, NULL, "2s"},
    {CONFIG_POOL, "absent_wait", CONFIG_TIME_NS, POOL(absent_wait_ns), 0, 7 * DAY_S * S_NS, NULL, "10m"},
    {CONFIG_POOL, "index_lag_limit", CONFIG_BYTES, POOL(index_lag_limit), MIB, 1024 * GIB, NULL, "512M"},
    {CONFIG_POOL, "spare_after", CONFIG_TIME_NS, POOL(spare_after_ns), S_NS, 7 * DAY_S * S_NS, NULL, "60s"},
    {CONFIG_POOL, "share_disk", CONFIG_BOOL, POOL(share_disk), 0, 0, NULL, "no"},

    {CONFIG_MEMBER, "path", CONFIG_PATH, MEMBER(path), 0, 0, NULL, NULL},
    {CONFIG_MEMBER, "smart_device", CONFIG_PATH, 0, sizeof(((struct config_smart *)0)->device), 0, 0, NULL, NULL},
    {CONFIG_MEMBER, "smart_type", CONFIG_TEXT, 0, sizeof(((struct config_smart *)0)->type), 0, 0, NULL, NULL},
    {CONFIG_MEMBER, "failure_domain", CONFIG_TEXT, MEMBER(domain), 0, 0, NULL, NULL},
    {CONFIG_MEMBER, "spare", CONFIG_BOOL, MEMBER(spare), 0, 0, NULL, "no"},

    {CONFIG_LISTEN, "address", CONFIG_TEXT, LISTEN(address), 0, 0, NULL, "0.0.0.0"},
    {CONFIG_LISTEN, "port", CONFIG_NUMBER, LISTEN(port), 0, 65535, NULL, "25"},

    {CONFIG_HTTP, "address", CONFIG_TEXT, LISTEN(address), 0, 0, NULL, "127.0.0.1"},
    {CONFIG_HTTP, "port", CONFIG_NUMBER, LISTEN(port), 0, 65535, NULL, "8025"},
};
const unsigned config_key_count = sizeof config_keys / sizeof config_keys[0];

/* --- where values go --- */

static struct pool_member_config *member_named(struct config *c, const char *title)
{
    for (uint32_t i = 0; i < c->pool.member_count; i++)
        if (strcmp(c->pool.members[i].name, title) == 0)
            return &c->pool.members[i];
    if (c->pool.member_count == MEMBERS_MAX || strlen(title) >= MEMBER_NAME_BYTES)
        return NULL;
    struct pool_member_config *m = &c->pool.members[c->pool.member_count++];
    snprintf(m->name, sizeof m->name, "%s", title);
    return m;
}

static struct config_listen *listen_named(struct config *c, const char *title)
{
    for (uint32_t i = 0; i < c->listen_count; i++)
        if (strcmp(c->listens[i].name, title) == 0)
            return &c->listens[i];
    if (c->listen_count == CONFIG_LISTENS_MAX || strlen(title) >= sizeof c->listens[0].name)
        return NULL;
    struct config_listen *l = &c->listens[c->listen_count++];
    snprintf(l->name, sizeof l->name, "%s", title);
    snprintf(l->address, sizeof l->address, "0.0.0.0");
    l->port = 25;
    return l;
}

void *config_object(struct config *c, enum config_section section, const char *title)
{
    switch (section) {
    case CONFIG_ROOT: return c;
    case CONFIG_SETTINGS: return &c->settings;
    case CONFIG_POOL: return &c->pool;
    case CONFIG_MEMBER: return member_named(c, title);
    case CONFIG_LISTEN: return listen_named(c, title);
    case CONFIG_HTTP: return &c->http;
    }
    return NULL;
}

/* --- one value --- */

static enum err set_text(const struct config_key *key, const char *value, char *to, char why[256])
{
    if (strlen(value) >= key->size) {
        snprintf(why, 256, "is longer than %zu characters", key->size - 1);
        return ERR_CONFIG;
    }
    if (key->kind == CONFIG_PATH && value[0] && value[0] != '/') {
        snprintf(why, 256, "\"%.128s\" is not an absolute path", value);
        return ERR_CONFIG;
    }
    snprintf(to, key->size, "%s", value);
    return ERR_OK;
}

static enum err set_word(const struct config_key *key, const char *value, char why[256])
{
    size_t len = strlen(value);
    for (const char *w = key->words; w && len > 0; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
        if (strncmp(w, value, len) == 0 && (w[len] == '|' || w[len] == '\0'))
            return ERR_OK;
    snprintf(why, 256, "\"%.64s\" is not one of %s", value, key->words);
    return ERR_CONFIG;
}

static enum err set_bool(const char *value, bool *to, char why[256])
{
    static const char *const yes[] = {"yes", "true", "on"}, *const no[] = {"no", "false", "off"};
    for (int i = 0; i < 3; i++) {
        if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
            *to = strcasecmp(value, yes[i]) == 0;
            return ERR_OK;
        }
    }
    snprintf(why, 256, "\"%.64s\" is neither yes nor no", value);
    return ERR_CONFIG;
}

/* A decimal number with at most one suffix out of `suffixes`, whose factors are `factors`. */
static enum err scaled(const char *value, const char *suffixes, const uint64_t *factors, uint64_t bare, uint64_t *out)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)value[0]))
        return ERR_CONFIG;
    unsigned long long n = strtoull(value, &end, 10);
    uint64_t factor = bare, product;
    if (*end) {
        const char *at = strchr(suffixes, *end);
        if (!at || end[1])
            return ERR_CONFIG;
        factor = factors[at - suffixes];
    }
    if (errno || __builtin_mul_overflow((uint64_t)n, factor, &product))
        return ERR_CONFIG;
    *out = product;
    return ERR_OK;
}

static enum err scaled_time(const char *value, uint64_t unit_per_s, uint64_t *out)
{
    uint64_t ms;
    const char *end = value + strspn(value, "0123456789");
    if (strcmp(end, "ms") == 0 && end > value && unit_per_s >= 1000) {
        char digits[24];
        snprintf(digits, sizeof digits, "%.*s", (int)(end - value < 20 ? end - value : 20), value);
        if (scaled(digits, "", NULL, 1, &ms) != ERR_OK || ms > UINT64_MAX / unit_per_s)
            return ERR_CONFIG;
        *out = ms * (unit_per_s / 1000);
        return ERR_OK;
    }
    uint64_t factors[] = {unit_per_s, unit_per_s * 60, unit_per_s * 3600, unit_per_s * DAY_S, unit_per_s * DAY_S * 7};
    return scaled(value, "smhdw", factors, unit_per_s, out);
}

static enum err set_number(const struct config_key *key, const char *value, void *to, char why[256])
{
    static const uint64_t sizes[] = {KIB, KIB, MIB, MIB, GIB, GIB, GIB * 1024, GIB * 1024};
    enum config_kind k = key->kind;
    bool wide = k == CONFIG_BYTES || k == CONFIG_TIME_MS || k == CONFIG_TIME_NS;
    bool bytes = k == CONFIG_BYTES || k == CONFIG_BYTES32;
    uint64_t n, unit = k == CONFIG_TIME_NS ? S_NS : k == CONFIG_TIME_MS ? 1000 : 1;
    enum err e = bytes ? scaled(value, "KkMmGgTt", sizes, 1, &n)
                 : k == CONFIG_NUMBER ? scaled(value, "", NULL, 1, &n) : scaled_time(value, unit, &n);
    if (e != ERR_OK) {
        snprintf(why, 256, "\"%.64s\" is not a %s", value,
                 bytes ? "size (a number with K, M, G or T)"
                 : k == CONFIG_NUMBER ? "number" : "time (a number with s, m, h or d)");
        return e;
    }
    if (n < key->least || n > key->most) {
        snprintf(why, 256, "%.64s is outside %llu to %llu%s", value, (unsigned long long)(key->least / unit),
                 (unsigned long long)(key->most / unit), bytes ? " bytes" : k == CONFIG_NUMBER ? "" : " seconds");
        return ERR_CONFIG;
    }
    if (wide)
        *(uint64_t *)to = n;
    else
        *(uint32_t *)to = (uint32_t)n;
    return ERR_OK;
}

/* What is none of the pool's business lives outside struct pool_config. */
static void *key_target(struct config *c, const struct config_key *key, void *object)
{
    if (key->section == CONFIG_MEMBER && strncmp(key->name, "smart_", 6) == 0) {
        struct config_smart *smart = &c->smart[(struct pool_member_config *)object - c->pool.members];
        return strcmp(key->name, "smart_device") == 0 ? smart->device : smart->type;
    }
    if (key->section == CONFIG_POOL && strcmp(key->name, "io_engine") == 0)
        return c->io_engine_word;
    return (char *)object + key->offset;
}

enum err config_set(struct config *c, const struct config_key *key, const char *title, const char *value,
                    char why[256])
{
    void *object = config_object(c, key->section, title);
    if (!object) {
        snprintf(why, 256, "too many sections of this kind, or a title that is too long");
        return ERR_CONFIG;
    }
    void *to = key_target(c, key, object);
    enum err e;
    switch (key->kind) {
    case CONFIG_TEXT:
    case CONFIG_PATH: return set_text(key, value, to, why);
    case CONFIG_WORD:
        if ((e = set_word(key, value, why)) == ERR_OK)
            memcpy(to, value, strlen(value) + 1); /* every word is shorter than its 16 bytes */
        return e;
    case CONFIG_BOOL: return set_bool(value, to, why);
    case CONFIG_LIST: return config_add(c, key, value, why);
    default: return set_number(key, value, to, why);
    }
}

enum err config_set_defaults(struct config *c, enum config_section section, const char *title)
{
    char why[256];
    for (unsigned i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (key->section != section || !key->fallback)
            continue;
        enum err e = config_set(c, key, title, key->fallback, why);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

/* --- did you mean --- */

#define WORD_MAX 48u

/* Edits (insert, delete, replace, swap neighbours) between two words. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX;
    for (unsigned j = 0; j <= m; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned *row = rows[i % 3], *up = rows[(i - 1) % 3], *upup = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            unsigned best = up[j - 1] + (a[i - 1] != b[j - 1]);
            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && upup[j - 2] + 1 < best)
                best = upup[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *config_nearest(enum config_section section, const char *word)
{
    static const char *const sections[] = {"pool", "listen", "http"};
    const char *best = NULL;
    unsigned least = (unsigned)strlen(word) / 3 + 1, d;
    bool root = section == CONFIG_ROOT || section == CONFIG_SETTINGS;
    for (unsigned i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        bool here = root ? key->section == CONFIG_ROOT || key->section == CONFIG_SETTINGS : key->section == section;
        if (here && (d = distance(word, key->name)) <= least) {
            best = key->name;
            least = d - (d > 0);
        }
    }
    for (unsigned i = 0; root && i < 3; i++)
        if (distance(word, sections[i]) <= least && distance(word, sections[i]) <= 2)
            best = sections[i];
    if (section == CONFIG_POOL && !best && distance(word, "member") <= 2)
        best = "member";
    return best;
}
