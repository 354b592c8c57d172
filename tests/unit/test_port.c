/* SPDX-License-Identifier: Apache-2.0 */
/* The port (PRT-1 to PRT-4): appends, marks, bodies, due, what the administrator says, a relay that breaks the rules.
 * Losses at every point are test_port_loss.c's. */
#include "port_world.h"

static void an_append_is_answered_leased_and_retired(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        append((uint32_t)i * 600);
    run_until(is_quiet);
    for (uint32_t i = 0; i < w.count; i++) {
        assert_int_equal(w.items[i].answers, 1);
        assert_int_equal(w.items[i].e, ERR_OK);
        assert_true(spool_leased(w.pool, w.items[i].qid));
        assert_false(segment_id_is_none(w.items[i].mail->locator));
    }
    assert_int_equal(messages_in_queue(), 100);
    for (uint32_t i = 0; i < w.count; i++)
        mark(w.items[i].mail, true, false);
    assert_int_equal(messages_in_queue(), 0);
    for (uint32_t i = 0; i < w.count; i++)
        assert_false(spool_leased(w.pool, w.items[i].qid));
    assert_int_equal(w.violations, 0);
    assert_int_equal(w.port->held.count, 0);
}

static bool some_due(void) { return w.due_count > 0; }

static void what_was_released_comes_back_when_it_is_due(void **state)
{
    (void)state;
    struct item *i = append(1000);
    run_until(is_quiet);
    port_want_due(w.port, 10);
    mark(i->mail, false, true);
    run_until(some_due);
    assert_int_equal(w.due_count, 1);
    assert_true(queue_id_equal(w.due[0]->qid, i->qid));
    assert_int_equal(w.due[0]->status[0], MARK_DELIVERED);
    assert_int_equal(w.due[0]->status[1], MARK_DEFERRED);
    assert_int_equal(w.due[0]->attempts, 1);
    assert_int_equal(w.due[0]->envelope.recipient_count, 2);
    mark(w.due[0], true, false);
    assert_int_equal(messages_in_queue(), 0);
    assert_int_equal(w.violations, 0);
}

static void a_bounce_takes_the_place_of_its_cause(void **state)
{
    (void)state;
    struct item *i = append(1000);
    run_until(is_quiet);
    retire_with_bounce(i->mail);
    run_until(bounce_answered);
    assert_int_equal(w.bounce_error, ERR_OK);
    assert_true(spool_leased(w.pool, w.bounce->qid));
    assert_false(spool_leased(w.pool, i->qid));
    assert_int_equal(messages_in_queue(), 1);
}

/* --- bodies --- */

static bool on_bytes(struct port_fetch *f, const uint8_t *bytes, uint32_t len)
{
    (void)f;
    w.body = realloc(w.body, w.body_len + len);
    memcpy(w.body + w.body_len, bytes, len);
    w.body_len += len;
    w.pieces++;
    return !w.pause_fetch;
}

static void on_fetched(struct port_fetch *f, enum err e)
{
    (void)f;
    w.fetch_answers++;
    w.fetch_error = e;
}

static struct port_fetch the_fetch;
static bool fetched(void)
{
    if (w.pause_fetch && the_fetch.scratch[3])
        port_fetch_resume(w.port, &the_fetch);
    return w.fetch_answers > 0;
}

static void fetch_and_compare(struct mail *m, uint32_t number, uint64_t body_bytes)
{
    the_fetch = (struct port_fetch){.mail = m, .on_bytes = on_bytes, .done = on_fetched};
    w.body_len = w.pieces = w.fetch_answers = 0;
    port_fetch(w.port, &the_fetch);
    run_until(fetched);
    assert_int_equal(w.fetch_error, ERR_OK);
    assert_int_equal(w.fetch_answers, 1);
    assert_int_equal(w.body_len, body_bytes);
    for (uint64_t i = 0; i < body_bytes; i++)
        if (w.body[i] != body_byte(number, i))
            fail_msg("byte %llu of the body", (unsigned long long)i);
}

static void a_body_is_fetched_as_it_was_appended(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        append(i * 30000);
    run_until(is_quiet);
    for (uint32_t i = 0; i < 3; i++)
        fetch_and_compare(w.items[i].mail, i, i * 30000);
    assert_int_equal(w.violations, 0);
}

