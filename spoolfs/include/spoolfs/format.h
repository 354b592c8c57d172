/* SPDX-License-Identifier: Apache-2.0 */
/* Every structure on disk. Little-endian, alignment 1, sizes asserted. docs/FORMAT.md tells the story.
 *
 * member:   superblock 0 | superblock 1 | slots ... | superblock 2 | superblock 3
 * slot:     image header (block 0) | frame | frame | ...
 * frame:    head (128 bytes) | records, each 16-byte aligned | block checks (8 bytes a block) | zero padding
 *           whole blocks; offset in the slot == offset in the segment
 * record:   head (80 bytes) | payload */
#ifndef SPOOLFS_FORMAT_H
#define SPOOLFS_FORMAT_H

#include <base/digest.h>
#include <base/ids.h>
#include <base/le.h>
#include <spoolfs/limits.h>

#define FORMAT_VERSION 1u

struct digest_disk { struct le64 lo, hi; };
struct id_disk { struct le64 incarnation, counter; }; /* queue ids and segment ids */

static inline struct digest_disk digest_disk_of(struct digest d)
{
    return (struct digest_disk){le64_of(d.lo), le64_of(d.hi)};
}
static inline struct digest digest_disk_get(struct digest_disk d)
{
    return (struct digest){le64_get(d.lo), le64_get(d.hi)};
}
static inline struct id_disk segment_id_disk_of(struct segment_id id)
{
    return (struct id_disk){le64_of(id.incarnation), le64_of(id.counter)};
}
static inline struct segment_id segment_id_disk_get(struct id_disk d)
{
    return (struct segment_id){le64_get(d.incarnation), le64_get(d.counter)};
}
static inline struct id_disk queue_id_disk_of(struct queue_id id)
{
    return (struct id_disk){le64_of(id.incarnation), le64_of(id.counter)};
}
static inline struct queue_id queue_id_disk_get(struct id_disk d)
{
    return (struct queue_id){le64_get(d.incarnation), le64_get(d.counter)};
}

/* --- superblock: SUPERBLOCK_BYTES each; the first eight bytes are what a prober sees --- */
#define SUPERBLOCK_MAGIC "IRONSPL1"

struct superblock_member_disk {
    uint8_t uuid[16];           /* all zero: unused entry */
    char name[32];
    char domain[128];
    struct le32 slot_count;
    uint8_t removed;            /* stays listed and is refused */
    uint8_t in_sync;            /* took part in the last update */
    uint8_t plan;               /* enum member_plan: what is to become of it */
    uint8_t spare;              /* takes no mail until another is lost */
    uint8_t covered;            /* lost, and a spare has taken its place */
    uint8_t slow_count;         /* how often it was slow within a day of slow_minutes; 0: never, as in pools of before */
    uint8_t stays_out;          /* 1: out until `member clear` */
    struct le32 slow_minutes;   /* pool clock, when it was last slow */
    uint8_t reserved[1];
};

enum member_plan {
    PLAN_STAYS,
    PLAN_EVACUATES,             /* takes nothing new, what it holds moves to others */
    PLAN_LEAVES,                /* the same, and it is removed when nothing is left there */
};

struct image_place_disk {       /* where one image lies */
    struct le16 member;         /* number in the member table; 0xffff: none */
    struct le16 verified;       /* in the segment table: low bits of the scrub pass that last read all of it; 0: never */
    struct le32 slot;
};

struct superblock_disk {
    char magic[8];
    struct digest_disk digest;  /* of everything behind it, to SUPERBLOCK_BYTES */
    struct le32 version;
    struct le32 copy;           /* 0 to SUPERBLOCK_COPIES - 1: a copy read in another's place is not counted twice */
    struct le64 features_incompat, features_compat;
    uint8_t pool_uuid[16];
    uint8_t member_uuid[16];
    struct le32 member_number;
    struct le32 slot_count;
    struct le64 slot_bytes;
    struct le64 slots_offset;   /* of slot 0 */
    struct le64 member_bytes;
    struct le32 durable_by;     /* enum io_durable_by, measured when the member was formatted */
    struct le32 copies;         /* of the pool, when it was made */
    struct le64 epoch;          /* raised by every writable mount and membership change; 0: formatted for this pool,
                                 * joins at its next mount, together with what its member table says of others */
    struct le64 update;         /* raised by every update; (epoch, update) orders superblocks */
    struct le64 incarnation;    /* of the last writable mount; 0: never mounted */
    struct le64 clock_ms;       /* pool clock at the update */
    struct le64 clean;          /* 1: unmounted cleanly */
    struct id_disk table;       /* segment that begins with the current TABLE; incarnation 0: none yet */
    struct image_place_disk table_images[COPIES_MAX];
    struct superblock_member_disk members[MEMBERS_MAX];
    struct le64 scrub_pass;     /* number of the pass under way or of the last one; 0: none yet */
    struct le64 scrub_started_ms, scrub_completed_ms; /* wall clock; completed: of the last that missed nothing */
    struct le32 scrub_flags;    /* SCRUB_FLAG_* */
    struct le32 retired_count;  /* of this member: slots with a place that stays bad */
    struct le32 retired[SLOTS_RETIRED_MAX];
};
#define SCRUB_FLAG_PAUSED 1u
#define SCRUB_FLAG_RUNNING 2u

