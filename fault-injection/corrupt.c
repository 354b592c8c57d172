/* SPDX-License-Identifier: Apache-2.0 */
/* ironspool-corrupt: edits a member file while nobody has it open, and says exactly what it changed. For tests, for drills
 * and for proving to oneself that `spooltool pool check` and the scrub find things. Same file and same seed: same damage.
 *
 *  COR-1  a member that somebody has locked is refused: damage under a running daemon is fault injection's (inject_io.h).
 *  COR-2  every byte that changes is told; --dry-run tells the same and changes nothing.
 *  COR-3  only regular files: a disk with data is nothing to practise on.
 * It knows places from the member itself (superblock, image headers, frames), never from the index. */
#include "engine.h"

#include <base/prng.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR_BYTES 512u
#define RANGE_BYTES_MAX (64 * MIB) /* what one command may change; more is a new member */
#define BITS_MAX 100000u
#define ALL UINT32_MAX

enum { DONE = 0, FAILED = 1, USAGE = 2 };

struct corrupt {
    const char *path, *kind;
    int fd;
    uint64_t bytes;               /* of the member */
    bool dry_run, zero, no_member, have_range, have_with, have_id;
    uint64_t from, to, with, count, seed;
    uint32_t which;               /* superblock copy or slot; ALL */
    struct queue_id qid;
    struct prng prng;
    struct superblock superblock; /* when needed */
    uint64_t changes;
};

