/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest SMTP client: one message after the other to our own listener, bodies as they are (BDAT). Blocking. */
#ifndef TOOLS_SMTP_SEND_H
#define TOOLS_SMTP_SEND_H

#include "doc.h"

struct smtp_send;

/* To a listener that takes connections of this host by its loopback address, or the first of the configuration. Return an exit code of
 * tool.h after having said what is wrong. */
struct tool;
int smtp_send_open(struct tool *t, struct smtp_send **send_out) MUST_CHECK;
/* envelope: "sender" and "recipients": [{"address"}]. `length` bytes of `body`, read from its place. `hold`: it arrives in the hold
 * queue, so that nothing can deliver it before. */
int smtp_send_message(struct smtp_send *s, const struct doc *envelope, bool hold, FILE *body, uint64_t length) MUST_CHECK;
void smtp_send_close(struct smtp_send **s);

#endif
