/* SPDX-License-Identifier: Apache-2.0 */
/* The request over conn.h. By hand instead of evhttp: the relay's connections bring name lookup, deadlines and proved
 * certificates along, and all that is needed of an answer is its first line. See alarm_post.h. */
#include "alarm_post.h"

#include <base/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void try_next(struct alarm_post *p);

/* --- the end --- */

static void run_end(struct loop_task *t)
{
    struct alarm_post *p = t->owner;
    p->busy = false;
    p->done(p, p->ok, p->text);
}

static void end(struct alarm_post *p, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void end(struct alarm_post *p, bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    p->ok = ok;
    dns_cancel(&p->query);
    loop_timer_clear(&p->limit);
    if (p->conn)
        conn_close(&p->conn, ok);
    free(p->body);
    p->body = NULL;
    loop_defer(p->loop, &p->task);
}

static void limit_over(struct loop_timer *t)
{
    struct alarm_post *p = t->owner;
    end(p, false, "no answer in %u s", ALARM_POST_MS / 1000);
}

/* --- the conversation --- */

static void ask(struct alarm_post *p)
{
    p->begun = true;
    conn_write(p->conn, p->head, p->head_len);
    if (p->body_len)
        conn_write(p->conn, p->body, p->body_len);
}

static void on_connected(void *owner)
{
    struct alarm_post *p = owner;
    if (!p->url.tls) {
        ask(p);
        return;
    }
    enum err e = conn_start_tls(p->conn, p->tls, false, p->url.host);
    if (e != ERR_OK)
        end(p, false, "TLS: %s", err_text(e));
}

static void on_tls(void *owner, enum err e, const char *text)
{
    struct alarm_post *p = owner;
    if (e == ERR_OK)
        ask(p);
    else
        end(p, false, "TLS with %s: %s", p->url.host, text);
}

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct alarm_post *p = owner;
    unsigned status;
    size_t room = sizeof p->answer - p->answer_len, n = len < room ? len : room;
    memcpy(p->answer + p->answer_len, bytes, n);
    p->answer_len += n;
    enum err e = alarm_url_answer(p->answer, p->answer_len, &status);
    if (e == ERR_SHORT)
        return len;
    if (e != ERR_OK)
        end(p, false, "%s does not speak HTTP", p->url.host);
    else if (status >= 100 && status < 200)
        end(p, false, "%s answers %u, which nobody asked for", p->url.host, status);
    else if (status >= 300 && status < 400)
        end(p, false, "%s answers %u: redirects are not followed, name the place itself", p->url.host, status);
    else
        end(p, status < 300, "%s answers %u", p->url.host, status);
    return len;
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct alarm_post *p = owner;
    if (p->begun) {
        end(p, false, "%s hung up without an answer", p->url.host);
        return;
    }
    snprintf(p->text, sizeof p->text, "%s: %s", p->query.addresses[p->address].text, text && text[0] ? text : err_text(e));
    conn_close(&p->conn, false);
    p->address++;
    try_next(p);
}

static const struct conn_callbacks callbacks = {.on_connected = on_connected, .on_bytes = on_bytes, .on_tls = on_tls,
                                                .on_closed = on_closed};

static void try_next(struct alarm_post *p)
{
    char why[256];
    for (; p->address < p->query.count; p->address++) {
        const struct dns_address *a = &p->query.addresses[p->address];
        enum err e = conn_connect(p->loop, (const struct sockaddr *)&a->to, a->to_len, &callbacks, p, &p->conn);
        if (e == ERR_OK)
            return;
        snprintf(p->text, sizeof p->text, "%s: %s", a->text, err_text(e));
    }
    snprintf(why, sizeof why, "%s", p->text);
    end(p, false, "%s", why);
}

static void resolved(struct dns_query *q, enum err e)
{
    struct alarm_post *p = q->owner;
    p->address = 0;
    if (e == ERR_OK)
        try_next(p);
    else
        end(p, false, "%s", q->why.text);
}

/* --- life --- */

void alarm_post_open(struct alarm_post *p)
{
    p->task = (struct loop_task){.run = run_end, .owner = p};
    loop_timer_init(p->loop, &p->limit, limit_over, p);
}

void alarm_post_close(struct alarm_post *p)
{
    if (!p->loop)
        return;
    dns_cancel(&p->query);
    if (p->conn)
        conn_close(&p->conn, false);
    loop_defer_cancel(&p->task);
    loop_timer_fini(&p->limit);
    free(p->body);
    p->body = NULL;
}

enum err alarm_post_start(struct alarm_post *p, const char *body, size_t len)
{
    if (p->busy)
        return ERR_BUSY;
    char *copy = body ? malloc(len + 1) : NULL;
    if (body && !copy)
        return ERR_NO_MEMORY;
    if (body)
        memcpy(copy, body, len);
    p->body = copy;
    p->body_len = body ? len : 0;
    p->head_len = alarm_url_request(&p->url, p->body_len, p->head, sizeof p->head);
    ASSERT(p->head_len > 0); /* the head has room for the longest URL */
    p->answer_len = 0;
    p->busy = true;
    p->begun = false;
    p->text[0] = '\0';
    p->query = (struct dns_query){.port = p->url.port, .done = resolved, .owner = p};
    snprintf(p->query.host, sizeof p->query.host, "%s", p->url.host);
    loop_timer_set(&p->limit, ALARM_POST_MS);
    dns_resolve(p->dns, &p->query);
    return ERR_OK;
}
