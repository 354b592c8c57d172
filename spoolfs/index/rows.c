/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the bytes of the index's rows (rows.h), and what a message's envelope and results mean for its due times.
 * Never reads a value whose check was not proved. A value's length is proved against its own fields as well. */
#include "rows.h"

#include <base/assert.h>
#include <base/le.h>
#include <base/planted.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* --- keys --- */

void key_add32(struct key *k, uint32_t v)
{
    ASSERT(k->len + 4u <= sizeof k->b);
    for (uint32_t i = 0; i < 4; i++)
        k->b[k->len++] = (uint8_t)(v >> (24 - 8 * i));
}

uint64_t key_u64(struct bytes key, uint32_t offset)
{
    uint64_t v = 0;
    if (offset + 8u <= key.len) {
        memcpy(&v, (const uint8_t *)key.at + offset, sizeof v);
        return be64toh(v);
    }
    for (uint32_t i = 0; i < 8 && offset + i < key.len; i++)
        v = v << 8 | ((const uint8_t *)key.at)[offset + i];
    return v;
}

uint32_t key_u32(struct bytes key, uint32_t offset)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < 4 && offset + i < key.len; i++)
        v = v << 8 | ((const uint8_t *)key.at)[offset + i];
    return v;
}

bool key_begins(struct bytes key, const struct key *with)
{
    return key.len >= with->len && memcmp(key.at, with->b, with->len) == 0;
}

struct key key_after(const struct key *k)
{
    struct key after = *k;
    while (after.len > 0 && ++after.b[after.len - 1] == 0)
        after.len--;
    return after;
}

static struct key key_ids(char row, uint64_t a, uint64_t b)
{
    struct key k = key_of(row);
    key_add(&k, a);
    key_add(&k, b);
    return k;
}

static void key_add_digest(struct key *k, struct digest digest)
{
    key_add(k, digest.hi);
    key_add(k, digest.lo);
}

struct key key_messages(struct queue_id qid)
{
    return key_ids('m', qid.incarnation, qid.counter);
}

struct key key_message(struct queue_id qid, struct digest digest)
{
    struct key k = key_messages(qid);
    key_add_digest(&k, digest);
    return k;
}

struct key key_chunk(struct queue_id qid, uint32_t number)
{
    struct key k = key_ids('c', qid.incarnation, qid.counter);
    key_add32(&k, number);
    return k;
}

struct key key_due(uint64_t destination, uint64_t due_ms, struct queue_id qid, struct digest digest)
{
    struct key k = key_ids('d', destination, due_ms);
    key_add(&k, qid.incarnation);
    key_add(&k, qid.counter);
    key_add_digest(&k, digest);
    return k;
}

struct key key_head(uint64_t due_ms, uint64_t destination)
{
    return key_ids('e', due_ms, destination);
}

struct key key_arrival(uint64_t arrival_ms, struct queue_id qid, struct digest digest)
{
    struct key k = key_of('a');
    key_add(&k, arrival_ms);
    key_add(&k, qid.incarnation);
    key_add(&k, qid.counter);
    key_add_digest(&k, digest);
    return k;
}

struct key key_segment(char row, struct segment_id a)
{
    return key_ids(row, a.incarnation, a.counter);
}

struct key key_pair(char row, struct segment_id a, struct segment_id b)
{
    struct key k = key_segment(row, a);
    key_add(&k, b.incarnation);
    key_add(&k, b.counter);
    return k;
}

struct key key_tomb(struct queue_id qid, struct segment_id about)
{
    struct key k = key_ids('t', qid.incarnation, qid.counter);
    key_add(&k, about.incarnation);
    key_add(&k, about.counter);
    return k;
}

struct key key_side(struct queue_id qid)
{
    return key_ids('k', qid.incarnation, qid.counter);
}

/* --- values --- */

