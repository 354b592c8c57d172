/* SPDX-License-Identifier: Apache-2.0 */
/* See smtp_out.h for the machine and its invariants. Pure. Whoever drives it is attempt_smtp.c. */
#include "smtp_out.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* the last bytes of the body so far */
enum { TAIL_LINE_START, TAIL_IN_LINE, TAIL_CR };

#define COMMAND_BYTES 4096u

void smtp_out_init(struct smtp_out *m, const struct smtp_out_callbacks *cb, void *owner, const char *helo_name,
                   enum smtp_out_tls tls, bool lmtp)
{
    memset(m, 0, sizeof *m);
    m->cb = cb;
    m->owner = owner;
    m->helo_name = helo_name;
    m->tls = tls;
    m->lmtp = lmtp;
}

static void write_text(struct smtp_out *m, const char *text)
{
    m->cb->write(m->owner, text, strlen(text));
}

static void die(struct smtp_out *m, unsigned code, const char *text, const char *command)
{
    m->state = SMTP_OUT_DEAD;
    m->cb->on_failed(m->owner, code, text, command);
}

static void become_ready(struct smtp_out *m)
{
    m->state = SMTP_OUT_READY;
    m->cb->on_ready(m->owner);
}

/* --- the greeting --- */

static void send_hello(struct smtp_out *m, enum smtp_out_state state)
{
    char line[512];
    const char *verb = state == SMTP_OUT_HELO ? "HELO" : m->lmtp ? "LHLO" : "EHLO";
    m->pipelining = m->size = m->eight_bit_mime = m->smtputf8 = m->starttls = false;
    m->size_max = 0;
    m->state = state;
    snprintf(line, sizeof line, "%s %.255s\r\n", verb, m->helo_name);
    write_text(m, line);
}

static bool is_keyword(const char *line, const char *word)
{
    size_t len = strlen(word);
    return strncasecmp(line, word, len) == 0 && (line[len] == '\0' || line[len] == ' ' || line[len] == '=');
}

static void take_keyword(struct smtp_out *m, const char *line)
{
    if (is_keyword(line, "PIPELINING"))
        m->pipelining = true;
    else if (is_keyword(line, "8BITMIME"))
        m->eight_bit_mime = true;
    else if (is_keyword(line, "SMTPUTF8"))
        m->smtputf8 = true;
    else if (is_keyword(line, "STARTTLS"))
        m->starttls = true;
    else if (is_keyword(line, "SIZE")) {
        m->size = true;
        m->size_max = line[4] ? strtoull(line + 5, NULL, 10) : 0;
    }
}

static void on_hello(struct smtp_out *m, unsigned code)
{
    const char *command = m->lmtp ? "LHLO" : m->state == SMTP_OUT_HELO ? "HELO" : "EHLO";
    if (code / 100 != 2) {
        if (m->state == SMTP_OUT_EHLO && code / 100 == 5 && !m->lmtp && m->tls != SMTP_OUT_TLS_REQUIRED && !m->secure)
            send_hello(m, SMTP_OUT_HELO);
        else
            die(m, code, m->text, command);
        return;
    }
    if (m->secure || m->tls == SMTP_OUT_TLS_NONE) {
        become_ready(m);
    } else if (m->starttls) {
        m->state = SMTP_OUT_STARTTLS;
        write_text(m, "STARTTLS\r\n");
    } else if (m->tls == SMTP_OUT_TLS_REQUIRED) {
        die(m, 0, "4.7.4 TLS is required, but was not offered", NULL);
    } else {
        become_ready(m);
    }
}

static void on_starttls(struct smtp_out *m, unsigned code)
{
    if (code / 100 == 2) {
        m->state = SMTP_OUT_TLS;
        m->cb->start_tls(m->owner);
    } else if (m->tls == SMTP_OUT_TLS_REQUIRED) {
        die(m, code, m->text, "STARTTLS");
    } else {
        become_ready(m);
    }
}

