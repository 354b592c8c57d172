/* SPDX-License-Identifier: Apache-2.0 */
/* Every implementation of spoolfs/io.h as a world that a test can make, reopen and take away, and ops that say when they
 * were done. A world is made by a constructor, so a new implementation joins by one more line in worlds[]. Target 0 is
 * there, target 1 is absent. To be included by the one .c of a test program. */
#ifndef IO_WORLDS_H
#define IO_WORLDS_H

#include <fcntl.h>
#include <setjmp.h>
#include <spoolfs/io.h>
#include <spoolfs/io_real.h>
#include <spoolfs/limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <inject_io.h>
#include <ram_io.h>
#include <sim_io.h>

#define MEMBER_BYTES (8 * MIB)
#define OPS_MAX 512u
#define TURN_NS UINT64_C(100000000)

enum place { ON_FILE, ON_TMPFS, ON_LOOP };

struct world {
    const char *name;
    enum io_engine engine;
    enum place place;
    bool (*make)(struct world *w);                       /* false: not to be had on this machine */
    void (*unmake)(struct world *w);
    void (*reopen)(struct world *w);                     /* same bytes, a new io: what was volatile may be lost */
    void (*shorten)(struct world *w, uint64_t bytes);    /* NULL: cannot be done to this one */
    bool simple;                                         /* trusts its caller with places and with timers in the past */
    struct io *io;
    char path[256], backing[256]; /* real */
    struct sim_io *sim;
    struct ram_io *ram;
    bool slow;                                           /* every op goes through a carrier of the injector */
    struct inject_io *inject;
    struct io *under;
};

/* --- the real worlds --- */

static bool real_place(struct world *w)
{
    const char *dir = w->place == ON_TMPFS ? "/dev/shm" : ".";
    snprintf(w->backing, sizeof w->backing, "%s/io-contract-XXXXXX", dir);
    int fd = mkstemp(w->backing);
    if (fd < 0)
        return false;
    assert_int_equal(posix_fallocate(fd, 0, (off_t)MEMBER_BYTES), 0);
    close(fd);
    snprintf(w->path, sizeof w->path, "%s", w->backing);
    if (w->place != ON_LOOP)
        return true;
    char command[400];
    snprintf(command, sizeof command, "losetup --find --show %s 2>/dev/null", w->backing);
    FILE *f = geteuid() == 0 ? popen(command, "r") : NULL;
    bool got = f && fgets(w->path, sizeof w->path, f) != NULL;
    if (f)
        pclose(f);
    w->path[strcspn(w->path, "\n")] = '\0';
    if (!got)
        unlink(w->backing);
    return got;
}

static void real_displace(struct world *w)
{
    char command[400];
    snprintf(command, sizeof command, "losetup --detach %s", w->path);
    if (w->place == ON_LOOP)
        assert_int_equal(system(command), 0);
    unlink(w->backing);
}

static bool real_open(struct world *w)
{
    const char *why = NULL;
    struct io_real_member members[2] = {{open(w->path, O_RDWR | O_CLOEXEC), w->path}, {-1, "absent"}};
    assert_true(members[0].fd >= 0);
    enum err e = io_real_open(w->engine, members, 2, &w->io, &why);
    assert_non_null(why);
    if (e != ERR_OK)
        print_message("%s: %s\n", w->name, why);
    return e == ERR_OK;
}

static bool real_make(struct world *w)
{
    if (!real_place(w))
        return false;
    if (real_open(w))
        return true;
    real_displace(w);
    return false;
}

static void real_unmake(struct world *w)
{
    io_real_close(&w->io);
    real_displace(w);
}

static void real_reopen(struct world *w)
{
    io_real_close(&w->io);
    assert_true(real_open(w));
}

static void real_shorten(struct world *w, uint64_t bytes)
{
    assert_int_equal(truncate(w->backing, (off_t)bytes), 0);
}

/* --- the simulator: reopening is a power cut that takes everything volatile (IO-3, IO-4) --- */

static bool sim_make(struct world *w)
{
    w->sim = sim_io_make(20140521);
    w->io = sim_io_door(w->sim);
    for (uint64_t i = 0; i < 2; i++)
        sim_io_add_member(w->sim, &(struct sim_member_shape){
                                      .disk = {.bytes = MEMBER_BYTES, .is_file = w->place == ON_FILE, .seed = i},
                                      .latency = SIM_LATENCY_SSD,
                                      .discards = w->place != ON_FILE,
                                      .domain = "disk:sim"});
    sim_io_set_survival(w->sim, SIM_SURVIVE_NONE);
    sim_io_vanish(w->sim, 1);
    return true;
}

static void sim_unmake(struct world *w)
{
    assert_string_equal(sim_io_violation(w->sim), "");
    sim_io_free(&w->sim);
}

static void sim_reopen(struct world *w)
{
    sim_io_power_cut(w->sim);
    sim_io_drain(w->sim);
    sim_io_power_on(w->sim);
}

static void sim_shorten(struct world *w, uint64_t bytes)
{
    sim_disk_truncate(sim_io_disk(w->sim, 0), bytes);
}

/* --- the smallest world, of the engine's own tests --- */

static bool ram_make(struct world *w)
{
    w->ram = calloc(1, sizeof *w->ram);
    assert_non_null(w->ram);
    ram_io_open(w->ram, 2, MEMBER_BYTES);
    w->ram->targets[1].present = false;
    w->io = &w->ram->io;
    return true;
}

static void ram_unmake(struct world *w)
{
    ram_io_close(w->ram);
    free(w->ram);
}

