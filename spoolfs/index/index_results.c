/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: what becomes of a message's results when another MARK is seen. Invariant IDX-2 (index.h): the outcome is the same in
 * whatever order MARKs come: a final result beats a deferral, and of two equals the one with the higher sequence
 * wins. */
#include "core.h"

#include <base/assert.h>
#include <base/le.h>
#include <stdlib.h>
#include <string.h>

static bool mark_final(const struct mark *m)
{
    return m->status != MARK_PENDING && m->status != MARK_DEFERRED;
}

static bool mark_beats(const struct mark *m, uint64_t sequence, const struct mark *old, uint64_t old_sequence)
{
    if (mark_final(m) != mark_final(old))
        return mark_final(m);
    return sequence >= old_sequence;
}

/* Into the row of results in c->merge_*, which is in order of recipient. */
static void merge_one(struct core *c, uint32_t *count, const struct mark *m, uint64_t sequence)
{
    uint32_t at = *count;
    while (at > 0 && c->merge_marks[at - 1].recipient >= m->recipient)
        at--;
    if (at < *count && c->merge_marks[at].recipient == m->recipient) {
        if (mark_beats(m, sequence, &c->merge_marks[at], c->merge_sequences[at])) {
            c->merge_marks[at] = *m;
            c->merge_sequences[at] = sequence;
        }
        return;
    }
    if (m->recipient >= RECIPIENTS_PER_MESSAGE_MAX)
        return; /* names nobody */
    ASSERT(*count < RECIPIENTS_PER_MESSAGE_MAX);
    memmove(&c->merge_marks[at + 1], &c->merge_marks[at], (*count - at) * sizeof *c->merge_marks);
    memmove(&c->merge_sequences[at + 1], &c->merge_sequences[at], (*count - at) * sizeof *c->merge_sequences);
    c->merge_marks[at] = *m;
    c->merge_sequences[at] = sequence;
    ++*count;
}

static uint32_t merge_load(struct core *c, const struct results *old)
{
    struct mark_cursor cursor;
    struct mark m;
    uint32_t count = 0;
    if (old->mark_count == 0)
        return 0;
    mark_begin(&cursor, old->marks, old->marks_bytes);
    while (mark_next(&cursor, &m) && count < old->mark_count) {
        struct le64 s;
        memcpy(&s, old->sequences + count * 8u, sizeof s);
        c->merge_marks[count] = m;
        c->merge_sequences[count++] = le64_get(s);
    }
    return count;
}

enum err results_merge(struct core *c, const struct results *old, const struct index_record *mark,
                       struct results_merged *out)
{
    uint32_t ignored, count = merge_load(c, old), bytes = 0;
    bool deferral = false;
    struct mark_cursor cursor;
    struct mark m;
    out->results = *old;
    out->bytes = NULL;
    if (mark_check(mark->payload, mark->payload_bytes, &ignored) != ERR_OK)
        return ERR_OK; /* says nothing */
    mark_begin(&cursor, mark->payload, mark->payload_bytes);
    while (mark_next(&cursor, &m)) {
        deferral = deferral || m.status == MARK_DEFERRED;
        merge_one(c, &count, &m, mark->sequence);
    }
    for (uint32_t i = 0; i < count; i++)
        bytes += 64u + c->merge_marks[i].reason_len;
    if (!(out->bytes = malloc(count * 8u + bytes + 1)))
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        struct le64 s = le64_of(c->merge_sequences[i]);
        memcpy(out->bytes + i * 8u, &s, sizeof s);
    }
    enum err e = mark_encode(out->bytes + count * 8u, bytes, c->merge_marks, count, &out->results.marks_bytes);
    ASSERT(e == ERR_OK);
    out->results.mark_count = count;
    out->results.sequences = out->bytes;
    out->results.marks = out->bytes + count * 8u;
    out->results.attempts += deferral && !mark->moved;
    return ERR_OK;
}
