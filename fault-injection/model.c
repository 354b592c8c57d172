/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the ledger of promises. Invariants MOD-1 to MOD-5 (model.h). Never: forgives - what may be broken on purpose
 * (faults beyond redundancy) is decided by the world, which asks. */
#include "model.h"

#include <base/assert.h>
#include <base/prng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 4096u

void model_init(struct model *m)
{
    *m = (struct model){0};
    m->buckets = calloc(BUCKETS, sizeof *m->buckets);
    ASSERT(m->buckets != NULL);
}

void model_fini(struct model *m)
{
    free(m->messages);
    free(m->buckets);
    *m = (struct model){0};
}

void model_copy(struct model *to, const struct model *from)
{
    *to = *from;
    to->capacity = from->count;
    to->messages = calloc(from->count + 1u, sizeof *to->messages);
    to->buckets = calloc(BUCKETS, sizeof *to->buckets);
    ASSERT(to->messages && to->buckets);
    if (from->count)
        memcpy(to->messages, from->messages, from->count * sizeof *to->messages);
    memcpy(to->buckets, from->buckets, BUCKETS * sizeof *to->buckets);
}

static uint32_t bucket_of(struct queue_id qid)
{
    return (uint32_t)((qid.incarnation ^ qid.counter * UINT64_C(0x9e3779b97f4a7c15)) >> 20) % BUCKETS;
}

/* Pointers into the ledger are stable: its room is reserved once and touched as it fills. */
struct model_message *model_add(struct model *m, struct queue_id qid, uint64_t seed)
{
    if (!m->messages) {
        m->messages = calloc(MODEL_MESSAGES_MAX, sizeof *m->messages);
        m->capacity = MODEL_MESSAGES_MAX;
    }
    ASSERT(m->messages && m->count < m->capacity && !model_find(m, qid));
    struct model_message *msg = &m->messages[m->count++];
    *msg = (struct model_message){.qid = qid, .seed = seed, .appended = MODEL_ASKED, .born = m->half, .parted = m->parting,
                                  .adrift = m->parting};
    msg->next = m->buckets[bucket_of(qid)];
    m->buckets[bucket_of(qid)] = m->count;
    return msg;
}

struct model_message *model_find(struct model *m, struct queue_id qid)
{
    for (uint32_t i = m->buckets[bucket_of(qid)]; i; i = m->messages[i - 1].next)
        if (queue_id_equal(m->messages[i - 1].qid, qid))
            return &m->messages[i - 1];
    return NULL;
}

void model_body(const struct model_message *msg, uint32_t part, uint8_t *bytes, uint32_t length)
{
    struct prng prng = {msg->seed + part * UINT64_C(0x632be59bd9b4e019)};
    for (uint32_t i = 0; i < length; i += 8) {
        uint64_t word = prng_next(&prng);
        memcpy(bytes + i, &word, length - i < 8 ? length - i : 8);
    }
}

uint32_t model_part_bytes(const struct model_message *msg, uint32_t part, uint32_t chunk_bytes)
{
    if (msg->chunk_count == 0)
        return msg->body_bytes;
    uint32_t before = part * chunk_bytes;
    return msg->body_bytes - before < chunk_bytes ? msg->body_bytes - before : chunk_bytes;
}

uint32_t model_envelope(struct model_message *msg, uint64_t arrival_ms, uint8_t *buffer, uint32_t capacity)
{
    char sender[64], recipient[64];
    int sender_len = msg->bounce ? 0 : snprintf(sender, sizeof sender, "sender%llu@from.example", (unsigned long long)(msg->seed % 97));
    struct envelope e = {.arrival_ms = arrival_ms, .sender = sender, .sender_len = (uint32_t)sender_len,
                         .client = "client.example[192.0.2.1]", .client_len = 25, .helo = "client.example", .helo_len = 14};
    struct envelope_writer w;
    enum err err = envelope_begin(&w, buffer, capacity, &e);
    for (uint32_t i = 0; i < msg->recipients && err == ERR_OK; i++) {
        int n = snprintf(recipient, sizeof recipient, "rcpt%u@d%llu.example", i, (unsigned long long)((msg->seed >> 8) % 41));
        err = envelope_add_recipient(&w, recipient, (uint32_t)n);
    }
    ASSERT(err == ERR_OK);
    uint32_t length = envelope_end(&w, msg->body_bytes, msg->bounce ? ENVELOPE_BOUNCE : 0);
    msg->envelope = digest_of(buffer, length);
    return length;
}

