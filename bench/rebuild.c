/* SPDX-License-Identifier: Apache-2.0 */
/* How near an idle pool's rebuild comes to what its source and its target can do together: every round reads one member
 * and writes another plainly, side by side in 1 MiB blocks, and then rebuilds the same bytes from the one onto the other.
 * Prints each round, and the median of the ratios with its spread.  rebuild DIR_SOURCE DIR_TARGET [MIB [ROUNDS [SEGMENT_MIB]]] */
#include <errno.h>
#include <fcntl.h>
#include <spoolfs/io_real.h>
#include <spoolfs/spool.h>
#include <spoolfs/upkeep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK ((uint32_t)(1 * MIB))
#define DEPTH 4u
#define BODY_BYTES 60000u
#define ROUNDS_MAX 9u         /* each takes one of the 16 entries of the member table */
#define SLOTS_AT ((uint64_t)(64 * KIB))
#define IDLE_NS UINT64_C(1000000000) /* an idle pool: nobody has mailed for a second */
#define PATIENCE_NS (UINT64_C(600) * 1000000000)

static const char *paths[2], *source_directory, *target_directory;
static uint64_t live_bytes, member_bytes, segment_bytes;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "rebuild: %s: %s\n", what, why);
    exit(1);
}

static struct io *open_io(void)
{
    struct io_real_member m[2];
    struct io *io;
    const char *why = "";
    for (int i = 0; i < 2; i++) {
        m[i] = (struct io_real_member){.fd = open(paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600), .path = paths[i]};
        if (m[i].fd < 0 || ftruncate(m[i].fd, (off_t)member_bytes) != 0)
            die(paths[i], strerror(errno));
    }
    if (io_real_open(IO_ENGINE_AUTO, m, 2, &io, &why) != ERR_OK)
        die("io", why);
    return io;
}

static struct pool_config config(void)
{
    struct pool_config c = {.copies = 2, .min_copies = 1, .degrade_after_ns = UINT64_C(2000000000), .member_count = 2,
                            .share_disk = true};
    for (int i = 0; i < 2; i++) {
        snprintf(c.members[i].name, sizeof c.members[i].name, i ? "target" : "source");
        snprintf(c.members[i].path, sizeof c.members[i].path, "%s", paths[i]);
        snprintf(c.members[i].domain, sizeof c.members[i].domain, "disk-%d", i);
    }
    return c;
}

/* --- mail --- */

struct message { struct spool_group group; struct spool_record record; bool busy; };
static uint64_t acknowledged;
static double rebuild_cpu_s;

static void on_acknowledged(struct spool_group *g, enum err e)
{
    if (e != ERR_OK)
        die("append", err_text(e));
    ((struct message *)g->owner)->busy = false;
    acknowledged += BODY_BYTES;
}

static void fill(struct io *io, struct pool *pool)
{
    static struct message messages[64];
    static uint8_t body[BODY_BYTES];
    for (uint32_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 2654435761u >> 24);
    while (acknowledged < live_bytes) {
        for (uint32_t i = 0; i < 64; i++) {
            struct message *m = &messages[i];
            if (m->busy)
                continue;
            m->record = (struct spool_record){.type = RECORD_MESSAGE, .qid = spool_lend_queue_ids(pool, 1),
                                              .envelope_bytes = 64, .parts = {{body, sizeof body}}};
            m->group = (struct spool_group){.records = &m->record, .count = 1, .class = SPOOL_NEW_MAIL,
                                            .done = on_acknowledged, .owner = m};
            m->busy = spool_submit(pool, &m->group) == ERR_OK;
        }
        pool_step(pool);
        io_turn(io, 1000000);
    }
}

/* --- plainly --- */

struct stream { struct io *io; struct io_op ops[DEPTH]; uint64_t next, end, done; };

static void stream_next(struct stream *s, struct io_op *op);

static void on_block(struct io_op *op)
{
    struct stream *s = op->owner;
    if (op->result != ERR_OK)
        die("plain transfer", err_text(op->result));
    s->done += op->length;
    stream_next(s, op);
}

static void stream_next(struct stream *s, struct io_op *op)
{
    if (s->next >= s->end)
        return;
    op->offset = s->next;
    s->next += BLOCK;
    io_submit(s->io, op);
}

static double plain_rate(struct io *io)
{
    static struct stream streams[2];
    uint64_t bytes = live_bytes / BLOCK * BLOCK, begin = io_now_ns(io);
    for (uint16_t t = 0; t < 2; t++) {
        struct stream *s = &streams[t];
        *s = (struct stream){.io = io, .next = SLOTS_AT, .end = SLOTS_AT + bytes};
        for (uint32_t i = 0; i < DEPTH; i++) {
            void *buffer = NULL;
            if (posix_memalign(&buffer, BLOCK_BYTES, BLOCK) != 0)
                die("memory", strerror(ENOMEM));
            memset(buffer, 0, BLOCK);
            s->ops[i] = (struct io_op){.kind = t ? IO_WRITE : IO_READ, .class = IO_CLASS_REBUILD, .target = t,
                                       .length = BLOCK, .buffer = buffer, .done = on_block, .owner = s};
            stream_next(s, &s->ops[i]);
        }
    }
    while (streams[0].done < bytes || streams[1].done < bytes)
        io_turn(io, 100000000);
    static struct io_op flush;
    static struct stream last;
    last = (struct stream){.io = io};
    flush = (struct io_op){.kind = IO_FLUSH, .class = IO_CLASS_REBUILD, .target = 1, .done = on_block, .owner = &last};
    uint64_t before = 1;
    last.done = 0;
    flush.length = 0;
    io_submit(io, &flush);
    for (uint64_t until = io_now_ns(io) + PATIENCE_NS; before && io_now_ns(io) < until;)
        before = io_turn(io, 100000000) == 0;
    for (uint16_t t = 0; t < 2; t++)
        for (uint32_t i = 0; i < DEPTH; i++)
            free(streams[t].ops[i].buffer);
    return (double)bytes / ((double)(io_now_ns(io) - begin) / 1e9) / MIB;
}