void smtp_out_tls_done(struct smtp_out *m)
{
    ASSERT(m->state == SMTP_OUT_TLS);
    m->secure = true;
    send_hello(m, SMTP_OUT_EHLO);
}

/* --- commands of a transaction --- */

struct command { char bytes[COMMAND_BYTES]; uint32_t len; };

static void flush(struct smtp_out *m, struct command *c)
{
    if (c->len > 0)
        m->cb->write(m->owner, c->bytes, c->len);
    c->len = 0;
}

static void add(struct smtp_out *m, struct command *c, const char *text, size_t len)
{
    if (c->len + len > sizeof c->bytes)
        flush(m, c);
    ASSERT(len <= sizeof c->bytes);
    memcpy(c->bytes + c->len, text, len);
    c->len += (uint32_t)len;
}

static void add_mail(struct smtp_out *m, struct command *c)
{
    const struct smtp_out_message *msg = &m->message;
    char size[40];
    add(m, c, "MAIL FROM:<", 11);
    add(m, c, msg->sender.address, msg->sender.len);
    add(m, c, ">", 1);
    if (m->size)
        add(m, c, size, (size_t)snprintf(size, sizeof size, " SIZE=%llu", (unsigned long long)msg->body_bytes));
    /* without 8BITMIME eight-bit content goes as it is: re-encoding would break what the sender signed */
    if (m->eight_bit_mime && (msg->eight_bit || msg->smtputf8))
        add(m, c, " BODY=8BITMIME", 14);
    if (msg->smtputf8 && m->smtputf8)
        add(m, c, " SMTPUTF8", 9);
    add(m, c, "\r\n", 2);
}

static void add_rcpt(struct smtp_out *m, struct command *c, uint32_t i)
{
    add(m, c, "RCPT TO:<", 9);
    add(m, c, m->message.recipients[i].address, m->message.recipients[i].len);
    add(m, c, ">\r\n", 3);
}

/* What would break the command's line, or mean something else in it, cannot be sent. */
bool smtp_out_can_express(const struct smtp_out_address *a, bool utf8)
{
    bool quoted = false;
    for (uint32_t i = 0; i < a->len; i++) {
        unsigned char c = (unsigned char)a->address[i];
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            return false;
        if (c == '\\' && quoted && i + 1 < a->len)
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == ' ' || c == '<' || c == '>'))
            return false;
    }
    return a->len < 1000 && !quoted;
}

const char *smtp_out_refusal(const struct smtp_out *m, const struct smtp_out_message *msg)
{
    if (msg->smtputf8 && !m->smtputf8)
        return "5.6.7 SMTPUTF8 is required, but was not offered by the host";
    if (m->size && m->size_max > 0 && msg->body_bytes > m->size_max)
        return "5.3.4 the message is larger than the host's size limit";
    if (!smtp_out_can_express(&msg->sender, msg->smtputf8))
        return "5.1.7 the sender's address cannot be expressed in SMTP";
    return NULL;
}

void smtp_out_send(struct smtp_out *m, const struct smtp_out_message *msg)
{
    ASSERT(m->state == SMTP_OUT_READY && msg->count > 0 && msg->count <= SMTP_OUT_RECIPIENTS_MAX);
    struct command c;
    c.len = 0;
    m->message = *msg;
    m->state = SMTP_OUT_MAIL;
    m->at = m->accepted = 0;
    m->mail_refused = false;
    m->pipelined = m->pipelining;
    m->tail = TAIL_LINE_START;
    add_mail(m, &c);
    for (uint32_t i = 0; m->pipelined && i < msg->count; i++)
        add_rcpt(m, &c, i);
    if (m->pipelined)
        add(m, &c, "DATA\r\n", 6);
    flush(m, &c);
}

void smtp_out_quit(struct smtp_out *m)
{
    ASSERT(m->state == SMTP_OUT_READY);
    m->state = SMTP_OUT_QUIT;
    write_text(m, "QUIT\r\n");
}

