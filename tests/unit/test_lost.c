/* SPDX-License-Identifier: Apache-2.0 */
/* What is lost is told by name, exactly: whose record no image has, and nobody else. */
#include "spool_world.h"

#include "upkeep_parts.h"
#include "lost_said.h"

#include <spoolfs/envelope.h>
#include <spoolfs/upkeep.h>

#define MESSAGES 40u

static struct {
    struct queue_id qid;
    uint8_t envelope[2048];
    uint32_t envelope_bytes;
} mail[MESSAGES];
static uint8_t body[20000];
static char said[64][256];
static uint32_t said_count;

static void on_lost(void *owner, const struct event *e)
{
    (void)owner;
    if (e->kind == EVENT_record_lost && said_count < 64)
        snprintf(said[said_count++], sizeof said[0], "%s", e->evidence);
}

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb,
                           struct index **index_out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(pool, cb, index_out);
}

static int setup_with_index(void **state)
{
    (void)state;
    setup_members(3);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    w.config.sink.emit = on_lost;
    said_count = 0;
    mount();
    return 0;
}

static void on_lookup(struct index_query *q, enum err e)
{
    assert_int_equal(e, ERR_OK);
    *(struct index_entry *)q->owner = q->entries[0];
    q->owner = NULL;
    index_query_fini(q);
}

static void on_message(struct spool_read *r, enum err e)
{
    got.answered = true;
    got.e = e;
    if (e == ERR_OK)
        assert_int_equal(r->body_bytes, sizeof body);
}

/* One message a frame: each is answered before the next comes. */
static void send_one(uint32_t i, uint32_t recipients)
{
    struct envelope e = {.arrival_ms = 1, .body_bytes = sizeof body, .sender = "from@test.example", .sender_len = 17,
                         .client = "c", .client_len = 1, .helo = "h", .helo_len = 1};
    struct envelope_writer writer;
    char to[64];
    assert_int_equal(envelope_begin(&writer, mail[i].envelope, sizeof mail[i].envelope, &e), ERR_OK);
    for (uint32_t r = 0; r < recipients; r++) {
        snprintf(to, sizeof to, "recipient%u-of-%u@test.example", r, i);
        assert_int_equal(envelope_add_recipient(&writer, to, (uint32_t)strlen(to)), ERR_OK);
    }
    mail[i].envelope_bytes = envelope_end(&writer, sizeof body, 0);
    mail[i].qid = spool_lend_queue_ids(w.pool, 1);
    memset(body, (int)i + 1, sizeof body);
    struct sent *s = &w.sent[i];
    s->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = mail[i].qid, .envelope_bytes = mail[i].envelope_bytes,
                                      .parts = {{mail[i].envelope, mail[i].envelope_bytes}, {body, sizeof body}}};
    s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer, .owner = s};
    assert_int_equal(spool_submit(w.pool, &s->group), ERR_OK);
    w.count = i + 1;
    settle(5);
    assert_int_equal(s->e, ERR_OK);
}

static void send_all(uint32_t recipients)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        send_one(i, recipients);
    pool_unmount(&w.pool);
    mount();
    pass_seconds(1);
}

/* Damages the record's body on the members of the mask. Returns the mask of those that had one. */
static uint32_t destroy(uint32_t i, uint32_t mask)
{
    uint8_t pattern[64];
    uint32_t on = 0;
    memset(pattern, (int)i + 1, sizeof pattern);
    for (uint32_t t = 0; t < w.ram.count; t++)
        for (uint64_t at = 64 * KIB; at + 64 * KIB < MEMBER_BYTES; at += 64)
            if (memcmp(w.ram.bytes[t] + at, pattern, sizeof pattern) == 0) {
                if (mask & (1u << t))
                    w.ram.bytes[t][at + 7] ^= 0x40;
                on |= 1u << t;
                at += 2 * BLOCK_BYTES;
            }
    return on;
}

static void rebuilt(void)
{
    struct upkeep_status s;
    for (uint32_t n = 0; n < 60; n++) {
        pass_seconds(2);
        upkeep_status(w.pool, &s);
        if (s.rebuild.bytes_remaining == 0 && s.rebuild.segments_rebuilt > 0)
            return;
    }
    fail_msg("it is not rebuilt");
}

static enum err read_message(uint32_t i)
{
    struct index_entry e = {0};
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = mail[i].qid, .done = on_lookup, .owner = &e};
    index_query(spool_index(w.pool), &q);
    for (uint32_t n = 0; q.owner && n < 1000; n++)
        turn();
    struct spool_read r = {.place = e.place, .digest = e.digest, .qid = mail[i].qid, .type = RECORD_MESSAGE,
                           .done = on_message, .owner = &mail[i]};
    got.answered = false;
    spool_read(w.pool, &r);
    for (uint32_t k = 0; !got.answered && k < 20000; k++)
        turn();
    return got.e;
}

