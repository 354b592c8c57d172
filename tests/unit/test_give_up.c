/* SPDX-License-Identifier: Apache-2.0 */
/* Members that never come back: what only they held is lost, named and let go; everything else stays. */
#include "spool_world.h"

#include "upkeep_parts.h"

#include <spoolfs/envelope.h>
#include <spoolfs/index_kept.h>
#include <spoolfs/upkeep.h>

#define MESSAGES 120u
#define BODY 90000u

static struct {
    struct queue_id qid;
    uint8_t envelope[256];
    uint32_t on;       /* mask of the members that had its segment when they died */
    uint32_t named;    /* in this mount */
    bool retired;
} mail[MESSAGES];
static uint8_t body[BODY];
static struct index_kept *kept;
static uint32_t said;  /* record_lost of this mount */

static void on_lost(void *owner, const struct event *e)
{
    on_event(owner, e);
    char id[QUEUE_ID_TEXT], to[64];
    if (e->kind != EVENT_record_lost)
        return;
    said++;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        queue_id_print(mail[i].qid, id);
        snprintf(to, sizeof to, "to=<u%u@test.example>", i);
        mail[i].named += strstr(e->evidence, id) && strstr(e->evidence, "from=<from@test.example>") && strstr(e->evidence, to);
    }
}

static enum err open_index(void *owner, struct uuid pool, bool discard, const struct index_callbacks *cb, struct index **index_out)
{
    (void)owner;
    if (discard)
        index_kept_discard(kept);
    return index_mem_open_kept(pool, kept, cb, index_out);
}

static int setup_four(void **state)
{
    (void)state;
    memset(mail, 0, sizeof mail);
    assert_int_equal(index_kept_make(&kept), ERR_OK);
    setup_members(4);
    pool_unmount(&w.pool);
    w.config.index.open = open_index;
    w.config.sink.emit = on_lost;
    said = 0;
    mount();
    return 0;
}

static int teardown_four(void **state)
{
    teardown(state);
    index_kept_free(&kept);
    return 0;
}

static void forget_what_was_said(void)
{
    said = 0;
    for (uint32_t i = 0; i < MESSAGES; i++)
        mail[i].named = 0;
}

static void again(bool crash)
{
    if (crash) {
        ram_io_forget(&w.ram);
        pool_abandon(&w.pool);
    } else {
        pool_unmount(&w.pool);
    }
    forget_what_was_said();
    mount();
    for (uint32_t n = 0; !spool_index_ready(w.pool) && n < 20000; n++)
        turn();
    assert_true(spool_index_ready(w.pool));
}

static void send_one(uint32_t i)
{
    struct envelope e = {.arrival_ms = 1, .body_bytes = sizeof body, .sender = "from@test.example", .sender_len = 17,
                         .client = "c", .client_len = 1, .helo = "h", .helo_len = 1};
    struct envelope_writer writer;
    char to[64];
    assert_int_equal(envelope_begin(&writer, mail[i].envelope, sizeof mail[i].envelope, &e), ERR_OK);
    snprintf(to, sizeof to, "u%u@test.example", i);
    assert_int_equal(envelope_add_recipient(&writer, to, (uint32_t)strlen(to)), ERR_OK);
    uint32_t bytes = envelope_end(&writer, sizeof body, 0);
    mail[i].qid = spool_lend_queue_ids(w.pool, 1);
    memset(body, (int)i + 1, sizeof body);
    struct sent *s = &w.sent[w.count++];
    *s = (struct sent){.record = {.type = RECORD_MESSAGE, .qid = mail[i].qid, .envelope_bytes = bytes,
                                  .parts = {{mail[i].envelope, bytes}, {body, sizeof body}}}};
    s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer, .owner = s};
    assert_int_equal(spool_submit(w.pool, &s->group), ERR_OK);
    settle(5);
    assert_int_equal(s->e, ERR_OK);
}

static void fill_mail(void)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        send_one(i);
    again(false);
    pass_seconds(1);
    for (uint32_t i = 0; i < MESSAGES; i++)
        mail[i].on = segment_members(segment_find(w.pool, w.sent[i].record.place.segment));
}

