/* SPDX-License-Identifier: Apache-2.0 */
/* The body on its way out: dots doubled, line ends proper, nothing else touched (SMO-3). Pure. */
#include "smtp_out_parts.h"

#include <base/assert.h>
#include <string.h>

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
            smtp_out_write_text(m, crlf ? "\r\n" : " ");
            run = at += crlf;
            m->tail = crlf ? TAIL_LINE_START : TAIL_IN_LINE;
            continue;
        }
        if (m->tail == TAIL_LINE_START && *at == '.') {
            put(m, run, at);
            smtp_out_write_text(m, ".");
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
            smtp_out_write_text(m, "\r\n");
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
    smtp_out_write_text(m, m->tail == TAIL_LINE_START ? ".\r\n" : "\r\n.\r\n");
}
