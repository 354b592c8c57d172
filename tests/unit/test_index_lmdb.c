/* SPDX-License-Identifier: Apache-2.0 */
/* What only the index over LMDB promises: it is there after a restart, damage is noticed and never answered from, it
 * never blocks whoever feeds it, and a full file system delays without losing. */
#include "test_index_world.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MESSAGES 300u

static void feed_some(struct world *w)
{
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        feed(w, message(i, 1 + i % 3, i));
        if (i % 3 == 0)
            feed(w, mark(i, 4, 1 + i % 3, 0, MARK_DEFERRED, 9000 + i));
        if (i % 5 == 0)
            feed(w, result(RECORD_RETIRE, i, 4, 1 + i % 3, 0));
    }
    for (uint64_t s = 1; s <= 4; s++)
        assert_int_equal(index_watermark(w->index, seg(s), 4096 * s, seg(0)), ERR_OK);
}

/* ERR_OK: exactly what feed_some leaves; ERR_CORRUPT: it says that it cannot tell. Nothing else may come. */
static enum err check_some(struct world *w)
{
    struct index_query q = {.kind = INDEX_LIST};
    uint64_t next = 1;
    do {
        enum err e = ask(w, &q);
        if (e != ERR_OK) {
            assert_int_equal(e, ERR_CORRUPT);
            index_query_fini(&q);
            return e;
        }
        for (uint32_t i = 0; i < q.entry_count; i++, next++) {
            const struct index_entry *e_at = &q.entries[i];
            while (next % 5 == 0)
                next++;
            assert_int_equal(e_at->qid.counter, next);
            assert_int_equal(e_at->place.frame, next * 4096);
            assert_int_equal(e_at->next_due_ms, next % 3 == 0 ? 9000 + next : 1000 + next);
        }
        index_query_fini(&q);
    } while (q.more);
    assert_int_equal(next, MESSAGES);
    return ERR_OK;
}

static void rebuild(struct world *w)
{
    assert_int_equal(index_replay_begin(w->index, true), ERR_OK);
    feed_some(w);
    assert_int_equal(index_replay_end(w->index), ERR_OK);
    assert_int_equal(check_some(w), ERR_OK);
}

static void file_of(const struct world *w, char path[128])
{
    snprintf(path, 128, "%s/index.mdb", w->directory);
}

static uint8_t *file_read(const struct world *w, size_t *size_out)
{
    char path[128];
    struct stat st;
    file_of(w, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *bytes = malloc((size_t)st.st_size);
    assert_non_null(bytes);
    assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    *size_out = (size_t)st.st_size;
    return bytes;
}

/* In place, so that a running index sees it. */
static void file_write(const struct world *w, const uint8_t *bytes, size_t size, size_t length)
{
    char path[128];
    file_of(w, path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, 0), (ssize_t)size);
    assert_int_equal(ftruncate(fd, (off_t)length), 0);
    close(fd);
}

static void an_index_is_there_after_a_restart(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, LMDB);
    live(&w);
    feed_some(&w);
    index_close(&w.index); /* applies what was fed */
    world_open(&w);
    assert_int_equal(w.open_error, ERR_OK);
    assert_int_equal(w.segment_count, 4); /* told before on_open */
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(w.segments[i].watermark, 4096 * w.segments[i].id.counter);
    assert_int_equal(check_some(&w), ERR_OK);
    assert_int_equal(summary(&w).messages, MESSAGES - MESSAGES / 5);
    world_end(&w);
}

static void an_index_of_another_pool_is_not_used(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, LMDB);
    live(&w);
    feed_some(&w);
    index_close(&w.index);
    w.pool.b[5] ^= 1;
    world_open(&w);
    assert_int_equal(w.open_error, ERR_CORRUPT);
    assert_int_equal(summary(&w).messages, 0);
    rebuild(&w);
    world_end(&w);
}

static void a_discarded_index_starts_empty(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, LMDB);
    live(&w);
    feed_some(&w);
    index_close(&w.index);
    assert_int_equal(index_lmdb_discard(w.directory), ERR_OK);
    world_open(&w);
    assert_int_equal(w.open_error, ERR_NOT_FOUND);
    assert_int_equal(summary(&w).messages, 0);
    world_end(&w);
}

enum damage { BIT, EIGHT_BYTES, PAGE_ZEROED, PAGE_SWAPPED, TRUNCATED, GARBAGE, EMPTY, DAMAGES };

