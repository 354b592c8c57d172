/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the alias tables in memory: keys in two keymaps, lists of targets in one row, their text in another. The left
 * sides are parsed here, the right sides in alias_parse.c. See alias.h. */
#include "alias.h"

#include "address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- keys --- */

static bool in_quotes(const char *local, uint32_t len)
{
    return len >= 2 && local[0] == '"' && local[len - 1] == '"';
}

/* ALI-3 */
static uint32_t fold_local(const char *local, uint32_t len, char *to)
{
    uint32_t used = 0;
    bool quoted = in_quotes(local, len);
    for (uint32_t i = quoted, end = len - quoted; i < end; i++) {
        i += quoted && local[i] == '\\' && i + 1 < end;
        to[used++] = local[i];
    }
    address_lower(to, used);
    return used;
}

/* Where the domain's '@' is; len: there is none. */
static uint32_t at_sign(const char *address, uint32_t len)
{
    const char *at = len ? memrchr(address, '@', len) : NULL;
    if (!at || memchr(at, '"', (size_t)(address + len - at)))
        return len;
    return (uint32_t)(at - address);
}

uint32_t alias_key(const struct alias_table *t, const char *address, uint32_t len, char key[ALIAS_KEY_BYTES])
{
    if (len == 0 || len > ADDRESS_BYTES_MAX)
        return 0;
    uint32_t at = at_sign(address, len), used = fold_local(address, at, key);
    const char *domain = at < len ? address + at + 1 : t->hostname;
    uint32_t domain_len = at < len ? len - at - 1 : (uint32_t)strlen(t->hostname);
    key[used++] = '@';
    memcpy(key + used, domain, domain_len);
    address_lower(key + used, domain_len);
    return used + domain_len;
}

/* --- asking --- */

static bool is_local(const struct alias_table *t, const char *domain, uint32_t len)
{
    for (uint32_t i = 0; i < t->destination_count; i++)
        if (address_domain_matches(domain, len, t->destinations[i]))
            return true;
    return t->names.count > 0 && (address_domain_matches(domain, len, t->hostname) ||
                                  (t->destination_count == 0 && address_domain_matches(domain, len, "localhost")));
}

const struct alias_list *alias_find(const struct alias_table *t, const char *key, uint32_t len, struct alias_name *name_out)
{
    const char *at = memrchr(key, '@', len);
    uint32_t local_len = (uint32_t)(at - key), index;
    bool local = is_local(t, at + 1, len - local_len - 1);
    *name_out = (struct alias_name){key, 0};
    if (keymap_find(&t->virtuals, key, len, &index) || (local && keymap_find(&t->virtuals, key, local_len, &index)) ||
        keymap_find(&t->virtuals, at, len - local_len, &index))
        return &t->lists[index];
    if (!local || !keymap_find(&t->names, key, local_len, &index))
        return NULL;
    name_out->len = local_len;
    return &t->lists[index];
}

bool alias_has_owner(const struct alias_table *t, struct alias_name name)
{
    char key[ALIAS_KEY_BYTES + 6] = "owner-";
    uint32_t index;
    if (name.len == 0 || (name.len >= 6 && memcmp(name.at, key, 6) == 0))
        return false;
    memcpy(key + 6, name.at, name.len);
    return keymap_find(&t->names, key, name.len + 6, &index);
}

enum alias_verdict alias_verdict(const struct alias_table *t, const char *address, uint32_t len)
{
    char key[ALIAS_KEY_BYTES];
    struct alias_name name;
    uint32_t index, key_len = alias_key(t, address, len, key);
    if (key_len == 0)
        return ALIAS_NOT_OURS;
    if (alias_find(t, key, key_len, &name))
        return ALIAS_LISTED;
    const char *domain = (const char *)memrchr(key, '@', key_len) + 1;
    uint32_t domain_len = key_len - (uint32_t)(domain - key);
    if (is_local(t, domain, domain_len))
        return ALIAS_LOCAL;
    return keymap_find(&t->virtuals, domain, domain_len, &index) ? ALIAS_UNKNOWN : ALIAS_NOT_OURS;
}

/* --- the files --- */

struct filling { struct alias_table *table; struct keymap *keys; enum alias_side side; };

static enum err refuse(char why[MAPFILE_TEXT_BYTES], const char *what, const char *name)
{
    snprintf(why, MAPFILE_TEXT_BYTES, "%.200s: \"%.100s\"", what, name);
    return ERR_CONFIG;
}

