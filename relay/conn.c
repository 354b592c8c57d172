/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams: their sockets, deadlines and ends. What comes and goes over them is conn_io.c. Invariants in conn.h and
 * conn_parts.h. */
#include "conn_parts.h"

#include "tls.h"

#include <base/assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER_MS 5000u
#define LINGERING_MAX 1024u              /* beyond this many, connections are closed without waiting */

static uint32_t g_lingering;
static struct link g_left; /* whose owners have left: nobody else knows them */

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

void conn_set_watch(struct conn *c, bool read, bool write)
{
    if (c->reading == read && c->writing == write)
        return;
    c->reading = read;
    c->writing = write;
    loop_watch_change(&c->watch, read, write);
}

void conn_end(struct conn *c, enum err e, const char *text)
{
    if (c->left) { /* flushing or lingering: nobody to tell */
        c->dead = true;
        return;
    }
    if (c->ended)
        return;
    c->ended = true;
    conn_set_watch(c, false, false);
    c->cb->on_closed(c->owner, e, text);
}

void conn_end_errno(struct conn *c, int error)
{
    conn_end(c, ERR_SYSTEM, strerror(error));
}

void conn_break_later(struct conn *c, enum err e, int error)
{
    if (!c->broken) {
        c->broken = e;
        c->broken_errno = error;
    }
    loop_defer(c->loop, &c->task);
}

bool conn_deaf(const struct conn *c)
{
    return c->left || c->ended || c->dead || c->broken;
}

bool conn_linger(struct conn *c)
{
    if (g_lingering >= LINGERING_MAX || shutdown(c->watch.fd, SHUT_WR) != 0)
        return false;
    c->lingering = true;
    g_lingering++;
    conn_set_watch(c, true, false);
    return true;
}

static void run_task(struct loop_task *t)
{
    struct conn *c = t->owner;
    enter(c);
    if (c->resume)
        conn_go_on_reading(c);
    if (!c->broken && !c->dead && !c->connecting && (!c->ended || c->left))
        conn_flush_output(c);
    if (c->broken && !c->dead)
        conn_end(c, c->broken, c->broken_errno ? strerror(c->broken_errno) : err_text(c->broken));
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
        conn_end_errno(c, error);
        return;
    }
    c->connecting = false;
    c->read_at = c->write_at = loop_now_ms(c->loop);
    setsockopt(c->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket refuses: no harm */
    conn_set_watch(c, true, false);
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
            conn_receive(c);
        if (writable && !c->dead && (!c->ended || c->left))
            conn_flush_output(c);
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
        conn_end(c, ERR_TIMEOUT, c->connecting ? "connection timed out" : "timeout");
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
        conn_break_later(*conn_out, ERR_SYSTEM, error);
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
    if (!conn_bytes_add(&c->out, bytes, len)) {
        conn_break_later(c, ERR_NO_MEMORY, 0);
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
    conn_set_watch(c, true, c->writing); /* a handshake is not held up by a pause */
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
                conn_bytes_take(&c->out, c->out.len);
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
