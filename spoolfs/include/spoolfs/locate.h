/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie on a member's bytes, for what reaches below the engine on purpose: fault injection. */
#ifndef SPOOLFS_LOCATE_H
#define SPOOLFS_LOCATE_H

#include <spoolfs/pool.h>

/* The io target of the member with this name. ERR_NOT_FOUND: no such member; ERR_MEMBER_GONE: it has none now. */
enum err pool_target_of(struct pool *pool, const char *name, uint16_t *target_out) MUST_CHECK;
/* The name of the member on this target, or "". */
const char *pool_name_of(struct pool *pool, uint16_t target);
bool pool_target_serves(struct pool *pool, uint16_t target); /* its member is there, as far as the pool knows */
/* The bytes of the target that hold this record. ERR_NOT_FOUND: no image of its segment lies there. */
enum err pool_locate(struct pool *pool, uint16_t target, const struct place *place, uint64_t *offset_out) MUST_CHECK;

#endif
