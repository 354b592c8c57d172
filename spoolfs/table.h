/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: what the segment table says, and what table.c, table_entries.c and table_rewrite.c ask of each other. Writing to it
 * is in engine.h. */
#ifndef TABLE_H
#define TABLE_H

#include "engine.h"

/* table_entries.c */
enum err table_apply(struct pool *p, const struct record_view *r, bool *begun) MUST_CHECK;
struct incarnation *table_incarnation(struct pool *p, uint64_t incarnation);
enum err table_note_incarnation(struct pool *p, uint64_t incarnation, uint64_t high_water) MUST_CHECK;
bool table_says_dead(struct pool *p, struct segment_id id);
/* TAB-5: all that `table`, or one before it of its incarnation, told is known. */
bool table_covers(struct pool *p, struct segment_id table);
enum err table_note_read(struct pool *p, struct segment_id table) MUST_CHECK;
/* All of `d`: `s` as a TABLE, an OPEN or a SEAL tells it. */
void table_entry_of(const struct segment *s, struct table_segment_disk *d);

/* table_rewrite.c */
void rewrite_watch(struct pool *p); /* each turn: the opening, or a part that a member is late with, goes elsewhere */

#endif
