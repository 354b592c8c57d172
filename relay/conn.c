/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams: one recv when readable, one send at the end of the turn, TLS in between over memory. Owns sockets and
 * the bytes on their way. Invariants in conn.h; besides:
 *
 *  CON-4  an idle connection holds no buffer: input is read into one shared scratch and only what the owner left is
 *         kept, output is freed when the kernel has it.
 *  CON-5  backpressure is lazy: the watch is changed only when bytes arrive that nobody wants, so a pause that ends
 *         before costs no system call.
 *  CON-6  a connection closed with `flush` reads and forgets until the peer closes too: closing over unread bytes would
 *         reset it and take the last reply away from the peer.
 *
 *  states: connecting -> open [connect_ended]; open -> handshaking [conn_start_tls] -> open [step_handshake];
 *          any -> ended [end] -> gone [conn_close]; open -> flushing [conn_close] -> lingering [output_done] -> gone */
#include "conn.h"

#include "tls.h"

#include <base/assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRATCH_BYTES (64u * 1024)
#define INPUT_KEPT_MAX (64u * 1024)      /* unconsumed bytes of one connection, plus one scratch */
#define LINGER_MS 5000u
#define LINGER_BYTES_MAX (4u * 1024 * 1024) /* a peer that keeps talking is cut off */
#define LINGERING_MAX 1024u              /* beyond this many, connections are closed without waiting */
#define BUFFER_BYTES_MIN 512u

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

/* one thread, and nothing reads while something offers */
static uint8_t g_scratch[SCRATCH_BYTES];
static uint8_t g_plain[SCRATCH_BYTES];
static uint32_t g_lingering;
static struct link g_left; /* whose owners have left: nobody else knows them */

static bool bytes_add(struct bytes *b, const void *from, size_t len)
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

static void bytes_take(struct bytes *b, size_t len)
{
    ASSERT(len <= b->len);
    b->start += len;
    b->len -= len;
    if (b->len == 0) { /* CON-4 */
        free(b->at);
        *b = (struct bytes){0};
    }
}

static void destroy(struct conn *c)
{
    if (c->lingering)
        g_lingering--;
    if (link_linked(&c->left_link))
        link_remove(&c->left_link);
    loop_defer_cancel(&c->task);
    loop_timer_fini(&c->timer);
    loop_watch_remove(&c->watch);
    close(c->watch.fd);
    tls_session_close(&c->tls);
    free(c->in.at);
    free(c->out.at);
    free(c);
}

static void enter(struct conn *c)
{
    c->depth++;
}

static void leave(struct conn *c)
{
    ASSERT(c->depth > 0);
    if (--c->depth == 0 && c->dead)
        destroy(c);
}

static void set_watch(struct conn *c, bool read, bool write)
{
    if (c->reading == read && c->writing == write)
        return;
    c->reading = read;
    c->writing = write;
    loop_watch_change(&c->watch, read, write);
}

/* Nothing more will come of this connection. */
static void end(struct conn *c, enum err e, const char *text)
{
    if (c->left) { /* flushing or lingering: nobody to tell */
        c->dead = true;
        return;
    }
    if (c->ended)
        return;
    c->ended = true;
    set_watch(c, false, false);
    c->cb->on_closed(c->owner, e, text);
}

static void end_errno(struct conn *c, int error)
{
    end(c, ERR_SYSTEM, strerror(error));
}

/* For places that may be inside the owner's call. */
static void break_later(struct conn *c, enum err e, int error)
{
    if (!c->broken) {
        c->broken = e;
        c->broken_errno = error;
    }
    loop_defer(c->loop, &c->task);
}

static bool deaf(const struct conn *c)
{
    return c->left || c->ended || c->dead || c->broken;
}

static size_t offer_bytes(struct conn *c, const uint8_t *bytes, size_t len)
{
    bool was_plain = !c->tls;
    c->offering = true;
    size_t used = c->cb->on_bytes(c->owner, bytes, len);
    c->offering = false;
    ASSERT(used <= len);
    if (was_plain && c->tls && used < len && !deaf(c)) { /* CON-1: a handshake began over bytes already here */
        end(c, ERR_INVALID, "plaintext before the handshake");
        return len;
    }
    return used;
}

