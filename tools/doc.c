/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: JSON in the tools. A struct doc is a json_t under another name, so that jansson stays behind this door. */
#include "doc.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES 64

static json_t *json_of(const struct doc *d)
{
    return (json_t *)(uintptr_t)d;
}

static void *doc_need(void *p)
{
    if (!p) {
        fputs("spooltool: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

enum err doc_parse(const char *bytes, size_t len, struct doc **doc_out)
{
    json_t *j = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, NULL);
    if (!j)
        return ERR_INVALID;
    *doc_out = (struct doc *)j;
    return ERR_OK;
}

void doc_free(struct doc **doc)
{
    if (*doc)
        json_decref(json_of(*doc));
    *doc = NULL;
}

const struct doc *doc_at(const struct doc *d, const char *path)
{
    json_t *j = json_of(d);
    while (j && *path) {
        char key[KEY_BYTES];
        size_t n = strcspn(path, ".");
        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = 0;
        j = json_object_get(j, key);
        path += n + (path[n] == '.');
    }
    return json_is_null(j) ? NULL : (const struct doc *)j;
}

const char *doc_text(const struct doc *d, const char *path)
{
    const char *text = json_string_value(json_of(doc_at(d, path)));
    return text ? text : "";
}

double doc_number(const struct doc *d, const char *path)
{
    return json_number_value(json_of(doc_at(d, path)));
}

uint64_t doc_count(const struct doc *d, const char *path)
{
    json_t *j = json_of(doc_at(d, path));
    if (json_is_integer(j))
        return json_integer_value(j) > 0 ? (uint64_t)json_integer_value(j) : 0;
    double real = json_number_value(j);
    return real > 0 && real < 1.8e19 ? (uint64_t)real : 0;
}

bool doc_true(const struct doc *d, const char *path)
{
    return json_is_true(json_of(doc_at(d, path)));
}

size_t doc_length(const struct doc *d, const char *path)
{
    return json_array_size(json_of(doc_at(d, path)));
}

const struct doc *doc_item(const struct doc *d, const char *path, size_t i)
{
    return (const struct doc *)json_array_get(json_of(doc_at(d, path)), i);
}

void doc_each(const struct doc *object, void *owner, void (*one)(void *owner, const char *key, const struct doc *value))
{
    const char *key;
    json_t *value;
    json_object_foreach(json_of(object), key, value)
        one(owner, key, (const struct doc *)value);
}

struct doc *doc_object(void)
{
    return doc_need(json_object());
}

struct doc *doc_array(void)
{
    return doc_need(json_array());
}

static json_t *doc_string(const char *value)
{
    json_t *j = json_string(value);
    if (j)
        return j;
    char *ascii = doc_need(strdup(value)); /* not UTF-8 */
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    j = doc_need(json_string(ascii));
    free(ascii);
    return j;
}

void doc_set_text(struct doc *object, const char *key, const char *value)
{
    json_object_set_new(json_of(object), key, doc_string(value));
}

void doc_set_count(struct doc *object, const char *key, uint64_t value)
{
    json_object_set_new(json_of(object), key, doc_need(json_integer((json_int_t)value)));
}

void doc_set_number(struct doc *object, const char *key, double value)
{
    json_object_set_new(json_of(object), key, doc_need(json_real(value)));
}

void doc_set_bool(struct doc *object, const char *key, bool value)
{
    json_object_set_new(json_of(object), key, json_boolean(value));
}

void doc_set(struct doc *object, const char *key, struct doc *value)
{
    json_object_set_new(json_of(object), key, json_of(value));
}

void doc_copy(struct doc *object, const char *key, const struct doc *value)
{
    json_object_set_new(json_of(object), key, value ? json_incref(json_of(value)) : json_null());
}

void doc_append(struct doc *array, struct doc *value)
{
    json_array_append_new(json_of(array), json_of(value));
}

void doc_append_text(struct doc *array, const char *value)
{
    json_array_append_new(json_of(array), doc_string(value));
}

void doc_print(const struct doc *d, FILE *to)
{
    json_dumpf(json_of(d), to, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    fputc('\n', to);
}

char *doc_line(const struct doc *d)
{
    return doc_need(json_dumps(json_of(d), JSON_COMPACT | JSON_PRESERVE_ORDER));
}
