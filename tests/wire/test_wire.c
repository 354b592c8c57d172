/* SPDX-License-Identifier: Apache-2.0 */
/* The wire's codec against honest and hostile bytes (WIRE-1, WIRE-2, WIRE-4), and its two helpers against a model. */
#include <spoolfs/wire.h>

#include <base/prng.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint8_t noise[WIRE_PAYLOAD_MAX];
static uint8_t encoded[WIRE_MESSAGE_MAX];

static char side_of(enum wire_type t)
{
    return t < WIRE_WELCOME ? 'r' : 's';
}

static struct queue_id some_id(struct prng *p)
{
    return (struct queue_id){prng_next(p) | 1, prng_next(p) & QUEUE_ID_COUNTER_MAX};
}

static struct wire_bytes some_bytes(struct prng *p, uint32_t max)
{
    uint32_t len = (uint32_t)prng_below(p, prng_below(p, 4) ? 64 : max + 1);
    return (struct wire_bytes){noise + prng_below(p, sizeof noise - max), len < max ? len : max};
}

/* Everything its type carries, at random; what it does not carry is left out by the encoder and zero after decoding. */
static struct wire_message some_message(struct prng *p, enum wire_type t)
{
    struct wire_message m = {.type = t, .tag = (uint32_t)prng_next(p), .number = 1 + (uint32_t)prng_below(p, 1000),
                             .error = (enum err)prng_below(p, ERR_COUNT), .qid = some_id(p), .value = prng_next(p),
                             .locator = {prng_next(p), prng_next(p)}, .clock_ms = prng_next(p)};
    if (t == WIRE_HELLO || t == WIRE_WELCOME) {
        m.number = WIRE_VERSION;
        m.clock_ms = WIRE_MAGIC;
    }
    if (t == WIRE_HELD)
        m.marks = (struct wire_bytes){noise, WIRE_HELD_BYTES * (uint32_t)prng_below(p, WIRE_HELD_ROW_MAX + 1)};
    if (t == WIRE_DUE)
        m.marks = some_bytes(p, RECIPIENTS_PER_MESSAGE_MAX);
    if (t == WIRE_APPEND || t == WIRE_DUE)
        m.envelope = some_bytes(p, ENVELOPE_BYTES_MAX);
    if (t == WIRE_APPEND)
        m.flags = WIRE_AGAIN;
    if (t == WIRE_APPEND || t == WIRE_CHUNK || t == WIRE_PIECE || t == WIRE_DOCUMENT_PART || t == WIRE_REPORT)
        m.body = some_bytes(p, CHUNK_BYTES_MAX);
    if (t == WIRE_CHUNK && !m.body.len)
        m.body.len = 1;
    if (t == WIRE_CHUNK)
        m.tag = 0;
    if ((t == WIRE_CHUNK || t == WIRE_CHUNKED) && prng_below(p, 2)) {
        m.flags = WIRE_TRAY;
        m.tag = (uint32_t)prng_below(p, WIRE_TRAYS);
        m.chunk_count = 1 + (uint32_t)prng_below(p, CHUNK_BYTES_MAX);
        m.body.len = 0;
    }
    if (t == WIRE_DOCUMENT)
        m.body = some_bytes(p, WIRE_DOCUMENT_KIND_MAX);
    if (t == WIRE_MARK) {
        m.flags = (uint8_t)(prng_below(p, 2) ? WIRE_RETIRE | WIRE_ENDS : WIRE_BOUNCE | WIRE_AGAIN);
        m.marks = some_bytes(p, 4096);
        if (m.flags & WIRE_BOUNCE) {
            m.bounce = some_id(p);
            m.envelope = some_bytes(p, 1000);
            m.body = some_bytes(p, BODY_INLINE_MAX);
        }
    }
    return m;
}

static void assert_row_equal(struct wire_bytes a, struct wire_bytes b)
{
    assert_int_equal(a.len, b.len);
    if (a.len)
        assert_memory_equal(a.bytes, b.bytes, a.len);
}

static void what_was_encoded_is_decoded(void **state)
{
    (void)state;
    struct prng p = {1};
    for (int round = 0; round < 300; round++)
        for (enum wire_type t = WIRE_NONE + 1; t < WIRE_TYPE_COUNT; t++) {
            struct wire_message m = some_message(&p, t), back;
            uint32_t used, len = wire_encode(encoded, &m);
            assert_int_equal(len, wire_encoded_bytes(&m));
            assert_int_equal(wire_decode(encoded, len, side_of(t), &back, &used), ERR_OK);
            assert_int_equal(used, len);
            assert_int_equal(back.type, t);
            assert_int_equal(back.flags, m.flags);
            assert_row_equal(back.envelope, m.envelope);
            assert_row_equal(back.body, m.body);
            assert_row_equal(back.marks, m.marks);
            uint8_t *again = malloc(len);
            assert_int_equal(wire_encode(again, &back), len);
            assert_memory_equal(again, encoded, len);
            free(again);
        }
}

