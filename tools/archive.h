/* SPDX-License-Identifier: Apache-2.0 */
/* An export on disk: a tar of small files, through the zstd program. */
#ifndef TOOLS_ARCHIVE_H
#define TOOLS_ARCHIVE_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define ARCHIVE_NAME_BYTES 100

struct archive {
    FILE *stream;
    pid_t zstd;
    int file;              /* what zstd writes to */
    char *path, *aside;    /* the file takes its name when it is whole; until then it is called `aside`. NULL: a stream, a device */
};

/* NULL or "-" or the path of standard output itself. */
bool archive_is_standard(const char *path);
/* Say what is wrong; return an exit code of tool.h. A regular file at `path` is replaced by archive_finish, or stays as it is. */
int archive_create(const char *path, struct archive *archive_out) MUST_CHECK;
int archive_open(const char *path, struct archive *archive_out) MUST_CHECK;
/* What was written: ended, durable and under its name; false when anything of the whole could not be written. */
bool archive_finish(struct archive *a) MUST_CHECK;
/* What was written is not to be kept. */
void archive_abandon(struct archive *a);
/* Of one that was read; waits for zstd; false when it could not read it to its end. */
bool archive_close(struct archive *a) MUST_CHECK;

bool archive_add(struct archive *a, const char *name, FILE *bytes, uint64_t length, uint64_t mtime_s) MUST_CHECK;
/* The next file: ERR_OK, ERR_NOT_FOUND at the end, ERR_INVALID for what is no tar. Its bytes must then be read. */
enum err archive_next(struct archive *a, char name_out[ARCHIVE_NAME_BYTES], uint64_t *length_out) MUST_CHECK;
/* Copies the file's bytes and skips the padding. */
bool archive_read(struct archive *a, FILE *to, uint64_t length) MUST_CHECK;

#endif
