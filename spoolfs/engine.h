/* SPDX-License-Identifier: Apache-2.0 */
/* Private to spoolfs: the engine's objects and what the files on the way of a message ask of each other. Read
 * ARCHITECTURE.md first. Beside it stand mount.h (blocking: mount, create, check), images.h (reading and repairing frames),
 * compact.h (the end of segments) and upkeep_parts.h (background work).
 *
 *  COM-1  a group is acknowledged only when its frame is durable on every image of its segment.
 *  COM-2  one committing frame in flight per open segment; acknowledged frames form an unbroken prefix.
 *  COM-3  a segment never loses an image while it is open: it is closed, and what was not acknowledged is committed
 *         again elsewhere, after the SEAL of the closed segment is durable (so no second copy of it ever counts).
 *  SEG-1  a segment takes frames only after its OPEN is durable in the table.
 *  SEG-2  a slot is claimed only when no op is outstanding on it and the FREED of its last owner is durable. */
#ifndef ENGINE_H
#define ENGINE_H

#include "dispatch.h"
#include "frame.h"
#include "health.h"
#include "throttle.h"
#include "verify.h"

#include <base/assert.h>
#include <base/link.h>
#include <spoolfs/format.h>
#include <spoolfs/pool.h>
#include <spoolfs/spool.h>

#define NO_MEMBER UINT8_MAX
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* A frame's write is called late after this; a choice between Pebble's 100 ms and drives with arms (their p99 under
 * load is below 500 ms); learned latencies raise it, nothing lowers it. */
#define COMMIT_DEADLINE_NS (250 * NS_PER_MS)
#define MEMBER_WRITE_ERRORS_MAX 3u   /* in a row, then the member is failed: one bad spot is not a bad disk */
#define APPENDERS_MAX (SEGMENTS_OPEN_MAX + 2) /* those for new mail, the segment table's, compaction's */
#define APPENDER_TABLE 0             /* appenders[0] writes the segment table */
#define APPENDERS_BULK_MAX 3u        /* for CHUNKs: three frames in flight keep two fast devices busy, a fourth adds nothing */
#define BULK_WRITE_NS_MAX (4 * NS_PER_MS) /* median write; above it arms or a quota decide, and one place at a time is best */
#define SPOOL_TABLE ((enum spool_class)(SPOOL_COMPACTION + 1)) /* takes the very last slot */
/* An append that has no durable place by now is answered with an error instead of waiting for a person; below the
 * relay's 30 s. Whether it is on disk is then open, as RFC 5321 6.1 allows: the sender tries again. */
#define COMMIT_GIVE_UP_NS (20 * NS_PER_S)
#define FRAME_SLOTS (APPENDERS_MAX * 2 + 4) /* building and in flight, and some pinned under late writes */
#define SLOT_RETIRED UINT32_MAX      /* in member.slot_owner: a place in it stays bad, or it is under trial */
#define READS_IN_FLIGHT_MAX 16u
#define LATENCY_BUCKETS 64u          /* quarter powers of two from 1 us: 64 reach 65 s */

struct latency { uint64_t count[LATENCY_BUCKETS]; uint64_t total; };

/* What the superblocks remember of the scrub. */
struct scrub_saved {
    uint64_t pass, started_ms, completed_ms; /* of the pass under way or the last one */
    bool paused, running;
};

struct superblock {
    struct uuid pool, member;
    uint32_t version, copy, member_number, slot_count, copies;
    uint64_t slot_bytes, slots_offset, member_bytes;
    enum io_durable_by durable_by;
    uint64_t epoch, update, incarnation, clock_ms;
    bool clean;
    struct segment_id table;
    struct { uint16_t member; uint32_t slot; } table_images[COPIES_MAX];
    struct scrub_saved scrub;
    uint32_t retired_count, retired[SLOTS_RETIRED_MAX];
    struct {
        struct uuid uuid;
        char name[MEMBER_NAME_BYTES];
        char domain[DOMAIN_BYTES];
        uint32_t slot_count;
        bool used, removed, in_sync, spare, covered, stays_out;
        uint8_t slow_count;
        uint32_t slow_minutes;
        enum member_plan plan;
    } members[MEMBERS_MAX];
};