/* By turns in a tray and in memory of its own. */
static enum err send_chunks(struct queue_id qid, uint32_t number, uint64_t body_bytes, uint32_t *chunks_out)
{
    static uint8_t own[CHUNK_BYTES_MAX];
    *chunks_out = 0;
    for (uint64_t at = 0; at < body_bytes; at += sizeof own) {
        uint32_t n = body_bytes - at < sizeof own ? (uint32_t)(body_bytes - at) : (uint32_t)sizeof own;
        uint8_t *tray = *chunks_out % 4 != 3 ? port_tray_take(w.port) : NULL, *bytes = tray ? tray : own;
        for (uint32_t i = 0; i < n; i++)
            bytes[i] = body_byte(number, at + i);
        enum err e = port_chunk(w.port, qid, *chunks_out, bytes, n);
        for (int tries = 0; e == ERR_BUSY && tries < 1000; tries++) {
            w.rooms = 0;
            run_until(is_up);
            e = port_chunk(w.port, qid, *chunks_out, bytes, n);
        }
        if (e != ERR_OK && tray)
            port_tray_give(w.port, tray);
        if (e != ERR_OK)
            return e;
        (*chunks_out)++;
    }
    return ERR_OK;
}

static struct item *append_large(uint64_t body_bytes)
{
    struct item *i = &w.items[w.count];
    assert_int_equal(port_take_queue_id(w.port, &i->qid), ERR_OK);
    uint32_t chunks;
    i->answers = 1;
    i->e = send_chunks(i->qid, w.count, body_bytes, &chunks);
    if (i->e != ERR_OK) {
        port_abort(w.port, i->qid);
        return i;
    }
    i->mail = make_mail(i->qid, w.count, body_bytes, true);
    i->mail->chunk_count = chunks;
    i->append = (struct port_append){.mail = i->mail, .done = on_done, .owner = i};
    i->e = port_append(w.port, &i->append);
    i->answers = i->e != ERR_OK;
    w.count++;
    return i;
}

static void a_large_body_streams_both_ways(void **state)
{
    (void)state;
    struct item *i = append_large(9 * MIB + 77);
    run_until(is_quiet);
    assert_int_equal(i->e, ERR_OK);
    assert_int_equal(i->answers, 1);
    fetch_and_compare(i->mail, 0, 9 * MIB + 77);
    w.pause_fetch = true; /* each piece stops it until it is resumed */
    fetch_and_compare(i->mail, 0, 9 * MIB + 77);
    w.pause_fetch = false;
    assert_int_equal(messages_in_queue(), 1);
    assert_int_equal(w.violations, 0);
}

static void a_canceled_fetch_is_not_heard_of_again(void **state)
{
    (void)state;
    struct item *i = append_large(2 * MIB);
    run_until(is_quiet);
    for (uint32_t n = 0; n < 20; n++) {
        the_fetch = (struct port_fetch){.mail = i->mail, .on_bytes = on_bytes, .done = on_fetched};
        w.pieces = w.fetch_answers = 0;
        port_fetch(w.port, &the_fetch);
        for (uint32_t k = 0; k < n; k++) {
            w.until = is_up;
            run_until(is_up);
        }
        if (!w.fetch_answers)
            port_fetch_cancel(w.port, &the_fetch);
        uint32_t pieces = w.pieces, answers = w.fetch_answers;
        for (uint32_t k = 0; k < 50; k++)
            run_until(is_up);
        assert_int_equal(w.pieces, pieces);
        assert_int_equal(w.fetch_answers, answers);
    }
    fetch_and_compare(i->mail, 0, 2 * MIB);
    assert_int_equal(w.violations, 0);
}

static bool is_lost(void) { return !port_status(w.port).connected; }

/* How many trays are at hand; they are given back at once. */
static uint32_t trays_free(void)
{
    static uint8_t *taken[WIRE_TRAYS + 1];
    uint32_t n = 0;
    while (n <= WIRE_TRAYS && (taken[n] = port_tray_take(w.port)) != NULL)
        n++;
    for (uint32_t i = n; i > 0; i--)
        port_tray_give(w.port, taken[i - 1]);
    return n;
}

