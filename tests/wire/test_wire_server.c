/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's end of the wire against a relay that says what it likes: random and mutated messages, credits and buffers
 * at their limits, due under pauses and backpressure, an engine without room. A real engine is behind it. */
#include "wire_world.h"

static uint32_t misplaced; /* so many reads come too late: what they ask for lies elsewhere by then */
void __real_spool_read(struct pool *pool, struct spool_read *r);
void __wrap_spool_read(struct pool *pool, struct spool_read *r);
void __wrap_spool_read(struct pool *pool, struct spool_read *r)
{
    if (misplaced > 0) {
        misplaced--;
        r->place.segment.counter += 1000000;
    }
    __real_spool_read(pool, r);
}

static void nothing_is_said_before_hello(void **state)
{
    (void)state;
    wire_server_connect(w.s);
    turns(10);
    uint32_t len;
    wire_server_output(w.s, &len);
    assert_int_equal(len, 0);
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 1});
    assert_false(wire_server_connected(w.s));
}

static void nothing_is_due_before_all_is_presented(void **state)
{
    (void)state;
    connect_and_present();
    store("b@example.net", 100);
    wire_server_disconnect(w.s);
    connect_only();
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 10});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 0); /* SRV-4 */
    say(&(struct wire_message){.type = WIRE_PRESENTED});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 1); /* it was not presented: its lease has ended */
}

static void due_is_handed_out_within_the_credit_and_not_for_paused_destinations(void **state)
{
    (void)state;
    connect_and_present();
    for (int i = 0; i < 10; i++) {
        struct queue_id a = store("b@paused.example", 10), b = store("c@open.example", 10);
        say(&(struct wire_message){.type = WIRE_MARK, .qid = a, .flags = WIRE_ENDS});
        say(&(struct wire_message){.type = WIRE_MARK, .qid = b, .flags = WIRE_ENDS});
    }
    uint64_t destination = envelope_destination("b@paused.example", 16);
    say(&(struct wire_message){.type = WIRE_PAUSE, .value = destination, .number = 60000});
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 7});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 7);
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 100});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 10);
    say(&(struct wire_message){.type = WIRE_PAUSE, .value = destination, .number = 0});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 20);
    for (uint32_t i = 0; i < 20; i++) /* each once */
        for (uint32_t k = 0; k < i; k++)
            assert_false(queue_id_equal(w.due[i], w.due[k]));
}

static void while_the_pool_is_degraded_the_mail_with_the_fewest_images_is_due_first(void **state)
{
    (void)state;
    uint32_t single = 0;
    connect_and_present();
    struct queue_id stored[100];
    for (int i = 0; i < 100; i++) { /* all at once: more than two segments hold, so that members differ */
        stored[i] = take_id();
        struct wire_message m = append_of(stored[i], "b@example.net", 60000);
        say(&m);
    }
    for (int i = 0; i < 1000 && w.heard[WIRE_APPENDED] < 100; i++)
        turn();
    for (int i = 0; i < 100; i++)
        say(&(struct wire_message){.type = WIRE_MARK, .qid = stored[i], .flags = WIRE_ENDS});
    turns(10);
    rebuild_pause(w.pool, true);
    w.ram.targets[1].present = false;
    store("b@example.net", 100);
    turns(6000);
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 1}); /* shows the spool that there is risk */
    turns(3000);
    say(&(struct wire_message){.type = WIRE_WANT_DUE, .number = 200});
    turns(3000);
    assert_int_equal(w.heard[WIRE_DUE], 100);
    for (uint32_t i = 1; i < 100; i++) {
        assert_true(w.due_images[i] == 1 || w.due_images[i] == 2);
        single += w.due_images[i] == 1;
        assert_true(i == 1 || w.due_images[i] >= w.due_images[i - 1]);
    }
    assert_true(single > 0 && single < 99); /* else this test shows nothing */
}

