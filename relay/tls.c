/* SPDX-License-Identifier: Apache-2.0 */
/* TLS sessions over memory BIOs: ciphertext in, plaintext out and back, so that conn.c has one read path and one write
 * a turn for both kinds of connection. Owns nothing but OpenSSL's objects; no sockets, no clock. See tls.h. */
#include "tls.h"

#include <base/assert.h>
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 256

struct tls_context {
    SSL_CTX *ctx;
    uint32_t refs;
    bool verify;
};

struct tls_session {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    struct tls_context *context;
    char text[TEXT_BYTES];
};

static void last_error(char *text, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (text)
        snprintf(text, TEXT_BYTES, "%s: %s", what, reason ? reason : "failed");
    ERR_clear_error();
}

static struct tls_context *context_new(const SSL_METHOD *method)
{
    struct tls_context *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->refs = 1;
    c->ctx = SSL_CTX_new(method);
    if (!c->ctx || !SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION)) {
        tls_context_unref(&c);
        return NULL;
    }
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* an idle session gives its record buffers back: 34 KiB each otherwise */
    SSL_CTX_set_mode(c->ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
    return c;
}

enum err tls_server_open(const char *cert_file, const char *key_file, char text[256], struct tls_context **c_out)
{
    static const unsigned char id[] = "ironspool-smtpd";
    struct tls_context *c = context_new(TLS_server_method());
    if (!c)
        return ERR_NO_MEMORY;
    const char *failed = NULL;
    if (SSL_CTX_use_certificate_chain_file(c->ctx, cert_file) != 1)
        failed = cert_file;
    else if (SSL_CTX_use_PrivateKey_file(c->ctx, *key_file ? key_file : cert_file, SSL_FILETYPE_PEM) != 1)
        failed = *key_file ? key_file : cert_file;
    else if (SSL_CTX_check_private_key(c->ctx) != 1)
        failed = "certificate and key";
    if (failed) {
        last_error(text, failed);
        tls_context_unref(&c);
        return ERR_CONFIG;
    }
    SSL_CTX_set_session_id_context(c->ctx, id, sizeof id - 1);
    *c_out = c;
    return ERR_OK;
}

enum err tls_client_open(bool verify, const char *ca_file, char text[256], struct tls_context **c_out)
{
    struct tls_context *c = context_new(TLS_client_method());
    if (!c)
        return ERR_NO_MEMORY;
    c->verify = verify;
    int ok = 1;
    if (ca_file && *ca_file)
        ok = SSL_CTX_load_verify_file(c->ctx, ca_file);
    else if (verify)
        ok = SSL_CTX_set_default_verify_paths(c->ctx);
    if (ok != 1) {
        last_error(text, ca_file && *ca_file ? ca_file : "system certificates");
        tls_context_unref(&c);
        return ERR_CONFIG;
    }
    SSL_CTX_set_verify(c->ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    *c_out = c;
    return ERR_OK;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
    c->refs++;
    return c;
}

void tls_context_unref(struct tls_context **c)
{
    struct tls_context *old = *c;
    *c = NULL;
    if (!old || --old->refs > 0)
        return;
    SSL_CTX_free(old->ctx);
    free(old);
}

static bool set_name(struct tls_session *s, const char *name)
{
    uint8_t address[16];
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s->ssl), name) == 1; /* no SNI for addresses */
    SSL_set_hostflags(s->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(s->ssl, name) == 1 && SSL_set1_host(s->ssl, name) == 1;
}

enum err tls_session_open(struct tls_context *c, bool server, const char *name, struct tls_session **s_out)
{
    struct tls_session *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    s->context = tls_context_ref(c);
    s->ssl = SSL_new(c->ctx);
    s->in = BIO_new(BIO_s_mem());
    s->out = BIO_new(BIO_s_mem());
    if (!s->ssl || !s->in || !s->out) {
        BIO_free(s->in);
        BIO_free(s->out);
        tls_session_close(&s);
        return ERR_NO_MEMORY;
    }
    BIO_set_mem_eof_return(s->in, -1); /* empty means "later", not the end */
    SSL_set_bio(s->ssl, s->in, s->out);
    enum err e = ERR_OK;
    if (server)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
    if (!server && name && *name && !set_name(s, name))
        e = ERR_INVALID;
    if (!server && c->verify && !(name && *name))
        e = ERR_INVALID; /* TLS-2: nothing to prove */
    if (e) {
        ERR_clear_error();
        tls_session_close(&s);
        return e;
    }
    *s_out = s;
    return ERR_OK;
}

