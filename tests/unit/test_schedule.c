/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule with everything below it, over a spool that is faked here: every port_ function is defined in this file,
 * so that the linker never takes port.c. Hosts are played by a small SMTP server in the same loop. */
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

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
struct peer { struct conn *conn; bool data; char line[2048]; uint32_t len; uint32_t commands; };
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
    if (strncmp(l, "EHLO", 4) == 0 || strncmp(l, "LHLO", 4) == 0)
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
static const struct conn_callbacks peer_callbacks = {.on_bytes = peer_bytes, .on_closed = peer_closed};

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
    memset(&h, 0, sizeof h);
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
}

/* --- the world --- */

static void limit_fired(struct loop_timer *t)
{
    (void)t;
    g.timed_out = true;
    loop_stop(g.loop);
}

static void open_world(const char *transport)
{
    char text[ROUTE_TEXT_BYTES];
    struct route_table *table = NULL;
    struct settings *s = &g.settings;
    snprintf(s->hostname, sizeof s->hostname, "relay.test");
    snprintf(s->mail_name, sizeof s->mail_name, "Ironspool");
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
                         .sender_len = (uint32_t)strlen(sender), .client = "c", .client_len = 1, .helo = "h", .helo_len = 1};
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

static struct mail *make_mail(const char *recipient)
{
    return make_mail_for("from@a.test", &recipient, 1, "Subject: x\r\n\r\nhello\r\n.dot\r\n");
}

static void run_until_ended(uint32_t count)
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

static void run_a_while(uint64_t ms)
{
    struct loop_timer t;
    g.expected_end = 0;
    loop_timer_init(g.loop, &t, turn_fired, NULL);
    loop_timer_set(&t, ms);
    loop_run(g.loop);
    loop_timer_fini(&t);
}

static char *open_host_world(const char *kind)
{
    static char spec[64];
    host_open();
    snprintf(spec, sizeof spec, "%s:[127.0.0.1]:%u", kind, h.port);
    open_world(spec);
    return spec;
}

static uint32_t files_in(const char *sub, char *path, size_t bytes)
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

/* --- tests --- */

static void a_discarded_mail_is_retired_without_marks(void **state)
{
    (void)state;
    open_world("discard");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.mark_count, 1);
    assert_true(g.marks[0].retire);
    assert_int_equal(g.marks[0].count, 0);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.delivered, 1);
    assert_int_equal(c.mails, 0);
}

static void a_maildir_gets_the_bytes_as_they_were_sent(void **state)
{
    (void)state;
    char spec[128], path[1024], text[512] = {0};
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    schedule_fresh(g.schedule, make_mail("User@B.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(files_in("User@b.test/new", path, sizeof path), 1);
    assert_int_equal(files_in("User@b.test/tmp", NULL, 0), 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    assert_string_equal(text, "Return-Path: <from@a.test>\r\nDelivered-To: User@B.test\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n");
}

static void a_mail_tried_again_after_a_crash_makes_no_second_copy(void **state)
{
    (void)state;
    char spec[128];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *first = make_mail("u@b.test");
    struct mail *again = NULL;
    assert_int_equal(mail_make(first->qid, first->envelope_bytes, first->envelope_len, (uint8_t *)strdup((char *)first->body), &again), ERR_OK);
    schedule_fresh(g.schedule, first);
    run_until_ended(1);
    schedule_on_due(g.schedule, again);
    run_until_ended(2);
    assert_int_equal(g.retired, 2);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 1);
}

static void a_large_body_reaches_the_maildir_in_pieces(void **state)
{
    (void)state;
    char spec[128], path[1024];
    static uint8_t body[200000];
    for (uint32_t i = 0; i < sizeof body; i++)
        body[i] = "0123456789abcde\n"[i % 16];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test", "v@b.test"}, 2, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(g.fetches, 2);
    struct stat st;
    assert_int_equal(files_in("v@b.test/new", path, sizeof path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > (off_t)sizeof body);
}

static void a_body_that_is_lost_on_the_way_is_not_delivered(void **state)
{
    (void)state;
    char spec[128];
    static uint8_t body[200000];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    g.fetch_error = ERR_LOST;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 0);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 0);
}

static void a_host_gets_many_mails_over_few_connections(void **state)
{
    (void)state;
    open_host_world("smtp");
    for (int i = 0; i < 500; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(500);
    assert_int_equal(g.retired, 500);
    assert_int_equal(h.messages, 500);
    assert_in_range(h.most_open, 1, 20);
    assert_in_range(h.connections, 1, 20);
    assert_non_null(strstr(h.body, "hello\r\n.dot\r\n"));
}

static void a_host_without_pipelining_is_spoken_to_step_by_step(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.no_pipelining = true;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.messages, 1);
}

static void recipients_of_one_mail_share_a_transaction_and_keep_their_own_results(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "later";
    h.rcpt_reply = "450 4.2.1 later\r\n";
    schedule_fresh(g.schedule, make_mail_for("f@a.test", (const char *const[]){"one@b.test", "later@b.test", "two@c.test"}, 3, "S: x\r\n\r\nb\r\n"));
    run_until_ended(1);
    assert_int_equal(h.messages, 1);
    assert_int_equal(g.mark_count, 1);
    assert_true(g.marks[0].release);
    assert_int_equal(g.marks[0].count, 3);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DELIVERED);
    assert_int_equal(g.marks[0].marks[1].status, MARK_DEFERRED);
    assert_true(g.marks[0].marks[1].deferred_until_ms > loop_wall_ms(g.loop) + 200000);
    assert_int_equal(g.marks[0].marks[2].status, MARK_DELIVERED);
}

