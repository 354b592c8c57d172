/* SPDX-License-Identifier: Apache-2.0 */
/* Faults on the running pool, as the daemon has them: there only when the configuration says fault_injection = yes.
 * Every fault that begins or ends is an event, a line in the log, a row in status and a metric.
 * Faults end with the spool process: a pool that is mounted anew has none. */
#ifndef DAEMON_FAULT_LIVE_H
#define DAEMON_FAULT_LIVE_H

#include "spool_process.h"

/* Between io_real_open and pool_mount; leaves sp->inject NULL when faults are not allowed. */
enum err fault_live_open(struct spool_process *sp) MUST_CHECK;
struct io *fault_live_door(struct spool_process *sp); /* what the pool is mounted through */
void fault_live_rows(struct spool_process *sp, struct status_view *view);
void fault_live_row(struct spool_process *sp, const struct inject_fault *f, struct fault_row *row_out);

/* `wanted` says everything but until_ns and seed 0: any. The member is back (RETURN, or the end of a VANISH) by mounting
 * the pool anew. text_out: static, when it is refused. */
enum err fault_live_add(struct spool_process *sp, struct inject_fault *wanted, uint64_t seconds, uint32_t *id_out,
                        const char **text_out) MUST_CHECK;

#endif
