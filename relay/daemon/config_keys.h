/* SPDX-License-Identifier: Apache-2.0 */
/* Private to config*.c: the table of keys and the conversion of one value. */
#ifndef DAEMON_CONFIG_KEYS_H
#define DAEMON_CONFIG_KEYS_H

#include "config.h"

#include <stddef.h>

enum config_kind {
    CONFIG_TEXT,     /* char[size] */
    CONFIG_PATH,     /* char[size], absolute */
    CONFIG_WORD,     /* char[size], one of words, separated by '|' */
    CONFIG_NUMBER,   /* uint32_t */
    CONFIG_BYTES,    /* uint64_t; K M G T */
    CONFIG_BYTES32,  /* uint32_t; K M G T */
    CONFIG_TIME_S,   /* uint32_t seconds; s m h d, bare numbers are seconds */
    CONFIG_TIME_MS,  /* uint64_t */
    CONFIG_TIME_NS,  /* uint64_t */
    CONFIG_BOOL,     /* yes, no, true, false, on, off */
    CONFIG_LIST,     /* values one by one, to the section's own function */
};

/* Sections; each offset below counts from the section's own object. */
enum config_section { CONFIG_ROOT, CONFIG_SETTINGS, CONFIG_POOL, CONFIG_MEMBER, CONFIG_LISTEN, CONFIG_HTTP };

struct config_key {
    enum config_section section;
    const char *name;
    enum config_kind kind;
    size_t offset, size;
    uint64_t least, most;      /* for numbers, in the unit of the object */
    const char *words;         /* CONFIG_WORD */
    const char *fallback;      /* NULL: stays empty or zero */
};

extern const struct config_key config_keys[];
extern const unsigned config_key_count;

/* The object that keys of `section` point into; title for members and listeners (made when new). NULL: too many. */
void *config_object(struct config *c, enum config_section section, const char *title);
/* Converts and stores. On failure why[] says what would have been right. */
enum err config_set(struct config *c, const struct config_key *key, const char *title, const char *value,
                    char why[256]) MUST_CHECK;
enum err config_set_defaults(struct config *c, enum config_section section, const char *title) MUST_CHECK;
/* mynetworks, domains, map files: one value, which may itself be a row separated by commas or blanks. */
enum err config_add(struct config *c, const struct config_key *key, const char *value, char why[256]) MUST_CHECK;
void config_clear(struct config *c, const struct config_key *key);
/* What holds between keys: said of the whole file. */
enum err config_check(struct config *c, char why[512]) MUST_CHECK;
/* config_twice.c, CFG-4. Of a file whose syntax is right and whose comments are blank. */
struct config_twice { char key[64]; unsigned first_line, line; };
bool config_find_twice(const char *bytes, uint32_t len, struct config_twice *twice_out);
uint32_t config_skip_string(const char *bytes, uint32_t len, uint32_t at, unsigned *line); /* where it ends; newlines inside count */
/* The name nearest to `word` among the keys of `section`, or NULL. */
const char *config_nearest(enum config_section section, const char *word);

#endif
