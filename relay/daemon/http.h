/* SPDX-License-Identifier: Apache-2.0 */
/* The status page and the metrics, over HTTP. Only shows, never changes. Served by the relay, for the spool process
 * reads no network; documents come from the spool through the port.
 *
 *   /         status for people     /status   JSON (the contract of `spooltool status --json`)
 *   /metrics  Prometheus            /healthz  200 while mail is accepted, 503 with the reason otherwise
 *
 *  HTP-1  GET and HEAD only, no request bodies, small headers, short timeouts.
 *  HTP-2  while the pool is not mounted the documents come from the notice board; while the spool process itself is
 *         away they are 503, at once. */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <base/err.h>
#include <loop.h>
#include <port.h>

struct http;
struct board;

/* Takes over the listening socket, also on failure. */
enum err http_open(struct loop *loop, struct port *port, struct board *board, int fd, struct http **http_out) MUST_CHECK;
void http_close(struct http **http);

#endif
