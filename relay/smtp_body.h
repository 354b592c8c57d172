/* SPDX-License-Identifier: Apache-2.0 */
/* Message content as it streams by: strict line ends, dots at line starts, line lengths, and what the header says.
 * Pure; keeps a few hundred bytes of state, never the content.
 *
 *  BDY-1  whatever the pieces the content comes in, the verdict is the same.
 *  BDY-2  a CR without LF or an LF without CR is found before a byte behind it is handed on. */
#ifndef RELAY_SMTP_BODY_H
#define RELAY_SMTP_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMTP_BODY_LINE_KEPT 320u /* of a header line, to see its name and a message-id */

struct smtp_body {
    uint64_t bytes;          /* content so far */
    uint64_t line_bytes;     /* of the line under way, a CR at its end included */
    uint64_t line_bytes_max; /* the longest ended line, without its CRLF */
    uint64_t header_bytes;
    uint32_t hops;           /* Received fields */
    bool line_start, after_cr;
    bool bare;               /* BDY-2: at the byte behind what was plain */
    bool in_header, first_line, id_wanted;
    uint32_t line_kept;
    char line[SMTP_BODY_LINE_KEPT];
    char message_id[256];    /* value of the Message-ID field, or empty */
};

void smtp_body_begin(struct smtp_body *b);
/* How many bytes from the start are content, to be handed on as they are. Stops before a '.' that begins a line (when
 * `dots`) and where a line end is not CRLF (`bare`). */
size_t smtp_body_scan(struct smtp_body *b, const uint8_t *bytes, size_t len, bool dots);

#endif
