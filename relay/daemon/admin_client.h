/* SPDX-License-Identifier: Apache-2.0 */
/* Private to admin*.c: one client of the control socket, and what its command may do. */
#ifndef DAEMON_ADMIN_CLIENT_H
#define DAEMON_ADMIN_CLIENT_H

#include "admin.h"
#include "spool_process.h"

struct admin_client {
    struct admin *admin;
    struct spool_process *spool;
    struct io_watch watch;
    struct io_timer idle;
    char *request;
    uint32_t request_len;
    bool used, answering;
    bool begun;                                   /* some of the answer has left */
    bool finished;                                /* all of the answer is in `out`: close when it is sent */
    bool shut;                                    /* the peer sends no more */
    bool broken;                                  /* the peer is gone: close at the end of the turn */
    bool moved;                                   /* pump asked the engine or the index for something */
    struct json_out out;
    size_t sent;
    /* The command under way. pump makes more output while admin_has_room; drop ends it (an operation in flight is
     * orphaned: it frees itself when it is done). */
    void (*pump)(struct admin_client *c);
    void (*drop)(struct admin_client *c);
    void *job;
    struct counts_wait counts;
    const char *format;                           /* of a document that waits for the counters */
};

bool admin_has_room(const struct admin_client *c);
void admin_ok(struct admin_client *c, const char *format);          /* the header line */
void admin_fail(struct admin_client *c, enum err e, const char *text); /* header, and finished */
void admin_finish(struct admin_client *c);

/* Commands; each answers or fails. */
void admin_list(struct admin_client *c, const struct json_in *request);
void admin_act(struct admin_client *c, const struct json_in *request, const char *act);
void admin_summary(struct admin_client *c);
void admin_show(struct admin_client *c, const struct json_in *request);
void admin_body(struct admin_client *c, const struct json_in *request);
/* "done", as the whole answer. */
void admin_done(struct admin_client *c);
/* False: not one of member-*. */
bool admin_member(struct admin_client *c, const char *command, const struct json_in *request);
bool admin_scrub_report(struct admin_client *c, const char *command, const struct json_in *request); /* false: not that */
/* False: not one of fault-add, fault-list, fault-clear. */
bool admin_fault(struct admin_client *c, const char *command, const struct json_in *request);

/* Which messages are meant. */
struct admin_selector {
    struct queue_id *ids;
    uint32_t id_count;
    bool all, any;             /* any: some part of a selector was given */
    char *sender, *domain, *queue;
    uint64_t older_than_ms;
};
/* text_out: static, says what is wrong. */
enum err selector_parse(const struct json_in *request, struct admin_selector *s_out, const char **text_out) MUST_CHECK;
void selector_free(struct admin_selector *s);
bool selector_matches(const struct admin_selector *s, struct spool_process *sp, const struct index_entry *e);
const char *entry_queue(struct spool_process *sp, const struct index_entry *e); /* "active", "deferred", "hold" */
void entry_write(struct spool_process *sp, const struct index_entry *e, struct json_out *j);

#endif
