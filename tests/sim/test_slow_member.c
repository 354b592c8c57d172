/* SPDX-License-Identifier: Apache-2.0 */
/* One member gets slow under steady mail, in virtual time on simulated disks: mail does not feel it for long, the member is
 * named and taken out with evidence, and comes back when it is as fast as its peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine.h"

#include <sim_io.h>
#include <spoolfs/format.h>
#include <spoolfs/pool.h>
#include <spoolfs/spool.h>
#include <spoolfs/upkeep.h>

#define MS NS_PER_MS
#define SECOND NS_PER_S
#define SEGMENT (2 * MIB)
#define MAILS_MAX 60000u
#define AT_ONCE 8u

struct mail {
    struct spool_group group;
    struct spool_record record;
    uint64_t begun_ns;
    bool out;
};

static struct {
    struct sim_io *sim;
    struct io *io;
    struct pool_config config;
    struct pool *pool;
    struct mail mails[AT_ONCE];
    struct { uint64_t end_ns, took_ns; } done[MAILS_MAX];
    uint32_t count, refused;
    uint64_t next_ns, every_ns;
    uint32_t bytes;
    char slow_evidence[256], events[64];
    uint64_t slow_ns;
    uint32_t flagged;
} w;

static uint8_t body[32768];

static void on_event(void *owner, const struct event *e)
{
    (void)owner;
    if (getenv("TRACE"))
        fprintf(stderr, "%.3f %s %s: %s\n", (double)sim_io_now(w.sim) / 1e9, event_name(e->kind), e->member, e->evidence);
    if (e->kind != EVENT_member_state)
        return;
    w.flagged++;
    if (strstr(e->evidence, "-> slow") && w.slow_ns == 0) {
        w.slow_ns = sim_io_now(w.sim);
        snprintf(w.slow_evidence, sizeof w.slow_evidence, "%s: %s", e->member, e->evidence);
    }
}

static int start_on(uint32_t members, uint32_t per_domain, struct sim_latency latency, bool rotational)
{
    memset(&w, 0, sizeof w);
    w.every_ns = 20 * MS;
    w.bytes = 1000;
    w.sim = sim_io_make(11);
    w.io = sim_io_door(w.sim);
    w.config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = 2 * SECOND, .member_count = members,
                                    .sink = {.emit = on_event}};
    for (uint32_t i = 0; i < members; i++) {
        struct sim_member_shape shape = {.latency = latency, .rotational = rotational,
                                         .disk = {.bytes = 256 * SEGMENT + 256 * KIB, .is_file = true, .seed = i}};
        snprintf(shape.domain, sizeof shape.domain, "disk:%u", i);
        (void)sim_io_add_member(w.sim, &shape);
        snprintf(w.config.members[i].name, sizeof w.config.members[i].name, "%c", 'a' + (int)i);
        snprintf(w.config.members[i].domain, sizeof w.config.members[i].domain, "shelf:%u", i / per_domain);
    }
    struct pool_create_options o = {.segment_bytes = SEGMENT};
    struct uuid id;
    const char *text;
    assert_int_equal(pool_create(w.io, &w.config, &o, &id, &text), ERR_OK);
    assert_int_equal(pool_mount(w.io, &w.config, &w.pool, &text), ERR_OK);
    return 0;
}

static int setup_four(void **state) { (void)state; return start_on(4, 1, SIM_LATENCY_SSD, false); }
static int setup_three(void **state) { (void)state; return start_on(3, 1, SIM_LATENCY_SSD, false); }
static int setup_shelves(void **state) { (void)state; return start_on(6, 2, SIM_LATENCY_SSD, false); }
static int setup_arms(void **state) { (void)state; return start_on(4, 1, SIM_LATENCY_ARMS, true); }
static int setup_virtual(void **state) { (void)state; return start_on(4, 1, SIM_LATENCY_SSD, true); } /* as kernels say of virtual disks */

static int teardown(void **state)
{
    (void)state;
    pool_unmount(&w.pool);
    sim_io_free(&w.sim);
    return 0;
}

