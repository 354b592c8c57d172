/* SPDX-License-Identifier: Apache-2.0 */
/* The wire's codec. Owns: the layout of every message, in one table. Invariants WIRE-1, WIRE-2, WIRE-4 (wire.h).
 *
 * A message: length of what follows the head (le32), type, flags, reserved (le16), then the fixed fields of its type in
 * the order of enum field, then its rows back to back. The last row has no length of its own: it takes the rest. */
#include <spoolfs/wire.h>

#include <base/assert.h>
#include <base/le.h>
#include <string.h>

enum field {
    F_TAG = 1 << 0,
    F_NUMBER = 1 << 1,
    F_CHUNKS = 1 << 2,
    F_ERROR = 1 << 3,      /* le16 error, le16 bounce_error */
    F_QID = 1 << 4,
    F_BOUNCE = 1 << 5,
    F_LOCATOR = 1 << 6,
    F_VALUE = 1 << 7,
    F_CLOCK = 1 << 8,
    F_ENVELOPE = 1 << 9,   /* rows: le32 lengths among the fixed fields, in this order, but for the last */
    F_MARKS = 1 << 10,
    F_BODY = 1 << 11,
};
#define F_ROWS ((unsigned)(F_ENVELOPE | F_MARKS | F_BODY))

struct layout {
    uint16_t fields;
    uint8_t flags;         /* those that may be set */
    char from;
    uint32_t envelope_max, marks_max, body_max;
};

#define WITH_BOUNCE ENVELOPE_BYTES_MAX
/* Results of 1,000 recipients with full reasons are larger than a message: the relay marks in several groups. */
#define MARKS_BYTES_MAX (WIRE_PAYLOAD_MAX - WIRE_FIXED_MAX - 4096u)

static const struct layout layouts[WIRE_TYPE_COUNT] = {
    [WIRE_HELLO] = {.from = 'r', .fields = F_NUMBER | F_VALUE | F_CLOCK},
    [WIRE_HELD] = {.from = 'r', .fields = F_MARKS, .marks_max = WIRE_HELD_ROW_MAX * WIRE_HELD_BYTES},
    [WIRE_PRESENTED] = {.from = 'r'},
    [WIRE_WANT_IDS] = {.from = 'r', .fields = F_NUMBER},
    [WIRE_APPEND] = {.from = 'r', .fields = F_TAG | F_CHUNKS | F_QID | F_ENVELOPE | F_BODY, .flags = WIRE_AGAIN,
                     .envelope_max = ENVELOPE_BYTES_MAX, .body_max = BODY_INLINE_MAX},
    [WIRE_CHUNK] = {.from = 'r', .fields = F_TAG | F_NUMBER | F_CHUNKS | F_QID | F_BODY, .flags = WIRE_TRAY,
                    .body_max = CHUNK_BYTES_MAX},
    [WIRE_ABORT] = {.from = 'r', .fields = F_QID},
    [WIRE_MARK] = {.from = 'r', .fields = F_TAG | F_QID | F_BOUNCE | F_LOCATOR | F_ENVELOPE | F_MARKS | F_BODY,
                   .flags = WIRE_AGAIN | WIRE_RETIRE | WIRE_ENDS | WIRE_BOUNCE, .envelope_max = WITH_BOUNCE,
                   .marks_max = MARKS_BYTES_MAX, .body_max = BODY_INLINE_MAX},
    [WIRE_RELEASE] = {.from = 'r', .fields = F_QID},
    [WIRE_WANT_DUE] = {.from = 'r', .fields = F_NUMBER},
    [WIRE_FETCH] = {.from = 'r', .fields = F_TAG | F_NUMBER | F_QID},
    [WIRE_FETCH_MORE] = {.from = 'r', .fields = F_TAG | F_NUMBER},
    [WIRE_FETCH_END] = {.from = 'r', .fields = F_TAG},
    [WIRE_PAUSE] = {.from = 'r', .fields = F_NUMBER | F_VALUE},
    [WIRE_REPORT] = {.from = 'r', .fields = F_BODY, .body_max = WIRE_REPORT_BYTES_MAX},
    [WIRE_DOCUMENT] = {.from = 'r', .fields = F_TAG | F_BODY, .body_max = WIRE_DOCUMENT_KIND_MAX},
    [WIRE_WELCOME] = {.from = 's', .fields = F_NUMBER | F_QID | F_VALUE | F_CLOCK},
    [WIRE_LEND] = {.from = 's', .fields = F_NUMBER | F_QID},
    [WIRE_APPENDED] = {.from = 's', .fields = F_TAG | F_ERROR | F_QID | F_LOCATOR},
    [WIRE_CHUNKED] = {.from = 's', .fields = F_TAG | F_NUMBER | F_CHUNKS | F_ERROR | F_QID, .flags = WIRE_TRAY},
    [WIRE_MARKED] = {.from = 's', .fields = F_TAG | F_ERROR | F_QID | F_BOUNCE | F_LOCATOR, .flags = WIRE_BOUNCE},
    [WIRE_DUE] = {.from = 's', .fields = F_NUMBER | F_CHUNKS | F_QID | F_LOCATOR | F_VALUE | F_ENVELOPE | F_MARKS,
                  .envelope_max = ENVELOPE_BYTES_MAX, .marks_max = RECIPIENTS_PER_MESSAGE_MAX},
    [WIRE_PIECE] = {.from = 's', .fields = F_TAG | F_ERROR | F_BODY, .flags = WIRE_LAST, .body_max = CHUNK_BYTES_MAX},
    [WIRE_STATUS] = {.from = 's', .fields = F_ERROR | F_VALUE | F_CLOCK, .flags = WIRE_INDEX_READY},
    [WIRE_RECALL] = {.from = 's', .fields = F_QID},
    [WIRE_FLUSH] = {.from = 's'},
    [WIRE_DOCUMENT_PART] = {.from = 's', .fields = F_TAG | F_ERROR | F_BODY, .flags = WIRE_LAST,
                            .body_max = CHUNK_BYTES_MAX},
};

