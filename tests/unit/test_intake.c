/* SPDX-License-Identifier: Apache-2.0 */
/* Intake against a fake port: what is stored, what is reserved and given back (INT-4), what happens at every place
 * where the spool may say no, and that what does not fit the spool's credit waits with the client (INT-2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <fake_port.h>

#include "intake.h"
#include "log.h"

static struct settings settings;
static struct loop *loop;
static struct intake *intake;

static struct {
    unsigned go_ons, dones, accepted;
    enum err e;
    char qid[QUEUE_ID_TEXT];
    struct mail *mail;
    struct intake_transaction *t;
} seen;

static const struct intake_client client = {
    .name = "unknown",
    .address = "192.0.2.7",
    .helo = "cli(ent).test",
    .tls = "TLSv1.3 with cipher X (256/256 bits)",
    .esmtp = true,
};

static void on_accepted(void *owner, struct mail *mail)
{
    assert_ptr_equal(owner, &seen);
    mail_unref(&seen.mail);
    seen.mail = mail;
    seen.accepted++;
}

static void go_on(void *owner)
{
    assert_ptr_equal(owner, &seen);
    seen.go_ons++;
}

static void done(void *owner, enum err e, const char *queue_id)
{
    assert_ptr_equal(owner, &seen);
    seen.dones++;
    seen.e = e;
    seen.t = NULL;
    snprintf(seen.qid, sizeof seen.qid, "%s", queue_id);
}

static const struct intake_callbacks callbacks = {.go_on = go_on, .done = done};

static int setup(void **state)
{
    (void)state;
    fake_port_reset();
    memset(&seen, 0, sizeof seen);
    settings = (struct settings){.hostname = "mx.test", .mail_name = "Ironspool", .message_size_limit = 10240000,
                                 .fresh_bytes_max = 16 * MIB};
    assert_int_equal(loop_open(&loop), ERR_OK);
    assert_int_equal(log_open(loop, "ironspool", "/dev/null"), ERR_OK);
    struct intake_deps deps = {loop, &fake.port, &seen, on_accepted};
    assert_int_equal(intake_open(&deps, &intake), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mail_unref(&seen.mail);
    intake_close(&intake);
    log_close();
    loop_close(&loop);
    fake_port_reset();
    assert_int_equal(mail_memory_bytes(), 0);
    return 0;
}

static enum err begin(uint64_t size)
{
    return intake_begin(intake, &settings, &callbacks, &seen, &client, "a@client.test", 13, size, ENVELOPE_8BITMIME, &seen.t);
}

static void begin_body(uint64_t size)
{
    assert_int_equal(begin(size), ERR_OK);
    assert_int_equal(intake_recipient(seen.t, "b@lists.test", 12), ERR_OK);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_OK);
}

static void give(const char *text)
{
    assert_int_equal(intake_body(seen.t, (const uint8_t *)text, strlen(text)), strlen(text));
}

static void a_small_message_is_one_append_with_its_trace_header(void **state)
{
    (void)state;
    begin_body(0);
    assert_true(fake.reserved >= settings.message_size_limit);
    give("Subject: x\r\n\r\n");
    give("body\r\n");
    intake_body_end(seen.t, "<id@client.test>");
    assert_int_equal(fake.append_count, 1);
    assert_int_equal(seen.dones, 0); /* INT-1 */
    assert_int_equal(intake_in_flight(intake), 1);
    fake_port_answer(0, ERR_OK);
    assert_int_equal(seen.dones, 1);
    assert_int_equal(seen.e, ERR_OK);
    assert_int_equal(fake.reserved, 0);
    assert_int_equal(intake_in_flight(intake), 0);
    struct mail *m = seen.mail;
    assert_true(m->fresh);
    assert_int_equal(m->locator.counter, 9);
    assert_int_equal(m->envelope.recipient_count, 1);
    assert_int_equal(m->envelope.flags, ENVELOPE_8BITMIME);
    assert_int_equal(m->envelope.arrival_ms, 1700000000000);
    assert_int_equal(m->envelope.body_bytes, m->body_bytes);
    assert_memory_equal(m->envelope.client, "unknown[192.0.2.7]", m->envelope.client_len);
    char *text = strndup((const char *)m->body, m->body_bytes);
    assert_non_null(text);
    assert_ptr_equal(strstr(text, "Received: from cli?ent?.test (unknown [192.0.2.7])\r\n"
                                  "\t(using TLSv1.3 with cipher X (256/256 bits))\r\n"
                                  "\tby mx.test (Ironspool) with ESMTPS id "),
                     text);
    assert_non_null(strstr(text, seen.qid));
    assert_non_null(strstr(text, "\r\n\tfor <b@lists.test>;\r\n\t"));
    assert_string_equal(text + m->body_bytes - 20, "Subject: x\r\n\r\nbody\r\n");
    free(text);
}

