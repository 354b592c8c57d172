/* SPDX-License-Identifier: Apache-2.0 */
/* Logical lines out of physical ones. See mapfile.h. */
#include "mapfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct reading {
    const struct mapfile_reader *reader;
    const char *file;
    char *text;               /* of MAPFILE_TEXT_BYTES */
    char *logical, *physical; /* each of line_bytes_max */
    uint32_t len, began;      /* of the logical line */
    uint32_t number;          /* of the physical one */
};

static enum err refuse(struct reading *r, uint32_t line, const char *why)
{
    snprintf(r->text, MAPFILE_TEXT_BYTES, "%.200s:%u: %.290s", r->file, line, why);
    return ERR_CONFIG; /* MPF-1 */
}

static enum err finish_line(struct reading *r)
{
    if (r->len == 0)
        return ERR_OK;
    r->logical[r->len] = '\0';
    r->len = 0;
    char why[MAPFILE_TEXT_BYTES] = "";
    enum err e = r->reader->take(r->reader->owner, r->logical, why);
    return e == ERR_CONFIG ? refuse(r, r->began, why) : e;
}

static enum err take_physical(struct reading *r, uint32_t len)
{
    size_t blank = strspn(r->physical, " \t\r");
    if (blank >= len || r->physical[blank] == '#')
        return ERR_OK; /* also between a line and its continuation, as Postfix has it */
    if (blank == 0 || r->reader->whole_lines) {
        enum err e = finish_line(r);
        if (e)
            return e;
        r->began = r->number;
    } else if (r->len == 0) {
        return refuse(r, r->number, "a continuation of nothing");
    }
    memcpy(r->logical + r->len, r->physical, len);
    r->len += len;
    return ERR_OK;
}

static enum err read_lines(struct reading *r, FILE *f)
{
    char why[64];
    uint32_t most = r->reader->line_bytes_max;
    uint64_t total = 0;
    while (fgets(r->physical, (int)most, f)) {
        size_t len = strlen(r->physical);
        r->number++;
        total += len;
        bool whole = len > 0 && r->physical[len - 1] == '\n';
        len -= whole;
        bool first = r->reader->whole_lines || !strchr(" \t\r", r->physical[0]);
        if ((!whole && !feof(f)) || (first ? 0 : r->len) + len + 1 >= most) {
            snprintf(why, sizeof why, "the line is longer than %u bytes", most - 1);
            return refuse(r, r->number, why);
        }
        if (total > MAPFILE_BYTES_MAX)
            return refuse(r, r->number, "the file is larger than 128 MiB");
        enum err e = take_physical(r, (uint32_t)len);
        if (e)
            return e;
    }
    return ferror(f) ? refuse(r, r->number, "cannot be read") : finish_line(r);
}

enum err mapfile_read(const char *file, const struct mapfile_reader *reader, char text[MAPFILE_TEXT_BYTES])
{
    struct reading r = {.reader = reader, .file = file, .text = text};
    struct stat st;
    enum err e = ERR_NO_MEMORY;
    if (stat(file, &st) == 0 && !S_ISREG(st.st_mode)) { /* a FIFO would keep us waiting */
        snprintf(text, MAPFILE_TEXT_BYTES, "%.300s: %.60s: not a regular file", file, reader->what);
        return ERR_CONFIG;
    }
    FILE *f = fopen(file, "re");
    if (!f) {
        snprintf(text, MAPFILE_TEXT_BYTES, "%.300s: %.60s file cannot be opened: %m", file, reader->what);
        return ERR_CONFIG;
    }
    r.logical = malloc(reader->line_bytes_max);
    r.physical = malloc(reader->line_bytes_max);
    if (r.logical && r.physical)
        e = read_lines(&r, f);
    free(r.logical);
    free(r.physical);
    fclose(f);
    return e;
}