static uint32_t named(uint32_t i, const char *recipient)
{
    char id[QUEUE_ID_TEXT];
    uint32_t n = 0;
    queue_id_print(mail[i].qid, id);
    for (uint32_t k = 0; k < said_count; k++)
        n += strstr(said[k], id) && strstr(said[k], "from=<from@test.example>") && strstr(said[k], recipient);
    return n;
}

/* Message 5 waits: one image of it is on the member this returns, which is away, and the others are bad. */
static uint32_t waits_for_an_absent_member(void)
{
    send_all(1);
    uint32_t on = destroy(5, 0), gone = on & -on;
    destroy(5, ~gone);
    w.ram.targets[__builtin_ctz(gone)].present = false;
    rebuilt();
    pass_seconds(30);
    assert_int_equal(said_count, 0);
    return (uint32_t)__builtin_ctz(gone);
}

static void give_up(uint32_t target)
{
    const char name[2] = {(char)('a' + target), 0};
    struct member_loss loss;
    assert_int_equal(member_give_up(w.pool, name, false, &loss), ERR_OK);
}

static void a_rebuild_names_what_no_image_has_and_nothing_else(void **state)
{
    (void)state;
    send_all(1);
    uint32_t on = destroy(5, UINT32_MAX);
    destroy(17, UINT32_MAX);
    const char name[2] = {(char)('a' + __builtin_ctz(on)), 0};
    assert_int_equal(member_evacuate(w.pool, name), ERR_OK);
    rebuilt();
    pass_seconds(2);
    struct pool_status p;
    pool_status(w.pool, &p);
    assert_int_equal(named(5, "<recipient0-of-5@test.example>"), 1);
    assert_int_equal(named(17, "<recipient0-of-17@test.example>"), 1);
    assert_int_equal(p.messages_lost, 2);
    assert_int_equal(said_count, 2);
}

static void what_an_absent_member_may_hold_is_not_given_up(void **state)
{
    (void)state;
    uint32_t gone = waits_for_an_absent_member();
    assert_int_equal(read_message(5), ERR_MEMBER_GONE);
    w.ram.targets[gone].present = true;
    pool_unmount(&w.pool);
    mount();
    pass_seconds(5);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
}

/* One image is away, the other one is bad, and a third is made with a hole: below copies, until a person says that nobody has it. */
static void what_waited_for_a_member_is_told_when_it_is_given_up(void **state)
{
    (void)state;
    uint32_t gone = waits_for_an_absent_member();
    struct pool_status p;
    pool_status(w.pool, &p);
    assert_true(p.messages_below_copies > 0);
    give_up(gone);
    pass_seconds(30);
    pool_status(w.pool, &p);
    assert_int_equal(named(5, "<recipient0-of-5@test.example>"), 1);
    assert_int_equal(said_count, 1);
    assert_int_equal(p.messages_lost, 1);
    assert_int_equal(p.messages_below_copies, 0); /* it has a number of its own now */
    assert_int_equal(p.segments_degraded, 0);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), i == 5 ? ERR_LOST : ERR_OK);
}

/* Its image stays listed, as there is nowhere to make another, and nobody goes on looking for what it lacks. */
static void a_hole_on_a_member_that_was_given_up_is_nobodys(void **state)
{
    (void)state;
    send_all(1);
    struct segment *s = segment_find(w.pool, w.sent[5].record.place.segment);
    uint32_t image = s->images[0].member == 0 ? 1 : 0;
    uint8_t gone = s->images[image].member;
    for (uint32_t t = 0; t < 3; t++) /* one is left */
        w.ram.targets[t].present = t == s->images[1 - image].member;
    pass_seconds(30);
    scrub_note_hole(w.pool, s, image);
    give_up(gone);
    pass_seconds(30);
    struct upkeep_status before, now;
    upkeep_status(w.pool, &before);
    pass_seconds(60);
    upkeep_status(w.pool, &now);
    assert_false(segment_holed(s));
    assert_int_equal(now.scrub.bytes_verified, before.scrub.bytes_verified);
}

static void a_scrub_names_what_no_image_has_once(void **state)
{
    (void)state;
    send_all(1);
    destroy(5, UINT32_MAX);
    struct pool_status p;
    for (uint32_t pass = 0; pass < 3; pass++) {
        scrub_start(w.pool);
        pass_seconds(60);
        pool_status(w.pool, &p);
        assert_int_equal(named(5, "<recipient0-of-5@test.example>"), 1);
        assert_int_equal(said_count, 1);
        assert_int_equal(p.messages_lost, 1);
        assert_int_equal(p.messages_below_copies, 0); /* both images are all that can be had */
    }
}

