/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON and text into one growing buffer: the documents and the queue list. Every byte that comes from outside
 * leaves as valid JSON: what is not UTF-8 becomes U+FFFD. Running out of memory is remembered and shows once, at the end. */
#ifndef DAEMON_JSON_OUT_H
#define DAEMON_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_out {
    char *bytes;
    size_t len, capacity;
    bool failed;      /* no memory: what is there is not the whole */
    bool comma;       /* the next value needs one */
};

void json_free(struct json_out *j);
void json_reset(struct json_out *j); /* keeps the memory */

/* Values; key NULL inside arrays. */
void json_object_begin(struct json_out *j, const char *key);
void json_object_end(struct json_out *j);
void json_array_begin(struct json_out *j, const char *key);
void json_array_end(struct json_out *j);
void json_text(struct json_out *j, const char *key, const char *value);
void json_bytes(struct json_out *j, const char *key, const char *value, size_t len);
void json_count(struct json_out *j, const char *key, uint64_t value);
void json_number(struct json_out *j, const char *key, double value);
void json_bool(struct json_out *j, const char *key, bool value);
void json_none(struct json_out *j, const char *key); /* null; jansson, in the tools, has a json_null of its own */
void json_time(struct json_out *j, const char *key, uint64_t wall_ms); /* RFC 3339 UTC; null for 0 */
void json_line_end(struct json_out *j);                                /* between documents of `lines` */

/* Plain text into the same buffer. */
void text_add(struct json_out *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_put(struct json_out *j, const char *bytes, size_t len);

#define TIME_TEXT 32
void time_print(uint64_t wall_ms, char text[TIME_TEXT]); /* "2026-11-24T22:13:59.123Z" */

#endif
