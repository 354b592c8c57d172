/* SPDX-License-Identifier: Apache-2.0 */
/* Reading JSON from outside: requests of control clients, the relay's report, the
 * alarm process's and what it is told, smartctl's. The daemon's only door to jansson.
 * Reading never fails: what is missing or of another type is "", 0, false, no items. */
#ifndef DAEMON_JSON_IN_H
#define DAEMON_JSON_IN_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_in;

/* Exactly one object; ERR_INVALID otherwise. why (may be NULL) says where it is wrong. */
enum err json_in_parse(const char *bytes, size_t len, char why[160], struct json_in **in_out) MUST_CHECK;
void json_in_free(struct json_in **in);

/* Paths are keys with dots, and numbers inside arrays: "selector.sender", "members.0.name". */
bool json_in_has(const struct json_in *in, const char *path);
const char *json_in_text(const struct json_in *in, const char *path);
uint64_t json_in_count(const struct json_in *in, const char *path); /* 0 for negative numbers */
double json_in_number(const struct json_in *in, const char *path);
bool json_in_true(const struct json_in *in, const char *path);
size_t json_in_items(const struct json_in *in, const char *path);   /* of an array */
const char *json_in_item_text(const struct json_in *in, const char *path, size_t i);
uint64_t json_in_item_count(const struct json_in *in, const char *path, size_t i);

#endif
