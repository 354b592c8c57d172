/* SPDX-License-Identifier: Apache-2.0 */
/* The scrub finds every bad place there is, mends it from proved bytes only, and says what it could not see. */
#include "scrub_world.h"
#include "upkeep_parts.h"

#include <base/prng.h>

#define HURT 1u /* the member that is damaged */

/* Filled, then still: nothing is compacted or freed, for there is no index. */
static void fill_and_keep_still(uint32_t frames, uint32_t each, uint32_t bytes)
{
    for (uint32_t i = 0; i < frames; i++)
        fill(each, bytes);
    for (uint32_t i = 0; i < w.count; i++)
        w.sent[i].digest = digest_at(&w.sent[i]);
    turns(200);
}

/* --- the places of a member that hold something --- */

struct places { uint64_t at[8192]; uint32_t count; };

static void places_add(struct places *p, uint64_t from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += BLOCK_BYTES) {
        assert_true(p->count < 8192);
        p->at[p->count++] = from + at;
    }
}

static void places_of_segment(struct places *p, const struct segment *s)
{
    for (uint32_t i = 0; i < s->image_count; i++)
        if (s->images[i].member == HURT)
            places_add(p, segment_image_offset(w.pool, &s->images[i]), s->length);
}

static void places_used(struct places *p)
{
    p->count = 0;
    for (uint32_t c = 0; c < SUPERBLOCK_COPIES; c++)
        places_add(p, superblock_offset(w.pool->members[HURT].member_bytes, c), BLOCK_BYTES);
    for (uint32_t i = 0; i < w.pool->segment_used; i++)
        if (w.pool->segments[i].state != SEGMENT_UNUSED)
            places_of_segment(p, &w.pool->segments[i]);
}

static bool in_slot_of_table(uint64_t at)
{
    const struct member *m = &w.pool->members[HURT];
    for (uint32_t i = 0; i < w.pool->table_image_count; i++) {
        uint64_t from = segment_image_offset(w.pool, &w.pool->table_images[i]);
        if (w.pool->table_images[i].member == HURT && at >= from && at < from + m->slot_bytes)
            return true;
    }
    return false;
}

static uint64_t found_in_all(const struct scrub_member_report *m)
{
    uint64_t all = 0;
    for (uint32_t k = 0; k < SCRUB_KIND_COUNT; k++)
        all += m->found[k];
    return all;
}

static void a_thousand_bad_places_are_found_in_one_pass_repaired_and_counted(void **state)
{
    (void)state;
    static struct places p;
    fill_and_keep_still(200, 6, 9000);
    places_used(&p);
    assert_true(p.count > 1200);
    uint8_t *before = malloc(MEMBER_BYTES);
    memcpy(before, w.ram.bytes[HURT], MEMBER_BYTES);
    struct prng dice = {7};
    uint32_t table = 0;
    for (uint32_t n = 0; n < 1000; n++) { /* each another place: the hurt ones move to the front */
        uint32_t take = n < SUPERBLOCK_COPIES ? n : n + (uint32_t)prng_below(&dice, p.count - n);
        uint64_t at = p.at[take];
        p.at[take] = p.at[n];
        p.at[n] = at;
        table += in_slot_of_table(at);
        w.ram.bytes[HURT][at + prng_below(&dice, BLOCK_BYTES)] ^= (uint8_t)(1u << prng_below(&dice, 8));
    }
    w.pool->config.sink.emit = count_event;
    all_readable(); /* nothing wrong is delivered meanwhile, and what was read is mended already */
    turns(2000);
    uint64_t mended = w.pool->members[HURT].repaired_blocks;
    for (uint32_t n = 0; n < 1000; n++) /* once more, so that the pass has all of them to find */
        if (memcmp(w.ram.bytes[HURT] + p.at[n], before + p.at[n], BLOCK_BYTES) == 0)
            w.ram.bytes[HURT][p.at[n]] ^= 0x10;
    assert_true(mended > 0);
    uint64_t earlier = scrub_report(w.pool, false)->places_found; /* evidence led there already */
    assert_int_equal(scrub_report(w.pool, false)->places_repaired, earlier);
    one_pass();
    const struct scrub_member_report *m = &reported(earlier + 1000, earlier + 1000, 0)->members[HURT];
    assert_string_equal(m->serial, "RAM0001");
    assert_int_equal(found_in_all(m), earlier + 1000);
    assert_int_equal(m->found[SCRUB_SUPERBLOCK], SUPERBLOCK_COPIES);
    assert_int_equal(m->found[SCRUB_TABLE], table);
    assert_true(m->found[SCRUB_IMAGE_HEADER] > 0);
    assert_int_equal(upkeep().scrub.errors_found, upkeep().scrub.errors_repaired);
    assert_string_equal(last_serial[EVENT_frame_corrupt], "RAM0001");
    for (uint32_t n = SUPERBLOCK_COPIES; n < 1000; n++)
        if (w.pool->members[HURT].slot_owner[(p.at[n] - 64 * KIB) / SEGMENT] != 0 && !in_slot_of_table(p.at[n]))
            assert_memory_equal(w.ram.bytes[HURT] + p.at[n], before + p.at[n], BLOCK_BYTES);
    struct superblock s;
    uint32_t good;
    assert_int_equal(superblock_load(&w.ram.io, HURT, &s, &good), ERR_OK);
    assert_int_equal(good, (1u << SUPERBLOCK_COPIES) - 1);
    free(before);
    one_pass();
    reported(0, 0, 0);
    all_readable();
}

