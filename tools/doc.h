/* SPDX-License-Identifier: Apache-2.0 */
/* JSON documents: what the daemon answers and what --json prints. The tools' only door to jansson. */
#ifndef TOOLS_DOC_H
#define TOOLS_DOC_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct doc;

/* Foreign bytes: ERR_INVALID unless they are exactly one JSON object or array. */
enum err doc_parse(const char *bytes, size_t len, struct doc **doc_out) MUST_CHECK;
void doc_free(struct doc **doc);

/* Reading never fails: what is missing or of another type is "", 0, false, no items.  `path`: "pool.state". */
const struct doc *doc_at(const struct doc *d, const char *path); /* NULL when missing or null */
const char *doc_text(const struct doc *d, const char *path);
double doc_number(const struct doc *d, const char *path);
uint64_t doc_count(const struct doc *d, const char *path);
bool doc_true(const struct doc *d, const char *path);
size_t doc_length(const struct doc *d, const char *path); /* of an array */
const struct doc *doc_item(const struct doc *d, const char *path, size_t i);
void doc_each(const struct doc *object, void *owner, void (*one)(void *owner, const char *key, const struct doc *value));

/* Building: objects and arrays take over what is put into them. Out of memory ends the program: a tool holds nothing. */
struct doc *doc_object(void);
struct doc *doc_array(void);
void doc_set_text(struct doc *object, const char *key, const char *value); /* bytes that are not UTF-8 become '?' */
void doc_set_count(struct doc *object, const char *key, uint64_t value);
void doc_set_number(struct doc *object, const char *key, double value);
void doc_set_bool(struct doc *object, const char *key, bool value);
void doc_set(struct doc *object, const char *key, struct doc *value);
void doc_copy(struct doc *object, const char *key, const struct doc *value); /* shares it; NULL becomes null */
void doc_append(struct doc *array, struct doc *value);
void doc_append_text(struct doc *array, const char *value);

void doc_print(const struct doc *d, FILE *to);         /* indented, keys in the order given */
char *doc_line(const struct doc *d);                   /* one line, without a newline; the caller frees it */

#endif
