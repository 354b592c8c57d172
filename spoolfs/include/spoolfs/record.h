/* SPDX-License-Identifier: Apache-2.0 */
/* What a record is and where it lies: the words engine, index, wire and tools share. */
#ifndef SPOOLFS_RECORD_H
#define SPOOLFS_RECORD_H

#include <base/digest.h>
#include <base/ids.h>
#include <stdint.h>

enum record_type {
    RECORD_MESSAGE = 1, /* payload: envelope, then body (inline) or nothing when arg (CHUNK count) > 0 */
    RECORD_CHUNK = 2,   /* payload: body bytes; arg: number, from 0 */
    RECORD_MARK = 3,    /* payload: marks (envelope.h); per-recipient results */
    RECORD_RETIRE = 4,  /* payload: none; all recipients done */
    RECORD_STATE = 5,   /* payload: none; arg: enum record_state */
    RECORD_OPEN = 6,    /* 6 to 9: the segment table, in table segments only */
    RECORD_SEAL = 7,
    RECORD_FREED = 8,
    RECORD_TABLE = 9,
    RECORD_TYPE_COUNT
};

/* Of two STATEs the higher sequence wins. RETRY makes every deferred recipient due now. */
enum record_state { RECORD_STATE_HOLD = 1, RECORD_STATE_RELEASE = 2, RECORD_STATE_EXPIRE = 3, RECORD_STATE_RETRY = 4 };

/* Where a record lies. All offsets in bytes; frame counts from the start of the segment, record from the frame's. */
struct place {
    struct segment_id segment;
    uint64_t frame;
    uint64_t sequence; /* of the frame: of several copies of one record the one with the highest is the latest */
    uint32_t frame_blocks;
    uint32_t record;
    uint32_t length;
};

#endif
