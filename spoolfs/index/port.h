/* SPDX-License-Identifier: Apache-2.0 */
/* Private: what the two kinds of index share, between the engine's thread and whoever owns the store.
 *
 *  PORT-1  a query is answered after every command that was fed before it was asked.
 *  PORT-2  callbacks and done() run from index_dispatch only, with no lock held. */
#ifndef INDEX_PORT_H
#define INDEX_PORT_H

#include "core.h"
#include "ring.h"

struct index {
    struct index_callbacks cb;
    struct ring ring;
    struct core core;
    struct out out;                  /* out.lock guards out, asked and answered */
    struct link asked, answered;     /* of struct index_query */
    atomic_bool full;                /* index_full: the store's owner writes */
    bool above_half;                 /* the ring was more than half full when last looked at; the reader's */
    int event_fd;
    void (*wake)(struct index *x, bool now);  /* something was fed (now: somebody waits for it) */
    void (*work)(struct index *x);            /* the memory index does its work in index_dispatch */
    void (*stop)(struct index *x);            /* what was fed is applied and synced; nobody else runs any more */
};

enum err port_init(struct index *x, const struct index_callbacks *cb) MUST_CHECK;
void port_fini(struct index *x);
/* The reader's side. Takes what the ring holds; ERR_OK: all that was there when it was called. */
enum err port_drain(struct index *x) MUST_CHECK;
/* Answers what was asked; ERR_OK also when nothing was. Anything else: the store is not able to now, they wait. */
enum err port_answer(struct index *x) MUST_CHECK;
/* While nothing can be stored: what is stored is still counted, and who asks about other mail need not wait. */
void port_answer_possible(struct index *x);
void port_opened(struct index *x, enum err e);
bool port_asked(struct index *x);    /* a query waits */
bool port_has_news(struct index *x); /* index_dispatch would call back */

#endif