/* watch.c: what is seen of one member. */
#define WATCH_SLOW_PER_DAY 3u     /* then it stays out until cleared */
struct member_watch {
    struct latency window[HEALTH_KINDS];
    uint64_t busy_ns, errors_seen;
    uint32_t late_row, steers;    /* commits in a row that were late; how often mail was steered away */
    uint64_t answered_ns;         /* when mail's last commit was */
    uint64_t answered_begun_ns;   /* when the newest of those answered in time was begun */
    bool steered;                 /* new mail goes elsewhere: at least until then, and until probes are good (WAT-4) */
    uint64_t steer_until_ns;
    bool by_health;               /* SUSPECT because of health.c: only that takes it back */
    bool stays_out;
    bool of_before;               /* SLOW since the mount, for what it was in those before */
    uint64_t slow_ns[WATCH_SLOW_PER_DAY], pause_from_ns, probe_ns;
    uint32_t probes_good, pauses;
    char smart[128];              /* why the drive itself says that it fails; "": it does not */
};

/* upkeep.c: what background work may do on one member. */
struct upkeep_share {
    struct throttle throttle;
    int64_t tokens;               /* bytes it may still do; below zero: owed */
    int64_t own[IO_CLASS_COUNT];  /* of those a class's floor, which no better class takes */
    uint64_t floor[IO_CLASS_COUNT]; /* bytes a second */
    uint64_t asked_ns[IO_CLASS_COUNT]; /* when work of the class last asked; 0: never */
    uint64_t busy_since_ns;       /* while a background op is with the device */
    struct throttle_sample sample; /* of this interval */
};

struct member {
    struct pool *pool;
    uint8_t number;               /* in the member table */
    bool used, present;           /* present: has a target and is in service */
    uint16_t target;
    struct uuid uuid;
    char name[MEMBER_NAME_BYTES], path[256], domain[DOMAIN_BYTES], serial[64], evidence[160];
    enum member_state state;
    uint64_t since_ms;
    bool in_sync, removed, was_in_sync, behind;
    bool given_up;                /* removed as soon as the superblocks say so (ROS-5) */
    bool spare, covered, joined;  /* joined: by this mount */
    bool domain_named;            /* by the operator: it counts although disks may be shared */
    enum member_plan plan;
    uint64_t loaded_incarnation;  /* of its own superblock at mount */
    uint32_t superblock_good;     /* mask of good copies at mount */
    uint64_t slot_bytes, slots_offset, member_bytes;
    uint32_t slot_count, slots_free, slot_cursor;
    uint32_t *slot_owner;         /* segment index + 1; 0: free */
    uint8_t *slot_busy;           /* ops outstanding */
    uint32_t retired_count, retired[SLOTS_RETIRED_MAX]; /* as in its superblocks */
    uint8_t *slot_writes;         /* of these, writes a mount gave up on: MEM-3 */
    enum io_durable_by durable_by;
    uint32_t write_errors_in_row;
    uint64_t errors_read, errors_write, errors_flush, errors_checksum, errors_identity, errors_timeout;
    uint64_t repaired_blocks, writes, write_bytes, flushes, reads, read_bytes;
    struct latency write_latency, read_latency;
    uint32_t ops;                 /* outstanding */
    struct link commits;          /* outstanding member_ops of IO_CLASS_COMMIT, oldest first */
    struct link durables;         /* outstanding flushes and durable writes, in the order of their numbers: MEM-4 */
    uint64_t durable_asked, durable_failed; /* the last number; how many failed */
    uint32_t update_failures;     /* superblock copies that failed in this update */
    bool suspect_late;            /* SUSPECT because of lateness, not errors */
    uint32_t slow_count;          /* how often it left as SLOW, in mounts within a day too */
    uint32_t slow_minutes;        /* pool clock, when it last did */
    uint64_t left_ns;
    uint64_t refused_since_ns;    /* it refuses every read since then, and says nothing of its medium; 0: it does not */
    struct member_op *heartbeat;  /* a read that shows a pulled disk nobody talks to */
    uint8_t *heartbeat_block;
    bool probing;                 /* it is out */
    uint64_t heard_ns;            /* when an op was last answered */
    struct upkeep_share share;
    struct dispatch dispatch;
    struct member_watch watch;
};

/* An op on a member: statistics, slot accounting, then done. */
struct member_op {
    struct io_op op;
    struct link out;              /* in member.commits */
    struct link durable_out;      /* in member.durables */
    uint64_t durable_number;
    struct member *member;
    uint32_t slot;                /* UINT32_MAX: outside the slots */
    bool mail;                    /* somebody waits for it: commits and deliveries, not the engine's own writes */
    void (*done)(struct member_op *m);
    void *owner;
};

