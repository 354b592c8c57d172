/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer's smallest stand-in, so that every compiler and every `./check` runs the fuzz programs: the corpus, then a
 * number of mutations of it that depend on nothing but that number. What brings the program down is left in a file that
 * the program itself, or the libFuzzer one, replays when it is named.
 *   usage: PROGRAM [-runs=N] [-dict=FILE] [-seed=N] FILE|DIRECTORY... */
#include "fuzz_input.h"

#include <base/prng.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEEDS_MAX 4096u
#define WORDS_MAX 512u
#define INPUT_BYTES_MAX 65536u
#define INPUT_SECONDS_MAX 120u /* a machine that is shared and a sanitizer; what takes longer hangs */

struct seed { char *path; uint8_t *bytes; size_t len; };

static struct seed seeds[SEEDS_MAX];
static uint32_t seed_count;
static struct { uint8_t bytes[64]; size_t len; } words[WORDS_MAX];
static uint32_t word_count;
static uint8_t input[INPUT_BYTES_MAX];
static size_t input_len;
static char crash_path[128];

/* Sanitizers end in abort(), where the input can still be kept. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void)
{
    return "abort_on_error=1";
}
const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}

static void on_fatal(int number)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool kept = fd >= 0 && write(fd, input, input_len) == (ssize_t)input_len;
    (void)!write(2, kept ? "input kept in " : "input not kept: ", kept ? 14 : 16);
    (void)!write(2, crash_path, strlen(crash_path));
    (void)!write(2, "\n", 1);
    signal(number, SIG_DFL);
    raise(number);
}

static void run_one(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1); /* so that reading past it is found */
    if (!exact)
        abort();
    memmove(input, bytes, len);
    input_len = len;
    memcpy(exact, input, len);
    alarm(INPUT_SECONDS_MAX);
    LLVMFuzzerTestOneInput(exact, len);
    alarm(0);
    free(exact);
}

/* --- what it is given --- */

static void add_file(const char *path)
{
    struct seed *s = &seeds[seed_count];
    FILE *f = fopen(path, "re");
    if (!f || seed_count == SEEDS_MAX) {
        fprintf(stderr, "%s: %s\n", path, f ? "too many files" : "cannot be opened");
        exit(2);
    }
    s->bytes = malloc(INPUT_BYTES_MAX);
    s->path = strdup(path);
    if (!s->bytes || !s->path)
        abort();
    s->len = fread(s->bytes, 1, INPUT_BYTES_MAX, f);
    fclose(f);
    seed_count++;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct seed *)a)->path, ((const struct seed *)b)->path);
}

static void add_path(const char *path)
{
    struct stat st;
    DIR *d = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    struct dirent *e;
    if (!d) {
        add_file(path);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            add_file(file);
    }
    closedir(d);
}

static uint8_t hex_byte(const char *at)
{
    char text[3] = {at[0], at[0] ? at[1] : '\0', '\0'};
    return (uint8_t)strtoul(text, NULL, 16);
}

/* libFuzzer's format: [name=]"bytes" with \xNN, \\ and \". */
static void add_word(const char *line)
{
    const char *at = strchr(line, '"');
    size_t n = 0;
    if (line[0] == '#' || !at || word_count == WORDS_MAX)
        return;
    for (at++; *at && *at != '"' && n < sizeof words[0].bytes; at++) {
        if (at[0] == '\\' && at[1] == 'x') {
            words[word_count].bytes[n++] = hex_byte(at + 2);
            at += 3;
        } else {
            at += at[0] == '\\' && at[1];
            words[word_count].bytes[n++] = (uint8_t)*at;
        }
    }
    words[word_count++].len = n;
}

static void add_words(const char *path)
{
    char line[512];
    FILE *f = fopen(path, "re");
    if (!f) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        exit(2);
    }
    while (fgets(line, sizeof line, f))
        add_word(line);
    fclose(f);
}

