/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: reading it and naming what is wrong with it. The only door to libconfuse, which gives the
 * syntax; every value is taken as text and converted by config_keys.c while its line is still known (CFG-1).
 * libconfuse 3.3 counts the lines of comments twice and takes a section without its closing brace for complete:
 * comments are blanked and braces counted here, before it sees the file. */
#include "config_keys.h"

#include <base/assert.h>
#include <confuse.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SET_MAX 512u /* values of one file whose lines are remembered: 16 members and listeners, and every key */

/* libconfuse's callbacks carry no pointer of ours; parsing is not reentered (one thread, one file at a time). */
static struct parse {
    struct config *config;
    const char *name;
    char *text;
    bool http_seen;
    struct { const struct config_key *key; char title[32]; unsigned line; } set[SET_MAX]; /* where values came from */
    unsigned set_count;
} *g_parse;

static void say(unsigned line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(unsigned line, const char *format, ...)
{
    char what[512];
    va_list args;
    if (g_parse->text[0])
        return; /* the first error is the one to mend */
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (line)
        snprintf(g_parse->text, CONFIG_TEXT_BYTES, "%s:%u: %s", g_parse->name, line, what);
    else
        snprintf(g_parse->text, CONFIG_TEXT_BYTES, "%s: %s", g_parse->name, what);
}

static void remember(const struct config_key *key, const char *title, unsigned line)
{
    if (g_parse->set_count == SET_MAX)
        return; /* then the file is named without a line */
    unsigned n = g_parse->set_count++;
    g_parse->set[n].key = key;
    g_parse->set[n].line = line;
    snprintf(g_parse->set[n].title, sizeof g_parse->set[n].title, "%s", title);
}

static bool names(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        bool begins = at == text || !strchr("_abcdefghijklmnopqrstuvwxyz", at[-1]);
        if (begins && (!at[len] || !strchr("_abcdefghijklmnopqrstuvwxyz", at[len])))
            return true;
    }
    return false;
}

/* The line of what a check between keys complains about: the last value it names. 0: the file says none of it. */
static unsigned line_of(const char *why)
{
    char title[40];
    for (unsigned n = g_parse->set_count; n-- > 0;) {
        snprintf(title, sizeof title, "\"%s\"", g_parse->set[n].title);
        if (names(why, g_parse->set[n].key->name) && (!g_parse->set[n].title[0] || strstr(why, title)))
            return g_parse->set[n].line;
    }
    return 0;
}

static enum config_section section_of(cfg_t *cfg)
{
    static const struct { const char *name; enum config_section section; } sections[] = {
        {"pool", CONFIG_POOL}, {"member", CONFIG_MEMBER}, {"listen", CONFIG_LISTEN}, {"http", CONFIG_HTTP}};
    for (unsigned i = 0; i < sizeof sections / sizeof sections[0]; i++)
        if (strcmp(cfg_name(cfg), sections[i].name) == 0)
            return sections[i].section;
    return CONFIG_ROOT;
}

static const struct config_key *key_named(enum config_section section, const char *name)
{
    for (unsigned i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        bool here = key->section == section || (section == CONFIG_ROOT && key->section == CONFIG_SETTINGS);
        if (here && strcmp(key->name, name) == 0)
            return key;
    }
    return NULL;
}

static void say_unknown(cfg_t *cfg, const char *word)
{
    static const char *const places[] = {"the top level", "the top level", "pool { }", "member { }", "listen { }",
                                         "http { }"};
    enum config_section section = section_of(cfg);
    const char *nearest = config_nearest(section, word);
    if (nearest) {
        say((unsigned)cfg->line, "unknown key `%.64s`; did you mean `%s`?", word, nearest);
        return;
    }
    for (unsigned i = 0; i < config_key_count; i++) {
        if (strcmp(config_keys[i].name, word) == 0) {
            say((unsigned)cfg->line, "unknown key `%.64s` here; it belongs into %s", word,
                places[config_keys[i].section]);
            return;
        }
    }
    say((unsigned)cfg->line, "unknown key `%.64s`", word);
}

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
    char what[256];
    if (strcmp(format, "no such option '%s'") == 0) {
        va_list copy;
        va_copy(copy, args);
        say_unknown(cfg, va_arg(copy, const char *));
        va_end(copy);
        return;
    }
    vsnprintf(what, sizeof what, format, args);
    say((unsigned)cfg->line, "%s", what);
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    enum config_section section = section_of(cfg);
    const struct config_key *key = key_named(section, opt->name);
    const char *title = cfg_title(cfg);
    char why[256] = "";
    enum err e = ERR_OK;
    g_parse->http_seen = g_parse->http_seen || section == CONFIG_HTTP;
    ASSERT(key);
    unsigned count = cfg_opt_size(opt); /* a list comes each time it grows: the last value is the new one */
    if (count == 1 && key->kind == CONFIG_LIST)
        config_clear(g_parse->config, key); /* what the file says replaces the default */
    if (count > 0)
        e = config_set(g_parse->config, key, title ? title : "", cfg_opt_getnstr(opt, count - 1), why);
    remember(key, title ? title : "", (unsigned)cfg->line);
    if (e == ERR_OK)
        return 0;
    say((unsigned)cfg->line, "%s: %s", opt->name, e == ERR_NO_MEMORY ? err_text(e) : why);
    return -1;
}