static uint64_t value_check(struct bytes key, const uint8_t *body, size_t len)
{
    return digest64_of(body, len, digest64_of(key.at, key.len, ROWS_VERSION));
}

static struct bytes value_close(const struct key *k, uint8_t *buffer, size_t body)
{
    struct le64 check = le64_of(value_check(key_bytes(k), buffer + CHECK_BYTES, body));
    memcpy(buffer, &check, sizeof check);
    return (struct bytes){buffer, body + CHECK_BYTES};
}

struct bytes value_seal(const struct key *k, uint8_t *buffer, const void *head, size_t head_len)
{
    if (head_len)
        memcpy(buffer + CHECK_BYTES, head, head_len);
    return value_close(k, buffer, head_len);
}

enum err value_open(struct bytes key, struct bytes value, struct bytes *body_out)
{
    struct le64 check;
    if (value.len < CHECK_BYTES)
        return ERR_CORRUPT;
    const uint8_t *body = (const uint8_t *)value.at + CHECK_BYTES;
    memcpy(&check, value.at, sizeof check);
    if (le64_get(check) != value_check(key, body, value.len - CHECK_BYTES))
        return ERR_CORRUPT;
    *body_out = (struct bytes){body, value.len - CHECK_BYTES};
    return ERR_OK;
}

struct place_disk {
    struct le64 incarnation, counter, frame, sequence;
    struct le32 frame_blocks, record, length;
};

static struct place_disk place_put(const struct place *p)
{
    return (struct place_disk){le64_of(p->segment.incarnation), le64_of(p->segment.counter), le64_of(p->frame), le64_of(p->sequence),
                               le32_of(p->frame_blocks), le32_of(p->record), le32_of(p->length)};
}

static struct place place_get(const struct place_disk *d)
{
    return (struct place){.segment = {le64_get(d->incarnation), le64_get(d->counter)}, .frame = le64_get(d->frame),
                          .sequence = le64_get(d->sequence), .frame_blocks = le32_get(d->frame_blocks), .record = le32_get(d->record),
                          .length = le32_get(d->length)};
}

struct results_disk {
    struct le64 state_sequence;
    struct le32 attempts, state, marks_bytes, mark_count;
};

struct message_disk {
    struct place_disk place;
    struct le32 chunk_count, envelope_bytes;
    uint8_t moved, conflict, reserved[2];
    struct results_disk results;
    uint8_t reserved2[12]; /* room for what a later version wants to know without a rebuild */
};
_Static_assert(sizeof(struct message_disk) == MESSAGE_HEAD_BYTES, "message row");

static struct results_disk results_put(const struct results *r)
{
    return (struct results_disk){le64_of(r->state_sequence), le32_of(r->attempts), le32_of(r->state),
                                 le32_of(r->marks_bytes), le32_of(r->mark_count)};
}

static uint8_t *results_tail(const struct results *r, uint8_t *at)
{
    if (r->mark_count) {
        memcpy(at, r->sequences, r->mark_count * 8u);
        memcpy(at + r->mark_count * 8u, r->marks, r->marks_bytes);
    }
    return at + r->mark_count * 8u + r->marks_bytes;
}

static enum err results_get(const struct results_disk *d, const uint8_t *at, size_t len, struct results *r)
{
    uint32_t count;
    *r = (struct results){.attempts = le32_get(d->attempts), .state = le32_get(d->state),
                          .state_sequence = le64_get(d->state_sequence), .marks_bytes = le32_get(d->marks_bytes),
                          .mark_count = le32_get(d->mark_count)};
    if (r->mark_count > RECIPIENTS_PER_MESSAGE_MAX || (uint64_t)r->mark_count * 8 + r->marks_bytes != len)
        return ERR_CORRUPT;
    r->sequences = at;
    r->marks = at + r->mark_count * 8u;
    if (mark_check(r->marks, r->marks_bytes, &count) != ERR_OK || count != r->mark_count)
        return ERR_CORRUPT;
    return ERR_OK;
}

