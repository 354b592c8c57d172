/* SPDX-License-Identifier: Apache-2.0 */
/* The tools' end of the control socket; relay/daemon/admin.h tells what can be asked. */
#ifndef TOOLS_ASK_H
#define TOOLS_ASK_H

#include "doc.h"
#include "tool.h"

struct ask;

/* Sends `command` with the members of `request` (taken over, NULL: none) and reads the header of the answer. Returns
 * TOOL_DONE, or the exit code after having said why and what to do next. */
int ask_open(struct tool *t, const char *command, struct doc *request, struct ask **ask_out) MUST_CHECK;
const struct doc *ask_header(const struct ask *a);
/* Waits until somebody listens on the control socket again; says nothing. False: not permitted, or no configuration. */
bool ask_wait_daemon(struct tool *t);
void ask_wait_forever(struct ask *a); /* for streams that stay open; else an answer may pause ASK_PATIENCE_S */
void ask_close(struct ask **ask);

/* Each returns TOOL_DONE, or the exit code after having said that the answer was cut short or makes no sense. */
int ask_document(struct ask *a, struct doc **doc_out) MUST_CHECK;
int ask_text(struct ask *a, FILE *to) MUST_CHECK;
int ask_bytes(struct ask *a, FILE *to) MUST_CHECK;
/* Calls `one` for every line but the last, which becomes *end_out (the caller frees it). `raw` is the line itself. The
 * end of a stream that is waited for for ever is TOOL_UNREACHABLE and said nothing about. */
int ask_lines(struct ask *a, void *owner, void (*one)(void *owner, const struct doc *line, const char *raw),
              struct doc **end_out) MUST_CHECK;

/* The same lines unread, as they came: for programs, and five times as fast. */
int ask_copy_lines(struct ask *a, FILE *to, struct doc **end_out) MUST_CHECK;

/* open + document + close, for commands that need nothing else. */
int ask_for(struct tool *t, const char *command, struct doc *request, struct doc **doc_out) MUST_CHECK;

#define ASK_PATIENCE_S 30 /* the daemon answers from memory; a silence of this length means that it is stuck */

#endif