/* A section ended: it may have had no keys at all. */
static int on_section(cfg_t *cfg, cfg_opt_t *opt)
{
    unsigned count = cfg_opt_size(opt);
    if (strcmp(opt->name, "http") == 0)
        g_parse->http_seen = true;
    if (count == 0 || !(opt->flags & CFGF_TITLE))
        return 0;
    const char *title = cfg_title(cfg_opt_getnsec(opt, count - 1));
    bool member = strcmp(opt->name, "member") == 0;
    if (!title || !title[0]) {
        say((unsigned)cfg->line, "%s: needs a name, as in %s \"a\" { ... }", opt->name, opt->name);
        return -1;
    }
    for (const char *t = title; member && *t; t++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *t)) {
            say((unsigned)cfg->line, "member: the name \"%.64s\" may hold letters, digits, `-`, `_` and `.` only", title);
            return -1;
        }
    }
    struct pool_member_config *m = config_object(g_parse->config, member ? CONFIG_MEMBER : CONFIG_LISTEN, title);
    if (!m) {
        say((unsigned)cfg->line, "%s: \"%.64s\" is one too many, or its name is too long", opt->name, title);
        return -1;
    }
    if (member && !m->path[0]) {
        say((unsigned)cfg->line, "member \"%s\": `path` is missing", title);
        return -1;
    }
    return 0;
}

/* --- the file's text --- */

static bool token_begins(const char *bytes, uint32_t at)
{
    return at == 0 || strchr(" \t\r\n={}(),\"'", bytes[at - 1]) != NULL;
}

static uint32_t blank_comment(char *bytes, uint32_t len, uint32_t at, unsigned *line)
{
    bool block = bytes[at] == '/' && bytes[at + 1] == '*';
    for (; at < len && (block || bytes[at] != '\n'); at++) {
        bool end = block && bytes[at] == '*' && at + 1 < len && bytes[at + 1] == '/';
        *line += bytes[at] == '\n';
        if (bytes[at] != '\n')
            bytes[at] = ' ';
        if (end) {
            bytes[at + 1] = ' ';
            return at + 1;
        }
    }
    return at - 1;
}

#define NESTING_MAX 8u

/* Blanks comments, counts braces. False when something was said. */
static bool prepare(char *bytes, uint32_t len)
{
    unsigned line = 1, depth = 0, opened[NESTING_MAX];
    for (uint32_t i = 0; i < len; i++) {
        char b = bytes[i], next = i + 1 < len ? bytes[i + 1] : '\0';
        if (b == '\n') {
            line++;
        } else if (b == '\0') {
            say(line, "a NUL byte: this is not a text file");
            return false;
        } else if (b == '"' || b == '\'') {
            unsigned began = line;
            i = config_skip_string(bytes, len, i, &line);
            if (i >= len) {
                say(began, "a string that begins here has no closing %c", b);
                return false;
            }
        } else if (token_begins(bytes, i) && (b == '#' || (b == '/' && (next == '/' || next == '*')))) {
            i = blank_comment(bytes, len, i, &line);
        } else if (b == '{') {
            if (depth == NESTING_MAX) {
                say(line, "sections are nested too deep");
                return false;
            }
            opened[depth++] = line;
        } else if (b == '}' && depth > 0) {
            depth--;
        }
    }
    if (depth > 0)
        say(opened[depth - 1], "`{` without its `}`");
    return depth == 0;
}

/* --- libconfuse's tables, made from ours --- */

#define KEYS_MAX 64u

