/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer. By hand, because the queue list writes a hundred thousand objects in half a second and because a
 * writer needs no tree. See json_out.h. */
#include "json_out.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void json_free(struct json_out *j)
{
    free(j->bytes);
    *j = (struct json_out){0};
}

void json_reset(struct json_out *j)
{
    j->len = 0;
    j->comma = j->failed = false;
}

static char *room(struct json_out *j, size_t len)
{
    if (j->capacity - j->len < len + 1) {
        size_t capacity = j->capacity ? j->capacity * 2 : 1024;
        while (capacity - j->len < len + 1)
            capacity *= 2;
        char *more = realloc(j->bytes, capacity);
        if (!more) {
            j->failed = true;
            return NULL;
        }
        j->bytes = more;
        j->capacity = capacity;
    }
    return j->bytes + j->len;
}

void text_put(struct json_out *j, const char *bytes, size_t len)
{
    char *to = room(j, len);
    if (!to)
        return;
    if (len)
        memcpy(to, bytes, len);
    j->len += len;
    j->bytes[j->len] = '\0';
}

static void put(struct json_out *j, const char *text)
{
    text_put(j, text, strlen(text));
}

void text_add(struct json_out *j, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_put(j, line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

/* The length of the well-formed UTF-8 sequence at p (RFC 3629), or 0. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t a = p[0];
    size_t n = a >= 0xc2 && a <= 0xdf ? 2 : a >= 0xe0 && a <= 0xef ? 3 : a >= 0xf0 && a <= 0xf4 ? 4 : 0;
    if (n == 0 || left < n)
        return 0;
    uint8_t low = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80, high = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return n;
}

static char *escape_one(char *to, uint8_t b)
{
    static const char hex[] = "0123456789abcdef";
    *to++ = '\\';
    if (b == '"' || b == '\\') {
        *to++ = (char)b;
    } else if (b == '\n' || b == '\r' || b == '\t') {
        *to++ = b == '\n' ? 'n' : b == '\r' ? 'r' : 't';
    } else {
        memcpy(to, "u00", 3);
        to[3] = hex[b >> 4];
        to[4] = hex[b & 15];
        to += 5;
    }
    return to;
}

static void quoted(struct json_out *j, const char *value, size_t len)
{
    char *to = room(j, len * 6 + 2);
    const uint8_t *p = (const uint8_t *)value;
    if (!to)
        return;
    *to++ = '"';
    for (size_t i = 0; i < len;) {
        uint8_t b = p[i];
        if (b >= 0x20 && b < 0x7f && b != '"' && b != '\\') {
            *to++ = (char)b;
            i++;
        } else if (b < 0x80) {
            to = escape_one(to, b);
            i++;
        } else {
            size_t n = utf8_sequence(p + i, len - i);
            memcpy(to, n ? value + i : "\xef\xbf\xbd", n ? n : 3);
            to += n ? n : 3;
            i += n ? n : 1;
        }
    }
    *to++ = '"';
    *to = '\0';
    j->len = (size_t)(to - j->bytes);
}

static void begin(struct json_out *j, const char *key)
{
    if (j->comma)
        text_put(j, ",", 1);
    j->comma = true;
    if (!key)
        return;
    quoted(j, key, strlen(key));
    text_put(j, ":", 1);
}

void json_object_begin(struct json_out *j, const char *key)
{
    begin(j, key);
    put(j, "{");
    j->comma = false;
}

void json_object_end(struct json_out *j)
{
    put(j, "}");
    j->comma = true;
}

void json_array_begin(struct json_out *j, const char *key)
{
    begin(j, key);
    put(j, "[");
    j->comma = false;
}

void json_array_end(struct json_out *j)
{
    put(j, "]");
    j->comma = true;
}

void json_bytes(struct json_out *j, const char *key, const char *value, size_t len)
{
    begin(j, key);
    quoted(j, value, len);
}

void json_text(struct json_out *j, const char *key, const char *value)
{
    json_bytes(j, key, value, strlen(value));
}

void json_count(struct json_out *j, const char *key, uint64_t value)
{
    char text[24];
    char *at = text + sizeof text;
    do {
        *--at = (char)('0' + value % 10);
    } while (value /= 10);
    begin(j, key);
    text_put(j, at, (size_t)(text + sizeof text - at));
}

void json_number(struct json_out *j, const char *key, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", isfinite(value) ? value : 0.0);
    begin(j, key);
    put(j, text);
}

void json_bool(struct json_out *j, const char *key, bool value)
{
    begin(j, key);
    put(j, value ? "true" : "false");
}

void json_none(struct json_out *j, const char *key)
{
    begin(j, key);
    put(j, "null");
}

void time_print(uint64_t wall_ms, char text[TIME_TEXT])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    char stamp[24];
    gmtime_r(&seconds, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, TIME_TEXT, "%s.%03uZ", stamp, (unsigned)(wall_ms % 1000));
}

void json_time(struct json_out *j, const char *key, uint64_t wall_ms)
{
    char text[TIME_TEXT];
    if (wall_ms == 0) {
        json_none(j, key);
        return;
    }
    time_print(wall_ms, text);
    json_text(j, key, text);
}

void json_line_end(struct json_out *j)
{
    text_put(j, "\n", 1);
    j->comma = false;
}
