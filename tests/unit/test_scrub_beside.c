/* SPDX-License-Identifier: Apache-2.0 */
/* What the scrub does beside its pass: it goes on over restarts, follows evidence, reads new frames back and free slots,
 * proves that it sees; and what repair does with a place that stays bad, or that nobody can prove. */
#include "images.h"
#include "scrub_world.h"


/* Sealed segments with mail in them. */
static void fill_and_seal(uint32_t frames, uint32_t each, uint32_t bytes)
{
    for (uint32_t i = 0; i < frames; i++)
        fill(each, bytes);
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    pool_unmount(&w.pool);
    mount();
    turns(200);
}

static uint8_t *bytes_of(const struct image *image, uint64_t offset)
{
    return w.ram.bytes[image->member] + segment_image_offset(w.pool, image) + offset;
}

/* --- over restarts --- */

static uint32_t images_verified(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        for (uint32_t k = 0; k < w.pool->segments[i].image_count; k++)
            n += w.pool->segments[i].state != SEGMENT_UNUSED && w.pool->segments[i].images[k].verified != 0;
    return n;
}

static void a_pass_goes_on_where_it_was_and_a_pause_lasts_over_restarts(void **state)
{
    (void)state;
    fill_and_seal(60, 6, 20000);
    scrub_start(w.pool);
    for (uint32_t n = 0; n < 20000 && images_verified() < 4; n++)
        turn();
    scrub_pause(w.pool, true);
    turns(300);
    uint32_t verified = images_verified();
    assert_true(verified >= 4);
    assert_int_equal(upkeep().scrub.passes, 0);
    crash_and_mount();
    assert_int_equal(images_verified(), verified);
    pass_seconds(100);
    assert_int_equal(upkeep().scrub.state, UPKEEP_PAUSED);
    assert_int_equal(upkeep().scrub.bytes_verified, 0);
    crash_and_mount();
    scrub_pause(w.pool, false);
    for (uint32_t n = 0; n < 600 && upkeep().scrub.passes == 0; n++)
        pass_seconds(1);
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_non_null(r);
    assert_int_equal(r->pass, 1); /* the same one */
    assert_true(r->complete);
    uint64_t rest = 0, all = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        rest += r->members[i].images;
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        all += w.pool->segments[i].state == SEGMENT_SEALED ? w.pool->segments[i].image_count : 0;
    assert_true(rest < all); /* what was verified before the restarts was not read again */
    uint64_t completed = upkeep().scrub.last_completed_ms;
    turns(300);
    crash_and_mount();
    turns(10);
    assert_int_equal(upkeep().scrub.last_completed_ms, completed);
}

static void the_longest_unverified_is_looked_at_first(void **state)
{
    (void)state;
    fill_and_seal(60, 6, 20000);
    one_pass();
    struct segment *last = NULL;
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        if (w.pool->segments[i].state == SEGMENT_SEALED)
            last = &w.pool->segments[i];
    assert_non_null(last);
    for (uint32_t k = 0; k < last->image_count; k++)
        last->images[k].verified = 0;
    scrub_start(w.pool);
    uint16_t pass = 2;
    for (uint32_t n = 0; n < 20000 && last->images[0].verified != pass; n++) {
        turn();
        for (uint32_t i = 0; last->images[0].verified != pass && i < w.pool->segment_used; i++)
            if (&w.pool->segments[i] != last && w.pool->segments[i].state == SEGMENT_SEALED)
                assert_int_not_equal(w.pool->segments[i].images[0].verified, pass);
    }
    assert_int_equal(last->images[0].verified, pass);
}

/* --- evidence --- */