static void several_recipients_do_not_learn_of_each_other(void **state)
{
    (void)state;
    assert_int_equal(begin(0), ERR_OK);
    assert_int_equal(intake_recipient(seen.t, "b@lists.test", 12), ERR_OK);
    assert_int_equal(intake_recipient(seen.t, "c@lists.test", 12), ERR_OK);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_OK);
    fake.answer_at_once = true;
    intake_body_end(seen.t, "");
    assert_null(memmem(seen.mail->body, seen.mail->body_bytes, "lists.test", 10));
    assert_int_equal(seen.mail->envelope.recipient_count, 2);
}

static void the_longest_envelope_is_taken_and_one_recipient_more_is_not(void **state)
{
    (void)state;
    char address[ADDRESS_BYTES_MAX];
    memset(address, 'r', sizeof address);
    assert_int_equal(begin(0), ERR_OK);
    for (unsigned i = 0; i < RECIPIENTS_PER_MESSAGE_MAX; i++) {
        address[0] = (char)('a' + i % 26);
        assert_int_equal(intake_recipient(seen.t, address, sizeof address), ERR_OK);
    }
    assert_int_equal(intake_recipient(seen.t, address, sizeof address), ERR_TOO_MANY);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_OK);
    fake.answer_at_once = true;
    intake_body_end(seen.t, "");
    assert_int_equal(seen.mail->envelope.recipient_count, RECIPIENTS_PER_MESSAGE_MAX);
    struct envelope_cursor c;
    const char *at;
    uint32_t len, n = 0;
    for (envelope_recipients(&seen.mail->envelope, &c); envelope_recipient_next(&c, &at, &len); n++)
        assert_true(len == ADDRESS_BYTES_MAX && at[0] == (char)('a' + n % 26));
    assert_int_equal(n, RECIPIENTS_PER_MESSAGE_MAX);
}

/* Gives `total` bytes in pieces as they come from a socket; every stall is ended by intake_room. */
static void give_many(uint64_t total, size_t piece)
{
    uint8_t *bytes = malloc(piece);
    assert_non_null(bytes);
    for (uint64_t at = 0; at < total;) {
        size_t n = piece < total - at ? piece : (size_t)(total - at);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)((at + i) % 251);
        size_t given = 0;
        while (given < n) {
            unsigned before = seen.go_ons;
            size_t taken = intake_body(seen.t, bytes + given, n - given);
            given += taken;
            if (given < n) {
                for (int i = 0; i < 100 && seen.go_ons == before; i++)
                    intake_room(intake);
                assert_int_equal(seen.go_ons, before + 1);
            }
        }
        at += n;
    }
    free(bytes);
}

static void expect_streamed(uint64_t total)
{
    assert_true(fake.stored_bytes > total);
    size_t header = fake.stored_bytes - (size_t)total;
    assert_memory_equal(fake.stored, "Received: ", 10);
    for (uint64_t i = 0; i < total; i++)
        if (fake.stored[header + i] != (uint8_t)(i % 251))
            fail_msg("byte %llu differs", (unsigned long long)i);
}

static void a_large_body_streams_as_chunks_in_order(void **state)
{
    (void)state;
    static const size_t pieces[] = {1000, 65536, 65537, 200000};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        fake_port_reset();
        fake.answer_at_once = true;
        begin_body(0);
        give_many(1000000, pieces[i]);
        intake_body_end(seen.t, "");
        assert_int_equal(seen.e, ERR_OK);
        assert_null(seen.mail->body);
        assert_int_equal(seen.mail->chunk_count, fake.chunks);
        assert_int_equal(seen.mail->body_bytes, fake.stored_bytes);
        expect_streamed(1000000);
        assert_int_equal(fake.reserved, 0);
    }
}

static unsigned fake_trays_out(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 4; i++)
        n += fake.tray[i] != NULL;
    return n;
}

static void a_large_body_crosses_in_trays_as_far_as_there_are_some(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        fake_port_reset();
        fake.answer_at_once = true;
        fake.trays = 1 + i % 2;
        fake.chunks_busy = i % 3;
        fake.tray[0] = i == 7 ? malloc(1) : NULL; /* others have them */
        begin_body(i < 4 ? 1000000 : 0);
        assert_int_equal(fake_trays_out(), i < 4 || i == 7);
        give_many(1000000, 3001 + 20000 * i);
        intake_body_end(seen.t, "");
        for (int k = 0; k < 10 && !seen.dones; k++)
            intake_room(intake);
        assert_int_equal(seen.e, ERR_OK);
        assert_int_equal(seen.mail->chunk_count, fake.chunks);
        expect_streamed(1000000);
        if (i == 7)
            port_tray_give(NULL, fake.tray[0]);
        assert_int_equal(fake_trays_out(), 0);
    }
}