/* --- answers --- */

static enum model_fact fact_after(enum err e) { return e == ERR_OK ? MODEL_YES : MODEL_MAYBE; }

void model_on_appended(struct model *m, struct model_message *msg, enum err e)
{
    ASSERT(msg->appended == MODEL_ASKED);
    msg->appended = fact_after(e);
    msg->parted = msg->parted && e != ERR_OK;
    m->acked += e == ERR_OK;
    m->live_bytes += e == ERR_OK ? msg->body_bytes : 0;
}

void model_on_retired(struct model *m, struct model_message *msg, enum err e)
{
    msg->retired = fact_after(e);
    m->retired += e == ERR_OK;
    if (e == ERR_OK)
        m->live_bytes -= m->live_bytes < msg->body_bytes ? m->live_bytes : msg->body_bytes;
}

void model_on_held(struct model_message *msg, enum err e)
{
    msg->held = fact_after(e);
    if (e == ERR_OK)
        msg->was_held = msg->want_held;
}

void model_on_delivered(struct model_message *msg, uint32_t recipient, enum err e)
{
    ASSERT(recipient < MODEL_RECIPIENTS_MAX);
    if (e == ERR_OK || msg->delivered[recipient] == MODEL_ASKED)
        msg->delivered[recipient] = fact_after(e);
}

static void fact_unanswered(enum model_fact *f)
{
    if (*f == MODEL_ASKED)
        *f = MODEL_MAYBE;
}

void model_on_crash(struct model *m)
{
    m->parting = false;
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        fact_unanswered(&msg->appended);
        fact_unanswered(&msg->retired);
        fact_unanswered(&msg->held);
        for (uint32_t r = 0; r < MODEL_RECIPIENTS_MAX; r++)
            fact_unanswered(&msg->delivered[r]);
        msg->busy = msg->leased = false;
    }
}

/* --- halves --- */

static struct model_facts facts_of(const struct model_message *msg)
{
    struct model_facts f = {.retired = msg->retired, .held = msg->held, .was_held = msg->was_held};
    memcpy(f.delivered, msg->delivered, sizeof f.delivered);
    return f;
}

static void facts_set(struct model_message *msg, const struct model_facts *f)
{
    msg->retired = f->retired;
    msg->held = f->held;
    msg->was_held = f->was_held;
    memcpy(msg->delivered, f->delivered, sizeof f->delivered);
}

/* What was said once may be known or not. */
static void facts_blur(struct model_facts *f, const struct model_facts *said)
{
    f->retired = said->retired != MODEL_NO ? MODEL_MAYBE : f->retired;
    f->held = said->held != MODEL_NO ? MODEL_MAYBE : f->held;
    for (uint32_t r = 0; r < MODEL_RECIPIENTS_MAX; r++)
        f->delivered[r] = said->delivered[r] != MODEL_NO ? MODEL_MAYBE : f->delivered[r];
}

void model_divide(struct model *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        msg->apart = true;
        msg->parted = msg->parted || msg->appended == MODEL_ASKED || msg->appended == MODEL_MAYBE;
        msg->divided = facts_of(msg);
        facts_blur(&msg->divided, &msg->divided);
        msg->joined = msg->divided;
    }
}

void model_depart(struct model *m)
{
    model_divide(m);
    m->parting = true;
}

void model_half_begin(struct model *m, uint8_t half)
{
    m->half = half;
    m->were_alone |= (uint8_t)(1u << half);
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        msg->elsewhere = msg->born != 0 && msg->born != half;
        if (msg->apart)
            facts_set(msg, &msg->divided);
    }
}

void model_half_end(struct model *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        struct model_facts said = facts_of(msg);
        if (msg->apart)
            facts_blur(&msg->joined, &said);
    }
}

void model_by_headers(struct model *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        msg->by_header = msg->by_header || (msg->adrift && !msg->apart && m->half && msg->born == m->half);
    }
}

/* MOD-7 */
static bool shown_by_one(const struct model *m, const struct model_message *msg)
{
    bool two = __builtin_popcount(m->were_alone) == 2, one = __builtin_popcount(msg->shown) == 1;
    return msg->parted && msg->appended == MODEL_YES && two && one;
}

