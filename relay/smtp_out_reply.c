/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of the peer into replies: lines, codes, texts of several lines, what EHLO announces. Foreign bytes: a verdict,
 * never an assert. Pure. What a reply means is smtp_out.c's. */
#include "smtp_out_parts.h"

#include <string.h>

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
        smtp_out_die(m, 0, "4.5.0 the host does not speak SMTP", NULL);
        return;
    }
    const char *text = l[3] ? l + 4 : "";
    if (m->state == SMTP_OUT_EHLO && m->lines > 0)
        smtp_out_take_keyword(m, text);
    keep_text(m, without_repeated_dsn(m, text));
    m->lines++;
    if (l[3] == '-')
        return;
    unsigned number = (unsigned)(l[0] - '0') * 100 + (unsigned)(l[1] - '0') * 10 + (unsigned)(l[2] - '0');
    m->lines = m->reply_bytes = m->text_len = 0; /* the text stays until the next line */
    if (number == 421 && m->state != SMTP_OUT_READY && m->state != SMTP_OUT_QUIT)
        smtp_out_die(m, 421, m->text, smtp_out_command(m)); /* it closes the channel, whatever it answers */
    else
        smtp_out_on_reply(m, number);
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
            smtp_out_die(m, 0, "4.5.0 the host's reply does not end", NULL);
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
