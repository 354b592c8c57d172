/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the answers. A query runs in a read transaction of its own, after everything fed before it is in the store.
 * What it hands out is copied into the query's result. Invariants: IDX-3. QUERY-1: INDEX_DUE steps from one due
 * destination to the next over head rows; it never looks at the rows of a destination that is skipped, held or not
 * yet due. */
#include "core.h"
#include "result.h"

#include <base/assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static enum err entry_add(struct core *c, struct index_query *q, const struct message *m)
{
    struct message_view v;
    message_look(m, &v, c->destinations);
    uint8_t *bytes = result_bytes(q->result, m->envelope_bytes + m->results.marks_bytes + 1);
    if (!bytes)
        return ERR_NO_MEMORY;
    if (m->envelope_bytes)
        memcpy(bytes, m->envelope, m->envelope_bytes);
    if (m->results.marks_bytes)
        memcpy(bytes + m->envelope_bytes, m->results.marks, m->results.marks_bytes);
    q->entries[q->entry_count++] = (struct index_entry){
        .qid = m->qid, .place = m->place, .digest = m->digest, .state = v.state, .chunk_count = m->chunk_count,
        .attempts = v.attempts, .next_due_ms = v.next_due_ms, .envelope = bytes, .envelope_bytes = m->envelope_bytes,
        .marks = bytes + m->envelope_bytes, .marks_bytes = m->results.marks_bytes};
    return ERR_OK;
}

static enum err entries_begin(struct index_query *q, uint32_t max)
{
    q->entry_count = 0;
    q->more = false;
    q->entries = result_bytes(q->result, (max + 1) * (uint32_t)sizeof *q->entries);
    return q->entries ? ERR_OK : ERR_NO_MEMORY;
}

static bool entries_full(const struct index_query *q, uint32_t max)
{
    return q->entry_count >= max || (q->entry_count > 0 && result_used(q->result) >= INDEX_QUERY_BYTES_MAX);
}

static uint32_t entries_max(const struct index_query *q)
{
    return q->max && q->max < INDEX_QUERY_ENTRIES_MAX ? q->max : INDEX_QUERY_ENTRIES_MAX;
}

/* --- LOOKUP, LIVE, LIST --- */

/* The first message of that id. */
static enum err message_first(struct core *c, struct queue_id qid, struct message *m_out)
{
    struct key from = key_messages(qid);
    struct bytes key, value;
    enum err e = store_seek(c->store, key_bytes(&from), &key, &value);
    if (e != ERR_OK)
        return e;
    return key_begins(key, &from) ? message_decode(key, value, m_out) : ERR_NOT_FOUND;
}

static enum err answer_lookup(struct core *c, struct index_query *q)
{
    struct message m;
    enum err e = entries_begin(q, 1);
    if (e == ERR_OK)
        e = message_first(c, q->qid, &m);
    return e == ERR_OK ? entry_add(c, q, &m) : e;
}

static enum err answer_live(struct core *c, struct index_query *q)
{
    q->live = result_bytes(q->result, q->qid_count + 1);
    if (!q->live)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < q->qid_count; i++) {
        struct message m;
        enum err e = message_first(c, q->qids[i], &m);
        if (e != ERR_OK && e != ERR_NOT_FOUND)
            return e;
        q->live[i] = e == ERR_OK;
    }
    return ERR_OK;
}

