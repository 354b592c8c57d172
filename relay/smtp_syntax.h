/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of SMTP commands (RFC 5321 4.1, 6531, 1870, 6152, 3030). Pure: a line without its CRLF in, values out.
 *
 *  SYN-1  what parses is printable ASCII, or UTF-8 that was checked; no control character comes through.
 *  SYN-2  an address that parses can be written between '<' and '>' of our own commands as it is. */
#ifndef RELAY_SMTP_SYNTAX_H
#define RELAY_SMTP_SYNTAX_H

#include <base/err.h>
#include <spoolfs/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum smtp_verb {
    SMTP_MAIL,
    SMTP_RCPT,
    SMTP_DATA,
    SMTP_BDAT,
    SMTP_EHLO,
    SMTP_HELO,
    SMTP_RSET,
    SMTP_NOOP,
    SMTP_QUIT,
    SMTP_VRFY,
    SMTP_STARTTLS,
    SMTP_HELP,
    SMTP_UNIMPLEMENTED, /* a command of SMTP that we do not have */
    SMTP_FOREIGN,       /* another protocol's: HTTP */
    SMTP_UNKNOWN,
    SMTP_VERB_COUNT
};
extern const char *const smtp_verb_words[SMTP_VERB_COUNT]; /* "MAIL", ... */

struct smtp_text {
    const char *at;
    uint32_t len;
};

/* The rest of the line, without the spaces around it, is the argument. */
enum smtp_verb smtp_verb_of(const char *line, uint32_t len, struct smtp_text *argument_out);

struct smtp_path {
    const char *at;      /* into the line; a source route is passed over */
    uint32_t len;        /* 0: "<>" */
    bool has_domain;
    bool non_ascii;      /* needs SMTPUTF8 */
};
/* "FROM:<...>" or "TO:<...>": `rest` begins behind the '>'. ERR_INVALID: not a path; ERR_TOO_LARGE: over
 * ADDRESS_BYTES_MAX. */
enum err smtp_parse_path(struct smtp_text argument, const char *keyword, struct smtp_path *path_out,
                         struct smtp_text *rest_out) MUST_CHECK;

struct smtp_mail_parameters {
    uint64_t size;       /* 0: not given */
    bool smtputf8, eightbit;
    bool hold;           /* XHOLD: our own, not announced, for spooltool import */
};
/* ERR_INVALID: malformed or given twice (501 5.5.4); ERR_NOT_FOUND: not ours (555 5.5.4);
 * ERR_TOO_LARGE: SIZE beyond any number (552 5.3.4). */
enum err smtp_parse_mail_parameters(struct smtp_text rest, struct smtp_mail_parameters *p_out) MUST_CHECK;
enum err smtp_parse_rcpt_parameters(struct smtp_text rest) MUST_CHECK; /* we announce none */
enum err smtp_parse_bdat(struct smtp_text argument, uint64_t *size_out, bool *last_out) MUST_CHECK;
/* A name or an address literal; liberal, as clients put anything here: printable ASCII, no spaces, at most 255 bytes. */
enum err smtp_parse_helo(struct smtp_text argument) MUST_CHECK;

bool smtp_utf8_valid(const char *bytes, uint32_t len);

#endif