static void damage(const struct world *w, const uint8_t *good, size_t size, enum damage kind, struct prng *p)
{
    uint8_t *bad = malloc(size);
    assert_non_null(bad);
    memcpy(bad, good, size);
    size_t pages = size / 4096, at = prng_below(p, size - 8), length = size;
    switch (kind) {
    case BIT:
        bad[at] ^= (uint8_t)(1u << prng_below(p, 8));
        break;
    case EIGHT_BYTES:
        for (uint32_t i = 0; i < 8; i++)
            bad[at + i] = (uint8_t)prng_next(p);
        break;
    case PAGE_ZEROED:
        memset(bad + prng_below(p, pages) * 4096, 0, 4096);
        break;
    case PAGE_SWAPPED:
        memcpy(bad + prng_below(p, pages) * 4096, good + prng_below(p, pages) * 4096, 4096);
        break;
    case TRUNCATED:
        length = prng_below(p, size);
        break;
    case GARBAGE:
        for (size_t i = 0; i < size; i++)
            bad[i] = (uint8_t)prng_next(p);
        break;
    default:
        length = 0;
    }
    file_write(w, bad, size, length);
    free(bad);
}

static void a_damaged_file_is_noticed_or_does_no_harm(void **state)
{
    (void)state;
    struct world w;
    size_t size;
    uint32_t noticed[DAMAGES] = {0};
    struct prng p = {77};
    world_start(&w, LMDB);
    live(&w);
    feed_some(&w);
    index_close(&w.index);
    uint8_t *good = file_read(&w, &size);
    for (uint32_t run = 0; run < 8 * DAMAGES; run++) {
        enum damage kind = run % DAMAGES;
        w.damages = 0;
        damage(&w, good, size, kind, &p);
        world_open(&w);
        if (w.open_error == ERR_OK) {
            enum err e = check_some(&w);
            index_dispatch(w.index);
            assert_int_equal(e == ERR_OK, w.damages == 0);
        } else {
            assert_int_equal(w.open_error, ERR_CORRUPT);
            noticed[kind]++;
            if (run < 2 * DAMAGES)
                rebuild(&w);
        }
        index_close(&w.index);
    }
    for (uint32_t kind = EIGHT_BYTES; kind < DAMAGES; kind++)
        assert_true(noticed[kind] > 0);
    free(good);
    world_open(&w);
    world_end(&w);
}

static void damage_while_it_runs_is_told_and_not_answered_from(void **state)
{
    (void)state;
    struct world w;
    struct index_entry e;
    size_t size;
    world_start(&w, LMDB);
    live(&w);
    feed_some(&w);
    settle(&w);
    uint8_t *bytes = file_read(&w, &size);
    uint32_t flipped = 0;
    for (size_t at = 0; at + 16 < size; at++)
        if (memcmp(bytes + at, "user@example.org", 16) == 0) {
            bytes[at + 2] ^= 4;
            flipped++;
        }
    assert_true(flipped >= MESSAGES / 2);
    file_write(&w, bytes, size, size);
    free(bytes);
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        enum err err = lookup(&w, i, &e);
        assert_true(err == ERR_CORRUPT || err == ERR_NOT_FOUND);
    }
    index_dispatch(w.index);
    assert_int_equal(w.damages, 1);
    feed(&w, message(9999, 1, 1)); /* taken, and dropped: the caller rebuilds */
    settle(&w);
    assert_int_equal(w.damages, 1);
    index_close(&w.index);
    assert_int_equal(index_lmdb_discard(w.directory), ERR_OK);
    w.damages = 0;
    world_open(&w);
    rebuild(&w);
    world_end(&w);
}

