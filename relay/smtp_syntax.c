/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of SMTP command lines. Pure; everything they see is foreign: a verdict, never an assert. See smtp_syntax.h. */
#include "smtp_syntax.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define DOMAIN_OCTETS_MAX 255u
#define LABEL_OCTETS_MAX 63u

const char *const smtp_verb_words[SMTP_VERB_COUNT] = {
    "MAIL", "RCPT", "DATA", "BDAT",     "EHLO", "HELO",          "RSET",    "NOOP",
    "QUIT", "VRFY", "STARTTLS", "HELP", "UNIMPLEMENTED", "FOREIGN", "UNKNOWN",
};

static const struct {
    const char *word;
    enum smtp_verb verb;
} other_words[] = {
    {"EXPN", SMTP_UNIMPLEMENTED}, {"ETRN", SMTP_UNIMPLEMENTED}, {"TURN", SMTP_UNIMPLEMENTED},
    {"AUTH", SMTP_UNIMPLEMENTED}, {"SEND", SMTP_UNIMPLEMENTED}, {"SOML", SMTP_UNIMPLEMENTED},
    {"SAML", SMTP_UNIMPLEMENTED}, {"ATRN", SMTP_UNIMPLEMENTED}, {"BURL", SMTP_UNIMPLEMENTED},
    {"LHLO", SMTP_UNIMPLEMENTED}, {"XCLIENT", SMTP_UNIMPLEMENTED}, {"XFORWARD", SMTP_UNIMPLEMENTED},
    {"GET", SMTP_FOREIGN},        {"POST", SMTP_FOREIGN},       {"CONNECT", SMTP_FOREIGN},
    {"PUT", SMTP_FOREIGN},        {"HEAD", SMTP_FOREIGN},       {"OPTIONS", SMTP_FOREIGN},
};

static struct smtp_text trimmed(const char *at, const char *end)
{
    while (at < end && *at == ' ')
        at++;
    while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct smtp_text){at, (uint32_t)(end - at)};
}

static bool word_is(const char *at, uint32_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(at, word, len) == 0;
}

enum smtp_verb smtp_verb_of(const char *line, uint32_t len, struct smtp_text *argument_out)
{
    const char *end = line + len, *space = len ? memchr(line, ' ', len) : NULL;
    uint32_t word = (uint32_t)((space ? space : end) - line);
    *argument_out = trimmed(line + word, end);
    while (word > 0 && line[word - 1] == '\t') /* "QUIT\t" */
        word--;
    for (int v = 0; v < SMTP_UNIMPLEMENTED; v++)
        if (word_is(line, word, smtp_verb_words[v]))
            return (enum smtp_verb)v;
    for (size_t i = 0; i < sizeof other_words / sizeof other_words[0]; i++)
        if (word_is(line, word, other_words[i].word))
            return other_words[i].verb;
    return SMTP_UNKNOWN;
}

