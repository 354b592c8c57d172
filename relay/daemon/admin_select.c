/* SPDX-License-Identifier: Apache-2.0 */
/* Selectors, and how one queue entry reads: parsing, matching, writing. Envelopes and marks come from the index, which
 * has checked them; they are decoded with a verdict all the same. */
#include "admin_client.h"

#include <stdlib.h>
#include <string.h>

static bool known_queue(const char *word)
{
    return !word[0] || strcmp(word, "active") == 0 || strcmp(word, "deferred") == 0 || strcmp(word, "hold") == 0;
}

static enum err parse_ids(const struct json_in *request, struct admin_selector *s, const char **text_out)
{
    size_t count = json_in_items(request, "selector.ids");
    if (count == 0)
        return ERR_OK;
    s->ids = calloc(count, sizeof *s->ids);
    if (!s->ids)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_in_item_text(request, "selector.ids", i);
        enum err e = queue_id_parse(text, strlen(text), &s->ids[i]);
        if (e != ERR_OK) {
            *text_out = "a queue id is not well-formed";
            return e;
        }
    }
    s->id_count = (uint32_t)count;
    return ERR_OK;
}

enum err selector_parse(const struct json_in *request, struct admin_selector *s_out, const char **text_out)
{
    struct admin_selector s = {.all = json_in_true(request, "selector.all"),
                               .older_than_ms = (uint64_t)(json_in_number(request, "selector.older_than_seconds") * 1000.0)};
    *text_out = err_text(ERR_NO_MEMORY);
    enum err e = parse_ids(request, &s, text_out);
    s.sender = strdup(json_in_text(request, "selector.sender"));
    s.domain = strdup(json_in_text(request, "selector.domain"));
    s.queue = strdup(json_in_text(request, "selector.queue"));
    if (e == ERR_OK && (!s.sender || !s.domain || !s.queue))
        e = ERR_NO_MEMORY;
    if (e == ERR_OK && !known_queue(s.queue)) {
        *text_out = "queue is one of active, deferred, hold";
        e = ERR_INVALID;
    }
    if (e != ERR_OK) {
        selector_free(&s);
        return e;
    }
    s.any = s.all || s.id_count || json_in_has(request, "selector.sender") || s.domain[0] || s.queue[0] || s.older_than_ms;
    if (!json_in_has(request, "selector.sender")) {
        free(s.sender);
        s.sender = NULL; /* an empty one means the null sender */
    }
    *s_out = s;
    return ERR_OK;
}

void selector_free(struct admin_selector *s)
{
    free(s->ids);
    free(s->sender);
    free(s->domain);
    free(s->queue);
    *s = (struct admin_selector){0};
}

static bool text_is(const char *bytes, uint32_t len, const char *text)
{
    return strlen(text) == len && strncasecmp(bytes, text, len) == 0;
}

static bool has_domain(const struct envelope *e, const char *domain)
{
    struct envelope_cursor c;
    const char *address;
    uint32_t len;
    envelope_recipients(e, &c);
    while (envelope_recipient_next(&c, &address, &len)) {
        const char *at = memrchr(address, '@', len);
        if (at && text_is(at + 1, (uint32_t)(len - (uint32_t)(at + 1 - address)), domain))
            return true;
    }
    return false;
}

const char *entry_queue(struct spool_process *sp, const struct index_entry *e)
{
    if (e->state == INDEX_HOLD)
        return "hold";
    return spool_leased(sp->pool, e->qid) || e->attempts == 0 ? "active" : "deferred";
}

