/* SPDX-License-Identifier: Apache-2.0 */
/* What conn.c and conn_io.c share. Nobody else includes this. Invariants in conn.h; besides:
 *
 *  CON-4  an idle connection holds no buffer: input is read into one shared scratch and only what the owner left is
 *         kept, output is freed when the kernel has it.
 *  CON-5  backpressure is lazy: the watch is changed only when bytes arrive that nobody wants, so a pause that ends
 *         before costs no system call.
 *  CON-6  a connection closed with `flush` reads and forgets until the peer closes too: closing over unread bytes would
 *         reset it and take the last reply away from the peer.
 *
 *  states: connecting -> open [connect_ended]; open -> handshaking [conn_start_tls] -> open [step_handshake];
 *          any -> ended [conn_end] -> gone [conn_close]; open -> flushing [conn_close] -> lingering [conn_linger] -> gone */
#ifndef RELAY_CONN_PARTS_H
#define RELAY_CONN_PARTS_H

#include "conn.h"

struct bytes {
    uint8_t *at;
    size_t start, len, capacity;
};

struct conn {
    struct link left_link; /* in g_left once the owner has left */
    struct loop *loop;
    const struct conn_callbacks *cb;
    void *owner;
    struct loop_watch watch;
    struct loop_task task;
    struct loop_timer timer;
    struct tls_session *tls;
    struct bytes in, out;
    uint64_t read_ms, write_ms, read_at, write_at, close_at, lingered;
    enum err broken;    /* found where no callback may be made; told by the task */
    int broken_errno;
    uint16_t depth;     /* of our functions above callbacks: freed at 0 only */
    bool connecting, handshaking, offering;
    bool paused, resume, reading, writing, undrained;
    bool eof, ended;    /* ended: on_closed was called */
    bool timed_out;     /* the peer may still read */
    bool left;          /* the owner called conn_close; no callback any more */
    bool lingering, dead;
};

/* --- conn.c --- */

void conn_set_watch(struct conn *c, bool read, bool write);
void conn_end(struct conn *c, enum err e, const char *text); /* nothing more will come of it */
void conn_end_errno(struct conn *c, int error);
void conn_break_later(struct conn *c, enum err e, int error); /* for places that may be inside the owner's call */
bool conn_deaf(const struct conn *c);
bool conn_linger(struct conn *c); /* its output is gone: waits for the peer's end (CON-6); false: it may not */

/* --- conn_io.c --- */

bool conn_bytes_add(struct bytes *b, const void *from, size_t len);
void conn_bytes_take(struct bytes *b, size_t len);
void conn_receive(struct conn *c);
void conn_go_on_reading(struct conn *c); /* a pause is over */
void conn_flush_output(struct conn *c);

#endif