static void result_for_accepted(struct smtp_out *m, unsigned code, const char *text, const char *command)
{
    for (uint32_t i = 0; i < m->message.count; i++)
        if (m->accepted_at[i])
            m->cb->on_result(m->owner, i, code, text, command);
    m->accepted = 0;
}

/* The transaction is open at the peer and shall not be. */
static void reset(struct smtp_out *m)
{
    m->state = SMTP_OUT_RSET;
    write_text(m, "RSET\r\n");
}

/* --- replies of a transaction --- */

static void send_rcpt(struct smtp_out *m)
{
    struct command c;
    c.len = 0;
    add_rcpt(m, &c, m->at);
    flush(m, &c);
}

static void on_mail(struct smtp_out *m, unsigned code)
{
    m->mail_refused = code / 100 != 2;
    for (uint32_t i = 0; i < m->message.count; i++) {
        m->accepted_at[i] = false;
        if (m->mail_refused)
            m->cb->on_result(m->owner, i, code, m->text, "MAIL FROM");
    }
    if (m->mail_refused && !m->pipelined) {
        become_ready(m);
        return;
    }
    m->state = SMTP_OUT_RCPT;
    if (!m->pipelined)
        send_rcpt(m);
}

static void on_rcpt(struct smtp_out *m, unsigned code)
{
    uint32_t i = m->at++;
    bool yes = code / 100 == 2 && !m->mail_refused;
    m->accepted_at[i] = yes;
    m->accepted += yes;
    if (!yes && !m->mail_refused) {
        /* RFC 5321 4.5.3.1.10: 552 here means "too many recipients", which is no permanent failure */
        unsigned told = code == 552 && i > 0 ? 452 : code;
        m->cb->on_result(m->owner, i, told, m->text, "RCPT TO");
    }
    if (m->at < m->message.count) {
        if (!m->pipelined)
            send_rcpt(m);
        return;
    }
    if (!m->pipelined && m->accepted == 0) {
        reset(m);
        return;
    }
    m->state = SMTP_OUT_DATA;
    if (!m->pipelined)
        write_text(m, "DATA\r\n");
}

static void on_data(struct smtp_out *m, unsigned code)
{
    if (code == 354 && m->accepted > 0) {
        m->state = SMTP_OUT_BODY;
        m->cb->on_body(m->owner);
    } else if (code == 354 && m->lmtp) {
        die(m, 0, "4.5.0 the host takes a message without recipients", NULL); /* how many replies would follow? */
    } else if (code == 354) { /* RFC 2920 3.1: end it with nothing in it */
        m->state = SMTP_OUT_EMPTY_DOT;
        write_text(m, ".\r\n");
    } else if (code / 100 == 2 || code / 100 == 3) {
        die(m, 0, "4.5.0 the host answers DATA with nonsense", NULL);
    } else {
        result_for_accepted(m, code, m->text, "DATA");
        if (m->mail_refused)
            become_ready(m);
        else
            reset(m);
    }
}

static void on_dot(struct smtp_out *m, unsigned code)
{
    const char *command = code / 100 == 2 ? NULL : "end of DATA";
    if (!m->lmtp) {
        result_for_accepted(m, code, m->text, command);
        become_ready(m);
        return;
    }
    while (!m->accepted_at[m->at])
        m->at++;
    m->accepted--;
    m->cb->on_result(m->owner, m->at++, code, m->text, command);
    if (m->accepted == 0)
        become_ready(m);
}