uint32_t message_bytes(const struct message *m)
{
    return CHECK_BYTES + MESSAGE_HEAD_BYTES + m->envelope_bytes + m->results.mark_count * 8u + m->results.marks_bytes;
}

struct bytes message_encode(const struct message *m, const struct key *k, uint8_t *buffer)
{
    struct message_disk d = {.place = place_put(&m->place), .chunk_count = le32_of(m->chunk_count),
                             .envelope_bytes = le32_of(m->envelope_bytes), .moved = m->moved,
                             .conflict = m->conflict, .results = results_put(&m->results)};
    uint8_t *at = buffer + CHECK_BYTES;
    memcpy(at, &d, sizeof d);
    at += sizeof d;
    if (m->envelope_bytes)
        memcpy(at, m->envelope, m->envelope_bytes);
    at = results_tail(&m->results, at + m->envelope_bytes);
    ASSERT(at == buffer + message_bytes(m));
    return value_close(k, buffer, (size_t)(at - buffer) - CHECK_BYTES);
}

enum err message_decode(struct bytes key, struct bytes value, struct message *m_out)
{
    struct bytes body;
    struct message_disk d;
    if (key.len != 33 || value_open(key, value, &body) != ERR_OK || body.len < sizeof d)
        return ERR_CORRUPT;
    memcpy(&d, body.at, sizeof d);
    const uint8_t *at = (const uint8_t *)body.at + sizeof d;
    size_t left = body.len - sizeof d;
    *m_out = (struct message){.qid = key_qid_at(key, 1), .digest = key_digest_at(key, 17),
                              .place = place_get(&d.place), .moved = d.moved, .conflict = d.conflict,
                              .chunk_count = le32_get(d.chunk_count), .envelope_bytes = le32_get(d.envelope_bytes),
                              .envelope = at};
    if (m_out->envelope_bytes > left)
        return ERR_CORRUPT;
    return results_get(&d.results, at + m_out->envelope_bytes, left - m_out->envelope_bytes, &m_out->results);
}

uint32_t results_bytes(const struct results *r)
{
    return CHECK_BYTES + (uint32_t)sizeof(struct results_disk) + r->mark_count * 8u + r->marks_bytes;
}

struct bytes results_encode(const struct results *r, const struct key *k, uint8_t *buffer)
{
    struct results_disk d = results_put(r);
    memcpy(buffer + CHECK_BYTES, &d, sizeof d);
    uint8_t *end = results_tail(r, buffer + CHECK_BYTES + sizeof d);
    return value_close(k, buffer, (size_t)(end - buffer) - CHECK_BYTES);
}

enum err results_decode(struct bytes key, struct bytes value, struct results *r_out)
{
    struct bytes body;
    struct results_disk d;
    if (value_open(key, value, &body) != ERR_OK || body.len < sizeof d)
        return ERR_CORRUPT;
    memcpy(&d, body.at, sizeof d);
    return results_get(&d, (const uint8_t *)body.at + sizeof d, body.len - sizeof d, r_out);
}

/* Proves a value of one fixed length and copies it. */
static enum err value_fixed(struct bytes key, struct bytes value, void *d, size_t len)
{
    struct bytes body;
    if (value_open(key, value, &body) != ERR_OK || body.len != len)
        return ERR_CORRUPT;
    memcpy(d, body.at, len);
    return ERR_OK;
}

struct chunk_disk { struct place_disk place; struct le64 digest_lo, digest_hi, bytes; uint8_t moved, reserved[7]; };

struct bytes chunk_encode(const struct chunk_row *c, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES])
{
    struct chunk_disk d = {place_put(&c->place), le64_of(c->digest.lo), le64_of(c->digest.hi), le64_of(c->bytes),
                           c->moved, {0}};
    return value_seal(k, buffer, &d, sizeof d);
}