bool selector_matches(const struct admin_selector *s, struct spool_process *sp, const struct index_entry *e)
{
    struct envelope envelope;
    if (s->queue && s->queue[0] && strcmp(s->queue, entry_queue(sp, e)) != 0)
        return false;
    bool look = s->sender || (s->domain && s->domain[0]) || s->older_than_ms;
    if (!look)
        return true;
    if (envelope_decode(e->envelope, e->envelope_bytes, &envelope) != ERR_OK)
        return false;
    if (s->sender && !text_is(envelope.sender, envelope.sender_len, s->sender))
        return false;
    if (s->older_than_ms && envelope.arrival_ms + s->older_than_ms > pool_clock_ms(sp->pool))
        return false;
    return !s->domain || !s->domain[0] || has_domain(&envelope, s->domain);
}

/* The latest result of each recipient. */
static void collect_marks(const struct index_entry *e, uint32_t recipients, struct mark *marks)
{
    struct mark_cursor c;
    struct mark m;
    uint32_t count;
    memset(marks, 0, recipients * sizeof *marks);
    if (e->marks_bytes == 0 || mark_check(e->marks, e->marks_bytes, &count) != ERR_OK)
        return;
    mark_begin(&c, e->marks, e->marks_bytes);
    while (mark_next(&c, &m))
        if (m.recipient < recipients)
            marks[m.recipient] = m;
}

static void recipients_write(const struct envelope *envelope, const struct mark *marks, struct json_out *j)
{
    struct envelope_cursor c, origins;
    struct envelope_origin origin = {0};
    const char *address;
    uint32_t len;
    envelope_recipients(envelope, &c);
    envelope_origins(envelope, &origins);
    json_array_begin(j, "recipients");
    for (uint32_t i = 0; envelope_recipient_next(&c, &address, &len); i++) {
        bool done = i < RECIPIENTS_PER_MESSAGE_MAX && marks[i].status != MARK_PENDING && marks[i].status != MARK_DEFERRED;
        const struct envelope_origin *from = envelope_origin_of(&origins, &origin, i);
        if (done)
            continue; /* as postqueue: those still to be served */
        json_object_begin(j, NULL);
        json_bytes(j, "address", address, len);
        if (from)
            json_bytes(j, "orig_to", from->address, from->address_len);
        if (i < RECIPIENTS_PER_MESSAGE_MAX && marks[i].status == MARK_DEFERRED)
            json_bytes(j, "delay_reason", marks[i].reason, marks[i].reason_len);
        json_object_end(j);
    }
    json_array_end(j);
}

/* One object, open at its end: the caller closes it. */
void entry_write(struct spool_process *sp, const struct index_entry *e, struct json_out *j)
{
    static struct mark marks[RECIPIENTS_PER_MESSAGE_MAX]; /* 48 KB: not for the stack, and there is one thread */
    char qid[QUEUE_ID_TEXT];
    struct envelope envelope;
    queue_id_print(e->qid, qid);
    json_object_begin(j, NULL);
    json_text(j, "queue_name", entry_queue(sp, e));
    json_text(j, "queue_id", qid);
    if (envelope_decode(e->envelope, e->envelope_bytes, &envelope) != ERR_OK) {
        json_text(j, "error", "the envelope in the index is damaged");
        return;
    }
    uint32_t known = envelope.recipient_count < RECIPIENTS_PER_MESSAGE_MAX ? envelope.recipient_count
                                                                           : RECIPIENTS_PER_MESSAGE_MAX;
    collect_marks(e, known, marks);
    json_count(j, "arrival_time", envelope.arrival_ms / 1000);
    json_count(j, "message_size", envelope.body_bytes);
    json_bool(j, "forced_expire", e->state == INDEX_EXPIRE);
    json_bytes(j, "sender", envelope.sender, envelope.sender_len);
    recipients_write(&envelope, marks, j);
    json_count(j, "attempts", e->attempts);
    json_time(j, "arrival", envelope.arrival_ms);
    json_time(j, "next_attempt", e->state == INDEX_HOLD ? 0 : e->next_due_ms);
    json_bytes(j, "client", envelope.client, envelope.client_len);
    json_count(j, "chunks", e->chunk_count);
    json_bool(j, "leased", spool_leased(sp->pool, e->qid));
}