static void a_tray_comes_back_whatever_becomes_of_the_message(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    fake.trays = 2;
    begin_body(1000000); /* and then it is a small one: its body is the mail's own memory */
    assert_int_equal(fake_trays_out(), 1);
    give_many(5000, 5000);
    intake_body_end(seen.t, "");
    assert_int_equal(seen.e, ERR_OK);
    assert_int_equal(seen.mail->chunk_count, 0);
    assert_non_null(seen.mail->body);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(seen.mail->body[seen.mail->body_bytes - 5000 + i], (uint8_t)(i % 251));
    assert_int_equal(fake_trays_out(), 0);
    begin_body(0); /* a CHUNK fails */
    give_many(100000, 10000);
    assert_int_equal(fake_trays_out(), 1);
    fake.chunk_says = ERR_SPOOL_GONE;
    give_many(100000, 10000);
    assert_int_equal(fake_trays_out(), 0);
    intake_body_end(seen.t, "");
    fake.chunk_says = ERR_OK;
    fake.chunks = 0;
    begin_body(0); /* the client goes away */
    give_many(100000, 10000);
    assert_int_equal(fake_trays_out(), 1);
    intake_abandon(&seen.t);
    assert_int_equal(fake_trays_out(), 0);
}

static void without_credit_the_body_waits_and_loses_nothing(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    begin_body(0);
    fake.chunks_busy = 3;
    give_many(300000, 70000);
    fake.chunks_busy = 2;
    fake.appends_busy = 2;
    intake_body_end(seen.t, "");
    assert_int_equal(seen.dones, 0);
    for (int i = 0; i < 10 && !seen.dones; i++)
        intake_room(intake);
    assert_int_equal(seen.dones, 1);
    assert_int_equal(seen.e, ERR_OK);
    expect_streamed(300000);
}

static void the_inline_limit_is_inclusive(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    begin_body(0);
    intake_body_end(seen.t, "");
    uint64_t header = seen.mail->body_bytes;
    for (unsigned extra = 0; extra <= 1; extra++) {
        fake.chunks = 0;
        begin_body(0);
        give_many(BODY_INLINE_MAX - header + extra, 4096);
        intake_body_end(seen.t, "");
        assert_int_equal(seen.mail->body_bytes, BODY_INLINE_MAX + extra);
        assert_int_equal(seen.mail->chunk_count, extra ? 2 : 0);
        assert_int_equal(seen.mail->body == NULL, extra);
    }
}

static void a_failed_chunk_fails_the_message_and_only_it(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    begin_body(0);
    give_many(100000, 10000);
    fake.chunk_says = ERR_SPOOL_GONE;
    give_many(200000, 10000);
    intake_body_end(seen.t, "");
    assert_int_equal(seen.e, ERR_SPOOL_GONE);
    assert_int_equal(seen.accepted, 0);
    assert_int_equal(fake.aborts, 1);
    assert_int_equal(fake.reserved, 0);
    fake.chunk_says = ERR_OK;
    fake.chunks = 0;
    begin_body(0);
    intake_body_end(seen.t, "");
    assert_int_equal(seen.e, ERR_OK);
}

static void a_refused_append_is_told_and_nothing_is_kept(void **state)
{
    (void)state;
    static const enum err errors[] = {ERR_FULL, ERR_BELOW_POLICY, ERR_SPOOL_GONE, ERR_NO_MEMORY};
    for (size_t i = 0; i < 4; i++) {
        for (int late = 0; late <= 1; late++) {
            fake.append_says = late ? ERR_OK : errors[i];
            begin_body(10);
            give("x\r\n");
            intake_body_end(seen.t, "");
            if (late)
                fake_port_answer(0, errors[i]);
            assert_int_equal(seen.e, errors[i]);
            assert_int_equal(fake.reserved, 0);
            assert_int_equal(mail_memory_bytes(), 0);
        }
    }
    assert_int_equal(seen.accepted, 0);
}

static void refusals_known_early_come_with_mail(void **state)
{
    (void)state;
    static const enum err errors[] = {ERR_FULL, ERR_BELOW_POLICY, ERR_READ_ONLY, ERR_INDEX_LAG, ERR_INDEX_FULL};
    for (size_t i = 0; i < 4; i++) {
        fake.status.accepting = errors[i];
        assert_int_equal(begin(0), errors[i]);
    }
    fake.status.accepting = ERR_SPOOL_GONE; /* it has a grace, until the body */
    assert_int_equal(begin(0), ERR_OK);
    fake.reserve_says = ERR_SPOOL_GONE;
    assert_int_equal(intake_recipient(seen.t, "b@lists.test", 12), ERR_OK);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_SPOOL_GONE);
    intake_abandon(&seen.t);
    fake.status.accepting = ERR_OK;
    fake.status.free_bytes = 1000;
    assert_int_equal(begin(1001), ERR_FULL);
    assert_int_equal(begin(1000), ERR_OK);
    intake_abandon(&seen.t);
    fake.status.free_bytes = UINT64_MAX;
    assert_int_equal(begin(settings.message_size_limit + 1), ERR_TOO_LARGE);
}

