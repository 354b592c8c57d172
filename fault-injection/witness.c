/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what P1 looks like from below the seam: which members have said that they hold a MESSAGE, asked at the moment it
 * is acknowledged. What is missing then is found even when no disk fails later.
 * Never: believes the engine's counters; it reads the frames that pass by. */
#include "world.h"

#include <spoolfs/format.h>
#include <stddef.h>
#include <string.h>

#define CALLED_UP_NS (UINT64_C(30) * 1000000000) /* longer than a frame waits for its place */

/* Each MESSAGE of a frame that was just written to `target`. */
void witness_write(struct world *w, const struct io_op *op)
{
    struct frame_head_disk frame;
    if (op->kind != IO_WRITE || !op->durable || op->result != ERR_OK || op->length < sizeof frame)
        return;
    memcpy(&frame, op->buffer, sizeof frame);
    if (le64_get(frame.magic) != FRAME_MAGIC)
        return;
    struct segment_id segment = segment_id_disk_get(frame.segment);
    uint32_t at = FRAME_HEAD_BYTES, end = le32_get(frame.records_end);
    while (at + RECORD_HEAD_BYTES <= end && end <= op->length) {
        struct record_head_disk r;
        memcpy(&r, (const uint8_t *)op->buffer + at, sizeof r);
        at += (le32_get(r.length) + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
        struct model_message *msg = r.type == RECORD_MESSAGE ? model_find(&w->model, queue_id_disk_get(r.qid)) : NULL;
        if (!msg || msg->appended != MODEL_ASKED)
            continue;
        bool late = segment.incarnation == msg->written_in.incarnation && segment.counter < msg->written_in.counter;
        if (late)
            continue; /* the frame is being placed elsewhere by now */
        if (!segment_id_equal(msg->written_in, segment))
            msg->written_to = 0;
        msg->written_in = segment;
        msg->written_to |= 1u << op->target;
    }
}

/* What lies in the place of a member that is away may be another disk: a blank one, one of another pool, or a member that was removed,
 * which is refused wherever it lies. */
static bool holds_member(struct world *w, const struct pool_status *s, uint16_t t)
{
    static uint8_t block[BLOCK_BYTES];
    const struct sim_disk *disk = sim_io_disk(w->sim, t);
    bool member = false;
    for (uint32_t c = 0; c < SUPERBLOCK_COPIES && !member; c++) {
        if (sim_disk_read(disk, atlas_superblock_at(disk, c), BLOCK_BYTES, block) != ERR_OK)
            continue;
        const uint8_t *uuid = block + offsetof(struct superblock_disk, member_uuid);
        for (uint32_t i = 0; i < s->member_count; i++)
            member = member || (s->members[i].state != MEMBER_REMOVED && memcmp(s->members[i].uuid.b, uuid, 16) == 0);
    }
    return member;
}

/* Of the members that are here and take mail only the victim may refuse it: the others are enough for all images but one at
 * most. Spares do not count, and one that was called up just now takes the next segment. Nor does a member that is out of service
 * since the mount for having been slow in those before (it was the victim then, WAT-3): with the victim late as well the pool is
 * degraded. One that is slow by what was seen in this mount is no excuse. */
static uint32_t members_that_must(struct world *w)
{
    static struct pool_status s; /* large; one thread */
    uint32_t those = 0;
    pool_status(w->pool, &s);
    for (uint16_t t = 0; t < w->config.member_count; t++) {
        const struct pool_member_status *at = NULL; /* who is there; an absent one may be said to be, too */
        for (uint32_t i = 0; i < s.member_count; i++)
            if (strcmp(s.members[i].path, w->config.members[t].path) == 0 && (!at || at->state == MEMBER_ABSENT))
                at = &s.members[i];
        bool must = at && t != w->atlas.victim && sim_io_present(w->sim, t) && at->state != MEMBER_SPARE &&
                    at->state != MEMBER_REMOVED && at->state != MEMBER_EVACUATING && !at->health.of_before &&
                    holds_member(w, &s, t);
        those |= must && shelf_first(w, those, t) ? 1u << t : 0;
    }
    uint32_t count = (uint32_t)__builtin_popcount(those);
    bool called_up = w->called_up_ns && io_now_ns(w->io) - w->called_up_ns < CALLED_UP_NS;
    return count - (called_up && count > 0);
}

void witness_refused(struct model_message *msg)
{
    msg->written_in = (struct segment_id){0};
    msg->written_to = 0;
}

void witness_acknowledged(struct world *w, const struct model_message *msg, struct segment_id segment)
{
    uint32_t others = members_that_must(w), need = w->plan.copies < others ? w->plan.copies : others;
    uint32_t have = segment_id_equal(msg->written_in, segment) ? (uint32_t)__builtin_popcount(msg->written_to) : 0;
    if (have < need && w->plan.level != PLAN_BEYOND)
        world_fail(w, "P1: queue id %llu is acknowledged, and %u members have said they hold it: %u must",
                   (unsigned long long)msg->qid.counter, have, need);
}
