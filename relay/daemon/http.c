/* SPDX-License-Identifier: Apache-2.0 */
/* A very small HTTP/1.1 server over conn.h: one request a connection, the head only, four documents. See http.h.
 *
 *   reading [whole head] -> asking (the spool) -> writing [on_drained] -> closed
 *
 * By hand instead of evhttp, which has no bound on connections: this port must not be able to take the descriptors mail
 * needs. A visitor that leaves while the spool is asked keeps its place until the answer has come. */
#include "http.h"

#include "board.h"

#include <conn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS 10000u

struct visitor {
    struct http *http;
    struct conn *conn;         /* NULL: gone, or the place is free */
    const char *kind;          /* of the document that was asked for */
    bool used, asking, answered, head_only;
};

struct http {
    struct loop *loop;
    struct port *port;
    struct board *board;
    struct loop_watch watch;
    struct visitor visitors[HTTP_VISITORS_MAX];
    uint32_t count;
};

static void leave(struct visitor *v)
{
    struct http *h = v->http;
    if (v->conn)
        conn_close(&v->conn, v->answered);
    if (v->asking)
        return;
    *v = (struct visitor){.http = h};
    if (h->count-- == HTTP_VISITORS_MAX)
        loop_watch_change(&h->watch, true, false);
}

/* --- answers --- */

static const char *reason(int code)
{
    return code == 200 ? "OK" : code == 400 ? "Bad Request" : code == 404 ? "Not Found"
           : code == 405 ? "Method Not Allowed" : code == 431 ? "Request Header Fields Too Large" : "Service Unavailable";
}

static void answer(struct visitor *v, int code, const char *type, const char *body, size_t len)
{
    char head[512];
    if (!v->conn)
        return;
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\nCache-Control: no-store\r\n"
                     "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src "
                     "'unsafe-inline'\r\n%s\r\n", code, reason(code), type, len, code == 405 ? "Allow: GET, HEAD\r\n" : "");
    v->answered = true;
    conn_write(v->conn, head, (size_t)n);
    if (!v->head_only)
        conn_write(v->conn, body, len);
}

static void answer_text(struct visitor *v, int code, const char *text)
{
    char line[512];
    int n = snprintf(line, sizeof line, "%.500s\n", text);
    answer(v, code, "text/plain; charset=utf-8", line, (size_t)n);
}

static void answer_page(struct visitor *v, const char *bytes, uint32_t len)
{
    static const char begin[] =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">"
        "<title>Ironspool</title><style>body{font:15px/1.45 monospace;margin:2em;max-width:110ch;color:#111;background:#fff}"
        "pre{overflow-x:auto}@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}a{color:#8bf}}</style></head>"
        "<body><pre>";
    static const char end[] = "</pre><p><a href=\"/status\">/status</a> <a href=\"/metrics\">/metrics</a> "
                              "<a href=\"/healthz\">/healthz</a></p></body></html>\n";
    char *page = malloc(sizeof begin + sizeof end + (size_t)len * 5); /* the longest escape is "&amp;" */
    if (!page) {
        answer_text(v, 503, "out of memory");
        return;
    }
    char *to = stpcpy(page, begin);
    for (uint32_t i = 0; i < len; i++) {
        if (bytes[i] == '<' || bytes[i] == '>' || bytes[i] == '&')
            to = stpcpy(to, bytes[i] == '<' ? "&lt;" : bytes[i] == '>' ? "&gt;" : "&amp;");
        else
            *to++ = bytes[i];
    }
    to = stpcpy(to, end);
    answer(v, 200, "text/html; charset=utf-8", page, (size_t)(to - page));
    free(page);
}

static void answer_document(struct visitor *v, const char *bytes, uint32_t len)
{
    if (strcmp(v->kind, "text") == 0)
        answer_page(v, bytes, len);
    else
        answer(v, 200, strcmp(v->kind, "status") == 0 ? "application/json" : "text/plain; version=0.0.4; charset=utf-8",
               bytes, len);
}

static void document_came(void *owner, enum err e, const char *bytes, uint32_t len)
{
    struct visitor *v = owner;
    char *posted = NULL;
    v->asking = false;
    if (!v->conn) {
        leave(v);
        return;
    }
    if (e == ERR_SPOOL_GONE && board_read(v->http->board, v->kind, &posted, &len) == ERR_OK)
        answer_document(v, posted, len);
    else if (e != ERR_OK)
        answer_text(v, 503, err_text(e));
    else
        answer_document(v, bytes, len);
    free(posted);
}