static void a_bad_read_leads_to_what_lies_around_it(void **state)
{
    (void)state;
    fill_and_seal(60, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[100].record.place.segment);
    assert_non_null(s);
    for (uint32_t i = 0; i < s->image_count; i++) /* whichever is asked; each in a block of its own, so that nothing is lost */
        *bytes_of(&s->images[i], w.sent[100].record.place.frame + w.sent[100].record.place.record + 90 + i * 8192) ^= 1;
    const struct image *image = &s->images[0];
    struct member *m = &w.pool->members[image->member];
    uint32_t owner = image->slot + 1 < m->slot_count ? m->slot_owner[image->slot + 1] : 0;
    owner = owner && owner != SLOT_RETIRED ? owner : m->slot_owner[image->slot - 1];
    assert_true(owner != 0 && owner != SLOT_RETIRED);
    struct segment *beside = &w.pool->segments[owner - 1];
    *bytes_of(&s->images[1], 2 * BLOCK_BYTES) ^= 4; /* the same segment, another frame */
    uint32_t around = 0;
    if (beside->kind == SEGMENT_MAIL && beside->length > BLOCK_BYTES) {
        *bytes_of(&beside->images[0], BLOCK_BYTES + 7) ^= 4;
        around = 1;
    }
    assert_int_equal(read_back(&w.sent[100]), ERR_OK);
    pass_seconds(20);
    assert_int_equal(upkeep().scrub.passes, 0); /* no pass was needed */
    assert_true(upkeep().scrub.errors_found >= 1 + around);
    assert_int_equal(upkeep().scrub.errors_repaired, upkeep().scrub.errors_found);
    one_pass();
    assert_int_equal(scrub_report(w.pool, true)->places_left, 0);
    all_readable();
}

/* --- read-back --- */