static void trays_come_back_with_the_answer_or_the_loss(void **state)
{
    (void)state;
    uint32_t chunks;
    struct queue_id qid;
    assert_int_equal(trays_free(), WIRE_TRAYS);
    append_large(9 * MIB + 77);
    run_until(is_quiet);
    assert_int_equal(trays_free(), WIRE_TRAYS);
    assert_int_equal(port_take_queue_id(w.port, &qid), ERR_OK);
    assert_int_equal(send_chunks(qid, 0, 1000000, &chunks), ERR_OK);
    assert_int_equal(trays_free(), WIRE_TRAYS - 12);
    uint8_t *mine = port_tray_take(w.port);
    crash_spool();
    run_until(is_lost);
    assert_null(port_tray_take(w.port)); /* PRT-5 */
    attach();
    run_until(is_idle_and_ready);
    assert_int_equal(trays_free(), WIRE_TRAYS - 1);
    port_tray_give(w.port, mine);
    port_abort(w.port, qid);
    assert_int_equal(w.violations, 0);
}

static void an_answer_for_a_tray_that_was_not_sent_ends_the_connection(void **state)
{
    (void)state;
    for (uint32_t tag = 0; tag <= WIRE_TRAYS; tag += WIRE_TRAYS / 2) {
        uint8_t bytes[256], byte = 1;
        struct queue_id qid;
        assert_int_equal(port_take_queue_id(w.port, &qid), ERR_OK);
        assert_int_equal(port_chunk(w.port, qid, 0, &byte, 1), ERR_OK);
        const struct wire_message m = {.type = WIRE_CHUNKED, .qid = qid, .flags = WIRE_TRAY, .tag = tag, .chunk_count = 1};
        uint32_t len = wire_encode(bytes, &m);
        assert_int_equal(write(w.fd, bytes, len), len);
        run_until(is_lost);
        attach();
        run_until(is_idle_and_ready);
        assert_int_equal(trays_free(), WIRE_TRAYS);
    }
}

/* --- losses --- */

static void a_fetch_goes_on_where_the_connection_was_lost(void **state)
{
    (void)state;
    struct item *i = append_large(5 * MIB);
    run_until(is_quiet);
    for (int64_t at = 1; at < (int64_t)(5 * MIB); at += 700001) {
        w.cut_out = at;
        w.restart_on_cut = at % 2 == 0;
        fetch_and_compare(i->mail, 0, 5 * MIB);
        w.cut_out = -1;
    }
    assert_true(w.cuts >= 7);
    assert_int_equal(w.violations, 0);
}

static void a_message_whose_chunks_went_to_a_dead_spool_fails(void **state)
{
    (void)state;
    uint32_t chunks;
    struct queue_id qid;
    assert_int_equal(port_take_queue_id(w.port, &qid), ERR_OK);
    assert_int_equal(send_chunks(qid, 0, 200000, &chunks), ERR_OK);
    run_until(is_quiet);
    crash_spool();
    attach();
    run_until(is_idle_and_ready);
    uint8_t byte = 0;
    assert_int_equal(port_chunk(w.port, qid, chunks, &byte, 1), ERR_SPOOL_GONE);
    struct item *i = &w.items[w.count++];
    i->mail = make_mail(qid, 0, 200000, true);
    i->mail->chunk_count = chunks;
    i->append = (struct port_append){.mail = i->mail, .done = on_done, .owner = i};
    assert_int_equal(port_append(w.port, &i->append), ERR_SPOOL_GONE);
    port_abort(w.port, qid);
    assert_int_equal(messages_in_queue(), 0);
}

static bool was_cut(void) { return w.cuts > 0; }
static bool is_presented_again(void) { return !link_empty(&w.port->appends_sent); }
static bool lost_append_answered(void) { return w.items[0].answers > 0; }

static void an_append_without_an_answer_fails_and_is_taken_back_when_it_was_stored(void **state)
{
    (void)state;
    w.cut_out = 1; /* what the spool says next is lost: the append is stored, its sender does not know */
    struct item *i = append(5000);
    run_until(was_cut);
    w.freeze = true; /* the spool hangs when it is presented again */
    run_until(is_presented_again);
    i->append.scratch[2] = 1; /* as if the loss were long ago (PRT-1) */
    run_until(lost_append_answered);
    assert_int_equal(i->e, ERR_SPOOL_GONE);
    w.freeze = false;
    assert_int_equal(messages_in_queue(), 0);
    assert_int_equal(i->answers, 1);
    assert_int_equal(w.violations, 0);
}

