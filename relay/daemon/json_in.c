/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from outside, over jansson. See json_in.h. */
#include "json_in.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_in { json_t *root; };

enum err json_in_parse(const char *bytes, size_t len, char why[160], struct json_in **in_out)
{
    json_error_t error = {0};
    struct json_in *in = calloc(1, sizeof *in);
    if (!in)
        return ERR_NO_MEMORY;
    in->root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &error);
    if (in->root && json_is_object(in->root)) {
        *in_out = in;
        return ERR_OK;
    }
    if (why)
        snprintf(why, 160, "%s", in->root ? "not an object" : error.text);
    json_in_free(&in);
    return ERR_INVALID;
}

void json_in_free(struct json_in **in)
{
    if (*in)
        json_decref((*in)->root);
    free(*in);
    *in = NULL;
}

static const json_t *at(const struct json_in *in, const char *path)
{
    const json_t *j = in ? in->root : NULL;
    while (j && *path) {
        char key[64];
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        if (json_is_array(j))
            j = key[0] >= '0' && key[0] <= '9' ? json_array_get(j, (size_t)strtoul(key, NULL, 10)) : NULL;
        else
            j = json_object_get(j, key);
        path += len + (path[len] == '.');
    }
    return j;
}

bool json_in_has(const struct json_in *in, const char *path)
{
    const json_t *j = at(in, path);
    return j && !json_is_null(j);
}

static const char *text_of(const json_t *j)
{
    const char *text = json_string_value(j);
    return text ? text : "";
}

static uint64_t count_of(const json_t *j)
{
    double d = json_number_value(j);
    if (json_is_integer(j))
        return json_integer_value(j) > 0 ? (uint64_t)json_integer_value(j) : 0;
    return d > 0 && d < 1e18 ? (uint64_t)d : 0;
}

const char *json_in_text(const struct json_in *in, const char *path)
{
    return text_of(at(in, path));
}

uint64_t json_in_count(const struct json_in *in, const char *path)
{
    return count_of(at(in, path));
}

double json_in_number(const struct json_in *in, const char *path)
{
    return json_number_value(at(in, path));
}

bool json_in_true(const struct json_in *in, const char *path)
{
    return json_is_true(at(in, path));
}

size_t json_in_items(const struct json_in *in, const char *path)
{
    return json_array_size(at(in, path));
}

const char *json_in_item_text(const struct json_in *in, const char *path, size_t i)
{
    return text_of(json_array_get(at(in, path), i));
}

uint64_t json_in_item_count(const struct json_in *in, const char *path, size_t i)
{
    return count_of(json_array_get(at(in, path), i));
}