static void on_answer(struct spool_group *g, enum err e)
{
    struct mail *m = g->owner;
    m->out = false;
    if (e != ERR_OK) {
        w.refused++;
        return;
    }
    if (w.count == MAILS_MAX)
        return;
    w.done[w.count].end_ns = sim_io_now(w.sim);
    w.done[w.count++].took_ns = sim_io_now(w.sim) - m->begun_ns;
}

/* A mail now and then, as far as AT_ONCE are not out. */
static void offer(void)
{
    if (sim_io_now(w.sim) < w.next_ns)
        return;
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        struct mail *m = &w.mails[i];
        if (m->out)
            continue;
        *m = (struct mail){.begun_ns = sim_io_now(w.sim)};
        m->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = spool_lend_queue_ids(w.pool, 1), .envelope_bytes = 64,
                                          .parts = {{body, 64}, {body, 1000}, {body, w.bytes}}};
        m->group = (struct spool_group){.records = &m->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer,
                                        .owner = m};
        m->out = spool_submit(w.pool, &m->group) == ERR_OK;
        w.next_ns = sim_io_now(w.sim) + w.every_ns;
        return;
    }
}

static void mail_for(uint64_t seconds)
{
    uint64_t until = sim_io_now(w.sim) + seconds * SECOND;
    while (sim_io_now(w.sim) < until) {
        offer();
        uint64_t now = sim_io_now(w.sim);
        io_turn(w.io, now < w.next_ns ? w.next_ns - now : MS);
        pool_step(w.pool);
    }
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t p99(uint64_t from, uint64_t to)
{
    static uint64_t sorted[MAILS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < w.count; i++)
        if (w.done[i].end_ns >= from && w.done[i].end_ns < to)
            sorted[n++] = w.done[i].took_ns;
    assert_true(n > 20);
    qsort(sorted, n, sizeof sorted[0], by_size);
    return sorted[(n * 99 + 99) / 100 - 1];
}

static enum member_state state_of(uint32_t member)
{
    static struct pool_status s;
    pool_status(w.pool, &s);
    return s.members[member].state;
}

static void a_member_a_hundred_times_slower_is_out_within_a_minute_and_mail_recovers_in_a_second(void **state)
{
    (void)state;
    mail_for(30);
    uint64_t t = sim_io_now(w.sim), normal = p99(t - 10 * SECOND, t);
    assert_int_equal(w.flagged, 0);
    sim_io_slow(w.sim, 1, 100);
    mail_for(60);
    assert_true(w.slow_ns > 0 && w.slow_ns - t < 60 * SECOND);
    assert_non_null(strstr(w.slow_evidence, "b: "));
    assert_non_null(strstr(w.slow_evidence, "times what"));
    uint64_t after = p99(t + 1 * SECOND, t + 10 * SECOND);
    print_message("p99 %.1f ms before, %.1f ms in the first second, %.1f ms after it; out after %.1f s: %s\n", (double)normal / 1e6,
                  (double)p99(t, t + SECOND) / 1e6, (double)after / 1e6, (double)(w.slow_ns - t) / 1e9, w.slow_evidence);
    assert_true(after < 2 * normal);
    assert_true(p99(t + 10 * SECOND, t + 60 * SECOND) < 2 * normal);
    assert_int_equal(w.refused, 0);
    sim_io_slow(w.sim, 1, 1); /* it is well again: probes find out */
    mail_for(120);
    assert_int_equal(state_of(1), MEMBER_HEALTHY);
}

static void count_commits(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    (void)index;
    (void)fate;
    uint32_t *count = owner;
    *count += op->target == 1 && op->class == IO_CLASS_COMMIT && op->offset >= 64 * KIB && op->offset < 256 * SEGMENT;
}

/* WAT-4: while it is slow, what it is asked are probes; mail goes there again when they are good. */
static void mail_does_not_try_a_slow_member_again(void **state)
{
    (void)state;
    static uint32_t commits;
    w.every_ns = 2 * MS; /* so much that a segment is opened every half second */
    w.bytes = 8000;
    mail_for(30);
    sim_io_slow(w.sim, 1, 100); /* out after some 18 s */
    mail_for(2);
    sim_io_on_submit(w.sim, &commits, count_commits);
    uint64_t t = sim_io_now(w.sim);
    mail_for(30);
    print_message("%u commits on the slow member, p99 of those 30 s %.1f ms\n", commits, (double)p99(t, t + 30 * SECOND) / 1e6);
    assert_int_equal(commits, 0);
    sim_io_slow(w.sim, 1, 1);
    w.every_ns = 20 * MS;
    mail_for(90);
    assert_true(commits > 0);
    assert_int_equal(w.refused, 0);
}

/* From the first evidence on: what is out there goes elsewhere, and what comes goes where it need not wait. */
static void slow_now(void)
{
    uint64_t t = sim_io_now(w.sim), normal = p99(t - 4 * SECOND, t), worst = 0;
    uint32_t late = 0, late_after = 0;
    const struct segment *open = w.pool->appenders[1].segment;
    assert_non_null(open);
    sim_io_slow(w.sim, open->images[0].member, 1000);
    mail_for(15);
    for (uint32_t i = 0; i < w.count; i++) {
        uint64_t took = w.done[i].end_ns < t ? 0 : w.done[i].took_ns;
        late += took > 50 * MS;
        late_after += took > 50 * MS && w.done[i].end_ns > t + SECOND;
        worst = took > worst ? took : worst;
    }
    print_message("p99 %.1f ms before; the longest took %.1f ms, %u more than 50 ms\n", (double)normal / 1e6,
                  (double)worst / 1e6, late);
    assert_int_equal(late_after, 0);
    assert_true(worst < 200 * MS);
    assert_int_equal(w.refused, 0);
}

static void slow_after(uint64_t seconds)
{
    w.every_ns = 2 * MS;
    mail_for(seconds);
    slow_now();
}

static void nothing_waits_for_a_slow_member_after_the_first_evidence(void **state)
{
    (void)state;
    slow_after(30);
}

/* No window says yet what it used to take. */
static void nor_for_one_that_gets_slow_soon_after_the_start(void **state)
{
    (void)state;
    slow_after(5);
}

/* WAT-5: fifty commits of 10 to 90 ms in a row are waited for on an arm. */
static void nor_for_a_virtual_disk_that_is_said_to_have_an_arm(void **state)
{
    (void)state;
    w.every_ns = 2 * MS;
    mail_for(30);
    uint64_t t = sim_io_now(w.sim);
    uint8_t slow = w.pool->appenders[1].segment->images[0].member;
    sim_io_slow(w.sim, slow, 100);
    mail_for(1);
    print_message("p99 %.1f ms before, %.1f ms in the first second\n", (double)p99(t - SECOND, t) / 1e6, (double)p99(t, t + SECOND) / 1e6);
    assert_true(w.pool->members[slow].watch.steered);
    sim_io_slow(w.sim, slow, 1);
    mail_for(20);
    slow_after(10);
}

static void an_arm_is_given_the_time_of_an_arm(void **state)
{
    (void)state;
    mail_for(120);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(w.pool->members[i].watch.steers, 0);
}

/* It may be the only one that could say so for as long as mail goes to the others. */
static void a_peer_that_was_late_before_it_was_idle_says_nothing(void **state)
{
    (void)state;
    mail_for(15);
    const struct segment *s = w.pool->appenders[1].segment, *next = w.pool->appenders[1].next;
    assert_non_null(s);
    assert_true(next == NULL || segment_members(next) == segment_members(s));
    for (uint8_t i = 0; i < 3; i++)
        if (!segment_on_member(s, i)) {
            w.pool->members[i].watch.late_row = 1;
            w.pool->members[i].watch.answered_ns = sim_io_now(w.sim) - 2 * SECOND;
        }
    slow_now();
}

struct probes { uint8_t of; uint32_t count; };

static void probes_take_long(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    (void)index;
    struct probes *p = owner;
    if (op->target != p->of || op->kind != IO_WRITE || op->offset != 2 * SUPERBLOCK_BYTES)
        return;
    fate->delay_ns = 400 * MS;
    p->count++;
}

/* Events tell what changes: that a member is slow while it is known to be is none. */
static void probes_of_a_slow_member_are_no_news(void **state)
{
    (void)state;
    static struct probes probes;
    w.every_ns = 2 * MS;
    mail_for(30);
    uint8_t slow = probes.of = w.pool->appenders[1].segment->images[0].member;
    sim_io_slow(w.sim, slow, 100);
    mail_for(1);
    assert_true(w.pool->members[slow].watch.steered);
    uint32_t before = w.flagged;
    sim_io_on_submit(w.sim, &probes, probes_take_long);
    mail_for(8);
    assert_true(probes.count > 5);
    assert_int_equal(state_of(slow), MEMBER_HEALTHY);
    assert_int_equal(w.flagged, before);
}

/* TAB-6: its part of the segment table is late, the table moves, and the members that hold it then are enough. */
static void superblocks_that_take_seconds_on_one_member_do_not_hold_the_mail(void **state)
{
    (void)state;
    mail_for(30);
    uint64_t t = sim_io_now(w.sim), worst = 0;
    sim_io_slow(w.sim, 0, 1000);
    mail_for(20);
    for (uint32_t i = 0; i < w.count; i++)
        if (w.done[i].end_ns >= t && w.done[i].took_ns > worst)
            worst = w.done[i].took_ns;
    print_message("a member a thousand times slower: no mail took longer than %.1f ms\n", (double)worst / 1e6);
    assert_true(worst > 0 && worst < w.config.degrade_after_ns / 2);
    assert_int_equal(w.refused, 0);
}

static void remount(void)
{
    const char *text;
    pool_unmount(&w.pool);
    assert_int_equal(pool_mount(w.io, &w.config, &w.pool, &text), ERR_OK);
}

/* So much mail that a segment is opened every 65 ms: each OPEN and SEAL goes through the segment table. */
static void the_segment_table_leaves_a_slow_member_as_mail_does(void **state)
{
    (void)state;
    w.every_ns = 1 * MS;
    w.bytes = sizeof body;
    mail_for(15);
    uint64_t t = sim_io_now(w.sim), normal = 0;
    for (uint64_t n = 1; n <= 10; n++) { /* the disks' tails make some seconds twice what others are: seconds with seconds */
        uint64_t before = p99(t - n * SECOND, t - (n - 1) * SECOND);
        normal = before > normal ? before : normal;
    }
    uint8_t slow = w.pool->table_segment->images[0].member;
    sim_io_slow(w.sim, slow, 100);
    mail_for(9);
    print_message("p99 %.1f ms before, %.1f ms in the first second\n", (double)normal / 1e6, (double)p99(t, t + SECOND) / 1e6);
    for (uint64_t n = 1; n < 9; n++) {
        uint64_t after = p99(t + n * SECOND, t + (n + 1) * SECOND);
        print_message("%.1f ms in second %llu\n", (double)after / 1e6, (unsigned long long)n);
        assert_true(after < 2 * normal);
    }
    assert_false(segment_on_member(w.pool->table_segment, slow));
    assert_int_equal(w.refused, 0);
}

static void a_member_that_is_slow_again_and_again_stays_out_until_cleared(void **state)
{
    (void)state;
    w.every_ns = 50 * MS;
    mail_for(30);
    for (uint32_t n = 0; n < 3; n++) {
        sim_io_slow(w.sim, 2, 100);
        mail_for(40);
        assert_int_equal(state_of(2), MEMBER_SLOW);
        sim_io_slow(w.sim, 2, 1);
        mail_for(n < 2 ? 200 : 1); /* a probe that meets the tail of a healthy disk's latencies doubles the pause once */
        if (n < 2)
            assert_int_equal(state_of(2), MEMBER_HEALTHY);
    }
    mail_for(200);
    static struct pool_status s;
    pool_status(w.pool, &s);
    assert_int_equal(s.members[2].state, MEMBER_SLOW);
    assert_true(s.members[2].health.stays_out);
    assert_false(s.members[2].health.of_before); /* but for what was seen in this mount */
    assert_non_null(strstr(s.members[2].evidence, "until cleared"));
    remount(); /* a restart is no way back */
    mail_for(200);
    pool_status(w.pool, &s);
    assert_int_equal(s.members[2].state, MEMBER_SLOW);
    assert_true(s.members[2].health.stays_out && s.members[2].health.of_before);
    assert_int_equal(member_clear(w.pool, "c"), ERR_OK);
    mail_for(20);
    assert_int_equal(state_of(2), MEMBER_HEALTHY);
    remount();
    mail_for(20);
    assert_int_equal(state_of(2), MEMBER_HEALTHY);
}

/* The first frame of each image of mail on a member no longer verifies. */
static uint32_t rot(uint16_t member)
{
    struct sim_disk *disk = sim_io_disk(w.sim, member);
    uint32_t count = 0;
    for (uint64_t at = 64 * KIB; at + SEGMENT <= 256 * SEGMENT; at += SEGMENT) {
        uint8_t block[BLOCK_BYTES];
        struct image_head_disk head;
        if (sim_disk_read(disk, at, BLOCK_BYTES, block) != ERR_OK)
            continue;
        memcpy(&head, block, sizeof head);
        if (le64_get(head.magic) != IMAGE_MAGIC || le32_get(head.kind) != SEGMENT_MAIL)
            continue;
        sim_disk_rot(disk, at + BLOCK_BYTES + 200, 1);
        count++;
    }
    return count;
}

static void get_slow(uint16_t member)
{
    sim_io_slow(w.sim, member, 100);
    for (uint32_t n = 0; n < 60 && state_of(member) != MEMBER_SLOW; n++)
        mail_for(1);
    assert_int_equal(state_of(member), MEMBER_SLOW);
}

static const struct scrub_report *scrubbed(void)
{
    struct upkeep_status before, now;
    upkeep_status(w.pool, &before);
    scrub_start(w.pool);
    do {
        mail_for(1);
        upkeep_status(w.pool, &now);
    } while (now.scrub.passes == before.scrub.passes);
    return scrub_report(w.pool, true);
}

/* REP-4 */
static void what_is_damaged_on_a_slow_member_is_repaired_there(void **state)
{
    (void)state;
    mail_for(60);
    get_slow(2);
    uint32_t count = rot(2);
    assert_true(count > 1);
    const struct scrub_report *r = scrubbed();
    assert_int_equal(state_of(2), MEMBER_SLOW);
    assert_true(r->members[2].repaired >= count - 1); /* one of them may lie in the slot of a segment that is freed */
    assert_int_equal(r->places_left, 0);
    assert_int_equal(r->missed_total, 0);
    assert_int_equal(scrubbed()->places_found, 0);
    assert_int_equal(w.refused, 0);
}

static void stall_in_a_repair(void *owner, const struct io_op *op, uint64_t index, struct sim_fate *fate)
{
    (void)owner;
    (void)index;
    (void)fate;
    if (op->class == IO_CLASS_REPAIR && op->target == 2 && op->kind == IO_WRITE)
        sim_io_stall(w.sim, 2, 900 * SECOND);
}

/* REP-4 */
static void a_repair_that_hangs_on_a_slow_member_holds_up_no_rebuild(void **state)
{
    (void)state;
    mail_for(60);
    get_slow(2);
    assert_true(rot(2) > 1);
    sim_io_on_submit(w.sim, NULL, stall_in_a_repair);
    scrub_start(w.pool);
    mail_for(400);
    struct upkeep_status u;
    upkeep_status(w.pool, &u);
    assert_int_equal(u.rebuild.bytes_remaining, 0);
    assert_true(u.scrub.passes > 0 || u.scrub.state == UPKEEP_RUNNING);
    sim_io_on_submit(w.sim, NULL, NULL);
    mail_for(900); /* it answers again: the late write ends in a place that is nobody's */
    assert_int_equal(scrubbed()->places_left, 0);
    assert_int_equal(w.refused, 0);
    assert_string_equal(sim_io_violation(w.sim), "");
}

static void when_all_are_slow_nobody_is(void **state)
{
    (void)state;
    mail_for(30);
    for (uint16_t i = 0; i < 4; i++)
        sim_io_slow(w.sim, i, 10);
    mail_for(120);
    assert_int_equal(w.flagged, 0);
    assert_int_equal(w.refused, 0);
}

static void a_shelf_that_is_slow_is_named_and_its_members_stay(void **state)
{
    (void)state;
    mail_for(60);
    sim_io_slow(w.sim, 2, 60);
    sim_io_slow(w.sim, 3, 60);
    mail_for(120);
    assert_int_not_equal(state_of(2), MEMBER_SLOW);
    assert_int_not_equal(state_of(3), MEMBER_SLOW);
    assert_int_equal(w.slow_ns, 0);
}

static void what_a_drive_says_of_itself_empties_it_while_there_is_enough(void **state)
{
    (void)state;
    mail_for(5);
    assert_int_equal(member_smart(w.pool, "nobody", true, "x"), ERR_NOT_FOUND);
    assert_int_equal(member_smart(w.pool, "a", false, "passed"), ERR_OK);
    assert_int_equal(state_of(0), MEMBER_HEALTHY);
    assert_int_equal(member_smart(w.pool, "a", true, "the drive says it is failing"), ERR_OK);
    assert_int_equal(state_of(0), MEMBER_FAILING);
    assert_int_equal(member_smart(w.pool, "b", true, "the drive says it is failing"), ERR_OK);
    assert_int_equal(state_of(1), MEMBER_FAILING);
    assert_int_equal(member_smart(w.pool, "c", true, "the drive says it is failing"), ERR_OK);
    assert_int_equal(state_of(2), MEMBER_SUSPECT); /* WAT-1 */
    mail_for(10);
    assert_int_equal(state_of(2), MEMBER_SUSPECT);
    assert_int_equal(member_clear(w.pool, "b"), ERR_OK); /* it was a mistake: now c can be spared */
    mail_for(10);
    assert_int_equal(state_of(1), MEMBER_HEALTHY);
    assert_int_equal(state_of(2), MEMBER_FAILING);
    assert_int_equal(w.refused, 0);
}

int main(int argc, char **argv)
{
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_member_a_hundred_times_slower_is_out_within_a_minute_and_mail_recovers_in_a_second, setup_four, teardown),
        cmocka_unit_test_setup_teardown(mail_does_not_try_a_slow_member_again, setup_four, teardown),
        cmocka_unit_test_setup_teardown(nothing_waits_for_a_slow_member_after_the_first_evidence, setup_four, teardown),
        cmocka_unit_test_setup_teardown(nor_for_one_that_gets_slow_soon_after_the_start, setup_four, teardown),
        cmocka_unit_test_setup_teardown(nor_for_a_virtual_disk_that_is_said_to_have_an_arm, setup_virtual, teardown),
        cmocka_unit_test_setup_teardown(an_arm_is_given_the_time_of_an_arm, setup_arms, teardown),
        cmocka_unit_test_setup_teardown(a_peer_that_was_late_before_it_was_idle_says_nothing, setup_three, teardown),
        cmocka_unit_test_setup_teardown(probes_of_a_slow_member_are_no_news, setup_four, teardown),
        cmocka_unit_test_setup_teardown(superblocks_that_take_seconds_on_one_member_do_not_hold_the_mail, setup_four, teardown),
        cmocka_unit_test_setup_teardown(the_segment_table_leaves_a_slow_member_as_mail_does, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_member_that_is_slow_again_and_again_stays_out_until_cleared, setup_four, teardown),
        cmocka_unit_test_setup_teardown(what_is_damaged_on_a_slow_member_is_repaired_there, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_repair_that_hangs_on_a_slow_member_holds_up_no_rebuild, setup_four, teardown),
        cmocka_unit_test_setup_teardown(when_all_are_slow_nobody_is, setup_four, teardown),
        cmocka_unit_test_setup_teardown(a_shelf_that_is_slow_is_named_and_its_members_stay, setup_shelves, teardown),
        cmocka_unit_test_setup_teardown(what_a_drive_says_of_itself_empties_it_while_there_is_enough, setup_four, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
