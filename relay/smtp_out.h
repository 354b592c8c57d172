/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP and LMTP client as a pure machine: bytes of the peer in, bytes for the peer and results out. No socket, no
 * clock, no memory of its own beyond this struct.
 *
 *      BANNER -> EHLO -> (STARTTLS -> TLS -> EHLO) -> READY <-----------------------------.
 *                  \-> HELO ----------------------------^ |                               |
 *                      MAIL -> RCPT... -> DATA -> BODY -> DOT(one reply; LMTP one each) --+
 *                        \________\________\--> RSET --------------------------------------'
 *      any --garbage, 421, what TLS demands is not there--> DEAD
 *
 *  SMO-1  every recipient of a transaction gets exactly one result, unless on_failed comes first.
 *  SMO-2  the final dot is written only by smtp_out_body_end; nothing else ends a body.
 *  SMO-3  no bare CR, bare LF or line that begins with a single dot leaves: what a peer takes for the end of our
 *         message is the end of our message.
 *  SMO-4  a reply is bounded: SMTP_OUT_LINE_BYTES are kept of a line, SMTP_OUT_REPLY_BYTES_MAX read of a reply. */
#ifndef RELAY_SMTP_OUT_H
#define RELAY_SMTP_OUT_H

#include <base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMTP_OUT_RECIPIENTS_MAX 50u
#define SMTP_OUT_LINE_BYTES 1024u
#define SMTP_OUT_REPLY_BYTES_MAX 65536u
#define SMTP_OUT_TEXT_BYTES 512u

enum smtp_out_tls { SMTP_OUT_TLS_NONE, SMTP_OUT_TLS_MAY, SMTP_OUT_TLS_REQUIRED };

struct smtp_out_callbacks {
    void (*write)(void *owner, const void *bytes, size_t len);
    void (*start_tls)(void *owner);                    /* do the handshake, then smtp_out_tls_done */
    void (*on_ready)(void *owner);                     /* smtp_out_send or smtp_out_quit */
    void (*on_body)(void *owner);                      /* smtp_out_body ..., smtp_out_body_end; also from inside */
    /* `command` NULL: the recipient has it. */
    void (*on_result)(void *owner, uint32_t recipient, unsigned code, const char *text, const char *command);
    /* Of no more use: close it. code 0: text is a sentence of ours with its DSN code, else the peer's reply. */
    void (*on_failed)(void *owner, unsigned code, const char *text, const char *command);
};

struct smtp_out_address { const char *address; uint32_t len; };

struct smtp_out_message {
    struct smtp_out_address sender;
    const struct smtp_out_address *recipients;         /* used at once and while RCPT is not pipelined */
    uint32_t count;
    uint64_t body_bytes;
    bool smtputf8, eight_bit;
};

enum smtp_out_state {
    SMTP_OUT_BANNER, SMTP_OUT_EHLO, SMTP_OUT_HELO, SMTP_OUT_STARTTLS, SMTP_OUT_TLS, SMTP_OUT_READY, SMTP_OUT_MAIL,
    SMTP_OUT_RCPT, SMTP_OUT_DATA, SMTP_OUT_BODY, SMTP_OUT_DOT, SMTP_OUT_EMPTY_DOT, SMTP_OUT_RSET, SMTP_OUT_QUIT,
    SMTP_OUT_DEAD
};

struct smtp_out {
    const struct smtp_out_callbacks *cb;
    void *owner;
    const char *helo_name;
    enum smtp_out_tls tls;
    bool lmtp, secure;                                 /* secure: TLS is on */
    enum smtp_out_state state;
    /* what the peer offers */
    bool pipelining, size, eight_bit_mime, smtputf8, starttls;
    uint64_t size_max;                                 /* 0: none told */
    /* the transaction */
    struct smtp_out_message message;
    uint32_t at, accepted;                             /* recipients: whose reply comes next; how many said yes */
    bool accepted_at[SMTP_OUT_RECIPIENTS_MAX];
    bool pipelined, mail_refused;
    uint8_t tail;                                      /* of the body so far, SMO-3 */
    /* the reply being read */
    uint32_t line_len, reply_bytes, text_len, lines;
    char line[SMTP_OUT_LINE_BYTES];
    char text[SMTP_OUT_TEXT_BYTES];
};

/* helo_name must live as long as the machine. Then waits for the greeting. */
void smtp_out_init(struct smtp_out *m, const struct smtp_out_callbacks *cb, void *owner, const char *helo_name,
                   enum smtp_out_tls tls, bool lmtp);
/* Returns how much was taken: less than len only before a handshake (nothing of it may be plaintext) or when dead.
 * The machine must not be freed from inside; callbacks may call smtp_out_send, _body, _body_end and _quit. */
size_t smtp_out_feed(struct smtp_out *m, const uint8_t *bytes, size_t len);
void smtp_out_tls_done(struct smtp_out *m); /* succeeded: greets again */

const char *smtp_out_command(const struct smtp_out *m); /* what it waits for an answer to */

/* Nothing in it that would end the command's line or mean something else there. */
bool smtp_out_can_express(const struct smtp_out_address *a, bool utf8);
/* NULL, or why this message cannot go over this connection: a sentence with its DSN code. Asked in READY. */
const char *smtp_out_refusal(const struct smtp_out *m, const struct smtp_out_message *msg);
void smtp_out_send(struct smtp_out *m, const struct smtp_out_message *msg); /* in READY; at most 50 recipients */
void smtp_out_body(struct smtp_out *m, const uint8_t *bytes, size_t len);   /* after on_body */
void smtp_out_body_end(struct smtp_out *m);                                  /* the whole body was verified */
void smtp_out_quit(struct smtp_out *m);                                      /* in READY */

#endif
