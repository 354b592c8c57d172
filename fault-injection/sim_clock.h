/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time: a monotonic clock that moves only in io_turn, a wall clock that may jump, and the timers. */
#ifndef SIM_CLOCK_H
#define SIM_CLOCK_H

#include <spoolfs/io.h>

#define SIM_TIMERS_MAX 4096u /* armed at one time; the engine arms a handful per member and per open segment */

struct sim_clock {
    uint64_t now_ns;
    int64_t wall_shift_ms;
    struct heap timers;
    struct heap_node *nodes[SIM_TIMERS_MAX];
};

void sim_clock_init(struct sim_clock *clock);
uint32_t sim_clock_armed(const struct sim_clock *clock); /* timers */
uint64_t sim_clock_wall_ms(const struct sim_clock *clock);
void sim_clock_jump_wall(struct sim_clock *clock, int64_t by_ms);
void sim_clock_set(struct sim_clock *clock, struct io_timer *timer, uint64_t when_ns);
void sim_clock_clear(struct sim_clock *clock, struct io_timer *timer);
uint64_t sim_clock_next_ns(const struct sim_clock *clock); /* UINT64_MAX when no timer is armed */
/* Fires what is due and was armed before the call. Returns how many ran. */
uint32_t sim_clock_fire(struct sim_clock *clock);

#endif