const char *wire_type_name(enum wire_type t)
{
    static const char *const names[WIRE_TYPE_COUNT] = {
#define X(name, from) [WIRE_##name] = #name,
        WIRE_TYPES(X)
#undef X
    };
    return t > WIRE_NONE && t < WIRE_TYPE_COUNT ? names[t] : "unknown";
}

/* Rows whose length stands among the fixed fields: all but the last. */
static unsigned rows_with_length(unsigned fields)
{
    unsigned rows = fields & F_ROWS;
    unsigned last = rows & F_BODY ? F_BODY : rows & F_MARKS ? F_MARKS : F_ENVELOPE;
    return rows & ~last;
}

static uint32_t fixed_bytes(unsigned f)
{
    uint32_t n = 0;
    n += f & F_TAG ? 4 : 0;
    n += f & F_NUMBER ? 4 : 0;
    n += f & F_CHUNKS ? 4 : 0;
    n += f & F_ERROR ? 4 : 0;
    n += f & F_QID ? 16 : 0;
    n += f & F_BOUNCE ? 16 : 0;
    n += f & F_LOCATOR ? 16 : 0;
    n += f & F_VALUE ? 8 : 0;
    n += f & F_CLOCK ? 8 : 0;
    return n + 4 * (uint32_t)__builtin_popcount(rows_with_length(f));
}

/* --- encode --- */

static uint8_t *put16(uint8_t *p, uint16_t v) { struct le16 x = le16_of(v); memcpy(p, &x, 2); return p + 2; }
static uint8_t *put32(uint8_t *p, uint32_t v) { struct le32 x = le32_of(v); memcpy(p, &x, 4); return p + 4; }
static uint8_t *put64(uint8_t *p, uint64_t v) { struct le64 x = le64_of(v); memcpy(p, &x, 8); return p + 8; }

static uint8_t *put_row(uint8_t *p, const struct wire_bytes *row)
{
    if (row->len)
        memcpy(p, row->bytes, row->len);
    return p + row->len;
}

uint32_t wire_encoded_bytes(const struct wire_message *m)
{
    unsigned f = layouts[m->type].fields;
    return WIRE_HEAD_BYTES + fixed_bytes(f) + (f & F_ENVELOPE ? m->envelope.len : 0) +
           (f & F_MARKS ? m->marks.len : 0) + (f & F_BODY ? m->body.len : 0);
}

