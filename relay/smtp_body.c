/* SPDX-License-Identifier: Apache-2.0 */
/* The content scanner. 64 bytes at a time become three bit masks (CR, LF, dot); strictness is then one comparison:
 * the LFs must be exactly the CRs moved by one. The header, a small part of most mail, is looked at line by line. Pure. */
#include "smtp_body.h"

#include <string.h>
#include <strings.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define STRIDE 64u

struct masks {
    uint64_t cr, lf, dot;
};

#ifdef __SSE2__
/* 79 us for a MiB of text instead of 129; chosen at run time, so that a package for all of x86-64 has it. */
#define AVX2 __attribute__((target("avx2")))

static inline AVX2 struct masks masks_avx2(const uint8_t *bytes)
{
    struct masks m = {0};
    for (unsigned i = 0; i < STRIDE / 32; i++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i * 32));
        m.cr |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('\r'))) << (i * 32);
        m.lf |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('\n'))) << (i * 32);
        m.dot |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('.'))) << (i * 32);
    }
    return m;
}

static inline struct masks masks_of(const uint8_t *bytes)
{
    struct masks m = {0};
    for (unsigned i = 0; i < STRIDE / 16; i++) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + i * 16));
        m.cr |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\r'))) << (i * 16);
        m.lf |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n'))) << (i * 16);
        m.dot |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('.'))) << (i * 16);
    }
    return m;
}
#else
static inline struct masks masks_of(const uint8_t *bytes)
{
    struct masks m = {0};
    for (unsigned i = 0; i < STRIDE; i++) {
        m.cr |= (uint64_t)(bytes[i] == '\r') << i;
        m.lf |= (uint64_t)(bytes[i] == '\n') << i;
        m.dot |= (uint64_t)(bytes[i] == '.') << i;
    }
    return m;
}
#endif

void smtp_body_begin(struct smtp_body *b)
{
    memset(b, 0, offsetof(struct smtp_body, line));
    b->message_id[0] = '\0';
    b->line_start = b->in_header = b->first_line = true;
}

/* --- the header --- */

static void keep_message_id(struct smtp_body *b, const char *value, const char *end)
{
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    size_t len = (size_t)(end - value);
    b->id_wanted = len == 0; /* folded: on the next line */
    if (len >= sizeof b->message_id)
        len = sizeof b->message_id - 1;
    memcpy(b->message_id, value, len);
    b->message_id[len] = '\0';
}

static void header_line(struct smtp_body *b)
{
    const char *line = b->line, *end = b->line + b->line_kept;
    if (end > line && end[-1] == '\r')
        end--;
    bool first = b->first_line;
    b->first_line = false;
    if (line == end) {
        b->in_header = false;
        return;
    }
    if (*line == ' ' || *line == '\t') {
        if (first)
            b->in_header = false;
        else if (b->id_wanted)
            keep_message_id(b, line, end);
        return;
    }
    b->id_wanted = false;
    const char *colon = line;
    while (colon < end && *colon > 0x20 && *colon < 0x7f && *colon != ':')
        colon++;
    const char *name_end = colon;
    while (colon < end && (*colon == ' ' || *colon == '\t'))
        colon++;
    if (colon == end || *colon != ':' || name_end == line) { /* not a field: the body began without a blank line */
        b->in_header = false;
        return;
    }
    size_t name = (size_t)(name_end - line);
    if (name == 8 && strncasecmp(line, "Received", 8) == 0)
        b->hops++;
    else if (name == 10 && strncasecmp(line, "Message-ID", 10) == 0 && !b->message_id[0])
        keep_message_id(b, colon + 1, end);
}

static void watch_header(struct smtp_body *b, const uint8_t *bytes, size_t len)
{
    while (len > 0 && b->in_header) {
        const uint8_t *lf = memchr(bytes, '\n', len);
        size_t part = lf ? (size_t)(lf - bytes) : len;
        size_t room = sizeof b->line - b->line_kept;
        memcpy(b->line + b->line_kept, bytes, part < room ? part : room);
        b->line_kept += (uint32_t)(part < room ? part : room);
        b->header_bytes += part + (lf ? 1 : 0);
        if (!lf)
            return;
        header_line(b);
        b->line_kept = 0;
        bytes = lf + 1;
        len -= part + 1;
    }
}

/* --- line ends --- */

static inline void count_lines(struct smtp_body *b, uint64_t lf, unsigned n)
{
    if (lf == 0) {
        b->line_bytes += n;
        return;
    }
    uint64_t first = b->line_bytes + (unsigned)__builtin_ctzll(lf); /* later lines of these 64 bytes are shorter */
    if (first > b->line_bytes_max + 1)
        b->line_bytes_max = first - 1; /* the CR does not count */
    b->line_bytes = n - 1 - (63u - (unsigned)__builtin_clzll(lf));
}

typedef struct masks masks_fn(const uint8_t *bytes); /* a constant wherever it is passed: all of it is inlined */
#define INLINED static inline __attribute__((always_inline))

/* One stride of n <= 64 bytes; how many of them are plain. */
INLINED unsigned scan_stride(struct smtp_body *b, const uint8_t *bytes, unsigned n, bool dots, masks_fn *masks)
{
    uint8_t padded[STRIDE];
    if (n < STRIDE) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, bytes, n);
        bytes = padded;
    }
    struct masks m = masks(bytes);
    uint64_t within = n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
    uint64_t bare = (m.lf ^ (m.cr << 1 | b->after_cr)) & within;
    uint64_t dot = dots ? m.dot & (m.lf << 1 | b->line_start) & within : 0;
    unsigned plain = n;
    if (bare | dot) {
        plain = (unsigned)__builtin_ctzll(bare | dot);
        b->bare = bare >> plain & 1;
    }
    if (plain == 0)
        return 0;
    uint64_t taken = plain < 64 ? (UINT64_C(1) << plain) - 1 : UINT64_MAX;
    count_lines(b, m.lf & taken, plain);
    b->after_cr = m.cr >> (plain - 1) & 1;
    b->line_start = m.lf >> (plain - 1) & 1;
    return plain;
}

INLINED size_t scan(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots, masks_fn *masks)
{
    size_t done = 0;
    while (done < len) {
        unsigned n = len - done < STRIDE ? (unsigned)(len - done) : STRIDE;
        unsigned plain = scan_stride(b, bytes + done, n, dots, masks);
        done += plain;
        if (plain < n)
            break;
    }
    return done;
}

static size_t scan_plain(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots)
{
    return scan(b, bytes, len, dots, masks_of);
}

#ifdef __SSE2__
static AVX2 size_t scan_avx2(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots)
{
    return scan(b, bytes, len, dots, masks_avx2);
}

static size_t scan_widest(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots)
{
    return __builtin_cpu_supports("avx2") ? scan_avx2(b, bytes, len, dots) : scan_plain(b, bytes, len, dots);
}
#else
#define scan_widest scan_plain
#endif

size_t smtp_body_scan(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots)
{
    size_t done = scan_widest(b, bytes, len, dots);
    b->bytes += done;
    if (b->in_header)
        watch_header(b, bytes, done);
    return done;
}
