/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the records that are taken but not yet in the store, and the order in which they get there: sorted by queue
 * id, each id's in order of arrival, one transaction. Invariant CORE-1 (core.h): they are forgotten only after the commit. */
#include "core.h"

#include <base/assert.h>
#include <base/le.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err core_init(struct core *c, struct store *store, struct uuid pool, struct out *out)
{
    *c = (struct core){.store = store, .out = out, .pool = pool, .due_cursor = key_of('e')};
    link_init(&c->batch.events);
    c->records = calloc(PENDING_RECORDS_MAX, sizeof *c->records);
    c->sorted = malloc(PENDING_RECORDS_MAX * sizeof *c->sorted);
    c->marks = calloc(PENDING_RECORDS_MAX, sizeof *c->marks);
    c->payloads = malloc(PENDING_BYTES_MAX);
    c->value = malloc(VALUE_BYTES_MAX);
    c->destinations = malloc(RECIPIENTS_PER_MESSAGE_MAX * sizeof *c->destinations);
    c->destinations_old = malloc(RECIPIENTS_PER_MESSAGE_MAX * sizeof *c->destinations_old);
    c->merge_marks = malloc(RECIPIENTS_PER_MESSAGE_MAX * sizeof *c->merge_marks);
    c->merge_sequences = malloc(RECIPIENTS_PER_MESSAGE_MAX * sizeof *c->merge_sequences);
    if (c->records && c->sorted && c->marks && c->payloads && c->value && c->destinations && c->destinations_old &&
        c->merge_marks && c->merge_sequences)
        return ERR_OK;
    core_fini(c);
    return ERR_NO_MEMORY;
}

void core_fini(struct core *c)
{
    free(c->records);
    free(c->sorted);
    free(c->marks);
    free(c->payloads);
    free(c->value);
    free(c->destinations);
    free(c->destinations_old);
    free(c->merge_marks);
    free(c->merge_sequences);
    free(c->batch.deps);
    map_free(&c->batch.segments);
    map_free(&c->batch.destinations);
    map_free(&c->leases);
    map_free(&c->retiring);
    *c = (struct core){0};
}

void core_damage(struct core *c, const char *what)
{
    if (!c->damaged)
        out_damage(c->out, what);
    c->damaged = true;
    c->record_count = c->mark_count = c->payload_bytes = 0;
}

/* --- open --- */

struct meta_disk { struct uuid pool; struct le32 version, reserved; struct le64 kept_by; };

enum err core_meta_step(struct core *c, void *arg)
{
    (void)arg;
    struct meta_disk d = {.pool = c->pool, .version = le32_of(ROWS_VERSION), .kept_by = le64_of(c->incarnation)};
    uint8_t buffer[SMALL_VALUE_BYTES];
    struct key k = key_of('u');
    return row_put(c, &k, value_seal(&k, buffer, &d, sizeof d));
}

static enum err core_check_meta(struct core *c)
{
    struct bytes value, body, key;
    struct meta_disk d;
    struct key k = key_of('u'), n = key_of('n');
    enum err e = store_get(c->store, key_bytes(&k), &value);
    if (e == ERR_NOT_FOUND && store_seek(c->store, (struct bytes){"", 1}, &key, &value) != ERR_NOT_FOUND)
        return ERR_CORRUPT; /* rows, but nobody's */
    if (e != ERR_OK)
        return e;
    if (value_open(key_bytes(&k), value, &body) != ERR_OK || body.len != sizeof d)
        return ERR_CORRUPT;
    memcpy(&d, body.at, sizeof d);
    if (!uuid_equal(d.pool, c->pool) || le32_get(d.version) != ROWS_VERSION)
        return ERR_CORRUPT;
    c->kept_by = le64_get(d.kept_by);
    e = store_get(c->store, key_bytes(&n), &value);
    if (e == ERR_NOT_FOUND)
        return ERR_CORRUPT; /* every batch writes it */
    return e == ERR_OK ? counts_decode(key_bytes(&n), value, &c->counts) : e;
}

static enum err core_tell_all(struct core *c)
{
    struct key at = key_of('s');
    const struct key kind = at;
    for (;;) {
        struct bytes key, value;
        struct segment_touched s;
        enum err e = store_seek(c->store, key_bytes(&at), &key, &value);
        if (e == ERR_NOT_FOUND || (e == ERR_OK && !key_begins(key, &kind)))
            return ERR_OK;
        if (e != ERR_OK || key.len != 17)
            return e != ERR_OK ? e : ERR_CORRUPT;
        s.id = key_segment_at(key, 1);
        e = segment_decode(key, value, &s.row);
        if (e == ERR_OK)
            e = batch_event(c, &s);
        if (e != ERR_OK)
            return e;
        at = key_segment('s', s.id);
        at = key_after(&at);
    }
}