void tls_session_close(struct tls_session **s)
{
    struct tls_session *old = *s;
    *s = NULL;
    if (!old)
        return;
    SSL_free(old->ssl);
    tls_context_unref(&old->context);
    free(old);
}

enum err tls_session_feed(struct tls_session *s, const uint8_t *bytes, size_t len)
{
    ASSERT(len <= INT32_MAX);
    return BIO_write(s->in, bytes, (int)len) == (int)len ? ERR_OK : ERR_NO_MEMORY;
}

static void describe(struct tls_session *s)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(s->ssl);
    int algorithm_bits = 0, bits = cipher ? SSL_CIPHER_get_bits(cipher, &algorithm_bits) : 0;
    snprintf(s->text, sizeof s->text, "%s with cipher %s (%d/%d bits)", SSL_get_version(s->ssl),
             cipher ? SSL_CIPHER_get_name(cipher) : "none", bits, algorithm_bits);
}

enum err tls_session_handshake(struct tls_session *s)
{
    ERR_clear_error();
    int r = SSL_do_handshake(s->ssl);
    if (r == 1) {
        describe(s);
        return ERR_OK;
    }
    int why = SSL_get_error(s->ssl, r);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return ERR_BUSY;
    long verdict = SSL_get_verify_result(s->ssl);
    if (s->context->verify && verdict != X509_V_OK) {
        snprintf(s->text, sizeof s->text, "certificate not trusted: %s", X509_verify_cert_error_string(verdict));
        ERR_clear_error();
    } else {
        last_error(s->text, "handshake");
    }
    return ERR_DENIED;
}

const char *tls_session_text(struct tls_session *s)
{
    return s->text;
}

enum err tls_session_read(struct tls_session *s, uint8_t *bytes, size_t capacity, size_t *len_out)
{
    ERR_clear_error();
    size_t got = 0;
    if (SSL_read_ex(s->ssl, bytes, capacity, &got) == 1) {
        *len_out = got;
        return ERR_OK;
    }
    switch (SSL_get_error(s->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return ERR_BUSY;
    case SSL_ERROR_ZERO_RETURN:
        return ERR_CANCELED;
    default:
        last_error(s->text, "read");
        return ERR_SYSTEM;
    }
}

enum err tls_session_write(struct tls_session *s, const uint8_t *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        size_t wrote = 0;
        ERR_clear_error();
        if (SSL_write_ex(s->ssl, bytes + done, len - done, &wrote) != 1) { /* a memory BIO never says "later" */
            last_error(s->text, "write");
            return ERR_SYSTEM;
        }
        done += wrote;
    }
    return ERR_OK;
}

void tls_session_shutdown(struct tls_session *s)
{
    ERR_clear_error();
    if (SSL_is_init_finished(s->ssl))
        SSL_shutdown(s->ssl); /* 0 is "not answered yet"; nobody waits for the answer */
    ERR_clear_error();
}

size_t tls_session_output(struct tls_session *s, const uint8_t **bytes_out)
{
    char *bytes = NULL;
    long len = BIO_get_mem_data(s->out, &bytes);
    *bytes_out = (const uint8_t *)bytes;
    return len > 0 ? (size_t)len : 0;
}

void tls_session_output_taken(struct tls_session *s, size_t len)
{
    if (len == BIO_ctrl_pending(s->out)) {
        BIO_reset(s->out);
        return;
    }
    uint8_t sink[4096];
    while (len > 0) {
        int n = BIO_read(s->out, sink, (int)(len < sizeof sink ? len : sizeof sink));
        ASSERT(n > 0);
        len -= (size_t)n;
    }
}