static void ask(struct visitor *v, const char *kind)
{
    v->kind = kind;
    v->asking = true;
    enum err e = port_document(v->http->port, kind, v, document_came);
    if (e != ERR_OK)
        document_came(v, e, NULL, 0);
}

static void answer_health(struct visitor *v)
{
    struct port_status s = port_status(v->http->port);
    char *posted;
    uint32_t len;
    if (s.connected) {
        answer_text(v, s.accepting == ERR_OK ? 200 : 503, s.accepting == ERR_OK ? "ok" : err_text(s.accepting));
    } else if (board_read(v->http->board, "health", &posted, &len) == ERR_OK) {
        answer_text(v, 503, posted);
        free(posted);
    } else {
        answer_text(v, 503, err_text(ERR_SPOOL_GONE));
    }
}

/* --- requests --- */

static void serve(struct visitor *v, const char *head, size_t len)
{
    char method[8], path[64];
    char line[96];
    snprintf(line, sizeof line, "%.*s", (int)(len < sizeof line - 1 ? len : sizeof line - 1), head);
    if (sscanf(line, "%7[A-Z] %63[^ ?\r\n]", method, path) != 2) {
        answer_text(v, 400, "that is not HTTP");
        return;
    }
    v->head_only = strcmp(method, "HEAD") == 0;
    if (!v->head_only && strcmp(method, "GET") != 0)
        answer_text(v, 405, "this page only shows");
    else if (strcmp(path, "/") == 0)
        ask(v, "text");
    else if (strcmp(path, "/status") == 0 || strcmp(path, "/metrics") == 0)
        ask(v, path[1] == 's' ? "status" : "metrics");
    else if (strcmp(path, "/healthz") == 0)
        answer_health(v);
    else
        answer_text(v, 404, "there is / and /status, /metrics, /healthz");
}

static size_t on_bytes(void *owner, const uint8_t *bytes, size_t len)
{
    struct visitor *v = owner;
    if (v->asking || v->answered)
        return len; /* a body, or a second request: not read */
    if (memmem(bytes, len, "\r\n\r\n", 4) || memmem(bytes, len, "\n\n", 2)) {
        serve(v, (const char *)bytes, len);
        return len;
    }
    if (len < HTTP_HEAD_BYTES_MAX)
        return 0;
    answer_text(v, 431, "the request's head is too large");
    return len;
}

static void on_drained(void *owner)
{
    struct visitor *v = owner;
    if (v->answered)
        leave(v);
}

static void on_closed(void *owner, enum err e, const char *text)
{
    struct visitor *v = owner;
    (void)e;
    (void)text;
    v->answered = false; /* nothing to wait for */
    leave(v);
}

static void on_connection(struct loop_watch *w, bool readable, bool writable)
{
    static const struct conn_callbacks callbacks = {.on_bytes = on_bytes, .on_drained = on_drained, .on_closed = on_closed};
    struct http *h = w->owner;
    (void)readable;
    (void)writable;
    while (h->count < HTTP_VISITORS_MAX) {
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return; /* none, or none to be had now: level triggered, it comes again */
        struct visitor *v = h->visitors;
        while (v->used)
            v++;
        *v = (struct visitor){.http = h};
        if (conn_accept(h->loop, fd, &callbacks, v, &v->conn) != ERR_OK) {
            close(fd);
            continue;
        }
        v->used = true;
        h->count++;
        conn_set_timeout_ms(v->conn, TIMEOUT_MS, TIMEOUT_MS);
    }
    loop_watch_change(w, false, false); /* HTP-1: the rest waits in the listen queue */
}

enum err http_open(struct loop *loop, struct port *port, struct board *board, int fd, struct http **http_out)
{
    struct http *h = calloc(1, sizeof *h);
    enum err e = ERR_NO_MEMORY;
    if (h) {
        h->loop = loop;
        h->port = port;
        h->board = board;
        h->watch = (struct loop_watch){.fd = fd, .ready = on_connection, .owner = h};
        e = loop_watch_add(loop, &h->watch, true, false);
    }
    if (e != ERR_OK) {
        free(h);
        close(fd);
        return e;
    }
    *http_out = h;
    return ERR_OK;
}

void http_stop(struct http *h)
{
    if (!h || h->watch.fd < 0)
        return;
    loop_watch_remove(&h->watch);
    close(h->watch.fd);
    h->watch.fd = -1;
}

void http_close(struct http **http)
{
    struct http *h = *http;
    *http = NULL;
    if (!h)
        return;
    http_stop(h);
    for (uint32_t i = 0; i < HTTP_VISITORS_MAX; i++)
        if (h->visitors[i].conn)
            conn_close(&h->visitors[i].conn, false);
    free(h);
}
