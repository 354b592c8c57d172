/* SPDX-License-Identifier: Apache-2.0 */
/* One byte stream to a peer, plain or TLS. The only door to bufferevents and OpenSSL.
 *
 *  CON-1  no plaintext byte survives a handshake: whatever was buffered in either direction when conn_start_tls is
 *         called makes it fail with ERR_INVALID and nothing is read from it.
 *  CON-2  output is bounded by the caller: it watches conn_queued_bytes and waits for on_drained.
 *  CON-3  a callback may call conn_close on its own conn; no callback follows. */
#ifndef RELAY_CONN_H
#define RELAY_CONN_H

#include "loop.h"

#include <stddef.h>
#include <sys/socket.h>

struct conn;
struct tls_context; /* certificates and policy of one side; tls.h */

struct conn_callbacks {
    void (*on_connected)(void *owner);                                   /* outgoing only */
    size_t (*on_bytes)(void *owner, const uint8_t *bytes, size_t len);   /* returns how many were consumed; the rest
                                                                            comes again with more, or after resume */
    void (*on_drained)(void *owner);                                     /* all output is with the kernel */
    void (*on_tls)(void *owner, enum err e, const char *text);           /* handshake over; text: "TLSv1.3 with cipher ..." or why not */
    void (*on_closed)(void *owner, enum err e, const char *text);        /* peer closed (ERR_OK), reset, timeout; then conn_close it */
};

enum err conn_accept(struct loop *loop, int fd, const struct conn_callbacks *cb, void *owner, struct conn **conn_out) MUST_CHECK;
enum err conn_connect(struct loop *loop, const struct sockaddr *to, socklen_t to_len, const struct conn_callbacks *cb,
                      void *owner, struct conn **conn_out) MUST_CHECK; /* ERR_NO_FD, ERR_SYSTEM */
void conn_write(struct conn *c, const void *bytes, size_t len);  /* copied; leaves at the end of the turn */
size_t conn_queued_bytes(const struct conn *c);
void conn_pause(struct conn *c, bool paused);       /* stop reading: backpressure to the peer */
void conn_set_timeout_ms(struct conn *c, uint64_t read_ms, uint64_t write_ms); /* 0: none; on_closed(ERR_TIMEOUT) */
/* server: answer a handshake; client: begin one, `name` for SNI and verification. */
enum err conn_start_tls(struct conn *c, struct tls_context *tls, bool server, const char *name) MUST_CHECK;
bool conn_is_tls(const struct conn *c);
void conn_close(struct conn **c, bool flush);        /* flush: after the queued output left or 5 s */
void conn_forget_left(struct loop *loop);           /* before loop_close: those that are still flushing are cut off */

#endif