static void a_queue_id_that_is_not_there_yet_is_waited_for(void **state)
{
    (void)state;
    fake.ids_busy = 2;
    assert_int_equal(begin(0), ERR_OK);
    assert_int_equal(intake_recipient(seen.t, "b@lists.test", 12), ERR_OK);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_BUSY);
    uint64_t reserved = fake.reserved;
    intake_room(intake);
    assert_int_equal(seen.go_ons, 1);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_BUSY);
    intake_room(intake);
    assert_int_equal(seen.go_ons, 2);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_OK);
    assert_int_equal(fake.reserved, reserved); /* once */
    intake_abandon(&seen.t);
    assert_int_equal(fake.reserved, 0);
}

static void whoever_goes_away_while_waiting_is_forgotten(void **state)
{
    (void)state;
    fake.ids_busy = 1;
    assert_int_equal(begin(0), ERR_OK);
    assert_int_equal(intake_recipient(seen.t, "b@lists.test", 12), ERR_OK);
    assert_int_equal(intake_body_begin(seen.t, &settings, &client), ERR_BUSY);
    intake_abandon(&seen.t);
    intake_room(intake);
    assert_int_equal(seen.go_ons, 0);
    begin_body(0);
    give_many(70000, 1000);
    intake_abandon(&seen.t);
    assert_int_equal(fake.aborts, 1);
    assert_int_equal(fake.reserved, 0);
}

static void an_append_in_flight_outlives_its_session(void **state)
{
    (void)state;
    begin_body(0);
    give("x\r\n");
    intake_body_end(seen.t, "");
    intake_abandon(&seen.t);
    assert_int_equal(intake_in_flight(intake), 1);
    fake_port_answer(0, ERR_OK); /* INT-3 */
    assert_int_equal(seen.dones, 0);
    assert_int_equal(seen.accepted, 1);
}

static void closing_leaves_appends_in_flight_to_the_port(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        begin_body(0);
        intake_body_end(seen.t, "");
        intake_abandon(&seen.t);
    }
    fake.appends_busy = 1;
    begin_body(0);
    intake_body_end(seen.t, "");
    intake_abandon(&seen.t);
    intake_close(&intake);
    fake_port_answer(1, ERR_OK);
    fake_port_answer(0, ERR_SPOOL_GONE);
    assert_int_equal(seen.accepted + seen.dones, 0);
    assert_int_equal(fake.reserved, 0);
}

static void bodies_are_kept_for_delivery_up_to_the_bound(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    begin_body(0);
    intake_body_end(seen.t, "");
    assert_non_null(seen.mail->body);
    settings.fresh_bytes_max = mail_memory_bytes(); /* one fits, two do not */
    struct mail *first = mail_ref(seen.mail);
    begin_body(0);
    intake_body_end(seen.t, "");
    assert_null(seen.mail->body);
    assert_non_null(first->body);
    mail_unref(&first);
}

static void a_size_that_was_too_small_reserves_more(void **state)
{
    (void)state;
    fake.answer_at_once = true;
    begin_body(100);
    give_many(2000000, 60000);
    assert_true(fake.reserved >= 2000000);
    intake_body_end(seen.t, "");
    assert_int_equal(seen.e, ERR_OK);
    assert_int_equal(fake.reserved, 0);
    begin_body(100);
    fake.reserve_says = ERR_FULL;
    give_many(20000, 5000);
    intake_body_end(seen.t, "");
    assert_int_equal(seen.e, ERR_FULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_small_message_is_one_append_with_its_trace_header),
        T(several_recipients_do_not_learn_of_each_other),
        T(the_longest_envelope_is_taken_and_one_recipient_more_is_not),
        T(a_large_body_streams_as_chunks_in_order),
        T(a_large_body_crosses_in_trays_as_far_as_there_are_some),
        T(a_tray_comes_back_whatever_becomes_of_the_message),
        T(without_credit_the_body_waits_and_loses_nothing),
        T(the_inline_limit_is_inclusive),
        T(a_failed_chunk_fails_the_message_and_only_it),
        T(a_refused_append_is_told_and_nothing_is_kept),
        T(refusals_known_early_come_with_mail),
        T(a_queue_id_that_is_not_there_yet_is_waited_for),
        T(whoever_goes_away_while_waiting_is_forgotten),
        T(an_append_in_flight_outlives_its_session),
        T(closing_leaves_appends_in_flight_to_the_port),
        T(bodies_are_kept_for_delivery_up_to_the_bound),
        T(a_size_that_was_too_small_reserves_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