static void die(uint32_t mask)
{
    for (uint32_t t = 0; t < w.ram.count; t++)
        if (mask & (1u << t))
            w.ram.targets[t].present = false;
}

/* How many have no image but on members of the mask. */
static uint32_t only_on(uint32_t mask)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < MESSAGES; i++)
        n += !mail[i].retired && (mail[i].on & ~mask) == 0;
    return n;
}

static void rebuilt(void)
{
    struct upkeep_status s;
    for (uint32_t n = 0; n < 60; n++) {
        pass_seconds(2);
        upkeep_status(w.pool, &s);
        if (s.rebuild.state == UPKEEP_IDLE && n > 10)
            return;
    }
    fail_msg("it is not rebuilt");
}

static const struct pool_status *status(void)
{
    static struct pool_status s;
    pool_status(w.pool, &s);
    return &s;
}

static struct member_loss give_up(const char *name, bool dry_run)
{
    struct member_loss loss;
    assert_int_equal(member_give_up(w.pool, name, dry_run, &loss), ERR_OK);
    for (uint32_t n = 0; n < 2000 && !members_settled(w.pool); n++)
        turn();
    assert_true(members_settled(w.pool));
    return loss;
}

static void on_lookup(struct index_query *q, enum err e)
{
    if (e == ERR_OK && q->entry_count == 1)
        *(struct index_entry *)q->owner = q->entries[0];
    q->owner = NULL;
    index_query_fini(q);
}

static void on_message(struct spool_read *r, enum err e)
{
    got.answered = true;
    got.e = e;
    for (uint32_t k = 0; e == ERR_OK && k < r->body_bytes; k++)
        assert_int_equal(r->body[k], (uint8_t)(*(uint32_t *)r->owner + 1));
    if (e == ERR_OK)
        assert_int_equal(r->body_bytes, sizeof body);
}

static enum err read_message(uint32_t i)
{
    struct index_entry e = {0};
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = mail[i].qid, .done = on_lookup, .owner = &e};
    index_query(spool_index(w.pool), &q);
    for (uint32_t n = 0; q.owner && n < 1000; n++)
        turn();
    if (e.qid.incarnation == 0)
        return ERR_NOT_FOUND;
    struct spool_read r = {.place = e.place, .digest = e.digest, .qid = mail[i].qid, .type = RECORD_MESSAGE,
                           .done = on_message, .owner = &i};
    got.answered = false;
    spool_read(w.pool, &r);
    for (uint32_t k = 0; !got.answered && k < 20000; k++)
        turn();
    assert_true(got.answered);
    return got.e;
}

/* Those with an image beside the mask are read byte for byte; the others say `otherwise`. */
static void all_say(uint32_t mask, enum err otherwise)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(read_message(i), mail[i].on & ~mask ? ERR_OK : otherwise);
}

static void named_exactly(uint32_t mask)
{
    for (uint32_t i = 0; i < MESSAGES; i++)
        assert_int_equal(mail[i].named, !mail[i].retired && (mail[i].on & ~mask) == 0);
    assert_int_equal(said, only_on(mask));
    assert_int_equal(status()->messages_lost, only_on(mask));
}

/* As the relay does when it has told the senders. */
static void retire_lost(uint32_t mask)
{
    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (mail[i].on & ~mask)
            continue;
        struct sent *s = &w.sent[w.count++];
        *s = (struct sent){.record = {.type = RECORD_RETIRE, .qid = mail[i].qid,
                                      .message_segment = w.sent[i].record.place.segment}};
        s->group = (struct spool_group){.records = &s->record, .count = 1, .class = SPOOL_RESULT, .done = on_answer, .owner = s};
        assert_int_equal(spool_submit(w.pool, &s->group), ERR_OK);
        settle(5);
        assert_int_equal(s->e, ERR_OK);
        mail[i].retired = true;
    }
}

#define A_AND_B 3u