static int say(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int say(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("ironspool-corrupt: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return code;
}

static int usage(void)
{
    fputs("usage: ironspool-corrupt [OPTION]... MEMBER_FILE KIND\n"
          "  bit-rot       flip --count bits (1) of --range (the whole member)\n"
          "  zero          zero --range\n"
          "  torn          of --range only the first sectors are kept, how many --seed decides; the rest becomes zero\n"
          "  swap          exchange --range with the bytes at --with\n"
          "  superblock    flip a bit of a superblock copy (--which 0 to 3, or all), or --zero it\n"
          "  image-header  flip a bit of the header of a slot (--which SLOT, or all that are used), or --zero it\n"
          "  frame         flip --count bits of the payload of the records of --queue-id on this member\n"
          "options: --range FIRST-END  --with OFFSET  --count N  --which N|all  --queue-id ID  --seed N  --zero  --dry-run\n"
          "         --no-member: also where no superblock copy is valid any more\n"
          "Sizes take K M G. Exit codes: 0 changed, 1 nothing changed, 2 usage.\n",
          stderr);
    return USAGE;
}

/* --- bytes --- */

static bool read_at(const struct corrupt *c, uint64_t offset, void *bytes, size_t len)
{
    if (offset > c->bytes || len > c->bytes - offset)
        return false;
    return pread(c->fd, bytes, len, (off_t)offset) == (ssize_t)len;
}

static bool write_at(struct corrupt *c, uint64_t offset, const void *bytes, size_t len)
{
    c->changes++;
    if (c->dry_run || pwrite(c->fd, bytes, len, (off_t)offset) == (ssize_t)len)
        return true;
    return say(0, "offset %llu: %s", (unsigned long long)offset, strerror(errno)) != 0;
}

/* Where in the member this is, for people. */
static const char *place_of(const struct corrupt *c, uint64_t offset, char text[96])
{
    const struct superblock *s = &c->superblock;
    text[0] = '\0';
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        uint64_t at = superblock_offset(c->bytes, copy);
        if (offset >= at && offset < at + SUPERBLOCK_BYTES)
            snprintf(text, 96, "superblock copy %u", copy);
    }
    if (!text[0] && s->slot_bytes && offset >= s->slots_offset)
        snprintf(text, 96, "slot %llu, byte %llu of it", (unsigned long long)((offset - s->slots_offset) / s->slot_bytes),
                 (unsigned long long)((offset - s->slots_offset) % s->slot_bytes));
    return text[0] ? text : "outside superblocks and slots";
}

static bool flip_bit(struct corrupt *c, uint64_t from, uint64_t to)
{
    char place[96];
    uint8_t old, byte;
    uint64_t offset = from + prng_below(&c->prng, to - from);
    unsigned bit = (unsigned)prng_below(&c->prng, 8);
    if (!read_at(c, offset, &old, 1))
        return say(0, "offset %llu cannot be read", (unsigned long long)offset) != 0;
    byte = (uint8_t)(old ^ (1u << bit));
    printf("bit %u of byte %llu flipped: %02x -> %02x (%s)\n", bit, (unsigned long long)offset, old, byte,
           place_of(c, offset, place));
    return write_at(c, offset, &byte, 1);
}

static bool zero_range(struct corrupt *c, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[BLOCK_BYTES];
    char place[96];
    bool ok = true;
    printf("bytes %llu to %llu zeroed (%s)\n", (unsigned long long)from, (unsigned long long)to, place_of(c, from, place));
    for (uint64_t at = from; at < to && ok; at += BLOCK_BYTES)
        ok = write_at(c, at, zeros, to - at < BLOCK_BYTES ? to - at : BLOCK_BYTES);
    return ok;
}

/* --- what each kind does; false: nothing, or not all, was changed --- */

static bool do_bit_rot(struct corrupt *c)
{
    bool ok = true;
    for (uint64_t i = 0; i < c->count && ok; i++)
        ok = flip_bit(c, c->from, c->to);
    return ok;
}

static bool do_zero(struct corrupt *c)
{
    return zero_range(c, c->from, c->to);
}

static bool do_torn(struct corrupt *c)
{
    uint64_t sectors = (c->to - c->from) / SECTOR_BYTES;
    if (sectors < 2)
        return say(0, "a range to be torn has at least two sectors of 512 bytes") != 0;
    uint64_t kept = 1 + prng_below(&c->prng, sectors - 1);
    printf("torn: %llu of %llu sectors are kept\n", (unsigned long long)kept, (unsigned long long)sectors);
    return zero_range(c, c->from + kept * SECTOR_BYTES, c->to);
}

static bool do_swap(struct corrupt *c)
{
    uint64_t len = c->to - c->from, gap = c->with > c->from ? c->with - c->from : c->from - c->with;
    uint8_t *one, *other;
    if (c->with > c->bytes || len > c->bytes - c->with || gap < len || len > RANGE_BYTES_MAX)
        return say(0, "the two ranges must lie inside the member and apart, and be at most 64 MiB") != 0;
    one = malloc(len);
    other = malloc(len);
    bool ok = one && other && read_at(c, c->from, one, len) && read_at(c, c->with, other, len);
    if (ok)
        printf("bytes %llu to %llu exchanged with %llu to %llu\n", (unsigned long long)c->from, (unsigned long long)c->to,
               (unsigned long long)c->with, (unsigned long long)(c->with + len));
    ok = ok && write_at(c, c->from, other, len) && write_at(c, c->with, one, len);
    free(one);
    free(other);
    return ok;
}

static bool damage_structure(struct corrupt *c, uint64_t offset, uint64_t len)
{
    return c->zero ? zero_range(c, offset, offset + len) : flip_bit(c, offset, offset + len);
}

static bool do_superblock(struct corrupt *c)
{
    bool ok = true;
    if (c->which != ALL && c->which >= SUPERBLOCK_COPIES)
        return say(0, "superblock copies are 0 to %u", SUPERBLOCK_COPIES - 1) != 0;
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES && ok; copy++)
        if (c->which == ALL || c->which == copy)
            ok = damage_structure(c, superblock_offset(c->bytes, copy), sizeof(struct superblock_disk));
    return ok;
}

static uint64_t slot_offset(const struct corrupt *c, uint32_t slot)
{
    return c->superblock.slots_offset + (uint64_t)slot * c->superblock.slot_bytes;
}

static bool slot_header(const struct corrupt *c, uint32_t slot, struct image_view *v_out)
{
    uint8_t block[BLOCK_BYTES];
    return read_at(c, slot_offset(c, slot), block, sizeof block) && image_head_decode(block, v_out) == ERR_OK;
}

static bool do_image_header(struct corrupt *c)
{
    struct image_view v;
    bool ok = true;
    for (uint32_t slot = 0; slot < c->superblock.slot_count && ok; slot++)
        if ((c->which == ALL || c->which == slot) && slot_header(c, slot, &v))
            ok = damage_structure(c, slot_offset(c, slot), sizeof(struct image_head_disk));
    if (ok && !c->changes)
        say(0, "no such slot holds an image");
    return ok;
}

