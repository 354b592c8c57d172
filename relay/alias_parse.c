/* SPDX-License-Identifier: Apache-2.0 */
/* The right sides of alias files: mailbox lists as aliases(5) and virtual(5) write them, refused with advice where a
 * target is no address (ALI-2). See alias.h. */
#include "alias.h"

#include "smtp_syntax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_BYTES_MAX 1024u /* longer than any address, so that too long is told from cut */

static const char SPACE[] = " \t\r\n";

static enum err refuse(char why[MAPFILE_TEXT_BYTES], const char *what, const char *token)
{
    snprintf(why, MAPFILE_TEXT_BYTES, "%.220s: \"%.60s\"", what, token);
    return ERR_CONFIG;
}

/* --- one token --- */

/* Passes over "(comments)", which nest. NULL: it is open. */
static const char *skip_comment(const char *at)
{
    unsigned depth = 0;
    for (; *at; at++) {
        if (*at == '\\' && at[1])
            at++;
        else if (*at == '(')
            depth++;
        else if (*at == ')' && --depth == 0)
            return at + 1;
    }
    return NULL;
}

static const char *skip_quoted(const char *at)
{
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1])
            at++;
    return *at ? at + 1 : NULL;
}

/* Copies up to the next comma that separates, without comments, trimmed. Returns where it ended; NULL: open, or too long. */
static const char *next_token(const char *at, char token[TOKEN_BYTES_MAX])
{
    uint32_t used = 0;
    at += strspn(at, SPACE);
    while (*at && *at != ',') {
        const char *end = *at == '(' ? skip_comment(at) : *at == '"' ? skip_quoted(at) : at + 1;
        if (!end)
            return NULL;
        uint32_t n = *at == '(' ? 0 : (uint32_t)(end - at);
        if (used + n >= TOKEN_BYTES_MAX)
            return NULL;
        n = used == 0 && strchr(SPACE, *at) ? 0 : n; /* behind a comment */
        memcpy(token + used, at, n);
        used += n;
        at = end;
    }
    while (used > 0 && strchr(SPACE, token[used - 1]))
        used--;
    token[used] = '\0';
    return at;
}

/* "text" in quotes and nothing else becomes text. */
static void unquote(char *token)
{
    const char *end = token[0] == '"' ? skip_quoted(token) : NULL;
    char *to = token;
    if (!end || *end)
        return;
    for (const char *from = token + 1; from < end - 1; from++) {
        from += *from == '\\' && from + 1 < end - 1;
        *to++ = *from;
    }
    *to = '\0';
}

/* "Name <address>" becomes address; quotes are passed over. False: a bracket is open or something follows. */
static bool take_bracketed(char *token)
{
    const char *at = token;
    while (at && *at && *at != '<')
        at = *at == '"' ? skip_quoted(at) : at + 1;
    if (!at || !*at)
        return at != NULL;
    const char *from = ++at;
    while (*at && *at != '>') {
        at = *at == '"' ? skip_quoted(at) : at + 1;
        if (!at)
            return false;
    }
    if (!*at || at[1])
        return false;
    memmove(token, from, (size_t)(at - from));
    token[at - from] = '\0';
    return true;
}

/* --- targets --- */

static enum err add_target(struct alias_table *t, const char *address, uint32_t len, bool final, char why[MAPFILE_TEXT_BYTES])
{
    uint32_t at;
    if (t->target_count == ALIAS_TARGETS_MAX)
        return refuse(why, "more targets than alias tables may hold", address);
    if (t->target_count - t->lists[t->list_count - 1].first == ALIAS_EXPANSION_MAX)
        return refuse(why, "more than 1000 targets, which is what one message may have; name the rest in a second list and "
                      "send to both", address);
    if (t->target_count == t->target_capacity) {
        uint32_t capacity = t->target_capacity ? t->target_capacity * 2 : 256;
        struct alias_target *grown = reallocarray(t->targets, capacity, sizeof *grown);
        if (!grown)
            return ERR_NO_MEMORY;
        t->targets = grown;
        t->target_capacity = capacity;
    }
    enum err e = arena_add(&t->text, address, len, &at);
    if (e)
        return e == ERR_TOO_LARGE ? refuse(why, "more text than alias tables may hold", address) : e;
    t->targets[t->target_count++] = (struct alias_target){at, len, final};
    t->lists[t->list_count - 1].count++;
    return ERR_OK;
}