enum err core_open(struct core *c)
{
    enum err e = store_begin(c->store, false);
    if (e != ERR_OK)
        return e;
    e = core_check_meta(c);
    if (e == ERR_OK)
        e = core_tell_all(c);
    if (e == ERR_OK)
        e = copies_look(c, &c->copies_known);
    store_abort(c->store);
    if (e == ERR_OK) {
        c->batch.counts = c->counts;
        batch_tell(c);
        return ERR_OK;
    }
    for (struct link *l; (l = link_pop(&c->batch.events));)
        free(CONTAINER_OF(l, struct segment_event, link));
    c->counts = (struct counts_row){0};
    if (e != ERR_NOT_FOUND)
        return e;
    e = core_transact(c, core_meta_step, NULL);
    return e == ERR_OK ? ERR_NOT_FOUND : e;
}

/* --- take --- */

uint8_t *core_payload(struct core *c, uint32_t bytes)
{
    ASSERT(bytes <= PENDING_BYTES_MAX);
    bool room = c->record_count < PENDING_RECORDS_MAX && c->mark_count < PENDING_RECORDS_MAX &&
                PENDING_BYTES_MAX - c->payload_bytes >= bytes;
    return room ? c->payloads + c->payload_bytes : NULL;
}

bool core_enough(const struct core *c)
{
    return c->framed && (c->record_count > PENDING_RECORDS_ENOUGH || c->payload_bytes > PENDING_BYTES_ENOUGH ||
                         c->mark_count > PENDING_RECORDS_ENOUGH);
}

bool core_pending(const struct core *c)
{
    return c->record_count || c->mark_count;
}

static enum err take_record(struct core *c, const struct command *cmd)
{
    struct queue_id q = cmd->record.qid;
    bool retire = cmd->kind == COMMAND_RECORD && cmd->record.type == RECORD_RETIRE && !cmd->record.moved;
    if (retire && map_put(&c->retiring, q.incarnation, q.counter, c) != ERR_OK)
        return ERR_NO_MEMORY;
    struct pending_record *p = &c->records[c->record_count];
    *p = (struct pending_record){.r = cmd->record, .abort = cmd->kind == COMMAND_ABORT, .order = c->record_count};
    p->r.payload = c->payloads + c->payload_bytes;
    p->r.payload_bytes = cmd->payload_bytes;
    c->payload_bytes += cmd->payload_bytes;
    c->record_count++;
    return ERR_OK;
}

static void take_watermark(struct core *c, const struct command *cmd)
{
    struct pending_mark m = {cmd->record.place.segment, cmd->record.message_segment, cmd->offset};
    struct pending_mark *last = c->mark_count ? &c->marks[c->mark_count - 1] : NULL;
    if (last && segment_id_equal(last->segment, m.segment) && segment_id_equal(last->moved_from, m.moved_from)) {
        last->offset = m.offset > last->offset ? m.offset : last->offset;
        return;
    }
    c->marks[c->mark_count++] = m;
}

static enum err take_lease(struct core *c, struct queue_id q, bool leased)
{
    if (leased)
        return map_put(&c->leases, q.incarnation, q.counter, c);
    map_remove(&c->leases, q.incarnation, q.counter);
    return ERR_OK;
}

/* What is not gathered: the gathered goes before it. */
static enum err take_now(struct core *c, const struct command *cmd)
{
    const struct segment_id *ids = (const void *)(c->payloads + c->payload_bytes);
    struct segment_id freed[256];
    uint32_t count = cmd->payload_bytes / (uint32_t)sizeof *ids, n;
    enum err e = ERR_OK;
    if (cmd->kind != COMMAND_FREED) {
        if ((e = core_flush(c)) != ERR_OK)
            return e;
        return cmd->kind == COMMAND_REPLAY_BEGIN ? core_replay_begin(c, cmd->flag) : core_replay_end(c);
    }
    for (uint32_t i = 0; i < count && e == ERR_OK; i += n) {
        n = count - i < 256 ? count - i : 256;
        memcpy(freed, (const uint8_t *)ids + i * sizeof *ids, n * sizeof *ids); /* before the flush forgets payloads */
        e = i == 0 ? core_flush(c) : ERR_OK;
        if (e == ERR_OK)
            e = core_freed(c, freed, n);
    }
    return e;
}