static void a_lease_ends_with_the_last_group_of_the_message(void **state)
{
    (void)state;
    uint8_t marks[64];
    uint32_t len;
    connect_and_present();
    struct queue_id qid = store("b@example.net", 10);
    const struct mark delivered = {.recipient = 0, .status = MARK_DELIVERED};
    assert_int_equal(mark_encode(marks, sizeof marks, &delivered, 1, &len), ERR_OK);
    w.ram.held[0] = w.ram.held[1] = true;
    say(&(struct wire_message){.type = WIRE_MARK, .qid = qid, .marks = {marks, len}});
    say(&(struct wire_message){.type = WIRE_MARK, .qid = qid, .flags = WIRE_ENDS});
    turns(3);
    assert_true(spool_leased(w.pool, qid)); /* its results are not in the log yet */
    w.ram.held[0] = w.ram.held[1] = false;
    turns(20);
    assert_false(spool_leased(w.pool, qid));
    assert_int_equal(w.heard[WIRE_MARKED], 2);
}

static void one_connection_replaces_the_other_only_when_its_groups_are_back(void **state)
{
    (void)state;
    connect_and_present();
    struct queue_id qid = take_id();
    struct wire_message m = append_of(qid, "b@example.net", 100);
    w.ram.held[0] = w.ram.held[1] = true;
    say(&m);
    turns(3);
    wire_server_connect(w.s);
    say(&(struct wire_message){.type = WIRE_HELLO, .number = WIRE_VERSION, .clock_ms = WIRE_MAGIC});
    turns(3);
    assert_int_equal(w.heard[WIRE_WELCOME], 1);
    w.ram.held[0] = w.ram.held[1] = false;
    turns(10);
    assert_int_equal(w.heard[WIRE_WELCOME], 2);
    assert_int_equal(w.heard[WIRE_APPENDED], 0);
    m.flags = WIRE_AGAIN;
    say(&m);
    turns(3);
    assert_int_equal(w.heard[WIRE_APPENDED], 1); /* known: nothing is written again */
    assert_int_equal(w.last_error, ERR_OK);
}

/* One more than the credit, while the engine answers nothing. */
static void is_dropped_after(uint32_t credit, const struct wire_message *m, bool fresh_ids)
{
    static uint8_t bytes[4096];
    for (uint32_t i = 0; i <= credit; i++) {
        struct wire_message one = *m;
        if (fresh_ids)
            one.qid = (struct queue_id){w.lent.incarnation, w.lent.counter + i};
        if (m->type == WIRE_CHUNK)
            one.number = i;
        uint32_t len = wire_encode(bytes, &one), room;
        uint8_t *at = wire_server_input(w.s, &room);
        assert_true(room >= len);
        memcpy(at, bytes, len);
        assert_int_equal(w.dropped, 0);
        wire_server_received(w.s, len);
    }
    assert_int_equal(w.dropped, 1);
    assert_false(wire_server_connected(w.s));
}

static void appends_beyond_the_credit_end_the_connection(void **state)
{
    (void)state;
    connect_and_present();
    say(&(struct wire_message){.type = WIRE_WANT_IDS, .number = WIRE_QUEUE_IDS_LENT});
    turns(2);
    struct wire_message m = append_of((struct queue_id){1, 1}, "b@example.net", 1);
    w.lent.counter -= 1; /* of the range before: ids enough for one more than the credit */
    is_dropped_after(WIRE_APPENDS_MAX, &m, true);
}

static void chunks_beyond_the_credit_end_the_connection(void **state)
{
    (void)state;
    connect_and_present();
    is_dropped_after(WIRE_CHUNKS_MAX, &(struct wire_message){.type = WIRE_CHUNK, .qid = take_id(), .body = {body, 1}}, false);
}

static void what_a_tray_held_when_it_was_named_is_what_is_stored(void **state)
{
    (void)state;
    connect_and_present();
    struct queue_id qid = take_id();
    uint8_t *tray = trays + (size_t)(WIRE_TRAYS - 1) * CHUNK_BYTES_MAX;
    memset(tray, 'm', CHUNK_BYTES_MAX);
    say(&(struct wire_message){.type = WIRE_CHUNK, .qid = qid, .flags = WIRE_TRAY, .tag = WIRE_TRAYS - 1, .chunk_count = 30000});
    memset(tray, 'x', CHUNK_BYTES_MAX); /* a relay that is not ours (WIRE-5) */
    say(&(struct wire_message){.type = WIRE_CHUNK, .qid = qid, .number = 1, .body = {body, 10}});
    turns(10);
    assert_int_equal(w.heard[WIRE_CHUNKED], 2);
    assert_int_equal(w.last_error, ERR_OK);
    struct wire_message m = append_of(qid, "b@example.net", 30010);
    m.chunk_count = 2;
    m.body = (struct wire_bytes){0};
    say(&m);
    turns(10);
    assert_int_equal(w.heard[WIRE_APPENDED], 1);
    assert_int_equal(w.last_error, ERR_OK);
    say(&(struct wire_message){.type = WIRE_FETCH, .qid = qid});
    turns(200);
    assert_int_equal(w.pieces_len, 30010);
    for (uint32_t i = 0; i < 30000; i++)
        assert_int_equal(w.pieces[i], 'm');
    assert_int_equal(w.dropped, 0);
}