static enum err add_list(struct filling *f, const char *name, const char *key, uint32_t len, char *right,
                         char why[MAPFILE_TEXT_BYTES])
{
    struct alias_table *t = f->table;
    enum err e = keymap_add(f->keys, key, len, t->list_count, ALIAS_ENTRIES_MAX);
    if (e == ERR_EXISTS)
        return refuse(why, "listed twice", name);
    if (e == ERR_TOO_LARGE)
        return refuse(why, "more names than alias tables may hold", name);
    if (!e && t->list_count == t->list_capacity) {
        uint32_t capacity = t->list_capacity ? t->list_capacity * 2 : 64;
        struct alias_list *grown = reallocarray(t->lists, capacity, sizeof *grown);
        if (!grown)
            return ERR_NO_MEMORY;
        t->lists = grown;
        t->list_capacity = capacity;
    }
    if (e)
        return e;
    t->lists[t->list_count++] = (struct alias_list){t->target_count, 0};
    e = alias_parse_targets(t, f->side, right, why);
    if (!e && t->lists[t->list_count - 1].count == 0)
        return refuse(why, "no target on the right side", name);
    return e;
}

/* "name: target, target" */
static enum err take_alias(void *owner, char *line, char why[MAPFILE_TEXT_BYTES])
{
    char name[ALIAS_KEY_BYTES], key[ALIAS_KEY_BYTES];
    char *right = alias_parse_name(line, ":", name);
    if (!right || *right != ':')
        return refuse(why, "not \"name: target, ...\", or a name of more than 320 bytes", line);
    uint32_t len = (uint32_t)strlen(name);
    if (at_sign(name, len) < len)
        return refuse(why, "the left side is a name without a domain; whole addresses belong into virtual_alias_maps", name);
    len = fold_local(name, len, key);
    return len ? add_list(owner, name, key, len, right + 1, why) : refuse(why, "an empty name", name);
}

/* "user@domain target, ...", "user ...", "@domain ...", "domain anything" */
static enum err take_virtual(void *owner, char *line, char why[MAPFILE_TEXT_BYTES])
{
    struct filling *f = owner;
    char name[ALIAS_KEY_BYTES], key[ALIAS_KEY_BYTES];
    char *right = alias_parse_name(line, " \t", name);
    if (!right)
        return refuse(why, "an open quote, or an address of more than 320 bytes", line);
    uint32_t len = (uint32_t)strlen(name), at = at_sign(name, len);
    if (at + 1 == len)
        return refuse(why, "no domain behind the @", name);
    len = at < len ? alias_key(f->table, name, len, key) : fold_local(name, len, key);
    return len ? add_list(f, name, key, len, right, why) : refuse(why, "an empty name", name);
}

static enum err read_files(struct alias_table *t, const struct alias_config *c, char text[MAPFILE_TEXT_BYTES])
{
    struct filling names = {t, &t->names, ALIAS_SIDE_ALIASES}, virtuals = {t, &t->virtuals, ALIAS_SIDE_VIRTUAL};
    struct mapfile_reader reader = {.what = "virtual_alias_maps", .line_bytes_max = ALIAS_LINE_BYTES_MAX,
                                    .take = take_virtual, .owner = &virtuals};
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < c->virtual_file_count && !e; i++)
        e = mapfile_read(c->virtual_files[i], &reader, text);
    reader.what = "alias_maps";
    reader.take = take_alias;
    reader.owner = &names;
    for (uint32_t i = 0; i < c->alias_file_count && !e; i++)
        e = mapfile_read(c->alias_files[i], &reader, text);
    return e;
}

enum err alias_table_open(const struct alias_config *c, char text[MAPFILE_TEXT_BYTES], struct alias_table **table_out)
{
    text[0] = '\0';
    *table_out = NULL;
    if (c->alias_file_count + c->virtual_file_count == 0)
        return ERR_OK;
    struct alias_table *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NO_MEMORY;
    snprintf(t->hostname, sizeof t->hostname, "%s", c->hostname);
    t->destinations = c->destinations;
    t->destination_count = c->destination_count;
    enum err e = read_files(t, c, text);
    if (e)
        alias_table_close(&t);
    else
        *table_out = t;
    return e;
}

void alias_table_close(struct alias_table **table)
{
    struct alias_table *t = *table;
    *table = NULL;
    if (!t)
        return;
    keymap_free(&t->names);
    keymap_free(&t->virtuals);
    free(t->lists);
    free(t->targets);
    free(t->text.bytes);
    free(t);
}