static void ram_reopen(struct world *w) { (void)w; /* it keeps everything */ }

/* --- faults before a real world: quiet, and with every op slowed --- */

static void injected_open(struct world *w)
{
    uint32_t id;
    w->under = w->io;
    assert_int_equal(inject_io_open(w->under, &(struct inject_hooks){0}, &w->inject), ERR_OK);
    w->io = inject_io_door(w->inject);
    for (uint16_t target = 0; target < 2 && w->slow; target++) {
        struct inject_fault f = {.kind = INJECT_SLOW, .target = target, .rate = 1, .factor = 2, .to = UINT64_MAX,
                                 .until_ns = io_now_ns(w->io) + UINT64_C(3600000000000)};
        assert_int_equal(inject_add(w->inject, &f, &id), ERR_OK);
    }
}

static void injected_close(struct world *w)
{
    w->io = w->under; /* the real world goes first: then nothing is on its way into the injector */
}

static bool injected_make(struct world *w)
{
    if (!real_make(w))
        return false;
    injected_open(w);
    return true;
}

static void injected_unmake(struct world *w)
{
    injected_close(w);
    real_unmake(w);
    inject_io_close(&w->inject);
}

static void injected_reopen(struct world *w)
{
    injected_close(w);
    real_reopen(w);
    inject_io_close(&w->inject);
    injected_open(w);
}

#define INJECTED(n, s) \
    {.name = n, .engine = IO_ENGINE_THREADS, .place = ON_FILE, .make = injected_make, .unmake = injected_unmake, \
     .reopen = injected_reopen, .shorten = real_shorten, .slow = s}
#define SIM(n, p) \
    {.name = n, .place = p, .make = sim_make, .unmake = sim_unmake, .reopen = sim_reopen, .shorten = sim_shorten}
#define REAL(n, e, p, s) \
    {.name = n, .engine = e, .place = p, .make = real_make, .unmake = real_unmake, .reopen = real_reopen, .shorten = s}
static struct world worlds[] = {
    REAL("threads, file", IO_ENGINE_THREADS, ON_FILE, real_shorten),
    REAL("threads, tmpfs", IO_ENGINE_THREADS, ON_TMPFS, real_shorten),
    REAL("threads, loop", IO_ENGINE_THREADS, ON_LOOP, NULL),
    REAL("uring, file", IO_ENGINE_URING, ON_FILE, real_shorten),
    REAL("uring, tmpfs", IO_ENGINE_URING, ON_TMPFS, real_shorten),
    REAL("uring, loop", IO_ENGINE_URING, ON_LOOP, NULL),
    INJECTED("threads under a quiet injector", false),
    INJECTED("threads under an injector that slows everything", true),
    SIM("sim, file", ON_FILE),
    SIM("sim, block device", ON_LOOP),
    {.name = "ram", .make = ram_make, .unmake = ram_unmake, .reopen = ram_reopen, .simple = true},
};

/* --- ops --- */

struct probe_op {
    struct io_op op;
    uint32_t done;
    uint64_t turn; /* the turn its done() ran in */
};

static struct {
    bool in_turn;
    uint64_t turns;
    struct probe_op ops[OPS_MAX];
    uint8_t *buffers; /* OPS_MAX blocks */
    uint8_t *large;   /* FRAME_BYTES_MAX */
} t;

static void on_done(struct io_op *op)
{
    struct probe_op *p = op->owner;
    assert_true(t.in_turn); /* IO-1 */
    p->done++;
    p->turn = t.turns;
}

static uint32_t turn(struct world *w, uint64_t wait_ns)
{
    t.in_turn = true;
    t.turns++;
    uint32_t ran = io_turn(w->io, wait_ns);
    t.in_turn = false;
    return ran;
}

static struct probe_op *op_at(uint32_t i, enum io_kind kind, uint64_t offset, uint32_t length, void *buffer)
{
    struct probe_op *p = &t.ops[i];
    *p = (struct probe_op){0};
    p->op = (struct io_op){.kind = kind, .class = (enum io_class)(i % IO_CLASS_COUNT), .length = length,
                           .offset = offset, .buffer = buffer, .done = on_done, .owner = p,
                           .result = ERR_COUNT};
    return p;
}

static uint8_t *block(uint32_t i) { return t.buffers + (size_t)i * BLOCK_BYTES; }

static void finish(struct world *w, uint32_t count)
{
    for (uint32_t patience = 0; patience < 10000; patience++) {
        bool all = true;
        for (uint32_t i = 0; i < count; i++)
            all = all && t.ops[i].done > 0;
        if (all)
            return;
        turn(w, TURN_NS);
    }
    fail_msg("an op never came back");
}

static enum err run_one(struct world *w, struct probe_op *p)
{
    io_submit(w->io, &p->op);
    for (uint32_t patience = 0; p->done == 0; patience++) {
        assert_true(patience < 10000);
        turn(w, TURN_NS);
    }
    assert_int_equal(p->done, 1);
    return p->op.result;
}

static void fill(uint8_t *bytes, size_t length, uint32_t seed)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 12));
}

static int setup(void **state)
{
    struct world *w = *state;
    memset(&t.ops, 0, sizeof t.ops);
    if (posix_memalign((void **)&t.buffers, BLOCK_BYTES, (size_t)OPS_MAX * BLOCK_BYTES) != 0 ||
        posix_memalign((void **)&t.large, BLOCK_BYTES, FRAME_BYTES_MAX) != 0)
        return -1;
    return w->make(w) ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;
    w->unmake(w);
    free(t.buffers);
    free(t.large);
    return 0;
}

#endif