static void offer_kept(struct conn *c)
{
    size_t used = offer_bytes(c, c->in.at + c->in.start, c->in.len);
    bytes_take(&c->in, used);
}

static void offer_new(struct conn *c, const uint8_t *bytes, size_t len)
{
    if (c->in.len > 0) {
        if (bytes_add(&c->in, bytes, len))
            offer_kept(c);
        else
            end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    size_t used = offer_bytes(c, bytes, len);
    if (used < len && !deaf(c) && !bytes_add(&c->in, bytes + used, len - used))
        end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
}

static void read_tls(struct conn *c)
{
    while (!deaf(c) && !c->handshaking && !c->paused && c->in.len < INPUT_KEPT_MAX) {
        size_t len = 0;
        enum err e = tls_session_read(c->tls, g_plain, sizeof g_plain, &len);
        if (e == ERR_BUSY)
            break;
        if (e == ERR_CANCELED) {
            c->eof = true;
            end(c, ERR_OK, "TLS session closed");
        } else if (e) {
            end(c, ERR_SYSTEM, tls_session_text(c->tls));
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
        end(c, ERR_NO_MEMORY, err_text(ERR_NO_MEMORY));
        return;
    }
    if (c->handshaking)
        step_handshake(c);
    if (!deaf(c) && !c->handshaking)
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

static void receive(struct conn *c)
{
    if (c->lingering) {
        drain(c);
        return;
    }
    if ((c->paused && !c->handshaking) || deaf(c)) { /* CON-5 */
        set_watch(c, false, c->writing);
        return;
    }
    if (c->in.len >= INPUT_KEPT_MAX) {
        end(c, ERR_TOO_LARGE, "more input than anybody takes");
        return;
    }
    ssize_t n = recv(c->watch.fd, g_scratch, sizeof g_scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        end_errno(c, errno);
        return;
    }
    if (n == 0) {
        c->eof = true;
        end(c, ERR_OK, "connection closed");
        return;
    }
    c->read_at = loop_now_ms(c->loop);
    if (c->tls)
        feed_tls(c, (size_t)n);
    else
        offer_new(c, g_scratch, (size_t)n);
}

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
    bytes_take(&c->out, piece);
    return tls_session_output(c->tls, bytes_out);
}

static void output_done(struct conn *c)
{
    set_watch(c, c->reading, false);
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
    if (c->eof || g_lingering >= LINGERING_MAX || shutdown(c->watch.fd, SHUT_WR) != 0) {
        c->dead = true;
        return;
    }
    c->lingering = true;
    g_lingering++;
    set_watch(c, true, false);
}

static void flush_output(struct conn *c)
{
    const uint8_t *bytes = NULL;
    size_t len = 0;
    while ((len = wire_output(c, &bytes)) > 0) {
        ssize_t n = send(c->watch.fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            set_watch(c, c->reading, true);
            return;
        }
        if (n < 0) {
            end_errno(c, errno);
            return;
        }
        c->write_at = loop_now_ms(c->loop);
        if (c->tls)
            tls_session_output_taken(c->tls, (size_t)n);
        else
            bytes_take(&c->out, (size_t)n);
    }
    if (!c->broken)
        output_done(c);
}

static void go_on_reading(struct conn *c)
{
    c->resume = false;
    if (c->paused || deaf(c))
        return;
    c->read_at = loop_now_ms(c->loop);
    if (c->in.len > 0)
        offer_kept(c);
    if (c->tls && !deaf(c))
        read_tls(c);
    if (!c->paused && !deaf(c))
        set_watch(c, true, c->writing);
}

static void run_task(struct loop_task *t)
{
    struct conn *c = t->owner;
    enter(c);
    if (c->resume)
        go_on_reading(c);
    if (!c->broken && !c->dead && !c->connecting && (!c->ended || c->left))
        flush_output(c);
    if (c->broken && !c->dead)
        end(c, c->broken, c->broken_errno ? strerror(c->broken_errno) : err_text(c->broken));
    leave(c);
}

static void connect_ended(struct conn *c)
{
    int error = 0, on = 1;
    socklen_t len = sizeof error;
    if (c->broken) /* connect(2) said it at once; the task tells */
        return;
    if (getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error) {
        end_errno(c, error);
        return;
    }
    c->connecting = false;
    c->read_at = c->write_at = loop_now_ms(c->loop);
    setsockopt(c->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket refuses: no harm */
    set_watch(c, true, false);
    loop_defer(c->loop, &c->task); /* what was written meanwhile */
    c->cb->on_connected(c->owner);
}

static void watch_ready(struct loop_watch *w, bool readable, bool writable)
{
    struct conn *c = w->owner;
    enter(c);
    if (c->connecting) {
        connect_ended(c);
    } else {
        if (readable)
            receive(c);
        if (writable && !c->dead && (!c->ended || c->left))
            flush_output(c);
        if (c->broken && !c->dead)
            loop_defer(c->loop, &c->task);
    }
    leave(c);
}

static bool output_waits(struct conn *c)
{
    const uint8_t *ignored;
    return c->connecting || c->out.len > 0 || (c->tls && tls_session_output(c->tls, &ignored) > 0);
}

static uint64_t earlier(uint64_t deadline, uint64_t other)
{
    return deadline && deadline < other ? deadline : other;
}

static uint64_t next_deadline(struct conn *c)
{
    uint64_t deadline = c->close_at;
    if (c->left)
        return deadline;
    if (c->read_ms && (!c->paused || c->handshaking) && !c->connecting)
        deadline = earlier(deadline, c->read_at + c->read_ms);
    if (c->write_ms && output_waits(c))
        deadline = earlier(deadline, c->write_at + c->write_ms);
    return deadline;
}

static void timer_fired(struct loop_timer *t)
{
    struct conn *c = t->owner;
    uint64_t now = loop_now_ms(c->loop), deadline = next_deadline(c);
    if (c->ended && !c->left)
        return;
    enter(c);
    c->timed_out |= deadline && deadline <= now;
    if (deadline && deadline <= now)
        end(c, ERR_TIMEOUT, c->connecting ? "connection timed out" : "timeout");
    else if (deadline) /* activity moved it: the timer itself is moved only here */
        loop_timer_set(t, deadline - now);
    else if (c->read_ms || c->write_ms)
        loop_timer_set(t, earlier(c->read_ms, c->write_ms ? c->write_ms : UINT64_MAX));
    leave(c);
}

static enum err make(struct loop *loop, int fd, const struct conn_callbacks *cb, void *owner, bool connecting,
                     struct conn **conn_out)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NO_MEMORY;
    c->loop = loop;
    c->cb = cb;
    c->owner = owner;
    c->connecting = connecting;
    c->reading = !connecting;
    c->writing = connecting;
    c->read_at = c->write_at = loop_now_ms(loop);
    c->task = (struct loop_task){.run = run_task, .owner = c};
    c->watch = (struct loop_watch){.fd = fd, .ready = watch_ready, .owner = c};
    enum err e = loop_watch_add(loop, &c->watch, c->reading, c->writing);
    if (e) {
        free(c);
        return e;
    }
    loop_timer_init(loop, &c->timer, timer_fired, c);
    *conn_out = c;
    return ERR_OK;
}

enum err conn_accept(struct loop *loop, int fd, const struct conn_callbacks *cb, void *owner, struct conn **conn_out)
{
    return make(loop, fd, cb, owner, false, conn_out);
}

enum err conn_connect(struct loop *loop, const struct sockaddr *to, socklen_t to_len, const struct conn_callbacks *cb,
                      void *owner, struct conn **conn_out)
{
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? ERR_NO_FD : ERR_SYSTEM;
    int error = connect(fd, to, to_len) == 0 ? 0 : errno;
    enum err e = make(loop, fd, cb, owner, true, conn_out);
    if (e) {
        close(fd);
        return e;
    }
    if (error && error != EINPROGRESS) /* the owner has no conn yet: told from the task */
        break_later(*conn_out, ERR_SYSTEM, error);
    return ERR_OK;
}

/* After the peer's end, or a timeout, there may still be a last word. */
static bool can_write(const struct conn *c)
{
    return !c->broken && (!c->ended || c->eof || c->timed_out);
}

void conn_write(struct conn *c, const void *bytes, size_t len)
{
    ASSERT(!c->left);
    if (!can_write(c) || len == 0)
        return;
    if (c->out.len == 0)
        c->write_at = loop_now_ms(c->loop);
    if (!bytes_add(&c->out, bytes, len)) {
        break_later(c, ERR_NO_MEMORY, 0);
        return;
    }
    c->undrained = true;
    loop_defer(c->loop, &c->task);
}

size_t conn_queued_bytes(const struct conn *c)
{
    const uint8_t *ignored;
    return c->out.len + (c->tls ? tls_session_output(c->tls, &ignored) : 0);
}

void conn_pause(struct conn *c, bool paused)
{
    if (c->paused == paused)
        return;
    c->paused = paused;
    if (!paused) {
        c->resume = true;
        loop_defer(c->loop, &c->task);
    }
}

void conn_set_timeout_ms(struct conn *c, uint64_t read_ms, uint64_t write_ms)
{
    uint64_t now = loop_now_ms(c->loop);
    c->read_ms = read_ms;
    c->write_ms = write_ms;
    uint64_t soonest = read_ms && (!write_ms || read_ms < write_ms) ? read_ms : write_ms;
    if (soonest == 0) {
        loop_timer_clear(&c->timer);
        return;
    }
    uint64_t deadline = next_deadline(c);
    loop_timer_set(&c->timer, !deadline ? soonest : deadline > now ? deadline - now : 0);
}

enum err conn_start_tls(struct conn *c, struct tls_context *tls, bool server, const char *name)
{
    bool bytes_wait = c->out.len > 0 || (c->in.len > 0 && !c->offering);
    if (c->tls || c->connecting || c->ended || c->broken || bytes_wait) /* CON-1; offer_bytes sees to the rest */
        return ERR_INVALID;
    enum err e = tls_session_open(tls, server, name, &c->tls);
    if (e)
        return e;
    c->handshaking = true;
    set_watch(c, true, c->writing); /* a handshake is not held up by a pause */
    if (server)
        return ERR_OK;
    e = tls_session_handshake(c->tls); /* our hello */
    loop_defer(c->loop, &c->task);
    return e == ERR_BUSY ? ERR_OK : e;
}

bool conn_is_tls(const struct conn *c)
{
    return c->tls && !c->handshaking;
}

void conn_forget_left(struct loop *loop)
{
    if (!link_linked(&g_left))
        return;
    LINK_EACH_SAFE (l, next, &g_left) {
        struct conn *c = CONTAINER_OF(l, struct conn, left_link);
        if (c->loop == loop)
            destroy(c);
    }
}

void conn_close(struct conn **conn, bool flush)
{
    struct conn *c = *conn;
    *conn = NULL;
    if (!c)
        return;
    ASSERT(!c->left);
    bool alive = can_write(c) && !c->connecting;
    c->left = true;
    c->paused = false;
    c->resume = false;
    if (flush && alive) {
        if (c->tls && !c->handshaking) { /* close_notify comes behind the last bytes */
            if (c->out.len > 0 && tls_session_write(c->tls, c->out.at + c->out.start, c->out.len) == ERR_OK)
                bytes_take(&c->out, c->out.len);
            tls_session_shutdown(c->tls);
        }
        if (!link_linked(&g_left))
            link_init(&g_left);
        link_push(&g_left, &c->left_link);
        c->close_at = loop_now_ms(c->loop) + LINGER_MS;
        loop_timer_set(&c->timer, LINGER_MS);
        loop_defer(c->loop, &c->task);
        return;
    }
    c->dead = true;
    if (c->depth == 0)
        destroy(c);
}