/* EXC-5, and CHUNKs, which no lease holds fast. */
static void a_body_that_moved_after_it_was_looked_up_is_looked_up_again(void **state)
{
    (void)state;
    connect_and_present();
    struct queue_id large = take_id(), small = store("b@example.net", 100);
    for (uint32_t i = 0; i < 2; i++)
        say(&(struct wire_message){.type = WIRE_CHUNK, .qid = large, .number = i, .body = {body, i ? 10 : 30000}});
    struct wire_message m = append_of(large, "b@example.net", 30010);
    m.chunk_count = 2;
    m.body = (struct wire_bytes){0};
    say(&m);
    turns(10);
    assert_int_equal(w.heard[WIRE_APPENDED], 2);
    misplaced = 2;
    say(&(struct wire_message){.type = WIRE_FETCH, .qid = small});
    turns(500);
    assert_int_equal(misplaced, 0);
    assert_int_equal(w.piece_error, ERR_OK);
    assert_int_equal(w.pieces_len, 100);
    misplaced = 2;
    say(&(struct wire_message){.type = WIRE_FETCH, .qid = large});
    turns(500);
    assert_int_equal(misplaced, 0);
    assert_int_equal(w.piece_error, ERR_OK);
    assert_int_equal(w.pieces_len, 100 + 30010); /* each part once */
    misplaced = UINT32_MAX; /* not for ever: the relay is told to come again */
    say(&(struct wire_message){.type = WIRE_FETCH, .qid = small});
    for (uint32_t i = 0; i < 100000 && w.piece_error == ERR_OK; i++)
        turn();
    misplaced = 0;
    assert_int_equal(w.piece_error, ERR_INDEX_LAG);
    assert_int_equal(w.dropped, 0);
}

static void a_tray_of_a_memory_that_is_not_shared_ends_the_connection(void **state)
{
    (void)state;
    connect_and_present();
    say(&(struct wire_message){.type = WIRE_CHUNK, .qid = take_id(), .flags = WIRE_TRAY, .chunk_count = 1});
    assert_int_equal(w.dropped, 1);
    assert_false(wire_server_connected(w.s));
}

static void marks_beyond_the_credit_end_the_connection(void **state)
{
    (void)state;
    uint8_t marks[64];
    uint32_t len;
    const struct mark deferred = {.status = MARK_DEFERRED};
    connect_and_present();
    assert_int_equal(mark_encode(marks, sizeof marks, &deferred, 1, &len), ERR_OK);
    struct queue_id qid = store("b@example.net", 1);
    is_dropped_after(WIRE_MARKS_MAX, &(struct wire_message){.type = WIRE_MARK, .qid = qid, .marks = {marks, len}}, false);
}

static void a_full_engine_stops_the_reading_and_loses_nothing(void **state)
{
    (void)state;
    connect_and_present();
    enum { MAILS = 120 };
    for (uint32_t i = 0; i < MAILS; i++) { /* 7.5 MiB at once: more than the open frames take */
        struct wire_message m = append_of(take_id(), "b@example.net", sizeof body - 1024);
        say(&m);
    }
    turns(500);
    assert_int_equal(w.heard[WIRE_APPENDED], MAILS);
    assert_int_equal(w.last_error, ERR_OK);
    assert_int_equal(w.dropped, 0);
    assert_int_equal(w.s->append_bytes, 0);
}

