/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: tables, sizes, times. State is a word; colour only underlines it, on a terminal without NO_COLOR. */
#ifndef TOOLS_OUT_H
#define TOOLS_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUT_COLUMNS_MAX 12u
#define OUT_TEXT 32 /* room for out_bytes and out_age */

struct out_table;

/* Column names end at NULL; one that begins with '>' is aligned right. */
struct out_table *out_table(const char *const *columns);
/* One text a column; NULL or "" shows as "-". */
void out_row(struct out_table *t, const char *const *cells);
void out_table_print(struct out_table **t); /* to stdout, and frees it */

const char *out_bytes(uint64_t bytes, char text[OUT_TEXT]);       /* "1.5 GiB" */
const char *out_count(uint64_t n, char text[OUT_TEXT]);           /* "10,000,000" */
const char *out_age(double seconds, char text[OUT_TEXT]);         /* "3 d 4 h", "12 s" */
const char *out_latency(double seconds, char text[OUT_TEXT]);     /* "140 us", "2.1 ms"; "-" for 0 */
const char *out_time(uint64_t wall_ms, char text[OUT_TEXT]);      /* RFC 3339 UTC */

/* Progress of long work, on stderr: a line that moves on a terminal, one line at the end elsewhere. */
void out_progress(const char *what, uint64_t done, uint64_t total);

#endif