/* The records of the queue id in one frame. */
static bool damage_records(struct corrupt *c, uint64_t place, const uint8_t *bytes, const struct frame_view *view)
{
    struct record_view r;
    bool ok = true;
    for (uint32_t at = FRAME_HEAD_BYTES; ok && verify_record(bytes, at, view->records_end, &r) == ERR_OK;) {
        uint64_t payload = place + at + RECORD_HEAD_BYTES;
        at += (r.length + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        if (!queue_id_equal(r.qid, c->qid) || r.length == RECORD_HEAD_BYTES)
            continue;
        for (uint64_t i = 0; i < c->count && ok; i++)
            ok = flip_bit(c, payload, payload + r.length - RECORD_HEAD_BYTES);
    }
    return ok;
}

static bool damage_slot(struct corrupt *c, uint32_t slot, const struct image_view *v, uint8_t *bytes)
{
    bool ok = true;
    for (uint64_t offset = BLOCK_BYTES; offset < c->superblock.slot_bytes && ok;) {
        struct frame_view view;
        uint64_t place = slot_offset(c, slot) + offset;
        if (!read_at(c, place, bytes, BLOCK_BYTES) ||
            verify_head(bytes, &c->superblock.pool, v->segment, offset, &view) != ERR_OK) {
            offset += BLOCK_BYTES; /* what is damaged already hides no more than itself */
            continue;
        }
        uint64_t len = (uint64_t)view.blocks * BLOCK_BYTES;
        if (read_at(c, place, bytes, len))
            ok = damage_records(c, place, bytes, &view);
        offset += len;
    }
    return ok;
}

static bool do_frame(struct corrupt *c)
{
    struct image_view v;
    uint8_t *bytes = malloc(FRAME_BYTES_MAX);
    bool ok = bytes != NULL;
    for (uint32_t slot = 0; slot < c->superblock.slot_count && ok; slot++)
        if (slot_header(c, slot, &v))
            ok = damage_slot(c, slot, &v, bytes);
    free(bytes);
    if (ok && !c->changes)
        say(0, "no record of that queue id with a payload lies on this member");
    return ok;
}

static const struct kind {
    const char *word;
    bool (*run)(struct corrupt *c);
    bool range, geometry;         /* needs --range; needs a superblock */
} kinds[] = {
    {"bit-rot", do_bit_rot, false, false},   {"zero", do_zero, true, false},
    {"torn", do_torn, true, false},          {"swap", do_swap, true, false},
    {"superblock", do_superblock, false, false}, {"image-header", do_image_header, false, true},
    {"frame", do_frame, false, true},
};

/* --- the command --- */

static bool parse_bytes(const char *text, const char *end_at, uint64_t *n_out)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(text, &end, 0), factor = 1;
    if (!isdigit((unsigned char)text[0]) || errno)
        return false;
    if (*end && strchr("KMG", toupper((unsigned char)*end)) && end < end_at)
        for (const char *s = "KMG"; *s; s++) {
            factor *= 1024;
            if (*s == toupper((unsigned char)*end)) {
                end++;
                break;
            }
        }
    return end == end_at && !__builtin_mul_overflow(n, factor, n_out);
}

static bool parse_range(struct corrupt *c, const char *text)
{
    const char *dash = strchr(text, '-');
    c->have_range = true;
    return dash && parse_bytes(text, dash, &c->from) && parse_bytes(dash + 1, text + strlen(text), &c->to) && c->from < c->to;
}

