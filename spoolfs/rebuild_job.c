/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: making one missing image again.
 *
 *   slot claimed -> frames, each proved, gathered and written -> image header -> flush -> SEAL with the new place durable
 *   -> the new image counts and the old place is given up
 *
 * Invariants: RBL-1 to RBL-4, RBL-9 (rebuild.h). A job ends by rebuild_job_over, exactly once; what is written on a member that
 * does not answer keeps its buffer until it does. */
#include "images.h"
#include "rebuild.h"

#include <stdlib.h>
#include <string.h>

#define JOB_STEPS_MAX 64u /* frames taken in one turn of the loop: commits come first */

void rebuild_job_free(struct rebuild_job *r)
{
    for (uint32_t i = 0; i < JOB_BUFFERS; i++)
        free(r->buffers[i].bytes);
    free(r);
}

static bool job_writes(const struct rebuild_job *r)
{
    bool writing = r->ending;
    for (uint32_t i = 0; i < JOB_BUFFERS; i++)
        writing = writing || r->buffers[i].writing;
    return writing;
}

uint32_t rebuild_job_waits_for(const struct rebuild_job *r)
{
    uint32_t mask = 0;
    if (r->walk.pending == 0 || io_now_ns(r->pool->io) - r->walk.read_ns < JOB_LATE_NS)
        return 0;
    for (uint32_t i = 0; i < r->segment->image_count; i++)
        mask |= r->walk.out[i] ? 1u << r->segment->images[i].member : 0;
    return mask;
}

static void job_end(struct rebuild_job *r, bool done)
{
    struct pool *p = r->pool;
    struct segment *s = r->segment;
    walk_fini(&r->walk);
    s->rebuilding = false;
    struct member *m = &p->members[r->target.member];
    if (!done && m->slot_owner[r->target.slot] == segment_index(p, s) + 1) {
        m->slot_owner[r->target.slot] = 0;
        m->slots_free++;
    }
    r->segment = NULL;
    if (!s->dirty) {
        s->dirty = true;
        p->dirty_segments++;
    }
    rebuild_job_over(r, s, done);
    if (!job_writes(r))
        rebuild_job_free(r);
    else
        link_push(&p->rebuild_orphans, &r->link); /* its write keeps its buffer */
}

/* RBL-2. The old image's slot is free from here on: on a member that is away nobody will look there again. */
static void job_on_table(struct table_group *t, enum err e)
{
    struct segment *s = t->segment;
    struct rebuild_job *r = rebuild_job_of(t->pool, s);
    ASSERT(r && r->table);
    r->table = false;
    if (e == ERR_OK)
        segment_replace_image(t->pool, s, r->image, r->target);
    if (e == ERR_OK && r->target.holed)
        scrub_note_hole(t->pool, s, r->image); /* whatever a look that did not know of it has found meanwhile */
    job_end(r, e == ERR_OK);
}

static void job_say(struct rebuild_job *r)
{
    struct segment *s = r->segment;
    struct image old[COPIES_MAX];
    uint8_t count = s->image_count;
    memcpy(old, s->images, sizeof old);
    s->images[r->image] = r->target;
    if (r->image == count)
        s->image_count++;
    enum err e = table_submit(r->pool, RECORD_SEAL, s, job_on_table);
    memcpy(s->images, old, sizeof old); /* as it is until the record is durable */
    s->image_count = count;
    r->table = e == ERR_OK;
    r->failed = r->failed || e != ERR_OK;
}

/* False: it was left behind, and is gone when nothing of it is out any more. */
static bool job_answered(struct rebuild_job *r, const struct member_op *mo)
{
    r->failed = r->failed || mo->op.result != ERR_OK;
    if (r->segment)
        return true;
    if (!job_writes(r)) {
        link_remove(&r->link);
        rebuild_job_free(r);
    }
    return false;
}

/* --- the end: header -> flush of it and all frames -> table --- */

/* What no image had that is here, the one to be replaced may have when its member is back: it stays listed. */
static void job_keep_absent(struct rebuild_job *r)
{
    const struct segment *s = r->segment;
    if (!s->unread || r->image == s->image_count || member_readable(&r->pool->members[s->images[r->image].member]))
        return;
    r->image = s->image_count;
    r->failed = r->failed || r->image == COPIES_MAX;
}

