/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the one read path for mail: choose an image, read the record's blocks, prove the record, else the whole frame
 * from every image, else say LOST.
 *
 *   waiting -> record of one image [read_start] -> done
 *                 | bad, error or late: next image; when none is left:
 *                 +-> whole frame of all images, block by block [read_frame] -> done, and repair_frame
 *
 * Invariants: SPL-3. RD-1: a buffer whose op is late stays with that op (an orphan); the read goes on with another. */
#include "images.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define READ_STATES (READS_IN_FLIGHT_MAX * 2) /* as many again for orphans under a stuck member */
#define FRAME_LATE_NS (3 * NS_PER_S)          /* for all images at once, block by block where sectors are bad */
#define READ_LATE_NS (500 * NS_PER_MS)        /* then another image is asked: a drive with arms under load answers in
                                                 less, a drive in error recovery does not */

struct read_state {
    struct pool *pool;
    struct spool_read *read;      /* NULL: orphan or free */
    struct segment *segment;
    bool used, frame_mode;
    uint32_t image, tried_mask, pending;
    uint8_t *buffer;
    struct member_op op;
    struct frame_read *out[COPIES_MAX]; /* frame mode: under way, own their buffers meanwhile */
    bool gave_up;                 /* frame mode: a late image was left out */
    bool refused;                 /* frame mode: a member refused to say what it holds (BRD-3) */
    uint8_t *frames[COPIES_MAX];
    struct io_timer late;
};

/* One image's part of frame mode. An orphan (no state) is freed when it comes back. */
struct frame_read {
    struct block_read read;
    struct link link;             /* in pool.frame_orphans */
    struct read_state *state;
    uint32_t image;
    uint8_t *buffer;
};

static void read_on_late(struct io_timer *t);

static void frame_read_free(struct frame_read *f)
{
    free(f->buffer);
    free(f);
}

enum err read_init(struct pool *p)
{
    void *memory = mmap(NULL, (size_t)READ_STATES * FRAME_BYTES_MAX, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return ERR_NO_MEMORY;
    p->read_memory = memory;
    p->read_states = calloc(READ_STATES, sizeof *p->read_states);
    if (!p->read_states)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < READ_STATES; i++) {
        struct read_state *s = &p->read_states[i];
        s->pool = p;
        s->buffer = p->read_memory + (size_t)i * FRAME_BYTES_MAX;
        io_timer_init(&s->late, read_on_late, s);
    }
    return ERR_OK;
}

static void read_free_frames(struct read_state *s)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        free(s->frames[i]);
        s->frames[i] = NULL;
    }
}

void read_clear_timers(struct pool *p)
{
    for (uint32_t i = 0; p->read_states && i < READ_STATES; i++)
        io_timer_clear(p->io, &p->read_states[i].late);
}

void read_fini(struct pool *p)
{
    read_clear_timers(p);
    struct link *l;
    for (uint32_t i = 0; p->read_states && i < READ_STATES; i++) {
        read_free_frames(&p->read_states[i]);
        for (uint32_t k = 0; k < COPIES_MAX; k++)
            if (p->read_states[i].out[k])
                frame_read_free(p->read_states[i].out[k]);
    }
    while ((l = link_pop(&p->frame_orphans)) != NULL)
        frame_read_free(CONTAINER_OF(l, struct frame_read, link));
    free(p->read_states);
    if (p->read_memory)
        munmap(p->read_memory, (size_t)READ_STATES * FRAME_BYTES_MAX);
    p->read_states = NULL;
    p->read_memory = NULL;
}