static void a_read_names_it_once_with_every_recipient(void **state)
{
    (void)state;
    send_all(30);
    destroy(3, UINT32_MAX);
    for (uint32_t n = 0; n < 3; n++) {
        assert_int_equal(read_message(3), ERR_LOST);
        pass_seconds(1);
    }
    for (uint32_t r = 0; r < 30; r++) {
        char to[64];
        snprintf(to, sizeof to, "<recipient%u-of-3@test.example>", r);
        assert_int_equal(named(3, to), 1);
    }
    struct pool_status p;
    pool_status(w.pool, &p);
    assert_int_equal(p.messages_lost, 1);
}

/* --- what is refused is not lost (BRD-3) --- */

static void refuse_reads(uint32_t mask)
{
    w.ram.fail_one_kind = true;
    w.ram.fail_kind = IO_READ;
    for (uint32_t t = 0; t < w.ram.count; t++)
        w.ram.fail[t] = mask & (1u << t) ? ERR_IO : ERR_OK;
}

static uint64_t lost_count(void)
{
    struct pool_status p;
    pool_status(w.pool, &p);
    return p.messages_lost;
}

static void a_controller_that_is_away_for_a_moment_loses_nothing(void **state)
{
    (void)state;
    send_all(1);
    refuse_reads(UINT32_MAX);
    for (uint32_t n = 0; n < 100; n++) { /* longer than any look patience: and nobody is left to take over */
        assert_int_equal(read_message(n % MESSAGES), ERR_IO);
        pass_seconds(2);
    }
    assert_int_equal(said_count, 0);
    assert_int_equal(lost_count(), 0);
    refuse_reads(0);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
}

static void what_a_member_that_refuses_may_hold_is_not_lost(void **state)
{
    (void)state;
    send_all(1);
    uint32_t on = destroy(5, 0), refuses = on & -on;
    destroy(5, ~refuses);
    refuse_reads(refuses);
    assert_int_equal(read_message(5), ERR_IO);
    for (uint32_t n = 0; n < 40; n++) /* as if it were pulled, after a minute: there are enough others */
        pass_seconds(5);
    assert_int_equal(read_message(5), ERR_MEMBER_GONE);
    assert_int_equal(said_count, 0);
    assert_int_equal(lost_count(), 0);
    refuse_reads(0);
    pool_unmount(&w.pool);
    mount();
    pass_seconds(5);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
}

static void an_index_that_is_read_anew_waits_for_a_controller(void **state)
{
    (void)state;
    send_all(1);
    pool_unmount(&w.pool);
    mount();
    refuse_reads(UINT32_MAX);
    pass_seconds(30);
    refuse_reads(0);
    pass_seconds(10);
    assert_int_equal(said_count, 0);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
}

static void what_the_index_had_to_do_without_is_kept_and_comes_back(void **state)
{
    (void)state;
    send_all(1);
    pool_unmount(&w.pool);
    mount();
    refuse_reads(UINT32_MAX);
    for (uint32_t n = 0; n < 60; n++) /* so long that the index goes on without */
        pass_seconds(5);
    refuse_reads(0);
    pass_seconds(60); /* nothing in there is known to be live: all the same nothing is freed */
    pool_unmount(&w.pool);
    mount();
    pass_seconds(5);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
}

/* The end of a segment that was open is not where its members stop answering. */
static void a_mount_does_not_end_a_segment_that_is_refused(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MESSAGES; i++)
        send_one(i, 1);
    const struct segment *s = segment_find(w.pool, w.sent[MESSAGES - 1].record.place.segment);
    assert_int_equal(s->state, SEGMENT_OPEN);
    uint32_t on = 0;
    for (uint32_t i = 0; i < s->image_count; i++) {
        uint8_t m = s->images[i].member;
        w.ram.fail_range[m].from = segment_image_offset(w.pool, &s->images[i]);
        w.ram.fail_range[m].to = w.ram.fail_range[m].from + SEGMENT;
        on |= 1u << m;
    }
    refuse_reads(on);
    ram_io_forget(&w.ram);
    pool_abandon(&w.pool);
    const char *why;
    if (pool_mount(&w.ram.io, &w.config, &w.pool, &why) == ERR_OK) { /* one domain is left */
        pass_seconds(20);
        pool_unmount(&w.pool);
    }
    refuse_reads(0);
    mount();
    pass_seconds(5);
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), ERR_OK);
    assert_int_equal(said_count, 0);
}