static void what_only_two_dead_members_held_is_named_when_the_second_is_given_up(void **state)
{
    (void)state;
    fill_mail();
    uint32_t lost = only_on(A_AND_B);
    assert_in_range(lost, 1, MESSAGES - 1);
    die(A_AND_B);
    rebuilt();
    all_say(A_AND_B, ERR_MEMBER_GONE);
    assert_int_equal(give_up("a", true).messages, 0); /* b may have them */
    assert_int_equal(give_up("a", false).messages, 0);
    pass_seconds(5);
    assert_int_equal(said, 0);
    all_say(A_AND_B, ERR_MEMBER_GONE);
    assert_int_equal(status()->messages_below_copies, lost);
    assert_int_equal(give_up("b", true).messages, lost);
    pass_seconds(5);
    assert_int_equal(said, 0); /* counted only */
    assert_int_equal(give_up("b", false).messages, lost);
    pass_seconds(5);
    named_exactly(A_AND_B);
    all_say(A_AND_B, ERR_LOST);
    named_exactly(A_AND_B); /* each once in a mount, whoever reads it */
    pass_seconds(60);
    assert_int_equal(status()->messages_below_copies, 0); /* it has ended, though they wait for their bounces */
    assert_int_equal(status()->segments_degraded, 0);
    assert_int_equal(status()->messages_lost, lost);
    struct upkeep_status u;
    upkeep_status(w.pool, &u);
    assert_int_equal(u.rebuild.bytes_remaining, 0);
    assert_int_equal(u.rebuild.messages_remaining, 0);
    retire_lost(A_AND_B);
    pass_seconds(60);
    assert_int_equal(status()->messages_below_copies, 0);
    assert_int_equal(status()->segments_degraded, 0);
    for (uint32_t i = 0; i < w.pool->segment_used; i++) /* what nobody can read is freed */
        assert_false(w.pool->segments[i].state != SEGMENT_UNUSED && segment_given_up(w.pool, &w.pool->segments[i]));
    all_say(A_AND_B, ERR_NOT_FOUND);
    for (uint32_t crash = 0; crash < 2; crash++) {
        again(crash);
        pass_seconds(5);
        assert_int_equal(said, 0);
        all_say(A_AND_B, ERR_NOT_FOUND);
    }
}

#define D 3u

/* Made again from c, which cannot read a block, as d is dead: lost, though d alone was given up. The index that knows its id is kept. */
static void what_the_last_image_cannot_read_is_lost_by_id_after_a_restart_too(void **state)
{
    (void)state;
    uint32_t bad = MESSAGES;
    fill_mail();
    for (uint32_t i = 0; i < MESSAGES; i++)
        bad = mail[i].on == (1u << 2 | 1u << D) ? i : bad;
    assert_in_range(bad, 0, MESSAGES - 1);
    const struct place *at = &w.sent[bad].record.place;
    const struct segment *s = segment_find(w.pool, at->segment);
    uint32_t image = s->images[0].member == D;
    ram_io_make_bad(&w.ram, 2, segment_image_offset(w.pool, &s->images[image]) + at->frame + at->record + 9000, true);
    die(1u << D);
    pass_seconds(8);
    give_up("d", false);
    rebuilt();
    for (uint32_t n = 0; n < 4; n++) {
        for (uint32_t i = 0; i < MESSAGES; i++)
            assert_int_equal(read_message(i), i == bad ? ERR_LOST : ERR_OK);
        assert_int_equal(mail[bad].named, 1);
        again(n == 1);
    }
}

static void a_crash_at_any_turn_leaves_the_member_absent_or_removed(void **state)
{
    (void)state;
    fill_mail();
    die(A_AND_B);
    rebuilt();
    give_up("b", false);
    uint32_t removed = 0;
    for (uint32_t n = 0; n < 40; n++) {
        struct member_loss loss;
        enum err e = member_give_up(w.pool, "a", false, &loss);
        assert_true(e == ERR_OK || (removed && e == ERR_NOT_FOUND));
        turns(n);
        bool told = said > 0 || status()->members[0].state == MEMBER_REMOVED;
        again(true);
        bool gone = status()->members[0].state == MEMBER_REMOVED;
        assert_true(gone || (!removed && !told)); /* it does not count as removed before the superblocks say so */
        removed += gone;
        pass_seconds(2);
        if (gone)
            named_exactly(A_AND_B);
        else
            assert_int_equal(said, 0);
        if (removed > 3)
            break;
    }
    assert_true(removed > 0);
    all_say(A_AND_B, ERR_LOST);
}

