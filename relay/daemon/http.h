/* SPDX-License-Identifier: Apache-2.0 */
/* The status page and the metrics, over HTTP. Only shows, never changes. Served by the relay, for the spool process
 * reads no network; documents come from the spool through the port.
 *
 *   /         status for people     /status   JSON (the contract of `spooltool status --json`)
 *   /metrics  Prometheus            /healthz  200 while mail is accepted, 503 with the reason otherwise
 *
 *  HTP-1  GET and HEAD only, one request a connection, no request bodies, HTTP_HEAD_BYTES_MAX of head, ten seconds'
 *         patience, HTTP_VISITORS_MAX connections; who comes beyond that waits in the listen queue.
 *  HTP-2  while the pool is not mounted the documents come from the notice board; while the spool process itself is
 *         away they are 503, at once. */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <base/err.h>
#include <loop.h>
#include <port.h>

#define HTTP_VISITORS_MAX 32u    /* scrapers, probes and a few people */
#define HTTP_HEAD_BYTES_MAX 8192u /* more is not a browser, a scraper or a probe */

struct http;
struct board;

/* Takes over the listening socket, also on failure. */
enum err http_open(struct loop *loop, struct port *port, struct board *board, int fd, struct http **http_out) MUST_CHECK;
void http_stop(struct http *http); /* takes no more visitors */
/* After port_close, or when the loop does not run again: answers under way are forgotten. */
void http_close(struct http **http);

#endif