struct image {
    uint8_t member;
    bool bad;                     /* a place of it stayed bad after a repair: made again elsewhere, the slot is retired */
    bool unproved;                /* absent when recovery sealed the segment, or not healed: may be shorter, or, not `holed`, longer */
    bool holed;                   /* places of it are known to be bad that another one has, or may have (EVI-2) */
    uint16_t verified;            /* low 16 bits of the pass in which the scrub last read all of it; 0: never */
    uint32_t slot;
};

enum segment_state {
    SEGMENT_UNUSED,
    SEGMENT_OPENING,  /* image headers and OPEN are on their way */
    SEGMENT_OPEN,     /* takes frames */
    SEGMENT_CLOSED,   /* takes none; SEAL is on its way */
    SEGMENT_SEALED,
    SEGMENT_FREEING,  /* FREED is on its way */
};

struct segment {
    struct segment_id id;
    enum segment_kind kind;
    enum segment_state state;
    bool table_known;             /* its OPEN is durable, or is in the next TABLE (adopted) */
    bool adopted;                 /* image headers told of it, at this mount (REC-5) */
    bool provisional;             /* holds nothing yet: it counts when a record has freed what it was copied from (EXC-1) */
    bool chunks_only;             /* another half has freed it: of its records only CHUNKs count (MRG-1) */
    bool by_recovery;
    bool compacting;
    uint8_t repairing;            /* mask of images a repair writes to: not read meanwhile */
    bool rebuilding;
    uint8_t rebuild_failures;     /* in a row */
    uint64_t rebuild_after_ns;    /* not tried again before */
    bool compacted;               /* all that was needed of it lies elsewhere: dead whatever its deps say */
    uint64_t copies_bytes;        /* of it that a compaction wrote */
    uint64_t compact_after_ns;    /* not a victim before */
    uint64_t opened_ns;           /* in this mount */
    bool compact_first;           /* what was moved out of it cannot go before it does */
    bool close_soon;              /* open, and an image has a bad frame: sealed so that it can be repaired */
    bool suspicious;              /* a read failed here, or nearby: the scrub looks at once */
    uint32_t missed_members;      /* mask: their images could not be looked at when it tried */
    uint64_t look_again_ns;       /* not before, where something was missed */
    uint64_t evidence_ns;         /* when evidence last led here */
    bool loss_listed;             /* a look had what no image has listed by id in this mount */
    uint64_t mend_look_ns;        /* repairs were begun: looked at once more when they are over, not before this; 0: none were */
    uint8_t mend_looks;           /* in a row that began some */
    bool unread;                  /* bytes of it were bad on every image that was here: an absent one may hold them */
    bool unfed;                   /* and the index had to do without them */
    bool in_doubt;                /* bytes of it were refused by a member that is here: kept until the next mount has read it */
    bool dirty;                   /* statistics changed: look whether it can be freed */
    uint8_t image_count;
    struct image images[COPIES_MAX];
    uint64_t length;              /* acknowledged bytes, image header included */
    uint64_t previous;            /* low half of the last acknowledged frame's digest */
    uint64_t fed;                 /* bytes the index was fed */
    uint32_t refs;                /* walks and reads under way */
    uint32_t leased;
    uint32_t live_messages, live_chunks;
    uint64_t live_bytes;
    bool counted;                 /* the index has told about it */
    uint64_t told;                /* bytes of it that its counts include: at most `fed` */
    struct segment_id *deps;
    uint32_t dep_count;
    bool deps_overflowed;
    uint32_t hash_next;           /* index + 1 */
    void (*opened)(struct segment *s, enum err e);
    void *opener;
    struct opening *opening;      /* image headers under way */
};

struct append_frame {
    struct pool *pool;
    struct appender *appender;
    struct segment *segment;
    struct frame frame;
    uint8_t *buffer;
    struct link groups;           /* of struct spool_group, in order */
    struct segment_id moved_from;
    uint64_t offset;
    uint32_t blocks;
    struct digest digest;
    struct member_op ops[COPIES_MAX];
    uint32_t pending, late_mask;
    bool in_flight, failed, orphaned; /* orphaned: its groups went elsewhere, its buffer waits for late writes */
    struct io_timer deadline;
    uint64_t submitted_ns;
    uint64_t born_ns;             /* when its first group came */
};

