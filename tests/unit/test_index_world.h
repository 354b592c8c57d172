/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the index share: a world with one index in it, records to feed, questions to ask. */
#ifndef TEST_INDEX_WORLD_H
#define TEST_INDEX_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <base/prng.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spoolfs/index.h>
#include <spoolfs/index_kept.h>
#include <spoolfs/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENTS_SEEN 64

enum kind { MEM, LMDB };

struct world {
    enum kind kind;
    char directory[64];
    struct uuid pool;
    struct index *index;
    struct index_kept *kept; /* MEM: it stays when it is closed; NULL: nothing does */
    bool opened;
    enum err open_error;
    struct index_segment segments[SEGMENTS_SEEN];
    struct segment_id deps[SEGMENTS_SEEN][8];
    uint32_t segment_count, conflicts, rooms, damages;
    uint64_t sequence;
};

static inline struct segment_id seg(uint64_t n)
{
    return (struct segment_id){n ? 9 : 0, n};
}

static inline struct queue_id qid(uint64_t n)
{
    return (struct queue_id){7, n};
}

/* --- callbacks --- */

static inline void on_open(void *owner, enum err e)
{
    struct world *w = owner;
    assert_false(w->opened);
    w->opened = true;
    w->open_error = e;
}

static inline void on_segment(void *owner, const struct index_segment *s)
{
    struct world *w = owner;
    uint32_t i = 0;
    while (i < w->segment_count && !segment_id_equal(w->segments[i].id, s->id))
        i++;
    assert_true(i < SEGMENTS_SEEN);
    w->segment_count = i == w->segment_count ? i + 1 : w->segment_count;
    w->segments[i] = *s;
    for (uint32_t d = 0; d < s->dep_count && d < 8; d++)
        w->deps[i][d] = s->deps[d];
    w->segments[i].deps = w->deps[i];
}

static inline void on_room(void *owner)
{
    ((struct world *)owner)->rooms++;
}

static inline void on_damage(void *owner, const char *what)
{
    assert_true(strlen(what) > 0);
    ((struct world *)owner)->damages++;
}

static inline void on_conflict(void *owner, struct queue_id q, struct place second)
{
    (void)q;
    (void)second;
    ((struct world *)owner)->conflicts++;
}

/* --- the world --- */

static inline void turn(struct world *w)
{
    if (index_event_fd(w->index) >= 0) {
        struct pollfd p = {.fd = index_event_fd(w->index), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 60000), 1); /* an index that never answers fails here */
    }
    index_dispatch(w->index);
}

static inline void world_open_soon(struct world *w)
{
    struct index_callbacks cb = {w, on_open, on_segment, on_room, on_damage, on_conflict};
    w->opened = false;
    w->segment_count = 0;
    enum err e = w->kind == LMDB ? index_lmdb_open(w->directory, w->pool, &cb, &w->index)
                 : w->kept       ? index_mem_open_kept(w->pool, w->kept, &cb, &w->index)
                                 : index_mem_open(w->pool, &cb, &w->index);
    assert_int_equal(e, ERR_OK);
}

static inline void world_open(struct world *w)
{
    world_open_soon(w);
    while (!w->opened)
        turn(w);
}

static inline void world_make(struct world *w, enum kind kind)
{
    *w = (struct world){.kind = kind, .pool = {{1, 2, 3}}};
    if (kind == LMDB) {
        snprintf(w->directory, sizeof w->directory, "/tmp/test_index.XXXXXX");
        assert_non_null(mkdtemp(w->directory));
    }
}

static inline void world_start(struct world *w, enum kind kind)
{
    world_make(w, kind);
    world_open(w);
    assert_int_equal(w->open_error, ERR_NOT_FOUND);
}

static inline void world_end(struct world *w)
{
    index_close(&w->index);
    assert_null(w->index);
    if (w->kind == LMDB) {
        assert_int_equal(index_lmdb_discard(w->directory), ERR_OK);
        assert_int_equal(rmdir(w->directory), 0);
    }
}

static inline void on_done(struct index_query *q, enum err e)
{
    *(enum err *)q->owner = e;
}

static inline enum err ask(struct world *w, struct index_query *q)
{
    enum err answer = ERR_COUNT;
    q->done = on_done;
    q->owner = &answer;
    index_query(w->index, q);
    assert_int_equal(answer, ERR_COUNT); /* never from inside */
    while (answer == ERR_COUNT)
        turn(w);
    return answer;
}

static inline void settle(struct world *w)
{
    struct index_query q = {.kind = INDEX_BARRIER, .sync = true};
    enum err e = ask(w, &q);
    assert_true(e == ERR_OK || (e == ERR_CORRUPT && w->damages));
    index_dispatch(w->index);
    index_query_fini(&q);
}

static inline void live(struct world *w)
{
    assert_int_equal(index_replay_begin(w->index, false), ERR_OK);
    assert_int_equal(index_replay_end(w->index), ERR_OK);
}

/* --- records --- */

struct made { struct index_record r; uint8_t payload[2048]; };

