/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what the pool says about itself: its state and the status snapshot. Changes nothing but the state word. */
#include "upkeep_parts.h"

#include <stdio.h>
#include <string.h>

uint32_t segment_images_readable(const struct pool *p, const struct segment *s)
{
    uint32_t good = 0;
    for (uint32_t i = 0; i < s->image_count; i++)
        good += member_readable(&p->members[s->images[i].member]) && !s->images[i].unproved;
    return good;
}

/* The first in each domain. Images come to share one when a failure domain is named, or members are moved, after they were written. */
uint32_t segment_images_apart(const struct pool *p, const struct segment *s, uint32_t mask)
{
    uint32_t apart = 0;
    for (uint32_t i = 0; i < s->image_count; i++) {
        bool own = (mask >> i) & 1;
        for (uint32_t k = 0; own && k < i; k++)
            own = !((apart >> k) & 1) || !members_share_domain(&p->members[s->images[i].member], &p->members[s->images[k].member]);
        apart |= own ? 1u << i : 0;
    }
    return apart;
}

/* What a failed member holds is read as the last resort, but nothing on it is trusted to last; what lies in one failure domain is
 * lost with it, however often it lies there; and of an image with holes nobody knows here which mail lies in them (EVI-2). */
uint32_t segment_images_good(const struct pool *p, const struct segment *s)
{
    uint32_t good = 0;
    for (uint32_t i = 0; i < s->image_count; i++) {
        const struct member *m = &p->members[s->images[i].member];
        bool counts = member_readable(m) && m->state != MEMBER_FAILED && !s->images[i].unproved && !s->images[i].bad &&
                      !s->images[i].holed;
        good |= counts ? 1u << i : 0;
    }
    return (uint32_t)__builtin_popcount(segment_images_apart(p, s, good));
}

struct tally { uint64_t below, single, live_bytes, used, messages; uint32_t degraded, segments; };

static void status_tally(const struct pool *p, struct tally *t)
{
    *t = (struct tally){0};
    for (uint32_t i = 0; i < p->segment_used; i++) {
        const struct segment *s = &p->segments[i];
        if (s->state == SEGMENT_UNUSED || s->kind != SEGMENT_MAIL)
            continue;
        uint32_t good = segment_images_good(p, s);
        t->segments++;
        t->messages += s->live_messages;
        t->live_bytes += s->live_bytes;
        if (good >= p->config.copies || segment_given_up(p, s)) /* what is lost has a number of its own, and no images to make */
            continue;
        t->degraded++;
        t->below += s->live_messages;
        if (good <= 1)
            t->single += s->live_messages;
    }
}

static bool status_member_missing(const struct pool *p)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (m->used && !m->removed && m->state != MEMBER_HEALTHY && m->state != MEMBER_SUSPECT && m->state != MEMBER_SPARE)
            return true;
    }
    return false;
}

static enum pool_state status_judge(struct pool *p, const struct tally *t)
{
    uint32_t domains = pool_domains_usable(p), readable = 0;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        readable += member_readable(&p->members[i]);
    if (readable == 0)
        return POOL_FAILED;
    if (domains < p->config.min_copies || p->read_only)
        return POOL_READ_ONLY;
    if (headroom_domain_count(p) <= p->config.copies || t->single > 0 || headroom_bytes(p, t->live_bytes) == 0)
        return POOL_AT_RISK;
    if (status_member_missing(p) || t->below > 0)
        return POOL_DEGRADED;
    return POOL_HEALTHY;
}

void pool_update_state(struct pool *p)
{
    struct tally t;
    status_tally(p, &t);
    enum pool_state state = status_judge(p, &t);
    if (state != p->state && p->mounted)
        pool_event(p, EVENT_pool_state, NULL, "%s -> %s", pool_state_word(p->state), pool_state_word(state));
    p->state = state;
}

