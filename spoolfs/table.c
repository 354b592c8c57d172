/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the segment table as a log: OPEN, SEAL, FREED records behind a TABLE, in a table segment the superblocks name.
 * What records say is table_entries.c; a new table segment is table_rewrite.c.
 *
 *   table_submit -> table_queue -> commit_submit [table_step] -> table_on_group: done
 *
 * Invariant: TAB-3: what follows the TABLE in its segment is newer than it. TAB-1, TAB-2, TAB-6: table_rewrite.c; TAB-4,
 * TAB-5: table_entries.c. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

static void table_group_free(struct table_group *t);

static void table_on_group(struct spool_group *g, enum err e)
{
    struct table_group *t = CONTAINER_OF(g, struct table_group, group);
    struct pool *p = t->pool;
    if (e == ERR_OK && t->records[0].type == RECORD_OPEN) {
        t->segment->table_known = true;
        e = table_note_incarnation(p, t->segment->id.incarnation, t->segment->id.counter);
    }
    t->done(t, e);
    table_group_free(t);
}

static void table_enqueue(struct table_group *t, uint32_t count)
{
    t->group = (struct spool_group){.records = t->records, .count = count, .class = SPOOL_COMPACTION,
                                    .done = table_on_group};
    link_push(&t->pool->table_queue, &t->link);
}

static struct table_group *table_group_make(struct pool *p, void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = calloc(1, sizeof *t);
    if (t) {
        t->pool = p;
        t->done = done;
    }
    return t;
}

/* The entry of `s` as it will be when the record is durable. */
static void table_group_entry(struct table_group *t, enum record_type type, struct segment *s)
{
    enum segment_state state = s->state;
    bool provisional = s->provisional;
    struct table_segment_disk d;
    if (type == RECORD_SEAL) {
        s->state = SEGMENT_SEALED;
        s->provisional = false;
    }
    table_entry_of(s, &d);
    s->state = state;
    s->provisional = provisional;
    _Static_assert(sizeof d == sizeof t->payload, "an entry is the payload");
    memcpy(t->payload, &d, sizeof d);
    t->segment = s;
    t->records[0].type = type;
    t->records[0].parts[0] = (struct digest_piece){t->payload, sizeof t->payload};
}

static bool table_group_freed(struct table_group *t, uint32_t at, const struct segment_id *ids, uint32_t count)
{
    struct id_disk *row = calloc(count, sizeof *row);
    if (!row)
        return false;
    for (uint32_t i = 0; i < count; i++)
        row[i] = segment_id_disk_of(ids[i]);
    t->heap = (uint8_t *)row;
    t->records[at].type = RECORD_FREED;
    t->records[at].parts[0] = (struct digest_piece){row, count * sizeof *row};
    return true;
}

enum err table_submit(struct pool *p, enum record_type type, struct segment *s,
                      void (*done)(struct table_group *t, enum err e))
{
    ASSERT(type == RECORD_OPEN || type == RECORD_SEAL);
    struct table_group *t = table_group_make(p, done);
    if (!t)
        return ERR_NO_MEMORY;
    table_group_entry(t, type, s);
    table_enqueue(t, 1);
    return ERR_OK;
}

enum err table_submit_freed(struct pool *p, const struct segment_id *ids, uint32_t count,
                            void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = table_group_make(p, done);
    if (!t || !table_group_freed(t, 0, ids, count)) {
        free(t);
        return ERR_NO_MEMORY;
    }
    table_enqueue(t, 1);
    return ERR_OK;
}

enum err table_submit_exchange(struct pool *p, struct segment *s, const struct segment_id *ids, uint32_t count,
                               void (*done)(struct table_group *t, enum err e))
{
    struct table_group *t = table_group_make(p, done);
    if (!t || !table_group_freed(t, 1, ids, count)) {
        free(t);
        return ERR_NO_MEMORY;
    }
    table_group_entry(t, RECORD_SEAL, s);
    table_enqueue(t, 2);
    return ERR_OK;
}

void table_step(struct pool *p)
{
    rewrite_watch(p);
    while (!link_empty(&p->table_queue)) {
        struct table_group *t = CONTAINER_OF(p->table_queue.next, struct table_group, link);
        enum err e = commit_submit(&p->appenders[APPENDER_TABLE], &t->group);
        if (e == ERR_BUSY)
            return;
        link_remove(&t->link);
        if (e != ERR_OK)
            table_on_group(&t->group, e);
    }
}

static void table_group_free(struct table_group *t)
{
    free(t->heap);
    free(t);
}

void table_fini(struct pool *p)
{
    while (!link_empty(&p->table_queue))
        table_group_free(CONTAINER_OF(link_pop(&p->table_queue), struct table_group, link));
    for (uint32_t i = 0; i < FRAME_SLOTS; i++) {
        struct append_frame *f = &p->frames[i];
        if (!f->appender || f->appender->kind != SEGMENT_TABLE)
            continue;
        struct link *l;
        while ((l = link_pop(&f->groups)) != NULL)
            table_group_free(CONTAINER_OF(CONTAINER_OF(l, struct spool_group, link), struct table_group, group));
    }
}

uint32_t table_behind(const struct pool *p)
{
    return p->table_settling ? p->super.todo_mask : 0;
}

bool table_busy(const struct pool *p)
{
    return p->table_rewriting || !link_empty(&p->table_queue) || p->super.running;
}