struct appender {
    struct pool *pool;
    uint8_t number;
    bool used;
    bool bulk;                    /* takes CHUNKs, so that they do not wait for each other nor small mail for them */
    bool moves;                   /* takes what compactions move, and nothing else (SPO-2) */
    enum segment_kind kind;
    struct segment *segment;      /* open, or NULL */
    struct segment *next;         /* opened ahead, or opening */
    struct append_frame *building, *flight;
    bool waits_for_seal;          /* COM-3 */
    struct segment_id sealing;    /* of this one */
    bool reopen;                  /* its segment was given up because of a member: the next is opened whether mail waits or not */
    uint32_t avoid_mask;          /* members the next segment must not use (hedge) */
    enum spool_class want_class;
    uint64_t retry_ns;            /* no segment to be had before this */
};

struct incarnation { uint64_t incarnation, high_water, last_table; };

/* table.c; what the table says is in table.h */
struct table_group {
    struct link link;
    struct spool_group group;
    struct spool_record records[2];
    void (*done)(struct table_group *t, enum err e);
    struct pool *pool;
    struct segment *segment;
    uint8_t payload[64];
    uint8_t *heap;                /* a row of ids */
};

/* Visits the frames of a segment in order, from any image, never blocking. */
struct walk {
    struct pool *pool;
    struct segment *segment;
    uint64_t offset, end;      /* bytes of the segment still to visit */
    enum io_class class;
    /* Each good frame; the walk rests until walk_next. on_lost: no image has a whole frame here, bytes are skipped. */
    void (*on_frame)(struct walk *w, const struct frame_view *frame);
    void (*on_lost)(struct walk *w, uint64_t offset, uint64_t bytes);
    void (*on_end)(struct walk *w);
    void *owner;
    /* private */
    uint8_t *window[COPIES_MAX];
    uint64_t window_at;
    uint32_t window_bytes[COPIES_MAX], want;
    uint8_t *whole;
    struct walk_read *out[COPIES_MAX]; /* under way; owns its window meanwhile */
    uint64_t read_ns;          /* when they began */
    uint64_t unread[COPIES_MAX][FRAME_BLOCK_WORDS]; /* of the last read of all images: zeros, as nobody could read them */
    uint32_t late_mask;        /* images that did not answer in time */
    uint32_t image, pending;
    bool all, running, resting, stopped, ended;
    uint32_t refused;          /* rounds in which an image that may hold this place refused it */
    bool refusing;             /* one did in this round */
    bool in_doubt;             /* bytes were passed over that a member refused */
    bool unreadable;           /* no image could be read at all: walk_retry, or give up */
};

/* `named`, if set, when the superblocks of the members in `named_by` say it; `done` when those of all members in service do. */
struct superblock_wait {
    struct link link;
    void (*named)(struct superblock_wait *w);
    uint32_t named_by;
    void (*done)(struct superblock_wait *w);
    void *owner;
};

struct lease_table;
struct retire;
struct compaction;
struct exchange;
struct read_state;
struct lost;
struct rebuild;
struct roster;
struct scrub;

struct pool {
    struct io *io;
    struct pool_config config;
    struct uuid uuid;
    uint64_t epoch, update, incarnation, slot_bytes;
    uint64_t next_queue, next_segment, next_sequence, next_table;
    uint64_t open_submitted;      /* counter of the newest OPEN: TAB-4 */
    uint64_t clock_base_ms, clock_base_ns;
    bool mounted, stopping, read_only, clean_start;
    struct member members[MEMBERS_MAX];
    uint8_t member_of_target[MEMBERS_MAX];
    struct superblock *superblocks; /* by target, as they were at this mount */

    struct segment *segments;
    uint32_t segment_capacity, segment_used; /* segment_used: high-water of the array */
    uint32_t segment_count, segments_free_head; /* index + 1 */
    uint32_t *segment_hash, segment_hash_mask;

    struct incarnation *incarnations;
    uint32_t incarnation_count;

    struct appender appenders[APPENDERS_MAX];
    uint32_t appender_count;
    struct append_frame frames[FRAME_SLOTS];
    uint8_t *frame_memory;
    void (*on_room)(void *owner);
    void *on_room_owner;
    bool room_wanted;