struct tables { cfg_opt_t root[KEYS_MAX], pool[KEYS_MAX], member[KEYS_MAX], listen[KEYS_MAX], http[KEYS_MAX]; };

static unsigned fill(cfg_opt_t *opts, enum config_section section)
{
    unsigned n = 0;
    for (unsigned i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (key->section != section && !(section == CONFIG_ROOT && key->section == CONFIG_SETTINGS))
            continue;
        ASSERT(n + 4 < KEYS_MAX);
        cfg_opt_t one = CFG_STR(key->name, NULL, CFGF_NODEFAULT), list = CFG_STR_LIST(key->name, NULL, CFGF_NODEFAULT);
        opts[n] = key->kind == CONFIG_LIST ? list : one;
        opts[n++].validcb = on_value;
    }
    return n;
}

static void make_tables(struct tables *t)
{
    unsigned n = fill(t->member, CONFIG_MEMBER);
    t->member[n] = (cfg_opt_t)CFG_END();
    n = fill(t->listen, CONFIG_LISTEN);
    t->listen[n] = (cfg_opt_t)CFG_END();
    n = fill(t->http, CONFIG_HTTP);
    t->http[n] = (cfg_opt_t)CFG_END();
    n = fill(t->pool, CONFIG_POOL);
    t->pool[n] = (cfg_opt_t)CFG_SEC("member", t->member, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
    t->pool[n++].validcb = on_section;
    t->pool[n] = (cfg_opt_t)CFG_END();
    n = fill(t->root, CONFIG_ROOT);
    t->root[n] = (cfg_opt_t)CFG_SEC("pool", t->pool, CFGF_NODEFAULT);
    t->root[n++].validcb = on_section;
    t->root[n] = (cfg_opt_t)CFG_SEC("listen", t->listen, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
    t->root[n++].validcb = on_section;
    t->root[n] = (cfg_opt_t)CFG_SEC("http", t->http, CFGF_NODEFAULT);
    t->root[n++].validcb = on_section;
    t->root[n] = (cfg_opt_t)CFG_END();
}

/* `key = {}` calls nobody back. */
static void empty_lists(cfg_t *cfg)
{
    cfg_opt_t *o = cfg_getopt(cfg, "mynetworks");
    if (o && (o->flags & CFGF_MODIFIED) && cfg_opt_size(o) == 0)
        config_clear(g_parse->config, key_named(CONFIG_ROOT, "mynetworks"));
}

static enum err parse_prepared(char *bytes, uint32_t len)
{
    enum err e = ERR_NO_MEMORY;
    cfg_t *cfg = NULL;
    FILE *file = NULL;
    struct tables *tables = calloc(1, sizeof *tables);
    if (!tables)
        goto out;
    make_tables(tables);
    cfg = cfg_init(tables->root, CFGF_NONE);
    file = fmemopen(bytes, len, "r");
    if (!cfg || !file)
        goto out;
    cfg_set_error_function(cfg, on_error);
    cfg->filename = strdup(g_parse->name);
    e = cfg_parse_fp(cfg, file) == CFG_SUCCESS ? ERR_OK : ERR_CONFIG;
    if (e == ERR_OK)
        empty_lists(cfg);
    if (e != ERR_OK)
        say((unsigned)cfg->line, "cannot be read");
out:
    if (file)
        fclose(file);
    if (cfg)
        cfg_free(cfg);
    free(tables);
    return e;
}

static enum err set_all_defaults(struct config *c)
{
    static const enum config_section sections[] = {CONFIG_ROOT, CONFIG_SETTINGS, CONFIG_POOL, CONFIG_HTTP};
    c->settings.refs = 1;
    for (unsigned i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        enum err e = config_set_defaults(c, sections[i], "");
        if (e != ERR_OK)
            return e;
    }
    if (gethostname(c->settings.hostname, sizeof c->settings.hostname - 1) != 0)
        snprintf(c->settings.hostname, sizeof c->settings.hostname, "localhost");
    return ERR_OK;
}

static enum err parse_text(struct config *c, char *bytes, uint32_t len)
{
    enum err e = set_all_defaults(c);
    if (e != ERR_OK)
        return e;
    if (!prepare(bytes, len))
        return ERR_CONFIG;
    e = parse_prepared(bytes, len);
    if (e != ERR_OK)
        return e;
    struct config_twice twice;
    if (config_find_twice(bytes, len, &twice)) { /* CFG-4 */
        say(twice.line, "`%s` is set twice, here and in line %u: take one of the two out", twice.key, twice.first_line);
        return ERR_CONFIG;
    }
    if (!g_parse->http_seen)
        c->http.port = 0;
    char why[512];
    e = config_check(c, why);
    if (e != ERR_OK)
        say(e == ERR_CONFIG ? line_of(why) : 0, "%s", e == ERR_CONFIG ? why : err_text(e));
    return e;
}

struct source { const char *name, *bytes; uint32_t len; bool look_only; };

static enum err parse_source(const struct source *from, struct config **config_out, char text[CONFIG_TEXT_BYTES])
{
    enum err e = ERR_NO_MEMORY;
    const char *name = from->name;
    uint32_t len = from->len;
    struct config *c = calloc(1, sizeof *c);
    char *copy = malloc((size_t)len + 2);
    text[0] = '\0';
    if (c && copy) {
        memcpy(copy, from->bytes, len);
        copy[len] = '\n'; /* so that a comment may end the file */
        snprintf(c->file, sizeof c->file, "%s", name);
        c->look_only = from->look_only;
        struct parse p = {.config = c, .name = name, .text = text};
        g_parse = &p;
        e = parse_text(c, copy, len + 1);
        g_parse = NULL;
    }
    free(copy);
    if (e == ERR_OK) {
        *config_out = c;
        return ERR_OK;
    }
    if (!text[0])
        snprintf(text, CONFIG_TEXT_BYTES, "%s: %s", name, err_text(e));
    config_free(&c);
    return e;
}

enum err config_parse(const char *name, const char *bytes, uint32_t len, struct config **config_out,
                      char text[CONFIG_TEXT_BYTES])
{
    return parse_source(&(struct source){.name = name, .bytes = bytes, .len = len}, config_out, text);
}

static enum err load(const char *path, bool look_only, struct config **config_out, char text[CONFIG_TEXT_BYTES])
{
    FILE *file = fopen(path, "re");
    if (!file) {
        enum err e = errno == ENOENT ? ERR_NOT_FOUND : errno == EACCES ? ERR_DENIED : ERR_SYSTEM;
        snprintf(text, CONFIG_TEXT_BYTES, "%s: %s", path, strerror(errno));
        return e;
    }
    enum err e = ERR_NO_MEMORY;
    char *bytes = malloc(CONFIG_FILE_BYTES_MAX);
    if (bytes) {
        size_t len = fread(bytes, 1, CONFIG_FILE_BYTES_MAX, file);
        e = ferror(file) ? ERR_SYSTEM : len == CONFIG_FILE_BYTES_MAX ? ERR_TOO_LARGE : ERR_OK;
        if (e == ERR_OK)
            e = parse_source(&(struct source){path, bytes, (uint32_t)len, look_only}, config_out, text);
        else
            snprintf(text, CONFIG_TEXT_BYTES, "%s: %s", path, e == ERR_SYSTEM ? strerror(errno) : err_text(e));
    } else {
        snprintf(text, CONFIG_TEXT_BYTES, "%s: %s", path, err_text(e));
    }
    free(bytes);
    fclose(file);
    return e;
}

enum err config_load(const char *path, struct config **config_out, char text[CONFIG_TEXT_BYTES])
{
    return load(path, false, config_out, text);
}

enum err config_load_to_look(const char *path, struct config **config_out, char text[CONFIG_TEXT_BYTES])
{
    return load(path, true, config_out, text);
}

void config_free(struct config **config)
{
    struct config *c = *config;
    *config = NULL;
    if (!c)
        return;
    for (unsigned i = 0; i < config_key_count; i++)
        if (config_keys[i].kind == CONFIG_LIST)
            config_clear(c, &config_keys[i]);
    config_close_tables(c);
    free(c->settings.relay_domains);
    free(c->settings.mydestination);
    free(c->settings.mynetworks);
    free(c);
}

const char *config_default_path(void)
{
    const char *path = getenv(CONFIG_PATH_VARIABLE);
    return path && path[0] ? path : CONFIG_PATH_DEFAULT;
}

bool config_spool_differs(const struct config *now, const struct config *next)
{
    return memcmp(&now->pool, &next->pool, sizeof now->pool) != 0 || now->io_engine != next->io_engine ||
           now->fault_injection != next->fault_injection ||
           strcmp(now->state_directory, next->state_directory) != 0;
}
