/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: finding a key that a configuration file sets twice. libconfuse lets the last one win; whoever added a line at the end of a long
 * file, or forgot one at its beginning, would never hear of it. Pure; reads a file that libconfuse has already taken (its syntax is
 * right), with the comments blanked. CFG-4 (config.h): a key stands once in a section; `+=` adds, and sections of other titles
 * are others. */
#include "config_keys.h"

#include <stdio.h>
#include <string.h>

#define SEEN_MAX 512u /* more than all keys of the most sections there may be: 16 members, and the listeners */
#define PATH_BYTES 128u
#define NESTING_MAX 8u

struct word { uint32_t at, len; unsigned line; };

struct scan {
    const char *bytes;
    uint32_t len;
    struct word key, title;        /* the last word; the string behind it */
    bool value;                    /* behind `=` */
    uint32_t depth, lists;         /* open sections; open lists in the innermost */
    char path[NESTING_MAX + 1][PATH_BYTES];
    struct { struct word key; char path[PATH_BYTES]; } seen[SEEN_MAX];
    uint32_t seen_count;
};

uint32_t config_skip_string(const char *bytes, uint32_t len, uint32_t at, unsigned *line)
{
    char quote = bytes[at++];
    for (; at < len && bytes[at] != quote; at++) {
        *line += bytes[at] == '\n';
        if (bytes[at] == '\\' && at + 1 < len)
            *line += bytes[++at] == '\n';
    }
    return at;
}

static bool scan_is_word(char b)
{
    return b && !strchr(" \t\r\n={}(),\"'+", b);
}

static void scan_opens(struct scan *s)
{
    if (s->value || s->lists) {
        s->lists++;
    } else if (s->depth < NESTING_MAX) {
        char outer[PATH_BYTES];
        memcpy(outer, s->path[s->depth], sizeof outer);
        snprintf(s->path[s->depth + 1], PATH_BYTES, "%.40s/%.*s %.*s", outer, (int)(s->key.len < 40 ? s->key.len : 40),
                 s->bytes + s->key.at, (int)(s->title.len < 40 ? s->title.len : 40), s->bytes + s->title.at);
        s->depth++;
    }
}

static void scan_closes(struct scan *s)
{
    if (s->lists)
        s->lists--;
    else if (s->depth > 0)
        s->depth--;
}

/* True: it was there. */
static bool scan_sets(struct scan *s, struct config_twice *twice_out)
{
    const char *word = s->bytes + s->key.at;
    for (uint32_t i = 0; i < s->seen_count; i++) {
        const struct word *k = &s->seen[i].key;
        if (k->len != s->key.len || memcmp(s->bytes + k->at, word, k->len) != 0 || strcmp(s->seen[i].path, s->path[s->depth]) != 0)
            continue;
        snprintf(twice_out->key, sizeof twice_out->key, "%.*s", (int)(k->len < 60 ? k->len : 60), word);
        twice_out->first_line = k->line;
        twice_out->line = s->key.line;
        return true;
    }
    if (s->seen_count < SEEN_MAX) {
        s->seen[s->seen_count].key = s->key;
        memcpy(s->seen[s->seen_count++].path, s->path[s->depth], PATH_BYTES);
    }
    return false;
}

bool config_find_twice(const char *bytes, uint32_t len, struct config_twice *twice_out)
{
    static struct scan s; /* too large for a stack; not reentered, as config.c */
    unsigned line = 1;
    s = (struct scan){.bytes = bytes, .len = len};
    for (uint32_t i = 0; i < len; i++) {
        char b = bytes[i];
        uint32_t from = i;
        line += b == '\n';
        if (b == '"' || b == '\'') {
            unsigned began = line;
            i = config_skip_string(bytes, len, i, &line);
            s.title = s.value || s.lists ? s.title : (struct word){from + 1, i - from - 1, began};
            s.value = false;
        } else if (b == '{') {
            scan_opens(&s);
            s.value = false;
            s.title.len = 0;
        } else if (b == '}') {
            scan_closes(&s);
        } else if (b == '=') {
            if (!s.lists && s.key.len && (i == 0 || bytes[i - 1] != '+') && scan_sets(&s, twice_out))
                return true;
            s.value = true;
        } else if (scan_is_word(b)) {
            while (i + 1 < len && scan_is_word(bytes[i + 1]))
                i++;
            if (!s.value && !s.lists)
                s.key = (struct word){from, i - from + 1, line};
            s.value = false;
        }
    }
    return false;
}