static void a_refused_recipient_comes_back_as_a_bounce_in_the_same_mark(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "nobody";
    h.rcpt_reply = "550 5.1.1 no such user\r\n";
    schedule_fresh(g.schedule, make_mail("nobody@b.test"));
    run_until_ended(1);
    assert_true(g.marks[0].retire && g.marks[0].bounce);
    assert_non_null(g.bounce);
    assert_int_equal(g.bounce->envelope.sender_len, 0);
    assert_true(g.bounce->envelope.flags & ENVELOPE_BOUNCE);
    assert_non_null(strstr(g.bounce_body, "Final-Recipient: rfc822; nobody@b.test"));
    assert_non_null(strstr(g.bounce_body, "Status: 5.1.1"));
    assert_non_null(strstr(g.bounce_body, "Subject: x"));
    assert_null(strstr(g.bounce_body, "hello"));
}

static void a_bounce_is_never_bounced(void **state)
{
    (void)state;
    open_world("error:5.1.1 nobody");
    schedule_fresh(g.schedule, make_mail_for("", (const char *const[]){"x@b.test"}, 1, "S: x\r\n\r\n"));
    run_until_ended(1);
    assert_null(g.bounce);
    assert_int_equal(g.retired, 1);
}

static void a_dead_host_defers_everything_for_it_and_is_paused(void **state)
{
    (void)state;
    char spec[64];
    host_open();
    snprintf(spec, sizeof spec, "smtp:[127.0.0.1]:%u", h.port);
    host_close();
    open_world(spec);
    for (int i = 0; i < 50; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(50);
    assert_int_equal(g.released, 50);
    assert_true(g.pauses > 0);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 1);
    assert_int_equal(c.deferred, 50);
    assert_true(c.attempts <= 5);
    assert_non_null(strstr(g.marks[g.mark_count - 1].reason, "refused"));
    assert_true(g.pauses <= 3); /* once, not for each mail */
    assert_true(g.last_pause_until > 0);
    schedule_on_flush(g.schedule);
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 0);
    assert_int_equal(g.last_pause_until, 0);
}

static void a_host_that_closes_between_mails_costs_a_new_connection_only(void **state)
{
    (void)state;
    open_host_world("smtp");
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    h.drop_at = "MAIL";
    h.drops = 1;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(2);
    assert_int_equal(g.retired, 2);
    assert_int_equal(h.messages, 2);
    assert_int_equal(h.connections, 2);
}

static void a_host_that_says_no_in_its_greeting_is_dead(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.greeting = "554 5.7.1 go away\r\n";
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.lanes_dead, 1);
}