/* --- rebuilt --- */

static double rebuild_rate(struct io *io, struct uuid uuid, struct uuid *replaces)
{
    struct pool_config c = config();
    struct pool_candidate candidate = {.pool = uuid, .replaces = *replaces, .segment_bytes = segment_bytes, .copies = 2,
                                       .member = c.members[1]};
    struct pool_create_options o = {0};
    struct pool *pool = NULL;
    const char *text = "";
    static struct pool_status s;
    struct upkeep_status u;
    if (pool_format_candidate(io, 1, &candidate, &o, &text) != ERR_OK || pool_mount(io, &c, &pool, &text) != ERR_OK)
        die("mount", text);
    rebuild_pause(pool, true);
    for (uint64_t until = io_now_ns(io) + IDLE_NS; io_now_ns(io) < until; pool_step(pool))
        io_turn(io, 10000000);
    upkeep_status(pool, &u);
    uint64_t begin = io_now_ns(io), before = u.rebuild.bytes_rebuilt;
    rebuild_pause(pool, false);
    clock_t cpu = clock();
    do {
        io_turn(io, 1000000);
        pool_step(pool);
        upkeep_status(pool, &u);
        if (io_now_ns(io) - begin > PATIENCE_NS)
            die("rebuild", "it does not end");
    } while (u.rebuild.bytes_remaining > 0 || u.rebuild.state == UPKEEP_RUNNING);
    rebuild_cpu_s = (double)(clock() - cpu) / CLOCKS_PER_SEC;
    double seconds = (double)(io_now_ns(io) - begin) / 1e9;
    pool_status(pool, &s);
    for (uint32_t i = 0; i < s.member_count; i++)
        if (strcmp(s.members[i].name, "target") == 0)
            *replaces = s.members[i].uuid;
    pool_unmount(&pool);
    return (double)(u.rebuild.bytes_rebuilt - before) / seconds / MIB;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static char source[256], target[256];
    double ratios[ROUNDS_MAX];
    uint32_t rounds = argc > 4 ? (uint32_t)atoi(argv[4]) : 5;
    if (argc < 3 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: rebuild DIR_SOURCE DIR_TARGET [MIB [ROUNDS, at most %u [SEGMENT_MIB]]]\n", ROUNDS_MAX);
        return 2;
    }
    segment_bytes = (argc > 5 ? strtoull(argv[5], NULL, 10) : 64) * MIB; /* what members of 16 GiB and more get */
    live_bytes = (argc > 3 ? strtoull(argv[3], NULL, 10) : 512) * MIB;
    member_bytes = live_bytes + 34 * segment_bytes + 1 * MIB;
    source_directory = argv[1];
    target_directory = argv[2];
    snprintf(source, sizeof source, "%s/rebuild-source.member", source_directory);
    snprintf(target, sizeof target, "%s/rebuild-target.member", target_directory);
    paths[0] = source;
    paths[1] = target;

    struct io *io = open_io();
    struct pool_config c = config();
    struct pool_create_options o = {.zero = {true, true}, .segment_bytes = segment_bytes};
    struct pool *pool = NULL;
    struct uuid uuid, replaces = {0};
    const char *text = "";
    static struct pool_status s;
    if (pool_create(io, &c, &o, &uuid, &text) != ERR_OK || pool_mount(io, &c, &pool, &text) != ERR_OK)
        die("create", text);
    fill(io, pool);
    pool_status(pool, &s);
    replaces = s.members[1].uuid;
    pool_unmount(&pool);
    printf("%llu MiB of mail, segments of %.1f MiB, io %s\n", (unsigned long long)(live_bytes / MIB),
           (double)s.segment_bytes / MIB, io->ops->name(io));
    for (uint32_t i = 0; i < rounds; i++) {
        double plain = plain_rate(io), rebuilt = rebuild_rate(io, uuid, &replaces), mib = (double)live_bytes / MIB;
        ratios[i] = rebuilt / plain;
        printf("round %u: plain %.0f MiB/s, rebuild %.0f MiB/s at %.2f ms of CPU a MiB, ratio %.2f\n", i + 1, plain, rebuilt,
               rebuild_cpu_s * 1e3 / mib, ratios[i]);
        fflush(stdout);
    }
    qsort(ratios, rounds, sizeof ratios[0], by_value);
    printf("rebuild / plain: median %.2f, least %.2f, most %.2f\n", ratios[rounds / 2], ratios[0], ratios[rounds - 1]);
    io_real_close(&io);
    unlink(source);
    unlink(target);
    return 0;
}