/* --- image header: block 0 of a slot --- */
#define IMAGE_MAGIC UINT64_C(0x314745534c505349) /* "ISPLSEG1" */

enum segment_kind { SEGMENT_MAIL = 1, SEGMENT_TABLE = 2 };

struct image_head_disk {
    struct digest_disk digest;  /* of everything behind it, to BLOCK_BYTES */
    struct le64 magic;
    struct le32 version;
    struct le32 kind;
    uint8_t pool_uuid[16];
    uint8_t member_uuid[16];
    struct id_disk segment;
    struct le32 slot;
    struct le32 image_count;
    struct image_place_disk images[COPIES_MAX];
};

/* --- frame --- */
#define FRAME_MAGIC UINT64_C(0x314d415246505349) /* "ISPFRAM1" */

struct frame_head_disk {
    struct digest_disk digest;  /* of the head behind it */
    struct le64 magic;
    struct le32 version;
    struct le32 blocks;         /* of the whole frame */
    struct le32 records_end;    /* bytes from the frame's start: end of records, start of the checks */
    struct le32 record_count;
    struct id_disk segment;
    struct le64 offset;         /* of the frame in the segment */
    struct le64 sequence;       /* of its first record; pool-wide */
    struct le64 stamp_ms;       /* pool clock when it was sealed */
    struct digest_disk checks;  /* digest of the block checks and the padding behind them */
    struct le64 previous;       /* low half of the digest of the frame before it; 0 for the first */
    struct le64 moved_from;     /* counter of the compaction's victim, with moved_incarnation; 0: none */
    struct le64 moved_incarnation;
    struct le64 reserved;
};

/* --- record --- */
#define RECORD_MAGIC UINT32_C(0x44524352) /* "RCRD" */
#define RECORD_ALIGN 16u

enum record_flag {
    RECORD_MOVED = 1, /* copied by compaction */
};

struct record_head_disk {
    struct digest_disk digest;  /* of everything behind it, to the record's length */
    struct le32 magic;
    uint8_t type;               /* enum record_type */
    uint8_t flags;
    struct le16 reserved;
    struct le32 length;         /* head and payload, without alignment */
    struct le32 envelope_bytes; /* MESSAGE */
    struct id_disk qid;
    struct id_disk message_segment; /* MARK, RETIRE, STATE: where their MESSAGE lay; zero: in this same segment */
    struct le64 sequence;
    struct le32 arg;
    struct le32 reserved2;
};

/* payloads of the segment table's records */
struct table_segment_disk {
    struct id_disk id;
    struct le64 length;         /* 0 while open */
    uint8_t kind;
    uint8_t state;              /* enum table_state */
    uint8_t image_count;
    uint8_t unproved;           /* bit i: image i was absent when recovery sealed the segment; with `holed`: here, and not healed */
    uint8_t unread;             /* enum table_unread: some bytes were bad on every image that was present */
    uint8_t chunks_only;        /* 1: a half of the pool that ran apart has freed it: its MESSAGEs do not count */
    uint8_t provisional;        /* 1: holds nothing; what was copied into it counts from a SEAL without this on */
    uint8_t holed;              /* bit i: places of image i are known to be bad that another one has, or may have */
    struct image_place_disk images[COPIES_MAX];
};
enum table_unread { TABLE_UNREAD_UNFED = 1, TABLE_UNREAD = 2 }; /* the index had to do without them; it has had them before */
enum table_state { TABLE_OPEN = 1, TABLE_SEALED = 2, TABLE_SEALED_BY_RECOVERY = 3 };

/* last_table: counter of the newest table segment of that incarnation which whoever wrote this has read, or merged. */
struct table_incarnation_disk { struct le64 incarnation, high_water, last_table; };

/* RECORD_TABLE: this, then `incarnations` table_incarnation_disk, then `segments` table_segment_disk */
struct table_part_disk {
    struct le64 table;          /* number of the TABLE, rising */
    struct le32 part, parts;
    struct le32 incarnations, segments;
};
#define TABLE_PARTIAL 1u /* `arg` of its records: made from image headers; of what lies on members away since then it may name nothing */
/* RECORD_OPEN, RECORD_SEAL: one table_segment_disk. RECORD_FREED: a row of id_disk. */

#define FRAME_HEAD_BYTES 128u
#define RECORD_HEAD_BYTES 80u
_Static_assert(sizeof(struct frame_head_disk) == FRAME_HEAD_BYTES, "frame head");
_Static_assert(sizeof(struct record_head_disk) == RECORD_HEAD_BYTES, "record head");
_Static_assert(sizeof(struct superblock_member_disk) == 192, "superblock member");
_Static_assert(sizeof(struct superblock_disk) <= SUPERBLOCK_BYTES, "superblock");
_Static_assert(sizeof(struct image_head_disk) <= BLOCK_BYTES, "image header");
_Static_assert(sizeof(struct table_segment_disk) == 64, "table entry");

#endif
