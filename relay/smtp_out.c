/* SPDX-License-Identifier: Apache-2.0 */
/* The states of the SMTP and LMTP client: what is said, and what each reply leads to. Invariants in smtp_out.h. Pure;
 * replies are read by smtp_out_reply.c, bodies written by smtp_out_body.c; whoever drives it all is outgoing_mail.c. */
#include "smtp_out_parts.h"

#include <base/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

void smtp_out_write_text(struct smtp_out *m, const char *text)
{
    m->cb->write(m->owner, text, strlen(text));
}

void smtp_out_die(struct smtp_out *m, unsigned code, const char *text, const char *command)
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
    smtp_out_write_text(m, line);
}

static bool is_keyword(const char *line, const char *word)
{
    size_t len = strlen(word);
    return strncasecmp(line, word, len) == 0 && (line[len] == '\0' || line[len] == ' ' || line[len] == '=');
}

void smtp_out_take_keyword(struct smtp_out *m, const char *line)
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
            smtp_out_die(m, code, m->text, command);
        return;
    }
    if (m->secure || m->tls == SMTP_OUT_TLS_NONE) {
        become_ready(m);
    } else if (m->starttls) {
        m->state = SMTP_OUT_STARTTLS;
        smtp_out_write_text(m, "STARTTLS\r\n");
    } else if (m->tls == SMTP_OUT_TLS_REQUIRED) {
        smtp_out_die(m, 0, "4.7.4 TLS is required, but was not offered", NULL);
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
        smtp_out_die(m, code, m->text, "STARTTLS");
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
    smtp_out_write_text(m, "QUIT\r\n");
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
    smtp_out_write_text(m, "RSET\r\n");
}

/* --- replies --- */

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
        smtp_out_write_text(m, "DATA\r\n");
}

static void on_data(struct smtp_out *m, unsigned code)
{
    if (code == 354 && m->accepted > 0) {
        m->state = SMTP_OUT_BODY;
        m->cb->on_body(m->owner);
    } else if (code == 354 && m->lmtp) {
        smtp_out_die(m, 0, "4.5.0 the host takes a message without recipients", NULL); /* how many replies follow? */
    } else if (code == 354) { /* RFC 2920 3.1: end it with nothing in it */
        m->state = SMTP_OUT_EMPTY_DOT;
        smtp_out_write_text(m, ".\r\n");
    } else if (code / 100 == 2 || code / 100 == 3) {
        smtp_out_die(m, 0, "4.5.0 the host answers DATA with nonsense", NULL);
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

void smtp_out_on_reply(struct smtp_out *m, unsigned code)
{
    enum smtp_out_state state = m->state;
    switch (state) {
    case SMTP_OUT_BANNER:
        if (code / 100 == 2)
            send_hello(m, SMTP_OUT_EHLO);
        else
            smtp_out_die(m, code, m->text, "greeting");
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
        smtp_out_die(m, 0, "4.4.2 the host answered before the end of the message", NULL);
        return;
    case SMTP_OUT_DOT:
        on_dot(m, code);
        break;
    case SMTP_OUT_EMPTY_DOT:
    case SMTP_OUT_RSET:
        become_ready(m);
        break;
    case SMTP_OUT_READY: /* "421 idle too long" and the like */
        smtp_out_die(m, code, m->text, "idle");
        return;
    case SMTP_OUT_QUIT:
        smtp_out_die(m, code, m->text, "QUIT");
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
