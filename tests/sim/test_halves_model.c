/* SPDX-License-Identifier: Apache-2.0 */
/* What the simulator's model forgives when halves are joined (MOD-7, MOD-8), and nothing beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <model.h>

static void shows(struct model *m, const struct model_message *msg)
{
    struct index_entry e = {.qid = msg->qid};
    struct model_message *found;
    model_audit_begin(m);
    assert_null(model_audit_entry(m, &e, &found));
    model_audit_settle(m);
}

/* MOD-7: what may be gone after a join is an append without an answer that one half alone has shown, and nothing else. */
static void only_an_append_without_an_answer_may_be_gone(void **state)
{
    (void)state;
    static const struct { bool before, departure, acknowledged, second_alone, second_shows, must_stay; } cases[] = {
        {true, true, false, true, false, false}, {false, true, false, true, false, false}, /* under way then, or handed over after it */
        {true, true, true, true, false, true},   {false, true, true, true, false, true},   /* it got its answer */
        {true, false, false, true, false, false}, /* the power went with it under way, and the halves came back apart */
        {true, false, false, true, true, true},  /* the other has it, too */
        {true, true, false, false, false, true}, /* those that left were never mounted without it */
        {true, true, false, true, true, true},   /* both have it */
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model m;
        model_init(&m);
        struct queue_id qid = {1, 2};
        struct model_message *msg = cases[i].before ? model_add(&m, qid, 3) : NULL;
        if (!cases[i].departure)
            model_on_crash(&m);
        (cases[i].departure ? model_depart : model_divide)(&m);
        model_half_begin(&m, 1);
        msg = msg ? msg : model_add(&m, qid, 3);
        if (cases[i].acknowledged)
            model_on_appended(&m, msg, ERR_OK);
        model_on_crash(&m);
        shows(&m, msg);
        assert_true(msg->apart || model_must_be_there(msg)); /* seen once, it stays */
        model_half_end(&m);
        if (cases[i].second_alone)
            model_half_begin(&m, 2);
        if (cases[i].second_shows)
            shows(&m, msg);
        if (cases[i].second_alone)
            model_half_end(&m);
        model_join(&m);
        assert_int_equal(model_must_be_there(msg), cases[i].must_stay);
        shows(&m, msg);
        assert_true(model_must_be_there(msg));
        model_fini(&m);
    }
}

/* MOD-8: what may come once more after a join is mail that the half retired, was handed to the running pool that members had left, and
 * lies in a segment that this half knew by its image header. */
static void only_mail_in_a_segment_known_by_its_header_may_come_once_more(void **state)
{
    (void)state;
    static const struct { bool departure, remounted, headers, other_headers, retired, may_come; } cases[] = {
        {true, false, true, false, true, true},
        {true, false, false, false, true, false},  /* its table is there and says what is dead */
        {true, false, false, true, true, false},   /* the other half has none, which has no part in it */
        {true, true, true, false, true, false},    /* of a later mount: in a segment of its own incarnation */
        {false, false, true, false, true, false},  /* a pool at rest was cut */
        {true, false, true, false, false, false},  /* it is there all the same */
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model m;
        model_init(&m);
        struct queue_id qid = {1, 2};
        (cases[i].departure ? model_depart : model_divide)(&m);
        model_half_begin(&m, 1);
        if (cases[i].remounted)
            model_on_crash(&m);
        struct model_message *msg = model_add(&m, qid, 3);
        model_on_appended(&m, msg, ERR_OK);
        model_on_crash(&m);
        if (cases[i].headers)
            model_by_headers(&m);
        shows(&m, msg);
        if (cases[i].retired)
            model_on_retired(&m, msg, ERR_OK);
        model_half_end(&m);
        model_half_begin(&m, 2);
        if (cases[i].other_headers)
            model_by_headers(&m);
        model_half_end(&m);
        model_join(&m);
        assert_int_equal(model_must_be_there(msg), !cases[i].retired);
        struct index_entry e = {.qid = qid};
        struct model_message *found;
        model_audit_begin(&m);
        assert_int_equal(model_audit_entry(&m, &e, &found) == NULL, !cases[i].retired || cases[i].may_come);
        model_on_retired(&m, msg, ERR_OK); /* from then on it is gone for good */
        model_audit_begin(&m);
        assert_non_null(model_audit_entry(&m, &e, &found));
        model_fini(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_an_append_without_an_answer_may_be_gone),
        cmocka_unit_test(only_mail_in_a_segment_known_by_its_header_may_come_once_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
