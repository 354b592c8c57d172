/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the client machine share. Nobody else includes this. */
#ifndef RELAY_SMTP_OUT_PARTS_H
#define RELAY_SMTP_OUT_PARTS_H

#include "smtp_out.h"

/* the last bytes of the body so far */
enum { TAIL_LINE_START, TAIL_IN_LINE, TAIL_CR };

void smtp_out_write_text(struct smtp_out *m, const char *text);
void smtp_out_die(struct smtp_out *m, unsigned code, const char *text, const char *command);
void smtp_out_take_keyword(struct smtp_out *m, const char *line);
void smtp_out_on_reply(struct smtp_out *m, unsigned code);

#endif
