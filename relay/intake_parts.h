/* SPDX-License-Identifier: Apache-2.0 */
/* What intake.c and intake_body.c share. Nobody else includes this.
 *
 *  RECEIVING -> (waits for a queue id) -> BODY [intake_body_begin]; BODY -> (waits for credit) -> BODY [intake_room]
 *  BODY -> LAST_CHUNK -> APPENDING -> IN_FLIGHT [intake_body_end, intake_room] -> gone [append_done] */
#ifndef RELAY_INTAKE_PARTS_H
#define RELAY_INTAKE_PARTS_H

#include "intake.h"
#include "recipients.h"

#include <time.h>

enum intake_stage { RECEIVING, BODY, LAST_CHUNK, APPENDING, IN_FLIGHT };

struct intake {
    struct intake_deps deps;
    struct link waiting;   /* for room */
    struct link in_flight;
    uint32_t in_flight_count;
    bool closed;           /* nobody is told any more */
    struct intake *next_closed;
    time_t date_second;
    char date[64];
};

struct intake_transaction {
    struct intake *intake;
    struct link link;      /* waiting or in_flight */
    const struct intake_callbacks *cb;
    void *owner;           /* NULL: abandoned while in flight */
    enum intake_stage stage;
    enum err failed;
    struct recipients recipients;
    uint32_t flags;
    uint8_t *body;
    uint32_t body_len, body_capacity; /* of this buffer, at most BODY_INLINE_MAX */
    bool body_in_tray;             /* of the port: large messages, while there are trays */
    uint64_t size_hint, size_max, reserved, total, fresh_bytes_max;
    uint32_t chunk_count;
    struct queue_id qid;
    char qid_text[QUEUE_ID_TEXT];
    char message_id[256];
    struct mail *mail;
    struct port_append append;
};

/* --- intake.c --- */

void intake_wait_for_room(struct intake_transaction *t); /* intake_room comes back to it */

/* --- intake_body.c --- */

void intake_body_drop(struct intake_transaction *t);
void intake_body_fail(struct intake_transaction *t, enum err e); /* what still comes is taken and forgotten */
enum err intake_send_chunk(struct intake_transaction *t) MUST_CHECK; /* what the buffer holds */

#endif
