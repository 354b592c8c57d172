/* SPDX-License-Identifier: Apache-2.0 */
/* Files of Postfix's table syntax, line by line: '#' begins a comment line, a line that begins with white space goes on
 * the one before it. Knows nothing of what a line means.
 *
 *  MPF-1  every refusal names file and line. */
#ifndef RELAY_MAPFILE_H
#define RELAY_MAPFILE_H

#include <base/err.h>
#include <stdbool.h>
#include <stdint.h>

#define MAPFILE_BYTES_MAX (UINT64_C(128) * 1024 * 1024) /* of one file */
#define MAPFILE_TEXT_BYTES 512u                         /* a message about what is wrong */

struct mapfile_reader {
    const char *what;           /* the setting that names the file, for "cannot be opened" */
    uint32_t line_bytes_max;    /* of one logical line, its continuations included */
    bool whole_lines;           /* no continuations: every line is one */
    /* The line may be written to. ERR_CONFIG with what is wrong in `why`, without file and line; ERR_NO_MEMORY. */
    enum err (*take)(void *owner, char *line, char why[MAPFILE_TEXT_BYTES]);
    void *owner;
};

/* ERR_CONFIG with "file:line: what is wrong" in text; ERR_NO_MEMORY. */
enum err mapfile_read(const char *file, const struct mapfile_reader *reader, char text[MAPFILE_TEXT_BYTES]) MUST_CHECK;

#endif
