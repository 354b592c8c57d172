/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's real scheduler (relay/schedule.h, with its lanes, marks and bounces) before a simulated pool. In front of it stand a port
 * that speaks to spool.h instead of the wire, attempts that draw their outcome, and a loop in virtual time.
 *
 *  SRL-1  every message that is handed to the scheduler comes back within WORLD_LIVENESS_NS: with a mark that retires or releases it,
 *         unless bad places have taken the slots that its result needs (room_is_worn_out).
 *  SRL-2  an attempt reads every byte first; each is compared with what was handed over.
 *  SRL-3  draws from a stream of its own. */
#ifndef SIM_RELAY_H
#define SIM_RELAY_H

#include "senders.h"

#include "schedule.h"

struct loop {
    struct world *w;
    struct link tasks, timers;
};

/* sim_loop.c */
struct loop *sim_loop_make(struct world *w);
void sim_loop_free(struct loop **loop); /* all timers are gone */
void sim_loop_turn(struct loop *loop);

/* sim_port.c. One that is leased to the scheduler. */
struct held {
    struct link link;
    struct model_message *msg;
    struct place place;
    struct digest digest;
    uint64_t since_ns;
};
struct held *sim_port_held(struct port *port, struct queue_id qid); /* NULL: it is not */

extern const struct relay_ops sim_relay_ops;

#endif