enum err core_take(struct core *c, const struct command *cmd)
{
    if (c->damaged)
        return ERR_OK;
    enum err e = ERR_OK;
    c->framed = cmd->kind == COMMAND_WATERMARK;
    switch (cmd->kind) {
    case COMMAND_RECORD:
    case COMMAND_ABORT:
        e = take_record(c, cmd);
        break;
    case COMMAND_WATERMARK:
        take_watermark(c, cmd);
        break;
    case COMMAND_LEASE:
        e = take_lease(c, cmd->record.qid, cmd->flag);
        break;
    case COMMAND_INCARNATION:
        c->incarnation = cmd->offset;
        c->keep_chunks = cmd->flag;
        break;
    default:
        e = take_now(c, cmd);
    }
    return c->damaged ? ERR_OK : e;
}

/* --- flush --- */

static int record_compare(const void *a, const void *b)
{
    const struct pending_record *x = *(const struct pending_record *const *)a;
    const struct pending_record *y = *(const struct pending_record *const *)b;
    const uint64_t i[3] = {x->r.qid.incarnation, x->r.qid.counter, x->order};
    const uint64_t j[3] = {y->r.qid.incarnation, y->r.qid.counter, y->order};
    for (uint32_t n = 0; n < 3; n++)
        if (i[n] != j[n])
            return i[n] < j[n] ? -1 : 1;
    return 0;
}

struct flush { uint32_t from, to, count; }; /* of c->sorted: what this transaction applied, and all */

static enum err flush_step(struct core *c, void *arg)
{
    struct flush *f = arg;
    enum err e = ERR_OK;
    uint32_t at = f->from;
    for (uint32_t n; at < f->count && e == ERR_OK && !batch_large(c); at += n) {
        n = 1;
        while (at + n < f->count && queue_id_equal(c->sorted[at]->r.qid, c->sorted[at + n]->r.qid))
            n++;
        e = apply_group(c, (const struct pending_record *const *)c->sorted + at, n);
    }
    f->to = at;
    for (uint32_t i = 0; i < c->mark_count && e == ERR_OK && at == f->count; i++) { /* CORE-4 */
        const struct pending_mark *m = &c->marks[i];
        struct segment_touched *s;
        e = batch_segment(c, m->segment, &s);
        if (e == ERR_OK && s->row.watermark < m->offset)
            s->row.watermark = m->offset;
        if (e == ERR_OK)
            e = batch_dep(c, m->segment, m->moved_from);
    }
    return e;
}

static uint32_t flush_sort(struct core *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->record_count; i++)
        if (!c->records[i].done)
            c->sorted[count++] = &c->records[i];
    if (count)
        qsort(c->sorted, count, sizeof *c->sorted, record_compare);
    return count;
}

enum err core_flush(struct core *c)
{
    if (c->damaged || !core_pending(c))
        return ERR_OK;
    struct flush f = {.count = flush_sort(c)};
    enum err e = ERR_OK;
    do {
        f.from = f.to;
        e = core_transact(c, flush_step, &f);
        for (uint32_t i = f.from; i < f.to && e == ERR_OK; i++)
            c->sorted[i]->done = true; /* a later transaction may fail, and then only the rest is tried again */
    } while (e == ERR_OK && f.to < f.count);
    if (e == ERR_OK) {
        c->record_count = c->mark_count = c->payload_bytes = 0;
        map_clear(&c->retiring);
    }
    return c->damaged ? ERR_OK : e;
}

bool core_pending_about(const struct core *c, struct queue_id qid)
{
    for (uint32_t i = 0; i < c->record_count; i++)
        if (queue_id_equal(c->records[i].r.qid, qid))
            return true;
    return false;
}

/* True also where there is no memory to look: a flush is always right. */
bool core_pending_about_any(const struct core *c, const struct queue_id *qids, uint32_t count)
{
    struct map asked = {0};
    bool found = false;
    for (uint32_t i = 0; i < count && !found; i++)
        found = map_put(&asked, qids[i].incarnation, qids[i].counter, &asked) != ERR_OK;
    for (uint32_t i = 0; i < c->record_count && !found; i++)
        found = map_get(&asked, c->records[i].r.qid.incarnation, c->records[i].r.qid.counter) != NULL;
    map_free(&asked);
    return found;
}

/* Something that may be due: pending records of a message that nobody has leased and that is not about to go. */
bool core_pending_free(const struct core *c)
{
    for (uint32_t i = 0; i < c->record_count; i++) {
        struct queue_id q = c->records[i].r.qid;
        if (c->records[i].r.type != RECORD_CHUNK && !map_get(&c->leases, q.incarnation, q.counter) &&
            !map_get(&c->retiring, q.incarnation, q.counter))
            return true;
    }
    return false;
}
