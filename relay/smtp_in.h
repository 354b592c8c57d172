/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server's side of one session as a pure machine: bytes and events in, replies and actions out. No socket, no
 * clock, no allocation; what it does not consume has to come again.
 *
 *  SIN-1  the replies depend on the bytes alone, not on the pieces they come in.
 *  SIN-2  a CR without LF or an LF without CR, in commands or content, ends the session with 521 5.5.2; content is never
 *         normalised, so that nobody down the line sees another end of message than we did.
 *  SIN-3  nothing is said to be queued before smtp_in_finish(ERR_OK).
 *  SIN-4  nothing learned before STARTTLS is kept after it, and no command is taken while the handshake runs.
 *  SIN-5  every wait is bounded in bytes: commands by SMTP_COMMAND_BYTES_MAX, refused content by twice the size limit.
 *
 *  NEW -> COMMANDS [smtp_in_greet] -> SKIPPING (a line too long) -> COMMANDS
 *  COMMANDS -> BEGINNING (body_begin said ERR_BUSY) -> CONTENT | COMMANDS [smtp_in_go_on]
 *  CONTENT <-> STALLED (body took less) [smtp_in_go_on];  CONTENT -> FINISHING -> COMMANDS [smtp_in_finish]
 *  COMMANDS -> HANDSHAKE -> COMMANDS [smtp_in_tls_started];  any -> CLOSED */
#ifndef RELAY_SMTP_IN_H
#define RELAY_SMTP_IN_H

#include "smtp_body.h"
#include "smtp_syntax.h"

#define SMTP_COMMAND_BYTES_MAX 2048u /* Postfix's line_length_limit: 512 of RFC 5321 and room for parameters */
#define SMTP_SKIPPED_BYTES_MAX 65536u /* a longer "line" closes the session */

struct smtp_in_config { /* outlives the machine */
    const char *hostname, *mail_name;
    uint64_t message_size_limit;
    uint32_t recipient_limit, hopcount_limit, header_size_limit, line_length_limit, hard_error_limit;
    bool tls_offered, tls_required;
};

struct smtp_in_mail {
    const char *sender; /* length 0: the null sender; may lack a domain */
    uint32_t sender_len;
    uint64_t size;      /* 0: not given */
    bool smtputf8, eightbit;
    bool hold;          /* to arrive in the hold queue; the session decides who may ask for that */
};

/* Refusals go by class (ERR_CLASS_FULL 452 4.3.1, TRANSIENT and DEGRADED 451 4.3.0) and by name: DENIED 554 5.7.1,
 * TOO_LARGE 552 5.3.4, STOPPING 421 4.3.2. */
struct smtp_in_callbacks {
    void (*reply)(void *owner, const char *bytes, size_t len);
    enum err (*mail)(void *owner, const struct smtp_in_mail *mail);
    enum err (*recipient)(void *owner, const char *address, uint32_t len); /* may lack a domain */
    enum err (*body_begin)(void *owner);        /* ERR_BUSY: answered by smtp_in_go_on */
    size_t (*body)(void *owner, const uint8_t *bytes, size_t len); /* fewer than len: the rest after smtp_in_go_on */
    void (*body_end)(void *owner, const char *message_id); /* answered by smtp_in_finish, maybe before it returns */
    void (*abandon)(void *owner);               /* the transaction begun by `mail` is over, unfinished */
    void (*start_tls)(void *owner);             /* once the reply has left */
    /* For counters and the log: `why` is ERR_DENIED (relay), ERR_INVALID (syntax), ERR_BUSY (a limit), ERR_TOO_LARGE
     * or what a callback said; reply without CRLF. */
    void (*refused)(void *owner, enum smtp_verb verb, enum err why, const char *reply, const char *address, uint32_t len);
    void (*close)(void *owner);                 /* once the replies have left; nothing follows */
};

enum smtp_in_state {
    SMTP_IN_NEW,
    SMTP_IN_COMMANDS,
    SMTP_IN_SKIPPING,
    SMTP_IN_BEGINNING,
    SMTP_IN_CONTENT,
    SMTP_IN_STALLED,
    SMTP_IN_FINISHING,
    SMTP_IN_HANDSHAKE,
    SMTP_IN_CLOSED,
};

struct smtp_in { /* read by the session, written by the machine only */
    const struct smtp_in_config *config;
    const struct smtp_in_callbacks *cb;
    void *owner;
    enum smtp_in_state state;
    bool tls, esmtp, smtputf8;
    bool in_mail;            /* MAIL was taken */
    bool open;               /* and nobody was told that it is over */
    bool stopping;
    bool content_bdat;       /* the content under way comes by BDAT */
    bool bdat_begun, bdat_last, bdat_failed;
    uint32_t recipients, errors;
    uint32_t skipped;
    uint64_t chunk_bytes, chunk_left; /* of this BDAT */
    size_t scanned;          /* content scanned, not yet handed on */
    const char *refusal;     /* why this content is refused, or NULL */
    enum err refusal_why;
    char helo[256];          /* empty: none yet */
    uint32_t seen[SMTP_VERB_COUNT], good[SMTP_VERB_COUNT];
    enum smtp_verb verb;     /* the last command's */
    struct smtp_body body;
};

void smtp_in_open(struct smtp_in *m, const struct smtp_in_config *config, const struct smtp_in_callbacks *cb, void *owner);
void smtp_in_greet(struct smtp_in *m);  /* the banner; bytes before it are an early talker's */
/* Returns how many bytes were consumed; the rest (an unfinished line, or because an answer is awaited) comes again. */
size_t smtp_in_feed(struct smtp_in *m, const uint8_t *bytes, size_t len);
bool smtp_in_waits(const struct smtp_in *m); /* for us, not for the peer */
void smtp_in_go_on(struct smtp_in *m, enum err e);
void smtp_in_finish(struct smtp_in *m, enum err e, const char *queue_id);
void smtp_in_tls_started(struct smtp_in *m);
void smtp_in_timeout(struct smtp_in *m); /* 421 4.4.2 */
void smtp_in_stop(struct smtp_in *m);    /* 421 4.3.2 now, or when the transaction under way is over */
void smtp_in_cut_off(struct smtp_in *m); /* 421 4.3.2 now, whatever is under way */

#endif
