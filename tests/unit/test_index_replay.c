/* SPDX-License-Identifier: Apache-2.0 */
/* What a replay makes of the log: the same in any order and from any place, and what the live index said (spoolfs/index.h). */
#include "test_index_world.h"

/* --- IDX-2 --- */

#define STORY_SEGMENTS 6
#define STORY_RECORDS 400

struct story { struct made records[STORY_SEGMENTS][STORY_RECORDS]; uint32_t count[STORY_SEGMENTS]; };

static void tell(struct story *s, uint64_t where, struct made m, uint64_t sequence)
{
    m.r.sequence = sequence;
    m.r.place.frame = 4096 * (1 + s->count[where - 1]);
    assert_true(s->count[where - 1] < STORY_RECORDS);
    s->records[where - 1][s->count[where - 1]++] = m;
}

/* A random history of messages, results, moves and conflicts, over all segments. */
static void story_make(struct story *s, uint64_t seed)
{
    struct prng p = {seed};
    uint64_t sequence = 0;
    memset(s, 0, sizeof *s);
    for (uint64_t q = 1; q <= 60; q++) {
        uint64_t home = 1 + prng_below(&p, STORY_SEGMENTS);
        uint32_t results = (uint32_t)prng_below(&p, 6);
        tell(s, home, message(q, home, 1), ++sequence);
        if (prng_below(&p, 8) == 0) { /* another one */
            uint64_t other = 1 + prng_below(&p, STORY_SEGMENTS);
            struct made m = message(q, other, 1);
            m.r.digest.lo += 1000;
            tell(s, other, m, ++sequence);
        }
        for (uint32_t i = 0; i < results; i++) {
            uint64_t at = 1 + prng_below(&p, STORY_SEGMENTS);
            switch (prng_below(&p, 6)) {
            case 0:
            case 1:
                tell(s, at, mark(q, at, home, 0, MARK_DEFERRED, 5000 + sequence), sequence + 1);
                break;
            case 2:
                tell(s, at, result(RECORD_STATE, q, at, home, 1 + (uint32_t)prng_below(&p, 4)), sequence + 1);
                break;
            case 3:
                tell(s, at, result(RECORD_RETIRE, q, at, home, 0), sequence + 1);
                break;
            case 4:
                if (at != home) {
                    struct made m = message(q, at, 1);
                    m.r.moved = true;
                    tell(s, at, m, sequence + 1);
                    home = at;
                }
                break;
            default:
                tell(s, at, chunk(q, i, at), sequence + 1);
            }
            sequence++;
        }
    }
}

static uint32_t story_sum(struct world *w, char *text, size_t size)
{
    struct index_query q = {.kind = INDEX_LIST};
    size_t used = 0;
    assert_int_equal(ask(w, &q), ERR_OK);
    for (uint32_t i = 0; i < q.entry_count; i++) {
        const struct index_entry *e = &q.entries[i];
        used += (size_t)snprintf(text + used, size - used, "%u/%u@%u:%u,%u state %u attempts %u due %u marks %u\n",
                                 (unsigned)e->qid.counter, (unsigned)e->digest.lo, (unsigned)e->place.segment.counter,
                                 (unsigned)e->place.frame, (unsigned)e->chunk_count, e->state, e->attempts,
                                 (unsigned)e->next_due_ms, e->marks_bytes);
        assert_true(used < size);
    }
    uint32_t count = q.entry_count;
    index_query_fini(&q);
    for (uint64_t n = 1; n <= STORY_SEGMENTS; n++) {
        const struct index_segment *s = segment(w, n);
        used += (size_t)snprintf(text + used, size - used, "segment %u: %u messages %u chunks %u bytes %u deps\n",
                                 (unsigned)n, s->live_messages, s->live_chunks, (unsigned)s->live_bytes, s->dep_count);
        assert_true(used < size);
    }
    struct index_counts c = summary(w);
    assert_int_equal(c.messages, count);
    assert_int_equal(c.active + c.deferred + c.hold, count);
    return count;
}