void model_join(struct model *m)
{
    m->half = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        struct model_facts said = facts_of(msg), *joined = msg->apart ? &msg->joined : &said;
        if (msg->by_header && msg->retired != MODEL_NO) /* MOD-8 */
            facts_blur(&said, &said);
        facts_set(msg, joined);
        if (shown_by_one(m, msg))
            msg->appended = MODEL_MAYBE;
        msg->apart = msg->elsewhere = msg->parted = msg->adrift = msg->by_header = false;
        msg->born = msg->shown = 0;
    }
    m->were_alone = 0;
}

/* --- verdicts --- */

bool model_must_be_there(const struct model_message *msg)
{
    return msg->appended == MODEL_YES && msg->retired == MODEL_NO && !msg->lost_said && !msg->apart && !msg->elsewhere;
}

void model_audit_begin(struct model *m) { m->audits++; }

static const char *audit_marks(const struct model_message *msg, const struct index_entry *e)
{
    bool delivered[MODEL_RECIPIENTS_MAX] = {0};
    struct mark_cursor c;
    struct mark mark;
    uint32_t count;
    if (e->marks_bytes && mark_check(e->marks, e->marks_bytes, &count) != ERR_OK)
        return "MOD-5: the marks of a message are not well formed";
    mark_begin(&c, e->marks, e->marks_bytes);
    while (mark_next(&c, &mark)) {
        if (mark.recipient >= msg->recipients)
            return "MOD-5: a mark names a recipient that the message does not have";
        delivered[mark.recipient] = mark.status == MARK_DELIVERED;
    }
    for (uint32_t r = 0; r < msg->recipients; r++) {
        if (msg->delivered[r] == MODEL_YES && !delivered[r])
            return "MOD-5: an acknowledged result is gone";
        if (msg->delivered[r] == MODEL_NO && delivered[r])
            return "MOD-5: a result is there that nobody reported";
    }
    return NULL;
}

const char *model_audit_entry(struct model *m, const struct index_entry *e, struct model_message **message_out)
{
    struct model_message *msg = model_find(m, e->qid);
    if (!msg || msg->appended == MODEL_NO)
        return "MOD-3: a message is there that nobody handed over";
    *message_out = msg;
    if (msg->seen == m->audits)
        return "MOD-3: a message is listed twice";
    if (msg->elsewhere)
        return "MOD-6: a half shows a message that was handed to the other";
    msg->seen = m->audits;
    msg->segment = e->place.segment;
    msg->place = e->place;
    msg->envelope_bytes = e->envelope_bytes;
    if (msg->retired == MODEL_YES)
        return "MOD-4: a retired message is back";
    if (e->chunk_count != msg->chunk_count)
        return "MOD-2: a message has another number of chunks than it was given";
    if (msg->held != MODEL_MAYBE && (e->state == INDEX_HOLD) != msg->was_held)
        return "MOD-5: an acknowledged hold or release does not hold";
    return audit_marks(msg, e);
}

const char *model_audit_envelope(const struct model_message *msg, const uint8_t *envelope, uint32_t bytes)
{
    return digest_equal(digest_of(envelope, bytes), msg->envelope) ? NULL : "MOD-1: an envelope is not what was handed over";
}

const char *model_audit_part(const struct model_message *msg, uint32_t part, const uint8_t *bytes, uint32_t length,
                             uint32_t chunk_bytes)
{
    uint32_t want = model_part_bytes(msg, part, chunk_bytes);
    if (msg->given)
        return want == length && digest_equal(digest_of(bytes, length), msg->body) ? NULL : "MOD-1: a bounce is not what was written";
    uint8_t *good = malloc(want + 1u);
    ASSERT(good != NULL);
    model_body(msg, part, good, want);
    bool same = want == length && memcmp(good, bytes, want) == 0;
    free(good);
    return same ? NULL : "MOD-1: a body is not what was handed over";
}

struct model_message *model_audit_missing(struct model *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->messages[i].seen != m->audits && model_must_be_there(&m->messages[i]))
            return &m->messages[i];
    return NULL;
}

void model_audit_settle(struct model *m)
{
    m->live_bytes = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        if (msg->seen == m->audits && msg->appended == MODEL_MAYBE)
            msg->appended = MODEL_YES; /* MOD-2 */
        if (msg->seen == m->audits && m->half)
            msg->shown |= (uint8_t)(1u << m->half);
        m->live_bytes += msg->seen == m->audits ? msg->body_bytes : 0;
    }
}