static void ids_taken_before_a_restart_of_the_spool_may_be_appended_after_it(void **state)
{
    (void)state;
    struct item *i = &w.items[w.count++];
    assert_int_equal(port_take_queue_id(w.port, &i->qid), ERR_OK);
    crash_spool();
    attach();
    run_until(is_idle_and_ready);
    i->mail = make_mail(i->qid, 0, 100, false);
    i->append = (struct port_append){.mail = i->mail, .done = on_done, .owner = i};
    assert_int_equal(port_append(w.port, &i->append), ERR_OK);
    assert_int_equal(messages_in_queue(), 1);
    assert_int_equal(i->e, ERR_OK);
    assert_int_equal(w.violations, 0);
}

static void a_relay_that_does_not_come_back_loses_its_leases(void **state)
{
    (void)state;
    struct item *i = append(10);
    run_until(is_quiet);
    hang_up();
    for (int n = 0; n < 40000 && spool_leased(w.pool, i->qid); n++) {
        io_turn(&w.ram.io, 1000000);
        pool_step(w.pool);
        wire_server_step(w.server);
    }
    assert_false(spool_leased(w.pool, i->qid));
}

static bool all_due(void) { return w.due_count >= w.count && is_quiet(); }

static void release_all_and_take_them_back(void)
{
    for (int i = 0; i < 20; i++)
        append(100);
    run_until(is_quiet);
    for (uint32_t i = 0; i < w.count; i++)
        mark(w.items[i].mail, false, true);
    port_want_due(w.port, 100);
    run_until(all_due);
    assert_int_equal(w.due_count, w.count);
}

static void due_mail_held_over_a_restart_of_the_spool_is_not_handed_out_again(void **state)
{
    (void)state;
    release_all_and_take_them_back();
    for (int n = 0; n < 3; n++) {
        crash_spool();
        attach();
        run_until(is_idle_and_ready);
        for (int k = 0; k < 3000; k++)
            spool_turn(); /* seconds of the spool's time: it looks for due mail all along */
        run_until(is_quiet);
        assert_int_equal(w.due_count, w.count);
    }
    for (uint32_t i = 0; i < w.due_count; i++)
        mark(w.due[i], true, false);
    assert_int_equal(messages_in_queue(), 0);
    assert_int_equal(w.violations, 0);
}

static void a_new_relay_is_given_what_the_old_one_held(void **state)
{
    (void)state;
    const struct port_callbacks cb = {.on_due = keep_due, .on_status = on_status, .on_room = on_room,
                                      .on_recall = on_recall, .on_flush = on_flush};
    for (int i = 0; i < 20; i++)
        append(100);
    run_until(is_quiet);
    port_close(&w.port); /* kill -9 */
    assert_int_equal(port_open(w.loop, &cb, &w.port), ERR_OK);
    attach();
    port_want_due(w.port, 100);
    run_until(all_due);
    assert_int_equal(w.due_count, w.count);
    for (uint32_t i = 0; i < w.due_count; i++)
        mark(w.due[i], true, false);
    assert_int_equal(messages_in_queue(), 0);
    assert_int_equal(w.violations, 0);
}

static bool was_recalled(void) { return w.recalls > 0 && w.flushes > 0; }
static bool has_document(void) { return w.documents > 0; }
static void on_document_bytes(void *owner, enum err e, const char *bytes, uint32_t len)
{
    w.documents++;
    assert_int_equal(e, *(enum err *)owner);
    assert_int_equal(len, e == ERR_OK ? 200000 : 0);
    if (len)
        assert_true(bytes[0] == 's' && bytes[len - 1] == 's');
}

static void the_administrator_and_the_status_page_are_served(void **state)
{
    (void)state;
    enum err expected = ERR_OK;
    struct item *i = append(10);
    run_until(is_quiet);
    wire_server_recall(w.server, i->qid);
    wire_server_flush(w.server);
    run_until(was_recalled);
    assert_true(queue_id_equal(w.recalled, i->qid));
    assert_int_equal(port_document(w.port, "status", &expected, on_document_bytes), ERR_OK);
    run_until(has_document);
    expected = ERR_NOT_FOUND;
    w.documents = 0;
    assert_int_equal(port_document(w.port, "nothing", &expected, on_document_bytes), ERR_OK);
    run_until(has_document);
}

