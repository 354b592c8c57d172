/* SPDX-License-Identifier: Apache-2.0 */
/* What was promised: one entry for every message a simulated sender handed over, and the verdicts on what the pool
 * shows afterwards. Pure; knows no disk and no engine.
 *
 *  MOD-1  acknowledged, not retired: there, byte for byte.
 *  MOD-2  not acknowledged: there whole or not at all; once seen, it stays (recovery made it durable).
 *  MOD-3  nothing is there that nobody handed over.
 *  MOD-4  retired with acknowledgement: never there again.
 *  MOD-5  an acknowledged mark or hold holds until a later one replaces it.
 *  MOD-6  of a pool cut in two each half knows its own mail and what it did itself. Mail of before may be seen in either,
 *         or in one, and what was said of it before, or by the other, may be unknown. Put together, all mail is there;
 *         what was retired in the meantime may come once more, and so may a recipient whose result was known.
 *         From then on MOD-1 to MOD-5 hold for all of it.
 *  MOD-7  an append that was never acknowledged, and had been handed over when the pool was cut in two or a member left it running, or was
 *         handed to that pool later in the same mount, may lie with one half only, in a segment that both had. Where that half alone has
 *         shown it, it may be gone when both are put together; seen then, it stays.
 *  MOD-8  mail handed to the running pool after members left it may lie in a segment of before, and those may have taken the segment
 *         table along. A half that its next mount knew by image headers has no mark that says what it freed of these (REC-5):
 *         what it retired of such mail may come once more when all are put together. Never of mail handed over in a later mount. */
#ifndef MODEL_H
#define MODEL_H

#include <base/digest.h>
#include <base/ids.h>
#include <spoolfs/envelope.h>
#include <spoolfs/index.h>
#include <spoolfs/record.h>

#define MODEL_RECIPIENTS_MAX 8u
#define MODEL_ENVELOPE_BYTES_MAX 2048u
#define MODEL_MESSAGES_MAX (1u << 20)

/* How sure the model is of something it asked for. */
enum model_fact { MODEL_NO, MODEL_ASKED, MODEL_YES, MODEL_MAYBE }; /* MAYBE: asked and never answered well */

/* What is known of what was said about a message. */
struct model_facts { enum model_fact retired, held, delivered[MODEL_RECIPIENTS_MAX]; bool was_held; };

struct model_message {
    struct queue_id qid;
    uint64_t seed;
    uint32_t body_bytes, chunk_count, recipients;
    bool bounce;
    struct digest envelope, body;
    bool given;                  /* its body is not made from `seed`, but this */
    struct segment_id segment;   /* its locator when last seen */
    enum model_fact appended, retired;
    enum model_fact held;        /* of the wish in `want_held` */
    bool want_held, was_held;
    enum model_fact delivered[MODEL_RECIPIENTS_MAX];
    bool busy, leased;           /* the world's: an action is under way; the relay holds it */
    struct segment_id written_in; /* where the world saw it written last, and mask of the members that said so */
    uint32_t written_to;
    bool lost_said;              /* the pool has reported it lost */
    struct place place;          /* of its MESSAGE, and the bytes of its envelope, when last listed */
    uint32_t envelope_bytes;
    bool doomed, lost_told;      /* losses.c: a block of it is bad everywhere; an event named it */
    bool waits;                  /* a block of it is bad on every image but those on members that are away */
    bool frame_lost, spoilt;     /* one of its frame is; its frame was chosen */
    uint8_t born;                /* in this half; 0: with all members here */
    bool apart;                  /* MOD-6: of before the cut, while there are halves */
    bool elsewhere;              /* handed to the half that is not here */
    bool parted;                 /* MOD-7: of before the cut or of the mount in which a member left, and not acknowledged */
    uint8_t shown;               /* mask of the halves whose audits saw it since */
    bool adrift, by_header;      /* MOD-8: handed to a running pool that members had left; its segment is known by headers */
    struct model_facts divided, joined; /* at the cut; what both halves make of it */
    uint64_t seen, verified;     /* number of the audit that saw it, that compared every byte */
    uint32_t next;               /* hash chain, index + 1 */
};

struct model {
    struct model_message *messages;
    uint32_t count, capacity;
    uint32_t *buckets;
    uint64_t audits;
    uint8_t half;                /* that is alone now; 0: none */
    uint8_t were_alone;          /* mask: that were, since the cut */
    bool parting;                /* a member has left the pool that runs */
    uint64_t acked, retired;     /* counters */
    uint64_t live_bytes;         /* of bodies that must be there, about: counted anew by each audit */
};

void model_init(struct model *m);
void model_fini(struct model *m);
void model_copy(struct model *to, const struct model *from); /* for verdicts only: nothing can be added */
struct model_message *model_add(struct model *m, struct queue_id qid, uint64_t seed);
struct model_message *model_find(struct model *m, struct queue_id qid);

/* The bytes of part `part` (0 when inline, the CHUNK's number else). */
void model_body(const struct model_message *msg, uint32_t part, uint8_t *bytes, uint32_t length);
uint32_t model_part_bytes(const struct model_message *msg, uint32_t part, uint32_t chunk_bytes);
uint32_t model_envelope(struct model_message *msg, uint64_t arrival_ms, uint8_t *buffer, uint32_t capacity);

/* Answers of the engine; `e` as the group's done said. */
void model_on_appended(struct model *m, struct model_message *msg, enum err e);
void model_on_retired(struct model *m, struct model_message *msg, enum err e);
void model_on_held(struct model_message *msg, enum err e);
void model_on_delivered(struct model_message *msg, uint32_t recipient, enum err e);
void model_on_crash(struct model *m); /* everything under way was never answered */

void model_divide(struct model *m); /* MOD-6: of a pool at rest */
void model_depart(struct model *m); /* the same of one that runs, at each departure: MOD-7 */
void model_half_begin(struct model *m, uint8_t half);
void model_by_headers(struct model *m); /* the half that is alone is mounted by image headers: MOD-8 */
void model_half_end(struct model *m);
void model_join(struct model *m);

/* Verdicts: NULL when all is well, else a static line that says which promise is broken. */
void model_audit_begin(struct model *m);
const char *model_audit_entry(struct model *m, const struct index_entry *e, struct model_message **message_out);
const char *model_audit_envelope(const struct model_message *msg, const uint8_t *envelope, uint32_t bytes);
const char *model_audit_part(const struct model_message *msg, uint32_t part, const uint8_t *bytes, uint32_t length,
                             uint32_t chunk_bytes);
/* After the last entry: the first acknowledged message that was not seen, or NULL. Settles what was uncertain. */
struct model_message *model_audit_missing(struct model *m);
void model_audit_settle(struct model *m);
bool model_must_be_there(const struct model_message *msg);

#endif
