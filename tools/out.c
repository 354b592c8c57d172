/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: how text looks. The only door to libsmartcols. */
#include "out.h"

#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void out_check(const void *p)
{
    if (!p) {
        fputs("spooltool: out of memory\n", stderr);
        exit(1);
    }
}

static const char *out_colour(const char *cell)
{
    static const struct { const char *word, *colour; } colours[] = {
        {"healthy", "green"}, {"degraded", "yellow"}, {"suspect", "yellow"}, {"slow", "yellow"},
        {"rebuilding", "yellow"}, {"evacuating", "yellow"}, {"warning", "yellow"}, {"absent", "red"},
        {"at-risk", "red"}, {"read-only", "red"}, {"failed", "red"}, {"failing", "red"}, {"critical", "red"},
    };
    for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++)
        if (strcmp(cell, colours[i].word) == 0)
            return colours[i].colour;
    return NULL;
}

struct out_table *out_table(const char *const *columns)
{
    struct libscols_table *t = scols_new_table();
    out_check(t);
    const char *no_color = getenv("NO_COLOR");
    scols_table_enable_colors(t, isatty(STDOUT_FILENO) && !(no_color && *no_color));
    scols_table_set_termforce(t, isatty(STDOUT_FILENO) ? SCOLS_TERMFORCE_AUTO : SCOLS_TERMFORCE_NEVER);
    for (; *columns; columns++) {
        bool right = **columns == '>';
        out_check(scols_table_new_column(t, *columns + right, 0, right ? SCOLS_FL_RIGHT : 0));
    }
    return (struct out_table *)t;
}

void out_row(struct out_table *table, const char *const *cells)
{
    struct libscols_table *t = (struct libscols_table *)table;
    struct libscols_line *line = scols_table_new_line(t, NULL);
    out_check(line);
    for (size_t i = 0; i < scols_table_get_ncols(t); i++) {
        const char *cell = cells[i] && *cells[i] ? cells[i] : "-";
        scols_line_set_data(line, i, cell);
        if (out_colour(cell))
            scols_cell_set_color(scols_line_get_cell(line, i), out_colour(cell));
    }
}

void out_table_print(struct out_table **table)
{
    struct libscols_table *t = (struct libscols_table *)*table;
    scols_print_table(t);
    scols_unref_table(t);
    *table = NULL;
}

const char *out_bytes(uint64_t bytes, char text[OUT_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1024 && unit < 6) {
        value /= 1024;
        unit++;
    }
    snprintf(text, OUT_TEXT, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

const char *out_count(uint64_t n, char text[OUT_TEXT])
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    char *at = text;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return text;
}

const char *out_age(double seconds, char text[OUT_TEXT])
{
    uint64_t s = seconds > 0 ? (uint64_t)seconds : 0;
    if (s < 60)
        snprintf(text, OUT_TEXT, "%llu s", (unsigned long long)s);
    else if (s < 3600)
        snprintf(text, OUT_TEXT, "%llu min %llu s", (unsigned long long)s / 60, (unsigned long long)s % 60);
    else if (s < 86400)
        snprintf(text, OUT_TEXT, "%llu h %llu min", (unsigned long long)s / 3600, (unsigned long long)s % 3600 / 60);
    else
        snprintf(text, OUT_TEXT, "%llu d %llu h", (unsigned long long)s / 86400, (unsigned long long)s % 86400 / 3600);
    return text;
}

const char *out_latency(double seconds, char text[OUT_TEXT])
{
    if (seconds <= 0)
        snprintf(text, OUT_TEXT, "-");
    else if (seconds < 1e-3)
        snprintf(text, OUT_TEXT, "%.0f us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(text, OUT_TEXT, "%.1f ms", seconds * 1e3);
    else
        snprintf(text, OUT_TEXT, "%.1f s", seconds);
    return text;
}

const char *out_time(uint64_t wall_ms, char text[OUT_TEXT])
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (!gmtime_r(&s, &tm) || !strftime(text, OUT_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(text, OUT_TEXT, "-");
    return text;
}

void out_progress(const char *what, uint64_t done, uint64_t total)
{
    static int shown = -1;
    int percent = total ? (int)(done * 100 / total) : 100;
    if (isatty(STDERR_FILENO)) {
        if (percent == shown)
            return;
        shown = percent;
        fprintf(stderr, "\r%s: %3d %%%s", what, percent, done >= total ? "\n" : "");
    } else if (done >= total) {
        fprintf(stderr, "%s: done\n", what);
    }
}
