/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule with everything below it, over a spool that is faked here: every port_ function is defined in this
 * file, so that the linker never takes port.c. Hosts are played by a small SMTP server in the same loop. To be included by the
 * one .c of a test program. */
#ifndef TESTS_SCHEDULE_WORLD_H
#define TESTS_SCHEDULE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conn.h"
#include "lane.h"
#include "log.h"
#include "maildir_out.h"
#include "route.h"
#include "schedule.h"
#include "tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAY_BE_UNUSED __attribute__((unused))

/* --- the spool --- */

struct seen_mark {
    struct queue_id qid;
    uint32_t count;
    bool retire, release, bounce;
    struct mark marks[SCHEDULE_JOB_RECIPIENTS_MAX];
    char reason[REASON_BYTES_MAX + 1]; /* of the first */
};

static struct {
    struct loop *loop;
    struct schedule *schedule;
    struct settings settings;
    struct seen_mark marks[4096];
    uint32_t mark_count, ended;      /* ended: retire or release */
    uint32_t retired, released;
    uint32_t expected_end;           /* stops the loop */
    uint32_t wanted;
    bool no_room, lease_gone;
    uint64_t clock_skew_ms;
    uint32_t next_id;
    struct mail *bounce;
    char bounce_body[BODY_INLINE_MAX + 1];
    uint32_t pauses;
    uint64_t last_pause_until;
    enum err fetch_error;
    const uint8_t *fetch_bytes;
    uint64_t fetch_len;
    uint32_t fetches;
    struct loop_timer limit;
    bool timed_out, drained;
    char directory[64];
} g;

static void stop_when_ended(void)
{
    if (g.expected_end && g.ended >= g.expected_end)
        loop_stop(g.loop);
}

enum err port_open(struct loop *loop, const struct port_callbacks *cb, struct port **port_out)
{
    (void)loop;
    (void)cb;
    (void)port_out;
    return ERR_SYSTEM;
}
void port_close(struct port **port) { *port = NULL; }
void port_attach(struct port *port, int fd) { (void)port; (void)fd; }
bool port_idle(const struct port *port) { (void)port; return true; }
struct port_status port_status(const struct port *port)
{
    (void)port;
    return (struct port_status){.connected = true};
}
uint64_t port_clock_ms(const struct port *port)
{
    (void)port;
    return loop_wall_ms(g.loop) + g.clock_skew_ms;
}
enum err port_take_queue_id(struct port *port, struct queue_id *qid_out)
{
    (void)port;
    if (g.no_room)
        return ERR_BUSY;
    *qid_out = (struct queue_id){77, ++g.next_id};
    return ERR_OK;
}
enum err port_reserve(struct port *port, uint64_t bytes) { (void)port; (void)bytes; return ERR_OK; }
void port_unreserve(struct port *port, uint64_t bytes) { (void)port; (void)bytes; }
enum err port_append(struct port *port, struct port_append *a) { (void)port; (void)a; return ERR_BUSY; }
uint8_t *port_tray_take(struct port *port) { (void)port; return NULL; }
void port_tray_give(struct port *port, uint8_t *tray) { (void)port; (void)tray; }
enum err port_chunk(struct port *port, struct queue_id qid, uint32_t number, const void *bytes, uint32_t len)
{
    (void)port; (void)qid; (void)number; (void)bytes; (void)len;
    return ERR_BUSY;
}
void port_abort(struct port *port, struct queue_id qid) { (void)port; (void)qid; }
enum err port_mark(struct port *port, const struct port_mark *m)
{
    (void)port;
    if (g.lease_gone)
        return ERR_NOT_FOUND;
    if (g.no_room)
        return ERR_BUSY;
    assert_true(g.mark_count < 4096 && m->count <= SCHEDULE_JOB_RECIPIENTS_MAX);
    struct seen_mark *seen = &g.marks[g.mark_count++];
    memset(seen, 0, sizeof *seen);
    seen->qid = m->qid;
    seen->count = m->count;
    seen->retire = m->retire;
    seen->release = m->release;
    seen->bounce = m->bounce != NULL;
    if (m->count > 0) {
        memcpy(seen->marks, m->marks, m->count * sizeof *m->marks);
        snprintf(seen->reason, sizeof seen->reason, "%.*s", (int)m->marks[0].reason_len, m->marks[0].reason);
    }
    if (m->bounce) {
        assert_null(g.bounce);
        g.bounce = m->bounce;
        memcpy(g.bounce_body, m->bounce->body, m->bounce->body_bytes);
        g.bounce_body[m->bounce->body_bytes] = '\0';
    }
    assert_false(m->retire && m->release);
    g.retired += m->retire;
    g.released += m->release;
    g.ended += m->retire || m->release;
    stop_when_ended();
    return ERR_OK;
}

