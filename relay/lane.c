/* SPDX-License-Identifier: Apache-2.0 */
/* Owns lanes and what they learn about their destination. Reads no clock, touches no socket. See lane.h. */
#include "lane.h"

#include <base/assert.h>
#include <base/digest.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS (LANES_MAX * 2u)

enum err lane_table_open(struct lane_table *t)
{
    memset(t, 0, sizeof *t);
    t->buckets = calloc(BUCKETS, sizeof *t->buckets);
    t->wake_nodes = calloc(LANES_MAX, sizeof(struct heap_node *));
    if (!t->buckets || !t->wake_nodes) {
        lane_table_close(t);
        return ERR_NO_MEMORY;
    }
    heap_init(&t->wakes, t->wake_nodes, LANES_MAX);
    for (uint32_t i = 0; i < BUCKETS; i++)
        link_init(&t->buckets[i]);
    return ERR_OK;
}

static void lane_free(struct lane_table *t, struct lane *lane)
{
    link_remove(&lane->hash_link);
    for (uint32_t c = 0; c < LANE_QUEUES; c++)
        if (link_linked(&lane->ready[c]))
            link_remove(&lane->ready[c]);
    if (heap_node_in(&lane->wake))
        heap_remove(&t->wakes, &lane->wake);
    if (lane->dead_until_ms)
        t->dead--;
    t->count--;
    free(lane);
}

void lane_table_close(struct lane_table *t)
{
    for (uint32_t i = 0; t->wakes.nodes && i < BUCKETS; i++)
        LINK_EACH_SAFE(l, next, &t->buckets[i])
            lane_free(t, CONTAINER_OF(l, struct lane, hash_link));
    free(t->buckets);
    free(t->wake_nodes);
    memset(t, 0, sizeof *t);
}

/* What mail must share to share a lane: the way and, where the way depends on it, the domain. */
static uint32_t print_key(const struct route *r, const char *domain, uint32_t len, char key[LANE_KEY_BYTES])
{
    int n = snprintf(key, LANE_KEY_BYTES, "%c%c%.255s:%u", 'a' + (char)r->kind, r->mx ? 'm' : '-', r->host, r->port);
    uint32_t used = (uint32_t)n;
    if (r->kind == ROUTE_SMTP && r->host[0] == '\0') {
        key[used++] = ' ';
        for (uint32_t i = 0; i < len && used < LANE_KEY_BYTES - 1; i++)
            key[used++] = (char)tolower((unsigned char)domain[i]);
        key[used] = '\0';
    }
    return used;
}

static struct lane *lane_make(const struct route *route, const char *domain, uint32_t domain_len)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->route = *route;
    if (route->kind == ROUTE_SMTP && route->host[0] == '\0') {
        uint32_t len = domain_len < sizeof lane->route.host ? domain_len : (uint32_t)sizeof lane->route.host - 1;
        for (uint32_t i = 0; i < len; i++)
            lane->route.host[i] = (char)tolower((unsigned char)domain[i]);
    }
    for (uint32_t c = 0; c < LANE_QUEUES; c++)
        link_init(&lane->queue[c]);
    link_init(&lane->idle);
    heap_node_init(&lane->wake);
    return lane;
}

enum err lane_find(struct lane_table *t, const struct route *route, const char *domain, uint32_t domain_len,
                   struct lane **lane_out)
{
    char key[LANE_KEY_BYTES];
    uint32_t len = print_key(route, domain, domain_len, key);
    uint64_t hash = digest64_of(key, len, 0);
    struct link *bucket = &t->buckets[hash % BUCKETS];
    LINK_EACH(l, bucket) {
        struct lane *lane = CONTAINER_OF(l, struct lane, hash_link);
        if (lane->key_hash == hash && strcmp(lane->key, key) == 0) {
            *lane_out = lane;
            return ERR_OK;
        }
    }
    if (t->count == LANES_MAX)
        return ERR_BUSY;
    struct lane *lane = lane_make(route, domain, domain_len);
    if (!lane)
        return ERR_NO_MEMORY;
    lane->key_hash = hash;
    memcpy(lane->key, key, len + 1);
    link_push(bucket, &lane->hash_link);
    t->count++;
    *lane_out = lane;
    return ERR_OK;
}