static inline struct made record(enum record_type type, uint64_t q, uint64_t s, uint64_t frame)
{
    struct made m = {.r = {.type = type, .qid = qid(q)}};
    m.r.place = (struct place){.segment = seg(s), .frame = frame * 4096, .frame_blocks = 1, .record = 64,
                               .length = 1000};
    m.r.digest = (struct digest){q, type};
    return m;
}

static inline struct made message_to(uint64_t q, uint64_t s, uint64_t frame, const char *const *to, uint32_t count,
                                     uint32_t flags)
{
    struct made m = record(RECORD_MESSAGE, q, s, frame);
    struct envelope e = {.flags = flags, .arrival_ms = 1000 + q, .sender = "a@b.c", .sender_len = 5};
    struct envelope_writer writer;
    assert_int_equal(envelope_begin(&writer, m.payload, sizeof m.payload, &e), ERR_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(envelope_add_recipient(&writer, to[i], (uint32_t)strlen(to[i])), ERR_OK);
    m.r.payload_bytes = envelope_end(&writer, 500, flags);
    return m;
}

static inline struct made message(uint64_t q, uint64_t s, uint64_t frame)
{
    const char *to = "user@example.org";
    return message_to(q, s, frame, &to, 1, 0);
}

static inline struct made mark(uint64_t q, uint64_t s, uint64_t about, uint32_t recipient, enum mark_status status,
                               uint64_t until)
{
    struct made m = record(RECORD_MARK, q, s, 500);
    struct mark one = {.recipient = recipient, .status = status, .deferred_until_ms = until, .reason = "why",
                       .reason_len = 3};
    m.r.message_segment = seg(about);
    assert_int_equal(mark_encode(m.payload, sizeof m.payload, &one, 1, &m.r.payload_bytes), ERR_OK);
    return m;
}

static inline struct made result(enum record_type type, uint64_t q, uint64_t s, uint64_t about, uint32_t arg)
{
    struct made m = record(type, q, s, 600);
    m.r.message_segment = seg(about);
    m.r.arg = arg;
    return m;
}

static inline struct made chunk(uint64_t q, uint32_t number, uint64_t s)
{
    struct made m = record(RECORD_CHUNK, q, s, 100 + number);
    m.r.arg = number;
    m.r.body_bytes = 936;
    return m;
}

static inline void feed(struct world *w, struct made m)
{
    m.r.payload = m.payload;
    if (m.r.sequence == 0)
        m.r.sequence = ++w->sequence;
    assert_int_equal(index_feed(w->index, &m.r), ERR_OK);
    memset(m.payload, 0xee, sizeof m.payload); /* it was copied */
}

static inline const struct index_segment *segment(struct world *w, uint64_t n)
{
    settle(w);
    for (uint32_t i = 0; i < w->segment_count; i++)
        if (segment_id_equal(w->segments[i].id, seg(n)))
            return &w->segments[i];
    fail_msg("nothing was told of segment %u", (unsigned)n);
    return NULL;
}

static inline struct index_counts summary(struct world *w)
{
    struct index_query q = {.kind = INDEX_SUMMARY};
    assert_int_equal(ask(w, &q), ERR_OK);
    index_query_fini(&q);
    return q.counts;
}

static inline enum err lookup(struct world *w, uint64_t n, struct index_entry *e)
{
    struct index_query q = {.kind = INDEX_LOOKUP, .qid = qid(n)};
    enum err err = ask(w, &q);
    if (err == ERR_OK) {
        assert_int_equal(q.entry_count, 1);
        assert_true(queue_id_equal(q.entries[0].qid, qid(n)));
        *e = q.entries[0];
    }
    index_query_fini(&q);
    return err;
}

/* Counters of the queue ids that are due. */
static inline uint32_t due(struct world *w, uint64_t now, uint32_t max, const uint64_t *skip, uint32_t skips,
                           uint64_t *ids)
{
    struct index_query q = {.kind = INDEX_DUE, .now_ms = now, .max = max, .skip = skip, .skip_count = skips};
    assert_int_equal(ask(w, &q), ERR_OK);
    for (uint32_t i = 0; i < q.entry_count; i++)
        ids[i] = q.entries[i].qid.counter;
    uint32_t count = q.entry_count;
    index_query_fini(&q);
    return count;
}

static inline enum err chunks(struct world *w, uint64_t n, uint32_t first, struct index_query *q)
{
    *q = (struct index_query){.kind = INDEX_CHUNKS, .qid = qid(n), .first = first};
    return ask(w, q);
}

/* Each test once against each implementation: a list BOTH(X) of tests is given DEFINE and LIST. */
#define DEFINE(name)                                                                                                   \
    static void mem_##name(void **state)                                                                               \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        name(MEM);                                                                                                     \
    }                                                                                                                  \
    static void lmdb_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        name(LMDB);                                                                                                    \
    }
#define LIST(name) cmocka_unit_test(mem_##name), cmocka_unit_test(lmdb_##name),

#endif
