/* SPDX-License-Identifier: Apache-2.0 */
/* Every bound of the system with its unit. The page to read to know how big anything can get.
 * A limit that is a choice says why this number; relations between limits are asserted at the end. */
#ifndef SPOOLFS_LIMITS_H
#define SPOOLFS_LIMITS_H

#include <stdint.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* --- disk --- */
#define BLOCK_BYTES 4096u                      /* the unit of every check and every transfer */
#ifndef IRONSPOOL_SMALL
#define FRAME_BYTES_MAX ((uint32_t)(1 * MIB))  /* one group commit; 1 MiB reaches the bandwidth of what we measured */
#define SEGMENT_BYTES_MIN (1 * MIB + 64 * KIB) /* at least one full frame and the image header */
#define SLOTS_PER_MEMBER_MIN 32u
#define LEASES_MAX 65536u                      /* messages held by relays at one time */
#define INCARNATIONS_MAX 4096u                 /* one per writable mount; twelve years of daily restarts */
#define SEGMENTS_FREED_MAX 16384u              /* of one FREED: 256 KiB of ids in a frame of the table */
#define TABLE_SEGMENTS_PER_PART 8192u          /* entries of one TABLE part: as many as fit a frame beside the incarnations */
#else /* of spoolsim only: each slot of a pool is used many times within one short run */
#define FRAME_BYTES_MAX ((uint32_t)(32 * KIB))
#define SEGMENT_BYTES_MIN (40 * KIB)
#define SLOTS_PER_MEMBER_MIN 20u
#define LEASES_MAX 4096u
#define INCARNATIONS_MAX 1024u                 /* a run of a seed mounts some hundred times */
#define SEGMENTS_FREED_MAX 1024u
#define TABLE_SEGMENTS_PER_PART 64u            /* so that a TABLE has parts here, too */
#endif
#define FRAME_BLOCKS_MAX (FRAME_BYTES_MAX / BLOCK_BYTES)
#define FRAME_BLOCK_WORDS ((FRAME_BLOCKS_MAX + 63) / 64) /* of a mask with a bit per block */
#define SEGMENT_BYTES_MAX (64 * MIB)           /* the research's choice: ScyllaDB and Redpanda run here */
#define SLOTS_PER_MEMBER_MAX 262144u           /* 16 TiB of 64 MiB slots */
#define MEMBERS_MAX 16u                        /* present and removed together in one member table */
#define COPIES_MAX 4u
#define SLOTS_RETIRED_MAX 256u                 /* remembered for each member; a drive with more bad places is replaced */
#define SUPERBLOCK_COPIES 4u                   /* two at each end of the member */
#define SUPERBLOCK_BYTES (4u * BLOCK_BYTES)
#define SEGMENTS_OPEN_MAX 8u                   /* segments open for new mail at one time */

/* --- message --- */
#ifndef IRONSPOOL_SMALL
#define ENVELOPE_BYTES_MAX ((uint32_t)(384 * KIB)) /* 1,000 recipients of 320 bytes and the sender */
#define BODY_INLINE_MAX ((uint32_t)(64 * KIB))     /* larger bodies stream as CHUNKs */
#else
#define ENVELOPE_BYTES_MAX ((uint32_t)(12 * KIB))
#define BODY_INLINE_MAX ((uint32_t)(8 * KIB))
#endif
#define CHUNK_BYTES_MAX BODY_INLINE_MAX
#define RECIPIENTS_PER_MESSAGE_MAX 1000u           /* Postfix's smtpd_recipient_limit */
#define MESSAGE_BYTES_MAX (1 * GIB)                /* ceiling of message_size_limit */
#define CHUNKS_PER_MESSAGE_MAX ((uint32_t)(MESSAGE_BYTES_MAX / CHUNK_BYTES_MAX))
#define ADDRESS_BYTES_MAX 320u                     /* 64 local + @ + 255 domain, RFC 5321 4.5.3.1 */
#define REASON_BYTES_MAX 512u                      /* one reply line kept with a deferral */

/* --- alias tables of the relay --- */
#define ALIAS_ENTRIES_MAX 1000000u      /* names in all files of alias_maps, and of virtual_alias_maps */
#define ALIAS_TARGETS_MAX 4000000u      /* right sides in all of them: 160 MiB of addresses of 40 bytes */
#define ALIAS_EXPANSION_MAX RECIPIENTS_PER_MESSAGE_MAX /* what one recipient may become: one stored body, one envelope */
#define ALIAS_DEPTH_MAX 100u            /* aliases of aliases: beyond it is a mistake, not a hierarchy */
#define ALIAS_STEPS_MAX 16384u          /* names and addresses looked at for one recipient, repeated ones too: some ms */
#define ALIAS_LINE_BYTES_MAX (512u * 1024) /* one logical line: ALIAS_EXPANSION_MAX targets of full length */

/* --- wire between relay and spool --- */
#define WIRE_PAYLOAD_MAX (ENVELOPE_BYTES_MAX + BODY_INLINE_MAX + 4096u)
#define WIRE_APPEND_BYTES_CREDIT ((uint32_t)(8 * MIB)) /* appended, not yet acknowledged */
#define WIRE_DUE_CREDIT_MAX 2048u                      /* due items handed out, not yet returned */
#define WIRE_MARKS_MAX 4096u                           /* marks without acknowledgement; at the limit delivery pauses */
#define WIRE_QUEUE_IDS_LENT 4096u                      /* queue ids lent to a relay at a time */

/* --- engine --- */
#define INDEX_RING_BYTES (8 * FRAME_BYTES_MAX) /* committed records the index has not taken yet */
/* Committed bytes the index may lag behind. Half a minute of a disk: what it cannot catch up with then is no burst. */
#define INDEX_LAG_BYTES_DEFAULT (512 * MIB)
#define IO_IN_FLIGHT_PER_MEMBER_MAX 64u
#define LOST_SAID_MAX 16384u                   /* messages told lost that are not told again in this mount; 1 MiB of ids */

_Static_assert(SEGMENTS_FREED_MAX * 16u <= FRAME_BYTES_MAX / 2, "a FREED fits one frame");
_Static_assert(ALIAS_LINE_BYTES_MAX > ALIAS_EXPANSION_MAX * (ADDRESS_BYTES_MAX + 2u), "the longest list is one line");
_Static_assert(FRAME_BYTES_MAX % BLOCK_BYTES == 0, "frames are whole blocks");
_Static_assert(ENVELOPE_BYTES_MAX + BODY_INLINE_MAX + FRAME_BYTES_MAX / 16 <= FRAME_BYTES_MAX, "a MESSAGE fits one frame");
_Static_assert(SEGMENT_BYTES_MIN >= FRAME_BYTES_MAX + BLOCK_BYTES, "a full frame fits the smallest segment");

#endif
