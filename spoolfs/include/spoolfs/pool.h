/* SPDX-License-Identifier: Apache-2.0 */
/* The pool: format, mount, status, stop. Mail goes through spool.h. One thread, one io. */
#ifndef SPOOLFS_POOL_H
#define SPOOLFS_POOL_H

#include <base/err.h>
#include <base/ids.h>
#include <spoolfs/index.h>
#include <spoolfs/io.h>
#include <spoolfs/limits.h>

struct pool;

enum pool_state {
#define POOL_STATE(name, word, text, action) POOL_##name,
#include <spoolfs/states.def>
#undef POOL_STATE
    POOL_STATE_COUNT
};
enum member_state {
#define MEMBER_STATE(name, word, text, action) MEMBER_##name,
#include <spoolfs/states.def>
#undef MEMBER_STATE
    MEMBER_STATE_COUNT
};
enum event_kind {
#define X(name, severity, text) EVENT_##name,
#include <spoolfs/events.def>
#undef X
    EVENT_COUNT
};
const char *pool_state_word(enum pool_state s);
const char *pool_state_text(enum pool_state s);
const char *pool_state_action(enum pool_state s);
const char *member_state_word(enum member_state s);
const char *member_state_text(enum member_state s);
const char *member_state_action(enum member_state s);
const char *io_class_word(enum io_class c);
const char *event_name(enum event_kind e);
const char *event_severity(enum event_kind e); /* "info", "warning", "critical" */
const char *event_text(enum event_kind e);

struct event {
    enum event_kind kind;
    uint64_t wall_ms;
    const char *member;     /* name, or "" */
    const char *serial;     /* of the member's disk, or "" */
    const char *evidence;   /* one line for people */
};

#define MEMBER_NAME_BYTES 32
#define DOMAIN_BYTES 128

struct pool_member_config {
    char name[MEMBER_NAME_BYTES];
    char path[256];
    char domain[DOMAIN_BYTES];    /* empty: the whole disk below, from io_target */
    bool spare;                   /* when it is formatted: takes no mail until another member is lost */
};

struct pool_config {
    uint32_t copies, min_copies;
    uint64_t degrade_after_ns, absent_wait_ns;
    uint64_t scrub_interval_ns;   /* 0: a day */
    uint64_t index_lag_limit;     /* bytes the index may lag behind while new mail is taken; 0: INDEX_LAG_BYTES_DEFAULT */
    uint64_t spare_after_ns;      /* how long a member is absent or slow before a spare takes its place; 0: a minute */
    uint32_t member_count;        /* io target i is member i */
    struct pool_member_config members[MEMBERS_MAX];
    struct uuid expected;         /* the pool that was mounted here before, if known: decides between two of equal size */
    bool share_disk;              /* members may lie on one disk; each without a named domain is its own: demonstration, tests */
    bool read_only;
    struct { void *owner; void (*emit)(void *owner, const struct event *e); } sink;
    /* How to make the index once the pool's identity is known. `discard`: start from nothing. */
    struct {
        void *owner;
        enum err (*open)(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                         struct index **index_out);
    } index;
};

struct pool_create_options {
    uint64_t segment_bytes;       /* 0: auto = member size / 256 within the limits */
    enum io_durable_by durable_by[MEMBERS_MAX];
    bool zero[MEMBERS_MAX];       /* zero-write the slots: files yes, devices no */
    void (*progress)(void *owner, uint32_t member, uint64_t done, uint64_t total);
    void *progress_owner;
};

/* Formats every member through the io. The caller has probed them (probe.h) and refused what must be refused;
 * two members on one disk, or too few failure domains for `copies`, are refused here; with share_disk only the latter.
 * On failure *text_out says which member and why. */
enum err pool_create(struct io *io, const struct pool_config *config, const struct pool_create_options *options,
                     struct uuid *pool_out, const char **text_out) MUST_CHECK;

/* A member that is to join a pool that exists: formatted for it, it joins at the pool's next mount. */
struct pool_candidate {
    struct uuid pool, replaces;   /* replaces: the member that leaves when this one has joined; none: all zero */
    uint64_t segment_bytes;       /* the pool's */
    uint32_t copies;
    struct pool_member_config member;
};
/* Formats one target; nothing of the pool changes before its mount (ROS-1). */
enum err pool_format_candidate(struct io *io, uint16_t target, const struct pool_candidate *candidate,
                               const struct pool_create_options *options, const char **text_out) MUST_CHECK;
/* What lies at a target: ERR_NOT_FOUND: no superblock. ERR_OK with *pool_out; *candidate_out: it waits to join. */
enum err pool_probe_member(struct io *io, uint16_t target, struct uuid *pool_out, bool *candidate_out) MUST_CHECK;

