/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk's health comes to, by what it says of itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/smart.h"

#include <string.h>

static struct smart_report smart(const char *json)
{
    struct smart_report r;
    smart_parse(json, (uint32_t)strlen(json), &r);
    return r;
}

static void a_disk_is_judged_by_the_worst_it_says(void **state)
{
    (void)state;
    struct smart_report r = smart("{\"smartctl\":{\"exit_status\":0},\"smart_status\":{\"passed\":true},\"model_name\":\"M\"}");
    assert_int_equal(r.verdict, SMART_PASSED);
    assert_string_equal(r.model, "M");
    r = smart("{\"smart_status\":{\"passed\":true},\"ata_smart_attributes\":{\"table\":[{\"id\":5,\"raw\":{\"value\":8}},"
              "{\"id\":197,\"raw\":{\"value\":3}},{\"id\":9,\"raw\":{\"value\":1}}]}}");
    assert_int_equal(r.verdict, SMART_ATTENTION);
    assert_int_equal(r.reallocated, 8);
    assert_int_equal(r.pending, 3);
    assert_non_null(strstr(r.evidence, "3 sectors cannot be read"));
    r = smart("{\"smartctl\":{\"exit_status\":64},\"smart_status\":{\"passed\":true}}");
    assert_int_equal(r.verdict, SMART_ATTENTION);
    r = smart("{\"smartctl\":{\"exit_status\":16},\"smart_status\":{\"passed\":true}}");
    assert_int_equal(r.verdict, SMART_FAILING);
    r = smart("{\"smart_status\":{\"passed\":false},\"ata_smart_attributes\":{\"table\":[{\"id\":198,\"raw\":{\"value\":3}}]}}");
    assert_int_equal(r.verdict, SMART_FAILING);
    assert_int_equal(r.uncorrectable, 3);
}

static void nvme_and_scsi_have_words_of_their_own(void **state)
{
    (void)state;
    struct smart_report r = smart("{\"smart_status\":{\"passed\":true},\"nvme_smart_health_information_log\":{\"critical_warning\":2}}");
    assert_int_equal(r.verdict, SMART_ATTENTION); /* hot */
    r = smart("{\"smart_status\":{\"passed\":true},\"nvme_smart_health_information_log\":{\"critical_warning\":9}}");
    assert_int_equal(r.verdict, SMART_FAILING);
    assert_non_null(strstr(r.evidence, "spare low read-only"));
    r = smart("{\"smart_status\":{\"passed\":true},\"nvme_smart_health_information_log\":{\"percentage_used\":89}}");
    assert_int_equal(r.verdict, SMART_PASSED);
    r = smart("{\"smart_status\":{\"passed\":true},\"nvme_smart_health_information_log\":{\"percentage_used\":90}}");
    assert_int_equal(r.verdict, SMART_ATTENTION);
    r = smart("{\"smart_status\":{\"passed\":true},\"scsi_grown_defect_list\":7}");
    assert_int_equal(r.verdict, SMART_ATTENTION);
    assert_int_equal(r.reallocated, 7);
}

static void what_is_no_answer_is_unknown_with_a_reason(void **state)
{
    (void)state;
    assert_int_equal(smart("").verdict, SMART_UNKNOWN);
    assert_string_equal(smart("no JSON").evidence, "smartctl gave no JSON");
    struct smart_report r = smart("{\"smartctl\":{\"exit_status\":2,\"messages\":[{\"string\":\"open failed\"}]},"
                                  "\"smart_status\":{\"passed\":false}}");
    assert_int_equal(r.verdict, SMART_UNKNOWN);
    assert_string_equal(r.evidence, "open failed");
    assert_string_equal(smart("{}").evidence, "the device has no SMART");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_is_judged_by_the_worst_it_says),
        cmocka_unit_test(nvme_and_scsi_have_words_of_their_own),
        cmocka_unit_test(what_is_no_answer_is_unknown_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
