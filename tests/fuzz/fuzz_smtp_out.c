/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP and LMTP client under arbitrary replies: fed whole and in pieces, both must say and conclude the same; each
 * recipient gets one result or the connection fails (SMO-1); no body can say where it ends but by the last dot (SMO-3).
 * Input: options (2 bytes), piece size (1), then the peer's bytes. */
#include "fuzz_input.h"
#include "smtp_out.h"

#include <base/assert.h>
#include <stdlib.h>

#define COUNT 3u
#define SENDS_MAX 8u

struct run {
    struct smtp_out machine;
    uint8_t *said;
    size_t said_len, body_cut;
    uint8_t results[COUNT];
    uint64_t outcome; /* what was concluded, in order, folded */
    uint32_t sends;
    bool sent, failed, handshake;
};

static const struct smtp_out_address recipients[COUNT] = {{"a@x.test", 8}, {"b@x.test", 8}, {"\xc3\xbc@x.test", 9}};
static const char body[] = ".\r\n..\r\nA: b\n\r\n\r.\nx\r\r\n.\r\n\n.\ny.\r\r";

static void fold(struct run *r, uint64_t what)
{
    r->outcome = (r->outcome ^ what) * UINT64_C(0x100000001b3);
}

static void on_write(void *owner, const void *bytes, size_t len)
{
    struct run *r = owner;
    r->said = realloc(r->said, r->said_len + len + 1);
    ASSERT(r->said);
    memcpy(r->said + r->said_len, bytes, len);
    r->said_len += len;
}

static void on_start_tls(void *owner)
{
    struct run *r = owner;
    r->handshake = true;
}

static void on_ready(void *owner)
{
    struct run *r = owner;
    for (uint32_t i = 0; i < r->machine.message.count && r->sent; i++)
        ASSERT(r->results[i] == 1); /* SMO-1 */
    struct smtp_out_message msg = {.sender = {"f@y.test", r->sends % 2 ? 0u : 8u}, .recipients = recipients,
                                   .count = 1 + r->sends % COUNT, .body_bytes = sizeof body - 1,
                                   .smtputf8 = r->sends % COUNT == 2, .eight_bit = r->sends & 1};
    if (r->sends++ == SENDS_MAX || smtp_out_refusal(&r->machine, &msg)) {
        r->sent = false;
        smtp_out_quit(&r->machine);
        return;
    }
    memset(r->results, 0, sizeof r->results);
    r->sent = true;
    smtp_out_send(&r->machine, &msg);
}

/* SMO-3: CR and LF only together; a line of one dot only at the very end. */
static void check_body(const uint8_t *at, size_t len)
{
    ASSERT(len >= 3 && memcmp(at + len - 3, ".\r\n", 3) == 0);
    bool line_begins = true;
    for (size_t i = 0; i < len; i++) {
        if (at[i] == '\r')
            ASSERT(i + 1 < len && at[i + 1] == '\n');
        if (at[i] == '\n')
            ASSERT(i > 0 && at[i - 1] == '\r');
        if (line_begins && at[i] == '.')
            ASSERT(i + 3 == len || at[i + 1] == '.');
        line_begins = at[i] == '\n';
    }
}

static void on_body(void *owner)
{
    struct run *r = owner;
    size_t from = r->said_len;
    smtp_out_body(&r->machine, (const uint8_t *)body, r->body_cut);
    smtp_out_body(&r->machine, (const uint8_t *)body + r->body_cut, sizeof body - 1 - r->body_cut);
    smtp_out_body_end(&r->machine);
    check_body(r->said + from, r->said_len - from);
}

static void on_result(void *owner, uint32_t i, unsigned code, const char *text, const char *command)
{
    struct run *r = owner;
    ASSERT(!r->failed && i < r->machine.message.count && r->results[i]++ == 0);
    ASSERT(text && strlen(text) < SMTP_OUT_TEXT_BYTES + 64);
    fold(r, i * 1000u + code + (command ? 7u : 0u));
}

static void on_failed(void *owner, unsigned code, const char *text, const char *command)
{
    struct run *r = owner;
    ASSERT(!r->failed && text);
    r->failed = true;
    fold(r, 100000u + code + (command ? 7u : 0u));
}

static const struct smtp_out_callbacks callbacks = {
    .write = on_write, .start_tls = on_start_tls, .on_ready = on_ready, .on_body = on_body, .on_result = on_result,
    .on_failed = on_failed,
};

static void run(struct run *r, unsigned options, struct fuzz_input in, size_t piece)
{
    memset(r, 0, sizeof *r);
    r->body_cut = (options >> 8) % sizeof body;
    smtp_out_init(&r->machine, &callbacks, r, "relay.test", (enum smtp_out_tls)(options % 3), options & 4);
    while (in.at < in.end && r->machine.state != SMTP_OUT_DEAD) {
        size_t n = piece && piece < fuzz_left(&in) ? piece : fuzz_left(&in);
        uint8_t *exact = malloc(n);
        ASSERT(exact);
        memcpy(exact, in.at, n);
        size_t taken = smtp_out_feed(&r->machine, exact, n);
        free(exact);
        ASSERT(taken <= n && (taken == n || r->handshake || r->machine.state == SMTP_OUT_DEAD));
        in.at += taken;
        if (r->handshake)
            smtp_out_tls_done(&r->machine);
        r->handshake = false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct run whole, pieces;
    struct fuzz_input in = {bytes, bytes + len};
    unsigned options = (unsigned)fuzz_number(&in, 2);
    size_t piece = (size_t)fuzz_number(&in, 1) % 60 + 1;
    run(&whole, options, in, 0);
    run(&pieces, options, in, piece);
    ASSERT(whole.machine.state == pieces.machine.state && whole.outcome == pieces.outcome);
    ASSERT(whole.said_len == pieces.said_len);
    ASSERT(whole.said_len == 0 || memcmp(whole.said, pieces.said, whole.said_len) == 0);
    free(whole.said);
    free(pieces.said);
    return 0;
}
