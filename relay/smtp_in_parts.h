/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the server machine share. Nobody else includes this. */
#ifndef RELAY_SMTP_IN_PARTS_H
#define RELAY_SMTP_IN_PARTS_H

#include "smtp_in.h"

#define REPLY_BYTES 1024

/* --- smtp_in_reply.c --- */

#define SAY(m, literal) (m)->cb->reply((m)->owner, literal "\r\n", sizeof literal + 1)

void smtp_in_say(struct smtp_in *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
void smtp_in_good(struct smtp_in *m); /* the command under way was one */
void smtp_in_refuse(struct smtp_in *m, enum err why, const char *text);
void smtp_in_refuse_address(struct smtp_in *m, enum err why, const char *text, const char *address, uint32_t len);
bool smtp_in_refuse_error(struct smtp_in *m, enum err e); /* true: the session is over */
void smtp_in_refuse_bare(struct smtp_in *m);              /* SIN-2 */
const char *smtp_in_reply_of(enum err e);
void smtp_in_tell_abandoned(struct smtp_in *m);
void smtp_in_end_mail(struct smtp_in *m);
void smtp_in_end_session(struct smtp_in *m);
void smtp_in_end_session_with(struct smtp_in *m, enum err why, const char *code, const char *text);
void smtp_in_end_stopping(struct smtp_in *m);
void smtp_in_end_if_stopping(struct smtp_in *m);

/* --- smtp_in_command.c --- */

void smtp_in_command(struct smtp_in *m, const char *line, uint32_t len); /* without its CRLF */

/* --- smtp_in_content.c --- */

uint64_t smtp_in_content_bytes_max(const struct smtp_in *m); /* beyond it nothing is taken any more */
void smtp_in_ask_for_content(struct smtp_in *m);
void smtp_in_begin_content(struct smtp_in *m);
void smtp_in_begin_discarding(struct smtp_in *m, enum err why, const char *reply);
void smtp_in_content_refused(struct smtp_in *m, enum err e);
/* Each returns how many bytes it consumed; 0: more are needed. */
size_t smtp_in_data_step(struct smtp_in *m, const uint8_t *bytes, size_t len);
size_t smtp_in_bdat_step(struct smtp_in *m, const uint8_t *bytes, size_t len);

#endif