/* What new mail may still take, with what is left of the open segments. */
static uint64_t status_free_for_mail(const struct pool *p)
{
    uint64_t open = 0;
    for (uint32_t i = 1; i < p->appender_count; i++) {
        const struct segment *s = p->appenders[i].segment, *next = p->appenders[i].next;
        if (p->appenders[i].moves)
            continue;
        open += s && p->slot_bytes > s->length + FRAME_BYTES_MAX ? p->slot_bytes - s->length - FRAME_BYTES_MAX : 0;
        open += next ? p->slot_bytes - FRAME_BYTES_MAX : 0;
    }
    uint32_t domains = pool_domains_usable(p);
    uint32_t copies = domains < p->config.copies ? domains : p->config.copies;
    if (copies == 0 || p->read_only)
        return 0;
    return headroom_segments(p, copies) * p->slot_bytes + open;
}

static enum err status_accepting(struct pool *p)
{
    enum err why;
    if (p->read_only)
        return ERR_READ_ONLY;
    if (p->stopping)
        return ERR_STOPPING;
    if (pool_domains_usable(p) < p->config.min_copies)
        return ERR_BELOW_POLICY;
    if (p->headroom_full)
        return ERR_FULL;
    if ((why = spool_index_follows(p)) != ERR_OK)
        return why;
    if (status_free_for_mail(p) == 0 && !placement_possible(p, SPOOL_NEW_MAIL, 0, &why))
        return why;
    return ERR_OK;
}

static void status_throttle(const struct throttle *t, struct pool_member_status *o)
{
    o->throttle.bytes_per_second = t->rate;
    o->throttle.baseline_commit_ns = (uint64_t)t->base[THROTTLE_COMMIT].mean_ns;
    o->throttle.baseline_delivery_ns = (uint64_t)t->base[THROTTLE_DELIVER].mean_ns;
    o->throttle.cuts = t->cuts;
    o->throttle.raises = t->raises;
    o->throttle.idle = t->idle >= THROTTLE_IDLE_INTERVALS;
}

static void status_member(const struct member *m, struct pool_member_status *o)
{
    memcpy(o->name, m->name, sizeof o->name);
    memcpy(o->path, m->path, sizeof o->path);
    memcpy(o->domain, m->domain, sizeof o->domain);
    memcpy(o->serial, m->serial, sizeof o->serial);
    memcpy(o->evidence, m->evidence, sizeof o->evidence);
    o->uuid = m->uuid;
    o->state = m->removed ? MEMBER_REMOVED : m->state;
    o->since_ms = m->since_ms;
    o->bytes_total = m->slot_count * m->slot_bytes;
    o->bytes_used = (uint64_t)(m->slot_count - m->slots_free) * m->slot_bytes;
    o->errors_read = m->errors_read;
    o->errors_write = m->errors_write;
    o->errors_flush = m->errors_flush;
    o->errors_checksum = m->errors_checksum;
    o->errors_identity = m->errors_identity;
    o->errors_timeout = m->errors_timeout;
    o->repaired_blocks = m->repaired_blocks;
    o->write_p50_ns = latency_percentile(&m->write_latency, 50);
    o->write_p99_ns = latency_percentile(&m->write_latency, 99);
    o->read_p50_ns = latency_percentile(&m->read_latency, 50);
    o->read_p99_ns = latency_percentile(&m->read_latency, 99);
    o->writes = m->writes;
    o->write_bytes = m->write_bytes;
    o->flushes = m->flushes;
    o->reads = m->reads;
    o->read_bytes = m->read_bytes;
    o->durable_by = m->durable_by;
    const struct health_member *h = &m->pool->health.members[m->number];
    o->health.score = health_score(h);
    o->health.steers = m->watch.steers;
    o->health.avoided = m->present && member_avoided(m);
    o->health.stays_out = m->watch.stays_out && m->state == MEMBER_SLOW;
    o->health.of_before = m->watch.of_before && m->state == MEMBER_SLOW;
    memcpy(o->health.evidence, h->evidence, sizeof o->health.evidence);
    status_throttle(&m->share.throttle, o);
    for (uint32_t c = 0; c < IO_CLASS_COUNT; c++) {
        o->io[c].waiting = m->dispatch.waits[c];
        o->io[c].in_flight = m->dispatch.in_flight[c];
        o->io[c].ops = m->dispatch.ops[c];
        o->io[c].bytes = m->dispatch.bytes[c];
    }
    if (m->present) {
        const struct io_target *t = io_target(m->pool->io, m->target);
        o->rotational = t->rotational;
        o->buffered = t->buffered;
    }
}

