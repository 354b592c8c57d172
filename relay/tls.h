/* SPDX-License-Identifier: Apache-2.0 */
/* TLS without sockets: contexts (certificates and policy of one side) and sessions that turn bytes into bytes.
 * The only door to OpenSSL. conn.c feeds the sessions; everybody else only makes contexts and hands them to conn.
 *
 *  TLS-1  TLS 1.2 and newer only, no renegotiation, no compression.
 *  TLS-2  a session with `verify` never reports a finished handshake with a peer whose name was not proved. */
#ifndef RELAY_TLS_H
#define RELAY_TLS_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_context;
struct tls_session;

/* Reference counted: a reload opens a new one, sessions keep theirs. ERR_CONFIG: the files do not fit (text, if not
 * NULL, says why). */
enum err tls_server_open(const char *cert_file, const char *key_file, char text[256], struct tls_context **c_out) MUST_CHECK;
/* verify: the chain must lead to ca_file (empty: the system's) and the certificate must carry the peer's name. */
enum err tls_client_open(bool verify, const char *ca_file, char text[256], struct tls_context **c_out) MUST_CHECK;
struct tls_context *tls_context_ref(struct tls_context *c);
void tls_context_unref(struct tls_context **c);

/* --- for conn.c --- */
enum err tls_session_open(struct tls_context *c, bool server, const char *name, struct tls_session **s_out) MUST_CHECK;
void tls_session_close(struct tls_session **s);
enum err tls_session_feed(struct tls_session *s, const uint8_t *bytes, size_t len) MUST_CHECK; /* from the wire */
enum err tls_session_handshake(struct tls_session *s) MUST_CHECK; /* ERR_BUSY: needs more; ERR_DENIED: failed */
const char *tls_session_text(struct tls_session *s); /* protocol and cipher, or why it failed */
/* ERR_BUSY: needs more; ERR_CANCELED: the peer ended the session; ERR_SYSTEM: broken. */
enum err tls_session_read(struct tls_session *s, uint8_t *bytes, size_t capacity, size_t *len_out) MUST_CHECK;
enum err tls_session_write(struct tls_session *s, const uint8_t *bytes, size_t len) MUST_CHECK;
void tls_session_shutdown(struct tls_session *s); /* our close_notify */
size_t tls_session_output(struct tls_session *s, const uint8_t **bytes_out); /* for the wire */
void tls_session_output_taken(struct tls_session *s, size_t len);

#endif
