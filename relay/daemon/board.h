/* SPDX-License-Identifier: Apache-2.0 */
/* A notice board in shared memory: what a spool process without a mounted pool has to say. Without a pool there is no
 * wire, but the status page and the metrics must answer just then (P9). The spool writes, the relay reads.
 *
 *  BOA-1  a reader gets one whole document or none; it never waits for the writer.
 *  BOA-2  the spool reads nothing from it. */
#ifndef DAEMON_BOARD_H
#define DAEMON_BOARD_H

#include <base/err.h>
#include <stdint.h>

#define BOARD_DOCUMENT_BYTES_MAX ((uint32_t)(128 * 1024)) /* the metrics of 16 members take 40 KiB */

struct board;

struct board *board_make(void); /* before the children are forked; NULL: no memory, then it stays empty */
/* kind: "status", "text", "metrics", "health". What is too large is left out. */
void board_post(struct board *b, const char *kind, const char *bytes, uint32_t len);
void board_clear(struct board *b);
/* A copy, terminated; the caller frees it. ERR_NOT_FOUND: nothing is posted. */
enum err board_read(struct board *b, const char *kind, char **bytes_out, uint32_t *len_out) MUST_CHECK;

#endif
