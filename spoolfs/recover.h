/* SPDX-License-Identifier: Apache-2.0 */
/* Private to recover.c and recover_scan.c. */
#ifndef RECOVER_H
#define RECOVER_H

#include "mount.h"

/* recover.c */
void recover_forget_segments(struct pool *p); /* all that a table told, and the incarnations it knew of */
/* The slots of the table in force stay taken until the superblocks name its successor. */
void recover_keep_table(struct pool *p, struct segment_id id, const struct image *images, uint32_t count);

/* recover_scan.c */
/* In place of the table the superblocks name. ERR_NO_MEMORY: nothing is known (REC-4). */
enum err recover_table_by_scan(struct pool *p) MUST_CHECK;
enum err recover_scan_half(struct pool *p, struct member *m) MUST_CHECK; /* adds what the headers of one member tell */

#endif
