/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery over a damaged member: a small pool is made once; the input damages bytes of one of its three members; then
 * it is mounted and every message is read. Damage of one member loses nothing (P3): each read gives the bytes that were
 * acknowledged. When the input also mends checksums, a forged superblock may cost the mount or a read, but no
 * bytes but the acknowledged ones are ever handed out, and nothing crashes or waits for ever.
 * Input: options (1 byte: bits 0-1 the member, bit 2 read-only, bit 3 another append, a crash and a second mount,
 * bit 4 checksums are mended, bit 5 a clean stop at the end, bit 6 with an index, which has to find every message in the
 * damaged log), then damages: what (1), which used block (2), offset (2), length (2), bytes. */
#include "fuzz_input.h"
#include "ram_io.h"

#include <base/assert.h>
#include <base/digest.h>
#include <spoolfs/envelope.h>
#include <spoolfs/format.h>
#include <spoolfs/index.h>
#include <spoolfs/spool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMBERS 3u
#define SEGMENT SEGMENT_BYTES_MIN
#define MEMBER_BYTES (SEGMENT * 34)
#define MESSAGES 24u
#define BODY_BYTES_MAX 60000u
#define TURNS_MAX 60000u
#define TURNS_FORGED 2000u
#define MOVES_MAX 10u
#define DAMAGES_MAX 64u
#define USED_MAX 4096u

enum damage { DAMAGE_XOR, DAMAGE_SET, DAMAGE_ZERO_BLOCK, DAMAGE_COPY_BLOCK, DAMAGE_ZERO_REST, DAMAGE_KINDS };

struct message {
    struct spool_group group;
    struct spool_record record;
    struct digest digest;
    struct place now;             /* compaction moves records; the index knows where to */
    uint8_t envelope[128], body[BODY_BYTES_MAX];
    uint32_t envelope_bytes, body_bytes;
    bool answered;
    enum err e;
};

static struct ram_io ram, ram_made; /* ram_made: as it was when the pool was whole */
static struct pool_config config;
static struct message messages[MESSAGES + 1];
static struct pool *pool;
static uint32_t used[MEMBERS][USED_MAX], used_count[MEMBERS]; /* blocks that are not all zero */

static void on_answer(struct spool_group *g, enum err e)
{
    struct message *m = g->owner;
    ASSERT(!m->answered);
    m->answered = true;
    m->e = e;
}

static void turn(void)
{
    io_turn(&ram.io, 1000000);
    pool_step(pool);
}

static void write_envelope(struct message *m)
{
    struct envelope e = {.arrival_ms = UINT64_C(1700000000000), .sender = "a@b.test", .sender_len = 8};
    struct envelope_writer w;
    ASSERT(envelope_begin(&w, m->envelope, sizeof m->envelope, &e) == ERR_OK);
    ASSERT(envelope_add_recipient(&w, "c@d.test", 8) == ERR_OK);
    m->envelope_bytes = envelope_end(&w, m->body_bytes, 0);
}

static enum err append(uint32_t number)
{
    struct message *m = &messages[number];
    memset(m, 0, sizeof *m);
    m->body_bytes = number % 5 == 0 ? BODY_BYTES_MAX : 200 + number * 1300;
    for (uint32_t i = 0; i < m->body_bytes; i++)
        m->body[i] = (uint8_t)(i * 31 + number);
    write_envelope(m);
    m->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = spool_lend_queue_ids(pool, 1),
                                      .envelope_bytes = m->envelope_bytes,
                                      .parts = {{m->envelope, m->envelope_bytes}, {m->body, m->body_bytes}}};
    m->group = (struct spool_group){.records = &m->record, .count = 1, .class = SPOOL_NEW_MAIL, .done = on_answer, .owner = m};
    enum err e = spool_submit(pool, &m->group);
    for (uint32_t n = 0; e == ERR_OK && !m->answered; n++) {
        ASSERT(n < TURNS_MAX);
        turn();
    }
    return e == ERR_OK ? m->e : e;
}

/* What the index would hold: the digest in the record where it lies. */
static void learn_digest(struct message *m)
{
    for (uint32_t t = 0; t < MEMBERS && m->digest.lo == 0; t++) {
        for (uint64_t at = 2 * SUPERBLOCK_BYTES; at < MEMBER_BYTES && m->digest.lo == 0; at += BLOCK_BYTES) {
            uint64_t place = at + m->record.place.frame + m->record.place.record;
            struct record_head_disk h;
            if (place + m->record.place.length > MEMBER_BYTES)
                break;
            memcpy(&h, ram.bytes[t] + place, sizeof h);
            if (le32_get(h.magic) == RECORD_MAGIC && queue_id_equal(queue_id_disk_get(h.qid), m->record.qid) &&
                le32_get(h.length) == m->record.place.length)
                m->digest = digest_disk_get(h.digest);
        }
    }
    ASSERT(m->digest.lo != 0);
}