/* RBL-9 */
static bool job_flush_is_doubted(const struct rebuild_job *r)
{
    return r->pool->members[r->target.member].durable_failed != r->durable_failed;
}

static void job_settle(struct rebuild_job *r)
{
    if (!member_durables_answered(&r->pool->members[r->target.member], r->durable_asked))
        return;
    r->flushed = false;
    job_say(r);
}

static void job_on_flush(struct member_op *mo)
{
    struct rebuild_job *r = mo->owner;
    r->ending = false;
    if (!job_answered(r, mo) || r->failed)
        return;
    r->flushed = true; /* rebuild_job_step goes on */
    r->durable_asked = r->pool->members[r->target.member].durable_asked;
}

static void job_on_header(struct member_op *mo)
{
    struct rebuild_job *r = mo->owner;
    r->ending = false;
    if (!job_answered(r, mo) || r->failed)
        return;
    r->ending = true;
    r->end = (struct member_op){.done = job_on_flush, .owner = r, .op = {.kind = IO_FLUSH, .class = IO_CLASS_REBUILD}};
    member_submit(&r->pool->members[r->target.member], &r->end);
}

static void job_header(struct rebuild_job *r)
{
    struct pool *p = r->pool;
    struct segment *s = r->segment;
    uint32_t count = r->image == s->image_count ? s->image_count + 1u : s->image_count;
    struct image_view v = {.segment = s->id, .kind = s->kind, .slot = r->target.slot, .pool = p->uuid,
                           .member = p->members[r->target.member].uuid, .image_count = count};
    for (uint32_t i = 0; i < count; i++) {
        const struct image *image = i == r->image ? &r->target : &s->images[i];
        v.images[i].member = image->member;
        v.images[i].slot = image->slot;
    }
    image_head_encode(&v, r->buffers[0].bytes);
    r->ending = true;
    r->end = (struct member_op){.done = job_on_header, .owner = r};
    r->end.op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_REBUILD, .length = BLOCK_BYTES,
                               .buffer = r->buffers[0].bytes, .offset = segment_image_offset(p, &r->target)};
    member_submit(&p->members[r->target.member], &r->end);
}

/* --- frames --- */

static void job_on_write(struct member_op *mo)
{
    struct rebuild_job *r = mo->owner;
    struct job_buffer *b = CONTAINER_OF(mo, struct job_buffer, op);
    b->writing = false;
    b->gathered = 0;
    (void)job_answered(r, mo);
}

/* Writes out what is gathered; the next buffer is filled meanwhile. */
static void job_write(struct rebuild_job *r)
{
    struct job_buffer *b = &r->buffers[r->filling];
    ASSERT(b->gathered > 0 && !b->writing);
    b->writing = true;
    b->op = (struct member_op){.done = job_on_write, .owner = r};
    b->op.op = (struct io_op){.kind = IO_WRITE, .class = IO_CLASS_REBUILD, .length = b->gathered, .buffer = b->bytes,
                              .offset = segment_image_offset(r->pool, &r->target) + b->at};
    r->filling = (r->filling + 1) % JOB_BUFFERS;
    member_submit(&r->pool->members[r->target.member], &b->op);
}

static void job_on_frame(struct walk *w, const struct frame_view *f)
{
    struct rebuild_job *r = w->owner;
    r->view = *f;
    r->frame = &r->view;
}

static void job_on_lost(struct walk *w, uint64_t offset, uint64_t bytes)
{
    struct rebuild_job *r = w->owner;
    w->segment->unread = true;
    w->segment->unfed = w->segment->unfed || w->segment->chunks_only || w->segment->fed < offset + bytes;
    r->target.holed = true; /* RBL-8 */
    for (uint32_t i = 0; i < w->segment->image_count; i++)
        if (member_readable(&w->pool->members[w->segment->images[i].member]))
            scrub_note_hole(w->pool, w->segment, i);
    lost_range(w->pool, w->segment->id, offset, bytes);
}

static void job_on_end(struct walk *w)
{
    struct rebuild_job *r = w->owner;
    r->walked = true;
}

/* Takes the frame the walk rests on, or writes out what is gathered before it. What fills half a buffer goes at once: it is no use to wait
 * for a frame that may not fit. False: all buffers are on their way. */
