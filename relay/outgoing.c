/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one connection to a host: its deadline, its waiting for the next job, its end, and what each end means
 * for the job it carried. See outgoing.h. */
#include "outgoing.h"

#include <stdio.h>
#include <stdlib.h>

#define IDLE_MS 2000u              /* Postfix's smtp_connection_cache_time_limit */
#define AGE_MS_MAX 300000u         /* Postfix's smtp_connection_reuse_time_limit */

/* --- time --- */

/* The timer is moved only when the deadline comes nearer; later deadlines are seen when it fires. */
void outgoing_touch(struct outgoing *s, uint64_t ms)
{
    uint64_t now = loop_now_ms(s->attempts->loop);
    s->deadline_ms = now + ms;
    if (s->armed_ms == 0 || s->deadline_ms < s->armed_ms) {
        s->armed_ms = s->deadline_ms;
        loop_timer_set(&s->timer, ms);
    }
}

/* --- life and death --- */

void outgoing_stop_body(struct outgoing *s)
{
    body_fetch_cancel(&s->body);
    if (s->streaming)
        port_fetch_cancel(s->attempts->port, &s->stream);
    s->streaming = s->stream_paused = false;
}

void outgoing_leave_idle(struct outgoing *s)
{
    if (link_linked(&s->idle_link)) {
        link_remove(&s->idle_link);
        link_remove(&s->lane_link);
    }
}

static void drop_connection(struct outgoing *s, bool flush)
{
    if (s->conn)
        conn_close(&s->conn, flush);
    if (s->working)
        s->lane->working--;
    s->working = s->started = s->in_transaction = false;
}

void outgoing_free(struct outgoing *s)
{
    struct attempts *a = s->attempts;
    struct lane *lane = s->lane;
    outgoing_stop_body(s);
    outgoing_leave_idle(s);
    drop_connection(s, false);
    if (s->query)
        dns_cancel(s->query);
    free(s->query);
    loop_timer_fini(&s->timer);
    loop_defer_cancel(&s->task);
    link_remove(&s->link);
    a->session_count--;
    lane->sessions--;
    free(s);
    if (a->cb.on_session_gone)
        a->cb.on_session_gone(a->cb.owner, lane);
}

void outgoing_quit(struct outgoing *s)
{
    if (s->machine.state == SMTP_OUT_READY) {
        smtp_out_quit(&s->machine);
        drop_connection(s, true); /* the reply to QUIT interests nobody */
    }
    outgoing_free(s);
}

void outgoing_go_idle(struct outgoing *s)
{
    struct attempts *a = s->attempts;
    s->job = NULL;
    s->reused = true;
    if (loop_now_ms(a->loop) - s->opened_ms > AGE_MS_MAX) {
        outgoing_touch(s, 0); /* nobody finds it any more; it quits from its timer, as we may be inside its machine */
        return;
    }
    link_push_front(&s->lane->idle, &s->lane_link); /* the warmest first */
    link_push(&a->idle, &s->idle_link);
    outgoing_touch(s, IDLE_MS);
}

/* --- results --- */

void outgoing_finish_job(struct outgoing *s)
{
    struct attempts *a = s->attempts;
    struct job *job = s->job;
    s->job = NULL;
    outgoing_stop_body(s);
    s->in_transaction = false;
    a->cb.on_done(a->cb.owner, job);
}

void outgoing_give_rest(struct outgoing *s, const struct outcome *o)
{
    struct attempts *a = s->attempts;
    for (uint32_t i = 0; i < s->job->count; i++)
        if (s->job->recipients[i].status == MARK_PENDING)
            a->cb.on_outcome(a->cb.owner, s->job, i, o, s->relay[0] ? s->relay : "none");
}

void outgoing_fail(struct outgoing *s)
{
    struct attempts *a = s->attempts;
    struct job *job = s->job;
    bool was_working = s->working;
    s->doomed = false;
    outgoing_stop_body(s);
    drop_connection(s, false);
    if (!job) {
        outgoing_free(s);
        return;
    }
    if (!was_working) {
        /* a host that may do without TLS and fails at it gets the same address tried once more */
        bool without = s->machine.state == SMTP_OUT_TLS && s->machine.tls == SMTP_OUT_TLS_MAY && !s->plaintext;
        s->plaintext = without;
        s->address_at += !without;
        s->machine.state = SMTP_OUT_DEAD;
        attempt_smtp_try_next(s);
        return;
    }
    if (job->resolved == 0 && s->untouched && s->doom.blame == OUTCOME_HOST) {
        struct outcome why = s->doom;
        s->job = NULL;
        if (s->reused) /* it closed between two messages: nothing happened to this one */
            a->cb.on_again(a->cb.owner, job, &why);
        else
            a->cb.on_host_failed(a->cb.owner, job, &why);
        outgoing_free(s);
        return;
    }
    outgoing_give_rest(s, &s->doom);
    outgoing_finish_job(s);
    outgoing_free(s);
}

void outgoing_doom(struct outgoing *s, const char *text)
{
    outcome_of_text(text, "4.4.2", &s->doom);
    s->doom.blame = OUTCOME_HOST;
    s->doomed = true;
}
