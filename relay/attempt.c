/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what all transports share: the choice among them, whole bodies fetched into memory, outcomes for all. The
 * sessions are attempt_smtp.c's, the files attempt_maildir.c's. Invariants in attempt.h. */
#include "attempt.h"

#include "dns.h"
#include "log.h"
#include "maildir_out.h"
#include "tls.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

static enum err open_tls(const struct settings *s, struct tls_context **tls_out)
{
    char why[256];
    *tls_out = NULL;
    if (strcmp(s->smtp_tls_security_level, "none") == 0)
        return ERR_OK;
    bool verify = strcmp(s->smtp_tls_security_level, "verify") == 0;
    why[0] = '\0';
    enum err e = tls_client_open(verify, s->smtp_tls_ca_file, why, tls_out);
    if (e)
        log_line("smtp", "error: smtp_tls_security_level, smtp_tls_ca_file: %s", why[0] ? why : err_text(e));
    return e;
}

enum err attempts_open(struct loop *loop, struct port *port, const struct settings *settings,
                       const struct attempt_callbacks *cb, struct attempts **attempts_out)
{
    struct attempts *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NO_MEMORY;
    a->loop = loop;
    a->port = port;
    a->settings = settings;
    a->cb = *cb;
    link_init(&a->running);
    link_init(&a->sessions);
    link_init(&a->idle);
    enum err e = maildir_out_open(loop, &a->maildir);
    if (!e)
        e = dns_open(loop, settings->hostname, NULL, &a->dns);
    if (!e)
        e = open_tls(settings, &a->tls);
    if (e) {
        attempts_close(&a);
        return e;
    }
    *attempts_out = a;
    return ERR_OK;
}

void attempts_close(struct attempts **attempts)
{
    struct attempts *a = *attempts;
    if (!a)
        return;
    attempt_smtp_close(a);
    if (a->maildir)
        attempt_maildir_close(a); /* joins the threads first: they write into the attempts it frees */
    dns_close(&a->dns);
    tls_context_unref(&a->tls);
    free(a);
    *attempts = NULL;
}

uint32_t attempts_connections(const struct attempts *a)
{
    return a->session_count;
}

void attempt_start(struct attempts *a, struct job *job)
{
    struct outcome o;
    ASSERT(job->lane && job->state == JOB_ACTIVE && job->resolved == 0);
    switch (job->lane->route.kind) {
    case ROUTE_SMTP:
    case ROUTE_LMTP:
        attempt_smtp_start(a, job);
        return;
    case ROUTE_MAILDIR:
        attempt_maildir_start(a, job);
        return;
    case ROUTE_DISCARD:
        outcome_of_text("2.0.0 discarded by transport", "2.0.0", &o);
        attempt_all(a, job, &o, "none");
        return;
    case ROUTE_HOLD:
    case ROUTE_ERROR:
        break; /* never get a lane */
    }
    UNREACHABLE();
}

void attempt_all(struct attempts *a, struct job *job, const struct outcome *o, const char *relay)
{
    for (uint32_t i = 0; i < job->count; i++)
        if (job->recipients[i].status == MARK_PENDING)
            a->cb.on_outcome(a->cb.owner, job, i, o, relay);
    a->cb.on_done(a->cb.owner, job);
}

/* --- bodies --- */

void outcome_of_body(struct port *port, const struct job *job, enum err e, struct outcome *o)
{
    const struct mail *m = job->item->mail;
    outcome_of_err(e, "reading the message from the spool", o);
    if (e == ERR_LOST && m->attempts >= LOST_DEFERRALS && port_clock_ms(port) >= m->envelope.arrival_ms + LOST_AGE_MS)
        outcome_of_text("5.3.0 the message was lost in this system's spool: no good copy of it is left", "5.3.0", o);
}

const uint8_t *attempt_body(const struct job *job)
{
    const struct mail *m = job->item->mail;
    return m->body ? m->body : job->item->body;
}

static bool body_piece(struct port_fetch *pf, const uint8_t *bytes, uint32_t len)
{
    struct body_fetch *f = pf->owner;
    if (len > f->total - f->used) {
        f->too_long = true;
        return true;
    }
    memcpy(f->bytes + f->used, bytes, len);
    f->used += len;
    return true;
}

static void body_done(struct port_fetch *pf, enum err e)
{
    struct body_fetch *f = pf->owner;
    f->running = false;
    if (!e && (f->used != f->total || f->too_long))
        e = ERR_LOST;
    struct item *item = f->job->item;
    if (!e && !item->body && !item->mail->body)
        item->body = f->bytes; /* the item frees it */
    else
        free(f->bytes);
    f->bytes = NULL;
    f->done(f, e);
}

enum err body_fetch_start(struct body_fetch *f, struct port *port, struct job *job,
                          void (*done)(struct body_fetch *, enum err), void *owner)
{
    struct mail *m = job->item->mail;
    ASSERT(m->body_bytes <= ATTEMPT_BODY_AT_ONCE_MAX);
    memset(f, 0, sizeof *f);
    f->port = port;
    f->job = job;
    f->total = m->body_bytes;
    f->bytes = malloc(f->total ? f->total : 1);
    f->done = done;
    f->owner = owner;
    if (!f->bytes)
        return ERR_NO_MEMORY;
    f->fetch = (struct port_fetch){.mail = m, .on_bytes = body_piece, .done = body_done, .owner = f};
    f->running = true;
    port_fetch(port, &f->fetch);
    return ERR_OK;
}

void body_fetch_cancel(struct body_fetch *f)
{
    if (f->running)
        port_fetch_cancel(f->port, &f->fetch);
    f->running = false;
    free(f->bytes);
    f->bytes = NULL;
}