/* ALI-2: what is stored passes the grammar of RCPT. */
static enum err add_address(struct alias_table *t, const char *token, bool final, char why[MAPFILE_TEXT_BYTES])
{
    char line[TOKEN_BYTES_MAX + 320];
    bool rest_only = token[0] == '@'; /* whatever stood before the '@' stays: checked with an 'x' there */
    const char *at = strrchr(token, '@'), *quote = strrchr(token, '"');
    bool domain = at && (!quote || quote < at);
    int n = snprintf(line, sizeof line, "TO:<%s%s%s%s>", rest_only ? "x" : "", token, domain ? "" : "@",
                     domain ? "" : t->hostname);
    struct smtp_text argument = {line, (uint32_t)n}, rest;
    struct smtp_path path;
    if (strlen(token) > ADDRESS_BYTES_MAX)
        return refuse(why, "an address of more than 320 bytes", token);
    enum err e = smtp_parse_path(argument, "TO:", &path, &rest);
    if (e || rest.len > 0 || path.len != (uint32_t)n - 5)
        return refuse(why, strpbrk(token, SPACE) ? "not an address; is a comma missing?" : "not an address", token);
    return add_target(t, path.at + rest_only, path.len - rest_only, final, why);
}

/* A line of an included file. */
static enum err take_included(void *owner, char *line, char why[MAPFILE_TEXT_BYTES])
{
    return alias_parse_targets(owner, ALIAS_SIDE_INCLUDED, line, why);
}

static enum err include(struct alias_table *t, enum alias_side side, char *file, char why[MAPFILE_TEXT_BYTES])
{
    if (side == ALIAS_SIDE_VIRTUAL)
        return refuse(why, ":include: belongs into alias_maps, not into virtual_alias_maps", file);
    if (side == ALIAS_SIDE_INCLUDED)
        return refuse(why, "an included file includes no other; name both in the alias", file);
    unquote(file);
    if (file[0] != '/')
        return refuse(why, ":include: takes an absolute path", file);
    struct mapfile_reader reader = {.what = ":include:", .line_bytes_max = ALIAS_LINE_BYTES_MAX, .whole_lines = true,
                                    .take = take_included, .owner = t};
    return mapfile_read(file, &reader, why);
}

static enum err add_token(struct alias_table *t, enum alias_side side, char *token, char why[MAPFILE_TEXT_BYTES])
{
    bool final = false;
    if (token[0] == '"') {
        char plain[TOKEN_BYTES_MAX];
        strcpy(plain, token);
        unquote(plain);
        if (plain[0] == '|' || plain[0] == '/' || plain[0] == ':')
            strcpy(token, plain);
    }
    if (token[0] == '|')
        return refuse(why, "mail is not piped into a command; let the program listen with LMTP and give its address a line in "
                      "transport_maps (lmtp:unix:/path)", token);
    if (token[0] == '/')
        return refuse(why, "mail is not appended to a file; name an address here and give it a Maildir in transport_maps "
                      "(maildir:/dir)", token);
    if (strncasecmp(token, ":include:", 9) == 0)
        return include(t, side, token + 9, why);
    if (!take_bracketed(token))
        return refuse(why, "not an address: look at its < >", token);
    if (token[0] == '\\') {
        memmove(token, token + 1, strlen(token));
        final = true;
    }
    if (token[0] == '@' && side != ALIAS_SIDE_VIRTUAL)
        return refuse(why, "a domain alone is a target in virtual_alias_maps only", token);
    return add_address(t, token, final, why);
}

enum err alias_parse_targets(struct alias_table *t, enum alias_side side, char *right, char why[MAPFILE_TEXT_BYTES])
{
    char token[TOKEN_BYTES_MAX];
    const char *at = right;
    while (*at) {
        at = next_token(at, token);
        if (!at)
            return refuse(why, "a quote or a parenthesis is open, or one target is longer than 1023 bytes", right);
        enum err e = token[0] ? add_token(t, side, token, why) : ERR_OK;
        if (e)
            return e;
        at += *at == ',';
    }
    return ERR_OK;
}

char *alias_parse_name(char *line, const char *ends, char name_out[ALIAS_KEY_BYTES])
{
    const char *end = line;
    while (*end && !strchr(ends, *end)) {
        end = *end == '"' ? skip_quoted(end) : end + 1;
        if (!end)
            return NULL;
    }
    size_t len = (size_t)(end - line);
    while (len > 0 && strchr(SPACE, line[len - 1]))
        len--;
    if (len == 0 || len > ADDRESS_BYTES_MAX)
        return NULL;
    memcpy(name_out, line, len);
    name_out[len] = '\0';
    return line + (end - line);
}