static bool parse_option(struct corrupt *c, int option, const char *value)
{
    uint64_t n;
    switch (option) {
    case 'r':
        return parse_range(c, value);
    case 'w':
        c->have_with = true;
        return parse_bytes(value, value + strlen(value), &c->with);
    case 'c':
        return parse_bytes(value, value + strlen(value), &c->count) && c->count >= 1 && c->count <= BITS_MAX;
    case 's':
        return parse_bytes(value, value + strlen(value), &c->seed);
    case 'q':
        c->have_id = true;
        return queue_id_parse(value, strlen(value), &c->qid) == ERR_OK;
    case 'n':
        if (strcmp(value, "all") == 0)
            return true;
        if (!parse_bytes(value, value + strlen(value), &n) || n >= ALL)
            return false;
        c->which = (uint32_t)n;
        return true;
    case 'z':
        return c->zero = true;
    case 'd':
        return c->dry_run = true;
    case 'm':
        return c->no_member = true;
    default:
        return false;
    }
}

/* COR-1, COR-3. */
static bool open_member(struct corrupt *c)
{
    struct stat st;
    c->fd = open(c->path, (c->dry_run ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (c->fd < 0 || fstat(c->fd, &st) != 0)
        return say(0, "%s: %s", c->path, strerror(errno)) != 0;
    if (!S_ISREG(st.st_mode))
        return say(0, "%s: not a regular file; this tool damages nothing else", c->path) != 0;
    if (flock(c->fd, LOCK_EX | LOCK_NB) != 0)
        return say(0, "%s: in use; stop the daemon first, or hurt it live with spooltool fault add", c->path) != 0;
    c->bytes = (uint64_t)st.st_size;
    return c->bytes >= SUPERBLOCK_COPIES * SUPERBLOCK_BYTES || say(0, "%s: too small for a member", c->path) != 0;
}

static bool load_superblock(struct corrupt *c)
{
    uint8_t bytes[SUPERBLOCK_BYTES];
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++)
        if (read_at(c, superblock_offset(c->bytes, copy), bytes, sizeof bytes) &&
            superblock_decode(bytes, &c->superblock) == ERR_OK && c->superblock.member_bytes <= c->bytes)
            return true;
    c->superblock = (struct superblock){0};
    return false;
}

static int run(struct corrupt *c, const struct kind *k)
{
    if (!open_member(c))
        return FAILED;
    bool known = load_superblock(c);
    if (!known && (k->geometry || !c->no_member))
        return say(FAILED, "%s: no superblock copy is valid%s", c->path,
                   k->geometry ? "" : ": is it a member at all? if it may be damaged all the same: --no-member");
    if (!c->have_range)
        c->to = c->bytes;
    if (c->to > c->bytes || (k->range && c->to - c->from > RANGE_BYTES_MAX))
        return say(FAILED, "the range must lie inside the member and be at most 64 MiB");
    c->prng.state = c->seed;
    bool ok = k->run(c);
    if (ok && c->changes && !c->dry_run && fsync(c->fd) != 0)
        ok = say(0, "%s: %s", c->path, strerror(errno)) != 0;
    if (c->dry_run && c->changes)
        puts("nothing was written (--dry-run)");
    return ok && c->changes ? DONE : FAILED;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"range", required_argument, NULL, 'r'}, {"with", required_argument, NULL, 'w'},
        {"count", required_argument, NULL, 'c'}, {"seed", required_argument, NULL, 's'},
        {"queue-id", required_argument, NULL, 'q'}, {"which", required_argument, NULL, 'n'},
        {"zero", no_argument, NULL, 'z'}, {"dry-run", no_argument, NULL, 'd'},
        {"no-member", no_argument, NULL, 'm'}, {NULL, 0, NULL, 0}};
    static struct corrupt c = {.fd = -1, .count = 1, .seed = 1, .which = ALL};
    const struct kind *k = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (!parse_option(&c, option, optarg))
            return option == '?' ? usage() : say(USAGE, "that value makes no sense: %s", optarg ? optarg : "");
    if (argc - optind != 2)
        return usage();
    c.path = argv[optind];
    c.kind = argv[optind + 1];
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        k = strcmp(kinds[i].word, c.kind) == 0 ? &kinds[i] : k;
    if (!k)
        return usage();
    if ((k->range && !c.have_range) || (k->run == do_swap && !c.have_with) || (k->run == do_frame && !c.have_id))
        return say(USAGE, "%s needs %s", c.kind, k->run == do_frame ? "--queue-id" : k->run == do_swap ? "--range and --with" : "--range");
    int code = run(&c, k);
    if (c.fd >= 0)
        close(c.fd);
    return code;
}
