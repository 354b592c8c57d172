/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon answers is foreign to the tools: whatever comes, reading it yields something and never fails. */
#include "../../tools/doc.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct doc *parsed(const char *text)
{
    struct doc *d = NULL;
    assert_int_equal(doc_parse(text, strlen(text), &d), ERR_OK);
    return d;
}

static void a_path_leads_to_the_value(void **state)
{
    struct doc *d = parsed("{\"pool\":{\"state\":\"healthy\",\"epoch\":7},\"n\":2.5,\"yes\":true,\"list\":[{\"a\":1},{\"a\":2}]}");
    (void)state;
    assert_string_equal(doc_text(d, "pool.state"), "healthy");
    assert_int_equal(doc_count(d, "pool.epoch"), 7);
    assert_true(doc_number(d, "n") == 2.5);
    assert_true(doc_true(d, "yes"));
    assert_int_equal(doc_length(d, "list"), 2);
    assert_int_equal(doc_count(doc_item(d, "list", 1), "a"), 2);
    doc_free(&d);
}

static void what_is_missing_or_of_another_type_reads_as_nothing(void **state)
{
    struct doc *d = parsed("{\"text\":\"x\",\"object\":{},\"null\":null,\"negative\":-5}");
    (void)state;
    static const char *const paths[] = {"absent", "text.below", "object.absent", "null", "null.below", "", ".", "a.b.c.d.e"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_string_equal(doc_text(d, paths[i]), "");
        assert_int_equal(doc_count(d, paths[i]), 0);
        assert_int_equal(doc_length(d, paths[i]), 0);
        assert_null(doc_item(d, paths[i], 0));
        assert_false(doc_true(d, paths[i]));
    }
    assert_int_equal(doc_count(d, "negative"), 0);
    assert_int_equal(doc_count(d, "text"), 0);
    doc_free(&d);
    assert_string_equal(doc_text(NULL, "any"), "");
}

static void a_key_longer_than_any_of_ours_is_not_found(void **state)
{
    char path[300];
    struct doc *d = parsed("{}");
    (void)state;
    memset(path, 'k', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_string_equal(doc_text(d, path), "");
    doc_free(&d);
}

static void what_is_no_document_is_refused(void **state)
{
    static const char *const texts[] = {"", "{", "}", "{\"a\":1", "{\"a\":1}{", "\xff\xfe", "{\"a\":1,\"a\":2}", "nul"};
    struct doc *d = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(doc_parse(texts[i], strlen(texts[i]), &d), ERR_INVALID);
    assert_null(d);
}

static void what_is_built_reads_back_and_stays_in_order(void **state)
{
    struct doc *d = doc_object(), *list = doc_array();
    (void)state;
    doc_set_text(d, "z", "first");
    doc_set_count(d, "a", UINT64_C(1) << 53);
    doc_set_bool(d, "m", true);
    doc_append_text(list, "one");
    doc_set(d, "list", list);
    char *line = doc_line(d);
    assert_string_equal(line, "{\"z\":\"first\",\"a\":9007199254740992,\"m\":true,\"list\":[\"one\"]}");
    free(line);
    doc_free(&d);
}

static void bytes_that_are_not_utf8_become_question_marks(void **state)
{
    struct doc *d = doc_object();
    (void)state;
    doc_set_text(d, "path", "/srv/\xff\xfe/a");
    assert_string_equal(doc_text(d, "path"), "/srv/\?\?/a");
    doc_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_leads_to_the_value),
        cmocka_unit_test(what_is_missing_or_of_another_type_reads_as_nothing),
        cmocka_unit_test(a_key_longer_than_any_of_ours_is_not_found),
        cmocka_unit_test(what_is_no_document_is_refused),
        cmocka_unit_test(what_is_built_reads_back_and_stays_in_order),
        cmocka_unit_test(bytes_that_are_not_utf8_become_question_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
