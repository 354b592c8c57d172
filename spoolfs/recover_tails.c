/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the ends of segments that a crash left open: how far their frames go, made whole on every image. Blocking.
 * Invariants: REC-2: a frame valid on any image is kept and made whole on every present image before anything is done
 * because of it. The last frame of a segment may be one that nobody was told was durable (COM-2): it may lie in a volatile
 * cache only, or be what a drive that failed its flush has dropped and still shows, so that another flush would prove nothing
 * (MEM-4). It is written once more, on every image. REC-3: a bad frame followed by a valid one is corruption, not the torn
 * end. REC-6: a segment whose images are all away is not empty: what it holds is unknown (`unread`), and retire.c keeps it
 * until one of them is back. REC-7: what recovery sealed without an image grows by what that image, back again, holds behind
 * the end, but not by copies: they were not acknowledged, and the mail in them has been moved again from where it was, or
 * retired. Nor by what is behind the end on an image that was here, was read, and could not be healed (`unproved` and
 * `holed`): the end was found with it, and what followed from that end - CHUNKs without a MESSAGE are dropped - stays true.
 * Where the index knew of more than the images showed (`unread`), all counts. REC-9: a member is said to have lied
 * about a flush (`flush_lied`) only for a frame that another one followed, of a segment that no mount has sealed: by COM-2 it
 * was durable everywhere. */
#include "mount.h"
#include "upkeep_parts.h"

#include <base/planted.h>
#include <stdlib.h>
#include <string.h>

/* REC-2: writes the frame to every present image that does not hold it whole. */
static enum err tail_heal(struct pool *p, struct segment *s, struct reader *r, const struct frame_view *v)
{
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        if (!m->present || r->dead[i]) {
            s->images[i].unproved = true;
            continue;
        }
        if ((r->good_mask & (1u << i)) || p->read_only)
            continue;
        enum err e = sync_write_member(p->io, m, segment_image_offset(p, &s->images[i]) + v->offset, v->bytes,
                                       v->blocks * BLOCK_BYTES);
        if (e == ERR_NO_MEMORY)
            return e; /* REC-4 */
        if (e == ERR_TIMEOUT) { /* it is still out: nothing there is read or written any more */
            member_leave(m, MEMBER_SLOW, "a write is not answered at mount");
            r->dead[i] = true;
        }
        if (e != ERR_OK)
            s->images[i].unproved = true;
        if (e != ERR_OK && e != ERR_TIMEOUT && e != ERR_MEMBER_GONE)
            s->images[i].holed = true; /* and it is read to its end all the same (REC-7) */
        if (e == ERR_OK && (r->bad_mask & (1u << i)))
            m->repaired_blocks += v->blocks;
    }
    return ERR_OK;
}

/* What images lack of frames that were acknowledged. */
struct tail_lies { uint32_t last_mask; uint32_t frames[COPIES_MAX]; }; /* last_mask: they lack the frame before this place */

struct tail {
    struct reader reader;
    uint64_t offset;
    struct frame_view last; /* the last frame that counts; its bytes are a copy in `bytes` */
    uint8_t *bytes;
    struct tail_lies lies;
    uint32_t away; /* mask of images that were, when recovery sealed it (REC-7) */
};

/* REC-7 */
static bool tail_takes(const struct segment *s, const struct tail *t, const struct frame_view *v)
{
    bool new = t->reader.good_mask & t->away;
    return s->state == SEGMENT_OPEN || s->unread || t->offset < s->length || (new && segment_id_is_none(v->moved_from));
}

static void tail_followed(struct tail_lies *lies, uint32_t missing_mask)
{
    for (uint32_t i = 0; i < COPIES_MAX; i++)
        lies->frames[i] += (lies->last_mask >> i) & 1;
    lies->last_mask = missing_mask;
}

/* REC-9. Not accused is who was away when the others went on, and nobody where the table is an older one, or the segment is one that
 * another half has freed. */
static void tail_accuse(struct pool *p, const struct segment *s, const struct tail_lies *lies)
{
    if (s->state != SEGMENT_OPEN || p->table_scanned || s->adopted || s->provisional || s->chunks_only)
        return;
    for (uint32_t i = 0; i < s->image_count; i++) {
        struct member *m = &p->members[s->images[i].member];
        if (lies->frames[i] == 0 || !m->present || m->behind)
            continue;
        m->errors_flush++;
        pool_event(p, EVENT_flush_lied, m, "segment %llu: %u frames that it had called durable are not there",
                   (unsigned long long)s->id.counter, lies->frames[i]);
    }
}

/* REC-2: the last frame, on every image, also where it is whole. */
static enum err tail_keep_last(struct pool *p, struct segment *s, struct tail *t)
{
    if (!t->last.bytes || PLANTED(torn_tail_kept) || PLANTED(recovery_unflushed))
        return ERR_OK;
    t->reader.good_mask = t->reader.bad_mask = 0;
    return tail_heal(p, s, &t->reader, &t->last);
}