static void reservations_are_admitted_only_as_far_as_there_is_space(void **state)
{
    (void)state;
    uint64_t room = port_status(w.port).free_bytes;
    assert_true(room > 0);
    assert_int_equal(port_reserve(w.port, room), ERR_OK);
    assert_int_equal(port_reserve(w.port, 1), ERR_FULL);
    port_unreserve(w.port, room);
    assert_int_equal(port_reserve(w.port, 1), ERR_OK);
    port_unreserve(w.port, 1);
}

/* --- a relay that is not ours (SRV-1) --- */

static bool is_dropped(void) { return w.violations > 0; }

static void is_violation(const struct wire_message *m)
{
    teardown(NULL);
    setup(NULL);
    struct item *i = append(10);
    run_until(is_quiet);
    struct wire_message evil = *m;
    if (evil.qid.incarnation == 1)
        evil.qid.incarnation = w.port->incarnation;
    if (evil.qid.counter == 0)
        evil.qid = i->qid;
    port_say(w.port, &evil);
    run_until(is_dropped);
}

static void what_breaks_the_rules_is_dropped(void **state)
{
    (void)state;
    static const uint8_t byte[1] = {0};
    uint64_t far = QUEUE_ID_COUNTER_MAX - 5;
    is_violation(&(struct wire_message){.type = WIRE_APPEND, .qid = {1, far}, .envelope = {byte, 1}}); /* not lent */
    is_violation(&(struct wire_message){.type = WIRE_APPEND, .qid = {77, 5}, .envelope = {byte, 1}});  /* not ours */
    is_violation(&(struct wire_message){.type = WIRE_APPEND, .qid = {1, 0}, .envelope = {byte, 1}});   /* stored already */
    is_violation(&(struct wire_message){.type = WIRE_CHUNK, .qid = {1, 0}, .body = {byte, 1}});
    is_violation(&(struct wire_message){.type = WIRE_MARK, .qid = {1, far}, .flags = WIRE_RETIRE | WIRE_ENDS}); /* not leased */
    is_violation(&(struct wire_message){.type = WIRE_MARK, .qid = {1, 0}, .marks = {byte, 1}});        /* malformed */
    is_violation(&(struct wire_message){.type = WIRE_FETCH, .qid = {1, far}});
    is_violation(&(struct wire_message){.type = WIRE_FETCH, .qid = {1, 0}, .tag = WIRE_FETCHES_MAX});
    is_violation(&(struct wire_message){.type = WIRE_PRESENTED});
    is_violation(&(struct wire_message){.type = WIRE_HELD, .marks = {byte, 0}});
    is_violation(&(struct wire_message){.type = WIRE_WANT_IDS, .number = WIRE_QUEUE_IDS_LENT + 1});
    is_violation(&(struct wire_message){.type = WIRE_FLUSH}); /* only a spool says this */
    is_violation(&(struct wire_message){.type = WIRE_HELLO, .number = WIRE_VERSION, .clock_ms = WIRE_MAGIC});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(an_append_is_answered_leased_and_retired),
        T(what_was_released_comes_back_when_it_is_due),
        T(a_bounce_takes_the_place_of_its_cause),
        T(a_body_is_fetched_as_it_was_appended),
        T(a_large_body_streams_both_ways),
        T(trays_come_back_with_the_answer_or_the_loss),
        T(an_answer_for_a_tray_that_was_not_sent_ends_the_connection),
        T(a_canceled_fetch_is_not_heard_of_again),
        T(a_fetch_goes_on_where_the_connection_was_lost),
        T(a_message_whose_chunks_went_to_a_dead_spool_fails),
        T(an_append_without_an_answer_fails_and_is_taken_back_when_it_was_stored),
        T(ids_taken_before_a_restart_of_the_spool_may_be_appended_after_it),
        T(a_relay_that_does_not_come_back_loses_its_leases),
        T(due_mail_held_over_a_restart_of_the_spool_is_not_handed_out_again),
        T(a_new_relay_is_given_what_the_old_one_held),
        T(the_administrator_and_the_status_page_are_served),
        T(reservations_are_admitted_only_as_far_as_there_is_space),
        T(what_breaks_the_rules_is_dropped),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
