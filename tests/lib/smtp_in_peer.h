/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server machine with a session played behind it: what was said, what was asked for, which content came; and one
 * script in all its splits (SIN-1). To be included by the one .c of a test program. */
#ifndef SMTP_IN_PEER_H
#define SMTP_IN_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp_in.h"

#define TEXT_MAX (256 * 1024)

static const struct smtp_in_config plain_config = {
    .hostname = "mx.test",
    .mail_name = "Ironspool",
    .message_size_limit = 1000,
    .recipient_limit = 3,
    .hopcount_limit = 2,
    .header_size_limit = 400,
    .line_length_limit = 200,
    .hard_error_limit = 20,
};

struct peer {
    struct smtp_in machine;
    struct smtp_in_config config;
    char *said;      /* all replies */
    char *done;      /* what was asked of us, one word each */
    char *body;      /* content of all messages */
    size_t said_len, done_len, body_len;
    uint8_t *waiting;
    size_t waiting_len;
    size_t body_room;      /* content taken before the next stall; 0: no limit */
    size_t room_left;
    enum err mail_says, recipient_says, begin_says, finish_says;
    bool finish_later, begin_busy;
    unsigned refusals;
    enum err refused_why;
};

static void note(char *to, size_t *len, const void *bytes, size_t n)
{
    assert_true(*len + n < TEXT_MAX);
    memcpy(to + *len, bytes, n);
    *len += n;
    to[*len] = '\0';
}

static void did(struct peer *p, const char *what)
{
    note(p->done, &p->done_len, what, strlen(what));
    note(p->done, &p->done_len, " ", 1);
}

static void fake_reply(void *owner, const char *bytes, size_t len)
{
    struct peer *p = owner;
    note(p->said, &p->said_len, bytes, len);
}

static enum err fake_mail(void *owner, const struct smtp_in_mail *mail)
{
    struct peer *p = owner;
    char text[512];
    snprintf(text, sizeof text, "mail<%.*s>%s%s", (int)mail->sender_len, mail->sender, mail->smtputf8 ? "u" : "",
             mail->eightbit ? "8" : "");
    did(p, text);
    return p->mail_says;
}

static enum err fake_recipient(void *owner, const char *address, uint32_t len)
{
    struct peer *p = owner;
    char text[512];
    snprintf(text, sizeof text, "rcpt<%.*s>", (int)len, address);
    did(p, text);
    if (len > 11 && memcmp(address + len - 11, "@other.test", 11) == 0)
        return ERR_DENIED;
    return p->recipient_says;
}

static enum err fake_body_begin(void *owner)
{
    struct peer *p = owner;
    did(p, "begin");
    p->room_left = p->body_room;
    return p->begin_busy ? ERR_BUSY : p->begin_says;
}

static size_t fake_body(void *owner, const uint8_t *bytes, size_t len)
{
    struct peer *p = owner;
    size_t n = len;
    if (p->body_room) {
        n = len < p->room_left ? len : p->room_left;
        p->room_left -= n;
    }
    note(p->body, &p->body_len, bytes, n);
    return n;
}

static void fake_body_end(void *owner, const char *message_id)
{
    struct peer *p = owner;
    char text[512];
    snprintf(text, sizeof text, "end(%s)", message_id);
    did(p, text);
    note(p->body, &p->body_len, "|", 1);
    if (!p->finish_later)
        smtp_in_finish(&p->machine, p->finish_says, "QID");
}

static void fake_abandon(void *owner)
{
    struct peer *p = owner;
    while (p->body_len > 0 && p->body[p->body_len - 1] != '|') /* how much came before does not matter */
        p->body[--p->body_len] = '\0';
    did(p, "abandon");
}

static void fake_start_tls(void *owner)
{
    did(owner, "tls");
}

static void fake_refused(void *owner, enum smtp_verb verb, enum err why, const char *reply, const char *address,
                         uint32_t len)
{
    struct peer *p = owner;
    (void)verb;
    (void)reply;
    (void)address;
    (void)len;
    p->refusals++;
    p->refused_why = why;
}

static void fake_close(void *owner)
{
    did(owner, "close");
}

static const struct smtp_in_callbacks callbacks = {
    .reply = fake_reply,
    .mail = fake_mail,
    .recipient = fake_recipient,
    .body_begin = fake_body_begin,
    .body = fake_body,
    .body_end = fake_body_end,
    .abandon = fake_abandon,
    .start_tls = fake_start_tls,
    .refused = fake_refused,
    .close = fake_close,
};