/* --- mutation --- */

static void insert(uint8_t *bytes, size_t *len, size_t at, const uint8_t *what, size_t n)
{
    if (n > INPUT_BYTES_MAX - *len)
        return;
    memmove(bytes + at + n, bytes + at, *len - at);
    memcpy(bytes + at, what, n);
    *len += n;
}

static void cut(uint8_t *bytes, size_t *len, size_t at, size_t n)
{
    if (n > *len - at)
        n = *len - at;
    memmove(bytes + at, bytes + at + n, *len - at - n);
    *len -= n;
}

static void change_byte(struct prng *p, uint8_t *bytes, size_t len)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '\r', '\n', '.', ' ', '"'};
    size_t at = (size_t)prng_below(p, len);
    uint64_t how = prng_below(p, 3);
    if (how == 0)
        bytes[at] ^= (uint8_t)(1u << prng_below(p, 8));
    else
        bytes[at] = how == 1 ? (uint8_t)prng_next(p) : telling[prng_below(p, sizeof telling)];
}

static void mutate_once(struct prng *p, uint8_t *bytes, size_t *len)
{
    size_t at = (size_t)prng_below(p, *len + 1), n = (size_t)prng_below(p, 16) + 1;
    uint8_t some[16];
    const struct seed *other = &seeds[prng_below(p, seed_count)];
    switch (prng_below(p, 6)) {
    case 0:
        for (size_t i = 0; i < n; i++)
            some[i] = (uint8_t)prng_next(p);
        insert(bytes, len, at, some, n);
        break;
    case 1:
        cut(bytes, len, at, n);
        break;
    case 2:
        if (word_count) {
            size_t w = (size_t)prng_below(p, word_count);
            insert(bytes, len, at, words[w].bytes, words[w].len);
        }
        break;
    case 3: /* the rest comes from elsewhere */
        *len = at;
        at = (size_t)prng_below(p, other->len + 1);
        insert(bytes, len, *len, other->bytes + at, other->len - at);
        break;
    default:
        if (*len)
            change_byte(p, bytes, *len);
    }
}

static void run_mutations(uint64_t first, uint64_t runs)
{
    static uint8_t bytes[INPUT_BYTES_MAX];
    for (uint64_t i = 0; i < runs; i++) {
        struct prng p = {first + i};
        const struct seed *s = &seeds[prng_below(&p, seed_count)];
        size_t len = s->len;
        memcpy(bytes, s->bytes, len);
        for (uint64_t n = prng_below(&p, 6) + 1; n > 0; n--)
            mutate_once(&p, bytes, &len);
        run_one(bytes, len);
    }
}

int main(int argc, char **argv)
{
    uint64_t runs = 0, first = 1;
    const char *slash = strrchr(argv[0], '/');
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-runs=", 6) == 0)
            runs = strtoull(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            first = strtoull(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-dict=", 6) == 0)
            add_words(argv[i] + 6);
        else
            add_path(argv[i]);
    }
    if (seed_count == 0) {
        fprintf(stderr, "usage: %s [-runs=N] [-dict=FILE] [-seed=N] FILE|DIRECTORY...\n", argv[0]);
        return 2;
    }
    qsort(seeds, seed_count, sizeof seeds[0], by_path); /* a directory has no order of its own */
    snprintf(crash_path, sizeof crash_path, "crash-%s", slash ? slash + 1 : argv[0]);
    signal(SIGABRT, on_fatal);
    signal(SIGALRM, on_fatal);
    for (uint32_t i = 0; i < seed_count; i++)
        run_one(seeds[i].bytes, seeds[i].len);
    run_mutations(first, runs);
    printf("%u inputs, %llu mutations of them\n", seed_count, (unsigned long long)runs);
    for (uint32_t i = 0; i < seed_count; i++) {
        free(seeds[i].bytes);
        free(seeds[i].path);
    }
    return 0;
}
