/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a connection on their way: one recv when readable, one send at the end of the turn, TLS in between over
 * memory. Owns the scratch. Invariants in conn.h and conn_parts.h. */
#include "conn_parts.h"

#include "tls.h"

#include <base/assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_BYTES (64u * 1024)
#define INPUT_KEPT_MAX (64u * 1024)      /* unconsumed bytes of one connection, plus one scratch */
#define LINGER_BYTES_MAX (4u * 1024 * 1024) /* a peer that keeps talking is cut off */
#define BUFFER_BYTES_MIN 512u

/* one thread, and nothing reads while something offers */
static uint8_t g_scratch[SCRATCH_BYTES];
static uint8_t g_plain[SCRATCH_BYTES];

bool conn_bytes_add(struct bytes *b, const void *from, size_t len)
{
    if (b->start + b->len + len > b->capacity) {
        if (b->start > 0) {
            memmove(b->at, b->at + b->start, b->len);
            b->start = 0;
        }
        size_t capacity = b->capacity ? b->capacity : BUFFER_BYTES_MIN;
        while (capacity < b->len + len)
            capacity *= 2;
        if (capacity > b->capacity) {
            uint8_t *at = realloc(b->at, capacity);
            if (!at)
                return false;
            b->at = at;
            b->capacity = capacity;
        }
    }
    memcpy(b->at + b->start + b->len, from, len);
    b->len += len;
    return true;
}

void conn_bytes_take(struct bytes *b, size_t len)
{
    ASSERT(len <= b->len);
    b->start += len;
    b->len -= len;
    if (b->len == 0) { /* CON-4 */
        free(b->at);
        *b = (struct bytes){0};
    }
}

/* --- in --- */

static size_t offer_bytes(struct conn *c, const uint8_t *bytes, size_t len)
{
    bool was_plain = !c->tls;
    c->offering = true;
    size_t used = c->cb->on_bytes(c->owner, bytes, len);
    c->offering = false;
    ASSERT(used <= len);
    if (was_plain && c->tls && used < len && !conn_deaf(c)) { /* CON-1: a handshake began over bytes already here */
        conn_end(c, ERR_INVALID, "plaintext before the handshake");
        return len;
    }
    return used;
}

static void offer_kept(struct conn *c)
{
    size_t used = offer_bytes(c, c->in.at + c->in.start, c->in.len);
    conn_bytes_take(&c->in, used);
}

static void offer_new(struct conn *c, const uint8_t *bytes, size_t len)
{
    if (c->in.len > 0) {
        if (conn_bytes_add(&c->in, bytes, len))
            offer_kept(c);
        else
            conn_end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    size_t used = offer_bytes(c, bytes, len);
    if (used < len && !conn_deaf(c) && !conn_bytes_add(&c->in, bytes + used, len - used))
        conn_end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
}

static void read_tls(struct conn *c)
{
    while (!conn_deaf(c) && !c->handshaking && !c->paused && c->in.len < INPUT_KEPT_MAX) {
        size_t len = 0;
        enum err e = tls_session_read(c->tls, g_plain, sizeof g_plain, &len);
        if (e == ERR_BUSY)
            break;
        if (e == ERR_CANCELED) {
            c->eof = true;
            conn_end(c, ERR_OK, "TLS session closed");
        } else if (e) {
            conn_end(c, ERR_SYSTEM, tls_session_text(c->tls));
        } else {
            offer_new(c, g_plain, len);
        }
    }
    if (!c->dead)
        loop_defer(c->loop, &c->task); /* OpenSSL may have something to say */
}

static void step_handshake(struct conn *c)
{
    enum err e = tls_session_handshake(c->tls);
    loop_defer(c->loop, &c->task);
    if (e == ERR_BUSY)
        return;
    if (!e)
        c->handshaking = false;
    if (!c->left)
        c->cb->on_tls(c->owner, e, tls_session_text(c->tls));
}

static void feed_tls(struct conn *c, size_t len)
{
    if (tls_session_feed(c->tls, g_scratch, len)) {
        conn_end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    if (c->handshaking)
        step_handshake(c);
    if (!conn_deaf(c) && !c->handshaking)
        read_tls(c);
}

static void drain(struct conn *c)
{
    ssize_t n = recv(c->watch.fd, g_scratch, sizeof g_scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->lingered += n > 0 ? (uint64_t)n : 0;
    if (n <= 0 || c->lingered > LINGER_BYTES_MAX)
        c->dead = true;
}

void conn_receive(struct conn *c)
{
    if (c->lingering) {
        drain(c);
        return;
    }
    if ((c->paused && !c->handshaking) || conn_deaf(c)) { /* CON-5 */
        conn_set_watch(c, false, c->writing);
        return;
    }
    if (c->in.len >= INPUT_KEPT_MAX) {
        conn_end(c, ERR_TOO_LARGE, "more input than anybody takes");
        return;
    }
    ssize_t n = recv(c->watch.fd, g_scratch, sizeof g_scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        conn_end_errno(c, errno);
        return;
    }
    if (n == 0) {
        c->eof = true;
        conn_end(c, ERR_OK, "connection closed");
        return;
    }
    c->read_at = loop_now_ms(c->loop);
    if (c->tls)
        feed_tls(c, (size_t)n);
    else
        offer_new(c, g_scratch, (size_t)n);
}

void conn_go_on_reading(struct conn *c)
{
    c->resume = false;
    if (c->paused || conn_deaf(c))
        return;
    c->read_at = loop_now_ms(c->loop);
    if (c->in.len > 0)
        offer_kept(c);
    if (c->tls && !conn_deaf(c))
        read_tls(c);
    if (!c->paused && !conn_deaf(c))
        conn_set_watch(c, true, c->writing);
}

/* --- out --- */

/* What is next for the wire; encrypts when the last ciphertext is gone. */
static size_t wire_output(struct conn *c, const uint8_t **bytes_out)
{
    if (!c->tls) {
        *bytes_out = c->out.at + c->out.start;
        return c->out.len;
    }
    size_t len = tls_session_output(c->tls, bytes_out);
    if (len > 0 || c->handshaking || c->out.len == 0)
        return len;
    size_t piece = c->out.len < SCRATCH_BYTES ? c->out.len : SCRATCH_BYTES;
    if (tls_session_write(c->tls, c->out.at + c->out.start, piece)) {
        c->broken = ERR_SYSTEM;
        c->broken_errno = EPROTO;
        return 0;
    }
    conn_bytes_take(&c->out, piece);
    return tls_session_output(c->tls, bytes_out);
}

static void output_done(struct conn *c)
{
    conn_set_watch(c, c->reading, false);
    if (!c->left) {
        if (!c->undrained || c->ended)
            return;
        c->undrained = false;
        if (c->cb->on_drained)
            c->cb->on_drained(c->owner);
        return;
    }
    if (c->lingering)
        return;
    if (c->eof || !conn_linger(c))
        c->dead = true;
}

void conn_flush_output(struct conn *c)
{
    const uint8_t *bytes = NULL;
    size_t len = 0;
    while ((len = wire_output(c, &bytes)) > 0) {
        ssize_t n = send(c->watch.fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            conn_set_watch(c, c->reading, true);
            return;
        }
        if (n < 0) {
            conn_end_errno(c, errno);
            return;
        }
        c->write_at = loop_now_ms(c->loop);
        if (c->tls)
            tls_session_output_taken(c->tls, (size_t)n);
        else
            conn_bytes_take(&c->out, (size_t)n);
    }
    if (!c->broken)
        output_done(c);
}