/* Frame after frame to the end, which the answer is when it is ERR_NOT_FOUND. */
static enum err tail_walk(struct pool *p, struct segment *s, struct tail *t)
{
    struct frame_view v;
    uint64_t next;
    enum err e = reader_frame(&t->reader, t->offset, &v);
    if (e == ERR_OK && !tail_takes(s, t, &v))
        return ERR_NOT_FOUND;
    if (e == ERR_OK) {
        tail_followed(&t->lies, t->reader.missing_mask);
        if (!PLANTED(torn_tail_kept))
            e = tail_heal(p, s, &t->reader, &v);
        t->last = v;
        t->last.bytes = memcpy(t->bytes, v.bytes, (size_t)v.blocks * BLOCK_BYTES);
        t->offset += (uint64_t)v.blocks * BLOCK_BYTES;
        s->previous = v.digest.lo;
        uint64_t after = v.sequence + v.record_count;
        p->next_sequence = after > p->next_sequence ? after : p->next_sequence;
        p->clock_base_ms = v.stamp_ms > p->clock_base_ms ? v.stamp_ms : p->clock_base_ms;
        return e;
    }
    if (e == ERR_NO_MEMORY || (e = reader_resync(&t->reader, t->offset, &next)) != ERR_OK)
        return e;
    tail_followed(&t->lies, 0);
    pool_event(p, EVENT_frame_corrupt, NULL, "segment %llu: %llu bytes at %llu have no good copy", /* REC-3 */
               (unsigned long long)s->id.counter, (unsigned long long)(next - t->offset), (unsigned long long)t->offset);
    t->offset = next;
    return ERR_OK;
}

static enum err recover_tail(struct pool *p, struct segment *s, uint32_t away)
{
    struct tail t = {.offset = BLOCK_BYTES, .bytes = sync_buffer(FRAME_BYTES_MAX), .away = away};
    enum err e = t.bytes ? reader_open(&t.reader, p, s->id, s->images, s->image_count) : ERR_NO_MEMORY;
    if (e != ERR_OK) {
        free(t.bytes);
        return e;
    }
    uint64_t known = s->state == SEGMENT_SEALED ? s->length : BLOCK_BYTES;
    bool blind = true;
    while (e == ERR_OK)
        e = tail_walk(p, s, &t);
    if (e == ERR_NOT_FOUND && tail_keep_last(p, s, &t) != ERR_OK)
        e = ERR_NO_MEMORY;
    for (uint32_t i = 0; i < s->image_count; i++) {
        s->images[i].unproved = s->images[i].unproved || t.reader.dead[i];
        blind = blind && t.reader.dead[i];
    }
    reader_close(&t.reader);
    free(t.bytes);
    if (e != ERR_NOT_FOUND)
        return e;
    tail_accuse(p, s, &t.lies);
    s->unread = s->unread || blind; /* REC-6 */
    s->unfed = s->unfed || blind;
    s->in_doubt = s->in_doubt || blind;
    s->length = t.offset > known ? t.offset : known; /* what was told before is not shorter because it cannot be read now */
    s->state = SEGMENT_SEALED;
    s->by_recovery = true;
    return ERR_OK;
}

/* What nobody could read before may be there now: the index learns of it by reading everything. Not where it had it before: made anew it
 * would know less, neither the ids of what is lost nor results that lay on members that were given up. */
static void recover_unread(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || !s->unread)
            continue;
        bool away = false;
        for (uint32_t k = 0; k < s->image_count; k++) {
            const struct member *m = &p->members[s->images[k].member];
            away = away || (!member_readable(m) && !m->removed);
        }
        if (away || segment_given_up(p, s))
            continue;
        p->index_discard = p->index_discard || s->unfed;
        s->unread = s->unfed = false;
    }
}

/* EXC-1 */
static void recover_drop_provisional(struct pool *p)
{
    for (uint32_t i = 0; i < p->segment_used; i++) {
        struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || !s->provisional)
            continue;
        s->table_known = false; /* no discard here: nothing is written before the mount decides to */
        segment_drop(p, s);
    }
}

/* Sealed by the run that wrote it: each image got all of it before it was acknowledged. Another half only did not know (MRG-2). */
static enum err recover_prove_final(struct pool *p, struct segment *s)
{
    enum err e = ERR_OK;
    for (uint32_t k = 0; k < s->image_count && e == ERR_OK; k++) {
        bool gone = true;
        if (s->images[k].unproved && p->members[s->images[k].member].present)
            e = reader_slot_gone(p, s->id, &s->images[k], &gone);
        s->images[k].unproved = s->images[k].unproved && gone;
    }
    return e;
}

enum err recover_tails(struct pool *p)
{
    enum err e = ERR_OK;
    recover_drop_provisional(p);
    for (uint32_t i = 0; i < p->segment_used && e == ERR_OK; i++) {
        struct segment *s = &p->segments[i];
        bool unproved = false; /* an image that was away when recovery sealed it is here now, or one that could not be healed */
        uint32_t away = 0;
        for (uint32_t k = 0; k < s->image_count; k++) {
            unproved = unproved || (s->images[k].unproved && p->members[s->images[k].member].present);
            away |= s->images[k].unproved && !s->images[k].holed ? 1u << k : 0;
        }
        if (s->state == SEGMENT_SEALED && !s->by_recovery && unproved)
            e = recover_prove_final(p, s);
        if (s->state == SEGMENT_SEALED && s->by_recovery && unproved)
            for (uint32_t k = 0; k < s->image_count; k++)
                s->images[k].unproved = false;
        if (s->state == SEGMENT_OPEN || (s->state == SEGMENT_SEALED && s->by_recovery && unproved))
            e = recover_tail(p, s, away);
    }
    recover_unread(p);
    return e;
}