static void a_full_file_system_fills_the_ring_and_loses_nothing(void **state)
{
    (void)state;
    struct world w;
    struct rlimit old, tight;
    uint64_t fed = 0;
    world_start(&w, LMDB);
    live(&w);
    settle(&w);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 64 * 1024;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    enum err e = ERR_OK;
    for (; e == ERR_OK && fed < 200000; fed += e == ERR_OK) {
        struct made m = message(fed + 1, 1, fed);
        m.r.payload = m.payload;
        m.r.sequence = fed + 1;
        e = index_feed(w.index, &m.r);
        if (fed % 1000 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* the thread takes what it can */
    }
    assert_int_equal(e, ERR_INDEX_LAG);
    assert_true(index_room(w.index) < 1024);
    assert_true(fed > 16384);
    while (!index_full(w.index))
        turn(&w);
    index_dispatch(w.index);
    w.rooms = 0;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    while (w.rooms == 0)
        turn(&w);
    assert_true(index_room(w.index) >= INDEX_RING_BYTES / 2);
    assert_int_equal(summary(&w).messages, fed);
    assert_false(index_full(w.index));
    assert_int_equal(w.damages, 0);
    world_end(&w);
}

static void without_room_to_begin_it_is_full_until_there_is_some(void **state)
{
    (void)state;
    struct world w;
    struct rlimit old, none;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    world_make(&w, LMDB);
    world_open_soon(&w);
    while (!index_full(w.index))
        turn(&w);
    assert_false(w.opened);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    while (!w.opened)
        turn(&w);
    assert_false(index_full(w.index));
    live(&w);
    settle(&w);
    world_end(&w);
}

static void the_map_grows(void **state)
{
    (void)state;
    struct world w;
    static uint8_t big[64 * 1024];
    world_start(&w, LMDB);
    live(&w);
    struct envelope env = {.arrival_ms = 1, .sender = "a@b.c", .sender_len = 5};
    struct envelope_writer writer;
    assert_int_equal(envelope_begin(&writer, big, sizeof big, &env), ERR_OK);
    for (uint32_t i = 0; i < 800; i++) {
        char to[80];
        int len = snprintf(to, sizeof to, "somebody.with.a.rather.long.name.%05u@one.of.two.%u.example", i, i % 2);
        assert_int_equal(envelope_add_recipient(&writer, to, (uint32_t)len), ERR_OK);
    }
    uint32_t bytes = envelope_end(&writer, 0, 0);
    for (uint64_t i = 1; i <= 800; i++) {
        struct made m = record(RECORD_MESSAGE, i, 1, i);
        m.r.payload = big;
        m.r.payload_bytes = bytes;
        while (index_room(w.index) < bytes + INDEX_FEED_OVERHEAD)
            settle(&w);
        assert_int_equal(index_feed(w.index, &m.r), ERR_OK);
    }
    assert_int_equal(summary(&w).messages, 800);
    assert_int_equal(summary(&w).recipients, 640000);
    struct index_query q = {.kind = INDEX_LIST};
    assert_int_equal(ask(&w, &q), ERR_OK);
    assert_true(q.more && q.entry_count > 1 && q.entry_count < 40); /* INDEX_QUERY_BYTES_MAX */
    index_query_fini(&q);
    index_close(&w.index);
    world_open(&w);
    assert_int_equal(w.open_error, ERR_OK);
    assert_int_equal(summary(&w).messages, 800);
    world_end(&w);
}

/* Feeds frame after frame until it is killed. */
static void feed_for_ever(struct world *w)
{
    world_open(w);
    live(w);
    for (uint64_t i = 0;; i++) {
        struct made m = message(i + 1, 1, i);
        m.r.payload = m.payload;
        m.r.sequence = i + 1;
        while (index_room(w->index) < 4096)
            index_dispatch(w->index);
        assert_int_equal(index_feed(w->index, &m.r), ERR_OK);
        assert_int_equal(index_watermark(w->index, seg(1), (i + 1) * 4096, seg(0)), ERR_OK);
        if (i % 500 == 499)
            settle(w);
    }
}

static void what_the_watermark_covers_is_there_after_a_kill(void **state)
{
    (void)state;
    struct world w;
    struct prng p = {5};
    uint64_t covered = 0;
    for (uint32_t round = 0; round < 6; round++) {
        world_start(&w, LMDB);
        index_close(&w.index);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            feed_for_ever(&w);
            _exit(0);
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000 + (long)prng_below(&p, 300000000)}, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        world_open(&w);
        assert_int_equal(w.open_error, ERR_OK);
        uint64_t watermark = w.segment_count ? w.segments[0].watermark / 4096 : 0;
        struct index_counts n = summary(&w);
        assert_true(n.messages >= watermark);
        for (uint64_t i = 1; i <= watermark; i++) {
            struct index_entry e;
            assert_int_equal(lookup(&w, i, &e), ERR_OK);
        }
        covered += watermark;
        world_end(&w);
    }
    assert_true(covered > 0);
}

static void two_processes_do_not_share_a_directory(void **state)
{
    (void)state;
    struct world w, second;
    world_start(&w, LMDB);
    second = w;
    second.opened = false;
    struct index_callbacks cb = {&second, on_open, on_segment, on_room, on_damage, on_conflict};
    assert_int_equal(index_lmdb_open(w.directory, w.pool, &cb, &second.index), ERR_OK);
    live(&w);
    feed_some(&w);
    assert_int_equal(check_some(&w), ERR_OK);
    index_dispatch(second.index);
    assert_false(second.opened); /* it waits */
    index_close(&w.index);
    second.segment_count = 0;
    while (!second.opened)
        turn(&second);
    assert_int_equal(second.open_error, ERR_OK);
    assert_int_equal(check_some(&second), ERR_OK);
    world_end(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_is_there_after_a_restart),
        cmocka_unit_test(an_index_of_another_pool_is_not_used),
        cmocka_unit_test(a_discarded_index_starts_empty),
        cmocka_unit_test(a_damaged_file_is_noticed_or_does_no_harm),
        cmocka_unit_test(damage_while_it_runs_is_told_and_not_answered_from),
        cmocka_unit_test(a_full_file_system_fills_the_ring_and_loses_nothing),
        cmocka_unit_test(without_room_to_begin_it_is_full_until_there_is_some),
        cmocka_unit_test(the_map_grows),
        cmocka_unit_test(what_the_watermark_covers_is_there_after_a_kill),
        cmocka_unit_test(two_processes_do_not_share_a_directory),
    };
    return cmocka_run_group_tests_name("index_lmdb", tests, NULL, NULL);
}