static void who_was_given_up_is_refused_when_it_comes_back(void **state)
{
    (void)state;
    fill_mail();
    die(A_AND_B);
    rebuilt();
    give_up("a", false);
    w.ram.targets[0].present = w.ram.targets[1].present = true; /* b was not given up: what it holds is there */
    again(false);
    pass_seconds(30);
    assert_int_equal(status()->members[0].state, MEMBER_REMOVED);
    assert_int_equal(status()->members[1].state, MEMBER_HEALTHY);
    assert_int_equal(said, 0);
    all_say(0, ERR_OK);
    rebuilt();
    assert_int_equal(status()->messages_below_copies, 0);
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        if (w.pool->segments[i].state == SEGMENT_SEALED)
            assert_false(segment_on_member(&w.pool->segments[i], 0));
}

static void an_index_made_anew_names_the_segments_that_it_cannot_know(void **state)
{
    (void)state;
    fill_mail();
    die(A_AND_B);
    rebuilt();
    pool_unmount(&w.pool);
    index_kept_discard(kept);
    mount();
    pass_seconds(10);
    all_say(A_AND_B, ERR_NOT_FOUND);
    give_up("a", false);
    pass_seconds(5);
    forget_what_was_said();
    uint64_t segments = give_up("b", true).segments_unknown;
    assert_true(segments > 0);
    give_up("b", false);
    pass_seconds(60);
    assert_int_equal(said, segments);
    assert_int_equal(status()->segments_degraded, 0);
    again(true);
    pass_seconds(5);
    assert_int_equal(said, 0);
    all_say(A_AND_B, ERR_NOT_FOUND);
}

static void an_index_lost_after_the_senders_were_told_changes_nothing(void **state)
{
    (void)state;
    fill_mail();
    die(A_AND_B);
    rebuilt();
    give_up("a", false);
    give_up("b", false);
    pass_seconds(5);
    retire_lost(A_AND_B);
    pass_seconds(60);
    pool_unmount(&w.pool);
    index_kept_discard(kept);
    forget_what_was_said();
    mount();
    pass_seconds(10);
    assert_int_equal(said, 0);
    assert_int_equal(status()->messages_below_copies, 0);
    all_say(A_AND_B, ERR_NOT_FOUND);
}

static void nobody_is_given_up_who_is_here_or_not_known(void **state)
{
    (void)state;
    struct member_loss loss;
    fill_mail();
    assert_int_equal(member_give_up(w.pool, "c", false, &loss), ERR_INVALID);
    assert_int_equal(member_give_up(w.pool, "nobody", false, &loss), ERR_NOT_FOUND);
    assert_int_equal(member_evacuate(w.pool, "c"), ERR_OK);
    assert_int_equal(member_give_up(w.pool, "c", false, &loss), ERR_INVALID); /* it still gives what it has */
    die(A_AND_B);
    pass_seconds(10);
    assert_int_equal(member_remove(w.pool, "a", false), ERR_BUSY);
    give_up("a", false);
    assert_int_equal(member_give_up(w.pool, "a", false, &loss), ERR_NOT_FOUND);
    assert_int_equal(said, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_only_two_dead_members_held_is_named_when_the_second_is_given_up, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(what_the_last_image_cannot_read_is_lost_by_id_after_a_restart_too, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(a_crash_at_any_turn_leaves_the_member_absent_or_removed, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(who_was_given_up_is_refused_when_it_comes_back, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(an_index_made_anew_names_the_segments_that_it_cannot_know, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(an_index_lost_after_the_senders_were_told_changes_nothing, setup_four, teardown_four),
        cmocka_unit_test_setup_teardown(nobody_is_given_up_who_is_here_or_not_known, setup_four, teardown_four),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
