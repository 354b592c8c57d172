/* SPDX-License-Identifier: Apache-2.0 */
/* Mail in memory: one allocation for the struct, the statuses and the envelope, one for the body. See mail.h. */
#include "mail.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t g_memory_bytes;

static uint64_t footprint(const struct mail *m)
{
    return sizeof *m + m->envelope.recipient_count + m->envelope_len + (m->body ? m->body_bytes : 0);
}

enum err mail_make(struct queue_id qid, const uint8_t *envelope, uint32_t envelope_len, uint8_t *body,
                   struct mail **mail_out)
{
    struct envelope e;
    if (envelope_len > ENVELOPE_BYTES_MAX)
        return ERR_INVALID;
    enum err why = envelope_decode(envelope, envelope_len, &e);
    if (why)
        return ERR_INVALID;
    struct mail *m = calloc(1, sizeof *m + e.recipient_count + envelope_len);
    if (!m)
        return ERR_NO_MEMORY;
    m->status = (uint8_t *)(m + 1); /* all MARK_PENDING */
    m->envelope_bytes = m->status + e.recipient_count;
    memcpy(m->envelope_bytes, envelope, envelope_len);
    m->envelope_len = envelope_len;
    why = envelope_decode(m->envelope_bytes, envelope_len, &m->envelope); /* once more: it points into our copy */
    ASSERT(why == ERR_OK);
    m->refs = 1;
    m->qid = qid;
    m->body = body;
    m->body_bytes = m->envelope.body_bytes;
    g_memory_bytes += footprint(m);
    *mail_out = m;
    return ERR_OK;
}

struct mail *mail_ref(struct mail *m)
{
    ASSERT(m->refs > 0);
    m->refs++;
    return m;
}

void mail_drop_body(struct mail *m)
{
    g_memory_bytes -= footprint(m);
    free(m->body);
    m->body = NULL;
    g_memory_bytes += footprint(m);
}

void mail_unref(struct mail **m)
{
    struct mail *old = *m;
    *m = NULL;
    if (!old)
        return;
    ASSERT(old->refs > 0);
    if (--old->refs > 0)
        return;
    ASSERT(!link_linked(&old->link));
    g_memory_bytes -= footprint(old);
    free(old->body);
    free(old);
}

uint64_t mail_memory_bytes(void)
{
    return g_memory_bytes;
}