static void who_does_not_read_stops_being_heard_and_costs_bounded_memory(void **state)
{
    (void)state;
    connect_and_present();
    w.deaf = true;
    uint32_t said = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        static uint8_t bytes[64];
        struct wire_message m = {.type = WIRE_WANT_IDS, .number = 1};
        uint32_t len = wire_encode(bytes, &m), room;
        uint8_t *at = wire_server_input(w.s, &room);
        if (room < len)
            break;
        memcpy(at, bytes, len);
        wire_server_received(w.s, len);
        said++;
    }
    assert_true(said < 200000);
    assert_true(wire_buffer_used(&w.s->out) <= SERVER_OUT_BYTES);
    w.deaf = false;
    turns(20);
    assert_int_equal(w.heard[WIRE_LEND], said + 1); /* in the end all are answered */
}

static void an_envelope_that_lies_is_refused(void **state)
{
    (void)state;
    connect_and_present();
    struct wire_message m = append_of(take_id(), "b@example.net", 100);
    m.body.len = 99;
    say(&m);
    turns(3);
    assert_int_equal(w.last_error, ERR_INVALID);
    m = append_of(take_id(), "b@example.net", 100);
    m.envelope.len--;
    say(&m);
    turns(3);
    assert_int_equal(w.last_error, ERR_INVALID);
    assert_int_equal(w.dropped, 0);
}

static void what_only_the_index_can_judge_is_answered_later_while_there_is_none(void **state)
{
    (void)state;
    connect_only();
    uint8_t row[WIRE_HELD_BYTES];
    wire_held_put(row, 0, (struct queue_id){7, 7}, (struct segment_id){7, 1});
    say(&(struct wire_message){.type = WIRE_HELD, .marks = {row, sizeof row}});
    say(&(struct wire_message){.type = WIRE_PRESENTED});
    struct wire_message m = append_of((struct queue_id){7, 8}, "b@example.net", 100); /* of an earlier spool */
    m.flags = WIRE_AGAIN;
    say(&m);
    say(&(struct wire_message){.type = WIRE_MARK, .qid = {7, 7}, .flags = WIRE_AGAIN | WIRE_RETIRE | WIRE_ENDS});
    turns(100);
    assert_int_equal(w.heard[WIRE_MARKED], 1);
    assert_int_equal(w.last_error, ERR_BUSY); /* where it lies is not known: the relay tries again */
    assert_int_equal(w.heard[WIRE_APPENDED], 0);
    store("c@example.net", 100); /* new mail is not held up */
    uint32_t before = w.heard[WIRE_APPENDED];
    for (int i = 0; i < 40000 && w.heard[WIRE_APPENDED] == before; i++)
        turn();
    assert_int_equal(w.heard[WIRE_APPENDED], before + 1);
    assert_int_equal(w.last_error, ERR_INDEX_LAG);
    assert_int_equal(w.s->again_bytes, 0);
    assert_int_equal(w.dropped, 0);
}

/* --- noise: nothing it says breaks the spool, and what honest relays stored is still there --- */

static struct wire_message some_message(struct prng *p)
{
    static uint8_t marks[64], row[WIRE_HELD_BYTES];
    static const enum wire_type types[] = {WIRE_HELD, WIRE_PRESENTED, WIRE_WANT_IDS, WIRE_APPEND, WIRE_CHUNK, WIRE_ABORT,
                                           WIRE_MARK, WIRE_RELEASE, WIRE_WANT_DUE, WIRE_FETCH, WIRE_FETCH_MORE,
                                           WIRE_FETCH_END, WIRE_PAUSE, WIRE_REPORT, WIRE_DOCUMENT};
    struct queue_id qid = {w.lent.incarnation, w.lent.counter + prng_below(p, 30) - 15};
    enum wire_type t = types[prng_below(p, sizeof types / sizeof types[0])];
    struct wire_message m = {.type = t, .qid = qid, .tag = (uint32_t)prng_below(p, 4), .number = (uint32_t)prng_below(p, 3),
                             .locator = {w.lent.incarnation, prng_below(p, 5)}, .value = prng_below(p, 9)};
    const struct mark one = {.recipient = (uint32_t)prng_below(p, 3), .status = (enum mark_status)(1 + prng_below(p, 4))};
    uint32_t len = 0;
    if (t == WIRE_APPEND) {
        m = append_of(qid, "b@example.net", (uint32_t)prng_below(p, 3000));
        m.flags = prng_below(p, 2) ? WIRE_AGAIN : 0;
        m.chunk_count = prng_below(p, 4) ? 0 : (uint32_t)prng_below(p, 3);
        m.body.len = m.chunk_count ? 0 : m.body.len;
    } else if (t == WIRE_CHUNK) {
        m.flags = prng_below(p, 2) ? WIRE_TRAY : 0;
        m.tag = m.flags ? (uint32_t)prng_below(p, WIRE_TRAYS) : 0;
        uint32_t bytes = 1 + (uint32_t)prng_below(p, 5000);
        m.chunk_count = m.flags ? bytes : 0;
        m.body = (struct wire_bytes){body, m.flags ? 0 : bytes};
    } else if (t == WIRE_MARK) {
        m.flags = (uint8_t)prng_below(p, 8);
        if (mark_encode(marks, sizeof marks, &one, 1, &len) == ERR_OK && prng_below(p, 2))
            m.marks = (struct wire_bytes){marks, len};
        if (prng_below(p, 3) == 0) {
            struct wire_message b = append_of(qid, "d@example.net", 100);
            m.flags |= WIRE_BOUNCE;
            m.bounce = (struct queue_id){w.lent.incarnation, w.lent.counter + prng_below(p, 30)};
            m.envelope = b.envelope;
            m.body = b.body;
        }
    } else if (t == WIRE_HELD) {
        wire_held_put(row, 0, qid, m.locator);
        m.marks = (struct wire_bytes){row, sizeof row};
    }
    return m;
}

