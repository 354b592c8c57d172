/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: simulated time. CLK-1: time never goes back; only the wall clock jumps.
 * Never: advances by itself (sim_io.c's turn does). */
#include "sim_clock.h"

#include <base/assert.h>

/* 2026-01-01: any date that is not zero, so that a lost wall clock shows */
#define WALL_START_MS UINT64_C(1767225600000)

void sim_clock_init(struct sim_clock *clock)
{
    clock->now_ns = UINT64_C(1000000000); /* not zero: an unset time must not look like now */
    clock->wall_shift_ms = 0;
    heap_init(&clock->timers, clock->nodes, SIM_TIMERS_MAX);
}

uint32_t sim_clock_armed(const struct sim_clock *clock) { return clock->timers.count; }

uint64_t sim_clock_wall_ms(const struct sim_clock *clock)
{
    int64_t wall = (int64_t)(WALL_START_MS + clock->now_ns / 1000000) + clock->wall_shift_ms;
    return wall > 0 ? (uint64_t)wall : 0;
}

void sim_clock_jump_wall(struct sim_clock *clock, int64_t by_ms) { clock->wall_shift_ms += by_ms; }

void sim_clock_set(struct sim_clock *clock, struct io_timer *timer, uint64_t when_ns)
{
    sim_clock_clear(clock, timer);
    enum err e = heap_push(&clock->timers, &timer->node, when_ns);
    ASSERT(e == ERR_OK);
}

void sim_clock_clear(struct sim_clock *clock, struct io_timer *timer)
{
    if (io_timer_is_set(timer))
        heap_remove(&clock->timers, &timer->node);
}

uint64_t sim_clock_next_ns(const struct sim_clock *clock)
{
    const struct heap_node *top = heap_top(&clock->timers);
    return top ? top->key : UINT64_MAX;
}

uint32_t sim_clock_fire(struct sim_clock *clock)
{
    uint64_t armed_before = clock->timers.pushed;
    uint32_t fired = 0;
    for (uint32_t left = clock->timers.count; left > 0; left--) {
        struct heap_node *top = heap_top(&clock->timers);
        if (!top || top->key > clock->now_ns || top->tie >= armed_before)
            break;
        heap_remove(&clock->timers, top);
        struct io_timer *timer = CONTAINER_OF(top, struct io_timer, node);
        timer->fire(timer);
        fired++;
    }
    return fired;
}
