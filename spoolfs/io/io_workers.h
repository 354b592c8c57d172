/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that do one member's blocking calls. io_posix.c lives of them; io_uring.c needs one per block device for
 * discards, which a ring of Linux 6.1 cannot do. */
#ifndef IO_IO_WORKERS_H
#define IO_IO_WORKERS_H

#include "io_loop.h"

struct io_workers;

enum err io_workers_start(struct io_loop *loop, struct io_member *m, uint32_t threads, struct io_workers **out) MUST_CHECK;
void io_workers_give(struct io_workers *w, struct io_op *op);
bool io_workers_recall(struct io_workers *w, struct io_op *op); /* false: one of them has it in hand */
void io_workers_stop(struct io_workers **w);                    /* waits for what is in hand, forgets the rest */

void io_workers_reap(struct io_loop *loop); /* io_loop_landed for all that any worker finished */

#endif
