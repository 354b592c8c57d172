/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of scrub, repair and rebuild have in common, on top of spool_world.h: passes, their report, events counted. */
#ifndef SCRUB_WORLD_H
#define SCRUB_WORLD_H

#include "spool_world.h"

#include "engine.h"

#include <spoolfs/upkeep.h>

static UNUSED uint32_t seen[EVENT_COUNT];
static UNUSED char last_serial[EVENT_COUNT][64];

static UNUSED void count_event(void *owner, const struct event *e)
{
    seen[e->kind]++;
    snprintf(last_serial[e->kind], sizeof last_serial[e->kind], "%s", e->serial);
    on_event(owner, e);
}

static UNUSED int setup_counted_members(uint32_t members)
{
    setup_members(members);
    pool_unmount(&w.pool);
    memset(seen, 0, sizeof seen);
    w.config.sink.emit = count_event;
    mount();
    return 0;
}

static UNUSED int setup_four(void **state)
{
    (void)state;
    return setup_members(4);
}

static UNUSED int setup_counted(void **state)
{
    (void)state;
    return setup_counted_members(3);
}

static UNUSED int setup_four_counted(void **state)
{
    (void)state;
    return setup_counted_members(4);
}

static UNUSED struct upkeep_status upkeep(void)
{
    struct upkeep_status s;
    upkeep_status(w.pool, &s);
    return s;
}

static UNUSED void one_pass(void)
{
    uint64_t before = upkeep().scrub.passes;
    scrub_start(w.pool);
    for (uint32_t n = 0; n < 600 && upkeep().scrub.passes == before; n++)
        pass_seconds(1);
    assert_int_equal(upkeep().scrub.passes, before + 1);
}

/* The report of the last pass, which missed no image and says so many places. */
static UNUSED const struct scrub_report *reported(uint64_t found, uint64_t repaired, uint64_t left)
{
    const struct scrub_report *r = scrub_report(w.pool, true);
    assert_non_null(r);
    assert_int_equal(r->places_found, found);
    assert_int_equal(r->places_repaired, repaired);
    assert_int_equal(r->places_left, left);
    assert_int_equal(r->missed_total, 0);
    assert_true(r->complete);
    return r;
}

#endif