void lane_free_when_empty(struct lane_table *t, struct lane *lane)
{
    if (lane->queued == 0 && lane->busy == 0 && lane->sessions == 0 && !heap_node_in(&lane->wake))
        lane_free(t, lane);
}

void lane_configure(struct lane *lane, const struct lane_limits *limits)
{
    uint32_t max = limits->max ? limits->max : 1;
    if (lane->limit == 0)
        lane->limit = limits->initial ? limits->initial : 1;
    lane->limit_max = max;
    if (lane->limit > max)
        lane->limit = max;
}

bool lane_can_start(const struct lane *lane, uint32_t queue)
{
    if (lane->dead_until_ms || lane->busy >= lane->limit || link_empty(&lane->queue[queue]))
        return false;
    return queue == LANE_QUEUE_FRESH || lane->busy_of[LANE_BACKLOG] < lane->limit - lane->limit / LANE_FRESH_SHARE; /* LAN-4 */
}

void lane_succeeded(struct lane *lane)
{
    lane->failures = 0;
    /* one more for each full window of successes, as TCP does beyond its threshold */
    if (++lane->successes >= lane->limit && lane->limit < lane->limit_max) {
        lane->limit++;
        lane->successes = 0;
    }
}

static void set_wake(struct lane_table *t, struct lane *lane, uint64_t at_ms)
{
    if (heap_node_in(&lane->wake))
        heap_remove(&t->wakes, &lane->wake);
    enum err e = heap_push(&t->wakes, &lane->wake, at_ms);
    ASSERT(e == ERR_OK); /* the heap holds every lane there can be */
}

bool lane_failed(struct lane_table *t, struct lane *lane, const struct lane_limits *limits, uint64_t now_ms,
                 const struct outcome *why)
{
    lane->successes = 0;
    if (lane->dead_until_ms)
        return false; /* a straggler of the round that killed it */
    if (lane->working > 0) { /* others are working: the destination is full, not gone */
        lane->limit = lane->working < lane->limit ? lane->working : lane->limit;
        return false;
    }
    lane->limit = 1;
    uint32_t doublings = lane->failures < 20 ? lane->failures : 20;
    uint64_t wait = limits->backoff_min_ms << doublings;
    if (wait > limits->backoff_max_ms)
        wait = limits->backoff_max_ms;
    lane->failures++;
    lane->dead_until_ms = now_ms + (wait ? wait : 1);
    lane->why_dead = *why;
    t->dead++;
    set_wake(t, lane, lane->dead_until_ms);
    return true;
}

void lane_revive(struct lane_table *t, struct lane *lane, uint64_t now_ms, const struct lane_limits *limits)
{
    ASSERT(lane->dead_until_ms > 0);
    lane->dead_until_ms = 0;
    lane->limit = 1;
    t->dead--;
    set_wake(t, lane, now_ms + limits->backoff_max_ms + 1); /* how often it failed is remembered so long */
}

struct lane *lane_wake(struct lane_table *t, uint64_t through_ms, uint64_t now_ms, const struct lane_limits *limits)
{
    for (struct heap_node *n = heap_top(&t->wakes); n && n->key <= through_ms; n = heap_top(&t->wakes)) {
        struct lane *lane = CONTAINER_OF(n, struct lane, wake);
        heap_remove(&t->wakes, n);
        if (lane->dead_until_ms) {
            lane_revive(t, lane, now_ms, limits); /* back in the heap once more, for the memory of it */
            return lane;
        }
        lane->failures = 0;
        lane_free_when_empty(t, lane);
    }
    return NULL;
}