/* The first line that is not the same. */
static const char *difference(char *a, char *b)
{
    static char text[400];
    char *save_a, *save_b;
    char *x = strtok_r(a, "\n", &save_a), *y = strtok_r(b, "\n", &save_b);
    while (x && y && strcmp(x, y) == 0) {
        x = strtok_r(NULL, "\n", &save_a);
        y = strtok_r(NULL, "\n", &save_b);
    }
    snprintf(text, sizeof text, "%s, but also %s", x ? x : "nothing", y ? y : "nothing");
    return text;
}

static void story_replay(struct world *w, const struct story *s, struct prng *p)
{
    uint32_t order[STORY_SEGMENTS], at[STORY_SEGMENTS] = {0}, left = 0;
    assert_int_equal(index_replay_begin(w->index, true), ERR_OK);
    for (uint32_t i = 0; i < STORY_SEGMENTS; i++) {
        order[i] = i;
        left += s->count[i];
    }
    for (uint32_t i = STORY_SEGMENTS - 1; i > 0; i--) {
        uint32_t j = (uint32_t)prng_below(p, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    bool mixed = prng_below(p, 2);
    for (uint32_t i = 0; left > 0;) {
        uint32_t n = mixed ? (uint32_t)prng_below(p, STORY_SEGMENTS) : order[i];
        if (at[n] == s->count[n]) {
            i = i + 1 < STORY_SEGMENTS ? i + 1 : i;
            continue;
        }
        feed(w, s->records[n][at[n]++]);
        left--;
        if (prng_below(p, 40) == 0) {
            assert_int_equal(index_watermark(w->index, seg(n + 1), at[n], seg(0)), ERR_OK);
            settle(w); /* a batch ends here */
        }
    }
    for (uint32_t n = 0; n < STORY_SEGMENTS; n++)
        assert_int_equal(index_watermark(w->index, seg(n + 1), 1 << 20, seg(0)), ERR_OK);
    assert_int_equal(index_replay_end(w->index), ERR_OK);
}

static void a_replay_comes_out_the_same_in_any_order(enum kind kind)
{
    static struct story s;
    static char first[65536], again[65536];
    for (uint64_t seed = 1; seed <= (kind == MEM ? 40 : 4); seed++) {
        struct world w;
        struct prng p = {seed * 1000};
        story_make(&s, seed);
        world_start(&w, kind);
        assert_int_equal(index_incarnation(w.index, 999, false), ERR_OK);
        story_replay(&w, &s, &p);
        assert_true(story_sum(&w, first, sizeof first) > 5);
        for (uint32_t i = 0; i < 4; i++) {
            story_replay(&w, &s, &p);
            story_sum(&w, again, sizeof again);
            if (strcmp(first, again) != 0)
                fail_msg("seed %u: %s", (unsigned)seed, difference(first, again));
        }
        assert_int_equal(w.damages, 0);
        world_end(&w);
    }
}

/* --- live and rebuilt --- */

/* A history as the engine makes it: results of messages that are there, moves of those that are alive. Fed live to
 * one index and told to the story for the other. */
struct alive { bool there; uint64_t segment; };

static void both(struct world *w, struct story *s, uint64_t where, struct made m)
{
    m.r.place.frame = 4096 * (1 + s->count[where - 1]);
    tell(s, where, m, ++w->sequence);
    feed(w, s->records[where - 1][s->count[where - 1] - 1]);
}

static void lead_a_life(struct world *w, struct story *s, struct prng *p)
{
    struct alive m[80] = {{0}};
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < 900; i++) {
        uint64_t q = 1 + prng_below(p, 79), at = 1 + prng_below(p, STORY_SEGMENTS);
        struct alive *a = &m[q];
        if (a->segment == 0) {
            both(w, s, at, message(q, at, 1));
            *a = (struct alive){true, at};
        } else if (a->there) {
            switch (prng_below(p, 8)) {
            case 0:
                both(w, s, at, result(RECORD_RETIRE, q, at, a->segment, 0));
                a->there = false;
                break;
            case 1:
                if (at > a->segment) { /* compaction writes to newer segments */
                    struct made moved = message(q, at, 1);
                    moved.r.moved = true;
                    both(w, s, at, moved);
                    a->segment = at;
                }
                break;
            case 2:
                both(w, s, at, result(RECORD_STATE, q, at, a->segment, 1 + (uint32_t)prng_below(p, 4)));
                break;
            default:
                both(w, s, at, mark(q, at, a->segment, 0, MARK_DEFERRED, 5000 + i));
            }
        }
        if (prng_below(p, 50) == 0)
            settle(w);
    }
    for (uint64_t n = 1; n <= STORY_SEGMENTS; n++)
        assert_int_equal(index_watermark(w->index, seg(n), 1 << 20, seg(0)), ERR_OK);
}

static void a_rebuilt_index_says_what_the_live_one_said(enum kind kind)
{
    static struct story s;
    static char first[65536], again[65536];
    for (uint64_t seed = 1; seed <= (kind == MEM ? 20 : 2); seed++) {
        struct world w;
        struct prng p = {seed};
        world_start(&w, kind);
        live(&w);
        lead_a_life(&w, &s, &p);
        assert_true(story_sum(&w, first, sizeof first) > 5);
        for (uint32_t i = 0; i < 3; i++) {
            story_replay(&w, &s, &p);
            story_sum(&w, again, sizeof again);
            if (strcmp(first, again) != 0)
                fail_msg("seed %u: %s", (unsigned)seed, difference(first, again));
        }
        world_end(&w);
    }
}

static void a_replay_in_the_middle_goes_on_from_what_is_there(enum kind kind)
{
    struct world w;
    struct index_entry e;
    struct index_query q;
    world_start(&w, kind);
    assert_int_equal(index_incarnation(w.index, 9, false), ERR_OK); /* that of seg() */
    live(&w);
    feed(&w, message(1, 1, 1));
    feed(&w, message(2, 1, 2));
    feed(&w, chunk(3, 0, 1)); /* its append is under way */
    settle(&w);
    assert_int_equal(index_replay_begin(w.index, false), ERR_OK);
    feed(&w, result(RECORD_RETIRE, 1, 2, 1, 0));
    feed(&w, result(RECORD_RETIRE, 5, 2, 2, 0)); /* before its MESSAGE */
    feed(&w, message(5, 2, 3));
    feed(&w, chunk(3, 1, 2));
    feed(&w, chunk(4, 0, 2));
    struct made m = message(4, 2, 4);
    m.r.arg = 1;
    feed(&w, m);
    feed(&w, result(RECORD_RETIRE, 4, 2, 2, 0));
    assert_int_equal(index_replay_end(w.index), ERR_OK);
    assert_int_equal(lookup(&w, 1, &e), ERR_NOT_FOUND);
    assert_int_equal(lookup(&w, 2, &e), ERR_OK);
    assert_int_equal(lookup(&w, 5, &e), ERR_NOT_FOUND);
    assert_int_equal(chunks(&w, 3, 0, &q), ERR_OK);
    assert_int_equal(q.max, 2);
    index_query_fini(&q);
    assert_int_equal(chunks(&w, 4, 0, &q), ERR_NOT_FOUND); /* went with its message */
    index_query_fini(&q);
    assert_int_equal(segment(&w, 2)->live_chunks, 1);
    world_end(&w);
}

#define BOTH(X)                                                                                                        \
    X(a_replay_comes_out_the_same_in_any_order)                                                                        \
    X(a_rebuilt_index_says_what_the_live_one_said)                                                                     \
    X(a_replay_in_the_middle_goes_on_from_what_is_there)

BOTH(DEFINE)

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(LIST)};
    return cmocka_run_group_tests_name("index replay", tests, NULL, NULL);
}