static enum err open_index(void *owner, struct uuid id, bool discard, const struct index_callbacks *cb,
                           struct index **index_out)
{
    (void)owner;
    (void)discard;
    return index_mem_open(id, cb, index_out);
}

static bool mount(bool read_only)
{
    const char *text;
    config.read_only = read_only;
    return pool_mount(&ram.io, &config, &pool, &text) == ERR_OK;
}

static void crash(void)
{
    ram_io_forget(&ram);
    pool_abandon(&pool);
}

static void on_read(struct spool_read *r, enum err e)
{
    struct message *m = r->owner;
    m->answered = true;
    m->e = e;
    if (e != ERR_OK)
        return;
    ASSERT(r->envelope_bytes == m->envelope_bytes && memcmp(r->envelope, m->envelope, m->envelope_bytes) == 0);
    ASSERT(r->body_bytes == m->body_bytes && memcmp(r->body, m->body, m->body_bytes) == 0);
}

static enum err read_back(struct message *m)
{
    struct spool_read r = {.place = m->now, .qid = m->record.qid, .digest = m->digest, .type = RECORD_MESSAGE,
                           .done = on_read, .owner = m};
    m->answered = false;
    spool_read(pool, &r);
    for (uint32_t n = 0; !m->answered; n++) {
        ASSERT(n < TURNS_MAX);
        turn();
    }
    return m->e;
}

/* The made bytes become the backing file of a private mapping: forgetting its pages is how each input begins anew. */
static void keep_member(uint32_t t)
{
    int fd = memfd_create("member", 0);
    ASSERT(fd >= 0 && ftruncate(fd, (off_t)MEMBER_BYTES) == 0);
    for (uint64_t at = 0; at < MEMBER_BYTES; at += BLOCK_BYTES) {
        static const uint8_t zeros[BLOCK_BYTES];
        if (memcmp(ram.bytes[t] + at, zeros, BLOCK_BYTES) == 0)
            continue;
        ASSERT(pwrite(fd, ram.bytes[t] + at, BLOCK_BYTES, (off_t)at) == (ssize_t)BLOCK_BYTES);
        ASSERT(used_count[t] < USED_MAX);
        used[t][used_count[t]++] = (uint32_t)(at / BLOCK_BYTES);
    }
    free(ram.bytes[t]);
    ram.bytes[t] = mmap(NULL, MEMBER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    ASSERT(ram.bytes[t] != MAP_FAILED);
    close(fd);
}

static void make_once(void)
{
    struct pool_create_options options = {.segment_bytes = SEGMENT};
    struct uuid uuid;
    const char *text;
    ram_io_open(&ram, MEMBERS, MEMBER_BYTES);
    config = (struct pool_config){.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000),
                                  .member_count = MEMBERS};
    for (uint32_t i = 0; i < MEMBERS; i++) {
        snprintf(config.members[i].name, sizeof config.members[i].name, "%c", 'a' + (int)i);
        snprintf(config.members[i].path, sizeof config.members[i].path, "/ram/%u", i);
    }
    ASSERT(pool_create(&ram.io, &config, &options, &uuid, &text) == ERR_OK && mount(false));
    for (uint32_t i = 0; i < MESSAGES; i++) {
        ASSERT(append(i) == ERR_OK);
        learn_digest(&messages[i]);
        if (i == MESSAGES / 2) { /* some of it lies sealed, the rest is a tail */
            pool_unmount(&pool);
            ASSERT(mount(false));
        }
    }
    crash();
    for (uint32_t t = 0; t < MEMBERS; t++)
        keep_member(t);
    ram_made = ram;
}

/* In place, so that lists and heaps keep pointing at themselves. */
static void begin_anew(void)
{
    ram_io_forget(&ram);
    ram.now_ns = ram_made.now_ns;
    ram.random = ram_made.random + 1;
    for (uint32_t t = 0; t < MEMBERS; t++)
        ASSERT(madvise(ram.bytes[t], MEMBER_BYTES, MADV_DONTNEED) == 0);
}