static void on_reply(struct smtp_out *m, unsigned code)
{
    enum smtp_out_state state = m->state;
    switch (state) {
    case SMTP_OUT_BANNER:
        if (code / 100 == 2)
            send_hello(m, SMTP_OUT_EHLO);
        else
            die(m, code, m->text, "greeting");
        return;
    case SMTP_OUT_EHLO:
    case SMTP_OUT_HELO:
        on_hello(m, code);
        return;
    case SMTP_OUT_STARTTLS:
        on_starttls(m, code);
        return;
    case SMTP_OUT_MAIL:
        on_mail(m, code);
        break;
    case SMTP_OUT_RCPT:
        on_rcpt(m, code);
        break;
    case SMTP_OUT_DATA:
        on_data(m, code);
        break;
    case SMTP_OUT_BODY: /* it did not wait for the end: whatever it says, it has not got the message */
        if (code / 100 != 2)
            result_for_accepted(m, code, m->text, "DATA content");
        die(m, 0, "4.4.2 the host answered before the end of the message", NULL);
        return;
    case SMTP_OUT_DOT:
        on_dot(m, code);
        break;
    case SMTP_OUT_EMPTY_DOT:
    case SMTP_OUT_RSET:
        become_ready(m);
        break;
    case SMTP_OUT_READY: /* "421 idle too long" and the like */
        die(m, code, m->text, "idle");
        return;
    case SMTP_OUT_QUIT:
        die(m, code, m->text, "QUIT");
        return;
    case SMTP_OUT_TLS:
    case SMTP_OUT_DEAD:
        UNREACHABLE(); /* feed takes nothing in these */
    }
}

const char *smtp_out_command(const struct smtp_out *m)
{
    switch (m->state) {
    case SMTP_OUT_BANNER:
        return "greeting";
    case SMTP_OUT_EHLO:
        return m->lmtp ? "LHLO" : "EHLO";
    case SMTP_OUT_HELO:
        return "HELO";
    case SMTP_OUT_STARTTLS:
    case SMTP_OUT_TLS:
        return "STARTTLS";
    case SMTP_OUT_MAIL:
        return "MAIL FROM";
    case SMTP_OUT_RCPT:
        return "RCPT TO";
    case SMTP_OUT_DATA:
        return "DATA";
    case SMTP_OUT_BODY:
        return "DATA content";
    case SMTP_OUT_DOT:
    case SMTP_OUT_EMPTY_DOT:
        return "end of DATA";
    case SMTP_OUT_RSET:
        return "RSET";
    case SMTP_OUT_READY:
    case SMTP_OUT_QUIT:
    case SMTP_OUT_DEAD:
        break;
    }
    return "QUIT";
}

/* --- reading replies --- */

static void keep_text(struct smtp_out *m, const char *text)
{
    size_t len = strlen(text), room = sizeof m->text - 1 - m->text_len;
    if (m->lines > 0 && room > 0 && m->text_len > 0) {
        m->text[m->text_len++] = ' ';
        room--;
    }
    len = len < room ? len : room;
    memcpy(m->text + m->text_len, text, len);
    m->text_len += (uint32_t)len;
    m->text[m->text_len] = '\0';
}

/* The further lines of an enhanced reply repeat its code: once is enough. */
static const char *without_repeated_dsn(const struct smtp_out *m, const char *text)
{
    size_t len = strcspn(text, " ");
    bool code = len >= 5 && len <= 11 && text[1] == '.' && text[len] == ' ';
    if (m->lines > 0 && code && strncmp(m->text, text, len) == 0)
        return text + len + 1;
    return text;
}

static void on_line(struct smtp_out *m)
{
    const char *l = m->line;
    bool code = l[0] >= '2' && l[0] <= '5' && l[1] >= '0' && l[1] <= '9' && l[2] >= '0' && l[2] <= '9';
    if (!code || (l[3] != ' ' && l[3] != '-' && l[3] != '\0')) {
        die(m, 0, "4.5.0 the host does not speak SMTP", NULL);
        return;
    }
    const char *text = l[3] ? l + 4 : "";
    if (m->state == SMTP_OUT_EHLO && m->lines > 0)
        take_keyword(m, text);
    keep_text(m, without_repeated_dsn(m, text));
    m->lines++;
    if (l[3] == '-')
        return;
    unsigned number = (unsigned)(l[0] - '0') * 100 + (unsigned)(l[1] - '0') * 10 + (unsigned)(l[2] - '0');
    m->lines = m->reply_bytes = m->text_len = 0; /* the text stays until the next line */
    if (number == 421 && m->state != SMTP_OUT_READY && m->state != SMTP_OUT_QUIT)
        die(m, 421, m->text, smtp_out_command(m)); /* it closes the channel, whatever it answers */
    else
        on_reply(m, number);
}