/* Blocks (turning the io) until the pool accepts mail: superblocks, table, tails, new incarnation. The index replays
 * behind. ERR_BELOW_POLICY when fewer than min_copies domains are there (read_only mounts still work). */
enum err pool_mount(struct io *io, const struct pool_config *config, struct pool **pool_out, const char **text_out) MUST_CHECK;

/* Finishes what is in flight, seals, writes a TABLE, closes the index; turns the io itself. */
void pool_unmount(struct pool **pool);
/* For crash tests: forget everything, write nothing. The io must not turn ops of this pool afterwards. */
void pool_abandon(struct pool **pool);

/* Call after each io_turn: starts frames that gathered, dispatches the index. */
void pool_step(struct pool *pool);

struct pool_member_status {
    char name[MEMBER_NAME_BYTES], path[256], domain[DOMAIN_BYTES], serial[64], evidence[160];
    struct uuid uuid;
    enum member_state state;
    uint64_t since_ms;
    uint64_t bytes_total, bytes_used;
    uint64_t errors_read, errors_write, errors_flush, errors_checksum, errors_identity, errors_timeout;
    uint64_t repaired_blocks;
    uint64_t write_p50_ns, write_p99_ns, read_p50_ns, read_p99_ns;
    uint64_t writes, write_bytes, flushes, reads, read_bytes;
    bool rotational, buffered;
    enum io_durable_by durable_by;
    struct { uint32_t waiting, in_flight; uint64_t ops, bytes; } io[IO_CLASS_COUNT]; /* ops, bytes: answered */
    /* Against its peers and its past: 100 nothing, 0 to be taken out; what counted against it last, or "".
     * of_before: it stays out since the mount, for what it was before. */
    struct { uint32_t score, steers; bool avoided, stays_out, of_before; char evidence[160]; } health;
    /* Of background work: what the throttle lets it do while mail flows, and what it compares mail with (0: not yet). */
    struct { uint64_t bytes_per_second, baseline_commit_ns, baseline_delivery_ns, cuts, raises; bool idle; } throttle;
};

struct pool_status {
    struct uuid uuid;
    enum pool_state state;
    char action[160];
    uint32_t copies, min_copies, member_count;
    uint64_t epoch, incarnation;
    uint64_t segment_bytes;             /* the size of a slot */
    uint64_t bytes_total, bytes_used, bytes_live, bytes_headroom;
    uint64_t bytes_free_for_mail;       /* what new mail may still take, envelope and padding not counted */
    uint32_t segments, segments_degraded;
    uint64_t messages, messages_below_copies, messages_lost;
    bool index_ready;
    double index_progress;              /* 0 to 1 while rebuilding or replaying */
    uint64_t index_replayed_bytes;
    bool index_full;                    /* its file system takes nothing more */
    bool lacks_domains;                 /* at-risk for nothing but this: as many failure domains as copies, as it was made */
    bool domains_wanting;               /* new mail has fewer images than `copies`: so few failure domains are in service */
    bool index_damaged;                 /* found while running: stop and mount again with the index discarded */
    uint64_t absent_wait_ms;            /* older mail still waits this long for an absent member */
    uint64_t frames, records, hedges, segments_compacted;
    enum err accepting;                 /* ERR_OK, or why new mail is refused now */
    struct pool_member_status members[MEMBERS_MAX];
};
void pool_status(struct pool *pool, struct pool_status *status_out);

/* The pool clock: advances with monotonic time, moves by at most an hour at mount. Milliseconds since 1970. */
uint64_t pool_clock_ms(struct pool *pool);

/* Offline verification of every image of every segment, on a read_only mount. Calls `found` for each fault and
 * returns ERR_OK when there was none, ERR_CORRUPT when all are repairable, ERR_LOST when a record has no good copy. */
struct pool_check_finding {
    const char *member;          /* name */
    struct segment_id segment;
    uint64_t offset;
    enum err fault;
    bool lost;                   /* no good image of these bytes, and none on a member that is away */
    /* Members that are away and may have these bytes, which are not lost before they were asked. */
    struct { const char *member, *serial; struct uuid uuid; } waits_for[COPIES_MAX];
    uint32_t waits_count;
    struct queue_id qid;         /* of the record, when known */
    const char *text;
};
struct pool_check_totals { uint64_t segments, images, frames, records, messages_live, bytes, faults, lost, waits; };
enum err pool_check(struct pool *pool, void *owner, void (*found)(void *owner, const struct pool_check_finding *f),
                    struct pool_check_totals *totals_out) MUST_CHECK;

#endif
