/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP over libevent's evhttp. See http.h. A request whose client went away is still ours until it is answered
 * (evhttp drops the answer then). */
#include "http.h"

#include "board.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX 8192   /* more is not a browser, a scraper or a probe */
#define TIMEOUT_S 10

struct http {
    struct evhttp *server;
    struct port *port;
    struct board *board;
    struct link waiting;   /* of struct page: asked, not yet answered */
};

struct page {
    struct link link;
    struct http *http;
    struct evhttp_request *request;
    const char *kind;
    const char *type;
    bool html;
};

static void answer(struct evhttp_request *r, int code, const char *type, struct evbuffer *body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r);
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
    evhttp_send_reply(r, code, code == 200 ? "OK" : code == 404 ? "Not Found" : "Service Unavailable", body);
}

static void answer_text(struct evhttp_request *r, int code, const char *text)
{
    struct evbuffer *body = evbuffer_new();
    if (body)
        evbuffer_add_printf(body, "%s\n", text);
    answer(r, code, "text/plain; charset=utf-8", body);
    if (body)
        evbuffer_free(body);
}

static void add_escaped(struct evbuffer *body, const char *bytes, uint32_t len)
{
    for (uint32_t i = 0, from = 0; i <= len; i++) {
        const char *as = i == len ? "" : bytes[i] == '<' ? "&lt;" : bytes[i] == '>' ? "&gt;"
                         : bytes[i] == '&' ? "&amp;" : NULL;
        if (!as)
            continue;
        evbuffer_add(body, bytes + from, i - from);
        evbuffer_add(body, as, strlen(as));
        from = i + 1;
    }
}

static void add_page(struct evbuffer *body, const char *bytes, uint32_t len)
{
    static const char begin[] =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">"
        "<title>Ironspool</title><style>body{font:15px/1.45 monospace;margin:2em;max-width:110ch;color:#111;background:#fff}"
        "pre{overflow-x:auto}@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}a{color:#8bf}}</style></head>"
        "<body><pre>";
    static const char end[] = "</pre><p><a href=\"/status\">/status</a> <a href=\"/metrics\">/metrics</a> "
                              "<a href=\"/healthz\">/healthz</a></p></body></html>\n";
    evbuffer_add(body, begin, sizeof begin - 1);
    add_escaped(body, bytes, len);
    evbuffer_add(body, end, sizeof end - 1);
}

static void page_came(void *owner, enum err e, const char *bytes, uint32_t len)
{
    struct page *p = owner;
    struct evbuffer *body = evbuffer_new();
    char *posted = NULL;
    link_remove(&p->link);
    if (e == ERR_SPOOL_GONE && board_read(p->http->board, p->kind, &posted, &len) == ERR_OK) {
        bytes = posted;
        e = ERR_OK;
    }
    if (e != ERR_OK || !body) {
        answer_text(p->request, 503, e == ERR_OK ? "out of memory" : err_text(e));
    } else {
        if (p->html)
            add_page(body, bytes, len);
        else
            evbuffer_add(body, bytes, len);
        answer(p->request, 200, p->type, body);
    }
    if (body)
        evbuffer_free(body);
    free(posted);
    free(p);
}

static void ask(struct http *h, struct evhttp_request *r, const char *kind, const char *type, bool html)
{
    struct page *p = calloc(1, sizeof *p);
    if (!p) {
        answer_text(r, 503, "out of memory");
        return;
    }
    *p = (struct page){.http = h, .request = r, .kind = kind, .type = type, .html = html};
    link_push(&h->waiting, &p->link);
    enum err e = port_document(h->port, kind, p, page_came);
    if (e != ERR_OK)
        page_came(p, e, NULL, 0);
}

static void health(struct http *h, struct evhttp_request *r)
{
    struct port_status s = port_status(h->port);
    char *posted;
    uint32_t len;
    if (!s.connected && board_read(h->board, "health", &posted, &len) == ERR_OK) {
        answer_text(r, 503, posted);
        free(posted);
        return;
    }
    if (!s.connected)
        answer_text(r, 503, "the spool process is restarting");
    else if (s.accepting != ERR_OK)
        answer_text(r, 503, err_text(s.accepting));
    else
        answer_text(r, 200, "ok");
}

static void on_request(struct evhttp_request *r, void *owner)
{
    struct http *h = owner;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    if (!path || !path[0] || strcmp(path, "/") == 0)
        ask(h, r, "text", "text/html; charset=utf-8", true);
    else if (strcmp(path, "/status") == 0)
        ask(h, r, "status", "application/json", false);
    else if (strcmp(path, "/metrics") == 0)
        ask(h, r, "metrics", "text/plain; version=0.0.4; charset=utf-8", false);
    else if (strcmp(path, "/healthz") == 0)
        health(h, r);
    else
        answer_text(r, 404, "there is / and /status, /metrics, /healthz");
}

enum err http_open(struct loop *loop, struct port *port, struct board *board, int fd, struct http **http_out)
{
    struct http *h = calloc(1, sizeof *h);
    if (h)
        h->server = evhttp_new(loop_base(loop));
    if (!h || !h->server) {
        free(h);
        close(fd);
        return ERR_NO_MEMORY;
    }
    h->port = port;
    h->board = board;
    link_init(&h->waiting);
    evhttp_set_allowed_methods(h->server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(h->server, HEADERS_MAX);
    evhttp_set_max_body_size(h->server, 0);
    evhttp_set_timeout(h->server, TIMEOUT_S);
    evhttp_set_gencb(h->server, on_request, h);
    if (evhttp_accept_socket(h->server, fd) != 0) {
        close(fd);
        http_close(&h);
        return ERR_SYSTEM;
    }
    *http_out = h;
    return ERR_OK;
}

void http_close(struct http **http)
{
    struct http *h = *http;
    *http = NULL;
    if (!h)
        return;
    struct link *l;
    while ((l = link_pop(&h->waiting)) != NULL) {
        struct page *p = CONTAINER_OF(l, struct page, link);
        answer_text(p->request, 503, "stopping");
        free(p);
    }
    evhttp_free(h->server);
    free(h);
}