uint32_t read_choose_image(const struct pool *p, const struct segment *s, uint32_t skip_mask)
{
    uint32_t best = COPIES_MAX;
    uint64_t best_score = UINT64_MAX;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &p->members[s->images[i].member];
        if ((skip_mask & (1u << i)) || !image_readable(p, s, i))
            continue;
        uint64_t score = m->ops + (member_usable(m) ? 0 : 1000) + (s->images[i].unproved ? 100 : 0) +
                         (m->state == MEMBER_SUSPECT || member_avoided(m) ? 500 : 0);
        if (score < best_score) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

static void read_end(struct read_state *s, enum err e, const struct record_view *v)
{
    struct spool_read *r = s->read;
    struct pool *p = s->pool;
    ASSERT(r && s->pending == 0);
    io_timer_clear(p->io, &s->late);
    s->read = NULL;
    s->segment->refs--;
    p->reads_in_flight--;
    if (e == ERR_OK) {
        r->envelope = v->envelope;
        r->envelope_bytes = v->envelope_bytes;
        r->body = v->body;
        r->body_bytes = v->body_bytes;
    } else if (e == ERR_LOST) {
        lost_message(p, r->qid, &r->place);
    }
    r->done(r, e);
    read_free_frames(s);
    s->used = false;
}

static bool read_proves(const struct spool_read *r, const uint8_t *bytes, uint32_t offset, struct record_view *v,
                        enum err *why)
{
    *why = verify_record(bytes, offset, offset + r->place.length, v);
    if (*why == ERR_OK && ((!digest_equal(v->digest, r->digest) && !PLANTED(deliver_unverified)) ||
                           !queue_id_equal(v->qid, r->qid) || v->type != r->type))
        *why = ERR_IDENTITY;
    return *why == ERR_OK;
}

static void read_blame(struct read_state *s, uint32_t image, enum err why)
{
    struct member *m = &s->pool->members[s->segment->images[image].member];
    if (why == ERR_IDENTITY)
        m->errors_identity++;
    else if (why == ERR_CORRUPT) /* ERR_MEDIA was counted as a read error */
        m->errors_checksum++;
    scrub_note_fault(s->pool, s->segment, image);
    pool_event(s->pool, EVENT_frame_corrupt, m, "segment %llu, frame at %llu: %s",
               (unsigned long long)s->segment->id.counter, (unsigned long long)s->read->place.frame, err_text(why));
}

/* --- whole frame, all images --- */

static void read_frame_finish(struct read_state *s)
{
    struct spool_read *r = s->read;
    struct pool *p = s->pool;
    uint32_t bytes = r->place.frame_blocks * BLOCK_BYTES, bad = 0;
    uint32_t have[COPIES_MAX] = {0};
    bool unreachable = s->gave_up;
    struct frame_view view, good;
    for (uint32_t i = 0; i < s->segment->image_count; i++) {
        have[i] = s->frames[i] ? bytes : 0;
        const struct member *m = &p->members[s->segment->images[i].member];
        unreachable = unreachable || (!have[i] && !member_readable(m) && !m->removed); /* who was given up gives nothing back */
        bool whole = have[i] &&
                     verify_head(s->frames[i], &p->uuid, s->segment->id, r->place.frame, &view) == ERR_OK &&
                     view.blocks * BLOCK_BYTES <= bytes && verify_frame(s->frames[i], &p->uuid, &view, NULL) == ERR_OK;
        if (have[i] && !whole)
            bad |= 1u << i;
    }
    enum err e = salvage_frame(&p->uuid, s->segment->id, r->place.frame, s->frames, have, s->segment->image_count,
                               s->buffer, &good);
    struct record_view v;
    if (e == ERR_OK && r->place.record + r->place.length <= good.records_end &&
        read_proves(r, s->buffer, r->place.record, &v, &e)) {
        for (uint32_t i = 0; PLANTED(repair_unverified) && bad && i < s->segment->image_count; i++)
            if (have[i]) {
                good.bytes = s->frames[i];
                bad = ((1u << s->segment->image_count) - 1) & ~(1u << i);
                break;
            }
        repair_frame(p, s->segment, &good, bad);
        read_end(s, ERR_OK, &v);
        return;
    }
    for (uint32_t i = 0; i < s->segment->image_count; i++) /* the frame may be bad elsewhere and the record good */
        if (have[i] && read_proves(r, s->frames[i], r->place.record, &v, &e)) {
            read_end(s, ERR_OK, &v);
            return;
        }
    read_end(s, s->gave_up ? ERR_TIMEOUT : unreachable ? ERR_MEMBER_GONE : s->refused ? ERR_IO : ERR_LOST, NULL);
}

static void read_on_frame(struct block_read *r)
{
    struct frame_read *f = r->owner;
    struct read_state *s = f->state;
    if (!s) {
        link_remove(&f->link);
        frame_read_free(f);
        return;
    }
    if (r->result == ERR_OK) {
        s->frames[f->image] = f->buffer;
        f->buffer = NULL;
    }
    s->refused = s->refused || (r->result != ERR_OK && r->result != ERR_MEDIA);
    s->out[f->image] = NULL;
    frame_read_free(f);
    if (--s->pending == 0)
        read_frame_finish(s);
}

static struct frame_read *frame_read_start(struct read_state *s, uint32_t image)
{
    struct pool *p = s->pool;
    uint32_t bytes = s->read->place.frame_blocks * BLOCK_BYTES;
    struct frame_read *f = calloc(1, sizeof *f);
    if (f)
        f->buffer = sync_buffer(bytes);
    if (!f || !f->buffer) {
        free(f);
        return NULL;
    }
    f->state = s;
    f->image = image;
    f->read = (struct block_read){.member = &p->members[s->segment->images[image].member], .class = IO_CLASS_DELIVER,
                                  .mail = true, .length = bytes, .buffer = f->buffer,
                                  .offset = segment_image_offset(p, &s->segment->images[image]) + s->read->place.frame,
                                  .done = read_on_frame, .owner = f};
    block_read_start(&f->read);
    return f;
}

static void read_frame(struct read_state *s)
{
    struct pool *p = s->pool;
    s->frame_mode = true;
    s->gave_up = s->refused = false;
    s->pending = 0;
    for (uint32_t i = 0; i < s->segment->image_count; i++) {
        bool here = member_readable(&p->members[s->segment->images[i].member]);
        s->frames[i] = NULL;
        s->out[i] = image_readable(p, s->segment, i) ? frame_read_start(s, i) : NULL;
        s->pending += s->out[i] != NULL;
        s->gave_up = s->gave_up || (here && !s->out[i]); /* what it holds is not lost */
    }
    io_timer_set(p->io, &s->late, io_now_ns(p->io) + FRAME_LATE_NS);
    if (s->pending == 0)
        read_frame_finish(s);
}

/* What came back must do; what is out keeps its buffer. */
static void read_frame_late(struct read_state *s)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++) {
        struct frame_read *f = s->out[i];
        if (!f)
            continue;
        f->state = NULL;
        link_push(&s->pool->frame_orphans, &f->link);
        s->out[i] = NULL;
        s->gave_up = true;
    }
    s->pending = 0;
    read_frame_finish(s);
}