enum err chunk_decode(struct bytes key, struct bytes value, struct chunk_row *c_out)
{
    struct chunk_disk d;
    if (value_fixed(key, value, &d, sizeof d) != ERR_OK)
        return ERR_CORRUPT;
    *c_out = (struct chunk_row){place_get(&d.place), {le64_get(d.digest_lo), le64_get(d.digest_hi)},
                                le64_get(d.bytes), d.moved};
    return ERR_OK;
}

struct segment_disk { struct le64 watermark, live_bytes; struct le32 live_messages, live_chunks; };

struct bytes segment_encode(const struct segment_row *s, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES])
{
    struct segment_disk d = {le64_of(s->watermark), le64_of(s->live_bytes), le32_of(s->live_messages),
                             le32_of(s->live_chunks)};
    return value_seal(k, buffer, &d, sizeof d);
}

enum err segment_decode(struct bytes key, struct bytes value, struct segment_row *s_out)
{
    struct segment_disk d;
    if (value_fixed(key, value, &d, sizeof d) != ERR_OK)
        return ERR_CORRUPT;
    *s_out = (struct segment_row){le64_get(d.watermark), le32_get(d.live_messages), le32_get(d.live_chunks),
                                  le64_get(d.live_bytes)};
    return ERR_OK;
}

struct counts_disk { struct le64 messages, recipients, active, deferred, hold, bytes; };

struct bytes counts_encode(const struct counts_row *c, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES])
{
    struct counts_disk d = {le64_of(c->messages), le64_of(c->recipients), le64_of(c->active), le64_of(c->deferred),
                            le64_of(c->hold), le64_of(c->bytes)};
    return value_seal(k, buffer, &d, sizeof d);
}

enum err counts_decode(struct bytes key, struct bytes value, struct counts_row *c_out)
{
    struct counts_disk d;
    if (value_fixed(key, value, &d, sizeof d) != ERR_OK)
        return ERR_CORRUPT;
    *c_out = (struct counts_row){le64_get(d.messages), le64_get(d.recipients), le64_get(d.active),
                                 le64_get(d.deferred), le64_get(d.hold), le64_get(d.bytes)};
    return ERR_OK;
}

struct due_disk { struct le64 arrival_ms; struct le32 recipients; };

struct bytes due_encode(const struct due_row *d, const struct key *k, uint8_t buffer[SMALL_VALUE_BYTES])
{
    struct due_disk disk = {le64_of(d->arrival_ms), le32_of(d->recipients)};
    return value_seal(k, buffer, &disk, sizeof disk);
}

enum err due_decode(struct bytes key, struct bytes value, struct due_row *d_out)
{
    struct due_disk d;
    if (key.len != 49 || value_fixed(key, value, &d, sizeof d) != ERR_OK)
        return ERR_CORRUPT;
    *d_out = (struct due_row){le64_get(d.arrival_ms), le32_get(d.recipients)};
    return ERR_OK;
}

/* --- what follows from a message --- */

static int destination_compare(const void *a, const void *b)
{
    const struct destination_due *x = a, *y = b;
    return (x->destination > y->destination) - (x->destination < y->destination);
}

/* One entry for each destination: the earliest time, the recipients together. */
static uint32_t destinations_join(struct destination_due *d, uint32_t count)
{
    uint32_t kept = 0;
    if (count > 1)
        qsort(d, count, sizeof *d, destination_compare);
    for (uint32_t i = 1; i < count; i++) {
        if (d[i].destination != d[kept].destination) {
            d[++kept] = d[i];
            continue;
        }
        d[kept].recipients += d[i].recipients;
        if (d[i].due_ms < d[kept].due_ms)
            d[kept].due_ms = d[i].due_ms;
    }
    return count ? kept + 1 : 0;
}

static uint64_t sequence_at(const struct results *r, uint32_t i)
{
    struct le64 s;
    memcpy(&s, r->sequences + i * 8u, sizeof s);
    return le64_get(s);
}