static struct port_fetch *g_fetch;
static struct loop_task g_fetch_task;

static void run_fetch(struct loop_task *t)
{
    struct port_fetch *f = g_fetch;
    (void)t;
    if (!f)
        return;
    uint64_t at = f->scratch[0], len = g.fetch_len - at;
    len = len < CHUNK_BYTES_MAX ? len : CHUNK_BYTES_MAX;
    if (g.fetch_error && at * 2 >= g.fetch_len) {
        g_fetch = NULL;
        f->done(f, g.fetch_error);
    } else if (len > 0) {
        f->scratch[0] += len;
        bool more = f->on_bytes(f, g.fetch_bytes + at, (uint32_t)len);
        if (g_fetch && f->scratch[0] == g.fetch_len) { /* the end does not wait for a resume */
            g_fetch = NULL;
            f->done(f, ERR_OK);
        } else if (g_fetch && more) {
            loop_defer(g.loop, &g_fetch_task);
        }
    } else {
        g_fetch = NULL;
        f->done(f, ERR_OK);
    }
}

void port_fetch(struct port *port, struct port_fetch *f)
{
    (void)port;
    assert_null(g_fetch);
    g.fetches++;
    g_fetch = f;
    f->scratch[0] = 0;
    g_fetch_task.run = run_fetch;
    loop_defer(g.loop, &g_fetch_task);
}
void port_fetch_resume(struct port *port, struct port_fetch *f)
{
    (void)port;
    assert_ptr_equal(f, g_fetch);
    loop_defer(g.loop, &g_fetch_task);
}
void port_fetch_cancel(struct port *port, struct port_fetch *f)
{
    (void)port;
    assert_ptr_equal(f, g_fetch);
    g_fetch = NULL;
}
void port_want_due(struct port *port, uint32_t count) { (void)port; g.wanted += count; }
void port_pause_destination(struct port *port, uint64_t destination, uint64_t until_ms)
{
    (void)port;
    (void)destination;
    g.pauses++;
    g.last_pause_until = until_ms;
}
void port_report(struct port *port, const char *json, uint32_t len) { (void)port; (void)json; (void)len; }
enum err port_document(struct port *port, const char *kind, void *owner,
                       void (*done)(void *owner, enum err e, const char *bytes, uint32_t len))
{
    (void)port; (void)kind; (void)owner; (void)done;
    return ERR_SPOOL_GONE;
}

/* --- a host --- */

#define PEERS_MAX 64
struct peer { struct conn *conn; bool data, handshake; char line[2048]; uint32_t len; uint32_t commands; };
static struct {
    int fd;
    uint16_t port;
    struct loop_watch watch;
    struct peer peers[PEERS_MAX];
    uint32_t connections, messages, most_open, open;
    const char *greeting;         /* NULL: 220 */
    const char *refuse_rcpt;      /* substring of a recipient */
    const char *rcpt_reply;
    const char *dot_reply;
    const char *drop_at;          /* closes on this command */
    uint32_t drops;               /* so often */
    bool no_pipelining, lmtp;
    struct tls_context *tls;      /* offered when set */
    bool tls_breaks;              /* it says 220 and closes */
    uint32_t handshakes;
    uint32_t recipients;          /* accepted in this transaction */
    char body[1 << 20];
    uint32_t body_len;
} h;

static void say(struct peer *p, const char *text) { conn_write(p->conn, text, strlen(text)); }

static void end_of_data(struct peer *p)
{
    p->data = false;
    h.messages++;
    for (uint32_t i = 0; i < (h.lmtp ? h.recipients : 1); i++)
        say(p, h.dot_reply ? h.dot_reply : "250 2.0.0 Ok: taken\r\n");
    h.recipients = 0;
}

