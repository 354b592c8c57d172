/* SPDX-License-Identifier: Apache-2.0 */
/* Faults on a running pool: a world around a real one that lies about single operations of single members, by command
 * and for a limited time. It is made only when the configuration says fault_injection = yes; with no fault active every
 * operation goes straight through.
 *
 *  INJ-1  the contract of spoolfs/io.h (IO-1 to IO-8) holds whatever is injected: what is broken is the disk, never
 *         the seam. Time, timers and completions are the real world's; whoever turns that one turns this one.
 *  INJ-2  a fault touches only operations on its member, inside its range, while it lasts.
 *  INJ-3  every fault ends by itself (INJECT_SECONDS_MAX).
 *  INJ-4  what is injected is counted where it is done, never where it is planned.
 * It never invents an operation on another member, and holds nothing that outlives the process. */
#ifndef INJECT_IO_H
#define INJECT_IO_H

#include <base/prng.h>
#include <spoolfs/io.h>

/* X(NAME, "word", "text"). The words are those of faults.def and of `spooltool fault add`. */
#define INJECT_KINDS(X)                                                                                               \
    X(BIT_ROT, "bit-rot", "one bit of what is written or read is flipped; a flipped write stays")                     \
    X(TORN_WRITE, "torn-write", "a write says it succeeded and only some of its sectors changed")                     \
    X(LOST_WRITE, "lost-write", "a write says it succeeded and nothing changed")                                      \
    X(MISDIRECTED_WRITE, "misdirected-write", "a write lands in another place of the member")                         \
    X(MISDIRECTED_READ, "misdirected-read", "a read returns another place's bytes")                                   \
    X(STALE_READ, "stale-read", "a read returns what was there before the last write")                                \
    X(READ_ERROR, "read-error", "a read ends in an input/output error")                                               \
    X(MEDIA_ERROR, "media-error", "`rate` of the blocks cannot be read, always the same ones, until they are written")   \
    X(WRITE_ERROR, "write-error", "a write ends in an input/output error")                                            \
    X(FLUSH_ERROR, "flush-error", "a flush or a durable write ends in an input/output error")                         \
    X(FLUSH_LIE, "flush-lie", "a flush says it succeeded and nothing was flushed")                                    \
    X(SLOW, "slow", "every operation takes `factor` times as long")                                                   \
    X(ONE_ARM, "one-arm", "a disk with one arm: each operation seeks, waits for the platter and takes its turn")      \
    X(STALL, "stall", "operations are not answered while it lasts")                                                   \
    X(VANISH, "vanish", "the member is pulled")                                                                       \
    X(RETURN, "return", "a member that vanished is back as it was")                                                   \
    X(FULL, "full", "a write ends in no space")

enum inject_kind {
#define X(name, word, text) INJECT_##name,
    INJECT_KINDS(X)
#undef X
    INJECT_KIND_COUNT
};

#define INJECT_FAULTS_MAX 32u
#define INJECT_SECONDS_DEFAULT 60u
#define INJECT_SECONDS_MAX 86400u   /* a forgotten fault ends within a day */
#define INJECT_FACTOR_DEFAULT 100u
#define INJECT_FACTOR_MAX 1000000u
#define INJECT_STALE_BLOCKS 2048u   /* blocks whose earlier contents are remembered: 8 MiB; the oldest is forgotten */
#define INJECT_LATENCY_MIN_NS UINT64_C(100000) /* what `slow` multiplies when the device was faster */

struct inject_fault {
    uint32_t id;            /* given by inject_add */
    enum inject_kind kind;
    uint16_t target;
    double rate;            /* of the operations it could hit: above 0, at most 1; INJECT_MEDIA_ERROR: of the blocks */
    uint32_t factor;        /* INJECT_SLOW: times; INJECT_ONE_ARM: percent of the time a 7200 rpm disk takes */
    uint64_t from, to;      /* bytes of the member; to is exclusive */
    uint64_t seed;
    uint64_t until_ns;      /* io_now_ns when it ends */
    uint64_t injected;      /* operations so far */
    struct prng prng;       /* private */
    uint64_t blocks;        /* private; of the member when it was added */
    uint8_t *written;       /* private; INJECT_MEDIA_ERROR: a bit for each block written since, which the drive has put elsewhere */
};

struct inject_hooks {
    void *owner;
    /* The fault is over: its time has come, or it was cleared. Not called by inject_io_close. */
    void (*ended)(void *owner, const struct inject_fault *f, bool cleared);
};

struct inject_io;

const char *inject_kind_word(enum inject_kind kind);
const char *inject_kind_text(enum inject_kind kind);
enum err inject_kind_parse(const char *word, enum inject_kind *kind_out) MUST_CHECK; /* ERR_NOT_FOUND */

enum err inject_io_open(struct io *under, const struct inject_hooks *hooks, struct inject_io **inject_out) MUST_CHECK;
struct io *inject_io_door(struct inject_io *inject);
/* Only memory goes: the real world is closed before, so that no operation is on its way into it. */
void inject_io_close(struct inject_io **inject);

/* id, injected and prng are set here. ERR_BUSY: INJECT_FAULTS_MAX are active; ERR_INVALID: it makes no sense;
 * ERR_NOT_FOUND: RETURN, and the member had not vanished. A RETURN is not kept: it ends the member's VANISH. */
enum err inject_add(struct inject_io *inject, const struct inject_fault *wanted, uint32_t *id_out) MUST_CHECK;
#define INJECT_ANY_TARGET UINT16_MAX
/* Ends the faults of this member (INJECT_ANY_TARGET) with this id (0: any). Returns how many. */
uint32_t inject_clear(struct inject_io *inject, uint16_t target, uint32_t id);
uint32_t inject_count(const struct inject_io *inject);
const struct inject_fault *inject_at(const struct inject_io *inject, uint32_t i); /* i < inject_count; oldest first */
uint64_t inject_total(const struct inject_io *inject); /* operations injected into since it was opened */

#endif