static enum index_state message_state(const struct message *m, uint32_t envelope_flags)
{
    switch (m->results.state) {
    case RECORD_STATE_HOLD:
        return INDEX_HOLD;
    case RECORD_STATE_EXPIRE:
        return INDEX_EXPIRE;
    case RECORD_STATE_RELEASE:
    case RECORD_STATE_RETRY:
        return INDEX_ACTIVE;
    default:
        return envelope_flags & ENVELOPE_HOLD ? INDEX_HOLD : INDEX_ACTIVE;
    }
}

/* RETRY and EXPIRE make every deferral before them void. */
static bool deferral_void(const struct results *r, uint64_t sequence)
{
    return (r->state == RECORD_STATE_RETRY || r->state == RECORD_STATE_EXPIRE) && r->state_sequence > sequence;
}

static uint32_t message_pending(const struct message *m, const struct envelope *e, struct message_view *v,
                                struct destination_due *d)
{
    struct envelope_cursor c;
    struct mark_cursor marks;
    struct mark mark = {0};
    const char *address;
    uint32_t len, count = 0, marks_seen = 0;
    mark_begin(&marks, m->results.marks, m->results.marks_bytes);
    bool have = m->results.mark_count && mark_next(&marks, &mark);
    envelope_recipients(e, &c);
    for (uint32_t i = 0; envelope_recipient_next(&c, &address, &len) && i < RECIPIENTS_PER_MESSAGE_MAX; i++) {
        uint64_t due = v->arrival_ms;
        bool pending = true;
        if (have && mark.recipient == i) {
            uint64_t sequence = sequence_at(&m->results, marks_seen++);
            pending = mark.status == MARK_PENDING || mark.status == MARK_DEFERRED;
            if (mark.status == MARK_DEFERRED && !deferral_void(&m->results, sequence))
                due = mark.deferred_until_ms;
            v->attempts += mark.status == MARK_DEFERRED && v->attempts == 0;
            have = mark_next(&marks, &mark);
        }
        if (pending)
            d[count++] = (struct destination_due){envelope_destination(address, len), due, 1};
    }
    return count;
}

void message_look(const struct message *m, struct message_view *v_out, struct destination_due *d)
{
    struct envelope e;
    *v_out = (struct message_view){.attempts = m->results.attempts, .next_due_ms = DUE_NEVER};
    uint32_t count = 0;
    bool legible = envelope_decode(m->envelope, m->envelope_bytes, &e) == ERR_OK;
    if (legible) {
        v_out->arrival_ms = e.arrival_ms;
        v_out->body_bytes = e.body_bytes;
        count = v_out->recipients = message_pending(m, &e, v_out, d);
    }
    v_out->state = message_state(m, legible ? e.flags : 0);
    if (count == 0) /* all have a final result but no RETIRE came: somebody has to look at it */
        d[count++] = (struct destination_due){0, v_out->arrival_ms, 0};
    v_out->destination_count = destinations_join(d, count);
    for (uint32_t i = 0; i < v_out->destination_count; i++) {
        if (v_out->state == INDEX_HOLD && !PLANTED(hold_is_due))
            d[i].due_ms = DUE_NEVER;
        if (d[i].due_ms < v_out->next_due_ms)
            v_out->next_due_ms = d[i].due_ms;
    }
}

bool rows_look(struct rows_look *l, struct bytes key, struct bytes value)
{
    struct bytes body;
    struct message m;
    char kind = *(const char *)key.at;
    l->bad = value_open(key, value, &body) != ERR_OK;
    if (!l->bad && kind == 'm')
        l->bad = message_decode(key, value, &m) != ERR_OK;
    if (!l->bad && kind == 'n') /* behind all messages */
        l->bad = counts_decode(key, value, &l->counts) != ERR_OK || l->counts.messages != l->messages;
    l->messages += kind == 'm';
    l->rows++;
    return !l->bad;
}
