/* SPDX-License-Identifier: Apache-2.0 */
/* Private to port*.c: the port, its connection and what its files ask of each other. See port.h. */
#ifndef RELAY_PORT_PARTS_H
#define RELAY_PORT_PARTS_H

#include "port.h"

#include <base/assert.h>
#include <spoolfs/wire.h>

#define PORT_IN_BYTES ((uint32_t)(1 * MIB))
#define PORT_OUT_BYTES ((uint32_t)(2 * MIB))      /* two turns of the socket; appends beyond it wait in their list */
#define PORT_OUT_KEPT ((uint32_t)(256 * KIB))     /* for small messages that must not wait: 6,000 of them */
#define PORT_LOST_MS 30000u                       /* PRT-1 */
#define PORT_GRACE_MS 5000u                       /* a spool that restarts is back within this: new mail may begin */
#define PORT_TICK_MS 500u
#define PORT_MARK_RETRY_MS 1000u                  /* a refused mark is tried again */
#define PORT_MARK_INLINE 192u                     /* marks of one or two recipients: no memory of their own */
#define PORT_STREAMS_MAX 1024u
#define PORT_DOCUMENT_MS 10000u

_Static_assert(WIRE_TRAYS <= UINT8_MAX, "a tray's number fits tray_free");
_Static_assert(PORT_OUT_BYTES - PORT_OUT_KEPT >= WIRE_MESSAGE_MAX, "the largest message fits");

enum port_held_flag { PORT_HELD_DUE = 1, PORT_HELD_ENDING = 2 };
enum tray_state { TRAY_FREE, TRAY_TAKEN, TRAY_SENT };
enum port_state { PORT_DOWN, PORT_HELLO, PORT_PRESENTING, PORT_UP };

/* struct port_append.scratch */
enum { APPEND_TAG, APPEND_AGAIN, APPEND_LOST_MS };

struct port_mark_kept {
    struct link link;               /* unsent, in order; or sent */
    uint32_t tag;
    uint8_t flags;                  /* enum wire_flag */
    uint64_t retry_ms;              /* refused: not before this; 0: at once */
    struct queue_id qid;
    uint32_t len;
    uint8_t *heap;                  /* marks larger than inline */
    uint8_t inline_bytes[PORT_MARK_INLINE];
    struct mail *bounce;
    void (*bounce_done)(void *owner, struct mail *bounce, enum err e);
    void *owner;
};

struct port_piece { uint8_t *bytes; uint32_t len; enum err error; bool last; };

struct port_fetch_slot {
    bool used, ended;               /* ended: canceled, its last piece is awaited */
    struct port_fetch *fetch;
};

struct port_document_slot {
    bool used;
    void (*done)(void *owner, enum err e, const char *bytes, uint32_t len);
    void *owner;
    uint8_t *bytes;
    uint32_t len, capacity;
    uint64_t deadline_ms;
};

struct port {
    struct loop *loop;
    struct port_callbacks cb;
    struct loop_watch watch;        /* fd -1: none */
    struct loop_task pump;
    struct loop_timer tick;
    bool tick_set;
    bool out_full;                  /* somebody found no room: once written, the pump goes on */
    struct wire_buffer in, out;
    bool write_blocked;
    enum port_state state;
    uint32_t connection;
    uint64_t session, run, incarnation;
    uint64_t lost_ms;               /* since when there is no connection; 0: there is one */
    bool room_wanted, room_made;

    struct port_status status;
    uint64_t status_at_ms, reserved;

    /* ids: one range and the one that comes after it */
    struct { uint64_t next, count; } ids[2];
    bool ids_asked;

    struct wire_table held;
    uint32_t held_due;
    uint8_t *present_row;           /* ids still to be presented */
    uint32_t present_count, present_at;

    /* appends */
    struct link appends_unsent, appends_sent;
    struct port_append *append_of[WIRE_APPENDS_MAX];
    struct queue_id append_qid[WIRE_APPENDS_MAX];   /* a tag whose append has failed here waits for its answer */
    uint32_t append_size[WIRE_APPENDS_MAX];
    uint16_t append_free[WIRE_APPENDS_MAX];
    uint32_t append_free_count, append_bytes, chunks, chunk_bytes;
    struct wire_table streams;      /* flags: connection; slot: enum err */
    uint8_t *trays;                 /* shared memory, or NULL */
    uint8_t tray_state[WIRE_TRAYS]; /* enum tray_state */
    uint8_t tray_free[WIRE_TRAYS];  /* the last one given is the next one taken: it is in the cache */
    uint32_t tray_free_count;

    /* marks */
    struct link marks_unsent, marks_sent, marks_spare;
    struct port_mark_kept *mark_of[WIRE_MARKS_MAX];
    uint16_t mark_free[WIRE_MARKS_MAX];
    uint32_t mark_free_count;

    /* due and fetch */
    uint32_t due_wanted, due_asked; /* not yet asked for; asked for and not here */
    struct link fetches_waiting;
    struct port_fetch_slot fetches[WIRE_FETCHES_MAX];

    struct port_document_slot documents[WIRE_DOCUMENTS_MAX];
    uint64_t report_ms;
};

/* port.c */
void port_say(struct port *p, const struct wire_message *m);             /* small: always taken while there is a connection */
bool port_try_say(struct port *p, const struct wire_message *m);         /* false: no room now */
void port_soon(struct port *p);                                          /* pump at the end of this turn */
void port_made_room(struct port *p);
enum err port_busy(struct port *p);                                      /* ERR_BUSY; on_room will come */
void port_want_tick(struct port *p);
void port_drop_connection(struct port *p);

/* port_append.c */
void append_init(struct port *p);
bool append_pump(struct port *p, bool again_only); /* true: nothing of that kind is left */
void append_on_answer(struct port *p, const struct wire_message *m);
void append_on_chunked(struct port *p, const struct wire_message *m);
void append_on_lost(struct port *p);
void append_tick(struct port *p, uint64_t now_ms);
void append_fini(struct port *p);

/* port_mark.c */
void mark_init(struct port *p);
bool mark_pump(struct port *p, bool again_only);
void mark_on_answer(struct port *p, const struct wire_message *m);
void mark_on_lost(struct port *p);
bool mark_tick(struct port *p, uint64_t now_ms); /* true: some are still to be tried again */
void mark_retire_unwanted(struct port *p, struct queue_id qid, struct segment_id locator);
void mark_fini(struct port *p);

/* port_fetch.c */
void due_pump(struct port *p);
void due_on_message(struct port *p, const struct wire_message *m);
void fetch_pump(struct port *p);
void fetch_on_piece(struct port *p, const struct wire_message *m);
void fetch_on_lost(struct port *p);
void fetch_fini(struct port *p);

#endif