/* Length of the UTF-8 character at `at`, 0 when it is none (overlong, surrogate, truncated, beyond U+10FFFF). */
static uint32_t utf8_length(const uint8_t *at, const uint8_t *end)
{
    uint8_t b = at[0];
    uint32_t n = b < 0x80 ? 1 : b >= 0xc2 && b <= 0xdf ? 2 : (b & 0xf0) == 0xe0 ? 3 : b >= 0xf0 && b <= 0xf4 ? 4 : 0;
    if (n == 0 || (size_t)(end - at) < n)
        return 0;
    for (uint32_t i = 1; i < n; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((b == 0xe0 && at[1] < 0xa0) || (b == 0xed && at[1] > 0x9f) || (b == 0xf0 && at[1] < 0x90) ||
        (b == 0xf4 && at[1] > 0x8f))
        return 0;
    return n;
}

bool smtp_utf8_valid(const char *bytes, uint32_t len)
{
    const uint8_t *at = (const uint8_t *)bytes, *end = at + len;
    while (at < end) {
        uint32_t n = utf8_length(at, end);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool is_high(char c)
{
    return (uint8_t)c >= 0x80;
}

static bool is_atom(char c)
{
    return is_alnum(c) || is_high(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

/* Dots may stand anywhere in an unquoted local part: large providers hand out such addresses. */
static const char *parse_local(const char *at, const char *end)
{
    if (at < end && *at == '"') {
        for (at++; at < end && *at != '"'; at++) {
            if (*at == '\\' && ++at == end)
                return NULL;
            if ((uint8_t)*at < 0x20 || *at == 0x7f)
                return NULL;
        }
        return at < end ? at + 1 : NULL;
    }
    const char *begin = at;
    while (at < end && (is_atom(*at) || *at == '.'))
        at++;
    return at > begin ? at : NULL;
}

static bool literal_valid(const char *at, uint32_t len) /* between the brackets */
{
    char text[64];
    uint8_t address[16];
    if (len >= sizeof text)
        return false;
    memcpy(text, at, len);
    text[len] = '\0';
    if (strlen(text) != len)
        return false;
    if (strncasecmp(text, "IPv6:", 5) == 0)
        return inet_pton(AF_INET6, text + 5, address) == 1;
    return inet_pton(AF_INET, text, address) == 1;
}

static const char *parse_domain(const char *at, const char *end)
{
    const char *begin = at;
    if (at < end && *at == '[') {
        const char *close = memchr(at, ']', (size_t)(end - at));
        return close && literal_valid(at + 1, (uint32_t)(close - at - 1)) ? close + 1 : NULL;
    }
    for (const char *label = at;; at++) {
        bool more = at < end && (is_alnum(*at) || is_high(*at) || *at == '-' || *at == '_'); /* '_' is out there */
        if (more)
            continue;
        if (at == label || (size_t)(at - label) > LABEL_OCTETS_MAX || *label == '-' || at[-1] == '-')
            return NULL;
        if (at == end || *at != '.')
            break;
        label = at + 1;
    }
    return (size_t)(at - begin) <= DOMAIN_OCTETS_MAX ? at : NULL;
}

/* "@a,@b:" before the mailbox: RFC 5321 wants it accepted and ignored. */
static const char *pass_route(const char *at, const char *end)
{
    while (at < end && *at == '@') {
        at = parse_domain(at + 1, end);
        if (!at || at == end)
            return NULL;
        if (*at == ':')
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
    return NULL;
}

static bool any_high(const char *at, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (is_high(at[i]))
            return true;
    return false;
}

static enum err parse_mailbox(const char **at, const char *end, struct smtp_path *path_out)
{
    const char *begin = *at, *now = parse_local(begin, end);
    struct smtp_path p = {.at = begin};
    if (now && now < end && *now == '@') {
        p.has_domain = true;
        now = parse_domain(now + 1, end);
    }
    if (!now || now == end || *now != '>')
        return ERR_INVALID;
    p.len = (uint32_t)(now - begin);
    p.non_ascii = any_high(begin, p.len);
    if (p.len > ADDRESS_BYTES_MAX) /* the local part alone may exceed 64: VERP does */
        return ERR_TOO_LARGE;
    if (p.non_ascii && !smtp_utf8_valid(begin, p.len))
        return ERR_INVALID;
    *path_out = p;
    *at = now;
    return ERR_OK;
}

enum err smtp_parse_path(struct smtp_text argument, const char *keyword, struct smtp_path *path_out,
                         struct smtp_text *rest_out)
{
    uint32_t keyword_len = (uint32_t)strlen(keyword);
    const char *at = argument.at, *end = at + argument.len;
    if (argument.len < keyword_len || strncasecmp(at, keyword, keyword_len) != 0)
        return ERR_INVALID;
    at += keyword_len;
    while (at < end && *at == ' ') /* "FROM: <a@b>": wrong and everywhere */
        at++;
    if (at == end || *at++ != '<')
        return ERR_INVALID;
    bool routed = at < end && *at == '@';
    if (routed && !(at = pass_route(at, end)))
        return ERR_INVALID;
    struct smtp_path path = {.at = at};
    if (at == end)
        return ERR_INVALID;
    if (*at != '>' || routed) {
        enum err e = parse_mailbox(&at, end, &path);
        if (e)
            return e;
    }
    at++;
    if (at < end && *at != ' ')
        return ERR_INVALID;
    *path_out = path;
    *rest_out = trimmed(at, end);
    return ERR_OK;
}

/* The next KEYWORD[=value]; false at the end. */
static bool next_parameter(struct smtp_text *rest, struct smtp_text *keyword_out, struct smtp_text *value_out)
{
    struct smtp_text r = trimmed(rest->at, rest->at + rest->len);
    if (r.len == 0)
        return false;
    const char *end = r.at + r.len, *space = memchr(r.at, ' ', r.len);
    const char *stop = space ? space : end, *equals = memchr(r.at, '=', (size_t)(stop - r.at));
    *keyword_out = (struct smtp_text){r.at, (uint32_t)((equals ? equals : stop) - r.at)};
    *value_out = (struct smtp_text){equals ? equals + 1 : stop, equals ? (uint32_t)(stop - equals - 1) : 0};
    *rest = (struct smtp_text){stop, (uint32_t)(end - stop)};
    return true;
}

static enum err parse_number(struct smtp_text t, uint64_t *n_out)
{
    uint64_t n = 0;
    if (t.len == 0)
        return ERR_INVALID;
    for (uint32_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return ERR_INVALID;
    }
    for (uint32_t i = 0; i < t.len; i++) {
        uint64_t digit = (uint64_t)(t.at[i] - '0');
        if (n > (UINT64_MAX - digit) / 10)
            return ERR_TOO_LARGE;
        n = n * 10 + digit;
    }
    *n_out = n;
    return ERR_OK;
}

static enum err body_parameter(struct smtp_text value, bool *eightbit_out)
{
    if (word_is(value.at, value.len, "7BIT"))
        return ERR_OK;
    if (!word_is(value.at, value.len, "8BITMIME"))
        return ERR_NOT_FOUND; /* BINARYMIME is not announced: content is lines, strictly */
    *eightbit_out = true;
    return ERR_OK;
}

enum err smtp_parse_mail_parameters(struct smtp_text rest, struct smtp_mail_parameters *p_out)
{
    struct smtp_mail_parameters p = {0};
    struct smtp_text keyword, value;
    bool size = false, body = false;
    while (next_parameter(&rest, &keyword, &value)) {
        enum err e = ERR_NOT_FOUND;
        if (word_is(keyword.at, keyword.len, "SIZE")) {
            e = size ? ERR_INVALID : parse_number(value, &p.size);
            size = true;
        } else if (word_is(keyword.at, keyword.len, "BODY")) {
            e = body ? ERR_INVALID : body_parameter(value, &p.eightbit);
            body = true;
        } else if (word_is(keyword.at, keyword.len, "SMTPUTF8")) {
            e = value.len > 0 || p.smtputf8 ? ERR_INVALID : ERR_OK;
            p.smtputf8 = true;
        } else if (word_is(keyword.at, keyword.len, "XHOLD")) {
            e = value.len > 0 || p.hold ? ERR_INVALID : ERR_OK;
            p.hold = true;
        }
        if (e)
            return e;
    }
    *p_out = p;
    return ERR_OK;
}

enum err smtp_parse_rcpt_parameters(struct smtp_text rest)
{
    return rest.len == 0 ? ERR_OK : ERR_NOT_FOUND;
}

enum err smtp_parse_bdat(struct smtp_text argument, uint64_t *size_out, bool *last_out)
{
    struct smtp_text size = argument;
    const char *space = argument.len ? memchr(argument.at, ' ', argument.len) : NULL;
    bool last = false;
    if (space) {
        struct smtp_text rest = trimmed(space, argument.at + argument.len);
        size.len = (uint32_t)(space - argument.at);
        if (!word_is(rest.at, rest.len, "LAST"))
            return ERR_INVALID;
        last = true;
    }
    enum err e = parse_number(size, size_out);
    if (e)
        return e;
    *last_out = last;
    return ERR_OK;
}

enum err smtp_parse_helo(struct smtp_text argument)
{
    if (argument.len == 0 || argument.len > DOMAIN_OCTETS_MAX)
        return ERR_INVALID;
    for (uint32_t i = 0; i < argument.len; i++)
        if ((uint8_t)argument.at[i] <= 0x20 || (uint8_t)argument.at[i] >= 0x7f)
            return ERR_INVALID;
    return ERR_OK;
}