static void noise_breaks_nothing(void **state)
{
    (void)state;
    static uint8_t bytes[WIRE_MESSAGE_MAX];
    uint32_t drops = 0, answers = 0;
    for (uint32_t round = 0; round < 1500; round++) {
        struct prng p = {round + 1};
        if (!wire_server_connected(w.s)) {
            connect_only();
            drops++;
        }
        if (prng_below(&p, 2))
            say(&(struct wire_message){.type = WIRE_PRESENTED});
        for (uint32_t n = 0; n < 12 && wire_server_connected(w.s); n++) {
            struct wire_message m = some_message(&p);
            uint32_t len = wire_encode(bytes, &m);
            if (prng_below(&p, 40) == 0)
                bytes[prng_below(&p, len)] ^= (uint8_t)(1u << prng_below(&p, 8));
            if (prng_below(&p, 60) == 0)
                wire_server_connect(w.s);
            say_bytes(bytes, len);
            if (prng_below(&p, 3) == 0)
                turns((uint32_t)prng_below(&p, 4));
            wire_server_step(w.s);
            if (wire_server_connected(w.s))
                listen_all();
        }
        turns(2);
        answers = w.heard[WIRE_APPENDED];
    }
    assert_true(drops > 100 && answers > 100);
    wire_server_disconnect(w.s);
    connect_only();
    say(&(struct wire_message){.type = WIRE_PRESENTED});
    turns(5);
    store("b@example.net", 1000); /* and it still works */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(nothing_is_said_before_hello),
        T(nothing_is_due_before_all_is_presented),
        T(due_is_handed_out_within_the_credit_and_not_for_paused_destinations),
        cmocka_unit_test_setup_teardown(while_the_pool_is_degraded_the_mail_with_the_fewest_images_is_due_first,
                                        setup_four_members, teardown),
        T(a_lease_ends_with_the_last_group_of_the_message),
        T(one_connection_replaces_the_other_only_when_its_groups_are_back),
        T(appends_beyond_the_credit_end_the_connection),
        T(chunks_beyond_the_credit_end_the_connection),
        T(what_a_tray_held_when_it_was_named_is_what_is_stored),
        T(a_body_that_moved_after_it_was_looked_up_is_looked_up_again),
        cmocka_unit_test_setup_teardown(a_tray_of_a_memory_that_is_not_shared_ends_the_connection, setup_without_trays, teardown),
        T(marks_beyond_the_credit_end_the_connection),
        T(a_full_engine_stops_the_reading_and_loses_nothing),
        T(who_does_not_read_stops_being_heard_and_costs_bounded_memory),
        T(an_envelope_that_lies_is_refused),
        cmocka_unit_test_setup_teardown(what_only_the_index_can_judge_is_answered_later_while_there_is_none,
                                        setup_without_index, teardown),
        T(noise_breaks_nothing),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