static void lmtp_answers_for_each_recipient(void **state)
{
    (void)state;
    open_host_world("lmtp");
    h.lmtp = true;
    schedule_fresh(g.schedule, make_mail_for("f@a.test", (const char *const[]){"one@b.test", "two@b.test"}, 2, "S: x\r\n\r\nb\r\n"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.messages, 1);
}

static void a_large_body_is_streamed_to_the_host(void **state)
{
    (void)state;
    static uint8_t body[600000];
    for (uint32_t i = 0; i < sizeof body; i++)
        body[i] = "0123456789abcd\r\n"[i % 16];
    open_host_world("smtp");
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 10;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
    assert_int_equal(h.body_len, sizeof body);
    assert_memory_equal(h.body, body, sizeof body);
}

static void a_body_that_is_lost_never_gets_its_final_dot(void **state)
{
    (void)state;
    static uint8_t body[600000];
    memset(body, 'x', sizeof body);
    open_host_world("smtp");
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"u@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 10;
    g.fetch_bytes = body;
    g.fetch_len = sizeof body;
    g.fetch_error = ERR_LOST;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    run_a_while(50);
    assert_int_equal(h.messages, 0);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
}

static void a_body_that_left_memory_is_fetched(void **state)
{
    (void)state;
    open_host_world("smtp");
    g.settings.fresh_bytes_max = 0;
    g.fetch_bytes = (const uint8_t *)"Subject: x\r\n\r\nhello\r\n.dot\r\n";
    g.fetch_len = strlen((const char *)g.fetch_bytes);
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.fetches, 1);
    assert_int_equal(g.retired, 1);
    assert_non_null(strstr(h.body, "hello\r\n.dot\r\n"));
}

static void results_wait_for_room_and_nothing_starts_meanwhile(void **state)
{
    (void)state;
    open_world("discard");
    g.no_room = true;
    for (int i = 0; i < 10; i++)
        schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_a_while(50);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.attempts, 1);
    assert_int_equal(g.mark_count, 0);
    g.no_room = false;
    schedule_on_room(g.schedule);
    run_until_ended(10);
    assert_int_equal(g.retired, 10);
}

static void a_lease_that_is_gone_costs_its_result_and_nothing_else(void **state)
{
    (void)state;
    open_world("discard");
    g.lease_gone = true;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_a_while(20);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.mails, 0);
    g.lease_gone = false;
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(1);
    assert_int_equal(g.retired, 1);
}

static void a_bounce_shows_the_headers_of_a_body_that_has_to_be_fetched(void **state)
{
    (void)state;
    static char body[200000];
    open_host_world("smtp");
    h.refuse_rcpt = "nobody";
    h.rcpt_reply = "550 5.1.1 no such user\r\n";
    memset(body, 'x', sizeof body - 1);
    memcpy(body, "Subject: far away\r\n\r\n", 21);
    struct mail *m = make_mail_for("f@a.test", (const char *const[]){"nobody@b.test"}, 1, NULL);
    m->body_bytes = sizeof body;
    m->chunk_count = 4;
    g.fetch_bytes = (const uint8_t *)body;
    g.fetch_len = sizeof body;
    schedule_fresh(g.schedule, m);
    run_until_ended(1);
    assert_non_null(g.bounce);
    assert_non_null(strstr(g.bounce_body, "Subject: far away\r\n"));
    assert_null(strstr(g.bounce_body, "xxxx"));
}

static void what_is_too_old_after_three_attempts_expires(void **state)
{
    (void)state;
    open_host_world("smtp");
    h.refuse_rcpt = "x@";
    h.rcpt_reply = "450 4.2.1 later\r\n";
    g.clock_skew_ms = 6ull * 86400 * 1000;
    struct mail *young = make_mail("x@b.test"), *old = make_mail("x@b.test");
    young->attempts = 1;
    old->attempts = 2;
    schedule_on_due(g.schedule, young);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    schedule_on_due(g.schedule, old);
    run_until_ended(2);
    assert_int_equal(g.retired, 1);
    assert_non_null(g.bounce);
    assert_non_null(strstr(g.bounce_body, "delivery time expired"));
}

static void a_recalled_mail_goes_back_without_an_attempt(void **state)
{
    (void)state;
    open_world("discard");
    struct mail *m = make_mail("x@b.test");
    struct queue_id qid = m->qid;
    schedule_fresh(g.schedule, m);
    schedule_on_recall(g.schedule, qid);
    run_until_ended(1);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(g.released, 1);
    assert_int_equal(c.attempts, 0);
}

