/* SPDX-License-Identifier: Apache-2.0 */
/* Private to table.c, table_entries.c and table_rewrite.c. */
#ifndef TABLE_H
#define TABLE_H

#include "engine.h"

/* table_entries.c */
/* All of `d`: `s` as a TABLE, an OPEN or a SEAL tells it. */
void table_entry_of(const struct segment *s, struct table_segment_disk *d);

/* table_rewrite.c */
void rewrite_watch(struct pool *p); /* each turn: the opening, or a part that a member is late with, goes elsewhere */

#endif
