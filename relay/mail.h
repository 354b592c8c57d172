/* SPDX-License-Identifier: Apache-2.0 */
/* One message in the relay's memory, from the 250 (or from `due`) to its RETIRE. Reference counted, one thread.
 * intake makes it, schedule owns it, attempts borrow it. */
#ifndef RELAY_MAIL_H
#define RELAY_MAIL_H

#include <base/err.h>
#include <base/ids.h>
#include <base/link.h>
#include <spoolfs/envelope.h>
#include <spoolfs/limits.h>

struct mail {
    struct link link;              /* in its owner's list */
    uint32_t refs;
    struct queue_id qid;
    struct segment_id locator;     /* comes with the acknowledgement or with `due`; goes back with every mark */
    uint8_t *envelope_bytes;       /* encoded, part of the mail's own memory */
    uint32_t envelope_len;
    struct envelope envelope;      /* decoded, points into envelope_bytes */
    uint8_t *body;                 /* whole body, owned; NULL when it has to be fetched */
    uint64_t body_bytes;
    uint32_t chunk_count;          /* > 0: the body lies in CHUNKs and is streamed */
    uint8_t *status;               /* enum mark_status per recipient, part of the mail's own memory */
    uint32_t attempts;             /* deferrals so far */
    uint32_t images;               /* good images of it when it was handed out; 0 also for fresh mail */
    bool fresh;                    /* accepted by this process and not yet tried */
    uint64_t accepted_ms;          /* loop_now_ms when it was accepted or handed out */
};

/* Copies the envelope (and takes over `body`, which may be NULL). refs is 1. ERR_NO_MEMORY, ERR_INVALID. */
enum err mail_make(struct queue_id qid, const uint8_t *envelope, uint32_t envelope_len, uint8_t *body,
                   struct mail **mail_out) MUST_CHECK;
struct mail *mail_ref(struct mail *m);
void mail_unref(struct mail **m);
void mail_drop_body(struct mail *m); /* from now on it has to be fetched */
uint64_t mail_memory_bytes(void); /* envelopes and bodies of all mail now in memory, for the bounds */

#endif