size_t smtp_out_feed(struct smtp_out *m, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    while (at < len && m->state != SMTP_OUT_TLS && m->state != SMTP_OUT_DEAD) {
        const uint8_t *eol = memchr(bytes + at, '\n', len - at);
        size_t piece = (eol ? (size_t)(eol - bytes) : len) - at;
        size_t room = sizeof m->line - 1 - m->line_len, keep = piece < room ? piece : room;
        memcpy(m->line + m->line_len, bytes + at, keep);
        m->line_len += (uint32_t)keep;
        at += piece + (eol ? 1 : 0);
        if (piece > SMTP_OUT_REPLY_BYTES_MAX - m->reply_bytes) {
            die(m, 0, "4.5.0 the host's reply does not end", NULL);
            break;
        }
        m->reply_bytes += (uint32_t)piece;
        if (!eol)
            break;
        if (m->line_len > 0 && m->line[m->line_len - 1] == '\r')
            m->line_len--;
        for (uint32_t i = 0; i < m->line_len; i++)
            if (m->line[i] == '\0')
                m->line[i] = '?';
        m->line[m->line_len] = '\0';
        m->line_len = 0;
        on_line(m);
    }
    return at;
}

/* --- the body --- */

static void put(struct smtp_out *m, const uint8_t *from, const uint8_t *to)
{
    if (to > from)
        m->cb->write(m->owner, from, (size_t)(to - from));
}

/* SMO-3. Writes runs as long as nothing in them needs changing: usually everything up to the next ".". */
void smtp_out_body(struct smtp_out *m, const uint8_t *bytes, size_t len)
{
    if (m->state == SMTP_OUT_DEAD)
        return;
    ASSERT(m->state == SMTP_OUT_BODY);
    const uint8_t *at = bytes, *end = bytes + len, *run = bytes;
    while (at < end) {
        if (m->tail == TAIL_CR) { /* the CR itself is held back */
            bool crlf = *at == '\n';
            write_text(m, crlf ? "\r\n" : " ");
            run = at += crlf;
            m->tail = crlf ? TAIL_LINE_START : TAIL_IN_LINE;
            continue;
        }
        if (m->tail == TAIL_LINE_START && *at == '.') {
            put(m, run, at);
            write_text(m, ".");
            run = at;
        }
        const uint8_t *eol = memchr(at, '\n', (size_t)(end - at)), *line_end = eol ? eol : end;
        const uint8_t *cr = memchr(at, '\r', (size_t)(line_end - at));
        if (eol && cr == eol - 1) { /* a whole proper line */
            at = eol + 1;
            m->tail = TAIL_LINE_START;
        } else if (cr) { /* alone, or at the end of this piece */
            put(m, run, cr);
            run = at = cr + 1;
            m->tail = TAIL_CR;
        } else if (eol) { /* a bare LF, from an import */
            put(m, run, eol);
            write_text(m, "\r\n");
            run = at = eol + 1;
            m->tail = TAIL_LINE_START;
        } else {
            at = end;
            m->tail = TAIL_IN_LINE;
        }
    }
    put(m, run, end);
}

void smtp_out_body_end(struct smtp_out *m)
{
    if (m->state == SMTP_OUT_DEAD)
        return;
    ASSERT(m->state == SMTP_OUT_BODY);
    m->state = SMTP_OUT_DOT;
    m->at = 0;
    write_text(m, m->tail == TAIL_LINE_START ? ".\r\n" : "\r\n.\r\n");
}