static struct peer *peer_open(const struct smtp_in_config *config)
{
    struct peer *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->config = *config;
    p->said = calloc(1, TEXT_MAX);
    p->done = calloc(1, TEXT_MAX);
    p->body = calloc(1, TEXT_MAX);
    p->waiting = malloc(TEXT_MAX);
    assert_true(p->said && p->done && p->body && p->waiting);
    smtp_in_open(&p->machine, &p->config, &callbacks, p);
    return p;
}

static void peer_close(struct peer *p)
{
    free(p->said);
    free(p->done);
    free(p->body);
    free(p->waiting);
    free(p);
}

/* As a connection does: what is not consumed comes again, in front of what is new. */
static void send_bytes(struct peer *p, const void *bytes, size_t len)
{
    assert_true(p->waiting_len + len <= TEXT_MAX);
    memcpy(p->waiting + p->waiting_len, bytes, len);
    p->waiting_len += len;
    for (;;) {
        /* an exact copy, so that the sanitizer sees a read behind the end */
        uint8_t *copy = malloc(p->waiting_len ? p->waiting_len : 1);
        assert_non_null(copy);
        memcpy(copy, p->waiting, p->waiting_len);
        size_t used = smtp_in_feed(&p->machine, copy, p->waiting_len);
        free(copy);
        assert_true(used <= p->waiting_len);
        memmove(p->waiting, p->waiting + used, p->waiting_len - used);
        p->waiting_len -= used;
        if (p->machine.state != SMTP_IN_STALLED)
            return;
        p->room_left = p->body_room;
        smtp_in_go_on(&p->machine, ERR_OK);
    }
}

static void send_text(struct peer *p, const char *text)
{
    send_bytes(p, text, strlen(text));
}

static void forget(struct peer *p)
{
    p->said_len = p->done_len = 0;
    p->said[0] = p->done[0] = '\0';
}

#define HELLO "EHLO client.test\r\n"
#define ENVELOPE "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@lists.test>\r\n"

static struct peer *greeted(const struct smtp_in_config *config)
{
    struct peer *p = peer_open(config);
    smtp_in_greet(&p->machine);
    send_text(p, HELLO);
    forget(p);
    return p;
}

static void expect_same(const struct peer *a, const struct peer *b)
{
    assert_string_equal(a->said, b->said);
    assert_string_equal(a->done, b->done);
    assert_int_equal(a->body_len, b->body_len);
    assert_memory_equal(a->body, b->body, a->body_len);
    assert_int_equal(a->machine.state, b->machine.state);
    assert_int_equal(a->refusals, b->refusals);
}

static void run_in_pieces(const char *script, size_t len, const struct peer *whole, size_t at, size_t step, size_t room)
{
    struct peer *p = peer_open(&plain_config);
    p->body_room = room;
    smtp_in_greet(&p->machine);
    if (at > 0)
        send_bytes(p, script, at);
    for (size_t i = at; i < len; i += step)
        send_bytes(p, script + i, step < len - i ? step : len - i);
    expect_same(whole, p);
    peer_close(p);
}

/* Whole, at every split point, in steps of 1 to 5 and 64, and with content taken 1 and 7 bytes at a time. */
static void expect_in_all_splits(const char *script, size_t len, const char *last_reply)
{
    static const size_t steps[] = {1, 2, 3, 4, 5, 63, 64, 65};
    struct peer *whole = peer_open(&plain_config);
    smtp_in_greet(&whole->machine);
    send_bytes(whole, script, len);
    if (last_reply) {
        const char *found = strstr(whole->said, last_reply);
        if (!found)
            fail_msg("no \"%s\" in: %s", last_reply, whole->said);
    }
    for (size_t at = 0; at <= len; at++)
        run_in_pieces(script, len, whole, at, len, 0);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        run_in_pieces(script, len, whole, 0, steps[i], 0);
        run_in_pieces(script, len, whole, 0, steps[i], 1);
    }
    run_in_pieces(script, len, whole, 0, len, 1);
    run_in_pieces(script, len, whole, 0, len, 7);
    peer_close(whole);
}

#define SPLITS(script, last_reply) expect_in_all_splits(script, sizeof(script) - 1, last_reply)

#endif