static void a_place_that_is_refused_while_the_member_answers_is_bad(void **state)
{
    (void)state;
    send_all(1);
    uint8_t pattern[64];
    memset(pattern, 8, sizeof pattern); /* message 7 */
    w.ram.bad_answer = ERR_IO;
    for (uint32_t t = 0; t < w.ram.count; t++)
        for (uint64_t at = 64 * KIB; at + 64 * KIB < MEMBER_BYTES; at += 64)
            if (memcmp(w.ram.bytes[t] + at, pattern, sizeof pattern) == 0) {
                ram_io_make_bad(&w.ram, (uint16_t)t, at, true);
                at += 2 * BLOCK_BYTES * 4;
            }
    assert_int_equal(read_message(7), ERR_LOST);
    pass_seconds(1);
    assert_int_equal(named(7, "<recipient0-of-7@test.example>"), 1);
    assert_int_equal(read_message(8), ERR_OK);
}

/* The replay reads them, from the other image too. */
static void blocks_that_cannot_be_read_are_read_errors_and_no_wrong_checksums(void **state)
{
    (void)state;
    send_all(1);
    pool_unmount(&w.pool);
    for (uint16_t t = 0; t < w.ram.count; t++) { /* whichever image it reads first */
        uint8_t pattern[64];
        memset(pattern, 8 + t, sizeof pattern);
        uint64_t at = 64 * KIB;
        while (at + 64 * KIB < MEMBER_BYTES && memcmp(w.ram.bytes[t] + at, pattern, sizeof pattern) != 0)
            at += 64;
        if (at + 64 * KIB < MEMBER_BYTES)
            ram_io_make_bad(&w.ram, t, at, false);
    }
    mount();
    pass_seconds(10);
    struct pool_status s;
    pool_status(w.pool, &s);
    uint64_t unread = 0, repaired = 0;
    for (uint32_t i = 0; i < 3; i++) {
        unread += s.members[i].errors_read;
        repaired += s.members[i].repaired_blocks;
        assert_int_equal(s.members[i].errors_checksum, 0);
    }
    assert_true(unread > 0);
    assert_true(repaired > 0);
    assert_int_equal(read_message(7), ERR_OK);
}

/* --- what was told --- */

static struct lost_said said_set;

static struct queue_id qid_of(uint64_t n)
{
    return (struct queue_id){UINT64_C(0x1234567800000000) + n % 7, n};
}

static void as_many_as_the_limit_are_told_once_and_the_oldest_goes_for_one_more(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= LOST_SAID_MAX; n++)
        assert_true(lost_said_add(&said_set, qid_of(n)));
    for (uint64_t n = 1; n <= LOST_SAID_MAX; n++)
        assert_false(lost_said_add(&said_set, qid_of(n)));
    assert_int_equal(said_set.at.count, LOST_SAID_MAX);
    assert_false(lost_said_has(&said_set, qid_of(LOST_SAID_MAX + 1)));
    assert_true(lost_said_add(&said_set, qid_of(LOST_SAID_MAX + 1)));
    assert_false(lost_said_has(&said_set, qid_of(1)));
    for (uint64_t n = 2; n <= LOST_SAID_MAX + 1; n++)
        assert_true(lost_said_has(&said_set, qid_of(n)));
    for (uint64_t n = 0; n < 3 * LOST_SAID_MAX; n++)
        assert_true(lost_said_add(&said_set, qid_of(100000 + n)));
    assert_int_equal(said_set.at.count, LOST_SAID_MAX);
    assert_true(said_set.at.capacity <= 2 * LOST_SAID_MAX);
    lost_said_fini(&said_set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_as_the_limit_are_told_once_and_the_oldest_goes_for_one_more),
        cmocka_unit_test_setup_teardown(a_rebuild_names_what_no_image_has_and_nothing_else, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(what_an_absent_member_may_hold_is_not_given_up, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(what_waited_for_a_member_is_told_when_it_is_given_up, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_hole_on_a_member_that_was_given_up_is_nobodys, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_scrub_names_what_no_image_has_once, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_read_names_it_once_with_every_recipient, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_controller_that_is_away_for_a_moment_loses_nothing, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(what_a_member_that_refuses_may_hold_is_not_lost, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(an_index_that_is_read_anew_waits_for_a_controller, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(what_the_index_had_to_do_without_is_kept_and_comes_back, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_mount_does_not_end_a_segment_that_is_refused, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(a_place_that_is_refused_while_the_member_answers_is_bad, setup_with_index, teardown),
        cmocka_unit_test_setup_teardown(blocks_that_cannot_be_read_are_read_errors_and_no_wrong_checksums, setup_with_index, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