static void the_hold_transport_defers_and_never_expires(void **state)
{
    (void)state;
    open_world("hold");
    g.clock_skew_ms = 60ull * 86400 * 1000;
    struct mail *m = make_mail("x@b.test");
    m->attempts = 10;
    schedule_on_due(g.schedule, m);
    run_until_ended(1);
    assert_int_equal(g.released, 1);
    assert_int_equal(g.marks[0].marks[0].status, MARK_DEFERRED);
}

static void backlog_and_fresh_mail_both_move(void **state)
{
    (void)state;
    open_host_world("smtp");
    for (int i = 0; i < 200; i++)
        schedule_on_due(g.schedule, make_mail("x@b.test"));
    struct mail *fresh[20];
    for (int i = 0; i < 20; i++) {
        fresh[i] = mail_ref(make_mail("x@b.test"));
        schedule_fresh(g.schedule, fresh[i]);
    }
    run_until_ended(220);
    uint32_t last_fresh = 0, backlog_before = 0;
    for (uint32_t i = 0; i < g.mark_count; i++)
        for (int k = 0; k < 20; k++)
            if (queue_id_equal(g.marks[i].qid, fresh[k]->qid))
                last_fresh = i;
    backlog_before = last_fresh + 1 - 20;
    assert_true(backlog_before >= 3);   /* backlog was not starved */
    assert_true(backlog_before <= 60);  /* nor did fresh mail stand behind it */
    for (int i = 0; i < 20; i++)
        mail_unref(&fresh[i]);
}

static void the_window_over_due_mail_is_bounded(void **state)
{
    (void)state;
    open_host_world("smtp");
    run_a_while(10);
    assert_int_equal(g.wanted, WIRE_DUE_CREDIT_MAX);
    run_a_while(10);
    assert_int_equal(g.wanted, WIRE_DUE_CREDIT_MAX);
}

static void on_drained(void *owner)
{
    (void)owner;
    g.drained = true;
    loop_stop(g.loop);
}

static void draining_waits_for_what_is_in_flight(void **state)
{
    (void)state;
    char spec[128];
    snprintf(spec, sizeof spec, "maildir:%s", g.directory);
    open_world(spec);
    schedule_fresh(g.schedule, make_mail("x@b.test"));
    run_until_ended(0);
    schedule_drain(g.schedule, on_drained, NULL);
    loop_timer_set(&g.limit, 60000);
    loop_run(g.loop);
    assert_true(g.drained);
    struct schedule_counters c;
    schedule_counters(g.schedule, &c);
    assert_int_equal(c.active, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_discarded_mail_is_retired_without_marks),
        T(a_maildir_gets_the_bytes_as_they_were_sent),
        T(a_mail_tried_again_after_a_crash_makes_no_second_copy),
        T(a_large_body_reaches_the_maildir_in_pieces),
        T(a_body_that_is_lost_on_the_way_is_not_delivered),
        T(a_host_gets_many_mails_over_few_connections),
        T(a_host_without_pipelining_is_spoken_to_step_by_step),
        T(recipients_of_one_mail_share_a_transaction_and_keep_their_own_results),
        T(a_refused_recipient_comes_back_as_a_bounce_in_the_same_mark),
        T(a_bounce_is_never_bounced),
        T(a_dead_host_defers_everything_for_it_and_is_paused),
        T(a_host_that_closes_between_mails_costs_a_new_connection_only),
        T(a_host_that_says_no_in_its_greeting_is_dead),
        T(lmtp_answers_for_each_recipient),
        T(a_large_body_is_streamed_to_the_host),
        T(a_body_that_is_lost_never_gets_its_final_dot),
        T(a_body_that_left_memory_is_fetched),
        T(results_wait_for_room_and_nothing_starts_meanwhile),
        T(a_lease_that_is_gone_costs_its_result_and_nothing_else),
        T(a_bounce_shows_the_headers_of_a_body_that_has_to_be_fetched),
        T(what_is_too_old_after_three_attempts_expires),
        T(a_recalled_mail_goes_back_without_an_attempt),
        T(the_hold_transport_defers_and_never_expires),
        T(backlog_and_fresh_mail_both_move),
        T(the_window_over_due_mail_is_bounded),
        T(draining_waits_for_what_is_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