static bool take_line(struct peer *p, const char *l)
{
    if (p->data) {
        if (strcmp(l, ".") == 0) {
            end_of_data(p);
        } else if (h.body_len + strlen(l) + 2 < sizeof h.body) {
            h.body_len += (uint32_t)sprintf(h.body + h.body_len, "%s\r\n", l[0] == '.' ? l + 1 : l);
        }
        return true;
    }
    if (h.drop_at && h.drops > 0 && strncmp(l, h.drop_at, strlen(h.drop_at)) == 0) {
        h.drops--;
        return false;
    }
    bool hello = strncmp(l, "EHLO", 4) == 0 || strncmp(l, "LHLO", 4) == 0;
    if (hello && (h.tls || h.tls_breaks) && !conn_is_tls(p->conn))
        say(p, "250-sink\r\n250 STARTTLS\r\n");
    else if (strcmp(l, "STARTTLS") == 0) {
        say(p, "220 go\r\n");
        p->handshake = true;
        return !h.tls_breaks;
    } else if (hello)
        say(p, h.no_pipelining ? "250-sink\r\n250 SIZE 1000000\r\n" : "250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
    else if (strncmp(l, "RCPT", 4) == 0 && h.refuse_rcpt && strstr(l, h.refuse_rcpt))
        say(p, h.rcpt_reply);
    else if (strncmp(l, "RCPT", 4) == 0) {
        h.recipients++;
        say(p, "250 2.1.5 Ok\r\n");
    } else if (strcmp(l, "DATA") == 0) {
        p->data = h.recipients > 0;
        say(p, p->data ? "354 go\r\n" : "554 5.5.1 no valid recipients\r\n");
        h.body_len = 0;
    } else if (strcmp(l, "QUIT") == 0)
        return false;
    else
        say(p, "250 2.0.0 Ok\r\n");
    return true;
}

static void peer_close(struct peer *p)
{
    conn_close(&p->conn, true);
    h.open--;
}

static size_t peer_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct peer *p = owner;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != '\n') {
            if (p->len < sizeof p->line - 1)
                p->line[p->len++] = (char)bytes[i];
            continue;
        }
        if (p->len > 0 && p->line[p->len - 1] == '\r')
            p->len--;
        p->line[p->len] = '\0';
        p->len = 0;
        if (!take_line(p, p->line)) {
            peer_close(p);
            return len;
        }
    }
    return len;
}
static void peer_closed(void *owner, enum err e, const char *text)
{
    (void)e;
    (void)text;
    peer_close(owner);
}
static void peer_drained(void *owner)
{
    struct peer *p = owner;
    if (p->handshake)
        assert_int_equal(conn_start_tls(p->conn, h.tls, true, NULL), ERR_OK);
    p->handshake = false;
}
static void peer_tls(void *owner, enum err e, const char *text)
{
    (void)text;
    if (e)
        peer_close(owner);
    else
        h.handshakes++;
}
static const struct conn_callbacks peer_callbacks = {.on_bytes = peer_bytes, .on_drained = peer_drained,
                                                     .on_tls = peer_tls, .on_closed = peer_closed};

static void host_ready(struct loop_watch *w, bool readable, bool writable)
{
    (void)readable;
    (void)writable;
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &h.peers[i];
        if (p->conn)
            continue;
        memset(p, 0, sizeof *p);
        assert_int_equal(conn_accept(g.loop, fd, &peer_callbacks, p, &p->conn), ERR_OK);
        h.connections++;
        h.open++;
        h.most_open = h.open > h.most_open ? h.open : h.most_open;
        say(p, h.greeting ? h.greeting : "220 sink\r\n");
        return;
    }
    fail_msg("more connections than the test has room for");
}

static void host_open(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    h.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h.fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(h.fd, 64), 0);
    assert_int_equal(getsockname(h.fd, (struct sockaddr *)&in, &len), 0);
    h.port = ntohs(in.sin_port);
    h.watch = (struct loop_watch){.fd = h.fd, .ready = host_ready};
    assert_int_equal(loop_watch_add(g.loop, &h.watch, true, false), ERR_OK);
}

static void host_close(void)
{
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        if (h.peers[i].conn)
            conn_close(&h.peers[i].conn, false);
    if (h.fd > 0) {
        loop_watch_remove(&h.watch);
        close(h.fd);
    }
    h.fd = 0;
    tls_context_unref(&h.tls);
}

/* --- the world --- */

static void limit_fired(struct loop_timer *t)
{
    (void)t;
    g.timed_out = true;
    loop_stop(g.loop);
}