static void a_superblock_copy_that_is_valid_and_old_is_found(void **state)
{
    (void)state;
    fill_and_keep_still(2, 2, 9000);
    uint8_t old[SUPERBLOCK_BYTES];
    uint64_t at = superblock_offset(MEMBER_BYTES, 2);
    memcpy(old, w.ram.bytes[HURT] + at, sizeof old);
    pool_unmount(&w.pool);
    mount();
    one_pass();
    turns(100);
    memcpy(w.ram.bytes[HURT] + at, old, sizeof old);
    one_pass();
    const struct scrub_report *r = reported(1, 1, 0);
    assert_int_equal(r->findings[0].kind, SCRUB_SUPERBLOCK);
    assert_int_equal(r->findings[0].outcome, SCRUB_REPAIRED);
    assert_int_equal(r->findings[0].offset, at);
    assert_memory_not_equal(w.ram.bytes[HURT] + at, old, sizeof old);
}

/* --- what is not seen does not count --- */

static void an_image_that_was_missed_is_looked_at_again_in_the_same_pass(void **state)
{
    (void)state;
    fill_and_keep_still(20, 4, 9000);
    pool_unmount(&w.pool);
    mount();
    turns(200);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    assert_non_null(s);
    const struct image *image = &s->images[1];
    uint8_t hurt = image->member;
    w.ram.bytes[hurt][segment_image_offset(w.pool, image) + BLOCK_BYTES + 99] ^= 1;
    scrub_start(w.pool);
    w.ram.held[hurt] = true;
    pass_seconds(30);
    assert_int_equal(upkeep().scrub.passes, 0);
    assert_int_equal(upkeep().scrub.errors_found, 0);
    w.ram.held[hurt] = false;
    for (uint32_t n = 0; n < 300 && upkeep().scrub.passes == 0; n++)
        pass_seconds(1);
    reported(1, 1, 0);
}

static void a_pass_says_which_images_it_could_not_see_and_is_not_complete(void **state)
{
    (void)state;
    fill_and_keep_still(20, 4, 9000);
    one_pass();
    uint64_t completed = upkeep().scrub.last_completed_ms;
    assert_true(completed > 0);
    rebuild_pause(w.pool, true); /* nobody makes up for it: its images stay listed */
    w.ram.targets[HURT].present = false;
    pass_seconds(2);
    one_pass();
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_false(r->complete);
    assert_true(r->missed_total > 0);
    assert_int_equal(r->missed[0].member, HURT);
    assert_string_equal(r->missed[0].why, "member away");
    assert_int_equal(r->members[HURT].missed, r->missed_total);
    assert_string_equal(r->members[HURT].serial, "RAM0001");
    assert_int_equal(upkeep().scrub.last_completed_ms, completed);
}

/* They are looked at again and again, for the other images may come back; the pass does not wait for that. */
static void a_pass_ends_where_what_is_bad_here_may_be_good_on_a_member_that_is_away(void **state)
{
    (void)state;
    uint32_t hurt = 0;
    fill_and_keep_still(100, 16, 9000);
    pool_unmount(&w.pool);
    mount();
    turns(200);
    rebuild_pause(w.pool, true);
    w.ram.targets[HURT].present = false;
    pass_seconds(2);
    for (uint32_t i = 0; i < w.pool->segment_used; i++) {
        const struct segment *s = &w.pool->segments[i];
        if (s->state != SEGMENT_SEALED || s->kind != SEGMENT_MAIL || s->length <= BLOCK_BYTES || !segment_on_member(s, HURT))
            continue;
        const struct image *left = &s->images[s->images[0].member == HURT];
        w.ram.bytes[left->member][segment_image_offset(w.pool, left) + BLOCK_BYTES + 99] ^= 1;
        hurt++;
    }
    assert_true(hurt >= 4);
    one_pass();
    assert_false(scrub_report(w.pool, true)->complete);
    assert_int_equal(seen[EVENT_record_lost], 0);
    rebuild_pause(w.pool, false);
    w.ram.targets[HURT].present = true;
    pool_unmount(&w.pool);
    mount();
    pass_seconds(60);
    one_pass();
    assert_true(scrub_report(w.pool, true)->complete);
    assert_int_equal(scrub_report(w.pool, true)->places_left, 0);
    all_readable();
}

static void evidence_is_not_forgotten_while_an_image_cannot_be_read(void **state)
{
    (void)state;
    fill_and_keep_still(20, 4, 9000);
    pool_unmount(&w.pool);
    mount();
    turns(200);
    struct segment *s = segment_find(w.pool, w.sent[0].record.place.segment);
    assert_non_null(s);
    uint8_t away = s->images[1].member;
    rebuild_pause(w.pool, true);
    w.ram.held[away] = true;
    scrub_note_fault(w.pool, s, 0);
    pass_seconds(25);
    assert_true(s->suspicious);
    w.ram.held[away] = false;
    pass_seconds(40);
    assert_false(s->suspicious);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_thousand_bad_places_are_found_in_one_pass_repaired_and_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_superblock_copy_that_is_valid_and_old_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_that_was_missed_is_looked_at_again_in_the_same_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pass_says_which_images_it_could_not_see_and_is_not_complete, setup_counted, teardown),
        cmocka_unit_test_setup_teardown(a_pass_ends_where_what_is_bad_here_may_be_good_on_a_member_that_is_away, setup_counted, teardown),
        cmocka_unit_test_setup_teardown(evidence_is_not_forgotten_while_an_image_cannot_be_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