static void mend(uint8_t *block)
{
    struct digest_disk d;
    uint64_t magic;
    memcpy(&magic, block + sizeof d, sizeof magic);
    if (magic == IMAGE_MAGIC) {
        d = digest_disk_of(digest_of(block + sizeof d, BLOCK_BYTES - sizeof d));
        memcpy(block, &d, sizeof d);
    } else if (memcmp(block, SUPERBLOCK_MAGIC, 8) == 0) { /* its first block; the other three follow */
        d = digest_disk_of(digest_of(block + 24, SUPERBLOCK_BYTES - 24));
        memcpy(block + 8, &d, sizeof d);
    }
}

static void damage(struct fuzz_input *in, uint32_t t, bool mended)
{
    unsigned what = (unsigned)fuzz_number(in, 1) % DAMAGE_KINDS;
    uint32_t number = used[t][fuzz_number(in, 2) % used_count[t]];
    size_t offset = (size_t)fuzz_number(in, 2) % BLOCK_BYTES, len = (size_t)fuzz_number(in, 2) % 512;
    uint8_t *block = ram.bytes[t] + (size_t)number * BLOCK_BYTES, *from;
    switch ((enum damage)what) {
    case DAMAGE_XOR:
    case DAMAGE_SET:
        for (size_t i = 0; i < len && offset + i < BLOCK_BYTES && in->at < in->end; i++, in->at++)
            block[offset + i] = what == DAMAGE_SET ? *in->at : (uint8_t)(block[offset + i] ^ *in->at);
        break;
    case DAMAGE_ZERO_BLOCK:
        memset(block, 0, BLOCK_BYTES);
        break;
    case DAMAGE_COPY_BLOCK:
        from = ram.bytes[t] + (size_t)used[t][(offset << 9 | len) % used_count[t]] * BLOCK_BYTES;
        memmove(block, from, BLOCK_BYTES);
        break;
    case DAMAGE_ZERO_REST:
    case DAMAGE_KINDS:
        memset(block + offset, 0, BLOCK_BYTES - offset);
        break;
    }
    if (mended)
        mend(block);
}

static void on_found(struct index_query *q, enum err e)
{
    struct message *m = q->owner;
    m->answered = true;
    m->e = e;
    if (e != ERR_OK)
        return;
    ASSERT(q->entry_count == 1 && digest_equal(q->entries[0].digest, m->digest));
    m->now = q->entries[0].place;
}

static enum err find(struct message *m)
{
    struct index_query q = {.kind = INDEX_LOOKUP, .done = on_found, .owner = m, .qid = m->record.qid};
    m->answered = false;
    index_query(spool_index(pool), &q);
    for (uint32_t n = 0; !m->answered; n++) {
        ASSERT(n < TURNS_MAX);
        turn();
    }
    index_query_fini(&q);
    return m->e;
}

/* The index reads the log back; a forged log may keep it from that, but not from turning. */
static bool index_comes(bool forged)
{
    for (uint32_t n = 0; !spool_index_ready(pool); n++) {
        if (forged && n > TURNS_FORGED)
            return false;
        ASSERT(n < TURNS_MAX);
        turn();
    }
    return true;
}

static void read_all(bool indexed, bool forged)
{
    if (indexed && !index_comes(forged))
        return;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct message *m = &messages[i];
        enum err e = ERR_NOT_FOUND;
        m->now = m->record.place;
        for (uint32_t n = 0; n < MOVES_MAX && e == ERR_NOT_FOUND; n++) { /* moved between the two */
            e = indexed ? find(m) : ERR_OK;
            e = e == ERR_OK ? read_back(m) : e;
        }
        ASSERT(e == ERR_OK || forged);
    }
}

static void try_pool(unsigned options)
{
    bool forged = options & 16, read_only = options & 4, indexed = (options & 64) && !read_only;
    config.index.open = indexed ? open_index : NULL;
    if (!mount(read_only)) {
        ASSERT(forged);
        return;
    }
    read_all(indexed, forged);
    if (options & 8 && !read_only) {
        enum err e = append(MESSAGES);
        ASSERT(e == ERR_OK || forged);
        crash();
        if (!mount(false)) {
            ASSERT(forged);
            return;
        }
        read_all(indexed, forged);
    }
    if (options & 32)
        pool_unmount(&pool);
    else
        crash();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input in = {bytes, bytes + len};
    unsigned options = (unsigned)fuzz_number(&in, 1);
    uint32_t t = (options & 3) % MEMBERS;
    if (!ram.count)
        make_once();
    begin_anew();
    for (uint32_t i = 0; i < DAMAGES_MAX && in.at < in.end; i++)
        damage(&in, t, options & 16);
    try_pool(options);
    return 0;
}