static uint8_t *put_fixed(uint8_t *p, unsigned f, const struct wire_message *m)
{
    unsigned lengths = rows_with_length(f);
    if (f & F_TAG)
        p = put32(p, m->tag);
    if (f & F_NUMBER)
        p = put32(p, m->number);
    if (f & F_CHUNKS)
        p = put32(p, m->chunk_count);
    if (f & F_ERROR)
        p = put16(put16(p, (uint16_t)m->error), (uint16_t)m->bounce_error);
    if (f & F_QID)
        p = put64(put64(p, m->qid.incarnation), m->qid.counter);
    if (f & F_BOUNCE)
        p = put64(put64(p, m->bounce.incarnation), m->bounce.counter);
    if (f & F_LOCATOR)
        p = put64(put64(p, m->locator.incarnation), m->locator.counter);
    if (f & F_VALUE)
        p = put64(p, m->value);
    if (f & F_CLOCK)
        p = put64(p, m->clock_ms);
    if (lengths & F_ENVELOPE)
        p = put32(p, m->envelope.len);
    if (lengths & F_MARKS)
        p = put32(p, m->marks.len);
    return p;
}

uint32_t wire_encode(uint8_t *buffer, const struct wire_message *m)
{
    ASSERT(m->type > WIRE_NONE && m->type < WIRE_TYPE_COUNT);
    const struct layout *l = &layouts[m->type];
    uint32_t total = wire_encoded_bytes(m);
    ASSERT(total <= WIRE_MESSAGE_MAX && (m->flags & ~l->flags) == 0);
    ASSERT(m->envelope.len <= l->envelope_max && m->marks.len <= l->marks_max && m->body.len <= l->body_max);
    uint8_t *p = put32(buffer, total - WIRE_HEAD_BYTES);
    *p++ = (uint8_t)m->type;
    *p++ = m->flags;
    p = put16(p, 0);
    p = put_fixed(p, l->fields, m);
    if (l->fields & F_ENVELOPE)
        p = put_row(p, &m->envelope);
    if (l->fields & F_MARKS)
        p = put_row(p, &m->marks);
    if (l->fields & F_BODY)
        p = put_row(p, &m->body);
    ASSERT(p == buffer + total);
    return total;
}

/* --- decode --- */

static const uint8_t *get16(const uint8_t *p, uint16_t *v) { struct le16 x; memcpy(&x, p, 2); *v = le16_get(x); return p + 2; }
static const uint8_t *get32(const uint8_t *p, uint32_t *v) { struct le32 x; memcpy(&x, p, 4); *v = le32_get(x); return p + 4; }
static const uint8_t *get64(const uint8_t *p, uint64_t *v) { struct le64 x; memcpy(&x, p, 8); *v = le64_get(x); return p + 8; }

static const uint8_t *get_fixed(const uint8_t *p, unsigned f, struct wire_message *m, uint16_t errors[2])
{
    unsigned lengths = rows_with_length(f);
    if (f & F_TAG)
        p = get32(p, &m->tag);
    if (f & F_NUMBER)
        p = get32(p, &m->number);
    if (f & F_CHUNKS)
        p = get32(p, &m->chunk_count);
    if (f & F_ERROR)
        p = get16(get16(p, &errors[0]), &errors[1]);
    if (f & F_QID)
        p = get64(get64(p, &m->qid.incarnation), &m->qid.counter);
    if (f & F_BOUNCE)
        p = get64(get64(p, &m->bounce.incarnation), &m->bounce.counter);
    if (f & F_LOCATOR)
        p = get64(get64(p, &m->locator.incarnation), &m->locator.counter);
    if (f & F_VALUE)
        p = get64(p, &m->value);
    if (f & F_CLOCK)
        p = get64(p, &m->clock_ms);
    if (lengths & F_ENVELOPE)
        p = get32(p, &m->envelope.len);
    if (lengths & F_MARKS)
        p = get32(p, &m->marks.len);
    return p;
}

/* The rows: those with a length, then the last one with what remains. */
static enum err get_rows(const uint8_t *p, const uint8_t *end, const struct layout *l, struct wire_message *m)
{
    unsigned rows = l->fields & F_ROWS, lengths = rows_with_length(l->fields);
    uint64_t stated = (uint64_t)m->envelope.len + m->marks.len;
    if (stated > (uint64_t)(end - p))
        return ERR_INVALID;
    uint32_t rest = (uint32_t)(end - p) - (uint32_t)stated;
    if (!rows)
        return rest == 0 ? ERR_OK : ERR_INVALID;
    struct wire_bytes *last = rows & F_BODY ? &m->body : rows & F_MARKS ? &m->marks : &m->envelope;
    ASSERT(lengths != rows);
    last->len = rest;
    if (m->envelope.len > l->envelope_max || m->marks.len > l->marks_max || m->body.len > l->body_max)
        return ERR_INVALID;
    m->envelope.bytes = p;
    m->marks.bytes = m->envelope.bytes + m->envelope.len;
    m->body.bytes = m->marks.bytes + m->marks.len;
    return ERR_OK;
}