static void new_frames_are_read_back_after_half_a_minute_and_before_a_minute(void **state)
{
    (void)state;
    fill(20, 9000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    assert_int_equal(s->state, SEGMENT_OPEN);
    *bytes_of(&s->images[1], w.sent[0].record.place.frame + 300) ^= 2;
    pass_seconds(28);
    assert_int_equal(upkeep().scrub.readback_bytes, 0);
    assert_int_equal(upkeep().scrub.errors_found, 0);
    pass_seconds(60);
    assert_true(upkeep().scrub.readback_bytes > 0);
    assert_int_equal(upkeep().scrub.readback_skipped_bytes, 0);
    assert_int_equal(upkeep().scrub.errors_found, 1); /* once, though it was looked at open and again sealed */
    assert_int_equal(upkeep().scrub.errors_repaired, 1);
    assert_int_equal(upkeep().scrub.passes, 0);
    all_readable();
}

/* --- free slots --- */

static uint32_t free_slot_of(const struct member *m)
{
    for (uint32_t s = m->slot_count / 2; s < m->slot_count; s++)
        if (m->slot_owner[s] == 0)
            return s;
    fail();
    return 0;
}

static void tour_of_free_slots(void)
{
    w.pool->config.scrub_interval_ns = 60 * NS_PER_S; /* a tour takes seven minutes */
    pass_seconds(900);
}

static void a_free_slot_with_a_place_that_stays_bad_is_retired(void **state)
{
    (void)state;
    fill(10, 9000);
    struct member *m = &w.pool->members[1];
    uint32_t stays = free_slot_of(m), mends = stays + 1;
    ram_io_make_bad(&w.ram, 1, m->slots_offset + stays * m->slot_bytes + 5 * BLOCK_BYTES, true);
    ram_io_make_bad(&w.ram, 1, m->slots_offset + mends * m->slot_bytes + 9 * BLOCK_BYTES, false);
    tour_of_free_slots();
    assert_true(upkeep().scrub.surface_bytes > 0);
    assert_int_equal(upkeep().scrub.slots_retired, 1);
    assert_int_equal(seen[EVENT_slot_retired], 1);
    assert_int_equal(m->slot_owner[stays], SLOT_RETIRED);
    assert_int_equal(m->slot_owner[mends], 0);
    assert_false(w.ram.bad[1].used); /* written and readable again */
    assert_int_equal(m->state, MEMBER_HEALTHY);
    uint32_t used = 0;
    for (uint32_t s = 0; s < m->slot_count; s++)
        used += m->slot_owner[s] != 0;
    assert_int_equal(used + m->slots_free, m->slot_count);
    turns(200);
    for (uint32_t round = 0; round < 3; round++) { /* for good: the superblocks remember it */
        crash_and_mount();
        m = &w.pool->members[1];
        assert_int_equal(m->slot_owner[stays], SLOT_RETIRED);
        assert_int_equal(upkeep().scrub.slots_retired, 1);
        used = 0;
        for (uint32_t s = 0; s < m->slot_count; s++)
            used += m->slot_owner[s] != 0;
        assert_int_equal(used + m->slots_free, m->slot_count);
    }
    all_readable();
}

/* --- the canary --- */

static void each_pass_finds_its_canary_outside_all_slots(void **state)
{
    (void)state;
    fill_and_seal(5, 4, 9000);
    uint64_t found = upkeep().scrub.errors_found;
    for (uint32_t n = 1; n <= 6; n++) {
        one_pass();
        assert_int_equal(upkeep().scrub.canaries, n);
        assert_int_equal(upkeep().scrub.canaries_missed, 0);
    }
    assert_false(upkeep().scrub.blind);
    assert_int_equal(seen[EVENT_scrub_blind], 0);
    assert_int_equal(upkeep().scrub.errors_found, found); /* it is nobody's damage */
    for (uint32_t t = 0; t < 3; t++) { /* all members had their turn, within 48 to 64 KiB */
        uint64_t filled = 0;
        for (uint64_t at = 36 * KIB; at < 64 * KIB; at++)
            filled += w.ram.bytes[t][at] != 0;
        assert_true(filled > 8 * KIB);
        for (uint64_t at = 36 * KIB; at < 48 * KIB; at++)
            assert_int_equal(w.ram.bytes[t][at], 0);
    }
    all_readable();
}

/* --- repair --- */

static void a_place_that_stays_bad_gets_its_image_made_again_elsewhere_and_its_slot_is_retired(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    struct image was = s->images[0];
    ram_io_make_bad(&w.ram, was.member, segment_image_offset(w.pool, &was) + 3 * BLOCK_BYTES, true);
    one_pass();
    const struct scrub_report *r = reported(1, 0, 1);
    assert_int_equal(r->findings[0].outcome, SCRUB_STAYS_BAD);
    pass_seconds(60);
    assert_int_equal(upkeep().rebuild.bytes_remaining, 0);
    assert_true(upkeep().rebuild.segments_rebuilt > 0);
    assert_int_equal(w.pool->members[was.member].slot_owner[was.slot], SLOT_RETIRED);
    assert_false(s->images[0].member == was.member && s->images[0].slot == was.slot);
    assert_int_equal(seen[EVENT_slot_retired], 1);
    one_pass();
    reported(0, 0, 0);
    turns(200);
    crash_and_mount();
    assert_int_equal(w.pool->members[was.member].slot_owner[was.slot], SLOT_RETIRED);
    all_readable();
}

/* Found while it was open, in the first of two windows; sealed because of that before the look was over. */
static void what_is_found_in_a_segment_that_is_sealed_meanwhile_is_repaired(void **state)
{
    (void)state;
    fill(15, 9000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    for (uint32_t i = 0; i < 60 && s->length < FRAME_BYTES_MAX + 64 * KIB; i++)
        fill(4, 9000);
    assert_int_equal(s->state, SEGMENT_OPEN);
    assert_true(s->length > FRAME_BYTES_MAX);
    *bytes_of(&s->images[1], w.sent[0].record.place.frame + 300) ^= 2;
    one_pass();
    reported(1, 1, 0);
}

/* Found open and empty, closed because of that, and on its way to be freed while the pass has nothing else to do: what
 * becomes of it decides what the pass says (SRP-3). */
static void a_pass_waits_for_what_was_found_in_a_segment_that_may_be_freed(void **state)
{
    (void)state;
    fill(15, 9000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    assert_int_equal(s->state, SEGMENT_OPEN);
    *bytes_of(&s->images[1], 300) ^= 2;
    scrub_start(w.pool);
    for (uint32_t n = 0; n < 20000 && s->state != SEGMENT_SEALED; n++) {
        pool_step(w.pool);
        io_turn(&w.ram.io, 20000000);
    }
    assert_int_equal(s->state, SEGMENT_SEALED);
    s->state = SEGMENT_FREEING;
    pass_seconds(5);
    assert_int_equal(upkeep().scrub.passes, 0);
    s->state = SEGMENT_SEALED; /* FREED could not be said */
    pass_seconds(5);
    reported(1, 1, 0);
}

static void an_image_header_waits_for_room_among_the_repairs(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    *bytes_of(&s->images[1], 300) ^= 2;
    w.pool->repairs_count += REPAIRS_MAX; /* others that take their time */
    scrub_start(w.pool);
    pass_seconds(5);
    assert_int_equal(upkeep().scrub.passes, 0);
    w.pool->repairs_count -= REPAIRS_MAX;
    pass_seconds(5);
    reported(1, 1, 0);
}

/* The image is made again elsewhere before the repair of the old place begins. */
static void what_was_found_on_an_image_that_was_given_up_is_gone(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    struct member *m = &w.pool->members[s->images[1].member];
    uint32_t slot;
    *bytes_of(&s->images[1], 300) ^= 2;
    m->slot_busy[s->images[1].slot]++; /* something is out there: a repair waits */
    scrub_start(w.pool);
    for (uint32_t n = 0; n < 20000 && w.pool->repairs_count == 0; n++)
        turn();
    assert_int_equal(w.pool->repairs_count, 1);
    assert_true(slot_find(m, &slot));
    assert_true(slot_take(m, slot, s));
    m->slot_busy[s->images[1].slot]--;
    memcpy(w.ram.bytes[m->target] + m->slots_offset + slot * m->slot_bytes, bytes_of(&s->images[1], 0), SEGMENT);
    segment_replace_image(w.pool, s, 1, (struct image){.member = m->number, .slot = slot});
    pass_seconds(30);
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_non_null(r);
    assert_int_equal(r->findings[0].outcome, SCRUB_GONE);
    assert_int_equal(r->places_left, 0);
}

static void what_no_image_can_prove_is_never_written(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    uint64_t at = w.sent[0].record.place.frame + 2 * BLOCK_BYTES + 17;
    *bytes_of(&s->images[0], at) ^= 1;
    *bytes_of(&s->images[1], at) ^= 2; /* the same block on both: nothing proves either */
    uint8_t before[2][BLOCK_BYTES * 4];
    for (uint32_t i = 0; i < 2; i++)
        memcpy(before[i], bytes_of(&s->images[i], w.sent[0].record.place.frame), sizeof before[i]);
    one_pass();
    for (uint32_t i = 0; i < 2; i++)
        assert_memory_equal(before[i], bytes_of(&s->images[i], w.sent[0].record.place.frame), sizeof before[i]);
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_int_equal(r->places_repaired, 0);
    assert_true(r->places_left > 0);
    assert_int_equal(r->findings[0].outcome, SCRUB_NO_SOURCE);
    assert_int_equal(seen[EVENT_image_repaired], 0);
}

/* A frame of the same length, valid in itself, with other records: a half that ran apart, or a forgery. */
static void another_frame(uint8_t *to, const uint8_t *like, uint64_t previous)
{
    struct frame_view v;
    uint64_t offset = BLOCK_BYTES;
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    assert_int_equal(verify_head(like, &w.pool->uuid, s->id, offset, &v), ERR_OK);
    uint8_t *bytes = sync_buffer(FRAME_BYTES_MAX), *payload = calloc(1, FRAME_BYTES_MAX);
    memset(payload, 0x5a, FRAME_BYTES_MAX);
    uint32_t room = v.blocks * BLOCK_BYTES - FRAME_HEAD_BYTES - RECORD_HEAD_BYTES - v.blocks * 8 - RECORD_ALIGN;
    struct digest_piece piece = {payload, room};
    struct record_fields r = {.type = RECORD_CHUNK, .qid = {1, 2}, .sequence = 1, .parts = &piece, .part_count = 1};
    struct frame_identity id = {.pool = w.pool->uuid, .segment = s->id, .offset = offset, .previous = previous};
    struct frame f;
    struct digest d;
    frame_init(&f, bytes);
    frame_add(&f, &r);
    assert_int_equal(frame_seal(&f, &id, &d), v.blocks);
    memcpy(to, bytes, v.blocks * BLOCK_BYTES);
    free(bytes);
    free(payload);
}

static void a_good_frame_that_does_not_follow_the_one_before_repairs_nothing(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    uint8_t *mine = bytes_of(&s->images[0], BLOCK_BYTES), *other = bytes_of(&s->images[1], BLOCK_BYTES);
    uint8_t keep[BLOCK_BYTES];
    memcpy(keep, mine, sizeof keep);
    another_frame(other, mine, 77); /* of two good ones only mine follows */
    one_pass();
    assert_memory_equal(mine, keep, sizeof keep);
    assert_memory_equal(other, keep, sizeof keep);
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_int_equal(r->findings[0].fault, ERR_IDENTITY);
    assert_int_equal(r->findings[0].outcome, SCRUB_REPAIRED);
    another_frame(mine, other, 77);
    another_frame(other, mine, 77); /* now none does */
    memcpy(keep, mine, sizeof keep);
    one_pass();
    assert_memory_equal(mine, keep, sizeof keep);
    assert_int_equal(scrub_report(w.pool, true)->findings[0].outcome, SCRUB_NO_SOURCE);
}

/* Its write is out while the member leaves; the one that waits for it ends at once. */
static void an_image_stays_closed_until_the_last_repair_that_writes_there_is_over(void **state)
{
    (void)state;
    fill_and_seal(20, 6, 20000);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    struct member *m = &w.pool->members[s->images[1].member];
    uint64_t at = BLOCK_BYTES;
    for (uint32_t i = 0; i < 2; i++) {
        struct frame_view v;
        assert_int_equal(verify_head(bytes_of(&s->images[0], at), &w.pool->uuid, s->id, at, &v), ERR_OK);
        repair_frame(w.pool, s, &v, 1u << 1);
        at += (uint64_t)v.blocks * BLOCK_BYTES;
    }
    w.ram.held[m->target] = true;
    pool_step(w.pool);
    assert_true(image_repairing(s, 1));
    member_leave(m, MEMBER_FAILED, "a test");
    pool_step(w.pool);
    assert_int_equal(w.pool->repairs_count, 1);
    assert_true(image_repairing(s, 1));
    assert_false(image_readable(w.pool, s, 1));
    w.ram.held[m->target] = false;
    turns(20);
    assert_int_equal(w.pool->repairs_count, 0);
    assert_false(image_repairing(s, 1));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_counted, teardown)
#define TEST_FOUR(name) cmocka_unit_test_setup_teardown(name, setup_four_counted, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_pass_goes_on_where_it_was_and_a_pause_lasts_over_restarts),
        TEST(the_longest_unverified_is_looked_at_first),
        TEST(a_bad_read_leads_to_what_lies_around_it),
        TEST(new_frames_are_read_back_after_half_a_minute_and_before_a_minute),
        TEST(a_free_slot_with_a_place_that_stays_bad_is_retired),
        TEST(each_pass_finds_its_canary_outside_all_slots),
        TEST_FOUR(a_place_that_stays_bad_gets_its_image_made_again_elsewhere_and_its_slot_is_retired),
        TEST(what_is_found_in_a_segment_that_is_sealed_meanwhile_is_repaired),
        TEST(a_pass_waits_for_what_was_found_in_a_segment_that_may_be_freed),
        TEST(an_image_header_waits_for_room_among_the_repairs),
        TEST(what_was_found_on_an_image_that_was_given_up_is_gone),
        TEST(an_image_stays_closed_until_the_last_repair_that_writes_there_is_over),
        TEST(what_no_image_can_prove_is_never_written),
        TEST(a_good_frame_that_does_not_follow_the_one_before_repairs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
