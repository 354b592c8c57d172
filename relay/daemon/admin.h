/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: what spooltool and scripts ask of the running spool process. Unix stream socket at
 * `control_socket`, mode 0660, owned by the configured group: who can open it may do everything.
 *
 * A client sends one JSON object on one line:      {"command": "status"}
 * and gets one header line back:                   {"ok": true, "format": "json"}
 *                                                  {"ok": false, "error": "NOT_FOUND", "text": "no such message"}
 * then the payload, then the end of the stream. `format` tells what the payload is:
 *   json   one document on one line
 *   text   text for people, or the metrics exposition format
 *   lines  one JSON object a line; the LAST line is {"end": true, "count": N, ...}: without it the answer was cut short
 *   bytes  exactly `bytes` bytes (a member of the header): a message's body
 * `error` is a name of spoolfs/errors.def; INVALID also means: this daemon does not know the command.
 *
 *   status                      json   the document of `spooltool status --json`
 *   status-text                 text   the same for people
 *   members                     json   {"members": [...]}: as in status, with more fields
 *   metrics                     text   Prometheus exposition format
 *   events   {"count": 100, "follow": false}   lines  the newest events, oldest first; with follow the stream stays open;
 *                                                       the header's `run` names the process whose numbers these are
 *   queue-list    {SELECTOR}    lines  one message each, as `postqueue -j` with more fields
 *   queue-summary               json   {"messages","recipients","active","deferred","hold","oldest_age_seconds",
 *                                       "domains":[{"domain","messages","recipients","oldest_age_seconds"}]}
 *   queue-show    {"id": QID}   json   the entry and where its copies' record lies
 *   queue-body    {"id": QID}   bytes  header and body, verified; cut short when no good copy is left
 *   queue-hold | queue-release | queue-retry | queue-requeue | queue-expire | queue-delete   {SELECTOR, "dry_run": false}
 *                               lines  {"queue_id","result"} each; end: {"end": true, "count": changed, "matched": n,
 *                                       "failed": n}
 *
 *   scrub-report  {"current": false}   lines  {"report": {...}} of the last pass (null: none ended yet) or of the one under
 *                               way, then one finding a line: docs/SCRUB-REPORT.md
 *   scrub-start | scrub-pause | scrub-resume | rebuild-pause | rebuild-resume
 *   member-evacuate | member-clear | member-remove   {"name": MEMBER, "when_empty": false}
 *                               json   {"done": true}, when the superblocks say so
 *   member-remove    {"name": MEMBER, "lost": true, "dry_run": false}
 *                               json   the same for a member that is away for good, whatever it holds; dry_run: what would be
 *                                       lost, {"name","messages_lost","segments_unknown"}
 *   member-prepare   {"name": MEMBER, "replaces": OLD or ""}
 *                               json   what a member that is to join has to be formatted with: {"pool","path","copies",
 *                                       "segment_bytes","member_bytes","replaces"}; fails when it could not join
 *   member-join      {"name": MEMBER}
 *                               json   {"done": true}: it is formatted; the pool is mounted again with it at once
 *
 *   alarm-test                  json   {"done": true}: a test is on its way by every channel
 *   fault-add   {"kind", "name": MEMBER, "rate", "factor", "from", "to", "queue_id", "seconds", "seed"}
 *                               json   the fault, as in status' faults_injected; all but kind and name may be left out
 *   fault-list                  json   {"faults": [...]}
 *   fault-clear {"name", "id"}  json   {"cleared": N}: all, or those of one member, or one
 *                               DENIED unless fault_injection = yes
 *
 * While the pool is not mounted only the documents and events answer; the rest fails with the mount's error and text.
 *
 * SELECTOR is one object `"selector": {"ids": [...]}` or `{"all": true}`, each narrowed by any of "sender", "domain" (of
 * a recipient), "older_than_seconds", "queue": "active"|"deferred"|"hold". queue-list without one lists everything;
 * the four that write refuse an empty one.
 *
 *  ADM-1  a client's output is bounded (ADMIN_OUTPUT_MAX): whoever does not read stops its own work, nobody else's.
 *  ADM-2  at most ADMIN_CLIENTS_MAX at one time; more are closed at once.
 *  ADM-3  the engine never waits for a client. */
#ifndef DAEMON_ADMIN_H
#define DAEMON_ADMIN_H

#include <base/err.h>
#include <stdbool.h>

#define ADMIN_CLIENTS_MAX 32u
#define ADMIN_REQUEST_BYTES_MAX ((unsigned)(256 * 1024)) /* about 10,000 queue ids on one command line */
#define ADMIN_OUTPUT_MAX ((unsigned)(256 * 1024)) /* about a millisecond of writing: what mail may wait for a list */
#define ADMIN_SOCKET_BYTES (512 * 1024)            /* so that a page leaves at once */
#define ADMIN_IDLE_S 30u /* a client that sends no whole request in this time is closed */

struct admin;
struct spool_process;

/* Takes over the listening socket. */
enum err admin_open(struct spool_process *spool, int listen_fd, struct admin **admin_out) MUST_CHECK;
/* Once a turn: goes on with what waits for the engine. True when something was asked of the engine or the index: the
 * pool wants a step and the next turn must not wait. */
bool admin_step(struct admin *admin);
/* Takes no more clients; true while some are still to send their request or to read their answer. */
bool admin_stopping(struct admin *admin);
void admin_close(struct admin **admin);

#endif
