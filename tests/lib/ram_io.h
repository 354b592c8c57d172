/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest world that keeps the seam's contract: members in memory, everything succeeds in submission order, time
 * moves only when asked to. For tests of single engine files; faults and hostile order are the simulator's. */
#ifndef RAM_IO_H
#define RAM_IO_H

#include <spoolfs/io.h>

#define RAM_TARGETS_MAX 8u
#define RAM_BAD_MAX 16u

struct ram_io {
    struct io io;
    struct io_target targets[RAM_TARGETS_MAX];
    uint8_t *bytes[RAM_TARGETS_MAX];
    uint32_t count;
    struct link queue;               /* submitted ops, in order */
    struct heap timers;
    struct heap_node *timer_nodes[4096];
    uint64_t now_ns, wall_ms, random;
    uint64_t submitted;              /* ops so far */
    bool held[RAM_TARGETS_MAX];      /* ops of this target are not answered */
    enum err fail[RAM_TARGETS_MAX];  /* every op of this target ends so */
    enum io_kind fail_kind;          /* with fail: only this kind, when fail_one_kind */
    bool fail_one_kind;
    enum err bad_answer;             /* to a read of a bad block; ERR_OK: ERR_MEDIA */
    struct { uint16_t target; bool stays; uint64_t offset; uint32_t times; bool used; } bad[RAM_BAD_MAX]; /* ram_io_make_bad */
    struct { uint64_t from, to; } fail_range[RAM_TARGETS_MAX]; /* with fail: only ops that begin there; 0, 0: all */
};

/* The block at `offset` cannot be read, until it is written, or (`stays`) for good, though writes succeed. */
void ram_io_make_bad(struct ram_io *r, uint16_t target, uint64_t offset, bool stays);
/* It cannot be read so many times, then it can. */
void ram_io_refuse(struct ram_io *r, uint16_t target, uint64_t offset, uint32_t times);

void ram_io_open(struct ram_io *r, uint32_t count, uint64_t bytes_each);
void ram_io_close(struct ram_io *r);
/* All outstanding ops vanish without an answer: what a crash leaves. */
void ram_io_forget(struct ram_io *r);

#endif