/* --- one record, one image --- */

static void read_start(struct read_state *s);

static void read_on_record(struct member_op *mo)
{
    struct read_state *s = mo->owner;
    s->pending--;
    if (!s->read) { /* orphan */
        s->used = false;
        return;
    }
    struct spool_read *r = s->read;
    struct record_view v;
    enum err why = mo->op.result;
    uint32_t delta = (uint32_t)((r->place.frame + r->place.record) % BLOCK_BYTES);
    if (why == ERR_OK && read_proves(r, s->buffer, delta, &v, &why)) {
        read_end(s, ERR_OK, &v);
        return;
    }
    read_blame(s, s->image, why);
    s->tried_mask |= 1u << s->image;
    read_frame(s); /* proves it from whatever is good, and shows what needs repair */
}

static void read_start(struct read_state *s)
{
    struct pool *p = s->pool;
    const struct place *at = &s->read->place;
    s->image = read_choose_image(p, s->segment, s->tried_mask);
    if (s->image == COPIES_MAX) {
        read_frame(s);
        return;
    }
    uint64_t begin = (at->frame + at->record) / BLOCK_BYTES * BLOCK_BYTES;
    uint64_t end = (at->frame + at->record + at->length + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    s->op = (struct member_op){.done = read_on_record, .owner = s, .mail = true};
    s->op.op = (struct io_op){.kind = IO_READ, .class = IO_CLASS_DELIVER, .length = (uint32_t)(end - begin),
                              .buffer = s->buffer,
                              .offset = segment_image_offset(p, &s->segment->images[s->image]) + begin};
    s->pending = 1;
    io_timer_set(p->io, &s->late, io_now_ns(p->io) + READ_LATE_NS);
    member_submit(&p->members[s->segment->images[s->image].member], &s->op);
}

static struct read_state *read_state_take(struct pool *p)
{
    for (uint32_t i = 0; i < READ_STATES; i++) {
        struct read_state *s = &p->read_states[i];
        if (s->used)
            continue;
        s->used = true;
        s->frame_mode = false;
        s->tried_mask = 0;
        s->pending = 0;
        return s;
    }
    return NULL;
}

static void read_on_late(struct io_timer *t)
{
    struct read_state *s = t->owner;
    struct pool *p = s->pool;
    if (s->read && s->frame_mode && s->pending > 0)
        read_frame_late(s);
    if (!s->read || s->frame_mode || s->pending == 0)
        return;
    struct member *m = &p->members[s->segment->images[s->image].member];
    m->errors_timeout++;
    uint32_t tried = s->tried_mask | 1u << s->image;
    struct read_state *to = read_choose_image(p, s->segment, tried) < COPIES_MAX ? read_state_take(p) : NULL;
    if (!to) { /* nobody else to ask: the wait goes on */
        io_timer_set(p->io, &s->late, io_now_ns(p->io) + READ_LATE_NS);
        return;
    }
    to->read = s->read;
    to->segment = s->segment;
    to->tried_mask = tried;
    s->read = NULL; /* RD-1 */
    read_start(to);
}

static bool place_sane(const struct pool *p, const struct place *at)
{
    uint64_t bytes = (uint64_t)at->frame_blocks * BLOCK_BYTES;
    return at->frame_blocks > 0 && at->frame_blocks <= FRAME_BLOCKS_MAX && at->frame % BLOCK_BYTES == 0 &&
           at->frame >= BLOCK_BYTES && at->frame + bytes <= p->slot_bytes && at->length >= RECORD_HEAD_BYTES &&
           at->length <= bytes && at->record >= FRAME_HEAD_BYTES && at->record <= bytes - at->length;
}

void spool_read(struct pool *p, struct spool_read *r)
{
    r->link = (struct link){0};
    link_push(&p->reads_waiting, &r->link);
}

void read_step(struct pool *p)
{
    while (!link_empty(&p->reads_waiting) && p->reads_in_flight < READS_IN_FLIGHT_MAX) {
        struct read_state *s = read_state_take(p);
        if (!s)
            return;
        struct spool_read *r = CONTAINER_OF(link_pop(&p->reads_waiting), struct spool_read, link);
        s->segment = segment_find(p, r->place.segment);
        bool known = s->segment && place_sane(p, &r->place) &&
                     r->place.frame + (uint64_t)r->place.frame_blocks * BLOCK_BYTES <= s->segment->length;
        if (!known) {
            s->used = false;
            r->done(r, ERR_NOT_FOUND);
            continue;
        }
        s->read = r;
        s->segment->refs++;
        p->reads_in_flight++;
        read_start(s);
    }
}