MAY_BE_UNUSED static void open_world(const char *transport)
{
    char text[ROUTE_TEXT_BYTES];
    struct route_table *table = NULL;
    struct settings *s = &g.settings;
    snprintf(s->hostname, sizeof s->hostname, "relay.test");
    snprintf(s->mail_name, sizeof s->mail_name, "Ironspool");
    if (s->smtp_tls_security_level[0] == '\0')
        snprintf(s->smtp_tls_security_level, sizeof s->smtp_tls_security_level, "none");
    s->default_destination_concurrency_limit = 20;
    s->initial_destination_concurrency = 5;
    s->default_destination_recipient_limit = 50;
    s->minimal_backoff_ms = 300000;
    s->maximal_backoff_ms = 4000000;
    s->maximal_queue_lifetime_ms = s->bounce_queue_lifetime_ms = 432000000;
    s->smtp_connect_timeout_s = 30;
    s->deliveries_max = 400;
    s->fresh_bytes_max = 16u << 20;
    assert_int_equal(route_table_open(transport, "", NULL, 0, text, &table), ERR_OK);
    s->transports = table;
    assert_int_equal(schedule_open(g.loop, NULL, s, &g.schedule), ERR_OK);
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof g);
    memset(&h, 0, sizeof h);
    g_fetch = NULL;
    assert_int_equal(loop_open(&g.loop), ERR_OK);
    assert_int_equal(log_open(g.loop, "test", "/dev/null"), ERR_OK);
    loop_timer_init(g.loop, &g.limit, limit_fired, NULL);
    snprintf(g.directory, sizeof g.directory, "/tmp/ironspool-test-XXXXXX");
    assert_non_null(mkdtemp(g.directory));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    struct route_table *table = g.settings.transports;
    schedule_close(&g.schedule);
    mail_unref(&g.bounce);
    host_close();
    route_table_close(&table);
    loop_timer_fini(&g.limit);
    log_close();
    loop_defer_cancel(&g_fetch_task);
    loop_close(&g.loop);
    assert_int_equal(mail_memory_bytes(), 0);
    snprintf(command, sizeof command, "rm -rf %s", g.directory);
    return system(command) == 0 ? 0 : -1;
}

static struct mail *make_mail_for(const char *sender, const char *const *recipients, uint32_t count, const char *body)
{
    static uint8_t bytes[65536];
    struct envelope_writer w;
    struct envelope e = {.arrival_ms = loop_wall_ms(g.loop), .body_bytes = body ? strlen(body) : 0, .sender = sender,
                         .sender_len = (uint32_t)strlen(sender), .client = "c", .client_len = 1, .helo = "h",
                         .helo_len = 1};
    assert_int_equal(envelope_begin(&w, bytes, sizeof bytes, &e), ERR_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(envelope_add_recipient(&w, recipients[i], (uint32_t)strlen(recipients[i])), ERR_OK);
    uint32_t len = envelope_end(&w, e.body_bytes, 0);
    struct mail *m = NULL;
    static uint64_t counter;
    struct queue_id qid = {5, ++counter};
    assert_int_equal(mail_make(qid, bytes, len, body ? (uint8_t *)strdup(body) : NULL, &m), ERR_OK);
    m->locator = (struct segment_id){1, 1};
    m->accepted_ms = loop_now_ms(g.loop);
    m->fresh = true;
    return m;
}

MAY_BE_UNUSED static struct mail *make_mail(const char *recipient)
{
    return make_mail_for("from@a.test", &recipient, 1, "Subject: x\r\n\r\nhello\r\n.dot\r\n");
}

MAY_BE_UNUSED static void run_until_ended(uint32_t count)
{
    g.expected_end = count;
    if (g.ended < count) {
        loop_timer_set(&g.limit, 60000);
        loop_run(g.loop);
        loop_timer_clear(&g.limit);
    }
    assert_false(g.timed_out);
}

static void turn_fired(struct loop_timer *t) { (void)t; loop_stop(g.loop); }

MAY_BE_UNUSED static void run_a_while(uint64_t ms)
{
    struct loop_timer t;
    g.expected_end = 0;
    loop_timer_init(g.loop, &t, turn_fired, NULL);
    loop_timer_set(&t, ms);
    loop_run(g.loop);
    loop_timer_fini(&t);
}

MAY_BE_UNUSED static char *open_host_world(const char *kind)
{
    static char spec[64];
    host_open();
    snprintf(spec, sizeof spec, "%s:[127.0.0.1]:%u", kind, h.port);
    open_world(spec);
    return spec;
}

MAY_BE_UNUSED static uint32_t files_in(const char *sub, char *path, size_t bytes)
{
    char directory[256];
    uint32_t count = 0;
    snprintf(directory, sizeof directory, "%s/%s", g.directory, sub);
    DIR *d = opendir(directory);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        if (e->d_name[0] == '.')
            continue;
        count++;
        if (path)
            snprintf(path, bytes, "%s/%s", directory, e->d_name);
    }
    if (d)
        closedir(d);
    return count;
}

#endif