    /* superblock.c */
    struct {
        bool running, again;
        uint32_t pending;
        uint64_t since_ns;
        uint32_t todo_mask;       /* members the running update waits for */
        uint32_t out_mask;        /* members with an op under way */
        uint32_t abandoned_mask;  /* of those, the update no longer waits for them */
        uint32_t deferred_mask;   /* members whose update begins when the scrub's read there is back */
        uint8_t *memory;
        struct member_op ops[MEMBERS_MAX];
        struct link waiters;
        struct link current;
    } super;
    struct segment_id table_id;
    struct image table_images[COPIES_MAX];
    uint32_t table_image_count;
    struct segment *table_segment, *table_candidate;
    struct segment *table_old;    /* the one before, while superblocks may name it (TAB-6) */
    bool compact_stuck;           /* a compaction found no slot, and nothing was freed since */
    bool results_stuck;           /* results found none, and nothing was freed since (CMP-4) */
    struct append_frame *table_frame;
    uint32_t table_cursor, table_part;
    uint32_t table_parts_read, table_parts_missing; /* while one is loaded */
    struct superblock_wait table_wait;
    struct link table_queue;         /* of struct table_group, not yet in a frame */
    uint64_t table_retry_ns;
    bool table_renew;             /* something the table should say changed without a record of its own */
    bool table_rewriting;
    bool table_settling;          /* the table is in service, superblocks of members without a part of it are being written */
    uint64_t clean_flag;

    /* index */
    struct index *index;
    bool table_scanned;           /* the segment table of this mount comes from image headers */
    bool table_partial;           /* it did, now or in a mount before, and members are away since: it may not know what only they have */
    bool index_open, index_live, index_ready, index_replaying, index_rebuild, index_discard, index_damaged,
        index_full;
    uint64_t index_lag;           /* bytes of this mount that it has not taken; as of lag_next_ns */
    uint64_t lag_next_ns;
    uint64_t index_wait_ns;       /* since when new mail waits for it; 0: it does not */
    struct walk replay_walk;
    bool replay_walking, replay_stopping;
    uint8_t *replay_frame;        /* a frame that waits for room in the index */
    struct frame_view replay_view;
    uint64_t replay_bytes, replay_total, replay_retry_ns;
    uint64_t absent_wait_until_ns;
    uint64_t due_after_ms;
    uint32_t dirty_segments;
    struct retire *retire;

    struct lease_table *leases;
    struct compaction *compaction;
    struct exchange *exchange;
    struct rebuild *rebuild;
    struct lost *lost;
    bool lost_looked;             /* at what members given up held alone, in this mount and since the last one was */
    struct roster *roster;
    struct link rebuild_orphans;
    struct health health;
    uint64_t health_next_ns;
    uint32_t domain_slow;         /* mask of members whose whole failure domain is slow */
    struct link discards;         /* of member_op.out: each frees itself when it is answered */
    struct scrub *scrub;
    struct scrub_saved scrub_saved;
    uint64_t upkeep_next_ns, upkeep_floors_ns;
    /* Tests and the recorder of traces: told what each member's controller saw and said. */
    void (*upkeep_trace)(void *owner, const struct member *m, const struct throttle_sample *s, uint64_t tokens);
    void *upkeep_trace_owner;
    struct io_timer tick;

    struct link frame_orphans;    /* of struct frame_read: late parts of reads that ended without them */
    struct link walk_orphans;     /* of struct walk_read: late reads whose walk went on */
    struct link reads_waiting;
    uint32_t reads_in_flight;
    struct read_state *read_states;
    uint8_t *read_memory;
    struct link repairs;
    uint32_t repairs_count;

    uint64_t headroom_next_ns;
    bool full_said;
    bool headroom_full;           /* no new mail: the loss of a domain could not be absorbed (HDR-1) */
    uint64_t count_frames, count_records, count_hedges, count_compacted, count_lost;
    uint64_t live_messages_total;
    enum pool_state state;
    char text[256];
};