static void fields_keep_their_values(void **state)
{
    (void)state;
    struct wire_message back, m = {.type = WIRE_APPENDED, .tag = 7, .error = ERR_FULL, .qid = {3, 4}, .locator = {5, 6}};
    uint32_t used, len = wire_encode(encoded, &m);
    assert_int_equal(wire_decode(encoded, len, 's', &back, &used), ERR_OK);
    assert_int_equal(back.tag, 7);
    assert_int_equal(back.error, ERR_FULL);
    assert_true(queue_id_equal(back.qid, m.qid));
    assert_true(segment_id_equal(back.locator, m.locator));
    m = (struct wire_message){.type = WIRE_STATUS, .flags = WIRE_INDEX_READY, .value = UINT64_MAX, .clock_ms = 12345};
    len = wire_encode(encoded, &m);
    assert_int_equal(wire_decode(encoded, len, 's', &back, &used), ERR_OK);
    assert_int_equal(back.value, UINT64_MAX);
    assert_int_equal(back.clock_ms, 12345);
    struct queue_id qid;
    struct segment_id locator;
    uint8_t row[2 * WIRE_HELD_BYTES];
    wire_held_put(row, 1, (struct queue_id){1, 2}, (struct segment_id){3, 4});
    wire_held_get(row, 1, &qid, &locator);
    assert_true(qid.incarnation == 1 && qid.counter == 2 && locator.incarnation == 3 && locator.counter == 4);
}

static void a_message_cut_short_asks_for_more(void **state)
{
    (void)state;
    struct prng p = {2};
    for (enum wire_type t = WIRE_NONE + 1; t < WIRE_TYPE_COUNT; t++) {
        struct wire_message back, m = some_message(&p, t);
        uint32_t used, len = wire_encode(encoded, &m);
        for (uint32_t cut = 0; cut < len; cut += 1 + cut / 16) {
            uint8_t *exact = malloc(cut ? cut : 1); /* the sanitizer sees a read past the end */
            memcpy(exact, encoded, cut);
            assert_int_equal(wire_decode(exact, cut, side_of(t), &back, &used), ERR_SHORT);
            assert_int_equal(used, cut < WIRE_HEAD_BYTES ? 0 : len);
            free(exact);
        }
    }
}

static void garbage_gets_a_verdict(void **state)
{
    (void)state;
    struct prng p = {3};
    for (int round = 0; round < 20000; round++) {
        enum wire_type t = (enum wire_type)(1 + prng_below(&p, WIRE_TYPE_COUNT - 1));
        struct wire_message back, m = some_message(&p, t);
        m.envelope.len = m.envelope.len < 100 ? m.envelope.len : 100;
        m.body.len = m.body.len < 100 ? m.body.len : 100;
        uint32_t used, len = wire_encode(encoded, &m);
        uint8_t *exact = malloc(len);
        memcpy(exact, encoded, len);
        for (uint64_t flips = 1 + prng_below(&p, 4); flips > 0; flips--)
            exact[prng_below(&p, prng_below(&p, 2) ? len : 24 < len ? 24 : len)] = (uint8_t)prng_next(&p);
        enum err e = wire_decode(exact, len, side_of(t), &back, &used);
        assert_true(e == ERR_OK || e == ERR_SHORT || e == ERR_INVALID);
        if (e == ERR_OK) {
            assert_true(used <= len);
            const uint8_t *end = exact + used;
            assert_true(back.envelope.len == 0 || back.envelope.bytes + back.envelope.len <= end);
            assert_true(back.marks.len == 0 || back.marks.bytes + back.marks.len <= end);
            assert_true(back.body.len == 0 || back.body.bytes + back.body.len <= end);
        }
        free(exact);
    }
}

static void each_side_may_say_only_its_own(void **state)
{
    (void)state;
    struct prng p = {4};
    for (enum wire_type t = WIRE_NONE + 1; t < WIRE_TYPE_COUNT; t++) {
        struct wire_message back, m = some_message(&p, t);
        uint32_t used, len = wire_encode(encoded, &m);
        assert_int_equal(wire_decode(encoded, len, side_of(t) == 'r' ? 's' : 'r', &back, &used), ERR_INVALID);
    }
}