/* The bytes of a CHUNK are in the message or in a tray, never in both. */
static bool chunk_has_bytes(const struct wire_message *m)
{
    if (!(m->flags & WIRE_TRAY))
        return m->tag == 0 && m->chunk_count == 0 && m->body.len > 0;
    return m->tag < WIRE_TRAYS && m->body.len == 0 && m->chunk_count > 0 && m->chunk_count <= CHUNK_BYTES_MAX;
}

/* What the fields of a type mean to each other, so that no user has to look again. */
static enum err check_meaning(const struct wire_message *m)
{
    bool needs_id = layouts[m->type].fields & F_QID;
    if (needs_id && (queue_id_is_none(m->qid) || m->qid.counter > QUEUE_ID_COUNTER_MAX))
        return ERR_INVALID;
    switch (m->type) {
    case WIRE_HELLO:
    case WIRE_WELCOME:
        return m->clock_ms == WIRE_MAGIC && m->number == WIRE_VERSION ? ERR_OK : ERR_INVALID;
    case WIRE_HELD:
        return m->marks.len % WIRE_HELD_BYTES == 0 ? ERR_OK : ERR_INVALID;
    case WIRE_APPEND:
        return m->chunk_count <= CHUNKS_PER_MESSAGE_MAX && (m->chunk_count == 0 || m->body.len == 0) ? ERR_OK : ERR_INVALID;
    case WIRE_CHUNK:
        return m->number < CHUNKS_PER_MESSAGE_MAX && chunk_has_bytes(m) ? ERR_OK : ERR_INVALID;
    case WIRE_MARK:
        if (!(m->flags & WIRE_BOUNCE))
            return queue_id_is_none(m->bounce) && m->envelope.len + m->body.len == 0 ? ERR_OK : ERR_INVALID;
        return !queue_id_is_none(m->bounce) && m->bounce.counter <= QUEUE_ID_COUNTER_MAX ? ERR_OK : ERR_INVALID;
    case WIRE_LEND:
        return m->number > 0 && m->number <= WIRE_QUEUE_IDS_LENT ? ERR_OK : ERR_INVALID;
    default:
        return ERR_OK;
    }
}

enum err wire_decode(const uint8_t *bytes, size_t len, char from, struct wire_message *m_out, uint32_t *used_out)
{
    *used_out = 0;
    if (len < WIRE_HEAD_BYTES)
        return ERR_SHORT;
    uint32_t length;
    uint16_t reserved, errors[2] = {0, 0};
    get16(get32(bytes, &length) + 2, &reserved);
    uint8_t type = bytes[4], flags = bytes[5];
    if (length > WIRE_PAYLOAD_MAX || type == WIRE_NONE || type >= WIRE_TYPE_COUNT || reserved != 0)
        return ERR_INVALID;
    const struct layout *l = &layouts[type];
    if (l->from != from || (flags & ~l->flags) || length < fixed_bytes(l->fields))
        return ERR_INVALID;
    *used_out = WIRE_HEAD_BYTES + length;
    if (len < WIRE_HEAD_BYTES + (size_t)length)
        return ERR_SHORT;
    struct wire_message m = {.type = (enum wire_type)type, .flags = flags};
    const uint8_t *p = get_fixed(bytes + WIRE_HEAD_BYTES, l->fields, &m, errors);
    enum err e = get_rows(p, bytes + WIRE_HEAD_BYTES + length, l, &m);
    if (e == ERR_OK && (errors[0] >= ERR_COUNT || errors[1] >= ERR_COUNT))
        e = ERR_INVALID;
    m.error = (enum err)errors[0];
    m.bounce_error = (enum err)errors[1];
    if (e == ERR_OK)
        e = check_meaning(&m);
    if (e == ERR_OK)
        *m_out = m;
    return e;
}

void wire_held_put(uint8_t *row, uint32_t i, struct queue_id qid, struct segment_id locator)
{
    uint8_t *p = row + (size_t)i * WIRE_HELD_BYTES;
    put64(put64(put64(put64(p, qid.incarnation), qid.counter), locator.incarnation), locator.counter);
}

void wire_held_get(const uint8_t *row, uint32_t i, struct queue_id *qid_out, struct segment_id *locator_out)
{
    const uint8_t *p = row + (size_t)i * WIRE_HELD_BYTES;
    p = get64(get64(p, &qid_out->incarnation), &qid_out->counter);
    get64(get64(p, &locator_out->incarnation), &locator_out->counter);
}