static bool job_gather(struct rebuild_job *r)
{
    struct job_buffer *b = &r->buffers[r->filling];
    const struct frame_view *f = r->frame;
    uint32_t bytes = f->blocks * BLOCK_BYTES;
    if (b->writing)
        return false;
    if (b->gathered && (b->at + b->gathered != f->offset || b->gathered + bytes > FRAME_BYTES_MAX)) {
        job_write(r);
        return true;
    }
    if (!b->gathered)
        b->at = f->offset;
    memcpy(b->bytes + b->gathered, f->bytes, bytes);
    b->gathered += bytes;
    rebuild_count_bytes(r->pool, bytes);
    r->frame = NULL;
    if (b->gathered >= FRAME_BYTES_MAX / 2)
        job_write(r);
    return true;
}

/* RBL-4. What was read is paid for: its frames are not asked for one by one, or the job would first wait for the purse of the member
 * it reads and then for that of the member it writes to, and each would run over meanwhile. */
static bool job_may_go_on(const struct rebuild_job *r)
{
    struct pool *p = r->pool;
    if (!rebuild_paused(p) && walk_has_next(&r->walk))
        return true;
    bool idle = p->members[r->target.member].share.throttle.idle >= THROTTLE_IDLE_INTERVALS;
    return !rebuild_paused(p) && (idle || rebuild_jobs_reading(p) < REBUILD_BESIDE_MAIL) &&
           upkeep_may(p, segment_members(r->segment) | 1u << r->target.member, IO_CLASS_REBUILD);
}

/* False: something has to be answered first. */
static bool job_go_on(struct rebuild_job *r)
{
    if (r->frame)
        return job_gather(r);
    if (r->walked && walk_idle(&r->walk)) {
        bool gathered = r->buffers[r->filling].gathered > 0 && !r->buffers[r->filling].writing;
        if (gathered)
            job_write(r);
        else if (!job_writes(r)) {
            job_keep_absent(r);
            if (!r->failed)
                job_header(r);
        }
        return gathered;
    }
    if (!r->walk.resting || !job_may_go_on(r))
        return false; /* a read is under way, or it has to wait */
    walk_next(&r->walk);
    return true;
}

struct rebuild_job *rebuild_job_start(struct pool *p, struct segment *s, uint32_t image, struct image target)
{
    struct rebuild_job *r = calloc(1, sizeof *r);
    bool enough = r != NULL;
    for (uint32_t i = 0; r && i < JOB_BUFFERS; i++) {
        r->buffers[i].bytes = sync_buffer(FRAME_BYTES_MAX);
        enough = enough && r->buffers[i].bytes;
    }
    if (!enough || !slot_take(&p->members[target.member], target.slot, s)) {
        if (r)
            rebuild_job_free(r);
        return NULL;
    }
    r->pool = p;
    r->segment = s;
    r->image = image;
    r->target = target;
    r->durable_failed = p->members[target.member].durable_failed;
    s->rebuilding = true;
    r->walk = (struct walk){.pool = p, .segment = s, .offset = BLOCK_BYTES, .end = s->length, .class = IO_CLASS_REBUILD,
                            .on_frame = job_on_frame, .on_lost = job_on_lost, .on_end = job_on_end, .owner = r,
                            .resting = true}; /* RBL-4: also before the first read */
    enum err e = walk_start(&r->walk);
    ASSERT(e == ERR_OK);
    return r;
}

void rebuild_job_step(struct rebuild_job *r)
{
    struct pool *p = r->pool;
    walk_step(&r->walk);
    if (!member_usable(&p->members[r->target.member]) || r->walk.unreadable || (!r->table && job_flush_is_doubted(r)))
        r->failed = true;
    if (rebuild_paused(p) && segment_is_empty_of_mail(r->segment))
        r->failed = true; /* nobody knows for how long: what only waits to be freed, and others for it, is let go */
    if (r->failed || p->stopping) {
        walk_stop(&r->walk);
        if (!r->table)
            job_end(r, false);
        return;
    }
    if (r->flushed)
        job_settle(r);
    else
        for (uint32_t n = 0; n < JOB_STEPS_MAX && !r->ending && !r->table && job_go_on(r); n++)
            ;
}