/* Messages with one queue id stay on one page: the cursor is a queue id. */
static enum err answer_list(struct core *c, struct index_query *q)
{
    const struct key kind = key_of('m');
    struct key from = key_messages(q->qid);
    struct bytes key, value;
    uint32_t max = entries_max(q);
    enum err e = entries_begin(q, max + ITEMS_MAX);
    if (e != ERR_OK)
        return e;
    from = queue_id_is_none(q->qid) ? kind : key_after(&from);
    if (queue_id_is_none(q->qid))
        store_soon(c->store);
    for (e = store_seek(c->store, key_bytes(&from), &key, &value); e == ERR_OK && key_begins(key, &kind);
         e = store_next(c->store, &key, &value)) {
        struct message m;
        bool same = q->entry_count > 0 && queue_id_equal(key_qid_at(key, 1), q->qid);
        if (entries_full(q, max) && (!same || q->entry_count >= max + ITEMS_MAX)) {
            q->more = true;
            return ERR_OK;
        }
        if ((e = message_decode(key, value, &m)) == ERR_OK)
            e = entry_add(c, q, &m);
        if (e != ERR_OK)
            return e;
        q->qid = m.qid;
    }
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* --- DUE --- */

struct due_lane { uint64_t destination; struct key at; bool dry; };

struct due {
    struct index_query *q;
    uint32_t max, lane_count;
    struct due_lane *lanes;
    struct map taken;
};

static bool due_skipped(const struct index_query *q, uint64_t destination)
{
    uint32_t low = 0, high = q->skip_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (q->skip[middle] == destination)
            return true;
        if (q->skip[middle] < destination)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static enum err due_take(struct core *c, struct due *d, struct queue_id qid, struct digest digest)
{
    struct key k = key_message(qid, digest);
    struct bytes value;
    struct message m;
    enum err e = store_get(c->store, key_bytes(&k), &value);
    if (e == ERR_NOT_FOUND)
        return ERR_CORRUPT; /* a due row without its message */
    if (e == ERR_OK)
        e = message_decode(key_bytes(&k), value, &m);
    if (e == ERR_OK)
        e = entry_add(c, d->q, &m);
    return e == ERR_OK ? map_put(&d->taken, qid.incarnation, qid.counter, d) : e;
}

/* The next message of this lane that may go; lane->dry when there is none. */
static enum err due_step(struct core *c, struct due *d, struct due_lane *lane)
{
    struct key kind = key_of('d');
    struct bytes key, value;
    struct due_row row;
    key_add(&kind, lane->destination);
    enum err e = store_seek(c->store, key_bytes(&lane->at), &key, &value);
    for (; e == ERR_OK && key_begins(key, &kind) && key_u64(key, 9) <= d->q->now_ms;
         e = store_next(c->store, &key, &value)) {
        struct queue_id qid = key_qid_at(key, 17);
        if (map_get(&c->leases, qid.incarnation, qid.counter) || map_get(&d->taken, qid.incarnation, qid.counter) ||
            map_get(&c->retiring, qid.incarnation, qid.counter))
            continue;
        if ((e = due_decode(key, value, &row)) != ERR_OK)
            return e;
        lane->at = key_due(lane->destination, key_u64(key, 9), qid, key_digest_at(key, 33));
        lane->at = key_after(&lane->at);
        return due_take(c, d, qid, key_digest_at(key, 33));
    }
    lane->dry = true;
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* Head rows behind `from` and up to `to`: one message of each destination. */
static enum err due_heads(struct core *c, struct due *d, struct key from, const struct key *to)
{
    const struct key kind = key_of('e');
    bool there = false; /* the cursor is at the head row before */
    while (!entries_full(d->q, d->max)) {
        struct bytes key, value, nothing;
        enum err e = there ? store_next(c->store, &key, &value) : store_seek(c->store, key_bytes(&from), &key, &value);
        if (e != ERR_OK)
            return e == ERR_NOT_FOUND ? ERR_OK : e;
        if (!key_begins(key, &kind) || key.len != 17 || key_u64(key, 1) > d->q->now_ms ||
            (to && memcmp(key.at, to->b, 17) > 0))
            return ERR_OK;
        if (value_open(key, value, &nothing) != ERR_OK)
            return ERR_CORRUPT;
        struct due_lane lane = {.destination = key_u64(key, 9)};
        there = due_skipped(d->q, lane.destination);
        if (there)
            continue;
        struct key head = key_head(key_u64(key, 1), lane.destination);
        from = key_after(&head);
        lane.at = key_of('d');
        key_add(&lane.at, lane.destination);
        if ((e = due_step(c, d, &lane)) != ERR_OK)
            return e;
        if (lane.dry)
            continue;
        c->due_cursor = head;
        d->lanes[d->lane_count++] = lane;
    }
    return ERR_OK;
}

static enum err answer_due(struct core *c, struct index_query *q)
{
    struct due d = {.q = q, .max = entries_max(q)};
    enum err e = entries_begin(q, d.max);
    if (e != ERR_OK || c->replaying)
        return e;
    d.lanes = calloc(d.max + 1, sizeof *d.lanes);
    if (!d.lanes)
        return ERR_NO_MEMORY;
    const struct key start = c->due_cursor;
    bool behind = start.len > 1;
    e = due_heads(c, &d, behind ? key_after(&start) : start, NULL);
    if (e == ERR_OK && behind)
        e = due_heads(c, &d, key_of('e'), &start);
    for (bool moved = true; moved && e == ERR_OK;) {
        moved = false;
        for (uint32_t i = 0; i < d.lane_count && e == ERR_OK && !entries_full(q, d.max); i++) {
            if (d.lanes[i].dry)
                continue;
            e = due_step(c, &d, &d.lanes[i]);
            moved = moved || !d.lanes[i].dry;
        }
        moved = moved && !entries_full(q, d.max);
    }
    q->more = entries_full(q, d.max);
    free(d.lanes);
    map_free(&d.taken);
    return e;
}

/* --- CHUNKS --- */

static enum err answer_chunks(struct core *c, struct index_query *q)
{
    struct message m;
    uint32_t max = q->max && q->max < CHUNKS_PER_MESSAGE_MAX ? q->max : CHUNKS_PER_MESSAGE_MAX;
    enum err e = message_first(c, q->qid, &m);
    bool message = e == ERR_OK;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    if (message)
        max = m.chunk_count <= q->first ? 0 : m.chunk_count - q->first < max ? m.chunk_count - q->first : max;
    else if (max > INDEX_QUERY_ENTRIES_MAX)
        max = INDEX_QUERY_ENTRIES_MAX;
    q->chunks = result_bytes(q->result, (max + 1) * (uint32_t)sizeof *q->chunks);
    if (!q->chunks)
        return ERR_NO_MEMORY;
    uint32_t count = 0;
    for (; count < max; count++) {
        struct key k = key_chunk(q->qid, q->first + count);
        struct bytes value;
        struct chunk_row row;
        e = store_get(c->store, key_bytes(&k), &value);
        if (e == ERR_NOT_FOUND)
            break;
        if (e == ERR_OK)
            e = chunk_decode(key_bytes(&k), value, &row);
        if (e != ERR_OK)
            return e;
        q->chunks[count].place = row.place;
        q->chunks[count].digest = row.digest;
    }
    if (message && count < max) {
        q->first += count;
        return ERR_LOST;
    }
    q->max = count;
    return count ? ERR_OK : ERR_NOT_FOUND;
}

/* --- COPIES --- */

static enum err answer_copies(struct core *c, struct index_query *q)
{
    q->copies = result_bytes(q->result, INDEX_COPIES_MAX * (uint32_t)sizeof *q->copies);
    if (!q->copies)
        return ERR_NO_MEMORY;
    return copies_list(c, q->qid, q->copies, INDEX_COPIES_MAX, &q->copy_count);
}

/* --- SUMMARY, DOMAINS --- */

static enum err answer_summary(struct core *c, struct index_query *q)
{
    const struct key kind = key_of('a');
    struct bytes key, value;
    enum err e = store_seek(c->store, key_bytes(&kind), &key, &value);
    q->counts = (struct index_counts){.messages = c->counts.messages, .recipients = c->counts.recipients,
                                      .active = c->counts.active, .deferred = c->counts.deferred,
                                      .hold = c->counts.hold, .bytes = c->counts.bytes};
    if (e == ERR_OK && key_begins(key, &kind))
        q->counts.oldest_ms = key_u64(key, 1);
    const struct key heads = key_of('e');
    if (e == ERR_OK || e == ERR_NOT_FOUND)
        e = store_seek(c->store, key_bytes(&heads), &key, &value);
    if (e == ERR_OK && key_begins(key, &heads) && key.len == 17)
        q->counts.due_ms = key_u64(key, 1);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

struct domain_sum { uint64_t destination, messages, recipients, oldest_ms; struct queue_id qid; struct digest digest; };

static int domain_compare(const void *a, const void *b)
{
    const struct domain_sum *x = a, *y = b;
    if (x->messages != y->messages)
        return x->messages > y->messages ? -1 : 1;
    return (x->destination > y->destination) - (x->destination < y->destination);
}

/* Keeps the `max` with the most messages. */
static void domain_keep(struct domain_sum *kept, uint32_t *count, uint32_t max, const struct domain_sum *one)
{
    if (one->messages == 0)
        return;
    if (*count < max) {
        kept[(*count)++] = *one;
        return;
    }
    uint32_t least = 0;
    for (uint32_t i = 1; i < *count; i++)
        if (domain_compare(&kept[i], &kept[least]) > 0)
            least = i;
    if (domain_compare(one, &kept[least]) < 0)
        kept[least] = *one;
}

/* The domain as a recipient of one of its messages spells it, in lower case. */
static enum err domain_text(struct core *c, const struct domain_sum *s, char text[256])
{
    struct key k = key_message(s->qid, s->digest);
    struct bytes value;
    struct message m;
    struct envelope e;
    struct envelope_cursor cursor;
    const char *address;
    uint32_t len;
    text[0] = 0;
    enum err err = store_get(c->store, key_bytes(&k), &value);
    if (err != ERR_OK || (err = message_decode(key_bytes(&k), value, &m)) != ERR_OK)
        return err == ERR_NOT_FOUND ? ERR_CORRUPT : err;
    if (envelope_decode(m.envelope, m.envelope_bytes, &e) != ERR_OK)
        return ERR_OK;
    envelope_recipients(&e, &cursor);
    while (envelope_recipient_next(&cursor, &address, &len)) {
        const char *at = len ? memrchr(address, '@', len) : NULL;
        if (!at || envelope_destination(address, len) != s->destination)
            continue;
        uint32_t domain_len = len - (uint32_t)(at + 1 - address);
        for (uint32_t i = 0; i < domain_len && i < 255; i++) {
            text[i] = (char)tolower((unsigned char)at[1 + i]);
            text[i + 1] = 0;
        }
        return ERR_OK;
    }
    return ERR_OK;
}

static enum err domains_sum(struct core *c, struct domain_sum *kept, uint32_t *count, uint32_t max)
{
    const struct key kind = key_of('d');
    struct domain_sum sum = {0};
    struct bytes key, value;
    enum err e;
    for (e = store_seek(c->store, key_bytes(&kind), &key, &value); e == ERR_OK && key_begins(key, &kind);
         e = store_next(c->store, &key, &value)) {
        struct due_row row;
        if ((e = due_decode(key, value, &row)) != ERR_OK)
            return e;
        uint64_t destination = key_u64(key, 1);
        if (sum.messages && sum.destination != destination) {
            domain_keep(kept, count, max, &sum);
            sum.messages = 0;
        }
        if (sum.messages == 0)
            sum = (struct domain_sum){.destination = destination, .oldest_ms = row.arrival_ms,
                                      .qid = key_qid_at(key, 17), .digest = key_digest_at(key, 33)};
        sum.messages++;
        sum.recipients += row.recipients;
        sum.oldest_ms = row.arrival_ms < sum.oldest_ms ? row.arrival_ms : sum.oldest_ms;
    }
    domain_keep(kept, count, max, &sum);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err answer_domains(struct core *c, struct index_query *q)
{
    uint32_t max = entries_max(q), count = 0;
    struct domain_sum *kept = calloc(max, sizeof *kept);
    q->domain_count = 0;
    q->domains = result_bytes(q->result, max * (uint32_t)sizeof *q->domains);
    enum err e = kept && q->domains ? domains_sum(c, kept, &count, max) : ERR_NO_MEMORY;
    if (e == ERR_OK && count)
        qsort(kept, count, sizeof *kept, domain_compare);
    for (uint32_t i = 0; i < count && e == ERR_OK; i++) {
        struct index_domain *d = &q->domains[q->domain_count++];
        *d = (struct index_domain){.destination = kept[i].destination, .messages = kept[i].messages,
                                   .recipients = kept[i].recipients, .oldest_ms = kept[i].oldest_ms};
        e = domain_text(c, &kept[i], d->domain);
    }
    free(kept);
    return e;
}

/* --- */

static enum err answer(struct core *c, struct index_query *q)
{
    switch (q->kind) {
    case INDEX_LOOKUP:
        return answer_lookup(c, q);
    case INDEX_DUE:
        return answer_due(c, q);
    case INDEX_LIST:
        return answer_list(c, q);
    case INDEX_LIVE:
        return answer_live(c, q);
    case INDEX_CHUNKS:
        return answer_chunks(c, q);
    case INDEX_COPIES:
        return answer_copies(c, q);
    case INDEX_SUMMARY:
        return answer_summary(c, q);
    case INDEX_DOMAINS:
        return answer_domains(c, q);
    case INDEX_BARRIER:
        break;
    }
    return ERR_OK;
}

enum err core_answer(struct core *c, struct index_query *q)
{
    if (c->damaged)
        return ERR_CORRUPT;
    if (q->kind == INDEX_BARRIER) {
        enum err synced = q->sync ? store_sync(c->store) : ERR_OK;
        if (synced == ERR_CORRUPT)
            core_damage(c, "the file could not be synced");
        return synced;
    }
    q->result = result_new();
    if (!q->result)
        return ERR_NO_MEMORY;
    enum err e = store_begin(c->store, false);
    if (e != ERR_OK)
        return e;
    e = answer(c, q);
    store_abort(c->store);
    if (e == ERR_CORRUPT)
        core_damage(c, "a row fails its check");
    if (e != ERR_OK) {
        q->entry_count = q->domain_count = 0;
        q->more = false;
    }
    return e;
}