static void limits_and_nonsense_are_refused(void **state)
{
    (void)state;
    uint8_t head[WIRE_HEAD_BYTES] = {0xff, 0xff, 0xff, 0x7f, WIRE_REPORT, 0, 0, 0};
    struct wire_message back, m = {.type = WIRE_REPORT, .body = {noise, WIRE_REPORT_BYTES_MAX}};
    uint32_t used, len;
    assert_int_equal(wire_decode(head, sizeof head, 'r', &back, &used), ERR_INVALID);
    len = wire_encode(encoded, &m); /* at the limit */
    assert_int_equal(wire_decode(encoded, len, 'r', &back, &used), ERR_OK);
    encoded[0]++; /* one byte beyond */
    assert_int_equal(wire_decode(encoded, len + 1, 'r', &back, &used), ERR_INVALID);
    m = (struct wire_message){.type = WIRE_APPEND, .qid = {1, 1}, .chunk_count = 1, .body = {noise, 1}};
    len = wire_encode(encoded, &m); /* a body inline and in CHUNKs */
    assert_int_equal(wire_decode(encoded, len, 'r', &back, &used), ERR_INVALID);
    m = (struct wire_message){.type = WIRE_ABORT};
    len = wire_encode(encoded, &m); /* no id */
    assert_int_equal(wire_decode(encoded, len, 'r', &back, &used), ERR_INVALID);
    m = (struct wire_message){.type = WIRE_MARK, .qid = {1, 1}, .envelope = {noise, 5}};
    len = wire_encode(encoded, &m); /* a bounce that is none */
    assert_int_equal(wire_decode(encoded, len, 'r', &back, &used), ERR_INVALID);
    m = (struct wire_message){.type = WIRE_HELLO, .number = WIRE_VERSION + 1, .clock_ms = WIRE_MAGIC};
    len = wire_encode(encoded, &m);
    assert_int_equal(wire_decode(encoded, len, 'r', &back, &used), ERR_INVALID);
}

static void the_table_holds_what_was_added_and_not_removed(void **state)
{
    (void)state;
    struct wire_table t;
    enum { IDS = 5000 };
    static bool in[IDS];
    uint32_t count = 0;
    struct prng p = {5};
    memset(in, 0, sizeof in);
    assert_int_equal(wire_table_make(&t, 3000), ERR_OK);
    for (int round = 0; round < 60000; round++) {
        uint64_t i = prng_below(&p, IDS);
        struct queue_id q = {9, i};
        assert_int_equal(wire_table_find(&t, q) != NULL, in[i]);
        if (in[i] && prng_below(&p, 2)) {
            wire_table_remove(&t, q);
            in[i] = false;
            count--;
        } else if (!in[i]) {
            struct wire_held *h = wire_table_add(&t, q);
            assert_int_equal(h == NULL, count == 3000);
            if (h) {
                h->slot = (uint32_t)i;
                in[i] = true;
                count++;
            }
        } else {
            assert_int_equal(wire_table_find(&t, q)->slot, i);
        }
        assert_int_equal(t.count, count);
    }
    wire_table_clear(&t);
    assert_null(wire_table_find(&t, (struct queue_id){9, 1}));
    wire_table_free(&t);
}

static void the_buffer_refuses_what_does_not_fit_and_loses_nothing(void **state)
{
    (void)state;
    struct wire_buffer b;
    struct prng p = {6};
    uint32_t put = 0, got = 0;
    assert_int_equal(wire_buffer_make(&b, 1000), ERR_OK);
    for (int round = 0; round < 5000; round++) {
        struct wire_message back, m = {.type = WIRE_WANT_IDS, .number = put + 1};
        uint32_t used;
        if (prng_below(&p, 2)) {
            bool fits = wire_buffer_room(&b) >= wire_encoded_bytes(&m);
            assert_int_equal(wire_buffer_put(&b, &m), fits);
            put += fits;
        } else if (wire_buffer_used(&b)) {
            assert_int_equal(wire_decode(wire_buffer_at(&b), wire_buffer_used(&b), 'r', &back, &used), ERR_OK);
            assert_int_equal(back.number, ++got);
            wire_buffer_drop(&b, used);
        }
    }
    wire_buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_is_decoded),
        cmocka_unit_test(fields_keep_their_values),
        cmocka_unit_test(a_message_cut_short_asks_for_more),
        cmocka_unit_test(garbage_gets_a_verdict),
        cmocka_unit_test(each_side_may_say_only_its_own),
        cmocka_unit_test(limits_and_nonsense_are_refused),
        cmocka_unit_test(the_table_holds_what_was_added_and_not_removed),
        cmocka_unit_test(the_buffer_refuses_what_does_not_fit_and_loses_nothing),
    };
    struct prng p = {7};
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)prng_next(&p);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
