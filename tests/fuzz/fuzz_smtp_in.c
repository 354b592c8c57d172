/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server machine under arbitrary bytes: fed whole and in pieces of a size the input chooses, both must say the
 * same (SIN-1); content that was queued carries no CR or LF alone (SIN-2). */
#include "smtp_in.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct smtp_in machine;
    uint8_t *said, *body;
    size_t said_len, body_len, body_kept, room;
};

static void put(uint8_t **to, size_t *len, const void *bytes, size_t n)
{
    *to = realloc(*to, *len + n + 1);
    ASSERT(*to);
    memcpy(*to + *len, bytes, n);
    *len += n;
}

static void on_reply(void *owner, const char *bytes, size_t len)
{
    struct run *r = owner;
    ASSERT(len >= 2 && memcmp(bytes + len - 2, "\r\n", 2) == 0);
    put(&r->said, &r->said_len, bytes, len);
}

static enum err on_mail(void *owner, const struct smtp_in_mail *mail)
{
    (void)owner;
    ASSERT(mail->sender_len <= ADDRESS_BYTES_MAX && !memchr(mail->sender, '\n', mail->sender_len));
    return mail->size == 7 ? ERR_FULL : ERR_OK;
}

static enum err on_recipient(void *owner, const char *address, uint32_t len)
{
    (void)owner;
    ASSERT(len > 0 && len <= ADDRESS_BYTES_MAX);
    for (uint32_t i = 0; i < len; i++)
        ASSERT((uint8_t)address[i] >= 0x20 && address[i] != 0x7f);
    return address[0] == 'd' ? ERR_DENIED : ERR_OK;
}

static enum err on_body_begin(void *owner)
{
    (void)owner;
    return ERR_OK;
}

static size_t on_body(void *owner, const uint8_t *bytes, size_t len)
{
    struct run *r = owner;
    size_t n = r->room && len > r->room ? r->room : len;
    put(&r->body, &r->body_len, bytes, n);
    return n;
}

static void on_body_end(void *owner, const char *message_id)
{
    struct run *r = owner;
    ASSERT(strlen(message_id) < 256);
    for (size_t i = r->body_kept; i < r->body_len; i++) {
        if (r->body[i] == '\n')
            ASSERT(i > r->body_kept && r->body[i - 1] == '\r');
        if (r->body[i] == '\r')
            ASSERT(i + 1 < r->body_len && r->body[i + 1] == '\n');
    }
    put(&r->body, &r->body_len, "|", 1);
    r->body_kept = r->body_len;
    smtp_in_finish(&r->machine, ERR_OK, "QID");
}

static void on_abandon(void *owner)
{
    struct run *r = owner;
    r->body_len = r->body_kept;
}

static void on_refused(void *owner, enum smtp_verb verb, enum err why, const char *reply, const char *address,
                       uint32_t len)
{
    (void)owner;
    (void)verb;
    (void)address;
    (void)len;
    ASSERT(why != ERR_OK && (reply[0] == '4' || reply[0] == '5'));
}

static void on_event(void *owner)
{
    (void)owner;
}

static const struct smtp_in_callbacks callbacks = {
    .reply = on_reply,
    .mail = on_mail,
    .recipient = on_recipient,
    .body_begin = on_body_begin,
    .body = on_body,
    .body_end = on_body_end,
    .abandon = on_abandon,
    .start_tls = on_event,
    .refused = on_refused,
    .close = on_event,
};

static const struct smtp_in_config config = {
    .hostname = "mx.test",
    .mail_name = "x",
    .message_size_limit = 300,
    .recipient_limit = 2,
    .hopcount_limit = 1,
    .header_size_limit = 100,
    .line_length_limit = 60,
    .hard_error_limit = 10,
    .tls_offered = true,
};

/* As a connection does: what is not consumed stands in front of the next piece. */
static void run(struct run *r, const uint8_t *bytes, size_t len, size_t piece, size_t room)
{
    memset(r, 0, sizeof *r);
    r->room = room;
    smtp_in_open(&r->machine, &config, &callbacks, r);
    smtp_in_greet(&r->machine);
    size_t at = 0, seen = 0;
    while (seen < len) {
        seen = piece < len - seen ? seen + piece : len;
        for (;;) {
            size_t n = seen - at;
            uint8_t *exact = malloc(n ? n : 1);
            ASSERT(exact);
            memcpy(exact, bytes + at, n);
            at += smtp_in_feed(&r->machine, exact, n);
            free(exact);
            if (r->machine.state == SMTP_IN_HANDSHAKE)
                smtp_in_tls_started(&r->machine);
            else if (r->machine.state == SMTP_IN_STALLED)
                smtp_in_go_on(&r->machine, ERR_OK);
            else
                break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct run whole, pieces;
    if (len < 2)
        return 0;
    run(&whole, bytes + 2, len - 2, len, 0);
    run(&pieces, bytes + 2, len - 2, bytes[0] % 80 + 1u, bytes[1] % 70);
    ASSERT(whole.machine.state == pieces.machine.state);
    ASSERT(whole.said_len == pieces.said_len && memcmp(whole.said, pieces.said, whole.said_len) == 0);
    ASSERT(whole.body_kept == pieces.body_kept);
    ASSERT(whole.body_kept == 0 || memcmp(whole.body, pieces.body, whole.body_kept) == 0);
    free(whole.said);
    free(whole.body);
    free(pieces.said);
    free(pieces.body);
    return 0;
}