static void status_action(const struct pool *p, struct pool_status *o)
{
    const char *named = "";
    for (uint32_t i = 0; i < MEMBERS_MAX && !named[0]; i++)
        if (p->members[i].used && !p->members[i].removed && p->members[i].state != MEMBER_HEALTHY &&
            p->members[i].state != MEMBER_SPARE)
            named = p->members[i].name;
    if (p->count_lost > 0)
        snprintf(o->action, sizeof o->action, "spooltool events");
    else if (p->index_full)
        snprintf(o->action, sizeof o->action, "make room in state_directory; spooltool doctor");
    else if (named[0])
        snprintf(o->action, sizeof o->action, "spooltool members (look at \"%s\")", named);
    else if (o->state == POOL_AT_RISK && o->bytes_headroom > 0 && headroom_domain_count(p) > p->config.copies)
        snprintf(o->action, sizeof o->action, "spooltool rebuild status: until it is done, mail lies in one failure domain only");
    else if (o->state == POOL_AT_RISK)
        snprintf(o->action, sizeof o->action, "spooltool member add: %s",
                 headroom_domain_count(p) > p->config.copies
                     ? "the others have no room for what one failure domain holds"
                     : "one in another failure domain; a loss could not be absorbed");
}

void pool_status(struct pool *p, struct pool_status *o)
{
    struct tally t;
    *o = (struct pool_status){0};
    pool_update_state(p);
    status_tally(p, &t);
    o->uuid = p->uuid;
    o->state = p->state;
    o->copies = p->config.copies;
    o->min_copies = p->config.min_copies;
    o->epoch = p->epoch;
    o->incarnation = p->incarnation;
    o->segment_bytes = p->slot_bytes;
    o->bytes_live = t.live_bytes;
    o->bytes_headroom = headroom_bytes(p, t.live_bytes);
    o->bytes_free_for_mail = status_free_for_mail(p);
    if (headroom_counts(p) && o->bytes_headroom < o->bytes_free_for_mail)
        o->bytes_free_for_mail = o->bytes_headroom;
    o->segments = t.segments;
    o->segments_degraded = t.degraded;
    o->messages = t.messages;
    o->messages_below_copies = t.below;
    o->messages_lost = p->count_lost;
    o->lacks_domains = p->state == POOL_AT_RISK && headroom_domain_count(p) == p->config.copies && t.below == 0 &&
                       !status_member_missing(p);
    o->domains_wanting = pool_domains_usable(p) < p->config.copies;
    o->index_ready = p->index_ready;
    o->index_progress = p->index_ready ? 1.0
                        : p->replay_total ? (double)p->replay_bytes / (double)p->replay_total : 0.0;
    if (o->index_progress > 1.0)
        o->index_progress = 1.0;
    o->index_replayed_bytes = p->replay_bytes;
    o->index_full = p->index_full;
    o->index_damaged = p->index_damaged;
    uint64_t now = io_now_ns(p->io);
    o->absent_wait_ms = p->absent_wait_until_ns > now ? (p->absent_wait_until_ns - now) / NS_PER_MS : 0;
    o->frames = p->count_frames;
    o->records = p->count_records;
    o->hedges = p->count_hedges;
    o->segments_compacted = p->count_compacted;
    o->accepting = status_accepting(p);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        if (!p->members[i].used)
            continue;
        status_member(&p->members[i], &o->members[o->member_count]);
        o->bytes_total += o->members[o->member_count].bytes_total;
        o->bytes_used += o->members[o->member_count].bytes_used;
        o->member_count++;
    }
    status_action(p, o);
}