/* states.c / member.c */
void pool_event(struct pool *p, enum event_kind kind, struct member *m, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void member_set_state(struct member *m, enum member_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool member_usable(const struct member *m);           /* present and in a state that takes writes */
bool member_readable(const struct member *m);
bool member_kept(const struct member *m);             /* its superblocks are kept up to date: in service, spare, evacuating */
void member_submit(struct member *m, struct member_op *op);
void member_leave(struct member *m, enum member_state state, const char *why); /* out of service, now */
void members_watch(struct pool *p);                   /* lateness: suspect, slow, back again */
void member_fini(struct member *m);
bool member_peers_answer(const struct member *m);
uint64_t member_commit_age(const struct member *m);   /* of its oldest commit that is out; 0: none is */
bool member_late(const struct member *m);             /* a commit write is out for longer than COMMIT_DEADLINE_NS */
bool member_durables_answered(const struct member *m, uint64_t number); /* of those up to `number` none is out */
void latency_note(struct latency *l, uint64_t ns);
uint64_t latency_percentile(const struct latency *l, uint32_t percent);
void pool_update_state(struct pool *p);
uint32_t segment_images_readable(const struct pool *p, const struct segment *s); /* at all */
uint32_t segment_images_good(const struct pool *p, const struct segment *s);     /* that count as redundancy: one in each domain */
uint32_t segment_images_counting(const struct pool *p, const struct segment *s); /* as that, and will go on counting: mask */
uint32_t segment_images_apart(const struct pool *p, const struct segment *s, uint32_t mask); /* of `mask`, one in each domain */
uint32_t pool_domains_usable(const struct pool *p);
bool members_share_domain(const struct member *a, const struct member *b);

void member_probe(struct member *m, bool write, void (*done)(struct member_op *mo)); /* of the block nobody uses */

/* watch.c */
void watch_step(struct pool *p);
void watch_answered(struct member *m, const struct member_op *mo);
void watch_left_slow(struct member *m, const char *why);
void watch_remember(struct member *m, uint64_t clock_ms); /* what its superblocks tell, at a mount */
void watch_settle(struct member *m);                      /* who stays out does so from the mount on */
void watch_clear(struct member *m);
bool member_avoided(const struct member *m);          /* in service, but new mail goes elsewhere if it can */
uint64_t watch_stall_ns(const struct member *m);      /* a commit that is out for so long is looked at */
bool watch_stalled(struct member *m, uint64_t since_ns); /* by a commit begun then: it is avoided, from now on or already */

/* dispatch.c */
void dispatch_init(struct dispatch *d);
void dispatch_submit(struct member *m, struct member_op *op);
void dispatch_answered(struct member *m, const struct member_op *op);
void dispatch_run(struct member *m);                  /* after each answer */
uint32_t dispatch_piece(const struct member *m, uint32_t bytes); /* how much of a background read to ask for at once */

/* sync.c; what else it does is in mount.h */
void *sync_buffer(size_t bytes); /* BLOCK_BYTES aligned, aborts never: NULL when there is no memory */

/* superblock.c */
void superblock_encode(const struct superblock *s, uint8_t bytes[SUPERBLOCK_BYTES]);
enum err superblock_decode(const uint8_t bytes[SUPERBLOCK_BYTES], struct superblock *s_out) MUST_CHECK;
uint64_t superblock_offset(uint64_t member_bytes, uint32_t copy);
enum err superblock_load(struct io *io, uint16_t target, struct superblock *s_out, uint32_t *good_mask_out) MUST_CHECK;
/* Writes the pool's present state to every member in service, three of four copies proved by reading them back;
 * members that fail leave the pool. Callers during a running update are served by the next one. */
void superblock_update(struct pool *p, struct superblock_wait *w);
void superblock_read_back(struct pool *p, struct member *m); /* the scrub's read of a superblock is over */
void superblock_step(struct pool *p);                  /* stops waiting for members that left */

/* segment.c */
struct segment *segment_find(struct pool *p, struct segment_id id);
struct segment *segment_add(struct pool *p, struct segment_id id, enum segment_kind kind);
void segment_drop(struct pool *p, struct segment *s); /* forgets it and frees its slots */
bool segment_on_member(const struct segment *s, uint8_t member);
uint32_t segment_image_at(const struct segment *s, const struct image *place); /* COPIES_MAX: none of its images lies there */
uint32_t segment_members(const struct segment *s);     /* mask of those with an image */
static inline bool segment_is_empty_of_mail(const struct segment *s)
{
    return s->counted && s->live_messages == 0 && s->live_chunks == 0;
}
static inline bool segment_holed(const struct segment *s)
{
    bool holed = false;
    for (uint32_t i = 0; i < s->image_count; i++)
        holed = holed || s->images[i].holed;
    return holed;
}
uint64_t segment_image_offset(const struct pool *p, const struct image *i); /* on its member */
/* The caller sets (*segment_out)->opened and opener at once: opened() comes in a later turn. */
enum err segment_open(struct pool *p, enum segment_kind kind, enum spool_class class, uint32_t avoid_mask,
                      struct segment **segment_out) MUST_CHECK;
enum err segment_open_on(struct pool *p, enum segment_kind kind, const uint8_t members[COPIES_MAX], uint32_t count,
                         struct segment **segment_out) MUST_CHECK; /* exactly there, whatever the reserve */
/* An opening that waits for a late member fails; its writes keep their buffers until they come back. */
void segment_open_step(struct pool *p, struct segment *s);
void segment_open_leave(struct pool *p, struct segment *s); /* so does one that still waits for any: there is a better place */
void segment_opening_fini(struct segment *s);
void segment_forget_discards(struct pool *p); /* the io is gone */
uint32_t placement_want(const struct pool *p);         /* images of a new segment; 0: the policy allows none */
bool placement_possible(struct pool *p, enum spool_class class, uint32_t avoid_mask, enum err *why_out);
bool slot_take(struct member *m, uint32_t slot, struct segment *s);
bool slot_find(struct member *m, uint32_t *slot_out);
/* Owned by nobody from here on, and after the next mounts. The caller has taken it out of slots_free. */
void slot_retire(struct member *m, uint32_t slot);
void slots_stay_retired(struct member *m);             /* at mount, when every segment has its slots */
/* The table says so already. `image` == image_count: one is added. The old place is given up. */
void segment_replace_image(struct pool *p, struct segment *s, uint32_t image, struct image by);
/* At mount: it is not there. The last image takes its number. */
void segment_lose_image(struct pool *p, struct segment *s, uint32_t i);
void segment_drop_image(struct pool *p, struct segment *s, uint8_t member); /* the table says so already; no refs */
uint32_t slot_reserve(const struct member *m, enum spool_class class);
struct segment_id segment_next_id(struct pool *p);
uint32_t segment_index(const struct pool *p, const struct segment *s);

/* spool.c */
enum err spool_index_follows(const struct pool *p) MUST_CHECK; /* new mail needs an index that can */

/* commit.c */
void commit_step(struct pool *p);                      /* starts frames that gathered */
void commit_member_left(struct pool *p, struct member *m);
enum err commit_submit(struct appender *a, struct spool_group *g) MUST_CHECK;
void commit_close_segment(struct appender *a);
bool appender_waits(const struct appender *a);         /* what comes now would wait there: for a place, or behind a late commit */
bool commit_idle(const struct pool *p);
uint64_t group_bytes(const struct spool_group *g);
void commit_init(struct pool *p);
void appender_adopt(struct appender *a, struct segment *s);

/* table.c; what the table says is in table.h */
enum err table_submit(struct pool *p, enum record_type type, struct segment *s,
                      void (*done)(struct table_group *t, enum err e)) MUST_CHECK; /* OPEN, SEAL */
enum err table_submit_freed(struct pool *p, const struct segment_id *ids, uint32_t count,
                            void (*done)(struct table_group *t, enum err e)) MUST_CHECK;
/* One record group: SEAL of `s`, which is provisional no more, and FREED of the others. */
enum err table_submit_exchange(struct pool *p, struct segment *s, const struct segment_id *ids, uint32_t count,
                               void (*done)(struct table_group *t, enum err e)) MUST_CHECK;
void table_rewrite(struct pool *p);                    /* a new table segment; then the superblocks name it */
void table_step(struct pool *p);
bool table_busy(const struct pool *p);
uint32_t table_behind(const struct pool *p);          /* members whose superblocks do not name the table yet (TAB-6) */
void table_fini(struct pool *p);

/* replay.c */
void replay_committed(struct pool *p, struct append_frame *f);
bool replay_feed(struct pool *p, struct segment *s, const struct frame_view *f); /* false: no room in the index */
void replay_step(struct pool *p);
enum err replay_open(struct pool *p, bool discard) MUST_CHECK;
void replay_stop(struct pool *p);
void segment_note_stat(struct pool *p, const struct index_segment *stat); /* what the index counts in it */

#endif
