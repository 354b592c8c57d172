/* SPDX-License-Identifier: Apache-2.0 */
/* The content scanner: whatever the width of the vectors and the pieces, the verdict is that of a walk byte by byte. It is
 * included whole, because only one width is chosen at run time. */
#include "../../relay/smtp_body.c"

#include <base/prng.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CONTENT_MAX 700u

/* Text with line ends, now and then a dot in front or a line end that is none. */
static size_t make_content(struct prng *p, uint8_t *bytes)
{
    size_t len = prng_below(p, CONTENT_MAX);
    unsigned line = 1 + (unsigned)prng_below(p, 150), wrong = (unsigned)prng_below(p, 3);
    for (size_t i = 0; i < len; i++) {
        bool end = prng_below(p, line) == 0;
        bytes[i] = (uint8_t)(end ? '\r' : prng_below(p, 8) ? 'a' + prng_below(p, 26) : '.');
        if (i && bytes[i - 1] == '\r')
            bytes[i] = '\n';
        if (wrong && prng_below(p, 300) == 0)
            bytes[i] = prng_below(p, 2) ? '\r' : '\n';
    }
    return len;
}

/* What BDY-2 says, one byte at a time: how many bytes are plain. */
static size_t slow_scan(const uint8_t *bytes, size_t len, bool dots, bool *bare_out)
{
    bool line_start = true, after_cr = false;
    for (size_t i = 0; i < len; i++) {
        bool lf = bytes[i] == '\n';
        *bare_out = lf != after_cr;
        if (*bare_out || (dots && line_start && bytes[i] == '.'))
            return i;
        after_cr = bytes[i] == '\r';
        line_start = lf;
    }
    return len;
}

/* Always the same object: what is not used of `line` is equal too. */
static size_t scan_in_pieces(struct prng *p, struct smtp_body *b, masks_fn *masks, const uint8_t *bytes, size_t len, bool dots)
{
    size_t done = 0;
    memset(b, 0, sizeof *b);
    smtp_body_begin(b);
    while (done < len) {
        size_t piece = 1 + prng_below(p, 200);
        piece = piece < len - done ? piece : len - done;
        uint8_t *exact = malloc(piece); /* a sanitizer sees a read past the end */
        memcpy(exact, bytes + done, piece);
#ifdef __SSE2__
        size_t plain = masks == masks_of ? scan_plain(b, exact, piece, dots) : scan_widest(b, exact, piece, dots);
#else
        size_t plain = scan_plain(b, exact, piece, dots);
#endif
        free(exact);
        done += plain;
        if (plain < piece)
            break;
    }
    return done;
}

static void every_width_gives_the_verdict_of_a_walk_byte_by_byte(void **state)
{
    (void)state;
    static uint8_t bytes[CONTENT_MAX];
    uint32_t whole = 0, bare = 0, dot = 0;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct prng p = {seed}, again;
        struct smtp_body narrow, wide;
        bool dots = seed % 2, is_bare = false;
        size_t len = make_content(&p, bytes);
        size_t expected = slow_scan(bytes, len, dots, &is_bare);
        again = p;
        assert_int_equal(scan_in_pieces(&p, &narrow, masks_of, bytes, len, dots), expected);
        assert_int_equal(scan_in_pieces(&again, &wide, NULL, bytes, len, dots), expected);
        assert_memory_equal(&narrow, &wide, sizeof wide);
        assert_int_equal(narrow.bare, expected < len && is_bare);
        whole += expected == len;
        bare += narrow.bare;
        dot += expected < len && !narrow.bare;
    }
    assert_true(whole > 1000 && bare > 1000 && dot > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_gives_the_verdict_of_a_walk_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
