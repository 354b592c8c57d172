/* SPDX-License-Identifier: Apache-2.0 */
/* Alias tables: what virtual_alias_maps (virtual(5)) and alias_maps (aliases(5)) say of one name. Read when they are
 * opened, never afterwards; what a name finally becomes is expand.h's.
 *
 *  ALI-1  a table never changes once it is open; a reload opens a new one, and a bad file opens none.
 *  ALI-2  every target of an open table is an address that SMTP can express, or "@domain" (virtual only): no command, no
 *         file, no place a message could go to that is not a recipient.
 *  ALI-3  names are found without regard to case and to quotes that say nothing. */
#ifndef RELAY_ALIAS_H
#define RELAY_ALIAS_H

#include "keymap.h"
#include "mapfile.h"

#include <spoolfs/limits.h>

struct alias_config {
    const char *hostname;          /* the domain of addresses without one */
    char *const *destinations;     /* mydestination: domains whose local parts alias_maps knows */
    uint32_t destination_count;    /* with alias files the hostname is always one; with none given "localhost" too */
    char *const *alias_files, *const *virtual_files;
    uint32_t alias_file_count, virtual_file_count;
};

struct alias_target { uint32_t at, len; /* in targets_text */ bool final; /* "\name": not looked up again */ };
struct alias_list { uint32_t first, count; /* in targets */ };

struct alias_table {
    char hostname[256];
    char *const *destinations;     /* the configuration's: it outlives the table */
    uint32_t destination_count;
    struct keymap names, virtuals; /* to an index in lists */
    struct alias_list *lists;
    uint32_t list_count, list_capacity;
    struct alias_target *targets;
    uint32_t target_count, target_capacity;
    struct arena text;
};

/* ERR_CONFIG with "file:line: what is wrong" in text; ERR_NO_MEMORY. Without any file there is no table: *table_out is NULL. */
enum err alias_table_open(const struct alias_config *config, char text[MAPFILE_TEXT_BYTES],
                          struct alias_table **table_out) MUST_CHECK;
void alias_table_close(struct alias_table **table);

/* --- asking; every address has its domain (alias_complete) --- */

#define ALIAS_KEY_BYTES (ADDRESS_BYTES_MAX + 257u) /* a local part of any length completed with the hostname */

/* "local@domain" as keys are: lower case, without needless quotes. Returns its length; 0: the address is too long. */
uint32_t alias_key(const struct alias_table *t, const char *address, uint32_t len, char key[ALIAS_KEY_BYTES]);
/* The targets of a key, or NULL; `name_out` is the alias in alias_maps that gave them, len 0 when it was virtual. */
struct alias_name { const char *at; uint32_t len; };
const struct alias_list *alias_find(const struct alias_table *t, const char *key, uint32_t len,
                                    struct alias_name *name_out);
bool alias_has_owner(const struct alias_table *t, struct alias_name name);

enum alias_verdict {
    ALIAS_NOT_OURS, /* the tables say nothing of its domain */
    ALIAS_LISTED,   /* whoever may send: the operator has said where it goes */
    ALIAS_LOCAL,    /* of a domain in mydestination, and not listed */
    ALIAS_UNKNOWN,  /* of a virtual alias domain, and not listed: there is no such user */
};
enum alias_verdict alias_verdict(const struct alias_table *t, const char *address, uint32_t len);

/* --- between alias.c and alias_parse.c --- */

/* Adds the targets of one right side; "a, b" with comments, quotes, "Name <a>". `included`: a line of an :include: file.
 * ERR_CONFIG with why; ERR_NO_MEMORY. */
enum alias_side { ALIAS_SIDE_ALIASES, ALIAS_SIDE_INCLUDED, ALIAS_SIDE_VIRTUAL };
enum err alias_parse_targets(struct alias_table *t, enum alias_side side, char *right,
                             char why[MAPFILE_TEXT_BYTES]) MUST_CHECK;
/* Takes "name" or "\"quoted name\"" from the front of a line. Returns what follows; NULL: no name, or its quote is open. */
char *alias_parse_name(char *line, const char *ends, char name_out[ALIAS_KEY_BYTES]);

#endif
